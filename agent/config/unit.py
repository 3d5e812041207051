"""A unit: one zone or one tool, in one file."""

from __future__ import annotations

from typing import Annotated, Any, Self

from pydantic import Discriminator, Field, Tag, model_validator

from agent.config.interlock import InterlockConfig, PackUse
from agent.config.output import OutputConfig
from agent.config.point import PointConfig
from agent.config.scalars import Duration, Level, PointName, PointRef, RefusedError, Slug, Strict
from agent.config.train import ParameterConfig, TrainConfig


class InputBinding(Strict):
    """Where one parameter of the control function comes from."""

    point: PointRef
    unit: str | None = Field(
        default=None, description="the unit the function expects; default: the domain's, else the point's own"
    )
    required: bool = Field(
        default=True, description="if it is bad, the unit's outputs go to fail-safe; else the function sees NaN"
    )


def _kind_of_interlock(value: Any) -> str:
    return (
        "<PackUse>"
        if isinstance(value, PackUse) or (isinstance(value, dict) and "use" in value)
        else "<InterlockConfig>"
    )


def _kind_of_input(value: Any) -> str:
    if isinstance(value, str) and value not in ("on", "off"):
        return "<point>"
    return "<InputBinding>" if isinstance(value, dict | InputBinding) else "<constant>"


def _kind_of_parameter(value: Any) -> str:
    return "<ParameterConfig>" if isinstance(value, dict | ParameterConfig) else "<constant>"


InterlockRow = Annotated[
    Annotated[InterlockConfig, Tag("<InterlockConfig>")] | Annotated[PackUse, Tag("<PackUse>")],
    Discriminator(_kind_of_interlock),
]
Input = Annotated[
    Annotated[PointRef, Tag("<point>")]
    | Annotated[Level, Tag("<constant>")]
    | Annotated[InputBinding, Tag("<InputBinding>")],
    Discriminator(_kind_of_input),
]
Parameter = Annotated[
    Annotated[ParameterConfig, Tag("<ParameterConfig>")] | Annotated[float, Tag("<constant>")],
    Discriminator(_kind_of_parameter),
]
# Tags stand in <> because they appear in the path of an error, where a key could have any other name.


class FallbackConfig(Strict):
    """What happens when the control function fails: hold the last good command for so many scans, then fail-safe."""

    hold: int = Field(
        default=0, ge=0, le=1000, description="scans for which the last good command stands; 0: fail-safe at once"
    )


class ComfortConfig(Strict):
    """How reports judge a zone."""

    temperature: PointRef = Field(description="the zone's air temperature: a point of this unit, or unit/point")
    low: float = Field(default=20.0, description="degrees Celsius")
    high: float = Field(default=26.0, description="degrees Celsius")
    occupied: PointRef | None = Field(
        default=None, description="above 0.5 somebody is there; only then comfort counts. Without it: always"
    )


class UnitConfig(Strict):
    """A zone or a tool: points, a control function, outputs with envelopes, interlocks, and what may be learned."""

    zone: Slug | None = Field(default=None, description="a name of a-z, 0-9 and -. Of a zone")
    tool: Slug | None = Field(default=None, description="a name of a-z, 0-9 and -. Of a tool")
    title: str = Field(default="", max_length=120, description="the unit in words")
    function: str | None = Field(
        default=None, description="domain.function or module:function; none: the unit is only watched (and protected)"
    )
    scan: Duration = Field(default=5.0, ge=0.01, le=3600.0, description="how often the function is called")
    deadline: Duration | None = Field(
        default=None,
        gt=0.0,
        description="the function must answer within; default: a quarter of the shortest scan, at most 250ms",
    )
    points: dict[PointName, PointConfig] = Field(default_factory=dict, description="what is read and written")
    points_csv: str | None = Field(
        default=None,
        min_length=1,
        max_length=200,
        description="a CSV file of more points, relative to this file; columns: name, device, unit, low, high, "
        "any other key of a point, and the address as PROTOCOL.KEY, such as modbus.holding",
    )
    inputs: dict[str, Input] = Field(
        default_factory=dict, description="function parameter → point or constant; default: the point of the same name"
    )
    outputs: dict[PointName, OutputConfig] = Field(
        default_factory=dict, description="writable point → its envelope; what is not here is never written"
    )
    exclusive: list[tuple[PointName, PointName]] = Field(
        default_factory=list, description="pairs of outputs that may not be on together"
    )
    interlocks: list[InterlockRow] = Field(
        default_factory=list, max_length=256, description="what overrides the function, own rows and rows of packs"
    )
    critical: bool = Field(
        default=False,
        description="run both channels of the safety layer on this unit's outputs and interlocks; if they disagree, "
        "every output goes to fail-safe until an operator resets UNIT/channels_disagree",
    )
    parameters: dict[PointName, Parameter] = Field(
        default_factory=dict,
        description="function parameter → a number, or a value with the range it may be learned in",
    )
    fallback: FallbackConfig = Field(default=FallbackConfig(), description="what follows when the function fails")
    train: TrainConfig | None = Field(default=None, description="what the unit learns; none: nothing")
    comfort: ComfortConfig | None = Field(default=None, description="how reports judge the zone")

    @model_validator(mode="after")
    def _one_name(self) -> Self:
        if (self.zone is None) == (self.tool is None):
            raise RefusedError("a unit is either a zone or a tool", "begin the file with zone: NAME or with tool: NAME")
        return self

    @property
    def name(self) -> str:
        """The unit's name, the same in YAML, logs and MQTT."""
        return self.zone or self.tool or ""

    @property
    def kind(self) -> str:
        """``zone`` or ``tool``."""
        return "zone" if self.zone is not None else "tool"

    @property
    def interlock_rows(self) -> tuple[InterlockConfig, ...]:
        """The interlocks in order, packs taken apart: what ``agent.config.load`` returns has no other kind."""
        rows = tuple(row for row in self.interlocks if isinstance(row, InterlockConfig))
        if len(rows) != len(self.interlocks):
            raise TypeError(
                f"unit {self.name}: interlock packs are not expanded; read the site with agent.config.load()"
            )
        return rows
