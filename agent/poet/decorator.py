"""``@poet``: wraps a function in Perceive, Operate, Enforce and Train without changing its name, signature or return
type.
"""

from __future__ import annotations

import functools
import inspect
import types
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from agent.poet.errors import PluginError, SettingsError
from agent.poet.handle import Handle
from agent.poet.plugins import find_plugin
from agent.poet.settings import InterruptMode, Isolation, LearningMode, Timing, make_settings

P = ParamSpec("P")
R = TypeVar("R")


def poet(
    *,
    domain: str | None = None,
    retries: int | None = None,
    timeout: float | types.EllipsisType | None = ...,
    learning: bool | str | LearningMode | None = None,
    interrupts: str | InterruptMode | None = None,
    profile: str | None = None,
    isolation: Isolation = "none",
    adaptive_timeout: bool = False,
    timing: Timing | None = None,
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Decorate a function or a coroutine function.

    Args:
        domain: the plugin that checks inputs and results; None: the general part only.
        retries: tries after the first, with exponential backoff and jitter (default 3).
        timeout: seconds for all tries together (default 30; None: no limit). The work is really stopped, see
            :mod:`agent.poet.alarm`.
        learning: True or "on", False or "off", "batch", "hybrid".
        interrupts: "off", "auto", "on", "on_error", "on_critical": when a person is asked.
        profile: "development", "production", "research" or "realtime"; what is given besides wins.
        isolation: "process" runs each call in a child process that is killed at the deadline: for C code that cannot be
            stopped.
        adaptive_timeout: shorten the timeout to a multiple of what the function usually takes.
        timing: clock, sleep and chance, for tests.

    Returns:
        A decorator. The decorated function has the attribute ``poet``, a :class:`~agent.poet.handle.Handle`.
        A failure raises; in a domain that commands equipment it returns the fail-safe command instead.

    Raises:
        SettingsError: an argument makes no sense, or the function is a generator or not a function.
        PluginError: there is no such domain.
    """
    given: dict[str, Any] = {"domain": domain, "isolation": isolation, "adaptive_timeout": adaptive_timeout}
    optional = {"retries": retries, "learning": learning, "interrupts": interrupts, "timing": timing}
    given.update({name: value for name, value in optional.items() if value is not None})
    if timeout is not ...:
        given["timeout"] = timeout
    settings = make_settings(profile, given)

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        if not isinstance(function, types.FunctionType):
            raise SettingsError(
                f"@poet needs a function, not {type(function).__name__}: put it under @staticmethod, not over it"
            )
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            raise SettingsError(f"@poet cannot wrap the generator {function.__qualname__}: return the values instead")
        if inspect.iscoroutinefunction(function) and settings.isolation == "process":
            raise SettingsError(
                f"{function.__qualname__} is a coroutine function: isolation='process' needs a plain one"
            )
        handle = Handle(function, None if domain is None else find_plugin(domain), settings)

        if inspect.iscoroutinefunction(function):
            call_async = handle.call_async

            @functools.wraps(function)
            async def wrapper_async(*args: P.args, **kwargs: P.kwargs) -> Any:
                return await call_async(args, kwargs)

            return _with_handle(wrapper_async, handle)

        call = handle.call

        @functools.wraps(function)
        def wrapper(*args: P.args, **kwargs: P.kwargs) -> Any:
            return call(args, kwargs)

        return _with_handle(wrapper, handle)

    return decorate


def handle_of(function: Callable[..., Any]) -> Handle:
    """The loop of a decorated function. Raises PluginError if it is not decorated."""
    handle = getattr(function, "poet", None)
    if not isinstance(handle, Handle):
        raise PluginError(f"{function!r} is not decorated with @poet")
    return handle


def _with_handle(wrapper: Callable[..., Any], handle: Handle) -> Callable[..., Any]:
    wrapper.poet = handle  # type: ignore[attr-defined]
    return wrapper
