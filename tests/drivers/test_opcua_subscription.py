"""Subscribed points: changes arrive, unchanged values stay current, and a subscription that dies is noticed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from asyncua import ua
from gates import open_journal, wide_gate
from opcua_peers import AHU, driver_for
from structlog.testing import capture_logs

from drivers.errors import DriverError
from drivers.interface import DeviceClock, DevicePoint, DeviceState, PollResult
from drivers.opcua import driver as driver_module
from drivers.opcua import subscription as subscription_module
from drivers.opcua.choice import WINDOW
from drivers.opcua.driver import OpcUaDriver
from drivers.opcua.server import OpcUaServer, ServedNode
from drivers.opcua.settings import OpcUaAddress
from safety.values import Quality, Reason

COUNT = 40
WRITABLE = COUNT - 1


def address(row: int) -> OpcUaAddress:
    return OpcUaAddress(node=f"nsu={AHU};s=v{row}")


class Bank:
    """A server of ``COUNT`` doubles, and how many reads it has answered."""

    def __init__(self, clock: DeviceClock) -> None:
        self.clock = clock
        self.store = {row: float(row) for row in range(COUNT)}
        self.port = 0
        self.reads = 0

    async def start(self) -> None:
        self.server = OpcUaServer([self._node(row) for row in range(COUNT)], utc=self.clock.utc)
        await self.server.start("127.0.0.1", self.port)
        self.port = self.server.port
        service = self.server._server.iserver.attribute_service  # type: ignore[union-attr]
        original = service.read

        def counted(parameters: Any) -> Any:
            self.reads += sum(
                1 for one in parameters.NodesToRead if one.NodeId.NamespaceIndex >= 2 and one.AttributeId == 13
            )
            return original(parameters)

        service.read = counted

    async def stop(self) -> None:
        await self.server.close()

    @property
    def subscriptions(self) -> dict[int, Any]:
        subscriptions: dict[int, Any] = self.server._server.iserver.subscription_service.subscriptions  # type: ignore[union-attr]
        return subscriptions

    def _node(self, row: int) -> ServedNode:
        return ServedNode(address(row), lambda: self.store[row], lambda value: self.store.__setitem__(row, value))

    def driver(self, **given: Any) -> OpcUaDriver:
        points = [DevicePoint(f"a/p{row}", address(row), writable=row == WRITABLE) for row in range(COUNT)]
        return driver_for(self.port, points, self.clock, **{"read": "subscribe"} | given)


@pytest.fixture
async def bank(clock: DeviceClock) -> AsyncIterator[Bank]:
    bank = Bank(clock)
    await bank.start()
    yield bank
    await bank.stop()


async def poll_until(driver: OpcUaDriver, done: Callable[[PollResult], bool]) -> PollResult:
    """Poll as the core does, until ``done`` says so."""
    async with asyncio.timeout(20.0):
        while True:
            result = await driver.poll()
            if done(result):
                return result
            await asyncio.sleep(0.01)


async def subscribed(driver: OpcUaDriver) -> None:
    """Poll until everything that can be subscribed is."""
    await poll_until(driver, lambda _result: int(driver._subscriptions.live().sum()) == COUNT - 1)


async def test_changes_arrive_without_reading(bank: Bank) -> None:
    driver = bank.driver()
    await driver.connect()
    first = await driver.poll()
    assert first.value.tolist() == [float(row) for row in range(COUNT)], "the first poll is already whole"
    await subscribed(driver)
    await driver.poll()
    bank.reads, polls = 0, driver.health.polls
    bank.store[3] = 99.5
    result = await poll_until(driver, lambda result: result.value[3] == 99.5)
    assert (result.quality == Quality.GOOD).all()
    assert np.delete(result.value, 3).tolist() == [float(row) for row in range(COUNT) if row != 3]
    assert bank.reads == driver.health.polls - polls, "only the written point is still read"
    await driver.close()
    assert not bank.subscriptions, "closing leaves nothing at the server"


async def test_an_unchanged_value_stays_current_while_the_subscription_lives(
    bank: Bank, clock: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subscription_module, "KEEP_ALIVE_S", 0.1)
    driver = bank.driver()
    await driver.connect()
    began = clock.utc()
    await subscribed(driver)
    (group,) = driver._subscriptions._groups.values()
    heard = group.heard_at
    await poll_until(driver, lambda _result: group.heard_at > heard + 0.5)
    clock.advance(3600.0)
    result = await driver.poll()
    assert (result.quality == Quality.GOOD).all()
    assert result.source_time[:WRITABLE] == pytest.approx(began), "the time of the sample, as the server said it"
    assert result.source_time[WRITABLE] == clock.utc()
    await driver.close()


async def test_a_written_point_is_never_subscribed(bank: Bank, tmp_path: Path) -> None:
    """A notification of the old value, on its way during the write, would look like somebody else's write."""
    driver = bank.driver()
    await driver.connect()
    await subscribed(driver)
    with open_journal(tmp_path) as journal:
        gate = wide_gate(journal, [f"a/p{WRITABLE}"])
        for value in (1.5, 2.5, 3.5):
            await driver.write(gate.admit(f"a/p{WRITABLE}", value))
            assert (await driver.poll()).value[WRITABLE] == value
    await driver.close()


async def test_a_bad_status_arrives_as_a_change(bank: Bank) -> None:
    driver = bank.driver()
    await driver.connect()
    await subscribed(driver)
    bank.store[5] = float("nan")
    result = await poll_until(driver, lambda result: result.quality[5] == Quality.BAD)
    assert np.isnan(result.value[5])
    assert result.reason[5] == Reason.DEVICE_ERROR
    assert driver.health.state is DeviceState.DEGRADED
    await driver.close()


async def test_a_server_that_restarts_is_subscribed_again(bank: Bank) -> None:
    driver = bank.driver()
    await driver.connect()
    await subscribed(driver)
    await bank.stop()
    with pytest.raises(DriverError):
        await driver.poll()
    bank.store = {row: float(row) + 1000.0 for row in range(COUNT)}
    await bank.start()
    await driver.connect()
    result = await driver.poll()
    assert result.value.tolist() == [float(row) + 1000.0 for row in range(COUNT)], "nothing of before the restart"
    await subscribed(driver)
    bank.store[7] = -1.0
    await poll_until(driver, lambda result: result.value[7] == -1.0)
    assert driver.health.reconnects == 1
    await driver.close()


async def test_a_subscription_that_the_server_forgot_is_polled_and_made_anew(
    bank: Bank, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subscription_module, "KEEP_ALIVE_S", 0.1)
    monkeypatch.setattr(driver_module, "RESUBSCRIBE_S", 0.2)
    driver = bank.driver()
    await driver.connect()
    await subscribed(driver)
    (group,) = driver._subscriptions._groups.values()
    with capture_logs() as logs:
        await bank.server._server.iserver.subscription_service.delete_subscriptions(list(bank.subscriptions))  # type: ignore[union-attr]
        bank.store[3] = 42.0
        result = await poll_until(driver, lambda result: result.value[3] == 42.0)
        assert (result.quality == Quality.GOOD).all()
        await poll_until(driver, lambda _result: group.identifier not in driver._subscriptions._groups)
        await subscribed(driver)
    assert len([one for one in logs if one["event"] == "subscription lost"]) == 1
    assert driver.health.reconnects == 0, "the session was never in doubt"
    await driver.close()


async def test_a_lost_message_breaks_the_subscription(bank: Bank) -> None:
    driver = bank.driver()
    await driver.connect()
    await subscribed(driver)
    (group,) = driver._subscriptions._groups.values()
    group.next_sequence += 1
    bank.store[2] = 5.0
    await poll_until(driver, lambda _result: not driver._subscriptions.live().any())
    assert (await driver.poll()).value[2] == 5.0
    await driver.close()


async def test_a_silent_subscription_is_not_current(bank: Bank, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever holds the server's messages up, after its keep-alives are missing nothing of it is shown as current."""
    monkeypatch.setattr(subscription_module, "KEEP_ALIVE_S", 0.1)
    driver = bank.driver()
    await driver.connect()
    await subscribed(driver)
    (group,) = driver._subscriptions._groups.values()
    assert 1.0 < group.silence_s < 1.5
    group.heard_at -= group.silence_s + 1.0
    assert not driver._subscriptions.live().any()
    assert "silent" in driver._subscriptions.trouble
    await driver.close()


async def test_a_server_without_subscriptions_is_polled(bank: Bank) -> None:
    service = bank.server._server.iserver.subscription_service  # type: ignore[union-attr]

    async def refuse(*_arguments: Any, **_options: Any) -> None:
        raise ua.uaerrors.BadServiceUnsupported

    service.create_subscription = refuse
    driver = bank.driver()
    await driver.connect()
    with capture_logs() as logs:
        for _ in range(3):
            result = await driver.poll()
            assert result.value.tolist() == [float(row) for row in range(COUNT)]
    assert len([one for one in logs if one["event"] == "not subscribed"]) == 1
    await driver.close()


async def test_a_server_that_would_keep_silent_for_long_is_polled(bank: Bank, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subscription_module, "LONGEST_KEEP_ALIVE_S", 0.5)
    driver = bank.driver()
    await driver.connect()
    with capture_logs() as logs:
        result = await driver.poll()
    assert (result.quality == Quality.GOOD).all()
    assert "keep silent" in logs[0]["why"]
    assert not bank.subscriptions
    await driver.close()


async def test_auto_polls_at_first_and_then_subscribes_what_stands_still(bank: Bank) -> None:
    driver = bank.driver(read="auto")
    await driver.connect()
    for poll in range(WINDOW + 1):
        assert not bank.subscriptions
        bank.store[0] = float(poll)
        await driver.poll()
    result = await poll_until(driver, lambda _result: int(driver._subscriptions.live().sum()) == COUNT - 2)
    assert not driver._subscriptions.live()[[0, WRITABLE]].any()
    assert (result.quality == Quality.GOOD).all()
    await driver.close()


async def test_a_cancelled_connect_and_close_leave_no_task(bank: Bank) -> None:
    before = asyncio.all_tasks()
    driver = bank.driver()
    await driver.connect()
    await subscribed(driver)
    await driver.close()
    for _ in range(20):
        task = asyncio.create_task(driver.connect())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    await driver.close()
    async with asyncio.timeout(5.0):
        while any("publish" in task.get_name() for task in asyncio.all_tasks() - before):
            await asyncio.sleep(0.01)
