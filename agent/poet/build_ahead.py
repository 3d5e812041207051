"""Build kernels and control functions ahead of time, and say how each will run. What ``poetd compile`` does."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from agent.kernels import aot
from agent.kernels.errors import CompilerMissingError, KernelError
from agent.kernels.modules import read
from agent.poet.batch import Check
from agent.poet.errors import PoetError
from agent.poet.functions import ControlFunction, resolve


class BuildReport(NamedTuple):
    """How one module or function will run: "aot", "jit" or "python", or "error" if it cannot; why not compiled; how
    long it took.
    """

    name: str
    kind: str
    why: str
    seconds: float


def build_module(name: str) -> BuildReport:
    """Build one kernels module, unless its build is there already."""
    started = time.perf_counter()
    why = ""
    kind = "aot"
    try:
        source = read(name)
        if aot.locate(name, source.source) is None:
            _require_numba()
            from agent.kernels import jit  # imports numba

            aot.build(name, source.source, jit.aot_exports(source), source.module)
    except CompilerMissingError as error:
        kind, why = _without_compiler(), str(error)
    except KernelError as error:
        kind, why = "error", str(error)
    return BuildReport(name, kind, why, time.perf_counter() - started)


def build_function(spec: str, search_path: Sequence[Path], check: Check | None = None) -> BuildReport:
    """Build one control function of a site, unless its build is there already, and load it to see whether it agrees
    with Python (``check``, see :meth:`ControlFunction.batch`).
    """
    started = time.perf_counter()
    try:
        function = resolve(spec, search_path)
    except PoetError as error:
        return BuildReport(spec, "error", str(error), time.perf_counter() - started)
    kind, why = _build(function, check)
    return BuildReport(spec, kind, why, time.perf_counter() - started)


def _build(function: ControlFunction, check: Check | None) -> tuple[str, str]:
    found = function.batch("aot", check)
    if found.kind == "aot":
        return "aot", ""
    try:
        _require_numba()
        from agent.poet.batch_compile import build_aot  # imports numba

        build_aot(function)
    except CompilerMissingError as error:
        return _without_compiler(), str(error)
    except KernelError as error:
        return "python", str(error)
    built = function.batch("aot", check)
    return built.kind, built.why


def _require_numba() -> None:
    if not aot.numba_installed():
        raise CompilerMissingError("numba is not installed: pip install numba")


def _without_compiler() -> str:
    return "jit" if aot.numba_installed() and aot.executable_memory_allowed() else "python"
