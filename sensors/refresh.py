"""The sensor that keeps the site up to date: what arrived is read, and whatever rests on it follows, layer by layer.

It takes the steps of `lakehouse.flow.staleness`, as `gridlake refresh` does, so it also finishes what a killed run left undone.
"""

import json
import time

import dagster as dg

from lakehouse.errors import GridlakeError
from lakehouse.flow.staleness import Step, next_steps, pulse, token_of
from lakehouse.flow.workspace import Workspace
from lakehouse.site import Site
from resources import WorkspaceResource

EVERY_SECONDS = 5
SETTLED_AFTER_SECONDS = 2.0
TRY_AGAIN_AFTER_SECONDS = 1800
STEP_TAG = "gridlake/step"
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
        running = {run.tags.get(STEP_TAG) for run in context.instance.get_runs(dg.RunsFilter(statuses=UNFINISHED))}
        waiting = [s for s in steps if str(s) in running]
        asked = [_request(at_work, s) for s in steps if str(s) not in running]
        # With nothing to do the next ticks are cheap; otherwise the lake will change when the runs end.
        cursor = json.dumps({"pulse": beat if not steps else ""})
        if not asked:
            return dg.SensorResult(skip_reason=f"Waiting for {len(waiting)} runs." if waiting else "All is up to date.", cursor=cursor)
        return dg.SensorResult(run_requests=asked, cursor=cursor)

    return refresh


def _request(workspace: Workspace, step: Step) -> dg.RunRequest:
    tags = {STEP_TAG: str(step), "gridlake/reason": step.reason}
    if step.days:
        tags |= {
            "dagster/asset_partition_range_start": step.days[0].isoformat(),
            "dagster/asset_partition_range_end": step.days[1].isoformat(),
        }
    # The same step on the same inputs is asked for once; should it fail, once more every half hour.
    run_key = f"{token_of(workspace, step)}-{int(time.time() // TRY_AGAIN_AFTER_SECONDS)}"
    return dg.RunRequest(run_key=run_key, asset_selection=[dg.AssetKey(t.split("/")) for t in step.tables], tags=tags)


def _is_being_written(workspace: Workspace, step: Step) -> bool:
    if step.layer != "raw" or not step.days:
        return False
    feed = step.tables[0].split("/", 1)[1]
    newest = max((a.stamp()[1].timestamp() for d in (step.days[0], step.days[1]) for a in workspace.landing.arrivals(feed, d)), default=0.0)
    return time.time() - newest < SETTLED_AFTER_SECONDS
