"""Enforce under arbitrary requests, tables, clocks and trips: what must hold whatever happens, and compiled equal to plain."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace

import numpy as np
import pytest
from enforce_rig import Rig
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.kernels import load
from safety.envelope import Envelope, RequestState
from safety.interlocks import Interlock
from safety.values import Quality, Verdict

REQUESTS = st.one_of(
    st.floats(allow_nan=True, allow_infinity=True),
    st.floats(-20.0, 120.0),
    st.sampled_from([0.0, -0.0, 1.0, 50.0, 50.000001, 100.0, 5e-324, 1.7e308, math.nan]),
)
STATES = st.one_of(
    st.just(RequestState.OK), st.just(RequestState.OK), st.sampled_from(RequestState), st.integers(0, 255)
)
STEPS = st.sampled_from([0.0, 0.001, 1.0, 4.9, 5.0, 60.0, 1e6])
NOT_ORDINARY = Verdict.FAIL_SAFE | Verdict.TRIPPED | Verdict.EXCLUSIVE


@st.composite
def envelopes(draw: st.DrawFn, name: str) -> Envelope:
    low, high = draw(
        st.sampled_from([(0.0, 100.0), (0.0, 1.0), (-50.0, 10.0), (4.0, 20.0), (-1e300, 1e300), (0.0, 1e-300)])
    )
    allowed = draw(st.one_of(st.none(), st.just((low, 0.5 * low + 0.5 * high, high))))
    inside = st.floats(low, high) if allowed is None else st.sampled_from(allowed)
    span = high - low
    limited = allowed is None
    max_step = draw(st.one_of(st.none(), st.sampled_from([0.01, 0.3, 2.0]))) if limited else None
    max_rate = draw(st.one_of(st.none(), st.sampled_from([0.001, 0.1, 5.0]))) if limited else None
    dead_band = draw(st.sampled_from([0.0, 0.005, 0.1]))
    if max_step is not None:
        dead_band = min(dead_band, 0.5 * max_step)
    return Envelope(
        name,
        low,
        high,
        draw(st.one_of(st.none(), inside)),
        max_step=None if max_step is None else max_step * span,
        max_rate=None if max_rate is None else max_rate * span,
        dead_band=dead_band * span,
        allowed=allowed,
        min_on_s=draw(st.sampled_from([0.0, 5.0, 60.0])),
        min_off_s=draw(st.sampled_from([0.0, 5.0, 60.0])),
    )


@dataclass
class Scan:
    passed: float
    requests: list[float]
    states: list[int]
    due: list[int]
    contacts: list[tuple[float, Quality]]
    present: list[float]


@dataclass
class Case:
    envelopes: list[Envelope]
    pairs: list[tuple[int, int]]
    interlocks: list[Interlock]
    scans: list[Scan] = field(default_factory=list)

    @property
    def points(self) -> dict[str, str]:
        return {f"u/c{k}": "1" for k in range(len(self.interlocks))}


@st.composite
def cases(draw: st.DrawFn) -> Case:
    count = draw(st.integers(1, 4))
    rows = [draw(envelopes(f"u/o{i}")) for i in range(count)]
    pairs = [
        (a, b)
        for a in range(count)
        for b in range(a + 1, count)
        if draw(st.booleans()) and not all(r.fail_safe is not None and r.fail_safe > r.idle for r in (rows[a], rows[b]))
    ]
    interlocks = []
    for k in range(draw(st.integers(0, 3))):
        output = draw(st.integers(0, count - 1))
        row = rows[output]
        values: list[float | None] = [row.low, row.high] if row.allowed is None else list(row.allowed)
        if row.fail_safe is None:
            values.append(None)
        trip = ((row.name, draw(st.sampled_from(values))),)
        delay = draw(st.sampled_from([0.0, 5.0]))
        interlocks.append(Interlock(f"u/i{k}", f"c{k}", trip, scope="u", delay_s=delay, manual=draw(st.booleans())))
    scan = st.builds(
        Scan,
        passed=STEPS,
        requests=st.lists(REQUESTS, min_size=count, max_size=count),
        states=st.lists(STATES, min_size=count, max_size=count),
        due=st.lists(st.sampled_from([0, 1, 1, 1]), min_size=count, max_size=count),
        contacts=st.lists(
            st.tuples(
                st.sampled_from([0.0, 0.0, 1.0, math.nan]),
                st.sampled_from([Quality.GOOD, Quality.GOOD, Quality.GOOD, Quality.BAD]),
            ),
            min_size=len(interlocks),
            max_size=len(interlocks),
        ),
        present=st.lists(st.sampled_from([math.nan, 0.0, 7.0, math.inf, -math.inf]), min_size=count, max_size=count),
    )
    return Case(rows, pairs, interlocks, draw(st.lists(scan, min_size=1, max_size=12)))


def rig_of(case: Case, kernels: SimpleNamespace | None = None) -> Rig:
    more = {} if kernels is None else {"kernels": kernels}
    return Rig(case.envelopes, case.pairs, case.interlocks, case.points, **more)


def play(rig: Rig, scan: Scan, now: float) -> None:
    for k, (value, quality) in enumerate(scan.contacts):
        rig.measure(f"u/c{k}", value, quality)
    rig.enforcer.present[:] = scan.present
    rig.scan(now, scan.requests, scan.states, scan.due)  # type: ignore[arg-type]


class Watcher:
    """Follows one output from outside and knows nothing of the kernel's memory."""

    def __init__(self, envelope: Envelope, rig: Rig, index: int) -> None:
        self.envelope, self.rig, self.index = envelope, rig, index
        self.previous = float(rig.enforcer.out[index])
        self.switched = 1000.0
        self.stretch: list[tuple[float, float]] = []

    def check(self, now: float, scan: Scan) -> None:
        envelope, i, enforcer = self.envelope, self.index, self.rig.enforcer
        out, verdict, before = float(enforcer.out[i]), self.rig.verdict(i), self.previous
        gone = math.isnan(out)
        assert enforcer.relinquish[i] == gone
        assert envelope.fail_safe is None if gone else envelope.permits(out)
        is_forced = enforcer.forced_flag[i] != 0
        if is_forced:
            self.check_forced(out, verdict, float(enforcer.forced[i]))
        elif scan.due[i]:
            self.check_request(scan.requests[i], scan.states[i], out, verdict)
        self.check_times(now, out, verdict)
        ordinary = not verdict & NOT_ORDINARY
        if ordinary and not gone and not math.isnan(before) and scan.due[i] and envelope.max_step is not None:
            assert abs(out - before) <= envelope.max_step * (1 + 1e-9)
        if (
            scan.due[i] or is_forced or out != before
        ):  # what is not due stands still: its allowance runs from its last turn
            self.check_rate(now, out, ordinary and not gone)
        self.previous = out

    def check_forced(self, out: float, verdict: Verdict, forced: float) -> None:
        assert verdict & Verdict.TRIPPED
        if verdict & Verdict.MIN_OFF_HELD:
            assert forced > self.envelope.middle
            assert not out > self.envelope.middle
        elif not (verdict & Verdict.EXCLUSIVE and out == self.envelope.idle):
            assert out == forced or (math.isnan(out) and math.isnan(forced))

    def check_request(self, request: float, state: int, out: float, verdict: Verdict) -> None:
        held = state in (RequestState.HOLD_FAILED, RequestState.HOLD_DEADLINE) and verdict & Verdict.HELD
        bad = (state != RequestState.OK and not held) or (state == RequestState.OK and not math.isfinite(request))
        assert bool(verdict & Verdict.NOT_FINITE) == (state == RequestState.OK and not math.isfinite(request))
        if bad:
            assert verdict & Verdict.FAIL_SAFE
        if verdict & Verdict.FAIL_SAFE:
            safe = math.nan if self.envelope.fail_safe is None else self.envelope.fail_safe
            kept = verdict & Verdict.MIN_OFF_HELD and same(out, self.previous)
            gave_way = verdict & Verdict.EXCLUSIVE and out == self.envelope.idle
            assert same(out, safe) or kept or gave_way

    def check_times(self, now: float, out: float, verdict: Verdict) -> None:
        was_on, is_on = self.previous > self.envelope.middle, out > self.envelope.middle
        if is_on and not was_on:
            assert now - self.switched >= self.envelope.min_off_s
        if was_on and not is_on and not verdict & NOT_ORDINARY:
            assert now - self.switched >= self.envelope.min_on_s
        if was_on != is_on or math.isnan(out) != math.isnan(self.previous):
            self.switched = now

    def check_rate(self, now: float, out: float, ordinary: bool) -> None:
        if not ordinary or self.envelope.max_rate is None:
            self.stretch = [] if math.isnan(out) else [(now, out)]
            return
        span = self.envelope.high - self.envelope.low
        for then, value in self.stretch:
            reach = self.envelope.max_rate * (now - then) + self.envelope.dead_band + 1e-9 * span
            assert abs(out - value) <= reach
        self.stretch.append((now, out))


def same(first: float, second: float) -> bool:
    return first == second or (math.isnan(first) and math.isnan(second))


def check_pairs(case: Case, rig: Rig) -> None:
    out, flag = rig.enforcer.out, rig.enforcer.forced_flag
    for a, b in case.pairs:
        if out[a] > case.envelopes[a].idle and out[b] > case.envelopes[b].idle:
            assert flag[a] and flag[b], "only two interlocks may switch both of a pair on"


@given(cases())
@settings(max_examples=200, deadline=None)
def test_what_always_holds(case: Case) -> None:
    rig = rig_of(case)
    watchers = [Watcher(envelope, rig, i) for i, envelope in enumerate(case.envelopes)]
    now = 1000.0
    for scan in case.scans:
        now += scan.passed
        play(rig, scan, now)
        for watcher in watchers:
            watcher.check(now, scan)
        check_pairs(case, rig)


@given(cases(), st.lists(st.sampled_from([-100.0, -1.0, 0.0, 1.0]), min_size=12, max_size=12))
@settings(max_examples=150, deadline=None)
def test_a_clock_that_steps_back_cannot_break_the_envelope(case: Case, steps: Sequence[float]) -> None:
    rig = rig_of(case)
    now = 1000.0
    for scan, step in zip(case.scans, steps, strict=False):
        now += step
        play(rig, scan, now)
        for i, envelope in enumerate(case.envelopes):
            out = float(rig.enforcer.out[i])
            assert envelope.fail_safe is None if math.isnan(out) else envelope.permits(out)
        check_pairs(case, rig)


@pytest.fixture(scope="module")
def compiled() -> SimpleNamespace:
    return load("safety.kernels", "jit")


@given(case=cases())
@settings(max_examples=150, deadline=None)
def test_compiled_equals_plain(case: Case, compiled: SimpleNamespace) -> None:
    plain, fast = rig_of(case), rig_of(case, compiled)
    now = 1000.0
    for scan in case.scans:
        now += scan.passed
        play(plain, scan, now)
        play(fast, scan, now)
        for state in ("_state", "_trips"):
            one, other = getattr(plain.enforcer, state), getattr(fast.enforcer, state)
            for name in type(one).__slots__:
                np.testing.assert_array_equal(getattr(one, name), getattr(other, name), err_msg=name)
