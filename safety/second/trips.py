"""Interlocks, evaluated a second time: one object per row, one step per evaluation of the input image."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Final, Protocol, final

from safety.second.conditions import Reading, read

_GOOD: Final = 2
"""``Quality.GOOD``: nothing less proves that all is well."""
_NEVER: Final = Reading(lambda _values: False, frozenset())
_ALWAYS: Final = Reading(lambda _values: True, frozenset())


class Standing(IntEnum):
    """Where a row stands. The numbers are those of ``InterlockStatus``, so that the channels can be compared."""

    STARTUP = 0
    CLEAR = 1
    PENDING = 2
    TRIPPED = 3
    RESETTABLE = 4


class Row(Protocol):
    """An interlock as declared."""

    @property
    def name(self) -> str: ...
    @property
    def when(self) -> str | None: ...
    @property
    def trip(self) -> tuple[tuple[str, float | None], ...]: ...
    @property
    def scope(self) -> str: ...
    @property
    def delay_s(self) -> float: ...
    @property
    def manual(self) -> bool: ...
    @property
    def clear_when(self) -> str | None: ...
    @property
    def clear_delay_s(self) -> float: ...


@final
class Trip:
    """One row with its memory: since when it has been about to trip, or about to clear. A row without a condition trips
    only through :meth:`trip`.
    """

    def __init__(self, row: Row, points: Mapping[str, str], order: Mapping[str, int]) -> None:
        self.row = row
        self.standing = Standing.STARTUP
        self.tripped_once = False
        self._trips = _NEVER if row.when is None else read(row.when, points, order, row.scope)
        self._clears = _ALWAYS if row.clear_when is None else read(row.clear_when, points, order, row.scope)
        self.needed = [order[name] for name in sorted(self._trips.points | self._clears.points)]
        self._since: float | None = None

    @property
    def forces(self) -> bool:
        """Whether the row's outputs are forced."""
        return self.standing not in (Standing.CLEAR, Standing.PENDING)

    def trip(self) -> None:
        """Trip without a condition: what a restart remembers, and a disagreement of the channels."""
        self.standing, self.tripped_once, self._since = Standing.TRIPPED, True, None

    def reset(self) -> None:
        """Clear a row that waits for its reset; the caller has checked that it does."""
        if self.standing is Standing.RESETTABLE:
            self.standing, self._since = Standing.CLEAR, None

    def step(self, now: float, values: Mapping[int, float], qualities: Mapping[int, int]) -> None:
        """One evaluation at control time ``now``."""
        healthy = all(qualities[place] == _GOOD and math.isfinite(values[place]) for place in self.needed)
        if self.standing is Standing.STARTUP:
            if not healthy:
                return
            self.standing = Standing.CLEAR
        if self.forces:
            self._while_tripped(now, healthy and self._all_is_well(values))
        else:
            self._while_clear(now, healthy, healthy and self._trips.test(values))

    def _all_is_well(self, values: Mapping[int, float]) -> bool:
        return not self._trips.test(values) and self._clears.test(values)

    def _while_clear(self, now: float, healthy: bool, holds: bool) -> None:
        if healthy and not holds:
            self.standing, self._since = Standing.CLEAR, None
            return
        if self._since is None:
            self._since = now
        if not healthy or now - self._since >= self.row.delay_s:
            self.standing, self.tripped_once, self._since = Standing.TRIPPED, True, None
        else:
            self.standing = Standing.PENDING

    def _while_tripped(self, now: float, well: bool) -> None:
        if not well:
            self.standing, self._since = Standing.TRIPPED, None
            return
        if self._since is None:
            self._since = now
        if now - self._since >= self.row.clear_delay_s:
            if self.row.manual:
                self.standing = Standing.RESETTABLE
            else:
                self.standing, self._since = Standing.CLEAR, None


@final
@dataclass(frozen=True, slots=True)
class Order:
    """What the tripped rows force on one output. ``value`` None: relinquish. ``first``: the row that did so first."""

    value: float | None
    first: Trip


@final
class Trips:
    """All rows of a unit, and what they force."""

    def __init__(
        self,
        rows: Sequence[Row],
        points: Mapping[str, str],
        order: Mapping[str, int],
        fail_safe: Mapping[str, float | None],
    ) -> None:
        self.rows = [Trip(row, points, order) for row in rows]
        self._fail_safe = fail_safe
        self.orders: dict[str, Order] = {}
        """What is forced, by output, as of the last evaluation or reset."""
        self.gather()

    def step(self, now: float, values: Mapping[int, float], qualities: Mapping[int, int]) -> None:
        """Evaluate every row; by the points' rows in the input image, their values and qualities."""
        for trip in self.rows:
            trip.step(now, values, qualities)
        self.gather()

    def gather(self) -> None:
        """Work out what is forced on which output: its fail-safe value if any row forces that, else what the first row says.

        The first-out is kept until nothing forces the output; a row that only waits for its inputs gives way to a trip.
        """
        before, self.orders = self.orders, {}
        for output, fail_safe in self._fail_safe.items():
            said = [
                (trip, value) for trip in self.rows if trip.forces for name, value in trip.row.trip if name == output
            ]
            if not said:
                continue
            forcing, values = [trip for trip, _ in said], [value for _, value in said]
            first = before[output].first if output in before else forcing[0]
            if not first.tripped_once:
                waiting = first if first in forcing else forcing[0]
                first = next((trip for trip in forcing if trip.tripped_once), waiting)
            self.orders[output] = Order(fail_safe if fail_safe in values else values[0], first)
