"""Subscribed points: the server sends changes, and says in between that it lives.

A value that has not changed is current as long as its subscription is heard of. A subscription that falls silent,
loses a message or ends makes its points' rows not live, so that they are polled again; it is made anew later.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from asyncua import ua

from drivers.errors import DriverError, ProtocolError
from drivers.opcua.choice import Flags
from drivers.opcua.connection import Connection
from drivers.opcua.faults import FAILURES, ServiceRefusedError, request_error, status_name
from drivers.opcua.node_names import NodeName
from drivers.opcua.notifications import Published, parse
from drivers.opcua.settings import MAX_NODES, OpcUaSettings
from drivers.opcua.wire import Samples

KEEP_ALIVE_S: Final = 2.0
"""How often a subscription without changes is heard of."""
LONGEST_KEEP_ALIVE_S: Final = 15.0
"""A server that wants to be silent for longer is polled: its death would go unnoticed."""
LIFETIMES: Final = 10
"""Keep-alive intervals after which the server forgets a subscription that nobody listens to."""
PUBLISHES: Final = 2
"""Publish requests that wait at the server: one answer may be on its way while the next is ready."""
_WRAP: Final = 2**32


@dataclass(slots=True)
class _Group:
    """One subscription of the server. Times are wall seconds of the event loop."""

    identifier: int
    rows: list[int]
    silence_s: float
    heard_at: float
    next_sequence: int = 1
    broken: str = ""

    def alive(self, now: float) -> bool:
        return not self.broken and now - self.heard_at <= self.silence_s


class Subscriptions:
    """The subscriptions of one session. Row k of ``samples`` is ``names[k]``."""

    def __init__(self, names: Sequence[NodeName], settings: OpcUaSettings) -> None:
        self._names = names
        self._settings = settings
        self._groups: dict[int, _Group] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._received = np.zeros(len(names), bool)
        self.samples = Samples.waiting(len(names))
        self.trouble = ""
        """Why a subscription was lost, for the log; empty while all is well."""

    @property
    def active(self) -> bool:
        """Whether there is any subscription, alive or not."""
        return bool(self._groups)

    def live(self) -> Flags:
        """Rows whose value is current without reading it, shape (n,)."""
        now = asyncio.get_running_loop().time()
        flags = np.zeros(len(self._names), bool)
        for group in self._groups.values():
            if group.alive(now):
                flags[group.rows] = True
            elif not self.trouble:
                self.trouble = group.broken or f"silent for more than {group.silence_s:.1f} s"
        return flags & self._received

    async def create(self, connection: Connection, rows: Sequence[int]) -> None:
        """Subscribe the rows, at most ``MAX_NODES`` in one subscription.

        Raises:
            DriverError: the server does not take it; what was made so far is closed.
        """
        self.trouble = ""
        try:
            for first in range(0, len(rows), MAX_NODES):
                await self._create_group(connection, rows[first : first + MAX_NODES])
        except DriverError:
            await self.close(connection)
            raise

    async def close(self, connection: Connection) -> None:
        """End all subscriptions, at the server too if it can be reached. Never raises.

        Publish requests stay at the server, which answers them for the next subscription.
        """
        identifiers = list(self._groups)
        self._forget()
        if identifiers and connection.alive:
            request = ua.DeleteSubscriptionsRequest()
            request.Parameters.SubscriptionIds = identifiers
            try:
                await connection.ask(request, ua.DeleteSubscriptionsResponse, "ending subscriptions")
            except DriverError as error:
                self.trouble = str(error)  # the server forgets them after their lifetime

    def drop(self) -> None:
        """Forget everything; the session is gone."""
        self._forget()
        for task in self._tasks:
            task.cancel()
        self._tasks.clear()

    def _forget(self) -> None:
        self._groups.clear()
        self._received[:] = False

    async def _create_group(self, connection: Connection, rows: Sequence[int]) -> None:
        period_s = self._settings.publish
        request = ua.CreateSubscriptionRequest()
        wanted = request.Parameters
        wanted.RequestedPublishingInterval = period_s * 1000.0
        wanted.RequestedMaxKeepAliveCount = max(1, math.ceil(KEEP_ALIVE_S / period_s))
        wanted.RequestedLifetimeCount = LIFETIMES * wanted.RequestedMaxKeepAliveCount
        wanted.MaxNotificationsPerPublish = MAX_NODES
        made = (await connection.ask(request, ua.CreateSubscriptionResponse, "subscribing")).Parameters
        keep_alive_s = made.RevisedPublishingInterval * made.RevisedMaxKeepAliveCount / 1000.0
        group = _Group(made.SubscriptionId, list(rows), 1.5 * keep_alive_s + 1.0, asyncio.get_running_loop().time())
        self._groups[group.identifier] = group
        if not keep_alive_s <= LONGEST_KEEP_ALIVE_S:
            raise ProtocolError(
                f"{connection.where}: the server would keep silent for {keep_alive_s:g} s; its points are polled"
            )
        self._publish(connection)
        step = min(MAX_NODES, connection.max_items_per_call)
        for first in range(0, len(rows), step):
            await self._add_items(connection, group, rows[first : first + step])

    async def _add_items(self, connection: Connection, group: _Group, rows: Sequence[int]) -> None:
        request = ua.CreateMonitoredItemsRequest()
        request.Parameters.SubscriptionId = group.identifier
        request.Parameters.TimestampsToReturn = ua.TimestampsToReturn.Source
        for row in rows:
            node = connection.node_id(self._names[row])
            if node is not None:
                request.Parameters.ItemsToCreate.append(self._item(row, node))
        if request.Parameters.ItemsToCreate:
            # An item that the server refuses never delivers, so that its row is never live: it is polled.
            await connection.ask(request, ua.CreateMonitoredItemsResponse, "subscribing")

    def _item(self, row: int, node: ua.NodeId) -> ua.MonitoredItemCreateRequest:
        return ua.MonitoredItemCreateRequest(
            ItemToMonitor=ua.ReadValueId(NodeId=node, AttributeId=ua.AttributeIds.Value),
            MonitoringMode=ua.MonitoringMode.Reporting,
            RequestedParameters=ua.MonitoringParameters(
                ClientHandle=row, SamplingInterval=self._settings.publish * 1000.0, QueueSize=1, DiscardOldest=True
            ),
        )

    def _publish(self, connection: Connection) -> None:
        self._tasks = {task for task in self._tasks if not task.done()}
        while len(self._tasks) < PUBLISHES:
            task = asyncio.create_task(self._publish_forever(connection), name=f"publish {connection.where}")
            self._tasks.add(task)

    async def _publish_forever(self, connection: Connection) -> None:
        """Keep one publish request at the server until the session ends or there is nothing to listen to."""
        acknowledged: list[ua.SubscriptionAcknowledgement] = []
        refused = False
        while True:
            request = ua.PublishRequest()
            request.Parameters.SubscriptionAcknowledgements = acknowledged
            acknowledged = []
            try:
                data = await connection.exchange(request, "listening", timeout_s=0.0)
                published = parse(data.read(len(data)))
                self._take(published)
            except (DriverError, *FAILURES) as error:
                failure = request_error(error, connection.where, "listening")
                if _nothing_to_publish(failure) and self._groups and not refused:
                    refused = True  # said of the time before the present subscription
                    continue
                self._lost(failure)
                return
            refused = False
            if not published.keep_alive:
                acknowledged.append(ua.SubscriptionAcknowledgement(published.subscription, published.sequence))

    def _take(self, published: Published) -> None:
        group = self._groups.get(published.subscription)
        if group is None:
            return  # ended by us while this was on its way
        group.heard_at = asyncio.get_running_loop().time()
        if published.sequence != group.next_sequence:
            group.broken = f"a message was lost: {published.sequence} came instead of {group.next_sequence}"
            return
        if published.keep_alive:
            return
        group.next_sequence = published.sequence % (_WRAP - 1) + 1
        if published.status is not None:
            group.broken = f"the server ended it ({status_name(published.status)})"
            return
        self._received[published.store(self.samples)] = True

    def _lost(self, error: DriverError) -> None:
        current = asyncio.current_task()
        if any(task is not current and not task.done() for task in self._tasks):
            return  # one of several requests was refused: the others listen on
        for group in self._groups.values():
            group.broken = group.broken or str(error)


def _nothing_to_publish(error: DriverError) -> bool:
    return isinstance(error, ServiceRefusedError) and error.code == ua.StatusCodes.BadNoSubscription
