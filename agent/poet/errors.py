"""The error tree of the POET loop. Every message says what happened, in which function, and what to do about it."""

from __future__ import annotations


class PoetError(Exception):
    """Root of everything the POET loop raises on purpose."""


class PerceiveError(PoetError):
    """An input cannot be believed: missing, not a number, out of range, of the wrong kind.

    ``causes`` lists every one.
    """

    def __init__(self, function: str, causes: tuple[str, ...]) -> None:
        super().__init__(f"{function}: {'; '.join(causes)}")
        self.function = function
        self.causes = causes


class OperateError(PoetError):
    """The function gave no usable answer."""


class DeadlineExceededError(OperateError, TimeoutError):
    """The function did not answer in time and was stopped."""


class StillRunningError(OperateError):
    """A call that missed its deadline has not ended yet; new calls are refused until it has."""


class CircuitOpenError(OperateError):
    """The function failed too often in a row; calls are refused for a while."""


class IsolatedCallError(OperateError):
    """The child process of ``isolation="process"`` died, or its result cannot be sent back."""


class EnforceError(PoetError):
    """The function's result is not allowed. ``causes`` lists every reason."""

    def __init__(self, function: str, causes: tuple[str, ...]) -> None:
        super().__init__(f"{function}: {'; '.join(causes)}")
        self.function = function
        self.causes = causes


class SettingsError(PoetError):
    """The decorator's arguments make no sense. Raised when the function is decorated, never at a call."""


class PluginError(PoetError):
    """A domain plugin is missing, is claimed twice, or breaks its interface."""


class FunctionError(PoetError):
    """A control function named in a site file cannot be used."""


class FunctionNotFoundError(FunctionError):
    """There is no such module or function."""


class FunctionImportError(FunctionError):
    """The module of the function fails while it is imported."""


class FunctionShapeError(FunctionError):
    """The function's parameters or result cannot be bound to points."""
