"""Daily delivery files of half-hourly readings as Octopus Energy published them: stamps in UTC, kWh per half hour.

Header: meter_identifier, interval_start, interval_end, kWh_per_half_hour. The name tells the delivery: `2017-11-05 236
Customers.csv.gz`. Some files open with a row of zeros, which is a faulty line.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from lakehouse.sources.base import Format, LandedFile, ReadOptions
from lakehouse.sources.delimited import Layout, looks_like_layout, read_layout
from lakehouse.sources.text_sql import number_sql, readings_sql, shown_sql, utc_stamp_sql

COLUMNS = {
    "meter": ("meter_identifier",),
    "start_text": ("interval_start",),
    "end_text": ("interval_end",),
    "energy": ("kwh_per_half_hour",),
}
STAMP = pa.timestamp("us", tz="UTC")
HALF_HOUR_US = 30 * 60_000_000

ENDS = utc_stamp_sql("end_text")
SQL = readings_sql(
    meter="meter",
    start=utc_stamp_sql("start_text"),
    minutes="30",
    energy=number_sql("energy"),
    faults=[
        (
            f"stamp IS NOT NULL AND ({ENDS}) IS DISTINCT FROM stamp + INTERVAL 30 MINUTE",
            f"'expected the end 30 minutes after the start, found ' || {shown_sql('end_text')}",
        )
    ],
    stamp_text="start_text",
    energy_text="energy",
)


def _quick(table: pa.Table) -> pa.Table | None:
    lengths = pc.subtract(table["end_text"], table["start_text"])
    whole = pc.all(pc.equal(lengths, pa.scalar(HALF_HOUR_US, pa.duration("us")))).as_py()
    if not whole or not pc.all(pc.is_finite(table["energy"])).as_py() or pc.any(pc.equal(table["meter"], "")).as_py():
        return None
    rows = table.num_rows
    return pa.table(
        {
            "line": table["line"],
            "meter_id": pc.utf8_trim_whitespace(table["meter"]),
            "register": pa.repeat(pa.scalar("import"), rows),
            "interval_start": table["start_text"],
            "interval_minutes": pa.repeat(pa.scalar(30, pa.int32()), rows),
            "energy_kwh": table["energy"],
            "quality": pa.nulls(rows, pa.string()),
        }
    )


LAYOUT = Layout(
    "half-hourly readings with the header meter_identifier, interval_start, interval_end, kWh_per_half_hour",
    COLUMNS,
    SQL,
    quick=_quick,
    quick_types={"start_text": STAMP, "end_text": STAMP, "energy": pa.float64()},
)


def read(file: LandedFile, options: ReadOptions) -> Iterator[pa.Table]:
    """Reads one daily delivery file."""
    yield from read_layout(file, options, LAYOUT)


def delivered_on(path: Path) -> date | None:
    """The day that opens the file's name."""
    named = re.match(r"(\d{4})-(\d{2})-(\d{2})\b", path.name)
    try:
        return date(*(int(part) for part in named.groups())) if named else None
    except ValueError:
        return None


FORMAT = Format(
    name="octopus",
    shape="readings",
    description="Octopus Energy's daily files of half-hourly readings.",
    read=read,
    looks_like=looks_like_layout(LAYOUT),
    delivered_on=delivered_on,
    settings={"delimiter": "Field delimiter; by default found from the header.", "encoding": "Text encoding; by default UTF-8."},
)
