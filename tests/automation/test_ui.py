"""`gridlake ui` keeps its webserver and daemon alive, and takes them with it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from jobs import ui

ROOT = Path(ui.__file__).resolve().parents[1]
SLEEPER = [sys.executable, "-c", "import time; time.sleep(600)"]


def until(true, seconds: float = 20.0) -> bool:
    """Waits until a condition holds."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if true():
            return True
        time.sleep(0.05)
    return bool(true())


def lives(pid: int) -> bool:
    """Whether a process runs (a zombie doesn't)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_child_that_is_killed_is_started_again_and_a_stop_ends_it():
    told: list[str] = []
    child, stopped = ui.Child("daemon", SLEEPER, told.append), threading.Event()
    ended: list[int] = []
    keeper = threading.Thread(target=lambda: ended.append(ui.keep_running([child], stopped)))
    keeper.start()
    assert until(lambda: child.process is not None)
    first = child.process.pid
    os.kill(first, signal.SIGKILL)
    assert until(lambda: child.process is not None and child.process.pid != first)
    stopped.set()
    keeper.join(20)
    assert ended == [0] and child.process.poll() == -signal.SIGTERM
    assert told == ["The daemon ended with code -9; it is started again."]


def test_a_child_that_never_starts_well_is_given_up_and_told():
    told: list[str] = []
    child = ui.Child("webserver", [sys.executable, "-c", "raise SystemExit(3)"], told.append)
    now, kept = 0.0, True
    while kept:
        kept = child.look(now)
        if child.process is not None:
            child.process.wait()
        now += ui.STARTED_S - 1
        assert now < 1000
    assert told[-1].startswith("The webserver ended 5 times while starting, with code 3")


def test_a_taken_port_is_told_with_what_to_do():
    with socket.socket() as door:
        door.bind(("127.0.0.1", 0))
        door.listen()
        port = door.getsockname()[1]
        done = subprocess.run(
            [sys.executable, "-m", "jobs.ui", "--port", str(port)], cwd=ROOT, capture_output=True, text=True, check=False, timeout=60
        )
    assert done.returncode == 1 and f"Port {port} of 127.0.0.1 is taken" in done.stderr and "--port" in done.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="Linux ends children with their parent; other systems leave them")
def test_children_end_with_a_parent_that_is_killed():
    script = (
        f"from jobs import ui; import threading; child = ui.Child('daemon', {SLEEPER!r}, print); child.look(0)\n"
        "print(child.process.pid, flush=True); threading.Event().wait()"
    )
    parent = subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    assert lives(pid)
    parent.kill()
    parent.wait()
    assert until(lambda: not lives(pid))
