"""The job `replan`: the rest of a day planned again, as a run with its configuration. What is planned lives in `lakehouse.flow`."""

import json
from datetime import UTC, datetime
from typing import Any

import dagster as dg
from pydantic import Field

from assets.skin import key_of, picture
from lakehouse.contracts import dispatch
from lakehouse.errors import GridlakeError
from lakehouse.flow.plan import Planned, replan
from lakehouse.flow.workspace import Workspace
from resources import WorkspaceResource

JOB = "replan"
POOL = "dispatch"
"""The same as the day-ahead plan's step: the two never write at once."""


class ReplanConfig(dg.Config):
    """When to plan again, and what differs from the plan by then."""

    at: str = Field("", description="The moment, such as 2026-11-22T12:00+01:00; without offset it is of the site's clock; empty: now.")
    state: dict[str, Any] = Field(
        {}, description='What differs from the plan: {"gas_1": {"out_until": "2026-11-22T18:00+01:00"}, "battery": {"energy_mwh": 12.5}}.'
    )
    notice_hours: float = Field(0.0, ge=0, description="Hours before an interval at which a unit's commitment is final.")


@dg.op(name="plan_again", pool=POOL, description="Plans the rest of the day again, from the state its plan has reached or that is told.")
def plan_again(context: dg.OpExecutionContext, config: ReplanConfig, workspace: WorkspaceResource) -> None:
    """Observes the plan's tables instead of materializing them: the day-ahead plan's own record stays as it was."""
    at_work = workspace.open(context.run_id)
    version = at_work.table(dispatch.Plan.name).version()
    try:
        planned = replan(at_work, _moment(at_work, config.at), state=config.state, notice_hours=config.notice_hours)
    except GridlakeError as error:
        raise dg.Failure(str(error), allow_retries=False) from None
    at_work.publish()
    for contract in dispatch.PLAN_TABLES:
        metadata = _told(planned, version) if contract is dispatch.Plan else {"rows": planned.commits[contract.name].rows}
        context.log_event(dg.AssetObservation(key_of(contract.name), partition=planned.days[0].isoformat(), metadata=metadata))
    context.add_output_metadata({"cost_eur": planned.summaries[0]["objective_eur"], "unserved_mwh": planned.unserved_mwh})
    if planned.breaches:
        raise dg.Failure("The new plan breaks rules: " + "; ".join(planned.breaches[:10]), allow_retries=False)


@dg.job(name=JOB, description="The rest of a day planned again; launch it with the moment and the actual state in its configuration.")
def replan_job() -> None:
    """One op."""
    plan_again()


def _moment(workspace: Workspace, text: str) -> datetime:
    if not text:
        return datetime.now(UTC)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise dg.Failure(f"at: expected a moment such as 2026-11-22T12:00+01:00, found '{text}'.", allow_retries=False) from None
    return (moment if moment.tzinfo else moment.replace(tzinfo=workspace.site.zone)).astimezone(UTC)


def _told(planned: Planned, version: int | None) -> dict[str, Any]:
    summary = planned.summaries[0]
    told = {
        "planned_from_utc": f"{summary['planned_from']:%Y-%m-%d %H:%M}",
        "cost_eur": round(summary["objective_eur"], 2),
        "gap_pct": round(summary["gap_pct"], 4),
        "unserved_mwh": summary["unserved_mwh"],
        "violations": json.dumps(planned.breaches[:10]),
        "plot": picture(planned.picture),
    }
    return told | ({"delta_version_before": version} if version is not None else {})
