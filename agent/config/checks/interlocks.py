"""Interlocks: conditions that compile, trips that force outputs to values their envelopes allow."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from agent.config.errors import Problem
from agent.config.interlock import InterlockConfig
from agent.config.output import OutputConfig
from agent.config.scope import LoadedUnit, Scope, address_of
from agent.config.source import KeyPath
from agent.config.suggest import suggestion
from safety.errors import ExpressionError
from safety.expressions import compile_condition
from safety.second.channel import DISAGREE
from safety.units import is_known

_REFERENCE = re.compile(r"(?:([a-z0-9-]+)/)?([a-z][a-z0-9_]*)")


def check_interlocks(scope: Scope) -> Iterator[Problem]:
    """Every row of every unit, packs included."""
    for unit in scope.units:
        if unit.config.critical and not unit.config.outputs and not unit.is_broken("outputs"):
            yield unit.place.problem(
                ("critical",),
                "the unit is critical but has no outputs to protect",
                "declare outputs, or remove critical",
            )
    if not any(unit.config.interlocks for unit in scope.units):
        return
    codes = {
        f"{unit.config.name}/{name}": point.unit
        for unit in scope.units
        for name, point in unit.config.points.items()
        if is_known(point.unit)  # else it was reported at the point, and no condition with it can be judged
    }
    for unit in scope.units:
        names: dict[str, int] = {}
        for position, row in enumerate(unit.config.interlock_rows):
            if names.setdefault(row.name, position) != position:
                message = f"there are two interlocks called {row.name!r} in this unit"
                yield unit.place.problem(
                    ("interlocks", position, "name"), message, "give each its own name (name: beside use:)"
                )
            if row.name == DISAGREE and unit.config.critical:
                yield unit.place.problem(
                    ("interlocks", position, "name"),
                    f"{DISAGREE} is the interlock of the safety layer itself in a critical unit",
                    "give the row another name",
                )
            for key, condition in (("when", row.when), ("clear_when", row.clear_when)):
                error = None if condition is None else _refusal(scope, unit, codes, condition)
                if error is not None:
                    what, remedy = _split(error.message)
                    path = ("interlocks", position, key)
                    message = f"interlock {row.name}: {what}"
                    yield unit.place.problem(path, message, remedy, offset=error.column - 1)
            yield from _check_trips(unit, row, ("interlocks", position, "trip"))


def _refusal(scope: Scope, unit: LoadedUnit, codes: Mapping[str, str], condition: str) -> ExpressionError | None:
    """Why a condition does not compile, unless it is for a point that was reported already."""
    try:
        compile_condition(condition, codes, unit.config.name)
    except ExpressionError as error:
        match = _REFERENCE.match(condition, error.column - 1)
        return None if match is not None and _was_reported(scope, unit, match[1], match[2]) else error
    return None


def _was_reported(scope: Scope, unit: LoadedUnit, owner: str | None, name: str) -> bool:
    home = scope.by_name.get(owner) if owner else unit
    if home is None:
        return scope.incomplete
    point = home.config.points.get(name)
    if point is not None:
        return not is_known(point.unit)
    return home.is_broken("points", name) or home.is_broken("points_csv")


def _split(message: str) -> tuple[str, str]:
    """What and remedy: an expression's message ends with its remedy, after the last colon or semicolon, if any."""
    cut = max(message.rfind(": "), message.rfind("; "))
    if cut < 0:
        return message, "a condition compares points with numbers or on and off, joined by and, or, not and ( )"
    return message[:cut], message[cut + 2 :]


def _check_trips(unit: LoadedUnit, row: InterlockConfig, path: KeyPath) -> Iterator[Problem]:
    outputs = unit.config.outputs
    for name, value in row.trip.items():
        output = outputs.get(name)
        if output is None:
            if not unit.is_broken("outputs", name):
                remedy = suggestion(name, list(outputs), "output", "outputs of this unit")
                yield unit.place.problem(
                    (*path, name),
                    f"interlock {row.name} trips {name!r}, which is no output of this unit",
                    remedy,
                    key=True,
                )
            continue
        what = f"interlock {row.name} forces {name} to"
        if value is None:
            point = unit.config.points.get(name)
            address = None if point is None else address_of(point)
            if point is not None and (address is None or not address.can_relinquish):
                yield unit.place.problem(
                    (*path, name), f"{what} relinquish, which {point.protocol} cannot", "give the value that is safe"
                )
            continue
        yield from _check_value(unit, (*path, name), what, value, output)


def _check_value(unit: LoadedUnit, path: KeyPath, what: str, value: float, output: OutputConfig) -> Iterator[Problem]:
    low, high = output.limits
    if not low <= value <= high:
        message = f"{what} {value:g}, outside its limits [{low:g}, {high:g}]"
        yield unit.place.problem(path, message, "choose a value inside the limits of the output")
    elif output.allowed is not None and value not in output.allowed:
        allowed = ", ".join(f"{level:g}" for level in output.allowed)
        yield unit.place.problem(
            path, f"{what} {value:g}, which is not one of its allowed values", f"choose one of: {allowed}"
        )
