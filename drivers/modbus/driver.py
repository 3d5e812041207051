"""The Modbus driver: one device (unit_id) behind one endpoint. Polls in blocks; writes and reads back by point."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Self

import numpy as np
import structlog
from pydantic import BaseModel

from drivers.errors import AddressError, DriverError, NotConnectedError, NotWritableError, ProtocolError
from drivers.interface import DeviceClock, DevicePoint, DeviceState, Driver, PollResult
from drivers.modbus import codec, pdu
from drivers.modbus.bits import BitWriter, read_of
from drivers.modbus.endpoint import Endpoint, shared_endpoint
from drivers.modbus.planner import Block, Layout, limits_of, probe_of
from drivers.modbus.refusals import ReadPlan
from drivers.modbus.routes import route_to
from drivers.modbus.settings import REGISTERS, ModbusAddress, ModbusSettings, Table
from drivers.modbus.sweep import Sweep
from drivers.modbus.transaction import Probe, Transaction
from safety.values import Command, Quality, Reason

LATENCIES_KEPT: Final = 512
NAMES_LOGGED: Final = 5

log = structlog.get_logger(__name__)


class ModbusDriver(Driver):
    """One Modbus device."""

    def __init__(
        self, device: str, settings: ModbusSettings, points: Sequence[DevicePoint], clock: DeviceClock
    ) -> None:
        super().__init__(device, points, clock)
        self.settings = settings
        self._addresses = [_address_of(point, settings) for point in self.points]
        self._index = {point.name: index for index, point in enumerate(self.points)}
        limits = limits_of(settings.max_block, settings.max_gap)
        self._layout = Layout(self._addresses, limits, settings.forbidden)
        self._order = np.array(self._layout.order, np.intp)
        self._plan = ReadPlan(self._layout, limits)
        self._decoder = codec.ImageDecoder(self._addresses, self._layout.offsets)
        self._image = bytearray(self._layout.image_size)
        self._image_array = np.frombuffer(self._image, np.uint8)
        self._endpoint: Endpoint | None = None
        self._was_online = False
        self._next_latency = 0
        self._multiple_only: set[Table] = set()
        self._bits = BitWriter(self._ask)

    @classmethod
    def build(cls, device: str, settings: BaseModel, points: Sequence[DevicePoint], clock: DeviceClock) -> Self:
        """The plugin's factory: checks the types and does not connect.

        Raises:
            AddressError: a point's address is not a Modbus address, or needs more registers than ``max_block``.
        """
        if not isinstance(settings, ModbusSettings):
            raise AddressError(
                f"{device}: settings are {type(settings).__name__}, the Modbus driver needs ModbusSettings"
            )
        return cls(device, settings, points, clock)

    async def connect(self) -> None:
        """Connect to the endpoint, shared with every device at the same host and port or on the same serial line.

        Raises:
            NotConnectedError, AuthenticationError: no connection.
            AddressError: another device gets there in another way (TLS, framing, baud).
        """
        endpoint = self._endpoint or shared_endpoint(route_to(self.settings))
        self._endpoint = endpoint
        if endpoint.connected and self.health.state in (DeviceState.ONLINE, DeviceState.DEGRADED):
            return
        if not endpoint.connected:
            self.health.state = DeviceState.CONNECTING
        try:
            fresh = await endpoint.open(self, self.settings.window, self.settings.connect_timeout)
        except DriverError as error:
            self._failed(error)
            raise
        if fresh and self._was_online:
            self.health.reconnects += 1
        self._was_online = True
        self._plan.forget()
        self.health.state = DeviceState.DEGRADED if self._plan.quarantined else DeviceState.ONLINE
        log.debug("device connected", device=self.device, endpoint=endpoint.where, unit_id=self.settings.unit_id)

    async def close(self) -> None:
        """Leave the endpoint; its last user closes the socket. Never raises."""
        endpoint, self._endpoint = self._endpoint, None
        self.health.state = DeviceState.CLOSED
        if endpoint is not None:
            await endpoint.leave(self)

    async def poll(self) -> PollResult:
        """Read every point once. ``source_time`` is when the poll began: no value is older, and none claims to be
        newer.

        Raises:
            NotConnectedError, DeadlineError, DeviceRefusedError, ProtocolError: not one point could be read.
        """
        began = self.clock.utc()
        sweep = Sweep(self._plan, self._image, self._read)
        self.health.polls += 1
        try:
            await sweep.run(self.clock.monotonic())
        except DriverError as error:
            self.health.poll_errors += 1
            self._failed(error)
            raise
        self._report(sweep)
        return self._result(sweep, began)

    async def write(self, command: Command) -> None:
        """Write one command with the function that fits (5 or 6 for one coil or register, 22 for a bit of a register,
        15 or 16 otherwise). See the interface.
        """
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
        """Read one point by a request of its own; nothing of the last poll is used."""
        address = self._address(point)
        count = REGISTERS[address.type]
        request = pdu.read_request(address.table, address.number, count)
        probe = probe_of(address.table, address.number, count, self.settings.forbidden)
        reply = await self._ask(request, pdu.read_reply_length(address.table, count), probe)
        if reply[1] != len(reply) - 2:
            raise ProtocolError(f"{self.device}: {point}: answer says {reply[1]} bytes and brings {len(reply) - 2}")
        data = pdu.unpack_bits(reply[2:], count) if codec.is_bit_table(address) else reply[2:]
        return codec.decode(address, data)

    async def _write(self, point: str, value: float | None) -> None:
        address = self._address(point)
        if not (address.writable and self.points[self._index[point]].writable):
            raise NotWritableError(
                f"{self.device}: {point} is not writable ({address.table} {address.number}); see writable: in its file"
            )
        if value is None:
            raise NotWritableError(
                f"{self.device}: {point} cannot be relinquished: Modbus has no such thing; give it a fail_safe value"
            )
        if address.bit is not None:
            await self._bits.write(address, value, point)
            return
        data = codec.encode(address, value, point)
        table = address.table
        try:
            await self._send(address, data, multiple=table in self._multiple_only)
        except pdu.ModbusExceptionError as error:
            single = len(data) == codec.byte_width(address) == (1 if table == "coil" else 2)
            if error.code != pdu.ExceptionCode.ILLEGAL_FUNCTION or not single or table in self._multiple_only:
                raise
            # Some devices have only the multiple writes. Nothing was executed, so asking the other way is safe.
            await self._send(address, data, multiple=True)
            self._multiple_only.add(table)

    async def _send(self, address: ModbusAddress, data: bytes, *, multiple: bool) -> None:
        request = pdu.write_request(address.table, address.number, data, multiple=multiple)
        pdu.check_write_reply(request, await self._ask(request, pdu.WRITE_REPLY_LENGTH, read_of(address)))

    async def _ask(self, request: bytes, reply_length: int, probe: Probe | None) -> bytes:
        """One transaction ahead of the queue."""
        transaction = Transaction(self.settings.unit_id, request, reply_length, probe)
        await self._connected().exchange([transaction], self.settings.timeout, urgent=True)
        self._record(transaction)
        if transaction.reply is None:
            assert transaction.error is not None
            raise transaction.error
        return transaction.reply

    async def _read(self, blocks: Sequence[Block]) -> Sequence[Transaction]:
        unit = self.settings.unit_id
        transactions = [Transaction(unit, block.request, block.reply_length, block.probe) for block in blocks]
        await self._connected().exchange(transactions, self.settings.timeout)
        for transaction in transactions:
            self._record(transaction)
        return transactions

    def _connected(self) -> Endpoint:
        if self._endpoint is None:
            raise NotConnectedError(f"{self.device}: not connected to {self.settings.line[0]}; call connect first")
        return self._endpoint

    def _address(self, point: str) -> ModbusAddress:
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

    def _result(self, sweep: Sweep, began: float) -> PollResult:
        value = self._decoder.decode(self._image_array)
        reason = np.empty(len(value), np.uint8)
        reason[self._order] = sweep.reasons
        reason[(reason == Reason.OK) & ~np.isfinite(value)] = Reason.NOT_A_NUMBER
        good = reason == Reason.OK
        value[~good] = np.nan
        quality = np.where(good, np.uint8(Quality.GOOD), np.uint8(Quality.BAD))
        return PollResult(value, quality, reason, np.full(len(value), began))

    def _report(self, sweep: Sweep) -> None:
        health = self.health
        health.last_good = self.clock.monotonic()
        if sweep.refused or sweep.released:
            for positions, error in sweep.refused:
                log.warning(
                    "points quarantined",
                    device=self.device,
                    count=len(positions),
                    points=self._names(positions),
                    why=str(error),
                )
            if sweep.released:
                log.info(
                    "points back from quarantine",
                    device=self.device,
                    count=len(sweep.released),
                    points=self._names(sweep.released),
                )
            health.quarantined = tuple(sorted(self.points[self._layout.order[k]].name for k in self._plan.quarantined))
        whole = bool((sweep.reasons == Reason.OK).all())
        health.state = DeviceState.ONLINE if whole else DeviceState.DEGRADED
        health.detail = "" if whole or sweep.error is None else str(sweep.error)
        if sweep.error is not None:
            health.last_error = str(sweep.error)

    def _names(self, positions: Sequence[int]) -> str:
        named = [
            f"{self.points[k].name} ({self._addresses[k].table} {self._addresses[k].number})"
            for k in self._first(positions)
        ]
        return ", ".join(named) + (f" and {len(positions) - len(named)} more" if len(positions) > len(named) else "")

    def _first(self, positions: Sequence[int]) -> list[int]:
        return [self._layout.order[position] for position in positions[:NAMES_LOGGED]]

    def _failed(self, error: DriverError) -> None:
        # Not logged here: the caller, which knows whether it is the first failure in a row, does.
        self.health.state = DeviceState.BACKOFF
        self.health.detail = self.health.last_error = str(error)


def _address_of(point: DevicePoint, settings: ModbusSettings) -> ModbusAddress:
    address = point.address
    if not isinstance(address, ModbusAddress):
        raise AddressError(f"{point.name}: {type(address).__name__} is not a Modbus address")
    if REGISTERS[address.type] > settings.max_block:
        raise AddressError(
            f"{point.name}: {address.type} takes {REGISTERS[address.type]} registers, more than "
            f"max_block: {settings.max_block}; a value is never split, because its halves could be of two moments"
        )
    end = address.number + REGISTERS[address.type]
    if settings.forbidden.touches(address.table, address.number, end):
        raise AddressError(
            f"{point.name}: {address.table} {address.number} is forbidden on this device; "
            "remove the point, or correct forbidden:"
        )
    return address
