"""A device at run time: polled for ever, written through the gate, and away without anybody else noticing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from itertools import pairwise
from pathlib import Path

import pytest
import runtime_rig as rig

from agent.runtime import devices
from agent.runtime.clock import ManualClock
from agent.runtime.devices import DeviceTask
from drivers.errors import AuthenticationError
from drivers.interface import DeviceState, PollResult
from safety.envelope import Envelope
from safety.gate import Gate, Route
from safety.journal import Journal
from safety.values import Quality, Reason, WriteOutcome, WriteResult

NAMES = ["unit/a", "unit/b"]


class Ear:
    """The scan loop's side."""

    def __init__(self) -> None:
        self.polls: list[PollResult] = []
        self.writes: list[tuple[int, WriteResult]] = []

    def polled(self, device: str, result: PollResult) -> None:
        assert device == "ahu"
        self.polls.append(result)

    def written(self, output: int, result: WriteResult) -> None:
        self.writes.append((output, result))


class TaskRig:
    """One task over a device in memory, with a real gate and a real journal."""

    def __init__(self, folder: Path) -> None:
        self.clock = ManualClock()
        self.driver = rig.memory_driver("ahu", NAMES, self.clock)
        self.journal = Journal(folder / "journal.db")
        envelopes = {name: Envelope(name, 0.0, 100.0, fail_safe=None if name == "unit/b" else 0.0) for name in NAMES}
        routes = {name: Route("ahu", "memory", "{}", "{}") for name in NAMES}
        self.gate = Gate(envelopes, routes, self.journal)
        self.ear = Ear()
        self.task = DeviceTask(self.driver, 0.001, self.clock, self.gate, self.ear, dict(enumerate(NAMES)))

    async def until(self, condition: Callable[[], bool]) -> None:
        """Turn the loop until it is so."""
        async with asyncio.timeout(10.0):
            while not condition():
                await asyncio.sleep(0.001)


@pytest.fixture
async def task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[TaskRig]:
    monkeypatch.setattr(devices, "WRITE_RETRY_S", 0.001)
    monkeypatch.setattr(devices.Backoff, "_wait", lambda self, _longest: 0.001)
    task = TaskRig(tmp_path)
    yield task
    await task.task.drain(1.0)
    task.journal.close()


async def test_polls_again_and_again(task: TaskRig) -> None:
    task.driver.values["unit/a"] = 7.0
    task.task.start()
    await task.until(lambda: len(task.ear.polls) >= 3)
    assert task.ear.polls[-1].value.tolist() == [7.0, 0.0]
    assert task.task.failed_task is None


async def test_write_goes_through_the_gate_and_is_journaled_before(task: TaskRig) -> None:
    task.driver.values["unit/a"] = 33.0
    task.task.start()
    task.task.request_write(0, 40.0)
    await task.until(lambda: bool(task.ear.writes))
    assert task.driver.log == [("unit/a", 40.0)]
    assert task.ear.writes[0][1].outcome is WriteOutcome.HELD
    held = task.journal.get("unit/a")
    assert held is not None and held.before == 33.0


async def test_value_outside_the_envelope_never_reaches_the_device(task: TaskRig) -> None:
    task.task.start()
    task.task.request_write(0, 140.0)
    await task.until(lambda: bool(task.ear.writes))
    assert task.ear.writes[0][1].outcome is WriteOutcome.DENIED
    assert task.driver.log == []


async def test_device_that_goes_away_makes_its_points_bad_at_once(task: TaskRig) -> None:
    task.task.start()
    await task.until(lambda: bool(task.ear.polls))
    task.driver.away = True
    await task.until(lambda: task.ear.polls[-1].quality[0] == Quality.BAD)
    assert set(task.ear.polls[-1].reason.tolist()) == {Reason.DEVICE_UNREACHABLE}
    assert task.driver.health.state is DeviceState.BACKOFF
    assert "is away" in task.driver.health.last_error
    task.driver.away = False
    await task.until(lambda: task.ear.polls[-1].quality[0] == Quality.GOOD)


async def test_only_the_newest_value_waits_for_a_device_that_is_away(task: TaskRig) -> None:
    task.driver.away = True
    task.task.start()
    await task.until(lambda: bool(task.ear.polls))
    for value in (10.0, 20.0, 30.0):
        task.task.request_write(0, value)
    assert len(task.task._pending) == 1
    await asyncio.sleep(0.01)
    assert task.driver.log == []
    task.driver.away = False
    await task.until(lambda: bool(task.driver.log))
    assert task.driver.log == [("unit/a", 30.0)]


async def test_write_that_found_no_device_is_tried_again(task: TaskRig) -> None:
    task.task.start()
    await task.until(lambda: bool(task.ear.polls))
    real = task.driver.write
    fails = iter([True, True])

    async def write(command: object) -> None:
        if next(fails, False):
            raise rig.NotConnectedError("reset by peer")
        await real(command)  # type: ignore[arg-type]

    task.driver.write = write  # type: ignore[method-assign]
    task.task.request_write(0, 12.0)
    await task.until(lambda: task.driver.log == [("unit/a", 12.0)])
    outcomes = [result.outcome for _, result in task.ear.writes]
    assert outcomes[:2] == [WriteOutcome.UNREACHABLE] * 2


async def test_refused_credentials_wait_the_longest(task: TaskRig, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[str] = []
    monkeypatch.setattr(devices.Backoff, "auth_failure", lambda _self: waits.append("auth") or 0.001)
    task.driver.fault = AuthenticationError("wrong certificate")
    task.task.start()
    await task.until(lambda: bool(waits))


async def test_defect_in_a_driver_is_seen_and_not_swallowed(task: TaskRig) -> None:
    task.driver.fault = ZeroDivisionError("a defect")
    task.task.start()
    await task.until(lambda: task.task.failed_task is not None)
    assert isinstance(task.task.failed_task, ZeroDivisionError)
    await task.task.drain(1.0)


async def test_drain_ends_a_task_that_hangs_and_keeps_the_connection(task: TaskRig) -> None:
    async def hang() -> PollResult:
        await asyncio.sleep(3600.0)
        raise AssertionError

    task.driver.poll = hang  # type: ignore[method-assign]
    task.task.start()
    await asyncio.sleep(0.01)
    await task.task.drain(0.01)
    assert all(one.done() for one in task.task._tasks)
    assert not task.driver.closed


async def test_control_time_paces_the_polls(task: TaskRig) -> None:
    """A poll that took longer than its period is followed at once, and beats that were missed are not made up for."""
    polled: list[float] = []
    real = task.driver.poll

    async def slow() -> PollResult:
        polled.append(task.clock.monotonic())
        task.clock.advance(10.0)
        return await real()

    task.driver.poll = slow  # type: ignore[method-assign]
    task.task.start()
    await task.until(lambda: len(polled) >= 4)
    assert {late - early for early, late in pairwise(polled)} == {10.0}
