"""DuckDB connections: over the lake's tables at one moment (`connect`), or bare with sensible limits (`open_engine`)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from lakehouse.contracts.base import Column, Table
from lakehouse.storage.objects import give_access

if TYPE_CHECKING:
    import duckdb

    from lakehouse.storage.lake import DataFile, Lake, LakeTable, Snapshot

MEMORY_LIMIT = "2GB"
MEMORY_VARIABLE = "GRIDLAKE_DUCKDB_MEMORY"
"""Sets the limit for a process that has less or more room, such as a container."""


def open_engine(memory_limit: str = "") -> duckdb.DuckDBPyConnection:
    """An in-memory DuckDB in UTC with a bounded memory; it spills to the system's temporary folder."""
    import os
    import tempfile

    import duckdb

    memory_limit = memory_limit or os.environ.get(MEMORY_VARIABLE) or MEMORY_LIMIT

    engine = duckdb.connect()
    engine.execute("SET TimeZone = 'UTC'")
    engine.execute(f"SET memory_limit = '{memory_limit}'")
    engine.execute("SET temp_directory = ?", [tempfile.gettempdir()])
    engine.execute("SET enable_progress_bar = false")
    return engine


def connect(lake: Lake, contracts: Iterable[type[Table]], versions: Mapping[str, int] | None = None) -> duckdb.DuckDBPyConnection:
    """The lake's tables in DuckDB, as `layer.table`, each at its newest or at an older version.

    Args:
        lake: the lake.
        contracts: the tables wanted.
        versions: table name ("layer/table") → Delta version; the newest where not told.

    Raises:
        TableNotFoundError: a version is not there.
    """
    engine = open_engine()
    for contract in contracts:
        register(engine, lake.table(contract), version=(versions or {}).get(contract.name))
    return engine


def register(
    engine: duckdb.DuckDBPyConnection,
    table: LakeTable,
    *,
    version: int | None = None,
    only: Mapping[str, tuple[Any, Any]] | None = None,
) -> str:
    """Makes a table a view of the connection, in the schema of its layer, and returns its SQL name.

    `only` keeps the files whose partition column lies between two values, both included: the others are never opened.
    """
    give_access(engine, table.lake)
    snapshot = table.snapshot(version).where(lambda f: all(_lies_in(f.partition.get(c), span) for c, span in (only or {}).items()))
    layer, name = table.contract.name.split("/", 1)
    engine.execute(f'CREATE SCHEMA IF NOT EXISTS "{layer}"')
    engine.execute(f'CREATE OR REPLACE VIEW "{layer}"."{name}" AS {select_files(table.contract, snapshot)}')
    return f'"{layer}"."{name}"'


def select_files(contract: type[Table], snapshot: Snapshot) -> str:
    """The query that reads a snapshot's files as the contract's columns; typed and empty where there are no files."""
    columns = list(contract.columns.values())
    if not snapshot.files:
        return "SELECT " + ", ".join(f'CAST(NULL AS {c.sql_type}) AS "{c.name}"' for c in columns) + " WHERE false"
    selected = ", ".join(f'CAST({_name_or_null(c, snapshot)} AS {c.sql_type}) AS "{c.name}"' for c in columns)
    paths = ", ".join(_quoted(_literal_path(f.path)) for f in snapshot.files)
    types = ", ".join(f"'{p}': {contract.columns[p].sql_type}" for p in contract.partitioned_by)
    hive = f"hive_partitioning = true, hive_types = {{{types}}}" if types else "hive_partitioning = false"
    stored = [c for c in columns if c.name not in contract.partitioned_by]
    by_name = "true" if any(_some_files_lack(c.name, snapshot.files) for c in stored) else "false"
    source = f"read_parquet([{paths}], {hive}, union_by_name = {by_name})"
    # A column that came to the table later may be in none of these files: nothing to read it from, unless there is an empty row of it.
    maybe = [c for c in stored if c.name in snapshot.columns and _all_files_lack(c.name, snapshot.files)]
    if maybe:
        empty = ", ".join(f'CAST(NULL AS {c.sql_type}) AS "{c.name}"' for c in maybe)
        source = f"(FROM {source} UNION ALL BY NAME SELECT {empty} WHERE false)"
    return f"SELECT {selected} FROM {source}"


def _name_or_null(c: Column, snapshot: Snapshot) -> str:
    return f'"{c.name}"' if c.name in snapshot.columns else "NULL"


def _some_files_lack(name: str, files: list[DataFile]) -> bool:
    # A file that has the column has its null count; one written by others may have none, and reading by name is then safe too.
    return any(f.statistics.get(f"null_count.{name}") is None for f in files if f.rows)


def _all_files_lack(name: str, files: list[DataFile]) -> bool:
    return all(f.statistics.get(f"null_count.{name}") is None for f in files if f.rows)


def _lies_in(value: Any, span: tuple[Any, Any]) -> bool:
    return value is not None and span[0] <= value <= span[1]


def _literal_path(path: str) -> str:
    # read_parquet takes patterns: a folder called "a[1]" must be no pattern.
    return "".join(f"[{c}]" if c in "[*?" else c for c in path)


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
