"""Interrupts: a person looks at a call, corrects it, guides it or overrides it.

What a person gives passes Enforce like anything else.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

from agent.poet.settings import InterruptMode


class Stage(Enum):
    """Where in the call the person is asked."""

    PERCEIVE = "perceive"
    OPERATE = "operate"
    ENFORCE = "enforce"


class Kind(Enum):
    """What the person does."""

    CORRECTION = "correction"
    """At Perceive: other inputs (a dict by parameter name). Later: another result."""
    GUIDANCE = "guidance"
    """A text for the learner; the call goes on as it was."""
    OVERRIDE = "override"
    """The final result, at any stage."""


@dataclass(frozen=True, slots=True)
class Interrupt:
    """What the person sees: the inputs at Perceive, the result later; ``causes`` if the stage failed."""

    function: str
    stage: Stage
    subject: Any
    causes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Decision:
    """What the person says."""

    kind: Kind
    value: Any


Handler = Callable[[Interrupt], "Decision | None"]
"""Asks a person; None: go on. Called in the call's own thread, the call waits for it; deadlines cover the function
only.
"""


class _InUse:
    """The process's handler."""

    __slots__ = ("handler",)

    def __init__(self) -> None:
        self.handler: Handler | None = None


_IN_USE: Final = _InUse()


def on_interrupt(handler: Handler | None) -> None:
    """Let this handler ask the person, for every ``@poet`` function of this process; None: nobody is asked."""
    _IN_USE.handler = handler


def anybody_there() -> bool:
    """Whether there is a way to ask a person."""
    return _IN_USE.handler is not None


def wants(mode: InterruptMode, failed: bool, after_success: bool, equipment: bool) -> bool:
    """Whether a person is asked at this point of a call."""
    if not anybody_there() or mode is InterruptMode.OFF:
        return False
    if mode is InterruptMode.ON:
        return True
    if not failed:
        return False
    return {InterruptMode.ON_ERROR: True, InterruptMode.ON_CRITICAL: equipment, InterruptMode.AUTO: after_success}[mode]


def ask(interrupt: Interrupt) -> Decision | None:
    """Ask the person, if there is a way to."""
    return None if _IN_USE.handler is None else _IN_USE.handler(interrupt)
