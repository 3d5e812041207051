"""Find, load and check the compiled batch of a control function. Imports numba only when it has to compile."""

from __future__ import annotations

import itertools
import random
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from agent.kernels import aot, cache
from agent.kernels.errors import KernelError
from agent.poet.batch import TEXT_BYTES, BatchKernel, CallStatus, Check, Run, python_run
from agent.poet.fingerprint import fingerprint
from agent.poet.shape import ResultKind

if TYPE_CHECKING:
    from agent.poet.functions import ControlFunction

SIGNATURE = "void(f8[:,::1], u1[::1], f8[:,::1], u1[::1], u1[:,::1], i8[::1], i8)"
SAMPLES = 200
"""Units of the check of compiled against plain Python. Takes less than a millisecond, at every load."""

NOT_BUILT = "not built ahead of time for this machine: run poetd compile"


def batch_source(function: ControlFunction) -> str:
    """The Python text of the loop over the units, specialised to the function's parameters and result.

    Raises:
        KernelError: the result has a form that is not compiled.
    """
    shape = function.shape
    if shape.kind is ResultKind.DICT:
        raise KernelError("it returns a dict: return a command class or a tuple to have it compiled")
    arguments = ", ".join(f"args[{row}, unit]" for row in range(len(function.parameters)))
    values = [f"value_{row}" for row in range(len(shape.fields))]
    lines = [
        "def batch(args, due, out, status, text, progress, first):",
        "    for unit in range(first, due.shape[0]):",
        "        if due[unit] == 0:",
        "            continue",
        "        progress[0] = unit",
        f"        result = function({arguments})",
    ]
    for row, (value, name) in enumerate(zip(values, shape.fields, strict=True)):
        read = {ResultKind.NUMBER: "result", ResultKind.TUPLE: f"result[{row}]", ResultKind.COMMAND: f"result.{name}"}[
            shape.kind
        ]
        lines += [f"        {value} = float({read})", f"        out[{row}, unit] = {value}"]
    lines.append(
        f"        put_text(text, unit, result.{shape.text})" if shape.text else "        clear_text(text, unit, 0)"
    )
    finite = " and ".join(f"isfinite({value})" for value in values)
    lines.append(f"        status[unit] = {CallStatus.OK:d} if {finite} else {CallStatus.NOT_FINITE:d}")
    return "\n".join(lines) + "\n"


def build_name(function: ControlFunction) -> str:
    """What the build of a batch is called, before its key is added."""
    return "batch_" + "".join(letter if letter.isalnum() else "_" for letter in function.name)


def build_source(function: ControlFunction) -> bytes:
    """Everything the key of a build is made from: the loop, the function and what it uses, and the compiler's own
    source.
    """
    compiler = Path(__file__).with_name("batch_compile.py").read_bytes()
    return b"\0".join((batch_source(function).encode(), fingerprint(function.plain), compiler))


def load_compiled(function: ControlFunction, mode: str, check: Check) -> tuple[Run | None, str]:
    """The compiled loop in mode "aot" or "jit", checked against plain Python; or None and the reason."""
    try:
        name, source = build_name(function), build_source(function)
        refusal = refusal_path(name, source)
        if refusal is not None:
            return None, refusal.read_text(encoding="utf-8")
        run = _load_aot(name, source) if mode == "aot" else _compile_jit(function, name, source)
    except KernelError as error:
        return None, str(error)
    difference = check(function, run)
    return (run, "") if difference is None else (None, difference)


def refusal_path(name: str, source: bytes) -> Path | None:
    """The note that ``poetd compile`` leaves for a function that does not compile, or None."""
    return cache.find(aot.extension_name(name, source) + ".why")


def first_difference(function: ControlFunction, run: Run) -> str | None:
    """Where the compiled loop and plain Python disagree over random arguments, NaN and infinity among them; None if
    nowhere.

    Compiled code freezes globals and has C's corner cases; a function for which that matters is run in Python.
    Two failures agree whatever their kind: both end in fail-safe. Runs the function in this process, where a hang is a
    hang: who must not hang gives :meth:`ControlFunction.batch` a check that runs this elsewhere.
    """
    n_args = len(function.parameters)
    args = _sample_arguments(n_args, SAMPLES)
    results = []
    for kind, loop in (("jit", run), ("python", python_run(function))):
        kernel = BatchKernel("jit" if kind == "jit" else "python", "", loop, n_args, len(function.fields))
        out, status = np.zeros((len(function.fields), SAMPLES)), np.zeros(SAMPLES, np.uint8)
        text, progress = np.zeros((SAMPLES, TEXT_BYTES), np.uint8), np.zeros(1, np.int64)
        kernel(args, np.ones(SAMPLES, np.uint8), out, status, text, progress)
        results.append((out, status, text))
    (fast_out, fast_status, fast_text), (slow_out, slow_status, slow_text) = results
    good = slow_status == CallStatus.OK
    same = (fast_status == CallStatus.OK) == good
    same &= ~good | ((fast_out == slow_out).all(axis=0) & (fast_text == slow_text).all(axis=1))
    if same.all():
        return None
    unit = int(np.argmin(same))
    call = ", ".join(f"{name}={value:g}" for name, value in zip(function.parameters, args[:, unit], strict=True))
    fast, slow = fast_out[:, unit].tolist(), slow_out[:, unit].tolist()
    return f"compiled and plain Python disagree for {function.name}({call}): {fast} and {slow}"


def _sample_arguments(n_args: int, count: int) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    """Arguments over the ranges of temperatures, percentages, pressures and switches; the same every time. Shape
    (n_args, count).
    """
    source = random.Random(20)  # noqa: S311  (test values, no secret)
    corners = (0.0, 1.0, -1.0, 20.0, 100.0, 1e9, float("nan"), float("inf"), float("-inf"))
    spans = itertools.cycle(((10.0, 35.0), (0.0, 100.0), (-40.0, 60.0), (0.0, 1.0), (-2000.0, 2000.0)))
    columns = []
    for _ in range(count):
        low, high = next(spans)
        columns.append(
            [source.choice(corners) if source.random() < 0.1 else source.uniform(low, high) for _ in range(n_args)]
        )
    return np.ascontiguousarray(np.array(columns, dtype=np.float64).reshape(count, n_args).T)


def _load_aot(name: str, source: bytes) -> Run:
    build = aot.find(name, source)
    if build is None:
        raise KernelError(NOT_BUILT)
    run: Run = build.batch
    return run


def _compile_jit(function: ControlFunction, name: str, source: bytes) -> Run:
    from agent.poet.batch_compile import compile_jit  # imports numba

    return compile_jit(function, name, source)
