"""features: what was knowable at the issue time, one table per target, partitioned by the local day of the issue."""

from __future__ import annotations

from collections.abc import Mapping

import dagster as dg

from assets.partitions import site_days, span_of, window
from assets.skin import Outcome, key_of, table_assets
from lakehouse.flow import forecast
from lakehouse.flow.tables import features_contract
from lakehouse.flow.workspace import Workspace
from lakehouse.site import Site


def feature_assets(site: Site) -> list[dg.AssetsDefinition]:
    """One asset per forecast target."""
    return [_features(site, target) for target in site.series]


def _features(site: Site, target: str) -> dg.AssetsDefinition:
    table = f"features/{target}"
    origin = site.first_utc_day()
    first, last = forecast.read_span(site, target, origin, origin)
    mapping = window((origin - first).days, (last - origin).days)

    @table_assets(
        features_contract(site, target),
        deps=[dg.AssetDep(key_of(t), partition_mapping=mapping) for t in forecast.inputs_of(site, target)],
        partitions=site_days(site),
        kinds=frozenset({"duckdb"}),
    )
    def features(context: dg.AssetExecutionContext, workspace: Workspace) -> Mapping[str, Outcome]:
        """Lags, calendar, sun, weather and the forecasts of others, each only as far as it was known at the issue time."""
        return {table: Outcome(forecast.make_features(workspace, target, *span_of(context)))}

    return features
