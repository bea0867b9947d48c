"""NEM13, the Australian market's accumulation meter data: one 250 record is what passed between two register reads.

The quantity is kept as the sender states it, with the span between the reads as its length; where the difference of the reads
(times no multiplier) says otherwise by a roll-over of the dial, the quantity is right. Intervals of weeks are no interval
readings: VEE refuses them by their length, and `register_reads` is for what shall become intervals.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

import pyarrow as pa

from lakehouse.errors import SourceError
from lakehouse.sources.archives import members
from lakehouse.sources.base import Format, LandedFile, ReadOptions
from lakehouse.sources.nem12 import ENERGY_UNITS_KWH, NUMBER, SETTINGS, market_clock, records, register_of
from lakehouse.sources.reading_rows import ReadingRows

FIELDS = 21


def read(file: LandedFile, options: ReadOptions) -> Iterator[pa.Table]:
    """Reads NEM13: one reading a 250 record."""
    clock = market_clock(options)
    for member in members(file):
        rows = ReadingRows(file, member.name)
        reads, last_line, is_ended = 0, 0, False
        for line, values, text in records(member, "NEM13"):
            kind, last_line = (values[0] if values else ""), line
            if kind == "250":
                reads += 1
                _read_250(rows, line, values, text, clock)
            elif kind == "900":
                is_ended = True
            elif kind not in ("100", "550"):
                rows.fault(line, f"expected a record 100, 250, 550 or 900, found '{kind[:20]}'", text)
        if not reads:
            raise SourceError(f"{member.name}: expected accumulation reads (250 records), found none.", "Ask the sender for a whole file.")
        if not is_ended:
            rows.fault(last_line, "expected the record 900 at the file's end, found none: the file may be cut off", "")
        yield rows.table()


def _read_250(rows: ReadingRows, line: int, values: list[str], text: str, clock: object) -> None:
    values = values + [""] * (FIELDS - len(values))
    meter, suffix, direction = values[1], values[4], values[7].upper()
    register = register_of(suffix) if suffix[:1].isalpha() else {"E": "import", "I": "export"}.get(direction, direction.lower())
    if suffix[:1].isdigit():
        register = f"{register}_{suffix}"
    previous, current = _moment(values[9], clock), _moment(values[14], clock)
    quantity, unit = values[18], values[19].lower()
    fault = None
    if not meter:
        fault = "expected the NMI in the 250 record, found none"
    elif previous is None or current is None:
        fault = f"expected the moments of both reads as YYYYMMDDhhmmss, found '{values[9][:20]}' and '{values[14][:20]}'"
    elif current <= previous:
        fault = f"expected the current read after the previous one, found {values[14]} after {values[9]}"
    elif unit not in ENERGY_UNITS_KWH:
        fault = f"expected energy in Wh, kWh or MWh, found '{values[19][:20]}'"
    elif not NUMBER.match(quantity):
        fault = f"expected the quantity as a number, found '{quantity[:20]}'"
    if fault or previous is None or current is None:
        rows.fault(line, fault or "", text, meter=meter or None, register=register, start_us=previous)
        return
    minutes = round((current - previous) / 60_000_000)
    energy = float(quantity) * ENERGY_UNITS_KWH[unit]
    # What flows into the grid is written with a minus; our export register counts up.
    energy = -energy if direction == "I" and energy < 0 else energy
    rows.reading(line, meter, register, previous, minutes, energy, values[15] or None)


def _moment(written: str, clock: object) -> int | None:
    try:
        moment = datetime.strptime(written, "%Y%m%d%H%M%S" if len(written) == 14 else "%Y%m%d")
    except ValueError:
        return None
    return int(moment.replace(tzinfo=clock).timestamp()) * 1_000_000  # type: ignore[arg-type]


def looks_like(head: bytes, name: str) -> bool:
    """Opens with 100,NEM13."""
    return head.lstrip()[:9].upper() == b"100,NEM13"


FORMAT = Format(
    name="nem13",
    shape="readings",
    description="NEM13 accumulation meter data (AEMO).",
    read=read,
    looks_like=looks_like,
    settings=SETTINGS,
)
