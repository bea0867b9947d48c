"""A backtest of one of the site's targets on the site's own tables, with its report."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

from lakehouse.errors import ForecastError
from lakehouse.flow import forecast
from lakehouse.flow.workspace import Workspace

if TYPE_CHECKING:
    from lakehouse.forecasting.backtest import BacktestResult

Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Backtested:
    """A backtest, and where its report and tables are."""

    result: BacktestResult
    report: Path | None


def run_backtest(
    workspace: Workspace,
    target: str,
    first: date,
    last: date,
    *,
    models: Sequence[str] | None = None,
    refit_days: int = 7,
    out: Path | None = None,
    workers: int = 1,
    progress: Progress | None = None,
) -> Backtested:
    """Backtests a target over local target days, on a rolling origin that never looks ahead.

    Args:
        workspace: the site at work; its cleaned tables must be up to date.
        target: demand, wind, solar or price.
        first: first target day.
        last: last target day, included.
        models: kinds of model; by default those of the site file and their ensemble.
        refit_days: days between refits.
        out: folder for report.html, accuracy.parquet and forecasts.parquet; finished blocks are kept there as well, so that a
            stopped backtest goes on where it was.
        workers: processes.
        progress: told blocks done, blocks in all, and a label.

    Raises:
        ForecastError: the site has no such target, or the span has no data.
    """
    from lakehouse.forecasting.backtest import backtest
    from lakehouse.forecasting.report import write_report

    if last < first:
        raise ForecastError(f"The span ends ({last}) before it begins ({first}).", "Exchange --from and --to.")
    task = forecast.task_of(workspace.site, target)
    result = backtest(
        task,
        forecast.actuals(workspace, target),
        forecast.inputs(workspace, target),
        first_day=first,
        last_day=last,
        models=models or [*forecast.models_of(workspace.site, target), "ensemble"],
        refit_days=refit_days,
        operator=forecast.operator_forecast(workspace, target),
        workers=workers,
        progress=progress,
        resume=out / "blocks" if out else None,
    )
    if out is None:
        return Backtested(result, None)
    out.mkdir(parents=True, exist_ok=True)
    result.accuracy.to_parquet(out / "accuracy.parquet")
    result.forecasts.to_parquet(out / "forecasts.parquet")
    return Backtested(result, write_report(result, out / "report.html", site=workspace.site.name))
