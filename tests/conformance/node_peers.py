"""Packages of npm as independent peers: installed into a folder of the tests when root, else skipped out loud."""

from __future__ import annotations

import os
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Final

import peers
import pytest

INSTALL_TIMEOUT_S: Final = 300.0


@cache
def _folder(package: str, version: str) -> Path | str:
    """Where the package is installed, or why it is not."""
    npm = shutil.which("npm")
    if shutil.which("node") is None or npm is None:
        return "node and npm are not installed"
    with peers._locked("npm"):
        folder = peers._WORK / f"npm-{package}-{version}"
        if (folder / "node_modules" / package / "package.json").exists():
            return folder
        if os.geteuid() != 0:
            return f"not root; install it with: npm install --prefix {folder} {package}@{version}"
        command = [npm, "install", "--no-audit", "--no-fund", "--prefix", str(folder), f"{package}@{version}"]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=INSTALL_TIMEOUT_S, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            return str(error)
        return folder if done.returncode == 0 else (done.stderr.strip().splitlines() or ["npm failed"])[-1]


def require_npm(package: str, version: str) -> Path:
    """The folder with this package under ``node_modules``, or skip the test and say what is missing and why."""
    found = _folder(package, version)
    if isinstance(found, str):
        pytest.skip(f"conformance peer missing: npm package {package}: {found}")
    return found
