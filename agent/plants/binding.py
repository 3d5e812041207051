"""Which plant point stands behind which point of a site, and the register map of a plant without a site."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from difflib import get_close_matches

from agent.config.loader import LoadedSite
from agent.plants.errors import PlantBindingError
from drivers.modbus.settings import ModbusAddress
from models.plant import Plant
from safety.values import PointSpec


def plant_point(name: str, explicit: Mapping[str, str], known: Iterable[str]) -> str | None:
    """The plant's point behind ``unit/point``, or None.

    First what the site says, then ``unit_point``, then ``point``; ``-`` is read as ``_``.
    """
    known = frozenset(known)
    if name in explicit:
        return explicit[name] if explicit[name] in known else None
    unit, _, point = name.rpartition("/")
    for candidate in (f"{unit}_{point}".replace("-", "_"), point.replace("-", "_")):
        if candidate in known:
            return candidate
    return None


def bind_site(loaded: LoadedSite, plant: Plant) -> dict[str, str]:
    """``unit/point`` → plant point, for every point of the site the plant stands behind.

    Raises:
        PlantBindingError: an explicit name under ``plant: points:`` is wrong, or nothing matches at all.
    """
    explicit = loaded.site.plant.points if loaded.site.plant is not None else {}
    for name, target in explicit.items():
        if target not in plant.points:
            near = get_close_matches(target, plant.points, 1)
            hint = f", did you mean {near[0]}?" if near else ""
            raise PlantBindingError(f"plant: points: {name}: the plant has no point {target!r}{hint}")
    found = {name: plant_point(name, explicit, plant.points) for name in loaded.points}
    bound = {name: target for name, target in found.items() if target is not None}
    if not bound:
        raise PlantBindingError("no point of the site has a counterpart on the plant: name them under plant: points:")
    return bound


def automatic_map(points: Mapping[str, PointSpec]) -> dict[str, ModbusAddress]:
    """Plant point → address without a site: f32 in two registers each, in the plant's order.

    What can be written lies in the holding registers, the rest in the input registers, both from address 0.
    """
    addresses: dict[str, ModbusAddress] = {}
    following = {"input": 0, "holding": 0}
    for name, spec in points.items():
        table = "holding" if spec.writable else "input"
        addresses[name] = ModbusAddress.model_validate({table: following[table], "type": "f32"})
        following[table] += 2
    return addresses


def as_yaml(points: Mapping[str, PointSpec], addresses: Mapping[str, ModbusAddress], device: str) -> str:
    """The map as the ``points:`` of a unit file, ready to paste."""
    lines = ["points:"]
    for name, address in addresses.items():
        spec = points[name]
        writable = ", writable: true" if spec.writable else ""
        lines.append(
            f"  {name}: {{device: {device}, modbus: {{{address.table}: {address.number}, type: {address.type}}}, "
            f'unit: "{spec.unit}", range: [{spec.low:g}, {spec.high:g}]{writable}}}'
        )
    return "\n".join(lines)
