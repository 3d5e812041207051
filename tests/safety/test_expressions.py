"""Conditions: what parses, what it means against an independent evaluation, and every error with its column and remedy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from safety import kernels
from safety.errors import ExpressionError
from safety.expressions import MAX_INSTRUCTIONS, Condition, compile_condition, references

UNITS = {
    "ahu/duct_static": "Pa",
    "ahu/supply": "Cel",
    "ahu/oat": "[degF]",
    "ahu/lift": "K",
    "ahu/fan": "1",
    "ahu/mode": "1",
    "ahu/speed": "%",
    "1st-floor/door": "1",
}


def compiled(text: str) -> Condition:
    return compile_condition(text, UNITS, "ahu")


def truth(text: str, **values: float) -> bool:
    """Run the program in the plain kernel."""
    condition = compiled(text)
    named = {"1st-floor/door" if name == "door" else f"ahu/{name}": value for name, value in values.items()}
    order = list(condition.points)
    index = {name: k for k, name in enumerate(order)}
    code = np.array([[s.op, index.get(s.left, 0), index.get(s.right, 0)] for s in condition.program], np.int32)
    operand = np.array([[s.gain, s.offset] for s in condition.program])
    return bool(kernels.run(np.array([named[name] for name in order]), code, operand, 0, len(code)))


@pytest.mark.parametrize(
    ("text", "values", "expected"),
    [
        ("duct_static > 750 Pa", {"duct_static": 750.0}, False),
        ("duct_static > 750 Pa", {"duct_static": 750.1}, True),
        ("duct_static>=0.75kPa", {"duct_static": 750.0}, True),
        ("ahu/duct_static > 750", {"duct_static": 751.0}, True),
        ("750 < duct_static", {"duct_static": 751.0}, True),
        ("750 >= duct_static", {"duct_static": 751.0}, False),
        ("supply < 39.92 [degF]", {"supply": 4.3}, True),
        ("supply < -5", {"supply": -5.1}, True),
        ("supply<-5 Cel", {"supply": -4.9}, False),
        ("supply > oat", {"supply": 20.0, "oat": 67.9}, True),
        ("supply > oat", {"supply": 20.0, "oat": 68.1}, False),
        ("lift > 5 K", {"lift": 5.1}, True),
        ("lift > 9 [degR]", {"lift": 5.1}, True),
        ("fan", {"fan": 1.0}, True),
        ("fan", {"fan": 0.5}, False),
        ("not fan", {"fan": 0.0}, True),
        ("not not fan", {"fan": 1.0}, True),
        ("fan == on", {"fan": 1.0}, True),
        ("fan != on", {"fan": 1.0}, False),
        ("fan == off", {"fan": 0.0}, True),
        ("off != fan", {"fan": 0.0}, False),
        ("mode == 3", {"mode": 3.0}, True),
        ("mode != 3", {"mode": 3.0}, False),
        ("speed > 20 % and not fan", {"speed": 21.0, "fan": 0.0}, True),
        ("speed > 0.2 1", {"speed": 21.0}, True),
        ("1st-floor/door or fan", {"door": 1.0, "fan": 0.0}, True),
        ("fan or fan and mode == 1", {"fan": 0.0, "mode": 1.0}, False),
        ("(fan or mode == 1) and mode == 1", {"fan": 0.0, "mode": 1.0}, True),
        ("not (10 Cel <= supply <= 20 Cel)", {"supply": 20.0}, False),
        ("not (10 Cel <= supply <= 20 Cel)", {"supply": 20.1}, True),
        ("not (10 Cel <= supply <= 20 Cel)", {"supply": 9.9}, True),
        ("20 > supply > 10", {"supply": 15.0}, True),
        ("supply > 1e1 and supply < .2e2", {"supply": 15.0}, True),
    ],
)
def test_meaning(text: str, values: dict[str, float], expected: bool) -> None:
    assert truth(text, **values) is expected


@pytest.mark.parametrize(
    ("text", "column", "message"),
    [
        ("duct_statc > 750", 1, "did you mean duct_static"),
        ("fan and  zzzzzzzz", 10, "declare it under points"),
        ("duct_static > 750 Cel", 15, "Cel measures temperature, the point is in Pa"),
        ("supply > duct_static", 10, "Pa measures pressure"),
        ("lift > 5 Cel", 8, "write the number in K"),
        ("supply > 5 K", 10, "K may be a difference"),
        ("supply > 5 degC", 12, "did you mean Cel"),
        ("supply > 5 zzzzzz", 12, "units are UCUM codes"),
        ("supply", 1, "write a comparison, such as supply > 20"),
        ("supply == 20", 1, "never exactly equal"),
        ("supply == on", 1, "not a contact or mode"),
        ("fan > on", 5, "can only follow == or !="),
        ("5", 1, "a number alone"),
        ("on", 1, "a number alone"),
        ("5 < 6", 5, "two constants"),
        ("fan fan", 5, "expected and, or, or the end, found 'fan'"),
        ("(fan", 5, "expected )"),
        ("fan)", 4, "found ')'"),
        ("", 1, "expected a point or a number, found 'the end'"),
        ("fan and", 8, "found 'the end'"),
        ("supply > and", 10, "found 'and'"),
        ("Fan", 1, "cannot read 'Fan'"),
        ("fan & mode", 5, "cannot read '& mode'"),
        ("fan-speed > 5", 1, "cannot read"),
        ("10 < supply > 20", 13, "both signs the same way"),
        ("mode == 1 == 1", 11, "both signs the same way"),
        ("supply < 10 < 20", 13, "both signs the same way"),
        ("supply > 1e999", 10, "too large"),
        ("(" * 17 + "fan" + ")" * 17, 18, "nested deeper"),
        ("not " * 17 + "fan", 69, "nested deeper"),
        ("fan or " * 40 + "fan", 1, f"more than {MAX_INSTRUCTIONS}"),
        ("fan" + " " * 500, 501, "at most 500 characters"),
    ],
)
def test_errors_have_a_column_and_a_remedy(text: str, column: int, message: str) -> None:
    with pytest.raises(ExpressionError) as caught:
        compiled(text)
    assert message in str(caught.value)
    assert caught.value.column == column
    assert str(caught.value).startswith(f"column {column} of")


def test_a_point_in_a_unit_nobody_knows() -> None:
    with pytest.raises(ExpressionError, match="unknown unit 'wat'"):
        compile_condition("x > y", {"x": "wat", "y": "Pa"})


def test_points_in_order_of_appearance_and_without_scope() -> None:
    assert compiled("fan or supply > oat and fan").points == ("ahu/fan", "ahu/supply", "ahu/oat")
    assert compile_condition("x > 5", {"x": "Pa"}).points == ("x",)
    with pytest.raises(ExpressionError, match="did you mean xx"):
        compile_condition("xy > 5", {"xx": "Pa"})


def test_references_are_found_without_units() -> None:
    assert references("static > 750 Pa and not 1st-floor/door") == (("static", 0), ("1st-floor/door", 24))
    with pytest.raises(ExpressionError):
        references("static ? 5")


@st.composite
def conditions(draw: st.DrawFn, depth: int = 0) -> tuple[str, str]:
    """A condition, and the same as Python source over the names fan, speed, supply."""
    kind = draw(st.integers(0, 5 if depth < 4 else 2))
    number = draw(st.integers(-50, 50))
    if kind == 0:
        return "fan", "(fan > 0.5)"
    if kind == 1:
        op = draw(st.sampled_from(["<", "<=", ">", ">="]))
        return f"supply {op} {number} Cel", f"(supply {op} {number})"
    if kind == 2:
        op = draw(st.sampled_from(["<", "<=", ">", ">="]))
        return f"{number} {op} speed", f"({number} {op} speed)"
    left, python_left = draw(conditions(depth + 1))
    if kind == 3:
        return f"not ({left})", f"(not {python_left})"
    right, python_right = draw(conditions(depth + 1))
    word = "and" if kind == 4 else "or"
    return f"({left}) {word} ({right})", f"({python_left} {word} {python_right})"


@given(conditions(), st.sampled_from([0.0, 1.0]), st.integers(-50, 50), st.integers(-50, 50))
@settings(max_examples=300, deadline=None)
def test_the_program_is_the_text(pair: tuple[str, str], fan: float, speed: int, supply: int) -> None:
    text, python = pair
    if len(text) > 500:
        return
    names = {"fan": fan, "speed": float(speed), "supply": float(supply)}
    assert truth(text, **names) is bool(eval(python, {}, names))


@given(st.text(alphabet="abfn ()<>=!.0159%/-_onrdtPCel", max_size=60))
@settings(max_examples=300, deadline=None)
def test_arbitrary_text_is_a_condition_or_an_expression_error(text: str) -> None:
    try:
        condition = compiled(text)
    except ExpressionError as error:
        assert 1 <= error.column <= len(text) + 1
    else:
        assert condition.points
