"""LEAR: a regularised linear model for each slot of the day on the whole recent days.

After Lago, Marcjasz, De Schutter and Weron (2021), "Forecasting day-ahead electricity prices", Applied Energy 293, and
Uniejewski, Nowotarski and Weron (2016): variance-stabilised (asinh) inputs and one equation per hour, for prices as for load.
Different from there: ridge regression in place of the LASSO, with each slot's penalty by generalised cross-validation, on all
days in place of an average over calibration windows, and with an operator's forecast among the inputs the equations are about
its error. One eigenvalue decomposition serves all slots and penalties, and tells what fits without some of the days would have
said as well; measured on published data it was as good or better (docs/forecasting.md).
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

MINIMUM_DAYS = 21
PENALTIES = tuple(float(v) for v in np.geomspace(0.1, 1e5, 25))
LEAST_LEFT_OUT = 1e-6  # share of an error that a fit at least leaves: keeps off zero
PROFILE_LAGS = ("lag_1d", "lag_2d", "lag_3d", "lag_7d", "like_1", "like_mean")
SCALARS = (
    *("holiday_share", "is_bridge_day", "day_before_holiday", "day_after_holiday"),
    *("holiday_share_lag_1d", "holiday_share_lag_2d", "holiday_share_lag_7d", "year_sin", "year_cos", "is_daylight_saving"),
    *("mean_24h", "mean_168h", "mean_672h", "min_24h", "max_24h", "change_6h", "change_24h", "last_value"),
)
SKIPPED_ENDINGS = ("_day_mean", "_day_max", "_day_min", "_previous", "_next", "_like_1")
TEMPERATURE_PROFILES = (
    *("temperature_mean", "temperature_mean_mean_24h", "temperature_mean_heating", "temperature_mean_cooling", "temperature_mean_lag_7d"),
)


class Lear(Model):
    """Ridge-estimated autoregression with exogenous inputs, one equation per series and slot."""

    name = "lear"
    left_out: np.ndarray

    def fit(
        self,
        features: pa.Table,
        task: ForecastTask,
        *,
        seed: int = 0,
        previous: Model | None = None,
        columns: list[str] | None = None,
        groups: np.ndarray | None = None,
    ) -> Lear:
        """Fits one equation per series and slot; see `Model.fit`.

        Args:
            groups: (rows,) number of the group of days that a row belongs to. `left_out` is then, for each row, what the equations
                would say if they had not been fitted to its group; it is not saved.

        Raises:
            ForecastError: with fewer than 21 whole days of a series.
        """
        del seed, previous
        self.task = task
        self.columns = usable_columns(task, columns)
        code = column(features, "series_code").astype(int)
        self.equations: list[dict[str, Any]] = []
        self.left_out = np.full(features.num_rows, np.nan)
        for s in range(len(task.series_ids)):
            mine = np.flatnonzero(code == s)
            rows = features.take(pa.array(mine)) if len(mine) < features.num_rows else features
            equations, said = self._fit_series(rows, groups[mine] if groups is not None else None)
            self.equations.append(equations)
            self.left_out[mine] = said
        return self

    def predict(self, features: pa.Table) -> np.ndarray:
        """Quantiles in the target's unit: the equations' value and the quantiles of their past errors by hour."""
        code = column(features, "series_code").astype(int)
        result = np.full((features.num_rows, len(self.task.quantiles)), np.nan)
        for s, e in enumerate(self.equations):
            mine = np.flatnonzero(code == s)
            if len(mine) == 0:
                continue
            rows = features.take(pa.array(mine)) if len(mine) < features.num_rows else features
            grid = DayMatrix.of(rows, self.task)
            x = _standardised(self._day_inputs(rows, grid), e["centre"], e["spread"], e["fill"])
            z = x[:, e["kept"]] @ e["coefficients"].T + e["intercept"]
            point = grid.gather(np.sinh(np.clip(z, -8, 8)) * e["y_spread"] + e["y_centre"]) + _base(rows, self.task)
            offsets = e["offsets"][grid.slot_of_row * 24 // self.task.slots_per_day]
            result[mine] = uncrossed(point[:, None] + offsets, self.task.median_index)
        return result

    def save(self, folder: Path) -> None:
        """Writes coefficients as `.npz` (no objects) and the rest as JSON."""
        arrays = {f"{s}/{key}": np.asarray(value) for s, e in enumerate(self.equations) for key, value in e.items()}
        np.savez_compressed(folder / "equations.npz", **arrays)  # type: ignore[arg-type]
        write_parameters(folder, {"task": task_signature(self.task), "columns": self.columns, "series": len(self.equations)})

    def load(self, folder: Path) -> Lear:
        """Reads what `save` wrote."""
        saved = read_parameters(folder)
        self.task = task_from_signature(saved["task"])
        self.columns = saved["columns"]
        self.equations = [{} for _ in range(saved["series"])]
        with np.load(folder / "equations.npz", allow_pickle=False) as arrays:
            for key in arrays.files:
                s, name = key.split("/")
                value = arrays[key]
                self.equations[int(s)][name] = value if value.ndim else value.item()
        return self

    def parameters(self) -> dict[str, Any]:
        """Sizes of the first series' equations."""
        first = self.equations[0]
        return {"days": int(first["days"]), "inputs": len(first["kept"])}

    def _fit_series(self, rows: pa.Table, groups: np.ndarray | None) -> tuple[dict[str, Any], np.ndarray | float]:
        grid = DayMatrix.of(rows, self.task)
        truth = grid.spread(column(rows, TARGET_COLUMN) - _base(rows, self.task))
        whole = np.isfinite(truth).all(axis=1)
        if whole.sum() < MINIMUM_DAYS:
            raise ForecastError(
                f"LEAR for {self.task.target} needs at least {MINIMUM_DAYS} whole days, found {int(whole.sum())}.", "Give a longer history."
            )
        group = groups[grid.row_of[whole, 0]] if groups is not None else None
        equations, said = _equations(self._day_inputs(rows, grid)[whole], truth[whole], self.task, group)
        by_slot = np.full(truth.shape, np.nan)
        by_slot[whole] = said
        return equations, grid.gather(by_slot) + _base(rows, self.task)

    def _day_inputs(self, rows: pa.Table, grid: DayMatrix) -> np.ndarray:
        """One row per day: hourly profiles of lags and inputs, weekday dummies and levels."""
        available = set(self.columns)
        # the wind has no daily or weekly course: beside an operator's forecast its earlier days are noise
        plain_wind = self.task.target == "wind" and self.task.operator_input is not None
        profiles = [n for n in PROFILE_LAGS if n in available and not plain_wind]
        scalars = [n for n in SCALARS if n in available]
        several_temperatures = "temperature_mean_mean_24h" in available
        for item in self.task.inputs:
            own = [n for n in self.columns if n == item.name or n.startswith(item.name + "_")]
            if item.quantity == "temperature" and several_temperatures:
                continue  # their mean stands for them
            if item.kind == "weather" and item.quantity == "other":
                # cloud, humidity and the like matter by the day; whole profiles would drown the equations in inputs
                scalars += [n for n in own if n == f"{item.name}_day_mean"]
                continue
            constant = [n for n in own if n.endswith(("_error_6h", "_error_24h", "_error_168h"))]
            scalars += constant
            profiles += [n for n in own if n not in constant and not n.endswith(SKIPPED_ENDINGS) and n not in profiles]
        if several_temperatures:
            profiles += TEMPERATURE_PROFILES
        parts = [hourly(grid.spread(column(rows, n))) for n in profiles]
        first = grid.row_of[:, 0]
        parts += [column(rows, n)[first][:, None] for n in scalars]
        weekday = column(rows, "weekday")[first]
        parts += [(weekday == d).astype(float)[:, None] for d in range(7)]
        parts.append(grid.spread(anchor(rows, self.task)).mean(axis=1)[:, None])
        return np.column_stack(parts)


def _base(rows: pa.Table, task: ForecastTask) -> np.ndarray | float:
    """What the equations correct: the operator's forecast, so that ridge shrinks towards it; nothing where there is none."""
    return anchor(rows, task) if task.operator_input is not None else 0.0


def _equations(raw: np.ndarray, truth: np.ndarray, task: ForecastTask, group: np.ndarray | None) -> tuple[dict[str, Any], np.ndarray]:
    """Standardises, fits all slots, and keeps what prediction needs; and what fits without each group of days would say."""
    finite = np.isfinite(raw)
    fill = np.array([np.median(raw[finite[:, j], j]) if finite[:, j].any() else 0.0 for j in range(raw.shape[1])])
    filled = np.where(finite, raw, fill)
    centre = np.median(filled, axis=0)
    spread = np.median(np.abs(filled - centre), axis=0) * 1.4826
    flat = spread < 1e-9  # mostly constant, as dummies are
    centre = np.where(flat, filled.mean(axis=0), centre)
    spread = np.where(flat, filled.std(axis=0), spread)
    kept = np.flatnonzero((finite.mean(axis=0) > 0.8) & (spread > 1e-9))
    spread = np.where(spread > 1e-9, spread, 1.0)
    x = _standardised(raw, centre, spread, fill)[:, kept]
    y_centre = float(np.median(truth))
    y_spread = max(float(np.median(np.abs(truth - y_centre)) * 1.4826), float(truth.std()) * 0.05, 1e-9)
    z = np.arcsinh((truth - y_centre) / y_spread)
    x_mean, z_mean = x.mean(axis=0), z.mean(axis=0)
    coefficients, leverage, outside = _ridge(x - x_mean, z - z_mean, group)
    intercept = z_mean - coefficients @ x_mean

    def in_its_unit(of_z: np.ndarray) -> np.ndarray:
        return np.sinh(np.clip(of_z, -8, 8)) * y_spread + y_centre

    error = truth - in_its_unit(x @ coefficients.T + intercept)
    # as if each day had been left out: with more inputs than days the fit goes through them, and its own errors tell nothing
    error = error / np.maximum(1 - leverage - 1 / len(x), LEAST_LEFT_OUT)
    by_hour = error.reshape(len(x), 24, -1).transpose(1, 0, 2).reshape(24, -1)
    offsets = np.quantile(by_hour, task.quantiles, axis=1).T
    units = {"centre": centre, "spread": spread, "fill": fill, "kept": kept, "y_centre": y_centre, "y_spread": y_spread}
    fitted = {"coefficients": coefficients, "intercept": intercept, "offsets": offsets - offsets[:, [task.median_index]]}
    return units | fitted | {"days": len(x)}, in_its_unit(outside + z_mean)


def _ridge(x: np.ndarray, z: np.ndarray, group: np.ndarray | None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Ridge coefficients (slots, inputs), each slot's penalty by generalised cross-validation (Golub, Heath and Wahba 1979).

    Also each day's leverage (days, slots): its error over one less the leverage is the error of a fit without it; and what fits
    without the day's whole group would say (days, slots), not a number where there are no groups. Means must be taken off.
    """
    from threadpoolctl import threadpool_limits

    # one thread: the matrices are small, waiting threads burn a busy machine's time, and the digits do not depend on the cores
    with threadpool_limits(1, user_api="blas"):
        if len(x) >= x.shape[1]:
            squares, back = np.linalg.eigh(x.T @ x)
            left = x @ back
        else:
            squares, own = np.linalg.eigh(x @ x.T)
            size = np.sqrt(np.maximum(squares, 1e-9 * squares.max()))
            left, back = own * size, x.T @ (own / size)
    squares = np.maximum(squares, 0.0)
    told = left.T @ z
    whole = (z**2).sum(axis=0)
    least = np.full(z.shape[1], np.inf)
    chosen = np.full(z.shape[1], PENALTIES[0])
    for penalty in PENALTIES:
        inverse = 1 / (squares + penalty)
        residual = whole - ((inverse * (2 - squares * inverse))[:, None] * told**2).sum(axis=0)
        # the intercept is one more parameter: without it a fit through every day would look no worse than a wise one
        score = residual / max(1 - (1 + (squares * inverse).sum()) / len(x), LEAST_LEFT_OUT) ** 2
        chosen = np.where(score < least, penalty, chosen)
        least = np.minimum(score, least)
    inverse = 1 / (squares[:, None] + chosen)
    leverage = (left**2) @ inverse
    outside = np.full(z.shape, np.nan)
    if group is not None:
        error = z - left @ (inverse * told)
        for penalty in np.unique(chosen):
            slots = np.flatnonzero(chosen == penalty)
            weighed = left / (squares + penalty)
            for one in np.unique(group):
                days = np.flatnonzero(group == one)
                rest = np.eye(len(days)) * (1 + LEAST_LEFT_OUT) - weighed[days] @ left[days].T - 1 / len(x)
                outside[np.ix_(days, slots)] = z[np.ix_(days, slots)] - np.linalg.solve(rest, error[np.ix_(days, slots)])
    return (back @ (inverse * told)).T, leverage, outside


def _standardised(raw: np.ndarray, centre: np.ndarray, spread: np.ndarray, fill: np.ndarray) -> np.ndarray:
    """Inputs in robust standard units through asinh; gaps take the median."""
    return np.arcsinh((np.where(np.isfinite(raw), raw, fill) - centre) / spread)
