"""forecasts → dispatch: plans for the days after each issue, planned again during the day, explained, and turned into set points.

`outlook` says what a plan faces, `problem` what the fleet means, `plan_tables` how a plan becomes rows and back, `regret` what it cost not
to know the day. The planning itself is `lakehouse.dispatch`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lakehouse.contracts import dispatch as contracts
from lakehouse.errors import DispatchError
from lakehouse.flow.outlook import Outlook, scenarios
from lakehouse.flow.plan_tables import Made, Rows, StoredPlan, moment_in_plan, rows_of, stored_plan
from lakehouse.flow.problem import State, Units, fleet_units, problem_of, targets_of
from lakehouse.flow.workspace import Workspace
from lakehouse.site import Fleet, Site
from lakehouse.storage.lake import Commit

if TYPE_CHECKING:
    import pandas as pd

    from lakehouse.dispatch.fleet import DispatchProblem, Storage, ThermalUnit
    from lakehouse.dispatch.solution import DispatchSolution

SMALL = 2_000
"""Units times intervals below which a search on the second core takes longer to start than the plan to prove."""

STATE_DAYS = 7
"""How far back earlier plans are read for the time a unit has spent in its state."""

SETPOINTS_FORM = "gridlake.setpoints/1"


@dataclass
class Planned:
    """The plans of some issue days."""

    commits: dict[str, Commit] = field(default_factory=dict)
    days: list[date] = field(default_factory=list)
    summaries: list[dict[str, Any]] = field(default_factory=list)
    breaches: list[str] = field(default_factory=list)
    picture: bytes = b""
    setpoints: Path | None = None

    @property
    def unserved_mwh(self) -> float:
        """Energy that no plan could serve."""
        return sum(s["unserved_mwh"] for s in self.summaries)


def fleet_of(site: Site) -> Fleet:
    """How the site plans.

    Raises:
        DispatchError: it does not.
    """
    if site.fleet is None:
        raise DispatchError(f"The site '{site.name}' plans nothing: it has no fleet.", "Add a fleet to gridlake.yaml; see docs/site.md.")
    return site.fleet


def outlook_of(workspace: Workspace, issue: date) -> Outlook:
    """The forecasts that the plan of an issue day follows."""
    from lakehouse.forecasting.task import quantile_column

    return Outlook(workspace, issue, quantile_column(fleet_of(workspace.site).plan_quantile))


def make_plans(workspace: Workspace, first: date, last: date) -> Planned:
    """Plans the day after each issue day of a span, one after the other: each begins in the state in which the last one ends.

    Days without a demand forecast get no plan.

    Raises:
        DispatchError: the fleet contradicts itself, or a forecast that a unit needs is missing.
    """
    fleet = fleet_of(workspace.site)
    planned = Planned()
    rows: Rows = {t.name: [] for t in contracts.PLAN_TABLES}
    units = fleet_units(workspace)
    state: State = state_before(workspace, first, units)
    newest: Made | None = None
    plan_before = _plan_before(workspace, first) if state else None
    for day in (first + timedelta(days=n) for n in range((last - first).days + 1)):
        outlook = outlook_of(workspace, day)
        if outlook.forecast(fleet.demand).empty:
            continue
        made, state, plan_before = _plan_day(outlook, units, state, plan_before)
        planned.days.append(day)
        planned.breaches += [f"{day}: {b.rule}: {b.text}" for b in made.report.breaches]
        for name, found in rows_of(workspace, {"issued_at": issue_instant(workspace.site, day), "date": day}, made, units, outlook).items():
            rows[name] += found
        newest = made
    planned.summaries = rows[contracts.Summary.name]
    if newest:
        planned.picture = _picture(newest, workspace.site, units)
    inputs = [f"forecasts/{fleet.demand}", "cleaned/fleet"]
    for contract in contracts.PLAN_TABLES:
        planned.commits[contract.name] = workspace.replace(
            contract.name, contract.from_rows(rows[contract.name]), where={"date": (first, last)}, inputs=inputs
        )
    planned.setpoints = write_setpoints(workspace) if planned.days else None
    return planned


def _picture(made: Made, site: Site, units: Units) -> bytes:
    from lakehouse.dispatch import figure_png, plan_figure

    kinds = {unit["unit_id"]: unit["kind"] for unit in units}
    return figure_png(plan_figure(made.problem, made.solution, time_zone=site.time_zone, kind_of=kinds))


def _plan_before(workspace: Workspace, first: date) -> pd.DataFrame:
    """The rows of the plan of the issue before, from which the search for the next one begins."""
    before = workspace.table("dispatch/plan").read(f"date = DATE '{first - timedelta(days=1)}'")
    return before.select(["unit_id", "unit_kind", "interval_start", "committed"]).to_pandas()


def _plan_day(outlook: Outlook, units: Units, state: State, last: pd.DataFrame | None) -> tuple[Made, State, pd.DataFrame]:
    from lakehouse.dispatch.rolling import state_after

    problem = problem_of(outlook, units, state)
    solution, told = _solved(outlook, problem, units, state, last)
    made = _judged(outlook, problem, solution, outlook.horizon().day, told)
    # what the tables keep of it and no more, so that days planned together begin as days planned one by one
    return made, _as_state(*state_after(problem, solution, outlook.horizon().day)), made.solution.plan


def _solved(
    outlook: Outlook, problem: DispatchProblem, units: Units, state: State, last: pd.DataFrame | None
) -> tuple[DispatchSolution, dict[str, Any]]:
    """The plan, and what the summary says about how it was made."""
    from lakehouse.dispatch import solve
    from lakehouse.dispatch.rolling import start_from
    from lakehouse.dispatch.stochastic import solve_stochastic

    fleet = fleet_of(outlook.workspace.site)
    threads = 1 if len(problem.thermal) * problem.horizon <= SMALL else 2
    if not fleet.scenarios or not problem.thermal:
        told: dict[str, Any] = {"planned_on": outlook.quantile, "expected_cost_eur": None, "recourse_eur": None}
        start = None if last is None else start_from(problem, last)
        return solve(problem, gap=fleet.gap, time_limit_seconds=fleet.time_limit_seconds, threads=threads, start=start), told
    drawn = scenarios(outlook, fleet.scenarios, fleet.scenario_correlation_hours, targets_of(outlook.workspace.site, units))
    found = solve_stochastic(
        [problem_of(one, units, state) for one in drawn],
        second_stage=quick_units(problem, fleet),
        gap=fleet.gap,
        time_limit_seconds=fleet.time_limit_seconds,
        threads=threads,
    )
    solution = solve(problem, kept=found.commitment, gap=fleet.gap, time_limit_seconds=fleet.time_limit_seconds, threads=1)
    told = {"planned_on": f"{fleet.scenarios} scenarios"}
    told |= {"expected_cost_eur": found.summary["expected_cost_eur"], "recourse_eur": found.summary["recourse_eur"]}
    status = "optimal" if found.summary["gap"] <= fleet.gap else "time_limit"
    seconds = solution.summary["solve_seconds"] + found.summary["seconds"]
    told["instead"] = {
        "objective_eur": found.summary["expected_cost_eur"], "bound_eur": found.summary["bound_eur"], "gap": found.summary["gap"],
        "status": status, "solve_seconds": seconds,
    }  # fmt: skip
    return solution, told


def quick_units(problem: DispatchProblem, fleet: Fleet) -> list[str]:
    """Units that may still be started on the day: their minimum times are short."""
    return [u.unit_id for u in problem.thermal if max(u.minimum_up_hours, u.minimum_down_hours) <= fleet.quick_start_hours]


def _judged(outlook: Outlook, problem: DispatchProblem, solution: DispatchSolution, intervals: int, told: dict[str, Any]) -> Made:
    """A plan with the checker's verdict, cut to its day, and the summary's facts."""
    from lakehouse.dispatch import check_solution
    from lakehouse.dispatch.settlement import first_part

    report = check_solution(problem, solution)
    cost = report.objective_eur
    solution.summary |= told.pop("instead", {})
    shown = problem, solution
    if intervals < problem.horizon:
        shown = first_part(problem, solution, intervals)
        cost = check_solution(*shown).objective_eur
    fleet = fleet_of(outlook.workspace.site)
    demand = outlook.forecast(fleet.demand)
    version = str(demand["model_version"].iloc[0])
    end = problem.interval_start[intervals - 1] + timedelta(hours=problem.interval_hours)
    facts = told | {
        "planned_from": problem.interval_start[0],
        "planned_until": end,
        "look_ahead_hours": (problem.horizon - intervals) * problem.interval_hours,
        "demand_forecast": f"{version} (fallback)" if bool(demand["is_fallback"].any()) else version,
        "fleet_version": outlook.workspace.table("cleaned/fleet").version(),
    }
    return Made(*shown, report, cost, facts)


def issue_instant(site: Site, day: date) -> datetime:
    """The issue time of a day's demand forecast, which the plan follows; UTC."""
    from lakehouse.flow.forecast import task_of

    return task_of(site, fleet_of(site).demand).issue_instants(day, day)[0].to_pydatetime()


# -- the state in which a plan begins


def state_before(workspace: Workspace, first: date, units: Units) -> State:
    """How the plan of the issue before left each unit: on or off since when, at which power, with how much energy stored."""
    span = (first - timedelta(days=STATE_DAYS), first - timedelta(days=1))
    plan = workspace.table("dispatch/plan").read(f"date BETWEEN DATE '{span[0]}' AND DATE '{span[1]}'").to_pandas()
    storage = workspace.table("dispatch/storage").read(f"date = DATE '{span[1]}'").to_pandas()
    state: dict[str, dict[str, Any]] = {}
    if plan.empty or plan["date"].max() != span[1]:
        return state
    known = {unit["unit_id"]: unit for unit in units}
    for name, rows in plan[plan["unit_kind"] == "thermal"].groupby("unit_id"):
        unit = known.get(str(name), {})
        if unit.get("kind") == "thermal":
            state[str(name)] = _thermal_state(rows.sort_values("interval_start"), unit)
    for name, rows in storage.groupby("storage_id"):
        unit = known.get(str(name), {})
        if unit.get("kind") == "storage":
            level = float(rows.sort_values("interval_start")["state_of_charge_mwh"].iloc[-1])
            state[str(name)] = {"initial_mwh": _within(level, unit.get("minimum_mwh", 0.0), unit.get("energy_mwh"))}
    return state


def _within(value: float, least: Any, most: Any) -> float:
    """A state of yesterday within today's limits, which may have changed with the fleet file; limits that are no numbers are told later."""
    numbers = [limit for limit in (least, most) if isinstance(limit, int | float)]
    return min(max(value, numbers[0]), numbers[1]) if len(numbers) == 2 else value


def _thermal_state(rows: pd.DataFrame, unit: Mapping[str, Any]) -> dict[str, Any]:
    committed = rows["committed"].to_numpy(dtype=bool)
    same = len(committed) if (committed == committed[-1]).all() else int((committed[::-1] != committed[-1]).argmax())
    power = _within(float(rows["power_mw"].iloc[-1]), unit.get("minimum_mw"), unit.get("maximum_mw"))
    return {
        "initially_on": bool(committed[-1]),
        "initial_power_mw": power if committed[-1] else 0.0,
        "initial_hours_in_state": same * float(rows["interval_minutes"].iloc[-1]) / 60 if same < len(committed) else 24.0 * STATE_DAYS,
    }


def _as_state(thermal: Sequence[ThermalUnit], storages: Sequence[Storage]) -> State:
    state: dict[str, dict[str, Any]] = {
        unit.unit_id: {name: getattr(unit, name) for name in ("initially_on", "initial_power_mw", "initial_hours_in_state")}
        for unit in thermal
    }
    return state | {store.storage_id: {"initial_mwh": store.initial_mwh} for store in storages}


# -- reading a plan back


def plan_of(workspace: Workspace, issue: date) -> StoredPlan:
    """A plan as the tables hold it, with its problem: the fleet's version and the issue that it was planned with.

    Raises:
        DispatchError: no plan of that day, or its fleet is gone.
    """
    fleet_of(workspace.site)
    found = workspace.table("dispatch/summary").read(f"date = DATE '{issue}'").column("fleet_version").to_pylist()
    units = _fleet_at(workspace, found[0] if found else None)
    return stored_plan(workspace, issue, units, state_before(workspace, issue, units), outlook_of(workspace, issue))


def _fleet_at(workspace: Workspace, version: int | None) -> list[dict[str, Any]]:
    from deltalake.exceptions import DeltaError

    try:
        return fleet_units(workspace, version)
    except (DeltaError, OSError, DispatchError):  # that version was vacuumed away
        return fleet_units(workspace)


def newest_issue(workspace: Workspace) -> date:
    """The newest issue day that has a plan.

    Raises:
        DispatchError: there is no plan yet.
    """
    fleet_of(workspace.site)
    planned = workspace.table("dispatch/plan").partitions_written()
    if not planned:
        raise DispatchError("There is no plan yet.", "Make one with: gridlake refresh")
    return max(planned)


def explain_unit(workspace: Workspace, unit: str, moment: datetime) -> list[str]:
    """Why a unit does what it does in an interval of the newest plan that holds it, in sentences with their numbers.

    Args:
        workspace: the site at work.
        unit: the unit.
        moment: a moment in the interval, UTC (taken as UTC if it has no zone).

    Raises:
        DispatchError: there is no fleet, no such unit, or no plan for that interval.
    """
    from lakehouse.dispatch import explain

    fleet_of(workspace.site)
    at = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    stored = plan_of(workspace, moment_in_plan(workspace, at))
    known = sorted(u["unit_id"] for u in stored.units if u["kind"] not in ("zone",))
    if unit not in known:
        raise DispatchError(f"There is no unit '{unit}' in that plan.", f"Its units: {', '.join(known)}.")
    told = explain(stored.problem, stored.solution, stored.name_in_plan(unit), at, workspace.site.time_zone)
    return [line.replace(stored.name_in_plan(unit), unit) for line in told]


# -- planning again


def replan(
    workspace: Workspace, moment: datetime, *, state: Mapping[str, Mapping[str, Any]] | None = None, notice_hours: float = 0.0
) -> Planned:
    """Plans the rest of a day again, from the state that its plan has reached or that is told, with the newest forecasts and fleet.

    What was planned before the moment stays as it is; the rows after it are replaced, and the summary gets one row more.

    Args:
        workspace: the site at work.
        moment: UTC; the first interval that begins at or after it is the first that can change.
        state: what differs from the plan, by unit: `on`, `power_mw`, `hours_in_state`, `energy_mwh`, `out_until` (moment with offset).
        notice_hours: how long before an interval a unit's commitment is final.

    Raises:
        DispatchError: no plan for that moment, nothing left of the day, or a state of an unknown unit.
    """
    from lakehouse.dispatch import rolling as trade

    fleet = fleet_of(workspace.site)
    issue = moment_in_plan(workspace, moment)
    units, outlook = fleet_units(workspace), outlook_of(workspace, issue)
    before = state_before(workspace, issue, units)
    last = stored_plan(workspace, issue, units, before, outlook)
    passed = sum(start < moment for start in last.problem.interval_start)
    if passed == 0:
        raise DispatchError(
            f"Nothing of the plan for {issue + timedelta(days=1)} has passed at {moment:%Y-%m-%d %H:%M} UTC.",
            "Plan the day anew: gridlake refresh",
        )
    if passed == last.problem.horizon:
        raise DispatchError(
            f"No interval begins after {moment:%Y-%m-%d %H:%M} UTC on {issue + timedelta(days=1)}.", "Give an earlier time."
        )
    thermal, storages = trade.state_after(last.problem, last.solution, passed)
    whole = problem_of(outlook, units, before)
    flexible = last.solution.exchange[last.solution.exchange["period"] <= passed]
    had = flexible.groupby("source_id")["power_mw"].sum().abs() * whole.interval_hours
    rest = trade.remaining(whole, passed, thermal, storages, had.to_dict())
    rest = _in_actual_state(rest, state or {})
    solution = trade.replan(rest, last.solution, notice_hours=notice_hours, gap=fleet.gap, time_limit_seconds=fleet.time_limit_seconds)
    told = {"planned_on": outlook.quantile, "expected_cost_eur": None, "recourse_eur": None}
    made = _judged(outlook, rest, solution, last.problem.horizon - passed, told)
    planned = Planned(days=[issue], breaches=[f"{issue}: {b.rule}: {b.text}" for b in made.report.breaches])
    rows = rows_of(workspace, {"issued_at": issue_instant(workspace.site, issue), "date": issue}, made, units, outlook)
    planned.summaries = rows[contracts.Summary.name]
    planned.picture = _picture(made, workspace.site, units)
    start = rest.interval_start[0]
    for contract in contracts.PLAN_TABLES:
        at = next(c for c in ("interval_start", "valid_from", "planned_from") if c in contract.columns)
        kept = workspace.table(contract.name).read(f"date = DATE '{issue}' AND {at} < TIMESTAMPTZ '{start.isoformat()}'").to_pylist()
        if contract is contracts.Plan:
            _mark_trips(kept, rows[contract.name])
        planned.commits[contract.name] = workspace.replace(
            contract.name,
            contract.from_rows([*kept, *rows[contract.name]]),
            where={"date": issue},
            inputs=[f"forecasts/{fleet.demand}", "cleaned/fleet"],
        )
    planned.setpoints = write_setpoints(workspace)
    return planned


def _mark_trips(before: list[dict[str, Any]], after: list[dict[str, Any]]) -> None:
    """A unit that was planned on and is off by its actual state has stopped, and the other way round."""
    last, first = max(row["interval_start"] for row in before), min(row["interval_start"] for row in after)
    was_on = {row["unit_id"]: row["committed"] for row in before if row["interval_start"] == last}
    for row in after:
        if row["interval_start"] == first and row["unit_id"] in was_on:
            row["started"] = row["committed"] and not was_on[row["unit_id"]]
            row["stopped"] = not row["committed"] and was_on[row["unit_id"]]


STATE_WORDS = {
    "on": "initially_on",
    "power_mw": "initial_power_mw",
    "hours_in_state": "initial_hours_in_state",
    "energy_mwh": "initial_mwh",
}


def _in_actual_state(problem: DispatchProblem, state: Mapping[str, Mapping[str, Any]]) -> DispatchProblem:
    known = {unit.unit_id: unit for unit in problem.thermal} | {store.storage_id: store for store in problem.storages}
    changed: dict[str, Any] = {}
    for name, told in state.items():
        if name not in known:
            raise DispatchError(
                f"The state names '{name}', which is no thermal unit or storage of the plan.", f"Known: {', '.join(sorted(known))}."
            )
        is_thermal = hasattr(known[name], "initially_on")
        allowed = {"on", "power_mw", "hours_in_state", "out_until"} if is_thermal else {"energy_mwh"}
        if not isinstance(told, Mapping) or (unknown := sorted(set(told) - allowed)):
            found = ", ".join(unknown) if isinstance(told, Mapping) else repr(told)
            raise DispatchError(f"The state of '{name}' says {found}.", f"A state may say: {', '.join(sorted(allowed))}.")
        try:
            changed[name] = _in_state(known[name], told, problem.interval_start[0])
        except (TypeError, ValueError) as error:
            raise DispatchError(
                f"The state of '{name}' can't be used: {error}.", "docs/dispatch.md shows how a state is written."
            ) from None
    return replace(
        problem,
        thermal=[changed.get(unit.unit_id, unit) for unit in problem.thermal],
        storages=[changed.get(store.storage_id, store) for store in problem.storages],
    )


def _in_state(unit: Any, told: Mapping[str, Any], now: datetime) -> Any:
    """A thermal unit or storage in the state that was told; what is not told follows from it, or stays as planned."""
    from lakehouse.dispatch.given import is_number

    for word in sorted(told.keys() & (STATE_WORDS.keys() - {"on"})):  # the unit itself would tell of its own parameters, not of these words
        if not is_number(told[word]):
            raise ValueError(f"expected {word} as a number, found {told[word]!r}")
    given = {STATE_WORDS[word]: value for word, value in told.items() if word in STATE_WORDS}
    if "out_until" in told:
        until = datetime.fromisoformat(str(told["out_until"]))
        until = until.replace(tzinfo=UTC) if until.tzinfo is None else until.astimezone(UTC)
        given |= {"outages": (*unit.outages, (now, until))}
        given = {"initially_on": False, "initial_power_mw": 0.0, "initial_hours_in_state": 0.0} | given
    elif given.get("initially_on") is False:
        given = {"initial_power_mw": 0.0, "initial_hours_in_state": 0.0} | given
    elif given.get("initially_on") and not unit.initially_on:
        given = {"initial_power_mw": unit.minimum_mw, "initial_hours_in_state": 0.0} | given
    return replace(unit, **given)


# -- set points


def setpoints_at(workspace: Workspace, moment: datetime | None = None) -> list[dict[str, Any]]:
    """What each asset is told to do at a moment (UTC; now, by default), by the newest plan that covers it.

    On a site whose clock is frozen, now is the present time of day on the newest planned day.

    Raises:
        DispatchError: no plan covers the moment.
    """
    fleet_of(workspace.site)
    if moment is None:
        moment = datetime.now(UTC)
        if workspace.site.clock is not None:
            local = moment.astimezone(workspace.site.zone)
            planned_day = newest_issue(workspace) + timedelta(days=1)
            moment = datetime.combine(planned_day, local.timetz(), workspace.site.zone).astimezone(UTC)
    issue = moment_in_plan(workspace, moment)
    instant = moment.isoformat()
    rows = workspace.table("dispatch/setpoints").read(
        f"date = DATE '{issue}' AND valid_from <= TIMESTAMPTZ '{instant}' AND valid_until > TIMESTAMPTZ '{instant}' ORDER BY asset_id"
    )
    return rows.to_pylist()


def setpoint_document(workspace: Workspace, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Set points as the JSON document that docs/dispatch.md describes."""
    import pandas as pd

    from lakehouse.dispatch.setpoints import setpoint_bodies

    table = pd.DataFrame(list(rows))
    return {
        "form": SETPOINTS_FORM,
        "site": workspace.site.name,
        "written_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "issued_at": max(row["issued_at"] for row in rows).isoformat(),
        "valid_from": min(row["valid_from"] for row in rows).isoformat(),
        "valid_until": max(row["valid_until"] for row in rows).isoformat(),
        "setpoints": setpoint_bodies(table),
    }


def write_setpoints(workspace: Workspace, out: Path | None = None, rows: Sequence[Mapping[str, Any]] | None = None) -> Path:
    """Writes set points as one JSON file, which appears whole or not at all.

    Args:
        workspace: the site at work.
        out: the file; by default `fleet.setpoints_file` in the site's folder.
        rows: rows of dispatch/setpoints; by default all of the newest plan.
    """
    if rows is None:
        rows = newest_setpoints(workspace)
    path = out or workspace.site.home / fleet_of(workspace.site).setpoints_file
    if not rows:
        return path
    text = json.dumps(setpoint_document(workspace, rows), indent=1)
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    aside.write_text(text + "\n", encoding="utf-8")
    aside.replace(path)
    return path


def newest_setpoints(workspace: Workspace) -> list[dict[str, Any]]:
    """All set points of the newest plan."""
    return workspace.table("dispatch/setpoints").read(f"date = DATE '{newest_issue(workspace)}' ORDER BY valid_from, asset_id").to_pylist()
