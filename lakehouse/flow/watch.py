"""What on a site is worth an alert, told from its tables, and telling it: `gridlake alerts`, and the sensor.

How messages look and go out is the business of `lakehouse.alerting`; runs that failed are told to `look` by who knows of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

import pyarrow as pa

from lakehouse.alerting.alert import Alert, Entry, Message, delivered, news
from lakehouse.alerting.channels import Channel, Email, Letterhead, LogFile, Webhook, secret
from lakehouse.contracts.quality import Alerts
from lakehouse.errors import AlertError
from lakehouse.flow.workspace import Workspace
from lakehouse.site import EmailChannel, LogChannel, Site, WebhookChannel
from lakehouse.storage.lake import Commit

ISSUE_GRACE = timedelta(minutes=60)
LONGEST_INTERVAL = timedelta(hours=1)  # after the start of its last interval a day is over, whatever the intervals' length
LEAST_QUARANTINED = 10
NAIVE = "seasonal_naive"
BESIDE_MODELS = (NAIVE, "operator")


@dataclass
class Look:
    """What a look at a site found and told."""

    open: list[Alert] = field(default_factory=list)
    sent: list[Message] = field(default_factory=list)
    troubles: list[str] = field(default_factory=list)
    commit: Commit | None = None


def look(workspace: Workspace, further: Iterable[Alert] = (), *, now: datetime | None = None) -> Look:
    """Looks at the site, tells the channels what is news, and keeps the ledger `quality/alerts`.

    A channel that takes no message is told again at the next look; the others do not wait for it.

    Args:
        workspace: the site at work.
        further: alerts that the tables can't tell, such as failed runs.
        now: UTC instant, for tests; by default the clock.
    """
    now = now or datetime.now(UTC)
    site = workspace.site
    found = Look(open=[*conditions(workspace, now), *further])
    channels, found.troubles = _channels(site)
    ledger = read_ledger(workspace)
    told = news(ledger, found.open, site.alerts.channels, now, timedelta(hours=site.alerts.remind_after_hours))
    outcome: dict[Message, bool] = {}
    letterhead = Letterhead(site.name, site.zone)
    for channel in channels:
        mine = [m for m in told.messages if m.channel == channel.name]
        if not mine:
            continue
        try:
            channel.send(mine, letterhead)
        except AlertError as error:
            found.troubles.append(str(error))
        else:
            outcome |= dict.fromkeys(mine, True)
    found.sent = list(outcome)
    after = delivered(told.ledger, outcome, now)
    if after != ledger:
        found.commit = workspace.replace(Alerts.name, _rows(after))
    return found


def try_channels(site: Site) -> dict[str, str]:
    """Sends a test message by every channel; what went wrong by channel, empty where it arrived."""
    now = datetime.now(UTC)
    alert = Alert("test", site.name, "warning", "This is a test; nothing is wrong.", "Nothing.", now)
    channels, troubles = _channels(site)
    outcome = {name: next((t for t in troubles if f".{name}:" in t), "") for name in site.alerts.channels}
    for channel in channels:
        try:
            channel.send([Message("new", alert, channel.name)], Letterhead(site.name, site.zone))
        except AlertError as error:
            outcome[channel.name] = str(error)
    return outcome


def conditions(workspace: Workspace, now: datetime) -> list[Alert]:
    """All that the tables tell to be wrong at an instant (UTC)."""
    return [
        *_late_data(workspace, now),
        *_refused_rows(workspace),
        *_forecasts(workspace, now),
        *_accuracy(workspace),
        *_plan(workspace),
    ]


def read_ledger(workspace: Workspace) -> list[Entry]:
    """The ledger of alerts, oldest first."""
    if not workspace.table(Alerts.name).exists():
        return []
    rows = workspace.table(Alerts.name).read().to_pylist()
    return [_entry(row) for row in sorted(rows, key=lambda r: (r["since"], r["kind"], r["subject"]))]


# -- what is worth an alert


def freshness(workspace: Workspace, now: datetime) -> dict[str, tuple[date | None, date]]:
    """For each feed with intervals the newest local day that it has data of to the end, and the day that is due by now."""
    site = workspace.site
    found: dict[str, tuple[date | None, date]] = {}
    newest = _newest_intervals(workspace)
    for name, feed in site.feeds.items():
        if "interval_start" not in workspace.contract(f"raw/{name}").columns:
            continue
        last = newest.get(name)
        whole = (last + LONGEST_INTERVAL).astimezone(site.zone).date() - timedelta(days=1) if last else None
        found[name] = (whole, _due_day(site, now) - timedelta(days=feed.delivery_delay_days))
    return found


def _late_data(workspace: Workspace, now: datetime) -> Iterator[Alert]:
    site = workspace.site
    for name, (newest, due) in freshness(workspace, now).items():
        if newest is not None and newest < due:
            since = _at(site, newest + timedelta(days=1 + site.feeds[name].delivery_delay_days))
            yield Alert(
                "data late",
                name,
                "warning",
                f"The newest data of feed {name} is of {newest}; that of {due} was due by {site.alerts.due_by}.",
                f"Ask who delivers {name}, then: gridlake land {name} FILES. If later is usual: feeds.{name}.delivery_delay_days.",
                since,
            )


def _refused_rows(workspace: Workspace) -> Iterator[Alert]:
    table = workspace.table("quality/conservation")
    if not table.exists():
        return
    with workspace.engine(table.contract.name) as engine:
        rows = engine.sql(
            """
            SELECT feed, delivery_date, sum(quarantined) AS refused, sum(delivered) AS delivered FROM quality.conservation
            GROUP BY feed, delivery_date QUALIFY row_number() OVER (PARTITION BY feed ORDER BY delivery_date DESC) = 1"""
        ).fetchall()
    for feed, day, refused, count in rows:
        if refused >= LEAST_QUARANTINED and refused > workspace.site.alerts.quarantined_share * count:
            yield Alert(
                "rows refused",
                feed,
                "warning",
                f"Of the {count:,} rows of {feed} delivered on {day}, {refused:,} ({refused / count:.0%}) are in quarantine.",
                f"SELECT rule, reason, count(*) FROM quality.quarantine WHERE feed = '{feed}' AND delivery_date = '{day}' GROUP BY ALL",
                _at(workspace.site, day),
            )


def _forecasts(workspace: Workspace, now: datetime) -> Iterator[Alert]:
    site = workspace.site
    for target, series in site.series.items():
        name = f"forecasts/{target}"
        issued = workspace.table(name).partitions_written()
        if not issued:
            continue  # a new site: the first refresh is still to come
        today = site.today()
        issue = datetime.combine(today, time.fromisoformat(series.issue_time), site.zone)
        if max(issued) < today and (site.clock or now >= issue + ISSUE_GRACE):
            yield Alert(
                "no forecast",
                target,
                "error",
                f"Today's forecast of {target} was due at {series.issue_time}; the newest is of {max(issued)}.",
                "gridlake doctor tells what is stale; gridlake refresh makes it. Look for failed runs in the UI.",
                issue.astimezone(UTC),
            )
        newest = workspace.table(name).read(f"date = DATE '{max(issued)}' AND is_fallback")
        if newest.num_rows:
            reasons = sorted({r for r in newest.column("fallback_reason").to_pylist() if r})
            yield Alert(
                "forecast by a fallback",
                target,
                "warning",
                f"The forecast of {target} issued on {max(issued)} is not by the champion: {'; '.join(reasons)}.",
                "Land what is missing; an open forecast is then made again. gridlake doctor tells more.",
                min(newest.column("issued_at").to_pylist()),
            )


def _accuracy(workspace: Workspace) -> Iterator[Alert]:
    if not workspace.has("quality/forecast_accuracy") or not workspace.table("quality/forecast_accuracy").exists():
        return
    issues = workspace.site.alerts.accuracy_issues
    with workspace.engine("quality/forecast_accuracy") as engine:
        rows = engine.sql(
            f"""
            WITH scored AS (
                SELECT target, series_id, issued_at, sum(mae * intervals) FILTER (model NOT IN {BESIDE_MODELS}) AS ours,
                       sum(mae * intervals) FILTER (model = '{NAIVE}') AS naive
                FROM quality.forecast_accuracy WHERE intervals > 0 GROUP BY target, series_id, issued_at
                HAVING ours IS NOT NULL AND naive IS NOT NULL
                QUALIFY dense_rank() OVER (PARTITION BY target ORDER BY issued_at DESC) <= {issues})
            SELECT target, sum(ours) / sum(naive) AS ratio, min(issued_at) AS since, count(DISTINCT issued_at) AS issues
            FROM scored GROUP BY target HAVING sum(ours) > sum(naive) AND count(DISTINCT issued_at) >= {issues}"""
        ).fetchall()
    for target, ratio, since, count in rows:
        yield Alert(
            "forecast worse than last week's values",
            target,
            "warning",
            f"Over the last {count} issues the error of {target} was {ratio:.2f} times the seasonal naive's.",
            f"gridlake backtest {target} on these days; look at inputs and at cleaned values. Meanwhile the naive is the better guess.",
            since,
        )


def _plan(workspace: Workspace) -> Iterator[Alert]:
    fleet = workspace.site.fleet
    if fleet is None:
        return
    planned = workspace.table("dispatch/summary").partitions_written()
    forecast = workspace.table(f"forecasts/{fleet.demand}").partitions_written()
    if planned and forecast and max(planned) < max(forecast):
        yield Alert(
            "no plan",
            "dispatch",
            "error",
            f"There is a forecast of {max(forecast)}, but the newest plan is of {max(planned)}.",
            "gridlake refresh makes it; look for failed runs in the UI.",
            forecast[max(forecast)],
        )
    if not planned:
        return
    day = max(planned)
    missed = workspace.table("dispatch/violations").read(f"date = DATE '{day}'").to_pylist()
    for kind in sorted({row["kind"] for row in missed}):
        rows = [r for r in missed if r["kind"] == kind]
        cost, worst = sum(r["cost_eur"] for r in rows), max(rows, key=lambda r: r["amount"])
        yield Alert(
            "plan with violations",
            kind,
            "error",
            f"The plan issued on {day} has {kind} in {len(rows)} intervals, {cost:,.0f} EUR at the penalty price; worst "
            f"{worst['amount']:.2f} {worst['unit']} at {worst['interval_start'].astimezone(workspace.site.zone):%Y-%m-%d %H:%M}.",
            "FROM dispatch.violations explains each; is a unit missing from the newest fleet file?",
            min(r["issued_at"] for r in rows),
        )


# -- small change


def _newest_intervals(workspace: Workspace) -> dict[str, datetime]:
    if not workspace.table("quality/deliveries").exists():
        return {}
    # An interval far in the future is a fault of its file, and does not make the feed fresh.
    end = workspace.site.last_day()
    with workspace.engine("quality/deliveries") as engine:
        rows = engine.sql(
            "SELECT feed, max(last_interval) FROM quality.deliveries WHERE last_interval::DATE <= $end GROUP BY feed", params={"end": end}
        ).fetchall()
    return dict(rows)


def _due_day(site: Site, now: datetime) -> date:
    """The newest local day whose `due_by` is past."""
    if site.clock:
        return site.clock
    local = now.astimezone(site.zone)
    return local.date() if local.time() >= time.fromisoformat(site.alerts.due_by) else local.date() - timedelta(days=1)


def _at(site: Site, day: date) -> datetime:
    return datetime.combine(day, time.fromisoformat(site.alerts.due_by), site.zone).astimezone(UTC)


def _channels(site: Site) -> tuple[list[Channel], list[str]]:
    """The channels that can be used, and what is wrong with the others."""
    made: list[Channel] = []
    troubles = []
    for name, one in site.alerts.channels.items():
        try:
            made.append(_channel(site, name, one))
        except AlertError as error:
            troubles.append(str(error))
    return made, troubles


def _channel(site: Site, name: str, one: LogChannel | WebhookChannel | EmailChannel) -> Channel:
    if isinstance(one, LogChannel):
        return LogFile(name, site.inside(one.file, f"alerts.channels.{name}.file"))
    if isinstance(one, WebhookChannel):
        return Webhook(name, one.url or secret(one.url_variable, name))
    password = secret(one.password_variable, name) if one.password_variable else ""
    return Email(name, one.host, one.port, one.sender, one.recipients, one.encryption, one.user, password)


def _rows(ledger: list[Entry]) -> pa.Table:
    return Alerts.from_rows(
        [
            {
                "kind": e.alert.kind,
                "subject": e.alert.subject,
                "severity": e.alert.severity,
                "what": e.alert.what,
                "remedy": e.alert.remedy,
                "since": e.alert.since,
                "told_at": e.told_at,
                "told": ",".join(sorted(e.told)),
                "closed_at": e.closed_at,
                "told_over": ",".join(sorted(e.told_over)),
            }
            for e in ledger
        ]
    )


def _entry(row: dict[str, Any]) -> Entry:
    alert = Alert(row["kind"], row["subject"], row["severity"], row["what"], row["remedy"], row["since"])
    told, over = (frozenset(filter(None, row[c].split(","))) for c in ("told", "told_over"))
    return Entry(alert, row["told_at"], told, row["closed_at"], over)
