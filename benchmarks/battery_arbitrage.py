"""What a price forecast is worth to a battery: its share of the profit that perfect foresight would have made.

    python -m benchmarks.battery_arbitrage [--data PATH] [--markets DE,BE,FR] [--models lear,lightgbm] [--refit 28] [--cache DIR] [--json]

PATH is the folder with the published data sets (`epf/DE.csv.gz`, …); GRIDLAKE_DATA or `../shared/data` beside the repository when left out.
1 MW and 2 MWh, 94 % efficient each way, 2.5 EUR/MWh of wear each way. Every day stands by itself: the store begins empty, the plan for
the local day is made by the dispatch engine on the median of a forecast issued at ten the day before, and then carried out at the prices
that came. Several models are also shown as the mean of their medians. Beside the models stands the mean of the last seven days,
hour by hour, in the same run. Forecasts are kept in `--cache`, so
that a second run, or one that was stopped, does not make them again. The published ensembles that docs name were tested on
other years than these files hold, so a share is to be read beside the seven-day mean of the same run.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import os
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.forecast_accuracy import epf_market
from lakehouse.dispatch import DispatchProblem, Market, Storage, solve, utc_intervals
from lakehouse.forecasting.backtest import backtest

POWER_MW, ENERGY_MWH, EFFICIENCY, WEAR_EUR_PER_MWH = 1.0, 2.0, 0.94, 2.5
WEEK = 7


def planned(prices_eur_per_mwh: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Charge and discharge in MW, by hour of the day, that earn most at these prices."""
    day = DispatchProblem(
        interval_start=utc_intervals(dt.datetime(2000, 1, 1, tzinfo=dt.UTC), len(prices_eur_per_mwh), 1.0),
        interval_hours=1.0,
        demand_mw=0.0,
        storages=[
            Storage(
                "battery", POWER_MW, POWER_MW, ENERGY_MWH,
                charge_efficiency=EFFICIENCY, discharge_efficiency=EFFICIENCY, wear_eur_per_mwh=WEAR_EUR_PER_MWH,
            )
        ],
        market=Market(prices_eur_per_mwh, prices_eur_per_mwh, import_limit_mw=POWER_MW, export_limit_mw=POWER_MW),
    )  # fmt: skip
    table = solve(day, gap=1e-6, threads=1, time_limit_seconds=20.0).storage.sort_values("period")
    return table["charge_mw"].to_numpy(), table["discharge_mw"].to_numpy()


def earned(plan: tuple[np.ndarray, np.ndarray], prices_eur_per_mwh: np.ndarray) -> float:
    """EUR that a day's plan earns at the prices that came."""
    charge, discharge = plan
    return float(prices_eur_per_mwh @ (discharge - charge) - WEAR_EUR_PER_MWH * (charge + discharge).sum())


def by_day(values: pd.Series, zone: str) -> pd.DataFrame:
    """A row per local day, a column per hour; days that lack an hour are left out."""
    local = values.index.tz_convert(zone)
    return pd.DataFrame({"day": local.date, "hour": local.hour, "value": values.to_numpy()}).pivot(
        index="day", columns="hour", values="value"
    )


def shares_of(market: str, data: Path, models: list[str], refit_days: int, days: int, cache: Path | None) -> list[dict[str, object]]:
    """One row per model: profit, and its share of what perfect foresight earns."""
    began = time.perf_counter()
    case = epf_market(data, market)
    first = case.last_day - dt.timedelta(days=days - 1)
    folder = cache / f"{market}-{first}-{case.last_day}-{refit_days}d" if cache else None
    if folder:
        folder.mkdir(parents=True, exist_ok=True)
    result = backtest(
        case.task, case.actuals, case.inputs, first_day=first, last_day=case.last_day, models=models, refit_days=refit_days, resume=folder
    )
    zone = case.task.time_zone
    actual = by_day(case.actuals.set_index("interval_start")["value"], zone).dropna()
    forecasts = {"seven-day mean": actual.rolling(WEEK).mean().shift(1).dropna()}
    for model in [m for m in dict.fromkeys(result.forecasts["model"]) if m in models]:
        rows = result.forecasts[result.forecasts["model"] == model]
        forecasts[model] = by_day(rows.set_index("valid_at")["p50"], zone).dropna()
    if len(models) > 1:
        tables = [forecasts[model] for model in models if model in forecasts]
        forecasts["mean of " + " and ".join(models)] = sum(tables[1:], tables[0]).dropna() / len(tables)
    span = [d for d in actual.index if first <= d <= case.last_day and all(d in table.index for table in forecasts.values())]
    truth = {d: actual.loc[d].to_numpy() for d in span}
    perfect = sum(earned(planned(truth[d]), truth[d]) for d in span)
    seconds = time.perf_counter() - began
    rows = []
    for name, table in forecasts.items():
        profit = sum(earned(planned(table.loc[d].to_numpy()), truth[d]) for d in span)
        error = float(np.mean([np.abs(table.loc[d].to_numpy() - truth[d]).mean() for d in span]))
        rows.append(
            {
                "market": market, "forecast": name, "from": span[0].isoformat(), "to": span[-1].isoformat(), "days": len(span),
                "mae_eur_per_mwh": round(error, 3), "profit_eur": round(profit, 1), "perfect_eur": round(perfect, 1),
                "share": round(profit / perfect, 4), "refit_days": refit_days, "seconds": round(seconds, 1),
            }
        )  # fmt: skip
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data", type=Path, default=Path(os.environ.get("GRIDLAKE_DATA", Path(__file__).resolve().parents[2] / "shared/data"))
    )
    parser.add_argument("--markets", default="DE,BE,FR")
    parser.add_argument("--models", default="lear")
    parser.add_argument("--refit", type=int, default=28)
    parser.add_argument("--days", type=int, default=728, help="the last so many days of the files")
    parser.add_argument("--cache", type=Path, help="folder in which forecasts are kept")
    parser.add_argument("--json", action="store_true", help="one JSON object per line")
    options = parser.parse_args()
    if not (options.data / "epf").is_dir():
        raise SystemExit(f"Expected the folder epf in {options.data}, found none: give --data PATH or set GRIDLAKE_DATA.")
    for market in options.markets.split(","):
        for row in shares_of(market, options.data, options.models.split(","), options.refit, options.days, options.cache):
            if options.json:
                print(json.dumps(row), flush=True)
            else:
                print(
                    f"{row['market']}  {row['forecast']:<26} {row['from']} to {row['to']}  MAE {row['mae_eur_per_mwh']:6.2f}  "
                    f"profit {row['profit_eur']:10,.0f} of {row['perfect_eur']:10,.0f} EUR  share {row['share']:.3f}",
                    flush=True,
                )


if __name__ == "__main__":
    sys.exit(main())
