"""One day of N meters by 48 half-hours: the bare query, VEE, and the same rules in pandas, timed in one run.

Run: python -m benchmarks.metering_speed [--meters 100000] [--faults 0.002] [--pandas-meters 20000] [--steps]
The bare query is the least that gives the same columns: read Parquet (a file in the order of meter and time,
as head-ends write it), keep the newest reading of each key, order, take the batches. VEE adds every rule,
history by the earlier days' reports, estimation, quarantine, conservation and report. Times are
of one process with two threads; what is compared is their ratio.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from datetime import date, timedelta
from pathlib import Path

import duckdb

from lakehouse.metering import vee as vee_module
from lakehouse.metering.rules import VeeRules
from lakehouse.metering.vee import validate_estimate_edit

DAY = date(2026, 3, 10)
HISTORY_DAYS = 14
BATCH_ROWS = 500_000

BARE = """
    SELECT meter_id, register, interval_start, interval_minutes, energy_kwh,
                    'measured' AS quality, false AS is_estimated,
        NULL::VARCHAR AS rule,
           NULL::VARCHAR AS method, NULL::TIMESTAMPTZ AS basis_from, NULL::TIMESTAMPTZ AS basis_to, NULL::DOUBLE AS delivered_kwh, file,
               delivery_date, date
    FROM delivered
    QUALIFY row_number() OVER (PARTITION BY meter_id, register, interval_start ORDER BY delivery_date DESC, file DESC, line DESC) = 1
    ORDER BY meter_id, register, interval_start
"""


def make(folder: Path, meters: int, faults: float) -> None:
    """Writes a day of readings, the earlier days' reports, two like days of history, and the registry, as Parquet."""
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'; SET threads = 2; SET preserve_insertion_order = false")
        shape = """0.12 + 0.4 * abs(sin(slot * 0.13 + hash(m) % 7)) + (hash(m * 31 + slot * 7 + {day}) % 1000) / 2500.0"""

        def readings(day: str) -> str:
            return f"""
                SELECT 'M' || lpad(m::VARCHAR, 7, '0') AS meter_id, 'import' AS register,
                    DATE '{day}'::TIMESTAMPTZ + to_minutes(30 * slot) AS interval_start,
                       30::INTEGER AS interval_minutes, round({shape.format(day=hash(day) % 1000)}, 3) AS energy_kwh, m, slot
                FROM range({meters}) a(m), range(48) b(slot)"""

        wrong = f"hash(m * 977 + 1) % 1000000 < {int(faults * 1e6)}"
        connection.execute(
            f"""COPY (
                SELECT 'day.parquet' AS file, m * 48 + slot + 1 AS line, DATE '{DAY + timedelta(days=1)}' AS delivery_date,
                    DATE '{DAY}' AS date,
                       NULL::VARCHAR AS fault, NULL::VARCHAR AS raw_text, meter_id, register, interval_start, interval_minutes,
                       CASE WHEN {wrong} AND slot = 20 THEN CASE m % 3 WHEN 0 THEN -energy_kwh WHEN 1 THEN 40.0 ELSE 5.9 END
                           ELSE energy_kwh END AS energy_kwh,
                       'A' AS quality, 'readings' AS feed
                FROM ({readings(str(DAY))}) WHERE NOT ({wrong} AND slot BETWEEN 30 AND 35) ORDER BY m, slot
            ) TO '{folder}/delivered.parquet'"""
        )
        for n in (1, 7):
            day = DAY - timedelta(days=n)
            connection.execute(
                f"""COPY (SELECT meter_id, register, interval_start, interval_minutes, energy_kwh,
                    'measured' AS quality, false AS is_estimated,
                    NULL::VARCHAR AS rule, NULL::VARCHAR AS method, NULL::DOUBLE AS delivered_kwh, DATE '{day}' AS date
                    FROM ({readings(str(day))})) TO '{folder}/history_{n}.parquet'"""
            )
        connection.execute(
            f"""COPY (SELECT 'M' || lpad(m::VARCHAR, 7, '0') AS meter_id, 'import' AS register,
                DATE '{DAY}' - CAST(n AS INTEGER) AS date, 1.0::DOUBLE AS mean_kw,
                (1.8 + n / 100.0)::DOUBLE AS peak_kw, 0.0::DOUBLE AS zero_share, 0.01::DOUBLE AS repeat_share,
                    0.0::DOUBLE AS longest_zero_hours
                FROM range({meters}) a(m), range(1, {HISTORY_DAYS + 1}) b(n)) TO '{folder}/reports.parquet'"""
        )
        connection.execute(
            f"""COPY (SELECT 'M' || lpad(m::VARCHAR, 7, '0') AS meter_id, 'household' AS meter_class,
                30::INTEGER AS interval_minutes, 14.0::DOUBLE AS rated_kw,
                'import' AS registers, NULL::DATE AS first_date, NULL::DATE AS last_date, true AS is_registered FROM range({meters}) a(m))
                TO '{folder}/meters.parquet'"""
        )


def connect(folder: Path, memory: str) -> duckdb.DuckDBPyConnection:
    connection = duckdb.connect()
    connection.execute(f"SET TimeZone = 'UTC'; SET threads = 2; SET memory_limit = '{memory}'; SET temp_directory = '{folder}/spill'")
    connection.execute("SET preserve_insertion_order = false; SET max_temp_directory_size = '20GB'")
    for name in ("delivered", "reports", "meters"):
        connection.execute(f"CREATE VIEW {name} AS SELECT * FROM read_parquet('{folder}/{name}.parquet')")
    connection.execute(f"CREATE VIEW history AS SELECT * FROM read_parquet('{folder}/history_*.parquet')")
    return connection


def drain(relation: duckdb.DuckDBPyRelation) -> int:
    return sum(batch.num_rows for batch in relation.to_arrow_reader(BATCH_ROWS))


def timed_vee(folder: Path, memory: str, steps: bool) -> tuple[float, int]:
    connection = connect(folder, memory)
    begun = time.perf_counter()
    if steps:
        _print_steps()
    vee = validate_estimate_edit(
        connection,
        "delivered",
        days=[DAY],
        meters="meters",
        history="history",
        reports="reports",
        rules=VeeRules(),
        time_zone="Europe/Madrid",
        today=DAY,
    )
    rows = drain(vee.trusted)
    made = time.perf_counter()
    for relation in (vee.quarantined, vee.conservation, vee.report, vee.edits):
        drain(relation)
    if steps:
        print(f"    results: trusted included in the sum, others {time.perf_counter() - made:.2f} s")
    return time.perf_counter() - begun, rows


def _print_steps() -> None:
    make, execute = vee_module.Run.make, vee_module.Run.execute

    def timed_make(self, step, sql):
        begun = time.perf_counter()
        name = make(self, step, sql)
        _tell(step, time.perf_counter() - begun)
        return name

    def timed_execute(self, sql):
        begun = time.perf_counter()
        execute(self, sql)
        _tell(" ".join(sql.split())[:70], time.perf_counter() - begun)

    def _tell(what: str, seconds: float) -> None:
        if seconds > 0.05:
            print(f"    {what:<72} {seconds:6.2f} s")

    vee_module.Run.make, vee_module.Run.execute = timed_make, timed_execute


def timed_pandas(folder: Path, meters: int) -> tuple[float, int]:
    """The rules that look at one day, and estimation by like days, as one writes them in pandas; on the first meters only."""
    import numpy as np
    import pandas as pd

    def table(name: str) -> pd.DataFrame:
        return pd.read_parquet(folder / f"{name}.parquet", filters=[("meter_id", "<", f"M{meters:07d}")])

    begun = time.perf_counter()
    rows, registry, reports = table("delivered"), table("meters"), table("reports")
    usual = reports.groupby(["meter_id", "register"]).agg(
        peak=("peak_kw", "max"),
        mean=("mean_kw", "median"),
        zero=("zero_share", "mean"),
        repeat=("repeat_share", "mean"),
        hours=("longest_zero_hours", "max"),
    )
    rows = rows.merge(registry, on="meter_id", how="left", suffixes=("", "_registered"))
    rows["rule"] = None
    rows.loc[rows["is_registered"].isna(), "rule"] = "unknown_meter"
    rows.loc[rows["energy_kwh"] < 0, "rule"] = "negative_energy"
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
    number = (rows["energy_kwh"] != before).groupby([rows["meter_id"], rows["register"]]).cumsum()
    length = rows.groupby([rows["meter_id"], rows["register"], number])["energy_kwh"].transform("size")
    rows.loc[(length >= 5) & (rows["energy_kwh"] > 0), "rule"] = "stuck_value"
    rows.loc[(length >= 6) & (rows["energy_kwh"] == 0) & (rows["hours"] < 1), "rule"] = "zero_run"
    believed = rows[rows["rule"].isna()]
    grid = pd.MultiIndex.from_product(
        [registry["meter_id"], pd.date_range(str(DAY), periods=48, freq="30min", tz="UTC")], names=["meter_id", "interval_start"]
    )
    full = believed.set_index(["meter_id", "interval_start"]).reindex(grid)
    gaps = full["energy_kwh"].isna()
    history = pd.concat(table(f"history_{n}") for n in (1, 7))
    history = history[history["meter_id"].isin(full[gaps].index.get_level_values(0))]
    history["slot"] = history["interval_start"].dt.tz_convert("Europe/Madrid").dt.strftime("%H:%M")
    profile = history.groupby(["meter_id", "slot"])["energy_kwh"].mean()
    wanted = full[gaps].index.to_frame()
    wanted["slot"] = wanted["interval_start"].dt.tz_convert("Europe/Madrid").dt.strftime("%H:%M")
    full.loc[gaps, "energy_kwh"] = profile.reindex(pd.MultiIndex.from_frame(wanted[["meter_id", "slot"]])).to_numpy()
    rows.groupby(["feed", "file", "delivery_date"])["rule"].agg(["size", "count"])
    return time.perf_counter() - begun, len(full)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--meters", type=int, default=100_000)
    parser.add_argument("--faults", type=float, default=0.01, help="share of meters with faults on the day")
    parser.add_argument("--pandas-meters", type=int, default=20_000)
    parser.add_argument("--memory", default="2GB")
    parser.add_argument("--steps", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make(folder, arguments.meters, arguments.faults)
        begun = time.perf_counter()
        rows = drain(connect(folder, arguments.memory).sql(BARE))
        bare = time.perf_counter() - begun
        print(f"bare query  {rows:>12,} rows {bare:8.2f} s {1e6 * bare / rows:8.3f} µs a reading")
        seconds, rows = timed_vee(folder, arguments.memory, arguments.steps)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(
            f"VEE         {rows:>12,} rows {seconds:8.2f} s {1e6 * seconds / rows:8.3f} µs a reading: "
            f"{seconds / bare:.2f} times the bare query; peak {peak:.2f} GiB"
        )
        if arguments.pandas_meters:
            few = min(arguments.pandas_meters, arguments.meters)
            slow, count = timed_pandas(folder, few)
            print(
                f"pandas      {count:>12,} rows {slow:8.2f} s {1e6 * slow / count:8.3f} µs a reading: "
                f"{slow / count / (seconds / rows):.1f} times VEE"
            )


if __name__ == "__main__":
    main()
