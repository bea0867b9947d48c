"""What a day costs as the tables grow, and what a late file of 100 readings costs.

Run: python -m benchmarks.metering_growth [--meters 200] [--days 1000] [--at 1,30,300,1000] [--keep FOLDER]

Grows a site day by day: every day is landed, read to raw and committed to each table by Gridlake's own writers, one commit a day and
table; but for the measured days the rows of the cleaned tables are made in SQL and not by VEE, so that a thousand days take minutes.
Housekeeping runs every hundred days. A measured day is landed, found stale, read and cleaned in a process of its own, which has done
the same once before: what a process loads at its start is the same on every day. The late file is taken up by the command that a user
would type, beside the same command with nothing to do.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import duckdb

FIRST = date(2023, 1, 2)
READINGS = """
    SELECT 'M' || lpad(m::VARCHAR, 7, '0') AS meter_id, 'import' AS register, DATE '{day}'::TIMESTAMPTZ + to_hours(slot) AS interval_start,
           60::INTEGER AS interval_minutes,
           round(0.12 + 0.4 * abs(sin(slot * 0.26 + hash(m) % 7)) + (hash(m * 31 + slot * 7 + {number}) % 1000) / 2500.0, 3) AS energy_kwh
    FROM (SELECT n // 24 AS m, n % 24 AS slot FROM range({rows}) r(n))"""


def site(home: Path, days: int) -> Any:
    from lakehouse.flow.workspace import Workspace
    from tests.flow.builders import site_text

    home.mkdir(parents=True, exist_ok=True)
    text = site_text("growth", FIRST, FIRST + timedelta(days=days + 1), "feeds:\n  readings: {format: canonical_readings}\n")
    (home / "gridlake.yaml").write_text(text, encoding="utf-8")
    return Workspace.open(home)


def land(workspace: Any, day: date, meters: int, name: str = "", only: str = "true", delivered: date | None = None) -> None:
    folder = workspace.site.path("landing") / "readings" / str(delivered or day + timedelta(days=1))
    folder.mkdir(parents=True, exist_ok=True)
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'; SET threads = 2")
        rows = READINGS.format(day=day, number=day.toordinal(), rows=24 * meters)
        connection.execute(f"COPY (SELECT *, 'A' AS quality FROM ({rows}) WHERE {only}) TO '{folder / (name or f'day-{day}.parquet')}'")


def grow(workspace: Any, first: int, last: int, meters: int) -> None:
    """Adds the days of these numbers without VEE."""
    from lakehouse.contracts.quality import Conservation, Edits, Quarantine, VeeReport
    from lakehouse.flow.housekeeping import keep_house
    from lakehouse.flow.raw import read_deliveries

    zeros = {c: "0::BIGINT" for c, kind in VeeReport.columns.items() if "int64" in str(kind.type)}
    for number in range(first, last + 1):
        day = FIRST + timedelta(days=number - 1)
        land(workspace, day, meters)
        read_deliveries(workspace, "readings", [day + timedelta(days=1)])
        readings = READINGS.format(day=day, number=day.toordinal(), rows=24 * meters)
        given = zeros | {
            "meter_id": "meter_id", "register": "register", "expected": "24::BIGINT", "delivered": "24::BIGINT", "measured": "24::BIGINT",
            "findings": "NULL::VARCHAR", "energy_kwh": "sum(energy_kwh)", "estimated_kwh": "NULL::DOUBLE", "mean_kw": "avg(energy_kwh)",
            "peak_kw": "max(energy_kwh)", "zero_share": "0.0", "repeat_share": "0.01", "longest_zero_hours": "0.0",
            "lone_peak_kw": "0.5", "hours_with_zeros": "0::INTEGER", "date": f"DATE '{day}'",
        }  # fmt: skip
        report = ", ".join(f"{given[c]} AS {c}" for c in VeeReport.columns)
        with duckdb.connect() as connection:
            connection.execute("SET TimeZone = 'UTC'; SET threads = 2")
            trusted = connection.sql(
                f"""SELECT *, 'measured' AS quality, false AS is_estimated, NULL::VARCHAR AS rule, NULL::VARCHAR AS method,
                    NULL::TIMESTAMPTZ AS basis_from, NULL::TIMESTAMPTZ AS basis_to, NULL::DOUBLE AS delivered_kwh,
                    'day-{day}.parquet' AS file, DATE '{day}' + 1 AS delivery_date, DATE '{day}' AS date
                    FROM ({readings}) ORDER BY 1, 2, 3"""
            )
            where = {"date": day}
            workspace.replace("cleaned/meter_readings", trusted, where=where)
            workspace.replace("quality/vee_report", connection.sql(f"SELECT {report} FROM ({readings}) GROUP BY ALL"), where=where)
            workspace.replace("quality/edits", Edits.from_rows([]), where=where)
            account = dict.fromkeys(Conservation.columns, 0) | {
                "feed": "readings", "file": f"day-{day}.parquet", "delivery_date": day + timedelta(days=1), "delivered": 24 * meters,
                "cleaned": 24 * meters, "is_conserved": True, "date": day,
            }  # fmt: skip
            where = {"feed": "readings", "date": day}
            workspace.replace("quality/quarantine", Quarantine.from_rows([]), where=where)
            workspace.replace("quality/conservation", Conservation.from_rows([account]), where=where)
        if number % 100 == 0:
            keep_house(workspace)


def measured_day(home: Path, number: int, meters: int, days: int) -> dict[str, float]:
    """Takes up a day that has been landed; seconds and processor time of each step."""
    from lakehouse.flow.clean import clean_meters, clean_readings_days
    from lakehouse.flow.raw import read_deliveries
    from lakehouse.flow.staleness import next_steps

    workspace = site(home, days)
    day = FIRST + timedelta(days=number - 1)
    # Once unmeasured: what the process loads is the same on every day, and would hide what grows.
    read_deliveries(workspace, "readings", [day + timedelta(days=1)])
    if not workspace.table("cleaned/meters").exists():
        clean_meters(workspace)
    clean_readings_days(workspace, day, day)
    told = {}
    for step in ("look", "raw", "look again", "cleaned"):
        begun, cpu = time.perf_counter(), time.process_time()
        if step.startswith("look"):
            next_steps(workspace, until="cleaned")
        elif step == "raw":
            read_deliveries(workspace, "readings", [day + timedelta(days=1)])
        else:
            clean_readings_days(workspace, day, day)
        told[step] = time.perf_counter() - begun
        told[f"{step}, cpu"] = time.process_time() - cpu
    return told | {"peak_gib": peak_gib()}


def peak_gib() -> float:
    """The most memory that this process has held."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) / 2**20


def in_process(*arguments: str) -> dict[str, float]:
    answer = subprocess.run([sys.executable, "-m", "benchmarks.metering_growth", *arguments], stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(answer.stdout.strip().splitlines()[-1])


def refresh_seconds(home: Path) -> float:
    """Clock of `gridlake refresh --until cleaned`."""
    begun = time.perf_counter()
    command = [sys.executable, "-m", "lakehouse.cli", "refresh", "--until", "cleaned"]
    subprocess.run(command, check=True, capture_output=True, env=os.environ | {"GRIDLAKE_HOME": str(home)})
    return time.perf_counter() - begun


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--meters", type=int, default=200, help="of the site that grows")
    parser.add_argument("--days", type=int, default=1000)
    parser.add_argument("--at", default="1,30,300,1000", help="days that are measured")
    parser.add_argument("--rounds", type=int, default=3, help="times that each measured day is cleaned; the best counts")
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--measure", type=int, help=argparse.SUPPRESS)
    told = parser.parse_args()
    if told.measure:
        print(json.dumps(measured_day(told.keep, told.measure, told.meters, told.days)))
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = told.keep or Path(temporary)
        growing(folder / "growing", told)


def growing(home: Path, told: argparse.Namespace) -> None:
    """Grows the site to its last day, and prints what the measured days cost."""
    workspace = site(home, told.days)
    done = 0
    print(f"{told.meters:,} meters of 24 hours a day; seconds, best of {told.rounds}\n")
    print("| day | look for what is stale | raw | look again | cleaned | all | of that processor time | peak memory |")
    print("| ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    for number in (int(n) for n in told.at.split(",")):
        grow(workspace, done + 1, number - 1, told.meters)
        land(workspace, FIRST + timedelta(days=number - 1), told.meters)
        arguments = ["--measure", str(number), "--keep", str(home), "--meters", str(told.meters), "--days", str(told.days)]
        rounds = [in_process(*arguments) for _ in range(told.rounds)]
        steps = ("look", "raw", "look again", "cleaned")
        best = [min(r[s] for r in rounds) for s in steps]
        cpu = sum(min(r[f"{s}, cpu"] for r in rounds) for s in steps)
        cells = " | ".join(f"{s:.2f}" for s in (*best, sum(best), cpu))
        print(f"| {number:,} | {cells} | {max(r['peak_gib'] for r in rounds):.2f} GiB |", flush=True)
        done = number
    refresh_seconds(home)
    idle = min(refresh_seconds(home) for _ in range(told.rounds))
    late = []
    for n in range(told.rounds):
        day = FIRST + timedelta(days=done - 40 - n)
        few = f"meter_id < 'M{100 // 24 + 1:07d}' AND interval_start < DATE '{day}'::TIMESTAMPTZ + INTERVAL 20 HOUR"
        land(workspace, day, told.meters, f"late-{n}.parquet", few, delivered=workspace.site.today())
        late.append(refresh_seconds(home))
    print(f"\ngridlake refresh --until cleaned: {idle:.1f} s with nothing to do, {min(late):.1f} s with a late file of 100 readings")


if __name__ == "__main__":
    main()
