"""LEAR: a regularised linear model for each hour of the day on the whole recent days.

After Lago, Marcjasz, De Schutter and Weron (2021), "Forecasting day-ahead electricity prices", Applied Energy 293, and
Uniejewski, Nowotarski and Weron (2016): variance-stabilised (asinh) inputs, one equation per hour, for prices a LASSO and an
average over calibration windows. Different from there: all hours share one Gram matrix, the penalty is chosen by AIC along a
falling path once and kept for a month of refits. Load, wind and solar, and short histories, use ridge regression with the
penalty by generalised cross-validation on all days: one singular value decomposition serves all hours.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from lakehouse.errors import ForecastError
from lakehouse.forecasting.features import TARGET_COLUMN
from lakehouse.forecasting.models.base import (
    Model,
    anchor,
    column,
    read_parameters,
    task_from_signature,
    task_signature,
    uncrossed,
    usable_columns,
    write_parameters,
)
from lakehouse.forecasting.models.day_matrix import DayMatrix, hourly
from lakehouse.forecasting.task import ForecastTask

WINDOWS_DAYS = (84, 364, 1092)  # and all there is
PENALTY_LIFE_DAYS = 28
MINIMUM_DAYS = 21
SPARSE_MINIMUM_DAYS = 365
RIDGE_PATH = tuple(float(v) for v in np.geomspace(0.1, 1e5, 25))
PATH = tuple(float(v) for v in np.geomspace(0.5, 0.002, 14))  # shares of the penalty that leaves nothing
PROFILE_LAGS = ("lag_1d", "lag_2d", "lag_3d", "lag_7d", "like_1", "like_mean")
SCALARS = (
    "holiday_share", "is_bridge_day", "day_before_holiday", "day_after_holiday", "holiday_share_lag_1d", "holiday_share_lag_2d", "holiday_share_lag_7d",
    "year_sin", "year_cos", "is_daylight_saving", "mean_24h", "mean_168h", "mean_672h", "min_24h", "max_24h", "change_6h", "change_24h", "last_value",
)  # fmt: skip
SKIPPED_ENDINGS = ("_day_mean", "_day_max", "_day_min", "_previous", "_next", "_like_1")


class Lear(Model):
    """LASSO-estimated autoregression with exogenous inputs, one equation per slot and calibration window."""

    name = "lear"

    def __init__(self, *, sparse: bool | None = None) -> None:
        """`sparse` chooses LASSO over several windows or ridge on all days; by default prices with a year of history are sparse."""
        self.sparse = sparse

    def fit(
        self, features: pa.Table, task: ForecastTask, *, seed: int = 0, previous: Model | None = None, columns: list[str] | None = None
    ) -> Lear:
        """Fits one equation per series, window and slot; see `Model.fit`.

        Raises:
            ForecastError: with fewer than 21 whole days.
        """
        del seed
        self.task = task
        self.columns = usable_columns(task, columns)
        self.equations: list[list[dict[str, Any]]] = []
        code = column(features, "series_code").astype(int)
        old = previous if isinstance(previous, Lear) and previous.columns == self.columns else None
        for s in range(len(task.series_ids)):
            rows = features.filter(pa.array(code == s)) if len(task.series_ids) > 1 else features
            self.equations.append(self._fit_series(rows, old.equations[s] if old is not None and s < len(old.equations) else None))
        return self

    def predict(self, features: pa.Table) -> np.ndarray:
        """Average over windows, in the target's unit; NaN for a series without equations."""
        code = column(features, "series_code").astype(int)
        result = np.full((features.num_rows, len(self.task.quantiles)), np.nan)
        for s, equations in enumerate(self.equations):
            mine = np.flatnonzero(code == s)
            if len(mine) == 0 or not equations:
                continue
            rows = features.take(pa.array(mine)) if len(mine) < features.num_rows else features
            grid = DayMatrix.of(rows, self.task)
            raw = self._day_inputs(rows, grid)
            total = np.zeros((len(raw), self.task.slots_per_day))
            for e in equations:
                x = _standardised(raw, e["centre"], e["spread"], e["fill"])
                z = x[:, e["kept"]] @ e["coefficients"].T + e["intercept"]
                total += np.sinh(np.clip(z, -8, 8)) * e["y_spread"] + e["y_centre"]
            point = grid.gather(total / len(equations))
            offsets = equations[0]["offsets"][grid.slot_of_row * 24 // self.task.slots_per_day]
            result[mine] = uncrossed(point[:, None] + offsets, self.task.median_index)
        return result

    def save(self, folder: Path) -> None:
        """Writes coefficients as `.npz` (no objects) and the rest as JSON."""
        arrays: dict[str, np.ndarray] = {}
        for s, equations in enumerate(self.equations):
            for n, e in enumerate(equations):
                arrays |= {f"{s}/{n}/{key}": np.asarray(value) for key, value in e.items()}
        np.savez_compressed(folder / "equations.npz", **arrays)
        write_parameters(folder, {"task": task_signature(self.task), "columns": self.columns, "windows": [len(e) for e in self.equations]})

    def load(self, folder: Path) -> Lear:
        """Reads what `save` wrote."""
        saved = read_parameters(folder)
        self.task = task_from_signature(saved["task"])
        self.columns = saved["columns"]
        with np.load(folder / "equations.npz", allow_pickle=False) as arrays:
            self.equations = [[{} for _ in range(count)] for count in saved["windows"]]
            for key in arrays.files:
                s, n, name = key.split("/")
                value = arrays[key]
                self.equations[int(s)][int(n)][name] = value if value.ndim else value.item()
        return self

    def parameters(self) -> dict[str, Any]:
        """Windows and sizes."""
        first = self.equations[0] if self.equations else []
        return {"windows_days": [int(e["days"]) for e in first], "inputs": len(first[0]["kept"]) if first else 0}

    def _fit_series(self, rows: pa.Table, old: list[dict[str, Any]] | None) -> list[dict[str, Any]]:
        grid = DayMatrix.of(rows, self.task)
        truth = grid.spread(column(rows, TARGET_COLUMN))
        day = grid.spread(column(rows, "days_since_2000"))[:, 0]
        whole = np.isfinite(truth).all(axis=1)
        if whole.sum() < MINIMUM_DAYS:
            raise ForecastError(
                f"LEAR for {self.task.target} needs at least {MINIMUM_DAYS} whole days, found {int(whole.sum())}.", "Give a longer history."
            )
        raw, truth, day = self._day_inputs(rows, grid)[whole], truth[whole], day[whole]
        age = day.max() - day
        sparse = self.sparse if self.sparse is not None else self.task.target == "price" and len(day) >= SPARSE_MINIMUM_DAYS
        spans = [w for w in WINDOWS_DAYS if age.max() > w * 1.15] if sparse else []
        equations = []
        for n, span in enumerate([*spans, None]):
            inside = age < span if span else np.ones(len(age), dtype=bool)
            kept_penalty = None
            if old is not None and n < len(old) and day.max() - old[n]["penalty_day"] < PENALTY_LIFE_DAYS and len(old) == len(spans) + 1:
                kept_penalty = (old[n]["penalty"], old[n]["penalty_day"])
            equations.append(_window(raw[inside], truth[inside], day[inside], kept_penalty, self.task, sparse=sparse))
        return equations

    def _day_inputs(self, rows: pa.Table, grid: DayMatrix) -> np.ndarray:
        """One row per day: hourly profiles of lags and inputs, weekday dummies and levels."""
        available = set(self.columns)
        profiles = [n for n in PROFILE_LAGS if n in available]
        inputs = [
            n
            for i in self.task.inputs
            for n in self.columns
            if (n == i.name or n.startswith(i.name + "_")) and not n.endswith(SKIPPED_ENDINGS)
        ]
        constant = [n for n in inputs if n.endswith(("_error_6h", "_error_24h", "_error_168h"))]
        # cloud, humidity and the like matter by the day; a whole profile of each would drown the equations in inputs
        for item in self.task.inputs:
            if item.kind == "weather" and item.quantity == "other":
                inputs = [n for n in inputs if n != item.name and not n.startswith(item.name + "_")]
                constant += [n for n in (f"{item.name}_day_mean",) if n in available]
        profiles += [n for n in dict.fromkeys(inputs) if n not in constant]
        if "temperature_mean_mean_24h" in available:
            profiles = [n for n in profiles if not any(n.startswith(i.name) for i in self.task.inputs if i.quantity == "temperature")]
            profiles += [
                "temperature_mean",
                "temperature_mean_mean_24h",
                "temperature_mean_heating",
                "temperature_mean_cooling",
                "temperature_mean_lag_7d",
            ]
        parts = [hourly(grid.spread(column(rows, n))) for n in profiles]
        first = grid.row_of[:, 0]
        scalars = [n for n in SCALARS if n in available] + constant
        parts += [column(rows, n)[first][:, None] for n in scalars]
        weekday = column(rows, "weekday")[first]
        parts += [(weekday == d).astype(float)[:, None] for d in range(7)]
        parts.append((grid.spread(anchor(rows, self.task)).mean(axis=1))[:, None])
        return np.column_stack(parts)


def _window(
    raw: np.ndarray, truth: np.ndarray, day: np.ndarray, kept_penalty: tuple[np.ndarray, float] | None, task: ForecastTask, *, sparse: bool
) -> dict[str, Any]:
    """Equations of one calibration window."""
    finite = np.isfinite(raw)
    fill = np.array([np.median(raw[finite[:, j], j]) if finite[:, j].any() else 0.0 for j in range(raw.shape[1])])
    filled = np.where(finite, raw, fill)
    centre = np.median(filled, axis=0)
    spread = np.median(np.abs(filled - centre), axis=0) * 1.4826
    flat = spread < 1e-9
    centre = np.where(flat, filled.mean(axis=0), centre)
    spread = np.where(flat, filled.std(axis=0), spread)
    kept = np.flatnonzero((finite.mean(axis=0) > 0.8) & (spread > 1e-9))
    spread = np.where(spread > 1e-9, spread, 1.0)
    x = _standardised(raw, centre, spread, fill)[:, kept]
    y_centre = float(np.median(truth))
    y_spread = _robust_spread(truth, y_centre)
    z = np.arcsinh((truth - y_centre) / y_spread)

    x_mean, z_mean = x.mean(axis=0), z.mean(axis=0)
    xc, zc = x - x_mean, z - z_mean
    days = len(xc)
    penalty_day = float(day.max())
    if not sparse:
        coefficients = _ridge_by_gcv(xc, zc)
        penalty = np.zeros(z.shape[1])
        return _equation(x, truth, coefficients, z_mean - coefficients @ x_mean, task) | {
            "centre": centre, "spread": spread, "fill": fill, "kept": kept, "y_centre": y_centre, "y_spread": y_spread, "penalty": penalty, "penalty_day": penalty_day, "days": days,
        }  # fmt: skip
    gram, xy, zz = xc.T @ xc / days, xc.T @ zc / days, (zc**2).mean(axis=0)
    if kept_penalty is not None and len(kept_penalty[0]) == z.shape[1]:
        penalty, penalty_day = kept_penalty
        coefficients = _lasso(gram, xy, penalty, np.zeros_like(xy)).T
    else:
        penalty, coefficients = _penalty_by_aic(gram, xy, zz, days)
    return _equation(x, truth, coefficients, z_mean - coefficients @ x_mean, task) | {
        "centre": centre, "spread": spread, "fill": fill, "kept": kept, "y_centre": y_centre, "y_spread": y_spread, "penalty": penalty, "penalty_day": penalty_day, "days": days,
    }  # fmt: skip


def _ridge_by_gcv(xc: np.ndarray, zc: np.ndarray) -> np.ndarray:
    """Ridge coefficients (slots, inputs), each slot's penalty by generalised cross-validation (Golub, Heath and Wahba 1979)."""
    u, s, vt = np.linalg.svd(xc, full_matrices=False)
    rotated = u.T @ zc
    outside = (zc**2).sum(axis=0) - (rotated**2).sum(axis=0)
    least = np.full(zc.shape[1], np.inf)
    chosen = np.full(zc.shape[1], RIDGE_PATH[0])
    for penalty in RIDGE_PATH:
        shrink = s**2 / (s**2 + penalty)
        residual = outside + (((1 - shrink)[:, None] * rotated) ** 2).sum(axis=0)
        score = residual / max(1 - shrink.sum() / len(xc), 1e-3) ** 2
        chosen = np.where(score < least, penalty, chosen)
        least = np.minimum(score, least)
    return (vt.T @ ((s[:, None] / (s[:, None] ** 2 + chosen)) * rotated)).T


def _penalty_by_aic(gram: np.ndarray, xy: np.ndarray, zz: np.ndarray, days: int) -> tuple[np.ndarray, np.ndarray]:
    """Penalty of each slot with the least corrected AIC along a falling path, and the coefficients (slots, inputs) there."""
    top = np.maximum(np.abs(xy).max(axis=0), 1e-9)
    b = np.zeros_like(xy)
    least = np.full(xy.shape[1], np.inf)
    penalty, best = top.copy(), b.copy()
    for share in PATH:
        b = _lasso(gram, xy, top * share, b, sweeps=30)
        residual = np.maximum(zz - 2 * (b * xy).sum(axis=0) + (b * (gram @ b)).sum(axis=0), 1e-9)
        used = (b != 0).sum(axis=0)
        aic = days * np.log(residual) + 2 * used * days / np.maximum(days - used - 1, 1)
        better = (aic < least) & (used < days * 0.5)
        least, penalty = np.where(better, aic, least), np.where(better, top * share, penalty)
        best = np.where(better, b, best)
    return penalty, best.T


def _lasso(gram: np.ndarray, xy: np.ndarray, penalty: np.ndarray, start: np.ndarray, sweeps: int = 100) -> np.ndarray:
    """LASSO for all slots at once: minimises ½ b'Gb - b'xy + penalty |b| by coordinate descent (Friedman et al. 2010)."""
    b = start.copy()
    diagonal = np.maximum(np.diag(gram), 1e-12)
    gradient = xy - gram @ b
    active = np.ones(len(b), dtype=bool)
    for sweep in range(sweeps):
        every = sweep % 8 == 0
        largest = 0.0
        for j in np.flatnonzero(np.ones(len(b), dtype=bool) if every else active):
            rho = gradient[j] + diagonal[j] * b[j]
            new = np.sign(rho) * np.maximum(np.abs(rho) - penalty, 0.0) / diagonal[j]
            step = new - b[j]
            size = np.abs(step).max()
            if size > 0:
                gradient -= gram[:, j, None] * step
                b[j] = new
                largest = max(largest, float(size))
        active = (b != 0).any(axis=1)
        if largest < 1e-4 and every:
            break
    return b


def _equation(x: np.ndarray, truth: np.ndarray, coefficients: np.ndarray, intercept: np.ndarray, task: ForecastTask) -> dict[str, Any]:
    """Coefficients with the quantiles of their in-sample errors by hour, about the median."""
    y_centre = float(np.median(truth))
    y_spread = _robust_spread(truth, y_centre)
    error = truth - (np.sinh(np.clip(x @ coefficients.T + intercept, -8, 8)) * y_spread + y_centre)
    by_hour = error.reshape(len(x), 24, -1).transpose(1, 0, 2).reshape(24, -1)
    offsets = np.quantile(by_hour, task.quantiles, axis=1).T
    return {"coefficients": coefficients, "intercept": intercept, "offsets": offsets - offsets[:, [task.median_index]]}


def _robust_spread(truth: np.ndarray, centre: float) -> float:
    return max(float(np.median(np.abs(truth - centre)) * 1.4826), float(truth.std()) * 0.05, 1e-9)


def _standardised(raw: np.ndarray, centre: np.ndarray, spread: np.ndarray, fill: np.ndarray) -> np.ndarray:
    """Inputs in robust standard units through asinh; gaps take the window's median."""
    return np.arcsinh((np.where(np.isfinite(raw), raw, fill) - centre) / spread)
