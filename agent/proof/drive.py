"""One interlock on its own Enforcer, driven through everything it promises; the result is one row of the report."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from agent.proof.inputs import Range, around, search
from safety.agreement import disagreement_row, second_channel
from safety.enforcer import Enforcer
from safety.envelope import Envelope, RequestState
from safety.interlocks import Interlock, InterlockStatus, InterlockTable, compile_row
from safety.second.conditions import read
from safety.values import Quality

LONGEST_WAIT_S = 7 * 86_400.0
"""No delay is waited for longer than this."""


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that was tried. ``after_s``: control seconds until it happened, None where that has no meaning."""

    name: str
    passed: bool
    detail: str
    after_s: float | None = None


@dataclass(frozen=True, slots=True)
class Proof:
    """What was done to one interlock, and what came of it."""

    interlock: str
    condition: str
    injected: Mapping[str, float]
    steps: tuple[Step, ...]

    @property
    def passed(self) -> bool:
        """Whether every step did what the row promises."""
        return all(step.passed for step in self.steps)


@dataclass(slots=True)
class Bench:
    """An Enforcer with this row alone, and readings that the test sets. Both channels run."""

    row: Interlock
    envelopes: Sequence[Envelope]
    units: Mapping[str, str]
    period_s: float
    now: float = 0.0
    steps: list[Step] = field(default_factory=list)
    enforcer: Enforcer = field(init=False)
    readings: dict[str, float] = field(default_factory=dict)
    bad: str = ""

    def __post_init__(self) -> None:
        unit = self.row.name.partition("/")[0]
        rows = [self.row, disagreement_row(unit, self.envelopes)]
        index = {name: place for place, name in enumerate(self.units)}
        table = InterlockTable.build(rows, index, self.units, self.envelopes)
        channel = second_channel(unit, self.envelopes, (), rows, index, self.units)
        self.enforcer = Enforcer(self.envelopes, (), table, second=[channel])

    @property
    def status(self) -> InterlockStatus:
        """Where the row stands."""
        return InterlockStatus(int(self.enforcer.status[0]))

    def evaluate(self, passed: float) -> None:
        """One evaluation and one scan, ``passed`` seconds later, in which nothing is asked of the outputs."""
        self.now += passed
        values = np.array([self.readings.get(name, math.nan) for name in self.units])
        quality = [
            Quality.BAD if name == self.bad or name not in self.readings else Quality.GOOD for name in self.units
        ]
        self.enforcer.evaluate(self.now, values, np.array(quality, np.uint8))
        count = len(self.envelopes)
        nothing = np.full(count, math.nan), np.full(count, RequestState.MISSING, np.uint8), np.zeros(count, np.uint8)
        self.enforcer.enforce(self.now, *nothing)

    def wait(self, status: InterlockStatus, delay: float) -> float:
        """Step in safety periods until the row stands there; the control seconds it took, NaN if it never did."""
        began = self.now
        self.evaluate(0.0)
        if delay > 2.0 * self.period_s and self.status is not status:
            self.evaluate(min(delay, LONGEST_WAIT_S) - 2.0 * self.period_s)
            if self.status is status:
                return math.nan
        for _ in range(6):
            if self.status is status:
                return self.now - began
            self.evaluate(self.period_s)
        return math.nan

    def forces(self) -> bool:
        """Whether every output of the row is where the row says, or waits for its min_off to be switched on."""
        at = {envelope.name: place for place, envelope in enumerate(self.envelopes)}
        return all(
            bool(self.enforcer.forced_flag[at[name]])
            and (
                math.isnan(self.enforcer.forced[at[name]]) if value is None else self.enforcer.forced[at[name]] == value
            )
            for name, value in self.row.trip
        )

    def note(self, name: str, passed: bool, detail: str = "", after_s: float | None = None) -> None:
        """One line of the report."""
        self.steps.append(Step(name, passed, detail, after_s))


def prove(
    row: Interlock,
    envelopes: Sequence[Envelope],
    units: Mapping[str, str],
    ranges: Mapping[str, Range],
    period_s: float,
) -> Proof:
    """Drive one interlock through clear, trip, hold, clearing and reset, then through the loss of each input.

    Args:
        row: the interlock.
        envelopes: of its unit's outputs.
        units: full point name → UCUM code.
        ranges: full point name → the span of its readings.
        period_s: control seconds between two evaluations.
    """
    when, clear_when = compile_row(row, units)
    conditions = [when] if clear_when is None else [when, clear_when]
    needed = {name: units[name] for condition in conditions for name in condition.points}
    order = {name: place for place, name in enumerate(needed)}
    trips = read(when.text, needed, order, row.scope).test
    clears = (lambda _values: True) if clear_when is None else read(clear_when.text, needed, order, row.scope).test

    def placed(readings: Mapping[str, float]) -> dict[int, float]:
        return {order[name]: value for name, value in readings.items()}

    candidates = around(conditions, ranges)
    tripping = search(candidates, lambda readings: trips(placed(readings)))
    healthy = search(candidates, lambda readings: not trips(placed(readings)) and clears(placed(readings)))
    bench = Bench(row, envelopes, needed, period_s)
    if tripping is None or healthy is None:
        what = "trips" if tripping is None else "clears"
        bench.note("readings", False, f"no readings within the points' ranges were found with which the row {what}")
        return Proof(row.name, when.text, tripping or {}, tuple(bench.steps))
    _cycle(bench, healthy, tripping)
    for name in needed:
        _lose(bench, healthy, name)
    return Proof(row.name, when.text, tripping, tuple(bench.steps))


def _cycle(bench: Bench, healthy: dict[str, float], tripping: dict[str, float]) -> None:
    row = bench.row
    bench.readings = healthy
    bench.evaluate(bench.period_s)
    bench.note("clear", bench.status is InterlockStatus.CLEAR and not bench.forces(), "with healthy readings")
    bench.readings = tripping
    after = bench.wait(InterlockStatus.TRIPPED, row.delay_s)
    in_time = row.delay_s <= after + 1e-9 <= row.delay_s + 2.0 * bench.period_s + 1e-6
    bench.note("trip", in_time and bench.forces(), f"delay {row.delay_s:g} s", None if math.isnan(after) else after)
    bench.evaluate(bench.period_s)
    refused = not bench.enforcer.reset(row.name, bench.now).accepted
    bench.note("hold", bench.forces() and refused, "forced while the cause is there; a reset is refused")
    bench.readings = healthy
    end = InterlockStatus.RESETTABLE if row.manual else InterlockStatus.CLEAR
    after = bench.wait(end, row.clear_delay_s)
    in_time = row.clear_delay_s <= after + 1e-9 <= row.clear_delay_s + 2.0 * bench.period_s + 1e-6
    detail = f"clear delay {row.clear_delay_s:g} s"
    bench.note("clearing", in_time and bench.forces() == row.manual, detail, None if math.isnan(after) else after)
    if row.manual:
        accepted = bench.enforcer.reset(row.name, bench.now).accepted
        bench.evaluate(bench.period_s)
        bench.note("reset", accepted and bench.status is InterlockStatus.CLEAR and not bench.forces(), "by an operator")


def _lose(bench: Bench, healthy: dict[str, float], name: str) -> None:
    bench.readings, bench.bad = healthy, name
    bench.evaluate(bench.period_s)
    tripped = bench.status is InterlockStatus.TRIPPED and bench.forces()
    bench.note(f"bad {name}", tripped, "not good quality trips without the delay", 0.0 if tripped else None)
    bench.bad = ""
    bench.wait(InterlockStatus.RESETTABLE if bench.row.manual else InterlockStatus.CLEAR, bench.row.clear_delay_s)
    bench.enforcer.reset(bench.row.name, bench.now)
    bench.evaluate(bench.period_s)
