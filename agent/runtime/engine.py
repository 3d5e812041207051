"""The engine: one scan as plain synchronous steps over arrays — perceive, prepare, collect, enforce.

It knows no socket, no process and no task, so that the live core and the lock-step simulation run exactly the same code. One scan is a
deterministic function of (input image, parameters, state, clock).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt

from agent.poet.batch import CallStatus
from agent.poet.perceive import PerceiveState, PerceiveTable
from agent.runtime.program import Floats, Group, Index, Program
from safety.enforcer import Enforcer
from safety.envelope import RequestState
from safety.values import Quality, Verdict

Bytes = npt.NDArray[np.uint8]

WAIT_LOOK_S = 1.0
"""How often an output is looked at again that an interlock or a fail-safe wants to move and a minimum time still holds."""
_HELD_BY_TIME = np.uint32(Verdict.MIN_ON_HELD | Verdict.MIN_OFF_HELD)
_NOT_BY_REQUEST = np.uint32(Verdict.FAIL_SAFE | Verdict.TRIPPED)


class Engine:
    """Arrays and state of one site. ``arrays`` are ``Program.private_blocks()`` and ``Program.shared_blocks()``."""

    def __init__(
        self,
        program: Program,
        arrays: Mapping[str, npt.NDArray[Any]],
        perceive_kernels: SimpleNamespace,
        enforcer: Enforcer,
    ) -> None:
        self.program = program
        self.enforcer = enforcer
        self._kernels = perceive_kernels
        self._arrays = arrays
        self._table = PerceiveTable.build([row.config for row in program.points])
        self._state = PerceiveState.fresh(len(program.points))
        self.raw = arrays["in.raw"]
        self.raw_quality = arrays["in.raw_quality"]
        self.raw_reason = arrays["in.raw_reason"]
        self.raw_time = arrays["in.raw_time"]
        self.source_time = arrays["in.source_time"]
        self.value = arrays["in.value"]
        self.quality = arrays["in.quality"]
        self.reason = arrays["in.reason"]
        self.request = arrays["out.request"]
        self.request_state = arrays["out.state"]
        self.raw[:] = np.nan
        self.value[:] = np.nan
        self._operands = np.empty(program.operands)
        self._operands[program.constants_at : program.parameters_at] = program.constants
        self._operands[program.parameters_at : -1] = program.parameter_value
        self._good = np.full(program.operands, True)
        self._failures = np.zeros(len(program.units), np.int64)
        self._has_good = np.zeros(len(program.units), bool)
        self._judged = np.full(len(program.points), 255, np.uint8)
        self._hold = np.asarray([row.config.fallback.hold for row in program.units], np.int64)
        self._due = np.zeros(len(program.outputs), np.uint8)
        self._waited_at = -np.inf
        self._tripped_late = np.empty(0, np.intp)
        self.limited = 0
        self.scans = 0

    # --- inputs -------------------------------------------------------------------------------------------------------

    def ingest(
        self, where: slice | Index, value: Floats, quality: Bytes, reason: Bytes, source_time: Floats, now: float
    ) -> None:
        """Take what a device delivered into the raw input image; ``now`` is the control clock of its arrival."""
        self.raw[where] = value
        self.raw_quality[where] = quality
        self.raw_reason[where] = reason
        self.source_time[where] = source_time
        self.raw_time[where] = now

    def perceive(self, now: float, where: slice = slice(None)) -> None:
        """Judge the raw inputs (all, or one device's slice) and put the believable values into the input image."""
        self._kernels.perceive(
            now,
            self.raw[where],
            self.raw_quality[where],
            self.raw_reason[where],
            self.raw_time[where],
            *(column[where] for column in self._table.columns()),
            *(column[where] for column in self._state.columns()),
            self.value[where],
            self.quality[where],
            self.reason[where],
        )

    def safety(self, now: float) -> tuple[bool, Index]:
        """Evaluate every interlock, and every function's inputs, on the present input image.

        Returns whether any interlock's status changed, and the outputs that must be enforced at once, whenever their unit is scanned.
        """
        enforcer = self.enforcer
        flag, value = enforcer.forced_flag.copy(), enforcer.forced.copy()
        changed = enforcer.evaluate(now, self.value, self.quality)
        affected = self._bad_inputs()
        if changed:
            same = (enforcer.forced == value) | (np.isnan(enforcer.forced) & np.isnan(value))
            affected = np.union1d(affected, np.flatnonzero((enforcer.forced_flag != flag) | ~same))
        if len(self._tripped_late):
            affected = np.union1d(affected, self._tripped_late)
            self._tripped_late = np.empty(0, np.intp)
        if now - self._waited_at >= WAIT_LOOK_S:
            self._waited_at = now
            verdict = enforcer.verdict
            held = ((verdict & _HELD_BY_TIME) != 0) & ((verdict & _NOT_BY_REQUEST) != 0)
            affected = np.union1d(affected, np.flatnonzero(held))
        return changed, affected

    # --- operate ------------------------------------------------------------------------------------------------------

    def set_parameter(self, unit: str, name: str, value: float) -> None:
        """Put a learned parameter where the next Operate reads it."""
        self._operands[self.program.parameter_slot[(unit, name)]] = value

    def parameter(self, unit: str, name: str) -> float:
        """The value that the next Operate will use."""
        return float(self._operands[self.program.parameter_slot[(unit, name)]])

    def prepare(self, group: Group, busy: npt.NDArray[np.bool_] | None = None) -> Index:
        """Fill the group's arguments; returns the columns whose required inputs are all usable.

        ``busy`` columns are still being worked on: their arguments stay as they are. Columns with a bad input are left out;
        :meth:`safety` has marked them.
        """
        self._operands[: len(self.program.points)] = self.value
        args = self._arrays[f"g{group.index}.args"]
        fresh = self._operands[group.operand] * group.gain + group.offset
        if busy is None or not busy.any():
            args[:] = fresh
        else:
            np.copyto(args, fresh, where=~busy)
        return np.flatnonzero(self._usable(group))

    def _usable(self, group: Group) -> npt.NDArray[np.bool_]:
        self._good[: len(self.program.points)] = self.quality != Quality.BAD
        usable: npt.NDArray[np.bool_] = np.all(self._good[group.required], axis=0)
        return usable

    def _bad_inputs(self) -> Index:
        """Mark every unit with a bad required input; returns the outputs that were not marked before.

        They go to fail-safe at once, whatever the function would say, and without waiting for the unit's next scan.
        """
        if np.array_equal(self._judged, self.quality):
            return np.empty(0, np.intp)
        self._judged[:] = self.quality
        changed = []
        for group in self.program.groups:
            bad = np.flatnonzero(~self._usable(group))
            if len(bad):
                rows = group.out_index[np.isin(group.out_column, bad)]
                fresh = rows[self.request_state[rows] != RequestState.INPUT_BAD]
                self.request_state[fresh] = RequestState.INPUT_BAD
                changed.append(fresh)
        return np.concatenate(changed) if changed else np.empty(0, np.intp)

    def collect(self, group: Group, columns: Index, *, answered: bool) -> None:
        """Take the function's results of these columns as requests, or note that there are none."""
        if answered:
            self._take(group, columns)
        else:
            self._fail(group, columns, RequestState.DEADLINE_MISSED, RequestState.HOLD_DEADLINE)
        spoiled = columns[~self._usable(group)[columns]]
        if len(spoiled):  # an input went bad while the function was running: its answer is about a world that is gone
            self._mark(group, spoiled, RequestState.INPUT_BAD)

    def _take(self, group: Group, columns: Index) -> None:
        status = self._arrays[f"g{group.index}.status"][columns]
        good = columns[status == CallStatus.OK]
        failed = columns[status != CallStatus.OK]
        if len(failed):
            self._fail(group, failed, RequestState.FUNCTION_FAILED, RequestState.HOLD_FAILED)
        if len(good):
            units = group.units[good]
            self._failures[units] = 0
            self._has_good[units] = True
            rows = np.isin(group.out_column, good) if len(good) < len(group.units) else slice(None)
            out = self._arrays[f"g{group.index}.out"]
            index = group.out_index[rows]
            self.request[index] = out[group.out_field[rows], group.out_column[rows]]
            self.request_state[index] = RequestState.OK

    def _fail(self, group: Group, columns: Index, state: RequestState, hold: RequestState) -> None:
        units = group.units[columns]
        self._failures[units] += 1
        may_hold = (self._failures[units] <= self._hold[units]) & self._has_good[units]
        self._mark(group, columns[may_hold], hold)
        self._mark(group, columns[~may_hold], state)

    def _mark(self, group: Group, columns: Index, state: RequestState) -> None:
        rows = np.isin(group.out_column, columns)
        self.request_state[group.out_index[rows]] = state

    # --- enforce ------------------------------------------------------------------------------------------------------

    def enforce(self, now: float, outputs: Index | None = None) -> None:
        """Run these outputs (default: all) through envelopes and trips. The results are in ``enforcer.out`` and ``.verdict``."""
        if outputs is None:
            self._due[:] = 1
        else:
            self._due[:] = 0
            self._due[outputs] = 1
        if self.enforcer.enforce(now, self.request, self.request_state, self._due):
            # The caller writes the outputs it asked for; the others of a unit whose channels disagree follow with the next evaluation.
            self._tripped_late = np.flatnonzero(self.enforcer.forced_flag)
        limited = self.enforcer.verdict[self._due != 0] & ~np.uint32(Verdict.DEAD_BAND)
        self.limited += int(np.count_nonzero(limited))

    def outputs_of(self, group: Group, columns: Index) -> Index:
        """The rows of the output image that these columns drive."""
        if len(columns) == len(group.units):
            return group.out_index
        return group.out_index[np.isin(group.out_column, columns)]

    def text(self, group: Group, column: int) -> str:
        """What the function said of its last result."""
        raw = bytes(self._arrays[f"g{group.index}.text"][column])
        return raw.split(b"\0", 1)[0].decode("utf-8", "replace")

    def arguments(self, group: Group, column: int) -> Sequence[float]:
        """The arguments of the unit's last call, in the function's units."""
        return [float(value) for value in self._arrays[f"g{group.index}.args"][:, column]]
