"""Which requests read a device's points: pure planning over objects, no input or output.

A poll asks for the wanted properties of every object and, where a present value is wanted, for its status. The plan
starts with as few ReadPropertyMultiple as the device's answers have room for, and only ever becomes more cautious:
fewer objects at once, cuts around an object that spoils its request, single ReadProperty requests.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from enum import Enum
from typing import Final

import numpy as np
import numpy.typing as npt

from drivers.bacnet import services
from drivers.bacnet.apdu import MAX_APDU, Service
from drivers.bacnet.image import UNKNOWN
from drivers.bacnet.names import OUT_OF_SERVICE, PRESENT_VALUE, RELIABILITY, STATUS_FLAGS
from drivers.bacnet.services import ObjectId
from drivers.bacnet.settings import WRITTEN_AS, BacnetAddress
from drivers.bacnet.shapes import Shape

RETRY_S: Final = 60.0
"""Control seconds until a quarantined object is asked again."""
STRIKES: Final = 2
"""Polls in a row without a usable answer after which a request is asked in smaller parts."""
_HEADER: Final = 3
_PER_OBJECT: Final = 7
_PER_PROPERTY: Final = 4
_VALUE_SIZES: Final = {"real": 5, "double": 10, "enumerated": 4, "unsigned": 5, "signed": 5}
"""Bytes of a value in an answer; an error in its place takes 4."""


class Status(Enum):
    """How an object's status is asked for."""

    NONE = ()
    """Not at all: no present value of it is wanted, or it has nothing that tells."""
    FLAGS = (STATUS_FLAGS,)
    PARTS = (OUT_OF_SERVICE, RELIABILITY)
    """An old object without status flags."""


class Layout:
    """The fixed part: the points' objects, and where each property's value goes."""

    def __init__(self, addresses: Sequence[BacnetAddress]) -> None:
        self.objects: list[ObjectId] = []
        self.wanted: list[list[int]] = []
        """Per object: its wanted properties, without status."""
        self.targets: dict[tuple[int, int], list[int]] = {}
        """(object, property) → the points that show it."""
        self.positions: dict[ObjectId, int] = {}
        self.value_sizes: list[int] = []
        object_of = []
        for point, address in enumerate(addresses):
            kind, instance, prop = address.key
            position = self.positions.setdefault((kind, instance), len(self.objects))
            if position == len(self.objects):
                self.objects.append((kind, instance))
                self.wanted.append([])
                self.value_sizes.append(_VALUE_SIZES[WRITTEN_AS.get(address.type, "unsigned")])
            targets = self.targets.setdefault((position, prop), [])
            if not targets:
                self.wanted[position].append(prop)
            targets.append(point)
            object_of.append(position)
        self.object_of = np.array(object_of, np.intp)
        self.has_status = np.array([address.key[2] == PRESENT_VALUE for address in addresses], np.bool_)


class Query:
    """One request. ``objects`` are positions in the layout; ``expected`` says which properties the answer must bring."""

    __slots__ = ("body", "expected", "objects", "read_at", "service", "shape", "strikes")

    def __init__(self, layout: Layout, service: Service, wanted: Sequence[tuple[int, Sequence[int]]]) -> None:
        self.service = service
        self.objects = [position for position, _ in wanted]
        self.expected = {
            (layout.objects[position], prop): position for position, properties in wanted for prop in properties
        }
        if service is Service.READ:
            ((target, prop),) = self.expected
            self.body = services.read(target, prop)
        else:
            self.body = services.read_multiple(
                (layout.objects[position], properties) for position, properties in wanted
            )
        self.shape: Shape | None = None
        self.read_at = -math.inf
        """Control time of the poll that sent it last."""
        self.strikes = 0
        """Polls in a row in which this request had no usable answer, and others had."""


class Plan:
    """What is known of the device so far, and the requests that follow from it."""

    def __init__(self, layout: Layout, max_objects: int | None = None) -> None:
        self.layout = layout
        self.multiple = True
        """Whether the device has ReadPropertyMultiple."""
        self.status = [Status.FLAGS if PRESENT_VALUE in properties else Status.NONE for properties in layout.wanted]
        self.quarantined: dict[int, float] = {}
        """Object → control time of the next try."""
        self.refused: dict[int, str] = {}
        """Points the device has no number for, and why."""
        self.max_objects = max_objects
        self._room = MAX_APDU - _HEADER
        self._unasked_flags: npt.NDArray[np.uint8] | None = None
        self._cuts: set[int] = set()
        self._singly: set[int] = set()
        self._queries: list[Query] | None = None

    @property
    def queries(self) -> list[Query]:
        """The requests of one poll."""
        if self._queries is None:
            self._queries = self.requests(
                position for position in range(len(self.layout.objects)) if position not in self.quarantined
            )
        return self._queries

    def changed(self) -> None:
        """Make the requests anew before the next poll."""
        self._queries = None

    def device_is(self, max_apdu: int, multiple: bool) -> None:
        """Start anew with what the device says of itself: how long its answers can be, and which service it has."""
        self._room = min(max_apdu, MAX_APDU) - _HEADER
        self.multiple = multiple
        self.changed()

    def requests(self, positions: Iterable[int]) -> list[Query]:
        """The requests for some objects, in order."""
        queries: list[Query] = []
        together: list[tuple[int, Sequence[int]]] = []
        room = self._room
        for position in positions:
            properties = self._properties(position)
            if not self.multiple or position in self._singly:
                queries += [Query(self.layout, Service.READ, [(position, (prop,))]) for prop in properties]
                continue
            size = self._answer_size(position, properties)
            full = size > room or (self.max_objects is not None and len(together) >= self.max_objects)
            if together and (full or position in self._cuts):
                queries.append(Query(self.layout, Service.READ_MULTIPLE, together))
                together, room = [], self._room
            together.append((position, properties))
            room -= size
        if together:
            queries.append(Query(self.layout, Service.READ_MULTIPLE, together))
        return queries

    def shrink(self, count: int) -> None:
        """The device refused to answer for ``count`` objects at once: ask for half as many from now on."""
        fewer = max(1, count // 2)
        if self.max_objects is None or fewer < self.max_objects:
            self.max_objects = fewer
            self.changed()

    def divide(self, query: Query) -> bool:
        """Ask in smaller parts next time. False if the request is for one property already."""
        if query.service is Service.READ:
            return False
        if len(query.objects) > 1:
            self._cuts.add(query.objects[len(query.objects) // 2])
        else:
            self._singly.add(query.objects[0])
        self.changed()
        return True

    def no_multiple(self) -> None:
        """The device does not have ReadPropertyMultiple."""
        self.multiple = False
        self.changed()

    @property
    def unasked_flags(self) -> npt.NDArray[np.uint8]:
        """What the status of each object counts as until it is read: unknown where it is asked for."""
        if self._unasked_flags is None:
            self._unasked_flags = np.array([UNKNOWN if status.value else 0 for status in self.status], np.uint8)
        return self._unasked_flags

    def ask_status(self, position: int, status: Status) -> None:
        """Ask for an object's status in another way from now on."""
        self.status[position] = status
        self._unasked_flags = None
        self.changed()

    def quarantine(self, position: int, now: float) -> bool:
        """Leave an object alone for a while; True if it was not so before. ``now`` in control seconds."""
        new = position not in self.quarantined
        self.quarantined[position] = now + RETRY_S
        self.changed()
        return new

    def due_retries(self, now: float) -> list[Query]:
        """Requests for at most one quarantined object whose time has come: a wrong one costs a whole deadline."""
        for position, due in self.quarantined.items():
            if due <= now:
                return self.requests([position])
        return []

    def release(self, position: int) -> bool:
        """An object has answered; True if it was quarantined."""
        if self.quarantined.pop(position, None) is None:
            return False
        self.changed()
        return True

    def _properties(self, position: int) -> list[int]:
        wanted = self.layout.wanted[position]
        return wanted + [prop for prop in self.status[position].value if prop not in wanted]

    def _answer_size(self, position: int, properties: Sequence[int]) -> int:
        value = self.layout.value_sizes[position]
        return _PER_OBJECT + sum(_PER_PROPERTY + (4 if prop == STATUS_FLAGS else value) for prop in properties)
