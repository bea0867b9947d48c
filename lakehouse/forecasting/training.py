"""Training versions of models: fit, calibrate on issues that the fit did not see, write, and tell what it was made from.

The way through time is in `rolling.py`; where versions are kept is the business of `registry.py`.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from lakehouse.errors import ForecastError
from lakehouse.forecasting import metrics
from lakehouse.forecasting.features import TARGET_COLUMN, feature_names, history_days
from lakehouse.forecasting.models import ENSEMBLE, MODELS_VERSION, make_model
from lakehouse.forecasting.models.base import Model, column, first_known, is_dark, task_from_signature, task_signature
from lakehouse.forecasting.models.ensemble import Calibration, Forecaster, combine, member_weights
from lakehouse.forecasting.rolling import (
    LEAST_DAYS,
    NAIVE,
    NAIVE_CHAIN,
    Day,
    Walk,
    blocks_of,
    evaluated,
    fit,
    known_rows,
    learnable_days,
    members_of,
    walk,
)
from lakehouse.forecasting.task import ForecastTask

METADATA_FILE = "metadata.json"
BARE_LINEAR_DAYS = 300
"""With so many days the fallback without inputs is linear: a hundredth of the trees' time, and close behind them."""
RANGE = (0.005, 0.995)
"""Quantiles between which a training has seen an input; see `ModelVersion.input_ranges`."""


@dataclass
class ModelVersion:
    """A trained version: where its files are and what it was made from.

    Attributes:
        target, model: what it forecasts and its kind (`lightgbm`, `ensemble`, …).
        version: identifier, unique per target.
        trained_until: UTC instant; every actual that was used was known by then.
        folder: holds `metadata.json`, `model/` and `without_inputs/`.
        metrics: measures on the last issues before `trained_until`, forecast by fits that had not seen them.
        rows: rows of features that it was fitted to.
        input_ranges: for each input and the recent level of the target the range in which all but one in a hundred values of the
            training lay.
        models_version: `MODELS_VERSION` of the code that made it.
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
    rows: int = 0
    input_ranges: dict[str, tuple[float, float]] = field(default_factory=dict)
    models_version: int = 1

    @cached_property
    def forecaster(self) -> Forecaster:
        """The fitted model, loaded when it is first asked for."""
        return Forecaster.load(self.folder / "model")

    @cached_property
    def without_inputs(self) -> Forecaster | None:
        """The fallback that needs no exogenous input; None where the task has none."""
        folder = self.folder / "without_inputs"
        return Forecaster.load(folder) if folder.exists() else None

    @cached_property
    def naive(self) -> Forecaster:
        """The naive forecast with the spread that it had in the training."""
        return Forecaster.load(self.folder / "naive")

    def is_made_for(self, task: ForecastTask) -> bool:
        """Whether today's code made it, and for this very description of the target."""
        return self.models_version == MODELS_VERSION and task_from_signature(self.task) == task

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


@dataclass
class Training:
    """What `train_kinds` made.

    Attributes:
        newest: a version of each kind that could be trained.
        hindcasts: versions of one kind as of earlier issues, oldest first.
        forecasts, measures: of the evaluated issues, by model, as `rolling.rolling_origin` gives them; empty without evaluation.
        refused: why a kind could not be trained.
    """

    newest: dict[str, ModelVersion]
    hindcasts: list[ModelVersion]
    forecasts: pd.DataFrame
    measures: dict[str, dict[str, float]]
    refused: dict[str, ForecastError]


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
    """Trains one model on what was known at `trained_until` and writes it into `folder`.

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
    made = train_kinds(
        task,
        features,
        [model],
        trained_until=trained_until,
        folder_for=lambda name: folder,
        seed=seed,
        data_versions=data_versions,
        with_fallback=with_fallback,
    )
    if model in made.refused:
        raise made.refused[model]
    return made.newest[model]


def train_kinds(
    task: ForecastTask,
    features: pa.Table,
    kinds: Sequence[str],
    *,
    trained_until: pd.Timestamp,
    folder_for: Callable[[str], Path],
    evaluated_days: int = 0,
    refit_days: int = 14,
    hindcast_kind: str | None = None,
    seed: int = 0,
    data_versions: dict[str, Any] | None = None,
    with_fallback: bool = True,
) -> Training:
    """Trains a version of each kind, and evaluates them on the last issues, in one pass through time.

    Each model is fitted some weeks before the evaluated issues, at each refit among them, and on everything. What the earlier
    fits said of issues they had not seen is the evaluation, and calibrates the versions. Spread models and network weights are
    taken over from earlier fits only, so that nothing of the future gets in.

    Args:
        task: what is forecast.
        features: features of past issues.
        kinds: names among `MODEL_NAMES`, and `ensemble`.
        trained_until: UTC instant of the newest issue; nothing known later is used.
        folder_for: folder for a version, by a name that is unique within this training.
        evaluated_days: the last so many issue days are evaluated; 0 for none. None are either where the history before them is too short.
        refit_days: days between refits among them.
        hindcast_kind: kind of which a version is written at each of those refits as well.
        seed: of everything random.
        data_versions: table versions that the features were made from, for the record.
        with_fallback: whether a second model without the inputs is trained, for issues at which they are missing.

    Raises:
        ForecastError: when there are too few days for any model.
    """
    trained_until = pd.Timestamp(trained_until).tz_convert("UTC")
    known = known_rows(task, features, trained_until)
    last: Day = np.datetime64(trained_until.tz_convert(task.time_zone).date().isoformat())
    tomorrow: Day = last + 1  # type: ignore[assignment,operator]
    days = learnable_days(known, tomorrow)
    if len(days) < LEAST_DAYS:
        raise ForecastError(
            f"Training {', '.join(kinds)} for {task.target} needs at least {LEAST_DAYS} days with actuals known at "
            f"{trained_until.isoformat()}, found {len(days)}.",
            f"Land a longer history: {history_days(task)} days for the lags and at least {LEAST_DAYS} to learn from.",
        )
    start: Day = last - (evaluated_days - 1)  # type: ignore[assignment,operator]
    before = learnable_days(known, start)
    if evaluated_days <= 0 or len(before) < LEAST_DAYS:
        start, before = tomorrow, days
    members = {kind: members_of(kind, len(days)) for kind in kinds}
    names = list(dict.fromkeys(m for group in members.values() for m in group))
    is_evaluated = start < tomorrow
    if is_evaluated and "seasonal_naive" not in names:
        names.append("seasonal_naive")
    blocks = blocks_of(before, start, last, refit_days, keep=LEAST_DAYS if is_evaluated else 0)
    hindcasts: list[ModelVersion] = []
    made: dict[str, Any] = {"seed": seed, "data_versions": data_versions}

    def write_hindcast(begin: Day, issue: pd.Timestamp, walked: Walk) -> None:
        if hindcast_kind is None or begin < start:
            return
        fitted = {name: walked.fits[name] for name in members[hindcast_kind] if name in walked.fits}
        if fitted:  # before that there is too little history; the naive makes those issues, and says so
            rows = known_rows(task, features, issue)
            folder = folder_for(f"{hindcast_kind}-{begin}")
            hindcasts.append(_write_version(hindcast_kind, fitted, walked, rows, issue, begin, folder, fallback=None, **made))

    walked = walk(
        task, _as_known(task, features, trained_until) if is_evaluated else known, names, blocks, seed=seed, on_fit=write_hindcast
    )
    forecasts, measures = evaluated(walked, features, start, with_ensemble=ENSEMBLE in kinds) if is_evaluated else (pd.DataFrame(), {})

    final: dict[str, Model] = {}
    refused: dict[str, ForecastError] = {}
    for name in names:
        # the network would take over an earlier fit's weights as they are; the trees take over their spread, which changes slowly
        previous = walked.fits.get(name) if name == "lightgbm" else None
        try:
            final[name] = fit(name, known, task, seed, previous)
        except ForecastError as error:
            refused[name] = error
    past = walked.past_of(trained_until, tomorrow)
    fallback = _without_inputs(task, features, known, walked, past, seed) if with_fallback and task.inputs else None
    newest: dict[str, ModelVersion] = {}
    for kind in kinds:
        fitted = {name: final[name] for name in members[kind] if name in final}
        if fitted:
            own = None if kind in NAIVE else fallback
            newest[kind] = _write_version(
                kind, fitted, walked, known, trained_until, tomorrow, folder_for(f"{kind}-{last}"), fallback=own, **made
            )
    return Training(newest, hindcasts, forecasts, measures, {k: refused[members[k][0]] for k in kinds if k not in newest})


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


def _as_known(task: ForecastTask, features: pa.Table, at: pd.Timestamp) -> pa.Table:
    """Features without the actuals that were not known at an instant."""
    before = task.actuals_known_before(pd.DatetimeIndex([at]))[0]
    known = pc.less(features.column("valid_at"), pa.scalar(int(before.value // 1000), pa.int64()).cast(pa.timestamp("us", tz="UTC")))
    truth = features.column(TARGET_COLUMN)
    place = features.column_names.index(TARGET_COLUMN)
    return features.set_column(place, features.schema.field(place), pc.if_else(known, truth, pa.scalar(None, truth.type)))


def _without_inputs(
    task: ForecastTask, features: pa.Table, known: pa.Table, walked: Walk, past: np.ndarray, seed: int
) -> Forecaster | None:
    """A model that needs no exogenous input, calibrated on the walk's issues."""
    plain = [n for n in feature_names(task) if not depends_on_inputs(n, task)]
    long = len(learnable_days(known, walked.issue_day.max() + np.timedelta64(1, "D"))) >= BARE_LINEAR_DAYS
    name = "lear" if long and len(task.series_ids) == 1 else "lightgbm"
    unseen = walked.rows.take(pa.array(past))
    try:
        early = fit(name, known_rows(task, features, pd.Timestamp(unseen.column("issued_at")[0].as_py())), task, seed, columns=plain)
        model = fit(name, known, task, seed, previous=early, columns=plain)
    except (ForecastError, IndexError):  # too short a history
        return None
    day = walked.issue_day[past].astype(float)
    calibration = Calibration.from_past(early.predict(unseen), walked.truth[past], task.quantiles, day, is_dark=is_dark(unseen, task))
    return Forecaster({name: model}, {name: 1.0}, calibration, task.quantiles, plain)


def _write_version(
    kind: str,
    fitted: dict[str, Model],
    walked: Walk,
    rows: pa.Table,
    trained_until: pd.Timestamp,
    day: Day,
    folder: Path,
    *,
    fallback: Forecaster | None,
    seed: int,
    data_versions: dict[str, Any] | None,
) -> ModelVersion:
    """Weighs and calibrates fitted members by what the walk said of issues before `day`, and writes them."""
    task = walked.task
    past = walked.past_of(trained_until, day)
    raw = {name: walked.raw[name][past] for name in fitted}
    weights = member_weights(task, raw, walked.truth[past], walked.issue_day[past])
    combined = combine(raw, weights)
    said = np.isfinite(combined).all(axis=1)
    past, combined = past[said], combined[said]
    late, truth = walked.rows.take(pa.array(past)), walked.truth[past]
    days = walked.issue_day[past].astype(float)
    calibration = Calibration.from_past(combined, truth, task.quantiles, days, is_dark=is_dark(late, task))
    forecaster = Forecaster(fitted, weights, calibration, task.quantiles, feature_names(task))

    staging = folder.with_name(folder.name + ".new")
    shutil.rmtree(staging, ignore_errors=True)
    (staging / "model").mkdir(parents=True)
    forecaster.save(staging / "model")
    if fallback is not None:
        (staging / "without_inputs").mkdir()
        fallback.save(staging / "without_inputs")
    naive = make_model("seasonal_naive").fit(rows, task)
    (staging / "naive").mkdir()
    Forecaster({"seasonal_naive": naive}, {"seasonal_naive": 1.0}, Calibration.none(len(task.quantiles)), task.quantiles).save(
        staging / "naive"
    )
    valid = rows.column("valid_at")
    parameters = {name: m.parameters() for name, m in fitted.items()} | {"weights": weights}
    fingerprint = json.dumps(
        [task_signature(task), kind, trained_until.isoformat(), seed, data_versions or {}, rows.num_rows, parameters, MODELS_VERSION],
        sort_keys=True,
        default=str,
    )
    version = ModelVersion(
        target=task.target,
        model=kind,
        version=f"{kind}-{trained_until:%Y%m%dT%H%MZ}-{hashlib.sha256(fingerprint.encode()).hexdigest()[:8]}",
        trained_until=trained_until,
        folder=folder,
        # the second half is measured with the calibration of the first, so that its coverage is honest as well
        metrics=_held_out_measures(task, late, combined, truth) if len(past) else {},
        parameters=parameters,
        data_versions=dict(data_versions or {}),
        training_span=(pc.min(valid).as_py().isoformat(), pc.max(valid).as_py().isoformat()),
        feature_names=feature_names(task),
        packages=package_versions(),
        seed=seed,
        task=task_signature(task),
        rows=rows.num_rows,
        input_ranges=input_ranges(task, rows),
        models_version=MODELS_VERSION,
    )
    (staging / METADATA_FILE).write_text(json.dumps(version.record(), indent=1, sort_keys=True, default=_plain) + "\n", encoding="utf-8")
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    staging.rename(folder)
    return ModelVersion.read(folder)


def watched_inputs(task: ForecastTask) -> list[str]:
    """Features by which a change of the inputs is told: each exogenous input, and the target's recent level."""
    return [*(i.name if i.availability != "actual" else f"{i.name}_lag_7d" for i in task.inputs), "mean_168h"]


def input_ranges(task: ForecastTask, rows: pa.Table) -> dict[str, tuple[float, float]]:
    """The range of each watched input of a task with one series, in which all but one in a hundred values lie."""
    found = {}
    for name in watched_inputs(task) if len(task.series_ids) == 1 else []:
        values = column(rows, name)
        values = values[np.isfinite(values)]
        if len(values):
            low, high = np.quantile(values, RANGE)
            found[name] = (float(low), float(high))
    return found


def _held_out_measures(task: ForecastTask, late: pa.Table, raw: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    day = column(late, "days_since_2000")
    second = day > np.median(day)
    dark = is_dark(late, task)
    calibration = Calibration.from_past(raw[~second], truth[~second], task.quantiles, is_dark=dark[~second])
    quantiles = np.where(second[:, None], calibration.apply(raw, task.quantiles, is_dark=dark), raw)
    table = late.select(["series_id", "issued_at", "valid_at"]).to_pandas()
    table["actual"], table["naive"] = truth, first_known(late, NAIVE_CHAIN)
    for n, label in enumerate(task.quantile_columns):
        table[label] = quantiles[:, n]
    found = metrics.measure(table, task)
    later = metrics.measure(table[second], task)
    return {name: float(value) for name, value in (found | {"coverage_80": later["coverage_80"]}).items() if np.isfinite(value)}


def _plain(value: Any) -> Any:
    return value.item() if hasattr(value, "item") else str(value)
