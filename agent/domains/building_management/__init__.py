"""Building management: HVAC commands, what POET knows of buildings, control functions for zones and air handlers."""

from agent.domains.building_management.air_handler import air_handler
from agent.domains.building_management.commands import AirHandlerCommand, HVACCommand
from agent.domains.building_management.zone import zone_temperature

__all__ = ["AirHandlerCommand", "HVACCommand", "air_handler", "zone_temperature"]
