"""What a recorded period shows: energy by use, discomfort, dissatisfaction, compressor starts. Pure functions.

A series is a pair of arrays: times in seconds (ascending) and values, both of shape (n,). A value holds until the
next sample; NaN means "not known" and counts for nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from models import comfort_kernels

Floats = npt.NDArray[np.float64]

MET = 1.2
"""Seated office work (ISO 8996)."""
CLO_WINTER = 1.0
CLO_SUMMER = 0.5
"""Typical indoor clothing (ISO 9920)."""
AIR_VELOCITY = 0.1
"""m/s."""
HUMIDITY = 45.0
"""%."""


@dataclass(frozen=True, slots=True)
class Discomfort:
    """How a zone was while it was occupied. Hours are occupied hours of known temperature."""

    occupied_h: float
    kelvin_hours: float
    """Outside the band."""
    hours_outside: float
    mean_ppd: float
    """Mean predicted percentage dissatisfied, %; NaN if never occupied."""


def meter_difference(values: Floats) -> float:
    """What a cumulative counter counted, in its unit. A counter that falls was reset to zero and goes on from there."""
    known = values[np.isfinite(values)]
    if known.size < 2:
        return 0.0
    steps = np.diff(known)
    return float(np.sum(np.where(steps >= 0.0, steps, known[1:])))


def energy_by_use(series: Mapping[str, Floats], meters: Mapping[str, str]) -> dict[str, float]:
    """kWh by use, from the counters of a plant's ``meters`` (use → point). A use not recorded is left out."""
    return {use: meter_difference(series[point]) for use, point in meters.items() if point in series}


def starts_by_machine(series: Mapping[str, Floats], starts: Mapping[str, str]) -> dict[str, int]:
    """Compressor starts by machine, from a plant's ``starts`` (machine → point). A machine not recorded is left out."""
    return {machine: round(meter_difference(series[point])) for machine, point in starts.items() if point in series}


def hours_held(times: Floats, end: float) -> Floats:
    """How long each sample holds, h: until the next one, the last until ``end`` (seconds)."""
    return np.diff(np.append(times, end)) / 3600.0


def discomfort(
    times: Floats,
    temperature: Floats,
    occupied: Floats | None,
    low: float,
    high: float,
    end: float | None = None,
    radiant: Floats | None = None,
    clo: float = CLO_WINTER,
) -> Discomfort:
    """Judge one zone.

    Args:
        times: seconds, ascending, (n,).
        temperature: °C, (n,).
        occupied: above 0.5 = occupied, (n,); None = always.
        low: lower end of the comfort band, °C.
        high: its upper end, °C.
        end: when the last sample stops holding, s; default: at its own time.
        radiant: mean radiant temperature, °C; default: the air's.
        clo: clothing, clo.

    Raises:
        ValueError: the arrays have different lengths.
    """
    surfaces = temperature if radiant is None else radiant
    lengths = {times.shape[0], temperature.shape[0], surfaces.shape[0]}
    if occupied is not None:
        lengths.add(occupied.shape[0])
    if len(lengths) != 1:
        raise ValueError(f"times, temperature, radiant and occupied must have one length, got {sorted(lengths)}")
    if times.size == 0:
        return Discomfort(0.0, 0.0, 0.0, float("nan"))
    held = hours_held(times, float(times[-1]) if end is None else end)
    counts = np.isfinite(temperature) & np.isfinite(surfaces)
    if occupied is not None:
        counts &= occupied > 0.5
    held, air, surfaces = held[counts], temperature[counts], surfaces[counts]
    hours = float(held.sum())
    if hours <= 0.0:
        return Discomfort(0.0, 0.0, 0.0, float("nan"))
    off = np.maximum(low - air, 0.0) + np.maximum(air - high, 0.0)
    dissatisfied = np.empty(air.shape[0])
    comfort_kernels.ppd_series(air, surfaces, AIR_VELOCITY, HUMIDITY, MET, clo, dissatisfied)
    return Discomfort(
        occupied_h=hours,
        kelvin_hours=float(np.sum(held * off)),
        hours_outside=float(np.sum(held * (off > 0.0))),
        mean_ppd=float(np.sum(held * dissatisfied) / hours),
    )
