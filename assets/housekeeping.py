"""quality/housekeeping: the nightly cleaning of the lake, and what each table takes."""

from __future__ import annotations

from collections.abc import Mapping

import dagster as dg

from assets.skin import Outcome, table_assets
from lakehouse.contracts import quality
from lakehouse.flow.housekeeping import keep_house
from lakehouse.flow.workspace import Workspace
from resources.logs import forget_old_logs


@table_assets(quality.Housekeeping)
def housekeeping(context: dg.AssetExecutionContext, workspace: Workspace) -> Mapping[str, Outcome]:
    """Removes old versions and orphan files of every table, checkpoints their logs, and removes what old runs printed; runs by night."""
    commit, rows = keep_house(workspace)
    forgotten = forget_old_logs(workspace.site.path("dagster"), workspace.site.housekeeping.keep_versions_days)
    largest = sorted(rows, key=lambda row: -row["bytes"])[:12]
    lines = ["| table | rows | files | MB | removed files |", "| --- | --- | --- | --- | --- |"]
    lines += [f"| {r['table']} | {r['rows']:,} | {r['files']:,} | {r['bytes'] / 1e6:,.1f} | {r['removed_files']:,} |" for r in largest]
    metadata = {
        "lake_bytes": sum(r["bytes"] for r in rows),
        "files": sum(r["files"] for r in rows),
        "removed_files": sum(r["removed_files"] for r in rows),
        "removed_logs_of_runs": forgotten.runs,
        "removed_log_bytes": forgotten.bytes,
        "largest_tables": dg.MetadataValue.md("\n".join(lines)),
    }
    return {quality.Housekeeping.name: Outcome(commit, metadata)}
