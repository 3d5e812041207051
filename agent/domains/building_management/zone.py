"""Zone temperature: proportional heating and cooling around a dead band, wider when nobody is there."""

from __future__ import annotations

from agent.domains.building_management.commands import HVACCommand
from agent.poet import poet

HEATING_LOCKOUT_DEGC = 24.0
"""Warmer outside: heat comes in by itself, a call for heating is a sensor or a window."""
COOLING_LOCKOUT_DEGC = 5.0
"""Colder outside: mechanical cooling would ice up, air from outside does it."""
IDLE_FAN = 20.0
ACTIVE_FAN = 60.0


@poet(domain="building_management")
def zone_temperature(
    current_temp: float,
    setpoint: float,
    occupancy: float,
    outdoor_temp: float,
    bias: float = 0.0,
    setback: float = 3.0,
    deadband: float = 1.0,
    gain: float = 30.0,
) -> HVACCommand:
    """Hold a zone's temperature.

    Args:
        current_temp, setpoint, outdoor_temp: degrees Celsius.
        occupancy: people, or 1 and 0; anything above 0 is occupied.
        bias: learned shift of the set-point, K.
        setback: how far an empty zone may drift beyond the dead band, both ways: lower before it heats, higher before
            it cools, K.
        deadband: neither heating nor cooling this close to the set-point, K to each side.
        gain: % of output per K beyond the dead band.

    Returns:
        Outputs that rise from 0 at the edge of the dead band, without a jump.
    """
    drift = deadband if occupancy > 0 else deadband + setback
    heat_below = setpoint + bias - drift
    cool_above = setpoint + bias + drift

    if current_temp < heat_below:
        if outdoor_temp > HEATING_LOCKOUT_DEGC:
            return HVACCommand(0, 0, IDLE_FAN, "Heating locked out: warm outside")
        heating = min(100.0, gain * (heat_below - current_temp))
        return HVACCommand(heating, 0, _fan(heating), "Heating")
    if current_temp > cool_above:
        if outdoor_temp < COOLING_LOCKOUT_DEGC:
            return HVACCommand(0, 0, ACTIVE_FAN, "Cooling locked out: cold outside")
        cooling = min(100.0, gain * (current_temp - cool_above))
        return HVACCommand(0, cooling, _fan(cooling), "Cooling")
    if occupancy > 0:
        return HVACCommand(0, 0, IDLE_FAN, "Maintaining")
    return HVACCommand(0, 0, 0, "Unoccupied")


def _fan(output: float) -> float:
    """Fan speed in % for a heating or cooling output in %."""
    return IDLE_FAN + (ACTIVE_FAN - IDLE_FAN) * output / 100.0
