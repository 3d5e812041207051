"""The errors of the Train stage: one tree, so that a caller can catch ``TrainError`` and keep the factory values."""

from __future__ import annotations


class TrainError(Exception):
    """Root of everything Train raises on purpose."""


class MessageError(TrainError):
    """A line between core and the train worker is not a message of the protocol, or is too long."""


class StoreError(TrainError):
    """The learning store could not be read or written; the text names the file and what to do."""


class StoreBusyError(StoreError):
    """Another process holds the store for writing: there is one writer at a time."""


class StoreCorruptError(StoreError):
    """The file is damaged or not a learning store; a writer that opens it again moves it aside."""
