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

RAMPED_AGES = 4
FORBIDDEN = 1e15
THERMAL_VARIABLES = ("u", "v", "w", "p", "r", "rd", "hot", "segment")


@dataclass(frozen=True)
class PricedUnits:
    """What the units' own planning needs, as arrays; powers in MW above minimum, costs in EUR per interval.

    Args:
        zone: number of each unit's zone.
        minimum, cost_at_minimum: of each unit.
        width, slope: cost segments, shape (units, segments).
        caps: highest output by age of a run: its first intervals, full, and the last before a stop; (units, RAMPED_AGES + 2).
        first_cap, first_floor: reach of the run that was going on before the horizon, (units, horizon).
        first_may_stop: where that run may have its last interval, (units, horizon); `may_stop_at_once`: before the horizon.
        may_run, must_run: (units, horizon).
        up_time, down_time: in intervals.
        start_cost: by intervals of rest, (units, longest rest + 1); `first_start_cost` by interval, of a unit off since before.
        was_on: state before the horizon.
        price_rows: rows of balance (zones, horizon) and reserve (horizon or empty) in the programme.
        columns: of the units in the programme.
        price_limits: lowest and highest price of energy, highest of reserve, EUR per MW and interval.
    """

    zone: Array
    minimum: Array
    cost_at_minimum: Array
    width: Array
    slope: Array
    caps: Array
    first_cap: Array
    first_floor: Array
    first_may_stop: Array
    may_stop_at_once: Array
    may_run: Array
    must_run: Array
    up_time: Array
    down_time: Array
    start_cost: Array
    first_start_cost: Array
    was_on: Array
    balance_rows: Array
    reserve_rows: Array
    columns: Array
    price_limits: Array


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
    """The best bound, the prices that prove it, who runs at them, and the mean of who ran on the way, (units, horizon)."""

    bound: float
    energy: Array
    reserve: Array
    committed: Array
    mean_committed: Array


class Prices:
    """Prices of energy by zone and of reserve, and the bound that they prove."""

    def __init__(self, units: PricedUnits, program: SparseProgram) -> None:
        self.units = units
        self.horizon = units.may_run.shape[1]
        self.ages = int(max(units.up_time.max(initial=1), RAMPED_AGES))
        self.below = np.cumsum(units.width, axis=1) - units.width
        level = np.clip(units.caps[:, :, None] - self.below[:, None, :], 0.0, units.width[:, None, :])
        self.reach = level
        first = lambda most: np.clip(most[:, :, None] - self.below[:, None, :], 0.0, units.width[:, None, :])  # noqa: E731
        self.first_floor = first(np.minimum(units.first_floor, units.first_cap))
        self.first_room = first(units.first_cap) - self.first_floor
        self.rest = _Rest(units, program)

    def answer(self, energy: Array, reserve: Array) -> Priced:
        """What everybody does at prices of energy (zones, horizon) and reserve (horizon), EUR per MW and interval."""
        cost, committed, power, held = self._units(energy, reserve)
        other, supplied, others_held = self.rest.answer(energy, reserve)
        by_zone = np.zeros_like(energy)
        np.add.at(by_zone, self.units.zone, power)
        missing = self.rest.demand - by_zone - supplied
        lacking = self.rest.requirement - held - others_held
        bound = cost + other + float((energy * self.rest.demand).sum()) + float(reserve @ self.rest.requirement)
        return Priced(bound, committed, missing, lacking)

    def _stage(self, energy: Array, reserve: Array) -> tuple[Array, ...]:
        """Cost of an interval on by level of the run, and the output with it: (units, horizon, levels); the same for the first run."""
        units = self.units
        price = energy[units.zone]
        marginal = units.slope[:, None, :] - price[:, :, None]
        least = np.minimum(marginal, -reserve[None, :, None])
        sells = (marginal <= -reserve[None, :, None]).astype(float)
        fixed = units.cost_at_minimum[:, None] - price * units.minimum[:, None]
        cost = fixed[:, :, None] + np.matmul(least, self.reach.transpose(0, 2, 1))
        power = np.matmul(sells, self.reach.transpose(0, 2, 1))
        first_cost = fixed + (least * self.first_room).sum(axis=2) + (marginal * self.first_floor).sum(axis=2)
        first_power = (sells * self.first_room).sum(axis=2) + self.first_floor.sum(axis=2)
        return cost, power, first_cost, first_power

    def _units(self, energy: Array, reserve: Array) -> tuple[float, Array, Array, Array]:
        """Each unit's cheapest schedule: total cost, commitments, power and the reserve held, shapes (units, horizon) and (horizon,)."""
        units, horizon, ages = self.units, self.horizon, self.ages
        cost, power, first_cost, first_power = self._stage(energy, reserve)
        count, rests = len(units.minimum), units.start_cost.shape[1] - 1
        level = np.minimum(np.arange(ages), RAMPED_AGES)
        may_stop = np.arange(1, ages + 1)[None, :] >= units.up_time[:, None]
        may_start = np.arange(1, rests + 1)[None, :] >= units.down_time[:, None]
        on, off = np.zeros((count, ages)), np.zeros((count, rests))
        first_on, first_off = np.zeros(count), np.zeros(count)
        stops, starts = np.zeros((horizon, count, ages), bool), np.zeros((horizon, count, rests), bool)
        first_stops, first_starts = np.zeros((horizon, count), bool), np.zeros((horizon, count), bool)
        last_cost = cost[:, :, RAMPED_AGES + 1]
        # from the last interval to the first; on, off, ... hold what is still to come once an interval is over
        for t in range(horizon - 1, -1, -1):
            now = cost[:, t, :][:, level]
            older = np.concatenate([on[:, 1:], on[:, -1:]], axis=1)
            longer = np.concatenate([off[:, 1:], off[:, -1:]], axis=1)
            go_on, go_on_first = now + older, first_cost[:, t] + first_on
            begin = units.start_cost[:, 1:] + on[:, :1]
            begin_first = units.first_start_cost[:, min(t + 1, horizon - 1)] + on[:, 0]
            if t == horizon - 1:
                new_on, new_off, new_first_on, new_first_off = go_on, longer, go_on_first, first_off
            else:
                stop = np.where(may_stop, np.maximum(now, last_cost[:, t, None]) + off[:, :1], FORBIDDEN)
                stops[t] = stop < go_on
                new_on = np.where(stops[t], stop, go_on)
                stop = np.where(units.first_may_stop[:, t], first_cost[:, t] + off[:, 0], FORBIDDEN)
                first_stops[t] = stop < go_on_first
                new_first_on = np.where(first_stops[t], stop, go_on_first)
                start = np.where(may_start, begin, FORBIDDEN)
                starts[t] = start < longer
                new_off = np.where(starts[t], start, longer)
                first_starts[t] = begin_first < first_off
                new_first_off = np.where(first_starts[t], begin_first, first_off)
            never, always = ~units.may_run[:, t], units.must_run[:, t]
            on, off = np.where(never[:, None], FORBIDDEN, new_on), np.where(always[:, None], FORBIDDEN, new_off)
            first_on, first_off = np.where(never, FORBIDDEN, new_first_on), np.where(always, FORBIDDEN, new_first_off)
        at_once = np.where(units.may_stop_at_once, off[:, 0], FORBIDDEN)
        begin = units.first_start_cost[:, 0] + on[:, 0]
        value = np.where(units.was_on, np.minimum(first_on, at_once), np.minimum(first_off, begin))
        if value.max(initial=0.0) > 0.5 * FORBIDDEN:  # a unit without any schedule is for the solver to tell
            return -np.inf, np.zeros((count, horizon)), np.zeros((count, horizon)), np.zeros(horizon)
        # and forward, by the choices made
        unit = np.arange(count)
        # 0: the run from before, 1: a run, 2: a rest, 3: the rest from before
        kind = np.where(units.was_on, np.where(first_on <= at_once, 0, 2), np.where(begin < first_off, 1, 3))
        age, rest = np.zeros(count, int), np.zeros(count, int)
        committed, output, held = np.zeros((count, horizon)), np.zeros((count, horizon)), np.zeros(horizon)
        for t in range(horizon):
            first, runs = kind == 0, (kind == 0) | (kind == 1)
            ends = np.where(first, first_stops[t], (kind == 1) & stops[t, unit, np.minimum(age, ages - 1)])
            begins = np.where(kind == 3, first_starts[t], (kind == 2) & starts[t, unit, np.minimum(rest, rests - 1)])
            at = level[np.minimum(age, ages - 1)]
            at = np.where(ends & (last_cost[:, t] > cost[unit, t, at]), RAMPED_AGES + 1, at)
            above = np.where(first, first_power[:, t], power[unit, t, at])
            most = np.where(first, units.first_cap[:, t], units.caps[unit, at])
            committed[:, t] = runs
            output[:, t] = np.where(runs, above + units.minimum, 0.0)
            held[t] = float((runs * (most - above)).sum()) if reserve[t] > 0 else 0.0
            age, rest = np.where(begins, 0, age + 1), np.where(ends, 0, rest + 1)
            kind = np.where(ends, 2, np.where(begins, 1, kind))
        return float(value.sum()), committed, output, held

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
            return Climbed(-np.inf, best_energy, best_reserve, mean.committed, mean.committed)
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
                *(
                    (1 - share) * getattr(mean, name) + share * getattr(found, name)
                    for name in ("committed", "missing_energy", "missing_reserve")
                ),
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
        return Climbed(bound, best_energy, best_reserve, committed, mean.committed)


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
        if len(own):
            lengths = np.diff(program.row_start)[own]
            keep = ~coupled[from_row]
            start = np.zeros(len(own) + 1, np.int32)
            np.cumsum(lengths, out=start[1:])
            self.highs = highs_with(
                SparseProgram(
                    self.cost,
                    self.lower,
                    self.upper,
                    np.zeros(len(self.columns), bool),
                    program.row_lower[own],
                    program.row_upper[own],
                    start,
                    place[program.row_columns[keep]].astype(np.int32),
                    program.row_values[keep],
                ),
                threads=1,
            )

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
