"""How long to wait before the next try: exponential, with jitter so that many units do not try again in step."""

from __future__ import annotations

from typing import Final

FIRST_S: Final = 0.1
FACTOR: Final = 2.0
LONGEST_S: Final = 5.0


def delay(failures: int, chance: float) -> float:
    """Seconds to wait after the ``failures``-th failure in a call (1 is the first).

    Equal jitter: the second half of the exponential delay is left to chance. ``chance`` is in [0, 1).
    """
    full = min(LONGEST_S, FIRST_S * FACTOR ** min(failures - 1, 32))
    return full * (0.5 + 0.5 * chance)
