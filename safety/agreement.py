"""Both channels of the critical units, run live and compared; where they disagree the unit is tripped.

A disagreement is a trip like any other, of a row that has no condition: latched, manual, kept over a restart, and live
for as long as the channels disagree. It sends every output of the unit to its fail-safe value at once. The minimum
times do not hold it back: they are part of what the channels may disagree about.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Final, final

import numpy as np

from safety import kernels as plain
from safety.envelope import Envelope
from safety.envelope_table import Bytes, EnforceState, EnvelopeTable, Floats
from safety.interlocks import Interlock, InterlockState, InterlockStatus, InterlockTable
from safety.second.channel import DISAGREE, Asked, Given, SecondChannel
from safety.values import Verdict

CAUSE: Final = "the two channels disagree"


def disagreement_row(unit: str, envelopes: Sequence[Envelope]) -> Interlock:
    """The row that stands for a disagreement: forces every output of the unit to its fail-safe value."""
    outputs = tuple((row.name, row.fail_safe) for row in envelopes if _is_of(unit, row.name))
    title = "The two channels of the safety layer disagree; the agent or its machine is at fault"
    return Interlock(f"{unit}/{DISAGREE}", None, outputs, manual=True, title=title)


def second_channel(
    unit: str,
    envelopes: Sequence[Envelope],
    exclusive: Sequence[tuple[int, int]],
    interlocks: Sequence[Interlock],
    point_index: Mapping[str, int],
    point_units: Mapping[str, str],
) -> SecondChannel:
    """The second channel of one unit of a site; arguments as for ``EnvelopeTable.build`` and ``InterlockTable.build``.

    Raises:
        ExpressionError: it cannot read a condition.
    """
    return SecondChannel(
        {place: row for place, row in enumerate(envelopes) if _is_of(unit, row.name)},
        exclusive,
        {place: row for place, row in enumerate(interlocks) if _is_of(unit, row.name)},
        point_units,
        point_index,
    )


def _is_of(unit: str, name: str) -> bool:
    return name.startswith(f"{unit}/")


@final
class Agreement:
    """The second channels of a site, beside the state of the kernel. It changes that state only where they disagree."""

    def __init__(
        self,
        channels: Sequence[SecondChannel],
        table: InterlockTable,
        envelopes: EnvelopeTable,
        trips: InterlockState,
        state: EnforceState,
        causes: dict[int, str],
    ) -> None:
        """``causes``: row of the interlock → its cause in words, where that is not its condition; written here."""
        self._trips = trips
        self._state = state
        self._limits = envelopes.limits
        self._given = Given(trips.status, trips.forced, trips.forced_flag, state.out, state.relinquish)
        self._channels = [(_row_of(channel, table), channel) for channel in channels]
        self._channel_of_row = {place: channel for channel in channels for place in channel.rows}
        self._output = {place: channel.outputs[place] for channel in channels for place in channel.outputs}
        self._seen = trips.status.copy()
        self._causes = causes
        self._differs: dict[int, str] = {}
        """Row → what came out differently when its unit was last enforced."""

    def evaluate(self, now: float, values: Floats, qualities: Bytes) -> bool:
        """After the kernel: evaluate again, and compare. Returns whether what is forced must be collected anew."""
        tripped = False
        for row, channel in self._channels:
            channel.evaluate(now, values, qualities)
            about = channel.disagreement(self._given) or self._differs.get(row, "")
            if about:
                self._trip(row, channel, now, about)
                tripped = True
        return tripped

    def changed(self) -> bool:
        """Whether any status has changed since the last call, whoever changed it."""
        if np.array_equal(self._seen, self._trips.status):
            return False
        self._seen = self._trips.status.copy()
        return True

    def enforce(self, now: float, request: Floats, request_state: Bytes, due: Bytes, present: Floats) -> bool:
        """After the kernel: enforce again, and compare; where the outputs differ they are fail-safe when this returns.
        Returns whether what is forced must be collected anew.
        """
        tripped = False
        asked = Asked(request, request_state, due, present)
        for row, channel in self._channels:
            channel.enforce(now, asked)
            differing = channel.differing(self._given)
            self._differs.pop(row, None)
            if differing:
                self._differs[row] = "; ".join(differing.values())
                self._trip(row, channel, now, self._differs[row])
                for place, output in channel.outputs.items():
                    output.force_fail_safe(now)
                    self._force_fail_safe(place, now)
                tripped = True
        return tripped

    def trip_again(self, k: int) -> None:
        """Take up a trip from before a restart, if it is of a critical unit."""
        if k in self._channel_of_row:
            self._channel_of_row[k].trip(k)

    def switched(self, place: int, on: bool, at: float) -> None:
        """Take up when an output last switched, if it is of a critical unit."""
        if place in self._output:
            self._output[place].remember_switch(on, at)

    def reset(self, k: int) -> None:
        """Follow an accepted reset, which is no change that :meth:`changed` would tell."""
        self._seen[k] = InterlockStatus.CLEAR
        if k in self._channel_of_row:
            self._channel_of_row[k].reset(k)

    def _trip(self, row: int, channel: SecondChannel, now: float, about: str) -> None:
        if self._trips.status[row] in (InterlockStatus.CLEAR, InterlockStatus.PENDING, InterlockStatus.STARTUP):
            self._trips.clocks[plain.TRIPPED_AT, row] = now
            self._causes[row] = f"{CAUSE}: {about}"
        self._trips.status[row] = InterlockStatus.TRIPPED
        self._trips.cause[row] = plain.CAUSE_CONDITION
        self._trips.clocks[plain.CLEAR_SINCE, row] = math.nan
        channel.trip(row)

    def _force_fail_safe(self, place: int, now: float) -> None:
        state, middle = self._state, self._limits[plain.MIDDLE, place]
        value, last = self._limits[plain.FAIL_SAFE, place], state.memory[plain.LAST, place]
        if (value > middle) != (last > middle) or math.isnan(value) != math.isnan(last):
            state.memory[plain.SWITCHED, place] = now
            state.marks[plain.KNOWN, place] = 1
        state.memory[plain.LAST, place] = value
        state.memory[plain.MADE, place] = now
        state.marks[plain.GOOD, place] = 0
        state.marks[plain.RANK, place] = plain.RANK_FORCED
        state.out[place] = value
        state.relinquish[place] = 1 if math.isnan(value) else 0
        causes = int(state.verdict[place]) & plain.CAUSES
        state.verdict[place] = causes | int(Verdict.TRIPPED | Verdict.FAIL_SAFE)


def _row_of(channel: SecondChannel, table: InterlockTable) -> int:
    return next(place for place in channel.rows if table.interlocks[place].name.endswith(f"/{DISAGREE}"))
