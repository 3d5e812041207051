"""A point: where a value lives on a device, its unit, its believable range, and how Perceive treats it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

from pydantic import BaseModel, Field, create_model, model_validator

from agent.config.scalars import Duration, Rate, RefusedError, Slug, Strict
from drivers.registry import installed_plugins


class PointBase(Strict):
    """The part of a point that no protocol changes."""

    device: Slug = Field(description="the device, by its name in the site file")
    title: str = Field(default="", max_length=120, description="the point in words")
    unit: str = Field(description="UCUM code of the value as scaled: Cel, [degF], Pa, %, 1, kW ...", max_length=32)
    range: tuple[float, float] = Field(description="what the value can believably be; outside it is bad quality")
    stale_after: Duration = Field(default=30.0, gt=0.0, description="older than this is bad quality")
    max_change: Rate | None = Field(
        default=None, description="faster than this is bad quality: no real process does it"
    )
    stuck_after: Duration | None = Field(
        default=None, gt=0.0, description="not changing at all for this long is uncertain quality"
    )
    smooth: Duration | None = Field(
        default=None, gt=0.0, description="time constant of a first-order filter on good values"
    )
    fallback: float | None = Field(default=None, description="stands in for a bad value, with uncertain quality")
    writable: bool = Field(
        default=False, description="whether an output of a unit may write it; then it needs an envelope under outputs"
    )
    priority: int | None = Field(
        default=None, ge=9, le=16, description="BACnet write priority; 1-8 belong to people and life safety"
    )

    @model_validator(mode="after")
    def _one_address(self) -> Self:
        given = [name for name in installed_plugins() if getattr(self, name, None) is not None]
        if len(given) != 1:
            names = ", ".join(sorted(installed_plugins()))
            found = ", ".join(given) or "none"
            raise RefusedError(f"a point needs exactly one address, found {found}", f"give exactly one of: {names}")
        low, high = self.range
        if not low < high:
            raise RefusedError(f"range [{low:g}, {high:g}] is empty", "give the lower number first", "range")
        if self.fallback is not None and not low <= self.fallback <= high:
            message = f"fallback {self.fallback:g} is outside the range [{low:g}, {high:g}]"
            raise RefusedError(message, "choose a believable value", "fallback")
        return self

    @property
    def protocol(self) -> str:
        """The driver's name: the YAML key of the address."""
        return next(name for name in installed_plugins() if getattr(self, name, None) is not None)

    @property
    def address(self) -> BaseModel:
        """The driver's own address model."""
        address: BaseModel = getattr(self, self.protocol)
        return address


if TYPE_CHECKING:
    PointConfig = PointBase
else:
    _fields: dict[str, Any] = {
        name: (plugin.address | None, Field(default=None, description=f"address on a {name} device"))
        for name, plugin in installed_plugins().items()
    }
    PointConfig = create_model("PointConfig", __base__=PointBase, __module__=__name__, **_fields)
