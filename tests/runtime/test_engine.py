"""One scan as arrays: only what is believed is computed with, and whatever is wrong ends in the declared fallback."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import runtime_rig as rig
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent.poet.batch import CallStatus
from agent.runtime.clock import ManualClock
from agent.runtime.program import Program
from safety.envelope import RequestState
from safety.values import Quality, Verdict


@pytest.fixture
def program(tmp_path: Path) -> Program:
    return rig.program_of(tmp_path)


@pytest.fixture
def bench(program: Program) -> rig.Bench:
    bench = rig.Bench(rig.engine_of(program))
    bench.read_all()
    settle(bench)
    return bench


def settle(bench: rig.Bench) -> Any:
    """Judge inputs, evaluate interlocks and enforce what they change; returns the outputs that changed."""
    now = bench.clock.monotonic()
    bench.engine.perceive(now)
    _changed, affected = bench.engine.safety(now)
    if len(affected):
        bench.engine.enforce(now, affected)
    return {bench.program.outputs[output].name for output in affected}


def scan(bench: rig.Bench, *, answered: bool = True, **fields: float) -> None:
    """One whole scan of the group in which the function says ``fields``."""
    settle(bench)
    group = bench.program.groups[0]
    columns = bench.engine.prepare(group)
    bench.answer(group, columns, **{"heating": 0.0, "fan": 0.0, **fields})
    bench.engine.collect(group, columns, answered=answered)
    bench.engine.enforce(bench.clock.monotonic())


def test_starts_in_fail_safe_before_anything_was_read(program: Program) -> None:
    bench = rig.Bench(rig.engine_of(program))
    settle(bench)
    bench.engine.enforce(bench.clock.monotonic())
    assert (bench.out("east/heating"), bench.out("east/fan")) == (0.0, 0.0), "its interlock has seen no temperature yet"
    assert bench.state("east/heating") == RequestState.INPUT_BAD
    assert bench.engine.prepare(program.groups[0]).size == 0, "no unit has its inputs"


def test_arguments_are_what_was_read_and_the_parameters_in_force(bench: rig.Bench) -> None:
    bench.read(east__temp=18.25, east__setpoint=22.0)
    settle(bench)
    group = bench.program.groups[0]
    assert bench.engine.prepare(group).tolist() == [0, 1]
    assert bench.engine.arguments(group, 0) == [18.25, 22.0, 0.5, 10.0]


def test_learned_parameter_is_used_by_the_next_operate(bench: rig.Bench) -> None:
    group = bench.program.groups[0]
    bench.engine.set_parameter("west", "bias", -1.25)
    bench.engine.prepare(group)
    assert [bench.engine.arguments(group, column)[2] for column in (0, 1)] == [0.5, -1.25]
    assert bench.engine.parameter("west", "bias") == -1.25


def test_answer_becomes_the_output_within_its_envelope(bench: rig.Bench) -> None:
    scan(bench, heating=150.0, fan=1.0)
    assert (bench.out("east/heating"), bench.out("east/fan")) == (100.0, 1.0)
    assert bench.state("east/heating") == RequestState.OK


def test_bad_input_goes_to_fail_safe_at_once_and_not_at_the_next_scan(bench: rig.Bench) -> None:
    scan(bench, heating=40.0, fan=1.0)
    bench.clock.advance(0.1)
    bench.read(east__setpoint=math.nan)
    assert settle(bench) == {"east/heating", "east/fan"}
    assert (bench.out("east/heating"), bench.out("east/fan")) == (5.0, 0.0)
    assert bench.out("west/heating") == 40.0, "a neighbour is not touched"
    assert settle(bench) == set(), "and it is said once"


def test_input_that_is_merely_silent_is_bad_when_it_is_stale(bench: rig.Bench) -> None:
    scan(bench, heating=40.0)
    bench.clock.advance(30.1)
    bench.read(east__temp=20.0, west__temp=20.0, west__setpoint=20.0, cellar__level=0.0)
    assert {"east/heating", "east/fan"} <= settle(bench)
    assert bench.out("east/heating") == 5.0
    assert bench.engine.prepare(bench.program.groups[0]).tolist() == [1]


def test_answer_that_arrives_after_an_input_went_bad_is_not_believed(bench: rig.Bench) -> None:
    group = bench.program.groups[0]
    columns = bench.engine.prepare(group)
    bench.read(east__setpoint=math.nan)
    settle(bench)
    bench.answer(group, columns, heating=80.0, fan=1.0)
    bench.engine.collect(group, columns, answered=True)
    bench.engine.enforce(bench.clock.monotonic())
    assert (bench.out("east/heating"), bench.out("west/heating")) == (5.0, 80.0)
    assert bench.state("east/heating") == RequestState.INPUT_BAD


def test_missing_answer_after_an_input_went_bad_counts_as_bad_input_and_holds_nothing(bench: rig.Bench) -> None:
    scan(bench, heating=40.0)
    group = bench.program.groups[0]
    columns = bench.engine.prepare(group)
    bench.read(east__setpoint=math.nan)
    settle(bench)
    bench.engine.collect(group, columns, answered=False)
    bench.engine.enforce(bench.clock.monotonic())
    assert bench.state("east/heating") == RequestState.INPUT_BAD, "east may hold two scans, but not over a dead sensor"
    assert bench.out("east/heating") == 5.0


def test_input_that_comes_back_waits_for_a_fresh_answer(bench: rig.Bench) -> None:
    scan(bench, heating=40.0)
    bench.read(east__setpoint=math.nan)
    settle(bench)
    bench.read(east__setpoint=20.0)
    settle(bench)
    bench.engine.enforce(bench.clock.monotonic())
    assert bench.out("east/heating") == 5.0
    scan(bench, heating=30.0)
    assert bench.out("east/heating") == 30.0


@pytest.mark.parametrize(
    ("status", "answered", "cause"),
    [
        (CallStatus.RAISED, True, Verdict.FUNCTION_FAILED),
        (CallStatus.NOT_FINITE, True, Verdict.FUNCTION_FAILED),
        (CallStatus.NOT_A_COMMAND, True, Verdict.FUNCTION_FAILED),
        (CallStatus.NOT_RUN, True, Verdict.FUNCTION_FAILED),
        (CallStatus.OK, False, Verdict.DEADLINE_MISSED),
    ],
)
def test_failing_unit_holds_so_many_scans_and_then_fails_safe(
    bench: rig.Bench, status: int, answered: bool, cause: Verdict
) -> None:
    scan(bench, heating=40.0)
    group, engine = bench.program.groups[0], bench.engine
    seen = []
    for _ in range(4):
        bench.clock.advance(5.0)
        bench.read_all()
        settle(bench)
        columns = engine.prepare(group)
        bench.answer(group, columns, heating=77.0, fan=0.0)
        engine._arrays["g0.status"][0] = status
        engine.collect(group, columns if answered else columns[:1], answered=answered)
        engine.enforce(bench.clock.monotonic())
        verdict = int(engine.enforcer.verdict[bench.program.output_index["east/heating"]])
        seen.append((bench.out("east/heating"), bool(verdict & Verdict.HELD), bool(verdict & cause)))
    assert seen == [(40.0, True, True), (40.0, True, True), (5.0, False, True), (5.0, False, True)]
    assert not answered or bench.out("west/heating") == 77.0
    scan(bench, heating=41.0)
    assert bench.out("east/heating") == 41.0, "one good answer and the count starts anew"
    engine._arrays["g0.status"][0] = CallStatus.RAISED
    engine.collect(group, np.asarray([0]), answered=True)
    engine.enforce(bench.clock.monotonic())
    assert bench.out("east/heating") == 41.0


def test_unit_that_never_answered_has_nothing_to_hold(bench: rig.Bench) -> None:
    group = bench.program.groups[0]
    bench.engine.collect(group, bench.engine.prepare(group), answered=False)
    bench.engine.enforce(bench.clock.monotonic())
    assert bench.out("east/heating") == 5.0
    assert bench.state("east/heating") == RequestState.DEADLINE_MISSED


def test_busy_columns_keep_their_arguments(bench: rig.Bench) -> None:
    group, engine = bench.program.groups[0], bench.engine
    bench.read(east__temp=18.0, west__temp=18.0)
    settle(bench)
    engine.prepare(group)
    bench.clock.advance(1.0)
    bench.read(east__temp=19.0, west__temp=19.0)
    settle(bench)
    engine.prepare(group, np.array([True, False]))
    assert [engine.arguments(group, column)[0] for column in (0, 1)] == [18.0, 19.0]


def test_trip_acts_at_once_and_names_the_outputs_it_moved(bench: rig.Bench) -> None:
    scan(bench, heating=40.0)
    bench.read(east__temp=46.0)
    assert settle(bench) == {"east/heating"}
    assert bench.out("east/heating") == 0.0
    bench.clock.advance(1.0)
    bench.read(east__temp=44.0)
    assert settle(bench) == {"east/heating"}, "the end of the trip acts at once, too"
    assert bench.out("east/heating") == 40.0


def test_second_trip_that_forces_another_value_acts_at_once(tmp_path: Path) -> None:
    rows = """  - {name: hot, when: temp > 45 Cel, trip: {heating: 50}}
  - {name: hotter, when: temp > 48 Cel, trip: {heating: 5}}"""
    east = rig.EAST.replace("  - {name: hot, when: temp > 45 Cel, trip: {heating: 0}}", rows)
    bench = rig.Bench(rig.engine_of(rig.program_of(tmp_path, {**rig.ZONES, "east": east})))
    bench.read_all()
    settle(bench)
    scan(bench, heating=90.0)
    outputs = []
    for temperature in (46.0, 49.0, 46.0):
        bench.clock.advance(1.0)
        bench.read(east__temp=temperature)
        settle(bench)
        outputs.append(bench.out("east/heating"))
    assert outputs == [50.0, 5.0, 50.0], "the flag alone stays set all the while"


def test_forced_output_held_by_a_minimum_time_moves_when_the_time_is_over(bench: rig.Bench) -> None:
    """Nothing scans a unit without a function, and an hourly scan would be an hour too late."""
    bench.read(cellar__level=3.0)
    settle(bench)
    assert bench.out("cellar/pump") == 0.0, "off for less than its minimum, as far as anybody knows"
    moved_at = None
    for second in range(90):
        bench.clock.advance(1.0)
        bench.read(cellar__level=3.0)
        settle(bench)
        if moved_at is None and bench.out("cellar/pump") == 1.0:
            moved_at = second + 1
    assert moved_at == 60


def test_text_of_the_function_is_read_back(bench: rig.Bench) -> None:
    group = bench.program.groups[0]
    bench.engine._arrays["g0.text"][1, :7] = np.frombuffer("heiß ok".encode()[:7], np.uint8)
    assert bench.engine.text(group, 1) == "heiß o"
    assert bench.engine.text(group, 0) == ""


def test_limited_counts_commands_and_not_dead_bands(bench: rig.Bench) -> None:
    before = bench.engine.limited
    scan(bench, heating=150.0)
    assert bench.engine.limited - before == 3, "two heatings clamped, and the pump in fail-safe"


def test_one_devices_slice_is_judged_alone(bench: rig.Bench) -> None:
    where = bench.program.device_slices["ahu1"]
    bench.clock.advance(100.0)
    bench.engine.perceive(bench.clock.monotonic(), where)
    assert (bench.engine.quality[where] == Quality.BAD).all()
    assert (bench.engine.quality[bench.program.device_slices["ahu2"]] == Quality.GOOD).all()


reading = st.one_of(st.floats(-20.0, 60.0), st.sampled_from([math.nan, math.inf, -math.inf, 45.0, 45.1]))
answer = st.one_of(st.floats(allow_nan=False, allow_infinity=False), st.floats(-10, 110))
step = st.tuples(
    st.sampled_from(["east__temp", "west__temp", "east__setpoint", "cellar__level"]),
    reading,
    st.floats(0.0, 40.0),
    answer,
    st.sampled_from(list(CallStatus)),
    st.booleans(),
)


def replay(program: Program, steps: list[Any]) -> list[Any]:
    bench = rig.Bench(rig.engine_of(program), ManualClock(1000.0))
    bench.read_all()
    history = []
    for name, value, seconds, requested, status, answered in steps:
        bench.clock.advance(seconds)
        bench.read(**{name: value})
        settle(bench)
        group = program.groups[0]
        columns = bench.engine.prepare(group)
        bench.answer(group, columns, heating=requested, fan=1.0)
        bench.engine._arrays["g0.status"][columns[:1]] = status
        bench.engine.collect(group, columns, answered=answered)
        bench.engine.enforce(bench.clock.monotonic())
        enforcer = bench.engine.enforcer
        history.append(
            (enforcer.out.tolist(), enforcer.verdict.tolist(), enforcer.status.tolist(), bench.engine.quality.tolist())
        )
    return history


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(steps=st.lists(step, min_size=1, max_size=12))
def test_scan_is_a_function_of_inputs_parameters_and_clock_and_never_leaves_the_envelope(
    program: Program, steps: list[Any]
) -> None:
    first = replay(program, steps)
    assert repr(first) == repr(replay(program, steps))
    heating = [program.output_index[f"{unit}/heating"] for unit in ("east", "west")]
    switches = [program.output_index[name] for name in ("east/fan", "west/fan", "cellar/pump")]
    for (out, _verdict, _status, quality), (_name, _value, _seconds, _requested, status, answered) in zip(
        first, steps, strict=True
    ):
        assert all(0.0 <= out[row] <= 100.0 for row in heating)
        assert all(out[row] in (0.0, 1.0) for row in switches)
        if quality[program.point_index["west/temp"]] == Quality.BAD:
            assert out[program.output_index["west/heating"]] in (0.0, 5.0), "fail-safe or tripped, never a request"
        if not answered:
            assert out[program.output_index["west/heating"]] in (0.0, 5.0), "west holds nothing"
        del status
