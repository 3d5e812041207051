"""Our driver on bacpypes3's own device objects, and bacpypes3's client on our server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from bacpypes3.apdu import ErrorRejectAbortNack
from bacpypes3.basetypes import PriorityValue
from bacpypes3.local.analog import AnalogInputObject
from bacpypes3.pdu import Address
from bacpypes3.primitivedata import ObjectIdentifier, Real
from bacpypes3_device import DEVICE, HOST, application, free_port, standard_objects

from drivers.bacnet.discovery import browse, who_is
from drivers.bacnet.driver import BacnetDriver
from drivers.bacnet.frames import UNICAST
from drivers.bacnet.objects import BacnetObject, ObjectTable
from drivers.bacnet.port import shared_port
from drivers.bacnet.server import BacnetServer
from drivers.bacnet.settings import BacnetAddress, BacnetSettings
from drivers.errors import DeviceRefusedError, NotConnectedError, NotWritableError
from drivers.interface import DevicePoint, DeviceState
from safety.envelope import Envelope
from safety.gate import Gate, Route
from safety.journal import Journal
from safety.values import Quality, Reason, WriteOutcome

pytestmark = pytest.mark.conformance

POINTS = {
    "supply": "analogInput,1",
    "valve": "analogOutput,1",
    "plain": "analogValue,1",
    "ranked": "analogValue,2",
    "frost": "binaryInput,1",
    "fan": "binaryOutput,3",
    "mode": "multiStateValue,1",
}
OPERATOR = 8


class Clock:
    now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def utc(self) -> float:
        return 1_800_000_000.0 + self.now


def driver_for(port: int, points: Mapping[str, str] = POINTS, clock: Clock | None = None, **more: Any) -> BacnetDriver:
    settings = BacnetSettings.model_validate(
        {"host": HOST, "port": port, "device": DEVICE, "bind": HOST, "timeout": 2.0, **more}
    )
    made = [DevicePoint(name, BacnetAddress.model_validate(where), writable=True) for name, where in points.items()]
    return BacnetDriver.build("ahu", settings, made, clock or Clock())


@pytest.fixture
async def device() -> AsyncIterator[tuple[dict[str, Any], int]]:
    objects = {str(one.objectName): one for one in standard_objects()}
    async with application(list(objects.values())) as (_app, port):
        yield objects, port


@pytest.fixture
def gate(tmp_path: Path) -> Any:
    with Journal(tmp_path / "journal.sqlite") as journal:
        yield Gate(
            {name: Envelope(name, -1000.0, 1000.0, fail_safe=None) for name in POINTS},
            {name: Route("ahu", "bacnet", "{}", "{}") for name in POINTS},
            journal,
        )


async def value_of(driver: BacnetDriver, point: str) -> float:
    result = await driver.poll()
    return float(result.value[[one.name for one in driver.points].index(point)])


async def test_every_kind_of_value_is_read(device: tuple[dict[str, Any], int]) -> None:
    _objects, port = device
    driver = driver_for(port)
    await driver.connect()
    for _ in range(2):  # the second is decoded by the shape of the first
        result = await driver.poll()
        assert result.value.tolist() == [21.5, 10.0, 5.0, 7.0, 1.0, 0.0, 2.0]
        assert (result.quality == Quality.GOOD).all()
    await driver.close()


async def test_which_objects_have_a_priority_array_is_asked(device: tuple[dict[str, Any], int]) -> None:
    driver = driver_for(device[1])
    assert not driver.can_relinquish("ranked"), "before it is asked, as far as the address tells"
    await driver.connect()
    ours = {point.name for point in driver.points if driver.can_relinquish(point.name)}
    assert ours == {"valve", "ranked", "fan"}
    await driver.close()


async def test_a_write_holds_level_12_and_relinquishing_gives_it_back(
    device: tuple[dict[str, Any], int], gate: Gate
) -> None:
    objects, port = device
    driver = driver_for(port)
    await driver.connect()
    result = await gate.write(driver, "valve", 55.5)
    assert result.outcome is WriteOutcome.HELD
    assert objects["valve"].priorityArray[11].real == 55.5
    assert (await driver.holder("valve")) == (12, 55.5)
    assert (await gate.write(driver, "valve", None)).outcome is WriteOutcome.ACKNOWLEDGED
    assert objects["valve"].priorityArray[11].null is not None
    assert (await driver.holder("valve")).level is None
    assert await driver.read_back("valve") == 10.0
    await driver.close()


@pytest.mark.parametrize(("point", "value"), [("fan", 1.0), ("ranked", -3.25), ("mode", 4.0), ("plain", 99.0)])
async def test_every_writable_kind_is_written(
    device: tuple[dict[str, Any], int], gate: Gate, point: str, value: float
) -> None:
    driver = driver_for(device[1])
    await driver.connect()
    assert (await gate.write(driver, point, value)).outcome is WriteOutcome.HELD
    assert await value_of(driver, point) == value
    await driver.close()


async def test_an_operator_at_8_wins_and_is_reported(device: tuple[dict[str, Any], int], gate: Gate) -> None:
    objects, port = device
    driver = driver_for(port)
    await driver.connect()
    objects["valve"].priorityArray[OPERATOR - 1] = PriorityValue(real=Real(80.0))
    result = await gate.write(driver, "valve", 30.0)
    assert (result.outcome, result.read_back) == (WriteOutcome.OVERRIDDEN, 80.0)
    holder = await driver.holder("valve")
    assert holder == (OPERATOR, 80.0)
    assert "manual operator" in str(holder)
    objects["valve"].priorityArray[OPERATOR - 1] = PriorityValue(null=())
    assert await driver.read_back("valve") == 30.0, "the operator lets go: ours was waiting below"
    await driver.close()


async def test_an_object_without_priorities_is_restored_by_value(
    device: tuple[dict[str, Any], int], gate: Gate
) -> None:
    objects, port = device
    driver = driver_for(port)
    await driver.connect()
    assert (await gate.write(driver, "plain", 9.0)).outcome is WriteOutcome.HELD
    assert objects["plain"].presentValue == 9.0
    with pytest.raises(NotWritableError, match="no priority array"):
        await driver.write(gate.admit("plain", None))
    assert (await gate.write(driver, "plain", None)).outcome is WriteOutcome.ACKNOWLEDGED
    assert objects["plain"].presentValue == 5.0, "what it held before us"
    await driver.close()


async def test_a_refused_write_is_an_error_with_its_name(device: tuple[dict[str, Any], int], gate: Gate) -> None:
    """bacpypes3's client returns such errors instead of raising them; here nobody can overlook one."""
    driver = driver_for(device[1], {"plain": "analogValue,99"})
    await driver.connect()
    with pytest.raises(DeviceRefusedError, match="object unknown-object"):
        await driver.write(gate.admit("plain", 1.0))
    await driver.close()


async def test_out_of_service_is_bad(device: tuple[dict[str, Any], int]) -> None:
    objects, port = device
    driver = driver_for(port)
    await driver.connect()
    await driver.poll()
    objects["supply"].outOfService = True
    result = await driver.poll()
    assert (result.quality[0], result.reason[0]) == (Quality.BAD, Reason.OUT_OF_SERVICE)
    assert result.value[0] != result.value[0], "never the value of a sensor that is not in service"
    assert (result.quality[1:] == Quality.GOOD).all()
    await driver.close()


async def test_a_missing_object_costs_only_its_own_point(device: tuple[dict[str, Any], int]) -> None:
    driver = driver_for(device[1], {**POINTS, "gone": "analogInput,77"})
    await driver.connect()
    result = await driver.poll()
    assert (result.quality[:-1] == Quality.GOOD).all()
    assert (result.quality[-1], result.reason[-1]) == (Quality.BAD, Reason.DEVICE_ERROR)
    assert driver.health.state is DeviceState.DEGRADED
    assert driver.health.quarantined == ("gone",)
    await driver.close()


@pytest.mark.parametrize("max_apdu", [50, 128, 206, 480])
async def test_a_device_with_short_answers_is_asked_for_less(max_apdu: int) -> None:
    many = [
        AnalogInputObject(objectIdentifier=f"analog-input,{k}", objectName=f"p{k}", presentValue=float(k))
        for k in range(60)
    ]
    async with application(many, maxApduLengthAccepted=max_apdu, segmentationSupported="no-segmentation") as (_, port):
        driver = driver_for(port, {f"p{k}": f"analogInput,{k}" for k in range(60)})
        await driver.connect()
        result = await driver.poll()
        assert result.value.tolist() == [float(k) for k in range(60)]
        assert (result.quality == Quality.GOOD).all()
        await driver.close()


async def test_the_wrong_device_is_refused(device: tuple[dict[str, Any], int]) -> None:
    driver = driver_for(device[1], device=4712)
    with pytest.raises(DeviceRefusedError, match="is not device 4712"):
        await driver.connect()
    assert driver.health.state is DeviceState.BACKOFF
    await driver.close()


async def test_changes_arrive_by_notification(device: tuple[dict[str, Any], int]) -> None:
    objects, port = device
    clock = Clock()
    driver = driver_for(port, {"frost": "binaryInput,1", "supply": "analogInput,1"}, clock, cov={"check": 10.0})
    await driver.connect()
    await driver.poll()
    assert driver._cov is not None
    async with asyncio.timeout(5.0):
        while driver._cov.live < 2:
            await asyncio.sleep(0.01)
    objects["frost"].presentValue = "inactive"
    objects["supply"].presentValue = 40.0
    sent = len(driver.health.latency_s)
    async with asyncio.timeout(5.0):
        while (result := await driver.poll()).value.tolist() != [0.0, 40.0]:
            await asyncio.sleep(0.01)
    assert len(driver.health.latency_s) == sent, "nothing was read: the changes came by themselves"
    clock.now += 11.0
    await driver.poll()
    assert len(driver.health.latency_s) == sent + 1, "read at least this often all the same"
    assert (result.quality == Quality.GOOD).all()
    await driver.close()


async def test_devices_and_objects_are_found(device: tuple[dict[str, Any], int]) -> None:
    port = shared_port(HOST, free_port())
    await port.open(port)
    found = await who_is(port, (HOST, device[1]), 0.2, function=UNICAST)
    assert [(one.device, one.vendor) for one in found] == [(DEVICE, 999)]
    assert await who_is(port, (HOST, device[1]), 0.1, low=1, high=5, function=UNICAST) == []
    peer = port.peer(found[0].station, "bacpypes3")
    shown = {one.object: one for one in await browse(peer, DEVICE)}
    assert set(shown) == {*POINTS.values()}
    assert (shown["analogInput,1"].name, shown["analogInput,1"].writable) == ("supply", False)
    assert shown["binaryOutput,3"].writable
    port.leave(port)


async def test_a_taken_port_is_refused_even_if_its_owner_would_share_it(device: tuple[dict[str, Any], int]) -> None:
    """bacpypes3 opens its port for sharing: whoever joined it would get some of its answers."""
    driver = driver_for(device[1], local_port=device[1])
    with pytest.raises(NotConnectedError, match="no other program has the port"):
        await driver.connect()
    await driver.close()


async def test_its_client_reads_and_writes_our_server() -> None:
    store = {"ai": 21.5, "ao": 10.0}
    table = ObjectTable(
        555,
        [
            BacnetObject(BacnetAddress(object="analogInput,1"), lambda: store["ai"]),
            BacnetObject(
                BacnetAddress(object="analogOutput,1"), lambda: store["ao"], lambda v: store.update(ao=v), default=10.0
            ),
        ],
    )
    server = BacnetServer(table)
    await server.start(HOST, 0)
    try:
        async with application([], device=999) as (client, _port):
            address = Address(f"{HOST}:{server.port}")
            found = await client.who_is(555, 555, address, timeout=1)
            assert [str(one.iAmDeviceIdentifier) for one in found] == ["device,555"]
            assert await client.read_property(address, "analog-input,1", "present-value") == 21.5
            await client.write_property(address, "analog-output,1", "present-value", Real(60.0), priority=OPERATOR)
            assert store["ao"] == 60.0
            slots = await client.read_property(address, "analog-output,1", "priority-array")
            assert slots[OPERATOR - 1].real == 60.0
            answer = await client.read_property_multiple(
                address, [ObjectIdentifier("analog-input,1"), ["present-value", "status-flags", "object-name"]]
            )
            assert [value for *_rest, value in answer][::2] == [21.5, "analogInput 1"]
            objects = await client.read_property(address, "device,555", "object-list")
            assert [str(one) for one in objects] == ["device,555", "analog-input,1", "analog-output,1"]
            with pytest.raises(ErrorRejectAbortNack, match="write-access-denied"):
                await client.write_property(address, "analog-input,1", "present-value", Real(1.0))
            async with client.change_of_value(
                address, ObjectIdentifier("analog-input,1"), issue_confirmed_notifications=True, lifetime=60
            ) as subscription:
                async with asyncio.timeout(5.0):
                    assert (await subscription.get_value())[1] == 21.5
                    store["ai"] = 22.5
                    seen: list[object] = []
                    while 22.5 not in seen:
                        seen.append((await subscription.get_value())[1])
    finally:
        await server.close()
