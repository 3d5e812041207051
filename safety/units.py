"""Units: a static table of the UCUM codes that HVAC and fab equipment use, with exact conversion.

Codes are case-sensitive UCUM (https://ucum.org/ucum, "c/s" column). Four names that fabs insist on are not UCUM but are
accepted: ``Torr`` and ``mTorr`` (1/760 of a standard atmosphere), ``sccm`` and ``slm`` (gas flow referred to 0 °C and
101325 Pa, SEMI E12: a dimension of its own, because it cannot become m3/s without the state of the gas). So are the
spellings in :data:`ALIASES`.

Temperatures. ``Cel`` and ``[degF]`` have their own zero: they are positions on a scale. ``K`` and ``[degR]`` start at
absolute zero and are also the units of *differences*. :func:`convert` moves positions (20 Cel = 293.15 K).
:func:`convert_difference` moves differences, rates and spans (a rise of 1.8 [degF] is 1 Cel is 1 K). Whoever cannot
know which of the two a value is must refuse the mix: :func:`mixes_scales` says when.

Gains and offsets are exact fractions until the last step, so that 4.4 Cel is 39.92 [degF] and not 39.920000000000002.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from fractions import Fraction
from types import MappingProxyType
from typing import Final, final

from safety.errors import UnitError

__all__ = [
    "ALIASES",
    "UNITS",
    "Unit",
    "UnitError",
    "affine",
    "convert",
    "convert_difference",
    "is_known",
    "mixes_scales",
    "nearest",
    "same_dimension",
    "symbol",
    "unit",
]


@final
@dataclass(frozen=True, slots=True)
class Unit:
    """One unit. A value in SI is ``value * gain + offset``; ``symbol`` is what people read."""

    code: str
    dimension: str
    gain: Fraction
    offset: Fraction
    symbol: str


_INCH: Final = Fraction("0.0254")
_FOOT: Final = Fraction("0.3048")
_BTU_IT: Final = Fraction("1055.05585262")
_GALLON_US: Final = 231 * _INCH**3
_RANKINE: Final = Fraction(5, 9)
_TORR: Final = Fraction(101325, 760)
_ZERO_CELSIUS: Final = Fraction("273.15")

# dimension -> (code, gain to SI, offset to SI, symbol); the first row of each is the SI unit
_TABLE: Final[Mapping[str, tuple[tuple[str, Fraction | int | str, Fraction | int | str, str], ...]]] = {
    "number": (
        ("1", 1, 0, ""),
        ("%", "0.01", 0, "%"),
        ("%{RH}", "0.01", 0, "% RH"),
        ("[ppth]", "1e-3", 0, "‰"),
        ("[ppm]", "1e-6", 0, "ppm"),
        ("[ppb]", "1e-9", 0, "ppb"),
    ),
    "temperature": (
        ("K", 1, 0, "K"),
        ("Cel", 1, _ZERO_CELSIUS, "°C"),
        ("[degF]", _RANKINE, Fraction("459.67") * _RANKINE, "°F"),
        ("[degR]", _RANKINE, 0, "°R"),
    ),
    "pressure": (
        ("Pa", 1, 0, "Pa"),
        ("hPa", 100, 0, "hPa"),
        ("kPa", 1000, 0, "kPa"),
        ("MPa", 10**6, 0, "MPa"),
        ("bar", 10**5, 0, "bar"),
        ("mbar", 100, 0, "mbar"),
        ("atm", 101325, 0, "atm"),
        ("[psi]", "6894.757293168361", 0, "psi"),
        ("mm[Hg]", "133.322387415", 0, "mmHg"),
        ("[in_i'Hg]", Fraction("133322.387415") * _INCH, 0, "inHg"),
        ("mm[H2O]", "9.80665", 0, "mmH₂O"),
        ("[in_i'H2O]", Fraction("9806.65") * _INCH, 0, "inH₂O"),
        ("Torr", _TORR, 0, "Torr"),
        ("mTorr", _TORR / 1000, 0, "mTorr"),
    ),
    "power": (
        ("W", 1, 0, "W"),
        ("mW", "0.001", 0, "mW"),
        ("kW", 1000, 0, "kW"),
        ("MW", 10**6, 0, "MW"),
        ("[Btu_IT]/h", _BTU_IT / 3600, 0, "BTU/h"),
        ("[HP]", Fraction("745.69987158227022"), 0, "hp"),
    ),
    "energy": (
        ("J", 1, 0, "J"),
        ("kJ", 1000, 0, "kJ"),
        ("MJ", 10**6, 0, "MJ"),
        ("GJ", 10**9, 0, "GJ"),
        ("W.h", 3600, 0, "Wh"),
        ("kW.h", 3_600_000, 0, "kWh"),
        ("MW.h", 3_600_000_000, 0, "MWh"),
        ("[Btu_IT]", _BTU_IT, 0, "BTU"),
    ),
    "voltage": (("V", 1, 0, "V"), ("mV", "1e-3", 0, "mV"), ("kV", 1000, 0, "kV")),
    "current": (("A", 1, 0, "A"), ("mA", "1e-3", 0, "mA"), ("uA", "1e-6", 0, "µA")),
    "resistance": (("Ohm", 1, 0, "Ω"), ("kOhm", 1000, 0, "kΩ"), ("MOhm", 10**6, 0, "MΩ")),
    "apparent power": (("V.A", 1, 0, "VA"), ("kV.A", 1000, 0, "kVA")),
    "frequency": (
        ("Hz", 1, 0, "Hz"),
        ("kHz", 1000, 0, "kHz"),
        ("MHz", 10**6, 0, "MHz"),
        ("/min", Fraction(1, 60), 0, "1/min"),
        ("{rpm}", Fraction(1, 60), 0, "rpm"),
    ),
    "volume flow": (
        ("m3/s", 1, 0, "m³/s"),
        ("m3/h", Fraction(1, 3600), 0, "m³/h"),
        ("m3/min", Fraction(1, 60), 0, "m³/min"),
        ("L/s", "1e-3", 0, "L/s"),
        ("L/min", Fraction(1, 60_000), 0, "L/min"),
        ("L/h", Fraction(1, 3_600_000), 0, "L/h"),
        ("mL/min", Fraction(1, 60_000_000), 0, "mL/min"),
        ("[cft_i]/min", _FOOT**3 / 60, 0, "cfm"),
        ("[gal_us]/min", _GALLON_US / 60, 0, "gpm"),
    ),
    "standard gas flow": (("sccm", 1, 0, "sccm"), ("slm", 1000, 0, "slm")),
    "mass flow": (("kg/s", 1, 0, "kg/s"), ("kg/h", Fraction(1, 3600), 0, "kg/h"), ("g/s", "1e-3", 0, "g/s")),
    "speed": (
        ("m/s", 1, 0, "m/s"),
        ("km/h", Fraction(1000, 3600), 0, "km/h"),
        ("[ft_i]/min", _FOOT / 60, 0, "fpm"),
        ("nm/min", Fraction(1, 60 * 10**9), 0, "nm/min"),
        ("nm/s", "1e-9", 0, "nm/s"),
    ),
    "length": (
        ("m", 1, 0, "m"),
        ("mm", "1e-3", 0, "mm"),
        ("cm", "1e-2", 0, "cm"),
        ("um", "1e-6", 0, "µm"),
        ("nm", "1e-9", 0, "nm"),
        ("km", 1000, 0, "km"),
        ("[in_i]", _INCH, 0, "in"),
        ("[ft_i]", _FOOT, 0, "ft"),
    ),
    "area": (("m2", 1, 0, "m²"), ("cm2", "1e-4", 0, "cm²"), ("[sft_i]", _FOOT**2, 0, "ft²")),
    "volume": (("m3", 1, 0, "m³"), ("L", "1e-3", 0, "L"), ("[gal_us]", _GALLON_US, 0, "gal")),
    "mass": (("kg", 1, 0, "kg"), ("g", "1e-3", 0, "g"), ("t", 1000, 0, "t"), ("[lb_av]", "0.45359237", 0, "lb")),
    "concentration": (
        ("kg/m3", 1, 0, "kg/m³"),
        ("g/m3", "1e-3", 0, "g/m³"),
        ("mg/m3", "1e-6", 0, "mg/m³"),
        ("ug/m3", "1e-9", 0, "µg/m³"),
    ),
    "mass ratio": (("kg/kg", 1, 0, "kg/kg"), ("g/kg", "1e-3", 0, "g/kg")),
    "specific energy": (("J/kg", 1, 0, "J/kg"), ("kJ/kg", 1000, 0, "kJ/kg")),
    "irradiance": (("W/m2", 1, 0, "W/m²"), ("W/cm2", 10_000, 0, "W/cm²")),
    "illuminance": (("lx", 1, 0, "lx"), ("klx", 1000, 0, "klx")),
    "time": (
        ("s", 1, 0, "s"),
        ("ms", "1e-3", 0, "ms"),
        ("min", 60, 0, "min"),
        ("h", 3600, 0, "h"),
        ("d", 86_400, 0, "d"),
    ),
    "angle": (("rad", 1, 0, "rad"), ("deg", Fraction(math.pi) / 180, 0, "°")),
}

UNITS: Final[Mapping[str, Unit]] = MappingProxyType(
    {
        code: Unit(code, dimension, Fraction(gain), Fraction(offset), shown)
        for dimension, rows in _TABLE.items()
        for code, gain, offset, shown in rows
    }
)
"""Every unit by its code."""

ALIASES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "ppm": "[ppm]",
        "ppb": "[ppb]",
        "lux": "lx",
        "[RH]%": "%{RH}",
        "rpm": "{rpm}",
        "l/s": "L/s",
        "l/min": "L/min",
        "l/h": "L/h",
        "l": "L",
    }
)
"""Spellings that are accepted and mean exactly one code."""

# Spellings that are refused, because UCUM gives them another meaning (C is the coulomb, F the farad) or none at all.
_MEANT: Final[Mapping[str, str]] = {
    "C": "Cel", "°C": "Cel", "degC": "Cel", "celsius": "Cel", "F": "[degF]", "°F": "[degF]", "degF": "[degF]",
    "fahrenheit": "[degF]", "kelvin": "K", "psi": "[psi]", "inH2O": "[in_i'H2O]", "inHg": "[in_i'Hg]", "mmHg": "mm[Hg]",
    "torr": "Torr", "mtorr": "mTorr", "cfm": "[cft_i]/min", "gpm": "[gal_us]/min", "fpm": "[ft_i]/min",
    "kWh": "kW.h", "Wh": "W.h", "MWh": "MW.h", "BTU/h": "[Btu_IT]/h", "hp": "[HP]", "VA": "V.A", "kVA": "kV.A",
    "m³/h": "m3/h", "m³/s": "m3/s", "%RH": "%{RH}", "RH": "%{RH}", "percent": "%", "sec": "s", "hour": "h",
    "bool": "1", "": "1", "ohm": "Ohm", "°": "deg", "W/m²": "W/m2", "g/m³": "g/m3",
}  # fmt: skip


def unit(code: str) -> Unit:
    """The unit of a code or alias.

    Raises:
        UnitError: not in the table; the message names the nearest code.
    """
    found = UNITS.get(ALIASES.get(code, code))
    if found is None:
        near = nearest(code)
        hint = f"did you mean {near}?" if near else "units are UCUM codes such as Cel, Pa, %, kW, m3/h or 1"
        raise UnitError(f"unknown unit {code!r}: {hint}")
    return found


def is_known(code: str) -> bool:
    """Whether the code or alias is in the table."""
    return ALIASES.get(code, code) in UNITS


def nearest(code: str) -> str | None:
    """The code somebody probably meant, or None."""
    if code in _MEANT:
        return _MEANT[code]
    by_lower = {known.lower(): known for known in (*UNITS, *ALIASES, *_MEANT)}
    close = get_close_matches(code.lower(), by_lower, n=1, cutoff=0.6)
    if not close:
        return None
    known = by_lower[close[0]]
    return _MEANT.get(known, ALIASES.get(known, known))


def symbol(code: str) -> str:
    """What people read: ``Cel`` → ``°C``; the dimensionless ``1`` is the empty string. Raises UnitError."""
    return unit(code).symbol


def same_dimension(first: str, second: str) -> bool:
    """Whether values in the two units can be compared at all. Raises UnitError for an unknown code."""
    return unit(first).dimension == unit(second).dimension


def mixes_scales(first: str, second: str) -> bool:
    """Whether one unit has its own zero (Cel, [degF]) and the other is absolute (K, [degR]), and so may be a
    difference.
    """
    return (unit(first).offset == 0) != (unit(second).offset == 0)


def affine(source: str, target: str) -> tuple[float, float]:
    """(gain, offset) such that ``in_target = in_source * gain + offset``. Raises UnitError."""
    here, there = _pair(source, target)
    return float(here.gain / there.gain), float((here.offset - there.offset) / there.gain)


def convert(value: float, source: str, target: str) -> float:
    """A value, as a position on the scale. NaN and infinity pass through. Raises UnitError."""
    here, there = _pair(source, target)
    if not math.isfinite(value) or here == there:
        return value
    return float((Fraction(value) * here.gain + here.offset - there.offset) / there.gain)


def convert_difference(value: float, source: str, target: str) -> float:
    """A difference, span or rate: the zero points do not matter. NaN and infinity pass through. Raises UnitError."""
    here, there = _pair(source, target)
    if not math.isfinite(value) or here == there:
        return value
    return float(Fraction(value) * here.gain / there.gain)


def _pair(source: str, target: str) -> tuple[Unit, Unit]:
    here, there = unit(source), unit(target)
    if here.dimension != there.dimension:
        raise UnitError(f"cannot convert {source} ({here.dimension}) to {target} ({there.dimension})")
    return here, there
