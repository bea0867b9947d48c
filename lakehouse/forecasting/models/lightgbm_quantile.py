"""LightGBM quantiles, global over series: a model of the centre by its absolute error, and quantile models of its errors.

The centre corrects a linear first stage (ridge over whole days, `lear.py`), whose errors are taken from stripes that it was
not fitted to; with many series, or few days that the first stage does not explain clearly better, it corrects a blend of simple
forecasts, or the operator's. The spread is learnt from the centre's out-of-block errors, because in-sample errors are too small; they
also tell how many trees are worth having on top of an operator's forecast, which leaves mostly noise to learn. Sizes follow the number
of rows.
"""

from __future__ import annotations

import os
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
    inputs_around,
    read_parameters,
    series_scale,
    task_from_signature,
    task_signature,
    uncrossed,
    usable_columns,
    write_parameters,
)
from lakehouse.forecasting.models.blend import SHORT_HISTORY_DAYS, anchor_only, blended, first_weights
from lakehouse.forecasting.models.day_matrix import DayMatrix
from lakehouse.forecasting.models.lear import Lear
from lakehouse.forecasting.task import ForecastTask

SPREAD_COLUMNS = (
    "slot",
    "lead_day",
    "weekday",
    "day_type",
    "holiday_share",
    "year_sin",
    "year_cos",
    "series_code",
    "std_168h",
    "sun_elevation_deg",
    "clear_sky_w_per_m2",
    "change_24h",
    "mean_24h",
)
CENTRE_LIFE_DAYS = 14  # trees younger than this are taken over from a previous fit; the linear stage below them is fitted again
SPREAD_LIFE_DAYS = 28  # likewise the spread models
ROWS = 60_000  # rows that the trees learn from, for one series: of finer intervals or more years every so many is left out
THREADS = 2
ROUND_SHARES = (0.04, 0.08, 0.15, 0.25, 0.4, 0.6, 0.8, 1.0)  # of the most rounds, where the out-of-block error is looked at
COURSE_HOURS = (1, 2, 3, 4, 6)  # before and after, at which the trees see the operator's forecast of wind
LITTLE_ROWS = 6000
TREND_COLUMNS = ("days_since_2000", "day_of_year", "year_sin", "year_cos", "mean_672h")
"""Within a few weeks these tell one day from another and nothing else: trees would learn the days' errors by heart."""
LINEAR_SERIES = 20  # with more series than this the linear first stage costs more than it brings
LINEAR_DAYS = 300  # with fewer days its hundreds of inputs are fitted to one season and may mislead in the next: it has to
LINEAR_GAIN = 0.7  # bring the error on days it was not fitted to below this share of the blend's


class LightGBMQuantile(Model):
    """Gradient-boosted trees (Ke et al. 2017) for the centre and for each quantile of its error."""

    name = "lightgbm"
    linear: Lear | None
    blend: np.ndarray
    spread: dict[int, Any]
    spread_names: list[str]
    spread_to: float

    def fit(
        self,
        features: pa.Table,
        task: ForecastTask,
        *,
        seed: int = 0,
        previous: Model | None = None,
        columns: list[str] | None = None,
        centre_only: bool = False,
    ) -> LightGBMQuantile:
        """Fits the centre on all rows and the spread on out-of-block errors; see `Model.fit`. `centre_only` fits a quick
        centre on the anchor without linear stage and spread, to see which features matter.

        Raises:
            ForecastError: with fewer than 48 rows that have a target and an anchor.
        """
        lightgbm = _lightgbm()
        self.task = task
        self.columns = usable_columns(task, columns)
        truth = column(features, TARGET_COLUMN)
        keep = np.flatnonzero(np.isfinite(truth) & np.isfinite(anchor(features, task)))
        if len(keep) < 48:
            raise ForecastError(
                f"LightGBM for {task.target} needs at least 48 rows with a target, found {len(keep)}.", "Give a longer history."
            )
        rows = features.take(pa.array(keep)) if len(keep) < features.num_rows else features
        self.scale = series_scale(rows, task)
        day = column(rows, "days_since_2000")
        self.linear = None
        if isinstance(previous, LightGBMQuantile) and self._may_keep(previous, day):
            fresh = Lear().fit(rows, task, columns=self.columns)
            self.__dict__.update(previous.__dict__ | {"linear": fresh})
            return self
        is_little = rows.num_rows < LITTLE_ROWS and len(np.unique(day)) < SHORT_HISTORY_DAYS
        self.blend = first_weights(rows, task)
        base = blended(rows, task, self.blend) if centre_only else self._fit_linear(rows, day)
        if is_little:
            self.columns = [name for name in self.columns if name not in TREND_COLUMNS]
        some = _every_so_many(rows, ROWS * min(len(task.series_ids), LINEAR_SERIES))
        x = self._inputs(rows, base)[some]  # of all rows, since an interval's neighbours tell of it
        rows, base, day, truth = rows.take(pa.array(some)), base[some], day[some], truth[keep][some]
        size = self.scale[column(rows, "series_code").astype(int)]
        y = (truth - base) / size
        weight = recency_weight(day)
        self.settings = _settings(len(y), seed, is_little)
        rounds = self.settings.pop("rounds")
        self.trained_to = float(day.max())
        spread_serves = (
            isinstance(previous, LightGBMQuantile)
            and previous.columns == self.columns
            and self.trained_to - previous.spread_to < SPREAD_LIFE_DAYS
        )
        error = np.empty(0)
        if centre_only:
            rounds = min(rounds, 100)
        elif spread_serves:
            rounds = previous.rounds  # type: ignore[union-attr]
        else:
            error, rounds = self._left_out(x, y, weight, day, rounds)
        self.rounds = rounds

        data = lightgbm.Dataset(x, y, weight=weight, free_raw_data=False)
        self.centre = lightgbm.train(self.settings, data, rounds)
        if centre_only:
            self.spread, self.spread_names, self.spread_to = {}, [], self.trained_to
            return self
        if spread_serves:
            assert isinstance(previous, LightGBMQuantile)
            self.spread, self.spread_names, self.spread_to = previous.spread, previous.spread_names, previous.spread_to
            return self

        operator = task.operator_input
        wanted = set(SPREAD_COLUMNS) | {i.name for i in task.inputs} | {f"{operator.name}_error_24h" if operator else ""}
        self.spread_names = [n for n in self.columns if n in wanted]
        chosen = [self.columns.index(n) for n in self.spread_names] + [x.shape[1] - 1]
        small = np.column_stack([x[:, chosen], self.centre.predict(x, num_threads=THREADS)])
        spread_data = lightgbm.Dataset(small, error, weight=weight, free_raw_data=False)
        spread_settings = self.settings | {
            "num_leaves": min(self.settings["num_leaves"], 12),
            "learning_rate": 0.1,
            "min_data_in_leaf": max(30, len(y) // 300),
        }
        self.spread = {}
        for n, q in enumerate(task.quantiles):
            if n != task.median_index:
                self.spread[n] = lightgbm.train(spread_settings | {"objective": "quantile", "alpha": q}, spread_data, 40)
        self.spread_to = self.trained_to
        return self

    def _left_out(self, x: np.ndarray, y: np.ndarray, weight: np.ndarray, day: np.ndarray, rounds: int) -> tuple[np.ndarray, int]:
        """Errors of trees on blocks of days that they were not fitted to, and the rounds that the centre is worth.

        The blocks' trees have a third of the rounds. Where they correct an operator's forecast and are best before their last round,
        the centre gets as many rounds more as it has rows more; else all of `rounds`.
        """
        lightgbm = _lightgbm()
        most = max(rounds // 3, 30)
        shares = ROUND_SHARES if self.task.operator_input is not None else ROUND_SHARES[-1:]
        steps = sorted({max(round(most * share), 1) for share in shares})
        said = np.empty((len(steps), len(y)))
        for block in _blocks(day):
            part = lightgbm.Dataset(x[~block], y[~block], weight=weight[~block])
            model = lightgbm.train(self.settings, part, most)
            before, done = 0.0, 0
            for n, step in enumerate(steps):
                before = before + model.predict(x[block], start_iteration=done, num_iteration=step - done, num_threads=THREADS)
                said[n, block], done = before, step
        best = int(np.argmin((np.abs(y - said) * weight).sum(axis=1)))
        worth = rounds if steps[best] == most else min(rounds, round(1.5 * steps[best]))
        return y - said[best], worth

    def predict(self, features: pa.Table) -> np.ndarray:
        """Centre plus error quantiles, in the target's unit."""
        base = self._base(features)
        size = self.scale[column(features, "series_code").astype(int)]
        x = self._inputs(features, base)
        centre = self.centre.predict(x, num_threads=THREADS)
        chosen = [self.columns.index(n) for n in self.spread_names] + [x.shape[1] - 1]
        small = np.column_stack([x[:, chosen], centre])
        result = np.repeat(centre[:, None], len(self.task.quantiles), axis=1)
        for n, model in self.spread.items():
            result[:, n] = centre + model.predict(small, num_threads=THREADS)
        return uncrossed(base[:, None] + result * size[:, None], self.task.median_index)

    def save(self, folder: Path) -> None:
        """Writes each booster as LightGBM text and the rest as JSON."""
        self.centre.save_model(str(folder / "centre.txt"))
        if self.linear is not None:
            (folder / "linear").mkdir(exist_ok=True)
            self.linear.save(folder / "linear")
        for n, model in self.spread.items():
            model.save_model(str(folder / f"spread_{self.task.quantile_columns[n]}.txt"))
        write_parameters(
            folder,
            {
                "task": task_signature(self.task),
                "columns": self.columns,
                "spread_names": self.spread_names,
                "scale": self.scale.tolist(),
                "blend": self.blend.tolist(),
                "trained_to": self.trained_to,
                "spread_to": self.spread_to,
            }
            | {"settings": self.settings, "rounds": self.rounds},
        )

    def load(self, folder: Path) -> LightGBMQuantile:
        """Reads what `save` wrote."""
        lightgbm = _lightgbm()
        saved = read_parameters(folder)
        self.task = task_from_signature(saved["task"])
        self.columns, self.spread_names, self.scale = saved["columns"], saved["spread_names"], np.array(saved["scale"])
        self.blend = np.array(saved["blend"]) if "blend" in saved else anchor_only(self.task)  # versions before the blend
        self.trained_to, self.spread_to, self.settings, self.rounds = (
            saved["trained_to"],
            saved["spread_to"],
            saved["settings"],
            saved["rounds"],
        )
        self.centre = lightgbm.Booster(model_file=str(folder / "centre.txt"))
        self.linear = Lear().load(folder / "linear") if (folder / "linear").exists() else None
        self.spread = {}
        for n, name in enumerate(self.task.quantile_columns):
            if n != self.task.median_index:
                self.spread[n] = lightgbm.Booster(model_file=str(folder / f"spread_{name}.txt"))
        return self

    def explain(self) -> dict[str, float]:
        """Share of each feature in the centre model's total gain."""
        gain = np.asarray(self.centre.feature_importance("gain"), dtype=float)
        return dict(
            zip([*self.columns, *_course_names(self.task, self.columns), "anchor"], (gain / max(gain.sum(), 1e-12)).tolist(), strict=True)
        )

    def parameters(self) -> dict[str, Any]:
        """Settings of the centre model."""
        return self.settings | {"rounds": self.rounds, "columns": len(self.columns)}

    def _may_keep(self, previous: LightGBMQuantile, day: np.ndarray) -> bool:
        """Whether the trees of an earlier fit serve for now: they are young, and correct a linear stage of a long history."""
        same = previous.task == self.task and previous.columns == self.columns and previous.linear is not None
        return same and day.max() - previous.trained_to < CENTRE_LIFE_DAYS and len(np.unique(day)) >= LINEAR_DAYS

    def _fit_linear(self, rows: pa.Table, day: np.ndarray) -> np.ndarray:
        """Fits the linear first stage and returns, for its own rows, what it says when their stripe is left out."""
        plain = blended(rows, self.task, self.blend)
        self.linear = None
        if len(self.task.series_ids) > LINEAR_SERIES:
            return plain
        try:
            # a long history is left out a stripe at a time, a short one by thirds: it is to show what little data can do
            stripes = _stripes(day) if len(np.unique(day)) >= LINEAR_DAYS else _stripes(day) % 3
            self.linear = Lear().fit(rows, self.task, columns=self.columns, groups=stripes)
            base = np.where(np.isfinite(self.linear.left_out), self.linear.left_out, plain)
        except ForecastError:  # too few whole days for a linear model: the trees correct the blend
            self.linear = None
            return plain
        if len(np.unique(day)) < LINEAR_DAYS:
            truth = column(rows, TARGET_COLUMN)
            if np.mean(np.abs(truth - base)) > LINEAR_GAIN * np.mean(np.abs(truth - plain)):
                self.linear = None
                return plain
        return base

    def _base(self, rows: pa.Table) -> np.ndarray:
        """The first stage: the linear model where there is one, else the blend."""
        base = blended(rows, self.task, self.blend)
        if self.linear is None:
            return base
        said = self.linear.predict(rows)[:, self.task.median_index]
        return np.where(np.isfinite(said), said, base)

    def _inputs(self, rows: pa.Table, base: np.ndarray) -> np.ndarray:
        """Features and the first stage; values in the target's unit as differences to it, all in units of the series."""
        size = self.scale[column(rows, "series_code").astype(int)]
        x = inputs_around(rows, self.task, self.columns, base, self.scale)
        return np.column_stack([x, _course(rows, self.task, self.columns) / size[:, None], base / size])


def _course_names(task: ForecastTask, columns: list[str]) -> list[str]:
    """Names of the columns of `_course`."""
    operator = task.operator_input
    if operator is None or task.target != "wind" or operator.name not in columns:
        return []
    return [f"{operator.name}_{side}_{h}h" for h in COURSE_HOURS for side in ("before", "after")]


def _course(rows: pa.Table, task: ForecastTask, columns: list[str]) -> np.ndarray:
    """How the operator's forecast differs some hours earlier and later on the target day (rows, twice the hours), to the day's ends.

    A front that comes early or late is an error that shows where the forecast is steep. Nothing for other targets than wind, and
    where there is no operator's forecast among the columns.
    """
    operator = task.operator_input
    if operator is None or not _course_names(task, columns):
        return np.empty((rows.num_rows, 0))
    days = DayMatrix.of(rows, task)
    told = days.spread(column(rows, operator.name))
    slot, of_an_hour = np.arange(task.slots_per_day), task.slots_per_day // 24
    shifts = [side * hours * of_an_hour for hours in COURSE_HOURS for side in (-1, 1)]
    return np.column_stack([days.gather(told[:, np.clip(slot + by, 0, slot[-1])] - told) for by in shifts])


def _every_so_many(rows: pa.Table, limit: int) -> np.ndarray:
    """Numbers of about `limit` rows: the same count of each day, of other slots every day, so that all slots are seen."""
    every = -(-rows.num_rows // limit)
    every += every % 7 == 0  # else a slot would be seen on one day of the week only
    place = column(rows, "slot") + column(rows, "days_since_2000") + column(rows, "series_code")
    return np.flatnonzero(place.astype(np.int64) % every == 0)


def recency_weight(day: np.ndarray, half_life_days: float = 540.0) -> np.ndarray:
    """Weight of a row by its age: halves every `half_life_days`."""
    return 0.5 ** ((day.max() - day) / half_life_days)


def _settings(rows: int, seed: int, is_little: bool) -> dict[str, Any]:
    """Settings by the number of rows; `is_little` where they are of a few weeks as well."""
    small = rows < LITTLE_ROWS
    return {
        "rounds": 120 if small else 400,
        # what the first stage leaves has long tails: holidays, spikes, storms. A mean follows them, the median that is asked for does not
        "objective": "regression" if small else "regression_l1",
        "num_leaves": 7 if is_little else 15 if small else 31,
        "learning_rate": 0.08 if small else 0.04,
        "min_data_in_leaf": 20 if small else 40,
        "feature_fraction": 0.5,
        "bagging_fraction": 0.8,
        "bagging_freq": 1,
        "lambda_l2": 2.0,
        "max_bin": 127 if small else 63,
        "num_threads": 1 if rows < 20_000 else THREADS,  # below that, waiting for each other costs more than it saves
        "seed": seed,
        "deterministic": True,
        "force_row_wise": True,
        "verbosity": -1,
    }


def _stripes(day: np.ndarray) -> np.ndarray:
    """Number of the stripe of up to two weeks that a day belongs to; a short history has nine."""
    stripe_days = int(np.clip((day.max() - day.min()) // 9, 1, 14))
    return ((day - day.min()) // stripe_days).astype(int)


def _blocks(day: np.ndarray, parts: int = 3) -> list[np.ndarray]:
    """Row masks of `parts` interleaved sets of stripes, so that each set sees every season."""
    stripe = _stripes(day) % parts
    masks = [stripe == n for n in range(parts)]
    masks = [m for m in masks if m.any() and not m.all()]
    if not masks:  # less than one stripe: split by rows
        number = np.arange(len(day)) * parts // max(len(day), 1)
        masks = [number == n for n in range(parts)]
    return masks


def _lightgbm() -> Any:
    """LightGBM, with OpenMP told to sleep while it waits: spinning costs a factor of twenty on a busy machine."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    import lightgbm

    return lightgbm
