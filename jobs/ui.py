"""The Dagster UI over a site: webserver and daemon on loopback, as children of one process. `gridlake ui` becomes this.

A child that dies is started again; when this process ends, however it ends, so do they. Each starts its own server of the code location and
watches it, so nothing that is killed alone stops the automation.
"""

from __future__ import annotations

import argparse
import ctypes
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

LOOPBACK = "127.0.0.1"
WORKSPACE = Path(__file__).resolve().parents[1] / "workspace.yaml"
# A child that lived this long, in seconds, had started well.
STARTED_S = 30.0
LONGEST_PAUSE_S = 30.0
# Deaths in a row while starting, after which something is wrong that another start does not put right.
MOST_FAILED_STARTS = 5
# Dagster's daemon ends what it is at first.
PATIENCE_S = 25.0


class Child:
    """A process that is to run until `stop`.

    Args:
        name: for messages.
        command: its command line.
        tell: takes a line for who watches.
    """

    def __init__(self, name: str, command: list[str], tell: Callable[[str], None]) -> None:
        self.name, self.command, self.tell = name, command, tell
        self.failed_starts = 0
        self.due = 0.0
        self.begun = 0.0
        self.process: subprocess.Popen[bytes] | None = None

    def look(self, now: float) -> bool:
        """Starts it if it isn't running and its pause is over.

        Args:
            now: seconds of a steady clock.

        Returns:
            False when it can't be kept running.
        """
        if self.process is not None:
            code = self.process.poll()
            if code is None:
                return True
            self.process = None
            self.failed_starts = 0 if now - self.begun >= STARTED_S else self.failed_starts + 1
            if self.failed_starts >= MOST_FAILED_STARTS:
                self.tell(
                    f"The {self.name} ended {self.failed_starts} times while starting, with code {code}: its last lines above say why."
                )
                return False
            pause = min(2.0**self.failed_starts - 1, LONGEST_PAUSE_S)
            self.due = now + pause
            self.tell(f"The {self.name} ended with code {code}; it is started again.")
        if now >= self.due:
            self.begun = now
            self.process = subprocess.Popen(self.command, preexec_fn=_end_with_parent if sys.platform == "linux" else None)
        return True

    def stop(self) -> None:
        """Asks it to end."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)

    def wait(self, until: float) -> None:
        """Waits for its end until that moment of the steady clock, then kills it."""
        if self.process is None:
            return
        try:
            self.process.wait(max(0.1, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def _end_with_parent() -> None:
    """Has the kernel end this process when its parent dies (Linux, prctl(2) PR_SET_PDEATHSIG)."""
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)


def is_taken(port: int) -> bool:
    """Whether something listens on that port of loopback."""
    with socket.socket() as door:
        door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            door.bind((LOOPBACK, port))
        except OSError:
            return True
    return False


def keep_running(children: list[Child], stopped: threading.Event) -> int:
    """Keeps the children running until told to stop.

    Returns:
        0 when told to stop, 1 when a child can't be kept running.
    """
    code = 0
    while not stopped.is_set():
        if not all([child.look(time.monotonic()) for child in children]):
            code = 1
            break
        stopped.wait(0.5)
    for child in children:
        child.stop()
    until = time.monotonic() + PATIENCE_S
    for child in children:
        child.wait(until)
    return code


def main() -> int:
    """Runs until interrupted."""
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument("--port", type=int, default=3000)
    port = ask.parse_args().port
    if is_taken(port):
        print(
            f"Port {port} of {LOOPBACK} is taken, perhaps by a `gridlake ui` that runs already. Stop that, or choose another with --port.",
            file=sys.stderr,
        )
        return 1
    stopped = threading.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, lambda *_: stopped.set())

    def tell(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    dagster = [sys.executable, "-m"]
    quiet = ["--code-server-log-level", "warning"]
    webserver = [*dagster, "dagster_webserver", "-w", str(WORKSPACE), "-h", LOOPBACK, "-p", str(port), *quiet]
    daemon = [*dagster, "dagster._daemon", "run", "-w", str(WORKSPACE), *quiet]
    return keep_running([Child("webserver", webserver, tell), Child("daemon", daemon, tell)], stopped)


if __name__ == "__main__":
    raise SystemExit(main())
