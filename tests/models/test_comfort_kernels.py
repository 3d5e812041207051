"""PMV and PPD against the table of the standard and against an independent library."""

import itertools
import math
import warnings

import numpy as np
import pytest

from agent.kernels import load
from models.comfort_kernels import pmv, ppd, ppd_series

# ISO 7730:2005 Table D.1: air and radiant °C, m/s, %, met, clo → PMV, PPD. Its seventh row, as commonly reprinted (0.50
# at 23.5 °C, 0.1 m/s, 1 clo), does not follow from the standard's own program, whose result the library below confirms;
# it is left out.
TABLE_D1 = [
    (22.0, 22.0, 0.10, 60.0, 1.2, 0.5, -0.75, 17.0),
    (27.0, 27.0, 0.10, 60.0, 1.2, 0.5, 0.77, 17.0),
    (27.0, 27.0, 0.30, 60.0, 1.2, 0.5, 0.44, 9.0),
    (23.5, 25.5, 0.10, 60.0, 1.2, 0.5, -0.01, 5.0),
    (23.5, 25.5, 0.30, 60.0, 1.2, 0.5, -0.55, 11.0),
    (19.0, 19.0, 0.10, 40.0, 1.2, 1.0, -0.60, 13.0),
    (23.5, 23.5, 0.30, 40.0, 1.2, 1.0, 0.12, 5.0),
    (23.0, 21.0, 0.10, 40.0, 1.2, 1.0, 0.05, 5.0),
    (23.0, 21.0, 0.30, 40.0, 1.2, 1.0, -0.16, 6.0),
    (22.0, 22.0, 0.10, 60.0, 1.6, 0.5, 0.05, 5.0),
    (27.0, 27.0, 0.10, 60.0, 1.6, 0.5, 1.17, 34.0),
    (27.0, 27.0, 0.30, 60.0, 1.6, 0.5, 0.95, 24.0),
]


@pytest.mark.parametrize("row", TABLE_D1)
def test_table_d1(row):
    vote = pmv(*row[:6])
    assert vote == pytest.approx(row[6], abs=0.02)
    assert ppd(vote) == pytest.approx(row[7], abs=0.7)


def test_agrees_with_pythermalcomfort():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from pythermalcomfort.models import pmv_ppd_iso
    air, radiant, velocity = [15.0, 20.0, 26.0, 29.0], [17.0, 22.0, 30.0], [0.05, 0.2, 0.6]
    grid = list(itertools.product(air, radiant, velocity, [30.0, 70.0], [1.0, 1.6], [0.3, 1.0]))
    columns = [list(column) for column in zip(*grid, strict=True)]
    theirs = pmv_ppd_iso(*columns, limit_inputs=False, round_output=False)
    for row, vote, dissatisfied in zip(grid, theirs.pmv, theirs.ppd, strict=True):
        assert pmv(*row) == pytest.approx(float(vote), abs=2e-3), row
        assert ppd(pmv(*row)) == pytest.approx(float(dissatisfied), abs=0.1), row


def test_nobody_is_ever_quite_content():
    assert ppd(0.0) == pytest.approx(5.0)
    assert ppd(1.0) == ppd(-1.0) > 5.0
    assert ppd(10.0) == pytest.approx(100.0)


def test_unknown_temperature_gives_unknown_comfort():
    assert math.isnan(pmv(float("nan"), 20.0, 0.1, 50.0, 1.2, 1.0))
    assert math.isnan(ppd(float("nan")))


def test_compiled_and_plain_agree():
    air = np.linspace(10.0, 35.0, 200)
    plain, compiled = np.empty(200), np.empty(200)
    ppd_series(air, air, 0.1, 45.0, 1.2, 0.7, plain)
    load("models.comfort_kernels", "jit").ppd_series(air, air, 0.1, 45.0, 1.2, 0.7, compiled)
    np.testing.assert_allclose(compiled, plain, rtol=1e-12)
