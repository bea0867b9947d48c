"""Files whose whole clock is off by hours, told from the meters' own profiles.

A meter beside others of its file is told from their hours (`vee`). Where all of a file's stamps are off there is no such neighbour: the
hours of its registers are held against what they used at these hours of the local day before. Many registers, or many days of
one, make a curve in which an hour's shift can't hide.
"""

from __future__ import annotations

from collections.abc import Iterable
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
# So many hours of a single register say as much as a day of several.
MANY_HOURS = 96
FileKey = tuple[str, str, int]


def shifted_files(run: Run, delivered: str, is_reading: str, history: str | None, holidays: Iterable[date]) -> dict[FileKey, int]:
    """Finds files that are some hours off, from the registers in `clock_samples`.

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
    off = set(holidays)
    found = {}
    for name, curve in curves.items():
        most = max(registers for _, _, registers in curve)
        whole = [(hour, share) for hour, share, registers in curve if 2 * registers > most]
        if len(whole) < (LEAST_HOURS if most >= run.rules.shifted_least_registers else MANY_HOURS):
            continue
        late = _hours_late(run, whole, expected.get(name, {}), off)
        if late:
            found[(name[0], name[1], (name[2] - date(1970, 1, 1)).days)] = late
    return found


def _hours_late(run: Run, curve: list[tuple[datetime, float]], expected: dict[tuple[bool, int], float], holidays: set[date]) -> int:
    """By how many hours a curve's stamps are late (early: negative); 0 where no shift explains it far better than none."""
    zone = ZoneInfo(run.time_zone)
    shares = np.array([share for _, share in curve])
    if np.ptp(shares) == 0:
        return 0

    def disagreement(shift: int) -> float:
        told = []
        for hour, _ in curve:
            local = (hour - timedelta(hours=shift)).astimezone(zone)
            is_off = local.isoweekday() >= 6 or local.date() in holidays
            usual = expected.get((is_off, local.hour), expected.get((False, local.hour)))
            if usual is None:
                return 1.0
            told.append(usual)
        if np.ptp(told) == 0:
            return 1.0
        return 1.0 - float(np.corrcoef(shares, told)[0, 1]) * abs(float(np.corrcoef(shares, told)[0, 1]))

    as_stamped = disagreement(0)
    if as_stamped <= 1.0 - run.rules.shifted_profile_agreement**2:
        return 0
    disagreements = {shift: disagreement(shift) for shift in range(-LARGEST_SHIFT_HOURS, LARGEST_SHIFT_HOURS + 1)}
    best = min(disagreements, key=lambda shift: (disagreements[shift], abs(shift)))
    is_clear = disagreements[best] <= min(run.rules.shifted_profile_residual * as_stamped, 1.0 - run.rules.shifted_profile_agreement**2)
    return best if is_clear else 0
