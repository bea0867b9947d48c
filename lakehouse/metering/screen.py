"""The quick look at all delivered rows, which finds the registers on whose days no rule can fire.

Most meters have a sound day. One pass without a sort proves it: where each row follows the one before it in the file by just
one interval, a day of 48 half-hours is complete, ordered and free of duplicates, and its smallest and largest values, zeros
and repeats tell whether any rule on values could fire. What is not proven sound (also every file that is not in order) is
looked at row by row in `vee`; the result is the same, only slower.
"""

from __future__ import annotations

from datetime import date
from typing import TYPE_CHECKING

from lakehouse.contracts.cleaned import INTERVAL_MINUTES
from lakehouse.metering.rules import NET_REGISTER, swapped_day_month

if TYPE_CHECKING:
    from lakehouse.metering.vee import Run

# Days of a register that differ by more than this factor could be in different units.
LARGEST_RATIO_OF_DAYS = 50


def look(run: Run, delivered: str, in_days: str) -> None:
    """One row for each register, day and file of the deliveries that touch the days: `looks`; and for each file: `blocks`.

    Args:
        run: the run.
        delivered: name of the relation of delivered rows.
        in_days: SQL over `d` that is true for rows which count on the days.
    """
    run.make("files", f"SELECT DISTINCT feed, file, delivery_date FROM {delivered} d WHERE {in_days}")
    run.make(
        "looks",
        f"""
        WITH beside AS (
            -- Over the whole stream, without a partition: needs no sort. Where the stream is not in order nothing is proven.
            SELECT *, lag(meter_id) OVER () AS last_meter, lag(register) OVER () AS last_register, lag(interval_start)
                OVER () AS last_start,
                   lag(energy_kwh) OVER () AS last_kwh
            FROM (
                SELECT d.feed, d.file, d.delivery_date, d.date, d.meter_id, d.register, d.interval_start, d.interval_minutes, d.energy_kwh
                FROM {delivered} d SEMI JOIN {run.files} f ON f.feed = d.feed AND f.file = d.file AND f.delivery_date = d.delivery_date
                WHERE d.fault IS NULL AND d.meter_id IS NOT NULL AND d.register IS NOT NULL AND d.interval_start IS NOT NULL
            )
        )
        SELECT feed, file, delivery_date, meter_id, register, date, count(*) AS n, min(interval_minutes) AS minutes,
               min(interval_minutes) = max(interval_minutes) AS is_even, min(interval_start) AS opens,
               max(interval_start + to_minutes(interval_minutes)) AS closes,
               count_if(meter_id = last_meter AND register = last_register
                   AND interval_start = last_start + to_minutes(interval_minutes)) AS following,
               count_if(energy_kwh = last_kwh AND energy_kwh <> 0) AS repeats, count_if(energy_kwh = 0) AS zeros,
               min(energy_kwh) AS least_kwh, max(energy_kwh) AS most_kwh, sum(energy_kwh) AS sum_kwh, count(energy_kwh) AS values,
               max(abs(energy_kwh - round(energy_kwh))) < 1e-9 AS is_whole
        FROM beside
        GROUP BY feed, file, delivery_date, meter_id, register, date
        """,
    )
    run.make(
        "blocks",
        f"""
        SELECT feed, file, delivery_date, meter_id, register, sum(n) AS n, min(opens) AS opens, max(closes) AS closes,
               sum(sum_kwh) * 60.0 / sum(n * minutes) AS mean_kw,
               -- The mean without the largest value: a single spike is no unit.
               CASE WHEN sum(n) > 1 THEN (sum(sum_kwh) - max(most_kwh)) * 60.0 / (sum(n * minutes) - max(minutes)) END AS trimmed_kw,
               bool_and(is_whole) AS is_whole
        FROM {run.looks} GROUP BY feed, file, delivery_date, meter_id, register
        """,
    )


def find_sound(run: Run, delivered: str, in_days: str, *, has_registry: bool, first_day: date | None) -> None:
    """The registers that are sound on all of the days, as `sound`; needs `looks`, `blocks`, `shifts`, `past_levels`."""
    rules = run.rules
    run.make(
        "faulty",
        f"""SELECT DISTINCT meter_id, register FROM {delivered} d
            WHERE {in_days} AND (d.fault IS NOT NULL OR d.energy_kwh IS NULL OR d.date IS NULL) AND d.meter_id IS NOT NULL""",
    )
    swapped = swapped_day_month(rules).condition.replace("AND COALESCE(r.neighbour_days, 0) = 0", "")
    early = f"OR r.date < DATE '{first_day}'" if first_day else ""
    known = "COALESCE(m.is_registered, false)" if has_registry else "true"
    low = f"kw <= COALESCE({rules.spike_rated_share} * m.rated_kw, {rules.spike_least_kw})"
    if len(run.days) == 1:
        # What is usual is known: the past is all before the one day.
        under_peak = f"kw <= {rules.spike_factor} * p.usual_peak_kw"
        no_spike = f"p.past_days IS NULL OR p.past_days < {rules.spike_least_days} OR {under_peak} OR {low}"
        usual_zeros = f"""p.past_days IS NULL OR p.past_days < {rules.least_history_days}
            OR p.usual_zero_share >= {rules.zero_usual_share} AND {under_peak}
               AND (zero_hours < CASE WHEN p.usual_zero_hours < 1 THEN {rules.zero_run_hours} ELSE {rules.zero_run_hours_where_usual} END
                    OR zero_hours <= p.usual_zero_hours)"""
    else:
        # The past of the later days is in the run itself, faults and all: only what can't be a fault at any level is sound.
        no_spike, usual_zeros = low, "false"
    run.make(
        "sound",
        f"""
        WITH looks AS (
            SELECT r.*, r.date AS read_date, r.most_kwh * 60.0 / r.minutes AS kw, r.zeros * r.minutes / 60.0 AS zero_hours
                FROM {run.looks} r
        ), judged AS (
            SELECT r.meter_id, r.register, r.date,
                   count(*) OVER (PARTITION BY r.meter_id, r.register, r.date) = 1
                   AND r.is_even AND r.minutes IN ({", ".join(map(str, INTERVAL_MINUTES))}) AND r.n * r.minutes = 1440 AND r.values = r.n
                   AND r.following >= r.n - 1 AND r.opens = r.date::TIMESTAMPTZ AND r.closes = r.date::TIMESTAMPTZ + INTERVAL 1 DAY
                   AND {known} AND r.date <= r.delivery_date + 1 AND NOT ({swapped}) AND NOT (false {early})
                   AND isfinite(r.sum_kwh) AND (r.least_kwh >= 0 OR {NET_REGISTER})
                   AND (m.rated_kw IS NULL OR m.rated_kw = 0 OR kw <= m.rated_kw * {1 + rules.rating_tolerance}
                       AND r.least_kwh > -m.rated_kw * r.minutes / 60.0)
                   AND ({no_spike})
                   AND r.repeats < {rules.stuck_least_repeats} - 1
                   AND (r.zeros = 0 OR r.register LIKE 'export%' OR {usual_zeros})
                   AND (p.usual_mean_kw IS NULL OR p.usual_mean_kw <= 0 OR r.sum_kwh = 0
                        OR abs(abs(log10(abs(r.sum_kwh) / 24.0 / p.usual_mean_kw)) - 3) >= {rules.unit_slip_decades} + 0.3)
                   AND (m.rated_kw IS NULL OR r.sum_kwh / 24.0 <= 3 * m.rated_kw) AS is_sound, abs(r.sum_kwh) AS size_kwh
            FROM looks r LEFT JOIN {run.meters} m ON m.meter_id = r.meter_id
            LEFT JOIN {run.past_levels} p ON p.meter_id = r.meter_id AND p.register = r.register
            WHERE {run.days_sql("r.date")}
        ), whole AS (
            SELECT meter_id, register FROM judged GROUP BY meter_id, register
            HAVING bool_and(COALESCE(is_sound, false)) AND count(*) = {len(run.days)}
               AND (count(*) = 1 OR min(size_kwh) > 0 AND max(size_kwh) < {LARGEST_RATIO_OF_DAYS} * min(size_kwh))
        )
        SELECT w.meter_id, w.register FROM whole w
        ANTI JOIN {run.faulty} f ON f.meter_id = w.meter_id AND COALESCE(f.register, w.register) = w.register
        ANTI JOIN {run.shifts} s ON s.meter_id = w.meter_id
        """,
    )
