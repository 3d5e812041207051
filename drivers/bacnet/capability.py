"""What a device can do, asked at connect with single requests that even the oldest device has."""

from __future__ import annotations

from typing import Final, NamedTuple

from drivers.bacnet import services, tags
from drivers.bacnet.apdu import APDU_SIZES, MAX_APDU, RefusalError, Service
from drivers.bacnet.names import DEVICE, PROPERTIES, UNKNOWN_OBJECT, object_name, property_name
from drivers.bacnet.peer import Peer
from drivers.bacnet.services import ObjectId, Result
from drivers.bacnet.tags import MalformedError
from drivers.bacnet.transaction import Transaction
from drivers.errors import DeviceRefusedError, DriverError

_READ_MULTIPLE_BIT: Final = 14
_SUBSCRIBE_COV_BIT: Final = 5
"""Positions in Protocol_Services_Supported."""


class Capability(NamedTuple):
    """``max_apdu`` is how long its answers can be, in bytes."""

    max_apdu: int
    read_multiple: bool
    subscribe_cov: bool


async def ask(peer: Peer, transaction: Transaction) -> bytes:
    """One request ahead of the queue; its acknowledgement's content. Raises DriverError."""
    await peer.exchange([transaction], urgent=True)
    if transaction.error is not None:
        raise transaction.error
    assert transaction.reply is not None
    return transaction.reply


async def read_property(peer: Peer, target: ObjectId, prop: int, element: int | None = None) -> tuple[bytes, Result]:
    """One property: the answer's bytes and what they say.

    Raises:
        DriverError: no answer, a refusal, or an answer about something else.
    """
    reply = await ask(peer, Transaction(Service.READ, services.read(target, prop, element)))
    result = services.read_answer(reply)
    if (result.object, result.property, result.element) != (target, prop, element):
        raise MalformedError(
            f"{peer.where}: asked for {object_name(*target)} {property_name(prop)}, answered about "
            f"{object_name(*result.object)} {property_name(result.property)}"
        )
    return reply, result


async def find_capability(peer: Peer, device: int) -> Capability:
    """Make sure that the right device answers, and ask what it can do. What it does not say counts as the least.

    Raises:
        DeviceRefusedError: another device has the address.
        DriverError: no answer.
    """
    target = (DEVICE, device)
    try:
        _, result = await read_property(peer, target, PROPERTIES["maxApduLengthAccepted"])
    except RefusalError as error:
        if error.code == UNKNOWN_OBJECT:
            raise DeviceRefusedError(
                f"{peer.where} is not device {device}; check the instance number, and that no other device took its address"
            ) from error
        max_apdu = APDU_SIZES[1]
    else:
        number = result.values[0].number if result.values else 0.0
        max_apdu = min(int(number), MAX_APDU) if number >= APDU_SIZES[0] else APDU_SIZES[0]
    try:
        reply, result = await read_property(peer, target, PROPERTIES["protocolServicesSupported"])
        supported = tags.bits(reply, result.values[0]) if result.values else []
    except (RefusalError, MalformedError):
        supported = []
    return Capability(
        max_apdu,
        # A device that does not say is asked, and says no then.
        read_multiple=not supported or _has(supported, _READ_MULTIPLE_BIT),
        subscribe_cov=_has(supported, _SUBSCRIBE_COV_BIT),
    )


async def commandable(peer: Peer, targets: list[ObjectId]) -> dict[ObjectId, bool | DriverError]:
    """Which objects have a priority array; an error where the device gave no usable answer."""
    prop = PROPERTIES["priorityArray"]
    transactions = [Transaction(Service.READ, services.read(target, prop, 1)) for target in targets]
    await peer.exchange(transactions)
    found: dict[ObjectId, bool | DriverError] = {}
    for target, transaction in zip(targets, transactions, strict=True):
        if transaction.error is None:
            found[target] = True
        else:
            found[target] = False if isinstance(transaction.error, RefusalError) else transaction.error
    return found


def _has(supported: list[bool], bit: int) -> bool:
    return bit < len(supported) and supported[bit]
