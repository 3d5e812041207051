"""Modbus peers for tests: a scripted server that can misbehave in any way, and helpers to make points and drivers."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from drivers.interface import DeviceClock, DevicePoint
from drivers.modbus.driver import ModbusDriver
from drivers.modbus.settings import ModbusAddress, ModbusSettings

Handler = Callable[["Request"], Awaitable[None]]


class Request:
    """One request as the scripted server got it, and the connection to answer on."""

    def __init__(self, frame: bytes, writer: asyncio.StreamWriter, number: int, connection: int) -> None:
        self.transaction, _protocol, _length, self.unit = struct.unpack(">HHHB", frame[:7])
        self.pdu = frame[7:]
        self.writer = writer
        self.number = number
        self.connection = connection

    def good_pdu(self) -> bytes:
        """The right answer: a register holds its own address, a bit is on at every third; a write is echoed."""
        function, start, count = struct.unpack(">BHH", self.pdu[:5])
        if function in (1, 2):
            data = bytearray((count + 7) // 8)
            for k in range(count):
                data[k // 8] |= ((start + k) % 3 == 0) << k % 8
            return bytes((function, len(data))) + data
        if function in (3, 4):
            return bytes((function, 2 * count)) + struct.pack(f">{count}H", *range(start, start + count))
        return self.pdu[:5]

    def frame(self, pdu: bytes | None = None, *, transaction: int | None = None, unit: int | None = None) -> bytes:
        """A reply frame, right in everything that is not given."""
        body = self.good_pdu() if pdu is None else pdu
        return struct.pack(
            ">HHHB",
            self.transaction if transaction is None else transaction,
            0,
            len(body) + 1,
            self.unit if unit is None else unit,
        ) + body  # fmt: skip

    def answer(self, pdu: bytes | None = None) -> None:
        """Send a reply."""
        self.writer.write(self.frame(pdu))

    def refuse(self, code: int) -> None:
        """Send an exception reply."""
        self.answer(bytes((self.pdu[0] | 0x80, code)))

    def reset(self) -> None:
        """Send RST instead of a reply."""
        linger = struct.pack("ii", 1, 0)
        self.writer.get_extra_info("socket").setsockopt(1, 13, linger)  # SOL_SOCKET, SO_LINGER
        self.writer.transport.abort()


async def healthy(request: Request) -> None:
    """The handler of a healthy device."""
    request.answer()


class ScriptedServer:
    """Calls ``handler`` for every request. ``requests`` keeps what came; ``connections`` counts the sockets."""

    def __init__(self, handler: Handler = healthy) -> None:
        self.handler = handler
        self.requests: list[Request] = []
        self.connections = 0
        self.open = 0
        self.port = 0
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[Any]] = set()

    async def start(self) -> None:
        """Listen; on the same port as before after :meth:`stop`."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Close the port and every connection."""
        assert self._server is not None
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    async def __aenter__(self) -> ScriptedServer:
        await self.start()
        return self

    async def __aexit__(self, *_exc: object) -> None:
        await self.stop()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        self.open += 1
        connection = self.connections
        try:
            while True:
                head = await reader.readexactly(6)
                body = await reader.readexactly(struct.unpack(">H", head[4:])[0])
                request = Request(head + body, writer, len(self.requests), connection)
                self.requests.append(request)
                await self.handler(request)
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            self.open -= 1
            self._tasks.discard(task)
            writer.transport.abort()


def holding_points(starts: Sequence[int], unit: str = "ahu") -> list[DevicePoint]:
    """Points ``unit/rN``, one u16 holding register each."""
    return [DevicePoint(f"{unit}/r{start}", ModbusAddress(holding=start), writable=True) for start in starts]


def driver_for(port: int, points: Sequence[DevicePoint], clock: DeviceClock, **settings: Any) -> ModbusDriver:
    """A driver for a server of this machine, with short deadlines."""
    made = ModbusSettings.model_validate({"host": "127.0.0.1", "port": port, "timeout": "200ms", **settings})
    return ModbusDriver.build("device", made, points, clock)
