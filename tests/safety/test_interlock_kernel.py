"""Interlocks: delays and clearing on a simulated clock, bad inputs, precedence, and tables that cannot be built."""

from __future__ import annotations

import math

import numpy as np
import pytest
from enforce_rig import Rig, cooling, heating
from hypothesis import given, settings
from hypothesis import strategies as st

from safety.errors import ExpressionError, InterlockError
from safety.interlocks import Interlock, InterlockStatus, InterlockTable
from safety.values import Quality

POINTS = {"z/t": "Cel", "z/stat": "1", "z/run": "1"}
STATUS = InterlockStatus


def row(**changes: object) -> Interlock:
    fields = {"name": "z/freeze", "when": "t < 4.4 Cel", "trip": (("z/heating", 0.0),), "scope": "z", **changes}
    return Interlock(**fields)  # type: ignore[arg-type]


def rig(*rows: Interlock) -> Rig:
    made = Rig([heating(), cooling(fail_safe=None)], [], rows, POINTS)
    made.measure("z/t", 10.0)
    return made


def status(made: Rig, now: float) -> InterlockStatus:
    made.evaluate(now)
    return STATUS(int(made.enforcer.status[0]))


def test_without_a_delay_it_trips_at_once_and_clears_at_once() -> None:
    made = rig(row())
    assert status(made, 0.0) is STATUS.CLEAR
    made.measure("z/t", 4.4)
    assert status(made, 1.0) is STATUS.CLEAR
    made.measure("z/t", math.nextafter(4.4, 0.0))
    assert status(made, 2.0) is STATUS.TRIPPED
    made.measure("z/t", 4.4)
    assert status(made, 3.0) is STATUS.CLEAR


def test_a_delay_counts_only_while_the_condition_holds() -> None:
    made = rig(row(delay_s=300.0))
    status(made, 0.0)
    made.measure("z/t", 4.0)
    assert status(made, 10.0) is STATUS.PENDING
    assert not made.enforcer.forced_flag[0]
    made.measure("z/t", 5.0)
    assert status(made, 200.0) is STATUS.CLEAR
    made.measure("z/t", 4.0)
    assert status(made, 210.0) is STATUS.PENDING
    assert status(made, 509.9) is STATUS.PENDING
    assert status(made, 510.0) is STATUS.TRIPPED
    assert made.enforcer.forced_flag[0]
    assert made.enforcer.tripped_at(0) == 510.0


def test_clearing_needs_the_clear_condition_for_its_whole_delay() -> None:
    made = rig(row(clear_when="t > 7 Cel", clear_delay_s=60.0))
    made.measure("z/t", 4.0)
    assert status(made, 0.0) is STATUS.TRIPPED
    made.measure("z/t", 6.0)
    assert status(made, 100.0) is STATUS.TRIPPED, "between the two thresholds it stays"
    made.measure("z/t", 7.5)
    assert status(made, 200.0) is STATUS.TRIPPED
    made.measure("z/t", 7.0)
    assert status(made, 250.0) is STATUS.TRIPPED
    made.measure("z/t", 7.5)
    assert status(made, 260.0) is STATUS.TRIPPED
    assert status(made, 319.9) is STATUS.TRIPPED
    assert status(made, 320.0) is STATUS.CLEAR


def test_a_clear_condition_cannot_clear_what_still_trips() -> None:
    made = rig(row(clear_when="t < 20 Cel"))
    made.measure("z/t", 4.0)
    assert status(made, 0.0) is STATUS.TRIPPED
    assert status(made, 1e6) is STATUS.TRIPPED


def test_a_manual_one_waits_for_its_reset_and_trips_again_if_the_cause_returns() -> None:
    made = rig(row(manual=True, clear_delay_s=5.0))
    made.measure("z/t", 4.0)
    assert status(made, 0.0) is STATUS.TRIPPED
    made.measure("z/t", 10.0)
    assert status(made, 1.0) is STATUS.TRIPPED
    assert not made.enforcer.reset("z/freeze", 2.0).accepted
    assert status(made, 6.0) is STATUS.RESETTABLE
    assert made.enforcer.forced_flag[0]
    made.measure("z/t", 4.0)
    assert status(made, 7.0) is STATUS.TRIPPED
    assert made.enforcer.tripped_at(0) == 0.0, "the first-out time is kept"
    made.measure("z/t", 10.0)
    status(made, 8.0)
    assert status(made, 1e6) is STATUS.RESETTABLE
    assert made.enforcer.reset("z/freeze", 1e6).accepted
    assert status(made, 1e6 + 1) is STATUS.CLEAR


BAD_INPUTS = [
    (10.0, Quality.BAD),
    (10.0, Quality.UNCERTAIN),  # a substituted or stuck value proves nothing
    (math.nan, Quality.GOOD),
    (math.inf, Quality.GOOD),
    (-math.inf, Quality.GOOD),
]


@pytest.mark.parametrize(("value", "quality"), BAD_INPUTS)
@pytest.mark.parametrize(
    "when", ["t < 4.4 Cel", "t > 4.4 Cel", "not t < 4.4 Cel", "stat or t < 4.4", "stat and t < 4.4"]
)
@pytest.mark.parametrize("manual", [False, True])
def test_a_bad_input_trips_at_once_whatever_the_condition_and_the_delay(
    value: float, quality: Quality, when: str, manual: bool
) -> None:
    made = rig(row(when=when, delay_s=1000.0, manual=manual, clear_delay_s=10.0))
    status(made, 0.0)
    made.measure("z/t", value, quality)
    assert status(made, 1.0) is STATUS.TRIPPED
    assert made.enforcer.forced_flag[0]
    assert made.enforcer.cause_text(0) == "z/t is bad, stale or missing"
    assert status(made, 1e6) is STATUS.TRIPPED


def test_a_bad_input_of_the_clear_condition_counts_too() -> None:
    made = rig(row(clear_when="not stat"))
    status(made, 0.0)
    made.measure("z/stat", 0.0, Quality.BAD)
    assert status(made, 1.0) is STATUS.TRIPPED


def test_a_status_nobody_knows_forces() -> None:
    made = rig(row())
    status(made, 0.0)
    made.enforcer.status[0] = 77
    made.measure("z/t", 4.5)
    made.evaluate(1.0)
    assert made.enforcer.status[0] == STATUS.CLEAR
    made.enforcer.status[0] = 77
    made.measure("z/t", 4.0)
    assert status(made, 2.0) is STATUS.TRIPPED


def test_changed_is_reported_once() -> None:
    made = rig(row())
    assert made.evaluate(0.0)
    assert not made.evaluate(1.0)
    made.measure("z/t", 4.0)
    assert made.evaluate(2.0)
    assert not made.evaluate(3.0)


def forced_by(*trips: tuple[tuple[str, float | None], ...]) -> tuple[float, float]:
    rows = [row(name=f"z/i{k}", when="stat", trip=trip) for k, trip in enumerate(trips)]
    made = rig(*rows)
    made.measure("z/stat", 1.0)
    made.evaluate(0.0)
    return float(made.enforcer.forced[0]), float(made.enforcer.forced[1])


def test_several_trips_on_one_output() -> None:
    assert forced_by((("z/heating", 60.0),), (("z/heating", 30.0),))[0] == 60.0, "the first row"
    assert forced_by((("z/heating", 60.0),), (("z/heating", 0.0),))[0] == 0.0, "fail-safe wins"
    assert forced_by((("z/heating", 0.0),), (("z/heating", 60.0),))[0] == 0.0
    assert math.isnan(forced_by((("z/cooling", 60.0),), (("z/cooling", None),))[1]), "relinquish is its fail-safe"
    assert forced_by(
        (("z/heating", 10.0), ("z/cooling", 20.0)),
    ) == (10.0, 20.0)
    assert forced_by((("z/cooling", 60.0),), (("z/cooling", 30.0),))[1] == 60.0, "neither is its fail-safe"


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (row(delay_s=-1.0), "delay must be finite"),
        (row(clear_delay_s=math.nan), "clear_delay must be finite"),
        (row(trip=(("z/nothing", 0.0),)), "no envelope"),
        (row(trip=(("z/heating", 101.0),)), "does not permit"),
        (row(trip=(("z/heating", math.nan),)), "does not permit"),
        (row(trip=(("z/heating", None),)), "force a value"),
    ],
)
def test_rows_that_cannot_be_built(bad: Interlock, message: str) -> None:
    with pytest.raises(InterlockError, match=message):
        rig(bad)


def test_two_rows_of_one_name_and_points_nobody_polls() -> None:
    with pytest.raises(InterlockError, match="declared twice"):
        rig(row(), row())
    with pytest.raises(InterlockError, match="not in the input image"):
        InterlockTable.build([row()], {}, POINTS, [heating()])
    with pytest.raises(ExpressionError, match="unknown point"):
        rig(row(when="tt < 4"))


def test_tables_are_frozen() -> None:
    table = rig(row()).enforcer.interlocks
    arrays = [getattr(table, name) for name in InterlockTable.__slots__]
    frozen = [one for one in arrays if isinstance(one, np.ndarray)]
    assert len(frozen) == 11
    for one in frozen:
        assert not one.flags.writeable
        with pytest.raises(ValueError, match="read-only"):
            one[...] = 0


@given(
    st.lists(
        st.tuples(st.floats(-5.0, 20.0), st.sampled_from(Quality), st.sampled_from([0.0, 1.0, 30.0, 400.0])),
        min_size=1,
        max_size=20,
    ),
    st.booleans(),
)
@settings(max_examples=200, deadline=None)
def test_never_clear_with_a_cause_that_has_lasted(inputs: list[tuple[float, Quality, float]], manual: bool) -> None:
    """An independent account of the same row: how long the condition has held, and whether every input is good."""
    made = rig(row(delay_s=300.0, manual=manual))
    now, cold_since, tripped = 0.0, None, False
    proven = False
    for value, quality, passed in inputs:
        now += passed
        made.measure("z/t", value, quality)
        made.evaluate(now)
        good = quality is Quality.GOOD
        proven = proven or good
        cold = good and value < 4.4
        cold_since = (now if cold_since is None else cold_since) if cold else None
        if tripped and not manual and good and not cold:
            tripped = False
        elif proven and (not good or (cold_since is not None and now - cold_since >= 300.0)):
            tripped = True
        assert bool(made.enforcer.tripped[0]) == (tripped or not proven)
