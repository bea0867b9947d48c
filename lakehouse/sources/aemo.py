"""AEMO's aggregated price and demand (`PRICE_AND_DEMAND`): market time, which is UTC+10 all year, each interval named by its end."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa

from lakehouse.sources.base import Format, LandedFile, ReadOptions
from lakehouse.sources.sheets import Measure, connection, place_of, series_rows, stamp_lines, unread_columns, whole_sheets

MARKET_TIME = "Australia/Brisbane"
CLOCK = "coalesce(try_strptime(cells[$time], '%Y/%m/%d %H:%M:%S'), try_strptime(cells[$time], '%Y-%m-%d %H:%M:%S'))"
COLUMNS = ("REGION", "SETTLEMENTDATE", "TOTALDEMAND", "RRP", "PERIODTYPE")


def read(file: LandedFile, options: ReadOptions) -> Iterator[pa.Table]:
    """Reads one file: demand in MW and price in AUD/MWh, both under the region's name; 5 minutes since October 2021, 30 before."""
    for sheet in whole_sheets(file):
        time, region = place_of(sheet, "SETTLEMENTDATE"), place_of(sheet, "REGION")
        measures = [
            Measure(place_of(sheet, "TOTALDEMAND"), None, "load_mw"),
            Measure(place_of(sheet, "RRP"), None, "price_aud_per_mwh"),
        ]
        unread = [name for name in sheet.header if name not in COLUMNS]
        if unread:
            yield unread_columns(unread, sheet, file)
        engine = connection()
        stamped = stamp_lines(
            engine, sheet, CLOCK, zone=MARKET_TIME, expected="a time such as 2025/01/01 00:05:00", places={"time": time, "region": region},
            is_interval_end=True, series="cells[$region]",
        )  # fmt: skip
        yield from series_rows(engine, stamped, measures, sheet, file)


FORMAT = Format(
    name="aemo",
    shape="series",
    description="AEMO's aggregated price and demand: REGION, SETTLEMENTDATE (interval ending, market time), TOTALDEMAND, RRP.",
    read=read,
    looks_like=lambda head, name: head.startswith(b"REGION,SETTLEMENTDATE"),
)
