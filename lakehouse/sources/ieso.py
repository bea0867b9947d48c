"""Ontario's hourly tables (`date, hour, …`): demand, production by fuel, price and temperature; Eastern Standard Time all year."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa

from lakehouse.errors import SourceError
from lakehouse.sources.base import Format, LandedFile, ReadOptions
from lakehouse.sources.sheets import Measure, connection, series_rows, stamp_lines, unread_columns, whole_sheets

MARKET_TIME = "Etc/GMT+5"  # POSIX sign: five hours behind UTC
CLOCK = (
    "CASE WHEN TRY_CAST(cells[2] AS INTEGER) BETWEEN 1 AND 24 THEN"
    " coalesce(try_strptime(cells[$time], '%d/%m/%Y'), try_strptime(cells[$time], '%Y-%m-%d'))"
    " + to_hours(TRY_CAST(cells[2] AS INTEGER)) END"
)
QUANTITIES: dict[str, tuple[str, str, float]] = {
    "OntDemand": ("ontario", "load_mw", 1.0),
    "HOEP": ("hoep", "price_cad_per_mwh", 1000.0),  # published table in CAD/kWh
    "Temperature": ("ontario", "temperature_c", 1.0),
    **{fuel: (fuel.lower(), "generation_mw", 1.0) for fuel in ("NUCLEAR", "GAS", "HYDRO", "WIND", "SOLAR", "BIOFUEL")},
}
NOT_READ = ("TOU",)


def read(file: LandedFile, options: ReadOptions) -> Iterator[pa.Table]:
    """Reads one table; hours count from 1 to 24 and are named by their end."""
    for sheet in whole_sheets(file):
        if sheet.header[:2] != ("date", "hour"):
            raise SourceError(
                f"{sheet.name}, line 1: expected 'date,hour', found {', '.join(sheet.header[:2])}.", "Check the feed's format."
            )
        measures = [
            Measure(n, s, q, scale=f) for n, name in enumerate(sheet.header, 1) if name in QUANTITIES for s, q, f in [QUANTITIES[name]]
        ]
        unread = [name for name in sheet.header[2:] if name not in QUANTITIES and name not in NOT_READ]
        if unread:
            yield unread_columns(unread, sheet, file)
        engine = connection()
        expected = "a day and an hour from 1 to 24 such as 01/01/2016,1"
        stamped = stamp_lines(
            engine, sheet, CLOCK, zone=MARKET_TIME, expected=expected, places={"time": 1}, minutes=60, is_interval_end=True
        )
        yield from series_rows(engine, stamped, measures, sheet, file)


FORMAT = Format(
    name="ieso",
    shape="series",
    description="Ontario's hourly tables: date, hour (1 to 24, ending, standard time), then demand, production, price or temperature.",
    read=read,
    looks_like=lambda head, name: head.startswith(b"date,hour,"),
)
