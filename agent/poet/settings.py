"""What ``@poet(...)`` can be told, checked once when the function is decorated, and the profiles that set it all at
once.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType
from typing import Any, Final, Literal, TypeVar

from agent.poet.errors import SettingsError


class LearningMode(Enum):
    """When outcomes are handed to the parameter store."""

    OFF = "off"
    ON = "on"
    """Each at once."""
    BATCH = "batch"
    """Many together."""
    HYBRID = "hybrid"
    """Failures at once, the rest together."""


class InterruptMode(Enum):
    """When a person is asked."""

    OFF = "off"
    AUTO = "auto"
    """At the first failure after a success."""
    ON = "on"
    """At every stage of every call."""
    ON_ERROR = "on_error"
    """At every failure."""
    ON_CRITICAL = "on_critical"
    """At every failure of a function that commands equipment."""


Choice = TypeVar("Choice", bound=Enum)

Isolation = Literal["none", "process"]


@dataclass(frozen=True, slots=True)
class Timing:
    """Clock, waiting and chance, so that tests need none of them. ``random`` is uniform over [0, 1)."""

    monotonic: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    sleep_async: Callable[[float], Awaitable[None]] = asyncio.sleep
    random: Callable[[], float] = random.random


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything the loop around one function is told.

    ``retries`` counts the tries after the first; ``timeout`` covers them all, in s.
    """

    retries: int = 3
    timeout: float | None = 30.0
    domain: str | None = None
    learning: LearningMode = LearningMode.ON
    interrupts: InterruptMode = InterruptMode.OFF
    audit: bool = False
    isolation: Isolation = "none"
    adaptive_timeout: bool = False
    timing: Timing = Timing()


PROFILES: Final[Mapping[str, Mapping[str, Any]]] = MappingProxyType(
    {
        "development": {"retries": 1, "learning": "off", "interrupts": "on", "timeout": 30.0},
        "production": {"retries": 3, "learning": "on", "interrupts": "auto", "timeout": 30.0, "audit": True},
        "research": {"retries": 5, "learning": "hybrid", "interrupts": "on", "timeout": None},
        "realtime": {"retries": 1, "learning": "on", "interrupts": "off", "timeout": 5.0},
    }
)
"""Profile → the settings it stands for; what the decorator is told besides wins."""


def make_settings(profile: str | None, given: dict[str, Any]) -> Settings:
    """The settings of one function.

    Raises:
        SettingsError: an unknown profile or value; says which there are.
    """
    if profile is not None and profile not in PROFILES:
        raise SettingsError(f"profile {profile!r} is not one of {', '.join(PROFILES)}")
    chosen = {**(PROFILES[profile] if profile else {}), **given}
    if "learning" in chosen:
        chosen["learning"] = _learning(chosen["learning"])
    if "interrupts" in chosen:
        chosen["interrupts"] = _one_of(InterruptMode, "interrupts", chosen["interrupts"])
    settings = Settings(**chosen)
    if isinstance(settings.retries, bool) or not isinstance(settings.retries, int) or not 0 <= settings.retries <= 100:
        raise SettingsError(f"retries must be a whole number from 0 to 100, not {settings.retries!r}")
    if settings.timeout is not None and not 0.0 < settings.timeout <= 86_400.0:
        raise SettingsError(
            f"timeout must be a number of seconds above 0 and at most a day, or None, not {settings.timeout!r}"
        )
    if settings.isolation not in ("none", "process"):
        raise SettingsError(f"isolation {settings.isolation!r} is not one of none, process")
    return settings


def _learning(value: Any) -> LearningMode:
    if isinstance(value, bool):
        return LearningMode.ON if value else LearningMode.OFF
    return _one_of(LearningMode, "learning", value)


def _one_of(kind: type[Choice], name: str, value: Any) -> Choice:
    try:
        return kind(value)
    except ValueError:
        raise SettingsError(
            f"{name} {value!r} is not one of {', '.join(str(choice.value) for choice in kind)}"
        ) from None
