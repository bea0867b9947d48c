"""The sample site, refreshed from landing to plans through Dagster: what a user has after `gridlake refresh`."""

from __future__ import annotations

import itertools
import shutil
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import duckdb
import pytest

from lakehouse.flow import clean, forecast
from lakehouse.flow.query import run_query
from lakehouse.flow.raw import read_deliveries, stale_deliveries
from lakehouse.flow.staleness import next_steps
from lakehouse.flow.summary import as_lines, summarize
from lakehouse.flow.workspace import Workspace
from tests.conftest import LAST_DAY

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def workspace(refreshed_site: Path) -> Workspace:
    return Workspace.open(refreshed_site)


def test_nothing_is_stale_afterwards(workspace: Workspace):
    assert next_steps(workspace) == []


def test_every_table_has_rows_or_says_why_not(workspace: Workspace):
    rows = {name: workspace.table(name).read().num_rows for name in workspace.contracts}
    met, one_zone, daemon, night = "dispatch/violations", "dispatch/flows", "quality/alerts", "quality/housekeeping"
    assert {name for name, n in rows.items() if n == 0} <= {met, one_zone, daemon, night}


def test_the_catalog_equals_delta_for_every_table(workspace: Workspace):
    for name, contract in workspace.contracts.items():
        if name in ("quality/alerts", "quality/housekeeping"):  # written by the sensor and by night
            assert not workspace.table(name).exists()
            continue
        delta = workspace.table(name).delta().to_pyarrow_table().select(list(contract.columns))
        with duckdb.connect() as engine:
            engine.execute("SET TimeZone = 'UTC'")
            engine.execute(f"ATTACH '{workspace.site.path('catalog')}' AS catalog (READ_ONLY)")
            engine.register("delta", delta)
            view = f"catalog.{contract.layer()}.{name.split('/')[1]}"
            missing = engine.sql(f"(FROM delta EXCEPT ALL FROM {view}) UNION ALL (FROM {view} EXCEPT ALL FROM delta)").fetchall()
            described = {r[0]: r[1] for r in engine.sql(f"DESCRIBE {view}").fetchall()}
        assert missing == [], name
        assert described == {c.name: c.sql_type for c in contract.columns.values()}, name


def test_every_key_is_a_key(workspace: Workspace):
    with workspace.engine(*workspace.contracts) as engine:
        for name, contract in workspace.contracts.items():
            key = ", ".join(f'"{k}"' for k in contract.key)
            twice = engine.sql(f"SELECT {key}, count(*) FROM {name.replace('/', '.')} GROUP BY ALL HAVING count(*) > 1 LIMIT 3").fetchall()
            assert not twice, f"{name}: {contract.key} is no key: {twice}"


def test_every_delivered_row_is_accounted_for(workspace: Workspace):
    with workspace.engine("quality/conservation", "quality/quarantine") as engine:
        told = dict(engine.sql("SELECT feed, sum(delivered)::BIGINT FROM quality.conservation GROUP BY feed").fetchall())
        assert engine.sql("SELECT count(*) FROM quality.conservation WHERE NOT is_conserved").fetchall() == [(0,)]
        refused = dict(engine.sql("SELECT feed, sum(quarantined)::BIGINT FROM quality.conservation GROUP BY feed").fetchall())
        found = dict(engine.sql("SELECT feed, count(*) FROM quality.quarantine WHERE rule <> 'superseded' GROUP BY feed").fetchall())
    feeds = [*workspace.site.feeds_of("readings"), *workspace.site.feeds_of("series")]
    assert told == {feed: workspace.table(f"raw/{feed}").read().num_rows for feed in feeds}
    assert {f: n for f, n in refused.items() if n} == {f: n for f, n in found.items() if n}


def test_the_spring_day_is_whole(workspace: Workspace):
    rows = workspace.table("cleaned/load").read().to_pylist()
    starts = sorted(r["interval_start"] for r in rows)
    assert [b - a for a, b in itertools.pairwise(starts)] == [timedelta(hours=1)] * (len(starts) - 1)
    issue = workspace.table("forecasts/demand").read("date = DATE '2026-03-28'").num_rows
    assert issue == 23, "the day on which the clocks go forward has 23 hours"


def test_the_newest_issue_has_the_weather_of_tomorrow(workspace: Workspace):
    rows = workspace.table("forecasts/demand").read(f"date = DATE '{LAST_DAY}'").to_pylist()
    assert len(rows) == 24
    assert {r["fallback_reason"] for r in rows} == {None}


def test_every_plan_is_verified_and_follows_its_forecast(workspace: Workspace):
    plans = workspace.table("dispatch/summary").read().to_pylist()
    assert len(plans) == 7
    assert all(p["is_verified"] and p["bound_eur"] <= p["objective_eur"] + 1e-6 for p in plans)
    for plan in plans:
        demand = sum(workspace.table("forecasts/demand").read(f"date = DATE '{plan['date']}'")["p50"].to_pylist())
        assert plan["demand_mwh"] == pytest.approx(demand, rel=1e-6)


def test_the_summary_tells_rows_accuracy_and_plan(workspace: Workspace):
    told = summarize(workspace)
    assert told["rows"]["raw/meters"] == 12
    assert {(a["target"], a["model"]) for a in told["accuracy"]} >= {(t, "seasonal_naive") for t in workspace.site.series}
    text = "\n".join(as_lines(told, home=workspace.site.home, seconds=61.4, steps=18))
    assert "18 steps in 61 s" in text and "seasonal naive" in text and "Newest plan" in text and f"--home {workspace.site.home} ui" in text
    assert "every constraint checked" in text


def test_the_commands_that_the_summary_offers_work(workspace: Workspace):
    text = as_lines(summarize(workspace), home=workspace.site.home, seconds=1, steps=1)
    queries = [line.split(' sql "')[1].rstrip('"') for line in text if ' sql "' in line]
    assert len(queries) == 2
    assert all(run_query(workspace.site, query).num_rows > 0 for query in queries)


def test_where_nothing_is_stale_dagster_is_not_even_loaded(workspace: Workspace, tmp_path: Path):
    home = shutil.copytree(workspace.site.home, tmp_path / "idle")
    Workspace.open(home).site.path("catalog").unlink()
    look = "import sys; from pathlib import Path; from jobs.refresh import refresh; done = refresh(Path(sys.argv[1]))"
    asked = subprocess.run(
        [sys.executable, "-c", f"{look}; print(done, 'dagster' in sys.modules)", home], capture_output=True, text=True, check=True
    )
    assert asked.stdout.strip() == "Refreshed(steps=[], failed=[]) False"
    assert Workspace.open(home).site.path("catalog").exists(), "the catalog is published all the same"


def test_a_late_file_refreshes_what_rests_on_it_and_keeps_old_issues(workspace: Workspace, tmp_path: Path):
    copy = Workspace.open(shutil.copytree(workspace.site.home, tmp_path / "late"))
    old = LAST_DAY - timedelta(days=6)
    before = (
        copy.table("forecasts/demand").read(f"date < DATE '{LAST_DAY}'").sort_by([("issued_at", "ascending"), ("valid_at", "ascending")])
    )
    text = "meter_id,register,interval_start,interval_minutes,energy_kwh,quality\n"
    text += "".join(f"M0000003,import,{old}T{h:02}:00:00Z,60,2.5,A\n" for h in range(24))
    source = tmp_path / "late.csv"
    source.write_text(text, encoding="utf-8")
    copy.landing.land("meter_readings", source, LAST_DAY)
    from jobs.refresh import refresh

    done = refresh(copy.site.home)
    assert not done.failed
    cleaned = [s.days for s, _ in done.steps if "cleaned/meter_readings" in s.tables]
    assert (old, old) in cleaned
    assert next_steps(copy) == []
    after = (
        copy.table("forecasts/demand").read(f"date < DATE '{LAST_DAY}'").sort_by([("issued_at", "ascending"), ("valid_at", "ascending")])
    )
    assert after.equals(before), "what was issued is never rewritten"
    wins = copy.table("cleaned/meter_readings").read(f"date = DATE '{old}' AND meter_id = 'M0000003' AND file = 'late.csv'")
    assert wins.num_rows == 24


def test_without_the_weather_forecast_a_forecast_comes_and_says_so(workspace: Workspace, tmp_path: Path):
    copy = Workspace.open(shutil.copytree(workspace.site.home, tmp_path / "no-weather"))
    for arrival in copy.landing.arrivals("weather_forecast", LAST_DAY):
        arrival.path.unlink()
    read_deliveries(copy, "weather_forecast", stale_deliveries(copy, "weather_forecast"))
    clean.clean_series_days(copy, LAST_DAY, LAST_DAY + timedelta(days=1))
    forecast.make_features(copy, "demand", LAST_DAY, LAST_DAY)
    issue = forecast.issue_forecasts(copy, "demand", LAST_DAY, LAST_DAY)
    assert (issue.issues, issue.fallbacks) == (1, 24)
    rows = copy.table("forecasts/demand").read(f"date = DATE '{LAST_DAY}'").to_pylist()
    assert all(r["is_fallback"] and "temperature" in r["fallback_reason"] for r in rows)
