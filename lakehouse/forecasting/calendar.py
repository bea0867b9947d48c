"""The calendar that demand and prices follow: holidays, bridge days, day types, and the sun.

Everything here is known years ahead, so it has no availability. Lags and weather live in `features.py`.
"""

from __future__ import annotations

import datetime as dt
import warnings
from functools import lru_cache

import numpy as np
import pandas as pd

MONDAY, MIDWEEK, FRIDAY, SATURDAY, SUNDAY = range(5)
_DAY_TYPE_OF_WEEKDAY = np.array([MONDAY, MIDWEEK, MIDWEEK, MIDWEEK, FRIDAY, SATURDAY, SUNDAY])


@lru_cache(maxsize=64)
def holiday_shares(country: str, subdivision: str, year: int) -> dict[dt.date, float]:
    """Holidays of a year with the share of the place's regions that keep them (1.0 national).

    Args:
        country: ISO 3166 code; empty gives no holidays.
        subdivision: region code; then every holiday that the region keeps counts 1.0.
        year: calendar year.
    """
    if not country:
        return {}
    import holidays

    if subdivision:
        return dict.fromkeys(holidays.country_holidays(country, subdiv=subdivision, years=year), 1.0)
    national = dict.fromkeys(holidays.country_holidays(country, years=year), 1.0)
    regions = getattr(holidays.country_holidays(country), "subdivisions", ())
    counts: dict[dt.date, int] = {}
    for region in regions:
        for day in holidays.country_holidays(country, subdiv=region, years=year):
            counts[day] = counts.get(day, 0) + 1
    shares = {day: count / len(regions) for day, count in counts.items()} if regions else {}
    return shares | national


def day_calendar(days: pd.DatetimeIndex, country: str, subdivision: str) -> pd.DataFrame:
    """Calendar facts of consecutive local days.

    Args:
        days: consecutive midnights without zone.
        country, subdivision: place for `holidays`.

    Returns:
        One row per day: `holiday_share`, `is_holiday` (share of at least one half), `is_bridge_day`, `day_before_holiday`,
        `day_after_holiday`, `day_type` (Monday, midweek, Friday, Saturday, Sunday or holiday: 0-4), `weekday`,
        `day_of_year`, `christmas_days` (signed distance to 25 December, within 10 days, else 11), `easter_days` (likewise).
    """
    from dateutil.easter import easter

    wide = pd.date_range(days[0] - pd.Timedelta(days=1), days[-1] + pd.Timedelta(days=1), freq="D")
    shares: dict[dt.date, float] = {}
    for year in range(wide[0].year, wide[-1].year + 1):
        shares |= holiday_shares(country, subdivision, year)
    share = np.array([shares.get(day, 0.0) for day in wide.date])
    weekday = wide.day_of_week.to_numpy()
    holiday = (share >= 0.5) & (weekday < 6)
    free = holiday | (weekday >= 5)
    bridge = np.zeros(len(wide), dtype=bool)
    bridge[1:-1] = ~free[1:-1] & free[:-2] & free[2:] & (holiday[:-2] | holiday[2:])
    day_type = np.where(holiday, SUNDAY, _DAY_TYPE_OF_WEEKDAY[weekday])
    inner = slice(1, -1)
    years = days.year.to_numpy()
    christmas = np.array(
        [_signed_distance(day, [dt.date(year - 1, 12, 25), dt.date(year, 12, 25)]) for day, year in zip(days.date, years, strict=True)]
    )
    easter_days = np.array([_signed_distance(day, [easter(year)]) for day, year in zip(days.date, years, strict=True)])
    return pd.DataFrame(
        {
            "holiday_share": share[inner],
            "is_holiday": holiday[inner].astype(float),
            "is_bridge_day": bridge[inner].astype(float),
            "day_before_holiday": share[2:],
            "day_after_holiday": share[:-2],
            "day_type": day_type[inner].astype(float),
            "weekday": weekday[inner].astype(float),
            "day_of_year": days.day_of_year.to_numpy().astype(float),
            "christmas_days": christmas.astype(float),
            "easter_days": easter_days.astype(float),
        },
        index=days,
    )


def sun(instants: pd.DatetimeIndex, latitude_deg: float, longitude_deg: float) -> pd.DataFrame:
    """Sun elevation (degrees) and clear-sky global horizontal irradiance (W/m2) at UTC instants.

    Clear sky by Haurwitz (1945), which needs the zenith angle only; position by `pvlib`'s ephemeris.
    """
    from pvlib import clearsky, solarposition

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # pvlib 0.16 still asks pandas for `dayofyear`
        position = solarposition.ephemeris(instants, latitude_deg, longitude_deg)
    clear = clearsky.haurwitz(position["apparent_zenith"])
    return pd.DataFrame({"sun_elevation_deg": position["apparent_elevation"].to_numpy(), "clear_sky_w_per_m2": clear["ghi"].to_numpy()})


def _signed_distance(day: dt.date, anchors: list[dt.date]) -> int:
    nearest = min(((day - anchor).days for anchor in anchors), key=abs)
    return nearest if abs(nearest) <= 10 else 11
