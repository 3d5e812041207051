"""Real gates for driver tests: a driver writes nothing but a Command, and only the gate makes one."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from safety.envelope import Envelope
from safety.gate import Gate, Route
from safety.journal import Journal

WIDE = 1e300


def wide_gate(journal: Journal, points: Iterable[str]) -> Gate:
    """A gate that admits any finite value, and relinquishing, for the given points."""
    names = list(points)
    return Gate(
        {name: Envelope(name, -WIDE / 4, WIDE / 4, fail_safe=None) for name in names},
        {name: Route("device", "modbus", "{}", "{}") for name in names},
        journal,
    )


def open_journal(folder: Path) -> Journal:
    """A journal of its own for one test."""
    return Journal(folder / "journal.sqlite")
