"""Operate: call the function, stop it when its time is up, try again when it fails, and leave it alone when it keeps
failing.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from typing import Any

from agent.poet import alarm, backoff, isolation
from agent.poet.breaker import CircuitBreaker
from agent.poet.errors import CircuitOpenError, DeadlineExceededError, StillRunningError
from agent.poet.history import DurationHistory
from agent.poet.settings import Settings
from agent.poet.worker_thread import ThreadGuard

Accept = Callable[[Any], None]
"""Enforce's word on a result: raises EnforceError if it is not allowed.

A refused result is tried again like an exception.
"""


class Operate:
    """The calls of one function. The timeout covers all tries and the waits between them."""

    def __init__(self, name: str, function: Callable[..., Any], settings: Settings) -> None:
        self.breaker = CircuitBreaker(settings.timing.monotonic)
        self.guard = ThreadGuard(name)
        self._name = name
        self._function = function
        self._settings = settings
        self._timing = settings.timing
        self._timeout = settings.timeout
        self._isolated = settings.isolation == "process"
        self._history = DurationHistory() if settings.adaptive_timeout else None

    def call(self, args: tuple[Any, ...], kwargs: dict[str, Any], accept: Accept | None = None) -> Any:
        """Call the function until a result is accepted.

        Raises:
            DeadlineExceededError, StillRunningError, CircuitOpenError, IsolatedCallError, EnforceError, or what the
            function raised last.
        """
        breaker = self.breaker
        if breaker.failures:
            breaker.admit(self._name)
        started = self._timing.monotonic()
        timeout = self._timeout if self._history is None else self._history.timeout(self._timeout)
        try:
            result = self._once(args, kwargs, timeout)
            if accept is not None:
                accept(result)
        except Exception as error:  # noqa: BLE001  (the function may raise anything: that is what retries are for)
            result = self._again(error, args, kwargs, accept, timeout, started)
        if breaker.failures:
            breaker.succeeded()
        if self._history is not None:
            self._history.add(self._timing.monotonic() - started)
        return result

    async def call_async(self, args: tuple[Any, ...], kwargs: dict[str, Any], accept: Accept | None = None) -> Any:
        """The same for a coroutine function.

        A coroutine that blocks the event loop cannot be stopped; one that awaits can.
        """
        if self.breaker.failures:
            self.breaker.admit(self._name)
        started = self._timing.monotonic()
        timeout = self._timeout if self._history is None else self._history.timeout(self._timeout)
        failures = 0
        while True:
            try:
                result = await self._once_async(args, kwargs, _remaining(timeout, self._timing.monotonic() - started))
                if accept is not None:
                    accept(result)
            except Exception as error:  # noqa: BLE001  (as above)
                failures += 1
                await self._timing.sleep_async(
                    self._wait(error, failures, timeout, self._timing.monotonic() - started, args, kwargs)
                )
            else:
                break
        if self.breaker.failures:
            self.breaker.succeeded()
        if self._history is not None:
            self._history.add(self._timing.monotonic() - started)
        return result

    def _again(
        self,
        error: Exception,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        accept: Accept | None,
        timeout: float | None,
        started: float,
    ) -> Any:
        """The tries after the first has failed."""
        failures = 1
        while True:
            self._timing.sleep(self._wait(error, failures, timeout, self._timing.monotonic() - started, args, kwargs))
            try:
                result = self._once(args, kwargs, _remaining(timeout, self._timing.monotonic() - started))
                if accept is not None:
                    accept(result)
            except Exception as next_error:  # noqa: BLE001  (as above)
                error = next_error
                failures += 1
            else:
                return result

    def _once(self, args: tuple[Any, ...], kwargs: dict[str, Any], timeout: float | None) -> Any:
        if self._isolated:
            return isolation.call(self._name, timeout, self._function, args, kwargs)
        if timeout is None:
            return self._function(*args, **kwargs)
        if alarm.usable():
            if self.guard.busy:
                self.guard.require_idle()
            return alarm.call(self._name, timeout, self._function, args, kwargs)
        return self.guard.call(timeout, self._function, args, kwargs)

    async def _once_async(self, args: tuple[Any, ...], kwargs: dict[str, Any], limit_s: float | None) -> Any:
        if limit_s is None:
            return await self._function(*args, **kwargs)
        limit = asyncio.timeout(limit_s)
        try:
            async with limit:
                result = await self._function(*args, **kwargs)
        except TimeoutError as error:
            if limit.expired():
                raise DeadlineExceededError(
                    f"{self._name} did not answer within {limit_s:g} s and was cancelled"
                ) from error
            raise
        if limit.expired():  # it swallowed its cancellation
            raise DeadlineExceededError(f"{self._name} answered only after its {limit_s:g} s were up")
        return result

    def _wait(
        self,
        error: Exception,
        failures: int,
        timeout: float | None,
        elapsed: float,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> float:
        """Seconds to wait before the next try. Raises the error if there is none."""
        if isinstance(error, CircuitOpenError | StillRunningError):
            raise error
        if isinstance(error, TypeError):
            inspect.signature(self._function).bind(
                *args, **kwargs
            )  # a wrong call is the caller's error, not the function's failure
        wait = backoff.delay(failures, self._timing.random())
        out_of_time = timeout is not None and elapsed + wait >= timeout
        if failures > self._settings.retries or out_of_time or isinstance(error, DeadlineExceededError):
            self.breaker.failed()
            raise error
        return wait


def _remaining(timeout: float | None, elapsed: float) -> float | None:
    return None if timeout is None else max(timeout - elapsed, 1e-6)
