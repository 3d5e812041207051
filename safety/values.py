"""The value types every layer shares: quality, reason, point, sample, command, verdict.

This module imports nothing but the standard library, so that the smallest process (the supervisor's release) can use
it. Zeroed memory must read as "bad, never read": a fresh image is unusable until somebody has measured something.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum, IntFlag
from typing import Any, ClassVar, Final, final


class Quality(IntEnum):
    """How far a value may be believed. Stored as u1 in the images; 0 is bad on purpose."""

    BAD = 0
    UNCERTAIN = 1
    GOOD = 2


class Reason(IntEnum):
    """Why a value has its quality. Stored as u1 in the images."""

    NEVER_READ = 0
    OK = 1
    STALE = 2
    NOT_A_NUMBER = 3
    OUT_OF_RANGE = 4
    RATE_OF_CHANGE = 5
    STUCK = 6
    DEVICE_UNREACHABLE = 7
    DEVICE_ERROR = 8
    DECODE_ERROR = 9
    OUT_OF_SERVICE = 10
    SUBSTITUTED = 11
    """The declared fallback stands in for a bad value; quality is uncertain at best."""
    DEVICE_UNCERTAIN = 12
    """The device itself marked the value uncertain."""


class Verdict(IntFlag):
    """Everything Enforce did to one output in one scan: every cause is kept, none hides another."""

    NONE = 0
    CLAMPED_LOW = 1 << 0
    CLAMPED_HIGH = 1 << 1
    STEP_LIMITED = 1 << 2
    RATE_LIMITED = 1 << 3
    MIN_ON_HELD = 1 << 4
    MIN_OFF_HELD = 1 << 5
    NOT_FINITE = 1 << 6
    """The function asked for NaN or infinity."""
    INPUT_BAD = 1 << 7
    """A required input was bad, stale or missing."""
    FUNCTION_FAILED = 1 << 8
    """The control function raised or returned something that is not a command."""
    DEADLINE_MISSED = 1 << 9
    """No answer in time: the function hung, crashed, or its worker was restarted."""
    HELD = 1 << 10
    """The last good command is held for the declared number of scans."""
    FAIL_SAFE = 1 << 11
    """The output is at its declared fail-safe value (or relinquished)."""
    TRIPPED = 1 << 12
    """An interlock forces the output."""
    EXCLUSIVE = 1 << 13
    """Outputs that exclude each other were commanded together."""
    DEAD_BAND = 1 << 14
    """The change was smaller than the dead band: nothing to write."""
    NOT_ALLOWED = 1 << 15
    """Not one of the allowed values."""
    UNKNOWN_HISTORY = 1 << 17
    """Start of the process: min on/off timers count as just switched."""


@final
@dataclass(frozen=True, slots=True)
class PointSpec:
    """What a plant or device says of one point. ``low`` and ``high`` are in ``unit`` (a UCUM code; "1" is
    dimensionless).
    """

    name: str
    unit: str
    low: float
    high: float
    writable: bool = False
    description: str = ""


@final
@dataclass(frozen=True, slots=True)
class Sample:
    """One measured value. ``source_time`` is UTC seconds since the epoch; ``monotonic`` is the control clock when it
    arrived.
    """

    value: float
    quality: Quality
    reason: Reason
    source_time: float
    monotonic: float


_FACTORY_TAKEN = False


class CommandForgeryError(TypeError):
    """Someone other than ``safety.gate`` tried to make a Command."""


@final
class Command:
    """An order to one point that has passed the gate. Drivers write nothing else.

    ``value`` is in the point's unit; ``None`` means relinquish (hand back to the equipment's own logic).
    Only ``safety.gate`` can make one: the constructor is taken once, at import, by :func:`take_command_factory`.
    """

    __slots__ = ("point", "priority", "sequence", "value")

    point: str
    value: float | None
    priority: int | None
    sequence: int

    def __new__(cls, *_args: Any, **_kwargs: Any) -> Command:
        raise CommandForgeryError("a Command can only be made by safety.gate: send the value through Gate.write()")

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"a Command is immutable: cannot set {name}")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"a Command is immutable: cannot delete {name}")

    def __init_subclass__(cls, **_kwargs: Any) -> None:
        raise CommandForgeryError("Command cannot be subclassed")

    def __reduce__(self) -> str:
        raise CommandForgeryError("a Command cannot be copied or stored")

    def __repr__(self) -> str:
        what = "relinquish" if self.value is None else f"{self.value:g}"
        return f"<Command {self.point} := {what}, priority {self.priority}, seq {self.sequence}>"


CommandFactory = Callable[[str, "float | None", "int | None", int], Command]


def take_command_factory() -> CommandFactory:
    """Hand out the only way to make a Command, once. ``safety.gate`` takes it at import; any later caller gets an
    error.

    Raises:
        CommandForgeryError: the factory was taken before. If that is the gate itself, something else took it first and
            the daemon must not start.
    """
    global _FACTORY_TAKEN  # noqa: PLW0603  (a one-time seal is process state)
    if _FACTORY_TAKEN:
        raise CommandForgeryError("the Command factory is already taken: only safety.gate makes commands")
    _FACTORY_TAKEN = True

    def make(point: str, value: float | None, priority: int | None, sequence: int) -> Command:
        command = object.__new__(Command)
        object.__setattr__(command, "point", point)
        object.__setattr__(command, "value", value)
        object.__setattr__(command, "priority", priority)
        object.__setattr__(command, "sequence", sequence)
        return command

    return make


class WriteOutcome(IntEnum):
    """How a write ended. Every write ends in exactly one of these, and the caller sees which."""

    HELD = 1
    """Acknowledged and read back as sent."""
    ACKNOWLEDGED = 2
    """Acknowledged; the point cannot be read back."""
    OVERRIDDEN = 3
    """Acknowledged, but somebody else holds the point at another value."""
    REJECTED = 4
    """The device refused."""
    UNREACHABLE = 5
    """No answer: the device may or may not hold the value."""
    DENIED = 6
    """The gate refused; nothing was sent."""


class PortError(Exception):
    """Root of what a driver raises on purpose, here so that the gate can tell a refusal from silence. ``outcome``: how
    the write ended.
    """

    outcome: ClassVar[WriteOutcome] = WriteOutcome.UNREACHABLE


@final
@dataclass(frozen=True, slots=True)
class WriteResult:
    """What came of one write. ``read_back`` is in the point's unit, None where it was not read."""

    point: str
    outcome: WriteOutcome
    requested: float | None
    read_back: float | None
    detail: str
    latency_s: float


OFF: Final = 0.0
ON: Final = 1.0
