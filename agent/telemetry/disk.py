"""The queue on disk: one SQLite file in WAL mode, bounded by rows and bytes, that outlives the process.

Durability: a committed row survives ``kill -9`` (the kernel has it); a power cut can take the last seconds
    (``synchronous=NORMAL`` syncs at checkpoints), which is the price of not wearing out flash for telemetry. Neither
    can damage the file (SQLite, "Write-Ahead Logging" §2.2).
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from agent.telemetry.errors import BufferCorruptError
from agent.telemetry.rows import ROW_OVERHEAD, Message, Row

SCHEMA_VERSION: Final = 1
BUSY_S: Final = 1.0
"""How long to wait for another process that holds the file: an agent that is just ending."""
PAGE_BYTES: Final = 8192
"""Snapshots of 50 points are 3 kB: one to a page of the usual 4096 bytes wastes a quarter of it and costs twice the time."""
SPARE_PAGES: Final = 256
"""Empty pages kept in the file for the next outage; more are given back to the file system once the buffer is empty."""
_CORRUPT: Final = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)

_SCHEMA: Final = """
BEGIN IMMEDIATE;
CREATE TABLE message (id INTEGER PRIMARY KEY, topic TEXT NOT NULL, payload BLOB NOT NULL, retain INTEGER NOT NULL);
CREATE TABLE counter (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
INSERT INTO counter VALUES ('dropped', 0);
PRAGMA user_version = 1;
COMMIT;
"""
_COST: Final = f"LENGTH(topic) + LENGTH(payload) + {ROW_OVERHEAD}"


def is_corrupt(error: sqlite3.Error) -> bool:
    """Whether the file itself is damaged, so that trying again cannot help."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in _CORRUPT


class DiskQueue:
    """First in, first out. Not thread-safe; the file is locked for this process alone.

    Every method may raise ``sqlite3.Error`` (disk full, device error); the queue then is as before the call.
    """

    def __init__(self, path: Path, max_rows: int, max_bytes: int) -> None:
        """Open the file, or create it.

        Raises:
            BufferCorruptError: the file is damaged, not SQLite, or of another version: move it aside.
            sqlite3.Error: it cannot be opened: folder not writable, disk full, locked by another process.
        """
        self._max_rows = max_rows
        self._max_bytes = max_bytes
        self._taken = 0
        self._db = sqlite3.connect(path, timeout=BUSY_S, isolation_level=None, check_same_thread=False)
        try:
            self._open()
        except sqlite3.Error as error:
            self._db.close()
            if is_corrupt(error):
                raise BufferCorruptError(str(error)) from error
            raise
        except BufferCorruptError:
            self._db.close()
            raise

    def _open(self) -> None:
        db = self._db
        db.execute("PRAGMA locking_mode = EXCLUSIVE")
        is_new = db.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()[0] == 0
        version = db.execute("PRAGMA user_version").fetchone()[0]
        if version != (0 if is_new else SCHEMA_VERSION):
            raise BufferCorruptError(f"it has version {version}, this agent writes version {SCHEMA_VERSION}")
        if is_new:
            db.execute(f"PRAGMA page_size = {PAGE_BYTES}")
            db.execute("PRAGMA auto_vacuum = INCREMENTAL")
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = NORMAL")
        db.execute("PRAGMA secure_delete = OFF")  # some builds overwrite what is deleted: twice the writes
        db.execute("PRAGMA journal_size_limit = 4194304")
        if is_new:
            db.executescript(_SCHEMA)
        verdict = db.execute("PRAGMA quick_check(1)").fetchone()[0]
        if verdict != "ok":
            raise BufferCorruptError(verdict)
        self.rows: int
        self.bytes: int
        self._last_id: int
        self.rows, self.bytes, self._last_id = db.execute(
            f"SELECT COUNT(*), COALESCE(SUM({_COST}), 0), COALESCE(MAX(id), 0) FROM message"  # noqa: S608  (a constant)
        ).fetchone()
        self.dropped: int = db.execute("SELECT value FROM counter WHERE name = 'dropped'").fetchone()[0]

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise

    def append(self, messages: Sequence[Message], already_dropped: int = 0) -> None:
        """Keep the messages in one transaction; drop the oldest rows beyond the limits and count them durably.

        ``already_dropped`` is added to the count: what was lost before the messages got here.
        """
        first_id = self._last_id + 1
        with self._transaction():
            self._db.executemany(
                "INSERT INTO message VALUES (?, ?, ?, ?)",
                [(row_id, *message) for row_id, message in enumerate(messages, first_id)],
            )
            rows = self.rows + len(messages)
            size = self.bytes + sum(message.cost for message in messages)
            dropped_rows, dropped_bytes = self._drop_oldest(rows, size)
            dropped = self.dropped + dropped_rows + already_dropped
            if dropped != self.dropped:
                self._db.execute("UPDATE counter SET value = ? WHERE name = 'dropped'", (dropped,))
        self._last_id += len(messages)
        self.rows, self.bytes, self.dropped = rows - dropped_rows, size - dropped_bytes, dropped

    def _drop_oldest(self, rows: int, size: int) -> tuple[int, int]:
        """Delete what is beyond the limits, always keeping the newest; returns (rows, bytes) dropped."""
        dropped_rows = dropped_bytes = last = 0
        if rows <= self._max_rows and size <= self._max_bytes:
            return 0, 0
        for row_id, cost in self._db.execute(f"SELECT id, {_COST} FROM message ORDER BY id"):  # noqa: S608
            within = rows - dropped_rows <= self._max_rows and size - dropped_bytes <= self._max_bytes
            if within or rows - dropped_rows == 1:
                break
            dropped_rows += 1
            dropped_bytes += cost
            last = row_id
        self._db.execute("DELETE FROM message WHERE id <= ?", (last,))
        return dropped_rows, dropped_bytes

    def take(self, limit: int) -> list[Row]:
        """The next rows that were not taken yet, oldest first; they stay until :meth:`remove`."""
        rows = [
            Row(row_id, topic, payload, bool(retain))
            for row_id, topic, payload, retain in self._db.execute(
                "SELECT id, topic, payload, retain FROM message WHERE id > ? ORDER BY id LIMIT ?", (self._taken, limit)
            )
        ]
        if rows:
            self._taken = rows[-1].id
        return rows

    def rewind(self) -> None:
        """Every row still here can be taken again."""
        self._taken = 0

    def remove(self, ids: Sequence[int]) -> None:
        """Delete rows the broker has, in one transaction; ids no longer here are ignored."""
        rows = size = 0
        with self._transaction():
            for first, last in _runs(sorted(ids)):
                where = f"FROM message WHERE id BETWEEN {first:d} AND {last:d}"
                count, cost = self._db.execute(f"SELECT COUNT(*), COALESCE(SUM({_COST}), 0) {where}").fetchone()
                self._db.execute(f"DELETE {where}")
                rows += count
                size += cost
        self.rows -= rows
        self.bytes -= size
        if self.rows == 0 and self._db.execute("PRAGMA freelist_count").fetchone()[0] > SPARE_PAGES:
            self._db.executescript("PRAGMA incremental_vacuum")  # execute() would stop after one page

    def close(self) -> None:
        """Checkpoint and close."""
        self._db.close()


def _runs(ids: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Ascending ids as (first, last) of unbroken runs: acknowledgements come nearly in order, so that there are few."""
    first = previous = None
    for row_id in ids:
        if first is None or previous is None:
            first = row_id
        elif row_id != previous + 1:
            yield first, previous
            first = row_id
        previous = row_id
    if first is not None and previous is not None:
        yield first, previous
