"""How far off estimates are: gaps punched into clean deliveries, filled by VEE, beside the straight line and last week's value.

Run: python -m benchmarks.metering_gaps [--seeds 1,12,21,22,23] [--meters 600] [--days 70] [--by-class]
     python -m benchmarks.metering_gaps --sets FOLDER, where FOLDER is laid out like the published data (meters/...)
Every meter loses six short stretches and a long one a fortnight, with all its registers, of lengths that are drawn. Prints the
error of each way (WAPE: sum of absolute errors over the sum of energy) by the gap's length, for each utility or set and over all utilities.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterable
from datetime import date, timedelta
from pathlib import Path

import duckdb

from benchmarks import metering_sets
from benchmarks.metering_truth import land
from lakehouse.metering.registry import meters_from
from lakehouse.metering.vee import validate_estimate_edit
from lakehouse.simulation.delivery import simulate

SHORT_GAP_HOURS = (0, 1, 2, 3)
LONG_GAP_HOURS = (6, 12, 24, 48, 120)
SHORT_GAPS = 6
FORTNIGHT_DAYS = 14
# Published sets of intervals that are long enough to have a past.
SETS = ("London LCL block", "London LCL homes", "SGSC", "Ausgrid solar home", "HUE", "Swiss weeks")


def punch_gaps(connection: duckdb.DuckDBPyConnection, since: date, until: date, salt: str) -> None:
    """Takes readings out of `delivered`: in every fortnight of a meter short gaps on six days, then a long one, with all its registers.

    The table `punched` keeps what was taken out, with `hours`, the gap's length (0: a single interval).
    """
    short, long = (f"[{', '.join(map(str, hours))}]" for hours in (SHORT_GAP_HOURS, LONG_GAP_HOURS))
    connection.execute(
        f"""
        CREATE OR REPLACE TABLE punched AS
        WITH places AS (
            SELECT meter_id, n, k, CAST(hash(meter_id || '{salt}' || n || '-' || k) % 1000 AS BIGINT) AS draw,
                   CAST(hash('start' || meter_id || '{salt}' || n || '-' || k) % 1000 AS BIGINT) AS place
            FROM (SELECT DISTINCT meter_id FROM delivered), range({(until - since).days // FORTNIGHT_DAYS + 1}) r(n),
                 range({SHORT_GAPS + 1}) s(k)
        ), drawn AS (
            SELECT meter_id, CASE WHEN k < {SHORT_GAPS} THEN {short}[1 + draw % {len(SHORT_GAP_HOURS)}]
                             ELSE {long}[1 + draw % {len(LONG_GAP_HOURS)}] END AS hours,
                   {FORTNIGHT_DAYS} * 24 * n + CASE WHEN k < {SHORT_GAPS} THEN 24 * k + place % 20
                                               ELSE 24 * {SHORT_GAPS + 1} + place % 46 END AS after_hours
            FROM places
        ), gaps AS (
            SELECT meter_id, hours, TIMESTAMPTZ '{since} 00:00:00+00' + to_hours(CAST(after_hours AS BIGINT)) AS opens
            FROM drawn WHERE after_hours + hours < {24 * (until - since).days}
        )
        SELECT d.meter_id, d.register, d.interval_start, d.interval_minutes, d.energy_kwh AS true_kwh, g.hours, g.opens,
               d.interval_start - INTERVAL 7 DAY AS week_before, g.opens - to_minutes(d.interval_minutes) AS before,
               g.opens + to_minutes(greatest(60 * g.hours, d.interval_minutes)) AS closes
        FROM delivered d JOIN gaps g USING (meter_id)
        WHERE d.interval_minutes <= 60 AND d.energy_kwh IS NOT NULL AND d.interval_start >= g.opens
          AND d.interval_start < g.opens + to_minutes(greatest(60 * g.hours, d.interval_minutes))
        """
    )
    connection.execute(
        "CREATE OR REPLACE VIEW punctured AS SELECT d.* FROM delivered d ANTI JOIN punched p USING (meter_id, register, interval_start,"
        " interval_minutes)"
    )


def compare(connection: duckdb.DuckDBPyConnection, source: str) -> None:
    """Appends to `compared` what each way says of every reading that was taken out, from `filled` and `edits`."""
    connection.execute(
        """
        CREATE OR REPLACE TABLE near AS
        SELECT meter_id, register, interval_start, any_value(energy_kwh) AS energy_kwh FROM delivered d
        WHERE interval_minutes <= 60 AND (meter_id, register, interval_start) IN (
            SELECT (meter_id, register, week_before) FROM punched UNION SELECT (meter_id, register, before) FROM punched
            UNION SELECT (meter_id, register, closes) FROM punched)
        GROUP BY ALL
        """
    )
    connection.execute(
        f"""
        INSERT INTO compared
        SELECT '{source}' AS source, p.hours, m.meter_class, p.true_kwh, COALESCE(e.was_kwh, f.energy_kwh) AS estimated_kwh,
               w.energy_kwh AS week_kwh, CASE WHEN e.was_kwh IS NOT NULL THEN f.energy_kwh END AS shared_kwh,
               l.energy_kwh + (r.energy_kwh - l.energy_kwh) * (epoch(p.interval_start) - epoch(p.opens) + 60 * p.interval_minutes)
               / (epoch(p.closes) - epoch(p.opens) + 60 * p.interval_minutes) AS line_kwh
        FROM punched p JOIN meters m USING (meter_id)
        JOIN filled f USING (meter_id, register, interval_start)
        LEFT JOIN (FROM edits WHERE rule = 'register_difference') e USING (meter_id, register, interval_start)
        JOIN near w ON w.meter_id = p.meter_id AND w.register = p.register AND w.interval_start = p.week_before
        JOIN near l ON l.meter_id = p.meter_id AND l.register = p.register AND l.interval_start = p.before
        JOIN near r ON r.meter_id = p.meter_id AND r.register = p.register AND r.interval_start = p.closes
        WHERE w.energy_kwh + l.energy_kwh + r.energy_kwh IS NOT NULL
        """
    )


def fill(connection: duckdb.DuckDBPyConnection, source: str, warm_up_days: int, time_zone: str, holidays: Iterable[date] = ()) -> None:
    """Punches gaps into `delivered`, fills them, and compares."""
    first, last = connection.execute("SELECT min(date), max(date) FROM delivered WHERE interval_minutes <= 60").fetchall()[0]
    punch_gaps(connection, first + timedelta(days=warm_up_days), last, source)
    days = [first + timedelta(days=n) for n in range((last - first).days + 1)]
    vee = validate_estimate_edit(connection, "punctured", days=days, meters="meters", time_zone=time_zone, holidays=holidays)
    vee.trusted.to_table("filled")
    vee.edits.to_table("edits")
    vee.close()
    compare(connection, source)


def print_errors(connection: duckdb.DuckDBPyConnection, title: str, sources: Iterable[str], by_class: bool) -> None:
    """A Markdown table of the errors by the gap's length; the last columns are the readings that shared a register difference."""
    listed = ", ".join(f"'{s}'" for s in sources)
    print(f"\n{title}\n")
    print("| gap | readings | estimate | straight line | last week's value | bias | with a register: readings | before | after |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    shared = "FILTER (WHERE shared_kwh IS NOT NULL)"
    rows = connection.execute(
        f"""
        SELECT hours, COALESCE(meter_class, 'all'), count(*), sum(abs(estimated_kwh - true_kwh)) / sum(true_kwh),
               sum(abs(line_kwh - true_kwh)) / sum(true_kwh), sum(abs(week_kwh - true_kwh)) / sum(true_kwh),
               sum(estimated_kwh) / sum(true_kwh) - 1, count(shared_kwh),
               sum(abs(estimated_kwh - true_kwh)) {shared} / sum(true_kwh) {shared},
               sum(abs(shared_kwh - true_kwh)) / sum(true_kwh) {shared}
        FROM compared WHERE source IN ({listed})
        GROUP BY GROUPING SETS ((hours), (hours, meter_class)) HAVING {by_class} OR GROUPING(meter_class) = 1 ORDER BY meter_class, hours
        """
    ).fetchall()
    for hours, kind, count, *errors, bias, several, before, after in rows:
        name = ("1 interval" if hours == 0 else f"{hours} h") + (f", {kind}" if by_class else "")
        told = " | ".join("-" if e is None else f"{e:.3f}" for e in (*errors, bias))
        ends = " | ".join("-" if e is None else f"{e:.3f}" for e in (before, after))
        print(f"| {name} | {count:,} | {told} | {several:,} | {ends} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", default="1,12,21,22,23", help="utilities whose readings are taken out and estimated")
    parser.add_argument("--meters", type=int, default=600)
    parser.add_argument("--days", type=int, default=70)
    parser.add_argument("--first-day", type=date.fromisoformat, default=date(2026, 1, 12))
    parser.add_argument("--sets", type=Path, help="folder of published data, instead of utilities")
    parser.add_argument("--by-class", action="store_true", help="errors by meter class as well")
    told = parser.parse_args()
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'; SET threads = 2")
        connection.execute(
            "CREATE TABLE compared (source VARCHAR, hours INTEGER, meter_class VARCHAR, true_kwh DOUBLE, estimated_kwh DOUBLE,"
            " week_kwh DOUBLE, shared_kwh DOUBLE, line_kwh DOUBLE)"
        )
        if told.sets:
            for title, name, pattern, zone, settings in metering_sets.SETS:
                if title in SETS:
                    metering_sets.land(connection, name, sorted(told.sets.glob(pattern)), zone, settings)
                    meters_from(connection, None, "delivered").to_table("meters")
                    fill(connection, title, 21, zone)
                    print_errors(connection, title, [title], told.by_class)
                    forget(connection)
            return
        seeds = told.seeds.split(",")
        for seed in seeds:
            with tempfile.TemporaryDirectory() as folder:
                last = told.first_day + timedelta(days=told.days - 1)
                landing = Path(folder) / "landing"
                made = simulate(landing, last_day=last, first_day=told.first_day, meters=told.meters, dirt=0, seed=int(seed))
                land(landing, connection, "Europe/Madrid")
            meters_from(connection, "registry", "delivered").to_table("meters")
            fill(connection, seed, 36, "Europe/Madrid", made.utility.holidays)
            print_errors(connection, f"Seed {seed}", [seed], told.by_class)
            forget(connection)
        if len(seeds) > 1:
            print_errors(connection, "All seeds", seeds, told.by_class)


def forget(connection: duckdb.DuckDBPyConnection) -> None:
    """Drops what was read of one source."""
    connection.execute("DROP VIEW punctured")
    for table in ("delivered", "registry", "meters", "punched", "near", "filled", "edits"):
        connection.execute(f"DROP TABLE IF EXISTS {table}")


if __name__ == "__main__":
    main()
