"""The backtest's report as one HTML file with its pictures inside.

Only drawing: the figures come from `backtest.BacktestResult`.
"""

from __future__ import annotations

import base64
import html
import io
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lakehouse.forecasting.backtest import BacktestResult
from lakehouse.forecasting.task import quantile_column

INK, BAND, ACCENT, MUTED = "#1d3557", "#457b9d", "#e63946", "#8d99ae"
MODEL_COLOURS = {
    "ensemble": "#1d3557",
    "lightgbm": "#2a9d8f",
    "keras": "#e9a23b",
    "lear": "#7b5ea7",
    "like_day": "#adb5bd",
    "seasonal_naive": "#6c757d",
    "operator": "#e63946",
}


def write_report(result: BacktestResult, path: Path, *, site: str = "") -> Path:
    """Writes a self-contained HTML report of a backtest.

    It shows the measures of every model, fan charts of the best and worst days of the best model, its reliability, the error by
    hour, weekday and month, and what the model looked at.

    Args:
        result: the backtest.
        path: file to write; its folder is made.
        site: name of the site for the title.

    Returns:
        The path.
    """
    import matplotlib

    matplotlib.use("Agg", force=False)
    best = best_model(result)
    rows = result.forecasts[(result.forecasts["model"] == best) & result.forecasts["actual"].notna()]
    daily = _daily_error(result, rows)
    title = f"{result.task.target.capitalize()} forecast{' of ' + site if site else ''}, {result.first_day} to {result.last_day}"
    sections = [
        ("Accuracy", _measures_table(result, best)),
        ("Best days", _figure(_fans(result, rows, daily.index[:3].tolist()))),
        ("Worst days", _figure(_fans(result, rows, daily.index[::-1][:3].tolist()))),
        (
            "Reliability",
            _figure(_reliability(result, rows))
            + "<p>A perfect forecast's actuals fall below each quantile as often as it says: on the diagonal.</p>",
        ),
        ("Error by hour, weekday and month", _figure(_error_profiles(result))),
    ]
    if result.importance:
        sections.append(("What the model looked at", _figure(_importance(result)) + "<p>Share of the LightGBM model's gain.</p>"))
    body = "\n".join(f"<section><h2>{html.escape(name)}</h2>\n{content}\n</section>" for name, content in sections)
    label = f"<p class='label'>{html.escape(result.label)}: actual weather stands in for a weather forecast.</p>" if result.label else ""
    label += "".join(f"<p class='label'>{html.escape(note)}</p>" for note in result.notes)
    clock = f"{result.task.issue_time_local} local time ({html.escape(result.task.time_zone)})"
    intro = f"<p>Issued daily at {clock} for the next day; charts show <b>{html.escape(best)}</b>.</p>"
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(_PAGE.format(title=html.escape(title), label=label, intro=intro, body=body), encoding="utf-8")
    return path


def best_model(result: BacktestResult) -> str:
    """The model with quantiles that has the least pinball loss."""
    with_quantiles = {m: f["pinball"] for m, f in result.measures.items() if np.isfinite(f["pinball"])}
    return min(with_quantiles, key=lambda m: with_quantiles[m])


def _daily_error(result: BacktestResult, rows: pd.DataFrame) -> pd.Series:
    """Mean absolute error of each local day over all series, smallest first; days with most of their intervals only."""
    day = rows["valid_at"].dt.tz_convert(result.task.time_zone).dt.date
    error = (rows["actual"] - rows["p50"]).abs().groupby(day)
    full = error.count() >= 0.9 * error.count().max()
    return error.mean()[full].sort_values()


def _fans(result: BacktestResult, rows: pd.DataFrame, days: list[Any]) -> Any:
    import matplotlib.pyplot as plt

    fig, axes = plt.subplots(1, max(len(days), 1), figsize=(12, 3.3), squeeze=False, sharey=True)
    local = rows["valid_at"].dt.tz_convert(result.task.time_zone)
    first_series = result.task.series_ids[0]
    probabilities = result.task.quantiles
    for axis, day in zip(axes[0], days, strict=False):
        part = rows[(local.dt.date == day) & (rows["series_id"] == first_series)].sort_values("valid_at")
        hours = np.arange(len(part)) * result.task.interval_minutes / 60
        for low, high in zip(probabilities, reversed(probabilities), strict=True):
            if low < 0.5:
                axis.fill_between(
                    hours,
                    part[quantile_column(low)],
                    part[quantile_column(high)],
                    color=BAND,
                    alpha=0.22,
                    lw=0,
                    label=f"{high - low:.0%} interval",
                )
        axis.plot(hours, part["p50"], color=INK, lw=1.8, label="median")
        axis.plot(hours, part["actual"], color=ACCENT, lw=1.6, label="actual")
        axis.set_title(f"{day:%a %d %b %Y}  (MAE {(part['actual'] - part['p50']).abs().mean():.3g} {result.task.unit})", fontsize=10)
        axis.set_xlabel("hour of the local day")
        axis.set_xticks(range(0, 25, 6))
        axis.grid(alpha=0.25)
    axes[0][0].set_ylabel(f"{first_series}, {result.task.unit}")
    axes[0][-1].legend(fontsize=8, frameon=False, loc="best")
    return fig


def _reliability(result: BacktestResult, rows: pd.DataFrame) -> Any:
    import matplotlib.pyplot as plt

    fig, (left, right) = plt.subplots(1, 2, figsize=(9, 3.8))
    left.plot([0, 1], [0, 1], color=MUTED, lw=1, ls="--")
    for model, part in result.forecasts.groupby("model", sort=False):
        if model not in MODEL_COLOURS or not part["p10"].notna().any():
            continue
        known = part[part["actual"].notna()]
        below = [float((known["actual"] <= known[quantile_column(q)]).mean()) for q in result.task.quantiles]
        left.plot(result.task.quantiles, below, marker="o", ms=4, lw=1.3, color=MODEL_COLOURS[str(model)], label=str(model))
    left.set_xlabel("quantile")
    left.set_ylabel("share of actuals below it")
    left.legend(fontsize=8, frameon=False)
    left.grid(alpha=0.25)
    edges = [*(rows[c].to_numpy() for c in result.task.quantile_columns)]
    actual = rows["actual"].to_numpy()
    place = np.sum([actual > e for e in edges], axis=0)
    share = np.array([np.mean(place == n) for n in range(len(edges) + 1)])
    expected = np.diff(np.concatenate([[0.0], result.task.quantiles, [1.0]]))
    names = [
        "<" + result.task.quantile_columns[0],
        *[f"{a[1:]}–{b[1:]}" for a, b in zip(result.task.quantile_columns[:-1], result.task.quantile_columns[1:], strict=True)],
        ">" + result.task.quantile_columns[-1],
    ]
    right.bar(range(len(share)), 100 * share, color=BAND, label="found")
    right.step(
        np.arange(len(share) + 1) - 0.5, 100 * np.append(expected, expected[-1]), where="post", color=ACCENT, lw=1.4, label="promised"
    )
    right.set_xticks(range(len(share)), names, rotation=45, fontsize=8)
    right.set_ylabel("share of actuals, %")
    right.legend(fontsize=8, frameon=False)
    return fig


def _error_profiles(result: BacktestResult) -> Any:
    import matplotlib.pyplot as plt

    fig, axes = plt.subplots(1, 3, figsize=(12, 3.5))
    table = result.accuracy
    for axis, (dimension, label) in zip(axes, (("hour", "hour of the local day"), ("weekday", "weekday"), ("month", "month")), strict=True):
        part = table[table["dimension"] == dimension]
        for model, of_model in part.groupby("model", sort=False):
            weighted = of_model.assign(total=of_model["mae"] * of_model["n"]).groupby("bucket")[["total", "n"]].sum()
            axis.plot(
                weighted.index,
                weighted["total"] / weighted["n"],
                marker="o",
                ms=3,
                lw=1.3,
                color=MODEL_COLOURS.get(str(model), MUTED),
                label=str(model),
            )
        axis.set_xlabel(label)
        axis.set_ylim(bottom=0)
        axis.grid(alpha=0.25)
        if dimension == "weekday":
            axis.set_xticks(range(7), ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"][: part["bucket"].nunique()]) if part[
                "bucket"
            ].nunique() == 7 else None
        elif dimension == "hour":
            axis.set_xticks(range(0, part["bucket"].nunique(), 3))
        else:
            axis.tick_params(axis="x", rotation=60, labelsize=8)
    axes[0].set_ylabel(f"mean absolute error, {result.task.unit}")
    axes[-1].legend(fontsize=8, frameon=False, bbox_to_anchor=(1.01, 1), loc="upper left")
    return fig


def _importance(result: BacktestResult) -> Any:
    import matplotlib.pyplot as plt

    items = list(result.importance.items())[:15][::-1]
    fig, axis = plt.subplots(figsize=(8, 0.28 * len(items) + 0.8))
    axis.barh([name for name, _ in items], [100 * share for _, share in items], color=BAND)
    axis.set_xlabel("share of gain, %")
    axis.tick_params(axis="y", labelsize=8)
    return fig


def _figure(fig: Any) -> str:
    import matplotlib.pyplot as plt

    fig.tight_layout()
    buffer = io.BytesIO()
    fig.savefig(buffer, format="png", dpi=110, bbox_inches="tight")
    plt.close(fig)
    return f'<img alt="" src="data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}">'


def _measures_table(result: BacktestResult, best: str) -> str:
    unit = html.escape(result.task.unit)
    heads = [
        ("mae", f"MAE, {unit}"),
        ("rmse", f"RMSE, {unit}"),
        ("mape", "MAPE, %"),
        ("wape", "WAPE, %"),
        ("rmae", "MAE / last week"),
        ("pinball", f"pinball, {unit}"),
        ("crps", f"CRPS, {unit}"),
        ("coverage_80", "80 % interval covers, %"),
        ("peak_hour_error", "peak off by, h"),
    ]
    lines = ["<table><tr><th>model</th>" + "".join(f"<th>{h}</th>" for _, h in heads) + "<th>n</th></tr>"]
    for model, found in sorted(result.measures.items(), key=lambda item: item[1]["mae"]):
        cells = "".join(f"<td>{found[key]:,.4g}</td>" if np.isfinite(found[key]) else "<td>–</td>" for key, _ in heads)
        mark = ' class="best"' if model == best else ""
        lines.append(f"<tr{mark}><td>{html.escape(model)}</td>{cells}<td>{int(found['n']):,}</td></tr>")
    return "\n".join([*lines, "</table>"])


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title><style>
body {{ font: 15px/1.5 system-ui, sans-serif; color: #222; max-width: 1180px; margin: 2rem auto; padding: 0 1rem; }}
h1 {{ font-size: 1.5rem; color: #1d3557; margin-bottom: .3rem; }} h2 {{ font-size: 1.1rem; color: #1d3557; margin: 1.8rem 0 .4rem; }}
table {{ border-collapse: collapse; font-variant-numeric: tabular-nums; }}
th, td {{ padding: .3rem .7rem; text-align: right; border-bottom: 1px solid #e3e7ec; }}
th:first-child, td:first-child {{ text-align: left; }} th {{ font-weight: 600; color: #555; font-size: .85rem; }}
.best td {{ background: #eef4fa; font-weight: 600; }}
img {{ max-width: 100%; }} .label {{ background: #fff4e0; border-left: 4px solid #e9a23b; padding: .4rem .8rem; display: inline-block; }}
</style></head><body><h1>{title}</h1>{intro}{label}
{body}
</body></html>
"""
