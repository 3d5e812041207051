"""The error tree of the safety layer. Every message says what was refused, where, and what to do about it."""

from __future__ import annotations


class SafetyError(Exception):
    """Root of everything the safety layer raises on purpose (``values.CommandForgeryError`` is a TypeError: a bug, not
    a state).
    """


class UnitError(SafetyError):
    """An unknown unit code, or two units that measure different things."""


class EnvelopeError(SafetyError):
    """An envelope, or a pair of outputs, that contradicts itself."""


class InterlockError(SafetyError):
    """An interlock that cannot be built, or a name that no interlock has."""


class ExpressionError(InterlockError):
    """A condition that does not parse or mixes units. ``column`` counts from 1 within ``text``."""

    def __init__(self, message: str, text: str, column: int) -> None:
        super().__init__(f"column {column} of {text!r}: {message}")
        self.message = message
        self.text = text
        self.column = column


class DeniedError(SafetyError):
    """The gate refuses a write. Nothing was sent."""


class NoEnvelopeError(DeniedError):
    """Default deny: the point has no envelope."""


class LimitError(DeniedError):
    """The value is not finite, outside the limits, or not one of the allowed values."""


class PriorityError(DeniedError):
    """BACnet priorities 1 to 8 belong to people and life safety."""


class RelinquishError(DeniedError):
    """The point may not be relinquished, or what it held before is not known."""


class StoreError(SafetyError):
    """A durable file cannot be opened, read or written."""


class DamagedStoreError(StoreError):
    """A durable file is there but is not what was written: truncated, overwritten, or another program's."""
