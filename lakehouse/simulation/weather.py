"""Weather of the sample utility: two stations that share their fronts, and a weather service that forecasts them.

Latent Gaussian processes (fronts, air mass, clouds, gusts) run on the quarter-hour grid of UTC, one calendar month at a time,
and are turned into quantities by climate and sun. Nothing here knows meters, plants or files.
"""

from __future__ import annotations

from calendar import monthrange
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache

import numpy as np

from lakehouse.simulation.utility import QUARTER_SECONDS, Utility, coloured, local_day, random_stream, utc_seconds

QUARTERS_PER_DAY = 96
WARM_UP_DAYS = 20  # the slowest process forgets 99.9 % in this time

CITY, HILL = "city", "hill"
STATIONS = (CITY, HILL)
QUANTITIES = ("temperature_c", "wind_speed_m_per_s", "cloud_cover_pct", "ghi_w_per_m2", "humidity_pct", "pressure_hpa")
FORECAST_QUANTITIES = QUANTITIES[:4]
FORECAST_ISSUE_HOUR_UTC = 6

# Time constants in hours of each latent process; a cascade of two makes a smooth one.
_LATENTS: dict[str, tuple[float, ...]] = {
    "front": (60.0, 12.0),
    "air_mass": (72.0, 12.0),
    "cloud": (8.0, 2.0),
    "cloud_gap": (1.0,),
    "breeze": (6.0, 1.0),
    "gust": (0.75,),
    "hill_cloud": (5.0, 1.0),
    "hill_wind": (5.0, 0.75),
}
_HILL_HEIGHT_M = 350.0
_LAPSE_K_PER_M = 0.0065
_MEAN_WIND_M_PER_S = {CITY: 3.1, HILL: 5.3}  # at 10 m
_PLANES = {"south": (30.0, 180.0), "east": (20.0, 95.0), "west": (20.0, 265.0)}  # tilt and azimuth, degrees


@dataclass(frozen=True, eq=False)
class Sky:
    """Everything of the sky in a stretch of quarter hours, each an array of the same length.

    Args:
        start_quarter: quarter hours since 1970 (UTC) at the first value.
        fields: arrays by name; those of a station are named `<station>_<quantity>`.
    """

    start_quarter: int
    fields: dict[str, np.ndarray]

    def __getitem__(self, name: str) -> np.ndarray:
        return self.fields[name]


def sky(utility: Utility, start_quarter: int, quarters: int) -> Sky:
    """The sky of any stretch of quarter hours (UTC)."""
    first = datetime.fromtimestamp(start_quarter * QUARTER_SECONDS, UTC)
    last = datetime.fromtimestamp((start_quarter + quarters - 1) * QUARTER_SECONDS, UTC)
    months = range(first.year * 12 + first.month - 1, last.year * 12 + last.month)
    place = (utility.seed, utility.latitude_deg, utility.longitude_deg, utility.altitude_m)
    blocks = [_month(*place, m // 12, m % 12 + 1) for m in months]
    offset = start_quarter - blocks[0].start_quarter
    if len(blocks) == 1:
        return Sky(start_quarter, {k: v[offset : offset + quarters] for k, v in blocks[0].fields.items()})
    return Sky(start_quarter, {k: np.concatenate([b[k] for b in blocks])[offset : offset + quarters] for k in blocks[0].fields})


def hourly(values: np.ndarray) -> np.ndarray:
    """Means over the hours of a quarter-hour series, along the last axis."""
    return values.reshape(*values.shape[:-1], -1, 4).mean(axis=-1)


def plane_irradiance(field: Sky, plane: str) -> np.ndarray:
    """Irradiance on a plane of `south`, `east` or `west`, W/m²."""
    return field[f"plane_{plane}"]


@lru_cache(maxsize=8)
def _month(seed: int, latitude_deg: float, longitude_deg: float, altitude_m: float, year: int, month: int) -> Sky:
    # The block of a month always has the same shape, so that its last bits do not depend on the span that was asked for.
    first = date(year, month, 1)
    days = monthrange(year, month)[1]
    latent = _latents(seed, first, days)
    times_s = utc_seconds(first) + np.arange(days * QUARTERS_PER_DAY) * QUARTER_SECONDS + QUARTER_SECONDS // 2
    day_of_year = np.repeat([(first + timedelta(days=d)).timetuple().tm_yday for d in range(days)], QUARTERS_PER_DAY)
    solar_hour = (times_s / 3600 + longitude_deg / 15) % 24
    coldest = 20 if latitude_deg >= 0 else 202
    summer = -np.cos(2 * np.pi * (day_of_year - coldest) / 365.25)  # -1 mid-winter … 1 mid-summer
    sun = _sun(times_s, day_of_year, latitude_deg, longitude_deg, altitude_m)

    fields: dict[str, np.ndarray] = {"elevation_deg": sun["elevation_deg"], "ghi_clear": sun["ghi_clear"], "summer": summer}
    dryness = 0.35 + 0.45 * summer
    spread = np.sqrt(0.55**2 + 0.65**2 + 0.35**2)
    for station in STATIONS:
        own = latent["hill_cloud"] if station == HILL else 0.0
        slow = (-0.55 * latent["front"] + 0.65 * latent["cloud"]) / spread + 0.3 * own
        fields[f"{station}_cloud_latent"] = slow
        cover = cloud_cover(slow + 0.35 / spread * latent["cloud_gap"], dryness)
        fields[f"{station}_cloud_cover_pct"] = 100 * cover
        fields[f"{station}_ghi_w_per_m2"] = clouded(sun["ghi_clear"], cover)
        wind = (-0.5 * latent["front"] + 0.7 * latent["breeze"] + (0.5 * latent["hill_wind"] if station == HILL else 0.0)) / (
            1.0 if station == HILL else np.sqrt(0.74)
        )
        fields[f"{station}_wind_latent"] = wind + 0.25 * np.cos(2 * np.pi * (solar_hour - 15) / 24) * (1.0 if station == CITY else -0.4)
        fields[f"{station}_wind_speed_m_per_s"] = wind_speed(fields[f"{station}_wind_latent"] + 0.2 * latent["gust"], station, summer)

    calm_sky = 1 - cloud_cover(-0.8 * latent["front"], dryness)  # follows the fronts alone: the day's character
    daily_swing = (2.0 + 4.6 * calm_sky) * (0.8 + 0.2 * summer)
    phase = 2 * np.pi * (solar_hour - 15.0) / 24
    climate = 29.8 - 0.34 * abs(latitude_deg) + 0.235 * abs(latitude_deg) * summer - _LAPSE_K_PER_M * 0.3 * altitude_m
    slow_temperature = climate + 3.1 * latent["air_mass"] - 0.8 * latent["front"]
    shade = 2.2 * (fields["city_cloud_cover_pct"] / 100 - 0.5) * (sun["elevation_deg"] > 5)
    fast = daily_swing * (np.cos(phase) + 0.18 * np.cos(2 * phase)) - shade
    fields["city_temperature_c"] = slow_temperature + fast + 0.15 * latent["gust"]
    fields["felt_temperature_c"] = slow_temperature + 0.55 * daily_swing * np.cos(phase - 0.6)  # what walls let through
    fields["hill_temperature_c"] = slow_temperature - _LAPSE_K_PER_M * _HILL_HEIGHT_M + 0.7 * fast
    for station in STATIONS:
        relative_k = fields[f"{station}_temperature_c"] - slow_temperature + (_LAPSE_K_PER_M * _HILL_HEIGHT_M if station == HILL else 0.0)
        cover = fields[f"{station}_cloud_cover_pct"] / 100
        fields[f"{station}_humidity_pct"] = np.clip(62 + 24 * (cover - 0.4) - 14 * summer - 2.6 * relative_k, 8, 100)
        sea_level_hpa = 1016 + 7.5 * latent["front"]
        height_m = altitude_m + (_HILL_HEIGHT_M if station == HILL else 0.0)
        fields[f"{station}_pressure_hpa"] = sea_level_hpa * (1 - 2.25577e-5 * height_m) ** 5.25588  # ISO 2533 standard atmosphere
    fields |= _planes(sun, fields[f"{CITY}_ghi_w_per_m2"], day_of_year)
    for array in fields.values():
        array.setflags(write=False)
    return Sky(utc_seconds(first) // QUARTER_SECONDS, fields)


def _latents(seed: int, first: date, days: int) -> dict[str, np.ndarray]:
    number = first.toordinal()
    shape = (len(_LATENTS), QUARTERS_PER_DAY)
    known = range(number - WARM_UP_DAYS, number + days)
    white = np.stack([random_stream(seed, "weather", d).standard_normal(shape) for d in known], axis=1)
    windows = np.arange(days)[:, None] + np.arange(WARM_UP_DAYS + 1)
    out = {}
    for row, (name, hours) in enumerate(_LATENTS.items()):
        lead_in = white[row][windows].reshape(days, -1)  # each day with the days before it: the same numbers in every span
        out[name] = coloured(lead_in, tuple(4 * h for h in hours))[:, -QUARTERS_PER_DAY:].ravel()
    return out


def cloud_cover(latent: np.ndarray, dryness: np.ndarray | float) -> np.ndarray:
    """Share of the sky that is covered, from a latent normal: mostly clear or mostly covered, as skies are."""
    return 1 / (1 + np.exp(-2.6 * (latent - dryness)))


def clouded(clear_w_per_m2: np.ndarray, cover: np.ndarray) -> np.ndarray:
    """Irradiance under clouds (Kasten and Czeplak 1980, eq. 3)."""
    return clear_w_per_m2 * (1 - 0.75 * cover**3.4)


def wind_speed(latent: np.ndarray, station: str, summer: np.ndarray | float) -> np.ndarray:
    """Wind speed in m/s with a Rayleigh distribution (Weibull shape 2), stronger in winter."""
    from scipy.special import ndtr

    scale = _MEAN_WIND_M_PER_S[station] / 0.886 * (1 - 0.1 * summer)
    return scale * np.sqrt(-np.log1p(-np.clip(ndtr(latent), 0.0, 1 - 1e-9)))


def _sun(
    times_s: np.ndarray, day_of_year: np.ndarray, latitude_deg: float, longitude_deg: float, altitude_m: float
) -> dict[str, np.ndarray]:
    import pandas as pd
    import pvlib

    times = pd.DatetimeIndex(pd.to_datetime(times_s, unit="s", utc=True))
    position = pvlib.solarposition.get_solarposition(times, latitude_deg, longitude_deg, altitude_m)
    zenith = position["apparent_zenith"].to_numpy()
    airmass = pvlib.atmosphere.get_absolute_airmass(pvlib.atmosphere.get_relative_airmass(zenith), pvlib.atmosphere.alt2pres(altitude_m))
    extra = np.asarray(pvlib.irradiance.get_extra_radiation(day_of_year))
    with np.errstate(divide="ignore", invalid="ignore"):  # below the horizon there is no air mass
        clear = pvlib.clearsky.ineichen(zenith, airmass, 3.2, altitude_m, dni_extra=extra)
    ghi = np.nan_to_num(np.asarray(clear["ghi"], float))
    return {
        "elevation_deg": position["apparent_elevation"].to_numpy(),
        "zenith_deg": position["zenith"].to_numpy(),
        "apparent_zenith_deg": zenith,
        "azimuth_deg": position["azimuth"].to_numpy(),
        "ghi_clear": np.where(position["apparent_elevation"].to_numpy() > 0, ghi, 0.0),
    }


def _planes(sun: dict[str, np.ndarray], ghi: np.ndarray, day_of_year: np.ndarray) -> dict[str, np.ndarray]:
    import pvlib

    split = pvlib.irradiance.erbs(ghi, sun["zenith_deg"], day_of_year)
    beam, diffuse = (np.nan_to_num(np.asarray(split[k], float)) for k in ("dni", "dhi"))
    out = {}
    for name, (tilt, azimuth) in _PLANES.items():
        total = pvlib.irradiance.get_total_irradiance(tilt, azimuth, sun["apparent_zenith_deg"], sun["azimuth_deg"], beam, ghi, diffuse)
        out[f"plane_{name}"] = np.where(sun["elevation_deg"] > 0, np.nan_to_num(np.asarray(total["poa_global"], float)), 0.0)
    return out


def observed(utility: Utility, start_s: int, hours: int) -> dict[tuple[str, str], np.ndarray]:
    """Hourly means by (station, quantity) from a full hour (UTC seconds) on, as a station reports them."""
    field = sky(utility, start_s // QUARTER_SECONDS, 4 * hours)
    return {(s, q): np.round(hourly(field[f"{s}_{q}"]), _DIGITS[q]) for s in STATIONS for q in QUANTITIES}


def forecast(utility: Utility, target_day: date) -> dict[tuple[str, str], np.ndarray]:
    """What the weather service says on the morning before about every hour of a local day, by (station, quantity).

    The error grows with the lead: temperature is off by 1 K (standard deviation) early in the day and 1.5 K late; wind and
    clouds lose correlation. The service knows fronts better than gusts, so its forecasts are smoother than what happens.
    """
    local = local_day(utility.time_zone, target_day)
    field = sky(utility, local.start_quarter, local.quarters)
    issued_s = utc_seconds(target_day - timedelta(days=1), FORECAST_ISSUE_HOUR_UTC)
    lead_h = (local.start_s - issued_s) / 3600 + np.arange(local.quarters) / 4
    rng = utility.stream("weather service", target_day.toordinal())
    warm_up = 2 * QUARTERS_PER_DAY
    summer = field["summer"]
    out = {}
    shared = rng.standard_normal((3, warm_up + 100))
    for station in STATIONS:
        own = 0.8 * shared + 0.6 * rng.standard_normal((3, warm_up + 100))
        error_t, error_c, error_w = (coloured(own[i], (4.0 * h,))[warm_up : warm_up + local.quarters] for i, h in enumerate((14, 7, 7)))
        out[station, "temperature_c"] = field[f"{station}_temperature_c"] + (0.45 + 0.025 * lead_h) * error_t
        keep = 0.97 - 0.0022 * lead_h
        cloud = keep * field[f"{station}_cloud_latent"] + np.sqrt(1 - keep**2) * error_c
        cover = cloud_cover(cloud, 0.35 + 0.45 * summer)
        out[station, "cloud_cover_pct"] = 100 * cover
        out[station, "ghi_w_per_m2"] = clouded(field["ghi_clear"], cover)
        wind = keep * field[f"{station}_wind_latent"] + np.sqrt(1 - keep**2) * error_w
        out[station, "wind_speed_m_per_s"] = wind_speed(wind, station, summer)
    return {(s, q): np.round(hourly(out[s, q]), _DIGITS[q]) for s in STATIONS for q in FORECAST_QUANTITIES}


_DIGITS = {
    "temperature_c": 1,
    "wind_speed_m_per_s": 1,
    "cloud_cover_pct": 0,
    "ghi_w_per_m2": 0,
    "humidity_pct": 0,
    "pressure_hpa": 1,
}
