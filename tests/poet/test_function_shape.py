"""What a function takes and gives is found without calling it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import pytest

from agent.domains.building_management import HVACCommand
from agent.domains.building_management import commands as commands_module
from agent.poet.errors import FunctionShapeError
from agent.poet.shape import ResultKind, command_shape, parameters, result_shape


@dataclass(frozen=True, slots=True)
class Valve:
    position: float
    note: str = "none"


class TwoTexts(NamedTuple):
    value: float
    one: str
    other: str


def test_canonical_example_without_annotation() -> None:
    def control(current_temp, setpoint, occupancy, outdoor_temp):  # type: ignore[no-untyped-def]
        if current_temp < setpoint:
            return HVACCommand(1, 0, 20, "Heating")
        return HVACCommand(0, 0, 20, "Maintaining")

    shape = result_shape(control)
    assert shape.kind is ResultKind.COMMAND
    assert shape.command is HVACCommand
    assert shape.fields == ("heating_output", "cooling_output", "fan_speed")
    assert shape.text == "reason"
    assert parameters(control) == (("current_temp", "setpoint", "occupancy", "outdoor_temp"), {})


def test_result_forms() -> None:
    def annotated(a: float) -> Valve: ...  # type: ignore[empty-body]
    def number(a: float) -> float: ...  # type: ignore[empty-body]
    def pair(a: float) -> tuple[float, float]: ...  # type: ignore[empty-body]
    def untyped_number(a):  # type: ignore[no-untyped-def]
        return a * 2.0

    def untyped_pair(a):  # type: ignore[no-untyped-def]
        return a, 2.0

    def mapping(a):  # type: ignore[no-untyped-def]
        return {"x": a, "y": 1.0}

    def by_module(a):  # type: ignore[no-untyped-def]
        return commands_module.AirHandlerCommand(a, 0, 0, 0, 0)

    def through_a_variable(a):  # type: ignore[no-untyped-def]
        command = HVACCommand(a, 0, 0)
        return command  # noqa: RET504

    assert result_shape(annotated).fields == ("position",)
    assert result_shape(annotated).text == "note"
    assert result_shape(number).fields == result_shape(untyped_number).fields == ("value",)
    assert result_shape(pair) == result_shape(untyped_pair)
    assert result_shape(mapping).kind is ResultKind.DICT
    assert result_shape(mapping).fields == ("x", "y")
    assert result_shape(by_module).command is commands_module.AirHandlerCommand
    assert result_shape(through_a_variable).command is HVACCommand


def test_an_inner_functions_return_is_not_the_functions() -> None:
    def outer(a):  # type: ignore[no-untyped-def]
        def inner():  # type: ignore[no-untyped-def]
            return a, a

        return HVACCommand(inner()[0], 0, 0)

    assert result_shape(outer).command is HVACCommand


def test_different_forms_are_refused_with_both_named() -> None:
    def torn(a):  # type: ignore[no-untyped-def]
        if a > 0:
            return {"x": a}
        return HVACCommand(a, 0, 0)

    with pytest.raises(FunctionShapeError, match=r"command .*dict \(x\)"):
        result_shape(torn)


def test_a_class_with_two_texts_or_none_but_text_is_no_command() -> None:
    assert command_shape(TwoTexts) is None
    assert command_shape(int) is None
    assert command_shape(3.0) is None


def test_parameters_that_cannot_be_bound() -> None:
    def many(*temps: float) -> float: ...  # type: ignore[empty-body]
    def text(a: float, b: str = "x") -> float: ...  # type: ignore[empty-body]
    def defaults(a: float, b: int = 2, *, c: bool = True) -> float: ...  # type: ignore[empty-body]

    with pytest.raises(FunctionShapeError, match="name every parameter"):
        parameters(many)
    with pytest.raises(FunctionShapeError, match="must be a number"):
        parameters(text)
    assert parameters(defaults) == (("a", "b", "c"), {"b": 2.0, "c": 1.0})
