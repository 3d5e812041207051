"""A server's register map: answers one request PDU with one reply PDU. No sockets; values come and go through
functions.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from drivers.errors import AddressError, EncodingError
from drivers.modbus import codec, pdu
from drivers.modbus.pdu import ExceptionCode
from drivers.modbus.settings import REGISTERS, ModbusAddress, Table

_READ_TABLE: Final[dict[int, Table]] = {function: table for table, function in pdu.READ.items()}


@dataclass(frozen=True, slots=True)
class Register:
    """One value that a server shows. ``read`` returns it in the point's unit; ``write`` takes it, or raises ValueError.

    Without ``write`` the value cannot be written.
    """

    address: ModbusAddress
    read: Callable[[], float]
    write: Callable[[float], None] | None = None


class _RefusedError(Exception):
    """The request ends in an exception reply."""

    def __init__(self, code: ExceptionCode) -> None:
        self.code = code
        super().__init__(code.name)


class RegisterMap:
    """All registers of one unit. What is not in the map is an illegal address, gaps between values included."""

    def __init__(self, registers: Sequence[Register]) -> None:
        """Raises AddressError where two values claim one address; bits of one register may share it."""
        self._cells: dict[tuple[Table, int], list[tuple[Register, int]]] = {}
        for register in registers:
            address = register.address
            for word in range(REGISTERS[address.type]):
                cell = self._cells.setdefault((address.table, address.number + word), [])
                if any(address.bit is None or other.address.bit in (None, address.bit) for other, _ in cell):
                    raise AddressError(
                        f"{address.table} {address.number + word} is given twice; every value needs its own"
                    )
                cell.append((register, word))

    def answer(self, request: bytes) -> bytes:
        """Return the reply PDU, an exception reply included. Never raises for anything a client may send."""
        function = request[0]
        try:
            if function in _READ_TABLE:
                return self._read(_READ_TABLE[function], request)
            if function in (pdu.WRITE_COIL, pdu.WRITE_REGISTER):
                return self._write_one(request)
            if function in (pdu.WRITE_COILS, pdu.WRITE_REGISTERS):
                return self._write_many(request)
            if function == pdu.MASK_WRITE:
                return self._mask_write(request)
            raise _RefusedError(ExceptionCode.ILLEGAL_FUNCTION)
        except _RefusedError as refused:
            return bytes((function & 0x7F | pdu.ERROR_FLAG, refused.code))

    def _read(self, table: Table, request: bytes) -> bytes:
        bits = table in ("coil", "discrete")
        if len(request) != pdu.THREE.size:
            raise _RefusedError(ExceptionCode.ILLEGAL_DATA_VALUE)
        _function, start, count = pdu.THREE.unpack(request)
        if not 1 <= count <= (pdu.MAX_READ_BITS if bits else pdu.MAX_READ_REGISTERS):
            raise _RefusedError(ExceptionCode.ILLEGAL_DATA_VALUE)
        data = bytearray()
        encoded: dict[int, bytes] = {}
        """By identity: a value of several registers is asked for once per request, so that its parts belong
        together.
        """
        for number in range(start, start + count):
            cell = self._cells.get((table, number))
            if cell is None:
                raise _RefusedError(ExceptionCode.ILLEGAL_DATA_ADDRESS)
            register, word = cell[0]
            if register.address.bit is not None:
                data += _bits_of_register(cell)
                continue
            key = id(register)
            if key not in encoded:
                encoded[key] = _encoded(register)
            data += encoded[key] if bits else encoded[key][2 * word : 2 * word + 2]
        packed = pdu.pack_bits(bytes(data)) if bits else bytes(data)
        return bytes((request[0], len(packed))) + packed

    def _write_one(self, request: bytes) -> bytes:
        if len(request) != pdu.THREE.size:
            raise _RefusedError(ExceptionCode.ILLEGAL_DATA_VALUE)
        function, number, value = pdu.THREE.unpack(request)
        if function == pdu.WRITE_REGISTER:
            self._store("holding", number, request[3:5])
        elif value in (pdu.COIL_ON, pdu.COIL_OFF):
            self._store("coil", number, b"\x01" if value else b"\x00")
        else:
            raise _RefusedError(ExceptionCode.ILLEGAL_DATA_VALUE)
        return request

    def _write_many(self, request: bytes) -> bytes:
        bits = request[0] == pdu.WRITE_COILS
        if len(request) < pdu.FOUR.size:
            raise _RefusedError(ExceptionCode.ILLEGAL_DATA_VALUE)
        _function, start, count, length = pdu.FOUR.unpack_from(request)
        data = request[pdu.FOUR.size :]
        if (
            not 1 <= count <= (pdu.MAX_WRITE_BITS if bits else pdu.MAX_WRITE_REGISTERS)
            or length != len(data)
            or length != ((count + 7) // 8 if bits else 2 * count)
        ):
            raise _RefusedError(ExceptionCode.ILLEGAL_DATA_VALUE)
        self._store("coil" if bits else "holding", start, pdu.unpack_bits(data, count) if bits else data)
        return request[: pdu.WRITE_REPLY_LENGTH]

    def _mask_write(self, request: bytes) -> bytes:
        """Function 22: every bit that the masks change must be a value of its own that can be written."""
        if len(request) != pdu.MASK.size:
            raise _RefusedError(ExceptionCode.ILLEGAL_DATA_VALUE)
        _function, number, and_mask, or_mask = pdu.MASK.unpack(request)
        changed = 0xFFFF ^ and_mask
        writes: list[tuple[Callable[[float], None], float]] = []
        for register, _word in self._cells.get(("holding", number), []):
            address = register.address
            mask = codec.bit_mask(address) if address.bit is not None else 0
            if changed & mask and register.write is not None:
                changed ^= mask
                writes.append((register.write, float(bool(or_mask & mask)) * address.scale + address.offset))
        if changed:
            raise _RefusedError(ExceptionCode.ILLEGAL_DATA_ADDRESS)
        _do(writes)
        return request

    def _store(self, table: Table, start: int, data: bytes) -> None:
        """Check everything, then write everything: a request that touches half a value changes nothing."""
        width = 1 if table == "coil" else 2
        writes: list[tuple[Callable[[float], None], float]] = []
        number, place = start, 0
        while place < len(data):
            cell = self._cells.get((table, number))
            if cell is None:
                raise _RefusedError(ExceptionCode.ILLEGAL_DATA_ADDRESS)
            register, word = cell[0]
            end = place + width * REGISTERS[register.address.type]
            if word != 0 or end > len(data) or register.write is None or register.address.bit is not None:
                raise _RefusedError(ExceptionCode.ILLEGAL_DATA_ADDRESS)
            writes.append((register.write, codec.decode(register.address, data[place:end])))
            number, place = number + REGISTERS[register.address.type], end
        _do(writes)


def _do(writes: Sequence[tuple[Callable[[float], None], float]]) -> None:
    for write, value in writes:
        try:
            write(value)
        except ValueError as error:
            raise _RefusedError(ExceptionCode.ILLEGAL_DATA_VALUE) from error


def _encoded(register: Register) -> bytes:
    value = register.read()
    lost = codec.not_a_number(register.address) if math.isnan(value) else None
    if lost is not None:
        return lost
    try:
        return codec.encode(register.address, value, f"{register.address.table} {register.address.number}")
    except EncodingError as error:
        # The value exists, but not in this type: an honest failure, never a wrapped or an old number.
        raise _RefusedError(ExceptionCode.SERVER_DEVICE_FAILURE) from error


def _bits_of_register(cell: Sequence[tuple[Register, int]]) -> bytes:
    word = 0
    for register, _word in cell:
        address = register.address
        assert address.bit is not None
        raw = (register.read() - address.offset) / address.scale
        if raw not in (0.0, 1.0):
            raise _RefusedError(ExceptionCode.SERVER_DEVICE_FAILURE)
        word |= int(raw) << address.bit
    big = word.to_bytes(2, "big")
    return bytes(big[place] for place in codec.permutation("u16", cell[0][0].address.order))
