"""Ahead-of-time builds: found, verified and loaded without numba; built with it."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import mmap
import sys
import tempfile
import warnings
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from agent.kernels import cache
from agent.kernels.errors import CompilerMissingError, KernelError

_SUFFIX = importlib.machinery.EXTENSION_SUFFIXES[0]


def extension_name(module_name: str, source: bytes) -> str:
    """The name of the extension module: it carries the key, so a stale build can never be loaded."""
    return f"poetd_{module_name.replace('.', '_')}_{cache.key(source)}"


def locate(module_name: str, source: bytes) -> Path | None:
    """The trusted build for exactly this source on this machine, or None."""
    return cache.find(extension_name(module_name, source) + _SUFFIX)


def find(module_name: str, source: bytes) -> ModuleType | None:
    """Load the build for exactly this source, or None if there is none.

    Raises:
        CacheUntrustedError: there is one, but somebody else could have written it.
        KernelError: it is there but cannot be loaded.
    """
    path = locate(module_name, source)
    return None if path is None else load_extension(extension_name(module_name, source), path)


def load_extension(name: str, path: Path) -> ModuleType:
    """Load an extension module from a path whose trust has been checked, once per process."""
    if name in sys.modules:
        return sys.modules[name]
    loader = importlib.machinery.ExtensionFileLoader(name, str(path))
    spec = importlib.util.spec_from_file_location(name, path, loader=loader)
    assert spec is not None
    try:
        module = importlib.util.module_from_spec(spec)
        loader.exec_module(module)
    except ImportError as error:
        raise KernelError(f"{path} cannot be loaded ({error}): delete it and run poetd compile") from error
    sys.modules[name] = module
    return module


def build(module_name: str, source: bytes, exports: Mapping[str, tuple[str, Any]], origin: ModuleType) -> Path:
    """Compile functions into an extension module in the cache folder and return its path.

    Args:
        exports: exported name → (numba signature, plain function whose globals hold jitted helpers).
        origin: the module the functions come from (numba wants to know).

    Raises:
        CompilerMissingError: no working C compiler or no writable cache folder, with the remedy.
        numba.core.errors.NumbaError: a function cannot be compiled.
    """
    folder = cache.write_folder()
    if folder is None:
        places = ", ".join(str(place) for place in cache.search_folders())
        raise CompilerMissingError(f"no cache folder can be written ({places}): set POETD_CACHE to one that can")
    if not numba_installed():
        raise CompilerMissingError("numba is not installed: pip install numba")
    name = extension_name(module_name, source)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # numba.pycc announces its future replacement at import
        from numba.pycc import CC
        from numba.pycc.platform import external_compiler_works

        if not external_compiler_works():
            raise CompilerMissingError("no working C compiler: apt-get install gcc libc6-dev (or stay with JIT)")
        extension = CC(name, source_module=origin)
        extension.target_cpu = "host"
        for exported, (signature, function) in exports.items():
            extension.export(exported, signature)(function)
        with tempfile.TemporaryDirectory(prefix=".build-", dir=folder) as work:
            extension.output_dir = work
            extension.output_file = name + _SUFFIX
            extension.compile()
            built = Path(work) / (name + _SUFFIX)
            built.chmod(0o644)
            target = folder / built.name
            built.replace(target)
    cache.require_trusted(target)
    return target


def numba_installed() -> bool:
    """Whether numba can be imported; does not import it."""
    return importlib.util.find_spec("numba") is not None


def executable_memory_allowed() -> bool:
    """Whether memory may be writable and executable at once, as a JIT compiler needs it."""
    try:
        probe = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    except OSError:
        return False
    probe.close()
    return True
