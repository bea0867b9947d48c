"""An object store for tests: `moto` as a server of its own on loopback, with one empty bucket."""

from __future__ import annotations

import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

from tests.servers import free_port

BUCKET = "lake"


@dataclass(frozen=True)
class ObjectStore:
    """Where it listens, and the environment that a process needs to use it."""

    url: str
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def options(self) -> dict[str, str]:
        return {name.removeprefix("GRIDLAKE_STORAGE_"): value for name, value in self.environment.items()}


@contextmanager
def object_store(log: Path | None = None) -> Iterator[ObjectStore]:
    """Starts the server, makes the bucket, and stops the server in the end; a line of `log` for each request.

    A process of its own, because Delta's reader holds Python's lock while it waits for an answer.
    """
    port = free_port()
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with log.open("wb") if log else nullcontext(subprocess.DEVNULL) as told:
        server = subprocess.Popen(command, stdout=told, stderr=told)
    url = f"http://127.0.0.1:{port}"
    try:
        _make_bucket(url, server)
        keys = {"AWS_ACCESS_KEY_ID": "for-tests", "AWS_SECRET_ACCESS_KEY": "no-secret", "AWS_REGION": "us-east-1"}
        options = keys | {"AWS_ENDPOINT_URL": url, "AWS_ALLOW_HTTP": "true"}
        yield ObjectStore(url, {f"GRIDLAKE_STORAGE_{name}": value for name, value in options.items()})
    finally:
        server.kill()
        server.wait()


def _make_bucket(url: str, server: subprocess.Popen[bytes]) -> None:
    for _ in range(300):
        assert server.poll() is None, "the object store ended"
        try:
            urllib.request.urlopen(urllib.request.Request(f"{url}/{BUCKET}", method="PUT"), timeout=10).close()
            return
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.1)
    raise AssertionError("the object store did not start")
