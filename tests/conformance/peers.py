"""Independent peers for the conformance tests: installs Debian packages when root, else skips out loud and says what is missing.

Everything here is safe to call from several test processes at once: installing and compiling hold a lock.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Final

import pytest

INSTALL_TIMEOUT_S: Final = 300.0
LOCK_TIMEOUT_S: Final = 600.0
_WORK: Final = Path(tempfile.gettempdir()) / f"poetd-conformance-{os.getuid()}"


@contextmanager
def _locked(name: str) -> Iterator[None]:
    _WORK.mkdir(mode=0o700, exist_ok=True)
    with (_WORK / f"{name}.lock").open("w") as lock:
        deadline = time.monotonic() + LOCK_TIMEOUT_S
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    pytest.skip(f"another process holds {lock.name} for more than {LOCK_TIMEOUT_S:g} s")
                time.sleep(0.2)
        yield


def _installed(package: str) -> bool:
    done = subprocess.run(
        ["dpkg-query", "--show", "--showformat=${db:Status-Abbrev}", package],
        capture_output=True,
        text=True,
        timeout=30.0,
        check=False,
    )
    return done.returncode == 0 and done.stdout.startswith("ii")


def _apt(*arguments: str) -> str:
    """Run apt-get; returns "" on success, else the reason."""
    try:
        done = subprocess.run(
            ["apt-get", "-o", "DPkg::Lock::Timeout=120", *arguments],
            capture_output=True,
            text=True,
            timeout=INSTALL_TIMEOUT_S,
            check=False,
            env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    lines = done.stderr.strip().splitlines()
    return "" if done.returncode == 0 else (lines[-1] if lines else f"apt-get ended with {done.returncode}")


@cache
def _missing(package: str) -> str:
    """Make sure a package is there; "" or why it is not. Asked once per process and package."""
    if shutil.which("dpkg-query") is None or shutil.which("apt-get") is None:
        return "this is not a Debian system"
    with _locked("apt"):
        if _installed(package):
            return ""
        if os.geteuid() != 0:
            return f"not root; install it with: sudo apt-get install {package}"
        why = _apt("install", "-y", "--no-install-recommends", package)
        if why:
            why = _apt("update") or _apt("install", "-y", "--no-install-recommends", package)
        return why


def require_debian(*packages: str) -> None:
    """Have these Debian packages, or skip the test and say which one is missing and why."""
    for package in packages:
        why = _missing(package)
        if why:
            pytest.skip(f"conformance peer missing: Debian package {package}: {why}")


def compile_c(source: Path, *libraries: str, include: tuple[str, ...] = ()) -> Path:
    """Compile one C file with all warnings as errors; the program is kept until the source changes."""
    require_debian("gcc", "libc6-dev")
    digest = hashlib.sha256(source.read_bytes()).hexdigest()[:16]
    program = _WORK / f"{source.stem}-{digest}"
    with _locked(source.stem):
        if not program.exists():
            scratch = program.with_suffix(".new")
            includes = [f"-I{folder}" for folder in include]
            links = [f"-l{library}" for library in libraries]
            subprocess.run(
                [
                    "gcc",
                    "-std=gnu11",
                    "-O2",
                    "-Wall",
                    "-Wextra",
                    "-Werror",
                    *includes,
                    str(source),
                    "-o",
                    str(scratch),
                    *links,
                ],
                check=True,
                timeout=120.0,
            )
            scratch.replace(program)
    return program
