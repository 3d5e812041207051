"""The commands of building control functions.

Tuples with names: they compare, unpack and print as such, and cannot be changed.
"""

from __future__ import annotations

from typing import NamedTuple


class HVACCommand(NamedTuple):
    """What one zone's terminal equipment shall do. Outputs are in % of full; heating and cooling exclude each other."""

    heating_output: float
    cooling_output: float
    fan_speed: float
    reason: str = ""


class AirHandlerCommand(NamedTuple):
    """What an air handler shall do. ``fan_on`` is 0 or 1; the rest is in % of full."""

    fan_on: float
    fan_speed: float
    outdoor_damper: float
    heating_valve: float
    cooling_valve: float
    reason: str = ""
