"""Payloads: compact JSON in UTF-8. A value that cannot be believed is ``null`` with a reason, never NaN or infinity.

A point is ``{"value":21.4,"unit":"Cel","quality":"good","ts":"2026-01-02T03:04:05.678Z","seq":812,"source":"live"}``;
a value that is not good carries ``"reason"`` after its quality. JSON has no NaN (RFC 8259 §6); times are ISO 8601 in
UTC with milliseconds.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from agent.telemetry.errors import PayloadError
from safety.values import Quality, Reason

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

_QUALITY: Final = tuple(quality.name.lower() for quality in Quality)
_REASON: Final = tuple(reason.name.lower() for reason in Reason)
_GOOD: Final = int(Quality.GOOD)
_BAD: Final = int(Quality.BAD)
_NOT_A_NUMBER: Final = int(Reason.NOT_A_NUMBER)


@lru_cache(maxsize=8)
def _whole_second(second: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))


def iso_utc(seconds: float) -> str:
    """UTC seconds since the epoch as ``2026-01-02T03:04:05.678Z``, to the nearest millisecond.

    Raises:
        PayloadError: the time is not finite or outside the years 0001 to 9999.
    """
    if not -62_135_596_800.0 <= seconds < 253_402_300_799.0:
        raise PayloadError(
            f"{seconds} is no UTC time in seconds since 1970: a message must say when its value was measured"
        )
    second, millisecond = divmod(round(seconds * 1000.0), 1000)
    return f"{_whole_second(second)}.{millisecond:03d}Z"


@lru_cache(maxsize=8192)
def _tail(unit: str, quality: int, reason: int) -> str:
    """``,"unit":…,"quality":…[,"reason":…]``: few combinations occur, so each is written once."""
    tail = f',"unit":{json.dumps(unit, ensure_ascii=False)},"quality":"{_QUALITY[quality]}"'
    if quality != _GOOD:
        tail += f',"reason":"{_REASON[reason]}"'
    return tail


def _body(value: float, unit: str, quality: int, reason: int) -> str:
    """``value`` to ``reason`` of one point. Fail closed: not finite is bad, bad is null."""
    if quality == _BAD:
        return "null" + _tail(unit, quality, reason)
    if not math.isfinite(value):
        return "null" + _tail(unit, _BAD, _NOT_A_NUMBER)
    return repr(value) + _tail(unit, quality, reason)


def encode_point(
    value: float, unit: str, quality: int, ts: float, seq: int, *, source: str = "live", reason: int = Reason.OK
) -> bytes:
    """One point.

    Args:
        value: in ``unit``; published only when finite and not bad, else ``null``.
        unit: UCUM code.
        quality: a :class:`~safety.values.Quality`: good, uncertain or bad.
        ts: UTC seconds since the epoch when it was measured.
        seq: rises with each publication, so that a message that comes twice can be told.
        source: ``live``, or the name of what stands in for the plant, such as ``sim``.
        reason: a :class:`~safety.values.Reason`: why the quality is not good; not written when it is.

    Raises:
        PayloadError: ``ts`` is no time.
    """
    body = _body(float(value), unit, quality, reason)
    return f'{{"value":{body},"ts":"{iso_utc(ts)}","seq":{seq},"source":"{source}"}}'.encode()


class SnapshotEncoder:
    """All points of a unit in one message, each point as in a message of its own.

    ``{"ts":…,"seq":…,"source":…,"points":{name:{"value":…,"unit":…,"quality":…},…}}``. Built once per unit; while all is
    well, encoding is one formatting operation.
    """

    def __init__(self, points: Sequence[tuple[str, str]], source: str = "live") -> None:
        """``points`` are (name, UCUM code) in the order of the arrays given to :meth:`encode`."""
        self._heads = [("," if index else "") + f'"{name}":{{"value":' for index, (name, _) in enumerate(points)]
        self._units = [unit for _, unit in points]
        self._all_good = bytes([_GOOD]) * len(points)
        tails = [(_tail(unit, _GOOD, 0) + "}").replace("%", "%%") for unit in self._units]
        self._good = "".join(f"{head}%r{tail}" for head, tail in zip(self._heads, tails, strict=True))
        self._source = source

    def encode(
        self,
        value: npt.NDArray[np.float64],
        quality: npt.NDArray[np.uint8],
        reason: npt.NDArray[np.uint8],
        ts: float,
        seq: int,
    ) -> bytes:
        """``value``, ``quality`` and ``reason`` of shape (n_points,); ``ts`` UTC seconds of the scan.

        Raises:
            PayloadError: ``ts`` is no time.
            ValueError: an array is not as long as the list of points.
        """
        numbers = value.tolist()
        if not len(numbers) == len(quality) == len(reason) == len(self._units):
            raise ValueError(
                f"a snapshot of {len(self._units)} points needs arrays of that length, "
                f"got {len(numbers)} values, {len(quality)} qualities and {len(reason)} reasons"
            )
        if quality.tobytes() == self._all_good and math.isfinite(sum(numbers)):
            points = self._good % tuple(numbers)
        else:
            columns = zip(self._heads, self._units, numbers, quality.tolist(), reason.tolist(), strict=True)
            points = "".join([f"{head}{_body(number, unit, q, r)}}}" for head, unit, number, q, r in columns])
        return f'{{"ts":"{iso_utc(ts)}","seq":{seq},"source":"{self._source}","points":{{{points}}}}}'.encode()


def encode_object(content: Mapping[str, Any]) -> bytes:
    """Any other message (info, meta, interlock, learn, event): compact JSON, numbers that are not finite as ``null``.

    Raises:
        PayloadError: something in it is no JSON value.
    """
    try:
        try:
            text = json.dumps(content, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
        except ValueError:
            text = json.dumps(_finite(content), separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise PayloadError(f"a payload with {sorted(map(str, content))} cannot be written as JSON: {error}") from error
    return text.encode()


def _finite(content: Any) -> Any:
    if isinstance(content, float):
        return content if math.isfinite(content) else None
    if isinstance(content, Mapping):
        return {key: _finite(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_finite(value) for value in content]
    return content
