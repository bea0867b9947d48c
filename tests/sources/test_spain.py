"""Spain's tables: units, offsets, and the exchanged dates."""

from __future__ import annotations

import os
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import duckdb
import numpy as np
import pyarrow as pa
import pytest

from lakehouse.sources.base import LandedFile, ReadOptions, read_file

MADRID = ZoneInfo("Europe/Madrid")
ENERGY = "time,generation nuclear,generation wind onshore,forecast wind offshore eday ahead,total load forecast,total load actual,"
ENERGY += "price day ahead,price actual\n"
WEATHER = "dt_iso,city_name,temp,temp_min,pressure,humidity,wind_speed,wind_deg,rain_1h,clouds_all,weather_main\n"


def table_of(path: Path, format_name: str, **settings: object) -> pa.Table:
    landed = LandedFile(path, path.name, date(2018, 1, 1), "energy")
    return pa.concat_tables(read_file(landed, format_name, ReadOptions("Europe/Madrid", settings)))


def read(tmp_path: Path, format_name: str, text: str, **settings: object) -> list[dict]:
    path = tmp_path / "energy_dataset.csv"
    path.write_text(text, encoding="utf-8")
    return table_of(path, format_name, **settings).to_pylist()


def test_a_line_gives_a_row_for_each_value_and_none_for_an_empty_cell(tmp_path: Path):
    rows = read(tmp_path, "spain_energy", ENERGY + "2015-01-01 00:00:00+01:00,7096.0,,12,26118.0,25385.0,50.1,65.41\n")
    at = datetime(2014, 12, 31, 23, tzinfo=UTC)
    assert [(r["series_id"], r["quantity"], r["is_forecast"], r["value"]) for r in rows] == [
        ("nuclear", "generation_mw", False, 7096.0),
        ("wind_offshore", "generation_mw", True, 12.0),
        ("ES", "load_mw", True, 26118.0),
        ("ES", "load_mw", False, 25385.0),
        ("day_ahead", "price_eur_per_mwh", False, 50.1),
        ("actual", "price_eur_per_mwh", False, 65.41),
    ]
    assert {(r["interval_start"], r["interval_minutes"], r["line"]) for r in rows} == {(at, 60, 2)}


def test_faults_keep_the_line(tmp_path: Path):
    good = "2015-01-01 01:00:00+01:00,1,1,1,1,1,1,1\n"
    rows = read(tmp_path, "spain_energy", ENERGY + "2015-01-01 00:00:00,1,1,1,1,1,1,1\n" + good + "2015-01-01 02:00:00+01:00,abc,1,1\n")
    faults = {r["line"]: (r["fault"], r["raw_text"]) for r in rows if r["fault"]}
    assert "expected a time with its offset" in faults[2][0]
    assert faults[4] == ("expected 8 cells, found 4", "2015-01-01 02:00:00+01:00,abc,1,1")
    assert len(faults) == len([r for r in rows if r["fault"]]) == 2


def test_weather_is_celsius_and_the_city_has_no_blanks(tmp_path: Path):
    rows = read(tmp_path, "spain_weather", WEATHER + "2015-07-01 00:00:00+02:00, Barcelona,300.15,299,1008371,77,133,62,0.3,40,rain\n")
    assert {r["series_id"] for r in rows} == {"Barcelona"}
    assert {r["quantity"]: round(r["value"], 6) for r in rows} == {
        "temperature_c": 27.0,
        "pressure_hpa": 1008371.0,  # impossible, and for cleaning to refuse
        "humidity_pct": 77.0,
        "wind_speed_m_per_s": 133.0,
        "wind_direction_deg": 62.0,
        "precipitation_mm": 0.3,
        "cloud_cover_pct": 40.0,
    }
    assert {r["interval_start"] for r in rows} == {datetime(2015, 6, 30, 22, tzinfo=UTC)}


def year_of_load(exchanged: bool) -> tuple[str, dict[datetime, float]]:
    """A year of a made-up load as a file, and what it should read as."""
    random, lines, truth = np.random.default_rng(1), [], {}
    values: dict[tuple[date, int], float] = {}
    first = date(2015, 1, 1)
    for n in range(365):
        day = first + timedelta(days=n)
        for hour in range(24):
            level = 30_000 * (0.85 if day.weekday() >= 5 else 1.0) * (1 + 0.15 * np.cos(2 * np.pi * n / 365))
            values[day, hour] = round(level * (1 + 0.2 * np.sin(np.pi * (hour - 8) / 12)) + random.normal(0, 200), 1)
    for (day, hour), value in values.items():
        instant = datetime(day.year, day.month, day.day, hour, tzinfo=MADRID)
        if instant.astimezone(UTC).astimezone(MADRID).hour != hour:
            continue  # the hour that the clock leaves out
        shown = date(day.year, day.day, day.month) if exchanged and day.day <= 12 else day
        lines.append(f"{instant.isoformat(sep=' ')},,,,,{values[shown, hour]},,1\n")
        truth[instant.astimezone(UTC)] = value
    return ENERGY + "".join(lines), truth


@pytest.mark.parametrize("exchanged", [True, False])
def test_exchanged_dates_are_put_right_and_right_ones_are_left_alone(tmp_path: Path, exchanged: bool):
    text, truth = year_of_load(exchanged)
    rows = read(tmp_path, "spain_energy", text)
    assert {r["interval_start"]: r["value"] for r in rows if r["quantity"] == "load_mw"} == truth
    if exchanged:
        left = read(tmp_path, "spain_energy", text, repair_dates=False)
        assert {r["interval_start"]: r["value"] for r in left if r["quantity"] == "load_mw"} != truth


def published(path: str) -> Path:
    root = Path(os.environ.get("GRIDLAKE_DATA") or Path(__file__).parents[3] / "shared" / "data")
    if not (root / path).exists():
        pytest.skip(f"needs the published data {path} below GRIDLAKE_DATA")
    return root / path


@pytest.mark.real_data
def test_the_repaired_table_agrees_with_the_platforms_own_exports_in_every_hour():
    connection = duckdb.connect()
    connection.execute("SET TimeZone = 'UTC'; SET threads = 2")
    connection.register("energy", table_of(published("spain/energy_dataset.csv.gz"), "spain_energy"))
    exports = [table_of(p, "entsoe_export") for p in sorted(published("spain/entsoe_export").glob("*.csv.gz"))]
    connection.register("export", pa.concat_tables(exports))
    compared = connection.execute(
        """
        SELECT count(*), count(*) FILTER (a.value = b.value), count(*) FILTER (a.value IS NULL OR b.value IS NULL)
        FROM (FROM energy WHERE quantity = 'load_mw') a FULL JOIN export b USING (series_id, is_forecast, interval_start)
        """
    ).fetchone()
    assert compared == (26_270 + 26_304, 26_270 + 26_304, 0)


@pytest.mark.real_data
def test_the_repaired_day_ahead_price_follows_the_actual_one():
    correlation = []
    for repair in (True, False):
        connection = duckdb.connect()
        connection.register("energy", table_of(published("spain/energy_dataset.csv.gz"), "spain_energy", repair_dates=repair))
        correlation += connection.execute(
            "SELECT corr(a.value, b.value) FROM (FROM energy WHERE series_id = 'day_ahead') a"
            " JOIN (FROM energy WHERE series_id = 'actual') b USING (interval_start)"
        ).fetchone()
    assert correlation[0] > 0.97
    assert correlation[1] < 0.8


@pytest.mark.real_data
def test_the_published_weather_is_read_without_a_fault():
    table = table_of(published("spain/weather_features.csv.gz"), "spain_weather")
    assert table["fault"].null_count == table.num_rows == 7 * 133_313
