"""How fast 10,000 Modbus registers are read from a C server: our driver beside pymodbus and a C libmodbus client.

    python benchmarks/modbus_read.py [--registers 10000] [--rounds 30] [--json]

Every contender reads the same registers from the same libmodbus server (a process of its own), 125 a request; the
rounds take turns, so that other work on the machine hits all alike. Ours is the whole poll: planned reads, decoded
float64 values, quality and time for every point. pymodbus and the C client only fetch the words. Medians; CPU is the
client's. Needs libmodbus-dev and gcc (Debian; installed when root).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import structlog
from pymodbus.client import AsyncModbusTcpClient

from drivers.interface import DevicePoint
from drivers.modbus.driver import ModbusDriver
from drivers.modbus.settings import ModbusAddress, ModbusSettings

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "conformance"))
from libmodbus import c_client_command, c_server

BLOCK = 125
WINDOWS = (1, 4, 16)
PYMODBUS = "pymodbus, blocks of 125"
C_CLIENT = "libmodbus client (C)"


class WallClock:
    """The driver's clock, outside of a site."""

    def monotonic(self) -> float:
        return time.monotonic()

    def utc(self) -> float:
        return time.time()


@dataclass
class Times:
    """Wall and CPU seconds of each round."""

    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)

    def median(self, registers: int) -> dict[str, float]:
        wall, cpu = statistics.median(self.wall), statistics.median(self.cpu)
        return {"points_per_s": registers / wall, "wall_ms": wall * 1e3, "cpu_ms": cpu * 1e3}


async def timed(times: Times, work: Callable[[], Awaitable[None]]) -> None:
    """One round."""
    wall, cpu = time.perf_counter(), time.process_time()
    await work()
    times.wall.append(time.perf_counter() - wall)
    times.cpu.append(time.process_time() - cpu)


async def measure(port: int, registers: int, rounds: int) -> dict[str, Times]:
    """All contenders, round by round."""
    points = [DevicePoint(f"bench/r{k}", ModbusAddress(holding=k)) for k in range(registers)]
    expected = [float(k) for k in range(registers)]
    peer = AsyncModbusTcpClient("127.0.0.1", port=port)
    await peer.connect()

    async def pymodbus_blocks() -> None:
        words: list[int] = []
        for start in range(0, registers, BLOCK):
            words += (await peer.read_holding_registers(start, count=min(BLOCK, registers - start))).registers
        assert words[-1] == expected[-1]

    def our_poll(driver: ModbusDriver) -> Callable[[], Awaitable[None]]:
        async def poll() -> None:
            assert (await driver.poll()).value[-1] == expected[-1]

        return poll

    drivers: dict[str, ModbusDriver] = {}
    for window in WINDOWS:
        settings = ModbusSettings(host="127.0.0.1", port=port, window=window)
        drivers[f"poetd, window {window}"] = ModbusDriver.build("bench", settings, points, WallClock())
    times = {name: Times() for name in (*drivers, PYMODBUS, C_CLIENT)}
    for number in range(rounds + 1):  # the first round warms up and is not counted
        for name, driver in drivers.items():
            # Connected one at a time: drivers of one address share a connection, and with it the smallest window.
            await driver.connect()
            await timed(times[name] if number else Times(), our_poll(driver))
            await driver.close()
        await timed(times[PYMODBUS] if number else Times(), pymodbus_blocks)
        out = subprocess.run(c_client_command(port, "bench", registers, 1), check=True, capture_output=True, text=True)
        if number:
            wall, cpu = out.stdout.split()
            times[C_CLIENT].wall.append(float(wall))
            times[C_CLIENT].cpu.append(float(cpu))
    peer.close()
    return times


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--registers", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    try:
        with c_server(arguments.registers) as port:
            times = asyncio.run(measure(port, arguments.registers, arguments.rounds))
    except pytest.skip.Exception as missing:
        sys.exit(str(missing))
    results = {name: one.median(arguments.registers) for name, one in times.items()}
    if arguments.json:
        print(json.dumps({"registers": arguments.registers, "rounds": arguments.rounds, "results": results}, indent=2))
        return
    reference = results[C_CLIENT]["points_per_s"]
    print(f"{arguments.registers} registers, medians of {arguments.rounds} rounds")
    print(f"{'':26}{'points/s':>12}{'of C':>8}{'wall ms':>10}{'CPU ms':>9}")
    for name, one in results.items():
        rate = one["points_per_s"]
        print(f"{name:26}{rate:12,.0f}{rate / reference:8.2f}{one['wall_ms']:10.2f}{one['cpu_ms']:9.2f}")


if __name__ == "__main__":
    main()
