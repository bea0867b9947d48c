"""The figures as Prometheus sees them: scraped from `gridlake metrics`, with the shipped rules and the dashboards' own queries."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest

from lakehouse.flow.measures import measures
from tests.flow.builders import clean_up_to_date, day, land, reading_lines, village
from tests.servers import free_port

PROJECT = Path(__file__).resolve().parents[2]
SHIPPED = PROJECT / "deploy" / "monitoring"
LONGEST_WAIT_S = 90
needs_prometheus = pytest.mark.skipif(shutil.which("prometheus") is None, reason="Debian's package prometheus is not installed")


def gridlake(home: Path, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "lakehouse.cli", "--home", str(home), *arguments]


def ask(url: str):
    with urllib.request.urlopen(url, timeout=20) as answer:
        return json.load(answer)


@contextmanager
def running(*command: str, log: Path):
    process = subprocess.Popen(command, cwd=PROJECT, stdout=log.open("w"), stderr=subprocess.STDOUT, start_new_session=True)
    try:
        yield process
    finally:
        os.killpg(process.pid, signal.SIGKILL)  # nothing of theirs is worth an orderly end
        process.wait()


def wait_for(condition, what: str, log: Path):
    end = time.monotonic() + LONGEST_WAIT_S
    while time.monotonic() < end:
        try:
            found = condition()
        except OSError:
            found = None
        if found:
            return found
        time.sleep(0.5)
    pytest.fail(f"{what} did not come within {LONGEST_WAIT_S} s\n{log.read_text()[-2000:]}")


def test_a_small_site_in_figures(tmp_path):
    site = village(tmp_path / "village")
    land(site, "readings", day(19), "r18.csv", reading_lines(day(18)))
    land(site, "readings", day(20), "r19.csv", [*reading_lines(day(19)), "A,import,never,60,1,A"])
    clean_up_to_date(site)
    found = {(m.name, m.labels): m.value for m in measures(site, now=datetime(2026, 3, 20, 12, tzinfo=UTC))}
    assert found["table_rows", (("table", "cleaned.meter_readings"),)] == 48
    assert found["readings", (("quality", "measured"),)] == 24  # of the 18th: the 19th may still grow
    assert found["readings_day_timestamp_seconds", ()] == datetime(2026, 3, 18, tzinfo=UTC).timestamp()
    assert found["meters", ()] == 1
    assert found["feed_late_days", (("feed", "readings"),)] == 0
    assert found["feed_data_until_timestamp_seconds", (("feed", "readings"),)] == datetime(2026, 3, 19, 23, tzinfo=UTC).timestamp()


def test_a_site_without_tables_has_no_figures_and_no_failure(tmp_path):
    assert {m.name for m in measures(village(tmp_path / "village"))} == {"alerts"}


@pytest.mark.slow
def test_a_port_in_use_and_a_gateway_that_is_not_there_are_told(tmp_path):
    home = village(tmp_path / "village").site.home
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        served = subprocess.run(gridlake(home, "metrics", "--serve", port), cwd=PROJECT, capture_output=True, text=True, timeout=60)
    assert served.returncode == 1 and f"Can't listen on 127.0.0.1:{port}" in served.stderr
    gateway = f"http://127.0.0.1:{free_port()}"
    pushed = subprocess.run(gridlake(home, "metrics", "--push", gateway), cwd=PROJECT, capture_output=True, text=True, timeout=60)
    assert pushed.returncode == 1 and "took nothing" in pushed.stderr and "Traceback" not in pushed.stderr


@pytest.mark.slow
@needs_prometheus
def test_prometheus_scrapes_the_site_and_answers_every_query_of_rules_and_dashboards(refreshed_site, tmp_path):
    metrics_port, port = free_port(), free_port()
    settings = (SHIPPED / "prometheus.yml").read_text().replace("9187", str(metrics_port)).replace("60s", "2s")
    (tmp_path / "prometheus.yml").write_text(settings)
    shutil.copy(SHIPPED / "rules.yml", tmp_path)
    prometheus = shutil.which("prometheus") or ""
    folders = [f"--config.file={tmp_path / 'prometheus.yml'}", f"--storage.tsdb.path={tmp_path / 'data'}"]
    with (
        running(*gridlake(refreshed_site, "metrics", "--serve", str(metrics_port)), log=tmp_path / "metrics.log"),
        running(prometheus, *folders, f"--web.listen-address=127.0.0.1:{port}", log=tmp_path / "prometheus.log"),
    ):

        def query(expression: str) -> list[dict]:
            answer = ask(f"http://127.0.0.1:{port}/api/v1/query?query={urllib.parse.quote(expression)}")
            assert answer["status"] == "success", expression
            return answer["data"]["result"]

        wait_for(lambda: [r for r in query("gridlake_up") if r["value"][1] == "1"], "the first scrape", tmp_path / "metrics.log")
        expressions = {
            target["expr"]
            for board in SHIPPED.glob("grafana/*.json")
            for panel in json.loads(board.read_text())["panels"]
            for target in panel["targets"]
        }
        assert len(expressions) > 20
        empty = sorted(e for e in expressions if not query(e))
        assert empty == []
        rules = ask(f"http://127.0.0.1:{port}/api/v1/rules")["data"]["groups"][0]["rules"]
        assert [r["name"] for r in rules if r["health"] == "err"] == []
        # the site's clock stands still in the past, and that is what the rules tell
        old = {"GridlakeForecastOld", "GridlakePlanOld"}
        told = lambda: {r["metric"]["alertname"] for r in query("ALERTS")} >= old  # noqa: E731
        wait_for(told, "what the rules tell of an old site", tmp_path / "prometheus.log")


def test_rules_and_dashboards_name_only_figures_that_are_exposed():
    exposed = set(re.findall(r'_one\(\s*"(\w+)"', (PROJECT / "lakehouse" / "flow" / "measures.py").read_text()))
    exposed |= set(re.findall(r'Measure\("(\w+)"', (PROJECT / "jobs" / "metrics.py").read_text()))
    texts = [path.read_text() for path in (SHIPPED / "rules.yml", *SHIPPED.glob("grafana/*.json"))]
    named = {name for text in texts for name in re.findall(r"gridlake_(\w+)", text)}
    assert named <= exposed and len(named) > 20


def test_metrics_are_printed_in_the_exposition_format(tmp_path):
    home = village(tmp_path / "village").site.home
    printed = subprocess.run(
        gridlake(home, "metrics"), cwd=PROJECT, capture_output=True, text=True, timeout=60, env=os.environ | {"PYTHONWARNINGS": "ignore"}
    )
    assert printed.returncode == 0, printed.stderr
    assert "# TYPE gridlake_up gauge\ngridlake_up 1.0\n" in printed.stdout
