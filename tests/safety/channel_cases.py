"""Random sites for comparing the two channels: tables, conditions, and sequences of inputs, requests and clock steps.

Everything is drawn with ``pick`` (one of a list), so that hypothesis and a seeded generator make the same kinds of case. Values crowd
where channels could differ: at thresholds and limits, one to five steps of a float beside them, and what is no number.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np

from safety.enforcer import PLAIN, Enforcer
from safety.envelope import Envelope, RequestState
from safety.interlocks import Interlock, InterlockTable
from safety.second.channel import Asked, Given, SecondChannel
from safety.values import Quality, Verdict

Pick = Callable[[Sequence[Any]], Any]

UNITS = {
    "u/temp": "Cel",
    "u/flow_temp": "[degF]",
    "u/static": "Pa",
    "u/level": "%",
    "u/open": "1",
    "w/run": "1",
    "u/mode": "1",
}
LIMITS = {"temp": 4.4, "flow_temp": 40.0, "static": 750.0, "level": 10.0}
LEVELS = {"temp": "2.5 Cel", "flow_temp": "1.5 Cel", "static": "3 [in_i'H2O]", "level": "0.4 1"}
COMPARE = ("<", "<=", ">", ">=")
STEPS = (0.0, 0.1, 1.0, math.nextafter(5.0, 0.0), 5.0, 5.0, math.nextafter(5.0, 9.0), 60.0, 1e6)
WAITS = (0.0, 0.0, 5.0, 60.0)


def beside(value: float, steps: int) -> float:
    """The float so many steps away."""
    toward = math.inf if steps > 0 else -math.inf
    for _ in range(abs(steps)):
        value = math.nextafter(value, toward)
    return value


def comparison(pick: Pick) -> str:
    """One comparison, contact or double comparison."""
    kind = pick(("number", "unit", "points", "double", "contact", "mode", "mirrored"))
    if kind == "contact":
        return str(pick(("open", "w/run", "open == on", "open == off", "off != w/run", "not open", "mode > 1.5")))
    if kind == "mode":
        return f"mode {pick(('==', '!='))} {pick((0, 2, 3))}"
    if kind == "points":
        return str(
            pick(
                (
                    "temp < flow_temp",
                    "flow_temp >= temp",
                    "open > w/run",
                    "temp <= temp",
                    "flow_temp < temp < 90 [degF]",
                )
            )
        )
    name = pick(tuple(LIMITS))
    sign, other = pick(COMPARE), pick(COMPARE)
    if kind == "number":
        return f"{name} {sign} {LIMITS[name]}"
    if kind == "unit":
        return f"{name} {sign} {LEVELS[name]}"
    if kind == "mirrored":
        return f"{LEVELS[name]} {sign} {name}"
    return f"{LEVELS[name]} {sign} {name} {sign[0]}{'=' * len(other[1:])} {LIMITS[name]}"


def condition(pick: Pick, depth: int = 0) -> str:
    """A condition of up to four levels."""
    form = "plain" if depth > 3 else pick(("plain", "plain", "not", "and", "or", "mixed"))
    if form == "plain":
        return comparison(pick)
    inside = condition(pick, depth + 1)
    if form == "not":
        return f"not ({inside})"
    if form == "mixed":
        return f"({inside}) and {comparison(pick)} or not {comparison(pick)}"
    return f"{inside} {form} {comparison(pick)}"


def envelope(pick: Pick, name: str) -> Envelope:
    """Any envelope that can be declared."""
    low, high = pick(((0.0, 100.0), (0.0, 1.0), (-50.0, 10.0), (4.0, 20.0), (-1e300, 1e300), (0.0, 1e-300)))
    allowed = pick((None, None, (low, 0.5 * low + 0.5 * high, high), (0.75 * low + 0.25 * high, high)))
    values = allowed or (low, high, 0.5 * low + 0.5 * high, 0.9 * low + 0.1 * high)
    span = high - low
    step = None if allowed else pick((None, 0.01, 0.3))
    rate = None if allowed else pick((None, 0.001, 0.1, 5.0))
    dead = pick((0.0, 0.005, 0.1))
    if step is not None:
        dead = min(dead, 0.5 * step)
    return Envelope(
        name, low, high, pick((None, *values)),
        max_step=None if step is None else step * span, max_rate=None if rate is None else rate * span,
        dead_band=dead * span, allowed=allowed, min_on_s=pick(WAITS), min_off_s=pick(WAITS),
    )  # fmt: skip


@dataclass(frozen=True)
class Site:
    """The declared rows of one case."""

    envelopes: tuple[Envelope, ...]
    pairs: tuple[tuple[int, int], ...]
    interlocks: tuple[Interlock, ...]


def site(pick: Pick) -> Site:
    """One to four outputs, any pairs, up to four interlocks."""
    rows = tuple(envelope(pick, f"u/o{i}") for i in range(pick((1, 2, 3, 4))))
    both_on = [row.fail_safe is not None and row.fail_safe > row.idle for row in rows]
    pairs = tuple(
        (a, b)
        for a in range(len(rows))
        for b in range(a + 1, len(rows))
        if not (both_on[a] and both_on[b]) and pick((True, False))
    )
    interlocks = []
    for k in range(pick((0, 1, 2, 4))):
        trip = []
        for row in rows:
            if pick((True, False)) or (row is rows[-1] and not trip):
                values = row.allowed or (row.low, row.high, 0.5 * row.low + 0.5 * row.high)
                trip.append((row.name, pick((*values, *((None,) if row.fail_safe is None else (row.fail_safe,))))))
        when, clear_when = condition(pick), condition(pick) if pick((True, False)) else None
        interlocks.append(
            Interlock(
                f"u/i{k}",
                when,
                tuple(trip),
                "u",
                delay_s=pick(WAITS),
                manual=pick((True, False)),
                clear_when=clear_when,
                clear_delay_s=pick(WAITS),
            )
        )
    return Site(rows, pairs, tuple(interlocks))


def reading(pick: Pick, point: str) -> float:
    """A value of a point, near what the conditions compare it with."""
    if UNITS[point] == "1":
        return float(pick((0.0, 1.0, 1.0, 0.5, beside(0.5, 1), beside(0.5, -1), 2.0, 3.0, -0.0)))
    name = point.partition("/")[2]
    near = {
        "temp": (4.4, 2.5, 32.2),
        "flow_temp": (40.0, 34.7, 90.0, 39.92),
        "static": (750.0, 747.267),
        "level": (10.0, 40.0),
    }[name]
    return beside(pick((*near, 0.0, 60.0, 1e4)), pick((0, 0, 1, -1, 2, -2, 5, -5)))


def request(pick: Pick, row: Envelope) -> float:
    """A request, near what the envelope compares it with."""
    edges = (row.low, row.high, row.middle, row.idle, *(row.allowed or ()), 0.0)
    span = row.high - row.low
    if pick((True, False)):
        return beside(pick(edges), pick((0, 0, 1, -1, 5, -5)))
    far = (row.middle + 0.3 * span, row.low + 0.101 * span, row.high + span, row.low - 0.5 * span)
    return float(
        pick((*far, row.low + 0.7 * span, row.middle + 1e-9 * span, math.nan, math.inf, -math.inf, 5e-324, 1.7e308))
    )


QUALITIES = (Quality.GOOD,) * 12 + (Quality.BAD, Quality.UNCERTAIN)
STATES = (RequestState.OK,) * 6 + (*RequestState, 8, 255)


class TwoChannels:
    """An Enforcer and a second channel on the same site, the same inputs and the same clock."""

    def __init__(self, case: Site, kernels: SimpleNamespace = PLAIN, units: Mapping[str, str] = UNITS) -> None:
        self.case = case
        order = {name: k for k, name in enumerate(units)}
        table = InterlockTable.build(case.interlocks, order, units, case.envelopes)
        self.first = Enforcer(case.envelopes, case.pairs, table, kernels)
        self.second = SecondChannel(
            dict(enumerate(case.envelopes)), case.pairs, dict(enumerate(case.interlocks)), units, order
        )
        self.values = np.zeros(len(units))
        self.qualities = np.full(len(units), Quality.GOOD, np.uint8)
        self.now = 1000.0
        self.compared = 0

    def given(self) -> Given:
        """What the kernel says."""
        one = self.first
        return Given(one.status, one.forced, one.forced_flag, one.out, one.relinquish)

    def scan(self, requests: Sequence[float], states: Sequence[int], due: Sequence[int]) -> None:
        """Evaluate and enforce in both channels."""
        self.evaluate()
        self.enforce(requests, states, due)

    def evaluate(self) -> None:
        """Interlocks in both channels, compared."""
        before = self.first.status.copy()
        changed = self.first.evaluate(self.now, self.values, self.qualities)
        assert changed == bool((before != self.first.status).any())
        self.second.evaluate(self.now, self.values, self.qualities)
        self.compare()

    def enforce(self, requests: Sequence[float], states: Sequence[int], due: Sequence[int]) -> None:
        """Outputs in both channels, compared."""
        request, state = np.array(requests, np.float64), np.array(states, np.uint8)
        flags = np.array(due, np.uint8)
        self.first.enforce(self.now, request, state, flags)
        self.second.enforce(self.now, Asked(request, state, flags, self.first.present))
        self.compare()

    def compare(self) -> None:
        """Everything the kernel says must be what the second channel says: bit for bit, every cause included."""
        given = self.given()
        assert self.second.disagreement(given) == ""
        assert self.second.differing(given) == {}
        orders = self.second.trips.orders
        for i, output in self.second.outputs.items():
            out = float(given.out[i])
            assert output.value == out or (output.value is None and math.isnan(out)), (i, output.value, out)
            verdict = Verdict(int(self.first.verdict[i]))
            assert output.verdict == verdict, (i, output.verdict, verdict)
            first = int(self.first.first_out[i])
            order = orders.get(output.envelope.name)
            name = self.case.interlocks[first].name if first >= 0 else None
            assert name == (order.first.row.name if order else None), (i, name, order)
            self.compared += 1

    def random_scan(self, pick: Pick) -> None:
        """One scan of whatever may happen, resets included."""
        self.now += pick(STEPS)
        for k, point in enumerate(UNITS):
            if pick((True, False, False)):
                self.values[k] = pick((math.nan, math.inf)) if pick(range(20)) == 0 else reading(pick, point)
                self.qualities[k] = pick(QUALITIES)
        rows = self.case.envelopes
        self.first.present[:] = [pick((math.nan, row.low, row.middle, row.high, math.inf, -math.inf)) for row in rows]
        self.scan(
            [request(pick, row) for row in rows], [pick(STATES) for _ in rows], [pick((1, 1, 1, 0)) for _ in rows]
        )
        for k, row in enumerate(self.case.interlocks):
            if pick((True, False, False)) and self.first.reset(row.name, self.now).accepted:
                self.second.reset(k)
        if pick((True, False, False)):  # a scan may come before the next evaluation
            self.enforce(
                [request(pick, row) for row in rows], [pick(STATES) for _ in rows], [pick((1, 0)) for _ in rows]
            )
