"""The sensor that tells people what is wrong: failed runs from Dagster, everything else from the tables (`lakehouse.flow.watch`)."""

import json
from datetime import UTC, datetime

import dagster as dg

from assets.freshness import evaluations
from assets.skin import key_of
from jobs.up_to_date import JOB
from jobs.work import WORK_TAG
from lakehouse.alerting.alert import Alert
from lakehouse.contracts.quality import Alerts
from lakehouse.errors import GridlakeError
from lakehouse.flow.staleness import next_steps
from lakehouse.flow.watch import look
from lakehouse.flow.workspace import Workspace
from resources import WorkspaceResource
from resources.runs import TOLD_TAG

EVERY_SECONDS = 60
RUNS_LOOKED_AT = 200
FINISHED = [dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE]


def alert_sensor() -> dg.SensorDefinition:
    """The sensor, running from the start."""

    @dg.sensor(
        name="tell_what_is_wrong",
        minimum_interval_seconds=EVERY_SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Tells the site's channels of failed runs, late data, refused rows, missing and poor forecasts, and plans that "
        "could not meet all; each once, and again when it is over. The ledger is quality/alerts.",
    )
    def tell(context: dg.SensorEvaluationContext, workspace: WorkspaceResource) -> dg.SensorResult:
        at_work = workspace.open()
        found = look(at_work, still_wrong(at_work, failed_runs(context.instance)))
        for trouble in found.troubles:
            context.log.error(trouble)
        sent = "; ".join(f"{m.occasion} {m.alert.key} by {m.channel}" for m in found.sent)
        events: list[dg.AssetMaterialization] = []
        if found.commit:
            metadata = {"rows": found.commit.rows, "open": len(found.open), "delta_version": found.commit.version}
            events.append(dg.AssetMaterialization(key_of(Alerts.name), metadata=metadata))
        reason = f"{len(found.open)} open. " + (f"Sent: {sent}." if sent else "Nothing to send.")
        cursor, checks = _fresh(at_work, context.cursor)
        return dg.SensorResult(skip_reason=reason, asset_events=[*events, *checks], cursor=cursor)

    return tell


def _fresh(workspace: Workspace, cursor: str | None) -> tuple[str, list[dg.AssetCheckEvaluation]]:
    """The freshness checks that say something new, all of them once an hour; and the cursor that remembers it."""
    now = datetime.now(UTC)
    hour, said = json.loads(cursor) if cursor else ("", {})
    this_hour = f"{now:%Y-%m-%dT%H}"
    checks = evaluations(workspace, now)
    saying = {check.asset_key.to_user_string(): str(check.description) for check in checks}
    news = [c for c in checks if hour != this_hour or said.get(c.asset_key.to_user_string()) != c.description]
    return json.dumps([this_hour, saying]), news


def failed_runs(instance: dg.DagsterInstance) -> list[Alert]:
    """An alert for each piece of work whose newest finished run failed."""
    newest: dict[str, dg.RunRecord] = {}
    for run in instance.get_run_records(dg.RunsFilter(statuses=FINISHED), limit=RUNS_LOOKED_AT):
        newest.setdefault(_work(run.dagster_run), run)
    return [
        Alert(
            "run failed",
            work,
            "error",
            _fault(instance, record.dagster_run.run_id),
            f"Open run {record.dagster_run.run_id} in the UI for its events. Put right what it names; it is tried again by itself.",
            datetime.fromtimestamp(record.end_time or record.update_timestamp.timestamp(), UTC),
        )
        for work, record in newest.items()
        if record.dagster_run.status is dg.DagsterRunStatus.FAILURE and TOLD_TAG not in record.dagster_run.tags
    ]


def still_wrong(workspace: Workspace, failed: list[Alert]) -> list[Alert]:
    """Without those whose work was done by runs of other days or tables together: where nothing is stale, nothing is left to do."""
    of_steps = [alert for alert in failed if "/" in alert.subject or alert.subject == JOB]
    if not of_steps:
        return failed
    try:
        return failed if next_steps(workspace) else [alert for alert in failed if alert not in of_steps]
    except (GridlakeError, OSError):
        return failed


def _work(run: dg.DagsterRun) -> str:
    """What the run was for: a later success of the same ends the alert."""
    return run.tags.get(WORK_TAG) or " ".join(filter(None, [run.job_name, run.tags.get("dagster/partition")]))


def _fault(instance: dg.DagsterInstance, run_id: str) -> str:
    kinds = {dg.DagsterEventType.STEP_FAILURE, dg.DagsterEventType.RUN_FAILURE}
    for entry in instance.all_logs(run_id, of_type=kinds):
        event = entry.get_dagster_event()
        if event.is_step_failure:
            failure = event.step_failure_data
            if failure.user_failure_data and failure.user_failure_data.description:
                return failure.user_failure_data.description
            if failure.error:
                cause = failure.error
                while cause.cause:
                    cause = cause.cause
                return cause.message.strip()
    return "The run ended without a word: its process was lost or killed."
