"""Half-hourly readings of one Ausgrid solar home: general consumption, controlled load and gross generation side by side.

The meter is named by the file (`customer12_2011-2012.csv`). The clock is Sydney's; the hour that it skips in spring is filled
with zeros by the sender, which are faulty lines.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import pyarrow as pa

from lakehouse.sources.base import Format, LandedFile, ReadOptions
from lakehouse.sources.delimited import Layout, looks_like_layout, read_layout, setting
from lakehouse.sources.wide import columns_to_readings_sql

COLUMNS = {"stamp_text": ("", "datetime"), "general": ("gc",), "controlled": ("cl",), "gross": ("gg",)}
OPTIONAL = frozenset({"controlled", "gross"})
REGISTERS = {"general": "import", "controlled": "import_controlled", "gross": "export"}


def read(file: LandedFile, options: ReadOptions) -> Iterator[pa.Table]:
    """Reads one home's file."""
    meter = setting(options, "meter", None) or re.split(r"[_.]", file.name)[0]
    sql = columns_to_readings_sql(REGISTERS, minutes=30, meter="'" + str(meter).replace("'", "''") + "'")
    layout = Layout("half-hourly readings of a solar home (GC, GG)", COLUMNS, sql, OPTIONAL)
    yield from read_layout(file, options, layout, time_zone=setting(options, "time_zone", "Australia/Sydney"))


FORMAT = Format(
    name="ausgrid",
    shape="readings",
    description="Ausgrid solar home, half-hourly.",
    read=read,
    looks_like=looks_like_layout(Layout("", COLUMNS, "", OPTIONAL)),
    settings={
        "time_zone": "IANA zone of the stamps; by default Australia/Sydney.",
        "meter": "Name of the meter; by default the file's name up to the first '_' or '.'.",
    },
)
