"""Runs and the processes that carry them out: which process is at a run, and whether it is still there.

A run whose process was killed together with what watched it (the machine went down, the UI was killed) stays "started" in Dagster's
records for ever, takes a place in the queue, and whoever waits for it waits in vain. On Kubernetes Dagster's run monitoring sees to
that; on one machine each run names its process, and `end_lost_runs` marks those as failed whose process is no more.
"""

from __future__ import annotations

import os
import socket
from pathlib import Path

import dagster as dg

_HIDDEN = ".dagster/gridlake_"
"""How names of tags begin that the UI does not show: nobody but these programs reads them."""
PROCESS_TAG = f"{_HIDDEN}process"
ATTEMPT_TAG = f"{_HIDDEN}attempt"
"""The same for the same work on the same inputs within half an hour; see `jobs.work`."""
FAILED_TAG = f"{_HIDDEN}failed"
"""On a run that failed by what it did, and not because its process was stopped, killed or lost: to try again is no use."""
PUBLISHES_TAG = f"{_HIDDEN}publishes"
"""On a run whose caller publishes the catalog when all is done, so that not every step has to."""
STEP_TAG = f"{_HIDDEN}step"
"""Set by the sensor only, which waits for runs that have it; `jobs.work.WORK_TAG` is set by whoever asks."""
TOLD_TAG = f"{_HIDDEN}told_by"
"""On a failed run of `bring_up_to_date`: the failed steps' own runs tell what went wrong, so nobody has to be told twice."""
AT_WORK = [dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING]


def process_tags() -> dict[str, str]:
    """This process, as a run's tag: host, process id, and when it began, since ids come again."""
    return {PROCESS_TAG: f"{socket.gethostname()}/{os.getpid()}/{_began(os.getpid())}"}


def end_lost_runs(instance: dg.DagsterInstance) -> list[str]:
    """Marks runs as failed whose process on this machine is gone; returns their ids. Runs of other machines are left alone."""
    lost = []
    for run in instance.get_runs(dg.RunsFilter(statuses=AT_WORK)):
        told = run.tags.get(PROCESS_TAG, "").split("/")
        if len(told) != 3 or told[0] != socket.gethostname() or _began(int(told[1])) == told[2]:
            continue
        # The record may be older than the process's end: who has just ended has written how.
        newest = instance.get_run_by_id(run.run_id)
        if newest and not newest.is_finished:
            instance.report_run_failed(newest, f"Its process {told[1]} is gone: it was killed, or the machine went down.")
            instance.event_log_storage.free_concurrency_slots_for_run(run.run_id)
            lost.append(run.run_id)
    return lost


def _began(process: int) -> str:
    """When a process began, in clock ticks since the machine's start; empty if there is none."""
    try:
        words = Path(f"/proc/{process}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if words[0] in "ZX" else words[19]
