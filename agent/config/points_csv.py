"""Bulk points from a CSV file, for sites whose point lists live in a spreadsheet.

The first row names the columns; a row below it is a point; blank rows and rows that begin with # are skipped. Columns:

- ``name`` (required), ``device``, ``unit``, and any other key of a point: ``title``, ``stale_after``, ``writable``, ...
- ``low`` and ``high``: the two ends of ``range``
- the address as ``PROTOCOL.KEY``: ``modbus.holding``, ``modbus.type``, ...

An empty cell means "not given". Other cells are read as in YAML: numbers, true, false, text.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from typing import Any

from agent.config.errors import Problem
from agent.config.place import Row
from agent.config.point import PointConfig
from agent.config.source import KeyPath, SourceFile
from agent.config.suggest import suggestion
from agent.config.yaml_tree import scalar
from drivers.registry import installed_plugins

_RANGE: Mapping[str, KeyPath] = {"low": ("range", 0), "high": ("range", 1)}
_TEXT = frozenset(("name", "device", "unit", "title"))
"""Columns whose cells stay text: the unit "1" is not the number 1."""


class CsvRow:
    """One point's line, and where its cells are."""

    def __init__(self, source: SourceFile, line: int, columns: list[KeyPath | None]) -> None:
        self._source = source
        self._line = line
        self._columns = columns

    def problem(self, path: KeyPath, message: str, remedy: str, *, key: bool = False) -> Problem:
        """At the cell of ``path``, else at the first cell that belongs to it, else at the start of the line."""
        del key  # a row has no keys: the place is the cell
        text = self._source.line(self._line)
        starts = _cell_starts(text)
        for length in range(len(path), 0, -1):
            for place, column in enumerate(self._columns):
                if column is not None and column[:length] == path[:length] and place < len(starts):
                    return self._source.at(self._line, starts[place], message, remedy)
        return self._source.at(self._line, 0, message, remedy)


class CsvPoints:
    """The points of one file as documents, like those of the YAML, with what is wrong with the file itself."""

    def __init__(self, source: SourceFile) -> None:
        self.documents: dict[str, dict[str, Any]] = {}
        self.rows: dict[str, Row] = {}
        self.problems: list[Problem] = []
        self._source = source
        self._read()

    def _read(self) -> None:
        columns: list[KeyPath | None] | None = None
        for number, text in enumerate(self._source.lines):
            if not text.strip() or text.startswith("#"):
                continue
            try:
                cells = next(csv.reader((text,), strict=True))
            except csv.Error as error:
                self._fault(
                    number, 0, f"not valid CSV: {error}", 'double the quotes inside quoted text: "a ""quoted"" word"'
                )
                continue
            if columns is None:
                columns = self._header(number, text, [cell.strip() for cell in cells])
                if ("name",) not in columns:
                    return
            else:
                self._row(number, text, cells, columns)
        if columns is None:
            self._fault(
                0, 0, "the file is empty", "begin with a line of column names: name,device,unit,low,high,modbus.input"
            )

    def _header(self, number: int, text: str, cells: list[str]) -> list[KeyPath | None]:
        known = _known_columns()
        columns: list[KeyPath | None] = []
        for place, cell in enumerate(cells):
            path = known.get(cell)
            start = _cell_starts(text)[place]
            if path is None:
                remedy = (
                    "separate the columns by commas"
                    if ";" in cell
                    else suggestion(cell, sorted(known), "column", "columns")
                )
                self._fault(number, start, f"unknown column {cell!r}", remedy)
            elif path in columns:
                self._fault(number, start, f"the column {cell!r} is given twice", "keep one of them")
                path = None
            columns.append(path)
        if ("name",) not in columns and not self.problems:
            self._fault(
                number,
                0,
                "there is no column called name",
                "begin with a line of column names: name,device,unit,low,high,modbus.input",
            )
        return columns

    def _row(self, number: int, text: str, cells: list[str], columns: list[KeyPath | None]) -> None:
        if len(cells) > len(columns):
            start = _cell_starts(text)[len(columns)]
            self._fault(
                number,
                start,
                f"{len(cells)} cells, but only {len(columns)} columns",
                "put text that contains a comma in quotes",
            )
            return
        name, document = _document(cells, columns)
        row = CsvRow(self._source, number, columns)
        if not name:
            self.problems.append(row.problem(("name",), "the point has no name", "give it a name of a-z, 0-9 and _"))
        elif name in self.documents:
            self.problems.append(
                row.problem(("name",), f"the point {name!r} is given twice in this file", "keep one of them")
            )
        else:
            self.documents[name] = document
            self.rows[name] = row

    def _fault(self, line: int, column: int, message: str, remedy: str) -> None:
        self.problems.append(self._source.at(line, column, message, remedy))


def _document(cells: list[str], columns: list[KeyPath | None]) -> tuple[str, dict[str, Any]]:
    """A point's name, and the rest of the row in the shape it would have in YAML."""
    document: dict[str, Any] = {}
    ends: list[Any] = [None, None]
    for cell, path in zip(cells, columns, strict=False):
        text = cell.strip()
        if not text or path is None:
            continue
        value = text if path[0] in _TEXT else scalar(text)
        if path[0] == "range":
            ends[int(path[1])] = value
        elif len(path) == 1:
            document[str(path[0])] = value
        else:
            document.setdefault(str(path[0]), {})[path[1]] = value
    if ends != [None, None]:
        document["range"] = ends
    return str(document.pop("name", "")), document


def _known_columns() -> dict[str, KeyPath]:
    plugins = installed_plugins()
    own = {name: (name,) for name in ("name", *PointConfig.model_fields) if name not in plugins and name != "range"}
    addresses = {
        f"{name}.{key}": (name, key) for name, plugin in plugins.items() for key in plugin.address.model_fields
    }
    return {**own, **_RANGE, **addresses}


def _cell_starts(text: str) -> list[int]:
    """Where each cell begins in a line; commas inside quotes do not count."""
    starts, quoted = [0], False
    for index, char in enumerate(text):
        if char == '"':
            quoted = not quoted
        elif char == "," and not quoted:
            starts.append(index + 1)
    return starts
