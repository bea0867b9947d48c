"""Planning for several futures at once: the commitments hold in all of them, and no plan for one future does better on average."""

from __future__ import annotations

import numpy as np
import pytest

from lakehouse.dispatch import check_solution, solve
from lakehouse.dispatch.rolling import commitments
from lakehouse.dispatch.stochastic import expected_cost_eur, scenarios_from_quantiles, solve_stochastic
from lakehouse.errors import DispatchError
from tests.dispatch.builders import base_unit, peaker, problem


def futures(*demands):
    fleet = [base_unit(startup_costs=((1, 300),)), peaker(unit_id="quick")]
    return [problem(demand, thermal=fleet) for demand in demands]


def test_a_slow_unit_is_committed_once_for_all_futures_and_a_quick_one_in_each():
    calm, high = futures([45.0], [90.0])
    plan = solve_stochastic([calm, high], [0.9, 0.1], second_stage={"quick"}, threads=1, gap=1e-6)
    assert plan.commitment[0].tolist() == [1]
    assert np.isnan(plan.commitment[1]).all()
    # 0.9 * (45 * 20) + 0.1 * (90 * 20) + one start
    assert plan.summary["expected_cost_eur"] == pytest.approx(0.9 * 900 + 0.1 * 1800 + 300)
    assert plan.summary["first_stage_eur"] == pytest.approx(800 + 300)
    for scenario, day in zip(plan.scenarios, (calm, high), strict=True):
        assert check_solution(day, scenario).ok


def test_no_plan_for_a_single_future_is_cheaper_on_average():
    days = futures([20.0, 30, 60, 30], [40.0, 80, 120, 50], [10.0, 10, 20, 10])
    both = solve_stochastic(days, threads=1, gap=1e-6)
    for day in days:
        single = commitments(day, solve(day, gap=1e-6, threads=1))
        assert both.summary["expected_cost_eur"] <= expected_cost_eur(single, days, threads=1) + 1e-3
    wait_and_see = np.mean([solve(day, gap=1e-6, threads=1).summary["objective_eur"] for day in days])
    assert both.summary["expected_cost_eur"] >= wait_and_see - 1e-3
    assert both.summary["bound_eur"] == pytest.approx(both.summary["expected_cost_eur"], rel=1e-5)


def test_scenarios_keep_the_quantiles_and_hang_together():
    levels, values = [0.1, 0.5, 0.9], np.tile([[80.0, 100.0, 130.0]], (24, 1))
    paths = scenarios_from_quantiles(levels, values, 4000, correlation_hours=6, seed=1)
    assert paths.shape == (4000, 24)
    assert np.quantile(paths, [0.1, 0.5, 0.9]) == pytest.approx([80, 100, 130], abs=1.0)
    deviation = paths - paths.mean(axis=0)
    assert np.corrcoef(deviation[:, 0], deviation[:, 1])[0, 1] > 0.75
    assert abs(np.corrcoef(deviation[:, 0], deviation[:, 23])[0, 1]) < 0.1


def test_bad_scenarios_are_named():
    calm, high = futures([45.0], [90.0])
    with pytest.raises(DispatchError, match="sum to 1"):
        solve_stochastic([calm, high], [0.9, 0.9])
    with pytest.raises(DispatchError, match="quack"):
        solve_stochastic([calm], second_stage={"quack"})
    with pytest.raises(DispatchError, match="levels"):
        scenarios_from_quantiles([0.5, 0.1], np.zeros((3, 2)), 5)
