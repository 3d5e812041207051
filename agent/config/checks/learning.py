"""What a unit may learn: the parameter exists and has a range, the feedback can be compared with its target."""

from __future__ import annotations

from collections.abc import Iterator

from agent.config.checks.bindings import check_dimension
from agent.config.errors import Problem
from agent.config.scope import Scope
from agent.config.suggest import suggestion
from agent.config.train import ParameterConfig
from safety.units import is_known


def check_learning(scope: Scope) -> Iterator[Problem]:
    """The references of ``train.ewma``."""
    for unit in scope.units:
        train, parameters = unit.config.train, unit.config.parameters
        if train is None:
            continue
        ewma = train.ewma
        here = ("train", "ewma")
        parameter = parameters.get(ewma.parameter)
        if parameter is None:
            if not unit.is_broken("parameters", ewma.parameter):
                remedy = suggestion(ewma.parameter, list(parameters), "parameter", "parameters of this unit")
                yield unit.place.problem((*here, "parameter"), f"there is no parameter {ewma.parameter!r}", remedy)
        elif not isinstance(parameter, ParameterConfig):
            yield unit.place.problem(
                ("parameters", ewma.parameter),
                f"{ewma.parameter} is learned, but has no range that learning cannot leave",
                f"write {ewma.parameter}: {{value: {parameter:g}, range: [LOW, HIGH]}}",
            )
        for key in ("feedback", "target", "only_when"):
            reference = getattr(ewma, key)
            if isinstance(reference, str):
                yield from scope.check_reference(unit, reference, (*here, key))
        if isinstance(ewma.target, str):
            feedback = scope.point(unit, ewma.feedback)
            if feedback is not None and is_known(feedback.unit):
                yield from check_dimension(scope, unit, ewma.target, feedback.unit, (*here, "target"))
