"""One poll over the wire: sends every request, asks smaller where the device refuses, and fills the image.

A poll has a budget of extra requests, so that a device with many oddities is sorted out over several polls instead of
being flooded; what the budget leaves open is bad in this poll and asked in the next.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from drivers.bacnet import services, tags
from drivers.bacnet.apdu import Kind, RefusalError, Service
from drivers.bacnet.image import FAULT, OUT_OF_SERVICE, UNKNOWN, Image
from drivers.bacnet.names import OUT_OF_SERVICE as OUT_OF_SERVICE_PROPERTY
from drivers.bacnet.names import STATUS_FLAGS, UNKNOWN_OBJECT, error_name, object_name, property_name
from drivers.bacnet.planner import STRIKES, Plan, Query, Status
from drivers.bacnet.services import Result
from drivers.bacnet.shapes import Shape, Slot
from drivers.bacnet.tags import MalformedError
from drivers.bacnet.transaction import Transaction
from drivers.errors import DeadlineError, DriverError, NotConnectedError
from safety.values import Reason

EXTRA_REQUESTS: Final = 64

Ask = Callable[[Sequence[Transaction]], Awaitable[None]]
"""Sends all and waits until each has ended. Raises NotConnectedError when there is no port."""


class Sweep:
    """One poll. After :meth:`run`, ``image`` holds what the device said."""

    def __init__(self, plan: Plan, image: Image, ask: Ask) -> None:
        self.image = image
        self.error: DriverError | None = None
        """The first failure, whatever came of it."""
        self.quarantined: list[tuple[int, DriverError]] = []
        """Objects newly left alone."""
        self.released: list[int] = []
        self._plan = plan
        self._layout = plan.layout
        self._ask = ask
        self._answered = False
        self._failed: list[tuple[Query, DriverError]] = []
        image.flags[:] = plan.unasked_flags
        self._parts: dict[int, int] = {}
        self._parts_missing: dict[int, int] = {}

    async def run(self, now: float, queries: Sequence[Query]) -> None:
        """Send ``queries`` and what is due of the quarantined objects; ``now`` in control seconds.

        Raises:
            DriverError: nothing at all could be read. Then nothing is learnt either.
        """
        plan = self._plan
        pending = [*queries, *plan.due_retries(now)]
        budget = EXTRA_REQUESTS
        while pending:
            transactions = [Transaction(query.service, query.body) for query in pending]
            try:
                await self._ask(transactions)
            except NotConnectedError as closed:
                self._note(closed)
                break
            again: list[Query] = []
            for query, transaction in zip(pending, transactions, strict=True):
                again += self._ended(query, transaction)
                query.read_at = now
            pending, budget = again[:budget], budget - len(again[:budget])
        if self.error is not None and not self._answered:
            raise self.error
        for query, error in self._failed:
            self._strike(query, error, now)

    def _ended(self, query: Query, transaction: Transaction) -> list[Query]:
        """Take one answer; returns the requests to send in its place."""
        error = transaction.error or self._accept(query, transaction)
        if error is None:
            return []
        if isinstance(error, RefusalError):
            return self._refused(query, error)
        self._note(error)
        reason = (
            Reason.DEVICE_UNREACHABLE if isinstance(error, (DeadlineError, NotConnectedError)) else Reason.DECODE_ERROR
        )
        for (_object, prop), position in query.expected.items():
            for point in self._layout.targets.get((position, prop), ()):
                self.image.reason[point] = reason
        if transaction.sent is not None:
            self._failed.append((query, error))
        return []

    def _refused(self, query: Query, error: RefusalError) -> list[Query]:
        plan = self._plan
        if query.service is Service.READ:
            ((target, prop),) = query.expected
            refusal = (error.error_class, error.code) if error.kind == Kind.ERROR else (0, 0)
            self._answered = True
            self._store(query, [Result(target, prop, None, (), refusal)], b"", str(error))
            return []
        self._note(error)
        if error.no_service and plan.multiple:
            plan.no_multiple()
        elif error.too_much and len(query.objects) > 1:
            plan.shrink(len(query.objects))
        else:
            plan.divide(query)
        return plan.requests(query.objects)

    def _accept(self, query: Query, transaction: Transaction) -> MalformedError | None:
        reply = transaction.reply
        assert reply is not None
        if query.shape is None or not query.shape.read(reply, self.image):
            try:
                query.shape = self._parse(query, reply)
            except MalformedError as error:
                return error
        self._answered = True
        query.strikes = 0
        if self._plan.quarantined:
            self.released += [position for position in query.objects if self._plan.release(position)]
        return None

    def _parse(self, query: Query, reply: bytes) -> Shape | None:
        if query.service is Service.READ:
            results = [services.read_answer(reply)]
        else:
            results = services.read_multiple_answer(reply)
        asked = {(result.object, result.property) for result in results}
        if asked - query.expected.keys() or len(asked) != len(results) or any(r.element is not None for r in results):
            raise MalformedError("the answer is about something that was not asked")
        return self._store(query, results, reply)

    def _store(self, query: Query, results: Sequence[Result], reply: bytes, why: str = "") -> Shape | None:
        """Put checked results into the image; returns their shape, or None while their status is being sorted out."""
        image, layout, refused = self.image, self._layout, self._plan.refused
        slots: list[Slot] = []
        flag_bytes: list[tuple[int, int]] = []
        unread: list[tuple[int, Reason]] = []
        settled = len(results) == len(query.expected) and bool(reply)
        for result in results:
            position = query.expected[(result.object, result.property)]
            points = layout.targets.get((position, result.property), ())
            value = result.values[0] if len(result.values) == 1 else None
            if value is not None and value.tag in tags.NUMBERS:
                slots.append(Slot(value, points))
                for point in points:
                    image.value[point] = value.number
                    image.reason[point] = Reason.OK
                    refused.pop(point, None)
            else:
                reason = Reason.DECODE_ERROR if result.error is None else Reason.DEVICE_ERROR
                for point in points:
                    unread.append((point, reason))
                    image.reason[point] = reason
                    refused[point] = why or _problem(result)
            if result.property not in self._plan.status[position].value:
                continue
            if result.property == STATUS_FLAGS:
                settled &= self._flags(result, position, reply, flag_bytes)
            else:
                settled = False
                self._part(result, position)
        return Shape(reply, slots, flag_bytes, unread) if settled else None

    def _flags(self, result: Result, position: int, reply: bytes, flag_bytes: list[tuple[int, int]]) -> bool:
        """Note an object's status flags; False if there are none."""
        at = tags.status_byte(reply, result.values)
        self.image.flags[position] = UNKNOWN if at is None else reply[at]
        if at is not None:
            flag_bytes.append((at, position))
        elif result.error is not None and result.error[1] != UNKNOWN_OBJECT:
            self._plan.ask_status(position, Status.PARTS)
        return at is not None

    def _part(self, result: Result, position: int) -> None:
        """Note one of the two properties that tell the status of an object without status flags."""
        known = self._parts.get(position, UNKNOWN)
        if result.error is not None:
            self._parts_missing[position] = self._parts_missing.get(position, 0) + 1
            if self._parts_missing[position] == len(Status.PARTS.value):
                self._plan.ask_status(position, Status.NONE)
        elif len(result.values) == 1 and result.values[0].tag in tags.NUMBERS:
            flag = OUT_OF_SERVICE if result.property == OUT_OF_SERVICE_PROPERTY else FAULT
            known = known & ~UNKNOWN | (flag if result.values[0].number else 0)
        self._parts[position] = self.image.flags[position] = known

    def _strike(self, query: Query, error: DriverError, now: float) -> None:
        """The device answers others, but not this request: ask in smaller parts, and in the end not at all."""
        position = query.objects[0]
        query.strikes += 1
        if position not in self._plan.quarantined:
            if query.strikes < STRIKES:
                return
            if self._plan.divide(query):
                return
        if self._plan.quarantine(position, now):
            self.quarantined.append((position, error))

    def _note(self, error: DriverError) -> None:
        self.error = self.error or error


def _problem(result: Result) -> str:
    where = f"{object_name(*result.object)} {property_name(result.property)}"
    if result.error is not None:
        return f"{where}: {error_name(*result.error)}"
    if len(result.values) == 1 and result.values[0].tag == tags.NULL:
        return f"{where}: no value (NULL)"
    return f"{where} is not a number"
