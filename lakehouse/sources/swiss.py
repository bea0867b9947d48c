"""Weeks of quarter-hours of Swiss homes: one row a home, one column (V001 to V672) a quarter-hour from Monday 0:00 local time.

The file's name tells the week (`elcons_15min_w44.csv`) and nothing tells the year: the feed's option `year` must.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import date, datetime

import pyarrow as pa

from lakehouse.errors import SourceError
from lakehouse.sources.base import Format, LandedFile, ReadOptions
from lakehouse.sources.delimited import setting
from lakehouse.sources.wide import interval_columns

QUARTERS_OF_WEEK = 7 * 96


def read(file: LandedFile, options: ReadOptions) -> Iterator[pa.Table]:
    """Reads one week's file."""
    week = re.search(r"_w(\d{1,2})(?=[._])", file.name)
    if not week:
        raise SourceError(f"{file.name}: expected the calendar week in the name, as in elcons_15min_w44.csv, found none.", "Rename it.")
    year = setting(options, "year", None)
    if not isinstance(year, int):
        raise SourceError(
            f"{file.name}: expected the feed's option year, since the file tells only week {week[1]}, found none.",
            "Set feeds.<feed>.options.year in gridlake.yaml.",
        )
    try:
        monday = date.fromisocalendar(year, int(week[1]), 1)
    except ValueError:
        raise SourceError(f"{file.name}: expected a week of {year}, found {week[1]}.", "Mend the name or the option year.") from None
    yield from interval_columns(
        file,
        first=datetime(monday.year, monday.month, monday.day),
        minutes=15,
        intervals=QUARTERS_OF_WEEK,
        zone=setting(options, "time_zone", "Europe/Zurich"),
        description="a week of quarter-hours (VID, V001 to V672)",
        key=("vid",),
    )


def looks_like(head: bytes, name: str) -> bool:
    """A header VID,V001,V002,…"""
    return head.lstrip(b"\xef\xbb\xbf")[:13].upper() == b"VID,V001,V002"


FORMAT = Format(
    name="swiss_15min",
    shape="readings",
    description="Weeks of quarter-hours, one column an interval.",
    read=read,
    looks_like=looks_like,
    settings={
        "year": "ISO year of the week that the file's name tells. Required: no file tells it.",
        "time_zone": "IANA zone of the clock; by default Europe/Zurich.",
    },
)
