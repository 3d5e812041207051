"""How BACnet writes values: application and context tags (135 clause 20.2). Everything that is read is length-checked."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Final, NamedTuple

from drivers.errors import ProtocolError

NULL: Final = 0
BOOLEAN: Final = 1
UNSIGNED: Final = 2
SIGNED: Final = 3
REAL: Final = 4
DOUBLE: Final = 5
OCTETS: Final = 6
CHARACTERS: Final = 7
BITS: Final = 8
ENUMERATED: Final = 9
DATE: Final = 10
TIME: Final = 11
OBJECT_ID: Final = 12
CONSTRUCTED: Final = -1
"""Not a tag: a value in context tags, which is skipped."""

NUMBERS: Final = frozenset((BOOLEAN, UNSIGNED, SIGNED, REAL, DOUBLE, ENUMERATED))
_SIZES: Final = {NULL: (0, 0), BOOLEAN: (0, 0), UNSIGNED: (1, 8), SIGNED: (1, 8), REAL: (4, 4), DOUBLE: (8, 8),
                 BITS: (1, 64), ENUMERATED: (1, 4), DATE: (4, 4), TIME: (4, 4), OBJECT_ID: (4, 4)}  # fmt: skip
MAX_DEPTH: Final = 16
UTF_8: Final = 0


class MalformedError(ProtocolError):
    """Bytes that are not what the standard says must stand there."""


class Value(NamedTuple):
    """One value: its tag, the number it is (NaN where it is none), and where its content lies."""

    tag: int
    number: float
    at: int
    size: int


class Tag(NamedTuple):
    """One tag. ``size`` is the content's, or the value itself of an application boolean."""

    number: int
    context: bool
    opening: bool
    closing: bool
    size: int


_NAN: Final = float("nan")


class Reader:
    """Reads tags from ``data[at:end]``. Raises MalformedError instead of running past the end."""

    __slots__ = ("at", "data", "end")

    def __init__(self, data: bytes, at: int = 0, end: int | None = None) -> None:
        self.data = data
        self.at = at
        self.end = len(data) if end is None else end

    @property
    def left(self) -> int:
        """How many bytes are left."""
        return self.end - self.at

    def byte(self) -> int:
        """The next byte."""
        if self.at >= self.end:
            raise MalformedError("the answer is cut short")
        value = self.data[self.at]
        self.at += 1
        return value

    def take(self, count: int) -> int:
        """Pass over ``count`` bytes; returns where they begin."""
        begin = self.at
        if count > self.end - begin:
            raise MalformedError(f"{count} bytes are announced, {self.end - begin} are left")
        self.at = begin + count
        return begin

    def tag(self) -> Tag:
        """The next tag; its content is not passed."""
        first = self.byte()
        number, size = first >> 4, first & 7
        if number == 15:
            number = self.byte()
            if not 15 <= number <= 254:
                raise MalformedError(f"tag number {number} in the extended form")
        context = bool(first & 8)
        if context and size >= 6:
            return Tag(number, True, size == 6, size == 7, 0)
        if size == 5:
            size = self.byte()
            if size >= 254:
                width = 2 if size == 254 else 4
                begin = self.take(width)
                size = int.from_bytes(self.data[begin : begin + width], "big")
        elif size > 5:
            raise MalformedError(f"application tag {number} with length code {size}")
        return Tag(number, context, False, False, size)

    def peek(self) -> int:
        """The next byte without passing it; -1 at the end."""
        return self.data[self.at] if self.at < self.end else -1

    def open(self, number: int) -> None:
        """Pass the opening tag ``number``."""
        if self.byte() != (number << 4 | 0x0E):
            raise MalformedError(f"opening tag {number} is missing at byte {self.at - 1}")

    def close(self, number: int) -> None:
        """Pass the closing tag ``number``."""
        if self.byte() != (number << 4 | 0x0F):
            raise MalformedError(f"closing tag {number} is missing at byte {self.at - 1}")

    def context_unsigned(self, number: int, most: int = 4) -> int:
        """An unsigned or enumerated value in context tag ``number``, of up to ``most`` bytes."""
        tag = self.tag()
        if not tag.context or tag.number != number or tag.opening or tag.closing or not 1 <= tag.size <= most:
            raise MalformedError(f"context tag {number} is missing at byte {self.at - 1}")
        begin = self.take(tag.size)
        return int.from_bytes(self.data[begin : self.at], "big")

    def context_object(self, number: int) -> tuple[int, int]:
        """An object identifier in context tag ``number``: type and instance."""
        begin = self.at
        packed = self.context_unsigned(number)
        if self.at - begin != 5:
            raise MalformedError(f"object identifier of {self.at - begin - 1} bytes")
        return packed >> 22, packed & 0x3FFFFF

    def has_context(self, number: int) -> bool:
        """Whether a primitive in context tag ``number`` comes next."""
        first = self.peek()
        return first >= 0 and first & 0xF8 == (number << 4 | 8) and first & 7 < 6

    def value(self) -> Value:
        """One application value, or one value in context tags, which is passed over."""
        tag = self.tag()
        if tag.context:
            return self._skip(tag)
        kind, size = tag.number, tag.size
        if kind == BOOLEAN:
            if size > 1:
                raise MalformedError(f"boolean {size}")
            return Value(BOOLEAN, float(size), self.at - 1, 0)
        least, most = _SIZES.get(kind, (0, 0xFFFF))
        if kind > OBJECT_ID or not least <= size <= most:
            raise MalformedError(f"application tag {kind} of {size} bytes")
        begin = self.take(size)
        return Value(kind, _number(kind, self.data[begin : self.at]), begin, size)

    def values(self, closing: int) -> list[Value]:
        """All values up to and with the closing tag."""
        found = []
        last = closing << 4 | 0x0F
        while self.peek() != last:
            found.append(self.value())
        self.at += 1
        return found

    def _skip(self, tag: Tag) -> Value:
        begin = self.at
        if tag.closing:
            raise MalformedError(f"closing tag {tag.number} without its opening")
        self.take(tag.size)
        open_tags = [tag.number] if tag.opening else []
        while open_tags:
            inner = self.tag()
            if inner.opening:
                if len(open_tags) >= MAX_DEPTH:
                    raise MalformedError("values are nested too deep")
                open_tags.append(inner.number)
            elif inner.closing:
                if open_tags.pop() != inner.number:
                    raise MalformedError(f"closing tag {inner.number} without its opening")
            elif inner.context or inner.number != BOOLEAN:
                self.take(inner.size)
        return Value(CONSTRUCTED, _NAN, begin, self.at - begin)


def _number(kind: int, content: bytes) -> float:
    if kind in (UNSIGNED, ENUMERATED, OBJECT_ID):
        return float(int.from_bytes(content, "big"))
    if kind == REAL:
        return float(struct.unpack(">f", content)[0])
    if kind == SIGNED:
        return float(int.from_bytes(content, "big", signed=True))
    if kind == DOUBLE:
        return float(struct.unpack(">d", content)[0])
    return _NAN


def bits(data: bytes, value: Value) -> list[bool]:
    """A bit string as booleans, first bit first. Raises MalformedError if it is none."""
    unused = data[value.at] if value.tag == BITS else 8
    if unused > 7 or (unused and value.size == 1):
        raise MalformedError("not a bit string")
    content = data[value.at + 1 : value.at + value.size]
    return [bool(content[k // 8] & 0x80 >> k % 8) for k in range(8 * len(content) - unused)]


def status_byte(data: bytes, values: Sequence[Value]) -> int | None:
    """Where the byte with the four status flags is; None if these are not status flags."""
    if len(values) != 1 or values[0].tag != BITS or values[0].size != 2 or data[values[0].at] != 4:
        return None
    at = values[0].at + 1
    return at if not data[at] & (0x0F) else None


def text(data: bytes, value: Value) -> str:
    """A character string. Raises MalformedError if it is none, or in a character set that is not UTF-8."""
    if value.tag != CHARACTERS or value.size < 1 or data[value.at] != UTF_8:
        raise MalformedError("not a character string in UTF-8")
    return data[value.at + 1 : value.at + value.size].decode("utf-8", "replace")


def head(number: int, size: int, *, context: bool = False) -> bytes:
    """A tag for ``size`` bytes of content; tag numbers up to 14, sizes up to 65535."""
    first = number << 4 | (8 if context else 0)
    if size < 5:
        return bytes((first | size,))
    if size < 254:
        return bytes((first | 5, size))
    return bytes((first | 5, 254)) + size.to_bytes(2, "big")


def context_unsigned(number: int, value: int) -> bytes:
    """An unsigned or enumerated value in a context tag."""
    content = _shortest(value)
    return head(number, len(content), context=True) + content


def context_object(number: int, kind: int, instance: int) -> bytes:
    """An object identifier in a context tag."""
    return head(number, 4, context=True) + (kind << 22 | instance).to_bytes(4, "big")


def application(kind: int, value: float) -> bytes:
    """A number as an application value. Raises OverflowError or struct.error where it does not fit."""
    if kind == NULL:
        return b"\x00"
    if kind == BOOLEAN:
        return bytes((BOOLEAN << 4 | bool(value),))
    if kind == REAL:
        return head(REAL, 4) + struct.pack(">f", value)
    if kind == DOUBLE:
        return head(DOUBLE, 8) + struct.pack(">d", value)
    whole = int(value)
    if kind == SIGNED:
        content = whole.to_bytes((whole + (whole < 0)).bit_length() // 8 + 1, "big", signed=True)
    elif kind == OBJECT_ID:
        content = whole.to_bytes(4, "big")
    else:
        content = _shortest(whole)
    return head(kind, len(content)) + content


def application_text(value: str) -> bytes:
    """A character string in UTF-8."""
    content = bytes((UTF_8,)) + value.encode()
    return head(CHARACTERS, len(content)) + content


def application_bits(flags: list[bool]) -> bytes:
    """A bit string."""
    content = bytearray((len(flags) + 7) // 8)
    for k, flag in enumerate(flags):
        content[k // 8] |= (0x80 >> k % 8) if flag else 0
    return head(BITS, len(content) + 1) + bytes((-len(flags) % 8,)) + bytes(content)


def _shortest(value: int) -> bytes:
    return value.to_bytes(max(1, (value.bit_length() + 7) // 8), "big")
