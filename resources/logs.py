"""Structured logs: what happens in runs, a line of JSON each, with the ids of run, step and partitions; and how long logs are kept.

Which handlers write them, and where, stands in Dagster's settings (`python_logs` in dagster.yaml).
"""

from __future__ import annotations

import json
import logging
import shutil
import time
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

LINES = "runs.jsonl"
"""The file of lines on one machine, in Dagster's folder; those of days that are over lie beside it, as `runs-<day>.jsonl`."""

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


@dataclass(frozen=True)
class Forgotten:
    """What `forget_old_logs` removed: logs of runs, files of lines, and their size."""

    runs: int
    files: int
    bytes: int


def forget_old_logs(folder: Path, keep_days: float) -> Forgotten:
    """Removes from Dagster's folder on one machine what runs printed, and lines, that are older than `keep_days`.

    The lines of the days before today are put aside first; who writes to the file notices (`WatchedFileHandler`). Dagster's own records
    of runs and events stay: from them the UI knows which partitions there are.
    """
    lines = folder / LINES
    now = time.time()
    if lines.is_file() and (first := _first_day(lines)) < f"{datetime.now(UTC):%Y-%m-%d}":
        lines.rename(lines.with_name(f"runs-{first}.jsonl"))
    old_files = [f for f in folder.glob("runs-*.jsonl") if now - f.stat().st_mtime > keep_days * 86_400]
    old_runs = [r for r in (folder / "storage").glob("*") if _is_run(r) and now - r.stat().st_mtime > keep_days * 86_400]
    size = sum(f.stat().st_size for f in old_files) + sum(f.stat().st_size for r in old_runs for f in r.rglob("*") if f.is_file())
    for one in old_files:
        one.unlink()
    for run in old_runs:
        shutil.rmtree(run, ignore_errors=True)
    return Forgotten(len(old_runs), len(old_files), size)


def _first_day(lines: Path) -> str:
    with lines.open(encoding="utf-8") as opened:
        try:
            return str(json.loads(opened.readline())["time"])[:10]
        except (ValueError, KeyError):  # empty, or cut by a kill
            return datetime.fromtimestamp(lines.stat().st_mtime, UTC).strftime("%Y-%m-%d")


def _is_run(folder: Path) -> bool:
    try:
        return folder.is_dir() and str(uuid.UUID(folder.name)) == folder.name
    except ValueError:
        return False
