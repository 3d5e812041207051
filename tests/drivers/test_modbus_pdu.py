"""Requests and replies byte by byte, against the worked examples of the Modbus specification V1.1b3, section 6."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivers.errors import DeviceRefusedError, ProtocolError
from drivers.modbus import pdu


@pytest.mark.parametrize(
    ("table", "start", "count", "expected"),
    [
        ("coil", 0x13, 0x13, "01 00 13 00 13"),
        ("discrete", 0xC4, 0x16, "02 00 C4 00 16"),
        ("holding", 0x6B, 3, "03 00 6B 00 03"),
        ("input", 8, 1, "04 00 08 00 01"),
    ],
)
def test_read_requests_of_the_specification(table: str, start: int, count: int, expected: str) -> None:
    assert pdu.read_request(table, start, count) == bytes.fromhex(expected)  # type: ignore[arg-type]


def test_write_requests_of_the_specification() -> None:
    assert pdu.write_request("coil", 0xAC, b"\x01", multiple=False) == bytes.fromhex("05 00AC FF00")
    assert pdu.write_request("holding", 1, b"\x00\x03", multiple=False) == bytes.fromhex("06 0001 0003")
    assert pdu.write_request("holding", 1, bytes.fromhex("000A0102"), multiple=False) == bytes.fromhex(
        "10 0001 0002 04 000A 0102"
    )
    coils = bytes([1, 0, 1, 1, 0, 0, 1, 1, 1, 0])
    assert pdu.write_request("coil", 0x13, coils, multiple=False) == bytes.fromhex("0F 0013 000A 02 CD01")


def test_single_writes_can_be_asked_for_as_multiple_ones() -> None:
    assert pdu.write_request("coil", 2, b"\x01", multiple=True) == bytes.fromhex("0F 0002 0001 01 01")
    assert pdu.write_request("holding", 2, b"\x12\x34", multiple=True) == bytes.fromhex("10 0002 0001 02 1234")


@given(st.lists(st.integers(0, 1), min_size=1, max_size=2000))
def test_bits_round_trip(bits: list[int]) -> None:
    packed = pdu.pack_bits(bytes(bits))
    assert len(packed) == (len(bits) + 7) // 8
    assert list(pdu.unpack_bits(packed, len(bits))) == bits


@pytest.mark.parametrize(
    ("table", "count", "length"), [("coil", 8, 3), ("coil", 9, 4), ("discrete", 2000, 252), ("holding", 125, 252)]
)
def test_reply_lengths(table: str, count: int, length: int) -> None:
    assert pdu.read_reply_length(table, count) == length  # type: ignore[arg-type]
    assert length <= pdu.MAX_PDU


def test_a_write_reply_must_echo_the_request() -> None:
    request = pdu.write_request("holding", 1, bytes(4), multiple=False)
    pdu.check_write_reply(request, bytes.fromhex("1000010002"))
    for wrong in ("1000020002", "1000010001", "0600010002"):
        with pytest.raises(ProtocolError, match="acknowledged something else"):
            pdu.check_write_reply(request, bytes.fromhex(wrong))


@pytest.mark.parametrize("code", [*pdu.ExceptionCode, 77])
def test_exceptions_carry_their_name_and_a_remedy(code: int) -> None:
    error = pdu.ModbusExceptionError("10.0.0.5:502 unit 3", code)
    assert isinstance(error, DeviceRefusedError)
    assert f"10.0.0.5:502 unit 3: exception {int(code)}, {error.name}; " in str(error)
    assert error.name == ("unknown exception" if code == 77 else pdu.ExceptionCode(code).name.lower().replace("_", " "))
