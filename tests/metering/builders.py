"""Small builders for tests of VEE: delivered rows of one meter, a registry, and a run."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import duckdb
import pyarrow as pa

from lakehouse.contracts.raw import RawReadings
from lakehouse.metering.vee import Vee, VeeRules, validate_estimate_edit

MONDAY = date(2026, 3, 2)
SCHEMA = pa.schema([f.with_nullable(True) for f in RawReadings.arrow_schema()]).append(pa.field("feed", pa.string()))
# A day of a household that never repeats itself: 24 hours, the evening peak last.
USUAL = [
    0.21,
    0.22,
    0.20,
    0.19,
    0.23,
    0.26,
    0.38,
    0.52,
    0.44,
    0.39,
    0.37,
    0.42,
    0.55,
    0.61,
    0.48,
    0.41,
    0.43,
    0.51,
    0.66,
    0.83,
    0.94,
    0.88,
    0.57,
    0.33,
]


def row(
    kwh=0.3, *, meter="A", at=MONDAY, hour=0.0, minutes=60, register="import", quality=None, delivered=None, file=None, line=1, fault=None
):
    """One delivered row; by default delivered the day after, in a file named after its delivery."""
    start = datetime(at.year, at.month, at.day, tzinfo=UTC) + timedelta(hours=hour)
    delivered = delivered or start.date() + timedelta(days=1)
    return {
        "file": file or f"{delivered}.csv",
        "line": line,
        "delivery_date": delivered,
        "date": start.date(),
        "fault": fault,
        "raw_text": "as delivered" if fault else None,
        "meter_id": meter,
        "register": register,
        "interval_start": start,
        "interval_minutes": minutes,
        "energy_kwh": None if fault else kwh,
        "quality": quality,
        "feed": "readings",
    }


def day(kwh=None, *, meter="A", at=MONDAY, first_line=1, **more):
    """A day of hourly rows; None leaves one out."""
    values = USUAL if kwh is None else kwh
    return [row(v, meter=meter, at=at, hour=n, line=first_line + n, **more) for n, v in enumerate(values) if v is not None]


def past(days=14, *, until=MONDAY, meter="A", kwh=None, wobble=0.01, **more):
    """The days before: the usual day, a little more each day so that no value repeats."""
    values = kwh or USUAL
    rows = []
    for back in range(days, 0, -1):
        at = until - timedelta(days=back)
        rows += day([round(v * (1 + wobble * (back % 7)), 4) for v in values], meter=meter, at=at, **more)
    return rows


def meters(*entries, registered=True, registers="import"):
    """Rows of cleaned/meters; an entry is a name or (name, class, rated_kw)."""
    full = [(e, "household", 9.2) if isinstance(e, str) else e for e in entries]
    return pa.table(
        {
            "meter_id": pa.array([e[0] for e in full], pa.string()),
            "meter_class": pa.array([e[1] for e in full], pa.string()),
            "interval_minutes": pa.array([60] * len(full), pa.int32()),
            "rated_kw": pa.array([e[2] for e in full], pa.float64()),
            "registers": pa.array([registers] * len(full), pa.string()),
            "first_date": pa.nulls(len(full), pa.date32()),
            "last_date": pa.nulls(len(full), pa.date32()),
            "is_registered": pa.array([registered] * len(full), pa.bool_()),
        }
    )


class Result:
    """What a run gave, as lists of dictionaries."""

    def __init__(self, vee: Vee) -> None:
        self.trusted = vee.trusted.to_arrow_table()
        self.quarantined = vee.quarantined.to_arrow_table().to_pylist()
        self.conservation = vee.conservation.to_arrow_table().to_pylist()
        self.report = vee.report.to_arrow_table().to_pylist()
        self.edits = vee.edits.to_arrow_table().to_pylist()
        self.differences = vee.differences.to_arrow_table().to_pylist()
        vee.close()

    def hours(self, at=MONDAY, meter="A", register="import"):
        """Rows of a day by hour of the day (UTC)."""
        rows = [r for r in self.trusted.to_pylist() if r["date"] == at and r["meter_id"] == meter and r["register"] == register]
        return {r["interval_start"].hour + r["interval_start"].minute / 60: r for r in rows}

    def refused(self):
        """(rule, hour) of quarantined rows, in order."""
        return [(q["rule"], q["interval_start"].hour if q["interval_start"] else None) for q in self.quarantined]


def run(rows, *, known=None, days=None, history=None, reports=None, time_zone="UTC", first_day=None, rules=None, today=None) -> Result:
    """Runs VEE over rows; by default for all their days, with all their meters registered."""
    with duckdb.connect() as connection:
        connection.register("delivered", pa.Table.from_pylist(rows, SCHEMA))
        known = known if known is not None else meters(*sorted({r["meter_id"] for r in rows if r["meter_id"]}))
        connection.register("known_meters", known)
        if history is not None:
            connection.register("history", history)
        if reports is not None:
            connection.register("reports", reports)
        spans = sorted({r["date"] for r in rows if r["date"]})
        days = days or [spans[0] + timedelta(days=n) for n in range((spans[-1] - spans[0]).days + 1)]
        return Result(
            validate_estimate_edit(
                connection,
                "delivered",
                days=days,
                meters="known_meters",
                history="history" if history is not None else None,
                reports="reports" if reports is not None else None,
                rules=rules or VeeRules(),
                time_zone=time_zone,
                first_day=first_day,
                today=today,
            )
        )
