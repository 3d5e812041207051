"""The queue in memory that stands in where the disk cannot be written. Bounded; the oldest messages are dropped first
and counted."""

from __future__ import annotations

import itertools
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import Final

from agent.telemetry.rows import Message, Row

MEMORY_IDS: Final = 1 << 62
"""Ids of rows in memory begin here, far above those on disk, so that an acknowledgement can never be taken for
another row's."""


class MemoryQueue:
    """First in, first out; see :class:`agent.telemetry.disk.DiskQueue` for the same on disk. Not thread-safe."""

    def __init__(self, max_rows: int, max_bytes: int) -> None:
        self._max_rows = max_rows
        self._max_bytes = max_bytes
        self._rows: OrderedDict[int, Row] = OrderedDict()
        self._next_id = MEMORY_IDS
        self._taken = 0
        self.bytes = 0
        self.dropped = 0

    @property
    def rows(self) -> int:
        """How many messages are here."""
        return len(self._rows)

    def append(self, messages: Iterable[Message]) -> None:
        """Keep the messages; drop the oldest ones beyond the limits, always keeping the newest."""
        for message in messages:
            self._rows[self._next_id] = Row(self._next_id, *message)
            self._next_id += 1
            self.bytes += message.cost
        while len(self._rows) > 1 and (len(self._rows) > self._max_rows or self.bytes > self._max_bytes):
            _, row = self._rows.popitem(last=False)
            self.bytes -= row.cost
            self.dropped += 1

    def take(self, limit: int) -> list[Row]:
        """The next rows that were not taken yet, oldest first; they stay until :meth:`remove`."""
        rows = []
        for row in self._rows.values():
            if row.id > self._taken:
                rows.append(row)
                if len(rows) >= limit:
                    break
        if rows:
            self._taken = rows[-1].id
        return rows

    def rewind(self) -> None:
        """Every row still here can be taken again."""
        self._taken = 0

    def remove(self, ids: Sequence[int]) -> None:
        """Forget rows the broker has; ids no longer here are ignored."""
        for row_id in ids:
            row = self._rows.pop(row_id, None)
            if row is not None:
                self.bytes -= row.cost

    def oldest(self, limit: int) -> list[Row]:
        """The oldest rows, taken or not."""
        return list(itertools.islice(self._rows.values(), limit))
