"""The thermal kernels: golden values, energy balances, stability, convergence, one result in every way to run them."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import solve_ivp

from agent.kernels import load
from models import kernels as k
from models.batch import AirHandlerBatch
from models.parameters import AirHandlerParameters, ZoneParameters, vary


def batch_of(
    handlers: int = 1, zones: int = 4, seed: int = 0, spread: float = 0.3, step_kernel=k.step
) -> AirHandlerBatch:
    random = np.random.default_rng(seed)
    rooms = [vary(ZoneParameters(), random, spread) for _ in range(handlers * zones)]
    return AirHandlerBatch([AirHandlerParameters.for_zones(zones)] * handlers, rooms, step_kernel)


def shake(batch: AirHandlerBatch, random: np.random.Generator) -> None:
    """New random commands, some of them nonsense."""
    batch.zone_command[:] = random.uniform(-20.0, 120.0, batch.zone_command.shape)
    batch.command[:] = random.uniform(-20.0, 120.0, batch.command.shape)
    batch.command[:, k.K_FAN] = random.integers(0, 2, batch.command.shape[0])
    batch.zone_command[random.random(batch.zone_command.shape) < 0.02] = np.nan


@pytest.mark.parametrize(
    ("water", "outdoor", "cop"),
    [
        (35.0, 7.0, 0.42 * 308.15 / 36.0),  # A7/W35: 3.60
        (45.0, -10.0, 0.42 * 318.15 / 63.0),
        (45.0, 0.0, 0.93 * 0.42 * 318.15 / 53.0),  # defrosting
        (35.0, 60.0, 8.0),  # no machine is better, whatever the formula says
        (-200.0, 0.0, 8.0),
    ],
)
def test_heat_pump_cop(water, outdoor, cop):
    assert k.heat_pump_cop(water, outdoor) == pytest.approx(cop)


def test_defrosting_costs_seven_per_cent_between_minus_five_and_five_only():
    for outdoor, factor in ((-5.1, 1.0), (-5.0, 0.93), (5.0, 0.93), (5.1, 1.0)):
        assert k.heat_pump_cop(45.0, outdoor) == pytest.approx(factor * 0.42 * 318.15 / (53.0 - outdoor))


def test_chiller_curves():
    assert k.chiller_eer(7.0, 35.0) == pytest.approx(0.33 * 280.15 / 40.0)
    assert k.chiller_eer(7.0, -30.0) == 10.0
    assert k.chiller_power_fraction(1.0) == pytest.approx(1.0)
    assert k.chiller_power_fraction(0.5) == pytest.approx(0.15 + 0.35 + 0.0375)


def test_heat_pump_part_load_and_capacity():
    assert k.heat_pump_part_load(0.3) == 1.0
    assert k.heat_pump_part_load(0.0) == pytest.approx(1.25)
    assert k.heat_pump_capacity(10.0, 7.0) == pytest.approx(10.0)
    assert k.heat_pump_capacity(10.0, -3.0) == pytest.approx(8.0)
    assert k.heat_pump_capacity(10.0, -60.0) == pytest.approx(5.0)


def test_fan_law_and_coil_share():
    assert k.fan_power(100.0, 0.5) == pytest.approx(12.5)
    assert k.coil_share(1.0) == pytest.approx(1.0)
    assert k.coil_share(0.0) == pytest.approx(0.05)
    assert k.coil_share(0.5) == pytest.approx(0.05 + 0.95 * 0.75)


@pytest.mark.parametrize(
    ("command", "fraction"), [(0.0, 0.0), (50.0, 0.5), (100.0, 1.0), (500.0, 1.0), (-5.0, 0.0), (float("nan"), 0.0)]
)
def test_a_command_becomes_a_fraction_and_nonsense_closes(command, fraction):
    assert k.unit_interval(command) == fraction


@given(seed=st.integers(0, 2**32), dt=st.floats(1.0, 600.0), outdoor=st.floats(-30.0, 45.0), sun=st.floats(0.0, 500.0))
@settings(max_examples=60, deadline=None)
def test_every_energy_balance_closes(seed, dt, outdoor, sun):
    random = np.random.default_rng(seed)
    batch = batch_of(seed=seed)
    weather = np.array([[outdoor, sun]])
    batch.reset(weather, air=float(random.uniform(5.0, 35.0)))
    use = random.random(4)
    for _ in range(5):
        shake(batch, random)
        zones, state = batch.zone_state.copy(), batch.state.copy()
        batch.step(dt, weather, use)
        capacities = batch.zone_parameter[:, [k.Z_CA, k.Z_CM, k.Z_CE]]
        stored = ((batch.zone_state - zones)[:, [k.S_AIR, k.S_MASS, k.S_ENVELOPE]] * capacities).sum(axis=1)
        flow = batch.zone_flow
        entered = flow[:, k.F_HEAT] - flow[:, k.F_COOL] - flow[:, k.F_OUTDOOR] + flow[:, k.F_SUPPLY] + flow[:, k.F_GAIN]
        scale = np.abs(capacities).sum(axis=1) * 1e-9  # rounding of temperatures around 20 in 1e7 J/K
        assert np.all(np.abs(stored - dt * entered) <= scale)

        output, handler = batch.output[0], batch.parameter[0]
        air = k.RHO_C * batch.zone_parameter[:, k.Z_FLOW].sum() * output[k.O_FLOW_SHARE]
        coil = batch.state[0, k.H_COIL]
        section = air * (output[k.O_MIXED] - coil) + output[k.O_COIL_HEAT] - output[k.O_COIL_COOL] + output[k.O_FAN_W]
        assert handler[k.A_COIL] * (coil - state[0, k.H_COIL]) == pytest.approx(dt * section, abs=1e-3)

        hot = handler[k.A_TANK] * (batch.state[0, k.H_HOT] - state[0, k.H_HOT])
        assert hot == pytest.approx(dt * (output[k.O_PUMP_HEAT] - output[k.O_HOT_LOAD]), abs=1e-2)
        cold = handler[k.A_TANK] * (batch.state[0, k.H_COLD] - state[0, k.H_COLD])
        assert cold == pytest.approx(dt * (output[k.O_COLD_LOAD] - output[k.O_CHILLER_COOL]), abs=1e-2)
        assert output[k.O_HOT_LOAD] == pytest.approx(output[k.O_COIL_HEAT] + flow[:, k.F_HEAT].sum())
        assert output[k.O_COLD_LOAD] == pytest.approx(output[k.O_COIL_COOL] + flow[:, k.F_COOL].sum())


def test_meters_count_what_the_machines_drew():
    batch, random = batch_of(seed=3), np.random.default_rng(3)
    weather, use = np.array([[-5.0, 50.0]]), np.ones(4)
    batch.reset(weather)
    heat = cool = 0.0
    for _ in range(500):
        shake(batch, random)
        batch.step(60.0, weather, use)
        heat += 60.0 * batch.output[0, k.O_PUMP_W]
        cool += 60.0 * batch.output[0, k.O_CHILLER_W]
    assert heat > 0.0 and cool > 0.0
    assert batch.energy_kwh["heating"][0] == pytest.approx(heat / 3.6e6)
    assert batch.energy_kwh["cooling"][0] == pytest.approx(cool / 3.6e6)


@given(seed=st.integers(0, 2**32), dt=st.floats(0.1, 600.0))
@settings(max_examples=30, deadline=None)
def test_stable_at_every_step_under_wild_commands(seed, dt):
    random = np.random.default_rng(seed)
    batch = batch_of(seed=seed)
    weather = np.array([[random.uniform(-30.0, 45.0), random.uniform(0.0, 500.0)]])
    batch.reset(weather)
    for _ in range(60):
        shake(batch, random)
        batch.step(dt, weather, np.ones(4))
    temperatures = batch.zone_state[:, [k.S_AIR, k.S_MASS, k.S_ENVELOPE]]
    assert np.all(np.isfinite(batch.zone_state)) and np.all(np.isfinite(batch.state))
    assert np.all((temperatures > -31.0) & (temperatures < 90.0))
    assert np.all((batch.zone_state[:, k.S_CO2] >= 400.0) & (batch.zone_state[:, k.S_CO2] < 50_000.0))


def test_converges_to_an_independent_solution_of_the_equations():
    """The same room as ordinary differential equations, written out anew and solved by scipy."""
    room = ZoneParameters()
    batch = AirHandlerBatch([AirHandlerParameters.for_zones(1)], [room])
    weather, use = np.array([[-8.0, 120.0]]), np.array([0.7])
    batch.reset(weather, air=20.0)
    start = batch.zone_state[0, [k.S_AIR, k.S_MASS, k.S_ENVELOPE, k.S_CO2]].copy()
    gain = 80.0 + 0.7 * (800.0 + 75.0 * 4.0)

    def slopes(_time, y):
        air, mass, envelope, co2 = y
        to_air = (45.0 + 1200.0 * 0.01) * (-8.0 - air) + 700.0 * (mass - air) + 150.0 * (envelope - air)
        to_air += 0.6 * gain + 0.3 * 5.0 * 120.0
        to_mass = 700.0 * (air - mass) + 0.7 * 5.0 * 120.0 + 0.4 * gain
        to_envelope = 150.0 * (air - envelope) + 60.0 * (-8.0 - envelope)
        fresh = (0.01 * (420.0 - co2) + 5.2 * 4.0 * 0.7) / 270.0
        return to_air / 2e6, to_mass / 15e6, to_envelope / 20e6, fresh

    exact = solve_ivp(slopes, (0.0, 6 * 3600.0), start, rtol=1e-9, atol=1e-9).y[:, -1]
    errors = []
    for dt in (600.0, 60.0, 6.0):
        batch.reset(weather, air=20.0)
        for _ in range(round(6 * 3600.0 / dt)):
            batch.step(dt, weather, use)
        found = batch.zone_state[0, [k.S_AIR, k.S_MASS, k.S_ENVELOPE, k.S_CO2]]
        errors.append(np.abs(found - exact))
    assert np.all(errors[0][:3] < 0.1), "ten minutes are within a tenth of a kelvin"
    assert np.all(errors[2] < 1e-2 * np.maximum(errors[0], 1e-9) * 1.3), (
        "first order: a hundredth of the step, of the error"
    )


def test_steady_state_is_the_heat_balance_by_hand():
    room = ZoneParameters().two_node()
    batch = AirHandlerBatch([AirHandlerParameters.for_zones(1)], [room])
    weather = np.array([[0.0, 0.0]])
    batch.reset(weather, air=10.0)
    for _ in range(5000):
        batch.step(600.0, weather, np.ones(1))
    gain = 80.0 + 800.0 + 4 * 75.0
    # Air: 57 W/K to outdoors and 0.6 of the gain; mass: 60 W/K to outdoors and 0.4; 700 W/K between them.
    conductances = np.array([[57.0 + 700.0, -700.0], [-700.0, 60.0 + 700.0]])
    air, mass = np.linalg.solve(conductances, [0.6 * gain, 0.4 * gain])
    assert batch.zone_state[0, k.S_AIR] == pytest.approx(air, rel=1e-6)
    assert batch.zone_state[0, k.S_MASS] == pytest.approx(mass, rel=1e-6)
    assert batch.zone_state[0, k.S_CO2] == pytest.approx(420.0 + 5.2 * 4 / 0.01, rel=1e-6)


def test_two_node_zones_do_not_feel_the_envelope():
    room = ZoneParameters().two_node()
    results = []
    for capacity in (1e6, 1e9):
        batch = AirHandlerBatch([AirHandlerParameters.for_zones(1)], [replace(room, envelope_j_k=capacity)])
        batch.reset(np.array([[-5.0, 0.0]]))
        for _ in range(50):
            batch.step(300.0, np.array([[-5.0, 0.0]]), np.ones(1))
        results.append(batch.zone_state[0, k.S_AIR])
    assert results[0] == results[1]


def test_many_at_once_are_the_same_bits_as_one_by_one():
    together = batch_of(handlers=5, zones=3, seed=7)
    random = np.random.default_rng(1)
    weather = np.column_stack([random.uniform(-20.0, 35.0, 5), random.uniform(0.0, 400.0, 5)])
    use = random.random(15)
    together.reset(weather)
    alone = batch_of(handlers=1, zones=3)
    commands = []
    for _ in range(40):
        shake(together, random)
        commands.append((together.zone_command.copy(), together.command.copy()))
        together.step(120.0, weather, use)
    for b in range(5):
        rows = slice(3 * b, 3 * b + 3)
        alone.zone_parameter[:] = together.zone_parameter[rows]
        alone.reset(weather[b : b + 1])
        for zone_command, command in commands:
            alone.zone_command[:] = zone_command[rows]
            alone.command[0] = command[b]
            alone.step(120.0, weather[b : b + 1], use[rows])
        assert np.array_equal(alone.zone_state, together.zone_state[rows])
        assert np.array_equal(alone.state[0], together.state[b])
        assert np.array_equal(alone.output[0], together.output[b])


def test_compiled_and_plain_python_are_the_same_bits():
    compiled = batch_of(handlers=3, seed=5, step_kernel=load("models.kernels", "jit").step)
    plain = batch_of(handlers=3, seed=5, step_kernel=load("models.kernels", "python").step)
    random = np.random.default_rng(2)
    weather = np.column_stack([random.uniform(-20.0, 35.0, 3), random.uniform(0.0, 400.0, 3)])
    use = random.random(12)
    compiled.reset(weather)
    plain.reset(weather)
    for _ in range(100):
        shake(compiled, random)
        plain.zone_command[:], plain.command[:] = compiled.zone_command, compiled.command
        dt = float(random.uniform(1.0, 600.0))
        compiled.step(dt, weather, use)
        plain.step(dt, weather, use)
        for name in ("zone_state", "state", "zone_flow", "output"):
            assert np.array_equal(getattr(compiled, name), getattr(plain, name)), name


def hold(batch: AirHandlerBatch, outdoor: float, minutes: int) -> list[float]:
    """Supply air temperatures of every half minute."""
    temperatures = []
    for _ in range(2 * minutes):
        batch.step(30.0, np.array([[outdoor, 0.0]]), np.ones(4))
        temperatures.append(float(batch.state[0, k.H_COIL]))
    return temperatures


def test_a_stuck_damper_on_a_cold_morning_freezes_the_supply_air():
    batch = batch_of(spread=0.0)
    batch.reset(np.array([[-14.0, 0.0]]), air=20.0)
    batch.command[0] = [1.0, 80.0, 25.0, 100.0, 0.0]
    assert hold(batch, -14.0, 15)[-1] > 12.0, "the coil copes with its design air"
    assert batch.state[0, k.H_FREEZESTAT] == 0.0
    batch.command[0, k.K_DAMPER] = 100.0
    falling = hold(batch, -14.0, 10)
    assert falling[-1] < 1.0
    assert batch.state[0, k.H_FREEZESTAT] == 1.0
    batch.command[0, k.K_FAN] = 0.0
    assert hold(batch, -14.0, 5)[-1] > k.FREEZESTAT_RESET, "with the fan off the open valve thaws the coil"
    assert batch.state[0, k.H_FREEZESTAT] == 0.0


def test_a_shut_valve_freezes_even_with_the_fan_off():
    batch = batch_of(spread=0.0)
    batch.reset(np.array([[-14.0, 0.0]]), air=20.0)
    batch.command[0] = [0.0, 0.0, 100.0, 0.0, 0.0]
    assert hold(batch, -14.0, 120)[-1] < 0.0


def test_freezestat_trips_below_and_resets_above_with_a_band():
    batch = batch_of(spread=0.0)
    batch.reset(np.array([[5.0, 0.0]]), air=20.0)
    batch.state[0, k.H_COIL] = 3.0
    batch.step(0.1, np.array([[5.0, 0.0]]), np.ones(4))
    assert batch.state[0, k.H_FREEZESTAT] == 1.0
    batch.state[0, k.H_COIL] = 6.9
    batch.step(0.1, np.array([[5.0, 0.0]]), np.ones(4))
    assert batch.state[0, k.H_FREEZESTAT] == 1.0
    batch.state[0, k.H_COIL] = 7.2
    batch.step(0.1, np.array([[5.0, 0.0]]), np.ones(4))
    assert batch.state[0, k.H_FREEZESTAT] == 0.0


def compressor_starts(load_share: float) -> float:
    batch = batch_of(spread=0.0)
    weather = np.array([[5.0, 0.0]])
    batch.reset(weather, air=20.0)
    batch.zone_command[:, k.C_HEAT] = 100.0 * load_share
    batch.zone_command[:, k.C_FAN] = 60.0
    for _ in range(6 * 60):
        batch.step(60.0, weather, np.zeros(4))
    return float(batch.starts["heat_pump"][0])


def test_a_load_below_the_lowest_stage_makes_the_compressor_cycle():
    assert compressor_starts(0.05) >= 3.0 * max(compressor_starts(0.6), 1.0)


def test_fans_draw_by_the_cube():
    drawn = []
    for speed in (50.0, 100.0):
        batch = batch_of(spread=0.0)
        batch.reset(np.array([[20.0, 0.0]]))
        batch.command[0] = [1.0, speed, 0.0, 0.0, 0.0]
        for _ in range(100):
            batch.step(60.0, np.array([[20.0, 0.0]]), np.zeros(4))
        drawn.append(batch.output[0, k.O_FAN_W])
    assert drawn[1] == pytest.approx(8.0 * drawn[0], rel=1e-6)
    assert drawn[1] == pytest.approx(600.0, rel=1e-6)
