"""Circuit breaker: a function that fails again and again is not called for a while (M. Nygard, Release It!, 2007)."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final

from agent.poet.errors import CircuitOpenError

THRESHOLD: Final = 5
"""Failed calls in a row, each with all its retries, until the circuit opens."""
OPEN_S: Final = 30.0
"""How long it stays open before one call may try again."""


class CircuitBreaker:
    """Closed: calls pass.

    Open: refused at once. Half-open: after ``open_s`` one call passes; its end closes or opens the circuit again.
    """

    __slots__ = ("_clock", "_lock", "_open_s", "_opened", "_probing", "_threshold", "failures")

    def __init__(self, clock: Callable[[], float], threshold: int = THRESHOLD, open_s: float = OPEN_S) -> None:
        self._clock = clock
        self._threshold = threshold
        self._open_s = open_s
        self._lock = threading.Lock()
        self._opened = 0.0
        self._probing = False
        self.failures = 0
        """Failed calls in a row. 0 means there is nothing to ask before a call and nothing to say after a good one."""

    @property
    def state(self) -> str:
        """closed, open or half-open."""
        if self.failures < self._threshold:
            return "closed"
        return "half-open" if self._clock() - self._opened >= self._open_s else "open"

    def admit(self, function: str) -> None:
        """Let a call pass or not.

        Raises:
            CircuitOpenError: the circuit is open, or half-open with its one call under way.
        """
        with self._lock:
            state = self.state
            if state == "closed":
                return
            if state == "half-open" and not self._probing:
                self._probing = True
                return
            wait = max(0.0, self._opened + self._open_s - self._clock())
        raise CircuitOpenError(
            f"{function} failed {self.failures} times in a row: not called, next try in {wait:.0f} s"
        )

    def succeeded(self) -> None:
        """A call was good."""
        with self._lock:
            self.failures = 0
            self._probing = False

    def failed(self) -> None:
        """A call failed."""
        with self._lock:
            self.failures += 1
            self._probing = False
            if self.failures >= self._threshold:
                self._opened = self._clock()
