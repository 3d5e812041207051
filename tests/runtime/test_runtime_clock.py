"""The clocks: control time never goes back, UTC may step, and a scaled clock keeps both on one scale."""

from __future__ import annotations

import time

import pytest

from agent.runtime.clock import ManualClock, ScaledClock, SystemClock


def test_manual_clock_moves_only_when_told_and_never_back() -> None:
    clock = ManualClock(10.0, 2_000_000_000.0)
    assert (clock.monotonic(), clock.utc(), clock.speed) == (10.0, 2_000_000_000.0, 1.0)
    clock.advance(2.5)
    assert (clock.monotonic(), clock.utc()) == (12.5, 2_000_000_002.5)
    with pytest.raises(ValueError, match="cannot go back by 1"):
        clock.advance(-1.0)


def test_stepped_calendar_leaves_control_time_alone() -> None:
    clock = ManualClock(10.0)
    before = clock.utc()
    clock.step_utc(-86_400.0)
    assert (clock.monotonic(), clock.utc()) == (10.0, before - 86_400.0)


def test_scaled_clock_runs_faster_than_the_wall_from_a_shared_origin(monkeypatch: pytest.MonkeyPatch) -> None:
    wall = 500.0
    monkeypatch.setattr(time, "monotonic", lambda: wall)
    first, second = ScaledClock(60.0, 1_768_000_000.0, origin=500.0), ScaledClock(60.0, 1_768_000_000.0, origin=500.0)
    wall = 501.0
    assert first.monotonic() == second.monotonic() == 60.0
    assert first.utc() == 1_768_000_060.0
    assert first.speed == 60.0


def test_scaled_clock_without_origin_begins_at_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "monotonic", lambda: 77.0)
    assert ScaledClock(2.0, 0.0).monotonic() == 0.0


@pytest.mark.parametrize("speed", [0.0, -1.0, 100_001.0, float("nan"), float("inf")])
def test_impossible_speeds_are_refused(speed: float) -> None:
    with pytest.raises(ValueError, match="speed must be above 0"):
        ScaledClock(speed, 0.0)


def test_system_clock_is_the_machines_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "monotonic", lambda: 5.0)
    monkeypatch.setattr(time, "time", lambda: 6.0)
    clock = SystemClock()
    assert (clock.monotonic(), clock.utc(), clock.speed) == (5.0, 6.0, 1.0)
