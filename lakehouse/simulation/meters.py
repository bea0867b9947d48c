"""Meters of the sample utility: who they are, and what truly passes through them on a day.

A route is a batch of meters of one class that the head-end delivers in one file. Its meters' characters are drawn once from
the seed; a day's energy follows from character, calendar, weather and chance. What is delivered of it is the business of `dirt`.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta
from functools import lru_cache

import numpy as np

from lakehouse.simulation.utility import QUARTER_SECONDS, LocalDay, Utility, local_day
from lakehouse.simulation.weather import Sky, plane_irradiance, sky

CLASSES = ("household", "shop", "pv", "ev", "industry")
CLASS_SHARE = {"household": 0.58, "shop": 0.18, "pv": 0.12, "ev": 0.08, "industry": 0.04}
INTERVAL_SHARE = {  # minutes: share of the class
    "household": {15: 0.15, 30: 0.30, 60: 0.55},
    "shop": {15: 0.4, 30: 0.6},
    "pv": {15: 0.5, 30: 0.5},
    "ev": {15: 1.0},
    "industry": {15: 1.0},
}
REGISTERS = ("import", "export")
CONNECTIONS_KW = (5.8, 9.2, 14.5, 17.3, 27.7, 43.6, 69.0, 110.0, 175.0, 250.0, 400.0, 630.0, 1000.0, 1600.0, 2500.0, 4000.0, 6300.0)
_HEADROOM = {"household": 4.0, "shop": 3.0, "pv": 4.0, "ev": 1.2, "industry": 1.3}
SMALLEST_ROUTE, LARGEST_ROUTE = 40, 5_000
REFERENCE_DAYS = (date(2024, 1, 16), date(2024, 1, 18), date(2024, 1, 20), date(2024, 7, 16), date(2024, 7, 18), date(2024, 7, 20))
COUNT_KWH = 0.001  # a register counts whole watt-hours

Character = dict[str, np.ndarray]


@dataclass(frozen=True, eq=False)
class Route:
    """A batch of meters of one class, delivered in one file a day.

    Args:
        number: position among all routes.
        name: part of the file's name.
        meter_class: one of `CLASSES`.
        meter_ids: names of the meters.
        interval_minutes: length of each meter's intervals.
        registers: registers of each meter.
        character: arrays with one value a meter.
    """

    number: int
    name: str
    meter_class: str
    meter_ids: tuple[str, ...]
    interval_minutes: np.ndarray
    registers: tuple[str, ...]
    character: Character

    def __len__(self) -> int:
        return len(self.meter_ids)


@dataclass(frozen=True, eq=False)
class Layout:
    """Which row of a day's readings is which: by meter, register and time.

    Args:
        meter: position of the meter in its route.
        register: position of the register in `REGISTERS`.
        start_s: start of the interval less local midnight, in seconds.
        minutes: length of the interval.
        sources: for each interval length its meters and the rows (meter, register, interval) that they fill.
    """

    meter: np.ndarray
    register: np.ndarray
    start_s: np.ndarray
    minutes: np.ndarray
    sources: tuple[tuple[int, np.ndarray, np.ndarray], ...]


def class_counts(meters: int) -> dict[str, int]:
    """How many meters of each class a utility of that size has; at least one of each."""
    counts = {c: max(1, round(meters * share)) for c, share in CLASS_SHARE.items()}
    counts["household"] += meters - sum(counts.values())
    while counts["household"] < 1:
        largest = max((c for c in counts if c != "household"), key=lambda c: counts[c])
        counts[largest] -= 1
        counts["household"] += 1
    return counts


@lru_cache(maxsize=4)
def routes(utility: Utility) -> tuple[Route, ...]:
    """All routes of a utility, with their meters."""
    size = int(np.clip(utility.meters // 5, SMALLEST_ROUTE, LARGEST_ROUTE))
    found: list[Route] = []
    next_id = 0
    for meter_class, count in class_counts(utility.meters).items():
        for part, first in enumerate(range(0, count, size), start=1):
            n = min(size, count - first)
            ids = tuple(f"M{next_id + i:07d}" for i in range(n))
            next_id += n
            rng = utility.stream("character", len(found))
            shares = INTERVAL_SHARE[meter_class]
            minutes = rng.choice(list(shares), size=n, p=list(shares.values()))
            registers = REGISTERS if meter_class == "pv" else REGISTERS[:1]
            character = _CHARACTERS[meter_class](rng, n)
            found.append(Route(len(found), f"{meter_class}-{part:02d}", meter_class, ids, minutes, registers, character))
    return tuple(found)


@lru_cache(maxsize=24)
def layout(route: Route, quarters: int) -> Layout:
    """The rows that a route delivers for a local day of so many quarter hours."""
    parts, sources = [], []
    for minutes in np.unique(route.interval_minutes):
        who = np.flatnonzero(route.interval_minutes == minutes)
        per_day = quarters * 15 // minutes
        shape = (len(who), len(route.registers), per_day)
        axes = np.broadcast_arrays(who[:, None, None], np.arange(shape[1])[:, None], np.arange(per_day))
        meter, register, number = (x.ravel() for x in axes)
        parts.append((meter, register, number * int(minutes) * 60, np.full(meter.size, minutes)))
        sources.append((int(minutes), who))
    meter, register, start_s, length = (np.concatenate(p) for p in zip(*parts, strict=True))
    order = np.lexsort((start_s, register, meter))
    at = np.empty(len(order), np.int32)
    at[order] = np.arange(len(order), dtype=np.int32)
    ends = np.cumsum([len(p[0]) for p in parts])
    rows = [at[end - len(p[0]) : end] for p, end in zip(parts, ends, strict=True)]
    return Layout(
        meter[order].astype(np.int32),
        register[order].astype(np.int8),
        start_s[order],
        length[order].astype(np.int16),
        tuple((minutes, who, filled) for (minutes, who), filled in zip(sources, rows, strict=True)),
    )


@lru_cache(maxsize=2)
def true_energy_kwh(utility: Utility, route: Route, day: date) -> np.ndarray:
    """What the route's registers truly counted on a local day, kWh, in the order of `layout`.

    Registers count whole watt-hours and carry the rest, so the intervals of a day add up to the energy that passed.
    """
    local = local_day(utility.time_zone, day)
    power_kw = true_power_kw(utility, route, day)
    rows = layout(route, local.quarters)
    carried = utility.stream("register", route.number, day.toordinal()).random((power_kw.shape[0], power_kw.shape[1], 1))
    counted = np.floor(np.cumsum(power_kw * (QUARTER_SECONDS / 3600 / COUNT_KWH), axis=-1) + carried)
    out = np.empty(len(rows.meter))
    for minutes, who, at in rows.sources:
        step = minutes // 15
        reads = counted[:, who, step - 1 :: step].transpose(1, 0, 2)
        out[at] = np.diff(reads, axis=-1, prepend=0.0).ravel()
    out = np.round(out * COUNT_KWH, 3)
    out.setflags(write=False)
    return out


def true_power_kw(utility: Utility, route: Route, day: date) -> np.ndarray:
    """Power through each register in each quarter hour of a local day, kW: shape (registers, meters, quarters)."""
    power = _power(utility, route, day)
    return np.minimum(power, 0.96 * rated_kw(utility, route)[None, :, None])


def _power(utility: Utility, route: Route, day: date) -> np.ndarray:
    local = local_day(utility.time_zone, day)
    field = sky(utility, local.start_quarter, local.quarters)
    return _POWERS[route.meter_class](utility, route, local, field, _Calendar.of(utility, day))


@lru_cache(maxsize=256)
def rated_kw(utility: Utility, route: Route) -> np.ndarray:
    """What each meter's connection can carry, kW: the next standard size above its busiest quarter hours in a reference year."""
    wanted = usual_peak_kw(utility, route) * _HEADROOM[route.meter_class]
    sizes = np.asarray(CONNECTIONS_KW)
    return sizes[np.minimum(np.searchsorted(sizes, wanted), len(sizes) - 1)]


@lru_cache(maxsize=256)
def usual_peak_kw(utility: Utility, route: Route) -> np.ndarray:
    """The highest power of each meter on six reference days in winter and summer, kW."""
    return np.max([_power(utility, route, d).max(axis=(0, 2)) for d in REFERENCE_DAYS], axis=0)


@lru_cache(maxsize=4)
def portfolio_peak_mw(utility: Utility) -> float:
    """The highest net power of all meters together on the reference days, MW: what plants and fleet are sized to."""
    peak = 0.0
    for day in REFERENCE_DAYS:
        net = 0.0
        for route in routes(utility):
            power = _power(utility, route, day).sum(axis=1)
            net = net + power[0] - (power[1] if len(power) > 1 else 0.0)
        peak = max(peak, float(np.max(net)))
    return peak / 1000


@dataclass(frozen=True)
class _Calendar:
    number: int
    weekday: int
    is_holiday: bool
    is_summer_break: bool
    is_year_end: bool

    @property
    def is_day_off(self) -> bool:
        return self.weekday >= 5 or self.is_holiday

    @property
    def is_closed(self) -> bool:
        return self.weekday == 6 or self.is_holiday

    @classmethod
    def of(cls, utility: Utility, day: date) -> _Calendar:
        north = utility.latitude_deg >= 0
        summer_break = (day.month == 8 and 5 <= day.day <= 25) if north else (day.month == 1 and 5 <= day.day <= 25)
        year_end = (day.month == 12 and day.day >= 24) or (day.month == 1 and day.day <= 4)
        return cls(day.toordinal(), day.weekday(), utility.is_holiday(day), summer_break, year_end)


def _bump(hour: np.ndarray, centre: np.ndarray, width: float | np.ndarray) -> np.ndarray:
    """A bell around an hour of the day, wrapping at midnight; shape (meters, quarters)."""
    apart = (hour[None, :] - np.asarray(centre)[:, None] + 12) % 24 - 12
    return np.exp(-0.5 * (apart / width) ** 2)


def _between(hour: np.ndarray, start: np.ndarray, end: np.ndarray, softness_h: float = 0.25) -> np.ndarray:
    """1 between two hours of the day, with soft edges; shape (meters, quarters)."""
    rising = (hour[None, :] - np.asarray(start)[:, None]) / softness_h
    falling = (np.asarray(end)[:, None] - hour[None, :]) / softness_h
    return np.clip(rising, 0, 1) * np.clip(falling, 0, 1)


def _household_character(rng: np.random.Generator, n: int) -> Character:
    return {
        "base_kw": np.clip(rng.lognormal(np.log(0.13), 0.4, n), 0.05, 0.5),
        "activity_kw": rng.lognormal(np.log(0.33), 0.42, n),
        "wake_h": rng.normal(7.3, 0.8, n),
        "evening_h": rng.normal(20.9, 0.8, n),
        "lunch": rng.uniform(0.1, 1.0, n),
        "home_by_day": rng.uniform(0.05, 0.6, n),
        "heat_kw_per_k": np.where(rng.random(n) < 0.28, rng.uniform(0.05, 0.14, n), 0.0),
        "cool_kw_per_k": np.where(rng.random(n) < 0.55, rng.uniform(0.05, 0.15, n), 0.0),
    }


def _household_power(utility: Utility, route: Route, local: LocalDay, field: Sky, calendar: _Calendar) -> np.ndarray:
    return _dwelling_kw(utility, route, local, field, calendar)[None]


def _dwelling_kw(utility: Utility, route: Route, local: LocalDay, field: Sky, calendar: _Calendar) -> np.ndarray:
    c, n, hour = route.character, len(route), local.hour
    rng = utility.stream("dwelling", route.number, calendar.number)
    # Who is away stays away from Monday to Sunday.
    away_share = 0.30 if calendar.is_summer_break else 0.16 if calendar.is_year_end else 0.04
    is_away = utility.stream("away", route.number, (calendar.number - 1) // 7).random(n) < away_share
    later_h = 1.4 if calendar.is_day_off else 0.0
    by_day = c["home_by_day"] + (0.35 if calendar.is_day_off else 0.0)
    awake = (
        0.85 * _bump(hour, c["wake_h"] + later_h, 1.1 + later_h / 2)
        + (c["lunch"] * (1.3 if calendar.is_day_off else 0.8))[:, None] * _bump(hour, np.full(n, 14.4), 1.2)
        + 1.35 * _bump(hour, c["evening_h"], 1.9)
        + by_day[:, None] * _between(hour, c["wake_h"] + later_h, np.full(n, 23.5), 1.5)
    )
    lights = 0.18 * np.clip(-field["elevation_deg"] / 6 + 0.5, 0, 1)[None, :] * np.minimum(awake, 1)
    mood = rng.lognormal(-0.02, 0.2, (n, 1))
    flicker = rng.standard_gamma(2.2, (n, local.quarters)) / 2.2
    activity = c["activity_kw"][:, None] * mood * (awake * flicker * 0.8 + lights)
    oven = (rng.random((n, local.quarters)) < 0.028 * awake) * rng.uniform(0.6, 2.2, (n, local.quarters))
    fridge = 0.09 * (np.sin(2 * np.pi * (np.arange(local.quarters)[None, :] / 5.3 + rng.random((n, 1)))) > 0.35)
    cold_k = np.clip(16.5 - field["felt_temperature_c"], 0, None)
    warm_k = np.clip(field["felt_temperature_c"] - 23.5, 0, None)
    presence = 0.45 + 0.55 * np.minimum(awake, 1.2)
    comfort = (c["heat_kw_per_k"][:, None] * cold_k + c["cool_kw_per_k"][:, None] * warm_k) * presence
    lived_in = activity + oven + comfort * rng.uniform(0.75, 1.25, (n, local.quarters))
    standby = c["base_kw"][:, None] * rng.uniform(0.88, 1.12, (n, local.quarters))
    return standby + fridge + np.where(is_away[:, None], 0.04 * lived_in, lived_in)


def _pv_character(rng: np.random.Generator, n: int) -> Character:
    east, west = rng.uniform(0, 0.5, n), rng.uniform(0, 0.5, n)
    return _household_character(rng, n) | {
        "peak_kw": rng.choice([2.8, 3.3, 4.1, 5.0, 6.6, 8.2], n) * rng.uniform(0.95, 1.05, n),
        "east": east,
        "west": west,
        "south": 1 - east - west,
        "performance": rng.uniform(0.78, 0.88, n),
    }


def _pv_power(utility: Utility, route: Route, local: LocalDay, field: Sky, calendar: _Calendar) -> np.ndarray:
    c = route.character
    rng = utility.stream("roof", route.number, calendar.number)
    plane = sum(c[p][:, None] * plane_irradiance(field, p)[None, :] for p in ("south", "east", "west"))
    cell_c = field["city_temperature_c"] + 0.031 * plane  # nominal operating cell temperature 45 °C
    patchy = 4 * field["city_cloud_cover_pct"] / 100 * (1 - field["city_cloud_cover_pct"] / 100)  # 1 where half the sky is covered
    passing = np.clip(1 + 0.22 * patchy * rng.standard_normal(plane.shape), 0.2, 1.35)
    sun_kw = c["peak_kw"][:, None] * c["performance"][:, None] * plane / 1000 * (1 - 0.0037 * (cell_c - 25)) * passing
    net = _dwelling_kw(utility, route, local, field, calendar) - np.clip(sun_kw, 0, 0.92 * c["peak_kw"][:, None])
    return np.stack([np.maximum(net, 0.0), np.maximum(-net, 0.0)])


def _shop_character(rng: np.random.Generator, n: int) -> Character:
    size = _stratified_lognormal(rng, n, 14.0, 0.75, 2.5, 80.0)
    saturday = rng.choice([0.0, 0.7, 1.0], n, p=[0.2, 0.3, 0.5])
    return {
        "open_kw": size,
        "base_kw": size * rng.uniform(0.12, 0.35, n),
        "opens_h": rng.normal(9.0, 0.9, n),
        "closes_h": rng.normal(20.6, 1.0, n),
        "saturday": saturday,
        "sunday": (rng.random(n) < 0.25) * 0.8 * saturday,
        "cool_per_k": rng.uniform(0.03, 0.075, n),
        "heat_per_k": rng.uniform(0.01, 0.045, n),
    }


def _shop_power(utility: Utility, route: Route, local: LocalDay, field: Sky, calendar: _Calendar) -> np.ndarray:
    c, n, hour = route.character, len(route), local.hour
    rng = utility.stream("shop", route.number, calendar.number)
    trade = c["sunday"] if calendar.is_closed else c["saturday"] if calendar.weekday == 5 else np.ones(n)
    is_open = _between(hour, c["opens_h"] - 0.6, c["closes_h"] + 0.4, 0.8) * trade[:, None]
    busy = 0.72 + 0.2 * _bump(hour, np.full(n, 12.5), 2.0) + 0.22 * _bump(hour, np.full(n, 18.8), 1.9)
    wobble = _slow_noise(rng, n, local.quarters, 0.07) * (1 + 0.04 * rng.standard_normal((n, local.quarters)))
    cold_k = np.clip(15.5 - field["felt_temperature_c"], 0, None)
    warm_k = np.clip(field["felt_temperature_c"] - 20.5, 0, None)
    climate = c["open_kw"][:, None] * (c["cool_per_k"][:, None] * warm_k + c["heat_per_k"][:, None] * cold_k) * (0.12 + 0.88 * is_open)
    fridges = c["base_kw"][:, None] * (1 + 0.008 * (field["city_temperature_c"] - 15))
    return ((fridges + c["open_kw"][:, None] * is_open * busy + climate) * wobble)[None]


def _ev_character(rng: np.random.Generator, n: int) -> Character:
    return {
        "charger_kw": rng.choice([3.7, 7.4, 11.0], n, p=[0.3, 0.5, 0.2]),
        "plugs_in_h": rng.normal(19.2, 1.6, n),
        "often": rng.uniform(0.35, 0.95, n),
        "need_kwh": rng.uniform(6.0, 18.0, n),
    }


def _ev_power(utility: Utility, route: Route, local: LocalDay, field: Sky, calendar: _Calendar) -> np.ndarray:
    c, n = route.character, len(route)
    edges_s = local.start_s + np.arange(local.quarters + 1) * QUARTER_SECONDS
    power = np.zeros((n, local.quarters))
    for back in (1, 0):  # a car that came yesterday may still be charging
        day = local.day - timedelta(days=back)
        rng = utility.stream("car", route.number, day.toordinal())
        came = rng.random(n) < c["often"]
        off = day.weekday() >= 5 or utility.is_holiday(day)
        at_h = np.where(off, rng.uniform(10, 23, n), c["plugs_in_h"] + rng.normal(0, 1.1, n))
        start_s = local_day(utility.time_zone, day).start_s + 3600 * np.clip(at_h, 6, 23.9)
        end_s = start_s + 3600 * np.minimum(rng.gamma(3.0, c["need_kwh"] / 3.0) / c["charger_kw"], 11.0)
        overlap_s = np.minimum(end_s[:, None], edges_s[None, 1:]) - np.maximum(start_s[:, None], edges_s[None, :-1])
        power += came[:, None] * np.clip(overlap_s, 0, None) / QUARTER_SECONDS * c["charger_kw"][:, None]
    mains = utility.stream("mains", route.number, calendar.number).normal(0.985, 0.012, power.shape)  # follows the voltage
    return (np.minimum(power, c["charger_kw"][:, None]) * mains)[None]


def _industry_character(rng: np.random.Generator, n: int) -> Character:
    size = _stratified_lognormal(rng, n, 120.0, 0.6, 40.0, 600.0)
    return {
        "process_kw": size,
        "standby": rng.uniform(0.14, 0.35, n),
        "shifts": rng.permutation(np.resize([2, 3, 1, 2, 2], n)),
        "starts_h": rng.normal(6.0, 0.5, n),
        "works_saturday": (rng.random(n) < 0.3) * 0.6,
        "rests_in_summer": rng.random(n) < 0.4,
        "cool_per_k": rng.uniform(0.002, 0.014, n),
    }


def _industry_power(utility: Utility, route: Route, local: LocalDay, field: Sky, calendar: _Calendar) -> np.ndarray:
    c, n, hour = route.character, len(route), local.hour
    rng = utility.stream("plant", route.number, calendar.number)
    starts = c["starts_h"]
    two = np.maximum(_between(hour, starts, starts + 16.2, 0.7), 0.0)
    one = _between(hour, starts + 1.4, starts + 10.2, 0.7)
    three = np.full_like(one, 0.96)
    runs = np.select([c["shifts"][:, None] == 1, c["shifts"][:, None] == 2], [one, two], three)
    working = np.where(c["shifts"] == 3, 0.85, c["works_saturday"]) if calendar.weekday == 5 else np.where(c["shifts"] == 3, 0.72, 0.0)
    level = working if calendar.weekday >= 5 or calendar.is_holiday else np.ones(n)
    if calendar.is_summer_break or calendar.is_year_end:
        level = np.where(c["rests_in_summer"] | calendar.is_year_end, 0.15 * level, 0.9 * level)
    lunch = 1 - 0.13 * _bump(hour, np.full(n, 14.0), 0.7) * (c["shifts"] < 3)[:, None]
    order_book = utility.stream("orders", route.number, (calendar.number - 1) // 7).normal(1.0, 0.05, (n, 1))
    noise = order_book * _slow_noise(rng, n, local.quarters, 0.05) * (1 + 0.03 * rng.standard_normal((n, local.quarters)))
    stopped = _between(hour, rng.uniform(7, 16, n), rng.uniform(16, 19, n)) * (rng.random(n) < 0.012)[:, None]
    warm_k = np.clip(field["felt_temperature_c"] - 19.0, 0, None)
    share = c["standby"][:, None] + (1 - c["standby"][:, None]) * runs * level[:, None] * lunch * (1 - 0.8 * stopped)
    return (c["process_kw"][:, None] * (share + c["cool_per_k"][:, None] * warm_k * (0.3 + 0.7 * runs * level[:, None])) * noise)[None]


def _stratified_lognormal(rng: np.random.Generator, n: int, median: float, sigma: float, low: float, high: float) -> np.ndarray:
    # One draw in each n-th of the distribution, so that a small utility is much like any other of its size.
    from scipy.special import ndtri

    quantile = (rng.permutation(n) + rng.uniform(0.3, 0.7, n)) / n
    return np.clip(median * np.exp(sigma * ndtri(quantile)), low, high)


def _slow_noise(rng: np.random.Generator, n: int, quarters: int, sigma: float) -> np.ndarray:
    """A level that wanders within the day around 1, drawn every three hours and joined by lines."""
    knots = rng.normal(0.0, sigma, (n, quarters // 12 + 2))
    at = np.arange(quarters) / 12
    left = at.astype(int)
    weight = at - left
    return np.exp(knots[:, left] * (1 - weight) + knots[:, left + 1] * weight)


_CHARACTERS = {
    "household": _household_character,
    "shop": _shop_character,
    "pv": _pv_character,
    "ev": _ev_character,
    "industry": _industry_character,
}
_POWERS = {"household": _household_power, "shop": _shop_power, "pv": _pv_power, "ev": _ev_power, "industry": _industry_power}
