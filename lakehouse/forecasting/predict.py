"""Forecasts of one or more issues by a trained version, with a fallback for everything that can go wrong.

The chain: the version itself; the version's model without exogenous inputs; like day; same time last week; the mean of the hour.
Whatever is not the version itself is flagged with the reason.
"""

from __future__ import annotations

import logging

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lakehouse.errors import ForecastError
from lakehouse.forecasting.features import TARGET_COLUMN
from lakehouse.forecasting.models.base import column, first_known
from lakehouse.forecasting.task import ForecastTask
from lakehouse.forecasting.training import ModelVersion

log = logging.getLogger(__name__)
MISSING_SHARE = 0.05  # an input with more gaps than this on the target day counts as missing


def forecast_schema(task: ForecastTask) -> pa.Schema:
    """Arrow schema of the table that `forecast` returns."""
    instant = pa.timestamp("us", tz="UTC")
    fields = [pa.field("series_id", pa.string()), pa.field("issued_at", instant), pa.field("valid_at", instant)]
    fields += [pa.field(name, pa.float64()) for name in task.quantile_columns]
    fields += [
        pa.field("model", pa.string()),
        pa.field("model_version", pa.string()),
        pa.field("is_fallback", pa.bool_()),
        pa.field("fallback_reason", pa.string()),
    ]
    return pa.schema(fields)


def forecast(task: ForecastTask, features: pa.Table, version: ModelVersion | None) -> pa.Table:
    """Forecasts every row of a features table; always gives a value.

    Each issue is computed by itself, so that a forecast is the same to the last bit whichever others are made along with it.

    Args:
        task: what is forecast.
        features: features of the issues, as `build_features` gives them.
        version: the trained version; None forecasts by the naive chain, flagged.

    Returns:
        A table in `forecast_schema(task)`, one row per feature row and in that order. Quantiles are in the target's unit and
        never cross; wind, solar and demand are not below zero where no known actual was. `fallback_reason` is null where
        `is_fallback` is false.

    Raises:
        ForecastError: when there are no rows, or when the version was trained on data later than an issue.
    """
    rows = features.num_rows
    if rows == 0:
        raise ForecastError(f"There are no features to forecast {task.target} from.", "Refresh the features of the issue day first.")
    issued = features.column("issued_at").combine_chunks()
    issues = sorted(issued.unique().to_pylist())
    if version is not None and version.trained_until > issues[0]:
        raise ForecastError(
            f"Version {version.version} was trained on data known at {version.trained_until.isoformat()}, "
            f"after the issue {issues[0].isoformat()}.",
            "Use the registry's model_for(target, issued_at).",
        )
    if len(issues) == 1:
        return _one_issue(task, features, version)
    places = [np.flatnonzero(pc.equal(issued, pa.scalar(one, issued.type)).to_numpy(zero_copy_only=False)) for one in issues]
    made = pa.concat_tables([_one_issue(task, features.take(pa.array(mine)), version) for mine in places])
    return made.take(pa.array(np.argsort(np.concatenate(places))))


def _one_issue(task: ForecastTask, features: pa.Table, version: ModelVersion | None) -> pa.Table:
    rows = features.num_rows
    quantiles = np.full((rows, len(task.quantiles)), np.nan)
    model = np.full(rows, "", dtype=object)
    reason = np.full(rows, None, dtype=object)
    fallback = np.zeros(rows, dtype=bool)
    trouble = _trouble(task, features)
    if version is None:
        trouble = np.where(trouble == "", f"no trained model of {task.target}", trouble)
    healthy = trouble == ""

    if version is not None and healthy.any():
        try:
            found = version.forecaster.predict(features.filter(pa.array(healthy)))
            quantiles[healthy], model[healthy] = found, version.model
            lost = healthy & ~np.isfinite(quantiles).all(axis=1)
            trouble[lost] = f"{version.model} gave no value"
        except Exception as error:  # a forecast still has to come; the reason goes with it
            log.exception("model %s failed", version.version)
            trouble[healthy] = f"{version.model} failed: {type(error).__name__}"
    pending = ~np.isfinite(quantiles).all(axis=1)
    if version is not None and pending.any():
        usable = pending & ~np.char.startswith(trouble.astype(str), "actuals")
        if usable.any():
            try:
                bare = version.without_inputs
                if bare is not None:
                    quantiles[usable] = bare.predict(features.filter(pa.array(usable)))
                    model[usable] = f"{version.model}_without_inputs"
            except Exception:
                log.exception("fallback without inputs of %s failed", version.version)
        pending = ~np.isfinite(quantiles).all(axis=1)
    fallback |= trouble != ""
    reason[fallback] = trouble[fallback]
    if pending.any():
        values, label = _naive(task, features.filter(pa.array(pending)), version)
        quantiles[pending], model[pending] = values, label
    quantiles = _bounded(task, features, quantiles)
    columns = {name: quantiles[:, n] for n, name in enumerate(task.quantile_columns)}
    return pa.table(
        {
            "series_id": features.column("series_id"),
            "issued_at": features.column("issued_at"),
            "valid_at": features.column("valid_at"),
            **columns,
            "model": pa.array(model.tolist(), pa.string()),
            "model_version": pa.array([version.version if version is not None else "none"] * rows, pa.string()),
            "is_fallback": fallback,
            "fallback_reason": pa.array(reason.tolist(), pa.string()),
        }
    ).cast(forecast_schema(task))


def _trouble(task: ForecastTask, features: pa.Table) -> np.ndarray:
    """For each row what keeps the full model from being trusted; empty where nothing does."""
    rows = features.num_rows
    trouble = np.full(rows, "", dtype=object)
    key = np.array(
        [
            f"{s}|{i}"
            for s, i in zip(
                features.column("series_id").to_pylist(), features.column("issued_at").cast(pa.int64()).to_pylist(), strict=True
            )
        ]
    )
    for one in np.unique(key):
        mine = np.flatnonzero(key == one)
        part = features.take(pa.array(mine))
        found = []
        for item in task.inputs:
            name = item.name if item.availability != "actual" else f"{item.name}_lag_7d"
            values = column(part, name)
            gaps = float(np.mean(~np.isfinite(values)))
            if gaps > MISSING_SHARE:
                found.append(f"input {item.name} is missing for {gaps:.0%} of the target day")
            elif item.forecasts_target and task.target != "solar" and len(values) > 4 and np.nanmax(values) == np.nanmin(values):
                found.append(f"input {item.name} is a flat line")
        low, high, week = column(part, "min_24h")[0], column(part, "max_24h")[0], column(part, "std_168h")[0]
        if not np.isfinite(low):
            found.append("actuals of the last 24 hours are missing")
            found.sort(key=lambda text: not text.startswith("actuals"))
        elif low == high and week > 0 and abs(low) > 0:
            found.append("actuals of the last 24 hours are a flat line")
            found.sort(key=lambda text: not text.startswith("actuals"))
        trouble[mine] = "; ".join(found)
    return trouble


def _naive(task: ForecastTask, features: pa.Table, version: ModelVersion | None) -> tuple[np.ndarray, np.ndarray]:
    """Like day or last week with the spread of the saved naive; without a version a spread of a tenth of the level."""
    rows = features.num_rows
    like = first_known(features, ["like_mean"])
    week = first_known(features, ["lag_7d", "lag_14d", "lag_21d", "lag_28d", "week_mean", "lag_known"])
    label = np.where(np.isfinite(like), "like_day", np.where(np.isfinite(week), "seasonal_naive", "climatology"))
    saved: np.ndarray | None = None
    if version is not None:
        try:
            saved = version.naive.predict(features)
        except Exception:
            log.exception("the saved naive of %s failed", version.version)
    level = first_known(features, ["mean_168h", "mean_672h", "last_value"])
    point = np.where(
        np.isfinite(like), like, np.where(np.isfinite(week), week, saved[:, task.median_index] if saved is not None else level)
    )
    point = np.where(np.isfinite(point), point, np.nanmean(point) if np.isfinite(point).any() else 0.0)
    if saved is not None:
        return point[:, None] + saved - saved[:, [task.median_index]], label
    from statistics import NormalDist

    steps = np.array([NormalDist().inv_cdf(q) for q in task.quantiles])
    size = np.where(np.isfinite(column(features, "std_168h")), column(features, "std_168h") * 0.5, np.abs(point) * 0.1)
    del rows
    return point[:, None] + steps * size[:, None], label


def _bounded(task: ForecastTask, features: pa.Table, quantiles: np.ndarray) -> np.ndarray:
    """Cuts below zero where the quantity is not negative, and solar by night."""
    if task.target == "price" or TARGET_COLUMN not in features.column_names:
        return quantiles
    if task.target in ("wind", "solar") or not np.any(column(features, "min_24h") < 0):
        quantiles = np.maximum(quantiles, 0.0)
    return quantiles
