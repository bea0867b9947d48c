"""Cheapest schedules of units whose ramps bind, on a few output levels of each.

`runs` leaves ramps within a run out, which makes reserve too cheap where ramps limit it. Here a run remembers its last output, on a grid of
the unit's own levels: every schedule found is one that the unit can follow, and a little dearer than the best of all outputs. So these
schedules guide prices and plans; a bound needs `columns.exact_bound`, which gives each unit to the solver.
"""

from __future__ import annotations

import numpy as np

from lakehouse.dispatch.algebra import Array
from lakehouse.dispatch.runs import FORBIDDEN, Runs, Schedules

LEVELS = 10
# Units are handled together with others of like minimum up times.
GROUPS = (2, 4, 8, 15, 24)


def levels_of(span: float, wanted: Array, count: int = LEVELS) -> Array:
    """A grid from 0 to `span` that holds the wanted outputs, as far as there is room, and halves the widest gaps."""
    grid = [0.0, span]
    for level in wanted:
        if len(grid) < count - 2 and 0 < level < span and min(abs(level - g) for g in grid) > 0.4 * span / count:
            grid.append(float(level))
    while len(grid) < count:
        grid.sort()
        gaps = np.diff(grid)
        widest = int(gaps.argmax())
        grid.append(grid[widest] + 0.5 * gaps[widest])
    return np.sort(grid)


class RampedRuns:
    """The schedules of the units whose ramps bind.

    Args:
        runs: all units.
    """

    def __init__(self, runs: Runs) -> None:
        units = runs.units
        span = runs.full
        limited = (units.ramp_up < span - 1e-6) | (units.ramp_down < span - 1e-6)
        able = np.minimum(units.ramp_up, units.ramp_down) >= 0.2 * span
        self.members = np.flatnonzero(limited & able & ~units.trips & (span > 1e-6))
        self.runs = runs
        self.groups = []
        up = np.minimum(units.up_time, runs.horizon)
        below = 0
        for top in (*GROUPS, runs.horizon):
            group = self.members[(up[self.members] > below) & (up[self.members] <= top)]
            below = top
            if len(group):
                self.groups.append(_Group(runs, group))

    def improve(self, found: Schedules, energy: Array, reserve: Array) -> None:
        """Puts schedules that keep ramps in the place of those of `runs`."""
        for group in self.groups:
            own = group.schedules(energy[group.members], reserve)
            able = own.cost < 0.5 * FORBIDDEN  # on its levels a unit may have no schedule at all
            members = group.members[able]
            found.cost[members], found.committed[members] = own.cost[able], own.committed[able]
            found.power[members], found.held[members] = own.power[able], own.held[able]


class _Group:
    """Units of like minimum up times."""

    def __init__(self, runs: Runs, members: Array) -> None:
        units = runs.units
        self.members, self.horizon, self.units = members, runs.horizon, units
        count = len(members)
        self.count = count
        span, up, down = runs.full[members], units.ramp_up[members], units.ramp_down[members]
        start, stop = units.start_cap[members], units.stop_cap[members]
        stop_with_reserve = units.caps[members, -1]
        edges = np.cumsum(units.width[members], axis=1)
        self.level = np.stack([levels_of(span[i], np.concatenate([[stop[i], start[i]], edges[i]])) for i in range(count)])
        below = edges - units.width[members]
        inside = np.clip(self.level[:, :, None] - below[:, None, :], 0.0, units.width[members][:, None, :])
        self.cost = units.cost_at_minimum[members, None] + (inside * units.slope[members][:, None, :]).sum(axis=2)
        step = self.level[:, None, :] - self.level[:, :, None]
        self.room, self.may = _room(step, self.level[:, None, :], span, up, down)
        ends = self.level <= stop[:, None] + 1e-9
        self.last_room = np.minimum(self.room, np.maximum(stop_with_reserve[:, None] - self.level, 0.0)[:, None, :])
        self.may_last = np.where(ends[:, None, :], self.may, FORBIDDEN)
        self.start_room = np.maximum(start[:, None] - self.level, 0.0)
        self.may_start = np.where(self.level <= start[:, None] + 1e-9, 0.0, FORBIDDEN)
        self.start_last_room = np.minimum(self.start_room, np.maximum(stop_with_reserve[:, None] - self.level, 0.0))
        self.may_start_last = np.where(ends, self.may_start, FORBIDDEN)
        before = units.power_before[members]
        first = self.level - before[:, None]
        room, may = _room(first[:, None, :], self.level[:, None, :], span, up, down)
        # a state from before that lies between two levels may always go to the nearest one
        nearest = np.abs(first) <= np.abs(first).min(axis=1, keepdims=True) + 1e-9
        self.first_room, self.may_first = np.maximum(room[:, 0], 0.0), np.where(nearest, 0.0, may[:, 0])
        self.first_last_room = np.minimum(self.first_room, np.maximum(stop_with_reserve[:, None] - self.level, 0.0))
        self.may_first_last = np.where(ends, self.may_first, FORBIDDEN)
        self.up = np.minimum(units.up_time[members], self.horizon)
        self.most = max(int(self.up.max()) - 1, 1)
        self.rest = np.ascontiguousarray(runs.rest[:, members])
        self.first_rest = runs.first_rest[members]
        self.on_before = units.was_on[members]
        self.at_once = units.may_stop_at_once[members]
        self.out = np.where(units.may_run[members], 0.0, FORBIDDEN)

    def schedules(self, energy: Array, reserve: Array) -> Schedules:
        """The cheapest schedules on the levels at prices of energy (units, horizon) and reserve (horizon)."""
        horizon, count, unit = self.horizon, self.count, np.arange(self.count)
        stage = (
            self.cost[:, None, :]
            - energy[:, :, None] * (self.units.minimum[self.members][:, None, None] + self.level[:, None, :])
            + self.out[:, :, None]
        )
        size = self.level.shape[1]
        # ahead[m - 1]: cost from the next interval on, by the level held now, if m more intervals must run
        ahead = np.zeros((count, self.most, size))
        on, off = np.zeros((count, horizon + 1)), np.zeros((count, horizon + 1))
        next_level = np.zeros((horizon, count, self.most, size), np.int8)
        stops = np.zeros((horizon, count, size), bool)
        start_level, start_last = np.zeros((horizon, count), int), np.zeros((horizon, count), bool)
        start_of = np.zeros((horizon, count), int)
        short = self.up <= 1
        for t in range(horizon - 1, -1, -1):
            now, price = stage[:, t], reserve[t]
            after = self._after_start(ahead, unit)
            begin = now - price * self.start_room + self.may_start
            start_level[t] = (begin + after).argmin(axis=1)
            on[:, t] = (begin + after)[unit, start_level[t]]
            if t < horizon - 1 and short.any():
                once = now - price * self.start_last_room + self.may_start_last
                level = once.argmin(axis=1)
                value = np.where(short, once[unit, level] + off[:, t + 1], FORBIDDEN)
                start_last[t] = value < on[:, t]
                start_level[t] = np.where(start_last[t], level, start_level[t])
                on[:, t] = np.minimum(on[:, t], value)
            if t == 0:
                first = (now - price * self.first_room + self.may_first + ahead[:, 0], now - price * self.first_last_room)
            rest = on[:, t + 1 :] + self.rest[t][:, t + 1 :]
            start_of[t] = rest.argmin(axis=1) + t + 1
            off[:, t] = rest.min(axis=1)
            # being on at t after each level before
            step = now[:, None, :] - price * self.room + self.may
            shifted = np.concatenate([ahead[:, :1], ahead[:, :-1]], axis=1)
            total = step[:, None, :, :] + shifted[:, :, None, :]
            choice = total.argmin(axis=3)
            next_level[t] = choice
            ahead = np.take_along_axis(total, choice[..., None], axis=3)[..., 0]
            if t < horizon - 1:
                last = now[:, None, :] - price * self.last_room + self.may_last
                level = last.argmin(axis=2)
                value = np.take_along_axis(last, level[..., None], axis=2)[..., 0] + off[:, t + 1, None]
                stops[t] = value < ahead[:, 0]
                ahead[:, 0] = np.minimum(ahead[:, 0], value)
                next_level[t, :, 0] = np.where(stops[t], level, next_level[t, :, 0])
        return self._followed(energy, reserve, on, off, first, next_level, stops, start_level, start_last, start_of)

    def _after_start(self, ahead: Array, unit: Array) -> Array:
        return ahead[unit, np.maximum(self.up - 2, 0)]

    def _followed(
        self,
        energy: Array,
        reserve: Array,
        on: Array,
        off: Array,
        first: tuple[Array, Array],
        next_level: Array,
        stops: Array,
        start_level: Array,
        start_last: Array,
        start_of: Array,
    ) -> Schedules:
        horizon, count, unit = self.horizon, self.count, np.arange(self.count)
        first_on, first_last = first
        first_last = first_last + self.may_first_last + off[:, 1:2]
        begin_level, end_level = first_on.argmin(axis=1), first_last.argmin(axis=1)
        go_on, end_at = first_on[unit, begin_level], first_last[unit, end_level]
        at_once = np.where(self.at_once, off[:, 0], FORBIDDEN)
        begins = (self.first_rest + on).argmin(axis=1)
        value = np.where(self.on_before, np.minimum(np.minimum(go_on, end_at), at_once), (self.first_rest + on)[unit, begins])
        committed, above, held = np.zeros((count, horizon)), np.zeros((count, horizon)), np.zeros((count, horizon))
        # from: where the next run starts; until then off. must: intervals that must still run
        running, level, must = np.zeros(count, bool), np.zeros(count, int), np.zeros(count, int)
        begins = np.where(self.on_before, np.where((at_once <= go_on) & (at_once <= end_at), start_of[0], horizon), begins)
        from_before = self.on_before & ((go_on < at_once) | (end_at < at_once))
        for t in range(horizon):
            starts = ~running & (begins == t)
            runs = running | starts
            room = np.zeros(count)
            chosen, stop = level.copy(), np.zeros(count, bool)
            if t == 0:
                stop = from_before & (end_at < go_on)
                chosen = np.where(from_before, np.where(stop, end_level, begin_level), chosen)
                room = np.where(stop, self.first_last_room[unit, chosen], self.first_room[unit, chosen])
                runs = runs | from_before
                must = np.where(from_before, 1, must)
            goes = running
            if goes.any():
                slot = np.clip(must, 1, self.most) - 1
                following = next_level[t, unit, slot, level]
                ends = (slot == 0) & stops[t, unit, level]
                room = np.where(goes, np.where(ends, self.last_room[unit, level, following], self.room[unit, level, following]), room)
                chosen, stop = np.where(goes, following, chosen), np.where(goes, ends, stop)
                must = np.where(goes, np.maximum(must - 1, 1), must)
            if starts.any():
                begun = start_level[t]
                room = np.where(starts, np.where(start_last[t], self.start_last_room[unit, begun], self.start_room[unit, begun]), room)
                chosen, stop = np.where(starts, begun, chosen), np.where(starts, start_last[t], stop)
                must = np.where(starts, np.maximum(self.up - 1, 1), must)
            committed[:, t] = runs
            above[:, t] = np.where(runs, self.level[unit, chosen], 0.0)
            held[:, t] = np.where(runs & (reserve[t] > 0), room, 0.0)
            if t + 1 < horizon:
                begins = np.where(stop, start_of[t + 1], begins)
            running, level = runs & ~stop, chosen
        return Schedules(value, committed, committed * self.units.minimum[self.members][:, None] + above, held)


def _room(step: Array, level: Array, span: Array, up: Array, down: Array) -> tuple[Array, Array]:
    """Reserve that a change of output leaves, and 0 or FORBIDDEN for it; shapes of `step`, (units, from, to)."""
    up, down, span = up[:, None, None], down[:, None, None], span[:, None, None]
    room = np.clip(np.minimum(span - level, up - step), 0.0, None)
    return room, np.where((step <= up + 1e-9) & (-step <= down + 1e-9), 0.0, FORBIDDEN)
