"""Runs as pods: Dagster's own launcher and executor against the stand-in cluster, with a lake on the stand-in object store.

Whatever befalls the pods, the tables are in the end those of one undisturbed process.
"""

from __future__ import annotations

import os
import shutil
from collections import deque
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.flow.builders import clean_up_to_date, day, land, reading_lines, series_lines, village
from tests.kubernetes.cluster import Misfortune, wait_until
from tests.kubernetes.deployment import Deployment, contents, deployed
from tests.storage.object_store import ObjectStore, object_store

for package in ("dagster_k8s", "kubernetes_validate", "moto"):
    pytest.importorskip(package, reason=f"{package} is not installed: pip install 'gridlake[kubernetes,standins]'")
pytestmark = pytest.mark.slow

DAYS = range(3, 8)
RAW = ("raw/readings", "raw/market")
WHEN_DONE = ("accounted_at", "read_at", "landed_at", "changed_at")


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


@pytest.fixture
def pods(undisturbed: Path, store: ObjectStore, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Deployment]:
    home = shutil.copytree(undisturbed.with_name("landed"), tmp_path / "site")
    with (home / "gridlake.yaml").open("a", encoding="utf-8") as site:
        site.write(f"paths: {{lake: 's3://lake/{request.node.name}'}}\n")
    before = dict(os.environ)
    with deployed(home, tmp_path, store.environment) as running:
        yield running
    os.environ.clear()
    os.environ.update(before)


def test_days_are_pods_and_pods_may_be_lost(pods: Deployment, undisturbed: Path, store: ObjectStore):
    fates = ("killed", "out of memory", "evicted", "stuck")
    pods.cluster.misfortunes["run_worker"] = deque(Misfortune(kind) for kind in fates)
    pods.cluster.refuse_creations = 1
    runs = [pods.launch(day(n), *RAW) for n in DAYS]
    wait_until(lambda: pods.all_done(runs), 150, f"every run to succeed; {pods.statuses()}")
    assert sorted(pods.cluster.befallen) == sorted(f"run_worker {kind}" for kind in fates)
    reasons = {p.body["status"]["containerStatuses"][0]["state"]["terminated"]["reason"] for p in pods.cluster.pods.values() if p.process}
    assert reasons == {"Completed", "Error", "OOMKilled"}
    assert contents(pods.home, RAW, store.environment) == contents(undisturbed, RAW, {})
