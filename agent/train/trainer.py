"""The trainer: feedback in, proposals out. A pure object: no sockets, no clock of its own, no threads.

The worker process feeds it from a socket; the lock-step simulation feeds it directly. It collects each unit's feedback
over a window, lets the unit's learner make one step of it, and proposes the new value. A proposal changes nothing here
until core answers ``applied``; one that stays unanswered is followed by that of the next window.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Final

from agent.train.ewma import EwmaLearner, EwmaSettings
from agent.train.messages import Answer, EwmaSpec, Feedback, Message, Proposal, Units, UnitSpec
from agent.train.store import FeedbackWindow, LearningStore

GOOD: Final = 2
"""``safety.values.Quality.GOOD``; written out because the worker loads nothing but this package."""

MIN_SAMPLES: Final = 5
"""Good samples a window needs: with fewer a single odd scan would decide the step."""

MIN_GOOD_SHARE: Final = 0.5
"""Of the samples that count: with more of them bad, what is left need not be typical."""


class Trainer:
    """Learns for the units core names. ``utc`` (seconds since the epoch) dates what no feedback message dates.

    Raises:
        StoreError: from ``feed`` too, when the store cannot be written: what cannot be recorded is not proposed.
    """

    def __init__(self, units: Iterable[UnitSpec], store: LearningStore, *, utc: Callable[[], float]) -> None:
        self._store = store
        self._utc = utc
        self._learning: dict[str, _UnitLearning] = {}
        self._add(units)

    def feed(self, message: Message) -> list[Proposal]:
        """Take one message from core and return the proposals it leads to; messages of unknown units are ignored."""
        if isinstance(message, Feedback):
            learning = self._learning.get(message.unit)
            return [] if learning is None else learning.take(message)
        if isinstance(message, Units):
            self._add(message.units)
        elif isinstance(message, Answer):
            self._answer(message)
        return []

    def _add(self, units: Iterable[UnitSpec]) -> None:
        for spec in units:
            self._store.adopt(spec.unit, spec.parameters, utc=self._utc())
            if spec.ewma is not None and spec.ewma.parameter in spec.parameters:
                self._learning[spec.unit] = _UnitLearning(spec, spec.ewma, self._store)
            else:
                self._learning.pop(spec.unit, None)

    def _answer(self, answer: Answer) -> None:
        if not answer.applied:
            self._store.refuse(answer.unit, answer.parameter, answer.version, answer.why)
            return
        row = self._store.activate(answer.unit, answer.parameter, answer.version)
        learning = self._learning.get(answer.unit)
        if learning is not None and learning.parameter == answer.parameter:
            learning.applied(row.value)


class _UnitLearning:
    """One unit's window and learner."""

    def __init__(self, spec: UnitSpec, ewma: EwmaSpec, store: LearningStore) -> None:
        state = spec.parameters[ewma.parameter]
        self.parameter: Final = ewma.parameter
        self._unit = spec.unit
        self._window_s = ewma.window
        self._learn = ewma.learn
        self._factory = state.factory
        self._in_force = state.value
        self._store = store
        self._learner = EwmaLearner(EwmaSettings(ewma.gain, ewma.weight, state.low, state.high, state.max_step))
        self._learner.restore(store.learner_state(spec.unit, ewma.parameter))
        self._sums = _WindowSums(math.nan)

    def take(self, feedback: Feedback) -> list[Proposal]:
        """Add one scan; the first scan past the window's end closes it and begins the next."""
        proposals: list[Proposal] = []
        elapsed = feedback.t - self._sums.start
        if not 0.0 <= elapsed < self._window_s:  # also the very first scan, and a control clock that began anew
            if elapsed >= self._window_s:
                proposals = self._close(feedback.utc)
            self._sums = _WindowSums(feedback.t)
        self._sums.add(feedback)
        return proposals

    def applied(self, value: float) -> None:
        """The value is in force from here on: the window begins anew with it."""
        self._in_force = value
        self._sums = _WindowSums(math.nan)

    def _close(self, utc: float) -> list[Proposal]:
        sums = self._sums
        if sums.counted == 0:
            return []  # a night, an idle tool: nothing to tell
        if sums.good < MIN_SAMPLES or sums.good < MIN_GOOD_SHARE * sums.counted:
            self._record(utc, f"not used: {sums.good} good samples of {sums.counted}")
            return []
        step = self._learner.step(self._in_force, sums.value / sums.good, sums.target / sums.good)
        self._record(utc, step.reason if self._learn else f"learning is off; {step.reason}")
        if step.value is None or not self._learn:
            return []
        reason = f"{step.reason} ({sums.good} good samples of {sums.counted})"
        row = self._store.propose(
            self._unit,
            self.parameter,
            step.value,
            factory=self._factory,
            reason=reason,
            utc=utc,
            standard_error=step.standard_error,
        )
        return [Proposal(self._unit, self.parameter, step.value, row.version, reason, step.standard_error)]

    def _record(self, utc: float, outcome: str) -> None:
        sums = self._sums
        mean = sums.value / sums.good if sums.good else None
        target = sums.target / sums.good if sums.good else None
        window = FeedbackWindow(self._unit, utc, self._in_force, mean, target, sums.good, sums.counted, outcome)
        self._store.add_window(window, self.parameter, self._learner.state())


class _WindowSums:
    """The running sums of one window; nothing else of its samples is kept."""

    __slots__ = ("counted", "good", "start", "target", "value")

    def __init__(self, start: float) -> None:
        self.start = start
        self.value = 0.0
        self.target = 0.0
        self.good = 0
        self.counted = 0

    def add(self, feedback: Feedback) -> None:
        if not feedback.counts:
            return
        self.counted += 1
        if feedback.quality == GOOD and math.isfinite(feedback.value) and math.isfinite(feedback.target):
            self.good += 1
            self.value += feedback.value
            self.target += feedback.target
