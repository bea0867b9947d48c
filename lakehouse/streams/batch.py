"""Messages on their way into a landing file: one line each, with the place it came from, whether it can be understood or not."""

from __future__ import annotations

import csv
import io
import json
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date

from lakehouse.errors import SourceError
from lakehouse.storage.landing import Arrival, Landing

COLUMNS = {
    "canonical_readings": ("meter_id", "register", "interval_start", "interval_minutes", "energy_kwh", "quality"),
    "canonical_series": ("series_id", "quantity", "interval_start", "interval_minutes", "value", "is_forecast"),
}
"""Keys of a message, by the format of the feed; those of the CSV layout of that format."""
ORIGIN = "message"
LONGEST_SHOWN = 2000


@dataclass(frozen=True)
class Limits:
    """When a file is closed: so many messages, so long after its first one, or so long after its last one."""

    messages: int = 50_000
    seconds: float = 30.0
    quiet_seconds: float = 1.0


@dataclass
class Batch:
    """The messages of one file to be.

    Args:
        feed_format: format of the feed, one of `COLUMNS`.
    """

    feed_format: str
    lines: list[str] = field(default_factory=list)
    begun: float = 0.0
    newest: float = 0.0

    def add(self, payload: bytes, origin: str) -> None:
        """Adds a message. One that is no JSON object with these keys becomes a line that its reader refuses, with the text as it came.

        Args:
            payload: the message.
            origin: topic, partition and offset, or what names the message at its broker.
        """
        self.newest = time.monotonic()
        self.begun = self.begun or self.newest
        columns = COLUMNS[self.feed_format]
        try:
            told = json.loads(payload)
            understood = isinstance(told, dict) and not set(told) - set(columns)
        except ValueError:
            understood = False
        cells = [_cell(told.get(c)) for c in columns] if understood else [_shown(payload)] + [""] * (len(columns) - 1)
        out = io.StringIO()
        csv.writer(out, lineterminator="\n").writerow([*cells, origin])
        self.lines.append(out.getvalue())

    def is_due(self, limits: Limits) -> bool:
        """Whether the file should be closed now."""
        now = time.monotonic()
        waited = self.begun and (now - self.begun >= limits.seconds or now - self.newest >= limits.quiet_seconds)
        return bool(self.lines) and (len(self.lines) >= limits.messages or bool(waited))

    def land(self, landing: Landing, feed: str, delivered: date, name: str) -> Arrival | None:
        """Puts the file in its place, whole or not at all."""
        aside = landing.root / ".incoming" / f"stream-{uuid.uuid4().hex}"
        aside.parent.mkdir(parents=True, exist_ok=True)
        try:
            with aside.open("w", encoding="utf-8", newline="") as written:
                written.write(",".join((*COLUMNS[self.feed_format], ORIGIN)) + "\n")
                written.writelines(self.lines)
            return landing.land(feed, aside, delivered, name=name)
        finally:
            aside.unlink(missing_ok=True)


Stop = Callable[[], bool]


def format_for_stream(feed: str, feed_format: str) -> str:
    """The format, if messages can be written in it.

    Raises:
        SourceError: they can't.
    """
    if feed_format not in COLUMNS:
        raise SourceError(
            f"Expected a feed of the format {' or '.join(COLUMNS)}, found '{feed}' of the format {feed_format}.",
            "Add such a feed to gridlake.yaml; docs/streams.md shows one.",
        )
    return feed_format


def _cell(value: object) -> str:
    if value is None:
        return ""
    return str(value).lower() if isinstance(value, bool) else _one_line(str(value))


def _shown(payload: bytes) -> str:
    return _one_line(payload.decode("utf-8", errors="backslashreplace"))[:LONGEST_SHOWN]


def _one_line(text: str) -> str:
    # One message, one line: what a reader reports by line number can be found again.
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)
