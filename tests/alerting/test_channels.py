"""Messages go out to a real HTTP listener and a real SMTP listener on loopback; what does not go out is told."""

import json
import socketserver
import threading
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from email import message_from_bytes
from email.policy import default
from http.server import BaseHTTPRequestHandler, HTTPServer
from zoneinfo import ZoneInfo

import pytest

from lakehouse.alerting.alert import Alert, Message
from lakehouse.alerting.channels import Email, Letterhead, LogFile, Webhook, secret
from lakehouse.errors import AlertError

MADRID = Letterhead("village", ZoneInfo("Europe/Madrid"))
ALERT = Alert(
    "data late", "weather", "warning", "The newest data is of 28 March – höchste Zeit.", "Ask.", datetime(2026, 3, 29, 6, tzinfo=UTC)
)
NEW, OVER = Message("new", ALERT, "x"), Message("over", ALERT, "x")


@contextmanager
def serving(server):
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()


def http_listener(answer, received):
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):  # the name that http.server asks for
            received.append((self.headers["Content-Type"], json.loads(self.rfile.read(int(self.headers["Content-Length"])))))
            self.send_response(answer)
            self.end_headers()

        def log_message(self, *_):
            pass

    return HTTPServer(("127.0.0.1", 0), Handler)


def smtp_listener(received, *, refuses=False):
    class Handler(socketserver.StreamRequestHandler):
        def handle(self):
            def say(line):
                self.wfile.write(f"{line}\r\n".encode())

            say("220 here")
            envelope, lines, in_data = [], [], False
            for raw in self.rfile:
                line = raw.rstrip(b"\r\n") if in_data else raw.decode().rstrip("\r\n")
                if in_data:
                    if line == b".":
                        in_data = False
                        received.append((envelope, b"\n".join(lines)))
                        say("250 taken")
                    else:
                        lines.append(line.removeprefix(b".") if line.startswith(b"..") else line)
                elif line.upper().startswith("DATA"):
                    in_data = True
                    say("354 go on")
                elif line.upper().startswith("QUIT"):
                    say("221 bye")
                    return
                elif line.upper().startswith("RCPT") and refuses:
                    say("550 nobody of that name")
                else:
                    envelope.append(line)
                    say("250 fine")

    return socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)


def test_a_webhook_gets_a_text_that_chats_show_and_the_fields_for_programs():
    received = []
    with serving(http_listener(200, received)) as port:
        Webhook("chat", f"http://127.0.0.1:{port}/hook").send([NEW, OVER], MADRID)
    [(kind, body)] = received
    assert kind == "application/json" and body["site"] == "village"
    first, second = body["text"].split("\n\n")
    assert first.splitlines() == [
        "WARNING data late: weather",
        "The newest data is of 28 March – höchste Zeit.",
        "Since 2026-03-29 08:00 CEST.",
        "What to do: Ask.",
    ]
    assert second.startswith("Over: WARNING data late: weather")
    assert [a["occasion"] for a in body["alerts"]] == ["new", "over"]


def test_a_webhook_that_refuses_or_is_not_there_is_told_without_its_address():
    with serving(http_listener(403, [])) as port, pytest.raises(AlertError, match="answered 403 Forbidden") as refused:
        Webhook("chat", f"http://127.0.0.1:{port}/very-secret").send([NEW], MADRID)
    assert "very-secret" not in str(refused.value)
    with pytest.raises(AlertError, match=r"can't be reached.*refused"):
        Webhook("chat", f"http://127.0.0.1:{port}/hook").send([NEW], MADRID)


def test_a_mail_has_one_subject_for_all_and_the_words_of_each():
    received = []
    with serving(smtp_listener(received)) as port:
        Email("duty", "127.0.0.1", port, "gridlake@village.example", ("a@x.example", "b@x.example"), "none").send([NEW, OVER], MADRID)
    [(envelope, text)] = received
    assert [line for line in envelope if line.lower().startswith("rcpt")] == ["rcpt TO:<a@x.example>", "rcpt TO:<b@x.example>"]
    mail = message_from_bytes(text, policy=default)
    assert mail["Subject"] == "[village] data late: weather (and 1 more)"
    assert "höchste Zeit" in mail.get_content() and "What to do: Ask." in mail.get_content()


def test_a_mail_that_is_refused_is_told():
    with serving(smtp_listener([], refuses=True)) as port, pytest.raises(AlertError, match="nobody of that name"):
        Email("duty", "127.0.0.1", port, "g@x.example", ("a@x.example",), "none").send([NEW], MADRID)


def test_starttls_is_not_left_out_where_the_server_has_none():
    received = []
    with serving(smtp_listener(received)) as port, pytest.raises(AlertError, match="duty: mail can't be sent"):
        Email("duty", "127.0.0.1", port, "g@x.example", ("a@x.example",), "starttls").send([NEW], MADRID)
    assert received == []


def test_the_log_has_a_line_of_json_for_each_message(tmp_path):
    log = LogFile("log", tmp_path / "logs" / "alerts.jsonl")
    log.send([NEW], MADRID)
    log.send([OVER], MADRID)
    lines = [json.loads(line) for line in log.path.read_text(encoding="utf-8").splitlines()]
    assert [(line["occasion"], line["subject"], line["since"]) for line in lines] == [
        ("new", "weather", "2026-03-29T06:00:00+00:00"),
        ("over", "weather", "2026-03-29T06:00:00+00:00"),
    ]


def test_what_the_log_says_already_is_not_written_again_but_reminders_are(tmp_path):
    log = LogFile("log", tmp_path / "alerts.jsonl")
    reminder = replace(NEW, occasion="reminder")
    for message in (NEW, NEW, reminder, reminder, OVER, OVER, NEW):
        log.send([message], MADRID)
    occasions = [json.loads(line)["occasion"] for line in log.path.read_text(encoding="utf-8").splitlines()]
    assert occasions == ["new", "reminder", "reminder", "over", "new"]


def test_a_secret_that_is_not_set_is_named_with_its_channel(monkeypatch):
    monkeypatch.delenv("VILLAGE_HOOK", raising=False)
    with pytest.raises(AlertError, match=r"alerts\.channels\.chat: the environment variable VILLAGE_HOOK is not set"):
        secret("VILLAGE_HOOK", "chat")
