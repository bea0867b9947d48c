"""forecasts: what was issued, by local day of the issue, and how good it turned out to be."""

from __future__ import annotations

from collections.abc import Mapping

import dagster as dg

from assets import plots
from assets.partitions import site_days, span_of
from assets.skin import Outcome, check_result, check_spec, key_of, table_assets
from lakehouse.contracts import quality
from lakehouse.flow import forecast
from lakehouse.flow.tables import forecasts_contract
from lakehouse.flow.workspace import Workspace
from lakehouse.site import Site


def forecast_assets(site: Site) -> list[dg.AssetsDefinition]:
    """One asset per forecast target, and the accuracy of all."""
    return [_forecasts(site, target) for target in site.series] + ([_accuracy(site)] if site.series else [])


def _forecasts(site: Site, target: str) -> dg.AssetsDefinition:
    table = f"forecasts/{target}"
    usual = check_spec(table, "no_fallback", "The usual model made the forecast, with all its inputs.")

    @table_assets(
        forecasts_contract(site, target),
        deps=[dg.AssetDep(key_of(f"features/{target}")), dg.AssetDep(key_of(f"models/{target}"))],
        partitions=site_days(site),
        checks=[usual],
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
        return {
            table: Outcome(
                issued.commit, {"issues": issued.issues} | plot, [check_result(table, "no_fallback", not issued.fallbacks, told)]
            )
        }

    return forecasts


def _accuracy(site: Site) -> dg.AssetsDefinition:
    @table_assets(quality.ForecastAccuracy, deps=[dg.AssetDep(key_of(f"forecasts/{t}")) for t in site.series], kinds=frozenset({"duckdb"}))
    def accuracy(context: dg.AssetExecutionContext, workspace: Workspace) -> Mapping[str, Outcome]:
        """Every issue against what came, beside the seasonal naive and the operator's own forecast where the site has one."""
        return {"quality/forecast_accuracy": Outcome(forecast.score_forecasts(workspace))}

    return accuracy
