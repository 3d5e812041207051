"""One device as seen from one UDP port of ours: matches answers to requests, sends again, keeps every deadline.

UDP has no connection, so that a late answer cannot be avoided, only recognised: the invoke id of a request that was
given up, or sent twice, is not used again while a second answer may be on its way; an answer to an id that is not in
flight, from another address, or of another service is dropped and counted.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

from drivers.bacnet import apdu
from drivers.bacnet.apdu import Answer, Kind
from drivers.bacnet.frames import UNICAST, Station, bvlc, npdu_to
from drivers.bacnet.transaction import Batch, Transaction
from drivers.errors import DeadlineError, DriverError, NotConnectedError, ProtocolError

LATE_S: Final = 60.0
"""How long the invoke id of an unanswered request is not used again."""
INVOKE_IDS: Final = 256
MOST_RESTING: Final = 192
"""How many ids may rest at once; beyond that the oldest is used again, for a device that answers nothing for long."""


class Peer:
    """Requests to one device. Lives in one event loop, on one port."""

    def __init__(
        self, station: Station, where: str, send: Callable[[bytes], None], loop: asyncio.AbstractEventLoop
    ) -> None:
        self.station = station
        self.where = where
        self.window = 1
        self.timeout_s = 1.0
        self.retries = 0
        self.late_replies = 0
        """Answers that nobody waited for any more, or never did."""
        self._send = send
        self._loop = loop
        self._request_npdu = npdu_to(station, expecting_reply=True)
        self._reply_npdu = npdu_to(station, expecting_reply=False)
        self._batches: deque[Batch] = deque()
        self._in_flight: dict[int, Transaction] = {}
        self._resting: dict[int, float] = {}
        # A first id by chance: a device may still remember the ids of the process before us, and answer nothing twice.
        self._next_id = random.randrange(INVOKE_IDS)  # noqa: S311
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False

    async def exchange(self, transactions: Sequence[Transaction], *, urgent: bool = False) -> None:
        """Send all, wait until each has its reply or its error. An urgent batch goes ahead of those that wait.

        Raises:
            NotConnectedError: the port is closed; nothing was sent.
        """
        if self._closed:
            raise NotConnectedError(f"{self.where}: the local port is closed; connect first")
        if not transactions:
            return
        batch = Batch(transactions, self._loop)
        if urgent:
            self._batches.appendleft(batch)
        else:
            self._batches.append(batch)
        self._pump()
        try:
            await batch.done
        except asyncio.CancelledError:
            self._abandon(batch)
            raise

    def answered(self, answer: Answer) -> None:
        """Called by the port for every answer from this device."""
        question = self._in_flight.get(answer.invoke_id)
        if question is None or answer.service not in (question.service, -1):
            self.late_replies += 1
            return
        error: DriverError | None = None
        if answer.segmented:
            self.send_reply(apdu.abort(answer.invoke_id, apdu.ABORT_SEGMENTATION))
        if answer.kind != question.answer or answer.segmented:
            error = (
                ProtocolError(f"{self.where}: acknowledged with {answer.kind.name}, must be {question.answer.name}")
                if answer.kind in (Kind.SIMPLE_ACK, Kind.COMPLEX_ACK) and not answer.segmented
                else apdu.refusal(self.where, answer)
            )
            if error is None:
                error = ProtocolError(f"{self.where}: an Error without class and code")
        else:
            question.reply = answer.payload
        self._end(answer.invoke_id)
        assert question.sent is not None
        question.latency_s = self._loop.time() - question.sent
        question.error = error
        question.batch.answered()
        self._pump()

    def acknowledge(self, invoke_id: int, service: int) -> None:
        """Say that a confirmed notification of the device has arrived."""
        self.send_reply(apdu.simple_ack(invoke_id, service))

    def fail_all(self, error: DriverError) -> None:
        """End everything in flight or waiting: the device cannot be reached at all."""
        in_flight, self._in_flight = self._in_flight, {}
        for number, question in in_flight.items():
            self._rest(number)
            question.batch.failed(question, error)
        while self._batches:
            self._batches.popleft().fail_waiting(error)

    def close(self) -> None:
        """End everything, for good."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        self.fail_all(NotConnectedError(f"{self.where}: the local port was closed"))

    def send_reply(self, reply: bytes) -> None:
        """Send an APDU that wants no answer: an acknowledgement, a Reject, an Abort."""
        self._send(bvlc(UNICAST, self._reply_npdu + reply))

    def _pump(self) -> None:
        batches = self._batches
        while batches and len(self._in_flight) < self.window:
            batch = batches[0]
            if not batch.waiting:
                batches.popleft()
                continue
            question = batch.waiting.popleft()
            batches.rotate(-1)
            number = self._take_id()
            self._in_flight[number] = question
            question.sent = self._loop.time()
            self._transmit(number, question)

    def _transmit(self, number: int, question: Transaction) -> None:
        question.due = self._loop.time() + self.timeout_s
        header = self._request_npdu + apdu.REQUEST + bytes((number, question.service))
        self._send(bvlc(UNICAST, header + question.body))
        self._arm(question.due)

    def _arm(self, due: float) -> None:
        # The timer may fire early, for a request already answered: moving it at every answer would cost more.
        if self._timer is None:
            self._timer = self._loop.call_at(due, self._expire)

    def _expire(self) -> None:
        self._timer = None
        now = self._loop.time()
        for number, question in list(self._in_flight.items()):
            if question.due > now:
                continue
            if question.resent < self.retries:
                question.resent += 1
                self._transmit(number, question)
                continue
            self._end(number)
            self._rest(number)
            waited = self.timeout_s * (self.retries + 1)
            question.batch.timed_out(
                question,
                DeadlineError(f"{self.where} did not answer within {waited:g} s: check power, network and address"),
            )
        self._pump()
        if self._in_flight:
            self._arm(min(question.due for question in self._in_flight.values()))

    def _abandon(self, batch: Batch) -> None:
        batch.waiting.clear()
        for number in [number for number, question in self._in_flight.items() if question.batch is batch]:
            self._end(number)
            self._rest(number)
        self._pump()

    def _end(self, number: int) -> None:
        question = self._in_flight.pop(number)
        if question.resent:
            self._rest(number)

    def _rest(self, number: int) -> None:
        self._resting.pop(number, None)
        self._resting[number] = self._loop.time() + LATE_S
        if len(self._resting) > MOST_RESTING:
            del self._resting[next(iter(self._resting))]

    def _take_id(self) -> int:
        while True:
            self._next_id = (self._next_id + 1) % INVOKE_IDS
            until = self._resting.get(self._next_id)
            if until is not None and until <= self._loop.time():
                del self._resting[self._next_id]
                until = None
            if until is None and self._next_id not in self._in_flight:
                return self._next_id
