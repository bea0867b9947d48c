"""Drift: whether forecasts got worse since the newest training, or their inputs left what it had seen.

Both look only at issues since the champion's training, so that a training which helped ends the alarm, and one which was just
done raises none.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date
from typing import Any

import numpy as np

from lakehouse.flow import forecast
from lakehouse.flow.workspace import Workspace

LEAST_ISSUES = 3
COMPARED_ISSUES = 56
WORSE = 1.25
"""Forecasts drift when the error, as a share of the seasonal naive's, is so many times what it was before …"""
CHANCE = 0.01
"""… and less likely than this if nothing had changed (Welch's t test on the logarithms of each issue's share)."""
OUTSIDE_SHARE = 0.2
"""An input drifts when more than this share of its values lies outside the range of all but one in a hundred in the training."""


@dataclass(frozen=True)
class Drift:
    """What was found, in a sentence and in numbers."""

    is_drifting: bool
    told: str
    figures: dict[str, Any] = field(default_factory=dict)


def error_drift(workspace: Workspace, target: str) -> Drift:
    """Compares the champion's error since its training with that of its kind before, each as a share of the seasonal naive's."""
    champion = forecast.registry_of(workspace).champion(target)
    table = workspace.table("quality/forecast_accuracy")
    if champion is None or not table.exists():
        return Drift(False, "No model was trained, or nothing was scored as yet.")
    scores = table.read(f"target = '{target}' AND model IN ('{champion.model}', 'seasonal_naive') AND NOT is_fallback").to_pandas()
    by_issue = scores.pivot_table(index="issued_at", columns="model", values="mae", aggfunc="mean").sort_index()
    if champion.model not in by_issue or "seasonal_naive" not in by_issue:
        return Drift(False, f"No forecast by {champion.model} was scored beside the seasonal naive as yet.")
    by_issue = by_issue[(by_issue > 0).all(axis=1)]
    is_recent = by_issue.index > champion.trained_until
    recent, before = by_issue[is_recent], by_issue[~is_recent].tail(COMPARED_ISSUES)
    if len(recent) < LEAST_ISSUES or len(before) < 2 * LEAST_ISSUES:
        return Drift(False, f"{len(recent)} issues since the training of {champion.version} are scored: too few to tell.")
    from scipy.stats import ttest_ind

    shares = [float(part[champion.model].sum() / part["seasonal_naive"].sum()) for part in (recent, before)]
    logs = [np.log(part[champion.model] / part["seasonal_naive"]).to_numpy() for part in (recent, before)]
    chance = float(ttest_ind(logs[0], logs[1], equal_var=False, alternative="greater").pvalue)
    ratio = shares[0] / shares[1]
    told = (
        f"Error over the seasonal naive's: {shares[0]:.2f} in the {len(recent)} issues since the training, {shares[1]:.2f} in the "
        f"{len(before)} before ({ratio:.2f} times, p {chance:.3f})."
    )
    return Drift(ratio > WORSE and chance < CHANCE, told, {"ratio": ratio, "p_value": chance, "issues": len(recent)})


def input_drift(workspace: Workspace, target: str) -> Drift:
    """Tells how much of each input since the champion's training lies outside what the training had seen."""
    champion = forecast.registry_of(workspace).champion(target)
    if champion is None or not champion.input_ranges:
        return Drift(False, "No model was trained, or it keeps no ranges of its inputs.")
    trained_on = champion.trained_until.tz_convert(workspace.site.zone).date()
    made = [d for d in workspace.table(f"features/{target}").partitions_written() if d > trained_on]
    if len(made) < LEAST_ISSUES:
        return Drift(False, f"{len(made)} issues since the training of {champion.version}: too few to tell.")
    rows = forecast.features_between(workspace, target, min(made), date.max)
    outside: dict[str, float] = {}
    for name, (low, high) in champion.input_ranges.items():
        values = rows.column(name).to_numpy(zero_copy_only=False).astype(float) if name in rows.column_names else np.array([])
        values = values[np.isfinite(values)]
        if len(values):
            outside[name] = float(np.mean((values < low) | (values > high)))
    if not outside:
        return Drift(False, "No input has values since the training.")
    worst = max(outside, key=lambda name: outside[name])
    low, high = champion.input_ranges[worst]
    told = (
        f"{outside[worst]:.0%} of {worst} in the {len(made)} issues since the training lies outside {low:.4g} to {high:.4g}, where "
        f"99 % of the training's lay; other inputs less."
    )
    return Drift(outside[worst] > OUTSIDE_SHARE, told, outside)
