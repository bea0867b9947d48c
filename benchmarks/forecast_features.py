"""Features for many series: Gridlake's committed and validated table beside mlforecast in memory, in one run, each in a process of its own.

    python benchmarks/forecast_features.py [--series 1000] [--days 1096] [--only gridlake,mlforecast] [--all] [--mlforecast-python PYTHON]

Hourly series with a daily and weekly rhythm, written to a Parquet file first. Both make lags of 1, 2, 7 and 14 days, rolling means over 24
and 168 hours, the rolling deviation over 168 hours, hour, weekday and day of the year. mlforecast takes a data frame that is in memory
already and leaves one there. Gridlake reads the file, makes the features of every issue by availability, passes them through the contract
and commits them to a Delta table by day; `--all` makes it write all features of a demand task without inputs instead. Prints seconds,
processor seconds and peak memory of each, and what one further day takes from its history alone. mlforecast is left out where it is
not installed; it may live in an environment of its own.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

FEATURES = ("slot", "weekday", "day_of_year", "lag_1d", "lag_2d", "lag_7d", "lag_14d", "mean_24h", "mean_168h", "std_168h")
BEGIN = dt.date(2023, 1, 1)
DAYS_A_COMMIT = 60


def write_series(path: Path, count: int, days: int) -> None:
    """Long table of hourly series, one row group a series."""
    at = pa.array(np.arange(days * 24) * 3_600_000_000 + int(np.datetime64(BEGIN, "us").astype("int64")), pa.timestamp("us", tz="UTC"))
    hour, day = np.arange(days * 24) % 24, np.arange(days * 24) // 24
    schema = pa.schema([("series_id", pa.string()), ("interval_start", at.type), ("value", pa.float64())])
    with pq.ParquetWriter(path, schema) as writer:
        for n in range(count):
            rng = np.random.default_rng(n)
            value = 10 + n % 7 + 3 * np.sin(2 * np.pi * hour / 24) - (day % 7 >= 5) + rng.normal(0, 0.5, len(at))
            writer.write_table(pa.table([pa.array([f"s{n:05d}"] * len(at)), at, pa.array(value)], schema=schema))


def gridlake(path: Path, count: int, days: int, every_feature: bool) -> dict[str, float]:
    from lakehouse.contracts.base import Column
    from lakehouse.contracts.features import Features
    from lakehouse.forecasting.features import feature_batches, feature_dictionary, history_days
    from lakehouse.forecasting.task import ForecastTask
    from lakehouse.storage.lake import Lake

    task = ForecastTask("demand", tuple(f"s{n:05d}" for n in range(count)), "UTC")
    told = [one for one in feature_dictionary(task) if every_feature or one[0] in FEATURES]
    extra = [Column(text, unit=unit, nullable=True, name=name, type=pa.float64()) for name, unit, text in told]
    contract = Features.derive("features/demand", extra=extra)
    columns = [name for name, _, _ in told]
    first, last = BEGIN + dt.timedelta(days=14), BEGIN + dt.timedelta(days=days - 2)

    with tempfile.TemporaryDirectory() as folder:
        table = Lake(folder).table(contract)
        began, began_cpu = time.perf_counter(), time.process_time()
        rows = 0
        at = first
        batches = feature_batches(task, stream(path), None, task.issue_instants(first, last), columns=columns)
        waiting: pa.RecordBatch | None = next(batches)
        while waiting is not None:
            end = min(at + dt.timedelta(days=DAYS_A_COMMIT - 1), last)
            part = []
            while waiting is not None and waiting.column("date")[0].as_py() <= end:
                part.append(waiting)
                waiting = next(batches, None)
            rows += table.replace(lambda part=part: part, where={"date": (at, end)}).rows
            at = end + dt.timedelta(days=1)
        seconds, cpu = time.perf_counter() - began, time.process_time() - began_cpu
        since = dt.datetime.combine(last - dt.timedelta(days=history_days(task)), dt.time(), dt.UTC)
        recent = path.with_name("recent.parquet")  # in a lake the days lie apart
        pq.write_table(pq.read_table(path, filters=pc.field("interval_start") >= pa.scalar(since, pa.timestamp("us", tz="UTC"))), recent)
        began = time.perf_counter()
        day = feature_batches(task, stream(recent), None, task.issue_instants(last, last), columns=columns)
        table.replace(lambda: day, where={"date": last})
        further = time.perf_counter() - began
    return {"rows": rows, "features": len(columns), "seconds": seconds, "cpu": cpu, "further_day_seconds": further}


def stream(path: Path) -> pa.RecordBatchReader:
    """The file as a stream of record batches."""
    file = pq.ParquetFile(path)
    return pa.RecordBatchReader.from_batches(file.schema_arrow, file.iter_batches(batch_size=262_144))


def mlforecast(path: Path, count: int, days: int, every_feature: bool) -> dict[str, float]:
    from mlforecast import MLForecast
    from mlforecast.lag_transforms import RollingMean, RollingStd

    table = pq.read_table(path).to_pandas().rename(columns={"series_id": "unique_id", "interval_start": "ds", "value": "y"})
    table["ds"] = table["ds"].dt.tz_localize(None)
    maker = MLForecast(
        models=[],
        freq="h",
        lags=[24, 48, 168, 336],
        lag_transforms={24: [RollingMean(24), RollingMean(168), RollingStd(168)]},
        date_features=["hour", "dayofweek", "dayofyear"],
        num_threads=2,
    )
    began, began_cpu = time.perf_counter(), time.process_time()
    made = maker.preprocess(table, static_features=[])
    seconds, cpu = time.perf_counter() - began, time.process_time() - began_cpu
    return {"rows": len(made), "features": made.shape[1] - 3, "seconds": seconds, "cpu": cpu}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--series", type=int, default=1000)
    parser.add_argument("--days", type=int, default=1096)
    parser.add_argument("--only", default="gridlake,mlforecast")
    parser.add_argument("--all", action="store_true", help="Gridlake writes all features of a demand task")
    parser.add_argument("--mlforecast-python", default=sys.executable, help="interpreter of an environment with mlforecast")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--path", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        found = {"gridlake": gridlake, "mlforecast": mlforecast}[options.one](options.path, options.series, options.days, options.all)
        print(json.dumps(found | {"peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}))
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "actuals.parquet"
        write_series(path, options.series, options.days)
        for name in options.only.split(","):
            python = options.mlforecast_python if name == "mlforecast" else sys.executable
            command = [python, __file__, "--one", name, "--path", str(path), "--series", str(options.series), "--days", str(options.days)]
            done = subprocess.run([*command, *(["--all"] if options.all else [])], capture_output=True, text=True, check=False)
            if done.returncode:
                print(f"{name:12s} not measured: {done.stderr.strip().splitlines()[-1] if done.stderr.strip() else 'failed'}")
                continue
            found = json.loads(done.stdout.strip().splitlines()[-1])
            share = f"  a further day {found['further_day_seconds']:.2f} s" if "further_day_seconds" in found else ""
            print(
                f"{name:12s} {found['rows']:,.0f} rows x {found['features']:.0f} features  {found['seconds']:.1f} s "
                f"({found['cpu']:.1f} s of processor)  peak {found['peak_mb']:.0f} MB{share}",
                flush=True,
            )


if __name__ == "__main__":
    main()
