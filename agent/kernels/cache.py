"""Where compiled kernels live, and whether what lies there may be loaded.

Folders, in this order: ``$POETD_CACHE`` alone if it is set; else ``/var/cache/poetd``, then ``~/.cache/poetd``. A build
is read from the first folder that has it and written to the first that can be written. A compiled module runs with the
rights of the daemon, so nothing is loaded from a place where another user could have put it.
"""

from __future__ import annotations

import hashlib
import os
import platform
import stat
import sys
from functools import cache
from importlib import metadata
from pathlib import Path

from agent.kernels.errors import CacheUntrustedError

SYSTEM_FOLDER = Path("/var/cache/poetd")


def search_folders() -> tuple[Path, ...]:
    """The folders a build is looked for in, best first."""
    named = os.environ.get("POETD_CACHE")
    if named:
        return (Path(named).absolute(),)
    return (SYSTEM_FOLDER, Path.home() / ".cache" / "poetd")


def write_folder() -> Path | None:
    """The folder builds are written to, made if need be; None if none can be written.

    Raises:
        CacheUntrustedError: the folder can be written, but also by others.
    """
    for folder in search_folders():
        try:
            folder.mkdir(mode=0o755, parents=True, exist_ok=True)
        except OSError:
            continue
        if os.access(folder, os.W_OK | os.X_OK):
            require_trusted(folder)
            return folder
    return None


def find(file_name: str) -> Path | None:
    """The trusted build of that name, or None if no folder has it.

    Raises:
        CacheUntrustedError: there is one, but somebody else could have written it.
    """
    for folder in search_folders():
        path = folder / file_name
        if path.is_file():
            require_trusted(path)
            return path
    return None


def require_trusted(path: Path) -> None:
    """Refuse a file or folder that anyone but root and this user could have written or replaced.

    Neither the path nor the folder it lies in may be writable by group or others; a folder further above may be so only
    if it is sticky, like ``/tmp``.

    Raises:
        CacheUntrustedError: with the folder at fault and the command that mends it.
    """
    real = path.resolve(strict=True)
    folder = real if real.is_dir() else real.parent
    for place in (real, *real.parents):
        status = place.stat()
        if status.st_uid not in (0, os.geteuid()):
            raise CacheUntrustedError(
                f"{place} belongs to user {status.st_uid}: kernels are only loaded from folders of root or of this user"
            )
        sticky_above = place in folder.parents and bool(status.st_mode & stat.S_ISVTX)
        if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not sticky_above:
            raise CacheUntrustedError(
                f"{place} can be written by others, kernels are not loaded from there: chmod go-w {place}"
            )


@cache
def toolchain() -> str:
    """What a build depends on besides its source: interpreter, numba, llvmlite, numpy, CPU. Never imports numba."""
    parts = [sys.implementation.cache_tag or sys.version, platform.machine(), _cpu()]
    for package in ("numba", "llvmlite", "numpy"):
        try:
            parts.append(f"{package}-{metadata.version(package)}")
        except metadata.PackageNotFoundError:
            parts.append(f"{package}-none")
    return "|".join(parts)


def key(source: bytes) -> str:
    """16 hex digits that change with the source or with anything in :func:`toolchain`."""
    return hashlib.sha256(toolchain().encode() + b"\0" + source).hexdigest()[:16]


def _cpu() -> str:
    """The CPU's model and features: code built for one CPU may be illegal on another."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").split("\n\n", 1)[0].splitlines()
    except OSError:
        return platform.processor()
    wanted = ("model name", "flags", "Features", "CPU part")
    return ";".join(line for line in lines if line.startswith(wanted))
