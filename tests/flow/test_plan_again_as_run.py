"""Planning again as a Dagster run: the morning and the day-ahead plan's own record stay, the evening is new."""

from __future__ import annotations

from datetime import timedelta

import dagster as dg
import pytest

from jobs.replan import replan_job
from lakehouse.flow.plan import make_plans
from lakehouse.flow.workspace import Workspace
from resources import WorkspaceResource
from tests.flow.builders import day
from tests.flow.town import BASE, BATTERY, PEAK, issue, midnight, town

NOON = midnight(day(11)) + timedelta(hours=12)


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A planned day."""
    made = town(tmp_path_factory.mktemp("town"), [BASE, PEAK, BATTERY])
    issue(made, day(10), north=[2.0] * 8 + [5.0] * 8 + [3.0] * 8, south=[1.0] * 24)
    make_plans(made, day(10), day(10))
    return made


def run(workspace: Workspace, **config: object) -> dg.ExecuteInProcessResult:
    quiet = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
    return replan_job.execute_in_process(
        resources={"workspace": WorkspaceResource(home=str(workspace.site.home))},
        run_config={"ops": {"plan_again": {"config": config}}} | quiet,
        raise_on_error=False,
    )


def plan_rows(workspace: Workspace) -> list[dict]:
    return workspace.table("dispatch/plan").read("true ORDER BY interval_start, unit_id").to_pylist()


def test_a_run_plans_the_rest_of_the_day_and_observes_what_it_wrote(workspace: Workspace):
    before = plan_rows(workspace)
    done = run(workspace, at="2026-03-11T12:00", state={"base": {"out_until": "2026-03-11T15:00+01:00"}})
    assert done.success
    after = plan_rows(workspace)
    assert [r for r in after if r["interval_start"] < NOON] == [r for r in before if r["interval_start"] < NOON]
    assert not next(r["committed"] for r in after if r["unit_id"] == "base" and r["interval_start"] == NOON)
    assert [s["planned_from"] for s in workspace.table("dispatch/summary").read("true ORDER BY planned_from").to_pylist()] == [
        midnight(day(11)),
        NOON,
    ]
    seen = [e.asset_observation_data.asset_observation for e in done.all_events if e.is_asset_observation]
    (plan,) = [o for o in seen if o.asset_key.to_user_string() == "dispatch/plan"]
    assert (plan.partition, plan.metadata["planned_from_utc"].value) == (day(10).isoformat(), "2026-03-11 11:00")
    assert done.get_asset_materialization_events() == [], "the day-ahead plan was not made again"


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"at": "noon"}, "expected a moment such as"),
        ({"at": "2026-04-11T12:00"}, "There is no plan for"),
        ({"at": "2026-03-11T12:00", "state": {"coal": {"on": True}}}, "no thermal unit or storage"),
    ],
)
def test_a_run_that_can_not_be_says_why(workspace: Workspace, config: dict, says: str):
    failed = run(workspace, **config)
    (event,) = [e for e in failed.all_events if e.is_step_failure]
    assert says in event.step_failure_data.user_failure_data.description
