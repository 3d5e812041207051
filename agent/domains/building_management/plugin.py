"""What POET knows of buildings: the inputs' units and believable ranges, what a command may be, and what is safe."""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, ClassVar

from agent.domains.building_management.commands import AirHandlerCommand, HVACCommand
from agent.poet.plugins import CallContext, DomainPlugin, InputSpec, Learnable, PluginMetadata

_ROOM = InputSpec("Cel", -10.0, 50.0)
_DUCT = InputSpec("Cel", -40.0, 80.0)
_SETPOINT = InputSpec("Cel", 5.0, 40.0)
_PERCENT = InputSpec("%", 0.0, 100.0)

INPUTS: Mapping[str, InputSpec] = MappingProxyType(
    {
        "current_temp": _ROOM,
        "zone_temp": _ROOM,
        "return_temp": _ROOM,
        "setpoint": _SETPOINT,
        "supply_setpoint": _SETPOINT,
        "supply_temp": _DUCT,
        "mixed_temp": _DUCT,
        "outdoor_temp": InputSpec("Cel", -60.0, 60.0),
        "occupancy": InputSpec("1", 0.0, 100_000.0),
        "humidity": _PERCENT,
        "co2": InputSpec("[ppm]", 300.0, 10_000.0),
        "duct_static": InputSpec("Pa", -500.0, 2500.0),
    }
)
"""Parameter name → what it must be. A CO2 reading under 300 ppm is a broken sensor (ASHRAE Guideline 36, 5.3.6)."""

LEARNABLES: Mapping[str, Learnable] = MappingProxyType(
    {
        "bias": Learnable(0.0, -2.0, 2.0),
        "setback": Learnable(3.0, 1.0, 8.0),
        "deadband": Learnable(1.0, 0.5, 2.0),
        "gain": Learnable(30.0, 15.0, 60.0),
    }
)
"""Keyword parameter → factory value and hard range."""

_SWITCHES = ("fan_on",)


class BuildingManagement(DomainPlugin):
    """HVAC zones and air handlers."""

    metadata: ClassVar[PluginMetadata] = PluginMetadata(
        name="building_management",
        version="1.0",
        domain="building_management",
        capabilities=("zone_temperature", "air_handler", "input_validation", "command_validation", "fail_safe"),
        compatibility=">=0.1,<1",
    )
    inputs: ClassVar[Mapping[str, InputSpec]] = INPUTS
    commands_equipment: ClassVar[bool] = True
    functions_module: ClassVar[str] = "agent.domains.building_management"

    def get_domain_name(self) -> str:
        return "building_management"

    def validate_output(self, result: Any, context: CallContext) -> tuple[str, ...]:
        if isinstance(result, HVACCommand):
            return tuple(_field_causes(result) + _exclusive(result.heating_output, result.cooling_output))
        if isinstance(result, AirHandlerCommand):
            return tuple(_field_causes(result) + _exclusive(result.heating_valve, result.cooling_valve))
        return (f"{context.function} returned {type(result).__name__}, not HVACCommand or AirHandlerCommand",)

    def fail_safe(self, command: type | None, reason: str) -> HVACCommand | AirHandlerCommand:
        """Everything off and closed: no energy is put anywhere by a controller that does not know what it does."""
        if command is AirHandlerCommand:
            return AirHandlerCommand(0.0, 0.0, 0.0, 0.0, 0.0, f"Fail-safe: {reason}")
        return HVACCommand(0.0, 0.0, 0.0, f"Fail-safe: {reason}")

    def get_learning_hints(self, context: Mapping[str, Any]) -> dict[str, Any]:
        del context
        return {
            "objective": "energy",
            "subject_to": {"discomfort": 0.0},
            "time_constant_s": 3600.0,
            "slowest_s": 24 * 3600.0,
        }

    def get_performance_optimizations(self) -> dict[str, Any]:
        return {"batch": True, "deterministic": True}

    def get_learnable_parameters(self) -> Mapping[str, Learnable]:
        return LEARNABLES


def _field_causes(command: HVACCommand | AirHandlerCommand) -> list[str]:
    causes = []
    for name, value in zip(command._fields[:-1], command[:-1], strict=True):
        if not isinstance(value, int | float) or not math.isfinite(value):
            causes.append(f"{name} is {value!r}, not a number")
        elif name in _SWITCHES:
            if value not in (0, 1):
                causes.append(f"{name} = {value:g} is neither 0 nor 1")
        elif not 0.0 <= value <= 100.0:
            causes.append(f"{name} = {value:g} is not between 0 and 100 %")
    return causes


def _exclusive(heating: Any, cooling: Any) -> list[str]:
    both = all(isinstance(value, int | float) and value > 0 for value in (heating, cooling))
    return [f"heating {heating:g} % and cooling {cooling:g} % at the same time"] if both else []
