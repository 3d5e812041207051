"""Synthetic weather: outdoor temperature and façade sunshine of a climate, reproducible from a seed.

Temperature is a yearly wave, a daily wave and hourly first-order autoregressive noise; sunshine is the clear sky of
the latitude dimmed by autoregressive cloud. Times are UTC, read as the local solar time of the site.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import UTC, datetime
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

HOUR = 3600.0
YEAR_DAYS = 365.25
_CHUNK_HOURS = 31 * 24


@dataclass(frozen=True, slots=True)
class Climate:
    """Statistics of a place. Temperatures in °C, swings (half of peak to peak) and noise (standard deviation) in K."""

    name: str
    mean: float
    yearly_swing: float
    daily_swing: float
    noise: float
    latitude: float
    """Degrees north."""
    cloud: float
    """Mean cloud cover, 0..1."""
    memory: float = 36.0
    """Hours after which the noise has forgotten 63 % of itself: the passing of weather fronts."""
    coldest_day: float = 20.0
    """Day of the year."""


CLIMATES = MappingProxyType(
    {
        climate.name: climate
        for climate in (
            Climate("cold", mean=6.0, yearly_swing=14.0, daily_swing=4.0, noise=4.0, latitude=45.0, cloud=0.55),
            Climate("temperate", mean=10.5, yearly_swing=9.0, daily_swing=4.0, noise=3.0, latitude=51.0, cloud=0.6),
            Climate("mild", mean=14.5, yearly_swing=5.0, daily_swing=4.0, noise=2.0, latitude=37.5, cloud=0.4),
            Climate("hot", mean=23.0, yearly_swing=10.0, daily_swing=7.0, noise=2.5, latitude=33.4, cloud=0.2),
            Climate(
                "winter_morning", mean=-12.0, yearly_swing=0.0, daily_swing=2.5, noise=0.3, latitude=47.0, cloud=0.5
            ),
        )
    }
)
"""By name. ``winter_morning`` is a design day all year round: cold enough that a stuck damper freezes a coil."""


def day_of_year(seconds: Floats) -> Floats:
    """Days since the turn of the year, in years of 365.25 days counted from 1970. ``seconds`` are UTC."""
    days: Floats = np.mod(seconds / 86400.0, YEAR_DAYS)
    return days


def clear_sky(seconds: Floats, latitude: float) -> Floats:
    """Global horizontal irradiance under a clear sky, W/m² (Haurwitz 1945; declination by Cooper 1969).

    ``seconds`` are solar time since the epoch, shape (n,); ``latitude`` in degrees north.
    """
    day = day_of_year(seconds)
    declination = math.radians(23.45) * np.sin(2.0 * math.pi * (day + 285.0) / 365.0)
    hour_angle = 2.0 * math.pi * (np.mod(seconds, 86400.0) / 86400.0 - 0.5)
    phi = math.radians(latitude)
    height = math.sin(phi) * np.sin(declination) + math.cos(phi) * np.cos(declination) * np.cos(hour_angle)
    height = np.maximum(height, 1e-3)
    irradiance: Floats = np.where(height > 1e-3, 1098.0 * height * np.exp(-0.057 / height), 0.0)
    return irradiance


class Weather:
    """One realisation of a climate from ``start`` on.

    The hourly noise is drawn forward from ``start`` as far as anybody asks, so that the same seed gives the same
    weather whether it is read step by step or a year at once.
    """

    def __init__(self, climate: Climate | str, *, seed: int, start: datetime) -> None:
        """Raises KeyError for an unknown climate's name and ValueError for a start without a time zone."""
        if start.tzinfo is None:
            raise ValueError(f"start {start.isoformat()} has no time zone: give UTC")
        self.climate = CLIMATES[climate] if isinstance(climate, str) else climate
        self._origin = start.astimezone(UTC).timestamp()
        self._random = np.random.default_rng([seed, 0x57])
        self._last = self._random.standard_normal(
            2
        )  # temperature noise and cloud begin in their stationary distribution
        self._noise = np.zeros(0)
        self._cloud = np.zeros(0)

    def sample(self, elapsed: Floats) -> Floats:
        """Weather at ``elapsed`` seconds since the start (all ≥ 0, shape (n,)).

        Returns:
            Shape (n, 2): outdoor air, °C; irradiance on the façades, W/m².
        """
        hours = elapsed / HOUR
        self._extend(int(np.max(hours)) + 2)
        index = hours.astype(np.int64)
        share = hours - index
        noise = self._noise[index] * (1.0 - share) + self._noise[index + 1] * share
        cloud = self._cloud[index] * (1.0 - share) + self._cloud[index + 1] * share
        seconds = self._origin + elapsed
        climate = self.climate
        season = np.cos(2.0 * math.pi * (day_of_year(seconds) - climate.coldest_day) / YEAR_DAYS)
        # Coldest at 05:00, and clouds flatten the daily wave.
        daily = np.cos(2.0 * math.pi * (np.mod(seconds, 86400.0) / HOUR - 5.0) / 24.0) * (1.3 - 0.6 * cloud)
        weather = np.empty((elapsed.shape[0], 2))
        weather[:, 0] = climate.mean - climate.yearly_swing * season - climate.daily_swing * daily + noise
        # Kasten and Czeplak 1980: cloud cover N leaves 1 - 0.75·N^3.4. Half of the horizontal irradiance reaches the
        # mean façade.
        weather[:, 1] = 0.5 * clear_sky(seconds, climate.latitude) * (1.0 - 0.75 * cloud**3.4)
        return weather

    def at(self, elapsed: float) -> tuple[float, float]:
        """Outdoor air in °C and façade irradiance in W/m², ``elapsed`` seconds since the start."""
        row = self.sample(np.array([elapsed]))[0]
        return float(row[0]), float(row[1])

    def _extend(self, hours: int) -> None:
        while self._noise.shape[0] <= hours:
            keep = math.exp(-1.0 / self.climate.memory)
            spread = math.sqrt(1.0 - keep * keep)
            draws = self._random.standard_normal((_CHUNK_HOURS, 2))
            path = np.empty((_CHUNK_HOURS, 2))
            for hour in range(_CHUNK_HOURS):
                self._last = keep * self._last + spread * draws[hour]
                path[hour] = self._last
            self._noise = np.concatenate([self._noise, self.climate.noise * path[:, 0]])
            self._cloud = np.concatenate([self._cloud, np.clip(self.climate.cloud + 0.35 * path[:, 1], 0.0, 1.0)])
