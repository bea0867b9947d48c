"""What every step of the flow needs: the site, its lake, its landing zone, and the contracts of its tables."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lakehouse.contracts.base import Table
from lakehouse.errors import TableNotFoundError
from lakehouse.site import Site, load_site
from lakehouse.storage.catalog import publish_catalog
from lakehouse.storage.engine import connect, open_engine, register
from lakehouse.storage.lake import Commit, Lake, LakeTable, Lineage
from lakehouse.storage.landing import Landing
from lakehouse.storage.objects import give_access

if TYPE_CHECKING:
    import duckdb

STORAGE_OPTION_PREFIX = "GRIDLAKE_STORAGE_"


@dataclass
class Workspace:
    """A site at work.

    Args:
        site: the site as its file describes it.
        run_id: goes into every commit.
        storage_options: credentials and endpoint for a lake on an object store.
        remembered: what was read of the lake, with the version that it is of, so that it is not read twice.
    """

    site: Site
    run_id: str = ""
    storage_options: dict[str, str] = field(default_factory=dict)
    remembered: dict[str, tuple[int, Any]] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def open(cls, home: Path | str | None = None) -> Workspace:
        """The workspace of a folder; object store options come from environment variables GRIDLAKE_STORAGE_<OPTION>."""
        return cls(load_site(home), storage_options=storage_options())

    @cached_property
    def lake(self) -> Lake:
        """The site's Delta tables."""
        return Lake(self.site.lake_uri, self.storage_options or None)

    @cached_property
    def landing(self) -> Landing:
        """The site's landing zone."""
        return Landing(self.site.path("landing"))

    @cached_property
    def contracts(self) -> dict[str, type[Table]]:
        """All tables of this site by name ("layer/table"), in the order of the flow."""
        from lakehouse.flow.tables import tables_of

        return tables_of(self.site)

    def contract(self, name: str) -> type[Table]:
        """The contract of a table of this site.

        Raises:
            TableNotFoundError: this site has no such table.
        """
        if name not in self.contracts:
            raise TableNotFoundError(f"The site '{self.site.name}' has no table {name}.", "gridlake tables lists the tables it has.")
        return self.contracts[name]

    def table(self, name: str) -> LakeTable:
        """A table of this site, by name."""
        return self.lake.table(self.contract(name))

    def has(self, name: str) -> bool:
        """Whether this site has such a table at all."""
        return name in self.contracts

    def replace(
        self, name: str, rows: Any, *, where: Mapping[str, Any] | None = None, inputs: Iterable[str] = (), allow_empty: bool = True
    ) -> Commit:
        """Replaces partitions of a table; the commit names this run and the versions of its inputs.

        `rows` is an Arrow table, a DuckDB relation with the contract's columns, or a function that opens the batches.
        """
        from lakehouse.flow import CODE_VERSION

        lineage = Lineage(self.run_id, CODE_VERSION, {i: self.table(i).version() for i in inputs})
        opened = _batches_of(rows) if hasattr(rows, "to_arrow_reader") else rows
        return self.table(name).replace(opened, where=where, lineage=lineage, allow_empty=allow_empty)

    @contextmanager
    def engine(self, *names: str, days: tuple[date, date] | None = None) -> Iterator[duckdb.DuckDBPyConnection]:
        """A DuckDB connection in which the named tables are views (`layer.table`), cut to a span of their `date` partitions."""
        with open_engine() as engine:
            give_access(engine, self.lake)
            for name in names:
                table = self.table(name)
                only = {"date": days} if days and "date" in table.contract.partitioned_by else None
                register(engine, table, only=only)
            yield engine

    def notebook(self, versions: Mapping[str, int] | None = None) -> duckdb.DuckDBPyConnection:
        """All tables of the site in DuckDB, at their newest or at older versions."""
        return connect(self.lake, self.contracts.values(), versions)

    def publish(self) -> Path:
        """Publishes the analysts' catalog; see `lakehouse.storage.catalog`."""
        return publish_catalog(self.lake, self.contracts.values(), self.site.path("catalog"))


def storage_options() -> dict[str, str]:
    """Options of the object store, from environment variables GRIDLAKE_STORAGE_<OPTION>; see `Workspace.open`."""
    return {k.removeprefix(STORAGE_OPTION_PREFIX): v for k, v in os.environ.items() if k.startswith(STORAGE_OPTION_PREFIX)}


def _batches_of(relation: Any) -> Any:
    return lambda: relation.to_arrow_reader(100_000)
