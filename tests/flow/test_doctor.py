"""The doctor names what is wrong with a site, each with the command that puts it right, and changes nothing."""

import os
import shutil
import time
from datetime import date, timedelta
from pathlib import Path

import duckdb
import pytest

from lakehouse.flow import doctor
from lakehouse.flow.raw import read_deliveries
from lakehouse.flow.setup import init_site
from lakehouse.flow.workspace import Workspace

TWO_HOURS = 7200


@pytest.fixture(scope="module")
def small_site(tmp_path_factory):
    """Thirty days of five meters, of which the registry and the prices were read; the clock stands still."""
    home = tmp_path_factory.mktemp("small") / "site"
    init_site(home, days=30, meters=5, until=date(2026, 4, 15))
    workspace = Workspace.open(home)
    for feed in ("meters", "prices"):
        read_deliveries(workspace, feed, workspace.landing.deliveries(feed))
    return home


@pytest.fixture
def workspace(small_site, tmp_path):
    """A copy of the small site to spoil, with its catalog published."""
    shutil.copytree(small_site, tmp_path / "site")
    copy = Workspace.open(tmp_path / "site")
    copy.publish()
    return copy


def told(workspace, level):
    return [f"{f.what} {f.remedy}" for f in doctor.examine(workspace) if f.level == level]


def one_that_says(findings, words):
    found = [f for f in findings if words in f]
    assert len(found) == 1, f"expected one finding with '{words}', found {findings}"
    return found[0]


def aged(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        path.write_bytes(b"left behind")
    then = time.time() - TWO_HOURS
    os.utime(path, (then, then))
    return path


def test_a_sound_site_has_no_errors_and_says_what_is_still_to_be_made(workspace):
    assert told(workspace, "error") == []
    assert one_that_says(told(workspace, "ok"), "Site 'sample'").count("2026-03-16 to 2026-04-15, where its clock stands") == 1
    waiting = one_that_says(told(workspace, "warning"), "30 days of raw/meter_readings are stale, 2026-03-17 to 2026-04-15")
    assert waiting.endswith(f"gridlake --home {workspace.site.home} refresh")


def test_a_site_whose_lake_is_empty_is_told_to_refresh(small_site, tmp_path):
    for part in ("gridlake.yaml", "landing"):
        (shutil.copytree if part == "landing" else shutil.copy)(small_site / part, tmp_path / part)
    fresh = Workspace.open(tmp_path)
    assert one_that_says(told(fresh, "warning"), "The lake is empty").endswith(f"gridlake --home {tmp_path} refresh")
    assert not any("catalog" in f.lower() for f in told(fresh, "warning") + told(fresh, "error"))


def test_old_files_that_no_version_names_are_orphans_and_young_ones_are_not(workspace):
    table = workspace.table("raw/prices")
    partition = next(p for p in (workspace.site.home / "lake/raw/prices").iterdir() if p.name.startswith("delivery_date="))
    killed = aged(partition / "part-00000-killed.parquet")
    (partition / "part-00000-at-work.parquet").write_bytes(b"still growing")
    for of_the_table in partition.parent.rglob("*-c000*.parquet"):
        aged(of_the_table)
    assert doctor.orphan_files(table) == [killed]
    assert "part-00000-killed.parquet" in one_that_says(told(workspace, "warning"), "are of no version")


def test_files_that_an_older_version_or_a_checkpoint_names_are_no_orphans(workspace):
    table = workspace.table("raw/prices")
    day = workspace.landing.deliveries("prices")[0]
    replaced = [f.path for f in table.files() if f.partition["delivery_date"] == day]
    read_deliveries(workspace, "prices", [day])
    table.delta().create_checkpoint()
    commits = sorted((workspace.site.home / "lake/raw/prices/_delta_log").glob("*.json"))
    for commit in commits:
        commit.unlink()  # as the cleaning of the log does once there is a checkpoint
    for path in (workspace.site.home / "lake/raw/prices").rglob("*.parquet"):
        aged(path)
    assert replaced and replaced[0] not in [f.path for f in table.files()]
    assert doctor.orphan_files(table) == []


def test_a_file_of_the_newest_version_that_is_gone_is_an_error(workspace):
    gone = Path(workspace.table("raw/meters").files()[0].path)
    gone.unlink()
    assert gone.name in one_that_says(told(workspace, "error"), "raw/meters: 1 file of its newest version gone")


def test_strays_foreign_folders_and_unfinished_files_in_landing_are_named(workspace):
    landing = workspace.site.path("landing")
    (landing / "note.txt").write_text("x")
    (landing / "priecs" / "2026-04-01").mkdir(parents=True)
    aged(landing / "prices" / "2026-04-01" / "prices.csv.part")
    (landing / "prices" / "2026-04-01" / "growing.csv.part").write_text("x")
    aged(landing / ".incoming" / "0123")
    warnings = told(workspace, "warning")
    assert "1 entry of no delivery: note.txt" in one_that_says(warnings, "note.txt")
    one_that_says(warnings, "no feed: priecs.")
    named = "prices/2026-04-01/prices.csv.part, .incoming/0123"
    assert f"2 files in landing never completed: {named}" in one_that_says(warnings, "never completed")


def test_deliveries_outside_the_calendar_and_silent_feeds_are_named(workspace):
    site = workspace.site
    after = site.today() + timedelta(days=1)
    folder = site.path("landing") / "prices" / after.isoformat()
    folder.mkdir()
    (folder / "prices.csv").write_text("x")
    shutil.rmtree(site.path("landing") / "fleet")
    warnings = told(workspace, "warning")
    assert "1 delivery of prices outside 2026-03-16 to 2026-04-15 won't be read: 2026-04-16" in one_that_says(warnings, "won't be read")
    assert one_that_says(warnings, "Nothing ever landed in the feed fleet").endswith("land fleet FILES")


def test_a_catalog_older_than_the_lake_or_none_at_all_is_told(workspace):
    catalog = workspace.site.path("catalog")
    aged(catalog)
    assert "refresh" in one_that_says(told(workspace, "warning"), "The catalog is of")
    catalog.unlink()
    one_that_says(told(workspace, "warning"), f"There is no catalog at {catalog}")


def test_a_catalog_that_is_none_is_an_error(workspace):
    workspace.site.path("catalog").write_bytes(b"no database, whatever its name says")
    one_that_says(told(workspace, "error"), "The catalog can't be read")


def test_a_site_that_was_moved_is_told_to_publish_its_catalog_again(workspace, tmp_path):
    shutil.move(workspace.site.home, tmp_path / "elsewhere")
    moved = Workspace.open(tmp_path / "elsewhere")
    assert one_that_says(told(moved, "error"), "was the site's folder moved?").endswith("refresh")
    one_that_says(told(moved, "warning"), "dagster.yaml names another folder")


def test_what_a_killed_publisher_left_is_named_and_the_lock_is_not(workspace):
    home = workspace.site.home
    aged(home / ".catalog.duckdb.0123abcd")
    aged(home / ".catalog.duckdb.lock")
    found = one_that_says(told(workspace, "warning"), "beside the catalog")
    assert "1 file" in found and found.endswith(f"rm {home / '.catalog.duckdb.0123abcd'}")


def test_packages_that_are_missing_or_of_another_version_are_named():
    findings = list(doctor.installation(["duckdb", "no-such-package"], {"duckdb": "0.0.1", "not-installed-either": "1.0"}))
    assert [f.level for f in findings] == ["error", "warning"]
    assert "no-such-package" in findings[0].what and "duckdb" not in findings[0].what
    assert f"duckdb {duckdb.__version__} (pinned: 0.0.1)" in findings[1].what and "not-installed-either" not in findings[1].what
    assert [f.level for f in doctor.installation(["duckdb"], {"duckdb": duckdb.__version__})] == ["ok"]


def test_the_project_knows_its_packages_and_their_versions():
    assert {"duckdb", "deltalake", "dagster"} <= set(doctor.required_packages())
    assert doctor.constraints()["duckdb"].count(".") == 2
