"""Materializes what is stale, layer by layer, through Dagster, with a progress display: `gridlake refresh`.

Runs in this process against the site's Dagster instance, so that the UI shows every run; the steps are those of
`lakehouse.flow.staleness`, the same that the sensors take.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import dagster as dg

from lakehouse.errors import GridlakeError
from lakehouse.flow.setup import write_dagster_home
from lakehouse.flow.staleness import Step, next_steps
from lakehouse.flow.summary import as_lines, summarize
from lakehouse.flow.workspace import Workspace

Tell = Callable[[str, Step, float], None]
MOST_ROUNDS = 60


class RefreshError(GridlakeError):
    """A step failed; what was done before stands."""


@dataclass
class Refreshed:
    """What a refresh did."""

    steps: list[tuple[Step, float]] = field(default_factory=list)
    failed: list[tuple[Step, str]] = field(default_factory=list)


def refresh(
    home: Path, *, until: str = "dispatch", days: tuple[date, date] | None = None, tell: Tell = lambda event, step, seconds: None
) -> Refreshed:
    """Materializes what is stale, until nothing is or a step fails.

    Args:
        home: the site's folder.
        until: the last layer.
        days: restricts partitioned steps.
        tell: told ("start", step, 0), then ("done" or "failed", step, seconds).
    """
    from definitions import build_definitions

    workspace = Workspace.open(home)
    write_dagster_home(workspace.site)
    definitions = build_definitions(workspace.site)
    done = Refreshed()
    seen: set[Step] = set()
    with dg.DagsterInstance.from_config(str(workspace.site.path("dagster"))) as instance:
        for _ in range(MOST_ROUNDS):
            steps = [s for s in next_steps(workspace, until=until, days=days) if s not in seen]
            if not steps or done.failed:
                break
            for step in steps:
                seen.add(step)
                tell("start", step, 0.0)
                begun = time.perf_counter()
                fault = _run(definitions, instance, step)
                seconds = time.perf_counter() - begun
                if fault:
                    done.failed.append((step, fault))
                else:
                    done.steps.append((step, seconds))
                tell("failed" if fault else "done", step, seconds)
    workspace.publish()
    return done


def _run(definitions: dg.Definitions, instance: dg.DagsterInstance, step: Step) -> str:
    """Runs one step; returns what went wrong, or nothing."""
    selection = [dg.AssetKey(table.split("/")) for table in step.tables]
    job = definitions.resolve_implicit_global_asset_job_def().get_subset(asset_selection=set(selection))
    tags = {"gridlake/work": str(step), "gridlake/reason": step.reason}
    if step.days:
        tags |= {
            "dagster/asset_partition_range_start": step.days[0].isoformat(),
            "dagster/asset_partition_range_end": step.days[1].isoformat(),
        }
    quiet = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
    result = job.execute_in_process(instance=instance, raise_on_error=False, tags=tags, run_config=quiet)
    if result.success:
        return ""
    failures = [e.step_failure_data for e in result.all_events if e.is_step_failure]
    told = []
    for failure in failures:
        if failure.user_failure_data and failure.user_failure_data.description:
            told.append(failure.user_failure_data.description)
        elif failure.error:
            cause = failure.error
            while cause.cause:
                cause = cause.cause
            told.append(cause.message.strip())
    return "\n".join(told) or "the run failed; the Dagster UI shows where"


def main() -> int:
    """The command behind `gridlake refresh`."""
    options = argparse.ArgumentParser(prog="gridlake refresh")
    options.add_argument("--home", type=Path, required=True)
    options.add_argument("--until", default="dispatch")
    options.add_argument("--from", dest="first", type=date.fromisoformat)
    options.add_argument("--to", dest="last", type=date.fromisoformat)
    options.add_argument("--json", action="store_true")
    chosen = options.parse_args()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    days = None
    if chosen.first or chosen.last:
        days = (chosen.first or date.min, chosen.last or date.max)
    try:
        begun = time.perf_counter()
        if chosen.json:
            done = refresh(chosen.home, until=chosen.until, days=days)
        else:
            with _display() as tell:
                done = refresh(chosen.home, until=chosen.until, days=days, tell=tell)
        seconds = time.perf_counter() - begun
        summary = summarize(Workspace.open(chosen.home))
    except GridlakeError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    if chosen.json:
        steps = [{"tables": list(s.tables), "days": s.days, "seconds": round(t, 2)} for s, t in done.steps]
        failed = [{"tables": list(s.tables), "days": s.days, "fault": fault} for s, fault in done.failed]
        sys.stdout.write(
            json.dumps({"steps": steps, "failed": failed, "seconds": round(seconds, 1), "summary": summary}, default=str) + "\n"
        )
    else:
        from rich.console import Console

        console = Console(soft_wrap=True)
        for step, fault in done.failed:
            console.print(f"[red]failed[/] {step}", highlight=False)
            console.print(fault, markup=False, highlight=False)
        if not done.failed:
            for line in as_lines(summary, home=chosen.home, seconds=seconds, steps=len(done.steps)):
                console.print(line, highlight=False, markup=False)
    return 1 if done.failed else 0


def _display() -> Any:
    """A live line for the step at work, and one line for each that is done."""
    from contextlib import contextmanager

    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    @contextmanager
    def shown() -> Any:
        console = Console(stderr=True, soft_wrap=True)
        with Progress(SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn(), console=console, transient=True) as progress:
            tasks: dict[Step, Any] = {}

            def tell(event: str, step: Step, seconds: float) -> None:
                if event == "start":
                    tasks[step] = progress.add_task(str(step))
                    return
                progress.remove_task(tasks.pop(step))
                mark = "[green]done[/]  " if event == "done" else "[red]failed[/]"
                progress.console.print(f"{mark} {seconds:6.1f} s  {step}", highlight=False)

            yield tell

    return shown()


if __name__ == "__main__":
    sys.exit(main())
