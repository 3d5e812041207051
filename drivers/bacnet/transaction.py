"""One request and its answer, and the batch of requests that a caller waits for together."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Final

from drivers.bacnet.apdu import Kind
from drivers.errors import DeadlineError, DriverError

GIVE_UP_AFTER: Final = 2
"""Unanswered requests in a row after which the rest of a batch is not sent: a dead device costs two deadlines, not one
per request.
"""


class Transaction:
    """A confirmed request. Ends with exactly one of ``reply`` (the acknowledgement's content) and ``error``."""

    __slots__ = ("answer", "batch", "body", "due", "error", "latency_s", "reply", "resent", "sent", "service")

    def __init__(self, service: int, body: bytes, answer: Kind = Kind.COMPLEX_ACK) -> None:
        self.service = service
        self.body = body
        self.answer = answer
        """Which acknowledgement is the right one."""
        self.reply: bytes | None = None
        self.error: DriverError | None = None
        self.sent: float | None = None
        """Event-loop seconds when it first went out; None: never sent."""
        self.due = 0.0
        self.resent = 0
        self.latency_s = 0.0
        self.batch: Batch


class Batch:
    """Transactions of one caller, sent in order; ``done`` is set when each has ended."""

    def __init__(self, transactions: Sequence[Transaction], loop: asyncio.AbstractEventLoop) -> None:
        self.waiting = deque(transactions)
        self.done: asyncio.Future[None] = loop.create_future()
        self._open = len(transactions)
        self._unanswered = 0
        for transaction in transactions:
            transaction.batch = self

    def answered(self) -> None:
        """Count one transaction that the device has answered, be it with a refusal."""
        self._unanswered = 0
        self._ended()

    def failed(self, transaction: Transaction, error: DriverError) -> None:
        """End a transaction without an answer."""
        transaction.error = error
        self._ended()

    def timed_out(self, transaction: Transaction, error: DeadlineError) -> None:
        """End a transaction at its deadline, and the unsent ones with it once it is plain that nobody answers."""
        self.failed(transaction, error)
        self._unanswered += 1
        if self._unanswered >= GIVE_UP_AFTER:
            self.fail_waiting(DeadlineError(f"not sent, {self._unanswered} requests in a row had no answer: {error}"))

    def fail_waiting(self, error: DriverError) -> None:
        """End every transaction that was not sent yet."""
        while self.waiting:
            self.failed(self.waiting.popleft(), error)

    def _ended(self) -> None:
        self._open -= 1
        if not self._open and not self.done.done():
            self.done.set_result(None)
