"""The kernel against the second channel: same tables, same inputs; every status, value, verdict and first-out equal."""

from __future__ import annotations

import ast
import itertools
import math
import random
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from channel_cases import UNITS, Site, TwoChannels, beside, site
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import safety.second
from agent.kernels import load
from safety.enforcer import PLAIN
from safety.envelope import Envelope, RequestState
from safety.interlocks import Interlock, InterlockStatus
from safety.second.outputs import Ask
from safety.second.trips import Standing
from safety.values import Quality

OK = RequestState.OK


def test_the_second_channel_imports_nothing_of_the_first() -> None:
    first = {"safety.kernels", "safety.interlocks", "safety.expressions", "safety.enforcer", "safety.envelope_table"}
    files = sorted(Path(safety.second.__file__).parent.glob("*.py"))
    assert len(files) == 5
    for file in files:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom):
                assert node.module not in first and node.module not in ("safety", "numpy"), (
                    f"{file.name}: {node.module}"
                )
            elif isinstance(node, ast.Import):
                assert not {alias.name for alias in node.names} & {*first, "numpy"}, file.name


def test_both_channels_number_the_standing_of_an_interlock_alike() -> None:
    assert {one.name: int(one) for one in Standing} == {one.name: int(one) for one in InterlockStatus}


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(data=st.data())
def test_the_channels_agree_on_whatever_hypothesis_finds(data: st.DataObject) -> None:
    def pick(options: Sequence[Any]) -> Any:
        return data.draw(st.sampled_from(options))

    both = TwoChannels(site(pick))
    both.compare()
    for _ in range(5):
        both.random_scan(pick)


@pytest.mark.parametrize("mode", ["python", "jit"])
def test_the_channels_agree_on_long_histories(mode: str) -> None:
    kernels = PLAIN if mode == "python" else load("safety.kernels", mode)
    compared = 0
    for seed in range(150):
        pick = random.Random(seed).choice
        both = TwoChannels(site(pick), kernels)
        for _ in range(40):
            both.random_scan(pick)
        compared += both.compared
    assert compared > 20_000


# --- every boundary ---------------------------------------------------------------------------------------------------

BESIDE = range(-5, 6)
VALVE = Envelope("u/o0", 0.0, 100.0, 20.0)
POINT = {"u/static": "Pa"}
CONDITIONS = (
    "static > 750", "static >= 750", "static < 750", "static <= 750", "750 < static", "750 >= static",
    "not static > 750", "not (static <= 750)", "100 < static < 750", "750 >= static >= 100", "static > 0.75 kPa",
    "static > 750 or static < 100", "static > 100 and static > 750", "static > 3 [in_i'H2O]",
)  # fmt: skip


@pytest.mark.parametrize("condition", CONDITIONS)
@pytest.mark.parametrize("manual", [False, True])
def test_every_threshold_five_floats_to_each_side_fresh_stale_and_no_number_armed_or_not(
    condition: str, manual: bool
) -> None:
    thresholds = [750.0, 100.0, 3 * 249.08891]
    values = [beside(one, steps) for one in thresholds for steps in BESIDE] + [math.nan, math.inf, -math.inf]
    row = Interlock("u/i", condition, (("u/o0", 0.0),), "u", manual=manual)
    for value, quality, armed in itertools.product(
        values, (Quality.GOOD, Quality.UNCERTAIN, Quality.BAD), (True, False)
    ):
        both = TwoChannels(Site((VALVE,), (), (row,)), units=POINT)
        if armed:
            both.values[0] = next(one for one in (400.0, 50.0, 900.0) if _is_clear_at(both, one))
            both.scan([50.0], [OK], [1])
            assert both.first.out[0] == 50.0
        both.now += 1.0
        both.values[0], both.qualities[0] = value, quality
        both.scan([50.0], [OK], [1])
        if quality != Quality.GOOD or not math.isfinite(value):
            assert both.first.status[0] == (InterlockStatus.TRIPPED if armed else InterlockStatus.STARTUP)
            assert both.first.out[0] == 0.0


def _is_clear_at(both: TwoChannels, value: float) -> bool:
    probe = TwoChannels(both.case, units=POINT)
    probe.values[0] = value
    probe.evaluate()
    return bool(probe.first.status[0] == InterlockStatus.CLEAR)


ENVELOPES = (
    VALVE,
    Envelope("u/o0", 0.0, 100.0, None),
    Envelope("u/o0", -50.0, 10.0, -50.0, max_step=7.0),
    Envelope("u/o0", 0.0, 100.0, 0.0, max_rate=0.3, dead_band=1.0),
    Envelope("u/o0", 0.0, 1.0, 0.0, allowed=(0.0, 0.5, 1.0), min_on_s=3.0, min_off_s=2.0),
)
TRIPS = Interlock("u/i", "open", (("u/o0", 0.0),), "u")


@pytest.mark.parametrize("row", ENVELOPES)
@pytest.mark.parametrize("tripped", [False, True])
def test_every_limit_five_floats_to_each_side_in_every_request_state_tripped_or_not(
    row: Envelope, tripped: bool
) -> None:
    edges = {row.low, row.high, row.idle, row.middle, *(row.allowed or ()), row.low + row.dead_band, row.low + 7.0}
    around = [beside(edge, steps) for edge in sorted(edges) for steps in BESIDE]
    meant = [
        edge + sign * share * row.tolerance for edge in sorted(edges) for sign in (-1, 1) for share in (0.5, 1.0, 2.0)
    ]
    for value in (*around, *meant, math.nan, math.inf, -math.inf, 5e-324, 1.7e308):
        both = TwoChannels(Site((row,), (), (TRIPS,)), units={"u/open": "1"})
        both.values[0] = 1.0 if tripped else 0.0
        for state in (OK, *RequestState, 77):
            for passed in (1.0, 2.0, math.nextafter(3.0, 0.0)):
                both.now += passed
                both.scan([value], [state], [1])
                out = float(both.first.out[0])
                assert math.isnan(out) if both.first.relinquish[0] else row.permits(out)


@pytest.mark.parametrize("delay", [0.0, 5.0])
@pytest.mark.parametrize("clear_delay", [0.0, 5.0])
@pytest.mark.parametrize("manual", [False, True])
def test_every_delay_one_float_to_each_side(delay: float, clear_delay: float, manual: bool) -> None:
    row = Interlock("u/i", "open", (("u/o0", 0.0),), "u", delay, manual, "not open", clear_delay)
    times = [beside(base, steps) for base in (0.0, 5.0) for steps in (-1, 0, 1) if beside(base, steps) >= 0.0]
    for first, second, third in itertools.product(times, repeat=3):
        both = TwoChannels(Site((VALVE,), (), (row,)), units={"u/open": "1"})
        both.now = 0.0
        both.scan([50.0], [OK], [1])
        for value, passed in ((1.0, first), (1.0, second), (0.0, third), (0.0, first), (0.0, second), (1.0, third)):
            both.values[0] = value
            both.now += passed
            both.scan([50.0], [OK], [1])


# --- faults of the kernel that the second channel has found -----------------------------------------------------------


def test_of_rows_that_only_wait_for_their_inputs_the_first_is_the_first_out(kernels: SimpleNamespace) -> None:
    rows = tuple(Interlock(f"u/i{k}", point, (("u/o0", 0.0),), "u") for k, point in enumerate(("open", "w/run")))
    both = TwoChannels(Site((VALVE,), (), rows), kernels, {"u/open": "1", "w/run": "1"})
    both.qualities[:] = Quality.BAD
    both.evaluate()
    assert both.first.first_out[0] == 0
    both.qualities[0] = Quality.GOOD
    both.evaluate()
    assert both.first.first_out[0] == 1, "the first row is clear: only the second holds the output now"
    both.qualities[1], both.values[0] = Quality.GOOD, 1.0
    both.evaluate()
    assert both.first.first_out[0] == 0


def test_the_scans_of_other_outputs_do_not_use_up_the_rate_of_one_that_was_relinquished(
    kernels: SimpleNamespace,
) -> None:
    rows = (Envelope("u/o0", 0.0, 100.0, None, max_rate=1.0), Envelope("u/o1", 0.0, 100.0, 0.0))
    both = TwoChannels(Site(rows, (), ()), kernels)
    both.first.present[:] = 40.0
    both.enforce([math.nan, 0.0], [OK, OK], [1, 1])
    both.now += 10.0
    both.enforce([math.nan, 0.0], [OK, OK], [0, 1])
    assert both.first.relinquish[0] == 1
    both.enforce([90.0, 0.0], [OK, OK], [1, 1])
    assert both.first.out[0] == 50.0, "ten seconds have passed since its own last scan"


@pytest.fixture(params=["python", "jit"])
def kernels(request: pytest.FixtureRequest) -> SimpleNamespace:
    return load("safety.kernels", request.param)


def test_a_forced_value_outside_the_envelope_becomes_the_fail_safe_value_in_both() -> None:
    both = TwoChannels(Site((VALVE,), (), ()))
    output = both.second.outputs[0]
    output.decide(Ask(50.0, OK, True, math.nan, (200.0,)), contradicted=False)
    both.first._trips.forced[0], both.first._trips.forced_flag[0] = 200.0, 1
    both.first.enforce(both.now, np.array([50.0]), np.array([OK], np.uint8), np.array([1], np.uint8))
    assert output.value == both.first.out[0] == VALVE.fail_safe


def test_a_difference_is_seen_wherever_it_is() -> None:
    rows = (VALVE, Envelope("u/o1", 0.0, 100.0, None))
    both = TwoChannels(Site(rows, (), (TRIPS,)), units={"u/open": "1", **UNITS})
    both.scan([50.0, 50.0], [OK, OK], [1, 1])
    given, second = both.given(), both.second
    for column, place, value, said in (
        (given.status, 0, InterlockStatus.TRIPPED, "u/i is clear here and tripped there"),
        (given.status, 0, 77, "u/i is clear here and 77 there"),
        (given.forced_flag, 1, 1, "u/o1 is not forced alike"),
    ):
        before = column[place]
        np.asarray(column)[place] = value
        assert second.disagreement(given) == said
        np.asarray(column)[place] = before
    for column, place, value in ((given.out, 1, 50.1), (given.out, 1, math.nan), (given.relinquish, 1, 1)):
        before = column[place]
        np.asarray(column)[place] = value
        assert list(second.differing(given)) == [place]
        np.asarray(column)[place] = before
    given.out[0] += 0.5 * VALVE.tolerance  # type: ignore[index]
    assert second.differing(given) == {}, "rounding is no disagreement"
    both.values[0] = 1.0
    both.first.evaluate(both.now, both.values, both.qualities)
    second.evaluate(both.now, both.values, both.qualities)
    given.forced[0] = 5.0  # type: ignore[index]
    assert second.disagreement(given) == "u/o0 is not forced alike"
