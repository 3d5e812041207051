"""Regression tests for what the first POET implementation got wrong in Train.

Defect 6: learned values were saved but never used, failures never trained, deterministic feedback moved nothing.
Defect 9: a file was appended to on every call, JSON was not written atomically, lists had no bound, nothing was locked.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from agent.config.unit import UnitConfig
from agent.train.errors import StoreBusyError
from agent.train.messages import Feedback, Proposal
from agent.train.parameters import ParameterSet
from agent.train.store import LearningStore
from agent.train.trainer import Trainer

WINDOW = 60.0
SCAN = 5.0


def site() -> UnitConfig:
    return UnitConfig.model_validate(
        {
            "zone": "east",
            "parameters": {"setback": {"value": 3.0, "range": [1.0, 8.0], "max_step": 0.7}},
            "train": {"ewma": {"parameter": "setback", "feedback": "y", "target": 17.0, "gain": 2.0, "window": "1min"}},
        }
    )


def process(setback: float) -> float:
    """Deterministic: the same parameter always gives the same feedback. The target 17 is reached at 6."""
    return 5.0 + 2.0 * setback


def run(
    parameters: ParameterSet, store: LearningStore, *, windows: float, start: float = 0.0, quality: int = 2
) -> list[float]:
    """Lock-step: core's scans feed the trainer, its proposals pass core's check, and the next scans use the answer."""
    trainer = Trainer(parameters.specs(), store, utc=lambda: 0.0)
    used = []
    t = start
    while t < start + windows * WINDOW:
        setback = parameters.value("east", "setback")
        used.append(setback)
        for proposal in trainer.feed(Feedback("east", t, 1e9 + t, process(setback), 17.0, quality, True)):
            trainer.feed(parameters.apply(proposal, t))
        t += SCAN
    return used


def test_defect_6_with_deterministic_feedback_the_learner_moves_and_arrives(tmp_path: Path) -> None:
    with LearningStore(tmp_path / "s") as store:
        used = run(ParameterSet([site()]), store, windows=40)
    assert used[0] == 3.0
    assert len(set(used)) > 5
    assert process(used[-1]) == pytest.approx(17.0, abs=0.02)


def test_defect_6_a_learned_value_is_used_by_the_next_scan_and_after_a_restart(tmp_path: Path) -> None:
    parameters = ParameterSet([site()])
    with LearningStore(tmp_path / "s") as store:
        used = run(parameters, store, windows=3)
        active = store.active("east", "setback")
    assert active is not None
    assert active.value == used[-1] != used[0], "what is stored as active is what the scans really used"
    restarted = ParameterSet([site()])
    assert restarted.load(tmp_path / "s") == []
    assert restarted.values("east") == {"setback": active.value}
    with LearningStore(tmp_path / "s") as store:
        again = run(restarted, store, windows=40, start=1e4)
        assert again[0] == active.value
        assert process(again[-1]) == pytest.approx(17.0, abs=0.02)


def test_defect_6_bad_feedback_is_recorded_and_never_learned_from(tmp_path: Path) -> None:
    with LearningStore(tmp_path / "s") as store:
        used = run(ParameterSet([site()]), store, windows=5, quality=0)
        outcomes = {window.outcome for window in store.windows("east")}
    assert set(used) == {3.0}
    assert outcomes == {"not used: 0 good samples of 12"}


def test_defect_6_every_change_says_why(tmp_path: Path) -> None:
    with LearningStore(tmp_path / "s") as store:
        run(ParameterSet([site()]), store, windows=4)
        history = store.history("east", "setback")
    learned = [row for row in history if row.source == "learned"]
    assert learned
    assert all("for target 17" in row.reason and "->" in row.reason for row in learned)
    assert history[-1].source == "factory"


def test_defect_9_a_scan_writes_nothing_to_disk(tmp_path: Path) -> None:
    path = tmp_path / "s"
    parameters = ParameterSet([site()])
    with LearningStore(path) as store:
        trainer = Trainer(parameters.specs(), store, utc=lambda: 0.0)

        def on_disk() -> list[tuple[str, int, int]]:
            return [(entry.name, entry.stat().st_size, entry.stat().st_mtime_ns) for entry in os.scandir(tmp_path)]

        before = on_disk()
        for k in range(11):
            assert trainer.feed(Feedback("east", k * SCAN, 1e9, 11.0, 17.0, 2, True)) == []
        assert on_disk() == before
        assert trainer.feed(Feedback("east", WINDOW, 1e9, 11.0, 17.0, 2, True)) != []
        assert on_disk() != before, "or the look at the disk would see nothing at all"


def test_defect_9_a_change_is_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with LearningStore(tmp_path / "s") as store:
        run(ParameterSet([site()]), store, windows=2)
        before = store.history("east", "setback")
        row = store.propose("east", "setback", 4.0, factory=3.0, reason="", utc=0.0, standard_error=None)

        def power_fails(*_: object) -> None:
            raise KeyboardInterrupt

        # the old version is retired and the new one is not yet active at this moment
        retire = store._replace_active
        monkeypatch.setattr(store, "_replace_active", lambda row: (retire(row), power_fails()))
        with pytest.raises(KeyboardInterrupt):
            store.activate("east", "setback", row.version)
        assert store.history("east", "setback") == [row, *before]


def test_defect_9_what_is_kept_is_bounded(tmp_path: Path) -> None:
    with LearningStore(tmp_path / "s", max_feedback_rows=50, max_versions=20) as store:
        parameters = ParameterSet([site()])
        trainer = Trainer(parameters.specs(), store, utc=lambda: 0.0)
        for k in range(200 * 12):
            value = 17.0 + (-1) ** (k // 120) * 5.0  # keeps it moving
            trainer.feed(Feedback("east", k * SCAN, 1e9, value, 17.0, 2, True))
        assert len(store.windows("east", 1000)) == 50
        assert len(store.history("east", "setback", 1000)) <= 21
        counters = store.counters()
        assert counters["feedback_dropped"] == 199 - 50
        assert counters["versions_dropped"] > 0
        assert len(store.learner_state("east", "setback")["errors"]) <= 32


def test_defect_9_two_writers_cannot_meet(tmp_path: Path) -> None:
    with LearningStore(tmp_path / "s"), pytest.raises(StoreBusyError):
        LearningStore(tmp_path / "s")


def test_the_worker_cannot_put_anything_in_force_by_itself(tmp_path: Path) -> None:
    parameters = ParameterSet([site()])
    with LearningStore(tmp_path / "s") as store:
        trainer = Trainer(parameters.specs(), store, utc=lambda: 0.0)
        proposals: list[Proposal] = []
        for k in range(100):
            proposals += trainer.feed(Feedback("east", k * SCAN, 1e9, 11.0, 17.0, 2, True))
        active = store.active("east", "setback")
    assert proposals
    assert active is not None
    assert active.value == 3.0
    assert parameters.value("east", "setback") == 3.0
