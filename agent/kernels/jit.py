"""Just-in-time compilation with numba's on-disk cache in our folder: a second start compiles nothing. Imports numba."""

from __future__ import annotations

import os
import types
from typing import Any

import numba
from numba.core import config as numba_config

from agent.kernels import cache
from agent.kernels.modules import Kernel, KernelSource


def use_disk_cache() -> bool:
    """Point numba's cache at our folder.

    Returns False, and numba must not be asked to cache, if no folder can be written.
    """
    folder = cache.write_folder()
    if folder is None:
        return False
    place = folder / "jit"
    place.mkdir(mode=0o755, exist_ok=True)
    cache.require_trusted(place)
    os.environ["NUMBA_CACHE_DIR"] = str(place)
    numba_config.CACHE_DIR = str(place)
    return True


def rebind(plain: types.FunctionType, namespace: dict[str, Any]) -> types.FunctionType:
    """The same function over other globals: the plain one stays plain while its copy calls compiled helpers."""
    copy = types.FunctionType(plain.__code__, namespace, plain.__name__, plain.__defaults__, plain.__closure__)
    copy.__qualname__ = plain.__qualname__
    copy.__module__ = plain.__module__
    return copy


def compiled_namespace(source: KernelSource) -> dict[str, Any]:
    """Globals in which every helper is jitted, for copies of the exported functions."""
    namespace = dict(vars(source.module))
    for name in source.helpers:
        namespace[name] = numba.njit(rebind(source.function(name), namespace))
    return namespace


def compile_module(source: KernelSource) -> dict[str, Kernel]:
    """Every exported function, compiled for its declared signature or taken from the disk cache."""
    caching = use_disk_cache()
    namespace = compiled_namespace(source)
    for name, signature in source.signatures.items():
        namespace[name] = numba.njit(signature, cache=caching)(rebind(source.function(name), namespace))
    return {name: namespace[name] for name in source.signatures}


def aot_exports(source: KernelSource) -> dict[str, tuple[str, Kernel]]:
    """What :func:`agent.kernels.aot.build` needs of a kernels module."""
    namespace = compiled_namespace(source)
    copies = {name: rebind(source.function(name), namespace) for name in source.signatures}
    for name, copy in copies.items():
        namespace[name] = numba.njit(copy)
    return {name: (source.signatures[name], copy) for name, copy in copies.items()}
