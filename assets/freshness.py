"""Freshness by data time: for each feed, whether the newest day that it has data of to the end is the one that is due.

Not by materialization: a backfilled partition makes no feed fresh. The sensor `tell_what_is_wrong` reports the checks whenever what
they say changes, and every hour; they can also be run by hand.
"""

from collections.abc import Iterator
from datetime import UTC, date, datetime
from typing import Any

import dagster as dg

from assets.skin import check_spec, key_of
from lakehouse.flow.watch import freshness
from lakehouse.flow.workspace import Workspace
from lakehouse.site import Site
from lakehouse.sources.base import contract_of
from resources import WorkspaceResource

CHECK = "data_is_fresh"


def freshness_checks(site: Site) -> list[dg.AssetChecksDefinition]:
    """One check for each feed whose rows have an interval, all in one step."""
    tables = [f"raw/{name}" for name, feed in site.feeds.items() if "interval_start" in contract_of(name, feed.format).columns]
    if not tables:
        return []
    told = "The newest day with data to its end is the one that is due by alerts.due_by, less the feed's delivery_delay_days."

    @dg.multi_asset_check(specs=[check_spec(table, CHECK, told) for table in tables], name=CHECK, can_subset=True)
    def checks(context: dg.AssetCheckExecutionContext, workspace: WorkspaceResource) -> Iterator[dg.AssetCheckResult]:
        for key, found in judged(workspace.open(), datetime.now(UTC)).items():
            if dg.AssetCheckKey(key, CHECK) in context.selected_asset_check_keys:
                yield dg.AssetCheckResult(asset_key=key, check_name=CHECK, severity=dg.AssetCheckSeverity.WARN, **found)

    return [checks]


def evaluations(workspace: Workspace, now: datetime) -> list[dg.AssetCheckEvaluation]:
    """The checks' results as events, for who reports them without a run."""
    return [
        dg.AssetCheckEvaluation(
            asset_key=key,
            check_name=CHECK,
            passed=found["passed"],
            severity=dg.AssetCheckSeverity.WARN,
            description=found["description"],
            metadata={
                name: dg.MetadataValue.text(value) if isinstance(value, str) else dg.MetadataValue.int(value)
                for name, value in found["metadata"].items()
            },
        )
        for key, found in judged(workspace, now).items()
    ]


def judged(workspace: Workspace, now: datetime) -> dict[dg.AssetKey, dict[str, Any]]:
    """What the check of each feed says at an instant (UTC): passed, description, metadata."""
    return {key_of(f"raw/{feed}"): _judged(newest, due, feed) for feed, (newest, due) in freshness(workspace, now).items()}


def _judged(newest: date | None, due: date, feed: str) -> dict[str, Any]:
    if newest is None:
        return {"passed": True, "description": f"Nothing of {feed} has come as yet.", "metadata": {"due_day": due.isoformat()}}
    late = max((due - newest).days, 0)
    told = f"The newest whole day is {newest}; {due} is due."
    remedy = f" {late} day{'s' if late > 1 else ''} late: ask who delivers, then gridlake land {feed} FILES." if late else ""
    metadata = {"newest_whole_day": newest.isoformat(), "due_day": due.isoformat(), "days_late": late}
    return {"passed": late == 0, "description": told + remedy, "metadata": metadata}
