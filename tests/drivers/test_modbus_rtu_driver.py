"""The suite of every driver, on a serial line."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from driver_suite import DriverSuite, Rig
from rtu_peers import Question, ScriptedLine, line_driver

from drivers.interface import DeviceClock, DevicePoint, Driver
from drivers.modbus.registers import Register, RegisterMap
from drivers.modbus.settings import ModbusAddress

POINTS = {
    "ahu/supply": (ModbusAddress(input=10, type="f32"), 21.5),
    "ahu/valve": (ModbusAddress(holding=5, scale=0.01), 40.0),
    "ahu/flow": (ModbusAddress(holding=8, type="f64", order="CDAB"), 1234.5678),
    "ahu/enable": (ModbusAddress(holding=12, bit=3), 0.0),
}


class SlaveRig(Rig):
    values = {name: value for name, (_address, value) in POINTS.items()}  # noqa: RUF012
    writable = "ahu/valve"
    write_value = 55.55
    read_only = "ahu/supply"

    def __init__(self, clock: DeviceClock, folder: Path) -> None:
        self.clock = clock
        self.store = dict(self.values)
        self.muted = False
        self.port = folder / "ttyRS485"
        self.address = str(self.port)
        self.registers = RegisterMap([self._register(name) for name in POINTS])

    def _register(self, name: str) -> Register:
        address = POINTS[name][0]
        write = (lambda value: self.store.__setitem__(name, value)) if address.writable else None
        return Register(address, lambda: self.store[name], write)

    def _answer(self, question: Question) -> None:
        if question.unit == 3 and not self.muted:
            question.answer(self.registers.answer(question.pdu))

    async def start(self) -> None:
        self.line = await ScriptedLine(self._answer).__aenter__()
        self.port.symlink_to(self.line.path)

    async def stop(self) -> None:
        self.line.unplug()
        self.port.unlink(missing_ok=True)

    def driver(self) -> Driver:
        points = [DevicePoint(name, address, writable=True) for name, (address, _value) in POINTS.items()]
        return line_driver(str(self.port), points, self.clock, unit_id=3)

    def mute(self) -> None:
        self.muted = True

    def held(self, point: str) -> float:
        return self.store[point]


class TestModbusRtuDriver(DriverSuite):
    @pytest.fixture
    async def rig(self, clock: DeviceClock, tmp_path: Path) -> AsyncIterator[Rig]:
        rig = SlaveRig(clock, tmp_path)
        await rig.start()
        yield rig
        await rig.stop()
