"""An interlock: a condition over points, and the values it forces on outputs for as long as it is tripped."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from agent.config.scalars import Duration, PointName, PointRef, SafeValue, Slug, Strict


class InterlockConfig(Strict):
    """One row. An input that is bad, stale or missing counts as tripped."""

    name: PointName
    title: str = Field(default="", max_length=200, description="what is wrong when it trips, in words")
    when: str = Field(
        max_length=500, description="the condition that trips, such as: duct_static > 750 Pa or not fan_status"
    )
    delay: Duration = Field(default=0.0, description="how long the condition must hold before it trips")
    trip: dict[PointName, SafeValue] = Field(min_length=1, description="outputs and the values forced on them")
    latch: Literal["auto", "manual"] = Field(
        default="auto", description="manual: stays tripped until an operator resets it"
    )
    clear_when: str | None = Field(
        default=None, max_length=500, description="the condition that clears; default: the trip condition is false"
    )
    clear_delay: Duration = Field(default=0.0, description="how long the clear condition must hold")
    source: str = Field(default="", max_length=300, description="where the threshold comes from")


class PackUse(Strict):
    """Take rows from a pack in configs/interlocks: ``use: hvac.freeze_protection``."""

    use: str = Field(pattern=r"^[a-z0-9_-]+\.[a-z0-9_]+$", description="pack.interlock")
    bind: dict[PointName, PointRef] = Field(
        default_factory=dict, description="the pack's role names → this unit's points"
    )
    name: PointName | None = Field(
        default=None, description="another name for the row; with several rows it goes in front of each"
    )


class Pack(Strict):
    """A pack file: named rows, each with its source."""

    pack: Slug
    title: str = Field(default="", max_length=200)
    interlocks: dict[PointName, list[InterlockConfig]]
