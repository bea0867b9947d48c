"""An alert, and which alerts are news: each is told once when it begins, again after a while, and once when it is over."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Literal

Severity = Literal["warning", "error"]
Occasion = Literal["new", "reminder", "over"]


@dataclass(frozen=True)
class Alert:
    """Something that a person should know.

    Args:
        kind: what sort of thing, such as "data late"; with `subject` it says which alert this is.
        subject: what it is about: a feed, a target, a step.
        severity: error where today's forecast or plan is wrong or missing, else warning.
        what: what happened, in a sentence with its figures.
        remedy: what to do.
        since: UTC instant at which it began.
    """

    kind: str
    subject: str
    severity: Severity
    what: str
    remedy: str
    since: datetime

    @property
    def key(self) -> str:
        """Two alerts with the same key are the same alert."""
        return f"{self.kind}: {self.subject}"


@dataclass(frozen=True)
class Entry:
    """An alert in the ledger.

    Args:
        alert: as it was last seen.
        told_at: when the channels were last told that it is there, UTC; None before.
        told: the channels that know it.
        closed_at: when it was seen to be over, UTC; None while it is open.
        told_over: the channels that know that it is over.
    """

    alert: Alert
    told_at: datetime | None = None
    told: frozenset[str] = frozenset()
    closed_at: datetime | None = None
    told_over: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Message:
    """One alert on one occasion, for one channel."""

    occasion: Occasion
    alert: Alert
    channel: str


@dataclass
class News:
    """What a look found: the ledger as it now is, and what is to be sent."""

    ledger: list[Entry]
    messages: list[Message] = field(default_factory=list)


def news(ledger: Sequence[Entry], seen: Iterable[Alert], channels: Iterable[str], now: datetime, remind_after: timedelta) -> News:
    """Compares what is seen with what was known.

    An alert that a channel has not been told, because the channel is new or did not answer, is tried again at every look. One
    that was over before a channel knew of it is not told there at all.

    Args:
        ledger: what is known.
        seen: what is the case now.
        channels: names of the channels.
        now: UTC instant of the look.
        remind_after: an alert that is still open so long after it was told is told again.
    """
    by_channel = frozenset(channels)
    open_now = {alert.key: alert for alert in seen}
    result = News([])
    for entry in ledger:
        if entry.closed_at is None and entry.alert.key in open_now:
            alert = replace(open_now.pop(entry.alert.key), since=entry.alert.since)
            due = entry.told_at is not None and now - entry.told_at >= remind_after
            entry = replace(entry, alert=alert, told=frozenset() if due else entry.told)
            occasion: Occasion = "reminder" if due else "new"
            result.messages += [Message(occasion, alert, c) for c in sorted(by_channel - entry.told)]
        elif entry.closed_at is None:
            entry = replace(entry, closed_at=now, told_over=by_channel - entry.told)
        if entry.closed_at is not None:
            result.messages += [Message("over", entry.alert, c) for c in sorted((by_channel & entry.told) - entry.told_over)]
        result.ledger.append(entry)
    for alert in open_now.values():
        entry = Entry(alert)
        for closed in [e for e in result.ledger if (e.alert.key, e.alert.since) == (alert.key, alert.since)]:
            # It was not over after all: who still believes it open need not be told again.
            entry = replace(closed, alert=alert, told=closed.told - closed.told_over, closed_at=None, told_over=frozenset())
            result.ledger.remove(closed)
            result.messages = [m for m in result.messages if m.alert.key != alert.key]
        result.ledger.append(entry)
        result.messages += [Message("new", alert, c) for c in sorted(by_channel - entry.told)]
    return result


def delivered(ledger: Sequence[Entry], sent: Mapping[Message, bool], now: datetime) -> list[Entry]:
    """The ledger after sending: what went out is known to its channel."""
    result = []
    for entry in ledger:
        for message, arrived in sent.items():
            if not arrived or message.alert.key != entry.alert.key or message.alert.since != entry.alert.since:
                continue
            if message.occasion == "over" and entry.closed_at is not None:
                entry = replace(entry, told_over=entry.told_over | {message.channel})
            elif message.occasion != "over" and entry.closed_at is None:
                entry = replace(entry, told=entry.told | {message.channel}, told_at=now)
        result.append(entry)
    return result
