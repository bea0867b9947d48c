"""A contract says everything about a table once; schema, checks, comments and dictionary follow from it."""

from __future__ import annotations

from datetime import UTC, date, datetime

import duckdb
import pyarrow as pa
import pytest

from lakehouse.contracts.base import (
    ARROW_TYPES,
    SQL_TYPES,
    Boolean,
    Column,
    Date,
    Float64,
    Instant,
    Int16,
    Int32,
    Int64,
    Table,
    Text,
    column,
)
from lakehouse.contracts.cleaned import prices_in
from lakehouse.errors import ContractError
from lakehouse.flow.setup import EXAMPLES, example_sites, parse_example
from lakehouse.flow.tables import tables_of
from lakehouse.storage.catalog import publish_catalog
from lakehouse.storage.lake import Lake


class Pumps(Table):
    """Water pumps: one row per pump and hour.

    This second paragraph is for developers.
    """

    name = "cleaned/pumps"
    key = ("pump_id", "interval_start")
    partitioned_by = ("date",)

    pump_id: Text = column("The pump.")
    interval_start: Instant = column("Start of the hour.", unit="UTC")
    stage: Int16 = column("Stage.", isin=(1, 2, 3))
    turns: Int64 = column("Turns in the hour.", ge=0)
    power_kw: Float64 = column("Mean power; it's never above 500.", unit="kW", nullable=True, ge=0, le=500)
    is_on: Boolean = column("Whether it ran.")
    description: Text = column("What the operator wrote.", nullable=True)
    date: Date = column("UTC day.")


def pumps(**columns: list) -> pa.Table:
    rows = max((len(v) for v in columns.values()), default=1)
    whole = {
        "pump_id": ["P1"] * rows,
        "interval_start": [datetime(2026, 3, 1, h % 24, tzinfo=UTC) for h in range(rows)],
        "stage": [1] * rows,
        "turns": [10] * rows,
        "power_kw": [5.0] * rows,
        "is_on": [True] * rows,
        "description": [None] * rows,
        "date": [date(2026, 3, 1)] * rows,
    }
    return pa.table(whole | columns)


def passed(table: pa.Table) -> pa.Table:
    return pa.Table.from_batches(Pumps.validated(table.to_batches()))


def test_a_class_becomes_an_arrow_schema_with_units_and_descriptions():
    schema = Pumps.arrow_schema()
    assert schema.names == ["pump_id", "interval_start", "stage", "turns", "power_kw", "is_on", "description", "date"]
    assert [str(t) for t in schema.types] == [
        "string",
        "timestamp[us, tz=UTC]",
        "int16",
        "int64",
        "double",
        "bool",
        "string",
        "date32[day]",
    ]
    assert [f.name for f in schema if f.nullable] == ["power_kw", "description"]
    assert schema.field("power_kw").metadata == {b"description": b"Mean power; it's never above 500.", b"unit": b"kW"}
    assert Pumps.empty().schema.equals(schema) and Pumps.empty().num_rows == 0


def test_the_table_says_what_it_is_in_its_first_line():
    assert Pumps.description() == "Water pumps: one row per pump and hour."
    assert Pumps.layer() == "cleaned"


def test_a_column_may_be_called_description_like_the_method():
    assert Pumps.columns["description"].description == "What the operator wrote."
    assert callable(Pumps.description)


def test_every_type_has_an_arrow_and_an_sql_type_that_duckdb_agrees_with():
    for arrow in ARROW_TYPES.values():
        column = pa.table({"x": pa.array([], arrow)})
        with duckdb.connect() as engine:
            engine.register("t", column)
            assert engine.sql("DESCRIBE t").fetchall()[0][1] == SQL_TYPES[arrow]
    assert {Int16, Int32, Int64} <= set(ARROW_TYPES)


def test_rows_as_the_contract_says_pass_and_nulls_where_they_may_be():
    assert passed(pumps(power_kw=[None, 0.0, 500.0])).num_rows == 3


@pytest.mark.parametrize(
    ("columns", "says"),
    [
        ({"power_kw": [1.0, -0.5]}, r"power_kw must be at least 0, found -0\.5 \(1 rows\)"),
        ({"power_kw": [500.1, 501.0, 502.0, 503.0]}, r"power_kw must be at most 500, found 500\.1, 501\.0, 502\.0 \(4 rows\)"),
        ({"stage": [1, 4]}, r"stage must be one of \[1, 2, 3\], found 4 \(1 rows\)"),
        ({"pump_id": ["P1", None]}, r"pump_id must be present"),
        (
            {"turns": [-1], "stage": [9]},
            r"stage must be one of .*; turns must be at least 0|turns must be at least 0.*; stage must be one of",
        ),
    ],
)
def test_a_broken_row_is_told_with_column_rule_and_values(columns, says):
    with pytest.raises(ContractError, match=says) as error:
        passed(pumps(**columns))
    assert str(error.value).startswith("cleaned/pumps: ")
    assert "Nothing was committed" in str(error.value)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_no_number_breaks_a_range(value):
    with pytest.raises(ContractError, match="power_kw"):
        passed(pumps(power_kw=[1.0, value]))


def test_missing_and_unknown_columns_are_both_told():
    table = pumps(turns=[1]).drop_columns(["stage"]).append_column("colour", pa.array(["red"]))
    with pytest.raises(ContractError, match=r"cleaned/pumps: .*none of \['stage'\] and the unknown \['colour'\]"):
        Pumps.conform(table)


def test_columns_are_ordered_and_cast_where_nothing_is_lost():
    table = pumps(turns=[1, 2])
    shuffled = table.select(list(reversed(table.column_names)))
    conformed = Pumps.conform(shuffled.set_column(0, "date", pa.array([date(2026, 3, 1)] * 2, pa.date64())))
    assert conformed.column_names == list(Pumps.columns)
    assert conformed.schema.field("stage").type == pa.int16()
    for turns in (["many"], [1.5], [2**63 - 1, None]):
        if turns == [2**63 - 1, None]:
            assert Pumps.conform(pumps(turns=turns)).column("turns").null_count == 1  # told by the validation, with its column
            continue
        with pytest.raises(ContractError, match="cleaned/pumps: a column can't be cast"):
            Pumps.conform(pumps(turns=turns))
    with pytest.raises(ContractError, match="can't be cast"):
        Pumps.conform(pumps(stage=[70_000]))


def test_small_batches_are_checked_together_and_none_is_lost(monkeypatch):
    checked = []
    enforce = Pumps._enforce
    monkeypatch.setattr(Pumps, "_enforce", lambda schema, table: (checked.append(table.num_rows), enforce(schema, table)))
    batches = pumps(turns=list(range(1_000))).to_batches(max_chunksize=7)
    assert [t for b in Pumps.validated(batches) for t in b.column("turns").to_pylist()] == list(range(1_000))
    assert checked == [1_000]
    assert list(Pumps.validated([])) == []


def test_a_stream_is_not_held_as_a_whole(monkeypatch):
    from lakehouse.contracts import base

    monkeypatch.setattr(base, "ROWS_PER_CHECK", 20)
    asked = 0

    def batches():
        nonlocal asked
        for batch in pumps(turns=list(range(100))).to_batches(max_chunksize=10):
            asked += 1
            yield batch

    stream = Pumps.validated(batches())
    next(stream)
    assert asked == 2


def test_units_stand_in_the_catalogs_comments(tmp_path):
    path = publish_catalog(Lake(tmp_path / "lake"), [Pumps], tmp_path / "catalog.duckdb")
    with duckdb.connect(str(path), read_only=True) as engine:
        comments = dict(engine.sql("SELECT column_name, comment FROM duckdb_columns() WHERE table_name = 'pumps'").fetchall())
        assert engine.sql("SELECT comment FROM duckdb_views() WHERE view_name = 'pumps'").fetchall() == [(Pumps.description(),)]
    assert comments["power_kw"] == "Mean power; it's never above 500. [kW]"
    assert comments["description"] == "What the operator wrote."


def test_a_derived_contract_has_further_columns_and_leaves_its_base_alone():
    extra = Column("Pressure.", unit="bar", nullable=True, name="pressure_bar", type=pa.float64())
    derived = Pumps.derive("cleaned/big_pumps", doc="Big pumps.", extra=[extra])
    assert (derived.name, derived.description(), derived.key) == ("cleaned/big_pumps", "Big pumps.", Pumps.key)
    assert list(derived.columns) == [*Pumps.columns, "pressure_bar"]
    assert "pressure_bar" not in Pumps.columns


def test_prices_name_their_currency():
    assert "price_gbp_per_mwh" in prices_in("GBP").columns
    assert prices_in("GBP").columns["price_gbp_per_mwh"].unit == "GBP/MWh"
    assert "price_eur_per_mwh" in prices_in("EUR").columns


@pytest.mark.parametrize("site", example_sites())
def test_every_contract_of_every_site_is_whole(site, tmp_path):
    contracts = tables_of(parse_example((EXAMPLES / f"{site}.yaml").read_text(encoding="utf-8"), tmp_path, date(2026, 1, 1)))
    for name, contract in contracts.items():
        assert contract.name == name
        assert contract.description().endswith("."), name
        assert contract.key and set(contract.key) <= set(contract.columns), name
        assert set(contract.partitioned_by) <= set(contract.columns), name
        for c in contract.columns.values():
            assert c.description.endswith((".", "…")), f"{name}.{c.name}"
            assert not (c.name in contract.partitioned_by and c.nullable), f"{name}.{c.name}"
            unit = next((u for ending, u in UNITS if c.name.endswith(ending)), None)
            assert unit is None or c.unit == unit, f"{name}.{c.name} is in {c.unit}, its name says {unit}"


UNITS = [("_kwh", "kWh"), ("_mwh", None), ("_mw", "MW"), ("_pct", "%"), ("_minutes", "min"), ("_kw", "kW"), ("_hours", "h")]
