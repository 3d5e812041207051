"""Framing of Modbus RTU: unit, PDU, CRC-16. There is no length and no transaction id, so an answer is recognised by the
question: the same unit and function, and the length or the echo that the question asks for. Pure functions.

Source: MODBUS over Serial Line Specification and Implementation Guide V1.02, sections 2.5.1 and 6.2.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from drivers.modbus.pdu import ERROR_FLAG, MAX_PDU, READ, write_echo

MAX_ADU: Final = MAX_PDU + 3
"""Unit, PDU, and two bytes of CRC."""
_POLYNOMIAL: Final = 0xA001
_READ_FUNCTIONS: Final = frozenset(READ.values())
_EXCEPTION_PDU: Final = 2


def _table() -> Iterator[int]:
    for byte in range(256):
        value = byte
        for _ in range(8):
            value = value >> 1 ^ (_POLYNOMIAL if value & 1 else 0)
        yield value


_TABLE: Final = tuple(_table())


def crc16(data: bytes | bytearray) -> int:
    """CRC-16/MODBUS. Over a whole frame, its own CRC included, it is 0."""
    value = 0xFFFF
    for byte in data:
        value = value >> 8 ^ _TABLE[(value ^ byte) & 0xFF]
    return value


def frame(unit: int, pdu: bytes) -> bytes:
    """Put the unit before a PDU and the CRC, low byte first, behind it."""
    body = bytes((unit,)) + pdu
    return body + crc16(body).to_bytes(2, "little")


@dataclass(frozen=True, slots=True)
class Expected:
    """What answers a question: a PDU of ``length`` bytes with ``function``, and for a write exactly ``echo``.

    Two questions to one unit whose expectations are equal have answers that nobody can tell apart.
    """

    function: int
    length: int
    echo: bytes = b""

    @classmethod
    def answer_to(cls, request: bytes, reply_length: int) -> Expected:
        """The answer to a request PDU."""
        if request[0] in _READ_FUNCTIONS:
            return cls(request[0], reply_length)
        return cls(request[0], reply_length, write_echo(request))

    def fits(self, start: bytes) -> bool:
        """Whether the first bytes of a PDU, as far as they have come, are of such an answer."""
        if self.echo:
            return self.echo.startswith(start[: len(self.echo)])
        return start[0] == self.function and (len(start) < 2 or start[1] == self.length - 2)


def find_reply(heard: bytes | bytearray, unit: int, expected: Expected, *, complete: bool) -> bytes | None:
    """The PDU of the answer from ``unit`` in what was heard since the question, or None.

    Noise, and answers to other questions, may stand before it. While more may come (not ``complete``), nothing is
    searched behind the beginning of an answer that is not all there: its own data could look like a frame.
    """
    start = heard.find(unit)
    while 0 <= start < len(heard) - 1:
        size = 0
        if heard[start + 1] == expected.function | ERROR_FLAG:
            size = 1 + _EXCEPTION_PDU + 2
        elif expected.fits(bytes(heard[start + 1 : start + 1 + expected.length])):
            size = 1 + expected.length + 2
        if size and start + size > len(heard):
            if not complete:
                return None
        elif size and crc16(heard[start : start + size]) == 0:
            return bytes(heard[start + 1 : start + size - 2])
        start = heard.find(unit, start + 1)
    return None
