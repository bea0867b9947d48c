"""Just what a delivery touched is cleaned again, and every delivered row can be found afterwards."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pytest

from lakehouse.flow import clean, forecast, raw
from lakehouse.flow.clean import clean_readings_days
from lakehouse.flow.raw import read_deliveries, stale_deliveries, touched_days
from lakehouse.flow.staleness import Step, next_steps, pulse, token_of
from lakehouse.flow.workspace import Workspace
from lakehouse.storage.engine import select_files
from tests.flow.builders import (
    FIRST_DAY,
    TODAY,
    clean_up_to_date,
    day,
    land,
    land_text,
    read_all,
    reading_lines,
    rewrite,
    series_lines,
    take,
    village,
)


@pytest.fixture(scope="module")
def clean_village(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten days of readings of two meters, delivered the morning after, cleaned; nothing is stale."""
    home = tmp_path_factory.mktemp("village")
    workspace = village(home)
    for n in range(2, 12):
        lines = reading_lines(day(n - 1)) + reading_lines(day(n - 1), meter="B", kwh=lambda h: 2 + (h * 7 % 24) / 5)
        land(workspace, "readings", day(n), f"readings-{n}.csv", lines)
    clean_up_to_date(workspace)
    return home


@pytest.fixture
def workspace(clean_village: Path, tmp_path: Path) -> Workspace:
    import shutil

    shutil.copytree(clean_village, tmp_path / "copy")
    return Workspace.open(tmp_path / "copy")


def energy(workspace: Workspace, of: date, meter: str = "A") -> list[float]:
    rows = workspace.table("cleaned/meter_readings").read(f"date = DATE '{of}' AND meter_id = '{meter}'").sort_by("interval_start")
    return rows["energy_kwh"].to_pylist()


def accounts(workspace: Workspace) -> dict[str, int]:
    rows = workspace.table("quality/conservation").read().to_pylist()
    assert all(r["is_conserved"] for r in rows)
    names = ("delivered", "cleaned", "edited", "superseded", "exact_duplicates", "quarantined")
    told = {name: sum(r[name] for r in rows) for name in names}
    assert told["delivered"] == sum(told[n] for n in names[1:])
    return told


def delivered_rows(workspace: Workspace) -> int:
    return sum(workspace.table(f"raw/{feed}").read().num_rows for feed in workspace.site.feeds)


def spans(steps: list[Step], table: str) -> list[tuple[date, date] | None]:
    return [s.days for s in steps if table in s.tables]


def test_nothing_is_stale_after_the_work_and_the_load_is_the_sum_of_the_meters(workspace: Workspace):
    assert next_steps(workspace, until="cleaned") == []
    load = workspace.table("cleaned/load").read(f"date = DATE '{day(5)}'").sort_by("interval_start")["load_mw"].to_pylist()
    assert load[0] == pytest.approx((1.0 + 2.0) / 1000)
    assert load[1] == pytest.approx((1.1 + 2 + 7 / 5) / 1000)
    assert accounts(workspace)["delivered"] == delivered_rows(workspace) == 2 * 10 * 24


def test_a_late_file_for_an_old_day_makes_just_that_day_stale(workspace: Workspace):
    corrected = reading_lines(day(4), kwh=lambda h: 5 + h / 10)
    land(workspace, "readings", day(11), "late.csv", corrected)
    assert stale_deliveries(workspace, "readings") == [day(11)]
    before = {f.path for f in workspace.table("cleaned/meter_readings").files()}
    taken = clean_up_to_date(workspace)
    assert spans(taken, "raw/readings") == [(day(11), day(11))]
    # The delivery's other file was read again with it, and touches nothing.
    assert spans(taken, "cleaned/meter_readings") == [(day(4), day(4))]
    assert energy(workspace, day(4))[:2] == [5.0, 5.1]
    kept = {f.path for f in workspace.table("cleaned/meter_readings").files()} & before
    assert {Path(p).parent.name for p in kept} == {f"date={day(n)}" for n in (1, 2, 3, 5, 6, 7, 8, 9, 10)}
    assert accounts(workspace)["superseded"] == 24


def test_a_delivery_that_is_read_again_by_hand_touches_all_its_days(workspace: Workspace):
    land(workspace, "readings", day(11), "late.csv", reading_lines(day(4), meter="C"))
    clean_up_to_date(workspace)
    assert read_deliveries(workspace, "readings", [day(11)]).touched == [day(4), day(10)]
    assert spans(clean_up_to_date(workspace), "cleaned/meter_readings") == [(day(4), day(4)), (day(10), day(10))]


def test_a_file_of_a_delivery_that_is_read_with_other_settings_touches_its_days(workspace: Workspace):
    land(workspace, "readings", day(11), "late.csv", reading_lines(day(4), meter="C"))
    clean_up_to_date(workspace)
    site = workspace.site.home / "gridlake.yaml"
    text = site.read_text(encoding="utf-8")
    site.write_text(text.replace("time_zone: Europe/Madrid", "time_zone: Europe/Berlin"), encoding="utf-8")
    land(workspace, "readings", day(11), "more.csv", reading_lines(day(3), meter="C"))
    assert spans(clean_up_to_date(Workspace.open(workspace.site.home)), "cleaned/meter_readings")[0] == (day(3), day(4))


def test_a_late_file_in_a_delivery_of_its_own_touches_only_its_reading_day(workspace: Workspace):
    land(workspace, "readings", day(15), "late.csv", reading_lines(day(4), kwh=lambda h: 5 + h / 10))
    taken = clean_up_to_date(workspace)
    assert spans(taken, "cleaned/meter_readings") == [(day(4), day(4))]
    assert spans(taken, "cleaned/load") == [(day(4), day(4))]


def test_a_delivery_that_comes_while_its_day_is_being_cleaned_is_not_passed_over(workspace: Workspace, monkeypatch: pytest.MonkeyPatch):
    late = reading_lines(day(3), meter="C")
    account, times = clean._account, []

    def account_after_a_delivery(*args):
        times.append(args[-2:])
        if len(times) == 1:  # raw gets rows of the day after cleaning has read it, and before the day counts as cleaned
            land(workspace, "readings", day(13), "late.csv", late)
            read_all(workspace)
        account(*args)

    monkeypatch.setattr(clean, "_account", account_after_a_delivery)
    fate = clean_readings_days(workspace, day(2), day(5))
    assert times == [(day(2), day(5)), (day(3), day(3))]
    assert energy(workspace, day(3), "C") == pytest.approx([1 + hour / 10 for hour in range(24)])
    assert fate.is_conserved and accounts(workspace)["delivered"] == delivered_rows(workspace)


def test_a_delivery_whose_commit_a_cleaning_came_before_makes_its_day_stale(workspace: Workspace):
    cleaned_at = datetime.now(UTC)
    [read_at] = workspace.table("quality/deliveries").read(f"feed = 'readings' AND delivery_date = DATE '{day(11)}'")["read_at"].to_pylist()
    accounted = dict.fromkeys((day(n) for n in range(1, 14)), cleaned_at)
    assert touched_days(workspace, "readings", accounted) == []
    # Raw's files of the last delivery are older than what its line in the ledger says: between the two lies its commit.
    between = read_at - timedelta(milliseconds=1)
    assert all(f.written_at <= between for f in workspace.table("raw/readings").files())
    assert day(10) in touched_days(workspace, "readings", {**accounted, day(10): between})


def test_the_earlier_value_stays_in_raw_and_the_later_one_wins_also_when_it_is_taken_back(workspace: Workspace):
    late = land(workspace, "readings", day(15), "late.csv", reading_lines(day(4), kwh=lambda h: 5 + h / 10))
    clean_up_to_date(workspace)
    assert energy(workspace, day(4))[0] == 5.0
    assert sorted(workspace.table("raw/readings").read(f"date = DATE '{day(4)}' AND meter_id = 'A'")["energy_kwh"].to_pylist())[0] == 1.0
    late.unlink()
    clean_up_to_date(workspace)
    assert energy(workspace, day(4))[0] == 1.0
    assert accounts(workspace)["delivered"] == delivered_rows(workspace)


def test_a_delivery_that_no_longer_holds_a_day_gives_it_back(workspace: Workspace):
    late = land(workspace, "readings", day(15), "late.csv", [*reading_lines(day(4), kwh=lambda h: 5 + h), *reading_lines(day(14))])
    clean_up_to_date(workspace)
    assert energy(workspace, day(4))[0] == 5.0
    kept = [line for line in late.read_text(encoding="utf-8").splitlines() if "2026-03-04" not in line]
    rewrite(late, "\n".join(kept) + "\n")
    taken = clean_up_to_date(workspace)
    assert energy(workspace, day(4))[0] == 1.0
    assert {d for s in spans(taken, "cleaned/meter_readings") for d in (s or ())} == {day(4), day(14)}
    assert accounts(workspace)["delivered"] == delivered_rows(workspace)


def test_cleaning_again_changes_nothing(workspace: Workspace):
    order = [("meter_id", "ascending"), ("interval_start", "ascending")]
    once = workspace.table("cleaned/meter_readings").read().sort_by(order)
    clean_readings_days(workspace, day(1), day(10))
    clean_readings_days(workspace, day(4), day(4))
    assert workspace.table("cleaned/meter_readings").read().sort_by(order).equals(once)
    assert accounts(workspace)["delivered"] == 480


def files_read(workspace: Workspace, monkeypatch: pytest.MonkeyPatch, first: date, last: date) -> list[int]:
    """Of each part of a span that is cleaned, how many deliveries are read."""
    told: list[int] = []
    gather = clean._gather

    def counted(workspace: Workspace, engine: duckdb.DuckDBPyConnection, name: str, *others: Any, **more: Any) -> str:
        view = gather(workspace, engine, name, *others, **more)
        told.append(engine.sql(f"SELECT count(DISTINCT delivery_date) FROM {name}").fetchall()[0][0])
        return view

    with monkeypatch.context() as patched:
        patched.setattr(clean, "_gather", counted)
        clean_readings_days(workspace, first, last)
    return told


def test_a_long_span_is_cleaned_in_parts_that_read_little_more_than_their_days(workspace: Workspace, monkeypatch: pytest.MonkeyPatch):
    whole = workspace.table("cleaned/meter_readings").read().to_pylist()
    monkeypatch.setattr(clean, "ROWS_AT_ONCE", 4 * 48)  # two meters of 24 hours: four days
    monkeypatch.setattr(clean, "ROWS_WRITTEN_AT_ONCE", 2 * 48)
    table = workspace.table("cleaned/meter_readings")
    before = table.version()
    read = files_read(workspace, monkeypatch, day(1), day(10))
    assert read == [5, 6, 3]  # four, four and two days, with the day before and the day after as far as they are there
    assert table.version() - before == 5, "two days a commit"
    assert sorted(map(repr, table.read().to_pylist())) == sorted(map(repr, whole))


def test_of_a_newer_ledger_only_what_is_new_is_read(workspace: Workspace, monkeypatch: pytest.MonkeyPatch):
    assert stale_deliveries(workspace, "readings") == []
    land(workspace, "readings", day(12), "readings-12.csv", reading_lines(day(11)))
    read_deliveries(workspace, "readings", [day(12)])
    read: list[int] = []

    def counted(contract: Any, snapshot: Any) -> str:
        read.append(len(snapshot.files))
        return select_files(contract, snapshot)

    monkeypatch.setattr(raw, "select_files", counted)
    assert stale_deliveries(workspace, "readings") == []
    assert read == [1], "one file of the eleven"
    assert stale_deliveries(Workspace.open(workspace.site.home), "readings") == [], "who looks for the first time sees the same"
    assert read == [1, 11]


def test_an_exact_duplicate_is_counted_and_changes_nothing(workspace: Workspace):
    land(workspace, "readings", day(15), "again.csv", reading_lines(day(4)))
    clean_up_to_date(workspace)
    assert accounts(workspace)["exact_duplicates"] == 24
    assert energy(workspace, day(4))[0] == 1.0


@pytest.mark.parametrize("text", ["\x00\x01\x02 no table at all", "a,b\n1,2\n", ""])
def test_an_unreadable_file_is_in_quarantine_with_its_reason(workspace: Workspace, text: str):
    land_text(workspace, "readings", day(15), "broken.csv", text)
    taken = clean_up_to_date(workspace)
    assert spans(taken, "cleaned/meter_readings") == [(day(15), day(15))]
    rows = workspace.table("quality/quarantine").read("file = 'broken.csv'").to_pylist()
    assert rows and all(r["reason"] and r["date"] == day(15) for r in rows)
    assert rows[0]["line"] == 0 and rows[0]["rule"] == "unreadable_file"
    assert accounts(workspace)["delivered"] == delivered_rows(workspace)
    assert next_steps(workspace, until="cleaned") == []


def test_a_faulty_line_is_in_quarantine_and_its_neighbours_are_not(workspace: Workspace):
    lines = reading_lines(day(11))
    lines[5] = "A,import,2026-03-11T05:00:00Z,60,lots,A"
    lines[6] = "A,import,2026-03-11T06:00:00Z,60,-3,A"
    land(workspace, "readings", day(12), "n.csv", lines)
    clean_up_to_date(workspace)
    rows = workspace.table("quality/quarantine").read("file = 'n.csv'").sort_by("line").to_pylist()
    assert [(r["line"], r["rule"]) for r in rows] == [(7, "unreadable_line"), (8, "negative_energy")]
    assert accounts(workspace)["delivered"] == delivered_rows(workspace)
    assert len(energy(workspace, day(11))) == 24  # both are estimated


@pytest.mark.parametrize(
    "of", [date(2062, 3, 4), date(1996, 3, 4), date(2026, 2, 20), date(2026, 3, 18), date(9999, 12, 31), date(1, 1, 2)]
)
def test_a_reading_of_an_impossible_day_is_not_lost(workspace: Workspace, of: date):
    land(workspace, "readings", day(15), "odd.csv", reading_lines(of)[:2])
    clean_up_to_date(workspace)
    assert accounts(workspace)["delivered"] == delivered_rows(workspace) == 482
    rows = workspace.table("quality/quarantine").read("file = 'odd.csv'").to_pylist()
    assert len(rows) == 2 and {r["date"] for r in rows} == {day(15)}


@pytest.mark.parametrize("bad", ["north\x00west", "'; DROP TABLE raw.readings; --", "x" * 5_000, "Ünïcödé 🏠", " "])
def test_a_hostile_meter_name_is_only_a_name(workspace: Workspace, bad: str):
    land(workspace, "readings", day(15), "hostile.csv", reading_lines(day(14), meter=bad))
    clean_up_to_date(workspace)
    assert accounts(workspace)["delivered"] == delivered_rows(workspace)


def test_series_of_tomorrow_are_cleaned_today_and_those_of_next_month_wait(tmp_path: Path):
    workspace = village(tmp_path)
    tomorrow = TODAY + timedelta(days=1)
    for ahead in (tomorrow, TODAY + timedelta(days=30)):
        lines = series_lines(ahead, "square", "temperature_c", lambda h: 10 + h / 10, is_forecast=True)
        land(workspace, "market", TODAY, f"weather-{ahead}.csv", lines)
    clean_up_to_date(workspace)
    assert set(workspace.table("cleaned/external_forecasts").read()["date"].to_pylist()) == {tomorrow}
    assert workspace.table("raw/market").read().num_rows == 48


def test_a_series_value_delivered_again_wins_and_the_other_is_accounted_for(tmp_path: Path):
    workspace = village(tmp_path)
    land(workspace, "market", day(4), "a.csv", series_lines(day(4), "spot", "price_eur_per_mwh", lambda h: 40 + h))
    clean_up_to_date(workspace)
    land(workspace, "market", day(6), "b.csv", series_lines(day(4), "spot", "price_eur_per_mwh", lambda h: 50 + h))
    taken = clean_up_to_date(workspace)
    assert spans(taken, "cleaned/prices") == [(day(4), day(4))]
    prices = workspace.table("cleaned/prices").read().sort_by("interval_start")["price_eur_per_mwh"].to_pylist()
    assert prices == [50.0 + h for h in range(24)]
    assert accounts(workspace)["superseded"] == 24
    assert next_steps(workspace, until="cleaned") == []


def test_touched_days_are_told_by_what_was_accounted_for_since(workspace: Workspace):
    long_ago, now = datetime(2020, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC)
    everything = [day(n) for n in range(1, 11)]
    assert touched_days(workspace, "readings", {}) == everything
    assert touched_days(workspace, "readings", dict.fromkeys(everything, now)) == []
    assert touched_days(workspace, "readings", dict.fromkeys(everything, now) | {day(7): long_ago}) == [day(7)]


def test_a_changed_day_makes_just_the_issues_stale_that_may_look_at_it(workspace: Workspace):
    site = workspace.site
    first, last = forecast.issue_days(site, "demand")
    assert (first, last) == (FIRST_DAY + timedelta(days=8), TODAY)
    forecast.make_features(workspace, "demand", first, last)
    made = set(workspace.table("features/demand").partitions_written())
    still = {d for s in next_steps(workspace, until="features") for d in _days(s)}
    assert not made & still
    land(workspace, "readings", day(15), "late.csv", reading_lines(day(2), kwh=lambda h: 5 + h / 10))
    clean_up_to_date(workspace)
    stale = {d for s in next_steps(workspace, until="features") for d in _days(s)} - still
    read = {d: forecast.read_span(site, "demand", d, d) for d in made}
    assert stale == {d for d in made if read[d][0] <= day(2) <= read[d][1]}
    assert stale, "the change is within reach of some issue"


def _days(step: Step) -> list[date]:
    assert step.days
    return [step.days[0] + timedelta(days=n) for n in range((step.days[1] - step.days[0]).days + 1)]


def test_steps_can_be_cut_to_some_days(workspace: Workspace):
    for n in (13, 14, 15):
        land(workspace, "readings", day(n), f"n{n}.csv", reading_lines(day(n - 1)))
    cut = next_steps(workspace, until="raw", days=(day(14), day(20)))
    assert spans(cut, "raw/readings") == [(day(14), day(15))]
    assert next_steps(workspace, until="raw", days=(date.min, day(12))) == []


def test_the_pulse_beats_when_something_arrives_and_not_otherwise(workspace: Workspace):
    before = pulse(workspace)
    assert pulse(Workspace.open(workspace.site.home)) == before
    path = land(workspace, "readings", day(15), "n.csv", reading_lines(day(14)))
    arrived = pulse(workspace)
    assert arrived != before
    rewrite(path, path.read_text(encoding="utf-8"))
    assert pulse(workspace) != arrived


def test_the_same_step_on_the_same_inputs_has_the_same_token(workspace: Workspace):
    path = land(workspace, "readings", day(15), "n.csv", reading_lines(day(14)))
    (step,) = next_steps(workspace, until="raw")
    token = token_of(workspace, step)
    assert token_of(workspace, step) == token
    rewrite(path, path.read_text(encoding="utf-8").replace("1.1000", "7.0000"))
    assert token_of(workspace, step) != token, "a corrected file must be asked for again"


def test_an_interrupted_step_is_taken_up_again(workspace: Workspace):
    from lakehouse.storage.lake import LakeTable

    land(workspace, "readings", day(15), "late.csv", reading_lines(day(4), kwh=lambda h: 5 + h / 10))
    read_all(workspace)
    take(workspace, next_steps(workspace, until="cleaned")[0])  # the registry
    steps = next_steps(workspace, until="cleaned")
    write, names = LakeTable.replace, []

    def killed(table: LakeTable, *args: object, **more: object) -> object:
        names.append(table.contract.name)
        if table.contract.name == "quality/conservation":
            raise KeyboardInterrupt
        return write(table, *args, **more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LakeTable, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            take(workspace, steps[0])
    assert "cleaned/meter_readings" in names
    assert next_steps(workspace, until="cleaned") == steps, "the day was not accounted for, so it is still due"
    clean_up_to_date(workspace)
    assert accounts(workspace)["delivered"] == delivered_rows(workspace)
