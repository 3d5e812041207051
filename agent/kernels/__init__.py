"""Kernels: one plain source, three ways to run it, proven equal.

``aot``: an extension module built once by ``poetd compile``, loaded without numba. ``jit``: numba, kept on disk so that
a second start compiles nothing. ``python``: the plain functions, for coverage, as oracle, and where neither is
possible.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Literal, get_args

from agent.kernels import aot
from agent.kernels.errors import KernelError, KernelsNotBuiltError
from agent.kernels.modules import KERNEL_MODULES, read

Mode = Literal["aot", "jit", "python"]

__all__ = ["KERNEL_MODULES", "Mode", "available_aot", "choose_mode", "load"]


def load(module_name: str, mode: str) -> SimpleNamespace:
    """The exported functions of a kernels module, as attributes; ``kind`` is the mode.

    Raises:
        KernelsNotBuiltError: mode is "aot" and there is no build for this source, interpreter, numba and CPU.
        KernelSourceError: the module is not a kernels module.
        CacheUntrustedError: a build exists where somebody else could have put it.
        ValueError: an unknown mode.
    """
    if mode not in get_args(Mode):
        raise ValueError(f"kernel mode {mode!r} is not one of {', '.join(get_args(Mode))}")
    source = read(module_name)
    if mode == "python":
        return SimpleNamespace(kind="python", **{name: source.function(name) for name in source.signatures})
    if mode == "jit":
        from agent.kernels import jit  # imports numba

        return SimpleNamespace(kind="jit", **jit.compile_module(source))
    build = aot.find(module_name, source.source)
    if build is None:
        raise KernelsNotBuiltError(
            f"{module_name} is not built for this machine: run poetd compile, or set kernels: jit in the site file"
        )
    return SimpleNamespace(kind="aot", **{name: getattr(build, name) for name in source.signatures})


def available_aot(module_name: str) -> bool:
    """Whether ``load(module_name, "aot")`` would find a build it may load."""
    try:
        return aot.locate(module_name, read(module_name).source) is not None
    except KernelError:
        return False


def choose_mode(wanted: str, modules: tuple[str, ...] = KERNEL_MODULES) -> tuple[Mode, str]:
    """Resolve the site's ``kernels:`` setting to a mode, and say why.

    "auto" takes the ahead-of-time build if every module has one; else JIT; else, where memory may not be made
    executable (``MemoryDenyWriteExecute=yes``, under which a late compile kills the process) or numba is missing, plain
    Python.
    """
    if wanted == "aot":
        return "aot", "set in the site file"
    if wanted == "jit":
        return "jit", "set in the site file"
    if wanted == "python":
        return "python", "set in the site file"
    if all(available_aot(name) for name in modules):
        return "aot", "poetd compile has built every kernel"
    if not aot.numba_installed():
        return "python", "numba is not installed"
    if not aot.executable_memory_allowed():
        return "python", "this process may not compile at run time (MemoryDenyWriteExecute): run poetd compile"
    return "jit", "not built ahead of time: run poetd compile to start faster and use less memory"
