"""References to points: the inputs of the control function, and what reports judge a zone by."""

from __future__ import annotations

from collections.abc import Iterator

from agent.config.checks.points import check_unit_code
from agent.config.errors import Problem
from agent.config.scope import LoadedUnit, Scope
from agent.config.source import KeyPath
from agent.config.unit import InputBinding
from safety.units import is_known, same_dimension


def check_bindings(scope: Scope) -> Iterator[Problem]:
    """Every reference names a point, and a unit that a function expects can be had from the point's own."""
    for unit in scope.units:
        for parameter, source in unit.config.inputs.items():
            if isinstance(source, str):
                yield from scope.check_reference(unit, source, ("inputs", parameter))
            elif isinstance(source, InputBinding):
                yield from scope.check_reference(unit, source.point, ("inputs", parameter, "point"))
                if source.unit is not None:
                    yield from check_dimension(scope, unit, source.point, source.unit, ("inputs", parameter, "unit"))
        comfort = unit.config.comfort
        if comfort is not None:
            yield from scope.check_reference(unit, comfort.temperature, ("comfort", "temperature"))
            yield from check_dimension(scope, unit, comfort.temperature, "Cel", ("comfort", "temperature"))
            if comfort.occupied is not None:
                yield from scope.check_reference(unit, comfort.occupied, ("comfort", "occupied"))


def check_dimension(scope: Scope, unit: LoadedUnit, reference: str, code: str, path: KeyPath) -> Iterator[Problem]:
    """Whether a point's value can be had in the unit ``code`` that stands at ``path``."""
    problem = check_unit_code(unit.place, path, code)
    if problem is not None:
        yield problem
        return
    point = scope.point(unit, reference)
    if point is not None and is_known(point.unit) and not same_dimension(point.unit, code):
        message = f"{reference} is in {point.unit}, which cannot become {code}"
        yield unit.place.problem(path, message, "name a point and a unit of the same kind")
