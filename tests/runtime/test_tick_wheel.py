"""The tick wheel: jobs at multiples of their period, missed beats skipped and counted, and a clean end."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.runtime.clock import ManualClock
from agent.runtime.wheel import EARLY_S, TICK_S, TickWheel


def test_jobs_fire_at_multiples_of_their_period() -> None:
    clock = ManualClock(0.3)
    wheel, fired = TickWheel(clock), list[tuple[str, float]]()
    wheel.every(1.0, lambda due: fired.append(("slow", due)), "slow")
    wheel.every(0.5, lambda due: fired.append(("fast", due)), "fast")
    for now in (0.4, 0.5, 1.0, 1.5):
        wheel.run_due(now)
    assert fired == [("fast", 0.5), ("slow", 1.0), ("fast", 1.0), ("fast", 1.5)]


def test_jobs_of_one_period_fire_in_one_tick_in_the_order_they_were_added() -> None:
    wheel, fired = TickWheel(ManualClock(0.0)), list[int]()
    for number in range(5):
        wheel.every(5.0, lambda _due, number=number: fired.append(number), str(number))
    assert (wheel.run_due(0.0), wheel.run_due(4.99), wheel.run_due(5.0)) == (5, 0, 5)
    assert fired == [0, 1, 2, 3, 4] * 2


def test_missed_beats_are_skipped_and_counted() -> None:
    wheel, fired = TickWheel(ManualClock(0.5)), list[float]()
    entry = wheel.every(1.0, fired.append, "job")
    wheel.run_due(4.25)
    assert fired == [1.0]
    assert entry.skipped == 3, "2, 3 and 4 went by"
    assert wheel.run_due(4.9) == 0
    assert wheel.run_due(5.0) == 1


def test_cancelled_job_does_not_fire_again() -> None:
    wheel, fired = TickWheel(ManualClock(0.5)), list[float]()
    entry = wheel.every(1.0, fired.append, "job")
    wheel.run_due(1.0)
    entry.cancelled = True
    wheel.run_due(9.0)
    assert fired == [1.0]


@given(
    period=st.floats(0.01, 100.0),
    start=st.floats(0.0, 1e6),
    steps=st.lists(st.floats(0.0, 500.0), min_size=1, max_size=30),
)
def test_every_beat_is_either_fired_or_counted_as_skipped(period: float, start: float, steps: list[float]) -> None:
    wheel, fired = TickWheel(ManualClock(start)), list[float]()
    entry = wheel.every(period, fired.append, "job")
    first, now = entry.due, start
    for step in steps:
        now += step
        wheel.run_due(now)
    beats = 0 if now < first else (now - first) / period
    assert abs(len(fired) + entry.skipped - (int(beats) + (now >= first))) <= 1
    assert entry.due > now or not fired, "nothing due is left"
    assert fired == sorted(set(fired))


def test_wake_up_is_on_the_tick_and_a_little_early_counts() -> None:
    clock = ManualClock(0.0)
    wheel = TickWheel(clock)
    wheel.every(0.033, lambda _due: None, "job")
    wheel.run_due(0.0)
    delay = wheel._until_next_tick()
    assert delay == pytest.approx(0.04), "the tick in which 33 ms lies"
    clock.advance(0.04 - EARLY_S / 2)
    assert wheel.run_due(clock.monotonic() + EARLY_S) == 1


def test_ticks_lie_on_the_control_clock_when_it_is_scaled() -> None:
    class Fast(ManualClock):
        speed = 60.0

    clock = Fast(0.0)
    wheel = TickWheel(clock)
    wheel.every(30.0, lambda _due: None, "job")
    wheel.run_due(0.0)
    assert wheel._until_next_tick() == pytest.approx(0.5), "30 control seconds are half a second on the wall"
    clock.advance(29.0)
    assert wheel._until_next_tick() == pytest.approx(1.0 / 60.0)
    clock.advance(5.0)
    assert wheel._until_next_tick() == 0.0, "late is now"


def test_empty_wheel_waits_for_a_job() -> None:
    assert TickWheel(ManualClock())._until_next_tick() is None
    assert TICK_S == 0.01


async def test_run_fires_and_ends_when_told() -> None:
    clock = ManualClock(0.0)
    wheel, fired = TickWheel(clock), list[float]()
    turning = asyncio.create_task(wheel.run())

    def job(due: float) -> None:
        fired.append(due)
        clock.advance(0.01)
        if len(fired) == 3:
            wheel.stop()

    wheel.every(0.01, job, "job")
    await asyncio.wait_for(turning, 5.0)
    assert fired == pytest.approx([0.0, 0.01, 0.02])


async def test_failing_job_ends_the_wheel_with_its_error() -> None:
    wheel = TickWheel(ManualClock(0.0))

    def job(_due: float) -> None:
        raise RuntimeError("a defect of ours")

    wheel.every(0.01, job, "job")
    with pytest.raises(RuntimeError, match="a defect of ours"):
        await asyncio.wait_for(wheel.run(), 5.0)
