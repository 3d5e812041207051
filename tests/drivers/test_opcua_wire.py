"""The fast decoder against the library's own, on every kind of answer; and against a server that means harm."""

from __future__ import annotations

import math
import struct
import time
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import numpy as np
import pytest
from asyncua import ua
from asyncua.ua.ua_binary import struct_from_binary, struct_to_binary
from hypothesis import example, given, settings
from hypothesis import strategies as st

from drivers.errors import ProtocolError
from drivers.opcua.faults import FAILURES
from drivers.opcua.skip import skip_data_value
from drivers.opcua.wire import ReadDecoder, Samples, read_parameters, read_request

Kind = ua.VariantType
INTEGERS = {
    Kind.SByte: (-128, 127),
    Kind.Byte: (0, 255),
    Kind.Int16: (-(2**15), 2**15 - 1),
    Kind.UInt16: (0, 2**16 - 1),
    Kind.Int32: (-(2**31), 2**31 - 1),
    Kind.UInt32: (0, 2**32 - 1),
    Kind.Int64: (-(2**63), 2**63 - 1),
    Kind.UInt64: (0, 2**64 - 1),
}
TIME = datetime(2026, 3, 4, 5, 6, 7, 890_000, tzinfo=UTC)

numbers = st.one_of(
    st.booleans().map(lambda one: ua.Variant(one, Kind.Boolean)),
    st.floats(width=32).map(lambda one: ua.Variant(one, Kind.Float)),
    st.floats().map(lambda one: ua.Variant(one, Kind.Double)),
    *(
        st.integers(low, high).map(lambda one, kind=kind: ua.Variant(one, kind))  # type: ignore[misc]
        for kind, (low, high) in INTEGERS.items()
    ),
)
others = st.sampled_from(
    [
        ua.Variant("21.5", Kind.String),
        ua.Variant(None, Kind.String),
        ua.Variant(b"\x01\x02", Kind.ByteString),
        ua.Variant(TIME, Kind.DateTime),
        ua.Variant(UUID(int=7), Kind.Guid),
        ua.Variant([1.0, 2.0], Kind.Double),
        ua.Variant([], Kind.Double),
        ua.Variant([[1, 2], [3, 4]], Kind.Int32, Dimensions=[2, 2]),
        ua.Variant(["a", "bc"], Kind.String),
        ua.Variant(ua.NodeId("x", 3), Kind.NodeId),
        ua.Variant(ua.NodeId(UUID(int=9), 3), Kind.NodeId),
        ua.Variant(ua.ExpandedNodeId(5, 0, ua.NodeIdType.Numeric, "urn:x", 4), Kind.ExpandedNodeId),
        ua.Variant(ua.QualifiedName("q", 2), Kind.QualifiedName),
        ua.Variant(ua.LocalizedText("text", "en"), Kind.LocalizedText),
        ua.Variant(ua.LocalizedText("text"), Kind.LocalizedText),
        ua.Variant(ua.StatusCode(0), Kind.StatusCode),
        ua.Variant(ua.Range(0.0, 1.0), Kind.ExtensionObject),
        ua.Variant([ua.Variant(1, Kind.Int32), ua.Variant("s", Kind.String)], Kind.Variant),
        ua.Variant(ua.DataValue(ua.Variant(1.0, Kind.Double), SourceTimestamp=TIME), Kind.DataValue),
        ua.Variant(None, Kind.Null),
    ]
)


@st.composite
def data_values(draw: Any, values: Any = None) -> ua.DataValue:
    """One answer: any mix of value, status and times."""
    value = draw(numbers if values is None else values)
    status = draw(st.sampled_from([None, 0, 0x40910000, 0x80340000, 0x00960000]))
    return ua.DataValue(
        value,
        StatusCode=None if status is None else ua.StatusCode(status),
        SourceTimestamp=draw(st.sampled_from([None, TIME])),
        ServerTimestamp=draw(st.sampled_from([None, TIME])),
    )


def answer(values: list[ua.DataValue], result: int = 0) -> bytes:
    """A ReadResponse as a server sends it."""
    response = ua.ReadResponse()
    response.ResponseHeader.ServiceResult = ua.StatusCode(result)
    response.Results = values
    encoded: bytes = struct_to_binary(response)
    return encoded


def decoded(decoder: ReadDecoder, data: bytes, count: int) -> Samples:
    samples = Samples.waiting(count)
    decoder.decode(data, samples)
    return samples


def check(samples: Samples, values: list[ua.DataValue]) -> None:
    """Row by row against the objects."""
    for row, one in enumerate(values):
        number = one.Value is not None and one.Value.VariantType.value in range(1, 12) and not one.Value.is_array
        expected = float(one.Value.Value) if number else math.nan
        assert samples.value[row] == expected or (math.isnan(samples.value[row]) and math.isnan(expected))
        assert samples.status[row] == (0 if one.StatusCode is None else one.StatusCode.value)
        ticks = 0 if one.SourceTimestamp is None else ua.datetime_to_win_epoch(one.SourceTimestamp)
        assert samples.ticks[row] == ticks
        assert samples.is_number(np.array([row]))[0] == number


@given(st.lists(data_values(st.one_of(numbers, others)), max_size=12))
@example([ua.DataValue(ua.Variant(2**64 - 1, Kind.UInt64))])
def test_any_answer_is_decoded_as_the_library_does(values: list[ua.DataValue]) -> None:
    check(decoded(ReadDecoder(range(len(values))), answer(values), len(values)), values)


@given(st.lists(data_values(), min_size=1, max_size=8), st.data())
def test_the_next_answer_of_another_or_the_same_shape_is_its_own(values: list[ua.DataValue], data: Any) -> None:
    """The remembered shape never makes a wrong value: each answer is decoded as if it were the first."""
    decoder = ReadDecoder(range(len(values)))
    for _ in range(4):
        check(decoded(decoder, answer(values), len(values)), values)
        place = data.draw(st.integers(0, len(values) - 1))
        values = [*values[:place], data.draw(data_values(st.one_of(numbers, others))), *values[place + 1 :]]


def test_the_same_shape_is_walked_once() -> None:
    values = [ua.DataValue(ua.Variant(float(k), Kind.Double), SourceTimestamp=TIME) for k in range(50)]
    decoder = ReadDecoder(range(50))
    decoded(decoder, answer(values), 50)
    first = decoder._gatherer
    other = [ua.DataValue(ua.Variant(-float(k), Kind.Double), SourceTimestamp=TIME) for k in range(50)]
    check(decoded(decoder, answer(other), 50), other)
    assert decoder._gatherer is first
    other[7].Value = ua.Variant(1, Kind.Int16)
    check(decoded(decoder, answer(other), 50), other)
    assert decoder._gatherer is not first


def test_rows_are_where_they_were_asked_to_be() -> None:
    samples = Samples.waiting(6)
    values = [ua.DataValue(ua.Variant(float(k), Kind.Double)) for k in range(3)]
    ReadDecoder([4, 0, 2]).decode(answer(values), samples)
    assert samples.value.tolist()[:5:2] == [1.0, 2.0, 0.0]
    assert (samples.status[[1, 3, 5]] == ua.StatusCodes.BadWaitingForInitialData).all()


def test_source_times_are_utc_seconds_and_never_in_the_future() -> None:
    values = [ua.DataValue(ua.Variant(1.0, Kind.Double), SourceTimestamp=stamp) for stamp in (TIME, None)]
    samples = decoded(ReadDecoder([0, 1]), answer(values), 2)
    now = TIME.timestamp() + 5.0
    assert samples.source_time(now).tolist() == pytest.approx([TIME.timestamp(), now])
    assert samples.source_time(TIME.timestamp() - 5.0).tolist() == pytest.approx([TIME.timestamp() - 5.0] * 2)


@pytest.mark.parametrize("values", [[ua.DataValue(ua.Variant(1.0, Kind.Double), SourceTimestamp=TIME)] * 3])
def test_an_answer_cut_anywhere_is_an_error(values: list[ua.DataValue]) -> None:
    whole = answer(values)
    end = len(whole) - 4  # behind it only the count of diagnostics, which nobody needs
    for warm in (False, True):
        decoder = ReadDecoder(range(3))
        if warm:
            decoded(decoder, whole, 3)
        for cut in range(end):
            with pytest.raises((*FAILURES, ProtocolError)):
                decoded(decoder, whole[:cut], 3)


def test_fewer_or_more_answers_than_questions_are_an_error() -> None:
    values = [ua.DataValue(ua.Variant(1.0, Kind.Double))] * 3
    for asked in (2, 4):
        with pytest.raises(ProtocolError, match=f"{asked} nodes were asked for and 3 answered"):
            decoded(ReadDecoder(range(asked)), answer(values), asked)


def test_a_refused_request_and_another_message_are_not_values() -> None:
    with pytest.raises(ua.UaStatusCodeError):
        decoded(ReadDecoder([0]), answer([], ua.StatusCodes.BadTooManyOperations), 1)
    write = struct_to_binary(ua.WriteResponse())
    with pytest.raises(ProtocolError, match="not of type"):
        decoded(ReadDecoder([0]), write, 1)


@settings(max_examples=300)
@given(st.lists(data_values(st.one_of(numbers, others)), min_size=1, max_size=4), st.data())
def test_a_mutated_answer_ends_in_an_error_or_in_values_of_the_message(values: list[ua.DataValue], data: Any) -> None:
    """No crash, no hang, whatever a byte is turned into; what the library can decode too is decoded alike."""
    message = bytearray(answer(values))
    decoder = ReadDecoder(range(len(values)))
    decoded(decoder, bytes(message), len(values))
    for _ in range(data.draw(st.integers(1, 3))):
        message[data.draw(st.integers(0, len(message) - 1))] = data.draw(st.integers(0, 255))
    try:
        samples = decoded(decoder, bytes(message), len(values))
    except (*FAILURES, ProtocolError):
        return
    fresh = decoded(ReadDecoder(range(len(values))), bytes(message), len(values))
    for name in ("value", "status", "ticks", "kind"):
        assert np.array_equal(getattr(samples, name), getattr(fresh, name), equal_nan=name == "value")


@pytest.mark.parametrize(
    "hostile",
    [
        b"\x01\x80" + struct.pack("<i", 2**31 - 1),
        b"\x01\x8c" + struct.pack("<i", 2**31 - 1),
        b"\x01\x8c" + struct.pack("<i", -2),
        b"\x01\x80" + struct.pack("<i", 40) + b"\0" * 60,
        b"\x01\x98" * 40 + struct.pack("<i", 1) * 40,
        b"\x01" + b"\x18" * 5000,
        b"\x01\x19" + b"\x40" * 5000,
        b"\x01" + b"\x17\x01" * 5000,
        b"\x01\x11\x3f\x00",
        b"\x01\x0d",
    ],
)
def test_lengths_and_depths_that_cannot_be_cost_nothing(hostile: bytes) -> None:
    """A server that claims two thousand million items in ten bytes is not believed."""
    began = time.process_time()
    with pytest.raises((*FAILURES, ProtocolError)):
        skip_data_value(hostile, 0)
    assert time.process_time() - began < 1.0


def test_a_prepared_request_is_what_the_library_would_send() -> None:
    nodes = [ua.NodeId("a", 2), ua.NodeId(70000, 1), ua.NodeId(UUID(int=3), 4), ua.NodeId(b"\x00", 5)]
    data = struct_to_binary(read_request(read_parameters(nodes)))
    request = struct_from_binary(ua.ReadRequest, ua.utils.Buffer(data))
    assert [one.NodeId for one in request.Parameters.NodesToRead] == nodes
    assert {one.AttributeId for one in request.Parameters.NodesToRead} == {ua.AttributeIds.Value}
    assert request.Parameters.MaxAge == 0.0
    assert request.Parameters.TimestampsToReturn is ua.TimestampsToReturn.Source
