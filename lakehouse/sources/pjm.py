"""PJM's hourly load by zone (`<ZONE>_hourly.csv`: `Datetime, <ZONE>_MW`): local clock, each hour named by its end."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa

from lakehouse.errors import SourceError
from lakehouse.sources.base import Format, LandedFile, ReadOptions
from lakehouse.sources.sheets import Measure, connection, series_rows, stamp_lines, unread_columns, whole_sheets

ZONE = "America/New_York"
CLOCK = (
    "coalesce(try_strptime(cells[$time], '%d-%m-%Y %H:%M'), try_strptime(cells[$time], '%Y-%m-%d %H:%M:%S'),"
    " try_strptime(cells[$time], '%Y-%m-%d %H:%M'))"
)


def read(file: LandedFile, options: ReadOptions) -> Iterator[pa.Table]:
    """Reads one zone or several columns of zones, in MW.

    Hours carry the label of their end: on the spring day label 03:00 is left out, on the autumn day 02:00 comes twice. Up to 2013 the
    published table leaves the autumn label out as well: two hours a year are simply missing.
    """
    for sheet in whole_sheets(file):
        if sheet.header[0] != "Datetime":
            raise SourceError(
                f"{sheet.name}, line 1: expected 'Datetime' as first column, found '{sheet.header[0]}'.", "Check the feed's format."
            )
        measures = [Measure(n, name.removesuffix("_MW"), "load_mw") for n, name in enumerate(sheet.header, 1) if name.endswith("_MW")]
        unread = [name for name in sheet.header[1:] if not name.endswith("_MW")]
        if unread:
            yield unread_columns(unread, sheet, file)
        engine = connection()
        expected = "a time such as 31-12-2002 01:00"
        stamped = stamp_lines(engine, sheet, CLOCK, zone=ZONE, expected=expected, places={"time": 1}, minutes=60, is_interval_end=True)
        yield from series_rows(engine, stamped, measures, sheet, file)


FORMAT = Format(
    name="pjm",
    shape="series",
    description="PJM's hourly load by zone: Datetime (hour ending, local clock) and <ZONE>_MW.",
    read=read,
    looks_like=lambda head, name: head.startswith(b"Datetime,") and b"_MW" in head.split(b"\n", 1)[0],
)
