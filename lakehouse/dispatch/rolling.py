"""Planning again during the day: from the actual state, with the commitments kept that can no longer change.

The plan itself comes from `solver`; here lives what is carried from one plan to the next.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import numpy as np

from lakehouse.dispatch.algebra import Array
from lakehouse.dispatch.fleet import DispatchProblem, Storage, ThermalUnit
from lakehouse.dispatch.solution import DispatchSolution
from lakehouse.dispatch.solver import solve
from lakehouse.errors import DispatchError

if TYPE_CHECKING:
    import pandas as pd

# For what a plan does not cover, so many days before are asked, the nearest first.
MOST_DAYS_EARLIER = 3


def commitments(problem: DispatchProblem, last: DispatchSolution) -> Array:
    """The last plan's commitments on the problem's units and intervals: 0, 1, or NaN where the last plan says nothing."""
    return _committed(problem, last.plan)


def _committed(problem: DispatchProblem, plan: pd.DataFrame, days_earlier: int = 0) -> Array:
    table = plan[plan["unit_kind"] == "thermal"].pivot(index="unit_id", columns="interval_start", values="committed")
    units = [unit.unit_id for unit in problem.thermal]
    back = np.timedelta64(24 * days_earlier, "h")
    moments = [np.datetime64(start.replace(tzinfo=None), "us") - back for start in problem.interval_start]
    table.columns = [np.datetime64(column.tz_localize(None), "us") for column in table.columns]
    return table.astype(float).reindex(index=units, columns=moments).to_numpy()


def start_from(problem: DispatchProblem, plan: pd.DataFrame) -> Array | None:
    """Commitments to begin a search from, by the plan of the day before: where it ends, those of the same time on its last day.

    Args:
        problem: the new problem.
        plan: `unit_id`, `unit_kind`, `interval_start`, `committed` of the last plan.

    Returns:
        As `solve` takes them, (units, horizon); None where there is nothing to begin from. Units that are new keep their state.
    """
    if not problem.thermal or plan.empty:
        return None
    known = _committed(problem, plan)
    for days in range(1, MOST_DAYS_EARLIER + 1):
        if not np.isnan(known).any():
            break
        known = np.where(np.isnan(known), _committed(problem, plan, days), known)
    return None if np.isnan(known).all() else _as_long_as_known(known, problem)


def _as_long_as_known(known: Array, problem: DispatchProblem) -> Array:
    """Commitments with each gap filled by the state before it."""
    first = known.copy()
    state = np.array([float(unit.initially_on) for unit in problem.thermal])
    for t in range(first.shape[1]):
        first[:, t] = state = np.where(np.isnan(first[:, t]), state, first[:, t])
    return first


def state_after(problem: DispatchProblem, solution: DispatchSolution, intervals: int) -> tuple[list[ThermalUnit], list[Storage]]:
    """The fleet as the plan leaves it after a number of intervals: what the next problem begins with.

    Args:
        problem: the planned problem.
        solution: its plan.
        intervals: how many intervals have passed, 1 to the horizon.

    Returns:
        Thermal units and storages with their initial state replaced, inflows cut to the rest of the horizon.
    """
    if not 1 <= intervals <= problem.horizon:
        raise DispatchError(f"expected 1 to {problem.horizon} passed intervals, found {intervals}", "Roll within the planned horizon.")
    units = []
    plan = {name: rows.sort_values("period") for name, rows in solution.plan.groupby("unit_id")}
    for unit in problem.thermal:
        rows = plan[unit.unit_id].iloc[:intervals]
        on = rows["committed"].to_numpy() > 0
        differs = np.flatnonzero(on != on[-1])
        same = intervals - 1 - int(differs[-1]) if len(differs) else intervals
        before = unit.initial_hours_in_state if not len(differs) and bool(on[-1]) == unit.initially_on else 0.0
        power = float(np.clip(rows["power_mw"].iloc[-1], unit.minimum_mw, unit.maximum_mw)) if on[-1] else 0.0
        units.append(
            replace(unit, initially_on=bool(on[-1]), initial_power_mw=power, initial_hours_in_state=same * problem.interval_hours + before)
        )
    stores = []
    levels = {name: rows.sort_values("period") for name, rows in solution.storage.groupby("storage_id")}
    for store in problem.storages:
        level = float(levels[store.storage_id]["state_of_charge_mwh"].iloc[intervals - 1])
        inflow = np.asarray(store.inflow_mw)[intervals:]
        stores.append(replace(store, initial_mwh=float(np.clip(level, store.minimum_mwh, store.energy_mwh)), inflow_mw=inflow))
    return units, stores


def remaining(
    problem: DispatchProblem,
    intervals: int,
    thermal: Sequence[ThermalUnit] | None = None,
    storages: Sequence[Storage] | None = None,
    passed_mwh: Mapping[str, float] | None = None,
) -> DispatchProblem:
    """The problem of what is left after a number of intervals.

    Args:
        problem: the whole horizon.
        intervals: how many have passed.
        thermal, storages: the fleet in its state then, as `state_after` gives it; only the state is taken from it, so that outages and
            limits may be newer than the plan.
        passed_mwh: energy that flexible loads and contracts have had in those intervals, by name.
    """
    had = passed_mwh or {}
    on = {unit.unit_id: unit for unit in thermal or ()}
    level = {store.storage_id: store.initial_mwh for store in storages or ()}
    start = problem.interval_start[intervals]

    def rest(series: object) -> Array:
        return np.asarray(series, float)[intervals:]

    def in_state(unit: ThermalUnit) -> ThermalUnit:
        now = on.get(unit.unit_id)
        if now is None:
            return unit
        power = min(max(now.initial_power_mw, unit.minimum_mw), unit.maximum_mw) if now.initially_on else 0.0
        return replace(unit, initially_on=now.initially_on, initial_power_mw=power, initial_hours_in_state=now.initial_hours_in_state)

    return replace(
        problem,
        interval_start=problem.interval_start[intervals:],
        demand_mw={zone: rest(series) for zone, series in problem.demand_mw.items()},  # type: ignore[union-attr]
        reserve_mw=rest(problem.reserve_mw),
        reserve_down_mw=rest(problem.reserve_down_mw),
        thermal=[in_state(unit) for unit in problem.thermal],
        renewables=[replace(unit, maximum_mw=rest(unit.maximum_mw), minimum_mw=rest(unit.minimum_mw)) for unit in problem.renewables],
        storages=[
            replace(
                store,
                initial_mwh=min(max(level.get(store.storage_id, store.initial_mwh), store.minimum_mwh), store.energy_mwh),
                inflow_mw=rest(store.inflow_mw),
            )
            for store in problem.storages
        ],
        interruptible=[
            replace(
                load,
                maximum_mw=rest(load.maximum_mw),
                maximum_energy_mwh=None
                if load.maximum_energy_mwh is None
                else max(load.maximum_energy_mwh - had.get(load.load_id, 0.0), 0.0),
            )
            for load in problem.interruptible
        ],
        shiftable=[
            replace(
                load,
                energy_mwh=max(load.energy_mwh - had.get(load.load_id, 0.0), 0.0),
                window=None if load.window is None else (max(load.window[0], start), max(load.window[1], start)),
            )
            for load in problem.shiftable
        ],
        contracts=[
            replace(one, minimum_energy_mwh=max(one.minimum_energy_mwh - had.get(one.contract_id, 0.0), 0.0)) for one in problem.contracts
        ],
        market=[replace(one, **{name: rest(getattr(one, name)) for name in MARKET_SERIES}) for one in problem.markets],  # type: ignore[arg-type]
    )


MARKET_SERIES = ("import_price_eur_per_mwh", "export_price_eur_per_mwh", "import_limit_mw", "export_limit_mw")


def replan(
    problem: DispatchProblem,
    last: DispatchSolution,
    *,
    notice_hours: float | Mapping[str, float] = 0.0,
    **options: Any,
) -> DispatchSolution:
    """Plans again with the last plan's commitments kept where it is too late to change them.

    Args:
        problem: the rest of the horizon, with actual states and the newest forecasts.
        last: the plan in force.
        notice_hours: how long before an interval a unit's commitment is final: for all, or by unit (others 0).
        options: as for `solve`.

    Returns:
        The new plan; it begins its search from the last one. A kept commitment that an actual state or an outage forbids gives way.
    """
    known = commitments(problem, last)
    start = problem.interval_start[0]
    kept = np.full(known.shape, np.nan)
    for i, unit in enumerate(problem.thermal):
        notice = notice_hours.get(unit.unit_id, 0.0) if isinstance(notice_hours, Mapping) else notice_hours
        final = np.array([moment < start + timedelta(hours=notice) for moment in problem.interval_start])
        kept[i, final] = known[i, final]
    first = _as_long_as_known(known, problem)  # beyond the last plan, units keep their state
    return solve(problem, kept=kept, start=first if first.size else None, **options)
