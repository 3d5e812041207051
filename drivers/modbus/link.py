"""One TCP connection to a Modbus server: matches answers to questions and keeps every transaction inside its deadline.

Answers are matched by transaction id, unit and function. The id of a question that was given up is remembered, so
that its late answer is recognised and thrown away; an answer that nobody asked for ends the connection, because then
nothing on it can be trusted.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections import deque
from typing import Final

from drivers.errors import AuthenticationError, DriverError, NotConnectedError, ProtocolError
from drivers.modbus.mbap import MbapProtocol, frame
from drivers.modbus.pdu import ERROR_FLAG, ModbusExceptionError
from drivers.modbus.transaction import Batch, Transaction

SILENT_AFTER: Final = 2
"""Deadlines missed in a row, with no answer between, after which the connection counts as dead and is dropped. Where
several units share it, at least two of them must be silent: one dead unit behind a gateway is not a dead gateway.
"""
ABANDONED_KEPT: Final = 64
"""How many given-up transaction ids are remembered. An answer to an older one ends the connection: safe too."""
_QUICK_ACK: Final[int | None] = getattr(socket, "TCP_QUICKACK", None)
"""Linux only; elsewhere the last answers of a window come late, but they come."""


class Link(MbapProtocol):
    """The client's end of one connection. Lives in one event loop; once ``alive`` is False it stays so."""

    def __init__(self, where: str, loop: asyncio.AbstractEventLoop, *, secure: bool = False) -> None:
        """``secure``: inside TLS."""
        super().__init__()
        self.where = where
        self.secure = secure
        self.window = 1
        self.shared = False
        """Whether more than one device uses the connection."""
        self.late_replies = 0
        self.closed: asyncio.Future[None] = loop.create_future()
        self._loop = loop
        self._batches: deque[Batch] = deque()
        self._in_flight: dict[int, Transaction] = {}
        self._abandoned: dict[int, None] = {}
        self._next_id = 0
        self._unanswered = 0
        self._silent_units: set[int] = set()
        self._timer: asyncio.TimerHandle | None = None

    @property
    def alive(self) -> bool:
        """Whether requests can be sent."""
        return self.transport is not None

    def submit(self, batch: Batch, *, urgent: bool = False) -> None:
        """Queue a batch. Batches take turns, request by request; an urgent one goes first. Never blocks; see
        ``batch.done``.
        """
        if self.transport is None:
            batch.fail_waiting(NotConnectedError(f"{self.where}: the connection is closed"))
            return
        if urgent:
            self._batches.appendleft(batch)
        else:
            self._batches.append(batch)
        self._pump()

    def abandon(self, batch: Batch) -> None:
        """Forget a batch whose caller was cancelled. What is in flight stays known by its id until its answer has
        come.
        """
        batch.waiting.clear()
        for number in [number for number, transaction in self._in_flight.items() if transaction.batch is batch]:
            self._give_up(number)
        self._pump()

    def drop(self, error: DriverError) -> None:
        """End the connection at once. ``error`` is what every transaction in flight or waiting ends with."""
        transport, self.transport = self.transport, None
        if transport is None:
            return
        transport.abort()
        if self._timer is not None:
            self._timer.cancel()
        in_flight, self._in_flight = self._in_flight, {}
        for transaction in in_flight.values():
            transaction.batch.failed(transaction, error)
        while self._batches:
            self._batches.popleft().fail_waiting(error)

    async def close(self) -> None:
        """End the connection and wait until the socket is gone. Never raises; never waits long."""
        self.drop(NotConnectedError(f"{self.where}: the connection was closed"))
        await asyncio.wait([self.closed], timeout=1.0)

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by the event loop."""
        reason = str(exc) if exc is not None else "closed by the device"
        # In TLS 1.3 the device judges our certificate after we count as connected: with an alert, or by hanging up.
        if isinstance(exc, ssl.SSLError):
            self.drop(
                AuthenticationError(
                    f"{self.where}: the device ended TLS ({reason}); check that it trusts our certificate"
                )
            )
        check = "the device and its connection limit"
        if self.secure:
            check += ", and that it trusts our certificate"
        self.drop(NotConnectedError(f"{self.where}: connection lost ({reason}); check {check}"))
        if not self.closed.done():
            self.closed.set_result(None)

    def framing_error(self, message: str) -> None:
        """Called by the framing."""
        self.drop(ProtocolError(f"{self.where}: {message}; check that this port speaks Modbus TCP"))

    def frame_received(self, transaction: int, unit: int, pdu: bytes) -> None:
        """Called by the framing: find the question to this answer."""
        question = self._in_flight.pop(transaction, None)
        if question is None:
            if transaction in self._abandoned:
                del self._abandoned[transaction]
                self._heard()
                self.late_replies += 1
                return
            self.drop(
                ProtocolError(
                    f"{self.where}: answer to transaction {transaction}, which nobody asked; connection dropped"
                )
            )
            return
        asked = question.pdu[0]
        if unit != question.unit or pdu[0] & ~ERROR_FLAG != asked:
            self._in_flight[transaction] = question
            self.drop(
                ProtocolError(
                    f"{self.where}: asked unit {question.unit} function {asked}, "
                    f"answer from unit {unit} function {pdu[0]}; connection dropped"
                )
            )
            return
        self._heard()
        assert question.sent is not None
        question.latency_s = self._loop.time() - question.sent
        if pdu[0] & ERROR_FLAG and len(pdu) == 2:
            question.error = ModbusExceptionError(f"{self.where} unit {unit}", pdu[1])
        elif pdu[0] & ERROR_FLAG or len(pdu) != question.reply_length:
            question.error = ProtocolError(
                f"{self.where} unit {unit}: answer of {len(pdu)} bytes, must be {question.reply_length}"
            )
        else:
            question.reply = pdu
        question.batch.answered()

    def frames_done(self) -> None:
        """Called by the framing: all answers of one read are in, so send as many new questions in one write."""
        self._pump()
        if self._in_flight and not self._batches:
            self._acknowledge_now()

    def _acknowledge_now(self) -> None:
        # Most servers hold back a second small reply until the first is acknowledged (Nagle's algorithm). While there
        # are more questions they carry the acknowledgement; after the last one the kernel would delay it by 40 ms.
        if self.transport is not None and _QUICK_ACK is not None:
            self.transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, _QUICK_ACK, 1)

    def _pump(self) -> None:
        if self.transport is None:
            return
        batches, in_flight = self._batches, self._in_flight
        frames: list[bytes] = []
        now = self._loop.time()
        while batches and len(in_flight) < self.window:
            batch = batches[0]
            if not batch.waiting:
                batches.popleft()
                continue
            question = batch.waiting.popleft()
            batches.rotate(-1)
            number = self._take_id()
            question.sent = now
            question.deadline = now + batch.timeout_s
            in_flight[number] = question
            frames.append(frame(number, question.unit, question.pdu))
        if frames:
            self.transport.write(b"".join(frames))
            self._arm()

    def _arm(self) -> None:
        # The timer may fire early, for a question already answered: moving it at every answer would cost more than
        # that.
        due = min(question.deadline for question in self._in_flight.values())
        if self._timer is not None:
            if self._timer.when() <= due:
                return
            self._timer.cancel()
        self._timer = self._loop.call_at(due, self._expire)

    def _give_up(self, number: int) -> None:
        del self._in_flight[number]
        self._abandoned[number] = None
        if len(self._abandoned) > ABANDONED_KEPT:
            del self._abandoned[next(iter(self._abandoned))]

    def _take_id(self) -> int:
        # An id is not used again while its late answer may still come.
        while True:
            self._next_id = (self._next_id + 1) & 0xFFFF
            if self._next_id not in self._in_flight and self._next_id not in self._abandoned:
                return self._next_id

    def _heard(self) -> None:
        self._unanswered = 0
        self._silent_units.clear()

    def _expire(self) -> None:
        self._timer = None
        now = self._loop.time()
        missed = False
        for number, question in list(self._in_flight.items()):
            if question.deadline <= now:
                self._give_up(number)
                self._unanswered += 1
                self._silent_units.add(question.unit)
                question.batch.timed_out(question, f"{self.where} unit {question.unit}")
                missed = True
        if missed and self.mid_frame:
            # The rest of that answer may never come, and what comes next would be cut in the wrong place.
            self.drop(NotConnectedError(f"{self.where}: an answer broke off in the middle; connection dropped"))
            return
        if self._unanswered >= SILENT_AFTER and (not self.shared or len(self._silent_units) > 1):
            self.drop(
                NotConnectedError(
                    f"{self.where}: {self._unanswered} requests in a row had no answer; connection dropped"
                )
            )
            return
        self._pump()
        if self._in_flight:
            self._arm()
