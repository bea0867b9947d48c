"""Delimited text with numbered lines, and the way from a wide table's cells to rows of `RawSeries`.

The formats of published series share this: cells stay text until SQL tries to read them, so that every cell that is no number and
every stamp that is no time is told with its line. What a column means is said by the format's own module.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from lakehouse.contracts.raw import RAW_TEXT_LIMIT, RawSeries
from lakehouse.errors import SourceError
from lakehouse.sources.archives import members
from lakehouse.sources.base import LandedFile
from lakehouse.sources.lines import Block, blocks, told

LINES_AT_ONCE = 200_000
MISSING = ("", "-", "--", "n/e", "n/a", "na", "nan", "n.a.", "null", "none", "#n/a")
"""Cells that say "no value", compared in lower case and without surrounding blanks."""

CELLS = pa.schema([("line", pa.int64()), ("raw_text", pa.string()), ("cells", pa.list_(pa.string()))])


@dataclass(frozen=True)
class Sheet:
    """A run of lines of one delimited file.

    Args:
        name: name of the file; a member of an archive follows after '!'.
        header: the column names, trimmed.
        rows: `line` (from 1, of the decompressed text), `raw_text`, `cells` (text, trimmed); blank lines are left out.
    """

    name: str
    header: tuple[str, ...]
    rows: pa.Table


@dataclass(frozen=True)
class Measure:
    """What one column of a wide table holds.

    Args:
        position: the column, from 1.
        series_id: the series; None where it stands in the relation's column `series_id`.
        quantity: the quantity with its unit.
        is_forecast: whether somebody forecast it.
        scale: factor from the delivered to the quantity's unit.
        offset: added after scaling.
    """

    position: int
    series_id: str | None
    quantity: str
    is_forecast: bool = False
    scale: float = 1.0
    offset: float = 0.0


def sheets(file: LandedFile, *, delimiter: str = ",") -> Iterator[Sheet]:
    """Reads a delimited text file with column names in its first line, packed or not, as runs of lines.

    Raises:
        SourceError: an empty file or a broken archive.
    """
    for member in members(file):
        header: tuple[str, ...] | None = None
        for block in blocks(member):
            rows = _split(block, delimiter)
            if header is None and rows.num_rows:
                header = tuple(rows["cells"][0].as_py())
                rows = rows.slice(1)
            if header is not None:
                yield Sheet(member.name, header, rows)
        if header is None:
            raise SourceError(f"{member.name}: expected lines of text, found an empty file.", "Ask for the delivery again.")


def whole_sheets(file: LandedFile, *, delimiter: str = ",") -> Iterator[Sheet]:
    """Like `sheets`, but each member whole: for formats that must see all of a file before they can read a line of it."""
    parts: list[Sheet] = []
    for part in sheets(file, delimiter=delimiter):
        if parts and parts[0].name != part.name:
            yield Sheet(parts[0].name, parts[0].header, pa.concat_tables([p.rows for p in parts]))
            parts = []
        parts.append(part)
    if parts:
        yield Sheet(parts[0].name, parts[0].header, pa.concat_tables([p.rows for p in parts]))


def _split(block: Block, delimiter: str) -> pa.Table:
    lines = block.data.decode("utf-8", errors="replace").split("\n")
    numbers = range(block.first_line, block.first_line + len(lines))
    overlong = pa.table(
        [list(block.overlong), [told(raw) for raw in block.overlong.values()], [[] for _ in block.overlong]],
        schema=CELLS,
    )
    if b'"' in block.data:
        return pa.concat_tables([_split_quoted(lines, block.first_line, delimiter), overlong])
    text = pc.utf8_trim(pa.array(lines, pa.string()), "\r")
    rows = pa.table({"line": pa.array(numbers, pa.int64()), "raw_text": text}).filter(pc.not_equal(pc.utf8_trim_whitespace(text), ""))
    cells = pc.split_pattern(rows["raw_text"].combine_chunks(), delimiter)
    trimmed = pa.ListArray.from_arrays(cells.offsets, pc.utf8_trim_whitespace(cells.values))
    return pa.concat_tables([rows.append_column("cells", trimmed).cast(CELLS), overlong])


def _split_quoted(lines: list[str], first: int, delimiter: str) -> pa.Table:
    taken: list[str] = []

    def tapped() -> Iterator[str]:
        for line in lines:
            taken.append(line)
            yield line + "\n"

    reader = csv.reader(tapped(), delimiter=delimiter)
    rows: tuple[list[int], list[str], list[list[str]]] = ([], [], [])
    for cells_of_line in reader:
        raw = "\n".join(taken).rstrip("\r\n")
        if raw.strip():
            rows[0].append(first + reader.line_num - len(taken))
            rows[1].append(raw)
            rows[2].append([cell.strip() for cell in cells_of_line])
        taken.clear()
    return pa.table(list(rows), schema=CELLS)


def connection() -> duckdb.DuckDBPyConnection:
    """A session of its own for one file, with the clock's functions; the engine behind it is opened once a process.

    `utc_first` and `utc_second` turn a local clock reading into UTC (they differ in the hour that the clock shows twice);
    `is_on_clock` is false in the hour that it leaves out. `number_in` reads a cell, and `is_missing` knows the empty ones.
    """
    session = _engine().cursor()
    session.execute("SET TimeZone = 'UTC'")
    return session


@cache
def _engine() -> duckdb.DuckDBPyConnection:
    engine = duckdb.connect()
    engine.execute("SET threads = 2; SET TimeZone = 'UTC'")
    missing = ", ".join(f"'{token}'" for token in MISSING)
    for macro in (
        "utc_of(clock, zone) AS timezone(zone, clock)",
        "utc_first(clock, zone) AS CASE WHEN timezone(zone, timezone(zone, clock) - INTERVAL 1 HOUR) = clock"
        " THEN timezone(zone, clock) - INTERVAL 1 HOUR ELSE timezone(zone, clock) END",
        "utc_second(clock, zone) AS CASE WHEN timezone(zone, timezone(zone, clock) + INTERVAL 1 HOUR) = clock"
        " THEN timezone(zone, clock) + INTERVAL 1 HOUR ELSE timezone(zone, clock) END",
        "is_on_clock(clock, zone) AS timezone(zone, timezone(zone, clock)) = clock",
        f"is_missing(cell) AS lower(trim(coalesce(cell, ''))) IN ({missing})",
        "number_in(cell) AS CASE WHEN isfinite(TRY_CAST(cell AS DOUBLE)) THEN TRY_CAST(cell AS DOUBLE) END",
    ):
        engine.execute(f"CREATE MACRO {macro}")
    return engine


def series_rows(
    engine: duckdb.DuckDBPyConnection, stamped: str, measures: Sequence[Measure], sheet: Sheet, file: LandedFile
) -> Iterator[pa.Table]:
    """Turns stamped wide rows into rows of `RawSeries`: one per line and measure that has a value.

    A line with a `fault` gives one row that says so. A cell that is no number gives one row with its fault. An empty cell gives
    nothing: it is simply no value.

    Args:
        engine: from `connection`.
        stamped: a relation with `line, raw_text, cells, fault, interval_start, interval_minutes`, and `series_id` where a measure
            leaves it open.
        measures: the columns to read.
        sheet: where the lines come from.
        file: the landed file.
    """
    engine.register(
        "measures",
        pa.table(
            {
                "position": pa.array([m.position for m in measures], pa.int32()),
                "label": pa.array([sheet.header[m.position - 1] for m in measures], pa.string()),
                "measured_series": pa.array([m.series_id for m in measures], pa.string()),
                "quantity": pa.array([m.quantity for m in measures], pa.string()),
                "is_forecast": pa.array([m.is_forecast for m in measures], pa.bool_()),
                "scale": pa.array([m.scale for m in measures], pa.float64()),
                "shift": pa.array([m.offset for m in measures], pa.float64()),
            }
        ),
    )
    own_series = "series_id" if "series_id" in engine.table(stamped).columns else "NULL"
    answer = engine.sql(
        f"""
        SELECT * FROM (
            SELECT $file AS file, line, CAST($delivery AS DATE) AS delivery_date, CAST(NULL AS DATE) AS date, fault,
                   raw_text[:{RAW_TEXT_LIMIT}] AS raw_text, CAST(NULL AS VARCHAR) AS series_id, CAST(NULL AS VARCHAR) AS quantity,
                   CAST(NULL AS TIMESTAMPTZ) AS interval_start, CAST(NULL AS INTEGER) AS interval_minutes, CAST(NULL AS DOUBLE) AS value,
                   CAST(NULL AS BOOLEAN) AS is_forecast, 0 AS position
            FROM {stamped} WHERE fault IS NOT NULL
            UNION ALL
            SELECT $file, line, CAST($delivery AS DATE), CAST(interval_start AS DATE),
                   CASE WHEN number IS NULL THEN format('expected a number in ''{{}}'', found ''{{}}''', label, cell[:60]) END,
                   CASE WHEN number IS NULL THEN raw_text[:{RAW_TEXT_LIMIT}] END,
                   coalesce(measured_series, own_series), quantity, interval_start, interval_minutes, number * scale + shift,
                       is_forecast, position
            FROM (SELECT *, {own_series} AS own_series, cells[position] AS cell, number_in(cells[position]) AS number
                  FROM {stamped} CROSS JOIN measures WHERE fault IS NULL AND NOT is_missing(cells[position]))
        ) ORDER BY line, position
        """,
        params={"file": sheet.name, "delivery": file.delivery_date},
    ).select("* EXCLUDE (position)")
    for batch in answer.to_arrow_reader(LINES_AT_ONCE):
        yield pa.Table.from_batches([batch])


def unread_columns(names: Sequence[str], sheet: Sheet, file: LandedFile) -> pa.Table:
    """One row for each column whose meaning the format does not know, so that nothing is left out silently."""
    known = "its values are not read"
    row = dict.fromkeys(RawSeries.columns) | {"file": sheet.name, "line": 1, "delivery_date": file.delivery_date}
    rows = [row | {"fault": f"expected a known column, found '{name}'; {known}", "raw_text": name[:RAW_TEXT_LIMIT]} for name in names]
    return RawSeries.from_rows(rows)


def place_of(sheet: Sheet, name: str) -> int:
    """The position of a column, from 1.

    Raises:
        SourceError: the sheet has no such column.
    """
    if name not in sheet.header:
        found = ", ".join(sheet.header[:6])
        raise SourceError(f"{sheet.name}, line 1: expected a column '{name}', found {found}.", "Check the feed's format in the site file.")
    return sheet.header.index(name) + 1


def stamp_lines(
    engine: duckdb.DuckDBPyConnection,
    sheet: Sheet,
    clock: str,
    *,
    zone: str,
    expected: str,
    places: dict[str, int],
    minutes: int | None = None,
    is_interval_end: bool = False,
    series: str = "NULL",
    cells: str = "cells",
) -> str:
    """Makes the relation `stamped` that `series_rows` needs, for a sheet whose lines carry one clock reading each.

    A reading that the clock shows twice is told apart by the order of the lines; one that it leaves out is a fault.

    Args:
        engine: from `connection`.
        sheet: the lines.
        clock: SQL over `cells` that gives the local clock reading (TIMESTAMP), NULL where there is none; columns as `cells[$name]`.
        zone: IANA zone of that clock.
        expected: what a good stamp looks like, for the fault.
        places: the columns that `clock` and `series` name.
        minutes: length of an interval; None for the most frequent distance between lines that follow each other.
        is_interval_end: the reading names the end of the interval, by the label of the hour that ends: taken off on the clock.
        series: SQL over `cells` for `series_id`, where lines are of several series.
        cells: SQL for the cells to hand on, where some are computed.

    Returns:
        The relation's name.
    """
    engine.register("lines", sheet.rows)
    engine.execute(
        f"""
        CREATE OR REPLACE TEMP TABLE stamped AS
        WITH read AS (
            SELECT line, raw_text, {cells} AS cells, len(cells) AS found, CAST({series} AS VARCHAR) AS series_id, {clock} AS label
                FROM lines
        ), spaced AS (
            SELECT *, date_diff('minute', lag(label) OVER (PARTITION BY series_id ORDER BY line), label) AS distance FROM read
        ), lengths AS (
            SELECT coalesce($minutes, mode(distance) FILTER (distance > 0), 60) AS length FROM spaced
        ), placed AS (
            SELECT spaced.*, length, CASE WHEN $ends THEN label - to_minutes(length) ELSE label END AS clock FROM spaced CROSS JOIN lengths
        ), counted AS (
            SELECT *, row_number() OVER (PARTITION BY series_id, clock ORDER BY line) AS reading FROM placed
        )
        SELECT line, raw_text, cells, series_id, CAST(length AS INTEGER) AS interval_minutes,
               CASE WHEN reading > 1 THEN utc_second(clock, $zone) ELSE utc_first(clock, $zone) END AS interval_start,
               CASE WHEN found <> $fields THEN format('expected {{}} cells, found {{}}', $fields, found)
                    WHEN label IS NULL THEN format('expected {{}}, found ''{{}}''', $expected, raw_text[:60])
                    WHEN NOT is_on_clock(clock, $zone)
                        THEN format('expected a time that the clock of {{}} shows, found {{}}', $zone, strftime(clock,
                            '%Y-%m-%d %H:%M')) END AS fault
        FROM counted
        """,
        {"minutes": minutes, "ends": is_interval_end, "zone": zone, "expected": expected, "fields": len(sheet.header), **places},
    )
    return "stamped"
