"""A plan as rows of the `dispatch` tables, and back: what the tables hold is enough to explain, report and continue a plan."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import date, datetime
from typing import TYPE_CHECKING, Any

from lakehouse.contracts import dispatch as contracts
from lakehouse.errors import DispatchError
from lakehouse.flow.outlook import Outlook
from lakehouse.flow.problem import WEATHER_DRIVEN, Units, grid_names, problem_of, targets_of
from lakehouse.flow.workspace import Workspace

if TYPE_CHECKING:
    import pandas as pd

    from lakehouse.dispatch.checker import CheckReport
    from lakehouse.dispatch.fleet import DispatchProblem
    from lakehouse.dispatch.solution import DispatchSolution

Rows = dict[str, list[dict[str, Any]]]
FLEXIBLE = {"contract": "contract", "interrupted": "interruptible", "shiftable": "shiftable"}


@dataclass
class Made:
    """A plan as it was just made: the day without its look-ahead, and what is known about the whole.

    Attributes:
        problem, solution: the day.
        report: the checker's verdict on the whole.
        cost_eur: cost of the day alone.
        facts: columns of the summary that only the planner knows.
    """

    problem: DispatchProblem
    solution: DispatchSolution
    report: CheckReport
    cost_eur: float
    facts: dict[str, Any]


def rows_of(workspace: Workspace, issue: dict[str, Any], made: Made, units: Units, outlook: Outlook) -> Rows:
    """All rows of a plan by table; `issue` has the columns that every row begins with."""
    problem, solution = made.problem, made.solution
    kinds = {unit["unit_id"]: unit["kind"] for unit in units}
    markets = grid_names(units, problem)
    starts = {start: n for n, start in enumerate(problem.interval_start)}
    rows: Rows = {
        contracts.Plan.name: _plan(problem, solution, kinds, markets),
        contracts.StoragePlan.name: _records(
            solution.storage, "storage_id", "charge_mw", "discharge_mw", "state_of_charge_mwh", "spill_mw", "reserve_mw", "reserve_down_mw"
        ),
        contracts.Flows.name: _flows(problem, solution),
        contracts.Reserves.name: _reserves(problem, solution, kinds),
        contracts.Prices.name: [
            {
                "zone": r["zone"],
                "interval_start": r["interval_start"],
                "energy_price_eur_per_mwh": r["energy_eur_per_mwh"] + 0.0,
                "reserve_price_eur_per_mwh": r["reserve_eur_per_mw_h"] + 0.0,
                "reserve_down_price_eur_per_mwh": r["reserve_down_eur_per_mw_h"] + 0.0,
            }
            for r in solution.prices.to_dict("records")
        ],
        contracts.Bids.name: _bids(workspace, problem, solution, units, outlook),
        contracts.Setpoints.name: _setpoints(problem, solution, kinds),
        contracts.Violations.name: [
            {
                "kind": r["kind"], "where": r["where"], "interval_start": r["interval_start"], "amount": r["amount"], "unit": r["unit"],
                "cost_eur": r["cost_eur"], "explanation": r["reason"],
            }
            for r in solution.violations.to_dict("records")
            if r["interval_start"] in starts
        ],
        contracts.Summary.name: [_summary(made, markets)],
    }  # fmt: skip
    return {name: [issue | row for row in found] for name, found in rows.items()}


def _records(table: pd.DataFrame, *columns: str) -> list[dict[str, Any]]:
    return table[[columns[0], "interval_start", *columns[1:]]].to_dict("records")  # type: ignore[return-value]


def _zones(problem: DispatchProblem) -> dict[str, str]:
    zones = {unit.unit_id: unit.zone for unit in problem.thermal} | {unit.unit_id: unit.zone for unit in problem.renewables}
    zones |= {store.storage_id: store.zone for store in problem.storages}
    zones |= {load.load_id: load.zone for load in problem.shiftable} | {load.load_id: load.zone for load in problem.interruptible}
    return zones | {contract.contract_id: contract.zone for contract in problem.contracts}


def _plan(problem: DispatchProblem, solution: DispatchSolution, kinds: dict[str, str], markets: dict[str, str]) -> list[dict[str, Any]]:
    zones = _zones(problem) | {name: market.zone for name, market in zip(markets.values(), problem.markets, strict=True)}
    every = {"interval_minutes": round(problem.interval_hours * 60)}
    steady = {"committed": True, "started": False, "stopped": False, "reserve_down_mw": 0.0, "available_mw": None}
    rows = []

    def add(name: str, kind: str, row: dict[str, Any]) -> None:
        rows.append(every | {"unit_id": name, "unit_kind": kind, "zone": zones[name]} | row)

    columns = ("interval_start", "power_mw", "reserve_mw", "reserve_down_mw", "available_mw")
    for r in solution.plan.to_dict("records"):
        switched = {k: bool(r[k]) for k in ("committed", "started", "stopped")}
        add(r["unit_id"], kinds[r["unit_id"]], switched | {k: r[k] for k in columns})
    for r in solution.storage.to_dict("records"):
        own = {k: r[k] for k in ("interval_start", "reserve_mw", "reserve_down_mw")}
        add(r["storage_id"], "storage", steady | own | {"power_mw": r["discharge_mw"] - r["charge_mw"]})
    exchange = solution.exchange
    traded = exchange[exchange["source_kind"].isin(["import", "export"])]
    for (name, start), power in traded.groupby(["source_id", "interval_start"])["power_mw"].sum().items():
        add(markets[name], "grid", steady | {"interval_start": start, "power_mw": float(power), "reserve_mw": 0.0})
    for r in exchange[exchange["source_kind"].isin(list(FLEXIBLE))].to_dict("records"):
        own = {k: r[k] for k in ("interval_start", "power_mw", "reserve_mw")}
        add(r["source_id"], FLEXIBLE[r["source_kind"]], steady | own)
    return rows


def _flows(problem: DispatchProblem, solution: DispatchSolution) -> list[dict[str, Any]]:
    if not problem.lines:
        return []
    prices = solution.prices.set_index(["zone", "interval_start"])["energy_eur_per_mwh"].to_dict()
    ends = {line.line_id: (line.from_zone, line.to_zone) for line in problem.lines}
    rows = []
    for r in _records(solution.flows, "line_id", "flow_mw", "limit_mw", "is_binding"):
        first, second = ends[r["line_id"]]
        difference = prices[second, r["interval_start"]] - prices[first, r["interval_start"]]
        rows.append(
            r | {"is_binding": bool(r["is_binding"]), "from_zone": first, "to_zone": second, "price_difference_eur_per_mwh": difference}
        )
    return rows


def _reserves(problem: DispatchProblem, solution: DispatchSolution, kinds: dict[str, str]) -> list[dict[str, Any]]:
    import numpy as np

    able = {unit.unit_id for unit in problem.thermal}
    able |= {store.storage_id for store in problem.storages if store.provides_reserve}
    able |= {load.load_id for load in problem.shiftable if load.provides_reserve}
    able |= {load.load_id for load in problem.interruptible if load.provides_reserve}
    prices = solution.prices.drop_duplicates("interval_start").set_index("interval_start")
    rows = []
    for direction, column, price, required, short in (
        ("up", "reserve_mw", "reserve_eur_per_mw_h", problem.reserve_mw, "reserve shortfall"),
        ("down", "reserve_down_mw", "reserve_down_eur_per_mw_h", problem.reserve_down_mw, "downward reserve shortfall"),
    ):
        requirement = dict(zip(problem.interval_start, np.asarray(required).tolist(), strict=True))
        if not any(requirement.values()):
            continue
        lacking = solution.violations[solution.violations["kind"] == short].set_index("interval_start")["amount"].to_dict()
        for table, key in ((solution.plan, "unit_id"), (solution.storage, "storage_id"), (solution.exchange, "source_id")):
            if column not in table:
                continue
            for name, start, held in table[[key, "interval_start", column]].itertuples(index=False):
                if name in able:
                    rows.append(
                        {
                            "unit_id": name, "unit_kind": kinds[name], "direction": direction, "interval_start": start, "reserve_mw": held,
                            "requirement_mw": requirement[start.to_pydatetime()], "shortfall_mw": lacking.get(start, 0.0),
                            "price_eur_per_mw_h": float(prices.at[start, price]) + 0.0,
                        }
                    )  # fmt: skip
    return rows


def _bids(
    workspace: Workspace, problem: DispatchProblem, solution: DispatchSolution, units: Units, outlook: Outlook
) -> list[dict[str, Any]]:
    """Bids of the connections whose price is forecast: its quantiles are the price points."""
    import numpy as np

    from lakehouse.dispatch.bids import market_bids
    from lakehouse.forecasting.task import quantile_column

    if "price" not in targets_of(workspace.site, units):
        return []
    rows = []
    columns = [quantile_column(q) for q in workspace.site.series["price"].quantiles]
    connections = [unit for unit in units if unit["kind"] == "grid"]
    for unit, market in zip(connections, problem.markets, strict=True):
        if unit.get("price_series_id") is None:
            continue
        points = np.stack([outlook.values("price", unit["price_series_id"], unit["unit_id"], c) for c in columns], axis=1)
        offset = len(outlook.horizon().starts[: outlook.horizon().starts.get_loc(problem.interval_start[0])])
        points = np.sort(points[offset : offset + problem.horizon], axis=1)
        bids = market_bids(
            problem,
            solution,
            points,
            market.zone,
            import_margin_eur_per_mwh=float(unit.get("import_margin_eur_per_mwh", 0.0)),
            export_margin_eur_per_mwh=float(unit.get("export_margin_eur_per_mwh", 0.0)),
        )
        rows += [
            {k: r[k] for k in ("interval_start", "step", "price_eur_per_mwh", "quantity_mw")} | {"unit_id": unit["unit_id"]}
            for r in bids.to_dict("records")
        ]
    return rows


def _setpoints(problem: DispatchProblem, solution: DispatchSolution, kinds: dict[str, str]) -> list[dict[str, Any]]:
    from lakehouse.dispatch.setpoints import schedule

    return [r | {"asset_kind": kinds[r["asset_id"]]} for r in schedule(problem, solution).to_dict("records")]


def _summary(made: Made, markets: dict[str, str]) -> dict[str, Any]:
    from lakehouse.dispatch.binding import binding_constraints

    problem, solution = made.problem, made.solution
    told, hours = solution.summary, problem.interval_hours
    parts = {k: v for k, v in told.items() if k.endswith("_eur") and k not in ("objective_eur", "bound_eur")}
    unmet = solution.violations.groupby("kind")["amount"].sum() * hours if len(solution.violations) else {}
    renewable = solution.plan[solution.plan["unit_kind"] == "renewable"]
    curtailed = float((renewable["available_mw"] - renewable["power_mw"]).clip(lower=0.0).sum() * hours) if len(renewable) else 0.0
    return made.facts | {
        "objective_eur": float(told["objective_eur"]),
        "bound_eur": float(told["bound_eur"]),
        "gap_pct": 100.0 * float(told["gap"]),
        "cost_eur": made.cost_eur,
        "cost_parts": json.dumps({k: round(float(v), 2) for k, v in parts.items()}),
        "binding": json.dumps(
            [one.as_dict() | {"where": markets.get(one.where, one.where)} for one in binding_constraints(problem, solution)]
        ),
        "demand_mwh": float(problem.total_demand_mw.sum() * hours),
        "unserved_mwh": float(unmet.get("unserved energy", 0.0)),
        "reserve_shortfall_mwh": float(unmet.get("reserve shortfall", 0.0)),
        "curtailed_mwh": curtailed,
        "build_seconds": float(told["build_seconds"]),
        "solve_seconds": float(told["solve_seconds"]),
        "status": str(told["status"]),
        "is_verified": made.report.ok,
    }


# -- and back


@dataclass
class StoredPlan:
    """A plan as the tables hold it, with the problem that it answers.

    Attributes:
        issue: local day of the issue.
        problem, solution: as they were planned; the objective is that of the tables.
        summary: the newest row of dispatch/summary.
        units: the fleet that was planned with.
        markets: what the fleet calls each grid connection, by the optimiser's name.
    """

    issue: date
    problem: DispatchProblem
    solution: DispatchSolution
    summary: dict[str, Any]
    units: list[dict[str, Any]]
    markets: dict[str, str]

    def name_in_plan(self, unit: str) -> str:
        """What the optimiser calls a unit."""
        return next((market for market, name in self.markets.items() if name == unit), unit)


def stored_plan(workspace: Workspace, issue: date, units: list[dict[str, Any]], state: Any, outlook: Outlook) -> StoredPlan:
    """Reads a plan back, and sets up the problem that it answers.

    Args:
        workspace: the site at work.
        issue: local day of the issue.
        units: the fleet that was planned with.
        state: the state in which the plan began, by unit.
        outlook: the forecasts that it followed.

    Raises:
        DispatchError: there is no plan of that day, or the fleet is no longer the one that was planned with.
    """
    import pandas as pd

    from lakehouse.dispatch.settlement import first_part
    from lakehouse.dispatch.solution import DispatchSolution

    tables = {t.name: workspace.table(t.name).read(f"date = DATE '{issue}'").to_pandas() for t in contracts.PLAN_TABLES}
    plan = tables[contracts.Plan.name]
    if plan.empty:
        raise DispatchError(f"There is no plan of the issue of {issue}.", "Make it with: gridlake refresh")
    if plan["zone"].isna().any():
        raise DispatchError(
            f"The plan of the issue of {issue} was made by an older version, which kept less of it.",
            "Plan that day again from the Dagster UI: materialize the partition of dispatch/plan.",
        )
    horizon = outlook.horizon()
    problem = problem_of(outlook, units, state)
    markets = grid_names(units, problem)
    planned_with = {unit["unit_id"] for unit in units if unit["kind"] not in ("line", "zone")}
    changed = planned_with ^ set(plan["unit_id"])
    if changed:
        raise DispatchError(
            f"The fleet has changed since the plan of {issue} was made: {', '.join(sorted(changed)[:5])}.",
            "Plan that day again from the Dagster UI, or: gridlake refresh",
        )
    nothing = pd.DataFrame({"period": []})
    problem, _ = first_part(problem, DispatchSolution(nothing, nothing, nothing, nothing, nothing, nothing, {}), horizon.day)
    periods = {pd.Timestamp(start): n for n, start in enumerate(problem.interval_start, start=1)}
    for name, table in tables.items():
        if "interval_start" in table:
            tables[name] = table.assign(period=table["interval_start"].map(periods).astype("Int64"))
            tables[name] = tables[name].dropna(subset=["period"]).astype({"period": int}).sort_values("period", kind="stable")
    summary = tables[contracts.Summary.name].sort_values("planned_from").iloc[-1].to_dict()
    solution = _solution(tables, {name: market for market, name in markets.items()}, summary)
    return StoredPlan(issue, problem, solution, summary, units, markets)


def _solution(tables: dict[str, pd.DataFrame], market_of: dict[str, str], summary: dict[str, Any]) -> DispatchSolution:
    import pandas as pd

    from lakehouse.dispatch.solution import DispatchSolution

    plan = tables[contracts.Plan.name]
    units = plan[plan["unit_kind"].isin(["thermal", *WEATHER_DRIVEN])].copy()
    units["unit_kind"] = units["unit_kind"].where(units["unit_kind"] == "thermal", "renewable")
    for flag in ("committed", "started", "stopped"):
        units[flag] = units[flag].astype("int8")
    traded = plan[plan["unit_kind"] == "grid"].assign(source_id=lambda t: t["unit_id"].map(market_of))
    both = [traded.assign(source_kind="import", power_mw=traded["power_mw"].clip(lower=0.0))]
    both.append(traded.assign(source_kind="export", power_mw=traded["power_mw"].clip(upper=0.0)))
    kind_of = {kind: source for source, kind in FLEXIBLE.items()}
    others = plan[plan["unit_kind"].isin(list(kind_of))].assign(
        source_id=lambda t: t["unit_id"], source_kind=lambda t: t["unit_kind"].map(kind_of)
    )
    prices = tables[contracts.Prices.name].rename(
        columns={
            "energy_price_eur_per_mwh": "energy_eur_per_mwh",
            "reserve_price_eur_per_mwh": "reserve_eur_per_mw_h",
            "reserve_down_price_eur_per_mwh": "reserve_down_eur_per_mw_h",
        }
    )
    facts = json.loads(summary["cost_parts"]) | {
        "objective_eur": summary["objective_eur"],
        "bound_eur": summary["bound_eur"],
        "gap": summary["gap_pct"] / 100.0,
        "status": summary["status"],
        "build_seconds": summary["build_seconds"],
        "solve_seconds": summary["solve_seconds"],
    }
    return DispatchSolution(
        plan=units.reset_index(drop=True),
        storage=tables[contracts.StoragePlan.name].reset_index(drop=True),
        exchange=pd.concat([*both, others], ignore_index=True),
        flows=tables[contracts.Flows.name].reset_index(drop=True),
        prices=prices.reset_index(drop=True),
        violations=tables[contracts.Violations.name].rename(columns={"explanation": "reason"}).reset_index(drop=True),
        summary=facts,
    )


def moment_in_plan(workspace: Workspace, moment: datetime) -> date:
    """The newest issue whose plan holds an interval.

    Raises:
        DispatchError: no plan holds it.
    """
    rows = workspace.table(contracts.Plan.name).read(
        f"interval_start <= TIMESTAMPTZ '{moment.isoformat()}' "
        f"AND interval_start + to_minutes(interval_minutes) > TIMESTAMPTZ '{moment.isoformat()}'"
    )
    days = rows.column("date").to_pylist()
    if not days:
        raise DispatchError(
            f"There is no plan for {moment:%Y-%m-%d %H:%M} UTC.",
            'gridlake sql "SELECT min(interval_start), max(interval_start) FROM dispatch.plan"',
        )
    return max(days)  # type: ignore[no-any-return]
