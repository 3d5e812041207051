"""How long to wait before the next attempt at a device: longer and longer, never longer than a minute, and for ever."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Final

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

    def failure(self) -> float:
        """Count a failure; returns the wall seconds to wait."""
        # The exponent is bounded: after years without the device the power must not overflow.
        return self._wait(min(CAP_S, FIRST_S * FACTOR ** min(self.attempts, 32)))

    def auth_failure(self) -> float:
        """Count refused credentials; returns the wall seconds to wait: the maximum, as hammering locks accounts."""
        return self._wait(CAP_S)

    def success(self) -> None:
        """The device answered: the next failure starts from the shortest delay."""
        self.attempts = 0

    def _wait(self, longest_s: float) -> float:
        self.attempts += 1
        return longest_s * (1.0 - JITTER * self._chance())
