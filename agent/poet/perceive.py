"""The tables and the memory of the Perceive kernel: what every input point may be, and what it was."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self

import numpy as np
import numpy.typing as npt

from agent.poet import perceive_kernels as kernels

Floats = npt.NDArray[np.float64]


class PerceivePoint(Protocol):
    """The part of a configured point that Perceive needs (``agent.config.point.PointBase`` has it). Times in s."""

    @property
    def range(self) -> tuple[float, float]:
        """Believable range, point's unit."""

    @property
    def stale_after(self) -> float:
        """Greatest believable age."""

    @property
    def max_change(self) -> float | None:
        """Greatest believable change, point's unit per s."""

    @property
    def stuck_after(self) -> float | None:
        """Not changing at all for longer is uncertain."""

    @property
    def smooth(self) -> float | None:
        """Time constant of the filter."""

    @property
    def fallback(self) -> float | None:
        """Stands in for a bad value."""


@dataclass(frozen=True, slots=True)
class PerceiveTable:
    """What each point may be; arrays of shape (n_points,), frozen. Order as the kernel's arguments."""

    features: npt.NDArray[np.uint8]
    """Which optional checks a point has; NaN or infinity in their columns means "not this one"."""
    low: Floats
    high: Floats
    stale_after_s: Floats
    max_change_per_s: Floats
    stuck_after_s: Floats
    smooth_s: Floats
    fallback: Floats

    @classmethod
    def build(cls, points: Sequence[PerceivePoint]) -> Self:
        """The table of these points, in their order."""
        optional = {
            kernels.RATE: [point.max_change for point in points],
            kernels.STUCK_CHECK: [point.stuck_after for point in points],
            kernels.SMOOTH: [point.smooth or None for point in points],
            kernels.FALLBACK: [point.fallback for point in points],
        }
        features = np.zeros(len(points), np.uint8)
        for bit, column in optional.items():
            features |= np.array([cell is not None and math.isfinite(cell) for cell in column], bool) * np.uint8(bit)
        features.flags.writeable = False
        return cls(
            features=features,
            low=_frozen([point.range[0] for point in points]),
            high=_frozen([point.range[1] for point in points]),
            stale_after_s=_frozen([point.stale_after for point in points]),
            max_change_per_s=_frozen([point.max_change for point in points]),
            stuck_after_s=_frozen([point.stuck_after for point in points]),
            smooth_s=_frozen([point.smooth for point in points]),
            fallback=_frozen([point.fallback for point in points]),
        )

    def columns(self) -> tuple[npt.NDArray[Any], ...]:
        """The arrays in the order of the kernel's arguments."""
        return (
            self.features,
            self.low,
            self.high,
            self.stale_after_s,
            self.max_change_per_s,
            self.stuck_after_s,
            self.smooth_s,
            self.fallback,
        )


@dataclass(frozen=True, slots=True)
class PerceiveState:
    """What the kernel remembers of each point between scans; arrays of shape (n_points,), written in place."""

    value: Floats
    time: Floats
    changed: Floats
    filtered: Floats

    @classmethod
    def fresh(cls, count: int) -> Self:
        """Nothing accepted yet: the first plausible sample becomes the anchor of the rate check and of the filter."""
        return cls(*(np.full(count, np.nan) for _ in range(4)))

    def columns(self) -> tuple[Floats, ...]:
        """The arrays in the order of the kernel's arguments."""
        return (self.value, self.time, self.changed, self.filtered)


def _frozen(column: Sequence[float | None]) -> Floats:
    array = np.array([np.nan if cell is None else cell for cell in column], dtype=np.float64)
    array.flags.writeable = False
    return array
