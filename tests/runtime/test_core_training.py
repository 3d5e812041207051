"""Core's end of Train: what is measured after a scan goes out, and what comes back is used by the next Operate, or refused."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import runtime_rig as rig

from agent.runtime.training import TrainScans, feedback_of, feedback_rows, load_parameters
from agent.train.messages import Answer, Proposal
from agent.train.parameters import ParameterSet
from agent.train.store import LearningStore
from safety.values import Quality

EAST = (
    rig.EAST.replace("range: [10, 30], stale", "range: [10, 30], fallback: 21, stale")
    + "train: {mode: on, ewma: {parameter: bias, feedback: temp, target: setpoint, gain: 1.0, window: 1min, only_when: west/fan}}\n"
)
WEST = rig.WEST + "train: {mode: off, ewma: {parameter: bias, feedback: temp, target: 21.5, gain: 1.0}}\n"


@pytest.fixture
def bench(tmp_path: Path) -> rig.Bench:
    bench = rig.Bench(rig.engine_of(rig.program_of(tmp_path, {"east": EAST, "west": WEST})))
    bench.read_all()
    bench.engine.perceive(bench.clock.monotonic())
    return bench


def perceive(bench: rig.Bench) -> None:
    bench.engine.perceive(bench.clock.monotonic())


def test_feedback_is_the_point_against_its_target(bench: rig.Bench) -> None:
    rows = feedback_rows(bench.program)
    bench.read(east__temp=19.5, east__setpoint=22.0, west__fan=1.0, west__temp=23.0)
    perceive(bench)
    east, west = (feedback_of(rows[unit], bench.engine, 7.0, 8.0) for unit in (0, 1))
    assert east[:5] == ("east", 7.0, 8.0, 19.5, 22.0)
    assert (east.quality, east.counts) == (Quality.GOOD, True)
    assert (west.target, west.counts) == (21.5, True)


def test_bad_sensor_or_target_is_told_and_an_absent_condition_does_not_count(bench: rig.Bench) -> None:
    rows = feedback_rows(bench.program)
    bench.read(east__temp=math.nan)
    perceive(bench)
    assert feedback_of(rows[0], bench.engine, 0.0, 0.0).quality == Quality.BAD
    bench.read(east__temp=20.0, east__setpoint=math.nan, west__fan=math.nan)
    perceive(bench)
    feedback = feedback_of(rows[0], bench.engine, 0.0, 0.0)
    assert feedback.quality == Quality.UNCERTAIN, "the target's fallback is not its measurement"
    assert feedback.target == 21.0 and not feedback.counts


def train_of(bench: rig.Bench, folder: Path) -> TrainScans:
    parameters = ParameterSet([unit.config for unit in bench.program.units])
    return TrainScans(folder / "train.sock", bench.engine, parameters, bench.clock)


async def test_accepted_proposal_is_in_the_next_scans_arguments_and_a_refused_one_is_not(
    bench: rig.Bench, tmp_path: Path
) -> None:
    train = train_of(bench, tmp_path)
    heard: list[bool] = []
    train.on_learned.append(lambda _proposal, answer: heard.append(answer.applied))
    group = bench.program.groups[0]
    proposal = Proposal("east", "bias", 0.7, 1, "too cold by 0.2 K", None)
    train._decided(proposal, train.link._parameters.apply(proposal, 0.0))
    bench.engine.prepare(group)
    assert bench.engine.arguments(group, 0)[2] == 0.7
    wild = Proposal("east", "bias", 99.0, 2, "a stranger's idea", None)
    train._decided(wild, train.link._parameters.apply(wild, 1e6))
    bench.engine.prepare(group)
    assert bench.engine.arguments(group, 0)[2] == 0.7
    assert heard == [True, False] and (train.applied, train.refused) == (1, 1)


async def test_proposal_for_a_unit_whose_function_was_not_loaded_changes_nothing(tmp_path: Path) -> None:
    broken = rig.FunctionInfo(rig.CONTROL.spec, ok=False)
    bench = rig.Bench(rig.engine_of(rig.program_of(tmp_path, {"east": EAST, "west": WEST}, broken)))
    train = train_of(bench, tmp_path)
    train._decided(Proposal("east", "bias", 0.7, 1, "why", None), Answer(True, "east", "bias", 0.7, 1, "was 0.5"))
    assert train.applied == 1


async def test_without_a_worker_feedback_is_dropped_and_counted(bench: rig.Bench, tmp_path: Path) -> None:
    train = train_of(bench, tmp_path)
    group = bench.program.groups[0]
    train.scanned(group, bench.engine.prepare(group))
    assert train.link.dropped == 2


def test_learned_value_is_taken_up_at_the_start_only_within_todays_limits(bench: rig.Bench, tmp_path: Path) -> None:
    store = tmp_path / "learning.db"
    with LearningStore(store) as learned:
        for unit, value in (("east", 0.9), ("west", 7.0)):
            row = learned.propose(unit, "bias", value, factory=0.5, reason="a window", utc=1.0, standard_error=None)
            learned.activate(unit, "bias", row.version)
    load_parameters(bench.program, bench.engine, store)
    assert bench.engine.parameter("east", "bias") == 0.9
    assert bench.engine.parameter("west", "bias") == 0.5


def test_damaged_store_leaves_the_factory_values_in_force(bench: rig.Bench, tmp_path: Path) -> None:
    (tmp_path / "learning.db").write_bytes(b"rubbish" * 1000)
    load_parameters(bench.program, bench.engine, tmp_path / "learning.db")
    assert bench.engine.parameter("east", "bias") == 0.5
