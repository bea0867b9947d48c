"""cleaned → features → models → forecasts → accuracy, for each target of the site."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from lakehouse.contracts.base import Table
from lakehouse.flow.workspace import Workspace
from lakehouse.site import Input, Series, Site
from lakehouse.storage.engine import register
from lakehouse.storage.lake import Commit

if TYPE_CHECKING:
    from lakehouse.forecasting.task import ForecastTask

FIRST_ISSUE_AFTER_DAYS = 8
"""Issues begin when same-hour-last-week is there."""
UNITS = {"_c": "degC", "_m_per_s": "m/s", "_w_per_m2": "W/m2", "_mw": "MW", "_pct": "%", "_hpa": "hPa", "_mm": "mm", "_deg": "deg"}


def task_of(site: Site, target: str) -> ForecastTask:
    """What the site file says about a target, in the words of the forecasting trade."""
    from lakehouse.forecasting.task import ExogenousInput, ForecastTask

    series = _series_of(site, target)
    inputs = tuple(
        ExogenousInput(
            name=one.name,
            unit=_unit_of(site, one),
            kind="other" if one.kind == "neighbour" else one.kind,
            availability=one.availability,
            delay_hours=one.delay_hours,
            forecasts_target=one.kind == "operator_forecast" and one.series in series.series,
        )
        for one in series.inputs
    )
    return ForecastTask(
        target=target,  # type: ignore[arg-type]
        series_ids=series.series,
        time_zone=site.time_zone,
        country=site.country,
        subdivision=site.subdivision or "",
        latitude_deg=site.location.latitude_deg,
        longitude_deg=site.location.longitude_deg,
        interval_minutes=series.interval_minutes,
        issue_time_local=series.issue_time,
        horizon_days=series.horizon_days,
        quantiles=series.quantiles,
        actuals_delay_hours=series.actuals_delay_hours,
        actuals_availability=series.actuals_availability,
        inputs=inputs,
        unit=f"{site.currency}/MWh" if target == "price" else "MW",
    )


def _series_of(site: Site, target: str) -> Series:
    from lakehouse.errors import ForecastError

    if target not in site.series:
        raise ForecastError(f"The site '{site.name}' forecasts no {target}.", f"Its targets: {', '.join(site.series) or 'none'}; see series in gridlake.yaml.")
    return site.series[target]  # type: ignore[index]


def _unit_of(site: Site, one: Input) -> str:
    name = one.quantity or one.column or ""
    if name.startswith("price_"):
        return f"{site.currency}/MWh"
    return next((unit for ending, unit in UNITS.items() if name.endswith(ending)), "")


# -- what is read


def actuals(workspace: Workspace, target: str, days: tuple[date, date] | None = None) -> pa.Table:
    """Actuals of a target: series_id, interval_start, value, on the target's interval grid; finer values are averaged."""
    series = _series_of(workspace.site, target)
    contract = workspace.contract(series.table)
    value = value_column(contract)
    minutes = series.interval_minutes
    with workspace.engine() as engine:
        table = register(engine, workspace.table(series.table), only={"date": days} if days else None)
        return engine.sql(
            f"""
            SELECT series_id, time_bucket(INTERVAL {minutes} MINUTE, interval_start) AS interval_start, avg("{value}") AS value
            FROM {table} WHERE list_contains($series, series_id) AND interval_minutes <= {minutes}
            GROUP BY ALL HAVING sum(interval_minutes) = {minutes} ORDER BY ALL
            """,
            params={"series": list(series.series)},
        ).to_arrow_table()


def inputs(workspace: Workspace, target: str, days: tuple[date, date] | None = None) -> pa.Table | None:
    """Inputs of a target, long: name, interval_start, value, on the target's interval grid; None where it has none."""
    series = _series_of(workspace.site, target)
    if not series.inputs:
        return None
    return pa.concat_tables([_input(workspace, one, series.interval_minutes, days) for one in series.inputs])


def _input(workspace: Workspace, one: Input, minutes: int, days: tuple[date, date] | None) -> pa.Table:
    contract = workspace.contract(one.table)
    column = "value" if "value" in contract.columns else one.column or one.quantity or value_column(contract)
    condition = "AND quantity = $quantity" if "quantity" in contract.columns else ""
    with workspace.engine() as engine:
        table = register(engine, workspace.table(one.table), only={"date": days} if days else None)
        # A coarser input is repeated on the finer grid, a finer one is averaged.
        return engine.sql(
            f"""
            SELECT $name AS name, time_bucket(INTERVAL {minutes} MINUTE, instant) AS interval_start, avg(value) AS value FROM (
                SELECT unnest(generate_series(interval_start, interval_start + to_minutes(interval_minutes - 1), to_minutes(least(interval_minutes, {minutes}))))
                       AS instant, "{column}" AS value
                FROM {table} WHERE series_id = $series {condition})
            GROUP BY ALL ORDER BY ALL
            """,
            params={"name": one.name, "series": one.series} | ({"quantity": one.quantity or one.column} if condition else {}),
        ).to_arrow_table()


def value_column(contract: type[Table]) -> str:
    """The column of a series table that holds its value: the first with a unit of power or price."""
    return next(c.name for c in contract.columns.values() if c.unit == "MW" or (c.unit or "").endswith("/MWh"))


# -- features


def issue_days(site: Site, target: str) -> tuple[date, date]:
    """First and last local day on which the target is (or was) issued.

    The last is today once the issue time has passed. Where actual weather stands in for a forecast, it is the last day whose
    target days have weather.
    """
    series = _series_of(site, target)
    last = site.today()
    if site.clock is None and datetime.now(site.zone).time() < time.fromisoformat(series.issue_time):
        last -= timedelta(days=1)
    if any(one.availability == "perfect" for one in series.inputs):
        last -= timedelta(days=1 + series.horizon_days - 1)
    return site.first_day + timedelta(days=FIRST_ISSUE_AFTER_DAYS), last


def read_span(site: Site, target: str, first: date, last: date) -> tuple[date, date]:
    """UTC days of the cleaned tables that the features of some issue days rest on."""
    from lakehouse.forecasting.features import history_days

    task = task_of(site, target)
    return first - timedelta(days=history_days(task) + 1), last + timedelta(days=task.horizon_days + 1)


def make_features(workspace: Workspace, target: str, first: date, last: date) -> Commit:
    """Features of the issues of a span of local days.

    Raises:
        ForecastError: there are no actuals to make them from.
    """
    from lakehouse.forecasting.features import build_features

    first_issue, last_issue = issue_days(workspace.site, target)
    first, last = max(first, first_issue), min(last, last_issue)
    table = f"features/{target}"
    if first > last:
        return workspace.replace(table, workspace.contract(table).empty())
    task = task_of(workspace.site, target)
    days = read_span(workspace.site, target, first, last)
    features = build_features(task, actuals(workspace, target, days), inputs(workspace, target, days), task.issue_instants(first, last))
    return workspace.replace(table, features, where={"date": (first, last)}, inputs=inputs_of(workspace.site, target))


def inputs_of(site: Site, target: str) -> list[str]:
    """The cleaned tables that a target's features read."""
    series = _series_of(site, target)
    return list(dict.fromkeys([series.table, *(one.table for one in series.inputs)]))


# -- models


@dataclass(frozen=True)
class Trained:
    """What a training did."""

    commit: Commit
    versions: list[dict[str, Any]]


def features_between(workspace: Workspace, target: str, first: date | None = None, last: date | None = None) -> pa.Table:
    """Rows of a target's feature table, by local issue day."""
    only = {"date": (first or date.min, last or date.max)}
    with workspace.engine() as engine:
        table = register(engine, workspace.table(f"features/{target}"), only=only)
        return engine.sql(f"SELECT * FROM {table} ORDER BY series_id, issued_at, valid_at").to_arrow_table()


def models_of(site: Site, target: str) -> Sequence[str]:
    """Kinds of model that the site trains for a target."""
    return _series_of(site, target).models


def training_is_due(workspace, target): return False
def unissued_days(workspace, target): return []
def accuracy_is_due(workspace): return False
