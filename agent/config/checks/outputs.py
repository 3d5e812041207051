"""Outputs: each is the envelope of a point that says it may be written, on an address that can be, inside its range."""

from __future__ import annotations

from collections.abc import Iterator

from agent.config.errors import Problem
from agent.config.output import OutputConfig
from agent.config.point import PointConfig
from agent.config.scope import LoadedUnit, Scope, address_of
from agent.config.suggest import suggestion


def check_outputs(scope: Scope) -> Iterator[Problem]:
    """Both ways: no output without a writable point, no writable point without an output."""
    for unit in scope.units:
        config = unit.config
        for name, output in config.outputs.items():
            point = config.points.get(name)
            if point is not None:
                yield from _check_pair(unit, name, output, point)
            elif not unit.is_broken("points", name) and not unit.is_broken("points_csv"):
                remedy = suggestion(name, list(config.points), "point", "points of this unit")
                yield unit.place.problem(
                    ("outputs", name), f"the output {name!r} is not a point of this unit", remedy, key=True
                )
        for name, point in config.points.items():
            if point.writable and name not in config.outputs and not unit.is_broken("outputs", name):
                limits = f"limits: [{point.range[0]:g}, {point.range[1]:g}]"
                yield unit.place.problem(
                    ("points", name, "writable"),
                    f"{name} is writable but has no envelope: it could never be written",
                    f"add under outputs: {name}: {{{limits}, fail_safe: VALUE}}, or remove writable",
                )
        yield from _check_exclusive(unit)


def _check_pair(unit: LoadedUnit, name: str, output: OutputConfig, point: PointConfig) -> Iterator[Problem]:
    address = address_of(point)
    if address is None or not address.writable:
        yield unit.place.problem(
            ("points", name, point.protocol),
            f"{name} is an output, but this kind of {point.protocol} address cannot be written",
            "give the address of a writable object, or remove the output",
        )
    elif not point.writable:
        yield unit.place.problem(
            ("points", name),
            f"{name} is an output, but the point does not say that it may be written",
            f"add writable: true to the point {name}: what can move equipment is said twice",
            key=True,
        )
    if output.fail_safe is None and (address is None or not address.can_relinquish):
        yield unit.place.problem(
            ("outputs", name, "fail_safe"),
            f"{name} cannot be relinquished: {point.protocol} has no way to hand a point back to the equipment",
            "give the value that is safe",
        )
    low, high = point.range
    for end, limit in enumerate(output.limits):
        if not low <= limit <= high:
            explicit = "limits" in output.model_fields_set
            message = f"the limit {limit:g} of {name} is outside the range [{low:g}, {high:g}] of the point"
            path = ("outputs", name, "limits", end) if explicit else ("outputs", name)
            yield unit.place.problem(
                path, message, "limits lie inside the range: narrow them, or correct the range", key=not explicit
            )


def _check_exclusive(unit: LoadedUnit) -> Iterator[Problem]:
    outputs = unit.config.outputs
    for row, pair in enumerate(unit.config.exclusive):
        if pair[0] == pair[1]:
            yield unit.place.problem(("exclusive", row), f"{pair[0]} cannot exclude itself", "name two outputs")
        for place, name in enumerate(pair):
            if name not in outputs and not unit.is_broken("outputs", name):
                remedy = suggestion(name, list(outputs), "output", "outputs of this unit")
                yield unit.place.problem(("exclusive", row, place), f"there is no output {name!r}", remedy)
