"""The benchmarks that every model has to beat: same time last week, the latest like days, and a blend of such forecasts.

Their spread is the empirical one of their own past errors, by hour of the day.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from lakehouse.forecasting.features import TARGET_COLUMN
from lakehouse.forecasting.models.base import (
    Model,
    column,
    first_known,
    read_parameters,
    task_from_signature,
    task_signature,
    uncrossed,
    write_parameters,
)
from lakehouse.forecasting.models.blend import blend_weights, blended
from lakehouse.forecasting.task import ForecastTask


class _Persistence(Model):
    """A point forecast from lags, with error quantiles by series and hour."""

    chain: ClassVar[list[str]]

    def fit(
        self, features: pa.Table, task: ForecastTask, *, seed: int = 0, previous: Model | None = None, columns: list[str] | None = None
    ) -> _Persistence:
        """Learns the error quantiles and, for rows without any lag, the mean by series and slot."""
        del seed, previous, columns
        self.task = task
        truth = column(features, TARGET_COLUMN)
        self._prepare(features)
        point = self._point(features)
        code, hour = self._cells(features)
        series = len(task.series_ids)
        self.offsets = np.zeros((series, 24, len(task.quantiles)))
        self.climate = np.full((series, 24), np.nan)
        for s in range(series):
            mine = code == s
            error = (truth - point)[mine]
            everything = error[np.isfinite(error)]
            for h in range(24):
                here = error[hour[mine] == h]
                here = here[np.isfinite(here)]
                pool = here if len(here) >= 20 else everything
                if len(pool):
                    self.offsets[s, h] = np.quantile(pool, task.quantiles)
                seen = truth[mine][hour[mine] == h]
                seen = seen[np.isfinite(seen)]
                if len(seen):
                    self.climate[s, h] = seen.mean()
        self.offsets -= self.offsets[:, :, [task.median_index]]
        return self

    def predict(self, features: pa.Table) -> np.ndarray:
        """Point forecast plus error quantiles; the mean of its hour where no lag is known."""
        code, hour = self._cells(features)
        point = self._point(features)
        point = np.where(np.isfinite(point), point, self.climate[code, hour])
        point = np.where(np.isfinite(point), point, np.nanmean(self.climate) if np.isfinite(self.climate).any() else 0.0)
        return uncrossed(point[:, None] + self.offsets[code, hour], self.task.median_index)

    def save(self, folder: Path) -> None:
        """Writes the error quantiles as JSON."""
        climate = [[None if not np.isfinite(v) else float(v) for v in row] for row in self.climate]
        learnt = {"offsets": self.offsets.tolist(), "climate": climate} | self.parameters()
        write_parameters(folder, {"task": task_signature(self.task)} | learnt)

    def load(self, folder: Path) -> _Persistence:
        """Reads what `save` wrote."""
        saved = read_parameters(folder)
        self.task = task_from_signature(saved["task"])
        self.offsets = np.array(saved["offsets"])
        self.climate = np.array([[np.nan if v is None else v for v in row] for row in saved["climate"]])
        return self

    def _prepare(self, features: pa.Table) -> None:
        """What is learnt before the errors are looked at: nothing."""

    def _point(self, features: pa.Table) -> np.ndarray:
        return first_known(features, self.chain)

    def _cells(self, features: pa.Table) -> tuple[np.ndarray, np.ndarray]:
        code = column(features, "series_code").astype(int)
        return code, (column(features, "slot") * self.task.interval_minutes // 60).astype(int)


class SeasonalNaive(_Persistence):
    """The value at the same time one week earlier; the nearest other week or known day where that is missing."""

    name = "seasonal_naive"
    chain: ClassVar[list[str]] = ["lag_7d", "lag_14d", "lag_21d", "lag_28d", "week_mean", "lag_known"]


class LikeDay(_Persistence):
    """The mean of the latest four days of the same type: working days with working days, holidays with Sundays."""

    name = "like_day"
    chain: ClassVar[list[str]] = ["like_mean", "four_week_mean", "lag_7d", "week_mean", "lag_known"]


class Blend(_Persistence):
    """Simple forecasts averaged by how well each did of late (`blend.py`): hard to beat with a few weeks of history."""

    name = "blend"

    def load(self, folder: Path) -> Blend:
        """Reads what `save` wrote."""
        super().load(folder)
        self.weights = np.array(read_parameters(folder)["weights"])
        return self

    def parameters(self) -> dict[str, Any]:
        """The weights, by series."""
        return {"weights": self.weights.tolist()}

    def _prepare(self, features: pa.Table) -> None:
        self.weights = blend_weights(features, self.task)

    def _point(self, features: pa.Table) -> np.ndarray:
        return blended(features, self.task, self.weights)
