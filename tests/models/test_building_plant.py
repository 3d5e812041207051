"""The air-handler plant: names, ranges, commands, the scripted morning, and the same physics as the batch."""

import math
from datetime import UTC, datetime

import numpy as np
import pytest

from agent.kernels import load
from models import kernels as k
from models.batch import AirHandlerBatch
from models.building import AirHandlerPlant, zone_names
from models.occupancy import OfficeHours
from models.parameters import SOLAR_SIDES, AirHandlerParameters, ZoneParameters
from models.plant import Plant
from models.weather import Weather
from safety.units import is_known

MORNING = datetime(2026, 1, 12, 6, tzinfo=UTC)


def started(**options) -> AirHandlerPlant:
    plant = AirHandlerPlant(**options)
    plant.reset(seed=1, start=MORNING)
    return plant


def run(plant: AirHandlerPlant, commands: dict[str, float], minutes: float, dt: float = 10.0) -> list[dict[str, float]]:
    return [dict(plant.step(commands, dt)) for _ in range(round(minutes * 60.0 / dt))]


def test_it_is_a_plant_and_every_point_is_declared_and_read():
    plant = started()
    assert isinstance(plant, Plant)
    readings = plant.step({}, 10.0)
    assert set(readings) == set(plant.points)
    assert all(
        name == spec.name and is_known(spec.unit) and spec.low < spec.high for name, spec in plant.points.items()
    )
    assert set(plant.meters.values()) | set(plant.starts.values()) <= set(plant.points)
    assert plant.points["north_heating"].writable and not plant.points["north_temp"].writable


@pytest.mark.parametrize("scenario", ["none", "winter_morning", "fan_belt", "duct_blocked"])
def test_every_reading_stays_in_its_declared_range(scenario):
    plant = started(scenario=scenario)
    random = np.random.default_rng(0)
    writable = [name for name, spec in plant.points.items() if spec.writable]
    for _ in range(24 * 12):
        commands = {name: float(random.uniform(-50.0, 150.0)) for name in writable}
        for name, value in plant.step(commands, 300.0).items():
            spec = plant.points[name]
            assert math.isnan(value) or spec.low <= value <= spec.high, name


def test_the_same_seed_is_the_same_day():
    def day() -> list[dict[str, float]]:
        return run(
            started(climate="cold", spread=0.3), {"supply_fan": 1.0, "fan_speed": 70.0, "north_heating": 40.0}, 60.0
        )

    assert day() == day()
    other = AirHandlerPlant(climate="cold", spread=0.3)
    other.reset(seed=2, start=MORNING)
    assert run(other, {}, 60.0)[-1] != day()[-1]


def test_a_seed_of_its_own_outranks_the_seed_of_the_run():
    first, second = AirHandlerPlant(seed=9), AirHandlerPlant(seed=9)
    assert dict(first.reset(seed=1, start=MORNING)) == dict(second.reset(seed=2, start=MORNING))


def test_reset_begins_again():
    plant = started()
    before = dict(plant.reset(seed=1, start=MORNING))
    run(plant, {"north_heating": 100.0, "north_setpoint": 25.0}, 30.0)
    assert dict(plant.reset(seed=1, start=MORNING)) == before
    assert before["north_setpoint"] == 21.0
    assert before["energy_heating"] == 0.0


def test_it_is_the_batch_with_names():
    plant = started(zones=3)
    batch = AirHandlerBatch(
        [AirHandlerParameters.for_zones(3)], [ZoneParameters(solar_m2=5.0 * SOLAR_SIDES[zone]) for zone in range(3)]
    )
    weather = Weather("temperate", seed=1, start=MORNING)
    people = OfficeHours(3, seed=1, start=MORNING)
    sky, use = weather.sample(np.zeros(1)), np.zeros(3)
    people.at(0.0, use)
    batch.reset(sky, 18.0)
    random = np.random.default_rng(5)
    for step in range(300):
        heat, cool, fan = random.uniform(0.0, 100.0, (3, 3))
        commands = {f"zone{zone + 1}_heating": heat[zone] for zone in range(3)}
        commands |= {f"zone{zone + 1}_cooling": cool[zone] for zone in range(3)}
        commands |= {f"zone{zone + 1}_fan": fan[zone] for zone in range(3)}
        commands |= {
            "supply_fan": 1.0,
            "fan_speed": 80.0,
            "oa_damper": 30.0,
            "heating_valve": 50.0,
            "cooling_valve": 0.0,
        }
        readings = plant.step(commands, 60.0)
        batch.zone_command[:] = np.column_stack([heat, cool, fan])
        batch.command[0] = [1.0, 80.0, 30.0, 50.0, 0.0]
        batch.step(60.0, sky, use)
        sky = weather.sample(np.array([60.0 * (step + 1)]))
        people.at(60.0 * (step + 1), use)
        assert [readings[f"zone{zone + 1}_temp"] for zone in range(3)] == batch.zone_state[:, k.S_AIR].tolist()
        assert readings["supply_temp"] == batch.state[0, k.H_COIL]


def test_compiled_kernels_change_nothing():
    plain, compiled = AirHandlerPlant(spread=0.2), AirHandlerPlant(spread=0.2)
    compiled.use_kernels(lambda module: load(module, "jit"))
    plain.reset(seed=1, start=MORNING)
    compiled.reset(seed=1, start=MORNING)
    commands = {"east_heating": 55.0, "east_fan": 60.0, "supply_fan": 1.0, "fan_speed": 90.0, "oa_damper": 20.0}
    assert run(plain, commands, 120.0, 30.0) == run(compiled, commands, 120.0, 30.0)


def test_without_commands_nothing_runs():
    readings = run(started(), {}, 60.0)[-1]
    assert readings["energy_fans"] == 0.0
    assert readings["fan_status"] == 0.0
    assert readings["duct_static"] == 0.0


def test_commands_are_kept_limited_and_nan_is_ignored():
    plant = started()
    plant.step({"north_heating": 250.0, "fan_speed": -3.0, "east_setpoint": 22.5}, 10.0)
    readings = plant.step({"north_heating": math.nan}, 10.0)
    assert readings["north_heating"] == 100.0
    assert readings["fan_speed"] == 0.0
    assert readings["east_setpoint"] == 22.5


@pytest.mark.parametrize("name", ["north_temp", "no_such_point"])
def test_what_cannot_be_written_is_refused(name):
    with pytest.raises(ValueError, match=f"{name}.*not a writable point"):
        started().step({name: 1.0}, 10.0)


@pytest.mark.parametrize("dt", [0.0, -1.0, 601.0, math.nan])
def test_a_step_too_long_or_backwards_is_refused(dt):
    with pytest.raises(ValueError, match="dt is"):
        started().step({}, dt)


def test_heating_heats_and_cooling_cools():
    warm = run(started(), {"north_heating": 100.0, "north_fan": 100.0}, 60.0)[-1]
    cold = run(started(), {"north_cooling": 100.0, "north_fan": 100.0}, 60.0)[-1]
    idle = run(started(), {}, 60.0)[-1]
    assert cold["north_temp"] + 1.5 < idle["north_temp"] < warm["north_temp"] - 1.5
    assert warm["energy_heating"] > 0.3 and warm["energy_cooling"] == 0.0
    assert cold["energy_cooling"] > 0.3 and cold["energy_heating"] == 0.0
    assert warm["heat_pump_starts"] >= 1.0


def test_ventilation_clears_the_air():
    stuffy = run(started(), {}, 300.0, 60.0)[-1]["north_co2"]
    fresh = run(started(), {"supply_fan": 1.0, "fan_speed": 100.0, "oa_damper": 100.0}, 300.0, 60.0)[-1]["north_co2"]
    assert stuffy > 1200.0
    assert fresh < 700.0


def winter_morning() -> list[dict[str, float]]:
    """The script under a plain control that reacts to nothing: fan on, minimum outdoor air, valve mostly open."""
    commands = {"supply_fan": 1.0, "fan_speed": 80.0, "oa_damper": 20.0, "heating_valve": 80.0}
    return run(started(scenario="winter_morning"), commands, 60.0)


def at(history: list[dict[str, float]], minute: float) -> dict[str, float]:
    return history[round(minute * 6.0) - 1]


def test_the_winter_morning_fills_the_zones_one_after_another():
    history = winter_morning()
    arrivals = [
        next(index for index, readings in enumerate(history, 1) if readings[f"{zone}_occupied"] > 0.5) / 6.0
        for zone in ("north", "east", "south", "west")
    ]
    assert arrivals == pytest.approx([12.0, 24.0, 36.0, 48.0], abs=0.2)
    assert at(history, 11.0)["building_occupied"] == 0.0
    assert at(history, 13.0)["building_occupied"] == 1.0


def test_the_winter_morning_loses_one_sensor_for_six_minutes():
    history = winter_morning()
    lost = [index / 6.0 for index, readings in enumerate(history, 1) if math.isnan(readings["east_temp"])]
    assert lost[0] == pytest.approx(18.0, abs=0.2) and lost[-1] == pytest.approx(24.0, abs=0.2)
    assert len(lost) == 36
    others = {name for readings in history for name, value in readings.items() if math.isnan(value)}
    assert others == {"east_temp"}


def test_the_winter_morning_nearly_freezes_the_coil_and_recovers():
    history = winter_morning()
    assert at(history, 26.9)["supply_temp"] > 12.0
    assert at(history, 26.9)["freezestat"] == 0.0
    assert at(history, 31.0)["supply_temp"] < 3.3
    assert at(history, 31.0)["freezestat"] == 1.0
    assert at(history, 36.9)["supply_temp"] < 0.0
    assert at(history, 31.0)["oa_damper"] == 20.0, "the command is as it was: the damper does not obey"
    assert at(history, 50.0)["supply_temp"] > 12.0
    assert at(history, 50.0)["freezestat"] == 0.0


def test_a_broken_belt_shows_no_status():
    plant = started(scenario="fan_belt")
    history = run(plant, {"supply_fan": 1.0, "fan_speed": 80.0}, 30.0)
    assert at(history, 19.0)["fan_status"] == 1.0
    assert at(history, 22.0)["fan_status"] == 0.0
    assert at(history, 22.0)["supply_fan"] == 1.0


def test_a_blocked_duct_raises_the_pressure_past_the_interlock():
    history = run(started(scenario="duct_blocked"), {"supply_fan": 1.0, "fan_speed": 100.0}, 40.0)
    assert at(history, 19.0)["duct_static"] == pytest.approx(400.0, rel=0.01)
    assert at(history, 22.0)["duct_static"] > 750.0
    assert at(history, 39.0)["duct_static"] == pytest.approx(400.0, rel=0.01)


def test_zone_names():
    assert zone_names(2) == ("zone1", "zone2")
    assert zone_names("lab, office_2") == ("lab", "office_2")
    assert zone_names(["a"]) == ("a",)


@pytest.mark.parametrize("zones", [0, 201, "a,a", "Lab", "", "1st", ["x-y"]])
def test_impossible_zones_are_refused(zones):
    with pytest.raises(ValueError, match="zone"):
        AirHandlerPlant(zones=zones)


@pytest.mark.parametrize(
    "options", [{"climate": "mars"}, {"scenario": "flood"}, {"spread": 1.0}, {"spread": -0.1}, {"spread": math.nan}]
)
def test_impossible_options_are_refused_by_name(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        AirHandlerPlant(**options)
