"""Writing one bit of a holding register without losing the others: the device does it (function 22), or, where the
point allows it, we read the register and write it back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from drivers.errors import NotWritableError, ProtocolError
from drivers.modbus import codec, pdu
from drivers.modbus.settings import REGISTERS, ModbusAddress
from drivers.modbus.transaction import Probe

Ask = Callable[[bytes, int, Probe | None], Awaitable[bytes]]
"""(request, length of its answer, its probe) → the answer. Raises DriverError."""


def read_of(address: ModbusAddress) -> Probe:
    """The read of what a write changes: harmless, and never mistaken for the write's own answer."""
    count = REGISTERS[address.type]
    return Probe(pdu.read_request(address.table, address.number, count), pdu.read_reply_length(address.table, count))


class BitWriter:
    """The bits of one device. Remembers whether it has function 22."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask
        self._has_mask = True
        self._one_at_a_time = asyncio.Lock()
        """Two bits of one register, read and written back side by side, would undo each other."""

    async def write(self, address: ModbusAddress, value: float, point: str) -> None:
        """Write one bit.

        Raises:
            EncodingError: the value is not one of the two.
            NotWritableError: the device does not have function 22, and the point does not say read_modify_write.
            DriverError: as every write.
        """
        mask, level = codec.encode_bit(address, value, point)
        if self._has_mask or not address.read_modify_write:
            try:
                await self._acknowledged(pdu.mask_request(address.number, mask, level), pdu.MASK.size, address)
                return
            except pdu.ModbusExceptionError as error:
                if error.code != pdu.ExceptionCode.ILLEGAL_FUNCTION:
                    raise
                self._has_mask = False
                if not address.read_modify_write:
                    raise NotWritableError(
                        f"{point}: the device cannot write single bits (no function 22); if nobody else changes the "
                        f"other bits of holding {address.number}, say read_modify_write: true"
                    ) from error
        async with self._one_at_a_time:
            await self._read_modify_write(address, mask, level, point)

    async def _read_modify_write(self, address: ModbusAddress, mask: int, level: bool, point: str) -> None:
        read = read_of(address)
        reply = await self._ask(read.pdu, read.reply_length, None)
        if reply[1] != 2:
            raise ProtocolError(f"{point}: answer says {reply[1]} bytes, one register has 2")
        word = int.from_bytes(reply[2:], "big")
        word = word | mask if level else word & ~mask
        request = pdu.write_request("holding", address.number, word.to_bytes(2, "big"), multiple=False)
        await self._acknowledged(request, pdu.WRITE_REPLY_LENGTH, address)

    async def _acknowledged(self, request: bytes, reply_length: int, address: ModbusAddress) -> None:
        pdu.check_write_reply(request, await self._ask(request, reply_length, read_of(address)))
