"""Readers of meter formats, by example and against published files: every line is a reading or is named."""

from __future__ import annotations

import gzip
import io
import os
import re
import zipfile
from datetime import UTC, date, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lakehouse.contracts.raw import RawMeters, RawReadings
from lakehouse.sources.base import LandedFile, ReadOptions, format_named, formats, read_file

HEADER = "meter_id,register,interval_start,interval_minutes,energy_kwh,quality\n"


def published() -> Path | None:
    """The folder of published data sets, where there is one."""
    folder = Path(os.environ.get("GRIDLAKE_DATA") or Path(__file__).parents[3] / "shared" / "data")
    return folder if (folder / "formats").is_dir() else None


needs_data = pytest.mark.skipif(published() is None, reason="needs the published data sets: set GRIDLAKE_DATA")


def read(content: bytes | str, format_name="canonical_readings", *, folder: Path, name="a.csv", zone="UTC", **settings) -> list[dict]:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return rows_of(path, format_name, zone=zone, **settings)


def rows_of(path: Path, format_name: str, *, zone="UTC", **settings) -> list[dict]:
    file = LandedFile(path, path.name, date(2026, 3, 3), "readings")
    shape = RawMeters if format_named(format_name).shape == "meters" else RawReadings
    tables = list(read_file(file, format_name, ReadOptions(zone, settings)))
    for table in tables:
        shape.conform(table)
    return [r for t in tables for r in t.to_pylist()]


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


# --- Canonical -----------------------------------------------------------------------------------------------------------


def test_a_canonical_line_is_a_reading(tmp_path):
    (one,) = read(HEADER + "A,import,2026-03-02T00:00:00+01:00,30,0.5,A\n", folder=tmp_path)
    assert (one["meter_id"], one["register"], one["interval_start"], one["interval_minutes"]) == ("A", "import", at("2026-03-01 23:00"), 30)
    assert (one["energy_kwh"], one["quality"], one["line"], one["date"]) == (0.5, "A", 2, date(2026, 3, 1))


def test_register_and_quality_may_be_absent_and_the_order_of_columns_is_free(tmp_path):
    (one,) = read("energy_kwh;interval_start;interval_minutes;meter_id\n0.5;2026-03-02T00:00Z;60;A\n", folder=tmp_path)
    assert (one["register"], one["quality"], one["energy_kwh"], one["fault"]) == ("import", None, 0.5, None)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('A,import,2026-03-02T00:00:00Z,30,"0,5",A', "expected energy in kWh as a number, found '0,5'"),
        ("A,import,2026-03-02T00:00:00Z,30,0,5,A", "expected 6 fields, found 7"),
        ("A,import,2026-03-02T00:00:00Z", "expected 6 fields, found 3"),
        ("A,import,2026-03-02 00:00:00,30,0.5,A", "with offset or Z, found '2026-03-02 00:00:00'"),
        ("A,import,2026-02-30T00:00:00Z,30,0.5,A", "found '2026-02-30T00:00:00Z'"),
        ("A,import,02/03/2026 00:00,30,0.5,A", "found '02/03/2026 00:00'"),
        ("A,import,2026-03-02T00:00:00Z,half,0.5,A", "expected whole minutes from 1 to 576000, found 'half'"),
        ("A,import,2026-03-02T00:00:00Z,30,nan,A", "found 'nan'"),
        ("A,import,2026-03-02T00:00:00Z,30,1e999,A", "found '1e999'"),
        ("A,import,2026-03-02T00:00:00Z,30,1_000,A", "found '1_000'"),
        (",import,2026-03-02T00:00:00Z,30,0.5,A", "expected a meter, found none"),
        ('A,"import,2026-03-02T00:00:00Z,30,0.5,A', "closed quotes"),
    ],
)
def test_what_can_not_be_read_is_named_with_its_line_and_the_others_go_on(tmp_path, line, words):
    good = "A,import,2026-03-02T01:00:00Z,30,0.5,A"
    rows = read(HEADER + f"{good}\n\n{line}\n{good}\n", folder=tmp_path)
    assert [r["line"] for r in rows] == [2, 4, 5]
    assert words in rows[1]["fault"] and rows[1]["raw_text"] == line
    assert rows[0]["fault"] is None and rows[2]["energy_kwh"] == 0.5


def test_bytes_that_are_no_text_spoil_their_line_alone(tmp_path):
    rows = read(HEADER.encode() + b"A\xff,import,2026-03-02T01:00:00Z,30,0.5,A\nB,import,2026-03-02T01:00:00Z,30,0.5,A\n", folder=tmp_path)
    assert "0xff" in rows[0]["fault"] and rows[1]["meter_id"] == "B"


def test_the_options_of_a_feed_say_what_a_file_can_not(tmp_path):
    text = "meter_id;interval_start;interval_minutes;energy_kwh\nA;02/03/2026 00:30;30;1500,5\n"
    settings = {"time_zone": "Europe/Berlin", "date_order": "day first", "decimal": ",", "unit": "Wh", "stamps": "end"}
    (one,) = read(text, folder=tmp_path, **settings)
    assert (one["interval_start"], one["energy_kwh"], one["date"]) == (at("2026-03-01 23:00"), 1.5005, date(2026, 3, 1))
    (other,) = read(text, folder=tmp_path, **(settings | {"date_order": "month first"}))
    assert other["interval_start"] == at("2026-02-02 23:00")


def test_local_stamps_without_marks_pass_both_clock_changes_without_a_gap_or_an_overlap(tmp_path):
    def local_day(day: str, hours: list[int]) -> list[dict]:
        lines = "".join(f"A,import,{day} {h:02}:{m:02},30,0.5,\n" for h in hours for m in (0, 30))
        return read(HEADER + lines, folder=tmp_path, time_zone="Europe/Berlin")

    autumn = local_day("2026-10-25", [0, 1, 2, 2, *range(3, 24)])
    # Half-hours of the hour that comes twice stand in the order 2:00 2:30 2:00 2:30.
    starts = [r["interval_start"] for r in autumn]
    assert len(starts) == 50 and starts == [at("2026-10-24 22:00") + n * (at("2026-01-01 00:30") - at("2026-01-01")) for n in range(50)]
    spring = local_day("2026-03-29", [0, 1, *range(3, 24)])
    assert len({r["interval_start"] for r in spring}) == 46 and all(r["fault"] is None for r in spring)
    skipped = local_day("2026-03-29", [2])
    assert all("clocks of Europe/Berlin skip" in r["fault"] for r in skipped)


def test_gzip_zip_and_parquet_give_what_csv_gives(tmp_path):
    text = HEADER + "A,import,2026-03-02T00:00:00Z,30,0.5,A\nB,export,2026-03-02T00:30:00Z,30,0.25,\n"
    plain = read(text, folder=tmp_path)
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("inner.csv", text)
    table = pa.table(
        {
            "meter_id": ["A", "B"],
            "register": ["import", "export"],
            "interval_start": pa.array([at("2026-03-02 00:00"), at("2026-03-02 00:30")], pa.timestamp("ms", tz="UTC")),
            "interval_minutes": [30, 30],
            "energy_kwh": [0.5, 0.25],
            "quality": ["A", None],
        }
    )
    pq.write_table(table, tmp_path / "a.parquet")

    def values(rows):
        return [(r["meter_id"], r["register"], r["interval_start"], r["interval_minutes"], r["energy_kwh"], r["quality"]) for r in rows]

    assert values(read(gzip.compress(text.encode()), folder=tmp_path, name="a.csv.gz")) == values(plain)
    assert values(rows_of(tmp_path / "a.parquet", "canonical_readings")) == values(plain)
    zipped = read(packed.getvalue(), folder=tmp_path, name="a.zip")
    assert values(zipped) == values(plain) and zipped[0]["file"] == "a.zip!inner.csv"


def test_a_registry_line_is_a_meter(tmp_path):
    text = (
        'meter_id,meter_class,interval_minutes,rated_kw,registers,first_date,last_date\nA,pv,15,9.2,"import,export",2020-01-02,\nB,,,x,,,\n'
    )
    one, other = read(text, "canonical_meters", folder=tmp_path)
    assert (one["meter_class"], one["rated_kw"], one["registers"], one["first_date"]) == ("pv", 9.2, "import,export", date(2020, 1, 2))
    assert other["fault"] == "expected a rating in kW as a number, found 'x'"


# --- Hostile files ---------------------------------------------------------------------------------------------------------


def only_fault(rows):
    (one,) = rows
    assert one["line"] == 0
    return one["fault"]


def test_an_archive_that_expands_beyond_reason_is_refused_in_bounded_time(tmp_path):
    bomb = gzip.compress(b"0" * (200 << 20), 9)
    assert "expands more than" in only_fault(read(bomb, folder=tmp_path, name="bomb.csv.gz")[-1:])


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd", "a/../../b.csv", "C:\\x.csv"])
def test_a_zip_that_leads_out_of_itself_is_refused(tmp_path, name):
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr(name, HEADER)
    assert "leads out of it" in only_fault(read(packed.getvalue(), folder=tmp_path, name="a.zip"))


def test_an_archive_in_an_archive_is_refused(tmp_path):
    inner, outer = io.BytesIO(), io.BytesIO()
    for target, name, content in ((inner, "a.csv", HEADER.encode()), (outer, "inner.zip", None)):
        with zipfile.ZipFile(target, "w") as archive:
            archive.writestr(name, content if content is not None else inner.getvalue())
    assert "archive in an archive" in only_fault(read(outer.getvalue(), folder=tmp_path, name="a.zip"))


def test_a_line_of_ten_megabytes_is_one_faulty_row(tmp_path):
    rows = read(HEADER.encode() + b"A" * (10 << 20) + b"\nA,import,2026-03-02T00:00:00Z,30,0.5,A\n", folder=tmp_path)
    assert [(r["line"], r["fault"] is None) for r in rows] == [(2, False), (3, True)]
    assert len(rows[0]["raw_text"]) <= 1000


@pytest.mark.parametrize(
    "content", [b"", b"\x00" * 5000, b"<!DOCTYPE html><html></html>\n", b"PK\x03\x04 and no more", b"\x1f\x8b and no more", b"PAR1 no"]
)
def test_a_file_of_something_else_is_one_row_that_says_so(tmp_path, content):
    assert only_fault(read(content, folder=tmp_path)).count("expected")


def test_xml_with_a_document_type_is_refused(tmp_path):
    bomb = b'<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b "x">]><feed xmlns="http://naesb.org/espi">&b;</feed>'
    assert "document type" in only_fault(read(bomb, "greenbutton", folder=tmp_path, name="a.xml"))


# --- NEM12 and NEM13 ----------------------------------------------------------------------------------------------------------


def nem12(*days: str, unit="kWh", minutes=30, suffix="E1", end="900\n") -> str:
    return f"100,NEM12,200405011135,MDA1,Ret1\n200,NMI1,E1,1,{suffix},N1,METSER,{unit},{minutes},\n" + "".join(f"{d}\n" for d in days) + end


def test_nem12_counts_in_market_time_and_its_units(tmp_path):
    rows = read(nem12("300,20040201," + ",".join(["500"] * 48) + ",A,,,20040202120025,", unit="Wh"), "nem12", folder=tmp_path)
    assert len(rows) == 48 and {r["energy_kwh"] for r in rows} == {0.5} and rows[0]["register"] == "import"
    assert (rows[0]["interval_start"], rows[-1]["interval_start"]) == (at("2004-01-31 14:00"), at("2004-02-01 13:30"))


def test_nem12_qualities_come_by_range_of_intervals(tmp_path):
    day = "300,20040201," + ",".join(["1"] * 48) + ",V,,,,"
    rows = read(nem12(day, "400,1,20,F14,76,", "400,21,47,A,,", "400,48,48,N,,", suffix="B1"), "nem12", folder=tmp_path)
    assert [r["quality"] for r in rows] == ["F14"] * 20 + ["A"] * 27 + [None]
    assert "null data" in rows[47]["fault"] and rows[0]["register"] == "export"


def test_nem12_without_its_end_says_that_it_may_be_cut_off(tmp_path):
    rows = read(nem12("300,20040201," + ",".join(["1"] * 48) + ",A,,,,", end=""), "nem12", folder=tmp_path)
    assert len(rows) == 49 and "cut off" in rows[48]["fault"]


@pytest.mark.real_data
@needs_data
@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("Example_NEM12_15min_200_30min_300.csv", "expected 96 intervals of 15 minutes, found 48"),
        ("Example_NEM12_15min_200_30min_400.csv", "cover the intervals 1 to 96, found 1 to 24, 25 to 48"),
        ("Example_NEM12_30min_200_15min_300.csv", "expected 48 intervals of 30 minutes, found 96"),
        ("Example_NEM12_30min_200_15min_400.csv", "expected 48 intervals of 30 minutes, found 96"),
        ("Example_NEM12_empty.csv", "expected interval readings (300 records), found none"),
        ("Example_NEM12_incomplete_interval.csv", "expected 48 intervals of 30 minutes, found 0"),
        ("Example_NEM12_missing_header.csv", "expected the header record 100,NEM12"),
        ("Example_NEM12_powercor.csv", "expected the header record 100,NEM12"),
        ("Example_NEM12_powercor.csv.zip", "expected the header record 100,NEM12"),
        ("Example_NEM12_powercor_missing_fields.csv", "expected the header record 100,NEM12"),
        ("Example_empty_file.csv", "found an empty one"),
    ],
)
def test_each_invalid_nem12_file_is_refused_for_what_makes_it_invalid(name, words):
    rows = rows_of(published() / "formats/nem12/invalid" / name, "nem12")
    assert words in rows[0]["fault"]


@pytest.mark.real_data
@needs_data
def test_every_published_nem_file_is_read_whole():
    folder = published() / "formats/nem12"
    faults = [
        r["fault"]
        for path in [*folder.glob("unzipped/*NEM12*"), *folder.glob("*.zip")]
        for r in rows_of(path, "nem12")
        if r["fault"] is not None
    ]
    assert faults and all("expected energy in Wh, kWh or MWh, found the register" in f for f in faults)  # reactive energy and volts
    thirteen = [path for path in folder.glob("nem13/*.zip")]
    rows = [rows_of(path, "nem13") for path in thirteen]
    assert len(thirteen) == 61 and all(r and all(one["fault"] is None for one in r) for r in rows)


# --- Green Button -------------------------------------------------------------------------------------------------------------


@pytest.mark.real_data
@needs_data
def test_green_button_matches_the_expected_results_to_the_last_digit():
    folder = published() / "formats/greenbutton/vladistan"
    name = "Coastal_Multi_Family_Jan_1_2011_to_Jan_1_2012_RetailCustomer_5"
    text = (folder / f"expected_results/electricity/{name}.txt").read_text()
    expected = re.findall(r"^\s+(\S+ \S+)\+00:00, 1:00:00: (\d+) Wh", text, re.M)
    rows = rows_of(folder / f"data/electricity/{name}.xml", "greenbutton")
    assert len(rows) == len(expected) == 8760
    assert [(r["interval_start"], r["energy_kwh"]) for r in rows] == [(at(stamp), int(wh) / 1000) for stamp, wh in expected]


def espi(reading_type: str, value: int = 450, start: int = 1293868800) -> str:
    return f"""<feed xmlns="http://www.w3.org/2005/Atom">
      <entry><link rel="self" href="RetailCustomer/5/UsagePoint/1/MeterReading/01"/><link rel="related" href="ReadingType/07"/>
        <content><MeterReading xmlns="http://naesb.org/espi"/></content></entry>
      <entry><link rel="self" href="ReadingType/07"/><content><ReadingType xmlns="http://naesb.org/espi">{reading_type}</ReadingType></content></entry>
      <entry><link rel="self" href="RetailCustomer/5/UsagePoint/1/MeterReading/01/IntervalBlock/1"/><content>
        <IntervalBlock xmlns="http://naesb.org/espi"><IntervalReading><timePeriod><duration>900</duration><start>{start}</start></timePeriod>
        <value>{value}</value></IntervalReading></IntervalBlock></content></entry></feed>"""


def test_green_button_takes_power_of_ten_flow_and_duration(tmp_path):
    given = "<flowDirection>19</flowDirection><uom>72</uom><powerOfTenMultiplier>-1</powerOfTenMultiplier>"
    (one,) = read(espi(given), "greenbutton", folder=tmp_path, name="a.xml")
    assert (one["meter_id"], one["register"], one["energy_kwh"], one["interval_minutes"]) == ("5/1", "export", 0.045, 15)
    assert one["interval_start"] == at("2011-01-01 08:00")
    (gas,) = read(espi("<uom>169</uom>"), "greenbutton", folder=tmp_path, name="a.xml")
    assert gas["fault"] == "expected energy in Wh (uom 72), found uom 169"


# --- Others --------------------------------------------------------------------------------------------------------------------


def test_a_register_that_rolls_over_goes_on_and_one_that_is_exchanged_starts_anew(tmp_path):
    text = "meter_id,read_at,reading_kwh\n" + "".join(
        f"A,2026-03-02T0{n}:00:00Z,{v}\n" for n, v in enumerate([99998.5, 99999.5, 1.0, 3.0, 0.5, 1.5])
    )
    rolled = read(text, "register_reads", folder=tmp_path, digits=5)
    assert [r["energy_kwh"] for r in rolled] == [None, 1.0, 1.5, 2.0, None, 1.0]
    assert "rolled over" in rolled[4]["fault"] and "first" in rolled[0]["fault"]
    assert rolled[2]["interval_start"] == at("2026-03-02 01:00") and rolled[2]["interval_minutes"] == 60
    unsaid = read(text, "register_reads", folder=tmp_path)
    assert [r["energy_kwh"] for r in unsaid] == [None, 1.0, None, 2.0, None, 1.0]


def test_a_wide_week_needs_its_year(tmp_path):
    header = "VID," + ",".join(f"V{n:03}" for n in range(1, 673))
    week = header + "\nH1," + ",".join(["0.25"] * 671 + ["NA"]) + "\nH2,1\n"
    assert "option year" in only_fault(read(week, "swiss_15min", folder=tmp_path, name="elcons_15min_w44.csv"))
    rows = read(week, "swiss_15min", folder=tmp_path, name="elcons_15min_w44.csv", year=2018)
    assert rows[0]["interval_start"] == at("2018-10-28 23:00") and rows[0]["meter_id"] == "H1"
    assert [(r["line"], r["fault"]) for r in rows if r["fault"]] == [
        (2, "expected energy in kWh as a number, found 'NA'"),
        (3, "expected a meter and 672 intervals, found 2 fields"),
    ]


def test_an_octopus_file_names_its_delivery_and_its_junk(tmp_path):
    text = (
        "meter_identifier,interval_start,interval_end,kWh_per_half_hour\n0.0,0.0,0.0,0.0\n"
        "x,2017-11-05 00:00:00+00:00,2017-11-05 00:30:00+00:00,0.118\nx,2017-11-05 00:30:00+00:00,2017-11-05 02:00:00+00:00,0.1\n"
    )
    junk, good, long = read(text, "octopus", folder=tmp_path, name="2017-11-05 236 Customers.csv")
    assert (junk["line"], good["line"], good["energy_kwh"]) == (2, 3, 0.118)
    assert "found '0.0'" in junk["fault"] and "30 minutes after" in long["fault"]
    assert format_named("octopus").delivered_on(Path("2017-11-05 236 Customers.csv.gz")) == date(2017, 11, 5)
    assert format_named("octopus").delivered_on(Path("2017-13-05.csv")) is None


PUBLISHED = {
    "octopus": "meters/octopus_daily_drops/2017-11-05 236 Customers.csv.gz",
    "lcl": "meters/london_lcl/block_62.csv.gz",
    "sgsc": "meters/sgsc/smart_meter10.csv.gz",
    "ausgrid": "meters/ausgrid/customer12_2011-2012.csv.gz",
    "hue": "meters/hue/Residential_1.csv.gz",
    "swiss_15min": "meters/swiss_15min/elcons_15min_w44.csv.gz",
    "register_reads": "meters/danish_heat/processed_final_data_sample.csv.gz",
    "nem12": "formats/nem12/unzipped/Example_NEM12_actual_interval.csv",
    "nem13": "formats/nem12/unzipped/Example_NEM13_consumption_data.csv",
    "greenbutton": "formats/greenbutton/cew821/sample_greenbutton_data.xml",
}


@pytest.mark.real_data
@needs_data
@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_file_looks_like_its_own_meter_format_and_no_other(name):
    path = published() / PUBLISHED[name]
    content = path.read_bytes()
    head = (gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content)[:8192]
    others = [f.name for f in formats().values() if f.shape == "readings" and f.name in PUBLISHED and f.looks_like(head, path.name)]
    assert others == [name]


@pytest.mark.real_data
@needs_data
@pytest.mark.parametrize(
    ("name", "rows", "faulty"),
    [
        ("lcl", 29_184, 0),
        ("sgsc", 176_200, 0),
        ("ausgrid", 26_400, 4),
        ("hue", 24_807, 0),
        ("register_reads", 17_473, 1),
        ("octopus", 11_281, 1),
    ],
)
def test_a_published_file_is_read_whole(name, rows, faulty):
    read_rows = rows_of(published() / PUBLISHED[name], name)
    assert (len(read_rows), sum(r["fault"] is not None for r in read_rows)) == (rows, faulty)
