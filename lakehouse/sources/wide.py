"""Machinery of layouts with several readings in a row: one column a register, or one column an interval."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime

import pyarrow as pa
import pyarrow.compute as pc

from lakehouse.errors import SourceError
from lakehouse.sources.archives import members
from lakehouse.sources.base import LandedFile
from lakehouse.sources.delimited import complete, fields_of
from lakehouse.sources.lines import blocks, told
from lakehouse.sources.local_clock import LocalClock
from lakehouse.sources.text_sql import local_stamp_sql, number_sql, shown_sql


def columns_to_readings_sql(registers: Mapping[str, str], *, minutes: int, meter: str = "meter") -> str:
    """SQL of a layout with a stamp and one energy column a register.

    A column that the file does not have gives no rows; an empty field gives none either, unless all of the line's are empty.

    Args:
        registers: logical column to our register.
        minutes: length of the interval.
        meter: SQL expression of the meter.
    """
    stamp = local_stamp_sql("stamp_text")
    parts = "\nUNION ALL\n".join(
        f"SELECT line, fault, stamp_text, {meter} AS meter_id, '{register}' AS register, {n} AS place, {column} AS energy_text FROM lines"
        for n, (column, register) in enumerate(registers.items())
    )
    return f"""
        WITH parts AS ({parts}),
        kept AS (
            SELECT * FROM parts
            QUALIFY COALESCE(energy_text, '') <> '' OR place = 0 AND count(NULLIF(energy_text, '')) OVER (PARTITION BY line) = 0
        ), parsed AS (
            SELECT *, {stamp} AS stamp, {number_sql("energy_text")} AS energy_kwh FROM kept
        )
        SELECT line, meter_id, register, stamp AS local_start, CAST({minutes} AS INTEGER) AS interval_minutes, energy_kwh,
            NULL::VARCHAR AS quality,
               CASE WHEN fault IS NOT NULL THEN fault
                    WHEN COALESCE(meter_id, '') = '' THEN 'expected a meter, found none'
                    WHEN stamp IS NULL THEN 'expected a stamp as YYYY-MM-DD hh:mm:ss, found ' || {shown_sql("stamp_text")}
                    WHEN energy_kwh IS NULL THEN 'expected energy in kWh as a number, found ' || {shown_sql("energy_text")} END AS fault
        FROM parsed ORDER BY line, place
    """


def interval_columns(
    file: LandedFile, *, first: datetime, minutes: int, intervals: int, zone: str, description: str, key: tuple[str, ...]
) -> Iterator[pa.Table]:
    """Reads text with one row a meter and one column an interval, from a local moment on.

    Args:
        file: the landed file.
        first: local moment of the first column.
        minutes: length of the interval.
        intervals: number of interval columns after the meter.
        zone: IANA zone of the local clock.
        description: what is expected, for the error.
        key: accepted headers of the meter's column, in lower case.
    """
    start = int((first - datetime(1970, 1, 1)).total_seconds()) * 1_000_000
    stamps = pa.array([start + n * minutes * 60_000_000 for n in range(intervals)], pa.int64()).cast(pa.timestamp("us"))
    clock = LocalClock(zone)
    for member in members(file):
        is_open = False
        for block in blocks(member):
            tables = []
            for line, raw in enumerate(block.lines(), start=block.first_line):
                if line in block.overlong:
                    tables.append(_faulty(line, "expected a shorter line", told(block.overlong[line])))
                    continue
                if not raw.strip():
                    continue
                values, fault = fields_of(raw, ",")
                if not is_open:
                    if fault or len(values) != intervals + 1 or values[0].strip().lower() not in key:
                        raise SourceError(
                            f"{member.name}, line {line}: expected {description}, found a header with {len(values)} columns: "
                            f"'{told(raw)[:80]}'.",
                            "Mend the file or the feed's format in gridlake.yaml.",
                        )
                    is_open = True
                    continue
                if fault is None and len(values) != intervals + 1:
                    fault = f"expected a meter and {intervals} intervals, found {len(values)} fields"
                if fault is None and not values[0].strip():
                    fault = "expected a meter, found none"
                tables.append(_faulty(line, fault, told(raw)) if fault else _row(line, values, stamps, minutes, told(raw)))
            if tables:
                yield complete(clock.resolve(pa.concat_tables(tables)), file, member.name)
        if not is_open:
            raise SourceError(f"{member.name}: expected {description}, found an empty file.")


def _row(line: int, values: list[str], stamps: pa.Array, minutes: int, raw: str) -> pa.Table:
    texts = pc.utf8_trim_whitespace(pa.array(values[1:], pa.string()))
    is_number = pc.match_substring_regex(texts, r"^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?$")
    energy = pc.if_else(is_number, texts, pa.scalar(None, pa.string())).cast(pa.float64())
    is_number = pc.and_(is_number, pc.fill_null(pc.is_finite(energy), False))
    energy = pc.if_else(is_number, energy, pa.scalar(None, pa.float64()))
    found = pc.utf8_slice_codeunits(texts, 0, 40)
    words = pc.binary_join_element_wise(pa.scalar("expected energy in kWh as a number, found '"), found, pa.scalar("'"), "")
    n = len(texts)
    return pa.table(
        {
            "line": pa.repeat(pa.scalar(line, pa.int64()), n),
            "meter_id": pa.repeat(pa.scalar(values[0].strip()), n),
            "register": pa.repeat(pa.scalar("import"), n),
            "local_start": stamps,
            "interval_minutes": pa.repeat(pa.scalar(minutes, pa.int32()), n),
            "energy_kwh": energy,
            "quality": pa.nulls(n, pa.string()),
            "fault": pc.if_else(is_number, pa.scalar(None, pa.string()), words),
            "raw_text": pc.if_else(is_number, pa.scalar(None, pa.string()), pa.scalar(raw)),
        }
    )


def _faulty(line: int, fault: str | None, raw: str) -> pa.Table:
    return pa.table(
        {
            "line": pa.array([line], pa.int64()),
            "meter_id": pa.nulls(1, pa.string()),
            "register": pa.nulls(1, pa.string()),
            "local_start": pa.nulls(1, pa.timestamp("us")),
            "interval_minutes": pa.nulls(1, pa.int32()),
            "energy_kwh": pa.nulls(1, pa.float64()),
            "quality": pa.nulls(1, pa.string()),
            "fault": pa.array([fault], pa.string()),
            "raw_text": pa.array([raw], pa.string()),
        }
    )
