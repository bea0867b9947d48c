"""Half-hourly readings of the Low Carbon London trial (UK Power Networks), in its three published layouts.

Stamps have no daylight saving (48 half-hours on every day): they are UTC. Some are seconds or minutes beside the half-hour and
carry `Null`; those are faulty lines.
"""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa

from lakehouse.sources.base import Format, LandedFile, ReadOptions
from lakehouse.sources.delimited import Layout, looks_like_layout, read_layout, setting
from lakehouse.sources.text_sql import local_stamp_sql, number_sql, readings_sql

COLUMNS = {
    "meter": ("lclid", "mac"),
    "stamp_text": ("tstp", "datetime"),
    "energy": ("energy_kwh", "energy(kwh/hh)", "kwhh", "kwh/hh (per half hour)"),
}
SQL = readings_sql(
    meter="meter",
    local=local_stamp_sql("stamp_text"),
    minutes="30",
    energy=number_sql("energy"),
    stamp_text="stamp_text",
    energy_text="energy",
    stamp_expected="a stamp as YYYY-MM-DD hh:mm:ss",
)
LAYOUT = Layout("half-hourly readings of Low Carbon London", COLUMNS, SQL)


def read(file: LandedFile, options: ReadOptions) -> Iterator[pa.Table]:
    """Reads one block or one household."""
    yield from read_layout(file, options, LAYOUT, time_zone=setting(options, "time_zone", "UTC"))


FORMAT = Format(
    name="lcl",
    shape="readings",
    description="Low Carbon London half-hourly readings.",
    read=read,
    looks_like=looks_like_layout(LAYOUT),
    settings={"time_zone": "IANA zone of the stamps; by default UTC."},
)
