"""The interface of a model, and the two things that all of them share: the anchor and the scale of a target.

A model predicts raw quantiles; weights and calibration from past issues are added in `ensemble.py`. Features come in as
the table of `features.build_features`.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from lakehouse.forecasting.features import TARGET_COLUMN, feature_dictionary, feature_names
from lakehouse.forecasting.task import ForecastTask

DUSK_DEG = 3.0
PARAMETERS_FILE = "parameters.json"


class Model(ABC):
    """Something that can be fitted to features and predicts quantiles.

    Fitting drops rows without a target. `previous` is the same model fitted to an earlier part of the same rows: a model
    may start from it to be quicker, and must then not be used together with it.
    """

    name: ClassVar[str]
    task: ForecastTask

    @abstractmethod
    def fit(
        self, features: pa.Table, task: ForecastTask, *, seed: int = 0, previous: Model | None = None, columns: list[str] | None = None
    ) -> Model:
        """Fits to the rows that have a target; `columns` limits the features to some. Returns itself."""

    @abstractmethod
    def predict(self, features: pa.Table) -> np.ndarray:
        """Quantiles (rows, probabilities), never crossing, in the target's unit; NaN where it has nothing to go by."""

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Writes weights and parameters into an existing folder: text, JSON, `.npz` without objects or `.keras`, never a pickle."""

    @abstractmethod
    def load(self, folder: Path) -> Model:
        """Reads what `save` wrote. Returns itself."""

    def explain(self) -> dict[str, float]:
        """Importance of each feature, summing to one; empty where the model has none."""
        return {}

    def parameters(self) -> dict[str, Any]:
        """Parameters of the last fit, for the record."""
        return {}


def column(features: pa.Table, name: str) -> np.ndarray:
    """One column as float64, NaN for null."""
    return features.column(name).to_numpy(zero_copy_only=False).astype(float, copy=False)


def matrix(features: pa.Table, names: list[str]) -> np.ndarray:
    """Some columns as a float64 matrix (rows, names), NaN for null."""
    result = np.empty((features.num_rows, len(names)))
    for n, name in enumerate(names):
        result[:, n] = column(features, name)
    return result


def first_known(features: pa.Table, names: list[str]) -> np.ndarray:
    """For each row the first of the named columns that has a value."""
    result = np.full(features.num_rows, np.nan)
    for name in names:
        if name in features.column_names:
            result = np.where(np.isfinite(result), result, column(features, name))
    return result


def anchor(features: pa.Table, task: ForecastTask) -> np.ndarray:
    """The simple forecast that models correct: the operator's where there is one, else what the target's kind suggests."""
    chain = {
        "demand": ["like_mean", "like_1", "lag_7d"],
        "wind": ["mean_24h", "mean_168h"],
        "solar": ["week_mean"],
        "price": ["lag_known", "like_mean"],
    }[task.target]
    operator = task.operator_input
    names = ([operator.name] if operator is not None else []) + chain
    return first_known(features, [*names, "lag_7d", "week_mean", "lag_known", "four_week_mean", "mean_168h", "last_value"])


def series_scale(features: pa.Table, task: ForecastTask) -> np.ndarray:
    """Scale of each of the task's series: the mean size of its target over the rows given, at least a trace."""
    code = column(features, "series_code").astype(int)
    size = np.abs(column(features, TARGET_COLUMN))
    scale = np.ones(len(task.series_ids))
    for n in range(len(task.series_ids)):
        rows = size[(code == n) & np.isfinite(size)]
        if len(rows):
            scale[n] = max(float(rows.mean()), 1e-6)
    return scale


def own_unit_columns(task: ForecastTask) -> list[str]:
    """Features in the target's own unit: they are divided by the series' scale."""
    return [name for name, unit, _ in feature_dictionary(task) if unit == task.unit and unit != "1"]


def inputs_around(features: pa.Table, task: ForecastTask, names: list[str], base: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Some columns (rows, names), those in the target's unit as differences to a first forecast and in units of the series.

    Args:
        features: feature table.
        task: what is forecast.
        names: columns to take.
        base: (rows,) first forecast, in the target's unit.
        scale: scale of each series, see `series_scale`.
    """
    x = matrix(features, names)
    size = scale[column(features, "series_code").astype(int)]
    own = set(own_unit_columns(task))
    for n, name in enumerate(names):
        if name in own:
            is_difference = name.startswith(("std_", "change_")) or "_error_" in name
            x[:, n] = (x[:, n] if is_difference else x[:, n] - base) / size
    return x


def usable_columns(task: ForecastTask, columns: list[str] | None) -> list[str]:
    """The feature columns that a fit may use, in table order."""
    names = feature_names(task)
    return names if columns is None else [n for n in names if n in set(columns)]


def is_dark(features: pa.Table, task: ForecastTask) -> np.ndarray:
    """Rows (rows,) of a solar target in whose whole interval the sun is down, also at the edges of a country around the site."""
    if task.target != "solar" or "sun_elevation_deg" not in features.column_names:
        return np.zeros(features.num_rows, bool)
    half_an_interval_deg = 15.0 * task.interval_minutes / 120  # the sky turns by 15 degrees an hour
    return column(features, "sun_elevation_deg") < -(half_an_interval_deg + DUSK_DEG)


def uncrossed(quantiles: np.ndarray, median: int) -> np.ndarray:
    """Quantiles made increasing from the median outwards, which itself stays as it is."""
    result = quantiles.copy()
    result[:, median:] = np.maximum.accumulate(result[:, median:], axis=1)
    result[:, : median + 1] = np.minimum.accumulate(result[:, median::-1], axis=1)[:, ::-1]
    return result


def task_signature(task: ForecastTask) -> dict[str, Any]:
    """The parts of a task that a saved model needs again, as JSON."""
    from dataclasses import asdict

    return json.loads(json.dumps(asdict(task)))


def task_from_signature(signature: dict[str, Any]) -> ForecastTask:
    """The task that `task_signature` described."""
    from lakehouse.forecasting.task import ExogenousInput

    fields = dict(signature)
    fields["series_ids"] = tuple(fields["series_ids"])
    fields["quantiles"] = tuple(fields["quantiles"])
    fields["inputs"] = tuple(ExogenousInput(**i) for i in fields["inputs"])
    return ForecastTask(**fields)


def write_parameters(folder: Path, parameters: dict[str, Any]) -> None:
    """Writes `parameters.json`."""
    (folder / PARAMETERS_FILE).write_text(json.dumps(parameters, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def read_parameters(folder: Path) -> dict[str, Any]:
    """Reads `parameters.json`."""
    return json.loads((folder / PARAMETERS_FILE).read_text(encoding="utf-8"))
