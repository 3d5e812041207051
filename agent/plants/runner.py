"""A plant in motion: control time follows the wall at a chosen speed, and values go in and out between steps."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from datetime import datetime

from agent.plants.errors import PlantFailedError
from models.plant import Plant
from safety.units import affine

MAX_STEPS = 200
"""Steps per call of :meth:`PlantRunner.advance`. A process that was suspended does not try to catch up for ever."""


class PlantRunner:
    """Steps a plant so that its time runs ``speed`` times as fast as the wall.

    A written value is shown at once by its own point, as a device's register does, and acts with the next step.
    """

    def __init__(self, plant: Plant, *, seed: int, start: datetime, speed: float, largest_step: float) -> None:
        """Reset the plant. Raises PlantFailedError if it cannot, ValueError for a speed or step that is not above 0."""
        if not (math.isfinite(speed) and speed > 0.0 and largest_step > 0.0):
            raise ValueError(f"speed {speed:g} and largest step {largest_step:g} s must be above 0")
        self.plant = plant
        self.elapsed = 0.0
        """Control seconds since the start."""
        self._speed = speed
        self._largest_step = largest_step
        self._pending: dict[str, float] = {}
        self._readings: Mapping[str, float] = {}
        self._take(lambda: plant.reset(seed=seed, start=start))

    def advance(self, wall_seconds: float) -> float:
        """Let ``wall_seconds`` pass in equal steps; returns the control seconds dropped because it was too far behind.

        Raises PlantFailedError if the plant raises.
        """
        wanted = wall_seconds * self._speed
        if wanted <= 0.0:
            return 0.0
        steps = min(math.ceil(wanted / self._largest_step), MAX_STEPS)
        dt = min(wanted / steps, self._largest_step)
        for _ in range(steps):
            commands, self._pending = self._pending, {}
            self._take(lambda: self.plant.step(commands, dt))  # noqa: B023  (called at once)
            self.elapsed += dt
        return max(wanted - steps * dt, 0.0)

    def reader(self, point: str, unit: str) -> Callable[[], float]:
        """A function that gives the point's present value in ``unit``. Raises UnitError if the units do not match."""
        gain, offset = affine(self.plant.points[point].unit, unit)

        def read() -> float:
            return self._pending.get(point, self._readings[point]) * gain + offset

        return read

    def writer(self, point: str, unit: str) -> Callable[[float], None] | None:
        """A function that takes a value in ``unit``, or None if the plant does not let the point be written.

        The function raises ValueError for NaN and for what lies outside the point's range.
        """
        spec = self.plant.points[point]
        if not spec.writable:
            return None
        gain, offset = affine(unit, spec.unit)
        tolerance = 1e-6 * (spec.high - spec.low)  # a limit converted to f32 and back must not be refused

        def write(value: float) -> None:
            converted = value * gain + offset
            if not spec.low - tolerance <= converted <= spec.high + tolerance:
                raise ValueError(f"{point}: {converted:g} is outside {spec.low:g}..{spec.high:g} {spec.unit}")
            self._pending[point] = min(max(converted, spec.low), spec.high)

        return write

    def _take(self, call: Callable[[], Mapping[str, float]]) -> None:
        name = type(self.plant).__name__
        try:
            readings = call()
        except Exception as error:  # a foreign plant may raise anything; nothing is served after it
            raise PlantFailedError(f"the plant {name} failed: {type(error).__name__}: {error}") from error
        missing = [point for point in self.plant.points if point not in readings]
        if missing:
            raise PlantFailedError(f"the plant {name} gave no reading for {', '.join(missing[:5])}")
        self._readings = readings
