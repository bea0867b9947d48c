"""The meters: rows of cleaned/meters from the delivered registry and from the meters that deliver."""

from __future__ import annotations

import duckdb

from lakehouse.contracts.cleaned import REGISTER_DIFFERENCE_MINUTES


def meters_from(connection: duckdb.DuckDBPyConnection, registry: str | None, readings: str | None) -> duckdb.DuckDBPyRelation:
    """Rows of cleaned/meters: the newest entry of each registered meter, and the meters that only deliver.

    Args:
        connection: DuckDB.
        registry: name of a relation with the columns of contracts.raw.RawMeters, or None where the site has none.
        readings: name of a relation with `meter_id`, `register` and `interval_minutes` (readings, or distinct rows of them),
            or None.

    Returns:
        A lazy relation in the order of `meter_id`.
    """
    registered = (
        f"""
        SELECT meter_id, arg_max(meter_class, place) AS meter_class, arg_max(interval_minutes, place) AS interval_minutes,
               arg_max(rated_kw, place) AS rated_kw, arg_max(registers, place) AS registers, arg_max(first_date, place) AS first_date,
               arg_max_null(last_date, place) AS last_date
        FROM (SELECT *, (delivery_date, file, line) AS place FROM {registry} WHERE fault IS NULL AND meter_id IS NOT NULL)
        GROUP BY meter_id"""
        if registry
        else """
        SELECT NULL::VARCHAR AS meter_id, NULL::VARCHAR AS meter_class, NULL::INTEGER AS interval_minutes, NULL::DOUBLE AS rated_kw,
               NULL::VARCHAR AS registers, NULL::DATE AS first_date, NULL::DATE AS last_date LIMIT 0"""
    )
    heard = (
        f"""
        SELECT meter_id, arg_max(interval_minutes, (n, -interval_minutes))
            FILTER (WHERE interval_minutes < {REGISTER_DIFFERENCE_MINUTES}) AS interval_minutes, string_agg(DISTINCT register, ','
            ORDER BY register) AS registers
        FROM (
            SELECT meter_id, register, interval_minutes, count(*) AS n FROM {readings}
            WHERE meter_id IS NOT NULL AND register IS NOT NULL AND interval_minutes IS NOT NULL GROUP BY ALL
        ) GROUP BY meter_id"""
        if readings
        else "SELECT NULL::VARCHAR AS meter_id, NULL::INTEGER AS interval_minutes, NULL::VARCHAR AS registers LIMIT 0"
    )
    return connection.sql(
        f"""
        WITH registered AS ({registered}), heard AS ({heard})
        SELECT COALESCE(r.meter_id, h.meter_id) AS meter_id, COALESCE(r.meter_class, 'unknown') AS meter_class,
               COALESCE(r.interval_minutes, h.interval_minutes) AS interval_minutes, r.rated_kw,
               COALESCE(r.registers, h.registers) AS registers, r.first_date, r.last_date, r.meter_id IS NOT NULL AS is_registered
        FROM registered r FULL JOIN heard h ON h.meter_id = r.meter_id
        ORDER BY 1
        """
    )
