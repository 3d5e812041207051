"""Trying a function out: a hang, a crash or a difference costs the child only, and says so in words."""

from __future__ import annotations

import ctypes
import faulthandler
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from agent.poet.functions import ControlFunction
from agent.runtime.operate.probe import first_difference_in_child, in_child


@pytest.mark.parametrize(
    ("work", "says"),
    [
        (lambda: None, None),
        (lambda: "compiled and plain Python disagree ☃", "compiled and plain Python disagree ☃"),
        (lambda: 1 / 0, "it failed: ZeroDivisionError: division by zero"),
        (lambda: os._exit(7), "it ended its process (exit code 7)"),
        (lambda: sys.exit(0), "it ended its process (exit code 70)"),
        (lambda: [faulthandler.disable(), ctypes.string_at(0)][1], "it ended its process (signal SIGSEGV)"),
        (lambda: time.sleep(60), "it did not answer within 0.3 s"),
        (lambda: bytes(1 << 40), "it failed: MemoryError"),
        (lambda: "x" * 100_000, "xxx"),
    ],
)
def test_child_tells_or_is_told_about(work: Callable[[], str | None], says: str | None) -> None:
    told = in_child(work, 0.3 if says and "within" in says else 20.0)
    assert told == says or (says is not None and told is not None and says in told)
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)  # nothing is left behind


def test_parent_is_not_changed_by_the_child() -> None:
    seen: list[int] = []
    assert in_child(lambda: seen.append(1), 20.0) is None
    assert seen == []


def test_function_that_hangs_for_some_arguments_runs_as_plain_python(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.runtime.operate.probe.PATIENCE_S", 0.5)

    def endless(temperature: float) -> float:
        while temperature > 30.0:
            pass
        return temperature

    function = ControlFunction.of(endless)
    told = first_difference_in_child(function, lambda *_: None)
    assert told == "tried out with random arguments, it did not answer within 0.5 s"


def test_agreeing_function_passes() -> None:
    from agent.poet.batch import python_run

    def double(value: float) -> float:
        return 2.0 * value

    function = ControlFunction.of(double)
    assert first_difference_in_child(function, python_run(function)) is None


def test_batch_takes_the_verdict_of_its_check(monkeypatch: pytest.MonkeyPatch) -> None:
    def double(value: float) -> float:
        return 2.0 * value

    function = ControlFunction.of(double)
    monkeypatch.setattr("agent.poet.batch_load._compile_jit", lambda *_: lambda *_arrays: None)
    monkeypatch.setattr("agent.poet.batch_load.refusal_path", lambda *_: None)
    kernel = function.batch("jit", lambda _function, _run: "it hung")
    assert (kernel.kind, kernel.why) == ("python", "it hung")
    assert function.batch("jit", lambda _function, _run: None).kind == "jit"
