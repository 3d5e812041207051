"""A device: one endpoint that a driver talks to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

from pydantic import BaseModel, Field, create_model, model_validator

from agent.config.scalars import Duration, RefusedError, Strict
from drivers.registry import installed_plugins


class DeviceBase(Strict):
    """The part of a device that no protocol changes."""

    title: str = Field(default="", max_length=120, description="the device in words")
    poll: Duration = Field(default=1.0, ge=0.01, description="how often all its points are read")

    @model_validator(mode="after")
    def _one_protocol(self) -> Self:
        given = [name for name in installed_plugins() if getattr(self, name, None) is not None]
        if len(given) != 1:
            names = ", ".join(sorted(installed_plugins()))
            found = ", ".join(given) or "none"
            raise RefusedError(f"a device needs exactly one protocol, found {found}", f"give exactly one of: {names}")
        return self

    @property
    def protocol(self) -> str:
        """The driver's name: the YAML key of the settings."""
        return next(name for name in installed_plugins() if getattr(self, name, None) is not None)

    @property
    def settings(self) -> BaseModel:
        """The driver's own settings model."""
        settings: BaseModel = getattr(self, self.protocol)
        return settings


if TYPE_CHECKING:
    DeviceConfig = DeviceBase
else:
    _fields: dict[str, Any] = {
        name: (plugin.settings | None, Field(default=None, description=f"how to reach a {name} device"))
        for name, plugin in installed_plugins().items()
    }
    DeviceConfig = create_model("DeviceConfig", __base__=DeviceBase, __module__=__name__, **_fields)
