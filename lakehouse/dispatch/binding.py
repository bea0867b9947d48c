"""Which constraints bind in a plan, in how many intervals, and what they are worth: the short answer to "what makes this day dear".

Read from the plan's tables; worth follows from the marginal prices, in which commitments are fixed. Single units and intervals are
explained by `reasons`.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd

from lakehouse.dispatch.fleet import DispatchProblem, ThermalUnit
from lakehouse.dispatch.solution import DispatchSolution, market_name

NEAR_MW = 1e-3
WORTH_SHOWING_EUR = 0.005


@dataclass(frozen=True)
class Binding:
    """A constraint that binds.

    Args:
        constraint: its name in the operator's words.
        where: unit, line, storage, grid connection, or system.
        intervals: in how many intervals it binds.
        worth_eur: price times amount, summed over those intervals; 0 where it has no price of its own.
    """

    constraint: str
    where: str
    intervals: int
    worth_eur: float

    def as_dict(self) -> dict[str, Any]:
        """For machines."""
        return asdict(self) | {"worth_eur": round(self.worth_eur, 2)}

    def sentence(self) -> str:
        """For people."""
        worth = f", worth {self.worth_eur:,.0f} EUR" if self.worth_eur >= 0.5 else ""
        return f"{self.constraint} of {self.where} in {self.intervals} interval{'s' * (self.intervals != 1)}{worth}"


def binding_constraints(problem: DispatchProblem, solution: DispatchSolution) -> list[Binding]:
    """Everything that binds: reserve, lines, grid connections, storages and units; dearest first.

    A unit's maximum is worth what it earns above its last MWh's cost, its minimum what it loses on it; both at the plan's prices.
    """
    prices = {zone: rows.sort_values("period") for zone, rows in solution.prices.groupby("zone")}
    energy = {str(zone): rows["energy_eur_per_mwh"].to_numpy() for zone, rows in prices.items()}
    found = [
        *_reserve(problem, next(iter(prices.values()))),
        *_lines(problem, solution, energy),
        *_markets(problem, solution, energy),
        *_storages(problem, solution),
    ]
    plan = {
        str(name): rows.sort_values("period") for name, rows in solution.plan[solution.plan["unit_kind"] == "thermal"].groupby("unit_id")
    }
    for unit in problem.thermal:
        found += _unit(problem, unit, plan[unit.unit_id], energy[unit.zone])
    return sorted((one for one in found if one.intervals), key=lambda one: (-one.worth_eur, -one.intervals, one.constraint, one.where))


def _reserve(problem: DispatchProblem, prices: pd.DataFrame) -> list[Binding]:
    found = []
    for name, column, required in (
        ("upward reserve", "reserve_eur_per_mw_h", problem.reserve_mw),
        ("downward reserve", "reserve_down_eur_per_mw_h", problem.reserve_down_mw),
    ):
        price = np.nan_to_num(prices[column].to_numpy(float))
        short = price > WORTH_SHOWING_EUR
        found.append(Binding(name, "system", int(short.sum()), float(price[short] @ np.asarray(required)[short]) * problem.interval_hours))
    return found


def _lines(problem: DispatchProblem, solution: DispatchSolution, energy: dict[str, np.ndarray]) -> list[Binding]:
    flows = {str(name): rows.sort_values("period") for name, rows in solution.flows.groupby("line_id")} if len(solution.flows) else {}
    found = []
    for line in problem.lines:
        rows = flows[line.line_id]
        difference = np.abs(energy[line.to_zone] - energy[line.from_zone])
        at = rows["is_binding"].to_numpy(bool) & (difference > WORTH_SHOWING_EUR)  # a free transfer may be full for no reason
        rent = difference[at] @ np.abs(rows["flow_mw"].to_numpy()[at])
        found.append(Binding("transfer limit", line.line_id, int(at.sum()), float(rent) * problem.interval_hours))
    return found


def _markets(problem: DispatchProblem, solution: DispatchSolution, energy: dict[str, np.ndarray]) -> list[Binding]:
    found = []
    for n, market in enumerate(problem.markets):
        name = market_name(problem, n)
        for kind, sign, limit, price in (
            ("import", 1.0, market.import_limit_mw, market.import_price_eur_per_mwh),
            ("export", -1.0, market.export_limit_mw, market.export_price_eur_per_mwh),
        ):
            rows = solution.exchange[(solution.exchange["source_id"] == name) & (solution.exchange["source_kind"] == kind)]
            power, most = sign * rows.sort_values("period")["power_mw"].to_numpy(), np.asarray(limit)
            at = (power >= most - NEAR_MW) & (most > NEAR_MW) if len(power) else np.zeros(problem.horizon, bool)
            spread = np.maximum(sign * (energy[market.zone] - np.asarray(price)), 0.0)
            found.append(Binding(f"{kind} limit", name, int(at.sum()), float(spread[at] @ most[at]) * problem.interval_hours))
    return found


def _storages(problem: DispatchProblem, solution: DispatchSolution) -> list[Binding]:
    found = []
    for store in problem.storages:
        level = solution.storage[solution.storage["storage_id"] == store.storage_id]["state_of_charge_mwh"].to_numpy()
        near = max(NEAR_MW, 1e-4 * store.energy_mwh)
        found.append(Binding("storage full", store.storage_id, int((level >= store.energy_mwh - near).sum()), 0.0))
        found.append(Binding("storage at its minimum", store.storage_id, int((level <= store.minimum_mwh + near).sum()), 0.0))
    return found


def _unit(problem: DispatchProblem, unit: ThermalUnit, rows: pd.DataFrame, price: np.ndarray) -> list[Binding]:
    on = rows["committed"].to_numpy(bool)
    power, reserve = rows["power_mw"].to_numpy(), rows["reserve_mw"].to_numpy()
    points = np.asarray(unit.cost_curve, float)
    slopes = np.diff(points[:, 1]) / np.diff(points[:, 0]) if len(points) > 1 else np.zeros(1)
    co2 = unit.co2_t_per_mwh * problem.co2_price_eur_per_t
    hours = problem.interval_hours
    top = on & (power + reserve >= unit.maximum_mw - NEAR_MW) & (unit.maximum_mw > unit.minimum_mw + NEAR_MW)
    earns = np.maximum(price - slopes[-1] - co2, 0.0) * top
    floor = on & (power <= unit.minimum_mw + NEAR_MW) & (price < slopes[0] + co2 - WORTH_SHOWING_EUR)
    loses = np.maximum(slopes[0] + co2 - price, 0.0) * floor
    before = np.concatenate([[unit.initial_power_mw], power[:-1]])
    was_on = np.concatenate([[unit.initially_on], on[:-1]])
    rising = on & was_on & (power + reserve - before >= unit.ramp_up_mw_per_hour * hours - NEAR_MW)
    falling = on & was_on & (before - power >= unit.ramp_down_mw_per_hour * hours - NEAR_MW)
    return [
        Binding("maximum output", unit.unit_id, int((earns > WORTH_SHOWING_EUR).sum()), float(earns @ power) * hours),
        Binding("minimum output", unit.unit_id, int(floor.sum()), float(loses @ power) * hours),
        Binding("ramp up", unit.unit_id, int(rising.sum()), 0.0),
        Binding("ramp down", unit.unit_id, int(falling.sum()), 0.0),
    ]
