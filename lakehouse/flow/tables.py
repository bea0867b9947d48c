"""Which tables a site has, each with its contract: what the site's feeds, series and fleet call for, and no more."""

from __future__ import annotations

from collections.abc import Callable

import pyarrow as pa

from lakehouse.contracts import cleaned, dispatch, quality
from lakehouse.contracts.base import Column, Table
from lakehouse.contracts.features import Features
from lakehouse.contracts.forecasts import Forecasts
from lakehouse.contracts.models import ModelVersions
from lakehouse.site import Site
from lakehouse.sources.base import contract_of

SERIES_TABLES: dict[str, Callable[[Site], type[Table]]] = {
    "load": lambda site: cleaned.Load,
    "generation": lambda site: cleaned.Generation,
    "prices": lambda site: cleaned.prices_in(site.currency),
    "weather": lambda site: cleaned.Weather,
    "external_forecasts": lambda site: cleaned.ExternalForecasts,
}


def tables_of(site: Site) -> dict[str, type[Table]]:
    """All tables of a site by name, in the order of the flow."""
    contracts: list[type[Table]] = [contract_of(name, feed.format) for name, feed in site.feeds.items()]
    if site.feeds_of("readings"):
        contracts += [cleaned.Meters, cleaned.MeterReadings, cleaned.RegisterDifferences]
    contracts += [contract(site) for table, contract in SERIES_TABLES.items() if feeds_into(site, table) or sums_meters(site, table)]
    if site.fleet:
        contracts.append(cleaned.FleetUnits)
    contracts += [quality.Deliveries, quality.Conservation, quality.Quarantine, quality.Codes]
    if site.feeds_of("readings"):
        contracts += [quality.VeeReport, quality.Edits]
    contracts += [features_contract(site, target) for target in site.series]
    contracts += [models_contract(target) for target in site.series]
    contracts += [forecasts_contract(site, target) for target in site.series]
    if site.series:
        contracts += [quality.ForecastAccuracy, quality.ForecastBreakdown]
    if site.fleet:
        contracts += dispatch.ALL
    contracts += [quality.Alerts, quality.Housekeeping]
    return {contract.name: contract for contract in contracts}


def feeds_into(site: Site, table: str) -> list[str]:
    """Series feeds that have values for a cleaned table."""
    return [name for name, feed in site.feeds_of("series").items() if not feed.provides or table in feed.provides]


def sums_meters(site: Site, table: str) -> bool:
    """Whether a cleaned table holds sums of meter readings."""
    return table == "load" and bool(site.metering.aggregates) and bool(site.feeds_of("readings"))


def features_contract(site: Site, target: str) -> type[Table]:
    """Contract of `features/<target>`: its columns follow from the site's inputs."""
    from lakehouse.flow.forecast import task_of
    from lakehouse.forecasting.features import feature_dictionary

    extra = [
        Column(description, unit=unit or None, nullable=True, name=name, type=pa.float64())
        for name, unit, description in feature_dictionary(task_of(site, target))
        if name not in Features.columns
    ]
    return Features.derive(
        f"features/{target}", doc=f"What was knowable when {target} was forecast, by series, issue and interval.", extra=extra
    )


def models_contract(target: str) -> type[Table]:
    """Contract of `models/<target>`."""
    return ModelVersions.derive(f"models/{target}", doc=f"Trained models of {target}: one row per version.")


def forecasts_contract(site: Site, target: str) -> type[Table]:
    """Contract of `forecasts/<target>`: its quantile columns follow from the site file."""
    from lakehouse.flow.forecast import task_of

    task = task_of(site, target)
    extra = [
        Column(f"{round(q * 100, 1):g} % quantile of {target}.", unit=task.unit, name=name, type=pa.float64())
        for q, name in zip(task.quantiles, task.quantile_columns, strict=True)
    ]
    return Forecasts.derive(f"forecasts/{target}", doc=f"Issued forecasts of {target}, with quantiles.", extra=extra)
