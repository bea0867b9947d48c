"""Files and messages keep arriving at a sample site while its processes are killed at random; in the end the laws are judged.

Run: python -m benchmarks.chaos [--minutes 60] [--seed 1] [--meters 12] [--days 45] [--keep FOLDER]

`gridlake ui` (webserver, daemon, code server, run workers) and a `gridlake stream` for each broker that is installed (Kafka: the extras
streams and standins; MQTT: Debian's mosquitto) are started and, when killed, started again. Every 5 to 25 seconds one of them, or all
of them, gets SIGKILL. Meanwhile the last mornings of the sample arrive, some files late, corrected, twice, broken, or by a
`gridlake land` that is killed. In the last fifth nothing is killed any more; then the site has `--settle` minutes to come to rest by
itself. Exit code 1 if a law is broken.
"""

from __future__ import annotations

import argparse
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

from benchmarks.chaos import post as posting
from benchmarks.chaos.killing import Kept, Killer, kill_all
from benchmarks.chaos.laws import judge
from benchmarks.chaos.post import Broker, Post, Sender
from lakehouse.errors import GridlakeError
from tests.servers import free_port

QUIET_SHARE = 0.2
FIRST_LOOK_SECONDS = 180
MESSAGES_AT_ONCE = 40
UNFINISHED = ("QUEUED", "NOT_STARTED", "STARTING", "STARTED", "CANCELING")


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--minutes", type=float, default=60)
    options.add_argument("--settle", type=float, default=10, help="most minutes until all has come to rest")
    options.add_argument("--seed", type=int, default=1)
    options.add_argument("--days", type=int, default=45, help="history of the sample")
    options.add_argument("--meters", type=int, default=12)
    options.add_argument("--held-back", type=int, default=8, help="mornings that arrive during the run")
    options.add_argument("--models", default="like_day", help="models of the sample; 'as shipped' for its own")
    options.add_argument("--brokers", default="kafka,mqtt", help="those to use, if installed")
    options.add_argument("--pause", type=float, nargs=2, default=(5.0, 25.0), help="shortest and longest time between two kills, seconds")
    options.add_argument("--keep", type=Path, help="folder of the site and the logs, kept")
    chosen = options.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = (chosen.keep or Path(temporary)).absolute()
        folder.mkdir(parents=True, exist_ok=True)
        return run(folder, chosen)


def run(folder: Path, chosen: argparse.Namespace) -> int:
    """Everything; returns the exit code."""
    home = folder / "site"
    letters = posting.make_site(
        home, days=chosen.days, meters=chosen.meters, seed=chosen.seed, held_back=chosen.held_back, models=chosen.models
    )
    environment = posting.environment(home)
    cli = [sys.executable, "-m", "lakehouse.cli", "--home", str(home)]
    print(f"a sample of {chosen.meters} meters and {chosen.days} days; {len(letters)} files are still to come", flush=True)
    subprocess.run([*cli, "refresh"], env=environment, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    brokers = [b for b in (posting.start_broker(kind, folder) for kind in chosen.brokers.split(",") if kind) if _is_there(b)]
    ui = Kept("ui", [*cli, "ui", "--port", str(free_port())], environment, folder)
    streams = [Kept(f"stream {b.kind}", posting.stream_command(b, home), environment, folder) for b in brokers]
    try:
        post = Post(home, posting_order(letters, chosen, home))
        chaos(post, brokers, ui, streams, chosen)
        at_rest = settle(home, [ui, *streams], chosen.settle * 60)
        for stream in streams:
            stream.stop()
        print(f"  {'PASS' if at_rest else 'FAIL'}  the site came to rest by itself", flush=True)
        broken = 0 if at_rest else 1
        ui.stop()
        if not at_rest:
            subprocess.run([*cli, "refresh"], env=environment, check=False, stdout=subprocess.DEVNULL)
        for verdict in judge(post, brokers, folder):
            broken += not verdict.holds
            print(f"  {'PASS' if verdict.holds else 'FAIL'}  {verdict.law}: {verdict.told}", flush=True)
        print("every law holds" if not broken else f"{broken} laws are broken")
        return 1 if broken else 0
    finally:
        for kept in [ui, *streams]:
            kept.stop()
        kill_all([b.process.pid for b in brokers])


def posting_order(letters: list[posting.Letter], chosen: argparse.Namespace, home: Path) -> list[posting.Letter]:
    """The letters as they will come; see `post.addressed`."""
    from lakehouse.site import load_site

    return posting.addressed(letters, random.Random(chosen.seed), load_site(home).today())


def chaos(post: Post, brokers: list[Broker], ui: Kept, streams: list[Kept], chosen: argparse.Namespace) -> None:
    """Arrivals and kills, for as long as was asked for."""
    from lakehouse.site import load_site

    chance = random.Random(chosen.seed + 1)
    today = load_site(post.home).today()
    first = today - timedelta(days=chosen.held_back)
    senders = [Sender(b) for b in brokers]
    waiting = [list(posting.messages(post.home, b.feed, chance, first, today - timedelta(days=1))) for b in brokers]
    counts = [len(w) for w in waiting]
    for kept in [ui, *streams]:
        kept.keep()
    # the first look tells that all feeds are late: that is the state in which the site begins
    if not _wait(lambda: (post.home / "alerts.jsonl").is_file(), FIRST_LOOK_SECONDS):
        print("the first look at the site never came", flush=True)
    killer = Killer(chance, ui, streams)
    seconds = chosen.minutes * 60
    begun = time.monotonic()
    next_kill = begun + chance.uniform(*chosen.pause)
    letters = list(post.letters)
    while (passed := (time.monotonic() - begun) / seconds) < 1 or letters or any(waiting):
        due = passed / (1 - QUIET_SHARE / 2)
        while letters and letters[0].at <= due:
            posting.deliver(post, letters.pop(0), chance)
        for sender, left, count in zip(senders, waiting, counts, strict=True):
            wanted = min(int(count * due) - (count - len(left)), MESSAGES_AT_ONCE) if due < 1 else MESSAGES_AT_ONCE
            if wanted > 0 and left:
                sender.send([left.pop(0) for _ in range(min(wanted, len(left)))])
        if passed < 1 - QUIET_SHARE and time.monotonic() >= next_kill:
            killer.strike()
            next_kill = time.monotonic() + chance.uniform(*chosen.pause)
        for kept in [ui, *streams]:
            kept.keep()
        time.sleep(0.5)
    posting.take_back(post)
    print(f"killed: {', '.join(f'{n} x {role}' for role, n in sorted(killer.killed.items())) or 'nothing'}", flush=True)
    print(f"started: {', '.join(f'{kept.name} {kept.starts} times' for kept in [ui, *streams])}", flush=True)


def settle(home: Path, kept: list[Kept], seconds: float) -> bool:
    """Whether nothing is stale any more, no run is unfinished, and the alerts have been looked at since."""
    import dagster as dg

    from lakehouse.flow.staleness import next_steps
    from lakehouse.flow.workspace import Workspace

    begun = time.monotonic()
    told = ""

    def is_quiet() -> bool:
        nonlocal told
        for one in kept:
            one.keep()
        try:
            steps = next_steps(Workspace.open(home))
        except (GridlakeError, OSError) as error:
            told = f"can't look: {error}"
            return False
        with dg.DagsterInstance.from_config(str(home / ".dagster")) as instance:
            runs = instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus(s) for s in UNFINISHED]))
        told = f"stale: {'; '.join(map(str, steps)) or 'nothing'}. Unfinished runs: {len(runs)} {sorted({r.status.value for r in runs})}"
        return not steps and not runs

    quiet = _wait(lambda: is_quiet() and not time.sleep(3) and is_quiet(), seconds)
    print(f"settled after {time.monotonic() - begun:.0f} s" if quiet else f"not at rest after {seconds:.0f} s: {told}", flush=True)
    _wait(lambda: False, 75)  # the sensor of alerts looks once a minute
    return quiet


def _is_there(broker: Broker | str) -> bool:
    if isinstance(broker, str):
        print(broker)
        return False
    return True


def _wait(condition: Callable[[], bool], seconds: float) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(1)
    return False


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    sys.exit(main())
