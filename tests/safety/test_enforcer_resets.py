"""Resets, first-out, what survives a restart, and what the Enforcer refuses."""

from __future__ import annotations

import math

import numpy as np
import pytest
from enforce_rig import Rig, cooling, fan, heating

from safety.enforcer import Enforcer
from safety.errors import InterlockError, SafetyError
from safety.interlocks import Interlock, InterlockStatus, InterlockTable
from safety.remembered import Remembered, SwitchRecord, TripRecord
from safety.values import OFF, ON, Quality, Verdict

UTC = 1_800_000_000.0
POINTS = {"z/static": "Pa", "z/smoke": "1"}
STATIC = Interlock("z/static_high", "static > 750 Pa", (("z/fan", OFF),), scope="z", manual=True)
SMOKE = Interlock("z/smoke", "smoke", (("z/fan", OFF),), scope="z", clear_delay_s=10.0)


def rig() -> Rig:
    made = Rig([fan()], [], [STATIC, SMOKE], POINTS)
    made.measure("z/static", 300.0)
    return made


def running() -> Rig:
    made = rig()
    made.scan(0.0, [OFF])
    assert made.scan(100.0, [ON]) == [ON]
    return made


def test_nothing_runs_before_the_inputs_have_been_good_once() -> None:
    made = rig()
    made.measure("z/static", math.nan, Quality.BAD)
    assert made.enforcer.forced_flag[0] == 1  # even before the first evaluation
    made.evaluate(0.0)
    assert made.enforcer.status[0] == InterlockStatus.STARTUP
    assert made.enforcer.cause_text(0) == "z/static is bad, stale or missing"
    result = made.enforcer.reset("z/static_high", 0.0)
    assert not result.accepted
    assert "z/static is bad" in result.reason
    made.measure("z/static", 300.0)
    assert made.evaluate(1.0)
    assert list(made.enforcer.tripped) == [False, False]
    assert made.enforcer.first_out[0] == -1
    assert made.enforcer.cause_text(0) == ""


def test_a_live_cause_refuses_the_reset_and_a_reset_starts_nothing() -> None:
    made = running()
    made.measure("z/static", 800.0)
    assert made.scan(200.0) == [OFF]
    refused = made.enforcer.reset("z/static_high", 201.0)
    assert not refused.accepted
    assert "static > 750 Pa" in refused.reason
    made.measure("z/static", 300.0)
    assert made.scan(202.0, [ON]) == [OFF]
    assert made.enforcer.status[0] == InterlockStatus.RESETTABLE
    assert made.enforcer.reset("z/static_high", 203.0).accepted
    assert made.scan(204.0) == [OFF], "no fresh request: nothing starts"
    assert made.scan(205.0, [ON]) == [OFF], "min-off since the trip at 200"
    assert made.verdict() == Verdict.MIN_OFF_HELD
    assert made.scan(230.0, [ON]) == [ON]


def test_a_reset_while_an_input_is_bad_is_refused() -> None:
    made = running()
    made.measure("z/static", 300.0, Quality.BAD)
    made.scan(200.0)
    assert made.enforcer.cause_text(0) == "z/static is bad, stale or missing"
    assert not made.enforcer.reset("z/static_high", 201.0).accepted


def test_resetting_what_is_not_tripped_or_clears_by_itself() -> None:
    made = running()
    assert made.enforcer.reset("z/static_high", 101.0).reason == "z/static_high is not tripped"
    made.measure("z/smoke", ON)
    made.scan(200.0)
    assert "clears by itself" in made.enforcer.reset("z/smoke", 201.0).reason
    with pytest.raises(InterlockError, match="there are: z/static_high, z/smoke"):
        made.enforcer.reset("z/nothing", 0.0)
    with pytest.raises(InterlockError, match="there are: none"):
        Rig([fan()]).enforcer.reset("z/nothing", 0.0)


def test_first_out_is_kept_until_nothing_forces_the_output() -> None:
    made = running()
    made.measure("z/smoke", ON)
    made.scan(200.0)
    made.measure("z/static", 800.0)
    made.scan(201.0)
    made.measure("z/smoke", OFF)
    made.scan(202.0)
    made.scan(212.0)
    assert list(made.enforcer.tripped) == [True, False]
    assert made.enforcer.first_out[0] == 1
    assert made.enforcer.cause_text(1) == "smoke"
    assert made.enforcer.tripped_at(1) == 200.0
    made.measure("z/static", 300.0)
    made.scan(213.0)
    assert made.enforcer.reset("z/static_high", 213.0).accepted
    made.scan(214.0)
    assert made.enforcer.first_out[0] == -1


def test_waiting_for_inputs_is_replaced_as_first_out_by_a_real_trip() -> None:
    made = rig()
    made.measure("z/smoke", OFF, Quality.BAD)
    made.measure("z/static", 800.0)
    made.evaluate(0.0)
    assert made.enforcer.first_out[0] == 0
    assert made.enforcer.tripped_at(0) == 0.0
    assert math.isnan(made.enforcer.tripped_at(1))


def restarted(remembered: Remembered, now: float = 5.0, utc: float = UTC) -> Rig:
    made = rig()
    made.enforcer.restore(remembered, now, utc)
    return made


def test_latches_and_history_survive_a_restart() -> None:
    made = running()
    made.measure("z/static", 800.0)
    made.scan(200.0)
    saved = made.enforcer.snapshot(260.0, UTC)
    assert saved == Remembered(
        (TripRecord("z/static_high", UTC - 60.0, "static > 750 Pa"),), (SwitchRecord("z/fan", False, UTC - 60.0),)
    )
    after = restarted(saved, utc=UTC + 10.0)
    assert after.enforcer.forced_flag[0] == 1
    after.scan(6.0, [ON])
    assert after.enforcer.status[0] == InterlockStatus.RESETTABLE
    assert after.enforcer.cause_text(0) == "static > 750 Pa"
    assert after.enforcer.tripped_at(0) == 5.0 - 70.0
    assert after.enforcer.reset("z/static_high", 7.0).accepted
    assert after.scan(8.0, [ON]) == [ON], "min-off was over before the restart"


def test_an_automatic_trip_survives_too_and_clears_by_its_own_rule() -> None:
    after = restarted(Remembered((TripRecord("z/smoke", UTC - 5.0, "smoke"),)))
    assert after.enforcer.first_out[0] == 1
    after.scan(6.0, [ON])
    assert after.enforcer.status[1] == InterlockStatus.TRIPPED
    assert after.enforcer.cause_text(1) == "smoke"
    after.scan(16.0, [ON])
    assert after.enforcer.status[1] == InterlockStatus.CLEAR
    after.measure("z/smoke", ON, Quality.BAD)
    after.scan(17.0)
    assert after.enforcer.cause_text(1) == "z/smoke is bad, stale or missing", "not the remembered cause"


def test_a_damaged_store_trips_everything_and_forgets_the_times() -> None:
    after = restarted(Remembered((), (SwitchRecord("z/fan", False, UTC - 1e6),), trusted=False))
    assert list(after.enforcer.tripped) == [True, True]
    assert after.enforcer.cause_text(0) == "the store of latches was damaged"
    after.scan(6.0, [ON])
    after.scan(20.0, [ON])
    assert after.enforcer.reset("z/static_high", 20.0).accepted
    assert after.scan(21.0, [ON]) == [OFF], "just switched, for all we know"
    assert after.verdict() == Verdict.MIN_OFF_HELD | Verdict.UNKNOWN_HISTORY


@pytest.mark.parametrize(
    ("record", "starts"),
    [
        (SwitchRecord("z/fan", False, UTC - 31.0), True),
        (SwitchRecord("z/fan", False, UTC - 20.0), False),
        (SwitchRecord("z/fan", False, UTC + 3600.0), False),  # the clock was put back
        (SwitchRecord("z/fan", False, 60.0), False),  # written before the clock was ever set
        (SwitchRecord("z/fan", False, math.nan), False),
        (SwitchRecord("z/fan", False, -math.inf), False),
        (SwitchRecord("z/fan", True, UTC - 1e6), False),  # it was on: fail-safe at the start is a switch
        (SwitchRecord("z/gone", False, UTC - 1e6), False),
    ],
)
def test_only_a_believable_time_counts_as_past(record: SwitchRecord, starts: bool) -> None:
    after = restarted(Remembered((TripRecord("z/gone", UTC, ""),), (record,)))
    assert after.scan(5.0, [ON]) == [ON if starts else OFF]


def test_a_clock_that_was_never_set_proves_nothing() -> None:
    after = restarted(Remembered((), (SwitchRecord("z/fan", False, UTC - 1e6),)), utc=1000.0)
    assert after.scan(5.0, [ON]) == [OFF]


def test_a_fresh_enforcer_has_no_switch_times_to_save() -> None:
    assert rig().enforcer.snapshot(0.0, UTC) == Remembered()


@pytest.mark.parametrize("now", [math.nan, math.inf])
def test_a_clock_that_is_not_a_number_is_refused(now: float) -> None:
    made = rig()
    with pytest.raises(SafetyError, match="control clock"):
        made.evaluate(now)
    with pytest.raises(SafetyError, match="control clock"):
        made.scan(now)
    with pytest.raises(SafetyError, match="control clock"):
        made.enforcer.reset("z/smoke", now)


def test_tables_of_two_different_lists_are_refused() -> None:
    table = InterlockTable.build([], {}, {}, [heating(fail_safe=None)])
    with pytest.raises(SafetyError, match="other envelopes"):
        Enforcer([heating()], [], table)
    with pytest.raises(SafetyError, match="other envelopes"):
        Enforcer([heating(), cooling()], [], table)


def test_public_arrays_have_the_documented_shapes() -> None:
    enforcer = rig().enforcer
    for array in (
        enforcer.out,
        enforcer.relinquish,
        enforcer.verdict,
        enforcer.forced,
        enforcer.forced_flag,
        enforcer.first_out,
        enforcer.present,
    ):
        assert array.shape == (1,)
    for array in (enforcer.status, enforcer.tripped, enforcer.cause):
        assert array.shape == (2,)
    assert enforcer.tripped.dtype == np.bool_
