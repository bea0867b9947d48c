"""Machinery of the readers of delimited text: opening archives safely, cutting blocks of lines, parsing, naming faults.

A text layout of a published format is a `Layout` in the format's own module; nothing here knows any format. Opening
(`members`) serves the readers of other formats as well.

How it is fast and still names every line: a file is cut into blocks of whole lines. A block that parses at once with the
layout's types takes the quick way (Arrow). Any other block is parsed to text and judged line by line in SQL, and a block
whose lines do not all have the same number of fields, or hold quotes, goes through Python's CSV reader. Line numbers are
counted newlines, so that they are right on every way.
"""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import re
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import IO, Any, BinaryIO

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv

from lakehouse.contracts.raw import RAW_TEXT_LIMIT
from lakehouse.errors import SourceError
from lakehouse.sources.base import LandedFile, ReadOptions

BLOCK_BYTES = 8 << 20
SMALL_BLOCK_BYTES = 64 << 10
LONGEST_LINE_BYTES = 1 << 20
# A deflated stream can't exceed 1032:1; readings text reaches about 40:1, and all zeros about 200:1.
LARGEST_EXPANSION = 300
EXPANSION_CHECKED_FROM_BYTES = 64 << 20
MOST_MEMBERS = 10_000

DELIMITERS = (",", ";", "\t", "|")
NUMBER = r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?"
ISO_STAMP = r"[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9]{2}:[0-9]{2}(:[0-9]{2}([.,][0-9]+)?)?"
ISO_OFFSET = r"(Z|z|[+-][0-9]{2}(:?[0-9]{2})?)"

UNIT_IN_KWH = {"Wh": 0.001, "kWh": 1.0, "MWh": 1000.0}


# --- Opening -----------------------------------------------------------------------------------------------------------


class GuardedStream(io.RawIOBase):
    """A decompressed stream that refuses to grow beyond what honest data would.

    Args:
        inner: the decompressing stream.
        packed_bytes: tells how many compressed bytes were read so far.
        where: name for the error.
    """

    def __init__(self, inner: IO[bytes], packed_bytes: Callable[[], int], where: str) -> None:
        self.inner, self.packed_bytes, self.where, self.expanded = inner, packed_bytes, where, 0

    def readable(self) -> bool:
        """Always true."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Reads into a buffer, for buffered readers on top."""
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def read(self, size: int = -1) -> bytes:
        """Reads up to `size` bytes.

        Raises:
            SourceError: broken archive, or one that expands beyond `LARGEST_EXPANSION` times its size.
        """
        try:
            data = self.inner.read(BLOCK_BYTES if size is None or size < 0 else size)
        except (EOFError, zlib.error, gzip.BadGzipFile, zipfile.BadZipFile, OSError, NotImplementedError, RuntimeError) as error:
            raise SourceError(f"{self.where}: expected a whole archive, found a broken one: {error}.", "Ask for it again.") from error
        self.expanded += len(data)
        if self.expanded > EXPANSION_CHECKED_FROM_BYTES and self.expanded > LARGEST_EXPANSION * max(self.packed_bytes(), 1):
            raise SourceError(
                f"{self.where}: expected an archive of readings, found one that expands more than {LARGEST_EXPANSION} times.",
                "If it is honest, land it unpacked.",
            )
        return data


@dataclass(frozen=True)
class Member:
    """One text in a landed file: the file itself, or a member of a zip archive.

    Args:
        name: what rows carry in `file`: the file's name, for a zip's member followed by '!' and its name.
        stream: its decompressed bytes.
    """

    name: str
    stream: IO[bytes]


@contextmanager
def _opened(file: LandedFile) -> Iterator[BinaryIO]:
    try:
        opened = file.path.open("rb")
    except OSError as error:
        raise SourceError(f"{file.name}: expected a file that can be opened, found: {error.strerror}.") from error
    with opened:
        yield opened


def members(file: LandedFile) -> Iterator[Member]:
    """Opens a plain, gzip or zip file by its content, whatever its name; nothing is unpacked to disk.

    Yields:
        One member for a plain or gzip file, one for each file of a zip archive, in the order of their names.

    Raises:
        SourceError: no file, a broken or encrypted archive, a name in a zip that leads out of it, archives in archives, or
            an archive that expands beyond all reason.
    """
    with _opened(file) as opened:
        magic = opened.read(4)
        opened.seek(0)
        if magic[:2] == b"\x1f\x8b":
            with gzip.open(opened, "rb") as unpacked:
                yield Member(file.name, GuardedStream(unpacked, opened.tell, file.name))  # type: ignore[arg-type]
        elif magic in (b"PK\x03\x04", b"PK\x05\x06"):
            yield from _zip_members(file, opened)
        else:
            yield Member(file.name, opened)


def _zip_members(file: LandedFile, opened: BinaryIO) -> Iterator[Member]:
    try:
        archive = zipfile.ZipFile(opened)
        infos = sorted((i for i in archive.infolist() if not i.is_dir()), key=lambda i: i.filename)
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise SourceError(f"{file.name}: expected a zip archive, found a broken one: {error}.", "Ask for it again.") from error
    if len(infos) > MOST_MEMBERS:
        raise SourceError(f"{file.name}: expected at most {MOST_MEMBERS} files in a zip archive, found {len(infos)}.")
    if not infos:
        raise SourceError(f"{file.name}: expected files in the zip archive, found none.")
    for info in infos:
        # ZipInfo rewrites the separators of names; `orig_filename` is what the archive says.
        name = info.orig_filename
        if name.startswith(("/", "\\")) or re.match(r"^[A-Za-z]:", name) or ".." in re.split(r"[/\\]", name) or "\x00" in name:
            raise SourceError(f"{file.name}: expected plain names in the zip archive, found '{name[:100]!r}', which leads out of it.")
        if info.flag_bits & 0x1:
            raise SourceError(f"{file.name}: expected an open zip archive, found '{name}' encrypted.")
    for info in infos:
        where = f"{file.name}!{info.filename}"
        try:
            unpacked = archive.open(info)
        except (zipfile.BadZipFile, NotImplementedError, OSError, RuntimeError) as error:
            raise SourceError(f"{where}: expected a readable member, found: {error}.", "Ask for it again.") from error
        with unpacked:
            packed = max(info.compress_size, 1)
            stream = GuardedStream(unpacked, lambda packed=packed: packed, where)  # type: ignore[misc]
            buffered = io.BufferedReader(stream)  # type: ignore[arg-type]
            if buffered.peek(4)[:4] in (b"PK\x03\x04",) or buffered.peek(2)[:2] == b"\x1f\x8b":
                raise SourceError(f"{where}: expected text, found an archive in an archive.", "Unpack it once and land that.")
            yield Member(where, buffered)


# --- Lines -------------------------------------------------------------------------------------------------------------


@dataclass
class Block:
    """Whole lines of a text.

    Args:
        first_line: number of the first line, from 1.
        data: the lines as UTF-8, with their newlines.
        overlong: line number to the first text of lines that were too long to keep; they stand as empty lines in `data`.
    """

    first_line: int
    data: bytes
    overlong: dict[int, bytes] = field(default_factory=dict)

    def lines(self) -> list[bytes]:
        """The lines without their newlines."""
        found = self.data.split(b"\n")
        if found and not found[-1]:
            found.pop()
        return [one.rstrip(b"\r") for one in found]


def _as_utf8(stream: IO[bytes], encoding: str | None, where: str) -> Iterator[bytes]:
    first = stream.read(BLOCK_BYTES)
    if not first:
        return
    if encoding is None:
        for mark, name in ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be")):
            if first.startswith(mark):
                first, encoding = first[len(mark) :], name
                break
    alone = b"\r" in first and b"\n" not in first
    decoder = None
    if encoding and encoding.lower().replace("_", "-") not in ("utf-8", "utf8", "ascii"):
        try:
            decoder = codecs.getincrementaldecoder(encoding)(errors="replace")
        except LookupError:
            raise SourceError(f"{where}: expected a known encoding, found '{encoding}'.", "Mend the feed's options.encoding.") from None
    piece = first
    while piece:
        told = decoder.decode(piece).encode("utf-8") if decoder else piece
        yield told.replace(b"\r", b"\n") if alone else told
        piece = stream.read(BLOCK_BYTES)


def blocks(member: Member, encoding: str | None = None) -> Iterator[Block]:
    """Cuts a text into blocks of whole lines, in bounded memory whatever the length of its lines."""
    line, rest, lost = 1, b"", b""
    for piece in _as_utf8(member.stream, encoding, member.name):
        if lost:
            end = piece.find(b"\n")
            if end < 0:
                continue
            yield Block(line, b"\n", {line: lost})
            line, lost, piece = line + 1, b"", piece[end + 1 :]
        data = rest + piece
        cut = data.rfind(b"\n") + 1
        whole, rest = data[:cut], data[cut:]
        if whole:
            block = _without_overlong(Block(line, whole))
            yield block
            line += whole.count(b"\n")
        if len(rest) > LONGEST_LINE_BYTES:
            lost, rest = rest[: RAW_TEXT_LIMIT * 4], b""
    if lost:
        yield Block(line, b"\n", {line: lost})
    elif rest:
        yield Block(line, rest)


def _pieces(block: Block) -> Iterator[Block]:
    line, start = block.first_line, 0
    while start < len(block.data):
        end = block.data.find(b"\n", start + SMALL_BLOCK_BYTES) + 1 or len(block.data)
        data = block.data[start:end]
        yield Block(line, data)
        line, start = line + data.count(b"\n"), end


def _without_overlong(block: Block) -> Block:
    if len(block.data) <= LONGEST_LINE_BYTES:
        return block
    # Cheap test: only if no newline lies within a window can a line be too long.
    longest, start = 0, 0
    while start < len(block.data):
        end = block.data.rfind(b"\n", start, start + LONGEST_LINE_BYTES + 1)
        if end < 0:
            longest = LONGEST_LINE_BYTES + 1
            break
        start = end + 1
    if not longest:
        return block
    lines, overlong = block.data.split(b"\n"), {}
    for n, one in enumerate(lines):
        if len(one) > LONGEST_LINE_BYTES:
            overlong[block.first_line + n] = one[: RAW_TEXT_LIMIT * 4]
            lines[n] = b""
    return Block(block.first_line, b"\n".join(lines), overlong)


def told(raw: bytes) -> str:
    """A line as it goes into `raw_text`: valid text without NULs, at most 1,000 characters."""
    return raw.decode("utf-8", errors="replace").replace("\x00", "\ufffd").rstrip("\r\n")[:RAW_TEXT_LIMIT]


# --- Layouts -----------------------------------------------------------------------------------------------------------


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
                pieces = list(_pieces(block))
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
        lines = data.count(b"\n") + (not data.endswith(b"\n"))
        if data[:1] in (b"\n", b"\r") or b"\n\n" in data or b"\n\r\n" in data:
            return None  # Empty lines are no rows.
        if b'"' in data or b"\x00" in data or data.count(b"\r") != data.count(b"\r\n"):
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
        return table.append_column("line", pa.array(range(block.first_line, block.first_line + lines), pa.int64()))

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


# --- Local clocks ------------------------------------------------------------------------------------------------------


class LocalClock:
    """Takes local stamps without marks to UTC, across the days when the clocks change.

    The hour that the clock shows twice in autumn is told apart by order: within one file the first reading of a meter and
    register at a local stamp is summer time, the second winter time. A third is kept as winter time, where the rule on
    duplicates sees it. A stamp that the clock skips in spring is a fault.

    Args:
        zone: IANA name.
        end_minutes: minutes from an interval's start to its stamp, for stamps that name the end.
    """

    def __init__(self, zone: str, end_minutes: int = 0) -> None:
        self.zone, self.end_minutes = zone, end_minutes
        self._seen: dict[tuple[Any, Any, Any], int] = {}

    def resolve(self, table: pa.Table) -> pa.Table:
        """Replaces `local_start` by `interval_start`; stamps that do not exist get a `fault`."""
        local = table["local_start"].cast(pa.timestamp("us")).combine_chunks()
        if isinstance(local, pa.ChunkedArray):
            local = local.chunk(0) if local.num_chunks else pa.array([], pa.timestamp("us"))
        early = pc.assume_timezone(local, self.zone, ambiguous="earliest", nonexistent="earliest")
        late = pc.assume_timezone(local, self.zone, ambiguous="latest", nonexistent="latest")
        skipped = pc.fill_null(pc.not_equal(pc.local_timestamp(late), local), False)
        twice = pc.and_not(pc.fill_null(pc.not_equal(early, late), False), skipped)
        chosen = early
        if pc.any(twice).as_py():
            positions = pc.indices_nonzero(twice).to_pylist()
            meters, registers = table["meter_id"], table["register"] if "register" in table.column_names else None
            winter = [False] * len(local)
            for p in positions:
                key = (meters[p].as_py(), registers[p].as_py() if registers is not None else None, local[p].as_py())
                winter[p] = self._seen.get(key, 0) > 0
                self._seen[key] = self._seen.get(key, 0) + 1
            chosen = pc.if_else(pa.array(winter), late, early)
        utc = chosen.cast(pa.timestamp("us", tz="UTC"))
        if self.end_minutes:
            utc = pc.subtract(utc, pa.scalar(self.end_minutes * 60_000_000, pa.duration("us")))
        utc = pc.if_else(skipped, pa.scalar(None, utc.type), utc)
        faults = table["fault"] if "fault" in table.column_names else pa.nulls(table.num_rows, pa.string())
        if pc.any(skipped).as_py():
            words = pc.binary_join_element_wise(
                pa.scalar("expected a local time that exists, found '"),
                pc.strftime(local, "%Y-%m-%d %H:%M"),
                pa.scalar(f"', which the clocks of {self.zone} skip"),
                "",
            )
            faults = pc.if_else(skipped, pc.coalesce(faults, words), faults)
        table = table.drop_columns(["local_start"] + (["fault"] if "fault" in table.column_names else []))
        return table.append_column("interval_start", utc).append_column("fault", faults)


# --- SQL pieces --------------------------------------------------------------------------------------------------------


def number_sql(text: str, *, decimal: str = ".") -> str:
    """SQL for the number that a text expression holds, or NULL: plain decimals only, no `nan`, no `1_000`.

    Args:
        text: SQL expression of type VARCHAR.
        decimal: the decimal mark, '.' or ','.
    """
    plain = f"replace({text}, ',', '.')" if decimal == "," else text
    guard = f"AND {text} NOT LIKE '%.%'" if decimal == "," else ""
    number = f"TRY_CAST({plain} AS DOUBLE)"
    return f"CASE WHEN regexp_full_match({plain}, '{NUMBER}') {guard} AND isfinite({number}) THEN {number} END"


def utc_stamp_sql(text: str) -> str:
    """SQL for the moment that an ISO 8601 stamp with offset or Z names, or NULL."""
    return f"CASE WHEN regexp_full_match({text}, '{ISO_STAMP} ?{ISO_OFFSET}') THEN TRY_CAST(replace({text}, ',', '.') AS TIMESTAMPTZ) END"


def local_stamp_sql(text: str, date_order: str | None = None) -> str:
    """SQL for the local stamp (TIMESTAMP) that a text holds, or NULL.

    Args:
        text: SQL expression of type VARCHAR.
        date_order: "day first" or "month first" for stamps like 6/1/2012 08:00; None takes ISO 8601 only.
    """
    iso = f"CASE WHEN regexp_full_match({text}, '{ISO_STAMP}') THEN TRY_CAST(replace({text}, ',', '.') AS TIMESTAMP) END"
    if date_order is None:
        return iso
    first, second = ("%d", "%m") if date_order == "day first" else ("%m", "%d")
    clocks = ("", " %H:%M", " %H:%M:%S")
    patterns = ", ".join(f"'{first}{sep}{second}{sep}%Y{clock}'" for sep in ("/", ".", "-") for clock in clocks)
    return f"COALESCE({iso}, try_strptime({text}, [{patterns}]))"


def shown_sql(text: str) -> str:
    """SQL for a text as it stands in a fault: quoted, cut, never NULL."""
    return f"'''' || left(COALESCE({text}, ''), 60) || ''''"


def first_fault_sql(faults: Sequence[tuple[str, str]]) -> str:
    """SQL for the first fault that holds: pairs of condition and words (an SQL expression)."""
    whens = " ".join(f"WHEN {condition} THEN {words}" for condition, words in faults)
    return f"CASE WHEN fault IS NOT NULL THEN fault {whens} END"


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


def readings_sql(
    *,
    meter: str,
    energy: str,
    minutes: str,
    start: str | None = None,
    local: str | None = None,
    register: str = "'import'",
    quality: str = "NULL",
    faults: Sequence[tuple[str, str]] = (),
    stamp_text: str = "",
    energy_text: str = "",
    stamp_expected: str = "a moment as ISO 8601 with offset or Z",
    energy_expected: str = "energy in kWh as a number",
) -> str:
    """The SQL of a layout with one reading a line; arguments are SQL expressions over `lines`.

    Args:
        meter: the meter.
        energy: energy in kWh, NULL where it can't be read.
        minutes: length of the interval.
        start: start of the interval (TIMESTAMPTZ), NULL where it can't be read; or
        local: its local stamp (TIMESTAMP).
        register: the register.
        quality: quality as delivered.
        faults: further faults (condition, words), looked for first.
        stamp_text: the stamp as delivered, for its fault.
        energy_text: the energy as delivered, for its fault.
        stamp_expected: what is expected of a stamp, in words.
        energy_expected: what is expected of an energy, in words.
    """
    stamp = start or local
    every = [
        ("meter_id IS NULL", "'expected a meter, found none'"),
        *faults,
        ("stamp IS NULL", f"'expected {stamp_expected}, found ' || {shown_sql(stamp_text)}"),
        ("energy_kwh IS NULL", f"'expected {energy_expected}, found ' || {shown_sql(energy_text)}"),
        ("interval_minutes IS NULL", "'expected the length of the interval in minutes, found none'"),
    ]
    named = "interval_start" if start else "local_start"
    return f"""
        WITH parsed AS (
            SELECT lines.*, NULLIF({meter}, '') AS meter_id, {register} AS register, {stamp} AS stamp,
                   CAST({minutes} AS INTEGER) AS interval_minutes, {energy} AS energy_kwh, {quality} AS quality
            FROM lines
        )
        SELECT line, meter_id, register, stamp AS {named}, interval_minutes, energy_kwh, quality, {first_fault_sql(every)} AS fault
        FROM parsed ORDER BY line
    """
