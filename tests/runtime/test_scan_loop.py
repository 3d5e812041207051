"""The scan loop: polls, ticks and answers become writes; nothing waits for a function, and nothing is written twice for nothing."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import runtime_rig as rig

from agent.runtime.errors import RuntimeFault
from agent.runtime.scan import ScanLoop
from drivers.interface import PollResult
from safety.values import Quality, Reason, Verdict, WriteOutcome, WriteResult


class LoopRig:
    """A scan loop with workers and devices that are only memory."""

    def __init__(self, folder: Path, zones: dict[str, str] = rig.ZONES) -> None:
        self.bench = rig.Bench(rig.engine_of(rig.program_of(folder, zones)))
        self.program, self.engine, self.clock = self.bench.program, self.bench.engine, self.bench.clock
        self.gate = rig.SilentGate()
        self.loop = ScanLoop(self.engine, self.clock, self.gate)  # type: ignore[arg-type]
        self.lanes = rig.MemoryLanes(
            self.engine, lambda temp, setpoint, bias, gain: ((setpoint - temp + bias) * gain, 1.0)
        )
        self.tasks = {device: rig.MemoryTask() for device in self.program.device_slices}
        self.loop.attach(self.lanes, self.tasks)  # type: ignore[arg-type]
        self.readings = {row.name: 20.0 if row.unit == "Cel" else 0.0 for row in self.program.points}

    def poll(self, device: str, **changes: float) -> None:
        """A device's poll ends with these readings; NaN is a bad point."""
        self.readings |= {name.replace("__", "/"): value for name, value in changes.items()}
        rows = self.program.points[self.program.device_slices[device]]
        value = np.asarray([self.readings[row.name] for row in rows])
        good = np.isfinite(value)
        self.loop.polled(
            device,
            PollResult(
                value,
                np.where(good, Quality.GOOD, Quality.BAD).astype(np.uint8),
                np.where(good, Reason.OK, Reason.DEVICE_ERROR).astype(np.uint8),
                np.full(len(rows), self.clock.utc()),
            ),
        )

    def poll_all(self) -> None:
        for device in self.tasks:
            self.poll(device)

    def scan(self) -> None:
        self.loop.scan(self.program.groups[0], self.clock.monotonic())

    def writes(self) -> dict[str, float | None]:
        """What the devices were asked to write since the last call, by name."""
        return {
            self.program.outputs[output].name: value
            for task in self.tasks.values()
            for output, value in task.take().items()
        }


@pytest.fixture
def loop(tmp_path: Path) -> LoopRig:
    loop = LoopRig(tmp_path)
    loop.loop.start()
    loop.poll_all()
    return loop


def test_begins_in_fail_safe_and_says_so_to_the_devices(tmp_path: Path) -> None:
    loop = LoopRig(tmp_path)
    loop.loop.start()
    assert loop.writes() == {
        "east/heating": 0.0,
        "east/fan": 0.0,
        "west/heating": 0.0,
        "west/fan": 0.0,
        "cellar/pump": 0.0,
    }
    assert not loop.loop.ready
    loop.poll_all()
    assert loop.loop.ready


def test_scan_writes_what_the_function_says_and_only_once(loop: LoopRig) -> None:
    loop.writes()
    loop.poll("ahu1", east__temp=18.0, west__temp=19.0)
    loop.scan()
    assert loop.writes() == {"east/heating": 25.0, "east/fan": 1.0, "west/heating": 15.0, "west/fan": 1.0}
    loop.clock.advance(5.0)
    loop.poll_all()
    loop.scan()
    assert loop.writes() == {}, "nothing changed"


def test_unchanged_value_is_written_again_after_its_rewrite_time(loop: LoopRig) -> None:
    loop.scan()
    loop.writes()
    seen = set()
    for _ in range(13):
        loop.clock.advance(5.0)
        loop.poll_all()
        loop.scan()
        loop.loop.safety_tick(loop.clock.monotonic())
        seen |= loop.writes().keys()
    assert seen == {row.name for row in loop.program.outputs}, "an output that no scan drives, too"


def test_bad_input_is_written_as_fail_safe_by_the_poll_that_brought_it(loop: LoopRig) -> None:
    loop.poll("ahu1", east__temp=18.0)
    loop.scan()
    loop.writes()
    loop.poll("ahu2", east__setpoint=math.nan)
    assert loop.writes() == {"east/heating": 5.0, "east/fan": 0.0}


def test_stale_input_is_noticed_by_the_safety_tick_alone(loop: LoopRig) -> None:
    loop.poll("ahu1", west__temp=19.0)
    loop.scan()
    loop.writes()
    loop.clock.advance(31.0)
    loop.loop.safety_tick(loop.clock.monotonic())
    assert loop.writes()["west/fan"] == 0.0


def test_trip_is_written_by_the_poll_that_brought_it_while_the_function_hangs(loop: LoopRig) -> None:
    loop.poll("ahu1", east__temp=18.0)
    loop.scan()
    loop.lanes.hold = True
    loop.clock.advance(5.0)
    loop.poll_all()
    loop.scan()
    loop.writes()
    trips: list[int] = []
    loop.loop.on_trips.append(lambda: trips.append(1))
    loop.poll("ahu1", east__temp=46.0)
    assert loop.writes() == {"east/heating": 0.0}
    assert trips == [1]


def test_unit_whose_function_still_runs_misses_its_scan_and_no_one_else_does(loop: LoopRig) -> None:
    loop.scan()
    loop.lanes.hold = True
    loop.clock.advance(5.0)
    loop.poll_all()
    loop.scan()
    loop.clock.advance(5.0)
    loop.poll_all()
    loop.scan()
    assert loop.loop.missed == 2
    assert len(loop.lanes.kept) == 1, "it is not asked twice"
    loop.lanes.let_go()
    loop.clock.advance(5.0)
    loop.poll_all()
    loop.lanes.hold = False
    loop.scan()
    assert loop.loop.missed == 2


def test_answer_that_failed_goes_to_the_declared_fallback(loop: LoopRig) -> None:
    loop.poll("ahu1", east__temp=18.0, west__temp=18.0)
    loop.scan()
    loop.lanes.hold = True
    loop.clock.advance(5.0)
    loop.poll_all()
    loop.scan()
    loop.writes()
    loop.lanes.let_go(ok=False)
    assert loop.writes() == {"west/heating": 5.0, "west/fan": 0.0}, "east holds two scans, west none"
    verdict = loop.engine.enforcer.verdict[loop.program.output_index["east/heating"]]
    assert verdict & Verdict.HELD and verdict & Verdict.DEADLINE_MISSED


def test_without_workers_every_unit_fails_at_once_instead_of_waiting(loop: LoopRig) -> None:
    loop.scan()
    loop.lanes.ready = False
    loop.clock.advance(5.0)
    loop.poll_all()
    loop.writes()
    loop.scan()
    assert loop.writes()["west/fan"] == 0.0
    loop.lanes.ready = True
    loop.scan()
    assert loop.writes()["west/fan"] == 1.0


def test_unit_with_a_bad_input_is_not_run(loop: LoopRig) -> None:
    loop.lanes.hold = True
    loop.poll("ahu1", east__temp=math.nan)
    loop.scan()
    ((_group, columns, _answer),) = loop.lanes.kept
    assert columns.tolist() == [1]
    scanned: list[Any] = []
    loop.loop.on_scanned.append(lambda _group, done: scanned.append(done.tolist()))
    loop.lanes.let_go()
    loop.scan()
    assert scanned == [[1], [0]], "and is reported as scanned all the same"


def test_trip_of_a_watched_unit_is_written_without_any_scan(loop: LoopRig) -> None:
    loop.clock.advance(61.0)
    loop.poll_all()
    loop.writes()
    loop.poll("ahu2", cellar__level=2.5)
    assert loop.writes() == {"cellar/pump": 1.0}


def test_lateness_is_kept_in_wall_seconds(tmp_path: Path) -> None:
    loop = LoopRig(tmp_path)
    loop.clock.speed = 60.0  # type: ignore[misc]
    loop.poll_all()
    loop.loop.scan(loop.program.groups[0], loop.clock.monotonic() - 3.0)
    assert loop.loop.lateness_s[0] == pytest.approx(0.05)


def test_poll_with_too_few_values_is_a_defect_and_not_spread_over_the_points(loop: LoopRig) -> None:
    one = np.ones(1)
    with pytest.raises(RuntimeFault, match="answered 1 values: a defect of the driver"):
        loop.loop.polled("ahu1", PollResult(one, one.astype(np.uint8), one.astype(np.uint8), one))


def test_override_found_by_a_poll_is_reported_and_written_again(loop: LoopRig) -> None:
    loop.poll("ahu1", east__temp=18.0)
    loop.scan()
    heard: list[WriteResult] = []
    loop.loop.on_written.append(lambda _output, result: heard.append(result))
    loop.writes()
    loop.poll("ahu1", east__heating=25.0, east__fan=1.0, west__heating=5.0, west__fan=1.0)
    loop.gate.seen.clear()
    loop.gate.outcome = WriteOutcome.OVERRIDDEN
    loop.poll("ahu1", east__heating=77.0)
    assert [name for name, _value in loop.gate.seen] == ["east/heating"], "only what differs is worth asking"
    assert (heard[0].outcome, heard[0].read_back, heard[0].requested) == (WriteOutcome.OVERRIDDEN, 77.0, 25.0)
    assert loop.loop.writes == 0, "nothing was written by that"
    loop.gate.outcome = None
    loop.clock.advance(5.0)
    loop.poll_all()
    loop.scan()
    assert loop.writes()["east/heating"] == 25.0


def test_write_results_are_counted_and_passed_on(loop: LoopRig) -> None:
    heard: list[int] = []
    loop.loop.on_written.append(lambda output, _result: heard.append(output))
    loop.loop.written(2, WriteResult("west/heating", WriteOutcome.REJECTED, 1.0, None, "refused", 0.01))
    assert heard == [2] and loop.loop.writes == 1
    assert loop.loop.outcomes[2] == WriteOutcome.REJECTED


def test_listener_that_fails_does_not_stop_the_scan(loop: LoopRig) -> None:
    def broken(*_: Any) -> None:
        raise RuntimeError("telemetry")

    for listeners in (loop.loop.on_scanned, loop.loop.on_trips, loop.loop.on_written):
        listeners.insert(0, broken)  # type: ignore[attr-defined]
    heard: list[str] = []
    loop.loop.on_scanned.append(lambda *_: heard.append("scanned"))
    loop.poll("ahu1", east__temp=46.0)
    loop.scan()
    assert loop.writes()["east/heating"] == 0.0
    assert heard == ["scanned"], "the others are still told"
