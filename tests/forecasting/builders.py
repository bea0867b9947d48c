"""Small synthetic worlds for the forecasting tests: a daily and weekly rhythm, holidays, a temperature, a little noise."""

from __future__ import annotations

import holidays
import numpy as np
import pandas as pd

from lakehouse.forecasting.task import ExogenousInput, ForecastTask

ZONE = "Europe/Madrid"


def demand_task(**changes):
    fields = {
        "target": "demand",
        "series_ids": ("north",),
        "time_zone": ZONE,
        "country": "ES",
        "latitude_deg": 40.4,
        "longitude_deg": -3.7,
        "inputs": (ExogenousInput("temperature", "degC", "weather", "perfect"),),
    }
    return ForecastTask(**(fields | changes))


def world(task: ForecastTask, first="2026-01-01", last="2026-05-31", seed=0):
    """Actuals (long) and inputs (wide) for the local days `first` to `last`."""
    rng = np.random.default_rng(seed)
    start, end = task.day_bounds(pd.Timestamp(first))[0], task.day_bounds(pd.Timestamp(last))[1]
    at = pd.date_range(start, end, freq=task.interval, inclusive="left").as_unit("us")
    local = at.tz_convert(task.time_zone)
    hour, weekend = local.hour.to_numpy() + local.minute.to_numpy() / 60, local.day_of_week.to_numpy() >= 5
    weekend |= np.isin(local.date, list(holidays.country_holidays(task.country, years=[2025, 2026, 2027])))
    temperature = (
        15
        - 8 * np.cos(2 * np.pi * local.day_of_year.to_numpy() / 365)
        + 4 * np.sin(2 * np.pi * (hour - 9) / 24)
        + rng.normal(0, 1, len(at))
    )
    parts = []
    for n, series_id in enumerate(task.series_ids):
        value = (
            100.0
            * (n + 1)
            * (
                1
                + 0.3 * np.sin(2 * np.pi * (hour - 8) / 24)
                - 0.15 * weekend
                + 0.01 * np.maximum(15 - temperature, 0)
                + rng.normal(0, 0.02, len(at))
            )
        )
        parts.append(pd.DataFrame({"series_id": series_id, "interval_start": at, "value": value}))
    inputs = pd.DataFrame({"interval_start": at})
    for item in task.inputs:
        if item.forecasts_target:
            inputs[item.name] = parts[0]["value"].to_numpy() * (1 + rng.normal(0, 0.03, len(at)))
        elif item.quantity == "temperature":
            inputs[item.name] = temperature
        else:
            inputs[item.name] = rng.uniform(1, 10, len(at))
    return pd.concat(parts, ignore_index=True), inputs
