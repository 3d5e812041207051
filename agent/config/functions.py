"""The check of control functions: a child process says what each takes and gives; the units that use it must fit."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

from agent.config.errors import Problem
from agent.config.scope import LoadedUnit, Scope
from agent.config.suggest import suggestion

TIMEOUT_S: Final = 60.0
"""For the import of all of a site's functions. numba alone may take 5 s on a small gateway."""

_ANSWER_BYTES: Final = 4 * 1024 * 1024
_COMPLAINT_BYTES: Final = 2000

_REMEDIES: Final = {
    "FunctionNotFoundError": "write DOMAIN.FUNCTION, or MODULE:FUNCTION of a module in python_path",
    "FunctionImportError": "correct the module until it can be imported",
    "FunctionShapeError": "take named parameters, and return a number, a tuple, a dict or a NamedTuple of numbers",
    "PluginError": "write one of the installed domains, or MODULE:FUNCTION",
}


@dataclass(frozen=True, slots=True)
class FunctionShape:
    """What a control function takes and gives."""

    parameters: tuple[str, ...]
    defaults: frozenset[str]
    fields: tuple[str, ...]


class FunctionProbe:
    """A child process at work on the functions of a site, while the other checks run. ``finish`` must be called."""

    def __init__(
        self, scope: Scope, process: subprocess.Popen[bytes], answers: IO[bytes], complaints: IO[bytes]
    ) -> None:
        self._scope = scope
        self._process = process
        self._answers = answers
        self._complaints = complaints
        self._deadline = time.monotonic() + TIMEOUT_S

    @classmethod
    def start(cls, scope: Scope, root: Path) -> FunctionProbe | None:
        """Start the child; None if no unit has a function."""
        functions = sorted({unit.config.function for unit in scope.units if unit.config.function is not None})
        if not functions:
            return None
        search_path = [str((root / folder).resolve()) for folder in scope.site.python_path]
        # Files, not pipes: site code that prints without end can neither block the child nor fill our memory.
        answers, complaints = tempfile.TemporaryFile(), tempfile.TemporaryFile()  # noqa: SIM115  (closed by finish)
        process = subprocess.Popen(
            [sys.executable, "-P", str(Path(__file__).with_name("function_probe.py"))],
            stdin=subprocess.PIPE,
            stdout=answers,
            stderr=complaints,
            env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
            start_new_session=True,
        )
        assert process.stdin is not None
        try:
            process.stdin.write(json.dumps({"functions": functions, "search_path": search_path}).encode())
            process.stdin.close()
        except BrokenPipeError:
            pass  # it died at once; finish() says how
        return cls(scope, process, answers, complaints)

    def finish(self) -> list[Problem]:
        """Wait for the child, at most until the deadline, and compare its answers with the units."""
        try:
            ending = self._wait()
            self._answers.seek(0)
            lines = self._answers.read(_ANSWER_BYTES).splitlines()
            self._complaints.seek(0, os.SEEK_END)
            self._complaints.seek(max(0, self._complaints.tell() - _COMPLAINT_BYTES))
            complaint = self._complaints.read().decode(errors="replace").strip().rpartition("\n")[2]
        finally:
            self._answers.close()
            self._complaints.close()
        return list(_judge(self._scope, [json.loads(line) for line in lines], ending, complaint))

    def _wait(self) -> str:
        """How the child ended, "" if well."""
        try:
            code = self._process.wait(max(0.0, self._deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            return f"takes longer than {TIMEOUT_S:g}s to import"
        if code < 0:
            return f"kills the process that imports it ({signal.Signals(-code).name})"
        return f"ends the process that imports it (exit code {code})" if code else ""


def _judge(scope: Scope, answers: list[dict[str, Any]], ending: str, complaint: str) -> Iterator[Problem]:
    described = {answer["function"]: answer for answer in answers if "function" in answer}
    begun = [answer["begin"] for answer in answers if "begin" in answer]
    reported: set[str] = set()
    for unit in scope.units:
        name = unit.config.function
        if name is None:
            continue
        answer = described.get(name)
        if answer is not None and "error" not in answer:
            yield from check_function(unit, name, _shape(answer))
        elif name not in reported:  # once: all units that share it fail for the same reason
            reported.add(name)
            if answer is not None:
                remedy = _REMEDIES.get(answer["error"], "correct the function's module")
                yield unit.place.problem(("function",), str(answer["message"]), remedy)
            elif not begun or name == begun[-1]:
                message = f"{name} {ending}" + (f": {complaint}" if complaint else "")
                yield unit.place.problem(
                    ("function",), message, "a module must import quickly and without side effects"
                )


def _shape(answer: dict[str, Any]) -> FunctionShape:
    return FunctionShape(tuple(answer["parameters"]), frozenset(answer["defaults"]), tuple(answer["fields"]))


def check_function(unit: LoadedUnit, name: str, shape: FunctionShape) -> Iterator[Problem]:
    """Every parameter has a source, every source a parameter, every output a field of the result."""
    config = unit.config
    known = list(shape.parameters)
    for parameter in known:
        given = (
            parameter in config.inputs
            or parameter in config.parameters
            or parameter in config.points
            or parameter in shape.defaults
        )
        broken = any(unit.is_broken(key, parameter) for key in ("inputs", "parameters", "points")) or unit.is_broken(
            "points_csv"
        )
        if not given and not broken:
            message = f"nothing gives {name} its parameter {parameter!r}"
            yield unit.place.problem(
                ("function",), message, f"add a point {parameter}, or inputs: {{{parameter}: POINT or number}}"
            )
    for key in ("inputs", "parameters"):
        for parameter in getattr(config, key):
            if parameter not in known:
                remedy = suggestion(parameter, known, "parameter of the function", "parameters of the function")
                yield unit.place.problem((key, parameter), f"{name} has no parameter {parameter!r}", remedy, key=True)
    for parameter in config.inputs.keys() & config.parameters.keys():
        message = f"{parameter!r} is both an input and a learnable parameter of {name}"
        yield unit.place.problem(("parameters", parameter), message, "keep one of them", key=True)
    for output, envelope in config.outputs.items():
        if envelope.source is not None and envelope.source not in shape.fields:
            remedy = suggestion(envelope.source, shape.fields, "field of the result", "fields of the result")
            yield unit.place.problem(
                ("outputs", output, "from"), f"the result of {name} has no field {envelope.source!r}", remedy
            )
        elif envelope.source is None and output not in shape.fields and len(shape.fields) != 1:
            remedy = f"add from: one of {', '.join(shape.fields)}"
            yield unit.place.problem(
                ("outputs", output), f"the result of {name} has no field {output!r}", remedy, key=True
            )
