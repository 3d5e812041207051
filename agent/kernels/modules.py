"""The kernel modules of this distribution and how one is read: signatures, helpers, source."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

from agent.kernels.errors import KernelSourceError

KERNEL_MODULES: tuple[str, ...] = (
    "agent.poet.perceive_kernels",
    "safety.kernels",
    "models.kernels",
    "models.control_kernels",
    "models.comfort_kernels",
)
"""Every kernels module, in the order ``poetd compile`` builds them."""

Kernel = Callable[..., Any]


@dataclass(frozen=True, slots=True)
class KernelSource:
    """One kernels module: plain functions, which of them are exported with which signature, and its source text."""

    module: ModuleType
    signatures: dict[str, str]
    helpers: tuple[str, ...]
    source: bytes

    @property
    def name(self) -> str:
        """The module's dotted name."""
        return self.module.__name__

    def function(self, name: str) -> FunctionType:
        """The plain function of that name."""
        kernel: FunctionType = getattr(self.module, name)
        return kernel


def read(module_name: str) -> KernelSource:
    """Import a kernels module and check that it keeps the convention.

    Raises:
        KernelSourceError: SIGNATURES is missing, or it or HELPERS names something that is not a function of the module.
    """
    module = importlib.import_module(module_name)
    signatures: dict[str, str] | None = getattr(module, "SIGNATURES", None)
    if not signatures:
        raise KernelSourceError(
            f"{module_name} has no SIGNATURES: a kernels module maps each exported function to its numba signature"
        )
    helpers = tuple(getattr(module, "HELPERS", ()))
    for name in (*helpers, *signatures):
        if not inspect.isfunction(getattr(module, name, None)):
            raise KernelSourceError(f"{module_name} names {name!r} in SIGNATURES or HELPERS, but has no such function")
    return KernelSource(module, dict(signatures), helpers, Path(str(module.__file__)).read_bytes())
