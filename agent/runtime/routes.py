"""Drivers and gate routes from the configuration: the one place where both are made from the same settings."""

from __future__ import annotations

from agent.runtime.program import Program
from drivers.interface import DeviceClock, DevicePoint, Driver
from drivers.registry import installed_plugins
from safety.gate import Route


def device_points(program: Program, device: str) -> list[DevicePoint]:
    """A device's points in the order of the input image."""
    rows = program.points[program.device_slices[device]]
    return [DevicePoint(row.name, row.config.address, row.config.writable, row.config.priority) for row in rows]


def drivers(program: Program, clock: DeviceClock) -> dict[str, Driver]:
    """One driver per device that has points. Raises DriverError for settings a driver cannot take; connects nothing."""
    made = {}
    for device, config in program.loaded.site.devices.items():
        if device in program.device_slices:
            factory = installed_plugins()[config.protocol].load()
            made[device] = factory(device, config.settings, device_points(program, device), clock)
    return made


def routes(program: Program) -> dict[str, Route]:
    """Where every output lives, complete enough that another process can give it back without the site's files."""
    made = {}
    for row in program.outputs:
        point = program.points[row.point]
        device = program.loaded.site.devices[point.config.device]
        output = program.units[row.unit_index].config.outputs[row.field]
        made[row.name] = Route(
            device=point.config.device,
            protocol=device.protocol,
            settings_json=device.settings.model_dump_json(),
            address_json=point.config.address.model_dump_json(),
            priority=point.config.priority,
            read_back=output.read_back,
            resolution=float(getattr(point.config.address, "resolution", 0.0)),
        )
    return made
