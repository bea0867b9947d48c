"""Differences of register reads against the sum of the intervals between them, and estimates that take what is left.

A delivered row of twelve hours or more is the difference of two reads of the register. It is no interval of its own: it says what
the intervals of its span should add up to. Where all of them were measured the two are compared; where some were estimated, the
estimates are scaled so that they take what the measured ones leave of the difference, and keep the shape of their like days.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta
from typing import TYPE_CHECKING

import duckdb
import pyarrow as pa

from lakehouse.contracts.cleaned import REGISTER_DIFFERENCE_MINUTES
from lakehouse.metering.rules import VeeRules

if TYPE_CHECKING:
    from lakehouse.metering.run import Run

LONGEST_SPAN_DAYS = 400
"""Reads further apart say nothing of one day."""
METHOD = "register_share"
RULE = "register_difference"
# A register that shows whole kWh can be off by one: estimates are scaled where that is a small part of them.
MOST_NOISE = 0.1

DIFFERENCE_COLUMNS = "meter_id, register, interval_start, interval_end, register_kwh, file, delivery_date, date"


def is_difference_sql(row: str) -> str:
    """SQL that is true for a delivered row that is the difference of two reads of a register."""
    return f"COALESCE({row}.interval_minutes, 0) >= {REGISTER_DIFFERENCE_MINUTES}"


def differences(run: Run, earlier: str | None) -> None:
    """The differences that won in the run, as `differences`, and with the earlier ones that reach into its days as `register_spans`."""
    run.make(
        "differences",
        f"""
        SELECT meter_id, register, interval_start, interval_start + to_minutes(interval_minutes) AS interval_end,
               energy_kwh AS register_kwh, file, delivery_date, date
        FROM {run.rows} r
        WHERE r.is_register AND r.is_ours AND r.rowid NOT IN (SELECT id FROM {run.fates})
        """,
    )
    first, last = run.days[0], run.days[-1] + timedelta(days=1)
    of_before = f"UNION ALL SELECT {DIFFERENCE_COLUMNS} FROM {earlier} WHERE date < DATE '{run.days[0]}'" if earlier else ""
    run.make(
        "register_spans",
        f"""
        SELECT * FROM (SELECT {DIFFERENCE_COLUMNS} FROM {run.differences} {of_before})
        WHERE interval_start < TIMESTAMPTZ '{last} 00:00:00+00' AND interval_end > TIMESTAMPTZ '{first} 00:00:00+00'
        """,
    )


def share(run: Run, sound: str, around: str | None, edits_around: str | None) -> None:
    """Scales the run's estimates to what the measured intervals leave of their register difference; `shares` keeps what they were.

    Args:
        run: the run, with its `estimates`.
        sound: SQL for the readings of sound days.
        around: name of a relation like cleaned/meter_readings with the days around the run, or None.
        edits_around: name of a relation like quality/edits with the same days, or None.
    """
    run.make(
        "shares",
        """SELECT NULL::VARCHAR AS meter_id, NULL::VARCHAR AS register, NULL::TIMESTAMPTZ AS interval_start, NULL::DOUBLE AS was_kwh,
                  NULL::DOUBLE AS is_kwh, NULL::VARCHAR AS file, NULL::DATE AS delivery_date, NULL::DATE AS date LIMIT 0""",
    )
    run.make(
        "spans_to_share",
        f"""
        SELECT s.* FROM {run.register_spans} s SEMI JOIN {run.estimates} e
        ON e.meter_id = s.meter_id AND e.register = s.register AND e.interval_start >= s.interval_start
           AND e.interval_start < s.interval_end
        """,
    )
    if not run.count(f"SELECT count(*) FROM {run.spans_to_share}"):
        return
    columns = "meter_id, register, interval_start, interval_minutes, energy_kwh"
    outside = (
        f"UNION ALL SELECT * EXCLUDE (is_shared) FROM ({standing_intervals_sql(around, edits_around)}) WHERE NOT ({run.days_sql('date')})"
        if around
        else ""
    )
    run.make(
        "span_intervals",
        f"""
        SELECT i.* FROM (
            SELECT {columns}, date, NULL::DOUBLE AS unshared_kwh FROM {run.believed} WHERE is_ours
            UNION ALL SELECT {columns}, date, NULL FROM ({sound})
            UNION ALL SELECT {columns}, date, energy_kwh FROM {run.estimates}
            {outside}
        ) i SEMI JOIN {run.spans_to_share} s ON s.meter_id = i.meter_id AND s.register = i.register
        """,
    )
    run.make("weighed", weighed_sql(run.spans_to_share, run.span_intervals, run.rules))
    run.make(
        "shares",
        f"""
        SELECT e.meter_id, e.register, e.interval_start, e.energy_kwh AS was_kwh, round(e.energy_kwh * w.factor, 5) AS is_kwh, w.file,
               w.delivery_date, w.interval_start AS opens, w.interval_end AS closes, e.date
        FROM {run.estimates} e JOIN {run.weighed} w
        ON w.meter_id = e.meter_id AND w.register = e.register AND e.interval_start >= w.interval_start
           AND e.interval_start + to_minutes(e.interval_minutes) <= w.interval_end
        WHERE w.factor IS NOT NULL
        QUALIFY row_number() OVER (PARTITION BY e.meter_id, e.register, e.interval_start
                                   ORDER BY w.interval_end - w.interval_start, w.interval_start) = 1
        """,
    )
    run.execute(
        f"""
        UPDATE {run.estimates} e
        SET energy_kwh = s.is_kwh, method = '{METHOD}', basis_from = least(e.basis_from, s.opens), basis_to = greatest(e.basis_to, s.closes)
        FROM {run.shares} s WHERE s.meter_id = e.meter_id AND s.register = e.register AND s.interval_start = e.interval_start
        """
    )


def standing_intervals_sql(readings: str, edits: str | None) -> str:
    """SQL for trusted intervals; `unshared_kwh` is what an estimate was before it was scaled, missing for what was delivered."""
    if edits is None:
        was, joined = "r.energy_kwh", ""
    else:
        was = "COALESCE(e.was_kwh, r.energy_kwh)"
        joined = f"""LEFT JOIN (SELECT meter_id, register, interval_start, was_kwh FROM {edits} WHERE rule = '{RULE}') e
            ON e.meter_id = r.meter_id AND e.register = r.register AND e.interval_start = r.interval_start AND r.method = '{METHOD}'"""
    return f"""
        SELECT r.meter_id, r.register, r.interval_start, r.interval_minutes, r.energy_kwh, r.date,
               CASE WHEN r.quality = 'estimated' AND r.method <> 'by_sender' THEN {was} END AS unshared_kwh,
               r.method IS NOT DISTINCT FROM '{METHOD}' AS is_shared
        FROM {readings} r {joined}"""


def weighed_sql(spans: str, intervals: str, rules: VeeRules) -> str:
    """SQL for differences beside their intervals: sums, what is missing, the factor of the estimates and the verdict.

    An interval that a read cuts counts with the part that lies in the span, and as a whole in the tolerance.
    """
    most = rules.register_most_scale
    return f"""
        WITH inside AS (
            SELECT s.meter_id, s.register, s.interval_start AS opens, i.energy_kwh, i.unshared_kwh, i.interval_minutes,
                   (epoch(least(i.interval_start + to_minutes(i.interval_minutes), s.interval_end))
                    - epoch(greatest(i.interval_start, s.interval_start))) / 60.0 / i.interval_minutes AS part
            FROM {spans} s JOIN {intervals} i ON i.meter_id = s.meter_id AND i.register = s.register
                 AND i.interval_start < s.interval_end AND i.interval_start + to_minutes(i.interval_minutes) > s.interval_start
        ), summed AS (
            SELECT meter_id, register, opens, sum(energy_kwh * part) AS interval_kwh,
                   sum(energy_kwh * part) FILTER (WHERE unshared_kwh IS NOT NULL) AS estimated_kwh,
                   COALESCE(sum(energy_kwh * part) FILTER (WHERE unshared_kwh IS NULL OR part < 1), 0) AS believed_kwh,
                   COALESCE(sum(unshared_kwh) FILTER (WHERE part >= 1), 0) AS unshared_kwh,
                   sum(interval_minutes * part) AS covered_minutes, COALESCE(sum(energy_kwh) FILTER (WHERE part < 1), 0) AS cut_kwh
            FROM inside GROUP BY meter_id, register, opens
        ), measured AS (
            SELECT s.*, u.interval_kwh, COALESCE(u.estimated_kwh, 0) AS estimated_kwh, u.believed_kwh, COALESCE(u.unshared_kwh, 0)
                       AS unshared_kwh,
                   (epoch(s.interval_end) - epoch(s.interval_start)) / 60.0 - COALESCE(u.covered_minutes, 0) AS uncovered_minutes,
                   COALESCE(u.cut_kwh, 0) + CASE WHEN register_kwh = round(register_kwh) THEN 1.0
                       WHEN register_kwh = round(register_kwh, 1) THEN 0.1 WHEN register_kwh = round(register_kwh, 2) THEN 0.01
                       ELSE 0.001 END AS noise_kwh
            FROM {spans} s LEFT JOIN summed u ON u.meter_id = s.meter_id AND u.register = s.register AND u.opens = s.interval_start
        ), scaled AS (
            SELECT *, CASE WHEN uncovered_minutes < 0.5 AND unshared_kwh > 0 AND noise_kwh <= {MOST_NOISE} * unshared_kwh
                            AND (register_kwh - believed_kwh) / unshared_kwh BETWEEN 1 / {most} AND {most}
                           THEN (register_kwh - believed_kwh) / unshared_kwh END AS factor,
                   noise_kwh + greatest({rules.register_tolerance_kwh}, {rules.register_tolerance_share} * abs(register_kwh))
                       + unshared_kwh / 2 AS tolerance_kwh
            FROM measured
        )
        SELECT *, CASE WHEN uncovered_minutes >= 0.5 THEN 'incomplete' WHEN factor IS NOT NULL THEN 'shared'
                       WHEN abs(interval_kwh - register_kwh) <= tolerance_kwh THEN 'agrees' ELSE 'differs' END AS verdict
        FROM scaled"""


@dataclass(frozen=True)
class Settled:
    """What came of holding register differences against their intervals.

    Args:
        differences: rows of cleaned/register_differences with their verdict. One with estimates that do not fit it yet has none, so that
            a process that is killed before they do leaves a mark. The relation lives as long as the connection.
        shares: the estimates that take what their register leaves, and did not before: meter_id, register, interval_start, was_kwh, is_kwh,
            opens, closes, file, delivery_date, date.
        anew: days with estimates that shared otherwise until now: they have to be estimated anew.
    """

    differences: duckdb.DuckDBPyRelation
    shares: pa.Table
    anew: list[date]


def settled(connection: duckdb.DuckDBPyConnection, spans: str, readings: str, edits: str, rules: VeeRules) -> Settled:
    """Holds register differences against the trusted intervals of their spans.

    Args:
        connection: DuckDB.
        spans: name of a relation like cleaned/register_differences: those to judge.
        readings: name of a relation like cleaned/meter_readings with all days of the spans.
        edits: name of a relation like quality/edits with the same days.
        rules: thresholds.
    """
    connection.execute(f"CREATE OR REPLACE TEMP TABLE register_spans AS SELECT {DIFFERENCE_COLUMNS} FROM {spans}")
    connection.execute(
        f"""
        CREATE OR REPLACE TEMP TABLE register_intervals AS
        SELECT * FROM ({standing_intervals_sql(readings, edits)}) i
        SEMI JOIN register_spans s ON s.meter_id = i.meter_id AND s.register = i.register
        """
    )
    connection.execute(f"CREATE OR REPLACE TEMP TABLE weighed_registers AS {weighed_sql('register_spans', 'register_intervals', rules)}")
    connection.execute(
        """
        CREATE OR REPLACE TEMP TABLE unsettled_estimates AS
        WITH estimated AS (
            SELECT i.*, w.factor, w.interval_start AS opens, w.interval_end AS closes, w.file, w.delivery_date,
                   row_number() OVER (PARTITION BY i.meter_id, i.register, i.interval_start
                       ORDER BY w.factor IS NULL, w.interval_end - w.interval_start, w.interval_start) AS place
            FROM register_intervals i JOIN weighed_registers w ON w.meter_id = i.meter_id AND w.register = i.register
                 AND i.interval_start >= w.interval_start AND i.interval_start + to_minutes(i.interval_minutes) <= w.interval_end
            WHERE i.unshared_kwh IS NOT NULL
        )
        SELECT * FROM estimated
        WHERE place = 1 AND (is_shared <> (factor IS NOT NULL) OR abs(energy_kwh - unshared_kwh * COALESCE(factor, 1)) > 0.00002)
        """
    )
    anew = connection.execute("SELECT DISTINCT date FROM unsettled_estimates WHERE is_shared ORDER BY date").fetchall()
    shares = connection.sql(
        """
        SELECT meter_id, register, interval_start, unshared_kwh AS was_kwh, round(unshared_kwh * factor, 5) AS is_kwh, opens, closes, file,
               delivery_date, date
        FROM unsettled_estimates WHERE NOT is_shared AND date NOT IN (SELECT date FROM unsettled_estimates WHERE is_shared)
        """
    ).to_arrow_table()
    rows = connection.sql(
        """
        SELECT w.* REPLACE (CASE WHEN u.meter_id IS NULL THEN w.verdict END AS verdict)
        FROM (SELECT meter_id, register, interval_start, interval_end, register_kwh, round(interval_kwh, 6) AS interval_kwh,
                     round(estimated_kwh, 6) AS estimated_kwh,
                     CAST(round(uncovered_minutes) AS INTEGER) AS missing_minutes, verdict, file, delivery_date, date
              FROM weighed_registers) w
        LEFT JOIN (
            SELECT DISTINCT w.meter_id, w.register, w.interval_start FROM weighed_registers w JOIN unsettled_estimates e
            ON e.meter_id = w.meter_id AND e.register = w.register AND e.interval_start >= w.interval_start
               AND e.interval_start < w.interval_end
        ) u ON u.meter_id = w.meter_id AND u.register = w.register AND u.interval_start = w.interval_start
        ORDER BY w.date, w.meter_id, w.register, w.interval_start
        """
    )
    return Settled(rows, shares, [day for (day,) in anew])


def shared_sql(readings: str, shares: str) -> str:
    """SQL for rows of cleaned/meter_readings in which the estimates of `shares` have taken what their register leaves.

    An estimate that is another one by now stays as it is.
    """
    return f"""
        SELECT r.* REPLACE (COALESCE(s.is_kwh, r.energy_kwh) AS energy_kwh,
                            CASE WHEN s.file IS NULL THEN r.method ELSE '{METHOD}' END AS method,
                            least(r.basis_from, s.opens) AS basis_from, greatest(r.basis_to, s.closes) AS basis_to)
        FROM {readings} r LEFT JOIN {shares} s ON {_SAME_INTERVAL.format("r")} AND r.is_estimated AND r.energy_kwh = s.was_kwh
             AND r.method IS DISTINCT FROM '{METHOD}'
        ORDER BY r.date, r.meter_id, r.register, r.interval_start"""


def shared_reports_sql(reports: str, readings: str, shares: str) -> str:
    """SQL for rows of quality/vee_report of the days of such readings (as they are after `shared_sql`)."""
    return f"""
        SELECT v.* REPLACE (COALESCE(n.energy_kwh, v.energy_kwh) AS energy_kwh,
                            COALESCE(n.estimated_kwh, v.estimated_kwh) AS estimated_kwh)
        FROM {reports} v LEFT JOIN (
            SELECT meter_id, register, date, sum(energy_kwh) AS energy_kwh,
                   sum(energy_kwh) FILTER (WHERE quality <> 'measured') AS estimated_kwh
            FROM ({shared_sql(readings, shares)}) SEMI JOIN {shares} USING (meter_id, register, date) GROUP BY meter_id, register, date
        ) n USING (meter_id, register, date)
        ORDER BY v.date, v.meter_id, v.register"""


def shared_edits_sql(edits: str, shares: str) -> str:
    """SQL for rows of quality/edits of such days: what the estimates were, and what refused readings are now."""
    return f"""
        SELECT * FROM (
            SELECT e.* REPLACE (CASE WHEN e.rule <> 'superseded' THEN COALESCE(s.is_kwh, e.is_kwh) ELSE e.is_kwh END AS is_kwh,
                                CASE WHEN e.rule <> 'superseded' AND s.file IS NOT NULL THEN '{METHOD}' ELSE e.method END AS method)
            FROM {edits} e LEFT JOIN {shares} s ON {_SAME_INTERVAL.format("e")}
            WHERE s.file IS NULL OR e.rule <> '{RULE}'
            UNION ALL
            SELECT meter_id, register, interval_start, was_kwh, is_kwh, '{RULE}', '{METHOD}', delivery_date, file, date FROM {shares}
        )
        ORDER BY date, meter_id, register, interval_start, was_kwh"""


_SAME_INTERVAL = "s.meter_id = {0}.meter_id AND s.register = {0}.register AND s.interval_start = {0}.interval_start"
