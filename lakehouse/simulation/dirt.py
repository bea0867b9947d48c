"""The dirt of real deliveries: which faults there are, where they strike, and what they do to the rows of a file.

At most one fault strikes a meter's day, and none a meter's day whose file has a fault of its own, so that every rule that looks
for a fault can be scored cleanly. All is drawn from the seed and the day. Writing the files is the business of `delivery`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date, timedelta
from functools import lru_cache
from typing import Any

import numpy as np

from lakehouse.simulation.meters import Route, layout, rated_kw, routes, true_energy_kwh, usual_peak_kw
from lakehouse.simulation.utility import Utility, local_day, random_stream

READING_FAULTS: dict[str, tuple[float, str]] = {
    "missing_short": (0.0040, "one to three intervals in a row were not delivered"),
    "missing_hours": (0.0020, "two to twelve hours were not delivered"),
    "missing_days": (0.0006, "one to five whole local days were not delivered; the rate is that of its start"),
    "exact_duplicate": (0.0020, "a run of rows is delivered twice in the same file, word for word"),
    "conflicting_duplicate": (
        0.0020,
        "intervals delivered twice with different values; right is the later line or the better quality",
    ),
    "negative": (0.0015, "one to four values with a minus sign on the import register"),
    "spike": (0.0030, "one value 8 to 50 times too large, within the connection's rating"),
    "stuck": (0.0015, "a run of 12 to 40 equal values, not zero; its first value is right"),
    "dead_register": (0.0008, "the import register counts zero for one to three whole local days; the rate is that of its start"),
    "late_register": (0.0020, "one to four zeros, and their energy on top of the next interval"),
    "wrong_unit": (0.0012, "a meter's day in Wh, written as kWh: 1,000 times too large"),
    "beyond_rating": (0.0015, "one value of 1.3 to 4 times what the connection can carry"),
    "unknown_meter": (0.0008, "a day of a meter that is in no registry"),
    "bad_number": (0.0012, "words where the number should be, in one to three rows"),
    "missing_column": (0.0010, "one to three rows that break off after the start of the interval"),
    "decimal_comma": (0.0010, "one to three rows with a decimal comma"),
    "wrong_time_zone": (0.0006, "a meter's day stamped in local time as if it were UTC"),
    "shifted_hour": (0.0005, "a meter's day stamped an hour late, as by a clock that was not changed"),
    "wrong_factor": (
        0.0015,
        "a meter's day counted with a wrong factor, 0.65 to 0.85 or 1.2 to 1.5 times the truth: only the register tells",
    ),
}
"""Faults of a meter's day: how often one starts at dirt 1 (share of meter-days), and what it is."""

FILE_FAULTS: dict[str, tuple[int, str]] = {
    "swapped_day_month": (60, "in one small file day and month of every stamp have changed places; at most one a month"),
    "late_file": (15, "a file comes one to nine days late"),
    "corrected_file": (12, "some meters of a file carry provisional values (quality E); a later file brings the right ones"),
    "truncated_file": (45, "a file breaks off in the middle of a row"),
    "empty_file": (50, "a file of no bytes; sent again one to three days later"),
    "not_csv": (55, "a file that is a web page or random bytes; sent again one to three days later"),
    "shifted_file": (45, "every stamp of a file is local time written as UTC, or an hour late"),
}
"""Faults of a file: how many days on average lie between two of them at dirt 1, and what they are."""

KINDS = (*READING_FAULTS, *FILE_FAULTS)
_LONGEST_LATENESS = {"late_file": 9, "corrected_file": 12, "empty_file": 3, "not_csv": 3}
LONGEST_LATENESS_DAYS = max(_LONGEST_LATENESS.values())
_LONGEST_DAYS = {"missing_days": 5, "dead_register": 3}
_CLOCK_CHANGE_FACTOR = 30.0  # a clock that was not changed is a fault of the days around the change
_NAMES = tuple(READING_FAULTS)
_CODE = {name: i + 1 for i, name in enumerate(_NAMES)}
_LASTS_DAYS = np.array([name in _LONGEST_DAYS for name in ("", *_NAMES)])
_MOVES_STAMPS = np.array([name in ("wrong_time_zone", "shifted_hour") for name in ("", *_NAMES)])
_SHOWS_IN_IDLE_METER = np.array([name not in ("dead_register", "stuck", "wrong_factor") for name in ("", *_NAMES)])

TEXT_OK, TEXT_BAD_NUMBER, TEXT_MISSING_COLUMN, TEXT_DECIMAL_COMMA = range(4)
QUALITY = ("A", "E")


@dataclass(frozen=True)
class FilePlan:
    """What befalls a route's file of one day.

    Args:
        kind: one of `FILE_FAULTS`, or empty for a sound file.
        days: by how many days the file, its correction or its second sending is late.
        share: a number between 0 and 1 that sizes the fault.
    """

    kind: str = ""
    days: int = 0
    share: float = 0.0


SOUND = FilePlan()


@dataclass(eq=False)
class Rows:
    """Rows of one file, column by column.

    Args:
        meter: position in `meter_ids`.
        register: position in `REGISTERS`.
        start_s: stamp as delivered, seconds since 1970 (UTC).
        minutes: length of the interval.
        energy_kwh: value as delivered.
        quality: position in `QUALITY`.
        text: how the row is written, one of the `TEXT_…` codes.
        place: sorts the rows into the order of the file.
        meter_ids: names of the meters; those of the route first.
        faults: what was done, block by block; see `Fault`.
    """

    meter: np.ndarray
    register: np.ndarray
    start_s: np.ndarray
    minutes: np.ndarray
    energy_kwh: np.ndarray
    quality: np.ndarray
    text: np.ndarray
    place: np.ndarray
    meter_ids: list[str]
    faults: list[Fault] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.meter)

    def append(self, like: np.ndarray, *, after: np.ndarray | float, **changed: Any) -> np.ndarray:
        """Adds copies of rows with some columns changed, and returns their positions."""
        added = np.arange(len(self), len(self) + len(like))
        for name in ("meter", "register", "start_s", "minutes", "energy_kwh", "quality", "text"):
            old = getattr(self, name)
            new = np.broadcast_to(changed[name], len(like)).astype(old.dtype) if name in changed else old[like]
            setattr(self, name, np.concatenate([old, new]))
        self.place = np.concatenate([self.place, np.broadcast_to(np.asarray(after, float), len(like))])
        return added


@dataclass(frozen=True, eq=False)
class Fault:
    """A block of readings that one fault touched.

    Args:
        kind: one of `KINDS`.
        rows: positions in `Rows` before sorting; -1 where nothing was delivered.
        meter, register, start_s, minutes, true_kwh: the readings as they truly are (NaN for a meter that is none).
        delivered_kwh, delivered_start_s: what stands in the file; NaN where there is nothing or no number.
    """

    kind: str
    rows: np.ndarray
    meter: np.ndarray
    register: np.ndarray
    start_s: np.ndarray
    minutes: np.ndarray
    true_kwh: np.ndarray
    delivered_kwh: np.ndarray
    delivered_start_s: np.ndarray


def file_plan(utility: Utility, route: Route, day: date) -> FilePlan:
    """What befalls the file with a route's readings of a local day."""
    return _file_plans(utility, day).get(route.number, SOUND)


@lru_cache(maxsize=512)
def _file_plans(utility: Utility, day: date) -> dict[int, FilePlan]:
    plans: dict[int, FilePlan] = {}
    if not utility.dirt:
        return plans
    everyone = routes(utility)
    for kind, (days_between, _) in FILE_FAULTS.items():
        period = max(1, round(days_between / utility.dirt))
        if kind == "swapped_day_month":
            # A local day reaches into the UTC day beside it: both must have a month of their number, and not their own.
            eligible = [d for d in range(3, 12) if abs(d - day.month) > 1]
            months_between, month = max(1, round(period / 30)), 12 * day.year + day.month
            rng = utility.stream(kind, month)
            if month % months_between or day.day != int(rng.choice(eligible)):
                continue
            route = min((r for r in everyone if r.meter_class != "industry"), key=len)
        else:
            rng = utility.stream(kind, day.toordinal() // period)
            if day.toordinal() % period != int(rng.integers(period)):
                continue
            route = everyone[int(rng.integers(len(everyone)))]
        days = int(rng.integers(1, _LONGEST_LATENESS[kind] + 1)) if kind in _LONGEST_LATENESS else 0
        plans.setdefault(route.number, FilePlan(kind, days, float(rng.random())))
    return plans


def sound_rows(utility: Utility, route: Route, day: date) -> Rows:
    """The rows of a route's local day as they should be delivered."""
    local = local_day(utility.time_zone, day)
    rows = layout(route, local.quarters)
    n = len(rows.meter)
    return Rows(
        meter=rows.meter,
        register=rows.register,
        start_s=local.start_s + rows.start_s,
        minutes=rows.minutes,
        energy_kwh=true_energy_kwh(utility, route, day),
        quality=np.zeros(n, np.int8),
        text=np.zeros(n, np.int8),
        place=np.arange(n, dtype=float),
        meter_ids=list(route.meter_ids),
    )


@lru_cache(maxsize=2)
def delivered_rows(utility: Utility, route: Route, day: date) -> Rows:
    """The rows of a route's file of a local day, faults of readings included, in the order of the file.

    A file with a fault of its own (see `file_plan`) has no faulty readings; what happens to its bytes is left to `delivery`,
    but for provisional values and swapped dates, which are done here.
    """
    rows = sound_rows(utility, route, day)
    plan = file_plan(utility, route, day)
    if plan.kind == "corrected_file":
        _provisional_values(utility, route, day, rows, plan)
    elif plan.kind == "swapped_day_month":
        _swap_day_and_month(rows)
    elif plan.kind == "shifted_file":
        _shift_file(utility, day, rows, plan)
    elif plan is SOUND or not plan.kind:
        _strike(utility, route, day, rows)
    return rows


def corrected_meters(utility: Utility, route: Route, day: date, plan: FilePlan) -> np.ndarray:
    """Positions of the meters whose first values were provisional."""
    count = max(1, round((0.08 + 0.2 * plan.share) * len(route)))
    return np.sort(utility.stream("provisional", route.number, day.toordinal()).permutation(len(route))[:count])


def _provisional_values(utility: Utility, route: Route, day: date, rows: Rows, plan: FilePlan) -> None:
    at = np.flatnonzero(np.isin(rows.meter, corrected_meters(utility, route, day, plan)))
    rng = utility.stream("provisional values", route.number, day.toordinal())
    true = rows.energy_kwh[at]
    wrong = _another(true, rng.uniform(0.6, 1.4, len(at)))
    rows.energy_kwh = rows.energy_kwh.copy()
    rows.energy_kwh[at] = wrong
    rows.quality[at] = 1
    rows.faults.append(_fault("corrected_file", rows, at, true))


def _another(true_kwh: np.ndarray, factor: np.ndarray) -> np.ndarray:
    """A plausible value that is not the true one, kWh."""
    wrong = np.round(true_kwh * factor, 3)
    return np.where(wrong == np.round(true_kwh, 3), np.round(true_kwh + 0.004, 3), wrong)


def _shift_file(utility: Utility, day: date, rows: Rows, plan: FilePlan) -> None:
    local = local_day(utility.time_zone, day)
    true_start = rows.start_s
    offset = local.offset_s[(true_start - local.start_s) // 900]
    rows.start_s = true_start + (offset if plan.share < 0.5 and offset.all() else 3600)
    rows.faults.append(_fault("shifted_file", rows, np.arange(len(rows)), rows.energy_kwh.copy(), true_start_s=true_start))


def _swap_day_and_month(rows: Rows) -> None:
    true_start = rows.start_s
    rows.start_s = swapped_day_and_month(true_start)
    at = np.arange(len(rows))
    rows.faults.append(_fault("swapped_day_month", rows, at, rows.energy_kwh.copy(), true_start_s=true_start))


def swapped_day_and_month(start_s: np.ndarray) -> np.ndarray:
    """Stamps (UTC seconds) with day and month exchanged; every day of month must be at most 12."""
    days = (start_s // 86400).astype("datetime64[D]")
    months = days.astype("datetime64[M]")
    day = (days - months).astype(int) + 1
    years = months.astype("datetime64[Y]")
    month = (months - years).astype(int) + 1
    swapped = (years.astype("datetime64[M]") + (day - 1)).astype("datetime64[D]") + (month - 1)
    return swapped.astype(np.int64) * 86400 + start_s % 86400


def _fault(
    kind: str,
    rows: Rows,
    at: np.ndarray,
    true_kwh: np.ndarray,
    *,
    true_start_s: np.ndarray | None = None,
    delivered_kwh: np.ndarray | None = None,
    is_missing: bool = False,
) -> Fault:
    nothing = np.full(len(at), np.nan)
    return Fault(
        kind=kind,
        rows=np.full(len(at), -1) if is_missing else at,
        meter=rows.meter[at],
        register=rows.register[at],
        start_s=rows.start_s[at] if true_start_s is None else true_start_s,
        minutes=rows.minutes[at],
        true_kwh=true_kwh,
        delivered_kwh=nothing if is_missing else rows.energy_kwh[at].copy() if delivered_kwh is None else delivered_kwh,
        delivered_start_s=nothing if is_missing else rows.start_s[at].astype(float),
    )


@lru_cache(maxsize=512)
def _drawn(utility: Utility, number: int, meters: int, day: date) -> tuple[np.ndarray, np.ndarray]:
    """For each meter of a route: the fault that a day draws (0 for none), and a number that sizes it."""
    rates = np.array([rate for rate, _ in READING_FAULTS.values()]) * utility.dirt
    if _is_near_clock_change(utility.time_zone, day):
        rates[_NAMES.index("shifted_hour")] *= _CLOCK_CHANGE_FACTOR
    rng = random_stream(utility.seed, "faults", number, day.toordinal())
    kind = np.searchsorted(np.cumsum(rates), rng.random(meters), side="right") + 1
    return np.where(kind > len(rates), 0, kind).astype(np.int8), rng.random(meters)


def _is_near_clock_change(time_zone: str, day: date) -> bool:
    return any(local_day(time_zone, day - timedelta(days=back)).clock_change_s for back in range(3))


def _without_moves(utility: Utility, route: Route, day: date) -> np.ndarray:
    """Each meter's fault on a day, faults of several days carried on; stamps that move are still to be checked."""
    drawn, _ = _drawn(utility, route.number, len(route), day)
    out = np.where(_LASTS_DAYS[drawn], 0, drawn)
    for back in range(max(_LONGEST_DAYS.values()) - 1, -1, -1):
        started = day - timedelta(days=back)
        kind, size = _drawn(utility, route.number, len(route), started)
        starts = _LASTS_DAYS[kind]
        if not starts.any():
            continue
        for earlier in range(1, max(_LONGEST_DAYS.values())):  # of two that would run into each other the later does not start
            starts = starts & ~_LASTS_DAYS[_drawn(utility, route.number, len(route), started - timedelta(days=earlier))[0]]
        for name, longest in _LONGEST_DAYS.items():
            lasts = 1 + (size * longest).astype(int)
            out = np.where(starts & (kind == _CODE[name]) & (lasts > back), _CODE[name], out)
    if route.meter_class == "ev":  # a charger that nobody uses counts zero: no fault that anybody could see
        out = np.where(_SHOWS_IN_IDLE_METER[out], out, 0)
    return out


def meter_faults(utility: Utility, route: Route, day: date) -> np.ndarray:
    """The fault of each meter of a route on a local day: a position in `READING_FAULTS` plus one, 0 for none."""
    if not utility.dirt or file_plan(utility, route, day).kind:
        return np.zeros(len(route), np.int8)
    out = _without_moves(utility, route, day)
    moves = _MOVES_STAMPS[out]
    if moves.any():  # moved stamps reach into the next or the last day, which must be sound
        for other in (day - timedelta(days=1), day + timedelta(days=1)):
            beside = _without_moves(utility, route, other)
            out = np.where(moves & ((beside != 0) | bool(file_plan(utility, route, other).kind)), 0, out)
    return out


def _strike(utility: Utility, route: Route, day: date, rows: Rows) -> None:
    kinds = meter_faults(utility, route, day)
    struck = np.flatnonzero(kinds)
    if not len(struck):
        return
    first = np.searchsorted(rows.meter, np.arange(len(route) + 1))
    rows.energy_kwh = rows.energy_kwh.copy()
    rows.start_s = rows.start_s.copy()
    case = _Case(utility, route, day, rows, keep=np.ones(len(rows), bool))
    for meter in struck:
        name = _NAMES[kinds[meter] - 1]
        mine = np.arange(first[meter], first[meter + 1])
        rng = random_stream(utility.seed, "strike", route.number, day.toordinal(), int(meter))
        _STRIKES[name](case, int(meter), mine, rng)
    dropped = np.flatnonzero(~case.keep)
    if len(dropped):
        rows.place[dropped] = np.nan


@dataclass(eq=False)
class _Case:
    utility: Utility
    route: Route
    day: date
    rows: Rows
    keep: np.ndarray

    def register_rows(self, mine: np.ndarray, register: int = 0) -> np.ndarray:
        return mine[self.rows.register[mine] == register]

    def change(self, kind: str, at: np.ndarray, energy_kwh: np.ndarray) -> None:
        true = self.rows.energy_kwh[at].copy()
        self.rows.energy_kwh[at] = np.round(energy_kwh, 3)
        self.rows.faults.append(_fault(kind, self.rows, at, true))

    def drop(self, kind: str, at: np.ndarray) -> None:
        self.keep[at] = False
        self.rows.faults.append(_fault(kind, self.rows, at, self.rows.energy_kwh[at].copy(), is_missing=True))

    def write(self, kind: str, at: np.ndarray, text: int) -> None:
        self.rows.text[at] = text
        self.rows.faults.append(_fault(kind, self.rows, at, self.rows.energy_kwh[at].copy(), delivered_kwh=np.full(len(at), np.nan)))


def _run(rng: np.random.Generator, at: np.ndarray, length: int) -> np.ndarray:
    """A stretch of consecutive positions."""
    length = min(length, len(at))
    start = int(rng.integers(len(at) - length + 1))
    return at[start : start + length]


def _missing_short(case: _Case, meter: int, mine: np.ndarray, rng: np.random.Generator) -> None:
    register = int(rng.integers(len(case.route.registers)))
    case.drop("missing_short", _run(rng, case.register_rows(mine, register), int(rng.integers(1, 4))))


def _missing_hours(case: _Case, meter: int, mine: np.ndarray, rng: np.random.Generator) -> None:
    hours, start = rng.uniform(2, 12), rng.random()
    for register in range(len(case.route.registers)):  # the meter was out of reach, with all its registers
        at = case.register_rows(mine, register)
        length = max(4, round(hours * 60 / case.rows.minutes[at[0]]))
        first = int(start * (len(at) - length))
        case.drop("missing_hours", at[first : first + length])


def _missing_days(case: _Case, meter: int, mine: np.ndarray, rng: np.random.Generator) -> None:
    case.drop("missing_days", mine)


def _exact_duplicate(case: _Case, meter: int, mine: np.ndarray, rng: np.random.Generator) -> None:
    at = _run(rng, mine, int(rng.integers(1, 49)))
    after = case.rows.place[at] + 0.5 if rng.random() < 0.5 else 1e12
    true = case.rows.energy_kwh[at].copy()
    added = case.rows.append(at, after=after)
    case.keep = np.concatenate([case.keep, np.ones(len(at), bool)])
    case.rows.faults.append(_fault("exact_duplicate", case.rows, added, true))


def _conflicting_duplicate(case: _Case, meter: int, mine: np.ndarray, rng: np.random.Generator) -> None:
    at = _run(rng, mine, int(rng.integers(1, 13)))
    true = case.rows.energy_kwh[at].copy()
    wrong = _another(true, rng.uniform(0.7, 1.3, len(at)))
    is_marked = rng.random() < 0.5
    after = case.rows.place[at] + (0.5 if is_marked else -0.5)  # the better quality, or else the later line is right
    added = case.rows.append(at, after=after, energy_kwh=wrong, quality=1 if is_marked else 0)
    case.keep = np.concatenate([case.keep, np.ones(len(at), bool)])
    case.rows.faults.append(_fault("conflicting_duplicate", case.rows, added, true))


def _negative(case: _Case, meter: int, mine: np.ndarray, rng: np.random.Generator) -> None:
    at = case.register_rows(mine)
    at = at[case.rows.energy_kwh[at] >= 0.005]
    if len(at):
        at = _run(rng, at, int(rng.integers(1, 5)))
        case.change("negative", at, -case.rows.energy_kwh[at])


def _spike(case: _Case, meter: int, mine: np.ndarray, rng: np.random.Generator) -> None:
    at = case.register_rows(mine)
    hours = case.rows.minutes[at[0]] / 60
    usual, rated = (float(of(case.utility, case.route)[meter]) * hours for of in (usual_peak_kw, rated_kw))
    target = min(max(rng.uniform(2.2, 3.4) * usual, 1.3 * case.rows.energy_kwh[at].max()), 0.97 * rated)
    true = case.rows.energy_kwh[at]
    fits = at[(true >= target / 50) & (true <= target / 8) & (target > 1.25 * true.max())]
    if len(fits):
        case.change("spike", _run(rng, fits, 1), np.array([target]))


def _stuck(case: _Case, meter: int, mine: np.ndarray, rng: np.random.Generator) -> None:
    at = case.register_rows(mine)
    run = _run(rng, at, int(rng.integers(12, 41)))
    value = case.rows.energy_kwh[run[0]]
    if value >= 0.005 and len(run) >= 12:
        case.change("stuck", run, np.full(len(run), value))


def _dead_register(case: _Case, meter: int, mine: np.ndarray, rng: np.random.Generator) -> None:
    at = case.register_rows(mine)
    case.change("dead_register", at, np.zeros(len(at)))


def _late_register(case: _Case, meter: int, mine: np.ndarray, rng: np.random.Generator) -> None:
    at = _run(rng, case.register_rows(mine), int(rng.integers(2, 6)))
    true = case.rows.energy_kwh[at]
    if (true > 0.01).all():
        case.change("late_register", at, np.append(np.zeros(len(at) - 1), true.sum()))


def _wrong_unit(case: _Case, meter: int, mine: np.ndarray, rng: np.random.Generator) -> None:
    if case.rows.energy_kwh[mine].sum() > 1.0:  # an idle charger's day of zeros is the same in any unit
        case.change("wrong_unit", mine, 1000 * case.rows.energy_kwh[mine])


def _beyond_rating(case: _Case, meter: int, mine: np.ndarray, rng: np.random.Generator) -> None:
    at = _run(rng, case.register_rows(mine), 1)
    rated = float(rated_kw(case.utility, case.route)[meter]) * case.rows.minutes[at[0]] / 60
    case.change("beyond_rating", at, np.array([rng.uniform(1.3, 4.0) * rated]))


def _unknown_meter(case: _Case, meter: int, mine: np.ndarray, rng: np.random.Generator) -> None:
    at = case.register_rows(mine)
    case.rows.meter_ids.append(f"X{int(rng.integers(10**7)):07d}")
    energy = np.round(case.rows.energy_kwh[at] * 0.9, 3)
    added = case.rows.append(at, after=1e11 + meter, meter=len(case.rows.meter_ids) - 1, energy_kwh=energy)
    case.keep = np.concatenate([case.keep, np.ones(len(at), bool)])
    case.rows.faults.append(_fault("unknown_meter", case.rows, added, np.full(len(at), np.nan)))


def _bad_number(case: _Case, meter: int, mine: np.ndarray, rng: np.random.Generator) -> None:
    case.write("bad_number", _run(rng, mine, int(rng.integers(1, 4))), TEXT_BAD_NUMBER)


def _missing_column(case: _Case, meter: int, mine: np.ndarray, rng: np.random.Generator) -> None:
    case.write("missing_column", _run(rng, mine, int(rng.integers(1, 4))), TEXT_MISSING_COLUMN)


def _decimal_comma(case: _Case, meter: int, mine: np.ndarray, rng: np.random.Generator) -> None:
    case.write("decimal_comma", _run(rng, mine, int(rng.integers(1, 4))), TEXT_DECIMAL_COMMA)


def _move(kind: str, case: _Case, mine: np.ndarray, by_s: np.ndarray | int) -> None:
    true_start = case.rows.start_s[mine].copy()
    case.rows.start_s[mine] = true_start + by_s
    case.rows.faults.append(_fault(kind, case.rows, mine, case.rows.energy_kwh[mine].copy(), true_start_s=true_start))


def _wrong_time_zone(case: _Case, meter: int, mine: np.ndarray, rng: np.random.Generator) -> None:
    local = local_day(case.utility.time_zone, case.day)
    offset = local.offset_s[(case.rows.start_s[mine] - local.start_s) // 900]
    if offset.any():
        _move("wrong_time_zone", case, mine, offset)


def _shifted_hour(case: _Case, meter: int, mine: np.ndarray, rng: np.random.Generator) -> None:
    _move("shifted_hour", case, mine, 3600)


def _wrong_factor(case: _Case, meter: int, mine: np.ndarray, rng: np.random.Generator) -> None:
    factor = rng.uniform(0.65, 0.85) if rng.random() < 0.5 else rng.uniform(1.2, 1.5)
    if case.rows.energy_kwh[mine].sum() > 1.0:
        case.change("wrong_factor", mine, factor * case.rows.energy_kwh[mine])


_STRIKES = {name: globals()[f"_{name}"] for name in READING_FAULTS}
