"""Scripted happenings for a plant: what breaks, when, for how long. Demonstrations and fault tests run on them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType


class Fault(Enum):
    """What can break."""

    SENSOR_LOST = "sensor_lost"
    """A reading becomes NaN: a broken wire."""
    DAMPER_OPEN = "damper_open"
    """The outdoor-air damper drives open and ignores its command: a failed actuator."""
    FAN_BELT = "fan_belt"
    """The supply fan delivers nothing and shows no status, whatever is commanded."""
    DUCT_BLOCKED = "duct_blocked"
    """Fire dampers have closed: the static pressure in the duct is 2.5 times as high."""


@dataclass(frozen=True, slots=True)
class Happening:
    """One fault from ``begin`` to ``begin + duration`` seconds after the plant's start.

    ``zone`` and ``point`` say which sensor is lost (its name without the zone's); the other faults ignore them.
    """

    fault: Fault
    begin: float
    duration: float
    zone: int = 0
    point: str = "temp"

    def active(self, elapsed: float) -> bool:
        """Whether it is happening ``elapsed`` seconds after the start."""
        return self.begin <= elapsed < self.begin + self.duration


@dataclass(frozen=True, slots=True)
class Scenario:
    """A script. ``climate`` replaces the plant's; first arrivals are spread from ``fill_from`` to ``fill_to``, h."""

    climate: str | None = None
    fill_from: float | None = None
    fill_to: float | None = None
    happenings: tuple[Happening, ...] = ()

    def arrivals(self, zones: int) -> tuple[float, ...] | None:
        """The hour at which each zone fills on the first day, or None if nothing is scripted."""
        if self.fill_from is None or self.fill_to is None:
            return None
        step = (self.fill_to - self.fill_from) / (zones + 1)
        return tuple(self.fill_from + step * (zone + 1) for zone in range(zones))


MINUTE = 60.0

SCENARIOS = MappingProxyType(
    {
        "none": Scenario(),
        "winter_morning": Scenario(
            climate="winter_morning",
            fill_from=6.0,
            fill_to=7.0,
            happenings=(
                Happening(Fault.SENSOR_LOST, 18 * MINUTE, 6 * MINUTE, zone=1),
                Happening(Fault.DAMPER_OPEN, 27 * MINUTE, 10 * MINUTE),
            ),
        ),
        "fan_belt": Scenario(happenings=(Happening(Fault.FAN_BELT, 20 * MINUTE, 60 * MINUTE),)),
        "duct_blocked": Scenario(happenings=(Happening(Fault.DUCT_BLOCKED, 20 * MINUTE, 10 * MINUTE),)),
    }
)
"""``winter_morning``: start it at 06:00. About −14 °C outdoors; four zones fill one after another from 06:12 to 06:48,
the second zone's temperature sensor is lost from 06:18 to 06:24, and the outdoor-air damper sticks open from 06:27 to
06:37."""
