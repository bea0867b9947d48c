"""Exports of the transparency platform: two clocks, half-filled files, what a file's name tells."""

from __future__ import annotations

import os
from datetime import UTC, date, datetime
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest

from lakehouse.sources.base import LandedFile, ReadOptions, read_file
from lakehouse.sources.entsoe import delivered_on

OLD = '"Time (CET)","Day-ahead Total Load Forecast [MW] - BZN|ES","Actual Total Load [MW] - BZN|ES"\n'
NEW = '"MTU (CET/CEST)","Area","Actual Total Load (MW)","Day-ahead Total Load Forecast (MW)"\n'
WIND = '"MTU (CET/CEST)","Area","Day-ahead (MW)","Intraday (MW)","Current (MW)","Actual (MW)"\n'


def read(tmp_path: Path, text: str, name: str = "GUI_TOTAL_LOAD_DAYAHEAD_201512312300-201612312300.csv", **settings: object) -> list[dict]:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return read_path(path, **settings)


def read_path(path: Path, **settings: object) -> list[dict]:
    landed = LandedFile(path, path.name, date(2017, 1, 1), "load")
    return pa.concat_tables(read_file(landed, "entsoe_export", ReadOptions("Europe/Madrid", settings))).to_pylist()


def actual(rows: list[dict]) -> list[tuple[datetime, float]]:
    return [(r["interval_start"], r["value"]) for r in rows if not r["is_forecast"]]


def utc(*parts: int) -> datetime:
    return datetime(*parts, tzinfo=UTC)


def test_a_quarter_hour_of_the_newer_export(tmp_path: Path):
    load, forecast = read(tmp_path, NEW + '"01/01/2016 00:00 - 01/01/2016 00:15","BZN|DE-AT-LU","51007.29","47222.26"\n')
    assert (load["interval_start"], load["interval_minutes"], load["value"]) == (utc(2015, 12, 31, 23), 15, 51007.29)
    assert (load["series_id"], load["quantity"], load["is_forecast"]) == ("DE-AT-LU", "load_mw", False)
    assert (forecast["value"], forecast["is_forecast"]) == (47222.26, True)


def test_the_marked_clock_changes_lose_and_gain_one_hour(tmp_path: Path):
    spring = read(
        tmp_path,
        NEW
        + '"27/03/2016 01:30 - 27/03/2016 01:45 (CET)","BZN|DE","1","n/e"\n'
        + '"27/03/2016 01:45 (CET) - 27/03/2016 03:00 (CEST)","BZN|DE","2","n/e"\n'
        + '"27/03/2016 03:00 (CEST) - 27/03/2016 03:15","BZN|DE","3","n/e"\n',
    )
    autumn = read(
        tmp_path,
        NEW
        + '"30/10/2016 02:45 (CEST) - 30/10/2016 02:00 (CET)","BZN|DE","4","n/e"\n'
        + '"30/10/2016 02:00 (CET) - 30/10/2016 02:15 (CET)","BZN|DE","5","n/e"\n'
        + '"30/10/2016 02:15 (CET) - 30/10/2016 02:30 (CET)","BZN|DE","6","n/e"\n',
    )
    assert actual(spring) == [(utc(2016, 3, 27, 0, 30), 1.0), (utc(2016, 3, 27, 0, 45), 2.0), (utc(2016, 3, 27, 1), 3.0)]
    assert actual(autumn) == [(utc(2016, 10, 30, 0, 45), 4.0), (utc(2016, 10, 30, 1), 5.0), (utc(2016, 10, 30, 1, 15), 6.0)]
    assert {r["interval_minutes"] for r in spring + autumn} == {15}


def test_the_older_export_repeats_the_autumn_hour_in_order_and_leaves_the_spring_hour_empty(tmp_path: Path):
    rows = read(
        tmp_path,
        OLD
        + '"29.03.2015 01:00 - 29.03.2015 02:00","22633","22123"\n'
        + '"29.03.2015 02:00 - 29.03.2015 03:00","",""\n'
        + '"29.03.2015 03:00 - 29.03.2015 04:00","20770","20906"\n'
        + '"25.10.2015 02:00 - 25.10.2015 03:00","20571","20261"\n'
        + '"25.10.2015 02:00 - 25.10.2015 03:00","19764","19775"\n',
        "Total Load - Day Ahead _ Actual_2015.csv",
    )
    assert actual(rows) == [
        (utc(2015, 3, 29, 0), 22123.0),
        (utc(2015, 3, 29, 1), 20906.0),
        (utc(2015, 10, 25, 0), 20261.0),
        (utc(2015, 10, 25, 1), 19775.0),
    ]
    assert {r["series_id"] for r in rows} == {"ES"}


def test_a_value_in_the_hour_that_the_clock_leaves_out_is_a_fault(tmp_path: Path):
    (row,) = read(tmp_path, OLD + '"29.03.2015 02:00 - 29.03.2015 03:00","","500"\n')
    assert row["fault"] == "expected a time that the clock of Europe/Brussels shows, found 2015-03-29 02:00"


@pytest.mark.parametrize("token", ["n/e", "N/A", "-", " ", ""])
def test_missing_tokens_are_no_value_and_no_fault(tmp_path: Path, token: str):
    (row,) = read(tmp_path, NEW + f'"01/01/2016 00:00 - 01/01/2016 00:15","BZN|DE-LU","{token}","5"\n')
    assert (row["value"], row["is_forecast"], row["fault"]) == (5.0, True, None)


def test_the_files_name_tells_the_technology(tmp_path: Path):
    line = '"01/01/2015 00:00:00 - 01/01/2015 00:15:00","BZN|DE-AT-LU","258.00","219.00"," ","524.39"\n'
    rows = read(tmp_path, WIND + line, "GUI_WIND_SOLAR_GENERATION_FORECAST_OFFSHORE_201412312300-201512312300.csv")
    assert [(r["series_id"], r["is_forecast"], r["value"]) for r in rows] == [
        ("wind_offshore", True, 258.0),
        ("wind_offshore", False, 524.39),
        ("wind_offshore_intraday", True, 219.0),
    ]
    (unnamed,) = read(tmp_path, WIND + line, "export.csv")
    assert "set the feed's options.technology" in unnamed["fault"]
    assert read(tmp_path, WIND + line, "export.csv", technology="solar")[0]["series_id"] == "solar"


def test_an_area_that_was_not_meant_is_told_and_not_mixed_in(tmp_path: Path):
    text = NEW + '"01/01/2016 00:00 - 01/01/2016 00:15","BZN|DE-LU","1","2"\n' + '"01/01/2016 00:15 - 01/01/2016 00:30","BZN|FR","3","4"\n'
    german, forecast, french = read(tmp_path, text, areas=["DE-LU"], series="DE")
    assert (german["series_id"], forecast["series_id"]) == ("DE", "DE")
    assert french["fault"] == "expected an area among DE-LU, found 'FR'"


def test_prices_name_their_auction(tmp_path: Path):
    header = '"MTU (CET/CEST)","Area","Sequence","Day-ahead Price (EUR/MWh)","Intraday Period (CET/CEST)","Intraday Price (EUR/MWh)"\n'
    line = '"05/01/2025 00:00:00 - 05/01/2025 01:00:00","BZN|DE-LU","{}","{}","",""\n'
    rows = read(
        tmp_path, header + line.format("Without Sequence", "22.34") + line.format("Sequence Sequence 2", "-3"), "GUI_ENERGY_PRICES.csv"
    )
    assert [(r["series_id"], r["value"], r["interval_start"]) for r in rows] == [
        ("day_ahead", 22.34, utc(2025, 1, 4, 23)),
        ("day_ahead_2", -3.0, utc(2025, 1, 4, 23)),
    ]


def test_a_broken_line_is_told_once_and_a_broken_file_names_its_first_column(tmp_path: Path):
    broken, *rest = read(tmp_path, NEW + '"yesterday","BZN|DE","1","2"\n' + '"01/01/2016 00:00 - 01/01/2016 00:15","BZN|DE","x","2"\n')
    assert "found 'yesterday'" in broken["fault"]
    assert [(r["fault"], r["value"]) for r in rest] == [("expected a number in 'Actual Total Load (MW)', found 'x'", None), (None, 2.0)]
    (file,) = read(tmp_path, "a,b\n1,2\n")
    assert "expected 'Time (CET)' or 'MTU (CET/CEST)' as first column, found 'a'" in file["fault"]


def test_the_name_tells_when_a_file_can_have_been_delivered():
    assert delivered_on(Path("GUI_TOTAL_LOAD_DAYAHEAD_201712312300-201812312300 - 1.csv.gz")) == date(2019, 1, 1)
    assert delivered_on(Path("Total Load - Day Ahead _ Actual_2015.csv.gz")) == date(2016, 1, 1)
    assert delivered_on(Path("export.csv")) is None


def published(path: str) -> Path:
    root = Path(os.environ.get("GRIDLAKE_DATA") or Path(__file__).parents[3] / "shared" / "data")
    if not (root / path).exists():
        pytest.skip(f"needs the published data {path} below GRIDLAKE_DATA")
    return root / path


QUARTER_HOURS = {year: 35_136 if year in (2016, 2020) else 35_040 for year in range(2015, 2023)}
LEFT_EMPTY = {("load", 2018): 36, ("on_wind", 2016): 192, ("solar", 2016): 192}
"""Quarter-hours whose actual value the exports leave empty: 20 of load before the zone was split and 16 after; two days of 2016."""


@pytest.mark.real_data
@pytest.mark.slow
@pytest.mark.parametrize("folder", ["load", "on_wind", "off_wind", "solar"])
def test_eight_german_years_are_read_whole(folder: str):
    connection = duckdb.connect()
    connection.execute("SET TimeZone = 'UTC'; SET threads = 2; CREATE TABLE actual (interval_start TIMESTAMPTZ, fault VARCHAR)")
    for path in sorted(published(f"entsoe_de/{folder}").glob("*.csv.gz")):
        landed = LandedFile(path, path.name, date(2023, 1, 1), "load")
        connection.register("raw", pa.concat_tables(read_file(landed, "entsoe_export", ReadOptions("Europe/Berlin"))))
        connection.execute("INSERT INTO actual SELECT interval_start, fault FROM raw WHERE NOT coalesce(is_forecast, false)")
    assert connection.execute("SELECT count(fault), count(*) - count(DISTINCT interval_start) FROM actual").fetchone() == (0, 0)
    years = connection.execute("SELECT year(timezone('Europe/Berlin', interval_start)), count(*) FROM actual GROUP BY 1").fetchall()
    assert dict(years) == {year: n - LEFT_EMPTY.get((folder, year), 0) for year, n in QUARTER_HOURS.items()}
