"""An output: the envelope of a writable point, and which result of the control function drives it."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from agent.config.scalars import Duration, Level, Rate, RefusedError, SafeValue, Strict


class OutputConfig(Strict):
    """The envelope. All numbers are in the point's unit. What is not declared here cannot be written."""

    source: str | None = Field(
        default=None,
        alias="from",
        description="the field of the function's result; default: the output's own name, or the only result",
    )
    limits: tuple[float, float] = Field(default=(0.0, 1.0), description="absolute limits")
    fail_safe: SafeValue = Field(
        description="where the output goes when anything is wrong: a value, on, off, or relinquish"
    )
    max_step: float | None = Field(default=None, gt=0.0, description="largest change per scan")
    max_rate: Rate | None = Field(default=None, description="largest change per time")
    dead_band: float = Field(default=0.0, ge=0.0, description="smaller changes are not written")
    allowed: tuple[Level, ...] | None = Field(
        default=None, max_length=64, description="the only values that may be written"
    )
    min_on: Duration = Field(
        default=0.0, description="once on (above half of the limits' span), stays on at least this long"
    )
    min_off: Duration = Field(default=0.0, description="once off, stays off at least this long")
    rewrite: Duration = Field(default=60.0, gt=0.0, description="an unchanged value is written again after this long")
    read_back: bool = Field(default=True, description="read the point after a write and compare")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        low, high = self.limits
        within = f"the limits [{low:g}, {high:g}]"
        if not low < high:
            raise RefusedError(f"{within[4:]} leave nothing to write", "give the lower number first", "limits")
        if self.fail_safe is not None and not low <= self.fail_safe <= high:
            raise RefusedError(
                f"fail_safe {self.fail_safe:g} is outside {within}", "choose a value inside the limits", "fail_safe"
            )
        for place, value in enumerate(self.allowed or ()):
            if not low <= value <= high:
                raise RefusedError(
                    f"allowed value {value:g} is outside {within}", "choose a value inside the limits", "allowed", place
                )
        if self.allowed is not None and self.fail_safe is not None and self.fail_safe not in self.allowed:
            raise RefusedError(
                f"fail_safe {self.fail_safe:g} is not one of the allowed values",
                "add it to allowed, or choose another",
                "fail_safe",
            )
        return self
