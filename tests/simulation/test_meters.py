from __future__ import annotations

from dataclasses import replace
from datetime import date, timedelta

import numpy as np
import pytest

from lakehouse.errors import GridlakeError
from lakehouse.simulation.meters import class_counts, layout, portfolio_peak_mw, rated_kw, routes, true_energy_kwh, true_power_kw
from lakehouse.simulation.utility import Utility, local_day
from lakehouse.simulation.weather import sky

UTILITY = Utility(first_day=date(2026, 1, 1), meters=200)
SPRING_FORWARD, FALL_BACK = date(2026, 3, 29), date(2026, 10, 25)


def route_of(meter_class: str, utility: Utility = UTILITY):
    return next(r for r in routes(utility) if r.meter_class == meter_class)


def daily_kwh(meter_class: str, days: list[date]) -> np.ndarray:
    return np.array([true_energy_kwh(UTILITY, route_of(meter_class), d).sum() for d in days])


def weekdays(first: date, count: int) -> list[date]:
    days = [first + timedelta(days=n) for n in range(2 * count)]
    return [d for d in days if d.weekday() < 5 and not UTILITY.is_holiday(d)][:count]


@pytest.mark.parametrize("meters", [5, 6, 23, 200, 12_345])
def test_every_size_has_every_class(meters):
    counts = class_counts(meters)
    assert sum(counts.values()) == meters and min(counts.values()) >= 1
    utility = replace(UTILITY, meters=meters)
    ids = [m for r in routes(utility) for m in r.meter_ids]
    assert len(ids) == len(set(ids)) == meters


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"meters": 4}, "5 meters"),
        ({"seed": -1}, "seed"),
        ({"dirt": 21.0}, "dirt"),
        ({"latitude_deg": 91.0}, "Earth"),
        ({"time_zone": "Mars/Phobos"}, "IANA"),
    ],
)
def test_a_utility_that_can_not_be_is_refused_with_the_reason(wrong, named):
    with pytest.raises(GridlakeError, match=named):
        Utility(first_day=date(2026, 1, 1), **wrong)


@pytest.mark.parametrize(("day", "hours"), [(SPRING_FORWARD, 23), (date(2026, 3, 30), 24), (FALL_BACK, 25)])
def test_a_local_day_has_as_many_intervals_as_hours(day, hours):
    local = local_day("Europe/Madrid", day)
    assert local.quarters == 4 * hours
    for route in routes(UTILITY):
        rows = layout(route, local.quarters)
        assert len(true_energy_kwh(UTILITY, route, day)) == len(rows.meter)
        for meter in range(len(route)):
            mine = (rows.meter == meter) & (rows.register == 0)
            assert mine.sum() * route.interval_minutes[meter] == 60 * hours
            assert (np.diff(rows.start_s[mine]) == 60 * route.interval_minutes[meter]).all()


def test_the_local_clock_skips_two_o_clock_in_spring_and_repeats_it_in_autumn():
    spring, autumn = (local_day("Europe/Madrid", d).hour.astype(int).tolist() for d in (SPRING_FORWARD, FALL_BACK))
    assert 2 not in spring
    assert autumn.count(2) == 8


def test_registers_count_whole_watt_hours_and_lose_none():
    route = route_of("household")
    day = date(2026, 2, 3)
    energy = true_energy_kwh(UTILITY, route, day)
    assert (energy >= 0).all() and np.allclose(energy * 1000, np.round(energy * 1000), atol=1e-9)
    rows = layout(route, 96)
    counted = np.bincount(rows.meter, energy)
    passed = true_power_kw(UTILITY, route, day)[0].sum(axis=1) / 4
    assert np.abs(counted - passed).max() <= 0.001


def test_no_meter_exceeds_its_connection():
    for route in routes(UTILITY):
        for day in (date(2026, 1, 13), date(2026, 7, 14)):
            assert (true_power_kw(UTILITY, route, day) <= rated_kw(UTILITY, route)[None, :, None]).all()


def test_households_use_most_in_the_evening_and_least_at_night():
    power = sum(true_power_kw(UTILITY, route_of("household"), d)[0].sum(axis=0) for d in weekdays(date(2026, 4, 13), 5))
    by_hour = power.reshape(24, 4).mean(axis=1)
    assert 19 <= int(np.argmax(by_hour)) <= 22
    assert 1 <= int(np.argmin(by_hour)) <= 5
    assert by_hour.max() > 2.5 * by_hour.min()


def test_a_household_uses_some_four_thousand_kwh_a_year():
    days = [date(2026, 1, 1) + timedelta(days=n) for n in range(0, 365, 9)]
    yearly = daily_kwh("household", days).mean() * 365 / len(route_of("household"))
    assert 3_000 < yearly < 5_000


def test_shops_and_industry_rest_on_sundays():
    monday = date(2026, 5, 11)
    for meter_class, share in (("shop", 0.65), ("industry", 0.75)):
        working = daily_kwh(meter_class, weekdays(monday, 5)).mean()
        sunday = daily_kwh(meter_class, [monday + timedelta(days=6)])[0]
        assert sunday < share * working


def test_a_holiday_is_like_a_sunday_for_shops():
    holiday = date(2026, 12, 8)  # Immaculate Conception, a Tuesday
    assert UTILITY.is_holiday(holiday)
    before = daily_kwh("shop", [holiday - timedelta(days=7)])[0]
    assert daily_kwh("shop", [holiday])[0] < 0.7 * before


def test_demand_follows_cold_and_heat():
    def felt(day: date) -> float:
        local = local_day("Europe/Madrid", day)
        return float(sky(UTILITY, local.start_quarter, local.quarters)["felt_temperature_c"].mean())

    for first, sign in ((date(2026, 1, 8), -1), (date(2026, 6, 15), 1)):  # colder is more in winter, hotter is more in summer
        days = weekdays(first, 25)
        for meter_class in ("household", "shop"):
            assert sign * np.corrcoef([felt(d) for d in days], daily_kwh(meter_class, days))[0, 1] > 0.4


def test_solar_roofs_export_under_the_sun_and_never_at_night():
    route = route_of("pv")
    local = local_day("Europe/Madrid", date(2026, 6, 16))
    export = true_power_kw(UTILITY, route, local.day)[1]
    is_dark = sky(UTILITY, local.start_quarter, local.quarters)["elevation_deg"] < 0
    assert (export[:, is_dark] == 0).all()
    assert export.sum() > 0
    rows = layout(route, 96)
    energy = true_energy_kwh(UTILITY, route, local.day)
    assert set(rows.register.tolist()) == {0, 1} and (energy[rows.register == 1].sum()) > 10


def test_a_car_that_came_in_the_evening_goes_on_charging_after_midnight():
    route = route_of("ev")
    days = [date(2026, 2, 2) + timedelta(days=n) for n in range(20)]
    power = np.concatenate([true_power_kw(UTILITY, route, d)[0] for d in days], axis=1)
    midnight = np.arange(96, power.shape[1], 96)
    through = (power[:, midnight - 1] > 1) & (power[:, midnight] > 1)
    assert through.any()
    assert (power == 0).mean() > 0.8


def test_a_sound_meter_never_repeats_a_reading_for_hours():
    for meter_class in ("household", "shop", "industry"):
        route = route_of(meter_class)
        energy = np.concatenate([true_energy_kwh(UTILITY, route, date(2026, 8, d)) for d in (10, 11)])
        assert (energy > 0).all()
        same = np.diff(energy) == 0
        longest = max((len(run) for run in "".join("x" if s else " " for s in same).split()), default=0)
        assert longest < 8


def test_the_portfolio_of_200_meters_is_some_megawatts():
    assert 1.5 < portfolio_peak_mw(UTILITY) < 4.0
    for seed in (2, 3, 4):
        assert portfolio_peak_mw(replace(UTILITY, seed=seed)) == pytest.approx(portfolio_peak_mw(UTILITY), rel=0.25)
