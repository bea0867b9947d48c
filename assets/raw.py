"""raw: what was delivered, as rows; one table per feed, partitioned by delivery date."""

from __future__ import annotations

import dagster as dg

from assets.partitions import days_of, site_days
from assets.skin import Outcome, key_of, table_asset
from lakehouse.flow.raw import read_deliveries
from lakehouse.flow.workspace import Workspace
from lakehouse.site import Feed, Site
from lakehouse.sources.base import contract_of

LISTED_DAYS = 400


def raw_assets(site: Site) -> list[dg.AssetsDefinition]:
    """One asset per feed."""
    return [_raw_asset(site, name, feed) for name, feed in site.feeds.items()]


def landing_assets(site: Site) -> list[dg.AssetSpec]:
    """The landing folders, as external assets: where the lineage begins."""
    return [
        dg.AssetSpec(
            key_of(f"landing/{name}"),
            group_name="landing",
            kinds={"file"},
            partitions_def=site_days(site),
            description=f"Files as delivered, in {site.paths.landing}/{name}/<delivery date>/, in the format {feed.format}.",
        )
        for name, feed in site.feeds.items()
    ]


def _raw_asset(site: Site, name: str, feed: Feed) -> dg.AssetsDefinition:
    contract = contract_of(name, feed.format)
    readable = dg.AssetCheckSpec("files_are_readable", asset=key_of(contract.name), description="Every file and line could be read; the others are in quality/quarantine.")

    @table_asset(contract, deps=[dg.AssetDep(key_of(f"landing/{name}"))], partitions=site_days(site), checks=[readable])
    def raw(context: dg.AssetExecutionContext, workspace: Workspace) -> Outcome:
        """Reads the deliveries' files to rows that name file, line and delivery. A pure function of landing."""
        read = read_deliveries(workspace, name, days_of(context))
        unread = dg.AssetCheckResult(
            check_name="files_are_readable",
            passed=read.faulty_rows == 0,
            severity=dg.AssetCheckSeverity.WARN,
            description=f"{read.faulty_rows:,} of {read.rows:,} rows in {read.files:,} files could not be read.",
            metadata={"look_at": f"SELECT file, line, fault, raw_text FROM raw.{name} WHERE fault IS NOT NULL"},
        )
        touched = [d.isoformat() for d in read.touched]
        told = {"files": read.files, "faulty_rows": read.faulty_rows, "touched_days": len(touched), "touched": dg.MetadataValue.json(touched[:LISTED_DAYS])}
        return Outcome(read.commits[-1] if read.commits else None, told | {"rows": read.rows}, [unread])

    return raw
