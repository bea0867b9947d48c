"""A plan on the day that came: what stays, what follows, and what not knowing cost."""

from __future__ import annotations

import pytest

from lakehouse.dispatch import (
    DispatchProblem,
    InterruptibleLoad,
    Line,
    Market,
    Renewable,
    ShiftableLoad,
    Storage,
    ThermalUnit,
    solve,
    utc_intervals,
)
from lakehouse.dispatch.binding import binding_constraints
from lakehouse.dispatch.checker import check_solution
from lakehouse.dispatch.rolling import remaining, replan, state_after
from lakehouse.dispatch.settlement import first_part, settle
from tests.dispatch.builders import MIDNIGHT

BASE = ThermalUnit("base", 10, 50, cost_curve=((10, 200), (50, 1000)), startup_costs=((0, 100),), minimum_up_hours=4)
PEAK = ThermalUnit("peak", 5, 50, cost_curve=((5, 500), (50, 5000)), startup_costs=((0, 10),))


def day(demand: float | list[float], **more: object) -> DispatchProblem:
    horizon = len(demand) if isinstance(demand, list) else 4
    return DispatchProblem(utc_intervals(MIDNIGHT, horizon, 1.0), 1.0, demand, thermal=[BASE, PEAK], **more)  # type: ignore[arg-type]


def test_a_plan_that_guessed_right_settles_at_its_own_cost():
    problem = day(30.0)
    plan = solve(problem, gap=0.0)
    assert settle(problem, plan, gap=0.0).summary["objective_eur"] == pytest.approx(plan.summary["objective_eur"])


def test_commitments_stay_and_output_follows_the_day():
    plan = solve(day(30.0), gap=0.0)  # base alone
    settled = settle(day([30.0, 40.0, 60.0, 30.0]), plan, gap=0.0)
    assert settled.summary["unserved_eur"] == pytest.approx(10.0 * 10_000), "peak was not committed, and is not called quick"
    quick = settle(day([30.0, 40.0, 60.0, 30.0]), plan, quick_units=["peak"], gap=0.0)
    assert quick.summary["unserved_eur"] == 0.0
    assert quick.plan.query("unit_id == 'peak' and power_mw > 0")["period"].tolist() == [3]


def test_a_store_keeps_its_schedule_and_its_wear():
    store = Storage("battery", 10, 10, 20, initial_mwh=0, wear_eur_per_mwh=1.0)
    expected = Market([10, 10, 90, 90], import_limit_mw=100, export_limit_mw=100)
    came = Market([90, 90, 10, 10], import_limit_mw=100, export_limit_mw=100)
    plan = solve(DispatchProblem(utc_intervals(MIDNIGHT, 4, 1.0), 1.0, 0.0, storages=[store], market=expected), gap=0.0)
    assert plan.summary["objective_eur"] == pytest.approx(20 * 10 - 20 * 90 + 40)
    settled = settle(DispatchProblem(utc_intervals(MIDNIGHT, 4, 1.0), 1.0, 0.0, storages=[store], market=came), plan, gap=0.0)
    assert settled.summary["objective_eur"] == pytest.approx(20 * 90 - 20 * 10 + 40), "it buys dear and sells cheap, as planned"


def test_shifted_load_stays_where_it_was_shifted():
    load = ShiftableLoad("cars", 20, 10)
    plan = solve(day([10.0, 45.0, 45.0, 10.0], shiftable=[load]), gap=0.0)
    assert plan.exchange.query("source_id == 'cars'").sort_values("period")["power_mw"].tolist() == pytest.approx([-10, 0, 0, -10])
    settled = settle(day([40.0, 10.0, 10.0, 40.0], shiftable=[load]), plan, gap=0.0)
    assert settled.plan.groupby("period")["power_mw"].sum().tolist() == pytest.approx([50, 10, 10, 50])


def test_reserve_that_was_held_may_be_used():
    plan = solve(day(30.0, reserve_mw=20.0), gap=0.0)
    settled = settle(day(50.0, reserve_mw=20.0), plan, gap=0.0)
    assert (settled.summary["unserved_eur"], settled.summary["reserve_shortfall_eur"]) == (0.0, 0.0)


def test_perfect_foresight_is_never_dearer_than_the_settled_plan():
    for came in ([30.0, 40.0, 60.0, 30.0], [70.0, 80.0, 20.0, 10.0], [0.0, 0.0, 90.0, 90.0]):
        plan, perfect = solve(day(30.0), gap=0.0), solve(day(came), gap=0.0)
        settled = settle(day(came), plan, quick_units=["peak"], gap=0.0).summary["objective_eur"]
        assert settle(day(came), perfect, gap=0.0).summary["objective_eur"] <= settled + 1e-6


def test_the_first_part_of_a_plan_keeps_every_rule_and_costs_what_it_costs():
    store = Storage("battery", 10, 10, 20, initial_mwh=10, final_mwh=10)
    problem = day([30.0, 60.0, 30.0, 30.0, 20.0, 60.0], storages=[store], reserve_mw=5.0)
    plan = solve(problem, gap=0.0)
    cut, shown = first_part(problem, plan, 3)
    report = check_solution(cut, shown)
    assert [b.rule for b in report.breaches] in ([], ["claimed cost"]), "the claim is that of the whole"
    assert (cut.horizon, shown.plan["period"].max()) == (3, 3)
    assert 0 < report.objective_eur < plan.summary["objective_eur"]
    assert first_part(problem, plan, 6) == (problem, plan)


def test_the_rest_of_a_day_begins_where_the_plan_was():
    cars = ShiftableLoad("cars", 20, 10)
    cut = InterruptibleLoad("mill", 5.0, 300.0, maximum_energy_mwh=8.0)
    problem = day([30.0, 60.0, 30.0, 30.0], shiftable=[cars], interruptible=[cut])
    plan = solve(problem, gap=0.0)
    units, stores = state_after(problem, plan, 2)
    rest = remaining(problem, 2, units, stores, {"cars": 15.0, "mill": 3.0})
    assert rest.interval_start == problem.interval_start[2:]
    assert rest.thermal[0].initially_on
    assert (rest.shiftable[0].energy_mwh, rest.interruptible[0].maximum_energy_mwh) == (5.0, 5.0)


def test_a_last_plan_that_an_outage_forbids_gives_way():
    problem = day(30.0)
    last = solve(problem, gap=0.0)
    out = ThermalUnit("base", 10, 50, BASE.cost_curve, minimum_down_hours=1, outages=((MIDNIGHT, problem.interval_start[2]),))
    tripped = DispatchProblem(problem.interval_start, 1.0, 30.0, thermal=[out, PEAK])
    again = replan(tripped, last, gap=0.0)
    assert again.plan.query("unit_id == 'base'").sort_values("period")["committed"].tolist()[:2] == [0, 0]
    assert check_solution(tripped, again).ok


def test_what_binds_is_named_with_its_worth():
    line = Line("tie", "north", "south", 20.0)
    problem = DispatchProblem(
        utc_intervals(MIDNIGHT, 2, 1.0), 1.0, {"north": 0.0, "south": 30.0}, reserve_mw=60.0, lines=[line],
        thermal=[
            ThermalUnit("cheap", 0, 50, ((0, 0), (50, 500)), zone="north"),
            ThermalUnit("dear", 0, 50, ((0, 0), (50, 2000)), zone="south"),
        ],
    )  # fmt: skip
    found = {(one.constraint, one.where): one for one in binding_constraints(problem, solve(problem, gap=0.0))}
    tie = found["transfer limit", "tie"]
    assert (tie.intervals, tie.worth_eur) == (2, pytest.approx(2 * 20 * 30)), "20 MW across a difference of 30 EUR/MWh"
    assert tie.sentence() == "transfer limit of tie in 2 intervals, worth 1,200 EUR"


def test_a_full_import_is_worth_what_more_of_it_would_save():
    problem = day(30.0, market=Market(5.0, import_limit_mw=10.0), renewables=[Renewable("sun", 5.0)])
    found = {one.constraint: one for one in binding_constraints(problem, solve(problem, gap=0.0))}
    assert (found["import limit"].intervals, found["import limit"].worth_eur) == (4, pytest.approx(4 * 10 * (20 - 5)))
    assert "upward reserve" not in found
