"""Lock-step: the live engine on a plant; the same seed gives the same run, and nothing leaves its envelope."""

from __future__ import annotations

import json
import math
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

import agent
from agent.config.loader import load
from agent.plants.errors import PlantBindingError
from agent.plants.load import load_plant
from agent.runtime.lockstep import LockStep
from agent.runtime.simulation_report import report

DEMO = Path(agent.__file__).resolve().parent.parent / "configs" / "demo" / "site.yaml"
START = datetime(2026, 1, 12, tzinfo=UTC)

SITE = """\
site: tank
include: [zones/*.yaml]
devices: {plc: {poll: 1s, modbus: {host: 127.0.0.1}}}
plant: {use: "my_plant:Tank", options: {inflow: 0.05}, step: 2s}
kernels: python
"""

ZONE = """\
zone: tank
function: my_functions:level
scan: 4s
points:
  level: {device: plc, modbus: {input: 0, type: f32}, unit: m, range: [0, 10], stale_after: 30s}
  valve: {device: plc, modbus: {holding: 0, type: f32}, unit: "%", range: [0, 100], writable: true}
outputs:
  valve: {limits: [0, 80], fail_safe: 80, max_step: 30}
interlocks:
  - {name: overflow, when: level > 300 cm, trip: {valve: 80}}
parameters: {aim: {value: 1.0, range: [0.5, 2.5], max_step: 0.5}}
train: {mode: on, ewma: {parameter: aim, feedback: level, target: 2.0, gain: 1.0, window: 5min}}
"""
PLANT = '''
"""A plant that poetd has never seen: a tank with a drain valve, in centimetres and per cent."""

import random
from safety.values import PointSpec


class Tank:
    def __init__(self, inflow):
        self.inflow = inflow
        self.points = {
            "level": PointSpec("level", "cm", 0.0, 1000.0),
            "tank_valve": PointSpec("tank_valve", "%", 0.0, 100.0, writable=True),
        }
        self.commands = []

    def reset(self, *, seed, start):
        assert start.tzinfo is not None
        self.noise = random.Random(seed)
        self.level, self.valve = 150.0, 0.0
        return self.readings()

    def step(self, commands, dt):
        self.commands.append((dt, dict(commands)))
        self.valve = commands.get("tank_valve", self.valve)
        self.level += dt * (self.inflow * 100 * self.noise.uniform(0.5, 1.5) - 0.1 * self.valve)
        self.level = max(self.level, 0.0)
        return self.readings()

    def readings(self):
        return {"level": self.level, "tank_valve": self.valve}
'''

FUNCTIONS = """
def level(level, aim):
    if level > 2.9:
        return float("nan")
    return (level - aim) * 500.0
"""


@pytest.fixture
def tank(tmp_path: Path) -> Path:
    (tmp_path / "zones").mkdir()
    for name, text in {
        "site.yaml": SITE,
        "zones/tank.yaml": ZONE,
        "my_plant.py": PLANT,
        "my_functions.py": FUNCTIONS,
    }.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    return tmp_path / "site.yaml"


def run(site: Path, days: float, seed: int = 1) -> tuple[LockStep, Any, dict[str, Any]]:
    loaded = load(site)
    assert loaded.site.plant is not None
    plant = load_plant(loaded.site.plant.use, loaded.site.plant.options, loaded.search_path)
    step = LockStep(loaded, plant, "python", seed, START)
    recording = step.run(days)
    return step, recording, json.loads(json.dumps(report(step, recording, 1.0), allow_nan=False))


def test_foreign_plant_in_foreign_units_is_controlled_within_its_envelope(tank: Path) -> None:
    step, recording, result = run(tank, 0.05)
    plant: Any = step.plant
    assert {dt for dt, _ in plant.commands} == {2.0}, (
        "the largest step that divides the scan and is not over the plant's"
    )
    values = [commands["tank_valve"] for _, commands in plant.commands if "tank_valve" in commands]
    assert values and all(0.0 <= value <= 80.0 for value in values)
    assert result["violations"] == 0
    assert recording.steps == round(0.05 * 86_400 / 4.0)
    level = recording.values[: recording.steps, step.program.point_index["tank/level"]]
    assert level[0] == pytest.approx(1.5), "centimetres became metres"


def test_function_that_fails_and_trips_end_in_what_was_declared(tank: Path) -> None:
    text = tank.read_text().replace("inflow: 0.05", "inflow: 0.5")
    tank.write_text(text)
    step, recording, result = run(tank, 0.02)
    assert recording.trips >= 1
    assert step.plant.commands[-1][1].get("tank_valve", 80.0) == 80.0  # type: ignore[attr-defined]
    assert result["verdicts"]["clamped_high"] >= 1
    assert result["violations"] == 0


def test_learned_parameter_changes_what_the_function_does(tank: Path) -> None:
    _step, recording, result = run(tank, 0.1)
    assert recording.learned, "a window has passed"
    t, unit, name, value, why = recording.learned[0]
    assert (unit, name) == ("tank", "aim") and 0.5 <= value <= 2.5 and why
    assert t >= 300.0
    assert len(result["learned"]) == len(recording.learned)


def test_same_seed_same_run_and_another_seed_another(tank: Path) -> None:
    runs = [run(tank, 0.03, seed)[1] for seed in (7, 7, 8)]
    first, second, third = (recording.values[: recording.steps].tolist() for recording in runs)
    assert first == second
    assert first != third


def test_progress_ends_at_one(tank: Path) -> None:
    loaded = load(tank)
    assert loaded.site.plant is not None
    plant = load_plant(loaded.site.plant.use, loaded.site.plant.options, loaded.search_path)
    shares: list[float] = []
    LockStep(loaded, plant, "python", 1, START).run(0.02, shares.append)
    assert shares == sorted(shares) and shares[-1] == 1.0


def test_plant_that_stands_behind_no_point_is_refused(tank: Path) -> None:
    (tank.parent / "my_plant.py").write_text(PLANT.replace('"level"', '"depth"').replace("tank_valve", "drain"))
    loaded = load(tank)
    assert loaded.site.plant is not None
    sys.modules.pop("my_plant", None)
    plant = load_plant(loaded.site.plant.use, loaded.site.plant.options, loaded.search_path)
    with pytest.raises(PlantBindingError, match="no point of the site has a counterpart"):
        LockStep(loaded, plant, "python", 1, START)


@pytest.fixture(autouse=True)
def _foreign_modules() -> Any:
    """Each test has its own ``my_plant`` and ``my_functions``."""
    before = list(sys.path)
    yield
    sys.path[:] = before
    for name in ("my_plant", "my_functions"):
        sys.modules.pop(name, None)


def test_demo_day_is_comfortable_and_inside_every_envelope() -> None:
    _step, recording, result = run(DEMO, 0.25)
    assert result["violations"] == 0
    assert result["energy_kwh"]["total"] > 0.0
    assert {zone["unit"] for zone in result["zones"]} == {"east", "north", "south", "west"}
    assert all(math.isfinite(zone["discomfort_kelvin_h"]) for zone in result["zones"])
    assert recording.limited > 0
