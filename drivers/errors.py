"""The error tree of the drivers. Every message says what happened, where, and what to do about it."""

from __future__ import annotations

from safety.values import PortError, WriteOutcome


class DriverError(PortError):
    """Root of everything a driver raises on purpose. ``outcome`` is how a write that raised it ended."""


class NotConnectedError(DriverError):
    """The endpoint cannot be reached (refused, reset, no route, closed)."""


class DeadlineError(DriverError):
    """The whole transaction did not finish in time; the connection was re-synchronised or dropped."""


class ProtocolError(DriverError):
    """The peer sent something that is not the protocol, or an answer to another question."""


class DeviceRefusedError(DriverError):
    """The device answered, and the answer is no (exception code, error status, access denied)."""

    outcome = WriteOutcome.REJECTED


class AuthenticationError(DriverError):
    """Wrong or missing credentials. Retried at the slowest rate only: hammering locks accounts."""


class AddressError(DriverError):
    """A point's address cannot exist on this kind of device. A configuration error."""

    outcome = WriteOutcome.REJECTED


class NotWritableError(DriverError):
    """The point cannot be written by its kind (an input register, a read-only node)."""

    outcome = WriteOutcome.REJECTED


class EncodingError(DriverError):
    """The value cannot be represented at the point's address: not finite, or out of range. Nothing was sent."""

    outcome = WriteOutcome.REJECTED
