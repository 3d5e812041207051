"""What one BACnet point costs the client: our driver beside bacpypes3's ReadPropertyMultiple, on the same device.

    python benchmarks/bacnet_read.py [--points 1000] [--rounds 10] [--json]

Both read present value and status flags of the same objects from the same device, a process of its own, with the same
number of objects in a request; the rounds take turns, so that other work on the machine hits both alike. Every value
changes from round to round, and both check the last one. Ours is the whole poll: values in the points' units, quality
and time for every point. Medians of the client's CPU.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import multiprocessing
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from multiprocessing.connection import Connection

import structlog

from drivers.bacnet.driver import BacnetDriver
from drivers.bacnet.objects import BacnetObject, ObjectTable
from drivers.bacnet.server import BacnetServer
from drivers.bacnet.settings import BacnetAddress, BacnetSettings
from drivers.interface import DevicePoint

HOST = "127.0.0.1"
DEVICE = 1234
OBJECTS_A_REQUEST = 50
OURS = "poetd"
PEER = "bacpypes3"


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

    def median(self, points: int) -> dict[str, float]:
        wall, cpu = statistics.median(self.wall), statistics.median(self.cpu)
        return {"cpu_us_per_point": cpu / points * 1e6, "cpu_ms": cpu * 1e3, "wall_ms": wall * 1e3}


def serve(points: int, ready: Connection) -> None:
    """The device, in a process of its own: every analog input shows its number plus how often the first was read."""

    async def run() -> None:
        rounds = 0.0

        def first() -> float:
            nonlocal rounds
            rounds += 1.0
            return rounds

        reads: list[Callable[[], float]] = [first, *((lambda k=k: rounds + k) for k in range(1, points))]
        objects = [BacnetObject(BacnetAddress(object=f"analogInput,{k}"), read) for k, read in enumerate(reads)]
        server = BacnetServer(ObjectTable(DEVICE, objects))
        await server.start(HOST, 0)
        ready.send(server.port)
        await asyncio.Event().wait()

    asyncio.run(run())


async def timed(times: Times, work: Callable[[], Awaitable[list[float]]], points: int) -> None:
    """One round, and that it brought what the device holds."""
    wall, cpu = time.perf_counter(), time.process_time()
    values = await work()
    times.wall.append(time.perf_counter() - wall)
    times.cpu.append(time.process_time() - cpu)
    assert values[0] >= 1.0 and values[1:] == [values[0] + k for k in range(1, points)], "a wrong value"


async def measure(port: int, points: int, rounds: int) -> dict[str, Times]:
    """Both contenders, round by round."""
    from bacpypes3.apdu import ErrorRejectAbortNack
    from bacpypes3.app import Application
    from bacpypes3.local.device import DeviceObject
    from bacpypes3.local.networkport import NetworkPortObject
    from bacpypes3.pdu import Address
    from bacpypes3.primitivedata import ObjectIdentifier

    settings = BacnetSettings(host=HOST, port=port, device=DEVICE, bind=HOST, max_objects=OBJECTS_A_REQUEST)
    names = [f"analogInput,{k}" for k in range(points)]
    driver = BacnetDriver.build(
        "bench", settings, [DevicePoint(name, BacnetAddress(object=name)) for name in names], WallClock()
    )
    await driver.connect()
    peer = Application.from_object_list(
        [
            DeviceObject(objectIdentifier=("device", 999), objectName="bench", vendorIdentifier=999,
                         maxApduLengthAccepted=1476),
            NetworkPortObject(f"{HOST}:{port + 1 if port < 65535 else port - 1}", objectIdentifier=("network-port", 1),
                              objectName="port"),
        ]
    )  # fmt: skip
    address = Address(f"{HOST}:{port}")

    async def ours() -> list[float]:
        result = await driver.poll()
        assert (result.quality == 2).all()
        return result.value.tolist()

    async def bacpypes3() -> list[float]:
        values: list[float] = []
        for start in range(0, points, OBJECTS_A_REQUEST):
            wanted: list[object] = []
            for name in names[start : start + OBJECTS_A_REQUEST]:
                wanted += [ObjectIdentifier(name), ["present-value", "status-flags"]]
            answer = await peer.read_property_multiple(address, wanted)
            assert not isinstance(answer, ErrorRejectAbortNack), answer
            values += [float(value) for _object, prop, _index, value in answer if str(prop) == "present-value"]
        return values

    times = {OURS: Times(), PEER: Times()}
    for number in range(rounds + 1):  # the first round warms up and is not counted
        await timed(times[OURS] if number else Times(), ours, points)
        await timed(times[PEER] if number else Times(), bacpypes3, points)
    await driver.close()
    peer.close()
    return times


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    spawn = multiprocessing.get_context("spawn")
    here, there = spawn.Pipe()
    device = spawn.Process(target=serve, args=(arguments.points, there), daemon=True)
    device.start()
    try:
        if not here.poll(30.0):
            sys.exit("the device did not start")
        times = asyncio.run(measure(here.recv(), arguments.points, arguments.rounds))
    except ImportError:
        sys.exit("needs bacpypes3: pip install bacpypes3")
    finally:
        device.terminate()
        device.join(10.0)
    results = {name: one.median(arguments.points) for name, one in times.items()}
    share = results[OURS]["cpu_ms"] / results[PEER]["cpu_ms"]
    if arguments.json:
        print(
            json.dumps(
                {"points": arguments.points, "rounds": arguments.rounds, "results": results, "share": share}, indent=2
            )
        )
        return
    print(f"{arguments.points} points, {OBJECTS_A_REQUEST} objects a request, medians of {arguments.rounds} rounds")
    print(f"{'':12}{'CPU µs/point':>14}{'CPU ms':>10}{'wall ms':>10}{'of bacpypes3':>14}")
    for name, one in results.items():
        part = one["cpu_ms"] / results[PEER]["cpu_ms"]
        print(f"{name:12}{one['cpu_us_per_point']:14.2f}{one['cpu_ms']:10.2f}{one['wall_ms']:10.2f}{part:14.3f}")


if __name__ == "__main__":
    main()
