"""RTU frames over TCP, through a transparent serial server: the same master, and a connection that can be lost."""

from __future__ import annotations

import asyncio

import pytest
from conftest import ManualClock
from modbus_peers import driver_for, holding_points
from rtu_peers import good_pdu, request_size

from drivers.errors import DeadlineError, DriverError, NotConnectedError
from drivers.interface import PollResult
from drivers.modbus import rtu
from drivers.modbus.driver import ModbusDriver


class SerialServer:
    """What a serial server with healthy slaves behind it looks like from the network; ``dead`` units do not answer."""

    def __init__(self) -> None:
        self.dead: set[int] = set()
        self.pieces = 1
        self.units: list[int] = []
        self.connections = 0
        self.port = 0
        self._writers: list[asyncio.StreamWriter] = []

    async def __aenter__(self) -> SerialServer:
        await self.start()
        return self

    async def __aexit__(self, *_exc: object) -> None:
        await self.stop()

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        self._server.close()
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.append(writer)
        heard = b""
        try:
            while data := await reader.read(1024):
                heard += data
                while heard and len(heard) >= (size := request_size(heard)):
                    frame, heard = heard[:size], heard[size:]
                    assert rtu.crc16(frame) == 0
                    self.units.append(frame[0])
                    if frame[0] not in self.dead:
                        await self._say(writer, rtu.frame(frame[0], good_pdu(frame[1:-2])))
        except (ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.transport.abort()

    async def _say(self, writer: asyncio.StreamWriter, answer: bytes) -> None:
        step = -(-len(answer) // self.pieces)
        for start in range(0, len(answer), step):
            writer.write(answer[start : start + step])
            await asyncio.sleep(0.002 if self.pieces > 1 else 0.0)


def behind(server: SerialServer, unit: int, clock: ManualClock, starts: range = range(0, 300, 50)) -> ModbusDriver:
    return driver_for(server.port, holding_points(starts), clock, rtu=True, unit_id=unit, timeout="60ms")


@pytest.mark.parametrize("pieces", [1, 5])
async def test_units_share_the_connection_and_answers_may_come_in_pieces(clock: ManualClock, pieces: int) -> None:
    async with SerialServer() as server:
        server.pieces = pieces
        drivers = [behind(server, unit, clock) for unit in (1, 2, 3)]
        for driver in drivers:
            await driver.connect()
        for result in await asyncio.gather(*(driver.poll() for driver in drivers)):
            assert result.value.tolist() == list(range(0, 300, 50))
        assert server.connections == 1
        assert server.units == [1, *[1, 2, 3] * 5, 2, 3], "the first goes ahead, then they take turns"
        for driver in drivers:
            await driver.close()


async def test_one_dead_unit_does_not_end_the_connection_of_the_others(clock: ManualClock) -> None:
    async with SerialServer() as server:
        server.dead = {9}
        drivers = [behind(server, unit, clock) for unit in (9, 1, 2)]
        for _ in range(4):
            for driver in drivers:
                await driver.connect()
            outcomes = await asyncio.gather(*(driver.poll() for driver in drivers), return_exceptions=True)
            assert isinstance(outcomes[0], DeadlineError)
            assert all(isinstance(outcome, PollResult) and outcome.quality.all() for outcome in outcomes[1:])
        assert server.connections == 1
        for driver in drivers:
            await driver.close()


async def test_a_dead_serial_server_is_connected_anew(clock: ManualClock) -> None:
    async with SerialServer() as server:
        server.dead = {1}
        driver = behind(server, 1, clock)
        await driver.connect()
        for _ in range(2):
            with pytest.raises(DriverError):
                await driver.poll()
        with pytest.raises(NotConnectedError):
            await driver.poll()
        server.dead = set()
        async with asyncio.timeout(10.0):
            while True:
                await driver.connect()
                try:
                    result = await driver.poll()
                    break
                except DeadlineError:
                    await asyncio.sleep(0.02)
        assert result.quality.all()
        assert server.connections == 2
        assert driver.health.reconnects == 1
        await driver.close()


async def test_the_serial_server_restarts(clock: ManualClock) -> None:
    async with SerialServer() as server:
        driver = behind(server, 1, clock)
        for _ in range(2):
            await driver.connect()
            assert (await driver.poll()).quality.all()
            await server.stop()
            with pytest.raises(NotConnectedError):
                await driver.poll()
            with pytest.raises(NotConnectedError, match="cannot connect"):
                await driver.connect()
            await server.start()
        await driver.close()
