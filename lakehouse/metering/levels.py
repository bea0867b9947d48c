"""What is usual for a register before a day: levels of its days, and what the past days say in sum.

Order statistics throughout, which one or two faulty days among the past ones do not move.
"""

from __future__ import annotations

from datetime import date, timedelta

from lakehouse.metering.run import Run, dates_sql


def past(run: Run, history: str | None, reports: str | None) -> None:
    """The levels of the days before the run, a row a register and day as `past_day_levels`, and in sum as `past_levels`."""
    first = run.days[0] if run.days else date(1970, 1, 1)
    since = first - timedelta(days=run.rules.history_days)
    earlier = f"date >= DATE '{since}' AND date < DATE '{run.days[-1] if run.days else first}' AND NOT ({dates_sql('date', run.days)})"
    columns = _LEVEL_COLUMNS
    if reports:
        past = f"SELECT {columns} FROM {reports} WHERE {earlier} AND mean_kw IS NOT NULL"
    elif history:
        past = day_levels_sql(run, f"(SELECT *, energy_kwh AS value_kwh FROM {history} WHERE {earlier} AND quality = 'measured')")
    else:
        past = f"SELECT {columns} FROM ({day_levels_sql(run, _NO_READINGS)}) LIMIT 0"
    if reports and len(run.days) == 1:
        # Read as it lies: a register's past is needed in sum only.
        run.make("past_levels", f"{_PAST_SUMS} FROM ({past}) GROUP BY meter_id, register")
        run.past_source = f"({past})"
        return
    run.make("past_day_levels", f"SELECT {columns} FROM ({past})")
    run.make("past_levels", f"{_PAST_SUMS} FROM {run.past_day_levels} GROUP BY meter_id, register")
    run.past_source = run.past_day_levels


_LEVEL_COLUMNS = """meter_id, register, date, mean_kw, peak_kw, zero_share, repeat_share, longest_zero_hours, lone_peak_kw,
    hours_with_zeros"""

_NO_READINGS = """(SELECT NULL::VARCHAR AS meter_id, NULL::VARCHAR AS register, NULL::DATE AS date, NULL::TIMESTAMPTZ AS interval_start,
                  NULL::INTEGER AS interval_minutes, NULL::DOUBLE AS value_kwh LIMIT 0)"""

# For the quick look alone, from below and quickly: the mean without the highest is at most the second highest, and the least at most the
# third. The ordered values themselves took a million meters twenty seconds.
_PAST_SUMS = """
    SELECT meter_id, register, count(*) AS past_days, median(mean_kw) AS usual_mean_kw,
           CASE WHEN count(peak_kw) > 1 THEN (sum(peak_kw) - max(peak_kw)) / (count(peak_kw) - 1) ELSE max(peak_kw) END AS usual_peak_kw,
           min(lone_peak_kw) AS usual_lone_kw, avg(zero_share) AS usual_zero_share,
           max(longest_zero_hours) AS usual_zero_hours, avg(repeat_share) AS usual_repeat_share,
           bit_or(hours_with_zeros) AS usual_hours_with_zeros"""


def usual(run: Run) -> None:
    """What is usual for each register before each day, from its own past: `levels`.

    One or two faulty days among them do not count: the mean's level is a median over days, the peak the second highest of the days'
    supported peaks (in which a reading counts no more than `spike_neighbour_factor` times its larger neighbour), and what a reading
    may stand out from its neighbours the third highest of the days. `zero_days` counts, five bits an hour, the days on which an hour
    of the day had a zero.
    """
    ours = day_levels_sql(run, f"(SELECT * FROM {run.lined} WHERE is_ours)")
    run.make("lined_registers", f"SELECT DISTINCT meter_id, register FROM {run.lined}")
    run.make(
        "day_levels",
        f"""
        {ours} UNION ALL BY NAME SELECT p.*
        FROM (SELECT {_LEVEL_COLUMNS} FROM {run.past_source} UNION ALL SELECT {_LEVEL_COLUMNS} FROM {run.looks} WHERE mean_kw IS NOT NULL) p
        SEMI JOIN {run.lined_registers} k ON k.meter_id = p.meter_id AND k.register = p.register
        """,
    )
    run.make("levels", _usual_sql(run, run.day_levels))


def levels_again(run: Run, corrected: str) -> None:
    """Takes the levels anew of registers (a query) whose readings were put right."""
    run.make("corrected", f"SELECT DISTINCT meter_id, register FROM ({corrected})")
    beside = f"SEMI JOIN {run.corrected} c ON c.meter_id = l.meter_id AND c.register = l.register"
    run.execute(
        f"""DELETE FROM {run.day_levels} WHERE {dates_sql("date", run.days)}
            AND (meter_id, register) IN (SELECT (meter_id, register) FROM {run.corrected})"""
    )
    run.execute(
        f"""INSERT INTO {run.day_levels} BY NAME {day_levels_sql(run, f"(SELECT l.* FROM {run.lined} l {beside} WHERE l.is_ours)")}
            UNION ALL BY NAME SELECT l.* FROM (SELECT {_LEVEL_COLUMNS} FROM {run.looks}) l {beside} WHERE mean_kw IS NOT NULL"""
    )
    run.execute(f"DELETE FROM {run.levels} WHERE (meter_id, register) IN (SELECT (meter_id, register) FROM {run.corrected})")
    run.execute(f"INSERT INTO {run.levels} {_usual_sql(run, f'(SELECT l.* FROM {run.day_levels} l {beside})')}")


def _usual_sql(run: Run, day_levels: str) -> str:
    return f"""
        SELECT *, COALESCE(peaks[2], peaks[1]) AS usual_peak_kw, COALESCE(lones[3], lones[-1]) AS usual_lone_kw
        FROM (
            SELECT *, count(*) OVER w AS past_days, median(mean_kw) OVER w AS usual_mean_kw,
                   list_reverse_sort(list(peak_kw) FILTER (WHERE peak_kw IS NOT NULL) OVER w) AS peaks,
                   list_reverse_sort(list(lone_peak_kw) FILTER (WHERE lone_peak_kw IS NOT NULL) OVER w) AS lones,
                   avg(zero_share) OVER w AS usual_zero_share, max(longest_zero_hours) OVER w AS usual_zero_hours,
                   avg(repeat_share) OVER w AS usual_repeat_share,
                   CASE WHEN count(hours_with_zeros) OVER w = count(*) OVER w
                        THEN sum({_spread_sql("hours_with_zeros")}) OVER w END AS zero_days
            FROM {day_levels}
        WINDOW w AS (PARTITION BY meter_id, register ORDER BY date
                         RANGE BETWEEN INTERVAL {run.rules.history_days} DAYS PRECEDING AND INTERVAL 1 DAY PRECEDING)
            QUALIFY {dates_sql("date", run.days)}
        )
        """


def zero_days_around(counts: str, moment: str) -> str:
    """SQL for the most days of the past on which the hour of a moment, or one beside it, had a zero; see `_spread_sql`."""
    hour = f"CAST(date_part('hour', {moment}) AS INTEGER)"
    return "greatest(" + ", ".join(f"({counts} >> (5 * (({hour} + {h}) % 24))) & 31" for h in (23, 0, 1)) + ")"


def _spread_sql(bits: str) -> str:
    """SQL for a mask of 24 bits with five bits of room for each: sums of up to 31 of them count, hour by hour."""
    return " + ".join(f"(({bits} >> {h}) & 1)::HUGEINT * {32**h}::HUGEINT" for h in range(24))


def day_levels_sql(run: Run, readings: str) -> str:
    """SQL for the level of each register and day: mean, peak, share of zeros and of repeats, longest run of zeros."""
    # A reading that was refused is no level.
    return f"""
        SELECT meter_id, register, date, avg(kw) AS mean_kw,
               max(least(kw, {run.rules.spike_neighbour_factor} * COALESCE(beside_kw, kw))) AS peak_kw,
                   avg(CAST(value_kwh = 0 AS INTEGER)) AS zero_share,
               avg(CAST(value_kwh = before_kwh AS INTEGER)) FILTER (WHERE value_kwh <> 0 AND before_kwh IS NOT NULL) AS repeat_share,
               COALESCE(max(place - last_use) FILTER (WHERE value_kwh = 0), 0) * any_value(interval_minutes) / 60.0 AS longest_zero_hours,
               max(kw - beside_kw) AS lone_peak_kw,
               CAST(bit_or(CASE WHEN value_kwh = 0 THEN 1 << CAST(date_part('hour', interval_start) AS INTEGER) ELSE 0 END) AS INTEGER)
                   AS hours_with_zeros
        FROM (
            SELECT *, max(CASE WHEN value_kwh <> 0 THEN place ELSE 0 END) OVER (PARTITION BY meter_id, register, date
                ORDER BY place) AS last_use
            FROM (
                SELECT *, value_kwh * 60.0 / interval_minutes AS kw, lag(value_kwh) OVER w AS before_kwh,
                       greatest(lag(value_kwh) OVER w, lead(value_kwh) OVER w) * 60.0 / interval_minutes AS beside_kw, row_number()
                           OVER w AS place
                FROM {readings}
                WINDOW w AS (PARTITION BY meter_id, register, date ORDER BY interval_start)
            )
        )
        GROUP BY meter_id, register, date HAVING count(value_kwh) > 0
    """
