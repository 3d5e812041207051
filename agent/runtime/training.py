"""Core's end of Train: sends each scan's feedback to the train worker, and puts its accepted proposals in force.

The worker is never waited for. Its proposals are checked by ``ParameterSet`` as if they came from a stranger; what is accepted is in
the operand row before the next Operate.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from agent.runtime import log
from agent.runtime.clock import Clock
from agent.runtime.engine import Engine
from agent.runtime.program import Group, Index, Program, point_name
from agent.train.link import TrainLink
from agent.train.messages import Answer, Feedback, Proposal
from agent.train.parameters import ParameterSet
from safety.values import Quality

SOCKET_NAME = "train.sock"


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
    """One scan's feedback. A bad value stays NaN; the learner wants half of a window's samples to be good."""
    quality = int(engine.quality[row.feedback])
    value = float(engine.value[row.feedback])
    if isinstance(row.target, float):
        target = row.target
    else:
        target = float(engine.value[row.target])
        quality = min(quality, int(engine.quality[row.target]))
    counts = row.only_when is None or bool(
        engine.quality[row.only_when] != Quality.BAD and engine.value[row.only_when] > 0.5
    )
    return Feedback(row.unit, now, utc, value, target, quality, counts)


class TrainScans:
    """Sends the feedback of every scan of a learning unit, and puts accepted proposals where Operate reads them."""

    def __init__(self, path: Path, engine: Engine, parameters: ParameterSet, clock: Clock) -> None:
        self._engine = engine
        self._clock = clock
        self._rows = feedback_rows(engine.program)
        self._log = log.get("core")
        self.link = TrainLink(path, parameters, clock.monotonic, self._decided, self._problem)
        self.applied = 0
        self.refused = 0
        self.on_learned: list[Callable[[Proposal, Answer], None]] = []

    def scanned(self, group: Group, columns: Index) -> None:
        """Send the feedback of the units just scanned."""
        if not self._rows:
            return
        now, utc = self._clock.monotonic(), self._clock.utc()
        for unit in group.units[columns]:
            row = self._rows.get(int(unit))
            if row is not None:
                self.link.feedback(feedback_of(row, self._engine, now, utc))

    def _decided(self, proposal: Proposal, answer: Answer) -> None:
        if answer.applied:
            self.applied += 1
            if (
                answer.unit,
                answer.parameter,
            ) in self._engine.program.parameter_slot:  # else its function was not loaded
                self._engine.set_parameter(answer.unit, answer.parameter, answer.value)
            self._log.info(
                "parameter_learned",
                unit=answer.unit,
                parameter=answer.parameter,
                value=answer.value,
                why=proposal.reason,
            )
        else:
            self.refused += 1
            self._log.warning("proposal_refused", unit=answer.unit, parameter=answer.parameter, why=answer.why)
        for listener in self.on_learned:
            listener(proposal, answer)

    def _problem(self, what: str) -> None:
        self._log.warning("train_worker_dropped", error=what)


def load_parameters(program: Program, engine: Engine, store: Path) -> ParameterSet:
    """Factory values, replaced by what was learned and is still within the site's limits; put where Operate reads them."""
    parameters = ParameterSet([unit.config for unit in program.units])
    for report in parameters.load(store):
        log.get("core").warning("learned_value_not_used", detail=report)
    for unit, name in program.parameter_slot:
        engine.set_parameter(unit, name, parameters.value(unit, name))
    return parameters
