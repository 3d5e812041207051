"""What the safety layer may import: nothing of ours, and no numpy where small processes need it."""

from __future__ import annotations

import subprocess
import sys

import pytest

SMALL = [
    "gate",
    "journal",
    "latches",
    "units",
    "values",
    "expressions",
    "envelope",
    "remembered",
    "kernels",
    "errors",
    "durable",
    "second.channel",
]
ALL = [*SMALL, "envelope_table", "interlocks", "enforcer"]


def loaded_by(module: str) -> set[str]:
    code = f"import sys, safety.{module}; print(*{{name.split('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@pytest.mark.parametrize("module", SMALL)
def test_small_modules_need_no_numpy(module: str) -> None:
    assert not loaded_by(module) & {"numpy", "numba", "pydantic", "agent", "drivers", "models"}


def test_nothing_of_ours_and_no_numba() -> None:
    loaded = loaded_by("enforcer")
    assert "numpy" in loaded
    assert not loaded & {"agent", "drivers", "models", "numba"}
