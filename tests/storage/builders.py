"""A small table to write to, and rows for it."""

from datetime import UTC, date, datetime, timedelta

import pyarrow as pa

from lakehouse.contracts.base import Column, Date, Float64, Instant, Table, Text, column


class Loads(Table):
    """Load of a zone, for tests."""

    name = "cleaned/loads"
    key = ("series_id", "interval_start")
    partitioned_by = ("date",)

    series_id: Text = column("The zone.")
    interval_start: Instant = column("Start of the interval.", unit="UTC")
    load_mw: Float64 = column("Mean load; it's never below zero.", unit="MW", ge=0)
    date: Date = column("UTC day of the interval.")


GrownLoads = Loads.derive(
    Loads.name, extra=[Column("Mean temperature.", unit="°C", nullable=True, name="temperature_c", type=pa.float64())]
)


def day(number: int) -> date:
    return date(2026, 3, number)


def loads(number: int, *values: float, series: str = "north", **more: list[float]) -> pa.Table:
    start = datetime(2026, 3, number, tzinfo=UTC)
    columns = {
        "series_id": [series] * len(values),
        "interval_start": [start + timedelta(hours=h) for h in range(len(values))],
        "load_mw": [float(v) for v in values],
        "date": [day(number)] * len(values),
    }
    contract = GrownLoads if more else Loads
    return pa.table(columns | more, schema=pa.schema([f.with_nullable(True) for f in contract.arrow_schema()]))
