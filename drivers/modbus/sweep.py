"""One poll over the wire: reads every block, halves what is refused, and notes which points are fresh.

A sweep has a budget of extra requests, so that a device with many bad registers is sorted out over several polls
instead of being flooded; what the budget leaves open is bad in this poll and continued in the next.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from drivers.errors import DeadlineError, DriverError, NotConnectedError, ProtocolError
from drivers.modbus.pdu import ExceptionCode, unpack_bits
from drivers.modbus.planner import Block, is_bits
from drivers.modbus.refusals import STRIKES, Action, Halving, ReadPlan, action_for
from drivers.modbus.transaction import Transaction
from safety.values import Reason

HALVINGS_PER_PHASE: Final = 64
HALVINGS_PER_ROUND: Final = 2
"""Few at a time and the newest first: a limit learnt from one block spares halving all the others."""
_GATEWAY: Final = (ExceptionCode.GATEWAY_PATH_UNAVAILABLE, ExceptionCode.GATEWAY_TARGET_FAILED_TO_RESPOND)

Read = Callable[[Sequence[Block]], Awaitable[Sequence[Transaction]]]
"""Reads the blocks; returns their ended transactions in the same order. Raises NotConnectedError when there is no
connection.
"""


def reason_for(error: DriverError) -> Reason:
    """What a failed read means for the quality of its points."""
    silent = isinstance(error, (DeadlineError, NotConnectedError))
    return Reason.DEVICE_UNREACHABLE if silent or getattr(error, "code", None) in _GATEWAY else Reason.DEVICE_ERROR


class Sweep:
    """One poll. After :meth:`run`, ``reasons`` (n_points,) in address order is OK exactly where ``image`` holds fresh
    bytes.
    """

    def __init__(self, plan: ReadPlan, image: bytearray, read: Read) -> None:
        self.reasons: npt.NDArray[np.uint8] = np.full(len(plan.layout.order), Reason.DEVICE_ERROR, np.uint8)
        self.refused: list[tuple[list[int], DriverError]] = []
        """Newly quarantined positions and why."""
        self.released: list[int] = []
        self.error: DriverError | None = None
        """The first failure, whatever came of it."""
        self._plan = plan
        self._image = image
        self._read = read
        self._accepted = 0
        self._changed = False
        self._alone: list[tuple[Block, DriverError]] = []
        self._struck: list[tuple[Block, DriverError]] = []
        self._halves: dict[int, Halving] = {}

    async def run(self, now: float) -> None:
        """Read everything once; ``now`` in control seconds.

        Raises:
            DriverError: nothing at all could be read. Then nothing is learnt either: a device that refuses everything
                is starting up, or is not the one it should be.
        """
        open_blocks = await self._phase(self._plan.blocks)
        retries = self._plan.due_retries(now)
        if retries:
            await self._phase(retries)
        if self.error is not None and not self._accepted:
            raise self.error
        for block, error in self._struck:
            halves = self._plan.layout.split(block)
            if halves is None:
                self._alone.append((block, error))
            else:
                open_blocks += halves
        for block, error in self._alone:
            new = self._plan.quarantine(block, now)
            if new:
                self.refused.append((new, error))
        if self._changed or open_blocks or self.refused or self.released:
            self._plan.replan(open_blocks)

    async def _phase(self, blocks: Sequence[Block]) -> list[Block]:
        """Read the blocks and halve what is refused; returns the refused blocks that the budget left whole."""
        refused: list[Block] = []
        budget = HALVINGS_PER_PHASE
        while blocks:
            try:
                transactions = await self._read(blocks)
            except NotConnectedError as error:
                self._note(error)
                break
            for block, transaction in zip(blocks, transactions, strict=True):
                if transaction.reply is not None:
                    self._accept(block, transaction)
                if transaction.error is not None and self._refuse(block, transaction) is Action.HALVE:
                    refused.append(block)
            if self._learn() and refused:
                refused, blocks = [], self._plan.resized(refused)
                continue
            blocks = []
            while refused and budget and len(blocks) < 2 * HALVINGS_PER_ROUND:
                budget -= 1
                blocks += self._halve(refused.pop())
        return refused

    def _halve(self, block: Block) -> tuple[Block, Block]:
        halves = self._plan.layout.split(block)
        assert halves is not None
        halving = Halving(block, *halves)
        self._halves[id(halves[0])] = self._halves[id(halves[1])] = halving
        return halves

    def _learn(self) -> bool:
        """Draw conclusions from the halves of the last round; True if a limit was learnt."""
        learnt = False
        for halving in {id(halving): halving for halving in self._halves.values()}.values():
            learnt |= self._plan.learn(halving)
        self._halves.clear()
        self._changed |= learnt
        return learnt

    def _accept(self, block: Block, transaction: Transaction) -> None:
        reply = transaction.reply
        assert reply is not None
        if reply[1] != len(reply) - 2:
            transaction.error = ProtocolError(
                f"{block.table} {block.start}: answer says {reply[1]} bytes and brings {len(reply) - 2}"
            )
            return
        data = unpack_bits(reply[2:], block.count) if is_bits(block.table) else reply[2:]
        self._image[block.image_offset : block.image_offset + len(data)] = data
        self.reasons[block.first : block.last] = Reason.OK
        self._accepted += 1
        block.strikes = 0
        halving = self._halves.get(id(block))
        if halving is not None:
            halving.accepted += 1
        self.released += self._plan.release(block)

    def _refuse(self, block: Block, transaction: Transaction) -> Action:
        error = transaction.error
        assert error is not None
        self._note(error)
        self.reasons[block.first : block.last] = reason_for(error)
        action = action_for(error, sent=transaction.sent is not None)
        if action is Action.STRIKE:
            block.strikes += 1
            if block.strikes >= STRIKES:
                self._struck.append((block, error))
        elif action is Action.QUARANTINE or (action is Action.HALVE and self._plan.layout.split(block) is None):
            self._alone.append((block, error))
            action = Action.QUARANTINE
        return action

    def _note(self, error: DriverError) -> None:
        if self.error is None:
            self.error = error
