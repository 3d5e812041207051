"""The codec: every type in every order, both ways, one by one and vectorised, and nothing that does not fit."""

from __future__ import annotations

import math
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivers.errors import EncodingError, ProtocolError
from drivers.modbus.codec import ImageDecoder, byte_width, decode, encode, permutation
from drivers.modbus.settings import REGISTERS, ModbusAddress

ORDERS = ("ABCD", "DCBA", "BADC", "CDAB")
RANGES = {
    "i16": (-(2**15), 2**15 - 1),
    "u16": (0, 2**16 - 1),
    "i32": (-(2**31), 2**31 - 1),
    "u32": (0, 2**32 - 1),
    "i64": (-(2**63), 2**63 - 1),
    "u64": (0, 2**64 - 1),
}
FORMATS = dict(zip(("i16", "u16", "i32", "u32", "i64", "u64", "f32", "f64"), "hHiIqQfd", strict=True))


def address(type_: str, order: str = "ABCD", **more: object) -> ModbusAddress:
    return ModbusAddress.model_validate({"holding": 0, "type": type_, "order": order, **more})


def by_definition(type_: str, order: str, number: float) -> bytes:
    """The order's definition on whole registers, written independently of the codec's index arithmetic."""
    big = struct.pack(">" + FORMATS[type_], number)
    words = [big[i : i + 2] for i in range(0, len(big), 2)]
    if order in ("CDAB", "DCBA"):
        words = words[::-1]
    if order in ("BADC", "DCBA"):
        words = [word[::-1] for word in words]
    return b"".join(words)


def test_the_four_orders_of_32_bits_are_what_their_names_say() -> None:
    value = 0xAABBCCDD
    got = {order: encode(address("u32", order), value, "p").hex() for order in ORDERS}
    assert got == {"ABCD": "aabbccdd", "DCBA": "ddccbbaa", "BADC": "bbaaddcc", "CDAB": "ccddaabb"}


def test_the_four_orders_of_64_bits() -> None:
    value = 0x4142434445464748  # too long for a float's digits: compare the exact neighbour that a float can hold
    exact = int(float(value))
    names = {"ABCD": "ABCDEFGH", "DCBA": "HGFEDCBA", "BADC": "BADCFEHG", "CDAB": "GHEFCDAB"}
    big = exact.to_bytes(8, "big")
    for order, name in names.items():
        assert encode(address("u64", order), float(value), "p") == bytes(
            big["ABCDEFGH".index(letter)] for letter in name
        )


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("type_", FORMATS)
def test_permutations_are_their_own_inverse(type_: str, order: str) -> None:
    places = permutation(type_, order)  # type: ignore[arg-type]
    assert sorted(places) == list(range(2 * REGISTERS[type_]))
    assert [places[place] for place in places] == list(range(len(places)))


@given(data=st.data(), type_=st.sampled_from(sorted(RANGES)), order=st.sampled_from(ORDERS))
def test_integers_round_trip(data: st.DataObject, type_: str, order: str) -> None:
    low, high = RANGES[type_]
    number = data.draw(st.integers(max(low, -(2**53)), min(high, 2**53)))
    wire = encode(address(type_, order), float(number), "p")
    assert wire == by_definition(type_, order, number)
    assert decode(address(type_, order), wire) == number


@given(number=st.floats(allow_nan=False, allow_infinity=False), order=st.sampled_from(ORDERS))
def test_f64_round_trips(number: float, order: str) -> None:
    wire = encode(address("f64", order), number, "p")
    assert wire == by_definition("f64", order, number)
    assert decode(address("f64", order), wire) == number


@given(number=st.floats(width=32, allow_nan=False, allow_infinity=False), order=st.sampled_from(ORDERS))
def test_f32_round_trips(number: float, order: str) -> None:
    wire = encode(address("f32", order), number, "p")
    assert wire == by_definition("f32", order, number)
    assert decode(address("f32", order), wire) == number


@given(
    scale=st.sampled_from([0.001, 0.01, 0.1, 0.5, 1.0, 2.0, 10.0, -0.1]),
    offset=st.sampled_from([0.0, -40.0, 273.15]),
    raw=st.integers(-30000, 30000),
)
def test_scale_and_offset_are_undone_exactly(scale: float, offset: float, raw: int) -> None:
    where = address("i16", scale=scale, offset=offset)
    value = decode(where, struct.pack(">h", raw))
    assert value == raw * scale + offset
    assert encode(where, value, "p") == struct.pack(">h", raw)


@pytest.mark.parametrize("type_", RANGES)
def test_integer_limits_are_dense_at_the_edge(type_: str) -> None:
    """±5 steps around both ends: inside it is written, outside it is an error that names the point; never wrapped."""
    low, high = RANGES[type_]
    step = 1 if high < 2**53 else 2**11
    for edge in (low, high + 1 if high > 2**53 else high):
        for k in range(-5, 6):
            number = edge + k * step
            if low <= int(float(number)) <= high:
                assert decode(address(type_), encode(address(type_), float(number), "ahu/valve")) == float(number)
            else:
                with pytest.raises(EncodingError, match=r"ahu/valve.*does not fit"):
                    encode(address(type_), float(number), "ahu/valve")


def test_half_a_step_beyond_the_range_rounds_in_and_more_does_not() -> None:
    assert encode(address("u16"), 65535.4, "p") == b"\xff\xff"
    with pytest.raises(EncodingError):
        encode(address("u16"), 65535.6, "p")
    with pytest.raises(EncodingError):
        encode(address("u16"), -0.6, "p")


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("type_", [*FORMATS, "bit"])
def test_not_finite_is_never_written(type_: str, bad: float) -> None:
    where = ModbusAddress(coil=1) if type_ == "bit" else address(type_)
    with pytest.raises(EncodingError, match="ahu/valve"):
        encode(where, bad, "ahu/valve")


def test_a_float_too_large_for_f32_is_an_error_and_not_infinity() -> None:
    with pytest.raises(EncodingError, match="too large for f32"):
        encode(address("f32"), 3.5e38, "p")
    with pytest.raises(EncodingError, match="too large"):
        encode(address("f64", scale=1e-10), 1e300, "p")
    with pytest.raises(EncodingError, match="does not fit"):
        encode(address("i64", scale=1e-10), 1e300, "p")


def test_a_coil_takes_0_or_1_and_nothing_between() -> None:
    coil = ModbusAddress(coil=3)
    assert encode(coil, 1.0, "p") == b"\x01"
    assert encode(coil, 0.0, "p") == b"\x00"
    for bad in (0.5, 2.0, -1.0):
        with pytest.raises(EncodingError, match="write 0 or 1"):
            encode(coil, bad, "p")
    inverted = ModbusAddress(coil=3, scale=-1.0, offset=1.0)
    assert encode(inverted, 1.0, "p") == b"\x00"
    assert decode(inverted, b"\x00") == 1.0


@pytest.mark.parametrize("bit", range(16))
@pytest.mark.parametrize("order", ORDERS)
def test_one_bit_of_a_register(bit: int, order: str) -> None:
    where = ModbusAddress.model_validate({"input": 0, "bit": bit, "order": order})
    on = by_definition("u16", order, 1 << bit)
    off = by_definition("u16", order, 0xFFFF ^ 1 << bit)
    assert (decode(where, on), decode(where, off)) == (1.0, 0.0)
    decoder = ImageDecoder([where, where], [0, 2])
    assert decoder.decode(np.frombuffer(on + off, np.uint8)).tolist() == [1.0, 0.0]


def test_a_wrong_length_is_a_protocol_error() -> None:
    with pytest.raises(ProtocolError, match="got 2 bytes"):
        decode(address("f32"), b"\x00\x00")


def test_a_devices_nan_and_infinity_come_through_without_a_warning() -> None:
    payloads = [struct.pack(">f", math.nan), b"\x7f\x80\x00\x01", struct.pack(">f", math.inf)]  # the second signals
    decoder = ImageDecoder([address("f32")] * 3, [0, 4, 8])
    values = decoder.decode(np.frombuffer(b"".join(payloads), np.uint8))
    assert np.isnan(values[:2]).all()
    assert values[2] == math.inf


@st.composite
def addresses(draw: st.DrawFn) -> list[ModbusAddress]:
    made = []
    for _ in range(draw(st.integers(1, 40))):
        kind = draw(st.sampled_from([*FORMATS, "coil", "bit"]))
        order = draw(st.sampled_from(ORDERS))
        more = {
            "order": order,
            "scale": draw(st.sampled_from([1.0, 0.1, -2.0])),
            "offset": draw(st.sampled_from([0.0, 5.0])),
        }
        if kind == "coil":
            made.append(ModbusAddress.model_validate({"coil": 0, **more}))
        elif kind == "bit":
            made.append(ModbusAddress.model_validate({"input": 0, "bit": draw(st.integers(0, 15)), **more}))
        else:
            made.append(address(kind, **more))
    return made


@given(points=addresses(), data=st.data())
def test_the_vectorised_decoder_agrees_with_the_scalar_one(points: list[ModbusAddress], data: st.DataObject) -> None:
    offsets, size = [], 0
    for point in points:
        offsets.append(size)
        size += byte_width(point)
    image = bytearray(data.draw(st.binary(min_size=size, max_size=size)))
    for point, offset in zip(points, offsets, strict=True):
        if point.table == "coil":
            image[offset] &= 1
    values = ImageDecoder(points, offsets).decode(np.frombuffer(image, np.uint8))
    for point, offset, value in zip(points, offsets, values, strict=True):
        expected = decode(point, bytes(image[offset : offset + byte_width(point)]))
        assert value == expected or (math.isnan(value) and math.isnan(expected))


def test_no_points_decode_to_nothing() -> None:
    assert ImageDecoder([], []).decode(np.zeros(0, np.uint8)).shape == (0,)
