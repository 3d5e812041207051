"""Regression tests for the first implementation's defects 1 and 3, as far as the safety layer goes.

1. Enforce failed open: exceptions were swallowed and the raw output returned; heat 80 + cool 80 and heating 500 % passed; interlocks
   tripped and the recipe ran on.
3. NaN became a comfortable value; missing sensors became zeros.
"""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest

from agent.kernels import load
from safety.enforcer import Enforcer
from safety.envelope import Envelope, RequestState
from safety.errors import DeniedError
from safety.gate import Gate, Route
from safety.interlocks import Interlock, InterlockTable
from safety.journal import Journal
from safety.values import Quality, Verdict

HEATING = Envelope("zone/heating", 0.0, 100.0, 0.0)
COOLING = Envelope("zone/cooling", 0.0, 100.0, 0.0)
RF = Envelope("tool/rf_power", 0.0, 1500.0, 0.0)


@pytest.fixture(params=["python", "jit"])
def kernels(request: pytest.FixtureRequest) -> SimpleNamespace:
    return load("safety.kernels", request.param)


def hvac(kernels: SimpleNamespace) -> Enforcer:
    rows = [HEATING, COOLING]
    return Enforcer(rows, [(0, 1)], InterlockTable.build([], {}, {}, rows), kernels)


def enforce(
    enforcer: Enforcer, requests: list[float], state: RequestState = RequestState.OK, now: float = 0.0
) -> list[float]:
    count = len(requests)
    enforcer.enforce(now, np.array(requests), np.full(count, state, np.uint8), np.ones(count, np.uint8))
    return [float(value) for value in enforcer.out]


def test_defect_1_heating_and_cooling_at_80_percent_together(kernels: SimpleNamespace) -> None:
    enforcer = hvac(kernels)
    assert enforce(enforcer, [80.0, 80.0]) == [0.0, 0.0]
    assert all(Verdict(int(bits)) == Verdict.EXCLUSIVE | Verdict.FAIL_SAFE for bits in enforcer.verdict)


def test_defect_1_heating_at_500_percent(kernels: SimpleNamespace) -> None:
    enforcer = hvac(kernels)
    assert enforce(enforcer, [500.0, 0.0]) == [100.0, 0.0]
    assert Verdict(int(enforcer.verdict[0])) == Verdict.CLAMPED_HIGH


def test_defect_1_a_function_that_raised_never_passes_its_raw_output(kernels: SimpleNamespace) -> None:
    enforcer = hvac(kernels)
    for state in RequestState:
        if state not in (RequestState.OK,):
            assert enforce(enforcer, [80.0, 0.0], state) == [0.0, 0.0]
            assert Verdict(int(enforcer.verdict[0])) & Verdict.FAIL_SAFE


def test_defect_1_when_both_interlocks_trip_the_recipe_stops(kernels: SimpleNamespace) -> None:
    points = {"tool/pressure": "mTorr", "tool/reflected": "W"}
    interlocks = [
        Interlock(
            "tool/pressure",
            "not (10 mTorr <= pressure <= 150 mTorr)",
            (("tool/rf_power", 0.0),),
            scope="tool",
            manual=True,
        ),
        Interlock("tool/reflected", "reflected > 50 W", (("tool/rf_power", 0.0),), scope="tool", manual=True),
    ]
    table = InterlockTable.build(interlocks, {name: k for k, name in enumerate(points)}, points, [RF])
    enforcer = Enforcer([RF], [], table, kernels)
    good = np.full(2, Quality.GOOD, np.uint8)
    enforcer.evaluate(0.0, np.array([20.0, 5.0]), good)
    assert enforce(enforcer, [1000.0]) == [1000.0], "20 mTorr is a normal pressure"
    enforcer.evaluate(0.1, np.array([400.0, 200.0]), good)
    assert enforce(enforcer, [1000.0], now=0.1) == [0.0]
    assert list(enforcer.tripped) == [True, True]
    assert Verdict(int(enforcer.verdict[0])) & Verdict.TRIPPED
    enforcer.evaluate(0.2, np.array([20.0, 5.0]), good)
    assert enforce(enforcer, [1000.0], now=0.2) == [0.0], "latched until an operator resets both"


def test_defect_1_the_gate_refuses_what_enforce_should_never_have_passed(tmp_path: object) -> None:
    with Journal(tmp_path / "journal.sqlite") as book:  # type: ignore[operator]
        gate = Gate({HEATING.name: HEATING}, {HEATING.name: Route("ahu", "modbus", "{}", "{}")}, book)
        for value in (500.0, -1.0, math.nan, math.inf):
            with pytest.raises(DeniedError):
                gate.admit(HEATING.name, value)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_defect_3_nan_is_never_a_comfortable_value(kernels: SimpleNamespace, value: float) -> None:
    enforcer = hvac(kernels)
    enforce(enforcer, [50.0, 0.0])
    assert enforce(enforcer, [value, 0.0], now=1.0) == [0.0, 0.0]
    assert Verdict(int(enforcer.verdict[0])) == Verdict.NOT_FINITE | Verdict.FAIL_SAFE


@pytest.mark.parametrize(
    ("value", "quality"), [(math.nan, Quality.GOOD), (0.0, Quality.BAD), (21.0, Quality.UNCERTAIN)]
)
def test_defect_3_a_sensor_that_says_nothing_trips(kernels: SimpleNamespace, value: float, quality: Quality) -> None:
    points = {"zone/supply": "Cel"}
    freeze = Interlock("zone/freeze", "supply < 3.3 Cel", ((HEATING.name, 100.0),), scope="zone", delay_s=300.0)
    enforcer = Enforcer([HEATING], [], InterlockTable.build([freeze], {"zone/supply": 0}, points, [HEATING]), kernels)
    enforcer.evaluate(0.0, np.array([20.0]), np.full(1, Quality.GOOD, np.uint8))
    assert enforce(enforcer, [10.0]) == [10.0]
    enforcer.evaluate(1.0, np.array([value]), np.full(1, quality, np.uint8))
    assert enforce(enforcer, [10.0], now=1.0) == [100.0]
