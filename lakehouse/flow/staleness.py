"""What has to be made again: told from the tables themselves, for the command and for the sensors alike.

A partition is stale when something it rests on was written after it. Only the first stage with stale partitions is told at a
time, since what follows depends on what that stage will hold. The same question after the work is done finds nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

from lakehouse.contracts import dispatch
from lakehouse.flow import forecast, regret
from lakehouse.flow.days import contiguous
from lakehouse.flow.past import came_late
from lakehouse.flow.raw import abandoned_days, stale_deliveries, touched_days
from lakehouse.flow.tables import SERIES_TABLES, feeds_into, sums_meters
from lakehouse.flow.workspace import Workspace
from lakehouse.site import Site
from lakehouse.storage.lake import days_between

LAYERS = ("raw", "cleaned", "features", "models", "forecasts", "dispatch")
PLANNED_DAYS = 7
"""How many issue days back a missing plan is made, where no days are asked for."""

CLOSELY_SEEN_DELIVERIES = 14
"""So many of a feed's newest deliveries are looked at file by file at every look of the sensor."""

SETTLED_AFTER_SECONDS = 2.0
"""A file that changed within so many seconds may still be written."""

Written = Mapping[date, datetime]


@dataclass(frozen=True)
class Step:
    """Assets to materialize together, for a span of days or, unpartitioned, as a whole.

    Args:
        layer: which layer the step brings up to date.
        tables: names of the tables.
        days: first and last partition, or None.
        reason: why, in a sentence.
    """

    layer: str
    tables: tuple[str, ...]
    days: tuple[date, date] | None
    reason: str

    def __str__(self) -> str:
        span = "" if self.days is None else f" {self.days[0]}" + (f" to {self.days[1]}" if self.days[1] != self.days[0] else "")
        return f"{', '.join(self.tables)}{span}"


def pulse(workspace: Workspace) -> str:
    """A short text that changes when a file comes to landing or leaves it, a table changes, an issue time passes, and every hour.

    As long as it stays the same, `next_steps` would answer the same, but for an old delivery's file that was changed in place:
    that is seen within the hour. It costs a look at folders and at the newest deliveries' files, however much lies in landing.
    """
    digest = hashlib.sha256(datetime.now(UTC).strftime("%Y-%m-%dT%H").encode())
    for feed in workspace.site.feeds:
        for glimpse in workspace.landing.glance(feed, closely=CLOSELY_SEEN_DELIVERIES):
            digest.update(glimpse.encode())
    for target in workspace.site.series:
        digest.update(f"{target} until {forecast.issue_days(workspace.site, target)[1]}".encode())
    for name in workspace.contracts:
        digest.update(f"{name}@{workspace.table(name).version()}".encode())
    return digest.hexdigest()


def token_of(workspace: Workspace, step: Step) -> str:
    """What a step rests on, as a short text: the same step on the same inputs has the same one."""
    digest = hashlib.sha256(str(step).encode())
    if step.layer == "raw" and step.days:
        feed = step.tables[0].split("/", 1)[1]
        for day in days_between(*step.days):
            digest.update("".join(f"{a.name}/{a.stamp()}" for a in workspace.landing.arrivals(feed, day)).encode())
    else:
        before = LAYERS[: LAYERS.index(step.layer)]
        for name in workspace.contracts:
            if name.split("/", 1)[0] in before:
                digest.update(f"{name}@{workspace.table(name).version()}".encode())
    return digest.hexdigest()[:16]


def next_steps(
    workspace: Workspace,
    *,
    until: str = "dispatch",
    days: tuple[date, date] | None = None,
    without: Callable[[Step], bool] = lambda step: False,
) -> list[Step]:
    """The steps of the first stage that is stale; none when all is as it should be.

    The stages are the layers in their order. What no plan waits for comes after the plan: scores, a training that is due while
    there is a model, and the regret of past plans.

    Args:
        workspace: the site at work.
        until: the last layer to look at.
        days: restricts partitioned steps to these days.
        without: steps to pass over, so that one which can't be done does not hold up those that do not rest on it.
    """
    for layer, stale in _STAGES:
        if LAYERS.index(layer) > LAYERS.index(until):
            continue
        found = _plans(workspace, days) if stale is _plans else stale(workspace)
        steps = [s for s in found if days is None or s.days is None or (s.days[0] <= days[1] and s.days[1] >= days[0])]
        steps = [s for s in (_clipped(s, days) for s in steps) if not without(s)]
        if steps:
            return steps
    return []


def _clipped(step: Step, days: tuple[date, date] | None) -> Step:
    if days is None or step.days is None:
        return step
    return Step(step.layer, step.tables, (max(step.days[0], days[0]), min(step.days[1], days[1])), step.reason)


# -- layer by layer


def _raw(workspace: Workspace) -> list[Step]:
    steps = []
    for feed in workspace.site.feeds:
        steps += [Step("raw", (f"raw/{feed}",), span, "files arrived or changed") for span in contiguous(stale_deliveries(workspace, feed))]
    return steps


def _cleaned(workspace: Workspace) -> list[Step]:
    site = workspace.site
    first = _registers(workspace)
    if first:
        return first
    steps = []
    readings = list(site.feeds_of("readings"))
    tables = tuple(f"cleaned/{t}" for t in SERIES_TABLES if feeds_into(site, t))
    if readings:
        judged = ("cleaned/meter_readings", "quality/vee_report", "quality/edits")
        steps += _touched(workspace, judged, readings) or _spans(
            site, judged, came_late(workspace), "days before these were cleaned after them"
        )
    if tables:
        steps += _touched(workspace, tables, list(site.feeds_of("series")))
    if steps:
        return steps
    if sums_meters(site, "load"):
        readings_written = workspace.table("cleaned/meter_readings").partitions_written()
        stale = _older(workspace.table("cleaned/load").partitions_written(), readings_written)
        steps += [Step("cleaned", ("cleaned/load",), span, "readings changed") for span in contiguous(stale)]
    return steps


def _registers(workspace: Workspace) -> list[Step]:
    site = workspace.site
    unpartitioned: list[tuple[str, Iterable[str]]] = []
    if site.feeds_of("readings"):
        unpartitioned.append(("cleaned/meters", [f"raw/{f}" for f in (site.feeds_of("meters") or site.feeds_of("readings"))]))
    if site.fleet:
        unpartitioned.append(("cleaned/fleet", [f"raw/{site.fleet.feed}"]))
    steps = []
    for table, sources in unpartitioned:
        newest = max((_newest(workspace, s) for s in sources if workspace.table(s).exists()), default=None)
        if newest and newest > _newest(workspace, table):
            steps.append(Step("cleaned", (table,), None, "a newer delivery"))
    if not workspace.table("quality/codes").exists():
        steps.append(Step("cleaned", ("quality/codes",), None, "not there yet"))
    return steps


def _touched(workspace: Workspace, tables: tuple[str, ...], feeds: list[str]) -> list[Step]:
    """Days that a delivery touched after they were last accounted for."""
    site = workspace.site
    stale: set[date] = set()
    for feed in feeds:
        accounted = workspace.table("quality/conservation").partitions_written(only={"feed": feed})
        stale |= {*touched_days(workspace, feed, accounted), *abandoned_days(workspace, feed)}
    return _spans(site, tables, stale, "deliveries touched these days")


def _spans(site: Site, tables: tuple[str, ...], days: set[date], reason: str) -> list[Step]:
    """A step for each span of those days that the site cleans."""
    inside = [d for d in days if site.first_utc_day() <= d <= site.last_day()]
    return [Step("cleaned", tables, span, reason) for span in contiguous(inside)]


def _features(workspace: Workspace) -> list[Step]:
    steps = []
    for target in workspace.site.series:
        stale = _stale_issues(workspace, target)
        steps += [Step("features", (f"features/{target}",), span, "what they rest on changed") for span in contiguous(stale)]
    return _joined(steps)


def _stale_issues(workspace: Workspace, target: str) -> list[date]:
    site = workspace.site
    first, last = forecast.issue_days(site, target)
    read_first, read_last = forecast.read_span(site, target, first, first)
    before, after = (first - read_first).days, (read_last - first).days
    made = workspace.table(f"features/{target}").partitions_written()
    newest: dict[date, datetime] = {}
    for table in forecast.inputs_of(site, target):
        for day, written in workspace.table(table).partitions_written().items():
            newest[day] = max(newest.get(day, written), written)
    if not newest:
        return []
    # A change of one day reaches every issue that may look back or ahead to it.
    stale: list[date] = []
    for day in (first + timedelta(days=n) for n in range((last - first).days + 1)):
        if day not in made:
            stale.append(day)
            continue
        span = (newest.get(day + timedelta(days=n)) for n in range(-before, after + 1))
        if any(w is not None and w > made[day] for w in span):
            stale.append(day)
    return stale


def _first_models(workspace: Workspace) -> list[Step]:
    """Models of targets that have none which can be used."""
    missing = [t for t in _featured(workspace) if not _has_model(workspace, t) and forecast.training_is_due(workspace, t)]
    return _training(missing, "there is no model that can be used")


def _retraining(workspace: Workspace) -> list[Step]:
    due = [t for t in _featured(workspace) if forecast.training_is_due(workspace, t)]
    return _training(due, "the newest version is older than a week, its code or description changed, or something drifted")


def _training(targets: list[str], reason: str) -> list[Step]:
    return [Step("models", tuple(f"models/{t}" for t in targets), None, reason)] if targets else []


def _featured(workspace: Workspace) -> list[str]:
    return [t for t in workspace.site.series if workspace.table(f"features/{t}").exists()]


def _has_model(workspace: Workspace, target: str) -> bool:
    task = forecast.task_of(workspace.site, target)
    return any(version.is_made_for(task) for version in forecast.registry_of(workspace).versions(target))


def _forecasts(workspace: Workspace) -> list[Step]:
    steps = []
    for target in workspace.site.series:
        if workspace.table(f"models/{target}").exists():
            steps += [
                Step("forecasts", (f"forecasts/{target}",), span, "issues without a forecast")
                for span in contiguous(forecast.unissued_days(workspace, target))
            ]
    return _joined(steps)


def _scores(workspace: Workspace) -> list[Step]:
    due = workspace.site.series and forecast.accuracy_is_due(workspace)
    return [Step("forecasts", forecast.SCORES, None, "forecasts or actuals are newer")] if due else []


def _plans(workspace: Workspace, days: tuple[date, date] | None = None) -> list[Step]:
    fleet = workspace.site.fleet
    if fleet is None or not workspace.table("cleaned/fleet").exists():
        return []
    issued = workspace.table(f"forecasts/{fleet.demand}").partitions_written()
    recent = sorted(issued)[-PLANNED_DAYS:] if days is None else [d for d in issued if days[0] <= d <= days[1]]
    made = workspace.table("dispatch/summary").partitions_written()
    for day in workspace.table("dispatch/summary").read("planned_from IS NULL").column("date").to_pylist():
        made.pop(day, None)  # by an older version, which kept less of a plan
    stale = _older(made, {d: issued[d] for d in recent})
    return [Step("dispatch", tuple(t.name for t in dispatch.PLAN_TABLES), span, "newer forecasts") for span in contiguous(stale)]


def _regret(workspace: Workspace) -> list[Step]:
    if workspace.site.fleet is None or not workspace.table("cleaned/fleet").exists():
        return []
    return [Step("dispatch", (dispatch.Regret.name,), span, "what came is known") for span in contiguous(regret.regret_is_due(workspace))]


_STAGES: tuple[tuple[str, Callable[..., list[Step]]], ...] = (
    ("raw", _raw),
    ("cleaned", _cleaned),
    ("features", _features),
    ("models", _first_models),
    ("forecasts", _forecasts),
    ("dispatch", _plans),
    ("forecasts", _scores),
    ("models", _retraining),
    ("dispatch", _regret),
)


def is_being_written(workspace: Workspace, step: Step) -> bool:
    """Whether a step reads a delivery with a file that changed just now: its writer may not be done."""
    return settles_in(workspace, step) > 0


def settles_in(workspace: Workspace, step: Step) -> float:
    """Seconds until the newest file that a step reads has been as it is for long enough; 0 if it has."""
    if step.layer != "raw" or not step.days:
        return 0.0
    feed = step.tables[0].split("/", 1)[1]
    newest = max((a.stamp()[1] for day in days_between(*step.days) for a in workspace.landing.arrivals(feed, day)), default=None)
    age = (datetime.now(UTC) - newest).total_seconds() if newest else SETTLED_AFTER_SECONDS
    return SETTLED_AFTER_SECONDS - max(age, 0.0) if abs(age) < SETTLED_AFTER_SECONDS else 0.0


# -- small change


def _older(made: Written, source: Written) -> list[date]:
    return [day for day, written in source.items() if day not in made or made[day] < written]


def _newest(workspace: Workspace, table: str) -> datetime:
    # Told by the commit and not by the files: a table may be up to date and empty.
    return workspace.table(table).last_written() or datetime.min.replace(tzinfo=UTC)


def _joined(steps: list[Step]) -> list[Step]:
    """Steps of the same days in one run."""
    by_days: dict[Any, list[Step]] = {}
    for step in steps:
        by_days.setdefault(step.days, []).append(step)
    return [Step(group[0].layer, tuple(t for s in group for t in s.tables), days, group[0].reason) for days, group in by_days.items()]
