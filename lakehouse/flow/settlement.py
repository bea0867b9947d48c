"""Register differences of a site: held against the cleaned intervals between their reads, and shared by the estimates among them.

The arithmetic is in `metering.registers`; here is which days it reads and writes. A difference that comes after its days changes the
estimates in them and nothing else, so that these days need no second VEE.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

import duckdb
import pyarrow as pa

from lakehouse.flow.days import contiguous
from lakehouse.flow.workspace import Workspace
from lakehouse.storage.engine import register, select_files
from lakehouse.storage.lake import Commit


@dataclass(frozen=True)
class Settlement:
    """What settling the registers of some days did.

    Args:
        commit: what was written of cleaned/register_differences; None where nothing was to judge.
        changed: days whose estimates did not fit their registers: the differences over them have no verdict yet.
        anew: those of them that have to be cleaned once more, since their estimates shared otherwise before.
    """

    commit: Commit | None = None
    changed: tuple[date, ...] = ()
    anew: tuple[date, ...] = ()


def beside_in_spans(workspace: Workspace, engine: duckdb.DuckDBPyConnection, earlier: str, first: date, last: date) -> dict[str, str]:
    """The cleaned days around some days, as far as register differences reach into both; none where there are none."""
    from lakehouse.metering.registers import is_difference_sql

    opened, closed = engine.sql(f"""
        SELECT min(opens), max(closes) FROM (
            SELECT date AS opens, CAST(interval_end AS DATE) AS closes FROM {earlier} WHERE interval_end > TIMESTAMPTZ '{first} 00:00:00+00'
            UNION ALL SELECT d.date, CAST(d.interval_start + to_minutes(d.interval_minutes) AS DATE) FROM delivered d
            WHERE {is_difference_sql("d")} AND d.date BETWEEN DATE '{first}' AND DATE '{last}')
    """).fetchall()[0]
    if opened is None:
        return {}
    found = {}
    for told, name in (("around", "cleaned/meter_readings"), ("edits_around", "quality/edits")):
        table = workspace.table(name)
        near = table.snapshot().where(lambda f: opened <= f.partition["date"] <= closed and not first <= f.partition["date"] <= last)
        engine.execute(f"CREATE OR REPLACE TEMP VIEW {told} AS {select_files(table.contract, near)}")
        found[told] = told
    return found


def settle(
    workspace: Workspace, first: date, last: date, *, parts: Callable[[Workspace, date, date], list[tuple[date, date]]]
) -> Settlement:
    """Holds the intervals of some days against the register differences that reach into them, and has the estimates share the rest.

    Args:
        workspace: the site at work.
        first: first UTC day.
        last: last UTC day, included.
        parts: divides a span of days into what fits into memory.
    """
    commit, shares, anew = _judged(workspace, first, last)
    if commit is None:
        return Settlement()
    days = set(shares["date"].to_pylist())
    for span in contiguous(days):
        for part in parts(workspace, *span):
            _share(workspace, shares, part)
    return Settlement(commit, tuple(sorted(days | set(anew))), tuple(anew))


def judge(workspace: Workspace, first: date, last: date) -> None:
    """Writes the verdicts of the register differences that reach into some days."""
    _judged(workspace, first, last)


def _judged(workspace: Workspace, first: date, last: date) -> tuple[Commit | None, pa.Table, list[date]]:
    """Writes verdicts; which estimates do not share yet, and which days need to be cleaned once more."""
    from lakehouse.metering.registers import LONGEST_SPAN_DAYS, settled
    from lakehouse.metering.rules import VeeRules

    nothing: tuple[None, pa.Table, list[date]] = None, pa.table({"date": pa.array([], pa.date32())}), []
    table = workspace.table("cleaned/register_differences")
    if not table.exists():
        return nothing
    with workspace.engine() as engine:
        # Without a verdict: just delivered, or left by a process that was killed.
        unjudged = table.read("verdict IS NULL")["interval_start"]
        if len(unjudged):
            first = min(first, *(moment.date() for moment in unjudged.to_pylist()))
        spans = register(engine, table, only={"date": (first - timedelta(days=LONGEST_SPAN_DAYS), last)})
        reaching = f"interval_end > TIMESTAMPTZ '{first} 00:00:00+00'"
        opened, closed = engine.sql(f"SELECT min(date), max(CAST(interval_end AS DATE)) FROM {spans} WHERE {reaching}").fetchall()[0]
        if opened is None:
            return nothing
        # Partitions are written whole, so that all that opened on these days is judged anew.
        closed = engine.sql(f"SELECT max(CAST(interval_end AS DATE)) FROM {spans} WHERE date >= DATE '{opened}'").fetchall()[0][0]
        found = settled(
            engine,
            f"(SELECT * FROM {spans} WHERE date >= DATE '{opened}')",
            register(engine, workspace.table("cleaned/meter_readings"), only={"date": (opened, closed)}),
            register(engine, workspace.table("quality/edits"), only={"date": (opened, closed)}),
            VeeRules.from_site(workspace.site.metering.rules, workspace.site.metering.longest_gap_days),
        )
        inputs = ["cleaned/meter_readings", "quality/edits"]
        commit = workspace.replace(table.contract.name, found.differences, where={"date": (opened, last)}, inputs=inputs)
    return commit, found.shares, found.anew


def _share(workspace: Workspace, shares: pa.Table, days: tuple[date, date]) -> None:
    """Writes the shares of some days into readings, reports and edits.

    Each table is read as it is at the moment of its writing, so that who writes the same day meanwhile is not undone. The readings come
    last: a process that is killed before them is seen by their estimates, which do not share yet.
    """
    from lakehouse.metering.registers import shared_edits_sql, shared_reports_sql, shared_sql

    inside = shares.filter(pa.array([days[0] <= day <= days[1] for day in shares["date"].to_pylist()], pa.bool_()))

    def written(name: str, query: Callable[..., str], *read: str) -> None:
        def rows() -> Any:
            with workspace.engine() as engine:
                engine.register("shares", inside)
                views = [register(engine, workspace.table(one), only={"date": days}) for one in read]
                yield from engine.sql(query(*views, "shares")).to_arrow_reader(100_000)

        workspace.replace(name, rows, where={"date": days}, inputs=["cleaned/register_differences"])

    written("quality/edits", shared_edits_sql, "quality/edits")
    written("quality/vee_report", shared_reports_sql, "quality/vee_report", "cleaned/meter_readings")
    written("cleaned/meter_readings", shared_sql, "cleaned/meter_readings")
