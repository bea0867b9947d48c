"""A backfill as pods: every day of raw and of cleaned a pod of its own, eight at a time, against one lake on an object store.

Run: python -m benchmarks.kubernetes_backfill [--days 30] [--meters 20] [--at-once 8] [--overlap 5] [--lose 4] [--only cleaned]

Dagster's own daemon and run launcher, with the shipped settings, speak to the stand-in for the Kubernetes API of `tests/kubernetes`, which
runs each Job as a process of this machine; the lake lies on `moto`'s S3; runs and events in Postgres where it is installed, else in
files. Raw is made by two backfills at once that share `--overlap` days, `--lose` pods are killed on the way, then cleaned by one
backfill; with `--only cleaned` this process reads raw. Days that were cleaned before the days before them are stale then; what the
sensor would ask for is made by this process. In the end the tables are compared, row by row, with those of one undisturbed
process over the same landing zone and a local lake. Exit code 1 if they differ. Needs the extras `kubernetes` and `standins`.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
from collections import Counter, deque
from contextlib import nullcontext
from datetime import date, timedelta
from pathlib import Path

from lakehouse.flow.staleness import next_steps
from lakehouse.flow.workspace import Workspace
from tests.flow.builders import FEEDS, clean_up_to_date, land, reading_lines, series_lines, site_text, take
from tests.kubernetes.cluster import Misfortune, wait_until
from tests.kubernetes.database import postgres, postgres_programs
from tests.kubernetes.deployment import Deployment, contents, deployed
from tests.storage.object_store import object_store

FIRST = date(2026, 3, 1)
RAW = ("raw/readings", "raw/market")
CLEANED = ("cleaned/meter_readings", "quality/vee_report", "quality/edits", "cleaned/prices", "cleaned/external_forecasts")
COMPARED = (*RAW, "cleaned/meters", *CLEANED, "quality/conservation", "quality/quarantine")


def landed(home: Path, days: int, meters: int) -> Workspace:
    """A site of which nothing is read yet; some readings are wrong, missing or delivered twice."""
    home.mkdir(parents=True)
    (home / "gridlake.yaml").write_text(site_text("village", FIRST, FIRST + timedelta(days=days), FEEDS), encoding="utf-8")
    workspace = Workspace.open(home)
    for n in range(1, days + 1):
        delivered, of = FIRST + timedelta(days=n), FIRST + timedelta(days=n - 1)
        lines = [line for m in range(meters) for line in reading_lines(of, meter=f"M{m:04}")]
        del lines[n % 24 :: 97]
        lines[5] = lines[5].replace(",60,", ",60,-")
        land(workspace, "readings", delivered, f"n{n}.csv", [*lines, lines[7], "M0001,import,no time,60,1.0,A"])
        land(workspace, "market", delivered, f"m{n}.csv", series_lines(of, "spot", "price_eur_per_mwh", lambda h, n=n: 40.0 + h + n))
    return workspace


def told(what: str, begun: float, pods: Deployment) -> None:
    ended = Counter(p.body["status"]["phase"] for p in pods.cluster.pods.values())
    print(f"{what:<58}{time.perf_counter() - begun:7.1f} s   pods so far: {dict(ended)}", flush=True)


def backfill(pods: Deployment, chosen: argparse.Namespace) -> None:
    """Raw by two backfills at once, then the registry of meters, then cleaned."""
    if chosen.only != "cleaned":
        raw(pods, chosen)
    begun = time.perf_counter()
    registry = pods.launch(None, "cleaned/meters")
    wait_until(lambda: pods.all_done([registry]), 600, "the registry")
    # with the day of the last delivery, on which its row without a time counts
    one = pods.backfill([FIRST + timedelta(days=n) for n in range(chosen.days + 1)], *CLEANED)
    wait_until(lambda: pods.backfilled(one), 3600, "cleaned")
    told(f"cleaned: a backfill of {chosen.days + 1} days", begun, pods)


def raw(pods: Deployment, chosen: argparse.Namespace) -> None:
    """Two backfills at once that share days; some pods are lost."""
    delivered = [FIRST + timedelta(days=n) for n in range(1, chosen.days + 1)]
    half = (chosen.days + chosen.overlap) // 2
    kinds = ("killed", "out of memory", "evicted")
    pods.cluster.misfortunes["run_worker"] = deque(Misfortune(kinds[n % 3]) for n in range(chosen.lose))
    begun = time.perf_counter()
    two = [pods.backfill(days, *RAW) for days in (delivered[:half], delivered[-half:])]
    wait_until(lambda: pods.backfilled(*two), 3600, "raw")
    told(f"raw: two backfills at once of {half} days, {2 * half - chosen.days} shared", begun, pods)


def work(pods: Deployment, chosen: argparse.Namespace) -> None:
    """All backfills; what failed in runs is told, whether they succeeded in the end or not."""
    try:
        backfill(pods, chosen)
    finally:
        for failure in pods.failures():
            print(f"  failed: {failure[:400]}", flush=True)
    wait_until(pods.cluster.is_idle, 60, "the pods to end")
    print(f"lost on the way: {', '.join(pods.cluster.befallen) or 'none'}; most pods at once: {pods.cluster.most_at_once}")


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--days", type=int, default=30)
    options.add_argument("--meters", type=int, default=20)
    options.add_argument("--at-once", type=int, default=8, help="runs at the same time")
    options.add_argument("--overlap", type=int, default=5, help="days that both backfills of raw have")
    options.add_argument("--lose", type=int, default=4, help="run pods that are lost")
    options.add_argument("--only", choices=("cleaned",), help="this half as pods")
    options.add_argument("--no-postgres", action="store_true", help="Dagster's storage in files")
    chosen = options.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        begun = time.perf_counter()
        alone = landed(folder / "alone" / "site", chosen.days, chosen.meters)
        shutil.copytree(alone.site.home, folder / "pods" / "site")
        clean_up_to_date(alone)
        print(f"{'one undisturbed process':<58}{time.perf_counter() - begun:7.1f} s", flush=True)
        with (folder / "pods" / "site" / "gridlake.yaml").open("a", encoding="utf-8") as site:
            site.write("paths: {lake: 's3://lake/village'}\n")
        database = nullcontext("") if chosen.no_postgres or postgres_programs() is None else postgres()
        with object_store() as store, database as url:
            print(f"Dagster's storage: {'Postgres' if url else 'SQLite'}")
            settings = {"postgres_url": url, "at_once": chosen.at_once, "start_timeout_s": 180}
            if chosen.only == "cleaned":
                os.environ.update(store.environment)
                workspace = Workspace.open(folder / "pods" / "site")
                for step in next_steps(workspace, until="raw"):
                    take(workspace, step)
            with deployed(folder / "pods" / "site", folder / "pods", store.environment, **settings) as pods:
                work(pods, chosen)
            begun = time.perf_counter()
            os.environ.update(store.environment)
            again = [s.days for s in clean_up_to_date(Workspace.open(folder / "pods" / "site")) if s.tables[0] == CLEANED[0] and s.days]
            days = sum((last - first).days + 1 for first, last in again)
            print(f"{f'in order: {days} days that had been cleaned before their past':<58}{time.perf_counter() - begun:7.1f} s", flush=True)
            there = contents(folder / "pods" / "site", COMPARED, store.environment)
            here = contents(alone.site.home, COMPARED, {})
    differ = [table for table in COMPARED if there[table] != here[table]]
    for table in COMPARED:
        print(f"  {table:<30}{len(here[table]):>9,} rows   {'DIFFERENT' if table in differ else 'equal'}")
    sys.exit(1 if differ else 0)


if __name__ == "__main__":
    main()
