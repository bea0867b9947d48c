"""The world as it was known at an issue: data that refuses to be read past it.

`KnownWorld` cuts tables at the availability of each column; `refuse_look_ahead` is the guard that the feature builder runs
over every index it is about to read. Availability itself is stated in `task.py`.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from lakehouse.errors import LookAheadError
from lakehouse.forecasting.task import ForecastTask


def refuse_look_ahead(read_index: np.ndarray, known_count: np.ndarray, what: str) -> None:
    """Raises where a read would reach an interval that is not known yet.

    Args:
        read_index: 1-based positions on the time grid, 0 for "not read".
        known_count: number of leading grid positions that are known, per row.
        what: the feature being read, for the message.

    Raises:
        LookAheadError: if any position lies past what is known.
    """
    beyond = read_index > known_count
    if np.any(beyond):
        row = int(np.argmax(beyond))
        raise LookAheadError(
            f"Feature {what} would read grid position {int(read_index.flat[row])} "
            f"where only {int(known_count.flat[row])} positions are known at the issue.",
            "Lag the read further, or correct the availability of the series in the site file.",
        )


class KnownWorld:
    """Actuals and inputs as they were known at one issue.

    Args:
        task: the forecasting task with its availability laws.
        actuals: long table `series_id`, `interval_start` (UTC), `value`.
        inputs: wide table `interval_start` and one column per input, or None.
        issue: the issue instant (UTC).
    """

    def __init__(self, task: ForecastTask, actuals: pd.DataFrame, inputs: pd.DataFrame | None, issue: pd.Timestamp) -> None:
        self.task = task
        self.issue = pd.Timestamp(issue)
        self._actuals = actuals
        self._inputs = inputs
        self._known_before = task.actuals_known_before(pd.DatetimeIndex([self.issue]))[0]

    def actuals(self) -> pd.DataFrame:
        """The actuals that were known at the issue."""
        return self._actuals[self._actuals["interval_start"] < self._known_before]

    def inputs(self) -> pd.DataFrame | None:
        """The inputs, each blank (NaN) where it was not yet known."""
        if self._inputs is None:
            return None
        seen = self._inputs.copy()
        for item in self.task.inputs:
            if item.name in seen:
                limit = self.task.input_known_before(item, pd.DatetimeIndex([self.issue]))[0]
                seen[item.name] = seen[item.name].where(seen["interval_start"] < limit)
        return seen

    def actual(self, series_id: str, interval_start: pd.Timestamp) -> float:
        """One actual, NaN where there is a gap.

        Raises:
            LookAheadError: if the interval's actual was not known at the issue.
        """
        at = pd.Timestamp(interval_start)
        if at >= self._known_before:
            raise LookAheadError(
                f"The actual of {series_id} at {at.isoformat()} was asked for by the forecast issued {self.issue.isoformat()}, "
                f"when actuals were known before {self._known_before.isoformat()} only."
            )
        hit = self._actuals[(self._actuals["series_id"] == series_id) & (self._actuals["interval_start"] == at)]["value"]
        return float(hit.iloc[0]) if len(hit) else float("nan")
