"""Lanes: every unit handed in is answered exactly once, the culprit pays, and nobody waits for it."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.runtime.image import Block, SharedImage
from agent.runtime.operate import lanes as lanes_module
from agent.runtime.operate.lanes import MAIN, SLOW_LANES, UNANSWERED_MOST, Lanes
from agent.runtime.operate.protocol import KIND_BROKEN, KIND_DONE, KIND_SINGLES, LANES, RUN
from agent.runtime.operate.quarantine import CLEAN_RUNS, FIRST_RETRY_S, LONGEST_RETRY_S, Quarantine

UNITS, GROUPS = 6, 3
OK = 1


class FakeWorker:
    """A worker's socket. The test plays the worker."""

    def __init__(self, rig: LaneRig, lane: int) -> None:
        self.rig = rig
        self.lane = lane
        self.packets: list[tuple[int, int, int, int]] = []
        self.killed = self.closed = False
        self.dead = False

    def send(self, packet: bytes) -> None:
        if self.dead:
            raise BrokenPipeError
        self.packets.append(RUN.unpack(packet))

    def kill(self) -> None:
        self.killed = True

    def close(self) -> None:
        self.closed = True

    @property
    def due(self) -> list[int]:
        """The columns it was last asked to run."""
        group = self.packets[-1][2]
        return np.flatnonzero(self.rig.image[f"g{group}.due"][self.lane]).tolist()

    def finish(self, kind: int = KIND_DONE) -> None:
        """Answer the last request with every due unit done."""
        _kind, _lane, group, sequence = self.packets[-1]
        if kind == KIND_DONE:
            self.rig.image[f"g{group}.status"][self.due] = OK
        self.rig.lanes.received(self.lane, RUN.pack(kind, self.lane, group, sequence))

    def reach(self, column: int) -> None:
        """Finish everything before ``column`` and be in it."""
        group = self.packets[-1][2]
        self.rig.image[f"g{group}.status"][[one for one in self.due if one < column]] = OK
        self.rig.image["progress"][self.lane] = column

    def crash(self) -> None:
        """End."""
        self.rig.lanes.closed(self.lane)


class LaneRig:
    """Lanes whose zygote and workers are played by the test, on a clock that the test moves."""

    def __init__(self, folder: Path, dedicated: tuple[int, ...] = ()) -> None:
        blocks = [Block("progress", "i8", (LANES,))]
        for group in range(GROUPS):
            blocks += [Block(f"g{group}.due", "u1", (LANES, UNITS)), Block(f"g{group}.status", "u1", (UNITS,))]
        self.image = SharedImage(folder / "image", blocks, create=True)
        self.now = 100.0
        self.asked: list[int] = []
        self.lanes = Lanes(self.image, self.asked.append, dedicated)
        self.lanes.quarantine = Quarantine(lambda low, high: (low + high) / 2)
        self.workers: dict[int, FakeWorker] = {}
        self.answers: list[tuple[int, int, bool]] = []

    def start(self) -> None:
        """The zygote can fork; every worker asked for comes at once."""
        self.lanes.start()
        self.connect_all()

    def connect_all(self) -> None:
        """Every worker that was asked for says hello."""
        while self.asked:
            lane = self.asked.pop(0)
            self.workers[lane] = FakeWorker(self, lane)
            self.lanes.connected(lane, self.workers[lane])

    def run(self, *columns: int, group: int = 0, expires: float = 5.0, deadline: float = 60.0) -> None:
        """Hand a batch in."""

        def answer(done: np.ndarray, ok: bool) -> None:
            self.answers += [(group, int(column), ok) for column in done]

        self.lanes.run(group, np.asarray(columns, np.intp), deadline, expires, answer)

    def take(self) -> dict[int, bool]:
        """Column → whether it was answered with results; each exactly once."""
        taken, self.answers = self.answers, []
        assert max(Counter(column for _, column, _ in taken).values(), default=1) == 1, f"answered twice: {taken}"
        return {column: ok for _, column, ok in taken}

    def late(self, lane: int = MAIN) -> None:
        """The lane's deadline passes."""
        self.lanes._late(self.lanes._lanes[lane])

    def singles(self) -> list[FakeWorker]:
        """The workers that were asked to run units one by one and have not answered."""
        self.connect_all()
        return [
            worker
            for worker in self.workers.values()
            if worker.packets and worker.packets[-1][0] == KIND_SINGLES and self.lanes._lanes[worker.lane].busy
        ]


@pytest.fixture
async def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., LaneRig]:
    def maker(dedicated: tuple[int, ...] = ()) -> LaneRig:
        rig = LaneRig(tmp_path, dedicated)
        monkeypatch.setattr(lanes_module, "time", SimpleNamespace(monotonic=lambda: rig.now))
        return rig

    return maker


@pytest.fixture
async def rig(make: Callable[..., LaneRig]) -> LaneRig:
    rig = make()
    rig.start()
    return rig


async def test_batch_is_run_and_answered_once(rig: LaneRig) -> None:
    rig.run(0, 2, 5)
    worker = rig.workers[MAIN]
    assert worker.due == [0, 2, 5]
    assert rig.take() == {}
    worker.finish()
    assert rig.take() == {0: True, 2: True, 5: True}
    worker.finish()
    assert rig.take() == {}, "an answer of an earlier run is dropped"


async def test_groups_take_turns_in_one_lane(rig: LaneRig) -> None:
    rig.run(0, group=0)
    rig.run(1, group=1)
    worker = rig.workers[MAIN]
    assert len(worker.packets) == 1
    worker.finish()
    assert worker.packets[-1][2] == 1
    worker.finish()
    assert rig.take() == {0: True, 1: True}


async def test_late_worker_is_killed_and_the_unit_it_was_in_is_the_culprit(rig: LaneRig) -> None:
    rig.run(0, 1, 2, 3)
    old = rig.workers[MAIN]
    old.reach(2)
    rig.late()
    assert old.killed and old.closed, "at once, and not only when the zygote gets round to it"
    assert rig.take() == {2: False, 0: True, 1: True}
    for worker in rig.singles():
        assert worker.due == [3]
        worker.finish()
    assert rig.take() == {3: True}
    assert (0, 2) in rig.lanes.quarantine
    assert rig.lanes.deadline_misses == 1


async def test_deadline_is_kept_by_the_event_loop_itself(make: Callable[..., LaneRig]) -> None:
    rig = make()
    rig.start()
    rig.run(4, deadline=0.001)
    while not rig.answers:
        await asyncio.sleep(0.001)
    assert rig.take() == {4: False}
    assert (0, 4) in rig.lanes.quarantine


async def test_crashed_worker_is_replaced_and_its_culprit_quarantined(rig: LaneRig) -> None:
    rig.run(0, 1)
    rig.workers[MAIN].reach(1)
    rig.workers[MAIN].crash()
    assert rig.take() == {0: True, 1: False}
    assert rig.asked == [MAIN]
    rig.connect_all()
    rig.run(0)
    rig.workers[MAIN].finish()
    assert rig.take() == {0: True}


async def test_unknown_culprit_is_found_by_running_one_by_one(rig: LaneRig) -> None:
    rig.run(0, 1, 2)
    rig.late()
    assert rig.take() == {}
    workers = rig.singles()
    assert sorted(column for worker in workers for column in worker.due) == [0, 1, 2]
    for worker in workers:
        if 1 in worker.due:
            worker.reach(1)
            rig.late(worker.lane)
        else:
            worker.finish()
    while waiting := rig.singles():
        waiting[0].finish()
    assert rig.take() == {0: True, 1: False, 2: True}
    assert rig.lanes.quarantine.of_group(0) == [1]


async def test_batch_that_cannot_run_as_a_whole_is_split_once_and_never_again(rig: LaneRig) -> None:
    """A function missing in the operate process made core and workers spin until the next scan."""
    rig.run(*range(UNITS))
    rig.workers[MAIN].finish(KIND_BROKEN)
    rounds = 0
    while workers := rig.singles():
        rounds += 1
        for worker in workers:
            worker.finish(KIND_BROKEN)
    assert rig.take() == dict.fromkeys(range(UNITS), False)
    assert rounds <= 2
    assert len(rig.lanes.quarantine) == 0, "no unit is to blame"


async def test_worker_lost_before_any_unit_of_a_single_run_fails_them_without_another_try(rig: LaneRig) -> None:
    rig.run(*range(UNITS), group=1)
    rig.late()
    first = rig.singles()
    assert first
    rig.image["progress"][:] = -1
    for worker in first:
        if len(worker.due) > 1:
            worker.crash()
        else:
            worker.finish()
    rig.connect_all()
    assert not rig.singles()
    assert sorted(rig.take()) == list(range(UNITS))


async def test_suspect_waits_alone_with_doubling_waits_and_does_not_hold_up_others(rig: LaneRig) -> None:
    waits = []
    for _ in range(9):
        before = rig.now
        rig.run(0, 1)
        if 1 in rig.take():
            rig.workers[MAIN].finish()
            rig.take()
            rig.now += 0.25
            continue
        alone = [worker for worker in rig.singles() if worker.due == [1]]
        if alone:
            rig.late(alone[0].lane)
        else:
            rig.workers[MAIN].reach(1)
            rig.late()
        rig.connect_all()
        for worker in rig.singles():
            worker.finish()
        if rig.lanes._lanes[MAIN].busy:
            rig.workers[MAIN].finish()
        rig.take()
        suspect = rig.lanes.quarantine._suspects[0, 1]
        waits.append(suspect.retry_at - before)
        rig.now = suspect.retry_at
    assert waits[:7] == [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0]
    assert waits[-1] == LONGEST_RETRY_S


async def test_suspect_is_answered_as_failed_while_it_waits(rig: LaneRig) -> None:
    rig.run(3)
    rig.late()
    assert rig.take() == {3: False}
    rig.connect_all()
    rig.run(2, 3)
    assert rig.take() == {3: False}
    rig.workers[MAIN].finish()
    assert rig.take() == {2: True}


async def test_suspect_is_trusted_again_after_clean_runs(rig: LaneRig) -> None:
    rig.run(3)
    rig.late()
    rig.take()
    rig.now += 2 * FIRST_RETRY_S
    for _ in range(CLEAN_RUNS):
        rig.run(3)
        (worker,) = rig.singles()
        assert worker.lane != MAIN
        worker.finish()
        assert rig.take() == {3: True}
    rig.run(3)
    assert rig.workers[MAIN].due == [3], "back in the common lane"


async def test_queued_run_that_nobody_starts_expires_as_failed(make: Callable[..., LaneRig]) -> None:
    rig = make()
    rig.run(0, 1, expires=5.0)
    rig.now += 4.9
    rig.lanes.tend()
    assert rig.take() == {}
    rig.now += 0.2
    rig.lanes.tend()
    assert rig.take() == {0: False, 1: False}
    assert rig.lanes.deadline_misses == 2


async def test_run_that_expired_in_the_queue_is_not_started(rig: LaneRig) -> None:
    rig.run(0, group=0)
    rig.run(1, group=1, expires=1.0)
    rig.now += 2.0
    rig.workers[MAIN].finish()
    assert rig.take() == {0: True, 1: False}
    assert len(rig.workers[MAIN].packets) == 1


async def test_lost_zygote_answers_everything_as_failed_and_no_worker_survives(rig: LaneRig) -> None:
    rig.run(0, group=0)
    rig.run(1, group=1)
    rig.lanes.drop_all()
    assert rig.take() == {0: False, 1: False}
    assert rig.workers[MAIN].killed and not rig.lanes.ready
    rig.run(2)
    assert rig.asked == [], "there is nobody to ask for a worker before the image is mapped"
    rig.start()
    assert rig.workers[MAIN].due == [2], "what waited is run by the new one"
    rig.workers[MAIN].finish()
    assert rig.take() == {2: True}


async def test_worker_that_never_comes_is_asked_for_again_and_then_the_zygote_is_given_up(rig: LaneRig) -> None:
    rig.lanes.drop_all()
    rig.lanes.start()
    stuck = []
    for _ in range(UNANSWERED_MOST):
        rig.now += lanes_module.START_PATIENCE_S + 0.1
        stuck.append(rig.lanes.tend())
    assert stuck == [False] * (UNANSWERED_MOST - 1) + [True]
    assert rig.asked == [MAIN] * (UNANSWERED_MOST + 1)
    rig.lanes.drop_all()
    rig.lanes.start()
    rig.now += lanes_module.START_PATIENCE_S + 0.1
    assert not rig.lanes.tend(), "the next zygote begins without guilt"


async def test_zygote_that_still_loads_is_not_given_up(rig: LaneRig) -> None:
    """Compiling after a restart takes longer than waiting for a worker; killing it then blamed the function it compiled."""
    rig.lanes.drop_all()
    for _ in range(10):
        rig.now += lanes_module.START_PATIENCE_S + 0.1
        rig.run(0)
        assert not rig.lanes.tend()
    assert rig.asked == []


async def test_worker_that_dies_idle_is_replaced_but_not_in_a_fork_loop(rig: LaneRig) -> None:
    rig.now += 10.0
    rig.workers[MAIN].crash()
    assert rig.asked == [MAIN]
    rig.connect_all()
    rig.workers[MAIN].crash()
    assert rig.asked == [], "it died as soon as it lived"
    rig.now += lanes_module.START_PATIENCE_S + 0.1
    rig.lanes.tend()
    assert rig.asked == [MAIN]


async def test_run_sent_to_a_worker_that_is_already_dead_goes_to_the_next_without_blame(rig: LaneRig) -> None:
    rig.now += 10.0
    rig.workers[MAIN].dead = True
    rig.run(0)
    assert rig.take() == {}
    rig.connect_all()
    rig.workers[MAIN].finish()
    assert rig.take() == {0: True}
    assert len(rig.lanes.quarantine) == 0


@pytest.mark.parametrize("packet", [b"", b"x", b"\0" * (RUN.size + 1)])
async def test_worker_that_talks_nonsense_counts_as_crashed(rig: LaneRig, packet: bytes) -> None:
    rig.run(0)
    rig.lanes.received(MAIN, packet)
    assert rig.workers[MAIN].killed
    assert rig.take() == {0: False}


async def test_answer_of_an_unknown_kind_is_no_answer(rig: LaneRig) -> None:
    rig.run(0, 1)
    rig.workers[MAIN].finish(99)
    assert rig.take() == {0: False, 1: False}


async def test_slow_functions_share_lanes_of_their_own_and_never_the_common_one(make: Callable[..., LaneRig]) -> None:
    rig = make(tuple(range(SLOW_LANES + 4)))
    assert MAIN not in rig.lanes._dedicated.values()
    assert rig.lanes._first_spare == SLOW_LANES + 1 < LANES
    rig = make((1,))
    rig.start()
    rig.run(0, group=1)
    rig.run(1, group=0)
    assert [rig.workers[lane].packets[-1][2] for lane in (MAIN, MAIN + 1)] == [0, 1]


async def test_second_hello_on_a_lane_ends_the_first_worker(rig: LaneRig) -> None:
    first = rig.workers[MAIN]
    rig.lanes.connected(MAIN, FakeWorker(rig, MAIN))
    assert first.killed and first.closed


events = st.lists(
    st.sampled_from(["run", "finish", "broken", "late", "crash", "reach", "connect", "tend", "drop", "start", "wait"]),
    max_size=40,
)


@given(script=events, columns=st.lists(st.integers(0, UNITS - 1), min_size=40, max_size=40))
async def test_whatever_happens_every_column_is_answered_exactly_once(
    tmp_path_factory: pytest.TempPathFactory, script: list[str], columns: list[int]
) -> None:
    rig = LaneRig(tmp_path_factory.mktemp("lanes", numbered=True))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lanes_module, "time", SimpleNamespace(monotonic=lambda: rig.now))
        play(rig, script, columns)


def play(rig: LaneRig, script: list[str], columns: list[int]) -> None:
    """Handed in but not answered columns are busy, as the scan loop keeps them."""
    busy: set[int] = set()

    def settle() -> None:
        for column in rig.take():
            busy.remove(column)

    rig.start()
    for event, column in zip(script, columns, strict=False):
        working = [lane.number for lane in rig.lanes._lanes if lane.busy is not None]
        at = working[column % len(working)] if working else None
        if event == "run":
            fresh = [one for one in range(UNITS) if one not in busy and (one + column) % 3]
            busy.update(fresh)
            if fresh:
                rig.run(*fresh)
        elif event == "wait":
            rig.now += 0.7 * column
        elif event == "connect":
            rig.connect_all()
        elif event == "tend":
            rig.lanes.tend()
        elif event == "drop":
            rig.lanes.drop_all()
        elif event == "start":
            rig.lanes.start()
        elif at is not None and rig.workers[at].packets:
            worker = rig.workers[at]
            {
                "finish": worker.finish,
                "broken": lambda worker=worker: worker.finish(KIND_BROKEN),
                "late": lambda at=at: rig.late(at),
                "crash": worker.crash,
                "reach": lambda worker=worker, column=column: worker.reach(column),
            }[event]()
        settle()
    rig.lanes.drop_all()
    settle()
    assert not busy


def test_quarantine_forgets_only_after_clean_runs() -> None:
    quarantine = Quarantine(lambda low, high: high)
    assert quarantine.offend((0, 1), 10.0) == pytest.approx(1.2)
    assert (0, 1) in quarantine and (0, 2) not in quarantine
    assert not quarantine.may_run((0, 1), 11.0)
    assert quarantine.may_run((0, 1), 11.2)
    assert [quarantine.behave((0, 1)) for _ in range(CLEAN_RUNS)] == [False] * (CLEAN_RUNS - 1) + [True]
    assert len(quarantine) == 0
    assert quarantine.offend((0, 1), 20.0) == pytest.approx(1.2), "a clean slate"


def test_quarantine_counts_anew_after_another_offence() -> None:
    quarantine = Quarantine()
    quarantine.offend((0, 1), 0.0)
    quarantine.behave((0, 1))
    quarantine.offend((0, 1), 0.0)
    assert not quarantine.behave((0, 1)), "the clean run before does not count"
    for _ in range(2000):
        assert quarantine.offend((0, 1), 0.0) <= LONGEST_RETRY_S * 1.2
