"""Against node-opcua, a stack in TypeScript that shares nothing with us: every data type both ways, as client and as
server, encrypted and not, polled and subscribed.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from node_packages import node_modules
from opcua_certificates import identity

from drivers.errors import AuthenticationError, NotWritableError
from drivers.interface import DevicePoint
from drivers.opcua.connection import Connection
from drivers.opcua.driver import OpcUaDriver
from drivers.opcua.scan import scan
from drivers.opcua.server import OpcUaServer, ServedNode
from drivers.opcua.settings import OpcUaAddress, OpcUaSettings
from safety.envelope import Envelope
from safety.gate import Gate, Route
from safety.journal import Journal
from safety.values import Quality, Reason, WriteOutcome

pytestmark = pytest.mark.conformance

PACKAGES = ("node-opcua-server@2.182.2", "node-opcua-client@2.182.2")
HERE = Path(__file__).parent
URI = "urn:peer:values"
VALUES = {
    "Boolean": (0.0, 1.0),
    "SByte": (-128.0, 127.0),
    "Byte": (0.0, 255.0),
    "Int16": (-32768.0, 258.0),
    "UInt16": (1.0, 65535.0),
    "Int32": (-2147483648.0, 305419896.0),
    "UInt32": (1.0, 4294967295.0),
    "Int64": (-9007199254740992.0, 81985529216486895.0),
    "UInt64": (1.0, 9223372036854775808.0),
    "Float": (-0.15625, 21.5),
    "Double": (-1e-300, 21.57),
}
MANY = 60


def environment(modules: Path) -> dict[str, str]:
    """For the peers: where their packages are, and a home of their own for the keys they make."""
    return {**os.environ, "NODE_PATH": str(modules), "HOME": str(modules.parent)}


class WallClock:
    """The event loop's own time is enough here."""

    def monotonic(self) -> float:
        return asyncio.get_running_loop().time()

    def utc(self) -> float:
        return 4e9


class Peer:
    """node-opcua's server, and its door."""

    def __init__(self, process: subprocess.Popen[str], folder: Path) -> None:
        self.process = process
        self.folder = folder
        assert process.stdout is not None
        lines = [line] if (line := process.stdout.readline()).startswith("port ") else []
        while not lines:
            line = process.stdout.readline()
            assert line, "node-opcua's server did not start"
            lines = [line] if line.startswith("port ") else []
        self.port = int(lines[0].split()[1])

    def obey(self, line: str) -> str:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        return self.process.stdout.readline().strip()

    def settings(self, **given: Any) -> OpcUaSettings:
        secure = {
            "certificate_file": self.folder / "client.der",
            "key_file": self.folder / "client.key",
            "trusted": self.folder / "server.pem",
        }
        plain = {"security": "None", "insecure": True}
        base = {"url": f"opc.tcp://127.0.0.1:{self.port}", "publish": 0.1, "read": "poll"}
        return OpcUaSettings(**base | (secure if "security" in given or "mode" in given else plain) | given)

    def driver(self, points: list[DevicePoint], **given: Any) -> OpcUaDriver:
        return OpcUaDriver.build("peer", self.settings(**given), points, WallClock())


@pytest.fixture(scope="module")
def peer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Peer]:
    modules = node_modules(*PACKAGES)
    folder = tmp_path_factory.mktemp("opcua")
    identity(folder, "server", 1, pem=True)
    identity(folder, "client", 2)
    with subprocess.Popen(
        ["node", str(HERE / "opcua_server.js"), str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=environment(modules),
    ) as process:
        try:
            yield Peer(process, folder)
        finally:
            process.kill()


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    with Journal(tmp_path / "journal.sqlite") as journal:
        yield journal


def gate_for(points: list[DevicePoint], journal: Journal) -> Gate:
    names = [point.name for point in points]
    envelopes = {name: Envelope(name, -8e307, 8e307, fail_safe=0.0) for name in names}
    return Gate(envelopes, {name: Route("peer", "opcua", "{}", "{}") for name in names}, journal)


def text_of(kind: str, value: float) -> str:
    return repr(value) if kind in ("Float", "Double") else str(int(value))


def points_of(*kinds: str) -> list[DevicePoint]:
    return [DevicePoint(f"p/{kind}", OpcUaAddress(node=f"nsu={URI};s={kind}"), writable=True) for kind in kinds]


async def test_every_type_is_read_from_the_peer(peer: Peer) -> None:
    driver = peer.driver(points_of(*VALUES))
    await driver.connect()
    for which in (0, 1):
        for kind, values in VALUES.items():
            await asyncio.to_thread(peer.obey, f"set {kind} {text_of(kind, values[which])}")
        result = await driver.poll()
        assert result.value.tolist() == [values[which] for values in VALUES.values()]
        assert (result.quality == Quality.GOOD).all()
    await driver.close()


async def test_every_type_is_written_to_the_peer(peer: Peer, journal: Journal) -> None:
    points = points_of(*VALUES)
    gate, driver = gate_for(points, journal), peer.driver(points)
    await driver.connect()
    for which in (1, 0):
        for kind, values in VALUES.items():
            written = await gate.write(driver, f"p/{kind}", values[which])
            assert written.outcome is WriteOutcome.HELD, written.detail
            assert float(await asyncio.to_thread(peer.obey, f"get {kind}")) == values[which]
    await driver.close()


async def test_status_types_and_rights_of_the_peer(peer: Peer, journal: Journal) -> None:
    points = points_of("Fixed", "Doubtful", "Broken", "Words", "Missing")
    gate, driver = gate_for(points, journal), peer.driver(points)
    await driver.connect()
    result = await driver.poll()
    assert result.quality.tolist() == [Quality.GOOD, Quality.UNCERTAIN, Quality.BAD, Quality.BAD, Quality.BAD]
    assert result.reason.tolist() == [
        Reason.OK,
        Reason.DEVICE_UNCERTAIN,
        Reason.DEVICE_ERROR,
        Reason.DECODE_ERROR,
        Reason.DEVICE_ERROR,
    ]
    with pytest.raises(NotWritableError, match="p/Fixed"):
        await driver.write(gate.admit("p/Fixed", 1.0))
    await driver.close()


def many(writable: bool = False) -> list[DevicePoint]:
    return [
        DevicePoint(f"p/m{k}", OpcUaAddress(node=f"nsu={URI};i={5000 + k}"), writable=writable) for k in range(MANY)
    ]


async def test_the_peers_limits_are_kept(peer: Peer) -> None:
    driver = peer.driver(many())
    await driver.connect()
    assert driver._connection.max_nodes == 25
    assert driver._connection.max_items_per_call == 10
    assert (await driver.poll()).value.tolist() == [float(k) for k in range(MANY)]
    assert driver.health.latency_s
    await driver.close()


async def test_the_peers_changes_arrive_by_subscription(peer: Peer) -> None:
    driver = peer.driver(many(), read="subscribe")
    await driver.connect()
    async with asyncio.timeout(20.0):
        while not driver._subscriptions.live().all():
            assert (await driver.poll()).value.tolist() == [float(k) for k in range(MANY)]
            await asyncio.sleep(0.02)
        await asyncio.to_thread(peer.obey, "set many7 99.5")
        while (await driver.poll()).value[7] != 99.5:
            await asyncio.sleep(0.02)
    await asyncio.to_thread(peer.obey, "set many7 7")
    await driver.close()


@pytest.mark.parametrize("policy", ["Basic256Sha256", "Aes128Sha256RsaOaep", "Aes256Sha256RsaPss"])
@pytest.mark.parametrize("mode", ["Sign", "SignAndEncrypt"])
async def test_every_policy_with_the_peer(peer: Peer, policy: str, mode: str) -> None:
    driver = peer.driver(points_of("Fixed"), security=policy, mode=mode)
    await driver.connect()
    assert (await driver.poll()).value.tolist() == [21.5]
    await driver.close()


async def test_user_and_password_with_the_peer(peer: Peer) -> None:
    password = peer.folder / "password"
    password.touch(mode=0o600)
    for text, good in (("right password", True), ("wrong password", False)):
        password.write_text(text)
        driver = peer.driver(points_of("Fixed"), mode="SignAndEncrypt", username="poetd", password_file=password)
        if good:
            await driver.connect()
            assert (await driver.poll()).value.tolist() == [21.5]
        else:
            with pytest.raises(AuthenticationError, match="password_file"):
                await driver.connect()
        await driver.close()


async def test_a_certificate_that_the_peer_does_not_trust(peer: Peer, tmp_path: Path) -> None:
    stranger = identity(tmp_path, "stranger", 3)
    driver = peer.driver(
        [], mode="SignAndEncrypt", certificate_file=stranger.certificate_file, key_file=stranger.key_file
    )
    with pytest.raises(AuthenticationError, match="trusts our certificate"):
        await driver.connect()
    await driver.close()


async def test_the_peer_is_browsed(peer: Peer) -> None:
    connection = Connection(peer.settings())
    await connection.open()
    found = {one.name.identifier: one for one in (await scan(connection)).nodes if one.name.uri == URI}
    assert {name: found[name].type for name in VALUES} == {name: name for name in VALUES}
    assert found["Double"].writable
    assert not found["Fixed"].writable
    assert "Words" not in found
    assert sum(isinstance(name, int) for name in found) == MANY
    await connection.close()


@pytest.fixture
async def ours() -> AsyncIterator[tuple[OpcUaServer, dict[str, float]]]:
    store = {kind: values[1] for kind, values in VALUES.items()}
    nodes = [
        ServedNode(
            OpcUaAddress(node=f"nsu={URI};s={kind}", type=kind),
            lambda kind=kind: store[kind],  # type: ignore[misc]
            lambda value, kind=kind: store.__setitem__(kind, value),  # type: ignore[misc]
        )
        for kind in VALUES
    ]
    server = OpcUaServer(nodes)
    await server.start("127.0.0.1", 0)
    yield server, store
    await server.close()


async def client(server: OpcUaServer, *arguments: object) -> list[list[str]]:
    """Run node-opcua's client against our server; its lines, in words."""
    process = await asyncio.create_subprocess_exec(
        "node",
        str(HERE / "opcua_client.js"),
        f"opc.tcp://127.0.0.1:{server.port}/poetd",
        *map(str, arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=environment(await asyncio.to_thread(node_modules, *PACKAGES)),
    )
    async with asyncio.timeout(60.0):
        out, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    return [line.split() for line in out.decode().splitlines() if line.startswith("nsu=")]


async def test_the_peer_reads_every_type_of_ours(ours: tuple[OpcUaServer, dict[str, float]]) -> None:
    server, store = ours
    lines = await client(server, "read", *(f"nsu={URI};s={kind}" for kind in VALUES))
    assert [line[1] for line in lines] == list(VALUES)
    assert [float(line[2]) for line in lines] == pytest.approx(list(store.values()), rel=1e-15)
    assert {line[3] for line in lines} == {"Good"}


async def test_the_peer_writes_and_watches_ours(ours: tuple[OpcUaServer, dict[str, float]]) -> None:
    server, store = ours
    for kind in ("Int64", "Boolean"):
        (line,) = await client(server, "write", f"nsu={URI};s={kind}", kind, text_of(kind, VALUES[kind][0]))
        assert line[-1] == "Good"
        assert store[kind] == VALUES[kind][0]
    (line,) = await client(server, "write", f"nsu={URI};s=Int16", "Double", "1.5")
    assert line[-1] == "BadTypeMismatch"
    watching = asyncio.create_task(client(server, "watch", f"nsu={URI};s=Double", 2))
    for k in range(60):
        store["Double"] = float(k)
        await asyncio.sleep(0.1)
        if watching.done():
            break
    seen = [float(line[2]) for line in await watching]
    assert len(set(seen)) > 5
    assert seen == sorted(seen)
