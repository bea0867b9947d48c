"""How good VEE is, against the truth of the sample utility: precision and recall of each rule. Estimates are in `metering_gaps`.

Run: python -m benchmarks.metering_truth [--meters 600] [--days 56] [--dirt 2] [--seeds 12,21,22]
Prints a table in Markdown. A fault counts as found where the very row (file and line) was named by the rule that is there for it; a
finding counts as right where the row carries a fault of that kind. The first two weeks are the meters' past and not scored. Thresholds were
chosen on utilities of the seeds 1, 11, 12 and 13; every other seed is one that they have never seen.
"""

from __future__ import annotations

import argparse
import tempfile
from datetime import date, timedelta
from pathlib import Path

import duckdb

from lakehouse.metering.registers import settled
from lakehouse.metering.registry import meters_from
from lakehouse.metering.rules import VeeRules
from lakehouse.metering.vee import Vee, validate_estimate_edit
from lakehouse.simulation.delivery import simulate
from lakehouse.sources.base import LandedFile, ReadOptions, read_file

WARM_UP_DAYS = 14

# Kind of fault -> the rules that are there for it.
RULES_OF = {
    "exact_duplicate": ("exact_duplicate",),
    "conflicting_duplicate": ("superseded",),
    "corrected_file": ("superseded",),
    "negative": ("negative_energy",),
    "spike": ("spike",),
    "beyond_rating": ("beyond_rating",),
    "stuck": ("stuck_value",),
    "dead_register": ("zero_run",),
    "late_register": ("late_register_read",),
    "wrong_unit": ("unit_slip",),
    "unknown_meter": ("unknown_meter",),
    "bad_number": ("unreadable_line",),
    "missing_column": ("unreadable_line",),
    "decimal_comma": ("unreadable_line",),
    "wrong_time_zone": ("shifted_clock",),
    "shifted_hour": ("shifted_clock",),
    "shifted_file": ("shifted_clock",),
    "swapped_day_month": ("swapped_day_month",),
}
MISSING = ("missing_short", "missing_hours", "missing_days", "truncated_file", "empty_file", "not_csv")


def land(folder: Path, connection: duckdb.DuckDBPyConnection, time_zone: str) -> None:
    """Reads the landed meter files to the tables `delivered` and `registry`."""
    made: set[str] = set()
    for feed, name, table in (
        ("meter_readings", "canonical_readings", "delivered"),
        ("register_reads", "canonical_readings", "delivered"),
        ("meters", "canonical_meters", "registry"),
    ):
        for path in sorted((folder / feed).glob("*/*")):
            file = LandedFile(path, path.name, date.fromisoformat(path.parent.name), feed)
            for rows in read_file(file, name, ReadOptions(time_zone=time_zone)):
                connection.register("batch", rows)
                verb = f"INSERT INTO {table} BY NAME" if table in made else f"CREATE TABLE {table} AS"
                connection.execute(f"{verb} SELECT *, '{feed}' AS feed FROM batch")
                made.add(table)


def score(connection: duckdb.DuckDBPyConnection, vee: Vee, truth: Path, since: date) -> list[tuple]:
    """Rows of (kind, rules, faulty rows, recall, findings of the rule, precision)."""
    connection.execute(
        f"CREATE OR REPLACE TABLE faults AS SELECT * FROM read_parquet('{truth / 'faults.parquet'}') WHERE day >= DATE '{since}'"
    )
    connection.execute("CREATE OR REPLACE TABLE findings AS " + vee.findings.sql_query())
    # A provisional value is wrong and known to be: whatever a rule says of it is neither right nor wrong.
    connection.execute("CREATE OR REPLACE TABLE provisional AS SELECT file, line, delivery_date FROM faults WHERE kind = 'corrected_file'")
    table = []
    for kind, rules in RULES_OF.items():
        told = ", ".join(f"'{r}'" for r in rules)
        kinds = ", ".join(f"'{k}'" for k, r in RULES_OF.items() if set(r) & set(rules))
        # A stuck or dead register that happens to show the truth is no error; nor is it one to name it.
        wrong = "AND (true_kwh IS DISTINCT FROM delivered_kwh)" if kind in ("stuck", "dead_register") else ""
        # A provisional value is beaten once its correction has come.
        beaten = (
            """AND EXISTS (SELECT 1 FROM delivered d WHERE d.meter_id = faults.meter_id AND d.interval_start = faults.interval_start
                AND d.register = faults.register AND d.delivery_date > faults.delivery_date)"""
            if kind == "corrected_file"
            else ""
        )
        faulty, found = connection.execute(
            f"""
            SELECT count(*), count(x.line) FROM (SELECT DISTINCT file, line, delivery_date FROM faults WHERE kind = '{kind}'
                AND line IS NOT NULL {wrong} {beaten}) f
            LEFT JOIN (SELECT DISTINCT file, line, delivery_date FROM findings WHERE rule IN ({told})) x USING (file, line, delivery_date)
            """
        ).fetchone()
        named, right = connection.execute(
            f"""
            SELECT count(*), count(f.line)
            FROM (SELECT DISTINCT file, line, delivery_date FROM findings WHERE rule IN ({told}) AND date >= DATE '{since}' + 1
                AND line > 1 AND (file, line, delivery_date) NOT IN (SELECT (file, line, delivery_date) FROM provisional)) x
            LEFT JOIN (SELECT DISTINCT file, line, delivery_date FROM faults WHERE kind IN ({kinds}, 'truncated_file')) f USING (file,
                line, delivery_date)
            """
        ).fetchone()
        table.append((kind, "/".join(rules), faulty, found / faulty if faulty else None, named, right / named if named else None))
    kinds = ", ".join(f"'{k}'" for k in MISSING)
    for kind in MISSING:
        faulty, found = connection.execute(
            f"""
            SELECT count(*), count(t.meter_id)
            FROM (SELECT DISTINCT meter_id, register, interval_start FROM faults WHERE kind = '{kind}' AND line IS NULL) f
            LEFT JOIN (SELECT * FROM trusted WHERE rule IN ('missing_interval') OR quality = 'measured') t USING (meter_id, register,
                interval_start)
            """
        ).fetchone()
        named, right = connection.execute(
            f"""
            SELECT count(*), count(f.meter_id)
            FROM (SELECT * FROM trusted WHERE rule = 'missing_interval' AND date >= DATE '{since}' + 1) t
            LEFT JOIN (SELECT DISTINCT meter_id, register, interval_start FROM faults WHERE kind IN ({kinds})
                       UNION SELECT DISTINCT meter_id, register, interval_start FROM faults WHERE kind IN ('missing_column',
                           'late_file', 'swapped_day_month')) f
            USING (meter_id, register, interval_start)
            """
        ).fetchone()
        table.append((kind, "missing_interval", faulty, found / faulty if faulty else None, named, right / named if named else None))
    return table


def score_registers(connection: duckdb.DuckDBPyConnection, since: date) -> list[tuple]:
    """The same for register differences: a span with a wrong factor in it should differ; one that differs should hold a fault.

    Spans in which intervals are missing, or whose difference estimates have taken, have no such verdict and do not count.
    """
    settled(connection, "differences", "trusted", "edits", VeeRules()).differences.to_table("judged")
    table = []
    for title, condition in (("a day", "<= 2"), ("a month", "> 2")):
        table.append(
            connection.execute(
                f"""
                WITH spans AS (
                    SELECT j.*, EXISTS (SELECT 1 FROM faults f WHERE f.kind = 'wrong_factor' AND f.meter_id = j.meter_id
                               AND f.register = j.register AND f.interval_start >= j.interval_start AND f.interval_start < j.interval_end)
                               AS is_wrong,
                           EXISTS (SELECT 1 FROM faults f WHERE f.meter_id = j.meter_id AND f.register = j.register
                               AND f.interval_start >= j.interval_start AND f.interval_start < j.interval_end) AS is_faulty
                    FROM judged j WHERE verdict IN ('agrees', 'differs') AND CAST(interval_end AS DATE) > DATE '{since}'
                      AND date_diff('day', interval_start, interval_end) {condition}
                )
                SELECT 'wrong_factor, read every {title[2:]}', 'register_difference', count(*) FILTER (WHERE is_wrong),
                       count(*) FILTER (WHERE is_wrong AND verdict = 'differs') / NULLIF(count(*) FILTER (WHERE is_wrong), 0),
                       count(*) FILTER (WHERE verdict = 'differs'),
                       count(*) FILTER (WHERE is_faulty AND verdict = 'differs') / NULLIF(count(*) FILTER (WHERE verdict = 'differs'), 0)
                FROM spans
                """
            ).fetchall()[0]
        )
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--meters", type=int, default=600)
    parser.add_argument("--days", type=int, default=56)
    parser.add_argument("--dirt", type=float, default=2.0)
    parser.add_argument("--seeds", default="12,21,22", help="utilities whose faults are looked for")
    parser.add_argument("--first-day", type=date.fromisoformat, default=date(2026, 2, 1))
    told = parser.parse_args()
    last = told.first_day + timedelta(days=told.days - 1)
    print_scores({int(seed): scores(int(seed), told, last) for seed in told.seeds.split(",")})


def scores(seed: int, told: argparse.Namespace, last: date) -> list[tuple]:
    """One utility's rows of the table; see `score`."""
    with tempfile.TemporaryDirectory() as folder, duckdb.connect() as connection:
        home = Path(folder)
        landing = home / "landing"
        simulate(landing, last_day=last, first_day=told.first_day, meters=told.meters, dirt=told.dirt, seed=seed)
        connection.execute("SET TimeZone = 'UTC'")
        land(landing, connection, "Europe/Madrid")
        meters_from(connection, "registry", "delivered").to_table("meters")
        vee = validate_estimate_edit(
            connection,
            "delivered",
            days=[told.first_day + timedelta(days=n) for n in range((last - told.first_day).days + 2)],
            meters="meters",
            rules=VeeRules(),
            time_zone="Europe/Madrid",
            today=last + timedelta(days=1),
            first_day=told.first_day,
        )
        vee.trusted.to_table("trusted")
        vee.edits.to_table("edits")
        vee.differences.to_table("differences")
        since = told.first_day + timedelta(days=WARM_UP_DAYS)
        return [*score(connection, vee, home / "truth", since), *score_registers(connection, since)]


def print_scores(found: dict[int, list[tuple]]) -> None:
    """Recall and precision of each rule, seed by seed, as a Markdown table."""
    seeds = list(found)
    head = " | ".join(f"recall {s}" for s in seeds) + " | " + " | ".join(f"precision {s}" for s in seeds)
    print(f"| fault | rule | faulty rows | {head} |")
    print("| --- | --- | ---: | " + " | ".join(["---:"] * 2 * len(seeds)) + " |")
    for rows in zip(*found.values(), strict=True):
        kind, rule = rows[0][0], rows[0][1]
        shares = " | ".join([_share(r[3]) for r in rows] + [_share(r[5]) for r in rows])
        print(f"| {kind} | `{rule}` | {sum(r[2] for r in rows):,} | {shares} |")


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


if __name__ == "__main__":
    main()
