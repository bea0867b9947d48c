"""Files whose whole clock is off by hours, told from the meters' own profiles.

A meter beside others of its file is told from their hours (`vee`). Where all of a file's stamps are off there is no such neighbour: the
hours of its registers are held against what they used at these hours of the local day before. Many registers, or many days of
one, make a curve in which an hour's shift can't hide.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

import numpy as np

if TYPE_CHECKING:
    from lakehouse.metering.vee import Run

SAMPLED_REGISTERS = 40
"""Registers of a file that are looked at, at most."""
PAST_DAYS = 14
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
    first = run.days[0] - timedelta(days=PAST_DAYS + 1)
    earlier = (
        f"""UNION ALL SELECT h.meter_id, h.register, h.interval_start, h.interval_minutes, h.energy_kwh FROM {history} h
            SEMI JOIN {run.clock_samples} s ON s.meter_id = h.meter_id AND s.register = h.register
            WHERE h.date >= DATE '{first}' AND h.date < DATE '{run.days[0]}' AND h.quality <> 'estimated'"""
        if history
        else ""
    )
    listed = ", ".join(f"DATE '{d}'" for d in holidays)
    local = f"timezone('{run.time_zone}', interval_start)"
    run.make(
        "clock_rows",
        f"""
        SELECT d.feed, d.file, d.delivery_date, d.meter_id, d.register, d.interval_start, d.interval_minutes, d.energy_kwh
        FROM {delivered} d SEMI JOIN {run.clock_samples} s ON s.meter_id = d.meter_id AND s.register = d.register
        WHERE {is_reading}
        """,
    )
    run.make(
        "clock_past",
        f"""
        SELECT meter_id, register, CAST({local} AS DATE) AS day, CAST(date_part('hour', {local}) AS INTEGER) AS hour,
               isodow({local}) >= 6 OR CAST({local} AS DATE) IN (SELECT unnest([{listed}]::DATE[])) AS is_off,
               sum(energy_kwh) * 60 / sum(interval_minutes) AS kw
        FROM (SELECT meter_id, register, interval_start, interval_minutes, energy_kwh FROM {run.clock_rows} {earlier})
        GROUP BY ALL
        """,
    )
    run.make(
        "clock_now",
        f"""
        SELECT r.feed, r.file, r.delivery_date, r.meter_id, r.register, date_trunc('hour', r.interval_start) AS hour,
               sum(r.energy_kwh) * 60 / sum(r.interval_minutes) AS kw
        FROM {run.clock_rows} r SEMI JOIN {run.clock_samples} s USING (feed, file, delivery_date, meter_id, register) GROUP BY ALL
        """,
    )
    run.make(
        "clock_profiles",
        f"""
        WITH opened AS (
            SELECT n.feed, n.file, n.delivery_date, n.meter_id, n.register, o.opens
            FROM (SELECT DISTINCT feed, file, delivery_date, meter_id, register FROM {run.clock_now}) n
            JOIN (SELECT feed, file, delivery_date, CAST(timezone('{run.time_zone}', min(hour)) AS DATE) AS opens
                  FROM {run.clock_now}
                  GROUP BY ALL) o
            USING (feed, file, delivery_date)
        ), by_kind AS (
            SELECT o.* EXCLUDE (opens), p.is_off, p.hour, median(p.kw) AS kw, count(*) AS days
            FROM opened o JOIN {run.clock_past} p ON p.meter_id = o.meter_id AND p.register = o.register
                 AND p.day < o.opens AND p.day >= o.opens - {PAST_DAYS}
            GROUP BY ALL
        ), levels AS (
            SELECT feed, file, delivery_date, meter_id, register, avg(kw) AS level FROM by_kind GROUP BY ALL
            HAVING sum(days) >= 24 * {run.rules.spike_least_days} AND count(*) FILTER (WHERE NOT is_off) = 24 AND level > 0
        )
        SELECT b.*, l.level FROM by_kind b JOIN levels l USING (feed, file, delivery_date, meter_id, register)
        """,
    )
    profiles = run.connection.execute(
        f"""
        SELECT feed, file, delivery_date, is_off, hour, avg(kw / level), min(days) FROM {run.clock_profiles} GROUP BY ALL
        """
    ).fetchall()
    now = run.connection.execute(
        f"""
        WITH levels AS (SELECT DISTINCT feed, file, delivery_date, meter_id, register, level FROM {run.clock_profiles})
        SELECT feed, file, delivery_date, n.hour, avg(least(n.kw / l.level, 6)) AS share, count(*) AS registers
        FROM {run.clock_now} n JOIN levels l USING (feed, file, delivery_date, meter_id, register) GROUP BY ALL ORDER BY hour
        """
    ).fetchall()
    expected: dict[tuple, dict[tuple[bool, int], float]] = {}
    for feed, file, delivery, is_off, hour, share, days in profiles:
        if days >= 2:
            expected.setdefault((feed, file, delivery), {})[is_off, hour] = share
    curves: dict[tuple, list[tuple[datetime, float, int]]] = {}
    for feed, file, delivery, hour, share, registers in now:
        curves.setdefault((feed, file, delivery), []).append((hour, share, registers))
    past_days = run.connection.execute(
        f"""
        WITH levels AS (SELECT DISTINCT feed, file, delivery_date, meter_id, register, level FROM {run.clock_profiles}),
        opened AS (
            SELECT feed, file, delivery_date, CAST(timezone('{run.time_zone}', min(hour)) AS DATE) AS opens
            FROM {run.clock_now} GROUP BY ALL
        )
        SELECT feed, file, delivery_date, p.day, p.is_off, p.hour, avg(least(p.kw / l.level, 6)) AS share
        FROM levels l JOIN opened o USING (feed, file, delivery_date)
        JOIN {run.clock_past} p ON p.meter_id = l.meter_id AND p.register = l.register
             AND p.day < o.opens AND p.day >= o.opens - {PAST_DAYS}
        GROUP BY ALL
        """
    ).fetchall()
    usual: dict[tuple, dict[tuple[bool, date], list[tuple[float, float]]]] = {}
    for feed, file, delivery, day, is_off, hour, share in past_days:
        known = expected.get((feed, file, delivery), {})
        told = known.get((is_off, hour), known.get((False, hour)))
        if told is not None:
            usual.setdefault((feed, file, delivery), {}).setdefault((is_off, day), []).append((share, told))
    off = set(holidays)
    beside = _beside_other_files(run, spans)
    found = {}
    for name, curve in curves.items():
        key = (name[0], name[1], (name[2] - date(1970, 1, 1)).days)
        if key in beside:
            known = expected.get(name, {})
            shares = [(hour, share) for hour, share, _ in curve]
            moved, as_stamped = (_moved_disagreement(run, shares, known, hours, off) for hours in (beside[key], 0))
            if not known or moved <= MOST_CONTRADICTION * as_stamped:
                found[key] = beside[key]
            continue
        most = max(registers for _, _, registers in curve)
        whole = [(hour, share) for hour, share, registers in curve if 2 * registers > most]
        if len(whole) < (LEAST_HOURS if most >= run.rules.shifted_least_registers else MANY_HOURS):
            continue
        middle = whole[len(whole) // 2][0].astimezone(ZoneInfo(run.time_zone))
        is_off = middle.isoweekday() >= 6 or middle.date() in off
        strange = sorted(
            _disagreement(*zip(*pairs, strict=True))
            for (was_off, _), pairs in usual.get(name, {}).items()
            if was_off == is_off and len(pairs) >= LEAST_HOURS
        )
        if len(strange) < LEAST_DAYS:
            continue
        late = _hours_late(run, whole, expected.get(name, {}), strange[-2], off)
        if late:
            found[key] = late
    return found | {key: hours for key, hours in beside.items() if all(key[1] != name[1] for name in curves)}


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


def _hours_late(
    run: Run, curve: list[tuple[datetime, float]], expected: dict[tuple[bool, int], float], strangest: float, holidays: set[date]
) -> int:
    """By how many hours a curve's stamps are late (early: negative); 0 where no shift explains it far better than none.

    Args:
        run: the run.
        curve: hours (UTC) with the registers' mean share of their level.
        expected: the same of the past, by day off or not and local hour.
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
    run: Run, curve: list[tuple[datetime, float]], expected: dict[tuple[bool, int], float], shift: int, holidays: set[date]
) -> float:
    zone = ZoneInfo(run.time_zone)
    told = []
    for hour, _ in curve:
        local = (hour - timedelta(hours=shift)).astimezone(zone)
        usual = expected.get((local.isoweekday() >= 6 or local.date() in holidays, local.hour), expected.get((False, local.hour)))
        if usual is None:
            return 1.0
        told.append(usual)
    return _disagreement([share for _, share in curve], told)


def _disagreement(shares: Sequence[float], told: Sequence[float]) -> float:
    """1 less the squared correlation of two curves; 1 and more where they have nothing to do with each other."""
    if np.ptp(shares) == 0 or np.ptp(told) == 0:
        return 1.0
    correlation = float(np.corrcoef(shares, told)[0, 1])
    return 1.0 - correlation * abs(correlation)
