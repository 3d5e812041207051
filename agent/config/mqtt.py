"""Telemetry over MQTT: the broker, its credentials, and the store-and-forward buffer."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from pydantic import Field, model_validator

from agent.config.scalars import Duration, RefusedError, Strict


class TlsConfig(Strict):
    """TLS to the broker. Without ``ca_file`` the system's trust store is used."""

    ca_file: Path | None = Field(default=None, description="certificates that the broker's must be signed by")
    certificate_file: Path | None = Field(default=None, description="our certificate, where the broker wants one")
    key_file: Path | None = Field(default=None, description="its key; readable by the daemon's user only")


class MqttConfig(Strict):
    """Where telemetry goes. The password is never in the YAML: only the name of a file that holds it."""

    host: str = Field(default="127.0.0.1", description="the broker's name or address")
    port: int = Field(default=1883, ge=1, le=65535, description="1883, or 8883 with TLS")
    username: str | None = Field(default=None, description="the name the broker knows this agent by")
    password_file: Path | None = Field(
        default=None, description="a file that holds the password; readable by the daemon's user only"
    )
    tls: TlsConfig | None = Field(default=None, description="TLS to the broker; {} uses the system's trust store")
    keepalive: Duration = Field(default=30.0, ge=5.0, le=600.0, description="how often a quiet connection is checked")
    heartbeat: Duration = Field(
        default=60.0, ge=1.0, description="unchanged points are published again after this long"
    )
    max_rows: int = Field(
        default=200_000,
        ge=100,
        le=10_000_000,
        description="messages kept on disk while the broker is away; oldest dropped first",
    )
    max_bytes: int = Field(
        default=256 * 1024 * 1024, ge=65_536, description="bytes kept on disk while the broker is away"
    )
    in_flight: int = Field(default=50, ge=1, le=1000, description="messages sent before the first is acknowledged")

    @model_validator(mode="after")
    def _password_needs_user(self) -> Self:
        if self.password_file is not None and self.username is None:
            raise RefusedError("password_file without username", "give both or none", "password_file")
        return self
