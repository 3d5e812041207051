"""OPC UA peers for tests: a plant server behind a rig, and helpers to make points and drivers."""

from __future__ import annotations

import copy
from collections import UserDict
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

from asyncua import ua
from asyncua.server.address_space import AddressSpace, NodeManagementService
from asyncua.server.internal_server import InternalServer
from asyncua.server.standard_address_space import standard_address_space
from driver_suite import Rig

from drivers.interface import DeviceClock, DevicePoint
from drivers.opcua.driver import OpcUaDriver
from drivers.opcua.server import OpcUaServer, ServedNode
from drivers.opcua.settings import OpcUaAddress, OpcUaSettings

AHU = "urn:plant:ahu"
POINTS = {
    "ahu/supply": (OpcUaAddress(node=f"nsu={AHU};s=Supply", type="Float"), 21.5),
    "ahu/outside": (OpcUaAddress(node=f"nsu={AHU};i=7", type="Int16", scale=0.1), -12.3),
    "ahu/frost": (OpcUaAddress(node=f"nsu={AHU};s=Frost", type="Boolean"), 1.0),
    "ahu/valve": (OpcUaAddress(node="nsu=urn:plant:valves;s=V1;pos", type="UInt16", scale=0.01), 40.0),
    "ahu/flow": (OpcUaAddress(node=f"nsu={AHU};g=12345678-1234-1234-1234-123456789abc"), 1234.5678),
    "ahu/energy": (OpcUaAddress(node=f"nsu={AHU};b=AAEC", type="UInt64"), 123_456_789_012.0),
    "ahu/fan": (OpcUaAddress(node=f"nsu={AHU};s=Fan", type="Boolean"), 0.0),
}


@cache
def _standard_nodes() -> dict[ua.NodeId, Any]:
    space = AddressSpace()
    standard_address_space.fill_address_space(NodeManagementService(space))
    return dict(space._nodes)


class LazyNodes(UserDict[ua.NodeId, Any]):
    """The standard's nodes, copied when somebody looks at them."""

    def __missing__(self, node_id: ua.NodeId) -> Any:
        node = self.data[node_id] = copy.deepcopy(_standard_nodes()[node_id])
        return node

    def __contains__(self, node_id: object) -> bool:
        return node_id in self.data or node_id in _standard_nodes()


async def _load_copy(self: InternalServer, _shelf: Any = None) -> None:
    self.aspace._nodes = LazyNodes()


# A server builds the two thousand nodes of the standard in a second and a half; the tests start dozens.
InternalServer.load_standard_address_space = _load_copy


def settings_for(port: int, **given: Any) -> OpcUaSettings:
    """Settings without security for a server on this machine."""
    plain = {"url": f"opc.tcp://127.0.0.1:{port}/poetd", "timeout": 0.5, "publish": 0.05}
    if "security" not in given and "certificate_file" not in given:
        plain |= {"security": "None", "insecure": True}
    return OpcUaSettings(**(plain | given))


def driver_for(port: int, points: Sequence[DevicePoint], clock: DeviceClock, **given: Any) -> OpcUaDriver:
    """A driver for a server on this machine."""
    return OpcUaDriver.build("server", settings_for(port, **given), points, clock)


class OpcUaRig(Rig):
    """The plant server with ``POINTS``."""

    values = {name: value for name, (_address, value) in POINTS.items()}  # noqa: RUF012
    writable = "ahu/valve"
    write_value = 55.55
    read_only = "ahu/supply"

    def __init__(self, clock: DeviceClock, **given: Any) -> None:
        self.clock = clock
        self.given = given
        self.store = dict(self.values)
        self.port = 0

    async def start(self) -> None:
        self.server = OpcUaServer([self._node(name) for name in POINTS], utc=self.clock.utc)
        await self.server.start("127.0.0.1", self.port)
        self.port = self.server.port
        self.address = f"127.0.0.1:{self.port}"

    async def stop(self) -> None:
        await self.server.close()

    def _node(self, name: str) -> ServedNode:
        write = None if name == self.read_only else lambda value: self.store.__setitem__(name, value)
        return ServedNode(POINTS[name][0], lambda: self.store[name], write)

    def driver(self) -> OpcUaDriver:
        points = [DevicePoint(name, address, writable=True) for name, (address, _value) in POINTS.items()]
        return driver_for(self.port, points, self.clock, **self.given)

    def mute(self) -> None:
        for client in self.sessions():
            client.processor = None

    def sessions(self) -> Iterator[Any]:
        assert self.server._server is not None
        yield from self.server._server.bserver.clients

    def held(self, point: str) -> float:
        return self.store[point]
