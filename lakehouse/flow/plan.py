"""forecasts → dispatch: from the site's forecasts and fleet to a problem, and from its solution to tables."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any

from lakehouse.contracts import dispatch as contracts
from lakehouse.errors import DispatchError
from lakehouse.flow.workspace import Workspace
from lakehouse.site import Site
from lakehouse.storage.engine import register
from lakehouse.storage.lake import Commit

if TYPE_CHECKING:
    import pandas as pd

    from lakehouse.dispatch.fleet import DispatchProblem
    from lakehouse.dispatch.solution import DispatchSolution

SMALL = 2_000
"""Units times intervals below which a search on the second core takes longer to start than the plan to prove."""

STATE_DAYS = 7
"""How far back earlier plans are read for the time a unit has spent in its state."""


@dataclass
class Planned:
    """The plans of some issue days."""

    commits: dict[str, Commit] = field(default_factory=dict)
    days: list[date] = field(default_factory=list)
    summaries: list[dict[str, Any]] = field(default_factory=list)
    breaches: list[str] = field(default_factory=list)
    picture: bytes = b""

    @property
    def unserved_mwh(self) -> float:
        """Energy that no plan could serve."""
        return sum(s["unserved_mwh"] for s in self.summaries)


def make_plans(workspace: Workspace, first: date, last: date) -> Planned:
    """Plans the day after each issue day of a span, one after the other: each begins in the state in which the last one ends.

    Days without a demand forecast get no plan.

    Raises:
        DispatchError: the fleet contradicts itself, or a forecast that a unit needs is missing.
    """
    from lakehouse.dispatch import check_solution, figure_png, plan_figure, solve

    fleet = workspace.site.fleet
    assert fleet is not None
    planned = Planned()
    rows: dict[str, list[dict[str, Any]]] = {t.name: [] for t in contracts.ALL}
    units = fleet_units(workspace)
    state = _state_before(workspace, first, units)
    newest: tuple[DispatchProblem, DispatchSolution] | None = None
    for day in (first + timedelta(days=n) for n in range((last - first).days + 1)):
        demand = _forecast(workspace, fleet.demand, workspace.site.series[fleet.demand].series, day, _column(fleet.plan_quantile))  # type: ignore[index]
        if demand.empty:
            continue
        problem = problem_of(workspace, day, demand, units, state)
        small = len(problem.thermal) * problem.horizon <= SMALL
        solution = solve(problem, gap=fleet.gap, time_limit_seconds=fleet.time_limit_seconds, threads=1 if small else 2)
        report = check_solution(problem, solution)
        planned.days.append(day)
        planned.breaches += [f"{day}: {b.rule}: {b.text}" for b in report.breaches]
        newest = problem, solution
        issue = {"issued_at": issue_instant(workspace.site, day), "date": day}
        _collect(rows, problem, solution, issue, demand, units, is_verified=report.ok)
        state = _state_after(problem, solution)
    planned.summaries = rows[contracts.Summary.name]
    if newest:
        planned.picture = figure_png(plan_figure(*newest))
    for contract in contracts.ALL:
        planned.commits[contract.name] = workspace.replace(
            contract.name,
            contract.from_rows(rows[contract.name]),
            where={"date": (first, last)},
            inputs=[f"forecasts/{fleet.demand}", "cleaned/fleet"],
        )
    return planned


def fleet_units(workspace: Workspace) -> list[dict[str, Any]]:
    """The fleet's units with their parameters.

    Raises:
        DispatchError: there is no fleet yet.
    """
    rows = workspace.table("cleaned/fleet").read().to_pylist()
    if not rows:
        raise DispatchError("The fleet is empty: no unit was delivered that could be read.", "Land a fleet file, then: gridlake refresh")
    return [json.loads(row["parameters"]) | {"unit_id": row["unit_id"], "kind": row["kind"]} for row in rows]


def problem_of(
    workspace: Workspace, day: date, demand: pd.DataFrame, units: Sequence[dict[str, Any]], state: dict[str, dict[str, Any]] | None = None
) -> DispatchProblem:
    """The problem of one issue day: the fleet in its state, facing the forecasts of the next local day.

    Args:
        workspace: the site at work.
        day: local day of the issue.
        demand: valid_at, value (MW) by interval.
        units: the fleet, as `fleet_units` gives it.
        state: what earlier plans left behind, by unit; the fleet's own initial state where there is none.
    """
    from lakehouse.dispatch.fleet import DispatchProblem, Market, Penalties, Renewable, Storage, ThermalUnit

    fleet = workspace.site.fleet
    assert fleet is not None
    starts = list(demand["valid_at"])
    load = demand["value"].clip(lower=0.0).to_numpy()
    state = state or {}
    thermal, renewables, storages, markets = [], [], [], []
    for unit in units:
        name, kind = unit["unit_id"], unit["kind"]
        given = {k: v for k, v in unit.items() if k not in ("unit_id", "kind") and v is not None} | state.get(name, {})
        try:
            if kind == "thermal":
                thermal.append(ThermalUnit(unit_id=name, **_thermal_parameters(given)))
            elif kind in ("wind", "solar"):
                available = _needed(workspace, kind, given.pop("series_id", kind), day, starts, name).clip(
                    0.0, given.pop("maximum_mw", None)
                )
                given["minimum_mw"] = available.clip(upper=given.get("minimum_mw", 0.0)).to_numpy()
                renewables.append(Renewable(unit_id=name, maximum_mw=available.to_numpy(), **given))
            elif kind == "storage":
                storages.append(Storage(storage_id=name, **given))
            elif kind == "grid":
                price = _grid_price(workspace, given, day, starts, name)
                given["import_price_eur_per_mwh"] = price + given.pop("import_margin_eur_per_mwh", 0.0)
                given["export_price_eur_per_mwh"] = price - given.pop("export_margin_eur_per_mwh", 0.0)
                markets.append(Market(**given))
        except (TypeError, ValueError, AttributeError) as error:  # a parameter that is unknown, missing, or no number
            raise DispatchError(
                f"Unit {name}: {str(error).split('__init__() ')[-1]}.", "docs/dispatch.md lists the parameters of each kind of unit."
            ) from None
    return DispatchProblem(
        interval_start=[s.to_pydatetime() for s in starts],
        interval_hours=fleet.interval_minutes / 60,
        demand_mw=load,
        reserve_mw=fleet.reserve_share_of_demand * load,
        thermal=thermal,
        renewables=renewables,
        storages=storages,
        market=markets or None,
        penalties=Penalties(
            unserved_eur_per_mwh=fleet.value_of_lost_load_eur_per_mwh, reserve_shortfall_eur_per_mwh=fleet.reserve_shortfall_eur_per_mwh
        ),
    )


def _thermal_parameters(given: dict[str, Any]) -> dict[str, Any]:
    """A thermal unit's parameters as the trade wants them: JSON has neither tuples nor moments."""
    curves = {k: tuple(tuple(float(x) for x in point) for point in given[k]) for k in ("cost_curve", "startup_costs") if k in given}
    outages = tuple((_moment(start), _moment(end)) for start, end in given.get("outages", ()))
    return given | curves | {"outages": outages}


def _moment(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    return moment.astimezone(UTC) if moment.tzinfo else moment  # one without offset is refused where the unit is made


def _grid_price(workspace: Workspace, given: dict[str, Any], day: date, starts: list[Any], name: str) -> Any:
    fixed = given.pop("price_eur_per_mwh", None)
    series = given.pop("price_series_id", None)
    if series is None or "price" not in workspace.site.series:
        if fixed is None:
            raise DispatchError(
                f"Grid connection {name}: no price: neither a forecast series nor price_eur_per_mwh.", "Give one in the fleet file."
            )
        return fixed
    return _needed(workspace, "price", series, day, starts, name).to_numpy()


def _needed(workspace: Workspace, target: str, series: str, day: date, starts: list[Any], unit: str) -> Any:
    site = workspace.site
    if target not in site.series:
        raise DispatchError(
            f"Unit {unit} needs a forecast of {target}, which the site does not make.", "Add it to series in gridlake.yaml."
        )
    found = _forecast(workspace, target, (series,), day, "p50").set_index("valid_at")["value"].reindex(starts)
    if found.isna().any():
        absent = found.index[found.isna()][0]
        raise DispatchError(
            f"Unit {unit}: no forecast of {target} '{series}' for {absent:%Y-%m-%d %H:%M} UTC in the issue of {day}.",
            f"Make it with: gridlake refresh --until forecasts --from {day} --to {day}",
        )
    return found.astype(float)


def _forecast(workspace: Workspace, target: str, series: Sequence[str], day: date, column: str) -> pd.DataFrame:
    """valid_at, value and the model behind it, of one issue, on the fleet's interval grid; several series are summed."""
    import pandas as pd

    fleet = workspace.site.fleet
    assert fleet is not None
    with workspace.engine() as engine:
        table = register(engine, workspace.table(f"forecasts/{target}"), only={"date": (day, day)})
        found = engine.execute(
            f'SELECT valid_at, sum("{column}") AS value, any_value(model_version) AS model_version, bool_or(is_fallback) AS is_fallback '
            f"FROM {table} WHERE list_contains($series, series_id) GROUP BY valid_at ORDER BY valid_at",
            {"series": list(series)},
        ).df()
    if found.empty:
        return found
    own, wanted = workspace.site.series[target].interval_minutes, fleet.interval_minutes  # type: ignore[index]
    if own == wanted:
        return found
    found = found.set_index("valid_at")
    if own < wanted:
        return found.resample(f"{wanted}min").agg({"value": "mean", "model_version": "first", "is_fallback": "max"}).reset_index()
    grid = pd.date_range(
        found.index[0], found.index[-1] + pd.Timedelta(minutes=own), freq=f"{wanted}min", inclusive="left", name="valid_at"
    )
    return found.reindex(grid, method="ffill").reset_index()


def _column(quantile: float) -> str:
    from lakehouse.forecasting.task import quantile_column

    return quantile_column(quantile)


def _state_before(workspace: Workspace, first: date, units: Sequence[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """How the plan of the issue before left each unit: on or off since when, at which power, with how much energy stored."""
    span = (first - timedelta(days=STATE_DAYS), first - timedelta(days=1))
    plan = workspace.table("dispatch/plan").read(f"date BETWEEN DATE '{span[0]}' AND DATE '{span[1]}'").to_pandas()
    storage = workspace.table("dispatch/storage").read(f"date = DATE '{span[1]}'").to_pandas()
    state: dict[str, dict[str, Any]] = {}
    if plan.empty or plan["date"].max() != span[1]:
        return state
    known = {unit["unit_id"]: unit["kind"] for unit in units}
    for name, rows in plan[plan["unit_kind"] == "thermal"].groupby("unit_id"):
        if known.get(str(name)) == "thermal":
            state[str(name)] = _thermal_state(rows.sort_values("interval_start"))
    for name, rows in storage.groupby("storage_id"):
        if known.get(str(name)) == "storage":
            state[str(name)] = {"initial_mwh": float(rows.sort_values("interval_start")["state_of_charge_mwh"].iloc[-1])}
    return state


def _thermal_state(rows: pd.DataFrame) -> dict[str, Any]:
    committed = rows["committed"].to_numpy(dtype=bool)
    same = len(committed) if (committed == committed[-1]).all() else int((committed[::-1] != committed[-1]).argmax())
    return {
        "initially_on": bool(committed[-1]),
        "initial_power_mw": float(rows["power_mw"].iloc[-1]) if committed[-1] else 0.0,
        "initial_hours_in_state": same * float(rows["interval_minutes"].iloc[-1]) / 60 if same < len(committed) else 24.0 * STATE_DAYS,
    }


def _state_after(problem: DispatchProblem, solution: DispatchSolution) -> dict[str, dict[str, Any]]:
    state: dict[str, dict[str, Any]] = {}
    before = {u.unit_id: u for u in problem.thermal}
    for name, rows in solution.plan[solution.plan["unit_kind"] == "thermal"].groupby("unit_id"):
        ordered = rows.sort_values("interval_start").assign(interval_minutes=problem.interval_hours * 60)
        own = _thermal_state(ordered)
        unit = before[str(name)]
        if len(set(ordered["committed"])) == 1:
            carried = unit.initial_hours_in_state if bool(ordered["committed"].iloc[0]) == unit.initially_on else 0.0
            own["initial_hours_in_state"] = carried + len(ordered) * problem.interval_hours
        state[str(name)] = own
    for name, rows in solution.storage.groupby("storage_id"):
        state[str(name)] = {"initial_mwh": float(rows.sort_values("interval_start")["state_of_charge_mwh"].iloc[-1])}
    return state


def _collect(
    rows: dict[str, list[dict[str, Any]]],
    problem: DispatchProblem,
    solution: DispatchSolution,
    issue: dict[str, Any],
    demand: pd.DataFrame,
    units: Sequence[dict[str, Any]],
    *,
    is_verified: bool,
) -> None:
    kind_of = {unit["unit_id"]: unit["kind"] for unit in units}
    minutes = round(problem.interval_hours * 60)
    plan = rows[contracts.Plan.name]
    for r in solution.plan.to_dict("records"):
        switched = {k: bool(r[k]) for k in ("committed", "started", "stopped")}
        own = {k: r[k] for k in ("unit_id", "interval_start", "power_mw", "reserve_mw")} | {"unit_kind": kind_of[r["unit_id"]]}
        plan.append(issue | switched | own | {"interval_minutes": minutes})
    on = {"committed": True, "started": False, "stopped": False, "interval_minutes": minutes}
    for r in solution.storage.to_dict("records"):
        power = r["discharge_mw"] - r["charge_mw"]
        own = {
            "unit_id": r["storage_id"],
            "unit_kind": "storage",
            "interval_start": r["interval_start"],
            "power_mw": power,
            "reserve_mw": r["reserve_mw"],
        }
        plan.append(issue | on | own)
        columns = ("storage_id", "interval_start", "charge_mw", "discharge_mw", "state_of_charge_mwh", "reserve_mw")
        rows[contracts.StoragePlan.name].append(issue | {k: r[k] for k in columns})
    exchange = solution.exchange[solution.exchange["source_kind"].isin(["import", "export"])]
    connections = [name for name, kind in kind_of.items() if kind == "grid"]
    for (name, start), group in exchange.groupby(["source_id", "interval_start"]):
        unit = connections[0] if len(connections) == 1 else name  # the optimiser calls its only connection "market"
        own = {"unit_id": unit, "unit_kind": "grid", "interval_start": start, "power_mw": float(group["power_mw"].sum()), "reserve_mw": 0.0}
        plan.append(issue | on | own)
    for r in solution.prices.to_dict("records"):
        prices = {"energy_price_eur_per_mwh": r["energy_eur_per_mwh"], "reserve_price_eur_per_mwh": r["reserve_eur_per_mw_h"]}
        rows[contracts.Prices.name].append(issue | prices | {"zone": r["zone"], "interval_start": r["interval_start"]})
    for r in solution.violations.to_dict("records"):
        own = {"kind": r["kind"], "where": r["where"], "interval_start": r["interval_start"], "amount": r["amount"], "unit": r["unit"]}
        rows[contracts.Violations.name].append(issue | own | {"cost_eur": r["cost_eur"], "explanation": r["reason"]})
    rows[contracts.Summary.name].append(issue | _summary(problem, solution, demand, is_verified))


def _summary(problem: DispatchProblem, solution: DispatchSolution, demand: pd.DataFrame, is_verified: bool) -> dict[str, Any]:
    told = solution.summary
    parts = told.get("cost_eur") or {k: v for k, v in told.items() if k.endswith("_eur") and k not in ("objective_eur", "bound_eur")}
    hours = problem.interval_hours
    unmet = solution.violations.groupby("kind")["amount"].sum() * hours if len(solution.violations) else {}
    renewable = solution.plan[solution.plan["unit_kind"] == "renewable"]
    version = str(demand["model_version"].iloc[0])
    return {
        "objective_eur": float(told["objective_eur"]),
        "bound_eur": float(told["bound_eur"]),
        "gap_pct": 100.0 * float(told["gap"]),
        "cost_parts": json.dumps({k: round(float(v), 2) for k, v in parts.items()}),
        "demand_mwh": float(demand["value"].clip(lower=0.0).sum() * hours),
        "unserved_mwh": float(unmet.get("unserved energy", 0.0)),
        "reserve_shortfall_mwh": float(unmet.get("reserve shortfall", 0.0)),
        "curtailed_mwh": float((renewable["available_mw"] - renewable["power_mw"]).clip(lower=0.0).sum() * hours)
        if len(renewable)
        else 0.0,
        "build_seconds": float(told["build_seconds"]),
        "solve_seconds": float(told["solve_seconds"]),
        "status": str(told["status"]),
        "is_verified": is_verified,
        "demand_forecast": f"{version} (fallback)" if bool(demand["is_fallback"].any()) else version,
    }


def issue_instant(site: Site, day: date) -> datetime:
    """The issue time of a day's demand forecast, which the plan follows; UTC."""
    from lakehouse.flow.forecast import task_of

    assert site.fleet is not None
    return task_of(site, site.fleet.demand).issue_instants(day, day)[0].to_pydatetime()


def explain_unit(workspace: Workspace, unit: str, moment: datetime) -> list[str]:
    """Why a unit does what it does in an interval of the newest plan that holds it, in sentences with their numbers.

    The plan's problem is set up and solved again from the same forecasts and the same state; if the unit would now do something
    else, a sentence says so.

    Args:
        workspace: the site at work.
        unit: the unit.
        moment: start of the interval, UTC (taken as UTC if it has no zone).

    Raises:
        DispatchError: there is no fleet, no such unit, or no plan for that interval.
    """
    from lakehouse.dispatch import explain, solve

    fleet = workspace.site.fleet
    if fleet is None:
        raise DispatchError(
            f"The site '{workspace.site.name}' plans nothing: it has no fleet.", "Add a fleet to gridlake.yaml; see docs/site.md."
        )
    at = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    plan = workspace.table("dispatch/plan").read(f"interval_start = TIMESTAMPTZ '{at.isoformat()}'").to_pylist()
    if not plan:
        raise DispatchError(
            f"There is no plan for {at:%Y-%m-%d %H:%M} UTC.",
            'gridlake sql "SELECT min(interval_start), max(interval_start) FROM dispatch.plan"',
        )
    units = fleet_units(workspace)
    planned = [row for row in plan if row["unit_id"] == unit]
    if not planned:
        raise DispatchError(
            f"There is no unit '{unit}' in that plan.", f"Its units: {', '.join(sorted({row['unit_id'] for row in plan}))}."
        )
    day = max(row["date"] for row in planned)
    demand = _forecast(workspace, fleet.demand, workspace.site.series[fleet.demand].series, day, _column(fleet.plan_quantile))  # type: ignore[index]
    problem = problem_of(workspace, day, demand, units, _state_before(workspace, day, units))
    solution = solve(problem, gap=fleet.gap, time_limit_seconds=fleet.time_limit_seconds, threads=1)
    is_only_connection = planned[0]["unit_kind"] == "grid" and len(problem.markets) == 1
    told = explain(problem, solution, "market" if is_only_connection else unit, at)
    rows = solution.plan[(solution.plan["unit_id"] == unit) & (solution.plan["interval_start"] == at)]
    stored = next(row["power_mw"] for row in planned if row["date"] == day)
    if len(rows) and abs(float(rows["power_mw"].iloc[0]) - stored) > 1e-3:
        told.append(f"In the stored plan it runs at {stored:.3f} MW: forecasts or fleet changed since, or another plan costs the same.")
    return told
