"""On change, and a heartbeat: checked against a point-by-point model."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.telemetry.changes import ChangeFilter
from safety.values import Quality, Reason

GOOD, OK = int(Quality.GOOD), int(Reason.OK)


def codes(n: int, code: int) -> np.ndarray:
    return np.full(n, code, dtype=np.uint8)


def due(filter_: ChangeFilter, now: float, values: list[float], quality: int = GOOD, reason: int = OK) -> list[int]:
    n = len(values)
    return filter_.due(now, np.array(values), codes(n, quality), codes(n, reason)).tolist()


def test_every_point_is_published_first_even_a_bad_one() -> None:
    assert due(ChangeFilter(3, 60.0), 0.0, [1.0, math.nan, 0.0], int(Quality.BAD), int(Reason.NEVER_READ)) == [0, 1, 2]


def test_an_unchanged_point_waits_for_its_heartbeat() -> None:
    filter_ = ChangeFilter(1, 60.0)
    assert due(filter_, 0.0, [1.0]) == [0]
    assert due(filter_, 59.999, [1.0]) == []
    assert due(filter_, 60.0, [1.0]) == [0]
    assert due(filter_, 119.0, [1.0]) == []
    assert due(filter_, 120.0, [1.0]) == [0]


def test_a_change_starts_the_heartbeat_anew() -> None:
    filter_ = ChangeFilter(1, 60.0)
    due(filter_, 0.0, [1.0])
    assert due(filter_, 50.0, [2.0]) == [0]
    assert due(filter_, 60.0, [2.0]) == []
    assert due(filter_, 110.0, [2.0]) == [0]


def test_only_the_points_that_changed_are_due() -> None:
    filter_ = ChangeFilter(3, 1e9)
    due(filter_, 0.0, [1.0, 2.0, 3.0])
    assert due(filter_, 1.0, [1.0, 2.5, 3.0]) == [1]


def test_slow_drift_inside_the_dead_band_is_seen_in_the_end() -> None:
    filter_ = ChangeFilter(1, 1e9, dead_band=0.5)
    due(filter_, 0.0, [20.0])
    published = [step for step in range(1, 41) if due(filter_, step, [20.0 + 0.1 * step])]
    assert published == [6, 12, 18, 24, 30, 36]


def test_the_dead_band_is_each_points_own() -> None:
    filter_ = ChangeFilter(2, 1e9, dead_band=np.array([0.0, 1.0]))
    due(filter_, 0.0, [5.0, 5.0])
    assert due(filter_, 1.0, [5.5, 5.5]) == [0]


@pytest.mark.parametrize(("quality", "reason"), [(int(Quality.UNCERTAIN), OK), (GOOD, int(Reason.SUBSTITUTED))])
def test_another_quality_or_reason_is_a_change(quality: int, reason: int) -> None:
    filter_ = ChangeFilter(1, 1e9, dead_band=100.0)
    due(filter_, 0.0, [1.0])
    assert due(filter_, 1.0, [1.0], quality, reason) == [0]
    assert due(filter_, 2.0, [1.0], quality, reason) == []


def test_losing_and_regaining_the_value_are_changes_and_staying_lost_is_none() -> None:
    filter_ = ChangeFilter(1, 1e9, dead_band=100.0)
    due(filter_, 0.0, [1.0])
    assert due(filter_, 1.0, [math.nan]) == [0]
    assert due(filter_, 2.0, [math.nan]) == []
    assert due(filter_, 3.0, [math.inf]) == []
    assert due(filter_, 4.0, [1.0]) == [0]


def test_first_heartbeats_of_many_points_are_spread_over_the_period() -> None:
    n = 10_000
    filter_ = ChangeFilter(n, 60.0)
    values = [1.0] * n
    assert len(due(filter_, 0.0, values)) == n
    per_second = [len(due(filter_, float(second), values)) for second in range(1, 61)]
    assert sum(per_second) == n
    assert max(per_second) < 2 * n / 60


def test_forget_makes_everything_due_again() -> None:
    filter_ = ChangeFilter(2, 1e9)
    due(filter_, 0.0, [1.0, 2.0])
    filter_.forget()
    assert due(filter_, 1.0, [1.0, 2.0]) == [0, 1]
    assert due(filter_, 2.0, [1.0, 2.0]) == []


@pytest.mark.parametrize("band", [-1.0, math.nan, math.inf])
def test_a_senseless_dead_band_is_refused(band: float) -> None:
    with pytest.raises(ValueError, match="dead band"):
        ChangeFilter(1, 60.0, dead_band=band)


@pytest.mark.parametrize("heartbeat", [0.0, -1.0, math.nan])
def test_a_senseless_heartbeat_is_refused(heartbeat: float) -> None:
    with pytest.raises(ValueError, match="heartbeat"):
        ChangeFilter(1, heartbeat)


SCANS = st.lists(
    st.tuples(
        st.floats(0.0, 30.0),
        st.lists(
            st.tuples(
                st.sampled_from([math.nan, math.inf, 0.0, 0.4, 0.6, 1.0, 1.2, -3.0]),
                st.integers(0, 2),
                st.integers(0, 3),
            ),
            min_size=3,
            max_size=3,
        ),
    ),
    max_size=30,
)


@given(SCANS, st.sampled_from([0.0, 0.5]))
def test_agrees_with_a_point_by_point_model(
    scans: list[tuple[float, list[tuple[float, int, int]]]], band: float
) -> None:
    filter_ = ChangeFilter(3, 60.0, dead_band=band)
    last: dict[int, tuple[float, int, int, float]] = {}
    now = 0.0
    for wait, rows in scans:
        now += wait
        value, quality, reason = zip(*rows, strict=True)
        got = filter_.due(
            now, np.array(value), np.array(quality, dtype=np.uint8), np.array(reason, dtype=np.uint8)
        ).tolist()
        for index, (v, q, r) in enumerate(rows):
            if index not in last:
                expected = True
            else:
                was, was_q, was_r, when = last[index]
                both = math.isfinite(v) and math.isfinite(was)
                expected = (
                    (q, r) != (was_q, was_r) or math.isfinite(v) != math.isfinite(was) or (both and abs(v - was) > band)
                )
                # Before its first heartbeat a point may come early, never late.
                if not expected and now - when < 60.0:
                    if index in got:
                        last[index] = (v, q, r, now)
                    continue
                expected = True
            assert (index in got) == expected
            last[index] = (v, q, r, now)
