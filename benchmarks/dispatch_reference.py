"""The reference that `benchmarks/dispatch.py` compares with: the unit-commitment library's model, in Pyomo, solved by HiGHS.

The model is written from the appendix of Knueven, Ostrowski & Watson, "On Mixed-Integer Programming Formulations for the Unit Commitment
Problem" (2020), which the pglib-uc instances come with: convex-combination cost, one-sided limits, plain ramps, an indicator per start
category, no shortfalls. It reads an instance itself and shares nothing with Gridlake. Needs `pip install pyomo`.
"""

from __future__ import annotations

import json
import time
from pathlib import Path


def pyomo_model(instance: dict):
    """The model of an instance, a dictionary as in its JSON file; costs in the instance's currency, power in MW, periods from 1."""
    from pyomo.environ import Binary, ConcreteModel, Constraint, NonNegativeReals, Objective, UnitInterval, Var

    thermal, renewable = instance["thermal_generators"], instance["renewable_generators"]
    horizon = instance["time_periods"]
    periods = range(1, horizon + 1)
    starts = {g: range(len(unit["startup"])) for g, unit in thermal.items()}
    points = {g: range(len(unit["piecewise_production"])) for g, unit in thermal.items()}
    minimum = {g: unit["power_output_minimum"] for g, unit in thermal.items()}
    span = {g: unit["power_output_maximum"] - unit["power_output_minimum"] for g, unit in thermal.items()}
    curve = {g: [(at["mw"], at["cost"]) for at in unit["piecewise_production"]] for g, unit in thermal.items()}

    m = ConcreteModel()
    m.cost = Var(thermal, periods)
    m.p = Var(thermal, periods, within=NonNegativeReals)
    m.r = Var(thermal, periods, within=NonNegativeReals)
    m.u = Var(thermal, periods, within=Binary)
    m.v = Var(thermal, periods, within=Binary)
    m.w = Var(thermal, periods, within=Binary)
    m.start = Var([(g, s, t) for g in thermal for s in starts[g] for t in periods], within=Binary)
    m.share = Var([(g, k, t) for g in thermal for k in points[g] for t in periods], within=UnitInterval)
    m.free = Var(
        renewable,
        periods,
        bounds=lambda _, g, t: (renewable[g]["power_output_minimum"][t - 1], renewable[g]["power_output_maximum"][t - 1]),
    )
    m.objective = Objective(
        expr=sum(
            m.cost[g, t]
            + curve[g][0][1] * m.u[g, t]
            + sum(at["cost"] * m.start[g, s, t] for s, at in zip(starts[g], unit["startup"], strict=True))
            for g, unit in thermal.items()
            for t in periods
        )
    )
    m.demand = Constraint(
        periods,
        rule=lambda m, t: (
            sum(m.p[g, t] + minimum[g] * m.u[g, t] for g in thermal) + sum(m.free[g, t] for g in renewable) == instance["demand"][t - 1]
        ),
    )
    m.reserve = Constraint(periods, rule=lambda m, t: sum(m.r[g, t] for g in thermal) >= instance["reserves"][t - 1])

    def before(g: str, t: int) -> tuple:
        """On or off, and power above the minimum, in the period before."""
        if t > 1:
            return m.u[g, t - 1], m.p[g, t - 1]
        on = thermal[g]["unit_on_t0"]
        return on, on * (thermal[g]["power_output_t0"] - minimum[g])

    def power_above(g: str, t: int):
        return before(g, t)[1]

    m.logic = Constraint(thermal, periods, rule=lambda m, g, t: m.u[g, t] - before(g, t)[0] == m.v[g, t] - m.w[g, t])
    m.ramp_up = Constraint(thermal, periods, rule=lambda m, g, t: m.p[g, t] + m.r[g, t] - power_above(g, t) <= thermal[g]["ramp_up_limit"])
    m.ramp_down = Constraint(thermal, periods, rule=lambda m, g, t: power_above(g, t) - m.p[g, t] <= thermal[g]["ramp_down_limit"])
    m.one_start = Constraint(thermal, periods, rule=lambda m, g, t: m.v[g, t] == sum(m.start[g, s, t] for s in starts[g]))
    m.power = Constraint(
        thermal, periods, rule=lambda m, g, t: m.p[g, t] == sum((curve[g][k][0] - curve[g][0][0]) * m.share[g, k, t] for k in points[g])
    )
    m.production = Constraint(
        thermal, periods, rule=lambda m, g, t: m.cost[g, t] == sum((curve[g][k][1] - curve[g][0][1]) * m.share[g, k, t] for k in points[g])
    )
    m.shares = Constraint(thermal, periods, rule=lambda m, g, t: m.u[g, t] == sum(m.share[g, k, t] for k in points[g]))

    def over(g: str, limit: str) -> float:
        return max(thermal[g]["power_output_maximum"] - thermal[g][limit], 0)

    m.start_limit = Constraint(
        thermal,
        periods,
        rule=lambda m, g, t: m.p[g, t] + m.r[g, t] <= span[g] * m.u[g, t] - over(g, "ramp_startup_limit") * m.v[g, t],
    )
    m.stop_limit = Constraint(
        thermal,
        periods,
        rule=lambda m, g, t: (
            Constraint.Skip
            if t == horizon
            else m.p[g, t] + m.r[g, t] <= span[g] * m.u[g, t] - over(g, "ramp_shutdown_limit") * m.w[g, t + 1]
        ),
    )
    up = {g: min(unit["time_up_minimum"], horizon) for g, unit in thermal.items()}
    down = {g: min(unit["time_down_minimum"], horizon) for g, unit in thermal.items()}
    m.up_time = Constraint(
        [(g, t) for g in thermal for t in periods if t >= up[g] > 0],
        rule=lambda m, g, t: sum(m.v[g, i] for i in range(t - up[g] + 1, t + 1)) <= m.u[g, t],
    )
    m.down_time = Constraint(
        [(g, t) for g in thermal for t in periods if t >= down[g] > 0],
        rule=lambda m, g, t: sum(m.w[g, i] for i in range(t - down[g] + 1, t + 1)) <= 1 - m.u[g, t],
    )
    lag = {g: [at["lag"] for at in unit["startup"]] for g, unit in thermal.items()}
    m.start_by_rest = Constraint(
        [(g, s, t) for g in thermal for s in starts[g][:-1] for t in periods if t >= lag[g][s + 1]],
        rule=lambda m, g, s, t: m.start[g, s, t] <= sum(m.w[g, t - i] for i in range(lag[g][s], lag[g][s + 1])),
    )
    for g, unit in thermal.items():
        if unit["unit_on_t0"]:
            held, value = unit["time_up_minimum"] - unit["time_up_t0"], 1
            if unit["power_output_t0"] - minimum[g] > span[g] - over(g, "ramp_shutdown_limit"):
                m.w[g, 1].fix(0)
        else:
            held, value = unit["time_down_minimum"] - unit["time_down_t0"], 0
        for t in range(1, min(held, horizon) + 1):
            m.u[g, t].fix(value)
        for s in starts[g][:-1]:
            for t in range(max(1, lag[g][s + 1] - unit["time_down_t0"] + 1), min(lag[g][s + 1] - 1, horizon) + 1):
                m.start[g, s, t].fix(0)
        if unit["must_run"]:
            for t in periods:
                m.u[g, t].setlb(1)
    return m


def solve_reference(path: Path, seconds: float, gap: float) -> dict:
    """Builds and solves an instance.

    Args:
        path: a pglib-uc JSON file.
        seconds: wall time for building and solving.
        gap: relative gap at which to stop.

    Returns:
        objective (None where no plan was found), bound, gap (of the objective), build_seconds (the model, and handing it to HiGHS),
        wall_seconds, status.
    """
    from pyomo.contrib.appsi.solvers.highs import Highs

    begun = time.perf_counter()
    model = pyomo_model(json.loads(path.read_text(encoding="utf-8")))
    solver = Highs()
    solver.set_instance(model)
    built = time.perf_counter() - begun
    solver.config.load_solution = False
    solver.config.time_limit = max(1.0, seconds - built)
    solver.config.mip_gap = gap
    solver.highs_options = {"threads": 2}
    told = solver.solve(model)
    objective, bound = told.best_feasible_objective, told.best_objective_bound
    return {
        "objective": objective,
        "bound": bound,
        "gap": float("inf") if objective is None or bound is None else (objective - bound) / abs(objective),
        "build_seconds": built,
        "wall_seconds": time.perf_counter() - begun,
        "status": str(told.termination_condition),
    }
