"""Writers: no cell of a device is written by two outputs, whatever they are called and whichever unit they are in."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from agent.config.errors import Problem
from agent.config.scope import LoadedUnit, Scope, address_of


def check_writers(scope: Scope) -> Iterator[Problem]:
    """Sort the spans of each device and address space; neighbours that overlap have two masters."""
    spans: defaultdict[tuple[str, str], list[tuple[float, float, str, LoadedUnit]]] = defaultdict(list)
    for unit in scope.units:
        for name in unit.config.outputs:
            point = unit.config.points.get(name)
            address = None if point is None else address_of(point)
            if point is not None and address is not None and address.writable:
                space, first, end = address.span
                spans[point.device, space].append((first, end, name, unit))
    for (device, space), written in spans.items():
        written.sort(key=lambda span: span[:2])
        reach, holder = -1.0, written[0]
        for span in written:
            first, end, name, unit = span
            if first < reach:
                other = f"{holder[3].config.name}/{holder[2]}"
                protocol = unit.config.points[name].protocol
                yield unit.place.problem(
                    ("points", name, protocol),
                    f"{unit.config.name}/{name} writes {space} {first:.10g} of {device}, which {other} writes too",
                    "let one unit write it; others read it as UNIT/POINT",
                )
            if end > reach:
                reach, holder = end, span
