"""The trainer in lock-step: windows, what counts as evidence, proposals and answers, restarts."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.train.messages import Answer, EwmaSpec, Feedback, ParameterState, Proposal, Units, UnitSpec
from agent.train.store import LearningStore
from agent.train.trainer import MIN_SAMPLES, Trainer

WINDOW, SCAN = 60.0, 5.0


def spec(value: float = 3.0, version: int = 0, *, learn: bool = True, weight: float = 0.5) -> UnitSpec:
    setback = ParameterState(value, version, 3.0, 1.0, 8.0, 0.5)
    return UnitSpec("east", {"setback": setback}, EwmaSpec("setback", 2.0, weight, WINDOW, learn))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[LearningStore]:
    with LearningStore(tmp_path / "learning.sqlite") as store:
        yield store


@pytest.fixture
def trainer(store: LearningStore) -> Trainer:
    return Trainer([spec()], store, utc=lambda: 1000.0)


def feedback(t: float, value: float = 10.0, *, target: float = 14.0, quality: int = 2, counts: bool = True) -> Feedback:
    return Feedback("east", t, 1000.0 + t, value, target, quality, counts)


def feed(trainer: Trainer, messages: list[Feedback]) -> list[Proposal]:
    return [proposal for message in messages for proposal in trainer.feed(message)]


def full_window(start: float = 0.0, **changed: float) -> list[Feedback]:
    """The scans of one window and the one that closes it."""
    return [feedback(start + k * SCAN, **changed) for k in range(int(WINDOW / SCAN) + 1)]  # type: ignore[arg-type]


def test_one_window_makes_one_proposal(trainer: Trainer, store: LearningStore) -> None:
    scans = full_window()
    assert feed(trainer, scans[:-1]) == []
    (proposal,) = trainer.feed(scans[-1])
    assert (proposal.unit, proposal.parameter, proposal.value, proposal.version) == ("east", "setback", 3.5, 2)
    assert "12 good samples of 12" in proposal.reason
    (window,) = store.windows("east")
    assert (window.mean, window.target, window.in_force, window.good) == (10.0, 14.0, 3.0, 12)
    assert window.utc == 1060.0


def test_a_proposal_is_in_force_only_after_core_has_applied_it(trainer: Trainer, store: LearningStore) -> None:
    (proposal,) = feed(trainer, full_window())
    before = store.active("east", "setback")
    assert before is not None
    assert (before.value, before.source) == (3.0, "factory")
    assert trainer.feed(Answer(True, "east", "setback", proposal.value, proposal.version, "")) == []
    after = store.active("east", "setback")
    assert after is not None
    assert (after.value, after.version, after.source) == (3.5, 2, "learned")
    (following,) = feed(trainer, full_window(100.0))
    assert following.value == 4.0, "the next step starts from the applied value"


def test_a_refused_proposal_is_marked_and_the_next_starts_from_the_value_in_force(
    trainer: Trainer, store: LearningStore
) -> None:
    (proposal,) = feed(trainer, full_window())
    trainer.feed(Answer(False, "east", "setback", proposal.value, proposal.version, "outside the range"))
    assert [row.state for row in store.history("east", "setback")] == ["refused", "active"]
    (following,) = feed(trainer, full_window(WINDOW + SCAN))
    assert (following.value, following.version) == (3.5, 3)


def test_an_unanswered_proposal_does_not_stop_learning(trainer: Trainer) -> None:
    versions = [proposal.version for proposal in feed(trainer, full_window() + full_window(WINDOW + SCAN))]
    assert versions == [2, 3]


def test_an_applied_value_begins_a_new_window(trainer: Trainer, store: LearningStore) -> None:
    (proposal,) = feed(trainer, full_window(value=-50.0))
    feed(trainer, [feedback(WINDOW + SCAN, -1e6)])  # still of the old value
    trainer.feed(Answer(True, "east", "setback", proposal.value, proposal.version, ""))
    feed(trainer, full_window(200.0, value=12.0))
    assert store.windows("east")[0].mean == 12.0


@pytest.mark.parametrize("bad", [{"quality": 0}, {"quality": 1}, {"value": math.nan}, {"target": math.inf}])
def test_bad_samples_do_not_count(trainer: Trainer, store: LearningStore, bad: dict[str, float]) -> None:
    good = full_window()
    spoilt = [feedback(message.t + 1.0, **({"value": 1e6} | bad)) for message in good[:4]]  # type: ignore[arg-type]
    messages = sorted(good + spoilt, key=lambda message: message.t)
    assert len(feed(trainer, messages)) == 1
    (window,) = store.windows("east")
    assert (window.mean, window.good, window.counted) == (10.0, 12, 16)


def test_scans_that_do_not_count_are_left_out_and_a_window_of_them_is_no_window(
    trainer: Trainer, store: LearningStore
) -> None:
    asleep = [feedback(k * SCAN, 1e6, counts=False) for k in range(40)]
    assert feed(trainer, asleep) == []
    assert store.windows("east") == []


@pytest.mark.parametrize("good", [0, MIN_SAMPLES - 1])
def test_too_few_good_samples_give_no_step(trainer: Trainer, store: LearningStore, good: int) -> None:
    messages = [feedback(k, quality=2 if k < good else 0) for k in range(MIN_SAMPLES)] + [feedback(WINDOW)]
    assert feed(trainer, messages) == []
    (window,) = store.windows("east")
    assert window.outcome == f"not used: {good} good samples of {MIN_SAMPLES}"
    assert (window.mean is None) == (good == 0)


def test_with_most_of_the_samples_bad_the_rest_is_not_believed(trainer: Trainer, store: LearningStore) -> None:
    messages = [feedback(k, quality=2 if k < 20 else 0) for k in range(50)] + [feedback(WINDOW)]
    assert feed(trainer, messages) == []
    assert "20 good samples of 50" in store.windows("east")[0].outcome


def test_a_control_clock_that_begins_anew_begins_a_new_window(trainer: Trainer, store: LearningStore) -> None:
    feed(trainer, [feedback(5000.0 + k) for k in range(20)])
    feed(trainer, [feedback(float(k), 12.0) for k in range(0, 70, 5)])
    assert [window.mean for window in store.windows("east")] == [12.0]


def test_a_gap_closes_the_window_with_what_it_has(trainer: Trainer, store: LearningStore) -> None:
    assert len(feed(trainer, [*full_window()[:8], feedback(1e6)])) == 1
    assert store.windows("east")[0].good == 8


def test_learning_off_records_feedback_and_proposes_nothing(store: LearningStore) -> None:
    trainer = Trainer([spec(learn=False)], store, utc=lambda: 0.0)
    assert feed(trainer, full_window()) == []
    assert "learning is off" in store.windows("east")[0].outcome
    assert len(store.history("east", "setback")) == 1


def test_units_named_later_are_learned_too_and_unknown_ones_ignored(store: LearningStore) -> None:
    trainer = Trainer([], store, utc=lambda: 0.0)
    assert feed(trainer, full_window()) == []
    trainer.feed(Units((spec(),)))
    assert len(feed(trainer, full_window())) == 1


def test_a_unit_without_learning_keeps_its_parameters_in_the_store(store: LearningStore) -> None:
    trainer = Trainer([spec()._replace(ewma=None)], store, utc=lambda: 7.0)
    assert feed(trainer, full_window()) == []
    active = store.active("east", "setback")
    assert active is not None
    assert (active.value, active.utc) == (3.0, 7.0)


def test_a_unit_may_stop_learning_with_a_later_message(trainer: Trainer) -> None:
    trainer.feed(Units((spec()._replace(ewma=None),)))
    assert feed(trainer, full_window()) == []


def test_a_restart_continues_with_value_version_and_learner(tmp_path: Path) -> None:
    def run(trainer: Trainer, value: float, start: float, windows: int) -> float:
        for k in range(windows):
            for message in full_window(start + k * 1000.0, value=5.0 + 2.0 * value, target=17.0):
                for proposal in trainer.feed(message):
                    value = proposal.value
                    trainer.feed(Answer(True, "east", "setback", value, proposal.version, ""))
        return value

    with LearningStore(tmp_path / "s") as store:
        value = run(Trainer([spec()], store, utc=lambda: 0.0), 3.0, 0.0, 4)
        before = store.active("east", "setback")
        learner = store.learner_state("east", "setback")
    assert before is not None
    with LearningStore(tmp_path / "s") as store:
        trainer = Trainer([spec(before.value, before.version)], store, utc=lambda: 0.0)
        assert store.active("east", "setback") == before
        assert store.learner_state("east", "setback") == learner
        value = run(trainer, value, 1e5, 12)
        assert value == pytest.approx(6.0, abs=0.05)
        after = store.active("east", "setback")
        assert after is not None
        assert after.version > before.version
        assert store.learner_state("east", "setback")["windows"] == learner["windows"] + 12
