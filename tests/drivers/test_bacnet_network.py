"""The local port, foreign-device registration, and discovery."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from bacnet_peers import DEVICE, HOST, Device, driver_for, points_of

from drivers.bacnet import foreign, services
from drivers.bacnet.discovery import browse, object_list, who_is
from drivers.bacnet.foreign import Registration
from drivers.bacnet.frames import DISTRIBUTE_BROADCAST, UNICAST, Station
from drivers.bacnet.peer import Peer
from drivers.bacnet.port import Port, shared_port
from drivers.errors import DriverError, NotConnectedError


class Bbmd(asyncio.DatagramProtocol):
    """Takes registrations, answers with ``code``, and keeps what else comes."""

    def __init__(self) -> None:
        self.code = 0
        self.registrations: list[int] = []
        self.others: list[bytes] = []

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        if data[1] == 5:
            self.registrations.append(int.from_bytes(data[4:6], "big"))
            self.transport.sendto(bytes((0x81, 0, 0, 6)) + self.code.to_bytes(2, "big"), addr)
        else:
            self.others.append(data)


@pytest.fixture
async def bbmd() -> AsyncIterator[Bbmd]:
    transport, protocol = await asyncio.get_running_loop().create_datagram_endpoint(Bbmd, local_addr=(HOST, 0))
    yield protocol
    transport.close()


@pytest.fixture
async def port() -> AsyncIterator[Port]:
    port = Port(HOST, 0)
    await port.open(port)
    yield port
    port.leave(port)


@pytest.fixture
async def device() -> AsyncIterator[Device]:
    device = Device({f"analogInput,{k}": float(k) for k in range(30)})
    await device.start(HOST, 0)
    yield device
    await device.close()


def peer_of(port: Port, device: Device) -> Peer:
    peer = port.peer(Station((HOST, device.port)), "device")
    peer.timeout_s = 0.2
    return peer


async def until(condition: Any) -> None:
    async with asyncio.timeout(5.0):
        while not condition():
            await asyncio.sleep(0.01)


async def test_a_registration_is_renewed_before_it_ends(
    port: Port, bbmd: Bbmd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(foreign, "RENEW_AFTER", 0.001)
    registration = Registration(port, bbmd.transport.get_extra_info("sockname"), 30)
    await until(lambda: len(bbmd.registrations) >= 3)
    assert registration.accepted
    assert set(bbmd.registrations) == {30}
    registration.close()


async def test_a_refused_registration_is_tried_again(port: Port, bbmd: Bbmd, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(foreign, "RETRY_S", 0.02)
    bbmd.code = 0x30
    registration = Registration(port, bbmd.transport.get_extra_info("sockname"), 30)
    await until(lambda: registration.accepted is False)
    bbmd.code = 0
    await until(lambda: registration.accepted)
    registration.close()


async def test_a_driver_registers_where_its_settings_say(device: Device, bbmd: Bbmd, clock: Any) -> None:
    _host, number = bbmd.transport.get_extra_info("sockname")
    driver = driver_for(
        device.port, points_of({"a": "analogInput,1"}), clock, foreign={"bbmd": HOST, "port": number, "ttl": 30.0}
    )
    await driver.connect()
    await until(lambda: bbmd.registrations == [30])
    await driver.close()


async def test_a_broadcast_goes_through_the_bbmd(port: Port, bbmd: Bbmd) -> None:
    await who_is(port, bbmd.transport.get_extra_info("sockname"), 0.05, function=DISTRIBUTE_BROADCAST)
    (datagram,) = bbmd.others
    assert datagram[1] == DISTRIBUTE_BROADCAST
    assert datagram[4:10] == bytes((1, 0x20, 0xFF, 0xFF, 0, 255)), "to every network"
    assert datagram[10:] == services.who_is()


async def test_devices_are_found_by_range(port: Port, device: Device) -> None:
    address = (HOST, device.port)
    (found,) = await who_is(port, address, 0.1, low=1000, high=2000, function=UNICAST)
    assert (found.device, found.station) == (DEVICE, Station(address))
    assert await who_is(port, address, 0.05, low=1, high=2, function=UNICAST) == []
    assert not port.i_am_listeners


@pytest.mark.parametrize("max_apdu", [1476, 50])
async def test_objects_are_found_at_once_or_element_by_element(port: Port, device: Device, max_apdu: int) -> None:
    device.table.max_apdu = max_apdu
    found = await object_list(peer_of(port, device), DEVICE)
    assert found == [(8, DEVICE), *((0, k) for k in range(30))]


async def test_objects_are_described(port: Port, device: Device) -> None:
    shown = await browse(peer_of(port, device), DEVICE)
    assert [one.object for one in shown] == [f"analogInput,{k}" for k in range(30)]
    assert (shown[3].name, shown[3].unit, shown[3].writable) == ("analogInput 3", "1", False)


async def test_browsing_a_silent_device_ends(port: Port, device: Device) -> None:
    device.tamper = lambda _request, _answer: []
    with pytest.raises(DriverError):
        await browse(peer_of(port, device), DEVICE)


async def test_one_local_port_is_one_socket_for_all_devices(device: Device, clock: Any) -> None:
    other = Device({"analogInput,1": 7.0})
    await other.start(HOST, 0)
    drivers = [driver_for(one.port, points_of({"a": "analogInput,1"}), clock) for one in (device, other)]
    for driver in drivers:
        await driver.connect()
    assert drivers[0]._port is drivers[1]._port is shared_port(HOST, 0)
    assert [(await driver.poll()).value[0] for driver in drivers] == [1.0, 7.0]
    await drivers[0].close()
    assert (await drivers[1].poll()).value[0] == 7.0, "the last user closes it, not the first"
    await drivers[1].close()
    assert not shared_port(HOST, 0).is_open
    await other.close()


async def test_a_taken_port_is_an_error_at_once(device: Device, clock: Any) -> None:
    driver = driver_for(device.port, points_of({"a": "analogInput,1"}), clock, local_port=device.port)
    with pytest.raises(NotConnectedError, match="check bind and local_port"):
        await driver.connect()
    await driver.close()


async def test_datagrams_that_nobody_asked_for_are_dropped_and_counted(port: Port, device: Device) -> None:
    peer = peer_of(port, device)
    host = peer.station.host
    before = port.dropped
    for data in (
        b"",
        b"\x81",
        b"\x82\x0a\x00\x04",
        b"\x81\x0a\x00\x09\x01\x00\x30\x01\x0c",
        b"\x81\x0a\x00\x07\x01\x00\x10",
    ):
        port.datagram_received(data, host if data[-1:] != b"\x0c" else ("10.9.9.9", 1))
    assert port.dropped == before + 5
    port.forget(peer)
