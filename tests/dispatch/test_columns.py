"""Prices settled over the units' own schedules: the bound that they prove lies between that of climbing prices and every plan."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from lakehouse.dispatch import DispatchProblem, solve
from lakehouse.dispatch.columns import exact_bound, settle
from lakehouse.dispatch.formulation import build
from lakehouse.dispatch.pricing import Prices, priced_units
from lakehouse.dispatch.ramped import RampedRuns, levels_of
from tests.dispatch.builders import base_unit, peaker, problem, random_problem
from tests.dispatch.test_pricing import alone_at_a_market, optimum


def units_of(seed: int) -> tuple[DispatchProblem, Prices, np.ndarray, np.ndarray]:
    """A random day's units with a price of energy for each of them and one of reserve."""
    day = random_problem(seed, horizon=16)
    game = Prices(priced_units(build(day)), build(day).program)
    draw = np.random.default_rng(seed)
    energy = np.repeat(draw.uniform(0, 120, size=(1, 16)), len(day.thermal), axis=0)
    return day, game, energy, draw.uniform(0, 20, size=16)


@pytest.mark.parametrize("seed", range(12))
def test_a_schedule_costs_what_its_output_costs(seed: int):
    _, game, energy, reserve = units_of(seed)
    units, found = game.units, game.runs.schedules(energy, reserve)
    assert found is not None
    above = found.power - found.committed * units.minimum[:, None]
    below = np.cumsum(units.width, axis=1) - units.width
    within = np.clip(above[:, :, None] - below[:, None, :], 0, units.width[:, None, :])
    running = found.committed * units.cost_at_minimum[:, None] + (within * units.slope[:, None, :]).sum(axis=2)
    earned = (found.power * energy).sum(axis=1) + found.held @ reserve
    started = found.cost - running.sum(axis=1) + earned  # what is left can only be starts
    ever = (np.diff(np.concatenate([units.was_on[:, None], found.committed], axis=1), axis=1) > 0).any(axis=1)
    assert np.all(started >= -1e-6)
    assert started[~ever] == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize("seed", range(12))
def test_a_schedule_on_levels_keeps_ramps_and_is_a_little_dearer_at_most(seed: int):
    day, price = alone_at_a_market(4 * seed + 1)
    unit = day.thermal[0]
    ramp = 0.3 * (unit.maximum_mw - unit.minimum_mw)  # MW per interval
    slow = replace(unit, ramp_up_mw_per_hour=ramp / day.interval_hours, ramp_down_mw_per_hour=ramp / day.interval_hours)
    day = replace(day, thermal=[slow])
    built = build(day)
    game = Prices(priced_units(built), built.program)
    by_unit, none = np.atleast_2d(price * day.interval_hours), np.zeros(16)
    found = game.runs.schedules(by_unit, none)
    assert found is not None
    without = found.cost.copy()
    ramped = RampedRuns(game.runs)
    assert len(ramped.members) == 1
    ramped.improve(found, by_unit, none)
    best = optimum(day) - built.offset_eur
    assert without[0] - 1e-3 <= best <= found.cost[0] + 1e-3
    running = (found.committed[0][1:] > 0) & (found.committed[0][:-1] > 0)
    assert np.abs(np.diff(found.power[0]))[running].max(initial=0.0) <= ramp + 1e-6


def test_levels_hold_what_is_wanted_and_halve_the_widest_gaps():
    assert levels_of(100.0, np.array([40.0]), count=5).tolist() == [0.0, 20.0, 40.0, 70.0, 100.0]


@pytest.mark.parametrize("seed", range(8))
def test_the_bound_of_settled_prices_lies_between_that_of_climbing_and_every_plan(seed: int):
    day = random_problem(seed, horizon=12)
    built = build(day)
    game = Prices(priced_units(built), built.program)
    climbed = game.climb(0.2, game.merit_order(), lambda bound: None, lambda: np.inf)
    told: list[float] = []
    settled = settle(game, climbed.energy, climbed.reserve, 3.0, told.append)
    commitment = np.stack([built.variables[name] for name in ("u", "v", "w")])
    proved = exact_bound(game, settled, built.program, commitment, 10.0, told.append)
    best = float(solve(day, gap=1e-6, time_limit_seconds=30).summary["objective_eur"])
    assert max(told) + built.offset_eur <= best + 1e-3
    assert proved >= game.answer(settled.energy, settled.reserve).bound - 1e-6
    assert settled.bound >= climbed.bound - 2e-3 * abs(climbed.bound)
    mix = np.zeros(len(day.thermal))
    np.add.at(mix, settled.unit, settled.share)
    assert mix == pytest.approx(np.ones(len(day.thermal)))


@pytest.mark.parametrize("seed", range(12))
def test_alone_at_a_market_a_units_exact_bound_is_its_optimum(seed: int):
    day, price = alone_at_a_market(seed)
    built = build(day)
    game = Prices(priced_units(built), built.program)
    settled = settle(game, price[None, :] * day.interval_hours, np.zeros(16), 1.0, lambda bound: None)
    commitment = np.stack([built.variables[name] for name in ("u", "v", "w")])
    settled = replace(settled, energy=price[None, :] * day.interval_hours, reserve=np.zeros(16))
    proved = exact_bound(game, settled, built.program, commitment, 10.0, lambda bound: None)
    assert proved + built.offset_eur <= optimum(day) + 1e-3


def test_a_commitment_is_open_where_a_schedule_nearly_as_cheap_differs():
    # Base runs throughout. The peaking unit gives the last 30 MW at 80, which sets the price, so that not to run costs it nothing.
    day = problem([130.0] * 4, thermal=[base_unit(minimum_up_hours=4), peaker()])
    built = build(day)
    game = Prices(priced_units(built), built.program)
    settled = settle(game, np.full((1, 4), 79.0), np.zeros(4), 3.0, lambda bound: None)
    assert settled.value + built.offset_eur == pytest.approx(4 * (100 * 20 + 30 * 80) + 1000, rel=1e-4)
    held, _ = settled.open_within(0.0, 2)
    assert held[0].tolist() == [1, 1, 1, 1]
    assert settled.open_within(1e9, 2)[1][1].any()
