"""An OPC UA server over functions: serves a plant as if it were the real equipment."""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from asyncua import Server, ua
from asyncua.common.utils import ServiceError

from drivers.errors import AddressError, EncodingError, NotConnectedError
from drivers.opcua.node_names import STANDARD_URI
from drivers.opcua.settings import OpcUaAddress
from drivers.opcua.values import encode

MAX_CONNECTIONS: Final = 16
FOLDER_SIZE: Final = 100
"""Nodes in one folder: the library takes quadratic time to add them to a larger one."""
REFRESH_S: Final = 0.1
"""Wall seconds between two looks at the values that clients have subscribed."""
_VALUE: Final = ua.AttributeIds.Value


@dataclass(frozen=True, slots=True)
class ServedNode:
    """One value that a server shows. ``read`` returns it in the point's unit, NaN for none; ``write`` takes it, or
    raises ValueError. Without ``write`` it cannot be written. The node has the address's ``type``, or Double.
    """

    address: OpcUaAddress
    read: Callable[[], float]
    write: Callable[[float], None] | None = None


class OpcUaServer:
    """Serves nodes on one port without security, for use on this machine or in a laboratory.

    ``utc`` gives the source timestamps, in UTC seconds.
    """

    def __init__(self, nodes: Sequence[ServedNode], *, utc: Callable[[], float] = time.time) -> None:
        """Raises AddressError where two values claim one node, or one claims a standard node."""
        taken: set[str] = set()
        for node in nodes:
            name = str(node.address.name)
            if name in taken or node.address.name.uri == STANDARD_URI:
                raise AddressError(f"{name} is given twice, or is a standard node; every value needs its own node")
            taken.add(name)
        self._nodes = list(nodes)
        self._utc = utc
        self._server: Server | None = None
        self._refresher: asyncio.Task[None] | None = None
        self._ids: dict[ua.NodeId, ServedNode] = {}
        self._shown: dict[ua.NodeId, Any] = {}
        self._telling = False

    @property
    def port(self) -> int:
        """The port it listens on, known after :meth:`start`."""
        assert self._server is not None
        port: int = self._server.bserver.port
        return port

    async def start(self, host: str, port: int) -> None:
        """Listen; port 0 takes a free one. Raises NotConnectedError if the address cannot be used."""
        server = Server()
        await server.init()
        server.set_endpoint(f"opc.tcp://{host}:{port}/poetd")
        server.set_server_name("poetd plant")
        server.set_security_policy([ua.SecurityPolicyType.NoSecurity])
        server.set_identity_tokens([ua.AnonymousIdentityToken])
        server.disable_clock()
        server.iserver.max_connections = MAX_CONNECTIONS
        await self._add_nodes(server)
        try:
            await server.start()
        except OSError as error:
            raise NotConnectedError(
                f"cannot listen on {host}:{port} ({error.strerror or error}); choose a free port"
            ) from error
        self._server = server
        self._refresher = asyncio.create_task(self._refresh_forever(), name="refresh OPC UA values")

    async def close(self) -> None:
        """Stop listening and drop every client."""
        refresher, self._refresher = self._refresher, None
        if refresher is not None:
            refresher.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await refresher
        server, self._server = self._server, None
        if server is not None:
            await server.stop()

    async def _add_nodes(self, server: Server) -> None:
        uris: list[str] = []
        for node in self._nodes:
            if node.address.name.uri not in uris:
                uris.append(node.address.name.uri)
        self._ids.clear()
        for uri in uris:
            space = await server.register_namespace(uri)
            mine = [node for node in self._nodes if node.address.name.uri == uri]
            for first in range(0, len(mine), FOLDER_SIZE):
                folder = await server.nodes.objects.add_folder(space, f"values {first // FOLDER_SIZE + 1}")
                for node in mine[first : first + FOLDER_SIZE]:
                    await self._add_node(server, folder, space, node)

    async def _add_node(self, server: Server, folder: Any, space: int, node: ServedNode) -> None:
        name = node.address.name
        node_id = ua.NodeId(name.identifier, space)
        kind = ua.VariantType[node.address.type or "Double"]
        value = ua.Variant(False if kind is ua.VariantType.Boolean else 0, kind)
        added = await folder.add_variable(node_id, f"{space}:{node.address.node.rpartition('=')[2][:200]}", value)
        if node.write is not None:
            await added.set_writable()
        self._ids[node_id] = node
        attribute = server.iserver.aspace[node_id].attributes[_VALUE]
        attribute.value_callback = lambda _id, _attribute: self._data_value(node)
        attribute.value_setter = lambda _data, _attribute, value: self._take(node, value)

    def _data_value(self, node: ServedNode) -> ua.DataValue:
        now = datetime.fromtimestamp(self._utc(), UTC)
        value = node.read()
        kind = ua.VariantType[node.address.type or "Double"]
        if math.isnan(value):
            return ua.DataValue(StatusCode=ua.StatusCode(ua.StatusCodes.BadSensorFailure), SourceTimestamp=now)
        try:
            variant = encode(_typed(node.address), kind, value, node.address.node)
        except EncodingError:
            # The value exists, but not in this type: an honest failure, never a wrapped or an old number.
            return ua.DataValue(StatusCode=ua.StatusCode(ua.StatusCodes.BadOutOfRange), SourceTimestamp=now)
        return ua.DataValue(variant, SourceTimestamp=now)

    def _take(self, node: ServedNode, value: ua.DataValue) -> None:
        """A client's write; or our own, which only tells the subscribers."""
        if self._telling:
            self._telling = False
            return
        if node.write is None or value.Value is None or value.Value.Value is None or value.Value.is_array:
            raise ServiceError(ua.StatusCodes.BadTypeMismatch)
        address = node.address
        try:
            node.write(float(value.Value.Value) * address.scale + address.offset)
        except ValueError as error:
            raise ServiceError(ua.StatusCodes.BadOutOfRange) from error

    async def _refresh_forever(self) -> None:
        while True:
            await asyncio.sleep(REFRESH_S)
            assert self._server is not None
            space = self._server.iserver.aspace
            for node_id, node in self._ids.items():
                if space[node_id].attributes[_VALUE].datachange_callbacks:
                    await self._publish(space, node_id, node)

    async def _publish(self, space: Any, node_id: ua.NodeId, node: ServedNode) -> None:
        value = self._data_value(node)
        shown = (value.Value, value.StatusCode)
        if self._shown.get(node_id) != shown:
            self._shown[node_id] = shown
            # The setter is called before the library first yields: no client's write can come between.
            self._telling = True
            try:
                await space.write_attribute_value(node_id, _VALUE, value)
            finally:
                self._telling = False


def _typed(address: OpcUaAddress) -> OpcUaAddress:
    return address if address.type is not None else address.model_copy(update={"type": "Double"})
