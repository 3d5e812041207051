"""@poet: the function stays what it was; failures end where they must."""

from __future__ import annotations

import asyncio
import inspect
import math
from typing import Any

import pytest
import structlog

from agent.domains.building_management import HVACCommand
from agent.poet import handle_of, poet
from agent.poet.errors import CircuitOpenError, EnforceError, PluginError, SettingsError
from agent.poet.settings import LearningMode, Timing
from agent.poet.verdicts import Outcome


class Fake:
    """A clock that waits by being told to."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.waits: list[float] = []
        self.timing = Timing(
            monotonic=lambda: self.now, sleep=self.sleep, sleep_async=self.sleep_async, random=lambda: 0.5
        )

    def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.now += seconds

    async def sleep_async(self, seconds: float) -> None:
        self.sleep(seconds)


class Flaky:
    """Fails so many times, then answers."""

    def __init__(self, failures: int) -> None:
        self.left = failures
        self.calls = 0

    def __call__(self) -> int:
        self.calls += 1
        if self.left:
            self.left -= 1
            raise OSError("no answer")
        return 42


def test_the_wrapped_function_is_what_it_was() -> None:
    def original(a: int, /, b: int = 2, *rest: int, c: int = 3, **more: int) -> int:
        """Adds."""
        return a + b + sum(rest) + c + sum(more.values())

    wrapped = poet()(original)
    assert inspect.signature(wrapped) == inspect.signature(original)
    assert (wrapped.__name__, wrapped.__qualname__, wrapped.__doc__, wrapped.__module__) == (
        original.__name__,
        original.__qualname__,
        original.__doc__,
        original.__module__,
    )
    assert wrapped.__annotations__ == original.__annotations__
    assert wrapped(1) == 6
    assert wrapped(1, 1, 1, c=1, d=1) == 5
    assert handle_of(wrapped).plain is original


async def test_a_coroutine_function_stays_one() -> None:
    @poet(retries=3, timeout=30.0, domain=None, learning=True)
    async def later(a: int) -> int:
        await asyncio.sleep(0)
        return a

    assert inspect.iscoroutinefunction(later)
    assert await later(3) == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"retries": -1}, "retries"),
        ({"retries": True}, "retries"),
        ({"timeout": 0}, "timeout"),
        ({"timeout": math.nan}, "timeout"),
        ({"learning": "sometimes"}, "off, on, batch, hybrid"),
        ({"interrupts": "maybe"}, "off, auto, on, on_error, on_critical"),
        ({"profile": "fast"}, "development, production, research, realtime"),
        ({"isolation": "thread"}, "none, process"),
    ],
)
def test_senseless_settings_are_refused_at_once(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        poet(**arguments)


def test_what_cannot_be_wrapped() -> None:
    def generator() -> Any:
        yield 1

    async def later() -> None: ...

    for function in (generator, len, staticmethod(generator)):
        with pytest.raises(SettingsError):
            poet()(function)  # type: ignore[arg-type]
    with pytest.raises(SettingsError, match="isolation"):
        poet(isolation="process")(later)
    with pytest.raises(PluginError, match="did you mean building_management"):
        poet(domain="building_managment")(later)
    with pytest.raises(PluginError, match="not decorated"):
        handle_of(later)


@pytest.mark.parametrize(
    ("profile", "expected"),
    [
        ("development", (1, LearningMode.OFF, "on", 30.0, False)),
        ("production", (3, LearningMode.ON, "auto", 30.0, True)),
        ("research", (5, LearningMode.HYBRID, "on", None, False)),
        ("realtime", (1, LearningMode.ON, "off", 5.0, False)),
    ],
)
def test_profiles(profile: str, expected: tuple[Any, ...]) -> None:
    @poet(profile=profile)
    def function() -> None: ...

    settings = handle_of(function).settings
    assert (
        settings.retries,
        settings.learning,
        settings.interrupts.value,
        settings.timeout,
        settings.audit,
    ) == expected

    @poet(profile=profile, timeout=1.0)
    def other() -> None: ...

    assert handle_of(other).settings.timeout == 1.0


def make(flaky: Flaky, fake: Fake, is_async: bool, **arguments: Any) -> Any:
    if not is_async:

        @poet(timing=fake.timing, **arguments)
        def function() -> int:
            return flaky()

        return function

    @poet(timing=fake.timing, **arguments)
    async def function_async() -> int:
        return flaky()

    return lambda: asyncio.run(function_async())  # type: ignore[arg-type]


@pytest.mark.parametrize("is_async", [False, True])
def test_retries_wait_longer_each_time_with_jitter(is_async: bool) -> None:
    flaky, fake = Flaky(3), Fake()
    assert make(flaky, fake, is_async)() == 42
    assert flaky.calls == 4
    assert fake.waits == pytest.approx([0.075, 0.15, 0.3])


@pytest.mark.parametrize("is_async", [False, True])
def test_the_functions_own_error_comes_out_when_retries_are_used_up(is_async: bool) -> None:
    flaky, fake = Flaky(9), Fake()
    with pytest.raises(OSError, match="no answer"):
        make(flaky, fake, is_async, retries=2)()
    assert flaky.calls == 3


@pytest.mark.parametrize("is_async", [False, True])
def test_no_retry_that_could_not_end_in_time(is_async: bool) -> None:
    flaky, fake = Flaky(9), Fake()
    with pytest.raises(OSError):
        make(flaky, fake, is_async, timeout=0.2)()
    assert fake.waits == pytest.approx([0.075]), "0.075 + 0.15 is more than the 0.2 s the whole call may take"


@pytest.mark.parametrize("is_async", [False, True])
def test_circuit_opens_tries_once_and_closes(is_async: bool) -> None:
    flaky, fake = Flaky(6), Fake()
    function = make(flaky, fake, is_async, retries=0)
    for _ in range(5):
        with pytest.raises(OSError):
            function()
    with pytest.raises(CircuitOpenError, match="5 times in a row"):
        function()
    assert flaky.calls == 5
    fake.now += 30.0
    with pytest.raises(OSError):
        function()
    with pytest.raises(CircuitOpenError):
        function()
    fake.now += 30.0
    assert function() == 42
    assert function() == 42


def test_a_wrong_call_is_the_callers_error_and_not_tried_again() -> None:
    fake = Fake()

    @poet(timing=fake.timing)
    def function(a: int) -> int:
        return a

    with pytest.raises(TypeError, match="missing"):
        function()  # type: ignore[call-arg]
    assert fake.waits == []
    assert handle_of(function).operate.breaker.failures == 0


def test_a_type_error_of_the_function_itself_is_tried_again() -> None:
    fake = Fake()

    @poet(timing=fake.timing, retries=1)
    def function() -> int:
        return 1 + "x"  # type: ignore[operator]

    with pytest.raises(TypeError, match="unsupported operand"):
        function()
    assert len(fake.waits) == 1


def test_what_is_no_failure_passes_through() -> None:
    @poet()
    def function(error: BaseException) -> None:
        raise error

    for error in (KeyboardInterrupt(), SystemExit(3), GeneratorExit()):
        with pytest.raises(type(error)):
            function(error)


async def test_cancellation_passes_through() -> None:
    @poet()
    async def function() -> None:
        await asyncio.sleep(60)

    task = asyncio.create_task(function())  # type: ignore[arg-type]
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


def zone(**arguments: Any) -> Any:
    @poet(domain="building_management", **arguments)
    def function(current_temp: float, setpoint: float = 21.0) -> HVACCommand:
        if current_temp < 0:
            raise OSError("broken")
        return HVACCommand(150 if current_temp > 40 else 50, 0, 20, "Heating")

    return function


@pytest.mark.parametrize(
    ("temperature", "outcome", "cause"),
    [
        (math.nan, Outcome.INPUT_REFUSED, "current_temp"),
        (None, Outcome.INPUT_REFUSED, "current_temp is missing"),
        (-5.0, Outcome.FAILED, "OSError: broken"),
        (45.0, Outcome.OUTPUT_REFUSED, "heating_output = 150"),
    ],
)
def test_a_function_that_commands_equipment_ends_in_fail_safe(temperature: Any, outcome: Outcome, cause: str) -> None:
    function = zone(timing=Fake().timing)
    command = function(temperature)
    assert command[:3] == (0, 0, 0)
    verdict = handle_of(function).last_verdict
    assert verdict.outcome is outcome
    assert verdict.fail_safe
    assert cause in "; ".join(verdict.causes)
    assert cause in command.reason
    assert function(20.0) == HVACCommand(50, 0, 20, "Heating")
    assert handle_of(function).last_verdict.outcome is Outcome.OK


def test_with_an_open_circuit_the_command_is_fail_safe_too() -> None:
    function = zone(timing=Fake().timing, retries=0)
    for _ in range(6):
        command = function(-5.0)
    assert command.reason.startswith("Fail-safe: ")
    assert handle_of(function).last_verdict.outcome is Outcome.CIRCUIT_OPEN
    assert function(20.0)[:3] == (0, 0, 0)


def test_a_plugin_that_breaks_never_lets_the_raw_value_through(monkeypatch: pytest.MonkeyPatch) -> None:
    function = zone(timing=Fake().timing)
    handle = handle_of(function)

    def breaks(*_: Any) -> Any:
        raise RuntimeError("bug in the plugin")

    monkeypatch.setattr(type(handle.plugin), "validate_output", breaks)
    assert function(20.0)[:3] == (0, 0, 0)
    monkeypatch.undo()
    monkeypatch.setattr(type(handle.plugin), "process_inputs", breaks)
    assert function(20.0)[:3] == (0, 0, 0)
    assert "bug in the plugin" in handle.last_verdict.causes[0]


def test_without_equipment_a_refused_result_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    from agent.domains.building_management.plugin import BuildingManagement

    monkeypatch.setattr(BuildingManagement, "commands_equipment", False)
    function = zone(timing=Fake().timing)
    with pytest.raises(EnforceError, match="heating_output = 150"):
        function(45.0)


def test_switched_off_the_plain_function_runs_but_equipment_gets_the_fail_safe_command() -> None:
    @poet()
    def double(a: int) -> int:
        return 2 * a

    handle_of(double).share = 0.0
    assert double(2) == 4
    assert handle_of(double).last_verdict.outcome is Outcome.BYPASSED
    function = zone()
    handle_of(function).share = 0.0
    assert function(20.0)[:3] == (0, 0, 0)
    assert handle_of(function).last_verdict.fail_safe


def test_rolled_out_to_a_share_of_the_calls() -> None:
    chances = iter([0.1, 0.6, 0.49, 0.5])
    outcomes = []

    @poet(timing=Timing(random=lambda: next(chances)))
    def double(a: int) -> int:
        return 2 * a

    handle_of(double).share = 0.5
    for _ in range(4):
        handle_of(double).last_verdict = handle_of(double).last_verdict
        double(1)
        outcomes.append(handle_of(double).last_verdict.outcome)
    assert outcomes == [Outcome.OK, Outcome.BYPASSED, Outcome.OK, Outcome.BYPASSED]


def test_the_first_failure_is_logged_repeats_are_not_and_recovery_is() -> None:
    function = zone(timing=Fake().timing)
    with structlog.testing.capture_logs() as logs:
        for temperature in (20.0, math.nan, math.nan, 20.0, 20.0):
            function(temperature)
    assert [(entry["log_level"], entry["outcome"]) for entry in logs] == [("warning", "input_refused"), ("info", "ok")]
    assert logs[0]["function"].endswith("function")


def test_audit_logs_every_call() -> None:
    @poet(profile="production")
    def double(a: int) -> int:
        return 2 * a

    with structlog.testing.capture_logs() as logs:
        double(1)
        double(2)
    assert [entry["outcome"] for entry in logs] == ["ok", "ok"]


def test_adaptive_timeout_follows_what_calls_take() -> None:
    from agent.poet.history import DurationHistory

    history = DurationHistory()
    for _ in range(19):
        history.add(0.1)
    assert history.timeout(30.0) == 30.0
    history.add(0.1)
    assert history.timeout(30.0) == pytest.approx(0.4)
    assert history.timeout(None) == pytest.approx(0.4)
    assert history.timeout(0.2) == 0.2
    for _ in range(64):
        history.add(1e-6)
    assert history.timeout(30.0) == 0.05
