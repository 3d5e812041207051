"""The store-and-forward buffer: on disk while the disk works, in a small queue in memory while it does not.

Policy, also in docs/reference/mqtt.md:

- every message is kept, in order, until the broker acknowledged it: history is not thinned out to the latest value
  per topic;
- beyond ``max_rows`` or ``max_bytes`` the oldest messages are dropped, and counted durably;
- a file that is damaged or of another version is moved aside (one such file is kept), and a new one started;
- while the disk cannot be written, messages wait in memory (fewer of them) and move to disk once it works again.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import structlog

from agent.telemetry.disk import DiskQueue, is_corrupt
from agent.telemetry.errors import BufferCorruptError
from agent.telemetry.memory import MEMORY_IDS, MemoryQueue
from agent.telemetry.rows import Message, Row

FILE_NAME: Final = "telemetry.db"
CORRUPT_SUFFIX: Final = ".corrupt"
MEMORY_ROWS: Final = 10_000
MEMORY_BYTES: Final = 8 * 1024 * 1024
"""Limits of the stand-in queue: the core's whole memory is about 50 MB."""
RETRY_S: Final = 30.0
"""How often a disk that could not be written is tried again."""
MOVE_ROWS: Final = 1000
"""Rows moved from memory to disk per transaction."""

_log = structlog.get_logger(part="telemetry.buffer")


@dataclass(frozen=True, slots=True)
class BufferStats:
    """``dropped`` counts since the file was made; ``durable`` is False while messages wait in memory only."""

    rows: int
    bytes: int
    dropped: int
    durable: bool


class Buffer:
    """What the broker has not acknowledged yet. Thread-safe; no method raises for a broken disk."""

    def __init__(
        self, folder: Path, max_rows: int, max_bytes: int, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        """Open or create ``folder/telemetry.db``. ``monotonic`` is wall time: disks do not run on control time."""
        self._path = folder / FILE_NAME
        self._max_rows = max_rows
        self._max_bytes = max_bytes
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._memory = MemoryQueue(min(max_rows, MEMORY_ROWS), min(max_bytes, MEMORY_BYTES))
        self._undeleted: list[int] = []
        self._trouble = ""
        self._retry_at = 0.0
        self._dropped_before = 0
        self._disk: DiskQueue | None = None
        self._reopen()

    def append(self, messages: Sequence[Message], already_dropped: int = 0) -> None:
        """Keep the messages, in order, behind everything that waits already.

        ``already_dropped`` is added to the count: what was lost before the messages got here.
        """
        with self._lock:
            if self._trouble and self._monotonic() >= self._retry_at:
                self._recover()
            if not self._trouble:
                self._to_disk(messages, already_dropped)
            else:
                self._to_memory(messages, already_dropped)

    def take(self, limit: int) -> list[Row]:
        """Up to ``limit`` next rows to send, oldest first. They stay in the buffer until :meth:`remove`."""
        with self._lock:
            rows: list[Row] = []
            if self._disk is not None:
                try:
                    rows = self._disk.take(limit)
                except sqlite3.Error as error:
                    self._lose_disk(error, unreadable=True)
            return rows or self._memory.take(limit)

    def rewind(self) -> None:
        """A new connection: everything not acknowledged is to be sent again, from the oldest row on."""
        with self._lock:
            if self._disk is not None:
                self._disk.rewind()
            self._memory.rewind()

    def remove(self, ids: Sequence[int]) -> None:
        """The broker has these rows. Where the disk refuses, they are deleted later (or sent twice after a restart)."""
        with self._lock:
            self._memory.remove([row_id for row_id in ids if row_id >= MEMORY_IDS])
            self._undeleted.extend(row_id for row_id in ids if row_id < MEMORY_IDS)
            if self._disk is None or not self._undeleted:
                return
            try:
                self._disk.remove(self._undeleted)
                self._undeleted.clear()
            except sqlite3.Error as error:
                self._lose_disk(error, unreadable=is_corrupt(error))

    def stats(self) -> BufferStats:
        """Present sizes and the count of dropped messages."""
        with self._lock:
            disk = self._disk
            return BufferStats(
                rows=self._memory.rows + (disk.rows if disk is not None else 0),
                bytes=self._memory.bytes + (disk.bytes if disk is not None else 0),
                dropped=self._memory.dropped + (disk.dropped if disk is not None else self._dropped_before),
                durable=not self._trouble,
            )

    def close(self) -> None:
        """Move what is in memory to disk if it works by now, and close the file."""
        with self._lock:
            if self._trouble:
                self._recover()
            if self._memory.rows:
                _log.warning(
                    "messages lost at stop: the disk cannot be written", rows=self._memory.rows, error=self._trouble
                )
            if self._disk is not None:
                self._disk.close()
                self._disk = None

    def _to_disk(self, messages: Sequence[Message], already_dropped: int) -> None:
        assert self._disk is not None
        try:
            self._disk.append(messages, already_dropped)
        except sqlite3.Error as error:
            self._lose_disk(error, unreadable=is_corrupt(error))
            self._to_memory(messages, already_dropped)

    def _to_memory(self, messages: Sequence[Message], already_dropped: int) -> None:
        self._memory.append(messages)
        self._memory.dropped += already_dropped

    def _lose_disk(self, error: Exception, *, unreadable: bool) -> None:
        """Note the trouble once. An unreadable file is opened again later; one that is full can still be sent from."""
        if not self._trouble:
            _log.warning(
                "telemetry cannot be kept on disk and waits in memory: free space or make the folder writable",
                file=str(self._path),
                error=str(error),
                rows_in_memory_at_most=min(self._max_rows, MEMORY_ROWS),
            )
        self._trouble = str(error)
        at_once = isinstance(error, sqlite3.Error) and is_corrupt(error)
        self._retry_at = self._monotonic() + (0.0 if at_once else RETRY_S)
        if unreadable and self._disk is not None:
            self._dropped_before = self._disk.dropped
            self._disk.close()
            self._disk = None
            self._undeleted.clear()

    def _reopen(self) -> None:
        try:
            self._path.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
            try:
                self._disk = DiskQueue(self._path, self._max_rows, self._max_bytes)
            except BufferCorruptError as error:
                self._move_aside(error)
                self._disk = DiskQueue(self._path, self._max_rows, self._max_bytes)
        except (OSError, sqlite3.Error, BufferCorruptError) as error:
            self._lose_disk(error, unreadable=False)

    def _move_aside(self, error: BufferCorruptError) -> None:
        """Keep the damaged file for a look (one, so that the disk does not fill)."""
        aside = self._path.with_name(self._path.name + CORRUPT_SUFFIX)
        for ending in ("", "-wal", "-shm"):
            source = self._path.with_name(self._path.name + ending)
            if source.exists():
                source.replace(aside.with_name(aside.name + ending))
        _log.warning(
            "the telemetry buffer was damaged: it is moved aside and a new one started; what it held is not sent",
            file=str(self._path),
            moved_to=str(aside),
            error=str(error),
        )

    def _recover(self) -> None:
        """Try the disk again; when it works, move what waited in memory there, behind what the disk holds."""
        if self._disk is None:
            self._reopen()
        if self._disk is None:
            return
        moved = 0
        try:
            self._disk.remove(self._undeleted)
            self._undeleted.clear()
            while self._memory.rows or self._memory.dropped:
                rows = self._memory.oldest(MOVE_ROWS)
                self._disk.append([Message(row.topic, row.payload, row.retain) for row in rows], self._memory.dropped)
                self._memory.remove([row.id for row in rows])
                self._memory.dropped = 0
                moved += len(rows)
        except sqlite3.Error as error:
            self._lose_disk(error, unreadable=is_corrupt(error))
            return
        self._trouble = ""
        _log.info("telemetry is kept on disk again", file=str(self._path), moved_from_memory=moved)
