"""Loads summed from meter readings: rows of cleaned/load for the aggregates that the site file asks for."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

import duckdb

# An interval is summed where at least this share of the meters of the day has it; else it would be a sum of something else.
LEAST_SHARE = 0.8


class Aggregate(Protocol):
    """What the site file says of a summed load: `series_id`, and `meter_class` or None for all meters."""

    series_id: str
    meter_class: str | None


def aggregate_load(
    connection: duckdb.DuckDBPyConnection,
    readings: str,
    meters: str,
    aggregates: Iterable[Aggregate],
    resolution: int | None = 60,
) -> duckdb.DuckDBPyRelation:
    """Rows of cleaned/load: the sum of import less export, in MW.

    Readings of different lengths meet at `resolution`; a longer interval is not split, so the resolution is raised to the
    longest length among the aggregate's meters. Registers named `export…` count negative; `net…` count as they are; `import…`
    and others positive.

    An interval in which registers are missing that have readings elsewhere on that UTC day is scaled up by their usual share
    of that day's energy where at least 80 % of that energy's registers are there, and the scaled part counts as estimated; below that
    there is no row: a sum of half the meters is not the load. A register that has no reading on the whole day is not missed
    here: VEE has estimated it, or it has been silent for longer than may be estimated.

    Args:
        connection: DuckDB.
        readings: name of a relation like cleaned/meter_readings.
        meters: name of a relation like cleaned/meters.
        aggregates: the sums to make.
        resolution: length of the sum's interval in minutes; None takes the finest that all the aggregate's meters have.

    Returns:
        A lazy relation with the columns of contracts.cleaned.Load, in the order of series and time.
    """
    wanted = list(aggregates)
    if not wanted:
        return connection.sql(
            """SELECT NULL::VARCHAR AS series_id, NULL::TIMESTAMPTZ AS interval_start, NULL::INTEGER AS interval_minutes,
                      NULL::DOUBLE AS load_mw,
                      NULL::DOUBLE AS estimated_share, NULL::DATE AS delivery_date, NULL::DATE AS date LIMIT 0"""
        )
    rows = ", ".join(f"({_text(a.series_id)}, {_text(a.meter_class) if a.meter_class else 'NULL::VARCHAR'})" for a in wanted)
    return connection.sql(
        f"""
        WITH aggregates AS (SELECT * FROM (VALUES {rows}) AS a(series_id, meter_class)),
        signed AS (
            SELECT a.series_id, r.meter_id, r.register, r.interval_start, r.interval_minutes, r.date, r.delivery_date,
                   CASE WHEN r.register LIKE 'export%' THEN -r.energy_kwh ELSE r.energy_kwh END AS kwh,
                   abs(r.energy_kwh) AS size_kwh, r.is_estimated
            FROM {readings} r LEFT JOIN {meters} m ON m.meter_id = r.meter_id
            JOIN aggregates a ON a.meter_class IS NULL OR a.meter_class = COALESCE(m.meter_class, 'unknown')
        ), resolutions AS (
            SELECT series_id, greatest(max(interval_minutes), {resolution if resolution else 0}) AS minutes FROM signed GROUP BY series_id
        ), registers AS (
            SELECT s.series_id, s.meter_id, s.register, s.date, avg(s.size_kwh / s.interval_minutes) AS usual
            FROM signed s GROUP BY ALL
        ), days AS (
            SELECT series_id, date, sum(usual) AS usual, count(*) AS registers FROM registers GROUP BY ALL
        ), slots AS (
            SELECT s.series_id, s.meter_id, s.register, s.date, x.minutes,
                   to_timestamp(floor(epoch(s.interval_start) / (60 * x.minutes)) * 60 * x.minutes) AS slot,
                   sum(s.kwh) AS kwh, sum(s.size_kwh) AS size_kwh, sum(s.size_kwh) FILTER (WHERE s.is_estimated) AS estimated_kwh,
                   sum(s.interval_minutes) AS covered, max(s.delivery_date) AS delivery_date
            FROM signed s JOIN resolutions x USING (series_id)
            GROUP BY ALL
        ), whole AS (
            SELECT t.series_id, t.slot, t.date, t.minutes, sum(t.kwh) AS kwh, sum(t.size_kwh) AS size_kwh,
                   sum(t.estimated_kwh) AS estimated_kwh, max(t.delivery_date) AS delivery_date,
                   sum(g.usual) AS usual, count(*) AS registers
            FROM slots t JOIN registers g ON g.series_id = t.series_id AND g.meter_id = t.meter_id AND g.register = t.register
                AND g.date = t.date
            WHERE t.covered = t.minutes
            GROUP BY t.series_id, t.slot, t.date, t.minutes
        )
        SELECT w.series_id, w.slot AS interval_start, CAST(w.minutes AS INTEGER) AS interval_minutes,
               w.kwh * (CASE WHEN w.usual > 0 AND d.usual > w.usual THEN d.usual / w.usual
                   ELSE 1 END) * 60.0 / w.minutes / 1000.0 AS load_mw,
               CASE WHEN w.size_kwh > 0
                    THEN 1 - (1 - COALESCE(w.estimated_kwh, 0) / w.size_kwh) * (CASE WHEN d.usual > 0 THEN least(w.usual / d.usual, 1)
                        ELSE 1 END)
                    ELSE 0 END AS estimated_share,
               w.delivery_date, w.date
        FROM whole w JOIN days d ON d.series_id = w.series_id AND d.date = w.date
        WHERE w.registers >= {LEAST_SHARE} * d.registers AND (d.usual = 0 OR w.usual >= {LEAST_SHARE} * d.usual)
        ORDER BY 1, 2
        """
    )


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"
