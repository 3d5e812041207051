"""Our driver on a device made of node-bacnet, and node-bacnet's client on our server."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from bacpypes3_device import HOST
from node_peers import require_npm

from drivers.bacnet.driver import BacnetDriver
from drivers.bacnet.objects import BacnetObject, ObjectTable
from drivers.bacnet.server import BacnetServer
from drivers.bacnet.settings import BacnetAddress, BacnetSettings
from drivers.errors import DeviceRefusedError
from drivers.interface import DevicePoint
from safety.envelope import Envelope
from safety.gate import Gate, Route
from safety.journal import Journal
from safety.values import Quality, WriteOutcome

pytestmark = pytest.mark.conformance

SCRIPT = Path(__file__).with_name("node_bacnet.js")
POINTS = {
    "supply": "analogInput,1",
    "frost": "binaryInput,2",
    "mode": "multiStateValue,3",
    "balance": "integerValue,4",
    "valve": "analogOutput,5",
}


class Clock:
    def monotonic(self) -> float:
        return 1000.0

    def utc(self) -> float:
        return 1_800_000_000.0


@pytest.fixture
def port() -> Iterator[int]:
    folder = require_npm("node-bacnet", "0.2.4")
    with subprocess.Popen(["node", str(SCRIPT), str(folder), "device"], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line.startswith("port "), f"the device did not start: {line!r}"
            yield int(line.split()[1])
        finally:
            process.kill()


@pytest.fixture
async def driver(port: int) -> AsyncIterator[BacnetDriver]:
    settings = BacnetSettings.model_validate({"host": HOST, "port": port, "device": 31, "bind": HOST, "timeout": 2.0})
    points = [DevicePoint(name, BacnetAddress.model_validate(where), writable=True) for name, where in POINTS.items()]
    made = BacnetDriver.build("node", settings, points, Clock())
    await made.connect()
    yield made
    await made.close()


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Gate]:
    with Journal(tmp_path / "journal.sqlite") as journal:
        yield Gate(
            {name: Envelope(name, -1000.0, 1000.0, fail_safe=None) for name in POINTS},
            {name: Route("node", "bacnet", "{}", "{}") for name in POINTS},
            journal,
        )


async def test_every_kind_of_value_is_read(driver: BacnetDriver) -> None:
    for _ in range(4):  # the integer value has no status at all, which is found out on the way
        result = await driver.poll()
        assert result.value.tolist() == [21.5, 1.0, 300.0, -129.0, 10.0]
    assert (result.quality == Quality.GOOD).all()


async def test_level_12_is_written_read_back_and_relinquished(driver: BacnetDriver, gate: Gate) -> None:
    assert (await gate.write(driver, "valve", 55.5)).outcome is WriteOutcome.HELD
    assert await driver.holder("valve") == (12, 55.5)
    assert (await gate.write(driver, "valve", None)).outcome is WriteOutcome.ACKNOWLEDGED
    assert (await driver.holder("valve")).level is None
    assert await driver.read_back("valve") == 10.0


async def test_a_refused_write_raises(driver: BacnetDriver, gate: Gate) -> None:
    with pytest.raises(DeviceRefusedError, match="property write-access-denied"):
        await driver.write(gate.admit("mode", 2.0))


async def test_its_client_writes_and_reads_our_server() -> None:
    folder = require_npm("node-bacnet", "0.2.4")
    store = {"ao": 10.0}
    valve = BacnetObject(
        BacnetAddress(object="analogOutput,1"), lambda: store["ao"], lambda value: store.update(ao=value), default=10.0
    )
    server = BacnetServer(ObjectTable(32, [valve]))
    await server.start(HOST, 0)
    try:
        process = await asyncio.create_subprocess_exec(
            "node", str(SCRIPT), str(folder), "client", f"{HOST}:{server.port}", stdout=subprocess.PIPE
        )
        async with asyncio.timeout(30.0):
            out, _ = await process.communicate()
    finally:
        await server.close()
    said: dict[str, Any] = json.loads(out)
    assert said["error"] is None
    present, flags, priorities, unknown = said["result"]
    assert store["ao"] == 60.0
    assert present[0]["value"] == 60
    assert flags[0]["value"]["value"] == [0]
    assert [one["value"] for one in priorities] == [None] * 7 + [60] + [None] * 8
    assert unknown[0]["value"]["errorCode"] == 32
