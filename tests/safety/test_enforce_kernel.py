"""Enforce by example: every row of the table at the top of safety/kernels.py."""

from __future__ import annotations

import math
from enum import IntEnum

import numpy as np
import pytest
from enforce_rig import Rig, cooling, fan, heating

from safety import kernels
from safety.envelope import RequestState
from safety.interlocks import Interlock, InterlockStatus
from safety.values import OFF, ON, Quality, Verdict

NAN = math.nan


def test_codes_are_those_of_the_shared_values() -> None:
    for enum, prefix in ((Verdict, "V_"), (RequestState, ""), (InterlockStatus, "")):
        for member in enum:
            if hasattr(kernels, prefix + member.name):
                assert getattr(kernels, prefix + member.name) == member
    assert {name for name in vars(kernels) if name.startswith("V_")} == {
        f"V_{one.name}" for one in Verdict if one is not Verdict.NONE
    }
    assert kernels.QUALITY_GOOD == Quality.GOOD
    assert issubclass(RequestState, IntEnum)


def test_a_good_request_passes() -> None:
    rig = Rig([heating()])
    assert rig.scan(0.0, [42.0]) == [42.0]
    assert rig.verdict() == Verdict.NONE


@pytest.mark.parametrize(
    ("asked", "given", "verdict"),
    [
        (-1e-9, 0.0, Verdict.CLAMPED_LOW),
        (0.0, 0.0, Verdict.NONE),
        (100.0, 100.0, Verdict.NONE),
        (100.0 + 1e-9, 100.0, Verdict.CLAMPED_HIGH),
        (500.0, 100.0, Verdict.CLAMPED_HIGH),
        (-1e308, 0.0, Verdict.CLAMPED_LOW),
        (5e-324, 5e-324, Verdict.NONE),
    ],
)
def test_absolute_limits(asked: float, given: float, verdict: Verdict) -> None:
    rig = Rig([heating()])
    assert rig.scan(0.0, [asked]) == [given]
    assert rig.verdict() == verdict


@pytest.mark.parametrize("asked", [NAN, math.inf, -math.inf])
def test_what_is_not_a_number_goes_to_fail_safe(asked: float) -> None:
    rig = Rig([heating(fail_safe=20.0)])
    rig.scan(0.0, [80.0])
    assert rig.scan(1.0, [asked]) == [20.0]
    assert rig.verdict() == Verdict.NOT_FINITE | Verdict.FAIL_SAFE


@pytest.mark.parametrize(
    ("state", "cause"),
    [
        (RequestState.MISSING, Verdict.NONE),
        (RequestState.INPUT_BAD, Verdict.INPUT_BAD),
        (RequestState.FUNCTION_FAILED, Verdict.FUNCTION_FAILED),
        (RequestState.DEADLINE_MISSED, Verdict.DEADLINE_MISSED),
        (RequestState.WATCH_ONLY, Verdict.NONE),
        (99, Verdict.NONE),
    ],
)
def test_every_other_request_state_is_fail_safe(state: RequestState, cause: Verdict) -> None:
    rig = Rig([heating(fail_safe=20.0, max_step=1.0, max_rate=0.001)])
    rig.scan(0.0, [21.0])
    assert rig.scan(1.0, [21.0], [state]) == [20.0]
    assert rig.verdict() == cause | Verdict.FAIL_SAFE


def test_step_limit_and_its_anchor_after_a_violation() -> None:
    rig = Rig([heating(max_step=10.0)])
    assert [rig.scan(t, [100.0])[0] for t in range(3)] == [10.0, 20.0, 30.0]
    assert rig.verdict() == Verdict.STEP_LIMITED
    assert rig.scan(3.0, [NAN]) == [0.0]
    assert rig.scan(4.0, [100.0]) == [10.0]
    assert rig.scan(5.0, [-100.0]) == [0.0]
    assert rig.verdict() == Verdict.CLAMPED_LOW


def test_step_limit_downwards() -> None:
    rig = Rig([heating(max_step=10.0, fail_safe=50.0)])
    assert rig.scan(0.0, [0.0]) == [40.0]
    assert rig.verdict() == Verdict.STEP_LIMITED


def test_rate_limit_uses_the_time_that_really_passed() -> None:
    rig = Rig([heating(max_rate=2.0)])
    assert rig.scan(0.0, [100.0]) == [0.0]  # nothing is known of the time before
    assert rig.verdict() == Verdict.RATE_LIMITED
    assert rig.scan(1.0, [100.0]) == [2.0]
    assert rig.scan(11.0, [100.0]) == [22.0]
    assert rig.scan(16.0, [0.0]) == [12.0]
    assert rig.scan(10.0, [100.0]) == [12.0]  # a clock that runs backwards allows nothing


def test_rate_allowance_does_not_pile_up_while_the_request_is_steady() -> None:
    rig = Rig([heating(max_rate=1.0)])
    for t in range(100):
        rig.scan(float(t), [0.0])
    assert rig.scan(100.0, [100.0]) == [1.0]


def test_a_slow_rate_leaves_the_dead_band() -> None:
    rig = Rig([heating(max_rate=0.1, dead_band=1.0)])
    outs = [rig.scan(float(t), [50.0])[0] for t in range(31)]
    assert outs[:10] == [0.0] * 10
    assert outs[10] == pytest.approx(1.0)
    assert outs[30] == pytest.approx(3.0)


def test_dead_band_keeps_the_last_output() -> None:
    rig = Rig([heating(dead_band=2.0)])
    rig.scan(0.0, [50.0])
    assert rig.scan(1.0, [51.9]) == [50.0]
    assert rig.verdict() == Verdict.DEAD_BAND
    assert rig.scan(2.0, [52.0]) == [52.0]


def test_dead_band_never_keeps_a_valve_from_closing_or_from_fail_safe() -> None:
    rig = Rig([heating(dead_band=5.0, fail_safe=10.0)])
    rig.scan(0.0, [100.0])
    rig.scan(1.0, [7.0])
    assert rig.scan(2.0, [0.0]) == [0.0]
    rig.scan(3.0, [12.0])
    assert rig.scan(4.0, [NAN]) == [10.0]


def test_allowed_values_snap_and_others_are_fail_safe() -> None:
    rig = Rig([heating(allowed=(0.0, 33.0, 66.0))])
    assert rig.scan(0.0, [33.0 + 1e-8]) == [33.0]
    assert rig.scan(1.0, [34.0]) == [0.0]
    assert rig.verdict() == Verdict.NOT_ALLOWED | Verdict.FAIL_SAFE


def test_minimum_times() -> None:
    rig = Rig([fan()])
    assert rig.scan(0.0, [ON]) == [OFF]
    assert rig.verdict() == Verdict.MIN_OFF_HELD | Verdict.UNKNOWN_HISTORY
    assert rig.scan(29.9, [ON]) == [OFF]
    assert rig.scan(30.0, [ON]) == [ON]
    assert rig.scan(89.9, [OFF]) == [ON]
    assert rig.verdict() == Verdict.MIN_ON_HELD
    assert rig.scan(90.0, [OFF]) == [OFF]
    assert rig.scan(119.0, [ON]) == [OFF]
    assert rig.verdict() == Verdict.MIN_OFF_HELD
    assert rig.scan(120.0, [ON]) == [ON]


def test_fail_safe_ignores_min_on_but_waits_for_min_off() -> None:
    rig = Rig([fan()])
    rig.scan(0.0, [OFF])
    rig.scan(30.0, [ON])
    assert rig.scan(31.0, [NAN]) == [OFF]
    rig = Rig([fan(fail_safe=ON)])
    assert rig.scan(0.0, [ON]) == [ON]
    assert rig.scan(60.0, [OFF]) == [OFF]
    assert rig.scan(61.0, [NAN]) == [OFF]
    assert rig.verdict() == Verdict.NOT_FINITE | Verdict.FAIL_SAFE | Verdict.MIN_OFF_HELD
    assert rig.scan(90.0, [NAN]) == [ON]


def test_holding_keeps_the_last_good_output_only() -> None:
    rig = Rig([heating(max_step=10.0)])
    assert rig.scan(0.0, [9.0], [RequestState.HOLD_FAILED]) == [0.0]
    assert rig.verdict() == Verdict.FUNCTION_FAILED | Verdict.FAIL_SAFE
    rig.scan(1.0, [9.0])
    assert rig.scan(2.0, [NAN], [RequestState.HOLD_DEADLINE]) == [9.0]
    assert rig.verdict() == Verdict.DEADLINE_MISSED | Verdict.HELD
    assert rig.scan(3.0, [NAN], [RequestState.HOLD_FAILED]) == [9.0]
    rig.scan(4.0, [NAN])
    assert rig.scan(5.0, [9.0], [RequestState.HOLD_FAILED]) == [0.0]


def test_what_is_not_due_keeps_its_output_and_verdict() -> None:
    rig = Rig([heating()])
    rig.scan(0.0, [500.0])
    assert rig.scan(1.0, [NAN], due=[0]) == [100.0]
    assert rig.verdict() == Verdict.CLAMPED_HIGH


def test_relinquishing_and_coming_back() -> None:
    rig = Rig([heating(fail_safe=None, max_step=5.0)])
    assert math.isnan(rig.scan(0.0, [NAN])[0])
    assert rig.enforcer.relinquish[0] == 1
    assert rig.scan(1.0, [50.0]) == [5.0]  # from idle: nothing says where the equipment is
    assert rig.enforcer.relinquish[0] == 0
    rig.scan(2.0, [NAN])
    for present, first in ((60.0, 55.0), (1e9, 95.0), (-3.0, 5.0), (NAN, 5.0), (math.inf, 95.0)):
        rig.enforcer.present[0] = present
        rig.scan(3.0, [NAN])
        assert rig.scan(4.0, [50.0]) == [first]


def test_relinquished_equipment_waits_for_min_off_before_it_is_switched_on() -> None:
    rig = Rig([fan(fail_safe=None)])
    assert math.isnan(rig.scan(0.0, [ON])[0])
    assert rig.verdict() == Verdict.MIN_OFF_HELD | Verdict.UNKNOWN_HISTORY
    assert math.isnan(rig.scan(1.0, [ON], [RequestState.HOLD_FAILED])[0])
    assert rig.scan(30.0, [ON]) == [ON]


def test_both_of_a_pair_asked_together_are_not_believed() -> None:
    rig = Rig([heating(), cooling(fail_safe=7.0)], [(0, 1)])
    assert rig.scan(0.0, [80.0, 80.0]) == [0.0, 7.0]
    for output in (0, 1):
        assert rig.verdict(output) == Verdict.EXCLUSIVE | Verdict.FAIL_SAFE


def test_the_later_of_a_pair_waits_until_the_first_is_idle() -> None:
    rig = Rig([heating(max_step=30.0), cooling()], [(0, 1)])
    rig.scan(0.0, [30.0, 0.0])
    rig.scan(1.0, [60.0, 0.0])
    assert rig.scan(2.0, [0.0, 50.0]) == [30.0, 0.0]
    assert rig.verdict(1) == Verdict.EXCLUSIVE
    assert rig.scan(3.0, [0.0, 50.0]) == [0.0, 50.0]
    assert rig.scan(4.0, [0.0, 50.0]) == [0.0, 50.0]
    rig = Rig([heating(), cooling(max_step=30.0)], [(0, 1)])
    rig.scan(0.0, [0.0, 30.0])
    rig.scan(1.0, [0.0, 60.0])
    assert rig.scan(2.0, [50.0, 0.0]) == [0.0, 30.0]


def test_fail_safe_beats_a_request_of_the_pair() -> None:
    rig = Rig([heating(fail_safe=100.0), cooling()], [(0, 1)])
    assert rig.scan(0.0, [0.0, 0.0]) == [0.0, 0.0]
    assert rig.scan(1.0, [0.0, 50.0]) == [0.0, 50.0]
    assert rig.scan(2.0, [NAN, 50.0]) == [100.0, 0.0]
    rig = Rig([heating(), cooling(fail_safe=100.0)], [(0, 1)])
    assert rig.scan(0.0, [50.0, NAN]) == [0.0, 100.0]


FREEZE = Interlock("z/freeze", "frozen", (("z/heating", 100.0),), scope="z")
POINTS = {"z/frozen": "1", "z/other": "1"}


def test_a_trip_acts_at_once_and_between_scans() -> None:
    rig = Rig([heating(max_step=1.0, dead_band=0.5), cooling()], [(0, 1)], [FREEZE], POINTS)
    rig.scan(0.0, [0.0, 50.0])
    rig.measure("z/frozen", ON)
    assert rig.scan(0.5) == [100.0, 0.0]
    assert rig.verdict(0) == Verdict.TRIPPED
    assert rig.verdict(1) == Verdict.EXCLUSIVE
    assert rig.enforcer.first_out[0] == 0
    assert rig.scan(1.0, [0.0, 50.0]) == [100.0, 0.0]
    rig.measure("z/frozen", OFF)
    assert rig.scan(1.5) == [100.0, 0.0]  # nothing moves until a fresh request comes
    assert rig.scan(2.0, [0.0, 0.0]) == [99.0, 0.0]
    assert rig.scan(3.0, [NAN, NAN], [RequestState.HOLD_FAILED] * 2) == [99.0, 0.0]


def test_a_trip_reports_the_other_causes_too() -> None:
    rig = Rig([heating()], [], [FREEZE], POINTS)
    rig.measure("z/frozen", ON)
    rig.scan(0.0, [NAN])
    assert rig.verdict() == Verdict.TRIPPED | Verdict.NOT_FINITE
    rig.scan(0.1)
    assert rig.verdict() == Verdict.TRIPPED | Verdict.NOT_FINITE


def test_trips_that_force_both_of_a_pair_on_outrank_it_until_they_clear() -> None:
    both = Interlock("z/coil", "other", (("z/heating", 100.0), ("z/cooling", 100.0)), scope="z")
    rig = Rig([heating(), cooling()], [(0, 1)], [both], POINTS)
    rig.measure("z/other", ON)
    assert rig.scan(0.0, [0.0, 0.0]) == [100.0, 100.0]
    assert rig.verdict(0) == rig.verdict(1) == Verdict.TRIPPED | Verdict.EXCLUSIVE
    rig.measure("z/other", OFF)
    assert rig.scan(1.0) == [0.0, 0.0]


def test_forcing_relinquish() -> None:
    away = Interlock("z/away", "other", (("z/heating", None),), scope="z")
    rig = Rig([heating(fail_safe=None)], [], [away], POINTS)
    rig.scan(0.0, [50.0])
    rig.measure("z/other", ON)
    assert math.isnan(rig.scan(1.0)[0])
    assert rig.verdict() == Verdict.TRIPPED | Verdict.FAIL_SAFE
    assert rig.enforcer.relinquish[0] == 1


def test_a_forced_value_outside_the_limits_becomes_fail_safe() -> None:
    rig = Rig([heating()])
    for bad in (101.0, -1.0, math.inf):
        rig.enforcer.forced[:] = bad
        rig.enforcer.forced_flag[:] = 1
        zero = np.zeros(1)
        rig.enforcer.enforce(0.0, zero, np.ones(1, np.uint8), np.ones(1, np.uint8))
        assert rig.enforcer.out[0] == 0.0
        assert rig.verdict() == Verdict.TRIPPED | Verdict.FAIL_SAFE


def test_an_output_forced_on_waits_for_min_off() -> None:
    purge = Interlock("z/purge", "other", (("z/fan", ON),), scope="z")
    rig = Rig([fan()], [], [purge], POINTS)
    rig.measure("z/other", ON)
    assert rig.scan(0.0) == [OFF]
    assert rig.verdict() == Verdict.TRIPPED | Verdict.MIN_OFF_HELD | Verdict.UNKNOWN_HISTORY
    assert rig.scan(30.0) == [ON]


def test_history_is_known_once_both_times_have_passed() -> None:
    rig = Rig([fan()])
    rig.scan(0.0, [OFF])
    rig.scan(60.0, [OFF])
    assert rig.enforcer._state.marks[kernels.KNOWN, 0] == 1


def test_a_fresh_rig_stands_at_fail_safe() -> None:
    rig = Rig([heating(fail_safe=30.0), cooling(fail_safe=None)])
    assert rig.enforcer.out[0] == 30.0
    assert math.isnan(rig.enforcer.out[1])
    assert list(rig.enforcer.relinquish) == [0, 1]
    assert rig.verdict() == Verdict.FAIL_SAFE | Verdict.UNKNOWN_HISTORY


def test_every_output_has_its_own_allowed_values() -> None:
    rig = Rig(
        [heating(allowed=(0.0, 10.0)), cooling(), fan(min_off_s=0.0), heating(name="z/c", allowed=(0.0, 20.0, 30.0))]
    )
    assert rig.scan(0.0, [10.0, 15.0, 1.0, 30.0]) == [10.0, 15.0, 1.0, 30.0]
    assert rig.scan(1.0, [20.0, 15.0, 10.0, 10.0]) == [0.0, 15.0, 0.0, 0.0]


def test_exactly_the_middle_is_off() -> None:
    rig = Rig([heating(min_on_s=60.0, min_off_s=30.0)])
    assert rig.scan(0.0, [50.0]) == [50.0]
    assert rig.scan(1.0, [50.1]) == [50.0]
    assert rig.verdict() & Verdict.MIN_OFF_HELD
    assert rig.scan(30.0, [50.1]) == [50.1]
    assert rig.scan(89.0, [50.0]) == [50.1]
    assert rig.verdict() == Verdict.MIN_ON_HELD
    assert rig.scan(90.0, [50.0]) == [50.0]
    assert rig.scan(119.0, [51.0]) == [50.0], "50 at 90 s was a switch"


def test_the_way_back_from_a_trip_is_rate_limited_from_its_end() -> None:
    rig = Rig([heating(max_rate=1.0)], [], [FREEZE], POINTS)
    rig.scan(0.0, [0.0])
    rig.measure("z/frozen", ON)
    for t in range(1, 50):
        assert rig.scan(float(t)) == [100.0]
    rig.measure("z/frozen", OFF)
    assert rig.scan(50.0, [0.0]) == [99.0]


def test_a_trip_to_a_limit_or_beside_relinquish_is_not_fail_safe() -> None:
    low = Interlock("z/low", "other", (("z/heating", 0.0), ("z/cooling", 60.0)), scope="z")
    rig = Rig([heating(fail_safe=20.0), cooling(fail_safe=None)], [], [low], POINTS)
    rig.measure("z/other", ON)
    assert rig.scan(0.0, [50.0, 50.0]) == [0.0, 60.0]
    assert rig.verdict(0) == rig.verdict(1) == Verdict.TRIPPED


def test_history_stays_unknown_until_both_minimum_times_have_passed() -> None:
    rig = Rig([fan(min_on_s=10.0, min_off_s=30.0)])
    for t in (0.0, 15.0, 29.0):
        assert rig.scan(t, [ON]) == [OFF]
        assert rig.verdict() == Verdict.MIN_OFF_HELD | Verdict.UNKNOWN_HISTORY
