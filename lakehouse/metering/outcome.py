"""What a run of VEE found, as rows of the tables: trusted readings, quarantine, accounts, reports, edits."""

from __future__ import annotations

import duckdb

from lakehouse.metering import registers
from lakehouse.metering.levels import day_levels_sql
from lakehouse.metering.run import IS_READING, Run


def trusted(run: Run, delivered: str) -> duckdb.DuckDBPyRelation:
    """Rows of cleaned/meter_readings."""
    columns = """meter_id, register, interval_start, interval_minutes, energy_kwh, quality, quality = 'estimated' AS is_estimated, rule,
        method, basis_from, basis_to, delivered_kwh, file, delivery_date, date"""
    order = f"ORDER BY {'date, ' if len(run.days) > 1 else ''}meter_id, register, interval_start"
    others = f"SELECT * EXCLUDE (id, is_ours) FROM {run.believed} WHERE is_ours UNION ALL BY NAME SELECT * FROM {run.estimates}"
    sound = sound_readings_sql(run, delivered)
    if len(run.days) == 1 or run.is_ordered:
        # The sound readings and the others after them, and the sound as they come where that is in order: a sort of a million meters is
        # half the work. Never one sort of both: DuckDB does not spill a union that goes into a sort, and a large day is beyond its memory.
        first = f"SELECT {columns} FROM ({sound}) {'' if run.is_ordered else order}"
        return run.connection.sql(f"SELECT * FROM ({first}) UNION ALL SELECT * FROM (SELECT {columns} FROM ({others}) {order})")
    return run.connection.sql(f"SELECT {columns} FROM ({others} UNION ALL BY NAME {sound}) {order}")


def sound_readings_sql(run: Run, delivered: str) -> str:
    """SQL for the readings of the sound days, which stand as they were delivered."""
    listed = ", ".join("'" + q.replace("'", "''") + "'" for q in sorted(run.sender_estimates))
    by_sender = f"d.quality IN ({listed})" if listed else "false"
    return f"""
        SELECT d.meter_id, d.register, d.interval_start, d.interval_minutes, d.energy_kwh, CASE WHEN {by_sender} THEN 'estimated'
            ELSE 'measured' END AS quality,
               CASE WHEN {by_sender} THEN 'delivered_estimate' END AS rule, CASE WHEN {by_sender} THEN 'by_sender' END AS method,
               NULL::TIMESTAMPTZ AS basis_from, NULL::TIMESTAMPTZ AS basis_to, NULL::DOUBLE AS delivered_kwh, d.file, d.delivery_date,
                   d.date
        FROM {delivered} d ANTI JOIN {run.exceptional} x ON x.meter_id = d.meter_id AND x.register = d.register AND x.date = d.date
        WHERE {run.days_sql("d.date")} AND {IS_READING}"""


def quarantined(run: Run) -> duckdb.DuckDBPyRelation:
    """Rows of quality/quarantine."""
    return run.connection.sql(
        f"""
        SELECT r.feed, r.file, r.line, r.delivery_date, f.rule, f.reason, r.raw_text, r.meter_id, r.register,
            r.delivered_start AS interval_start,
               r.interval_minutes, r.energy_kwh, r.date
        FROM {run.rows} r JOIN {run.fates} f ON f.id = r.rowid AND f.fate = 'quarantined'
        WHERE r.is_ours
        ORDER BY r.feed, r.delivery_date, r.file, r.line, r.meter_id, r.register, r.interval_start
        """
    )


def conservation(run: Run) -> duckdb.DuckDBPyRelation:
    """Rows of quality/conservation."""
    return run.connection.sql(
        f"""
        SELECT feed, file, delivery_date, delivered, cleaned, edited, superseded, exact_duplicates, quarantined,
               delivered = cleaned + edited + superseded + exact_duplicates + quarantined AS is_conserved, date
        FROM (
            SELECT feed, file, delivery_date, date, {", ".join(f"CAST(sum({c}) AS BIGINT) AS {c}" for c in _ACCOUNTS)}
            FROM (
                SELECT r.feed, r.file, r.delivery_date, r.date, count(DISTINCT r.rowid) AS delivered, {_fate_counts_sql("cleaned")}
                FROM {run.rows} r LEFT JOIN {run.fates} f ON f.id = r.rowid
                WHERE r.is_ours
                GROUP BY r.feed, r.file, r.delivery_date, r.date
                UNION ALL
                SELECT feed, file, delivery_date, date, n, n, 0, 0, 0, 0 FROM {run.standing}
            )
            GROUP BY feed, file, delivery_date, date
        )
        ORDER BY feed, delivery_date, file, date
        """
    )


_ACCOUNTS = ("delivered", "cleaned", "edited", "superseded", "exact_duplicates", "quarantined")


def _fate_counts_sql(standing: str) -> str:
    return f"""
        count(*) FILTER (WHERE f.id IS NULL) AS {standing},
        count(*) FILTER (WHERE f.fate = 'edited') AS edited,
        count(*) FILTER (WHERE f.fate = 'superseded') AS superseded,
        count(*) FILTER (WHERE f.fate = 'exact_duplicate') AS exact_duplicates,
        count(*) FILTER (WHERE f.fate = 'quarantined') AS quarantined"""


def report(run: Run) -> duckdb.DuckDBPyRelation:
    """Rows of quality/vee_report."""
    return run.connection.sql(
        f"""
        WITH fates AS (
            SELECT r.meter_id, r.register, r.date, count(*) AS delivered, {_fate_counts_sql("measured")}
            FROM {run.rows} r LEFT JOIN {run.fates} f ON f.id = r.rowid
            WHERE r.is_ours AND r.meter_id IS NOT NULL AND r.register IS NOT NULL AND NOT r.is_register
            GROUP BY r.meter_id, r.register, r.date
        ), found AS (
            SELECT meter_id, register, date, json_group_object(rule, n)::VARCHAR AS findings
            FROM (
                SELECT meter_id, register, date, rule, sum(n) AS n
                FROM (
                    SELECT r.meter_id, r.register, r.date, f.rule, count(*) AS n
                    FROM {run.rows} r JOIN {run.fates} f ON f.id = r.rowid WHERE r.is_ours GROUP BY ALL
                    UNION ALL
                    SELECT meter_id, register, date, 'missing_interval', count(*) FROM {run.gaps} WHERE refused_id IS NULL GROUP BY ALL
                )
                GROUP BY meter_id, register, date, rule ORDER BY rule
            )
            GROUP BY meter_id, register, date
        ), levels AS (
            {day_levels_sql(run, f"(SELECT *, energy_kwh AS value_kwh FROM {run.believed} WHERE is_ours AND quality = 'measured')")}
        ), energy AS (
            SELECT meter_id, register, date, sum(energy_kwh) AS energy_kwh,
                sum(energy_kwh) FILTER (WHERE quality <> 'measured') AS estimated_kwh,
                   count(*) AS present
            FROM (SELECT meter_id, register, date, energy_kwh, quality FROM {run.believed} WHERE is_ours
                  UNION ALL SELECT meter_id, register, date, energy_kwh, quality FROM {run.estimates})
            GROUP BY meter_id, register, date
        ), gaps AS (
            SELECT meter_id, register, date, count(*) AS gaps FROM {run.gaps} GROUP BY meter_id, register, date
        ), estimated AS (
            SELECT meter_id, register, date, count(*) AS estimated FROM {run.estimates} GROUP BY meter_id, register, date
        ), keys AS (
            SELECT meter_id, register, date FROM fates UNION SELECT meter_id, register, date FROM gaps
        )
        SELECT meter_id, register,
               COALESCE(f.measured, 0) + COALESCE(f.edited, 0) + COALESCE(g.gaps, 0) AS expected,
               COALESCE(f.delivered, 0) AS delivered, COALESCE(f.measured, 0) AS measured, COALESCE(f.edited, 0) AS edited,
               COALESCE(e.estimated, 0) AS estimated, COALESCE(g.gaps, 0) - COALESCE(e.estimated, 0) AS missing,
               COALESCE(f.superseded, 0) AS superseded, COALESCE(f.exact_duplicates, 0) AS exact_duplicates,
               COALESCE(f.quarantined, 0) AS quarantined, x.findings, n.energy_kwh, n.estimated_kwh,
               l.mean_kw, l.peak_kw, l.zero_share, l.repeat_share, l.longest_zero_hours, l.lone_peak_kw, l.hours_with_zeros, date
        FROM keys
        LEFT JOIN fates f USING (meter_id, register, date) LEFT JOIN found x USING (meter_id, register, date)
        LEFT JOIN levels l USING (meter_id, register, date) LEFT JOIN energy n USING (meter_id, register, date)
        LEFT JOIN gaps g USING (meter_id, register, date) LEFT JOIN estimated e USING (meter_id, register, date)
        UNION ALL
        SELECT meter_id, register, n AS expected, n AS delivered, n AS measured, 0 AS edited, 0 AS estimated, 0 AS missing, 0 AS superseded,
               0 AS exact_duplicates, 0 AS quarantined, NULL AS findings, energy_kwh, NULL AS estimated_kwh,
               mean_kw, peak_kw, zero_share, repeat_share, longest_zero_hours, lone_peak_kw, hours_with_zeros, date
        FROM {run.looks}
        ORDER BY date, meter_id, register
        """
    )


def edits(run: Run) -> duckdb.DuckDBPyRelation:
    """Every value that is not what was delivered first: what it was, what it is, why, and since which delivery."""
    return run.connection.sql(
        f"""
        SELECT meter_id, register, interval_start, delivered_kwh AS was_kwh, energy_kwh AS is_kwh, rule, method,
               delivery_date AS since_delivery, file, date
        FROM (SELECT * EXCLUDE (id, is_ours) FROM {run.believed} WHERE is_ours UNION ALL BY NAME SELECT * FROM {run.estimates})
            WHERE delivered_kwh IS NOT NULL
        UNION ALL
        SELECT DISTINCT meter_id, register, interval_start, energy_kwh, winning_kwh, 'superseded', NULL, winning_delivery, winning_file,
            date
        FROM {run.ranked} WHERE NOT stands AND energy_kwh <> winning_kwh AND at_home
        UNION ALL
        SELECT meter_id, register, interval_start, was_kwh, is_kwh, '{registers.RULE}', '{registers.METHOD}', delivery_date, file, date
        FROM {run.shares}
        ORDER BY date, meter_id, register, interval_start, was_kwh
        """
    )


def differences(run: Run) -> duckdb.DuckDBPyRelation:
    """Rows of cleaned/register_differences, not yet judged."""
    return run.connection.sql(
        f"""
        SELECT meter_id, register, interval_start, interval_end, register_kwh, NULL::DOUBLE AS interval_kwh, NULL::DOUBLE AS estimated_kwh,
               NULL::INTEGER AS missing_minutes, NULL::VARCHAR AS verdict, file, delivery_date, date
        FROM {run.differences} ORDER BY date, meter_id, register, interval_start
        """
    )


def findings(run: Run) -> duckdb.DuckDBPyRelation:
    """The delivered rows that are not in cleaned as they were delivered; see `vee.Vee`."""
    return run.connection.sql(
        f"""
        SELECT r.feed, r.file, r.line, r.delivery_date, r.meter_id, r.register, r.delivered_start, f.fate, f.rule, f.reason, r.date
        FROM {run.rows} r JOIN {run.fates} f ON f.id = r.rowid WHERE r.is_ours
        """
    )
