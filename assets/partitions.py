"""The one partition dimension, the day, and how days of one layer depend on days of another."""

from __future__ import annotations

import warnings
from datetime import date, timedelta

import dagster as dg

from lakehouse.site import Site


def site_days(site: Site) -> dg.DailyPartitionsDefinition:
    """Days of a site, from its first to the last that today's forecasts reach (today is the real one, or its frozen clock)."""
    if site.clock:
        end = site.last_day() + timedelta(days=1)
        return dg.DailyPartitionsDefinition(start_date=site.first_utc_day().isoformat(), end_date=end.isoformat())
    ahead = (site.last_day() - site.today()).days
    return dg.DailyPartitionsDefinition(start_date=site.first_utc_day().isoformat(), timezone=site.time_zone, end_offset=1 + ahead)


ANY_DELIVERY = dg.AllPartitionMapping()
"""A reading day may be touched by any delivery, however late; raw's metadata tells which days each one touched."""


def window(days_before: int, days_after: int = 0) -> dg.TimeWindowPartitionMapping:
    """A day that depends on the days around it; days outside the site's calendar are none."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", dg.BetaWarning)
        return dg.TimeWindowPartitionMapping(start_offset=-days_before, end_offset=days_after, allow_nonexistent_upstream_partitions=True)


def span_of(context: dg.AssetExecutionContext) -> tuple[date, date]:
    """First and last day that this run is for."""
    keys = context.partition_key_range
    return date.fromisoformat(keys.start), date.fromisoformat(keys.end)


def days_of(context: dg.AssetExecutionContext) -> list[date]:
    """All days that this run is for."""
    first, last = span_of(context)
    return [first + timedelta(days=n) for n in range((last - first).days + 1)]
