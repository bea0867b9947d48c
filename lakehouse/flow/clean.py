"""raw → cleaned: which readings and values are trusted, and where every delivered row went."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, timedelta

import duckdb

from lakehouse.contracts.cleaned import FleetUnits
from lakehouse.flow.days import contiguous
from lakehouse.flow.past import LACKING, missing_past, reach_days
from lakehouse.flow.raw import days_that_came_since, may_hold
from lakehouse.flow.settlement import beside_in_spans, judge, settle
from lakehouse.flow.tables import SERIES_TABLES, feeds_into
from lakehouse.flow.workspace import Workspace
from lakehouse.site import Site
from lakehouse.storage.engine import register, select_files
from lakehouse.storage.lake import Commit, days_between

LOAD_MINUTES = 60
LEAST_DAYS_TO_JUDGE_DATES = 150
ROWS_AT_ONCE = 16_000_000
"""Delivered readings that are cleaned at once, about; a day is never divided. The days beside them are read as well, so that few large
days at once take half as long each as one by one."""
ROWS_WRITTEN_AT_ONCE = 4_000_000
"""Of so many the readings are committed at once, about: each day that is being written takes memory of its own."""
MOST_DAYS_AT_ONCE = 31


@dataclass
class Fate:
    """Where the rows of some days went."""

    commits: dict[str, Commit] = field(default_factory=dict)
    delivered: int = 0
    quarantined: int = 0
    estimated: int = 0
    is_conserved: bool = True
    refused_by_rule: dict[str, int] = field(default_factory=dict)
    swapped_dates: list[str] = field(default_factory=list)


def clean_series_days(workspace: Workspace, first: date, last: date) -> Fate:
    """Cleans the site's series feeds for a span of days into their tables.

    Args:
        workspace: the site at work.
        first: first UTC day of the intervals.
        last: last UTC day, included.
    """
    feeds = list(workspace.site.feeds_of("series"))
    fate = Fate()
    for span, into in _until_nothing_comes(workspace, feeds, first, last, fate):
        _clean_series(workspace, *span, into)
    return fate


def _until_nothing_comes(
    workspace: Workspace, feeds: Sequence[str], first: date, last: date, fate: Fate
) -> Iterator[tuple[tuple[date, date], Fate]]:
    """The span of days, and after it those of its days that deliveries touched meanwhile: their rows came too late to be read, and
    the days would look as if they held them. With each span where to tell what was done; days are counted once."""
    spans, into = [(first, last)], fate
    while spans:
        seen = {feed: workspace.table(f"raw/{feed}").snapshot() for feed in feeds}
        for span in spans:
            yield span, into
        fate.is_conserved = fate.is_conserved and into.is_conserved
        into = Fate()
        days = {day for span in spans for day in days_between(*span)}
        spans = contiguous(days & days_that_came_since(workspace, feeds, seen))


def _clean_series(workspace: Workspace, first: date, last: date, fate: Fate) -> None:
    from lakehouse.series.clean import CONTEXT_DAYS_AFTER, CONTEXT_DAYS_BEFORE, clean_series

    feeds = list(workspace.site.feeds_of("series"))
    with workspace.engine() as engine:
        context = (first - timedelta(days=CONTEXT_DAYS_BEFORE), last + timedelta(days=CONTEXT_DAYS_AFTER))
        _gather(workspace, engine, "delivered", feeds, context)
        site = workspace.site
        cleaned = clean_series(engine, "delivered", currency=site.currency, days=(first, last), limits=site.limits)
        inputs = [f"raw/{feed}" for feed in feeds]
        for table in series_tables(workspace):
            fate.commits[table] = workspace.replace(table, cleaned.trusted[table], where={"date": (first, last)}, inputs=inputs)
        fate.swapped_dates = _swapped_dates(engine, site, first, last)
        _account(workspace, engine, fate, feeds, cleaned.quarantined, cleaned.conservation, first, last)


def _swapped_dates(engine: duckdb.DuckDBPyConnection, site: Site, first: date, last: date) -> list[str]:
    """Series and years of a long span in which day and month look exchanged, each as a sentence with its evidence."""
    from lakehouse.series.day_month import day_month_swaps, verdicts

    if (last - first).days < LEAST_DAYS_TO_JUDGE_DATES:
        return []
    columns = "series_id, quantity, interval_start, value"
    engine.execute(f"CREATE OR REPLACE TEMP VIEW dated AS SELECT {columns} FROM delivered WHERE fault IS NULL")
    found = verdicts(day_month_swaps(engine, "dated", time_zone=site.time_zone))
    return [f"{one.series_id} {one.quantity} {one.evidence}" for one in found if one.is_swapped]


def series_tables(workspace: Workspace) -> list[str]:
    """Cleaned tables that this site's series feeds fill."""
    return [f"cleaned/{table}" for table in SERIES_TABLES if feeds_into(workspace.site, table)]


def clean_meters(workspace: Workspace) -> Commit:
    """The meter registry as of its newest delivery, with the meters that deliver and are in no registry."""
    from lakehouse.metering.registry import meters_from

    with workspace.engine() as engine:
        registries = list(workspace.site.feeds_of("meters"))
        registry = _gather(workspace, engine, "registry", registries, None) if registries else None
        readings = _gather(workspace, engine, "readings", list(workspace.site.feeds_of("readings")), None)
        return workspace.replace("cleaned/meters", meters_from(engine, registry, readings), inputs=[f"raw/{f}" for f in registries])


def clean_readings_days(workspace: Workspace, first: date, last: date) -> Fate:
    """Validates, estimates and edits the readings of a span of days.

    A long span is cleaned a few days at a time, each committed by itself: memory does not grow with the span, and each part
    finds the days before it cleaned.

    Args:
        workspace: the site at work.
        first: first UTC day of the intervals.
        last: last UTC day, included.
    """
    fate = Fate()
    for span, into in _until_nothing_comes(workspace, list(workspace.site.feeds_of("readings")), first, last, fate):
        for part in _parts_of_span(workspace, *span):
            _clean_readings(workspace, *part, into)
    settled = settle(workspace, first, last, parts=_written_parts)
    if settled.commit:
        fate.commits["cleaned/register_differences"] = settled.commit
    for span in contiguous(settled.anew):
        for part in _parts_of_span(workspace, *span):
            again = Fate()  # days that were asked for are counted already, and others were not asked for
            _clean_readings(workspace, *part, again)
            fate.is_conserved = fate.is_conserved and again.is_conserved
    if settled.changed:
        judge(workspace, min(settled.changed), max(settled.changed))
    with workspace.engine("cleaned/meter_readings", days=(first, last)) as reading:
        counted = "SELECT count(*) FILTER (is_estimated) FROM cleaned.meter_readings"
        fate.estimated = reading.sql(counted).fetchall()[0][0]
    return fate


def _parts_of_span(workspace: Workspace, first: date, last: date) -> list[tuple[date, date]]:
    """A span of days in parts of about as many readings as are cleaned at once."""
    return _parts(workspace, first, last, ROWS_AT_ONCE)


def _written_parts(workspace: Workspace, first: date, last: date) -> list[tuple[date, date]]:
    """A span of days in parts of about as many readings as are committed at once."""
    return _parts(workspace, first, last, ROWS_WRITTEN_AT_ONCE)


def _parts(workspace: Workspace, first: date, last: date, rows_at_once: int) -> list[tuple[date, date]]:
    rows: dict[date, int] = {}
    for feed in workspace.site.feeds_of("readings"):
        for one in workspace.table(f"raw/{feed}").files():
            rows[one.partition["delivery_date"]] = rows.get(one.partition["delivery_date"], 0) + one.rows
    of_a_day = max((n for day, n in rows.items() if first <= day <= last + timedelta(days=1)), default=1)
    days = min(max(rows_at_once // max(of_a_day, 1), 1), MOST_DAYS_AT_ONCE)
    starts = range(0, (last - first).days + 1, days)
    return [(first + timedelta(days=n), min(first + timedelta(days=n + days - 1), last)) for n in starts]


def _clean_readings(workspace: Workspace, first: date, last: date, fate: Fate) -> None:
    from lakehouse.metering.registers import LONGEST_SPAN_DAYS
    from lakehouse.metering.rules import VeeRules
    from lakehouse.metering.vee import validate_estimate_edit

    site = workspace.site
    rules = VeeRules.from_site(site.metering.rules, site.metering.longest_gap_days)
    feeds = list(site.feeds_of("readings"))
    past = (first - timedelta(days=reach_days(workspace)), first - timedelta(days=1))
    lacking = missing_past(workspace, first, last)
    with workspace.engine() as engine:
        _gather(workspace, engine, "delivered", feeds, (first, last + timedelta(days=1)), whole_deliveries=True)
        differences = workspace.table("cleaned/register_differences")
        earlier = register(engine, differences, only={"date": (first - timedelta(days=LONGEST_SPAN_DAYS), first - timedelta(days=1))})
        beside = beside_in_spans(workspace, engine, earlier, first, last)
        vee = validate_estimate_edit(
            engine,
            "delivered",
            days=days_between(first, last),
            meters=register(engine, workspace.table("cleaned/meters")),
            history=register(engine, workspace.table("cleaned/meter_readings"), only={"date": past}),
            reports=register(engine, workspace.table("quality/vee_report"), only={"date": past}),
            rules=rules,
            time_zone=site.time_zone,
            today=site.today(),
            first_day=site.first_utc_day(),
            holidays=_holidays(site, past[0], last),
            earlier_differences=earlier,
            around=beside.get("around"),
            edits_around=beside.get("edits_around"),
        )
        inputs = [*(f"raw/{feed}" for feed in feeds), "cleaned/meters"]
        for days in _written_parts(workspace, first, last):
            rows = vee.trusted if days == (first, last) else vee.trusted.filter(f"date BETWEEN DATE '{days[0]}' AND DATE '{days[1]}'")
            commit = workspace.replace("cleaned/meter_readings", rows, where={"date": days}, inputs=inputs)
            fate.commits["cleaned/meter_readings"] = _joined(fate.commits.get("cleaned/meter_readings"), commit)
        written = {"quality/vee_report": vee.report, "quality/edits": vee.edits}
        if differences.exists() or vee.differences.limit(1).fetchall():
            written["cleaned/register_differences"] = vee.differences
        for table, rows in written.items():
            commit = workspace.replace(table, rows, where={"date": (first, last)}, inputs=inputs)
            fate.commits[table] = _joined(fate.commits.get(table), commit)
        told = "".join(f" WHEN DATE '{day}' THEN {count}" for day, count in lacking.items())
        accounts = vee.conservation.project(f"*, CAST(CASE date{told} END AS BIGINT) AS {LACKING}")
        _account(workspace, engine, fate, feeds, vee.quarantined, accounts, first, last)


def _joined(before: Commit | None, commit: Commit) -> Commit:
    """What several commits of one table left behind together."""
    if before is None:
        return commit
    first = min(filter(None, (before.first, commit.first)), default=None)
    last = max(filter(None, (before.last, commit.last)), default=None)
    return replace(commit, rows=before.rows + commit.rows, bytes=before.bytes + commit.bytes, first=first, last=last)


def _holidays(site: Site, first: date, last: date) -> list[date]:
    from holidays import country_holidays

    known = country_holidays(site.country, subdiv=site.subdivision, years=range(first.year, last.year + 1))
    return [day for day in known if first <= day <= last]


def sum_meters_days(workspace: Workspace, first: date, last: date) -> Commit:
    """Sums meter readings to the load series that the site file asks for."""
    from lakehouse.metering.load import aggregate_load

    with workspace.engine("cleaned/meters") as engine:
        readings = register(engine, workspace.table("cleaned/meter_readings"), only={"date": (first, last)})
        load = aggregate_load(engine, readings, "cleaned.meters", workspace.site.metering.aggregates, LOAD_MINUTES)
        return workspace.replace("cleaned/load", load, where={"date": (first, last)}, inputs=["cleaned/meter_readings", "cleaned/meters"])


def clean_fleet(workspace: Workspace) -> Commit:
    """The fleet as of its newest delivery: each unit once, with its whole set of parameters."""
    assert workspace.site.fleet is not None
    feed = workspace.site.fleet.feed
    with workspace.engine() as engine:
        raw = register(engine, workspace.table(f"raw/{feed}"))
        kinds = ", ".join(f"'{k}'" for k in FleetUnits.columns["kind"].isin or ())
        number = "TRY_CAST(json_extract_string(parameters, '$.{}') AS DOUBLE)"
        rows = engine.sql(f"""
            SELECT unit_id, kind, {number.format("minimum_mw")} AS minimum_mw,
                   coalesce({number.format("maximum_mw")}, {number.format("discharge_mw")},
                            {number.format("import_limit_mw")}) AS maximum_mw,
                   parameters, delivery_date
            FROM {raw}
            WHERE fault IS NULL AND kind IN ({kinds}) AND delivery_date = (SELECT max(delivery_date) FROM {raw} WHERE fault IS NULL)
            QUALIFY row_number() OVER (PARTITION BY unit_id ORDER BY file DESC, line DESC) = 1
        """)
        return workspace.replace("cleaned/fleet", rows, inputs=[f"raw/{feed}"])


def write_codes(workspace: Workspace) -> Commit:
    """What the quality codes and rules mean, for the analyst."""
    import pyarrow as pa

    from lakehouse.metering.rules import codes
    from lakehouse.series.clean import codes as series_codes

    of_readings, of_series = codes(), series_codes()
    known = set(of_readings.column("code").to_pylist())
    others = of_series.filter(pa.array([code not in known for code in of_series.column("code").to_pylist()]))
    return workspace.replace("quality/codes", pa.concat_tables([of_readings, others.cast(of_readings.schema)]))


def _gather(
    workspace: Workspace,
    engine: duckdb.DuckDBPyConnection,
    name: str,
    feeds: Sequence[str],
    days: tuple[date, date] | None,
    *,
    whole_deliveries: bool = False,
) -> str:
    """A view of the delivered rows of some feeds that are of certain days; a row without a day is of its delivery date.

    With `whole_deliveries`, the other rows of the deliveries that touch these days are in it too.
    """
    parts = []
    for feed in feeds:
        table = workspace.table(f"raw/{feed}")
        snapshot = table.snapshot().where(lambda f: not days or may_hold(f.statistics, f.partition["delivery_date"], days))
        parts.append(f"SELECT *, '{feed}' AS feed FROM ({select_files(table.contract, snapshot)})")
    cut = days and not whole_deliveries
    where = f"WHERE coalesce(date, delivery_date) BETWEEN DATE '{days[0]}' AND DATE '{days[1]}'" if days and cut else ""
    engine.execute(f"CREATE OR REPLACE TEMP VIEW {name} AS SELECT * FROM ({' UNION ALL BY NAME '.join(parts)}) {where}")
    return name


def _account(
    workspace: Workspace,
    engine: duckdb.DuckDBPyConnection,
    fate: Fate,
    feeds: Sequence[str],
    quarantined: duckdb.DuckDBPyRelation,
    conservation: duckdb.DuckDBPyRelation,
    first: date,
    last: date,
) -> None:
    """Writes quarantine and conservation of some feeds and days, and sums them up."""
    where = {"feed": list(feeds), "date": (first, last)}
    for table, rows_of in (("quality/quarantine", quarantined), ("quality/conservation", conservation)):
        fate.commits[table] = _joined(fate.commits.get(table), workspace.replace(table, rows_of, where=where))
    register(engine, workspace.table("quality/conservation"), only={"date": (first, last)})
    listed = ", ".join(f"'{f}'" for f in feeds)
    rows = engine.sql(f"""
        SELECT coalesce(sum(delivered), 0), coalesce(sum(quarantined), 0), coalesce(bool_and(is_conserved), true)
        FROM quality.conservation WHERE feed IN ({listed}) AND date BETWEEN DATE '{first}' AND DATE '{last}'
    """).fetchall()
    fate.delivered += int(rows[0][0])
    fate.quarantined += int(rows[0][1])
    fate.is_conserved = fate.is_conserved and bool(rows[0][2])
    register(engine, workspace.table("quality/quarantine"), only={"date": (first, last)})
    by_rule = engine.sql(f"""
        SELECT rule, count(*) FROM quality.quarantine WHERE feed IN ({listed}) AND date BETWEEN DATE '{first}' AND DATE '{last}'
        GROUP BY rule ORDER BY count(*) DESC
    """).fetchall()
    for rule, count in by_rule:
        fate.refused_by_rule[rule] = fate.refused_by_rule.get(rule, 0) + count
