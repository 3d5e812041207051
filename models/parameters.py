"""What a zone and an air handler are made of: named parameters with nominal values, and the rows the kernels read.

Nominal values are a light office zone of 100 m² on a small air handler with heat pump and chiller.
"""

from __future__ import annotations

from dataclasses import astuple, dataclass, fields, replace
from typing import Self

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class ZoneParameters:
    """One zone; the fields are in the order of the columns ``Z_*`` of :mod:`models.kernels`."""

    air_j_k: float = 2.0e6
    """Heat capacity of air and furniture."""
    mass_j_k: float = 15.0e6
    envelope_j_k: float = 20.0e6
    windows_w_k: float = 45.0
    """Air to outdoors without storage."""
    air_mass_w_k: float = 700.0
    air_envelope_w_k: float = 150.0
    envelope_outdoor_w_k: float = 60.0
    mass_outdoor_w_k: float = 0.0
    infiltration_m3_s: float = 0.01
    supply_m3_s: float = 0.1
    """Air from the air handler at full fan."""
    volume_m3: float = 270.0
    solar_m2: float = 5.0
    """Window area times solar transmittance."""
    solar_air: float = 0.3
    """Share of the sun that heats the air at once."""
    people: float = 4.0
    gain_base_w: float = 80.0
    gain_use_w: float = 800.0
    """Light and appliances when occupied."""
    heating_w_k: float = 300.0
    """Fan coil to hot water at full fan and open valve: 9 kW from 50 °C water."""
    cooling_w_k: float = 240.0
    """Fan coil to chilled water: 4 kW from 7 °C water."""
    fan_w: float = 60.0

    def two_node(self) -> Self:
        """The 2R2C form: the envelope node cut off, the mass exchanging with outdoors in its place."""
        return replace(self, air_envelope_w_k=0.0, envelope_outdoor_w_k=0.0, mass_outdoor_w_k=self.envelope_outdoor_w_k)


@dataclass(frozen=True, slots=True)
class AirHandlerParameters:
    """One air handler and its plant room; the fields are in the order of columns ``A_*`` of :mod:`models.kernels`."""

    leak: float = 0.03
    """Outdoor share of the supply air with the damper closed."""
    stack: float = 0.05
    """Air that drifts through with the fan off and the damper open, relative to full fan."""
    heating_w_k: float = 90.0
    cooling_w_k: float = 820.0
    coil_j_k: float = 40.0e3
    fan_w: float = 600.0
    static_pa: float = 400.0
    filter_pa: float = 120.0
    heat_pump_w: float = 40.0e3
    chiller_w: float = 20.0e3
    lowest_stage: float = 0.25
    tank_j_k: float = 1.26e6
    """300 litres each of hot and chilled water."""
    hot_degc: float = 35.0
    hot_slope: float = 0.5
    cold_degc: float = 7.0

    @classmethod
    def for_zones(cls, zones: int) -> Self:
        """The nominal air handler, which serves four zones, scaled to ``zones``."""
        size = zones / 4.0
        scaled = ("heating_w_k", "cooling_w_k", "coil_j_k", "fan_w", "heat_pump_w", "chiller_w", "tank_j_k")
        nominal = cls()
        return replace(nominal, **{name: size * getattr(nominal, name) for name in scaled})


SOLAR_SIDES = (0.5, 1.0, 1.4, 1.0)
"""Sun on a façade to the north, east, south, west relative to the mean of all four, over a year at middle latitudes."""


def zone_row(zone: ZoneParameters) -> Floats:
    """The kernel's row of a zone, shape (ZONE_PARAMETERS,)."""
    return np.array(astuple(zone), dtype=np.float64)


def air_handler_row(handler: AirHandlerParameters) -> Floats:
    """The kernel's row of an air handler, shape (AIR_HANDLER_PARAMETERS,)."""
    return np.array(astuple(handler), dtype=np.float64)


def vary(zone: ZoneParameters, random: np.random.Generator, spread: float) -> ZoneParameters:
    """A zone whose every parameter is drawn within ±``spread`` (0..1) of the given one: no two rooms are alike."""
    drawn = {
        field.name: getattr(zone, field.name) * random.uniform(1.0 - spread, 1.0 + spread) for field in fields(zone)
    }
    drawn["solar_air"] = min(drawn["solar_air"], 1.0)
    return replace(zone, **drawn)
