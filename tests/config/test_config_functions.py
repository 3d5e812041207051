"""Control functions are imported in a child process; whatever they do there becomes a problem at ``function:``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

import agent.config.functions as functions
from agent.config import Problem
from agent.config.functions import FunctionShape, check_function
from agent.config.place import Place
from agent.config.scope import LoadedUnit
from agent.config.source import SourceFile
from agent.config.unit import UnitConfig
from agent.config.yaml_tree import parse

Files = dict[str, str]
Find = Callable[..., tuple[Problem, ...]]

GOOD = """\
from typing import NamedTuple

class Command(NamedTuple):
    heating: float
    fan: float
    reason: str

def control(current_temp, occupancy, outdoor_temp, bonus, bias=0.0):
    return Command(0.0, 0.0, "idle")
"""


@pytest.fixture
def site(files: Files) -> Files:
    """The good site with a function of its own."""
    files["zones/office.yaml"] = files["zones/office.yaml"].replace("scan: 5s", "function: own:control\nscan: 5s")
    files["own.py"] = GOOD
    return files


def test_a_function_that_fits_has_no_problem(site: Files, problems: Find) -> None:
    assert problems(site, functions=True) == ()


@pytest.mark.parametrize(
    ("module", "expected"),
    [
        (GOOD + "\nraise ValueError('no licence')\n", ["own.py:11: ValueError: no licence"]),
        (GOOD + "\ndef broken(:\n", ["own.py:11: SyntaxError: "]),
        ("import nowhere_to_be_found\n" + GOOD, ["own imports 'nowhere_to_be_found', which is not installed"]),
        ("import sys\nsys.exit(3)\n", ["SystemExit: 3"]),
        ("import os\nos._exit(7)\n", ["ends the process that imports it (exit code 7)"]),
        ("import os\nos.kill(os.getpid(), 11)\n", ["kills the process that imports it (SIGSEGV)"]),
        (GOOD.replace("def control", "def contrl"), ["has no function 'control', did you mean contrl?"]),
        (GOOD.replace("current_temp,", "*current_temp,"), ["takes *current_temp"]),
    ],
    ids=["raises", "syntax", "import", "sys.exit", "os._exit", "segfault", "misspelt", "shape"],
)
def test_a_module_that_cannot_be_used_says_why(site: Files, problems: Find, module: str, expected: list[str]) -> None:
    site["own.py"] = module
    found = problems(site, functions=True)
    assert [(problem.file.name, problem.line, problem.column) for problem in found] == [("office.yaml", 2, 11)]
    assert [text for problem in found for text in expected if text not in problem.message] == [], found
    assert found[0].remedy


def test_units_that_share_a_broken_function_are_reported_once(site: Files, problems: Find) -> None:
    site["zones/more.yaml"] = "zone: more\nfunction: own:control\n"
    site["own.py"] = "1 / 0\n"
    (problem,) = problems(site, functions=True)
    assert "own.py:1: ZeroDivisionError: division by zero" in problem.message


def test_what_the_module_prints_does_not_disturb_the_answer(site: Files, problems: Find) -> None:
    site["own.py"] = "print('{\"function\": 1}')\nimport os; os.write(1, b'noise')\n" + GOOD
    assert problems(site, functions=True) == ()


def test_a_module_that_hangs_is_stopped(site: Files, problems: Find, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(functions, "TIMEOUT_S", 1.5)
    site["own.py"] = "import time\ntime.sleep(600)\n"
    (problem,) = problems(site, functions=True)
    assert problem.message == "own:control takes longer than 1.5s to import"


def test_the_check_leaves_no_bytecode_in_the_site(site: Files, problems: Find, tmp_path: Path) -> None:
    assert problems(site, functions=True) == ()
    assert not (tmp_path / "__pycache__").exists()


def test_an_unknown_domain_is_reported_beside_the_other_problems(site: Files, problems: Find) -> None:
    site["zones/office.yaml"] = site["zones/office.yaml"].replace("own:control", "building_managment.zone_temperature")
    site["zones/lab.yaml"] = site["zones/lab.yaml"].replace("ahu2", "ahu9")
    found = problems(site, functions=True)
    assert [(problem.file.name, problem.line) for problem in found] == [("lab.yaml", 3), ("office.yaml", 2)]
    assert "building_management" in found[1].message


SHAPE = FunctionShape(("temp", "gain", "bias"), frozenset(("bias",)), ("heating", "fan"))


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("inputs: {temp: 1, gain: 2}\noutputs: {fan: {fail_safe: 0}}", []),
        ("inputs: {temp: 1, gain: 2}\noutputs: {valve: {from: heating, fail_safe: 0}}", []),
        ("points: {temp: POINT}\nparameters: {gain: 2, bias: 1}", []),
        ("inputs: {gain: 2}", [(2, 11, "nothing gives m:f its parameter 'temp'", "add a point temp, or inputs: {temp: POINT or number}")]),
        ("inputs: {temp: 1, gain: 2, gian: 1}", [(3, 28, "m:f has no parameter 'gian'", "did you mean gain?")]),
        ("inputs: {temp: 1, gain: 2}\nparameters: {bais: 1}", [(4, 14, "m:f has no parameter 'bais'", "did you mean bias?")]),
        (
            "inputs: {temp: 1, gain: 2}\nparameters: {gain: 1}",
            [(4, 14, "'gain' is both an input and a learnable parameter of m:f", "keep one of them")],
        ),
        (
            "inputs: {temp: 1, gain: 2}\noutputs: {fan: {from: fans, fail_safe: 0}}",
            [(4, 23, "the result of m:f has no field 'fans'", "did you mean fan?")],
        ),
        (
            "inputs: {temp: 1, gain: 2}\noutputs: {valve: {fail_safe: 0}}",
            [(4, 11, "the result of m:f has no field 'valve'", "add from: one of heating, fan")],
        ),
    ],
)  # fmt: skip
def test_parameters_and_results_must_fit(text: str, found: list[tuple[int, int, str, str]]) -> None:
    point = '{device: a, modbus: {input: 1}, unit: "1", range: [0, 1]}'
    filled = text.replace("{temp: POINT}", f"{{temp: {point}}}")
    source = SourceFile(Path("unit.yaml"), f"zone: z\nfunction: m:f\n{filled}\n")
    unit = LoadedUnit(UnitConfig.model_validate(parse(source.text)), Place(source))
    problems = check_function(unit, "m:f", SHAPE)
    assert [(problem.line, problem.column, problem.message, problem.remedy) for problem in problems] == found


def test_a_single_result_drives_an_output_of_any_name() -> None:
    source = SourceFile(Path("unit.yaml"), "zone: z\nfunction: m:f\noutputs: {valve: {fail_safe: 0}}\n")
    unit = LoadedUnit(UnitConfig.model_validate(parse(source.text)), Place(source))
    assert list(check_function(unit, "m:f", FunctionShape((), frozenset(), ("value",)))) == []
