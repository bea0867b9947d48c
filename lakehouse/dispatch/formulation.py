"""The equations of a dispatch problem, block by block, over `algebra`'s index arrays.

Three-binary unit commitment (Garver 1962) in the tight form gathered by Knueven, Ostrowski & Watson, "On Mixed-Integer Programming
Formulations for the Unit Commitment Problem", INFORMS J. Computing 32(4), 2020 (KOW below); each block names its own source. Power of a
thermal unit counts above its minimum, `p`, so that u = 0 makes it zero. docs/dispatch.md prints the equations. Nothing is solved here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from lakehouse.dispatch.algebra import Array, Expression, LinearModel, SparseProgram, empty
from lakehouse.dispatch.fleet import DispatchProblem, ThermalUnit
from lakehouse.dispatch.schedules import follow

CAPACITY_ROWS = "enough capacity"
SLACKS = ("unserved", "surplus", "reserve shortfall", "reserve down shortfall", "missing energy", "unserved shiftable")


@dataclass(frozen=True)
class ThermalArrays:
    """The thermal fleet as arrays over units (and cost segments), powers in MW, times in whole intervals."""

    minimum: Array
    span: Array
    cost_at_minimum: Array
    ramp_up: Array
    ramp_down: Array
    start_limit: Array
    stop_limit: Array
    stop_limit_with_reserve: Array
    up_time: Array
    down_time: Array
    was_on: Array
    power_before: Array
    lower: Array
    upper: Array
    earliest_stop: Array
    in_state: Array
    trip_until: Array
    segment_unit: Array
    segment_from: Array
    segment_to: Array
    segment_slope: Array


@dataclass
class BuiltModel:
    """A problem's programme with the names to read its solution by."""

    problem: DispatchProblem
    program: SparseProgram
    variables: dict[str, Array]
    rows: dict[str, Array]
    offset_eur: float
    thermal: ThermalArrays
    renewable_group: Array
    slack_columns: Array
    commitment: Array
    kept: Array | None = None


def whole_intervals(hours: float, interval_hours: float) -> int:
    """The fewest whole intervals that last `hours`."""
    return int(np.ceil(hours / interval_hours - 1e-9))


def outage_mask(unit: ThermalUnit, problem: DispatchProblem) -> Array:
    """True in each interval that touches a planned outage of the unit, shape (horizon,)."""
    mask = np.zeros(problem.horizon, bool)
    if unit.outages:
        seconds = np.array([start.timestamp() for start in problem.interval_start])
        for start, end in unit.outages:
            mask |= (seconds < end.timestamp()) & (seconds + problem.interval_hours * 3600 > start.timestamp())
    return mask


def thermal_arrays(problem: DispatchProblem, kept: Array | None = None) -> ThermalArrays:
    """Turns the thermal fleet into arrays; limits in MW per interval, the effective start and stop limits already within the ramps.

    Args:
        problem: the problem.
        kept: commitments that must stay, shape (units, horizon), NaN where free.
    """
    units, horizon, hours = problem.thermal, problem.horizon, problem.interval_hours

    def column(get: Any) -> Array:
        return np.array([get(unit) for unit in units], float)

    minimum, maximum = column(lambda g: g.minimum_mw), column(lambda g: g.maximum_mw)
    ramp_up, ramp_down = column(lambda g: g.ramp_up_mw_per_hour) * hours, column(lambda g: g.ramp_down_mw_per_hour) * hours
    start_limit = np.minimum(
        column(lambda g: g.maximum_mw if g.startup_limit_mw is None else min(g.startup_limit_mw, g.maximum_mw)), minimum + ramp_up
    )
    stop_limit_with_reserve = np.maximum(
        column(lambda g: g.maximum_mw if g.shutdown_limit_mw is None else min(g.shutdown_limit_mw, g.maximum_mw)), minimum
    )
    stop_limit = np.minimum(stop_limit_with_reserve, minimum + ramp_down)
    start_limit = np.maximum(start_limit, minimum)
    was_on = np.array([g.initially_on for g in units], bool)
    power_before = np.where(was_on, np.clip(column(lambda g: g.initial_power_mw) - minimum, 0.0, maximum - minimum), 0.0)
    co2 = np.array([g.co2_t_per_mwh for g in units]) * problem.co2_price_eur_per_t

    # a minimum time beyond the horizon holds to its end
    up_time = np.array([min(whole_intervals(g.minimum_up_hours, hours), horizon) for g in units], int)
    down_time = np.array([min(whole_intervals(g.minimum_down_hours, hours), horizon) for g in units], int)
    lower, upper = np.zeros((len(units), horizon)), np.ones((len(units), horizon))
    trip_until, earliest_stop, in_state = (np.full(len(units), value) for value in (-1, 0, 0))
    for i, unit in enumerate(units):
        upper[i, outage_mask(unit, problem)] = 0.0
        out = np.flatnonzero(upper[i] == 0)
        first_out = int(out[0]) if len(out) else horizon
        shortest = unit.minimum_up_hours if unit.initially_on else unit.minimum_down_hours
        bound_for = max(0, whole_intervals(shortest - unit.initial_hours_in_state, hours))
        in_state[i] = max(0, (up_time[i] if unit.initially_on else down_time[i]) - bound_for)
        if unit.initially_on:
            lower[i, : min(bound_for, first_out)] = 1.0
            above = power_before[i] - (stop_limit[i] - minimum[i])
            if above > 1e-9:
                earliest_stop[i] = max(1, int(np.ceil(above / max(ramp_down[i], 1e-9) - 1e-9))) if np.isfinite(ramp_down[i]) else 1
            if first_out < earliest_stop[i]:
                trip_until[i] = first_out  # an outage that begins before it could ramp down to its stop limit trips it
        else:
            upper[i, :bound_for] = 0.0
        if unit.must_run:
            always = follow(
                np.ones(horizon),
                was_on=unit.initially_on,
                intervals_in_state=int(in_state[i]),
                up_time=int(up_time[i]),
                down_time=int(down_time[i]),
                available=upper[i] > 0,
            )
            lower[i] = np.maximum(lower[i], always)
    if kept is not None and kept.size:
        lower = np.where(np.isnan(kept), lower, np.maximum(lower, kept))
        upper = np.where(np.isnan(kept), upper, np.minimum(upper, np.maximum(kept, lower)))
    lower = np.minimum(lower, upper)

    curves = [np.asarray(g.cost_curve, float) for g in units]
    owner = np.repeat(np.arange(len(units)), [len(c) - 1 for c in curves])
    seg_from = np.concatenate([c[:-1, 0] for c in curves]) if units else np.zeros(0)
    seg_to = np.concatenate([c[1:, 0] for c in curves]) if units else np.zeros(0)
    slope = np.concatenate([np.diff(c[:, 1]) / np.diff(c[:, 0]) for c in curves]) if units else np.zeros(0)
    return ThermalArrays(
        minimum=minimum,
        span=maximum - minimum,
        cost_at_minimum=(np.array([c[0, 1] for c in curves]) + co2 * minimum) * hours,
        ramp_up=ramp_up,
        ramp_down=ramp_down,
        start_limit=start_limit,
        stop_limit=stop_limit,
        stop_limit_with_reserve=stop_limit_with_reserve,
        up_time=up_time,
        down_time=down_time,
        was_on=was_on,
        power_before=power_before,
        lower=lower,
        upper=upper,
        earliest_stop=earliest_stop,
        in_state=in_state,
        trip_until=trip_until,
        segment_unit=owner,
        segment_from=seg_from,
        segment_to=seg_to,
        segment_slope=(slope + co2[owner]) * hours,
    )


def build(problem: DispatchProblem, *, exclusive_storage: bool = False, kept: Array | None = None) -> BuiltModel:
    """Writes a problem's equations down.

    Args:
        problem: the fleet and its horizon.
        exclusive_storage: forbids charging while discharging in every interval, not only where burning energy could pay.
        kept: commitments that must stay, shape (thermal units, horizon), NaN where free.

    Returns:
        The programme (cost in EUR, powers in MW), its names, and the constant part of the cost.
    """
    return _Writer(problem, exclusive_storage, kept).write()


class _Writer:
    """Writes one problem; a method per room of the model, each adding to the balance, the reserve and the cost."""

    def __init__(self, problem: DispatchProblem, exclusive_storage: bool, kept: Array | None) -> None:
        self.problem = problem
        self.kept = kept
        self.exclusive_storage = exclusive_storage
        self.model = LinearModel()
        self.hours = problem.interval_hours
        self.horizon = problem.horizon
        self.offset = 0.0
        self.zone_number = {zone: i for i, zone in enumerate(problem.zones)}
        self.supply: list[Expression] = []
        self.reserve_up: list[Expression] = []
        self.reserve_down: list[Expression] = []
        self.wants_up = bool((problem.reserve_mw > 0).any())  # type: ignore[union-attr,operator]
        self.wants_down = bool((problem.reserve_down_mw > 0).any())  # type: ignore[union-attr,operator]
        self.renewable_group = np.zeros(len(problem.renewables), int)
        self.capacity: Expression | None = None  # most that the committed thermal units could give, (horizon,)

    def write(self) -> BuiltModel:
        data = thermal_arrays(self.problem, self.kept)
        if self.problem.thermal:
            self._thermal(data)
        thermal_supply, thermal_reserve = len(self.supply), len(self.reserve_up)
        self._renewables()
        self._storages()
        self._loads_and_contracts()
        self._markets()
        without_lines = len(self.supply)
        self._lines()
        self._system()
        if self.capacity is not None:
            self._enough_capacity(self.capacity, self.supply[thermal_supply:without_lines], self.reserve_up[thermal_reserve:])
        names = self.model.variables
        slack = [names[name].ravel() for name in SLACKS if name in names]
        return BuiltModel(
            self.problem,
            self.model.program(),
            names,
            self.model.rows,
            self.offset,
            data,
            self.renewable_group,
            np.concatenate(slack),
            names.get("u", np.zeros((0, self.horizon), int)),
            self.kept,
        )

    def _by_zone(self, block: Expression, members: Any) -> Expression:
        return block.sum_by(np.array([self.zone_number[member.zone] for member in members], int), len(self.zone_number))

    # ------------------------------------------------------------------ thermal units

    def _thermal(self, data: ThermalArrays) -> None:
        model, shape = self.model, (len(self.problem.thermal), self.horizon)
        stop_upper = np.ones(shape)
        stop_upper[(data.earliest_stop > 0) & (data.upper[:, 0] > 0), 0] = 0.0
        u = model.variable(
            "u", shape, lower=data.lower, upper=data.upper, cost=np.repeat(data.cost_at_minimum[:, None], self.horizon, 1), integer=True
        )
        v = model.variable("v", shape, upper=1.0, cost=self._cold_start_cost()[:, None], integer=True)
        w = model.variable("w", shape, upper=stop_upper, integer=True)
        segments = np.bincount(data.segment_unit, minlength=len(data.minimum))
        slope = np.zeros(len(data.minimum))
        slope[data.segment_unit] = data.segment_slope
        p = model.variable("p", shape, upper=data.span[:, None], cost=np.where(segments == 1, slope, 0.0)[:, None])
        most_reserve = np.array([np.inf if g.maximum_reserve_mw is None else g.maximum_reserve_mw for g in self.problem.thermal])
        r = model.variable("r", shape, upper=np.minimum(data.span, most_reserve)[:, None]) if self.wants_up else empty(shape)
        rd = model.variable("rd", shape, upper=data.span[:, None]) if self.wants_down else empty(shape)

        # logic of the three binaries (Garver 1962; KOW sec. 3.1)
        model.subject_to("commitment logic", (u - u.earlier(before=data.was_on.astype(float))).equals(v - w))
        self._minimum_times(data, u, v, w)
        self._generation_limits(data, u, v, w, p + r)
        self._ramps(data, u, v, w, p, r, rd)
        if self.wants_down:
            model.subject_to("downward reserve within output", rd <= p)
        self._production_cost(data, u, v, w, p)
        self._start_costs(v, w)

        self.capacity = ((data.minimum + data.span)[:, None] * u).sum()
        self.supply.append(self._by_zone(p + data.minimum[:, None] * u, self.problem.thermal))
        self.reserve_up.append(r.sum())
        self.reserve_down.append(rd.sum())

    def _minimum_times(self, data: ThermalArrays, u: Expression, v: Expression, w: Expression) -> None:
        """Minimum up and down time (Rajan & Takriti 2005): facets of the three-binary polytope."""
        for length in np.unique(data.up_time[data.up_time >= 1]):
            units = np.flatnonzero(data.up_time == length)
            self.model.subject_to(f"minimum up time {length}", v[units].trailing(0, int(length)) <= u[units])
        for length in np.unique(data.down_time[data.down_time >= 1]):
            units = np.flatnonzero(data.down_time == length)
            self.model.subject_to(f"minimum down time {length}", w[units].trailing(0, int(length)) <= 1.0 - u[units])
        for name, times, change, state in (("up", data.up_time, v, u), ("down", data.down_time, w, 1.0 - u)):
            units = np.flatnonzero(times < 1)
            if len(units):
                self.model.subject_to(f"minimum {name} time 0", change[units] <= state[units])

    def _cut_below(self, limit: Array, step: Array, ceiling: Array, width: Array, depth: Array) -> Array:
        """How much of a band of `width` MW below `ceiling` is out of reach i intervals from a start or stop: (bands, depth)."""
        i = np.arange(int(depth.max(initial=0)) + 1)[None, :]
        with np.errstate(invalid="ignore"):
            reach = limit[:, None] + np.where(i == 0, 0.0, i * step[:, None])
        cut = np.clip(ceiling[:, None] - reach, 0.0, width[:, None])
        return np.where(i <= depth[:, None], cut, 0.0)

    def _limit_rows(
        self,
        name: str,
        data: ThermalArrays,
        owner: Array,
        band: tuple[Array, Array],
        stop_limit: Array,
        amount: Expression,
        binaries: tuple[Expression, Expression, Expression],
    ) -> None:
        """amount <= width*u, less what a recent start or a coming stop puts out of reach.

        Start trajectories after Pan & Guan (2016), single-interval start and stop cuts after Morales-España et al. (2013), the two-row
        form for a minimum up time of one after Gentile et al. (2017); all in KOW. With a minimum up time L, at most one of
        v[t-L+2..t], w[t+1] can be 1, so all their cuts fit into one row.

        Args:
            name: of the rows.
            data: the fleet.
            owner: unit of each band, shape (bands,).
            band: upper end and width of each band, MW.
            stop_limit: highest amount in the last interval of a run, by unit, MW.
            amount: what is limited, shape (bands, horizon).
            binaries: u, v and w.
        """
        (ceiling, width), (u, v, w) = band, binaries
        up_time = data.up_time[owner]
        stop_next = w[owner].later()
        stop_cut = np.repeat(np.clip(ceiling - stop_limit[owner], 0.0, width)[:, None], self.horizon, 1)
        stop_cut[np.arange(self.horizon)[None, :] + 1 <= data.trip_until[owner][:, None]] = 0.0
        long = np.flatnonzero(up_time >= 2)
        if len(long):
            cut = self._cut_below(data.start_limit[owner[long]], data.ramp_up[owner[long]], ceiling[long], width[long], up_time[long] - 2)
            depth = int(np.flatnonzero((cut > 0).any(axis=0)).max(initial=0)) + 1
            starts = v[owner[long]].trailing(0, depth)
            started = Expression(starts.columns, cut[:, None, : starts.columns.shape[-1]])
            self.model.subject_to(name, amount[long] + started + stop_cut[long] * stop_next[long] <= width[long, None] * u[owner[long]])
        short = np.flatnonzero(up_time < 2)
        if len(short):
            a = np.clip(ceiling - data.start_limit[owner], 0.0, width)[short, None]
            b = stop_cut[short]
            rows, vs, ws, us = amount[short], v[owner[short]], stop_next[short], u[owner[short]]
            self.model.subject_to(f"{name}, start", rows + a * vs + np.maximum(b - a, 0) * ws <= width[short, None] * us)
            differs = ((a > 0) | (b > 0)) & np.ones_like(b, bool)
            self.model.subject_to(f"{name}, stop", rows + np.maximum(a - b, 0) * vs + b * ws <= width[short, None] * us, where=differs)

    def _generation_limits(self, data: ThermalArrays, u: Expression, v: Expression, w: Expression, held: Expression) -> None:
        """Output above minimum plus reserve within the unit's range."""
        everyone = np.arange(len(data.minimum))
        band = (data.minimum + data.span, data.span)
        self._limit_rows("output limit", data, everyone, band, data.stop_limit_with_reserve, held, (u, v, w))

    def _ramps(
        self, data: ThermalArrays, u: Expression, v: Expression, w: Expression, p: Expression, r: Expression, rd: Expression
    ) -> None:
        """Ramps with start and stop limits (Damcı-Kurt et al. 2016), written only where they can bind."""
        before = p.earlier(before=data.power_before)
        up = np.flatnonzero(data.ramp_up < data.span)
        if len(up):
            start_room = np.minimum(data.start_limit - data.minimum - data.ramp_up, 0.0)
            self.model.subject_to("ramp up", ((p + r)[up] - before[up]) <= data.ramp_up[up, None] * u[up] + start_room[up, None] * v[up])
        down = np.flatnonzero(data.ramp_down < data.span)
        if len(down):
            stop_room = np.minimum(data.stop_limit - data.minimum - data.ramp_down, 0.0)
            was_on = u.earlier(before=data.was_on.astype(float))
            after_trip = np.arange(self.horizon)[None, :] > data.trip_until[down, None]
            self.model.subject_to(
                "ramp down",
                (before[down] - p[down] + rd[down]) <= data.ramp_down[down, None] * was_on[down] + stop_room[down, None] * w[down],
                where=after_trip,
            )

    def _production_cost(self, data: ThermalArrays, u: Expression, v: Expression, w: Expression, p: Expression) -> None:
        """Convex piecewise cost by segments, each tied to the commitment and cut by starts and stops (KOW sec. 3.4).

        A unit with a single segment has its cost on `p` itself.
        """
        several = np.bincount(data.segment_unit, minlength=len(data.minimum)) > 1
        rows = np.flatnonzero(several[data.segment_unit])
        if not len(rows):
            return
        owner, top = data.segment_unit[rows], data.segment_to[rows]
        width = top - data.segment_from[rows]
        s = self.model.variable("segment", (len(rows), self.horizon), upper=width[:, None], cost=data.segment_slope[rows, None])
        self.model.subject_to("output is the sum of its segments", s.sum_by(owner, len(several))[several].equals(p[several]))
        self._limit_rows("segment limit", data, owner, (top, width), data.stop_limit, s, (u, v, w))

    def _cold_start_cost(self) -> Array:
        return np.array([unit.startup_costs[-1][1] if unit.startup_costs else 0.0 for unit in self.problem.thermal])

    def _start_costs(self, v: Expression, w: Expression) -> None:
        """Start-up cost by true time off: `v` pays the cold start, `hot` gives the difference back where a stop is recent enough.

        After the indicator form of Morales-España et al. (2013), with the stops before the horizon counted from the initial state and
        without its chance to overcharge a second start within the horizon.
        """
        unit_of, discount, first, last, since = [], [], [], [], []
        for i, unit in enumerate(self.problem.thermal):
            lags = [max(1, whole_intervals(hours, self.hours)) for hours, _ in unit.startup_costs]
            if lags:
                lags[0] = 1
            for k in range(len(lags) - 1):
                if lags[k] < lags[k + 1] and unit.startup_costs[k][1] < unit.startup_costs[-1][1]:
                    unit_of.append(i)
                    discount.append(unit.startup_costs[k][1] - unit.startup_costs[-1][1])
                    first.append(lags[k])
                    last.append(lags[k + 1])
                    since.append(-1 if unit.initially_on else int(np.floor(unit.initial_hours_in_state / self.hours + 1e-9)))
        if not unit_of:
            return
        owner, lag_from, lag_to, off_before = np.array(unit_of), np.array(first), np.array(last), np.array(since)
        hot = self.model.variable("hot", (len(owner), self.horizon), upper=1.0, cost=np.array(discount)[:, None])
        owners, owner_slot = np.unique(owner, return_inverse=True)
        self.model.subject_to("one start category", hot.sum_by(owner_slot, len(owners)) <= v[owners])
        time_off = off_before[:, None] + np.arange(self.horizon)[None, :]
        from_before = ((off_before[:, None] >= 0) & (time_off >= lag_from[:, None]) & (time_off < lag_to[:, None])).astype(float)
        for a, b in sorted(set(zip(first, last, strict=True))):
            rows = np.flatnonzero((lag_from == a) & (lag_to == b))
            self.model.subject_to(f"time off {a} to {b}", hot[rows] <= w[owner[rows]].trailing(a, b) + from_before[rows])

    # ------------------------------------------------------------------ everything else

    def _renewables(self) -> None:
        """Renewables of one zone and cost share a column per interval; the plan is spread over them afterwards."""
        units = self.problem.renewables
        if not units:
            return
        keys = [(unit.zone, unit.cost_eur_per_mwh) for unit in units]
        groups = sorted(set(keys))
        self.renewable_group = np.array([groups.index(key) for key in keys])
        lower, upper = np.zeros((len(groups), self.horizon)), np.zeros((len(groups), self.horizon))
        np.add.at(lower, self.renewable_group, np.stack([np.asarray(unit.minimum_mw) for unit in units]))
        np.add.at(upper, self.renewable_group, np.stack([np.asarray(unit.maximum_mw) for unit in units]))
        curtail = self.problem.penalties.curtailment_eur_per_mwh
        price = np.array([cost for _, cost in groups])
        p = self.model.variable("renewable", lower.shape, lower=lower, upper=upper, cost=((price - curtail) * self.hours)[:, None])
        self.offset += curtail * self.hours * float(upper.sum())
        self.supply.append(p.sum_by(np.array([self.zone_number[zone] for zone, _ in groups]), len(self.zone_number)))

    def _burning_could_pay(self) -> Array:
        """Intervals in which a negative price could reward charging and discharging at once, shape (horizon,)."""
        problem = self.problem
        pays = np.full(self.horizon, self.exclusive_storage or problem.penalties.curtailment_eur_per_mwh > 0)
        for market in problem.markets:
            pays |= np.asarray(market.import_price_eur_per_mwh) < 0
        for unit in problem.renewables:
            if unit.cost_eur_per_mwh < 0:
                pays |= True
        return pays

    def _storages(self) -> None:
        stores = self.problem.storages
        if not stores:
            return

        def column(get: Any) -> Array:
            return np.array([get(store) for store in stores], float)[:, None]

        shape, model, hours = (len(stores), self.horizon), self.model, self.hours
        charge_mw, discharge_mw = column(lambda s: s.charge_mw), column(lambda s: s.discharge_mw)
        wear = column(lambda s: s.wear_eur_per_mwh) * hours
        lowest, highest = column(lambda s: s.minimum_mwh), column(lambda s: s.energy_mwh)
        into, out_of = column(lambda s: s.charge_efficiency), column(lambda s: s.discharge_efficiency)
        # What is stored at the end is worth its difference to what was there, told by the flows that make it: the objective then
        # holds what the plan changes, and a relative gap means something however full a reservoir is.
        worth = column(lambda s: s.final_value_eur_per_mwh)
        floor = np.repeat(lowest, self.horizon, 1)
        floor[:, -1] = [max(s.minimum_mwh, s.minimum_mwh if s.final_mwh is None else s.final_mwh) for s in stores]
        penalty = self.problem.penalties.state_of_charge_eur_per_mwh
        c = model.variable("charge", shape, upper=charge_mw, cost=wear - worth * hours * into)
        d = model.variable("discharge", shape, upper=discharge_mw, cost=wear + worth * hours / out_of)
        e = model.variable("state of charge", shape, lower=floor, upper=highest)
        missing = model.variable("missing energy", shape, cost=penalty - worth)
        spill = model.variable("spill", shape, upper=column(lambda s: np.inf if s.can_spill else 0.0), cost=worth * hours)
        inflow = np.stack([np.asarray(s.inflow_mw) for s in stores])
        self.offset -= float((worth * hours * inflow).sum())
        before = e.earlier(before=np.array([s.initial_mwh for s in stores]))
        model.subject_to("state of charge", (e - before).equals(hours * (into * c - (1.0 / out_of) * d - spill + inflow) + missing))

        both = (charge_mw > 0) & (discharge_mw > 0)
        matters = both & self._burning_could_pay()[None, :]
        rows = np.flatnonzero(matters.any(axis=1))
        if len(rows):
            m = model.variable("charging", (len(rows), self.horizon), upper=1.0, integer=matters[rows])
            model.subject_to("charges only in charging mode", c[rows] <= charge_mw[rows] * m, where=matters[rows])
            model.subject_to("discharges only otherwise", d[rows] <= discharge_mw[rows] * (1.0 - m), where=matters[rows])
        release = column(lambda s: s.minimum_release_mw)
        needs = np.flatnonzero(release[:, 0] > 0)
        if len(needs):
            short = model.variable("release shortfall", (len(needs), self.horizon), cost=penalty * hours)
            model.subject_to("minimum release", d[needs] + spill[needs] + short >= release[needs])

        helpers = np.flatnonzero([s.provides_reserve for s in stores])
        if self.wants_up and len(helpers):
            ru = model.variable("storage reserve", (len(helpers), self.horizon))
            sustain = column(lambda s: s.reserve_hours)[helpers]
            model.subject_to("storage reserve within power", ru <= discharge_mw[helpers] - d[helpers] + c[helpers])
            model.subject_to("storage reserve within energy", (sustain / out_of[helpers]) * ru <= e[helpers] - lowest[helpers])
            self.reserve_up.append(ru.sum())
        if self.wants_down and len(helpers):
            rd = model.variable("storage reserve down", (len(helpers), self.horizon))
            sustain = column(lambda s: s.reserve_hours)[helpers]
            model.subject_to("storage downward reserve within power", rd <= charge_mw[helpers] - c[helpers] + d[helpers])
            model.subject_to("storage downward reserve within room", (sustain * into[helpers]) * rd <= highest[helpers] - e[helpers])
            self.reserve_down.append(rd.sum())
        self.supply.append(self._by_zone(d - c, stores))

    def _loads_and_contracts(self) -> None:
        problem, model, hours = self.problem, self.model, self.hours
        if problem.shiftable:
            upper = np.zeros((len(problem.shiftable), self.horizon))
            for i, load in enumerate(problem.shiftable):
                upper[i, problem.window_of(load)] = load.maximum_mw
            x = model.variable("shiftable", upper.shape, upper=upper)
            missing = model.variable("unserved shiftable", (len(problem.shiftable),), cost=problem.penalties.unserved_eur_per_mwh)
            need = np.array([load.energy_mwh for load in problem.shiftable])
            model.subject_to("energy of shiftable loads", ((x.sum(axis=1) * hours) + missing).equals(need))
            self.supply.append(self._by_zone(-x, problem.shiftable))
            helpers = np.flatnonzero([load.provides_reserve for load in problem.shiftable])
            if self.wants_up and len(helpers):
                r = model.variable("shiftable reserve", (len(helpers), self.horizon))
                model.subject_to("shiftable reserve within running power", r <= x[helpers])
                self.reserve_up.append(r.sum())
        if problem.interruptible:
            most = np.stack([np.asarray(load.maximum_mw) for load in problem.interruptible])
            price = np.array([load.price_eur_per_mwh for load in problem.interruptible]) * hours
            cut = model.variable("interrupted", most.shape, upper=most, cost=price[:, None])
            budget = np.array([np.inf if load.maximum_energy_mwh is None else load.maximum_energy_mwh for load in problem.interruptible])
            limited = np.flatnonzero(np.isfinite(budget))
            if len(limited):
                model.subject_to("energy of interruptible loads", cut[limited].sum(axis=1) * hours <= budget[limited])
            self.supply.append(self._by_zone(cut, problem.interruptible))
            helpers = np.flatnonzero([load.provides_reserve for load in problem.interruptible])
            if self.wants_up and len(helpers):
                r = model.variable("interruptible reserve", (len(helpers), self.horizon))
                model.subject_to("interruptible reserve within what is left", r <= most[helpers] - cut[helpers])
                self.reserve_up.append(r.sum())
        if problem.contracts:
            most_mw = np.array([contract.maximum_mw for contract in problem.contracts])
            price = np.array([contract.price_eur_per_mwh for contract in problem.contracts])
            agreed = np.array([contract.minimum_energy_mwh for contract in problem.contracts])
            take = model.variable("contract", (len(price), self.horizon), upper=most_mw[:, None], cost=(price * hours)[:, None])
            unused = model.variable("paid but not taken", (len(price),), cost=price)
            model.subject_to("take or pay", take.sum(axis=1) * hours + unused >= agreed)
            self.supply.append(self._by_zone(take, problem.contracts))

    def _markets(self) -> None:
        markets = self.problem.markets
        if not markets:
            return
        stack = lambda name: np.stack([np.asarray(getattr(market, name)) for market in markets])  # noqa: E731
        bought = self.model.variable(
            "import", (len(markets), self.horizon), upper=stack("import_limit_mw"), cost=stack("import_price_eur_per_mwh") * self.hours
        )
        sold = self.model.variable(
            "export", (len(markets), self.horizon), upper=stack("export_limit_mw"), cost=-stack("export_price_eur_per_mwh") * self.hours
        )
        self.supply.append(self._by_zone(bought - sold, markets))

    def _lines(self) -> None:
        lines = self.problem.lines
        if not lines:
            return
        forward = np.array([line.forward_mw for line in lines])[:, None]
        backward = np.array([line.limit_backward_mw for line in lines])[:, None]
        flow = self.model.variable("flow", (len(lines), self.horizon), lower=-backward, upper=forward)
        start = np.array([self.zone_number[line.from_zone] for line in lines])
        end = np.array([self.zone_number[line.to_zone] for line in lines])
        self.supply.append(flow.sum_by(end, len(self.zone_number)) - flow.sum_by(start, len(self.zone_number)))
        physical = np.flatnonzero([line.reactance_pu is not None for line in lines])
        if len(physical):
            # DC power flow on a 100 MVA base: angles in radians, the first zone is the reference
            most = np.full((len(self.zone_number), self.horizon), np.inf)
            most[0] = 0.0
            angle = self.model.variable("angle", most.shape, lower=-most, upper=most)
            susceptance = np.array([100.0 / (line.reactance_pu or np.inf) for line in lines])[physical, None]
            self.model.subject_to("DC flow", flow[physical].equals(susceptance * (angle[start[physical]] - angle[end[physical]])))

    def _system(self) -> None:
        """Balance of each zone and the reserves, with what can't be met at its price."""
        problem, model, penalties = self.problem, self.model, self.problem.penalties
        shape = (len(problem.zones), self.horizon)
        demand = np.stack([np.asarray(problem.demand_mw[zone]) for zone in problem.zones])  # type: ignore[index,call-overload]
        unserved = model.variable("unserved", shape, upper=demand, cost=penalties.unserved_eur_per_mwh * self.hours)
        surplus = model.variable("surplus", shape, cost=penalties.surplus_eur_per_mwh * self.hours)
        total = unserved - surplus
        for part in self.supply:
            total = total + part
        model.subject_to("balance", total.equals(demand))
        for wanted, name, required, offers, price in (
            (self.wants_up, "reserve", np.asarray(problem.reserve_mw), self.reserve_up, penalties.reserve_shortfall_eur_per_mwh),
            (
                self.wants_down,
                "reserve down",
                np.asarray(problem.reserve_down_mw),
                self.reserve_down,
                penalties.reserve_down_shortfall_eur_per_mwh,
            ),
        ):
            if wanted:
                short = model.variable(f"{name} shortfall", (self.horizon,), upper=required, cost=price * self.hours)
                held = short
                for part in offers:
                    held = held + part
                model.subject_to(name, held >= required)

    def _enough_capacity(self, capacity: Expression, supply: list[Expression], reserve: list[Expression]) -> None:
        """What is committed, stored and bought covers demand and reserve together, in all zones (what flows between them cancels).

        Follows from balance, reserve and output limits, and cuts nothing off the relaxation; but as one row over the commitments it is
        the knapsack from which the solver takes its cover and rounding cuts (Crowder, Johnson & Padberg 1983), which it can't find
        across the rows of all units. It holds no price: `solver` leaves it out where commitments are fixed.
        """
        problem, names = self.problem, self.model.variables
        cover = capacity + Expression(names["unserved"][..., None]).sum()
        for part in supply:
            cover = cover + part.sum()
        need = np.asarray(problem.total_demand_mw)
        if self.wants_up:
            need = need + np.asarray(problem.reserve_mw)
            cover = cover + Expression(names["reserve shortfall"][..., None])
            for part in reserve:
                cover = cover + part
        self.model.subject_to(CAPACITY_ROWS, cover >= need)
