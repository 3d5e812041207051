"""BACnet engineering units (135 clause 21, BACnetEngineeringUnits) as UCUM codes, for points files made by discovery."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

UCUM: Final[Mapping[int, str]] = MappingProxyType(
    {
        62: "Cel", 63: "K", 64: "[degF]", 98: "%", 29: "%", 95: "1", 53: "Pa", 54: "kPa", 55: "bar", 56: "[psi]",
        133: "hPa", 134: "mbar", 58: "[in_i'H2O]", 47: "W", 48: "kW", 49: "MW", 16: "J", 17: "kJ", 18: "W.h", 19: "kW.h",
        146: "MW.h", 2: "mA", 3: "A", 5: "V", 124: "mV", 6: "kV", 27: "Hz", 4: "Ohm", 96: "[ppm]", 37: "lx",
        71: "h", 72: "min", 73: "s", 74: "m/s", 85: "m3/s", 135: "m3/h", 87: "L/s", 88: "L/min", 136: "L/h",
        84: "[cft_i]/min", 80: "m3", 82: "L", 39: "kg", 42: "kg/s", 104: "{rpm}", 90: "deg", 149: "kJ/kg",
        218: "mg/m3", 219: "ug/m3",
    }
)  # fmt: skip
"""Those of heating, ventilation and metering; others are left to whoever reads the file."""
