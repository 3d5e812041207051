"""The Perceive kernel: every check, in its order, with the memory it keeps; the same in plain Python and compiled."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent import kernels
from agent.poet import perceive_kernels
from agent.poet.build_ahead import build_module
from agent.poet.perceive import PerceiveState, PerceiveTable
from safety.values import Quality, Reason

MODULE = "agent.poet.perceive_kernels"


def point(**settings: Any) -> SimpleNamespace:
    usual = {
        "range": (-10.0, 50.0),
        "stale_after": 30.0,
        "max_change": None,
        "stuck_after": None,
        "smooth": None,
        "fallback": None,
    }
    return SimpleNamespace(**{**usual, **settings})


class Bench:
    """Runs the kernel over some points, one scan at a time."""

    def __init__(self, *points: SimpleNamespace, mode: str = "python") -> None:
        self.kernel = kernels.load(MODULE, mode).perceive
        self.table = PerceiveTable.build(points)
        self.state = PerceiveState.fresh(len(points))
        self.value = np.zeros(len(points))
        self.quality = np.zeros(len(points), np.uint8)
        self.reason = np.zeros(len(points), np.uint8)

    def scan(
        self, now: float, value: Any, quality: Any = 2, reason: Any = 1, time: Any = None
    ) -> tuple[float, Quality, Reason]:
        count = len(self.value)
        raw = [np.full(count, value, float), np.full(count, quality, np.uint8), np.full(count, reason, np.uint8)]
        raw.append(np.full(count, now if time is None else time, float))
        self.kernel(now, *raw, *self.table.columns(), *self.state.columns(), self.value, self.quality, self.reason)
        return float(self.value[0]), Quality(self.quality[0]), Reason(self.reason[0])


def bad(outcome: tuple[float, Quality, Reason], reason: Reason) -> bool:
    return math.isnan(outcome[0]) and outcome[1:] == (Quality.BAD, reason)


def test_codes_are_those_of_safety_values() -> None:
    for quality in Quality:
        assert getattr(perceive_kernels, quality.name) == quality
    for reason in Reason:
        assert getattr(perceive_kernels, reason.name, reason) == reason


def test_good_sample_passes_unchanged() -> None:
    assert Bench(point()).scan(0.0, 21.5) == (21.5, Quality.GOOD, Reason.OK)


def test_zeroed_memory_is_never_read() -> None:
    assert bad(Bench(point()).scan(0.0, 0.0, quality=0, reason=0), Reason.NEVER_READ)
    assert bad(Bench(point()).scan(0.0, 0.0, quality=2, reason=0), Reason.NEVER_READ)


def test_device_bad_keeps_the_devices_reason() -> None:
    assert bad(Bench(point()).scan(0.0, 21.0, quality=0, reason=Reason.DEVICE_UNREACHABLE), Reason.DEVICE_UNREACHABLE)
    assert bad(Bench(point()).scan(0.0, 21.0, quality=0, reason=Reason.OK), Reason.DEVICE_ERROR)


def test_device_uncertain_stays_uncertain() -> None:
    seen = Bench(point()).scan(0.0, 21.0, quality=1, reason=Reason.DEVICE_UNCERTAIN)
    assert seen == (21.0, Quality.UNCERTAIN, Reason.DEVICE_UNCERTAIN)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_not_a_number(value: float) -> None:
    assert bad(Bench(point()).scan(0.0, value), Reason.NOT_A_NUMBER)


@pytest.mark.parametrize(
    ("age", "fresh"), [(0.0, True), (30.0, True), (math.nextafter(30.0, 31.0), False), (1e9, False), (math.nan, False)]
)
def test_stale(age: float, fresh: bool) -> None:
    seen = Bench(point()).scan(100.0, 21.0, time=100.0 - age if age != math.nextafter(30.0, 31.0) else 100.0 - 30.001)
    assert (seen[1] is Quality.GOOD) == fresh
    assert fresh or bad(seen, Reason.STALE)


@pytest.mark.parametrize(
    ("value", "inside"), [(-10.0, True), (50.0, True), (-10.001, False), (50.001, False), (-999.0, False)]
)
def test_range_includes_its_ends(value: float, inside: bool) -> None:
    seen = Bench(point()).scan(0.0, value)
    assert (seen[1] is Quality.GOOD) == inside
    assert inside or bad(seen, Reason.OUT_OF_RANGE)


def test_the_first_cause_in_order_is_reported() -> None:
    assert bad(Bench(point()).scan(100.0, math.nan, time=0.0), Reason.NOT_A_NUMBER)
    assert bad(Bench(point()).scan(100.0, 999.0, time=0.0), Reason.STALE)


def test_rate_of_change_is_judged_over_the_time_between_samples() -> None:
    bench = Bench(point(max_change=1.0))
    assert bench.scan(0.0, 20.0)[1] is Quality.GOOD
    assert bad(bench.scan(2.0, 22.5), Reason.RATE_OF_CHANGE)
    assert bench.scan(2.0, 22.5, time=2.0)[2] is Reason.RATE_OF_CHANGE, "the same sample again is still not believed"
    assert bench.scan(4.0, 22.5) == (22.5, Quality.GOOD, Reason.OK), "2.5 K in 4 s since the last accepted sample"


def test_a_jump_becomes_the_new_anchor_after_a_gap_longer_than_stale_after() -> None:
    bench = Bench(point(max_change=0.01))
    bench.scan(0.0, 20.0)
    for now in (10.0, 20.0, 30.0):
        assert bad(bench.scan(now, 40.0), Reason.RATE_OF_CHANGE)
    assert bench.scan(30.1, 40.0) == (40.0, Quality.GOOD, Reason.OK)


def test_the_value_returning_ends_the_rejection_at_once() -> None:
    bench = Bench(point(max_change=0.1))
    bench.scan(0.0, 20.0)
    assert bad(bench.scan(1.0, 45.0), Reason.RATE_OF_CHANGE)
    assert bench.scan(2.0, 20.1) == (20.1, Quality.GOOD, Reason.OK)


def test_stuck_sensor_is_uncertain_until_it_moves() -> None:
    bench = Bench(point(stuck_after=60.0))
    outcomes = [bench.scan(float(now), 20.0)[1:] for now in range(0, 90, 15)]
    assert outcomes == [(Quality.GOOD, Reason.OK)] * 5 + [(Quality.UNCERTAIN, Reason.STUCK)]
    assert bench.scan(90.0, 20.1)[1:] == (Quality.GOOD, Reason.OK)


def test_a_repeated_sample_is_not_a_stuck_sensor() -> None:
    bench = Bench(point(stuck_after=10.0))
    bench.scan(0.0, 20.0)
    assert bench.scan(25.0, 20.0, time=0.0)[1:] == (Quality.GOOD, Reason.OK), "nothing new was measured"


def test_filter_is_first_order_and_counts_each_sample_once() -> None:
    bench = Bench(point(smooth=10.0))
    assert bench.scan(0.0, 20.0)[0] == 20.0
    once = bench.scan(10.0, 30.0)[0]
    assert once == pytest.approx(25.0)
    assert bench.scan(11.0, 30.0, time=10.0)[0] == once


def test_filter_begins_again_after_a_gap() -> None:
    bench = Bench(point(smooth=10.0))
    bench.scan(0.0, 20.0)
    assert bench.scan(31.0, 30.0)[0] == 30.0


@pytest.mark.parametrize("smooth", [None, 0.0, math.inf])
def test_filter_off(smooth: float | None) -> None:
    bench = Bench(point(smooth=smooth))
    bench.scan(0.0, 20.0)
    assert bench.scan(1.0, 30.0)[0] == 30.0


def test_fallback_stands_in_with_uncertain_quality() -> None:
    bench = Bench(point(fallback=18.0))
    assert bench.scan(0.0, math.nan) == (18.0, Quality.UNCERTAIN, Reason.SUBSTITUTED)
    assert bench.scan(1.0, 21.0) == (21.0, Quality.GOOD, Reason.OK)
    assert math.isnan(Bench(point()).scan(0.0, math.nan)[0])


def test_a_bad_sample_leaves_the_memory_as_it_was() -> None:
    bench = Bench(point(max_change=1.0, smooth=10.0))
    bench.scan(0.0, 20.0)
    before = [column.copy() for column in bench.state.columns()]
    for value, quality, reason in ((math.nan, 2, 1), (999.0, 2, 1), (20.0, 0, 7), (49.0, 2, 1)):
        bench.scan(1.0, value, quality, reason)
        assert all(
            np.array_equal(now, then, equal_nan=True) for now, then in zip(bench.state.columns(), before, strict=True)
        )


def test_table_is_frozen() -> None:
    with pytest.raises(ValueError, match="read-only"):
        PerceiveTable.build([point()]).low[0] = 0.0


SAMPLE = st.tuples(
    st.floats(0.0, 20.0),
    st.one_of(st.sampled_from([math.nan, math.inf, -math.inf, -999.0, 20.0, 0.0]), st.floats(-30.0, 70.0)),
    st.integers(0, 3),
    st.sampled_from([0, 1, 1, 1, 1, 7, 12]),
    st.one_of(st.floats(0.0, 60.0), st.just(math.nan)),
)
FEATURE = st.one_of(st.none(), st.floats(0.01, 100.0))
POINT = st.builds(
    point,
    max_change=FEATURE,
    stuck_after=FEATURE,
    smooth=FEATURE,
    fallback=st.one_of(st.none(), st.floats(-10.0, 50.0)),
)


@given(POINT, st.lists(SAMPLE, min_size=1, max_size=12))
def test_whatever_comes_nothing_unbelievable_is_called_good(
    a_point: SimpleNamespace, samples: list[tuple[float, ...]]
) -> None:
    bench = Bench(a_point)
    now = 0.0
    for step, value, quality, reason, age in samples:
        now += step
        seen, judged, why = bench.scan(now, value, quality, reason, time=now - age)
        if judged is Quality.BAD:
            assert math.isnan(seen)
            assert why not in (Reason.OK, Reason.SUBSTITUTED)
        else:
            assert -10.0 <= seen <= 50.0
        if judged is Quality.GOOD:
            assert quality >= Quality.GOOD
            assert reason != Reason.NEVER_READ
            assert age <= 30.0 and -10.0 <= value <= 50.0


@pytest.fixture(scope="module", params=["jit", "aot"])
def compiled(request: pytest.FixtureRequest) -> str:
    if request.param == "aot":
        assert build_module(MODULE).kind == "aot"
    assert kernels.load(MODULE, request.param).kind == request.param
    return str(request.param)


@settings(max_examples=60)
@given(points=st.lists(POINT, min_size=1, max_size=6), samples=st.lists(SAMPLE, min_size=1, max_size=10))
def test_compiled_and_plain_give_the_same_bits(
    compiled: str, points: list[SimpleNamespace], samples: list[tuple[float, ...]]
) -> None:
    plain, fast = Bench(*points), Bench(*points, mode=compiled)
    now = 0.0
    for step, value, quality, reason, age in samples:
        now += step
        plain.scan(now, value, quality, reason, now - age)
        fast.scan(now, value, quality, reason, now - age)
        for one, other in zip(
            (plain.value, plain.quality, plain.reason, *plain.state.columns()),
            (fast.value, fast.quality, fast.reason, *fast.state.columns()),
            strict=True,
        ):
            assert one.tobytes() == other.tobytes() or np.array_equal(one, other, equal_nan=True)
