"""Green Button: usage data as ESPI XML in an Atom feed (NAESB REQ.21).

Starts are seconds since 1970 in UTC, whatever the file's LocalTimeParameters say of the customer's clock. Values are integers
in the unit of their ReadingType, times a power of ten. XML is read as a stream; a document type, and with it every entity and
everything external, is refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from xml.parsers import expat

import pyarrow as pa

from lakehouse.errors import SourceError
from lakehouse.sources.archives import Member, members
from lakehouse.sources.base import Format, LandedFile, ReadOptions
from lakehouse.sources.reading_rows import ReadingRows

PIECE_BYTES = 1 << 20
DEEPEST = 64
LONGEST_TEXT = 100_000

WATT_HOURS = "72"
REGISTERS = {"1": "import", "19": "export", "4": "net", "20": "total"}
# QualityOfReading: what the words of our quality ranks are for them; others keep their number.
QUALITIES = {"0": "valid", "17": "valid", "18": "valid", "19": "valid", "7": "final", "8": "estimated", "9": "estimated", "12": "estimated"}
INTERVAL_DATA = ("", "0", "4")  # accumulationBehaviour: not said, none, delta


@dataclass
class _Type:
    flow: str = "1"
    unit: str = WATT_HOURS
    power_of_ten: int = 0
    behaviour: str = ""
    seconds: str = ""


@dataclass
class _Reading:
    line: int
    block: str
    start: str = ""
    duration: str = ""
    value: str = ""
    quality: str | None = None


@dataclass
class _Feed:
    types: dict[str, _Type] = field(default_factory=dict)
    type_of: dict[str, str] = field(default_factory=dict)
    points: list[str] = field(default_factory=list)
    readings: list[_Reading] = field(default_factory=list)


def read(file: LandedFile, options: ReadOptions) -> Iterator[pa.Table]:
    """Reads Green Button XML: one reading an IntervalReading, at its line."""
    for member in members(file):
        feed = _Parser(member).parse()
        if not feed.readings:
            raise SourceError(f"{member.name}: expected interval readings, found none.", "Ask the sender for usage data.")
        rows = ReadingRows(file, member.name)
        for one in feed.readings:
            _add(rows, feed, one)
            if rows.is_full():
                yield rows.table()
        if len(rows):
            yield rows.table()


def _add(rows: ReadingRows, feed: _Feed, one: _Reading) -> None:
    meter = _usage_point(one.block) or (feed.points[0] if len(feed.points) == 1 else None)
    kind = _type_of(feed, one.block)
    text = f"start {one.start}, duration {one.duration}, value {one.value}"
    fault = None
    if kind is None:
        fault = "expected a ReadingType for the reading's block, found none"
    elif kind.unit != WATT_HOURS:
        fault = f"expected energy in Wh (uom 72), found uom {kind.unit}"
    elif kind.behaviour not in INTERVAL_DATA:
        fault = f"expected interval data (accumulationBehaviour 4), found {kind.behaviour}"
    elif meter is None:
        fault = "expected the usage point in the block's link, found none"
    elif not re.fullmatch(r"-?\d{1,12}", one.start):
        fault = f"expected the start in seconds since 1970, found '{one.start[:20]}'"
    elif not re.fullmatch(r"[+-]?\d{1,18}", one.value):
        fault = f"expected a whole number as value, found '{one.value[:20]}'"
    seconds = one.duration or (kind.seconds if kind else "")
    if fault is None and (not seconds.isdecimal() or int(seconds) % 60 or not 0 < int(seconds) <= 86400 * 366):
        fault = f"expected a duration of whole minutes, found '{seconds[:20]}' seconds"
    start_us = int(one.start) * 1_000_000 if re.fullmatch(r"-?\d{1,11}", one.start) else None
    register = REGISTERS.get(kind.flow, f"flow_{kind.flow}") if kind else None
    if fault or kind is None or meter is None or start_us is None or register is None:
        rows.fault(
            one.line, fault or "expected a start within reason, found another", text, meter=meter, register=register, start_us=start_us
        )
        return
    value, power = int(one.value), kind.power_of_ten - 3  # Wh to kWh
    energy = value * 10**power if power >= 0 else value / 10**-power
    rows.reading(one.line, meter, register, start_us, int(seconds) // 60, float(energy), one.quality)


def _usage_point(href: str) -> str | None:
    found = re.search(r"(?:RetailCustomer/([^/]+)/)?UsagePoint/([^/]+)", href)
    return "/".join(part for part in found.groups() if part) if found else None


def _type_of(feed: _Feed, block: str) -> _Type | None:
    reading = block.split("/IntervalBlock")[0]
    named = feed.types.get(feed.type_of.get(reading, ""))
    return named or (next(iter(feed.types.values())) if len(feed.types) == 1 else None)


class _Parser:
    def __init__(self, member: Member) -> None:
        self.member = member
        self.feed = _Feed()
        self.stack: list[str] = []
        self.text: list[str] = []
        self.length = 0
        self.links: dict[str, list[str]] = {}
        self.pending: list[_Reading] = []
        self.reading: _Reading | None = None
        self.type: _Type | None = None
        self.contents: set[str] = set()
        self.parser = expat.ParserCreate(namespace_separator=" ")
        self.parser.buffer_text = True
        self.parser.StartElementHandler = self._start
        self.parser.EndElementHandler = self._end
        self.parser.CharacterDataHandler = self._characters
        self.parser.StartDoctypeDeclHandler = self._doctype

    def parse(self) -> _Feed:
        try:
            while piece := self.member.stream.read(PIECE_BYTES):
                self.parser.Parse(piece, False)
            self.parser.Parse(b"", True)
        except expat.ExpatError as error:
            raise SourceError(
                f"{self.member.name}, line {error.lineno}: expected well-formed XML, found: {expat.errors.messages[error.code]}.",
                "Ask for it again.",
            ) from None
        return self.feed

    def _doctype(self, *_: object) -> None:
        raise SourceError(f"{self.member.name}: expected plain XML, found a document type, which could hold anything.")

    def _characters(self, data: str) -> None:
        self.length += len(data)
        if self.length <= LONGEST_TEXT:
            self.text.append(data)

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        name = name.rsplit(" ", 1)[-1]
        self.stack.append(name)
        if len(self.stack) > DEEPEST:
            raise SourceError(f"{self.member.name}: expected a usage feed, found XML nested deeper than {DEEPEST}.")
        self.text, self.length = [], 0
        if name == "entry":
            self.links, self.pending, self.contents, self.type = {}, [], set(), None
        elif name == "link":
            self.links.setdefault(attributes.get("rel", ""), []).append(attributes.get("href", "").rstrip("/"))
        elif name == "ReadingType":
            self.type = _Type()
            self.contents.add(name)
        elif name in ("UsagePoint", "MeterReading", "IntervalBlock"):
            self.contents.add(name)
        elif name == "IntervalReading":
            self.reading = _Reading(self.parser.CurrentLineNumber, "")

    def _end(self, name: str) -> None:
        name = name.rsplit(" ", 1)[-1]
        value = "".join(self.text).strip()
        self.text, self.length = [], 0
        self.stack.pop()
        within = self.stack[-1] if self.stack else ""
        if self.reading is not None:
            self._end_in_reading(name, within, value)
        elif self.type is not None and within == "ReadingType":
            self._end_in_type(name, value)
        elif name == "entry":
            self._end_entry()

    def _end_in_reading(self, name: str, within: str, value: str) -> None:
        reading = self.reading
        assert reading is not None
        if name == "IntervalReading":
            self.pending.append(reading)
            self.reading = None
        elif within == "timePeriod" and name == "start":
            reading.start = value
        elif within == "timePeriod" and name == "duration":
            reading.duration = value
        elif within == "IntervalReading" and name == "value":
            reading.value = value
        elif within == "ReadingQuality" and name == "quality":
            reading.quality = QUALITIES.get(value, value or None)

    def _end_in_type(self, name: str, value: str) -> None:
        kind = self.type
        assert kind is not None
        if name == "flowDirection":
            kind.flow = value
        elif name == "uom":
            kind.unit = value
        elif name == "accumulationBehaviour":
            kind.behaviour = value
        elif name == "intervalLength":
            kind.seconds = value
        elif name == "powerOfTenMultiplier" and re.fullmatch(r"-?\d{1,2}", value):
            kind.power_of_ten = int(value)

    def _end_entry(self) -> None:
        own = next(iter(self.links.get("self", [])), "")
        if self.type is not None:
            self.feed.types[own] = self.type
        if "MeterReading" in self.contents:
            self.feed.type_of[own] = next((h for h in self.links.get("related", []) if "ReadingType" in h), "")
        if "UsagePoint" in self.contents:
            self.feed.points.append(_usage_point(own) or own)
        for reading in self.pending:
            reading.block = own
        self.feed.readings += self.pending


def looks_like(head: bytes, name: str) -> bool:
    """XML that names ESPI."""
    return head.lstrip(b"\xef\xbb\xbf \r\n\t").startswith(b"<") and (b"naesb.org/espi" in head or b"GreenButton" in head)


FORMAT = Format(
    name="greenbutton",
    shape="readings",
    description="Green Button usage data (ESPI XML).",
    read=read,
    looks_like=looks_like,
)
