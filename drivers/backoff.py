"""How long to wait before the next attempt at a device: longer and longer, never longer than a minute, and for ever."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Final

from drivers.errors import AuthenticationError, DriverError

FIRST_S: Final = 1.0
FACTOR: Final = 1.8
CAP_S: Final = 60.0
JITTER: Final = 0.3
"""Part of a delay that is left to chance, so that a hundred devices behind one switch do not come back in step."""


class Backoff:
    """The delays between attempts at one device. ``chance`` returns numbers in [0, 1) and is injectable for tests."""

    def __init__(self, chance: Callable[[], float] = random.random) -> None:
        self._chance = chance
        self.attempts = 0
        """Failures since the last success."""

    def next_delay_s(self, error: DriverError) -> float:
        """Count a failure; wall seconds to wait. Wrong credentials wait the maximum at once: hammering locks
        accounts.
        """
        if isinstance(error, AuthenticationError):
            longest = CAP_S
        else:
            # The exponent is bounded: after years without the device the power must not overflow.
            longest = min(CAP_S, FIRST_S * FACTOR ** min(self.attempts, 32))
        self.attempts += 1
        return longest * (1.0 - JITTER * self._chance())

    def reset(self) -> None:
        """The device answered: the next failure starts from the shortest delay."""
        self.attempts = 0
