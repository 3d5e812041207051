"""The durable store of trips and switch times, and the bounded log of trips.

A damaged file is moved aside, never deleted, and a new one begun whose content is not trusted: everything counts as
tripped and just switched. ``damage`` says what happened, so that it can be reported. Standard library only.
"""

from __future__ import annotations

import math
import sqlite3
import threading
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self, final

from safety.durable import open_store
from safety.errors import DamagedStoreError, StoreError
from safety.remembered import Remembered, SwitchRecord, TripRecord

APPLICATION_ID: Final = 0x504F454C  # "POEL"
VERSION: Final = 1
LOG_ROWS: Final = 10_000
"""Trips kept in the log; the oldest go first."""
_TEXT: Final = 500

_SCHEMA: Final = (
    "CREATE TABLE trip (interlock TEXT PRIMARY KEY, tripped_utc REAL NOT NULL, cause TEXT NOT NULL) STRICT",
    "CREATE TABLE switch (output TEXT PRIMARY KEY, is_on INTEGER NOT NULL, switched_utc REAL NOT NULL) STRICT",
    "CREATE TABLE log (id INTEGER PRIMARY KEY AUTOINCREMENT, utc REAL NOT NULL,"
    " interlock TEXT NOT NULL, event TEXT NOT NULL, cause TEXT NOT NULL) STRICT",
    "CREATE TABLE distrust (reason TEXT NOT NULL) STRICT",
)


@final
@dataclass(frozen=True, slots=True)
class LogRow:
    """One line of the trip log. ``event`` is a word such as ``trip``, ``clear`` or ``reset``; ``utc`` in seconds."""

    utc: float
    interlock: str
    event: str
    cause: str


@final
class Latches:
    """The store. Safe to call from several threads; every write is on the disk when the call returns."""

    def __init__(self, path: Path, utc: float) -> None:
        """Open or create; ``utc`` names a damaged file that has to be moved aside.

        Raises:
            StoreError: the file cannot be opened, or is of a newer version.
        """
        self.damage = ""
        """What was wrong with the file that was found; empty if nothing was."""
        self._lock = threading.Lock()
        try:
            self._connection = open_store(path, APPLICATION_ID, VERSION, _SCHEMA)
            self._stored = self._read()
        except DamagedStoreError as error:
            aside = _move_aside(path, utc)
            self.damage = (
                f"{error}; moved to {aside.name}; every interlock counts as tripped and every output as just switched"
            )
            self._connection = open_store(path, APPLICATION_ID, VERSION, _SCHEMA)
            with self._connection:
                self._connection.execute("INSERT INTO distrust VALUES (?)", (self.damage,))
            self._stored = self._read()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._connection.close()

    def load(self) -> Remembered:
        """What the file holds. Stays untrusted, across restarts too, until the first :meth:`save` has replaced what was
        lost.
        """
        return self._stored

    def save(self, remembered: Remembered) -> bool:
        """Store what changed, in one commit. Returns False if nothing did, and then touches no disk.

        Raises:
            StoreError: the disk refuses. The caller must treat the latches as not durable.
        """
        with self._lock:
            before = self._stored
            if remembered == before:
                return False
            old_trips, old_switches = set(before.trips), set(before.switches)
            gone = {one.interlock for one in before.trips} - {one.interlock for one in remembered.trips}
            try:
                with self._connection as db:
                    db.executemany("DELETE FROM trip WHERE interlock = ?", [(name,) for name in gone])
                    db.executemany(
                        "INSERT OR REPLACE INTO trip VALUES (?, ?, ?)",
                        [
                            (one.interlock, one.tripped_utc, one.cause[:_TEXT])
                            for one in remembered.trips
                            if one not in old_trips
                        ],
                    )
                    db.executemany(
                        "INSERT OR REPLACE INTO switch VALUES (?, ?, ?)",
                        [
                            (one.output, int(one.on), one.switched_utc)
                            for one in remembered.switches
                            if one not in old_switches
                        ],
                    )
                    db.execute("DELETE FROM distrust")
            except sqlite3.Error as error:
                raise StoreError(f"the latches cannot be stored: {error}; check the disk") from error
            self._stored = remembered
            return True

    def log(self, row: LogRow) -> None:
        """Append to the trip log, dropping the oldest rows over the bound. Raises StoreError."""
        with self._lock:
            try:
                with self._connection as db:
                    db.execute(
                        "INSERT INTO log (utc, interlock, event, cause) VALUES (?, ?, ?, ?)",
                        (row.utc, row.interlock[:_TEXT], row.event[:_TEXT], row.cause[:_TEXT]),
                    )
                    db.execute("DELETE FROM log WHERE id <= (SELECT max(id) FROM log) - ?", (LOG_ROWS,))
            except sqlite3.Error as error:
                raise StoreError(f"the trip log cannot be written: {error}; check the disk") from error

    def history(self, limit: int = 100) -> list[LogRow]:
        """The newest rows of the trip log, newest first. Raises StoreError."""
        with self._lock:
            try:
                rows = self._connection.execute(
                    "SELECT utc, interlock, event, cause FROM log ORDER BY id DESC LIMIT ?", (limit,)
                ).fetchall()
            except sqlite3.Error as error:
                raise StoreError(f"the trip log cannot be read: {error}") from error
        return [LogRow(*row) for row in rows]

    def _read(self) -> Remembered:
        db = self._connection
        try:
            with closing(db.cursor()) as cursor:
                trips = cursor.execute("SELECT interlock, tripped_utc, cause FROM trip ORDER BY interlock").fetchall()
                switches = cursor.execute("SELECT output, is_on, switched_utc FROM switch ORDER BY output").fetchall()
                (distrusted,) = cursor.execute("SELECT count(*) FROM distrust").fetchone()
        except sqlite3.DatabaseError as error:
            db.close()
            raise DamagedStoreError(f"the latches are damaged: {error}") from error
        return Remembered(
            tuple(TripRecord(name, utc, cause) for name, utc, cause in trips),
            tuple(SwitchRecord(name, bool(on), utc) for name, on, utc in switches),
            trusted=distrusted == 0,
        )


def _move_aside(path: Path, utc: float) -> Path:
    stamp = int(utc) if math.isfinite(utc) else 0
    aside = path.with_name(f"{path.name}.damaged-{stamp}")
    for suffix in ("", "-wal", "-shm"):
        part = path.with_name(path.name + suffix)
        if part.exists():
            part.replace(aside.with_name(aside.name + suffix))
    return aside
