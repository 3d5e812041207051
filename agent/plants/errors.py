"""The error tree of plants. Every message says what is wrong and what to do about it."""

from __future__ import annotations


class PlantError(Exception):
    """Root of everything this package raises on purpose."""


class PlantNotFoundError(PlantError):
    """There is no such module or class, or it cannot be imported or built."""


class PlantBindingError(PlantError):
    """A point of the site has no counterpart on the plant, or cannot be served there."""


class PlantFailedError(PlantError):
    """The plant raised, or its readings are incomplete."""
