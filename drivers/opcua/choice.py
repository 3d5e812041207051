"""Poll or subscribe, point by point: whichever puts fewer bytes on the wire.

Reading a node costs its id in the request and its value in the answer, some 80 bytes, at every poll. A notification
costs some 30 bytes, when the value changes. A value that changes in fewer than half of the polls is cheaper as a
notification, with some room so that points do not go to and fro.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from drivers.opcua.wire import Places, Samples

WINDOW: Final = 20
"""Polls over which changes are counted."""
SELDOM: Final = 0.4
"""A polled point that changes in at most this part of the polls is subscribed."""
OFTEN: Final = 0.6
"""A subscribed point that changes in more than this part of the polls is polled again."""
FEWEST: Final = 20
"""A group smaller than this is not worth a subscription of its own, nor moving."""

Flags = npt.NDArray[np.bool_]


class Choice:
    """Watches how often the candidates change. ``candidates``, shape (n,): rows that may be subscribed at all."""

    def __init__(self, candidates: Flags) -> None:
        self._candidates = candidates
        self._changes = np.zeros(len(candidates), np.int64)
        self._polls = 0
        self._last: Samples | None = None

    def observe(self, samples: Samples, subscribed: Flags) -> Flags | None:
        """Take in one poll's samples, all rows. Every ``WINDOW`` polls, the rows to subscribe from now on, if they
        should be others than ``subscribed``.
        """
        last, self._last = self._last, samples
        if last is None:
            return None
        same = (samples.value == last.value) | (np.isnan(samples.value) & np.isnan(last.value))
        self._changes += ~same | (samples.status != last.status)
        self._polls += 1
        if self._polls < WINDOW:
            return None
        part = self._changes / self._polls
        self._changes[:] = 0
        self._polls = 0
        good = samples.status >> 30 == 0
        wanted: Flags = self._candidates & np.where(subscribed, part <= OFTEN, (part <= SELDOM) & good)
        moving = int(np.count_nonzero(wanted != subscribed))
        return wanted if moving >= FEWEST else None

    def forget(self) -> None:
        """Values before and after a gap are no change."""
        self._last = None


def rows_of(flags: Flags) -> Places:
    """The rows that are set."""
    return np.flatnonzero(flags)
