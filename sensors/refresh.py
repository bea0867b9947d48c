"""The sensor that keeps the site up to date: what arrived is read, and whatever rests on it follows, layer by layer.

It takes the steps of `lakehouse.flow.staleness`, as `gridlake refresh` does, so it also finishes what a killed run left undone.
"""

import json
import time

import dagster as dg
from dagster._core.storage.asset_check_execution_record import AssetCheckExecutionRecordStatus

from assets.skin import key_of
from lakehouse.errors import GridlakeError
from lakehouse.flow.staleness import Step, next_steps, pulse, token_of
from lakehouse.flow.workspace import Workspace
from lakehouse.site import Site
from lakehouse.storage.lake import days_between
from resources import WorkspaceResource

EVERY_SECONDS = 5
SETTLED_AFTER_SECONDS = 2.0
TRY_AGAIN_AFTER_SECONDS = 1800
STEP_TAG = "gridlake/step"
WORK_TAG = "gridlake/work"
"""What a run is for, whoever asked for it; `STEP_TAG` is set by the sensor only, which waits for runs that have it."""
UNFINISHED = [dg.DagsterRunStatus.QUEUED, dg.DagsterRunStatus.NOT_STARTED, dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED]


def refresh_sensor(site: Site) -> dg.SensorDefinition:
    """The sensor of a site, running from the start."""
    groups = dg.AssetSelection.groups("raw", "cleaned", "features", "models", "forecasts", "dispatch", "quality")

    @dg.sensor(
        name="refresh_what_is_stale",
        asset_selection=groups,
        minimum_interval_seconds=EVERY_SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Asks for runs of what arrivals in landing made stale: first raw, then what rests on it.",
    )
    def refresh(context: dg.SensorEvaluationContext, workspace: WorkspaceResource) -> dg.SensorResult | dg.SkipReason:
        at_work = workspace.open()
        seen = json.loads(context.cursor or "{}")
        beat = pulse(at_work)
        if beat == seen.get("pulse"):
            return dg.SkipReason("Nothing arrived and nothing changed.")
        try:
            steps = [s for s in next_steps(at_work) if not _is_being_written(at_work, s)]
        except GridlakeError as error:
            return dg.SkipReason(str(error))
        held = _held_back(context, steps)
        steps = [s for s in steps if s not in held]
        running = {run.tags.get(STEP_TAG) for run in context.instance.get_runs(dg.RunsFilter(statuses=UNFINISHED))}
        waiting = [s for s in steps if str(s) in running]
        asked = [_request(at_work, s) for s in steps if str(s) not in running]
        # With nothing to do the next ticks are cheap; otherwise the lake will change when the runs end.
        cursor = json.dumps({"pulse": beat if not steps else ""})
        if not asked:
            idle = f"Waiting for {len(waiting)} runs." if waiting else "; ".join(held.values()) or "All is up to date."
            return dg.SensorResult(skip_reason=idle, cursor=cursor)
        return dg.SensorResult(run_requests=asked, cursor=cursor, asset_events=_arrivals(at_work, steps))

    return refresh


def _request(workspace: Workspace, step: Step) -> dg.RunRequest:
    tags = {STEP_TAG: str(step), WORK_TAG: str(step), "gridlake/reason": step.reason}
    if step.days:
        tags |= {
            "dagster/asset_partition_range_start": step.days[0].isoformat(),
            "dagster/asset_partition_range_end": step.days[1].isoformat(),
        }
    # The same step on the same inputs is asked for once; should it fail, once more every half hour.
    run_key = f"{token_of(workspace, step)}-{int(time.time() // TRY_AGAIN_AFTER_SECONDS)}"
    return dg.RunRequest(run_key=run_key, asset_selection=[dg.AssetKey(t.split("/")) for t in step.tables], tags=tags)


def _held_back(context: dg.SensorEvaluationContext, steps: list[Step]) -> dict[Step, str]:
    """Steps that rest on a table whose blocking check failed last, with the reason: they wait until it passes."""
    graph = context.repository_def.asset_graph if context.repository_def else None
    if graph is None or not steps:
        return {}
    resting = {s: set().union(*(graph.get_ancestor_asset_keys(key_of(t)) for t in s.tables)) - {key_of(t) for t in s.tables} for s in steps}
    blocking = [
        check
        for key in set().union(*resting.values())
        for check in graph.get_check_keys_for_assets({key})
        if graph.get_check_spec(check).blocking
    ]
    latest = context.instance.event_log_storage.get_latest_asset_check_execution_by_key(blocking)
    failed = {check for check, record in latest.items() if record.status is AssetCheckExecutionRecordStatus.FAILED}
    held = {}
    for step, keys in resting.items():
        for check in sorted(failed, key=str):
            if check.asset_key in keys:
                held[step] = f"{step} waits: the check {check.name} of {check.asset_key.to_user_string()} failed"
    return held


def _arrivals(workspace: Workspace, steps: list[Step]) -> list[dg.AssetObservation]:
    """What arrived, as observations of the landing folders."""
    found = []
    for step in steps:
        if step.layer != "raw" or not step.days:
            continue
        feed = step.tables[0].split("/", 1)[1]
        for day in days_between(*step.days):
            files = list(workspace.landing.arrivals(feed, day))
            if files:
                metadata = {"files": len(files), "bytes": sum(a.stamp()[0] for a in files)}
                found.append(dg.AssetObservation(key_of(f"landing/{feed}"), partition=day.isoformat(), metadata=metadata))
    return found


def _is_being_written(workspace: Workspace, step: Step) -> bool:
    if step.layer != "raw" or not step.days:
        return False
    feed = step.tables[0].split("/", 1)[1]
    newest = max((a.stamp()[1].timestamp() for d in (step.days[0], step.days[1]) for a in workspace.landing.arrivals(feed, d)), default=0.0)
    return time.time() - newest < SETTLED_AFTER_SECONDS
