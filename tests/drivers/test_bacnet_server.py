"""The plant's side: what a BACnet device must answer, and that nothing a client sends disturbs it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivers.bacnet import services, tags
from drivers.bacnet.apdu import REQUEST, Kind, Service
from drivers.bacnet.frames import Station
from drivers.bacnet.names import PROPERTIES
from drivers.bacnet.objects import ALL_PROPERTIES, BacnetObject, ObjectTable
from drivers.bacnet.server import BacnetServer
from drivers.bacnet.settings import BacnetAddress
from drivers.errors import AddressError, NotConnectedError

CLIENT = Station(("127.0.0.1", 40000))
AO, AV, AI = (1, 1), (2, 1), (0, 1)


class Plant:
    """Three objects and a server that is not on the network."""

    def __init__(self) -> None:
        self.held = {AO: 10.0, AV: 5.0, AI: 21.5}

        def one(target: tuple[int, int], where: str, **more: Any) -> BacnetObject:
            def write(value: float) -> None:
                if value > 1000.0:
                    raise ValueError("out of range")
                self.held[target] = value

            writable = None if target == AI else write
            return BacnetObject(BacnetAddress(object=where), lambda: self.held[target], writable, **more)

        table = ObjectTable(
            77,
            [
                one(AO, "analogOutput,1", default=10.0),
                one(AV, "analogValue,1", commandable=False),
                one(AI, "analogInput,1"),
            ],
        )
        self.server = BacnetServer(table)

    def ask(self, service: int, body: bytes) -> bytes:
        return self.server.answer(CLIENT, REQUEST + bytes((9, service)) + body)

    def write(self, target: tuple[int, int], value: bytes, priority: int = 12) -> bytes:
        return self.ask(Service.WRITE, services.write(target, 85, value, priority))


@pytest.fixture
def plant() -> Plant:
    return Plant()


def real(value: float) -> bytes:
    return tags.application(tags.REAL, value)


ACK = bytes((0x20, 9, Service.WRITE))


def error(error_class: int, code: int) -> bytes:
    return bytes((0x50, 9, Service.WRITE, 0x91, error_class, 0x91, code))


def test_the_highest_priority_wins_and_the_default_comes_last(plant: Plant) -> None:
    assert plant.write(AO, real(50.0), 12) == ACK
    assert plant.write(AO, real(80.0), 8) == ACK
    assert plant.held[AO] == 80.0
    assert plant.write(AO, real(60.0), 12) == ACK
    assert plant.held[AO] == 80.0, "the operator holds it"
    assert plant.write(AO, b"\x00", 8) == ACK
    assert plant.held[AO] == 60.0
    assert plant.write(AO, b"\x00", 12) == ACK
    assert plant.held[AO] == 10.0


def test_an_object_without_priorities_ignores_them(plant: Plant) -> None:
    assert plant.write(AV, real(50.0), 8) == ACK
    assert plant.write(AV, real(60.0), 16) == ACK
    assert plant.held[AV] == 60.0
    assert plant.write(AV, b"\x00") == error(2, 9), "nothing to relinquish"


@pytest.mark.parametrize(
    ("target", "value", "priority", "expected"),
    [
        (AI, real(1.0), 12, error(2, 40)),
        ((0, 99), real(1.0), 12, error(1, 31)),
        (AO, tags.application(tags.UNSIGNED, 1), 12, error(2, 9)),
        (AO, real(1001.0), 12, error(2, 37)),
        (AO, real(1.0), 17, error(2, 37)),
        (AO, real(1.0), 0, error(2, 37)),
        (AO, real(1.0) + real(2.0), 12, error(2, 40)),
    ],
)
def test_refused_writes(plant: Plant, target: tuple[int, int], value: bytes, priority: int, expected: bytes) -> None:
    assert plant.write(target, value, priority) == expected
    assert plant.held == {AO: 10.0, AV: 5.0, AI: 21.5}
    assert plant.write(AO, b"\x00") == ACK
    assert plant.held[AO] == 10.0, "a refused value is not in the priority array either"


def test_all_properties_of_an_object_can_be_asked_for(plant: Plant) -> None:
    answer = plant.ask(Service.READ_MULTIPLE, services.read_multiple([(AO, [ALL_PROPERTIES]), ((0, 99), [85])]))
    results = services.read_multiple_answer(answer[3:])
    found = {result.property for result in results if result.object == AO}
    assert {PROPERTIES[name] for name in ("presentValue", "statusFlags", "priorityArray", "objectName")} <= found
    assert [result.error for result in results if result.object == (0, 99)] == [(1, 31)]


@pytest.mark.parametrize(
    ("name", "element", "expected"),
    [("objectList", 0, 4.0), ("objectList", 2, float(1 << 22 | 1)), ("protocolVersion", None, 1.0), ("segmentationSupported", None, 3.0)],
)  # fmt: skip
def test_the_device_object(plant: Plant, name: str, element: int | None, expected: float) -> None:
    answer = plant.ask(Service.READ, services.read((8, 77), PROPERTIES[name], element))
    assert services.read_answer(answer[3:]).values[0].number == expected


@pytest.mark.parametrize(
    ("name", "element", "code"), [("objectList", 5, 42), ("vendorName", 1, 50), ("setpoint", None, 32)]
)
def test_what_the_device_object_does_not_have(plant: Plant, name: str, element: int | None, code: int) -> None:
    answer = plant.ask(Service.READ, services.read((8, 77), PROPERTIES[name], element))
    assert answer == bytes((0x50, 9, Service.READ, 0x91, 2, 0x91, code))


def test_an_answer_that_is_too_long_for_the_client_is_aborted(plant: Plant) -> None:
    body = services.read_multiple([(AO, [ALL_PROPERTIES])])
    small = bytes((0, 0, 9, Service.READ_MULTIPLE)) + body
    assert plant.server.answer(CLIENT, small) == bytes((0x71, 9, 4))


@pytest.mark.parametrize(
    ("request_bytes", "expected"),
    [
        (bytes((0x08, 5, 9, 0, 4, 14)), bytes((0x71, 9, 4))),
        (bytes((0, 5, 9, 20)), bytes((0x60, 9, 9))),
        (bytes((0, 5, 9, 12)), bytes((0x60, 9, 4))),
        (bytes((0, 5, 9, 12)) + services.read(AO, 85) + b"\x00", bytes((0x60, 9, 4))),
    ],
)
def test_requests_it_cannot_serve(plant: Plant, request_bytes: bytes, expected: bytes) -> None:
    assert plant.server.answer(CLIENT, request_bytes) == expected


@given(st.binary(max_size=60), st.sampled_from([1, 5, 12, 14, 15, 16]))
async def test_any_request_is_answered_and_any_datagram_survived(body: bytes, service: int) -> None:
    plant = Plant()
    answer = plant.ask(service, body)
    assert answer[0] >> 4 in (Kind.SIMPLE_ACK, Kind.COMPLEX_ACK, Kind.ERROR, Kind.REJECT, Kind.ABORT)
    plant.server.datagram_received(body, CLIENT.host)
    plant.server.datagram_received(b"\x81\x0a" + (len(body) + 4).to_bytes(2, "big") + body, CLIENT.host)
    assert set(plant.held) == {AO, AV, AI}
    assert plant.held[AI] == 21.5


def test_two_objects_of_one_identity_are_refused() -> None:
    same = [BacnetObject(BacnetAddress(object="analogInput,1"), lambda: 0.0) for _ in range(2)]
    with pytest.raises(AddressError, match="given twice"):
        ObjectTable(1, same)


@pytest.fixture
async def running(plant: Plant) -> AsyncIterator[BacnetServer]:
    await plant.server.start("127.0.0.1", 0)
    yield plant.server
    await plant.server.close()


async def test_a_taken_port_is_said(running: BacnetServer) -> None:
    with pytest.raises(NotConnectedError, match="choose a free port"):
        await Plant().server.start("127.0.0.1", running.port)


async def test_subscriptions_are_bounded_and_end(running: BacnetServer) -> None:
    running.subscriptions.most = 2
    subscribe = [REQUEST + bytes((9, Service.SUBSCRIBE_COV)) + services.subscribe_cov(k, AI, 1) for k in range(3)]
    answers = [running.answer(CLIENT, one)[0] >> 4 for one in subscribe]
    assert answers == [Kind.SIMPLE_ACK, Kind.SIMPLE_ACK, Kind.ERROR]
    assert running.answer(CLIENT, subscribe[0])[0] >> 4 == Kind.SIMPLE_ACK, "a renewal needs no new place"
    async with asyncio.timeout(5.0):
        while len(running.subscriptions):
            await asyncio.sleep(0.05)
