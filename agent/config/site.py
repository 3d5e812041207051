"""The site: devices, units, telemetry, the plant it may be simulated on."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from agent.config.device import DeviceConfig
from agent.config.mqtt import MqttConfig
from agent.config.scalars import Duration, Slug, Strict
from agent.config.unit import UnitConfig


class PlantConfig(Strict):
    """A simulated process: ``module:Class`` and its arguments; each device that it stands for names its points."""

    use: str = Field(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$", description="module:Class")
    options: dict[str, float | int | str | bool] = Field(
        default_factory=dict, description="keyword arguments of the class"
    )
    points: dict[str, str] = Field(
        default_factory=dict,
        description="unit/point → the plant's point name; default: unit_point, then point, with - as _",
    )
    step: Duration = Field(default=10.0, ge=0.1, description="largest simulation step")


class SiteConfig(Strict):
    """One site: everything the agent needs to run."""

    site: Slug = Field(description="a name of a-z, 0-9 and -. It stands in every MQTT topic")
    agent: Slug = Field(
        default="gateway", description="a name of a-z, 0-9 and -. It tells several agents of one site apart"
    )
    title: str = Field(default="", max_length=120, description="the site in words")
    run_dir: Path = Field(
        default=Path("/run/poetd"), description="sockets and the shared image; relative to the site file"
    )
    state_dir: Path = Field(
        default=Path("/var/lib/poetd"),
        description="write journal, latches, learned values, telemetry buffer; relative to the site file",
    )
    python_path: list[Path] = Field(
        default=[Path()],
        description="folders with the site's own functions, relative to the site file; default: its own folder",
    )
    include: list[str] = Field(
        default_factory=list, description="unit files, with * allowed, relative to the site file"
    )
    devices: dict[Slug, DeviceConfig] = Field(default_factory=dict, description="every device, by the name points use")
    units: list[UnitConfig] = Field(
        default_factory=list, description="units given in the site file itself; most are included"
    )
    safety_period: Duration = Field(
        default=0.1, ge=0.01, le=10.0, description="how often interlocks are evaluated, besides every input change"
    )
    kernels: Literal["auto", "aot", "jit", "python"] = Field(
        default="auto", description="auto: compiled if poetd compile has run, else what suits the size"
    )
    worker_memory_mb: int = Field(
        default=512, ge=64, le=65_536, description="what the control functions may allocate beyond the start"
    )
    mqtt: MqttConfig | None = Field(default=None, description="telemetry; without it nothing is published")
    plant: PlantConfig | None = Field(default=None, description="what simulates the site")
