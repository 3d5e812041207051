"""How long a function usually takes, and the timeout that follows from it."""

from __future__ import annotations

from collections import deque
from typing import Final

KEPT: Final = 64
ENOUGH: Final = 20
"""Calls until the history says anything."""
MARGIN: Final = 4.0
"""The adaptive timeout is so many times the slowest of the calls kept."""
SHORTEST_S: Final = 0.05


class DurationHistory:
    """The durations of the last good calls, in s."""

    __slots__ = ("_durations",)

    def __init__(self) -> None:
        self._durations: deque[float] = deque(maxlen=KEPT)

    def add(self, duration: float) -> None:
        """A call was good and took so long."""
        self._durations.append(duration)

    def timeout(self, longest: float | None) -> float | None:
        """A timeout that no usual call misses, never above the configured one (None: without limit)."""
        if len(self._durations) < ENOUGH:
            return longest
        adapted = max(SHORTEST_S, MARGIN * max(self._durations))
        return adapted if longest is None else min(longest, adapted)
