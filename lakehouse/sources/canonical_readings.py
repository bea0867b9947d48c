"""Gridlake's own layout of meter readings, as CSV and as Parquet; docs/formats.md describes it.

Columns: meter_id, register, interval_start, interval_minutes, energy_kwh, quality. The register defaults to `import`, the
quality is optional. A row of twelve hours or more is the difference of two reads of the register. Stamps are ISO 8601 with
offset or Z; stamps of a local clock need the option `time_zone`.
"""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from lakehouse.errors import SourceError
from lakehouse.sources.base import Format, LandedFile, ReadOptions
from lakehouse.sources.delimited import READING_COLUMNS, UNIT_IN_KWH, Layout, complete, looks_like_layout, read_layout, setting
from lakehouse.sources.lines import numbered
from lakehouse.sources.local_clock import LocalClock
from lakehouse.sources.text_sql import local_stamp_sql, number_sql, readings_sql, utc_stamp_sql

PARQUET_MAGIC = b"PAR1"
PARQUET_BATCH_ROWS = 256_000
# The years 1900 to 2199, in microseconds since 1970.
EARLIEST_US, LATEST_US = -2_208_988_800_000_000, 7_258_118_400_000_000
# Four hundred days: a row may be the difference of two register reads.
LONGEST_MINUTES = 576_000

COLUMNS = {
    "meter": ("meter_id", "meter"),
    "channel": ("register",),
    "stamp_text": ("interval_start",),
    "length": ("interval_minutes",),
    "energy": ("energy_kwh",),
    "flag": ("quality",),
}
OPTIONAL = frozenset({"channel", "flag"})
QUICK_TYPES = {"stamp_text": pa.timestamp("us", tz="UTC"), "length": pa.int32(), "energy": pa.float64()}

SETTINGS = {
    "time_zone": "IANA zone of stamps without offset; without it such a stamp is a fault. 'site' takes the site's zone.",
    "date_order": "'day first' or 'month first', for stamps like 6/1/2012 08:00 (with time_zone); without it only ISO 8601 is read.",
    "stamps": "'start' (default) or 'end': which edge of the interval the stamp names.",
    "unit": "Unit of the energy column: kWh (default), Wh or MWh.",
    "decimal": "Decimal mark: '.' (default) or ','.",
    "delimiter": "Field delimiter; by default found from the header.",
    "encoding": "Text encoding; by default UTF-8, or UTF-16 where the file says so.",
}


def zone_of(options: ReadOptions) -> str | None:
    """The zone that the feed's `time_zone` option names; 'site' stands for the site's own."""
    zone = setting(options, "time_zone", None)
    return options.time_zone if zone == "site" else zone


def _layout(options: ReadOptions) -> Layout:
    unit = UNIT_IN_KWH[setting(options, "unit", "kWh", tuple(UNIT_IN_KWH))]
    decimal = setting(options, "decimal", ".", (".", ","))
    order = setting(options, "date_order", None, (None, "day first", "month first"))
    ends = setting(options, "stamps", "start", ("start", "end")) == "end"
    zone = zone_of(options)
    length = number_sql("length")
    sql = readings_sql(
        meter="meter",
        register="COALESCE(NULLIF(lower(channel), ''), 'import')",
        quality="NULLIF(flag, '')",
        minutes=f"CASE WHEN {length} BETWEEN 1 AND {LONGEST_MINUTES} AND {length} % 1 = 0 THEN {length} END",
        energy=f"{number_sql('energy', decimal=decimal)} * {unit}",
        start=None if zone else utc_stamp_sql("stamp_text"),
        local=local_stamp_sql("stamp_text", order) if zone else None,
        faults=[
            (
                "interval_minutes IS NULL",
                f"'expected whole minutes from 1 to {LONGEST_MINUTES}, found ''' || left(COALESCE(length, ''), 60) || ''''",
            )
        ],
        stamp_text="stamp_text",
        energy_text="energy",
        stamp_expected="a moment as ISO 8601" + ("" if zone else " with offset or Z"),
    )
    quick = None if (zone or decimal == "," or ends) else lambda table: _quick(table, unit)
    return Layout("canonical meter readings", COLUMNS, sql, OPTIONAL, quick, QUICK_TYPES)


def _quick(table: pa.Table, unit: float) -> pa.Table | None:
    energy, length = table["energy"], table["length"]
    if (
        not pc.all(pc.is_finite(energy)).as_py()
        or not pc.all(pc.and_(pc.greater_equal(length, 1), pc.less_equal(length, LONGEST_MINUTES))).as_py()
    ):
        return None
    meter = pc.utf8_trim_whitespace(table["meter"])
    if pc.any(pc.equal(meter, "")).as_py():
        return None
    rows = table.num_rows
    channel = pa.repeat(pa.scalar("import"), rows)
    if "channel" in table.column_names:
        named = pc.utf8_lower(pc.utf8_trim_whitespace(table["channel"]))
        channel = pc.if_else(pc.equal(named, ""), "import", named)
    flag = pa.nulls(rows, pa.string())
    if "flag" in table.column_names:
        named = pc.utf8_trim_whitespace(table["flag"])
        flag = pc.if_else(pc.equal(named, ""), pa.scalar(None, pa.string()), named)
    return pa.table(
        {
            "line": table["line"],
            "meter_id": meter,
            "register": channel,
            "interval_start": table["stamp_text"],
            "interval_minutes": length,
            "energy_kwh": energy if unit == 1.0 else pc.multiply(energy, unit),
            "quality": flag,
        }
    )


def read(file: LandedFile, options: ReadOptions) -> Iterator[pa.Table]:
    """Reads canonical readings, CSV or Parquet."""
    try:
        with file.path.open("rb") as opened:
            is_parquet = opened.read(4) == PARQUET_MAGIC
    except OSError as error:
        raise SourceError(f"{file.name}: expected a file that can be opened, found: {error.strerror}.") from error
    tables = _read_parquet(file, options) if is_parquet else read_layout(file, options, _layout(options), time_zone=zone_of(options))
    ends = setting(options, "stamps", "start", ("start", "end")) == "end"
    for table in tables:
        yield _from_end(table) if ends else table


def _from_end(table: pa.Table) -> pa.Table:
    minutes = pc.multiply(table["interval_minutes"].cast(pa.int64()), 60_000_000).cast(pa.duration("us"))
    start = pc.subtract(table["interval_start"], minutes)
    table = table.set_column(table.column_names.index("interval_start"), "interval_start", start)
    return table.set_column(table.column_names.index("date"), "date", pc.cast(start, pa.date32()))


def _read_parquet(file: LandedFile, options: ReadOptions) -> Iterator[pa.Table]:
    unit = UNIT_IN_KWH[setting(options, "unit", "kWh", tuple(UNIT_IN_KWH))]
    try:
        with file.path.open("rb") as opened:
            parquet = pq.ParquetFile(opened)
            names = {n.lower(): n for n in parquet.schema_arrow.names}
            found = {c: next((names[a] for a in aliases if a in names), None) for c, aliases in COLUMNS.items()}
            missing = [c for c, n in found.items() if n is None and c not in OPTIONAL]
            if missing:
                raise SourceError(
                    f"{file.name}: expected Parquet with the columns of canonical meter readings, found {parquet.schema_arrow.names}.",
                    "Mend the file or the feed's format in gridlake.yaml.",
                )
            first = 1
            wanted = [n for n in found.values() if n]
            for batch in parquet.iter_batches(PARQUET_BATCH_ROWS, columns=wanted):
                batch.validate(full=True)  # a page can hold bytes that are no text
                yield complete(_checked(pa.Table.from_batches([batch]), found, first, unit, file, options), file, file.name)
                first += batch.num_rows
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise SourceError(f"{file.name}: expected a whole Parquet file, found a broken one: {error}.", "Ask for it again.") from error


def _checked(table: pa.Table, found: dict[str, str | None], first: int, unit: float, file: LandedFile, options: ReadOptions) -> pa.Table:
    rows = table.num_rows

    def column(name: str, kind: pa.DataType) -> pa.Array:
        header = found[name]
        if header is None:
            return pa.nulls(rows, kind)
        try:
            return table[header].cast(kind)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise SourceError(f"{file.name}: expected the column {header} as {kind}, found {table[header].type}: {error}.") from error

    stamps = table[found["stamp_text"] or ""]
    if not pa.types.is_timestamp(stamps.type):
        raise SourceError(f"{file.name}: expected interval_start as a timestamp, found {stamps.type}.", "Write it as timestamp[us, UTC].")
    if stamps.type.tz is None:
        zone = zone_of(options)
        if zone is None:
            raise SourceError(
                f"{file.name}: expected interval_start with a time zone, found {stamps.type}.",
                "Write it as timestamp[us, UTC], or name the clock in the feed's options.time_zone.",
            )
        clocked = LocalClock(zone).resolve(
            pa.table({"meter_id": column("meter", pa.string()), "local_start": stamps.cast(pa.timestamp("us"))})
        )
        stamps = clocked["interval_start"]
    register = pc.utf8_lower(column("channel", pa.string()))
    energy = column("energy", pa.float64())
    stamps = _within_calendar(stamps.cast(READING_COLUMNS["interval_start"]))
    out = {
        "line": numbered(first, rows),
        "meter_id": column("meter", pa.string()),
        "register": pc.fill_null(pc.if_else(pc.equal(register, ""), pa.scalar(None, pa.string()), register), "import"),
        "interval_start": stamps,
        "interval_minutes": column("length", pa.int32()),
        "energy_kwh": energy if unit == 1.0 else pc.multiply(energy, unit),
        "quality": column("flag", pa.string()),
    }
    faults = pa.nulls(rows, pa.string())
    bad_length = pc.invert(
        pc.fill_null(pc.and_(pc.greater_equal(out["interval_minutes"], 1), pc.less_equal(out["interval_minutes"], LONGEST_MINUTES)), False)
    )
    for wrong, words in (
        (pc.is_null(out["meter_id"]), "expected a meter, found none"),
        (pc.is_null(out["interval_start"]), "expected a moment in interval_start, found none that exists"),
        (bad_length, f"expected whole minutes from 1 to {LONGEST_MINUTES}, found none"),
        (pc.invert(pc.fill_null(pc.is_finite(energy), False)), "expected energy in kWh as a number, found none"),
    ):
        if pc.any(wrong).as_py():
            faults = pc.if_else(pc.and_(wrong, pc.is_null(faults)), words, faults)
    out["energy_kwh"] = pc.if_else(pc.fill_null(pc.is_finite(energy), False), out["energy_kwh"], pa.scalar(None, pa.float64()))
    return pa.table(out | {"fault": faults})


def _within_calendar(stamps: pa.ChunkedArray) -> pa.ChunkedArray:
    """Stamps of no calendar year, as a broken file can hold them, are missing."""
    number = stamps.cast(pa.int64())
    exists = pc.and_(pc.greater_equal(number, EARLIEST_US), pc.less(number, LATEST_US))
    return pc.if_else(exists, stamps, pa.scalar(None, stamps.type))


def looks_like(head: bytes, name: str) -> bool:
    """Parquet with these column names, or a CSV header that has them."""
    if head[:4] == PARQUET_MAGIC:
        return name.lower().endswith(".parquet")
    return looks_like_layout(Layout("", COLUMNS, "", OPTIONAL))(head, name)


FORMAT = Format(
    name="canonical_readings",
    shape="readings",
    description="Canonical meter readings, CSV or Parquet.",
    read=read,
    looks_like=looks_like,
    settings=SETTINGS,
)
