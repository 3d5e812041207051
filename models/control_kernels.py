"""A reference control for simulated air handlers: thermostats, supply air, and limits on every command, for a batch.

It is the baseline that learning and benchmarks compare with, not the control of a real site: that goes through the
agent's own functions and envelopes. Arrays as in :mod:`models.kernels`.

Kernels: each function compiles under numba and runs as it is in plain Python. No exceptions, no allocation.
"""

from __future__ import annotations

from typing import Any

# Columns of the arrays of models.kernels that are used here.
S_AIR, S_MASS, S_CO2 = 0, 1, 3
C_HEAT, C_COOL, C_FAN = 0, 1, 2
K_FAN, K_SPEED, K_DAMPER, K_HEAT, K_COOL = 0, 1, 2, 3, 4
O_RETURN, O_MIXED = 0, 1
W_OUTDOOR = 0

# Settings of a zone's thermostat: °C, K, K, %/K, largest change of an output per step in %.
T_SETPOINT, T_SETBACK, T_DEADBAND, T_GAIN, T_STEP = 0, 1, 2, 3, 4
THERMOSTAT_SETTINGS = 5

# Settings of an air handler's control: °C, %, %, %/K, s, s, largest change of an output per step in %.
U_SUPPLY, U_SPEED, U_MIN_OUTDOOR, U_GAIN, U_MIN_ON, U_MIN_OFF, U_STEP = 0, 1, 2, 3, 4, 5, 6
UNIT_SETTINGS = 7


def limit(request: float, last: float, low: float, high: float, largest_step: float, fail_safe: float) -> float:
    """The request inside its absolute and per-step limits; NaN and infinity become the fail-safe value at once."""
    if not -1e308 < request < 1e308:
        return fail_safe
    inside = min(max(request, low), high)
    return min(max(inside, last - largest_step), last + largest_step)


def control(
    dt: float,
    weather: Any,
    use: Any,
    zone_state: Any,
    output: Any,
    thermostat: Any,
    unit: Any,
    timer: Any,
    zone_command: Any,
    command: Any,
) -> None:
    """Write every command of B air handlers with Z zones each.

    A zone heats or cools in proportion to its error outside the dead band, with the set-back while empty. An air
    handler runs while any of its zones is occupied, at least ``U_MIN_ON`` and, once off, rests at least
    ``U_MIN_OFF``; it mixes outdoor air for free cooling and heats or cools the rest of the way to its supply set-
    point.

    Args:
        dt: seconds since the last call.
        weather: (B, WEATHER_COLUMNS).
        use: (B·Z,).
        zone_state: (B·Z, ZONE_STATES).
        output: (B, AIR_HANDLER_OUTPUTS).
        thermostat: (B·Z, THERMOSTAT_SETTINGS).
        unit: (B, UNIT_SETTINGS).
        timer: seconds since the fan was last switched, (B,), changed.
        zone_command: (B·Z, ZONE_COMMANDS): the last commands, changed to the next.
        command: (B, AIR_HANDLER_COMMANDS), the same.
    """
    count = unit.shape[0]
    zones = thermostat.shape[0] // count
    for b in range(count):
        occupied = 0.0
        for i in range(b * zones, (b + 1) * zones):
            occupied = max(occupied, use[i])
            setback = thermostat[i, T_SETBACK] if use[i] < 0.5 else 0.0
            too_cold = thermostat[i, T_SETPOINT] - setback - zone_state[i, S_AIR]
            too_hot = zone_state[i, S_AIR] - thermostat[i, T_SETPOINT] - setback
            heat = 0.0
            cool = 0.0
            fan = 20.0
            if too_cold > thermostat[i, T_DEADBAND]:
                heat = too_cold * thermostat[i, T_GAIN]
                fan = 60.0
            elif too_hot > thermostat[i, T_DEADBAND]:
                cool = too_hot * thermostat[i, T_GAIN]
                fan = 60.0
            largest = thermostat[i, T_STEP]
            zone_command[i, C_HEAT] = limit(heat, zone_command[i, C_HEAT], 0.0, 100.0, largest, 0.0)
            zone_command[i, C_COOL] = limit(cool, zone_command[i, C_COOL], 0.0, 100.0, largest, 0.0)
            zone_command[i, C_FAN] = limit(fan, zone_command[i, C_FAN], 0.0, 100.0, largest, 0.0)

        last = command[b, K_FAN]
        run = 1.0 if occupied >= 0.5 else 0.0
        timer[b] += dt
        if run != last:
            needed = unit[b, U_MIN_ON] if last >= 0.5 else unit[b, U_MIN_OFF]
            if timer[b] < needed:
                run = last
            else:
                timer[b] = 0.0
        supply = unit[b, U_SUPPLY]
        outdoor = weather[b, W_OUTDOOR]
        back = output[b, O_RETURN]
        damper = unit[b, U_MIN_OUTDOOR] * run
        if run >= 0.5 and outdoor < back and back > supply:
            damper = max(damper, min(100.0 * (back - supply) / (back - outdoor), 100.0))
        mixed = back + damper * 0.01 * (outdoor - back)
        largest = unit[b, U_STEP]
        command[b, K_FAN] = run
        command[b, K_SPEED] = limit(unit[b, U_SPEED] * run, command[b, K_SPEED], 0.0, 100.0, largest, 0.0)
        command[b, K_DAMPER] = limit(damper, command[b, K_DAMPER], 0.0, 100.0, largest, 0.0)
        heat = unit[b, U_GAIN] * (supply - mixed) * run
        command[b, K_HEAT] = limit(heat, command[b, K_HEAT], 0.0, 100.0, largest, 0.0)
        cool = unit[b, U_GAIN] * (mixed - supply - 2.0) * run
        command[b, K_COOL] = limit(cool, command[b, K_COOL], 0.0, 100.0, largest, 0.0)


def judge(dt: float, use: Any, zone_state: Any, low: float, high: float, co2_limit: float, tally: Any) -> None:
    """Count discomfort of the occupied zones over the last step.

    The operative temperature is the mean of air and mass (ISO 7726 at low air speed). ``tally``: (B·Z, 2), increased:
    kelvin-hours outside ``low``..``high`` °C, hours above ``co2_limit`` ppm.
    """
    hours = dt / 3600.0
    for i in range(tally.shape[0]):
        if use[i] >= 0.5:
            operative = 0.5 * (zone_state[i, S_AIR] + zone_state[i, S_MASS])
            tally[i, 0] += hours * (max(low - operative, 0.0) + max(operative - high, 0.0))
            if zone_state[i, S_CO2] > co2_limit:
                tally[i, 1] += hours


HELPERS: tuple[str, ...] = ("limit",)

SIGNATURES: dict[str, str] = {
    "control": "void(f8,f8[:,::1],f8[::1],f8[:,::1],f8[:,::1],f8[:,::1],f8[:,::1],f8[::1],f8[:,::1],f8[:,::1])",
    "judge": "void(f8,f8[::1],f8[:,::1],f8,f8,f8,f8[:,::1])",
}
