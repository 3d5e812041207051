"""The Modbus driver: the suite of every driver, and what is special to Modbus, on real sockets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest
from driver_suite import DriverSuite, Rig
from gates import open_journal, wide_gate
from modbus_peers import Request, ScriptedServer, driver_for, healthy, holding_points
from pydantic import BaseModel
from structlog.testing import capture_logs

from drivers.errors import AddressError, DeviceRefusedError, EncodingError, ProtocolError
from drivers.interface import DeviceClock, DevicePoint, DeviceState, Driver
from drivers.modbus.driver import ModbusDriver
from drivers.modbus.registers import Register, RegisterMap
from drivers.modbus.server import ModbusServer
from drivers.modbus.settings import ModbusAddress, ModbusSettings
from drivers.registry import installed_plugins
from safety.values import Quality, Reason, WriteOutcome

POINTS = {
    "ahu/supply": (ModbusAddress(input=10, type="f32"), 21.5),
    "ahu/outside": (ModbusAddress(input=12, type="i16", scale=0.1), -12.3),
    "ahu/frost": (ModbusAddress(discrete=4), 1.0),
    "ahu/alarm": (ModbusAddress(input=30, bit=11), 1.0),
    "ahu/valve": (ModbusAddress(holding=5, type="u16", scale=0.01), 40.0),
    "ahu/flow": (ModbusAddress(holding=100, type="f64", order="CDAB"), 1234.5678),
    "ahu/energy": (ModbusAddress(holding=110, type="u64", order="DCBA"), 123_456_789_012.0),
    "ahu/balance": (ModbusAddress(holding=120, type="i32", order="BADC", scale=0.5, offset=-10.0), -70_010.5),
    "ahu/fan": (ModbusAddress(coil=9), 0.0),
}


class ModbusRig(Rig):
    values = {name: value for name, (_address, value) in POINTS.items()}  # noqa: RUF012
    writable = "ahu/valve"
    write_value = 55.55
    read_only = "ahu/supply"

    def __init__(self, clock: DeviceClock) -> None:
        self.clock = clock
        self.store = dict(self.values)
        self.port = 0
        self.muted = False

    async def start(self) -> None:
        self.server = ModbusServer({1: RegisterMap([self._register(name) for name in POINTS])})
        await self.server.start("127.0.0.1", self.port)
        self.port = self.server.port
        self.address = f"127.0.0.1:{self.port}"

    async def stop(self) -> None:
        await self.server.close()

    def _register(self, name: str) -> Register:
        address = POINTS[name][0]
        write = (lambda value: self.store.__setitem__(name, value)) if address.writable else None
        return Register(address, lambda: self.store[name], write)

    def driver(self) -> Driver:
        points = [DevicePoint(name, address, writable=True) for name, (address, _value) in POINTS.items()]
        return driver_for(self.port, points, self.clock)

    def mute(self) -> None:
        for session in self.server._sessions:
            session.frame_received = lambda *_args: None  # type: ignore[method-assign]

    def held(self, point: str) -> float:
        return self.store[point]


class TestModbusDriver(DriverSuite):
    @pytest.fixture
    async def rig(self, clock: DeviceClock) -> AsyncIterator[Rig]:
        rig = ModbusRig(clock)
        await rig.start()
        yield rig
        await rig.stop()

    async def test_every_kind_of_point_is_written_and_read_back(self, rig: ModbusRig, tmp_path: Path) -> None:
        driver = rig.driver()
        await driver.connect()
        with open_journal(tmp_path) as journal:
            gate = wide_gate(journal, POINTS)
            for name, value in {
                "ahu/valve": 12.34,
                "ahu/flow": -0.001,
                "ahu/energy": 2.0**40,
                "ahu/balance": 99.5,
                "ahu/fan": 1.0,
            }.items():
                await driver.write(gate.admit(name, value))
                assert rig.held(name) == pytest.approx(value)
                assert await driver.read_back(name) == pytest.approx(value)
        await driver.close()

    async def test_the_gate_sees_how_a_write_ended(self, rig: ModbusRig, tmp_path: Path) -> None:
        driver = rig.driver()
        await driver.connect()
        with open_journal(tmp_path) as journal:
            gate = wide_gate(journal, POINTS)
            assert (await gate.write(driver, "ahu/valve", 30.0)).outcome is WriteOutcome.HELD
            assert (await gate.write(driver, "ahu/valve", 1e9)).outcome is WriteOutcome.REJECTED
            rig.mute()
            assert (await gate.write(driver, "ahu/valve", 31.0)).outcome is WriteOutcome.UNREACHABLE
        await driver.close()

    async def test_a_value_that_does_not_fit_is_not_sent(self, rig: ModbusRig, tmp_path: Path) -> None:
        driver = rig.driver()
        await driver.connect()
        with open_journal(tmp_path) as journal:
            gate = wide_gate(journal, POINTS)
            for name, value in {"ahu/valve": 700.0, "ahu/energy": -1.0, "ahu/fan": 0.5}.items():
                with pytest.raises(EncodingError, match=name):
                    await driver.write(gate.admit(name, value))
                assert rig.held(name) == rig.values[name]
        assert driver.health.write_errors == 3
        await driver.close()


def functions(server: ScriptedServer) -> list[int]:
    return [request.pdu[0] for request in server.requests]


async def test_single_values_use_5_and_6_and_wide_ones_16(clock: DeviceClock, tmp_path: Path) -> None:
    points = [
        DevicePoint("a/coil", ModbusAddress(coil=1), writable=True),
        DevicePoint("a/word", ModbusAddress(holding=1), writable=True),
        DevicePoint("a/float", ModbusAddress(holding=2, type="f32"), writable=True),
    ]
    async with ScriptedServer() as server:
        driver = driver_for(server.port, points, clock)
        await driver.connect()
        with open_journal(tmp_path) as journal:
            gate = wide_gate(journal, [point.name for point in points])
            for point in points:
                await driver.write(gate.admit(point.name, 1.0))
        assert functions(server) == [5, 6, 16]
        await driver.close()


async def test_a_device_without_single_writes_gets_multiple_ones(clock: DeviceClock, tmp_path: Path) -> None:
    async def only_multiple(request: Request) -> None:
        request.refuse(1) if request.pdu[0] in (5, 6) else request.answer()

    points = [*holding_points([7]), DevicePoint("ahu/coil", ModbusAddress(coil=3), writable=True)]
    async with ScriptedServer(only_multiple) as server:
        driver = driver_for(server.port, points, clock)
        await driver.connect()
        with open_journal(tmp_path) as journal:
            gate = wide_gate(journal, [point.name for point in points])
            for _ in range(2):
                await driver.write(gate.admit("ahu/r7", 5.0))
            await driver.write(gate.admit("ahu/coil", 1.0))
        assert functions(server) == [6, 16, 16, 5, 15]
        assert server.requests[1].pdu.hex() == "10000700010200" + "05"
        assert server.requests[4].pdu.hex() == "0f000300010101"
        assert driver.health.write_errors == 0
        await driver.close()


@pytest.mark.parametrize("code", [2, 3, 4, 6])
async def test_a_refused_write_is_an_error_that_names_the_exception(
    clock: DeviceClock, tmp_path: Path, code: int
) -> None:
    """Seen elsewhere: the rejection was swallowed and the caller believed the set-point."""

    async def refuse(request: Request) -> None:
        request.refuse(code)

    async with ScriptedServer(refuse) as server:
        driver = driver_for(server.port, holding_points([7]), clock)
        await driver.connect()
        with open_journal(tmp_path) as journal, pytest.raises(DeviceRefusedError, match=f"exception {code}, "):
            await driver.write(wide_gate(journal, ["ahu/r7"]).admit("ahu/r7", 5.0))
        assert len(server.requests) == 1, "a refused write is not repeated"
        assert driver.health.write_errors == 1
        await driver.close()


async def test_an_acknowledgement_of_another_value_is_not_believed(clock: DeviceClock, tmp_path: Path) -> None:
    async def elsewhere(request: Request) -> None:
        request.answer(request.pdu[:3] + b"\x00\x63")

    async with ScriptedServer(elsewhere) as server:
        driver = driver_for(server.port, holding_points([7]), clock)
        await driver.connect()
        with open_journal(tmp_path) as journal, pytest.raises(ProtocolError, match="acknowledged something else"):
            await driver.write(wide_gate(journal, ["ahu/r7"]).admit("ahu/r7", 5.0))
        await driver.close()


async def test_read_back_asks_the_device_every_time(clock: DeviceClock) -> None:
    async with ScriptedServer() as server:
        driver = driver_for(server.port, holding_points([7]), clock)
        await driver.connect()
        for count in (1, 2, 3):
            assert await driver.read_back("ahu/r7") == 7.0
            assert len(server.requests) == count
        await driver.close()


async def test_a_write_overtakes_a_long_poll(clock: DeviceClock, tmp_path: Path) -> None:
    """A trip must not wait behind hundreds of blocks, nor take turns with the polls of other units."""
    points = holding_points(range(4000))
    async with ScriptedServer() as server:
        drivers = [driver_for(server.port, points, clock, unit_id=unit) for unit in range(1, 6)]
        for driver in drivers:
            await driver.connect()
        with open_journal(tmp_path) as journal:
            gate = wide_gate(journal, ["ahu/r7"])
            polls = [asyncio.create_task(driver.poll()) for driver in drivers]
            while len(server.requests) < 3:
                await asyncio.sleep(0)
            sent = len(server.requests)
            await drivers[0].write(gate.admit("ahu/r7", 5.0))
            place = functions(server).index(6)
        assert place <= sent + 1
        for poll in polls:
            assert (await poll).quality.all()
        for driver in drivers:
            await driver.close()


async def test_units_behind_one_address_take_turns(clock: DeviceClock) -> None:
    """A small device's poll does not wait until a large one's is through."""
    async with ScriptedServer() as server:
        large = driver_for(server.port, holding_points(range(4000)), clock, unit_id=1)
        small = driver_for(server.port, holding_points([1]), clock, unit_id=2)
        await large.connect()
        await small.connect()
        poll = asyncio.create_task(large.poll())
        while len(server.requests) < 3:
            await asyncio.sleep(0)
        sent = len(server.requests)
        await small.poll()
        assert [request.unit for request in server.requests].index(2) <= sent + 2
        assert (await poll).quality.all()
        await large.close()
        await small.close()


async def test_the_bad_register_is_named_once_in_the_log_and_in_the_health(clock: DeviceClock) -> None:
    async def hole(request: Request) -> None:
        start, count = (int.from_bytes(request.pdu[k : k + 2], "big") for k in (1, 3))
        request.refuse(2) if start <= 42 < start + count else request.answer()

    async with ScriptedServer(hole) as server:
        driver = driver_for(server.port, holding_points(range(100)), clock)
        await driver.connect()
        with capture_logs() as logs:
            for _ in range(3):
                result = await driver.poll()
        bad = np.flatnonzero(result.quality != Quality.GOOD).tolist()
        assert bad == [42]
        assert result.reason[42] == Reason.DEVICE_ERROR
        assert np.isnan(result.value[42])
        warnings = [entry for entry in logs if entry["log_level"] == "warning"]
        assert len(warnings) == 1
        assert "ahu/r42 (holding 42)" in warnings[0]["points"]
        assert "illegal data address" in warnings[0]["why"]
        assert driver.health.quarantined == ("ahu/r42",)
        assert driver.health.state is DeviceState.DEGRADED
        server.handler = healthy
        clock.advance(3600.0)  # type: ignore[attr-defined]
        with capture_logs() as logs:
            result = await driver.poll()
        assert (result.quality == Quality.GOOD).all()
        assert "ahu/r42" in logs[0]["points"]
        assert driver.health.quarantined == ()
        assert driver.health.state is DeviceState.ONLINE
        await driver.close()


async def test_a_devices_nan_is_bad_quality(clock: DeviceClock) -> None:
    async def nan(request: Request) -> None:
        request.answer(bytes.fromhex("04047fc00000"))

    async with ScriptedServer(nan) as server:
        driver = driver_for(server.port, [DevicePoint("a/t", ModbusAddress(input=0, type="f32"))], clock)
        await driver.connect()
        result = await driver.poll()
        assert (result.quality[0], result.reason[0]) == (Quality.BAD, Reason.NOT_A_NUMBER)
        assert np.isnan(result.value[0])
        await driver.close()


async def test_devices_behind_one_address_share_one_socket(clock: DeviceClock) -> None:
    """Gateways allow 2 to 16 sockets: twenty units take one."""
    async with ScriptedServer() as server:
        drivers = [driver_for(server.port, holding_points([1, 2]), clock, unit_id=unit) for unit in range(1, 21)]
        await asyncio.gather(*(driver.connect() for driver in drivers))
        results = await asyncio.gather(*(driver.poll() for driver in drivers))
        assert all((result.quality == Quality.GOOD).all() for result in results)
        assert server.connections == 1
        assert {request.unit for request in server.requests} == set(range(1, 21))
        for driver in drivers[:-1]:
            await driver.close()
        assert (await drivers[-1].poll()).quality.all(), "the last user keeps the connection"
        await drivers[-1].close()
        while server.open:
            await asyncio.sleep(0.001)


async def test_the_smallest_window_of_a_shared_endpoint_holds(clock: DeviceClock) -> None:
    waiting: list[Request] = []
    most = 0

    async def slow(request: Request) -> None:
        nonlocal most
        waiting.append(request)
        most = max(most, len(waiting))
        asyncio.get_running_loop().call_later(0.002, lambda: waiting.pop(0).answer())

    async with ScriptedServer(slow) as server:
        wide = driver_for(server.port, holding_points(range(0, 1000, 50)), clock, window=8)
        await wide.connect()
        await wide.poll()
        assert most == 8
        narrow = driver_for(server.port, holding_points([1]), clock, window=2, unit_id=2)
        await narrow.connect()
        most = 0
        await wide.poll()
        assert most == 2
        await wide.close()
        await narrow.close()


def test_settings_and_addresses_of_another_driver_are_refused(clock: DeviceClock) -> None:
    class Other(BaseModel):
        pass

    with pytest.raises(AddressError, match="ModbusSettings"):
        ModbusDriver.build("device", Other(), [], clock)
    with pytest.raises(AddressError, match="a/b"):
        driver_for(1, [DevicePoint("a/b", Other())], clock)


def test_a_value_wider_than_a_block_is_a_configuration_error(clock: DeviceClock) -> None:
    point = DevicePoint("a/flow", ModbusAddress(holding=0, type="f64"))
    with pytest.raises(AddressError, match=r"a/flow.*max_block"):
        driver_for(1, [point], clock, max_block=3)


async def test_a_device_without_points_polls_nothing(clock: DeviceClock) -> None:
    async with ScriptedServer() as server:
        driver = driver_for(server.port, [], clock)
        await driver.connect()
        assert len((await driver.poll()).value) == 0
        assert not server.requests
        await driver.close()


def test_the_registry_builds_this_driver(clock: DeviceClock) -> None:
    plugin = installed_plugins()["modbus"]
    driver = plugin.load()("device", ModbusSettings(host="localhost"), holding_points([1]), clock)
    assert isinstance(driver, ModbusDriver)
