"""A first forecast without learning: simple forecasts of a target, averaged by how well each did of late.

With a few weeks of history no single one of them is safe to build on: where the level moves, the last days are better than the
days of the same type, and where weekends matter it is the other way round.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from lakehouse.forecasting.features import TARGET_COLUMN
from lakehouse.forecasting.models.base import anchor, column
from lakehouse.forecasting.task import ForecastTask

RECENT = ("lag_known", "lag_2d", "lag_3d")
HALF_LIFE_DAYS = 14.0
POWER = 4.0
LEAST_ROWS = 48
SHORT_HISTORY_DAYS = 60
"""With fewer days to learn from, what learns starts from the blend, and the ensemble has it among its members."""


def simple_forecasts(features: pa.Table, task: ForecastTask) -> np.ndarray:
    """Simple forecasts (rows, kinds), NaN where unknown: the anchor, last week, the mean of a week and of the last days.

    Where the target has an operator's forecast, that is the anchor, and the only one.
    """
    first = anchor(features, task)
    if task.operator_input is not None:
        return first[:, None]
    recent = np.column_stack([column(features, name) for name in RECENT])
    known = np.isfinite(recent)
    count = known.sum(axis=1)
    mean = np.where(count > 0, np.where(known, recent, 0.0).sum(axis=1) / np.maximum(count, 1), np.nan)
    return np.column_stack([first, column(features, "lag_7d"), column(features, "week_mean"), mean])


def blend_weights(features: pa.Table, task: ForecastTask) -> np.ndarray:
    """Weights (series, kinds) of the simple forecasts: inversely to the fourth power of each one's error, recent days first."""
    said, truth = simple_forecasts(features, task), column(features, TARGET_COLUMN)
    code, day = column(features, "series_code").astype(int), column(features, "days_since_2000")
    weights = np.zeros((len(task.series_ids), said.shape[1]))
    weights[:, 0] = 1.0
    age = 0.5 ** ((day.max() - day) / HALF_LIFE_DAYS)
    error = np.abs(truth[:, None] - said) * age[:, None]
    whole = np.isfinite(error).all(axis=1)
    for s in range(len(weights)):
        mine = whole & (code == s)
        if mine.sum() >= LEAST_ROWS:
            size = error[mine].mean(axis=0)
            share = np.maximum(size, size.max() * 1e-6 + 1e-12) ** -POWER
            weights[s] = share / share.sum()
    return weights


def first_weights(features: pa.Table, task: ForecastTask) -> np.ndarray:
    """Weights of the forecast that a learning model corrects: the anchor alone, or on a short history the blend."""
    if len(np.unique(column(features, "days_since_2000"))) < SHORT_HISTORY_DAYS:
        return blend_weights(features, task)
    return anchor_only(task)


def anchor_only(task: ForecastTask) -> np.ndarray:
    """Weights that leave it at the anchor."""
    return np.ones((len(task.series_ids), 1))


def blended(features: pa.Table, task: ForecastTask, weights: np.ndarray) -> np.ndarray:
    """The weighted average (rows,); a simple forecast that is unknown leaves its weight to the others."""
    said = simple_forecasts(features, task)[:, : weights.shape[1]]
    known = np.isfinite(said)
    share = weights[column(features, "series_code").astype(int)] * known
    total = share.sum(axis=1)
    return np.where(total > 0, (np.where(known, said, 0.0) * share).sum(axis=1) / np.where(total > 0, total, 1.0), said[:, 0])
