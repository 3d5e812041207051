"""Interlocks: rows as declared, and the frozen arrays that ``kernels.evaluate`` runs.

Order matters only where several tripped rows force one output: its fail-safe value wins if any of them forces that,
else the row that comes first.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import final

import numpy as np
import numpy.typing as npt

from safety import kernels
from safety.envelope import Envelope
from safety.envelope_table import Bytes, Floats, Ints, frozen
from safety.errors import ExpressionError, InterlockError
from safety.expressions import Condition, compile_condition


class InterlockStatus(IntEnum):
    """Where an interlock stands. Stored as u1; everything but CLEAR and PENDING forces the outputs, fresh memory
    included.
    """

    STARTUP = kernels.STARTUP
    """Some input has not been good since the start."""
    CLEAR = kernels.CLEAR
    PENDING = kernels.PENDING
    """The condition holds, its delay runs."""
    TRIPPED = kernels.TRIPPED
    RESETTABLE = kernels.RESETTABLE
    """The cause is gone; a manual interlock waits for its reset."""


@final
@dataclass(frozen=True, slots=True)
class Interlock:
    """One row. Names are full (``unit/name``); in conditions, points of ``scope`` may be named alone. Times in seconds.

    ``trip`` maps outputs to forced values, None = relinquish. ``clear_when`` None: clears when the trip condition is
    false. ``when`` None: no condition trips it; see ``agreement``.
    """

    name: str
    when: str | None
    trip: tuple[tuple[str, float | None], ...]
    scope: str = ""
    delay_s: float = 0.0
    manual: bool = False
    clear_when: str | None = None
    clear_delay_s: float = 0.0
    title: str = ""
    source: str = ""


@final
@dataclass(frozen=True, slots=True)
class InterlockTable:
    """Read-only arrays in the layout ``kernels.evaluate`` documents, with the rows and the names of the points they
    refer to.
    """

    interlocks: tuple[Interlock, ...]
    conditions: tuple[tuple[Condition, Condition | None], ...]
    point_names: Mapping[int, str]
    code: Ints
    operand: Floats
    program_start: Ints
    input_start: Ints
    inputs: Ints
    delays: Floats
    manual: Bytes
    trip_start: Ints
    trip_output: Ints
    trip_value: Floats
    fail_safe: Floats

    @classmethod
    def build(
        cls,
        interlocks: Sequence[Interlock],
        point_index: Mapping[str, int],
        point_units: Mapping[str, str],
        envelopes: Sequence[Envelope],
    ) -> InterlockTable:
        """Compile every row.

        Args:
            interlocks: in file order.
            point_index: full point name → its row in the input image.
            point_units: full point name → UCUM code.
            envelopes: of every output, in the order of the output image.

        Raises:
            InterlockError: a name twice, an output without an envelope, or a forced value that the envelope does not
                permit.
            ExpressionError: a condition that does not compile.
        """
        _check_names(interlocks)
        output_index = {envelope.name: index for index, envelope in enumerate(envelopes)}
        conditions = tuple(compile_row(row, point_units) for row in interlocks)
        code, operand, program_start = list[list[int]](), list[list[float]](), [0]
        inputs, input_start, trips, trip_start = list[int](), [0], list[tuple[int, float]](), [0]
        for row, (when, clear) in zip(interlocks, conditions, strict=True):
            for condition in (when, clear):
                for step in condition.program if condition else ():
                    code.append([step.op, _index(step.left, point_index, row), _index(step.right, point_index, row)])
                    operand.append([step.gain, step.offset])
                program_start.append(len(code))
            needed = dict.fromkeys((*when.points, *(clear.points if clear else ())))
            inputs.extend(point_index[name] for name in needed)
            input_start.append(len(inputs))
            for output, value in row.trip:
                trips.append(
                    (_forced_output(row, output, value, output_index, envelopes), math.nan if value is None else value)
                )
            trip_start.append(len(trips))
        return cls(
            interlocks=tuple(interlocks),
            conditions=conditions,
            point_names={point_index[name]: name for pair in conditions for one in pair if one for name in one.points},
            code=_ints(code, 3),
            operand=frozen(np.array(operand, np.float64).reshape(-1, 2)),
            program_start=_ints(program_start),
            input_start=_ints(input_start),
            inputs=_ints(inputs),
            delays=frozen(
                np.array([[row.delay_s for row in interlocks], [row.clear_delay_s for row in interlocks]], np.float64)
            ),
            manual=frozen(np.array([row.manual for row in interlocks], np.uint8)),
            trip_start=_ints(trip_start),
            trip_output=_ints([output for output, _ in trips]),
            trip_value=frozen(np.array([value for _, value in trips], np.float64)),
            fail_safe=frozen(
                np.array([math.nan if one.fail_safe is None else one.fail_safe for one in envelopes], np.float64)
            ),
        )


def compile_row(row: Interlock, point_units: Mapping[str, str]) -> tuple[Condition, Condition | None]:
    """The row's trip and clear conditions. Raises ExpressionError, or InterlockError for delays that are not times."""
    for what, delay in (("delay", row.delay_s), ("clear_delay", row.clear_delay_s)):
        if not 0.0 <= delay < math.inf:
            raise InterlockError(f"interlock {row.name}: {what} must be finite and not negative, got {delay:g}")
    when = Condition("", (), ()) if row.when is None else compile_condition(row.when, point_units, row.scope)
    return when, None if row.clear_when is None else compile_condition(row.clear_when, point_units, row.scope)


def _check_names(interlocks: Sequence[Interlock]) -> None:
    seen = set[str]()
    for row in interlocks:
        if row.name in seen:
            raise InterlockError(f"interlock {row.name} is declared twice: rename one")
        seen.add(row.name)


def _index(name: str, point_index: Mapping[str, int], row: Interlock) -> int:
    if not name:
        return 0
    try:
        return point_index[name]
    except KeyError:
        raise InterlockError(
            f"interlock {row.name}: point {name} is not in the input image; no device polls it"
        ) from None


def _forced_output(
    row: Interlock, output: str, value: float | None, index: Mapping[str, int], envelopes: Sequence[Envelope]
) -> int:
    if output not in index:
        raise InterlockError(f"interlock {row.name} trips {output}, which has no envelope: declare it under outputs")
    envelope = envelopes[index[output]]
    if value is None and envelope.fail_safe is not None:
        raise InterlockError(
            f"interlock {row.name} relinquishes {output}, whose fail_safe is {envelope.fail_safe:g}: force a value"
        )
    if value is not None and not envelope.permits(value):
        raise InterlockError(f"interlock {row.name} forces {output} to {value:g}, which its envelope does not permit")
    return index[output]


def _ints(rows: Sequence[int] | Sequence[Sequence[int]], columns: int | None = None) -> Ints:
    array = np.array(rows, np.int32)
    return frozen(array if columns is None else array.reshape(-1, columns))


@final
@dataclass(slots=True)
class InterlockState:
    """What ``kernels.evaluate`` remembers, (n_interlocks,), and collects, (n_out,)."""

    status: Bytes
    clocks: Floats
    cause: Ints
    forced: Floats
    forced_flag: Bytes
    first_out: npt.NDArray[np.int32]

    @classmethod
    def fresh(cls, table: InterlockTable) -> InterlockState:
        """The state at the start of the process: nothing measured, so everything is forced."""
        count, outputs = len(table.interlocks), len(table.fail_safe)
        return cls(
            status=np.zeros(count, np.uint8),
            clocks=np.full((kernels.CLOCK_ROWS, count), np.nan),
            cause=np.full(count, kernels.CAUSE_NONE, np.int32),
            forced=np.full(outputs, np.nan),
            forced_flag=np.zeros(outputs, np.uint8),
            first_out=np.full(outputs, -1, np.int32),
        )


__all__ = [
    "ExpressionError",
    "Interlock",
    "InterlockError",
    "InterlockState",
    "InterlockStatus",
    "InterlockTable",
    "compile_row",
]
