"""Train, the decorator's side: learned parameters into the next call, records of calls out to the store.

It never fails a call.
"""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Mapping
from typing import Any, Final

from agent.poet.log import logger
from agent.poet.parameters import IN_USE, CallRecord, ParameterStore
from agent.poet.plugins import Learnable
from agent.poet.settings import LearningMode

BATCH: Final = 32
"""Records handed over together in the modes batch and hybrid; also the most that are held."""
LOAD_LIMIT: Final = 2.0
"""Runnable processes per CPU above which learning is shed: control comes first."""
LOAD_CHECK_S: Final = 5.0


class Trainer:
    """The learning of one function."""

    def __init__(self, function: str, mode: LearningMode, learnable: Mapping[str, Learnable | None]) -> None:
        self._function = function
        self._mode = mode
        self._learnable = learnable
        self._lock = threading.Lock()
        self._pending: list[CallRecord] = []
        self._complained: set[str] = set()
        self.shed = 0
        """Records not handed over because the machine was short of CPU."""

    @property
    def active(self) -> bool:
        """Whether there is a store and learning is not off."""
        return IN_USE.store is not None and self._mode is not LearningMode.OFF

    def learned(self, given: Mapping[str, Any]) -> dict[str, float]:
        """The learned values of the parameters that the caller has not given. A value outside its range is not used."""
        store = IN_USE.store
        if store is None or self._mode is LearningMode.OFF:
            return {}
        values = {}
        for name, limits in self._learnable.items():
            if name not in given:
                value = self._value(store, name, limits)
                if value is not None:
                    values[name] = value
        return values

    def record(self, record: CallRecord) -> None:
        """Hand a record over, at once or with others as the mode says."""
        store = IN_USE.store
        if store is None or self._mode is LearningMode.OFF:
            return
        if _overloaded():
            self.shed += 1
            return
        good = record.outcome == "ok" and record.score is None
        if self._mode is LearningMode.ON or (self._mode is LearningMode.HYBRID and not good):
            self._hand_over(store, [record])
            return
        with self._lock:
            self._pending.append(record)
            ready, self._pending = (self._pending, []) if len(self._pending) >= BATCH else ([], self._pending)
        self._hand_over(store, ready)

    def flush(self) -> None:
        """Hand over what is held. For the end of a process."""
        with self._lock:
            ready, self._pending = self._pending, []
        if IN_USE.store is not None:
            self._hand_over(IN_USE.store, ready)

    def _value(self, store: ParameterStore, name: str, limits: Learnable | None) -> float | None:
        try:
            value = store.get(self._function, name)
        except Exception as error:  # noqa: BLE001  (a broken store must not stop control: the factory value holds)
            self._complain(name, f"the parameter store failed ({error}): the default is used")
            return None
        if value is None:
            return None
        if not math.isfinite(value) or (limits is not None and not limits.low <= value <= limits.high):
            self._complain(name, f"the learned value {value:g} is outside its range: the default is used")
            return None
        return value

    def _hand_over(self, store: ParameterStore, records: list[CallRecord]) -> None:
        for record in records:
            try:
                store.record(record)
            except Exception as error:  # noqa: BLE001  (as above; the record is lost, the call is not)
                self._complain("record", f"the parameter store takes no record ({error})")
                return

    def _complain(self, about: str, message: str) -> None:
        """Once per parameter: the same fault at every call is one fault."""
        if about not in self._complained:
            self._complained.add(about)
            logger().warning("poet.train", function=self._function, parameter=about, problem=message)


class _Load:
    """The machine's load, looked at now and then."""

    def __init__(self) -> None:
        self._looked = -math.inf
        self._high = False

    def high(self) -> bool:
        now = time.monotonic()
        if now - self._looked >= LOAD_CHECK_S:
            self._looked = now
            self._high = os.getloadavg()[0] > LOAD_LIMIT * (os.cpu_count() or 1)
        return self._high


_overloaded = _Load().high
