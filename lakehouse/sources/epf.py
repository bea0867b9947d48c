"""The open benchmark of day-ahead price forecasting (five markets): hourly price and two day-ahead exogenous forecasts.

Its clock is the market's local one with every day cut to 24 hours: the hour that spring leaves out was filled in, the two equal hours of
autumn were made one. No real clock does that, so a site of this data names a zone without summer time and the days stay whole.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import pyarrow as pa

from lakehouse.errors import SourceError
from lakehouse.sources.base import Format, LandedFile, ReadOptions
from lakehouse.sources.sheets import Measure, connection, series_rows, stamp_lines, unread_columns, whole_sheets

CLOCK = (
    "coalesce(try_strptime(cells[$time], '%Y/%m/%d %H:%M'), try_strptime(cells[$time], '%Y/%m/%d %H:%M:%S'),"
    " try_strptime(cells[$time], '%Y-%m-%d %H:%M:%S'), try_strptime(cells[$time], '%Y-%m-%d %H:%M'))"
)
CURRENCIES = ("EUR", "USD", "GBP", "AUD", "CAD", "CHF", "DKK")


def read(file: LandedFile, options: ReadOptions) -> Iterator[pa.Table]:
    """Reads one market: `date, <forecast>, <forecast>, OT` or `Date, Price, <forecast>, <forecast>`; power in MW."""
    currency = str(options.settings.get("currency", "EUR"))
    if currency not in CURRENCIES:
        raise SourceError(f"options.currency: expected one of {', '.join(CURRENCIES)}, found '{currency}'.", "Mend the feed's options.")
    for sheet in whole_sheets(file):
        if sheet.header[0].lower() != "date" or len(sheet.header) < 2:
            raise SourceError(f"{sheet.name}, line 1: expected 'date' and a price column, found {', '.join(sheet.header[:4])}.")
        measures, unread = [], []
        for position, name in enumerate(sheet.header[1:], 2):
            measure = _measure(position, name, currency)
            measures += [measure] if measure else []
            unread += [] if measure else [name]
        if unread:
            yield unread_columns(unread, sheet, file)
        engine = connection()
        expected = "a time such as 2011/1/9 0:00"
        stamped = stamp_lines(engine, sheet, CLOCK, zone=options.time_zone, expected=expected, places={"time": 1}, minutes=60)
        yield from series_rows(engine, stamped, measures, sheet, file)


def _measure(position: int, name: str, currency: str) -> Measure | None:
    words = name.lower()
    if words in ("ot", "price"):
        return Measure(position, "day_ahead", f"price_{currency.lower()}_per_mwh")
    # One published column is called "foecast".
    series = "_".join(word for word in re.findall(r"[a-z0-9]+", words) if word not in ("forecast", "foecast"))
    if "load" in words:
        return Measure(position, series, "load_mw", is_forecast=True)
    if any(word in words for word in ("generation", "wind", "solar", "pv")):
        return Measure(position, series, "generation_mw", is_forecast=True)
    return None


def _looks_like(head: bytes, name: str) -> bool:
    first_line = head.split(b"\n", 1)[0].lower()
    return first_line.startswith(b"date,") and (first_line.rstrip().endswith(b",ot") or b",price," in first_line.replace(b" ", b""))


FORMAT = Format(
    name="epf",
    shape="series",
    description="A market of the open day-ahead price benchmark: date, two day-ahead forecasts, and the price as OT.",
    read=read,
    looks_like=_looks_like,
    settings={"currency": "the price's currency; EUR unless given"},
)
