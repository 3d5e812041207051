"""The EWMA learner on simulated processes: convergence, stability bound, noise, outliers, shifts, limits, restarts."""

from __future__ import annotations

import json
import math
import random
from itertools import pairwise
from statistics import fmean, pstdev

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.train.ewma import HISTORY, MIN_HISTORY, OUTLIER, RESOLUTION, SHIFT_AFTER, EwmaLearner, EwmaSettings, Step

WIDE = EwmaSettings(gain=2.0, weight=0.3, low=-1000.0, high=1000.0, max_step=1000.0)
"""Limits so wide that only the law itself acts."""


class Process:
    """y = offset + gain·u + noise, with a drift per window."""

    def __init__(self, *, offset: float, gain: float, noise: float = 0.0, drift: float = 0.0, seed: int = 0) -> None:
        self.offset, self.gain, self.noise, self.drift = offset, gain, noise, drift
        self._random = random.Random(seed)

    def run(self, u: float) -> float:
        self.offset += self.drift
        return self.offset + self.gain * u + self._random.gauss(0.0, 1.0) * self.noise


def control(
    learner: EwmaLearner, process: Process, *, target: float, start: float, windows: int
) -> tuple[list[float], list[float], list[Step]]:
    """Run the closed loop and return the parameter in each window, the result of each window, and the steps."""
    u, used, results, steps = start, [], [], []
    for _ in range(windows):
        y = process.run(u)
        step = learner.step(u, y, target)
        used.append(u)
        results.append(y)
        steps.append(step)
        if step.value is not None:
            u = step.value
    return used, results, steps


def test_deterministic_feedback_moves_the_parameter_and_converges() -> None:
    learner = EwmaLearner(EwmaSettings(2.0, 0.3, 0.0, 10.0, 0.5))
    used, results, steps = control(learner, Process(offset=5.0, gain=2.0), target=17.0, start=3.0, windows=40)
    assert steps[0].value == 3.5, "the first window must already move, by no more than max_step"
    assert used[-1] == pytest.approx(6.0, abs=0.02)
    assert results[-1] == pytest.approx(17.0, abs=0.04)
    assert steps[-1].value is None, "and it rests where it has arrived"


@pytest.mark.parametrize("ratio", [0.4, 0.7, 1.0, 1.5, 3.0, 6.0])
def test_a_wrong_gain_still_converges_inside_the_stability_bound(ratio: float) -> None:
    learner = EwmaLearner(WIDE)  # 0.3 * 6 = 1.8 < 2
    _, results, _ = control(learner, Process(offset=50.0, gain=2.0 * ratio), target=70.0, start=0.0, windows=150)
    assert results[-1] == pytest.approx(70.0, abs=RESOLUTION * 2000.0 * 2.0 * max(1.0, ratio))


@given(product=st.floats(0.05, 1.9), weight=st.floats(0.05, 1.0))
def test_the_error_shrinks_by_one_minus_lambda_xi_per_window(product: float, weight: float) -> None:
    learner = EwmaLearner(WIDE._replace(weight=weight))
    process = Process(offset=100.0, gain=2.0 * product / weight)
    windows = 6  # before sigma is believed: the bare law
    _, results, _ = control(learner, process, target=500.0, start=0.0, windows=windows)
    errors = [y - 500.0 for y in results]
    # the first step starts from the exact intercept, so the contraction holds from the second window on
    for before, after in pairwise(errors[1:]):
        if weight * abs(before) > 4.0:  # else the move is smaller than the resolution, 2 parameter units of gain 2
            assert after == pytest.approx((1.0 - product) * before, rel=1e-6, abs=1e-6)


def test_beyond_the_stability_bound_it_diverges_and_the_range_holds_it() -> None:
    settings = EwmaSettings(gain=1.0, weight=1.0, low=-10.0, high=10.0, max_step=20.0)
    learner = EwmaLearner(settings)
    used, results, _ = control(learner, Process(offset=0.0, gain=2.5), target=1.0, start=0.0, windows=7)
    assert abs(results[-1] - 1.0) > abs(results[1] - 1.0), "lambda*xi = 2.5 is unstable: the test would prove nothing"
    assert all(-10.0 <= u <= 10.0 for u in used)


def test_noise_is_not_amplified_beyond_theory() -> None:
    learner = EwmaLearner(WIDE)
    process = Process(offset=0.0, gain=2.0, noise=1.0, seed=7)
    _, results, _ = control(learner, process, target=0.0, start=0.0, windows=4000)
    settled = results[50:]
    theory = math.sqrt(2.0 / (2.0 - WIDE.weight))
    assert pstdev(settled, 0.0) < 1.08 * theory
    assert abs(fmean(settled)) < 0.08


def test_drift_is_followed_with_the_known_offset() -> None:
    learner = EwmaLearner(WIDE._replace(low=-100.0, high=100.0))
    process = Process(offset=0.0, gain=2.0, noise=1.0, drift=0.1, seed=3)
    _, results, _ = control(learner, process, target=0.0, start=0.0, windows=1500)
    rms = math.sqrt(fmean(y * y for y in results[50:]))
    assert rms < 1.25, "0.1 sigma of drift per run costs an EWMA about 1.14 sigma"
    assert 0.1 / 0.3 - 0.1 < fmean(results[50:]) < 0.1 / 0.3 + 0.4, "drift / (lambda * xi), and at most the dead band"


def test_small_noise_inside_the_dead_band_does_not_move_the_parameter_every_time() -> None:
    learner = EwmaLearner(WIDE)
    _, _, steps = control(
        learner, Process(offset=0.0, gain=2.0, noise=20.0, seed=5), target=0.0, start=0.0, windows=300
    )
    held = [step for step in steps[MIN_HISTORY:] if step.value is None]
    assert len(held) > 60
    assert any("dead band" in step.reason for step in held)


def settled_learner() -> EwmaLearner:
    learner = EwmaLearner(WIDE)
    source = random.Random(11)
    for _ in range(HISTORY):
        learner.step(0.0, source.gauss(0.0, 1.0) * 10.0, 0.0)
    return learner


def test_an_outlier_is_ignored_and_changes_nothing() -> None:
    learner = settled_learner()
    sigma = learner.sigma()
    assert sigma is not None
    assert 5.0 < sigma < 20.0
    before = learner.state()
    step = learner.step(0.0, 2.0 * OUTLIER * sigma, 0.0)
    assert step.value is None
    assert "outlier" in step.reason
    after = learner.state()
    assert after.pop("suspects") == 1
    assert before.pop("suspects") == 0
    assert after == before


def test_three_outliers_on_one_side_are_a_shift_and_are_followed() -> None:
    learner = settled_learner()
    steps = [learner.step(0.0, 500.0, 0.0) for _ in range(SHIFT_AFTER)]
    assert [step.value is None for step in steps] == [True, True, False]
    assert steps[-1].value is not None
    assert steps[-1].value == pytest.approx(-0.3 * 500.0 / 2.0)
    assert steps[-1].standard_error is None, "what sigma was before the shift says nothing about after it"


def test_outliers_on_alternating_sides_are_never_a_shift() -> None:
    learner = settled_learner()
    assert all(learner.step(0.0, 500.0 * (-1) ** k, 0.0).value is None for k in range(10))


def test_a_good_window_between_outliers_begins_the_count_anew() -> None:
    learner = settled_learner()
    for result in (500.0, 500.0, 0.0, 500.0, 500.0):
        step = learner.step(0.0, result, 0.0)
    assert "outlier" in step.reason


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 1e200])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_what_is_no_number_teaches_nothing(bad: float, place: int) -> None:
    learner = settled_learner()
    before = learner.state()
    arguments = [0.0, 0.0, 0.0]
    arguments[place] = bad
    assert learner.step(*arguments).value is None
    assert learner.state() == before


@given(
    st.lists(st.tuples(st.floats(), st.floats()), max_size=60),
    st.floats(-50.0, 50.0).filter(lambda gain: abs(gain) > 1e-3),
    st.floats(0.01, 1.0),
    st.floats(0.01, 10.0),
)
def test_no_feedback_whatsoever_leaves_the_limits(
    windows: list[tuple[float, float]], gain: float, weight: float, max_step: float
) -> None:
    learner = EwmaLearner(EwmaSettings(gain, weight, 1.0, 8.0, max_step))
    u = 3.0
    for mean, target in windows:
        step = learner.step(u, mean, target)
        if step.value is not None:
            assert 1.0 <= step.value <= 8.0
            assert abs(step.value - u) <= max_step * (1.0 + 1e-12)
            u = step.value
        assert step.standard_error is None or math.isfinite(step.standard_error)
        json.dumps(learner.state(), allow_nan=False)


def test_at_the_end_of_the_range_there_is_no_step_and_the_reason_says_so() -> None:
    learner = EwmaLearner(EwmaSettings(1.0, 0.5, 0.0, 10.0, 1.0))
    step = learner.step(10.0, 0.0, 100.0)
    assert step.value is None
    assert "end of its range" in step.reason


def test_leaving_the_end_of_the_range_needs_no_unwinding() -> None:
    learner = EwmaLearner(EwmaSettings(1.0, 0.5, 0.0, 10.0, 10.0))
    for _ in range(50):
        learner.step(10.0, 0.0, 100.0)
    assert learner.step(10.0, 0.0, -5.0).value == pytest.approx(10.0 - 0.5 * 5.0)


def test_moves_held_back_by_the_dead_band_do_not_add_up_to_one_that_overshoots() -> None:
    learner = EwmaLearner(WIDE)  # xi = 6: a move by the whole miss instead of lambda of it would diverge
    process = Process(offset=50.0, gain=12.0)
    _, results, steps = control(learner, process, target=70.0, start=0.0, windows=150)
    assert any("dead band" in step.reason for step in steps)
    assert max(abs(y - 70.0) for y in results[20:]) < max(abs(y - 70.0) for y in results[:3])


def test_a_negative_gain_converges_too() -> None:
    learner = EwmaLearner(EwmaSettings(-3.0, 0.3, 0.0, 10.0, 1.0))
    used, _, _ = control(learner, Process(offset=40.0, gain=-3.0), target=22.0, start=1.0, windows=40)
    assert used[-1] == pytest.approx(6.0, abs=0.02)


def test_the_standard_error_covers_the_scatter_of_the_solution() -> None:
    solutions, claims = [], []
    for seed in range(400):
        learner = EwmaLearner(WIDE._replace(weight=0.2))
        source = random.Random(seed)
        for _ in range(60):
            step = learner.step(0.0, source.gauss(100.0, 10.0), 0.0)
        assert step.standard_error is not None
        claims.append(step.standard_error)
        solutions.append((0.0 - learner.state()["intercept"]) / WIDE.gain)
    assert fmean(claims) == pytest.approx(pstdev(solutions), rel=0.15)


def test_a_restart_continues_exactly() -> None:
    whole, first = EwmaLearner(WIDE), EwmaLearner(WIDE)
    source = random.Random(1)
    results = [source.gauss(10.0, 3.0) for _ in range(40)]
    for y in results[:25]:
        whole.step(0.0, y, 0.0)
        first.step(0.0, y, 0.0)
    second = EwmaLearner(WIDE)
    assert second.restore(json.loads(json.dumps(first.state())))
    assert [whole.step(0.0, y, 0.0) for y in results[25:]] == [second.step(0.0, y, 0.0) for y in results[25:]]


SOUND = {"gain": 2.0, "intercept": 1.0, "windows": 3, "errors": [0.5], "suspects": 0, "miss": 0.0, "held": 0}


def test_a_sound_state_is_taken_over() -> None:
    learner = EwmaLearner(WIDE)
    assert learner.restore(dict(SOUND))
    assert learner.state() == SOUND


@pytest.mark.parametrize(
    "state",
    [
        {},
        {"gain": 2.0},
        SOUND | {"gain": 9.0},
        SOUND | {"intercept": None},
        SOUND | {"intercept": math.inf},
        SOUND | {"miss": math.nan},
        SOUND | {"errors": ["x"]},
        SOUND | {"errors": 5},
        SOUND | {"windows": 0},
        SOUND | {"held": -1},
        SOUND | {"suspects": 10**400},
    ],
)
def test_a_state_of_another_gain_or_a_damaged_one_is_not_taken_over(state: dict[str, object]) -> None:
    learner = EwmaLearner(WIDE)
    assert not learner.restore(state)
    assert learner.state() == EwmaLearner(WIDE).state()


@pytest.mark.parametrize(
    "settings", [WIDE._replace(gain=0.0), WIDE._replace(high=math.inf), WIDE._replace(weight=math.nan)]
)
def test_settings_that_cannot_work_are_refused(settings: EwmaSettings) -> None:
    with pytest.raises(ValueError, match="gain"):
        EwmaLearner(settings)
