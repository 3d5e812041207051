"""Synthetic weather and office hours: reproducible, plausible, and the same however they are read."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from models.occupancy import OfficeHours
from models.weather import CLIMATES, Weather, clear_sky

NEW_YEAR = datetime(2026, 1, 1, tzinfo=UTC)
YEAR = np.arange(0.0, 365 * 86400.0, 3600.0)


def test_the_same_seed_is_the_same_weather_and_another_is_not():
    first = Weather("cold", seed=4, start=NEW_YEAR).sample(YEAR[:500])
    assert np.array_equal(first, Weather("cold", seed=4, start=NEW_YEAR).sample(YEAR[:500]))
    assert not np.allclose(first, Weather("cold", seed=5, start=NEW_YEAR).sample(YEAR[:500]))


def test_step_by_step_and_a_year_at_once_are_the_same_bits():
    at_once = Weather("temperate", seed=1, start=NEW_YEAR).sample(YEAR[::37])
    slowly = Weather("temperate", seed=1, start=NEW_YEAR)
    assert [slowly.at(moment) for moment in YEAR[::37]] == [tuple(row) for row in at_once.tolist()]


@pytest.mark.parametrize("name", ["cold", "temperate", "mild", "hot"])
def test_a_year_has_the_statistics_of_its_climate(name):
    climate = CLIMATES[name]
    outdoor = np.mean([Weather(name, seed=seed, start=NEW_YEAR).sample(YEAR)[:, 0] for seed in range(8)], axis=0)
    assert outdoor.mean() == pytest.approx(climate.mean, abs=0.5)
    monthly = outdoor[: 12 * 730].reshape(12, 730).mean(axis=1)
    assert monthly.argmin() in (0, 1, 11)
    assert monthly.argmax() in (5, 6, 7)
    assert monthly.max() - monthly.min() == pytest.approx(
        2.0 * climate.yearly_swing, abs=0.15 * climate.yearly_swing + 1.5
    )
    by_hour = outdoor[: 364 * 24].reshape(364, 24).mean(axis=0)
    assert by_hour.argmin() in (4, 5, 6)
    assert by_hour.argmax() in (16, 17, 18)


def test_noise_has_the_declared_spread_and_forgets():
    residuals = []
    for seed in range(30):
        outdoor = Weather("cold", seed=seed, start=NEW_YEAR).sample(YEAR[: 24 * 60])[:, 0]
        residuals.append(outdoor)
    noise = np.array(residuals) - np.mean(residuals, axis=0)
    assert noise.std() == pytest.approx(4.0, rel=0.2)
    lagged = [np.corrcoef(noise[:, hour], noise[:, hour + 1])[0, 1] for hour in range(0, 1000, 50)]
    assert np.mean(lagged) > 0.9


def test_the_sun_of_a_clear_day():
    noon_june = datetime(2026, 6, 21, 12, tzinfo=UTC).timestamp()
    noon_december = datetime(2026, 12, 21, 12, tzinfo=UTC).timestamp()
    midnight = datetime(2026, 6, 21, 0, tzinfo=UTC).timestamp()
    june, december, night = clear_sky(np.array([noon_june, noon_december, midnight]), 47.0)
    # Sun heights 66.4° and 19.6° put into Haurwitz' formula by hand.
    assert june == pytest.approx(1098 * np.sin(np.radians(66.4)) * np.exp(-0.057 / np.sin(np.radians(66.4))), rel=0.01)
    assert december == pytest.approx(
        1098 * np.sin(np.radians(19.6)) * np.exp(-0.057 / np.sin(np.radians(19.6))), rel=0.03
    )
    assert night == 0.0


def test_sunshine_is_never_negative_and_summer_has_more():
    sun = Weather("temperate", seed=2, start=NEW_YEAR).sample(YEAR)[:, 1]
    assert sun.min() == 0.0
    assert 300.0 < sun.max() < 600.0
    assert sun[24 * 150 : 24 * 210].mean() > 2.0 * sun[: 24 * 60].mean()


def test_the_design_day_is_cold_whenever_it_starts():
    for month in (1, 7):
        outdoor, _ = Weather("winter_morning", seed=1, start=datetime(2026, month, 12, 6, tzinfo=UTC)).at(0.0)
        assert -17.0 < outdoor < -11.0


def test_a_start_without_a_time_zone_is_refused():
    with pytest.raises(ValueError, match="no time zone"):
        Weather("cold", seed=1, start=datetime(2026, 1, 1))


def hours_present(start: datetime, days: int, **arguments) -> np.ndarray:
    people = OfficeHours(4, seed=3, start=start, **arguments)
    return people.sample(np.arange(0.0, days * 86400.0, 300.0)).reshape(days, 288, 4).sum(axis=1) / 12.0


def test_weekdays_are_worked_and_weekends_are_not():
    monday = datetime(2026, 1, 12, tzinfo=UTC)
    assert monday.weekday() == 0
    hours = hours_present(monday, 14)
    for day in range(14):
        if day % 7 >= 5:
            assert np.all(hours[day] == 0.0)
        else:
            assert np.all((hours[day] > 9.9) & (hours[day] < 12.1))


def test_arrivals_differ_between_days_and_zones_but_not_between_runs():
    monday = datetime(2026, 1, 12, tzinfo=UTC)
    hours = hours_present(monday, 3)
    assert np.unique(hours).size > 6
    assert np.array_equal(hours, hours_present(monday, 3))


def test_a_script_fills_the_first_day_even_on_a_sunday():
    sunday = datetime(2026, 1, 11, tzinfo=UTC)
    people = OfficeHours(2, seed=1, start=sunday, first_day=(6.2, 6.8))
    present = np.empty(2)
    people.at(6.3 * 3600.0, present)
    assert present.tolist() == [1.0, 0.0]
    people.at(6.9 * 3600.0, present)
    assert present.tolist() == [1.0, 1.0]
    people.at(timedelta(days=6, hours=10).total_seconds(), present)
    assert present.tolist() == [0.0, 0.0], "the next Saturday is free"
