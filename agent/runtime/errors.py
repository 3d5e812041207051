"""The error tree of the runtime."""

from __future__ import annotations


class RuntimeFault(Exception):
    """Root of everything the runtime raises on purpose."""


class ImageError(RuntimeFault):
    """The shared image cannot be created, mapped, or is of another build."""


class WorkerError(RuntimeFault):
    """The operate worker answered something that is not its protocol, or cannot be started."""


class ControlSocketError(RuntimeFault):
    """The running agent cannot be asked: no socket, no answer, or a refusal."""


class StateFolderError(RuntimeFault):
    """The state or run folder cannot be used."""
