"""The protocol between core and the train worker: what was sent comes back, and nothing else gets through."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.train.errors import MessageError
from agent.train.messages import (
    MAX_LINE,
    MAX_TEXT,
    Answer,
    EwmaSpec,
    Feedback,
    ParameterState,
    Proposal,
    Units,
    UnitSpec,
    decode,
    encode,
    encode_units,
)

finite = st.floats(allow_nan=False, allow_infinity=False)
names = st.text(max_size=20)
wholes = st.integers(0, 2**53 - 1)
SETBACK = ParameterState(3.25, 4, 3.0, 1.0, 8.0, 0.5)
EAST = UnitSpec("east", {"setback": SETBACK}, EwmaSpec("setback", -2.0, 0.3, 3600.0, True))


@given(
    st.builds(Feedback, names, finite, finite, finite, finite, st.integers(0, 2), st.booleans())
    | st.builds(Proposal, names, names, finite, wholes, st.text(max_size=MAX_TEXT), st.none() | finite)
    | st.builds(Answer, st.booleans(), names, names, finite, wholes, st.text(max_size=MAX_TEXT))
)
def test_messages_come_back_as_they_were_sent(message: Feedback | Proposal | Answer) -> None:
    line = encode(message)
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    assert decode(line) == message


def test_units_come_back_as_they_were_sent() -> None:
    sent = Units((EAST, UnitSpec("west", {}, None)))
    assert decode(encode(sent)) == sent


def test_a_missing_value_travels_as_null_and_arrives_as_nan() -> None:
    line = encode(Feedback("east", 1.0, 2.0, math.nan, math.inf, 0, True))
    assert b"NaN" not in line
    assert b"Infinity" not in line
    received = decode(line)
    assert isinstance(received, Feedback)
    assert math.isnan(received.value)
    assert math.isnan(received.target)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_proposal_cannot_carry_what_is_no_number(value: float) -> None:
    with pytest.raises(MessageError, match="nothing was sent"):
        encode(Proposal("east", "setback", value, 1, "", None))


def test_long_reasons_are_shortened_on_both_sides() -> None:
    proposal = Proposal("east", "setback", 1.0, 1, "x" * 10_000, None)
    received = decode(encode(proposal))
    assert isinstance(received, Proposal)
    assert received.reason == "x" * MAX_TEXT
    foreign = json.dumps({"type": "proposal", **proposal._asdict()}).encode()
    received = decode(foreign)
    assert isinstance(received, Proposal)
    assert len(received.reason) == MAX_TEXT


def test_many_units_are_sent_in_bounded_lines_and_none_is_lost() -> None:
    specs = [UnitSpec(f"zone-{k}", {f"parameter_{j}": SETBACK for j in range(8)}, None) for k in range(500)]
    lines = encode_units(specs)
    assert len(lines) > 1
    assert all(len(line) <= MAX_LINE for line in lines)
    received = [decode(line) for line in lines]
    assert [spec for message in received if isinstance(message, Units) for spec in message.units] == specs
    assert encode_units([]) == []


def test_a_line_longer_than_the_bound_is_neither_sent_nor_read() -> None:
    giant = UnitSpec("east", {f"parameter_{j}": SETBACK for j in range(2000)}, None)
    with pytest.raises(MessageError, match="more than a line may have"):
        encode(Units((giant,)))
    with pytest.raises(MessageError, match="longer than"):
        decode(b" " * (MAX_LINE + 1))


def body(message: Feedback | Proposal) -> dict[str, object]:
    parsed: dict[str, object] = json.loads(encode(message))
    return parsed


FEEDBACK = body(Feedback("east", 1.0, 2.0, 3.0, 4.0, 2, True))
PROPOSAL = body(Proposal("east", "setback", 3.5, 2, "why", 0.1))
PARAMETER = {"value": 3.0, "range": [1.0, 8.0], "max_step": 0.5}
EWMA = {"parameter": "setback", "gain": 2.0, "weight": 0.3, "window": 60.0}


def units(parameter: object = PARAMETER, ewma: object = EWMA) -> dict[str, object]:
    return {"type": "units", "units": [{"unit": "east", "parameters": {"setback": parameter}, "ewma": ewma}]}


def test_version_factory_and_learn_may_be_left_out() -> None:
    assert decode(json.dumps(units()).encode()) == Units(
        (
            UnitSpec(
                "east", {"setback": ParameterState(3.0, 0, 3.0, 1.0, 8.0, 0.5)}, EwmaSpec("setback", 2.0, 0.3, 60.0)
            ),
        )
    )


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"\n",
        b"{",
        b"[]",
        b"null",
        b"\xff\xfe",
        b"[" * 60_000,
        b'{"type":"write","point":"heating_valve","value":100}',
        b'{"type":"proposal","unit":"east","parameter":"setback","value":NaN,"version":1,"reason":""}',
        b'{"type":"proposal","unit":"east","parameter":"setback","value":1e999,"version":1,"reason":""}',
        b'{"type":"proposal","unit":"east","parameter":"setback","value":1' + b"0" * 400 + b',"version":1,"reason":""}',
        b'{"type":"proposal","unit":"east","parameter":"setback","value":1,"version":' + b"9" * 5000 + b',"reason":""}',
    ],
)
def test_what_is_no_message_is_refused(line: bytes) -> None:
    with pytest.raises(MessageError):
        decode(line)


@pytest.mark.parametrize(
    "changed",
    [
        FEEDBACK | {"unit": 5},
        FEEDBACK | {"t": None},
        FEEDBACK | {"t": True},
        FEEDBACK | {"value": "21"},
        FEEDBACK | {"quality": 2.0},
        FEEDBACK | {"quality": -1},
        FEEDBACK | {"counts": 1},
        PROPOSAL | {"value": None},
        PROPOSAL | {"value": False},
        PROPOSAL | {"version": "2"},
        PROPOSAL | {"version": True},
        PROPOSAL | {"version": 2**60},
        PROPOSAL | {"reason": None},
        PROPOSAL | {"standard_error": "small"},
        {"type": "units"},
        {"type": "units", "units": ["east"]},
        {"type": "units", "units": [{"unit": "east"}]},
        units(parameter=3.0),
        units(parameter=PARAMETER | {"range": [8.0, 1.0]}),
        units(parameter=PARAMETER | {"range": [1.0]}),
        units(parameter=PARAMETER | {"value": 9.0}),
        units(parameter=PARAMETER | {"max_step": 0.0}),
        units(ewma=EWMA | {"gain": 0.0}),
        units(ewma=EWMA | {"weight": 1.5}),
        units(ewma=EWMA | {"window": 0.0}),
        units(ewma="setback"),
    ],
)
def test_a_field_of_the_wrong_kind_is_refused(changed: dict[str, object]) -> None:
    with pytest.raises(MessageError):
        decode(json.dumps(changed).encode())


@pytest.mark.parametrize("original", [FEEDBACK, PROPOSAL])
def test_a_missing_field_is_refused(original: dict[str, object]) -> None:
    optional = {"value", "target"} if original["type"] == "feedback" else {"standard_error"}
    for key in original.keys() - optional:
        with pytest.raises(MessageError):
            decode(json.dumps({k: v for k, v in original.items() if k != key}).encode())


@given(
    st.binary(max_size=200)
    | st.recursive(finite | st.text() | st.none(), st.lists).map(lambda x: json.dumps(x).encode())
)
def test_no_line_makes_decode_raise_anything_else(line: bytes) -> None:
    with pytest.raises(MessageError):
        decode(line)
