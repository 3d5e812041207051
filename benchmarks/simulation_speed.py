"""Zone-years a second on one core: plant, control and limits at 5-minute steps, beside the same model in numpy.

    python benchmarks/simulation_speed.py [--zones 512] [--days 30] [--json]

The compiled run and the numpy run simulate the same zones, weather and control, and must agree at the end. Measured on
some days of a winter and scaled to years; every step costs the same. Best of the repetitions: other work on the machine
only ever slows a run down.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from datetime import UTC, datetime

import numpy as np

from agent.kernels import load
from models import control_kernels as c
from models import kernels as k
from models.batch import OFFICE, AirHandlerBatch, BatchResult, simulate
from models.occupancy import OfficeHours
from models.parameters import AirHandlerParameters, Floats, ZoneParameters, vary
from models.weather import Weather

DT = 300.0
ZONES_EACH = 4
YEAR_S = 365.0 * 86400.0
START = datetime(2026, 1, 12, tzinfo=UTC)
THERMOSTAT = [21.0, 3.0, 0.5, 30.0, 25.0]
UNIT = [16.0, 80.0, 25.0, 10.0, 1800.0, 1800.0, 25.0]


def fleet(zones: int) -> AirHandlerBatch:
    """Air handlers with four zones each, every parameter within 30 % of nominal."""
    random = np.random.default_rng(0)
    rooms = [vary(ZoneParameters(), random, 0.3) for _ in range(zones)]
    return AirHandlerBatch([AirHandlerParameters.for_zones(ZONES_EACH)] * (zones // ZONES_EACH), rooms)


def boundary(zones: int, days: float) -> tuple[Floats, Floats]:
    """Weather (steps, B, 2) and presence (steps, zones)."""
    times = np.arange(0.0, days * 86400.0, DT)
    handlers = zones // ZONES_EACH
    weather = np.repeat(Weather("cold", seed=1, start=START).sample(times)[:, None, :], handlers, axis=1)
    use = np.tile(OfficeHours(ZONES_EACH, seed=1, start=START).sample(times), (1, handlers))
    return weather, use


def run(
    zones: int, days: float, step: Callable[..., None], control: Callable[..., None], judge: Callable[..., None]
) -> tuple[float, BatchResult]:
    """One simulation: seconds it took, and its result."""
    batch = fleet(zones)
    batch.step_kernel = step
    weather, use = boundary(zones, days)
    handlers = batch.state.shape[0]
    thermostat, unit = np.tile(THERMOSTAT, (zones, 1)), np.tile(UNIT, (handlers, 1))
    timer = np.full(handlers, 1e9)

    def decide(dt: float, sky: Floats, present: Floats) -> None:
        control(
            dt, sky, present, batch.zone_state, batch.output, thermostat, unit, timer, batch.zone_command, batch.command
        )

    began = time.perf_counter()
    result = simulate(batch, decide, weather, use, DT, judge, OFFICE)
    return time.perf_counter() - began, result


# The same model, vectorised over all zones with numpy.


def _fraction(command: Floats) -> Floats:
    return np.nan_to_num(np.clip(command * 0.01, 0.0, 1.0))


def numpy_step(dt, weather, use, zp, zc, zs, zf, ap, ac, st, out) -> None:
    """``models.kernels.step`` in numpy: columns instead of loops."""
    count = ap.shape[0]
    each = zp.shape[0] // count
    to, sun = weather[:, 0], weather[:, 1]
    p, s = zp.T, zs.T
    valve, fan_lag, damper_lag = dt / (k.VALVE_TIME + dt), dt / (k.FAN_TIME + dt), dt / (k.DAMPER_TIME + dt)

    share = p[k.Z_FLOW].reshape(count, each)
    flow = share.sum(axis=1)
    back = (share * s[k.S_AIR].reshape(count, each)).sum(axis=1) / flow
    back_co2 = (share * s[k.S_CO2].reshape(count, each)).sum(axis=1) / flow
    speed = np.where(ac[:, k.K_FAN] >= 0.5, _fraction(ac[:, k.K_SPEED]), 0.0)
    st[:, k.H_FAN] += fan_lag * (speed - st[:, k.H_FAN])
    st[:, k.H_DAMPER] += damper_lag * (_fraction(ac[:, k.K_DAMPER]) - st[:, k.H_DAMPER])
    st[:, k.H_HEAT] += valve * (_fraction(ac[:, k.K_HEAT]) - st[:, k.H_HEAT])
    st[:, k.H_COOL] += valve * (_fraction(ac[:, k.K_COOL]) - st[:, k.H_COOL])
    fan, hot, cold = st[:, k.H_FAN], st[:, k.H_HOT].copy(), st[:, k.H_COLD].copy()
    flow_share = np.maximum(fan, ap[:, k.A_STACK] * st[:, k.H_DAMPER])
    outdoor_share = ap[:, k.A_LEAK] + (1.0 - ap[:, k.A_LEAK]) * st[:, k.H_DAMPER]
    mixed = outdoor_share * to + (1.0 - outdoor_share) * back
    fan_w = ap[:, k.A_FAN_W] * fan**3
    air = k.RHO_C * flow * flow_share
    ua_h, ua_c = ap[:, k.A_UA_HEAT] * st[:, k.H_HEAT], ap[:, k.A_UA_COOL] * st[:, k.H_COOL]
    stored = ap[:, k.A_COIL] / dt
    coil = (stored * st[:, k.H_COIL] + air * mixed + ua_h * hot + ua_c * cold + fan_w) / (stored + air + ua_h + ua_c)
    st[:, k.H_FREEZESTAT] = np.where(
        coil < k.FREEZESTAT_TRIP, 1.0, np.where(coil > k.FREEZESTAT_RESET, 0.0, st[:, k.H_FREEZESTAT])
    )
    st[:, k.H_COIL] = coil
    out[:, k.O_RETURN], out[:, k.O_MIXED] = back, mixed
    supply_co2 = outdoor_share * k.OUTDOOR_CO2 + (1.0 - outdoor_share) * back_co2

    zone = np.repeat(np.arange(count), each)
    s[k.S_HEAT] += valve * (_fraction(zc[:, k.C_HEAT]) - s[k.S_HEAT])
    s[k.S_COOL] += valve * (_fraction(zc[:, k.C_COOL]) - s[k.S_COOL])
    s[k.S_FAN] += fan_lag * (_fraction(zc[:, k.C_FAN]) - s[k.S_FAN])
    conducting = 0.05 + 0.95 * s[k.S_FAN] * 1.5 / (s[k.S_FAN] + 0.5)
    ua_heat, ua_cool = p[k.Z_UA_HEAT] * s[k.S_HEAT] * conducting, p[k.Z_UA_COOL] * s[k.S_COOL] * conducting
    zone_fan = p[k.Z_FAN_W] * s[k.S_FAN] ** 3
    people = use * p[k.Z_PEOPLE]
    gain = p[k.Z_GAIN_BASE] + use * p[k.Z_GAIN_USE] + k.HEAT_PER_PERSON * people
    solar = p[k.Z_SOLAR] * sun[zone]
    solar_air = p[k.Z_SOLAR_AIR] * solar
    fresh = p[k.Z_FLOW] * flow_share[zone]
    h_out, h_supply = p[k.Z_HWIN] + k.RHO_C * p[k.Z_INFILTRATION], k.RHO_C * fresh
    ham, hae = p[k.Z_HAM], p[k.Z_HAE]
    ca, cm, ce = p[k.Z_CA] / dt, p[k.Z_CM] / dt, p[k.Z_CE] / dt
    per_mass, per_envelope = 1.0 / (cm + ham + p[k.Z_HMO]), 1.0 / (ce + hae + p[k.Z_HEO])
    known_mass = cm * s[k.S_MASS] + p[k.Z_HMO] * to[zone] + solar - solar_air + (1.0 - k.GAIN_TO_AIR) * gain
    known_envelope = ce * s[k.S_ENVELOPE] + p[k.Z_HEO] * to[zone]
    known = ca * s[k.S_AIR] + h_out * to[zone] + h_supply * coil[zone] + ua_heat * hot[zone] + ua_cool * cold[zone]
    known += (
        k.GAIN_TO_AIR * gain + solar_air + zone_fan + ham * known_mass * per_mass + hae * known_envelope * per_envelope
    )
    total = ca + h_out + h_supply + ua_heat + ua_cool + ham - ham * ham * per_mass + hae - hae * hae * per_envelope
    s[k.S_AIR] = known / total
    s[k.S_MASS] = (known_mass + ham * s[k.S_AIR]) * per_mass
    s[k.S_ENVELOPE] = (known_envelope + hae * s[k.S_AIR]) * per_envelope
    volume = p[k.Z_VOLUME] / dt
    co2 = (
        volume * s[k.S_CO2] + fresh * supply_co2[zone] + p[k.Z_INFILTRATION] * k.OUTDOOR_CO2 + k.CO2_PER_PERSON * people
    )
    s[k.S_CO2] = co2 / (volume + fresh + p[k.Z_INFILTRATION])
    hot_load = ua_h * (hot - coil) + (ua_heat * (hot[zone] - s[k.S_AIR])).reshape(count, each).sum(axis=1)
    cold_load = ua_c * (coil - cold) + (ua_cool * (s[k.S_AIR] - cold[zone])).reshape(count, each).sum(axis=1)
    st[:, k.H_E_FANS] += dt * (fan_w + zone_fan.reshape(count, each).sum(axis=1))

    warmest = ap[:, k.A_HOT]
    target = np.clip(warmest + ap[:, k.A_HOT_SLOPE] * (20.0 - to), warmest, k.HOT_LIMIT)
    was_on = st[:, k.H_PUMP_ON].copy()
    on = np.where(hot < target - k.TANK_BAND, 1.0, np.where(hot > target + k.TANK_BAND, 0.0, was_on))
    capacity = ap[:, k.A_HEAT_PUMP] * np.clip(1.0 + 0.02 * (to - 7.0), 0.5, 1.1)
    heat = on * np.clip(
        hot_load + ap[:, k.A_TANK] * (target - hot) / k.TANK_TIME, ap[:, k.A_MIN_STAGE] * capacity, capacity
    )
    cop = 0.42 * (hot + k.KELVIN) / np.maximum(hot - to + 8.0, 1.0) * np.where((to >= -5.0) & (to <= 5.0), 0.93, 1.0)
    penalty = 1.0 + 0.25 * np.maximum(0.3 - heat / capacity, 0.0) / 0.3
    st[:, k.H_E_HEAT] += dt * on * heat / np.clip(cop, 1.0, 8.0) * penalty
    st[:, k.H_PUMP_STARTS] += on * (1.0 - was_on)
    st[:, k.H_PUMP_ON] = on
    st[:, k.H_HOT] = hot + dt * (heat - hot_load) / ap[:, k.A_TANK]
    target = ap[:, k.A_COLD]
    was_on = st[:, k.H_CHILLER_ON].copy()
    on = np.where(cold > target + k.TANK_BAND, 1.0, np.where(cold < target - k.TANK_BAND, 0.0, was_on))
    capacity = ap[:, k.A_CHILLER]
    removed = on * np.clip(
        cold_load + ap[:, k.A_TANK] * (cold - target) / k.TANK_TIME, ap[:, k.A_MIN_STAGE] * capacity, capacity
    )
    load_share = removed / capacity
    eer = np.clip(0.33 * (cold + k.KELVIN) / np.maximum(to - cold + 12.0, 1.0), 1.0, 10.0)
    st[:, k.H_E_COOL] += dt * on * capacity / eer * (0.15 + 0.7 * load_share + 0.15 * load_share**2)
    st[:, k.H_CHILLER_STARTS] += on * (1.0 - was_on)
    st[:, k.H_CHILLER_ON] = on
    st[:, k.H_COLD] = cold + dt * (cold_load - removed) / ap[:, k.A_TANK]


def _limited(request: Floats, last: Floats, largest: Floats) -> Floats:
    inside = np.where(np.isfinite(request), np.clip(request, 0.0, 100.0), 0.0)
    return np.clip(inside, last - largest, last + largest)


def numpy_control(dt, weather, use, zs, out, thermostat, unit, timer, zc, ac) -> None:
    """``models.control_kernels.control`` in numpy."""
    count = unit.shape[0]
    setback = np.where(use < 0.5, thermostat[:, c.T_SETBACK], 0.0)
    cold = thermostat[:, c.T_SETPOINT] - setback - zs[:, k.S_AIR]
    hot = zs[:, k.S_AIR] - thermostat[:, c.T_SETPOINT] - setback
    heating = cold > thermostat[:, c.T_DEADBAND]
    cooling = ~heating & (hot > thermostat[:, c.T_DEADBAND])
    largest = thermostat[:, c.T_STEP]
    zc[:, 0] = _limited(np.where(heating, cold * thermostat[:, c.T_GAIN], 0.0), zc[:, 0], largest)
    zc[:, 1] = _limited(np.where(cooling, hot * thermostat[:, c.T_GAIN], 0.0), zc[:, 1], largest)
    zc[:, 2] = _limited(np.where(heating | cooling, 60.0, 20.0), zc[:, 2], largest)
    wanted = (use.reshape(count, -1).max(axis=1) >= 0.5).astype(float)
    last = ac[:, k.K_FAN].copy()
    timer += dt
    needed = np.where(last >= 0.5, unit[:, c.U_MIN_ON], unit[:, c.U_MIN_OFF])
    switch = (wanted != last) & (timer >= needed)
    on = np.where(switch, wanted, last)
    timer[switch] = 0.0
    supply, outdoor, back = unit[:, c.U_SUPPLY], weather[:, 0], out[:, k.O_RETURN]
    free = (on >= 0.5) & (outdoor < back) & (back > supply)
    mix = np.minimum(100.0 * (back - supply) / np.where(free, back - outdoor, 1.0), 100.0)
    damper = unit[:, c.U_MIN_OUTDOOR] * on
    damper = np.where(free, np.maximum(damper, mix), damper)
    mixed = back + damper * 0.01 * (outdoor - back)
    largest = unit[:, c.U_STEP]
    ac[:, k.K_FAN] = on
    ac[:, k.K_SPEED] = _limited(unit[:, c.U_SPEED] * on, ac[:, k.K_SPEED], largest)
    ac[:, k.K_DAMPER] = _limited(damper, ac[:, k.K_DAMPER], largest)
    ac[:, k.K_HEAT] = _limited(unit[:, c.U_GAIN] * (supply - mixed) * on, ac[:, k.K_HEAT], largest)
    ac[:, k.K_COOL] = _limited(unit[:, c.U_GAIN] * (mixed - supply - 2.0) * on, ac[:, k.K_COOL], largest)


def numpy_judge(dt, use, zs, low, high, co2_limit, tally) -> None:
    """``models.control_kernels.judge`` in numpy."""
    present = (use >= 0.5) * (dt / 3600.0)
    operative = 0.5 * (zs[:, k.S_AIR] + zs[:, k.S_MASS])
    tally[:, 0] += present * (np.maximum(low - operative, 0.0) + np.maximum(operative - high, 0.0))
    tally[:, 1] += present * (zs[:, k.S_CO2] > co2_limit)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--zones", type=int, default=512, help="zones simulated together, a multiple of 4")
    parser.add_argument("--days", type=float, default=30.0, help="simulated days per repetition")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    zones, days = arguments.zones, arguments.days
    if zones < ZONES_EACH or zones % ZONES_EACH:
        parser.error(f"--zones must be a multiple of {ZONES_EACH}")

    plant, control = load("models.kernels", "jit"), load("models.control_kernels", "jit")
    run(zones, 0.1, plant.step, control.control, control.judge)
    compiled = [run(zones, days, plant.step, control.control, control.judge) for _ in range(arguments.repeat)]
    vectorised = [run(zones, days, numpy_step, numpy_control, numpy_judge) for _ in range(arguments.repeat)]
    zone_years = zones * days * 86400.0 / YEAR_S
    speed = zone_years / min(seconds for seconds, _ in compiled)
    numpy_speed = zone_years / min(seconds for seconds, _ in vectorised)
    ours, theirs = compiled[0][1], vectorised[0][1]
    difference = max(
        float(np.max(np.abs(ours.energy_kwh[use] - theirs.energy_kwh[use]) / np.maximum(theirs.energy_kwh[use], 1.0)))
        for use in ours.energy_kwh
    )
    if difference > 1e-3:
        raise SystemExit(f"the two forms of the model differ by {difference:.2%} in energy: this is no comparison")
    result = {
        "zones": zones,
        "days": days,
        "step_s": DT,
        "zone_years_per_s": round(speed, 1),
        "ns_per_zone_step": round(1e9 / speed / (YEAR_S / DT), 1),
        "numpy_zone_years_per_s": round(numpy_speed, 1),
        "ratio": round(speed / numpy_speed, 2),
        "largest_energy_difference": difference,
    }
    if arguments.json:
        print(json.dumps(result))
        return
    print(f"{zones} zones, {days:g} days at {DT:g} s steps, one core, plant + control + limits + comfort count")
    print(f"  compiled kernels  {speed:8.0f} zone-years/s  ({result['ns_per_zone_step']} ns per zone and step)")
    print(f"  numpy, vectorised {numpy_speed:8.0f} zone-years/s")
    print(f"  ratio             {speed / numpy_speed:8.1f}   (energies agree within {difference:.1e})")


if __name__ == "__main__":
    main()
