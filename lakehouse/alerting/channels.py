"""The channels: a webhook that Slack and its like understand, e-mail by SMTP, and a log file.

Secrets come from environment variables that the site file names; they are in no file of the project and in no message.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from email.message import EmailMessage
from pathlib import Path
from typing import Any, Protocol
from zoneinfo import ZoneInfo

from lakehouse.alerting.alert import Alert, Message
from lakehouse.errors import AlertError

TIMEOUT_S = 10.0
LOOKED_AT_BYTES = 256 << 10
OPENING = {"new": "", "reminder": "Still: ", "over": "Over: "}


class Channel(Protocol):
    """Something that messages go out by."""

    @property
    def name(self) -> str:
        """Its name in the site file."""

    def send(self, messages: Sequence[Message], letterhead: Letterhead) -> None:
        """Sends all messages, or raises `AlertError`."""


@dataclass(frozen=True)
class Letterhead:
    """Who writes: the site's name, and the zone in which times are told."""

    site: str
    zone: ZoneInfo

    def subject(self, messages: Sequence[Message]) -> str:
        """One line for several messages."""
        first = messages[0]
        more = f" (and {len(messages) - 1} more)" if len(messages) > 1 else ""
        return f"[{self.site}] {OPENING[first.occasion]}{first.alert.key}{more}"

    def text(self, message: Message) -> str:
        """A message as people read it: what, since when, what to do."""
        alert = message.alert
        lines = [f"{OPENING[message.occasion]}{alert.severity.upper()} {alert.key}", alert.what, f"Since {self.clock(alert.since)}."]
        return "\n".join(lines if message.occasion == "over" else [*lines, f"What to do: {alert.remedy}"])

    def clock(self, moment: datetime) -> str:
        """A moment on the site's clock."""
        return f"{moment.astimezone(self.zone):%Y-%m-%d %H:%M %Z}"


@dataclass(frozen=True)
class LogFile:
    """Appends one line of JSON for each message to a file.

    What stands there already is not written again: who was killed before the ledger knew of it sends it a second time.
    """

    name: str
    path: Path

    def send(self, messages: Sequence[Message], letterhead: Letterhead) -> None:
        """See `Channel`."""
        told = [{"site": letterhead.site, "occasion": m.occasion} | record(m.alert) for m in messages]
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            newest = self._newest()
            news = [one for one in told if one["occasion"] == "reminder" or newest.get((one["kind"], one["subject"])) != _identity(one)]
            lines = [json.dumps(one, ensure_ascii=False) + "\n" for one in news]
            with self.path.open("a", encoding="utf-8") as log:
                log.write("".join(lines))
        except OSError as error:
            raise AlertError(f"{self.name}: can't write {self.path}: {error.strerror}.", "Check the path and its permissions.") from None

    def _newest(self) -> dict[tuple[str, str], tuple[str, str]]:
        """What the end of the file says last of each alert."""
        if not self.path.is_file():
            return {}
        with self.path.open("rb") as log:
            log.seek(max(0, self.path.stat().st_size - LOOKED_AT_BYTES))
            lines = log.read().decode("utf-8", "replace").splitlines()
        found = {}
        for line in lines:
            with contextlib.suppress(ValueError, KeyError, TypeError):  # the first may be cut, and others may write there too
                one = json.loads(line)
                found[one["kind"], one["subject"]] = _identity(one)
        return found


def _identity(told: Mapping[str, Any]) -> tuple[str, str]:
    return str(told["occasion"]), str(told["since"])


@dataclass(frozen=True)
class Webhook:
    """Posts JSON with a `text` (which Slack, Mattermost and Teams' workflows show) and the alerts' fields.

    Args:
        name: in the site file.
        url: where to; may hold a secret, so it is never told.
    """

    name: str
    url: str

    def send(self, messages: Sequence[Message], letterhead: Letterhead) -> None:
        """See `Channel`."""
        import urllib.error
        import urllib.request

        text = "\n\n".join(letterhead.text(m) for m in messages)
        body = {"text": text, "site": letterhead.site, "alerts": [{"occasion": m.occasion} | record(m.alert) for m in messages]}
        post = urllib.request.Request(self.url, json.dumps(body).encode(), {"Content-Type": "application/json"}, method="POST")
        try:
            with urllib.request.urlopen(post, timeout=TIMEOUT_S):
                pass
        except urllib.error.HTTPError as error:
            raise AlertError(f"{self.name}: the webhook answered {error.code} {error.reason}.", "Is its address still valid?") from None
        except (OSError, ValueError) as error:
            cause = getattr(error, "reason", error)
            raise AlertError(f"{self.name}: the webhook can't be reached: {cause}.", "Is the address right, and the network up?") from None


@dataclass(frozen=True)
class Email:
    """Sends one mail for all messages of a look.

    Args:
        name: in the site file.
        host, port: the SMTP server.
        sender, recipients: addresses.
        encryption: `starttls`, `tls` or `none`.
        user, password: for the login; empty without one.
    """

    name: str
    host: str
    port: int
    sender: str
    recipients: tuple[str, ...]
    encryption: str = "starttls"
    user: str = ""
    password: str = ""

    def send(self, messages: Sequence[Message], letterhead: Letterhead) -> None:
        """See `Channel`."""
        import smtplib
        import ssl

        mail = EmailMessage()
        mail["Subject"] = letterhead.subject(messages)
        mail["From"], mail["To"] = self.sender, ", ".join(self.recipients)
        mail.set_content("\n\n".join(letterhead.text(m) for m in messages) + "\n")
        try:
            if self.encryption == "tls":
                server: smtplib.SMTP = smtplib.SMTP_SSL(self.host, self.port, timeout=TIMEOUT_S, context=ssl.create_default_context())
            else:
                server = smtplib.SMTP(self.host, self.port, timeout=TIMEOUT_S)
            with server:
                if self.encryption == "starttls":
                    server.starttls(context=ssl.create_default_context())
                if self.user:
                    server.login(self.user, self.password)
                server.send_message(mail)
        except (OSError, smtplib.SMTPException) as error:
            raise AlertError(
                f"{self.name}: mail can't be sent by {self.host}:{self.port}: {error}.", "Check host, port, encryption and login."
            ) from None


def secret(variable: str, channel: str) -> str:
    """The value of an environment variable that a site file names.

    Raises:
        AlertError: it is not set.
    """
    value = os.environ.get(variable, "")
    if not value:
        raise AlertError(
            f"alerts.channels.{channel}: the environment variable {variable} is not set.",
            "Set it where the daemon (gridlake ui) and the command run.",
        )
    return value


def record(alert: Alert) -> dict[str, str]:
    """An alert's fields as JSON."""
    fields = {"kind": alert.kind, "subject": alert.subject, "severity": alert.severity, "what": alert.what, "remedy": alert.remedy}
    return fields | {"since": alert.since.isoformat()}


def names(channels: Iterable[Channel]) -> list[str]:
    """Names of channels."""
    return [c.name for c in channels]
