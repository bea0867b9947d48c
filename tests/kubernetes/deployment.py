"""A small site whose lake lies on an object store, worked on by Dagster's real daemon, which launches pods in the stand-in cluster."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import yaml

from lakehouse.flow.workspace import Workspace
from tests.flow.builders import rows_told
from tests.kubernetes.cluster import NAMESPACE, Cluster, running_cluster

ROOT = Path(__file__).resolve().parents[2]
BASE = ROOT / "deploy" / "kubernetes" / "base"
SHIPPED = BASE / "dagster.yaml"
LAUNCH = """
mutation Launch($params: ExecutionParams!) {
  launchRun(executionParams: $params) {
    __typename
    ... on LaunchRunSuccess { run { runId } }
    ... on PythonError { message }
    ... on InvalidSubsetError { message }
    ... on RunConfigValidationInvalid { errors { message } }
  }
}
"""
BACKFILL = """
mutation Backfill($params: LaunchBackfillParams!) {
  launchPartitionBackfill(backfillParams: $params) {
    __typename
    ... on LaunchBackfillSuccess { backfillId }
    ... on PythonError { message }
  }
}
"""
SENSORS = """{
  sensorsOrError(repositorySelector: {repositoryName: "__repository__", repositoryLocationName: "gridlake"}) {
    ... on Sensors { results { name sensorState { id } } }
  }
}"""
STOP = """mutation Stop($id: String!) {
  stopSensor(id: $id) { ... on StopSensorMutationResult { instigationState { status } } ... on PythonError { message } }
}"""


@dataclass
class Deployment:
    """The daemon at work over one site and one cluster."""

    home: Path
    cluster: Cluster
    instance: dg.DagsterInstance
    context: Any

    def launch(self, days: date | tuple[date, date] | None, *tables: str) -> str:
        """Queues a run of tables for a day, for a range of days, or without any, as the UI would; returns its id."""
        from dagster_graphql.cli import execute_query  # what the webserver itself answers with

        selector = {
            "repositoryName": "__repository__",
            "repositoryLocationName": "gridlake",
            "jobName": "__ASSET_JOB",
            "assetSelection": [{"path": t.split("/")} for t in tables],
        }
        tags = {}
        if isinstance(days, tuple):
            ends = zip(("start", "end"), days, strict=True)
            tags = {f"dagster/asset_partition_range_{end}": day.isoformat() for end, day in ends}
        elif days:
            tags = {"dagster/partition": days.isoformat()}
        parameters = {"selector": selector, "mode": "default", "runConfigData": {}, "executionMetadata": {}}
        parameters["executionMetadata"] = {"tags": [{"key": key, "value": value} for key, value in tags.items()]}
        told = execute_query(self.context, LAUNCH, variables={"params": parameters})
        assert told["data"]["launchRun"]["__typename"] == "LaunchRunSuccess", told
        return str(told["data"]["launchRun"]["run"]["runId"])

    def backfill(self, days: Iterable[date], *tables: str) -> str:
        """Asks for a backfill of tables over days, as the UI would; the daemon makes its runs. Returns its id."""
        from dagster_graphql.cli import execute_query

        parameters = {"partitionNames": [d.isoformat() for d in days], "assetSelection": [{"path": t.split("/")} for t in tables]}
        told = execute_query(self.context, BACKFILL, variables={"params": parameters})
        assert told["data"]["launchPartitionBackfill"]["__typename"] == "LaunchBackfillSuccess", told
        return str(told["data"]["launchPartitionBackfill"]["backfillId"])

    def backfilled(self, *backfills: str) -> bool:
        """Whether backfills have succeeded.

        Raises:
            AssertionError: one has ended otherwise.
        """
        self.repeat_forgotten()
        found = {b: self.instance.get_backfill(b).status.value for b in backfills}
        assert not set(found.values()) & {"FAILED", "COMPLETED_FAILED", "CANCELED"}, found
        return set(found.values()) == {"COMPLETED_SUCCESS"}

    def failures(self) -> list[str]:
        """What went wrong in runs, each in its own words, with the run's partitions."""
        told = []
        for run in self.instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.FAILURE])):
            faults = [e.dagster_event.message for e in self.instance.all_logs(run.run_id) if e.dagster_event and e.dagster_event.is_failure]
            told.append(f"{run.run_id} {run.tags.get('dagster/asset_partition_range_start', '')}: {' | '.join(map(str, faults))}")
        return told

    def repeat_forgotten(self) -> None:
        """Repeats lost runs that Dagster's daemon forgot: docs/kubernetes.md tells why it now and then does. One repeated is left alone."""
        from dagster._daemon.auto_run_reexecution.auto_run_reexecution import consume_new_runs_for_automatic_reexecution

        long_ago = datetime.now(UTC) - timedelta(seconds=20)
        failed = self.instance.get_run_records(dg.RunsFilter(statuses=[dg.DagsterRunStatus.FAILURE], updated_before=long_ago))
        list(consume_new_runs_for_automatic_reexecution(self.context, failed, logging.getLogger(__name__)))

    def runs_of(self, backfill: str) -> list[dg.DagsterRun]:
        """The runs of a backfill, those that repeat lost ones too."""
        return list(self.instance.get_runs(dg.RunsFilter(tags={"dagster/backfill": backfill})))

    def turn_sensors_off(self) -> None:
        """So that nothing runs but what a test asks for."""
        from dagster_graphql.cli import execute_query

        for sensor in execute_query(self.context, SENSORS)["data"]["sensorsOrError"]["results"]:
            stopped = execute_query(self.context, STOP, variables={"id": sensor["sensorState"]["id"]})
            assert stopped["data"]["stopSensor"]["instigationState"]["status"] == "STOPPED", stopped

    def all_done(self, runs: Iterable[str]) -> bool:
        """Whether each run, or one that repeats it, has succeeded."""
        self.repeat_forgotten()
        wanted = set(runs)
        return wanted <= {r.root_run_id or r.run_id for r in self.instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.SUCCESS]))}


def shipped_environment() -> dict[str, str]:
    """The variables that every container gets from the base."""
    told = yaml.safe_load((BASE / "kustomization.yaml").read_text(encoding="utf-8"))
    one = next(m for m in told["configMapGenerator"] if m["name"] == "gridlake-environment")
    return dict(line.split("=", 1) for line in one["literals"])


def settings(folder: Path, kubeconfig: Path, postgres_url: str = "", at_once: int = 0, start_timeout_s: int = 25) -> dict[str, Any]:
    """The shipped settings, but for what this machine is: no volumes, a kubeconfig, shorter waits, and storage in files.

    Args:
        folder: for the storage, where it is in files.
        kubeconfig: leads to the cluster.
        postgres_url: the database, where there is one.
        at_once: so many runs, if fewer than shipped.
        start_timeout_s: after which a pod counts as one that never starts; where many start at once on few cores, it must be long.
    """
    told = yaml.safe_load(SHIPPED.read_text(encoding="utf-8"))
    launcher = told["run_launcher"]["config"]
    for name in ("volumes", "volume_mounts", "env_config_maps"):
        del launcher[name]
    launcher |= {"job_image": "gridlake:test", "load_incluster_config": False, "kubeconfig_file": str(kubeconfig)}
    launcher["dagster_home"] = str(folder)
    assert launcher["job_namespace"] == NAMESPACE
    if not postgres_url:
        told["storage"] = {"sqlite": {"base_dir": str(folder / "storage")}}
    told["local_artifact_storage"]["config"]["base_dir"] = str(folder)
    told["run_monitoring"] |= {"start_timeout_seconds": start_timeout_s, "poll_interval_seconds": 2}
    told["concurrency"]["runs"]["max_concurrent_runs"] = at_once or told["concurrency"]["runs"]["max_concurrent_runs"]
    told["run_coordinator"]["config"] = {"dequeue_interval_seconds": 1}
    return dict(told)


@contextmanager
def deployed(home: Path, folder: Path, store: Mapping[str, str], **told: Any) -> Iterator[Deployment]:
    """Starts the cluster and the daemon over a site; ends both. `told` are arguments of `settings`."""
    from dagster._core.workspace.context import WorkspaceProcessContext
    from dagster._core.workspace.load_target import WorkspaceFileTarget

    image = shipped_environment() | {
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        "PYTHONPATH": str(ROOT),
        "GRIDLAKE_HOME": str(home),
        "HOME": str(folder),
        "DAGSTER_EVENT_LOG_CONSUMER_DAEMON_INTERVAL_SECONDS": "5",
    }
    with running_cluster(folder / "cluster", image) as (cluster, kubeconfig):
        database = {"GRIDLAKE_POSTGRES_URL": told["postgres_url"]} if told.get("postgres_url") else {}
        cluster.secrets |= {"gridlake-lake": dict(store), "gridlake-postgres": database}
        dagster = folder / "dagster"
        dagster.mkdir()
        (dagster / "dagster.yaml").write_text(yaml.safe_dump(settings(dagster, kubeconfig, **told)), encoding="utf-8")
        process = image | dict(store) | database | {"DAGSTER_HOME": str(dagster)}
        os.environ.update(process)  # tests/conftest.py puts back what was there
        workspace = str(ROOT / "workspace.yaml")
        with (
            (folder / "daemon.log").open("wb") as log,
            dg.DagsterInstance.from_config(str(dagster)) as instance,
            WorkspaceProcessContext(instance, WorkspaceFileTarget([workspace])) as context,
        ):
            running = Deployment(home, cluster, instance, context)
            running.turn_sensors_off()
            command = [sys.executable, "-m", "dagster._daemon", "run", "-w", workspace]
            daemon = subprocess.Popen(command, env=os.environ | process, cwd=folder, stdout=log, stderr=log)
            try:
                yield running
            finally:
                daemon.terminate()
                daemon.wait(30)


def contents(home: Path, tables: Iterable[str], store: Mapping[str, str]) -> dict[str, list[Any]]:
    """All rows of some tables as `rows_told` tells them, from the lake on an object store or a local one."""
    workspace = Workspace.open(home)
    workspace.storage_options = {k.removeprefix("GRIDLAKE_STORAGE_"): v for k, v in store.items()}
    return {name: rows_told(workspace, name) for name in tables}
