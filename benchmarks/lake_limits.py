"""What the lake itself can take: commits a second, growth and loading of a table's log, files and planning; and what a run and a step cost.

Run: python -m benchmarks.lake_limits [--parts commits,log,files,landing,store,runs] [--folder FOLDER]

commits  1, 4 and 8 processes replace partitions of their own, of a hundred rows each, in one table on a local disk; then all the same
         partition, where every commit conflicts with every other.
log      tables with 10, 1,000 and 10,000 commits, each commit replacing one of 365 partitions as the lake does: the size of the log, and
         the time to load the newest version and list its files, with no checkpoint and with one that is new. The log's entries after the
         second are copies of a true one with other names. Also when the writer itself makes checkpoints.
files    a table of 10, 1,000 and 10,000 files: time to open it in DuckDB, to read all rows, and to open it for one day and read that.
landing  1,000, 10,000 and 100,000 files in landing, a hundred a day, all read: the sensor's look when nothing came, what it costs to tell
         what is stale when one file came, and the reading of that file. The ledger of what was read is written as reading writes it.
store    requests to an object store (`moto`) that one delivery's reading, one day's cleaning, a look at what is stale and the catalog's
         publication take, each by a process that knows nothing yet, after 1, 12 and 60 deliveries.
runs     seconds of a run of Dagster beside the same work without it; the share of each further step and day; and a fresh process.

Figures of a local disk, told with the load at the start: on a busy machine they are larger.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import date, timedelta
from pathlib import Path

import pyarrow as pa

FIRST = date(2020, 1, 1)
COMMITS = (10, 1_000, 10_000)
FILES = (10, 1_000, 10_000)
LANDED = (1_000, 10_000, 100_000)
FILES_A_DAY = 100
DELIVERIES = (1, 12, 60)
PARTITIONS = 365
WRITERS = (1, 4, 8)
SECONDS_OF_WRITING = 8.0
ROUNDS = 5


def table_of(folder: Path):
    from lakehouse.contracts.cleaned import Prices
    from lakehouse.storage.lake import Lake

    return Lake(folder).table(Prices)


def rows_of(day: date, rows: int = 100) -> pa.Table:
    from datetime import UTC, datetime

    from lakehouse.contracts.cleaned import Prices

    start = datetime(day.year, day.month, day.day, tzinfo=UTC)
    kinds = Prices.columns
    given = {"series_id": "spot", "interval_minutes": 5, "delivery_date": day, "date": day, "file": "a.csv"}
    told = []
    for n in range(rows):
        row = {c: given.get(c) for c in kinds} | {"interval_start": start + timedelta(minutes=5 * n)}
        for name, c in kinds.items():
            if row[name] is None and not c.nullable:
                row[name] = {"DOUBLE": 40.0 + n, "BOOLEAN": False, "VARCHAR": (c.isin or ("measured",))[0]}.get(c.sql_type, 1)
        told.append(row)
    return Prices.from_rows(told)


# -- commits a second


def write_for(folder: Path, number: int, seconds: float, same: bool, start: float, told) -> None:
    """One writer's part: replaces its day again and again."""
    from lakehouse.errors import ConflictError

    table = table_of(folder)
    day = FIRST if same else FIRST + timedelta(days=1 + number)
    rows = rows_of(day)
    while time.time() < start:
        time.sleep(0.001)
    done = lost = 0
    slowest = 0.0
    while time.time() < start + seconds:
        begun = time.perf_counter()
        try:
            table.replace(rows, where={"date": day})
            done += 1
        except ConflictError:
            lost += 1
        slowest = max(slowest, time.perf_counter() - begun)
    told.put((done, lost, slowest))


def commits(folder: Path) -> None:
    print("commits to one table (local disk, a hundred rows each)")
    for same in (False, True):
        for writers in WRITERS if not same else WRITERS[1:]:
            here = folder / f"commits-{writers}-{same}"
            table_of(here).replace(rows_of(FIRST), where={"date": FIRST})
            context = multiprocessing.get_context("spawn")
            told = context.Queue()
            start = time.time() + 3 + writers
            arguments = [(here, n, SECONDS_OF_WRITING, same, start, told) for n in range(writers)]
            at_work = [context.Process(target=write_for, args=a) for a in arguments]
            for one in at_work:
                one.start()
            results = [told.get() for _ in at_work]
            for one in at_work:
                one.join()
            done, lost = sum(r[0] for r in results), sum(r[1] for r in results)
            of = "the same partition" if same else "a partition each"
            print(
                f"  {writers} writers, {of:<18} {done / SECONDS_OF_WRITING:7.1f} commits/s   {lost} given up   "
                f"slowest {max(r[2] for r in results):.2f} s",
                flush=True,
            )


# -- the log


def with_commits(folder: Path, count: int) -> Path:
    """A table of so many commits: two true ones, then copies of the second with other names, days and versions."""
    table = table_of(folder)
    table.replace(rows_of(FIRST), where={"date": FIRST})
    table.replace(rows_of(FIRST), where={"date": FIRST})
    home = Path(table.uri)
    log = home / "_delta_log"
    true = [json.loads(line) for line in (log / f"{1:020}.json").read_text().splitlines()]
    added = next(a["add"] for a in true if "add" in a)
    data = home / added["path"]
    current: dict[int, str] = {0: added["path"]}
    for version in range(2, count):
        slot = version % PARTITIONS
        day = FIRST + timedelta(days=slot)
        path = f"date={day}/part-{version:08}.parquet"
        lines = []
        for action in true:
            kind, body = next(iter(action.items()))
            body = json.loads(json.dumps(body).replace(str(FIRST), str(day)))
            if kind == "add":
                body["path"] = path
            elif kind == "remove":
                if slot not in current:
                    continue
                body["path"] = current[slot]
            lines.append(json.dumps({kind: body}))
        current[slot] = path
        (log / f"{version:020}.json").write_text("\n".join(lines) + "\n")
        (home / path).parent.mkdir(exist_ok=True)
        os.link(data, home / path)
    return home


def load_seconds(home: Path) -> float:
    """Median time to load the newest version and list its files."""
    from deltalake import DeltaTable

    told = []
    for _ in range(ROUNDS):
        begun = time.perf_counter()
        DeltaTable(str(home)).get_add_actions(flatten=True)
        told.append(time.perf_counter() - begun)
    return statistics.median(told)


def log_sizes(folder: Path) -> None:
    from deltalake import DeltaTable

    print(f"log of a table, each commit replacing one of {PARTITIONS} partitions")
    for count in COMMITS:
        home = with_commits(folder / f"log-{count}", count)
        log = home / "_delta_log"
        for old in [*log.glob("*.checkpoint*.parquet"), *log.glob("_last_checkpoint")]:
            old.unlink()
        size = sum(p.stat().st_size for p in log.iterdir())
        without = load_seconds(home)
        DeltaTable(str(home)).create_checkpoint()
        checkpoint = sum(p.stat().st_size for p in log.glob("*.checkpoint*.parquet"))
        fresh = load_seconds(home)
        print(
            f"  {count:>6,} commits: log {size / 1e6:8.2f} MB ({size / count / 1e3:.1f} kB a commit), loaded in {without * 1e3:8.1f} ms "
            f"without checkpoint, {fresh * 1e3:6.1f} ms with one ({checkpoint / 1e6:.2f} MB)",
            flush=True,
        )
        shutil.rmtree(folder / f"log-{count}")
    here = folder / "log-true"
    table = table_of(here)
    for n in range(250):
        day = FIRST + timedelta(days=n % 30)
        table.replace(rows_of(day, 1), where={"date": day})
    written = sorted(p.name.split(".")[0].lstrip("0") for p in (Path(table.uri) / "_delta_log").glob("*.checkpoint*.parquet"))
    print(f"  of 250 true commits the writer itself made checkpoints at versions {', '.join(written) or 'none'}")


# -- files


def files(folder: Path) -> None:
    from lakehouse.storage.engine import open_engine, register

    print("files of a table (100 rows each, one file a day), local disk")
    for count in FILES:
        here = folder / f"files-{count}"
        table = table_of(here)
        table.replace(rows_of(FIRST), where={"date": FIRST})
        home = Path(table.uri)
        log = home / "_delta_log"
        true = json.loads(next(line for line in (log / f"{0:020}.json").read_text().splitlines() if '"add"' in line))["add"]
        lines = []
        for n in range(1, count):
            day = FIRST + timedelta(days=n)
            one = json.loads(json.dumps(true).replace(str(FIRST), str(day)))
            one["path"] = f"date={day}/part-{n:08}.parquet"
            (home / one["path"]).parent.mkdir(exist_ok=True)
            os.link(home / true["path"], home / one["path"])
            lines.append(json.dumps({"add": one}))
        (log / f"{1:020}.json").write_text("\n".join([json.dumps({"commitInfo": {"operation": "WRITE"}}), *lines]) + "\n")
        table.checkpoint()
        told: dict[str, list[float]] = {"opened": [], "all": [], "day": []}
        day = FIRST + timedelta(days=count // 2)
        for _ in range(3):
            with open_engine() as engine:
                begun = time.perf_counter()
                name = register(engine, table)
                told["opened"].append(time.perf_counter() - begun)
                begun = time.perf_counter()
                rows = engine.sql(f"SELECT count(*), sum(interval_minutes) FROM {name}").fetchall()[0][0]
                told["all"].append(time.perf_counter() - begun)
            assert rows == 100 * count, rows
            with open_engine() as engine:
                begun = time.perf_counter()
                name = register(engine, table, only={"date": (day, day)})
                assert engine.sql(f"SELECT count(*) FROM {name}").fetchall()[0][0] == 100
                told["day"].append(time.perf_counter() - begun)
        best = {k: min(v) * 1e3 for k, v in told.items()}
        print(
            f"  {count:>6,} files: table opened in {best['opened']:7.1f} ms, all rows read in {best['all']:8.1f} ms, "
            f"opened and read for one day in {best['day']:7.1f} ms",
            flush=True,
        )
        shutil.rmtree(here)


# -- landing


def landing(folder: Path) -> None:
    from datetime import UTC, datetime

    from lakehouse.contracts.quality import Deliveries
    from lakehouse.flow.raw import read_deliveries
    from lakehouse.flow.staleness import next_steps, pulse
    from lakehouse.flow.workspace import Workspace
    from tests.flow.builders import land, reading_lines, village

    def tick(home: Path, look) -> float:
        # the daemon's server of definitions makes a new workspace at every tick
        return _seconds(lambda: look(Workspace.open(home)))

    print(f"landing, {FILES_A_DAY} files a day, all of them read (local disk, files in the page cache)")
    for count in LANDED:
        home = folder / f"landing-{count}" / "site"
        village(home)
        days = [FIRST + timedelta(days=n) for n in range(count // FILES_A_DAY)]
        site = (home / "gridlake.yaml").read_text(encoding="utf-8")
        site = re.sub(r"first_day: .*", f"first_day: {FIRST}", re.sub(r"clock: .*", f"clock: {days[-1] + timedelta(days=1)}", site))
        (home / "gridlake.yaml").write_text(site, encoding="utf-8")
        workspace = Workspace.open(home)
        content = "\n".join(["meter_id,register,interval_start,interval_minutes,energy_kwh,quality", *reading_lines(FIRST)]) + "\n"
        ledger = []
        for day in days:
            (workspace.landing.root / "readings" / f"{day}").mkdir(parents=True)
            for n in range(FILES_A_DAY):
                (workspace.landing.root / "readings" / f"{day}" / f"n{n:03}.csv").write_text(content, encoding="utf-8")
            for arrival in workspace.landing.arrivals("readings", day):
                size, changed = arrival.stamp()
                at = datetime(day.year, day.month, day.day, tzinfo=UTC)
                known = {"feed": "readings", "delivery_date": day, "file": arrival.name, "sha256": arrival.sha256(), "bytes": size}
                rows = {"rows": 24, "faulty_rows": 0, "first_interval": at, "last_interval": at}
                ledger.append(known | {"modified_at": changed} | rows)
        workspace.replace("quality/deliveries", Deliveries.from_rows(ledger), where={"feed": "readings", "delivery_date": days})
        assert not next_steps(workspace, until="raw")
        idle = min(tick(home, pulse) for _ in range(ROUNDS))
        land(workspace, "readings", days[-1], "new.csv", reading_lines(days[-1], meter="B"))
        telling = min(tick(home, lambda w: next_steps(w, until="raw")) for _ in range(ROUNDS))
        reading = tick(home, lambda w, day=days[-1]: read_deliveries(w, "readings", [day]))
        print(
            f"  {count:>7,} files: nothing came {idle * 1e3:7.1f} ms, told what is stale in {telling * 1e3:8.1f} ms, "
            f"delivery of {FILES_A_DAY + 1} files read in {reading * 1e3:7.1f} ms",
            flush=True,
        )
        shutil.rmtree(home.parent)


# -- an object store


def store(folder: Path) -> None:
    from benchmarks.kubernetes_backfill import landed
    from lakehouse.flow.clean import clean_meters, clean_readings_days
    from lakehouse.flow.raw import read_deliveries
    from lakehouse.flow.staleness import next_steps
    from lakehouse.flow.workspace import Workspace
    from tests.storage.object_store import object_store

    home, log = folder / "store" / "site", folder / "requests"
    site = landed(home, max(DELIVERIES), 5).site
    with (home / "gridlake.yaml").open("a", encoding="utf-8") as file:
        file.write("paths: {lake: 's3://lake/village'}\n")
    print("requests to an object store, by a process that knows nothing yet (a site of five meters)")
    with object_store(log) as running:
        os.environ.update(running.environment)

        def requests(work) -> int:
            before = log.read_text(encoding="utf-8").count("HTTP/1.1")
            work(Workspace.open(home))
            return log.read_text(encoding="utf-8").count("HTTP/1.1") - before

        for n in range(max(DELIVERIES)):
            day = site.first_day + timedelta(days=n)
            reading = requests(lambda w, on=day + timedelta(days=1): read_deliveries(w, "readings", [on]))
            if n == 0:
                clean_meters(Workspace.open(home))
            cleaning = requests(lambda w, of=day: clean_readings_days(w, of, of))
            if n + 1 in DELIVERIES:
                look, publishing = requests(lambda w: next_steps(w, until="cleaned")), requests(lambda w: w.publish())
                print(
                    f"  after {n + 1:>3} deliveries: read a delivery {reading:>5}, clean a day {cleaning:>5}, "
                    f"tell what is stale {look:>5}, publish the catalog {publishing:>5}",
                    flush=True,
                )


# -- runs


def runs(folder: Path) -> None:
    import dagster as dg

    from definitions import build_definitions
    from lakehouse.flow.raw import read_deliveries
    from lakehouse.flow.setup import write_dagster_home
    from tests.flow.builders import day, land, reading_lines, series_lines, village

    workspace = village(folder / "runs" / "site")
    for n in range(3, 19):
        land(workspace, "readings", day(n), f"n{n}.csv", reading_lines(day(n - 1)))
        land(workspace, "market", day(n), f"m{n}.csv", series_lines(day(n), "spot", "price_eur_per_mwh", lambda h: 40.0 + h))
    write_dagster_home(workspace.site)
    definitions = build_definitions(workspace.site)
    whole = definitions.resolve_implicit_global_asset_job_def()
    quiet = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}

    def seconds_of(tables: list[str], first: int, last: int) -> float:
        job = whole.get_subset(asset_selection={dg.AssetKey(t.split("/")) for t in tables})
        tags = {f"dagster/asset_partition_range_{end}": day(n).isoformat() for end, n in (("start", first), ("end", last))}
        begun = time.perf_counter()
        with dg.DagsterInstance.from_config(str(workspace.site.path("dagster"))) as instance:
            assert job.execute_in_process(instance=instance, tags=tags, run_config=quiet).success
        return time.perf_counter() - begun

    def median(measure) -> float:
        return statistics.median(measure() for _ in range(ROUNDS))

    seconds_of(["raw/readings", "raw/market"], 3, 18)  # warm
    bare = median(lambda: _seconds(lambda: read_deliveries(workspace, "readings", [day(9)])))
    one = median(lambda: seconds_of(["raw/readings"], 9, 9))
    two = median(lambda: seconds_of(["raw/readings", "raw/market"], 9, 9))
    ten = median(lambda: seconds_of(["raw/readings"], 5, 14))
    print("runs of Dagster (a few rows, warm process, SQLite)")
    print(f"  a delivery read without Dagster {bare:.3f} s; as a run of one step {one:.3f} s: {one - bare:.3f} s for run and step")
    print(f"  the second step of a run {two - one:.3f} s, of which its own work is about {bare:.3f} s")
    print(f"  a run of ten days {ten:.3f} s: {(ten - one) / 9:.3f} s for each further day")
    command = [sys.executable, "-m", "jobs.refresh", "--home", str(workspace.site.home), "--until", "raw", "--json"]
    nothing = median(lambda: _seconds(lambda: subprocess.run(command, check=True, stdout=subprocess.DEVNULL)))
    print(f"  a fresh process that finds nothing to do {nothing:.2f} s (import, one look, catalog)")


def _seconds(work) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


PARTS = {"commits": commits, "log": log_sizes, "files": files, "landing": landing, "store": store, "runs": runs}


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--parts", default=",".join(PARTS))
    options.add_argument("--folder", type=Path, help="where to measure; by default the system's temporary folder")
    chosen = options.parse_args()
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    with tempfile.TemporaryDirectory(dir=chosen.folder) as folder:
        for part in chosen.parts.split(","):
            PARTS[part](Path(folder))


if __name__ == "__main__":
    main()
