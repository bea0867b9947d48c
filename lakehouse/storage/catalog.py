"""The analysts' catalog: one DuckDB file of documented views, one per table, over the files of its current snapshot.

It is written aside and moved into place after commits. Nobody opens it for writing, so an analyst never stops the pipeline,
nor the pipeline an analyst.
"""

from __future__ import annotations

import fcntl
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from lakehouse.contracts.base import Table
from lakehouse.storage.engine import select_files
from lakehouse.storage.lake import Lake
from lakehouse.storage.objects import give_access

READABLE_SINCE = "v1.2.0"


def publish_catalog(lake: Lake, contracts: Iterable[type[Table]], path: Path) -> Path:
    """Publishes views over the newest snapshot of every table; safe to call from many processes at once.

    Args:
        lake: the lake.
        contracts: the tables to publish; one that has no commit yet becomes an empty typed view.
        path: the catalog file; it is replaced as a whole.
    """
    import duckdb

    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    # The lock is held from looking at the snapshots to the move: a slow publisher can't put an older moment in place.
    with _lock(path.with_name(f".{path.name}.lock")):
        try:
            with duckdb.connect() as engine:
                give_access(engine, lake)
                engine.execute(f"ATTACH {_text(str(aside))} AS catalog (STORAGE_VERSION '{READABLE_SINCE}')")
                engine.execute("USE catalog")
                engine.execute("SET TimeZone = 'UTC'")
                engine.execute("BEGIN")  # one commit for all: thousands of comments would each be one
                for contract in contracts:
                    _publish(engine, lake, contract)
                engine.execute("COMMIT")
                engine.execute("USE memory")
                engine.execute("DETACH catalog")
            aside.replace(path)
        finally:
            aside.unlink(missing_ok=True)
            aside.with_name(aside.name + ".wal").unlink(missing_ok=True)
    return path


def _publish(engine: object, lake: Lake, contract: type[Table]) -> None:
    layer, name = contract.name.split("/", 1)
    run = engine.execute  # type: ignore[attr-defined]
    run(f'CREATE SCHEMA IF NOT EXISTS "{layer}"')
    run(f'CREATE VIEW "{layer}"."{name}" AS {select_files(contract, lake.table(contract).snapshot())}')
    run(f'COMMENT ON VIEW "{layer}"."{name}" IS {_text(contract.description())}')
    for c in contract.columns.values():
        comment = f"{c.description} [{c.unit}]" if c.unit else c.description
        run(f'COMMENT ON COLUMN "{layer}"."{name}"."{c.name}" IS {_text(comment)}')


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    with path.open("w") as opened:
        fcntl.flock(opened, fcntl.LOCK_EX)
        yield


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"
