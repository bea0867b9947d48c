"""Hourly readings of one home of HUE, the Hourly Usage of Energy data set (British Columbia).

Header: date, hour, energy_kWh. Dates are YYYY-MM-DD, or month/day/year, which the layout's country settles; the clock is
Vancouver's. The meter is named by the file (`Residential_1.csv`).
"""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa

from lakehouse.sources.base import Format, LandedFile, ReadOptions
from lakehouse.sources.delimited import Layout, looks_like_layout, read_layout, setting
from lakehouse.sources.text_sql import local_stamp_sql, number_sql, readings_sql

COLUMNS = {"day": ("date",), "hour": ("hour",), "energy": ("energy_kwh",)}
STAMP = "day || ' ' || lpad(hour, 2, '0') || ':00'"


def _layout(meter: str, date_order: str) -> Layout:
    sql = readings_sql(
        meter="'" + meter.replace("'", "''") + "'",
        local=f"CASE WHEN regexp_full_match(hour, '[0-9]{{1,2}}') THEN {local_stamp_sql('(' + STAMP + ')', date_order)} END",
        minutes="60",
        energy=number_sql("energy"),
        stamp_text=f"({STAMP})",
        energy_text="energy",
        stamp_expected="a date and an hour from 0 to 23",
    )
    return Layout("hourly readings of a home (date, hour, energy_kWh)", COLUMNS, sql)


def read(file: LandedFile, options: ReadOptions) -> Iterator[pa.Table]:
    """Reads one home's file."""
    meter = setting(options, "meter", None) or file.name.split(".")[0]
    order = setting(options, "date_order", "month first", ("month first", "day first"))
    yield from read_layout(file, options, _layout(str(meter), order), time_zone=setting(options, "time_zone", "America/Vancouver"))


FORMAT = Format(
    name="hue",
    shape="readings",
    description="HUE, hourly readings of a home.",
    read=read,
    looks_like=looks_like_layout(Layout("", COLUMNS, "")),
    settings={
        "time_zone": "IANA zone of the stamps; by default America/Vancouver.",
        "date_order": "'month first' (default, as published) or 'day first'.",
        "meter": "Name of the meter; by default the file's name up to the first '.'.",
    },
)
