"""How long to wait before the next attempt to connect: growing, jittered, bounded, for ever."""

from __future__ import annotations

import random
from typing import Final

FIRST_S: Final = 1.0
FACTOR: Final = 1.8
"""As aioesphomeapi: 1, 1.8, 3.2, 5.8 …"""
LONGEST_S: Final = 20.0
"""A broker that is back should have its telemetry soon; one attempt in ten seconds or more is no burden to anybody."""
SLOWEST_S: Final = 60.0
"""Where the broker refuses us."""
JITTER: Final = 0.5
"""A delay is between this share of its nominal value and all of it, so that a hundred gateways do not return
together."""


class Backoff:
    """Delays of one connection."""

    def __init__(self, rng: random.Random | None = None) -> None:
        self._rng = rng or random.Random()  # noqa: S311  (jitter, not a secret)
        self._nominal = FIRST_S

    def next(self) -> float:
        """Seconds until the next attempt; longer each time."""
        nominal = self._nominal
        self._nominal = max(nominal, min(nominal * FACTOR, LONGEST_S))
        return nominal * self._rng.uniform(JITTER, 1.0)

    def slowest(self) -> float:
        """Seconds until the next attempt where trying soon cannot help: retries lock accounts."""
        self._nominal = SLOWEST_S
        return SLOWEST_S * self._rng.uniform(JITTER, 1.0)

    def reset(self) -> None:
        """The connection has proven itself: begin again with short delays."""
        self._nominal = FIRST_S
