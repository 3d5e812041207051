"""The master of one RTU line: one question at a time to many slaves, each inside its deadline, none mistaken.

Batches take turns, question by question; urgent ones (writes) go first. A silent slave costs its own deadline and is
then asked less often. After silence or noise the line is left quiet before the next question, and a slave whose answer
is still missing is asked nothing that the late answer could be taken for (see ``slaves``).
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Final, cast

from drivers.errors import DeadlineError, DriverError, NotConnectedError, ProtocolError
from drivers.modbus.pdu import ERROR_FLAG, READ, ModbusExceptionError
from drivers.modbus.rtu import MAX_ADU, Expected, find_reply, frame
from drivers.modbus.serial_setup import Timing
from drivers.modbus.slaves import Slave, Slaves
from drivers.modbus.transaction import Batch, Transaction

SILENT_AFTER: Final = 2
"""Deadlines missed in a row after which a connection to a serial server counts as dead, as in ``link``."""
BROKEN_FROM: Final = 4
"""Bytes that count as a broken answer; fewer are a glitch, such as a transceiver makes when it is switched on."""
BABBLE_S: Final = 1.0
"""A line that is not quiet for this long serves nobody: what waits is failed."""
_HEARD_KEPT: Final = 2 * MAX_ADU
_LONGEST_SHOWN: Final = 12
_FRAMING_BYTES: Final = 6
"""Unit and CRC, in the question and in the answer."""


class _Exchange:
    """The question on the line: a transaction's own, or the probe before it."""

    def __init__(self, question: Transaction, slave: Slave, expected: Expected, request: bytes) -> None:
        self.question = question
        self.slave = slave
        self.expected = expected
        self.probing = request is not question.pdu
        self.frame = frame(question.unit, request)
        self.is_read = request[0] in READ.values()
        self.repeated = False


class Bus(asyncio.Protocol):
    """The connection to one line. Lives in one event loop; once ``alive`` is False it stays so."""

    def __init__(
        self, where: str, timing: Timing, slaves: Slaves, loop: asyncio.AbstractEventLoop, *, remote: bool
    ) -> None:
        """``remote``: a serial server at the other end of a TCP connection, which can die and be connected anew."""
        self.where = where
        self.window = 1
        self.shared = False
        """Whether more than one device uses the line."""
        self.late_replies = 0
        """Bursts of bytes that came when nothing was asked: late answers, or noise."""
        self.closed: asyncio.Future[None] = loop.create_future()
        self._timing = timing
        self._slaves = slaves
        self._loop = loop
        self._remote = remote
        self._transport: asyncio.Transport | None = None
        self._urgent: deque[Batch] = deque()
        self._batches: deque[Batch] = deque()
        self._probed: Transaction | None = None
        """A question whose probe was answered: the next on the line."""
        self._exchange: _Exchange | None = None
        self._heard = bytearray()
        self._heard_at = 0.0
        self._quiet_from = 0.0
        self._held_up_since: float | None = None
        self._unanswered = 0
        self._silent_units: set[int] = set()
        self._timer: asyncio.TimerHandle | None = None

    @property
    def alive(self) -> bool:
        """Whether questions can be sent."""
        return self._transport is not None

    def submit(self, batch: Batch, *, urgent: bool = False) -> None:
        """Queue a batch. Never blocks; see ``batch.done``."""
        if self._transport is None:
            batch.fail_waiting(NotConnectedError(f"{self.where}: the line is closed"))
            return
        (self._urgent if urgent else self._batches).append(batch)
        self._pump()

    def abandon(self, batch: Batch) -> None:
        """Forget a batch whose caller was cancelled. A question on the line stays there until its answer or its
        deadline.
        """
        batch.waiting.clear()

    def drop(self, error: DriverError) -> None:
        """End the connection at once. ``error`` is what every transaction in flight or waiting ends with."""
        transport, self._transport = self._transport, None
        if transport is None:
            return
        transport.abort()
        self._disarm()
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.slave.owes(exchange.expected, self._loop.time())
            exchange.question.batch.failed(exchange.question, error)
        self._fail_waiting(error)

    async def close(self) -> None:
        """End the connection and wait until it is gone. Never raises; never waits long."""
        self.drop(NotConnectedError(f"{self.where}: the line was closed"))
        await asyncio.wait([self.closed], timeout=1.0)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the event loop."""
        self._transport = cast(asyncio.Transport, transport)
        # Whatever was going on before we came must end before the first question.
        self._quiet_from = self._loop.time() + self._timing.quiet_s

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by the event loop."""
        reason = str(exc) if exc is not None else "closed by the other end"
        self.drop(NotConnectedError(f"{self.where}: line lost ({reason}); check the adapter, its cable and its power"))
        if not self.closed.done():
            self.closed.set_result(None)

    def data_received(self, data: bytes) -> None:
        """Called by the event loop."""
        now = self._loop.time()
        stray = self._exchange is None and now >= self._quiet_from
        self._quiet_from = now + self._timing.quiet_s
        if self._exchange is None:
            self.late_replies += stray
            return
        self._heard_at = now
        self._heard += data
        del self._heard[:-_HEARD_KEPT]
        self._look(self._exchange, now, complete=False)

    def _look(self, exchange: _Exchange, now: float, *, complete: bool) -> None:
        """Find the answer in what was heard; ``complete`` when nothing more seems to come."""
        question = exchange.question
        reply = find_reply(self._heard, question.unit, exchange.expected, complete=complete)
        if exchange.is_read and self._heard.startswith(exchange.frame):
            self._fail(
                exchange,
                now,
                ProtocolError(f"{self.where}: the adapter echoes what is sent: switch its local echo off"),
            )
        elif reply is not None:
            self._answered(exchange, reply, now)
        elif now >= question.deadline:
            self._unanswered_until_the_end(exchange, now)
        elif complete and exchange.is_read and not exchange.repeated and len(self._heard) >= BROKEN_FROM:
            # Damaged on the way, or from somebody else. The same question may be asked again: whichever of the two
            # answers comes, it is of the right registers.
            exchange.repeated = True
            exchange.slave.owes(exchange.expected, now)
            self._send(exchange)
        else:
            paused_at = self._heard_at + self._timing.gap_s
            self._arm(question.deadline if complete or not self._heard else min(question.deadline, paused_at))

    def _answered(self, exchange: _Exchange, reply: bytes, now: float) -> None:
        question = exchange.question
        refused = bool(reply[0] & ERROR_FLAG)
        exchange.slave.answered(exchange.expected, now, refused=refused)
        self._unanswered = 0
        self._silent_units.clear()
        self._exchange = None
        if exchange.probing:
            self._probed = question
        else:
            assert question.sent is not None
            question.latency_s = now - question.sent
            if refused:
                question.error = ModbusExceptionError(f"{self.where} unit {question.unit}", reply[1])
            else:
                question.reply = reply
            question.batch.answered()
        self._pump()

    def _fail(self, exchange: _Exchange, now: float, error: DriverError) -> None:
        """Give the question up; its answer may still come."""
        self._exchange = None
        exchange.slave.owes(exchange.expected, now)
        exchange.question.batch.failed(exchange.question, error)
        self._pump()

    def _unanswered_until_the_end(self, exchange: _Exchange, now: float) -> None:
        question, batch = exchange.question, exchange.question.batch
        where = f"{self.where} unit {question.unit}"
        exchange.slave.missed(now, batch.timeout_s)
        self._quiet_from = max(self._quiet_from, now + self._timing.quiet_s)
        batch.fail_waiting(DeadlineError(f"{where}: not sent, the request before had no answer"))
        self._unanswered += 1
        self._silent_units.add(question.unit)
        error: DriverError
        if len(self._heard) < BROKEN_FROM:
            error = DeadlineError(
                f"{where} did not answer within {batch.timeout_s:g} s: check power, wiring and unit_id"
            )
        else:
            more = "..." if len(self._heard) > _LONGEST_SHOWN else ""
            error = ProtocolError(
                f"{where}: no answer, but {len(self._heard)} other bytes "
                f"({self._heard[:_LONGEST_SHOWN].hex(' ')}{more}); check wiring, termination, and baud and parity"
            )
        dead = self._unanswered >= SILENT_AFTER and (not self.shared or len(self._silent_units) >= SILENT_AFTER)
        if self._remote and dead:
            self._exchange = None
            exchange.slave.owes(exchange.expected, now)
            batch.failed(question, error)
            self.drop(
                NotConnectedError(
                    f"{self.where}: {self._unanswered} requests in a row had no answer; connection dropped"
                )
            )
            return
        self._fail(exchange, now, error)

    def _pump(self) -> None:
        """Put the next question on the line, if it is free and quiet."""
        while self._transport is not None and self._exchange is None:
            for batches in (self._urgent, self._batches):
                while batches and not batches[0].waiting:
                    batches.popleft()
            if not (self._probed or self._urgent or self._batches):
                self._disarm()
                return
            now = self._loop.time()
            if now < self._quiet_from:
                self._wait_for_quiet(now)
                return
            self._held_up_since = None
            if self._probed is not None:
                question, self._probed = self._probed, None
                self._ask(question, now)
            elif self._urgent:
                self._begin(self._urgent[0].waiting.popleft(), now, urgent=True)
            else:
                self._batches.rotate(-1)
                self._begin(self._batches[-1].waiting.popleft(), now, urgent=False)

    def _wait_for_quiet(self, now: float) -> None:
        if self._held_up_since is None:
            self._held_up_since = now
        elif now - self._held_up_since > BABBLE_S:
            self._held_up_since = None
            self._fail_waiting(
                ProtocolError(
                    f"{self.where}: never quiet for {BABBLE_S:g} s; look for a second master, a device that does not "
                    "stop sending, missing termination, or another baud"
                )
            )
            self._disarm()
            return
        self._arm(self._quiet_from)

    def _begin(self, question: Transaction, now: float, *, urgent: bool) -> None:
        rest_s = self._slaves[question.unit].rest_left(now, urgent=urgent)
        if not rest_s:
            self._ask(question, now)
            return
        error = DeadlineError(
            f"{self.where} unit {question.unit}: silent; not asked again for {rest_s:.1f} s, to keep the line free"
        )
        question.batch.failed(question, error)
        question.batch.fail_waiting(error)

    def _ask(self, question: Transaction, now: float) -> None:
        """Send the question, or its probe before it, or fail it because its answer could not be told from a late
        one.
        """
        slave = self._slaves[question.unit]
        expected, request = Expected.answer_to(question.pdu, question.reply_length), question.pdu
        if slave.mistakable(expected, now):
            probe = question.probe
            if probe is not None and question.sent is None:
                expected, request = Expected.answer_to(probe.pdu, probe.reply_length), probe.pdu
            else:
                error = (
                    f"{self.where} unit {question.unit}: not asked: a late answer could be taken for the one to this"
                )
                question.batch.failed(question, DeadlineError(error))
                return
        if question.sent is None:
            question.sent = now
            wire_s = (len(question.pdu) + question.reply_length + _FRAMING_BYTES) * self._timing.character_s
            question.deadline = now + question.batch.timeout_s + wire_s
        self._exchange = _Exchange(question, slave, expected, request)
        self._send(self._exchange)

    def _send(self, exchange: _Exchange) -> None:
        assert self._transport is not None
        self._heard.clear()
        self._transport.write(exchange.frame)
        self._arm(exchange.question.deadline)

    def _arm(self, when: float) -> None:
        self._disarm()
        self._timer = self._loop.call_at(when, self._due)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _due(self) -> None:
        """The timer: the line is quiet, an answer broke off, or the deadline has come."""
        self._timer = None
        if self._exchange is None:
            self._pump()
        else:
            self._look(self._exchange, self._loop.time(), complete=True)

    def _fail_waiting(self, error: DriverError) -> None:
        probed, self._probed = self._probed, None
        if probed is not None:
            probed.batch.failed(probed, error)
        for batches in (self._urgent, self._batches):
            while batches:
                batches.popleft().fail_waiting(error)
