"""A plan as tables: who runs when, what is stored, exchanged and priced, what could not be met, and what it all costs.

Reads the values of a `BuiltModel` back into the operator's names; nothing is optimised or judged here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from lakehouse.dispatch.algebra import Array
from lakehouse.dispatch.fleet import DispatchProblem
from lakehouse.dispatch.formulation import BuiltModel

VIOLATION_TOLERANCE = 1e-4


@dataclass
class DispatchSolution:
    """A plan and what is known about it. Every table has `interval_start` (UTC) and `period` (from 1).

    Attributes:
        plan: unit_id, unit_kind (thermal, renewable), committed, started, stopped (0/1), power_mw, reserve_mw, reserve_down_mw,
            available_mw.
        storage: storage_id, charge_mw, discharge_mw, state_of_charge_mwh (at the end of the interval), reserve_mw, reserve_down_mw,
            spill_mw.
        exchange: source_id, source_kind (import, export, contract, interrupted, shiftable), power_mw (positive feeds the system),
            reserve_mw.
        flows: line_id, flow_mw, limit_mw, is_binding.
        prices: zone, energy_eur_per_mwh, reserve_eur_per_mw_h, reserve_down_eur_per_mw_h: duals with commitments fixed.
        violations: kind, where, amount, unit, cost_eur, reason: what could not be met.
        summary: objective_eur, cost parts, bound, gap, seconds, status, peak_mb.
    """

    plan: pd.DataFrame
    storage: pd.DataFrame
    exchange: pd.DataFrame
    flows: pd.DataFrame
    prices: pd.DataFrame
    violations: pd.DataFrame
    summary: dict[str, Any]
    values: Array = field(repr=False, default_factory=lambda: np.zeros(0))


class _Values:
    """A solution vector, read by variable name; absent variables are zero."""

    def __init__(self, built: BuiltModel, values: Array) -> None:
        self.built, self.values = built, values

    def __call__(self, name: str, shape: tuple[int, ...]) -> Array:
        columns = self.built.variables.get(name)
        return np.zeros(shape) if columns is None else np.where(np.abs(self.values[columns]) < 1e-9, 0.0, self.values[columns])

    def cost(self, *names: str) -> float:
        """Cost in EUR that the named variables carry."""
        found = [self.built.variables[name].ravel() for name in names if name in self.built.variables]
        return float(sum(self.built.program.cost[columns] @ self.values[columns] for columns in found))


def _long(problem: DispatchProblem, name: str, ids: list[str], **columns: Array) -> pd.DataFrame:
    """A long table of (id, interval) rows from arrays of shape (ids, horizon)."""
    starts = pd.DatetimeIndex(list(problem.interval_start)).as_unit("us")
    count, horizon = len(ids), problem.horizon
    table = {
        name: np.repeat(np.array(ids, dtype=object), horizon),
        "interval_start": starts[np.tile(np.arange(horizon), count)],
        "period": np.tile(np.arange(1, horizon + 1, dtype=np.int32), count),
    }
    return pd.DataFrame({**table, **{column: np.asarray(values).reshape(-1) for column, values in columns.items()}})


def spread_renewables(problem: DispatchProblem, group: Array, total: Array) -> Array:
    """Shares a group's power over its units, each between its own limits: shape (units, horizon), MW."""
    if not problem.renewables:
        return np.zeros((0, problem.horizon))
    lower = np.stack([np.asarray(unit.minimum_mw) for unit in problem.renewables])
    upper = np.stack([np.asarray(unit.maximum_mw) for unit in problem.renewables])
    room = np.zeros_like(total)
    base = np.zeros_like(total)
    np.add.at(room, group, upper - lower)
    np.add.at(base, group, lower)
    share = np.divide(total - base, room, out=np.zeros_like(total), where=room > 1e-12)
    return lower + np.clip(share, 0.0, 1.0)[group] * (upper - lower)


def read_solution(built: BuiltModel, values: Array, prices: dict[str, Array], facts: dict[str, Any]) -> DispatchSolution:
    """Turns a solution vector into tables.

    Args:
        built: the model.
        values: value of every column.
        prices: duals by row block, as `solver` found them (EUR per MW and interval).
        facts: bound, seconds, status and the like for the summary.
    """
    problem, hours = built.problem, built.problem.interval_hours
    x = _Values(built, values)
    thermal, horizon = problem.thermal, problem.horizon
    shape = (len(thermal), horizon)
    committed = np.rint(x("u", shape))
    power = np.clip(x("p", shape), 0, None) * (committed > 0) + built.thermal.minimum[:, None] * committed
    upper = np.stack([np.asarray(u.maximum_mw) for u in problem.renewables]) if problem.renewables else np.zeros((0, horizon))
    groups = built.variables.get("renewable", np.zeros((0, horizon)))
    renewable = spread_renewables(problem, built.renewable_group, x("renewable", groups.shape))
    as_flag = lambda array: np.rint(array).astype(np.int8)  # noqa: E731
    plan_thermal = _long(
        problem,
        "unit_id",
        [unit.unit_id for unit in thermal],
        unit_kind=np.full(shape, "thermal", dtype=object),
        committed=as_flag(committed),
        started=as_flag(x("v", shape)),
        stopped=as_flag(x("w", shape)),
        power_mw=power,
        reserve_mw=np.clip(x("r", shape), 0, None),
        reserve_down_mw=np.clip(x("rd", shape), 0, None),
        available_mw=(built.thermal.minimum + built.thermal.span)[:, None] * built.thermal.upper,
    )
    none = np.zeros_like(renewable)
    plan_renewable = _long(
        problem,
        "unit_id",
        [unit.unit_id for unit in problem.renewables],
        unit_kind=np.full(none.shape, "renewable", dtype=object),
        committed=as_flag(none + 1),
        started=as_flag(none),
        stopped=as_flag(none),
        power_mw=renewable,
        reserve_mw=none,
        reserve_down_mw=none,
        available_mw=upper,
    )
    tables = [table for table in (plan_thermal, plan_renewable) if len(table)] or [plan_thermal]
    flows = x("flow", (len(problem.lines), horizon))
    limits = np.array([[line.forward_mw, line.limit_backward_mw] for line in problem.lines]).reshape(-1, 2)
    limit = np.where(flows >= 0, limits[:, :1], limits[:, 1:])
    return DispatchSolution(
        plan=pd.concat(tables, ignore_index=True),
        storage=_storage_table(problem, x),
        exchange=_exchange_table(problem, x),
        flows=_long(
            problem,
            "line_id",
            [line.line_id for line in problem.lines],
            flow_mw=flows,
            limit_mw=limit,
            is_binding=np.abs(flows) >= limit - 1e-6,
        ),
        prices=_long(
            problem,
            "zone",
            list(problem.zones),
            energy_eur_per_mwh=prices["balance"] / hours,
            reserve_eur_per_mw_h=np.tile(prices["reserve"] / hours, (len(problem.zones), 1)),
            reserve_down_eur_per_mw_h=np.tile(prices["reserve down"] / hours, (len(problem.zones), 1)),
        ),
        violations=_violations(built, x),
        summary=_summary(built, x, facts),
        values=values,
    )


def _storage_table(problem: DispatchProblem, x: _Values) -> pd.DataFrame:
    shape = (len(problem.storages), problem.horizon)
    reserve, down = np.zeros(shape), np.zeros(shape)
    helpers = [i for i, store in enumerate(problem.storages) if store.provides_reserve]
    reserve[helpers] = x("storage reserve", (len(helpers), problem.horizon))
    down[helpers] = x("storage reserve down", (len(helpers), problem.horizon))
    return _long(
        problem,
        "storage_id",
        [store.storage_id for store in problem.storages],
        charge_mw=x("charge", shape),
        discharge_mw=x("discharge", shape),
        state_of_charge_mwh=x("state of charge", shape),
        reserve_mw=reserve,
        reserve_down_mw=down,
        spill_mw=x("spill", shape),
    )


def market_name(problem: DispatchProblem, number: int) -> str:
    """What a grid connection is called in tables."""
    return "market" if len(problem.markets) == 1 else f"market {problem.markets[number].zone}"


def _exchange_table(problem: DispatchProblem, x: _Values) -> pd.DataFrame:
    horizon = problem.horizon
    markets = [market_name(problem, i) for i in range(len(problem.markets))]
    blocks: list[tuple[str, list[str], Array, Array | None]] = [
        ("import", markets, x("import", (len(markets), horizon)), None),
        ("export", markets, -x("export", (len(markets), horizon)), None),
        ("contract", [c.contract_id for c in problem.contracts], x("contract", (len(problem.contracts), horizon)), None),
    ]
    flexible: tuple[tuple[str, Sequence[Any], float], ...] = (
        ("interrupted", problem.interruptible, 1.0),
        ("shiftable", problem.shiftable, -1.0),
    )
    for kind, loads, sign in flexible:
        reserve = np.zeros((len(loads), horizon))
        helpers = [i for i, load in enumerate(loads) if load.provides_reserve]
        reserve[helpers] = x("interruptible reserve" if kind == "interrupted" else "shiftable reserve", (len(helpers), horizon))
        blocks.append((kind, [load.load_id for load in loads], sign * x(kind, (len(loads), horizon)), reserve))
    tables = [
        _long(
            problem,
            "source_id",
            ids,
            source_kind=np.full(power.shape, kind, dtype=object),
            power_mw=power + 0.0,
            reserve_mw=np.zeros(power.shape) if reserve is None else reserve,
        )
        for kind, ids, power, reserve in blocks
    ]
    kept = [table for table in tables if len(table)] or tables[:1]
    return pd.concat(kept, ignore_index=True)


def _violations(built: BuiltModel, x: _Values) -> pd.DataFrame:
    problem, hours, prices = built.problem, built.problem.interval_hours, built.problem.penalties
    horizon = problem.horizon
    zones, stores = problem.zones, problem.storages
    shape = (len(zones), horizon)
    needs = [store.storage_id for store in stores if store.minimum_release_mw > 0]
    capacity = float((built.thermal.minimum + built.thermal.span).sum())
    blocks = [
        ("unserved energy", list(zones), x("unserved", shape), "MW", prices.unserved_eur_per_mwh * hours),
        ("surplus energy", list(zones), x("surplus", shape), "MW", prices.surplus_eur_per_mwh * hours),
        ("reserve shortfall", ["system"], x("reserve shortfall", (horizon,))[None], "MW", prices.reserve_shortfall_eur_per_mwh * hours),
        (
            "downward reserve shortfall",
            ["system"],
            x("reserve down shortfall", (horizon,))[None],
            "MW",
            prices.reserve_down_shortfall_eur_per_mwh * hours,
        ),
        (
            "state of charge",
            [s.storage_id for s in stores],
            x("missing energy", (len(stores), horizon)),
            "MWh",
            prices.state_of_charge_eur_per_mwh,
        ),
        ("minimum release", needs, x("release shortfall", (len(needs), horizon)), "MW", prices.state_of_charge_eur_per_mwh * hours),
    ]
    rows: list[dict[str, Any]] = []

    def add(kind: str, where: str, at: int, amount: float, unit: str, price: float) -> None:
        rows.append(
            dict(
                kind=kind,
                where=where,
                interval_start=problem.interval_start[at],
                period=at + 1,
                amount=float(amount),
                unit=unit,
                cost_eur=float(amount * price),
                reason=_reason(kind, problem, at, capacity),
            )
        )

    for kind, where, amounts, unit, price in blocks:
        for i, at in zip(*np.nonzero(amounts > VIOLATION_TOLERANCE), strict=True):
            add(kind, where[i], int(at), amounts[i, at], unit, price)
    for i, load in enumerate(problem.shiftable):
        amount = x("unserved shiftable", (len(problem.shiftable),))[i]
        if amount > VIOLATION_TOLERANCE:
            window = problem.window_of(load)
            add(
                "unserved shiftable load",
                load.load_id,
                window[-1] if len(window) else horizon - 1,
                amount,
                "MWh",
                prices.unserved_eur_per_mwh,
            )
    for i, until in enumerate(built.thermal.trip_until):
        if until >= 0:
            above = built.thermal.power_before[i] + built.thermal.minimum[i]
            add("forced trip", problem.thermal[i].unit_id, int(until), above, "MW", 0.0)
    columns = ["kind", "where", "interval_start", "period", "amount", "unit", "cost_eur", "reason"]
    table = pd.DataFrame(rows, columns=columns)
    table["interval_start"] = pd.to_datetime(table["interval_start"], utc=True).dt.as_unit("us")
    return table


def _reason(kind: str, problem: DispatchProblem, at: int, thermal_capacity: float) -> str:
    demand = float(problem.total_demand_mw[at])
    renewable = sum(float(np.asarray(unit.maximum_mw)[at]) for unit in problem.renewables)
    other = sum(float(np.asarray(market.import_limit_mw)[at]) for market in problem.markets)
    other += sum(contract.maximum_mw for contract in problem.contracts) + sum(store.discharge_mw for store in problem.storages)
    reserve = float(np.asarray(problem.reserve_mw)[at])
    all_of_it = f"{thermal_capacity:.0f} MW thermal, {renewable:.0f} MW renewable, {other:.0f} MW storage, import and contracts"
    if kind in ("unserved energy", "reserve shortfall"):
        need = demand + (reserve if kind == "reserve shortfall" else 0.0)
        enough = thermal_capacity + renewable + other >= need
        tail = (
            "; initial states, minimum times, ramps, lines, energy or price stand in the way"
            if enough
            else "; there is not enough capacity"
        )
        return f"demand {demand:.0f} MW and reserve {reserve:.0f} MW against {all_of_it}{tail}"
    if kind == "surplus energy":
        return f"minimum outputs exceed demand {demand:.0f} MW and what can be stored or exported"
    if kind == "state of charge":
        return "charging power, inflow and time do not suffice to keep the limits or reach the final state of charge"
    if kind == "forced trip":
        return "its outage begins before it could ramp down to its shut-down limit"
    if kind == "minimum release":
        return "stored and inflowing water do not suffice for the minimum release"
    return "the energy does not fit into its window beside everything else at this price"


def _summary(built: BuiltModel, x: _Values, facts: dict[str, Any]) -> dict[str, Any]:
    problem, hours = built.problem, built.problem.interval_hours
    curtailment_price = problem.penalties.curtailment_eur_per_mwh
    groups = built.variables.get("renewable")
    produced = float(x.values[groups].sum()) * hours if groups is not None else 0.0
    available = float(sum(np.sum(unit.maximum_mw) for unit in problem.renewables)) * hours
    # costs of stored energy are told by its flows (see the formulation), so its parts are told apart here
    stores, shape = problem.storages, (len(problem.storages), problem.horizon)
    through = (x("charge", shape) + x("discharge", shape)).sum(axis=1) * hours
    gained = x("state of charge", shape)[:, -1] - [s.initial_mwh for s in stores] if stores else np.zeros(0)
    missing = float(x("missing energy", shape).sum())
    parts = {
        "no_load_eur": x.cost("u"),
        "production_eur": x.cost("segment", "p"),
        "start_up_eur": x.cost("v", "hot"),
        "renewable_eur": x.cost("renewable") + curtailment_price * produced,
        "import_eur": x.cost("import"),
        "export_revenue_eur": -x.cost("export"),
        "contract_eur": x.cost("contract", "paid but not taken"),
        "interruption_eur": x.cost("interrupted"),
        "storage_wear_eur": float(sum(s.wear_eur_per_mwh * e for s, e in zip(stores, through, strict=True))),
        "value_of_stored_energy_eur": float(sum(s.final_value_eur_per_mwh * e for s, e in zip(stores, gained, strict=True))),
        "curtailment_eur": curtailment_price * (available - produced),
        "unserved_eur": x.cost("unserved", "unserved shiftable"),
        "surplus_eur": x.cost("surplus"),
        "reserve_shortfall_eur": x.cost("reserve shortfall", "reserve down shortfall"),
        "state_of_charge_shortfall_eur": problem.penalties.state_of_charge_eur_per_mwh * missing + x.cost("release shortfall"),
    }
    income = ("export_revenue_eur", "value_of_stored_energy_eur")
    objective = sum(-value if name in income else value for name, value in parts.items())
    return {"objective_eur": objective, **facts, **parts}
