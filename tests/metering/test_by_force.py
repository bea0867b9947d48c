"""By force: killed at random moments, and many processes at once. The tables stay readable and the work ends as if undisturbed."""

from __future__ import annotations

import multiprocessing
import random
import shutil
import time
from pathlib import Path
from typing import Any

import pytest

from lakehouse.errors import GridlakeError
from lakehouse.flow.clean import clean_meters, clean_readings_days
from lakehouse.flow.raw import read_deliveries
from lakehouse.flow.workspace import Workspace
from tests.flow.builders import FIRST_DAY, clean_up_to_date, day, land, reading_lines, village

KILLS = 50
TABLES = (
    "raw/readings",
    "quality/deliveries",
    "cleaned/meter_readings",
    "quality/vee_report",
    "quality/quarantine",
    "quality/conservation",
)
FEED = "readings"
READING_DAYS = [day(n) for n in range(1, 9)]
# Which attempt wrote a row, and when, is no part of what the row says.
MOMENTS = ("modified_at", "read_at")


def processes() -> Any:
    """Processes that begin with all imported and nothing opened: a fork of one that has used threads could hang."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["lakehouse.flow.raw", "lakehouse.flow.clean", "lakehouse.metering.vee", "deltalake", "pandera.pyarrow"])
    return context


def delivered_site(home: Path) -> Workspace:
    """Eight days of three meters, each delivered a day later."""
    workspace = village(home)
    for of in READING_DAYS:
        lines = [line for meter in "ABC" for line in reading_lines(of, meter=meter)]
        land(workspace, FEED, of.replace(day=of.day + 1), "north.csv", lines)
    return workspace


def read_and_clean(home: str, first: int, last: int) -> None:
    """What a run does: raw of the deliveries, and the days that they are about."""
    workspace = Workspace.open(Path(home))
    read_deliveries(workspace, FEED, [day(n + 1) for n in range(first, last + 1)])
    clean_readings_days(workspace, day(first), day(last))


def clean_one(home: str, number: int, start: Any, errors: Any) -> None:
    """Cleans one day at the same moment as others."""
    workspace = Workspace.open(Path(home))
    start.wait()
    try:
        clean_readings_days(workspace, day(number), day(number))
    except GridlakeError as error:
        errors.put(str(error))


def content(workspace: Workspace, table: str) -> list[str]:
    """All rows of a table, in an order of their own."""
    rows = workspace.table(table).read().to_pylist()
    return sorted(repr({k: v for k, v in row.items() if k not in MOMENTS}) for row in rows)


def contents(workspace: Workspace) -> dict[str, list[str]]:
    return {table: content(workspace, table) for table in TABLES}


@pytest.fixture(scope="module")
def before_and_after(tmp_path_factory):
    """A site with a correction landed and not yet read; and the contents of its tables before and after the undisturbed work."""
    home = tmp_path_factory.mktemp("village")
    workspace = delivered_site(home)
    read_deliveries(workspace, FEED, [day(n + 1) for n in range(1, 9)])
    clean_meters(workspace)
    clean_readings_days(workspace, FIRST_DAY, day(8))
    corrected = [line for meter in "ABC" for line in reading_lines(day(3), meter=meter, kwh=lambda hour: 2 + hour / 10)]
    land(workspace, FEED, day(5), "correction.csv", [*corrected, "A,import,not a moment,60,1.0,A"])
    undisturbed = home.parent / "undisturbed"
    shutil.copytree(home, undisturbed)
    warm = processes().Process(target=time.sleep, args=(0,))  # the first one waits for the imports
    warm.start()
    warm.join()
    begun = time.perf_counter()
    worker = processes().Process(target=read_and_clean, args=(str(undisturbed), 3, 4))
    worker.start()
    worker.join()
    assert worker.exitcode == 0
    took = time.perf_counter() - begun
    old, new = contents(workspace), contents(Workspace.open(undisturbed))
    assert all(old[table] != new[table] for table in ("raw/readings", "cleaned/meter_readings", "quality/conservation"))
    return home, old, new, took


@pytest.mark.slow
def test_killed_at_any_moment_every_table_is_at_the_old_or_the_new_version_and_the_rerun_ends_as_if_undisturbed(before_and_after, tmp_path):
    home, old, new, took = before_and_after
    rng = random.Random(1)
    seen, orphans = set(), 0
    for n in range(KILLS):
        site = tmp_path / f"killed_{n}"
        shutil.copytree(home, site)
        worker = processes().Process(target=read_and_clean, args=(str(site), 3, 4))
        worker.start()
        time.sleep(rng.uniform(0, 1.1 * took))
        worker.kill()  # SIGKILL
        worker.join()
        workspace = Workspace.open(site)
        found = contents(workspace)
        for table in TABLES:
            assert found[table] in (old[table], new[table]), table
        seen.add(tuple(found[table] == new[table] for table in TABLES))
        read_and_clean(str(site), 3, 4)
        assert contents(workspace) == new
        for table in TABLES:  # what the killed writer left goes, and nothing else
            orphans += len(workspace.table(table).vacuum(0, full=True))
        assert contents(workspace) == new
        shutil.rmtree(site)
    assert len(seen) > 2, "the moments were not spread over the work"
    assert orphans


@pytest.mark.slow
def test_eight_processes_cleaning_eight_days_at_once_lose_nothing(tmp_path):
    together, alone = delivered_site(tmp_path / "together"), delivered_site(tmp_path / "alone")
    for workspace in (together, alone):
        read_deliveries(workspace, FEED, [day(n + 1) for n in range(1, 9)])
        clean_meters(workspace)
    for number in range(1, 9):
        clean_readings_days(alone, day(number), day(number))
    at_once(together, range(1, 9))
    clean_up_to_date(together)  # those that were cleaned before their past, once more
    assert contents(together) == contents(alone)


@pytest.mark.slow
def test_two_processes_cleaning_the_same_day_both_end_well(tmp_path):
    workspace = delivered_site(tmp_path)
    read_deliveries(workspace, FEED, [day(n + 1) for n in range(1, 9)])
    clean_meters(workspace)
    clean_readings_days(workspace, day(1), day(8))
    expected = contents(workspace)
    for _ in range(3):
        at_once(workspace, [5, 5])
        assert contents(workspace) == expected


def at_once(workspace: Workspace, numbers: Any) -> None:
    """Cleans days in processes that start together, and asserts that none told an error."""
    context = processes()
    start, errors = context.Event(), context.Queue()
    workers = [context.Process(target=clean_one, args=(str(workspace.site.home), n, start, errors)) for n in numbers]
    for worker in workers:
        worker.start()
    start.set()
    for worker in workers:
        worker.join()
    assert errors.empty(), errors.get()
    assert [worker.exitcode for worker in workers] == [0] * len(workers)
