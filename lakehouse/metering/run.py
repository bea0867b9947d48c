"""One run of VEE: its temporary tables in DuckDB, and the SQL that its steps share. What the steps do is in the modules around it."""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from datetime import date, timedelta

import duckdb
import pyarrow as pa

from lakehouse.metering.registers import is_difference_sql
from lakehouse.metering.rules import VeeRules


class Run:
    """The temporary tables of one run, under names of their own.

    Args:
        connection: where they live.
        days: UTC days that are cleaned.
        rules: thresholds.
        time_zone: the site's IANA zone.
    """

    def __init__(self, connection: duckdb.DuckDBPyConnection, days: list[date], rules: VeeRules, time_zone: str) -> None:
        self.connection, self.days, self.rules, self.time_zone = connection, sorted(set(days)), rules, time_zone
        self.prefix = f"vee_{uuid.uuid4().hex[:10]}_"
        self.made: list[str] = []
        self.listed_days = listed_sql(self.days)
        self.past_source = ""
        self.is_ordered = False
        self.sender_estimates: set[str] = set()

    def days_sql(self, column: str) -> str:
        """SQL that is true on the run's days."""
        return dates_sql(column, self.days)

    def name(self, step: str) -> str:
        """The table of a step."""
        return self.prefix + step

    def make(self, step: str, sql: str) -> str:
        """Makes the table of a step and returns its name."""
        self.connection.execute(f"CREATE OR REPLACE TEMP TABLE {self.name(step)} AS {sql}")
        self.made.append(step)
        return self.name(step)

    def take(self, step: str, rows: pa.Table, columns: str = "*") -> str:
        """Makes the table of a step from rows in memory and returns its name."""
        self.connection.register("vee_taken", rows)
        name = self.make(step, f"SELECT {columns} FROM vee_taken{' GROUP BY ALL' if '(' in columns else ''}")
        self.connection.unregister("vee_taken")
        return name

    def execute(self, sql: str) -> None:
        """Runs a statement."""
        self.connection.execute(sql)

    def count(self, sql: str) -> int:
        """The single number that a query gives."""
        return int(self.connection.execute(sql).fetchall()[0][0] or 0)

    def close(self) -> None:
        """Drops the run's tables."""
        for step in self.made:
            self.connection.execute(f"DROP TABLE IF EXISTS {self.name(step)}")
        self.made.clear()

    def __getattr__(self, step: str) -> str:
        if step.startswith("_"):
            raise AttributeError(step)
        return self.name(step)


def listed_sql(days: Iterable[date]) -> str:
    """Days as SQL literals, comma-separated."""
    return ", ".join(f"DATE '{d}'" for d in days)


def dates_sql(column: str, days: Iterable[date]) -> str:
    """SQL that is true on those days; a range where they follow each other, so that scans can skip files."""
    ordered = sorted(set(days))
    if not ordered:
        return "false"
    if len(ordered) == (ordered[-1] - ordered[0]).days + 1:
        return f"{column} BETWEEN DATE '{ordered[0]}' AND DATE '{ordered[-1]}'"
    return f"{column} IN ({listed_sql(ordered)})"


def partition_day_sql(first_day: date | None = None, row: str = "") -> str:
    """SQL for the day on which a delivered row counts in cleaned and quality tables.

    It is the UTC day of its interval, but the day of its delivery where the row has none, or one that can't be: after the
    delivery (a day of slack for time zones), or more than a day before the site's first.
    """
    dot = f"{row}." if row else ""
    early = f" OR {dot}date < DATE '{first_day - timedelta(days=1)}'" if first_day else ""
    return f"CASE WHEN {dot}date IS NULL OR {dot}date > {dot}delivery_date + 1{early} THEN {dot}delivery_date ELSE {dot}date END"


# A row with all that a reading of an interval needs; others are in quarantine, whatever their day, or differences of register reads.
IS_READING = f"""d.fault IS NULL AND d.meter_id IS NOT NULL AND d.register IS NOT NULL AND d.energy_kwh IS NOT NULL AND d.date IS NOT NULL
    AND NOT {is_difference_sql("d")}"""
