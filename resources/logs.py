"""Structured logs: what happens in runs, a line of JSON each, with the ids of run, step and partitions.

Which handlers write them, and where, stands in Dagster's settings (`python_logs` in dagster.yaml).
"""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime
from typing import Any

TAGS = {
    "partition": "dagster/partition",
    "first_partition": "dagster/asset_partition_range_start",
    "last_partition": "dagster/asset_partition_range_end",
    "work": "gridlake/work",
    "for_run": "gridlake/for_run",
    "backfill": "dagster/backfill",
}
"""Field of a line → tag of the run that it is taken from; a field that a run does not have is left out."""


class JsonLines(logging.Formatter):
    """A record as one line of JSON: time (UTC), level, logger, run_id, job, step, partitions, message, error."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        told = getattr(record, "dagster_meta", None) or {}
        tags = told.get("job_tags") or {}
        event = told.get("dagster_event")
        fields: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "run_id": told.get("run_id"),
            "job": told.get("job_name"),
            "step": told.get("step_key"),
            **{field: tags.get(tag) for field, tag in TAGS.items()},
            "event": event.event_type_value if event else None,
            "message": told.get("orig_message") or record.getMessage(),
            "error": _error_of(record, event),
        }
        return json.dumps({name: value for name, value in fields.items() if value is not None}, ensure_ascii=False, default=str)


def _error_of(record: logging.LogRecord, event: Any) -> str | None:
    if event is not None and event.is_step_failure:
        failure = event.step_failure_data
        if failure.user_failure_data and failure.user_failure_data.description:
            return str(failure.user_failure_data.description)
        return failure.error.to_string() if failure.error else None
    return logging.Formatter().formatException(record.exc_info) if record.exc_info and record.exc_info[0] else None
