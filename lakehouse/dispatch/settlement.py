"""What a plan costs once the day is there, and a plan's first part by itself.

Settling keeps what can no longer be changed when the day comes (commitments of slow units, the stores' schedules, shifted load) and
dispatches the rest anew on what came. Prices, demand and weather that came are in the problem; where they come from is not known here.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from datetime import timedelta

import numpy as np
import pandas as pd

from lakehouse.dispatch.fleet import DispatchProblem, Renewable
from lakehouse.dispatch.rolling import MARKET_SERIES, commitments
from lakehouse.dispatch.solution import DispatchSolution
from lakehouse.dispatch.solver import solve


def settle(problem: DispatchProblem, plan: DispatchSolution, *, quick_units: Collection[str] = (), **options: float) -> DispatchSolution:
    """The plan carried out on a day that came differently.

    Args:
        problem: fleet and horizon with the demand, weather and prices that came, in the state in which the plan began.
        plan: what was planned for these intervals.
        quick_units: units that may still be started and stopped on the day.
        options: `gap` and `time_limit_seconds`, as for `solve`.

    Returns:
        The dispatch that follows the plan's commitments, charging, discharging and shifted load. No reserve is required of it: holding
        reserve is what the plan did so that this dispatch may use it. Its `summary["objective_eur"]` is the settled cost, the wear of
        the stores included.
    """
    kept = commitments(problem, plan).copy()
    for i, unit in enumerate(problem.thermal):
        if unit.unit_id in quick_units:
            kept[i] = np.nan
    demand = {zone: np.array(series, float) for zone, series in problem.demand_mw.items()}  # type: ignore[union-attr]
    fixed, wear = [], 0.0
    for store in problem.storages:
        rows = _of(plan.storage, "storage_id", store.storage_id, problem)
        charge, discharge = rows["charge_mw"].to_numpy(), rows["discharge_mw"].to_numpy()
        demand[store.zone] += charge
        fixed.append(Renewable(store.storage_id, discharge, discharge, zone=store.zone))
        wear += store.wear_eur_per_mwh * float((charge + discharge).sum()) * problem.interval_hours
    for load in problem.shiftable:
        demand[load.zone] -= _of(plan.exchange, "source_id", load.load_id, problem)["power_mw"].to_numpy()
    left = replace(
        problem, demand_mw=demand, reserve_mw=0.0, reserve_down_mw=0.0, storages=(), shiftable=(), renewables=[*problem.renewables, *fixed]
    )
    settled = solve(left, kept=kept, threads=1, **options)  # type: ignore[arg-type]
    settled.summary["storage_wear_eur"] = wear
    settled.summary["objective_eur"] += wear
    settled.summary["bound_eur"] += wear
    return settled


def _of(table: pd.DataFrame, key: str, name: str, problem: DispatchProblem) -> pd.DataFrame:
    starts = pd.DatetimeIndex(list(problem.interval_start))
    return table[table[key] == name].set_index("interval_start").sort_index().reindex(starts)


def first_part(problem: DispatchProblem, solution: DispatchSolution, intervals: int) -> tuple[DispatchProblem, DispatchSolution]:
    """A problem and its plan up to an interval: the day without its look-ahead.

    Energy that is asked for by the end of the horizon (a store's final level, a load or contract that reaches further) is no longer asked.
    The objective stays that of the whole.
    """
    if intervals >= problem.horizon:
        return problem, solution
    end = problem.interval_start[intervals - 1] + timedelta(hours=problem.interval_hours)
    share = intervals / problem.horizon
    cut = replace(
        problem,
        interval_start=problem.interval_start[:intervals],
        demand_mw={zone: np.asarray(series)[:intervals] for zone, series in problem.demand_mw.items()},  # type: ignore[union-attr]
        reserve_mw=np.asarray(problem.reserve_mw)[:intervals],
        reserve_down_mw=np.asarray(problem.reserve_down_mw)[:intervals],
        renewables=[
            replace(unit, maximum_mw=np.asarray(unit.maximum_mw)[:intervals], minimum_mw=np.asarray(unit.minimum_mw)[:intervals])
            for unit in problem.renewables
        ],
        storages=[replace(store, inflow_mw=np.asarray(store.inflow_mw)[:intervals], final_mwh=None) for store in problem.storages],
        interruptible=[replace(load, maximum_mw=np.asarray(load.maximum_mw)[:intervals]) for load in problem.interruptible],
        shiftable=[
            load if load.window is not None and load.window[1] <= end else replace(load, energy_mwh=0.0, window=None)
            for load in problem.shiftable
        ],
        contracts=[replace(contract, minimum_energy_mwh=contract.minimum_energy_mwh * share) for contract in problem.contracts],
        market=[
            replace(one, **{name: np.asarray(getattr(one, name))[:intervals] for name in MARKET_SERIES})  # type: ignore[arg-type]
            for one in problem.markets
        ],
    )
    tables = ("plan", "storage", "exchange", "flows", "prices", "violations")
    shown = {name: table[table["period"] <= intervals].reset_index(drop=True) for name in tables for table in [getattr(solution, name)]}
    return cut, replace(solution, **shown, values=np.zeros(0))
