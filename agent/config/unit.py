"""A unit: one zone or one tool, in one file."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from agent.config.interlock import InterlockConfig, PackUse
from agent.config.output import OutputConfig
from agent.config.point import PointConfig
from agent.config.scalars import Duration, PointName, PointRef, Slug, Strict
from agent.config.train import ParameterConfig, TrainConfig


class InputBinding(Strict):
    """Where one parameter of the control function comes from."""

    point: PointRef
    unit: str | None = Field(default=None, description="the unit the function expects; default: the domain's, else the point's own")
    required: bool = Field(default=True, description="if it is bad, the unit's outputs go to fail-safe; else the function sees NaN")


class FallbackConfig(Strict):
    """What happens when the control function fails: hold the last good command for so many scans, then fail-safe."""

    hold: int = Field(default=0, ge=0, le=1000)


class ComfortConfig(Strict):
    """How reports judge a zone."""

    temperature: PointRef
    low: float = Field(default=20.0, description="degrees Celsius")
    high: float = Field(default=26.0, description="degrees Celsius")
    occupied: PointRef | None = None


class UnitConfig(Strict):
    """A zone or a tool: points, a control function, outputs with envelopes, interlocks, and what may be learned."""

    zone: Slug | None = None
    tool: Slug | None = None
    title: str = Field(default="", max_length=120)
    function: str | None = Field(
        default=None, description="domain.function or module:function; none: the unit is only watched (and protected)"
    )
    scan: Duration = Field(default=5.0, ge=0.01, le=3600.0)
    deadline: Duration | None = Field(default=None, gt=0.0, description="the function must answer within; default: a quarter of the shortest scan, at most 250ms")
    points: dict[PointName, PointConfig] = Field(default_factory=dict)
    inputs: dict[str, PointRef | float | InputBinding] = Field(
        default_factory=dict, description="function parameter → point or constant; default: the point of the same name"
    )
    outputs: dict[PointName, OutputConfig] = Field(default_factory=dict)
    exclusive: list[tuple[PointName, PointName]] = Field(default_factory=list, description="pairs of outputs that may not be on together")
    interlocks: list[InterlockConfig | PackUse] = Field(default_factory=list)
    parameters: dict[PointName, ParameterConfig | float] = Field(default_factory=dict)
    fallback: FallbackConfig = FallbackConfig()
    train: TrainConfig | None = None
    comfort: ComfortConfig | None = None

    @model_validator(mode="after")
    def _one_name(self) -> Self:
        if (self.zone is None) == (self.tool is None):
            raise ValueError("a unit file begins with zone: NAME or tool: NAME, exactly one of them")
        return self

    @property
    def name(self) -> str:
        """The unit's name, the same in YAML, logs and MQTT."""
        return self.zone or self.tool or ""

    @property
    def kind(self) -> str:
        """``zone`` or ``tool``."""
        return "zone" if self.zone is not None else "tool"
