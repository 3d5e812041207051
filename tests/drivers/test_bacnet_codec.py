"""Values, frames and shapes on the wire: round trips, bounds, and bytes that must not be believed."""

from __future__ import annotations

import contextlib
import math
import struct

import numpy as np
import pytest
from bacnet_fuzz import fuzz
from hypothesis import given
from hypothesis import strategies as st

from drivers.bacnet import frames, services, tags
from drivers.bacnet.apdu import Kind, parse_answer, refusal
from drivers.bacnet.image import Image
from drivers.bacnet.objects import BacnetObject, ObjectTable
from drivers.bacnet.planner import Layout, Plan
from drivers.bacnet.settings import BacnetAddress, mac_bytes
from drivers.bacnet.sweep import Sweep
from drivers.bacnet.tags import MalformedError, Reader
from drivers.bacnet.transaction import Batch, Transaction
from safety.values import Reason

HOST = ("127.0.0.1", 47808)


@given(st.sampled_from((tags.UNSIGNED, tags.ENUMERATED)), st.integers(0, 2**32 - 1))
def test_whole_numbers_round_trip(kind: int, value: int) -> None:
    data = tags.application(kind, value)
    reader = Reader(data)
    found = reader.value()
    assert (found.tag, found.number, reader.left) == (kind, value, 0)
    assert len(data) == 1 + max(1, (value.bit_length() + 7) // 8), "the shortest form, as the standard demands"


@given(st.integers(-(2**31), 2**31 - 1))
def test_signed_numbers_round_trip(value: int) -> None:
    data = tags.application(tags.SIGNED, value)
    assert Reader(data).value().number == value
    if len(data) > 2:
        with pytest.raises(OverflowError):
            value.to_bytes(len(data) - 2, "big", signed=True)


@given(st.floats(width=32, allow_nan=False), st.floats(allow_nan=False))
def test_floats_round_trip(single: float, double: float) -> None:
    assert Reader(tags.application(tags.REAL, single)).value().number == single
    assert Reader(tags.application(tags.DOUBLE, double)).value().number == double


@given(st.lists(st.booleans(), max_size=60))
def test_bit_strings_round_trip(flags: list[bool]) -> None:
    data = tags.application_bits(flags)
    assert tags.bits(data, Reader(data).value()) == flags


@given(st.text(max_size=300))
def test_texts_round_trip(value: str) -> None:
    data = tags.application_text(value)
    assert tags.text(data, Reader(data).value()) == value


@pytest.mark.parametrize(
    "data",
    [
        "", "44000000", "4300000000", "5500", "550700000000000000", "20", "250900000000000000000000", "12", "06", "07",
        "31", "92", "0f", "f10f00", "f1ff", "25fe", "25ffffffffff00", "75ff7fffffff00", "d0", "3e", "3e3f00"[:4] + "2f",
        "3e" * 20 + "3f" * 20,
    ],
)  # fmt: skip
def test_bytes_that_are_no_value_are_refused_without_running_past_the_end(data: str) -> None:
    with pytest.raises(MalformedError):
        reader = Reader(bytes.fromhex(data))
        while True:
            reader.value()


@given(st.binary(max_size=80))
def test_any_bytes_end_in_a_value_or_a_refusal(data: bytes) -> None:
    for parse in (
        services.read_answer,
        services.read_multiple_answer,
        services.cov_notification,
        services.i_am_content,
    ):
        with contextlib.suppress(MalformedError):
            parse(data)
    frame = frames.parse(data, HOST)
    assert frame is None or frame.apdu or frame.network_message or frame.function == frames.RESULT
    if data:
        answer = parse_answer(data)
        assert answer is None or answer.kind == Kind(data[0] >> 4)


def test_every_cut_of_a_good_frame_is_dropped_or_refused() -> None:
    table = ObjectTable(1, [BacnetObject(BacnetAddress(object="analogInput,1"), lambda: 21.5)])
    content = table.read_multiple(services.read_multiple([((0, 1), (85, 111))]))
    whole = frames.bvlc(frames.UNICAST, bytes((1, 0, 0x30, 7, 14)) + content)
    assert frames.parse(whole, HOST) is not None
    for size in range(len(whole)):
        assert frames.parse(whole[:size], HOST) is None, "the length does not agree"
        rewritten = whole[:2] + size.to_bytes(2, "big") + whole[4:size]
        frame = frames.parse(rewritten, HOST) if size >= 4 else None
        if frame is None:
            continue
        answer = parse_answer(frame.apdu)
        if answer is not None and answer.payload:
            with pytest.raises(MalformedError):
                services.read_multiple_answer(answer.payload)


def test_a_length_that_claims_more_than_there_is_reserves_nothing() -> None:
    with pytest.raises(MalformedError, match="of 2147483648 bytes"):
        Reader(bytes.fromhex("75ff80000000") + b"x" * 10).value()


def test_frames_with_routing_are_taken_apart() -> None:
    npdu = bytes((1, 0x28, 0, 5, 1, 9, 0, 20, 1, 7, 255))
    frame = frames.parse(frames.bvlc(frames.UNICAST, npdu + b"\x30\x01\x0c"), HOST)
    assert frame is not None
    assert (frame.source, frame.apdu) == (frames.Station(HOST, 20, b"\x07"), b"\x30\x01\x0c")
    forwarded = frames.parse(frames.bvlc(frames.FORWARDED, bytes((10, 0, 0, 9, 0xBA, 0xC0, 1, 0, 0x10, 0))), HOST)
    assert forwarded is not None
    assert forwarded.source == frames.Station(("10.0.0.9", 47808))


@pytest.mark.parametrize(
    ("text", "expected"),
    [("7", b"\x07"), ("0x0a1b", b"\x0a\x1b"), ("10.0.0.5:47809", b"\x0a\x00\x00\x05\xba\xc1"), ("10.0.0.5", b"\x0a\x00\x00\x05\xba\xc0")],
)  # fmt: skip
def test_addresses_on_other_networks(text: str, expected: bytes) -> None:
    assert mac_bytes(text) == expected


@pytest.mark.parametrize("text", ["", "256", "0x", "0xabc", "host", "10.0.0.5:0", "10.0.0.5:99999", "1.2.3"])
def test_bad_addresses_on_other_networks(text: str) -> None:
    with pytest.raises(ValueError, match="is none of"):
        mac_bytes(text)


def test_an_error_without_class_and_code_is_not_taken_for_one() -> None:
    answer = parse_answer(bytes((0x50, 1, 12, 0x91, 2)))
    assert answer is not None
    assert refusal("here", answer) is None


async def poll(plan: Plan, reply: bytes) -> Image:
    """One sweep whose every request is answered with ``reply``."""

    async def ask(transactions: list[Transaction]) -> None:
        import asyncio

        Batch(transactions, asyncio.get_running_loop())
        for transaction in transactions:
            transaction.reply, transaction.sent = reply, 0.0

    image = Image(len(plan.layout.object_of), len(plan.layout.objects))
    sweep = Sweep(plan, image, ask)  # type: ignore[arg-type]
    await sweep.run(0.0, plan.queries)
    return image


@given(
    st.lists(st.floats(-(2.0**90), 2.0**90, width=32), min_size=3, max_size=3),
    st.integers(0, 255), st.integers(-(2**15), -(2**7) - 1), st.floats(-1e300, 1e300), st.integers(0, 15),
)  # fmt: skip
async def test_the_shape_of_one_answer_decodes_the_next_as_the_parser_does(
    reals: list[float], count: int, signed: int, double: float, flags: int
) -> None:
    where = [
        "analogInput,1",
        "analogInput,2",
        "analogInput,3",
        "multiStateInput,1",
        "integerValue,1",
        "largeAnalogValue,1",
    ]
    addresses = [BacnetAddress.model_validate(one) for one in where]
    values = [1.0, 2.0, 3.0, 4.0, -300.0, 6.0]
    objects = [BacnetObject(address, lambda k=k: values[k]) for k, address in enumerate(addresses)]
    table = ObjectTable(1, objects)
    plan = Plan(Layout(addresses))
    (query,) = plan.queries
    await poll(plan, table.read_multiple(query.body))
    shape = query.shape
    assert shape is not None
    values[:] = [*reals, float(count), float(signed), double]
    objects[1].flags = flags << 4
    reply = table.read_multiple(query.body)
    fast = Image(len(where), len(where))
    fast.reason[:] = Reason.NEVER_READ
    assert shape.read(reply, fast), "the same shape"
    fresh = Plan(Layout(addresses))
    full = await poll(fresh, reply)
    assert np.array_equal(fast.value, full.value)
    assert np.array_equal(fast.flags, full.flags)
    assert (fast.reason == Reason.OK).all()
    assert fast.value.tolist() == [
        *(struct.unpack(">f", struct.pack(">f", x))[0] for x in reals),
        count,
        signed,
        double,
    ]


@given(st.data())
async def test_a_shape_takes_no_answer_that_differs_outside_its_values(data: st.DataObject) -> None:
    addresses = [BacnetAddress.model_validate(one) for one in ("analogInput,1", "binaryInput,2")]
    table = ObjectTable(1, [BacnetObject(address, lambda: 1.0) for address in addresses])
    plan = Plan(Layout(addresses))
    (query,) = plan.queries
    reply = bytearray(table.read_multiple(query.body))
    await poll(plan, bytes(reply))
    shape = query.shape
    assert shape is not None
    at = data.draw(st.integers(0, len(reply) - 1))
    reply[at] ^= 1 << data.draw(st.integers(0, 7))
    image = Image(2, 2)
    if not shape.read(bytes(reply), image):
        assert np.isnan(image.value).all(), "nothing was taken"
        return
    results = services.read_multiple_answer(bytes(reply))
    assert [result.values[0].number for result in results if result.property == 85] == pytest.approx(
        image.value.tolist(), nan_ok=True
    )


async def test_mutated_answers_are_dropped_or_say_what_they_say_to_everybody() -> None:
    counts = await fuzz(800, seed=7)
    assert sum(counts.values()) == 800
    assert counts["same"] > 50, "the right answer after a dropped one is still taken"
    assert counts["failed"] < 700


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1e300, -5.0])
def test_a_server_shows_what_its_data_type_can_hold(value: float) -> None:
    for where in ("analogInput,1", "multiStateInput,1", "integerValue,1", "largeAnalogValue,1"):
        shown = BacnetObject(BacnetAddress(object=where), lambda: value).encode(value)
        assert Reader(shown).value().tag in tags.NUMBERS
