"""NEM12, the Australian market's interval meter data (AEMO, Meter Data File Format Specification NEM12 & NEM13).

Records: 100 header, 200 a meter's data stream, 300 one day of it, 400 quality of ranges of a day's intervals, 500 manual
read, 900 end. Stamps are in market time, UTC+10 without daylight saving. NEM13 has its own module.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any
from zoneinfo import ZoneInfo

import pyarrow as pa

from lakehouse.errors import SourceError
from lakehouse.sources.archives import Member, members
from lakehouse.sources.base import Format, LandedFile, ReadOptions
from lakehouse.sources.delimited import fields_of, setting
from lakehouse.sources.lines import blocks, told
from lakehouse.sources.reading_rows import ReadingRows

MARKET_TIME = timezone(timedelta(hours=10))
ENERGY_UNITS_KWH = {"wh": 0.001, "kwh": 1.0, "mwh": 1000.0}
INTERVALS = (5, 15, 30)
QUALITY = re.compile(r"^[AEFNSV]\d{0,2}$")
# Plain decimals of a length that no overflow can come from.
NUMBER = re.compile(r"^[+-]?(\d{1,20}\.?\d{0,20}|\.\d{1,20})([eE][+-]?\d{1,2})?$", re.ASCII)

SETTINGS = {"time_zone": "IANA zone of the file's clock; by default market time, UTC+10 without daylight saving."}


def register_of(suffix: str) -> str:
    """Our register for an NMI suffix: E1 is what the customer takes (import), B1 what he gives (export)."""
    named = {"E": "import", "B": "export"}.get(suffix[:1].upper())
    if named is None or not suffix[1:].isalnum():
        return suffix.lower()
    return named if suffix[1:] == "1" else f"{named}_{suffix[1:].lower()}"


def market_clock(options: ReadOptions) -> timezone | ZoneInfo:
    """The clock of the file's stamps."""
    zone = setting(options, "time_zone", None)
    return ZoneInfo(zone) if zone else MARKET_TIME


def records(member: Member, kind: str) -> Iterator[tuple[int, list[str], str]]:
    """The records of a NEM file: line, fields and text.

    Raises:
        SourceError: the file does not open with a 100 record of that kind.
    """
    is_open = False
    for block in blocks(member):
        for line, raw in enumerate(block.lines(), start=block.first_line):
            if line in block.overlong:
                yield line, [], told(block.overlong[line])
                continue
            if not raw.strip():
                continue
            values, fault = fields_of(raw, ",")
            values = [v.strip() for v in values]
            text = told(raw)
            if not is_open:
                if fault or len(values) < 2 or values[0] != "100" or values[1].upper() != kind:
                    raise SourceError(
                        f"{member.name}, line {line}: expected the header record 100,{kind}, found '{text[:80]}'.",
                        "Ask the sender for a whole file.",
                    )
                is_open = True
            yield line, [] if fault else values, text
    if not is_open:
        raise SourceError(f"{member.name}: expected a {kind} file, found an empty one.", "Ask the sender for a whole file.")


@dataclass
class _Stream:
    meter: str
    register: str
    unit: str
    minutes: int
    fault: str | None


@dataclass
class _Day:
    line: int
    text: str
    stream: _Stream
    start_us: int
    values: list[float]
    quality: str
    ranges: list[tuple[int, int, str]]


def read(file: LandedFile, options: ReadOptions) -> Iterator[pa.Table]:
    """Reads NEM12: each interval of each 300 record is a reading at the record's line."""
    clock = market_clock(options)
    for member in members(file):
        rows = ReadingRows(file, member.name)
        reader = _Reader(rows, clock, member.name)
        for line, values, text in records(member, "NEM12"):
            reader.take(line, values, text)
            if rows.is_full():
                yield rows.table()
        reader.finish()
        if len(rows):
            yield rows.table()


class _Reader:
    def __init__(self, rows: ReadingRows, clock: Any, name: str) -> None:
        self.rows, self.clock, self.name = rows, clock, name
        self.stream: _Stream | None = None
        self.day: _Day | None = None
        self.days, self.last_line, self.is_ended = 0, 0, False

    def take(self, line: int, values: list[str], text: str) -> None:
        kind, self.last_line = (values[0] if values else ""), line
        if kind == "400":
            self._quality(line, values, text)
            return
        self._close()
        if kind == "200":
            self._open_stream(values)
        elif kind == "300":
            self._open_day(line, values, text)
        elif kind == "900":
            self.is_ended = True
        elif kind not in ("100", "500"):
            self.rows.fault(line, f"expected a record 100, 200, 300, 400, 500 or 900, found '{kind[:20]}'", text)

    def finish(self) -> None:
        self._close()
        if not self.days:
            raise SourceError(f"{self.name}: expected interval readings (300 records), found none.", "Ask the sender for a whole file.")
        if not self.is_ended:
            self.rows.fault(self.last_line, "expected the record 900 at the file's end, found none: the file may be cut off", "")

    def _open_stream(self, values: list[str]) -> None:
        values = values + [""] * (10 - len(values))
        meter, suffix, unit, length = values[1], values[4], values[7], values[8]
        fault = None
        if not meter:
            fault = "expected the NMI in the 200 record, found none"
        elif unit.lower() not in ENERGY_UNITS_KWH:
            fault = f"expected energy in Wh, kWh or MWh, found the register {suffix} in '{unit}'"
        elif not length.isdecimal() or int(length) not in INTERVALS:
            fault = f"expected an interval of 5, 15 or 30 minutes in the 200 record, found '{length}'"
        self.stream = _Stream(meter, register_of(suffix), unit.lower(), int(length) if length.isdecimal() else 0, fault)

    def _open_day(self, line: int, values: list[str], text: str) -> None:
        self.days += 1
        stream = self.stream
        if stream is None:
            self.rows.fault(line, "expected a 200 record before this 300 record, found none", text)
            return
        start_us = self._start_us(values[1] if len(values) > 1 else "")
        fault = stream.fault
        count = 1440 // stream.minutes if stream.minutes else 0
        readings = values[2 : 2 + count]
        after = values[2 + count] if len(values) > 2 + count else ""
        if fault is None and start_us is None:
            fault = f"expected a day as YYYYMMDD, found '{values[1][:20] if len(values) > 1 else ''}'"
        if fault is None and (len(readings) < count or not all(NUMBER.match(v) for v in readings) or not QUALITY.match(after)):
            found = next((n for n, v in enumerate(values[2:]) if QUALITY.match(v)), None)
            wrong = next((v for v in readings if not NUMBER.match(v)), None)
            if found is not None and found != count:
                fault = f"expected {count} intervals of {stream.minutes} minutes, found {found}"
            elif len(values) <= 2 + count:
                fault = f"expected {count} intervals of {stream.minutes} minutes and a quality, found {len(values)} fields"
            elif wrong is not None:
                fault = f"expected energy in {stream.unit} as a number, found '{wrong[:20]}'"
            else:
                fault = f"expected a quality (A, E, F, N, S or V) after {count} intervals, found '{after[:20]}'"
        if fault is not None:
            self.rows.fault(line, fault, text, meter=stream.meter, register=stream.register, start_us=start_us)
            return
        factor = ENERGY_UNITS_KWH[stream.unit]
        energy = [float(v) if factor == 1.0 else float(v) / 1000 if factor < 1 else float(v) * 1000 for v in readings]
        self.day = _Day(line, text, stream, start_us or 0, energy, after, [])

    def _start_us(self, written: str) -> int | None:
        try:
            day = datetime.strptime(written, "%Y%m%d") if len(written) == 8 else None
        except ValueError:
            return None
        return int(day.replace(tzinfo=self.clock).timestamp()) * 1_000_000 if day else None

    def _quality(self, line: int, values: list[str], text: str) -> None:
        if self.day is None:
            self.rows.fault(line, "expected a readable 300 record before this 400 record, found none", text)
            return
        if len(values) < 4 or not values[1].isdecimal() or not values[2].isdecimal() or not QUALITY.match(values[3]):
            self.rows.fault(line, "expected first interval, last interval and quality, found something else", text)
            return
        self.day.ranges.append((int(values[1]), int(values[2]), values[3]))

    def _close(self) -> None:
        day, self.day = self.day, None
        if day is None:
            return
        count = len(day.values)
        qualities = [day.quality] * count
        if day.quality.startswith("V"):
            covered = [n for first, last, _ in sorted(day.ranges) for n in range(first, min(last, count + 1) + 1)]
            if covered != list(range(1, count + 1)):
                found = ", ".join(f"{first} to {last}" for first, last, _ in day.ranges) or "none"
                self.rows.fault(
                    day.line,
                    f"expected 400 records that cover the intervals 1 to {count}, found {found}",
                    day.text,
                    meter=day.stream.meter,
                    register=day.stream.register,
                    start_us=day.start_us,
                )
                return
            for first, last, quality in day.ranges:
                qualities[first - 1 : last] = [quality] * (last - first + 1)
        minutes = day.stream.minutes
        # A clock without daylight saving counts evenly; with one, the day's intervals still follow each other in UTC.
        for n, (energy, quality) in enumerate(zip(day.values, qualities, strict=True)):
            start_us = day.start_us + n * minutes * 60_000_000
            if quality.startswith("N"):
                self.rows.fault(
                    day.line,
                    "expected a reading, found null data (quality N)",
                    day.text,
                    meter=day.stream.meter,
                    register=day.stream.register,
                    start_us=start_us,
                    minutes=minutes,
                )
            else:
                self.rows.reading(day.line, day.stream.meter, day.stream.register, start_us, minutes, energy, quality)


def looks_like(head: bytes, name: str) -> bool:
    """Opens with 100,NEM12."""
    return head.lstrip()[:9].upper() == b"100,NEM12"


FORMAT = Format(
    name="nem12",
    shape="readings",
    description="NEM12 interval meter data (AEMO).",
    read=read,
    looks_like=looks_like,
    settings=SETTINGS,
)
