"""Commitments without optimisation: schedules that keep minimum times, outages and initial states, and a merit order that uses them.

They bound what a must-run unit can do, and stand in where no better plan was found in time. Costs and networks are not looked at here.
"""

from __future__ import annotations

import numpy as np

from lakehouse.dispatch.algebra import Array
from lakehouse.dispatch.fleet import DispatchProblem


def follow(
    wanted: Array, *, was_on: bool, intervals_in_state: int, up_time: int, down_time: int, available: Array, earliest_stop: int = 0
) -> Array:
    """The schedule nearest to a wish that a unit can follow.

    Args:
        wanted: where it should run, shape (horizon,).
        was_on, intervals_in_state: state just before the horizon, and how long it has lasted.
        up_time, down_time: shortest run and rest in intervals.
        available: false in planned outages; an outage always stops the unit.
        earliest_stop: first interval in which it may be off, given its initial output and ramp.

    Returns:
        1 where it runs. It stops only for a rest that is long enough and starts only if no outage cuts the run short.
    """
    horizon = len(wanted)
    on, lasted = was_on, intervals_in_state
    schedule = np.zeros(horizon)
    for t in range(horizon):
        if not available[t]:
            stays = False
        elif on:
            ahead = wanted[t : t + max(down_time, 1)]
            stays = bool(lasted < up_time or t < earliest_stop or ahead.any())
        else:
            stays = bool(wanted[t] and lasted >= down_time and available[t : t + max(up_time, 1)].all())
        lasted = lasted + 1 if stays == on else 1
        on = stays
        schedule[t] = on
    return schedule


def merit_order(problem: DispatchProblem) -> Array:
    """Wishes by merit order: in each interval the cheapest units whose capacity covers demand and reserve less what is free.

    Returns:
        Shape (thermal units, horizon), true where a unit is wanted; 5 % of spare capacity included.
    """
    units = problem.thermal
    need = 1.05 * problem.total_demand_mw + np.asarray(problem.reserve_mw)
    for renewable in problem.renewables:
        need = need - np.asarray(renewable.maximum_mw)
    cost = [unit.cost_curve[-1][1] / max(unit.maximum_mw, 1e-9) + unit.co2_t_per_mwh * problem.co2_price_eur_per_t for unit in units]
    wanted = np.zeros((len(units), problem.horizon), bool)
    covered = sum((unit.minimum_mw for unit in units if unit.must_run), 0.0) * np.ones(problem.horizon)
    for i in np.argsort(cost, kind="stable"):
        wanted[i] = covered < need
        covered = covered + np.where(wanted[i], units[i].maximum_mw, 0.0)
    return wanted
