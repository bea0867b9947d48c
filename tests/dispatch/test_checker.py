"""The checker refuses plans broken on purpose, one for each rule, and names the rule, the place and the interval."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from functools import cache

import pandas as pd
import pytest

from lakehouse.dispatch import (
    DispatchProblem,
    EnergyContract,
    InterruptibleLoad,
    Line,
    Market,
    Renewable,
    ShiftableLoad,
    check_plan,
    check_solution,
    hydro_reservoir,
    solve,
    utc_intervals,
)
from lakehouse.errors import DispatchError
from tests.dispatch.builders import MIDNIGHT, base_unit, battery, peaker, problem, random_problem


def day() -> DispatchProblem:
    """Six hours in two zones with one of everything."""
    at = lambda hour: MIDNIGHT + timedelta(hours=hour)  # noqa: E731
    steam = base_unit(
        unit_id="steam",
        zone="a",
        initially_on=True,
        initial_power_mw=50,
        initial_hours_in_state=1,
        minimum_up_hours=2,
        minimum_down_hours=2,
        ramp_up_mw_per_hour=30,
        ramp_down_mw_per_hour=30,
        startup_limit_mw=55,
        shutdown_limit_mw=55,
    )
    return DispatchProblem(
        interval_start=utc_intervals(MIDNIGHT, 6, 1.0),
        interval_hours=1.0,
        demand_mw={"a": [60.0, 70, 80, 80, 70, 60], "b": [30.0, 35, 40, 40, 35, 30]},
        reserve_mw=12.0,
        reserve_down_mw=4.0,
        thermal=[
            steam,
            base_unit(
                unit_id="must",
                zone="b",
                must_run=True,
                initially_on=True,
                initial_power_mw=45,
                minimum_mw=20,
                cost_curve=((20, 500), (100, 2500)),
            ),
            peaker(unit_id="spare", zone="a", outages=((at(3), at(5)),), maximum_reserve_mw=6.0),
        ],
        renewables=[Renewable("wind", [10.0] * 6, minimum_mw=2.0, zone="a")],
        storages=[
            battery(initial_mwh=20, final_mwh=20, zone="a", wear_eur_per_mwh=1.0),
            hydro_reservoir(
                "lake",
                turbine_mw=10,
                energy_mwh=60,
                inflow_mw=4,
                initial_mwh=30,
                water_value_eur_per_mwh=15,
                minimum_release_mw=1,
                zone="b",
            ),
        ],
        shiftable=[ShiftableLoad("heat", 12, 6, (at(1), at(5)), zone="b")],
        interruptible=[InterruptibleLoad("smelter", 8, 150, maximum_energy_mwh=10, zone="a")],
        contracts=[EnergyContract("supply", 10, 30, 15, zone="a")],
        market=Market([25.0, 30, 60, 60, 30, 25], [20.0, 25, 50, 50, 25, 20], 15, 10, zone="a"),
        lines=[Line("west", "a", "b", 40, 30, reactance_pu=0.1), Line("east", "a", "b", 40, 30, reactance_pu=0.2)],
    )


@cache
def sound():
    a_day = day()
    solution = solve(a_day, gap=1e-6, time_limit_seconds=30, threads=1)
    assert check_solution(a_day, solution).ok, check_solution(a_day, solution).lines()
    return a_day, solution


def tables():
    _, solution = sound()
    return {name: getattr(solution, name).copy() for name in ("plan", "storage", "exchange", "flows", "violations")}


def cell(table, key, name, period, column, change):
    """Changes one cell of a table: to a value, or by a function of it."""

    def apply(broken):
        frame = broken[table]
        if column in ("power_mw", "reserve_mw", "committed"):
            frame[column] = frame[column].astype(float)
        at = (frame[key] == name) & (frame["period"] == period)
        if key == "source_id" and name == "market":
            at &= frame["source_kind"] == ("import" if change != "sell" else "export")
        assert at.sum() == 1
        old = frame.loc[at, column].iloc[0]
        frame.loc[at, column] = -99.0 if change == "sell" else change(old) if callable(change) else change

    return apply


def unit(name, period, column, change):
    return cell("plan", "unit_id", name, period, column, change)


def store(name, period, column, change):
    return cell("storage", "storage_id", name, period, column, change)


def traded(name, period, column, change):
    return cell("exchange", "source_id", name, period, column, change)


def run_pattern(name, pattern, power):
    """Writes a whole commitment pattern with matching flags, so that only the run lengths are wrong."""

    def apply(broken):
        frame = broken["plan"]
        rows = frame.index[frame["unit_id"] == name]
        before = next(u for u in sound()[0].thermal if u.unit_id == name).initially_on
        for i, on, mw in zip(rows, pattern, power if isinstance(power, list) else [power] * 6, strict=True):
            frame.loc[i, ["committed", "started", "stopped"]] = [on, int(on and not before), int(before and not on)]
            frame.loc[i, ["power_mw", "reserve_mw", "reserve_down_mw"]] = [mw * on, 0.0, 0.0]
            before = bool(on)

    return apply


BROKEN = {
    "balance": unit("must", 3, "power_mw", lambda mw: mw + 1),
    "minimum output": unit("steam", 2, "power_mw", 20),
    "maximum output": unit("must", 2, "power_mw", 130),
    "maximum output with reserve": unit("must", 2, "reserve_mw", 99),
    "reserve not negative": unit("must", 1, "reserve_mw", -5),
    "downward reserve not negative": unit("must", 1, "reserve_down_mw", -5),
    "maximum reserve": unit("spare", 1, "reserve_mw", 20),
    "no output while off": unit("spare", 4, "power_mw", 7),
    "no reserve while off": unit("spare", 4, "reserve_mw", 5),
    "no downward reserve while off": unit("spare", 4, "reserve_down_mw", 5),
    "commitment is 0 or 1": unit("must", 4, "committed", 0.4),
    "start flag": unit("must", 4, "started", 1),
    "stop flag": unit("must", 4, "stopped", 1),
    "planned outage": unit("spare", 4, "committed", 1),
    "must run": unit("must", 4, "committed", 0),
    "minimum up time": run_pattern("steam", [0, 0, 0, 0, 0, 0], 0),
    "minimum down time": run_pattern("steam", [1, 1, 0, 1, 1, 1], 45),
    "start-up limit": run_pattern("steam", [1, 0, 0, 1, 1, 1], 90),
    "shut-down limit": run_pattern("steam", [1, 1, 0, 0, 0, 0], 80),
    "ramp up": run_pattern("steam", [1] * 6, [50, 90, 90, 90, 90, 90]),
    "ramp down": run_pattern("steam", [1] * 6, [80, 80, 45, 45, 45, 45]),
    "renewable minimum": unit("wind", 2, "power_mw", 1),
    "renewable maximum": unit("wind", 2, "power_mw", 11),
    "charging limit": store("battery", 1, "charge_mw", 25),
    "discharging limit": store("battery", 1, "discharge_mw", 25),
    "charging not negative": store("battery", 1, "charge_mw", -1),
    "state of charge": store("battery", 2, "state_of_charge_mwh", lambda mwh: mwh + 1),
    "maximum state of charge": store("battery", 2, "state_of_charge_mwh", 41),
    "minimum state of charge": store("battery", 2, "state_of_charge_mwh", -1),
    "final state of charge": store("battery", 6, "state_of_charge_mwh", 10),
    "minimum release": store("lake", 2, "discharge_mw", 0),
    "spill": store("battery", 2, "spill_mw", 1),
    "storage reserve power": store("battery", 3, "reserve_mw", 60),
    "storage reserve energy": store("lake", 3, "reserve_mw", 90),
    "storage downward reserve power": store("battery", 3, "reserve_down_mw", 60),
    "storage downward reserve room": store("battery", 3, "reserve_down_mw", 90),
    "shiftable load window": traded("heat", 1, "power_mw", -3),
    "shiftable load power": traded("heat", 3, "power_mw", -9),
    "shiftable load energy": traded("heat", 3, "power_mw", lambda mw: mw / 2 - 0.5),
    "shiftable load reserve": traded("heat", 1, "reserve_mw", 2),
    "interruption limit": traded("smelter", 2, "power_mw", 9),
    "interruption energy": lambda broken: broken["exchange"].__setitem__(
        "power_mw", broken["exchange"]["power_mw"].where(broken["exchange"]["source_id"] != "smelter", 5.0)
    ),
    "interruptible reserve": traded("smelter", 2, "reserve_mw", 9),
    "contract power": traded("supply", 2, "power_mw", 12),
    "import limit": traded("market", 2, "power_mw", 16),
    "export limit": traded("market", 2, "power_mw", "sell"),
    "line limit": cell("flows", "line_id", "west", 2, "flow_mw", 41),
    "DC power flow": cell("flows", "line_id", "west", 2, "flow_mw", lambda mw: mw + 3),
    "reserve": lambda broken: [frame.__setitem__("reserve_mw", 0.0) for frame in (broken["plan"], broken["storage"], broken["exchange"])],
    "downward reserve": lambda broken: [frame.__setitem__("reserve_down_mw", 0.0) for frame in (broken["plan"], broken["storage"])],
    "missing interval": lambda broken: broken.__setitem__("plan", broken["plan"].drop(index=3)),
    "missing name": lambda broken: broken.__setitem__("plan", broken["plan"].query("unit_id != 'wind'")),
    "unknown name": lambda broken: broken["plan"].__setitem__("unit_id", broken["plan"]["unit_id"].replace("wind", "wnd")),
    "missing value": unit("wind", 2, "power_mw", float("nan")),
}


def test_the_sound_plan_is_accepted_and_its_cost_recomputed():
    a_day, solution = sound()
    report = check_solution(a_day, solution)
    assert report.ok
    assert report.objective_eur == pytest.approx(solution.summary["objective_eur"], abs=0.01)
    assert report.lines()[0] == "The plan keeps every rule."


@pytest.mark.parametrize("rule", BROKEN)
def test_a_plan_broken_on_purpose_is_refused(rule):
    a_day, _ = sound()
    broken = tables()
    BROKEN[rule](broken)
    report = check_plan(a_day, **broken)
    assert rule in {breach.rule for breach in report.breaches}, report.lines()
    named = next(breach for breach in report.breaches if breach.rule == rule)
    assert named.where in named.text or named.where == "system"
    assert named.amount != 0


def test_a_wrong_claim_of_cost_is_refused():
    a_day, solution = sound()
    report = check_plan(a_day, **tables(), claimed_objective_eur=solution.summary["objective_eur"] * 0.99)
    assert [breach.rule for breach in report.breaches] == ["claimed cost"]


def test_shortfalls_must_be_admitted_to_be_priced():
    a_day = problem([120.0], thermal=[base_unit()])
    solution = solve(a_day, threads=1)
    assert check_solution(a_day, solution).unserved_mwh == pytest.approx(20)
    silent = replace(solution, violations=solution.violations.iloc[:0])
    assert "balance" in {breach.rule for breach in check_plan(a_day, silent.plan).breaches}


def test_the_start_up_cost_follows_the_true_time_off():
    unit_twice = base_unit(initially_on=True, initial_power_mw=40, startup_costs=((1, 100), (3, 900)))
    a_day = problem([40.0, 0, 40, 0, 0, 0, 40], thermal=[unit_twice])
    on = [1, 0, 1, 0, 0, 0, 1]
    plan = pd.DataFrame({"unit_id": "base", "period": range(1, 8), "committed": on, "power_mw": [40.0 * x for x in on], "reserve_mw": 0.0})
    plan["started"], plan["stopped"] = [0, 0, 1, 0, 0, 0, 1], [0, 1, 0, 1, 0, 0, 0]
    report = check_plan(a_day, plan)
    assert report.ok
    assert report.cost_eur["start-up"] == 100 + 900


def test_a_table_without_its_columns_is_named():
    a_day, _ = sound()
    with pytest.raises(DispatchError, match="period"):
        check_plan(a_day, pd.DataFrame({"unit_id": ["steam"]}))


@pytest.mark.parametrize("seed", range(20, 26))
def test_small_random_changes_of_power_are_noticed(seed):
    a_day = random_problem(seed)
    solution = solve(a_day, gap=1e-3, threads=1, time_limit_seconds=20)
    assert check_solution(a_day, solution).ok
    plan = solution.plan.copy()
    plan.loc[seed % len(plan), "power_mw"] += 0.5
    assert not check_plan(a_day, plan, solution.storage, solution.exchange, solution.flows, solution.violations).ok
