"""Days that were cleaned before the days before them: their readings were judged and estimated by less past than there is.

It happens where a backfill cleans many days side by side. Each such day says in `quality/conservation` how much of its past it lacked, and
is stale as soon as it would lack less; so in the end it is of no account in which order days were cleaned. A past day that is
corrected later is none that was lacking: who corrects a day changes that day only.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, timedelta

from lakehouse.flow.raw import delivered_days
from lakehouse.flow.workspace import Workspace
from lakehouse.storage.lake import days_between

LACKING = "missing_past_days"


def reach_days(workspace: Workspace) -> int:
    """How many days before a day its readings are judged and estimated by."""
    from lakehouse.metering.rules import VeeRules

    metering = workspace.site.metering
    rules = VeeRules.from_site(metering.rules, metering.longest_gap_days)
    return max(rules.history_days, rules.profile_days) + 1


def missing_past(workspace: Workspace, first: date, last: date) -> dict[date, int]:
    """For each day of a span that is cleaned now, how many days before it were delivered and are not cleaned, or lack days themselves.

    To be asked before the past is read: a day that is cleaned meanwhile counts as lacking, and never the other way round.
    """
    reach = reach_days(workspace)
    before = (first - timedelta(days=reach), first - timedelta(days=1))
    lacking = _never_cleaned(workspace, *before) | {day for day in _lacking(workspace) if before[0] <= day <= before[1]}
    return _counted(lacking, days_between(first, last), reach)


def came_late(workspace: Workspace) -> set[date]:
    """Days that would lack less of their past if they were cleaned now, in order."""
    stored = _lacking(workspace)
    if not stored:
        return set()
    reach = reach_days(workspace)
    never = _never_cleaned(workspace, min(stored) - timedelta(days=reach), max(stored))
    now = _counted(never, sorted(stored), reach)
    return {day for day, count in stored.items() if now[day] < count}


def _counted(lacking: set[date], days: list[date], reach: int) -> dict[date, int]:
    lacking = set(lacking)
    found: dict[date, int] = {}
    for day in days:
        found[day] = sum(1 for one in lacking if day - timedelta(days=reach) <= one < day)
        if found[day]:
            lacking.add(day)
    return found


def _lacking(workspace: Workspace) -> Mapping[date, int]:
    """The days that lacked some of their past when they were cleaned, and how many days of it."""
    feeds = set(workspace.site.feeds_of("readings"))
    found: dict[date, int] = {}
    for one in workspace.table("quality/conservation").files():
        most = one.statistics.get(f"max.{LACKING}")
        if most and one.partition["feed"] in feeds:
            found[one.partition["date"]] = max(found.get(one.partition["date"], 0), most)
    return found


def _never_cleaned(workspace: Workspace, first: date, last: date) -> set[date]:
    """Days of a span with delivered readings that no cleaning has accounted for yet."""
    found: set[date] = set()
    for feed in workspace.site.feeds_of("readings"):
        accounted = workspace.table("quality/conservation").partitions_written(only={"feed": feed})
        unknown = {day for day in days_between(first, last) if day not in accounted}
        found |= delivered_days(workspace, feed, unknown)
    return found
