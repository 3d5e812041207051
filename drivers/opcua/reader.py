"""Reads nodes in large batches, and learns what a server does not take: large batches, or one node among good ones.

A node that the server does not know is answered with a bad status of its own and costs the others nothing. Only where
a whole request is refused is it halved, until it passes or the culprit stands alone; that one is left out, and tried
again now and then.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Final

from asyncua import ua

from drivers.errors import ProtocolError
from drivers.opcua.connection import Connection
from drivers.opcua.faults import FAILURES, TOO_MUCH, ServiceRefusedError, request_error
from drivers.opcua.node_names import NodeName
from drivers.opcua.wire import ReadDecoder, Samples, read_parameters, read_request

IN_FLIGHT: Final = 4
"""Requests on the way at once: the server answers one while we decode another."""
RETRY_S: Final = 60.0
"""Wall seconds between two attempts at nodes that are left out."""


class Shard:
    """The nodes of one request. ``rows`` are their places in the samples."""

    def __init__(self, rows: Sequence[int], nodes: Sequence[ua.NodeId]) -> None:
        self.rows = list(rows)
        self.nodes = list(nodes)
        self.decoder = ReadDecoder(rows)
        self._parameters = read_parameters(nodes)

    def request(self) -> Any:
        """The request, with a header of its own."""
        return read_request(self._parameters)

    def halves(self) -> tuple[Shard, Shard]:
        """The same nodes in two requests."""
        middle = len(self.rows) // 2
        return Shard(self.rows[:middle], self.nodes[:middle]), Shard(self.rows[middle:], self.nodes[middle:])


class Reader:
    """Reads the nodes called ``names``; row k of the samples is ``names[k]``."""

    def __init__(self, names: Sequence[NodeName], record_latency: Callable[[float], None]) -> None:
        self._names = list(names)
        self._record = record_latency
        self._shards: list[Shard] = []
        self._unresolved: list[int] = []
        self._refused: list[int] = []
        self._largest = 0
        self._retry_at = 0.0
        self.wanted: list[int] = list(range(len(self._names)))
        """The rows to read; after a change call :meth:`plan`."""

    def plan(self, connection: Connection) -> None:
        """Make the requests, for this session's namespaces and limits."""
        self._largest = min(self._largest or connection.max_nodes, connection.max_nodes)
        left_out = set(self._refused)
        self._unresolved = []
        rows, nodes = [], []
        for row in self.wanted:
            node = connection.node_id(self._names[row])
            if node is None:
                self._unresolved.append(row)
            elif row not in left_out:
                rows.append(row)
                nodes.append(node)
        self._shards = [
            Shard(rows[first : first + self._largest], nodes[first : first + self._largest])
            for first in range(0, len(rows), self._largest)
        ]

    def forget(self) -> None:
        """A new session, perhaps with another server behind the address: what was learnt may be wrong."""
        self._refused.clear()
        self._largest = 0
        self._retry_at = 0.0

    async def read(self, connection: Connection, samples: Samples) -> None:
        """Read every wanted row into ``samples``; one that cannot be asked for gets a bad status.

        Raises:
            DriverError: the server, or the way to it, failed as a whole.
        """
        await self._retry(connection)
        for rows, status in ((self._unresolved, ua.StatusCodes.BadNodeIdUnknown), (self._refused, _REFUSED)):
            if rows:
                samples.status[rows] = status
        todo = list(self._shards)
        answered, failure = False, None
        while todo:
            batch, todo = todo[:IN_FLIGHT], todo[IN_FLIGHT:]
            outcomes = await asyncio.gather(
                *(self._ask(connection, shard, samples) for shard in batch), return_exceptions=True
            )
            for shard, outcome in zip(batch, outcomes, strict=True):
                if outcome is None:
                    answered = True
                    continue
                if not _is_about_the_batch(outcome):
                    raise outcome
                todo += self._narrow(connection, shard, samples, outcome)
                if not connection.alive:
                    raise outcome
                failure = outcome
        if failure is not None and not answered and len(self.wanted) == len(self._names):
            # Not one node was read, and none is subscribed: that is no matter of single nodes.
            self.forget()
            self.plan(connection)
            raise failure

    async def _ask(self, connection: Connection, shard: Shard, samples: Samples) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        data = await connection.exchange(shard.request(), "reading")
        self._record(loop.time() - began)
        try:
            shard.decoder.decode(data.read(len(data)), samples)
        except FAILURES as error:
            raise request_error(error, connection.where, "reading") from error

    def _narrow(self, connection: Connection, shard: Shard, samples: Samples, error: BaseException) -> list[Shard]:
        """Halve a refused batch; or leave out the one node that it is."""
        self._shards.remove(shard)
        if len(shard.rows) == 1:
            self._refused += shard.rows
            samples.status[shard.rows] = _REFUSED
            self._retry_at = asyncio.get_running_loop().time() + RETRY_S
            return []
        if isinstance(error, ServiceRefusedError) and error.code == ua.StatusCodes.BadTooManyOperations:
            # About the size, not about a node: all others are too large as well.
            self._largest = max(1, len(shard.rows) // 2)
            halves = [shard]
            while len(halves[0].rows) > self._largest:
                halves = [half for one in halves for half in one.halves()]
        else:
            halves = list(shard.halves())
        self._shards += halves
        return halves

    async def _retry(self, connection: Connection) -> None:
        now = asyncio.get_running_loop().time()
        if not (self._unresolved or self._refused) or now < self._retry_at:
            return
        first = self._retry_at == 0.0
        self._retry_at = now + RETRY_S
        if first:
            return
        if self._unresolved:
            await connection.refresh_namespaces()
        self._refused.clear()
        self.plan(connection)


_REFUSED: Final = ua.StatusCodes.BadNotReadable


def _is_about_the_batch(outcome: BaseException) -> bool:
    if isinstance(outcome, ServiceRefusedError):
        return outcome.code in TOO_MUCH
    return isinstance(outcome, ProtocolError)
