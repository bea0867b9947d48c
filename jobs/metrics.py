"""`gridlake metrics`: the site's figures for Prometheus, once, served on loopback, or pushed to a gateway.

The figures are those of `lakehouse.flow.measures`, and what Dagster knows of runs.
"""

from __future__ import annotations

import argparse
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
from prometheus_client import CollectorRegistry, generate_latest, push_to_gateway, start_http_server
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from lakehouse.errors import GridlakeError
from lakehouse.flow.measures import Measure, measures
from lakehouse.flow.workspace import Workspace

PREFIX = "gridlake_"
LOOPBACK = "127.0.0.1"
FRESH_FOR_SECONDS = 15.0
RUNS_LOOKED_AT = 500
LOOK_BACK = timedelta(hours=24)


class SiteCollector(Collector):
    """Looks at the site when it is scraped, at most once in a quarter of a minute.

    Args:
        home: the site's folder.
    """

    def __init__(self, home: Path) -> None:
        self.home = home
        self._lock = threading.Lock()
        self._found: list[Measure] = []
        self._looked_at = -FRESH_FOR_SECONDS

    def collect(self) -> Iterable[Metric]:
        """Every figure as a gauge."""
        with self._lock:
            if time.monotonic() - self._looked_at >= FRESH_FOR_SECONDS:
                self._found = self._look()
                self._looked_at = time.monotonic()
            found = self._found
        families: dict[str, GaugeMetricFamily] = {}
        for one in found:
            family = families.get(one.name)
            if family is None:
                family = families[one.name] = GaugeMetricFamily(PREFIX + one.name, one.help, labels=[label for label, _ in one.labels])
            family.add_metric([value for _, value in one.labels], one.value)
        return families.values()

    def _look(self) -> list[Measure]:
        begun = time.perf_counter()
        try:
            workspace = Workspace.open(self.home)
            found = [*measures(workspace), *_runs(workspace)]
            healthy = 1.0
        except (GridlakeError, OSError) as error:
            sys.stderr.write(f"{error}\n")
            found, healthy = [], 0.0
        found.append(Measure("up", "1 if the site could be looked at.", (), healthy))
        found.append(Measure("look_seconds", "Time that looking took.", (), time.perf_counter() - begun))
        return found


def _runs(workspace: Workspace) -> Iterator[Measure]:
    folder = workspace.site.path("dagster")
    if not (folder / "dagster.yaml").is_file():
        return
    since = datetime.now(UTC) - LOOK_BACK
    with dg.DagsterInstance.from_config(str(folder)) as instance:
        records = instance.get_run_records(dg.RunsFilter(updated_after=since), limit=RUNS_LOOKED_AT)
    counted: dict[str, int] = dict.fromkeys(("success", "failure", "started", "queued", "canceled"), 0)
    seconds: dict[str, float] = {}
    for record in records:
        status = record.dagster_run.status.value.lower()
        counted[status] = counted.get(status, 0) + 1
        layer = record.dagster_run.tags.get("gridlake/work", "").split("/", 1)[0]
        if layer and record.start_time and record.end_time:
            seconds.setdefault(layer, record.end_time - record.start_time)
    for status, count in counted.items():
        yield Measure("runs", "Runs of the last day by how they stand.", (("status", status),), count)
    for layer, took in seconds.items():
        yield Measure("run_seconds", "Duration of the newest finished run of a layer.", (("layer", layer),), took)


def main() -> int:
    """The command behind `gridlake metrics`."""
    options = argparse.ArgumentParser(prog="gridlake metrics")
    options.add_argument("--home", type=Path, required=True)
    options.add_argument("--serve", type=int)
    options.add_argument("--address", default=LOOPBACK)
    options.add_argument("--push")
    chosen = options.parse_args()
    registry = CollectorRegistry(auto_describe=False)
    collector = SiteCollector(chosen.home)
    registry.register(collector)
    if chosen.push:
        try:
            push_to_gateway(chosen.push, job="gridlake", registry=registry, grouping_key={"site": Workspace.open(chosen.home).site.name})
        except (OSError, GridlakeError) as error:
            sys.stderr.write(f"The gateway {chosen.push} took nothing: {error}.\nIs it running, and is that its address?\n")
            return 1
        return 0
    if chosen.serve is None:
        sys.stdout.write(generate_latest(registry).decode())
        return 0
    try:
        server, _ = start_http_server(chosen.serve, addr=chosen.address, registry=registry)
    except OSError as error:
        sys.stderr.write(f"Can't listen on {chosen.address}:{chosen.serve}: {error.strerror}.\nChoose another port: --serve PORT\n")
        return 1
    sys.stderr.write(f"http://{chosen.address}:{server.server_port}/metrics\n")
    sys.stderr.flush()
    try:
        threading.Event().wait()
    except KeyboardInterrupt:
        server.shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
