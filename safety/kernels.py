"""The compiled channel of the safety layer: ``evaluate`` (interlocks) and ``enforce`` (envelopes).

Plain functions over preallocated arrays, run ahead-of-time compiled, jitted, or as they stand. No allocation, no
exceptions; predicates are written as ``not (low <= x <= high)`` so that NaN is a violation.

``enforce``, one output in one scan. Rows further down take precedence; every cause stays in the verdict.

=========================  =========================================  ===============================================
what happened              output                                     memory afterwards
=========================  =========================================  ===============================================
OK, a good request         clamped, step- and rate-limited, min on    anchor = the output, at the present time; good
                           and off, dead band
HOLD_*, last one was good  the last output                            the anchor's time moves on; still good
HOLD_*, last one was not   fail-safe                                  as fail-safe
NaN, infinity, a value     fail-safe at once                          anchor = the fail-safe value: the way back is
that is not allowed, any                                              step- and rate-limited from there; not good
other request state
both of an exclusive pair  both fail-safe: the function is wrong,     as fail-safe
asked above idle at once   neither is believed
one of a pair already      the other goes to idle; fail-safe beats    the loser is anchored at idle; not good
above idle                 a request, a trip beats both
tripped                    the forced value at once                   anchor = the forced value; not good
relinquish (fail-safe or   NaN, and the relinquish flag               no anchor: the way back starts from ``present`` if
forced)                                                               that is known, else idle; counts as switched
=========================  =========================================  ===============================================

Fail-safe, trips and giving way ignore step, rate and min-on. Switching *on* always waits for min-off, whatever asks:
until then the output keeps what it has. Fresh memory counts as "just switched".

An output that is not due keeps its value and verdict unless a trip or its pair changes it. So it stays where a trip
left it until a fresh request comes: a reset starts nothing.

A change smaller than the dead band is not made, except onto a limit or idle: a valve must be able to close. While the
dead band swallows a rate-limited move, the rate's time is not used up, or a slow rate could never leave the dead band.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]
    Bytes = npt.NDArray[np.uint8]
    Ints = npt.NDArray[np.int32]
    Words = npt.NDArray[np.uint32]

# RequestState
OK, INPUT_BAD, FUNCTION_FAILED, DEADLINE_MISSED, HOLD_FAILED, HOLD_DEADLINE = range(1, 7)

# Verdict bits
V_CLAMPED_LOW = 1 << 0
V_CLAMPED_HIGH = 1 << 1
V_STEP_LIMITED = 1 << 2
V_RATE_LIMITED = 1 << 3
V_MIN_ON_HELD = 1 << 4
V_MIN_OFF_HELD = 1 << 5
V_NOT_FINITE = 1 << 6
V_INPUT_BAD = 1 << 7
V_FUNCTION_FAILED = 1 << 8
V_DEADLINE_MISSED = 1 << 9
V_HELD = 1 << 10
V_FAIL_SAFE = 1 << 11
V_TRIPPED = 1 << 12
V_EXCLUSIVE = 1 << 13
V_DEAD_BAND = 1 << 14
V_NOT_ALLOWED = 1 << 15
V_UNKNOWN_HISTORY = 1 << 17
CAUSES = V_NOT_FINITE | V_INPUT_BAD | V_FUNCTION_FAILED | V_DEADLINE_MISSED | V_NOT_ALLOWED

# Rows of ``limits``, f8 (11, n_out)
LOW, HIGH, FAIL_SAFE, MAX_STEP, MAX_RATE, DEAD_BAND, MIN_ON, MIN_OFF, IDLE, MIDDLE, TOLERANCE = range(11)
LIMIT_ROWS = 11

# Rows of ``memory``, f8 (3, n_out): the last output (NaN: relinquished), when it was made, when it last went on or
# off (NaN: unknown)
LAST, MADE, SWITCHED = range(3)
MEMORY_ROWS = 3

# Rows of ``marks``, u1 (4, n_out): came from a good request; history known; who had the say; pair asked on together
GOOD, KNOWN, RANK, CONTRADICTED = range(4)
MARK_ROWS = 4
RANK_REQUEST, RANK_FAIL_SAFE, RANK_FORCED = range(3)

# Interlock status. 0, fresh memory, forces the outputs.
STARTUP, CLEAR, PENDING, TRIPPED, RESETTABLE = range(5)

# Rows of ``clocks``, f8 (3, n_interlocks): since when the trip, and the clear condition, hold (NaN: not); when it
# last tripped
HELD_SINCE, CLEAR_SINCE, TRIPPED_AT = range(3)
CLOCK_ROWS = 3

# Rows of ``delays``, f8 (2, n_interlocks)
TRIP_DELAY, CLEAR_DELAY = range(2)

# Causes of a trip other than the index of a bad point
CAUSE_CONDITION = -1
CAUSE_NONE = -2

# Operations of a condition's postfix program
OP_LT, OP_LE, OP_GT, OP_GE, OP_EQ, OP_NE, OP_AND, OP_OR, OP_NOT = range(9)

QUALITY_GOOD = 2

_F8, _F8_2D, _I4, _I4_2D, _U1 = (
    f"Array({kind}, {dimensions}, 'C', readonly=True)"
    for kind, dimensions in (("f8", 1), ("f8", 2), ("i4", 1), ("i4", 2), ("u1", 1))
)
SIGNATURES: dict[str, str] = {
    "enforce": f"""void(f8, f8[::1], u1[::1], u1[::1], f8[::1],
        {_F8_2D}, {_I4}, {_F8}, {_I4_2D},
        f8[::1], u1[::1],
        f8[:,::1], u1[:,::1], f8[::1], u1[::1], u4[::1])""",
    "evaluate": f"""i8(f8, f8[::1], u1[::1],
        {_I4_2D}, {_F8_2D}, {_I4}, {_I4}, {_I4}, {_F8_2D}, {_U1},
        {_I4}, {_I4}, {_F8}, {_F8},
        u1[::1], f8[:,::1], i4[::1], f8[::1], u1[::1], i4[::1])""",
}
HELPERS: tuple[str, ...] = (
    "asks_on", "request_cause", "nearest_allowed", "waits", "may_not_close", "swallowed", "approach",
    "give_way", "judge", "constrain", "settle_pairs", "commit", "run", "first_bad", "gives_way", "collect",
)  # fmt: skip


def asks_on(request: float, state: int, idle: float) -> bool:
    """Whether a believable request asks for more than idle."""
    return state == OK and math.isfinite(request) and request > idle


def request_cause(state: int) -> int:
    """The verdict bits of a request state."""
    if state == INPUT_BAD:
        return V_INPUT_BAD
    if state in (FUNCTION_FAILED, HOLD_FAILED):
        return V_FUNCTION_FAILED
    if state in (DEADLINE_MISSED, HOLD_DEADLINE):
        return V_DEADLINE_MISSED
    return 0


def nearest_allowed(value: float, tolerance: float, allowed: Floats, first: int, end: int) -> float:
    """The allowed value that is meant, NaN if none is."""
    for k in range(first, end):
        if abs(value - float(allowed[k])) <= tolerance:
            return float(allowed[k])
    return math.nan


def waits(now: float, target: float, last: float, switched: float, middle: float, min_off: float) -> bool:
    """Whether going to ``target`` switches on before min-off is over. An unknown clock reading waits."""
    return target > middle and not last > middle and not (now - switched >= min_off)


def may_not_close(now: float, target: float, last: float, switched: float, middle: float, min_on: float) -> bool:
    """Whether going to ``target`` switches off before min-on is over."""
    return last > middle and not target > middle and not (now - switched >= min_on)


def swallowed(value: float, last: float, dead_band: float, low: float, high: float, idle: float) -> bool:
    """Whether a move is inside the dead band. A hair less, so that a step of just the dead band is made."""
    return value not in (last, low, high, idle) and abs(value - last) < dead_band * (1.0 - 1e-9)


def approach(
    now: float, target: float, last: float, present: float, made: float,
    low: float, high: float, max_step: float, max_rate: float, idle: float,
) -> tuple[float, int]:  # fmt: skip
    """Clamp, then limit the step and the rate from where the output is. Returns (value, verdict bits)."""
    bits = 0
    if target < low:
        target = low
        bits |= V_CLAMPED_LOW
    elif target > high:
        target = high
        bits |= V_CLAMPED_HIGH
    base = last
    if math.isnan(base):
        base = idle
        if present >= low:
            base = min(present, high)
    value = target
    if not abs(value - base) <= max_step:
        value = base + max_step if target > base else base - max_step
        bits |= V_STEP_LIMITED
    if max_rate < math.inf:
        passed = now - made
        reach = max_rate * passed if passed > 0.0 else 0.0  # an unknown or backward clock allows no move
        if not abs(value - base) <= reach:
            value = base + reach if target > base else base - reach
            bits |= V_RATE_LIMITED
    return value, bits


def give_way(i: int, idle: float, marks: Bytes, out: Floats, verdict: Words) -> None:
    """Send one output of an exclusive pair to idle."""
    out[i] = idle
    marks[GOOD, i] = 0
    verdict[i] |= V_EXCLUSIVE


def settle_pairs(pairs: Ints, limits: Floats, memory: Floats, marks: Bytes, out: Floats, verdict: Words) -> None:
    """Let at most one output of each pair be above idle. Only ever lowers outputs, so one pair cannot undo another."""
    for p in range(pairs.shape[0]):
        a, b = int(pairs[p, 0]), int(pairs[p, 1])
        idle_a, idle_b = limits[IDLE, a], limits[IDLE, b]
        if not (out[a] > idle_a and out[b] > idle_b):
            continue
        rank_a, rank_b = marks[RANK, a], marks[RANK, b]
        was_a, was_b = memory[LAST, a] > idle_a, memory[LAST, b] > idle_b
        if rank_a == RANK_FORCED and rank_b == RANK_FORCED:
            verdict[a] |= V_EXCLUSIVE  # two interlocks say so: trips outrank the pair, and it is reported
            verdict[b] |= V_EXCLUSIVE
        elif rank_a > rank_b or (rank_a == rank_b and was_a and not was_b):
            give_way(b, idle_b, marks, out, verdict)
        elif rank_b > rank_a or (was_b and not was_a):
            give_way(a, idle_a, marks, out, verdict)
        else:
            give_way(a, idle_a, marks, out, verdict)
            give_way(b, idle_b, marks, out, verdict)


def judge(
    request: Floats, request_state: Bytes, due: Bytes,
    limits: Floats, allowed_start: Ints, allowed: Floats, forced: Floats, forced_flag: Bytes,
    memory: Floats, marks: Bytes, out: Floats, verdict: Words,
) -> None:  # fmt: skip
    """Decide for every output that is due or forced who has the say: the request, its fail-safe value, or a trip."""
    for i in range(limits.shape[1]):
        is_due, is_forced = due[i] != 0, forced_flag[i] != 0
        if not is_due and not is_forced:
            if marks[RANK, i] == RANK_FORCED:
                marks[RANK, i] = RANK_REQUEST
            continue
        fail_safe = float(limits[FAIL_SAFE, i])
        value, bits, good = float(memory[LAST, i]), int(verdict[i]) & CAUSES, False
        if is_due:
            state = int(request_state[i])
            bits = request_cause(state)
            if state == OK:
                value = float(request[i])
                if not math.isfinite(value):
                    bits |= V_NOT_FINITE
                elif allowed_start[i + 1] > allowed_start[i]:
                    first, end = allowed_start[i], allowed_start[i + 1]
                    value = nearest_allowed(value, limits[TOLERANCE, i], allowed, first, end)
                    if math.isnan(value):
                        bits |= V_NOT_ALLOWED
                if marks[CONTRADICTED, i] != 0:
                    bits |= V_EXCLUSIVE
                good = bits == 0
            elif state in (HOLD_FAILED, HOLD_DEADLINE) and marks[GOOD, i] != 0:
                bits |= V_HELD
                good = True
        rank = RANK_REQUEST
        if is_forced:
            bits |= V_TRIPPED
            rank, good, value = RANK_FORCED, False, float(forced[i])
            if not (limits[LOW, i] <= value <= limits[HIGH, i]) and not math.isnan(value):
                value = fail_safe
        elif not good:
            rank, value = RANK_FAIL_SAFE, fail_safe
        if rank != RANK_REQUEST and (value == fail_safe or (math.isnan(value) and math.isnan(fail_safe))):
            bits |= V_FAIL_SAFE
        out[i] = value
        verdict[i] = bits
        marks[RANK, i] = rank
        marks[GOOD, i] = 1 if good else 0


def constrain(
    now: float, due: Bytes, present: Floats, limits: Floats, forced_flag: Bytes,
    memory: Floats, marks: Bytes, out: Floats, verdict: Words,
) -> None:  # fmt: skip
    """Bring what was decided within limits, step, rate, min on and off, and the dead band."""
    for i in range(limits.shape[1]):
        if due[i] == 0 and forced_flag[i] == 0:
            continue
        low, high, idle = float(limits[LOW, i]), float(limits[HIGH, i]), float(limits[IDLE, i])
        middle = float(limits[MIDDLE, i])
        last, switched, rank = float(memory[LAST, i]), float(memory[SWITCHED, i]), int(marks[RANK, i])
        value, bits = float(out[i]), int(verdict[i])
        if rank == RANK_REQUEST:
            max_step, max_rate = float(limits[MAX_STEP, i]), float(limits[MAX_RATE, i])
            there, made = float(present[i]), float(memory[MADE, i])
            value, how = approach(now, value, last, there, made, low, high, max_step, max_rate, idle)
            bits |= how
            if may_not_close(now, value, last, switched, middle, limits[MIN_ON, i]):
                value = last
                bits |= V_MIN_ON_HELD
        if waits(now, value, last, switched, middle, limits[MIN_OFF, i]):
            value = last
            bits |= V_MIN_OFF_HELD
            if math.isnan(value):
                marks[GOOD, i] = 0
        if rank == RANK_REQUEST and swallowed(value, last, limits[DEAD_BAND, i], low, high, idle):
            value = last
            bits |= V_DEAD_BAND
        if marks[KNOWN, i] == 0 and (bits & (V_MIN_ON_HELD | V_MIN_OFF_HELD)) != 0:
            bits |= V_UNKNOWN_HISTORY
        out[i] = value
        verdict[i] = bits


def commit(
    now: float, due: Bytes, forced_flag: Bytes, limits: Floats,
    memory: Floats, marks: Bytes, out: Floats, relinquish: Bytes, verdict: Words,
) -> None:  # fmt: skip
    """Remember what every output was given, and when."""
    gave_nothing = V_RATE_LIMITED | V_DEAD_BAND
    for i in range(limits.shape[1]):
        value, last, middle = float(out[i]), float(memory[LAST, i]), float(limits[MIDDLE, i])
        gone, was_gone = math.isnan(value), math.isnan(last)
        relinquish[i] = 1 if gone else 0
        passed = now - float(memory[SWITCHED, i])
        if (value > middle) != (last > middle) or gone != was_gone:
            memory[SWITCHED, i] = now
            marks[KNOWN, i] = 1
        elif passed >= limits[MIN_ON, i] and passed >= limits[MIN_OFF, i]:
            marks[KNOWN, i] = 1
        touched = due[i] != 0 or forced_flag[i] != 0
        if not (value == last or (gone and was_gone)) or (touched and (verdict[i] & gave_nothing) != gave_nothing):
            memory[MADE, i] = now
        memory[LAST, i] = value


def enforce(
    now: float, request: Floats, request_state: Bytes, due: Bytes, present: Floats,
    limits: Floats, allowed_start: Ints, allowed: Floats, pairs: Ints,
    forced: Floats, forced_flag: Bytes,
    memory: Floats, marks: Bytes, out: Floats, relinquish: Bytes, verdict: Words,
) -> None:  # fmt: skip
    """Turn requests into outputs; see the table at the top of the file.

    Args:
        now: control clock, s.
        request, request_state, due: shape (n_out,): what Operate asks, its ``RequestState``, and 1 where the unit is in
            this scan.
        present: (n_out,) what the equipment holds where nothing is commanded; NaN = unknown. Used as anchor after
            relinquishing.
        limits, allowed_start, allowed, pairs: the frozen tables; rows as named above, allowed values of output i at
            ``allowed[allowed_start[i]:allowed_start[i + 1]]``.
        forced, forced_flag: (n_out,) from ``evaluate``; NaN with the flag = relinquish.
        memory, marks: in and out; rows as named above.
        out, relinquish, verdict: (n_out,) in and out. Value, 1 where it is to be relinquished (out is NaN), ``Verdict``
            bits.
    """
    for i in range(limits.shape[1]):
        marks[CONTRADICTED, i] = 0
        if math.isnan(memory[SWITCHED, i]):
            memory[SWITCHED, i] = now
    for p in range(pairs.shape[0]):
        a, b = int(pairs[p, 0]), int(pairs[p, 1])
        on_a = due[a] != 0 and asks_on(request[a], request_state[a], limits[IDLE, a])
        if on_a and due[b] != 0 and asks_on(request[b], request_state[b], limits[IDLE, b]):
            marks[CONTRADICTED, a] = 1
            marks[CONTRADICTED, b] = 1
    judge(request, request_state, due, limits, allowed_start, allowed, forced, forced_flag, memory, marks, out, verdict)
    constrain(now, due, present, limits, forced_flag, memory, marks, out, verdict)
    settle_pairs(pairs, limits, memory, marks, out, verdict)
    commit(now, due, forced_flag, limits, memory, marks, out, relinquish, verdict)


def run(value: Floats, code: Ints, operand: Floats, first: int, end: int) -> int:
    """Run one postfix program over good values. The stack of truths is the bits of one integer. Returns 0 or 1."""
    stack = 0
    for k in range(first, end):
        op = code[k, 0]
        if op == OP_NOT:
            stack ^= 1
        elif op == OP_AND:
            stack = ((stack >> 2) << 1) | (stack & (stack >> 1) & 1)
        elif op == OP_OR:
            stack = ((stack >> 2) << 1) | ((stack | (stack >> 1)) & 1)
        else:
            left = float(value[code[k, 1]])
            right = float(operand[k, 0]) * float(value[code[k, 2]]) + float(operand[k, 1])
            truth = (
                (op == OP_LT and left < right)
                or (op == OP_LE and left <= right)
                or (op == OP_GT and left > right)
                or (op == OP_GE and left >= right)
                or (op == OP_EQ and left == right)
                or (op == OP_NE and left != right)
            )
            stack = (stack << 1) | (1 if truth else 0)
    return stack & 1


def first_bad(value: Floats, quality: Bytes, inputs: Ints, first: int, end: int) -> int:
    """The first input point that is not good and finite, or CAUSE_NONE."""
    for k in range(first, end):
        point = inputs[k]
        if not (quality[point] == QUALITY_GOOD and math.isfinite(value[point])):
            return int(point)
    return CAUSE_NONE


def gives_way(status: int, tripped_at: float, other_tripped_at: float) -> bool:
    """Whether another row takes the place of the first-out: waiting for first inputs is not a trip."""
    return math.isnan(tripped_at) and (status in (CLEAR, PENDING) or not math.isnan(other_tripped_at))


def collect(
    trip_start: Ints, trip_output: Ints, trip_value: Floats, fail_safe: Floats,
    status: Bytes, clocks: Floats, forced: Floats, forced_flag: Bytes, first_out: Ints,
) -> None:  # fmt: skip
    """Gather what every interlock that is not clear forces; a status that is none of the known ones forces too."""
    forced[:] = math.nan
    forced_flag[:] = 0
    for k in range(status.shape[0]):
        if status[k] == CLEAR or status[k] == PENDING:
            continue
        for t in range(trip_start[k], trip_start[k + 1]):
            o, value = trip_output[t], float(trip_value[t])
            if forced_flag[o] == 0:
                forced[o] = value
                forced_flag[o] = 1
            elif value == fail_safe[o] or (math.isnan(value) and math.isnan(fail_safe[o])):
                forced[o] = value
            noted = first_out[o]
            if noted < 0 or gives_way(status[noted], clocks[TRIPPED_AT, noted], clocks[TRIPPED_AT, k]):
                first_out[o] = k
    for o in range(forced.shape[0]):
        if forced_flag[o] == 0:
            first_out[o] = -1


def evaluate(
    now: float, value: Floats, quality: Bytes,
    code: Ints, operand: Floats, program_start: Ints, input_start: Ints, inputs: Ints, delays: Floats, manual: Bytes,
    trip_start: Ints, trip_output: Ints, trip_value: Floats, fail_safe: Floats,
    status: Bytes, clocks: Floats, cause: Ints, forced: Floats, forced_flag: Bytes, first_out: Ints,
) -> int:  # fmt: skip
    """Evaluate every interlock and collect what they force. Returns 1 if a status changed (so what is forced may have),
    else 0.

    An input that is not of good quality and finite trips at once: a substituted or stuck value proves nothing. Until
    all inputs have been good once (STARTUP) the outputs are forced as well, but nothing latches. A trip clears when the
    trip condition is false, the clear condition true and all inputs good, for the whole clear delay; a manual one then
    waits for its reset (RESETTABLE).
    Several trips on one output: its fail-safe value if any of them forces that, else the first row of the table.

    Args:
        now: control clock, s.
        value, quality: (n_points,) of the input image.
        code, operand: (n_instructions, 3) operation and two points; (n_instructions, 2) gain and offset of the
            right-hand side.
        program_start: (2 n + 1,) interlock k trips on program 2k and clears on program 2k + 1, which may be empty.
        input_start, inputs: (n + 1,), the points that interlock k needs.
        delays: (2, n) trip delay and clear delay, s.
        manual: (n,) 1 where only an operator resets.
        trip_start, trip_output, trip_value: (n + 1,), the outputs that interlock k forces, and to what (NaN =
            relinquish).
        fail_safe: (n_out,) NaN = relinquish.
        status, clocks, cause: (n,), (3, n), (n,) in and out: status, times, and the bad point or CAUSE_CONDITION behind
            the last trip.
        forced, forced_flag, first_out: (n_out,) out; first_out is the interlock that forced the output first, -1 for
            none, kept until none does.
    """
    changed = 0
    for k in range(manual.shape[0]):
        before = status[k]
        bad = first_bad(value, quality, inputs, input_start[k], input_start[k + 1])
        healthy = bad == CAUSE_NONE
        trips, clears = False, False
        if healthy:
            trips = run(value, code, operand, program_start[2 * k], program_start[2 * k + 1]) == 1
            first, end = program_start[2 * k + 1], program_start[2 * k + 2]
            clears = not trips and (first == end or run(value, code, operand, first, end) == 1)
        if status[k] == STARTUP:
            cause[k] = bad
            if healthy:
                status[k] = CLEAR
        if status[k] == CLEAR or status[k] == PENDING:
            if trips and status[k] == CLEAR:
                status[k] = PENDING
                clocks[HELD_SINCE, k] = now
            elif not trips and healthy:
                status[k] = CLEAR
            if not healthy or (trips and not (now - clocks[HELD_SINCE, k] < delays[TRIP_DELAY, k])):
                status[k] = TRIPPED
                cause[k] = CAUSE_CONDITION if healthy else bad
                clocks[TRIPPED_AT, k] = now
                clocks[CLEAR_SINCE, k] = math.nan
        elif status[k] != STARTUP:
            if not clears:
                status[k] = TRIPPED
                clocks[CLEAR_SINCE, k] = math.nan
            else:
                if math.isnan(clocks[CLEAR_SINCE, k]):
                    clocks[CLEAR_SINCE, k] = now
                if now - clocks[CLEAR_SINCE, k] >= delays[CLEAR_DELAY, k]:
                    status[k] = RESETTABLE if manual[k] != 0 else CLEAR
        if status[k] != before:
            changed = 1
    collect(trip_start, trip_output, trip_value, fail_safe, status, clocks, forced, forced_flag, first_out)
    return changed
