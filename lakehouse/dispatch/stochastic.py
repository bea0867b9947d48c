"""Two-stage planning: commitments that hold in every scenario, dispatch that follows each, at the least expected cost.

The extensive form of the scenarios' own programmes, in which the commitment columns of slow units are one and the same. Scenarios come
from forecast quantiles with their correlation in time (Gaussian copula, after Pinson et al. 2009). The equations are `formulation`'s.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, fields
from statistics import NormalDist
from typing import Any

import numpy as np

from lakehouse.dispatch.algebra import Array, SparseProgram
from lakehouse.dispatch.fleet import DispatchProblem
from lakehouse.dispatch.formulation import BuiltModel, build
from lakehouse.dispatch.search import SearchTask, race
from lakehouse.dispatch.solution import DispatchSolution
from lakehouse.dispatch.solver import merit_order_plan, solve
from lakehouse.errors import DispatchError

BINARIES = ("u", "v", "w")


@dataclass
class StochasticSolution:
    """Commitments for every case, and what each case then costs.

    Attributes:
        commitment: of the first-stage units, shape (thermal units, horizon); second-stage units are NaN.
        scenarios: the plan of each scenario, with its prices and violations.
        probability: of each scenario.
        summary: expected_cost_eur, bound_eur, gap, first_stage_eur (no-load and starts of first-stage units), recourse_eur (expected rest),
            cost_by_scenario_eur, worst_eur, seconds.
    """

    commitment: Array
    scenarios: list[DispatchSolution]
    probability: Array
    summary: dict[str, Any]


def scenarios_from_quantiles(
    levels: Sequence[float],
    values: Array,
    count: int,
    *,
    correlation_hours: float = 6.0,
    interval_hours: float = 1.0,
    seed: int = 0,
) -> Array:
    """Draws paths whose margins are the forecast's quantiles and whose intervals hang together.

    Args:
        levels: probability levels of the quantiles, rising, each in (0, 1).
        values: quantiles by interval, shape (horizon, levels).
        count: how many paths.
        correlation_hours: time after which the correlation of the errors has fallen to 1/e.
        interval_hours: length of an interval.
        seed: of the random numbers; the same seed gives the same paths.

    Returns:
        Paths of shape (count, horizon); between levels linear, beyond the outermost levels held at them. Paths are drawn in antithetic
        pairs.
    """
    levels_array, values = np.asarray(levels, float), np.sort(np.asarray(values, float), axis=1)
    if (
        values.ndim != 2
        or values.shape[1] != len(levels_array)
        or (np.diff(levels_array) <= 0).any()
        or not ((levels_array > 0) & (levels_array < 1)).all()
    ):
        raise DispatchError(
            f"expected one column of quantiles for each of {len(levels_array)} rising levels in (0, 1), found values of "
            f"shape {values.shape}",
            "Give levels like 0.1, 0.5, 0.9 and one row per interval.",
        )
    draw = np.random.default_rng(seed)
    horizon, pairs = len(values), (count + 1) // 2
    carry = np.exp(-interval_hours / correlation_hours)
    normal = np.empty((pairs, horizon))
    normal[:, 0] = draw.standard_normal(pairs)
    for t in range(1, horizon):
        normal[:, t] = carry * normal[:, t - 1] + np.sqrt(1 - carry**2) * draw.standard_normal(pairs)
    both = np.concatenate([normal, -normal])[:count]
    share = np.vectorize(NormalDist().cdf)(both)
    return np.stack([np.interp(share[:, t], levels_array, values[t]) for t in range(horizon)], axis=1)


def solve_stochastic(
    scenarios: Sequence[DispatchProblem],
    probability: Sequence[float] | None = None,
    *,
    second_stage: Collection[str] = (),
    gap: float = 0.001,
    time_limit_seconds: float = 120.0,
    threads: int = 2,
) -> StochasticSolution:
    """Commits once for all scenarios.

    Args:
        scenarios: the same fleet and horizon with each scenario's demand, forecasts and prices.
        probability: of each; equal where not given.
        second_stage: units whose commitment may follow the scenario (quick starters).
        gap, time_limit_seconds, threads: as for `solve`; the time is for all of it.

    Returns:
        The commitments, each scenario's plan, and the expected cost with its bound.
    """
    begun = time.perf_counter()
    weights = np.full(len(scenarios), 1.0 / max(len(scenarios), 1)) if probability is None else np.asarray(probability, float)
    _check(scenarios, weights, second_stage)
    models = [build(scenario) for scenario in scenarios]
    shared = np.array([unit.unit_id not in second_stage for unit in scenarios[0].thermal], bool)
    program, places = _extensive_form(models, weights, shared)
    offset = float(weights @ [model.offset_eur for model in models])
    deadline = begun + max(0.5 * time_limit_seconds, time_limit_seconds - 1.0 - 0.3 * len(scenarios))
    first = np.stack([places[0][models[0].variables[name]] for name in BINARIES])
    own = [np.stack([places[s][models[s].variables[name]] for name in BINARIES])[:, ~shared] for s in range(1, len(models))]
    task = SearchTask(
        program=program,
        commitment=np.concatenate([first, *own], axis=1),
        slack=np.concatenate([place[model.slack_columns] for place, model in zip(places, models, strict=True)]),
        last_resort=scenarios[0].penalties.last_resort,
        gap=gap,
        seconds=max(0.5, deadline - time.perf_counter()),
        start=np.zeros(0),
    )
    found = race(task, deadline, two_cores=threads > 1)
    plans, commitment = [], np.full(first[0].shape, np.nan)
    for scenario, model, place in zip(scenarios, models, places, strict=True):
        chosen = merit_order_plan(scenario, model) if found.solution is None else np.rint(found.solution[place[model.variables["u"]]])
        commitment[shared] = chosen[shared]
        plans.append(
            solve(scenario, kept=chosen, threads=1, gap=1e-6, time_limit_seconds=max(2.0, begun + time_limit_seconds - time.perf_counter()))
        )
    costs = np.array([plan.summary["objective_eur"] for plan in plans])
    expected = float(weights @ costs)
    bound = min(expected, found.bound + offset)
    first_stage = _first_stage_cost(models[0], plans[0], shared)
    summary = {
        "expected_cost_eur": expected,
        "bound_eur": bound,
        "gap": (expected - bound) / max(abs(expected), 1e-9) if np.isfinite(bound) else np.inf,
        "first_stage_eur": first_stage,
        "recourse_eur": expected - first_stage,
        "cost_by_scenario_eur": costs.tolist(),
        "worst_eur": float(costs.max()),
        "seconds": time.perf_counter() - begun,
    }
    return StochasticSolution(commitment, plans, weights, summary)


def expected_cost_eur(
    commitment: Array, scenarios: Sequence[DispatchProblem], probability: Sequence[float] | None = None, **options: Any
) -> float:
    """What commitments made elsewhere (on the median, on a quantile) cost on average over scenarios; NaN entries stay free."""
    weights = np.full(len(scenarios), 1.0 / len(scenarios)) if probability is None else np.asarray(probability, float)
    return float(sum(w * solve(s, kept=commitment, **options).summary["objective_eur"] for w, s in zip(weights, scenarios, strict=True)))


def _check(scenarios: Sequence[DispatchProblem], weights: Array, second_stage: Collection[str]) -> None:
    if not scenarios or not scenarios[0].thermal:
        raise DispatchError("expected at least one scenario with thermal units, found none", "Give one DispatchProblem per scenario.")
    fleets = {tuple(unit for unit in scenario.thermal) for scenario in scenarios}
    clocks = {scenario.interval_start for scenario in scenarios}
    if len(fleets) > 1 or len(clocks) > 1:
        raise DispatchError(
            "expected the same thermal fleet and intervals in every scenario, found different ones",
            "Let scenarios differ in demand, forecasts and prices only.",
        )
    if len(weights) != len(scenarios) or (weights < 0).any() or abs(weights.sum() - 1.0) > 1e-6:
        raise DispatchError(
            f"expected {len(scenarios)} probabilities that sum to 1, found {weights.tolist()}", "Correct the probabilities."
        )
    unknown = set(second_stage) - {unit.unit_id for unit in scenarios[0].thermal}
    if unknown:
        raise DispatchError(f"expected second-stage units of the fleet, found {', '.join(sorted(unknown))}", "Correct the names.")


def _extensive_form(models: list[BuiltModel], weights: Array, shared: Array) -> tuple[SparseProgram, list[Array]]:
    """One programme from all scenarios; `places[s]` maps a scenario's columns into it."""
    places: list[Array] = []
    n_columns = 0
    for s, model in enumerate(models):
        place = np.full(model.program.n_columns, -1)
        if s > 0:
            for name in BINARIES:
                place[model.variables[name][shared]] = places[0][models[0].variables[name][shared]]
        new = place < 0
        place[new] = n_columns + np.arange(int(new.sum()))
        n_columns += int(new.sum())
        places.append(place)
    merged: dict[str, Array] = {
        "cost": np.zeros(n_columns),
        "lower": np.full(n_columns, -np.inf),
        "upper": np.full(n_columns, np.inf),
        "is_integer": np.zeros(n_columns, bool),
    }
    for weight, model, place in zip(weights, models, places, strict=True):
        np.add.at(merged["cost"], place, weight * model.program.cost)
        np.maximum.at(merged["lower"], place, model.program.lower)
        np.minimum.at(merged["upper"], place, model.program.upper)
        merged["is_integer"][place] |= model.program.is_integer
    rows = [model.program for model in models]
    counts = np.concatenate([np.diff(program.row_start) for program in rows])
    merged["row_start"] = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
    merged["row_columns"] = np.concatenate([place[program.row_columns] for place, program in zip(places, rows, strict=True)]).astype(
        np.int32
    )
    for name in ("row_lower", "row_upper", "row_values"):
        merged[name] = np.concatenate([getattr(program, name) for program in rows])
    return SparseProgram(**{f.name: merged[f.name] for f in fields(SparseProgram)}), places


def _first_stage_cost(model: BuiltModel, plan: DispatchSolution, shared: Array) -> float:
    """No-load and start-up cost of the first-stage units, EUR."""
    total = 0.0
    for name in ("u", "v"):
        columns = model.variables[name][shared]
        total += float((model.program.cost[columns] * plan.values[columns]).sum())
    if "hot" in model.variables:
        owners = _hot_owners(model)
        columns = model.variables["hot"][shared[owners]]
        total += float((model.program.cost[columns] * plan.values[columns]).sum())
    return total


def _hot_owners(model: BuiltModel) -> Array:
    """Unit of each row of `hot`, read back from the rows that tie it to the start variables."""
    columns, start = model.program.row_columns, model.program.row_start
    v = {int(column): unit for unit, row in enumerate(model.variables["v"]) for column in row[:1]}
    owner = {}
    for row in model.rows["one start category"][:, 0]:
        members = columns[start[row] : start[row + 1]]
        unit = next(v[int(c)] for c in members if int(c) in v)
        owner.update({int(c): unit for c in members})
    return np.array([owner[int(row[0])] for row in model.variables["hot"]])
