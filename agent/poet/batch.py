"""One control function for many units in one call: compiled where it compiles, plain Python where it does not, with one
contract.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from numbers import Real
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from agent.poet.shape import ResultKind, ResultShape

if TYPE_CHECKING:
    from agent.poet.functions import ControlFunction

Floats = npt.NDArray[np.float64]
Bytes = npt.NDArray[np.uint8]
Longs = npt.NDArray[np.int64]

TEXT_BYTES = 64
"""Columns of the text image: enough for a reason, small enough to keep one row in one cache line."""


class CallStatus(IntEnum):
    """How the call for one unit ended. 0 means it was not made: zeroed memory never reads as an answer."""

    NOT_RUN = 0
    OK = 1
    RAISED = 2
    NOT_FINITE = 3
    NOT_A_COMMAND = 4


class NotACommandError(TypeError):
    """The function returned something that cannot be read as its declared result."""


Run = Callable[[Floats, Bytes, Floats, Bytes, Bytes, Longs, int], None]
"""(args, due, out, status, text, progress, first unit): calls every due unit from the first on."""

Check = Callable[["ControlFunction", Run], "str | None"]
"""Runs the compiled loop and the function beside it; returns why the loop must not be used, None if it may."""


@dataclass(frozen=True, slots=True)
class BatchKernel:
    """A control function over all its units. ``kind`` says how it runs, ``why`` why it is not compiled (empty if it
    is).

    Arrays, C-contiguous, filled in place:
        args float64 (n_args, n_units): row per parameter, in the order of the function's parameters.
        due uint8 (n_units,): 0 = leave this unit alone.
        out float64 (n_fields, n_units): row per result field. NaN where the status is RAISED or NOT_A_COMMAND.
        status uint8 (n_units,): :class:`CallStatus`; NOT_RUN for a due unit that was not reached.
        text uint8 (n_units, 64): the command's text, or the exception's; UTF-8, zero padded.
        progress int64 (1,): the unit being called, so that a hang or a crash can be attributed from outside.

    Nothing of a unit that is not due is touched: several workers may share the arrays, each with its own ``due``.
    """

    kind: Literal["aot", "jit", "python"]
    why: str
    run: Run
    n_args: int
    n_fields: int

    def __call__(self, args: Floats, due: Bytes, out: Floats, status: Bytes, text: Bytes, progress: Longs) -> None:
        """Call every due unit. A unit's exception ends only that unit's call.

        Raises:
            ValueError: an array has the wrong shape, type or layout. Compiled code would read past it.
        """
        units = due.shape[0]
        _require(args, "args", np.float64, (self.n_args, units))
        _require(due, "due", np.uint8, (units,))
        _require(out, "out", np.float64, (self.n_fields, units))
        _require(status, "status", np.uint8, (units,))
        _require(text, "text", np.uint8, (units, TEXT_BYTES))
        _require(progress, "progress", np.int64, (1,))
        status[due != 0] = CallStatus.NOT_RUN
        progress[0] = -1
        first = 0
        while first < units:
            try:
                self.run(args, due, out, status, text, progress, first)
                return
            except Exception as error:
                culprit = int(progress[0])
                if culprit < first:
                    raise  # not a unit's failure: the batch itself cannot run
                fail(culprit, error, out, status, text)
                first = culprit + 1


def fail(unit: int, error: Exception, out: Floats, status: Bytes, text: Bytes) -> None:
    """Record that the call for one unit raised."""
    out[:, unit] = np.nan
    status[unit] = CallStatus.NOT_A_COMMAND if isinstance(error, NotACommandError) else CallStatus.RAISED
    write_text(text, unit, str(error) if isinstance(error, NotACommandError) else f"{type(error).__name__}: {error}")


def make_batch(function: ControlFunction, mode: str, check: Check | None = None) -> BatchKernel:
    """The batch of a function in the wanted mode ("aot", "jit", "python"), or in Python with the reason in ``why``."""
    n_args, n_fields = len(function.parameters), len(function.shape.fields)
    why = "plain Python was asked for"
    if mode in ("aot", "jit"):
        from agent.poet.batch_load import first_difference, load_compiled

        run, why = load_compiled(function, mode, check or first_difference)
        if run is not None:
            return BatchKernel("aot" if mode == "aot" else "jit", "", run, n_args, n_fields)
    return BatchKernel("python", why, python_run(function), n_args, n_fields)


def python_run(function: ControlFunction) -> Run:
    """The reference: the plain function, unit by unit.

    Arguments are floats here too, so that every mode computes the same.
    """
    plain, shape = function.plain, function.shape
    keywords = _keyword_only(function)

    def run(args: Floats, due: Bytes, out: Floats, status: Bytes, text: Bytes, progress: Longs, first: int) -> None:
        for unit in range(first, due.shape[0]):
            if due[unit] == 0:
                continue
            progress[0] = unit
            column = args[:, unit].tolist()
            positional = len(column) - len(keywords)
            result = plain(*column[:positional], **dict(zip(keywords, column[positional:], strict=True)))
            numbers, reason = read_result(result, shape)
            out[:, unit] = numbers
            write_text(text, unit, reason)
            status[unit] = CallStatus.OK if all(map(math.isfinite, numbers)) else CallStatus.NOT_FINITE

    return run


def read_result(result: Any, shape: ResultShape) -> tuple[list[float], str]:
    """The numbers and the text of one result.

    Raises:
        NotACommandError: it has another form, lacks a field, or a field is not a number.
    """
    if shape.kind is ResultKind.NUMBER:
        return [_number(result, shape.fields[0])], ""
    if shape.kind is ResultKind.DICT:
        if not isinstance(result, dict):
            raise NotACommandError(f"returned {type(result).__name__}, not a dict")
        return [_number(result.get(name), name) for name in shape.fields], ""
    if shape.kind is ResultKind.TUPLE:
        if not isinstance(result, tuple) or len(result) != len(shape.fields):
            raise NotACommandError(f"returned {type(result).__name__}, not {len(shape.fields)} numbers")
        return [_number(value, name) for value, name in zip(result, shape.fields, strict=True)], ""
    assert shape.command is not None
    if not isinstance(result, shape.command):
        raise NotACommandError(f"returned {type(result).__name__}, not {shape.command.__name__}")
    reason = getattr(result, shape.text) if shape.text else ""
    if not isinstance(reason, str):
        raise NotACommandError(f"{shape.text} is {type(reason).__name__}, not a text")
    return [_number(getattr(result, name), name) for name in shape.fields], reason


def write_text(text: Bytes, unit: int, message: str) -> None:
    """Put a message into a unit's row, cut at a character's border."""
    data = message.encode("utf-8", errors="replace")[:TEXT_BYTES]
    while data and len(data) == TEXT_BYTES and not _ends_whole(data):
        data = data[:-1]
    text[unit, : len(data)] = np.frombuffer(data, np.uint8)
    text[unit, len(data) :] = 0


def _ends_whole(data: bytes) -> bool:
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _number(value: Any, name: str) -> float:
    if not isinstance(value, Real | np.bool_):
        raise NotACommandError(f"{name} is {type(value).__name__}, not a number")
    return float(value)


def _keyword_only(function: ControlFunction) -> Sequence[str]:
    code = function.plain.__code__
    return code.co_varnames[code.co_argcount : code.co_argcount + code.co_kwonlyargcount]


def _require(array: npt.NDArray[Any], name: str, dtype: type, shape: tuple[int, ...]) -> None:
    if array.dtype != dtype or array.shape != shape or not array.flags.c_contiguous:
        raise ValueError(
            f"{name} must be a contiguous {np.dtype(dtype)} array of shape {shape}, "
            f"got {array.dtype} of shape {array.shape}"
        )
