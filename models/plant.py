"""What a plant is: anything that answers commands with readings, one step at a time.

A site names its plant as ``module:Class``. A plant can be stepped in lock-step (the driver ``sim``) or served over
real sockets.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Protocol, runtime_checkable

from safety.values import PointSpec


@runtime_checkable
class Plant(Protocol):
    """A simulated process. Values are in each point's declared unit.

    A plant may also have ``meters: Mapping[str, str]`` (energy use → the name of a point that counts it in kWh): the
    reports then show energy by use; ``starts: Mapping[str, str]`` (machine → the name of a point that counts its
    starts); and ``use_kernels(load)``: ``load`` gives the compiled functions of a kernels module by its name, for the
    runs after the next reset.
    """

    points: Mapping[str, PointSpec]

    def reset(self, *, seed: int, start: datetime) -> Mapping[str, float]:
        """Begin again at ``start`` (aware, UTC) and return the readings of every point."""

    def step(self, commands: Mapping[str, float], dt: float) -> Mapping[str, float]:
        """Advance by ``dt`` seconds under ``commands`` (writable points not named keep theirs); return every reading.

        The mapping returned may be the same object every step, updated in place.
        """
