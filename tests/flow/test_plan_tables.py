"""What follows from a plan: reserves, flows, bids, set points, its page, planning again, and what not knowing the day cost."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest

from lakehouse.errors import DispatchError, SiteError
from lakehouse.flow.plan import explain_unit, make_plans, plan_of, replan, setpoints_at, write_setpoints
from lakehouse.flow.plan_report import write_plan_report
from lakehouse.flow.regret import regret_is_due, tell_regret
from lakehouse.flow.staleness import Step, _plans, _regret
from lakehouse.flow.workspace import Workspace
from tests.flow.builders import day
from tests.flow.town import BASE, BATTERY, FLAT, GRID, PEAK, SUN, came, issue, midnight, town

NOON = midnight(day(11)) + timedelta(hours=12)
HIGH = [2.0] * 8 + [5.0] * 8 + [3.0] * 8


def due(workspace: Workspace, days: tuple[date, date] | None = None) -> list[Step]:
    """What of dispatch is stale: plans first, then regret."""
    return _plans(workspace, days) or _regret(workspace)


def read(workspace: Workspace, table: str, order: str) -> list[dict]:
    return workspace.table(f"dispatch/{table}").read(f"true ORDER BY {order}").to_pylist()


@pytest.fixture(scope="module", autouse=True)
def no_pictures() -> Iterator[None]:
    """The picture of a plan takes longer than the plan; `test_plan` looks at it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lakehouse.flow.plan._picture", lambda made, site, units: b"")
        yield


@pytest.fixture(scope="module")
def planned(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A day with everything in it. Read it, don't plan in it."""
    workspace = town(tmp_path_factory.mktemp("town"), [BASE, PEAK, BATTERY, GRID, SUN], "reserve_mw: 1.0\nreserve_down_mw: 0.5")
    issue(
        workspace, day(10), spread=2.0, north=HIGH, south=[1.0] * 24, sun=[0.0] * 9 + [1.5] * 6 + [0.0] * 9, spot=[40.0] * 12 + [90.0] * 12
    )
    assert make_plans(workspace, day(10), day(10)).breaches == []
    return workspace


def test_reserves_add_up_to_the_requirement_and_carry_its_price(planned: Workspace):
    rows = read(planned, "reserves", "interval_start")
    assert {r["direction"] for r in rows} == {"up", "down"}
    assert {r["unit_id"] for r in rows} == {"base", "peak", "battery"}
    for (_, direction), group in itertools.groupby(
        sorted(rows, key=lambda r: (r["interval_start"], r["direction"])), key=lambda r: (r["interval_start"], r["direction"])
    ):
        own = list(group)
        required = {"up": 1.0, "down": 0.5}[direction]
        assert {r["requirement_mw"] for r in own} == {required}
        assert sum(r["reserve_mw"] for r in own) + own[0]["shortfall_mw"] >= required - 1e-6
    prices = {r["interval_start"]: r["reserve_price_eur_per_mwh"] for r in read(planned, "prices", "interval_start")}
    assert all(r["price_eur_per_mw_h"] == prices[r["interval_start"]] for r in rows if r["direction"] == "up")


def test_bids_rise_in_price_and_never_fall_in_quantity(planned: Workspace):
    rows = read(planned, "bids", "interval_start, step")
    assert {r["unit_id"] for r in rows} == {"link"}
    for _, group in itertools.groupby(rows, key=lambda r: r["interval_start"]):
        own = list(group)
        assert [r["step"] for r in own] == list(range(1, len(own) + 1))
        assert all(a["price_eur_per_mwh"] < b["price_eur_per_mwh"] for a, b in itertools.pairwise(own))
        assert all(a["quantity_mw"] < b["quantity_mw"] for a, b in itertools.pairwise(own))
        assert all(-2.0 <= r["quantity_mw"] <= 2.0 for r in own)
    assert max(len(list(g)) for _, g in itertools.groupby(rows, key=lambda r: r["interval_start"])) > 1


def test_the_summary_tells_what_binds_in_the_fleets_own_names(planned: Workspace):
    (row,) = read(planned, "summary", "date")
    binding = json.loads(row["binding"])
    assert all(one.keys() == {"constraint", "where", "intervals", "worth_eur"} for one in binding)
    assert {one["where"] for one in binding if one["constraint"].endswith("port limit")} == {"link"}
    assert [one["worth_eur"] for one in binding] == sorted((one["worth_eur"] for one in binding), reverse=True)
    assert (row["planned_on"], row["look_ahead_hours"], row["cost_eur"]) == ("p50", 0.0, pytest.approx(row["objective_eur"]))


def test_set_points_follow_the_plan_and_lie_in_a_file(planned: Workspace):
    rows = read(planned, "setpoints", "valid_from, asset_id")
    plan = {(r["unit_id"], r["interval_start"]): r for r in read(planned, "plan", "interval_start")}
    assert {r["asset_id"] for r in rows} == {"base", "peak", "battery", "park"}, "the market is no asset that can be told"
    for row in rows:
        assert row["power_mw"] == pytest.approx(plan[row["asset_id"], row["valid_from"]]["power_mw"])
        if row["asset_kind"] == "thermal":
            assert (row["command"] == "run") == plan[row["asset_id"], row["valid_from"]]["committed"]
    document = json.loads((planned.site.home / "setpoints.json").read_text())
    assert (document["form"], document["site"], len(document["setpoints"])) == ("gridlake.setpoints/1", "town", 4 * 24)
    assert document["valid_from"] == midnight(day(11)).isoformat()


def test_now_is_the_interval_that_holds_the_moment(planned: Workspace, tmp_path: Path):
    rows = setpoints_at(planned, NOON + timedelta(minutes=59))
    assert {(r["valid_from"], r["valid_until"]) for r in rows} == {(NOON, NOON + timedelta(hours=1))}
    path = write_setpoints(planned, tmp_path / "now.json", rows)
    assert [s["asset"] for s in json.loads(path.read_text())["setpoints"]] == ["base", "battery", "park", "peak"]
    assert list(tmp_path.iterdir()) == [path], "nothing is left aside"
    with pytest.raises(DispatchError, match="no plan for 2026-04-01"):
        setpoints_at(planned, datetime(2026, 4, 1, tzinfo=UTC))
    assert len(setpoints_at(planned)) == 4, "a frozen clock's now lies on the newest planned day"


def test_a_stored_plan_is_the_plan_that_was_made(planned: Workspace):
    from lakehouse.dispatch import check_solution

    stored = plan_of(planned, day(10))
    assert check_solution(stored.problem, stored.solution).breaches == []


def test_every_unit_of_the_plan_can_be_explained(planned: Workspace):
    for unit in ("base", "peak", "battery", "park", "link"):
        told = explain_unit(planned, unit, NOON)
        assert told[0].startswith(unit)
        assert "2026-03-11 12:00 local time" in told[0]
    with pytest.raises(DispatchError, match="no unit 'coal'"):
        explain_unit(planned, "coal", NOON)


def test_the_page_tells_the_plan_and_needs_nothing_beside_it(planned: Workspace, tmp_path: Path):
    page = write_plan_report(planned, day(11), tmp_path / "plan.html").read_text()
    for said in (
        "dispatch plan for Wednesday, 11 March 2026",
        "verified by the checker",
        "<svg",
        "base",
        "link",
        "Nothing: all demand is served",
    ):
        assert said in page
    assert "<script" not in page
    assert "http-equiv" not in page and 'src="' not in page
    with pytest.raises(DispatchError, match="no plan for 2026-03-15"):
        write_plan_report(planned, day(15))


def test_the_page_names_what_could_not_be_met_in_words(tmp_path: Path):
    workspace = town(tmp_path, [PEAK])
    issue(workspace, day(10), north=[2.0] * 17 + [9.0] * 2 + [2.0] * 5, south=[0.0] * 24)
    make_plans(workspace, day(10), day(10))
    page = write_plan_report(workspace, out=tmp_path / "plan.html").read_text()
    assert "17:00 to 19:00, system: unserved energy</b>, 10 MWh, up to 5 MW, priced at 100,000 EUR" in page
    assert "there is not enough capacity" in page


# -- options of the site file


def test_zones_lines_and_everything_flexible_come_from_the_fleet_file(tmp_path: Path):
    units = [
        BASE | {"zone": "north"}, PEAK | {"zone": "south"},
        {"unit_id": "north", "kind": "zone", "demand_series": "north"}, {"unit_id": "south", "kind": "zone", "demand_series": ["south"]},
        {"unit_id": "tie", "kind": "line", "from_zone": "north", "to_zone": "south", "forward_mw": 1.0},
        {"unit_id": "mill", "kind": "interruptible", "maximum_mw": 0.5, "price_eur_per_mwh": 100.0, "zone": "south"},
        {"unit_id": "pumps", "kind": "shiftable", "energy_mwh": 2, "maximum_mw": 1, "window_local": ["10:00", "14:00"], "zone": "north"},
        {"unit_id": "neighbour", "kind": "contract", "maximum_mw": 0.5, "price_eur_per_mwh": 70, "minimum_energy_mwh": 6, "zone": "south"},
        {"unit_id": "river", "kind": "hydro", "maximum_mw": 0.25, "must_take": True, "zone": "north"},
    ]  # fmt: skip
    workspace = town(tmp_path, units)
    issue(workspace, day(10), north=FLAT, south=[2.0] * 24)
    assert make_plans(workspace, day(10), day(10)).breaches == []
    flows = read(workspace, "flows", "interval_start")
    assert [r["flow_mw"] for r in flows] == pytest.approx([1.0] * 24)
    assert all(r["is_binding"] and r["price_difference_eur_per_mwh"] > 0 for r in flows)
    plan = read(workspace, "plan", "interval_start")
    assert {r["unit_kind"] for r in plan} == {"thermal", "interruptible", "shiftable", "contract", "hydro"}
    assert {r["zone"] for r in plan if r["unit_id"] == "mill"} == {"south"}
    drawn = [r["interval_start"].hour + 1 for r in plan if r["unit_id"] == "pumps" and r["power_mw"] < -1e-6]
    assert set(drawn) <= {10, 11, 12, 13}
    assert -sum(r["power_mw"] for r in plan if r["unit_id"] == "pumps") == pytest.approx(2.0)
    assert sum(r["power_mw"] for r in plan if r["unit_id"] == "neighbour") >= 6.0 - 1e-6
    assert {r["zone"] for r in read(workspace, "prices", "zone")} == {"north", "south"}
    for unit in ("mill", "pumps", "neighbour", "river"):
        assert explain_unit(workspace, unit, NOON)[0].startswith(unit)


def test_tables_of_what_the_fleet_lacks_are_there_and_empty(tmp_path: Path):
    workspace = town(tmp_path, [PEAK])
    issue(workspace, day(10), north=FLAT, south=[0.0] * 24)
    make_plans(workspace, day(10), day(10))
    assert read(workspace, "flows", "line_id") == read(workspace, "bids", "step") == read(workspace, "reserves", "unit_id") == []


@pytest.mark.parametrize(
    ("zones", "says"),
    [
        ([{"unit_id": "a", "kind": "zone", "demand_series": "west"}], "'west' is not forecast; the site forecasts north, south"),
        (
            [{"unit_id": "a", "kind": "zone", "demand_series": "north"}],
            "do not add up to the demand: their series are north of north, south",
        ),
        ([{"unit_id": "a", "kind": "zone", "demand_share": 0.6}], "their shares sum to 0.6"),
    ],
)
def test_zones_that_leave_demand_out_are_refused(tmp_path: Path, zones: list[dict], says: str):
    workspace = town(tmp_path, [PEAK | {"zone": "a"}, *zones])
    issue(workspace, day(10), north=FLAT, south=FLAT)
    with pytest.raises(DispatchError, match=says):
        make_plans(workspace, day(10), day(10))


def test_an_outage_in_the_site_file_is_of_the_local_clock(tmp_path: Path):
    outage = 'outages: [{unit: base, start: "2026-03-11T08:00", end: "2026-03-11T12:00"}]'
    workspace = town(tmp_path, [BASE | {"minimum_up_hours": 0, "minimum_down_hours": 0}, PEAK], outage)
    issue(workspace, day(10), north=FLAT, south=[0.0] * 24)
    assert make_plans(workspace, day(10), day(10)).breaches == []
    off = {r["interval_start"].hour for r in read(workspace, "plan", "interval_start") if r["unit_id"] == "base" and not r["committed"]}
    assert off == {7, 8, 9, 10}


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ('outages: [{unit: coal, start: "2026-03-11", end: "2026-03-12"}]', "no unit 'coal' in the fleet"),
        ('outages: [{unit: battery, start: "2026-03-11", end: "2026-03-12"}]', "outages of storage units can't be planned"),
    ],
)
def test_an_outage_that_can_not_be_is_refused(tmp_path: Path, line: str, says: str):
    workspace = town(tmp_path, [BASE, BATTERY], line)
    issue(workspace, day(10), north=FLAT, south=FLAT)
    with pytest.raises(DispatchError, match=says):
        make_plans(workspace, day(10), day(10))


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("plan_quantile: 0.7", "0.7 is none of the demand's quantiles"),
        ("scenarios: 1", "one scenario is no uncertainty"),
        ("scenarios: 5\nplan_quantile: 0.9", "scenarios are drawn from all quantiles"),
        ('outages: [{unit: base, start: "soon", end: "later"}]', "expected a moment such as"),
        ('outages: [{unit: base, start: "2026-03-12", end: "2026-03-11"}]', "not after its start"),
        ("look_ahead_hours: 100", "look_ahead_hours"),
    ],
)
def test_a_wrong_way_to_plan_is_refused_when_the_site_is_loaded(tmp_path: Path, line: str, says: str):
    with pytest.raises(SiteError, match=says):
        town(tmp_path, [BASE], line)


def test_a_cautious_quantile_plans_for_more(tmp_path: Path):
    demand = {}
    for quantile in (0.5, 0.9):
        workspace = town(tmp_path / str(quantile), [BASE, PEAK], f"plan_quantile: {quantile}")
        issue(workspace, day(10), spread=0.5, north=FLAT, south=[1.0] * 24)
        make_plans(workspace, day(10), day(10))
        (row,) = read(workspace, "summary", "date")
        demand[row["planned_on"]] = row["demand_mwh"]
    assert demand == {"p50": pytest.approx(96.0), "p90": pytest.approx(24 * (3 + 1.0 + 1 + 1.0))}


def test_scenarios_commit_for_what_the_median_does_not_need(tmp_path: Path):
    slow = PEAK | {"minimum_up_hours": 8, "minimum_down_hours": 8, "initial_hours_in_state": 24.0}
    runs = {}
    for count in (0, 6):
        workspace = town(tmp_path / str(count), [BASE, slow], f"scenarios: {count}\nscenario_correlation_hours: 24\ntime_limit_seconds: 60")
        issue(workspace, day(10), spread=0.4, north=[4.0] * 24, south=[1.5] * 24)
        assert make_plans(workspace, day(10), day(10)).breaches == []
        (row,) = read(workspace, "summary", "date")
        runs[count] = sum(r["committed"] for r in read(workspace, "plan", "interval_start") if r["unit_id"] == "peak")
    assert runs[0] == 0 < runs[6]
    assert (row["planned_on"], row["status"]) == ("6 scenarios", "optimal")
    assert row["expected_cost_eur"] == row["objective_eur"] > row["recourse_eur"] > 0


def test_a_look_ahead_starts_what_tomorrow_morning_needs(tmp_path: Path):
    # The second morning is the first one again: without look-ahead the store is emptied by midnight.
    stored = {}
    demand = [5.5] * 8 + [2.0] * 16
    for hours in (0, 8):
        workspace = town(tmp_path / str(hours), [BASE, PEAK, BATTERY], f"look_ahead_hours: {hours}")
        issue(workspace, day(10), north=demand, south=[1.0] * 24)
        assert make_plans(workspace, day(10), day(10)).breaches == []
        stored[hours] = read(workspace, "storage", "interval_start")[-1]["state_of_charge_mwh"]
        assert len(read(workspace, "storage", "interval_start")) == 24, "the look-ahead is not in the tables"
    (row,) = read(workspace, "summary", "date")
    assert stored[0] < 1e-6 < 2.0 < stored[8]
    assert row["look_ahead_hours"] == 8
    assert row["cost_eur"] < row["objective_eur"]


# -- bad input


def test_a_missing_forecast_is_named_with_series_and_interval(tmp_path: Path):
    workspace = town(tmp_path, [BASE, SUN])
    issue(workspace, day(10), north=FLAT, south=FLAT, sun=[0.0] * 20)
    with pytest.raises(DispatchError, match=r"Unit park: no forecast of solar 'sun' for 2026-03-11 19:00 UTC.*4 of 24"):
        make_plans(workspace, day(10), day(10))
    issue(workspace, day(10), north=FLAT, south=FLAT[:23], sun=[0.0] * 24)
    with pytest.raises(DispatchError, match=r"The demand: no forecast of demand 'south' for 2026-03-11 22:00 UTC"):
        make_plans(workspace, day(10), day(10))


def test_a_river_without_its_forecast_is_named(tmp_path: Path):
    workspace = town(tmp_path, [BASE, {"unit_id": "river", "kind": "hydro", "series_id": "level"}])
    issue(workspace, day(10), north=FLAT, south=FLAT)
    with pytest.raises(DispatchError, match=r"Unit river: no forecast of 'level' .* in cleaned/external_forecasts"):
        make_plans(workspace, day(10), day(10))


def test_a_store_that_can_not_return_and_a_demand_beyond_all_capacity_come_with_their_violations(tmp_path: Path):
    empty = BATTERY | {"initial_mwh": 0.0, "final_mwh": 3.0, "charge_mw": 0.1}
    workspace = town(tmp_path, [BASE, empty])
    issue(workspace, day(10), north=[6.0] * 20 + [12.0] + [6.0] * 3, south=[0.0] * 24)
    planned = make_plans(workspace, day(10), day(10))
    assert planned.breaches == []
    kinds = {r["kind"]: r for r in read(workspace, "violations", "kind")}
    assert kinds["unserved energy"]["where"] == "system"
    assert kinds["state of charge"]["where"] == "battery"
    assert kinds["state of charge"]["explanation"]


def test_no_time_at_all_gives_the_merit_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from lakehouse.dispatch import solver

    found = solver.race

    def nothing(task, deadline, two_cores):
        raced = found(task, deadline, two_cores=two_cores)
        raced.solution, raced.bound = None, float("-inf")
        return raced

    monkeypatch.setattr(solver, "race", nothing)
    workspace = town(tmp_path, [BASE, PEAK])
    issue(workspace, day(10), north=HIGH, south=[1.0] * 24)
    planned = make_plans(workspace, day(10), day(10))
    assert planned.breaches == []
    assert planned.summaries[0]["status"] == "merit_order"
    assert planned.unserved_mwh == 0.0


# -- the day itself


def test_planning_again_keeps_the_morning_and_follows_the_told_state(tmp_path: Path):
    workspace = town(tmp_path, [BASE, PEAK, BATTERY])
    issue(workspace, day(10), north=HIGH, south=[1.0] * 24)
    make_plans(workspace, day(10), day(10))
    morning = [r for r in read(workspace, "plan", "interval_start, unit_id") if r["interval_start"] < NOON]
    trip = {"base": {"out_until": (NOON + timedelta(hours=3)).isoformat()}, "battery": {"energy_mwh": 0.5}}
    again = replan(workspace, NOON - timedelta(minutes=20), state=trip)
    assert again.breaches == []
    plan = read(workspace, "plan", "interval_start, unit_id")
    assert [r for r in plan if r["interval_start"] < NOON] == morning
    base = {r["interval_start"]: r for r in plan if r["unit_id"] == "base"}
    assert len(base) == 24
    assert (base[NOON]["committed"], base[NOON]["stopped"]) == (False, True)
    assert not base[NOON + timedelta(hours=5)]["committed"], "minimum down time of 6 h"
    first, second = read(workspace, "summary", "planned_from")
    assert (second["planned_from"], second["issued_at"]) == (NOON, first["issued_at"])
    assert json.loads((workspace.site.home / "setpoints.json").read_text())["setpoints"]
    assert explain_unit(workspace, "base", NOON)[0] == "base is off in 2026-03-11 12:00 local time (period 13)."
    page = write_plan_report(workspace, out=tmp_path / "plan.html").read_text()
    assert "planned again from" in page and "What it costs from 12:00 on" in page


@pytest.mark.parametrize(
    ("moment", "state", "says"),
    [
        (NOON - timedelta(days=3), {}, "There is no plan for"),
        (midnight(day(11)), {}, "Nothing of the plan"),
        (midnight(day(12)) - timedelta(minutes=30), {}, "No interval begins after"),
        (NOON, {"coal": {"on": True}}, "names 'coal', which is no thermal unit"),
        (NOON, {"base": {"energy_mwh": 1}}, "The state of 'base' says energy_mwh"),
        (NOON, {"battery": 7}, "The state of 'battery' says 7"),
        (NOON, {"battery": {"energy_mwh": 99}}, "outside its limits"),
        (NOON, {"battery": {"energy_mwh": "half"}}, "The state of 'battery' can't be used"),
        (NOON, {"base": {"out_until": "tonight"}}, "The state of 'base' can't be used: Invalid isoformat"),
        (NOON, {"base": {"on": True, "power_mw": 60}}, "outside its limits"),
    ],
)
def test_planning_again_from_nowhere_is_refused(planned: Workspace, moment: datetime, state: dict, says: str):
    with pytest.raises(DispatchError, match=says):
        replan(planned, moment, state=state)


def test_regret_is_what_the_plan_cost_beyond_the_best_one(tmp_path: Path):
    workspace = town(tmp_path, [BASE, PEAK])
    issue(workspace, day(10), north=FLAT, south=[1.0] * 24)
    make_plans(workspace, day(10), day(10))
    assert regret_is_due(workspace) == [], "nothing came yet"
    came(workspace, day(11), north=FLAT, south=[1.0] * 24, sun=[0.0] * 24, spot=[0.0] * 24)
    assert regret_is_due(workspace) == [day(10)]
    tell_regret(workspace, day(10), day(10))
    (row,) = read(workspace, "regret", "date")
    assert (row["regret_eur"], row["demand_error_mwh"], row["missing"]) == (pytest.approx(0.0, abs=1e-6), 0.0, None)
    assert row["settled_cost_eur"] == pytest.approx(row["planned_cost_eur"])
    assert regret_is_due(workspace) == []


def test_an_unforeseen_peak_is_regretted_and_a_later_actual_asks_again(tmp_path: Path):
    workspace = town(tmp_path, [BASE, PEAK | {"minimum_up_hours": 3}])
    issue(workspace, day(10), north=FLAT, south=[1.0] * 24)
    make_plans(workspace, day(10), day(10))
    came(workspace, day(11), north=[3.0] * 20 + [8.0] + [3.0] * 3, south=[1.0] * 24, sun=[0.0] * 24, spot=[0.0] * 24)
    tell_regret(workspace, day(10), day(10))
    (row,) = read(workspace, "regret", "date")
    # 9 MW came in one hour and base gives 6: 3 MWh are lost at 10,000 EUR, which the peaking unit would have served for 360 EUR.
    assert row["settled_unserved_mwh"] == pytest.approx(3.0)
    assert row["regret_eur"] == pytest.approx(3 * 10_000 - 3 * 120 - 2 * 60 + 2 * 0.5 * 30, abs=1.0)
    assert row["demand_error_mwh"] == pytest.approx(5.0)
    came(workspace, day(11), north=FLAT, south=[1.0] * 24, sun=[0.0] * 24, spot=[0.0] * 24)
    assert regret_is_due(workspace) == [day(10)]


def test_a_day_without_all_actuals_says_what_is_missing(tmp_path: Path):
    workspace = town(tmp_path, [BASE, PEAK])
    issue(workspace, day(10), north=FLAT, south=[1.0] * 24)
    make_plans(workspace, day(10), day(10))
    came(workspace, day(11), north=FLAT, south=[1.0] * 20, sun=[0.0] * 24, spot=[0.0] * 24)
    tell_regret(workspace, day(10), day(10))
    (row,) = read(workspace, "regret", "date")
    assert (row["settled_cost_eur"], row["missing"]) == (None, "demand 'south': 4 of 24 intervals")
    assert regret_is_due(workspace) == [], "only new actuals ask again"


def test_plans_come_before_regret_and_both_come_to_an_end(tmp_path: Path):
    workspace = town(tmp_path, [BASE, PEAK])
    issue(workspace, day(10), north=FLAT, south=[1.0] * 24)
    came(workspace, day(11), north=FLAT, south=[1.0] * 24, sun=[0.0] * 24, spot=[0.0] * 24)
    assert [s.tables[0] for s in due(workspace)] == ["dispatch/plan"]
    make_plans(workspace, day(10), day(10))
    assert [s.tables for s in due(workspace)] == [("dispatch/regret",)]
    tell_regret(workspace, day(10), day(10))
    assert due(workspace) == []


def test_old_days_are_planned_where_they_are_asked_for(tmp_path: Path):
    workspace = town(tmp_path, [PEAK])
    for number in range(5, 15):
        issue(workspace, day(number), north=FLAT, south=[0.0] * 24)
    assert [s.days for s in due(workspace)] == [(day(8), day(14))], "the last seven issues"
    assert [s.days for s in due(workspace, (day(5), day(7)))] == [(day(5), day(7))]


@pytest.mark.parametrize(("of", "hours"), [(28, 23), (29, 24)])
def test_a_local_day_is_as_long_as_its_clock_makes_it(tmp_path: Path, of: int, hours: int):
    from lakehouse.flow.outlook import horizon_of

    workspace = town(tmp_path, [PEAK], "look_ahead_hours: 6")
    horizon = horizon_of(workspace, day(of))  # the clocks change on 29 March 2026
    assert (horizon.day, len(horizon.starts)) == (hours, hours + 6)
    assert horizon.end_of_day.astimezone(workspace.site.zone).hour == 0
