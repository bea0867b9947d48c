"""Dagster's event log on one machine: its own one-file SQLite storage, with the connection and the transaction kept open.

Recording a range of days writes two events per day and table. The storage that Dagster ships makes an SQLAlchemy engine anew for
every statement and commits every event; this one keeps the engine, and commits a batch of events at once.
"""

import os
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from dagster._core.storage.event_log.sqlite.consolidated_sqlite_event_log import ConsolidatedSqliteEventLogStorage
from sqlalchemy import Connection, Engine, create_engine
from sqlalchemy import event as engine_events

BUSY_TIMEOUT_S = 60
BATCH_VARIABLE = "DAGSTER_EVENT_BATCH_SIZE"
"""Dagster's own switch for handing over events in batches; the command line sets it."""


class OneFileEventLog(ConsolidatedSqliteEventLogStorage):
    """The event log of a laptop: `base_dir` is the folder of its file."""

    def __init__(self, base_dir: str, inst_data: Any = None) -> None:
        # Dagster warns at every step that logging by its settings is new; whoever wrote the settings knows.
        warnings.filterwarnings("ignore", message="Handling yaml-defined logging configuration")
        self._own = threading.local()
        super().__init__(base_dir, inst_data)

    @contextmanager
    def _connect(self) -> Iterator[Connection]:
        open_already = getattr(self._own, "connection", None)
        if open_already is not None:
            yield open_already  # inside a batch: one transaction for all of it
            return
        with self._engine().connect() as connection, connection.begin():
            yield connection

    def store_event_batch(self, events: Sequence[Any]) -> None:
        """Stores events in one transaction: all of them or none."""
        with self._connect() as connection:
            self._own.connection = connection
            try:
                for event in events:
                    self.store_event(event)
            finally:
                self._own.connection = None

    def _engine(self) -> Engine:
        # One per thread and process: SQLite connections must not wander between them.
        if getattr(self._own, "process", None) != os.getpid():
            self._own.process = os.getpid()
            self._own.engine = create_engine(self._conn_string, connect_args={"timeout": BUSY_TIMEOUT_S})
            engine_events.listen(self._own.engine, "connect", _write_ahead)
        return self._own.engine


def _write_ahead(connection: Any, _: Any) -> None:
    """With a write-ahead log (which Dagster's storage sets) a commit need not wait for the disk: a killed process loses nothing."""
    connection.execute("PRAGMA synchronous = NORMAL")
