"""What steps print is kept where the UI looks for it, and not repeated on the terminal."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import dagster as dg

from lakehouse.flow.setup import write_dagster_home
from tests.flow.builders import village
from tests.servers import PROJECT


@dg.op
def prints() -> None:
    """Writes by Python, and by another program."""
    print("by Python")
    subprocess.run([sys.executable, "-c", "import sys; sys.stderr.write('by another program')"], check=True)


@dg.job
def printing() -> None:
    """One step."""
    prints()


def main(settings: str) -> None:
    """Runs the job, in a process whose file descriptors are its own."""
    print("before")
    with dg.DagsterInstance.from_config(settings) as instance:
        printing.execute_in_process(instance=instance)
    print("after")


def test_what_a_step_prints_is_in_the_files_of_its_run(tmp_path: Path):
    settings = str(write_dagster_home(village(tmp_path / "site").site))
    run = subprocess.run([sys.executable, "-m", __name__, settings], cwd=PROJECT, capture_output=True, text=True, check=True)
    assert run.stdout == "before\nafter\n"
    assert "by another program" not in run.stderr
    with dg.DagsterInstance.from_config(settings) as instance:
        [made] = instance.get_runs()
        events = [log.dagster_event for log in instance.all_logs(made.run_id, of_type=dg.DagsterEventType.LOGS_CAPTURED)]
        [file_key] = [event.logs_captured_data.file_key for event in events if event]
        manager = instance.compute_log_manager
        key = manager.build_log_key_for_run(made.run_id, file_key)
        told = manager.get_log_data(key)
        assert manager.is_capture_complete(key)
    assert told.stdout == b"by Python\n"
    assert told.stderr is not None and told.stderr.endswith(b"by another program")


if __name__ == "__main__":
    main(sys.argv[1])
