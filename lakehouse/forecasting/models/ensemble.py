"""Weights and calibration from past issues only, and the `Forecaster` that carries them with its members.

Members predict raw quantiles; what they said on issues that they were not fitted to tells how to weigh them and how far their
quantiles have to move (conformal calibration in the manner of Romano, Patterson and Candès 2019, for each quantile by itself).
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from lakehouse.forecasting.models import make_model
from lakehouse.forecasting.models.base import Model, is_dark, uncrossed
from lakehouse.forecasting.task import ForecastTask

CALIBRATION_DAYS = 60
CALIBRATION_HALF_LIFE_DAYS = 10.0
ADAPTATION = 0.3
"""How far a day whose actuals missed the 80 % interval too often moves the quantiles' levels; see `_adaptation`."""
ADAPTATION_WARM_UP_DAYS = 14
LONG_PAST_DAYS = 56
"""With fewer past issue days than this the calibration is as much more cautious: longer half-life, smaller adaptation."""
AIMED_MISSES = 0.19  # a little below 0.2: the days are few, and what was learnt from them falls short in the days to come
WEIGHT_POWER = 3.0
BLEND_COUNTS = 3.0
"""As how many members the blend counts where little past has shown how good the others are, and there is no input to learn from."""
LEAST_ROWS = 24
"""With fewer past rows of a member nothing is known of its errors."""
DARK_TOLERANCE = 0.005
"""Share of the largest actual within which actuals of dark intervals agree, so that their value is known."""


def combine(members: dict[str, np.ndarray], weights: dict[str, float]) -> np.ndarray:
    """Weighted average of quantiles (Vincentization); a member's NaN rows leave their weight to the others."""
    total: np.ndarray | None = None
    share: np.ndarray | None = None
    for name, quantiles in members.items():
        known = np.isfinite(quantiles).all(axis=1)
        part = np.where(known[:, None], quantiles, 0.0) * weights[name]
        amount = known * weights[name]
        total = part if total is None else total + part
        share = amount if share is None else share + amount
    assert total is not None and share is not None
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(share[:, None] > 0, total / share[:, None], np.nan)


def weights_from_past(past: dict[str, np.ndarray], truth: np.ndarray, median: int, power: float = WEIGHT_POWER) -> dict[str, float]:
    """Weights by past accuracy: inversely to the mean absolute error's power; equal where nothing is known.

    A member that joined late is measured on the issues it knows, beside the member that knows most of them; one that nothing is
    known of has no weight as long as something is known of another.

    Args:
        past: (rows, probabilities) of each member on past issues; NaN where a member said nothing.
        truth: (rows,) actuals, NaN where unknown.
        median: column of the median.
        power: how sharply the better member is preferred.
    """
    errors = {name: np.abs(truth - quantiles[:, median]) for name, quantiles in past.items()}
    known = {name: np.isfinite(error) for name, error in errors.items()}
    longest = max(known, key=lambda name: int(known[name].sum()), default="")
    sizes = {}
    for name, error in errors.items():
        both = known[name] & known[longest]
        if both.sum() >= LEAST_ROWS:
            sizes[name] = float(error[both].mean()), float(errors[longest][both].mean())
    if not sizes:
        return {name: 1 / max(len(past), 1) for name in past}
    worst = max(max(pair) for pair in sizes.values())
    least = worst * 1e-6 + 1e-12
    raw = {name: (max(own, least) / max(beside, least)) ** -power for name, (own, beside) in sizes.items()}
    total = sum(raw.values())
    return {name: raw.get(name, 0.0) / total for name in past}


def member_weights(task: ForecastTask, past: dict[str, np.ndarray], truth: np.ndarray, day: np.ndarray) -> dict[str, float]:
    """`weights_from_past`, with restraint where the members' past is short: the blend is among them then.

    A week's errors hardly tell who will be better next week, so the fewer days the nearer the weights are to equal ones. And
    what learns goes wrong more easily than an average of simple forecasts does: without inputs, of which the blend knows
    nothing, the blend counts as several. Both wear off with the days, and many series show in a week what one shows in months.

    Args:
        task: what is forecast.
        past: (rows, probabilities) of each member on past issues; NaN where a member said nothing.
        truth: (rows,) actuals, NaN where unknown.
        day: (rows,) day of each row's issue.
    """
    if "blend" not in past or len(task.series_ids) > 1:
        return weights_from_past(past, truth, task.median_index)
    share = min(len(np.unique(day)) / LONG_PAST_DAYS, 1.0)
    weights = weights_from_past(past, truth, task.median_index, WEIGHT_POWER * share)
    if not task.inputs:
        weights["blend"] *= BLEND_COUNTS + (1 - BLEND_COUNTS) * share
    total = sum(weights.values())
    return {name: weight / total for name, weight in weights.items()}


@dataclass
class Calibration:
    """How far each quantile has to move, in widths of the forecast's own 80 % interval.

    Attributes:
        offsets: one per probability; the median's is zero.
        dark: what dark intervals (`base.is_dark`) bring for certain, in the target's unit; None where nothing is certain.
    """

    offsets: np.ndarray
    dark: float | None = None

    @classmethod
    def none(cls, probabilities: int) -> Calibration:
        """No move."""
        return cls(np.zeros(probabilities))

    @classmethod
    def from_past(
        cls,
        past: np.ndarray,
        truth: np.ndarray,
        probabilities: tuple[float, ...],
        day: np.ndarray | None = None,
        *,
        is_dark: np.ndarray | None = None,
    ) -> Calibration:
        """Offsets with which the past's quantiles would have been right.

        Args:
            past: (rows, probabilities) raw quantiles of past issues.
            truth: (rows,) actuals.
            probabilities: of the columns.
            day: (rows,) day number of each row's issue. Recent days count more, since what a model misses changes with the
                season: a weight halves every `CALIBRATION_HALF_LIFE_DAYS` (weighted quantiles, as in Barber et al. 2023). And
                errors of one day go together, so the days are what conformal prediction's finite-sample correction (n + 1) / n
                counts. What such a calibration missed on the later of these days then moves the levels themselves (adaptive
                conformal inference: Gibbs and Candes 2021). Few days can afford neither: see `LONG_PAST_DAYS`. None leaves
                out all of it.
            is_dark: (rows,) True where the sun is down. Where all such actuals agree, they are known and tell nothing of the
                other hours' uncertainty.
        """
        known = np.isfinite(truth) & np.isfinite(past).all(axis=1)
        dark = _dark_value(truth[known & is_dark], truth[known]) if is_dark is not None else None
        if is_dark is not None and dark is not None:
            known &= ~is_dark
        if known.sum() < 72:
            return cls(np.zeros(len(probabilities)), dark)
        past, truth = past[known], truth[known]
        score = (truth[:, None] - past) / _width(past, probabilities)[:, None]
        weight, days, theta = np.ones(len(truth)), np.inf, 0.0
        if day is not None:
            days = len(np.unique(day[known]))
            share = min(days / LONG_PAST_DAYS, 1.0)
            half_life = CALIBRATION_HALF_LIFE_DAYS / share
            weight = 0.5 ** ((day[known].max() - day[known]) / half_life)
            theta = _adaptation(score, day[known], probabilities, step=ADAPTATION * share, half_life=half_life)
        offsets = np.array([_quantile(score[:, n], weight, _level(q, theta, days)) for n, q in enumerate(probabilities)])
        offsets[probabilities.index(0.5)] = 0.0
        return cls(offsets, dark)

    def apply(self, raw: np.ndarray, probabilities: tuple[float, ...], *, is_dark: np.ndarray | None = None) -> np.ndarray:
        """Calibrated quantiles that do not cross; in the dark all of them are what is certain."""
        found = uncrossed(raw + self.offsets * _width(raw, probabilities)[:, None], probabilities.index(0.5))
        if self.dark is not None and is_dark is not None:
            found[is_dark & np.isfinite(raw).all(axis=1)] = self.dark
        return found


def _dark_value(dark: np.ndarray, every: np.ndarray) -> float | None:
    """What dark intervals bring, if their actuals agree but for one in a hundred; None otherwise, or where there are few."""
    if len(dark) < 24:
        return None
    low, middle, high = np.quantile(dark, (0.005, 0.5, 0.995))
    return float(middle) if high - low <= DARK_TOLERANCE * np.abs(every).max() else None


def _level(probability: float, theta: float, days: float) -> float:
    """Level at which past errors are read for a probability: further out for a larger theta and for fewer days."""
    tail = min(probability, 1 - probability) * float(np.exp(-theta))
    tail = min(tail, 0.5)
    # no further than half the tail: with a dozen days the correction for their number would ask for the worst error ever seen
    inner = min((1 - tail) * (1 + 1 / days), 1 - tail / 2)
    return inner if probability > 0.5 else 1 - inner


def _adaptation(score: np.ndarray, day: np.ndarray, probabilities: tuple[float, ...], *, step: float, half_life: float) -> float:
    """Replays the calibration over its own past, and returns by how much the tails must shrink (as a logarithm) to miss a fifth.

    In the manner of Gibbs and Candes (2021), with one state for all quantiles: a day that missed the 80 % interval more often
    than one in five moves the levels of the next days outwards, and inwards. Each day is judged by the errors of the days
    before it that were known at its issue, so that nothing is judged by itself.

    Args:
        score: (rows, probabilities) errors of the past in widths of the forecast's 80 % interval.
        day: (rows,) day number of each row's issue.
        probabilities: of the columns.
        step: how far a day's misses move the levels.
        half_life: days in which the weight of an error halves.
    """
    every = np.unique(day)
    judged = every[every - every[0] >= ADAPTATION_WARM_UP_DAYS]
    if not len(judged):
        return 0.0
    age = judged[:, None] - day[None, :]
    weight = np.where(age >= 2, 0.5 ** (np.maximum(age, 0) / half_life), 0.0)
    sides = []
    for q in (0.1, 0.9):
        values = score[:, probabilities.index(q)]
        order = np.argsort(values, kind="stable")
        ordered = weight[:, order]
        sides.append((q, values, values[order], np.cumsum(ordered, axis=1) - ordered / 2, ordered.sum(axis=1)))
    theta = 0.0
    for n, one in enumerate(judged):
        today, before = day == one, float((every <= one - 2).sum())
        if sides[0][4][n] <= 0 or not before:
            continue
        low, high = (float(np.interp(_level(q, theta, before) * total[n], heaped[n], ordered)) for q, _, ordered, heaped, total in sides)
        missed = float(np.mean((sides[0][1][today] < low) | (sides[1][1][today] > high)))
        theta = float(np.clip(theta + step * (missed - AIMED_MISSES), -0.7, 0.7))
    return theta


def _quantile(values: np.ndarray, weight: np.ndarray, level: float) -> float:
    """Weighted quantile, linear between the midpoints of the weights."""
    order = np.argsort(values, kind="stable")
    heaped = np.cumsum(weight[order]) - weight[order] / 2
    return float(np.interp(level * weight.sum(), heaped, values[order]))


def _width(quantiles: np.ndarray, probabilities: tuple[float, ...]) -> np.ndarray:
    low, high = probabilities.index(0.1), probabilities.index(0.9)
    width = quantiles[:, high] - quantiles[:, low]
    middle = np.abs(quantiles[:, probabilities.index(0.5)])
    middle = middle[np.isfinite(middle)]
    floor = 1e-3 * float(middle.mean()) + 1e-9 if len(middle) else 1e-9
    return np.maximum(width, floor)


@dataclass
class Forecaster:
    """Fitted members with their weights and calibration: what is saved, registered and used to forecast."""

    members: dict[str, Model]
    weights: dict[str, float]
    calibration: Calibration
    probabilities: tuple[float, ...]
    columns: list[str] = field(default_factory=list)

    def predict(self, features: pa.Table) -> np.ndarray:
        """Calibrated quantiles (rows, probabilities)."""
        raw = {name: model.predict(features) for name, model in self.members.items() if self.weights[name] > 0}
        task = next(iter(self.members.values())).task
        return self.calibration.apply(combine(raw, self.weights), self.probabilities, is_dark=is_dark(features, task))

    def explain(self) -> dict[str, float]:
        """Weighted importance of the features over the members that can tell."""
        total: dict[str, float] = {}
        for name, model in self.members.items():
            for feature, share in model.explain().items():
                total[feature] = total.get(feature, 0.0) + share * self.weights[name]
        whole = sum(total.values())
        return {k: v / whole for k, v in sorted(total.items(), key=lambda item: -item[1])} if whole > 0 else {}

    def save(self, folder: Path) -> None:
        """Writes each member into a folder of its own and `forecaster.json` beside them."""
        for name, model in self.members.items():
            (folder / name).mkdir(parents=True, exist_ok=True)
            model.save(folder / name)
        record: dict[str, Any] = {
            "members": list(self.members), "weights": self.weights, "offsets": self.calibration.offsets.tolist(),
            "dark": self.calibration.dark, "probabilities": list(self.probabilities), "columns": self.columns,
        }  # fmt: skip
        (folder / "forecaster.json").write_text(json.dumps(record, indent=1, sort_keys=True) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> Forecaster:
        """Reads what `save` wrote."""
        record = json.loads((folder / "forecaster.json").read_text(encoding="utf-8"))
        members = {name: make_model(name).load(folder / name) for name in record["members"]}
        calibration = Calibration(np.array(record["offsets"]), record.get("dark"))
        return cls(members, record["weights"], calibration, tuple(record["probabilities"]), record["columns"])
