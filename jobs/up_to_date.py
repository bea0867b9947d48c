"""The job `bring_up_to_date`: everything that is stale, from raw to the plan, in one process.

The sensor asks for it where runs are processes of one machine: beginning a process for each layer would take longer than the work.
Every step is still a run of its own in Dagster's records, with its partitions, its checks and its materializations; this run's log
tells which. On Kubernetes the sensor asks for the steps' runs themselves.
"""

import logging
import os
import time
from collections.abc import Callable

import dagster as dg

from jobs.stages import Refreshed, bring_up
from jobs.work import failed_lately, held_back
from lakehouse.flow.staleness import Step, is_being_written, next_steps
from lakehouse.flow.workspace import Workspace
from resources import WorkspaceResource
from resources.runs import TOLD_TAG, process_tags

JOB = "bring_up_to_date"
FOR_TAG = "gridlake/for_run"
"""On a step's run: the run of this job that it belongs to."""
ASKED_BY_TAG = "dagster/sensor_name"
"""A step's run was asked for by whoever asked for this one: the UI says so, instead of "manually launched"."""


@dg.op(name="make_what_is_stale", description="Looks what is stale and makes it, stage after stage, until nothing is.")
def bring_up_to_date(context: dg.OpExecutionContext, workspace: WorkspaceResource) -> None:
    """Fails if a step failed, when all that does not rest on it is done."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    context.instance.add_run_tags(context.run_id, process_tags())
    done, waiting = make_what_is_stale(
        workspace.open(context.run_id), context.repository_def, context.instance, context.run_id, context.log
    )
    context.add_output_metadata({"steps": len(done.steps), "failed": len(done.failed), "waiting": len(waiting)})
    if done.failed:
        context.instance.add_run_tags(context.run_id, {TOLD_TAG: "the runs of its steps"})
        told = "\n".join(f"{step}: {fault}" for step, fault in done.failed)
        raise dg.Failure(f"{len(done.failed)} of {len(done.failed) + len(done.steps)} steps failed.\n{told}", allow_retries=False)


def make_what_is_stale(
    workspace: Workspace, repository: dg.RepositoryDefinition, instance: dg.DagsterInstance, run_id: str, log: logging.Logger
) -> tuple[Refreshed, list[str]]:
    """Makes all that is stale and can be made; what arrives meanwhile is taken up as well.

    Steps that failed, steps that rest on a failed blocking check, and deliveries that are still being written are passed over.

    Returns:
        What was done, and why the steps that wait do so.
    """
    waiting: dict[Step, str] = {}

    def stale(seen: Callable[[Step], bool]) -> list[Step]:
        begun = time.perf_counter()

        def passed_over(step: Step) -> bool:
            if seen(step) or is_being_written(workspace, step) or failed_lately(workspace, instance, step):
                return True
            held = held_back(repository, instance, [step])
            waiting.update(held)
            return bool(held)

        steps = next_steps(workspace, without=passed_over)
        log.info(f"Stale: {'; '.join(map(str, steps)) or 'nothing more'} ({time.perf_counter() - begun:.1f} s to tell)")
        return steps

    def tell(event: str, step: Step, seconds: float) -> None:
        if event == "done":
            log.info(f"Done in {seconds:.1f} s: {step}")
        elif event == "failed":
            log.error(f"Failed after {seconds:.1f} s: {step}")

    all_assets = repository.get_implicit_global_asset_job_def()
    asked = instance.get_run_by_id(run_id)
    tags = {FOR_TAG: run_id} | {tag: by for tag, by in (asked.tags if asked else {}).items() if tag == ASKED_BY_TAG}
    done = bring_up(workspace, all_assets, instance, stale, tell, tags=tags, stops_at_failure=False)
    for reason in waiting.values():
        log.warning(reason)
    return done, list(waiting.values())


@dg.job(name=JOB, description="Everything that is stale, in one process; each step is a run of its own. The sensor asks for it.")
def up_to_date() -> None:
    """One op: which steps there are turns out as it goes."""
    bring_up_to_date()
