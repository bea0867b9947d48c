"""Features as whole days: one row per series, issue and target day, one column per slot; for the linear and the neural model.

Clock changes are handled here: a missing hour takes its neighbour's features, a doubled hour is read once and forecast twice.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from lakehouse.forecasting.models.base import column
from lakehouse.forecasting.task import ForecastTask


@dataclass
class DayMatrix:
    """Where the rows of a features table stand in a (days, slots) grid.

    Attributes:
        row_of: (days, slots) row number that gives a slot's features; neighbours fill missing slots.
        is_real: (days, slots) False where the slot was filled from a neighbour.
        day_of_row, slot_of_row: for each row its place in the grid.
    """

    row_of: np.ndarray
    is_real: np.ndarray
    day_of_row: np.ndarray
    slot_of_row: np.ndarray

    @classmethod
    def of(cls, features: pa.Table, task: ForecastTask) -> DayMatrix:
        """The grid of a features table in its own row order."""
        slots = task.slots_per_day
        code = column(features, "series_code").astype(np.int64)
        issue = features.column("issued_at").cast(pa.int64()).to_numpy()
        lead = column(features, "lead_day").astype(np.int64)
        slot = column(features, "slot").astype(np.int64)
        key = np.stack([code, issue, lead])
        order = np.lexsort(key[::-1])
        sorted_key = key[:, order]
        new = np.concatenate([[False], (sorted_key[:, 1:] != sorted_key[:, :-1]).any(axis=0)]) if len(order) else np.array([], dtype=bool)
        day_of_row = np.empty(len(order), dtype=np.int64)
        day_of_row[order] = np.cumsum(new)
        days = int(day_of_row.max()) + 1 if len(order) else 0
        row_of = np.full((days, slots), -1)
        backwards = np.arange(len(slot))[::-1]  # the first of a doubled hour wins
        row_of[day_of_row[backwards], slot[backwards]] = backwards
        is_real = row_of >= 0
        for s in range(1, slots):
            row_of[:, s] = np.where(row_of[:, s] < 0, row_of[:, s - 1], row_of[:, s])
        for s in range(slots - 2, -1, -1):
            row_of[:, s] = np.where(row_of[:, s] < 0, row_of[:, s + 1], row_of[:, s])
        return cls(row_of, is_real, day_of_row, slot)

    def spread(self, values: np.ndarray) -> np.ndarray:
        """Row values as (days, slots, …)."""
        return values[self.row_of]

    def gather(self, by_slot: np.ndarray) -> np.ndarray:
        """(days, slots, …) back to rows."""
        return by_slot[self.day_of_row, self.slot_of_row]


def hourly(by_slot: np.ndarray) -> np.ndarray:
    """(days, slots) averaged to (days, 24), gaps left out; hourly or finer slots."""
    days, slots = by_slot.shape
    if slots == 24:
        return by_slot
    parts = by_slot.reshape(days, 24, slots // 24)
    known = np.isfinite(parts)
    total = np.where(known, parts, 0.0).sum(axis=2)
    count = known.sum(axis=2)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)
