"""Against libmodbus and mbpoll, programs in C that share nothing with us: all tables, types and orders, both ways."""

from __future__ import annotations

import asyncio
import itertools
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from libmodbus import c_client_command, c_server
from peers import require_debian

from drivers.interface import DevicePoint
from drivers.modbus.driver import ModbusDriver
from drivers.modbus.registers import Register, RegisterMap
from drivers.modbus.server import ModbusServer
from drivers.modbus.settings import REGISTERS, ModbusAddress, ModbusSettings
from safety.envelope import Envelope
from safety.gate import Gate, Route
from safety.journal import Journal
from safety.values import Quality, WriteOutcome

pytestmark = pytest.mark.conformance

ORDERS = ("ABCD", "DCBA", "BADC", "CDAB")
VALUES = {
    "i16": (-32768.0, -2.0, 12345.0),
    "u16": (0.0, 258.0, 65535.0),
    "i32": (-2147483648.0, -2.0, 305419896.0),
    "u32": (1.0, 305419896.0, 4294967295.0),
    "i64": (-9007199254740992.0, -2.0, 81985529216486895.0),
    "u64": (1.0, 81985529216486895.0, 9223372036854775808.0),
    "f32": (-0.15625, 21.5, 1.1754943508222875e-38),
    "f64": (-1e-300, 21.57, 1.7976931348623157e308),
}
COMBINATIONS = list(itertools.product(VALUES, ORDERS))
REGISTER_COUNT = 1000


class WallClock:
    """The event loop's own time is enough here."""

    def monotonic(self) -> float:
        return asyncio.get_running_loop().time()

    def utc(self) -> float:
        return asyncio.get_running_loop().time()


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with c_server(REGISTER_COUNT) as port:
        yield port


@pytest.fixture
def gate_for(tmp_path: Path) -> Iterator[object]:
    with Journal(tmp_path / "journal.sqlite") as journal:

        def make(points: list[DevicePoint]) -> Gate:
            names = [point.name for point in points]
            envelopes = {name: Envelope(name, -8e307, 8e307, fail_safe=0.0) for name in names}
            return Gate(envelopes, {name: Route("c", "modbus", "{}", "{}") for name in names}, journal)

        yield make


def text_of(type_: str, value: float) -> str:
    """All digits, as the C client reads them."""
    return f"{value:.17g}" if type_ in ("f32", "f64") else str(int(value))


async def run(*command: object) -> str:
    """Run a program; its output, or an error with what it said."""
    process = await asyncio.create_subprocess_exec(
        *map(str, command), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    async with asyncio.timeout(30.0):
        out, err = await process.communicate()
    if process.returncode:
        raise RuntimeError(f"{command}: {process.returncode}: {err.decode()}{out.decode()}")
    return out.decode()


def driver_for(port: int, points: list[DevicePoint], **settings: object) -> ModbusDriver:
    made = ModbusSettings.model_validate({"host": "127.0.0.1", "port": port, **settings})
    return ModbusDriver.build("c", made, points, WallClock())


def typed_points() -> list[DevicePoint]:
    """One holding value of each type and order, one after another from register 200."""
    points, start = [], 200
    for type_, order in COMBINATIONS:
        address = ModbusAddress.model_validate({"holding": start, "type": type_, "order": order})
        points.append(DevicePoint(f"c/{type_}-{order}", address, writable=True))
        start += REGISTERS[type_]
    return points


@pytest.mark.parametrize("window", [1, 4, 16])
async def test_all_four_tables_are_read(port: int, window: int) -> None:
    tables = {
        "holding": float,
        "input": float,
        "coil": lambda k: float(k % 3 == 0),
        "discrete": lambda k: float(k % 3 == 0),
    }
    # Beyond register 600: the other tests write below.
    points = [
        DevicePoint(f"c/{table}{k}", ModbusAddress.model_validate({table: k}))
        for table in tables
        for k in range(600, REGISTER_COUNT)
    ]
    driver = driver_for(port, points, window=window)
    await driver.connect()
    result = await driver.poll()
    assert (result.quality == Quality.GOOD).all()
    assert result.value.tolist() == [tables[table](k) for table in tables for k in range(600, REGISTER_COUNT)]
    await driver.close()


@pytest.mark.parametrize("index", range(3))
async def test_what_we_write_libmodbus_reads_and_what_it_writes_we_read(port: int, index: int, gate_for) -> None:  # type: ignore[no-untyped-def]
    points = typed_points()
    gate = gate_for(points)
    driver = driver_for(port, points)
    await driver.connect()
    for point, (type_, order) in zip(points, COMBINATIONS, strict=True):
        start, value = point.address.number, VALUES[type_][index]  # type: ignore[attr-defined]
        if abs(value) < 8e307:
            await driver.write(gate.admit(point.name, value))
            assert float(await run(*c_client_command(port, "get", type_, order, start))) == value, (type_, order)
            assert await driver.read_back(point.name) == value
        await run(*c_client_command(port, "set", type_, order, start, text_of(type_, value)))
    result = await driver.poll()
    assert result.value.tolist() == [VALUES[type_][index] for type_, _order in COMBINATIONS]
    await driver.close()


async def test_coils_are_written_one_and_many(port: int, gate_for) -> None:  # type: ignore[no-untyped-def]
    points = [DevicePoint(f"c/{k}", ModbusAddress(coil=k), writable=True) for k in range(10, 20)]
    gate = gate_for(points)
    driver = driver_for(port, points)
    await driver.connect()
    await run(*c_client_command(port, "write", "coil", 10, *[1, 1, 0, 0, 1, 1, 0, 0, 1, 0]))
    assert (await driver.poll()).value.tolist() == [1, 1, 0, 0, 1, 1, 0, 0, 1, 0]
    for k, value in ((10, 0.0), (12, 1.0)):
        assert (await gate.write(driver, f"c/{k}", value)).outcome is WriteOutcome.HELD
    assert await run(*c_client_command(port, "read", "coil", 10, 4)) == "0 1 1 0\n"
    assert await run(*c_client_command(port, "read", "discrete", 10, 4)) == "0 1 1 0\n"
    await driver.close()


async def test_registers_beyond_the_end_are_found_and_the_rest_stays_good(port: int) -> None:
    points = [DevicePoint(f"c/{k}", ModbusAddress(holding=k)) for k in range(REGISTER_COUNT - 50, REGISTER_COUNT + 3)]
    driver = driver_for(port, points)
    await driver.connect()
    result = await driver.poll()
    assert (result.quality[:50] == Quality.GOOD).all()
    assert (result.quality[50:] == Quality.BAD).all()
    assert len(driver.health.quarantined) == 3
    await driver.close()


@pytest.fixture
def plant() -> dict[str, float]:
    values = {f"{type_}-{order}": VALUES[type_][0] for type_, order in COMBINATIONS}
    return {**values, "coil": 1.0}


@pytest.fixture
async def our_server(plant: dict[str, float]) -> object:
    """Our server with the same map, and what it holds."""
    registers = []
    for point in typed_points():
        name = point.name.removeprefix("c/")
        read, write = (lambda name=name: plant[name]), (lambda value, name=name: plant.__setitem__(name, value))
        registers.append(Register(point.address, read, write))  # type: ignore[arg-type]
    for k in range(8):
        registers.append(Register(ModbusAddress(input=k), lambda k=k: 100.0 + k))
        registers.append(Register(ModbusAddress(discrete=k), lambda k=k: float(k % 2)))
        registers.append(
            Register(ModbusAddress(coil=k), lambda: plant["coil"], lambda value: plant.__setitem__("coil", value))
        )
    server = ModbusServer({1: RegisterMap(registers)})
    await server.start("127.0.0.1", 0)
    yield server
    await server.close()


async def test_libmodbus_reads_and_writes_our_server(our_server: ModbusServer, plant: dict[str, float]) -> None:
    port = our_server.port
    for point, (type_, order) in zip(typed_points(), COMBINATIONS, strict=True):
        start = point.address.number  # type: ignore[attr-defined]
        assert float(await run(*c_client_command(port, "get", type_, order, start))) == VALUES[type_][0], (type_, order)
        await run(*c_client_command(port, "set", type_, order, start, text_of(type_, VALUES[type_][1])))
        assert plant[f"{type_}-{order}"] == VALUES[type_][1]
    assert await run(*c_client_command(port, "read", "input", 0, 8)) == "100 101 102 103 104 105 106 107\n"
    assert await run(*c_client_command(port, "read", "discrete", 0, 4)) == "0 1 0 1\n"
    await run(*c_client_command(port, "write", "coil", 0, 0))
    assert plant["coil"] == 0.0
    assert await run(*c_client_command(port, "read", "coil", 0, 2)) == "0 0\n"
    await run(*c_client_command(port, "write", "coil", 0, 0, 1))
    assert plant["coil"] == 1.0
    with pytest.raises(RuntimeError, match="Illegal data address"):
        await run(*c_client_command(port, "read", "holding", 0, 1))
    with pytest.raises(RuntimeError, match="Illegal data address"):
        await run(*c_client_command(port, "read", "input", 7, 2))


async def mbpoll(port: int, *arguments: object) -> str:
    require_debian("mbpoll")
    return await run("mbpoll", "-m", "tcp", "-p", port, "-a", 1, "-0", "-1", "-q", *arguments, "127.0.0.1")


def shown(output: str) -> list[float]:
    return [float(number) for number in re.findall(r"^\[\d+\]:\s+(\S+)", output, re.MULTILINE)]


async def test_mbpoll_reads_our_server(our_server: ModbusServer) -> None:
    port = our_server.port
    addresses = {point.name: point.address.number for point in typed_points()}  # type: ignore[attr-defined]
    assert shown(await mbpoll(port, "-t", "3", "-r", 0, "-c", 4)) == [100.0, 101.0, 102.0, 103.0]
    assert shown(await mbpoll(port, "-t", "1", "-r", 0, "-c", 4)) == [0.0, 1.0, 0.0, 1.0]
    assert shown(await mbpoll(port, "-t", "0", "-r", 0, "-c", 2)) == [1.0, 1.0]
    assert shown(await mbpoll(port, "-t", "4", "-r", addresses["c/u16-ABCD"], "-c", 1)) == [VALUES["u16"][0]]
    # mbpoll's default is the low word first; -B is the high word first.
    for order, flags in (("CDAB", ()), ("ABCD", ("-B",))):
        for type_, name in (("f32", "4:float"), ("i32", "4:int")):
            start = addresses[f"c/{type_}-{order}"]
            assert shown(await mbpoll(port, *flags, "-t", name, "-r", start, "-c", 1)) == [
                pytest.approx(VALUES[type_][0], rel=1e-6)
            ]


async def test_mbpoll_and_our_driver_agree_on_a_c_server(port: int, gate_for) -> None:  # type: ignore[no-untyped-def]
    points = [
        DevicePoint("c/f", ModbusAddress(holding=20, type="f32", order="ABCD"), writable=True),
        DevicePoint("c/w", ModbusAddress(holding=22, type="f32", order="CDAB"), writable=True),
    ]
    gate = gate_for(points)
    driver = driver_for(port, points)
    await driver.connect()
    await driver.write(gate.admit("c/f", 21.5))
    assert shown(await mbpoll(port, "-B", "-t", "4:float", "-r", 20, "-c", 1)) == [21.5]
    require_debian("mbpoll")
    await run("mbpoll", "-m", "tcp", "-p", port, "-a", 1, "-0", "-t", "4:float", "-r", 22, "127.0.0.1", "--", "-7.25")
    assert await driver.read_back("c/w") == -7.25
    await driver.close()
