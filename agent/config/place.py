"""Where a site or a unit stands in its files: turns a path of keys in the loaded model into a problem at file:line:col.

A unit's points may come from a CSV file and its interlocks from a pack: the model's paths are not those of the text.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol

from agent.config.errors import Problem
from agent.config.source import KeyPath, SourceFile


class Row(Protocol):
    """Where one bulk point stands."""

    def problem(self, path: KeyPath, message: str, remedy: str, *, key: bool = False) -> Problem:
        """A problem at the cell of ``path``, which begins below the point's name."""


@dataclass(frozen=True)
class Place:
    """A document inside a file: ``base`` leads from the top of the file to it."""

    file: SourceFile
    base: KeyPath = ()
    rows: Mapping[str, Row] = field(default_factory=dict)
    """Points that stand in a CSV file, by name."""
    interlocks: tuple[tuple[int, bool], ...] | None = None
    """For each interlock of the model: its position in the text, whether a pack brought it. None: as in the text."""

    def problem(self, path: KeyPath, message: str, remedy: str, *, key: bool = False, offset: int = 0) -> Problem:
        """A problem at the value of ``path``, or at its key; ``offset`` counts characters into a text value."""
        if len(path) >= 2 and path[0] == "points" and path[1] in self.rows:
            return self.rows[str(path[1])].problem(path[2:], message, remedy, key=key)
        if self.interlocks is not None and len(path) >= 2 and path[0] == "interlocks" and isinstance(path[1], int):
            position, packed = self.interlocks[path[1]]
            if packed:
                return self.file.problem((*self.base, "interlocks", position, "use"), message, remedy)
            path = ("interlocks", position, *path[2:])
        return self.file.problem((*self.base, *path), message, remedy, key=key, offset=offset)

    def with_interlocks(self, interlocks: tuple[tuple[int, bool], ...]) -> Place:
        """The same place after the packs were expanded."""
        return replace(self, interlocks=interlocks)
