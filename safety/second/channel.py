"""The second channel of one critical unit: its rows and its outputs evaluated again beside the kernel, and compared.

Only what moves equipment is compared: where each interlock stands, what is forced, what comes out. Values may differ by
the tolerance of the output (a billionth of its span), because the two channels round on their own.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol, final

from safety.envelope import Envelope
from safety.second.outputs import Ask, Output, enforce
from safety.second.trips import Order, Row, Standing, Trips

DISAGREE: Final = "channels_disagree"
"""The name of the row that every critical unit has: tripped where its channels disagree."""


class Numbers(Protocol):
    """A column of numbers; in practice a numpy array."""

    def __getitem__(self, index: int, /) -> float: ...


@final
@dataclass(frozen=True, slots=True)
class Asked:
    """The columns that ``enforce`` is called with, over all outputs of the site."""

    request: Numbers
    state: Numbers
    due: Numbers
    present: Numbers


@final
@dataclass(frozen=True, slots=True)
class Given:
    """What the other channel made of it: columns over all interlocks (``status``) and all outputs of the site."""

    status: Numbers
    forced: Numbers
    forced_flag: Numbers
    out: Numbers
    relinquish: Numbers


@final
class SecondChannel:
    """One unit. ``rows`` and ``outputs`` are places in the site's columns."""

    def __init__(
        self,
        envelopes: Mapping[int, Envelope],
        pairs: Sequence[tuple[int, int]],
        interlocks: Mapping[int, Row],
        points: Mapping[str, str],
        order: Mapping[str, int],
    ) -> None:
        """Take the unit's rows.

        Args:
            envelopes: of the unit's outputs, by their place.
            pairs: places of outputs that exclude each other; pairs of other units are left out.
            interlocks: the unit's rows, by their place.
            points: full point name → UCUM code.
            order: full point name → its row in the input image.

        Raises:
            ExpressionError: a condition that this channel cannot read.
        """
        self.outputs = {place: Output(envelope) for place, envelope in envelopes.items()}
        self.trips = Trips(
            list(interlocks.values()), points, order, {one.name: one.fail_safe for one in envelopes.values()}
        )
        self.rows = dict(zip(interlocks, self.trips.rows, strict=True))
        self._needed = sorted({place for trip in self.trips.rows for place in trip.needed})
        places = {place: at for at, place in enumerate(envelopes)}
        self._pairs = [(places[one], places[other]) for one, other in pairs if one in places and other in places]

    def evaluate(self, now: float, values: Numbers, qualities: Numbers) -> None:
        """Evaluate the unit's interlocks on the input image."""
        needed = self._needed
        self.trips.step(now, {at: float(values[at]) for at in needed}, {at: int(qualities[at]) for at in needed})

    def enforce(self, now: float, asked: Asked) -> None:
        """Turn the unit's requests into outputs."""
        orders = self.trips.orders
        enforce(now, list(self.outputs.values()), self._pairs, [
            Ask(
                float(asked.request[place]), int(asked.state[place]), bool(asked.due[place]), float(asked.present[place]),
                _value(orders.get(output.envelope.name)),
            )
            for place, output in self.outputs.items()
        ])  # fmt: skip

    def trip(self, place: int) -> None:
        """Trip one row without its condition: remembered from before a restart, or the channels disagree."""
        self.rows[place].trip()
        self.trips.gather()

    def reset(self, place: int) -> None:
        """Follow an accepted reset."""
        self.rows[place].reset()
        self.trips.gather()

    def disagreement(self, given: Given) -> str:
        """What the channels disagree about, in words; empty if they agree."""
        for place, trip in self.rows.items():
            if trip.standing != given.status[place]:
                return (
                    f"{trip.row.name} is {trip.standing.name.lower()} here and {_standing(given.status[place])} there"
                )
        orders = self.trips.orders
        for place, output in self.outputs.items():
            ordered = _value(orders.get(output.envelope.name))
            flagged = bool(given.forced_flag[place])
            if bool(ordered) != flagged or (ordered and not _same(ordered[0], given.forced[place], output)):
                return f"{output.envelope.name} is not forced alike"
        return ""

    def differing(self, given: Given) -> dict[int, str]:
        """The outputs that the channels command differently: place → in words."""
        return {
            place: f"{output.envelope.name} is {_text(output.value)} here and {_text(given.out[place])} there"
            for place, output in self.outputs.items()
            if bool(given.relinquish[place]) != (output.value is None)
            or not _same(output.value, given.out[place], output)
        }


def _value(order: Order | None) -> tuple[float | None, ...]:
    return () if order is None else (order.value,)


def _same(mine: float | None, theirs: float, output: Output) -> bool:
    if mine is None or math.isnan(theirs):
        return mine is None and math.isnan(theirs)
    return abs(mine - theirs) <= output.envelope.tolerance


def _standing(code: float) -> str:
    return Standing(int(code)).name.lower() if code in list(Standing) else f"{int(code)}"


def _text(value: float | None) -> str:
    return "relinquished" if value is None or math.isnan(value) else f"{value:g}"
