"""Who is in a zone, and when: office hours with a little daily chance, reproducible from a seed."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import numpy.typing as npt

DAY = 86400.0
_SATURDAY = 5


class OfficeHours:
    """Weekdays from about 7 to about 18 h; each zone begins and ends up to half an hour off, drawn anew every day.

    Times are UTC, read as the site's local time.
    """

    def __init__(self, zones: int, *, seed: int, start: datetime, first_day: tuple[float, ...] | None = None) -> None:
        """``first_day``: hours at which the zones fill on the day of the start, whatever its weekday (a script)."""
        self._zones = zones
        self._seed = seed
        self._origin = start.astimezone(UTC).timestamp()
        self._first = self._origin // DAY
        self._script = first_day
        self._day = -1.0
        self._begin = np.zeros(zones)
        self._end = np.zeros(zones)

    def at(self, elapsed: float, out: npt.NDArray[np.float64]) -> None:
        """Write the share of people present (0 or 1), shape (zones,), ``elapsed`` seconds since the start."""
        moment = self._origin + elapsed
        day = moment // DAY
        if day != self._day:
            self._plan(day)
        hour = (moment - day * DAY) / 3600.0
        np.copyto(out, (hour >= self._begin) & (hour < self._end))

    def sample(self, elapsed: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """The same for many moments, shape (n,) → (n, zones)."""
        presence = np.empty((elapsed.shape[0], self._zones))
        for row, moment in enumerate(elapsed):
            self.at(float(moment), presence[row])
        return presence

    def _plan(self, day: float) -> None:
        self._day = day
        draws = np.random.default_rng([self._seed, 0x0C, int(day)]).uniform(-0.5, 0.5, (2, self._zones))
        self._begin = 7.0 + draws[0]
        self._end = 18.0 + draws[1]
        if self._script is not None and day == self._first:
            self._begin = np.array(self._script)
        elif (int(day) + 3) % 7 >= _SATURDAY:  # day 0 of the epoch was a Thursday
            self._end = self._begin
