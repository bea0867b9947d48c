"""The plants, the market and the fleet of the sample utility, sized to its meters.

What wind and sun make of the weather, what the day-ahead market makes of both, and which units the utility may start.
"""

from __future__ import annotations

from datetime import date
from functools import lru_cache
from typing import Any

import numpy as np

from lakehouse.simulation.meters import portfolio_peak_mw
from lakehouse.simulation.utility import QUARTER_SECONDS, Utility, local_day, random_stream
from lakehouse.simulation.weather import CITY, HILL, Sky, hourly, plane_irradiance, sky

WIND, SOLAR, DAY_AHEAD = "wind", "solar", "day_ahead"
WIND_SHARE_OF_PEAK, SOLAR_SHARE_OF_PEAK = 0.55, 0.45
TURBINES = 5
_CUT_IN_M_PER_S, _RATED_M_PER_S, _CUT_OUT_M_PER_S = 3.0, 12.5, 25.0
_HUB_M, _MAST_M, _SHEAR = 95.0, 10.0, 0.16  # power law of the wind profile over open land


def capacity_mw(utility: Utility) -> dict[str, float]:
    """Installed power of the wind and of the solar plant, MW."""
    peak = portfolio_peak_mw(utility)
    return {WIND: _rounded(WIND_SHARE_OF_PEAK * peak), SOLAR: _rounded(SOLAR_SHARE_OF_PEAK * peak)}


def generation_mw(utility: Utility, start_s: int, hours: int) -> dict[str, np.ndarray]:
    """Mean power of both plants in each hour from a full hour (UTC seconds) on, MW."""
    field = sky(utility, start_s // QUARTER_SECONDS, 4 * hours)
    quarters = start_s // QUARTER_SECONDS + np.arange(4 * hours)
    capacity = capacity_mw(utility)
    available = _turbines_available(utility.seed, quarters // 96)
    wind = capacity[WIND] * available * power_curve(field[f"{HILL}_wind_speed_m_per_s"] * (_HUB_M / _MAST_M) ** _SHEAR)
    plane = plane_irradiance(field, "south")
    cell_c = field[f"{CITY}_temperature_c"] + 0.028 * plane
    direct = 1.22 * 0.9 * plane / 1000 * (1 - 0.0036 * (cell_c - 25))  # panels oversized against the inverter by 1.22
    solar = capacity[SOLAR] * np.clip(direct, 0.0, 1.0)
    return {WIND: np.round(hourly(wind), 4), SOLAR: np.round(hourly(solar), 4)}


def power_curve(hub_m_per_s: np.ndarray) -> np.ndarray:
    """Share of rated power of a wind farm at a hub-height wind speed.

    A turbine's curve smoothed over the farm: a cubic rise from cut-in to rated, and a gradual storm shutdown.
    """
    rise = np.clip((hub_m_per_s**3 - _CUT_IN_M_PER_S**3) / (_RATED_M_PER_S**3 - _CUT_IN_M_PER_S**3), 0.0, 1.0)
    softened = 1 - (1 - rise) ** 1.35
    return softened * np.clip((_CUT_OUT_M_PER_S + 2 - hub_m_per_s) / 4, 0.0, 1.0)


def _turbines_available(seed: int, utc_days: np.ndarray) -> np.ndarray:
    # Each turbine is stopped on one day in forty for service, and one in eighty for a fault.
    days, which = np.unique(utc_days, return_inverse=True)
    share = [(random_stream(seed, "turbines", int(d)).random(TURBINES) > 1 / 40 + 1 / 80).mean() for d in days]
    return np.array(share)[which]


def day_ahead_price_eur_per_mwh(utility: Utility, day: date) -> np.ndarray:
    """The market's price for each hour of a local day, EUR/MWh.

    The market is far larger than the utility and has its weather: demand by hour, weekday and temperature, less wind and sun,
    priced along a merit order that is flat in the middle, steep at its end and negative where must-run plants compete.
    """
    local = local_day(utility.time_zone, day)
    field = sky(utility, local.start_quarter, local.quarters)
    number = day.toordinal()
    rng = utility.stream("market", number)
    day_off = day.weekday() == 6 or utility.is_holiday(day)
    demand = hourly(_market_demand(local.hour, field, 0.80 if day_off else 0.88 if day.weekday() == 5 else 1.0))
    wind = hourly(power_curve((0.5 * field[f"{HILL}_wind_speed_m_per_s"] + 0.75 * field[f"{CITY}_wind_speed_m_per_s"]) * 1.35))
    sun = hourly(0.6 * field[f"{CITY}_ghi_w_per_m2"] + 0.4 * field["ghi_clear"]) / 1000
    residual = demand - 0.26 * wind - 0.50 * sun + 0.02 * _joined_noise(rng, local.quarters // 4)
    fuel = _fuel_level(utility.seed, number)
    middle = 62 * fuel + 95 * (residual - 0.62)
    scarce = 210 * np.clip(residual - 0.88, 0, None) ** 1.3
    glut = 150 * np.clip(0.34 - residual, 0, None)
    return np.round(np.clip(middle + scarce - glut + 1.5 * rng.standard_normal(local.quarters // 4), -80.0, 400.0), 2)


def _market_demand(hour: np.ndarray, field: Sky, day_type: float) -> np.ndarray:
    shape = 0.62 + 0.20 * np.exp(-0.5 * ((hour - 12.0) / 3.6) ** 2) + 0.24 * np.exp(-0.5 * ((hour - 20.6) / 2.2) ** 2)
    shape = shape + 0.06 * np.exp(-0.5 * ((hour - 8.5) / 1.5) ** 2)
    felt = field["felt_temperature_c"]
    return day_type * shape + 0.008 * np.clip(15 - felt, 0, None) + 0.009 * np.clip(felt - 22, 0, None)


def _joined_noise(rng: np.random.Generator, hours: int) -> np.ndarray:
    knots = rng.standard_normal(hours // 4 + 2)
    return np.interp(np.arange(hours), 4 * np.arange(len(knots)), knots)


@lru_cache(maxsize=4096)
def _fuel_level(seed: int, number: int) -> float:
    # Fuel prices wander over weeks: daily news, smoothed over the 40 days before.
    weight = np.exp(-np.arange(40) / 12.0)
    news = np.array([random_stream(seed, "fuel", number - d).standard_normal() for d in range(40)])
    return float(np.exp(0.16 * (weight @ news) / np.sqrt((weight**2).sum())))


def fleet(utility: Utility) -> dict[str, list[dict[str, Any]]]:
    """The units that may serve the meters: thermal units, both plants, a battery and the grid connection.

    Sized to the portfolio's peak: thermal units together somewhat above it, the connection at half of it.
    """
    peak = portfolio_peak_mw(utility)
    capacity = capacity_mw(utility)
    units: list[dict[str, Any]] = [
        _thermal("biomass_chp", 0.14 * peak, 0.50, (38.0, 40.0, 42.0), 6.0, (90.0, 210.0), 0.35, 12, 8, 0.05, must_run=True, on=0.7),
        _thermal("gas_engine_1", 0.24 * peak, 0.40, (63.0, 66.0, 70.0), 7.0, (22.0, 48.0), 1.2, 4, 2, 0.43, on=0.6),
        _thermal("gas_engine_2", 0.24 * peak, 0.40, (64.0, 68.0, 73.0), 7.0, (22.0, 48.0), 1.2, 4, 2, 0.43, on=0.6),
        _thermal("gas_engine_3", 0.16 * peak, 0.40, (71.0, 75.0, 80.0), 6.0, (16.0, 34.0), 1.6, 3, 2, 0.46),
        _thermal("gas_engine_4", 0.16 * peak, 0.40, (74.0, 79.0, 85.0), 6.0, (16.0, 34.0), 1.6, 3, 2, 0.46),
        _thermal("gas_turbine", 0.20 * peak, 0.35, (98.0, 104.0, 112.0), 11.0, (35.0, 70.0), 2.0, 2, 1, 0.58),
        _thermal("diesel_peaker", 0.14 * peak, 0.25, (205.0, 212.0, 224.0), 5.0, (12.0, 20.0), 4.0, 1, 1, 0.72),
        {"unit_id": "wind_farm", "kind": "wind", "maximum_mw": capacity[WIND], "minimum_mw": 0.0, "series_id": WIND},
        {"unit_id": "solar_park", "kind": "solar", "maximum_mw": capacity[SOLAR], "minimum_mw": 0.0, "series_id": SOLAR},
        {
            "unit_id": "battery",
            "kind": "storage",
            "charge_mw": _rounded(0.16 * peak),
            "discharge_mw": _rounded(0.16 * peak),
            "energy_mwh": _rounded(0.34 * peak),
            "minimum_mwh": _rounded(0.034 * peak),
            "charge_efficiency": 0.95,
            "discharge_efficiency": 0.95,
            "initial_mwh": _rounded(0.17 * peak),
            "final_mwh": _rounded(0.17 * peak),
            "wear_eur_per_mwh": 3.0,
            "provides_reserve": True,
        },
        {
            "unit_id": "grid",
            "kind": "grid",
            "import_limit_mw": _rounded(0.50 * peak),
            "export_limit_mw": _rounded(0.40 * peak),
            "price_series_id": DAY_AHEAD,
            "import_margin_eur_per_mwh": 8.0,
            "export_margin_eur_per_mwh": 4.0,
        },
    ]
    return {"units": units}


def _thermal(
    unit_id: str,
    maximum_mw: float,
    minimum_share: float,
    marginal_eur_per_mwh: tuple[float, float, float],
    no_load_eur_per_mw_h: float,
    start_eur_per_mw: tuple[float, float],
    ramp_per_h: float,
    up_h: int,
    down_h: int,
    co2_t_per_mwh: float,
    *,
    must_run: bool = False,
    on: float = 0.0,
) -> dict[str, Any]:
    """A thermal unit; costs and ramps are given per MW of its size, `on` is its initial output as a share of it."""
    highest = _rounded(maximum_mw)
    lowest = _rounded(minimum_share * highest)
    marks = [lowest, *(round(lowest + f * (highest - lowest), 6) for f in (0.4, 0.75)), highest]
    costs = [no_load_eur_per_mw_h * highest + marginal_eur_per_mwh[0] * lowest]
    for width, marginal in zip(np.diff(marks), marginal_eur_per_mwh, strict=True):
        costs.append(costs[-1] + float(width) * marginal)
    unit: dict[str, Any] = {
        "unit_id": unit_id,
        "kind": "thermal",
        "minimum_mw": lowest,
        "maximum_mw": highest,
        "cost_curve": [[mw, round(cost, 4)] for mw, cost in zip(marks, costs, strict=True)],
        "startup_costs": [[0, round(start_eur_per_mw[0] * highest, 2)], [8, round(start_eur_per_mw[1] * highest, 2)]],
        "ramp_up_mw_per_hour": _rounded(ramp_per_h * highest),
        "ramp_down_mw_per_hour": _rounded(ramp_per_h * highest),
        "minimum_up_hours": up_h,
        "minimum_down_hours": down_h,
        "must_run": must_run,
        "initially_on": on > 0,
        "co2_t_per_mwh": co2_t_per_mwh,
    }
    if on:
        unit |= {"initial_power_mw": _rounded(on * highest), "initial_hours_in_state": 24.0}
    return unit


def _rounded(value: float) -> float:
    """Three significant digits, as nameplates have."""
    return float(f"{value:.3g}")
