"""forecasts: what was issued, by local day of the issue, and how good it turned out to be."""

from __future__ import annotations

from collections.abc import Mapping

import dagster as dg

from assets import plots
from assets.partitions import site_days, span_of
from assets.skin import Outcome, check_result, check_spec, key_of, table_assets
from lakehouse.contracts import quality
from lakehouse.flow import drift, forecast
from lakehouse.flow.tables import forecasts_contract
from lakehouse.flow.workspace import Workspace
from lakehouse.site import Site


def forecast_assets(site: Site) -> list[dg.AssetsDefinition]:
    """One asset per forecast target, and the accuracy of all."""
    return [_forecasts(site, target) for target in site.series] + ([_accuracy(site)] if site.series else [])


def _forecasts(site: Site, target: str) -> dg.AssetsDefinition:
    table = f"forecasts/{target}"
    checks = [
        check_spec(table, "no_fallback", "The usual model made the forecast, with all its inputs."),
        check_spec(table, "error_drift", "The error since the champion's training, over the seasonal naive's, is what it was before."),
        check_spec(table, "input_drift", "The inputs since the champion's training lie where the training's did."),
    ]

    @table_assets(
        forecasts_contract(site, target),
        deps=[dg.AssetDep(key_of(f"features/{target}")), dg.AssetDep(key_of(f"models/{target}"))],
        partitions=site_days(site),
        checks=checks,
    )
    def forecasts(context: dg.AssetExecutionContext, workspace: Workspace) -> Mapping[str, Outcome]:
        """Issued by the newest promoted model that knew no more than the issue time. An issue is never made again."""
        issued = forecast.issue_forecasts(workspace, target, *span_of(context))
        told = (
            f"{issued.fallbacks} of the rows come from a fallback: {'; '.join(issued.reasons[:5])}"
            if issued.fallbacks
            else "No fallback was needed."
        )
        plot = plots.of_forecast(workspace, target, issued.newest) if issued.newest.num_rows else {}
        results = [check_result(table, "no_fallback", not issued.fallbacks, told)]
        for name, found in (("error_drift", drift.error_drift(workspace, target)), ("input_drift", drift.input_drift(workspace, target))):
            results.append(check_result(table, name, not found.is_drifting, found.told, **found.figures))
        return {table: Outcome(issued.commit, {"issues": issued.issues} | plot, results)}

    return forecasts


def _accuracy(site: Site) -> dg.AssetsDefinition:
    @table_assets(
        quality.ForecastAccuracy,
        quality.ForecastBreakdown,
        deps=[dg.AssetDep(key_of(f"forecasts/{t}")) for t in site.series],
        kinds=frozenset({"duckdb"}),
    )
    def accuracy(context: dg.AssetExecutionContext, workspace: Workspace) -> Mapping[str, Outcome]:
        """Every issue against what came, beside the seasonal naive and the operator's own forecast where the site has one."""
        return {name: Outcome(commit) for name, commit in forecast.score_forecasts(workspace).items()}

    return accuracy
