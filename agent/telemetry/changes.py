"""Which points to publish: those that changed, and the unchanged ones once per heartbeat. Vectorised over all points
of the site."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Codes = npt.NDArray[np.uint8]

_GOLDEN: Final = 0.618_033_988_749_895
"""Multiples of it modulo 1 are spread evenly, however many points there are (Weyl's equidistribution)."""


class ChangeFilter:
    """Remembers what was published of each point and says what is due.

    A point is due when it was never published, when its quality or reason changed, when its value moved by more than
    its dead band since the value last published (not since the last scan: slow drift is seen), when it became or
    ceased to be a number, or when its heartbeat is over. First heartbeats are spread over the whole period, so that
    10,000 points never come at once again.
    """

    def __init__(self, n_points: int, heartbeat_s: float, dead_band: Floats | float = 0.0) -> None:
        """``dead_band`` is in each point's unit, shape (n_points,) or one for all; 0 publishes every change.

        Raises:
            ValueError: a dead band is negative or not finite, or the heartbeat is not above 0.
        """
        band = np.broadcast_to(np.asarray(dead_band, dtype=np.float64), (n_points,))
        if not bool(np.all(np.isfinite(band) & (band >= 0.0))):
            raise ValueError("every dead band must be finite and not negative: 0 publishes every change")
        if not heartbeat_s > 0.0:
            raise ValueError(f"the heartbeat must be above 0 s, got {heartbeat_s}")
        self._band = band
        self._heartbeat = heartbeat_s
        self._first_period = heartbeat_s * (1.0 - np.arange(n_points) * _GOLDEN % 1.0)
        self._value = np.full(n_points, np.nan)
        self._quality = np.zeros(n_points, dtype=np.uint8)
        self._reason = np.zeros(n_points, dtype=np.uint8)
        self._deadline = np.full(n_points, -np.inf)
        self._published = np.zeros(n_points, dtype=np.bool_)

    def due(self, now: float, value: Floats, quality: Codes, reason: Codes) -> npt.NDArray[np.intp]:
        """Indices of the points to publish now, ascending; they count as published from here on.

        Args:
            now: control clock, seconds.
            value, quality, reason: shape (n_points,).
        """
        is_number = np.isfinite(value)
        was_number = np.isfinite(self._value)
        with np.errstate(invalid="ignore"):
            moved = np.abs(value - self._value) > self._band
        changed = (
            (moved & is_number & was_number)
            | (is_number != was_number)
            | (quality != self._quality)
            | (reason != self._reason)
            | (now >= self._deadline)
        )
        indices = np.flatnonzero(changed)
        if indices.size:
            first = ~self._published[indices]
            self._deadline[indices] = now + np.where(first, self._first_period[indices], self._heartbeat)
            self._published[indices] = True
            self._value[indices] = value[indices]
            self._quality[indices] = quality[indices]
            self._reason[indices] = reason[indices]
        return indices

    def forget(self) -> None:
        """Everything is due again, as after a start: for a broker that lost its retained messages."""
        self._published[:] = False
        self._deadline[:] = -np.inf
