"""Gridlake's forecasts beside mlforecast and statsforecast: the same issues of the same published data, in one run.

    pip install mlforecast statsforecast
    python benchmarks/forecast_rivals.py --data PATH [--only entsoe_de_load,epf_fr] [--days 56] [--models lightgbm,ensemble]

Every day at the issue time each of them forecasts the next local day from what was known then. All learn from the same days and are
fitted anew every `--refit` days; what came since goes in without a refit. mlforecast is LightGBM with its default settings on lags
of 1, 2, 7 and 14 days, rolling means of a day and a week, hour, weekday and month, and the same exogenous inputs as ours (also
the actual weather that stands for a forecast), predicting step by step. statsforecast is MSTL with daily and weekly seasons and AutoETS
for the trend, on the last eight weeks, fitted at every issue; it takes no inputs. Gaps are interpolated for both, as they need it.
"""

from __future__ import annotations

import argparse
import datetime as dt
import os
import time
import warnings
from pathlib import Path

import forecast_accuracy as ours
import numpy as np
import pandas as pd

MSTL_DAYS = 56


def wide_inputs(case: ours.Case, at: pd.DatetimeIndex) -> pd.DataFrame:
    """The case's inputs on a regular grid, gaps filled; empty where it has none."""
    if case.inputs is None:
        return pd.DataFrame(index=at)
    table = case.inputs
    if "name" in table:
        table = table.pivot_table(index="interval_start", columns="name", values="value").reset_index()
    table = table.drop(columns=[c for c in ("series_id",) if c in table]).set_index("interval_start").sort_index()
    return table[~table.index.duplicated()].reindex(at).interpolate(limit_direction="both")


def rivals(case: ours.Case, first: dt.date, last: dt.date, history_days: int, refit_days: int) -> tuple[pd.DataFrame, dict[str, float]]:
    """Medians of both for the target days of a span: `valid_at`, `mlforecast`, `statsforecast`; and the seconds of each."""
    from lightgbm import LGBMRegressor
    from mlforecast import MLForecast
    from mlforecast.lag_transforms import RollingMean
    from statsforecast.models import MSTL, AutoETS

    task = case.task
    per_day = task.slots_per_day
    series = case.actuals.set_index("interval_start")["value"].sort_index()
    series = series[~series.index.duplicated()]
    begin = task.day_bounds(first)[0] - pd.Timedelta(days=history_days)
    grid = pd.date_range(max(begin, series.index.min()), task.day_bounds(last)[1], freq=task.interval, inclusive="left")
    value = series.reindex(grid).interpolate(limit_direction="both")
    inputs = wide_inputs(case, grid)
    frame = pd.DataFrame({"unique_id": "s", "ds": grid.tz_localize(None), "y": value.to_numpy()}).join(
        inputs.set_axis(grid.tz_localize(None)), on="ds"
    )
    exogenous = list(inputs.columns)
    seconds = {"mlforecast": 0.0, "statsforecast": 0.0}
    parts = []
    model: MLForecast | None = None
    fed = 0
    issues = task.issue_instants(first - dt.timedelta(days=1), last - dt.timedelta(days=1))
    for number, issue in enumerate(issues):
        known = int(grid.searchsorted(task.actuals_known_before(pd.DatetimeIndex([issue]))[0]))
        day = issue.tz_convert(task.time_zone).date() + dt.timedelta(days=1)
        start, stop = (int(grid.searchsorted(moment)) for moment in task.day_bounds(day))
        horizon = stop - known
        ahead = frame.iloc[known:stop]
        began = time.perf_counter()
        if model is None or number % refit_days == 0:
            model = MLForecast(
                models={"mlforecast": LGBMRegressor(verbosity=-1, n_jobs=1, random_state=0)},
                freq=f"{task.interval_minutes}min",
                lags=[per_day, 2 * per_day, 7 * per_day, 14 * per_day],
                lag_transforms={per_day: [RollingMean(per_day), RollingMean(7 * per_day)]},
                date_features=["hour", "dayofweek", "month"],
            )
            model.fit(frame.iloc[:known], static_features=[])
        else:
            model.update(frame.iloc[fed:known])
        fed = known
        said = model.predict(horizon, X_df=ahead[["unique_id", "ds", *exogenous]] if exogenous else None)["mlforecast"].to_numpy()
        seconds["mlforecast"] += time.perf_counter() - began
        began = time.perf_counter()
        recent = frame["y"].to_numpy()[max(known - MSTL_DAYS * per_day, 0) : known]
        mstl = MSTL(season_length=[per_day, 7 * per_day], trend_forecaster=AutoETS(model="ZZN")).forecast(y=recent, h=horizon)["mean"]
        seconds["statsforecast"] += time.perf_counter() - began
        keep = slice(start - known, None)
        parts.append(pd.DataFrame({"valid_at": grid[start:stop], "mlforecast": said[keep], "statsforecast": np.asarray(mstl)[keep]}))
    return pd.concat(parts, ignore_index=True), seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data", type=Path, default=Path(os.environ.get("GRIDLAKE_DATA", Path(__file__).resolve().parents[2] / "shared/data"))
    )
    parser.add_argument("--only", default="entsoe_de_load,spain_load,epf_fr,vic_elec")
    parser.add_argument("--models", default="lightgbm,ensemble")
    parser.add_argument("--days", type=int, default=56, help="the last so many days of each span")
    parser.add_argument("--history-days", type=int, default=730, help="all learn from at most so many days before the span")
    parser.add_argument("--refit", type=int, default=28)
    options = parser.parse_args()
    if not options.data.exists():
        raise SystemExit(f"The data folder {options.data} is not there: give --data PATH or set GRIDLAKE_DATA.")
    try:
        import mlforecast
        import statsforecast
    except ImportError as error:
        raise SystemExit(f"{error.name} is not installed: pip install mlforecast statsforecast") from None
    warnings.filterwarnings("ignore")
    print(f"mlforecast {mlforecast.__version__}, statsforecast {statsforecast.__version__}")
    for name in options.only.split(","):
        models = tuple(options.models.split(","))
        case, result = ours.run(name, options.data, models, options.refit, options.days, options.history_days)
        said, seconds = rivals(case, result.first_day, result.last_day, options.history_days, options.refit)
        rows = result.forecasts
        one = rows[rows["model"] == models[0]].merge(said, on="valid_at")
        known = one.dropna(subset=["actual", "mlforecast", "statsforecast"])
        errors = {rival: float(np.abs(known["actual"] - known[rival]).mean()) for rival in seconds}
        print(f"\n{name}  {result.first_day} to {result.last_day}, refit every {options.refit} days  {result.label}")
        for model in (*models, "seasonal_naive"):
            found = result.measures[model]
            print(f"  {model:15s} MAE {found['mae']:10.4g}  {result.seconds.get(model, 0.0):6.1f} s", flush=True)
        for rival, error in errors.items():
            ratio = result.measures[models[-1]]["mae"] / error
            print(f"  {rival:15s} MAE {error:10.4g}  {seconds[rival]:6.1f} s   {models[-1]} is {ratio:.2f} x its MAE", flush=True)


if __name__ == "__main__":
    main()
