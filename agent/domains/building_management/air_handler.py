"""Air handler: supply air at its set-point with a fan, a mixing box with economizer, a heating and a cooling coil."""

from __future__ import annotations

from agent.domains.building_management.commands import AirHandlerCommand
from agent.poet import poet

ECONOMIZER_HIGH_LIMIT_DEGC = 24.0
"""Above it outdoor air is not used for cooling (ASHRAE Guideline 36, fixed dry bulb, dry climates; others 21 or 18)."""


@poet(domain="building_management")
def air_handler(
    supply_temp: float,
    supply_setpoint: float,
    outdoor_temp: float,
    return_temp: float,
    occupancy: float,
    bias: float = 0.0,
    deadband: float = 0.5,
    minimum_outdoor_air: float = 20.0,
    fan_speed: float = 80.0,
    heating_span: float = 25.0,
    cooling_span: float = 12.0,
) -> AirHandlerCommand:
    """Hold the supply air temperature while the building is occupied; everything off and closed while it is not.

    The mixed air is computed from the damper (balance of sensible heat: mixed = x * outdoor + (1 - x) * return), the
    coil makes up what is missing to the set-point, and the measured supply temperature corrects it. Heating and cooling
    come from one signed demand, so they can never be open together.

    Args:
        supply_temp, supply_setpoint, outdoor_temp, return_temp: degrees Celsius.
        occupancy: people, or 1 and 0; anything above 0 is occupied.
        bias: learned shift of the set-point, K.
        deadband: no coil is opened for a demand smaller than this, K.
        minimum_outdoor_air: damper position that ventilates enough, %.
        fan_speed: speed while occupied, %.
        heating_span, cooling_span: what the air gains or loses over the fully open coil, K.
    """
    if not occupancy > 0:
        return AirHandlerCommand(0, 0, 0, 0, 0, "Unoccupied")

    target = supply_setpoint + bias
    damper = minimum_outdoor_air
    economizer = outdoor_temp < return_temp and outdoor_temp < ECONOMIZER_HIGH_LIMIT_DEGC and target < return_temp
    if economizer:
        damper = max(damper, min(100.0, 100.0 * (return_temp - target) / (return_temp - outdoor_temp)))

    mixed = return_temp + damper / 100.0 * (outdoor_temp - return_temp)
    demand = (target - mixed) + (target - supply_temp)
    if demand > deadband:
        return AirHandlerCommand(
            1, fan_speed, damper, min(100.0, 100.0 * (demand - deadband) / heating_span), 0, "Heating"
        )
    if demand < -deadband:
        return AirHandlerCommand(
            1, fan_speed, damper, 0, min(100.0, 100.0 * (-demand - deadband) / cooling_span), "Cooling"
        )
    return AirHandlerCommand(1, fan_speed, damper, 0, 0, "Economizer" if economizer else "Maintaining")
