"""Features for many series: Gridlake's builder beside mlforecast, in one run, each in a process of its own.

    python benchmarks/forecast_features.py [--series 1000] [--days 1096] [--only gridlake,mlforecast]

Hourly series with a daily and weekly rhythm. mlforecast makes lags 24, 48, 168, 336, rolling means 24 and 168 and rolling
deviation 168 with calendar features, in memory. Gridlake makes all features of a demand task without inputs (some forty,
the same ones among them, each by availability) for every issue day and hour, in chunks of series, and writes them as a Delta
table. Prints seconds and peak memory of each, and the time of one further day from its history alone. mlforecast is left
out where it is not installed.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

CHUNK = 25  # series per chunk: bounds the memory


def series(first: int, count: int, days: int) -> pd.DataFrame:
    """Long table of `count` hourly series beginning with number `first`."""
    at = pd.date_range("2023-01-01", periods=days * 24, freq="h", tz="UTC").as_unit("us")
    hour, day = np.arange(len(at)) % 24, np.arange(len(at)) // 24
    parts = []
    for n in range(first, first + count):
        rng = np.random.default_rng(n)
        value = 10 + n % 7 + 3 * np.sin(2 * np.pi * hour / 24) - (day % 7 >= 5) + rng.normal(0, 0.5, len(at))
        parts.append(pd.DataFrame({"series_id": f"s{n:05d}", "interval_start": at, "value": value}))
    return pd.concat(parts, ignore_index=True)


def gridlake(count: int, days: int) -> dict[str, float]:
    from deltalake import write_deltalake

    from lakehouse.forecasting.features import build_features, history_days, table_schema
    from lakehouse.forecasting.task import ForecastTask

    names = tuple(f"s{n:05d}" for n in range(count))
    schema = table_schema(ForecastTask("demand", names[:1], "UTC"))
    first, last = pd.Timestamp("2023-01-15").date(), (pd.Timestamp("2023-01-01") + pd.Timedelta(days=days - 2)).date()
    tables = [(names[n : n + CHUNK], series(n, len(names[n : n + CHUNK]), days)) for n in range(0, count, CHUNK)]
    rows = 0
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:

        def batches():
            nonlocal rows
            for chosen, actuals in tables:
                task = ForecastTask("demand", chosen, "UTC")
                table = build_features(task, actuals, None, task.issue_instants(first, last))
                rows += table.num_rows
                yield from table.to_batches()

        write_deltalake(folder, pa.RecordBatchReader.from_batches(schema, batches()))
        seconds = time.perf_counter() - began
    task = ForecastTask("demand", names, "UTC")
    since = pd.Timestamp(last, tz="UTC") - pd.Timedelta(days=history_days(task))
    recent = pd.concat([t[t["interval_start"] >= since] for _, t in tables], ignore_index=True)
    began = time.perf_counter()
    build_features(task, recent, None, task.issue_instants(last, last))
    return {"rows": rows, "features": len(schema) - 5, "seconds": seconds, "further_day_seconds": time.perf_counter() - began}


def mlforecast(count: int, days: int) -> dict[str, float]:
    from mlforecast import MLForecast
    from mlforecast.lag_transforms import RollingMean, RollingStd

    table = series(0, count, days).rename(columns={"series_id": "unique_id", "interval_start": "ds", "value": "y"})
    table["ds"] = table["ds"].dt.tz_localize(None)
    maker = MLForecast(
        models=[],
        freq="h",
        lags=[24, 48, 168, 336],
        lag_transforms={24: [RollingMean(24), RollingMean(168), RollingStd(168)]},
        date_features=["hour", "dayofweek", "dayofyear"],
        num_threads=2,
    )
    began = time.perf_counter()
    made = maker.preprocess(table, static_features=[])
    return {"rows": len(made), "features": made.shape[1] - 3, "seconds": time.perf_counter() - began}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--series", type=int, default=1000)
    parser.add_argument("--days", type=int, default=1096)
    parser.add_argument("--only", default="gridlake,mlforecast")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        found = {"gridlake": gridlake, "mlforecast": mlforecast}[options.one](options.series, options.days)
        print(json.dumps(found | {"peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}))
        return
    for name in options.only.split(","):
        command = [sys.executable, __file__, "--one", name, "--series", str(options.series), "--days", str(options.days)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            print(f"{name:12s} not measured: {done.stderr.strip().splitlines()[-1] if done.stderr.strip() else 'failed'}")
            continue
        found = json.loads(done.stdout.strip().splitlines()[-1])
        extra = f"  a further day {found['further_day_seconds']:.2f} s" if "further_day_seconds" in found else ""
        print(
            f"{name:12s} {found['rows']:,.0f} rows x {found['features']:.0f} features  "
            f"{found['seconds']:.1f} s  peak {found['peak_mb']:.0f} MB{extra}",
            flush=True,
        )


if __name__ == "__main__":
    main()
