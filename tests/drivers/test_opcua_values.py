"""Values on their way to a node, and what status codes and changes mean."""

from __future__ import annotations

import math

import numpy as np
import pytest
from asyncua import ua
from hypothesis import given
from hypothesis import strategies as st

from drivers.errors import (
    AuthenticationError,
    DeadlineError,
    DeviceRefusedError,
    DriverError,
    EncodingError,
    NotConnectedError,
    NotWritableError,
    ProtocolError,
)
from drivers.opcua.choice import FEWEST, WINDOW, Choice
from drivers.opcua.faults import request_error, status_name, write_error
from drivers.opcua.quality import judge, judge_status
from drivers.opcua.settings import OpcUaAddress
from drivers.opcua.values import INTEGERS, encode, kind_of
from drivers.opcua.wire import Samples
from safety.values import Quality, Reason

Kind = ua.VariantType
Codes = ua.StatusCodes
NODE = "nsu=urn:a;s=V"


def address(**given_: object) -> OpcUaAddress:
    return OpcUaAddress(node=NODE, **given_)  # type: ignore[arg-type]


@given(st.sampled_from(list(INTEGERS)), st.data())
def test_every_whole_number_in_range_goes_as_it_is(kind: Kind, data: st.DataObject) -> None:
    low, high = INTEGERS[kind]
    value = data.draw(st.integers(max(low, -(2**53)), min(high, 2**53)))
    assert encode(address(), kind, float(value), "a/b") == ua.Variant(value, kind)


@pytest.mark.parametrize("kind", list(INTEGERS))
def test_nothing_wraps(kind: Kind) -> None:
    low, high = INTEGERS[kind]
    for value in (low - max(1.0, abs(low) * 1e-9), float(high) + max(1.0, high * 1e-9), 1e300, -1e300):
        with pytest.raises(EncodingError, match="a/b"):
            encode(address(type=kind.name), kind, value, "a/b")


@pytest.mark.parametrize("kind", [*INTEGERS, Kind.Boolean, Kind.Float, Kind.Double])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_never_sent(kind: Kind, value: float) -> None:
    with pytest.raises(EncodingError, match="a/b"):
        encode(address(), kind, value, "a/b")


def test_rounding_must_be_declared() -> None:
    with pytest.raises(EncodingError, match="type: Int16"):
        encode(address(), Kind.Int16, 21.4, "a/b")
    assert encode(address(type="Int16"), Kind.Int16, 21.4, "a/b").Value == 21
    assert encode(address(scale=0.1), Kind.Int16, 21.4, "a/b").Value == 214, "only what scaling leaves of rounding"
    assert encode(address(type="Int16", scale=0.1, offset=-40.0), Kind.Int16, -12.34, "a/b").Value == 277


def test_a_declared_type_that_the_node_does_not_have_is_an_error() -> None:
    with pytest.raises(EncodingError, match="is Float, the file says type: Int16"):
        encode(address(type="Int16"), Kind.Float, 1.0, "a/b")


def test_on_off_and_nothing_between() -> None:
    assert encode(address(), Kind.Boolean, 1.0, "a/b").Value is True
    assert encode(address(), Kind.Boolean, 0.0, "a/b").Value is False
    with pytest.raises(EncodingError, match="neither off nor on"):
        encode(address(), Kind.Boolean, 0.5, "a/b")


def test_single_floats_do_not_overflow() -> None:
    assert encode(address(), Kind.Float, 3.4028234e38, "a/b").Value == 3.4028234e38
    with pytest.raises(EncodingError, match="Float"):
        encode(address(), Kind.Float, 3.5e38, "a/b")
    with pytest.raises(EncodingError, match="Double"):
        encode(address(scale=1e-300), Kind.Double, 1e300, "a/b")


def test_the_kind_comes_from_the_value_or_from_the_declaration() -> None:
    assert kind_of(ua.Variant(1, Kind.Int16), ua.NodeId(11)) is Kind.Int16
    assert kind_of(ua.Variant(None, Kind.Null), ua.NodeId(11)) is Kind.Double
    assert kind_of(None, ua.NodeId(290)) is Kind.Double
    assert kind_of(None, ua.NodeId(29)) is Kind.Int32
    assert kind_of(None, ua.NodeId(12)) is None
    assert kind_of(None, ua.NodeId(11, 2)) is None
    assert kind_of(None, None) is None
    assert kind_of(ua.Variant("x", Kind.String), None) is None
    assert kind_of(ua.Variant([1.0], Kind.Double), None) is None


@pytest.mark.parametrize(
    ("code", "quality", "reason"),
    [
        (Codes.Good, Quality.GOOD, Reason.OK),
        (Codes.GoodLocalOverride, Quality.GOOD, Reason.OK),
        (Codes.Good | 0x0480, Quality.GOOD, Reason.OK),
        (Codes.UncertainSensorNotAccurate, Quality.UNCERTAIN, Reason.DEVICE_UNCERTAIN),
        (Codes.UncertainSubstituteValue, Quality.UNCERTAIN, Reason.SUBSTITUTED),
        (Codes.UncertainLastUsableValue, Quality.BAD, Reason.STALE),
        (Codes.UncertainNoCommunicationLastUsableValue | 0x0400, Quality.BAD, Reason.STALE),
        (Codes.UncertainInitialValue, Quality.BAD, Reason.NEVER_READ),
        (Codes.BadOutOfService, Quality.BAD, Reason.OUT_OF_SERVICE),
        (Codes.BadNoCommunication, Quality.BAD, Reason.DEVICE_UNREACHABLE),
        (Codes.BadWaitingForInitialData, Quality.BAD, Reason.NEVER_READ),
        (Codes.BadSensorFailure, Quality.BAD, Reason.DEVICE_ERROR),
        (Codes.BadNodeIdUnknown, Quality.BAD, Reason.DEVICE_ERROR),
        (0xC0000000, Quality.BAD, Reason.DEVICE_ERROR),
        (0xFFFFFFFF, Quality.BAD, Reason.DEVICE_ERROR),
    ],
)
def test_what_a_status_code_means(code: int, quality: Quality, reason: Reason) -> None:
    assert judge_status(code) == (quality, reason)


@given(st.lists(st.tuples(st.integers(0, 2**32 - 1), st.floats(), st.integers(0, 255)), max_size=20))
def test_no_row_is_good_unless_everything_about_it_is(rows: list[tuple[int, float, int]]) -> None:
    samples = Samples.waiting(len(rows))
    value = np.array([row[1] for row in rows], np.float64)
    samples.status[:] = [row[0] for row in rows]
    samples.kind[:] = [row[2] for row in rows]
    raw = value.copy()
    quality, reason = judge(samples, value)
    for row, (code, _value, kind) in enumerate(rows):
        expected = judge_status(code)
        if expected[0] != Quality.BAD and not math.isfinite(raw[row]):
            wrong = Reason.NOT_A_NUMBER if 1 <= kind <= 11 else Reason.DECODE_ERROR
            expected = (Quality.BAD, wrong)
        assert (quality[row], reason[row]) == expected
        assert math.isnan(value[row]) if expected[0] == Quality.BAD else value[row] == raw[row]


@pytest.mark.parametrize(
    ("error", "kind", "text"),
    [
        (TimeoutError(), DeadlineError, "no answer in time"),
        (ConnectionRefusedError("refused"), NotConnectedError, "check the address"),
        (ua.UaStatusCodeError(Codes.BadUserAccessDenied), AuthenticationError, "password_file"),
        (ua.UaStatusCodeError(Codes.BadCertificateUntrusted), AuthenticationError, "trusts our certificate"),
        (ua.UaStatusCodeError(Codes.BadSessionIdInvalid), NotConnectedError, "new session"),
        (ua.UaStatusCodeError(Codes.BadTimeout), DeadlineError, "BadTimeout"),
        (ua.UaStatusCodeError(Codes.BadTooManyOperations), DeviceRefusedError, "BadTooManyOperations"),
        (ua.UaError("rubbish"), ProtocolError, "rubbish"),
        (IndexError("index"), ProtocolError, "cannot be understood"),
        (ProtocolError("ours"), ProtocolError, "ours"),
    ],
)
def test_every_failure_becomes_one_of_our_errors(error: Exception, kind: type[DriverError], text: str) -> None:
    found = request_error(error, "host:1", "reading")
    assert type(found) is kind or isinstance(found, DeviceRefusedError)
    assert text in str(found)


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (Codes.BadNotWritable, NotWritableError),
        (Codes.BadWriteNotSupported, NotWritableError),
        (Codes.BadUserAccessDenied, DeviceRefusedError),
        (Codes.BadTypeMismatch, EncodingError),
        (Codes.BadOutOfRange, EncodingError),
        (Codes.BadDeviceFailure, DeviceRefusedError),
        (0xFFFF0000, DeviceRefusedError),
    ],
)
def test_every_refused_write_says_why_and_for_which_point(code: int, kind: type[DriverError]) -> None:
    error = write_error(code, "host:1", "ahu/valve")
    assert type(error) is kind
    assert "ahu/valve" in str(error)
    assert status_name(code) in str(error)


def watch(choice: Choice, subscribed: np.ndarray, moving: np.ndarray, polls: int) -> list[np.ndarray]:
    """Feed polls in which the rows of ``moving`` change every time; returns what was decided."""
    decisions = []
    for poll in range(polls):
        samples = Samples.waiting(len(moving))
        samples.status[:] = 0
        samples.value[:] = np.where(moving, float(poll), 7.0)
        wanted = choice.observe(samples, subscribed)
        if wanted is not None:
            decisions.append(wanted)
    return decisions


def test_still_points_are_subscribed_and_lively_ones_polled() -> None:
    count = 4 * FEWEST
    moving = np.arange(count) % 2 == 0
    candidates = np.arange(count) >= 4
    (wanted,) = watch(Choice(candidates), np.zeros(count, bool), moving, WINDOW + 1)
    assert (wanted == (candidates & ~moving)).all()
    assert not watch(Choice(candidates), wanted, moving, 3 * WINDOW), "what is right stays"
    (back,) = watch(Choice(candidates), wanted, np.ones(count, bool), WINDOW + 1)
    assert not back.any()


def test_few_points_and_bad_points_do_not_move() -> None:
    few = FEWEST - 1
    assert not watch(Choice(np.ones(few, bool)), np.zeros(few, bool), np.zeros(few, bool), 5 * WINDOW)
    choice = Choice(np.ones(100, bool))
    for _ in range(3 * WINDOW):
        bad = Samples.waiting(100)
        assert choice.observe(bad, np.zeros(100, bool)) is None


def test_a_gap_is_no_change() -> None:
    choice = Choice(np.ones(100, bool))
    still = np.zeros(100, bool)
    assert not watch(choice, still, still, WINDOW // 2)
    choice.forget()
    assert watch(choice, still, still, WINDOW)
