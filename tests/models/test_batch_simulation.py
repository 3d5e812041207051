"""The batched simulation and its reference control: limits hold, comfort is judged, savings go the way physics says."""

import math
from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.kernels import load
from models import control_kernels as c
from models import kernels as k
from models.batch import AirHandlerBatch, Comfort, simulate
from models.occupancy import OfficeHours
from models.parameters import AirHandlerParameters, ZoneParameters, vary
from models.weather import Weather

MONDAY = datetime(2026, 1, 12, tzinfo=UTC)
DT = 300.0


class ReferenceControl:
    """The reference control as the callable that ``simulate`` wants, and a check of every command it gives."""

    def __init__(self, batch: AirHandlerBatch, control, setback: float = 3.0) -> None:
        self.batch, self._control = batch, control
        rows, count = batch.zone_state.shape[0], batch.state.shape[0]
        self.thermostat = np.tile([21.0, setback, 0.5, 30.0, 25.0], (rows, 1))
        self.unit = np.tile([16.0, 80.0, 25.0, 10.0, 1800.0, 1800.0, 25.0], (count, 1))
        self.timer = np.full(count, 1e9)
        self.switched: list[float] = []

    def __call__(self, dt, weather, use) -> None:
        batch = self.batch
        before, unit_before = batch.zone_command.copy(), batch.command.copy()
        settings = (self.thermostat, self.unit, self.timer)
        self._control(dt, weather, use, batch.zone_state, batch.output, *settings, batch.zone_command, batch.command)
        assert np.all((batch.zone_command >= 0.0) & (batch.zone_command <= 100.0))
        assert np.all(np.abs(batch.zone_command - before) <= 25.0 + 1e-9)
        assert np.all(np.abs(batch.command - unit_before) <= 25.0 + 1e-9)
        if batch.command[0, k.K_FAN] != unit_before[0, k.K_FAN]:
            self.switched.append(dt)
        else:
            self.switched and self.switched.append(self.switched.pop() + dt)


def fleet(zones: int = 4, handlers: int = 2, mode: str = "jit") -> AirHandlerBatch:
    random = np.random.default_rng(0)
    rooms = [vary(ZoneParameters(), random, 0.2) for _ in range(zones * handlers)]
    return AirHandlerBatch([AirHandlerParameters.for_zones(zones)] * handlers, rooms, load("models.kernels", mode).step)


def week(batch: AirHandlerBatch, mode: str = "jit", days: int = 7, **options):
    times = np.arange(0.0, days * 86400.0, DT)
    handlers = batch.state.shape[0]
    weather = np.repeat(Weather("cold", seed=1, start=MONDAY).sample(times)[:, None, :], handlers, axis=1)
    use = np.tile(OfficeHours(batch.zones_each, seed=1, start=MONDAY).sample(times), (1, handlers))
    kernels = load("models.control_kernels", mode)
    control = ReferenceControl(batch, kernels.control, **options)
    return simulate(batch, control, weather, use, DT, kernels.judge), control


def test_a_winter_week_is_comfortable_and_costs_energy():
    result, _ = week(fleet())
    assert result.hours == pytest.approx(168.0)
    assert np.all(result.energy_kwh["heating"] > 50.0)
    assert np.all(result.energy_kwh["cooling"] < 0.2 * result.energy_kwh["heating"])
    assert np.all(result.starts["heat_pump"] >= 1.0)
    assert np.all(result.stuffy_h < 5.0)
    assert np.all(result.discomfort_k_h < 60.0)


def test_setback_saves_heating_energy():
    saved, _ = week(fleet(), setback=4.0)
    constant, _ = week(fleet(), setback=0.0)
    assert np.all(saved.energy_kwh["heating"] < 0.97 * constant.energy_kwh["heating"])


def test_the_fan_keeps_its_minimum_run_and_rest():
    _, control = week(fleet())
    assert len(control.switched) >= 10, "on and off every working day"
    assert min(control.switched[:-1]) >= 1800.0


def test_plain_python_gives_the_same_day():
    compiled, _ = week(fleet(zones=2, handlers=1), days=1)
    plain, _ = week(fleet(zones=2, handlers=1, mode="python"), mode="python", days=1)
    for use in compiled.energy_kwh:
        assert np.array_equal(compiled.energy_kwh[use], plain.energy_kwh[use])
    assert np.array_equal(compiled.discomfort_k_h, plain.discomfort_k_h)


@given(
    request=st.floats(allow_nan=True, allow_infinity=True),
    last=st.floats(0.0, 100.0),
    largest=st.floats(0.0, 100.0),
    fail_safe=st.floats(0.0, 100.0),
)
def test_a_limited_command_is_inside_every_limit(request, last, largest, fail_safe):
    given_out = c.limit(request, last, 0.0, 100.0, largest, fail_safe)
    assert 0.0 <= given_out <= 100.0
    if math.isfinite(request) and abs(request) < 1e308:
        assert abs(given_out - last) <= largest + 1e-12
    else:
        assert given_out == fail_safe


def test_judging_counts_only_occupied_hours():
    state = np.zeros((3, k.ZONE_STATES))
    state[:, k.S_AIR], state[:, k.S_MASS] = [18.0, 18.0, 28.0], [19.0, 19.0, 28.0]
    state[:, k.S_CO2] = [1300.0, 1300.0, 800.0]
    tally = np.zeros((3, 2))
    c.judge(1800.0, np.array([1.0, 0.0, 1.0]), state, 20.0, 26.0, 1200.0, tally)
    assert tally.tolist() == [[0.75, 0.5], [0.0, 0.0], [1.0, 0.0]]


@pytest.mark.parametrize("dt", [0.0, 601.0])
def test_a_wrong_step_is_refused(dt):
    batch = fleet(zones=1, handlers=1)
    with pytest.raises(ValueError, match="dt is"):
        simulate(batch, lambda *_: None, np.zeros((1, 1, 2)), np.zeros((1, 1)), dt, c.judge, Comfort())


def test_weather_for_another_fleet_is_refused():
    batch = fleet(zones=1, handlers=1)
    with pytest.raises(ValueError, match="do not fit"):
        simulate(batch, lambda *_: None, np.zeros((5, 2, 2)), np.zeros((5, 1)), 60.0, c.judge)


def test_zones_that_cannot_be_shared_evenly_are_refused():
    with pytest.raises(ValueError, match="3 zones"):
        AirHandlerBatch([AirHandlerParameters()] * 2, [ZoneParameters()] * 3)
