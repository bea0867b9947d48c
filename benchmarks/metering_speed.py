"""One day of N meters by 48 half-hours, from a landed file to a committed table: the bare query, Gridlake, and the same rules in pandas.

Run: python -m benchmarks.metering_speed [--meters 1000000] [--format parquet] [--order meter] [--faults 0.01] [--rounds 2] [--keep FOLDER]
Memory of ten days against one: python -m benchmarks.metering_speed --meters 100000 --sides vee,span --span-days 10

Sides, each a process of its own, in turns:
  bare    one hand-written DuckDB query that reads the landed file, keeps the newest reading of each key, orders, and streams into
          `write_deltalake`; nothing is validated
  day     the first day of a site: landing to raw to cleaned, with contract, conservation, quarantine, report and every rule that looks
          at the day alone
  vee     the same with a past: histories, estimation by like days
  span    as `vee`, over the first `--span-days` days at once
  pandas  the rules in pandas over whole columns, on the first meters only, for the cost of a reading
  plain   the same rules as they stand in most notebooks, a function of one meter's day applied to each group; on fewer meters still
Seconds of `day` and `vee` are told for raw and cleaned apart. The past is `--past-days` of readings and four weeks of reports.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from datetime import date, timedelta
from pathlib import Path

import duckdb

DAY = date(2026, 3, 10)
DELIVERED = DAY + timedelta(days=1)
REPORT_DAYS = 28
BATCH_ROWS = 100_000
HOMES = {"day": "new_site", "vee": "old_site", "span": "old_site"}
SITE = """\
name: speed
country: ES
time_zone: Europe/Madrid
location: {latitude_deg: 40.4, longitude_deg: -3.7}
first_day: FIRST
clock: CLOCK
feeds:
  meters: {format: canonical_meters}
  readings: {format: canonical_readings}
"""
BARE = """
    SELECT meter_id, register, interval_start, CAST(interval_minutes AS INTEGER) AS interval_minutes, energy_kwh, 'measured' AS quality,
           false AS is_estimated, NULL::VARCHAR AS rule, NULL::VARCHAR AS method, NULL::TIMESTAMPTZ AS basis_from,
           NULL::TIMESTAMPTZ AS basis_to, NULL::DOUBLE AS delivered_kwh, '{name}' AS file, DATE '{delivered}' AS delivery_date,
           CAST(interval_start AS DATE) AS date
    FROM {landed}
    QUALIFY row_number() OVER (PARTITION BY meter_id, register, interval_start ORDER BY {line} DESC) = 1
    ORDER BY meter_id, register, interval_start
"""


# --- What is measured on -----------------------------------------------------------------------------------------------------


def readings_sql(meters: int, day: date) -> str:
    """A day of readings in the order of meter and time, with `m` and `slot`: a shape of each meter's own, and noise."""
    return f"""
        SELECT 'M' || lpad(m::VARCHAR, 7, '0') AS meter_id, 'import' AS register,
               DATE '{day}'::TIMESTAMPTZ + to_minutes(30 * slot) AS interval_start, 30::INTEGER AS interval_minutes,
               round(0.12 + 0.4 * abs(sin(slot * 0.13 + hash(m) % 7)) + (hash(m * 31 + slot * 7 + {day.toordinal()}) % 1000) / 2500.0, 3)
                   AS energy_kwh, m, slot
        FROM (SELECT n // 48 AS m, n % 48 AS slot FROM range({48 * meters}) r(n))"""


def landed_name(kind: str, number: int) -> str:
    """The file of a day, counted from the first one that is measured."""
    return f"day.{kind}" if number == 0 else f"day-{number}.{kind}"


def make(folder: Path, meters: int, faults: float, kind: str, past_days: int, order: str, span_days: int) -> None:
    """Lands some days of readings and the registry at two sites, and gives one of them a past."""
    from lakehouse.flow.clean import clean_meters
    from lakehouse.flow.raw import read_deliveries
    from lakehouse.flow.workspace import Workspace

    with engine(folder, "4GB") as connection:
        connection.execute("SET preserve_insertion_order = true")
        for number in range(span_days):
            landed = folder / landed_name(kind, number)
            if landed.exists():
                continue
            wrong = f"hash(m * 977 + {1 + number}) % 1000000 < {int(faults * 1e6)}"
            stamp = "interval_start" if kind == "parquet" else "strftime(interval_start, '%Y-%m-%dT%H:%M:%SZ')"
            connection.execute(
                f"""COPY (
                    SELECT meter_id, register, {stamp} AS interval_start, interval_minutes,
                           CASE WHEN {wrong} AND slot = 20 THEN CASE m % 3 WHEN 0 THEN -energy_kwh WHEN 1 THEN 40.0 ELSE 5.9 END
                               ELSE energy_kwh END AS energy_kwh, 'A' AS quality
                    FROM ({readings_sql(meters, DAY + timedelta(days=number))}) WHERE NOT ({wrong} AND slot BETWEEN 30 AND 35)
                    {"" if order == "meter" else "ORDER BY slot, m"}
                ) TO '{landed}' {"(HEADER)" if kind == "csv" else ""}"""
            )
        registry = folder / "meters.csv"
        connection.execute(
            f"""COPY (SELECT 'M' || lpad(m::VARCHAR, 7, '0') AS meter_id, 'household' AS meter_class, 30 AS interval_minutes,
                14.0 AS rated_kw, 'import' AS registers, '2020-01-01' AS first_date, NULL AS last_date FROM range({meters}) a(m))
                TO '{registry}' (HEADER)"""
        )
        for side in ("day", "vee"):
            home = folder / HOMES[side]
            first = DAY if side == "day" else DAY - timedelta(days=400)
            shutil.rmtree(home / "landing", ignore_errors=True)
            files = [("readings", folder / landed_name(kind, n), DELIVERED + timedelta(days=n)) for n in range(span_days)]
            for feed, file, delivered in (*files, ("meters", registry, DELIVERED)):
                place = home / "landing" / feed / str(delivered)
                place.mkdir(parents=True)
                os.link(file, place / file.name)
            clock = DELIVERED + timedelta(days=span_days - 1)
            (home / "gridlake.yaml").write_text(SITE.replace("FIRST", str(first)).replace("CLOCK", str(clock)), encoding="utf-8")
            workspace = Workspace.open(home)
            if not workspace.table("cleaned/meters").exists():
                read_deliveries(workspace, "meters", [DELIVERED])
                clean_meters(workspace)
        make_past(connection, Workspace.open(folder / HOMES["vee"]), meters, past_days)


def make_past(connection: duckdb.DuckDBPyConnection, workspace, meters: int, past_days: int) -> None:
    """Writes earlier days as cleaning would have: readings, and a report row for each meter and day."""
    from deltalake import write_deltalake

    from lakehouse.contracts.quality import VeeReport

    table = workspace.table("cleaned/meter_readings")
    known = set(table.partitions_written()) if table.exists() else set()
    for n in range(past_days, 0, -1):
        day = DAY - timedelta(days=n)
        if day in known:
            continue
        rows = connection.sql(f"""
            SELECT meter_id, register, interval_start, interval_minutes, energy_kwh, 'measured' AS quality, false AS is_estimated,
                   NULL::VARCHAR AS rule, NULL::VARCHAR AS method, NULL::TIMESTAMPTZ AS basis_from, NULL::TIMESTAMPTZ AS basis_to,
                   NULL::DOUBLE AS delivered_kwh, 'day.parquet' AS file, DATE '{day}' + 1 AS delivery_date, DATE '{day}' AS date
            FROM ({readings_sql(meters, day)})""")
        write_deltalake(table.uri, rows.to_arrow_reader(BATCH_ROWS), partition_by=["date"], mode="append")
    table = workspace.table("quality/vee_report")
    if table.exists():
        return
    given = {
        "meter_id": "'M' || lpad(m::VARCHAR, 7, '0')",
        "register": "'import'",
        "mean_kw": "0.8::DOUBLE",
        "peak_kw": "1.8 + n / 100.0",
        "zero_share": "0.0::DOUBLE",
        "repeat_share": "0.01::DOUBLE",
        "longest_zero_hours": "0.0::DOUBLE",
        "lone_peak_kw": "0.6 + n / 100.0",
        "hours_with_zeros": "0::INTEGER",
        "energy_kwh": "19.2::DOUBLE",
        "findings": "NULL::VARCHAR",
        "estimated_kwh": "NULL::DOUBLE",
    }
    for n in range(REPORT_DAYS, 0, -1):
        day = DAY - timedelta(days=n)
        columns = {c: given.get(c, "48::BIGINT" if c in ("expected", "delivered", "measured") else "0::BIGINT") for c in VeeReport.columns}
        columns["date"] = f"DATE '{day}'"
        selected = ", ".join(f"{sql} AS {c}" for c, sql in columns.items())
        rows = connection.sql(f"SELECT {selected} FROM (SELECT m, {n} AS n FROM range({meters}) a(m))")
        write_deltalake(table.uri, rows.to_arrow_reader(BATCH_ROWS), partition_by=["date"], mode="append")


def engine(folder: Path, memory: str = "2GB") -> duckdb.DuckDBPyConnection:
    connection = duckdb.connect()
    connection.execute(f"SET TimeZone = 'UTC'; SET threads = 2; SET memory_limit = '{memory}'; SET temp_directory = '{folder}/spill'")
    connection.execute("SET preserve_insertion_order = false; SET enable_progress_bar = false")
    return connection


def peak_gib() -> float:
    """The most memory that this process has held; `ru_maxrss` would count what its parent held before."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) / 2**20


# --- The sides -----------------------------------------------------------------------------------------------------------------


def bare(folder: Path, meters: int, kind: str) -> dict[str, float]:
    from deltalake import write_deltalake

    landed = f"read_parquet('{folder}/day.parquet', file_row_number = true)"
    line = "file_row_number"
    if kind == "csv":
        landed, line = f"read_csv('{folder}/day.csv')", "energy_kwh"
    with engine(folder) as connection:
        rows = connection.sql(BARE.format(name=f"day.{kind}", delivered=DELIVERED, landed=landed, line=line))
        write_deltalake(str(folder / "bare"), rows.to_arrow_reader(BATCH_ROWS), partition_by=["date"], mode="overwrite")
    return {}


def flow(folder: Path, side: str, days: int) -> dict[str, float]:
    from lakehouse.flow.clean import clean_readings_days
    from lakehouse.flow.raw import read_deliveries
    from lakehouse.flow.workspace import Workspace

    begun = time.perf_counter()
    workspace = Workspace.open(folder / HOMES[side])
    if os.environ.get("STEPS"):
        _print_steps()
    if not os.environ.get("NO_RAW"):
        read_deliveries(workspace, "readings", [DELIVERED + timedelta(days=n) for n in range(days)])
    read = time.perf_counter()
    fate = clean_readings_days(workspace, DAY, DAY + timedelta(days=days - 1))
    assert fate.is_conserved
    return {"raw": read - begun, "cleaned": time.perf_counter() - read, "quarantined": fate.quarantined, "estimated": fate.estimated}


def _print_steps() -> None:
    from lakehouse.flow.workspace import Workspace
    from lakehouse.metering import vee as vee_module

    make, execute, replace = vee_module.Run.make, vee_module.Run.execute, Workspace.replace

    def tell(what: str, begun: float) -> None:
        seconds = time.perf_counter() - begun
        if seconds > 0.05:
            print(f"    {what:<72} {seconds:6.2f} s  peak {peak_gib():.2f} GiB", file=sys.stderr)

    def timed_make(self, step, sql):
        begun = time.perf_counter()
        name = make(self, step, sql)
        tell(step, begun)
        return name

    def timed_execute(self, sql):
        begun = time.perf_counter()
        execute(self, sql)
        tell(" ".join(sql.split())[:70], begun)

    def timed_replace(self, name, rows, **more):
        begun = time.perf_counter()
        commit = replace(self, name, rows, **more)
        tell(f"commit {name}", begun)
        return commit

    vee_module.Run.make, vee_module.Run.execute, Workspace.replace = timed_make, timed_execute, timed_replace


def in_pandas(folder: Path, meters: int) -> dict[str, float]:
    """The rules that look at one day, and estimation by like days, over whole columns; on the first meters only."""
    import numpy as np
    import pandas as pd

    rows, registry, reports, history = frames_of(folder, meters)
    begun = time.perf_counter()  # what was read before is not counted against pandas
    usual = reports.groupby(["meter_id", "register"]).agg(
        peak=("peak_kw", "max"),
        mean=("mean_kw", "median"),
        zero=("zero_share", "mean"),
        repeat=("repeat_share", "mean"),
        hours=("longest_zero_hours", "max"),
    )
    rows["line"], rows["file"], rows["delivery_date"] = np.arange(len(rows)), "day.parquet", DELIVERED
    rows = rows.merge(registry, on="meter_id", how="left", suffixes=("", "_registered"))
    rows["rule"] = None
    rows.loc[rows["is_registered"].isna(), "rule"] = "unknown_meter"
    rows.loc[rows["energy_kwh"] < 0, "rule"] = "negative_energy"
    rows.loc[~rows["interval_minutes"].isin([5, 10, 15, 30, 60]), "rule"] = "wrong_interval_length"
    rows.loc[(rows["interval_start"].dt.minute % rows["interval_minutes"]) != 0, "rule"] = "misaligned_interval"
    rows = rows.sort_values(["meter_id", "register", "interval_start", "delivery_date", "file", "line"])
    rows = rows[~rows.duplicated(["meter_id", "register", "interval_start"], keep="last")]
    rows = rows.merge(usual, on=["meter_id", "register"], how="left")
    by = rows.groupby(["meter_id", "register"])["energy_kwh"]
    before, after = by.shift(1), by.shift(-1)
    kw = rows["energy_kwh"] * 2
    rows.loc[kw > 1.25 * rows["rated_kw"], "rule"] = "beyond_rating"
    beside = np.fmax(before, after)
    rows.loc[
        (kw > 1.2 * rows["peak"]) & (rows["energy_kwh"] > 4 * beside) & (kw > 0.4 * rows["rated_kw"]) & rows["rule"].isna(), "rule"
    ] = "spike"
    slipped = by.transform("mean") * 2 / rows["mean"]
    rows.loc[(slipped > 200) | (slipped < 0.005), "rule"] = "unit_slip"
    number = (rows["energy_kwh"] != before).groupby([rows["meter_id"], rows["register"]]).cumsum()
    length = rows.groupby([rows["meter_id"], rows["register"], number])["energy_kwh"].transform("size")
    rows.loc[(length >= 5) & (rows["energy_kwh"] > 0), "rule"] = "stuck_value"
    rows.loc[(length >= 6) & (rows["energy_kwh"] == 0) & (rows["hours"] < 1), "rule"] = "zero_run"
    late = (before == 0) & (rows["energy_kwh"] > 1.5 * after)
    rows.loc[late & rows["rule"].isna(), "rule"] = "late_register_read"
    believed = rows[rows["rule"].isna()]
    grid = pd.MultiIndex.from_product(
        [registry["meter_id"], pd.date_range(str(DAY), periods=48, freq="30min", tz="UTC")], names=["meter_id", "interval_start"]
    )
    full = believed.set_index(["meter_id", "interval_start"]).reindex(grid)
    gaps = full["energy_kwh"].isna()
    history = history[history["meter_id"].isin(full[gaps].index.get_level_values(0).unique())].copy()
    history["slot"] = history["interval_start"].dt.tz_convert("Europe/Madrid").dt.strftime("%H:%M")
    profile = history.groupby(["meter_id", "slot"])["energy_kwh"].mean()
    wanted = full[gaps].index.to_frame()
    wanted["slot"] = wanted["interval_start"].dt.tz_convert("Europe/Madrid").dt.strftime("%H:%M")
    full.loc[gaps, "energy_kwh"] = profile.reindex(pd.MultiIndex.from_frame(wanted[["meter_id", "slot"]])).to_numpy()
    rows.groupby(["file", "delivery_date"])["rule"].agg(["size", "count"])
    levels = believed.groupby(["meter_id", "register"])["energy_kwh"].agg(["mean", "max", "size", "sum"])
    assert len(levels)
    return {"rules_seconds": time.perf_counter() - begun, "readings": len(full)}


def frames_of(folder: Path, meters: int) -> tuple:
    """The day's rows, the registry, four weeks of reports and the workdays' readings of the first meters, as frames."""
    import pandas as pd
    import pyarrow.parquet as pq
    from deltalake import DeltaTable

    from lakehouse.flow.workspace import Workspace

    workspace = Workspace.open(folder / HOMES["vee"])
    few = [("meter_id", "<", f"M{meters:07d}")]
    rows = pq.read_table(folder / "day.parquet", filters=few).to_pandas()
    registry = workspace.table("cleaned/meters").read(f"meter_id < 'M{meters:07d}'").to_pandas()
    reports = pd.concat(
        DeltaTable(workspace.table("quality/vee_report").uri)
        .to_pyarrow_table(filters=[("date", "=", DAY - timedelta(days=n)), *few])
        .to_pandas()
        for n in range(1, REPORT_DAYS + 1)
    )
    written = workspace.table("cleaned/meter_readings").partitions_written()
    history = pd.concat(
        DeltaTable(workspace.table("cleaned/meter_readings").uri)
        .to_pyarrow_table(filters=[("date", "=", d), *few], columns=["meter_id", "register", "interval_start", "energy_kwh"])
        .to_pandas()
        for d in sorted(written)
        if d < DAY and d.weekday() < 5
    )
    return rows, registry, reports, history


def meter_by_meter(folder: Path, meters: int) -> dict[str, float]:
    """The same rules as they stand in a notebook: a function of one meter's day, applied to each group."""
    import numpy as np
    import pandas as pd

    rows, registry, reports, history = frames_of(folder, meters)
    begun = time.perf_counter()  # what was read before is not counted against pandas
    rows["line"] = np.arange(len(rows))
    known = registry.set_index("meter_id")
    past = dict(list(reports.groupby("meter_id")))
    before_days = dict(list(history.groupby("meter_id")))
    grid = pd.date_range(str(DAY), periods=48, freq="30min", tz="UTC")

    def clean(day: pd.DataFrame) -> pd.DataFrame:
        meter = day["meter_id"].iloc[0]
        day = day.sort_values(["interval_start", "line"]).drop_duplicates("interval_start", keep="last").set_index("interval_start")
        rule = pd.Series(None, index=day.index, dtype=object)
        if meter not in known.index:
            rule[:] = "unknown_meter"
            return day.assign(rule=rule)
        rated, usual = known.at[meter, "rated_kw"], past[meter]
        kwh, kw = day["energy_kwh"], day["energy_kwh"] * 60 / day["interval_minutes"]
        rule[kwh < 0] = "negative_energy"
        rule[~day["interval_minutes"].isin([5, 10, 15, 30, 60])] = "wrong_interval_length"
        rule[day.index.minute % day["interval_minutes"] != 0] = "misaligned_interval"
        rule[kw > 1.25 * rated] = "beyond_rating"
        before, after = kwh.shift(1), kwh.shift(-1)
        beside = np.fmax(before, after)
        rule[(kw > 1.2 * usual["peak_kw"].max()) & (kwh > 4 * beside) & (kw > 0.4 * rated) & rule.isna()] = "spike"
        if not 0.005 < kw.mean() / usual["mean_kw"].median() < 200:
            rule[:] = "unit_slip"
        run = (kwh != before).cumsum()
        length = kwh.groupby(run).transform("size")
        rule[(length >= 5) & (kwh > 0)] = "stuck_value"
        if usual["longest_zero_hours"].max() < 1:
            rule[(length >= 6) & (kwh == 0)] = "zero_run"
        rule[(before == 0) & (kwh > 1.5 * after) & rule.isna()] = "late_register_read"
        believed = day.loc[rule.isna(), "energy_kwh"].reindex(grid)
        if believed.isna().any():
            local = before_days[meter]["interval_start"].dt.tz_convert("Europe/Madrid")
            profile = before_days[meter]["energy_kwh"].groupby(local.dt.strftime("%H:%M")).mean()
            slots = pd.Series(grid.tz_convert("Europe/Madrid").strftime("%H:%M"), index=grid)
            believed = believed.fillna(slots.map(profile))
        return believed.rename("energy_kwh").to_frame()

    cleaned = rows.groupby(["meter_id", "register"], group_keys=True)[rows.columns.tolist()].apply(clean)
    return {"rules_seconds": time.perf_counter() - begun, "readings": len(cleaned)}


# --- Running them --------------------------------------------------------------------------------------------------------------


def side_in_process(side: str, folder: Path, meters: int, kind: str, span_days: int) -> None:
    """Runs one side and prints what it took as JSON."""
    begun = time.perf_counter()
    if side == "bare":
        told = bare(folder, meters, kind)
    elif side == "pandas":
        told = in_pandas(folder, meters)
    elif side == "plain":
        told = meter_by_meter(folder, meters)
    else:
        told = flow(folder, side, span_days if side == "span" else 1)
    used = resource.getrusage(resource.RUSAGE_SELF)
    told |= {"seconds": time.perf_counter() - begun, "cpu": used.ru_utime + used.ru_stime, "peak_gib": peak_gib()}
    print(json.dumps(told))


def run_side(side: str, folder: Path, meters: int, kind: str, span_days: int = 1) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.metering_speed", "--side", side, "--keep", str(folder), "--meters", str(meters)]
    answer = subprocess.run([*command, "--format", kind, "--span-days", str(span_days)], stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(answer.stdout.strip().splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--meters", type=int, default=1_000_000)
    parser.add_argument("--format", choices=("parquet", "csv"), default="parquet", help="of the landed file")
    parser.add_argument("--order", choices=("meter", "time"), default="meter", help="of the landed file's rows")
    parser.add_argument("--faults", type=float, default=0.01, help="share of meters with faults on the day")
    parser.add_argument("--past-days", type=int, default=35, help="days of readings before the day")
    parser.add_argument("--span-days", type=int, default=1, help="days that the side `span` cleans at once")
    parser.add_argument("--pandas-meters", type=int, default=50_000)
    parser.add_argument("--plain-meters", type=int, default=2_000)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--sides", default="bare,day,vee,pandas,plain")
    parser.add_argument("--keep", type=Path, help="folder of the sites, made if need be and kept")
    parser.add_argument("--side", help=argparse.SUPPRESS)
    told = parser.parse_args()
    if told.side:
        side_in_process(told.side, told.keep, told.meters, told.format, told.span_days)
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = told.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        make(folder, told.meters, told.faults, told.format, told.past_days, told.order, told.span_days)
        compare(folder, told)


def compare(folder: Path, told: argparse.Namespace) -> None:
    """Runs the sides in turns and prints the best round of each."""
    sides = told.sides.split(",")
    best: dict[str, dict[str, float]] = {}
    for _ in range(told.rounds):
        for side in (s for s in sides if s not in ("pandas", "plain")):
            found = run_side(side, folder, told.meters, told.format, told.span_days)
            print(side, {k: round(v, 2) for k, v in found.items()}, file=sys.stderr)
            if side not in best or found["seconds"] < best[side]["seconds"]:
                best[side] = found
    readings = told.meters * 48
    print(f"{told.meters:,} meters, {readings:,} readings, {told.format}; best of {told.rounds} rounds")
    for side, found in best.items():
        of_side = readings * (told.span_days if side == "span" else 1)
        ratio = f"{found['seconds'] / best['bare']['seconds']:5.2f} x bare" if "bare" in best else ""
        cpu_ratio = f" ({found['cpu'] / best['bare']['cpu']:.2f} x)" if "bare" in best else ""
        parts = f" (raw {found['raw']:.1f}, cleaned {found['cleaned']:.1f})" if "raw" in found else ""
        print(
            f"  {side:<7} {found['seconds']:7.1f} s {ratio}  cpu {found['cpu']:6.1f} s{cpu_ratio}"
            f"  {1e6 * found['seconds'] / of_side:6.3f} µs a reading  peak {found['peak_gib']:.2f} GiB{parts}"
        )
    for side, few in (("pandas", told.pandas_meters), ("plain", told.plain_meters)):
        if side not in sides:
            continue
        few = min(few, told.meters)
        found = run_side(side, folder, few, "parquet" if (folder / "day.parquet").exists() else told.format)
        cost = found["rules_seconds"] / found["readings"]
        line = f"  {side:<7} {found['rules_seconds']:7.1f} s for {few:,} meters, {1e6 * cost:6.3f} µs a reading in the rules alone"
        if "vee" in best:
            line += f": {cost * readings / best['vee']['cleaned']:.1f} x VEE's cleaning, reading and committing included"
        print(line)


if __name__ == "__main__":
    main()
