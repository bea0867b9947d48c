"""Register differences: held against the sum of their intervals, and shared by the estimates among them."""

from __future__ import annotations

from datetime import timedelta

import pytest

from lakehouse.flow.clean import clean_readings_days
from lakehouse.flow.vee import found_by_rule
from lakehouse.flow.workspace import Workspace
from tests.flow.builders import clean_up_to_date, land, reading_lines, village
from tests.flow.builders import day as of_march
from tests.metering.builders import MONDAY, USUAL, day, past, row, run

TOTAL = sum(USUAL)
HOLED = [None if 10 <= hour < 13 else kwh for hour, kwh in enumerate(USUAL)]


def difference(kwh, *, hours=24, at=MONDAY, file="registers.csv", **more):
    """What a register counted over so many hours."""
    return row(kwh, at=at, minutes=60 * hours, file=file, line=900, **more)


def test_a_difference_is_no_interval_and_is_accounted_for():
    result = run(past() + day() + [difference(TOTAL)])
    assert result.quarantined == [] and [r["energy_kwh"] for r in result.hours().values()] == USUAL
    (account,) = [c for c in result.conservation if c["file"] == "registers.csv"]
    assert (account["delivered"], account["cleaned"]) == (1, 1)
    (found,) = result.differences
    assert found["register_kwh"] == TOTAL and found["interval_end"] - found["interval_start"] == timedelta(days=1)


def test_estimates_take_what_the_measured_intervals_leave_of_the_register():
    alone = run(past() + day(HOLED)).hours()
    shared = run(past() + day(HOLED) + [difference(TOTAL + 0.8)])
    hours = shared.hours()
    assert sum(r["energy_kwh"] for r in hours.values()) == pytest.approx(TOTAL + 0.8, abs=1e-4)
    ratios = [hours[h]["energy_kwh"] / alone[h]["energy_kwh"] for h in (10, 11, 12)]
    assert ratios == pytest.approx([ratios[0]] * 3, rel=1e-3) and {hours[h]["method"] for h in (10, 11, 12)} == {"register_share"}
    assert [e["was_kwh"] for e in shared.edits] == [alone[h]["energy_kwh"] for h in (10, 11, 12)]
    assert {(e["rule"], e["file"]) for e in shared.edits} == {("register_difference", "registers.csv")}


def test_a_register_that_leaves_nothing_sensible_scales_no_estimate():
    alone = run(past() + day(HOLED)).hours()
    for kwh in (TOTAL - 2.0, TOTAL + 20.0):  # less than the measured ones, and fourteen times the estimate
        hours = run(past() + day(HOLED) + [difference(kwh)]).hours()
        assert [hours[h]["energy_kwh"] for h in (10, 11, 12)] == [alone[h]["energy_kwh"] for h in (10, 11, 12)]


def test_a_register_of_whole_kwh_says_nothing_of_a_gap_of_one():
    hours = run(past() + day(HOLED) + [difference(13.0)]).hours()  # 1.34 kWh are missing, give or take one
    assert {hours[h]["method"] for h in (10, 11, 12)} == {"like_day_profile"}


def test_of_two_differences_the_later_delivery_wins_and_neither_contests_the_interval_that_starts_with_it():
    again = difference(TOTAL + 1, file="again.csv", delivered=MONDAY + timedelta(days=2))
    result = run(past() + day() + [difference(TOTAL), again])
    assert [(d["file"], d["register_kwh"]) for d in result.differences] == [("again.csv", TOTAL + 1)]
    assert {c["file"]: (c["cleaned"], c["superseded"]) for c in result.conservation if c["file"] in ("registers.csv", "again.csv")} == {
        "registers.csv": (0, 1),
        "again.csv": (1, 0),
    }
    assert result.hours()[0]["energy_kwh"] == USUAL[0] and result.edits == []


def test_a_negative_difference_is_refused():
    assert run(past() + day() + [difference(-3.0)]).refused() == [("negative_energy", 0)]


# --- In the flow -------------------------------------------------------------------------------------------------------------


def kwh_of(hour):
    return 1 + hour / 10


def delivered_village(home, *, holes=(), wrong=()):
    """Eight days of one meter; (day, hour) in `holes` were not delivered, those in `wrong` with twice the energy."""
    workspace = village(home)
    for number in range(1, 9):
        lines = reading_lines(of_march(number), kwh=lambda hour, n=number: kwh_of(hour) * (2 if (n, hour) in wrong else 1))
        kept = [line for hour, line in enumerate(lines) if (number, hour) not in holes]
        land(workspace, "readings", of_march(number + 1), "north.csv", kept)
    return workspace


def land_difference(workspace, opens, days, kwh, delivered):
    lines = [f"A,import,{opens.isoformat()}T00:00:00Z,{1440 * days},{kwh:.3f},A"]
    land(workspace, "readings", delivered, "registers.csv", lines)


def verdicts(workspace):
    return workspace.table("cleaned/register_differences").read().sort_by("interval_start")["verdict"].to_pylist()


DAY_KWH = sum(kwh_of(hour) for hour in range(24))


def test_the_intervals_between_two_reads_agree_or_differ(tmp_path):
    workspace = delivered_village(tmp_path / "site", wrong={(5, 7)})
    for number in (4, 5):
        land_difference(workspace, of_march(number), 1, DAY_KWH, of_march(number + 2))
    clean_up_to_date(workspace)
    assert verdicts(workspace) == ["agrees", "differs"]
    found = found_by_rule(workspace, of_march(1), of_march(8))["register_difference"]
    assert (found.rows, found.meters, found.worst) == (1, 1, [("A", 1, of_march(5))])
    assert "register_difference" not in found_by_rule(workspace, of_march(6), of_march(8))


def test_a_difference_that_comes_late_changes_the_estimates_of_its_days_and_nothing_else(tmp_path):
    holes = {(4, 7), (4, 8), (6, 12)}
    workspace = delivered_village(tmp_path / "site", holes=holes)
    clean_up_to_date(workspace)
    before = workspace.table("cleaned/meter_readings").read().to_pylist()
    land_difference(workspace, of_march(4), 4, 4 * DAY_KWH + 1.5, of_march(9))
    clean_up_to_date(workspace)
    after = workspace.table("cleaned/meter_readings").read().to_pylist()
    key = lambda r: r["interval_start"]  # noqa: E731
    changed = [a for b, a in zip(sorted(before, key=key), sorted(after, key=key), strict=True) if a != b]
    assert {(r["interval_start"].day, r["interval_start"].hour) for r in changed} == holes
    assert sum(r["energy_kwh"] for r in after if 4 <= r["interval_start"].day < 8) == pytest.approx(4 * DAY_KWH + 1.5, abs=1e-4)
    assert verdicts(workspace) == ["shared"]


def test_the_order_of_the_work_does_not_matter(tmp_path):
    holes = {(4, 7), (4, 8), (6, 12)}
    at_once = delivered_village(tmp_path / "once", holes=holes)
    land_difference(at_once, of_march(4), 4, 4 * DAY_KWH + 1.5, of_march(9))
    clean_up_to_date(at_once)
    late = delivered_village(tmp_path / "late", holes=holes)
    clean_up_to_date(late)
    land_difference(late, of_march(4), 4, 4 * DAY_KWH + 1.5, of_march(9))
    clean_up_to_date(late)
    clean_readings_days(late, of_march(6), of_march(6))  # twice is once
    for table in ("cleaned/meter_readings", "quality/edits", "cleaned/register_differences"):
        first, second = (sorted(map(repr, w.table(table).read().to_pylist())) for w in (at_once, late))
        assert first == second, table


def test_a_process_that_dies_while_estimates_share_leaves_that_work_to_the_next_cleaning(tmp_path, monkeypatch):
    undisturbed, killed = (delivered_village(tmp_path / name, holes={(4, 7), (4, 8), (6, 12)}) for name in ("undisturbed", "killed"))
    for workspace in (undisturbed, killed):
        clean_up_to_date(workspace)
        land_difference(workspace, of_march(4), 4, 4 * DAY_KWH + 1.5, of_march(9))
    replace = Workspace.replace

    def dying(self, name, rows, **more):
        if name == "cleaned/meter_readings" and more["inputs"] == ["cleaned/register_differences"]:
            raise KeyboardInterrupt  # the edits and the report are written, the readings are not
        return replace(self, name, rows, **more)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(Workspace, "replace", dying)
        clean_up_to_date(killed)
    assert verdicts(killed) == [None]
    clean_up_to_date(undisturbed)
    clean_readings_days(killed, of_march(8), of_march(8))
    assert verdicts(killed) == ["shared"]
    for table in ("cleaned/meter_readings", "quality/edits", "quality/vee_report", "cleaned/register_differences"):
        first, second = (sorted(map(repr, w.table(table).read().to_pylist())) for w in (undisturbed, killed))
        assert first == second, table
