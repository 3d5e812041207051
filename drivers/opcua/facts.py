"""What must be known of a node before it is written: its data type, and whether this user may write it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from asyncua import ua

from drivers.errors import ProtocolError
from drivers.opcua.connection import Connection
from drivers.opcua.node_names import NodeName
from drivers.opcua.values import kind_of

_ATTRIBUTES: Final = (ua.AttributeIds.Value, ua.AttributeIds.DataType, ua.AttributeIds.UserAccessLevel)


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """``kind`` is the data type, None if it is no number; ``writable`` what the server says before it is tried."""

    kind: ua.VariantType | None
    writable: bool


async def learn(connection: Connection, names: Sequence[NodeName], rows: Sequence[int]) -> dict[int, NodeFacts]:
    """The facts of ``names[row]`` for every row; rows whose namespace the server does not have are left out.

    Raises:
        DriverError: the server, or the way to it, failed as a whole.
    """
    facts: dict[int, NodeFacts] = {}
    known = [(row, node) for row in rows if (node := connection.node_id(names[row])) is not None]
    step = max(1, connection.max_nodes // len(_ATTRIBUTES))
    for first in range(0, len(known), step):
        part = known[first : first + step]
        asked = [ua.ReadValueId(node, attribute) for _row, node in part for attribute in _ATTRIBUTES]
        request = ua.ReadRequest(Parameters=ua.ReadParameters(NodesToRead=asked))
        found = (await connection.ask(request, ua.ReadResponse, "reading data types")).Results
        if len(found) != len(asked):
            raise ProtocolError(f"{connection.where}: {len(asked)} attributes asked for, {len(found)} answered")
        for place, (row, _node) in enumerate(part):
            value, declared, access = found[len(_ATTRIBUTES) * place : len(_ATTRIBUTES) * (place + 1)]
            level = _plain(access)
            writable = not isinstance(level, int) or bool(level & 1 << ua.AccessLevel.CurrentWrite)
            facts[row] = NodeFacts(kind_of(value.Value, _plain(declared)), writable)
    return facts


def _plain(found: ua.DataValue) -> Any:
    return None if found.Value is None else found.Value.Value
