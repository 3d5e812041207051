"""The BACnet/IP driver: one device. Polls with ReadPropertyMultiple; writes at a priority and relinquishes by point."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final, Self

import numpy as np
import numpy.typing as npt
import structlog
from pydantic import BaseModel

from drivers.bacnet import services, tags
from drivers.bacnet.apdu import Kind, Service
from drivers.bacnet.capability import ask, commandable, find_capability, read_property
from drivers.bacnet.cov import CovTable
from drivers.bacnet.foreign import Registration
from drivers.bacnet.image import Image, judge
from drivers.bacnet.lookup import find_station, host_address
from drivers.bacnet.names import PRESENT_VALUE, object_name, property_name
from drivers.bacnet.peer import Peer
from drivers.bacnet.planner import Layout, Plan
from drivers.bacnet.port import Port, shared_port
from drivers.bacnet.priorities import Holder, holder, read_priorities
from drivers.bacnet.services import ObjectId
from drivers.bacnet.settings import DEFAULT_PRIORITY, OUTPUTS, BacnetAddress, BacnetSettings
from drivers.bacnet.sweep import Sweep
from drivers.bacnet.transaction import Transaction
from drivers.bacnet.writing import encode
from drivers.errors import (
    AddressError,
    DeadlineError,
    DriverError,
    NotConnectedError,
    NotWritableError,
    ProtocolError,
)
from drivers.interface import DeviceClock, DevicePoint, DeviceState, Driver, PollResult
from safety.values import Command, Quality

LATENCIES_KEPT: Final = 512
NAMES_LOGGED: Final = 5
OURS: Final = range(9, 17)
"""Priorities a driver may write at; 1 to 8 belong to people and life safety."""
_NOT_GOOD: Final = "a point is out of service or has a fault"

log = structlog.get_logger(__name__)


class BacnetDriver(Driver):
    """One BACnet/IP device."""

    def __init__(
        self, device: str, settings: BacnetSettings, points: Sequence[DevicePoint], clock: DeviceClock
    ) -> None:
        super().__init__(device, points, clock)
        self.settings = settings
        self._addresses = [_address_of(point) for point in self.points]
        self._index = {point.name: index for index, point in enumerate(self.points)}
        self._layout = Layout(self._addresses)
        self._plan = Plan(self._layout, settings.max_objects)
        self._scale = np.array([address.scale for address in self._addresses])
        self._offset = np.array([address.offset for address in self._addresses])
        self._commandable: dict[ObjectId, bool] = {}
        self._port: Port | None = None
        self._peer: Peer | None = None
        self._registration: Registration | None = None
        self._cov = None if settings.cov is None else CovTable(self._layout, settings.device, settings.cov, clock)
        self._cov_offered = False
        self._lost = False
        self._next_latency = 0

    @classmethod
    def build(cls, device: str, settings: BaseModel, points: Sequence[DevicePoint], clock: DeviceClock) -> Self:
        """The plugin's factory: checks the types and does not connect.

        Raises:
            AddressError: a point's address is not a BACnet address, or its priority is not ours to write at.
        """
        if not isinstance(settings, BacnetSettings):
            raise AddressError(
                f"{device}: settings are {type(settings).__name__}, the BACnet driver needs BacnetSettings"
            )
        return cls(device, settings, points, clock)

    async def connect(self) -> None:
        """Bind the local port, make sure the right device answers, and ask what it can do.

        Raises:
            NotConnectedError: the port cannot be had, the name is unknown, or the device does not answer.
            DeviceRefusedError: another device has the address.
        """
        if self._peer is not None and self.health.state in (DeviceState.ONLINE, DeviceState.DEGRADED):
            return
        self.health.state = DeviceState.CONNECTING
        try:
            peer = await self._open()
            capability = await find_capability(peer, self.settings.device)
            await self._find_commandable(peer)
        except DeadlineError as error:
            self._failed(error)
            raise NotConnectedError(f"device {self.settings.device} at {error}") from error
        except DriverError as error:
            self._failed(error)
            raise
        except asyncio.CancelledError:
            self.health.state = DeviceState.BACKOFF
            raise
        if self._lost:
            self._lost = False
            self.health.reconnects += 1
        self._plan.device_is(capability.max_apdu, capability.read_multiple)
        self._cov_offered = capability.subscribe_cov
        if self._cov is not None:
            self._cov.forget()
        self.health.state = DeviceState.ONLINE
        log.debug("device connected", device=self.device, endpoint=peer.where, **capability._asdict())

    async def close(self) -> None:
        """Leave the local port; its last user closes it. Never raises."""
        online = self.health.state in (DeviceState.ONLINE, DeviceState.DEGRADED)
        self.health.state = DeviceState.CLOSED
        self._lost = False
        if online and self._cov is not None and self._peer is not None:
            try:
                await self._cov.cancel(self._peer)
            except DriverError as error:
                log.debug("subscriptions left to end by themselves", device=self.device, why=str(error))
        self._leave()

    async def poll(self) -> PollResult:
        """Read every point once. ``source_time`` is when the poll began: no value is older, and none claims to be
        newer.

        Raises:
            NotConnectedError, DeadlineError, ProtocolError: not one request was answered.
        """
        began = self.clock.utc()
        refused = dict(self._plan.refused)
        sweep = Sweep(self._plan, Image(len(self.points), len(self._layout.objects)), self._ask_all)
        self.health.polls += 1
        try:
            times = await self._read(sweep, began)
        except DriverError as error:
            self.health.poll_errors += 1
            self._failed(error)
            raise
        image = sweep.image
        image.value *= self._scale
        image.value += self._offset
        quality = judge(image, self._layout.object_of, self._layout.has_status)
        self._report(sweep, refused, whole=bool((quality != Quality.BAD).all()))
        return PollResult(image.value, quality, image.reason, times)

    async def _read(self, sweep: Sweep, began: float) -> npt.NDArray[np.float64]:
        """Fill the image, with requests or from subscriptions; returns the source times (n_points,)."""
        now, queries, cov = self.clock.monotonic(), self._plan.queries, self._cov
        times = np.full(len(self.points), began)
        if cov is None or not self._cov_offered:
            await sweep.run(now, queries)
            return times
        due, left_out = cov.split(queries, now)
        sent = asyncio.get_running_loop().time()
        await sweep.run(now, due)
        for query in due:
            cov.compare(query, sweep.image, sent)
        for query in left_out:
            cov.fill(query, sweep.image, times)
        await cov.renew(self._connected())
        return times

    async def write(self, command: Command) -> None:
        """Write one command at its priority, or relinquish that priority. See the interface."""
        if type(command) is not Command:
            raise TypeError(
                f"{self.device}: only a Command made by the gate can be written, got {type(command).__name__}"
            )
        self.health.writes += 1
        try:
            await self._write(command)
        except DriverError as error:
            self.health.write_errors += 1
            self.health.last_error = str(error)
            raise

    async def read_back(self, point: str) -> float:
        """Read one point by a request of its own; nothing of the last poll is used."""
        address = self._address(point)
        kind, instance, prop = address.key
        _, result = await read_property(self._connected(), (kind, instance), prop)
        if len(result.values) != 1 or result.values[0].tag not in tags.NUMBERS:
            raise ProtocolError(f"{self.device}: {point}: {address.object} {address.property} is not a number")
        return result.values[0].number * address.scale + address.offset

    def can_relinquish(self, point: str) -> bool:
        """Whether the object has a priority array: asked at connect, before that as far as the address tells."""
        address = self._addresses[self._index[point]]
        return address.writable and self._commandable.get(address.key[:2], address.can_relinquish)

    async def holder(self, point: str) -> Holder:
        """Who commands a point, at which priority; its value is in the point's unit. Raises DriverError."""
        address = self._address(point)
        found = holder(await read_priorities(self._connected(), address.key[:2]))
        return Holder(found.level, found.value * address.scale + address.offset)

    async def _open(self) -> Peer:
        settings = self.settings
        station = await find_station(settings)  # asked every time: the name may have got another address
        if self._peer is not None and self._peer.station == station:
            return self._peer
        self._leave()
        foreign = settings.foreign
        bbmd = None if foreign is None else await host_address(foreign.bbmd, foreign.port, settings.timeout)
        port = shared_port(settings.bind, settings.local_port)
        self._port = port
        await port.open(self)
        try:
            peer = port.peer(station, settings.where)
        except AddressError:
            self._leave()
            raise
        peer.window, peer.timeout_s, peer.retries = settings.window, settings.timeout, settings.retries
        if self._cov is not None:
            port.listen_cov(station, self._cov.notified)
        if foreign is not None and bbmd is not None:
            self._registration = Registration(port, bbmd, int(foreign.ttl))
        self._peer = peer
        return peer

    def _leave(self) -> None:
        port, self._port = self._port, None
        peer, self._peer = self._peer, None
        registration, self._registration = self._registration, None
        if registration is not None:
            registration.close()
        if port is not None:
            if peer is not None:
                port.forget(peer)
            port.leave(self)

    async def _find_commandable(self, peer: Peer) -> None:
        """Ask which writable objects have a priority array: it decides how they are given back."""
        unsure = {
            address.key[:2]
            for point, address in zip(self.points, self._addresses, strict=True)
            if point.writable and address.writable and address.type not in OUTPUTS
        } - self._commandable.keys()
        for target, answer in (await commandable(peer, sorted(unsure))).items():
            if isinstance(answer, DriverError):
                raise answer
            self._commandable[target] = answer
        for address in self._addresses:
            if address.commandable is True and self._commandable.get(address.key[:2]) is False:
                log.warning("object has no priority array", device=self.device, object=address.object,
                            remedy="remove commandable: true; its value from before is restored instead")  # fmt: skip

    async def _write(self, command: Command) -> None:
        point = command.point
        address = self._address(point)
        config = self.points[self._index[point]]
        if not (address.writable and config.writable):
            raise NotWritableError(
                f"{self.device}: {point} is not writable ({address.object} {address.property}); see writable: in its file"
            )
        priority = command.priority or config.priority or DEFAULT_PRIORITY
        if priority not in OURS:
            raise NotWritableError(
                f"{self.device}: {point}: priority {priority} belongs to people and life safety; use 9 to 16"
            )
        if command.value is None and not self.can_relinquish(point):
            raise NotWritableError(
                f"{self.device}: {point} cannot be relinquished: {address.object} has no priority array; "
                "give it a fail_safe value"
            )
        body = services.write(address.key[:2], PRESENT_VALUE, encode(address, command.value, point), priority)
        transaction = Transaction(Service.WRITE, body, Kind.SIMPLE_ACK)
        if self._cov is not None:
            self._cov.written(address.key[:2])
        await ask(self._connected(), transaction)
        self._record(transaction)

    async def _ask_all(self, transactions: Sequence[Transaction]) -> None:
        await self._connected().exchange(transactions)
        for transaction in transactions:
            self._record(transaction)

    def _connected(self) -> Peer:
        if self._peer is None:
            raise NotConnectedError(f"{self.device}: not connected to {self.settings.where}; call connect first")
        return self._peer

    def _address(self, point: str) -> BacnetAddress:
        index = self._index.get(point)
        if index is None:
            raise AddressError(f"{self.device}: no point {point!r} on this device")
        return self._addresses[index]

    def _record(self, transaction: Transaction) -> None:
        if not transaction.latency_s:
            return
        ring = self.health.latency_s
        if len(ring) < LATENCIES_KEPT:
            ring.append(transaction.latency_s)
        else:
            ring[self._next_latency] = transaction.latency_s
            self._next_latency = (self._next_latency + 1) % LATENCIES_KEPT

    def _report(self, sweep: Sweep, before: dict[int, str], *, whole: bool) -> None:
        health, plan = self.health, self._plan
        health.last_good = self.clock.monotonic()
        new = [point for point in plan.refused if point not in before]
        if new:
            why = "; ".join(plan.refused[point] for point in new[:NAMES_LOGGED])
            log.warning("points refused", device=self.device, count=len(new), points=self._names(new), why=why)
        back = [point for point in before if point not in plan.refused]
        if back:
            log.info("points answered again", device=self.device, count=len(back), points=self._names(back))
        for position, error in sweep.quarantined:
            log.warning("object quarantined", device=self.device, why=str(error),
                        object=object_name(*self._layout.objects[position]))  # fmt: skip
        for position in sweep.released:
            log.info("object back from quarantine", device=self.device,
                     object=object_name(*self._layout.objects[position]))  # fmt: skip
        if new or back or sweep.quarantined or sweep.released:
            left_out = set(plan.refused) | {
                point for point, position in enumerate(self._layout.object_of) if position in plan.quarantined
            }
            health.quarantined = tuple(sorted(self.points[point].name for point in left_out))
        health.state = DeviceState.ONLINE if whole else DeviceState.DEGRADED
        health.detail = "" if whole else str(sweep.error or next(iter(plan.refused.values()), _NOT_GOOD))
        if sweep.error is not None:
            health.last_error = str(sweep.error)

    def _names(self, points: Sequence[int]) -> str:
        named = [
            f"{self.points[k].name} ({self._addresses[k].object} {property_name(self._addresses[k].key[2])})"
            for k in points[:NAMES_LOGGED]
        ]
        return ", ".join(named) + (f" and {len(points) - len(named)} more" if len(points) > len(named) else "")

    def _failed(self, error: DriverError) -> None:
        # Not logged here: the caller, which knows whether it is the first failure in a row, does.
        self._lost = self._lost or self.health.last_good is not None
        self.health.state = DeviceState.BACKOFF
        self.health.detail = self.health.last_error = str(error)


def _address_of(point: DevicePoint) -> BacnetAddress:
    address = point.address
    if not isinstance(address, BacnetAddress):
        raise AddressError(f"{point.name}: {type(address).__name__} is not a BACnet address")
    if point.priority is not None and point.priority not in OURS:
        raise AddressError(f"{point.name}: priority {point.priority} belongs to people and life safety; use 9 to 16")
    return address
