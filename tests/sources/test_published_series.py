"""Published series of many operators: one small file each, and the published files themselves."""

from __future__ import annotations

import os
from datetime import UTC, date, datetime
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest

from lakehouse.sources.base import LandedFile, ReadOptions, formats, read_file


def table_of(path: Path, format_name: str, zone: str = "UTC", **settings: object) -> pa.Table:
    landed = LandedFile(path, path.name, date(2026, 1, 1), "feed")
    return pa.concat_tables(read_file(landed, format_name, ReadOptions(zone, settings)))


def read(tmp_path: Path, format_name: str, text: str, name: str = "file.csv", zone: str = "UTC", **settings: object) -> list[dict]:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    assert formats()[format_name].looks_like(text.encode()[:8192], name)
    return table_of(path, format_name, zone, **settings).to_pylist()


def short(rows: list[dict]) -> list[tuple]:
    return [(r["series_id"], r["quantity"], r["is_forecast"], r["interval_start"], r["interval_minutes"], r["value"]) for r in rows]


def utc(*parts: int) -> datetime:
    return datetime(*parts, tzinfo=UTC)


def test_opsd_reads_each_country_and_leaves_out_what_is_derived(tmp_path: Path):
    rows = read(
        tmp_path,
        "opsd",
        "utc_timestamp,cet_cest_timestamp,FR_load_actual_entsoe_transparency,FR_load_forecast_entsoe_transparency,FR_solar_generation_actual,"
        "DE_50hertz_wind_onshore_generation_actual,DE_wind_capacity,DE_wind_profile,FR_moon_phase\n"
        "2015-01-01T00:00:00Z,2015-01-01T01:00:00+0100,,,,,1,2,\n"
        "2015-01-01T01:00:00Z,2015-01-01T02:00:00+0100,69773,69750,0,11,1,2,\n",
    )
    assert rows[0]["fault"] == "expected a known column, found 'FR_moon_phase'; its values are not read"
    at = utc(2015, 1, 1, 1)
    assert short(rows[1:]) == [
        ("FR", "load_mw", False, at, 60, 69773.0),
        ("FR", "load_mw", True, at, 60, 69750.0),
        ("FR_solar", "generation_mw", False, at, 60, 0.0),
        ("DE_50hertz_wind_onshore", "generation_mw", False, at, 60, 11.0),
    ]


def test_opsd_adds_direct_and_diffuse_radiation_where_both_are_there(tmp_path: Path):
    rows = read(
        tmp_path,
        "opsd",
        "utc_timestamp,FR_temperature,FR_radiation_direct_horizontal,FR_radiation_diffuse_horizontal\n"
        "2015-06-01T12:00:00Z,20.5,600,150.5\n2015-06-01T13:00:00Z,21,,150\n2015-06-01T14:00:00Z,22,much,150\n",
    )
    assert [r["value"] for r in rows if r["quantity"] == "ghi_w_per_m2"] == [750.5, None]
    assert [(r["line"], r["fault"]) for r in rows if r["fault"]] == [(4, "expected a number in 'FR_radiation', found 'much'")]


def test_epf_keeps_every_day_at_24_hours(tmp_path: Path):
    text = "date, Grid load forecast, Wind power forecast,OT\n" + "".join(f"2013/3/31 {h}:00,{40000 + h},{h},{30 + h}\n" for h in range(24))
    rows = read(tmp_path, "epf", text, "NP.csv", zone="Etc/GMT-1")
    prices = [r for r in rows if r["quantity"] == "price_eur_per_mwh"]
    assert [r["interval_start"] for r in prices] == [utc(2013, 3, 30, 23), *(utc(2013, 3, 31, h) for h in range(23))]
    assert short(rows[:3]) == [
        ("grid_load", "load_mw", True, utc(2013, 3, 30, 23), 60, 40000.0),
        ("wind_power", "generation_mw", True, utc(2013, 3, 30, 23), 60, 0.0),
        ("day_ahead", "price_eur_per_mwh", False, utc(2013, 3, 30, 23), 60, 30.0),
    ]
    # On a clock with summer time the hour that was filled in has no place, and is told.
    summer = read(tmp_path, "epf", text, "NP.csv", zone="Europe/Oslo")
    assert [r["fault"] for r in summer if r["fault"]] == ["expected a time that the clock of Europe/Oslo shows, found 2013-03-31 02:00"]


def test_epf_reads_the_native_layout_and_another_currency(tmp_path: Path):
    native = read(tmp_path, "epf", "Date, Price, Grid load forecast\n2013-01-01 00:00:00,31.05,42497\n", zone="Etc/GMT-1")
    dollars = read(tmp_path, "epf", "date, Zonal COMED load foecast,OT\n2013/1/1 0:00,11509,25.46\n", zone="Etc/GMT+5", currency="USD")
    assert [(r["series_id"], r["value"]) for r in native] == [("day_ahead", 31.05), ("grid_load", 42497.0)]
    assert [(r["series_id"], r["quantity"]) for r in dollars] == [("zonal_comed_load", "load_mw"), ("day_ahead", "price_usd_per_mwh")]
    (refused,) = read(tmp_path, "epf", "date,OT\n2013/1/1 0:00,1\n", currency="XYZ")
    assert "options.currency" in refused["fault"]


def test_vic_elec_reads_half_hours_in_utc(tmp_path: Path):
    rows = read(tmp_path, "vic_elec", "Time,Demand,Temperature,Date,Holiday\n2011-12-31T13:00:00Z,4382.8,21.4,2012-01-01,TRUE\n")
    at = utc(2011, 12, 31, 13)
    assert short(rows) == [("VIC", "load_mw", False, at, 30, 4382.8), ("melbourne", "temperature_c", False, at, 30, 21.4)]


def test_pjm_names_hours_by_their_end_on_the_local_clock(tmp_path: Path):
    rows = read(
        tmp_path,
        "pjm",
        "Datetime,PJME_MW\n31-12-2002 01:00,26498\n09-03-2014 02:00,1\n09-03-2014 04:00,2\n"
        "02-11-2014 02:00,3\n02-11-2014 02:00,4\n02-11-2014 03:00,5\n",
    )
    assert [(r["interval_start"], r["value"]) for r in rows] == [
        (utc(2002, 12, 31, 5), 26498.0),
        (utc(2014, 3, 9, 6), 1.0),
        (utc(2014, 3, 9, 7), 2.0),
        (utc(2014, 11, 2, 5), 3.0),
        (utc(2014, 11, 2, 6), 4.0),
        (utc(2014, 11, 2, 7), 5.0),
    ]


def test_aemo_is_market_time_and_interval_ending(tmp_path: Path):
    text = (
        "REGION,SETTLEMENTDATE,TOTALDEMAND,RRP,PERIODTYPE\n"
        "NSW1,2025/01/01 00:05:00,7251.07,138.03,TRADE\nNSW1,2025/01/01 00:10:00,7297.85,-5,TRADE\n"
    )
    rows = read(tmp_path, "aemo", text, zone="Australia/Sydney")
    assert short(rows[:2]) == [
        ("NSW1", "load_mw", False, utc(2024, 12, 31, 14), 5, 7251.07),
        ("NSW1", "price_aud_per_mwh", False, utc(2024, 12, 31, 14), 5, 138.03),
    ]
    assert rows[2]["interval_start"] == utc(2024, 12, 31, 14, 5)


def test_ieso_counts_hours_from_one_in_standard_time(tmp_path: Path):
    rows = read(tmp_path, "ieso", "date,hour,OntDemand\n01/07/2016,1,13417\n01/07/2016,24,12312\n01/07/2016,25,1\n", zone="America/Toronto")
    assert [r["interval_start"] for r in rows] == [utc(2016, 7, 1, 5), utc(2016, 7, 2, 4), None]
    assert "expected a day and an hour from 1 to 24" in rows[2]["fault"]
    (price,) = read(tmp_path, "ieso", "date,hour,HOEP,TOU\n01/01/2016,1,-0.00109,0\n")
    assert (price["quantity"], round(price["value"], 9)) == ("price_cad_per_mwh", -1.09)


def test_openstef_units_are_brought_to_ours(tmp_path: Path):
    text = "index,load,radiation,pressure,humidity,sjv_E1A\n2020-10-02 09:45:00+00:00,3.31,,,,\n"
    text += "2020-10-02 10:00:00+00:00,2.62,1800000,99450,0.68,3e-05\n"
    rows = read(tmp_path, "openstef_nl", text, "get_model_input_pid_287.csv")
    values = {r["quantity"]: round(r["value"], 6) for r in rows if r["line"] == 3}
    assert values == {"load_mw": 2.62, "ghi_w_per_m2": 500.0, "pressure_hpa": 994.5, "humidity_pct": 68.0}
    assert {(r["series_id"], r["interval_minutes"]) for r in rows} == {("pid_287", 15)}


def test_openstef_production_of_a_substation_is_positive(tmp_path: Path):
    text = ",datetime,radiation,windspeed_100m,total_substation,total_solar_part,total_wind_part\n"
    text += "0,2021-07-31 00:15:00+00:00,0,13.7,1.53,0,-0.39\n"
    rows = read(tmp_path, "openstef_nl", text, "HAL.csv")
    assert {r["series_id"]: r["value"] for r in rows if r["quantity"] != "ghi_w_per_m2"} == {
        "HAL": 1.53,
        "HAL_solar": 0.0,
        "HAL_wind": 0.39,
    }


@pytest.mark.parametrize(
    "name", ["opsd", "epf", "vic_elec", "pjm", "aemo", "ieso", "openstef_nl", "spain_energy", "spain_weather", "entsoe_export"]
)
def test_a_file_of_another_layout_says_what_was_expected(tmp_path: Path, name: str):
    path = tmp_path / "x.csv"
    path.write_text("colour,size\nred,1\n", encoding="utf-8")
    (row,) = table_of(path, name).to_pylist()
    assert row["line"] == 0
    assert "line 1: expected" in row["fault"]


def published(path: str) -> Path:
    root = Path(os.environ.get("GRIDLAKE_DATA") or Path(__file__).parents[3] / "shared" / "data")
    if not (root / path).exists():
        pytest.skip(f"needs the published data {path} below GRIDLAKE_DATA")
    return root / path


# file, format, zone, series and quantity, values, first start: each checked against the file by hand.
PUBLISHED = [
    ("opsd/FR_time_series_60min_singleindex_filtered.csv.gz", "opsd", "UTC", "FR", "load_mw", 26_289, utc(2015, 1, 1, 1)),
    ("opsd/DE_wind_time_series_60min_singleindex_filtered.csv.gz", "opsd", "UTC", "DE_wind", "generation_mw", 17_519, utc(2017, 1, 1, 1)),
    ("epf/NP.csv.gz", "epf", "Etc/GMT-1", "day_ahead", "price_eur_per_mwh", 34_944, utc(2012, 12, 31, 23)),
    ("epf/DE.csv.gz", "epf", "Etc/GMT-1", "day_ahead", "price_eur_per_mwh", 34_944, utc(2012, 1, 8, 23)),
    ("vic_elec/vic_electricity.csv.gz", "vic_elec", "UTC", "VIC", "load_mw", 35_088, utc(2011, 12, 31, 13)),
    ("pjm/PJME_hourly.csv.gz", "pjm", "UTC", "PJME", "load_mw", 131_470, utc(2002, 1, 1, 5)),
    ("aemo/aemo_price_demand_202501_NSW.csv.gz", "aemo", "UTC", "NSW1", "load_mw", 8_928, utc(2024, 12, 31, 14)),
    ("ieso/load2016.csv.gz", "ieso", "UTC", "ontario", "load_mw", 6_576, utc(2016, 1, 1, 5)),
    ("meters/openstef_nl/get_model_input_pid_287.csv.gz", "openstef_nl", "UTC", "pid_287", "load_mw", 8_695, utc(2020, 10, 2, 9, 45)),
    ("meters/openstef_nl/substations/HAL.csv.gz", "openstef_nl", "UTC", "HAL", "load_mw", 8_832, utc(2021, 7, 31, 0, 15)),
]


@pytest.mark.real_data
@pytest.mark.parametrize(("path", "name", "zone", "series", "quantity", "values", "first"), PUBLISHED, ids=[p[0] for p in PUBLISHED])
def test_the_published_file_is_read_without_a_fault(path, name, zone, series, quantity, values, first):
    connection = duckdb.connect()
    connection.execute("SET TimeZone = 'UTC'; SET threads = 2")
    connection.register("raw", table_of(published(path), name, zone))
    assert connection.execute("SELECT count(fault) FROM raw").fetchone() == (0,)
    told = connection.execute(
        "SELECT count(*), count(DISTINCT interval_start), min(interval_start) FROM raw"
        " WHERE series_id = $s AND quantity = $q AND NOT is_forecast",
        {"s": series, "q": quantity},
    ).fetchone()
    assert told == (values, values, first)
