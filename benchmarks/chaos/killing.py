"""Processes that are kept running, and killed without a word: SIGKILL, at random.

Only what was started here, and what these processes started, is ever killed.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Kept:
    """A command that is started again whenever it has ended.

    Args:
        name: for the log.
        command, environment, folder: as for a process.
    """

    name: str
    command: list[str]
    environment: dict[str, str]
    folder: Path
    process: subprocess.Popen[bytes] | None = None
    starts: int = 0

    def keep(self) -> None:
        """Starts it if it does not run; what its last life left behind is killed first, as a service manager would."""
        if self.process is not None and self.process.poll() is None:
            return
        kill_all(self.family())
        self.starts += 1
        with (self.folder / f"{self.name}.log").open("ab") as log:
            self.process = subprocess.Popen(
                self.command, env=self.environment, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True
            )

    def family(self) -> list[int]:
        """The processes of its session, orphans too."""
        return [] if self.process is None else [pid for pid in _processes() if _session(pid) == self.process.pid]

    def stop(self) -> None:
        """Asks it to end, then ends it with all that it started."""
        if self.process is None:
            return
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(30)
        kill_all(self.family())
        self.process.wait()


@dataclass
class Killer:
    """Who kills, and what has been killed."""

    chance: random.Random
    ui: Kept
    streams: list[Kept]
    killed: Counter[str] = field(default_factory=Counter)

    def strike(self) -> str:
        """Kills something that runs; returns what."""
        roles = list(self._roles())
        kinds = sorted({role for role, _ in roles})
        if not kinds:
            return ""
        # a run at work is the most interesting victim
        role = self.chance.choices(kinds, [3 if k == "run" else 1 for k in kinds])[0]
        pids = self.chance.choice([p for r, p in roles if r == role])
        kill_all(pids)
        self.killed[role] += 1
        return role

    def _roles(self) -> Iterator[tuple[str, list[int]]]:
        for stream in self.streams:
            if stream.process is not None and stream.process.poll() is None:
                yield stream.name, [stream.process.pid]
        family = self.ui.family()
        if self.ui.process is None or not family:
            return
        yield "everything of gridlake ui", family
        for pid in family:
            role = role_of(pid)
            if role:
                yield role, [pid]


def role_of(pid: int) -> str:
    """What a process of `gridlake ui` is for."""
    command = _command(pid)
    if "dagster._daemon" in command or "dagster-daemon" in command:
        return "daemon"
    if "dagster_webserver" in command:
        return "webserver"
    if "spawn_main" in command and "api grpc" in _command(_parent(pid)):
        return "run"
    if "api grpc" in command or "code-server" in command or "code_server" in command:
        return "code server"
    if "dagster dev" in command or command.endswith(" ui") or " ui " in command:
        return "parent of gridlake ui"
    return ""


def kill_all(pids: list[int]) -> None:
    """SIGKILL for each."""
    for pid in pids:
        with suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)


def wait_for_end(pids: list[int], seconds: float) -> bool:
    """Whether all have ended in time."""
    end = time.monotonic() + seconds
    while any(Path(f"/proc/{p}").exists() for p in pids):
        if time.monotonic() > end:
            return False
        time.sleep(0.1)
    return True


def _processes() -> list[int]:
    return [int(e.name) for e in os.scandir("/proc") if e.name.isdigit()]


def _session(pid: int) -> int:
    try:
        return os.getsid(pid)
    except (ProcessLookupError, PermissionError):
        return -1


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return ""


def _parent(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])
    except (OSError, IndexError, ValueError):
        return -1
