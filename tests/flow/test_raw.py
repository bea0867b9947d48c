"""Raw is a pure function of landing: not of when, how often or in which order it was read."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lakehouse.flow.raw import read_deliveries, stale_deliveries
from lakehouse.flow.workspace import Workspace
from tests.flow.builders import FIRST_DAY, TODAY, day, land, land_text, read_all, reading_lines, rewrite, series_lines, village


def raw(workspace: Workspace, feed: str = "readings") -> pa.Table:
    return workspace.table(f"raw/{feed}").read().sort_by([(c, "ascending") for c in ("delivery_date", "file", "line")])


def ledger(workspace: Workspace) -> list[tuple[date, str, int, int]]:
    rows = workspace.table("quality/deliveries").read().sort_by([("delivery_date", "ascending"), ("file", "ascending")]).to_pylist()
    return [(r["delivery_date"], r["file"], r["rows"], r["faulty_rows"]) for r in rows]


def test_a_file_becomes_rows_that_name_file_line_and_delivery(tmp_path: Path):
    workspace = village(tmp_path)
    land(workspace, "readings", day(3), "north.csv", reading_lines(day(2)))
    read = read_deliveries(workspace, "readings", [day(3)])
    assert (read.files, read.rows, read.faulty_rows, read.touched) == (1, 24, 0, [day(2)])
    first = raw(workspace).slice(0, 1).to_pylist()[0]
    assert (first["file"], first["line"], first["delivery_date"], first["date"]) == ("north.csv", 2, day(3), day(2))
    assert (first["meter_id"], first["energy_kwh"], first["fault"]) == ("A", 1.0, None)
    assert ledger(workspace) == [(day(3), "north.csv", 24, 0)]


def test_reading_twice_gives_the_same_table_as_once(tmp_path: Path):
    workspace = village(tmp_path)
    land(workspace, "readings", day(3), "north.csv", reading_lines(day(2)))
    land(workspace, "readings", day(4), "north.csv", reading_lines(day(3)))
    read_deliveries(workspace, "readings", [day(3), day(4)])
    once = raw(workspace)
    read_deliveries(workspace, "readings", [day(4), day(3)])
    assert raw(workspace).equals(once)
    assert len(ledger(workspace)) == 2


def test_days_one_by_one_give_the_same_table_as_all_at_once(tmp_path: Path):
    together, apart = village(tmp_path / "together"), village(tmp_path / "apart")
    for workspace in (together, apart):
        for n in (3, 4, 5):
            land(workspace, "readings", day(n), f"n{n}.csv", reading_lines(day(n - 1)))
    read_deliveries(together, "readings", [day(3), day(4), day(5)])
    for n in (5, 3, 4):
        read_deliveries(apart, "readings", [day(n)])
    assert raw(together).equals(raw(apart))


@settings(max_examples=4, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(order=st.permutations(["a.csv", "b.csv", "c~2.csv"]))
def test_the_order_in_which_files_land_is_of_no_account(tmp_path_factory: pytest.TempPathFactory, order: list[str]):
    workspace = village(tmp_path_factory.mktemp("site"))
    for name in order:
        land(workspace, "readings", day(3), name, reading_lines(day(2), meter=name[0].upper()))
        read_all(workspace)
    table = raw(workspace)
    assert [(f, m) for f, m in zip(table["file"].to_pylist()[::24], table["meter_id"].to_pylist()[::24], strict=True)] == [
        ("a.csv", "A"),
        ("b.csv", "B"),
        ("c~2.csv", "C"),
    ]


def test_only_what_changed_in_landing_is_stale(tmp_path: Path):
    workspace = village(tmp_path)
    paths = [land(workspace, "readings", day(n), "n.csv", reading_lines(day(n - 1))) for n in (3, 4, 5)]
    assert stale_deliveries(workspace, "readings") == [day(3), day(4), day(5)]
    read_all(workspace)
    assert stale_deliveries(workspace, "readings") == []
    rewrite(paths[1], paths[1].read_text(encoding="utf-8"))  # touched, the same bytes
    assert stale_deliveries(workspace, "readings") == []
    rewrite(paths[1], paths[1].read_text(encoding="utf-8").replace("1.0000", "7.0000"))
    land(workspace, "readings", day(5), "more.csv", reading_lines(day(4), meter="B"))
    assert stale_deliveries(workspace, "readings") == [day(4), day(5)]
    assert stale_deliveries(workspace, "market") == []


def test_a_changed_file_changes_its_rows_and_no_others(tmp_path: Path):
    workspace = village(tmp_path)
    paths = [land(workspace, "readings", day(n), "n.csv", reading_lines(day(n - 1))) for n in (3, 4)]
    read_all(workspace)
    rewrite(paths[0], paths[0].read_text(encoding="utf-8").replace("1.0000", "7.0000"))
    read_all(workspace)
    energy = raw(workspace)["energy_kwh"].to_pylist()
    assert (energy[0], energy[24], len(energy)) == (7.0, 1.0, 48)


def test_a_removed_file_empties_its_partition_and_is_told_as_touched(tmp_path: Path):
    workspace = village(tmp_path)
    path = land(workspace, "readings", day(3), "n.csv", reading_lines(day(2)))
    land(workspace, "readings", day(4), "n.csv", reading_lines(day(3)))
    read_all(workspace)
    path.unlink()
    assert stale_deliveries(workspace, "readings") == [day(3)]
    assert read_deliveries(workspace, "readings", [day(3)]).touched == [day(2)]
    assert set(raw(workspace)["delivery_date"].to_pylist()) == {day(4)}
    assert [file for file in ledger(workspace)] == [(day(4), "n.csv", 24, 0)]
    assert stale_deliveries(workspace, "readings") == []


def test_what_is_no_finished_file_of_a_delivery_is_left_alone(tmp_path: Path):
    workspace = village(tmp_path)
    path = land(workspace, "readings", day(3), "n.csv", reading_lines(day(2)))
    for name in (".hidden.csv", "n.csv.part", "n.tmp", "_started"):
        (path.parent / name).write_text("half", encoding="utf-8")
    (path.parent / "folder").mkdir()
    (path.parent.parent / "not-a-date").mkdir()
    (path.parent.parent / "readme.txt").write_text("hello", encoding="utf-8")
    read_all(workspace)
    assert ledger(workspace) == [(day(3), "n.csv", 24, 0)]


@pytest.mark.parametrize("outside", [date(2025, 12, 31), date(2026, 3, 21), date(2062, 1, 1)])
def test_a_delivery_outside_the_calendar_waits(tmp_path: Path, outside: date):
    workspace = village(tmp_path)
    assert not FIRST_DAY <= outside <= TODAY
    land(workspace, "readings", outside, "n.csv", reading_lines(outside))
    assert stale_deliveries(workspace, "readings") == []


BROKEN = {
    "empty.csv": "",
    "blank.csv": "\n\n\n",
    "binary.csv": "\x00\x01\x02\x03" * 300,
    "words.csv": "this is\nno table\n",
    "other.csv": "a,b\n1,2\n",
    "page.csv": "<html><body>503 Service Unavailable</body></html>\n",
}


@pytest.mark.parametrize("name", BROKEN)
@pytest.mark.parametrize("feed", ["readings", "market"])
def test_a_file_that_is_no_file_is_one_faulty_row_and_the_others_go_on(tmp_path: Path, feed: str, name: str):
    workspace = village(tmp_path)
    lines = reading_lines(day(2)) if feed == "readings" else series_lines(day(2), "spot", "price_eur_per_mwh", lambda h: 40.0)
    land(workspace, feed, day(3), "good.csv", lines)
    land_text(workspace, feed, day(3), name, BROKEN[name])
    read_all(workspace)
    table = raw(workspace, feed).to_pylist()
    bad = [r for r in table if r["file"] == name]
    assert [r for r in table if r["file"] == "good.csv" and r["fault"]] == []
    assert len([r for r in table if r["file"] == "good.csv"]) == 24
    assert bad and all(r["fault"] for r in bad), "nothing that was delivered disappears"


def test_faulty_lines_stand_beside_good_ones(tmp_path: Path):
    workspace = village(tmp_path)
    lines = reading_lines(day(2))
    lines[5] = "A,import,2026-03-02T05:00:00Z,60,lots,A"
    lines[6] = "A,import,yesterday at six,60,1.6,A"
    lines[7] = "A,import"
    land(workspace, "readings", day(3), "n.csv", lines)
    read = read_deliveries(workspace, "readings", [day(3)])
    assert (read.rows, read.faulty_rows) == (24, 3)
    assert [r["line"] for r in raw(workspace).to_pylist() if r["fault"]] == [7, 8, 9]
    assert read.touched == [day(2), day(3)]  # rows without a day count for the day of their delivery


def test_a_hostile_name_is_only_a_name(tmp_path: Path):
    workspace = village(tmp_path)
    name = "it's; DROP TABLE x--[1]*?.csv"
    land(workspace, "readings", day(3), name, reading_lines(day(2)))
    read_all(workspace)
    assert set(raw(workspace)["file"].to_pylist()) == {name}
    assert stale_deliveries(workspace, "readings") == []
