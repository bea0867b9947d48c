"""What must hold in the end, whatever was killed: each law with its figures, so that a breach says where to look."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.chaos.post import STREAM_FEEDS, Broker, Post, environment
from lakehouse.flow.watch import conditions, read_ledger
from lakehouse.flow.workspace import Workspace
from lakehouse.site import SITE_FILE

MOST_SHOWN = 6
PURE = ("raw/", "quality/deliveries")
"""Tables that are functions of landing, whatever the order of arrival."""
MOMENTS = ("modified_at", "read_at")
"""Columns that tell when files came and were read, which is no part of what they hold."""
OF_LANDING_AND_PAST = ("cleaned/", "quality/quarantine", "quality/conservation", "quality/vee_report", "quality/edits")
"""Tables that also know the days before: a day is judged by the past that was there when it was cleaned."""
PAST_DAYS = 36


@dataclass(frozen=True)
class Verdict:
    """Whether a law holds.

    Args:
        law: the law.
        holds: whether it does.
        told: the figures; of a breach, the first cases.
    """

    law: str
    holds: bool
    told: str


def judge(post: Post, brokers: list[Broker], folder: Path) -> Iterator[Verdict]:
    """All laws, one after the other.

    Args:
        post: what was sent.
        brokers: the brokers and what they took.
        folder: for the clean rebuild.
    """
    workspace = Workspace.open(post.home)
    yield files_have_landed(post, workspace)
    for broker in brokers:
        yield messages_have_landed(broker, workspace)
    yield landing_is_read(workspace)
    yield nothing_is_lost(workspace)
    yield nothing_is_doubled(workspace)
    yield malformed_are_in_quarantine(brokers, workspace)
    yield from alerts_came_once(workspace, brokers)
    yield the_catalog_tells_the_same(workspace)
    yield from the_lake_is_that_of_a_clean_rebuild(workspace, folder)


# -- landing


def files_have_landed(post: Post, workspace: Workspace) -> Verdict:
    """Each file that was sent lies in landing once, with its bytes, and none that was not sent."""
    there: Counter[tuple[str, Any, str]] = Counter()
    streamed = set(STREAM_FEEDS.values())
    for feed in set(workspace.site.feeds) - streamed:
        for day in workspace.landing.deliveries(feed):
            there.update((feed, day, a.sha256()) for a in workspace.landing.arrivals(feed, day))
    sent = {key for key, count in post.sent.items() if count}
    lost = [k for k in sent if not there[k]]
    doubled = [k for k in sent if there[k] > 1]
    told = f"{len(sent)} files sent ({_counts(post.faults)}); {len(lost)} lost, {len(doubled)} doubled"
    return Verdict("each file that was sent lies in landing once", not lost and not doubled, told + _first(lost + doubled))


def messages_have_landed(broker: Broker, workspace: Workspace) -> Verdict:
    """Kafka: each offset once. MQTT: each acknowledged message at least once."""
    lines = []
    for day in workspace.landing.deliveries(broker.feed):
        for arrival in workspace.landing.arrivals(broker.feed, day):
            lines += arrival.path.read_text(encoding="utf-8").splitlines()[1:]
    sent = len(broker.accepted)
    if broker.kind == "kafka":
        origins = Counter(line.rsplit(",", 1)[1] for line in lines)
        expected = {f"readings/{p}/{n}" for p in range(3) for n in range(len(range(p, sent, 3)))}
        lost, doubled = expected - set(origins), [o for o, n in origins.items() if n > 1]
        told = f"{sent:,} messages taken by the broker; {len(lost)} lost, {len(doubled)} doubled"
        return Verdict("Kafka: each message lies in landing once", not lost and not doubled, told + _first([*sorted(lost), *doubled]))
    distinct = {line.rsplit(",", 1)[0] for line in lines}
    held = set(map(_as_line, broker.accepted))
    lost_lines = held - distinct
    told = f"{sent:,} messages taken by the broker, {len(lines) - len(distinct):,} came again; {len(lost_lines)} lost"
    return Verdict("MQTT: each message lies in landing at least once", not lost_lines, told + _first(sorted(lost_lines)))


def _as_line(payload: bytes) -> str:
    from lakehouse.streams.batch import Batch

    batch = Batch("canonical_readings")
    batch.add(payload, "x")
    return batch.lines[0].rstrip("\n").rsplit(",", 1)[0]


# -- the lake


def landing_is_read(workspace: Workspace) -> Verdict:
    """The ledger of deliveries names each file in landing with its fingerprint, and no other."""
    there = {
        (feed, day, a.name, a.sha256())
        for feed in workspace.site.feeds
        for day in workspace.landing.deliveries(feed)
        if workspace.site.first_day <= day <= workspace.site.today()
        for a in workspace.landing.arrivals(feed, day)
    }
    rows = workspace.table("quality/deliveries").read().to_pylist()
    known = {(r["feed"], r["delivery_date"], r["file"], r["sha256"]) for r in rows}
    wrong = [*sorted(map(str, there - known)), *sorted(map(str, known - there))]
    return Verdict("each file in landing is read, and no other", not wrong, f"{len(there)} files; {len(wrong)} differ" + _first(wrong))


def nothing_is_lost(workspace: Workspace) -> Verdict:
    """Delivered = cleaned + edited + superseded + exact duplicates + quarantined, counted from the tables themselves."""
    wrong = []
    total = 0
    cleaned = [n for n in workspace.contracts if n.startswith("cleaned/") and workspace.table(n).exists()]
    with workspace.engine("quality/conservation", "quality/quarantine", "quality/deliveries", "cleaned/meter_readings") as engine:
        broken = engine.sql("SELECT count(*) FROM quality.conservation WHERE NOT is_conserved").fetchall()[0][0]
        if broken:
            wrong.append(f"{broken} accounts are not even")
        accounts = engine.sql(
            "SELECT feed, sum(delivered), sum(cleaned), sum(quarantined) FROM quality.conservation GROUP BY feed"
        ).fetchall()
        quarantined = dict(engine.sql("SELECT feed, count(*) FROM quality.quarantine GROUP BY feed").fetchall())
        ledger = dict(engine.sql("SELECT feed, sum(rows) FROM quality.deliveries GROUP BY feed").fetchall())
        # what stands as delivered: a sender's own estimate too
        stands = "quality = 'measured' OR method = 'by_sender'"
        measured = engine.sql(f"SELECT count(*) FROM cleaned.meter_readings WHERE {stands}").fetchall()[0][0]
    # a delivered row of many hours is the difference of two register reads, which has a table of its own
    measured += sum(f.rows for f in workspace.table("cleaned/register_differences").files())
    for feed, delivered, _, refused in accounts:
        total += delivered
        rows = sum(f.rows for f in workspace.table(f"raw/{feed}").files())
        if not delivered == rows == ledger.get(feed, 0):
            wrong.append(f"{feed}: accounted {delivered:,}, in raw {rows:,}, in the ledger of deliveries {ledger.get(feed, 0):,}")
        if refused != quarantined.get(feed, 0):
            wrong.append(f"{feed}: {refused:,} accounted as quarantined, {quarantined.get(feed, 0):,} there")
    believed = sum(c for feed, _, c, _ in accounts if feed in workspace.site.feeds_of("readings"))
    if believed != measured:
        wrong.append(f"{believed:,} readings accounted as cleaned, {measured:,} there as delivered")
    told = f"{total:,} rows delivered, {sum(quarantined.values()):,} in quarantine, {len(cleaned)} cleaned tables"
    return Verdict("delivered = cleaned + superseded + duplicates + quarantined", not wrong, told + _first(wrong))


def nothing_is_doubled(workspace: Workspace) -> Verdict:
    """No table has a key twice."""
    wrong, looked = [], 0
    for name, contract in workspace.contracts.items():
        if not contract.key or name == "quality/quarantine" or not workspace.table(name).exists():
            continue
        looked += 1
        with workspace.engine(name) as engine:
            key = ", ".join(f'"{c}"' for c in contract.key)
            schema, table = name.split("/")
            rows = engine.sql(
                f'SELECT count(*) FROM (SELECT {key} FROM "{schema}"."{table}" GROUP BY {key} HAVING count(*) > 1)'
            ).fetchall()
        if rows[0][0]:
            wrong.append(f"{name}: {rows[0][0]} keys")
    return Verdict("no key is there twice", not wrong, f"{looked} tables" + _first(wrong))


def malformed_are_in_quarantine(brokers: list[Broker], workspace: Workspace) -> Verdict:
    """Each message that no one understands is in quarantine."""
    wrong, told = [], []
    for broker in brokers:
        refused = workspace.table("quality/quarantine").read(f"feed = '{broker.feed}'").to_pylist()
        unread = [row for row in refused if row["interval_start"] is None]
        told.append(f"{broker.kind} {broker.malformed} sent, {len(unread)} there")
        if len(unread) < broker.malformed or (broker.kind == "kafka" and len(unread) != broker.malformed):
            wrong.append(f"{broker.kind}: {broker.malformed} malformed messages sent, {len(unread)} in quarantine")
    return Verdict("each malformed message is in quarantine", not wrong, "; ".join(told) + _first(wrong))


def the_catalog_tells_the_same(workspace: Workspace) -> Verdict:
    """The published catalog can be read and has the newest rows."""
    done = subprocess.run(
        [sys.executable, "-m", "lakehouse.cli", "--home", str(workspace.site.home), "sql", "--json",
         "SELECT count(*) AS n FROM cleaned.meter_readings"],
        env=environment(workspace.site.home), capture_output=True, text=True, check=False,
    )  # fmt: skip
    there = sum(f.rows for f in workspace.table("cleaned/meter_readings").files())
    told = done.stdout.strip() or done.stderr.strip()[-300:]
    return Verdict("the catalog tells what the lake holds", done.returncode == 0 and f"{there}" in told, f"{there:,} readings; {told[:80]}")


# -- alerts


def alerts_came_once(workspace: Workspace, brokers: list[Broker]) -> Iterator[Verdict]:
    """What is wrong now was told and not taken back; each alert was told once when it began and once when it was over."""
    log = workspace.site.home / "alerts.jsonl"
    lines = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()] if log.is_file() else []
    state: dict[str, str] = {}
    twice, told = [], Counter[str]()
    for one in lines:
        key = f"{one['kind']}: {one['subject']}"
        told[f"{one['occasion']} {one['kind']}"] += 1
        if state.get(key, "over") == one["occasion"] or (one["occasion"] == "over" and key not in state):
            twice.append(f"{one['occasion']} {key}")
        state[key] = one["occasion"]
    yield Verdict("each alert came once, and once more when it was over", not twice, _counts(told) + _first(twice))
    now = {a.key for a in conditions(workspace, datetime.now(UTC))}
    now |= {e.alert.key for e in read_ledger(workspace) if e.closed_at is None and e.alert.kind == "run failed"}
    open_in_log = {key for key, occasion in state.items() if occasion == "new"}
    wrong = [f"not told: {k}" for k in sorted(now - open_in_log)] + [f"not taken back: {k}" for k in sorted(open_in_log - now)]
    yield Verdict("the alerts that are open are those of what is wrong", not wrong, f"{len(now)} open" + _first(wrong))
    feeds = [f for f in workspace.site.feeds if "interval_start" in workspace.contract(f"raw/{f}").columns]
    expected = [f"data late: {f}" for f in feeds if f not in STREAM_FEEDS.values()]
    expected += [f"rows refused: {b.feed}" for b in brokers if b.malformed >= 10]
    seen = Counter(f"{one['kind']}: {one['subject']}" for one in lines if one["occasion"] == "new")
    missing = [k for k in expected if not seen[k]]
    yield Verdict("each fault that was made was told", not missing, f"{len(expected)} expected" + _first(missing))


# -- the rebuild


def the_lake_is_that_of_a_clean_rebuild(workspace: Workspace, folder: Path) -> Iterator[Verdict]:
    """Landing alone, read and cleaned by one undisturbed process, gives the same rows."""
    home = folder / "rebuilt"
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir(parents=True)
    shutil.copy2(workspace.site.home / SITE_FILE, home / SITE_FILE)
    shutil.copytree(workspace.site.path("landing"), home / "landing")  # with time stamps
    done = subprocess.run(
        [sys.executable, "-m", "lakehouse.cli", "--home", str(home), "refresh", "--until", "cleaned", "--json"],
        env=environment(home), capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        yield Verdict("the rebuild succeeds", False, done.stdout[-600:] + done.stderr[-600:])
        return
    clean = Workspace.open(home)
    wrong, compared = [], 0
    for name in (n for n in workspace.contracts if n.startswith(PURE)):
        compared += 1
        if differing := differing_rows(workspace, clean, name):
            wrong.append(f"{name}: {sum(differing.values())} rows on {len(differing)} days")
    yield Verdict("raw and its ledger are those of a clean rebuild", not wrong, f"{compared} tables" + _first(wrong))
    unexplained, told, compared = [], [], 0
    written = _last_written(workspace)
    for name in (n for n in workspace.contracts if n.startswith(OF_LANDING_AND_PAST) and workspace.table(n).exists()):
        compared += 1
        differing = differing_rows(workspace, clean, name)
        if differing:
            told.append(f"{name} {sum(differing.values())} rows on {len(differing)} days")
        by_day = "date" in workspace.contract(name).partitioned_by
        made = workspace.table(name).partitions_written() if differing and by_day else {}
        for day, count in differing.items():
            if day not in made or not any(made[day] < at for d, at in written.items() if 0 < (day - d).days <= PAST_DAYS):
                unexplained.append(f"{name} on {day}: {count} rows")
    yield Verdict(
        "cleaned and quality are those of a clean rebuild, but where the past changed after the day was cleaned",
        not unexplained,
        f"{compared} tables; differing: {', '.join(told) or 'none'}" + _first(unexplained),
    )


def differing_rows(one: Workspace, other: Workspace, name: str) -> dict[Any, int]:
    """By day (None where the table has none), how many rows are in one of two lakes only."""
    columns = [c for c in one.contract(name).columns if c not in MOMENTS]
    told: Counter[Any] = Counter()
    schema, table = name.split("/")
    rows = []
    for workspace in (one, other):
        with workspace.engine(name) as engine:
            listed = ", ".join(_rounded(workspace, name, c) for c in columns)
            rows.append(Counter(engine.sql(f'SELECT {listed} FROM "{schema}"."{table}"').fetchall()))
    day = columns.index("date") if "date" in columns else None
    for row, count in ((rows[0] - rows[1]) + (rows[1] - rows[0])).items():
        told[row[day] if day is not None else None] += count
    return dict(sorted(told.items(), key=str))


def _rounded(workspace: Workspace, name: str, column: str) -> str:
    # sums of floating-point numbers depend on the order of addition
    is_number = workspace.contract(name).columns[column].sql_type == "DOUBLE"
    return f'round("{column}", 6) AS "{column}"' if is_number else f'"{column}"'


def _last_written(workspace: Workspace) -> dict[Any, datetime]:
    """When each day's cleaned rows were last written."""
    newest: dict[Any, datetime] = {}
    for name in (n for n in workspace.contracts if n.startswith("cleaned/") and "date" in workspace.contract(n).partitioned_by):
        for day, at in workspace.table(name).partitions_written().items():
            newest[day] = max(newest.get(day, at), at)
    return newest


def _counts(counter: Counter[str]) -> str:
    return ", ".join(f"{n} {kind}" for kind, n in sorted(counter.items())) or "none"


def _first(cases: list[Any]) -> str:
    if not cases:
        return ""
    more = f" … and {len(cases) - MOST_SHOWN} more" if len(cases) > MOST_SHOWN else ""
    return "\n      " + "\n      ".join(str(c) for c in cases[:MOST_SHOWN]) + more
