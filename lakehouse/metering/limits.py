"""How far a day's values may go before a rule could fire: the limits of the quick look, as array arithmetic.

Each function tells days (or rows) that the rules in `values` have to look at one by one. They may name too many and never too few.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from lakehouse.metering.rules import VeeRules


def spiking(
    rules: VeeRules,
    usual: dict[str, np.ndarray],
    rated: np.ndarray,
    kwh: np.ndarray,
    kw: np.ndarray,
    follows: np.ndarray,
    days_n: np.ndarray,
    by_day: Any,
    by_part: Any,
) -> np.ndarray:
    """Days with a reading that could be a spike."""
    low = np.where(np.isfinite(rated), rules.spike_rated_share * rated, rules.spike_least_kw)
    with np.errstate(all="ignore"):
        limit = np.where(usual["past_days"] >= rules.spike_least_days, np.maximum(low, rules.spike_factor * usual["usual_peak_kw"]), np.inf)
    most = by_day(np.maximum, by_part(np.maximum, kw))
    suspicious = most > limit
    if suspicious.any():
        before, after = np.full(len(kwh), -np.inf), np.full(len(kwh), -np.inf)
        before[1:] = np.where(follows[1:], kwh[:-1], -np.inf)
        after[:-1] = np.where(follows[1:], kwh[1:], -np.inf)
        row_limit = np.repeat(limit, days_n)
        beside = np.maximum(np.maximum(before, after), 0) * np.divide(kw, kwh, out=np.zeros(len(kw)), where=kwh != 0)
        usual_lone = np.where(np.isnan(usual["usual_lone_kw"]), usual["usual_peak_kw"], usual["usual_lone_kw"])
        usual_lone = np.repeat(np.nan_to_num(usual_lone, nan=0.0), days_n)
        alone = (kwh > min(rules.spike_neighbour_factor, rules.spike_far_factor) * np.maximum(np.maximum(before, after), 0)) | (
            kw - beside > rules.spike_sure_factor * usual_lone
        )
        alone &= kw - beside > rules.spike_lone_factor * usual_lone
        suspicious &= by_day(np.logical_or, by_part(np.logical_or, alone & (kw > row_limit)))
    return suspicious


def slipped(rules: VeeRules, usual: dict[str, np.ndarray], day_sum: np.ndarray) -> np.ndarray:
    """Days whose level is far from the usual by about a thousand."""
    with np.errstate(all="ignore"):
        decades = np.abs(np.log10(np.abs(day_sum) / 24.0 / usual["usual_mean_kw"]))
        near = np.abs(decades - 3) < rules.unit_slip_decades + 0.3
    return near & (usual["usual_mean_kw"] > 0) & (day_sum != 0)


def odd_zeros(
    rules: VeeRules,
    usual: dict[str, np.ndarray],
    zeros: np.ndarray,
    is_export: np.ndarray,
    most_after_zero: np.ndarray,
    hours_with_zeros: np.ndarray,
    jumps: np.ndarray,
    zero_hours_mask: np.ndarray,
) -> np.ndarray:
    """Days with zeros that could be a dead register or one that was read late."""
    known = np.nan_to_num(usual["usual_hours_with_zeros"]).astype(np.int64)
    around = known | known << 1 | known >> 1 | (known & 1) << 23 | known >> 23
    with np.errstate(all="ignore"):
        longest = np.where(usual["usual_zero_hours"] < 1, rules.zero_run_hours, rules.zero_run_hours_where_usual)
        is_usual = (
            (usual["usual_zero_share"] >= rules.zero_usual_share)
            & (most_after_zero <= usual["usual_peak_kw"])
            & ~jumps
            & ((zero_hours_mask & ~around) == 0)
            & ((hours_with_zeros < longest) | (hours_with_zeros <= usual["usual_zero_hours"]))
        )
        has_past = usual["past_days"] >= rules.least_history_days
    return (zeros > 0) & ~is_export & has_past & ~is_usual


def longest_run(rules: VeeRules, usual: dict[str, np.ndarray]) -> np.ndarray:
    """From which length on a run of equal values could be stuck, in intervals."""
    share = np.where(usual["past_days"] >= rules.least_history_days, np.nan_to_num(usual["usual_repeat_share"], nan=0.01), 0.3)
    return np.maximum(rules.stuck_least_repeats, 1 + math.log(rules.stuck_chance) / np.log(np.clip(share, 0.01, 0.99)))


def resting_with_export(
    rules: VeeRules,
    meter: np.ndarray,
    may_export: np.ndarray,
    is_export: np.ndarray,
    register_at: np.ndarray,
    start: np.ndarray,
    minutes: np.ndarray,
    kwh: np.ndarray,
    follows: np.ndarray,
    run_starts: np.ndarray,
) -> np.ndarray | None:
    """Rows of zeros, and of the reading that could hold their energy, in which the meter's export register counted nothing either.

    Args:
        rules: thresholds.
        meter: number of each register's meter.
        may_export: registers whose meter has an export register; the first one's may lie before these rows.
        is_export: registers that are one.
        register_at: first row of each register.
        start, minutes, kwh: the rows.
        follows: rows that follow the one before without a hole.
        run_starts: first rows of runs of equal values.

    Returns:
        Which rows, or None where there are none.
    """
    asked = may_export & ~is_export
    if not asked.any():
        return None
    register = np.searchsorted(register_at, np.arange(len(kwh)), side="right") - 1
    zero = kwh == 0
    ends = np.flatnonzero(np.append(False, zero[:-1]) & ~zero & follows & asked[register])
    ends = ends[ends + 1 < len(kwh)]
    if not len(ends):
        return None
    first = run_starts[np.searchsorted(run_starts, ends - 1, side="right") - 1]
    zeros = ends - first
    share = kwh[ends] / (zeros + 1)
    before, after = _middle(kwh, first, -1), _middle(kwh, ends, 1)
    mean = (before + after) / 2
    likely = (kwh[ends] > rules.late_read_least_excess * mean) & (share >= 0.999 * mean / rules.late_read_ratio)
    likely &= share <= 1.001 * mean * rules.late_read_ratio
    beside = np.maximum(kwh[np.maximum(first - 1, 0)], kwh[ends + 1])
    likely &= (zeros > 1) | (kwh[ends] > rules.late_read_lone_excess * beside)
    # At the border of a register, or of what was delivered without a hole, the rules look for themselves.
    edge = register[np.maximum(first - 3, 0)] != register[np.minimum(ends + 3, len(kwh) - 1)]
    holes = np.cumsum(~follows)
    edge |= holes[np.maximum(first - 3, 0)] != holes[np.minimum(ends + 3, len(kwh) - 1)]
    likely = (likely | edge) & (zeros * minutes[ends] <= rules.late_read_hours * 60)
    ends, first = ends[likely], first[likely]
    if not len(ends):
        return None
    rests = zero & is_export[register]
    exported = set(zip(meter[register[rests]].tolist(), start[rests].tolist(), strict=True))
    found = np.zeros(len(kwh), bool)
    for lo, hi in zip(first.tolist(), ends.tolist(), strict=True):
        at = register[lo]
        if at == 0 or all((meter[at], moment) in exported for moment in start[lo:hi].tolist()):
            found[lo : hi + 1] = True
    return found if found.any() else None


def _middle(kwh: np.ndarray, at: np.ndarray, step: int) -> np.ndarray:
    """The middle one of the three readings before (-1) or after (1) some rows."""
    return np.median([kwh[np.clip(at + n * step, 0, len(kwh) - 1)] for n in (1, 2, 3)], axis=0)
