"""A small Keras network over whole days with quantile output.

In the manner of TiDE (Das et al. 2023): each slot's features are projected, the day's projections together give a context,
and a decoder shared by all slots turns slot and context into quantiles. It learns the difference to the anchor, from inputs
that are differences to the anchor as well, so that a level never seen before does not mislead it. A committee of such networks
is trained side by side in one model, each on its own error, and their quantiles are averaged: with a few months of history
that matters more than any size (docs/forecasting.md). TensorFlow is imported when the first network is built or loaded.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from lakehouse.errors import ForecastError
from lakehouse.forecasting.features import TARGET_COLUMN
from lakehouse.forecasting.models import committee
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
from lakehouse.forecasting.models.day_matrix import DayMatrix
from lakehouse.forecasting.task import ForecastTask

MINIMUM_DAYS = 28
WEIGHTS_LIFE_DAYS = 28  # an earlier fit that is not older than this is taken over as it is
LIMIT = 6.0  # standardised inputs are cut here


class KerasNetwork(Model):
    """Day-wise encoder-decoder with quantile output, saved as `.keras`."""

    name = "keras"

    def fit(
        self, features: pa.Table, task: ForecastTask, *, seed: int = 0, previous: Model | None = None, columns: list[str] | None = None
    ) -> KerasNetwork:
        """Trains with the pinball loss, from `previous`'s weights where given; see `Model.fit`.

        Raises:
            ForecastError: with fewer than 28 days.
        """
        keras = _keras()
        self.task = task
        self.columns = usable_columns(task, columns)
        self.trained_to = float(
            np.nanmax(np.where(np.isfinite(column(features, TARGET_COLUMN)), column(features, "days_since_2000"), np.nan))
        )
        warm = isinstance(previous, KerasNetwork) and previous.columns == self.columns and previous.task == task
        if warm and self.trained_to - previous.trained_to < WEIGHTS_LIFE_DAYS:  # type: ignore[union-attr]
            self.__dict__.update(previous.__dict__)
            return self
        grid = DayMatrix.of(features, task)
        truth = np.where(grid.is_real, grid.spread(column(features, TARGET_COLUMN)), np.nan)
        base = grid.spread(anchor(features, task))
        whole = (np.isfinite(truth) & np.isfinite(base)).mean(axis=1) > 0.9
        if whole.sum() < MINIMUM_DAYS:
            raise ForecastError(
                f"The network for {task.target} needs at least {MINIMUM_DAYS} days, found {int(whole.sum())}.", "Give a longer history."
            )
        self.scale = series_scale(features, task)
        x = self._raw(features)
        known = np.isfinite(x)
        count = np.maximum(known.sum(axis=0), 1)  # a column without any value is zero throughout
        self.centre = np.where(known, x, 0.0).sum(axis=0) / count
        self.spread = np.sqrt((np.where(known, x - self.centre, 0.0) ** 2).sum(axis=0) / count)
        self.spread = np.where(self.spread > 1e-9, self.spread, 1.0)
        size = self.scale[grid.spread(column(features, "series_code").astype(int))]
        residual = ((truth - base) / size)[whole]
        self.unit = float(np.nanstd(residual)) or 1.0
        y = np.where(np.isfinite(residual), residual / self.unit, 0.0).astype("float32")
        y = np.clip(y, -12, 12)
        inputs = grid.spread(self._standardised(x))[whole].astype("float32")
        days = len(y)
        keras.utils.set_random_seed(seed)
        if warm:
            self.network = previous.network  # type: ignore[union-attr]
            # keep the units that the weights were learnt in
            self.centre, self.spread, self.unit = previous.centre, previous.spread, previous.unit  # type: ignore[union-attr]
            y = np.clip(np.where(np.isfinite(residual), residual / self.unit, 0.0), -12, 12).astype("float32")
            inputs = grid.spread(self._standardised(x))[whole].astype("float32")
        else:
            shape = committee.Shape.of(inputs.shape[1], inputs.shape[2], len(task.quantiles), small=days < 250)
            self.network = committee.build(keras, shape)
        batch = 16 if days < 400 else 32
        # enough steps to learn, few enough to stay quick: a sixth of them when starting from earlier weights
        budget = 480 if days < 400 else 1500
        steps = min(budget // 6 if warm else budget, 60 * -(-days // batch))
        committee.train(self.network, inputs, y, task.quantiles, batch=batch, steps=steps, rate=7e-4 if warm else 2e-3, seed=seed)
        self.steps = steps
        self.days = days
        return self

    def predict(self, features: pa.Table) -> np.ndarray:
        """Quantiles in the target's unit, one row per feature row."""
        grid = DayMatrix.of(features, self.task)
        inputs = grid.spread(self._standardised(self._raw(features))).astype("float32")
        members = [np.asarray(self.network(inputs[n : n + 512], training=False)) for n in range(0, len(inputs), 512)]
        out = np.concatenate(members).mean(axis=2)
        size = self.scale[column(features, "series_code").astype(int)]
        result = anchor(features, self.task)[:, None] + grid.gather(out.astype(float)) * (self.unit * size)[:, None]
        return uncrossed(np.sort(result, axis=1), self.task.median_index)

    def save(self, folder: Path) -> None:
        """Writes `network.keras` and the units of inputs and output as JSON."""
        self.network.save(folder / "network.keras")
        write_parameters(
            folder,
            {
                "task": task_signature(self.task),
                "columns": self.columns,
                "scale": self.scale.tolist(),
                "centre": self.centre.tolist(),
                "spread": self.spread.tolist(),
            }
            | {"unit": self.unit, "steps": self.steps, "days": self.days, "trained_to": self.trained_to},
        )

    def load(self, folder: Path) -> KerasNetwork:
        """Reads what `save` wrote, in Keras's safe mode."""
        keras = _keras()
        saved = read_parameters(folder)
        self.task = task_from_signature(saved["task"])
        self.columns, self.unit, self.days = saved["columns"], saved["unit"], saved["days"]
        self.steps = saved.get("steps", 0)  # versions before this one kept epochs
        self.trained_to = saved["trained_to"]
        self.scale, self.centre, self.spread = np.array(saved["scale"]), np.array(saved["centre"]), np.array(saved["spread"])
        self.network = keras.models.load_model(folder / "network.keras", compile=False, safe_mode=True)
        return self

    def export_saved_model(self, folder: Path, version: int = 1) -> Path:
        """Writes a TensorFlow SavedModel in TensorFlow Serving's layout, `folder/<version>/`; returns that folder."""
        target = folder / str(version)
        self.network.export(str(target), verbose=False)
        return target

    def signature(self) -> dict[str, Any]:
        """What a caller of the exported network needs: names, centre and spread of the inputs, and the unit of the output.

        A day goes in as (slots, inputs): each input less its centre, over its spread, cut at the limit, zero where missing; inputs
        in the target's unit as differences to the anchor and over the scale. Out comes (slots, members, quantiles): their mean over
        the members, times unit and scale, plus the anchor, is the uncalibrated quantile.
        """
        names = [*self._names(), "anchor", *(f"weekday_{d}" for d in range(7)), *(f"{f}_{k}" for k in (1, 2, 3) for f in ("sin", "cos"))]
        names += ["series_code"] if len(self.task.series_ids) > 1 else []
        return {
            "inputs": names,
            "centre": self.centre.tolist(),
            "spread": self.spread.tolist(),
            "limit": LIMIT,
            "scale": self.scale.tolist(),
            "unit": self.unit,
            "quantiles": list(self.task.quantiles),
        }

    def parameters(self) -> dict[str, Any]:
        """Size and training length."""
        return {"weights": int(self.network.count_params()), "steps": self.steps, "days": self.days}

    def _names(self) -> list[str]:
        return [n for n in self.columns if n not in ("slot", "weekday", "day_type", "day_of_year", "series_code", "days_since_2000")]

    def _raw(self, features: pa.Table) -> np.ndarray:
        names = self._names()
        base = anchor(features, self.task)
        size = self.scale[column(features, "series_code").astype(int)]
        x = inputs_around(features, self.task, names, base, self.scale)
        weekday = column(features, "weekday")
        angle = 2 * np.pi * column(features, "slot") / self.task.slots_per_day
        extra = [
            base / size,
            *(np.where(weekday == d, 1.0, 0.0) for d in range(7)),
            *(f(k * angle) for k in (1, 2, 3) for f in (np.sin, np.cos)),
        ]
        if len(self.task.series_ids) > 1:
            extra.append(column(features, "series_code"))
        return np.column_stack([x, *extra])

    def _standardised(self, x: np.ndarray) -> np.ndarray:
        z = (x - self.centre) / self.spread
        return np.clip(np.where(np.isfinite(z), z, 0.0), -LIMIT, LIMIT)


def _keras() -> Any:
    """Keras on TensorFlow with deterministic operations, quiet."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    import tensorflow

    tensorflow.config.experimental.enable_op_determinism()
    import keras

    return keras
