"""Where a run's steps are carried out: decided when it begins, by configuration alone, so that definitions are the same everywhere.

With the run launcher of Kubernetes, a run that has a step with the tag `gridlake/own_pod` gives each of its steps a pod; every other
run is carried out whole in its run pod. Elsewhere steps run one after the other in the run's process. GRIDLAKE_EXECUTOR
(`in_process`, `multiprocess` or `kubernetes`) overrides that. `dagster_k8s` is imported only where it is used.
"""

from __future__ import annotations

import os
from typing import Any

import dagster as dg

EXECUTOR_VARIABLE = "GRIDLAKE_EXECUTOR"
OWN_POD_TAG = "gridlake/own_pod"
"""A step so tagged needs a pod of its own size; `assets/profiles.py` says which do."""


@dg.executor(
    name="gridlake",
    config_schema={
        "max_concurrent": dg.Field(
            dg.IntSource, is_required=False, description="Steps of one run at the same time, where each has a process or pod."
        ),
        "step_k8s_config": dg.Field(dg.Permissive(), is_required=False, description="Further settings of step pods; see dagster-k8s."),
    },
)
def site_executor(context: dg.InitExecutorContext) -> Any:
    """The executor of all jobs."""
    config = dict(context.executor_config)
    chosen = os.environ.get(EXECUTOR_VARIABLE) or _by_launcher(context)
    if chosen == "kubernetes":
        from dagster_k8s import k8s_job_executor

        # Step pods go when their run pod goes: whoever repeats the run does not meet them.
        return _made_by(k8s_job_executor, context, config | {"enable_owner_references": True})
    config.pop("step_k8s_config", None)
    if chosen == "multiprocess":
        return _made_by(dg.multiprocess_executor, context, config)
    if chosen != "in_process":
        raise dg.DagsterInvalidConfigError(
            f"{EXECUTOR_VARIABLE}: expected in_process, multiprocess or kubernetes, found '{chosen}'.", [], config
        )
    return _made_by(dg.in_process_executor, context, {})


def runs_on_one_machine(instance: dg.DagsterInstance) -> bool:
    """Whether steps are carried out in their run's process, so that one process may as well do several runs, one after the other."""
    chosen = os.environ.get(EXECUTOR_VARIABLE)
    return chosen == "in_process" if chosen else not _on_kubernetes(instance)


def _on_kubernetes(instance: dg.DagsterInstance) -> bool:
    return type(instance.run_launcher).__module__.startswith("dagster_k8s")


def _by_launcher(context: dg.InitExecutorContext) -> str:
    heavy = any(node.tags.get(OWN_POD_TAG) for node in context.job.get_definition().nodes)
    return "kubernetes" if _on_kubernetes(context.instance) and heavy else "in_process"


def _made_by(executor: dg.ExecutorDefinition, context: dg.InitExecutorContext, config: dict[str, Any]) -> Any:
    from dagster._config import process_config

    resolved = process_config({"config": executor.config_schema.as_field()}, {"config": config})  # fills in its defaults
    if not resolved.success:
        raise dg.DagsterInvalidConfigError(f"Configuration of the executor '{executor.name}'", resolved.errors or [], config)
    assert executor.executor_creation_fn is not None
    assert resolved.value is not None
    return executor.executor_creation_fn(
        dg.InitExecutorContext(job=context.job, executor_def=executor, executor_config=resolved.value["config"], instance=context.instance)
    )
