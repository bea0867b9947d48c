from __future__ import annotations

from datetime import date, timedelta

import numpy as np
import pytest

from lakehouse.dispatch.fleet import Storage, ThermalUnit
from lakehouse.simulation.meters import portfolio_peak_mw
from lakehouse.simulation.plants import capacity_mw, day_ahead_price_eur_per_mwh, fleet, generation_mw, power_curve
from lakehouse.simulation.utility import Utility, local_day, utc_seconds
from lakehouse.simulation.weather import hourly, sky

UTILITY = Utility(first_day=date(2026, 1, 1))
YEAR = [date(2026, 1, 1) + timedelta(days=n) for n in range(365)]


@pytest.fixture(scope="module")
def prices() -> np.ndarray:
    return np.concatenate([day_ahead_price_eur_per_mwh(UTILITY, d) for d in YEAR])


def test_the_plants_stay_within_their_capacity_and_yield_what_such_plants_do():
    made = generation_mw(UTILITY, utc_seconds(date(2026, 1, 1)), 24 * 365)
    for plant, low, high in (("wind", 0.22, 0.42), ("solar", 0.17, 0.27)):
        share = made[plant] / capacity_mw(UTILITY)[plant]
        assert share.min() >= 0 and share.max() <= 1.0001
        assert low < share.mean() < high


def test_the_solar_park_is_dark_at_night_and_follows_the_sun():
    start = utc_seconds(date(2026, 6, 1))
    solar = generation_mw(UTILITY, start, 24 * 30)["solar"]
    field = sky(UTILITY, start // 900, 96 * 30)
    assert (solar[hourly((field["elevation_deg"] > 0).astype(float)) == 0] == 0).all()
    assert np.corrcoef(solar, hourly(field["ghi_clear"]))[0, 1] > 0.85


@pytest.mark.parametrize(("wind_m_per_s", "share"), [(0.0, 0.0), (2.9, 0.0), (12.5, 1.0), (20.0, 1.0), (25.0, 0.5), (30.0, 0.0)])
def test_the_power_curve(wind_m_per_s, share):
    assert power_curve(np.array([wind_m_per_s]))[0] == pytest.approx(share, abs=1e-9)


def test_the_power_curve_rises_until_the_storm():
    assert (np.diff(power_curve(np.linspace(0, 23, 200))) >= 0).all()


def test_prices_are_those_of_a_market_with_much_sun(prices):
    assert 40 < prices.mean() < 90
    assert 0.005 < (prices < 0).mean() < 0.08
    assert prices.max() < 250


def test_prices_are_high_in_the_evening_and_low_at_noon(prices):
    hour = np.concatenate([local_day("Europe/Madrid", d).hour.reshape(-1, 4)[:, 0].astype(int) for d in YEAR])
    by_hour = np.array([prices[hour == h].mean() for h in range(24)])
    assert by_hour[19:22].mean() > by_hour[12:16].mean() + 15


def test_prices_fall_with_wind_and_on_sundays(prices):
    daily = np.array([day_ahead_price_eur_per_mwh(UTILITY, d).mean() for d in YEAR])
    wind = np.array([generation_mw(UTILITY, local_day("Europe/Madrid", d).start_s, 24)["wind"].mean() for d in YEAR])
    assert np.corrcoef(daily, wind)[0, 1] < -0.3
    sunday = np.array([d.weekday() == 6 for d in YEAR])
    assert daily[sunday].mean() < daily[~sunday].mean() - 3


def test_the_clock_changes_have_23_and_25_prices():
    assert len(day_ahead_price_eur_per_mwh(UTILITY, date(2026, 3, 29))) == 23
    assert len(day_ahead_price_eur_per_mwh(UTILITY, date(2026, 10, 25))) == 25


@pytest.mark.parametrize("meters", [20, 200, 5_000])
def test_the_fleet_is_one_that_dispatch_accepts_and_that_can_serve_the_peak(meters):
    utility = Utility(first_day=date(2026, 1, 1), meters=meters)
    units = fleet(utility)["units"]
    thermal = [
        ThermalUnit(
            **{k: v for k, v in u.items() if k not in ("kind", "cost_curve", "startup_costs")},
            cost_curve=tuple(map(tuple, u["cost_curve"])),
            startup_costs=tuple(map(tuple, u["startup_costs"])),
        )
        for u in units
        if u["kind"] == "thermal"
    ]
    assert 6 <= len(thermal) <= 8
    assert sum(u.must_run for u in thermal) == 1
    [battery] = [
        Storage(storage_id=u.pop("unit_id"), **{k: v for k, v in u.items() if k != "kind"}) for u in units if u["kind"] == "storage"
    ]
    [grid] = [u for u in units if u["kind"] == "grid"]
    assert sum(u.maximum_mw for u in thermal) + grid["import_limit_mw"] > 1.4 * portfolio_peak_mw(utility)
    assert 1 < battery.energy_mwh / battery.discharge_mw < 4
    assert {u["series_id"] for u in units if u["kind"] in ("wind", "solar")} == {"wind", "solar"}
