"""A Postgres server for tests: Debian's package, on loopback, with one user who has a password."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.servers import free_port

USER, PASSWORD = "gridlake", "only for tests"


def postgres_programs() -> Path | None:
    """The folder of the newest installed server's programs."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda p: int(p.parts[-3]))
    on_path = shutil.which("initdb")
    return found[-1].parent if found else Path(on_path).resolve().parent if on_path else None


@contextmanager
def postgres() -> Iterator[str]:
    """Starts a server with an empty database; yields its address as Dagster's settings take it."""
    programs = postgres_programs()
    assert programs is not None
    # The server refuses to be root.
    server = {"user": "postgres", "group": "postgres", "extra_groups": []} if os.geteuid() == 0 else {}
    with tempfile.TemporaryDirectory(prefix="gridlake-postgres-") as name:
        folder = Path(name)
        (folder / "password").write_text(PASSWORD, encoding="utf-8")
        if server:
            owner = pwd.getpwnam("postgres")
            for path in (folder, folder / "password"):
                os.chown(path, owner.pw_uid, owner.pw_gid)
        make = [str(programs / "initdb"), "-D", str(folder / "data"), "-U", USER, "-A", "scram-sha-256"]
        subprocess.run([*make, f"--pwfile={folder / 'password'}", "-N"], cwd=folder, check=True, stdout=subprocess.DEVNULL, **server)
        port = free_port()
        run = [str(programs / "postgres"), "-D", str(folder / "data"), "-p", str(port), "-h", "127.0.0.1", "-k", str(folder), "-F"]
        running = subprocess.Popen(run, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **server)
        try:
            _wait_for(port, running)
            yield f"postgresql+psycopg2://{USER}:{PASSWORD.replace(' ', '%20')}@127.0.0.1:{port}/postgres"
        finally:
            running.terminate()
            running.wait(30)


def _wait_for(port: int, running: subprocess.Popen[bytes]) -> None:
    import psycopg2

    for _ in range(200):
        assert running.poll() is None, "Postgres ended"
        try:
            psycopg2.connect(host="127.0.0.1", port=port, user=USER, password=PASSWORD, dbname="postgres").close()
            return
        except psycopg2.OperationalError:
            time.sleep(0.05)
    raise AssertionError("Postgres did not start")
