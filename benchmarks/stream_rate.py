"""How many messages a second `gridlake stream` lands, and how long a message takes from its sender to its file in landing.

Run: python -m benchmarks.stream_rate [--brokers kafka,mqtt] [--backlog 200000] [--rate 500] [--for-seconds 25]

rate  a backlog lies at the broker; the time from the stream's first file to its last gives messages a second, its processor time the cost
      of one. MQTT's backlog is a tenth, sent while the stream runs, since a broker queues little for an absent client.
lag   messages are sent at a steady `--rate`; each one's lag is from handing it to the client library to the moment at which its file
      lies in landing, told for files closed after 1 and after 10 seconds.

Each file holds at most 20,000 messages. Brokers: Tansu, in memory (Kafka; extras streams and standins) and Debian's mosquitto, on this
machine, which also sends: so the rates are those of all three together.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from benchmarks.chaos.post import Broker, Sender, environment, start_broker, stream_command
from lakehouse.storage.landing import Landing

SITE = """\
name: streams
country: ES
time_zone: Europe/Madrid
location: {latitude_deg: 40.4, longitude_deg: -3.7}
first_day: 2026-01-01
feeds:
  live_kafka: {format: canonical_readings}
  live_mqtt: {format: canonical_readings}
"""
MESSAGES_OF_A_FILE = 20_000


def payload(number: int) -> bytes:
    """A reading whose energy is its number."""
    told = {"meter_id": f"M{number % 5000:06}", "register": "import", "interval_start": "2026-03-05T10:00:00Z"}
    return json.dumps(told | {"interval_minutes": 60, "energy_kwh": number, "quality": "A"}).encode()


class Watch:
    """Looks at a landing folder, and remembers when each message appeared."""

    def __init__(self, landing: Landing, feed: str) -> None:
        self.landing, self.feed = landing, feed
        self.files: dict[Path, tuple[float, int]] = {}
        self.seen: dict[int, float] = {}

    def look(self) -> int:
        """How many messages have landed."""
        now = time.time()
        for day in self.landing.deliveries(self.feed):
            for arrival in self.landing.arrivals(self.feed, day):
                if arrival.path not in self.files:
                    lines = arrival.path.read_text(encoding="utf-8").splitlines()[1:]
                    self.files[arrival.path] = (now, len(lines))
                    for line in lines:
                        self.seen.setdefault(int(line.split(",")[4]), now)
        return len(self.seen)


def streaming(broker: Broker, home: Path, seconds: float) -> subprocess.Popen[bytes]:
    command = stream_command(broker, home)
    command = [*command[: command.index("--messages")], "--messages", str(MESSAGES_OF_A_FILE), "--seconds", str(seconds)]
    return subprocess.Popen(command, env=environment(home), stdout=subprocess.DEVNULL)


def stopped(running: subprocess.Popen[bytes]) -> float:
    """Stops a stream; returns its processor time."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    running.terminate()
    running.wait(30)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def rate(broker: Broker, sender: Sender, home: Path, count: int) -> None:
    """Messages a second of a backlog."""
    watch = Watch(Landing(home / "landing"), broker.feed)
    if broker.kind == "kafka":
        for n in range(0, count, 20_000):
            sender.send([payload(m) for m in range(n, min(n + 20_000, count))])
    running = streaming(broker, home, 5)
    if broker.kind == "mqtt":
        time.sleep(3)  # its session exists from now on
        threading.Thread(target=lambda: sender.send([payload(m) for m in range(count)]), daemon=True).start()
    begun = time.time()
    first = 0.0
    while (there := watch.look()) < count and time.time() - begun < 300:
        if there and not first:
            first = time.time()
        time.sleep(0.1)
    ended = max(at for at, _ in watch.files.values())
    of_first = min(watch.files.values())[1]
    cpu = stopped(running)
    assert len(watch.seen) == count, f"{len(watch.seen):,} of {count:,} messages landed"
    print(
        f"{broker.kind:<6} {count:,} messages: {(count - of_first) / (ended - min(watch.files.values())[0]):,.0f} a second in "
        f"{len(watch.files)} files; processor time of the stream {cpu:.1f} s with its start, {1e6 * cpu / count:.0f} µs a message",
        flush=True,
    )


def lag(broker: Broker, sender: Sender, home: Path, per_second: int, for_seconds: float, seconds: float, base: int) -> None:
    """From sender to landing at a steady rate."""
    watch = Watch(Landing(home / "landing"), broker.feed)
    watch.look()
    watch.seen.clear()
    running = streaming(broker, home, seconds)
    time.sleep(4)
    sent: dict[int, float] = {}
    begun = time.time()
    number = base

    def send() -> None:
        nonlocal number
        while time.time() - begun < for_seconds:
            due = base + int((time.time() - begun) * per_second)
            chunk = list(range(number, due))
            now = time.time()
            sent.update(dict.fromkeys(chunk, now))
            sender.send([payload(n) for n in chunk])
            number = due
            time.sleep(0.02)

    thread = threading.Thread(target=send)
    thread.start()
    while thread.is_alive() or (len(watch.seen) < len(sent) and time.time() - begun < for_seconds + 60):
        watch.look()
        time.sleep(0.02)
    stopped(running)
    lags = sorted(watch.seen[n] - at for n, at in sent.items() if n in watch.seen)
    assert len(lags) == len(sent), f"{len(lags):,} of {len(sent):,} messages landed"
    p95 = lags[int(0.95 * len(lags))]
    print(
        f"{broker.kind:<6} {per_second:,} a second for {for_seconds:.0f} s, files closed after {seconds:g} s: lag p50 "
        f"{statistics.median(lags):.2f} s, p95 {p95:.2f} s, most {lags[-1]:.2f} s",
        flush=True,
    )


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--brokers", default="kafka,mqtt")
    options.add_argument("--backlog", type=int, default=200_000)
    options.add_argument("--rate", type=int, default=500)
    options.add_argument("--for-seconds", type=float, default=25)
    chosen = options.parse_args()
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    for kind in chosen.brokers.split(","):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            home = folder / "site"
            home.mkdir()
            (home / "gridlake.yaml").write_text(SITE, encoding="utf-8")
            broker = start_broker(kind, folder)
            if isinstance(broker, str):
                print(broker)
                continue
            try:
                sender = Sender(broker)
                count = chosen.backlog if kind == "kafka" else chosen.backlog // 10
                rate(broker, sender, home, count)
                base = count
                for seconds in (1.0, 10.0):
                    lag(broker, sender, home, chosen.rate, chosen.for_seconds, seconds, base)
                    base += int(chosen.rate * (chosen.for_seconds + 1))
            finally:
                broker.process.kill()
                broker.process.wait()


if __name__ == "__main__":
    sys.exit(main())
