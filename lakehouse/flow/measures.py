"""The site in figures for a monitor, told from its tables: sizes, freshness, quality of readings, forecasts and the plan.

Names and units follow Prometheus' conventions (base units, `_seconds`, `_bytes`). How they are exposed is the business of
`jobs.metrics`, which adds what Dagster knows of runs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from zoneinfo import ZoneInfo

from lakehouse.flow.watch import BESIDE_MODELS, NAIVE, conditions, freshness, read_ledger
from lakehouse.flow.workspace import Workspace


@dataclass(frozen=True)
class Measure:
    """One figure.

    Args:
        name: without the prefix `gridlake_`.
        help: what it is.
        labels: what it is of.
        value: the figure.
    """

    name: str
    help: str
    labels: tuple[tuple[str, str], ...]
    value: float


def measures(workspace: Workspace, *, now: datetime | None = None) -> list[Measure]:
    """All figures of a site; tables that are not there yet have none.

    Args:
        workspace: the site at work.
        now: UTC instant, for tests; by default the clock.
    """
    now = now or datetime.now(UTC)
    return [
        *_tables(workspace),
        *_feeds(workspace, now),
        *_readings(workspace, now),
        *_forecasts(workspace),
        *_plan(workspace),
        *_alerts(workspace, now),
    ]


def _one(name: str, text: str, value: float, **labels: str) -> Measure:
    return Measure(name, text, tuple(labels.items()), float(value))


def _tables(workspace: Workspace) -> Iterator[Measure]:
    for name in workspace.contracts:
        files = workspace.table(name).files()
        if not files:
            continue
        label = name.replace("/", ".")
        yield _one("table_rows", "Rows of a table.", sum(f.rows for f in files), table=label)
        yield _one("table_bytes", "Size of a table's newest version.", sum(f.bytes for f in files), table=label)
        yield _one("table_files", "Files of a table's newest version.", len(files), table=label)
        written = max(f.written_at for f in files).timestamp()
        yield _one("table_written_timestamp_seconds", "When a table last got rows.", written, table=label)


def _feeds(workspace: Workspace, now: datetime) -> Iterator[Measure]:
    zone = workspace.site.zone
    for feed, (newest, due) in freshness(workspace, now).items():
        if newest is not None:
            text = "End of the newest local day that a feed has data of."
            yield _one("feed_data_until_timestamp_seconds", text, _midnight_after(newest, zone), feed=feed)
            late = max((due - newest).days, 0)
            yield _one("feed_late_days", "Days of data that are overdue.", late, feed=feed)


def _readings(workspace: Workspace, now: datetime) -> Iterator[Measure]:
    if not workspace.has("quality/vee_report"):
        return
    fresh = freshness(workspace, now)
    until = max((newest for feed in workspace.site.feeds_of("readings") if (newest := fresh[feed][0])), default=date.min)
    # a local day ends within a UTC day, so the UTC day of the newest whole local day may still grow
    days = sorted(d for d in workspace.table("quality/vee_report").partitions_written() if d < until)
    if not days:
        return
    day = days[-1]
    kinds = ("measured", "edited", "estimated", "missing", "quarantined", "superseded", "exact_duplicates")
    sums = ", ".join(f"sum({k}) AS {k}" for k in kinds)
    with workspace.engine("quality/vee_report", days=(day, day)) as engine:
        row = engine.sql(f"SELECT {sums}, count(DISTINCT meter_id) AS meters FROM quality.vee_report").to_arrow_table().to_pylist()[0]
    for kind in kinds:
        yield _one("readings", "Readings of the newest whole day by what became of them.", row[kind] or 0, quality=kind)
    yield _one("meters", "Meters with readings on the newest whole day.", row["meters"])
    yield _one("readings_day_timestamp_seconds", "Start of that day.", datetime.combine(day, time(), UTC).timestamp())


def _forecasts(workspace: Workspace) -> Iterator[Measure]:
    for target in workspace.site.series:
        table = workspace.table(f"forecasts/{target}")
        issued = table.partitions_written()
        if not issued:
            continue
        newest = table.read(f"date = DATE '{max(issued)}'")
        at = max(newest.column("issued_at").to_pylist()).timestamp()
        yield _one("forecast_issued_timestamp_seconds", "Issue time of the newest forecast.", at, target=target)
        fallback = any(newest.column("is_fallback").to_pylist())
        yield _one("forecast_is_fallback", "1 if the newest forecast is not by the champion.", fallback, target=target)
    if not workspace.has("quality/forecast_accuracy") or not workspace.table("quality/forecast_accuracy").exists():
        return
    issues = workspace.site.alerts.accuracy_issues
    with workspace.engine("quality/forecast_accuracy") as engine:
        rows = engine.sql(
            f"""
            WITH scored AS (
                SELECT target, issued_at, CASE WHEN model IN {BESIDE_MODELS} THEN model ELSE 'issued' END AS of,
                       mae * intervals AS error, intervals, coverage_80_pct * intervals AS covered
                FROM quality.forecast_accuracy WHERE intervals > 0
                QUALIFY dense_rank() OVER (PARTITION BY target ORDER BY issued_at DESC) <= {issues})
            SELECT target, of, sum(error) / sum(intervals) AS mae,
                   sum(covered) / nullif(sum(intervals) FILTER (covered IS NOT NULL), 0) / 100 AS coverage
            FROM scored GROUP BY target, of ORDER BY ALL"""
        ).fetchall()
    naive = {target: mae for target, of, mae, _ in rows if of == NAIVE}
    span = f"over the last {issues} issues"
    for target, of, mae, coverage in rows:
        yield _one("forecast_mae", f"Mean absolute error {span}, in the target's unit.", mae, target=target, model=of)
        if of == "issued" and coverage is not None:
            yield _one("forecast_coverage_80_ratio", f"Share of actuals in the 80 % interval {span}.", coverage, target=target)
        if of == "issued" and naive.get(target):
            yield _one("forecast_naive_ratio", f"Error over the seasonal naive's {span}.", mae / naive[target], target=target)


def _plan(workspace: Workspace) -> Iterator[Measure]:
    if workspace.site.fleet is None:
        return
    table = workspace.table("dispatch/summary")
    planned = table.partitions_written()
    if not planned:
        return
    rows = table.read(f"date = DATE '{max(planned)}'").to_pylist()
    plan = max(rows, key=lambda row: row["planned_from"])
    yield _one("plan_issued_timestamp_seconds", "Issue time of the newest plan.", plan["issued_at"].timestamp())
    yield _one("plan_cost_eur", "Cost of the newest plan.", plan["cost_eur"])
    yield _one("plan_gap_ratio", "How far the newest plan may be from the best one.", plan["gap_pct"] / 100)
    yield _one("plan_solve_seconds", "Time to solve the newest plan.", plan["solve_seconds"])
    yield _one("plan_unserved_mwh", "Energy that the newest plan can't serve.", plan["unserved_mwh"])
    yield _one("plan_reserve_shortfall_mwh", "Reserve that the newest plan can't hold.", plan["reserve_shortfall_mwh"])
    yield _one("plan_is_verified", "1 if the checker found every constraint of the newest plan met.", plan["is_verified"])


def _alerts(workspace: Workspace, now: datetime) -> Iterator[Measure]:
    failed = [e.alert for e in read_ledger(workspace) if e.closed_at is None and e.alert.kind == "run failed"]
    found = [*failed, *conditions(workspace, now)]
    for severity in ("warning", "error"):
        yield _one("alerts", "Alerts that are open.", sum(a.severity == severity for a in found), severity=severity)


def _midnight_after(day: date, zone: ZoneInfo) -> float:
    from datetime import timedelta

    return datetime.combine(day + timedelta(days=1), time(), zone).timestamp()
