"""With `gridlake ui` running and nothing but its default settings: how long from a file's arrival to the new forecast and plan in DuckDB?

Run: python -m benchmarks.arrival_to_plan [--arrivals 20] [--meters 200] [--days 150] [--keep FOLDER] [--json results.json]

Makes the sample utility with a frozen clock, holds back this morning's meter files and some older ones, brings the rest up to date and
starts `gridlake ui`. Then files arrive one by one, each when the work of the one before has ended and after a pause of random length:
parts of this morning's readings, late files of days before, and corrected ones. An arrival is over when the analysts' catalog shows a
demand forecast and a plan that were made after it. Where the time went is told by Dagster's records of runs. `--keep FOLDER` keeps the
site as it was before the first arrival, and takes it from there the next time.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

from tests.servers import PROJECT, running_ui

TODAY = date(2026, 3, 31)
FEED = "meter_readings"
LONGEST_WAIT_S = 300.0
PAUSE_S = 6.0
LATE_DAYS = (3, 4, 5, 6)
KINDS = ("this morning's", "this morning's", "late", "this morning's", "corrected")
JOB, FOR_TAG, WORK_TAG = "bring_up_to_date", "gridlake/for_run", "gridlake/work"
LAYERS = ("raw", "cleaned", "features", "forecasts", "dispatch")


@dataclass(frozen=True)
class Arrival:
    """A file that is going to arrive, and what it is."""

    kind: str
    path: Path


def gridlake(home: Path | None, *arguments: str) -> None:
    """Runs the command; ends the benchmark if it fails."""
    command = [sys.executable, "-m", "lakehouse.cli", *(["--home", str(home)] if home else []), *arguments]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(arguments)} failed:\n{done.stdout}{done.stderr}")


def prepare(folder: Path, meters: int, days: int) -> None:
    """A site that is up to date but for the files in `folder/held`."""
    home, held = folder / "site", folder / "held"
    gridlake(None, "init", str(home), "--meters", str(meters), "--days", str(days), "--until", TODAY.isoformat())
    held.mkdir()
    landing = home / "landing" / FEED
    shutil.move(landing / TODAY.isoformat(), held / "today")
    (held / "late").mkdir()
    for back in LATE_DAYS:
        delivery = landing / (TODAY - timedelta(days=back)).isoformat()
        path = next(p for p in sorted(delivery.iterdir()) if f"{TODAY - timedelta(days=back + 1)}-shop" in p.name)
        shutil.move(path, held / "late" / path.name)
    gridlake(home, "refresh", "--json")


def arrivals(folder: Path, count: int) -> Iterator[Arrival]:
    """The files of `folder/held`, this morning's cut into parts by meter, in the order in which they are to arrive."""
    wanted = [KINDS[n % len(KINDS)] for n in range(count)]
    out = folder / "arriving"
    out.mkdir()
    morning = list(_parts(sorted((folder / "held" / "today").iterdir()), wanted.count(KINDS[0]), out))
    late = sorted((folder / "held" / "late").iterdir())
    news, lates = iter(morning), iter(list(_parts(late, max(wanted.count("late"), len(late)), out)))
    landed: list[Path] = []
    for n, kind in enumerate(wanted):
        if kind == "corrected":  # a part that came before, with other values
            path = _corrected(landed[-1], out / f"corrected-{n}.csv")
        else:
            path = next(news if kind == KINDS[0] else lates)
            landed.append(path)
        yield Arrival(kind, path)


def _parts(files: list[Path], count: int, out: Path) -> Iterator[Path]:
    """Files cut by meter into so many parts, or a few more."""
    per_file = -(-count // len(files))
    for path in files:
        head, *rows = path.read_text(encoding="utf-8").splitlines()
        meters = list(dict.fromkeys(row.split(",", 1)[0] for row in rows))
        for n in range(min(per_file, len(meters))):
            mine = set(meters[n::per_file])
            part = out / f"{path.stem}-part{n}.csv"
            part.write_text("\n".join([head, *(row for row in rows if row.split(",", 1)[0] in mine)]) + "\n", encoding="utf-8")
            yield part


def _corrected(path: Path, out: Path) -> Path:
    head, *rows = path.read_text(encoding="utf-8").splitlines()
    place = head.split(",").index("energy_kwh")
    changed = [row.split(",") for row in rows]
    for cells in changed:
        with contextlib.suppress(ValueError, IndexError):
            cells[place] = f"{float(cells[place]) * 1.02:.3f}"
    out.write_text("\n".join([head, *(",".join(cells) for cells in changed)]) + "\n", encoding="utf-8")
    return out


def shown(home: Path) -> tuple[str, str]:
    """The files of today's demand forecast and plan to which the analysts' catalog points."""
    import duckdb

    with duckdb.connect() as analyst:
        analyst.execute(f"ATTACH '{home / 'catalog.duckdb'}' AS lake (READ_ONLY)")
        found = dict(
            analyst.sql(
                "SELECT schema_name || '.' || view_name, sql FROM duckdb_views() WHERE database_name = 'lake' "
                "AND (schema_name, view_name) IN (('forecasts', 'demand'), ('dispatch', 'summary'))"
            ).fetchall()
        )
    files = [re.findall(rf"date=(?:{TODAY})/[^']+", found[view]) for view in ("forecasts.demand", "dispatch.summary")]
    return str(files[0]), str(files[1])


def measure(home: Path, arrival: Arrival) -> dict[str, object]:
    """Lands a file, waits for its plan, and tells where the seconds went."""
    import dagster as dg

    before = shown(home)
    with dg.DagsterInstance.from_config(str(home / ".dagster")) as instance:
        known = {run.run_id for run in instance.get_runs()}
        landed = time.time()
        folder = home / "landing" / FEED / TODAY.isoformat()
        folder.mkdir(parents=True, exist_ok=True)
        aside = folder / f".{arrival.path.name}.part"
        shutil.copyfile(arrival.path, aside)
        aside.rename(folder / arrival.path.name)
        while any(new == old for new, old in zip(shown(home), before, strict=True)):
            if time.time() - landed > LONGEST_WAIT_S:
                sys.exit(f"No plan within {LONGEST_WAIT_S:.0f} s:\n{(home / 'ui.log').read_text()[-3000:]}")
            time.sleep(0.1)
        seen = time.time()
        _wait_until_idle(instance)
        runs = [r for r in instance.get_run_records() if r.dagster_run.run_id not in known]
        whole = min((r for r in runs if r.dagster_run.job_name == JOB), key=lambda r: r.create_timestamp)
        stats = instance.get_run_stats(whole.dagster_run.run_id)
    steps = [r for r in runs if r.dagster_run.tags.get(FOR_TAG) == whole.dagster_run.run_id and r.start_time and r.start_time < seen]
    told: dict[str, object] = {"kind": arrival.kind, "seconds": seen - landed}
    told["waiting for the tick"] = (stats.enqueued_time or landed) - landed
    told["in the queue"] = (stats.launch_time or 0) - (stats.enqueued_time or 0)
    told["starting the process"] = (stats.start_time or 0) - (stats.launch_time or 0)
    worked = 0.0
    for layer in LAYERS:
        mine = [r for r in steps if r.dagster_run.tags.get(WORK_TAG, "").startswith(layer + "/")]
        told[f"work: {layer}"] = sum(min(r.end_time or seen, seen) - (r.start_time or seen) for r in mine)
        worked += float(told[f"work: {layer}"])  # type: ignore[arg-type]
    told["between steps: what is next, publishing"] = seen - (stats.start_time or seen) - worked
    return told


def _wait_until_idle(instance: object) -> None:
    import dagster as dg

    going_on = [dg.DagsterRunStatus[s] for s in ("QUEUED", "NOT_STARTED", "STARTING", "STARTED", "CANCELING")]
    end = time.monotonic() + LONGEST_WAIT_S
    while instance.get_runs(dg.RunsFilter(statuses=going_on)):  # type: ignore[attr-defined]
        if time.monotonic() > end:
            sys.exit("Runs did not end.")
        time.sleep(0.25)


def quantile(values: list[float], q: float) -> float:
    """By linear interpolation between the ordered values."""
    ordered = sorted(values)
    place = q * (len(ordered) - 1)
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (place - low) * (ordered[high] - ordered[low])


def report(measured: list[dict[str, object]]) -> None:
    """Prints the table."""
    names = [n for n in measured[0] if n not in ("kind", "seconds")]
    print(f"\n{'':42}{'p50':>8}{'p95':>8}{'longest':>9}   seconds, {len(measured)} arrivals")
    for name in ("seconds", *names):
        values = [float(m[name]) for m in measured]  # type: ignore[arg-type]
        title = "arrival to plan" if name == "seconds" else f"  {name}"
        print(f"{title:42}{statistics.median(values):8.1f}{quantile(values, 0.95):8.1f}{max(values):9.1f}")


def main() -> None:
    """The command."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--arrivals", type=int, default=20)
    options.add_argument("--meters", type=int, default=200)
    options.add_argument("--days", type=int, default=150)
    options.add_argument("--keep", type=Path)
    options.add_argument("--json", type=Path)
    chosen = options.parse_args()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch:
        prepared = (chosen.keep or Path(scratch) / "prepared").absolute()
        if not (prepared / "site" / "gridlake.yaml").exists():
            print(f"preparing a site of {chosen.meters} meters and {chosen.days} days", flush=True)
            prepared.mkdir(parents=True, exist_ok=True)
            prepare(prepared, chosen.meters, chosen.days)
        folder = Path(scratch) / "at_work"
        shutil.copytree(prepared, folder)
        home = folder / "site"
        gridlake(home, "refresh", "--json")  # the catalog's paths are those of this folder
        print(f"load {os.getloadavg()[0]:.1f}, {os.cpu_count()} cores", flush=True)
        measured: list[dict[str, object]] = []
        ui = running_ui(home, home / "ui.log", longest_wait_s=LONGEST_WAIT_S)
        with contextlib.suppress(KeyboardInterrupt), ui:  # stopped early, it tells what it has
            time.sleep(30)  # the code location loads, the daemon begins
            for n, arrival in enumerate(arrivals(folder, chosen.arrivals)):
                time.sleep(random.uniform(0, PAUSE_S))
                measured.append(measure(home, arrival))
                print(f"{n + 1:3} {arrival.kind:16} {measured[-1]['seconds']:6.1f} s", flush=True)
        if measured:
            report(measured)
        print(f"load {os.getloadavg()[0]:.1f} at the end")
        if chosen.json:
            chosen.json.write_text(json.dumps(measured, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
