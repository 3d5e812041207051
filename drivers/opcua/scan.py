"""Browses a server's address space for values that could be points. Reads only; bounded in depth and number."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from asyncua import ua

from drivers.opcua.connection import Connection
from drivers.opcua.facts import NodeFacts, learn
from drivers.opcua.node_names import NodeName

BATCH: Final = 50
"""Nodes in one browse request."""
PAGE: Final = 1000
"""References of one node that the server may answer at once; the rest comes in further pages."""
_RANGE: Final = "EURange"
_UNIT: Final = "EngineeringUnits"


@dataclass(frozen=True, slots=True)
class FoundNode:
    """A variable that holds one number. ``path`` are the browse names from the Objects folder down.

    ``low``, ``high`` and ``unit`` (as the server writes it, not UCUM) are None where the server does not say.
    """

    path: tuple[str, ...]
    name: NodeName
    type: str
    writable: bool
    low: float | None = None
    high: float | None = None
    unit: str | None = None


@dataclass(slots=True)
class ScanResult:
    """What was found, in the order of browsing. ``cut`` says why there may be more; empty if that is all."""

    nodes: list[FoundNode] = field(default_factory=list)
    cut: str = ""


@dataclass(slots=True)
class _Variable:
    path: tuple[str, ...]
    node: ua.NodeId
    properties: dict[str, ua.NodeId] = field(default_factory=dict)


@dataclass(slots=True)
class _Browsing:
    """The state of one browse: what is known, and where to look next."""

    max_nodes: int
    seen: set[tuple[int, Any]] = field(default_factory=set)
    variables: dict[tuple[int, Any], _Variable] = field(default_factory=dict)
    cut: str = ""

    def take(self, parent: _Variable, reference: ua.ReferenceDescription) -> _Variable | None:
        """Take in one reference; returns the node if it is to be browsed in its turn."""
        node = ua.NodeId(reference.NodeId.Identifier, reference.NodeId.NamespaceIndex)
        name = str(reference.BrowseName.Name)
        owner = self.variables.get(_key(parent.node))
        if owner is not None and name in (_RANGE, _UNIT):
            owner.properties[name] = node
            return None
        if _key(node) in self.seen or node.NamespaceIndex == 0:
            return None
        if len(self.seen) >= self.max_nodes:
            self.cut = f"stopped after {self.max_nodes} nodes"
            return None
        self.seen.add(_key(node))
        found = _Variable((*parent.path, name), node)
        if reference.NodeClass == ua.NodeClass.Variable:
            self.variables[_key(node)] = found
        return found


async def scan(connection: Connection, *, max_nodes: int = 20_000, max_depth: int = 12) -> ScanResult:
    """Browse from the Objects folder down, breadth first. ``connection`` is open.

    The server's own nodes (namespace 0) are left out, and what is not one number.

    Raises:
        DriverError: the server, or the way to it, failed as a whole.
    """
    state = _Browsing(max_nodes)
    level = [_Variable((), ua.NodeId(ua.ObjectIds.ObjectsFolder))]
    for _depth in range(max_depth):
        below: list[_Variable] = []
        for first in range(0, len(level), BATCH):
            parents = level[first : first + BATCH]
            for parent, references in zip(parents, await _children(connection, parents), strict=True):
                below += [node for one in references if (node := state.take(parent, one)) is not None]
        level = below
        if not level or state.cut:
            break
    else:
        state.cut = f"stopped {max_depth} levels below the Objects folder"
    return ScanResult(await _describe(connection, list(state.variables.values())), state.cut)


async def _children(connection: Connection, parents: Sequence[_Variable]) -> list[list[ua.ReferenceDescription]]:
    request = ua.BrowseRequest()
    request.Parameters.RequestedMaxReferencesPerNode = PAGE
    request.Parameters.NodesToBrowse = [
        ua.BrowseDescription(
            NodeId=parent.node,
            BrowseDirection=ua.BrowseDirection.Forward,
            ReferenceTypeId=ua.NodeId(ua.ObjectIds.HierarchicalReferences),
            IncludeSubtypes=True,
            NodeClassMask=ua.NodeClass.Object | ua.NodeClass.Variable,
            ResultMask=ua.BrowseResultMask.All,
        )
        for parent in parents
    ]
    results = (await connection.ask(request, ua.BrowseResponse, "browsing")).Results
    found = []
    for result in results:
        references = list(result.References)
        while result.ContinuationPoint:
            more = ua.BrowseNextRequest()
            more.Parameters.ReleaseContinuationPoints = False
            more.Parameters.ContinuationPoints = [result.ContinuationPoint]
            (result,) = (await connection.ask(more, ua.BrowseNextResponse, "browsing")).Parameters.Results  # noqa: PLW2901
            references += result.References
        found.append(references)
    return found


async def _describe(connection: Connection, variables: Sequence[_Variable]) -> list[FoundNode]:
    uris = {index: uri for uri, index in connection.namespaces.items()}
    named = [
        (one, NodeName(uris[one.node.NamespaceIndex], one.node.Identifier))
        for one in variables
        if one.node.NamespaceIndex in uris
    ]
    facts = await learn(connection, [name for _one, name in named], range(len(named)))
    numbers = [(one, name, facts[row]) for row, (one, name) in enumerate(named) if facts[row].kind is not None]
    properties = await _properties(connection, (one for one, _name, _facts in numbers))
    return [_found(one, name, what, properties) for one, name, what in numbers]


def _found(one: _Variable, name: NodeName, facts: NodeFacts, properties: dict[tuple[int, Any], Any]) -> FoundNode:
    span = properties.get(_key(one.properties[_RANGE])) if _RANGE in one.properties else None
    unit = properties.get(_key(one.properties[_UNIT])) if _UNIT in one.properties else None
    low, high = (float(span.Low), float(span.High)) if isinstance(span, ua.Range) else (None, None)
    return FoundNode(
        one.path,
        name,
        "" if facts.kind is None else facts.kind.name,
        facts.writable,
        low,
        high,
        str(unit.DisplayName.Text) if isinstance(unit, ua.EUInformation) else None,
    )


async def _properties(connection: Connection, variables: Iterable[_Variable]) -> dict[tuple[int, Any], Any]:
    nodes = [node for one in variables for node in one.properties.values()]
    values: dict[tuple[int, Any], Any] = {}
    for first in range(0, len(nodes), connection.max_nodes):
        part = nodes[first : first + connection.max_nodes]
        asked = [ua.ReadValueId(node, ua.AttributeIds.Value) for node in part]
        request = ua.ReadRequest(Parameters=ua.ReadParameters(NodesToRead=asked))
        response = await connection.ask(request, ua.ReadResponse, "reading ranges and units")
        for node, found in zip(part, response.Results, strict=False):
            values[_key(node)] = None if found.Value is None else found.Value.Value
    return values


def _key(node: ua.NodeId) -> tuple[int, Any]:
    return node.NamespaceIndex, node.Identifier
