"""The BACnet driver: the suite of every driver, and what is special to BACnet, on real sockets."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from bacnet_peers import HOST, Cell, Device, driver_for
from driver_suite import DriverSuite, Rig

from drivers.bacnet.settings import BacnetAddress
from drivers.interface import DeviceClock, DevicePoint, Driver

POINTS = {
    "ahu/supply": ("analogInput,1", 21.5),
    "ahu/outside": ({"object": "analogInput,2", "scale": 0.5, "offset": -40.0}, -12.25),
    "ahu/frost": ("binaryInput,4", 1.0),
    "ahu/mode": ("multiStateInput,1", 3.0),
    "ahu/valve": ("analogOutput,5", 40.0),
    "ahu/setpoint": ("analogValue,1", 20.5),
    "ahu/fan": ("binaryOutput,3", 0.0),
    "ahu/stage": ("multi-state-value,7", 2.0),
    "ahu/count": ("positiveIntegerValue,1", 70_000.0),
    "ahu/balance": ("integerValue,1", -70_010.0),
    "ahu/energy": ("largeAnalogValue,1", 123_456_789_012.5),
}


def address_of(name: str) -> BacnetAddress:
    return BacnetAddress.model_validate(POINTS[name][0])


class BacnetRig(Rig):
    values = {name: value for name, (_address, value) in POINTS.items()}  # noqa: RUF012
    writable = "ahu/valve"
    write_value = 55.5
    read_only = "ahu/supply"

    def __init__(self, clock: DeviceClock) -> None:
        self.clock = clock
        self.port = 0
        self.cells = {}
        for name, value in self.values.items():
            address = address_of(name)
            self.cells[name] = Cell(address.object, (value - address.offset) / address.scale)

    async def start(self) -> None:
        self.device = Device(list(self.cells.values()))
        await self.device.start(HOST, self.port)
        self.port = self.device.port
        self.address = f"{HOST}:{self.port}"

    async def stop(self) -> None:
        await self.device.close()

    def driver(self) -> Driver:
        points = [DevicePoint(name, address_of(name), writable=True) for name in POINTS]
        return driver_for(self.port, points, self.clock)

    def mute(self) -> None:
        self.device.tamper = lambda _request, _answer: []

    def held(self, point: str) -> float:
        return self.cells[point].value


class TestBacnetDriver(DriverSuite):
    @pytest.fixture
    async def rig(self, clock: DeviceClock) -> AsyncIterator[Rig]:
        rig = BacnetRig(clock)
        await rig.start()
        yield rig
        await rig.stop()
