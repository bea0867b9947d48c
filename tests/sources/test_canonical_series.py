"""Gridlake's own long layout."""

from __future__ import annotations

import gzip
import zipfile
from datetime import UTC, date, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lakehouse.sources.base import LandedFile, ReadOptions, read_file

HEADER = "series_id,quantity,interval_start,interval_minutes,value,is_forecast\n"


def read(path: Path, **settings: object) -> list[dict]:
    file = LandedFile(path, path.name, date(2026, 4, 1), "load")
    options = ReadOptions("Europe/Berlin", settings)
    return pa.concat_tables(read_file(file, "canonical_series", options)).to_pylist()


def landed(tmp_path: Path, text: str, name: str = "load.csv") -> Path:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return path


def test_a_line_becomes_a_row_in_utc(tmp_path: Path):
    (row,) = read(landed(tmp_path, HEADER + "north,load_mw,2026-03-29T03:00:00+02:00,15,512.5,false\n"))
    assert row["interval_start"] == datetime(2026, 3, 29, 1, tzinfo=UTC)
    assert (row["series_id"], row["quantity"], row["interval_minutes"], row["value"], row["is_forecast"]) == (
        "north",
        "load_mw",
        15,
        512.5,
        False,
    )
    assert (row["file"], row["line"], row["delivery_date"], row["date"]) == ("load.csv", 2, date(2026, 4, 1), date(2026, 3, 29))
    assert row["fault"] is None
    assert row["raw_text"] is None


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("north,load_mw,2026-01-01T00:00:00Z,60,abc,false", "expected a number in 'value', found 'abc'"),
        ("north,load_mw,2026-01-01T00:00:00Z,60,,false", "expected a number in 'value', found none"),
        ("north,load_mw,2026-01-01T00:00:00Z,60,inf,false", "expected a number in 'value', found 'inf'"),
        (
            "north,load_mw,2026-01-01 00:00:00,60,1,false",
            "expected a time with its offset such as 2026-01-31T23:00:00Z, found '2026-01-01 00:00:00'",
        ),
        (
            "north,load_mw,2026-02-30T00:00:00Z,60,1,false",
            "expected a time with its offset such as 2026-01-31T23:00:00Z, found '2026-02-30T00:00:00Z'",
        ),
        ("north,load_mw,2026-01-01T00:00:00Z,an hour,1,false", "expected whole minutes in 'interval_minutes', found 'an hour'"),
        (",load_mw,2026-01-01T00:00:00Z,60,1,false", "expected a name in 'series_id', found none"),
        ("north,,2026-01-01T00:00:00Z,60,1,false", "expected a name in 'quantity', found none"),
        ("north,load_mw,2026-01-01T00:00:00Z,60,1,perhaps", "expected true or false in 'is_forecast'"),
        ("north,load_mw,2026-01-01T00:00:00Z", "expected 6 cells, found 3"),
    ],
)
def test_a_line_that_cannot_be_read_is_kept_with_its_fault(tmp_path: Path, line: str, fault: str):
    good = "north,load_mw,2026-01-01T01:00:00Z,60,7,true\n"
    faulty, read_well = read(landed(tmp_path, HEADER + line + "\n" + good))
    assert (faulty["fault"], faulty["raw_text"], faulty["line"], faulty["value"]) == (fault, line, 2, None)
    assert (read_well["value"], read_well["is_forecast"], read_well["line"]) == (7.0, True, 3)


def test_times_without_offset_are_read_where_the_site_file_says_how(tmp_path: Path):
    path = landed(tmp_path, HEADER + "n,load_mw,2026-01-01 00:00:00,60,1,\nn,load_mw,2026-03-29 02:30:00,60,1,\n")
    utc = read(path, stamps_without_offset="utc")
    assert [r["interval_start"] for r in utc] == [datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 3, 29, 2, 30, tzinfo=UTC)]
    winter, left_out = read(path, stamps_without_offset="local")
    assert winter["interval_start"] == datetime(2025, 12, 31, 23, tzinfo=UTC)
    assert left_out["fault"]  # Berlin's clock leaves out 02:30 on that day.


def test_packed_files_and_archives_name_the_member(tmp_path: Path):
    text = HEADER + "n,load_mw,2026-01-01T00:00:00Z,60,1,\n"
    packed = tmp_path / "a.csv.gz"
    packed.write_bytes(gzip.compress(text.encode()))
    archive = tmp_path / "b.zip"
    with zipfile.ZipFile(archive, "w") as opened:
        opened.writestr("one.csv", text)
        opened.writestr("two.csv", text)
    assert [r["file"] for r in read(packed)] == ["a.csv.gz"]
    assert [r["file"] for r in read(archive)] == ["b.zip!one.csv", "b.zip!two.csv"]


def test_quoted_cells_and_blank_lines_keep_their_line_numbers(tmp_path: Path):
    plain = read(landed(tmp_path, HEADER + "\nn,load_mw,2026-01-01T00:00:00Z,60,1,\n"))
    quoted = read(landed(tmp_path, HEADER + '\n"n, east",load_mw,2026-01-01T00:00:00Z,60,1,\n'))
    assert [(r["line"], r["series_id"]) for r in plain] == [(3, "n")]
    assert [(r["line"], r["series_id"]) for r in quoted] == [(3, "n, east")]


def test_parquet_reads_like_csv(tmp_path: Path):
    start = datetime(2026, 1, 1, tzinfo=UTC)
    path = tmp_path / "load.parquet"
    columns = {"series_id": ["n", "n"], "quantity": ["load_mw"] * 2, "interval_start": [start] * 2}
    pq.write_table(pa.table(columns | {"interval_minutes": [60, 60], "value": [1.25, None], "is_forecast": [True, False]}), path)
    first, second = read(path)
    assert (first["interval_start"], first["value"], first["is_forecast"], first["line"]) == (start, 1.25, True, 1)
    assert second["fault"] == "expected a number in 'value', found none"


def test_an_unknown_column_is_told_and_the_rest_is_read(tmp_path: Path):
    told, row = read(landed(tmp_path, HEADER.strip() + ",colour\nn,load_mw,2026-01-01T00:00:00Z,60,1,,red\n"))
    assert told["fault"] == "expected a known column, found 'colour'; its values are not read"
    assert row["value"] == 1.0


def test_a_file_without_the_columns_is_one_row_with_the_reason(tmp_path: Path):
    (row,) = read(landed(tmp_path, "when,what\n1,2\n"))
    assert row["line"] == 0
    assert "expected the columns series_id" in row["fault"]


def test_an_empty_file_and_a_broken_archive_say_so(tmp_path: Path):
    (empty,) = read(landed(tmp_path, ""))
    broken = tmp_path / "x.csv.gz"
    broken.write_bytes(gzip.compress(b"series_id" * 50)[:30])
    (cut,) = read(broken)
    assert "found an empty file" in empty["fault"]
    assert "found a broken one" in cut["fault"]
