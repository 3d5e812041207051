"""Requests as bytes, and answers and notifications as values (135 clauses 13, 15, 16). Pure; MalformedError for bad bytes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from drivers.bacnet import tags
from drivers.bacnet.apdu import Kind, Unconfirmed, read_error
from drivers.bacnet.names import PRESENT_VALUE, STATUS_FLAGS
from drivers.bacnet.tags import MalformedError, Reader, Value

ObjectId = tuple[int, int]
"""Object type and instance."""


class Result(NamedTuple):
    """What a device says of one property: its values, or error class and code."""

    object: ObjectId
    property: int
    element: int | None
    values: Sequence[Value]
    error: tuple[int, int] | None = None


def read(target: ObjectId, prop: int, element: int | None = None) -> bytes:
    """A ReadProperty request, without its header."""
    return _reference(target, prop, element)


def read_multiple(wanted: Iterable[tuple[ObjectId, Sequence[int]]]) -> bytes:
    """A ReadPropertyMultiple request for properties of objects, without its header."""
    parts = []
    for (kind, instance), properties in wanted:
        parts += [tags.context_object(0, kind, instance), b"\x1e"]
        parts += [tags.context_unsigned(0, prop) for prop in properties]
        parts.append(b"\x1f")
    return b"".join(parts)


def write(target: ObjectId, prop: int, value: bytes, priority: int) -> bytes:
    """A WriteProperty request; ``value`` is an application value with its tag."""
    return _reference(target, prop, None) + b"\x3e" + value + b"\x3f" + tags.context_unsigned(4, priority)


def subscribe_cov(process: int, target: ObjectId, lifetime_s: int) -> bytes:
    """A SubscribeCOV request for confirmed notifications. ``lifetime_s`` is at least 1: 0 would be for ever."""
    return (
        tags.context_unsigned(0, process)
        + tags.context_object(1, *target)
        + tags.context_unsigned(2, 1)
        + tags.context_unsigned(3, max(1, lifetime_s))
    )


def unsubscribe_cov(process: int, target: ObjectId) -> bytes:
    """A SubscribeCOV request that ends a subscription."""
    return tags.context_unsigned(0, process) + tags.context_object(1, *target)


def who_is(low: int | None = None, high: int | None = None) -> bytes:
    """A whole Who-Is APDU, for all devices or a range of instances."""
    start = bytes((Kind.UNCONFIRMED << 4, Unconfirmed.WHO_IS))
    if low is None or high is None:
        return start
    return start + tags.context_unsigned(0, low) + tags.context_unsigned(1, high)


def read_answer(payload: bytes) -> Result:
    """The answer to ReadProperty."""
    reader = Reader(payload)
    target = reader.context_object(0)
    prop = reader.context_unsigned(1)
    element = reader.context_unsigned(2) if reader.has_context(2) else None
    reader.open(3)
    values = reader.values(3)
    _finish(reader)
    return Result(target, prop, element, values)


def read_multiple_answer(payload: bytes) -> list[Result]:
    """The answer to ReadPropertyMultiple."""
    reader = Reader(payload)
    results = []
    while reader.left:
        target = reader.context_object(0)
        reader.open(1)
        while reader.peek() != 0x1F:
            prop = reader.context_unsigned(2)
            element = reader.context_unsigned(3) if reader.has_context(3) else None
            if reader.peek() == 0x5E:
                reader.open(5)
                error = read_error(reader)
                reader.close(5)
                results.append(Result(target, prop, element, (), error))
            else:
                reader.open(4)
                results.append(Result(target, prop, element, reader.values(4)))
        reader.close(1)
    return results


class Notification(NamedTuple):
    """A change of value. ``values`` by property number; ``flags`` as on the wire, None where they are not there."""

    process: int
    device: int
    object: ObjectId
    remaining_s: int
    values: dict[int, Sequence[Value]]
    flags: int | None


def cov_notification(payload: bytes) -> Notification:
    """A COV notification's content, confirmed or not."""
    reader = Reader(payload)
    process = reader.context_unsigned(0)
    device = reader.context_object(1)
    target = reader.context_object(2)
    remaining = reader.context_unsigned(3)
    reader.open(4)
    values: dict[int, Sequence[Value]] = {}
    while reader.peek() != 0x4F:
        prop = reader.context_unsigned(0)
        if reader.has_context(1):
            reader.context_unsigned(1)
        reader.open(2)
        values[prop] = reader.values(2)
        if reader.has_context(3):
            reader.context_unsigned(3)
    reader.close(4)
    _finish(reader)
    at = tags.status_byte(payload, values.get(STATUS_FLAGS, ()))
    return Notification(process, device[1], target, remaining, values, None if at is None else payload[at])


def notification(process: int, device: int, target: ObjectId, remaining_s: int, value: bytes, flags: bytes) -> bytes:
    """A COV notification's content: present value and status flags as application values."""
    return b"".join(
        (
            tags.context_unsigned(0, process), tags.context_object(1, 8, device), tags.context_object(2, *target),
            tags.context_unsigned(3, remaining_s), b"\x4e", tags.context_unsigned(0, PRESENT_VALUE), b"\x2e", value,
            b"\x2f", tags.context_unsigned(0, STATUS_FLAGS), b"\x2e", flags, b"\x2f\x4f",
        )
    )  # fmt: skip


class IAm(NamedTuple):
    """What a device says of itself."""

    device: int
    max_apdu: int
    segmentation: int
    vendor: int


def i_am_content(apdu: bytes) -> IAm:
    """An I-Am APDU."""
    reader = Reader(apdu, 2)
    found = [reader.value() for _ in range(4)]
    if [value.tag for value in found] != [tags.OBJECT_ID, tags.UNSIGNED, tags.ENUMERATED, tags.UNSIGNED]:
        raise MalformedError("not an I-Am")
    packed, max_apdu, segmentation, vendor = (int(value.number) for value in found)
    if packed >> 22 != 8:
        raise MalformedError("an I-Am of something that is not a device")
    return IAm(packed & 0x3FFFFF, max_apdu, segmentation, vendor)


def i_am(me: IAm) -> bytes:
    """A whole I-Am APDU."""
    return b"".join(
        (
            bytes((Kind.UNCONFIRMED << 4, Unconfirmed.I_AM)),
            tags.application(tags.OBJECT_ID, 8 << 22 | me.device), tags.application(tags.UNSIGNED, me.max_apdu),
            tags.application(tags.ENUMERATED, me.segmentation), tags.application(tags.UNSIGNED, me.vendor),
        )
    )  # fmt: skip


def _reference(target: ObjectId, prop: int, element: int | None) -> bytes:
    where = tags.context_object(0, *target) + tags.context_unsigned(1, prop)
    return where if element is None else where + tags.context_unsigned(2, element)


def _finish(reader: Reader) -> None:
    if reader.left:
        raise MalformedError(f"{reader.left} bytes after the end")
