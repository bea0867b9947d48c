"""cleaned → features → models → forecasts → accuracy, for each target of the site."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from datetime import date, datetime, time, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from lakehouse.contracts.base import Table
from lakehouse.errors import ForecastError
from lakehouse.flow.workspace import Workspace
from lakehouse.site import Input, Series, Site
from lakehouse.storage.engine import register
from lakehouse.storage.lake import Commit, days_between

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from lakehouse.forecasting.registry import Registry
    from lakehouse.forecasting.task import ForecastTask
    from lakehouse.forecasting.training import ModelVersion

FIRST_ISSUE_AFTER_DAYS = 8
"""Issues begin when same-hour-last-week is there."""
ROWS_A_COMMIT = 2_000_000
"""Rows of features that one commit holds at most: a Delta writer keeps all of its partitions in memory until it commits."""
EVALUATED_WEEKS = 4
HINDCAST_DAYS = 7 * EVALUATED_WEEKS
REFIT_WEEKS = 2
RETRAIN_AFTER_DAYS = 7
LEAST_LEARNING_DAYS = 21
SCORES = ("quality/forecast_accuracy", "quality/forecast_breakdown")
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
    if target not in site.series:
        raise ForecastError(
            f"The site '{site.name}' forecasts no {target}.",
            f"Its targets: {', '.join(site.series) or 'none'}; see series in gridlake.yaml.",
        )
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


def operator_forecast(workspace: Workspace, target: str) -> pa.Table | None:
    """The operator's own forecast, for comparison: interval_start, value; None where the site names none."""
    series = _series_of(workspace.site, target)
    return (
        _input(workspace, series.operator, series.interval_minutes, None).select(["interval_start", "value"]) if series.operator else None
    )


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
                SELECT unnest(generate_series(interval_start, interval_start + to_minutes(interval_minutes - 1),
                                              to_minutes(least(interval_minutes, {minutes})))) AS instant, "{column}" AS value
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

    A long span of many series is committed piece by piece, each atomic, so that memory stays bounded.

    Raises:
        ForecastError: there are no actuals to make them from.
    """
    from lakehouse.forecasting.features import feature_batches

    first_issue, last_issue = issue_days(workspace.site, target)
    first, last = max(first, first_issue), min(last, last_issue)
    table = f"features/{target}"
    if first > last:
        return workspace.replace(table, workspace.contract(table).empty())
    task = task_of(workspace.site, target)
    sources = inputs_of(workspace.site, target)
    together = max(ROWS_A_COMMIT // (len(task.series_ids) * task.slots_per_day * task.horizon_days), 1)
    commits = []
    while first <= last:
        end = min(first + timedelta(days=together - 1), last)
        days = read_span(workspace.site, target, first, end)
        known, given = actuals(workspace, target, days), inputs(workspace, target, days)
        made = partial(feature_batches, task, known, given, task.issue_instants(first, end))
        commits.append(workspace.replace(table, made, where={"date": (first, end)}, inputs=sources))
        first = end + timedelta(days=1)
    whole = {"rows": sum(c.rows for c in commits), "bytes": sum(c.bytes for c in commits), "first": commits[0].first}
    return replace(commits[-1], **whole)


def inputs_of(site: Site, target: str) -> list[str]:
    """The cleaned tables that a target's features read."""
    series = _series_of(site, target)
    return list(dict.fromkeys([series.table, *(one.table for one in series.inputs)]))


# -- models


def models_of(site: Site, target: str) -> list[str]:
    """Kinds of model that the site trains for a target."""
    return list(_series_of(site, target).models)


def registry_of(workspace: Workspace) -> Registry:
    """The site's model versions."""
    from lakehouse.forecasting.registry import Registry

    return Registry(workspace.site.path("models"))


@dataclass(frozen=True)
class Trained:
    """What a training did: versions with their figures on the evaluated issues, and why the champion is champion."""

    commit: Commit
    evaluated: dict[str, dict[str, float]]
    champion: str
    reason: str
    tracked: str


def features_between(
    workspace: Workspace, target: str, first: date | None = None, last: date | None = None, *, version: int | None = None
) -> pa.Table:
    """Rows of a target's feature table, by local issue day, at its newest or an older version."""
    only = {"date": (first or date.min, last or date.max)}
    with workspace.engine() as engine:
        table = register(engine, workspace.table(f"features/{target}"), version=version, only=only)
        return engine.sql(f"SELECT * FROM {table} ORDER BY series_id, issued_at, valid_at").to_arrow_table()


def train_models(workspace: Workspace, target: str) -> Trained:
    """Evaluates the target's models on a rolling origin over the last weeks, trains a version of each, and chooses the champion.

    On the first training, versions are also made as of earlier days of those weeks, so that the issues since then can be hindcast by
    a version that knew no more than was known.

    Where the history is too short to learn from, there is no version, and the naive chain forecasts.
    """
    from lakehouse.flow.models import mirror
    from lakehouse.forecasting.training import train_kinds

    task, registry = task_of(workspace.site, target), registry_of(workspace)
    features = features_between(workspace, target)
    kinds = models_of(workspace.site, target)
    days = features.column("date").unique().to_pylist()
    if not days:
        raise ForecastError(f"There are no features of {target} to learn from.", "Make them with: gridlake refresh --until features")
    last = max(days)
    weeks = min(EVALUATED_WEEKS, max((len(days) - LEAST_LEARNING_DAYS) // 7, 0))
    versions = {t: workspace.table(t).version() for t in [f"features/{target}", *inputs_of(workspace.site, target)]}
    refused: list[str] = []
    newest: dict[str, ModelVersion] = {}
    evaluated: dict[str, dict[str, float]] = {}
    losses: dict[str, np.ndarray] = {}
    is_first = not any(v.is_made_for(task) for v in registry.versions(target))
    try:
        made = train_kinds(
            task,
            features,
            kinds,
            trained_until=task.issue_instants(last, last)[0],
            folder_for=lambda name: registry.folder_for(target, name),
            evaluated_days=7 * weeks,
            refit_days=7 * REFIT_WEEKS,
            hindcast_kind=kinds[0] if is_first else None,
            data_versions=versions,
        )
    except ForecastError as error:
        refused = [f"{', '.join(kinds)}: {error.problem}"]
    else:
        for early in made.hindcasts:
            registry.challenge(target, registry.add(early).version, at=early.trained_until)
        newest = {kind: registry.add(version) for kind, version in made.newest.items()}
        refused = [f"{kind}: {error.problem}" for kind, error in made.refused.items()]
        evaluated = made.measures
        losses = {str(kind): _daily_loss(task, rows) for kind, rows in made.forecasts.groupby("model")} if evaluated else {}
    registry.record_training(target, _asked_for(workspace.site, target))
    reasons = []
    for kind, version in newest.items():
        champion = registry.champion(target)
        of_champion = losses.get(champion.model) if champion else None
        decision = registry.challenge(
            target, version.version, at=version.trained_until, challenger_loss=losses.get(kind), champion_loss=of_champion
        )
        reasons.append(f"{kind}: {decision.reason}")
    champion = registry.champion(target)
    commit = workspace.replace(f"models/{target}", version_rows(workspace, target, evaluated, 7 * weeks))
    tracked = mirror(workspace, target, evaluated) if registry.versions(target) else ""
    return Trained(commit, evaluated, champion.version if champion else "", "; ".join([*reasons, *refused]), tracked)


def _daily_loss(task: ForecastTask, rows: pd.DataFrame) -> np.ndarray:
    from lakehouse.forecasting.metrics import pinball

    known = rows.dropna(subset=["actual"])
    loss = pinball(known["actual"].to_numpy(), known[list(task.quantile_columns)].to_numpy(), task.quantiles)
    return known.assign(loss=loss).groupby("issued_at")["loss"].mean().sort_index().to_numpy()


def version_rows(workspace: Workspace, target: str, evaluated: dict[str, dict[str, float]], issues: int) -> pa.Table:
    """The table of a target's versions, with what was measured now and, for the others, before."""
    registry = registry_of(workspace)
    champion = registry.champion(target)
    earlier = {r["model_version"]: r for r in workspace.table(f"models/{target}").read().to_pylist()}
    newest = {v.model: v.version for v in registry.versions(target)}
    naive = evaluated.get("seasonal_naive", {}).get("mae")
    rows = []
    for version in registry.versions(target):
        found = evaluated.get(version.model, {}) if newest[version.model] == version.version else {}
        kept = earlier.get(version.version, {})
        rows.append(
            {
                "model": version.model,
                "model_version": version.version,
                "trained_until": version.trained_until.to_pydatetime(),
                "trained_from": datetime.fromisoformat(version.training_span[0]),
                "training_rows": version.rows,
                "is_champion": champion is not None and champion.version == version.version,
                "evaluated_issues": issues if found else kept.get("evaluated_issues", 0),
                "mae": found.get("mae", kept.get("mae")),
                "pinball": found.get("pinball", kept.get("pinball")),
                "coverage_80_pct": found.get("coverage_80", kept.get("coverage_80_pct")),
                "rmae_naive": found["mae"] / naive if found and naive else kept.get("rmae_naive"),
                "folder": str(version.folder.relative_to(registry.root)),
                "data_versions": json.dumps(version.data_versions, sort_keys=True),
            }
        )
    return workspace.contract(f"models/{target}").from_rows(rows)


def _asked_for(site: Site, target: str) -> dict[str, Any]:
    """What a training answers to: the code that makes models, the description of the target, and the kinds."""
    from lakehouse.forecasting.models.base import task_signature
    from lakehouse.forecasting.training import MODELS_VERSION

    return {"models_version": MODELS_VERSION, "kinds": models_of(site, target), "task": task_signature(task_of(site, target))}


def training_is_due(workspace: Workspace, target: str) -> bool:
    """Whether models must be trained: there are none, their code or the target's description changed, a week of issues passed, or
    forecasts or their inputs drifted since.

    Where the history was too short to train, it is due when there are features that were not tried.
    """
    table = workspace.table(f"models/{target}")
    if not table.exists() or registry_of(workspace).last_training(target) != _asked_for(workspace.site, target):
        return True
    versions = table.read().column("trained_until").to_pylist()
    if not versions:
        tried = table.last_written()
        return tried is None or any(f.written_at > tried for f in workspace.table(f"features/{target}").files())
    _, last = issue_days(workspace.site, target)
    newest = max(versions).astimezone(workspace.site.zone).date()
    if newest <= last - timedelta(days=RETRAIN_AFTER_DAYS):
        return True
    from lakehouse.flow.drift import error_drift, input_drift

    return newest < last and (error_drift(workspace, target).is_drifting or input_drift(workspace, target).is_drifting)


# -- forecasts


@dataclass(frozen=True)
class Issued:
    """What was issued."""

    commit: Commit | None
    issues: int
    fallbacks: int
    reasons: list[str]
    newest: pa.Table


def issue_forecasts(workspace: Workspace, target: str, first: date, last: date) -> Issued:
    """Issues the forecasts of a span of local days, each by the newest promoted version that knew no more than its issue.

    An issue that was made before stays as it is; only today's, whose target day has yet to begin, is made again.
    """
    from lakehouse.forecasting.predict import forecast

    table, task, registry = f"forecasts/{target}", task_of(workspace.site, target), registry_of(workspace)
    contract = workspace.contract(table)
    issued = set(workspace.table(table).partitions_written())
    wanted = [d for d in days_between(first, last) if d not in issued or may_be_reissued(workspace.site, d)]
    features_version = workspace.table(f"features/{target}").version()
    features = features_between(workspace, target, first, last, version=features_version if features_version >= 0 else None)
    # Issues of one version are forecast together: loading a model costs more than using it.
    by_version: dict[str, tuple[ModelVersion | None, list[date]]] = {}
    for day in wanted:
        version = registry.model_for(target, task.issue_instants(day, day)[0], task)
        by_version.setdefault(version.version if version else "", (version, []))[1].append(day)
    parts: list[pa.Table] = []
    for version, days in by_version.values():
        rows = features.filter(pc.is_in(features.column("date"), pa.array(days, pa.date32())))
        if rows.num_rows:
            made_of = pa.array([features_version] * rows.num_rows, pa.int64())
            issue = forecast(task, rows, version).append_column("features_version", made_of)
            parts.append(_dressed(workspace.site, contract, issue, rows.column("date"), task.label))
    if not parts:
        return Issued(None, 0, 0, [], contract.empty())
    made = pa.concat_tables(parts)
    days = made.column("date").unique().to_pylist()
    commit = workspace.replace(table, made, where={"date": days}, inputs=[f"features/{target}", f"models/{target}"])
    fallen = made.filter(made.column("is_fallback"))
    newest = made.filter(pc.equal(made.column("date"), pa.scalar(max(days))))
    return Issued(commit, len(days), fallen.num_rows, fallen.column("fallback_reason").unique().to_pylist(), newest)


def _dressed(site: Site, contract: type[Table], rows: pa.Table, days: pa.ChunkedArray, label: str) -> pa.Table:
    now = site.clock or datetime.now(site.zone).date()
    hindcast = pa.array([site.clock is not None or day < now for day in days.to_pylist()])
    rows = rows.append_column("is_hindcast", hindcast).append_column("label", pa.array([label or None] * rows.num_rows, pa.string()))
    return contract.conform(rows.append_column("date", days))


def may_be_reissued(site: Site, day: date) -> bool:
    """Whether an issue may still be made again: today's, since the first day that it is for has not begun."""
    return day == site.today()


def unissued_days(workspace: Workspace, target: str) -> list[date]:
    """Recent issue days that have features and no forecast, and today's if its features changed since."""
    _, last = issue_days(workspace.site, target)
    made = workspace.table(f"forecasts/{target}").partitions_written()
    featured = workspace.table(f"features/{target}").partitions_written()
    recent = [d for d in featured if last - timedelta(days=HINDCAST_DAYS) < d <= last]
    return sorted(d for d in recent if d not in made or (may_be_reissued(workspace.site, d) and made[d] < featured[d]))


# -- accuracy


def score_forecasts(workspace: Workspace) -> dict[str, Commit]:
    """Scores every issued forecast whose actuals are there, beside the seasonal naive and, where the site names one, the operator.

    By issue in `quality/forecast_accuracy`; by lead day, hour, weekday and month in `quality/forecast_breakdown`. The seasonal
    naive is the same hour of the local clock a week before, also across a change of clocks.
    """
    issued = [t for t in workspace.site.series if workspace.table(f"forecasts/{t}").exists()]
    scored = [_scores(workspace, target) for target in issued]
    commits = {}
    for n, name in enumerate(SCORES):
        rows = pa.concat_tables([one[n] for one in scored]) if scored else workspace.contract(name).empty()
        commits[name] = workspace.replace(name, rows, inputs=[f"forecasts/{t}" for t in workspace.site.series])
    return commits


def _scores(workspace: Workspace, target: str) -> tuple[pa.Table, pa.Table]:
    """Scores of a target by issue, and broken down."""
    task = task_of(workspace.site, target)
    quantiles = list(zip(task.quantiles, task.quantile_columns, strict=True))
    loss = {name: f'greatest({q} * (actual - "{name}"), ({q} - 1) * (actual - "{name}"))' for q, name in quantiles}
    edges = [0.0, *task.quantiles, 1.0]
    # the trapezoidal rule of metrics.crps, as the weight of each quantile's loss
    crps = " + ".join(f"{edges[n + 2] - edges[n]} * {one}" for n, one in enumerate(loss.values()))
    measures = f"""
        avg(abs(actual - p50)) AS mae, sqrt(avg((actual - p50) ** 2)) AS rmse,
        100 * avg(abs((actual - p50) / actual)) FILTER (actual <> 0) AS mape_pct,
        100 * sum(abs(actual - p50)) / nullif(sum(abs(actual)), 0) AS wape_pct,
        avg(({" + ".join(loss.values())}) / {len(quantiles)}) AS pinball,
        100 * avg((actual BETWEEN p10 AND p90)::INT) FILTER (p90 > p10) AS coverage_80_pct"""
    actual = actuals(workspace, target)
    operator = operator_forecast(workspace, target)
    with workspace.engine(f"forecasts/{target}") as engine:
        engine.register("actuals", actual)
        nobody = pa.table({"interval_start": actual.column("interval_start"), "value": actual.column("value")}).slice(0, 0)
        engine.register("operator", operator if operator is not None else nobody)
        nothing = ", ".join(f'NULL::DOUBLE AS "{name}"' for _, name in quantiles if name != "p50")
        engine.sql(
            f"""
            CREATE TEMP TABLE compared AS
            WITH week AS (
                SELECT a.series_id, a.interval_start, a.value, b.value AS before FROM actuals a
                LEFT JOIN actuals b ON b.series_id = a.series_id
                    AND b.interval_start = timezone($zone, timezone($zone, a.interval_start) - INTERVAL 7 DAY)),
            scale AS (
                SELECT series_id, avg(abs(value - before)) AS naive_scale FROM week
                WHERE interval_start < (SELECT min(valid_at) FROM forecasts."{target}") GROUP BY ALL),
            issued AS (
                SELECT f.*, w.value AS actual, w.before, s.naive_scale FROM forecasts."{target}" f
                JOIN week w ON w.series_id = f.series_id AND w.interval_start = f.valid_at
                LEFT JOIN scale s ON s.series_id = f.series_id)
            SELECT series_id, issued_at, valid_at, model AS scored, is_fallback, actual, before, naive_scale,
                   {", ".join(f'"{name}"' for _, name in quantiles)} FROM issued
            UNION ALL BY NAME
            SELECT series_id, issued_at, valid_at, 'seasonal_naive' AS scored, false AS is_fallback, actual, before, naive_scale,
                   before AS p50, {nothing} FROM issued WHERE before IS NOT NULL
            UNION ALL BY NAME
            SELECT i.series_id, i.issued_at, i.valid_at, 'operator' AS scored, false AS is_fallback, i.actual, i.before, i.naive_scale,
                   o.value AS p50, {nothing} FROM issued i JOIN operator o ON o.interval_start = i.valid_at""",
            params={"zone": workspace.site.time_zone},
        )
        by_issue = engine.sql(
            f"""
            SELECT $target AS target, series_id, scored AS model, issued_at, count(*) AS intervals, {measures},
                   bool_or(is_fallback) AS is_fallback
            FROM compared GROUP BY ALL ORDER BY ALL""",
            params={"target": target},
        ).to_arrow_table()
        broken_down = engine.sql(
            f"""
            WITH dated AS (
                SELECT *, timezone($zone, valid_at) AS clock, date_diff('day', timezone($zone, issued_at)::DATE, clock::DATE) AS lead_day
                FROM compared),
            peaks AS (
                SELECT series_id, scored, issued_at, clock::DATE AS day,
                       abs(epoch(arg_max(valid_at, p50)) - epoch(arg_max(valid_at, actual))) / 3600 AS peak_error_h
                FROM dated GROUP BY ALL HAVING count(*) >= 0.9 * {task.slots_per_day}),
            first AS (
                SELECT *, valid_at = min(valid_at) OVER (PARTITION BY series_id, scored, issued_at, clock::DATE) AS is_first FROM dated),
            parts AS (
                SELECT f.*, CASE WHEN is_first THEN peak_error_h END AS peak_error_h, unnest([
                    {{'dimension': 'all', 'bucket': 'all'}}, {{'dimension': 'lead_day', 'bucket': lead_day::VARCHAR}},
                    {{'dimension': 'hour', 'bucket': strftime(clock, '%H')}}, {{'dimension': 'weekday', 'bucket': strftime(clock, '%u')}},
                    {{'dimension': 'month', 'bucket': strftime(clock, '%Y-%m')}}], recursive := true)
                FROM first f LEFT JOIN peaks p
                    ON p.series_id = f.series_id AND p.scored = f.scored AND p.issued_at = f.issued_at AND p.day = f.clock::DATE)
            SELECT $target AS target, series_id, scored AS model, dimension, bucket, count(*) AS intervals, {measures},
                   avg(p50 - actual) AS bias, avg(abs(actual - p50)) / nullif(any_value(naive_scale), 0) AS mase,
                   sum(abs(actual - p50)) FILTER (before IS NOT NULL) / nullif(sum(abs(actual - before)), 0) AS rmae,
                   avg({crps}) AS crps, avg(peak_error_h) FILTER (dimension <> 'hour') AS peak_error_h
            FROM parts GROUP BY ALL ORDER BY ALL""",
            params={"target": target, "zone": workspace.site.time_zone},
        ).to_arrow_table()
    return by_issue, broken_down


def accuracy_is_due(workspace: Workspace) -> bool:
    """Whether forecasts were issued, or actuals came, since accuracy was last computed."""
    scored = workspace.table("quality/forecast_accuracy").last_written()  # there may be nothing to score yet
    tables = {f"forecasts/{t}" for t in workspace.site.series} | {s.table for s in workspace.site.series.values()}
    written = [f.written_at for t in tables for f in workspace.table(t).files()]
    return any(t.startswith("forecasts/") and workspace.table(t).exists() for t in tables) and (scored is None or max(written) > scored)
