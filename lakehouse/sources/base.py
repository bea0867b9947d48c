"""What a format is, and the registry that finds them.

A format is one module of this package that defines `FORMAT`. Its reader turns one landed file into tables of a raw shape
(`lakehouse.contracts.raw`), streaming, and names every line it could not read. Readers shift interval-ending stamps to
interval starts and local clocks to UTC: here and nowhere else.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa

from lakehouse.contracts.raw import RAW_TEXT_LIMIT, SHAPES, Delivered
from lakehouse.errors import SiteError, SourceError

HEAD_BYTES = 8192


@dataclass(frozen=True)
class LandedFile:
    """One file in landing.

    Args:
        path: where it is.
        name: its name as delivered; a part of a row's identity.
        delivery_date: the folder it landed in.
        feed: the feed it belongs to.
    """

    path: Path
    name: str
    delivery_date: date
    feed: str


@dataclass(frozen=True)
class ReadOptions:
    """What the site file says about a feed.

    Args:
        time_zone: the site's IANA time zone, for stamps in local clock.
        settings: the feed's `options`, as written; each format documents its own.
    """

    time_zone: str = "UTC"
    settings: Mapping[str, Any] = field(default_factory=dict)


def _never(head: bytes, name: str) -> bool:
    return False


def _unknown_delivery(path: Path) -> date | None:
    return None


@dataclass(frozen=True)
class Format:
    """A landed format.

    Args:
        name: what a site file writes in `feeds.<feed>.format`.
        shape: the raw shape it is read to: readings, series, meters or fleet.
        description: one line for a person.
        read: reads one file to tables of the shape's contract; raises SourceError where nothing of the file can be used.
        looks_like: tells from the first bytes (decompressed) and the name whether a file may be of this format.
        delivered_on: the delivery date that a published file's name tells, or None.
        settings: the names that `options` may have, each with one line of explanation.
    """

    name: str
    shape: str
    description: str
    read: Callable[[LandedFile, ReadOptions], Iterator[pa.Table]]
    looks_like: Callable[[bytes, str], bool] = _never
    delivered_on: Callable[[Path], date | None] = _unknown_delivery
    settings: Mapping[str, str] = field(default_factory=dict)


@cache
def formats() -> dict[str, Format]:
    """All formats by name."""
    import lakehouse.sources as package

    found = {}
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        declared = importlib.import_module(module.name)
        for one in getattr(declared, "FORMATS", [getattr(declared, "FORMAT", None)]):
            if one is not None:
                found[one.name] = one
    return dict(sorted(found.items()))


def format_named(name: str) -> Format:
    """The format of that name.

    Raises:
        SiteError: no such format; the message lists those there are.
    """
    if name not in formats():
        raise SiteError(f"Expected a known format, found '{name}'.", f"Known formats: {', '.join(formats())}.")
    return formats()[name]


def contract_of(feed: str, format_name: str) -> type[Delivered]:
    """The contract of a feed's raw table."""
    shape = SHAPES[format_named(format_name).shape]
    return shape.derive(f"raw/{feed}", doc=f"{shape.description()[:-1]} by the feed '{feed}'.")  # type: ignore[return-value]


def read_file(file: LandedFile, format_name: str, options: ReadOptions) -> Iterator[pa.Table]:
    """Reads one landed file to tables of its raw contract; a file that can't be read becomes one row that says why.

    Any failure of a reader is told as the file's fault: one bad file never stops the others.
    """
    one = format_named(format_name)
    shape = SHAPES[one.shape]
    try:
        if any("\udc80" <= c <= "\udcff" for c in file.path.name):  # no program that takes names as text could open it
            raise SourceError("expected a file name in UTF-8; land it again under another name")
        for table in one.read(file, options):
            if table.num_rows:
                yield shape.conform(table)
    except SourceError as error:
        yield unreadable_file(file, shape, str(error))
    except Exception as error:
        yield unreadable_file(file, shape, f"expected {one.description.rstrip('.')}, found a file that breaks its reader: {error!r}")


def unreadable_file(file: LandedFile, shape: type[Delivered], reason: str) -> pa.Table:
    """One raw row for a file that can't be used: line 0, the reason as its fault, its first text as `raw_text`."""
    try:
        with file.path.open("rb") as opened:
            head = opened.read(RAW_TEXT_LIMIT).decode("utf-8", errors="replace").replace("\x00", "\ufffd")
    except OSError as error:
        head, reason = "", f"{reason} ({error.strerror})"
    row: dict[str, Any] = dict.fromkeys(shape.columns)
    row |= {"file": file.name, "line": 0, "delivery_date": file.delivery_date, "fault": reason, "raw_text": head}
    return shape.from_rows([row])
