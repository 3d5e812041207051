"""Keeps latches, trips and switch times on the disk, and takes them up again after a restart."""

from __future__ import annotations

import numpy as np

from agent.runtime import log
from agent.runtime.clock import Clock
from safety.enforcer import Enforcer, ResetResult
from safety.errors import StoreError
from safety.interlocks import InterlockStatus
from safety.latches import Latches, LogRow

_TRIPPED = (InterlockStatus.TRIPPED, InterlockStatus.RESETTABLE)


class LatchKeeper:
    """The only writer of the latch store."""

    def __init__(self, enforcer: Enforcer, latches: Latches, clock: Clock) -> None:
        self._enforcer = enforcer
        self._latches = latches
        self._clock = clock
        self._seen = enforcer.status.copy()
        self._stored_status = np.full_like(enforcer.status, 255)
        self._stored_switched = enforcer.switched.copy()
        self._log = log.get("core")
        self._failing = False
        self.durable = True

    def restore(self) -> None:
        """Take up where the last process stopped. A damaged store counts as "everything tripped, just switched"."""
        if self._latches.damage:
            self._log.error("latches_damaged", detail=self._latches.damage)
        self._enforcer.restore(self._latches.load(), self._clock.monotonic(), self._clock.utc())
        self._seen = self._enforcer.status.copy()

    def changed(self) -> None:
        """Log what began and ended since the last call, and store it. Called at every trip and once a second."""
        status = self._enforcer.status
        for k in np.flatnonzero(status != self._seen):
            before, now = InterlockStatus(int(self._seen[k])), InterlockStatus(int(status[k]))
            self._seen[k] = status[k]
            if before not in _TRIPPED and now in _TRIPPED:
                self._note(int(k), "trip", "warning")
            elif before in _TRIPPED and now is InterlockStatus.CLEAR:
                self._note(int(k), "clear", "info")
            elif now is InterlockStatus.RESETTABLE:
                self._note(int(k), "resettable", "info")
        self.save()

    def reset(self, interlock: str, by: str, reason: str) -> ResetResult:
        """An operator's reset, with name and reason in the log."""
        result = self._enforcer.reset(interlock, self._clock.monotonic())
        word = "reset" if result.accepted else "reset_refused"
        refusal = "" if result.accepted else f" (refused: {result.reason})"
        self._store(LogRow(self._clock.utc(), interlock, word, f"by {by}: {reason}{refusal}"))
        self._log.warning(word, interlock=interlock, by=by, reason=reason, result=result.reason)
        self._seen = self._enforcer.status.copy()
        self.save()
        return result

    def history(self, limit: int) -> list[LogRow]:
        """The newest rows of the trip log."""
        return self._latches.history(limit)

    def save(self) -> None:
        """Store what must survive, if it has changed; a disk that refuses is reported once and tried again."""
        status, switched = self._enforcer.status, self._enforcer.switched
        same = np.array_equal(status, self._stored_status) and np.array_equal(
            switched, self._stored_switched, equal_nan=True
        )
        if same and self.durable:
            return
        try:
            self._latches.save(self._enforcer.snapshot(self._clock.monotonic(), self._clock.utc()))
        except StoreError as error:
            self._refused(error)
        else:
            if self._failing:
                self._log.info("latches_stored_again")
            self._failing, self.durable = False, True
            self._stored_status, self._stored_switched = status.copy(), switched.copy()

    def _note(self, k: int, event: str, level: str) -> None:
        row = self._enforcer.interlocks.interlocks[k]
        cause = self._enforcer.cause_text(k)
        getattr(self._log, level)(event, interlock=row.name, cause=cause)
        self._store(LogRow(self._clock.utc(), row.name, event, cause))

    def _store(self, row: LogRow) -> None:
        try:
            self._latches.log(row)
        except StoreError as error:
            self._refused(error)

    def _refused(self, error: StoreError) -> None:
        self.durable = False
        if not self._failing:
            self._log.error(
                "latches_not_durable", error=str(error), effect="a restart would not know the present trips"
            )
        self._failing = True
