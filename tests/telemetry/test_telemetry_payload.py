"""Payloads: the exact text, and never a number that JSON does not have."""

from __future__ import annotations

import datetime as dt
import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.telemetry.errors import PayloadError
from agent.telemetry.payload import SnapshotEncoder, encode_object, encode_point, iso_utc
from safety.values import Quality, Reason

TS = 1_767_323_045.678
ANY_FLOAT = st.floats(allow_nan=True, allow_infinity=True)


def strict(payload: bytes) -> object:
    """Parse as a strict reader does: NaN and Infinity are errors."""

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} in {payload!r}")

    return json.loads(payload, parse_constant=refuse)


def test_a_good_point_is_exactly_the_documented_text() -> None:
    assert encode_point(21.4, "Cel", Quality.GOOD, TS, 812) == (
        b'{"value":21.4,"unit":"Cel","quality":"good","ts":"2026-01-02T03:04:05.678Z","seq":812,"source":"live"}'
    )


def test_a_bad_point_is_null_with_its_reason() -> None:
    payload = encode_point(math.nan, "Cel", Quality.BAD, TS, 1, reason=Reason.STALE)
    assert payload == (
        b'{"value":null,"unit":"Cel","quality":"bad","reason":"stale","ts":"2026-01-02T03:04:05.678Z","seq":1,"source":"live"}'
    )


def test_a_bad_point_never_shows_its_raw_value() -> None:
    assert strict(encode_point(99.0, "Cel", Quality.BAD, TS, 1, reason=Reason.OUT_OF_RANGE))["value"] is None  # type: ignore[index]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("quality", [Quality.GOOD, Quality.UNCERTAIN])
def test_a_value_that_is_not_finite_becomes_bad(value: float, quality: Quality) -> None:
    point = strict(encode_point(value, "Cel", quality, TS, 1, reason=Reason.SUBSTITUTED))
    assert (point["value"], point["quality"], point["reason"]) == (None, "bad", "not_a_number")  # type: ignore[index]


def test_an_uncertain_value_is_shown_with_its_reason() -> None:
    point = strict(encode_point(20.0, "Cel", Quality.UNCERTAIN, TS, 1, reason=Reason.SUBSTITUTED))
    assert (point["value"], point["quality"], point["reason"]) == (20.0, "uncertain", "substituted")  # type: ignore[index]


def test_numpy_and_integer_values_are_written_as_numbers() -> None:
    assert b'"value":1.5,' in encode_point(np.float64(1.5), "1", Quality.GOOD, TS, 1)
    assert b'"value":3.0,' in encode_point(3, "1", Quality.GOOD, TS, 1)


def test_a_unit_of_measure_is_escaped() -> None:
    point = strict(encode_point(1.0, 'm3/h"\\', Quality.GOOD, TS, 1))
    assert point["unit"] == 'm3/h"\\'  # type: ignore[index]


@given(ANY_FLOAT, st.sampled_from(Quality), st.sampled_from(Reason), st.integers(0, 2**63))
def test_every_point_is_strict_json_and_believable(value: float, quality: Quality, reason: Reason, seq: int) -> None:
    point = strict(encode_point(value, "kW.h", quality, TS, seq, reason=reason))
    assert isinstance(point, dict)
    assert (point["value"] is None) == (quality == Quality.BAD or not math.isfinite(value))
    assert (point["quality"] == "good") == ("reason" not in point)
    assert point["seq"] == seq
    if point["value"] is not None:
        assert point["value"] == value  # repr gives every float back exactly


@given(st.integers(0, 253_402_300_798_999))
def test_times_are_right_to_the_millisecond(milliseconds: int) -> None:
    parsed = dt.datetime.fromisoformat(iso_utc(milliseconds / 1000.0))
    assert parsed.tzinfo is not None
    assert round((parsed - dt.datetime(1970, 1, 1, tzinfo=dt.UTC)) / dt.timedelta(milliseconds=1)) == milliseconds


def test_a_time_just_below_a_second_is_rounded_up_into_the_next() -> None:
    assert iso_utc(59.9999) == "1970-01-01T00:01:00.000Z"
    assert iso_utc(-0.001) == "1969-12-31T23:59:59.999Z"


@pytest.mark.parametrize("ts", [math.nan, math.inf, -math.inf, 1e15])
def test_a_point_without_a_time_is_refused(ts: float) -> None:
    with pytest.raises(PayloadError, match="UTC time"):
        encode_point(1.0, "1", Quality.GOOD, ts, 1)


def test_a_snapshot_is_exactly_the_documented_text() -> None:
    encoder = SnapshotEncoder([("zone_temp", "Cel"), ("supply_fan", "1")])
    payload = encoder.encode(
        np.array([21.4, math.nan]),
        np.array([Quality.GOOD, Quality.BAD], dtype=np.uint8),
        np.array([Reason.OK, Reason.STALE], dtype=np.uint8),
        TS,
        7,
    )
    assert payload == (
        b'{"ts":"2026-01-02T03:04:05.678Z","seq":7,"source":"live","points":'
        b'{"zone_temp":{"value":21.4,"unit":"Cel","quality":"good"},'
        b'"supply_fan":{"value":null,"unit":"1","quality":"bad","reason":"stale"}}}'
    )


def test_a_snapshot_of_no_points_is_still_json() -> None:
    empty = np.zeros(0)
    codes = np.zeros(0, dtype=np.uint8)
    assert strict(SnapshotEncoder([]).encode(empty, codes, codes, TS, 1))["points"] == {}  # type: ignore[index]


def test_a_snapshot_refuses_arrays_of_another_length() -> None:
    codes = np.zeros(1, dtype=np.uint8)
    with pytest.raises(ValueError, match="2 points"):
        SnapshotEncoder([("a", "1"), ("b", "1")]).encode(np.zeros(1), codes, codes, TS, 1)


@pytest.mark.parametrize("unit", ["%", "%r", "%s%%", "m%", "{SPM}"])
def test_a_unit_with_signs_of_formatting_is_written_as_it_is(unit: str) -> None:
    good = np.full(1, Quality.GOOD, dtype=np.uint8)
    snapshot = strict(SnapshotEncoder([("a", unit)]).encode(np.array([1.5]), good, good, TS, 1))
    assert snapshot["points"]["a"] == {"value": 1.5, "unit": unit, "quality": "good"}  # type: ignore[index]


def test_huge_numbers_whose_sum_overflows_are_still_numbers() -> None:
    good = np.full(2, Quality.GOOD, dtype=np.uint8)
    snapshot = strict(SnapshotEncoder([("a", "1"), ("b", "1")]).encode(np.array([1.7e308, 1.7e308]), good, good, TS, 1))
    assert snapshot["points"]["b"]["value"] == 1.7e308  # type: ignore[index]


@given(st.lists(st.tuples(ANY_FLOAT, st.sampled_from(Quality), st.sampled_from(Reason)), min_size=1, max_size=20))
def test_a_snapshot_says_of_each_point_what_its_own_message_says(rows: list[tuple[float, Quality, Reason]]) -> None:
    encoder = SnapshotEncoder([(f"p{index}", "Cel") for index in range(len(rows))], source="sim")
    value, quality, reason = (np.array(column) for column in zip(*rows, strict=True))
    snapshot = strict(encoder.encode(value.astype(float), quality.astype(np.uint8), reason.astype(np.uint8), TS, 3))
    assert isinstance(snapshot, dict)
    for index, (number, code, why) in enumerate(rows):
        alone = strict(encode_point(number, "Cel", code, TS, 3, reason=why))
        assert isinstance(alone, dict)
        assert snapshot["points"][f"p{index}"] == {
            key: alone[key] for key in alone if key not in ("ts", "seq", "source")
        }


def test_objects_are_compact_and_keep_their_letters() -> None:
    assert (
        encode_object({"name": "Büro", "n": 1, "list": [1.5, None]})
        == '{"name":"Büro","n":1,"list":[1.5,null]}'.encode()
    )


def test_numbers_that_are_not_finite_become_null_at_any_depth() -> None:
    content = {"a": math.nan, "b": [math.inf, {"c": -math.inf, "d": (1.0, math.nan)}], "e": "NaN"}
    assert strict(encode_object(content)) == {"a": None, "b": [None, {"c": None, "d": [1.0, None]}], "e": "NaN"}


def test_what_is_no_json_is_refused_with_the_names_of_its_fields() -> None:
    with pytest.raises(PayloadError, match="when"):
        encode_object({"when": object()})
    endless: dict[str, object] = {}
    endless["self"] = endless
    with pytest.raises(PayloadError, match="self"):
        encode_object(endless)
