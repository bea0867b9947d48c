"""What steps write to stdout and stderr, on one machine: straight into the files that the UI shows.

The manager that Dagster ships has four processes beside every step, which copy these files to the terminal of whoever runs it. That
costs more than many a step; here nobody reads that terminal.
"""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from dagster._core.execution.compute_logs import redirect_to_file
from dagster._core.storage.compute_log_manager import CapturedLogContext, ComputeIOType
from dagster._core.storage.local_compute_log_manager import IO_TYPE_EXTENSION, LocalComputeLogManager
from dagster._utils import ensure_file, touch_file


class StepOutputFiles(LocalComputeLogManager):
    """Captures a step's output without repeating it on the terminal; `base_dir` is the folder of the files."""

    @classmethod
    def from_config_value(cls, inst_data: Any, config_value: Any) -> "StepOutputFiles":
        """Made by Dagster from its settings."""
        return cls(inst_data=inst_data, **config_value)

    @contextmanager
    def capture_logs(self, log_key: Sequence[str]) -> Iterator[CapturedLogContext]:
        """While it is entered, file descriptors 1 and 2 lead to the files of the log key."""
        out, err = (self.get_captured_local_path(log_key, IO_TYPE_EXTENSION[kind]) for kind in (ComputeIOType.STDOUT, ComputeIOType.STDERR))
        ensure_file(out)
        ensure_file(err)
        with redirect_to_file(sys.stdout, out), redirect_to_file(sys.stderr, err):
            yield CapturedLogContext(log_key)
        touch_file(self.complete_artifact_path(log_key))  # tells the UI that no more will come
