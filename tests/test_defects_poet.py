"""What an earlier implementation of POET got wrong, one test per fault, by its number; and the example it was explained with."""

from __future__ import annotations

import math
import threading
import time
from typing import Any

import numpy as np
import pytest

from agent.domains.building_management import HVACCommand, zone_temperature
from agent.poet import InMemoryParameters, handle_of, poet, use_parameters
from agent.poet import train as train_module
from agent.poet.batch import TEXT_BYTES, CallStatus
from agent.poet.errors import CircuitOpenError, DeadlineExceededError
from agent.poet.functions import ControlFunction
from agent.poet.settings import Timing
from agent.poet.verdicts import Outcome

FAIL_SAFE = (0, 0, 0)


@poet(domain="building_management")
def control_hvac_zone(current_temp, setpoint, occupancy, outdoor_temp):  # type: ignore[no-untyped-def]
    temp_error = current_temp - setpoint
    if abs(temp_error) <= 1.0:
        return HVACCommand(0, 0, 20, "Maintaining")
    elif temp_error < -1.0:  # noqa: RET505
        return HVACCommand(min(100, abs(temp_error) * 30), 0, 60, "Heating")
    else:
        return HVACCommand(0, min(100, temp_error * 30), 60, "Cooling")


@pytest.fixture
def parameters(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(train_module, "_overloaded", lambda: False)
    store = InMemoryParameters()
    use_parameters(store)
    yield store
    use_parameters(None)


def test_canonical_example_as_a_call() -> None:
    assert control_hvac_zone(20.0, 22.0, True, 5.0) == HVACCommand(60, 0, 60, "Heating")
    assert control_hvac_zone(22.5, 22.0, True, 5.0) == HVACCommand(0, 0, 20, "Maintaining")
    assert control_hvac_zone(current_temp=30, setpoint=22, occupancy=False, outdoor_temp=35) == HVACCommand(
        0, 100, 60, "Cooling"
    )


@pytest.mark.parametrize("mode", ["python", "jit"])
def test_canonical_example_as_a_batch(
    mode: str, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POETD_CACHE", str(tmp_path_factory.mktemp("cache")))
    kernel = ControlFunction.of(control_hvac_zone).batch(mode)
    assert kernel.kind == mode, kernel.why
    args = np.array([[20.0, 22.5, 30.0], [22.0] * 3, [1.0, 1.0, 0.0], [5.0, 5.0, 35.0]])
    out, status = np.zeros((3, 3)), np.zeros(3, np.uint8)
    text, progress = np.zeros((3, TEXT_BYTES), np.uint8), np.zeros(1, np.int64)
    kernel(args, np.ones(3, np.uint8), out, status, text, progress)
    assert out.T.tolist() == [[60, 0, 60], [0, 0, 20], [0, 100, 60]]
    assert [bytes(row).rstrip(b"\0").decode() for row in text] == ["Heating", "Maintaining", "Cooling"]
    assert status.tolist() == [CallStatus.OK] * 3


@pytest.mark.parametrize(
    "command",
    [HVACCommand(80, 80, 60, "both"), HVACCommand(500, 0, 60, "too much"), HVACCommand(math.nan, 0, 0), None, "on"],
)
def test_defect_1_enforce_does_not_fail_open(command: Any) -> None:
    @poet(domain="building_management", timing=Timing(sleep=lambda seconds: None))
    def broken(current_temp: float) -> HVACCommand:
        return command  # type: ignore[no-any-return]

    assert broken(20.0)[:3] == FAIL_SAFE
    assert handle_of(broken).last_verdict.outcome is Outcome.OUTPUT_REFUSED


@pytest.mark.parametrize("temperature", [72.0, 295.15, -40.5])
def test_defect_2_units_are_declared_never_guessed_and_nothing_is_clamped(temperature: float) -> None:
    """72 could be degrees Fahrenheit and 295.15 kelvin: the input is declared in Celsius, so they are refused as they are."""
    seen = []

    @poet(domain="building_management")
    def control(current_temp: float) -> HVACCommand:
        seen.append(current_temp)
        return HVACCommand(0, 0, 20)

    assert control(temperature)[:3] == FAIL_SAFE
    assert seen == []
    assert "Cel" in handle_of(control).last_verdict.causes[0]
    for believable in (-10.0, 20.0, 50.0):
        control(believable)
    assert seen == [-10.0, 20.0, 50.0]


@pytest.mark.parametrize("reading", [-999.0, math.nan, math.inf, None, "n/a", [None, None]])
def test_defect_3_a_broken_sensor_never_becomes_a_comfortable_temperature(reading: Any) -> None:
    command = control_hvac_zone(reading, 22.0, True, 5.0)
    assert command[:3] == FAIL_SAFE
    assert handle_of(control_hvac_zone).last_verdict.outcome is Outcome.INPUT_REFUSED


def test_defect_3_all_sensors_missing_are_not_zeros() -> None:
    assert control_hvac_zone(None, None, None, None)[:3] == FAIL_SAFE
    assert len(handle_of(control_hvac_zone).last_verdict.causes) == 4


def test_defect_4_a_keyword_is_not_ignored_and_a_fifth_argument_not_dropped() -> None:
    @poet(domain="building_management")
    def control(current_temp: float, *more: float, target_temp: float = 21.0, **others: float) -> HVACCommand:
        return HVACCommand(target_temp, 0, sum(more), ",".join(sorted(others)))

    assert control(20.0, 1.0, 2.0, 3.0, 4.0, target_temp=25.0, extra=1.0) == HVACCommand(25.0, 0, 10.0, "extra")
    assert zone_temperature(20.0, 22.0, 1, 5.0, 1.0).heating_output == 60.0


def test_defect_4_set_back_has_the_right_sign_for_heating_and_for_cooling() -> None:
    assert (
        zone_temperature(19.5, 22.0, 1, 5.0).heating_output > 0 == zone_temperature(19.5, 22.0, 0, 5.0).heating_output
    )
    assert (
        zone_temperature(24.5, 22.0, 1, 25.0).cooling_output > 0 == zone_temperature(24.5, 22.0, 0, 25.0).cooling_output
    )


@pytest.mark.timeout(60, method="thread")
@pytest.mark.parametrize("in_main_thread", [True, False])
def test_defect_5_the_timeout_stops_the_work(in_main_thread: bool) -> None:
    ended = threading.Event()

    @poet(timeout=0.05)
    def slow() -> str:
        try:
            for _ in range(6000):
                time.sleep(0.005)
        finally:
            ended.set()
        return "finished"

    outcome: list[Any] = []

    def call() -> None:
        try:
            outcome.append(slow())
        except DeadlineExceededError as error:
            outcome.append(error)

    if in_main_thread:
        call()
    else:
        caller = threading.Thread(target=call)
        caller.start()
        caller.join()
    assert isinstance(outcome[0], DeadlineExceededError)
    assert ended.wait(20.0)


def test_defect_6_learned_values_are_used_by_the_next_call(parameters: InMemoryParameters) -> None:
    before = zone_temperature(20.0, 22.0, 1, 5.0)
    parameters.set(handle_of(zone_temperature).name, "setback", 8.0)
    parameters.set(handle_of(zone_temperature).name, "deadband", 2.0)
    assert zone_temperature(20.0, 22.0, 1, 5.0).heating_output == 0.0 < before.heating_output


def test_defect_6_failures_train_too(parameters: InMemoryParameters) -> None:
    control_hvac_zone(math.nan, 22.0, True, 5.0)
    assert [record.outcome for record in parameters.records] == ["input_refused"]
    assert math.isnan(parameters.records[0].inputs["current_temp"])


def test_defect_9_retries_have_jitter_and_a_circuit_breaker() -> None:
    waits: list[float] = []
    chance = iter(np.linspace(0.0, 0.99, 40).tolist())
    calls = []

    @poet(timing=Timing(sleep=waits.append, random=lambda: next(chance)))
    def broken() -> None:
        calls.append(1)
        raise OSError("no answer")

    for _ in range(5):
        with pytest.raises(OSError):
            broken()
    assert len(set(waits)) == len(waits) == 15
    with pytest.raises(CircuitOpenError):
        broken()
    assert len(calls) == 20


def test_defect_9_a_call_writes_no_file_and_keeps_nothing_without_bound(
    parameters: InMemoryParameters, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for _ in range(1500):
        zone_temperature(20.0, 22.0, 1, 5.0)
    assert list(tmp_path.iterdir()) == []
    assert len(parameters.records) == 1000


def test_defect_9_calls_from_many_threads_do_not_lose_counts(parameters: InMemoryParameters) -> None:
    @poet(learning="batch")
    def same(a: int) -> int:
        return a

    threads = [threading.Thread(target=lambda: [same(index) for index in range(20)]) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    handle_of(same).trainer.flush()
    assert len(parameters.records) == 160
