"""Victoria's half-hourly demand with Melbourne's temperature (`vic_elec`): one line per half hour, stamped in UTC at its start."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa

from lakehouse.sources.base import Format, LandedFile, ReadOptions
from lakehouse.sources.sheets import Measure, connection, place_of, series_rows, stamp_lines, unread_columns, whole_sheets

CLOCK = r"CASE WHEN regexp_matches(cells[$time], 'Z$|\+00:?00$') THEN TRY_CAST(replace(cells[$time], 'T', ' ')[:19] AS TIMESTAMP) END"
NOT_READ = ("Date", "Holiday")


def read(file: LandedFile, options: ReadOptions) -> Iterator[pa.Table]:
    """Reads one file: demand in MW as series `VIC`, temperature in °C as series `melbourne`."""
    for sheet in whole_sheets(file):
        time = place_of(sheet, "Time")
        measures = [
            Measure(place_of(sheet, "Demand"), "VIC", "load_mw"),
            *([Measure(place_of(sheet, "Temperature"), "melbourne", "temperature_c")] if "Temperature" in sheet.header else []),
        ]
        unread = [name for name in sheet.header if name not in ("Time", "Demand", "Temperature", *NOT_READ)]
        if unread:
            yield unread_columns(unread, sheet, file)
        engine = connection()
        expected = "a UTC stamp such as 2011-12-31T13:00:00Z"
        stamped = stamp_lines(engine, sheet, CLOCK, zone="UTC", expected=expected, places={"time": time}, minutes=30)
        yield from series_rows(engine, stamped, measures, sheet, file)


FORMAT = Format(
    name="vic_elec",
    shape="series",
    description="Victoria's half-hourly demand and temperature: Time, Demand, Temperature, Date, Holiday.",
    read=read,
    looks_like=lambda head, name: head.replace(b'"', b"").startswith(b"Time,Demand,Temperature"),
)
