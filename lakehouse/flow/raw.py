"""landing → raw: files as rows, and the ledger of what was delivered."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from functools import lru_cache
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from lakehouse.contracts.quality import Deliveries
from lakehouse.flow.workspace import Workspace
from lakehouse.sources.base import LandedFile, ReadOptions, read_file
from lakehouse.storage.engine import register, select_files
from lakehouse.storage.lake import Commit, Snapshot, days_between
from lakehouse.storage.landing import Arrival

BYTES_PER_COMMIT = 256 << 20
_OF_THE_LEDGER = ["feed", "delivery_date", "file", "sha256", "bytes", "modified_at", "settings", "read_at"]


@dataclass(frozen=True)
class Read:
    """What reading deliveries did."""

    commits: list[Commit]
    files: int
    rows: int
    faulty_rows: int
    touched: list[date]


def read_deliveries(workspace: Workspace, feed: str, days: Sequence[date]) -> Read:
    """Makes raw's partitions of a feed from what lies in landing.

    Twice gives the same table as once. A delivery without files becomes an empty partition. A file that came to a delivery which was
    read before touches its own days only: the others keep the time at which they were first read. Where nothing of a delivery
    is new, somebody asked to read it again, and all its days count as touched.

    Args:
        workspace: the site at work.
        feed: name of the feed.
        days: delivery dates.

    Returns:
        Among others the reading dates that the deliveries touched: what has to be cleaned again.
    """
    delivered = [day for day in sorted(days) if workspace.landing.arrivals(feed, day) or _is_known(workspace, feed, day)]
    commits, files, rows, faulty, touched = [], 0, 0, 0, set()
    known = _ledger(workspace).get(feed, {})
    for group in _groups(workspace, feed, delivered):
        ledger: list[dict[str, Any]] = []

        def batches(group: list[date] = group, ledger: list[dict[str, Any]] = ledger) -> Iterator[pa.RecordBatch]:
            ledger.clear()  # a second try begins anew
            for day in group:
                for arrival in workspace.landing.arrivals(feed, day):
                    yield from _rows_of(workspace, feed, arrival, ledger)

        before = _days_of_files(workspace, feed, group)
        commits.append(workspace.replace(f"raw/{feed}", batches, where={"delivery_date": group}))
        news = _date_the_news(ledger, {day: known.get(day, {}) for day in group})
        told = Deliveries.from_rows(ledger)
        workspace.replace("quality/deliveries", told, where={"feed": feed, "delivery_date": group})
        files += len(ledger)
        rows += sum(one["rows"] for one in ledger)
        faulty += sum(one["faulty_rows"] for one in ledger)
        after = _days_of_files(workspace, feed, group)
        touched |= {day for found in (before, after) for file, days_of_file in found.items() if file in news for day in days_of_file}
    return Read(commits, files, rows, faulty, sorted(touched))


def _date_the_news(ledger: list[dict[str, Any]], known: Mapping[date, Mapping[str, Mapping[str, Any]]]) -> set[tuple[date, str]]:
    """Tells the ledger's new lines when their rows were first read, and which files (delivery date, name) are new, changed or gone.

    To be called after raw's commit: a day that was accounted for before this moment may lack the rows.
    """
    now = datetime.now(UTC)
    old = {(day, file): line for day, files in known.items() for file, line in files.items()}
    new = {(line["delivery_date"], line["file"]): line for line in ledger}
    same = {one for one in new if one in old and all(new[one][c] == old[one][c] for c in ("sha256", "settings")) and old[one]["read_at"]}
    changed = (old.keys() | new.keys()) - same
    for day in known:
        if not any(delivered == day for delivered, _ in changed):
            changed |= {one for one in same if one[0] == day}
    for one, line in new.items():
        line["read_at"] = now if one in changed else old[one]["read_at"]
    return changed


def _is_known(workspace: Workspace, feed: str, day: date) -> bool:
    return day in workspace.table(f"raw/{feed}").partitions_written("delivery_date")


def _groups(workspace: Workspace, feed: str, days: list[date]) -> Iterator[list[date]]:
    group: list[date] = []
    size = 0
    for day in days:
        size += sum(a.stamp()[0] for a in workspace.landing.arrivals(feed, day))
        group.append(day)
        if size >= BYTES_PER_COMMIT:
            yield group
            group, size = [], 0
    if group:
        yield group


def _rows_of(workspace: Workspace, feed: str, arrival: Arrival, ledger: list[dict[str, Any]]) -> Iterator[pa.RecordBatch]:
    described = workspace.site.feeds[feed]
    size, modified_at = arrival.stamp()
    options = ReadOptions(workspace.site.time_zone, described.options)
    told: dict[str, Any] = {
        "feed": feed,
        "delivery_date": arrival.delivery_date,
        "file": arrival.name,
        "sha256": arrival.sha256(),
        "bytes": size,
        "modified_at": modified_at,
        "rows": 0,
        "faulty_rows": 0,
        "first_interval": None,
        "last_interval": None,
        "settings": hashlib.sha256(f"{described.format} {options}".encode()).hexdigest()[:16],
        "read_at": None,
    }
    landed = LandedFile(arrival.path, arrival.name, arrival.delivery_date, feed)
    for table in read_file(landed, described.format, options):
        told["rows"] += table.num_rows
        told["faulty_rows"] += table.num_rows - table.column("fault").null_count
        if "interval_start" in table.column_names:
            span = pc.min_max(table.column("interval_start")).as_py()
            told["first_interval"] = min(filter(None, (told["first_interval"], span["min"])), default=None)
            told["last_interval"] = max(filter(None, (told["last_interval"], span["max"])), default=None)
        yield from table.combine_chunks().to_batches()  # Delta's writer may exchange batches: the fewer, the more stays in order
    ledger.append(told)


def _days_of_files(workspace: Workspace, feed: str, deliveries: Sequence[date]) -> dict[tuple[date, str], set[date]]:
    """By delivery date and file, the days on which the rows count that raw holds of these deliveries."""
    name = f"raw/{feed}"
    with workspace.engine() as engine:
        table = register(engine, workspace.table(name), only={"delivery_date": (min(deliveries), max(deliveries))})
        listed = ", ".join(f"DATE '{d.isoformat()}'" for d in deliveries)
        found = engine.sql(
            f"SELECT DISTINCT delivery_date, file, {_counted_on(workspace, feed)} FROM {table} WHERE delivery_date IN ({listed})"
        ).fetchall()
    days: dict[tuple[date, str], set[date]] = {}
    for delivered, file, day in found:
        days.setdefault((delivered, file), set()).add(day)
    return days


def _counted_on(workspace: Workspace, feed: str) -> str:
    """SQL for the day on which a row counts: its reading date, or its delivery date where it has none that can be."""
    if feed in workspace.site.feeds_of("readings"):
        from lakehouse.metering.run import partition_day_sql

        return partition_day_sql(workspace.site.first_utc_day())
    return "coalesce(date, delivery_date)"


def stale_deliveries(workspace: Workspace, feed: str) -> list[date]:
    """Delivery dates whose files in landing differ from what raw was made of, oldest first.

    A file whose size and time of change are as the ledger says is taken as unchanged; otherwise its bytes decide.
    """
    ledger = _ledger(workspace).get(feed, {})
    stale = []
    first, last = workspace.site.first_day, workspace.site.today()
    for day in sorted({*workspace.landing.deliveries(feed), *ledger}):
        if not first <= day <= last:
            continue
        known, present = ledger.get(day, {}), workspace.landing.arrivals(feed, day)
        if {a.name for a in present} != set(known) or any(_differs(a, known[a.name]) for a in present):
            stale.append(day)
    return stale


def _ledger(workspace: Workspace) -> dict[str, dict[date, dict[str, dict[str, Any]]]]:
    """What raw was made of, by feed, delivery date and file: read once for all feeds, and of a newer version only what is new in it."""
    table = workspace.table("quality/deliveries")
    version = table.version()
    known: tuple[int | None, Any] = workspace.remembered.get("deliveries", (None, ({}, {})))
    version_before, (before, paths_before) = known
    if version_before != version:
        snapshot = table.snapshot()
        paths: dict[tuple[str, date], set[str]] = {}
        for one in snapshot.files:
            paths.setdefault((one.partition["feed"], one.partition["delivery_date"]), set()).add(one.path)
        news = {delivery for delivery, of_it in paths.items() if paths_before.get(delivery) != of_it}
        ledger: dict[str, dict[date, dict[str, dict[str, Any]]]] = {}
        for feed, day in paths:
            ledger.setdefault(feed, {})[day] = {} if (feed, day) in news else before[feed][day]
        with workspace.engine() as engine:
            rows = select_files(table.contract, snapshot.where(lambda f: (f.partition["feed"], f.partition["delivery_date"]) in news))
            lines = engine.sql(f"SELECT {', '.join(_OF_THE_LEDGER)} FROM ({rows})").to_arrow_table().to_pylist()
        for line in lines:
            ledger[line["feed"]][line["delivery_date"]][line["file"]] = line
        workspace.remembered["deliveries"] = (version, (ledger, paths))
    return workspace.remembered["deliveries"][1][0]


def _differs(arrival: Arrival, known: dict[str, Any]) -> bool:
    size, modified_at = arrival.stamp()
    if size != known["bytes"]:
        return True
    return modified_at != _utc(known["modified_at"]) and _fingerprint(arrival, size, modified_at) != known["sha256"]


@lru_cache(maxsize=100_000)
def _fingerprint(arrival: Arrival, size: int, modified_at: datetime) -> str:
    """A file's SHA-256, taken once as long as it stays as it is: where landing was restored from a copy, all times of change are new."""
    return arrival.sha256()


def _utc(moment: datetime) -> datetime:
    return moment.astimezone(UTC)


def touched_days(workspace: Workspace, feed: str, accounted: Mapping[date, datetime]) -> list[date]:
    """Reading dates with rows of files that were first read after the day was last accounted for.

    Statistics of raw's files tell which deliveries may hold such days; only those are opened.

    Args:
        workspace: the site at work.
        feed: name of the feed.
        accounted: when each reading date was last cleaned, UTC.
    """
    read_at = _read_at(workspace, feed)
    newest: dict[date, datetime] = {}
    for (delivered, _), moment in read_at.items():
        newest[delivered] = max(newest.get(delivered, moment), moment)
    first, last = workspace.site.first_utc_day(), workspace.site.last_day()
    suspects: dict[date, datetime] = {}
    for one in workspace.table(f"raw/{feed}").files():
        delivered = one.partition["delivery_date"]
        moment = newest.get(delivered, one.written_at)
        smallest, largest = one.statistics.get("min.date"), one.statistics.get("max.date")
        hull = [delivered] if smallest is None or largest is None else [delivered, *days_between(max(smallest, first), min(largest, last))]
        if any(day not in accounted or accounted[day] < moment for day in hull):
            suspects[delivered] = max(suspects.get(delivered, one.written_at), one.written_at)
    if not suspects:
        return []
    touched: set[date] = set()
    for (delivered, file), days in _days_of_files(workspace, feed, sorted(suspects)).items():
        moment = read_at.get((delivered, file), suspects[delivered])
        touched |= {day for day in days if day not in accounted or accounted[day] < moment}
    return sorted(touched)


def may_hold(statistics: Mapping[str, Any], delivered: date, days: tuple[date, date]) -> bool:
    """Whether one of raw's files may hold rows that count on some days, by its statistics."""
    if days[0] <= delivered <= days[1]:
        return True  # rows without a day count for the delivery date
    smallest, largest = statistics.get("min.date"), statistics.get("max.date")
    return smallest is None or largest is None or (smallest <= days[1] and largest >= days[0])


def delivered_days(workspace: Workspace, feed: str, days: Collection[date]) -> set[date]:
    """Those of some days on which rows of a feed count."""
    deliveries: set[date] = set()
    for one in workspace.table(f"raw/{feed}").files() if days else []:
        delivered = one.partition["delivery_date"]
        if any(may_hold(one.statistics, delivered, (day, day)) for day in days):
            deliveries.add(delivered)
    if not deliveries:
        return set()
    return {day for held in _days_of_files(workspace, feed, sorted(deliveries)).values() for day in held if day in days}


def _read_at(workspace: Workspace, feed: str) -> dict[tuple[date, str], datetime]:
    """When the rows of each file (delivery date, name) that raw holds were first read, UTC: told once for a version of the ledger."""
    ledger = _ledger(workspace)
    version = workspace.remembered["deliveries"][0]
    if workspace.remembered.get(f"read_at {feed}", (None,))[0] != version:
        # A ledger of an older version does not tell; its lines were written after the commit of what they tell of.
        listed_at = workspace.table(Deliveries.name).partitions_written("delivery_date", only={"feed": feed})
        moments = {
            (day, file): _utc(line["read_at"]) if line["read_at"] else listed_at[day]
            for day, files in ledger.get(feed, {}).items()
            for file, line in files.items()
        }
        workspace.remembered[f"read_at {feed}"] = (version, moments)
    return workspace.remembered[f"read_at {feed}"][1]


def days_that_came_since(workspace: Workspace, feeds: Sequence[str], seen: Mapping[str, Snapshot]) -> set[date]:
    """The days on which rows count that came to raw, or left it, since these snapshots of it.

    Args:
        workspace: the site at work.
        feeds: names of feeds.
        seen: for each feed the snapshot of its raw table that was read.
    """
    days: set[date] = set()
    with workspace.engine() as engine:
        for feed in feeds:
            table = workspace.table(f"raw/{feed}")
            before, now = seen[feed], table.snapshot()
            known, present = {f.path for f in before.files}, {f.path for f in now.files}
            for snapshot, others in ((now, known), (before, present)):
                changed = Snapshot([f for f in snapshot.files if f.path not in others], snapshot.columns)
                if changed.files:
                    rows = select_files(table.contract, changed)
                    days |= {row[0] for row in engine.sql(f"SELECT DISTINCT {_counted_on(workspace, feed)} FROM ({rows})").fetchall()}
    return days


def abandoned_days(workspace: Workspace, feed: str) -> list[date]:
    """Reading dates that were cleaned from files which raw has read anew since, or no longer has.

    The file may have held rows of these days that it does not hold now. Statistics of the account's files tell which to open.
    """
    table = workspace.table("quality/conservation")
    read_at = _read_at(workspace, feed)
    read = workspace.table(f"raw/{feed}").partitions_written("delivery_date")
    suspects: dict[date, datetime] = {}
    for one in table.files():
        smallest, largest = one.statistics.get("min.delivery_date"), one.statistics.get("max.delivery_date")
        if one.partition["feed"] != feed or smallest is None or largest is None:
            continue
        if any(day not in read or read[day] > one.written_at for day in days_between(smallest, largest)):
            suspects[one.partition["date"]] = one.written_at
    if not suspects:
        return []
    listed = ", ".join(f"DATE '{d.isoformat()}'" for d in suspects)
    with workspace.engine() as engine:
        account = register(engine, table, only={"date": (min(suspects), max(suspects)), "feed": (feed, feed)})
        held = engine.sql(f"SELECT DISTINCT date, delivery_date, file FROM {account} WHERE date IN ({listed})").fetchall()
    return sorted({day for day, *file in held if (moment := read_at.get(tuple(file))) is None or moment > suspects[day]})
