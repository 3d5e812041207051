"""What reading OPC UA nodes costs the client's CPU: our driver's poll beside asyncua's ``read_values``, in one run.

    python benchmarks/opcua_read.py [--nodes 2000] [--rounds 30] [--json]

Both read the same nodes from the same server (a process of its own), at most 1,000 a request; the rounds take turns, so
that other work on the machine hits both alike. Ours is the whole poll: values, quality, reason and source time of every
point as arrays. asyncua's is its own call, with the nodes in batches of 1,000. CPU is the client process's; medians.
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

import structlog
from asyncua import Client, ua

from drivers.interface import DevicePoint
from drivers.opcua.driver import OpcUaDriver
from drivers.opcua.server import OpcUaServer, ServedNode
from drivers.opcua.settings import OpcUaAddress, OpcUaSettings

BATCH = 1000
URI = "urn:poetd:benchmark"
OURS = "poetd poll"
LIBRARY = "asyncua read_values"


class WallClock:
    """The driver's clock, outside of a site."""

    def monotonic(self) -> float:
        return time.monotonic()

    def utc(self) -> float:
        return time.time()


def address(number: int) -> OpcUaAddress:
    """Types as a building has them: most are single floats, some are integers and bits."""
    kind = ("Float", "Float", "Double", "Int16", "UInt16", "Boolean")[number % 6]
    return OpcUaAddress(node=f"nsu={URI};s=Plant.Ahu{number // 100:03d}.Value{number % 100:02d}", type=kind)


def held(number: int) -> float:
    """What node ``number`` holds."""
    return float(number % 2) if number % 6 == 5 else float(number % 1000)


async def serve(nodes: int) -> None:
    """The server process: prints its port and serves until killed."""
    server = OpcUaServer([ServedNode(address(k), lambda k=k: held(k)) for k in range(nodes)])  # type: ignore[misc]
    await server.start("127.0.0.1", 0)
    print(f"port {server.port}", flush=True)
    await asyncio.Event().wait()


@dataclass
class Times:
    """Wall and CPU seconds of each round."""

    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)

    def per_node(self, nodes: int) -> dict[str, float]:
        wall, cpu = statistics.median(self.wall), statistics.median(self.cpu)
        return {"cpu_us_per_node": cpu / nodes * 1e6, "wall_us_per_node": wall / nodes * 1e6}


async def timed(times: Times, work: Callable[[], Awaitable[None]]) -> None:
    """One round."""
    wall, cpu = time.perf_counter(), time.process_time()
    await work()
    times.wall.append(time.perf_counter() - wall)
    times.cpu.append(time.process_time() - cpu)


async def measure(port: int, nodes: int, rounds: int) -> dict[str, Times]:
    """Both contenders, round by round."""
    settings = OpcUaSettings(
        url=f"opc.tcp://127.0.0.1:{port}/poetd", security="None", insecure=True, timeout=30.0, read="poll"
    )
    points = [DevicePoint(f"bench/p{k}", address(k)) for k in range(nodes)]
    driver = OpcUaDriver.build("bench", settings, points, WallClock())
    await driver.connect()
    client = Client(settings.url, timeout=30.0, watchdog_intervall=600.0)
    await client.connect()
    space = await client.get_namespace_index(URI)
    theirs = [client.get_node(ua.NodeId(address(k).name.identifier, space)) for k in range(nodes)]

    async def our_poll() -> None:
        result = await driver.poll()
        assert result.quality.all()
        assert result.value[-1] == held(nodes - 1)

    async def library() -> None:
        values: list[float] = []
        for first in range(0, nodes, BATCH):
            values += await client.read_values(theirs[first : first + BATCH])
        assert float(values[-1]) == held(nodes - 1)

    times = {OURS: Times(), LIBRARY: Times()}
    for number in range(rounds + 2):  # the first two rounds warm up and are not counted
        await timed(times[OURS] if number > 1 else Times(), our_poll)
        await timed(times[LIBRARY] if number > 1 else Times(), library)
    await driver.close()
    await client.disconnect()
    return times


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        asyncio.run(serve(arguments.nodes))
        return
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    command = [sys.executable, __file__, "--serve", "--nodes", str(arguments.nodes)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            line = server.stdout.readline()
            assert line.startswith("port "), f"the server did not start: {line!r}"
            times = asyncio.run(measure(int(line.split()[1]), arguments.nodes, arguments.rounds))
        finally:
            server.kill()
    results = {name: one.per_node(arguments.nodes) for name, one in times.items()}
    ratio = results[OURS]["cpu_us_per_node"] / results[LIBRARY]["cpu_us_per_node"]
    if arguments.json:
        whole = {"nodes": arguments.nodes, "rounds": arguments.rounds, "results": results, "cpu_ratio": ratio}
        print(json.dumps(whole, indent=2))
        return
    print(f"{arguments.nodes} nodes, medians of {arguments.rounds} rounds")
    print(f"{'':24}{'CPU us/node':>14}{'wall us/node':>14}")
    for name, one in results.items():
        print(f"{name:24}{one['cpu_us_per_node']:14.2f}{one['wall_us_per_node']:14.2f}")
    print(f"CPU, ours / asyncua: {ratio:.2f}")


if __name__ == "__main__":
    main()
