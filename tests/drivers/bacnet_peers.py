"""BACnet devices for tests: one that can misbehave in any way, and helpers to make points and drivers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from drivers.bacnet.driver import BacnetDriver
from drivers.bacnet.frames import UNICAST, Station, bvlc, npdu_to, parse
from drivers.bacnet.objects import BacnetObject, ObjectTable
from drivers.bacnet.server import BacnetServer
from drivers.bacnet.settings import BacnetAddress, BacnetSettings
from drivers.interface import DeviceClock, DevicePoint

DEVICE = 1234
HOST = "127.0.0.1"


class Cell:
    """A value a test can set, as an object of a server."""

    def __init__(self, where: str, value: float, **more: Any) -> None:
        self.value = value
        address = BacnetAddress.model_validate(where)
        write = self.set if address.writable else None
        self.object = BacnetObject(address, lambda: self.value, write, default=value, **more)

    def set(self, value: float) -> None:
        self.value = value


class Device(BacnetServer):
    """A device of cells. ``tamper`` sees every request and its right answer, and says which APDUs are sent instead."""

    def __init__(self, cells: Mapping[str, float] | Sequence[Cell], **more: Any) -> None:
        made = cells if isinstance(cells, Sequence) else [Cell(where, value) for where, value in cells.items()]
        self.cells = {cell.object.address.object: cell for cell in made}
        super().__init__(ObjectTable(DEVICE, [cell.object for cell in made], **more))
        self.services: list[int] = []
        self.tamper: Callable[[bytes, bytes], Sequence[bytes]] = lambda _request, answer: [answer]

    def datagram_received(self, data: bytes, addr: tuple[str | Any, int]) -> None:
        frame = parse(data, (addr[0], addr[1]))
        assert frame is not None, "our own client sends well-formed frames only"
        if frame.apdu[0] >> 4:
            super().datagram_received(data, addr)
            return
        self.requests += 1
        self.services.append(frame.apdu[3])
        for one in self.tamper(frame.apdu, self.answer(frame.source, frame.apdu)):
            self.send_raw(frame.source, one)

    def send_raw(self, target: Station, apdu: bytes) -> None:
        """Send any APDU to anybody."""
        assert self._transport is not None
        self._transport.sendto(bvlc(UNICAST, npdu_to(target, expecting_reply=False) + apdu), target.host)


def settings_for(port: int, **more: Any) -> BacnetSettings:
    """Settings with short deadlines."""
    given = {"host": HOST, "port": port, "device": DEVICE, "timeout": 0.15, "retries": 1, "bind": HOST, **more}
    return BacnetSettings.model_validate(given)


def points_of(addresses: Mapping[str, Any], *, writable: bool = True) -> list[DevicePoint]:
    """Points by name; an address as in YAML or as a model."""
    return [DevicePoint(name, BacnetAddress.model_validate(where), writable) for name, where in addresses.items()]


def driver_for(port: int, points: Sequence[DevicePoint], clock: DeviceClock, **more: Any) -> BacnetDriver:
    """A driver with short deadlines."""
    return BacnetDriver.build("plc", settings_for(port, **more), points, clock)


async def settle() -> None:
    """Let datagrams on their way arrive."""
    for _ in range(5):
        await asyncio.sleep(0.001)
