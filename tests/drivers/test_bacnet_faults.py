"""What goes wrong on a BACnet network, and what must come of it: late and double answers, refusals, reboots, silence."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bacnet_peers import DEVICE, HOST, Cell, Device, driver_for, points_of, settle
from gates import open_journal, wide_gate
from structlog.testing import capture_logs

from drivers.bacnet import driver as driver_module
from drivers.bacnet import peer as peer_module
from drivers.bacnet.apdu import Kind, Service, abort, reject
from drivers.bacnet.driver import BacnetDriver
from drivers.bacnet.frames import Station
from drivers.errors import (
    DeadlineError,
    DeviceRefusedError,
    DriverError,
    EncodingError,
    NotConnectedError,
    ProtocolError,
)
from drivers.interface import DeviceClock, DeviceState
from safety.envelope import Envelope
from safety.gate import Gate, Route
from safety.values import Quality, Reason, WriteOutcome

FOUR = {f"analogInput,{k}": float(k) for k in range(4)}


@pytest.fixture
async def serve() -> AsyncIterator[Callable[..., Any]]:
    """Starts devices; all are closed at the end."""
    devices: list[Device] = []

    async def start(cells: Any, **more: Any) -> Device:
        device = Device(cells, **more)
        await device.start(HOST, 0)
        devices.append(device)
        return device

    yield start
    for device in devices:
        await device.close()


def driver_of(served: Device, clock: DeviceClock, **more: Any) -> BacnetDriver:
    points = points_of({name.replace(",", ""): name for name in served.cells})
    return driver_for(served.port, points, clock, **more)


def only(service: int, instead: Callable[[bytes, bytes], Sequence[bytes]]) -> Callable[[bytes, bytes], Sequence[bytes]]:
    """Tamper with one service, answer the rest well."""
    return lambda request, answer: instead(request, answer) if request[3] == service else [answer]


async def test_a_device_without_read_property_multiple_is_read_one_by_one(serve: Any, clock: Any) -> None:
    device = await serve(FOUR, multiple=False)
    driver = driver_of(device, clock)
    await driver.connect()
    assert (await driver.poll()).value.tolist() == [0.0, 1.0, 2.0, 3.0]
    assert Service.READ_MULTIPLE not in device.services
    await driver.close()


@pytest.mark.parametrize(
    "refused", [lambda r, _a: [reject(r[2], 9)], lambda r, _a: [bytes((0x50, r[2], r[3], 0x91, 5, 0x91, 45))]]
)
async def test_a_device_that_claims_it_and_rejects_it_is_read_one_by_one(
    serve: Any, clock: Any, refused: Callable[[bytes, bytes], Sequence[bytes]]
) -> None:
    device = await serve(FOUR)
    device.tamper = only(Service.READ_MULTIPLE, refused)
    driver = driver_of(device, clock)
    await driver.connect()
    assert (await driver.poll()).value.tolist() == [0.0, 1.0, 2.0, 3.0]
    asked = device.services.count(Service.READ_MULTIPLE)
    result = await driver.poll()
    assert (result.quality == Quality.GOOD).all()
    assert device.services.count(Service.READ_MULTIPLE) == asked == 1, "not asked twice"
    await driver.close()


@pytest.mark.parametrize("reason", [1, 4, 9, 11])
async def test_a_refusal_for_size_shrinks_the_request_for_good(serve: Any, clock: Any, reason: int) -> None:
    device = await serve({f"analogInput,{k}": float(k) for k in range(40)})
    sizes: list[int] = []

    def short(request: bytes, answer: bytes) -> Sequence[bytes]:
        count = request.count(b"\x1e")
        sizes.append(count)
        return [answer] if count <= 6 else [abort(request[2], reason, from_server=True)]

    device.tamper = only(Service.READ_MULTIPLE, short)
    driver = driver_of(device, clock)
    await driver.connect()
    assert (await driver.poll()).value.tolist() == [float(k) for k in range(40)], "all of it in the first poll"
    sizes.clear()
    assert (await driver.poll()).quality.all()
    assert max(sizes) <= 6
    await driver.close()


async def test_a_segmented_answer_is_aborted_and_asked_for_smaller(serve: Any, clock: Any) -> None:
    device = await serve(FOUR)
    aborts: list[bytes] = []

    def segmented(request: bytes, answer: bytes) -> Sequence[bytes]:
        if request.count(b"\x1e") < 4:
            return [answer]
        return [bytes((0x3C, request[2], 0, 4, request[3])) + answer[3:30]]

    device.tamper = only(Service.READ_MULTIPLE, segmented)
    received = device.datagram_received

    def watch(data: bytes, addr: Any) -> None:
        if data[6] >> 4 == Kind.ABORT:
            aborts.append(data[6:])
            return
        received(data, addr)

    device.datagram_received = watch  # type: ignore[method-assign]
    driver = driver_of(device, clock)
    await driver.connect()
    assert (await driver.poll()).value.tolist() == [0.0, 1.0, 2.0, 3.0]
    await settle()
    assert len(aborts) == 1
    assert aborts[0][2] == 4, "segmentation not supported"
    await driver.close()


async def test_an_answer_after_the_deadline_is_never_the_answer_to_another_question(serve: Any, clock: Any) -> None:
    device = await serve({"analogInput,1": 10.0, "analogInput,2": 20.0})
    driver = driver_of(device, clock, retries=0)
    await driver.connect()
    await driver.poll()
    held: list[bytes] = []

    def keep(_request: bytes, answer: bytes) -> Sequence[bytes]:
        held.append(answer)
        return []

    device.tamper = keep
    with pytest.raises(DeadlineError):
        await driver.read_back("analogInput1")
    device.tamper = lambda _request, answer: [*held, answer]
    assert await driver.read_back("analogInput2") == 20.0
    await settle()
    peer = driver._peer
    assert peer is not None
    assert peer.late_replies == 1
    assert held[0][1] in peer._resting, "its invoke id is not used while an answer may be on its way"
    await driver.close()


async def test_an_invoke_id_comes_back_only_after_its_rest(
    serve: Any, clock: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = await serve({"analogInput,1": 10.0})
    driver = driver_of(device, clock, retries=0, timeout=0.02)
    await driver.connect()
    peer = driver._peer
    assert peer is not None
    device.tamper = lambda _request, _answer: []
    with pytest.raises(DeadlineError):
        await driver.read_back("analogInput1")
    (resting,) = peer._resting
    assert all(peer._take_id() != resting for _ in range(600))
    monkeypatch.setattr(peer_module, "LATE_S", 0.0)
    peer._rest(resting)
    assert resting in {peer._take_id() for _ in range(256)}
    await driver.close()


async def test_a_double_answer_counts_once(serve: Any, clock: Any) -> None:
    device = await serve(FOUR)
    driver = driver_of(device, clock)
    await driver.connect()
    device.tamper = lambda _request, answer: [answer, answer, answer]
    for _ in range(3):
        device.cells["analogInput,0"].value += 1.0
        assert (await driver.poll()).value[0] == device.cells["analogInput,0"].value
    await settle()
    assert driver._peer is not None
    assert driver._peer.late_replies == 6
    await driver.close()


async def test_an_answer_about_another_object_is_not_believed(serve: Any, clock: Any) -> None:
    """The right invoke id and the wrong content: as a device with a confused queue sends."""
    device = await serve({"analogInput,1": 10.0, "analogInput,2": 20.0})
    driver = driver_of(device, clock)
    await driver.connect()
    other = (1).to_bytes(4, "big"), (3).to_bytes(4, "big")
    device.tamper = lambda _request, answer: [answer.replace(*other)]
    with pytest.raises(ProtocolError):
        await driver.poll()
    with pytest.raises(ProtocolError, match="answered about analogInput,3"):
        await driver.read_back("analogInput1")
    await driver.close()


async def test_a_simple_acknowledgement_is_no_value_and_a_complex_one_is_no_write(
    serve: Any, clock: Any, tmp_path: Path
) -> None:
    device = await serve({"analogOutput,1": 10.0})
    driver = driver_of(device, clock)
    await driver.connect()
    device.tamper = lambda request, _answer: [bytes((0x20, request[2], request[3]))]
    with pytest.raises(ProtocolError, match="SIMPLE_ACK"):
        await driver.read_back("analogOutput1")
    device.tamper = lambda request, _answer: [bytes((0x30, request[2], request[3], 0))]
    with open_journal(tmp_path) as journal, pytest.raises(ProtocolError, match="COMPLEX_ACK"):
        await driver.write(wide_gate(journal, ["analogOutput1"]).admit("analogOutput1", 1.0))
    await driver.close()


async def test_a_lost_datagram_is_sent_again_with_the_same_id(serve: Any, clock: Any) -> None:
    device = await serve(FOUR)
    driver = driver_of(device, clock)
    await driver.connect()
    ids: list[int] = []

    def lose_first(request: bytes, answer: bytes) -> Sequence[bytes]:
        ids.append(request[2])
        return [] if len(ids) == 1 else [answer]

    device.tamper = lose_first
    assert (await driver.poll()).quality.all()
    assert len(ids) == 2
    assert ids[0] == ids[1], "the device can tell that it has executed the request before"
    await driver.close()


async def test_one_object_that_silences_the_device_is_found_and_left_alone(serve: Any, clock: Any) -> None:
    device = await serve({f"analogInput,{k}": float(k) for k in range(8)})
    poison = (5).to_bytes(4, "big")
    device.tamper = lambda request, answer: [] if poison in request[4:] else [answer]
    driver = driver_of(device, clock, timeout=0.02, max_objects=4)
    await driver.connect()
    with capture_logs() as logs:
        for _ in range(12):
            result = await driver.poll()
            clock.advance(1.0)
    assert result.quality.tolist() == [Quality.GOOD] * 5 + [Quality.BAD] + [Quality.GOOD] * 2
    assert [entry["object"] for entry in logs if entry["event"] == "object quarantined"] == ["analogInput,5"]
    assert driver.health.quarantined == ("analogInput5",)
    requests = device.requests
    await driver.poll()
    assert device.requests - requests <= 8, "it costs nothing while it is left alone"
    device.tamper = lambda _request, answer: [answer]
    clock.advance(61.0)
    for _ in range(2):
        result = await driver.poll()
    assert (result.quality == Quality.GOOD).all()
    assert driver.health.quarantined == ()
    assert driver.health.state is DeviceState.ONLINE
    await driver.close()


@pytest.mark.parametrize(
    ("flags", "quality", "reason"),
    [
        (0x80, Quality.GOOD, Reason.OK),
        (0x40, Quality.BAD, Reason.DEVICE_ERROR),
        (0x20, Quality.UNCERTAIN, Reason.DEVICE_UNCERTAIN),
        (0x10, Quality.BAD, Reason.OUT_OF_SERVICE),
        (0xF0, Quality.BAD, Reason.OUT_OF_SERVICE),
    ],
)
async def test_status_flags_become_quality(
    serve: Any, clock: Any, flags: int, quality: Quality, reason: Reason
) -> None:
    device = await serve({"analogInput,1": 10.0, "analogInput,2": 20.0})
    driver = driver_of(device, clock)
    await driver.connect()
    await driver.poll()
    device.cells["analogInput,1"].object.flags = flags
    result = await driver.poll()
    assert (result.quality[0], result.reason[0]) == (quality, reason)
    assert np.isnan(result.value[0]) == (quality == Quality.BAD)
    assert (result.quality[1], result.value[1]) == (Quality.GOOD, 20.0)
    await driver.close()


@pytest.mark.parametrize("multiple", [True, False])
@pytest.mark.parametrize("has_parts", [True, False])
async def test_an_old_object_without_status_flags(serve: Any, clock: Any, multiple: bool, has_parts: bool) -> None:
    """Out_Of_Service and Reliability are asked instead; where it has neither, its values are all there is."""
    device = await serve({"analogInput,1": 10.0}, multiple=multiple)
    cell = device.cells["analogInput,1"]
    whole = type(cell.object).property
    parts: dict[int, bytes] = {81: b"\x10", 103: b"\x91\x00"} if has_parts else {}

    def old(self: Any, number: int) -> bytes | list[bytes]:
        if number in parts:
            return parts[number]
        return whole(self, 9999 if number in (111, 81, 103) else number)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(cell.object), "property", old)
        driver = driver_of(device, clock)
        await driver.connect()
        first = await driver.poll()
        assert first.quality[0] == Quality.UNCERTAIN, "not believed before its status is known"
        await driver.poll()
        settled = await driver.poll()
        assert (settled.value[0], settled.quality[0]) == (10.0, Quality.GOOD)
        if has_parts:
            parts[81] = b"\x11"
            result = await driver.poll()
            assert (result.quality[0], result.reason[0]) == (Quality.BAD, Reason.OUT_OF_SERVICE)
            parts[81], parts[103] = b"\x10", b"\x91\x07"
            result = await driver.poll()
            assert (result.quality[0], result.reason[0]) == (Quality.BAD, Reason.DEVICE_ERROR)
        await driver.close()


async def test_a_reboot_that_lost_the_set_point_shows_in_the_next_poll(serve: Any, clock: Any, tmp_path: Path) -> None:
    device = await serve([Cell("analogOutput,1", 10.0)])
    driver = driver_of(device, clock)
    await driver.connect()
    with open_journal(tmp_path) as journal:
        gate = Gate(
            {"analogOutput1": Envelope("analogOutput1", 0.0, 100.0, fail_safe=None)},
            {"analogOutput1": Route("plc", "bacnet", "{}", "{}")},
            journal,
        )
        assert (await gate.write(driver, "analogOutput1", 50.0)).outcome is WriteOutcome.HELD
        cell = device.cells["analogOutput,1"]
        cell.object.slots[:] = [None] * 16
        cell.value = 10.0
        seen = [gate.observe("analogOutput1", float((await driver.poll()).value[0])) for _ in range(3)]
    assert seen == [None, None, WriteOutcome.OVERRIDDEN]
    assert (await driver.holder("analogOutput1")).level is None, "nobody holds it: it was the device, not an operator"
    await driver.close()


async def test_a_value_that_does_not_fit_is_not_sent(serve: Any, clock: Any, tmp_path: Path) -> None:
    device = await serve({"analogOutput,1": 1.0, "binaryOutput,1": 0.0, "multiStateOutput,1": 1.0})
    driver = driver_of(device, clock)
    await driver.connect()
    before = device.requests
    with open_journal(tmp_path) as journal:
        gate = wide_gate(journal, [point.name for point in driver.points])
        for point, value in (
            ("analogOutput1", 1e39),
            ("binaryOutput1", 0.5),
            ("binaryOutput1", 2.0),
            ("multiStateOutput1", -1.0),
        ):
            with pytest.raises(EncodingError, match=point):
                await driver.write(gate.admit(point, value))
    assert device.requests == before
    await driver.close()


async def test_a_write_refused_by_the_device_is_rejected_not_forgotten(serve: Any, clock: Any, tmp_path: Path) -> None:
    device = await serve({"analogOutput,1": 1.0})
    driver = driver_of(device, clock)
    await driver.connect()
    device.tamper = only(Service.WRITE, lambda r, _a: [bytes((0x50, r[2], r[3], 0x91, 2, 0x91, 40))])
    with open_journal(tmp_path) as journal:
        result = await wide_gate(journal, ["analogOutput1"]).write(driver, "analogOutput1", 5.0)
    assert result.outcome is WriteOutcome.REJECTED
    assert "write-access-denied" in result.detail
    await driver.close()


async def test_a_router_that_cannot_reach_the_network_says_so_at_once(serve: Any, clock: Any) -> None:
    device = await serve(FOUR)
    driver = driver_of(device, clock, network=20, address="7", timeout=30.0)
    original = device.datagram_received

    def router(data: bytes, addr: Any) -> None:
        assert data[4:10] == bytes((1, 0x24, 0, 20, 1, 7)), "addressed to station 7 on network 20"
        assert device._transport is not None
        device._transport.sendto(bytes((0x81, 0x0A, 0, 10, 1, 0x80, 3, 1, 0, 20)), addr)

    device.datagram_received = router  # type: ignore[method-assign]
    async with asyncio.timeout(5.0):
        with pytest.raises(NotConnectedError, match="cannot reach network 20"):
            await driver.connect()
    device.datagram_received = original  # type: ignore[method-assign]
    await driver.close()


async def test_a_device_behind_a_router_is_polled(serve: Any, clock: Any) -> None:
    """Answers carry the device's own network and address; without them they are somebody else's."""
    device = await serve(FOUR)
    driver = driver_of(device, clock, network=20, address="7")
    lie = {"on": False}

    def routed(target: Any, apdu: bytes) -> None:
        npdu = bytes((1, 0x08, 0, 20, 1, 8 if lie["on"] else 7)) + apdu
        assert device._transport is not None
        device._transport.sendto(bytes((0x81, 0x0A)) + (len(npdu) + 4).to_bytes(2, "big") + npdu, target.host)

    device.send_raw = routed  # type: ignore[method-assign]
    await driver.connect()
    assert (await driver.poll()).value.tolist() == [0.0, 1.0, 2.0, 3.0]
    lie["on"] = True
    with pytest.raises(DeadlineError):
        await driver.poll()
    await driver.close()


async def test_two_devices_at_one_address_are_refused(serve: Any, clock: Any) -> None:
    device = await serve(FOUR)
    first, second = driver_of(device, clock), driver_of(device, clock)
    await first.connect()
    with pytest.raises(DriverError, match="two devices are configured at one address"):
        await second.connect()
    assert (await first.poll()).quality.all()
    await first.close()
    await second.close()


async def test_the_wrong_device_at_the_address_is_refused(serve: Any, clock: Any) -> None:
    """A duplicate IP address: what answers is not what was configured."""
    device = await serve(FOUR)
    driver = driver_of(device, clock, device=DEVICE + 1)
    with pytest.raises(DeviceRefusedError, match=f"is not device {DEVICE + 1}"):
        await driver.connect()
    assert driver.health.state is DeviceState.BACKOFF
    await driver.close()


async def test_a_device_whose_name_got_another_address_is_found_again(
    serve: Any, clock: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = await serve({"analogInput,1": 1.0}), await serve({"analogInput,1": 2.0})
    driver = driver_of(old, clock)
    await driver.connect()
    assert (await driver.poll()).value[0] == 1.0
    await old.close()

    async def moved(_settings: Any) -> Station:
        return Station((HOST, new.port))

    monkeypatch.setattr(driver_module, "find_station", moved)
    with pytest.raises(DeadlineError):
        await driver.poll()
    await driver.connect()
    assert (await driver.poll()).value[0] == 2.0
    assert driver.health.reconnects == 1
    await driver.close()


async def test_health_says_why_a_device_is_degraded(serve: Any, clock: Any) -> None:
    device = await serve({"analogInput,1": 1.0})
    driver = driver_for(device.port, points_of({"here": "analogInput,1", "gone": "analogInput,9"}), clock)
    await driver.connect()
    with capture_logs() as logs:
        for _ in range(3):
            await driver.poll()
    assert driver.health.state is DeviceState.DEGRADED
    assert driver.health.detail == "analogInput,9 presentValue: object unknown-object"
    assert [entry["points"] for entry in logs if entry["event"] == "points refused"] == [
        "gone (analogInput,9 presentValue)"
    ]
    await driver.close()
