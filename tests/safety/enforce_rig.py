"""A small site for the tests of Enforce: outputs, points, interlocks, and the arrays that drive one scan."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from types import SimpleNamespace

import numpy as np

from safety.enforcer import PLAIN, Enforcer
from safety.envelope import Envelope, RequestState
from safety.interlocks import Interlock, InterlockTable
from safety.values import Quality, Verdict

OK = RequestState.OK


def heating(**changes: object) -> Envelope:
    """A valve of 0 to 100 % that closes when anything is wrong."""
    return Envelope(**{"name": "z/heating", "low": 0.0, "high": 100.0, "fail_safe": 0.0, **changes})  # type: ignore[arg-type]


def cooling(**changes: object) -> Envelope:
    return heating(**{"name": "z/cooling", **changes})


def fan(**changes: object) -> Envelope:
    """A contact with minimum times."""
    row = {
        "name": "z/fan",
        "low": 0.0,
        "high": 1.0,
        "fail_safe": 0.0,
        "allowed": (0.0, 1.0),
        "min_on_s": 60.0,
        "min_off_s": 30.0,
    }
    return Envelope(**{**row, **changes})  # type: ignore[arg-type]


class Rig:
    """An Enforcer with its inputs. Points are good unless said otherwise."""

    def __init__(
        self,
        envelopes: Sequence[Envelope],
        exclusive: Sequence[tuple[int, int]] = (),
        interlocks: Sequence[Interlock] = (),
        points: Mapping[str, str] | None = None,
        kernels: SimpleNamespace = PLAIN,
    ) -> None:
        units = dict(points or {})
        self.index = {name: k for k, name in enumerate(units)}
        table = InterlockTable.build(interlocks, self.index, units, envelopes)
        self.enforcer = Enforcer(envelopes, exclusive, table, kernels)
        self.names = {envelope.name: k for k, envelope in enumerate(envelopes)}
        self.values = np.zeros(max(1, len(units)))
        self.qualities = np.full(max(1, len(units)), Quality.GOOD, np.uint8)

    def measure(self, name: str, value: float, quality: Quality = Quality.GOOD) -> None:
        self.values[self.index[name]] = value
        self.qualities[self.index[name]] = quality

    def evaluate(self, now: float) -> bool:
        return self.enforcer.evaluate(now, self.values, self.qualities)

    def scan(
        self,
        now: float,
        requests: Sequence[float] = (),
        states: Sequence[RequestState] | None = None,
        due: Sequence[int] | None = None,
    ) -> list[float]:
        """Evaluate and enforce. Without requests, nothing is due."""
        count = len(self.names)
        if not len(requests):
            requests, due = [math.nan] * count, [0] * count
        self.evaluate(now)
        self.enforcer.enforce(
            now,
            np.array(requests, np.float64),
            np.array([OK] * count if states is None else states, np.uint8),
            np.array([1] * count if due is None else due, np.uint8),
        )
        return [float(value) for value in self.enforcer.out]

    def verdict(self, output: int = 0) -> Verdict:
        return Verdict(int(self.enforcer.verdict[output]))
