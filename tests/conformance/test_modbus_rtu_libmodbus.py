"""RTU against libmodbus slaves, programs in C that share nothing with us, over pairs of pseudo terminals from socat.

Several slaves on one line: each has a pair of its own, and a hub copies what one says to all others.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from libmodbus import c_slave
from peers import require_debian

from drivers.errors import DeviceRefusedError, DriverError
from drivers.interface import DevicePoint, PollResult
from drivers.modbus.driver import ModbusDriver
from drivers.modbus.settings import REGISTERS, ModbusAddress, ModbusSettings
from safety.envelope import Envelope
from safety.gate import Gate, Route
from safety.journal import Journal
from safety.values import Quality, WriteOutcome

pytestmark = pytest.mark.conformance

REGISTER_COUNT = 400
UNITS = (3, 17, 200)
DEAD = 9
VALUES = {
    "i16": -2.0,
    "u16": 65535.0,
    "i32": -2147483648.0,
    "u32": 305419896.0,
    "i64": -2.0,
    "u64": 9223372036854775808.0,
    "f32": -0.15625,
    "f64": 21.57,
}


class WallClock:
    """The event loop's own time is enough here."""

    def monotonic(self) -> float:
        return asyncio.get_running_loop().time()

    def utc(self) -> float:
        return asyncio.get_running_loop().time()


@contextmanager
def socat_pair(folder: Path, name: str) -> Iterator[tuple[Path, Path]]:
    """Two ports that are wired to each other."""
    require_debian("socat")
    ends = folder / f"{name}-a", folder / f"{name}-b"
    with subprocess.Popen(["socat", *(f"pty,raw,echo=0,link={end}" for end in ends)]) as socat:
        try:
            deadline = time.monotonic() + 10.0
            while not all(end.exists() for end in ends):
                assert time.monotonic() < deadline and socat.poll() is None, "socat made no ports"
                time.sleep(0.005)
            yield ends
        finally:
            socat.kill()


class Hub:
    """The wire: what one says reaches all others, the slaves' answers damaged if wished."""

    def __init__(self, master: Path, slaves: list[Path]) -> None:
        self.damage = 0
        """This many of the next answers lose a bit."""
        self._loop = asyncio.get_running_loop()
        self._master = os.open(master, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
        self._slaves = [os.open(slave, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK) for slave in slaves]
        for port in (self._master, *self._slaves):
            others = [other for other in (self._master, *self._slaves) if other != port]
            self._loop.add_reader(port, self._copy, port, others)

    def _copy(self, source: int, targets: list[int]) -> None:
        with contextlib.suppress(BlockingIOError):
            data = bytearray(os.read(source, 4096))
            if source != self._master and self.damage:
                self.damage -= 1
                data[-1] ^= 1
            for target in targets:
                os.write(target, data)

    def close(self) -> None:
        for port in (self._master, *self._slaves):
            self._loop.remove_reader(port)
            os.close(port)


@pytest.fixture(scope="module")
def ports(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Path, list[Path]]]:
    """Our port, the hub's end of it, and the hub's ends of the running slaves' ports."""
    folder = tmp_path_factory.mktemp("ports")
    with contextlib.ExitStack() as stack:
        ours, wire = stack.enter_context(socat_pair(folder, "master"))
        taps = []
        for unit in UNITS:
            tap, port = stack.enter_context(socat_pair(folder, f"slave{unit}"))
            stack.enter_context(c_slave(REGISTER_COUNT, str(port), unit))
            taps.append(tap)
        yield ours, wire, taps


@pytest.fixture
async def hub(ports: tuple[Path, Path, list[Path]]) -> object:
    made = Hub(ports[1], ports[2])
    yield made
    made.close()


@pytest.fixture
def port(ports: tuple[Path, Path, list[Path]], hub: Hub) -> Path:
    del hub
    return ports[0]


def driver_for(port: Path, unit: int, points: list[DevicePoint], **settings: object) -> ModbusDriver:
    made = {"serial": str(port), "baud": 115200, "parity": "N", "unit_id": unit, "timeout": "1s", **settings}
    return ModbusDriver.build("c", ModbusSettings.model_validate(made), points, WallClock())


def gate_for(points: list[DevicePoint], journal: Journal) -> Gate:
    names = [point.name for point in points]
    envelopes = {name: Envelope(name, -8e307, 8e307, fail_safe=0.0) for name in names}
    return Gate(envelopes, {name: Route("c", "modbus", "{}", "{}") for name in names}, journal)


def all_tables() -> list[DevicePoint]:
    tables = ("holding", "input", "coil", "discrete")
    return [
        DevicePoint(f"c/{table}{k}", ModbusAddress.model_validate({table: k}))
        for table in tables
        for k in range(200, REGISTER_COUNT)
    ]


def expected() -> list[float]:
    words = [float(k) for k in range(200, REGISTER_COUNT)]
    bits = [float(k % 3 == 0) for k in range(200, REGISTER_COUNT)]
    return words + words + bits + bits


async def test_all_tables_of_three_slaves_on_one_line_with_one_dead(port: Path) -> None:
    alive = [driver_for(port, unit, all_tables()) for unit in UNITS]
    dead = driver_for(port, DEAD, all_tables(), timeout="150ms")
    for driver in (*alive, dead):
        await driver.connect()
    for _ in range(3):
        outcomes = await asyncio.gather(*(driver.poll() for driver in (*alive, dead)), return_exceptions=True)
        assert isinstance(outcomes[-1], DriverError)
        for result in outcomes[:-1]:
            assert isinstance(result, PollResult)
            assert (result.quality == Quality.GOOD).all()
            assert result.value.tolist() == expected()
    for driver in (*alive, dead):
        await driver.close()


async def test_every_type_and_order_is_written_and_read_back(port: Path, tmp_path: Path) -> None:
    points, start = [], 0
    for type_, order in itertools.product(VALUES, ("ABCD", "DCBA", "BADC", "CDAB")):
        address = ModbusAddress.model_validate({"holding": start, "type": type_, "order": order})
        points.append(DevicePoint(f"c/{type_}-{order}", address, writable=True))
        start += REGISTERS[type_]
    driver = driver_for(port, UNITS[0], points)
    await driver.connect()
    with Journal(tmp_path / "journal.sqlite") as journal:
        gate = gate_for(points, journal)
        for point in points:
            value = VALUES[point.name.removeprefix("c/").split("-")[0]]
            assert (await gate.write(driver, point.name, value)).outcome is WriteOutcome.HELD
    result = await driver.poll()
    assert result.value.tolist() == [VALUES[point.name.removeprefix("c/").split("-")[0]] for point in points]
    await driver.close()


async def test_coils_and_bits_of_registers(port: Path, tmp_path: Path) -> None:
    """libmodbus has function 22: the other bits of the register stay."""
    points = [DevicePoint(f"c/coil{k}", ModbusAddress(coil=k), writable=True) for k in (10, 11)]
    points += [DevicePoint(f"c/bit{k}", ModbusAddress(holding=150, bit=k), writable=True) for k in (0, 7, 15)]
    word = DevicePoint("c/word", ModbusAddress(holding=150), writable=True)
    driver = driver_for(port, UNITS[1], [*points, word])
    await driver.connect()
    with Journal(tmp_path / "journal.sqlite") as journal:
        gate = gate_for([*points, word], journal)
        assert (await gate.write(driver, "c/word", 0x1234)).outcome is WriteOutcome.HELD
        for point in points:
            assert (await gate.write(driver, point.name, 1.0)).outcome is WriteOutcome.HELD
        assert await driver.read_back("c/word") == 0x1234 | 0x8081
        assert (await gate.write(driver, "c/bit7", 0.0)).outcome is WriteOutcome.HELD
        assert await driver.read_back("c/word") == 0x1234 | 0x8001
    await driver.close()


async def test_registers_beyond_the_end_are_refused_by_name_and_the_rest_stays_good(port: Path) -> None:
    points = [DevicePoint(f"c/{k}", ModbusAddress(holding=k)) for k in (REGISTER_COUNT - 1, REGISTER_COUNT)]
    driver = driver_for(port, UNITS[2], points, timeout="2s")
    await driver.connect()
    result = await driver.poll()
    assert result.quality.tolist() == [Quality.GOOD, Quality.BAD]
    assert driver.health.quarantined == (f"c/{REGISTER_COUNT}",)
    with pytest.raises(DeviceRefusedError, match="illegal data address"):
        await driver.read_back(f"c/{REGISTER_COUNT}")
    await driver.close()


async def test_a_damaged_answer_is_asked_for_again(port: Path, hub: Hub) -> None:
    driver = driver_for(port, UNITS[0], all_tables())
    await driver.connect()
    for _ in range(3):
        hub.damage = 1
        result = await driver.poll()
        assert result.value.tolist() == expected()
        assert hub.damage == 0
    await driver.close()
