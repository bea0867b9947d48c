"""In which order days are cleaned is of no account in the end: who was cleaned before its past is cleaned again."""

from __future__ import annotations

import random
import shutil
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from lakehouse.flow.clean import clean_meters, clean_readings_days, write_codes
from lakehouse.flow.staleness import next_steps
from lakehouse.flow.workspace import Workspace
from tests.flow.builders import clean_up_to_date, day, land, read_all, reading_lines, rows_told, village

TABLES = ("cleaned/meter_readings", "quality/vee_report", "quality/edits", "quality/quarantine", "quality/conservation")
DAYS = range(1, 11)
READINGS = "cleaned/meter_readings"


@pytest.fixture(scope="module")
def landed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten days of three meters of which hours are missing, so that much is estimated from the days before; read, and not cleaned."""
    home = tmp_path_factory.mktemp("past")
    workspace = village(home)
    chance = random.Random(7)
    for n in DAYS:
        lines = []
        for at, meter in enumerate("ABC"):
            of = reading_lines(day(n), meter=meter, kwh=lambda h, at=at: 1 + at + (h * (5 + at) % 24) / 10 + chance.random())
            gap = chance.randrange(0, 18)
            lines += of[:gap] + of[gap + chance.randrange(2, 6) :]
        land(workspace, "readings", day(n + 1), f"n{n}.csv", lines)
    read_all(workspace)
    clean_meters(workspace)
    write_codes(workspace)
    return home


@pytest.fixture
def workspace(landed: Path, tmp_path: Path) -> Workspace:
    return Workspace.open(shutil.copytree(landed, tmp_path / "copy"))


@pytest.fixture(scope="module")
def in_order(landed: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    workspace = Workspace.open(shutil.copytree(landed, tmp_path_factory.mktemp("order") / "copy"))
    clean_up_to_date(workspace)
    return contents(workspace)


def contents(workspace: Workspace) -> dict[str, list[str]]:
    return {name: rows_told(workspace, name) for name in TABLES}


def lacking(workspace: Workspace) -> dict[date, int]:
    rows: list[dict[str, Any]] = workspace.table("quality/conservation").read("feed = 'readings'").to_pylist()
    return {row["date"]: row["missing_past_days"] for row in rows if row["missing_past_days"]}


@pytest.mark.parametrize("seed", [1, 2])
def test_days_cleaned_in_any_order_are_in_the_end_as_if_cleaned_one_after_the_other(
    workspace: Workspace, in_order: dict[str, list[str]], seed: int
):
    days = list(DAYS)
    random.Random(seed).shuffle(days)
    for n in days:
        clean_readings_days(workspace, day(n), day(n))
    assert contents(workspace)[READINGS] != in_order[READINGS]
    assert lacking(workspace)
    clean_up_to_date(workspace)
    assert contents(workspace) == in_order
    assert not lacking(workspace)


def test_only_days_that_lacked_some_of_their_past_are_cleaned_again(workspace: Workspace):
    for n in (1, 2, 4, 3, 5):
        clean_readings_days(workspace, day(n), day(n))
    # the third was missing when the fourth was cleaned, and the fifth rests on the fourth
    assert lacking(workspace) == {day(4): 1, day(5): 1}
    clean_readings_days(workspace, day(6), day(10))
    [step] = [s for s in next_steps(workspace, until="cleaned") if READINGS in s.tables]
    assert (step.days, step.reason) == ((day(4), day(10)), "days before these were cleaned after them")


def test_a_day_whose_past_is_not_there_yet_waits_for_it(workspace: Workspace):
    clean_readings_days(workspace, day(6), day(7))
    assert lacking(workspace) == {day(6): 5, day(7): 6}
    stale = [s.days for s in next_steps(workspace, until="cleaned") if READINGS in s.tables]
    assert stale == [(day(1), day(5)), (day(8), day(10))]


def test_a_past_day_that_is_corrected_makes_no_later_day_stale(workspace: Workspace):
    clean_up_to_date(workspace)
    land(workspace, "readings", day(18), "late.csv", reading_lines(day(3), meter="A", kwh=lambda h: 4 + h / 10))
    taken = clean_up_to_date(workspace)
    assert [s.days for s in taken if READINGS in s.tables] == [(day(3), day(3))]
    assert not lacking(workspace)
