"""cleaned and quality: what is trusted, what was not believed, and where every delivered row went."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from typing import Any

import dagster as dg

from assets import plots
from assets.partitions import ANY_DELIVERY, site_days, span_of
from assets.skin import Outcome, check_result, check_spec, key_of, spec_of, table_assets
from lakehouse.contracts import cleaned, quality
from lakehouse.flow import clean
from lakehouse.flow.clean import Fate
from lakehouse.flow.tables import SERIES_TABLES, feeds_into, sums_meters
from lakehouse.flow.vee import found_by_rule
from lakehouse.flow.workspace import Workspace
from lakehouse.metering.rules import CHECKED_RULES, meaning
from lakehouse.site import Site

MOST_FOUND_SHARE = 0.01
"""Share of the delivered readings above which a rule's check warns."""
MOST_PICTURES = 4


def cleaned_assets(site: Site) -> list[dg.AssetsDefinition]:
    """The cleaned tables that this site's feeds fill."""
    assets = [codes]
    if any(feeds_into(site, table) for table in SERIES_TABLES):
        assets.append(_series(site))
    if site.feeds_of("readings"):
        assets += [_meters(site), _readings(site)]
    if sums_meters(site, "load"):
        assets.append(_load_of_meters(site))
    if site.fleet:
        assets.append(_fleet(site))
    return assets


def ledgers(site: Site) -> list[dg.AssetSpec]:
    """Tables that several steps write beside their own: reported by whichever step wrote."""
    cleaning = [f"cleaned/{t}" for t in SERIES_TABLES if feeds_into(site, t)] + (
        ["cleaned/meter_readings"] if site.feeds_of("readings") else []
    )
    registers = (
        [
            spec_of(
                cleaned.RegisterDifferences,
                doc="Written by cleaned/meter_readings, where register differences are delivered.",
                deps=[key_of("cleaned/meter_readings")],
            )
        ]
        if site.feeds_of("readings")
        else []
    )
    return [
        *registers,
        spec_of(quality.Deliveries, doc="Written by every raw table as it reads.", deps=[key_of(f"raw/{f}") for f in site.feeds]),
        spec_of(quality.Quarantine, doc="Written by the cleaned tables as they refuse rows.", deps=[key_of(t) for t in cleaning]),
        spec_of(quality.Conservation, doc="Written by the cleaned tables as they account for rows.", deps=[key_of(t) for t in cleaning]),
    ]


@table_assets(quality.Codes)
def codes(context: dg.AssetExecutionContext, workspace: Workspace) -> Mapping[str, Outcome]:
    """Written from the rules themselves, so that it can't fall behind them."""
    return {"quality/codes": Outcome(clean.write_codes(workspace))}


def _series(site: Site) -> dg.AssetsDefinition:
    tables = [table for table in SERIES_TABLES if feeds_into(site, table)]
    feeds = sorted({feed for table in tables for feed in feeds_into(site, table)})
    first = f"cleaned/{tables[0]}"

    @table_assets(
        *(SERIES_TABLES[table](site) for table in tables),
        deps=[dg.AssetDep(key_of(f"raw/{feed}"), partition_mapping=ANY_DELIVERY) for feed in feeds],
        partitions=site_days(site),
        checks=[_conservation_spec(first), check_spec(first, "dates_look_right", "Day and month are not exchanged in any series.")],
        kinds=frozenset({"duckdb"}),
        name="clean_series",
    )
    def series(context: dg.AssetExecutionContext, workspace: Workspace) -> Mapping[str, Outcome]:
        """Chooses among deliveries, refuses impossible and spiking values, and keeps one row per series and interval."""
        days = span_of(context)
        fate = clean.clean_series_days(workspace, *days)
        _report_ledgers(context, fate)
        outcomes = {
            f"cleaned/{t}": Outcome(fate.commits[f"cleaned/{t}"], _fate_metadata(fate) | plots.of_series(workspace, f"cleaned/{t}", days))
            for t in tables
        }
        dated = "; ".join(fate.swapped_dates[:5]) or "In no series do day and month look exchanged (judged on five months and more)."
        outcomes[first].checks += [_conservation(first, fate), check_result(first, "dates_look_right", not fate.swapped_dates, dated)]
        return outcomes

    return series


def _meters(site: Site) -> dg.AssetsDefinition:
    feeds = [*site.feeds_of("meters"), *site.feeds_of("readings")]

    @table_assets(cleaned.Meters, deps=[dg.AssetDep(key_of(f"raw/{feed}"), partition_mapping=ANY_DELIVERY) for feed in feeds])
    def meters(context: dg.AssetExecutionContext, workspace: Workspace) -> Mapping[str, Outcome]:
        """The newest delivery of the registry, and the meters that deliver without being in it."""
        return {"cleaned/meters": Outcome(clean.clean_meters(workspace))}

    return meters


def _readings(site: Site) -> dg.AssetsDefinition:
    table = "cleaned/meter_readings"
    checks = [_conservation_spec(table), check_spec(table, "mostly_measured", "At most a tenth of the readings had to be estimated.")]
    checks += [check_spec(table, rule, f"{meaning(rule)} At most {MOST_FOUND_SHARE:.0%} of the readings.") for rule in CHECKED_RULES]
    raw = [dg.AssetDep(key_of(f"raw/{feed}"), partition_mapping=ANY_DELIVERY) for feed in site.feeds_of("readings")]

    @table_assets(
        cleaned.MeterReadings,
        quality.VeeReport,
        quality.Edits,
        deps=[*raw, dg.AssetDep(key_of("cleaned/meters"))],
        partitions=site_days(site),
        checks=checks,
        kinds=frozenset({"duckdb"}),
        name="clean_meter_readings",
    )
    def readings(context: dg.AssetExecutionContext, workspace: Workspace) -> Mapping[str, Outcome]:
        """Validates, estimates and edits delivered readings: docs/metering.md tells every rule."""
        days = span_of(context)
        fate = clean.clean_readings_days(workspace, *days)
        _report_ledgers(context, fate)
        rows = max(fate.commits[table].rows, 1)
        measured = check_result(
            table,
            "mostly_measured",
            fate.estimated <= 0.1 * rows,
            f"{fate.estimated:,} of {rows:,} readings are estimated ({fate.estimated / rows:.1%}).",
            look_at='gridlake sql "SELECT rule, count(*) FROM cleaned.meter_readings WHERE is_estimated GROUP BY rule"',
        )
        told = _fate_metadata(fate) | {"estimated": fate.estimated} | plots.of_readings(workspace, days)
        return {
            table: Outcome(fate.commits[table], told, [_conservation(table, fate), measured, *_by_rule(workspace, table, fate, days)]),
            "quality/vee_report": Outcome(fate.commits["quality/vee_report"]),
            "quality/edits": Outcome(fate.commits["quality/edits"]),
        }

    return readings


def _by_rule(workspace: Workspace, table: str, fate: Fate, days: tuple[date, date]) -> list[dg.AssetCheckResult]:
    """A check for each rule: how much it found, the worst meters, and a picture of one of them."""
    found = found_by_rule(workspace, *days)
    pictured = sorted((rule for rule in CHECKED_RULES if rule in found), key=lambda rule: -found[rule].rows)[:MOST_PICTURES]
    results = []
    for rule in CHECKED_RULES:
        one = found.get(rule)
        if one is None:
            results.append(check_result(table, rule, True, "None found."))
            continue
        share = one.rows / max(fate.delivered, 1)
        worst = dg.MetadataValue.table([dg.TableRecord({"meter": m, "rows": n, "day": str(d)}) for m, n, d in one.worst])
        told: dict[str, Any] = {"rows": one.rows, "meters": one.meters, "worst_meters": worst}
        meter, _, day = one.worst[0]
        if rule in pictured and workspace.table("cleaned/meter_readings").exists():
            told["example"] = plots.of_meter(workspace, meter, day)
        words = f"{one.rows:,} rows of {one.meters:,} meters ({share:.2%} of what was delivered); most of {meter} on {day}."
        look_at = f"gridlake vee {meter} --from {day} --to {day}"
        results.append(check_result(table, rule, share <= MOST_FOUND_SHARE, words, look_at=look_at, **told))
    return results


def _load_of_meters(site: Site) -> dg.AssetsDefinition:
    @table_assets(
        cleaned.Load,
        deps=[dg.AssetDep(key_of("cleaned/meter_readings")), dg.AssetDep(key_of("cleaned/meters"))],
        partitions=site_days(site),
        kinds=frozenset({"duckdb"}),
    )
    def load(context: dg.AssetExecutionContext, workspace: Workspace) -> Mapping[str, Outcome]:
        """Sums the meters' import less export, in MW."""
        days = span_of(context)
        return {"cleaned/load": Outcome(clean.sum_meters_days(workspace, *days), plots.of_series(workspace, "cleaned/load", days))}

    return load


def _fleet(site: Site) -> dg.AssetsDefinition:
    assert site.fleet is not None

    @table_assets(cleaned.FleetUnits, deps=[dg.AssetDep(key_of(f"raw/{site.fleet.feed}"), partition_mapping=ANY_DELIVERY)])
    def fleet(context: dg.AssetExecutionContext, workspace: Workspace) -> Mapping[str, Outcome]:
        """The newest delivery of the fleet."""
        return {"cleaned/fleet": Outcome(clean.clean_fleet(workspace))}

    return fleet


def _conservation_spec(table: str) -> dg.AssetCheckSpec:
    return check_spec(
        table, "nothing_is_lost", "Delivered rows = cleaned + edited + superseded + exact duplicates + quarantined.", blocking=True
    )


def _conservation(table: str, fate: Fate) -> dg.AssetCheckResult:
    told = f"All {fate.delivered:,} delivered rows are accounted for; {fate.quarantined:,} of them are in quarantine."
    lost = "Delivered rows are missing from cleaned, duplicates and quarantine together. This is a bug."
    query = 'gridlake sql "SELECT * FROM quality.conservation WHERE NOT is_conserved"'
    return check_result(table, "nothing_is_lost", fate.is_conserved, told if fate.is_conserved else lost, blocking=True, look_at=query)


def _fate_metadata(fate: Fate) -> dict[str, object]:
    return {"delivered": fate.delivered, "quarantined": fate.quarantined, "refused_by_rule": dg.MetadataValue.json(fate.refused_by_rule)}


def _report_ledgers(context: dg.AssetExecutionContext, fate: Fate) -> None:
    for table in ("quality/quarantine", "quality/conservation", "cleaned/register_differences"):
        commit = fate.commits.get(table)
        if commit is None:
            continue
        context.log_event(
            dg.AssetMaterialization(key_of(table), metadata={"rows": commit.rows, "bytes": commit.bytes, "delta_version": commit.version})
        )
