"""The protocol between core and the train worker: JSON objects, one per line, at most ``MAX_LINE`` bytes each.

core → train: ``units`` (what may be learned, and what is in force), ``feedback`` (one scan's result), ``applied`` or
``refused`` (the answer to a proposal). train → core: ``proposal``. Neither side trusts the other: every field is
checked on arrival, NaN and infinity have no spelling, and what cannot be read is a :class:`MessageError`, never a
half-filled message.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple

from agent.train.errors import MessageError

MAX_LINE: Final = 65_536
"""Bytes, newline included: a unit with its parameters is well under 10 kB; a longer line is the other side's fault."""

MAX_TEXT: Final = 400
"""Characters kept of a reason: it ends in an audit record and on a page, not in a log file."""


class ParameterState(NamedTuple):
    """One parameter as core has it: the value in force and its version (0 = factory), and the limits of learning."""

    value: float
    version: int
    factory: float
    low: float
    high: float
    max_step: float


class EwmaSpec(NamedTuple):
    """Run-to-run control of one parameter. ``gain`` is feedback unit per parameter unit; ``window`` is in seconds."""

    parameter: str
    gain: float
    weight: float
    window: float
    learn: bool = True


class UnitSpec(NamedTuple):
    """What a unit may learn; without ``ewma`` its parameters are kept, but nothing moves them."""

    unit: str
    parameters: Mapping[str, ParameterState]
    ewma: EwmaSpec | None


class Units(NamedTuple):
    """Units to learn for. Later messages of a connection replace the units they name and keep the others."""

    units: tuple[UnitSpec, ...]


class Feedback(NamedTuple):
    """One scan's result: ``t`` on the control clock, ``utc`` for records, both in seconds; NaN: there was no value."""

    unit: str
    t: float
    utc: float
    value: float
    target: float
    quality: int
    counts: bool


class Proposal(NamedTuple):
    """A value the worker would like in force; ``standard_error`` is in the parameter's unit, None while unknown."""

    unit: str
    parameter: str
    value: float
    version: int
    reason: str
    standard_error: float | None


class Answer(NamedTuple):
    """What core did with a proposal, and why."""

    applied: bool
    unit: str
    parameter: str
    value: float
    version: int
    why: str


Message = Units | Feedback | Proposal | Answer


def encode(message: Message) -> bytes:
    """Return the message as one line with its newline.

    Raises:
        MessageError: the line would be longer than ``MAX_LINE``, or a number that must be finite is not.
    """
    if isinstance(message, Units):
        body: dict[str, Any] = {"type": "units", "units": [_unit_body(spec) for spec in message.units]}
    elif isinstance(message, Feedback):
        body = {"type": "feedback", **message._asdict()}
        body["value"], body["target"] = _or_null(message.value), _or_null(message.target)
    elif isinstance(message, Proposal):
        body = {"type": "proposal", **message._asdict(), "reason": message.reason[:MAX_TEXT]}
    else:
        body = {"type": "applied" if message.applied else "refused", **message._asdict(), "why": message.why[:MAX_TEXT]}
        del body["applied"]
        body["value"] = _or_null(message.value)
    try:
        line = json.dumps(body, allow_nan=False, separators=(",", ":")).encode() + b"\n"
    except ValueError as error:
        raise MessageError(f"{body['type']}: a number is not finite ({error}); nothing was sent") from error
    if len(line) > MAX_LINE:
        raise MessageError(
            f"{body['type']}: {len(line)} bytes are more than a line may have ({MAX_LINE}); send fewer units at once"
        )
    return line


def encode_units(specs: Iterable[UnitSpec]) -> list[bytes]:
    """Return ``units`` lines for any number of units, as few as fit into ``MAX_LINE`` each."""
    lines: list[bytes] = []
    batch: list[UnitSpec] = []
    size = 0
    for spec in specs:
        length = len(encode(Units((spec,))))
        if batch and size + length > MAX_LINE:
            lines.append(encode(Units(tuple(batch))))
            batch, size = [], 0
        batch.append(spec)
        size += length
    if batch:
        lines.append(encode(Units(tuple(batch))))
    return lines


def decode(line: bytes) -> Message:
    """Return the message of one line.

    Raises:
        MessageError: too long, not JSON, not an object, of unknown type, or with a field missing or of the wrong kind.
    """
    if len(line) > MAX_LINE:
        raise MessageError(f"a line of {len(line)} bytes is longer than {MAX_LINE}")
    try:
        body = json.loads(line, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise MessageError(f"not JSON: {error}") from error
    if not isinstance(body, dict):
        raise MessageError("a message is a JSON object")
    kind = body.get("type")
    if kind == "feedback":
        return Feedback(
            _text(body, "unit"), _number(body, "t"), _number(body, "utc"), _number_or_nan(body, "value"),
            _number_or_nan(body, "target"), _whole(body, "quality"), _flag(body, "counts"),
        )  # fmt: skip
    if kind == "units":
        units = body.get("units")
        if not isinstance(units, list):
            raise MessageError("units: a list of units is missing")
        return Units(tuple(_unit(unit) for unit in units))
    if kind == "proposal":
        error_of = None if body.get("standard_error") is None else _number(body, "standard_error")
        return Proposal(
            _text(body, "unit"), _text(body, "parameter"), _number(body, "value"), _whole(body, "version"),
            _text(body, "reason")[:MAX_TEXT], error_of,
        )  # fmt: skip
    if kind in {"applied", "refused"}:
        return Answer(
            kind == "applied", _text(body, "unit"), _text(body, "parameter"), _number_or_nan(body, "value"),
            _whole(body, "version"), _text(body, "why")[:MAX_TEXT],
        )  # fmt: skip
    raise MessageError(f"unknown message type {str(kind)[:40]!r}")


def _unit_body(spec: UnitSpec) -> dict[str, Any]:
    return {
        "unit": spec.unit,
        "parameters": {
            name: {
                "value": p.value,
                "version": p.version,
                "factory": p.factory,
                "range": [p.low, p.high],
                "max_step": p.max_step,
            }
            for name, p in spec.parameters.items()
        },
        "ewma": None if spec.ewma is None else spec.ewma._asdict(),
    }


def _unit(body: Any) -> UnitSpec:
    if not isinstance(body, dict) or not isinstance(body.get("parameters"), dict):
        raise MessageError("units: a unit is an object with its name and its parameters")
    ewma = body.get("ewma")
    return UnitSpec(
        _text(body, "unit"),
        {str(name): _parameter(name, parameter) for name, parameter in body["parameters"].items()},
        None if ewma is None else _ewma(ewma),
    )


def _parameter(name: str, body: Any) -> ParameterState:
    span = body.get("range") if isinstance(body, dict) else None
    if not isinstance(span, list) or len(span) != 2:
        raise MessageError(f"units: parameter {name!r} needs a range of two numbers")
    low, high = _number({"low": span[0]}, "low"), _number({"high": span[1]}, "high")
    value, max_step = _number(body, "value"), _number(body, "max_step")
    if not (low < high and low <= value <= high and max_step > 0.0):
        raise MessageError(
            f"units: parameter {name!r}: {value:g} must lie in [{low:g}, {high:g}] and max_step above zero"
        )
    factory = _number(body, "factory") if "factory" in body else value
    return ParameterState(value, _whole(body, "version") if "version" in body else 0, factory, low, high, max_step)


def _ewma(body: Any) -> EwmaSpec:
    if not isinstance(body, dict):
        raise MessageError("units: ewma is an object")
    spec = EwmaSpec(
        _text(body, "parameter"), _number(body, "gain"), _number(body, "weight"), _number(body, "window"),
        _flag(body, "learn") if "learn" in body else True,
    )  # fmt: skip
    if spec.gain == 0.0 or not 0.0 < spec.weight <= 1.0 or spec.window <= 0.0:
        raise MessageError("units: ewma needs a gain that is not zero, a weight in (0, 1] and a window above zero")
    return spec


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not a number a message may carry")


def _or_null(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _number(body: Mapping[str, Any], key: str) -> float:
    value = body.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise MessageError(f"{key}: a number is missing")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise MessageError(f"{key}: the number must be finite")
    return number


def _number_or_nan(body: Mapping[str, Any], key: str) -> float:
    return math.nan if body.get(key) is None else _number(body, key)


def _whole(body: Mapping[str, Any], key: str) -> int:
    value = body.get(key)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**53:
        raise MessageError(f"{key}: a whole number from 0 is missing")
    return value


def _flag(body: Mapping[str, Any], key: str) -> bool:
    value = body.get(key)
    if not isinstance(value, bool):
        raise MessageError(f"{key}: true or false is missing")
    return value


def _text(body: Mapping[str, Any], key: str) -> str:
    value = body.get(key)
    if not isinstance(value, str):
        raise MessageError(f"{key}: a text is missing")
    return value
