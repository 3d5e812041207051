"""Find where a value of the OPC UA binary encoding ends, without building it (OPC 10000-6, 5.2).

Takes time in proportion to the bytes, whatever the lengths in them claim: a server must not be able to keep us busy.
All functions take the message and a position, and return the position after the value; they raise struct.error or
IndexError where the message ends too early, and ProtocolError for what cannot be.
"""

from __future__ import annotations

from collections.abc import Callable
from struct import Struct
from typing import Final

from drivers.errors import ProtocolError

_I32: Final = Struct("<i")
_DEPTH: Final = 16
"""Variants in variants: nobody nests deeper, and a stack is finite."""
FIXED: Final[dict[int, int]] = {
    0: 0,
    1: 1,
    2: 1,
    3: 1,
    4: 2,
    5: 2,
    6: 4,
    7: 4,
    8: 8,
    9: 8,
    10: 4,
    11: 8,
    13: 8,
    14: 16,
    19: 4,
}
"""Bytes of the types that always take the same, by their number (OPC 10000-6, table 1)."""


def length_at(data: bytes, pos: int) -> int:
    """An Int32 that counts bytes or items; -1 (none) counts as 0."""
    count: int = _I32.unpack_from(data, pos)[0]
    if count < -1 or count > len(data):
        raise ProtocolError(f"a length of {count} in a message of {len(data)} bytes")
    return max(count, 0)


def skip_string(data: bytes, pos: int) -> int:
    """String, ByteString, XmlElement."""
    return _within(data, pos + 4 + length_at(data, pos))


def skip_node_id(data: bytes, pos: int) -> int:
    """NodeId and ExpandedNodeId."""
    encoding = data[pos]
    form = encoding & 0x3F
    if form in (0, 1, 2):
        end = pos + (2, 4, 7)[form]
    elif form in (3, 5):
        end = skip_string(data, pos + 3)
    elif form == 4:
        end = pos + 19
    else:
        raise ProtocolError(f"a node id of the unknown form {form}")
    if encoding & 0x80:
        end = skip_string(data, end)
    return _within(data, end + 4 if encoding & 0x40 else end)


def skip_extension_object(data: bytes, pos: int) -> int:
    """A structure, whatever is in it."""
    pos = skip_node_id(data, pos)
    return skip_string(data, pos + 1) if data[pos] else pos + 1


def skip_diagnostic_info(data: bytes, pos: int, depth: int = 0) -> int:
    """What a server says of an error beyond its code."""
    if depth > _DEPTH:
        raise ProtocolError("diagnostics nested too deep")
    mask = data[pos]
    pos += 1 + 4 * (mask & 0x0F).bit_count()
    if mask & 0x10:
        pos = skip_string(data, pos)
    if mask & 0x20:
        pos += 4
    return skip_diagnostic_info(data, pos, depth + 1) if mask & 0x40 else _within(data, pos)


def skip_variant(data: bytes, pos: int, depth: int = 0) -> int:
    """A value with its type, scalar or array."""
    encoding = data[pos]
    number = encoding & 0x3F
    pos += 1
    if encoding & 0x80:
        count = length_at(data, pos)
        pos += 4
        if number == 0 and count:
            raise ProtocolError(f"an array of {count} times nothing")
        if number in FIXED:
            pos = _within(data, pos + count * FIXED[number])
        else:
            for _ in range(count):
                pos = _skip_scalar(data, pos, number, depth)
    elif number in FIXED:
        pos = _within(data, pos + FIXED[number])
    else:
        pos = _skip_scalar(data, pos, number, depth)
    if encoding & 0x40:
        pos = _within(data, pos + 4 + 4 * length_at(data, pos))
    return pos


def skip_data_value(data: bytes, pos: int, depth: int = 0) -> int:
    """A value with status and timestamps."""
    mask = data[pos]
    pos += 1
    if mask & 0x01:
        pos = skip_variant(data, pos, depth)
    return _within(data, pos + (4 if mask & 0x02 else 0) + times_width(mask))


def times_width(mask: int) -> int:
    """Bytes of the timestamps that a data value's mask announces."""
    return 8 * (mask & 0x0C).bit_count() + 2 * (mask & 0x30).bit_count()


def _skip_scalar(data: bytes, pos: int, number: int, depth: int) -> int:
    if depth >= _DEPTH:
        raise ProtocolError("values nested too deep")
    if number in (23, 24, 25):
        nested = {23: skip_data_value, 24: skip_variant, 25: skip_diagnostic_info}[number]
        return nested(data, pos, depth + 1)
    skip = _SCALARS.get(number, skip_string if number > 25 else None)
    if skip is None:
        raise ProtocolError(f"a value of the unknown type {number}")
    return skip(data, pos)


def _skip_qualified_name(data: bytes, pos: int) -> int:
    return skip_string(data, pos + 2)


def _skip_localized_text(data: bytes, pos: int) -> int:
    mask = data[pos]
    pos += 1
    for bit in (0x01, 0x02):
        if mask & bit:
            pos = skip_string(data, pos)
    return pos


_SCALARS: Final[dict[int, Callable[[bytes, int], int]]] = {
    12: skip_string,
    15: skip_string,
    16: skip_string,
    17: skip_node_id,
    18: skip_node_id,
    20: _skip_qualified_name,
    21: _skip_localized_text,
    22: skip_extension_object,
}


def _within(data: bytes, pos: int) -> int:
    if pos > len(data):
        raise ProtocolError(f"a value ends {pos - len(data)} bytes behind the message")
    return pos
