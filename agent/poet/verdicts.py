"""What became of one call, with every cause."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from agent.poet.errors import CircuitOpenError, DeadlineExceededError, EnforceError, PerceiveError, StillRunningError


class Outcome(Enum):
    """How a call ended."""

    OK = "ok"
    BYPASSED = "bypassed"
    """POET is switched off for the function, or for this share of its calls."""
    OVERRIDDEN = "overridden"
    """A person gave the result."""
    INPUT_REFUSED = "input_refused"
    FAILED = "failed"
    TIMED_OUT = "timed_out"
    STILL_RUNNING = "still_running"
    CIRCUIT_OPEN = "circuit_open"
    OUTPUT_REFUSED = "output_refused"


@dataclass(frozen=True, slots=True)
class CallVerdict:
    """The outcome of one call, every cause of it, and whether the fail-safe command was returned instead."""

    outcome: Outcome
    causes: tuple[str, ...] = ()
    fail_safe: bool = False


OK = CallVerdict(Outcome.OK)


def verdict_of(error: Exception, fail_safe: bool) -> CallVerdict:
    """The verdict on a call that ended in an error."""
    if isinstance(error, PerceiveError | EnforceError):
        outcome = Outcome.INPUT_REFUSED if isinstance(error, PerceiveError) else Outcome.OUTPUT_REFUSED
        return CallVerdict(outcome, error.causes, fail_safe)
    outcomes = (
        (DeadlineExceededError, Outcome.TIMED_OUT),
        (StillRunningError, Outcome.STILL_RUNNING),
        (CircuitOpenError, Outcome.CIRCUIT_OPEN),
    )
    outcome = next((outcome for kind, outcome in outcomes if isinstance(error, kind)), Outcome.FAILED)
    text = str(error) if outcome is not Outcome.FAILED else f"{type(error).__name__}: {error}"
    return CallVerdict(outcome, (text,), fail_safe)
