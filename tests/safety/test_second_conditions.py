"""The second reading of a condition: the same truth as the first, and nothing half read."""

from __future__ import annotations

import random

import numpy as np
import pytest
from channel_cases import UNITS, condition, reading

from safety import kernels
from safety.errors import ExpressionError, SafetyError
from safety.expressions import compile_condition
from safety.second.conditions import read

ORDER = {name: place for place, name in enumerate(UNITS)}


def first_reading(text: str, values: dict[int, float]) -> bool:
    """What the compiled program makes of it."""
    program = compile_condition(text, UNITS, "u").program
    code = np.array([(step.op, ORDER.get(step.left, 0), ORDER.get(step.right, 0)) for step in program], np.int32)
    operand = np.array([(step.gain, step.offset) for step in program])
    image = np.array([values[place] for place in range(len(UNITS))])
    return kernels.run(image, code, operand, 0, len(program)) == 1


def test_both_readings_of_any_condition_have_the_same_truth_and_need_the_same_points() -> None:
    truths = set()
    for seed in range(1500):
        pick = random.Random(seed).choice
        text = condition(pick)
        second = read(text, UNITS, ORDER, "u")
        assert second.points == frozenset(compile_condition(text, UNITS, "u").points)
        for _ in range(5):
            values = {ORDER[name]: reading(pick, name) for name in UNITS}
            truth = second.test(values)
            assert truth is first_reading(text, values), (text, values)
            truths.add(truth)
    assert truths == {True, False}


@pytest.mark.parametrize(
    ("text", "truth"),
    [
        ("not open or open", True),
        ("open or open and not open", True),
        ("(open or open) and not open", False),
        ("not open and not open or open", True),
        ("not not open", True),
        ("4.4 Cel<temp", True),
        ("temp>-.5e1Cel and temp < +1E2", True),
        ("39.92 [degF] < flow_temp", True),
        ("flow_temp > temp", True),
        ("temp <= flow_temp <= 50 [degF]", True),
        ("w/run != off", True),
    ],
)
def test_precedence_units_and_signs(text: str, truth: bool) -> None:
    values = {ORDER[name]: 1.0 for name in UNITS} | {ORDER["u/temp"]: 5.0, ORDER["u/flow_temp"]: 45.0}
    assert read(text, UNITS, ORDER, "u").test(values) is truth
    assert first_reading(text, values) is truth


@pytest.mark.parametrize(
    "text",
    [
        "", " ", "(", ")", "()", "open)", "(open", "open(", "(open) (open)", "(open) open", "open open", "open and", "or open", "not",
        "open and or open", "temp >", "temp > > 5", "> 5", "5 > 4", "5", "on", "on == open > 3", "open > on", "on == on", "temp & 5",
        "temp > 5 < ", "1 < temp < 5 < 9", "1 < temp == 5", "5 < 6 < temp", "unknown", "z/open", "temp > 5 Foo", "temp > 5 Pa", "temp == open and",
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_refused(text: str) -> None:
    with pytest.raises(SafetyError):
        read(text, UNITS, ORDER, "u")
    with pytest.raises(SafetyError):
        compile_condition(text, UNITS, "u")


def test_a_refusal_says_where() -> None:
    with pytest.raises(ExpressionError, match=r"column 6 of 'open \+ 3': the second channel cannot read"):
        read("open + 3", UNITS, ORDER, "u")
    with pytest.raises(ExpressionError, match=r"column 10 .* knows no point 'u/unknown'"):
        read("open and unknown", UNITS, ORDER, "u")
