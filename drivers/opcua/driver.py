"""The OPC UA driver: one server. Reads in batches or listens to changes; writes and reads back node by node."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final, Self

import numpy as np
import structlog
from asyncua import ua
from pydantic import BaseModel

from drivers.errors import (
    AddressError,
    DeviceRefusedError,
    DriverError,
    NotConnectedError,
    NotWritableError,
    ProtocolError,
)
from drivers.interface import DeviceClock, DevicePoint, DeviceState, Driver, Floats, PollResult
from drivers.opcua import quality
from drivers.opcua.choice import Choice, Flags, rows_of
from drivers.opcua.connection import Connection
from drivers.opcua.facts import NodeFacts, learn
from drivers.opcua.faults import FAILURES, request_error, status_name, write_error
from drivers.opcua.reader import Reader, Shard
from drivers.opcua.settings import OpcUaAddress, OpcUaSettings
from drivers.opcua.subscription import Subscriptions
from drivers.opcua.values import encode
from drivers.opcua.wire import Samples
from safety.values import Command, Quality, Reason

LATENCIES_KEPT: Final = 512
NAMES_LOGGED: Final = 5
RESUBSCRIBE_S: Final = 30.0
"""Wall seconds of polling after a subscription was lost or refused, before the next try."""

log = structlog.get_logger(__name__)


class OpcUaDriver(Driver):
    """One OPC UA server."""

    def __init__(self, device: str, settings: OpcUaSettings, points: Sequence[DevicePoint], clock: DeviceClock) -> None:
        super().__init__(device, points, clock)
        self.settings = settings
        self._addresses = [_address_of(point) for point in self.points]
        self._names = [address.name for address in self._addresses]
        self._index = {point.name: index for index, point in enumerate(self.points)}
        self._scale = np.array([address.scale for address in self._addresses])
        self._offset = np.array([address.offset for address in self._addresses])
        self._connection = Connection(settings)
        self._connecting = asyncio.Lock()
        self._reader = Reader(self._names, self._record)
        self._subscriptions = Subscriptions(self._names, settings)
        # What we write is polled: a change on its way to us must not look like somebody else's write.
        self._candidates: Flags = np.array([not point.writable for point in self.points], bool)
        self._choice = Choice(self._candidates) if settings.read == "auto" else None
        self._subscribed: Flags = self._candidates.copy() if settings.read == "subscribe" else ~_all(self.points)
        self._resubscribe_at = 0.0
        self._polled: Flags = _all(self.points)
        self._facts: dict[int, NodeFacts] = {}
        self._was_online = False
        self._next_latency = 0

    @classmethod
    def build(cls, device: str, settings: BaseModel, points: Sequence[DevicePoint], clock: DeviceClock) -> Self:
        """The plugin's factory: checks the types and does not connect.

        Raises:
            AddressError: the settings or a point's address are another driver's.
        """
        if not isinstance(settings, OpcUaSettings):
            raise AddressError(
                f"{device}: settings are {type(settings).__name__}, the OPC UA driver needs OpcUaSettings"
            )
        return cls(device, settings, points, clock)

    async def connect(self) -> None:
        """Connect and make everything that a session has: node ids, types of what is written, subscriptions. See the
        interface.
        """
        async with self._connecting:
            if self._connection.alive:
                if self.health.state not in (DeviceState.ONLINE, DeviceState.DEGRADED):
                    self.health.state = DeviceState.ONLINE
                return
            self.health.state = DeviceState.CONNECTING
            self._subscriptions.drop()
            try:
                await self._connection.open()
                ours = [index for index, point in enumerate(self.points) if point.writable]
                self._facts = await learn(self._connection, self._names, ours)
            except DriverError as error:
                self._failed(error)
                raise
            self._reader.forget()
            self._poll_rows(_all(self.points))
            if self._choice is not None:
                self._choice.forget()
            self._resubscribe_at = 0.0
            if self._was_online:
                self.health.reconnects += 1
            self._was_online = True
            self.health.state = DeviceState.ONLINE
            log.debug("device connected", device=self.device, endpoint=self.settings.endpoint)

    async def close(self) -> None:
        """End the session and the connection. Never raises."""
        self.health.state = DeviceState.CLOSED
        await self._subscriptions.close(self._connection)
        await self._connection.close()
        self._subscriptions.drop()

    async def poll(self) -> PollResult:
        """Every point once: read, or as its living subscription last said.

        ``source_time`` is the server's source timestamp where it gives one, and never later than the poll's beginning.

        Raises:
            NotConnectedError, DeadlineError, DeviceRefusedError, ProtocolError: the server as a whole failed.
        """
        began = self.clock.utc()
        self.health.polls += 1
        try:
            samples = await self._sample()
        except DriverError as error:
            self.health.poll_errors += 1
            self._failed(error)
            raise
        value: Floats = samples.value * self._scale + self._offset
        grade, reason = quality.judge(samples, value)
        self._report(samples, grade == Quality.BAD, reason)
        return PollResult(value, grade, reason, samples.source_time(began))

    async def write(self, command: Command) -> None:
        """Write one node's value in its own data type, without timestamp and status. See the interface."""
        if type(command) is not Command:
            raise TypeError(
                f"{self.device}: only a Command made by the gate can be written, got {type(command).__name__}"
            )
        self.health.writes += 1
        try:
            await self._write(command.point, command.value)
        except DriverError as error:
            self.health.write_errors += 1
            self.health.last_error = str(error)
            raise

    async def read_back(self, point: str) -> float:
        """Read one point by a request of its own; neither a poll nor a subscription is used."""
        index = self._row(point)
        shard = Shard([0], [self._node(index)])
        data = await self._connection.exchange(shard.request(), f"reading {point}")
        samples = Samples.waiting(1)
        try:
            shard.decoder.decode(data.read(len(data)), samples)
        except FAILURES as error:
            raise request_error(error, self._connection.where, f"reading {point}") from error
        status = int(samples.status[0])
        value: Floats = samples.value * self._scale[index] + self._offset[index]
        grade, _reason = quality.judge(samples, value)
        if grade[0] == Quality.BAD:
            what = status_name(status) if status >> 30 else "the node holds no number"
            raise DeviceRefusedError(f"{self.device}: {point} ({self._names[index]}) cannot be read: {what}")
        return float(value[0])

    async def _write(self, point: str, value: float | None) -> None:
        index = self._row(point)
        if not self.points[index].writable:
            raise NotWritableError(f"{self.device}: {point} is not writable; see writable: in its file")
        if value is None:
            raise NotWritableError(
                f"{self.device}: {point} cannot be relinquished: OPC UA has no such thing; give it a fail_safe value"
            )
        node = self._node(index)
        facts = self._facts.get(index) or (await learn(self._connection, self._names, [index]))[index]
        self._facts[index] = facts
        if not facts.writable or facts.kind is None:
            del self._facts[index]  # asked again the next time: rights and values come and go
            why = "it holds no number" if facts.writable else "this user may only read it"
            raise NotWritableError(f"{self.device}: {point} ({self._names[index]}) cannot be written: {why}")
        variant = encode(self._addresses[index], facts.kind, value, point)
        request = ua.WriteRequest()
        data_value = ua.DataValue(variant, StatusCode=None)  # many servers refuse a write with status or times
        request.Parameters.NodesToWrite = [ua.WriteValue(node, ua.AttributeIds.Value, Value=data_value)]
        response = await self._connection.ask(request, ua.WriteResponse, f"writing {point}")
        if len(response.Results) != 1:
            raise ProtocolError(f"{self.device}: {point}: one write was sent and {len(response.Results)} answered")
        status = int(response.Results[0].value)
        if status >> 30 > 1:
            self._facts.pop(index, None)
            raise write_error(status, self._connection.where, point)

    async def _sample(self) -> Samples:
        if not self._connection.alive:
            self._subscriptions.drop()
            raise NotConnectedError(f"{self.device}: not connected to {self.settings.endpoint}; call connect first")
        await self._keep_subscribed()
        live = self._subscriptions.live()
        if (live == self._polled).any():
            self._poll_rows(~live)
        samples = Samples.waiting(len(self.points))
        await self._reader.read(self._connection, samples)
        if live.any():
            rows, latest = rows_of(live), self._subscriptions.samples
            for name in ("value", "status", "ticks", "kind"):
                getattr(samples, name)[rows] = getattr(latest, name)[rows]
        if self._choice is not None:
            wanted = self._choice.observe(samples, self._subscribed)
            if wanted is not None:
                self._subscribed = wanted
                await self._subscriptions.close(self._connection)
                self._resubscribe_at = 0.0
        return samples

    async def _keep_subscribed(self) -> None:
        subscriptions, now = self._subscriptions, asyncio.get_running_loop().time()
        if subscriptions.active and subscriptions.trouble:
            log.warning("subscription lost", device=self.device, why=subscriptions.trouble, effect="points are polled")
            await subscriptions.close(self._connection)
            self._resubscribe_at = now + RESUBSCRIBE_S
        if subscriptions.active or now < self._resubscribe_at or not self._subscribed.any():
            return
        try:
            await subscriptions.create(self._connection, rows_of(self._subscribed).tolist())
        except DriverError as error:
            if not self._connection.alive:
                raise
            log.info("not subscribed", device=self.device, why=str(error), effect="points are polled")
            self._resubscribe_at = now + RESUBSCRIBE_S

    def _poll_rows(self, rows: Flags) -> None:
        self._polled = rows
        self._reader.wanted = rows_of(rows).tolist()
        self._reader.plan(self._connection)

    def _row(self, point: str) -> int:
        index = self._index.get(point)
        if index is None:
            raise AddressError(f"{self.device}: no point {point!r} on this device")
        return index

    def _node(self, index: int) -> ua.NodeId:
        name = self._names[index]
        if not self._connection.namespaces:
            raise NotConnectedError(f"{self.device}: not connected to {self.settings.endpoint}; call connect first")
        node = self._connection.node_id(name)
        if node is None:
            raise DeviceRefusedError(
                f"{self.device}: {self.points[index].name}: the server has no namespace {name.uri}; correct node:"
            )
        return node

    def _record(self, latency_s: float) -> None:
        ring = self.health.latency_s
        if len(ring) < LATENCIES_KEPT:
            ring.append(latency_s)
        else:
            ring[self._next_latency] = latency_s
            self._next_latency = (self._next_latency + 1) % LATENCIES_KEPT

    def _report(self, samples: Samples, bad: Flags, reason: np.ndarray) -> None:
        health = self.health
        health.last_good = self.clock.monotonic()
        health.state = DeviceState.DEGRADED if bad.any() else DeviceState.ONLINE
        if not bad.any() and not health.quarantined:
            health.detail = ""
            return
        useless = rows_of(bad & np.isin(reason, (Reason.DEVICE_ERROR, Reason.DECODE_ERROR))).tolist()
        health.detail = f"{int(bad.sum())} of {len(bad)} points are bad"
        names = tuple(sorted(self.points[row].name for row in useless))
        if names == health.quarantined:
            return
        before = set(health.quarantined)
        health.quarantined = names
        new = [row for row in useless if self.points[row].name not in before]
        if new:
            log.warning("points useless", device=self.device, count=len(new), points=self._described(new, samples))
        back = sorted(before - set(names))
        if back:
            more = f" and {len(back) - NAMES_LOGGED} more" if len(back) > NAMES_LOGGED else ""
            log.info("points back", device=self.device, count=len(back), points=", ".join(back[:NAMES_LOGGED]) + more)

    def _described(self, rows: Sequence[int], samples: Samples) -> str:
        named = []
        for row in rows[:NAMES_LOGGED]:
            status = int(samples.status[row])
            why = status_name(status) if status >> 30 else "not a number"
            named.append(f"{self.points[row].name} ({self._names[row]}: {why})")
        more = f" and {len(rows) - NAMES_LOGGED} more" if len(rows) > NAMES_LOGGED else ""
        return ", ".join(named) + more

    def _failed(self, error: DriverError) -> None:
        # Not logged here: the caller, which knows whether it is the first failure in a row, does.
        self.health.state = DeviceState.BACKOFF
        self.health.detail = self.health.last_error = str(error)


def _all(points: Sequence[DevicePoint]) -> Flags:
    return np.ones(len(points), bool)


def _address_of(point: DevicePoint) -> OpcUaAddress:
    if not isinstance(point.address, OpcUaAddress):
        raise AddressError(f"{point.name}: {type(point.address).__name__} is not an OPC UA address")
    return point.address
