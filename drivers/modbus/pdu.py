"""The protocol data units of the nine functions that poetd uses: requests, replies, exceptions. Pure functions.

Source: MODBUS Application Protocol Specification V1.1b3 (Modbus Organization), sections 6.1-6.6, 6.11, 6.12, 6.16 and 7.
"""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import Final

import numpy as np

from drivers.errors import DeviceRefusedError, ProtocolError
from drivers.modbus.settings import Table

MAX_PDU: Final = 253
MAX_READ_REGISTERS: Final = 125
MAX_READ_BITS: Final = 2000
MAX_WRITE_REGISTERS: Final = 123
MAX_WRITE_BITS: Final = 1968

ERROR_FLAG: Final = 0x80
WRITE_COIL: Final = 5
WRITE_REGISTER: Final = 6
WRITE_COILS: Final = 15
WRITE_REGISTERS: Final = 16
MASK_WRITE: Final = 22
READ: Final[dict[Table, int]] = {"coil": 1, "discrete": 2, "holding": 3, "input": 4}
COIL_ON: Final = 0xFF00
COIL_OFF: Final = 0x0000

THREE: Final = struct.Struct(">BHH")
FOUR: Final = struct.Struct(">BHHB")
MASK: Final = struct.Struct(">BHHH")


class ExceptionCode(IntEnum):
    """Why a server refuses, by the names of the specification's section 7."""

    ILLEGAL_FUNCTION = 1
    ILLEGAL_DATA_ADDRESS = 2
    ILLEGAL_DATA_VALUE = 3
    SERVER_DEVICE_FAILURE = 4
    ACKNOWLEDGE = 5
    SERVER_DEVICE_BUSY = 6
    NEGATIVE_ACKNOWLEDGE = 7
    MEMORY_PARITY_ERROR = 8
    GATEWAY_PATH_UNAVAILABLE = 10
    GATEWAY_TARGET_FAILED_TO_RESPOND = 11


_REMEDY: Final[dict[int, str]] = {
    ExceptionCode.ILLEGAL_FUNCTION: "the device does not have this table or function",
    ExceptionCode.ILLEGAL_DATA_ADDRESS: "no such address there (0-based here): see the device's register list",
    ExceptionCode.ILLEGAL_DATA_VALUE: "it does not accept this value, or this many registers: see limits and max_block",
    ExceptionCode.SERVER_DEVICE_FAILURE: "the device failed inside: look at its own fault display",
    ExceptionCode.ACKNOWLEDGE: "the device is still working on it: raise timeout",
    ExceptionCode.SERVER_DEVICE_BUSY: "the device is busy: poll it less often",
    ExceptionCode.GATEWAY_PATH_UNAVAILABLE: "the gateway has no way to this unit_id: check its routing",
    ExceptionCode.GATEWAY_TARGET_FAILED_TO_RESPOND: "nothing answers behind the gateway: check unit_id and wiring",
}


class ModbusExceptionError(DeviceRefusedError):
    """The device answered with an exception. ``code`` is its number, ``name`` its name in the specification."""

    def __init__(self, where: str, code: int) -> None:
        self.code = code
        known = code in ExceptionCode.__members__.values()
        self.name = ExceptionCode(code).name.lower().replace("_", " ") if known else "unknown exception"
        super().__init__(f"{where}: exception {code}, {self.name}; {_REMEDY.get(code, 'see the manual of the device')}")


def read_request(table: Table, start: int, count: int) -> bytes:
    """Ask for ``count`` registers or bits from ``start``."""
    return THREE.pack(READ[table], start, count)


def read_reply_length(table: Table, count: int) -> int:
    """The length in bytes that the PDU answering :func:`read_request` must have."""
    return 2 + ((count + 7) // 8 if table in ("coil", "discrete") else 2 * count)


def write_request(table: Table, start: int, data: bytes, *, multiple: bool) -> bytes:
    """Write registers (2 bytes each) or coils (1 byte each, 0 or 1) from ``start``.

    One register or coil goes with the single-write function unless ``multiple`` asks for the other; more always with
    the multiple one.
    """
    if table == "coil":
        if len(data) == 1 and not multiple:
            return THREE.pack(WRITE_COIL, start, COIL_ON if data[0] else COIL_OFF)
        packed = pack_bits(data)
        return FOUR.pack(WRITE_COILS, start, len(data), len(packed)) + packed
    if len(data) == 2 and not multiple:
        return struct.pack(">BH", WRITE_REGISTER, start) + data
    return FOUR.pack(WRITE_REGISTERS, start, len(data) // 2, len(data)) + data


def mask_request(start: int, mask: int, level: bool) -> bytes:
    """Set (``level``) or clear the bits of ``mask`` in one holding register and leave the others alone (function 22).

    The device computes ``(register & and_mask) | (or_mask & ~and_mask)`` by itself, so that nobody's bit is lost.
    """
    return MASK.pack(MASK_WRITE, start, 0xFFFF ^ mask, mask if level else 0)


WRITE_REPLY_LENGTH: Final = 5


def write_echo(request: bytes) -> bytes:
    """What the answer to a write must be, byte for byte: the whole request for a mask, else its first five bytes.

    The single writes echo address and value, the multiple ones address and count.
    """
    return request if request[0] == MASK_WRITE else request[:WRITE_REPLY_LENGTH]


def check_write_reply(request: bytes, reply: bytes) -> None:
    """Raise ProtocolError unless the device echoed what the specification says it must (:func:`write_echo`)."""
    echo = write_echo(request)
    if reply != echo:
        raise ProtocolError(f"the device acknowledged something else: sent {echo.hex(' ')}, echoed {reply.hex(' ')}")


def pack_bits(data: bytes) -> bytes:
    """One byte per bit to eight bits per byte, the first bit lowest."""
    return np.packbits(np.frombuffer(data, np.uint8), bitorder="little").tobytes()


def unpack_bits(packed: bytes, count: int) -> bytes:
    """Eight bits per byte to one byte per bit, the first bit lowest."""
    return np.unpackbits(np.frombuffer(packed, np.uint8), count=count, bitorder="little").tobytes()
