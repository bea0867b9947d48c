"""Runs as pods: Dagster's own launcher and executor against the stand-in cluster, with a lake on the stand-in object store.

Whatever befalls the pods, the tables are in the end those of one undisturbed process.
"""

from __future__ import annotations

import os
import shutil
import threading
from collections import deque
from collections.abc import Iterator
from pathlib import Path

import pytest

from assets.profiles import PROFILES
from tests.flow.builders import clean_up_to_date, day, land, reading_lines, series_lines, village
from tests.kubernetes.cluster import NAMESPACE, Misfortune, RefusedError, wait_until
from tests.kubernetes.database import postgres, postgres_programs
from tests.kubernetes.deployment import Deployment, contents, deployed
from tests.storage.object_store import ObjectStore, object_store

for package in ("dagster_k8s", "kubernetes_validate", "moto"):
    pytest.importorskip(package, reason=f"{package} is not installed: pip install 'gridlake[kubernetes,standins]'")
pytestmark = pytest.mark.slow

DAYS = range(3, 8)
EARLY, LATE = range(3, 6), range(5, 8)
AT_ONCE = 3
FATES = ("killed", "out of memory", "evicted", "stuck")
RAW = ("raw/readings", "raw/market")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site worked on by this process alone, its lake on disk."""
    home = tmp_path_factory.mktemp("undisturbed") / "site"
    workspace = village(home)
    for n in DAYS:
        land(workspace, "readings", day(n), f"n{n}.csv", reading_lines(day(n - 1)))
        land(workspace, "market", day(n), f"m{n}.csv", series_lines(day(n), "spot", "price_eur_per_mwh", lambda h: 40.0 + h))
    landed = shutil.copytree(home, home.with_name("landed"))
    assert clean_up_to_date(workspace)
    assert landed.is_dir()
    return home


@pytest.fixture(scope="module")
def store() -> Iterator[ObjectStore]:
    with object_store() as running:
        yield running


@pytest.fixture(scope="module")
def database() -> Iterator[str]:
    """Postgres as shipped, where it is installed; else nothing, and Dagster's storage is in files."""
    if postgres_programs() is None:
        yield ""
        return
    with postgres() as address:
        yield address


@pytest.fixture(scope="module")
def pods(undisturbed: Path, store: ObjectStore, database: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    folder = tmp_path_factory.mktemp("pods")
    home = shutil.copytree(undisturbed.with_name("landed"), folder / "site")
    with (home / "gridlake.yaml").open("a", encoding="utf-8") as site:
        site.write("paths: {lake: 's3://lake/village'}\n")
    before = dict(os.environ)
    with deployed(home, folder, store.environment, postgres_url=database, at_once=AT_ONCE) as running:
        yield running
    os.environ.clear()
    os.environ.update(before)


def finish(pods: Deployment, runs: list[str], seconds: float = 120) -> None:
    wait_until(lambda: pods.all_done(runs), seconds, "every run to succeed")
    wait_until(pods.cluster.is_idle, 30, "the pods to end")


@pytest.fixture(scope="module")
def raw_in_pods(pods: Deployment) -> list[str]:
    """Two backfills at once that share a day; four pods are lost, while the API refuses one and is down for a while."""
    pods.cluster.misfortunes["run_worker"] = deque(Misfortune(kind) for kind in FATES)
    pods.cluster.refuse_creations = 1
    backfills = [pods.backfill(map(day, days), *RAW) for days in (EARLY, LATE)]
    wait_until(lambda: len(pods.cluster.befallen) >= 2, 60, "the first pods to be lost")
    pods.cluster.down = True
    threading.Timer(5, setattr, (pods.cluster, "down", False)).start()
    wait_until(lambda: pods.backfilled(*backfills), 180, "both backfills to succeed")
    wait_until(pods.cluster.is_idle, 30, "the pods to end")
    return backfills


def test_two_backfills_at_once_with_lost_pods_change_nothing(
    pods: Deployment, raw_in_pods: list[str], undisturbed: Path, store: ObjectStore
):
    for backfill, days in zip(raw_in_pods, (EARLY, LATE), strict=True):
        first = [run for run in pods.runs_of(backfill) if run.root_run_id is None]
        spans = sorted(tuple(run.tags[f"dagster/asset_partition_range_{end}"] for end in ("start", "end")) for run in first)
        assert spans == [(day(n).isoformat(),) * 2 for n in days]  # a day is a pod
    assert sorted(pods.cluster.befallen) == sorted(f"run_worker {kind}" for kind in FATES)
    assert pods.cluster.reasons() >= {"Completed", "Error", "OOMKilled"}
    assert {p.component for p in pods.cluster.pods.values()} == {"run_worker"}
    assert pods.cluster.most_at_once >= 2  # more than AT_ONCE, if pods of which the daemon could not ask were made anew
    assert contents(pods.home, RAW, store.environment) == contents(undisturbed, RAW, {})


@pytest.mark.usefixtures("raw_in_pods")
def test_runs_and_events_are_in_postgres(pods: Deployment, database: str):
    if not database:
        pytest.skip("Postgres (Debian's package postgresql) is not installed; Dagster's storage was in files")
    import psycopg2

    with psycopg2.connect(database.replace("+psycopg2", "")) as connection, connection.cursor() as cursor:
        counted = {}
        for table in ("runs", "event_logs", "bulk_actions"):
            cursor.execute(f"SELECT count(*) FROM {table}")
            counted[table] = cursor.fetchone()[0]
    assert counted["runs"] >= len(EARLY) + len(LATE)
    assert counted["event_logs"] > counted["runs"]
    assert counted["bulk_actions"] == 2


@pytest.mark.usefixtures("raw_in_pods")
def test_a_large_step_has_a_pod_of_its_own_size_and_is_tried_again(pods: Deployment, undisturbed: Path, store: ObjectStore):
    pods.cluster.misfortunes["step_worker"] = deque([Misfortune("out of memory")])
    pods.cluster.befallen.clear()
    tables = ("cleaned/meters", "cleaned/meter_readings", "quality/vee_report", "quality/edits")
    meters = pods.launch(None, "cleaned/meters")
    finish(pods, [meters])
    days = (day(DAYS[0] - 1), day(DAYS[-1]))
    finish(pods, [pods.launch(days, *tables[1:])])
    assert pods.cluster.befallen == ["step_worker out of memory"]
    steps = [p for p in pods.cluster.pods.values() if p.component == "step_worker"]
    wide = PROFILES["wide"].memory_mib
    assert [p.memory_limit for p in steps] == [f"{wide}Mi", f"{wide}Mi"]  # the one that was lost and the one that took its place
    assert contents(pods.home, tables, store.environment) == contents(undisturbed, tables, {})


def test_a_run_that_is_stopped_leaves_no_pod_behind(pods: Deployment):
    pods.cluster.misfortunes["run_worker"] = deque([Misfortune("stuck")])
    run = pods.launch(day(DAYS[0]), *RAW)
    wait_until(lambda: pods.cluster.pods_of(run), 30, "the pod")
    wait_until(lambda: pods.instance.get_run_by_id(run).status.value == "STARTING", 30, "the launch")
    assert pods.instance.run_launcher.terminate(run)
    assert not pods.cluster.pods_of(run)


def test_what_the_schema_does_not_know_is_refused(pods: Deployment):
    job = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "wrong"},
        "spec": {"backoffLimit": 0, "template": {"metadata": {}, "spec": {"containers": [{"name": "a", "image": "b", "memory": "1Gi"}]}}},
    }
    with pytest.raises(RefusedError, match="memory"):
        pods.cluster.answer("POST", f"/apis/batch/v1/namespaces/{NAMESPACE}/jobs", {}, job)
