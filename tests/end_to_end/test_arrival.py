"""With `gridlake ui` running, a file that arrives leads to a new forecast and a new plan, with no hand on it."""

import json
import shutil
import subprocess
import sys
import time
import urllib.request
from datetime import date
from pathlib import Path

import duckdb
import pytest

from tests.servers import PROJECT, running_ui

TODAY = date(2026, 3, 31)  # the sample's frozen clock; the spring change of clocks lies two days before
LONGEST_WAIT_S = 420


def gridlake(home: Path, *arguments: str) -> str:
    command = [sys.executable, "-m", "lakehouse.cli", "--home", str(home), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=PROJECT, timeout=LONGEST_WAIT_S)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def ask(home: Path, sql: str) -> list[tuple]:
    with duckdb.connect() as analyst:
        analyst.execute(f"ATTACH '{home / 'catalog.duckdb'}' AS lake (READ_ONLY)")
        analyst.execute("USE lake")
        return analyst.sql(sql).fetchall()


@pytest.fixture
def site_and_ui(tmp_path):
    """A small site whose newest meter files are still on their way, and the UI with its daemon over it."""
    home, held_back = tmp_path / "site", tmp_path / "on_its_way"
    make = ["init", str(home), "--days", "45", "--meters", "10", "--until", TODAY.isoformat()]
    subprocess.run([sys.executable, "-m", "lakehouse.cli", *make], check=True, capture_output=True, cwd=PROJECT)
    shutil.move(home / "landing" / "meter_readings" / TODAY.isoformat(), held_back)
    gridlake(home, "refresh", "--json")
    log = tmp_path / "ui.log"
    with running_ui(home, log, longest_wait_s=LONGEST_WAIT_S) as port:
        yield home, held_back, port, log


def _wait_for(condition, what: str, log: Path) -> None:
    end = time.monotonic() + LONGEST_WAIT_S
    while time.monotonic() < end:
        if condition():
            return
        time.sleep(1)
    pytest.fail(f"{what} did not come within {LONGEST_WAIT_S} s\n{log.read_text()[-4000:]}")


@pytest.mark.slow
def test_a_new_meter_file_leads_to_a_new_forecast_and_plan(site_and_ui):
    home, held_back, port, log = site_and_ui
    issue = f"date = DATE '{TODAY}'"
    assert ask(home, f"SELECT count(*) FROM raw.meter_readings WHERE delivery_date = DATE '{TODAY}'") == [(0,)]
    assert ask(home, f"SELECT DISTINCT is_fallback FROM forecasts.demand WHERE {issue}") == [(True,)]
    old_plan = ask(home, f"SELECT demand_mwh FROM dispatch.summary WHERE {issue}")

    files = sorted(str(f) for f in held_back.iterdir())
    gridlake(home, "land", "meter_readings", *files, "--delivered", TODAY.isoformat())

    _wait_for(lambda: ask(home, f"SELECT DISTINCT is_fallback FROM forecasts.demand WHERE {issue}") == [(False,)], "the new forecast", log)
    _wait_for(lambda: ask(home, f"SELECT demand_mwh FROM dispatch.summary WHERE {issue}") != old_plan, "the new plan", log)
    assert ask(home, f"SELECT count(DISTINCT file) FROM raw.meter_readings WHERE delivery_date = DATE '{TODAY}'") == [(len(files),)]
    yesterday = "interval_start >= TIMESTAMPTZ '2026-03-30 06:00:00+00' AND interval_start < TIMESTAMPTZ '2026-03-30 22:00:00+00'"
    assert ask(home, f"SELECT avg(is_estimated::INT) < 0.2 FROM cleaned.meter_readings WHERE {yesterday}") == [(True,)]
    assert ask(home, f"SELECT count(*) FROM features.demand WHERE {issue} AND mean_24h IS NOT NULL")[0][0] > 0
    assert ask(home, f"SELECT bool_and(is_verified) FROM dispatch.summary WHERE {issue}") == [(True,)]

    query = json.dumps({"query": "{runsOrError {... on Runs {results {status}}}}"}).encode()
    asked = urllib.request.Request(f"http://127.0.0.1:{port}/graphql", query, {"Content-Type": "application/json"})
    with urllib.request.urlopen(asked) as answer:
        statuses = [run["status"] for run in json.load(answer)["data"]["runsOrError"]["results"]]
    assert "FAILURE" not in statuses
