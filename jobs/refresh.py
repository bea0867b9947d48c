"""Materializes what is stale, layer by layer, through Dagster, with a progress display: `gridlake refresh`.

Runs in this process against the site's Dagster instance, so that the UI shows every run; the steps are those of
`lakehouse.flow.staleness`, the same that the sensors take. Where nothing is stale, Dagster is not even loaded.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

from jobs.refreshed import Refreshed, Tell
from lakehouse.errors import GridlakeError
from lakehouse.flow.setup import write_dagster_home
from lakehouse.flow.staleness import Step, next_steps
from lakehouse.flow.summary import as_lines, summarize
from lakehouse.flow.workspace import Workspace


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
    workspace = Workspace.open(home)
    first = [next_steps(workspace, until=until, days=days)]
    if not first[0]:
        workspace.publish()
        return Refreshed()

    import dagster as dg

    from definitions import build_definitions
    from jobs.stages import bring_up
    from resources.runs import end_lost_runs

    def stale(seen: Callable[[Step], bool]) -> list[Step]:
        return first.pop() if first else next_steps(workspace, until=until, days=days, without=seen)

    write_dagster_home(workspace.site)
    all_assets = build_definitions(workspace.site).resolve_implicit_global_asset_job_def()
    with dg.DagsterInstance.from_config(str(workspace.site.path("dagster"))) as instance:
        end_lost_runs(instance)
        return bring_up(workspace, all_assets, instance, stale, tell)


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
        # A terminal of its own: while a step runs, file descriptors 1 and 2 lead to the step's files.
        terminal = os.fdopen(os.dup(sys.stderr.fileno()), "w", encoding="utf-8")
        console = Console(file=terminal, soft_wrap=True)
        with (
            terminal,
            Progress(SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn(), console=console, transient=True) as progress,
        ):
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
