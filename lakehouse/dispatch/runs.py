"""Every unit's cheapest schedule at given prices, by dynamic programming over its runs and rests.

A unit's horizon is a chain of runs and rests. What a run costs is the sum over its intervals, but for its first ones and its last, where
start and stop limits hold it back, so the best end of a run takes one look from the interval that it begins in (in the manner of
Frangioni & Gentile 2006, with ramps relaxed elsewhere in a run). `pricing` plays the game of prices with it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lakehouse.dispatch.algebra import Array

RAMPED_AGES = 4
FORBIDDEN = 1e15


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
        was_on, power_before: state before the horizon.
        ramp_up, ramp_down: MW per interval; start_cap, stop_cap: highest output in the first and last interval of a run.
        trips: units that an outage stops before they could ramp down.
        balance_rows, reserve_rows: rows of balance (zones, horizon) and reserve (horizon or empty) in the programme.
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
    power_before: Array
    ramp_up: Array
    ramp_down: Array
    start_cap: Array
    stop_cap: Array
    trips: Array
    balance_rows: Array
    reserve_rows: Array
    columns: Array
    price_limits: Array


@dataclass(frozen=True)
class Schedules:
    """The units' cheapest schedules: the cost of each, EUR; commitments, output and reserve, MW, shape (units, horizon)."""

    cost: Array
    committed: Array
    power: Array
    held: Array


class Runs:
    """The runs and rests that each unit may have, whatever the prices."""

    def __init__(self, units: PricedUnits) -> None:
        self.units = units
        self.count, self.horizon = units.may_run.shape
        real = units.width > 0
        real[:, 0] = True
        self.owner, slot = np.nonzero(real)
        self.first_segment = np.searchsorted(self.owner, np.arange(self.count))
        self.slope, self.width = units.slope[self.owner, slot], units.width[self.owner, slot]
        self.below = (np.cumsum(units.width, axis=1) - units.width)[self.owner, slot]
        self.full = units.caps[:, RAMPED_AGES]
        self.slow = np.flatnonzero((units.caps < self.full[:, None] - 1e-9).any(axis=1))
        self.begun = np.flatnonzero(units.was_on)
        self._allow()

    def _allow(self) -> None:
        """What a rest costs at its end and which runs and rests there may be: 0, a cost or FORBIDDEN, by beginning, unit and end."""
        units, horizon = self.units, self.horizon
        ends = np.arange(horizon + 1)[None, :]
        out, needed = _next(~units.may_run), _next(units.must_run)
        run, rest = (np.full((horizon, self.count, horizon + 1), FORBIDDEN) for _ in range(2))
        longest = units.start_cost.shape[1] - 1
        for begin in range(horizon):
            length = ends - begin
            may = (length >= units.up_time[:, None]) | (ends == horizon)
            run[begin][may & (length > 0) & (out[:, begin, None] >= ends)] = 0.0
            may = (length >= units.down_time[:, None]) | (ends == horizon)
            cost = np.where(ends == horizon, 0.0, units.start_cost[:, np.clip(length[0], 0, longest)])
            rest[begin] = np.where(may & (length > 0) & (needed[:, begin, None] >= ends), cost, FORBIDDEN)
        self.run, self.rest = run, rest
        may = np.concatenate([units.may_stop_at_once[:, None], units.first_may_stop], axis=1)
        may[:, horizon] = True
        self.first_run = np.where(may & (out[:, :1] >= ends), 0.0, FORBIDDEN)[self.begun]
        start = np.concatenate([units.first_start_cost, np.zeros((self.count, 1))], axis=1)
        self.first_rest = np.where(needed[:, :1] >= ends, start, FORBIDDEN)

    def _sum(self, by_segment: Array) -> Array:
        return np.add.reduceat(by_segment, self.first_segment, axis=0)

    def _within(self, cap: Array, members: Array) -> Array:
        """How much of each segment lies below a cap, shape of `cap` over segments."""
        return np.clip(cap - self.below[members, None], 0.0, self.width[members, None])

    def schedules(self, energy: Array, reserve: Array) -> Schedules | None:
        """The units' cheapest schedules; None where a unit has none.

        Args:
            energy: price by unit, (units, horizon), EUR per MW and interval.
            reserve: price, (horizon,).
        """
        units, horizon, count, slow = self.units, self.horizon, self.count, self.slow
        marginal = self.slope[:, None] - energy[self.owner]
        least = np.minimum(marginal, -reserve)
        fixed = units.cost_at_minimum[:, None] - energy * units.minimum[:, None]
        everyone = np.arange(len(self.owner))
        cost = fixed + self._sum(self.width[:, None] * least)
        early, over, last = self._slow_costs(fixed, least, cost)
        first_cap, first_floor = units.first_cap, np.minimum(units.first_floor, units.first_cap)
        floor, cap = self._within(first_floor[self.owner], everyone), self._within(first_cap[self.owner], everyone)
        first_cost = fixed + self._sum((cap - floor) * least + floor * marginal)

        spent = np.concatenate([np.zeros((count, 1)), np.cumsum(cost, axis=1)], axis=1)
        whole_start = np.zeros((count, horizon))
        whole_start[slow] = early[:, :, RAMPED_AGES]
        ending = spent.copy()  # what a run costs up to its end, with what comes after, but for where it began
        ending[slow, 1:horizon] += over[:, : horizon - 1]
        on, off = np.zeros((count, horizon + 1)), np.zeros((count, horizon + 1))
        end_of, start_of = np.zeros((horizon, count), int), np.zeros((horizon, count), int)
        unit = np.arange(count)
        for t in range(horizon - 1, -1, -1):
            run = ending[:, t + 1 :] + self.run[t][:, t + 1 :]
            for length in range(1, min(RAMPED_AGES, horizon - t) + 1):
                run[slow, length - 1] += last[:, t, length - 1]
            end_of[t] = run.argmin(axis=1)
            on[:, t] = run[unit, end_of[t]] - spent[:, t] + whole_start[:, t]
            rest = on[:, t + 1 :] + self.rest[t][:, t + 1 :]
            start_of[t] = rest.argmin(axis=1)
            off[:, t] = rest[unit, start_of[t]]
            ending[:, t] += off[:, t]
            end_of[t] += t + 1
            start_of[t] += t + 1
        self.on, self.off = on, off

        value, first_start = (self.first_rest + on).min(axis=1), (self.first_rest + on).argmin(axis=1)
        first_spent = np.concatenate([np.zeros((count, 1)), np.cumsum(first_cost, axis=1)], axis=1)
        candidates = first_spent[self.begun] + off[self.begun] + self.first_run
        value[self.begun] = candidates.min(axis=1)
        if value.max(initial=0.0) > 0.5 * FORBIDDEN:
            return None
        first_end = np.zeros(count, int)
        first_end[self.begun] = candidates.argmin(axis=1)
        begin, end = self._trace(first_start, first_end, start_of, end_of)
        committed, power, held = self._output(begin, end, marginal, reserve)
        return Schedules(value, committed, power, held)

    def _slow_costs(self, fixed: Array, least: Array, cost: Array) -> tuple[Array, Array, Array]:
        """What the limits of starts and stops add to the cost of a run of the slow units.

        Returns:
            Of its first 0, 1, ... intervals, by the interval it begins in, (slow, horizon, ages + 1); of its last interval, (slow,
            horizon); and what a run of 1, 2, ... intervals adds to its whole start and its last interval, (slow, horizon, ages).
        """
        units, horizon, slow = self.units, self.horizon, self.slow
        members = np.flatnonzero(np.isin(self.owner, slow))
        segments = np.searchsorted(self.owner[members], slow)
        early = np.zeros((len(slow), horizon, RAMPED_AGES + 1))
        last = np.zeros((len(slow), horizon, RAMPED_AGES))
        if not len(slow):
            return early, np.zeros((0, horizon)), last

        def at(level: int) -> Array:
            cap = self._within(units.caps[self.owner[members], level][:, None], members)
            return fixed[slow] + np.add.reduceat(cap * least[members], segments, axis=0) - cost[slow]

        stop = np.maximum(at(RAMPED_AGES + 1), 0.0)
        for age in range(RAMPED_AGES):
            level = at(age)
            there = slice(0, horizon - age)
            early[:, :, age + 1] = early[:, :, age]
            early[:, there, age + 1] += level[:, age:]
            ends = slice(0, horizon - age - 1)  # a run that goes on to the horizon's end does not stop there
            last[:, ends, age] = (np.maximum(stop - level, 0.0) - stop)[:, age : horizon - 1]
        last += early[:, :, 1:] - early[:, :, -1:]
        return early, stop, last

    def _trace(self, first_start: Array, first_end: Array, start_of: Array, end_of: Array) -> tuple[Array, Array]:
        """For each interval the first one of the run that it belongs to and the end of that run; the run from before begins at -1,
        and out of a run both are the horizon's length."""
        horizon, count = self.horizon, self.count
        begin, end = np.full((count, horizon), horizon), np.full((count, horizon), horizon)
        time = np.arange(horizon)[None, :]
        unit = np.arange(count)
        now, until = np.where(self.units.was_on, -1, first_start), np.where(self.units.was_on, first_end, 0)
        while len(unit):
            until = np.where(now >= 0, end_of[np.clip(now, 0, horizon - 1), unit], until)
            within = (time >= now[:, None]) & (time < until[:, None]) & (now[:, None] < horizon)
            begin[unit] = np.where(within, now[:, None], begin[unit])
            end[unit] = np.where(within, until[:, None], end[unit])
            goes_on = (now < horizon) & (until < horizon)
            unit, until = unit[goes_on], until[goes_on]
            now = start_of[until, unit]
        return begin, end

    def _output(self, begin: Array, end: Array, marginal: Array, reserve: Array) -> tuple[Array, Array, Array]:
        """Commitment, output and reserve held by unit and interval."""
        units, horizon = self.units, self.horizon
        committed, first = begin < horizon, begin < 0
        time = np.arange(horizon)[None, :]
        level = np.clip(time - begin, 0, RAMPED_AGES)
        cap = np.take_along_axis(units.caps, level, axis=1)
        stops = (end == time + 1) & (end < horizon)
        cap = np.where(stops, np.minimum(cap, units.caps[:, -1:]), cap)
        cap = np.where(first, units.first_cap, cap) * committed
        floor = np.where(first, np.minimum(units.first_floor, units.first_cap), 0.0)
        everyone = np.arange(len(self.owner))
        low, high = self._within(floor[self.owner], everyone), self._within(cap[self.owner], everyone)
        above = self._sum(np.where(marginal <= -reserve, high, low))
        power = np.where(committed, above + units.minimum[:, None], 0.0)
        held = np.where(reserve > 0, cap - above, 0.0)
        return committed.astype(float), power, held


def _next(mask: Array) -> Array:
    """The first interval from each one on in which a mask is true, its length where there is none; shape of the mask."""
    horizon = mask.shape[1]
    at = np.where(mask, np.arange(horizon)[None, :], horizon)
    return np.minimum.accumulate(at[:, ::-1], axis=1)[:, ::-1]
