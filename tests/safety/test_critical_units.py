"""Critical units: both channels run, and a disagreement, wherever it comes from, trips the unit."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from types import SimpleNamespace

import numpy as np
import pytest
from channel_cases import STATES, UNITS, Site, reading, request, site

from agent.kernels import load
from safety import kernels as plain
from safety.agreement import CAUSE, disagreement_row, second_channel
from safety.enforcer import PLAIN, Enforcer
from safety.envelope import Envelope, RequestState
from safety.errors import ExpressionError, InterlockError
from safety.interlocks import Interlock, InterlockStatus, InterlockTable
from safety.remembered import Remembered, SwitchRecord, TripRecord
from safety.values import Quality, Verdict

UTC = 1_800_000_000.0
OK = RequestState.OK
OUTPUTS = (
    Envelope("u/fan", 0.0, 1.0, 0.0, allowed=(0.0, 1.0), min_on_s=60.0, min_off_s=60.0),
    Envelope("u/valve", 0.0, 100.0, 20.0),
    Envelope("u/damper", 0.0, 100.0, None, max_rate=10.0),
    Envelope("w/other", 0.0, 100.0, 0.0),
)
HOT = Interlock("u/hot", "temp > 45 Cel", (("u/valve", 0.0),), "u")
OTHER = Interlock("w/off", "not run", (("w/other", 0.0),), "w", manual=True)
RUN = [1.0, 50.0, 30.0, 70.0]


CASE = Site(OUTPUTS, (), (HOT, OTHER))


class Plant:
    """Two units on one Enforcer, the unit ``u`` critical, and kernels in which one number can be spoilt."""

    def __init__(self, case: Site = CASE, mode: str = "python") -> None:
        self.kernels = load("safety.kernels", mode)
        self.spoil_evaluate: Callable[[Enforcer], None] | None = None
        self.spoil_enforce: Callable[[Enforcer], None] | None = None
        spoiling = SimpleNamespace(evaluate=self._evaluate, enforce=self._enforce)
        rows = (*case.interlocks, disagreement_row("u", case.envelopes))
        order = {name: k for k, name in enumerate(UNITS)}
        table = InterlockTable.build(rows, order, UNITS, case.envelopes)
        channel = second_channel("u", case.envelopes, case.pairs, rows, order, UNITS)
        self.enforcer = Enforcer(case.envelopes, case.pairs, table, spoiling, [channel])
        self.row = len(rows) - 1
        self.outputs = len(case.envelopes)
        self.values = np.array([20.0, 90.0, 0.0, 0.0, 1.0, 1.0, 0.0])
        self.qualities = np.full(len(UNITS), Quality.GOOD, np.uint8)
        self.now = 1000.0

    def _evaluate(self, *arguments: object) -> int:
        changed = int(self.kernels.evaluate(*arguments))
        if self.spoil_evaluate is not None:
            self.spoil_evaluate(self.enforcer)
        return changed

    def _enforce(self, *arguments: object) -> None:
        self.kernels.enforce(*arguments)
        if self.spoil_enforce is not None:
            self.spoil_enforce(self.enforcer)

    @property
    def standing(self) -> InterlockStatus:
        return InterlockStatus(int(self.enforcer.status[self.row]))

    def evaluate(self, passed: float = 0.1) -> bool:
        self.now += passed
        return self.enforcer.evaluate(self.now, self.values, self.qualities)

    def enforce(self, requests: Sequence[float] = RUN, due: int = 1) -> list[float]:
        states, flags = np.full(self.outputs, OK, np.uint8), np.full(self.outputs, due, np.uint8)
        self.enforcer.enforce(self.now, np.array(requests, np.float64), states, flags)
        return [float(value) for value in self.enforcer.out]

    def scan(self, passed: float = 5.0) -> list[float]:
        self.evaluate(passed)
        return self.enforce()

    def running(self) -> Plant:
        for _ in range(20):
            self.scan()
        assert self.scan() == RUN
        assert self.standing == InterlockStatus.CLEAR
        return self


def test_a_critical_unit_runs_like_any_other() -> None:
    plant = Plant().running()
    plant.values[0] = 46.0
    assert plant.scan() == [1.0, 0.0, 30.0, 70.0]
    plant.values[0] = 44.0
    plant.scan()
    assert plant.scan() == RUN
    assert plant.standing == InterlockStatus.CLEAR


FAIL_SAFE = [0.0, 20.0, math.nan, 70.0]


def spoilt_output(enforcer: Enforcer) -> None:
    enforcer.out[1] = 99.0


def spoilt_relinquish(enforcer: Enforcer) -> None:
    enforcer.relinquish[1] = 1


def spoilt_number(enforcer: Enforcer) -> None:
    enforcer.out[0] = math.nan


@pytest.mark.parametrize("spoil", [spoilt_output, spoilt_relinquish, spoilt_number])
def test_a_wrong_output_never_leaves_and_trips_the_unit_at_once(spoil: Callable[[Enforcer], None]) -> None:
    plant = Plant().running()
    plant.spoil_enforce = spoil
    plant.now += 5.0
    assert plant.enforce() == pytest.approx(FAIL_SAFE, nan_ok=True), "the fan too, though its min-on is not over"
    assert list(plant.enforcer.relinquish) == [0, 0, 1, 0]
    assert all(Verdict(int(plant.enforcer.verdict[i])) & Verdict.TRIPPED for i in (0, 1, 2))
    assert list(plant.enforcer.forced_flag) == [1, 1, 1, 0]
    assert plant.evaluate(), "the caller is told at the next evaluation"
    assert plant.enforcer.cause_text(plant.row).startswith(CAUSE)
    for _ in range(3):
        assert plant.scan() == pytest.approx(FAIL_SAFE, nan_ok=True), "as long as the kernel goes wrong"
        assert not plant.enforcer.reset("u/channels_disagree", plant.now).accepted, "a live cause"


def test_the_trip_stays_until_somebody_resets_it_and_the_reset_starts_nothing() -> None:
    plant = Plant().running()
    plant.spoil_enforce = spoilt_output
    plant.scan()
    plant.spoil_enforce = None
    plant.scan()
    plant.scan()
    assert plant.standing == InterlockStatus.RESETTABLE
    assert plant.enforce() == pytest.approx(FAIL_SAFE, nan_ok=True)
    assert "here and" in plant.enforcer.cause_text(plant.row)
    assert plant.enforcer.reset("u/channels_disagree", plant.now).accepted
    plant.evaluate()
    assert plant.enforce(due=0) == pytest.approx(FAIL_SAFE, nan_ok=True)
    for _ in range(40):
        plant.scan()
    assert plant.scan() == RUN
    assert plant.standing == InterlockStatus.CLEAR


def lost_trip(enforcer: Enforcer) -> None:
    enforcer.status[0] = InterlockStatus.CLEAR


def lost_force(enforcer: Enforcer) -> None:
    enforcer.forced_flag[1] = 0


def other_value(enforcer: Enforcer) -> None:
    enforcer.forced[1] = 100.0


@pytest.mark.parametrize("spoil", [lost_trip, lost_force, other_value])
def test_an_interlock_that_one_channel_misses_trips_the_unit(spoil: Callable[[Enforcer], None]) -> None:
    plant = Plant().running()
    plant.values[0] = 46.0
    plant.spoil_evaluate = spoil
    assert plant.evaluate()
    assert plant.standing == InterlockStatus.TRIPPED
    assert plant.enforce(due=0) == pytest.approx(FAIL_SAFE, nan_ok=True)
    seen = plant.enforcer.status.copy()
    assert not plant.evaluate(), "no news while nothing changes"
    assert list(plant.enforcer.status) == list(seen)
    plant.spoil_evaluate = None
    plant.scan()
    plant.scan()
    assert plant.standing == InterlockStatus.RESETTABLE


def test_memory_that_changes_under_the_kernel_is_noticed() -> None:
    plant = Plant().running()
    state = plant.enforcer._state
    state.memory[plain.LAST, 2] = 90.0  # a flipped bit: the rate limit would start from there
    plant.scan()
    assert plant.standing == InterlockStatus.TRIPPED


def test_a_unit_that_is_not_critical_is_left_alone() -> None:
    plant = Plant().running()

    def wrong(enforcer: Enforcer) -> None:
        enforcer.out[3] = 99.0
        enforcer.status[1] = InterlockStatus.PENDING

    plant.spoil_enforce = wrong
    assert plant.scan() == [1.0, 50.0, 30.0, 99.0]
    assert plant.standing == InterlockStatus.CLEAR


def test_a_restart_keeps_the_trip_and_its_cause() -> None:
    plant = Plant().running()
    plant.spoil_enforce = spoilt_output
    plant.scan()
    saved = plant.enforcer.snapshot(plant.now, UTC)
    after = Plant()
    after.enforcer.restore(saved, 0.0, UTC + 5.0)
    after.now = 1.0
    assert after.scan() == pytest.approx([0.0, 20.0, math.nan, 70.0], nan_ok=True)
    after.scan()
    assert after.standing == InterlockStatus.RESETTABLE
    assert after.enforcer.cause_text(after.row).startswith(CAUSE)


def test_both_channels_take_up_the_same_history() -> None:
    after = Plant()
    after.enforcer.restore(Remembered((), (SwitchRecord("u/fan", False, UTC - 31.0),)), 0.0, UTC)
    after.now = 10.0
    assert after.scan()[0] == 0.0
    after.now = 28.0
    assert after.scan()[0] == 1.0, "min-off is 60 s, 31 of them before the restart"
    assert after.standing == InterlockStatus.CLEAR
    distrusted = Plant()
    distrusted.enforcer.restore(Remembered(trusted=False), 0.0, UTC)
    distrusted.scan()
    assert distrusted.standing == InterlockStatus.RESETTABLE


def test_the_history_of_other_units_is_taken_up_beside_the_channels() -> None:
    after = Plant()
    past = Remembered((TripRecord("w/off", UTC - 1.0, "off"),), (SwitchRecord("w/other", False, UTC - 5.0),))
    after.enforcer.restore(past, 0.0, UTC)
    assert after.enforcer.status[1] == InterlockStatus.TRIPPED
    after.scan()
    assert after.enforcer.reset("w/off", after.now).accepted
    assert after.standing == InterlockStatus.CLEAR


def test_the_second_channel_resets_no_row_that_is_still_live() -> None:
    plant = Plant().running()
    plant.values[0] = 46.0
    plant.evaluate()
    (_row, channel), *_ = plant.enforcer._agreement._channels  # type: ignore[union-attr]
    channel.reset(0)
    assert not plant.evaluate()
    assert plant.standing == InterlockStatus.CLEAR


def test_a_restart_in_the_middle_of_anything_brings_no_disagreement() -> None:
    for seed in range(60):
        pick = random.Random(seed).choice
        case = site(pick)
        plant = Plant(case)
        for turn in range(30):
            for k, point in enumerate(UNITS):
                plant.values[k], plant.qualities[k] = reading(pick, point), pick((Quality.GOOD,) * 9 + (Quality.BAD,))
            plant.evaluate(pick((0.1, 5.0, 60.0)))
            states = np.array([pick(STATES) for _ in case.envelopes], np.uint8)
            due = np.array([pick((1, 1, 0)) for _ in case.envelopes], np.uint8)
            plant.enforcer.enforce(plant.now, np.array([request(pick, row) for row in case.envelopes]), states, due)
            for row in case.interlocks:
                plant.enforcer.reset(row.name, plant.now)
            if turn == 15:
                saved = plant.enforcer.snapshot(plant.now, UTC)
                plant = Plant(case)
                plant.enforcer.restore(saved, plant.now, UTC + pick((-5.0, 0.0, 5.0, 100.0)))
            assert plant.standing in (InterlockStatus.CLEAR, InterlockStatus.STARTUP), plant.enforcer.cause_text(
                plant.row
            )


def test_every_single_wrong_number_of_the_compiled_kernel_is_caught() -> None:
    for seed in range(40):
        pick = random.Random(seed).choice
        plant = Plant(mode="jit").running()

        def wrong(enforcer: Enforcer, pick: Callable[..., object] = pick) -> None:
            column, place = pick((enforcer.out, enforcer.relinquish)), pick((0, 1, 2))
            column[place] = 1 - column[place]  # type: ignore[index]

        plant.spoil_enforce = wrong
        plant.now += 1.0
        assert plant.enforce() == pytest.approx(FAIL_SAFE, nan_ok=True)
        plant.evaluate()
        assert plant.standing == InterlockStatus.TRIPPED


def test_a_site_without_critical_units_has_no_second_channel() -> None:
    table = InterlockTable.build([HOT], {name: k for k, name in enumerate(UNITS)}, UNITS, OUTPUTS)
    assert Enforcer(OUTPUTS, [], table, PLAIN)._agreement is None


def test_rows_that_the_second_channel_cannot_take() -> None:
    with pytest.raises(ExpressionError, match="second channel"):
        second_channel("u", OUTPUTS, [], [Interlock("u/x", "temp >", (("u/fan", 0.0),), "u")], {"u/temp": 0}, UNITS)
    rows = [disagreement_row("u", OUTPUTS)] * 2
    with pytest.raises(InterlockError, match="declared twice"):
        InterlockTable.build(rows, {}, UNITS, OUTPUTS)
