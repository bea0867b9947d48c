"""Machinery of the readers of delimited text: parsing blocks of lines, naming faults.

A text layout of a published format is a `Layout` in the format's own module; nothing here knows any format. Files are opened
in `archives`, cut into lines in `lines`; the SQL that judges text is made in `text_sql`.

How it is fast and still names every line: a file is cut into blocks of whole lines. A block that parses at once with the
layout's types takes the quick way (Arrow). Any other block is parsed to text and judged line by line in SQL, and a block
whose lines do not all have the same number of fields, or hold quotes, goes through Python's CSV reader. Line numbers are
counted newlines, so that they are right on every way.
"""

from __future__ import annotations

import codecs
import csv
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv

from lakehouse.errors import SourceError
from lakehouse.sources.archives import Member, members
from lakehouse.sources.base import LandedFile, ReadOptions
from lakehouse.sources.lines import (
    LONGEST_LINE_BYTES,
    SMALL_BLOCK_BYTES,
    Block,
    blocks,
    has_empty_lines,
    newlines,
    numbered,
    small_blocks,
    told,
)
from lakehouse.sources.local_clock import LocalClock

DELIMITERS = (",", ";", "\t", "|")
UNIT_IN_KWH = {"Wh": 0.001, "kWh": 1.0, "MWh": 1000.0}


@dataclass(frozen=True)
class Layout:
    """A layout of delimited text with one header line.

    Args:
        description: what is expected, for the error when a file is something else.
        columns: logical name to the headers that may stand for it (compared in lower case, trimmed).
        optional: logical names that may be absent; they read as NULL.
        sql: SELECT over the relation `lines` (every logical column as VARCHAR, trimmed, `line`), giving `line`, the columns
            of the raw shape that the layout fills, and `fault`. A column `local_start TIMESTAMP` in place of
            `interval_start` is taken through the feed's time zone.
        quick: turns a block that parsed with `quick_types` into the same columns, or None if the block needs a look.
        quick_types: logical name to Arrow type, for the quick way.
    """

    description: str
    columns: Mapping[str, tuple[str, ...]]
    sql: str
    optional: frozenset[str] = frozenset()
    quick: Callable[[pa.Table], pa.Table | None] | None = None
    quick_types: Mapping[str, pa.DataType] = field(default_factory=dict)


def read_layout(
    file: LandedFile, options: ReadOptions, layout: Layout, *, time_zone: str | None = None, end_minutes: int = 0
) -> Iterator[pa.Table]:
    """Reads delimited text of a layout to rows of its raw shape, streaming.

    Args:
        file: the landed file.
        options: `delimiter` and `encoding` are taken from its settings.
        layout: the layout.
        time_zone: IANA zone of `local_start`, where the layout's SQL gives local stamps.
        end_minutes: minutes to take off local stamps that name an interval's end, after they became UTC.

    Raises:
        SourceError: not such a text.
    """
    local = LocalClock(time_zone, end_minutes) if time_zone else None
    with ExitStack() as stack:

        @cache
        def connect() -> duckdb.DuckDBPyConnection:
            # Only blocks that need a look open a connection; most files never do.
            connection = stack.enter_context(duckdb.connect())
            connection.execute("SET TimeZone = 'UTC'; SET threads = 2; SET enable_progress_bar = false")
            return connection

        for member in members(file):
            reader = _MemberReader(file, member, options, layout, connect, local)
            yield from reader.tables()


class _MemberReader:
    def __init__(
        self,
        file: LandedFile,
        member: Member,
        options: ReadOptions,
        layout: Layout,
        connect: Callable[[], duckdb.DuckDBPyConnection],
        local: LocalClock | None,
    ) -> None:
        self.file, self.member, self.options, self.layout = file, member, options, layout
        self.connect, self.local = connect, local
        self.delimiter = ","
        self.headers: list[str] = []
        self.positions: dict[str, int | None] = {}

    def tables(self) -> Iterator[pa.Table]:
        seen = False
        for block in blocks(self.member, self.options.settings.get("encoding")):
            if not self.headers:
                seen = seen or bool(block.data.strip())
                rest = self._take_header(block)
                if rest is None:
                    continue
                block = rest
            for one in self._read(block):
                if one.num_rows:
                    yield one
        if not self.headers and not seen:
            raise SourceError(f"{self.member.name}: expected {self.layout.description}, found an empty file.")

    def _take_header(self, block: Block) -> Block | None:
        lines = block.lines()
        for n, one in enumerate(lines):
            if not one.strip():
                continue
            self.delimiter, self.headers = header_of(told(one), self.layout, self.options.settings.get("delimiter"))
            missing = [c for c in self.layout.columns if c not in self.layout.optional and self._position(c) is None]
            if missing:
                raise SourceError(
                    f"{self.member.name}, line {block.first_line + n}: expected {self.layout.description} with the columns "
                    f"{', '.join(self.layout.columns)}, found '{told(one)[:200]}' (no {', '.join(missing)}).",
                    "Mend the file or the feed's format in gridlake.yaml.",
                )
            self.positions = {c: self._position(c) for c in self.layout.columns}
            kept = block.data.split(b"\n", n + 1)
            return Block(block.first_line + n + 1, kept[n + 1] if len(kept) > n + 1 else b"", block.overlong)
        return None

    def _position(self, column: str) -> int | None:
        for alias in self.layout.columns[column]:
            if alias in self.headers:
                return self.headers.index(alias)
        return None

    def _read(self, block: Block) -> Iterator[pa.Table]:
        if not block.data:
            return
        if self.layout.quick and not block.overlong:
            table = self._quickly(block)
            if table is not None:
                yield self._complete(table, block)
                return
            if len(block.data) > 2 * SMALL_BLOCK_BYTES:
                # One bad line makes a block slow: only the small block around it should be.
                pieces = list(small_blocks(block))
                if len(pieces) > 1:
                    for small in pieces:
                        yield from self._read(small)
                    return
        text = self._as_text(block)
        connection = self.connect()
        connection.register("lines", text)
        table = connection.sql(self.layout.sql).to_arrow_table()
        connection.unregister("lines")
        yield self._complete(table, block)

    def _parsed(self, block: Block, types: Mapping[str, pa.DataType]) -> pa.Table | None:
        data = block.data
        lines = newlines(data) + (not data.endswith(b"\n"))
        if has_empty_lines(data):
            return None  # Empty lines are no rows.
        if b'"' in data or b"\x00" in data or (b"\r" in data and data.count(b"\r") != data.count(b"\r\n")):
            return None
        names = [f"c{n}" for n in range(len(self.headers))]
        wanted = {f"c{p}": types.get(c, pa.string()) for c, p in self.positions.items() if p is not None}
        try:
            table = pacsv.read_csv(
                pa.BufferReader(data),
                pacsv.ReadOptions(column_names=names, use_threads=True, block_size=1 << 20),
                pacsv.ParseOptions(delimiter=self.delimiter, quote_char=False, ignore_empty_lines=False),
                pacsv.ConvertOptions(column_types=wanted, include_columns=list(wanted), null_values=[], strings_can_be_null=False),
            )
        except (pa.ArrowInvalid, pa.ArrowKeyError):
            return None
        if table.num_rows != lines:
            return None
        by_name = {c: f"c{p}" for c, p in self.positions.items() if p is not None}
        table = pa.table({c: table[n] for c, n in by_name.items()})
        return table.append_column("line", numbered(block.first_line, lines))

    def _quickly(self, block: Block) -> pa.Table | None:
        if self.layout.quick is None:
            return None
        table = self._parsed(block, self.layout.quick_types)
        return None if table is None else self.layout.quick(table)

    def _as_text(self, block: Block) -> pa.Table:
        table = self._parsed(block, {}) if not block.overlong else None
        if table is None:
            return self._patiently(block)
        absent = [c for c, p in self.positions.items() if p is None]
        columns = {c: pc.utf8_trim_whitespace(table[c]) for c in self.layout.columns if c not in absent}
        columns |= {c: pa.nulls(table.num_rows, pa.string()) for c in absent}
        return pa.table(columns | {"line": table["line"], "fault": pa.nulls(table.num_rows, pa.string())})

    def _patiently(self, block: Block) -> pa.Table:
        expected = len(self.headers)
        columns: dict[str, list[str | None]] = {c: [] for c in self.layout.columns}
        numbers: list[int] = []
        faults: list[str | None] = []
        for n, raw in enumerate(block.lines(), start=block.first_line):
            values: list[str] = []
            fault = None
            if n in block.overlong:
                fault = f"expected a line of at most {LONGEST_LINE_BYTES:,} bytes, found a longer one"
            elif not raw.strip():
                continue
            else:
                values, fault = fields_of(raw, self.delimiter)
                if fault is None and len(values) != expected:
                    fault = f"expected {expected} fields, found {len(values)}"
            numbers.append(n)
            faults.append(fault)
            for c, p in self.positions.items():
                columns[c].append(values[p].strip() if fault is None and p is not None else None)
        arrays = {c: pa.array(v, pa.string()) for c, v in columns.items()}
        return pa.table(arrays | {"line": pa.array(numbers, pa.int64()), "fault": pa.array(faults, pa.string())})

    def _complete(self, table: pa.Table, block: Block) -> pa.Table:
        if self.local is not None and "local_start" in table.column_names:
            table = self.local.resolve(table)
        return complete(table, self.file, self.member.name, block)


def header_of(line: str, layout: Layout, delimiter: str | None = None) -> tuple[str, list[str]]:
    """The delimiter and the header's names (lower case, trimmed): the delimiter that finds most of the layout's columns."""
    aliases = {a for names in layout.columns.values() for a in names}
    tried = []
    for one in [delimiter] if delimiter else DELIMITERS:
        values, _ = fields_of(line.encode(), one)
        names = [v.strip().lower() for v in values]
        tried.append((sum(n in aliases for n in names), one, names))
    best = max(tried, key=lambda t: t[0])
    return best[1], best[2]


def fields_of(raw: bytes, delimiter: str) -> tuple[list[str], str | None]:
    """The fields of one line, and what is wrong with it as a line (not UTF-8, NUL bytes, an open quote), or None."""
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        return [], f"expected UTF-8 text, found the byte 0x{raw[error.start]:02x} at character {error.start + 1}"
    if "\x00" in text:
        return [], f"expected text, found a NUL byte at character {text.index(chr(0)) + 1}"
    if '"' not in text and "\r" not in text:
        return text.split(delimiter), None
    try:
        rows = list(csv.reader([text], delimiter=delimiter, strict=True))
    except csv.Error as error:
        return [], f"expected fields with closed quotes, found a line that breaks them ({error})"
    return (rows[0] if rows else []), None


def looks_like_layout(layout: Layout) -> Callable[[bytes, str], bool]:
    """A test of a file's first bytes: whether its header has the layout's required columns."""

    def test(head: bytes, name: str) -> bool:
        text = head.decode("utf-16" if head[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) else "utf-8-sig", errors="replace")
        first = next((one for one in text.splitlines() if one.strip()), "")
        _, names = header_of(first, layout)
        return all(any(a in names for a in aliases) for c, aliases in layout.columns.items() if c not in layout.optional)

    return test


READING_COLUMNS: dict[str, pa.DataType] = {
    "meter_id": pa.string(),
    "register": pa.string(),
    "interval_start": pa.timestamp("us", tz="UTC"),
    "interval_minutes": pa.int32(),
    "energy_kwh": pa.float64(),
    "quality": pa.string(),
}


def complete(table: pa.Table, file: LandedFile, name: str, block: Block | None = None) -> pa.Table:
    """Adds what every raw row carries: file, delivery, UTC day, and the text of the lines that could not be read."""
    rows = table.num_rows
    if "fault" not in table.column_names:
        table = table.append_column("fault", pa.nulls(rows, pa.string()))
    faulty = pc.is_valid(table["fault"])
    raw: pa.Array = pa.nulls(rows, pa.string())
    if block is not None and pc.any(faulty).as_py():
        lines = block.lines()
        numbers, flags = table["line"].to_pylist(), faulty.to_pylist()
        texts = [
            told(block.overlong.get(n) or lines[n - block.first_line]) if flag else None for n, flag in zip(numbers, flags, strict=True)
        ]
        raw = pa.array(texts, pa.string())
    out = {
        "file": pa.repeat(pa.scalar(name, pa.string()), rows),
        "line": table["line"],
        "delivery_date": pa.repeat(pa.scalar(file.delivery_date, pa.date32()), rows),
    }
    if "interval_start" in table.column_names:
        out["date"] = pc.cast(table["interval_start"].cast(pa.timestamp("us", tz="UTC")), pa.date32())
    else:
        out["date"] = pa.nulls(rows, pa.date32())
    out |= {"fault": table["fault"], "raw_text": table["raw_text"] if "raw_text" in table.column_names else raw}
    for column in table.column_names:
        if column not in out:
            out[column] = table[column]
    return pa.table(out)


def setting(options: ReadOptions, name: str, default: Any, allowed: Sequence[Any] | None = None) -> Any:
    """One of the feed's options.

    Raises:
        SourceError: a value that is not allowed.
    """
    value = options.settings.get(name, default)
    if allowed is not None and value not in allowed:
        raise SourceError(
            f"The feed's options.{name}: expected one of {', '.join(map(repr, allowed))}, found {value!r}.", "Mend gridlake.yaml."
        )
    return value
