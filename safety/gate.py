"""The gate: the only maker of commands, and the order in which a write happens.

    check (default deny) → journal what the point holds, on the disk → write → read back → watch

Before the first write frame to a point, what it holds is read and made durable; if it cannot be read, its fail-safe
value is what will be restored. Every write ends in exactly one ``WriteOutcome``. Nothing here retries: the next scan
writes again.

``values.Command`` is sealed against mistakes (constructor, copy, pickle, subclass, assignment), not against hostile
code in the process: whoever calls ``object.__setattr__`` can forge anything in Python. Site code therefore runs in
another process. Standard library only.
"""

from __future__ import annotations

import asyncio
import itertools
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Protocol, final

from safety.envelope import Envelope
from safety.errors import DeniedError, LimitError, NoEnvelopeError, PriorityError, RelinquishError, StoreError
from safety.journal import Held, Journal
from safety.values import Command, PortError, WriteOutcome, WriteResult, take_command_factory

_make_command: Final = take_command_factory()

WATCH_POLLS: Final = 3
"""Consecutive polls that must differ before a point counts as overridden: the first may have been on its way before the
write.
"""
_SINGLE_EPSILON: Final = 2.0**-22
"""Devices keep values as 32-bit floats: 24 bits of mantissa, and two lost to scaling."""
_SPAN_FRACTION: Final = 1e-6
HALF_STEP: Final = 0.500_001
"""A device that keeps integers is sent the nearest step: what it shows lies at most half a step away, and a hair for rounding."""


class WritePort(Protocol):
    """The part of a driver that the gate uses. Expected failures are ``PortError`` or OSError."""

    async def write(self, command: Command) -> None:
        """Send, and wait for the acknowledgement."""

    async def read_back(self, point: str) -> float:
        """The point's present value in its unit, past any cache."""

    def can_relinquish(self, point: str) -> bool:
        """Whether writing None hands the point back to the equipment's own logic."""


@final
@dataclass(frozen=True, slots=True)
class Route:
    """Where a writable point lives, as the journal must know it to give it back in another process.

    ``resolution`` is the smallest step the device can hold, in the point's unit (the scale of an integer register; 0
    for a float).
    """

    device: str
    protocol: str
    settings_json: str
    address_json: str
    priority: int | None = None
    read_back: bool = True
    resolution: float = 0.0


@dataclass(slots=True)
class _Watch:
    """A written value under observation."""

    expected: float
    differing: int = 0
    overridden: bool = False


@final
class Gate:
    """The gate of one process. All methods are called from the event loop; what must reach the disk does so in a
    thread.
    """

    def __init__(self, envelopes: Mapping[str, Envelope], routes: Mapping[str, Route], journal: Journal) -> None:
        """``envelopes`` and ``routes`` by full point name; they are copied, so nothing can be added later.

        Raises:
            PriorityError: a route writes at a priority that is not ours.
        """
        self._envelopes = dict(envelopes)
        self._routes = dict(routes)
        self._journal = journal
        self._sequence = itertools.count(1)
        self._locks: dict[str, asyncio.Lock] = {}
        self._watches: dict[str, _Watch] = {}
        for name, route in self._routes.items():
            _check_priority(name, route.priority)

    def admit(self, point: str, value: float | None, priority: int | None = None) -> Command:
        """Check, and make the command. ``value`` in the point's unit, None = relinquish; ``priority`` None = the
        route's.

        Raises:
            NoEnvelopeError: default deny.
            LimitError: not finite, outside the limits, or not one of the allowed values.
            RelinquishError: the point's fail-safe is a value, so it is never handed back while it is controlled.
            PriorityError: 1 to 8, or not a priority.
        """
        envelope, route = self._envelopes.get(point), self._routes.get(point)
        if envelope is None or route is None:
            raise NoEnvelopeError(f"{point} may not be written: it has no envelope; declare it under outputs")
        priority = route.priority if priority is None else priority
        _check_priority(point, priority)
        if value is None:
            if envelope.fail_safe is not None:
                raise RelinquishError(f"{point} may not be relinquished: its fail_safe is {envelope.fail_safe:g}")
        elif not envelope.permits(value):
            raise LimitError(
                f"{point} may not be {value:g}: limits [{envelope.low:g}, {envelope.high:g}], "
                f"allowed {_allowed(envelope)}"
            )
        return _make_command(point, None if value is None else float(value), priority, next(self._sequence))

    async def hold(self, ports: Mapping[str, WritePort]) -> None:
        """Journal the points of a scan before they are first written: one read each, one fsync for all. Held points
        cost nothing.

        Raises:
            NoEnvelopeError: a point without an envelope.
            StoreError: the journal cannot record; nothing may be written then.
        """
        fresh = [point for point in ports if not self._journal.is_held(point)]
        for point in fresh:
            if point not in self._envelopes or point not in self._routes:
                raise NoEnvelopeError(f"{point} may not be held: it has no envelope; declare it under outputs")
        if fresh:
            entries = await asyncio.gather(*(self._entry(point, ports[point]) for point in fresh))
            await asyncio.to_thread(self._journal.hold_many, entries)

    async def write(self, port: WritePort, point: str, value: float | None, priority: int | None = None) -> WriteResult:
        """The whole order of a write. Writes to one point queue up in the order of the calls.

        Never raises for a refusal, a dead device or a full disk: those are outcomes.
        """
        started = time.perf_counter()
        async with self._locks.setdefault(point, asyncio.Lock()) if point in self._envelopes else asyncio.Lock():
            try:
                command = self.admit(point, value, priority)
                if value is None and not port.can_relinquish(point):
                    return await self._restore(port, point, started)
                if value is not None:
                    await self.hold({point: port})
            except (DeniedError, StoreError) as error:
                return _result(started, point, value, WriteOutcome.DENIED, str(error))
            return await self._send(port, command, started)

    async def release(self, port: WritePort, held: Held) -> WriteResult:
        """Give a held point back, and strike it from the journal once the device has acknowledged."""
        started = time.perf_counter()
        async with self._locks.setdefault(held.point, asyncio.Lock()):
            try:
                command = self.release_command(held)
            except DeniedError as error:
                return _result(started, held.point, None, WriteOutcome.DENIED, str(error))
            return await self._give_back(port, command, started)

    def release_command(self, held: Held) -> Command:
        """The command that gives a held point back. What it held before us is restored as it was, inside our envelope
        or not.

        Raises:
            RelinquishError: the entry has no way back, or its value is not finite.
            PriorityError: the entry's priority was never ours.
        """
        _check_priority(held.point, held.priority)
        if held.can_relinquish:
            return _make_command(held.point, None, held.priority, next(self._sequence))
        if held.before is None or not math.isfinite(held.before):
            raise RelinquishError(
                f"{held.point} cannot be restored: the journal has {held.before}; bring it to a safe state by hand"
            )
        return _make_command(held.point, held.before, held.priority, next(self._sequence))

    def observe(self, point: str, polled: float) -> WriteOutcome | None:
        """Compare a polled value with what was last written. Returns an outcome only when it changes: OVERRIDDEN after
        ``WATCH_POLLS`` polls in a row that differ, HELD when the value is ours again. An unreadable poll (NaN) says
        nothing.
        """
        watch = self._watches.get(point)
        if watch is None or not math.isfinite(polled):
            return None
        if self._same(point, polled, watch.expected):
            watch.differing = 0
            if watch.overridden:
                watch.overridden = False
                return WriteOutcome.HELD
            return None
        watch.differing = min(watch.differing + 1, WATCH_POLLS)
        if watch.differing < WATCH_POLLS or watch.overridden:
            return None
        watch.overridden = True
        return WriteOutcome.OVERRIDDEN

    async def _entry(self, point: str, port: WritePort) -> Held:
        envelope, route = self._envelopes[point], self._routes[point]
        try:
            found = await port.read_back(point)
        except (PortError, OSError):
            found = math.nan
        before = found if math.isfinite(found) else envelope.fail_safe
        return Held(
            point,
            device=route.device,
            protocol=route.protocol,
            settings_json=route.settings_json,
            address_json=route.address_json,
            before=before,
            can_relinquish=port.can_relinquish(point),
            priority=route.priority,
        )

    async def _send(self, port: WritePort, command: Command, started: float) -> WriteResult:
        point, value = command.point, command.value
        if value is None:
            return await self._give_back(port, command, started)
        try:
            await port.write(command)
        except (PortError, OSError) as error:
            return _failed(started, point, value, error)
        overridden = point in self._watches and self._watches[point].overridden
        self._watches[point] = _Watch(value, overridden=overridden)
        if not self._routes[point].read_back:
            return _result(started, point, value, WriteOutcome.ACKNOWLEDGED, "acknowledged; not read back")
        try:
            found = await port.read_back(point)
        except (PortError, OSError) as error:
            return _result(
                started, point, value, WriteOutcome.ACKNOWLEDGED, f"acknowledged; reading back failed: {error}"
            )
        if self._same(point, found, value):
            self._watches[point].overridden = False
            return _result(started, point, value, WriteOutcome.HELD, "read back as sent", found)
        return _result(
            started, point, value, WriteOutcome.OVERRIDDEN, f"acknowledged, but the point reads {found:g}", found
        )

    async def _restore(self, port: WritePort, point: str, started: float) -> WriteResult:
        """Relinquish on a protocol that cannot: put back what was there before us."""
        held = self._journal.get(point)
        if held is None:
            return _result(
                started, point, None, WriteOutcome.ACKNOWLEDGED, "nothing held: there is nothing to give back"
            )
        return await self._give_back(port, self.release_command(held), started)

    async def _give_back(self, port: WritePort, command: Command, started: float) -> WriteResult:
        point = command.point
        self._watches.pop(point, None)
        try:
            await port.write(command)
        except (PortError, OSError) as error:
            return _failed(started, point, command.value, error)
        try:
            await asyncio.to_thread(self._journal.released, point)
        except StoreError as error:
            return _result(
                started,
                point,
                command.value,
                WriteOutcome.ACKNOWLEDGED,
                f"given back, but still in the journal: {error}",
            )
        return _result(started, point, command.value, WriteOutcome.ACKNOWLEDGED, "given back")

    def _same(self, point: str, found: float, sent: float) -> bool:
        envelope = self._envelopes[point]
        span = envelope.high - envelope.low
        tolerance = max(HALF_STEP * self._routes[point].resolution, _SPAN_FRACTION * span, _SINGLE_EPSILON * abs(sent))
        return abs(found - sent) <= tolerance


def _check_priority(point: str, priority: int | None) -> None:
    if priority is not None and not 9 <= priority <= 16:
        raise PriorityError(
            f"{point} may not be written at priority {priority}: 1 to 8 belong to people and life safety; use 9 to 16"
        )


def _allowed(envelope: Envelope) -> str:
    return "any" if envelope.allowed is None else ", ".join(f"{one:g}" for one in envelope.allowed)


def _failed(started: float, point: str, value: float | None, error: Exception) -> WriteResult:
    outcome = error.outcome if isinstance(error, PortError) else WriteOutcome.UNREACHABLE
    return _result(started, point, value, outcome, f"{type(error).__name__}: {error}")


def _result(
    started: float, point: str, value: float | None, outcome: WriteOutcome, detail: str, found: float | None = None
) -> WriteResult:
    return WriteResult(point, outcome, value, found, detail, time.perf_counter() - started)
