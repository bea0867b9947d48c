"""What is made of a plan: explanations, bids, set points, the next plan, and the picture."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta

import numpy as np
import pytest

from lakehouse.dispatch import (
    DispatchProblem,
    Market,
    Penalties,
    Renewable,
    check_solution,
    explain,
    figure_png,
    plan_figure,
    solve,
    utc_intervals,
)
from lakehouse.dispatch.bids import market_bids
from lakehouse.dispatch.rolling import commitments, replan, start_from, state_after
from lakehouse.dispatch.setpoints import setpoint_messages, setpoints
from lakehouse.errors import DispatchError
from tests.dispatch.builders import MIDNIGHT, base_unit, battery, peaker, problem, random_problem


def exactly(a_problem, **options):
    return solve(a_problem, **{"gap": 1e-6, "threads": 1, "time_limit_seconds": 30, **options})


def text(a_problem, unit_id, interval):
    return " ".join(explain(a_problem, exactly(a_problem), unit_id, interval))


def test_a_must_run_unit_says_so():
    assert "must-run" in text(problem([60], thermal=[base_unit(must_run=True, initially_on=True, initial_power_mw=60)]), "base", 1)


def test_minimum_up_time_is_told_with_its_hours():
    resting = base_unit(minimum_up_hours=3, minimum_down_hours=2, initial_hours_in_state=1)  # so its run begins in the second hour
    day = problem([0, 90, 0, 0], thermal=[resting], penalties=Penalties(surplus_eur_per_mwh=1))
    told = text(day, "base", 3)
    assert "2 h of at least 3 h" in told
    assert "minimum of 40.0 MW" in told


def test_scarce_reserve_is_told_with_its_price():
    told = text(problem([95], reserve_mw=20, thermal=[base_unit(), peaker(maximum_reserve_mw=5)]), "base", 1)
    assert "holds 15.0 MW of reserve" in told
    assert "60.00 EUR per MW and hour" in told


def test_a_cheaper_unit_is_compared_with_the_next_idle_one():
    told = text(problem([45], thermal=[base_unit(startup_costs=()), peaker(minimum_mw=10, cost_curve=((10, 800), (50, 4000)))]), "base", 1)
    assert "20.00 EUR/MWh on average, cheaper than the next idle unit, peaker: 80.00 EUR/MWh" in told


def test_an_idle_unit_tells_what_it_would_cost():
    told = text(problem([45], thermal=[base_unit(), peaker(minimum_mw=10, cost_curve=((10, 800), (50, 4000)))]), "peaker", MIDNIGHT)
    assert "is off" in told
    assert "80.00 EUR/MWh" in told


def test_curtailment_and_storage_are_explained():
    day = problem([30, 30], renewables=[Renewable("sun", [50.0, 0.0])], storages=[battery()], thermal=[peaker()])
    solution = exactly(day)
    assert "MWh" in " ".join(explain(day, solution, "battery", 1))
    assert "of 50.0 MW available" in explain(day, solution, "sun", 1)[0]


def test_an_unknown_unit_is_named_with_the_known_ones():
    day = problem([60], thermal=[base_unit()])
    with pytest.raises(DispatchError, match=r"bose.*\n.*base"):
        explain(day, exactly(day), "bose", 1)


def trading_day():
    return problem(
        [50.0, 50.0], thermal=[base_unit(startup_costs=(), must_run=True), peaker()], market=Market([30.0, 90.0], [25.0, 85.0], 40, 80)
    )


def test_bids_rise_with_the_price_and_follow_marginal_costs():
    day = trading_day()
    bids = market_bids(day, exactly(day), [[0, 30, 100], [0, 30, 100]])
    first = bids[bids["period"] == 1]
    # below 20 EUR/MWh the base unit falls to 40 MW and 10 MW are bought, above it 50 MW are sold; from 80 the peaker adds up to the limit
    assert first[["price_eur_per_mwh", "quantity_mw"]].values.tolist() == [[0.0, -10.0], [20.0, 50.0], [80.0, 80.0]]
    for _, steps in bids.groupby("period"):
        assert (np.diff(steps["price_eur_per_mwh"]) > 0).all()
        assert (np.diff(steps["quantity_mw"]) >= 0).all()
        assert steps["quantity_mw"].between(-40, 80).all()


def test_bids_need_a_market_and_prices_for_each_interval():
    day = trading_day()
    with pytest.raises(DispatchError, match="shape"):
        market_bids(day, exactly(day), [[0, 30]])
    with pytest.raises(DispatchError, match="market"):
        market_bids(problem([5]), exactly(problem([5])), [[0, 30]])


def test_setpoints_tell_every_asset_what_to_do_now():
    day = problem([50.0, 50.0], hours=0.5, thermal=[base_unit()], storages=[battery(initial_mwh=20)], renewables=[Renewable("sun", 60.0)])
    table = setpoints(day, exactly(day), MIDNIGHT + timedelta(minutes=40)).set_index("asset_id")
    assert table.loc["base", "command"] == "off"
    assert table.loc["sun", "command"] in ("limit", "run")
    assert str(table.loc["sun", "valid_from"]) == "2026-03-30 00:30:00+00:00"
    message = json.loads(setpoint_messages(table.reset_index())["gridlake/setpoints/sun"])
    assert message["form"] == "gridlake.setpoint/1"
    assert message["valid_until"] == "2026-03-30T01:00:00+00:00"


def rest_of(day: DispatchProblem, solution, passed: int, **changes) -> DispatchProblem:
    units, stores = state_after(day, solution, passed)
    parts = dict(
        interval_start=day.interval_start[passed:],
        interval_hours=day.interval_hours,
        demand_mw=np.asarray(day.demand_mw["system"])[passed:],
        reserve_mw=np.asarray(day.reserve_mw)[passed:],
        thermal=units,
        storages=stores,
        renewables=[Renewable(u.unit_id, np.asarray(u.maximum_mw)[passed:]) for u in day.renewables],
    )
    return DispatchProblem(**{**parts, **changes})


@pytest.mark.parametrize("seed", range(6))
def test_replanning_the_rest_of_the_day_changes_nothing_when_nothing_changed(seed):
    day = random_problem(seed)
    first = exactly(day)
    rest = rest_of(day, first, 3)
    again = replan(rest, first, gap=1e-6, threads=1)
    assert check_solution(rest, again).ok
    passed = exactly(day, kept=commitments(day, first)).summary["objective_eur"]
    assert passed == pytest.approx(first.summary["objective_eur"], rel=1e-6)
    kept = replan(rest, first, gap=1e-6, threads=1, notice_hours=100)
    assert again.summary["objective_eur"] <= kept.summary["objective_eur"] + 1e-3
    assert kept.summary["objective_eur"] == pytest.approx(again.summary["objective_eur"], rel=1e-5)


def test_a_commitment_within_its_notice_is_kept_though_demand_vanished():
    day = problem([60.0] * 4, thermal=[base_unit(), peaker()])
    first = exactly(day)
    less = rest_of(day, first, 1, demand_mw=[0.0] * 3, penalties=Penalties(surplus_eur_per_mwh=50))
    kept = replan(less, first, notice_hours={"base": 2}, gap=1e-6, threads=1)
    assert kept.plan.query("unit_id == 'base'")["committed"].tolist() == [1, 1, 0]
    assert replan(less, first, gap=1e-6, threads=1).plan.query("unit_id == 'base'")["committed"].tolist() == [0, 0, 0]


def the_day_after(day, **changes):
    return replace(day, interval_start=tuple(start + timedelta(days=1) for start in day.interval_start), **changes)


def test_the_next_days_search_begins_from_the_commitments_of_the_day_before():
    day = problem([60.0] * 6 + [0.0] * 18, thermal=[base_unit()], penalties=Penalties(surplus_eur_per_mwh=50))
    before = exactly(day)
    tomorrow = the_day_after(day, thermal=[base_unit(), peaker()])
    start = start_from(tomorrow, before.plan)
    assert start.tolist() == [[1.0] * 6 + [0.0] * 18, [0.0] * 24]  # the peaking unit is new and keeps its state, off
    assert start_from(tomorrow, before.plan.iloc[:0]) is None
    assert start_from(replace(tomorrow, thermal=[]), before.plan) is None


@pytest.mark.parametrize("seed", range(4))
def test_a_search_that_begins_from_a_bad_plan_ends_as_well_as_one_that_begins_from_none(seed):
    day = random_problem(seed)
    tomorrow = the_day_after(day, demand_mw=np.asarray(day.demand_mw["system"])[::-1])
    warm = exactly(tomorrow, start=start_from(tomorrow, exactly(day).plan), threads=2)
    assert check_solution(tomorrow, warm).ok
    assert warm.summary["objective_eur"] == pytest.approx(exactly(tomorrow).summary["objective_eur"], rel=1e-5)


def test_the_picture_is_drawn_for_every_kind_of_day():
    plain = problem([60.0, 80.0], thermal=[base_unit()])
    rich = problem(
        [60.0] * 8,
        hours=0.25,
        reserve_mw=5,
        thermal=[base_unit(), peaker()],
        storages=[battery(initial_mwh=5)],
        market=Market(30.0, import_limit_mw=9),
    )
    for day in (plain, rich):
        figure = plan_figure(day, exactly(day))
        labels = {text.get_text() for axis in figure.axes for text in axis.get_legend().get_texts()}
        assert {"base", "demand", "energy"} <= labels
        assert figure_png(figure).startswith(b"\x89PNG")


def test_a_plan_beyond_the_horizon_can_not_be_rolled():
    day = problem([60.0], thermal=[base_unit()])
    with pytest.raises(DispatchError, match="1 to 1"):
        state_after(day, exactly(day), 2)


def test_intervals_of_a_plan_are_utc():
    day = problem([60.0], thermal=[base_unit()])
    assert exactly(day).plan["interval_start"].tolist() == list(utc_intervals(MIDNIGHT, 1, 1.0))
