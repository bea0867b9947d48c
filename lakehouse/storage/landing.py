"""The landing zone: files as delivered, `landing/<feed>/<delivery-date>/<file>`, append-only.

Landing a file is atomic: it is written beside and moved into place, so that a reader sees it whole or not at all. Reading
what is inside is the business of `lakehouse.sources`.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path

from lakehouse.errors import GridlakeError

INCOMING = ".incoming"
UNFINISHED_SUFFIXES = (".part", ".tmp", ".partial", ".crdownload")
FEED_NAME = re.compile(r"^[a-z][a-z0-9_]{0,62}$")
CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class Arrival:
    """One delivered file as it lies in landing."""

    feed: str
    delivery_date: date
    path: Path

    @property
    def name(self) -> str:
        """The file's name as delivered; bytes of it that are no UTF-8 as `\\xe9`."""
        return _as_text(self.path.name)

    def stamp(self) -> tuple[int, datetime]:
        """Size in bytes and time of last change, UTC."""
        status = self.path.stat()
        return status.st_size, datetime.fromtimestamp(status.st_mtime_ns // 1000 / 1e6, UTC)

    def sha256(self) -> str:
        """Fingerprint of the file's bytes."""
        digest = hashlib.sha256()
        with self.path.open("rb") as opened:
            while chunk := opened.read(CHUNK_BYTES):
                digest.update(chunk)
        return digest.hexdigest()


class Landing:
    """The landing zone of a site.

    Args:
        root: the folder; made when the first file lands.
    """

    def __init__(self, root: Path) -> None:
        self.root = Path(root)

    def land(self, feed: str, source: Path, delivered: date, *, name: str | None = None) -> Arrival | None:
        """Copies one file into landing, whole or not at all.

        A file with the same name and the same bytes on the same day is landed already: None. The same name with other bytes
        lands beside it as `name~2`, which sorts (and so wins) after it.

        Raises:
            GridlakeError: the source is no readable file, or a name leads out of its folder.
        """
        self._guard(feed, name or source.name)
        if not source.is_file():
            found = "a folder" if source.is_dir() else "nothing"
            raise GridlakeError(
                f"Expected a file at {source}, found {found}.", "Give the files themselves; a shell pattern such as DIR/* helps."
            )
        incoming = self.root / INCOMING / uuid.uuid4().hex
        incoming.parent.mkdir(parents=True, exist_ok=True)
        try:
            with source.open("rb") as read, incoming.open("wb") as written:
                shutil.copyfileobj(read, written, CHUNK_BYTES)
                written.flush()
                os.fsync(written.fileno())
            return self._place(incoming, feed, delivered, name or source.name)
        finally:
            incoming.unlink(missing_ok=True)

    def _place(self, incoming: Path, feed: str, delivered: date, name: str) -> Arrival | None:
        folder = self.root / feed / delivered.isoformat()
        folder.mkdir(parents=True, exist_ok=True)
        fingerprint = Arrival(feed, delivered, incoming).sha256()
        stem, dot, suffixes = name.partition(".")
        attempt = 1
        while True:
            target = folder / (name if attempt == 1 else f"{stem}~{attempt}{dot}{suffixes}")
            try:
                os.link(incoming, target)  # fails if the name is taken, unlike a rename
                return Arrival(feed, delivered, target)
            except FileExistsError:
                if Arrival(feed, delivered, target).sha256() == fingerprint:
                    return None
                attempt += 1

    def _guard(self, feed: str, name: str) -> None:
        if not FEED_NAME.match(feed):
            raise GridlakeError(f"Expected a feed's name (lower-case letters, digits, '_'), found '{feed}'.", "See feeds in gridlake.yaml.")
        if (shown := _as_text(name)) != name:
            raise GridlakeError(f"Expected a file name in UTF-8, found '{shown}'.", "Rename the file.")
        if name in ("", ".", "..") or name != Path(name).name or "\\" in name or "\x00" in name or name.startswith("."):
            raise GridlakeError(f"Expected a plain file name, found '{name}'.", "Rename the file: no folders in it, no leading dot.")

    def deliveries(self, feed: str) -> list[date]:
        """Delivery dates of a feed that have files, oldest first; folders that are no date are left out."""
        folder = self.root / feed
        if not folder.is_dir():
            return []
        found = [_day(entry.name) for entry in os.scandir(folder) if entry.is_dir()]
        return sorted(day for day in found if day is not None)

    def arrivals(self, feed: str, delivered: date) -> list[Arrival]:
        """Finished files of one delivery, by name."""
        folder = self.root / feed / delivered.isoformat()
        if not folder.is_dir():
            return []
        names = sorted(e.name for e in os.scandir(folder) if e.is_file() and is_finished(e.name))
        return [Arrival(feed, delivered, folder / name) for name in names]

    def glance(self, feed: str, *, closely: int) -> Iterator[str]:
        """A short text for each delivery that changes when a file comes to it, leaves it or, in the newest ones, is changed in place.

        Args:
            feed: name of the feed.
            closely: so many of the newest deliveries are looked at file by file; of older ones the folder alone.
        """
        days = self.deliveries(feed)
        for day in days:
            folder = self.root / feed / day.isoformat()
            try:
                yield f"{feed}/{day}/{folder.stat().st_mtime_ns}"
                for arrival in self.arrivals(feed, day) if day in days[-closely:] else ():
                    yield f"{arrival.name}/{arrival.stamp()}"
            except FileNotFoundError:  # removed while we look
                yield f"{feed}/{day}/gone"

    def stray(self) -> Iterator[Path]:
        """What lies in landing and belongs to no delivery: files outside date folders, folders that are no date."""
        if not self.root.is_dir():
            return
        for entry in sorted(self.root.iterdir()):
            if entry.name == INCOMING:
                continue
            if not entry.is_dir():
                yield entry
                continue
            yield from (inner for inner in sorted(entry.iterdir()) if not inner.is_dir() or _day(inner.name) is None)


def is_finished(name: str) -> bool:
    """Whether a name is that of a file that is complete: not hidden, not a partial download."""
    return not name.startswith((".", "_")) and not name.lower().endswith(UNFINISHED_SUFFIXES)


def _as_text(name: str) -> str:
    # Python keeps a file name's bytes that are no UTF-8 as lone surrogates, which nothing else takes.
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def _day(name: str) -> date | None:
    try:
        return date.fromisoformat(name) if len(name) == 10 else None
    except ValueError:
        return None
