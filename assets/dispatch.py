"""dispatch: the day-ahead plan and what follows from it, partitioned by the local day of the issue that it follows."""

from __future__ import annotations

from collections.abc import Mapping

import dagster as dg

from assets.partitions import site_days, span_of, window
from assets.skin import Outcome, check_result, check_spec, key_of, picture, table_assets
from lakehouse.contracts import dispatch
from lakehouse.flow.plan import Planned, make_plans
from lakehouse.flow.regret import tell_regret
from lakehouse.flow.workspace import Workspace
from lakehouse.site import Site

PLAN = dispatch.Plan.name


def dispatch_assets(site: Site) -> list[dg.AssetsDefinition]:
    """The plan and its tables, and what not knowing the day cost, where the site has a fleet."""
    if site.fleet is None:
        return []
    return [_plan(site), _regret(site)]


def _plan(site: Site) -> dg.AssetsDefinition:
    assert site.fleet is not None
    targets = [t for t in site.series if t == site.fleet.demand or t in ("wind", "solar", "price")]
    checks = [
        check_spec(PLAN, "plan_is_feasible", "An independent checker finds every constraint met and the cost as claimed.", blocking=True),
        check_spec(PLAN, "all_demand_is_served", "No energy is unserved."),
        check_spec(PLAN, "gap_is_reached", "The plan is proven as near the best as the site asks for."),
    ]

    @table_assets(
        *dispatch.PLAN_TABLES,
        deps=[*(dg.AssetDep(key_of(f"forecasts/{t}")) for t in targets), dg.AssetDep(key_of("cleaned/fleet"))],
        partitions=site_days(site),
        checks=checks,
        kinds=frozenset({"highs"}),
        name="dispatch",
    )
    def plan(context: dg.AssetExecutionContext, workspace: Workspace) -> Mapping[str, Outcome]:
        """Unit commitment and economic dispatch of the next local day, solved by HiGHS, begun in the state the plan before leaves."""
        planned = make_plans(workspace, *span_of(context))
        outcomes = {t.name: Outcome(planned.commits[t.name]) for t in dispatch.PLAN_TABLES}
        outcomes[PLAN] = Outcome(planned.commits[PLAN], _told(planned), _judged(planned))
        if planned.setpoints:
            outcomes[dispatch.Setpoints.name].metadata["file"] = dg.MetadataValue.path(str(planned.setpoints))
        return outcomes

    return plan


def _regret(site: Site) -> dg.AssetsDefinition:
    assert site.fleet is not None
    tables = {s.table for t, s in site.series.items() if t == site.fleet.demand or t in ("wind", "solar", "price")}

    @table_assets(
        dispatch.Regret,
        deps=[dg.AssetDep(key_of(PLAN)), *(dg.AssetDep(key_of(t), partition_mapping=window(0, 2)) for t in sorted(tables))],
        partitions=site_days(site),
        kinds=frozenset({"highs"}),
    )
    def regret(context: dg.AssetExecutionContext, workspace: Workspace) -> Mapping[str, Outcome]:
        """The plan and the plan with perfect foresight, both settled on what came, once it is known."""
        told = tell_regret(workspace, *span_of(context))
        settled = [row for row in told.rows if row["regret_eur"] is not None]
        best = sum(row["perfect_cost_eur"] for row in settled)
        metadata: dict[str, object] = {
            "days_settled": len(settled),
            "regret_eur": round(told.regret_eur, 2),
            "perfect_cost_eur": round(best, 2),
        }
        return {dispatch.Regret.name: Outcome(told.commit, metadata)}

    return regret


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
    late = [f"{s['date']}: {s['gap_pct']:.2f} % ({s['status']})" for s in planned.summaries if s["status"] != "optimal"]
    reached = f"Not within fleet.gap in fleet.time_limit_seconds: {'; '.join(late[:10])}" if late else "All plans are as near as asked."
    query = 'gridlake sql "FROM dispatch.violations"'
    return [
        check_result(PLAN, "plan_is_feasible", not planned.breaches, feasible, blocking=True),
        check_result(PLAN, "all_demand_is_served", planned.unserved_mwh < 1e-6, served, look_at=query),
        check_result(PLAN, "gap_is_reached", not late, reached),
    ]
