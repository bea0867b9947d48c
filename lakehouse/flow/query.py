"""One query on the analysts' catalog, read-only."""

from __future__ import annotations

import difflib
import re
from typing import Any

import pyarrow as pa

from lakehouse.errors import GridlakeError, TableNotFoundError
from lakehouse.flow.workspace import storage_options
from lakehouse.site import Site
from lakehouse.storage.lake import Lake
from lakehouse.storage.objects import give_access


class QueryError(GridlakeError):
    """The query itself is wrong."""

    exit_code = 2


def run_query(site: Site, query: str) -> pa.Table:
    """Runs one query on the site's catalog.

    Raises:
        TableNotFoundError: no catalog yet, or a table that it doesn't have; with the nearest names.
        QueryError: the query is wrong; DuckDB's own sentence.
    """
    import duckdb

    if not query.strip(" ;\t\n\r"):
        raise QueryError("Expected an SQL query, found none.", 'For example: gridlake sql "SHOW ALL TABLES"')
    path = site.path("catalog")
    if not path.exists():
        raise TableNotFoundError(
            f"The lake of '{site.name}' is empty: there is no catalog at {path} yet.", "Fill it with: gridlake refresh"
        )
    with duckdb.connect() as engine:
        give_access(engine, Lake(site.lake_uri, storage_options()))
        engine.execute("SET TimeZone = 'UTC'")
        engine.execute(f"ATTACH '{str(path).replace(chr(39), chr(39) * 2)}' AS catalog (READ_ONLY)")
        engine.execute("USE catalog")
        try:
            found: Any = engine.sql(query)
            return found.to_arrow_table() if found is not None else pa.table({})
        except duckdb.CatalogException as error:
            raise _no_such_table(engine, error) from None
        except duckdb.Error as error:
            raise QueryError(f"The query can't be run: {str(error).strip()}", "gridlake tables lists tables and columns.") from None


def _no_such_table(engine: Any, error: Exception) -> GridlakeError:
    known = [
        f"{schema}.{name}"
        for schema, name in engine.execute("SELECT schema_name, view_name FROM duckdb_views() WHERE NOT internal").fetchall()
    ]
    asked = re.search(r"(?:Table|View) with name \"?([\w.]+)\"? does not exist", str(error))
    if not asked:
        return QueryError(f"The query can't be run: {str(error).splitlines()[0]}", "gridlake tables lists tables and columns.")
    name = asked.group(1)
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.4) or [k for k in known if name.split(".")[-1] in k][:3]
    hint = f"Did you mean {' or '.join(close)}? " if close else ""
    return TableNotFoundError(f"There is no table '{name}'.", f"{hint}gridlake tables lists them all.")
