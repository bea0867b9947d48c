"""What the screen knows of registers before a run: ratings, and usual levels before each day, as arrays.

They bound the levels in `levels`, which the rules themselves take, and cost a fraction of them.
"""

from __future__ import annotations

import bisect
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lakehouse.metering.ordered import EPOCH

if TYPE_CHECKING:
    from lakehouse.metering.run import Run

# Numbers in a matrix of levels by register and day.
MATRIX_CELLS = 2_000_000


class Past:
    """What is known of registers before the run: ratings, and usual levels before each of its days."""

    def __init__(self, run: Run, has_registry: bool) -> None:
        self.days = [(d - EPOCH).days for d in run.days]
        self.history_days = run.rules.history_days
        known = "is_registered" if has_registry else "true AS is_registered"
        meters = run.connection.sql(f"SELECT meter_id, rated_kw, {known} FROM {run.meters} ORDER BY meter_id").to_arrow_table()
        self.meters = _Sorted(meters["meter_id"].combine_chunks())
        self.rated_kw = _floats(meters["rated_kw"])
        self.is_registered = meters["is_registered"].to_numpy()
        self.is_single = len(run.days) == 1
        self.run = run

    def take(self, part: str = "true") -> None:
        """Takes up the levels of the meters for which an SQL condition is true: those of a large site are many."""
        columns = ", ".join(("CAST(date - DATE '1970-01-01' AS INTEGER) AS day", *_LEVELS) if not self.is_single else _USUAL)
        of, order = (self.run.past_levels, "key") if self.is_single else (self.run.past_day_levels, "key, day")
        key = "meter_id || chr(31) || register AS key"
        levels = self.run.connection.sql(f"SELECT {key}, {columns} FROM {of} WHERE {part} ORDER BY {order}").to_arrow_table()
        self.registers = _Sorted(levels["key"].combine_chunks())
        self.usual = {c: _floats(levels[c]) for c in _USUAL} if self.is_single else {}
        self.daily = {c: _floats(levels[c]) for c in _LEVELS} if not self.is_single else {}
        self.dates = levels["day"].to_numpy() if not self.is_single else np.array([], np.int32)

    def of_meters(self, meters: pa.Array) -> tuple[np.ndarray, np.ndarray]:
        """Rating in kW (NaN where it is not known) and whether the meter is registered, of each name."""
        at = self.meters.places(meters)
        if not len(self.rated_kw):
            return np.full(len(at), np.nan), np.zeros(len(at), bool)
        return np.where(at >= 0, self.rated_kw[at], np.nan), (at >= 0) & self.is_registered[at].astype(bool)

    def before(self, keys: pa.Array, register: np.ndarray, day: np.ndarray, own: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """What is usual before each day of registers.

        Args:
            keys: the registers' keys.
            register: position in `keys` of each day that is asked for.
            day: the days, counted from 1970.
            own: the levels of those days, NaN where a day may not count as the past of later ones.
        """
        if self.is_single:
            at = self.registers.places(keys)
            if not len(self.registers):
                return {c: np.full(len(day), np.nan) for c in _USUAL}
            return {c: np.where(at >= 0, v[at], np.nan)[register] for c, v in self.usual.items()}
        return self._windows(keys, register, day, own)

    def _windows(self, keys: pa.Array, register: np.ndarray, day: np.ndarray, own: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        first, span = self.days[0], self.days[-1] - self.days[0] + 1
        width = self.history_days
        lo, hi = self.registers.slice_of(keys)
        rows = pc.fill_null(pc.index_in(self.registers.keys.slice(lo, hi - lo), value_set=keys), -1).to_numpy(zero_copy_only=False)
        column = self.dates[lo:hi] - (first - width)
        fits = (rows >= 0) & (column >= 0) & (column < width + span)
        asked = np.flatnonzero((day >= first) & (day < first + span))
        past = np.flatnonzero(fits)
        out = {name: np.full(len(day), np.nan) for name in _WINDOWED}
        # A block of registers at a time: a matrix of all of them over years of days would be large.
        height = max(MATRIX_CELLS // (width + span), 1)
        for lowest in range(0, len(keys), height):
            mine = asked[(register[asked] >= lowest) & (register[asked] < lowest + height)]
            before = past[(rows[past] >= lowest) & (rows[past] < lowest + height)]
            if not len(mine):
                continue
            for name, (level, reduce) in _WINDOWED.items():
                matrix = np.full((min(height, len(keys) - lowest), width + span), np.nan)
                matrix[rows[before] - lowest, column[before]] = self.daily[level][lo:hi][before]
                matrix[register[mine] - lowest, day[mine] - first + width] = own[level][mine]
                windows = np.lib.stride_tricks.sliding_window_view(matrix, width, axis=1)
                out[name][mine] = _quiet(reduce, windows[register[mine] - lowest, day[mine] - first])
        return out


_LEVELS = ("mean_kw", "peak_kw", "zero_share", "repeat_share", "longest_zero_hours", "lone_peak_kw", "hours_with_zeros")
_WINDOWED: dict[str, tuple[str, Any]] = {
    "past_days": ("mean_kw", lambda w: np.isfinite(w).sum(axis=1).astype(float)),
    "usual_mean_kw": ("mean_kw", lambda w: np.nanmedian(w, axis=1)),
    "usual_peak_kw": ("peak_kw", lambda w: _nth_largest(w, 2)),
    "usual_lone_kw": ("lone_peak_kw", lambda w: _nth_largest(w, 3)),
    "usual_zero_share": ("zero_share", lambda w: np.nanmean(w, axis=1)),
    "usual_zero_hours": ("longest_zero_hours", lambda w: np.nanmax(w, axis=1)),
    "usual_repeat_share": ("repeat_share", lambda w: np.nanmean(w, axis=1)),
    "usual_hours_with_zeros": ("hours_with_zeros", lambda w: np.bitwise_or.reduce(np.nan_to_num(w).astype(np.int64), axis=1)),
}
_USUAL = tuple(_WINDOWED)


def _nth_largest(windows: np.ndarray, n: int) -> np.ndarray:
    """The n-th largest value of each window, or its smallest where it has fewer; NaN where it has none."""
    ordered = np.sort(np.where(np.isnan(windows), np.inf, -windows), axis=1)[:, :n]  # the largest first, what is missing last
    present = np.isfinite(ordered).sum(axis=1)
    taken = np.take_along_axis(ordered, np.maximum(present - 1, 0)[:, None], axis=1)[:, 0]
    return np.where(present > 0, -taken, np.nan)


def _quiet(reduce: Any, windows: np.ndarray) -> np.ndarray:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a window without any value gives NaN, which is meant
        return np.asarray(reduce(windows))


class _Sorted:
    """Sorted texts, and where others stand among them."""

    def __init__(self, keys: pa.Array) -> None:
        self.keys = keys

    def __len__(self) -> int:
        return len(self.keys)

    def slice_of(self, wanted: pa.Array) -> tuple[int, int]:
        """From where to where the wanted ones can stand."""
        if not len(self.keys) or not len(wanted):
            return 0, 0
        span = pc.min_max(wanted).as_py()
        return (
            bisect.bisect_left(range(len(self.keys)), span["min"], key=lambda n: self.keys[n].as_py()),
            bisect.bisect_right(range(len(self.keys)), span["max"], key=lambda n: self.keys[n].as_py()),
        )

    def places(self, wanted: pa.Array) -> np.ndarray:
        """The place of each wanted one, -1 where it is not there."""
        lo, hi = self.slice_of(wanted)
        found = pc.index_in(wanted, value_set=self.keys.slice(lo, hi - lo))
        at = pc.fill_null(found, -1).to_numpy(zero_copy_only=False).astype(np.int64)
        return np.where(at >= 0, at + lo, -1)


def _floats(column: pa.ChunkedArray) -> np.ndarray:
    return column.cast(pa.float64()).to_numpy()
