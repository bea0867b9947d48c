"""Buildings without timestamps."""

from __future__ import annotations

import os
from datetime import UTC, date, datetime
from pathlib import Path

import pyarrow as pa
import pytest

from lakehouse.sources.base import LandedFile, ReadOptions, read_file

HEADER = "month,hour,day_type,non_shiftable_load,dhw_demand,solar_generation\n"
PUBLISHED_START = "2016-07-31 23:00"


def table_of(path: Path, zone: str = "Etc/GMT+8", **settings: object) -> pa.Table:
    landed = LandedFile(path, path.name, date(2026, 1, 1), "meters")
    return pa.concat_tables(read_file(landed, "citylearn", ReadOptions(zone, settings)))


def read(tmp_path: Path, text: str, zone: str = "Etc/GMT+8", **settings: object) -> list[dict]:
    path = tmp_path / "Building_1.csv"
    path.write_text(HEADER + text, encoding="utf-8")
    return table_of(path, zone, **settings).to_pylist()


def test_lines_are_counted_from_the_first_interval_and_checked(tmp_path: Path):
    rows = read(tmp_path, "7,24,7,2.5,,0\n8,1,1,0.5,0.1,100\n8,3,1,9,9,9\n", first_interval=PUBLISHED_START, pv_kw=4)
    good = [(r["register"], r["interval_start"], r["energy_kwh"]) for r in rows if not r["fault"]]
    assert good == [
        ("export_pv", datetime(2016, 8, 1, 7, tzinfo=UTC), 0.0),
        ("import", datetime(2016, 8, 1, 7, tzinfo=UTC), 2.5),
        ("export_pv", datetime(2016, 8, 1, 8, tzinfo=UTC), 0.4),
        ("hot_water", datetime(2016, 8, 1, 8, tzinfo=UTC), 0.1),
        ("import", datetime(2016, 8, 1, 8, tzinfo=UTC), 0.5),
    ]
    (fault,) = [r["fault"] for r in rows if r["fault"]]
    assert fault == "expected month 8, hour 2, day 1 by counting from first_interval, found 8, 3, 1"


def test_without_a_first_interval_the_file_says_what_to_set(tmp_path: Path):
    (row,) = read(tmp_path, "7,24,7,2.5,,0\n")
    assert "expected the option first_interval" in row["fault"]


@pytest.mark.real_data
def test_the_published_buildings_follow_their_calendar():
    root = Path(os.environ.get("GRIDLAKE_DATA") or Path(__file__).parents[3] / "shared" / "data") / "meters" / "citylearn2022"
    if not root.exists():
        pytest.skip("needs the published data meters/citylearn2022 below GRIDLAKE_DATA")
    for path in sorted(root.glob("Building_*.csv.gz")):
        table = table_of(path, first_interval=PUBLISHED_START)
        assert table["fault"].null_count == table.num_rows == 4 * 6552
