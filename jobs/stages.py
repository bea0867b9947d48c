"""Making what is stale, stage after stage, in this process: for `gridlake refresh` and for the run that the sensor asks for.

Each step is a run of its own in Dagster's records. What is stale is told by `lakehouse.flow.staleness`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping

import dagster as dg

from jobs.refreshed import Refreshed, Tell
from jobs.work import tags_of
from lakehouse.flow.staleness import Step
from lakehouse.flow.workspace import Workspace
from resources.runs import PUBLISHES_TAG, process_tags

MOST_ROUNDS = 60
PUBLISHED_AFTER = ("dispatch",)
"""The catalog follows when the plan is there, and at the end; every step on its own would cost more than many a step."""


def bring_up(
    workspace: Workspace,
    all_assets: dg.JobDefinition,
    instance: dg.DagsterInstance,
    stale: Callable[[Callable[[Step], bool]], list[Step]],
    tell: Tell,
    *,
    tags: Mapping[str, str] | None = None,
    stops_at_failure: bool = True,
) -> Refreshed:
    """Materializes stage after stage in this process; each step is a run of its own in Dagster's records.

    Args:
        workspace: the site at work.
        all_assets: the job of all the site's assets.
        instance: where the runs are kept.
        stale: the steps of the first stage that is stale, without those that the given function tells to pass over.
        tell: told of each step as it begins and ends.
        tags: further tags of the runs.
        stops_at_failure: whether nothing follows the stage in which a step failed; otherwise what does not rest on it goes on.
    """
    done = Refreshed()
    seen: set[Step] = set()
    for _ in range(MOST_ROUNDS):
        steps = stale(seen.__contains__)
        if not steps or (done.failed and stops_at_failure):
            break
        for step in steps:
            seen.add(step)
            tell("start", step, 0.0)
            begun = time.perf_counter()
            fault = _run(workspace, all_assets, instance, step, tags or {})
            seconds = time.perf_counter() - begun
            if fault:
                done.failed.append((step, fault))
            else:
                done.steps.append((step, seconds))
            tell("failed" if fault else "done", step, seconds)
        if any(step.layer in PUBLISHED_AFTER for step in steps):
            workspace.publish()
    workspace.publish()
    return done


def _run(workspace: Workspace, all_assets: dg.JobDefinition, instance: dg.DagsterInstance, step: Step, tags: Mapping[str, str]) -> str:
    """Runs one step; returns what went wrong, or nothing."""
    selection = [dg.AssetKey(table.split("/")) for table in step.tables]  # the UI shows it as the run's target
    quiet = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
    told = {**tags, **tags_of(workspace, step), **process_tags(), PUBLISHES_TAG: "at the end"}
    result = all_assets.execute_in_process(instance=instance, asset_selection=selection, raise_on_error=False, tags=told, run_config=quiet)
    return "" if result.success else fault_of(result.all_events)


def fault_of(events: Iterable[dg.DagsterEvent]) -> str:
    """What went wrong in a run, in the words of the failure itself."""
    told = []
    for event in events:
        if not event.is_step_failure:
            continue
        failure = event.step_failure_data
        if failure.user_failure_data and failure.user_failure_data.description:
            told.append(failure.user_failure_data.description)
        elif failure.error:
            cause = failure.error
            while cause.cause:
                cause = cause.cause
            told.append(cause.message.strip())
    return "\n".join(told) or "the run failed; the Dagster UI shows where"
