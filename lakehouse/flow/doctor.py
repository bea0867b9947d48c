"""What is wrong with an installation and a site, and which command puts it right: `gridlake doctor`.

Each check looks at one thing and tells what it found; none changes anything. What makes a partition stale is the business of
`lakehouse.flow.staleness`.
"""

from __future__ import annotations

import json
import re
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any, Literal
from urllib.parse import unquote

from lakehouse.errors import GridlakeError
from lakehouse.flow.staleness import next_steps
from lakehouse.flow.workspace import Workspace
from lakehouse.site import SITE_FILE
from lakehouse.storage.lake import LakeTable
from lakehouse.storage.landing import INCOMING, is_finished
from lakehouse.storage.objects import give_access

PROJECT = Path(__file__).resolve().parents[2]
INSTALL = "pip install --constraint constraints.txt --editable ."
OLDEST_PYTHON = (3, 11)
LEFT_BEHIND_AFTER_SECONDS = 3600
"""A file that a writer at work has open is younger than this; one that a killed writer left is older."""
LEAST_FREE_BYTES = 1 << 30
SHOWN = 3

Level = Literal["ok", "warning", "error"]


@dataclass(frozen=True)
class Finding:
    """What a check found.

    Args:
        level: ok, warning (it goes on, look at it) or error (something will not work).
        what: what was found and where, in a sentence.
        remedy: the next step, as a command where there is one.
    """

    level: Level
    what: str
    remedy: str = ""

    def as_dict(self) -> dict[str, str]:
        """For a script."""
        return asdict(self)


def examine(workspace: Workspace) -> list[Finding]:
    """Looks at the installation and at everything the site consists of; changes nothing.

    A check that fails itself is an error among the findings: the others go on.
    """
    checks: tuple[Callable[[], Iterable[Finding]], ...] = (
        lambda: installation(required_packages(), constraints()),
        lambda: _site(workspace),
        lambda: _landing(workspace),
        lambda: _lake(workspace),
        lambda: _catalog(workspace),
        lambda: _stale(workspace),
        lambda: _dagster(workspace),
        lambda: _disk(workspace),
    )
    findings: list[Finding] = []
    for check in checks:
        try:
            findings += check()
        except GridlakeError as error:
            findings.append(Finding("error", error.problem, error.remedy))
        except OSError as error:
            findings.append(Finding("error", f"{error.filename or 'A file'} can't be read: {error.strerror}.", "Check its permissions."))
    return findings


# -- the installation


def required_packages() -> list[str]:
    """Names of the packages that the project depends on, on this platform."""
    from packaging.requirements import Requirement

    described = PROJECT / "pyproject.toml"
    if described.is_file():
        import tomllib

        written = tomllib.loads(described.read_text(encoding="utf-8"))["project"]["dependencies"]
    else:
        written = [r for r in metadata.requires("gridlake") or [] if "extra ==" not in r]
    wanted = [Requirement(line) for line in written]
    return [one.name for one in wanted if one.marker is None or one.marker.evaluate()]


def constraints() -> dict[str, str]:
    """The versions the project was tested with; none where it was installed without its folder."""
    path = PROJECT / "constraints.txt"
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    pinned = (re.match(r"^([\w.-]+)==([^\s;]+)", line) for line in lines)
    return {match.group(1): match.group(2) for match in pinned if match}


def installation(required: Iterable[str], pinned: Mapping[str, str]) -> Iterator[Finding]:
    """Python, the packages that must be there, and their versions beside the pinned ones."""
    running = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info < OLDEST_PYTHON:
        yield Finding("error", f"Expected Python 3.11 or newer, found {running}.", "make run PYTHON=/path/to/python3.11")
    absent = [name for name in required if _installed(name) is None]
    if absent:
        yield Finding("error", f"Packages are missing: {', '.join(absent)}.", INSTALL)
    found = {name: _installed(name) for name in pinned}
    others = [f"{name} {found[name]} (pinned: {version})" for name, version in pinned.items() if found[name] not in (None, version)]
    if others:
        yield Finding("warning", f"{len(others)} packages have other versions than the tested ones: {_some(others)}.", INSTALL)
    if not absent and not others:
        as_pinned = "as pinned" if pinned else "whatever their versions: constraints.txt is not here"
        yield Finding("ok", f"Python {running}; all packages are there, {as_pinned}.")


def _installed(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


# -- the site


def _site(workspace: Workspace) -> Iterator[Finding]:
    site = workspace.site
    until = "where its clock stands" if site.clock else "today"
    yield Finding("ok", f"Site '{site.name}' in {site.home / SITE_FILE}: {site.first_day} to {site.today()}, {until}.")
    if not site.series:
        yield Finding("warning", "The site forecasts nothing.", f"Add series to {site.home / SITE_FILE}; docs/site.md explains them.")


def _landing(workspace: Workspace) -> Iterator[Finding]:
    site, landing = workspace.site, workspace.landing
    command = _command(workspace)
    before = list(_landing_faults(workspace, command))
    yield from before
    files = sum(len(landing.arrivals(feed, day)) for feed in site.feeds for day in landing.deliveries(feed))
    if not before:
        yield Finding("ok", f"Landing: {files:,} files of {len(site.feeds)} feeds.")


def _landing_faults(workspace: Workspace, command: str) -> Iterator[Finding]:
    site, landing = workspace.site, workspace.landing
    silent = [feed for feed in site.feeds if not landing.deliveries(feed)]
    for feed in silent:
        yield Finding("warning", f"Nothing ever landed in the feed {feed}.", f"{command} land {feed} FILES")
    strays = [str(path.relative_to(landing.root)) for path in landing.stray()]
    if strays:
        remedy = f"{command} land FEED FILES puts them where they belong; then remove them."
        yield Finding("warning", f"In {landing.root}, {_count(strays, 'entry', 'entries')} of no delivery: {_some(strays)}.", remedy)
    known = {*site.feeds, INCOMING}
    foreign = [e.name for e in _entries(landing.root) if e.is_dir() and e.name not in known]
    if foreign:
        remedy = f"Add them to feeds in {site.home / SITE_FILE}, or move them away."
        yield Finding("warning", f"Folders in {landing.root} that are no feed: {_some(foreign)}.", remedy)
    for feed in site.feeds:
        outside = [d for d in landing.deliveries(feed) if not site.first_day <= d <= site.today()]
        if outside:
            days = _some([d.isoformat() for d in outside])
            yield Finding(
                "warning",
                f"{_count(outside, 'delivery', 'deliveries')} of {feed} outside {site.first_day} to {site.today()} won't be read: {days}.",
                f"Change first_day or clock in {site.home / SITE_FILE}, or land the files again with --delivered DATE.",
            )
    unfinished = [
        path
        for feed in site.feeds
        for day in landing.deliveries(feed)
        for path in _entries(landing.root / feed / day.isoformat())
        if path.is_file() and not is_finished(path.name) and _is_left_behind(path)
    ]
    unfinished += [path for path in _entries(landing.root / INCOMING) if _is_left_behind(path)]
    if unfinished:
        named = [str(p.relative_to(landing.root)) for p in unfinished]
        remedy = f"Deliver them again, then: rm {_quoted(unfinished)}"
        yield Finding("warning", f"{_count(unfinished, 'file', 'files')} in landing never completed: {_some(named)}.", remedy)


# -- the lake


def _lake(workspace: Workspace) -> Iterator[Finding]:
    command = _command(workspace)
    there = [name for name in workspace.contracts if workspace.table(name).exists()]
    absent = [name for name in workspace.contracts if name not in there]
    if not there:
        yield Finding("warning", f"The lake is empty: {workspace.site.lake_uri}.", f"{command} refresh")
        return
    if absent:
        yield Finding("warning", f"{_count(absent, 'table', 'tables')} not there yet: {_some(absent)}.", f"{command} refresh")
    faults = list(_files_of_tables(workspace, there)) if workspace.lake.is_local else []
    yield from faults
    if not faults:
        local = "each file of their newest versions is there, and no orphan beside them"
        yield Finding(
            "ok", f"Lake: {len(there)} tables; {local if workspace.lake.is_local else 'files on an object store are not looked at'}."
        )


def _files_of_tables(workspace: Workspace, names: Iterable[str]) -> Iterator[Finding]:
    orphans: list[Path] = []
    for name in names:
        table = workspace.table(name)
        gone = [file.path for file in table.files() if not Path(file.path).is_file()]
        if gone:
            remedy = f"Restore {table.uri} from a backup; docs/operations.md tells what can be made again without one."
            told = f"{name}: {_count(gone, 'file', 'files')} of its newest version gone: {_some(Path(p).name for p in gone)}."
            yield Finding("error", told, remedy)
        orphans += orphan_files(table)
    if orphans:
        size = sum(path.stat().st_size for path in orphans)
        named = [str(p.relative_to(workspace.lake.root)) for p in orphans]
        yield Finding(
            "warning",
            f"{_count(orphans, 'file', 'files')} ({size / 1e6:,.1f} MB) in the lake are of no version, a killed writer's: {_some(named)}.",
            f"Harmless. While nothing is running: rm {_quoted(orphans)}",
        )


def orphan_files(table: LakeTable) -> list[Path]:
    """Parquet files below a local table's folder that no version in its log names, and that no writer at work can have written."""
    folder = Path(table.uri)
    named = _named_in_log(folder / "_delta_log")
    return sorted(
        path
        for path in folder.rglob("*.parquet")
        if "_delta_log" not in path.parts and str(path.relative_to(folder)) not in named and _is_left_behind(path)
    )


def _named_in_log(log: Path) -> set[str]:
    """Paths of all files that commits and checkpoints add or remove, relative to the table's folder."""
    named: set[str] = set()
    for commit in log.glob("*.json"):
        for line in commit.read_text(encoding="utf-8").splitlines():
            action = json.loads(line) if line.strip() else {}
            named |= {unquote(action[kind]["path"]) for kind in ("add", "remove") if kind in action}
    for checkpoint in log.glob("*.parquet"):
        import pyarrow.parquet as pq

        held = pq.read_table(checkpoint)
        for kind in ("add", "remove"):
            if kind in held.column_names:
                named |= {unquote(one["path"]) for one in held.column(kind).to_pylist() if one and one["path"]}
    return named


def _stale(workspace: Workspace) -> Iterator[Finding]:
    if not any(workspace.table(name).exists() for name in workspace.contracts):
        return  # an empty lake is told already
    steps = next_steps(workspace)
    for step in steps:
        tables = ", ".join(step.tables)
        if step.days is None:
            stale = f"{tables}: stale"
        elif step.days[0] == step.days[1]:
            stale = f"1 day of {tables} is stale, {step.days[0]}"
        else:
            stale = f"{(step.days[1] - step.days[0]).days + 1:,} days of {tables} are stale, {step.days[0]} to {step.days[1]}"
        follows = "; what rests on it follows" if step is steps[-1] else ""
        yield Finding("warning", f"{stale} ({step.reason}){follows}.", f"{_command(workspace)} refresh")
    if not steps:
        yield Finding("ok", "Nothing is stale.")


# -- beside the lake


def _catalog(workspace: Workspace) -> Iterator[Finding]:
    path = workspace.site.path("catalog")
    remedy = f"{_command(workspace)} refresh"
    left = [p for p in _entries(path.parent) if p.name.startswith(f".{path.name}.") and p.suffix != ".lock" and _is_left_behind(p)]
    if left:
        told = f"A killed run left {_count(left, 'file', 'files')} beside the catalog: {_some(p.name for p in left)}."
        yield Finding("warning", told, f"rm {_quoted(left)}")
    if not path.is_file():
        if any(workspace.table(name).exists() for name in workspace.contracts):
            yield Finding("warning", f"There is no catalog at {path}.", remedy)
        return
    fault = _fault_of_catalog(workspace, path, remedy)
    if fault:
        yield fault
        return
    published = datetime.fromtimestamp(path.stat().st_mtime, UTC)
    newest = max((_committed_at(workspace.table(name)) for name in workspace.contracts), default=published)
    if newest > published:
        told = f"The catalog is of {published:%Y-%m-%d %H:%M:%S} UTC, the lake's newest commit of {newest:%Y-%m-%d %H:%M:%S}."
        yield Finding("warning", told, f"If no run is at work: {remedy}")
    else:
        yield Finding("ok", f"Catalog: {path}, published {published:%Y-%m-%d %H:%M} UTC, as new as the lake.")


def _fault_of_catalog(workspace: Workspace, path: Path, remedy: str) -> Finding | None:
    import duckdb

    try:
        with duckdb.connect() as engine:
            give_access(engine, workspace.lake)
            engine.execute("SET TimeZone = 'UTC'")
            engine.execute(f"ATTACH '{str(path).replace(chr(39), chr(39) * 2)}' AS catalog (READ_ONLY)")
            views = engine.execute("SELECT schema_name, view_name FROM duckdb_views() WHERE database_name = 'catalog' AND NOT internal")
            for schema, name in views.fetchall():
                engine.execute(f'SELECT * FROM catalog."{schema}"."{name}" LIMIT 0')
    except duckdb.Error as error:
        told = str(error).splitlines()[0]
        if "lock" in told.lower():
            advice = "Close that program; open the catalog with READ_ONLY."
            return Finding("error", f"Somebody has {path} open for writing: {told}", advice)
        if "no files found" in told.lower():
            return Finding("error", f"The catalog points at files that are gone (was the site's folder moved?): {told}", remedy)
        return Finding("error", f"The catalog can't be read: {told}", f"rm {_quoted([path])} and then: {remedy}")
    return None


def _committed_at(table: LakeTable) -> datetime:
    newest = table.history(1)
    return datetime.fromtimestamp(newest[0]["timestamp"] / 1000, UTC) if newest else datetime.min.replace(tzinfo=UTC)


def _dagster(workspace: Workspace) -> Iterator[Finding]:
    folder = workspace.site.path("dagster")
    settings = folder / "dagster.yaml"
    remedy = f"{_command(workspace)} refresh writes it."
    if not settings.is_file():
        yield Finding("warning", f"Dagster's settings are missing: {settings}.", remedy)
    elif str(folder) not in settings.read_text(encoding="utf-8"):
        yield Finding("warning", f"{settings} names another folder (was the site moved?).", remedy)
    else:
        yield Finding("ok", f"Dagster keeps its runs in {folder}.")


def _disk(workspace: Workspace) -> Iterator[Finding]:
    folders = {"the site": workspace.site.home, "landing": workspace.site.path("landing")}
    if workspace.lake.is_local:
        folders["the lake"] = Path(workspace.lake.root)
    free = {what: shutil.disk_usage(_nearest(folder)).free for what, folder in folders.items()}
    scarce = [f"{what} ({folders[what]}): {_size(left)}" for what, left in free.items() if left < LEAST_FREE_BYTES]
    if scarce:
        yield Finding("error", f"Little space is left for {'; '.join(scarce)}.", "docs/operations.md tells how old versions are removed.")
    else:
        yield Finding("ok", f"Disk: {_size(min(free.values()))} free.")


# -- small change


def _command(workspace: Workspace) -> str:
    return f"gridlake --home {_quoted([workspace.site.home])}"


def _quoted(paths: Iterable[Path]) -> str:
    import shlex

    return " ".join(shlex.quote(str(p)) for p in paths)


def _entries(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []


def _nearest(folder: Path) -> Path:
    return next(p for p in (folder, *folder.parents) if p.exists())


def _is_left_behind(path: Path) -> bool:
    try:
        return time.time() - path.stat().st_mtime > LEFT_BEHIND_AFTER_SECONDS
    except FileNotFoundError:
        return False


def _some(names: Iterable[str]) -> str:
    listed = list(names)
    return ", ".join(listed[:SHOWN]) + (f" and {len(listed) - SHOWN} more" if len(listed) > SHOWN else "")


def _count(things: list[Any], one: str, many: str) -> str:
    return f"{len(things):,} {one if len(things) == 1 else many}"


def _size(number: float) -> str:
    return f"{number / 1e9:,.1f} GB"
