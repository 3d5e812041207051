"""What the YAML files may say of a Modbus device and a point, and that the write journal reads back what it wrote."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from drivers.interface import EndpointSettings, PointAddress
from drivers.modbus.settings import REGISTERS, ModbusAddress, ModbusSettings


@given(timeout=st.floats(1e-6, 600.0), window=st.integers(1, 16), unit=st.integers(0, 255))
def test_settings_survive_the_write_journal(timeout: float, window: int, unit: int) -> None:
    """The release replays the journal in another process: settings it cannot read would leave points held for ever."""
    settings = ModbusSettings(host="10.0.0.5", timeout=timeout, window=window, unit_id=unit)
    assert ModbusSettings.model_validate_json(settings.model_dump_json()) == settings


@pytest.mark.parametrize(
    "given_",
    [
        {"coil": 3},
        {"discrete": 65535},
        {"input": 40, "type": "f32", "order": "CDAB", "scale": 0.1, "offset": -40.0},
        {"holding": 65532, "type": "f64"},
        {"input": 9, "bit": 15},
        {"holding": 9, "type": "bit", "bit": 0},
    ],
)
def test_addresses_survive_the_write_journal(given_: dict[str, Any]) -> None:
    address = ModbusAddress.model_validate(given_)
    assert ModbusAddress.model_validate_json(address.model_dump_json()) == address


@pytest.mark.parametrize(("text", "seconds"), [("500ms", 0.5), ("3s", 3.0), ("1.5 s", 1.5), ("2min", 120.0)])
def test_durations_have_a_unit(text: str, seconds: float) -> None:
    assert ModbusSettings.model_validate({"host": "x", "timeout": text}).timeout == seconds


@pytest.mark.parametrize("bad", ["3", "3h", "-1s", "0s", "601s", "s", "1e3s", 3, True, None])
def test_a_duration_that_is_none_is_refused(bad: object) -> None:
    with pytest.raises(ValidationError):
        ModbusSettings.model_validate({"host": "x", "timeout": bad})


@pytest.mark.parametrize("bad", ["3.0", "3", "null"])
def test_a_number_without_unit_in_a_file_is_refused(bad: str) -> None:
    with pytest.raises(ValidationError, match="such as 500ms or 3s"):
        ModbusSettings.model_validate_json(f'{{"host": "x", "timeout": {bad}}}')


@pytest.mark.parametrize(
    "bad",
    [
        {"port": 0},
        {"port": 65536},
        {"unit_id": 256},
        {"window": 0},
        {"window": 17},
        {"max_block": 126},
        {"max_gap": -1},
        {"prot": 502},
    ],
)
def test_settings_out_of_bounds_are_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        ModbusSettings.model_validate({"host": "x", **bad})


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({}, "exactly one of coil, discrete, input, holding; found none"),
        ({"coil": 1, "input": 2}, "found coil, input"),
        ({"coil": 1, "type": "u16"}, "a coil is one bit"),
        ({"holding": 1, "type": "bit"}, "needs bit: 0-15"),
        ({"holding": 1, "type": "f32", "bit": 3}, "one bit of a u16 register"),
        ({"holding": 1, "scale": 0.0}, "scale must not be 0"),
        ({"holding": 65535, "type": "u32"}, "runs past address 65535"),
        ({"holding": 65536}, "less than or equal to 65535"),
        ({"holding": 1, "bit": 16}, "less than or equal to 15"),
        ({"holding": 1, "scale": float("nan")}, "finite"),
        ({"holding": 1, "order": "DBCA"}, "ABCD"),
    ],
)
def test_impossible_addresses_are_refused_and_say_why(bad: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        ModbusAddress.model_validate(bad)


def test_what_the_configuration_check_asks() -> None:
    address = ModbusAddress(holding=7, type="u32", scale=-0.5)
    assert isinstance(address, PointAddress)
    assert address.span == ("holding", 7, 9)
    assert (address.writable, address.can_relinquish, address.resolution) == (True, False, 0.5)
    settings = ModbusSettings(host="h", unit_id=3)
    assert isinstance(settings, EndpointSettings)
    assert settings.endpoint == "h:502 unit_id 3"


@pytest.mark.parametrize(
    ("address", "writable"),
    [
        (ModbusAddress(coil=1), True),
        (ModbusAddress(holding=1), True),
        (ModbusAddress(discrete=1), False),
        (ModbusAddress(input=1), False),
        (ModbusAddress(holding=1, bit=3), True),
        (ModbusAddress(input=1, bit=3), False),
    ],
)
def test_what_can_be_written(address: ModbusAddress, writable: bool) -> None:
    assert address.writable is writable


@pytest.mark.parametrize("type_", ["f32", "f64", "bit"])
def test_floats_and_bits_have_no_step(type_: str) -> None:
    """A step of 1 for a coil would call 0 and 1 the same value when a write is read back."""
    given_ = {"coil": 1} if type_ == "bit" else {"holding": 1, "type": type_}
    assert ModbusAddress.model_validate(given_).resolution == 0.0


def test_every_type_has_a_size() -> None:
    assert REGISTERS == {"bit": 1, "i16": 1, "u16": 1, "i32": 2, "u32": 2, "f32": 2, "i64": 4, "u64": 4, "f64": 4}
