"""The learning store: parameters with all their versions, the feedback windows behind them, the learners' state.

One writer at a time, any number of readers (SQLite, WAL). A version is on disk before anyone hears of it
(``synchronous=FULL``); feedback may lose its last moments with the power (``NORMAL``), never its consistency.
Feedback rows and versions beyond their limit are dropped, oldest first, and counted. A damaged file is moved aside by
the writer and reported in :attr:`LearningStore.recovered`; factory values are then in force.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final, NamedTuple, Self

from agent.train.errors import StoreCorruptError, StoreError
from agent.train.messages import ParameterState
from agent.train.storefile import move_aside, open_for_reading, open_for_writing, take_writer_lock, translated

MAX_FEEDBACK_ROWS: Final = 100_000
"""A year of hourly windows of eleven units, about 10 MB."""

MAX_VERSIONS: Final = 500
"""Per parameter; the active one is never dropped."""

_FROM_SITE: Final = ("factory", "the site's files")
_FROM_CORE: Final = ("learned", "in force in core, unknown to the store")


class ParameterVersion(NamedTuple):
    """One version of one parameter, in the order of the table's columns.

    ``factory`` is the factory value it started from; ``utc`` is in seconds since the epoch.
    ``source`` is factory, learned or operator; ``state`` is proposed, active, retired or refused.
    """

    unit: str
    name: str
    version: int
    value: float
    factory: float
    source: str
    reason: str
    utc: float
    standard_error: float | None
    state: str

    @property
    def active(self) -> bool:
        """Whether this is the version in force."""
        return self.state == "active"


class FeedbackWindow(NamedTuple):
    """One window: means over its good samples (None without any), how many there were, and what came of it."""

    unit: str
    utc: float
    in_force: float
    mean: float | None
    target: float | None
    good: int
    counted: int
    outcome: str


class LearningStore:
    """The file at ``path``; it is created, or a damaged one moved aside, unless ``read_only``.

    Raises:
        StoreBusyError: another process writes to it.
        StoreCorruptError: read-only, and the file is damaged.
        StoreError: it cannot be opened, or a newer poetd wrote it.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        read_only: bool = False,
        max_feedback_rows: int = MAX_FEEDBACK_ROWS,
        max_versions: int = MAX_VERSIONS,
    ) -> None:
        self.path: Final = Path(path)
        self.recovered: str | None = None
        self._max_feedback = max_feedback_rows
        self._max_versions = max_versions
        self._lock = None if read_only else take_writer_lock(self.path)
        try:
            self._db = open_for_reading(self.path) if read_only else self._open_or_replace()
        except BaseException:
            self._unlock()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file and free the writer's lock; closing twice is harmless."""
        self._db.close()
        self._unlock()

    def active(self, unit: str, name: str) -> ParameterVersion | None:
        """Return the version in force, None if the store has never heard of the parameter."""
        rows = self._select("unit = ? AND name = ? AND state = 'active'", unit, name)
        return rows[0] if rows else None

    def active_all(self) -> dict[tuple[str, str], ParameterVersion]:
        """Return every version in force by (unit, parameter)."""
        return {(row.unit, row.name): row for row in self._select("state = 'active'")}

    def history(self, unit: str, name: str, limit: int = 100) -> list[ParameterVersion]:
        """Return the parameter's versions, newest first."""
        return self._select("unit = ? AND name = ? ORDER BY version DESC LIMIT ?", unit, name, limit)

    def propose(
        self,
        unit: str,
        name: str,
        value: float,
        *,
        factory: float,
        reason: str,
        utc: float,
        standard_error: float | None,
    ) -> ParameterVersion:
        """Write a new version that is not in force yet; it is on disk when this returns."""
        with self._transaction("FULL"):
            number = self._next(unit, name)
            row = ParameterVersion(
                unit, name, number, value, factory, "learned", reason, utc, standard_error, "proposed"
            )
            self._insert(row)
        return row

    def activate(self, unit: str, name: str, version: int) -> ParameterVersion:
        """Put a version in force and retire the one before.

        Raises:
            StoreError: there is no such version.
        """
        with self._transaction("FULL"):
            row = self._row(unit, name, version)
            self._replace_active(row)
        return row._replace(state="active")

    def refuse(self, unit: str, name: str, version: int, why: str) -> None:
        """Mark a proposed version as refused by core, core's reason beside its own.

        Raises:
            StoreError: there is no such version.
        """
        with self._transaction("FULL"):
            row = self._row(unit, name, version)
            self._db.execute(
                "UPDATE parameter SET state = 'refused', reason = ?"
                " WHERE unit = ? AND name = ? AND version = ? AND state = 'proposed'",
                (f"{row.reason}; refused: {why}", unit, name, version),
            )

    def rollback(self, unit: str, name: str, version: int, *, reason: str, utc: float) -> ParameterVersion:
        """Put an earlier value in force again, as a new version of source ``operator``: history is never rewritten.

        Raises:
            StoreError: there is no such version, or it was never in force.
        """
        with self._transaction("FULL"):
            old = self._row(unit, name, version)
            if old.state not in {"active", "retired"}:
                raise StoreError(f"{unit}/{name}: version {version} was only {old.state}; choose one that was in force")
            row = old._replace(
                version=self._next(unit, name),
                source="operator",
                reason=f"back to version {version}: {reason}",
                utc=utc,
                state="proposed",
            )
            self._insert(row)
            self._replace_active(row)
        return row._replace(state="active")

    def adopt(self, unit: str, in_force: Mapping[str, ParameterState], *, utc: float) -> None:
        """Make the store agree with what core has in force for a unit (version 0: the factory value).

        A proposal that core accepted before the worker could note it becomes active; a value the store has lost is
        written anew, under a number that later proposals will exceed.
        """
        changed = {name: state for name, state in in_force.items() if not self._agrees(unit, name, state)}
        if not changed:
            return
        with self._transaction("FULL"):
            for name, state in changed.items():
                known = self._select("unit = ? AND name = ? AND version = ?", unit, name, state.version)
                if known and (known[0].value, known[0].factory) == (state.value, state.factory):
                    self._replace_active(known[0])
                    continue
                number = max(state.version, self._next(unit, name))
                source, reason = _FROM_SITE if state.version == 0 else _FROM_CORE
                row = ParameterVersion(
                    unit, name, number, state.value, state.factory, source, reason, utc, None, "proposed"
                )
                self._insert(row)
                self._replace_active(row)

    def add_window(self, window: FeedbackWindow, name: str, learner: dict[str, Any]) -> None:
        """Keep one window's result and the learner's state after it, in one transaction."""
        with self._transaction("NORMAL"):
            self._db.execute("INSERT INTO feedback VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?)", window)
            state = json.dumps(learner, allow_nan=False)
            self._db.execute("INSERT OR REPLACE INTO learner VALUES (?, ?, ?)", (window.unit, name, state))
            # ids are consecutive, because only the oldest are ever deleted
            newest: int = self._db.execute("SELECT MAX(id) FROM feedback").fetchone()[0]
            cursor = self._db.execute("DELETE FROM feedback WHERE id <= ?", (newest - self._max_feedback,))
            self._count("feedback_dropped", cursor.rowcount)

    def windows(self, unit: str, limit: int = 100) -> list[FeedbackWindow]:
        """Return the unit's feedback windows, newest first."""
        query = "SELECT * FROM feedback WHERE unit = ? ORDER BY id DESC LIMIT ?"
        with translated(self.path):
            return [FeedbackWindow(*row[1:]) for row in self._db.execute(query, (unit, limit)).fetchall()]

    def learner_state(self, unit: str, name: str) -> dict[str, Any]:
        """Return the learner's last state, empty if there is none."""
        query = "SELECT state FROM learner WHERE unit = ? AND name = ?"
        with translated(self.path):
            row = self._db.execute(query, (unit, name)).fetchone()
        state = json.loads(row[0]) if row else {}
        return state if isinstance(state, dict) else {}

    def counters(self) -> dict[str, int]:
        """Return how many rows the limits have dropped: ``feedback_dropped``, ``versions_dropped``."""
        with translated(self.path):
            stored = dict(self._db.execute("SELECT name, value FROM counter").fetchall())
        return {"feedback_dropped": 0, "versions_dropped": 0, **stored}

    def _agrees(self, unit: str, name: str, state: ParameterState) -> bool:
        row = self.active(unit, name)
        return bool(row and (row.value, row.factory) == (state.value, state.factory) and row.version >= state.version)

    def _open_or_replace(self) -> sqlite3.Connection:
        try:
            return open_for_writing(self.path)
        except StoreCorruptError as error:
            self.recovered = f"{error}; moved to {move_aside(self.path)}, factory values are in force"
            return open_for_writing(self.path)

    def _unlock(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    @contextmanager
    def _transaction(self, synchronous: str) -> Iterator[None]:
        with translated(self.path):
            self._db.execute(f"PRAGMA synchronous={synchronous}")
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._db.execute("COMMIT")
            except BaseException:
                with suppress(sqlite3.Error):  # the first error is the one to report
                    self._db.execute("ROLLBACK")
                raise

    def _select(self, where: str, *values: object) -> list[ParameterVersion]:
        with translated(self.path):
            query = "SELECT * FROM parameter WHERE " + where  # noqa: S608  (where is a constant of this module)
            rows = self._db.execute(query, values).fetchall()
        return [ParameterVersion(*row) for row in rows]

    def _row(self, unit: str, name: str, version: int) -> ParameterVersion:
        rows = self._select("unit = ? AND name = ? AND version = ?", unit, name, version)
        if not rows:
            raise StoreError(f"{unit}/{name}: there is no version {version}; see its history")
        return rows[0]

    def _next(self, unit: str, name: str) -> int:
        query = "SELECT COALESCE(MAX(version), 0) + 1 FROM parameter WHERE unit = ? AND name = ?"
        number: int = self._db.execute(query, (unit, name)).fetchone()[0]
        return number

    def _insert(self, row: ParameterVersion) -> None:
        self._db.execute("INSERT INTO parameter VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", row)
        cursor = self._db.execute(
            "DELETE FROM parameter WHERE unit = ? AND name = ? AND state != 'active' AND version <= ("
            "SELECT version FROM parameter WHERE unit = ? AND name = ? ORDER BY version DESC LIMIT 1 OFFSET ?)",
            (*row[:2], *row[:2], self._max_versions),
        )
        self._count("versions_dropped", cursor.rowcount)

    def _replace_active(self, row: ParameterVersion) -> None:
        self._db.execute(
            "UPDATE parameter SET state = 'retired' WHERE unit = ? AND name = ? AND state = 'active'", row[:2]
        )
        self._db.execute("UPDATE parameter SET state = 'active' WHERE unit = ? AND name = ? AND version = ?", row[:3])

    def _count(self, name: str, more: int) -> None:
        if more > 0:
            self._db.execute(
                "INSERT INTO counter VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = value + excluded.value",
                (name, more),
            )
