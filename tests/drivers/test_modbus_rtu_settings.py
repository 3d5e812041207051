"""What the YAML files may say of a serial line and of forbidden ranges, and the times that follow from a line's speed."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from drivers.interface import LineSettings
from drivers.modbus.serial_setup import SerialSetup
from drivers.modbus.settings import ModbusAddress, ModbusSettings

LINE = {"serial": "/dev/ttyUSB0", "unit_id": 3}
TLS = {"ca_file": "ca", "certificate_file": "cert", "key_file": "key"}


@pytest.mark.parametrize(
    "given",
    [
        LINE,
        {**LINE, "baud": 9600, "parity": "N", "stop_bits": 2, "timeout": "300ms"},
        {"host": "10.0.0.5", "rtu": True, "port": 4001},
        {"host": "10.0.0.5", "forbidden": {"holding": [[100, 120], [7, 7]], "coil": [[0, 65535]]}},
    ],
)
def test_settings_survive_the_write_journal(given: dict[str, Any]) -> None:
    settings = ModbusSettings.model_validate(given)
    assert ModbusSettings.model_validate_json(settings.model_dump_json()) == settings


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({}, "exactly one of host .* and serial .*; found none"),
        ({**LINE, "host": "x"}, "found both"),
        ({"host": "x", "baud": 9600}, "baud: only with serial"),
        ({"host": "x", "rtu": True, "parity": "N", "stop_bits": 1}, "parity, stop_bits: only with serial"),
        ({**LINE, "port": 4001}, "go with host"),
        ({**LINE, "rtu": True}, "go with host"),
        ({**LINE, "tls": TLS}, "go with host"),
        ({"host": "x", "rtu": True, "tls": TLS}, "give rtu or tls"),
        ({**LINE, "window": 2}, "one request at a time"),
        ({"host": "x", "rtu": True, "window": 2}, "one request at a time"),
        ({**LINE, "unit_id": 0}, "1 to 247"),
        ({**LINE, "unit_id": 248}, "1 to 247"),
        ({"serial": "ttyUSB0"}, "pattern"),
        ({**LINE, "baud": 9601}, "9600"),
        ({**LINE, "parity": "X"}, "'N', 'E' or 'O'"),
        ({**LINE, "stop_bits": 3}, "1 or 2"),
        ({"host": "x", "forbidden": {"holding": [[120, 100]]}}, "ends before it begins"),
        ({"host": "x", "forbidden": {"holding": [[0, 65536]]}}, "less than or equal to 65535"),
        ({"host": "x", "forbidden": {"registers": [[0, 1]]}}, "registers"),
    ],
)
def test_what_does_not_fit_together_is_refused(bad: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        ModbusSettings.model_validate(bad)


def test_what_the_configuration_check_asks() -> None:
    settings = ModbusSettings.model_validate(LINE)
    assert isinstance(settings, LineSettings)
    assert settings.endpoint == "/dev/ttyUSB0 unit_id 3"
    assert settings.line == ("/dev/ttyUSB0", "baud 19200, parity E, stop_bits 1")
    assert ModbusSettings.model_validate({**LINE, "baud": 19200, "parity": "E"}).line == settings.line
    assert ModbusSettings.model_validate({**LINE, "baud": 9600}).line != settings.line
    ways = [{"host": "h"}, {"host": "h", "rtu": True}, {"host": "h", "tls": TLS, "port": 502}]
    assert len({ModbusSettings.model_validate(way).line for way in ways}) == 3
    assert {ModbusSettings.model_validate(way).line[0] for way in ways} == {"h:502"}


@pytest.mark.parametrize(
    ("setup", "character_s", "quiet_s"),
    [
        (SerialSetup(9600, "E", 1), 11 / 9600, 3.5 * 11 / 9600),
        (SerialSetup(9600, "N", 1), 10 / 9600, 3.5 * 10 / 9600),
        (SerialSetup(19200, "N", 2), 11 / 19200, 3.5 * 11 / 19200),
        (SerialSetup(1200, "O", 2), 12 / 1200, 0.035),
        (SerialSetup(38400, "E", 1), 11 / 38400, 1.75e-3),
        (SerialSetup(115200, "E", 1), 11 / 115200, 1.75e-3),
    ],
)
def test_times_follow_from_the_setup(setup: SerialSetup, character_s: float, quiet_s: float) -> None:
    assert setup.timing.character_s == pytest.approx(character_s)
    assert setup.timing.quiet_s == pytest.approx(quiet_s)


@pytest.mark.parametrize("bad", [{"coil": 1}, {"holding": 1}, {"input": 1, "bit": 2}])
def test_read_modify_write_is_for_bits_of_holding_registers(bad: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="only for one bit of a holding register"):
        ModbusAddress.model_validate({**bad, "read_modify_write": True})


def test_two_bits_of_a_register_are_two_cells_and_the_register_is_both() -> None:
    low, high = (ModbusAddress(holding=7, bit=bit).span for bit in (0, 15))
    space, first, end = ModbusAddress(holding=7).span
    assert low == (space, 7.0, 7.0625)
    assert high == (space, 7.9375, 8.0)
    assert (first, end) == (7, 8)


def test_a_bit_has_no_step() -> None:
    """A step of 1 would call on and off the same value when a write is read back."""
    assert ModbusAddress(holding=1, bit=3).resolution == 0.0
