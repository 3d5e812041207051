"""One buffered message, and what it costs."""

from __future__ import annotations

from typing import Final, NamedTuple

ROW_OVERHEAD: Final = 32
"""Bytes a row takes besides its text: measured on SQLite files of small messages, so that ``max_bytes`` is about the
size of the file."""


class Message(NamedTuple):
    """What somebody wants published. ``topic`` is ASCII."""

    topic: str
    payload: bytes
    retain: bool

    @property
    def cost(self) -> int:
        """Bytes it counts against the limits."""
        return len(self.topic) + len(self.payload) + ROW_OVERHEAD


class Row(NamedTuple):
    """A message in the buffer. Ids rise in the order of arrival; an id is never given twice while the process lives."""

    id: int
    topic: str
    payload: bytes
    retain: bool

    @property
    def cost(self) -> int:
        """Bytes it counts against the limits."""
        return len(self.topic) + len(self.payload) + ROW_OVERHEAD
