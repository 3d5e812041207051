"""What a device has taught us about its reads: refused registers, gaps and sizes. The good points stay good.

A refused block is halved until the culprit stands alone. A point that is refused alone is quarantined: it is left out
of the reads, and tried again now and then. Two halves that are each accepted show that their gap (or, side by side,
their size) was refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Final

from drivers.errors import DeadlineError, DriverError, ProtocolError
from drivers.modbus.pdu import ExceptionCode, ModbusExceptionError
from drivers.modbus.planner import Block, Layout, Limits, is_bits

RETRY_S: Final = 60.0
"""Control seconds between two attempts at the quarantined points."""
RETRY_BLOCKS: Final = 16
"""Most requests of one attempt, before halving; the attempts take turns through all that is quarantined."""
STRIKES: Final = 2
"""Polls in a row without a usable answer, while other blocks are answered, that count as a refusal."""


class Action(Enum):
    """What a failed read says about its block."""

    HALVE = "halve"
    """Something in it is refused: find out what, at once."""
    QUARANTINE = "quarantine"
    """All of it is refused: the device does not have the table."""
    STRIKE = "strike"
    """Perhaps something in it, perhaps chance: count."""
    WAIT = "wait"
    """Not about the block: busy, gateway, connection."""


_BY_CODE: Final[dict[int, Action]] = {
    ExceptionCode.ILLEGAL_FUNCTION: Action.QUARANTINE,
    ExceptionCode.ILLEGAL_DATA_ADDRESS: Action.HALVE,
    ExceptionCode.ILLEGAL_DATA_VALUE: Action.HALVE,
    ExceptionCode.SERVER_DEVICE_FAILURE: Action.STRIKE,
    ExceptionCode.MEMORY_PARITY_ERROR: Action.STRIKE,
}


def action_for(error: DriverError, *, sent: bool) -> Action:
    """Classify a failed read."""
    if isinstance(error, ModbusExceptionError):
        return _BY_CODE.get(error.code, Action.WAIT)
    if sent and isinstance(error, (DeadlineError, ProtocolError)):
        return Action.STRIKE
    return Action.WAIT


@dataclass(slots=True)
class Halving:
    """A refused block and its halves; ``accepted`` counts the halves that were read whole."""

    parent: Block
    left: Block
    right: Block
    accepted: int = 0


class ReadPlan:
    """The blocks to read now, and what was learnt. Positions are those of ``layout``, in address order."""

    def __init__(self, layout: Layout, limits: Mapping[bool, Limits]) -> None:
        self.layout = layout
        self.limits = dict(limits)
        self.quarantined: set[int] = set()
        self._configured = dict(limits)
        self._retry_at = 0.0
        self._retry_next = 0
        self.blocks = layout.plan(limits, self.quarantined)

    def replan(self, unfinished: Iterable[Block] = ()) -> None:
        """Cover all healthy points anew. ``unfinished`` blocks, still being halved, stay as small as they are and are
        read last.
        """
        left_over = list(unfinished)
        apart = {position for block in left_over for position in range(block.first, block.last)}
        self.blocks = self.layout.plan(self.limits, self.quarantined | apart) + left_over

    def learn(self, halving: Halving) -> bool:
        """Draw the conclusion from two accepted halves of a refused block: no gaps, or no counts, of that size again.

        True if there was one. Most devices refuse all gaps or none, so that one refused gap speaks for the others.
        """
        if halving.accepted < 2:
            return False
        left, right = halving.left, halving.right
        bits = is_bits(left.table)
        gap = right.start - (left.start + left.count)
        old = self.limits[bits]
        if gap > 0:
            self.limits[bits] = Limits(old.count, min(old.gap, gap - 1))
        else:
            self.limits[bits] = Limits(min(old.count, max(left.count, right.count)), old.gap)
        return self.limits[bits] != old

    def quarantine(self, block: Block, now: float) -> list[int]:
        """Leave the block's points out from now on; returns those that are new. ``now`` in control seconds."""
        if not self.quarantined:
            self._retry_at = now + RETRY_S
        new = [position for position in range(block.first, block.last) if position not in self.quarantined]
        self.quarantined.update(new)
        return new

    def release(self, block: Block) -> list[int]:
        """Points that were read again; returns those that had been quarantined."""
        if not self.quarantined:
            return []
        back = [position for position in range(block.first, block.last) if position in self.quarantined]
        self.quarantined.difference_update(back)
        return back

    def forget(self) -> None:
        """The device was away and may have come back different: configured limits again, and retry the quarantine
        soon.
        """
        self._retry_at = 0.0
        if self.limits != self._configured:
            self.limits = dict(self._configured)
            self.replan()

    def resized(self, blocks: Iterable[Block]) -> list[Block]:
        """The same points in blocks that obey what was learnt since."""
        wanted = {position for block in blocks for position in range(block.first, block.last)}
        return self.layout.plan(self.limits, set(range(len(self.layout.order))) - wanted)

    def due_retries(self, now: float) -> list[Block]:
        """Reads over quarantined points only, a few at a time; empty until they are due. ``now`` in control seconds."""
        if not self.quarantined or now < self._retry_at:
            return []
        self._retry_at = now + RETRY_S
        healthy = set(range(len(self.layout.order))) - self.quarantined
        blocks = self.layout.plan(self.limits, healthy)
        first = self._retry_next % len(blocks)
        self._retry_next = first + RETRY_BLOCKS
        return (blocks[first:] + blocks[:first])[:RETRY_BLOCKS]
