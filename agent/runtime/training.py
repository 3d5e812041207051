"""Core's end of Train: sends each scan's feedback to the train worker, and puts its accepted proposals in force.

The worker is never waited for. Its proposals are checked by ``ParameterSet`` as if they came from a stranger; what is accepted is in
the operand row before the next Operate.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from agent.runtime import log
from agent.runtime.clock import Clock
from agent.runtime.engine import Engine
from agent.runtime.program import Group, Index, Program, point_name
from agent.train.errors import MessageError
from agent.train.messages import MAX_LINE, Answer, Feedback, Proposal, decode, encode, encode_units
from agent.train.parameters import ParameterSet
from safety.values import Quality

SOCKET_NAME = "train.sock"
MAX_WAITING = 1 << 20
"""Bytes of feedback that may wait for a slow worker; beyond that feedback is dropped and counted."""


@dataclass(frozen=True, slots=True)
class FeedbackRow:
    """Where one learning unit's feedback, target and condition stand in the input image."""

    unit: str
    feedback: int
    target: float | int
    only_when: int | None


def feedback_rows(program: Program) -> dict[int, FeedbackRow]:
    """Unit index → what its learner wants to see after each scan."""
    rows = {}
    for unit in program.units:
        if unit.config.train is None:
            continue
        ewma = unit.config.train.ewma
        target = ewma.target
        rows[unit.index] = FeedbackRow(
            unit.name,
            program.point_index[point_name(unit.config, ewma.feedback)],
            program.point_index[point_name(unit.config, target)] if isinstance(target, str) else float(target),
            None if ewma.only_when is None else program.point_index[point_name(unit.config, ewma.only_when)],
        )
    return rows


def feedback_of(row: FeedbackRow, engine: Engine, now: float, utc: float) -> Feedback:
    """One scan's feedback. A bad value stays NaN and does not count."""
    quality = int(engine.quality[row.feedback])
    value = float(engine.value[row.feedback])
    if isinstance(row.target, float):
        target = row.target
    else:
        target = float(engine.value[row.target])
        quality = min(quality, int(engine.quality[row.target]))
    counts = quality == Quality.GOOD
    if row.only_when is not None:
        counts = counts and engine.quality[row.only_when] != Quality.BAD and bool(engine.value[row.only_when] > 0.5)
    return Feedback(row.unit, now, utc, value, target, quality, counts)


class TrainLink:
    """Listens for the train worker. One worker at a time."""

    def __init__(self, path: Path, engine: Engine, parameters: ParameterSet, clock: Clock) -> None:
        self._path = path
        self._engine = engine
        self._parameters = parameters
        self._clock = clock
        self._rows = feedback_rows(engine.program)
        self._writer: asyncio.StreamWriter | None = None
        self._server: asyncio.Server | None = None
        self._log = log.get("core")
        self.dropped = 0
        self.applied = 0
        self.refused = 0
        self.on_learned: list[Callable[[Proposal, Answer], None]] = []

    async def start(self) -> None:
        """Listen on the run folder's socket."""
        self._path.unlink(missing_ok=True)
        self._server = await asyncio.start_unix_server(self._serve, str(self._path), limit=MAX_LINE)
        self._path.chmod(0o600)

    async def stop(self) -> None:
        """Stop listening."""
        if self._server is not None:
            self._server.close()
        if self._writer is not None:
            self._writer.close()

    @property
    def connected(self) -> bool:
        """Whether a worker is there."""
        return self._writer is not None

    def scanned(self, group: Group, columns: Index) -> None:
        """Send the feedback of the units just scanned."""
        writer = self._writer
        if writer is None or not self._rows:
            return
        now, utc = self._clock.monotonic(), self._clock.utc()
        for unit in group.units[columns]:
            row = self._rows.get(int(unit))
            if row is None:
                continue
            if writer.transport.get_write_buffer_size() > MAX_WAITING:
                self.dropped += 1
                continue
            writer.write(encode(feedback_of(row, self._engine, now, utc)))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._writer is not None:
            writer.close()
            return
        self._writer = writer
        try:
            for line in encode_units(self._parameters.specs()):
                writer.write(line)
            while line := await reader.readline():
                message = decode(line)
                if not isinstance(message, Proposal):
                    raise MessageError(f"the train worker may only propose, it sent a {type(message).__name__}")
                self._propose(message, writer)
        except (MessageError, ConnectionError, ValueError) as error:
            self._log.warning("train_worker_dropped", error=str(error))
        finally:
            self._writer = None
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    def _propose(self, proposal: Proposal, writer: asyncio.StreamWriter) -> None:
        answer = self._parameters.apply(proposal, self._clock.monotonic())
        if answer.applied:
            self.applied += 1
            self._engine.set_parameter(answer.unit, answer.parameter, answer.value)
            self._log.info("parameter_learned", unit=answer.unit, parameter=answer.parameter, value=answer.value, why=proposal.reason)
        else:
            self.refused += 1
            self._log.warning("proposal_refused", unit=answer.unit, parameter=answer.parameter, why=answer.why)
        writer.write(encode(answer))
        for listener in self.on_learned:
            listener(proposal, answer)


def load_parameters(program: Program, engine: Engine, store: Path) -> ParameterSet:
    """Factory values, replaced by what was learned and is still within the site's limits; put where Operate reads them."""
    parameters = ParameterSet([unit.config for unit in program.units])
    for report in parameters.load(store):
        log.get("core").warning("learned_value_not_used", detail=report)
    for unit, name in program.parameter_slot:
        engine.set_parameter(unit, name, parameters.value(unit, name))
    return parameters


def in_force(parameters: ParameterSet, program: Program) -> dict[str, dict[str, float]]:
    """Unit → parameter → value, for status."""
    named: dict[str, dict[str, float]] = {}
    for unit, name in program.parameter_slot:
        named.setdefault(unit, {})[name] = float(np.float64(parameters.value(unit, name)))
    return named
