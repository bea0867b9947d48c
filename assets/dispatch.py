"""dispatch: the day-ahead plan, partitioned by the local day of the issue that it follows."""

from __future__ import annotations

from collections.abc import Mapping

import dagster as dg

from assets.partitions import site_days, span_of
from assets.skin import Outcome, check_result, check_spec, key_of, picture, table_assets
from lakehouse.contracts import dispatch
from lakehouse.flow.plan import Planned, make_plans
from lakehouse.flow.workspace import Workspace
from lakehouse.site import Site

PLAN = dispatch.Plan.name


def dispatch_assets(site: Site) -> list[dg.AssetsDefinition]:
    """The plan and its tables, where the site has a fleet."""
    if site.fleet is None:
        return []
    targets = [t for t in site.series if t == site.fleet.demand or t in ("wind", "solar", "price")]
    checks = [
        check_spec(PLAN, "plan_is_feasible", "An independent checker finds every constraint met and the cost as claimed.", blocking=True),
        check_spec(PLAN, "all_demand_is_served", "No energy is unserved."),
    ]

    @table_assets(
        *dispatch.ALL,
        deps=[*(dg.AssetDep(key_of(f"forecasts/{t}")) for t in targets), dg.AssetDep(key_of("cleaned/fleet"))],
        partitions=site_days(site),
        checks=checks,
        kinds=frozenset({"highs"}),
        name="dispatch",
    )
    def plan(context: dg.AssetExecutionContext, workspace: Workspace) -> Mapping[str, Outcome]:
        """Unit commitment and economic dispatch of the next local day, solved by HiGHS, begun in the state the plan before leaves."""
        planned = make_plans(workspace, *span_of(context))
        outcomes = {t.name: Outcome(planned.commits[t.name]) for t in dispatch.ALL}
        outcomes[PLAN] = Outcome(planned.commits[PLAN], _told(planned), _judged(planned))
        return outcomes

    return [plan]


def _told(planned: Planned) -> dict[str, object]:
    if not planned.summaries:
        return {"plans": 0}
    last = planned.summaries[-1]
    told = {
        "plans": len(planned.summaries),
        "cost_eur": round(last["objective_eur"], 2),
        "gap_pct": round(last["gap_pct"], 4),
        "status": last["status"],
    }
    return told | {"plot": picture(planned.picture)}


def _judged(planned: Planned) -> list[dg.AssetCheckResult]:
    feasible = "; ".join(planned.breaches[:10]) or f"{len(planned.days)} plans keep every constraint, and cost what they say."
    served = f"{planned.unserved_mwh:,.3f} MWh can't be served." if planned.unserved_mwh else "All demand is served."
    query = 'gridlake sql "FROM dispatch.violations"'
    return [
        check_result(PLAN, "plan_is_feasible", not planned.breaches, feasible, blocking=True),
        check_result(PLAN, "all_demand_is_served", planned.unserved_mwh < 1e-6, served, look_at=query),
    ]
