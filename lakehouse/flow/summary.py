"""What a site has, in a few figures: printed after a refresh."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lakehouse.flow.workspace import Workspace


def summarize(workspace: Workspace) -> dict[str, Any]:
    """Rows per table, forecast accuracy against the seasonal naive, and the newest plan."""
    rows = {name: sum(f.rows for f in known.files()) for name in workspace.contracts if (known := workspace.table(name)).exists()}
    told: dict[str, Any] = {"site": workspace.site.name, "rows": rows, "accuracy": [], "plan": None}
    with workspace.engine() as engine:
        from lakehouse.storage.engine import register

        if "quality/forecast_accuracy" in rows:
            table = register(engine, workspace.table("quality/forecast_accuracy"))
            told["accuracy"] = (
                engine.sql(f"""
                SELECT target, model, count(DISTINCT issued_at) AS issues, sum(mae * intervals) / sum(intervals) AS mae,
                       sum(wape_pct * intervals) / sum(intervals) AS wape_pct, sum(pinball * intervals) / sum(intervals) AS pinball,
                       sum(coverage_80_pct * intervals) / sum(intervals) FILTER (coverage_80_pct IS NOT NULL) AS coverage_80_pct
                FROM {table} WHERE intervals > 0 GROUP BY target, model ORDER BY target, mae""")
                .to_arrow_table()
                .to_pylist()
            )
        if rows.get("dispatch/summary"):
            table = register(engine, workspace.table("dispatch/summary"))
            told["plan"] = engine.sql(f"SELECT * FROM {table} ORDER BY issued_at DESC LIMIT 1").to_arrow_table().to_pylist()[0]
    return told


def as_lines(told: dict[str, Any], *, home: Path, seconds: float, steps: int) -> list[str]:
    """The summary for a terminal, with the next commands to try."""
    lines = [""]
    lines += [f"Site '{told['site']}': {'nothing was stale' if not steps else f'{steps} steps'} in {seconds:.0f} s.", ""]
    lines += ["Rows per table"]
    lines += [f"  {name.replace('/', '.'):<28} {count:>12,}" for name, count in told["rows"].items()]
    if told["accuracy"]:
        lines += ["", "Forecast accuracy of issued forecasts (mean absolute error; lower is better)"]
        naive = {a["target"]: a["mae"] for a in told["accuracy"] if a["model"] == "seasonal_naive"}
        for one in told["accuracy"]:
            against = f"{one['mae'] / naive[one['target']]:.2f} × seasonal naive" if naive.get(one["target"]) else ""
            cover = f"80 % interval covers {one['coverage_80_pct']:.0f} %" if one["coverage_80_pct"] is not None else ""
            lines.append(
                f"  {one['target']:<8} {one['model']:<16} {one['issues']:>4} issues   MAE {one['mae']:>10,.3f}   {against:<24} {cover}"
            )
    if told["plan"]:
        plan = told["plan"]
        lines += ["", f"Newest plan, issued {plan['issued_at']:%Y-%m-%d %H:%M} UTC"]
        verdict = "every constraint checked" if plan["is_verified"] else "NOT FEASIBLE"
        lines.append(
            f"  cost {plan['objective_eur']:,.2f} EUR, proven within {plan['gap_pct']:.3f} % of the best, "
            f"solved in {plan['solve_seconds']:.1f} s, {verdict}, {plan['unserved_mwh']:,.3f} MWh unserved"
        )
    # Commands are given with --home, so that they work from any folder.
    command = f"gridlake --home {home}"
    lines += ["", "Next", f"  {command} ui"]
    if "forecasts/demand" in told["rows"]:
        lines.append(f'  {command} sql "FROM forecasts.demand ORDER BY valid_at DESC LIMIT 24"')
    if told["plan"]:
        lines.append(f'  {command} sql "SELECT unit_id, sum(power_mw) AS mwh FROM dispatch.plan GROUP BY unit_id"')
    lines.append(f"  {command} tables")
    return lines
