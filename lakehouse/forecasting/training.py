"""Training a version of a model, and rolling-origin evaluation.

Both work on a features table. Training ends at what was known at an issue; weights and calibration come from issues that the
members were not fitted to. Where versions are kept is the business of `registry.py`.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from lakehouse.errors import ForecastError
from lakehouse.forecasting import metrics
from lakehouse.forecasting.features import TARGET_COLUMN, feature_names, history_days
from lakehouse.forecasting.models import ENSEMBLE, MODEL_NAMES, make_model
from lakehouse.forecasting.models.base import Model, column, first_known, task_signature
from lakehouse.forecasting.models.ensemble import CALIBRATION_DAYS, Calibration, Forecaster, combine, weights_from_past
from lakehouse.forecasting.task import ForecastTask

ENSEMBLE_MEMBERS = ("lightgbm", "keras", "lear")
NAIVE_CHAIN = ["lag_7d", "lag_14d", "lag_21d", "lag_28d"]
METADATA_FILE = "metadata.json"
Progress = Callable[[int, int, str], None]


@dataclass
class ModelVersion:
    """A trained version: where its files are and what it was made from.

    Attributes:
        target, model: what it forecasts and its kind (`lightgbm`, `ensemble`, …).
        version: identifier, unique per target.
        trained_until: UTC instant; every actual that was used was known by then.
        folder: holds `metadata.json`, `model/` and `without_inputs/`.
        metrics: measures on the held-out last issues before `trained_until`.
    """

    target: str
    model: str
    version: str
    trained_until: pd.Timestamp
    folder: Path
    metrics: dict[str, float]
    parameters: dict[str, Any] = field(default_factory=dict)
    data_versions: dict[str, Any] = field(default_factory=dict)
    training_span: tuple[str, str] = ("", "")
    feature_names: list[str] = field(default_factory=list)
    packages: dict[str, str] = field(default_factory=dict)
    seed: int = 0
    task: dict[str, Any] = field(default_factory=dict)

    def forecaster(self) -> Forecaster:
        """Loads the fitted model."""
        return Forecaster.load(self.folder / "model")

    def without_inputs(self) -> Forecaster | None:
        """Loads the fallback that needs no exogenous input; None where the task has none."""
        folder = self.folder / "without_inputs"
        return Forecaster.load(folder) if folder.exists() else None

    def record(self) -> dict[str, Any]:
        """Everything but the folder, as JSON."""
        fields = asdict(self)
        fields.pop("folder")
        return fields | {"trained_until": self.trained_until.isoformat()}

    @classmethod
    def read(cls, folder: Path) -> ModelVersion:
        """Reads `metadata.json` of a version's folder."""
        fields = json.loads((folder / METADATA_FILE).read_text(encoding="utf-8"))
        fields["trained_until"] = pd.Timestamp(fields["trained_until"])
        fields["training_span"] = tuple(fields["training_span"])
        return cls(folder=folder, **fields)


def train(
    task: ForecastTask,
    features: pa.Table,
    *,
    model: str = "lightgbm",
    trained_until: pd.Timestamp,
    folder: Path,
    seed: int = 0,
    data_versions: dict[str, Any] | None = None,
    with_fallback: bool = True,
) -> ModelVersion:
    """Trains a model on what was known at `trained_until` and writes it into `folder`.

    The last issues are held out first: their errors give metrics, weights and calibration; then everything is fitted.

    Args:
        task: what is forecast.
        features: features of past issues; rows whose actual was not known at `trained_until` are left out.
        model: one of `MODEL_NAMES`, or `ensemble`.
        trained_until: UTC instant, usually an issue.
        folder: becomes the version's folder; replaced if it is there.
        seed: of everything random.
        data_versions: table versions that the features were made from, for the record.
        with_fallback: whether a second model without the inputs is trained, for issues at which they are missing.

    Raises:
        ForecastError: when there are too few days.
    """
    trained_until = pd.Timestamp(trained_until).tz_convert("UTC")
    rows = _known_rows(task, features, trained_until)
    days = np.unique(column(rows, "days_since_2000"))
    if len(days) < 14:
        raise ForecastError(
            f"Training {model} for {task.target} needs at least 14 days with actuals known at {trained_until.isoformat()}, "
            f"found {len(days)}.",
            f"Land a longer history: {history_days(task)} days for the lags and at least 14 to learn from.",
        )
    hold = holdout_days(len(days))
    held = column(rows, "days_since_2000") > days[-hold - 1]
    early, late = rows.filter(pa.array(~held)), rows.filter(pa.array(held))
    truth = column(late, TARGET_COLUMN)
    names = members_of(model, len(days) - hold)
    first = {name: _fit(name, early, task, seed, None, None) for name in names}
    past = {name: m.predict(late) for name, m in first.items()}
    weights = weights_from_past(past, truth, task.median_index)
    combined = combine(past, weights)
    calibration = Calibration.from_past(combined, truth, task.quantiles, days=hold)
    # the network would take over the held-out fit's weights as they are; the trees take over their spread, which changes slowly
    fitted = {name: _fit(name, rows, task, seed, first[name] if name == "lightgbm" else None, None) for name in names}
    forecaster = Forecaster(fitted, weights, calibration, task.quantiles, feature_names(task))
    # the held-out measures use the first half's calibration on the second half, so that they are honest as well
    scored = _held_out_measures(task, late, combined, truth)

    staging = folder.with_name(folder.name + ".new")
    shutil.rmtree(staging, ignore_errors=True)
    (staging / "model").mkdir(parents=True)
    forecaster.save(staging / "model")
    if with_fallback and task.inputs and model not in ("seasonal_naive", "like_day"):
        plain = [n for n in feature_names(task) if not depends_on_inputs(n, task)]
        bare = make_model("lightgbm").fit(early, task, seed=seed, columns=plain)
        bare_past = bare.predict(late)
        bare = make_model("lightgbm").fit(rows, task, seed=seed, previous=bare, columns=plain)
        (staging / "without_inputs").mkdir()
        Forecaster(
            {"lightgbm": bare}, {"lightgbm": 1.0}, Calibration.from_past(bare_past, truth, task.quantiles), task.quantiles, plain
        ).save(staging / "without_inputs")
    naive = Forecaster(
        {"seasonal_naive": make_model("seasonal_naive").fit(rows, task)},
        {"seasonal_naive": 1.0},
        Calibration.none(len(task.quantiles)),
        task.quantiles,
    )
    (staging / "naive").mkdir()
    naive.save(staging / "naive")
    valid = rows.column("valid_at")
    parameters = {name: m.parameters() for name, m in fitted.items()} | {"weights": weights}
    fingerprint = json.dumps(
        [task_signature(task), model, trained_until.isoformat(), seed, data_versions or {}, rows.num_rows, parameters],
        sort_keys=True,
        default=str,
    )
    version = ModelVersion(
        target=task.target,
        model=model,
        version=f"{model}-{trained_until:%Y%m%dT%H%MZ}-{hashlib.sha256(fingerprint.encode()).hexdigest()[:8]}",
        trained_until=trained_until,
        folder=folder,
        metrics=scored,
        parameters=parameters,
        data_versions=dict(data_versions or {}),
        training_span=(pc.min(valid).as_py().isoformat(), pc.max(valid).as_py().isoformat()),
        feature_names=feature_names(task),
        packages=package_versions(),
        seed=seed,
        task=task_signature(task),
    )
    (staging / METADATA_FILE).write_text(json.dumps(version.record(), indent=1, sort_keys=True, default=_plain) + "\n", encoding="utf-8")
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    staging.rename(folder)
    return ModelVersion.read(folder)


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
    inside = (issue_day >= start) & (issue_day <= stop)
    if not inside.any():
        raise ForecastError(
            f"There are no features of {task.target} for issue days {first_issue} to {last_issue}.",
            "Refresh the features of that span, or choose another.",
        )
    truth_all = column(features, TARGET_COLUMN)
    learnable = np.unique(issue_day[(issue_day < start) & np.isfinite(truth_all)])
    if len(learnable) < 14:
        raise ForecastError(
            f"A backtest of {task.target} from {first_issue} needs at least 14 earlier issue days with actuals, found {len(learnable)}.",
            "Begin later, or land a longer history.",
        )
    hold = holdout_days(len(learnable))
    if any(m not in ("seasonal_naive", "like_day") for m in base) and len(learnable) - hold < 14:
        hold = max(len(learnable) - 14, 0)
    warm_start = learnable[-hold] if hold else start
    blocks: list[tuple[np.datetime64, np.datetime64]] = [(warm_start, start)] if warm_start < start else []
    at = start
    while at <= stop:
        blocks.append((at, min(at + np.timedelta64(refit_days, "D"), stop + np.timedelta64(1, "D"))))
        at = at + np.timedelta64(refit_days, "D")
    selected = np.flatnonzero((issue_day >= warm_start) & (issue_day <= stop))
    rows = features.take(pa.array(selected))
    raw = {name: np.full((len(selected), len(task.quantiles)), np.nan) for name in base}
    day_of_row = issue_day[selected]
    seconds = dict.fromkeys(base, 0.0)
    last_error: ForecastError | None = None
    digest = _digest(task, features, seed)
    done, total = 0, len(blocks) * len(base)
    for name in base:
        previous: Model | None = None
        for begin, end in blocks:
            mine = np.flatnonzero((day_of_row >= begin) & (day_of_row < end))
            began = time.perf_counter()
            done += 1
            if len(mine):
                block_rows = rows.take(pa.array(mine))
                kept = resume / f"{name}_{begin}_{end}_{digest}.npy" if resume is not None else None
                if kept is not None and kept.exists():
                    raw[name][mine] = np.load(kept, allow_pickle=False)
                else:
                    issue = pd.Timestamp(block_rows.column("issued_at")[0].as_py())
                    known = _known_rows(task, features, issue)
                    try:
                        previous = _fit(name, known, task, seed, previous, None)
                    except ForecastError as error:  # too little history as yet: this model begins with a later block
                        last_error = error
                        continue
                    raw[name][mine] = previous.predict(block_rows)
                    if kept is not None:
                        kept.parent.mkdir(parents=True, exist_ok=True)
                        staging = kept.with_suffix(".part.npy")
                        np.save(staging, raw[name][mine])
                        staging.rename(kept)
            seconds[name] += time.perf_counter() - began
            if progress is not None:
                progress(done, total, f"{name} {begin}")
    for name in list(raw):
        if not np.isfinite(raw[name][day_of_row >= start]).any():
            del raw[name]
    if not raw:
        raise last_error or ForecastError(f"No model could forecast {task.target} from {first_issue} to {last_issue}.")
    truth = column(rows, TARGET_COLUMN)
    forecasts = _calibrated(task, rows, raw, truth, day_of_row, start, with_ensemble=ENSEMBLE in models)
    early = features.filter(pa.array(issue_day < start))
    scale = _naive_scale(early, task)
    forecasts["naive_scale"] = forecasts["series_id"].map(scale)
    measured = {
        str(m): metrics.measure(part, task) | {"seconds": seconds.get(str(m), sum(seconds.values()))}
        for m, part in forecasts.groupby("model", sort=False)
    }
    return forecasts, measured


def holdout_days(days: int) -> int:
    """Days held out of a history for weights and calibration: a fifth, between 7 and 56."""
    return int(np.clip(days // 5, 7, 56)) if days >= 21 else max(days // 3, 1)


def members_of(model: str, days: int) -> list[str]:
    """Members of a model: itself, or those of the ensemble that so many days can feed."""
    if model != ENSEMBLE:
        return [model]
    return [m for m in ENSEMBLE_MEMBERS if days >= 35 or m == "lightgbm"]


def depends_on_inputs(feature: str, task: ForecastTask) -> bool:
    """True where a feature reads an exogenous input."""
    return any(feature == i.name or feature.startswith(i.name + "_") for i in task.inputs) or feature.startswith("temperature_mean")


def package_versions() -> dict[str, str]:
    """Versions of the packages that a model's numbers depend on."""
    from importlib.metadata import PackageNotFoundError, version

    found = {}
    for name in (
        "gridlake",
        "numpy",
        "pandas",
        "pyarrow",
        "duckdb",
        "lightgbm",
        "keras",
        "tensorflow-cpu",
        "tensorflow",
        "holidays",
        "pvlib",
    ):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _fit(name: str, rows: pa.Table, task: ForecastTask, seed: int, previous: Model | None, columns: list[str] | None) -> Model:
    return make_model(name).fit(rows, task, seed=seed, previous=previous, columns=columns)


def _known_rows(task: ForecastTask, features: pa.Table, at: pd.Timestamp) -> pa.Table:
    """Rows whose actual is there and was known at an instant."""
    before = task.actuals_known_before(pd.DatetimeIndex([at]))[0]
    limit = pa.scalar(int(before.value // 1000), pa.int64()).cast(pa.timestamp("us", tz="UTC"))
    mask = pc.and_(pc.less(features.column("valid_at"), limit), pc.is_valid(features.column(TARGET_COLUMN)))
    return features.filter(mask)


def _calibrated(
    task: ForecastTask,
    rows: pa.Table,
    raw: dict[str, np.ndarray],
    truth: np.ndarray,
    issue_day: np.ndarray,
    start: np.datetime64,
    *,
    with_ensemble: bool,
) -> pd.DataFrame:
    """Weights and calibrates day by day from issues whose actuals were known at the issue."""
    valid = rows.column("valid_at").cast(pa.int64()).to_numpy()
    issued = rows.column("issued_at").cast(pa.int64()).to_numpy()
    days = np.unique(issue_day[issue_day >= start])
    learning = [m for m in raw if m in ENSEMBLE_MEMBERS] or list(raw)
    final = {name: values.copy() for name, values in raw.items()}
    mixed = np.full_like(next(iter(raw.values())), np.nan)
    if with_ensemble:
        final[ENSEMBLE] = np.full_like(mixed, np.nan)
    for day in days:
        today = np.flatnonzero(issue_day == day)
        issue = pd.DatetimeIndex([pd.Timestamp(int(issued[today[0]]), unit="us", tz="UTC")])
        known_us = task.actuals_known_before(issue)[0].value // 1000
        past = np.flatnonzero((issue_day < day) & (issue_day >= day - np.timedelta64(CALIBRATION_DAYS, "D")) & (valid < known_us))
        past_days = len(np.unique(issue_day[past]))
        for name, values in raw.items():
            if name in ("seasonal_naive", "like_day") and len(past) == 0:
                continue
            final[name][today] = Calibration.from_past(values[past], truth[past], task.quantiles, past_days).apply(
                values[today], task.quantiles
            )
        if with_ensemble:
            weights = weights_from_past({m: raw[m][past] for m in learning}, truth[past], task.median_index)
            mixed[today] = combine({m: raw[m][today] for m in learning}, weights)
            mixed_past = combine({m: raw[m][past] for m in learning}, weights)
            final[ENSEMBLE][today] = Calibration.from_past(mixed_past, truth[past], task.quantiles, past_days).apply(
                mixed[today], task.quantiles
            )
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


def _held_out_measures(task: ForecastTask, late: pa.Table, raw: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    day = column(late, "days_since_2000")
    second = day > np.median(day)
    calibration = Calibration.from_past(raw[~second], truth[~second], task.quantiles)
    quantiles = np.where(second[:, None], calibration.apply(raw, task.quantiles), raw)
    table = late.select(["series_id", "issued_at", "valid_at"]).to_pandas()
    table["actual"], table["naive"] = truth, first_known(late, NAIVE_CHAIN)
    for n, label in enumerate(task.quantile_columns):
        table[label] = quantiles[:, n]
    found = metrics.measure(table, task)
    later = metrics.measure(table[second], task)
    return {name: float(value) for name, value in (found | {"coverage_80": later["coverage_80"]}).items() if np.isfinite(value)}


def _digest(task: ForecastTask, features: pa.Table, seed: int) -> str:
    """Short fingerprint of what a block's forecasts follow from, so that a resumed backtest takes no other's blocks."""
    sums = [float(np.nansum(column(features, name))) for name in (TARGET_COLUMN, *feature_names(task)[-12:])]
    text = json.dumps([task_signature(task), features.num_rows, sums, seed])
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


def _plain(value: Any) -> Any:
    return value.item() if hasattr(value, "item") else str(value)
