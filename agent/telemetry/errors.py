"""The error tree of the telemetry."""

from __future__ import annotations


class TelemetryError(Exception):
    """Root of everything the telemetry raises on purpose."""


class TopicError(TelemetryError, ValueError):
    """A name that must not become part of a topic, or a topic nobody may publish to."""


class PayloadError(TelemetryError, ValueError):
    """Something that cannot be written as a payload, such as a time that is not finite."""


class CredentialError(TelemetryError):
    """A password, key or certificate file is missing, unreadable, or readable by others."""


class BufferCorruptError(TelemetryError):
    """The buffer file is not one of ours, damaged, or of another version."""


class ConnectError(TelemetryError):
    """No connection to the broker. ``hopeless``: trying soon cannot help (wrong password, certificate, ban)."""

    def __init__(self, message: str, *, hopeless: bool = False) -> None:
        super().__init__(message)
        self.hopeless = hopeless


class VersionRefusedError(ConnectError):
    """The broker does not speak this version of MQTT, or does not answer at all, as some old ones do then."""


class ConnectionEndedError(ConnectError):
    """An open connection ended: by the broker, the network, or a missing keep-alive answer."""


class EmbeddedBrokerError(TelemetryError):
    """The embedded broker could not be started."""
