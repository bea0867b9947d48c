"""The sensor that keeps the site up to date: what arrived is read, and whatever rests on it follows.

It takes the steps of `lakehouse.flow.staleness`, as `gridlake refresh` does, so it also finishes what a killed run left undone.
On one machine it asks for one run that does them all (`jobs.up_to_date`); on Kubernetes for the runs of one stage after the other.
"""

import json
import time
import warnings

import dagster as dg

from assets.skin import key_of
from jobs.up_to_date import JOB, up_to_date
from jobs.work import PRIORITY_TAG, REASON_TAG, TODAY, WORK_TAG, attempt_of, failed_lately, held_back, lost_lately, tags_of
from lakehouse.errors import GridlakeError
from lakehouse.flow.staleness import Step, is_being_written, next_steps, pulse, settles_in
from lakehouse.flow.workspace import Workspace
from lakehouse.site import Site
from lakehouse.storage.lake import days_between
from resources import WorkspaceResource
from resources.executor import runs_on_one_machine
from resources.runs import ATTEMPT_TAG, STEP_TAG, TOLD_TAG, end_lost_runs

EVERY_SECONDS = 5
ONE_STEP = "one_step"
UNFINISHED = [dg.DagsterRunStatus.QUEUED, dg.DagsterRunStatus.NOT_STARTED, dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED]


def refresh_sensor(site: Site) -> dg.SensorDefinition:
    """The sensor of a site, running from the start."""

    groups = dg.AssetSelection.groups("raw", "cleaned", "features", "models", "forecasts", "dispatch", "quality")
    # Dagster itself gives the parameter that it warns of, when a sensor has several jobs.
    warnings.filterwarnings("ignore", message="Parameter `owners`", category=dg.BetaWarning)
    one_step = dg.define_asset_job(ONE_STEP, selection=groups, description="One step of what is stale, as the sensor asks for it.")

    @dg.sensor(
        name="refresh_what_is_stale",
        jobs=[up_to_date, one_step],
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
        for run_id in end_lost_runs(context.instance):
            context.log.warning(f"The process of run {run_id} is gone; the run is marked as failed.")
        return _asked(context, at_work, beat)

    return refresh


def _asked(context: dg.SensorEvaluationContext, workspace: Workspace, beat: str) -> dg.SensorResult | dg.SkipReason:
    one_run = runs_on_one_machine(context.instance)
    running = {run.tags.get(STEP_TAG) for run in context.instance.get_runs(dg.RunsFilter(statuses=UNFINISHED))}
    if one_run and JOB in running:
        return dg.SkipReason("Waiting for the run that is at it; it takes up what arrives meanwhile.")
    held: dict[Step, str] = {}
    failed: list[Step] = []

    def passed_over(step: Step) -> bool:
        if is_being_written(workspace, step):
            return True
        if failed_lately(workspace, context.instance, step):
            failed.append(step)
            return True
        held.update(held_back(context.repository_def, context.instance, [step]))
        return step in held

    try:
        _let_settle(workspace)
        steps = next_steps(workspace, without=passed_over)
    except (GridlakeError, OSError) as error:
        return dg.SkipReason(str(error))
    waiting = [s for s in steps if str(s) in running]
    steps = [s for s in steps if str(s) not in running]
    # With nothing to do the next ticks are cheap; otherwise the lake will change when the runs end.
    cursor = json.dumps({"pulse": beat if not (steps or waiting or failed) else ""})
    if not steps:
        told = [f"Waiting for {len(waiting)} runs."] if waiting else []
        told += [f"{step} failed and is tried again within half an hour." for step in failed]
        return dg.SensorResult(skip_reason="; ".join([*told, *held.values()]) or "All is up to date.", cursor=cursor)
    asked = [_all_in_one(context, workspace, steps)] if one_run else [_request(context, workspace, step) for step in steps]
    return dg.SensorResult(run_requests=asked, cursor=cursor, asset_events=_arrivals(workspace, steps))


def _let_settle(workspace: Workspace) -> None:
    """Waits for files that came just now, a second or two at most, instead of leaving them to the next tick."""
    arriving = [settles_in(workspace, step) for step in next_steps(workspace, until="raw")]
    if arriving and min(arriving) > 0:
        time.sleep(max(arriving))


def _all_in_one(context: dg.SensorEvaluationContext, workspace: Workspace, steps: list[Step]) -> dg.RunRequest:
    attempt = attempt_of(workspace, steps)
    tags = {
        STEP_TAG: JOB,
        WORK_TAG: JOB,
        REASON_TAG: "; ".join(f"{step}: {step.reason}" for step in steps),
        PRIORITY_TAG: str(TODAY),
        ATTEMPT_TAG: attempt,
    }
    lost = lost_lately(context.instance, attempt, unless=TOLD_TAG)
    return dg.RunRequest(run_key=f"{JOB}-{attempt}-{lost}", job_name=JOB, tags=tags)


def _request(context: dg.SensorEvaluationContext, workspace: Workspace, step: Step) -> dg.RunRequest:
    # The same step on the same inputs is asked for once; should it fail, once more every half hour.
    tags = tags_of(workspace, step) | {STEP_TAG: str(step)}
    key = f"{tags[ATTEMPT_TAG]}-{lost_lately(context.instance, tags[ATTEMPT_TAG])}"
    selection = [dg.AssetKey(table.split("/")) for table in step.tables]
    return dg.RunRequest(run_key=key, job_name=ONE_STEP, asset_selection=selection, tags=tags)


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
