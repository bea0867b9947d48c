"""Texts as blocks of whole lines, in bounded memory, with line numbers that are counted newlines."""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import IO

import numpy as np
import pyarrow as pa

from lakehouse.contracts.raw import RAW_TEXT_LIMIT
from lakehouse.errors import SourceError
from lakehouse.sources.archives import Member

BLOCK_BYTES = 8 << 20
SMALL_BLOCK_BYTES = 64 << 10
LONGEST_LINE_BYTES = 1 << 20


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
            line += newlines(whole)
        if len(rest) > LONGEST_LINE_BYTES:
            lost, rest = rest[: RAW_TEXT_LIMIT * 4], b""
    if lost:
        yield Block(line, b"\n", {line: lost})
    elif rest:
        yield Block(line, rest)


def newlines(data: bytes) -> int:
    """How many newlines a text has; three times as fast as `bytes.count`."""
    return int(np.count_nonzero(np.frombuffer(data, np.uint8) == 10))


def has_empty_lines(data: bytes) -> bool:
    """Whether a line of a text has nothing on it, whichever way lines end."""
    if data[:1] in (b"\n", b"\r"):
        return True
    ends = np.frombuffer(data, np.uint8) == 10
    return bool((ends[1:] & ends[:-1]).any()) or (b"\r" in data and b"\n\r\n" in data)


def numbered(first: int, rows: int) -> pa.Array:
    """The numbers of some lines that follow one another."""
    return pa.array(np.arange(first, first + rows, dtype=np.int64))


def small_blocks(block: Block) -> Iterator[Block]:
    """Cuts a block into small ones of whole lines."""
    line, start = block.first_line, 0
    while start < len(block.data):
        end = block.data.find(b"\n", start + SMALL_BLOCK_BYTES) + 1 or len(block.data)
        data = block.data[start:end]
        yield Block(line, data)
        line, start = line + newlines(data), end


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
