"""Enforce for a whole site: owns the tables and their state, and runs the kernels over them.

Evaluate at every input change, then enforce. Before the first evaluation every interlock stands at STARTUP and forces
its outputs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Final, final

import numpy as np
import numpy.typing as npt

from safety import kernels as plain
from safety.agreement import Agreement
from safety.envelope import Envelope
from safety.envelope_table import Bytes, EnforceState, EnvelopeTable, Floats
from safety.errors import InterlockError, SafetyError
from safety.interlocks import InterlockState, InterlockStatus, InterlockTable
from safety.remembered import Remembered, SwitchRecord, TripRecord, age
from safety.second.channel import SecondChannel

PLAIN: Final = SimpleNamespace(enforce=plain.enforce, evaluate=plain.evaluate)
"""The kernels as plain Python."""


@final
@dataclass(frozen=True, slots=True)
class ResetResult:
    """Whether a reset was accepted, and why not."""

    accepted: bool
    reason: str


@final
class Enforcer:
    """The interlocks and envelopes of one site.

    Public arrays, shape (n_out,) in the order of ``envelopes``: ``out`` (NaN where relinquished), ``relinquish``,
    ``verdict`` (``Verdict`` bits), ``forced``, ``forced_flag``, ``first_out`` (index of the interlock that forced the
    output first, -1 for none), and ``present``, which the caller may fill: what the equipment holds where nothing is
    commanded (NaN = unknown).
    Shape (n_interlocks,): ``status`` (``InterlockStatus``), ``tripped`` (bool), ``cause``.
    """

    def __init__(
        self,
        envelopes: Sequence[Envelope],
        exclusive: Sequence[tuple[int, int]],
        interlocks: InterlockTable,
        kernels: SimpleNamespace = PLAIN,
        second: Sequence[SecondChannel] = (),
    ) -> None:
        """``kernels`` has ``enforce`` and ``evaluate``, compiled or plain; ``second`` are the second channels of the
        critical units. Raises EnvelopeError; SafetyError if the tables are of other outputs.
        """
        self.table = EnvelopeTable.build(envelopes, exclusive)
        self.interlocks = interlocks
        if not np.array_equal(interlocks.fail_safe, self.table.limits[plain.FAIL_SAFE], equal_nan=True):
            raise SafetyError("the interlock table was built for other envelopes: build both from the same list")
        self._kernels = kernels
        self._state = EnforceState.fresh(self.table)
        self._trips = InterlockState.fresh(interlocks)
        self._index = {row.name: k for k, row in enumerate(interlocks.interlocks)}
        self._remembered_cause: dict[int, str] = {}
        self._agreement: Agreement | None = None
        if second:
            self._agreement = Agreement(
                second, interlocks, self.table, self._trips, self._state, self._remembered_cause
            )
        self._collect()
        self._timed = (self.table.limits[plain.MIN_ON] > 0.0) | (self.table.limits[plain.MIN_OFF] > 0.0)
        self.present: Floats = np.full(len(envelopes), np.nan)

    @property
    def out(self) -> Floats:
        """The values to write; NaN where relinquished."""
        return self._state.out

    @property
    def relinquish(self) -> Bytes:
        """1 where the output is handed back to the equipment."""
        return self._state.relinquish

    @property
    def verdict(self) -> npt.NDArray[np.uint32]:
        """``Verdict`` bits."""
        return self._state.verdict

    @property
    def forced(self) -> Floats:
        """What the tripped interlocks force; NaN = relinquish where ``forced_flag`` is set, else nothing."""
        return self._trips.forced

    @property
    def forced_flag(self) -> Bytes:
        """1 where an interlock forces the output."""
        return self._trips.forced_flag

    @property
    def first_out(self) -> npt.NDArray[np.int32]:
        """The interlock that forced the output first, -1 for none."""
        return self._trips.first_out

    @property
    def status(self) -> Bytes:
        """``InterlockStatus`` of every interlock."""
        return self._trips.status

    @property
    def switched(self) -> Floats:
        """When each output last went on or off, control seconds; NaN = unknown. Durable where min_on or min_off needs it."""
        switched: Floats = self._state.memory[plain.SWITCHED]
        return switched

    @property
    def cause(self) -> npt.NDArray[np.int32]:
        """The row of the bad point behind the last trip, or ``CAUSE_CONDITION`` or ``CAUSE_NONE``; see
        :meth:`cause_text`.
        """
        return self._trips.cause

    @property
    def tripped(self) -> npt.NDArray[np.bool_]:
        """Which interlocks force their outputs."""
        status = self._trips.status
        return np.not_equal(status, InterlockStatus.CLEAR) & np.not_equal(status, InterlockStatus.PENDING)

    def evaluate(self, now: float, values: Floats, qualities: Bytes) -> bool:
        """Run every interlock on the input image, arrays (n_points,). Returns whether any status changed.

        Raises:
            SafetyError: ``now`` is not finite.
        """
        _check_clock(now)
        table, trips = self.interlocks, self._trips
        changed = self._kernels.evaluate(
            now, values, qualities,
            table.code, table.operand, table.program_start, table.input_start, table.inputs, table.delays, table.manual,
            table.trip_start, table.trip_output, table.trip_value, table.fail_safe,
            trips.status, trips.clocks, trips.cause, trips.forced, trips.forced_flag, trips.first_out,
        )  # fmt: skip
        if self._agreement is not None:
            if self._agreement.evaluate(now, values, qualities):
                self._collect()
            changed = self._agreement.changed()
        for k in [k for k in self._remembered_cause if self._trips.status[k] == InterlockStatus.CLEAR]:
            del self._remembered_cause[k]
        return bool(changed)

    def enforce(self, now: float, request: Floats, request_state: Bytes, due: Bytes) -> bool:
        """Turn requests, (n_out,), into ``out``, ``relinquish`` and ``verdict``; see the table in ``safety.kernels``.

        Returns whether the two channels of a critical unit came out differently: then all its outputs are at fail-safe.

        Raises:
            SafetyError: ``now`` is not finite.
        """
        _check_clock(now)
        table, state, trips = self.table, self._state, self._trips
        self._kernels.enforce(
            now, request, request_state, due, self.present,
            table.limits, table.allowed_start, table.allowed, table.pairs,
            trips.forced, trips.forced_flag,
            state.memory, state.marks, state.out, state.relinquish, state.verdict,
        )  # fmt: skip
        if self._agreement is None or not self._agreement.enforce(now, request, request_state, due, self.present):
            return False
        self._collect()
        return True

    def cause_text(self, k: int) -> str:
        """The cause of interlock ``k``'s last trip, in words."""
        if k in self._remembered_cause:
            return self._remembered_cause[k]
        cause = int(self._trips.cause[k])
        if cause == plain.CAUSE_NONE:
            return ""
        if cause == plain.CAUSE_CONDITION:
            row = self.interlocks.interlocks[k]
            return row.title if row.when is None else row.when
        return f"{self.interlocks.point_names[cause]} is bad, stale or missing"

    def tripped_at(self, k: int) -> float:
        """Control seconds of interlock ``k``'s last trip, NaN if it never tripped."""
        return float(self._trips.clocks[plain.TRIPPED_AT, k])

    def reset(self, name: str, now: float) -> ResetResult:
        """An operator's reset. Refused while the cause is live. It starts nothing: outputs move on the next fresh
        request, after min-off.

        Raises:
            InterlockError: there is no such interlock.
        """
        _check_clock(now)
        if name not in self._index:
            raise InterlockError(f"there is no interlock {name!r}; there are: {', '.join(self._index) or 'none'}")
        k = self._index[name]
        status = self._trips.status[k]
        if status == InterlockStatus.RESETTABLE:
            self._trips.status[k] = InterlockStatus.CLEAR
            self._remembered_cause.pop(k, None)
            if self._agreement is not None:
                self._agreement.reset(k)
            self._collect()  # else the next change of any other row would let the last, stale request through
            return ResetResult(True, "reset; outputs follow the next command")
        if status in (InterlockStatus.CLEAR, InterlockStatus.PENDING):
            return ResetResult(False, f"{name} is not tripped")
        if status == InterlockStatus.STARTUP:
            return ResetResult(False, f"{name} waits for its inputs: {self.cause_text(k) or 'not evaluated yet'}")
        if not self.interlocks.manual[k]:
            return ResetResult(False, f"{name} clears by itself; it is held by: {self.cause_text(k)}")
        return ResetResult(False, f"{name} is still live or its clear delay runs: {self.cause_text(k)}")

    def snapshot(self, now: float, utc: float) -> Remembered:
        """What must survive a restart, times in UTC. ``now`` and ``utc`` are the same instant on the two clocks."""
        trips = [
            TripRecord(row.name, utc - (now - self.tripped_at(k)), self.cause_text(k))
            for k, row in enumerate(self.interlocks.interlocks)
            if self._trips.status[k] in (InterlockStatus.TRIPPED, InterlockStatus.RESETTABLE)
        ]
        switches = list[SwitchRecord]()
        for i in np.flatnonzero(self._timed & ~np.isnan(self.switched)):
            is_on = bool(self._state.memory[plain.LAST, i] > self.table.limits[plain.MIDDLE, i])
            switches.append(SwitchRecord(self.table.names[i], is_on, utc - (now - float(self.switched[i]))))
        return Remembered(tuple(trips), tuple(switches))

    def restore(self, remembered: Remembered, now: float, utc: float) -> None:
        """Take up where the last process stopped: before the first evaluation. Unknown names are of an older
        configuration and are ignored.
        """
        _check_clock(now)
        if not remembered.trusted:
            for k in range(len(self.status)):
                self._trip_again(k, now, "the store of latches was damaged")
            self._collect()
            return
        for trip in remembered.trips:
            if trip.interlock in self._index:
                self._trip_again(self._index[trip.interlock], now - age(trip.tripped_utc, utc), trip.cause)
        self._collect()
        outputs = {name: i for i, name in enumerate(self.table.names)}
        for switch in remembered.switches:
            i = outputs.get(switch.output)
            if i is None:
                continue
            is_on = bool(self._state.memory[plain.LAST, i] > self.table.limits[plain.MIDDLE, i])
            if is_on == switch.on:  # else going to fail-safe at the start is itself a switch
                self._state.memory[plain.SWITCHED, i] = now - age(switch.switched_utc, utc)
                self._state.marks[plain.KNOWN, i] = 1
            if self._agreement is not None:
                self._agreement.switched(i, switch.on, now - age(switch.switched_utc, utc))

    def _trip_again(self, k: int, tripped_at: float, cause: str) -> None:
        self._trips.status[k] = InterlockStatus.TRIPPED
        self._trips.cause[k] = plain.CAUSE_CONDITION
        self._trips.clocks[plain.TRIPPED_AT, k] = tripped_at
        self._remembered_cause[k] = cause
        if self._agreement is not None:
            self._agreement.trip_again(k)

    def _collect(self) -> None:
        table, trips = self.interlocks, self._trips
        plain.collect(
            table.trip_start, table.trip_output, table.trip_value, table.fail_safe,
            trips.status, trips.clocks, trips.forced, trips.forced_flag, trips.first_out,
        )  # fmt: skip


def _check_clock(now: float) -> None:
    if not math.isfinite(now):
        raise SafetyError(f"the control clock reads {now}; it must be finite")
