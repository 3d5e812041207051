"""Mutated messages by the thousand: no crash, no hang, no growth. POETD_FUZZ_FRAMES says how many, for longer runs."""

from __future__ import annotations

import os
import random
import resource
import struct
from collections.abc import Iterator
from datetime import UTC, datetime

import numpy as np
import pytest
from asyncua import ua
from asyncua.ua.ua_binary import struct_to_binary

from drivers.errors import ProtocolError
from drivers.opcua.faults import FAILURES
from drivers.opcua.notifications import parse
from drivers.opcua.wire import ReadDecoder, Samples

FRAMES = int(os.environ.get("POETD_FUZZ_FRAMES", "20000"))
COUNT = 6
GROWTH_KB = 30_000
TIME = datetime(2026, 3, 4, tzinfo=UTC)
VALUES = [
    ua.DataValue(ua.Variant(21.5, ua.VariantType.Double), SourceTimestamp=TIME),
    ua.DataValue(ua.Variant(-7, ua.VariantType.Int16), StatusCode=None),
    ua.DataValue(ua.Variant(True, ua.VariantType.Boolean), SourceTimestamp=TIME, ServerTimestamp=TIME),
    ua.DataValue(ua.Variant("words", ua.VariantType.String)),
    ua.DataValue(ua.Variant([1.0, 2.0], ua.VariantType.Float)),
    ua.DataValue(ua.Variant(ua.Range(0.0, 1.0), ua.VariantType.ExtensionObject)),
]


def read_answer() -> bytes:
    response = ua.ReadResponse()
    response.Results = VALUES
    encoded: bytes = struct_to_binary(response)
    return encoded


def published(values: list[ua.DataValue], sequence: int = 5) -> bytes:
    """A PublishResponse with one notification per value; the handles are their places."""
    response = ua.PublishResponse()
    response.Parameters.SubscriptionId = 77
    message = response.Parameters.NotificationMessage
    message.SequenceNumber = sequence
    items = [ua.MonitoredItemNotification(handle, value) for handle, value in enumerate(values)]
    message.NotificationData = [ua.DataChangeNotification(MonitoredItems=items)] if items else []
    encoded: bytes = struct_to_binary(response)
    return encoded


def mutants(whole: bytes, seed: int) -> Iterator[bytes]:
    """Bytes changed, cut, doubled, and lengths that cannot be."""
    chance = random.Random(seed)
    for _ in range(FRAMES // 2):
        frame = bytearray(whole)
        for _ in range(chance.randint(1, 4)):
            place = chance.randrange(len(frame))
            how = chance.randrange(4)
            if how == 0:
                frame[place] = chance.randrange(256)
            elif how == 1:
                frame[place : place + 4] = struct.pack("<i", chance.choice([-1, -2, 2**31 - 1, 65536, 255]))
            elif how == 2 and place:
                del frame[place:]
            else:
                frame[place:place] = frame[:place]
            if not frame:
                break
        yield bytes(frame)


@pytest.mark.fault
def test_mutated_read_answers() -> None:
    whole = read_answer()
    warm = ReadDecoder(range(COUNT))
    warm.decode(whole, Samples.waiting(COUNT))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    refused = 0
    for frame in mutants(whole, 1):
        samples, fresh = Samples.waiting(COUNT), Samples.waiting(COUNT)
        try:
            warm.decode(frame, samples)
        except (*FAILURES, ProtocolError):
            refused += 1
            continue
        ReadDecoder(range(COUNT)).decode(frame, fresh)
        for name in ("value", "status", "ticks", "kind"):
            assert np.array_equal(getattr(samples, name), getattr(fresh, name), equal_nan=name == "value")
    assert 0 < refused < FRAMES // 2
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < GROWTH_KB


@pytest.mark.fault
def test_mutated_notifications() -> None:
    whole = published(VALUES)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    refused = 0
    for frame in mutants(whole, 2):
        samples = Samples.waiting(COUNT)
        try:
            rows = parse(frame).store(samples)
        except (*FAILURES, ProtocolError):
            refused += 1
            continue
        untouched = np.setdiff1d(np.arange(COUNT), rows)
        assert (samples.status[untouched] == ua.StatusCodes.BadWaitingForInitialData).all()
    assert 0 < refused < FRAMES // 2
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < GROWTH_KB


def test_a_notification_is_what_the_library_encoded() -> None:
    message = parse(published(VALUES, sequence=9))
    assert (message.subscription, message.sequence, message.keep_alive, message.status) == (77, 9, False, None)
    samples = Samples.waiting(COUNT)
    assert message.store(samples).tolist() == list(range(COUNT))
    assert samples.value[:3].tolist() == [21.5, -7.0, 1.0]
    assert np.isnan(samples.value[3:]).all()
    assert not samples.status.any()


def test_a_keep_alive_and_an_ending_are_told_apart() -> None:
    assert parse(published([])).keep_alive
    response = ua.PublishResponse()
    ending = ua.StatusChangeNotification(Status=ua.StatusCode(ua.StatusCodes.BadTimeout))
    response.Parameters.NotificationMessage.NotificationData = [ending]
    assert parse(struct_to_binary(response)).status == ua.StatusCodes.BadTimeout


def test_of_two_values_of_one_item_the_last_counts_and_unknown_items_are_refused() -> None:
    response = ua.PublishResponse()
    items = [ua.MonitoredItemNotification(2, ua.DataValue(ua.Variant(float(k), ua.VariantType.Double))) for k in (1, 2)]
    response.Parameters.NotificationMessage.NotificationData = [ua.DataChangeNotification(MonitoredItems=items)]
    message = parse(struct_to_binary(response))
    samples = Samples.waiting(3)
    message.store(samples)
    assert samples.value[2] == 2.0
    with pytest.raises(ProtocolError, match="unknown item 2"):
        message.store(Samples.waiting(2))
