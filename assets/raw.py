"""raw: what was delivered, as rows; one table per feed, partitioned by delivery date."""

from __future__ import annotations

from collections.abc import Mapping

import dagster as dg

from assets.partitions import days_of, site_days
from assets.skin import Outcome, check_result, check_spec, key_of, table_assets
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


def _raw_asset(site: Site, feed_name: str, feed: Feed) -> dg.AssetsDefinition:
    table = f"raw/{feed_name}"
    readable = check_spec(table, "files_are_readable", "Every line of every file could be read; the others are in quality/quarantine.")

    @table_assets(
        contract_of(feed_name, feed.format),
        deps=[dg.AssetDep(key_of(f"landing/{feed_name}"))],
        partitions=site_days(site),
        checks=[readable],
    )
    def raw(context: dg.AssetExecutionContext, workspace: Workspace) -> Mapping[str, Outcome]:
        """Reads the deliveries' files to rows that name file, line and delivery: a pure function of landing."""
        read = read_deliveries(workspace, feed_name, days_of(context))
        told = {
            "rows": read.rows,
            "files": read.files,
            "faulty_rows": read.faulty_rows,
            "touched_days": dg.MetadataValue.json([d.isoformat() for d in read.touched[:LISTED_DAYS]]),
        }
        unread = check_result(
            table,
            "files_are_readable",
            read.faulty_rows == 0,
            f"{read.faulty_rows:,} of {read.rows:,} rows in {read.files:,} files could not be read.",
            look_at=f'gridlake sql "SELECT file, line, fault, raw_text FROM raw.{feed_name} WHERE fault IS NOT NULL"',
        )
        return {table: Outcome(read.commits[-1] if read.commits else None, told, [unread])}

    return raw
