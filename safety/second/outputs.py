"""Envelopes, enforced a second time: one object per output, decided, limited, settled with its pairs, remembered.

Follows the table at the top of ``safety.kernels``, row by row.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Final, final

from safety.envelope import Envelope, RequestState
from safety.values import Verdict

_HAIR: Final = 1e-9
"""The share by which a step may miss the dead band and still be made."""
_STATE_CAUSES: Final[Mapping[int, Verdict]] = {
    RequestState.INPUT_BAD: Verdict.INPUT_BAD,
    RequestState.FUNCTION_FAILED: Verdict.FUNCTION_FAILED,
    RequestState.HOLD_FAILED: Verdict.FUNCTION_FAILED,
    RequestState.DEADLINE_MISSED: Verdict.DEADLINE_MISSED,
    RequestState.HOLD_DEADLINE: Verdict.DEADLINE_MISSED,
}
_HOLDS: Final = (RequestState.HOLD_FAILED, RequestState.HOLD_DEADLINE)
_KEPT_CAUSES: Final = (
    Verdict.NOT_FINITE | Verdict.INPUT_BAD | Verdict.FUNCTION_FAILED | Verdict.DEADLINE_MISSED | Verdict.NOT_ALLOWED
)
_TIME_LEFT: Final = Verdict.RATE_LIMITED | Verdict.DEAD_BAND


class Say(IntEnum):
    """Who decided the value; a higher one goes before a lower one of the same pair."""

    REQUEST = 0
    FAIL_SAFE = 1
    TRIP = 2


@final
@dataclass(frozen=True, slots=True)
class Ask:
    """What is asked of one output in this scan. ``order`` is a one-tuple with the forced value, empty if none."""

    value: float
    state: int
    due: bool
    present: float
    order: tuple[float | None, ...]

    @property
    def believable(self) -> bool:
        """Whether there is a number to follow."""
        return self.state == RequestState.OK and math.isfinite(self.value)


@final
class Output:
    """One output and what is remembered of it. A value of None: relinquished."""

    def __init__(self, envelope: Envelope) -> None:
        self.envelope = envelope
        self.value: float | None = envelope.fail_safe
        self.verdict = Verdict.FAIL_SAFE | Verdict.UNKNOWN_HISTORY
        self.was: float | None = envelope.fail_safe
        self.made: float | None = None
        self.switched: float | None = None
        self.history_known = False
        self.good = False
        self.say = Say.REQUEST
        self._touched = False

    @property
    def above_idle(self) -> bool:
        """Whether a pair has to care about it."""
        return self.value is not None and self.value > self.envelope.idle

    @property
    def was_above_idle(self) -> bool:
        """The same before this scan."""
        return self.was is not None and self.was > self.envelope.idle

    def remember_switch(self, on: bool, at: float) -> None:
        """Take up when the output last switched, from before a restart, if it is still as it was then."""
        if self._is_on(self.was) == on:
            self.switched, self.history_known = at, True

    def decide(self, ask: Ask, contradicted: bool) -> None:
        """Who has the say: a trip, else the request, if it can be believed, else the fail-safe value."""
        self._touched = ask.due or bool(ask.order)
        if not self._touched:
            if self.say is Say.TRIP:
                self.say = Say.REQUEST
            return
        fail_safe = self.envelope.fail_safe
        said, causes, good = self.was, self.verdict & _KEPT_CAUSES, False
        if ask.due:
            said, causes, good = self._requested(ask, contradicted)
        if ask.order:
            said, self.say, good = ask.order[0], Say.TRIP, False
            causes |= Verdict.TRIPPED
            if said is not None and not self.envelope.low <= said <= self.envelope.high:
                said = fail_safe
        elif good:
            self.say = Say.REQUEST
        else:
            said, self.say = fail_safe, Say.FAIL_SAFE
        if self.say is not Say.REQUEST and said == fail_safe:
            causes |= Verdict.FAIL_SAFE
        self.value, self.verdict, self.good = said, causes, good

    def _requested(self, ask: Ask, contradicted: bool) -> tuple[float | None, Verdict, bool]:
        if ask.state != RequestState.OK:
            cause = _STATE_CAUSES.get(ask.state, Verdict.NONE)
            held = ask.state in _HOLDS and self.good
            return self.was, cause | Verdict.HELD if held else cause, held
        pair = Verdict.EXCLUSIVE if contradicted else Verdict.NONE
        if not math.isfinite(ask.value):
            return self.was, Verdict.NOT_FINITE | pair, False
        value = ask.value
        if self.envelope.allowed is not None:
            meant = [one for one in self.envelope.allowed if abs(value - one) <= self.envelope.tolerance]
            if not meant:
                return self.was, Verdict.NOT_ALLOWED | pair, False
            value = meant[0]
        return value, pair, not contradicted

    def limit(self, now: float, ask: Ask) -> None:
        """Bring what was decided within the limits and the times. A trip and a fail-safe value only wait for min-off."""
        if not self._touched:
            return
        ordinary = self.say is Say.REQUEST
        if ordinary and self.value is not None:
            self.value = self._reachable(now, self.value, ask.present)
            if self._is_on(self.was) and not self._is_on(self.value) and not self._passed(now, self.envelope.min_on_s):
                self._keep(Verdict.MIN_ON_HELD)
        if self._is_on(self.value) and not self._is_on(self.was) and not self._passed(now, self.envelope.min_off_s):
            self._keep(Verdict.MIN_OFF_HELD)
            self.good = self.good and self.value is not None
        if ordinary and self._too_small():
            self._keep(Verdict.DEAD_BAND)

    def _keep(self, why: Verdict) -> None:
        self.value = self.was
        self.verdict |= why
        if why in (Verdict.MIN_ON_HELD, Verdict.MIN_OFF_HELD) and not self.history_known:
            self.verdict |= Verdict.UNKNOWN_HISTORY

    def _reachable(self, now: float, wanted: float, present: float) -> float:
        row = self.envelope
        target = wanted
        if target < row.low:
            target, self.verdict = row.low, self.verdict | Verdict.CLAMPED_LOW
        if target > row.high:
            target, self.verdict = row.high, self.verdict | Verdict.CLAMPED_HIGH
        start = self.was
        if start is None:
            start = row.idle if math.isnan(present) else min(max(present, row.low), row.high)
        way = 1.0 if target > start else -1.0
        reached = target
        if row.max_step is not None and abs(reached - start) > row.max_step:
            reached, self.verdict = start + way * row.max_step, self.verdict | Verdict.STEP_LIMITED
        if row.max_rate is not None:
            reach = 0.0 if self.made is None else row.max_rate * max(0.0, now - self.made)
            if abs(reached - start) > reach:
                reached, self.verdict = start + way * reach, self.verdict | Verdict.RATE_LIMITED
        return reached

    def _too_small(self) -> bool:
        row = self.envelope
        if self.value is None or self.was is None or self.value in (self.was, row.low, row.high, row.idle):
            return False
        return abs(self.value - self.was) < row.dead_band * (1.0 - _HAIR)

    def _is_on(self, value: float | None) -> bool:
        return value is not None and value > self.envelope.middle

    def _passed(self, now: float, wait: float) -> bool:
        return self.switched is not None and now - self.switched >= wait

    def give_way(self) -> None:
        """Go to idle for the other of a pair."""
        self.value, self.good = self.envelope.idle, False
        self.verdict |= Verdict.EXCLUSIVE

    def remember(self, now: float) -> None:
        """Keep what the output was given, and when."""
        gone, was_gone = self.value is None, self.was is None
        if self._is_on(self.value) != self._is_on(self.was) or gone != was_gone:
            self.switched, self.history_known = now, True
        elif self._passed(now, self.envelope.min_on_s) and self._passed(now, self.envelope.min_off_s):
            self.history_known = True
        if self.value != self.was or (self._touched and self.verdict & _TIME_LEFT != _TIME_LEFT):
            self.made = now
        self.was = self.value

    def force_fail_safe(self, now: float) -> None:
        """Go to the fail-safe value at once, whatever the times say: the channels disagree about everything else."""
        self.value, self.good, self.say, self._touched = self.envelope.fail_safe, False, Say.TRIP, True
        self.verdict = (self.verdict & _KEPT_CAUSES) | Verdict.TRIPPED | Verdict.FAIL_SAFE
        self.remember(now)


def settle(first: Output, second: Output) -> None:
    """At most one of a pair above idle: a trip beats fail-safe beats a request, then whoever was on; else neither."""
    if not (first.above_idle and second.above_idle):
        return
    if first.say is Say.TRIP and second.say is Say.TRIP:
        first.verdict |= Verdict.EXCLUSIVE  # two interlocks say so: reported, not undone
        second.verdict |= Verdict.EXCLUSIVE
        return
    first_goes_before = (first.say, first.was_above_idle and not second.was_above_idle)
    second_goes_before = (second.say, second.was_above_idle and not first.was_above_idle)
    if first_goes_before <= second_goes_before:
        first.give_way()
    if second_goes_before <= first_goes_before:
        second.give_way()


def enforce(now: float, outputs: Sequence[Output], pairs: Sequence[tuple[int, int]], asks: Sequence[Ask]) -> None:
    """One scan of a unit's outputs."""
    contradicted = set[int]()
    for first, second in pairs:
        if all(
            asks[i].due and asks[i].believable and asks[i].value > outputs[i].envelope.idle for i in (first, second)
        ):
            contradicted |= {first, second}
    for i, (output, ask) in enumerate(zip(outputs, asks, strict=True)):
        if output.switched is None:
            output.switched = now
        output.decide(ask, i in contradicted)
        output.limit(now, ask)
    for first, second in pairs:
        settle(outputs[first], outputs[second])
    for output in outputs:
        output.remember(now)
