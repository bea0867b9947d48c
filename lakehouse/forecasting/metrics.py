"""How good forecasts are: point, probabilistic and relative measures, tables of them, and the test of a difference.

Percentages are percent (3.7, not 0.037). Rows without an actual do not count. Plots are in `report.py`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from lakehouse.forecasting.task import ForecastTask, quantile_column

MEASURES = ("n", "mae", "rmse", "mape", "wape", "mase", "rmae", "bias", "pinball", "crps", "coverage_80", "peak_hour_error")


def mae(actual: np.ndarray, forecast: np.ndarray) -> float:
    """Mean absolute error."""
    return float(np.nanmean(np.abs(actual - forecast)))


def rmse(actual: np.ndarray, forecast: np.ndarray) -> float:
    """Root mean squared error."""
    return float(np.sqrt(np.nanmean((actual - forecast) ** 2)))


def mape(actual: np.ndarray, forecast: np.ndarray) -> float:
    """Mean absolute percentage error over intervals whose actual is not zero, in percent."""
    with np.errstate(divide="ignore", invalid="ignore"):
        share = np.abs((actual - forecast) / actual)
    share = share[np.isfinite(share)]
    return float(100 * share.mean()) if len(share) else float("nan")


def wape(actual: np.ndarray, forecast: np.ndarray) -> float:
    """Sum of absolute errors over the sum of absolute actuals, in percent."""
    size = float(np.nansum(np.where(np.isfinite(forecast), np.abs(actual), 0.0)))
    return float(100 * np.nansum(np.abs(actual - forecast)) / size) if size > 0 else float("nan")


def pinball(actual: np.ndarray, quantiles: np.ndarray, probabilities: tuple[float, ...]) -> np.ndarray:
    """Pinball loss of each row, averaged over its quantiles.

    Args:
        actual: (rows,).
        quantiles: (rows, probabilities).
        probabilities: of the columns.
    """
    error = actual[:, None] - quantiles
    q = np.asarray(probabilities)
    return np.maximum(q * error, (q - 1) * error).mean(axis=1)


def crps(actual: np.ndarray, quantiles: np.ndarray, probabilities: tuple[float, ...]) -> float:
    """Continuous ranked probability score from quantiles: twice the pinball loss integrated over probability.

    Trapezoidal between the probabilities given, the outermost losses held to 0 and 1 (Gneiting and Raftery 2007, eq. 19 ff.).
    """
    error = actual[:, None] - quantiles
    q = np.asarray(probabilities)
    loss = np.nanmean(np.maximum(q * error, (q - 1) * error), axis=0)
    edges = np.concatenate([[0.0], q, [1.0]])
    padded = np.concatenate([[0.0], loss, [0.0]])
    return float(2 * np.trapezoid(padded, edges))


def coverage(actual: np.ndarray, low: np.ndarray, high: np.ndarray) -> float:
    """Percent of actuals within the interval, edges included; an interval without width says what is certain and does not count."""
    known = np.isfinite(actual) & np.isfinite(low) & (high > low)
    return float(100 * np.mean((actual[known] >= low[known]) & (actual[known] <= high[known]))) if known.any() else float("nan")


def measure(rows: pd.DataFrame, task: ForecastTask) -> dict[str, float]:
    """All measures of some rows.

    Args:
        rows: `actual`, the task's quantile columns, `naive` (same time last week) and, for MASE, `naive_scale` (the naive's
            MAE before the evaluated span).
        task: names the quantiles.
    """
    rows = rows[np.isfinite(rows["actual"].to_numpy(dtype=float)) & np.isfinite(rows["p50"].to_numpy(dtype=float))]
    if rows.empty:
        return {name: (0 if name == "n" else float("nan")) for name in MEASURES}
    actual, median = rows["actual"].to_numpy(dtype=float), rows["p50"].to_numpy(dtype=float)
    error = mae(actual, median)
    found: dict[str, float] = {
        "n": len(rows),
        "mae": error,
        "rmse": rmse(actual, median),
        "mape": mape(actual, median),
        "wape": wape(actual, median),
        "bias": float(np.mean(median - actual)),
    }
    naive = rows["naive"].to_numpy(dtype=float) if "naive" in rows else np.full(len(rows), np.nan)
    both = np.isfinite(naive)
    reference = mae(actual[both], naive[both]) if both.any() else float("nan")
    found["rmae"] = mae(actual[both], median[both]) / reference if both.any() and reference > 0 else float("nan")
    scale = float(rows["naive_scale"].mean()) if "naive_scale" in rows else float("nan")
    found["mase"] = error / scale if scale > 0 else float("nan")
    columns = [c for c in task.quantile_columns if c in rows]
    quantiles = rows[columns].to_numpy(dtype=float)
    if len(columns) > 1 and np.isfinite(quantiles).all(axis=1).any():
        probabilities = tuple(q for q in task.quantiles if quantile_column(q) in columns)
        found["pinball"] = float(np.nanmean(pinball(actual, quantiles, probabilities)))
        found["crps"] = crps(actual, quantiles, probabilities)
        found["coverage_80"] = coverage(actual, rows["p10"].to_numpy(dtype=float), rows["p90"].to_numpy(dtype=float))
    else:
        found |= {"pinball": float("nan"), "crps": float("nan"), "coverage_80": float("nan")}
    found["peak_hour_error"] = _peak_hour_error(rows, task)
    return {name: found[name] for name in MEASURES}


def accuracy_table(forecasts: pd.DataFrame, task: ForecastTask) -> pd.DataFrame:
    """Measures by series, model, horizon, hour and month, as a long table.

    Args:
        forecasts: `series_id`, `issued_at`, `valid_at`, `model`, `actual`, `naive`, quantile columns.
        task: for the local clock.

    Returns:
        `target`, `series_id`, `model`, `dimension` (`all`, `lead_day`, `hour`, `month`, `weekday`), `bucket` (text), and the measures.
    """
    local = forecasts["valid_at"].dt.tz_convert(task.time_zone)
    issued = forecasts["issued_at"].dt.tz_convert(task.time_zone)
    days = local.dt.tz_localize(None).dt.normalize() - issued.dt.tz_localize(None).dt.normalize()
    keyed = forecasts.assign(
        all="all",
        lead_day=days.dt.days.astype(str),
        hour=local.dt.strftime("%H"),
        month=local.dt.strftime("%Y-%m"),
        weekday=local.dt.strftime("%u"),
    )
    rows: list[dict[str, Any]] = []
    for dimension in ("all", "lead_day", "hour", "month", "weekday"):
        for (series_id, model, bucket), part in keyed.groupby(["series_id", "model", dimension], sort=True):
            rows.append(
                {"target": task.target, "series_id": series_id, "model": model, "dimension": dimension, "bucket": bucket}
                | measure(part, task)
            )
    return pd.DataFrame(rows)


def diebold_mariano(loss_a: np.ndarray, loss_b: np.ndarray, *, lags: int = 7) -> tuple[float, float]:
    """Tests whether the losses of A are smaller than those of B.

    Args:
        loss_a, loss_b: mean loss per issue day, in the same order.
        lags: autocorrelation lags of the Newey-West variance.

    Returns:
        The statistic (negative where A is better) and the one-sided p-value of "A is not better", with the small-sample
        correction of Harvey, Leybourne and Newbold (1997) to Diebold and Mariano (1995). (0, 1) where it cannot be told.
    """
    from scipy.stats import t

    difference = np.asarray(loss_a, dtype=float) - np.asarray(loss_b, dtype=float)
    difference = difference[np.isfinite(difference)]
    count = len(difference)
    if count < 8:
        return 0.0, 1.0
    mean = difference.mean()
    centred = difference - mean
    variance = float(centred @ centred) / count
    for lag in range(1, min(lags, count // 3) + 1):
        variance += 2 * (1 - lag / (lags + 1)) * float(centred[lag:] @ centred[:-lag]) / count
    if variance <= 0:
        return 0.0, 1.0
    statistic = float(mean / np.sqrt(variance / count)) * float(np.sqrt((count - 1) / count))
    return statistic, float(t.cdf(statistic, count - 1))


def _peak_hour_error(rows: pd.DataFrame, task: ForecastTask) -> float:
    """Mean distance in hours between the day's forecast and actual peak."""
    day = rows["valid_at"].dt.tz_convert(task.time_zone).dt.tz_localize(None).to_numpy().astype("datetime64[D]").astype(np.int64)
    series = pd.factorize(rows["series_id"])[0] if "series_id" in rows else np.zeros(len(rows), dtype=np.int64)
    _, group, size = np.unique(series * 1_000_000 + day, return_inverse=True, return_counts=True)
    hour = rows["valid_at"].dt.tz_convert("UTC").dt.tz_localize(None).to_numpy().astype("datetime64[s]").astype(np.int64) / 3600

    def peak(values: np.ndarray) -> np.ndarray:
        """Hour of each day's largest value, of the first where several are."""
        order = np.lexsort((-values, group))
        return hour[order[np.searchsorted(group[order], np.arange(len(size)))]]

    gap = np.abs(peak(rows["p50"].to_numpy(dtype=float)) - peak(rows["actual"].to_numpy(dtype=float)))
    whole = size >= 0.9 * task.slots_per_day
    return float(gap[whole].mean()) if whole.any() else float("nan")
