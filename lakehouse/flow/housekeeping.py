"""Keeping the lake small: old versions and orphan files go, logs are checkpointed, and what each table takes is told.

It does not disturb those who write or read: the newest version and every younger than the retention stay as they are.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Any

from lakehouse.contracts.quality import Housekeeping
from lakehouse.flow.workspace import Workspace
from lakehouse.storage.lake import Commit


def keep_house(workspace: Workspace) -> tuple[Commit, list[dict[str, Any]]]:
    """Cleans every table of the site, and writes `quality/housekeeping` anew.

    Files that no version younger than `housekeeping.keep_versions_days` uses are removed, those of killed writers as well; older
    versions then can't be read any more. The log gets a checkpoint, so that opening a table costs the same on its thousandth
    day as on its first.

    Returns:
        The commit, and a row per table.
    """
    retention_hours = workspace.site.housekeeping.keep_versions_days * 24
    rows = []
    for name in workspace.contracts:
        table = workspace.table(name)
        if name == Housekeeping.name or not table.exists():
            continue
        begun = time.perf_counter()
        removed = table.vacuum(retention_hours, full=True, dry_run=True)
        if removed:  # a vacuum that removes nothing would still be two commits
            removed = table.vacuum(retention_hours, full=True)
        table.checkpoint()
        files = table.files()
        by_partition: dict[tuple[Any, ...], int] = {}
        for one in files:
            key = tuple(one.partition.values())
            by_partition[key] = by_partition.get(key, 0) + 1
        rows.append(
            {
                "table": name,
                "looked_at": datetime.now(UTC),
                "version": table.version(),
                "rows": sum(f.rows for f in files),
                "files": len(files),
                "bytes": sum(f.bytes for f in files),
                "most_files_of_a_partition": max(by_partition.values(), default=0),
                "removed_files": len(removed),
                "seconds": time.perf_counter() - begun,
            }
        )
    return workspace.replace(Housekeeping.name, Housekeeping.from_rows(rows)), rows
