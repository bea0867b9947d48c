from __future__ import annotations

from dataclasses import replace
from datetime import date, timedelta

import numpy as np
import pytest

from lakehouse.simulation.utility import Utility, coloured, local_day, utc_seconds
from lakehouse.simulation.weather import CITY, HILL, forecast, hourly, observed, sky

MADRID = Utility(first_day=date(2026, 1, 1))


def quarters_of(first: date, days: int) -> tuple[int, int]:
    return utc_seconds(first) // 900, 96 * days


def test_the_sun_shines_by_day_only_and_never_more_than_a_clear_sky_lets_through():
    field = sky(MADRID, *quarters_of(date(2026, 4, 1), 60))
    night = field["elevation_deg"] < 0
    assert night.mean() == pytest.approx(0.44, abs=0.05)  # spring nights in Madrid last some ten and a half hours
    assert (field["city_ghi_w_per_m2"][night] == 0).all()
    assert (field["city_ghi_w_per_m2"] <= field["ghi_clear"] + 1e-9).all()
    assert np.corrcoef(field["city_ghi_w_per_m2"], field["ghi_clear"])[0, 1] > 0.9
    assert 850 < field["ghi_clear"].max() < 1050


def test_solar_noon_in_madrid_is_a_quarter_past_twelve_utc():
    field = sky(MADRID, *quarters_of(date(2026, 4, 15), 1))  # 3.7° west: 15 minutes; the equation of time is nil in mid-April
    assert int(np.argmax(field["elevation_deg"])) / 4 == pytest.approx(12.25, abs=0.26)


def test_july_is_warm_and_january_cold_and_the_other_way_round_south_of_the_line():
    sydney = replace(MADRID, latitude_deg=-33.9, longitude_deg=151.2, altitude_m=20.0, time_zone="Australia/Sydney")
    for utility, sign in ((MADRID, 1), (sydney, -1)):
        january, july = (sky(utility, *quarters_of(date(2026, m, 1), 31))["city_temperature_c"].mean() for m in (1, 7))
        assert sign * (july - january) > 10


def test_afternoons_are_warmer_than_dawns_most_of_all_under_a_clear_sky():
    field = sky(MADRID, *quarters_of(date(2026, 5, 1), 90))
    temperature = field["city_temperature_c"].reshape(90, 96)
    swing = temperature[:, 56:64].mean(axis=1) - temperature[:, 14:22].mean(axis=1)  # 14-16 h less 3:30-5:30 UTC
    sunshine = field["city_ghi_w_per_m2"].reshape(90, 96).sum(axis=1) / field["ghi_clear"].reshape(90, 96).sum(axis=1)
    assert swing.mean() == pytest.approx(10, abs=3)
    assert np.corrcoef(swing, sunshine)[0, 1] > 0.5


def test_the_hill_is_cooler_and_windier_and_has_the_citys_fronts():
    field = sky(MADRID, *quarters_of(date(2026, 1, 1), 120))
    assert 1.5 < (field["city_temperature_c"] - field["hill_temperature_c"]).mean() < 3.5
    assert field["hill_wind_speed_m_per_s"].mean() > 1.4 * field["city_wind_speed_m_per_s"].mean()
    assert np.corrcoef(field["city_wind_latent"], field["hill_wind_latent"])[0, 1] > 0.7


def test_days_and_months_join_without_a_jump():
    field = sky(MADRID, *quarters_of(date(2026, 1, 20), 30))
    for name in ("felt_temperature_c", "city_pressure_hpa", "hill_wind_latent"):
        steps = np.abs(np.diff(field[name]))
        is_midnight = np.arange(1, len(field[name])) % 96 == 0
        assert steps[is_midnight].max() < 2 * steps[~is_midnight].max()


def test_any_stretch_of_the_sky_is_the_same_whatever_was_asked_for():
    whole = sky(MADRID, *quarters_of(date(2026, 1, 28), 8))
    part = sky(MADRID, *quarters_of(date(2026, 2, 1), 1))
    for name in whole.fields:
        assert (whole[name][4 * 96 : 5 * 96] == part[name]).all(), name


def test_the_forecast_is_skilful_and_gets_worse_with_the_lead():
    days = [date(2026, 1, 1) + timedelta(days=n) for n in range(200)]
    days = [d for d in days if local_day("Europe/Madrid", d).quarters == 96]
    starts = [local_day("Europe/Madrid", d).start_s for d in days]
    actual = np.array([observed(MADRID, s, 24)[CITY, "temperature_c"] for s in starts])
    told = np.array([forecast(MADRID, d)[CITY, "temperature_c"] for d in days])
    error = told - actual
    persistence = actual[1:] - actual[:-1]
    assert np.sqrt((error**2).mean()) < 0.6 * np.sqrt((persistence**2).mean())
    assert 0.7 < error[:, :6].std() < error[:, -6:].std() < 2.0
    assert abs(error.mean()) < 0.2


def test_the_wind_forecast_knows_most_of_the_wind_and_not_its_gusts():
    days = [date(2026, 1, 1) + timedelta(days=n) for n in range(80)]
    actual = np.concatenate([observed(MADRID, local_day("Europe/Madrid", d).start_s, 24)[HILL, "wind_speed_m_per_s"] for d in days])
    told = np.concatenate([forecast(MADRID, d)[HILL, "wind_speed_m_per_s"] for d in days])
    assert 0.8 < np.corrcoef(actual, told)[0, 1] < 0.96
    assert np.abs(np.diff(told)).mean() < 1.2 * np.abs(np.diff(actual)).mean()


def test_coloured_noise_has_unit_variance_and_the_memory_asked_for():
    noise = coloured(np.random.default_rng(1).standard_normal((50, 20_000)), (20.0,))[:, 5_000:]
    assert noise.std() == pytest.approx(1.0, abs=0.03)
    assert np.mean(noise[:, 20:] * noise[:, :-20]) == pytest.approx(np.exp(-1), abs=0.03)


def test_hourly_means():
    assert hourly(np.array([1.0, 2.0, 3.0, 6.0, 0.0, 0.0, 0.0, 4.0])).tolist() == [3.0, 1.0]
