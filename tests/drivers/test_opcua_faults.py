"""OPC UA servers that misbehave: nothing wrong is believed, nothing grows, and the driver comes back."""

from __future__ import annotations

import asyncio
import os
import signal
import struct
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from asyncua import ua
from asyncua.common.utils import ServiceError
from gates import open_journal, wide_gate
from opcua_peers import AHU, driver_for
from structlog.testing import capture_logs

from drivers.errors import (
    AddressError,
    DeviceRefusedError,
    DriverError,
    EncodingError,
    NotConnectedError,
    NotWritableError,
    ProtocolError,
)
from drivers.interface import DeviceClock, DevicePoint, DeviceState
from drivers.opcua import reader as reader_module
from drivers.opcua.driver import OpcUaDriver
from drivers.opcua.server import OpcUaServer, ServedNode
from drivers.opcua.settings import OpcUaAddress
from drivers.opcua.transport import MAX_CHUNK, MAX_MESSAGE
from drivers.opcua.values import INTEGERS
from safety.values import Quality, Reason, WriteOutcome

TYPES = [*(kind.name for kind in INTEGERS), "Boolean", "Float", "Double"]


def node(name: str, uri: str = AHU, **given: Any) -> OpcUaAddress:
    return OpcUaAddress(node=f"nsu={uri};s={name}", **given)


class Plant:
    """A server over a dictionary: name → value; the addresses say the types."""

    def __init__(self, clock: DeviceClock, addresses: dict[str, OpcUaAddress]) -> None:
        self.clock = clock
        self.addresses = addresses
        self.store = {name: float(row % 2) for row, name in enumerate(addresses)}
        self.port = 0

    async def start(self) -> Plant:
        nodes = [
            ServedNode(one, lambda name=name: self.store[name], lambda value, name=name: self.take(name, value))  # type: ignore[misc]
            for name, one in self.addresses.items()
        ]
        self.server = OpcUaServer(nodes, utc=self.clock.utc)
        await self.server.start("127.0.0.1", self.port)
        self.port = self.server.port
        return self

    def take(self, name: str, value: float) -> None:
        if value == 13.0:
            raise ValueError("not today")
        self.store[name] = value

    @property
    def inside(self) -> Any:
        """The library's own server."""
        return self.server._server

    def points(self, **more: OpcUaAddress) -> list[DevicePoint]:
        return [DevicePoint(f"a/{name}", one, writable=True) for name, one in (self.addresses | more).items()]


@asynccontextmanager
async def plant(clock: DeviceClock, addresses: dict[str, OpcUaAddress]) -> AsyncIterator[Plant]:
    one = await Plant(clock, addresses).start()
    try:
        yield one
    finally:
        await one.server.close()


@pytest.mark.parametrize("kind", TYPES)
async def test_every_data_type_goes_there_and_back(clock: DeviceClock, tmp_path: Path, kind: str) -> None:
    low, high = INTEGERS.get(ua.VariantType[kind], (0, 1))
    values = {"Float": [-0.15625, 3.4e38], "Double": [-1e-300, 1.7e308]}.get(
        kind, [float(low), float(min(high, 2**53))]
    )
    async with plant(clock, {"v": node("v", type=kind)}) as server:
        driver = driver_for(server.port, server.points(), clock)
        await driver.connect()
        with open_journal(tmp_path) as journal:
            gate = wide_gate(journal, ["a/v"])
            for value in values:
                if abs(value) < 1e299:
                    await driver.write(gate.admit("a/v", value))
                    assert server.store["v"] == pytest.approx(value, rel=1e-7)
                server.store["v"] = value
                expected = float(np.float32(value)) if kind == "Float" else value
                assert (await driver.poll()).value[0] == expected
                assert await driver.read_back("a/v") == expected
        await driver.close()


async def test_the_namespaces_may_change_places(clock: DeviceClock) -> None:
    """An index means another namespace after the restart; a node by its URI stays the same node."""
    first = {"a": node("v", "urn:one"), "b": node("v", "urn:two")}
    one = await Plant(clock, first).start()
    driver = driver_for(one.port, one.points(), clock)
    await driver.connect()
    one.store.update(a=1.0, b=2.0)
    assert (await driver.poll()).value.tolist() == [1.0, 2.0]
    before = dict(driver._connection.namespaces)
    await one.server.close()
    with pytest.raises(DriverError):
        await driver.poll()
    other = Plant(clock, {"b": first["b"], "a": first["a"]})
    other.port = one.port
    await other.start()
    other.store.update(a=1.0, b=2.0)
    await driver.connect()
    after = driver._connection.namespaces
    assert (after["urn:one"], after["urn:two"]) == (before["urn:two"], before["urn:one"])
    assert (await driver.poll()).value.tolist() == [1.0, 2.0]
    await driver.close()
    await other.server.close()


async def test_a_bad_node_is_named_once_and_the_others_are_read(clock: Any) -> None:
    async with plant(clock, {f"v{k}": node(f"v{k}") for k in range(5)}) as server:
        wrong = {"missing": node("missing"), "nowhere": node("v1", "urn:nowhere"), "text": node("text")}
        space = await server.inside.get_namespace_index(AHU)
        await server.inside.nodes.objects.add_variable(ua.NodeId("text", space), "text", "words")
        driver = driver_for(server.port, server.points(**wrong), clock)
        await driver.connect()
        with capture_logs() as logs:
            for _ in range(3):
                result = await driver.poll()
        assert result.quality.tolist() == [Quality.GOOD] * 5 + [Quality.BAD] * 3
        assert result.reason[5:].tolist() == [Reason.DEVICE_ERROR, Reason.DEVICE_ERROR, Reason.DECODE_ERROR]
        assert np.isnan(result.value[5:]).all()
        (warning,) = [one for one in logs if one["log_level"] == "warning"]
        for words in ("a/missing", "BadNodeIdUnknown", "a/nowhere", "urn:nowhere", "a/text", "not a number"):
            assert words in warning["points"]
        assert driver.health.quarantined == ("a/missing", "a/nowhere", "a/text")
        assert driver.health.state is DeviceState.DEGRADED
        await server.inside.nodes.objects.add_variable(ua.NodeId("missing", space), "missing", 5.0)
        with capture_logs() as logs:
            result = await driver.poll()
        assert result.value[5] == 5.0
        assert logs[0]["points"] == "a/missing"
        assert driver.health.quarantined == ("a/nowhere", "a/text")
        await driver.close()


async def test_a_namespace_that_appears_later_is_found(clock: DeviceClock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader_module, "RETRY_S", 0.0)
    async with plant(clock, {"v": node("v")}) as server:
        driver = driver_for(server.port, server.points(late=node("late", "urn:late")), clock)
        await driver.connect()
        assert (await driver.poll()).quality.tolist() == [Quality.GOOD, Quality.BAD]
        space = await server.inside.register_namespace("urn:late")
        await server.inside.nodes.objects.add_variable(ua.NodeId("late", space), "late", 5.0)
        await driver.poll()
        assert (await driver.poll()).value.tolist() == [0.0, 5.0]
        await driver.close()


@asynccontextmanager
async def refusing(server: Plant, refuse: Callable[[list[Any]], int | None]) -> AsyncIterator[list[int]]:
    """The server refuses whole reads for which ``refuse`` gives a code; yields the sizes of all reads of values."""
    sizes: list[int] = []
    service = server.inside.iserver.attribute_service
    original = service.read

    def read(parameters: Any) -> Any:
        names = [one.NodeId.Identifier for one in parameters.NodesToRead]
        if isinstance(names[0], str) and parameters.NodesToRead[0].AttributeId == ua.AttributeIds.Value:
            sizes.append(len(names))
            code = refuse(names)
            if code is not None:
                raise ServiceError(code)
        return original(parameters)

    service.read = read
    yield sizes
    service.read = original


async def test_a_server_that_takes_few_nodes_a_request_is_learnt(clock: DeviceClock) -> None:
    async with plant(clock, {f"v{k}": node(f"v{k}") for k in range(50)}) as server:
        points = [DevicePoint(one.name, one.address) for one in server.points()]
        driver = driver_for(server.port, points, clock)
        await driver.connect()
        too_many = ua.StatusCodes.BadTooManyOperations
        async with refusing(server, lambda names: too_many if len(names) > 10 else None) as sizes:
            result = await driver.poll()
            assert (result.quality == Quality.GOOD).all()
            assert result.value.tolist() == [float(k % 2) for k in range(50)]
            sizes.clear()
            await driver.poll()
            assert max(sizes) <= 10
            assert sum(sizes) == 50
        await driver.close()


async def test_the_servers_own_limit_is_kept_from_the_start(clock: DeviceClock) -> None:
    async with plant(clock, {f"v{k}": node(f"v{k}") for k in range(50)}) as server:
        limit = server.inside.get_node(
            ua.NodeId(ua.ObjectIds.Server_ServerCapabilities_OperationLimits_MaxNodesPerRead)
        )
        await limit.write_value(ua.Variant(7, ua.VariantType.UInt32))
        points = [DevicePoint(one.name, one.address) for one in server.points()]
        driver = driver_for(server.port, points, clock)
        await driver.connect()
        async with refusing(server, lambda _names: None) as sizes:
            assert (await driver.poll()).value.tolist() == [float(k % 2) for k in range(50)]
        assert max(sizes) == 7
        assert len(sizes) == 8
        await driver.close()


async def test_one_node_that_breaks_whole_reads_is_left_out_and_tried_again(
    clock: DeviceClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with plant(clock, {f"v{k}": node(f"v{k}") for k in range(50)}) as server:
        points = [DevicePoint(one.name, one.address) for one in server.points()]
        driver = driver_for(server.port, points, clock)
        await driver.connect()
        too_large = ua.StatusCodes.BadEncodingLimitsExceeded
        async with refusing(server, lambda names: too_large if "v33" in names else None) as sizes:
            result = await driver.poll()
            assert np.flatnonzero(result.quality != Quality.GOOD).tolist() == [33]
            assert driver.health.quarantined == ("a/v33",)
            sizes.clear()
            await driver.poll()
            assert sum(sizes) == 49, "left out"
        driver._reader._retry_at = 0.001
        assert (await driver.poll()).value[33] == 1.0, "tried again"
        await driver.close()


async def test_a_refused_write_is_rejected_and_not_repeated(clock: DeviceClock, tmp_path: Path) -> None:
    async with plant(clock, {"v": node("v"), "w": node("w", type="Int16", scale=0.1)}) as server:
        driver = driver_for(server.port, server.points(text=node("text"), gone=node("gone")), clock)
        await driver.connect()
        with open_journal(tmp_path) as journal:
            gate = wide_gate(journal, ["a/v", "a/w", "a/text", "a/gone"])
            assert (await gate.write(driver, "a/v", 30.0)).outcome is WriteOutcome.HELD
            with pytest.raises(DeviceRefusedError, match="BadOutOfRange"):
                await driver.write(gate.admit("a/v", 13.0))
            with pytest.raises(EncodingError, match="Int16"):
                await driver.write(gate.admit("a/w", 4000.0))
            with pytest.raises(NotWritableError, match="a/gone"):
                await driver.write(gate.admit("a/gone", 1.0))
            assert server.store == {"v": 30.0, "w": 1.0}
            assert (await gate.write(driver, "a/v", 13.0)).outcome is WriteOutcome.REJECTED
        with pytest.raises(DeviceRefusedError, match="BadNodeIdUnknown"):
            await driver.read_back("a/gone")
        await driver.close()


async def test_rights_that_come_and_go_are_asked_for_again(clock: DeviceClock, tmp_path: Path) -> None:
    async with plant(clock, {"v": node("v")}) as server:
        space = await server.inside.get_namespace_index(AHU)
        inside = server.inside.get_node(ua.NodeId("v", space))
        driver = driver_for(server.port, server.points(), clock)
        await driver.connect()
        with open_journal(tmp_path) as journal:
            gate = wide_gate(journal, ["a/v"])
            await inside.set_writable(False)
            with pytest.raises(DeviceRefusedError, match="BadUserAccessDenied"):
                await driver.write(gate.admit("a/v", 2.0))
            with pytest.raises(NotWritableError, match="may only read"):
                await driver.write(gate.admit("a/v", 2.0))
            await inside.set_writable(True)
            await driver.write(gate.admit("a/v", 2.0))
        assert server.store["v"] == 2.0
        await driver.close()


async def test_a_session_that_the_server_forgot_is_made_anew(clock: DeviceClock) -> None:
    async with plant(clock, {"v": node("v")}) as server:
        driver = driver_for(server.port, server.points(), clock, session_timeout=5.0)
        await driver.connect()
        driver._connection._used_at -= 4.0
        with pytest.raises(NotConnectedError):
            await driver.poll()
        await driver.connect()
        assert (await driver.poll()).quality.all()
        assert driver.health.reconnects == 1
        await driver.close()


async def test_the_channels_keys_are_renewed_before_they_expire(clock: DeviceClock) -> None:
    async with plant(clock, {"v": node("v")}) as server:
        driver = driver_for(server.port, server.points(), clock)
        await driver.connect()
        protocol = driver._connection._protocol
        assert protocol is not None
        token = protocol._connection.security_token.TokenId
        driver._connection._renew_at = 0.0
        assert (await driver.poll()).quality.all()
        assert protocol._connection.security_token.TokenId != token
        assert driver._connection._renew_at > asyncio.get_running_loop().time() + 60.0
        assert (await driver.poll()).quality.all()
        assert driver.health.reconnects == 0
        await driver.close()


CHILD = """
import asyncio, sys
sys.path[:0] = {paths!r}
import opcua_peers
from drivers.opcua.server import OpcUaServer, ServedNode
from drivers.opcua.settings import OpcUaAddress
async def main():
    nodes = [ServedNode(OpcUaAddress(node="nsu=urn:plant:ahu;s=v%d" % k), lambda k=k: float(k)) for k in range(5)]
    server = OpcUaServer(nodes)
    await server.start("127.0.0.1", 0)
    print(server.port, flush=True)
    await asyncio.Event().wait()
asyncio.run(main())
"""


@pytest.mark.fault
@pytest.mark.parametrize("read", ["poll", "subscribe"])
async def test_a_frozen_server_costs_its_deadline_and_recovers(clock: DeviceClock, read: str) -> None:
    code = CHILD.format(paths=[path for path in sys.path if path])
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    try:
        assert child.stdout is not None
        port = int(await asyncio.to_thread(child.stdout.readline))
        points = [DevicePoint(f"a/v{k}", node(f"v{k}"), writable=k == 0) for k in range(5)]
        driver = driver_for(port, points, clock, read=read)
        await driver.connect()
        for _ in range(5):
            assert (await driver.poll()).value.tolist() == [0.0, 1.0, 2.0, 3.0, 4.0]
            await asyncio.sleep(0.05)
        os.kill(child.pid, signal.SIGSTOP)
        async with asyncio.timeout(20.0):
            with pytest.raises(DriverError):
                await driver.poll()
            with pytest.raises(NotConnectedError, match="no OPC UA session"):
                await driver.connect()
        assert driver.health.state is DeviceState.BACKOFF
        os.kill(child.pid, signal.SIGCONT)
        async with asyncio.timeout(20.0):
            while True:
                try:
                    await driver.connect()
                    break
                except DriverError:
                    await asyncio.sleep(0.1)
        assert (await driver.poll()).value.tolist() == [0.0, 1.0, 2.0, 3.0, 4.0]
        assert driver.health.reconnects == 1
        await driver.close()
    finally:
        child.kill()
        child.wait()
        if child.stdout is not None:
            child.stdout.close()


Tamper = Callable[[bytes], bytes]


@asynccontextmanager
async def between(port: int) -> AsyncIterator[tuple[int, list[Tamper]]]:
    """A wire between driver and server; what the server says goes through the first function of the list, if any."""
    tampers: list[Tamper] = []
    tasks: set[asyncio.Task[Any]] = set()
    writers: list[asyncio.StreamWriter] = []

    async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter, back: bool) -> None:
        try:
            while data := await source.read(65536):
                sink.write(tampers[0](data) if back and tampers else data)
                await sink.drain()
        except OSError:
            pass
        sink.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", port)
        writers.extend((writer, back))
        for task in (
            asyncio.create_task(pump(reader, back, False)),
            asyncio.create_task(pump(there, writer, True)),
        ):
            tasks.add(task)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1], tampers
    finally:
        server.close()
        for writer in writers:
            writer.transport.abort()
        await asyncio.gather(*tasks, return_exceptions=True)
        await server.wait_closed()


def chunk(kind: bytes, size: int) -> bytes:
    return b"MSG" + kind + struct.pack("<II", size, 0)


async def failing_poll(clock: DeviceClock, tamper: Tamper) -> tuple[DriverError, OpcUaDriver]:
    """One poll through a wire that tampers, and a good one afterwards on a new connection."""
    async with plant(clock, {"v": node("v")}) as server, between(server.port) as (port, tampers):
        driver = driver_for(port, server.points(), clock)
        await driver.connect()
        assert (await driver.poll()).quality.all()
        tampers.append(tamper)
        with pytest.raises(DriverError) as caught:
            await driver.poll()
        tampers.clear()
        await driver.connect()
        assert (await driver.poll()).value.tolist() == [0.0]
        await driver.close()
        return caught.value, driver


@pytest.mark.parametrize("size", [MAX_CHUNK + 1, 2**31 - 1, 2**32 - 1, 0, 7])
async def test_a_chunk_of_an_impossible_size_is_refused_at_its_header(clock: DeviceClock, size: int) -> None:
    error, driver = await failing_poll(clock, lambda _data: chunk(b"F", size))
    assert isinstance(error, ProtocolError)
    assert f"chunk of {size} bytes" in str(error)
    assert driver.health.reconnects == 1


async def test_an_endless_message_ends_at_the_limit(clock: DeviceClock) -> None:
    """Chunk after chunk, none of them the last: refused before they fill the memory."""
    sent = 0

    def endless(data: bytes) -> bytes:
        nonlocal sent
        whole = b""
        while sent < MAX_MESSAGE + MAX_CHUNK:
            sent += 60_000
            whole += data[:3] + b"C" + struct.pack("<I", 60_000) + data[8:16] + b"\0" * (60_000 - 16)
        return whole

    error, _driver = await failing_poll(clock, endless)
    assert isinstance(error, (ProtocolError, NotConnectedError))


@pytest.mark.parametrize("place", [0, 3, 8, 12, 16, 20, 24, 26])
async def test_garbage_is_never_a_value(clock: DeviceClock, place: int) -> None:
    """Type, kind, channel, token, sequence number, request id, message type: each is checked."""

    def broken(data: bytes) -> bytes:
        return data[:place] + bytes((data[place] ^ 0x55,)) + data[place + 1 :]

    error, _driver = await failing_poll(clock, broken)
    assert str(error)


@pytest.mark.parametrize("keep", [0, 5, 11, 30, 60])
async def test_an_answer_that_stops_in_the_middle_is_a_deadline(clock: DeviceClock, keep: int) -> None:
    error, _driver = await failing_poll(clock, lambda data: data[:keep])
    assert "no answer in time" in str(error)


async def test_an_answer_byte_by_byte_is_whole(clock: DeviceClock) -> None:
    async with plant(clock, {"v": node("v")}) as server, between(server.port) as (port, _tampers):
        driver = driver_for(port, server.points(), clock)
        await driver.connect()
        protocol = driver._connection._protocol
        assert protocol is not None
        whole = protocol.data_received
        protocol.data_received = lambda data: [whole(data[k : k + 1]) for k in range(len(data))]  # type: ignore[method-assign]
        assert (await driver.poll()).value.tolist() == [0.0]
        await driver.close()


async def answer_hello(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A server that says nothing but rubbish."""
    await reader.read(100)
    writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    writer.close()


async def close_at_once(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()


async def refuse_hello(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read(100)
    writer.write(b"ERRF" + struct.pack("<IIi", 16, ua.StatusCodes.BadTcpEndpointUrlInvalid, -1))
    writer.close()


@pytest.mark.parametrize("handler", [answer_hello, close_at_once, refuse_hello])
async def test_a_port_that_is_no_opc_ua_server(
    clock: DeviceClock, handler: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
) -> None:
    server = await asyncio.start_server(handler, "127.0.0.1", 0)
    driver = driver_for(server.sockets[0].getsockname()[1], [], clock)
    with pytest.raises(DriverError, match=r"127\.0\.0\.1"):
        await driver.connect()
    assert driver.health.state is DeviceState.BACKOFF
    await driver.close()
    server.close()
    await server.wait_closed()


async def test_two_values_on_one_node_are_refused_by_the_server() -> None:
    with pytest.raises(AddressError, match="given twice"):
        OpcUaServer([ServedNode(node("v"), lambda: 0.0)] * 2)


async def test_a_taken_port_is_said_so(clock: DeviceClock) -> None:
    async with plant(clock, {"v": node("v")}) as server:
        other = OpcUaServer([ServedNode(node("v"), lambda: 0.0)])
        with pytest.raises(NotConnectedError, match="free port"):
            await other.start("127.0.0.1", server.port)
        await other.close()


async def test_a_value_that_its_type_cannot_hold_is_bad_not_wrapped(clock: DeviceClock) -> None:
    async with plant(clock, {"v": node("v", type="Byte"), "w": node("w")}) as server:
        server.store.update(v=256.0, w=float("nan"))
        driver = driver_for(server.port, server.points(), clock)
        await driver.connect()
        result = await driver.poll()
        assert result.quality.tolist() == [Quality.BAD, Quality.BAD]
        assert np.isnan(result.value).all()
        await driver.close()
