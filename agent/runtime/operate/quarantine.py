"""Which units may not run with the others for now, because they hung or crashed a worker.

A suspect runs alone, in a worker of its own, at growing intervals; after a few clean runs it is trusted again. Meanwhile its outputs
follow the unit's declared fallback.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

FIRST_RETRY_S = 1.0
LONGEST_RETRY_S = 60.0
CLEAN_RUNS = 3
"""So many clean runs alone, then back to the common lane."""


@dataclass(slots=True)
class Suspect:
    """One unit under quarantine. Times are wall-clock monotonic seconds."""

    offences: int
    retry_at: float
    clean: int = 0


class Quarantine:
    """Suspects by (group, unit column). Bounded by the number of units."""

    def __init__(self, uniform: Callable[[float, float], float] = random.uniform) -> None:
        self._suspects: dict[tuple[int, int], Suspect] = {}
        self._uniform = uniform

    def __contains__(self, key: tuple[int, int]) -> bool:
        return key in self._suspects

    def __len__(self) -> int:
        return len(self._suspects)

    def of_group(self, group: int) -> list[int]:
        """The suspect columns of one group."""
        return [column for (of, column) in self._suspects if of == group]

    def may_run(self, key: tuple[int, int], now: float) -> bool:
        """Whether the suspect's wait is over."""
        return now >= self._suspects[key].retry_at

    def offend(self, key: tuple[int, int], now: float) -> float:
        """Note a hang or crash; returns the seconds until it may try again (doubling, with jitter, at most a minute)."""
        suspect = self._suspects.get(key)
        offences = 1 if suspect is None else suspect.offences + 1
        wait = min(FIRST_RETRY_S * 2.0 ** min(offences - 1, 10), LONGEST_RETRY_S) * self._uniform(0.8, 1.2)
        self._suspects[key] = Suspect(offences, now + wait)
        return wait

    def behave(self, key: tuple[int, int]) -> bool:
        """Note a clean run; returns True when the unit is trusted again."""
        suspect = self._suspects[key]
        suspect.clean += 1
        if suspect.clean < CLEAN_RUNS:
            return False
        del self._suspects[key]
        return True
