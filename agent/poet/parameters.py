"""Learned parameters: where they come from, and how what happened gets to whoever learns.

The store is any object with ``get`` and ``record``. It is asked at every call, so what it learned is used by the very
next one.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Mapping
from typing import Any, Final, NamedTuple, Protocol

KEPT_RECORDS: Final = 1000


class CallRecord(NamedTuple):
    """What is handed to a learner of one call: good or bad, failures train too.

    ``score`` is a person's or a meter's judgement, if any.
    """

    function: str
    outcome: str
    causes: tuple[str, ...]
    inputs: Mapping[str, Any]
    result: Any
    duration_s: float
    score: float | None = None


class ParameterStore(Protocol):
    """Where learned parameters come from and records go."""

    def get(self, function: str, name: str) -> float | None:
        """The value in force of a keyword parameter, None for the function's own default.

        Must be quick: it is in the call's path.
        """

    def record(self, record: CallRecord) -> None:
        """Take note of a call."""


class InMemoryParameters:
    """A store for scripts and tests: values are set by hand, the last records are kept."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._values: dict[tuple[str, str], float] = {}
        self._records: deque[CallRecord] = deque(maxlen=KEPT_RECORDS)

    def get(self, function: str, name: str) -> float | None:
        """See :class:`ParameterStore`."""
        return self._values.get((function, name))

    def set(self, function: str, name: str, value: float) -> None:
        """Put a value in force from the next call on."""
        with self._lock:
            self._values[(function, name)] = value

    def record(self, record: CallRecord) -> None:
        """See :class:`ParameterStore`."""
        self._records.append(record)

    @property
    def records(self) -> tuple[CallRecord, ...]:
        """The last records, oldest first."""
        return tuple(self._records)


class _InUse:
    """The process's store; a holder, so that every function sees a change at once."""

    __slots__ = ("store",)

    def __init__(self) -> None:
        self.store: ParameterStore | None = None


IN_USE: Final = _InUse()


def use_parameters(store: ParameterStore | None) -> None:
    """Let every ``@poet`` function of this process take its learned parameters from this store (None: from none)."""
    IN_USE.store = store
