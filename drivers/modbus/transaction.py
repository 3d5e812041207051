"""One request and its answer, and the batch of requests that a caller waits for together."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from drivers.errors import DeadlineError, DriverError

GIVE_UP_AFTER: Final = 2
"""Unanswered transactions in a row after which the rest of a batch is not sent: a dead unit costs two deadlines, not
one per block.
"""


@dataclass(frozen=True, slots=True)
class Probe:
    """A harmless question whose answer cannot be taken for the transaction's own. Only lines without transaction ids
    ask it, to find out that a late answer cannot come any more.
    """

    pdu: bytes
    reply_length: int


class Transaction:
    """A request on its way. Ends with exactly one of ``reply`` (the PDU, of ``reply_length`` bytes) and ``error``."""

    __slots__ = ("batch", "deadline", "error", "latency_s", "pdu", "probe", "reply", "reply_length", "sent", "unit")

    def __init__(self, unit: int, pdu: bytes, reply_length: int, probe: Probe | None = None) -> None:
        self.unit = unit
        self.pdu = pdu
        self.reply_length = reply_length
        self.probe = probe
        self.reply: bytes | None = None
        self.error: DriverError | None = None
        self.sent: float | None = None
        """Event-loop seconds when it went out; None: never sent."""
        self.deadline = 0.0
        self.latency_s = 0.0
        self.batch: Batch


class Batch:
    """Transactions of one caller, sent in order; ``done`` is set when each has ended."""

    def __init__(self, transactions: Sequence[Transaction], timeout_s: float, loop: asyncio.AbstractEventLoop) -> None:
        self.timeout_s = timeout_s
        self.waiting = deque(transactions)
        self.done: asyncio.Future[None] = loop.create_future()
        self._open = len(transactions)
        self._unanswered = 0
        for transaction in transactions:
            transaction.batch = self

    def answered(self) -> None:
        """Count one transaction that the peer has answered, be it with a refusal."""
        self._unanswered = 0
        self._ended()

    def failed(self, transaction: Transaction, error: DriverError) -> None:
        """End a transaction without an answer."""
        transaction.error = error
        self._ended()

    def timed_out(self, transaction: Transaction, where: str) -> None:
        """End a transaction at its deadline, and the unsent ones with it once it is plain that nobody answers."""
        self.failed(
            transaction,
            DeadlineError(f"{where} did not answer within {self.timeout_s:g} s: check power, wiring and unit_id"),
        )
        self._unanswered += 1
        if self._unanswered >= GIVE_UP_AFTER:
            self.fail_waiting(DeadlineError(f"{where}: not sent, {self._unanswered} requests in a row had no answer"))

    def fail_waiting(self, error: DriverError) -> None:
        """End every transaction that was not sent yet."""
        while self.waiting:
            self.failed(self.waiting.popleft(), error)

    def _ended(self) -> None:
        self._open -= 1
        if not self._open and not self.done.done():
            self.done.set_result(None)
