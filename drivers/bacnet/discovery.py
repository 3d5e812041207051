"""Who is there, and what do they show: Who-Is with a bounded wait, and the object list of one device. Reads only."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from drivers.bacnet import services, tags
from drivers.bacnet.apdu import RefusalError, Service
from drivers.bacnet.capability import read_property
from drivers.bacnet.frames import BROADCAST, Host, Station
from drivers.bacnet.names import DEVICE, PROPERTIES, object_name
from drivers.bacnet.peer import Peer
from drivers.bacnet.port import Port
from drivers.bacnet.services import IAm, ObjectId
from drivers.bacnet.settings import WRITTEN_AS
from drivers.bacnet.tags import MalformedError
from drivers.bacnet.transaction import Transaction
from drivers.bacnet.units import UCUM

MOST_DEVICES: Final = 10_000
MOST_OBJECTS: Final = 50_000
AT_ONCE: Final = 200
"""Requests queued at a time while a device is browsed; the peer's window says how many are in flight."""


@dataclass(frozen=True, slots=True)
class FoundDevice:
    """A device that answered."""

    station: Station
    device: int
    max_apdu: int
    vendor: int


@dataclass(frozen=True, slots=True)
class FoundObject:
    """An object with a present value. ``unit`` is a UCUM code or empty; ``name`` is the device's own, or empty."""

    object: str
    name: str
    unit: str
    writable: bool


async def who_is(
    port: Port,
    target: Host,
    wait_s: float,
    *,
    low: int | None = None,
    high: int | None = None,
    function: int = BROADCAST,
) -> list[FoundDevice]:
    """Ask and collect answers for ``wait_s`` seconds, sorted by instance. The port must be open.

    ``function`` is UNICAST for one device, DISTRIBUTE_BROADCAST for a BBMD that we are registered with.
    """
    found: dict[tuple[int, Station], FoundDevice] = {}

    def listener(station: Station, me: IAm) -> None:
        if len(found) < MOST_DEVICES:
            found[me.device, station] = FoundDevice(station, me.device, me.max_apdu, me.vendor)

    port.i_am_listeners.add(listener)
    try:
        port.send_unconfirmed(services.who_is(low, high), target, function)
        await asyncio.sleep(wait_s)
    finally:
        port.i_am_listeners.discard(listener)
    return [found[key] for key in sorted(found)]


async def browse(peer: Peer, device: int) -> list[FoundObject]:
    """The device's objects whose present value is a number. Raises DriverError if it does not tell its object list."""
    objects = [
        one for one in await object_list(peer, device) if not object_name(*one)[0].isdecimal() and one[0] != DEVICE
    ]
    names = await _read_all(peer, objects, PROPERTIES["objectName"])
    units = await _read_all(peer, objects, PROPERTIES["units"])
    found = []
    for one, name, unit in zip(objects, names, units, strict=True):
        label, number = object_name(*one), None if unit is None else unit[1].number
        code = UCUM.get(int(number), "") if number is not None and math.isfinite(number) else ""
        found.append(FoundObject(label, _text(name), code, label.partition(",")[0] in WRITTEN_AS))
    return found


async def object_list(peer: Peer, device: int) -> list[ObjectId]:
    """All objects of a device: in one answer, or element by element where that is too long. Raises DriverError."""
    target, prop = (DEVICE, device), PROPERTIES["objectList"]
    try:
        _, result = await read_property(peer, target, prop)
        values = list(result.values)
    except RefusalError as error:
        if not error.too_much:
            raise
        _, result = await read_property(peer, target, prop, 0)
        count = int(result.values[0].number) if result.values and result.values[0].tag == tags.UNSIGNED else 0
        if count > MOST_OBJECTS:
            raise MalformedError(f"{peer.where}: {count} objects; more than {MOST_OBJECTS} are not browsed") from None
        elements = await _read_all(peer, [target] * count, prop, elements=range(1, count + 1))
        values = [one[1] for one in elements if one is not None]
    packed = [int(value.number) for value in values if value.tag == tags.OBJECT_ID]
    return [(one >> 22, one & 0x3FFFFF) for one in packed]


async def _read_all(
    peer: Peer, targets: Sequence[ObjectId], prop: int, *, elements: Sequence[int] | None = None
) -> list[tuple[bytes, tags.Value] | None]:
    """One property of many objects, or many elements; None where the device has none. Raises DriverError for silence."""
    found: list[tuple[bytes, tags.Value] | None] = []
    for start in range(0, len(targets), AT_ONCE):
        batch = [
            Transaction(Service.READ, services.read(target, prop, None if elements is None else elements[start + k]))
            for k, target in enumerate(targets[start : start + AT_ONCE])
        ]
        await peer.exchange(batch)
        found += [_single(transaction) for transaction in batch]
    return found


def _single(transaction: Transaction) -> tuple[bytes, tags.Value] | None:
    if transaction.error is not None and not isinstance(transaction.error, RefusalError):
        raise transaction.error
    if transaction.reply is None:
        return None
    result = services.read_answer(transaction.reply)
    return (transaction.reply, result.values[0]) if len(result.values) == 1 else None


def _text(found: tuple[bytes, tags.Value] | None) -> str:
    if found is None:
        return ""
    try:
        return tags.text(*found)
    except MalformedError:
        return ""
