"""Mutated answers against the driver's whole receiving side; bacpypes3 is the judge of what an accepted one says.

    python tests/drivers/bacnet_fuzz.py [--frames 100000] [--seed 1]

Every poll first gets a mutated answer, then the right one. The driver may drop the first or believe it, but what it
believes with good quality must be what bacpypes3 reads from the same bytes. Ends with an exception otherwise.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import tracemalloc
from typing import Any

import numpy as np
from bacpypes3.apdu import APDU, ReadPropertyMultipleACK
from bacpypes3.pdu import PDU
from bacpypes3.primitivedata import Boolean, Double, Enumerated, Integer, Real, TagList, Unsigned

from drivers.bacnet.frames import UNICAST, Station, bvlc, parse
from drivers.bacnet.image import Image, judge
from drivers.bacnet.objects import BacnetObject, ObjectTable
from drivers.bacnet.planner import Layout, Plan
from drivers.bacnet.port import Port
from drivers.bacnet.server import BacnetServer
from drivers.bacnet.settings import BacnetAddress
from drivers.bacnet.sweep import Sweep
from drivers.errors import DriverError
from safety.values import Quality

HOST = ("127.0.0.1", 47808)
TRUTH = {
    "analogInput,1": 21.5, "analogInput,2": -3.25, "binaryInput,1": 1.0, "multiStateInput,1": 300.0,
    "integerValue,1": -129.0, "positiveIntegerValue,1": 70_000.0, "largeAnalogValue,1": 1e12, "analogInput,3": 0.0,
}  # fmt: skip


class Wire:
    """In place of the UDP transport: answers every request twice, the first time mutated."""

    def __init__(self, table: ObjectTable, chance: random.Random) -> None:
        self.port: Port
        self.mutated = b""
        self._server = BacnetServer(table)
        self._chance = chance

    def sendto(self, data: bytes, _host: Any) -> None:
        request = data[6:]
        if request[0] >> 4:
            return  # our Abort of an answer that said it was segmented
        right = bvlc(UNICAST, b"\x01\x00" + self._server.answer(Station(HOST), request))
        self.mutated = mutate(right, self._chance)
        loop = asyncio.get_running_loop()
        loop.call_soon(self.port.datagram_received, self.mutated, HOST)
        loop.call_soon(self.port.datagram_received, right, HOST)


def mutate(frame: bytes, chance: random.Random) -> bytes:
    """One to three changes; mostly with the outer length put right again, so that they get past the first check."""
    data = bytearray(frame)
    for _ in range(chance.randint(1, 3)):
        at = chance.randrange(len(data))
        kind = chance.randrange(6)
        if kind == 0:
            data[at] ^= 1 << chance.randrange(8)
        elif kind == 1:
            data[at] = chance.choice((0, 1, 0x0E, 0x1F, 0x4E, 0x5E, 0x7F, 0x80, 0xFD, 0xFE, 0xFF))
        elif kind == 2:
            del data[at:]
        elif kind == 3:
            data[at:at] = bytes(chance.randrange(256) for _ in range(chance.randint(1, 6)))
        elif kind == 4:
            del data[at : at + chance.randint(1, 8)]
        else:
            other = chance.randrange(len(data))
            data[at:at] = data[other : other + chance.randint(1, 24)]
        if not data:
            return b""
    if len(data) >= 4 and chance.random() < 0.9:
        data[2:4] = len(data).to_bytes(2, "big")
    return bytes(data)


def judged(frame: bytes) -> dict[tuple[int, int], Any]:
    """What bacpypes3 sees as present values in an accepted frame, as its tags, by object. Raises whatever it raises."""
    parsed = parse(frame, HOST)  # the outer layers are not what is judged here
    assert parsed is not None
    ack = ReadPropertyMultipleACK.decode(APDU.decode(PDU(parsed.apdu)))
    found: dict[tuple[int, int], Any] = {}
    for result in ack.listOfReadAccessResults:
        for element in result.listOfResults:
            value = element.readResult.propertyValue
            if int(element.propertyIdentifier) == 85 and value is not None:
                tag = value.tagList[1]  # the first is the opening tag around it
                kind, instance = result.objectIdentifier
                found[int(kind), int(instance)] = tag
    return found


def number_of(tag: Any) -> float:
    """An application tag of bacpypes3 as a number."""
    kinds = {1: Boolean, 2: Unsigned, 3: Integer, 4: Real, 5: Double, 9: Enumerated}
    return float(kinds[int(tag.tag_number)].decode(TagList([tag])))


async def fuzz(frames: int, seed: int) -> dict[str, int]:
    """Run; returns how many mutated answers changed nothing, changed something, and how many polls failed as a whole."""
    chance = random.Random(seed)
    addresses = [BacnetAddress.model_validate(where) for where in TRUTH]
    truth = np.array(list(TRUTH.values()))
    objects = [
        BacnetObject(address, lambda value=value: value)
        for address, value in zip(addresses, TRUTH.values(), strict=True)
    ]  # fmt: skip
    layout = Layout(addresses)
    wire = Wire(ObjectTable(1, objects), chance)
    port = wire.port = Port("127.0.0.1", 0)
    port._transport = wire  # type: ignore[assignment]
    peer = port.peer(Station(HOST), "device")
    peer.timeout_s = 0.05
    counts = {"same": 0, "changed": 0, "failed": 0}
    plan = Plan(layout)
    for number in range(frames):
        if number % 50 == 0 or not plan.multiple or len(plan.queries) != 1:
            plan = Plan(layout)  # what it has learnt from nonsense is forgotten now and then, as at a reconnect
        image = Image(len(truth), len(layout.objects))
        sweep = Sweep(plan, image, peer.exchange)
        try:
            await sweep.run(float(number), plan.queries)
        except DriverError:
            counts["failed"] += 1
            continue
        quality = judge(image, layout.object_of, layout.has_status)
        assert not np.isfinite(image.value[quality == Quality.BAD]).any()
        good = quality == Quality.GOOD
        wrong = np.flatnonzero(good & (image.value != truth))
        if len(wrong):
            said = judged(wire.mutated)
            for point in wrong:
                assert number_of(said[layout.objects[point]]) == image.value[point], (number, wire.mutated.hex())
        counts["changed" if len(wrong) or not good.all() else "same"] += 1
        assert len(peer._in_flight) == 0, "no request is lost"
        assert len(peer._resting) <= 256
    peer.close()
    return counts


def main() -> None:
    """Run longer than the tests do."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    tracemalloc.start()
    print(asyncio.run(fuzz(arguments.frames, arguments.seed)))
    print(
        f"memory now {tracemalloc.get_traced_memory()[0] / 1e6:.1f} MB, peak {tracemalloc.get_traced_memory()[1] / 1e6:.1f} MB"
    )


if __name__ == "__main__":
    main()
