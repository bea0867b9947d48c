"""A site that a person can check by hand: two meters with hourly readings, one load and one price series, and a way to land files in it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

from lakehouse.flow.clean import clean_fleet, clean_meters, clean_readings_days, clean_series_days, sum_meters_days
from lakehouse.flow.raw import read_deliveries, stale_deliveries
from lakehouse.flow.staleness import Step, next_steps
from lakehouse.flow.workspace import Workspace
from lakehouse.storage.landing import Landing

FIRST_DAY = date(2026, 3, 1)
TODAY = date(2026, 3, 20)


def site_text(name: str, first_day: date, clock: date, rest: str) -> str:
    """A site file near Madrid whose clock stands still; feeds and all else are the `rest`."""
    where = "country: ES\ntime_zone: Europe/Madrid\nlocation: {latitude_deg: 40.4, longitude_deg: -3.7}"
    return f"name: {name}\n{where}\nfirst_day: {first_day}\nclock: {clock}\n{rest}"


FEEDS = """\
feeds:
  readings: {format: canonical_readings}
  market: {format: canonical_series, provides: [prices, external_forecasts]}
"""
SITE = site_text(
    "village",
    FIRST_DAY,
    TODAY,
    FEEDS
    + """\
metering:
  aggregates:
    - series_id: village
series:
  demand:
    table: cleaned/load
    series: [village]
    models: [lightgbm]
    inputs:
      - {name: temperature, table: cleaned/external_forecasts, series: square, quantity: temperature_c}
""",
)


def day(number: int) -> date:
    """A day of March 2026."""
    return date(2026, 3, number)


def village(home: Path) -> Workspace:
    """The site without any file."""
    home.mkdir(parents=True, exist_ok=True)
    (home / "gridlake.yaml").write_text(SITE, encoding="utf-8")
    return Workspace.open(home)


def reading_lines(of: date, *, meter: str = "A", kwh: Callable[[int], float] = lambda hour: 1 + hour / 10) -> list[str]:
    """A UTC day of hourly readings of one meter, as lines of the canonical layout."""
    return [f"{meter},import,{of.isoformat()}T{hour:02}:00:00Z,60,{kwh(hour):.4f},A" for hour in range(24)]


def series_lines(of: date, series: str, quantity: str, value: Callable[[int], float], *, is_forecast: bool = False) -> list[str]:
    """A UTC day of hourly values of one series."""
    flag = str(is_forecast).lower()
    return [f"{series},{quantity},{of.isoformat()}T{hour:02}:00:00Z,60,{value(hour):.4f},{flag}" for hour in range(24)]


def land(workspace: Workspace, feed: str, delivered: date, name: str, lines: Iterable[str]) -> Path:
    """Lands a file of the canonical layout, with its header, and returns where it lies."""
    header = {"readings": "meter_id,register,interval_start,interval_minutes,energy_kwh,quality"}.get(
        feed, "series_id,quantity,interval_start,interval_minutes,value,is_forecast"
    )
    return land_text(workspace, feed, delivered, name, "\n".join([header, *lines]) + "\n")


def land_text(workspace: Workspace, feed: str, delivered: date, name: str, text: str) -> Path:
    """Lands a file with just this text."""
    source = workspace.site.home / name
    source.write_text(text, encoding="utf-8")
    arrival = Landing(workspace.site.path("landing")).land(feed, source, delivered)
    source.unlink()
    assert arrival is not None
    return arrival.path


def rewrite(path: Path, text: str) -> None:
    """Changes a landed file in place, a moment later."""
    path.write_text(text, encoding="utf-8")
    later = datetime.now(UTC) + timedelta(seconds=2)
    os.utime(path, (later.timestamp(), later.timestamp()))


def read_all(workspace: Workspace) -> None:
    """Reads what is new in landing."""
    for feed in workspace.site.feeds:
        stale = stale_deliveries(workspace, feed)
        if stale:
            read_deliveries(workspace, feed, stale)


def take(workspace: Workspace, step: Step) -> None:
    """Does one step of raw or cleaned without Dagster."""
    table, days = step.tables[0], step.days or (FIRST_DAY, TODAY)
    if step.layer == "raw":
        read_all(workspace)
    elif table == "cleaned/meters":
        clean_meters(workspace)
    elif table == "cleaned/meter_readings":
        assert clean_readings_days(workspace, *days).is_conserved
    elif table == "cleaned/fleet":
        clean_fleet(workspace)
    elif table == "cleaned/load":
        sum_meters_days(workspace, *days)
    elif table == "quality/codes":
        from lakehouse.flow.clean import write_codes

        write_codes(workspace)
    else:
        assert clean_series_days(workspace, *days).is_conserved


def rows_told(workspace: Workspace, table: str) -> list[str]:
    """All rows of a table, sorted; numbers to the ninth decimal, since a sum's last digit depends on the order of addition."""
    rows = workspace.table(table).read().to_pylist()
    return sorted(str({c: round(v, 9) if isinstance(v, float) else v for c, v in row.items()}) for row in rows)


def clean_up_to_date(workspace: Workspace) -> list[Step]:
    """Brings raw and cleaned up to date; returns the steps that were taken."""
    taken: list[Step] = []
    for _ in range(20):
        steps = next_steps(workspace, until="cleaned")
        if not steps:
            return taken
        for step in steps:
            take(workspace, step)
        taken += steps
    raise AssertionError(f"still stale after 20 rounds: {[str(s) for s in steps]}")
