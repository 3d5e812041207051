"""The envelope of one output: what may be written to it, how fast, and where it goes when anything is wrong.

Standard library only: the gate checks the same envelopes in processes that have no numpy.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import IntEnum
from typing import final

from safety.errors import EnvelopeError


class RequestState(IntEnum):
    """What Operate says of one requested output. Stored as u1 in the images; 0, fresh memory, is "nothing asked"."""

    MISSING = 0
    OK = 1
    INPUT_BAD = 2
    FUNCTION_FAILED = 3
    DEADLINE_MISSED = 4
    HOLD_FAILED = 5
    """The function failed, but the scans for which the last good command is held are not used up."""
    HOLD_DEADLINE = 6
    """The same for a missed deadline."""
    WATCH_ONLY = 7
    """No function drives the output: it stays at its fail-safe value."""


@final
@dataclass(frozen=True, slots=True)
class Envelope:
    """The limits of one output, all in the point's unit and SI seconds. ``None`` = feature off.

    ``fail_safe`` None means relinquish: hand the point back to the equipment's own logic.
    An output is *on* above the middle of its limits, and *idle* at its lowest allowed value.

    Raises:
        EnvelopeError: the rows contradict each other.
    """

    name: str
    low: float
    high: float
    fail_safe: float | None
    max_step: float | None = None
    max_rate: float | None = None
    dead_band: float = 0.0
    allowed: tuple[float, ...] | None = None
    min_on_s: float = 0.0
    min_off_s: float = 0.0

    def __post_init__(self) -> None:
        if not (self.low < self.high and math.isfinite(self.low) and math.isfinite(self.high - self.low)):
            raise self._error(f"limits must be finite and rising, got [{self.low:g}, {self.high:g}]")
        for what, value in (("max_step", self.max_step), ("max_rate", self.max_rate)):
            if value is not None and not 0.0 < value < math.inf:
                raise self._error(f"{what} must be above 0 and finite, got {value:g}; leave it out for no limit")
        for what, value in (("dead_band", self.dead_band), ("min_on", self.min_on_s), ("min_off", self.min_off_s)):
            if not 0.0 <= value < math.inf:
                raise self._error(f"{what} must be finite and not negative, got {value:g}")
        if self.max_step is not None and not self.dead_band < self.max_step:
            raise self._error(
                f"dead_band {self.dead_band:g} must be below max_step {self.max_step:g}, or the output could never move"
            )
        self._check_allowed()
        if self.fail_safe is not None and not self.permits(self.fail_safe):
            raise self._error(f"fail_safe {self.fail_safe:g} is outside the limits or not one of the allowed values")

    def _check_allowed(self) -> None:
        if self.allowed is None:
            return
        if not self.allowed:
            raise self._error(
                "allowed must name at least one value; leave it out to allow every value within the limits"
            )
        for value in self.allowed:
            if not self.low <= value <= self.high:
                raise self._error(f"allowed value {value:g} is outside the limits [{self.low:g}, {self.high:g}]")
        if self.max_step is not None or self.max_rate is not None:
            raise self._error(
                "max_step and max_rate pass through values that are not allowed; use min_on and min_off with allowed"
            )

    def _error(self, message: str) -> EnvelopeError:
        return EnvelopeError(f"output {self.name}: {message}")

    @property
    def middle(self) -> float:
        """Above this the output is on."""
        return 0.5 * self.low + 0.5 * self.high

    @property
    def idle(self) -> float:
        """The lowest value that may be written: where an output goes that must give way to another."""
        return self.low if self.allowed is None else min(self.allowed)

    @property
    def tolerance(self) -> float:
        """How far from an allowed value a request still means that value (a billionth of the span)."""
        return 1e-9 * (self.high - self.low)

    def permits(self, value: float) -> bool:
        """Whether the value may be written, step and time aside. NaN and infinity never may."""
        if not self.low <= value <= self.high:
            return False
        return self.allowed is None or any(abs(value - one) <= self.tolerance for one in self.allowed)
