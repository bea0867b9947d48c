"""Actuals on one dense time grid: a row per series, a column per interval, NaN for a gap.

Features read positions of this grid, by SQL (`features.py`) or by numpy for many series at once (`dense.py`). Which of them an
issue may read is the business of the frame in `features.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeAlias

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from lakehouse.errors import ForecastError
from lakehouse.forecasting.task import ForecastTask

Actuals: TypeAlias = pd.DataFrame | pa.Table | pa.RecordBatchReader
ROWS_AT_ONCE = 1_000_000


def grid_of(task: ForecastTask, actuals: Actuals, origin_us: int, last: int) -> np.ndarray:
    """Spreads actuals over the grid.

    Args:
        task: what is forecast.
        actuals: long table, or stream of batches, `series_id`, `interval_start` (timestamp, UTC), `value`, in any order.
        origin_us: start of the grid's first interval, microseconds since 1970 UTC.
        last: number of the last position; what is later or before the origin is left out.

    Returns:
        (series, last + 1) values in the order of the task's series; position 0 is always NaN, so that it may stand for "not read".

    Raises:
        ForecastError: when there are no actuals of the task's series, or they lie off the interval grid, or are doubled.
    """
    step_us = task.interval_minutes * 60_000_000
    wanted = pa.array(task.series_ids, pa.string())
    grid = np.full((len(task.series_ids), last + 1), np.nan)
    is_there = np.zeros(grid.shape, dtype=bool)
    rows = placed = off_grid = 0
    first_off: int | None = None
    doubled: list[tuple[int, int]] = []
    for batch in _batches(actuals):
        code = _codes(batch.column("series_id"), wanted)
        at = batch.column("interval_start").cast(pa.timestamp("us", tz="UTC")).cast(pa.int64()).to_numpy(zero_copy_only=False)
        value = batch.column("value").cast(pa.float64()).to_numpy(zero_copy_only=False)
        mine = code >= 0
        if not mine.all():
            code, at, value = code[mine], at[mine], value[mine]
        rows += len(code)
        since = at - origin_us
        position = since // step_us
        if (off := np.flatnonzero(position * step_us != since)).size:
            off_grid += off.size
            earliest = int(at[off].min())
            first_off = earliest if first_off is None else min(first_off, earliest)
        position += 1
        if len(position) and (position.min() < 1 or position.max() > last):
            kept = (position >= 1) & (position <= last)
            code, position, value = code[kept], position[kept], value[kept]
        flat = code * (last + 1) + position
        seen = is_there.ravel()
        if seen[flat].any():
            twice = int(flat[seen[flat]].min())
            doubled.append((twice // (last + 1), twice % (last + 1)))
        seen[flat] = True
        grid.ravel()[flat] = value
        placed += len(flat)
    if not rows:
        raise ForecastError(
            f"There are no actuals of {task.target} for {', '.join(task.series_ids[:3])}.",
            "Land and refresh the series first: gridlake refresh --until cleaned",
        )
    if off_grid:
        at_first = pd.Timestamp(first_off, unit="us", tz="UTC").isoformat()
        raise ForecastError(
            f"Actuals of {task.target}: expected one value every {task.interval_minutes} minutes, "
            f"found {off_grid} rows off that grid, the first at {at_first}.",
            "A series must have one interval length: resample it in its source, or correct interval_minutes in the site file.",
        )
    if doubled or int(np.count_nonzero(is_there)) != placed:
        series, position_1 = min(doubled) if doubled else _doubled_within(task, actuals, origin_us, step_us, last)
        found = f" at {pd.Timestamp(origin_us + (position_1 - 1) * step_us, unit='us', tz='UTC').isoformat()}" if position_1 else ""
        raise ForecastError(
            f"Actuals of {task.series_ids[series]}: expected one value per interval, found several{found}.",
            "Clean the series first: the key of a cleaned table is (series_id, interval_start).",
        )
    grid[~np.isfinite(grid)] = np.nan
    return grid


def _batches(actuals: Actuals) -> Iterator[pa.RecordBatch]:
    """Actuals a million rows at a time, so that what is made of them on the way stays small."""
    names = ["series_id", "interval_start", "value"]
    batches: Iterable[pa.RecordBatch]
    if isinstance(actuals, pa.RecordBatchReader):
        batches = actuals
    elif isinstance(actuals, pa.Table):
        batches = actuals.select(names).to_batches(ROWS_AT_ONCE)
    else:
        parts = (actuals.iloc[n : n + ROWS_AT_ONCE] for n in range(0, max(len(actuals), 1), ROWS_AT_ONCE))
        batches = (b for part in parts for b in pa.Table.from_pandas(part[names], preserve_index=False).to_batches())
    for batch in batches:
        for start in range(0, batch.num_rows, ROWS_AT_ONCE):
            yield batch.slice(start, ROWS_AT_ONCE)


def _codes(series: pa.Array, wanted: pa.Array) -> np.ndarray:
    """Position of each row's series among the wanted ones, -1 for another."""
    named = series if pa.types.is_dictionary(series.type) else series.dictionary_encode()
    of_name = pc.fill_null(pc.index_in(named.dictionary.cast(pa.string()), wanted), -1).to_numpy(zero_copy_only=False).astype(np.int64)
    numbers = pc.fill_null(named.indices, -1).to_numpy(zero_copy_only=False)
    return np.append(of_name, -1)[numbers]


def _doubled_within(task: ForecastTask, actuals: Actuals, origin_us: int, step_us: int, last: int) -> tuple[int, int]:
    """The first doubled interval of a table (series, position); position 0 where a stream can't be read again."""
    if isinstance(actuals, pa.RecordBatchReader):
        return 0, 0
    wanted = pa.array(task.series_ids, pa.string())
    for batch in _batches(actuals):
        code = _codes(batch.column("series_id"), wanted)
        at = batch.column("interval_start").cast(pa.timestamp("us", tz="UTC")).cast(pa.int64()).to_numpy(zero_copy_only=False)
        position = (at - origin_us) // step_us + 1
        kept = (code >= 0) & (position >= 1) & (position <= last)
        flat, count = np.unique(code[kept] * (last + 1) + position[kept], return_counts=True)
        if (count > 1).any():
            twice = int(flat[count > 1][0])
            return twice // (last + 1), twice % (last + 1)
    return 0, 0
