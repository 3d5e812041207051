"""The thermal model: air handlers with their zones and plant room, one step of all of them in one kernel call.

Zones are resistance-capacitance networks of three nodes (air, mass, envelope), the class of model of ISO 13790 (5R1C)
and ISO 52016-1; a 2R2C zone is the same network with its envelope cut off (Hae = Heo = 0). Every balance is
integrated by backward Euler, solved exactly for the step: stable without overshoot at any step, and energy closes to
rounding. Keep steps ≤ 10 min.

Arrays: B air handlers (buildings or candidates) with Z zones each; zone i of air handler b is row b·Z + i. All f8 in
C order. The columns are named below. SI units, except temperatures in °C, commands in % (switches 0/1) and CO2 in
ppm.

Kernels: each function compiles under numba and runs as it is in plain Python. No exceptions, no allocation.
"""

from __future__ import annotations

from typing import Any

KELVIN = 273.15
RHO_C = 1200.0
"""Volumetric heat capacity of air, J/(m³·K)."""
OUTDOOR_CO2 = 420.0
"""ppm."""
CO2_PER_PERSON = 5.2
"""CO2 of a person at office work, cm³/s, which is ppm·m³/s (5.2 mL/s: ASTM D6245-18 at 1.2 met)."""
HEAT_PER_PERSON = 75.0
"""Sensible heat of a seated person, W (ASHRAE Handbook Fundamentals, chapter 18)."""
GAIN_TO_AIR = 0.6
"""Share of internal gains that is convective; the rest is radiant and heats the mass."""
FREEZESTAT_TRIP = 3.3
"""°C; the usual setting of a low-limit thermostat (38 °F)."""
FREEZESTAT_RESET = 7.0
"""°C."""
TANK_BAND = 2.5
"""K around the target at which a compressor starts and stops."""
HOT_LIMIT = 55.0
"""°C; the hottest water the heat pump makes."""
TANK_TIME = 600.0
"""Seconds in which a modulating compressor tries to bring its tank back to the target."""
DAMPER_TIME = 30.0
VALVE_TIME = 30.0
FAN_TIME = 10.0
"""First-order lags of actuators, s."""

# Parameters of a zone.
Z_CA, Z_CM, Z_CE = 0, 1, 2  # heat capacity of air with furniture, mass, envelope: J/K
Z_HWIN, Z_HAM, Z_HAE = 3, 4, 5  # air to outdoors, to mass, to envelope: W/K
Z_HEO, Z_HMO = 6, 7  # envelope to outdoors, mass to outdoors: W/K
Z_INFILTRATION, Z_FLOW, Z_VOLUME = 8, 9, 10  # m³/s; supply air at full fan, m³/s; m³
Z_SOLAR, Z_SOLAR_AIR = 11, 12  # solar aperture gA, m²; share fs of it that heats the air
Z_PEOPLE, Z_GAIN_BASE, Z_GAIN_USE = 13, 14, 15  # people at full use; W always; W at full use
Z_UA_HEAT, Z_UA_COOL, Z_FAN_W = 16, 17, 18  # fan coil to hot water, to chilled water, W/K; its fan, W
ZONE_PARAMETERS = 19

# State of a zone: °C, °C, °C, ppm, and the positions 0..1 of heating valve, cooling valve and fan.
S_AIR, S_MASS, S_ENVELOPE, S_CO2, S_HEAT, S_COOL, S_FAN = 0, 1, 2, 3, 4, 5, 6
ZONE_STATES = 7

# Commands to a zone, %.
C_HEAT, C_COOL, C_FAN = 0, 1, 2
ZONE_COMMANDS = 3

# Heat flows of a zone over the step, W: from the hot coil, into the cold coil, to outdoors, from supply air, from
# people, sun and fan.
F_HEAT, F_COOL, F_OUTDOOR, F_SUPPLY, F_GAIN = 0, 1, 2, 3, 4
ZONE_FLOWS = 5

# Parameters of an air handler and its plant room. Its air flow at full fan is the sum of its zones'.
A_LEAK, A_STACK = 0, 1  # outdoor share with the damper closed; flow share with the fan off and the damper open
A_UA_HEAT, A_UA_COOL, A_COIL = 2, 3, 4  # coils, W/K; heat capacity of the coil section, J/K
A_FAN_W, A_STATIC, A_FILTER = 5, 6, 7  # at full fan: W, Pa, Pa
A_HEAT_PUMP, A_CHILLER, A_MIN_STAGE = 8, 9, 10  # W at 7 °C outdoors; W; lowest stage as a share of the capacity
A_TANK = 11  # heat capacity of each tank, J/K
A_HOT, A_HOT_SLOPE, A_COLD = (
    12,
    13,
    14,
)  # hot water at 20 °C outdoors, °C; its rise per kelvin below, K/K; chilled water, °C
AIR_HANDLER_PARAMETERS = 15

# State of an air handler and its plant room: °C, positions 0..1, tanks in °C, on 0/1, counts, and electricity in
# joules.
H_COIL, H_DAMPER, H_HEAT, H_COOL, H_FAN, H_HOT, H_COLD = 0, 1, 2, 3, 4, 5, 6
H_PUMP_ON, H_CHILLER_ON, H_PUMP_STARTS, H_CHILLER_STARTS, H_FREEZESTAT = 7, 8, 9, 10, 11
H_E_HEAT, H_E_COOL, H_E_FANS = 12, 13, 14
AIR_HANDLER_STATES = 15

# Commands to an air handler: 0/1, then %.
K_FAN, K_SPEED, K_DAMPER, K_HEAT, K_COOL = 0, 1, 2, 3, 4
AIR_HANDLER_COMMANDS = 5

# What an air handler shows besides its state: °C, °C, Pa, Pa, flow relative to full fan, ppm, then W over the step.
O_RETURN, O_MIXED, O_STATIC, O_FILTER, O_FLOW_SHARE, O_SUPPLY_CO2 = 0, 1, 2, 3, 4, 5
O_COIL_HEAT, O_COIL_COOL, O_FAN_W, O_HOT_LOAD, O_COLD_LOAD = 6, 7, 8, 9, 10
O_PUMP_HEAT, O_PUMP_W, O_CHILLER_COOL, O_CHILLER_W = 11, 12, 13, 14
AIR_HANDLER_OUTPUTS = 15

# Weather of one moment: °C, W/m² on the façades.
W_OUTDOOR, W_SUN = 0, 1
WEATHER_COLUMNS = 2


def heat_pump_cop(water: float, outdoor: float) -> float:
    """Coefficient of performance of an air-to-water heat pump at full load.

    Carnot with an exergetic efficiency of 0.42 and 8 K of approach over both heat exchangers:
    COP = 0.42 · Tw / (Tw − To + 8), Tw in kelvin; 7 % less between −5 and 5 °C for defrosting.

    Args:
        water: temperature of the water leaving, °C.
        outdoor: outdoor air temperature, °C.

    Returns:
        Heat delivered per electricity, kept within 1 (an electric heater) and 8 (no machine does better).
    """
    lift = max(water - outdoor + 8.0, 1.0)
    cop = 0.42 * (water + KELVIN) / lift
    if -5.0 <= outdoor <= 5.0:
        cop *= 0.93
    return min(max(cop, 1.0), 8.0)


def heat_pump_capacity(nominal: float, outdoor: float) -> float:
    """Largest heat of an air-source heat pump, W: 2 % per kelvin off its rating at 7 °C (EN 14511 A7), 50–110 %."""
    return nominal * min(max(1.0 + 0.02 * (outdoor - 7.0), 0.5), 1.1)


def heat_pump_part_load(load: float) -> float:
    """Electricity of a heat pump relative to full load's, −: up to 25 % more below a part load of 0.3 (cycling).

    The 25 % is the degradation coefficient that AHRI 210/240 assumes where none was measured.
    """
    return 1.0 + 0.25 * max(0.3 - load, 0.0) / 0.3


def chiller_eer(water: float, outdoor: float) -> float:
    """Energy efficiency ratio of an air-cooled chiller at full load.

    EER = 0.33 · Tw / (To − Tw + 12), Tw in kelvin: Carnot with efficiency 0.33 and 12 K of approach, within 1 and 10.

    Args:
        water: chilled-water temperature, °C.
        outdoor: outdoor air temperature, °C.
    """
    lift = max(outdoor - water + 12.0, 1.0)
    return min(max(0.33 * (water + KELVIN) / lift, 1.0), 10.0)


def chiller_power_fraction(load: float) -> float:
    """Electric power of a chiller relative to its full-load power at part load p: 0.15 + 0.7·p + 0.15·p², −.

    The form is EnergyPlus' EIR-of-PLR curve times the part load (Engineering Reference, "Electric EIR chiller").
    """
    return 0.15 + 0.7 * load + 0.15 * load * load


def fan_power(rated: float, speed: float) -> float:
    """Electric power of a fan at relative speed, W: the cubic fan law (ASHRAE Handbook, Fans)."""
    return rated * speed * speed * speed


def coil_share(speed: float) -> float:
    """Share of a fan coil's rated conductance at relative fan speed v, −.

    Air-side and water-side resistance in series, the air side twice the other at full speed and inverse to the flow:
    U(v)/U(1) = v·1.5/(v + 0.5); five per cent remain by natural convection.
    """
    return 0.05 + 0.95 * speed * 1.5 / (speed + 0.5)


def unit_interval(value: float) -> float:
    """A command in per cent as a fraction of 0 to 1. NaN becomes 0: an actuator without a signal closes."""
    if value >= 100.0:
        return 1.0
    if value > 0.0:
        return value * 0.01
    return 0.0


def lag_share(dt: float, time: float) -> float:
    """Share of the way to its target that a first-order lag goes in ``dt`` (backward Euler), −."""
    return dt / (time + dt)


def step_air(
    dt: float,
    weather: Any,
    zone_parameter: Any,
    zone_state: Any,
    parameter: Any,
    command: Any,
    state: Any,
    output: Any,
) -> None:
    """Advance fan, damper, valves and the coil section of every air handler. Arrays as in :func:`step`.

    Cc·dT/dt = ρc·V̇(Tmix − T) + Uh(Th − T) + Uc(Tc − T) + Pfan; T is the supply air. Return air is the flow-weighted
    mean of the zones at the start of the step. With the fan off a little air still drifts through an open damper, so
    a damper stuck open on a cold morning does freeze a coil whose valve is shut.
    """
    count = parameter.shape[0]
    zones = zone_parameter.shape[0] // count
    damper_share = lag_share(dt, DAMPER_TIME)
    valve_share = lag_share(dt, VALVE_TIME)
    fan_share = lag_share(dt, FAN_TIME)
    rate = 1.0 / dt
    for b in range(count):
        flow = 0.0
        heat_flow = 0.0
        co2_flow = 0.0
        for i in range(b * zones, (b + 1) * zones):
            share = zone_parameter[i, Z_FLOW]
            flow += share
            heat_flow += share * zone_state[i, S_AIR]
            co2_flow += share * zone_state[i, S_CO2]
        per_flow = 1.0 / flow
        return_air = heat_flow * per_flow
        speed = unit_interval(command[b, K_SPEED]) if command[b, K_FAN] >= 0.5 else 0.0
        fan = state[b, H_FAN] + fan_share * (speed - state[b, H_FAN])
        damper = state[b, H_DAMPER] + damper_share * (unit_interval(command[b, K_DAMPER]) - state[b, H_DAMPER])
        heat = state[b, H_HEAT] + valve_share * (unit_interval(command[b, K_HEAT]) - state[b, H_HEAT])
        cool = state[b, H_COOL] + valve_share * (unit_interval(command[b, K_COOL]) - state[b, H_COOL])
        flow_share = max(fan, parameter[b, A_STACK] * damper)
        outdoor_share = parameter[b, A_LEAK] + (1.0 - parameter[b, A_LEAK]) * damper
        mixed = outdoor_share * weather[b, W_OUTDOOR] + (1.0 - outdoor_share) * return_air
        fan_w = fan_power(parameter[b, A_FAN_W], fan)
        air = RHO_C * flow * flow_share
        ua_heat = parameter[b, A_UA_HEAT] * heat
        ua_cool = parameter[b, A_UA_COOL] * cool
        stored = parameter[b, A_COIL] * rate
        hot = state[b, H_HOT]
        cold = state[b, H_COLD]
        known = stored * state[b, H_COIL] + air * mixed + ua_heat * hot + ua_cool * cold + fan_w
        coil = known / (stored + air + ua_heat + ua_cool)
        if coil < FREEZESTAT_TRIP:
            state[b, H_FREEZESTAT] = 1.0
        elif coil > FREEZESTAT_RESET:
            state[b, H_FREEZESTAT] = 0.0
        state[b, H_COIL] = coil
        state[b, H_FAN] = fan
        state[b, H_DAMPER] = damper
        state[b, H_HEAT] = heat
        state[b, H_COOL] = cool
        output[b, O_RETURN] = return_air
        output[b, O_MIXED] = mixed
        output[b, O_STATIC] = parameter[b, A_STATIC] * fan * fan
        output[b, O_FILTER] = parameter[b, A_FILTER] * fan * fan
        output[b, O_FLOW_SHARE] = flow_share
        output[b, O_SUPPLY_CO2] = outdoor_share * OUTDOOR_CO2 + (1.0 - outdoor_share) * co2_flow * per_flow
        output[b, O_COIL_HEAT] = ua_heat * (hot - coil)
        output[b, O_COIL_COOL] = ua_cool * (coil - cold)
        output[b, O_FAN_W] = fan_w


def step_zones(
    dt: float,
    weather: Any,
    use: Any,
    zone_parameter: Any,
    zone_command: Any,
    zone_state: Any,
    zone_flow: Any,
    state: Any,
    output: Any,
) -> None:
    """Advance every zone, and sum what the zones take from the plant room. Arrays as in :func:`step`.

    Air: Ca·dTa/dt = (Hwin + ρc·V̇inf)(To − Ta) + ρc·V̇(Ts − Ta) + Ham(Tm − Ta) + Hae(Te − Ta)
    + Uh(Th − Ta) + Uc(Tc − Ta) + Pfan + 0.6·Qi + fs·gA·S
    Mass: Cm·dTm/dt = Ham(Ta − Tm) + Hmo(To − Tm) + (1 − fs)·gA·S + 0.4·Qi
    Envelope: Ce·dTe/dt = Hae(Ta − Te) + Heo(To − Te)
    CO2: V·dC/dt = V̇(Cs − C) + V̇inf(Co − C) + G

    Mass and envelope touch only the air node, so the implicit step eliminates them and solves one equation for the air.
    """
    count = state.shape[0]
    zones = zone_parameter.shape[0] // count
    valve_share = lag_share(dt, VALVE_TIME)
    fan_share = lag_share(dt, FAN_TIME)
    rate = 1.0 / dt
    for b in range(count):
        outdoor = weather[b, W_OUTDOOR]
        sun = weather[b, W_SUN]
        supply = state[b, H_COIL]
        hot = state[b, H_HOT]
        cold = state[b, H_COLD]
        flow_share = output[b, O_FLOW_SHARE]
        supply_co2 = output[b, O_SUPPLY_CO2]
        hot_load = output[b, O_COIL_HEAT]
        cold_load = output[b, O_COIL_COOL]
        fans = output[b, O_FAN_W]
        for i in range(b * zones, (b + 1) * zones):
            heat = zone_state[i, S_HEAT] + valve_share * (
                unit_interval(zone_command[i, C_HEAT]) - zone_state[i, S_HEAT]
            )
            cool = zone_state[i, S_COOL] + valve_share * (
                unit_interval(zone_command[i, C_COOL]) - zone_state[i, S_COOL]
            )
            fan = zone_state[i, S_FAN] + fan_share * (unit_interval(zone_command[i, C_FAN]) - zone_state[i, S_FAN])
            conducting = coil_share(fan)
            ua_heat = zone_parameter[i, Z_UA_HEAT] * heat * conducting
            ua_cool = zone_parameter[i, Z_UA_COOL] * cool * conducting
            fan_w = fan_power(zone_parameter[i, Z_FAN_W], fan)
            people = use[i] * zone_parameter[i, Z_PEOPLE]
            gain = zone_parameter[i, Z_GAIN_BASE] + use[i] * zone_parameter[i, Z_GAIN_USE] + HEAT_PER_PERSON * people
            solar = zone_parameter[i, Z_SOLAR] * sun
            solar_air = zone_parameter[i, Z_SOLAR_AIR] * solar
            fresh = zone_parameter[i, Z_FLOW] * flow_share
            infiltration = zone_parameter[i, Z_INFILTRATION]
            h_out = zone_parameter[i, Z_HWIN] + RHO_C * infiltration
            h_supply = RHO_C * fresh
            ham = zone_parameter[i, Z_HAM]
            hae = zone_parameter[i, Z_HAE]
            heo = zone_parameter[i, Z_HEO]
            hmo = zone_parameter[i, Z_HMO]
            ca = zone_parameter[i, Z_CA] * rate
            cm = zone_parameter[i, Z_CM] * rate
            ce = zone_parameter[i, Z_CE] * rate

            all_mass = cm + ham + hmo
            all_envelope = ce + hae + heo
            both = 1.0 / (all_mass * all_envelope)
            per_mass = all_envelope * both
            per_envelope = all_mass * both
            known_mass = cm * zone_state[i, S_MASS] + hmo * outdoor + solar - solar_air + (1.0 - GAIN_TO_AIR) * gain
            known_envelope = ce * zone_state[i, S_ENVELOPE] + heo * outdoor
            known = ca * zone_state[i, S_AIR] + h_out * outdoor + h_supply * supply + ua_heat * hot + ua_cool * cold
            known += GAIN_TO_AIR * gain + solar_air + fan_w
            known += ham * known_mass * per_mass + hae * known_envelope * per_envelope
            total = ca + h_out + h_supply + ua_heat + ua_cool
            total += ham - ham * ham * per_mass + hae - hae * hae * per_envelope
            air = known / total
            mass = (known_mass + ham * air) * per_mass
            envelope = (known_envelope + hae * air) * per_envelope

            volume = zone_parameter[i, Z_VOLUME] * rate
            co2 = (
                volume * zone_state[i, S_CO2]
                + fresh * supply_co2
                + infiltration * OUTDOOR_CO2
                + CO2_PER_PERSON * people
            )
            zone_state[i, S_CO2] = co2 / (volume + fresh + infiltration)

            heating = ua_heat * (hot - air)
            cooling = ua_cool * (air - cold)
            hot_load += heating
            cold_load += cooling
            fans += fan_w
            zone_flow[i, F_HEAT] = heating
            zone_flow[i, F_COOL] = cooling
            zone_flow[i, F_OUTDOOR] = h_out * (air - outdoor) + hmo * (mass - outdoor) + heo * (envelope - outdoor)
            zone_flow[i, F_SUPPLY] = h_supply * (supply - air)
            zone_flow[i, F_GAIN] = gain + solar + fan_w
            zone_state[i, S_AIR] = air
            zone_state[i, S_MASS] = mass
            zone_state[i, S_ENVELOPE] = envelope
            zone_state[i, S_HEAT] = heat
            zone_state[i, S_COOL] = cool
            zone_state[i, S_FAN] = fan
        output[b, O_HOT_LOAD] = hot_load
        output[b, O_COLD_LOAD] = cold_load
        state[b, H_E_FANS] += dt * fans


def step_plant_room(dt: float, weather: Any, parameter: Any, state: Any, output: Any) -> None:
    """Advance heat pump, chiller and their tanks; count electricity and compressor starts. Arrays as in :func:`step`.

    A compressor starts when its tank is ``TANK_BAND`` off target and stops when it is as far on the other side; in
    between it modulates from its lowest stage to its capacity. A load below the lowest stage therefore makes it
    cycle, as real ones do.
    """
    for b in range(parameter.shape[0]):
        outdoor = weather[b, W_OUTDOOR]
        tank = parameter[b, A_TANK]
        lowest = parameter[b, A_MIN_STAGE]

        hot = state[b, H_HOT]
        warmest = parameter[b, A_HOT]
        target = min(max(warmest + parameter[b, A_HOT_SLOPE] * (20.0 - outdoor), warmest), HOT_LIMIT)
        was_on = state[b, H_PUMP_ON]
        on = was_on
        if hot < target - TANK_BAND:
            on = 1.0
        elif hot > target + TANK_BAND:
            on = 0.0
        load = output[b, O_HOT_LOAD]
        heat = 0.0
        power = 0.0
        if on > 0.5:
            capacity = heat_pump_capacity(parameter[b, A_HEAT_PUMP], outdoor)
            heat = min(max(load + tank * (target - hot) / TANK_TIME, lowest * capacity), capacity)
            power = heat / heat_pump_cop(hot, outdoor) * heat_pump_part_load(heat / capacity)
        state[b, H_PUMP_ON] = on
        state[b, H_PUMP_STARTS] += on * (1.0 - was_on)
        state[b, H_HOT] = hot + dt * (heat - load) / tank
        state[b, H_E_HEAT] += dt * power
        output[b, O_PUMP_HEAT] = heat
        output[b, O_PUMP_W] = power

        cold = state[b, H_COLD]
        target = parameter[b, A_COLD]
        was_on = state[b, H_CHILLER_ON]
        on = was_on
        if cold > target + TANK_BAND:
            on = 1.0
        elif cold < target - TANK_BAND:
            on = 0.0
        load = output[b, O_COLD_LOAD]
        removed = 0.0
        power = 0.0
        if on > 0.5:
            capacity = parameter[b, A_CHILLER]
            removed = min(max(load + tank * (cold - target) / TANK_TIME, lowest * capacity), capacity)
            power = capacity / chiller_eer(cold, outdoor) * chiller_power_fraction(removed / capacity)
        state[b, H_CHILLER_ON] = on
        state[b, H_CHILLER_STARTS] += on * (1.0 - was_on)
        state[b, H_COLD] = cold + dt * (load - removed) / tank
        state[b, H_E_COOL] += dt * power
        output[b, O_CHILLER_COOL] = removed
        output[b, O_CHILLER_W] = power


def step(
    dt: float,
    weather: Any,
    use: Any,
    zone_parameter: Any,
    zone_command: Any,
    zone_state: Any,
    zone_flow: Any,
    parameter: Any,
    command: Any,
    state: Any,
    output: Any,
) -> None:
    """Advance B air handlers with Z zones each by ``dt`` seconds, in place.

    Args:
        dt: seconds, > 0.
        weather: (B, WEATHER_COLUMNS).
        use: share of people and appliances present, 0..1, (B·Z,).
        zone_parameter: (B·Z, ZONE_PARAMETERS).
        zone_command: (B·Z, ZONE_COMMANDS).
        zone_state: (B·Z, ZONE_STATES), changed.
        zone_flow: (B·Z, ZONE_FLOWS), written.
        parameter: (B, AIR_HANDLER_PARAMETERS).
        command: (B, AIR_HANDLER_COMMANDS).
        state: (B, AIR_HANDLER_STATES), changed.
        output: (B, AIR_HANDLER_OUTPUTS), written.
    """
    step_air(dt, weather, zone_parameter, zone_state, parameter, command, state, output)
    step_zones(dt, weather, use, zone_parameter, zone_command, zone_state, zone_flow, state, output)
    step_plant_room(dt, weather, parameter, state, output)


HELPERS: tuple[str, ...] = (
    "heat_pump_cop",
    "heat_pump_capacity",
    "heat_pump_part_load",
    "chiller_eer",
    "chiller_power_fraction",
    "fan_power",
    "coil_share",
    "unit_interval",
    "lag_share",
    "step_air",
    "step_zones",
    "step_plant_room",
)

SIGNATURES: dict[str, str] = {
    "step": "void(f8,f8[:,::1],f8[::1]," + ",".join(["f8[:,::1]"] * 8) + ")",
}
