"""Change-of-value subscriptions: fewer reads, never an old value, and no slot left behind."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from bacnet_peers import HOST, Device, driver_for, points_of, settle
from gates import open_journal, wide_gate
from structlog.testing import capture_logs

from drivers.bacnet import services
from drivers.bacnet.apdu import Service
from drivers.bacnet.cov import CovTable
from drivers.bacnet.driver import BacnetDriver
from drivers.bacnet.frames import Station
from drivers.interface import DeviceClock
from safety.values import Quality, Reason

CELLS = {"binaryInput,1": 1.0, "analogInput,1": 20.0, "analogValue,1": 5.0}
NAMES = ["binaryInput1", "analogInput1", "analogValue1"]


@pytest.fixture
async def device() -> AsyncIterator[Device]:
    device = Device(CELLS)
    await device.start(HOST, 0)
    yield device
    await device.close()


def driver_of(device: Device, clock: DeviceClock, **cov: Any) -> BacnetDriver:
    points = points_of({name.replace(",", ""): name for name in device.cells})
    return driver_for(device.port, points, clock, cov={"check": 10.0, "lifetime": 60.0, **cov})


def table_of(driver: BacnetDriver) -> CovTable:
    assert driver._cov is not None
    return driver._cov


async def subscribed(driver: BacnetDriver, count: int) -> None:
    """Poll until so many subscriptions are live."""
    async with asyncio.timeout(5.0):
        while table_of(driver).live < count:
            await driver.poll()
            await asyncio.sleep(0.02)


async def test_subscribed_points_are_left_out_of_polls_and_still_change(device: Device, clock: Any) -> None:
    driver = driver_of(device, clock)
    await driver.connect()
    await subscribed(driver, 3)
    before = device.requests
    clock.advance(1.0)
    device.cells["binaryInput,1"].value = 0.0
    async with asyncio.timeout(5.0):
        while (result := await driver.poll()).value[0] != 0.0:
            await asyncio.sleep(0.02)
    assert device.requests == before, "not one request"
    assert (result.quality == Quality.GOOD).all()
    assert result.source_time[0] == clock.utc(), "the time of the notification"
    assert result.source_time[1] == clock.utc() - 1.0, "no younger than what was heard of it"
    await driver.close()


async def test_what_is_not_heard_of_is_read_after_the_check_period(device: Device, clock: Any) -> None:
    driver = driver_of(device, clock)
    await driver.connect()
    await subscribed(driver, 3)
    before = device.requests
    clock.advance(11.0)
    result = await driver.poll()
    assert device.requests == before + 1
    assert (result.source_time == clock.utc()).all()
    await driver.close()


async def test_a_device_that_forgot_its_subscriptions_is_noticed_and_asked_again(device: Device, clock: Any) -> None:
    """A reboot: no notification comes any more. The check read shows the difference; the value is right at once."""
    driver = driver_of(device, clock)
    await driver.connect()
    await subscribed(driver, 3)
    device.subscriptions._known.clear()
    device.cells["analogInput,1"].value = 33.0
    clock.advance(11.0)
    assert (await driver.poll()).value[1] == 33.0
    assert len(device.subscriptions) == 1, "subscribed anew in the same poll"
    device.cells["analogInput,1"].value = 34.0
    async with asyncio.timeout(5.0):
        while (await driver.poll()).value[1] != 34.0:
            await asyncio.sleep(0.02)
    await driver.close()


async def test_an_expired_subscription_is_polled(device: Device, clock: Any) -> None:
    driver = driver_of(device, clock)
    await driver.connect()
    await subscribed(driver, 3)
    for one in table_of(driver)._table.values():
        one.ends, one.due = 0.0, float("inf")
    device.cells["analogInput,1"].value = 44.0
    device.subscriptions._known.clear()
    device.services.clear()
    assert (await driver.poll()).value[1] == 44.0
    assert device.services[0] == Service.READ_MULTIPLE
    await driver.close()


async def test_renewals_come_before_the_end_and_never_without_one(device: Device, clock: Any) -> None:
    driver = driver_of(device, clock)
    await driver.connect()
    bodies: list[bytes] = []
    device.tamper = lambda request, answer: [answer, *(bodies.append(request[4:]) or [])]  # type: ignore[func-returns-value]
    await driver.poll()
    await settle()
    now = asyncio.get_running_loop().time()
    dues = [one.due - now for one in table_of(driver)._table.values()]
    assert all(25.0 < due < 46.0 for due in dues), "half to three quarters of the lifetime"
    assert len(set(dues)) == 3, "not all at once"
    subscriptions = [body for body in bodies if body[0] == 0x09 or body[0] == 0x0A]
    assert len(subscriptions) == 3
    assert all(body.endswith(bytes((0x29, 1, 0x39, 60))) for body in subscriptions), "confirmed, for 60 s"
    await driver.close()


async def test_slots_are_bounded_and_the_rest_is_polled(device: Device, clock: Any) -> None:
    driver = driver_of(device, clock, slots=1)
    await driver.connect()
    await subscribed(driver, 1)
    assert len(device.subscriptions) == 1
    device.cells["analogValue,1"].value = 9.0
    assert (await driver.poll()).value[2] == 9.0
    await driver.close()


async def test_a_device_out_of_slots_is_polled_and_said_once(device: Device, clock: Any) -> None:
    device.subscriptions.most = 1
    driver = driver_of(device, clock)
    await driver.connect()
    with capture_logs() as logs:
        for _ in range(3):
            await driver.poll()
            for one in table_of(driver)._table.values():
                one.due = 0.0
    refused = [entry["object"] for entry in logs if entry["event"] == "no subscription, polling"]
    assert refused == ["analogInput,1", "analogValue,1"]
    device.cells["analogInput,1"].value = 55.0
    assert (await driver.poll()).value[1] == 55.0
    await driver.close()


async def test_a_clean_close_gives_the_slots_back(device: Device, clock: Any) -> None:
    driver = driver_of(device, clock)
    await driver.connect()
    await subscribed(driver, 3)
    assert len(device.subscriptions) == 3
    await driver.close()
    assert len(device.subscriptions) == 0


async def test_a_close_does_not_wait_for_a_dead_device(device: Device, clock: Any) -> None:
    driver = driver_of(device, clock)
    await driver.connect()
    await subscribed(driver, 3)
    device.tamper = lambda _request, _answer: []
    async with asyncio.timeout(5.0):
        await driver.close()


async def test_flags_arrive_with_the_notification(device: Device, clock: Any) -> None:
    driver = driver_of(device, clock)
    await driver.connect()
    await subscribed(driver, 3)
    device.cells["analogInput,1"].object.flags = 0x10
    async with asyncio.timeout(5.0):
        while (result := await driver.poll()).quality[1] != Quality.BAD:
            await asyncio.sleep(0.02)
    assert result.reason[1] == Reason.OUT_OF_SERVICE
    await driver.close()


async def test_what_we_wrote_is_read_not_remembered(device: Device, clock: Any, tmp_path: Path) -> None:
    driver = driver_of(device, clock)
    await driver.connect()
    await subscribed(driver, 3)
    with open_journal(tmp_path) as journal:
        await driver.write(wide_gate(journal, ["analogValue1"]).admit("analogValue1", 77.0))
    assert (await driver.poll()).value[2] == 77.0
    await driver.close()


async def test_a_notification_of_somebody_else_is_not_taken(device: Device, clock: Any) -> None:
    driver = driver_of(device, clock)
    await driver.connect()
    await subscribed(driver, 3)
    assert driver._port is not None
    us = Station(driver._port.address)
    process = table_of(driver)._process
    for number, sender in ((process + 1, 1234), (process, 999)):
        content = services.notification(number, sender, (0, 1), 60, b"\x44\x7f\x00\x00\x00", b"\x82\x04\x00")
        device.send_raw(us, bytes((0x00, 5, 9, Service.CONFIRMED_COV)) + content)
        device.send_raw(us, bytes((0x10, 2)) + content)
    await settle()
    assert (await driver.poll()).value[1] == 20.0
    await driver.close()
