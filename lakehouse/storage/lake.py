"""Delta tables behind one explicit interface: scan, replace a partition, append, version, history.

Writes stream through the table's contract into Delta, so a batch that breaks the contract aborts the write with nothing
committed. A partition is replaced atomically; the loser of a race for the same partition tries again.
"""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, TypeAlias
from urllib.parse import urlsplit

import pyarrow as pa

from lakehouse.contracts.base import Table
from lakehouse.errors import ConflictError, ContractError, SiteError, TableNotFoundError

ATTEMPTS = 8
BATCH_ROWS = 131_072

STATISTICS_OF_ALL_COLUMNS = {"delta.dataSkippingNumIndexedCols": "-1"}
"""Delta keeps statistics of 32 columns unless told otherwise; readers tell by them which files lack a column."""

CHECKPOINTS_OF_AN_OBJECT_STORE = {"delta.checkpointInterval": "10"}
"""Who opens a table fetches each commit since the last checkpoint: on a disk a hundred are read at once, in a store each is a request."""

Moment: TypeAlias = tuple[int, int]
"""A table's newest version and, on a local disk, when its log entry was written: a table made anew begins with old numbers."""

Rows: TypeAlias = pa.Table | Callable[[], Iterable[pa.RecordBatch]]

HOUSEKEEPING = ("OPTIMIZE", "VACUUM START", "VACUUM END", "FSCK")
"""Operations of Delta's history that change no row."""
RECENT = 20


@dataclass(frozen=True)
class Commit:
    """What one write left behind."""

    table: str
    version: int
    rows: int
    bytes: int
    first: Any = None
    last: Any = None


@dataclass(frozen=True)
class Lineage:
    """What goes into a commit's metadata: who wrote it, with which code, from which versions."""

    run_id: str = ""
    code_version: str = ""
    inputs: Mapping[str, int] = field(default_factory=dict)

    def as_metadata(self) -> dict[str, str]:
        """As strings, under Gridlake's own keys."""
        import json

        return {
            "gridlake.run_id": self.run_id,
            "gridlake.code_version": self.code_version,
            "gridlake.inputs": json.dumps(dict(sorted(self.inputs.items()))),
        }


class Lake:
    """All Delta tables below one root.

    Args:
        root: local folder or URI of an object store.
        storage_options: credentials and endpoint of the object store, as delta-rs names them.
    """

    def __init__(self, root: str | Path, storage_options: dict[str, str] | None = None) -> None:
        if "@" in urlsplit(str(root)).netloc:
            raise SiteError(
                "paths.lake: expected a URI without credentials, found some before an '@'.",
                "Take them out of gridlake.yaml and give them in the environment: docs/operations.md tells the names.",
            )
        self.root = str(root).rstrip("/") if "://" in str(root) else str(Path(root).absolute())
        self.storage_options = storage_options
        self.snapshots: dict[str, tuple[Moment, Snapshot]] = {}
        self.opened: dict[str, Any] = {}
        """Tables of an object store as they were last seen: to see them anew only later commits are fetched."""
        self.lock = threading.RLock()

    def table(self, contract: type[Table]) -> LakeTable:
        """The table of a contract, whether it exists yet or not."""
        return LakeTable(self, contract)

    @property
    def is_local(self) -> bool:
        """Whether the lake lies on a local disk."""
        return "://" not in self.root


class LakeTable:
    """One Delta table and its contract."""

    def __init__(self, lake: Lake, contract: type[Table]) -> None:
        self.lake = lake
        self.contract = contract
        self.uri = f"{lake.root}/{contract.name}"

    # -- reading

    def exists(self) -> bool:
        """Whether anything was ever committed."""
        if self.lake.is_local:  # any entry tells: a log of thousands is not listed for that
            try:
                with os.scandir(f"{self.uri}/_delta_log") as entries:
                    return any(e.name[0].isdigit() and e.name.endswith((".json", ".parquet")) for e in entries)
            except OSError:
                return False
        from deltalake import DeltaTable

        return self.uri in self.lake.opened or DeltaTable.is_deltatable(self.uri, storage_options=self.lake.storage_options)

    def delta(self, version: int | None = None) -> Any:
        """The `deltalake.DeltaTable`, at the newest or an older version.

        Raises:
            TableNotFoundError: nothing was committed yet, or not this version.
        """
        from deltalake import DeltaTable
        from deltalake.exceptions import DeltaError
        from deltalake.exceptions import TableNotFoundError as NoSuchTable

        try:
            return DeltaTable(self.uri, version=version, storage_options=self.lake.storage_options)
        except NoSuchTable:
            raise TableNotFoundError(
                f"Expected the table {self.contract.name}, found nothing at {self.uri}.",
                f"Make it with: gridlake refresh --until {self.contract.layer()}",
            ) from None
        except DeltaError as error:
            if version is None:
                raise
            raise TableNotFoundError(
                f"{self.contract.name} has no readable version {version}: {error}.",
                "gridlake doctor tells which versions there are; old ones are removed after the retention.",
            ) from None

    def version(self) -> int:
        """The newest version; -1 before the first commit."""
        return self._newest()[0]

    def _newest(self) -> Moment:
        if self.lake.is_local:  # the log's folder tells without opening the table
            try:
                entries = [
                    (int(e.name[:-5]), e) for e in os.scandir(f"{self.uri}/_delta_log") if e.name.endswith(".json") and e.name[0].isdigit()
                ]
                if entries:
                    version, entry = max(entries, key=lambda one: one[0])
                    return version, entry.stat().st_mtime_ns
            except (OSError, ValueError):
                pass
            return (self.delta().version(), 0) if self.exists() else (-1, 0)
        with self.lake.lock:
            newest = self._followed()
            return (-1, 0) if newest is None else (newest.version(), 0)

    def _followed(self) -> Any | None:
        """The newest version in an object store, None before the first commit; a table that was opened before is brought up to it."""
        opened = self.lake.opened.get(self.uri)
        if opened is not None:
            opened.update_incremental()
            return opened
        try:
            return self.lake.opened.setdefault(self.uri, self.delta())
        except TableNotFoundError:
            return None

    def files(self, version: int | None = None) -> list[DataFile]:
        """The files of a snapshot; empty before the first commit."""
        return self.snapshot(version).files

    def snapshot(self, version: int | None = None) -> Snapshot:
        """The files of the newest or an older version, and the columns that it has; nothing before the first commit."""
        if version is not None:
            return self._snapshot(self.delta(version))
        with self.lake.lock:
            newest = self._newest()
            if newest[0] < 0:
                return Snapshot([], frozenset())
            known = self.lake.snapshots.get(self.uri)
            if known is None or known[0] != newest:
                delta = self.lake.opened.get(self.uri) or self.delta(newest[0])
                known = self.lake.snapshots[self.uri] = (newest, self._snapshot(delta, known and known[1]))
            return known[1]

    def _snapshot(self, delta: Any, before: Snapshot | None = None) -> Snapshot:
        # A file is never written again under its name: what is known of it stays, and a commit costs what it added and not what there is.
        known = {f.path: f for f in before.files} if before else {}
        actions = pa.table(delta.get_add_actions(flatten=True))
        paths = [f"{self.uri}/{path}" for path in actions.column("path").to_pylist()]
        news = [n for n, path in enumerate(paths) if path not in known]
        for n, a in zip(news, actions.take(pa.array(news, pa.int64())).to_pylist(), strict=True):
            known[paths[n]] = DataFile(
                path=paths[n],
                partition={k: a[f"partition.{k}"] for k in self.contract.partitioned_by if f"partition.{k}" in a},
                rows=a["num_records"] or 0,
                bytes=a["size_bytes"],
                written_at=_instant(a["modification_time"]),
                statistics={k: v for k, v in a.items() if k.startswith(("min.", "max.", "null_count."))},
            )
        return Snapshot([known[path] for path in paths], frozenset(f.name for f in delta.schema().fields))

    def partitions_written(self, column: str = "date", *, only: Mapping[str, Any] | None = None) -> dict[Any, datetime]:
        """When each partition of a column was last written, UTC; `only` restricts other partition columns."""
        newest: dict[Any, datetime] = {}
        for one in self.files():
            if only and any(one.partition.get(k) != v for k, v in only.items()):
                continue
            value = one.partition[column]
            newest[value] = max(newest.get(value, one.written_at), one.written_at)
        return newest

    def read(self, where: str = "", version: int | None = None) -> pa.Table:
        """Rows as an Arrow table, by an SQL condition; the contract's empty table before the first commit."""
        from lakehouse.storage.engine import open_engine, register

        with open_engine() as engine:
            register(engine, self, version=version)
            condition = f" WHERE {where}" if where else ""
            return engine.sql(
                f'SELECT * FROM "{self.contract.layer()}"."{self.contract.name.split("/", 1)[1]}"{condition}'
            ).to_arrow_table()

    def history(self, limit: int | None = None) -> list[dict[str, Any]]:
        """Commits, newest first."""
        return list(self.delta().history(limit)) if self.exists() else []

    def last_written(self) -> datetime | None:
        """When rows were last committed, UTC; None before the first commit. Housekeeping is no writing."""
        for limit in (RECENT, None):
            known = self.history(limit)
            for commit in known:
                if commit["operation"] not in HOUSEKEEPING:
                    return datetime.fromtimestamp(commit["timestamp"] / 1000, UTC)
            if len(known) < RECENT:
                break
        # the log's retention has taken the commit: its files still tell
        return max((f.written_at for f in self.files()), default=None)

    # -- writing

    def replace(
        self,
        rows: Rows,
        *,
        where: Mapping[str, Any] | None = None,
        lineage: Lineage | None = None,
        allow_empty: bool = False,
    ) -> Commit:
        """Replaces partitions (or, without `where`, the whole table) by rows, in one atomic commit.

        Args:
            rows: an Arrow table, or a function that opens the stream of record batches anew (for a second try).
            where: partition column → value, or (first, last) both included, or list of values.
            lineage: goes into the commit's metadata.
            allow_empty: whether no rows at all may delete the partitions.

        Raises:
            ContractError: a row breaks the contract or lies outside `where`, or there are no rows; nothing was committed.
            ConflictError: other writers won the same partition again and again.
        """
        return self._write(rows, "overwrite", where, lineage, allow_empty)

    def append(self, rows: Rows, *, lineage: Lineage | None = None) -> Commit:
        """Adds rows; see `replace` for the arguments and errors."""
        return self._write(rows, "append", None, lineage, allow_empty=True)

    def _write(self, rows: Rows, mode: Any, where: Mapping[str, Any] | None, lineage: Lineage | None, allow_empty: bool) -> Commit:
        from deltalake import CommitProperties, write_deltalake
        from deltalake.exceptions import CommitFailedError, DeltaError

        predicate = _predicate(where, self.contract) if where else None
        configuration = STATISTICS_OF_ALL_COLUMNS | ({} if self.lake.is_local else CHECKPOINTS_OF_AN_OBJECT_STORE)
        properties = CommitProperties(custom_metadata=(lineage or Lineage()).as_metadata())
        for attempt in range(ATTEMPTS):
            counter = _Counter(self.contract, rows, allow_empty)
            reader = pa.RecordBatchReader.from_batches(self._nullable_schema(), counter)
            fresh = not self.exists()
            try:
                write_deltalake(
                    self.uri,
                    reader,
                    partition_by=list(self.contract.partitioned_by) or None,
                    mode=mode,
                    predicate=None if fresh else predicate,
                    schema_mode=None if fresh else "merge",
                    name=self.contract.name if fresh else None,
                    description=self.contract.description() if fresh else None,
                    configuration=configuration if fresh else None,
                    storage_options=self.lake.storage_options,
                    commit_properties=properties,
                    writer_properties=_encoding(self.contract),
                )
            except CommitFailedError as error:
                if attempt + 1 == ATTEMPTS:
                    contested = f"the partitions {predicate}" if predicate else "the table"
                    raise ConflictError(
                        f"{self.contract.name}: other writers won {contested} {ATTEMPTS} times.",
                        "Wait for the other run to end, then run this one again.",
                    ) from error
                time.sleep(random.uniform(0.05, 0.2) * 2**attempt)
                continue
            except (DeltaError, OSError, ValueError, pa.ArrowException) as error:
                if counter.error is not None:
                    raise counter.error from None
                if fresh and attempt + 1 < ATTEMPTS and "already exists" in str(error):
                    time.sleep(random.uniform(0.01, 0.1))
                    continue
                if "failed validation check" in str(error):
                    raise ContractError(
                        f"{self.contract.name}: rows lie outside the partitions to be replaced ({predicate}): {error}"
                    ) from None
                raise
            return self._committed(counter, where)
        raise AssertionError("unreachable")

    def _nullable_schema(self) -> pa.Schema:
        # Delta keeps columns nullable, so that a later contract may loosen one; the contract itself is enforced in the stream.
        return pa.schema([f.with_nullable(True).remove_metadata() for f in self.contract.arrow_schema()])

    def _committed(self, counter: _Counter, where: Mapping[str, Any] | None) -> Commit:
        size = sum(f.bytes for f in self.files() if all(_within(f.partition[k], v) for k, v in (where or {}).items()))
        return Commit(self.contract.name, self.version(), counter.rows, size, counter.first, counter.last)

    # -- keeping house

    def compact(self) -> dict[str, Any]:
        """Joins small files within their partitions; readers of older versions are not disturbed."""
        return self.delta().optimize.compact()

    def checkpoint(self) -> None:
        """Writes a checkpoint of the log, and removes log entries that are older than the log's retention."""
        delta = self.delta()
        delta.create_checkpoint()
        delta.cleanup_metadata()

    def vacuum(self, retention_hours: float, *, full: bool = False, dry_run: bool = False) -> list[str]:
        """Removes files that no version younger than the retention uses.

        Args:
            retention_hours: how long old snapshots stay readable.
            full: also removes orphan files of killed writers; the retention must be longer than any running write.
            dry_run: only tells.

        Returns:
            Paths of the files, relative to the table.
        """
        return self.delta().vacuum(retention_hours=int(retention_hours), dry_run=dry_run, enforce_retention_duration=False, full=full)


@dataclass(frozen=True)
class DataFile:
    """One Parquet file of a snapshot."""

    path: str
    partition: dict[str, Any]
    rows: int
    bytes: int
    written_at: datetime
    statistics: dict[str, Any]


@dataclass(frozen=True)
class Snapshot:
    """What a version of a table consists of: its files, and the columns that at least one of them may have."""

    files: list[DataFile]
    columns: frozenset[str]

    def where(self, keep: Callable[[DataFile], bool]) -> Snapshot:
        """The same with some of its files only."""
        return Snapshot([f for f in self.files if keep(f)], self.columns)


class _Counter:
    """Passes batches through the contract, and remembers how many rows went by, their time span, and what broke."""

    def __init__(self, contract: type[Table], rows: Rows, allow_empty: bool) -> None:
        self.contract, self.source, self.allow_empty = contract, rows, allow_empty
        self.rows = self.bytes = 0
        self.first: Any = None
        self.last: Any = None
        self.error: Exception | None = None
        self.time_column = next((c for c in ("interval_start", "valid_at", "issued_at") if c in contract.columns), None)

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        import pyarrow.compute as pc

        batches = self.source.to_batches(BATCH_ROWS) if isinstance(self.source, pa.Table) else self.source()
        try:
            for batch in self.contract.validated(batches):
                self.rows += batch.num_rows
                self.bytes += batch.nbytes
                if self.time_column and batch.num_rows:
                    span = pc.min_max(batch.column(self.time_column)).as_py()
                    if span["min"] is not None:
                        self.first = min(self.first or span["min"], span["min"])
                        self.last = max(self.last or span["max"], span["max"])
                yield batch
            if not self.rows and not self.allow_empty:
                raise ContractError(
                    f"{self.contract.name}: expected rows, found none; an empty replacement would delete the partition.",
                    "Nothing was committed. If that is meant, the writer must allow it (allow_empty).",
                )
        except Exception as error:
            self.error = error
            raise


def _encoding(contract: type[Table]) -> Any:
    """How a table's files are written; None for Delta's own way: dictionaries and Snappy.

    Features without them take three quarters of the processor's time and of the size; meter readings a tenth less time and a
    fifth more size (benchmarks/lake_encoding.py).
    """
    if contract.numbers_repeat:
        return None
    from deltalake import ColumnProperties, WriterProperties

    plain = ColumnProperties(dictionary_enabled=False)
    floats = {name: plain for name, one in contract.columns.items() if pa.types.is_floating(one.type)}
    return WriterProperties(compression="ZSTD", compression_level=1, column_properties=floats)


def _predicate(where: Mapping[str, Any], contract: type[Table]) -> str:
    parts = []
    for name, value in where.items():
        if name not in contract.partitioned_by:
            raise ContractError(f"{contract.name} is not partitioned by '{name}'; it is by {contract.partitioned_by}.")
        if isinstance(value, tuple):
            first, last = value
            parts.append(f"{name} = {_literal(first)}" if first == last else f"{name} >= {_literal(first)} AND {name} <= {_literal(last)}")
        elif isinstance(value, list | set | frozenset):
            parts.append(f"{name} IN ({', '.join(_literal(v) for v in sorted(value))})")
        else:
            parts.append(f"{name} = {_literal(value)}")
    return " AND ".join(parts)


def _within(value: Any, wanted: Any) -> bool:
    if isinstance(wanted, tuple):
        return wanted[0] <= value <= wanted[1]
    return value in wanted if isinstance(wanted, list | set | frozenset) else value == wanted


def _literal(value: Any) -> str:
    if isinstance(value, date):
        return f"'{value.isoformat()}'"
    if isinstance(value, int | float):
        return str(value)
    return "'" + str(value).replace("'", "''") + "'"


def _instant(milliseconds: Any) -> datetime:
    return datetime.fromtimestamp(milliseconds / 1000, UTC) if isinstance(milliseconds, int | float) else milliseconds.astimezone(UTC)


def days_between(first: date, last: date) -> list[date]:
    """All days from the first to the last, both included."""
    from datetime import timedelta

    return [first + timedelta(days=n) for n in range((last - first).days + 1)]
