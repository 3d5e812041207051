"""Independent peers from npm: installed once into the conformance folder when root, else skipped out loud."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from functools import cache
from pathlib import Path

import pytest
from peers import _WORK, INSTALL_TIMEOUT_S, _locked


@cache
def node_modules(*packages: str) -> Path:
    """A ``node_modules`` folder with these packages (``name@version``), or skip the test and say what is missing."""
    for program in ("node", "npm"):
        if shutil.which(program) is None:
            pytest.skip(f"conformance peer missing: {program} is not installed; apt-get install nodejs npm")
    folder = _WORK / f"npm-{hashlib.sha256(' '.join(packages).encode()).hexdigest()[:16]}"
    done = folder / "installed"
    with _locked(folder.name):
        if not done.exists():
            if os.geteuid() != 0:
                pytest.skip(f"conformance peer missing: not root; install by hand: npm install {' '.join(packages)}")
            why = _install(folder, packages)
            if why:
                pytest.skip(f"conformance peer missing: npm install {' '.join(packages)}: {why}")
            done.touch()
    return folder / "node_modules"


def _install(folder: Path, packages: tuple[str, ...]) -> str:
    """Run npm without the packages' own scripts; "" on success, else the reason."""
    folder.mkdir(mode=0o700, exist_ok=True)
    (folder / "package.json").write_text('{"private": true}\n')
    try:
        ran = subprocess.run(
            ["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", *packages],
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=INSTALL_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    lines = ran.stderr.strip().splitlines()
    return "" if ran.returncode == 0 else (lines[-1] if lines else f"npm ended with {ran.returncode}")
