"""A timeout stops the work: in the main thread, in other threads, in coroutines, in C code."""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import threading
import time
from typing import Any

import pytest

from agent.domains.building_management import HVACCommand
from agent.poet import alarm, handle_of, poet
from agent.poet.errors import DeadlineExceededError, IsolatedCallError, StillRunningError
from agent.poet.verdicts import Outcome

free_alarm = pytest.mark.timeout(60, method="thread")
"""pytest-timeout uses the alarm itself, by default; where these tests need it, it must wait in a thread."""

FAR = 30.0
"""Seconds no test waits for: work that is not stopped would take this long."""


class Work:
    """Goes on until it is stopped, and says whether it was."""

    def __init__(self) -> None:
        self.began = threading.Event()
        self.ended = threading.Event()
        self.steps = 0

    def __call__(self) -> str:
        self.began.set()
        try:
            for _ in range(int(FAR / 0.005)):
                time.sleep(0.005)
                self.steps += 1
        finally:
            self.ended.set()
        return "finished"


@free_alarm
def test_main_thread_work_is_stopped() -> None:
    work = Work()

    @poet(timeout=0.05)
    def function() -> str:
        return work()

    assert alarm.usable()
    with pytest.raises(DeadlineExceededError, match=r"0\.05 s"):
        function()
    assert work.ended.is_set()
    steps = work.steps
    time.sleep(0.03)
    assert work.steps == steps
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


@free_alarm
def test_a_blocking_sleep_is_stopped() -> None:
    @poet(timeout=0.05)
    def function() -> None:
        time.sleep(FAR)

    with pytest.raises(TimeoutError):
        function()


@free_alarm
def test_except_exception_does_not_swallow_the_stop() -> None:
    @poet(timeout=0.05)
    def function() -> str:
        while True:
            try:
                time.sleep(FAR)
            except Exception:
                continue

    with pytest.raises(DeadlineExceededError):
        function()


@free_alarm
def test_swallowing_everything_does_not_help() -> None:
    swallowed = []

    @poet(timeout=0.05)
    def stubborn() -> str:
        for _ in range(3):
            try:
                time.sleep(FAR)
            except BaseException as stop:
                swallowed.append(type(stop).__name__)
        return "late answer"

    with pytest.raises(DeadlineExceededError):
        stubborn()
    assert swallowed == ["StopWork"] * 3


@free_alarm
def test_an_inner_deadline_ends_the_inner_call_only() -> None:
    @poet(timeout=0.05)
    def inner() -> None:
        time.sleep(FAR)

    @poet(timeout=20.0)
    def outer() -> str:
        try:
            inner()
        except DeadlineExceededError:
            return "inner was stopped"
        return "nothing happened"

    assert outer() == "inner was stopped"


@free_alarm
def test_an_outer_deadline_ends_both() -> None:
    seen = []

    @poet(timeout=20.0)
    def inner() -> None:
        time.sleep(FAR)

    @poet(timeout=0.05)
    def outer() -> None:
        try:
            inner()
        except Exception as error:
            seen.append(error)

    with pytest.raises(DeadlineExceededError, match="outer"):
        outer()
    assert seen == []


@free_alarm
def test_the_outer_deadline_holds_after_an_inner_call() -> None:
    @poet(timeout=20.0)
    def inner() -> int:
        return 1

    @poet(timeout=0.05)
    def outer() -> None:
        inner()
        time.sleep(FAR)

    with pytest.raises(DeadlineExceededError, match="outer"):
        outer()


@free_alarm
def test_anothers_alarm_is_left_alone() -> None:
    before = signal.signal(signal.SIGALRM, lambda *_: None)
    try:
        assert not alarm.usable()

        @poet(timeout=0.05)
        def function() -> None:
            time.sleep(0.2)

        with pytest.raises(DeadlineExceededError):
            function()
        assert signal.getsignal(signal.SIGALRM) is not before
    finally:
        signal.signal(signal.SIGALRM, before)


def in_thread(function: Any) -> Any:
    """What the function returns or raises in another thread."""
    box: list[Any] = []

    def body() -> None:
        try:
            box.append(function())
        except Exception as error:
            box.append(error)

    thread = threading.Thread(target=body)
    thread.start()
    thread.join(FAR)
    return box[0]


def wait_until_idle(function: Any) -> None:
    guard = handle_of(function).operate.guard
    for _ in range(2000):
        if not guard.busy:
            return
        time.sleep(0.005)
    raise AssertionError("the leftover never ended")


def test_in_another_thread_the_work_is_stopped_too() -> None:
    work = Work()

    @poet(timeout=0.05)
    def function() -> str:
        return work()

    assert isinstance(in_thread(function), DeadlineExceededError)
    assert work.ended.wait(FAR / 2)
    wait_until_idle(function)
    assert work.steps < FAR / 0.005


def test_until_the_leftover_has_ended_the_function_is_refused() -> None:
    release = threading.Event()
    calls = []

    @poet(timeout=0.05, retries=0)
    def function() -> int:
        calls.append(1)
        if len(calls) == 1:
            while not release.is_set():
                try:
                    time.sleep(0.005)
                except BaseException:
                    continue
        return len(calls)

    assert isinstance(in_thread(function), DeadlineExceededError)
    refused = in_thread(function)
    assert isinstance(refused, StillRunningError)
    assert "still runs" in str(refused)
    assert calls == [1]
    release.set()
    wait_until_idle(function)
    assert in_thread(function) == 2


def test_in_another_thread_results_errors_and_context_are_the_functions() -> None:
    import contextvars

    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="none")

    @poet(retries=0)
    def function(fail: bool) -> str:
        if fail:
            raise KeyError("own error")
        return variable.get()

    def call() -> str:
        variable.set("the caller's")
        return function(False)

    assert in_thread(call) == "the caller's"
    assert isinstance(in_thread(lambda: function(True)), KeyError)


async def test_a_coroutine_is_cancelled() -> None:
    ended = []

    @poet(timeout=0.05)
    async def function() -> None:
        try:
            await asyncio.sleep(FAR)
        finally:
            ended.append(True)

    with pytest.raises(DeadlineExceededError):
        await function()
    assert ended == [True]


async def test_a_coroutine_that_swallows_its_cancellation_is_refused() -> None:
    @poet(timeout=0.05)
    async def function() -> str:
        try:
            await asyncio.sleep(FAR)
        except asyncio.CancelledError:
            return "late answer"
        return "finished"

    with pytest.raises(DeadlineExceededError):
        await function()


async def test_a_coroutines_own_timeout_error_is_its_own() -> None:
    @poet(timeout=20.0, retries=0)
    async def function() -> None:
        raise TimeoutError("the device")

    with pytest.raises(TimeoutError, match="the device") as caught:
        await function()
    assert not isinstance(caught.value, DeadlineExceededError)


@free_alarm
def test_equipment_gets_the_fail_safe_command_at_the_deadline() -> None:
    @poet(domain="building_management", timeout=0.05)
    def function(current_temp: float) -> HVACCommand:
        time.sleep(FAR)
        return HVACCommand(100, 0, 100, "too late")

    assert function(20.0)[:3] == (0, 0, 0)
    assert handle_of(function).last_verdict.outcome is Outcome.TIMED_OUT


def isolated(work: Any, timeout: float = 20.0) -> Any:
    def function() -> Any:
        return work()

    return poet(isolation="process", timeout=timeout, retries=0)(function)()


def test_c_code_that_never_returns_is_killed() -> None:
    def endless() -> None:
        ctypes.PyDLL(None).sleep(int(FAR))  # holds the interpreter's lock

    with pytest.raises(DeadlineExceededError, match="killed"):
        isolated(endless, timeout=0.1)


@pytest.mark.parametrize(
    "result",
    [
        None,
        True,
        3,
        2.5,
        "text",
        [1, [2]],
        (1, (2.0,)),
        {"a": {1: "b"}},
        HVACCommand(1, 0, 2, "x"),
        [HVACCommand(1, 0, 2)],
    ],
)
def test_results_of_an_isolated_call(result: Any) -> None:
    answer = isolated(lambda: result)
    assert answer == result
    assert type(answer) is type(result)


def test_failures_of_an_isolated_call() -> None:
    def raises() -> None:
        raise ValueError("own error")

    def crashes() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    class OwnError(Exception):
        pass

    def raises_own() -> None:
        raise OwnError("mine")

    with pytest.raises(ValueError, match="own error"):
        isolated(raises)
    with pytest.raises(IsolatedCallError, match="without an answer"):
        isolated(crashes)
    with pytest.raises(IsolatedCallError, match="OwnError: mine"):
        isolated(raises_own)
    with pytest.raises(TypeError, match="cannot leave"):
        isolated(object)


def test_an_isolated_call_changes_nothing_here() -> None:
    seen: list[int] = []
    isolated(lambda: seen.append(1))
    assert seen == []
