"""Everything of a site that could be read, and which parts could not, for the checks that look across files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import cast

from agent.config.device import DeviceConfig
from agent.config.errors import Problem
from agent.config.place import Place
from agent.config.point import PointConfig
from agent.config.site import SiteConfig
from agent.config.source import KeyPath
from agent.config.suggest import suggestion
from agent.config.unit import UnitConfig
from drivers.interface import PointAddress


@dataclass(frozen=True)
class LoadedUnit:
    """One unit, where it stands, and which of its parts could not be read (they have been reported)."""

    config: UnitConfig
    place: Place
    broken: frozenset[KeyPath] = frozenset()

    def is_broken(self, *path: str | int) -> bool:
        """Whether a part of the unit, or all of the mapping it belongs to, was left out."""
        return path in self.broken or path[:1] in self.broken


@dataclass(frozen=True)
class Scope:
    """The site as far as it could be read. A name that is broken is neither found nor reported again."""

    site: SiteConfig
    place: Place
    units: Sequence[LoadedUnit]
    broken: frozenset[KeyPath] = frozenset()
    incomplete: bool = False
    """Some unit could not be read at all, so that an unknown unit may be that one."""
    by_name: Mapping[str, LoadedUnit] = field(init=False)

    def __post_init__(self) -> None:
        # The first of two units with one name: the second is reported by the check of names.
        object.__setattr__(self, "by_name", {unit.config.name: unit for unit in reversed(self.units)})

    def device(self, name: str) -> DeviceConfig | None:
        """A device of the site."""
        return self.site.devices.get(name)

    def device_is_broken(self, name: str) -> bool:
        """Whether the device is there but could not be read."""
        return ("devices",) in self.broken or ("devices", name) in self.broken

    def point(self, unit: LoadedUnit, reference: str) -> PointConfig | None:
        """The point a reference (``point`` or ``unit/point``) means, seen from ``unit``."""
        owner, _, name = reference.rpartition("/")
        home = self.by_name.get(owner) if owner else unit
        return None if home is None else home.config.points.get(name)

    def check_reference(self, unit: LoadedUnit, reference: str, path: KeyPath, offset: int = 0) -> list[Problem]:
        """The problem with a reference at ``path`` of ``unit``, if there is one."""
        owner, _, name = reference.rpartition("/")
        home = self.by_name.get(owner) if owner else unit
        if home is None:
            if self.incomplete:
                return []
            remedy = suggestion(owner, list(self.by_name), "unit", "units")
            return [unit.place.problem(path, f"there is no unit {owner!r}", remedy, offset=offset)]
        if name in home.config.points or home.is_broken("points", name) or home.is_broken("points_csv"):
            return []
        remedy = suggestion(
            name, list(home.config.points), "point", "points of this unit" if home is unit else f"points of {owner}"
        )
        message = f"there is no point {name!r}" + (f" in unit {owner}" if owner else "")
        return [unit.place.problem(path, message, remedy, offset=offset)]


def address_of(point: PointConfig) -> PointAddress | None:
    """The point's address, if its driver says what can be written. None: never written (default deny)."""
    address = point.address
    return cast("PointAddress", address) if _is_point_address(type(address)) else None


@cache
def _is_point_address(kind: type) -> bool:
    # isinstance() with a protocol takes 10 us, and this is asked for every output several times.
    return all(hasattr(kind, name) for name in ("writable", "can_relinquish", "span"))
