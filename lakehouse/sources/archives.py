"""Opening landed files: plain, gzip or zip by their content, nothing unpacked to disk, nothing hostile let through."""

from __future__ import annotations

import gzip
import io
import re
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Any, BinaryIO

from lakehouse.errors import SourceError
from lakehouse.sources.base import LandedFile

READ_BYTES = 8 << 20
# A deflated stream can't exceed 1032:1; readings text reaches about 40:1, and all zeros about 200:1.
LARGEST_EXPANSION = 300
EXPANSION_CHECKED_FROM_BYTES = 64 << 20
MOST_MEMBERS = 10_000


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
            data = self.inner.read(READ_BYTES if size is None or size < 0 else size)
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
