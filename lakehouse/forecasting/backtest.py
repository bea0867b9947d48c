"""The backtest of a target: features, rolling origin, measures, benchmarks, in one call.

What it needs comes in as tables; files, sites and the command line are others' business. `report.py` draws the result.
"""

from __future__ import annotations

import datetime as dt
import resource
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from lakehouse.errors import ForecastError
from lakehouse.forecasting import metrics
from lakehouse.forecasting.features import TARGET_COLUMN, build_features, history_days
from lakehouse.forecasting.models import ENSEMBLE
from lakehouse.forecasting.models.base import column
from lakehouse.forecasting.rolling import NETWORK_DAYS, members_of, rolling_origin
from lakehouse.forecasting.task import ForecastTask

DEFAULT_MODELS = ("lightgbm", "lear", "keras", "ensemble", "like_day", "seasonal_naive")
NOTED_SHARE = 0.02
"""Share of missing values from which an input is worth a sentence."""
PROGRESS_SECONDS = 0.5
"""How often the progress of several processes is looked at."""
SUMMARY_MEASURES = ("mae", "rmse", "mape", "wape", "rmae", "pinball", "coverage_80")


@dataclass
class BacktestResult:
    """Everything a backtest found.

    Attributes:
        task: what was forecast.
        first_day, last_day: local target days, both included.
        forecasts: one row per model, series, issue and interval with quantiles, `actual` and `naive`; the operator's forecast
            is among the models as `operator`, without quantiles.
        accuracy: `metrics.accuracy_table` of the forecasts.
        measures: by model.
        importance: share of each feature in the last fitted LightGBM model.
        seconds: by model; `peak_mb` of the process and its workers.
        label: `perfect weather` where that was used.
        notes: sentences about what was missing from the data, for whoever reads the figures.
    """

    task: ForecastTask
    first_day: dt.date
    last_day: dt.date
    forecasts: pd.DataFrame
    accuracy: pd.DataFrame
    measures: dict[str, dict[str, float]]
    importance: dict[str, float] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    peak_mb: float = 0.0
    label: str = ""
    notes: list[str] = field(default_factory=list)

    def summary_rows(self, site: str = "") -> list[dict[str, Any]]:
        """One JSON object per model; percentages are percent, None where a measure does not apply."""
        benchmarks = {name: _rounded(self.measures[name]) for name in ("seasonal_naive", "operator") if name in self.measures}
        rows = []
        for model, found in self.measures.items():
            if model == "operator":
                continue
            row: dict[str, Any] = {
                "site": site,
                "target": self.task.target,
                "model": model,
                "from": self.first_day.isoformat(),
                "to": self.last_day.isoformat(),
                "n": int(found["n"]),
            }
            row |= _rounded(found) | {
                "benchmarks": benchmarks,
                "seconds": round(self.seconds.get(model, 0.0), 2),
                "peak_mb": round(self.peak_mb, 1),
            }
            if self.label:
                row["label"] = self.label
            if self.notes:
                row["notes"] = self.notes
            rows.append(row)
        return rows


def backtest(
    task: ForecastTask,
    actuals: pd.DataFrame | pa.Table,
    inputs: pd.DataFrame | pa.Table | None,
    *,
    first_day: dt.date,
    last_day: dt.date,
    models: Sequence[str] = DEFAULT_MODELS,
    refit_days: int = 7,
    operator: pd.DataFrame | pa.Table | None = None,
    workers: int = 1,
    progress: Callable[[int, int, str], None] | None = None,
    resume: Path | None = None,
    seed: int = 0,
) -> BacktestResult:
    """Runs a rolling-origin backtest.

    Args:
        task: what is forecast.
        actuals: long table `series_id`, `interval_start` (UTC), `value`, reaching back well before `first_day`.
        inputs: exogenous values as `build_features` takes them; None where the task has none.
        first_day, last_day: local target days of the first and last forecast (of lead day 1), both included.
        models: names; `ensemble` brings its members along.
        refit_days: days between refits.
        operator: the operator's own forecast for comparison only: `interval_start`, `value` and, with several series, `series_id`.
            Left out, an input with `forecasts_target` serves.
        workers: processes; models run side by side.
        progress: called with blocks done, blocks in all, and a label.
        resume: folder in which finished blocks are kept; a second run with the same arguments goes on from there.
        seed: of everything random.

    Raises:
        ForecastError: when the span has no data or the history is too short.
    """
    began = time.perf_counter()
    chosen = list(dict.fromkeys(models))
    actuals = actuals.to_pandas() if isinstance(actuals, pa.Table) else actuals
    mine = actuals[actuals["series_id"].isin(task.series_ids)]
    if mine.empty:
        raise ForecastError(
            f"There are no actuals of {task.target} for {', '.join(task.series_ids[:3])}.", "Check the series names in the site file."
        )
    first_issue, last_issue = first_day - dt.timedelta(days=1), last_day - dt.timedelta(days=1)
    have = mine.loc[mine["value"].notna(), "interval_start"]
    earliest = have.min().tz_convert(task.time_zone).date()
    span_start, span_end = task.day_bounds(first_day)[0], task.day_bounds(last_day)[1]
    if not ((have >= span_start) & (have < span_end)).any():
        raise ForecastError(
            f"There are no actuals of {task.target} from {first_day} to {last_day}: "
            f"the data run from {earliest} to {have.max().tz_convert(task.time_zone).date()}.",
            "Choose --from and --to within the data, some weeks after its beginning.",
        )
    learning_start = earliest + dt.timedelta(days=8)
    if (first_issue - learning_start).days < 14:
        begin = earliest + dt.timedelta(days=24)
        later = f"Begin on {begin} or later; " if begin <= have.max().tz_convert(task.time_zone).date() else "Land more of it; "
        raise ForecastError(
            f"A backtest of {task.target} from {first_day} needs three weeks of earlier actuals, found data from {earliest} on.",
            f"{later}{history_days(task)} days of history fill every feature.",
        )
    if ENSEMBLE in chosen:  # all that may become a member: who has too little to learn from joins with a later refit
        may_join = members_of(ENSEMBLE, max((first_issue - learning_start).days, NETWORK_DAYS))
        chosen += [m for m in may_join if m not in chosen]
    if "seasonal_naive" not in chosen:
        chosen.append("seasonal_naive")
    issues = task.issue_instants(learning_start, last_issue)
    features = build_features(task, mine, inputs, issues)
    feature_seconds = time.perf_counter() - began
    steps = [m for m in chosen if m != ENSEMBLE]
    if workers > 1 and len(steps) > 1:
        forecasts, seconds = _in_parallel(task, features, chosen, refit_days, first_issue, last_issue, seed, workers, progress, resume)
    else:
        forecasts, found = rolling_origin(
            task, features, chosen, refit_days, first_issue, last_issue, seed=seed, progress=progress, resume=resume
        )
        seconds = {m: f["seconds"] for m, f in found.items()}
    forecasts = forecasts[forecasts["model"].isin({*models, "seasonal_naive"})].reset_index(drop=True)
    forecasts = pd.concat([forecasts, *_operator_rows(task, forecasts, features, operator)], ignore_index=True)
    measures = {str(m): metrics.measure(part, task) for m, part in forecasts.groupby("model", sort=False)}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024 + (
        resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024 if workers > 1 else 0
    )
    return BacktestResult(
        task=task,
        first_day=first_day,
        last_day=last_day,
        forecasts=forecasts,
        accuracy=metrics.accuracy_table(forecasts, task),
        measures=measures,
        importance=_importance(task, features, last_issue, seed) if {"lightgbm", ENSEMBLE} & set(chosen) else {},
        seconds={m: s + feature_seconds for m, s in seconds.items()},
        peak_mb=peak,
        label=task.label,
        notes=_notes(task, features, first_issue),
    )


def _notes(task: ForecastTask, features: pa.Table, first_issue: dt.date) -> list[str]:
    """What the evaluated issues and those before them lack."""
    evaluated = features.filter(pc.greater_equal(features.column("date"), pa.scalar(first_issue)))
    found = []
    valid = evaluated.column("valid_at")
    last = pc.max(valid.filter(pc.is_valid(evaluated.column(TARGET_COLUMN))))
    ended, asked = (pd.Timestamp(at.as_py()).tz_convert(task.time_zone).date() for at in (last, pc.max(valid)))
    if ended < asked:
        found.append(f"The actuals end on {ended}, the span on {asked}: the days between are not scored.")
        evaluated = evaluated.filter(pc.less_equal(valid, last))
    truth = column(evaluated, TARGET_COLUMN)
    if unknown := int((~np.isfinite(truth)).sum()):
        found.append(f"{unknown} of {len(truth)} intervals have no actual and are not scored.")
    known = column(features, TARGET_COLUMN)
    known = known[np.isfinite(known)]
    if len(known) and known.min() == known.max():
        found.append(f"{task.target} is {known[0]:g} throughout: there is nothing to learn.")
    learnt = features.filter(pc.less(features.column("date"), pa.scalar(first_issue)))
    if lost := int((~np.isfinite(column(learnt, TARGET_COLUMN))).sum()):
        longest = _longest_gap_days(task, learnt)
        if longest > 7:
            found.append(f"The history has gaps, {lost} intervals in all and up to {longest:.0f} days long; they are not learnt from.")
    for item in task.inputs:
        name = item.name if item.availability != "actual" else f"{item.name}_lag_7d"
        for rows, when in ((learnt, "before the span"), (evaluated, "in the span")):
            gone = float(np.mean(~np.isfinite(column(rows, name)))) if rows.num_rows else 0.0
            if gone > NOTED_SHARE:
                found.append(f"The input {item.name} is missing for {gone:.0%} of the intervals {when}; the models went without it there.")
    return found


def _longest_gap_days(task: ForecastTask, rows: pa.Table) -> float:
    """Length of the longest stretch without actuals of any one series."""
    code, valid = column(rows, "series_code"), rows.column("valid_at").cast(pa.int64()).to_numpy()
    known = np.isfinite(column(rows, TARGET_COLUMN))
    longest = 0
    for one in np.unique(code):
        at = np.unique(valid[known & (code == one)])
        longest = max(longest, int(np.diff(at).max()) if len(at) > 1 else 0)
    return (longest - task.interval_minutes * 60_000_000) / 86_400_000_000


def _in_parallel(
    task: ForecastTask,
    features: pa.Table,
    chosen: list[str],
    refit_days: int,
    first_issue: dt.date,
    last_issue: dt.date,
    seed: int,
    workers: int,
    progress: Callable[[int, int, str], None] | None,
    resume: Path | None,
) -> tuple[pd.DataFrame, dict[str, float]]:
    """Each model's raw blocks in a process of its own, kept in a folder; then the rolling origin reads them all."""
    import multiprocessing
    import tempfile

    steps = [m for m in chosen if m != ENSEMBLE]
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as scratch:
        folder = resume if resume is not None else Path(scratch)
        path = Path(scratch) / "features.arrow"
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, features.schema) as writer:
            writer.write_table(features)
        seconds: dict[str, float] = {}
        told = context.Queue()
        with ProcessPoolExecutor(min(workers, len(steps)), mp_context=context, initializer=_tell_into, initargs=(told,)) as pool:
            jobs = {pool.submit(_one_model, task, str(path), m, refit_days, first_issue, last_issue, seed, str(folder)): m for m in steps}
            blocks_done: dict[str, tuple[int, int]] = {}
            running = set(jobs)
            while running:
                ended, running = wait(running, timeout=PROGRESS_SECONDS)
                for job in ended:
                    try:
                        seconds[jobs[job]] = job.result()
                    except BrokenProcessPool as error:
                        raise ForecastError(
                            "A process of the backtest was ended from outside, by want of memory or by somebody.",
                            "Run it again with --workers 1; with --out DIR it goes on where it was.",
                        ) from error
                _pass_on(told, blocks_done, len(steps), progress)
        _pass_on(told, blocks_done, len(steps), progress)  # what they said at the last
        forecasts, _ = rolling_origin(task, features, chosen, refit_days, first_issue, last_issue, seed=seed, resume=folder)
    seconds[ENSEMBLE] = sum(seconds[m] for m in members_of(ENSEMBLE, 365) if m in seconds)
    return forecasts, seconds


def _pass_on(told: Any, blocks_done: dict[str, tuple[int, int]], models: int, progress: Callable[[int, int, str], None] | None) -> None:
    """Notes what the processes told since, of each model the blocks done and in all, and passes the sum on."""
    from queue import Empty

    label = ""
    while True:
        try:
            model, done, of, label = told.get_nowait()
        except Empty:
            break
        blocks_done[model] = (done, of)
    if progress is not None and label:
        progress(sum(n for n, _ in blocks_done.values()), models * max(of for _, of in blocks_done.values()), label)


_told: Any = None  # where a process of the pool tells its progress


def _tell_into(told: Any) -> None:
    global _told
    _told = told


def _one_model(
    task: ForecastTask, path: str, model: str, refit_days: int, first_issue: dt.date, last_issue: dt.date, seed: int, folder: str
) -> float:
    """One model's raw forecasts, left in `folder`; returns its seconds."""
    began = time.perf_counter()
    with pa.memory_map(path) as source:
        features = pa.ipc.open_file(source).read_all()

        def tell(done: int, of: int, label: str) -> None:
            _told.put((model, done, of, label))

        rolling_origin(task, features, [model], refit_days, first_issue, last_issue, seed=seed, progress=tell, resume=Path(folder))
    return time.perf_counter() - began


def _operator_rows(
    task: ForecastTask, forecasts: pd.DataFrame, features: pa.Table, operator: pd.DataFrame | pa.Table | None
) -> list[pd.DataFrame]:
    """The operator's forecast of the evaluated rows as one more model, if there is one."""
    first = forecasts["model"].iloc[0]
    rows = forecasts[forecasts["model"] == first].copy()
    rows[list(task.quantile_columns)] = np.nan
    rows["model"] = "operator"
    if operator is not None:
        table = operator.to_pandas() if isinstance(operator, pa.Table) else operator
        keys = ["interval_start", *(["series_id"] if "series_id" in table else [])]
        merged = rows.merge(
            table.rename(columns={"value": "operator_value"})[[*keys, "operator_value"]],
            how="left",
            left_on=["valid_at", *keys[1:]],
            right_on=keys,
        )
        rows["p50"] = merged["operator_value"].to_numpy(dtype=float)
    elif task.operator_input is not None:
        table = features.select(["series_id", "issued_at", "valid_at", task.operator_input.name]).to_pandas()
        merged = rows.merge(table, how="left", on=["series_id", "issued_at", "valid_at"])
        rows["p50"] = merged[task.operator_input.name].to_numpy(dtype=float)
    else:
        return []
    return [rows] if rows["p50"].notna().any() else []


def _importance(task: ForecastTask, features: pa.Table, last_issue: dt.date, seed: int) -> dict[str, float]:
    """Feature importance of a LightGBM model fitted to what was known at the last issue."""
    from lakehouse.forecasting.models.lightgbm_quantile import LightGBMQuantile

    day = features.column("date").to_numpy().astype("datetime64[D]")
    known = features.filter(pa.array((day < np.datetime64(last_issue)) & np.isfinite(column(features, TARGET_COLUMN))))
    recent = known.slice(max(known.num_rows - 20_000, 0))
    try:
        model = LightGBMQuantile().fit(recent, task, seed=seed, centre_only=True)
    except ForecastError:  # too short a history for trees: the report goes without
        return {}
    return dict(sorted(model.explain().items(), key=lambda item: -item[1])[:25])


def _rounded(found: dict[str, float]) -> dict[str, float | None]:
    return {name: (round(float(found[name]), 6) if np.isfinite(found[name]) else None) for name in SUMMARY_MEASURES}
