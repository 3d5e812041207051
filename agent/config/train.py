"""What a unit may learn: parameters with hard ranges, and the feedback that judges them."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from agent.config.scalars import Duration, PointName, PointRef, RefusedError, Strict


class ParameterConfig(Strict):
    """A keyword parameter of the control function that is set from the parameter store."""

    value: float = Field(description="the factory value")
    range: tuple[float, float] = Field(description="learning can never leave it")
    max_step: float | None = Field(
        default=None, gt=0.0, description="largest change per learning step; default: a tenth of the range"
    )

    @model_validator(mode="after")
    def _inside(self) -> Self:
        low, high = self.range
        if not low < high:
            raise RefusedError(f"range [{low:g}, {high:g}] is empty", "give the lower number first", "range")
        if not low <= self.value <= high:
            raise RefusedError(
                f"value {self.value:g} is outside the range [{low:g}, {high:g}]",
                "choose a value inside the range",
                "value",
            )
        return self


class EwmaConfig(Strict):
    """Run-to-run EWMA control of a parameter: steers the measured feedback to its target (Ingolfsson & Sachs 1993)."""

    parameter: PointName = Field(description="one of the unit's parameters")
    feedback: PointRef = Field(description="the point whose mean over a window is the result")
    target: float | PointRef = Field(description="what the mean should be: a number, or a point")
    gain: float = Field(description="change of the feedback per unit of the parameter, from experience; not zero")
    weight: float = Field(
        default=0.3, gt=0.0, le=1.0, description="the EWMA's lambda; stable while 0 < weight * true gain / gain < 2"
    )
    window: Duration = Field(default=3600.0, ge=1.0, description="one learning step per window")
    only_when: PointRef | None = Field(default=None, description="only scans in which this point is above 0.5 count")

    @model_validator(mode="after")
    def _gain(self) -> Self:
        if self.gain == 0.0:
            raise RefusedError(
                "gain must not be 0", "say how far the feedback moves when the parameter moves by one", "gain"
            )
        return self


class TrainConfig(Strict):
    """Learning of one unit. ``off`` records feedback but changes nothing."""

    mode: Literal["off", "on"] = Field(default="on", description="off: feedback is recorded, nothing is changed")
    ewma: EwmaConfig = Field(description="the learner")
