"""The scalar types of the YAML files: durations, rates, names, switch positions. All become floats and seconds."""

from __future__ import annotations

import math
import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo

_SECONDS = {"ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = re.compile(r"^\s*(\d+(?:\.\d+)?)\s*(ms|s|min|h|d)\s*$")
_RATE = re.compile(r"^\s*(\d+(?:\.\d+)?)\s*/\s*(ms|s|min|h|d)\s*$")


class Strict(BaseModel):
    """Base of every configuration model: unknown keys are errors, values are frozen, no NaN and no infinity.

    Files are validated as strict JSON (no text for numbers, no numbers for booleans); models made in code take floats.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, populate_by_name=True)


class RefusedError(ValueError):
    """What a validator of a model raises: what is wrong, the fix, and the keys from the model down to the culprit."""

    def __init__(self, message: str, fix: str, *at: str | int) -> None:
        super().__init__(message)
        self.fix = fix
        self.at = at


def _given_in_code(value: Any, info: ValidationInfo) -> bool:
    """Whether this is a float in SI seconds from Python code. In a file a number without its unit is refused."""
    return info.mode == "python" and isinstance(value, float) and math.isfinite(value) and value >= 0.0


def seconds(text: str) -> float:
    """A duration as the YAML files write it (``500ms``, ``10s``) in seconds. Raises RefusedError."""
    match = _DURATION.match(text)
    if match is None:
        fix = "write a number with its unit, such as 500ms, 5s, 10min or 1h"
        raise RefusedError(f"{text} is not a duration", fix)
    return float(match[1]) * _SECONDS[match[2]]


def _duration(value: Any, info: ValidationInfo) -> float:
    if _given_in_code(value, info):
        return float(value)
    return seconds(value if isinstance(value, str) else f"{value}")


def _rate(value: Any, info: ValidationInfo) -> float:
    if isinstance(value, str):
        match = _RATE.match(value)
        if match:
            return float(match[1]) / _SECONDS[match[2]]
    if _given_in_code(value, info):
        return float(value)
    raise RefusedError(
        f"{value} is not a rate", "write the change per time in the point's unit, such as 5/min or 0.5/s"
    )


def _level(value: Any) -> float:
    if value is True or value == "on":
        return 1.0
    if value is False or value == "off":
        return 0.0
    if isinstance(value, int | float) and math.isfinite(value):
        return float(value)
    raise RefusedError(f"{value} is not a value", "write a number, on or off")


def _level_or_relinquish(value: Any) -> float | None:
    if value == "relinquish":
        return None
    try:
        return _level(value)
    except RefusedError as error:
        raise RefusedError(str(error), "write a number, on, off, or relinquish") from None


_DurationText = Annotated[str, Field(pattern=_DURATION.pattern)]
_RateText = Annotated[str, Field(pattern=_RATE.pattern)]
_LevelInput = float | bool | Literal["on", "off"]
_SafeInput = float | bool | Literal["on", "off", "relinquish"]

Duration = Annotated[
    float,
    BeforeValidator(_duration, json_schema_input_type=_DurationText),
    Field(ge=0.0, description="a duration: 500ms, 5s, 10min, 1h"),
]
"""Seconds."""

Rate = Annotated[
    float,
    BeforeValidator(_rate, json_schema_input_type=_RateText),
    Field(gt=0.0, description="a change per time in the point's unit: 5/min"),
]
"""Point's unit per second."""

Level = Annotated[
    float, BeforeValidator(_level, json_schema_input_type=_LevelInput), Field(description="a number, on or off")
]
"""A value in the point's unit; on = 1, off = 0."""

SafeValue = Annotated[
    float | None,
    BeforeValidator(_level_or_relinquish, json_schema_input_type=_SafeInput),
    Field(description="a number, on, off, or relinquish"),
]
"""A value in the point's unit; None = relinquish, hand back to the equipment's own logic."""

Slug = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9-]{0,62}[a-z0-9])?$", description="a name of a-z, 0-9 and -")]
PointName = Annotated[
    str, Field(pattern=r"^[a-z][a-z0-9_]{0,62}$", description="a name of a-z, 0-9 and _, beginning with a letter")
]
PointRef = Annotated[
    str,
    Field(
        pattern=r"^([a-z0-9]([a-z0-9-]{0,62}[a-z0-9])?/)?[a-z][a-z0-9_]{0,62}$",
        description="a point of this unit, or another unit's as unit/point",
    ),
]
