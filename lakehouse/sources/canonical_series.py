"""Gridlake's own long layout for time series, as CSV or Parquet.

Columns: `series_id, quantity, interval_start, interval_minutes, value, is_forecast`. The layout that a utility writes when it has no
other; it needs no options. Cleaning is not done here.
"""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.parquet as pq

from lakehouse.contracts.raw import RAW_TEXT_LIMIT
from lakehouse.errors import SourceError
from lakehouse.sources.base import Format, LandedFile, ReadOptions
from lakehouse.sources.sheets import LINES_AT_ONCE, Sheet, connection, sheets, unread_columns

REQUIRED = ("series_id", "quantity", "interval_start", "interval_minutes", "value")
OPTIONAL = ("is_forecast",)
CLOCKS = ("utc", "local")


def read(file: LandedFile, options: ReadOptions) -> Iterator[pa.Table]:
    """Reads one file; every line gives one row, with a fault where it can't be read."""
    clock = options.settings.get("stamps_without_offset")
    if clock not in (None, *CLOCKS):
        raise SourceError(f"options.stamps_without_offset: expected utc or local, found '{clock}'.", "Mend the feed's options.")
    told: set[str] = set()
    for sheet in _parquet(file) if _is_parquet(file) else sheets(file, delimiter=str(options.settings.get("delimiter", ","))):
        missing = [name for name in REQUIRED if name not in sheet.header]
        if missing:
            raise SourceError(
                f"{sheet.name}, line 1: expected the columns {', '.join(REQUIRED)}, found none of {', '.join(missing)}.",
                "Check the feed's format, or write the column names.",
            )
        unknown = [name for name in sheet.header if name not in (*REQUIRED, *OPTIONAL)]
        if unknown and sheet.name not in told:
            told.add(sheet.name)
            yield unread_columns(unknown, sheet, file)
        yield from _rows(sheet, file, options.time_zone if clock == "local" else clock)


def _is_parquet(file: LandedFile) -> bool:
    with file.path.open("rb") as opened:
        return opened.read(4) == b"PAR1"


def _parquet(file: LandedFile) -> Iterator[Sheet]:
    """A Parquet file as a sheet of text, so that one reading of the cells serves both; line is the row's number."""
    try:
        parquet = pq.ParquetFile(file.path)
    except pa.ArrowInvalid as error:
        raise SourceError(f"{file.name}: expected a Parquet file, found a broken one: {error}.", "Ask for the delivery again.") from error
    header, first = tuple(parquet.schema_arrow.names), 1
    for batch in parquet.iter_batches(LINES_AT_ONCE):
        texts = [_as_text(column) for column in batch.columns]
        offsets = pa.array(range(0, batch.num_rows * len(header) + 1, len(header)), pa.int32())
        interleaved = pa.array([text for row in zip(*texts, strict=True) for text in row], pa.string())
        lists = pa.ListArray.from_arrays(offsets, interleaved)
        raw = pa.array([",".join(row) for row in zip(*texts, strict=True)], pa.string())
        lines = pa.array(range(first, first + batch.num_rows), pa.int64())
        yield Sheet(file.name, header, pa.table({"line": lines, "raw_text": raw, "cells": lists}))
        first += batch.num_rows


def _as_text(column: pa.Array) -> list[str]:
    if pa.types.is_timestamp(column.type):
        # Arrow keeps the instant in UTC whatever zone the type names; a naive column stays without an offset.
        utc = column.type.tz is not None
        column = column.cast(pa.timestamp("us"))
        return ["" if v is None else v.isoformat(sep=" ") + ("+00:00" if utc else "") for v in column.to_pylist()]
    return ["" if v is None else str(v).strip() for v in column.to_pylist()]


def _rows(sheet: Sheet, file: LandedFile, zone: str | None) -> Iterator[pa.Table]:
    engine = connection()
    engine.register("lines", sheet.rows)
    places = {name: sheet.header.index(name) + 1 if name in sheet.header else 0 for name in (*REQUIRED, *OPTIONAL)}
    answer = engine.sql(
        f"""
        WITH cut AS (
            SELECT line, raw_text, len(cells) AS found, nullif(cells[$series_id], '') AS series_id, nullif(cells[$quantity],
                '') AS quantity,
                   cells[$interval_start] AS stamp, TRY_CAST(cells[$interval_minutes] AS DOUBLE) AS minutes,
                       cells[$interval_minutes] AS minutes_text,
                   cells[$value] AS value_text, number_in(cells[$value]) AS number,
                   CASE WHEN $is_forecast = 0 OR is_missing(cells[$is_forecast]) THEN false
                       ELSE TRY_CAST(cells[$is_forecast] AS BOOLEAN) END AS is_forecast
            FROM lines
        ), read AS (
            SELECT *, CASE WHEN regexp_matches(stamp, '([+-]\\d\\d(:?\\d\\d)?|Z)$') THEN TRY_CAST(stamp AS TIMESTAMPTZ)
                           WHEN $zone IS NOT NULL AND is_on_clock(TRY_CAST(stamp AS TIMESTAMP), $zone)
                               THEN utc_first(TRY_CAST(stamp AS TIMESTAMP), $zone)
                      END AS instant
            FROM cut
        ), judged AS (
            SELECT *, CASE
                WHEN found <> $fields THEN format('expected {{}} cells, found {{}}', $fields, found)
                WHEN series_id IS NULL THEN 'expected a name in ''series_id'', found none'
                WHEN quantity IS NULL THEN 'expected a name in ''quantity'', found none'
                WHEN instant IS NULL THEN format('expected a time with its offset such as 2026-01-31T23:00:00Z, found ''{{}}''',
                    coalesce(stamp, '')[:40])
                WHEN minutes IS NULL OR minutes NOT BETWEEN 1 AND 1440 OR minutes <> floor(minutes)
                    THEN format('expected whole minutes in ''interval_minutes'', found ''{{}}''', coalesce(minutes_text, '')[:40])
                WHEN is_missing(value_text) THEN 'expected a number in ''value'', found none'
                WHEN number IS NULL THEN format('expected a number in ''value'', found ''{{}}''', value_text[:40])
                WHEN is_forecast IS NULL THEN 'expected true or false in ''is_forecast'''
            END AS fault
            FROM read
        )
        SELECT $file AS file, line, CAST($delivery AS DATE) AS delivery_date,
               CASE WHEN found = $fields THEN CAST(instant AS DATE) END AS date,
               fault, CASE WHEN fault IS NOT NULL THEN raw_text[:{RAW_TEXT_LIMIT}] END AS raw_text,
               CASE WHEN found = $fields THEN series_id END AS series_id, CASE WHEN found = $fields THEN quantity END AS quantity,
               CASE WHEN found = $fields THEN instant END AS interval_start,
               CASE WHEN fault IS NULL THEN CAST(minutes AS INTEGER) END AS interval_minutes,
               CASE WHEN fault IS NULL THEN number END AS value, CASE WHEN found = $fields THEN is_forecast END AS is_forecast
        FROM judged ORDER BY line
        """,
        params={
            "file": sheet.name,
            "delivery": file.delivery_date,
            "fields": len(sheet.header),
            "zone": zone and zone.replace("utc", "UTC"),
            **places,
        },
    )
    for batch in answer.to_arrow_reader(LINES_AT_ONCE):
        yield pa.Table.from_batches([batch])


def _looks_like(head: bytes, name: str) -> bool:
    first_line = head.split(b"\n", 1)[0]
    return first_line.startswith(b"series_id,") or (name.endswith(".parquet") and b"series_id" in head)


FORMAT = Format(
    name="canonical_series",
    shape="series",
    description="Gridlake's own long table of time series, CSV or Parquet: " + ", ".join((*REQUIRED, *OPTIONAL)) + ".",
    read=read,
    looks_like=_looks_like,
    settings={
        "delimiter": "character between cells; ',' unless given",
        "stamps_without_offset": "utc or local: what a time without offset means; unless given, such a line is a fault",
    },
)
