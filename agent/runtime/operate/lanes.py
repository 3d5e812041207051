"""Core's side of Operate: hands batches to workers, holds them to their deadline, and isolates the unit that breaks one.

Every unit handed to :meth:`Lanes.run` is answered exactly once: with its results, or as failed at its deadline. A worker that misses a
deadline is killed; the units behind it go on in another one, and the culprit is quarantined (see ``quarantine``).
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt

from agent.runtime import log
from agent.runtime.image import SharedImage
from agent.runtime.operate.protocol import KIND_BATCH, KIND_BROKEN, KIND_DONE, KIND_SINGLES, LANES, RUN
from agent.runtime.operate.quarantine import Quarantine

Columns = npt.NDArray[np.intp]
Answer = Callable[[Columns, bool], None]
"""(unit columns, whether their results in the image are of this run). Called once per column of a run."""

MAIN = 0
SLOW_LANES = LANES // 2
"""Functions that were given a long deadline share so many lanes, and never the common one."""
START_PATIENCE_S = 5.0
"""A forked worker that has not connected by then is forked again."""
UNANSWERED_MOST = 3
IDLE_RESTART_S = 1.0
"""A worker that ends without work sooner than this after its start is not replaced at once: that would be a fork loop."""


class Connection(Protocol):
    """A worker's socket as the lane sees it."""

    def send(self, packet: bytes) -> None:
        """Send one packet. Raises OSError when the worker is gone."""

    def close(self) -> None:
        """Close it."""

    def kill(self) -> None:
        """End the worker at once, whatever it is doing."""


@dataclass(slots=True)
class Run:
    """One batch on its way: some columns of one group."""

    group: int
    columns: Columns
    deadline_s: float
    expires: float
    """Wall monotonic: not started by then, it is answered as failed."""
    answer: Answer
    singles: bool = False
    sequence: int = 0


@dataclass(slots=True)
class Lane:
    """One worker and its queue."""

    number: int
    connection: Connection | None = None
    busy: Run | None = None
    timer: asyncio.TimerHandle | None = None
    asked_at: float | None = None
    connected_at: float = 0.0
    unanswered: int = 0
    queue: deque[Run] = field(default_factory=deque)


class Lanes:
    """All lanes. ``respawn(lane)`` asks the zygote for a fresh worker; :meth:`connected` and :meth:`closed` come from the socket."""

    def __init__(self, image: SharedImage, respawn: Callable[[int], None], dedicated: Sequence[int]) -> None:
        self._image = image
        self._respawn = respawn
        self._loop = asyncio.get_running_loop()
        self._dedicated = {group: MAIN + 1 + place % SLOW_LANES for place, group in enumerate(dedicated)}
        self._lanes = [Lane(number) for number in range(LANES)]
        self._first_spare = MAIN + 1 + min(len(dedicated), SLOW_LANES)
        self._available = False
        self.quarantine = Quarantine()
        self._sequence = 0
        self._log = log.get("core")
        self.deadline_misses = 0
        self.worker_restarts = 0

    def start(self) -> None:
        """The zygote can fork: ask for the workers that are always there, and for those that are waited for."""
        self._available = True
        always = {MAIN, *self._dedicated.values()}
        for lane in self._lanes:
            if lane.connection is None and (lane.number in always or lane.queue):
                self._ask(lane)

    @property
    def ready(self) -> bool:
        """Whether the common lane has its worker."""
        return self._lanes[MAIN].connection is not None

    def run(self, group: int, columns: Columns, deadline_s: float, expires_s: float, answer: Answer) -> None:
        """Run the group's function for these unit columns; ``answer`` gets every column exactly once."""
        now = time.monotonic()
        suspects = [column for column in self.quarantine.of_group(group) if column in columns]
        if suspects:
            columns = np.setdiff1d(columns, suspects)
            waiting = [column for column in suspects if not self.quarantine.may_run((group, column), now)]
            if waiting:
                answer(np.asarray(waiting, np.intp), False)
            for column in suspects:
                if column not in waiting:
                    alone = Run(group, np.asarray([column], np.intp), deadline_s, now + expires_s, answer, singles=True)
                    self._submit(self._spare(), alone)
        if len(columns):
            lane = self._lanes[self._dedicated.get(group, MAIN)]
            self._submit(lane, Run(group, columns, deadline_s, now + expires_s, answer))

    def connected(self, number: int, connection: Connection) -> None:
        """A forked worker has said hello."""
        lane = self._lanes[number]
        self._drop(lane)
        lane.connection = connection
        lane.connected_at = time.monotonic()
        lane.asked_at = None
        lane.unanswered = 0
        self._next(lane)

    def received(self, number: int, packet: bytes) -> None:
        """A worker has answered a run. Answers of an earlier run are dropped: their deadline has passed."""
        lane = self._lanes[number]
        if len(packet) != RUN.size:  # the function wrote to the worker's socket: the worker cannot be believed any more
            self.closed(number)
            return
        kind, _lane, group, sequence = RUN.unpack(packet)
        run = lane.busy
        if run is None or run.sequence != sequence or run.group != group:
            return
        self._finish(lane)
        if kind == KIND_BROKEN:
            self._broken(lane, run)
        elif kind != KIND_DONE:
            run.answer(run.columns, False)
        else:
            for column in run.columns:
                key = (run.group, int(column))
                if key in self.quarantine and self.quarantine.behave(key):
                    self._log.info("unit_trusted_again", group=run.group, column=int(column))
            run.answer(run.columns, True)
        self._next(lane)

    def closed(self, number: int) -> None:
        """A worker's socket has closed: it exited, crashed or was killed."""
        lane = self._lanes[number]
        if lane.connection is None:
            return
        self._drop(lane)
        if lane.busy is not None:
            self._blame(lane, lane.busy, "crashed or ended its worker")
        elif time.monotonic() - lane.connected_at > IDLE_RESTART_S:
            self._ask(lane)
        elif self._available:
            lane.asked_at = time.monotonic()  # it dies as soon as it lives: tend() asks again later

    def drop_all(self) -> None:
        """The zygote is gone and with it every worker: answer everything as failed."""
        self._available = False
        for lane in self._lanes:
            self._drop(lane)
            lane.asked_at = None
            lane.unanswered = 0
            pending = [lane.busy] if lane.busy is not None else []
            self._finish(lane)
            pending.extend(lane.queue)
            lane.queue.clear()
            for run in pending:
                run.answer(run.columns, False)

    def tend(self) -> bool:
        """Expire queued runs, ask again for workers that never came. True if asking has not helped for too long."""
        now = time.monotonic()
        stuck = False
        for lane in self._lanes:
            while lane.queue and lane.queue[0].expires <= now:
                run = lane.queue.popleft()
                self.deadline_misses += len(run.columns)
                run.answer(run.columns, False)
            if lane.asked_at is not None and now - lane.asked_at > START_PATIENCE_S:
                lane.unanswered += 1
                stuck = stuck or lane.unanswered >= UNANSWERED_MOST
                self._ask(lane)
        return stuck

    @staticmethod
    def _drop(lane: Lane) -> None:
        """End the lane's worker, if it has one: it may still be running, and must not write into the image later."""
        if lane.connection is not None:
            lane.connection.kill()
            lane.connection.close()
            lane.connection = None

    def _ask(self, lane: Lane) -> None:
        if not self._available:
            return
        lane.asked_at = time.monotonic()
        self.worker_restarts += 1
        self._respawn(lane.number)

    def _spare(self) -> Lane:
        """The spare lane with the shortest queue; one with a worker and nothing to do first."""
        spares = self._lanes[self._first_spare :]
        return min(
            spares, key=lambda lane: (len(lane.queue) + (lane.busy is not None), lane.connection is None, lane.number)
        )

    def _submit(self, lane: Lane, run: Run) -> None:
        lane.queue.append(run)
        if lane.connection is None and lane.asked_at is None:
            self._ask(lane)
        self._next(lane)

    def _next(self, lane: Lane) -> None:
        while lane.busy is None and lane.connection is not None and lane.queue:
            run = lane.queue.popleft()
            if run.expires <= time.monotonic():
                self.deadline_misses += len(run.columns)
                run.answer(run.columns, False)
                continue
            self._start(lane, run)

    def _start(self, lane: Lane, run: Run) -> None:
        assert lane.connection is not None
        self._sequence += 1
        run.sequence = self._sequence
        due = self._image[f"g{run.group}.due"][lane.number]
        due[:] = 0
        due[run.columns] = 1
        self._image[f"g{run.group}.status"][run.columns] = 0
        self._image["progress"][lane.number] = -1
        lane.busy = run
        lane.timer = self._loop.call_later(run.deadline_s, self._late, lane)
        kind = KIND_SINGLES if run.singles else KIND_BATCH
        try:
            lane.connection.send(RUN.pack(kind, lane.number, run.group, run.sequence))
        except OSError:  # it died idle, by no fault of this run
            self._finish(lane)
            lane.queue.appendleft(run)
            self.closed(lane.number)

    @staticmethod
    def _finish(lane: Lane) -> None:
        lane.busy = None
        if lane.timer is not None:
            lane.timer.cancel()
            lane.timer = None

    def _late(self, lane: Lane) -> None:
        if lane.busy is not None:
            self._blame(lane, lane.busy, f"did not answer within {lane.busy.deadline_s:g} s")

    def _broken(self, lane: Lane, run: Run) -> None:
        """The batch raised as a whole: run its units one by one; if they ran so already, there is nothing left to try."""
        if run.singles or len(run.columns) == 1:
            run.answer(run.columns, False)
        else:
            self._one_by_one(run, run.columns)

    def _blame(self, lane: Lane, run: Run, what: str) -> None:
        """A run ended with its worker. Find the culprit, keep what was finished before it, run the rest elsewhere."""
        now = time.monotonic()
        progress = int(self._image["progress"][lane.number])
        self._finish(lane)
        self._drop(lane)
        self._ask(lane)
        self._spread(lane)
        if len(run.columns) == 1:
            progress = int(run.columns[0])
        status = self._image[f"g{run.group}.status"]
        unknown = progress not in run.columns or (len(run.columns) > 1 and status[progress] != 0)
        if unknown and run.singles:
            self._log.warning("batch_failed", group=run.group, what=what, next="its units fail until their next scan")
            self.deadline_misses += len(run.columns)
            run.answer(run.columns, False)
            return
        if unknown:
            self._log.warning("batch_failed", group=run.group, what=what, next="its units run one by one")
            self._one_by_one(run, run.columns)
            return
        self.deadline_misses += 1
        wait = self.quarantine.offend((run.group, progress), now)
        self._log.warning("unit_quarantined", group=run.group, column=progress, what=what, retry_in_s=round(wait, 1))
        run.answer(np.asarray([progress], np.intp), False)
        others = run.columns[run.columns != progress]
        done = others[status[others] != 0]
        if len(done):
            run.answer(done, True)
        rest = others[status[others] == 0]
        if len(rest):
            self._one_by_one(run, rest)

    def _spread(self, lane: Lane) -> None:
        """Whatever waited behind a culprit goes to other lanes: the next in the queue may hang too, and the rest may not wait for both."""
        waiting, lane.queue = lane.queue, deque()
        for run in waiting:
            self._submit(self._spare(), run)

    def _one_by_one(self, run: Run, columns: Columns) -> None:
        """In as many workers as there are: where one unit of a function hangs for its inputs, others may as well."""
        for part in np.array_split(columns, min(len(columns), len(self._lanes) - self._first_spare)):
            self._submit(self._spare(), Run(run.group, part, run.deadline_s, run.expires, run.answer, singles=True))
