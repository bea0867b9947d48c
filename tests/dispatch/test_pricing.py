"""Units that plan for themselves at given prices: a bound that never lies above a plan, and exact where nothing was relaxed."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import numpy as np
import pytest

from lakehouse.dispatch import DispatchProblem, Market, solve
from lakehouse.dispatch.formulation import build
from lakehouse.dispatch.pricing import Prices, priced_units
from tests.dispatch.builders import MIDNIGHT, base_unit, peaker, problem, random_problem


def prices_of(day: DispatchProblem) -> tuple[Prices, float]:
    """The prices' game of a problem, and the constant part of its cost."""
    built = build(day)
    return Prices(priced_units(built), built.program), built.offset_eur


def alone_at_a_market(seed: int, **changes) -> tuple[DispatchProblem, np.ndarray]:
    """A random unit that sells all it makes at a price that swings."""
    day = random_problem(seed, horizon=16)
    unit = replace(day.thermal[0], **changes)
    if seed % 4 == 0:
        unit = replace(unit, outages=((MIDNIGHT + timedelta(hours=3), MIDNIGHT + timedelta(hours=4)),))
    price = np.random.default_rng(seed).uniform(0, 120, size=16)
    market = Market(price, price, 1_000.0, 1_000.0)
    return problem([0.0] * 16, hours=day.interval_hours, thermal=[unit], market=market), price


def optimum(day: DispatchProblem) -> float:
    return float(solve(day, gap=0.0, time_limit_seconds=30).summary["objective_eur"])


@pytest.mark.parametrize("seed", range(24))
def test_at_the_markets_price_a_unit_without_ramps_earns_what_the_solver_finds(seed: int):
    free = dict(ramp_up_mw_per_hour=1e4, ramp_down_mw_per_hour=1e4, startup_limit_mw=None, shutdown_limit_mw=None)
    day, price = alone_at_a_market(seed, **free)
    game, constant = prices_of(day)
    found = game.answer(price[None, :] * day.interval_hours, np.zeros(16))
    assert found.bound + constant == pytest.approx(optimum(day), rel=1e-6, abs=1e-3)


@pytest.mark.parametrize("seed", range(24))
def test_with_ramps_it_never_costs_more_than_the_solvers_plan(seed: int):
    day, price = alone_at_a_market(seed)
    game, constant = prices_of(day)
    found = game.answer(price[None, :] * day.interval_hours, np.zeros(16))
    assert found.bound + constant <= optimum(day) + 1e-3


@pytest.mark.parametrize("seed", range(8))
def test_climbing_prices_give_a_bound_below_every_plan(seed: int):
    day = random_problem(seed, horizon=12)
    game, constant = prices_of(day)
    told: list[float] = []
    climbed = game.climb(0.3, game.merit_order(), told.append, lambda: np.inf)
    assert told == sorted(told) and told[-1] == climbed.bound
    assert climbed.bound == pytest.approx(game.answer(climbed.energy, climbed.reserve).bound)
    assert climbed.bound + constant <= solve(day, gap=1e-6, time_limit_seconds=30).summary["objective_eur"] + 1e-3
    assert set(np.unique(climbed.committed)) <= {0.0, 1.0}


def test_the_price_rises_until_the_dear_unit_runs():
    # 130 MW: base gives 100 MW at 20 EUR/MWh, the peaking unit 30 MW at 80, which sets the price; base starts once for 1,000 EUR.
    day = problem([130.0] * 4, thermal=[base_unit(minimum_up_hours=4), peaker()])
    game, constant = prices_of(day)
    at_80 = game.answer(np.full((1, 4), 80.0), np.zeros(4))
    assert at_80.bound + constant == pytest.approx(4 * (100 * 20 + 30 * 80) + 1000)
    assert at_80.committed[0].tolist() == [1, 1, 1, 1]
    at_10 = game.answer(np.full((1, 4), 10.0), np.zeros(4))
    assert at_10.bound + constant == pytest.approx(4 * 130 * 10)
    assert at_10.missing_energy.tolist() == [[130.0] * 4]


def test_reserve_has_a_price_of_its_own():
    # At 20 EUR/MWh base is indifferent, so at 5 EUR for a MW of reserve it earns 5 on each of its 60 MW above minimum.
    day = problem([60.0] * 2, reserve_mw=30.0, thermal=[base_unit(initially_on=True, initial_power_mw=60.0, startup_costs=())])
    game, constant = prices_of(day)
    found = game.answer(np.full((1, 2), 20.0), np.full(2, 5.0))
    assert found.bound + constant == pytest.approx(2 * (60 * 20 + 30 * 5 - 60 * 5))
    assert found.missing_reserve.tolist() == [-30.0, -30.0]
