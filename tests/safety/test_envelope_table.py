"""Envelopes that contradict themselves are refused; tables are frozen."""

from __future__ import annotations

import math

import numpy as np
import pytest
from enforce_rig import cooling, fan, heating
from hypothesis import given
from hypothesis import strategies as st

from safety.envelope import Envelope
from safety.envelope_table import EnvelopeTable
from safety.errors import EnvelopeError


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"low": 100.0}, "finite and rising"),
        ({"low": math.nan}, "finite and rising"),
        ({"high": math.inf}, "finite and rising"),
        ({"low": -1.7e308, "high": 1.7e308}, "finite and rising"),
        ({"fail_safe": 101.0}, "fail_safe 101 is outside"),
        ({"fail_safe": math.nan}, "fail_safe nan is outside"),
        ({"fail_safe": 10.0, "allowed": (0.0, 20.0)}, "fail_safe 10 is outside"),
        ({"max_step": 0.0}, "max_step must be above 0"),
        ({"max_step": math.inf}, "max_step must be above 0"),
        ({"max_rate": -1.0}, "max_rate must be above 0"),
        ({"max_rate": math.nan}, "max_rate must be above 0"),
        ({"dead_band": -1.0}, "dead_band must be finite"),
        ({"dead_band": 5.0, "max_step": 5.0}, "could never move"),
        ({"min_on_s": math.nan}, "min_on must be finite"),
        ({"min_off_s": math.inf}, "min_off must be finite"),
        ({"allowed": ()}, "at least one"),
        ({"allowed": (0.0, 101.0)}, "allowed value 101"),
        ({"allowed": (0.0, 50.0), "max_step": 1.0}, "use min_on and min_off"),
        ({"allowed": (0.0, 50.0), "max_rate": 1.0}, "use min_on and min_off"),
    ],
)
def test_contradictions_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(EnvelopeError, match=f"output z/heating: .*{message}"):
        heating(**changes)


def test_derived_values() -> None:
    one = Envelope("x", 10.0, 30.0, None, allowed=(30.0, 15.0))
    assert (one.middle, one.idle, heating().idle) == (20.0, 15.0, 0.0)


@given(st.floats(), st.booleans())
def test_permits_is_the_envelope(value: float, levels: bool) -> None:
    one = heating(allowed=(0.0, 50.0) if levels else None)
    expected = (
        value in (0.0, 50.0) or abs(value - 50.0) <= 1e-7 or 0.0 <= value <= 1e-7 if levels else 0.0 <= value <= 100.0
    )
    assert one.permits(value) == expected


def test_pairs_that_cannot_be() -> None:
    with pytest.raises(EnvelopeError, match="no output number 2"):
        EnvelopeTable.build([heating(), cooling()], [(0, 2)])
    with pytest.raises(EnvelopeError, match="no output number -1"):
        EnvelopeTable.build([heating(), cooling()], [(-1, 0)])
    with pytest.raises(EnvelopeError, match="cannot exclude itself"):
        EnvelopeTable.build([heating(), cooling()], [(1, 1)])
    with pytest.raises(EnvelopeError, match="at least one must be off"):
        EnvelopeTable.build([heating(fail_safe=50.0), cooling(fail_safe=50.0)], [(0, 1)])
    EnvelopeTable.build([heating(fail_safe=50.0), cooling(fail_safe=None)], [(0, 1)])


def test_one_envelope_an_output() -> None:
    with pytest.raises(EnvelopeError, match="two envelopes"):
        EnvelopeTable.build([heating(), cooling(), heating()])


def test_tables_are_frozen() -> None:
    table = EnvelopeTable.build([heating(), fan()], [(0, 1)])
    arrays = [getattr(table, name) for name in ("limits", "allowed_start", "allowed", "pairs")]
    for one in arrays:
        assert isinstance(one, np.ndarray)
        with pytest.raises(ValueError, match="read-only"):
            one[...] = 0
    with pytest.raises(AttributeError):
        table.limits = arrays[0]  # type: ignore[misc]
