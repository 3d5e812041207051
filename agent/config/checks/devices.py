"""Devices: none twice; and the plant's map names points that exist."""

from __future__ import annotations

from collections.abc import Iterator

from agent.config.errors import Problem
from agent.config.scope import Scope
from agent.config.suggest import suggestion
from drivers.interface import EndpointSettings, LineSettings


def check_devices(scope: Scope) -> Iterator[Problem]:
    """One endpoint, one device: two pollers would disturb each other, and neither would know what the other wrote."""
    seen: dict[tuple[str, str], str] = {}
    for name, device in scope.site.devices.items():
        settings = device.settings
        if not isinstance(settings, EndpointSettings):
            continue
        endpoint = (device.protocol, settings.endpoint)
        first = seen.setdefault(endpoint, name)
        if first != name:
            yield scope.place.problem(
                ("devices", name),
                f"{name} is the same device as {first}: {endpoint[0]} {endpoint[1]}",
                f"let the points name {first}, and remove {name}",
                key=True,
            )
    yield from _lines(scope)
    yield from _plant_points(scope)


def _lines(scope: Scope) -> Iterator[Problem]:
    """Devices of one line share its wire: one of them with another speed or framing would disturb all."""
    seen: dict[tuple[str, str], tuple[str, str]] = {}
    for name, device in scope.site.devices.items():
        settings = device.settings
        if not isinstance(settings, LineSettings):
            continue
        line, setup = settings.line
        first, wanted = seen.setdefault((device.protocol, line), (name, setup))
        if setup != wanted:
            yield scope.place.problem(
                ("devices", name, device.protocol),
                f"{name} and {first} share {line}, but not how it is set: {setup}; {first}: {wanted}",
                f"set both alike, as the line is; or name another line for {name}",
            )


def _plant_points(scope: Scope) -> Iterator[Problem]:
    if scope.site.plant is None or scope.incomplete:
        return
    for reference in scope.site.plant.points:
        owner, _, name = reference.partition("/")
        unit = scope.by_name.get(owner)
        path = ("plant", "points", reference)
        if unit is None:
            yield scope.place.problem(
                path, f"there is no unit {owner!r}", suggestion(owner, list(scope.by_name), "unit", "units"), key=True
            )
        elif name not in unit.config.points and not unit.is_broken("points", name):
            remedy = suggestion(name, list(unit.config.points), "point", f"points of {owner}")
            yield scope.place.problem(path, f"there is no point {name!r} in unit {owner}", remedy, key=True)
