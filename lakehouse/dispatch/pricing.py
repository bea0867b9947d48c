"""A bound and a first guess by prices alone, for fleets whose relaxation takes longer than there is time.

Balance and reserve are given prices; each unit then plans for itself by dynamic programming over its time on and off, and what is no
unit (storage, trade, wind) by a small linear programme. The sum is a lower bound for any prices (Lagrangian relaxation: Muckstadt &
Koenig 1977); the prices climb along the mismatch (Polyak 1969, directions averaged as in Barahona & Anbil's volume algorithm, 2000).
Ramps within a run are relaxed but for the first hours of a run and the way out of the initial state. The searches use it; equations
live in `formulation`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from lakehouse.dispatch.algebra import Array, SparseProgram, highs_with
from lakehouse.dispatch.formulation import BuiltModel, whole_intervals
from lakehouse.dispatch.runs import RAMPED_AGES, PricedUnits, Runs

THERMAL_VARIABLES = ("u", "v", "w", "p", "r", "rd", "hot", "segment")


def priced_units(built: BuiltModel) -> PricedUnits:
    """The units of a built model, ready to be priced."""
    problem, data = built.problem, built.thermal
    units, horizon, hours = problem.thermal, problem.horizon, problem.interval_hours
    count = len(units)
    segments = np.bincount(data.segment_unit, minlength=count)
    slot = np.arange(len(data.segment_unit)) - np.repeat(np.cumsum(segments) - segments, segments)
    width, slope = (np.zeros((count, max(int(segments.max(initial=0)), 1))) for _ in range(2))
    width[data.segment_unit, slot] = data.segment_to - data.segment_from
    slope[data.segment_unit, slot] = data.segment_slope
    up, down = (np.minimum(ramp, data.span + 1.0)[:, None] for ramp in (data.ramp_up, data.ramp_down))
    span = data.span[:, None]
    starting = np.minimum(span, (data.start_limit - data.minimum)[:, None] + np.arange(RAMPED_AGES)[None, :] * up)
    stopping = np.minimum(span, (data.stop_limit_with_reserve - data.minimum)[:, None])
    passed = np.arange(1, horizon + 1)[None, :]
    trips = (data.trip_until >= 0)[:, None]
    floor = np.where(trips, 0.0, np.clip(data.power_before[:, None] - passed * down, 0.0, None))
    lags = [[1, *(max(1, whole_intervals(h, hours)) for h, _ in unit.startup_costs[1:])] for unit in units]
    longest = int(min(max([max(lag) for lag in lags] + [int(data.down_time.max(initial=1)), 1]), 4 * horizon))
    start_cost = np.zeros((count, longest + 1))
    first_start = np.zeros((count, horizon))
    for i, unit in enumerate(units):
        if unit.startup_costs:
            costs = np.array([cost for _, cost in unit.startup_costs])
            rested = int(np.floor(unit.initial_hours_in_state / hours + 1e-9))
            at = lambda rest: costs[np.clip(np.searchsorted(lags[i], rest, side="right") - 1, 0, None)]  # noqa: E731, B023
            start_cost[i] = at(np.arange(longest + 1))
            first_start[i] = at(rested + np.arange(horizon))
    names, rows, penalties = built.variables, built.rows, problem.penalties
    return PricedUnits(
        zone=np.array([problem.zones.index(unit.zone) for unit in units], int),
        minimum=data.minimum,
        cost_at_minimum=data.cost_at_minimum,
        width=width,
        slope=slope,
        caps=np.concatenate([starting, span, stopping], axis=1),
        first_cap=np.minimum(span, data.power_before[:, None] + passed * up),
        first_floor=floor,
        first_may_stop=trips | (floor <= stopping + 1e-6),
        may_stop_at_once=(data.earliest_stop <= 0) | (data.upper[:, 0] < 0.5),
        may_run=data.upper > 0.5,
        must_run=data.lower > 0.5,
        up_time=np.clip(data.up_time, 1, horizon),
        down_time=np.clip(data.down_time, 1, horizon),
        start_cost=start_cost,
        first_start_cost=first_start,
        was_on=data.was_on,
        power_before=data.power_before,
        ramp_up=data.ramp_up,
        ramp_down=data.ramp_down,
        start_cap=data.start_limit - data.minimum,
        stop_cap=data.stop_limit - data.minimum,
        trips=data.trip_until >= 0,
        balance_rows=rows["balance"],
        reserve_rows=rows.get("reserve", np.zeros(0, int)),
        columns=np.concatenate([names[name].ravel() for name in THERMAL_VARIABLES if name in names]),
        price_limits=hours
        * np.array([-penalties.surplus_eur_per_mwh, penalties.unserved_eur_per_mwh, penalties.reserve_shortfall_eur_per_mwh]),
    )


@dataclass
class Priced:
    """Everybody's answer to prices: the bound, who runs, and what is missing of demand and reserve."""

    bound: float
    committed: Array
    missing_energy: Array
    missing_reserve: Array


@dataclass
class Climbed:
    """The best bound, the prices that prove it, and who runs at them, (units, horizon)."""

    bound: float
    energy: Array
    reserve: Array
    committed: Array


class Prices:
    """Prices of energy by zone and of reserve, and the bound that they prove."""

    def __init__(self, units: PricedUnits, program: SparseProgram) -> None:
        self.units = units
        self.horizon = units.may_run.shape[1]
        self.runs = Runs(units)
        self.rest = _Rest(units, program)

    def answer(self, energy: Array, reserve: Array) -> Priced:
        """What everybody does at prices of energy (zones, horizon) and reserve (horizon), EUR per MW and interval."""
        own = self.runs.schedules(energy[self.units.zone], reserve)
        if own is None:  # a unit without any schedule is for the solver to tell
            return Priced(-np.inf, np.zeros(self.units.may_run.shape), np.zeros_like(energy), np.zeros(self.horizon))
        cost, supplied, others_held = self.rest.answer(energy, reserve)
        by_zone = np.zeros_like(energy)
        np.add.at(by_zone, self.units.zone, own.power)
        missing = self.rest.demand - by_zone - supplied
        lacking = self.rest.requirement - own.held.sum(axis=0) - others_held
        bound = float(own.cost.sum()) + cost + self.rest.paid(energy, reserve)
        return Priced(bound, own.committed, missing, lacking)

    def merit_order(self) -> Array:
        """Prices to begin with: the mean cost of the unit that meets, in merit order, what the others leave; (zones, horizon)."""
        units = self.units
        size = units.minimum + units.width.sum(axis=1)
        mean = (units.cost_at_minimum + (units.width * units.slope).sum(axis=1)) / np.maximum(size, 1e-9)
        order = np.argsort(mean)
        able = np.cumsum(size[order])

        def of(demand: Array) -> Array:
            place = np.clip(np.searchsorted(able, demand.sum(axis=0)), 0, len(order) - 1)
            return np.repeat(mean[order][place][None, :], len(demand), axis=0)

        _, supplied, _ = self.rest.answer(of(self.rest.demand), np.zeros(self.horizon))
        return of(self.rest.demand - supplied)

    def climb(self, seconds: float, energy: Array, tell: Callable[[float], None], cost_of_a_plan: Callable[[], float]) -> Climbed:
        """Raises the bound until it hardly moves or the time is up.

        Args:
            seconds: at most this long.
            energy: prices to begin with, (zones, horizon).
            tell: told every better bound.
            cost_of_a_plan: cost of the best plan known by now, infinite without one.
        """
        begun = time.perf_counter()
        lowest, highest, dearest = self.units.price_limits
        best_energy, best_reserve = np.clip(energy, lowest, highest), np.zeros(self.horizon)
        mean = self.answer(best_energy, best_reserve)
        bound, committed = mean.bound, mean.committed
        if not np.isfinite(bound):
            return Climbed(-np.inf, best_energy, best_reserve, mean.committed)
        tell(bound)
        stride, stalled = 1.0, 0
        while time.perf_counter() - begun < seconds and stride > 2e-3:
            aim = min(cost_of_a_plan(), bound + 0.01 * abs(bound))
            lacking = np.where((best_reserve <= 0.0) & (mean.missing_reserve < 0.0), 0.0, mean.missing_reserve)
            steepness = float((mean.missing_energy**2).sum() + (lacking**2).sum())
            if steepness < 1e-9 or aim <= bound:
                break
            step = stride * (aim - bound) / steepness
            tried_energy = np.clip(best_energy + step * mean.missing_energy, lowest, highest)
            tried_reserve = np.clip(best_reserve + step * lacking, 0.0, dearest)
            found = self.answer(tried_energy, tried_reserve)
            share = 0.15
            mean = Priced(
                found.bound,
                found.committed,
                *((1 - share) * getattr(mean, name) + share * getattr(found, name) for name in ("missing_energy", "missing_reserve")),
            )
            if found.bound > bound:
                if found.bound > bound + 1e-6 * abs(bound):
                    stalled, stride = 0, min(1.0, 1.1 * stride)
                bound, committed, best_energy, best_reserve = found.bound, found.committed, tried_energy, tried_reserve
                tell(bound)
            else:
                stalled += 1
                if stalled >= 4:
                    stalled, stride = 0, 0.7 * stride
        return Climbed(bound, best_energy, best_reserve, committed)


class _Rest:
    """What is no thermal unit: a small linear programme at given prices."""

    def __init__(self, units: PricedUnits, program: SparseProgram) -> None:
        from_row = np.repeat(np.arange(program.n_rows), np.diff(program.row_start))
        thermal = np.zeros(program.n_columns, bool)
        thermal[units.columns] = True
        self.columns = np.flatnonzero(~thermal)
        place = np.full(program.n_columns, -1)
        place[self.columns] = np.arange(len(self.columns))
        self.cost, self.lower, self.upper = (x[self.columns] for x in (program.cost, program.lower, program.upper))
        self.demand = program.row_lower[units.balance_rows]
        self.requirement = program.row_lower[units.reserve_rows] if len(units.reserve_rows) else np.zeros(self.demand.shape[1])

        def entries(rows: Array) -> tuple[Array, Array, Array]:
            number = np.full(program.n_rows, -1)
            number[rows.ravel()] = np.arange(rows.size)
            keep = (number[from_row] >= 0) & ~thermal[program.row_columns]
            return number[from_row[keep]], place[program.row_columns[keep]], program.row_values[keep]

        self.supply, self.holding = entries(units.balance_rows), entries(units.reserve_rows)
        coupled = np.zeros(program.n_rows, bool)
        coupled[from_row[thermal[program.row_columns]]] = True
        coupled[units.balance_rows.ravel()] = True
        coupled[units.reserve_rows] = True
        own = np.flatnonzero(~coupled)
        self.highs: Any = None
        self.program: SparseProgram | None = None
        if len(own):
            lengths = np.diff(program.row_start)[own]
            keep = ~coupled[from_row]
            start = np.zeros(len(own) + 1, np.int32)
            np.cumsum(lengths, out=start[1:])
            self.program = SparseProgram(
                self.cost,
                self.lower,
                self.upper,
                np.zeros(len(self.columns), bool),
                program.row_lower[own],
                program.row_upper[own],
                start,
                place[program.row_columns[keep]].astype(np.int32),
                program.row_values[keep],
            )
            self.highs = highs_with(self.program, threads=1)

    def paid(self, energy: Array, reserve: Array) -> float:
        """What demand and the required reserve pay at prices, EUR."""
        return float((energy * self.demand).sum()) + float(reserve @ self.requirement)

    def answer(self, energy: Array, reserve: Array) -> tuple[float, Array, Array]:
        """Cost at the prices, and what is supplied (zones, horizon) and held (horizon)."""
        (row, column, value), (held_row, held_column, held_value) = self.supply, self.holding
        cost = self.cost - np.bincount(column, value * energy.ravel()[row], len(self.cost))
        if len(held_row):
            cost = cost - np.bincount(held_column, held_value * reserve[held_row], len(self.cost))
        if self.highs is None:
            chosen = np.where(cost >= 0, self.lower, np.where(np.isfinite(self.upper), self.upper, self.lower))
            total = -np.inf if (~np.isfinite(self.upper) & (cost < -1e-7)).any() else float(cost @ chosen)
        else:
            self.highs.changeColsCost(len(cost), np.arange(len(cost), dtype=np.int32), cost)
            self.highs.run()
            info = self.highs.getInfo()
            solved = info.primal_solution_status == 2 and info.dual_solution_status == 2
            chosen = np.array(self.highs.getSolution().col_value) if solved else np.zeros(len(cost))
            total = info.objective_function_value if solved else -np.inf
        supplied = np.bincount(row, value * chosen[column], energy.size).reshape(energy.shape)
        held = np.bincount(held_row, held_value * chosen[held_column], len(reserve))
        return total, supplied, held
