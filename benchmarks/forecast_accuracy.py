"""How good the forecasts are on published data: one row per data set and model, beside the operator and last week's value.

    python benchmarks/forecast_accuracy.py --data PATH [--only spain_load,epf_np] [--models lightgbm,lear,ensemble] [--refit 7]
        [--days 364] [--workers 2] [--resume DIR] [--json]

PATH is the folder with the published data sets (`spain/`, `entsoe_de/`, …); GRIDLAKE_DATA or `../shared/data` beside the repository
when left out. Rolling origin, models refitted every `--refit` days on what was known at the issue; nothing after the issue is read.
A span of several calendar years is measured in each of them as well.
Quarter-hourly German series are averaged to hours here, to keep a full run below an hour on two cores.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from lakehouse.forecasting.backtest import BacktestResult, backtest
from lakehouse.forecasting.metrics import measure
from lakehouse.forecasting.task import ExogenousInput, ForecastTask

LEAST_DAYS_OF_A_YEAR = 28
GAPS = ["n/e", "-", " ", "", "N/A", "NaN"]


@dataclass
class Case:
    task: ForecastTask
    actuals: pd.DataFrame
    inputs: pd.DataFrame | None
    operator: pd.DataFrame | None
    first_day: dt.date
    last_day: dt.date
    bar: str
    measure: str  # the figure that the bar is about
    limit: float  # the bar
    against: str  # "" for the plain measure, else the benchmark that it is divided by


def long(at: pd.DatetimeIndex | pd.Series, value: np.ndarray | pd.Series, series_id: str) -> pd.DataFrame:
    return pd.DataFrame(
        {"series_id": series_id, "interval_start": pd.DatetimeIndex(at).as_unit("us"), "value": np.asarray(value, dtype=float)}
    )


# --- Spain -----------------------------------------------------------------------------------------------------------


def spain_tables(data: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Energy with its exchanged dates put right, and hourly temperatures of five cities in degC."""
    energy = pd.read_csv(data / "spain/energy_dataset.csv.gz")
    at = pd.to_datetime(energy["time"], utc=True).astype("datetime64[us, UTC]")
    local = at.dt.tz_convert("Europe/Madrid").dt.tz_localize(None)
    swapped = local.dt.day <= 12
    told = pd.to_datetime(
        {
            "year": local.dt.year,
            "month": local.dt.month.where(~swapped, local.dt.day),
            "day": local.dt.day.where(~swapped, local.dt.month),
            "hour": local.dt.hour,
        }
    )
    columns = [c for c in energy.columns if c not in ("time", "price actual")]
    values = energy[columns].assign(told=told).drop_duplicates("told").set_index("told")
    right = values.reindex(local).reset_index(drop=True).assign(interval_start=at)
    weather = pd.read_csv(data / "spain/weather_features.csv.gz")
    weather["interval_start"] = pd.to_datetime(weather["dt_iso"], utc=True).astype("datetime64[us, UTC]")
    weather["city"] = "temperature_" + weather["city_name"].str.strip().str.lower()
    temperature = weather.drop_duplicates(["interval_start", "city"]).pivot(index="interval_start", columns="city", values="temp") - 273.15
    return right, temperature.reset_index()


def spain_load(data: Path, *, with_operator: bool) -> Case:
    energy, temperature = spain_tables(data)
    cities = [c for c in temperature if c != "interval_start"]
    inputs = [ExogenousInput(c, "degC", "weather", "perfect") for c in cities]
    table = temperature
    if with_operator:
        inputs.append(ExogenousInput("operator_load", "MW", "operator_forecast", "day_ahead", forecasts_target=True))
        table = temperature.merge(
            energy[["interval_start", "total load forecast"]].rename(columns={"total load forecast": "operator_load"}),
            on="interval_start",
            how="outer",
        )
    task = ForecastTask("demand", ("ES",), "Europe/Madrid", "ES", "", 40.42, -3.70, inputs=tuple(inputs))
    operator = energy[["interval_start", "total load forecast"]].rename(columns={"total load forecast": "value"})
    bar = ("MAE <= 1.0 x operator", "mae", 1.0, "operator") if with_operator else ("MAPE <= 1.6 %", "mape", 1.6, "")
    return Case(
        task,
        long(energy["interval_start"], energy["total load actual"], "ES"),
        table,
        operator,
        dt.date(2017, 1, 1),
        dt.date(2017, 12, 31),
        *bar,
    )


# --- Germany ---------------------------------------------------------------------------------------------------------


def entsoe_table(folder: Path, years: tuple[str, ...]) -> pd.DataFrame:
    """Quarter-hourly exports as hourly means in UTC; gaps stay gaps."""
    parts = []
    for path in sorted(folder.glob("*.csv*")):
        if any(f"{year}12312300-" in path.name for year in years):
            parts.append(pd.read_csv(path, na_values=GAPS))
    table = pd.concat(parts, ignore_index=True)
    start = table.iloc[:, 0].str.split(" - ").str[0]
    summer = start.str.contains("(CEST)", regex=False)
    naive = pd.to_datetime(start.str.replace(r" \(CES?T\)", "", regex=True), dayfirst=True)
    at = naive.dt.tz_localize("Europe/Berlin", ambiguous=summer.to_numpy(), nonexistent="NaT").dt.tz_convert("UTC")
    values = table.iloc[:, 2:].apply(pd.to_numeric, errors="coerce")
    values["interval_start"] = at.dt.floor("h").astype("datetime64[us, UTC]")
    return values.dropna(subset=["interval_start"]).groupby("interval_start").mean().reset_index()


def entsoe_load(data: Path) -> Case:
    table = entsoe_table(data / "entsoe_de/load", ("2017", "2018", "2019", "2020", "2021"))
    actual, forecast = "Actual Total Load (MW)", "Day-ahead Total Load Forecast (MW)"
    task = ForecastTask("demand", ("DE",), "Europe/Berlin", "DE", "", 51.0, 10.0, issue_time_local="10:00")
    operator = table[["interval_start", forecast]].rename(columns={forecast: "value"})
    return Case(
        task,
        long(table["interval_start"], table[actual], "DE"),
        None,
        operator,
        dt.date(2021, 1, 1),
        dt.date(2022, 12, 31),
        "MAPE <= 0.70 x operator",
        "mape",
        0.70,
        "operator",
    )


GENERATION = {"operator_onshore": "on_wind", "operator_offshore": "off_wind", "operator_solar": "solar"}


def entsoe_generation(data: Path, folder: str, target: str) -> Case:
    """Wind or sun with what the operator publishes by the issue at 18:00: its forecast of it, of the others, and of the load."""
    years, forecast = ("2018", "2019", "2020", "2021"), "Day-ahead (MW)"
    table = entsoe_table(data / "entsoe_de" / folder, years)
    inputs = table[["interval_start", forecast]].rename(columns={forecast: "operator"})
    neighbours = {name: (other, forecast) for name, other in GENERATION.items() if other != folder}
    neighbours["operator_load"] = ("load", "Day-ahead Total Load Forecast (MW)")
    for name, (other, told) in neighbours.items():
        one = entsoe_table(data / "entsoe_de" / other, years)[["interval_start", told]].rename(columns={told: name})
        inputs = inputs.merge(one, on="interval_start", how="left")
    task = ForecastTask(
        target,  # type: ignore[arg-type]
        (folder,), "Europe/Berlin", "DE", "", 51.0, 10.0, issue_time_local="18:00",
        inputs=(
            ExogenousInput("operator", "MW", "operator_forecast", "day_ahead", forecasts_target=True),
            *(ExogenousInput(name, "MW", "market", "day_ahead") for name in neighbours),
        ),
    )  # fmt: skip
    return Case(
        task,
        long(table["interval_start"], table["Actual (MW)"], folder),
        inputs,
        None,
        dt.date(2021, 1, 1),
        dt.date(2022, 12, 31),
        "MAE <= 0.95 x operator",
        "mae",
        0.95,
        "operator",
    )


# --- France, Victoria, Switzerland -----------------------------------------------------------------------------------


def opsd_france(data: Path) -> Case:
    load = pd.read_csv(data / "opsd/FR_time_series_60min_singleindex_filtered.csv.gz")
    weather = pd.read_csv(data / "opsd/FR_weather_data_filtered.csv.gz")
    at = pd.to_datetime(load["utc_timestamp"], utc=True).astype("datetime64[us, UTC]")
    inputs = pd.DataFrame(
        {
            "interval_start": pd.to_datetime(weather["utc_timestamp"], utc=True).astype("datetime64[us, UTC]"),
            "temperature": weather["FR_temperature"],
            "radiation": weather["FR_radiation_direct_horizontal"] + weather["FR_radiation_diffuse_horizontal"],
        }
    )
    task = ForecastTask(
        "demand", ("FR",), "Europe/Paris", "FR", "", 47.0, 2.5,
        inputs=(
            ExogenousInput("temperature", "degC", "weather", "perfect"),
            ExogenousInput("radiation", "W/m2", "weather", "perfect"),
            ExogenousInput("operator", "MW", "operator_forecast", "day_ahead", forecasts_target=True),
        ),
    )  # fmt: skip
    forecast = pd.DataFrame({"interval_start": at, "operator": load["FR_load_forecast_entsoe_transparency"]})
    inputs = inputs.merge(forecast, on="interval_start", how="outer")
    return Case(
        task,
        long(at, load["FR_load_actual_entsoe_transparency"], "FR"),
        inputs,
        None,
        dt.date(2017, 1, 1),
        dt.date(2017, 12, 31),
        "MAPE <= 1.0 x operator",
        "mape",
        1.0,
        "operator",
    )


def vic_elec(data: Path) -> Case:
    table = pd.read_csv(data / "vic_elec/vic_electricity.csv.gz")
    at = pd.to_datetime(table["Time"], utc=True).astype("datetime64[us, UTC]")
    task = ForecastTask(
        "demand",
        ("VIC",),
        "Australia/Melbourne",
        "AU",
        "VIC",
        -37.8,
        145.0,
        interval_minutes=30,
        issue_time_local="10:00",
        inputs=(ExogenousInput("temperature", "degC", "weather", "perfect"),),
    )
    inputs = pd.DataFrame({"interval_start": at, "temperature": table["Temperature"]})
    return Case(
        task,
        long(at, table["Demand"], "VIC"),
        inputs,
        None,
        dt.date(2013, 1, 1),
        dt.date(2013, 12, 31),
        "MAPE <= 0.45 x last week",
        "mape",
        0.45,
        "seasonal_naive",
    )


def swiss_homes(data: Path) -> tuple[pd.DatetimeIndex, pd.DataFrame]:
    """Homes that were read in all five weeks, a column each, in kWh a quarter-hour.

    Weeks 44 to 48; the files don't give the year, and the weather that is published with them is that of 2018.
    """
    weeks = [pd.read_csv(data / f"meters/swiss_15min/elcons_15min_w{week}.csv.gz").set_index("VID") for week in range(44, 49)]
    homes = sorted(set.intersection(*(set(w.index) for w in weeks)))
    table = pd.DataFrame(np.concatenate([w.loc[homes].to_numpy(dtype=float).T for w in weeks]), columns=[str(h) for h in homes])
    return pd.date_range("2018-10-29", periods=len(table), freq="15min", tz="Europe/Zurich").tz_convert("UTC"), table


def swiss_task(series: tuple[str, ...]) -> ForecastTask:
    return ForecastTask("demand", series, "Europe/Zurich", "CH", "", 47.4, 8.0, interval_minutes=15, unit="kWh")


def swiss_aggregate(data: Path) -> Case:
    at, homes = swiss_homes(data)
    span = dt.date(2018, 11, 23), dt.date(2018, 12, 2)
    return Case(
        swiss_task(("all_homes",)),
        long(at, homes.sum(axis=1), "all_homes"),
        None,
        None,
        *span,
        "WAPE <= 0.6 x last week",
        "wape",
        0.6,
        "seasonal_naive",
    )


def swiss_singles(data: Path, count: int = 40) -> Case:
    """Single homes, every so many of them; the bar is the pinball loss of last week's value as it stands, half its absolute error."""
    at, homes = swiss_homes(data)
    chosen = tuple(homes.columns[:: max(len(homes.columns) // count, 1)][:count])
    actuals = pd.concat([long(at, homes[home], home) for home in chosen], ignore_index=True)
    span = dt.date(2018, 11, 23), dt.date(2018, 12, 2)
    return Case(swiss_task(chosen), actuals, None, None, *span, "pinball <= 0.6 x last week", "pinball", 0.6, "last_week")


# --- prices ----------------------------------------------------------------------------------------------------------

EPF = {
    "NP": ("NO", 60.0, 11.0, 1.74),
    "PJM": ("US", 40.0, -77.0, 3.01),
    "BE": ("BE", 50.8, 4.4, 6.14),
    "FR": ("FR", 47.0, 2.5, 3.98),
    "DE": ("DE", 51.0, 10.0, 3.61),
}


def epf_market(data: Path, market: str) -> Case:
    country, latitude, longitude, bar = EPF[market]
    table = pd.read_csv(data / f"epf/{market}.csv.gz")
    # a day has 24 hours of the local clock throughout: a zone without daylight saving
    zone = "Etc/GMT+5" if market == "PJM" else "Etc/GMT-1"
    at = pd.to_datetime(table.iloc[:, 0]).dt.tz_localize(zone).dt.tz_convert("UTC").astype("datetime64[us, UTC]")
    inputs = pd.DataFrame(
        {"interval_start": at, "forecast_1": table.iloc[:, 1].astype(float), "forecast_2": table.iloc[:, 2].astype(float)}
    )
    task = ForecastTask(
        "price", (market,), zone, country, "", latitude, longitude,
        issue_time_local="10:00", actuals_availability="day_ahead", unit="EUR/MWh",
        inputs=(ExogenousInput("forecast_1", "MW", "market", "day_ahead"), ExogenousInput("forecast_2", "MW", "market", "day_ahead")),
    )  # fmt: skip
    last = at.max().tz_convert(zone).date()
    return Case(
        task,
        long(at, table.iloc[:, 3], market),
        inputs,
        None,
        last - dt.timedelta(days=727),
        last,
        f"MAE (published LEAR {bar} on the following two years)",
        "mae",
        bar,
        "",
    )


CASES = {
    "spain_load": lambda data: spain_load(data, with_operator=False),
    "spain_load_operator": lambda data: spain_load(data, with_operator=True),
    "entsoe_de_load": entsoe_load,
    "entsoe_de_wind_onshore": lambda data: entsoe_generation(data, "on_wind", "wind"),
    "entsoe_de_wind_offshore": lambda data: entsoe_generation(data, "off_wind", "wind"),
    "entsoe_de_solar": lambda data: entsoe_generation(data, "solar", "solar"),
    "opsd_fr": opsd_france,
    "vic_elec": vic_elec,
    "swiss_aggregate": swiss_aggregate,
    "swiss_singles": swiss_singles,
} | {f"epf_{m.lower()}": (lambda data, m=m: epf_market(data, m)) for m in EPF}


def run(
    name: str,
    data: Path,
    models: tuple[str, ...],
    refit_days: int,
    days: int | None,
    history_days: int | None,
    workers: int = 1,
    resume: Path | None = None,
) -> tuple[Case, BacktestResult]:
    case = CASES[name](data)
    first = case.first_day if days is None else max(case.first_day, case.last_day - dt.timedelta(days=days - 1))
    actuals = case.actuals
    if history_days is not None:
        actuals = actuals[actuals["interval_start"] >= case.task.day_bounds(first)[0] - pd.Timedelta(days=history_days)]
    result = backtest(
        case.task,
        actuals,
        case.inputs,
        first_day=first,
        last_day=case.last_day,
        models=models,
        refit_days=refit_days,
        operator=case.operator,
        workers=workers,
        resume=resume / name if resume else None,
    )
    return case, result


def shares_of(case: Case, measures: dict[str, dict[str, float]]) -> dict[str, float]:
    """The figure that the bar is about, by model: the measure itself, or its share of what it is compared with."""
    last_week = {"pinball": measures["seasonal_naive"]["mae"] / 2}
    reference = (last_week if case.against == "last_week" else measures.get(case.against, {})).get(case.measure, 1.0)
    return {model: found[case.measure] / reference for model, found in measures.items()}


def shares_by_year(case: Case, result: BacktestResult) -> dict[int, dict[str, float]]:
    """`shares_of` each local calendar year, but for one of a few days; nothing where the span lies in one."""
    local = result.forecasts["valid_at"].dt.tz_convert(case.task.time_zone)
    days = local.dt.date.groupby(local.dt.year).nunique()
    years = [int(year) for year in days.index[days >= LEAST_DAYS_OF_A_YEAR]]
    if len(years) < 2:
        return {}
    return {
        year: shares_of(case, {str(m): measure(part, case.task) for m, part in rows.groupby("model", sort=False)})
        for year, rows in result.forecasts.groupby(local.dt.year)
        if year in years
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data", type=Path, default=Path(os.environ.get("GRIDLAKE_DATA", Path(__file__).resolve().parents[2] / "shared/data"))
    )
    parser.add_argument("--only", default=",".join(CASES))
    parser.add_argument("--models", default="lightgbm,lear")
    parser.add_argument("--refit", type=int, default=7)
    parser.add_argument("--days", type=int, help="only the last so many days of each span")
    parser.add_argument("--history-days", type=int, help="learn from at most so many days before the span")
    parser.add_argument("--workers", type=int, default=1, help="processes: models run side by side")
    parser.add_argument("--resume", type=Path, help="folder for finished blocks; a second run goes on from there")
    parser.add_argument("--json", action="store_true", help="one JSON object per line, as `gridlake backtest --json` prints")
    options = parser.parse_args()
    if not options.data.exists():
        raise SystemExit(f"The data folder {options.data} is not there: give --data PATH or set GRIDLAKE_DATA.")
    for name in options.only.split(","):
        began = time.perf_counter()
        models = tuple(options.models.split(","))
        case, result = run(name, options.data, models, options.refit, options.days, options.history_days, options.workers, options.resume)
        if options.json:
            for row in result.summary_rows(name):
                print(json.dumps(row), flush=True)
            continue
        print(f"\n{name}  {result.first_day} to {result.last_day}  bar: {case.bar}  {result.label}  ({time.perf_counter() - began:.0f} s)")
        shares = shares_of(case, result.measures)
        by_year = shares_by_year(case, result)
        for model, found in sorted(result.measures.items(), key=lambda item: item[1]["mae"]):
            share = shares[model]
            verdict = "" if model == case.against else ("met" if share <= case.limit else "missed")
            print(
                f"  {model:15s} MAE {found['mae']:10.4g}  MAPE {found['mape']:7.3f} %  "
                f"WAPE {found['wape']:6.3f} %  rMAE {found['rmae']:.3f}  "
                f"80 % covers {found['coverage_80']:5.1f} %  {case.measure}{' ratio' if case.against else ''} {share:.3f} {verdict}"
                + "".join(f"  {year}: {of_year[model]:.3f}" for year, of_year in by_year.items()),
                flush=True,
            )


if __name__ == "__main__":
    main()
