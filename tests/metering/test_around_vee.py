"""The meters, and the loads summed from their readings."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

import duckdb
import pyarrow as pa
import pytest

from lakehouse.contracts import cleaned, quality
from lakehouse.contracts.raw import RawMeters
from lakehouse.metering.load import aggregate_load
from lakehouse.metering.registry import meters_from
from lakehouse.metering.rules import codes
from tests.metering.builders import MONDAY, USUAL, day, meters, past, row, run


@dataclass
class Sum:
    series_id: str
    meter_class: str | None = None


def test_what_vee_gives_keeps_its_contracts():
    result = run(past() + day([*USUAL[:3], 5.6, None, *USUAL[5:]]) + [row(hour=4, line=99, fault="expected a number, found none")])
    list(cleaned.MeterReadings.validated(result.trusted.to_batches()))
    written = {
        quality.Quarantine: result.quarantined,
        quality.Conservation: result.conservation,
        quality.VeeReport: result.report,
        quality.Edits: result.edits,
    }
    for contract, rows in written.items():
        schema = pa.schema([f.with_nullable(True) for f in contract.arrow_schema()])
        list(contract.validated(pa.Table.from_pylist(rows, schema).to_batches()))
    list(quality.Codes.validated(codes().to_batches()))


def test_the_newest_entry_of_a_meter_counts_and_a_stranger_is_known_as_one():
    def entry(**more):
        return dict.fromkeys(RawMeters.columns) | {"file": "m.csv", "line": 1, "delivery_date": MONDAY} | more

    registry = [
        entry(meter_id="A", meter_class="household", rated_kw=5.8),
        entry(meter_id="A", meter_class="pv", rated_kw=9.2, delivery_date=date(2026, 4, 1)),
        entry(fault="unreadable"),
    ]
    with duckdb.connect() as connection:
        schema = pa.schema([f.with_nullable(True) for f in RawMeters.arrow_schema()])
        connection.register("registry", pa.Table.from_pylist(registry, schema))
        rows = [row(meter="A"), row(meter="B", minutes=30), row(meter="B", minutes=30, register="export")]
        connection.register("readings", pa.Table.from_pylist(rows))
        table = meters_from(connection, "registry", "readings").to_arrow_table()
        list(cleaned.Meters.validated(table.to_batches()))
        one, other = table.to_pylist()
        assert (one["meter_class"], one["rated_kw"], one["is_registered"]) == ("pv", 9.2, True)
        assert (other["meter_id"], other["interval_minutes"], other["registers"]) == ("B", 30, "export,import")
        assert not other["is_registered"]
        assert len(meters_from(connection, None, "readings").to_arrow_table()) == 2


def load_of(rows, *sums, known=None, resolution=60):
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        connection.register("readings", run(rows, known=known).trusted)
        connection.register("known", known if known is not None else meters("A", "B"))
        table = aggregate_load(connection, "readings", "known", sums or [Sum("all")], resolution).to_arrow_table()
        list(cleaned.Load.validated(table.to_batches()))
        return table.to_pylist()


def test_a_load_is_import_less_export_in_megawatts():
    rows = [row(0.5, minutes=30, hour=0), row(0.7, minutes=30, hour=0.5), row(0.2, hour=0, register="export", line=3)]
    (one,) = load_of(rows)
    assert one["load_mw"] == pytest.approx((0.5 + 0.7 - 0.2) / 1000)
    assert (one["interval_minutes"], one["estimated_share"]) == (60, 0)


def test_an_aggregate_takes_its_class_alone():
    known = meters(("A", "household", 9.2), ("B", "shop", 9.2))
    rows = [row(0.5, meter="A"), row(2.0, meter="B")]
    loads = load_of(rows, Sum("shops", "shop"), Sum("all"), known=known)
    assert [(r["series_id"], r["load_mw"]) for r in loads] == [("all", 0.0025), ("shops", 0.002)]


def test_an_hour_in_which_a_meter_is_missing_is_scaled_up_and_one_in_which_many_are_is_left_out():
    rows = [r for n in range(10) for r in day([1.0] * 3 + [None] * 21, meter=f"M{n}")]
    rows = [r for r in rows if not (r["meter_id"] == "M0" and r["interval_start"].hour == 1)]
    rows = [r for r in rows if not (r["meter_id"] in ("M0", "M1", "M2") and r["interval_start"].hour == 2)]
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        table = pa.Table.from_pylist([r | {"is_estimated": False} for r in rows])
        connection.register("readings", table)
        connection.register("known", meters(*(f"M{n}" for n in range(10))))
        loads = aggregate_load(connection, "readings", "known", [Sum("all")]).to_arrow_table().to_pylist()
    found = [(r["interval_start"].hour, r["load_mw"], round(r["estimated_share"], 3)) for r in loads]
    assert found == [(0, 0.01, 0.0), (1, pytest.approx(0.01), 0.1)]
