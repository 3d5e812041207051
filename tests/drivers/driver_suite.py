"""What every driver must do, whatever its protocol: inherit this, provide a rig, and all of it is tested.

class TestMyDriver(DriverSuite):
    @pytest.fixture
    async def rig(self, clock): ...yield MyRig(clock)...
"""

from __future__ import annotations

import asyncio
import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from gates import open_journal, wide_gate

from drivers.errors import AddressError, DriverError, NotConnectedError, NotWritableError
from drivers.interface import DeviceState, Driver
from safety.values import PortError, Quality, Reason


class Rig(ABC):
    """A device of the protocol on a real socket of this machine, and how to make a driver for it.

    ``values`` (point → value) are what the device holds at the start; ``writable`` names a point that can be written
    with ``write_value``; ``read_only`` one that cannot; ``address`` is how error messages name the endpoint.
    """

    values: Mapping[str, float]
    writable: str
    write_value: float
    read_only: str
    address: str

    @abstractmethod
    def driver(self) -> Driver:
        """A new driver for the device, with all points of ``values`` in order; not connected."""

    @abstractmethod
    async def start(self) -> None:
        """Start the device's server again on the same address."""

    @abstractmethod
    async def stop(self) -> None:
        """Stop the server: connections are closed and new ones refused."""

    @abstractmethod
    def mute(self) -> None:
        """From now on the device takes requests and answers nothing."""

    @abstractmethod
    def held(self, point: str) -> float:
        """What the device itself holds, past the driver."""


class DriverSuite:
    """The suite. Subclasses provide the fixture ``rig``."""

    async def test_nothing_works_before_connect(self, rig: Rig) -> None:
        driver = rig.driver()
        assert driver.health.state is DeviceState.IDLE
        with pytest.raises(NotConnectedError):
            await driver.poll()
        with pytest.raises(NotConnectedError):
            await driver.read_back(rig.writable)

    async def test_a_poll_brings_every_point_in_order(self, rig: Rig, clock: Any) -> None:
        driver = rig.driver()
        await driver.connect()
        result = await driver.poll()
        assert result.value.tolist() == pytest.approx([rig.values[point.name] for point in driver.points])
        assert (result.quality == Quality.GOOD).all()
        assert (result.reason == Reason.OK).all()
        assert (result.source_time == clock.utc()).all()
        assert (result.value.dtype, result.quality.dtype, result.reason.dtype) == (np.float64, np.uint8, np.uint8)
        assert driver.health.state is DeviceState.ONLINE
        assert driver.health.last_good == clock.monotonic()
        await driver.close()

    async def test_a_result_is_not_changed_by_the_next_poll(self, rig: Rig, clock: Any, tmp_path: Path) -> None:
        driver = rig.driver()
        await driver.connect()
        first = await driver.poll()
        kept = copy.deepcopy(first)
        with open_journal(tmp_path) as journal:
            await driver.write(wide_gate(journal, [rig.writable]).admit(rig.writable, rig.write_value))
        clock.advance(5.0)
        second = await driver.poll()
        for name in ("value", "quality", "reason", "source_time"):
            assert np.array_equal(getattr(first, name), getattr(kept, name))
            assert not np.shares_memory(getattr(first, name), getattr(second, name))
        index = [point.name for point in driver.points].index(rig.writable)
        assert second.value[index] == pytest.approx(rig.write_value)
        assert (second.source_time == clock.utc()).all()
        await driver.close()

    async def test_connect_twice_is_connect_once(self, rig: Rig) -> None:
        driver = rig.driver()
        await driver.connect()
        await driver.connect()
        await driver.poll()
        assert driver.health.reconnects == 0
        await driver.close()

    async def test_a_write_arrives_and_reads_back(self, rig: Rig, tmp_path: Path) -> None:
        driver = rig.driver()
        await driver.connect()
        with open_journal(tmp_path) as journal:
            await driver.write(wide_gate(journal, [rig.writable]).admit(rig.writable, rig.write_value))
        assert rig.held(rig.writable) == pytest.approx(rig.write_value)
        assert await driver.read_back(rig.writable) == pytest.approx(rig.write_value)
        assert (driver.health.writes, driver.health.write_errors) == (1, 0)
        await driver.close()

    async def test_only_a_command_of_the_gate_is_written(self, rig: Rig) -> None:
        driver = rig.driver()
        await driver.connect()
        forged = SimpleNamespace(point=rig.writable, value=rig.write_value, priority=None, sequence=1)
        for order in (forged, (rig.writable, rig.write_value), rig.write_value, None):
            with pytest.raises(TypeError, match="gate"):
                await driver.write(order)  # type: ignore[arg-type]
        assert rig.held(rig.writable) == pytest.approx(rig.values[rig.writable])
        await driver.close()

    async def test_read_only_and_unknown_points_are_refused_by_name(self, rig: Rig, tmp_path: Path) -> None:
        driver = rig.driver()
        await driver.connect()
        with open_journal(tmp_path) as journal:
            gate = wide_gate(journal, [rig.read_only, "nowhere/nothing"])
            with pytest.raises(NotWritableError, match=rig.read_only):
                await driver.write(gate.admit(rig.read_only, 1.0))
            with pytest.raises(AddressError, match="nowhere/nothing"):
                await driver.write(gate.admit("nowhere/nothing", 1.0))
        with pytest.raises(AddressError, match="nowhere/nothing"):
            await driver.read_back("nowhere/nothing")
        assert driver.health.write_errors == 2
        await driver.close()

    async def test_relinquish_works_or_is_refused_but_is_never_a_value(self, rig: Rig, tmp_path: Path) -> None:
        driver = rig.driver()
        await driver.connect()
        with open_journal(tmp_path) as journal:
            command = wide_gate(journal, [rig.writable]).admit(rig.writable, None)
        if driver.can_relinquish(rig.writable):
            await driver.write(command)
        else:
            with pytest.raises(NotWritableError, match="relinquish"):
                await driver.write(command)
            assert rig.held(rig.writable) == pytest.approx(rig.values[rig.writable])
        await driver.close()

    async def test_nobody_listens(self, rig: Rig) -> None:
        await rig.stop()
        driver = rig.driver()
        with pytest.raises(NotConnectedError, match=rig.address) as caught:
            await driver.connect()
        assert "check" in str(caught.value), "the message says what to do"
        assert driver.health.state is DeviceState.BACKOFF
        assert rig.address in driver.health.last_error
        await driver.close()

    async def test_the_server_goes_and_comes_back(self, rig: Rig, clock: Any) -> None:
        """Never an old value as new: while it is gone polls raise; when it is back the same driver recovers."""
        driver = rig.driver()
        await driver.connect()
        await driver.poll()
        await rig.stop()
        with pytest.raises(DriverError):
            await driver.poll()
        with pytest.raises(DriverError):
            await driver.read_back(rig.writable)
        with pytest.raises(NotConnectedError):
            await driver.connect()
        assert driver.health.state is DeviceState.BACKOFF
        assert driver.health.poll_errors >= 1
        await rig.start()
        clock.advance(60.0)
        await driver.connect()
        result = await driver.poll()
        assert (result.quality == Quality.GOOD).all()
        assert driver.health.reconnects == 1
        assert driver.health.state is DeviceState.ONLINE
        await driver.close()

    async def test_a_silent_device_ends_in_an_error_not_in_waiting(self, rig: Rig, tmp_path: Path) -> None:
        driver = rig.driver()
        await driver.connect()
        await driver.poll()
        rig.mute()
        async with asyncio.timeout(30.0):
            with pytest.raises(DriverError):
                await driver.poll()
            with open_journal(tmp_path) as journal, pytest.raises(DriverError) as caught:
                await driver.write(wide_gate(journal, [rig.writable]).admit(rig.writable, rig.write_value))
        assert isinstance(caught.value, PortError)
        await driver.close()

    async def test_a_cancelled_poll_leaves_a_working_driver(self, rig: Rig) -> None:
        driver = rig.driver()
        await driver.connect()
        for _ in range(20):
            task = asyncio.create_task(driver.poll())
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        await driver.connect()
        result = await driver.poll()
        assert result.value.tolist() == pytest.approx([rig.values[point.name] for point in driver.points])
        await driver.close()

    async def test_close_is_final_quiet_and_repeatable(self, rig: Rig) -> None:
        driver = rig.driver()
        await driver.close()
        await driver.connect()
        await driver.close()
        await driver.close()
        assert driver.health.state is DeviceState.CLOSED
        with pytest.raises(NotConnectedError):
            await driver.poll()

    async def test_a_closed_driver_can_be_opened_again(self, rig: Rig) -> None:
        driver = rig.driver()
        await driver.connect()
        await driver.close()
        await driver.connect()
        assert (await driver.poll()).quality.all()
        await driver.close()

    async def test_counters_and_latencies_are_kept_and_bounded(self, rig: Rig) -> None:
        driver = rig.driver()
        await driver.connect()
        for _ in range(600):
            await driver.poll()
        assert driver.health.polls == 600
        assert 1 <= len(driver.health.latency_s) <= 512
        assert all(math.isfinite(latency) and latency > 0.0 for latency in driver.health.latency_s)
        await driver.close()
