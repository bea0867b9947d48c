"""How fast published series are read and cleaned, and how sharply exchanged dates are told: Spain's three years, and eight German ones.

Run: python benchmarks/series_cleaning.py [folder with the data sets, laid out as GRIDLAKE_DATA]
"""

from __future__ import annotations

import os
import resource
import sys
import time
from datetime import date
from pathlib import Path

import duckdb

from lakehouse.series.clean import clean_series
from lakehouse.series.day_month import day_month_swaps, verdicts
from lakehouse.sources.base import LandedFile, ReadOptions, read_file

ROOT = Path(sys.argv[1] if len(sys.argv) > 1 else os.environ.get("GRIDLAKE_DATA") or Path(__file__).parents[2] / "shared" / "data")
SETS = {
    "Spain": [("spain/energy_dataset*", "spain_energy", "Europe/Madrid"), ("spain/weather_features*", "spain_weather", "Europe/Madrid")],
    "Germany": [(f"entsoe_de/{folder}/*", "entsoe_export", "Europe/Berlin") for folder in ("load", "on_wind", "off_wind", "solar")],
}


def measure(title: str, parts: list[tuple[str, str, str]]) -> None:
    connection = duckdb.connect()
    connection.execute("SET TimeZone = 'UTC'; SET threads = 2")
    begun, created = time.perf_counter(), False
    for pattern, name, zone in parts:
        for path in sorted(ROOT.glob(pattern)):
            for table in read_file(LandedFile(path, path.name, date(2023, 1, 1), name), name, ReadOptions(zone)):
                connection.register("part", table)
                connection.execute(
                    ("INSERT INTO" if created else "CREATE TABLE")
                    + f" delivered {'' if created else 'AS '}SELECT *, '{name}' AS feed FROM part"
                )
                created = True
    if not created:
        print(f"{title}: no data below {ROOT}")
        return
    rows = connection.sql("SELECT count(*) FROM delivered").fetchall()[0][0]
    read_at = time.perf_counter()
    cleaned = clean_series(connection, "delivered")
    trusted = sum(relation.aggregate("count(*)").fetchall()[0][0] for relation in cleaned.trusted.values())
    refused = cleaned.quarantined.aggregate("count(*)").fetchall()[0][0]
    cleaned_at = time.perf_counter()
    zone = parts[0][2]
    connection.execute("CREATE VIEW loads AS SELECT * FROM delivered WHERE quantity = 'load_mw' AND NOT is_forecast AND fault IS NULL")
    told = [one.verdict for one in verdicts(day_month_swaps(connection, "loads", time_zone=zone))]
    checked_at = time.perf_counter()
    print(
        f"{title}: {rows:,} values read in {read_at - begun:.1f} s ({rows / (read_at - begun) / 1e6:.2f} M/s);"
        f" cleaned in {cleaned_at - read_at:.1f} s"
        f" ({rows / (cleaned_at - read_at) / 1e6:.2f} M/s) to {trusted:,} trusted rows and {refused:,} in quarantine;"
        f" dates of the load checked in {checked_at - cleaned_at:.1f} s: {', '.join(f'{told.count(v)} {v}' for v in sorted(set(told)))};"
        f" peak {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3:,.0f} MB"
    )


if __name__ == "__main__":
    for title, parts in SETS.items():
        measure(title, parts)
