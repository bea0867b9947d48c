"""Reads of cumulative registers, turned into the energy between one read and the next.

Columns: meter_id, read_at (or time_rounded), reading_kwh (or energy_heat_kwh), and optionally register and quality. A register
that goes back has rolled over, where the feed says how many digits its dial has and the step is then a small one; else the
meter was exchanged or reset, and the interval between has no energy that anybody knows. The first read of a register in a
file only opens the next interval. Both kinds of read stand in raw as lines that give no reading, and say why.
"""

from __future__ import annotations

from collections.abc import Iterator

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from lakehouse.sources.base import Format, LandedFile, ReadOptions
from lakehouse.sources.canonical_readings import zone_of
from lakehouse.sources.delimited import UNIT_IN_KWH, Layout, complete, looks_like_layout, read_layout, setting
from lakehouse.sources.text_sql import local_stamp_sql, number_sql, readings_sql, utc_stamp_sql

COLUMNS = {
    "meter": ("meter_id",),
    "channel": ("register",),
    "stamp_text": ("read_at", "time_rounded"),
    "energy": ("reading_kwh", "energy_heat_kwh"),
    "flag": ("quality",),
}
OPTIONAL = frozenset({"channel", "flag"})
# A dial that rolled over has gone on by less than this share of its range since the last read.
LARGEST_STEP = 0.1


def read(file: LandedFile, options: ReadOptions) -> Iterator[pa.Table]:
    """Reads one file of register reads. Reads of a register may stand in any order; all of a file are held in memory."""
    zone = zone_of(options)
    sql = readings_sql(
        meter="meter",
        register="COALESCE(NULLIF(lower(channel), ''), 'import')",
        quality="NULLIF(flag, '')",
        minutes="1",
        energy=f"{number_sql('energy')} * {UNIT_IN_KWH[setting(options, 'unit', 'kWh', tuple(UNIT_IN_KWH))]}",
        start=None if zone else utc_stamp_sql("stamp_text"),
        local=local_stamp_sql("stamp_text") if zone else None,
        stamp_text="stamp_text",
        energy_text="energy",
        energy_expected="a register read in kWh as a number",
    )
    tables = list(read_layout(file, options, Layout("register reads", COLUMNS, sql, OPTIONAL), time_zone=zone))
    if tables:
        yield from differences(pa.concat_tables(tables), file, setting(options, "digits", None))


def differences(reads: pa.Table, file: LandedFile, digits: int | None) -> Iterator[pa.Table]:
    """Turns reads (raw rows whose energy is the register's state) into readings of the intervals that end with them.

    Args:
        reads: raw rows of one file.
        file: the landed file.
        digits: digits of the dial before the decimal point, or None where nobody says.
    """
    span = f"{10.0**digits!r}" if digits else "NULL::DOUBLE"
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'; SET threads = 2")
        connection.register("reads", reads)
        table = connection.sql(
            f"""
            WITH stepped AS (
                SELECT *, lag(interval_start) OVER w AS before, lag(energy_kwh) OVER w AS before_kwh,
                       energy_kwh - lag(energy_kwh) OVER w AS step_kwh
                FROM reads WHERE fault IS NULL
                WINDOW w AS (PARTITION BY meter_id, register ORDER BY interval_start, line)
            ), judged AS (
                SELECT *, epoch(interval_start) - epoch(before) AS seconds,
                       CASE WHEN step_kwh >= 0 THEN step_kwh WHEN step_kwh + {span} < {LARGEST_STEP} * {span}
                           THEN step_kwh + {span} END AS kwh
                FROM stepped
            )
            SELECT file, line, meter_id, register, CASE WHEN before IS NULL THEN interval_start ELSE before END AS interval_start,
                   CAST(CASE WHEN seconds % 60 = 0 AND seconds > 0 THEN seconds / 60 END AS INTEGER) AS interval_minutes,
                   CASE WHEN seconds % 60 = 0 AND seconds > 0 THEN round(kwh, 9) END AS energy_kwh, quality,
                   CASE WHEN before IS NULL
                        THEN 'expected an earlier read of the register in the file, found its first: it opens an interval and ends none'
                        WHEN seconds = 0 THEN 'expected one read of the register at a moment, found another one: ' || before_kwh
                            || ' and ' || energy_kwh
                        WHEN seconds % 60 <> 0 THEN 'expected reads whole minutes apart, found ' || seconds || ' seconds'
                        WHEN kwh IS NULL THEN 'expected a register that counts up, found ' || energy_kwh || ' after ' || before_kwh
                                              || ': rolled over (see the option digits), exchanged or reset' END AS fault,
                   NULL::VARCHAR AS raw_text
            FROM judged
            UNION ALL BY NAME
            SELECT file, line, meter_id, register, interval_start, NULL::INTEGER AS interval_minutes, NULL::DOUBLE AS energy_kwh,
                quality, fault, raw_text
            FROM reads WHERE fault IS NOT NULL
            ORDER BY file, line
            """
        ).to_arrow_table()
    for name in table["file"].unique().to_pylist():
        of_member = table.filter(pc.equal(table["file"], name)).drop_columns(["file"])
        yield complete(of_member, file, name)


FORMAT = Format(
    name="register_reads",
    shape="readings",
    description="Reads of cumulative registers.",
    read=read,
    looks_like=looks_like_layout(Layout("", COLUMNS, "", OPTIONAL)),
    settings={
        "time_zone": "IANA zone of stamps without offset; 'site' takes the site's zone.",
        "unit": "Unit of the register: kWh (default), Wh or MWh.",
        "digits": "Digits of the dial before the decimal point, so that a roll-over can be told from an exchange.",
        "delimiter": "Field delimiter; by default found from the header.",
        "encoding": "Text encoding; by default UTF-8.",
    },
)
