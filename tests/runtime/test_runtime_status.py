"""What a running agent says of itself: honest JSON, whatever state it is in."""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import runtime_rig as rig

from agent.runtime.errors import ControlSocketError
from agent.runtime.latching import LatchKeeper
from agent.runtime.scan import ScanLoop
from agent.runtime.status import Status, finite, quantiles_ms
from safety.errors import StoreError
from safety.latches import Latches
from safety.values import WriteOutcome, WriteResult


class StatusRig:
    """A status over an engine on the bench."""

    def __init__(self, folder: Path) -> None:
        self.bench = rig.Bench(rig.engine_of(rig.program_of(folder)))
        program, engine, clock = self.bench.program, self.bench.engine, self.bench.clock
        self.scan = ScanLoop(engine, clock, rig.SilentGate())  # type: ignore[arg-type]
        self.latches = Latches(folder / "latches.db", clock.utc())
        self.keeper = LatchKeeper(engine.enforcer, self.latches, clock)
        self.drivers = {
            device: rig.memory_driver(device, [row.name for row in program.points[where]], clock)
            for device, where in program.device_slices.items()
        }
        tasks: Any = {device: SimpleNamespace(driver=driver) for device, driver in self.drivers.items()}
        operate: Any = SimpleNamespace(lanes=None, functions={rig.CONTROL.spec: rig.CONTROL})
        train: Any = SimpleNamespace(link=SimpleNamespace(connected=False, dropped=3), applied=1, refused=2)
        self.status = Status(program, engine, self.scan, tasks, clock, operate, self.keeper, train, "python")

    async def ask(self, verb: str, **arguments: Any) -> dict[str, Any]:
        """As it goes over the socket: strict JSON."""
        return json.loads(json.dumps(dict(await self.status.verbs()[verb](arguments)), allow_nan=False))


@pytest.fixture
def one(tmp_path: Path) -> Any:
    one = StatusRig(tmp_path)
    yield one
    one.latches.close()


async def test_agent_that_has_seen_nothing_yet_is_valid_json(one: StatusRig) -> None:
    status = await one.ask("status")
    assert (status["site"], status["scans"], status["speed"]) == ("rig", 0, 1.0)
    assert status["lateness_ms"] == {"p50": None, "p99": None, "max": None}
    assert status["operate"] == {"ready": False, "deadline_misses": 0, "worker_starts": 0, "quarantined": 0}
    assert status["train"] == {"connected": False, "applied": 1, "refused": 2, "dropped": 3}
    assert status["mqtt"] is None
    assert {device["device"]: device["age_s"] for device in status["devices"]} == {"ahu1": None, "ahu2": None}
    points = (await one.ask("points"))["points"]
    assert len(points) == len(one.bench.program.points)
    assert {point["reason"] for point in points} == {"never_read"}
    assert {(point["value"], point["age_s"]) for point in points} == {(None, None)}


async def test_units_say_what_drives_them(one: StatusRig) -> None:
    one.bench.read_all()
    one.bench.engine.perceive(one.bench.clock.monotonic())
    one.bench.engine.safety(one.bench.clock.monotonic())
    group = one.bench.program.groups[0]
    one.bench.engine.prepare(group)
    one.bench.answer(group, [0, 1], heating=250.0, fan=1.0)
    one.bench.engine._arrays["g0.text"][0, :7] = np.frombuffer(b"Heating", np.uint8)
    one.bench.engine.collect(group, np.asarray([0, 1]), answered=True)
    one.bench.engine.enforce(one.bench.clock.monotonic())
    output = one.bench.program.output_index["east/heating"]
    one.scan.written(output, WriteResult("east/heating", WriteOutcome.HELD, 100.0, 100.0, "", 0.01))
    status = await one.ask("status")
    east, cellar = (next(unit for unit in status["units"] if unit["unit"] == name) for name in ("east", "cellar"))
    assert (east["runs_as"], east["text"], east["parameters"]) == ("python", "Heating", {"bias": 0.5, "gain": 10.0})
    heating = east["outputs"][0]
    assert (heating["requested"], heating["commanded"], heating["verdict"]) == (250.0, 100.0, ["clamped_high"])
    assert heating["outcome"] == "held"
    assert (cellar["function"], cellar["runs_as"], cellar["outputs"][0]["commanded"]) == (None, None, 0.0)


async def test_points_of_one_unit_and_an_unknown_one(one: StatusRig) -> None:
    one.bench.read(east__temp=21.25, east__setpoint=math.nan)
    one.bench.clock.advance(2.0)
    one.bench.engine.perceive(one.bench.clock.monotonic())
    points = {point["point"]: point for point in (await one.ask("points", unit="east"))["points"]}
    assert set(points) == {"east/temp", "east/setpoint", "east/heating", "east/fan"}
    assert points["east/temp"] == {
        "point": "east/temp", "value": 21.25, "unit": "Cel", "quality": "good", "reason": "ok", "age_s": 2.0,
    }  # fmt: skip
    assert (points["east/setpoint"]["value"], points["east/setpoint"]["reason"]) == (None, "device_error")
    with pytest.raises(ControlSocketError, match="no unit is called 'attic'; there are: "):
        await one.ask("points", unit="attic")


async def test_trips_with_cause_history_and_reset(one: StatusRig) -> None:
    one.bench.read_all()
    one.bench.read(east__temp=46.0)
    one.bench.engine.perceive(one.bench.clock.monotonic())
    one.bench.engine.safety(one.bench.clock.monotonic())
    one.keeper.changed()
    answer = await one.ask("trips", history=True)
    hot = next(row for row in answer["interlocks"] if row["interlock"] == "east/hot")
    assert (hot["status"], hot["tripped"], hot["cause"]) == ("tripped", True, "temp > 45 Cel")
    assert [(row["interlock"], row["event"]) for row in answer["history"]] == [("east/hot", "trip")]
    assert "history" not in await one.ask("trips")
    for arguments in ({}, {"interlock": "east/hot"}, {"interlock": "east/hot", "by": "me"}):
        with pytest.raises(ControlSocketError, match="a reset needs a name and a reason"):
            await one.ask("reset", **arguments)
    with pytest.raises(ControlSocketError, match="clears by itself"):
        await one.ask("reset", interlock="east/hot", by="me", reason="test")
    with pytest.raises(ControlSocketError, match="there is no interlock 'east/cold'"):
        await one.ask("reset", interlock="east/cold", by="me", reason="test")


async def test_disk_that_cannot_be_read_is_a_refusal_and_not_a_crash(
    one: StatusRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuses(_limit: int) -> None:
        raise StoreError("the trip log cannot be read: disk I/O error")

    monkeypatch.setattr(one.keeper, "history", refuses)
    with pytest.raises(ControlSocketError, match="disk I/O error"):
        await one.ask("trips", history=True)


def test_numbers_that_are_none_become_null() -> None:
    assert [finite(value) for value in (1.5, math.nan, math.inf, -math.inf)] == [1.5, None, None, None]
    assert quantiles_ms([0.001, 0.002, 0.003]) == pytest.approx({"p50": 2.0, "p99": 2.98, "max": 3.0})
