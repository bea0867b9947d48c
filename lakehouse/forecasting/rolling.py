"""One pass through time: fit on what was known, forecast issues that the fit did not see, go on.

`walk` does it for several models at once, `rolling_origin` weighs, calibrates and measures what it gives. Both backtests and
training rest on it, so that a fit that evaluates a model also calibrates its version.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from lakehouse.errors import ForecastError
from lakehouse.forecasting import metrics
from lakehouse.forecasting.features import TARGET_COLUMN, feature_names
from lakehouse.forecasting.models import ENSEMBLE, MODEL_NAMES, MODELS_VERSION, make_model
from lakehouse.forecasting.models.base import Model, column, first_known, is_dark, task_signature
from lakehouse.forecasting.models.blend import SHORT_HISTORY_DAYS
from lakehouse.forecasting.models.ensemble import CALIBRATION_DAYS, Calibration, combine, member_weights
from lakehouse.forecasting.task import ForecastTask

ENSEMBLE_MEMBERS = ("lightgbm", "keras", "lear", "blend")
NETWORK_DAYS = 35
"""With fewer days to learn from the ensemble does without the network and the linear model."""
NAIVE = ("seasonal_naive", "like_day")
NAIVE_CHAIN = ["lag_7d", "lag_14d", "lag_21d", "lag_28d"]
LEAST_DAYS = 14
Progress = Callable[[int, int, str], None]
Day = np.datetime64


@dataclass
class Walk:
    """What models said of issues that they were not fitted to.

    Attributes:
        task: what was forecast.
        rows: features of those issues.
        issue_day: (rows,) local day of the issue.
        truth: (rows,) actuals, NaN where there is none.
        raw: (rows, probabilities) uncalibrated quantiles by model; NaN where a model had too little history.
        fits: the last fit of each model.
        seconds: by model.
        refused: why a model could not be fitted, by model.
    """

    task: ForecastTask
    rows: pa.Table
    issue_day: np.ndarray
    truth: np.ndarray
    raw: dict[str, np.ndarray]
    fits: dict[str, Model] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    refused: dict[str, ForecastError] = field(default_factory=dict)

    def past_of(self, issue: pd.Timestamp, day: Day) -> np.ndarray:
        """Rows of the last issues before an issue whose actuals were known at it."""
        known_us = self.task.actuals_known_before(pd.DatetimeIndex([issue]))[0].value // 1000
        valid = self.rows.column("valid_at").cast(pa.int64()).to_numpy()
        recent = (self.issue_day < day) & (self.issue_day >= day - np.timedelta64(CALIBRATION_DAYS, "D"))
        return np.flatnonzero(recent & (valid < known_us))


def walk(
    task: ForecastTask,
    features: pa.Table,
    names: Sequence[str],
    blocks: Sequence[tuple[Day, Day]],
    *,
    seed: int = 0,
    progress: Progress | None = None,
    resume: Path | None = None,
    on_fit: Callable[[Day, pd.Timestamp, Walk], None] | None = None,
) -> Walk:
    """Fits each model at the beginning of each block on what was known then, and forecasts the block's issues with it.

    Args:
        task: what is forecast.
        features: features of the issues before and in the blocks.
        names: among `MODEL_NAMES`.
        blocks: spans of issue days, ends excluded, in time order.
        seed: of everything random.
        progress: called with blocks done, blocks in all, and a label.
        resume: folder for the raw forecasts of finished blocks; a second run goes on from there.
        on_fit: called with a block's first day and issue when all models are fitted for it, before they forecast it. A model
            may start its next fit from this one and change it: what is to be kept must be saved here.
    """
    issue_day = features.column("date").to_numpy().astype("datetime64[D]")
    selected = np.flatnonzero((issue_day >= blocks[0][0]) & (issue_day < blocks[-1][1]))
    rows = features.take(pa.array(selected))
    nothing = np.full((len(selected), len(task.quantiles)), np.nan)
    walked = Walk(task, rows, issue_day[selected], column(rows, TARGET_COLUMN), {name: nothing.copy() for name in names})
    walked.seconds = dict.fromkeys(names, 0.0)
    digest = _digest(task, features, seed) if resume is not None else ""
    done, total = 0, len(blocks) * len(names)
    for begin, end in blocks:
        mine = np.flatnonzero((walked.issue_day >= begin) & (walked.issue_day < end))
        if not len(mine):
            done += len(names)
            continue
        block_rows = rows.take(pa.array(mine))
        issue = pd.Timestamp(block_rows.column("issued_at")[0].as_py())
        known: pa.Table | None = None
        fitted: list[str] = []
        for name in names:
            began = time.perf_counter()
            kept = resume / f"{name}_{begin}_{end}_{digest}.npy" if resume is not None else None
            if kept is not None and kept.exists():
                walked.raw[name][mine] = np.load(kept, allow_pickle=False)
            else:
                known = known_rows(task, features, issue) if known is None else known
                try:
                    walked.fits[name] = fit(name, known, task, seed, walked.fits.get(name))
                    fitted.append(name)
                except ForecastError as error:  # too little history as yet: this model begins with a later block
                    walked.refused[name] = error
            walked.seconds[name] += time.perf_counter() - began
        if on_fit is not None:
            on_fit(begin, issue, walked)
        for name in names:
            began = time.perf_counter()
            if name in fitted:
                walked.raw[name][mine] = walked.fits[name].predict(block_rows)
                if resume is not None:
                    resume.mkdir(parents=True, exist_ok=True)
                    staging = resume / f"{name}_{begin}_{end}_{digest}.part.npy"
                    np.save(staging, walked.raw[name][mine])
                    staging.rename(resume / f"{name}_{begin}_{end}_{digest}.npy")
            walked.seconds[name] += time.perf_counter() - began
            done += 1
            if progress is not None:
                progress(done, total, f"{name} {begin}")
    return walked


def rolling_origin(
    task: ForecastTask,
    features: pa.Table,
    models: Sequence[str],
    refit_days: int,
    first_issue: dt.date,
    last_issue: dt.date,
    *,
    seed: int = 0,
    progress: Progress | None = None,
    resume: Path | None = None,
) -> tuple[pd.DataFrame, dict[str, dict[str, float]]]:
    """Forecasts every issue day of a span with models refitted every `refit_days` on what was known then.

    Some weeks before the span are forecast as well, unseen by the fit, to give the first weights and calibration.

    Args:
        task: what is forecast.
        features: features of the issues before and in the span.
        models: names among `MODEL_NAMES`, and `ensemble` for the weighted average of the learning ones among them.
        refit_days: days between refits.
        first_issue, last_issue: local issue days, both included.
        seed: of everything random.
        progress: called with blocks done, blocks in all, and a label.
        resume: folder for the raw forecasts of finished blocks; a second run goes on from there.

    Returns:
        Forecasts (`series_id`, `issued_at`, `valid_at`, quantiles, `model`, `actual`, `naive`, `naive_scale`) and measures by model.

    Raises:
        ForecastError: when no issue before the span can be learnt from.
    """
    if last_issue < first_issue:
        raise ForecastError(f"The backtest's span ends ({last_issue}) before it begins ({first_issue}).")
    base = [m for m in dict.fromkeys(models) if m != ENSEMBLE]
    for name in base:
        if name not in MODEL_NAMES:
            make_model(name)
    issue_day = features.column("date").to_numpy().astype("datetime64[D]")
    start, stop = np.datetime64(first_issue), np.datetime64(last_issue)
    if not ((issue_day >= start) & (issue_day <= stop)).any():
        raise ForecastError(
            f"There are no features of {task.target} for issue days {first_issue} to {last_issue}.",
            "Refresh the features of that span, or choose another.",
        )
    learnable = learnable_days(features, start)
    if len(learnable) < LEAST_DAYS:
        raise ForecastError(
            f"A backtest of {task.target} from {first_issue} needs at least {LEAST_DAYS} earlier issue days with actuals, "
            f"found {len(learnable)}.",
            "Begin later, or land a longer history.",
        )
    blocks = blocks_of(learnable, start, stop, refit_days, keep=LEAST_DAYS if any(m not in NAIVE for m in base) else 0)
    walked = walk(task, features, base, blocks, seed=seed, progress=progress, resume=resume)
    return evaluated(walked, features, start, with_ensemble=ENSEMBLE in models)


def evaluated(walked: Walk, features: pa.Table, start: Day, *, with_ensemble: bool) -> tuple[pd.DataFrame, dict[str, dict[str, float]]]:
    """Calibrated forecasts and measures of a walk's issues from a day on; see `rolling_origin`.

    Raises:
        ForecastError: when no model could forecast any of them.
    """
    task = walked.task
    raw = {name: values for name, values in walked.raw.items() if np.isfinite(values[walked.issue_day >= start]).any()}
    if not raw:
        found = list(walked.refused.values())
        raise found[-1] if found else ForecastError(f"No model could forecast {task.target} from {start} on.")
    forecasts = _calibrated(walked, raw, start, with_ensemble=with_ensemble)
    issue_day = features.column("date").to_numpy().astype("datetime64[D]")
    scale = _naive_scale(features.filter(pa.array(issue_day < start)), task)
    forecasts["naive_scale"] = forecasts["series_id"].map(scale)
    seconds = walked.seconds
    measured = {
        str(m): metrics.measure(part, task) | {"seconds": seconds.get(str(m), sum(seconds.values()))}
        for m, part in forecasts.groupby("model", sort=False)
    }
    return forecasts, measured


def members_of(model: str, days: int) -> list[str]:
    """Members of a model: itself, or those of the ensemble that so many days can feed, and need."""
    if model != ENSEMBLE:
        return [model]
    suits = {"lightgbm": True, "blend": days < SHORT_HISTORY_DAYS}
    return [m for m in ENSEMBLE_MEMBERS if suits.get(m, days >= NETWORK_DAYS)]


def learnable_days(features: pa.Table, before: Day) -> np.ndarray:
    """Issue days before a day that have actuals."""
    issue_day = features.column("date").to_numpy().astype("datetime64[D]")
    return np.unique(issue_day[(issue_day < before) & np.isfinite(column(features, TARGET_COLUMN))])


def blocks_of(learnable: np.ndarray, start: Day, stop: Day, refit_days: int, *, keep: int = LEAST_DAYS) -> list[tuple[Day, Day]]:
    """Blocks of a rolling origin: one before the span for the first weights and calibration, then one for each refit.

    Args:
        learnable: issue days before the span that have actuals.
        start: first issue day.
        stop: last issue day, included; before `start` where only the first block is wanted.
        refit_days: days between refits.
        keep: days to learn from that the first block must leave.
    """
    hold = min(holdout_days(len(learnable)), max(len(learnable) - keep, 0))
    day = np.timedelta64(1, "D")
    blocks: list[tuple[Day, Day]] = [(learnable[-hold], start)] if hold else []
    at = start
    while at <= stop:
        blocks.append((at, min(at + refit_days * day, stop + day)))
        at = at + refit_days * day
    return blocks


def holdout_days(days: int) -> int:
    """Days held out of a history for weights and calibration: a fifth, between 7 and 56."""
    return int(np.clip(days // 5, 7, 56)) if days >= 21 else max(days // 3, 1)


def fit(name: str, rows: pa.Table, task: ForecastTask, seed: int, previous: Model | None = None, columns: list[str] | None = None) -> Model:
    """A new model of a name, fitted."""
    return make_model(name).fit(rows, task, seed=seed, previous=previous, columns=columns)


def known_rows(task: ForecastTask, features: pa.Table, at: pd.Timestamp) -> pa.Table:
    """Rows whose actual is there and was known at an instant."""
    before = task.actuals_known_before(pd.DatetimeIndex([at]))[0]
    limit = pa.scalar(int(before.value // 1000), pa.int64()).cast(pa.timestamp("us", tz="UTC"))
    mask = pc.and_(pc.less(features.column("valid_at"), limit), pc.is_valid(features.column(TARGET_COLUMN)))
    return features.filter(mask)


def _calibrated(walked: Walk, raw: dict[str, np.ndarray], start: Day, *, with_ensemble: bool) -> pd.DataFrame:
    """Weights and calibrates day by day from issues whose actuals were known at the issue."""
    task, rows, truth, issue_day = walked.task, walked.rows, walked.truth, walked.issue_day
    issued = rows.column("issued_at").cast(pa.int64()).to_numpy()
    days = np.unique(issue_day[issue_day >= start])
    learning = [m for m in raw if m in ENSEMBLE_MEMBERS] or list(raw)
    final = {name: values.copy() for name, values in raw.items()}
    mixed = np.full_like(next(iter(raw.values())), np.nan)
    dark = is_dark(rows, task)
    if with_ensemble:
        final[ENSEMBLE] = np.full_like(mixed, np.nan)
    for day in days:
        today = np.flatnonzero(issue_day == day)
        past = walked.past_of(pd.Timestamp(int(issued[today[0]]), unit="us", tz="UTC"), day)
        past_day = issue_day[past].astype(float)
        for name, values in raw.items():
            if name in NAIVE and len(past) == 0:
                continue
            calibration = Calibration.from_past(values[past], truth[past], task.quantiles, past_day, is_dark=dark[past])
            final[name][today] = calibration.apply(values[today], task.quantiles, is_dark=dark[today])
        if with_ensemble:
            weights = member_weights(task, {m: raw[m][past] for m in learning}, truth[past], past_day)
            mixed[today] = combine({m: raw[m][today] for m in learning}, weights)
            mixed_past = combine({m: raw[m][past] for m in learning}, weights)
            calibration = Calibration.from_past(mixed_past, truth[past], task.quantiles, past_day, is_dark=dark[past])
            final[ENSEMBLE][today] = calibration.apply(mixed[today], task.quantiles, is_dark=dark[today])
    if task.target in ("wind", "solar"):  # as `predict.forecast` does
        final = {name: np.maximum(values, 0.0) for name, values in final.items()}
    keep = issue_day >= start
    keys = rows.select(["series_id", "issued_at", "valid_at"]).filter(pa.array(keep)).to_pandas()
    keys["actual"] = truth[keep]
    keys["naive"] = first_known(rows, NAIVE_CHAIN)[keep]
    parts = []
    for name, values in final.items():
        part = keys.copy()
        for n, label in enumerate(task.quantile_columns):
            part[label] = values[keep, n]
        part["model"] = name
        parts.append(part)
    return pd.concat(parts, ignore_index=True)


def _digest(task: ForecastTask, features: pa.Table, seed: int) -> str:
    """Short fingerprint of what a block's forecasts follow from, so that a resumed backtest takes no other's blocks."""
    sums = [float(np.nansum(column(features, name))) for name in (TARGET_COLUMN, *feature_names(task)[-12:])]
    text = json.dumps([MODELS_VERSION, task_signature(task), features.num_rows, sums, seed])
    return hashlib.sha256(text.encode()).hexdigest()[:10]


def _naive_scale(rows: pa.Table, task: ForecastTask) -> dict[str, float]:
    """MAE of the seasonal naive of each series over some rows: the denominator of MASE."""
    error = np.abs(column(rows, TARGET_COLUMN) - first_known(rows, NAIVE_CHAIN))
    code = column(rows, "series_code").astype(int)
    with np.errstate(invalid="ignore"):
        return {
            s: float(np.nanmean(error[code == n])) if np.isfinite(error[code == n]).any() else float("nan")
            for n, s in enumerate(task.series_ids)
        }
