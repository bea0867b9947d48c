"""From a problem to a plan: build, search on one or two cores within the time given, fix the commitments, price, and tell the cost.

There is always a plan: what can't be met is met by a shortfall at its price, and where time runs out before any plan was found,
units are committed by merit order. The equations live in `formulation`, the searches in `search`.
"""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from typing import Any

import numpy as np

from lakehouse.dispatch.algebra import Array, highs_with
from lakehouse.dispatch.fleet import DispatchProblem
from lakehouse.dispatch.formulation import CAPACITY_ROWS, BuiltModel, build, outage_mask
from lakehouse.dispatch.pricing import Prices, priced_units
from lakehouse.dispatch.schedules import follow, merit_order
from lakehouse.dispatch.search import SLACK_TOLERANCE, VERY_LARGE_COLUMNS, Race, SearchTask, race
from lakehouse.dispatch.solution import DispatchSolution, read_solution
from lakehouse.errors import DispatchError

SIMULTANEOUS_MW = 1e-4
# Below this size the fine grid's own relaxation is solved in seconds.
SKETCH_FROM_COLUMNS = 40_000
# Seconds kept for the last linear programme and the tables, per nonzero of the programme (measured: 0.2 s at 2e5, 3 s at 2e6).
SECONDS_TO_FINISH_PER_NONZERO = 1.6e-6


def solve(
    problem: DispatchProblem,
    *,
    gap: float = 0.001,
    time_limit_seconds: float = 60.0,
    threads: int = 2,
    start: Array | None = None,
    kept: Array | None = None,
) -> DispatchSolution:
    """Plans a day (or any horizon).

    Args:
        problem: the fleet and its horizon.
        gap: relative gap between cost and proved bound that is good enough.
        time_limit_seconds: wall time of the whole call, building included.
        threads: 2 lets a neighbourhood search run beside the search for the bound; 1 runs the bound alone.
        start: commitments to begin from, shape (thermal units, horizon), e.g. the last plan's.
        kept: commitments that must stay, same shape: 0, 1, or NaN where free. States and outages that forbid one win.

    Returns:
        The plan with its cost, bound, prices and violations. `summary["status"]` is "optimal" (gap reached), "time_limit", or
        "merit_order" (no plan found in time: units are committed by merit order, or by prices where that is cheaper).
    """
    begun = time.perf_counter()
    built = build(problem, kept=kept)
    built_at = time.perf_counter()
    to_finish = 0.3 + SECONDS_TO_FINISH_PER_NONZERO * len(built.program.row_values)
    deadline = begun + max(0.5 * time_limit_seconds, time_limit_seconds - to_finish)
    task = SearchTask(
        program=built.program,
        commitment=np.stack([built.variables[name] for name in ("u", "v", "w")])
        if built.commitment.size
        else np.zeros((3, 0, problem.horizon), int),
        slack=built.slack_columns,
        last_resort=problem.penalties.last_resort,
        gap=gap,
        seconds=max(0.2, deadline - time.perf_counter()),
        start=_start_values(built, start),
    )
    if built.commitment.size and len(built.program.cost) > SKETCH_FROM_COLUMNS:
        task = replace(task, units=priced_units(built))
        if threads > 1:
            task = _with_sketch(task, problem, kept)
    found = race(task, deadline, two_cores=threads > 1 and len(problem.thermal) > 0)
    status = "merit_order" if found.solution is None else "optimal" if found.gap <= gap * (1 + 1e-9) else "time_limit"
    if problem.thermal and (found.solution is None or not np.isfinite(found.bound)):
        _at_short_notice(built, found, min(2.0, 0.1 * time_limit_seconds))
    if found.solution is None:
        found.solution = _with_commitment(built, merit_order_plan(problem, built))
    values, prices = _finish(built, found.solution)
    built, values, prices = _separate_charging(built, values, prices, begun + time_limit_seconds)
    objective = float(built.program.cost @ values) + built.offset_eur
    bound = min(found.bound + built.offset_eur, objective)
    facts = {
        "bound_eur": bound,
        "gap": max(0.0, objective - bound) / max(abs(objective), 1e-9) if np.isfinite(bound) else np.inf,
        "status": status,
        "build_seconds": built_at - begun,
        "solve_seconds": time.perf_counter() - built_at,
        "peak_mb": _own_peak_mb() + found.peak_mb,
        "found_by": found.found_by,
    }
    return read_solution(built, values, prices, facts)


def _with_sketch(task: SearchTask, problem: DispatchProblem, kept: Array | None) -> SearchTask:
    """Adds the hourly version of a problem in finer intervals."""
    together = round(1.0 / problem.interval_hours)
    if together < 2 or kept is not None or problem.horizon % together:
        return task
    coarse = build(coarser(problem, together))
    return replace(task, sketch=coarse.program, sketch_commitment=np.repeat(coarse.commitment, together, axis=1))


def coarser(problem: DispatchProblem, together: int) -> DispatchProblem:
    """The same problem with every `together` intervals averaged into one.

    Units' limits are given per hour and minimum times round up, so its commitments, repeated, keep the rules of the fine grid.
    """

    def mean(series: object) -> Array:
        return np.asarray(series, float).reshape(-1, together).mean(axis=1)

    return replace(
        problem,
        interval_start=problem.interval_start[::together],
        interval_hours=problem.interval_hours * together,
        demand_mw={zone: mean(series) for zone, series in problem.demand_mw.items()},  # type: ignore[union-attr]
        reserve_mw=mean(problem.reserve_mw),
        reserve_down_mw=mean(problem.reserve_down_mw),
        renewables=[replace(unit, maximum_mw=mean(unit.maximum_mw), minimum_mw=mean(unit.minimum_mw)) for unit in problem.renewables],
        storages=[replace(store, inflow_mw=mean(store.inflow_mw)) for store in problem.storages],
        interruptible=[replace(load, maximum_mw=mean(load.maximum_mw)) for load in problem.interruptible],
        shiftable=[replace(load, energy_mwh=0.0) for load in problem.shiftable],
        market=[
            replace(
                market,
                import_price_eur_per_mwh=mean(market.import_price_eur_per_mwh),
                export_price_eur_per_mwh=mean(market.export_price_eur_per_mwh),
                import_limit_mw=mean(market.import_limit_mw),
                export_limit_mw=mean(market.export_limit_mw),
            )
            for market in problem.markets
        ],
    )


def _at_short_notice(built: BuiltModel, found: Race, seconds: float) -> None:
    """A bound by prices where time brought none, and without a plan the cheaper one of merit order and what these prices commit."""
    prices = Prices(priced_units(built), built.program)
    climbed = prices.climb(seconds, prices.merit_order(), lambda bound: None, lambda: found.objective)
    found.bound = max(found.bound, climbed.bound)
    if found.solution is not None:
        return
    columns = integers_of(built, commitments_only=True)
    wishes = [merit_order(built.problem)]
    if built.program.n_columns <= VERY_LARGE_COLUMNS:  # there is time for one dispatch only
        wishes.append(climbed.committed)
    for wish in wishes:
        solved = _fixed(built, _with_commitment(built, followed(built.problem, built, wish)), columns)
        if solved is not None and (cost := float(built.program.cost @ solved[0])) < found.objective:
            found.objective, found.solution = cost, solved[0]


def merit_order_plan(problem: DispatchProblem, built: BuiltModel) -> Array:
    """Commitments by merit order that always respect times and outages: the plan of last resort, and within a few percent of a good one."""
    return followed(problem, built, merit_order(problem))


def followed(problem: DispatchProblem, built: BuiltModel, wish: Array) -> Array:
    """The schedules nearest to a wish that keep states, times, outages and kept commitments; shape (thermal units, horizon)."""
    data = built.thermal
    wanted = ((wish > 0.5) | (data.lower > 0)) & (data.upper > 0)
    plan = (
        [
            follow(
                wanted[i],
                was_on=bool(data.was_on[i]),
                intervals_in_state=int(data.in_state[i]),
                up_time=int(data.up_time[i]),
                down_time=int(data.down_time[i]),
                available=outage_free,
                earliest_stop=int(data.earliest_stop[i]),
            )
            for i, outage_free in enumerate(~np.stack([outage_mask(unit, problem) for unit in problem.thermal]))
        ]
        if problem.thermal
        else []
    )
    return np.stack(plan) if plan else np.zeros((0, problem.horizon))


def _with_commitment(built: BuiltModel, commitment: Array) -> Array:
    """A solution vector whose commitment, start and stop columns follow the plan; other columns are to be solved for."""
    values = np.clip(0.0, built.program.lower, built.program.upper)
    if commitment.size:
        before = np.concatenate([built.thermal.was_on.astype(float)[:, None], commitment[:, :-1]], axis=1)
        values[built.variables["u"]] = commitment
        values[built.variables["v"]] = np.maximum(commitment - before, 0)
        values[built.variables["w"]] = np.maximum(before - commitment, 0)
    return values


def _start_values(built: BuiltModel, commitment: Array | None) -> Array:
    """A full plan from commitments to begin with; empty where they can't be kept."""
    if commitment is None or not built.commitment.size:
        return np.zeros(0)
    if commitment.shape != built.commitment.shape:
        raise DispatchError(
            f"expected starting commitments of shape {built.commitment.shape} (units, intervals), found {commitment.shape}",
            "Give the last plan's commitments for the same fleet and horizon.",
        )
    # The last plan may ask for what an outage or an actual state forbids by now.
    possible = followed(built.problem, built, commitment)
    solved = _fixed(built, _with_commitment(built, possible), integers_of(built, commitments_only=True))
    return np.zeros(0) if solved is None else solved[0]


def integers_of(built: BuiltModel, commitments_only: bool = False) -> Array:
    """Columns of the integer variables, or only of u, v and w."""
    if not commitments_only:
        return np.flatnonzero(built.program.is_integer)
    return np.concatenate([built.variables[name].ravel() for name in ("u", "v", "w") if name in built.variables] or [np.zeros(0, int)])


def _fixed(built: BuiltModel, values: Array, columns: Array, no_slack: bool = False, seconds: float = 1e9) -> tuple[Array, Array] | None:
    """Solves with some columns held; returns values and row duals, or None."""
    program = built.program
    lower, upper = program.lower.copy(), program.upper.copy()
    lower[columns] = upper[columns] = np.rint(values[columns])
    if no_slack:
        upper[built.slack_columns] = 0.0
    integer = program.is_integer.copy()
    integer[columns] = False
    row_lower = program.row_lower.copy()
    if CAPACITY_ROWS in built.rows:
        row_lower[built.rows[CAPACITY_ROWS]] = -np.inf  # so that balance and reserve alone carry the prices
    held = replace(program, lower=lower, upper=upper, is_integer=integer, row_lower=row_lower)
    highs = highs_with(held, threads=1, time_limit=max(0.5, seconds), mip_rel_gap=1e-6)
    highs.run()
    if highs.getInfo().primal_solution_status != 2:
        return None
    solution = highs.getSolution()
    solved = np.array(solution.col_value)
    solved[columns] = lower[columns]
    return solved, np.array(solution.row_dual)


def _finish(built: BuiltModel, values: Array) -> tuple[Array, dict[str, Array]]:
    """The dispatch with integers fixed: exact powers, and the duals that price energy and reserve."""
    integers = integers_of(built)
    clean = built.problem.penalties.last_resort and values[built.slack_columns].max(initial=0.0) <= SLACK_TOLERANCE
    solved = (_fixed(built, values, integers, no_slack=True) if clean else None) or _fixed(built, values, integers)
    if solved is None and not built.problem.thermal:
        raise DispatchError(
            "expected a dispatch without thermal units to be solvable, found none", "Please report this problem with its data."
        )
    if solved is None:
        solved = values, np.zeros(built.program.n_rows)
    return solved[0], _prices(built, solved[1])


def _prices(built: BuiltModel, duals: Array) -> dict[str, Array]:
    horizon = built.problem.horizon
    empty = np.zeros(horizon)
    named = {name: duals[built.rows[name]] if name in built.rows else empty for name in ("reserve", "reserve down")}
    return {"balance": duals[built.rows["balance"]], **named}


def _separate_charging(
    built: BuiltModel, values: Array, prices: dict[str, Array], deadline: float
) -> tuple[BuiltModel, Array, dict[str, Array]]:
    """Forbids charging while discharging everywhere if the plan used it to burn energy, with the commitments kept."""
    if not built.problem.storages:
        return built, values, prices
    both = np.minimum(values[built.variables["charge"]], values[built.variables["discharge"]])
    if both.max(initial=0.0) <= SIMULTANEOUS_MW:
        return built, values, prices
    strict = build(built.problem, exclusive_storage=True, kept=built.kept)
    commitment = np.rint(values[built.commitment]) if built.commitment.size else np.zeros((0, built.problem.horizon))
    solved = _fixed(
        strict, _with_commitment(strict, commitment), integers_of(strict, commitments_only=True), seconds=deadline - time.perf_counter()
    )
    if solved is None:
        return built, values, prices
    return (strict, *_finish(strict, solved[0]))


def _own_peak_mb() -> float:
    try:
        import resource
    except ImportError:  # not on Windows
        return 0.0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1024 if sys.platform != "darwin" else peak / 1024**2


def summary_line(solution: DispatchSolution) -> dict[str, Any]:
    """The few numbers that tell a solve: objective, bound, gap, build_seconds, solve_seconds, peak_mb, status."""
    s = solution.summary
    return {
        "objective": s["objective_eur"],
        "bound": s["bound_eur"],
        "gap": s["gap"],
        "build_seconds": s["build_seconds"],
        "solve_seconds": s["solve_seconds"],
        "peak_mb": s["peak_mb"],
        "status": s["status"],
    }
