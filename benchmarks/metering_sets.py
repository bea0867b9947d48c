"""Every published set of meter readings through its reader and VEE: where its rows went, by set and reason, as a Markdown table.

Run: python -m benchmarks.metering_sets FOLDER, where FOLDER is laid out like the published data (meters/…, formats/…).
"""

from __future__ import annotations

import argparse
from datetime import date, timedelta
from pathlib import Path

import duckdb

from lakehouse.metering.registry import meters_from
from lakehouse.metering.vee import validate_estimate_edit
from lakehouse.sources.base import LandedFile, ReadOptions, format_named, read_file

SETS = [
    ("Octopus daily files", "octopus", "meters/octopus_daily_drops/*", "Europe/London", {}),
    ("London LCL block", "lcl", "meters/london_lcl/block_62.csv.gz", "Europe/London", {}),
    ("London LCL homes", "lcl", "meters/london_lcl/df*.csv.gz", "Europe/London", {}),
    ("SGSC", "sgsc", "meters/sgsc/*", "Australia/Sydney", {}),
    ("Ausgrid solar home", "ausgrid", "meters/ausgrid/*", "Australia/Sydney", {}),
    ("HUE", "hue", "meters/hue/*", "America/Vancouver", {}),
    ("Swiss weeks", "swiss_15min", "meters/swiss_15min/elcons*", "Europe/Zurich", {"year": 2018}),
    ("Danish heat register", "register_reads", "meters/danish_heat/processed*", "Europe/Copenhagen", {}),
    ("NEM12 examples", "nem12", "formats/nem12/unzipped/*NEM12*", "Australia/Sydney", {}),
    ("NEM12 archives", "nem12", "formats/nem12/*.zip", "Australia/Sydney", {}),
    ("NEM12 invalid", "nem12", "formats/nem12/invalid/*", "Australia/Sydney", {}),
    ("NEM13", "nem13", "formats/nem12/nem13/*", "Australia/Sydney", {}),
    ("Green Button", "greenbutton", "formats/greenbutton/*/*.xml", "America/Los_Angeles", {}),
    ("Green Button, a year", "greenbutton", "formats/greenbutton/*/data/*/*.xml", "America/Los_Angeles", {}),
]
DELIVERED_LAST = date(2026, 1, 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    print("| set | files | delivered | cleaned | edited | superseded | exact duplicates | quarantined, by rule | estimated | conserved |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: | --- | ---: | --- |")
    for title, name, pattern, zone, settings in SETS:
        print(row(title, name, sorted(folder.glob(pattern)), zone, settings), flush=True)


def land(connection: duckdb.DuckDBPyConnection, name: str, paths: list[Path], zone: str, settings: dict) -> None:
    """Reads the files of a set to the table `delivered`."""
    made = False
    for path in paths:
        delivered = format_named(name).delivered_on(path) or DELIVERED_LAST
        for rows in read_file(LandedFile(path, path.name, delivered, name), name, ReadOptions(zone, settings)):
            connection.register("batch", rows)
            verb = "INSERT INTO delivered BY NAME" if made else "CREATE TABLE delivered AS"
            connection.execute(f"{verb} SELECT *, '{name}' AS feed FROM batch")
            made = True


def row(title: str, name: str, paths: list[Path], zone: str, settings: dict) -> str:
    """One set's line of the table."""
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'; SET threads = 2; SET memory_limit = '6GB'")
        land(connection, name, paths, zone, settings)
        meters_from(connection, None, "delivered").to_table("meters")
        first, last = connection.execute("SELECT min(date), max(date) FROM delivered").fetchone()
        days = {first + timedelta(days=n) for n in range((last - first).days + 1)} if first else set()
        days |= {d for (d,) in connection.execute("SELECT DISTINCT delivery_date FROM delivered WHERE date IS NULL").fetchall()}
        vee = validate_estimate_edit(connection, "delivered", days=sorted(days), meters="meters", time_zone=zone)
        vee.conservation.to_table("conservation")
        vee.quarantined.to_table("quarantined")
        vee.trusted.to_table("trusted")
        counts = connection.execute(
            "SELECT sum(delivered), sum(cleaned), sum(edited), sum(superseded), sum(exact_duplicates), bool_and(is_conserved) "
            "FROM conservation"
        ).fetchone()
        reasons = connection.execute("SELECT rule, count(*) FROM quarantined GROUP BY rule ORDER BY 2 DESC, 1").fetchall()
        estimated = connection.execute(
            "SELECT count(*) FILTER (quality = 'estimated' AND rule <> 'delivered_estimate') FROM trusted"
        ).fetchone()[0]
        total = connection.execute("SELECT count(*) FROM delivered").fetchone()[0]
        refused = ", ".join(f"{rule} {count:,}" for rule, count in reasons) or "none"
        numbers = " | ".join(f"{n or 0:,}" for n in counts[:5])
        return f"| {title} | {len(paths)} | {numbers} | {refused} | {estimated:,} | {'yes' if counts[5] and counts[0] == total else 'NO'} |"


if __name__ == "__main__":
    main()
