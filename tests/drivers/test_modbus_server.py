"""The register map and the server: strict, consistent, bounded; and pymodbus as an independent client and server."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from conftest import ManualClock
from gates import open_journal, wide_gate
from hypothesis import given
from hypothesis import strategies as st
from modbus_peers import driver_for, holding_points
from pymodbus.client import AsyncModbusTcpClient
from pymodbus.datastore import ModbusDeviceContext, ModbusSequentialDataBlock, ModbusServerContext
from pymodbus.server import ModbusTcpServer

from drivers.errors import AddressError, NotConnectedError
from drivers.interface import DevicePoint
from drivers.modbus.mbap import frame
from drivers.modbus.registers import Register, RegisterMap
from drivers.modbus.server import ModbusServer
from drivers.modbus.settings import ModbusAddress

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # pymodbus's own, of its data store


class Store:
    """A small plant: values by name."""

    def __init__(self, **values: float) -> None:
        self.values = values
        self.reads: dict[str, int] = {}

    def register(self, name: str, address: ModbusAddress, *, writable: bool = True) -> Register:
        def read() -> float:
            self.reads[name] = self.reads.get(name, 0) + 1
            return self.values[name]

        def write(value: float) -> None:
            if value > 1e6:
                raise ValueError("too much")
            self.values[name] = value

        return Register(address, read, write if writable else None)


@pytest.fixture
def store() -> Store:
    return Store(t=21.5, n=7.0, limit=300.0, fixed=5.0, fan=1.0, pump=0.0, alarm=1.0, low=0.0)


@pytest.fixture
def registers(store: Store) -> RegisterMap:
    return RegisterMap(
        [
            store.register("t", ModbusAddress(input=0, type="f32")),
            store.register("n", ModbusAddress(holding=0)),
            store.register("limit", ModbusAddress(holding=1, type="u32")),
            store.register("fixed", ModbusAddress(holding=3), writable=False),
            store.register("fan", ModbusAddress(coil=0)),
            store.register("pump", ModbusAddress(coil=1)),
            store.register("alarm", ModbusAddress(input=9, bit=4)),
            store.register("low", ModbusAddress(input=9, bit=0)),
            store.register("fan", ModbusAddress(discrete=3)),
        ]
    )


@pytest.mark.parametrize(
    ("request_", "reply"),
    [
        ("0300000003", "0306 0007 0000012C"),
        ("0400000002", "0404" + struct.pack(">f", 21.5).hex()),
        ("0100000002", "010101"),
        ("0200030001", "020101"),
        ("0400090001", "04020010"),
        ("0600000009", "0600000009"),
        ("10000100020400000064", "1000010002"),
        ("0500010000", "0500010000"),
        ("050001FF00", "050001FF00"),
        ("0F000000020102", "0F00000002"),
        # what a strict device refuses, and how
        ("0300000000", "8303"),
        ("030000007E", "8303"),
        ("01000007D1", "8103"),
        ("0300040001", "8302"),
        ("0300030002", "8302"),
        ("03FFFF0002", "8302"),
        ("0100020001", "8102"),
        ("0600010001", "8602"),
        ("0600020001", "8602"),
        ("1000000002040001 0002", "9002"),
        ("0600030001", "8602"),
        ("1000020002 04 0000 0005", "9002"),
        ("0600500001", "8602"),
        ("0500010001", "8503"),
        ("1000010002030000 00", "9003"),
        ("100001007C02 0000", "9003"),
        ("1000010002040000", "9003"),
        ("100001", "9003"),
        ("06000000", "8603"),
        ("03", "8303"),
        ("1000010002 04 00FFFFFF", "9003"),
        ("2B0E0100", "AB01"),
        ("0700", "8701"),
        ("80", "8001"),
        ("FF00", "FF01"),
    ],
)
def test_requests_and_replies(registers: RegisterMap, request_: str, reply: str) -> None:
    assert registers.answer(bytes.fromhex(request_)).hex() == bytes.fromhex(reply).hex()


@given(request=st.binary(min_size=1, max_size=253))
def test_no_request_raises_and_every_reply_fits(request: bytes) -> None:
    store = Store(a=1.0, b=2.0)
    registers = RegisterMap(
        [store.register("a", ModbusAddress(holding=0)), store.register("b", ModbusAddress(coil=0, scale=2.0))]
    )
    reply = registers.answer(request)
    assert 1 <= len(reply) <= 253
    assert reply[0] & 0x7F == request[0] & 0x7F


def test_a_refused_write_of_several_values_changes_none(registers: RegisterMap, store: Store) -> None:
    assert registers.answer(bytes.fromhex("1000000004 08 0001 00000002 0003")) == b"\x90\x02"
    assert (store.values["n"], store.values["limit"], store.values["fixed"]) == (7.0, 300.0, 5.0)


def test_a_wide_value_is_read_once_per_request(registers: RegisterMap, store: Store) -> None:
    """Its two registers must be of one moment."""
    registers.answer(bytes.fromhex("0400000002"))
    assert store.reads["t"] == 1


@pytest.mark.parametrize("value", [70_000.0, -1.0, float("nan"), float("inf")])
def test_a_value_that_its_type_cannot_hold_is_a_device_failure_and_never_wraps(
    registers: RegisterMap, store: Store, value: float
) -> None:
    store.values["n"] = value
    assert registers.answer(bytes.fromhex("0300000001")) == b"\x83\x04"
    store.values["alarm"] = 0.5
    assert registers.answer(bytes.fromhex("0400090001")) == b"\x84\x04"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (ModbusAddress(holding=0, type="u32"), ModbusAddress(holding=1)),
        (ModbusAddress(coil=4), ModbusAddress(coil=4)),
        (ModbusAddress(input=2, bit=3), ModbusAddress(input=2)),
        (ModbusAddress(input=2, bit=3), ModbusAddress(input=2, bit=3)),
    ],
)
def test_two_values_at_one_address_are_an_error(one: ModbusAddress, other: ModbusAddress) -> None:
    with pytest.raises(AddressError, match="given twice"):
        RegisterMap([Register(one, lambda: 0.0), Register(other, lambda: 0.0)])


@pytest.fixture
async def server(registers: RegisterMap) -> AsyncIterator[ModbusServer]:
    made = ModbusServer({1: registers}, max_connections=3, idle_timeout_s=30.0)
    await made.start("127.0.0.1", 0)
    yield made
    await made.close()


async def test_requests_in_one_packet_are_answered_in_one_go(server: ModbusServer) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    read = bytes.fromhex("0300000001")
    writer.write(frame(1, 1, read) + frame(2, 9, read) + frame(3, 1, read)[:5])
    assert await reader.readexactly(11 + 9) == frame(1, 1, b"\x03\x02\x00\x07") + frame(2, 9, b"\x83\x0b")
    writer.write(frame(3, 1, read)[5:])
    assert await reader.readexactly(11) == frame(3, 1, b"\x03\x02\x00\x07")
    writer.close()
    await writer.wait_closed()


async def test_the_fourth_client_is_turned_away_and_a_leaver_makes_room(server: ModbusServer) -> None:
    clients = [await asyncio.open_connection("127.0.0.1", server.port) for _ in range(3)]
    for number, (reader, writer) in enumerate(clients):
        writer.write(frame(number, 1, bytes.fromhex("0300000001")))
        await reader.readexactly(11)
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    assert await reader.read() == b""
    writer.close()
    clients[0][1].close()
    await clients[0][1].wait_closed()
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(frame(9, 1, bytes.fromhex("0300000001")))
    assert len(await reader.readexactly(11)) == 11
    for _reader, other in (*clients[1:], (reader, writer)):
        other.close()
        await other.wait_closed()


async def test_an_idle_client_is_dropped(registers: RegisterMap) -> None:
    server = ModbusServer({1: registers}, idle_timeout_s=0.05)
    await server.start("127.0.0.1", 0)
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    async with asyncio.timeout(5.0):
        assert await reader.read() == b""
    writer.close()
    await server.close()


async def test_noise_drops_the_client_and_nobody_else(server: ModbusServer) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(b"GET / HTTP/1.1\r\n\r\n")
    assert await reader.read() == b""
    writer.close()
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(frame(1, 1, bytes.fromhex("0300000001")))
    assert len(await reader.readexactly(11)) == 11
    writer.close()
    await writer.wait_closed()


async def test_a_client_that_never_reads_is_not_listened_to_either(server: ModbusServer) -> None:
    """Its requests wait in the network, not in our memory."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    request = frame(1, 1, bytes.fromhex("0300000003")) * 1000
    async with asyncio.timeout(20.0):
        while not any(session.transport.get_write_buffer_size() for session in server._sessions if session.transport):
            writer.write(request)
            await asyncio.sleep(0)
        (session,) = server._sessions
        assert session.transport is not None
        for _ in range(200):
            writer.write(request)
            await asyncio.sleep(0)
        assert session.transport.get_write_buffer_size() < 1_000_000
        assert not session.transport.is_reading()
        while not session.transport.is_reading():
            await reader.read(1 << 20)
    writer.transport.abort()


async def test_a_port_in_use_is_said_so(server: ModbusServer) -> None:
    with pytest.raises(NotConnectedError, match=f"cannot listen on 127.0.0.1:{server.port}"):
        await ModbusServer({}).start("127.0.0.1", server.port)


async def test_closing_twice_and_before_the_start_is_harmless(registers: RegisterMap) -> None:
    server = ModbusServer({1: registers})
    await server.close()
    await server.start("127.0.0.1", 0)
    await server.close()
    await server.close()


async def test_pymodbus_reads_and_writes_our_server(server: ModbusServer, store: Store) -> None:
    async with AsyncModbusTcpClient("127.0.0.1", port=server.port, retries=0) as client:
        assert (await client.read_holding_registers(0, count=4)).registers == [7, 0, 300, 5]
        words = (await client.read_input_registers(0, count=2)).registers
        assert client.convert_from_registers(words, client.DATATYPE.FLOAT32) == 21.5
        assert (await client.read_coils(0, count=2)).bits[:2] == [True, False]
        assert (await client.read_discrete_inputs(3, count=1)).bits[0] is True
        assert not (await client.write_register(0, 11)).isError()
        assert not (await client.write_registers(1, [1, 2])).isError()
        assert not (await client.write_coil(1, True)).isError()
        assert not (await client.write_coils(0, [False, True])).isError()
        assert (store.values["n"], store.values["limit"], store.values["fan"]) == (11.0, 65538.0, 0.0)
        refused = await client.write_register(3, 1)
        assert refused.isError()
        assert refused.exception_code == 2


async def test_our_driver_reads_and_writes_a_pymodbus_server(clock: ManualClock, tmp_path: Path) -> None:
    words = AsyncModbusTcpClient.convert_to_registers(21.25, AsyncModbusTcpClient.DATATYPE.FLOAT64)
    swapped = AsyncModbusTcpClient.convert_to_registers(
        -123456, AsyncModbusTcpClient.DATATYPE.INT32, word_order="little"
    )
    block = ModbusSequentialDataBlock(1, [*words, *swapped, *range(6, 300)])
    bits = ModbusSequentialDataBlock(1, [k % 3 == 0 for k in range(300)])
    context = ModbusServerContext(devices=ModbusDeviceContext(hr=block, ir=block, co=bits, di=bits), single=True)
    server = ModbusTcpServer(context, address=("127.0.0.1", 0))
    await server.serve_forever(background=True)
    port = server.transport.sockets[0].getsockname()[1]
    points = [
        DevicePoint("a/f", ModbusAddress(holding=0, type="f64"), writable=True),
        DevicePoint("a/i", ModbusAddress(input=4, type="i32", order="CDAB")),
        *holding_points(range(6, 290)),
        *[DevicePoint(f"a/c{k}", ModbusAddress(coil=k), writable=True) for k in range(40)],
        *[DevicePoint(f"a/d{k}", ModbusAddress(discrete=k)) for k in range(40)],
    ]
    expected = [21.25, -123456.0, *range(6, 290), *[k % 3 == 0 for k in range(40)] * 2]
    driver = driver_for(port, points, clock)
    await driver.connect()
    assert (await driver.poll()).value.tolist() == expected
    with open_journal(tmp_path) as journal:
        gate = wide_gate(journal, [point.name for point in points])
        for name, value in {"a/f": -0.5, "ahu/r20": 999.0, "a/c1": 1.0}.items():
            await driver.write(gate.admit(name, value))
            assert await driver.read_back(name) == value
    await driver.close()
    await server.shutdown()
