"""A configuration file as text with places: reads it within bounds, and turns a path of keys into file:line:col.

Places are looked up only when there is something to report: a file without problems never pays for them.
"""

from __future__ import annotations

import re
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from yaml.nodes import Node, ScalarNode

from agent.config.errors import ConfigErrors, Problem
from agent.config.yaml_faults import Examined, examine, find
from agent.config.yaml_tree import OddTextError, parse

MAX_BYTES: Final = 8 * 1024 * 1024
"""Size of one file. 10,000 points take 1.6 MB."""

_BYTE_ORDER_MARK: Final = "\ufeff"
_LINE_END = re.compile("\r\n|[\r\n\x85\u2028\u2029]")
"""What libyaml counts as the end of a line."""

KeyPath = tuple[str | int, ...]
"""Keys and list positions from the top of a document down to a value: ``("points", "zone_temp", "range", 0)``."""


class SourceFile:
    """One text file. ``path`` is shown to people as it was given."""

    def __init__(self, path: Path, text: str) -> None:
        self.path = path
        self.text = text

    @classmethod
    def read(cls, path: Path) -> SourceFile:
        """The file's text. Raises ConfigErrors: missing, not a file, too large, not UTF-8."""
        try:
            with path.open("rb") as stream:
                data = stream.read(MAX_BYTES + 1)
        except FileNotFoundError:
            raise ConfigErrors(
                [Problem(path, 1, 1, "the file does not exist", "check the path, or start with: poetd init")]
            ) from None
        except OSError as error:
            problem = Problem(path, 1, 1, f"cannot read: {error.strerror or error}", "give the path of a readable file")
            raise ConfigErrors([problem]) from None
        if len(data) > MAX_BYTES:
            problem = Problem(
                path, 1, 1, f"larger than {MAX_BYTES // 1024 // 1024} MiB", "split it: one zone or tool per file"
            )
            raise ConfigErrors([problem])
        try:
            return cls(path, data.decode().removeprefix(_BYTE_ORDER_MARK))
        except UnicodeDecodeError as error:
            raise ConfigErrors([_not_utf8(path, data, error)]) from None

    def value(self) -> tuple[Any, list[Problem]]:
        """The document's value as far as it can be built, and what is wrong with the text itself."""
        try:
            return parse(self.text), []
        except OddTextError:
            return self._examined.value, [self.at(*fault) for fault in self._examined.faults]

    def at(self, line: int, column: int, message: str, remedy: str) -> Problem:
        """A problem at a place (counted from 0) in the text."""
        text = self.line(line)
        return Problem(self.path, line + 1, column + 1, message, remedy, text)

    def line(self, number: int) -> str:
        """One line, counted from 0; "" past the end, where an unfinished bracket is reported."""
        return self.lines[number] if number < len(self.lines) else ""

    def problem(self, path: KeyPath, message: str, remedy: str, *, key: bool = False, offset: int = 0) -> Problem:
        """A problem at the value of ``path`` (or its key), or at the nearest thing above it that exists.

        ``offset``: characters into a text value, for errors inside an expression.
        """
        key_node, value_node, found = find(self._examined.root, path)
        node = key_node if key_node is not None and (key or found < len(path)) else value_node
        if node is None:
            return self.at(0, 0, message, remedy)
        line, column = node.start_mark.line, node.start_mark.column
        if found == len(path) and not key:
            column += self._column_inside(node, offset)
        return self.at(line, column, message, remedy)

    def _column_inside(self, node: Node, offset: int) -> int:
        """Columns from the start of a scalar to the character ``offset`` of its value; 0 where they differ."""
        if not offset or not isinstance(node, ScalarNode) or node.start_mark.line != node.end_mark.line:
            return 0
        raw = self.lines[node.start_mark.line][node.start_mark.column : node.end_mark.column]
        return offset + raw.find(node.value) if node.value in raw else 0

    @cached_property
    def lines(self) -> list[str]:
        """The text's lines, counted as libyaml counts them."""
        return _LINE_END.split(self.text)

    @cached_property
    def _examined(self) -> Examined:
        return examine(self.text)


def _not_utf8(path: Path, data: bytes, error: UnicodeDecodeError) -> Problem:
    before = _LINE_END.split(data[: error.start].decode().removeprefix(_BYTE_ORDER_MARK))
    line, column = len(before) - 1, len(before[-1])
    text = _LINE_END.split(data.decode(errors="replace").removeprefix(_BYTE_ORDER_MARK))[line]
    return Problem(
        path, line + 1, column + 1, f"not UTF-8: byte 0x{data[error.start]:02x}", "save the file as UTF-8", text
    )
