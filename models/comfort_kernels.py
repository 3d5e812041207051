"""Thermal comfort: predicted mean vote and percentage dissatisfied by ISO 7730 (Fanger), as plain functions.

Kernels: each function compiles under numba and runs as it is in plain Python. No exceptions, no allocation.
"""

from __future__ import annotations

import math
from typing import Any

MET = 58.15
"""Watt per square metre of one met."""
CLO = 0.155
"""Square metre kelvin per watt of one clo."""
MAX_ITERATIONS = 150


def pmv(air: float, radiant: float, velocity: float, humidity: float, met: float, clo: float) -> float:
    """Predicted mean vote, −3 (cold) to +3 (hot); the program of ISO 7730:2005 Annex D, without external work.

    Args:
        air: air temperature, °C.
        radiant: mean radiant temperature, °C.
        velocity: air velocity relative to the body, m/s.
        humidity: relative humidity, %.
        met: metabolic rate, met.
        clo: clothing insulation, clo.

    Returns:
        The vote; NaN where the clothing temperature does not converge or an input is NaN.
    """
    vapour = humidity * 10.0 * math.exp(16.6536 - 4030.183 / (air + 235.0))
    insulation = CLO * clo
    metabolism = MET * met
    if insulation <= 0.078:
        area = 1.0 + 1.29 * insulation
    else:
        area = 1.05 + 0.645 * insulation
    forced = 12.1 * math.sqrt(velocity)
    air_k = air + 273.0
    radiant_k = radiant + 273.0
    first = air_k + (35.5 - air) / (3.5 * (6.45 * insulation + 0.1))
    p1 = insulation * area
    p2 = p1 * 3.96
    p3 = p1 * 100.0
    p4 = p1 * air_k
    radiant_square = (radiant_k / 100.0) * (radiant_k / 100.0)
    radiant_fourth = radiant_square * radiant_square
    p5 = 308.7 - 0.028 * metabolism + p2 * radiant_fourth
    new = first / 100.0
    old = first / 50.0
    convection = forced
    rounds = 0
    while not abs(new - old) <= 0.00015:
        rounds += 1
        if rounds > MAX_ITERATIONS:
            return math.nan
        old = (old + new) / 2.0
        natural = 2.38 * math.sqrt(math.sqrt(abs(100.0 * old - air_k)))
        convection = max(forced, natural)
        new = (p5 + p4 * convection - p2 * old * old * old * old) / (100.0 + p3 * convection)
    surface = 100.0 * new - 273.0
    diffusion = 3.05e-3 * (5733.0 - 6.99 * metabolism - vapour)
    sweat = 0.42 * (metabolism - MET) if metabolism > MET else 0.0
    latent = 1.7e-5 * metabolism * (5867.0 - vapour)
    dry = 0.0014 * metabolism * (34.0 - air)
    radiation = 3.96 * area * (new * new * new * new - radiant_fourth)
    convective = area * convection * (surface - air)
    sensation = 0.303 * math.exp(-0.036 * metabolism) + 0.028
    return sensation * (metabolism - diffusion - sweat - latent - dry - radiation - convective)


def ppd(vote: float) -> float:
    """Predicted percentage dissatisfied at a predicted mean vote, % (ISO 7730:2005 equation 5). 5 % at best."""
    square = vote * vote
    return 100.0 - 95.0 * math.exp(-0.03353 * square * square - 0.2179 * square)


def ppd_series(air: Any, radiant: Any, velocity: float, humidity: float, met: float, clo: float, out: Any) -> None:
    """PPD of every sample, %: ``air``, ``radiant`` and ``out`` are f8 of shape (n,); the rest is the same for all."""
    for i in range(air.shape[0]):
        out[i] = ppd(pmv(air[i], radiant[i], velocity, humidity, met, clo))


HELPERS: tuple[str, ...] = ("pmv", "ppd")

SIGNATURES: dict[str, str] = {
    "pmv": "f8(f8,f8,f8,f8,f8,f8)",
    "ppd": "f8(f8)",
    "ppd_series": "void(f8[::1],f8[::1],f8,f8,f8,f8,f8[::1])",
}
