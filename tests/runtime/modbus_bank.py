"""A real Modbus TCP device on loopback: holding registers as floats, by address."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterable

from drivers.modbus.registers import Register, RegisterMap
from drivers.modbus.server import ModbusServer
from drivers.modbus.settings import ModbusAddress, ModbusSettings


class Bank:
    """The device's values, and everything that was written to it."""

    def __init__(self, addresses: Iterable[int]) -> None:
        self.values = dict.fromkeys(addresses, 0.0)
        self.writes: list[tuple[int, float]] = []
        self.refuse: set[int] = set()
        self.port = 0

    def _write(self, address: int, value: float) -> None:
        if address in self.refuse:
            raise ValueError("the device refuses")
        self.writes.append((address, value))
        self.values[address] = value

    def map(self) -> RegisterMap:
        """Holding registers and the same values as input registers."""
        registers = []
        for table in ("holding", "input"):
            for number in self.values:
                registers.append(
                    Register(
                        ModbusAddress.model_validate({table: number, "type": "f32"}),
                        lambda number=number: self.values[number],
                        (lambda value, number=number: self._write(number, value)) if table == "holding" else None,
                    )
                )
        return RegisterMap(registers)

    def settings(self, timeout: float = 0.5) -> ModbusSettings:
        """How to reach it."""
        return ModbusSettings(host="127.0.0.1", port=self.port, timeout=timeout, connect_timeout=0.5)


@contextlib.asynccontextmanager
async def bank(*addresses: int) -> AsyncIterator[Bank]:
    """A served bank."""
    device = Bank(addresses)
    server = ModbusServer({1: device.map()})
    await server.start("127.0.0.1", 0)
    device.port = server.port
    try:
        yield device
    finally:
        await server.close()
