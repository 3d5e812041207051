"""Units: the table, exact conversions with their sources, and what must be refused."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safety import units
from safety.errors import UnitError

CODES = sorted(units.UNITS)


@pytest.mark.parametrize(
    ("value", "source", "target", "expected"),
    [
        (4.4, "Cel", "[degF]", 39.92),
        (-40.0, "[degF]", "Cel", -40.0),
        (0.0, "K", "Cel", -273.15),
        (20.0, "Cel", "K", 293.15),
        (491.67, "[degR]", "Cel", 0.0),
        (20.0, "mTorr", "Pa", 20 * 101325 / 760 / 1000),  # 1 Torr = 101325/760 Pa
        (1.0, "atm", "Torr", 760.0),
        (1.0, "[in_i'H2O]", "Pa", 249.08891),  # UCUM m[H2O] = 9.80665 kPa
        (1.0, "[psi]", "kPa", 6.894757293168361),  # NIST SP 811
        (1.0, "mbar", "Pa", 100.0),
        (1.0, "kW.h", "J", 3.6e6),
        (12000.0, "[Btu_IT]/h", "W", 3516.852842066667),
        (1.0, "[cft_i]/min", "L/s", 0.4719474432),
        (3.6, "m3/h", "L/s", 1.0),
        (1.0, "[gal_us]/min", "L/min", 3.785411784),
        (450.0, "ppm", "%", 0.045),
        (55.0, "[RH]%", "1", 0.55),
        (1.0, "slm", "sccm", 1000.0),
        (200.0, "nm/min", "m/s", 200e-9 / 60),
        (180.0, "deg", "rad", math.pi),
        (90.0, "min", "h", 1.5),
        (2.0, "lux", "lx", 2.0),
    ],
)
def test_known_conversions(value: float, source: str, target: str, expected: float) -> None:
    assert units.convert(value, source, target) == pytest.approx(expected, rel=1e-15, abs=1e-12)
    gain, offset = units.affine(source, target)
    assert value * gain + offset == pytest.approx(expected, rel=1e-12, abs=1e-12)


def test_differences_have_no_zero_point() -> None:
    assert units.convert_difference(1.8, "[degF]", "Cel") == pytest.approx(1.0)
    assert units.convert_difference(5.0, "K", "Cel") == 5.0
    assert units.convert_difference(3.0, "Cel", "Cel") == 3.0
    assert math.isnan(units.convert_difference(math.nan, "[degF]", "Cel"))
    assert units.mixes_scales("K", "Cel")
    assert units.mixes_scales("[degF]", "[degR]")
    assert not units.mixes_scales("Cel", "[degF]")
    assert not units.mixes_scales("K", "[degR]")


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_passes_through(value: float) -> None:
    converted = units.convert(value, "Cel", "[degF]")
    assert converted == value or (math.isnan(converted) and math.isnan(value))


@given(st.sampled_from(CODES), st.sampled_from(CODES), st.floats(-1e6, 1e6))
def test_there_and_back(source: str, target: str, value: float) -> None:
    if not units.same_dimension(source, target):
        with pytest.raises(UnitError, match="cannot convert"):
            units.convert(value, source, target)
        return
    there = units.convert(value, source, target)
    scale = max(abs(value), abs(units.convert(0.0, target, source)))
    assert units.convert(there, target, source) == pytest.approx(value, rel=1e-12, abs=1e-12 * scale + 1e-300)


@given(st.sampled_from(CODES), st.floats(allow_nan=False))
def test_the_same_unit_changes_nothing(code: str, value: float) -> None:
    assert units.convert(value, code, code) == value
    assert units.affine(code, code) == (1.0, 0.0)


def test_the_table_is_consistent() -> None:
    for code, one in units.UNITS.items():
        assert one.code == code
        assert one.gain > 0
        assert units.is_known(code)
    for alias, code in units.ALIASES.items():
        assert alias not in units.UNITS
        assert units.unit(alias) is units.UNITS[code]
    for meant, code in units._MEANT.items():
        assert not units.is_known(meant)
        assert code in units.UNITS
    with pytest.raises(TypeError):
        units.UNITS["C"] = units.UNITS["Cel"]  # type: ignore[index]


@pytest.mark.parametrize(
    ("wrong", "meant"),
    [
        ("degC", "Cel"),
        ("C", "Cel"),
        ("°F", "[degF]"),
        ("celcius", "Cel"),
        ("PA", "Pa"),
        ("kpa", "kPa"),
        ("psi", "[psi]"),
        ("kWh", "kW.h"),
        ("ppn", "[ppm]"),
    ],
)
def test_the_nearest_unit_is_named(wrong: str, meant: str) -> None:
    assert units.nearest(wrong) == meant
    with pytest.raises(UnitError, match="did you mean"):
        units.unit(wrong)


def test_nothing_near() -> None:
    assert units.nearest("zzzzzz") is None
    with pytest.raises(UnitError, match="units are UCUM codes"):
        units.unit("zzzzzz")


def test_a_coulomb_is_not_a_degree() -> None:
    with pytest.raises(UnitError):
        units.convert(20.0, "C", "K")
    with pytest.raises(UnitError, match="standard gas flow"):
        units.convert(1.0, "sccm", "m3/s")


def test_symbols() -> None:
    assert [units.symbol(code) for code in ("Cel", "%", "1", "m3/h", "[in_i'H2O]")] == ["°C", "%", "", "m³/h", "inH₂O"]


def test_conversions_are_rounded_once() -> None:
    assert units.convert(4.4, "Cel", "[degF]") == 39.92
    assert units.affine("Cel", "[degF]") == (1.8, 32.0)
