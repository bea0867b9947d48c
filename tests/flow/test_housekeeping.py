"""Old versions and orphans go; what is there now, and what counts as stale, stay."""

import os
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from lakehouse.flow.housekeeping import keep_house
from lakehouse.flow.staleness import next_steps
from tests.flow.builders import clean_up_to_date, day, land, land_text, reading_lines, village


@pytest.fixture
def site(tmp_path):
    workspace = village(tmp_path / "village")
    land(workspace, "readings", day(19), "r18.csv", reading_lines(day(18)))
    clean_up_to_date(workspace)
    return workspace


def age(folder: Path, days: float) -> None:
    """Makes everything in a lake look as if it had been written days ago, file by file and commit by commit."""
    then = time.time() - days * 86_400
    for path in folder.rglob("*"):
        if path.is_file():
            if path.suffix == ".json" and path.parent.name == "_delta_log":
                now_ms = str(int(datetime.now(UTC).timestamp() * 1000))[:4]
                path.write_text(_older(path.read_text(), now_ms, days))
            os.utime(path, (then, then))


def _older(text: str, now_ms: str, days: float) -> str:
    import re

    stamp = re.compile(rf'("(?:timestamp|modificationTime|deletionTimestamp)":)({now_ms}\d{{9}})')
    return stamp.sub(lambda m: f"{m[1]}{int(m[2]) - int(days * 86_400_000)}", text)


def test_old_versions_and_orphans_go_and_the_rows_stay(site):
    land(site, "readings", day(20), "again.csv", reading_lines(day(18), kwh=lambda hour: 2 + hour / 10))
    clean_up_to_date(site)
    orphan = Path(site.table("cleaned/meter_readings").uri) / "date=2026-03-18" / "orphan.parquet"
    orphan.write_bytes(b"a killed writer left this")
    before = site.table("cleaned/meter_readings").read().sort_by("interval_start")
    age(Path(site.lake.root), 31)
    _, rows = keep_house(site)
    told = {row["table"]: row for row in rows}["cleaned/meter_readings"]
    assert told["removed_files"] >= 2 and told["rows"] == 24 and not orphan.exists()
    assert site.table("cleaned/meter_readings").read().sort_by("interval_start").equals(before)
    assert sum(1 for _ in Path(site.table("cleaned/meter_readings").uri).rglob("*.parquet")) - told["files"] == 1  # the checkpoint


def test_young_versions_and_files_in_the_making_stay(site):
    version = site.table("cleaned/meter_readings").version()
    land(site, "readings", day(20), "again.csv", reading_lines(day(18), kwh=lambda hour: 2 + hour / 10))
    clean_up_to_date(site)
    in_the_making = Path(site.table("cleaned/meter_readings").uri) / "date=2026-03-18" / "half.parquet"
    in_the_making.write_bytes(b"still being written")
    _, rows = keep_house(site)
    assert not any(row["removed_files"] for row in rows) and in_the_making.exists()
    assert site.table("cleaned/meter_readings").read(version=version).num_rows == 24


def test_housekeeping_makes_nothing_stale(site):
    land_text(site, "readings", day(20), "bad.csv", "this is no delivery")
    clean_up_to_date(site)
    age(Path(site.lake.root), 31)
    before = [str(s) for s in next_steps(site)]
    keep_house(site)
    assert [str(s) for s in next_steps(site)] == before


def test_when_rows_were_last_written_is_not_changed_by_housekeeping(site):
    table = site.table("cleaned/meters")
    written = table.last_written()
    assert written and datetime.now(UTC) - written < timedelta(minutes=5)
    Path(table.uri, "orphan.parquet").write_bytes(b"x")
    assert table.vacuum(0, full=True) == ["orphan.parquet"]
    assert table.history(1)[0]["operation"] == "VACUUM END"
    assert table.last_written() == written
