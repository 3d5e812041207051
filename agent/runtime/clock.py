"""The injected clock: monotonic seconds for control, UTC seconds for records, never mixed.

The same scan runs live (:class:`SystemClock`), faster than the wall on a simulated plant (:class:`ScaledClock`), and in tests and in
lock-step (:class:`ManualClock`).
"""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """Control time. ``speed`` is control seconds per wall second; network deadlines stay in wall seconds."""

    speed: float

    def monotonic(self) -> float:
        """Control seconds since an arbitrary start; never steps, never goes back."""

    def utc(self) -> float:
        """UTC seconds since the epoch, for records only."""


class SystemClock:
    """The machine's own clock."""

    speed = 1.0

    def monotonic(self) -> float:
        return time.monotonic()

    def utc(self) -> float:
        return time.time()


class ScaledClock:
    """Control time that runs ``speed`` times as fast as the wall from ``start_utc`` on, for plants that do too.

    ``origin`` is the wall's monotonic time at which control time equals ``start_utc``, so that several processes can agree.
    """

    def __init__(self, speed: float, start_utc: float, origin: float | None = None) -> None:
        if not 0.0 < speed <= 100_000.0:
            raise ValueError(f"speed must be above 0 and at most 100000, got {speed}")
        self.speed = speed
        self._start_utc = start_utc
        self._origin = time.monotonic() if origin is None else origin

    def monotonic(self) -> float:
        return (time.monotonic() - self._origin) * self.speed

    def utc(self) -> float:
        return self._start_utc + self.monotonic()


class ManualClock:
    """A clock that only moves when told."""

    speed = 1.0

    def __init__(self, monotonic: float = 0.0, utc: float = 1_767_225_600.0) -> None:
        self._monotonic = monotonic
        self._utc = utc

    def monotonic(self) -> float:
        return self._monotonic

    def utc(self) -> float:
        return self._utc

    def advance(self, seconds: float) -> None:
        """Move both times forward."""
        if seconds < 0.0:
            raise ValueError(f"a monotonic clock cannot go back by {-seconds} s")
        self._monotonic += seconds
        self._utc += seconds

    def step_utc(self, seconds: float) -> None:
        """Step the calendar only, as NTP or an operator would."""
        self._utc += seconds
