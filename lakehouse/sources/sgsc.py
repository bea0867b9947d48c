"""Half-hourly readings of the Smart Grid, Smart City trial (New South Wales): one column a register.

The clock is Sydney's standard time, UTC+10, all year: its days have 48 half-hours on both days on which the clocks change.
"""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa

from lakehouse.sources.base import Format, LandedFile, ReadOptions
from lakehouse.sources.delimited import Layout, looks_like_layout, read_layout, setting
from lakehouse.sources.wide import columns_to_readings_sql

COLUMNS = {
    "meter": ("customer_id",),
    "stamp_text": ("reading_datetime",),
    "general": ("general_supply_kwh",),
    "controlled": ("controlled_load_kwh", "off_peak_kwh"),
    "gross": ("gross_generation_kwh",),
    "net": ("net_generation_kwh",),
}
OPTIONAL = frozenset({"controlled", "gross", "net"})
REGISTERS = {"general": "import", "controlled": "import_controlled", "gross": "export", "net": "export_net_of_use"}
LAYOUT = Layout("Smart Grid, Smart City half-hourly readings", COLUMNS, columns_to_readings_sql(REGISTERS, minutes=30), OPTIONAL)


def read(file: LandedFile, options: ReadOptions) -> Iterator[pa.Table]:
    """Reads one file: a reading for each register column that has a value."""
    ends = 30 if setting(options, "stamps", "start", ("start", "end")) == "end" else 0
    yield from read_layout(file, options, LAYOUT, time_zone=setting(options, "time_zone", "Etc/GMT-10"), end_minutes=ends)


FORMAT = Format(
    name="sgsc",
    shape="readings",
    description="Smart Grid, Smart City half-hourly readings.",
    read=read,
    looks_like=looks_like_layout(LAYOUT),
    settings={
        "time_zone": "IANA zone of the stamps; by default UTC+10.",
        "stamps": "'start' (default) or 'end': which edge of the half-hour the stamp names.",
    },
)
