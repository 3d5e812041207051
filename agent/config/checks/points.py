"""Points: a unit of measure that exists, a device that exists and speaks the address's protocol."""

from __future__ import annotations

from collections.abc import Iterator

from agent.config.errors import Problem
from agent.config.place import Place
from agent.config.scope import Scope
from agent.config.source import KeyPath
from agent.config.suggest import suggestion
from safety.units import is_known, nearest


def check_points(scope: Scope) -> Iterator[Problem]:
    """What a point says of itself against the unit table and the site's devices."""
    protocols = {name: device.protocol for name, device in scope.site.devices.items()}
    known_units: set[str] = set()
    for unit in scope.units:
        for name, point in unit.config.points.items():
            if point.unit not in known_units:
                problem = check_unit_code(unit.place, ("points", name, "unit"), point.unit)
                if problem is None:
                    known_units.add(point.unit)
                else:
                    yield problem
            protocol = protocols.get(point.device)
            if protocol is None:
                if not scope.device_is_broken(point.device):
                    remedy = suggestion(point.device, list(protocols), "device", "devices")
                    yield unit.place.problem(("points", name, "device"), f"there is no device {point.device!r}", remedy)
            elif protocol != point.protocol:
                yield unit.place.problem(
                    ("points", name, point.protocol),
                    f"{point.device} is a {protocol} device, but the address is for {point.protocol}",
                    f"give a {protocol} address, or name another device",
                    key=True,
                )


def check_unit_code(place: Place, path: KeyPath, code: str) -> Problem | None:
    """The problem with a UCUM code, if it is not in the table."""
    if is_known(code):
        return None
    near = nearest(code)
    remedy = (
        f"write {near}"
        if near is not None
        else "write a UCUM code: Cel, [degF], Pa, %, kW, m3/h, or 1 for a plain number"
    )
    return place.problem(path, f"unknown unit {code!r}", remedy)
