"""What the optimiser decides, on days small enough to check by hand, and against the oracle on random ones."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import numpy as np
import pytest

from lakehouse.dispatch import (
    EnergyContract,
    InterruptibleLoad,
    Line,
    Market,
    Penalties,
    Renewable,
    ShiftableLoad,
    check_solution,
    formulation,
    hydro_reservoir,
    solve,
    solver,
)
from lakehouse.dispatch.pglib import problem_from
from tests.dispatch.builders import MIDNIGHT, PGLIB_UNIT, base_unit, battery, peaker, problem, random_problem
from tests.dispatch.obvious_model import optimum_eur


def planned(a_problem, **options):
    """Solves exactly, and lets the checker confirm it."""
    solution = solve(a_problem, **{"gap": 1e-6, "time_limit_seconds": 30, "threads": 1, **options})
    report = check_solution(a_problem, solution)
    assert report.ok, report.lines()
    return solution


def of(solution, unit_id, column="power_mw"):
    return solution.plan.loc[solution.plan["unit_id"] == unit_id, column].round(6).tolist()


def test_the_cheap_unit_runs_and_the_dear_one_fills_up():
    plan = planned(problem([60, 110, 60], thermal=[base_unit(), peaker()]))
    assert of(plan, "base") == [60, 100, 60]
    assert of(plan, "peaker") == [0, 10, 0]
    # 220 MWh at 20, 10 MWh at 80, one start
    assert plan.summary["objective_eur"] == pytest.approx(220 * 20 + 10 * 80 + 1000)
    assert plan.prices["energy_eur_per_mwh"].round(6).tolist() == [20, 80, 20]


def test_a_quarter_hour_costs_a_quarter_of_an_hour():
    hourly = planned(problem([60] * 2, thermal=[base_unit(startup_costs=())]))
    quarterly = planned(problem([60] * 8, hours=0.25, thermal=[base_unit(startup_costs=())]))
    assert quarterly.summary["objective_eur"] == pytest.approx(hourly.summary["objective_eur"])
    assert quarterly.prices["energy_eur_per_mwh"].round(6).unique().tolist() == [20]


def test_a_started_unit_stays_for_its_minimum_up_time():
    plan = planned(problem([0, 90, 0, 0, 0], thermal=[base_unit(minimum_up_hours=3)], penalties=Penalties(surplus_eur_per_mwh=1)))
    assert sum(of(plan, "base", "committed")) == 3
    assert plan.violations["kind"].unique().tolist() == ["surplus energy"]


def test_a_minimum_up_time_longer_than_the_horizon_is_kept_to_its_end():
    plan = planned(problem([90, 0, 0], thermal=[base_unit(minimum_up_hours=100)], penalties=Penalties(surplus_eur_per_mwh=1)))
    assert of(plan, "base", "committed") == [1, 1, 1]


def test_a_second_start_pays_for_its_own_time_off():
    # one hour off is hot (100 EUR), five hours cold (900 EUR): 100 for the second start, none for the first run
    unit = base_unit(initially_on=True, initial_power_mw=40, startup_costs=((1, 100), (5, 900)), minimum_up_hours=1, minimum_down_hours=1)
    plan = planned(problem([40, 0, 40, 0, 40], thermal=[unit]))
    assert of(plan, "base", "started") == [0, 0, 1, 0, 1]
    assert plan.summary["start_up_eur"] == pytest.approx(200)


def test_time_off_before_the_horizon_makes_a_start_cold():
    unit = base_unit(startup_costs=((1, 100), (5, 900)), initial_hours_in_state=4)
    assert planned(problem([40], thermal=[unit])).summary["start_up_eur"] == pytest.approx(100)
    assert planned(problem([0, 40], thermal=[unit])).summary["start_up_eur"] == pytest.approx(900)


def test_reserve_is_held_by_a_running_unit_and_priced_by_what_it_displaces():
    plan = planned(problem([95], reserve_mw=20, thermal=[base_unit(), peaker(startup_costs=())]))
    # the peaker could hold it all while idling at 0 MW: nothing is displaced
    assert plan.plan["reserve_mw"].sum() == pytest.approx(20)
    tight = planned(problem([95], reserve_mw=20, thermal=[base_unit(), peaker(maximum_reserve_mw=5)]))
    assert of(tight, "base") == [85]
    assert tight.prices["reserve_eur_per_mw_h"].tolist() == pytest.approx([60])


def test_demand_beyond_all_capacity_is_unserved_at_its_price_and_says_so():
    plan = planned(problem([120, 130], thermal=[base_unit()]))
    unmet = plan.violations.set_index("period")
    assert unmet["amount"].round(6).to_dict() == {1: 20, 2: 30}
    assert unmet["cost_eur"].sum() == pytest.approx(50 * 10_000)
    assert "not enough capacity" in unmet.loc[1, "reason"]
    assert plan.prices["energy_eur_per_mwh"].tolist() == pytest.approx([10_000, 10_000])


def test_a_planned_outage_is_kept_and_a_must_run_unit_comes_back():
    outage = ((MIDNIGHT + timedelta(hours=2), MIDNIGHT + timedelta(hours=3)),)
    unit = base_unit(must_run=True, initially_on=True, initial_power_mw=60, outages=outage)
    plan = planned(problem([60] * 5, thermal=[unit, peaker(maximum_mw=100.0, cost_curve=((0.0, 0.0), (100.0, 8000.0)))]))
    assert of(plan, "base", "committed") == [1, 1, 0, 1, 1]


def test_an_outage_too_soon_to_ramp_down_is_a_named_trip():
    outage = ((MIDNIGHT, MIDNIGHT + timedelta(hours=1)),)
    unit = base_unit(initially_on=True, initial_power_mw=100, shutdown_limit_mw=50, outages=outage)
    plan = planned(problem([0, 0], thermal=[unit]))
    assert plan.violations["kind"].tolist() == ["forced trip"]


def test_storage_buys_low_and_sells_high_only_where_losses_allow():
    market = Market([10, 10, 50, 50], import_limit_mw=100, export_limit_mw=100)
    plan = planned(problem([0] * 4, storages=[battery(wear_eur_per_mwh=2)], market=market))
    assert plan.storage["charge_mw"].sum() == pytest.approx(40)
    assert plan.storage["discharge_mw"].sum() == pytest.approx(0.81 * 40)
    flat = planned(problem([0] * 4, storages=[battery()], market=Market([45, 45, 50, 50], import_limit_mw=100, export_limit_mw=100)))
    assert flat.storage["charge_mw"].sum() == 0


def test_negative_prices_do_not_make_a_battery_charge_and_discharge_at_once():
    market = Market([-40, -40, -40], [-60, -60, -60], import_limit_mw=100, export_limit_mw=100)
    plan = planned(problem([0] * 3, storages=[battery()], market=market))
    assert np.minimum(plan.storage["charge_mw"], plan.storage["discharge_mw"]).max() < 1e-6
    assert plan.storage["charge_mw"].sum() > 40


def test_overgeneration_does_not_make_a_battery_burn_energy():
    unit = base_unit(must_run=True, initially_on=True, initial_power_mw=40)
    plan = planned(problem([10] * 6, thermal=[unit], storages=[battery()]))
    assert np.minimum(plan.storage["charge_mw"], plan.storage["discharge_mw"]).max() < 1e-6


def test_a_storage_that_cannot_return_to_its_final_state_says_so():
    plan = planned(problem([0, 0], storages=[battery(final_mwh=38)], market=Market(10, import_limit_mw=100)))
    row = plan.violations.iloc[0]
    assert (row["kind"], row["where"], round(row["amount"], 6)) == ("state of charge", "battery", 2)


def test_water_is_kept_when_its_value_beats_the_price():
    lake = hydro_reservoir("lake", turbine_mw=50, energy_mwh=100, inflow_mw=10, initial_mwh=50, water_value_eur_per_mwh=30)
    plan = planned(problem([0] * 3, storages=[lake], market=Market([20, 60, 20], export_limit_mw=100)))
    assert plan.storage["discharge_mw"].round(6).tolist() == [0, 50, 0]


def test_a_full_reservoir_spills():
    lake = hydro_reservoir("lake", turbine_mw=5, energy_mwh=50, inflow_mw=20, initial_mwh=50, water_value_eur_per_mwh=1)
    plan = planned(problem([5, 5], storages=[lake]))
    assert plan.storage["spill_mw"].tolist() == pytest.approx([15, 15])


def test_shiftable_load_takes_the_cheap_hours_of_its_window():
    load = ShiftableLoad("heat", energy_mwh=20, maximum_mw=10, window=(MIDNIGHT + timedelta(hours=1), MIDNIGHT + timedelta(hours=4)))
    plan = planned(problem([0] * 5, shiftable=[load], market=Market([1, 30, 10, 20, 1], import_limit_mw=100)))
    assert plan.exchange.query("source_kind == 'shiftable'")["power_mw"].tolist() == [0, 0, -10, -10, 0]


def test_interruptible_load_is_cut_before_demand_goes_unserved():
    load = InterruptibleLoad("smelter", maximum_mw=30, price_eur_per_mwh=200)
    plan = planned(problem([120], thermal=[base_unit()], interruptible=[load]))
    assert plan.summary["interruption_eur"] == pytest.approx(20 * 200)
    assert plan.violations.empty


def test_take_or_pay_makes_contract_energy_free_up_to_the_agreed_amount():
    contract = EnergyContract("supply", maximum_mw=50, price_eur_per_mwh=60, minimum_energy_mwh=40)
    plan = planned(problem([50, 50], contracts=[contract], market=Market(50, import_limit_mw=100)))
    taken = plan.exchange.query("source_kind == 'contract'")["power_mw"].sum()
    assert taken == pytest.approx(40)
    assert plan.summary["objective_eur"] == pytest.approx(40 * 60 + 60 * 50)


def test_curtailment_and_co2_are_priced():
    plan = planned(problem([30], renewables=[Renewable("sun", [50.0])], penalties=Penalties(curtailment_eur_per_mwh=5)))
    assert plan.summary["curtailment_eur"] == pytest.approx(100)
    dirty = planned(problem([60], thermal=[base_unit(co2_t_per_mwh=0.9, startup_costs=())], co2_price_eur_per_t=50))
    assert dirty.summary["objective_eur"] == pytest.approx(60 * 20 + 60 * 0.9 * 50)


def test_a_full_line_splits_the_price():
    parts = dict(thermal=[base_unit(zone="north", startup_costs=()), peaker(zone="south")], lines=[Line("tie", "north", "south", 30)])
    plan = planned(problem({"north": [50.0], "south": [45.0]}["north"], **{**parts, "thermal": [], "lines": []}))
    assert plan.violations["amount"].sum() == pytest.approx(50)
    from lakehouse.dispatch import DispatchProblem, utc_intervals

    split = DispatchProblem(utc_intervals(MIDNIGHT, 1, 1.0), 1.0, {"north": [50.0], "south": [45.0]}, **parts)
    plan = planned(split)
    assert plan.flows["flow_mw"].tolist() == [30]
    assert plan.flows["is_binding"].tolist() == [True]
    assert plan.prices.set_index("zone")["energy_eur_per_mwh"].round(6).to_dict() == {"north": 20, "south": 80}


def test_dc_flow_divides_by_reactance():
    from lakehouse.dispatch import DispatchProblem, utc_intervals

    # 90 MW from a to c over a direct line and one by b with twice the reactance: 60 and 30 MW
    lines = [
        Line("ac", "a", "c", 100, reactance_pu=0.1),
        Line("ab", "a", "b", 100, reactance_pu=0.1),
        Line("bc", "b", "c", 100, reactance_pu=0.1),
    ]
    day = DispatchProblem(
        utc_intervals(MIDNIGHT, 1, 1.0),
        1.0,
        {"a": [0.0], "b": [0.0], "c": [90.0]},
        thermal=[base_unit(zone="a", startup_costs=())],
        lines=lines,
    )
    assert planned(day).flows.set_index("line_id")["flow_mw"].round(6).to_dict() == {"ac": 60, "ab": 30, "bc": 30}


def test_downward_reserve_keeps_units_above_their_minimum():
    plan = planned(problem([60], reserve_down_mw=30, thermal=[base_unit(), peaker(minimum_mw=5, cost_curve=((5, 400), (50, 4000)))]))
    assert plan.plan["reserve_down_mw"].sum() == pytest.approx(20)
    assert plan.violations["kind"].tolist() == ["downward reserve shortfall"]


@pytest.mark.parametrize("seed", range(8))
def test_the_plan_of_last_resort_keeps_every_rule(seed):
    day = random_problem(seed, horizon=24)
    outage = ((MIDNIGHT + timedelta(hours=4), MIDNIGHT + timedelta(hours=6)),)
    day = replace(day, thermal=[replace(unit, outages=outage if i % 2 else ()) for i, unit in enumerate(day.thermal)])
    built = formulation.build(day)
    values, prices = solver._finish(built, solver._with_commitment(built, solver.merit_order_plan(day, built)))
    plan = solver.read_solution(built, values, prices, {"gap": np.inf})
    report = check_solution(day, plan)
    assert report.ok, report.lines()


def test_a_must_run_unit_rests_its_minimum_down_time_after_an_outage():
    outage = ((MIDNIGHT + timedelta(hours=1), MIDNIGHT + timedelta(hours=2)),)
    unit = base_unit(must_run=True, initially_on=True, initial_power_mw=60, minimum_down_hours=3, outages=outage)
    assert of(planned(problem([60] * 6, thermal=[unit])), "base", "committed") == [1, 0, 0, 0, 1, 1]


def test_last_plans_commitments_are_a_start():
    day = random_problem(5)
    first = planned(day)
    commitments = first.plan.query("unit_kind == 'thermal'")["committed"].to_numpy().reshape(len(day.thermal), -1)
    again = planned(day, start=commitments)
    assert again.summary["objective_eur"] == pytest.approx(first.summary["objective_eur"], rel=1e-5)


@pytest.mark.parametrize("seed", range(16))
def test_the_fast_model_finds_the_oracles_optimum(seed):
    day = random_problem(seed)
    plan = planned(day)
    assert plan.summary["objective_eur"] == pytest.approx(optimum_eur(day), rel=2e-5, abs=0.05)
    assert plan.summary["bound_eur"] <= plan.summary["objective_eur"] + 1e-6


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(100, 160))
def test_the_fast_model_finds_the_oracles_optimum_on_many_days(seed):
    day = random_problem(seed, horizon=10)
    assert planned(day).summary["objective_eur"] == pytest.approx(optimum_eur(day), rel=2e-5, abs=0.05)


def test_an_instance_without_a_feasible_plan_gets_one_with_violations():
    day = problem_from(
        {"time_periods": 2, "demand": [15, 30], "reserves": [0, 0], "thermal_generators": {"g": PGLIB_UNIT}, "renewable_generators": {}}
    )
    plan = planned(day)
    assert of(plan, "g") == [15, 20]
    assert plan.violations[["kind", "period"]].values.tolist() == [["unserved energy", 2]]
