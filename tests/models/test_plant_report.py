"""Reports from recorded series: meters, discomfort, dissatisfaction, starts."""

import math

import numpy as np
import pytest

from models.comfort_kernels import pmv, ppd
from models.report import discomfort, energy_by_use, hours_held, meter_difference, starts_by_machine

NAN = float("nan")


def array(*values: float) -> np.ndarray:
    return np.array(values, dtype=float)


@pytest.mark.parametrize(
    ("values", "counted"),
    [
        (array(10.0, 12.0, 15.0), 5.0),
        (array(10.0, NAN, 15.0), 5.0),
        (array(10.0, 12.0, 1.0, 3.0), 5.0),  # replaced by a new meter: 2, then 1, then 2
        (array(7.0), 0.0),
        (array(), 0.0),
        (array(NAN, NAN), 0.0),
    ],
)
def test_what_a_meter_counted(values, counted):
    assert meter_difference(values) == pytest.approx(counted)


def test_energy_and_starts_by_name():
    series = {"e_h": array(1.0, 4.5), "starts_hp": array(2.0, 9.0)}
    assert energy_by_use(series, {"heating": "e_h", "cooling": "not_recorded"}) == {"heating": 3.5}
    starts = starts_by_machine(series, {"heat_pump": "starts_hp", "chiller": "not_recorded"})
    assert starts == {"heat_pump": 7}
    assert isinstance(starts["heat_pump"], int)


def test_a_sample_holds_until_the_next():
    assert hours_held(array(0.0, 1800.0, 5400.0), 7200.0).tolist() == [0.5, 1.0, 0.5]


def test_discomfort_by_hand():
    times = array(0.0, 3600.0, 7200.0, 10800.0)
    found = discomfort(times, array(18.0, 27.5, 22.0, 10.0), array(1.0, 1.0, 1.0, 0.0), 20.0, 26.0, end=14400.0)
    assert found.occupied_h == pytest.approx(3.0)
    assert found.kelvin_hours == pytest.approx(2.0 + 1.5)
    assert found.hours_outside == pytest.approx(2.0)
    expected = np.mean([ppd(pmv(t, t, 0.1, 45.0, 1.2, 1.0)) for t in (18.0, 27.5, 22.0)])
    assert found.mean_ppd == pytest.approx(expected)


def test_unknown_temperatures_count_for_nothing():
    found = discomfort(array(0.0, 3600.0), array(NAN, 18.0), None, 20.0, 26.0, end=7200.0)
    assert found.occupied_h == pytest.approx(1.0)
    assert found.kelvin_hours == pytest.approx(2.0)


def test_an_unknown_presence_is_not_presence():
    found = discomfort(array(0.0, 3600.0), array(15.0, 15.0), array(NAN, 0.0), 20.0, 26.0, end=7200.0)
    assert found.occupied_h == 0.0
    assert math.isnan(found.mean_ppd)


def test_an_empty_record():
    found = discomfort(array(), array(), None, 20.0, 26.0)
    assert (found.occupied_h, found.kelvin_hours) == (0.0, 0.0)


def test_cold_surfaces_make_the_same_air_worse():
    times, air = array(0.0, 3600.0), array(21.0, 21.0)
    warm = discomfort(times, air, None, 20.0, 26.0, radiant=air)
    cold = discomfort(times, air, None, 20.0, 26.0, radiant=air - 4.0)
    assert cold.mean_ppd > warm.mean_ppd + 2.0


def test_lengths_must_agree():
    with pytest.raises(ValueError, match="one length"):
        discomfort(array(0.0, 1.0), array(20.0), None, 20.0, 26.0)
