"""The envelopes of a site as frozen arrays, and the memory that ``kernels.enforce`` keeps between scans."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import numpy.typing as npt

from safety import kernels
from safety.envelope import Envelope
from safety.errors import EnvelopeError
from safety.values import Verdict

Floats = npt.NDArray[np.float64]
Bytes = npt.NDArray[np.uint8]
Ints = npt.NDArray[np.int32]


def frozen(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The array, made read-only: nothing at run time can widen a limit."""
    array.flags.writeable = False
    return array


@final
@dataclass(frozen=True, slots=True)
class EnvelopeTable:
    """Read-only arrays in the layout ``kernels.enforce`` documents. Built once, at load."""

    names: tuple[str, ...]
    limits: Floats
    allowed_start: Ints
    allowed: Floats
    pairs: Ints

    @classmethod
    def build(cls, envelopes: Sequence[Envelope], exclusive: Sequence[tuple[int, int]] = ()) -> EnvelopeTable:
        """Build from the envelopes, and pairs of their indices that may not both be above idle.

        Raises:
            EnvelopeError: a name twice, a pair of one output with itself or of no output, or a pair whose fail-safe
                values are both above idle.
        """
        names = tuple(envelope.name for envelope in envelopes)
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise EnvelopeError(f"output {twice} has two envelopes: keep one")
        for first, second in exclusive:
            _check_pair(envelopes, first, second)
        limits = np.empty((kernels.LIMIT_ROWS, len(envelopes)))
        start, allowed = [0], list[float]()
        for column, envelope in zip(limits.T, envelopes, strict=True):
            column[:] = _limits_column(envelope)
            allowed.extend(envelope.allowed or ())
            start.append(len(allowed))
        return cls(
            names=names,
            limits=frozen(limits),
            allowed_start=frozen(np.array(start, np.int32)),
            allowed=frozen(np.array(allowed, np.float64)),
            pairs=frozen(np.array(list(exclusive), np.int32).reshape(-1, 2)),
        )


def _limits_column(envelope: Envelope) -> list[float]:
    column = [math.nan] * kernels.LIMIT_ROWS
    column[kernels.LOW] = envelope.low
    column[kernels.HIGH] = envelope.high
    column[kernels.FAIL_SAFE] = math.nan if envelope.fail_safe is None else envelope.fail_safe
    column[kernels.MAX_STEP] = math.inf if envelope.max_step is None else envelope.max_step
    column[kernels.MAX_RATE] = math.inf if envelope.max_rate is None else envelope.max_rate
    column[kernels.DEAD_BAND] = envelope.dead_band
    column[kernels.MIN_ON] = envelope.min_on_s
    column[kernels.MIN_OFF] = envelope.min_off_s
    column[kernels.IDLE] = envelope.idle
    column[kernels.MIDDLE] = envelope.middle
    column[kernels.TOLERANCE] = envelope.tolerance
    return column


def _check_pair(envelopes: Sequence[Envelope], first: int, second: int) -> None:
    for index in (first, second):
        if not 0 <= index < len(envelopes):
            raise EnvelopeError(f"exclusive: there is no output number {index}")
    if first == second:
        raise EnvelopeError(f"exclusive: output {envelopes[first].name} cannot exclude itself")
    both = [envelopes[first], envelopes[second]]
    if all(one.fail_safe is not None and one.fail_safe > one.idle for one in both):
        raise EnvelopeError(
            f"exclusive: {both[0].name} and {both[1].name} both have a fail_safe above idle; "
            "at least one must be off or relinquish"
        )


@final
@dataclass(slots=True)
class EnforceState:
    """What ``kernels.enforce`` remembers and returns. Shapes (rows named in ``kernels``, n_out) and (n_out,)."""

    memory: Floats
    marks: Bytes
    out: Floats
    relinquish: Bytes
    verdict: npt.NDArray[np.uint32]

    @classmethod
    def fresh(cls, table: EnvelopeTable) -> EnforceState:
        """The state at the start of the process: every output at fail-safe, its history unknown."""
        count = len(table.names)
        memory = np.full((kernels.MEMORY_ROWS, count), np.nan)
        fail_safe = table.limits[kernels.FAIL_SAFE]
        memory[kernels.LAST] = fail_safe
        return cls(
            memory=memory,
            marks=np.zeros((kernels.MARK_ROWS, count), np.uint8),
            out=fail_safe.copy(),
            relinquish=np.isnan(fail_safe).astype(np.uint8),
            verdict=np.full(count, Verdict.FAIL_SAFE | Verdict.UNKNOWN_HISTORY, np.uint32),
        )
