"""Values to wire bytes and back: the one codec of the reads, the writes and the server. Pure functions.

A 16-bit register travels high byte first. Values of two or four registers exist in four layouts, named after the
order in which the bytes of the 32-bit value 0xAABBCCDD arrive; for 64 bits the same rule is applied to four registers:

=====  ======================================  ==================
order  meaning                                 bytes of 64 bits
=====  ======================================  ==================
ABCD   big-endian, the standard's              AB CD EF GH
DCBA   little-endian throughout                HG FE DC BA
BADC   registers in order, bytes swapped       BA DC FE HG
CDAB   registers reversed, bytes in order      GH EF CD AB
=====  ======================================  ==================

For one register ABCD and CDAB are the same, and so are DCBA and BADC. A coil or discrete input is one byte, 0 or 1,
in this module; packing eight to a byte is the business of ``pdu``.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from drivers.errors import EncodingError, ProtocolError
from drivers.modbus.settings import REGISTERS, ByteOrder, DataType, ModbusAddress

_INTEGERS: Final[dict[str, tuple[int, int]]] = {
    "i16": (-(2**15), 2**15 - 1),
    "u16": (0, 2**16 - 1),
    "i32": (-(2**31), 2**31 - 1),
    "u32": (0, 2**32 - 1),
    "i64": (-(2**63), 2**63 - 1),
    "u64": (0, 2**64 - 1),
}
_STRUCTS: Final = {
    name: struct.Struct(">" + code)
    for name, code in zip(("i16", "u16", "i32", "u32", "i64", "u64", "f32", "f64"), "hHiIqQfd", strict=True)
}
_LITTLE_ENDIAN: Final = {
    "i16": "<i2",
    "u16": "<u2",
    "i32": "<i4",
    "u32": "<u4",
    "i64": "<i8",
    "u64": "<u8",
    "f32": "<f4",
    "f64": "<f8",
}


def is_bit_table(address: ModbusAddress) -> bool:
    """Whether the address is a coil or a discrete input: one image byte, packed eight to a byte on the wire."""
    return address.table in ("coil", "discrete")


def byte_width(address: ModbusAddress) -> int:
    """How many bytes the value takes in an image: 1 for coils and discrete inputs, else 2 per register."""
    return 1 if is_bit_table(address) else 2 * REGISTERS[address.type]


def permutation(data_type: DataType, order: ByteOrder) -> tuple[int, ...]:
    """For each byte on the wire, its place in the big-endian value. Each of the four is its own inverse."""
    places = list(range(2 * REGISTERS[data_type]))
    if order in ("DCBA", "CDAB"):
        places.reverse()
    if order in ("BADC", "CDAB"):
        places = [places[i ^ 1] for i in range(len(places))]
    return tuple(places)


def encode(address: ModbusAddress, value: float, point: str) -> bytes:
    """Turn a value in the point's unit into wire bytes: ``raw = (value - offset) / scale``, integers rounded to the
    nearest.

    Raises:
        EncodingError: NaN or infinity, or a raw value outside the type's range. Nothing wraps and nothing saturates.
    """
    if not math.isfinite(value):
        raise EncodingError(f"{point}: {value} cannot be written: only finite numbers go to a device")
    raw = (value - address.offset) / address.scale
    if address.type == "bit":
        if raw not in (0.0, 1.0):
            raise EncodingError(f"{point}: {value:g} cannot be written to one bit: write 0 or 1")
        return b"\x01" if raw else b"\x00"
    if address.type in _INTEGERS:
        low, high = _INTEGERS[address.type]
        number: float = round(raw) if math.isfinite(raw) else raw
        if not low <= number <= high:
            raise EncodingError(
                f"{point}: {value:g} (raw {raw:g}) does not fit {address.type} ({low}..{high}): "
                "narrow the point's limits, or correct its type, scale or offset"
            )
    else:
        number = raw
    try:
        big = _STRUCTS[address.type].pack(number)
    except OverflowError:
        big = b""
    if not big or not math.isfinite(_STRUCTS[address.type].unpack(big)[0]):
        raise EncodingError(
            f"{point}: {value:g} (raw {raw:g}) is too large for {address.type}: correct the point's type or scale"
        )
    return bytes(big[place] for place in permutation(address.type, address.order))


def not_a_number(address: ModbusAddress) -> bytes | None:
    """The wire bytes of NaN, as a device shows a lost sensor; None for types that have none. For servers: nothing that
    writes to a device may send it.
    """
    if address.type not in ("f32", "f64"):
        return None
    big = _STRUCTS[address.type].pack(math.nan)
    return bytes(big[place] for place in permutation(address.type, address.order))


def bit_mask(address: ModbusAddress) -> int:
    """The mask of the address's bit in its register as it stands on the wire."""
    assert address.bit is not None
    return 1 << (address.bit ^ 8 if address.order in ("DCBA", "BADC") else address.bit)


def encode_bit(address: ModbusAddress, value: float, point: str) -> tuple[int, bool]:
    """For one bit of a register: its mask in the register as it stands on the wire, and its level.

    Raises:
        EncodingError: the value is neither of the two.
    """
    if not math.isfinite(value):
        raise EncodingError(f"{point}: {value} cannot be written: only finite numbers go to a device")
    raw = (value - address.offset) / address.scale
    if raw not in (0.0, 1.0):
        raise EncodingError(f"{point}: {value:g} cannot be written to one bit: write 0 or 1")
    return bit_mask(address), bool(raw)


def decode(address: ModbusAddress, payload: bytes) -> float:
    """Turn one value's wire bytes into the point's unit: ``value = raw * scale + offset``. A device's NaN stays NaN.

    Integers beyond 2**53 lose their last digits: every value in poetd is a 64-bit float.
    """
    if len(payload) != byte_width(address):
        raise ProtocolError(
            f"{address.table} {address.number}: got {len(payload)} bytes, {address.type} takes {byte_width(address)}"
        )
    if is_bit_table(address):
        raw = float(payload[0])
    else:
        data_type: DataType = "u16" if address.bit is not None else address.type
        big = bytes(payload[place] for place in permutation(data_type, address.order))
        raw = float(_STRUCTS[data_type].unpack(big)[0])
        if address.bit is not None:
            raw = float(int(raw) >> address.bit & 1)
    return raw * address.scale + address.offset


@dataclass(frozen=True, slots=True)
class _Group:
    """All points of one type. ``source`` (n, width) picks their bytes, least significant first; ``target`` (n,) is
    where they go.
    """

    dtype: str
    source: npt.NDArray[np.intp]
    target: npt.NDArray[np.intp]


class ImageDecoder:
    """Decodes all points of a device from one image of bytes in a few numpy calls.

    The byte orders are folded into index arrays made once, so that a poll costs one gather per data type, whatever
    the mixture.
    """

    def __init__(self, addresses: Sequence[ModbusAddress], offsets: Sequence[int]) -> None:
        """``offsets`` (n_points,): where each value's first wire byte lies in the image."""
        sources: dict[str, list[list[int]]] = {}
        targets: dict[str, list[int]] = {}
        bits: list[tuple[int, int, int]] = []
        for target, (address, offset) in enumerate(zip(addresses, offsets, strict=True)):
            if is_bit_table(address):
                bits.append((target, offset, 0))
            elif address.bit is not None:
                low_byte = permutation("u16", address.order)[1]
                bits.append((target, offset + (low_byte if address.bit < 8 else 1 - low_byte), address.bit % 8))
            else:
                places = permutation(address.type, address.order)
                sources.setdefault(address.type, []).append([offset + place for place in reversed(places)])
                targets.setdefault(address.type, []).append(target)
        self._groups = tuple(
            _Group(_LITTLE_ENDIAN[name], np.array(sources[name], np.intp), np.array(targets[name], np.intp))
            for name in sources
        )
        self._bit_target, self._bit_source, self._bit_shift = np.array(bits, np.intp).reshape(-1, 3).T.copy()
        self._scale = np.array([address.scale for address in addresses])
        self._offset = np.array([address.offset for address in addresses])

    def decode(self, image: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
        """Return every point's value, shape (n_points,), in the points' units. NaN and infinities from the device
        come through.
        """
        value = np.empty(len(self._scale))
        # A device's signalling NaN, or a product beyond the largest float, is data for Perceive, not a fault of ours.
        with np.errstate(all="ignore"):
            for group in self._groups:
                value[group.target] = image.take(group.source).view(group.dtype)[:, 0]
            if len(self._bit_target):
                value[self._bit_target] = image.take(self._bit_source) >> self._bit_shift & 1
            value *= self._scale
            value += self._offset
        return value
