"""Files whose whole clock is off by hours, told from the meters' own profiles.

A meter beside others of its file is told from their hours (`rows`). Where all of a file's stamps are off there is no such neighbour: the
hours of its registers are held against what they used at these hours of the local day before. Many registers, or many days of
one, make a curve in which an hour's shift can't hide.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

import numpy as np

if TYPE_CHECKING:
    from lakehouse.metering.run import Run

SAMPLED_REGISTERS = 40
"""Registers of a file that are looked at, at most."""
WORKDAY, SATURDAY, SUNDAY = 5, 6, 7
"""Kinds of local days; holidays are like Sundays. A shop's Saturday tells nothing of its Sunday."""
PAST_DAYS = {WORKDAY: 14, SATURDAY: 28, SUNDAY: 28}
LARGEST_SHIFT_HOURS = 14
LEAST_HOURS = 20
LEAST_DAYS = 3
# A feed whose files nearly all begin and end at the same hours of the local day.
LEAST_FILES, MOST_ALIKE = 4, 0.8
# A file beside these hours is not moved where that would make it so much stranger.
MOST_CONTRADICTION = 2.0
# So many hours of a single register say as much as a day of several.
MANY_HOURS = 96
# Where the past days themselves resemble each other less, nothing can be told: a few chargers, a few roofs.
LEAST_CORRELATION = 0.9
# A moved curve must resemble the past as well as the past itself does, or at least so well.
CLEAR_CORRELATION = 0.95
# An hour of a register counts as at most so many times its level.
MOST_SHARE = 6.0
FileKey = tuple[str, str, int]


def shifted_files(
    run: Run,
    delivered: str,
    is_reading: str,
    history: str | None,
    holidays: Iterable[date],
    spans: Mapping[FileKey, tuple[int, int]],
) -> dict[FileKey, int]:
    """Finds files that are some hours off, from the registers in `clock_samples` and from the files' own spans.

    Args:
        run: the run.
        delivered: name of the delivered rows.
        is_reading: SQL that is true for a row `d` that can be a reading.
        history: name of the earlier trusted readings, or None.
        holidays: local days that are like Sundays.
        spans: first and last moment (microseconds since 1970) that most registers of a file have.

    Returns:
        Feed, file and delivery date (days since 1970) of each such file, with the hours that its stamps are late.
    """
    off = set(holidays)
    beside = _beside_other_files(run, spans)
    _sampled_rows(run, delivered, is_reading)
    now, past = _hours_of_files(run), _Past(run, history, off)
    found, seen = {}, set()
    for key, of_file in now.items():
        curves = past.curves(of_file)
        if not curves.curve:
            continue
        seen.add(key[1])
        if key in beside:
            shares = [(hour, share) for hour, share, _ in curves.curve]
            moved, as_stamped = (_moved_disagreement(run, shares, curves.expected, hours, off) for hours in (beside[key], 0))
            if not curves.expected or moved <= MOST_CONTRADICTION * as_stamped:
                found[key] = beside[key]
            continue
        most = max(registers for _, _, registers in curves.curve)
        whole = [(hour, share) for hour, share, registers in curves.curve if 2 * registers > most]
        if len(whole) < (LEAST_HOURS if most >= run.rules.shifted_least_registers else MANY_HOURS):
            continue
        strange = curves.strangeness(_kind(whole[len(whole) // 2][0].astimezone(ZoneInfo(run.time_zone)).date(), off))
        if len(strange) < LEAST_DAYS:
            continue
        late = _hours_late(run, whole, curves.expected, strange[-2], off)
        if late:
            found[key] = late
    return found | {key: hours for key, hours in beside.items() if key[1] not in seen}


def _sampled_rows(run: Run, delivered: str, is_reading: str) -> None:
    """The delivered rows of the sampled registers as `clock_rows`; files and registers by number (`clock_files`, `clock_registers`)."""
    run.make(
        "clock_registers",
        f"""SELECT meter_id, register, CAST(row_number() OVER (ORDER BY meter_id, register) - 1 AS INTEGER) AS register_no
            FROM (SELECT DISTINCT meter_id, register FROM {run.clock_samples})""",
    )
    run.make(
        "clock_files",
        f"""SELECT feed, file, delivery_date, CAST(row_number() OVER (ORDER BY feed, file, delivery_date) - 1 AS INTEGER) AS file_no
            FROM (SELECT DISTINCT feed, file, delivery_date FROM {run.clock_samples})""",
    )
    run.make(
        "clock_rows",
        f"""
        SELECT f.file_no, k.register_no, d.interval_start, d.interval_minutes, d.energy_kwh
        FROM {delivered} d JOIN {run.clock_registers} k ON k.meter_id = d.meter_id AND k.register = d.register
        LEFT JOIN {run.clock_files} f ON f.feed = d.feed AND f.file = d.file AND f.delivery_date = d.delivery_date
        WHERE {is_reading}
        """,
    )


@dataclass(frozen=True)
class _Hours:
    """What the sampled registers of a file told, by hour.

    Args:
        hours: the hours (UTC) from the first to the last.
        registers: the registers, by number.
        kw: mean power by register and hour, NaN where there is none.
    """

    hours: list[datetime]
    registers: np.ndarray
    kw: np.ndarray


def _hours_of_files(run: Run) -> dict[FileKey, _Hours]:
    """The hours of each sampled file."""
    names = run.connection.execute(f"SELECT feed, file, delivery_date FROM {run.clock_files} ORDER BY file_no").fetchall()
    rows = run.connection.execute(
        f"""
        SELECT r.file_no, r.register_no, CAST(epoch(date_trunc('hour', r.interval_start)) / 3600 AS INTEGER) AS hour,
               sum(r.energy_kwh) * 60 / sum(r.interval_minutes) AS kw
        FROM {run.clock_rows} r SEMI JOIN (
            SELECT f.file_no, k.register_no FROM {run.clock_samples} s JOIN {run.clock_files} f USING (feed, file, delivery_date)
            JOIN {run.clock_registers} k USING (meter_id, register)
        ) s ON s.file_no = r.file_no AND s.register_no = r.register_no
        GROUP BY ALL ORDER BY 1
        """
    ).fetchnumpy()
    found = {}
    edges = np.flatnonzero(np.diff(rows["file_no"], prepend=-1, append=-1))
    for lo, hi in pairwise(edges.tolist()):
        feed, file, delivery = names[rows["file_no"][lo]]
        registers, row = np.unique(rows["register_no"][lo:hi], return_inverse=True)
        hours, column = np.unique(rows["hour"][lo:hi], return_inverse=True)
        kw = np.full((len(registers), len(hours)), np.nan)
        kw[row, column] = rows["kw"][lo:hi]
        stamps = [datetime.fromtimestamp(int(hour) * 3600, UTC) for hour in hours]
        found[(feed, file, (delivery - date(1970, 1, 1)).days)] = _Hours(stamps, registers, kw)
    return found


class _Past:
    """What the sampled registers used by local day and hour, in the run and before it."""

    def __init__(self, run: Run, history: str | None, holidays: set[date]) -> None:
        first = run.days[0] - timedelta(days=max(PAST_DAYS.values()) + 1)
        earlier = (
            f"""UNION ALL SELECT k.register_no, h.interval_start, h.interval_minutes, h.energy_kwh FROM {history} h
                JOIN {run.clock_registers} k ON k.meter_id = h.meter_id AND k.register = h.register
                WHERE h.date >= DATE '{first}' AND h.date < DATE '{run.days[0]}' AND h.quality <> 'estimated'"""
            if history
            else ""
        )
        local = f"timezone('{run.time_zone}', interval_start)"
        rows = run.connection.execute(
            f"""
            SELECT register_no, CAST({local} AS DATE) - DATE '1970-01-01' AS day, CAST(date_part('hour', {local}) AS INTEGER) AS hour,
                   sum(energy_kwh) * 60 / sum(interval_minutes) AS kw
            FROM (SELECT register_no, interval_start, interval_minutes, energy_kwh FROM {run.clock_rows} {earlier})
            GROUP BY ALL
            """
        ).fetchnumpy()
        self.zone, self.least_days = ZoneInfo(run.time_zone), run.rules.spike_least_days
        self.first = int(rows["day"].min()) if len(rows["day"]) else 0
        days = int(rows["day"].max()) - self.first + 1 if len(rows["day"]) else 0
        registers = int(rows["register_no"].max()) + 1 if days else 0
        self.kw = np.full((registers, days, 24), np.nan)
        self.kw[rows["register_no"], rows["day"] - self.first, rows["hour"]] = rows["kw"]
        dates = [date(1970, 1, 1) + timedelta(days=self.first + n) for n in range(days)]
        self.kinds = np.array([_kind(day, holidays) for day in dates], np.int64)

    def curves(self, now: _Hours) -> _Curves:
        """The hours of a file, and those of the days before it, each as a mean of the registers' shares of their level."""
        opens = (now.hours[0].astimezone(self.zone).date() - date(1970, 1, 1)).days - self.first
        days = np.arange(max(opens - max(PAST_DAYS.values()), 0), max(opens, 0))
        days = days[days >= opens - np.array([PAST_DAYS[kind] for kind in self.kinds[days].tolist()], np.int64)]
        kw, kinds = self.kw[np.ix_(now.registers, days)], self.kinds[days]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # hours without any value give NaN, which is meant
            medians = {kind: _medians(kw[:, kinds == kind]) for kind in PAST_DAYS}
            counts = {kind: np.isfinite(kw[:, kinds == kind]).sum(axis=1) for kind in PAST_DAYS}
            level = np.nanmean(np.concatenate(list(medians.values()), axis=1), axis=1)
            known = sum(counts.values()).sum(axis=1) >= 24 * self.least_days
            known &= (counts[WORKDAY] > 0).all(axis=1) & (level > 0)
            if not known.any():
                return _Curves([], {}, np.empty((0, 24)), kinds)
            share = level[known, None]
            expected: dict[tuple[int, int], float] = {}
            for kind, of_kind in medians.items():
                fewest = np.where(counts[kind][known] > 0, counts[kind][known], 2).min(axis=0)
                means = np.nanmean(of_kind[known] / share, axis=0)
                told = np.flatnonzero(np.isfinite(means) & (fewest >= 2))
                expected |= {(kind, hour): float(means[hour]) for hour in told.tolist()}
            shares = np.minimum(now.kw[known] / share, MOST_SHARE)
            heard = np.isfinite(shares).sum(axis=0)
            curve = [(h, v, n) for h, v, n in zip(now.hours, np.nanmean(shares, axis=0).tolist(), heard.tolist(), strict=True) if n]
            before = np.nanmean(np.minimum(kw[known] / share[:, :, None], MOST_SHARE), axis=0)
        return _Curves(curve, expected, before, kinds)


@dataclass(frozen=True)
class _Curves:
    """A file's hours beside those of the days before it, each a mean of the registers' shares of their level.

    Args:
        curve: hour (UTC), share and registers.
        expected: the median share by kind of day and local hour.
        before: the share by day before and local hour, NaN where there is none.
        kinds: of which kind these days are.
    """

    curve: list[tuple[datetime, float, int]]
    expected: dict[tuple[int, int], float]
    before: np.ndarray
    kinds: np.ndarray

    def strangeness(self, kind: int) -> list[float]:
        """How much each day before of a kind disagrees with what is expected, the strangest last."""
        told = np.array([self.expected.get((kind, hour), self.expected.get((WORKDAY, hour), np.nan)) for hour in range(24)])
        strange = []
        for day in self.before[self.kinds == kind]:
            both = np.isfinite(day) & np.isfinite(told)
            if both.sum() >= LEAST_HOURS:
                strange.append(_disagreement(day[both], told[both]))
        return sorted(strange)


def _beside_other_files(run: Run, spans: Mapping[FileKey, tuple[int, int]]) -> dict[FileKey, int]:
    """Files that begin and end the same hours of the local clock beside nearly all other files of their feed, with these hours."""
    zone = ZoneInfo(run.time_zone)
    edges: dict[FileKey, tuple[int, int]] = {}
    for key, span in spans.items():
        opens, closes = (datetime.fromtimestamp(us / 1e6, zone) for us in span)
        edges[key] = (opens.hour * 60 + opens.minute, closes.hour * 60 + closes.minute)
    found = {}
    for feed in {key[0] for key in edges}:
        usual = Counter(edge for key, edge in edges.items() if key[0] == feed)
        (first, last), most = usual.most_common(1)[0]
        length = sorted(closes - opens for key, (opens, closes) in spans.items() if key[0] == feed and edges[key] == (first, last))[
            most // 2
        ]
        if most < LEAST_FILES or most < MOST_ALIKE * usual.total():
            continue
        for key, edge in edges.items():
            other_length = spans[key][1] - spans[key][0]
            if key[0] != feed or edge == (first, last) or abs(other_length - length) > 3600 * 10**6:
                continue
            begins, ends = ((at - usual_at + 720) % 1440 - 720 for at, usual_at in zip(edge, (first, last), strict=True))
            if begins and begins % 60 == 0 and abs(begins - ends) in (0, 60) and _is_local_or_equal(run, spans[key], begins, ends):
                found[key] = begins // 60
    return found


def _is_local_or_equal(run: Run, span: tuple[int, int], begins: int, ends: int) -> bool:
    """Whether both ends are equally late, or each by the clock's offset at it: local time stamped as UTC on a day of a clock change."""
    if begins == ends:
        return True
    zone = ZoneInfo(run.time_zone)
    stamps = (datetime.fromtimestamp(us / 1e6, ZoneInfo("UTC")).replace(tzinfo=zone) for us in span)
    return [(stamp.utcoffset() or timedelta()).total_seconds() / 60 for stamp in stamps] == [begins, ends]


def _kind(day: date, holidays: set[date]) -> int:
    return SUNDAY if day in holidays else max(day.isoweekday(), WORKDAY)


def _medians(days: np.ndarray) -> np.ndarray:
    """The median over the second axis, without what is missing; NaN where all is."""
    if not days.shape[1]:
        return np.full((days.shape[0], days.shape[2]), np.nan)
    ordered = np.sort(days, axis=1)  # what is missing comes last
    present = np.isfinite(days).sum(axis=1)
    middle = [np.take_along_axis(ordered, np.maximum(at, 0)[:, None], axis=1)[:, 0] for at in ((present - 1) // 2, present // 2)]
    return np.where(present > 0, (middle[0] + middle[1]) / 2, np.nan)


def _hours_late(
    run: Run, curve: list[tuple[datetime, float]], expected: dict[tuple[int, int], float], strangest: float, holidays: set[date]
) -> int:
    """By how many hours a curve's stamps are late (early: negative); 0 where no shift explains it far better than none.

    Args:
        run: the run.
        curve: hours (UTC) with the registers' mean share of their level.
        expected: the same of the past, by kind of day and local hour.
        strangest: disagreement of the strangest day of the past but one.
        holidays: local days that are like Sundays.
    """
    as_stamped = _moved_disagreement(run, curve, expected, 0, holidays)
    if strangest > 1.0 - LEAST_CORRELATION**2 or as_stamped <= run.rules.shifted_least_strangeness * strangest:
        return 0
    shifts = range(-LARGEST_SHIFT_HOURS, LARGEST_SHIFT_HOURS + 1)
    disagreements = {shift: _moved_disagreement(run, curve, expected, shift, holidays) for shift in shifts}
    best = min(disagreements, key=lambda shift: (disagreements[shift], abs(shift)))
    most = min(run.rules.shifted_most_left * as_stamped, max(strangest, 1.0 - CLEAR_CORRELATION**2))
    return best if disagreements[best] <= most else 0


def _moved_disagreement(
    run: Run, curve: list[tuple[datetime, float]], expected: dict[tuple[int, int], float], shift: int, holidays: set[date]
) -> float:
    zone, told = ZoneInfo(run.time_zone), []
    for hour, _ in curve:
        local = (hour - timedelta(hours=shift)).astimezone(zone)
        usual = expected.get((_kind(local.date(), holidays), local.hour), expected.get((WORKDAY, local.hour)))
        if usual is None:
            return 1.0
        told.append(usual)
    return _disagreement(np.array([share for _, share in curve]), np.array(told))


def _disagreement(shares: np.ndarray, told: np.ndarray) -> float:
    """1 less the squared correlation of two curves; 1 and more where they have nothing to do with each other."""
    if np.ptp(shares) == 0 or np.ptp(told) == 0:
        return 1.0
    one, other = shares - shares.mean(), told - told.mean()
    correlation = float(one @ other / np.sqrt((one @ one) * (other @ other)))
    return 1.0 - correlation * abs(correlation)
