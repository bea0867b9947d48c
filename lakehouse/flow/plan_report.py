"""The page of a stored plan: which plan, by which forecast and fleet, in the site's local time."""

from __future__ import annotations

from datetime import date, timedelta
from pathlib import Path

from lakehouse.errors import DispatchError
from lakehouse.flow.plan import newest_issue, plan_of
from lakehouse.flow.workspace import Workspace


def write_plan_report(workspace: Workspace, day: date | None = None, out: Path | None = None) -> Path:
    """Writes the report of a plan as one HTML file.

    Args:
        workspace: the site at work.
        day: local day that was planned; by default the newest.
        out: the file; by default plan-DAY.html in the current folder.

    Raises:
        DispatchError: there is no plan for that day.
    """
    from lakehouse.dispatch import check_plan
    from lakehouse.dispatch.report import plan_report

    issue = newest_issue(workspace) if day is None else day - timedelta(days=1)
    if issue not in workspace.table("dispatch/plan").partitions_written():
        newest = newest_issue(workspace) + timedelta(days=1)
        raise DispatchError(f"There is no plan for {day}.", f"The newest is for {newest}; older ones are listed in dispatch.summary.")
    stored = plan_of(workspace, issue)
    summary, site = stored.summary, workspace.site
    planned_day = issue + timedelta(days=1)
    stored.solution.summary["cost_eur"] = summary["cost_eur"]
    cost_title = "What it costs"
    facts = {
        "forecast": f"{summary['demand_forecast']}, issued {summary['issued_at'].tz_convert(site.zone):%d %B %H:%M}",
        "planned on": str(summary["planned_on"]),
        "solved in": f"{summary['build_seconds'] + summary['solve_seconds']:.1f} s",
        "clock": site.time_zone,
    }
    if summary["look_ahead_hours"]:
        facts["look-ahead"] = f"{summary['look_ahead_hours']:g} h"
        cost_title = "What it costs, look-ahead included"
    if summary["planned_from"] > stored.problem.interval_start[0]:
        again = f"{summary['planned_from'].tz_convert(site.zone):%H:%M}"
        facts["planned again from"] = again
        cost_title = f"What it costs from {again} on"
        plan = stored.solution
        whole = check_plan(stored.problem, plan.plan, plan.storage, plan.exchange, plan.flows, plan.violations)
        stored.solution.summary["cost_eur"] = whole.objective_eur
    page = plan_report(
        stored.problem,
        stored.solution,
        title=f"{site.title or site.name}: dispatch plan for {planned_day:%A, %-d %B %Y}",
        time_zone=site.time_zone,
        facts=facts,
        is_verified=bool(summary["is_verified"]),
        kind_of={unit["unit_id"]: unit["kind"] for unit in stored.units},
        name_of=stored.markets,
        cost_title=cost_title,
    )
    path = out or Path(f"plan-{planned_day}.html")
    path.write_text(page, encoding="utf-8")
    return path
