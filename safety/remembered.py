"""What must survive a restart: which interlocks are tripped, and when each output last switched. Times are UTC seconds.

Monotonic clocks start anew with the process, so the records are kept in UTC, and UTC steps. :func:`age` is the only
reader, and errs towards "just now": a time in the future, or one taken before the clock was ever set, is no proof that
a delay has passed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, final

CLOCK_SET_AFTER: Final = 1_704_067_200.0
"""2024-01-01T00:00Z. A gateway without a battery starts in 1970 or at its build date; anything earlier is a clock not
yet set.
"""


@final
@dataclass(frozen=True, slots=True)
class TripRecord:
    """A tripped interlock. ``cause`` is the first-out cause in words."""

    interlock: str
    tripped_utc: float
    cause: str


@final
@dataclass(frozen=True, slots=True)
class SwitchRecord:
    """The last time an output went on or off."""

    output: str
    on: bool
    switched_utc: float


@final
@dataclass(frozen=True, slots=True)
class Remembered:
    """All of it. ``trusted`` False: the store was damaged, so every interlock counts as tripped and every output as
    just switched.
    """

    trips: tuple[TripRecord, ...] = ()
    switches: tuple[SwitchRecord, ...] = ()
    trusted: bool = True


def age(then_utc: float, now_utc: float) -> float:
    """Seconds since ``then_utc``; 0 where either clock reading cannot be believed."""
    if not (then_utc >= CLOCK_SET_AFTER and now_utc >= CLOCK_SET_AFTER):
        return 0.0
    passed = now_utc - then_utc
    return passed if 0.0 <= passed < math.inf else 0.0
