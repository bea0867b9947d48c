"""What a contract is: a class that says everything about one table, once.

From a contract come the Delta schema, the check of every record batch before it is committed, the Dagster table metadata,
the DuckDB comments and the data dictionary. The contracts themselves are in the sibling modules, one module per layer.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, get_type_hints

import pyarrow as pa

from lakehouse.errors import ContractError

if TYPE_CHECKING:
    from pandera.pyarrow import DataFrameSchema

FIRST_FAULTS_SHOWN = 3
ROWS_PER_CHECK = 400_000


class Text(str):
    """UTF-8 text."""


class Instant:
    """A moment in UTC, to the microsecond."""


class Date:
    """A calendar day without a clock."""


class Int16(int):
    """A small whole number."""


class Int32(int):
    """A whole number."""


class Int64(int):
    """A large whole number."""


class Float64(float):
    """A number."""


class Boolean:
    """True or false."""


ARROW_TYPES: dict[type, pa.DataType] = {
    Text: pa.string(),
    Instant: pa.timestamp("us", tz="UTC"),
    Date: pa.date32(),
    Int16: pa.int16(),
    Int32: pa.int32(),
    Int64: pa.int64(),
    Float64: pa.float64(),
    Boolean: pa.bool_(),
}

UNTYPED = pa.null()

SQL_TYPES: dict[pa.DataType, str] = {
    pa.string(): "VARCHAR",
    pa.timestamp("us", tz="UTC"): "TIMESTAMP WITH TIME ZONE",
    pa.date32(): "DATE",
    pa.int16(): "SMALLINT",
    pa.int32(): "INTEGER",
    pa.int64(): "BIGINT",
    pa.float64(): "DOUBLE",
    pa.bool_(): "BOOLEAN",
}


@dataclass(frozen=True)
class Column:
    """One column of a contract.

    Args:
        description: one line for a person.
        unit: unit of measure ("kWh", "MW", "UTC"), or None where a value has none.
        nullable: whether a value may be missing; `description` says what that means.
        isin: the only values allowed.
        ge: smallest value allowed.
        le: largest value allowed.
    """

    description: str
    unit: str | None = None
    nullable: bool = False
    isin: tuple[Any, ...] | None = None
    ge: float | None = None
    le: float | None = None
    name: str = ""
    type: pa.DataType = UNTYPED

    @property
    def sql_type(self) -> str:
        """The column's type in DuckDB."""
        return SQL_TYPES[self.type]


def column(
    description: str,
    *,
    unit: str | None = None,
    nullable: bool = False,
    isin: Iterable[Any] | None = None,
    ge: float | None = None,
    le: float | None = None,
) -> Any:
    """Declares a column in the body of a contract; see `Column` for the arguments."""
    return Column(description, unit, nullable, tuple(isin) if isin is not None else None, ge, le)


class Table:
    """Base of all contracts.

    A subclass states `name` (asset key, Delta folder and SQL name in one, as "layer/table"), `key` (columns that identify a
    row), `partitioned_by` (columns whose values are folders of the Delta table) and its columns as annotated attributes.
    Where numbers seldom repeat (`numbers_repeat` is False), files are written without dictionaries of them.
    The docstring's first line is the table's description.
    """

    name: ClassVar[str] = ""
    key: ClassVar[tuple[str, ...]] = ()
    partitioned_by: ClassVar[tuple[str, ...]] = ()
    numbers_repeat: ClassVar[bool] = True
    columns: ClassVar[dict[str, Column]] = {}

    def __init_subclass__(cls) -> None:
        declared = {
            name: replace(getattr(cls, name), name=name, type=ARROW_TYPES[hint])
            for name, hint in get_type_hints(cls).items()
            if isinstance(getattr(cls, name, None), Column)
        }
        cls.columns = {**cls.columns, **declared}
        for name in declared:
            delattr(cls, name)  # a column called "description" must not hide the method

    @classmethod
    def derive(cls, name: str, *, doc: str | None = None, extra: Iterable[Column] = ()) -> type[Table]:
        """Returns a contract like this one under another name, with further columns.

        Used where one shape serves many tables: a raw table per feed, a feature table per target.
        """
        body = {"name": name, "__doc__": doc or cls.__doc__, "__module__": cls.__module__}
        derived: type[Table] = type(name.replace("/", "_"), (cls,), body)
        derived.columns = {**cls.columns, **{c.name: c for c in extra}}
        return derived

    @classmethod
    def description(cls) -> str:
        """The first line of the docstring."""
        return (cls.__doc__ or "").strip().splitlines()[0] if cls.__doc__ else ""

    @classmethod
    def layer(cls) -> str:
        """The layer, which is also the SQL schema and the Dagster group."""
        return cls.name.split("/", 1)[0]

    @classmethod
    def arrow_schema(cls) -> pa.Schema:
        """Arrow schema, with description and unit as field metadata."""
        return pa.schema([pa.field(c.name, c.type, c.nullable, _field_metadata(c)) for c in cls.columns.values()])

    @classmethod
    def empty(cls) -> pa.Table:
        """A table of this contract without rows."""
        return cls.arrow_schema().empty_table()

    @classmethod
    def from_rows(cls, rows: list[dict[str, Any]]) -> pa.Table:
        """Rows as an Arrow table in the contract's columns and types; a key that a row lacks is missing.

        Nothing is checked yet: what is required is enforced in the stream, with the column's name.
        """
        return pa.Table.from_pylist(rows, schema=_nullable(cls.arrow_schema()))

    @classmethod
    def pandera_schema(cls) -> DataFrameSchema:
        """The contract as a pandera schema."""
        from pandera import pyarrow as pandera

        return pandera.DataFrameSchema(
            {c.name: pandera.Column(c.type, checks=_pandera_checks(c), nullable=c.nullable) for c in cls.columns.values()}
        )

    @classmethod
    def conform(cls, table: pa.Table) -> pa.Table:
        """Orders and casts columns to the contract.

        Raises:
            ContractError: a column is missing, unknown, or can't be cast without loss.
        """
        missing = [c for c in cls.columns if c not in table.column_names]
        unknown = [c for c in table.column_names if c not in cls.columns]
        if missing or unknown:
            raise ContractError(
                f"{cls.name}: expected the columns of its contract, found "
                + " and ".join(p for p in (f"none of {missing}" if missing else "", f"the unknown {unknown}" if unknown else "") if p)
                + ".",
                f"Mend what writes {cls.name}, or its contract in lakehouse/contracts/{cls.layer()}.py.",
            )
        try:
            return table.select(list(cls.columns)).cast(_nullable(cls.arrow_schema()))
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise ContractError(f"{cls.name}: a column can't be cast to its contract's type: {error}.") from error

    @classmethod
    def validated(cls, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Passes record batches through the contract; small ones are joined first, since every check has a fixed cost.

        Raises:
            ContractError: names the columns, the rules and the first values that break them. The writer that reads this
                stream aborts, and nothing is committed.
        """
        schema = cls.pandera_schema()
        for table in _joined(batches):
            conformed = cls.conform(table)
            cls._enforce(schema, conformed)
            yield from conformed.to_batches()

    @classmethod
    def _enforce(cls, schema: DataFrameSchema, table: pa.Table) -> None:
        from pandera.errors import SchemaErrors

        try:
            schema.validate(table, lazy=True)
        except SchemaErrors as errors:
            faults: dict[str, list[str]] = {}
            for case in errors.failure_cases.to_pylist():
                faults.setdefault(f"{case['column']} must be {_rule_in_words(case['check'])}", []).append(str(case["failure_case"]))
            told = "; ".join(
                f"{rule}, found {', '.join(values[:FIRST_FAULTS_SHOWN])} ({len(values)} rows)" for rule, values in faults.items()
            )
            raise ContractError(
                f"{cls.name}: {told}. Nothing was committed.",
                "Mend the step that makes these rows; if the rows are right, widen the contract.",
            ) from None


def _joined(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.Table]:
    waiting: list[pa.RecordBatch] = []
    rows = 0
    for batch in batches:
        waiting.append(batch)
        rows += batch.num_rows
        if rows >= ROWS_PER_CHECK:
            yield pa.Table.from_batches(waiting)
            waiting, rows = [], 0
    if waiting:
        yield pa.Table.from_batches(waiting)


def _nullable(schema: pa.Schema) -> pa.Schema:
    # Nulls in required columns are told by the validation, with their column; a cast would only say that it failed.
    return pa.schema([f.with_nullable(True) for f in schema])


def _field_metadata(c: Column) -> dict[str, str]:
    return {"description": c.description} | ({"unit": c.unit} if c.unit else {})


def _pandera_checks(c: Column) -> list[Any]:
    from pandera.pyarrow import Check

    checks = []
    if c.isin is not None:
        checks.append(Check.isin(list(c.isin)))
    if c.ge is not None:
        checks.append(Check.ge(c.ge))
    if c.le is not None:
        checks.append(Check.le(c.le))
    return checks


def _rule_in_words(check: str) -> str:
    for prefix, words in (
        ("not_nullable", "present"),
        ("greater_than_or_equal_to", "at least "),
        ("less_than_or_equal_to", "at most "),
        ("isin", "one of "),
    ):
        if check.startswith(prefix):
            return words + check[len(prefix) :].strip("()")
    return check
