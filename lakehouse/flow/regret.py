"""What not knowing the day cost: each plan, and the plan with perfect foresight, both settled on what came."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import Any

from lakehouse.contracts.dispatch import Regret
from lakehouse.errors import DispatchError
from lakehouse.flow.outlook import MissingActualsError, actuals
from lakehouse.flow.plan import SMALL, fleet_of, issue_instant, outlook_of, plan_of, quick_units, state_before
from lakehouse.flow.problem import problem_of, targets_of
from lakehouse.flow.workspace import Workspace
from lakehouse.site import Site
from lakehouse.storage.lake import Commit, days_between

REGRET_DAYS = 28
"""How many issue days back regret is told."""


@dataclass
class Told:
    """The regret of some plans."""

    commit: Commit
    rows: list[dict[str, Any]] = field(default_factory=list)

    @property
    def regret_eur(self) -> float:
        """Sum over the days that could be settled."""
        return sum(row["regret_eur"] for row in self.rows if row["regret_eur"] is not None)


def tell_regret(workspace: Workspace, first: date, last: date) -> Told:
    """Settles the plans of a span of issue days on what came; days without a plan have no row.

    Both plans are settled alike: commitments of slow units, the stores' schedules and shifted load stay as planned, quick units, trade
    and output follow the day, and reserve may be used. Perfect foresight begins in the state in which the plan began.
    """
    planned = workspace.table("dispatch/plan").partitions_written()
    rows = [_of_day(workspace, day) for day in days_between(first, last) if day in planned]
    commit = workspace.replace(
        Regret.name, Regret.from_rows(rows), where={"date": (first, last)}, inputs=["dispatch/plan", *_actuals_of(workspace.site)]
    )
    return Told(commit, rows)


def _of_day(workspace: Workspace, issue: date) -> dict[str, Any]:
    from lakehouse.dispatch import solve
    from lakehouse.dispatch.settlement import first_part, settle

    fleet = fleet_of(workspace.site)
    outlook = outlook_of(workspace, issue)
    row: dict[str, Any] = {
        "issued_at": issue_instant(workspace.site, issue), "date": issue, "planned_day": issue + timedelta(days=1), "missing": None,
        "settled_cost_eur": None, "perfect_cost_eur": None, "regret_eur": None, "regret_pct": None,
    }  # fmt: skip
    summaries = workspace.table("dispatch/summary").read(f"date = DATE '{issue}' ORDER BY planned_from").to_pylist()
    first = summaries[0]
    row["planned_cost_eur"] = first["objective_eur"] if first["cost_eur"] is None else first["cost_eur"]  # None: an older version's plan
    try:
        stored = plan_of(workspace, issue)
        outcome = actuals(outlook, targets_of(workspace.site, stored.units))
    except (MissingActualsError, DispatchError) as error:
        return row | {"missing": str(error).splitlines()[0]}
    came = problem_of(outcome, stored.units, state_before(workspace, issue, stored.units))
    limits = {"gap": fleet.gap, "time_limit_seconds": fleet.time_limit_seconds}
    perfect = solve(came, threads=1 if len(came.thermal) * came.horizon <= SMALL else 2, **limits)  # type: ignore[arg-type]
    day, foreseen = first_part(came, perfect, outlook.horizon().day)
    quick = quick_units(came, fleet)
    settled, best = (settle(day, plan, quick_units=quick, **limits) for plan in (stored.solution, foreseen))
    cost, least = settled.summary["objective_eur"], best.summary["objective_eur"]
    unserved = settled.violations[settled.violations["kind"] == "unserved energy"]["amount"].sum() * day.interval_hours
    bound = perfect.summary["bound_eur"] if day.horizon == came.horizon else None
    error_mwh = abs(stored.problem.total_demand_mw - day.total_demand_mw).sum() * day.interval_hours
    return row | {
        "settled_cost_eur": cost,
        "perfect_cost_eur": least,
        "perfect_bound_eur": bound if bound is not None and math.isfinite(bound) else None,
        "regret_eur": cost - least,
        "regret_pct": 100.0 * (cost - least) / least if least > 0 else None,
        "settled_unserved_mwh": float(unserved),
        "demand_error_mwh": float(error_mwh),
    }


def _actuals_of(site: Site) -> list[str]:
    fleet = fleet_of(site)
    return list(dict.fromkeys(site.series[t].table for t in site.series if t in (fleet.demand, "wind", "solar", "price")))


def regret_is_due(workspace: Workspace) -> list[date]:
    """Recent issue days whose plan or actuals are younger than what was told of them; actuals must have begun to come."""
    site = workspace.site
    planned = workspace.table("dispatch/plan").partitions_written()
    told = workspace.table(Regret.name).partitions_written()
    written = [workspace.table(name).partitions_written() for name in _actuals_of(site)]
    due = []
    for issue in sorted(planned)[-REGRET_DAYS:]:
        days = _utc_days(site, issue + timedelta(days=1))
        if not all(day in came for came in written for day in days):
            continue
        newest = max([planned[issue], *(came[day] for came in written for day in days)])
        if issue not in told or told[issue] < newest:
            due.append(issue)
    return due


def _utc_days(site: Site, local: date) -> Sequence[date]:
    """UTC days that a local day touches."""
    from datetime import UTC, time

    start, end = (datetime.combine(local + timedelta(days=n), time(), site.zone).astimezone(UTC) for n in (0, 1))
    return days_between(start.date(), (end - timedelta(microseconds=1)).date())
