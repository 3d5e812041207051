"""The parameters core has in force: limits that nothing from the worker or the store can pass."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.config.unit import UnitConfig
from agent.train.messages import Answer, EwmaSpec, ParameterState, Proposal
from agent.train.parameters import ParameterSet
from agent.train.store import LearningStore

WINDOW = 600.0


def unit(name: str = "east", *, mode: str = "on", **setback: Any) -> UnitConfig:
    return UnitConfig.model_validate(
        {
            "zone": name,
            "parameters": {
                "setback": {"value": 3.0, "range": [1.0, 8.0], "max_step": 0.5, **setback},
                "deadband": {"value": 1.0, "range": [0.5, 2.0]},
                "design_flow": 0.4,
            },
            "train": {
                "mode": mode,
                "ewma": {"parameter": "setback", "feedback": "energy", "target": 5.0, "gain": -2.0, "window": "10min"},
            },
        }
    )


def proposal(value: Any, version: Any = 1, **changed: Any) -> Proposal:
    return Proposal("east", "setback", value, version, "why", 0.1)._replace(**changed)


def stored(path: Path, value: float, *, factory: float = 3.0, name: str = "setback") -> None:
    with LearningStore(path) as store:
        row = store.propose("east", name, value, factory=factory, reason="", utc=0.0, standard_error=None)
        store.activate("east", name, row.version)


def test_factory_values_are_in_force_at_first() -> None:
    parameters = ParameterSet([unit()])
    assert parameters.values("east") == {"setback": 3.0, "deadband": 1.0, "design_flow": 0.4}
    assert parameters.version("east", "setback") == 0
    assert parameters.generation == 0


def test_a_good_proposal_is_applied() -> None:
    parameters = ParameterSet([unit()])
    answer = parameters.apply(proposal(3.5, version=2), now=0.0)
    assert answer == Answer(True, "east", "setback", 3.5, 2, "was 3, version 0")
    assert parameters.value("east", "setback") == 3.5
    assert parameters.version("east", "setback") == 2
    assert parameters.generation == 1


def test_the_worker_is_told_values_versions_and_limits() -> None:
    parameters = ParameterSet([unit(), UnitConfig.model_validate({"zone": "bare"})])
    parameters.apply(proposal(3.5, version=2), now=0.0)
    (spec,) = parameters.specs()
    assert spec.unit == "east"
    assert spec.parameters == {
        "setback": ParameterState(3.5, 2, 3.0, 1.0, 8.0, 0.5),
        "deadband": ParameterState(1.0, 0, 1.0, 0.5, 2.0, pytest.approx(0.15)),
    }
    assert spec.ewma == EwmaSpec("setback", -2.0, 0.3, WINDOW, True)


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        (proposal(math.nan), "finite"),
        (proposal(math.inf), "finite"),
        (proposal(10**400), "finite"),
        (proposal("3.4"), "finite"),
        (proposal(None), "finite"),
        (proposal(True), "finite"),
        (proposal([3.4]), "finite"),
        (proposal(1e9), "outside the range"),
        (proposal(-1e9), "outside the range"),
        (proposal(3.501), "more than a step"),
        (proposal(2.499), "more than a step"),
        (proposal(3.4, version=0), "not newer"),
        (proposal(3.4, version=-1), "not newer"),
        (proposal(3.4, version="1"), "not newer"),
        (proposal(3.4, version=True), "not newer"),
        (proposal(3.4, version=2**60), "not newer"),
        (proposal(3.4, unit="west"), "no such parameter"),
        (proposal(3.4, parameter="heating_valve"), "no such parameter"),
        (proposal(3.4, unit=None), "must be names"),
        (proposal(3.4, parameter=["setback"]), "must be names"),
        (proposal(1.1, parameter="deadband"), "nothing may learn"),
        (proposal(0.5, parameter="design_flow"), "nothing may learn"),
    ],
)
def test_a_bad_proposal_is_refused_with_its_reason_and_changes_nothing(bad: Proposal, why: str) -> None:
    parameters = ParameterSet([unit()])
    answer = parameters.apply(bad, now=0.0)
    assert not answer.applied
    assert why in answer.why
    assert parameters.values("east") == {"setback": 3.0, "deadband": 1.0, "design_flow": 0.4}
    assert parameters.generation == 0


def test_with_learning_off_every_proposal_is_refused() -> None:
    answer = ParameterSet([unit(mode="off")]).apply(proposal(3.4), now=0.0)
    assert (answer.applied, answer.why) == (False, "learning is off for this unit")


def test_a_replayed_or_older_version_is_refused() -> None:
    parameters = ParameterSet([unit()])
    assert parameters.apply(proposal(3.5, version=5), now=0.0).applied
    for version in (5, 4):
        answer = parameters.apply(proposal(3.4, version=version), now=10 * WINDOW)
        assert "not newer than version 5" in answer.why


def test_many_small_steps_in_a_hurry_are_refused() -> None:
    parameters = ParameterSet([unit()])
    assert parameters.apply(proposal(3.5, version=1), now=100.0).applied
    assert "one step per window" in parameters.apply(proposal(4.0, version=2), now=100.1).why
    assert "one step per window" in parameters.apply(proposal(4.0, version=3), now=math.nan).why
    assert parameters.apply(proposal(4.0, version=4), now=100.0 + WINDOW).applied


def test_a_step_of_exactly_max_step_is_taken_in_spite_of_rounding() -> None:
    parameters = ParameterSet([unit(value=1.0, range=[0.0, 2.0], max_step=0.1)])
    for k in range(1, 11):
        value = parameters.value("east", "setback") + 0.1
        assert parameters.apply(proposal(min(value, 2.0), version=k), now=k * WINDOW).applied


@given(
    st.lists(
        st.tuples(st.floats() | st.integers() | st.none() | st.text(), st.integers() | st.none(), st.floats()),
        max_size=40,
    )
)
def test_no_sequence_of_proposals_leaves_the_range_or_raises(sequence: list[tuple[Any, Any, float]]) -> None:
    parameters = ParameterSet([unit()])
    for value, version, now in sequence:
        before = parameters.value("east", "setback")
        answer = parameters.apply(proposal(value, version=version), now)
        after = parameters.value("east", "setback")
        assert 1.0 <= after <= 8.0
        assert abs(after - before) <= 0.5 + 1e-12
        assert answer.applied or after == before


def test_limits_cannot_be_changed_at_run_time() -> None:
    parameters = ParameterSet([unit()])
    with pytest.raises(TypeError):
        parameters._limits["east", "setback"] = 0.0  # type: ignore[index]
    with pytest.raises(AttributeError):
        parameters._limits["east", "setback"].high = 100.0  # type: ignore[union-attr,misc]


def test_a_stored_learned_value_is_in_force_after_a_restart(tmp_path: Path) -> None:
    stored(tmp_path / "s", 3.5)
    parameters = ParameterSet([unit()])
    assert parameters.load(tmp_path / "s") == []
    assert (parameters.value("east", "setback"), parameters.version("east", "setback")) == (3.5, 1)
    assert parameters.generation == 1


def test_no_store_yet_is_no_fault(tmp_path: Path) -> None:
    parameters = ParameterSet([unit()])
    assert parameters.load(tmp_path / "s") == []
    assert parameters.value("east", "setback") == 3.0
    assert list(tmp_path.iterdir()) == [], "reading must not create a store"


@pytest.mark.parametrize("value", [0.5, 1e9, -1e9, math.inf])
def test_a_stored_value_outside_todays_range_is_not_used_and_reported(tmp_path: Path, value: float) -> None:
    stored(tmp_path / "s", value)
    parameters = ParameterSet([unit()])
    (report,) = parameters.load(tmp_path / "s")
    assert report.startswith("east/setback: learned value")
    assert "factory value 3 is in force" in report
    assert (parameters.value("east", "setback"), parameters.version("east", "setback")) == (3.0, 0)


def test_a_stored_value_that_is_text_is_not_used(tmp_path: Path) -> None:
    stored(tmp_path / "s", "warm")  # type: ignore[arg-type]
    parameters = ParameterSet([unit()])
    assert "not a finite number" in parameters.load(tmp_path / "s")[0]
    assert parameters.value("east", "setback") == 3.0


def test_an_edited_factory_value_wins_over_what_was_learned_from_the_old_one(tmp_path: Path) -> None:
    stored(tmp_path / "s", 3.5)
    parameters = ParameterSet([unit(value=5.0)])
    (report,) = parameters.load(tmp_path / "s")
    assert "changed from 3.0 to 5" in report
    assert parameters.value("east", "setback") == 5.0


def test_a_parameter_that_became_a_constant_keeps_the_sites_value(tmp_path: Path) -> None:
    stored(tmp_path / "s", 0.9, factory=0.4, name="design_flow")
    parameters = ParameterSet([unit()])
    assert "now a constant" in parameters.load(tmp_path / "s")[0]
    assert parameters.value("east", "design_flow") == 0.4


def test_a_damaged_store_leaves_factory_values_in_force_and_is_reported(tmp_path: Path) -> None:
    (tmp_path / "s").write_bytes(b"rubbish" * 500)
    parameters = ParameterSet([unit()])
    (report,) = parameters.load(tmp_path / "s")
    assert "factory values are in force" in report
    assert parameters.value("east", "setback") == 3.0


def test_what_the_store_knows_of_other_units_is_ignored(tmp_path: Path) -> None:
    stored(tmp_path / "s", 3.5)
    parameters = ParameterSet([unit("west")])
    assert parameters.load(tmp_path / "s") == []
    assert parameters.value("west", "setback") == 3.0
