"""Plans follow the issued forecasts, one day begins where the one before ended, and what is missing is said in words."""

from __future__ import annotations

import itertools
import json
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest

from lakehouse.errors import DispatchError
from lakehouse.flow.plan import issue_instant, make_plans
from lakehouse.flow.problem import fleet_units
from lakehouse.flow.workspace import Workspace
from tests.flow.builders import SITE, TODAY, clean_up_to_date, day, land_text

BASE = {
    "unit_id": "base", "kind": "thermal", "minimum_mw": 2.0, "maximum_mw": 6.0, "cost_curve": [[2, 60], [6, 180]],
    "startup_costs": [[0, 10], [20, 50], [60, 400]], "minimum_up_hours": 6, "minimum_down_hours": 6, "ramp_up_mw_per_hour": 2.0,
    "ramp_down_mw_per_hour": 2.0, "initially_on": True, "initial_power_mw": 4.0, "initial_hours_in_state": 24.0,
}  # fmt: skip
PEAK = {
    "unit_id": "peak", "kind": "thermal", "minimum_mw": 0.5, "maximum_mw": 4.0, "cost_curve": [[0.5, 60], [4.0, 480]],
    "startup_costs": [[0, 5], [30, 300]], "initial_hours_in_state": 10.0,
}  # fmt: skip
BATTERY = {
    "unit_id": "battery", "kind": "storage", "charge_mw": 1.0, "discharge_mw": 1.0, "energy_mwh": 3.0, "initial_mwh": 1.5,
    "charge_efficiency": 0.9, "discharge_efficiency": 0.9, "wear_eur_per_mwh": 1.0,
}  # fmt: skip


def town(home: Path, units: list[dict]) -> Workspace:
    """A site with a fleet, a load to forecast, and no forecast yet."""
    home.mkdir(parents=True, exist_ok=True)
    text = SITE.replace("feeds:\n", "feeds:\n  fleet: {format: fleet_json}\n") + "fleet:\n  reserve_share_of_demand: 0.0\n  gap: 0.0\n"
    (home / "gridlake.yaml").write_text(text, encoding="utf-8")
    workspace = Workspace.open(home)
    land_text(workspace, "fleet", day(1), "fleet.json", json.dumps({"units": units}))
    clean_up_to_date(workspace)
    return workspace


def forecast_demand(workspace: Workspace, issue: date, megawatts: list[float], *, is_fallback: bool = False) -> None:
    """An issue of the demand forecast for the next local day (24 hours; Madrid is an hour ahead of UTC)."""
    contract = workspace.contract("forecasts/demand")
    start = datetime(issue.year, issue.month, issue.day, 23, tzinfo=UTC)
    rows = [
        {c: value for c in contract.columns if c.startswith("p")}
        | {
            "series_id": "village", "issued_at": issue_instant(workspace.site, issue), "valid_at": start + timedelta(hours=h),
            "model": "made", "model_version": "made-1", "is_fallback": is_fallback, "is_hindcast": True, "date": issue,
        }
        for h, value in enumerate(megawatts)
    ]  # fmt: skip
    table = pa.Table.from_pylist(rows, schema=pa.schema([f.with_nullable(True) for f in contract.arrow_schema()]))
    workspace.replace("forecasts/demand", table, where={"date": issue})


def rows(workspace: Workspace, table: str, order: tuple[str, ...]) -> list[dict]:
    found = workspace.table(table).read().sort_by([(c, "ascending") for c in order]).to_pylist()
    return [{k: round(v, 4) if isinstance(v, float) else v for k, v in r.items() if not k.endswith("_seconds")} for r in found]


@pytest.fixture(scope="module")
def plain_town(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    workspace = town(tmp_path_factory.mktemp("town") / "site", [BASE])
    forecast_demand(workspace, day(10), HEAVY)
    return workspace


LIGHT, HEAVY = [1.0] * 24, [3.0] * 8 + [8.0] * 8 + [5.0] * 8


def test_a_plan_serves_the_forecast_of_the_next_local_day(tmp_path: Path):
    workspace = town(tmp_path, [BASE, PEAK, BATTERY])
    forecast_demand(workspace, day(10), HEAVY, is_fallback=True)
    planned = make_plans(workspace, day(10), day(10))
    assert (planned.days, planned.breaches, planned.unserved_mwh) == ([day(10)], [], 0.0)
    assert planned.picture.startswith(b"\x89PNG")
    plan = workspace.table("dispatch/plan").read().to_pylist()
    assert {r["unit_id"] for r in plan} == {"base", "peak", "battery"}
    starts = sorted({r["interval_start"] for r in plan})
    assert (starts[0], len(starts)) == (datetime(2026, 3, 10, 23, tzinfo=UTC), 24)
    for hour, start in enumerate(starts):
        assert sum(r["power_mw"] for r in plan if r["interval_start"] == start) == pytest.approx(HEAVY[hour], abs=1e-4)
    (summary,) = workspace.table("dispatch/summary").read().to_pylist()
    assert summary["demand_mwh"] == sum(HEAVY)
    assert summary["is_verified"] and summary["bound_eur"] <= summary["objective_eur"] + 1e-6
    assert summary["demand_forecast"] == "made-1 (fallback)"


@pytest.mark.slow
@pytest.mark.parametrize("days", [[HEAVY, LIGHT, HEAVY], [LIGHT, LIGHT, HEAVY]])
def test_days_planned_one_by_one_equal_days_planned_together(tmp_path: Path, days: list[list[float]]):
    together, apart = town(tmp_path / "together", [BASE, PEAK, BATTERY]), town(tmp_path / "apart", [BASE, PEAK, BATTERY])
    for workspace in (together, apart):
        for n, demand in enumerate(days):
            forecast_demand(workspace, day(10 + n), demand)
    make_plans(together, day(10), day(12))
    for n in range(3):
        make_plans(apart, day(10 + n), day(10 + n))
    costs = [[r["objective_eur"] for r in rows(w, "dispatch/summary", ("date",))] for w in (together, apart)]
    assert costs[0] == pytest.approx(costs[1], rel=1e-6)


def test_a_day_begins_where_the_one_before_ended(tmp_path: Path):
    workspace = town(tmp_path, [BASE, PEAK, BATTERY])
    forecast_demand(workspace, day(10), HEAVY)
    forecast_demand(workspace, day(11), HEAVY)
    make_plans(workspace, day(10), day(10))
    make_plans(workspace, day(11), day(11))
    base = [r for r in rows(workspace, "dispatch/plan", ("interval_start",)) if r["unit_id"] == "base"]
    powers = [r["power_mw"] for r in base]
    assert len(powers) == 48
    assert all(abs(after - before) <= 2.0 + 1e-6 for before, after in itertools.pairwise(powers)), "ramps hold over midnight"
    stored = rows(workspace, "dispatch/storage", ("interval_start",))
    before, after = stored[23], stored[24]
    flow = 0.9 * after["charge_mw"] - after["discharge_mw"] / 0.9
    assert after["state_of_charge_mwh"] == pytest.approx(before["state_of_charge_mwh"] + flow, abs=1e-3)


def test_planning_again_gives_the_same_plan_and_leaves_the_other_days(tmp_path: Path):
    workspace = town(tmp_path, [BASE, PEAK, BATTERY])
    for n in (10, 11):
        forecast_demand(workspace, day(n), HEAVY)
    make_plans(workspace, day(10), day(11))
    once = rows(workspace, "dispatch/summary", ("date",))
    make_plans(workspace, day(11), day(11))
    assert [r["objective_eur"] for r in rows(workspace, "dispatch/summary", ("date",))] == [r["objective_eur"] for r in once]


def test_more_demand_than_the_fleet_can_serve_is_named_and_priced_not_an_exception(tmp_path: Path):
    workspace = town(tmp_path, [BASE, PEAK])
    forecast_demand(workspace, day(10), [3.0] * 12 + [30.0] + [3.0] * 11)
    planned = make_plans(workspace, day(10), day(10))
    assert planned.breaches == []
    assert planned.unserved_mwh >= 20.0
    violations = workspace.table("dispatch/violations").read().to_pylist()
    assert any(v["kind"] == "unserved energy" and v["explanation"] for v in violations)


def test_a_day_without_a_forecast_has_no_plan(tmp_path: Path):
    workspace = town(tmp_path, [BASE])
    planned = make_plans(workspace, day(10), day(12))
    assert (planned.days, planned.summaries, planned.picture) == ([], [], b"")
    assert workspace.table("dispatch/plan").read().num_rows == 0


def test_negative_demand_is_planned_as_none(tmp_path: Path):
    workspace = town(tmp_path, [PEAK])
    forecast_demand(workspace, day(10), [-2.0] * 24)
    assert make_plans(workspace, day(10), day(10)).breaches == []
    assert workspace.table("dispatch/summary").read()["demand_mwh"].to_pylist() == [0.0]


def test_an_empty_fleet_is_told(tmp_path: Path):
    workspace = town(tmp_path, [{"unit_id": "kite", "kind": "kite"}])
    forecast_demand(workspace, day(10), HEAVY)
    with pytest.raises(DispatchError, match="The fleet is empty"):
        make_plans(workspace, day(10), day(10))


@pytest.mark.parametrize(
    ("unit", "says"),
    [
        (BASE | {"colour": "red"}, "Unit base: .*'colour'"),
        ({k: v for k, v in BASE.items() if k != "cost_curve"}, "Unit base: .*'cost_curve'"),
        (BASE | {"minimum_mw": 9.0}, "base.*minimum output 9 MW lies above"),
        (BASE | {"minimum_mw": "two"}, "base"),
        (BASE | {"minimum_mw": 10**400}, "base"),
        (BASE | {"cost_curve": 7}, "base"),
        (BASE | {"cost_curve": [["a", "b"], [1, 2]]}, "base"),
        (BASE | {"outages": [["2026-03-10", "2026-03-11"]]}, "base.*outage"),
        (BASE | {"outages": ["soon"]}, "Unit base"),
        (BATTERY | {"energy_mwh": -1}, "battery"),
        (BATTERY | {"initial_mwh": "half"}, "battery"),
        ({"unit_id": "farm", "kind": "wind"}, "Unit farm needs a forecast of wind, which the site does not make"),
        ({"unit_id": "link", "kind": "grid", "import_limit_mw": 1.0}, "Grid connection link: no price"),
        ({"unit_id": "link", "kind": "grid", "price_eur_per_mwh": "cheap"}, "link"),
    ],
)
def test_a_unit_that_contradicts_itself_is_named(plain_town: Workspace, monkeypatch: pytest.MonkeyPatch, unit: dict, says: str):
    monkeypatch.setattr("lakehouse.flow.plan.fleet_units", lambda workspace: [json.loads(json.dumps(unit))])
    with pytest.raises(DispatchError, match=says):
        make_plans(plain_town, day(10), day(10))


def test_a_planned_outage_in_the_fleet_file_keeps_the_unit_off(plain_town: Workspace, monkeypatch: pytest.MonkeyPatch):
    outage = [["2026-03-11T08:00:00+01:00", "2026-03-11T12:00:00+01:00"]]
    units = [
        BASE | {"outages": outage, "minimum_up_hours": 0, "minimum_down_hours": 0},
        PEAK | {"maximum_mw": 8, "cost_curve": [[0.5, 60], [8, 960]]},
    ]
    monkeypatch.setattr("lakehouse.flow.plan.fleet_units", lambda workspace: json.loads(json.dumps(units)))
    assert make_plans(plain_town, day(10), day(10)).breaches == []
    base = [r for r in rows(plain_town, "dispatch/plan", ("interval_start",)) if r["unit_id"] == "base"]
    assert {r["interval_start"].hour for r in base if not r["committed"]} >= {7, 8, 9, 10}  # UTC


def test_the_newest_fleet_counts_and_each_unit_once(tmp_path: Path):
    workspace = town(tmp_path, [BASE, PEAK])
    land_text(workspace, "fleet", TODAY, "fleet.json", json.dumps({"units": [BASE | {"maximum_mw": 7.0}, BASE, BATTERY]}))
    clean_up_to_date(workspace)
    units = fleet_units(workspace)
    assert sorted(u["unit_id"] for u in units) == ["base", "battery"]
    assert next(u for u in units if u["unit_id"] == "base")["maximum_mw"] == 6.0  # the later line of the file


def test_a_broken_fleet_file_leaves_the_fleet_that_was_there(tmp_path: Path):
    workspace = town(tmp_path, [BASE])
    land_text(workspace, "fleet", TODAY, "fleet.json", "{units: oops")
    clean_up_to_date(workspace)
    assert [u["unit_id"] for u in fleet_units(workspace)] == ["base"]
