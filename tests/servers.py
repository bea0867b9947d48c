"""What tests and benchmarks that start a server share: a free port, and `gridlake ui` over a site."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]


def free_port() -> int:
    """A port of the loopback that nobody listened on a moment ago."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@contextlib.contextmanager
def running_ui(home: Path, log: Path, *, longest_wait_s: float) -> Iterator[int]:
    """`gridlake ui` over a site, until it answers; gives its port, and ends it with all its processes."""
    port = free_port()
    command = [sys.executable, "-m", "lakehouse.cli", "--home", str(home), "ui", "--port", str(port)]
    with log.open("w") as opened:
        ui = subprocess.Popen(command, cwd=PROJECT, stdout=opened, stderr=subprocess.STDOUT, start_new_session=True)
        try:
            end = time.monotonic() + longest_wait_s
            while not _answers(port):
                if time.monotonic() > end or ui.poll() is not None:
                    raise TimeoutError(f"The webserver did not answer within {longest_wait_s:.0f} s:\n{log.read_text()[-4000:]}")
                time.sleep(0.5)
            yield port
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(ui.pid, signal.SIGTERM)
            try:
                ui.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(ui.pid, signal.SIGKILL)


def _answers(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/server_info", timeout=2) as answer:
            return "dagster_version" in json.load(answer)
    except OSError:
        return False
