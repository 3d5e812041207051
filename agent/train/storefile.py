"""The learning store's file: schema, the single writer's lock, the check at opening, and damage set aside."""

from __future__ import annotations

import fcntl
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from agent.train.errors import StoreBusyError, StoreCorruptError, StoreError

SCHEMA_VERSION: Final = 1

KEPT_DAMAGED: Final = 3
"""Damaged files kept for a look at them; older ones are overwritten."""

BUSY_TIMEOUT_S: Final = 5.0
"""How long SQLite waits for a reader's checkpoint lock before it gives up."""

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS parameter (
    unit TEXT NOT NULL, name TEXT NOT NULL, version INTEGER NOT NULL,
    value REAL NOT NULL, factory REAL NOT NULL, source TEXT NOT NULL, reason TEXT NOT NULL,
    utc REAL NOT NULL, standard_error REAL, state TEXT NOT NULL,
    PRIMARY KEY (unit, name, version)) WITHOUT ROWID;
CREATE UNIQUE INDEX IF NOT EXISTS one_active ON parameter (unit, name) WHERE state = 'active';
CREATE TABLE IF NOT EXISTS feedback (
    id INTEGER PRIMARY KEY AUTOINCREMENT, unit TEXT NOT NULL, utc REAL NOT NULL,
    in_force REAL, mean REAL, target REAL, good INTEGER NOT NULL, counted INTEGER NOT NULL, outcome TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS feedback_of_unit ON feedback (unit, id);
CREATE TABLE IF NOT EXISTS learner (
    unit TEXT NOT NULL, name TEXT NOT NULL, state TEXT NOT NULL, PRIMARY KEY (unit, name)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS counter (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
"""


@contextmanager
def translated(path: Path) -> Iterator[None]:
    """Turn SQLite's errors into this package's, damage kept apart from a full disk or a missing right."""
    try:
        yield
    except sqlite3.OperationalError as error:
        raise StoreError(f"{path}: {error}; check the folder's rights and free space") from error
    except sqlite3.DatabaseError as error:
        raise StoreCorruptError(f"{path}: damaged ({error})") from error


def open_for_reading(path: Path) -> sqlite3.Connection:
    """Open an existing store without the right to write."""
    with translated(path), _closing_on_error(f"{path.absolute().as_uri()}?mode=ro") as db:
        if _written_by(db, path) == 0:
            raise StoreCorruptError(f"{path}: not a learning store")
        return db


def open_for_writing(path: Path) -> sqlite3.Connection:
    """Open or create a store; the caller holds the writer's lock."""
    with translated(path), _closing_on_error(path.absolute().as_uri()) as db:
        _written_by(db, path)
        db.execute("PRAGMA journal_mode=WAL")
        db.executescript(f"BEGIN IMMEDIATE; {_SCHEMA} PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;")
        return db


def take_writer_lock(path: Path) -> int:
    """Return the descriptor that holds the store's lock; closing it, or the death of the process, frees the lock."""
    name = f"{path}.lock"
    try:
        lock = os.open(name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
    except OSError as error:
        raise StoreError(f"{name}: {error.strerror}; the folder must exist and be writable") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(lock)
        raise StoreBusyError(f"{path}: another process writes to this store; stop the agent first") from error
    return lock


def move_aside(path: Path) -> Path:
    """Rename a damaged store and drop its journal; return the new name."""
    for number in range(KEPT_DAMAGED, 0, -1):
        source = path if number == 1 else Path(f"{path}.damaged-{number - 1}")
        with suppress(FileNotFoundError):
            source.replace(f"{path}.damaged-{number}")
    for suffix in ("-wal", "-shm"):
        Path(f"{path}{suffix}").unlink(missing_ok=True)
    return Path(f"{path}.damaged-1")


@contextmanager
def _closing_on_error(uri: str) -> Iterator[sqlite3.Connection]:
    db = sqlite3.connect(uri, uri=True, isolation_level=None, timeout=BUSY_TIMEOUT_S)
    try:
        yield db
    except BaseException:
        db.close()
        raise


def _written_by(db: sqlite3.Connection, path: Path) -> int:
    """Check the file and return the version of its schema, 0 for a new file."""
    (result,) = db.execute("PRAGMA quick_check(1)").fetchone()
    if result != "ok":
        raise StoreCorruptError(f"{path}: damaged ({result})")
    version: int = db.execute("PRAGMA user_version").fetchone()[0]
    if version > SCHEMA_VERSION:
        raise StoreError(f"{path}: written by a newer poetd (schema {version}); upgrade, or move the file away")
    return version
