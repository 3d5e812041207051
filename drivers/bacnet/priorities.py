"""Who holds a commandable object, at which level: its priority array read back."""

from __future__ import annotations

from typing import Final, NamedTuple

from drivers.bacnet import tags
from drivers.bacnet.capability import read_property
from drivers.bacnet.names import PROPERTIES
from drivers.bacnet.peer import Peer
from drivers.bacnet.services import ObjectId
from drivers.bacnet.tags import MalformedError

LEVELS: Final = 16
_LEVEL_NAMES: Final = {1: "manual life safety", 2: "automatic life safety", 5: "critical equipment",
                       6: "minimum on/off", 8: "manual operator"}  # fmt: skip
"""The levels the standard gives a meaning to (135 clause 19.2.1.1)."""


class Holder(NamedTuple):
    """Who commands an object: ``level`` 1 to 16 and the raw value there, or level None: nobody, it is at its default."""

    level: int | None
    value: float

    def __str__(self) -> str:
        if self.level is None:
            return "nobody (relinquish default)"
        name = _LEVEL_NAMES.get(self.level)
        return f"priority {self.level}{f' ({name})' if name else ''} with {self.value:g}"


async def read_priorities(peer: Peer, target: ObjectId) -> list[float | None]:
    """The 16 slots, the highest priority first; None for an empty one. Raises DriverError."""
    _, result = await read_property(peer, target, PROPERTIES["priorityArray"])
    values = result.values
    if len(values) != LEVELS:
        raise MalformedError(f"{peer.where}: a priority array of {len(values)} slots, must be {LEVELS}")
    slots: list[float | None] = []
    for value in values:
        # A choice with a context tag stands for data types that are no numbers here.
        slots.append(None if value.tag == tags.NULL else value.number)
    return slots


def holder(slots: list[float | None]) -> Holder:
    """The lowest level number that is not empty wins."""
    for level, value in enumerate(slots, start=1):
        if value is not None:
            return Holder(level, value)
    return Holder(None, float("nan"))
