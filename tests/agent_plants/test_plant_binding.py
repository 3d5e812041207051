"""Which plant point stands behind which point of a site; loading a plant by name; the automatic register map."""

from datetime import UTC, datetime

import pytest
import yaml

from agent.plants.binding import as_yaml, automatic_map, plant_point
from agent.plants.errors import PlantFailedError, PlantNotFoundError
from agent.plants.load import load_plant
from agent.plants.runner import MAX_STEPS, PlantRunner
from drivers.modbus.settings import REGISTERS
from models.building import AirHandlerPlant
from safety.errors import UnitError
from safety.values import PointSpec

START = datetime(2026, 1, 12, 6, tzinfo=UTC)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("north/temp", "north_temp"),
        ("air-handler/supply_temp", "supply_temp"),
        ("big-hall/temp", "big_hall_temp"),
        ("north/set", "north_setpoint"),  # explicit
        ("north/no_such", None),
        ("south/wrong", None),  # explicit, but no such plant point: never a guess instead
    ],
)
def test_names_are_found_by_rule_and_explicit_ones_first(name, expected):
    explicit = {"north/set": "north_setpoint", "south/wrong": "nothing"}
    assert (
        plant_point(name, explicit, ["north_temp", "north_setpoint", "supply_temp", "big_hall_temp", "wrong"])
        == expected
    )


def test_the_automatic_map_overlaps_nothing_and_separates_what_can_be_written():
    plant = AirHandlerPlant()
    addresses = automatic_map(plant.points)
    assert list(addresses) == list(plant.points)
    taken = [(a.table, a.number + word) for a in addresses.values() for word in range(REGISTERS[a.type])]
    assert len(set(taken)) == len(taken)
    for name, address in addresses.items():
        assert address.table == ("holding" if plant.points[name].writable else "input")
        assert address.type == "f32"


def test_the_yaml_of_the_map_can_be_pasted():
    plant = AirHandlerPlant(zones=1)
    points = yaml.safe_load(as_yaml(plant.points, automatic_map(plant.points), "ahu"))["points"]
    assert set(points) == set(plant.points)
    assert points["zone1_heating"] == {
        "device": "ahu", "modbus": {"holding": 2, "type": "f32"}, "unit": "%", "range": [0, 100], "writable": True,
    }  # fmt: skip


def test_a_plant_is_loaded_by_name_with_its_options():
    plant = load_plant("models.building:AirHandlerPlant", {"zones": "a,b"})
    assert "a_temp" in plant.points


@pytest.mark.parametrize(
    ("use", "options", "says"),
    [
        ("models.building", {}, "module:Class"),
        ("no_such_module:Plant", {}, "no_such_module"),
        ("models.building:Nothing", {}, "no class 'Nothing'"),
        ("models.building:AirHandlerPlant", {"climate": "mars"}, "climate='mars'.*unknown"),
        ("models.building:AirHandlerPlant", {"colour": 1}, "unexpected keyword"),
        ("models.weather:Climate", {"name": "x"}, "cannot be built"),
        ("datetime:date", {"year": 2026, "month": 1, "day": 1}, "is not a plant"),
    ],
)
def test_what_is_not_a_plant_is_said_clearly(use, options, says):
    with pytest.raises(PlantNotFoundError, match=says):
        load_plant(use, options)


def test_a_plant_of_the_sites_own_folder(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend("")  # restores sys.path afterwards
    (tmp_path / "own_plant_of_a_test.py").write_text("from models.building import AirHandlerPlant as Mine\n")
    assert isinstance(load_plant("own_plant_of_a_test:Mine", {}, [tmp_path]), AirHandlerPlant)


class Recorder:
    """A plant with one sensor and one actuator that writes down what it is told."""

    def __init__(self, fail_at: int = -1, forget: bool = False) -> None:
        self.points = {
            "level": PointSpec("level", "Cel", -50.0, 50.0),
            "valve": PointSpec("valve", "%", 0.0, 100.0, writable=True),
        }
        self.told: list[tuple[dict[str, float], float]] = []
        self._fail_at, self._forget = fail_at, forget
        self._values = {"level": 20.0, "valve": 0.0}

    def reset(self, *, seed, start):
        return self._values

    def step(self, commands, dt):
        if len(self.told) == self._fail_at:
            raise RuntimeError("boom")
        self.told.append((dict(commands), dt))
        self._values.update(commands)
        return {} if self._forget else self._values


def runner(plant, speed=60.0, largest_step=10.0) -> PlantRunner:
    return PlantRunner(plant, seed=1, start=START, speed=speed, largest_step=largest_step)


def test_time_runs_at_the_chosen_speed_in_equal_steps():
    plant = Recorder()
    running = runner(plant)
    assert running.advance(0.5) == 0.0
    assert [dt for _, dt in plant.told] == pytest.approx([10.0, 10.0, 10.0])
    running.advance(0.1)
    assert plant.told[-1][1] == pytest.approx(6.0)
    assert running.elapsed == pytest.approx(36.0)


@pytest.mark.parametrize("wall", [0.0, -5.0])
def test_no_time_no_step(wall):
    plant = Recorder()
    runner(plant).advance(wall)
    assert plant.told == []


def test_a_suspended_process_does_not_catch_up_for_ever():
    plant = Recorder()
    dropped = runner(plant).advance(3600.0)
    assert len(plant.told) == MAX_STEPS
    assert dropped == pytest.approx(3600.0 * 60.0 - MAX_STEPS * 10.0)


def test_a_write_is_shown_at_once_and_acts_once():
    plant = Recorder()
    running = runner(plant)
    read, write = running.reader("valve", "%"), running.writer("valve", "%")
    assert write is not None
    write(55.0)
    assert read() == 55.0
    running.advance(0.5)
    assert [commands for commands, _ in plant.told] == [{"valve": 55.0}, {}, {}]
    assert read() == 55.0


def test_values_are_converted_both_ways():
    running = runner(Recorder())
    assert running.reader("level", "[degF]")() == pytest.approx(68.0)
    write = running.writer("valve", "1")
    assert write is not None
    write(0.25)
    assert running.reader("valve", "%")() == pytest.approx(25.0)


def test_units_of_another_kind_are_refused():
    with pytest.raises(UnitError):
        runner(Recorder()).reader("level", "Pa")


@pytest.mark.parametrize("value", [-0.1, 100.1, float("nan"), float("inf")])
def test_a_value_outside_the_range_is_refused(value):
    write = runner(Recorder()).writer("valve", "%")
    assert write is not None
    with pytest.raises(ValueError, match=r"outside 0\.\.100 %"):
        write(value)


def test_a_sensor_cannot_be_written():
    assert runner(Recorder()).writer("level", "Cel") is None


def test_a_plant_that_raises_or_forgets_is_the_end():
    with pytest.raises(PlantFailedError, match="Recorder failed: RuntimeError: boom"):
        runner(Recorder(fail_at=1)).advance(1.0)
    with pytest.raises(PlantFailedError, match="no reading for level, valve"):
        runner(Recorder(forget=True)).advance(1.0)


@pytest.mark.parametrize(("speed", "step"), [(0.0, 10.0), (float("nan"), 10.0), (1.0, 0.0)])
def test_speed_and_step_must_be_above_zero(speed, step):
    with pytest.raises(ValueError, match="above 0"):
        runner(Recorder(), speed, step)
