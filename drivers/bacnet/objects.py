"""A server's objects: answers the property services of one device. No sockets; values come and go through functions."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from drivers.bacnet import apdu, tags
from drivers.bacnet.image import OUT_OF_SERVICE
from drivers.bacnet.names import DEVICE, PROPERTIES, object_name
from drivers.bacnet.services import IAm, ObjectId
from drivers.bacnet.settings import OUTPUTS, WRITTEN_AS, BacnetAddress
from drivers.bacnet.tags import MalformedError, Reader, Value
from drivers.errors import AddressError

P: Final = PROPERTIES
LEVELS: Final = 16
LOWEST_PRIORITY: Final = 16
NO_SEGMENTATION: Final = 3
NO_UNITS: Final = 95
ALL_PROPERTIES: Final = 8
MOST_REAL: Final = 3.402_823_4e38
PRIVATE_VENDOR: Final = 0xFFFF
SERVICES_SUPPORTED: Final = frozenset((5, 12, 14, 15, 34))
"""Bits of Protocol_Services_Supported: SubscribeCOV, ReadProperty, ReadPropertyMultiple, WriteProperty, Who-Is."""
_READ_MULTIPLE_BIT: Final = 14
_NUMBER_TAGS: Final = {"real": tags.REAL, "double": tags.DOUBLE, "enumerated": tags.ENUMERATED,
                       "unsigned": tags.UNSIGNED, "signed": tags.SIGNED}  # fmt: skip
_INPUT_TYPES: Final = {"binaryInput": tags.ENUMERATED, "multiStateInput": tags.UNSIGNED}


class PropertyError(Exception):
    """The request ends in an Error: class and code."""

    def __init__(self, error_class: int, code: int) -> None:
        self.error = (error_class, code)
        super().__init__(f"{error_class} {code}")


UNKNOWN_OBJECT: Final = (1, 31)
UNKNOWN_PROPERTY: Final = (2, 32)
WRITE_DENIED: Final = (2, 40)
BAD_TYPE: Final = (2, 9)
OUT_OF_RANGE: Final = (2, 37)
BAD_INDEX: Final = (2, 42)
NO_ARRAY: Final = (2, 50)


@dataclass(slots=True)
class BacnetObject:
    """One object that a server shows. ``read`` returns its present value; ``write`` takes it, or raises ValueError.

    Without ``write`` it cannot be written. ``commandable`` objects have a priority array: ``write`` gets the value of
    the highest priority in it, or ``default`` once nobody commands. ``flags`` are status flags as on the wire.
    """

    address: BacnetAddress
    read: Callable[[], float]
    write: Callable[[float], None] | None = None
    commandable: bool = True
    default: float = 0.0
    flags: int = 0
    slots: list[float | None] = field(default_factory=lambda: [None] * LEVELS)

    @property
    def identifier(self) -> ObjectId:
        """Type and instance."""
        return self.address.key[:2]

    @property
    def has_priorities(self) -> bool:
        """Whether the object has a priority array."""
        return self.write is not None and (self.commandable or self.address.type in OUTPUTS)

    @property
    def tag(self) -> int:
        """The data type of its present value."""
        kind = WRITTEN_AS.get(self.address.type)
        return _INPUT_TYPES.get(self.address.type, tags.REAL) if kind is None else _NUMBER_TAGS[kind]

    def encode(self, value: float) -> bytes:
        """A present value with its tag; what the data type cannot hold is shown as its nearest."""
        if self.tag == tags.DOUBLE:
            return tags.application(self.tag, value)
        if self.tag == tags.REAL:
            return tags.application(self.tag, max(-MOST_REAL, min(value, MOST_REAL)) if math.isfinite(value) else value)
        least, most = (-(2**31), 2**31 - 1) if self.tag == tags.SIGNED else (0, 2**32 - 1)
        return tags.application(self.tag, max(least, min(round(value), most)) if math.isfinite(value) else 0)

    def status(self) -> bytes:
        """The status flags with their tag."""
        return tags.head(tags.BITS, 2) + bytes((4, self.flags))

    def put(self, value: Value, priority: int) -> None:
        """Take a written value, or NULL. Raises PropertyError."""
        if self.write is None:
            raise PropertyError(*WRITE_DENIED)
        if value.tag not in (self.tag, tags.NULL) or (value.tag == tags.NULL and not self.has_priorities):
            raise PropertyError(*BAD_TYPE)
        if not 1 <= priority <= LEVELS:
            raise PropertyError(*OUT_OF_RANGE)
        before = list(self.slots)
        if self.has_priorities:
            self.slots[priority - 1] = None if value.tag == tags.NULL else value.number
            effective = next((slot for slot in self.slots if slot is not None), self.default)
        else:
            effective = value.number
        try:
            self.write(effective)
        except ValueError:
            self.slots[:] = before
            raise PropertyError(*OUT_OF_RANGE) from None

    def property(self, number: int) -> bytes | list[bytes]:
        """A property's value with its tag, or an array's elements. Raises PropertyError."""
        if number == P["presentValue"]:
            return self.encode(self.read())
        if number == P["statusFlags"]:
            return self.status()
        if number == P["outOfService"]:
            return tags.application(tags.BOOLEAN, bool(self.flags & OUT_OF_SERVICE))
        if number == P["priorityArray"] and self.has_priorities:
            return [b"\x00" if slot is None else self.encode(slot) for slot in self.slots]
        if number == P["relinquishDefault"] and self.has_priorities:
            return self.encode(self.default)
        if number == P["eventState"]:
            return tags.application(tags.ENUMERATED, 0)
        if number == P["units"] and self.tag == tags.REAL:
            return tags.application(tags.ENUMERATED, NO_UNITS)
        return identity(self.identifier, number)


def identity(target: ObjectId, number: int) -> bytes:
    """What every object has: identifier, name, type. Raises PropertyError for any other property."""
    if number == P["objectIdentifier"]:
        return tags.application(tags.OBJECT_ID, target[0] << 22 | target[1])
    if number == P["objectName"]:
        return tags.application_text(object_name(*target).replace(",", " "))
    if number == P["objectType"]:
        return tags.application(tags.ENUMERATED, target[0])
    raise PropertyError(*UNKNOWN_PROPERTY)


class ObjectTable:
    """All objects of one device, and the device object itself."""

    def __init__(
        self, device: int, objects: Sequence[BacnetObject], *, multiple: bool = True, max_apdu: int = apdu.MAX_APDU
    ) -> None:
        """``multiple``: whether there is ReadPropertyMultiple. Raises AddressError where an object is given twice."""
        self.device = device
        self.multiple = multiple
        self.max_apdu = max_apdu
        self.objects: dict[ObjectId, BacnetObject] = {}
        for one in objects:
            if one.identifier in self.objects:
                raise AddressError(f"{one.address.object} is given twice; every value needs its own object")
            self.objects[one.identifier] = one

    @property
    def i_am(self) -> IAm:
        """What the device says of itself."""
        return IAm(self.device, self.max_apdu, NO_SEGMENTATION, PRIVATE_VENDOR)

    def read(self, body: bytes) -> bytes:
        """Answer ReadProperty. Raises PropertyError, MalformedError."""
        reader = Reader(body)
        target, number = reader.context_object(0), reader.context_unsigned(1)
        element = reader.context_unsigned(2) if reader.has_context(2) else None
        if reader.left:
            raise MalformedError("bytes after the request")
        value = self._value(target, number, element)
        return body + b"\x3e" + value + b"\x3f"

    def read_multiple(self, body: bytes) -> bytes:
        """Answer ReadPropertyMultiple. Raises MalformedError."""
        reader = Reader(body)
        answer = bytearray()
        while reader.left:
            target = reader.context_object(0)
            answer += tags.context_object(0, *target) + b"\x1e"
            reader.open(1)
            while reader.peek() != 0x1F:
                number = reader.context_unsigned(0)
                element = reader.context_unsigned(1) if reader.has_context(1) else None
                for one in self._known(target) if number == ALL_PROPERTIES else (number,):
                    answer += self._result(target, one, element)
            reader.close(1)
            answer += b"\x1f"
        return bytes(answer)

    def write(self, body: bytes) -> None:
        """Take a WriteProperty. Raises PropertyError, MalformedError."""
        reader = Reader(body)
        target, number = reader.context_object(0), reader.context_unsigned(1)
        element = reader.context_unsigned(2) if reader.has_context(2) else None
        reader.open(3)
        values = reader.values(3)
        priority = reader.context_unsigned(4, 1) if reader.has_context(4) else LOWEST_PRIORITY
        if reader.left:
            raise MalformedError("bytes after the request")
        one = self.objects.get(target)
        if one is None:
            raise PropertyError(*UNKNOWN_OBJECT)
        if number != P["presentValue"] or element is not None or len(values) != 1:
            raise PropertyError(*WRITE_DENIED)
        one.put(values[0], priority)

    def _result(self, target: ObjectId, number: int, element: int | None) -> bytes:
        where = tags.context_unsigned(2, number) + (b"" if element is None else tags.context_unsigned(3, element))
        try:
            return where + b"\x4e" + self._value(target, number, element) + b"\x4f"
        except PropertyError as error:
            named = b"".join(tags.application(tags.ENUMERATED, part) for part in error.error)
            return where + b"\x5e" + named + b"\x5f"

    def _value(self, target: ObjectId, number: int, element: int | None) -> bytes:
        if target == (DEVICE, self.device):
            value = self._device_property(number)
        elif target in self.objects:
            value = self.objects[target].property(number)
        else:
            raise PropertyError(*UNKNOWN_OBJECT)
        if element is None:
            return value if isinstance(value, bytes) else b"".join(value)
        if isinstance(value, bytes):
            raise PropertyError(*NO_ARRAY)
        if element > len(value):
            raise PropertyError(*BAD_INDEX)
        return value[element - 1] if element else tags.application(tags.UNSIGNED, len(value))

    def _device_property(self, number: int) -> bytes | list[bytes]:
        unsigned = {"maxApduLengthAccepted": self.max_apdu, "vendorIdentifier": PRIVATE_VENDOR, "protocolVersion": 1,
                    "protocolRevision": 14, "databaseRevision": 0}  # fmt: skip
        for name, known in unsigned.items():
            if number == P[name]:
                return tags.application(tags.UNSIGNED, known)
        if number in (P["segmentationSupported"], P["systemStatus"]):
            return tags.application(tags.ENUMERATED, NO_SEGMENTATION if number == P["segmentationSupported"] else 0)
        if number == P["protocolServicesSupported"]:
            offered = SERVICES_SUPPORTED if self.multiple else SERVICES_SUPPORTED - {_READ_MULTIPLE_BIT}
            return tags.application_bits([bit in offered for bit in range(40)])
        if number in (P["vendorName"], P["modelName"]):
            return tags.application_text("poetd plant")
        if number == P["objectList"]:
            return [identity(one, P["objectIdentifier"]) for one in ((DEVICE, self.device), *self.objects)]
        return identity((DEVICE, self.device), number)

    def _known(self, target: ObjectId) -> list[int]:
        known = []
        for number in sorted(P.values()):
            try:
                self._value(target, number, None)
            except PropertyError:
                continue
            known.append(number)
        return known or [P["objectIdentifier"]]
