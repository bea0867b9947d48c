"""What a run is for, as its tags tell it, whoever asked for it; and which work has to wait.

Beside Dagster's own tags a run has `gridlake/work` (what it makes) and `gridlake/reason`, which the UI shows; and such as only programs
read and the UI hides (`resources.runs`), among them one that is the same for the same work on the same inputs within half an hour.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable
from datetime import timedelta

import dagster as dg
from dagster._core.storage.asset_check_execution_record import AssetCheckExecutionRecordStatus

from assets.skin import key_of
from lakehouse.flow.staleness import Step, token_of
from lakehouse.flow.workspace import Workspace
from resources.runs import ATTEMPT_TAG, FAILED_TAG

WORK_TAG = "gridlake/work"
REASON_TAG = "gridlake/reason"
PRIORITY_TAG = "dagster/priority"
TRY_AGAIN_AFTER_SECONDS = 1800
MOST_LOST = 3
"""Runs of the same attempt whose process was lost, after which it counts as failed: it may be the work that kills them."""

FRESH_DAYS = timedelta(days=2)
TODAY, OLDER_DAYS, TRAINING = 20, 10, 5
"""Priorities. Runs asked for by hand and backfills have none, which is 0; housekeeping has less."""


def tags_of(workspace: Workspace, step: Step) -> dict[str, str]:
    """A step's tags, its range of partitions among them."""
    tags = {
        WORK_TAG: str(step),
        REASON_TAG: step.reason,
        ATTEMPT_TAG: attempt_of(workspace, [step]),
        PRIORITY_TAG: str(priority_of(workspace, step)),
    }
    if step.days:
        tags |= {
            "dagster/asset_partition_range_start": step.days[0].isoformat(),
            "dagster/asset_partition_range_end": step.days[1].isoformat(),
        }
    return tags


def priority_of(workspace: Workspace, step: Step) -> int:
    """What concerns today goes before older days, these before training, and all of it before backfills."""
    if step.layer == "models":
        return TRAINING
    return TODAY if step.days is None or step.days[1] >= workspace.site.today() - FRESH_DAYS else OLDER_DAYS


def attempt_of(workspace: Workspace, steps: Iterable[Step]) -> str:
    """The same for the same steps on the same inputs (told by files' fingerprints and tables' versions) within half an hour."""
    tokens = hashlib.sha256("".join(token_of(workspace, step) for step in steps).encode()).hexdigest()[:16]
    return f"{tokens}-{int(time.time() // TRY_AGAIN_AFTER_SECONDS)}"


def failed_lately(workspace: Workspace, instance: dg.DagsterInstance, step: Step) -> bool:
    """Whether the same step on the same inputs failed within this half hour: it is passed over until the next."""
    failed = _failed(instance, attempt_of(workspace, [step]))
    return len(failed) >= MOST_LOST or any(FAILED_TAG in run.tags for run in failed)


def lost_lately(instance: dg.DagsterInstance, attempt: str, *, unless: str = FAILED_TAG) -> int:
    """How many runs of an attempt were stopped, killed or lost, so that it is worth another run at once; three at most.

    `unless` names the tag of runs that ended by what they did.
    """
    return sum(unless not in run.tags for run in _failed(instance, attempt))


def _failed(instance: dg.DagsterInstance, attempt: str) -> list[dg.DagsterRun]:
    failed = dg.RunsFilter(tags={ATTEMPT_TAG: attempt}, statuses=[dg.DagsterRunStatus.FAILURE])
    return list(instance.get_runs(failed, limit=MOST_LOST))


def held_back(repository: dg.RepositoryDefinition | None, instance: dg.DagsterInstance, steps: list[Step]) -> dict[Step, str]:
    """Steps that rest on a table whose blocking check failed last, with the reason: they wait until it passes."""
    if repository is None or not steps:
        return {}
    graph = repository.asset_graph
    resting = {s: set().union(*(graph.get_ancestor_asset_keys(key_of(t)) for t in s.tables)) - {key_of(t) for t in s.tables} for s in steps}
    blocking = [
        check
        for key in set().union(*resting.values())
        for check in graph.get_check_keys_for_assets({key})
        if graph.get_check_spec(check).blocking
    ]
    latest = instance.event_log_storage.get_latest_asset_check_execution_by_key(blocking)
    failed = {check for check, record in latest.items() if record.status is AssetCheckExecutionRecordStatus.FAILED}
    held = {}
    for step, keys in resting.items():
        for check in sorted(failed, key=str):
            if check.asset_key in keys:
                held[step] = f"{step} waits: the check {check.name} of {check.asset_key.to_user_string()} failed"
    return held
