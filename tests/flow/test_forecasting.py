"""Issues: on which days they are made, that an old one is never rewritten, and that one always comes, labelled as what it is."""

from __future__ import annotations

import shutil
from datetime import date, timedelta
from pathlib import Path

import pytest

from lakehouse.errors import ForecastError
from lakehouse.flow import forecast
from lakehouse.flow.workspace import Workspace
from lakehouse.site import parse_site
from tests.flow.builders import FIRST_DAY, SITE, TODAY, clean_up_to_date, day, land, reading_lines, series_lines, village

WARM = "    inputs:\n      - {name: temperature, table: cleaned/external_forecasts, series: square, quantity: temperature_c"


@pytest.fixture(scope="module")
def young(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Nineteen days of one meter with a day-ahead temperature: too short a history to train a model."""
    home = tmp_path_factory.mktemp("young") / "site"
    workspace = village(home)
    for n in range(2, 21):
        land(workspace, "readings", day(n), f"n{n}.csv", reading_lines(day(n - 1), kwh=lambda h, n=n: 10 + h / 10 + n / 100))
        lines = series_lines(day(n) + timedelta(days=1), "square", "temperature_c", lambda h: 8 + h / 5, is_forecast=True)
        land(workspace, "market", day(n), f"m{n}.csv", lines)
    clean_up_to_date(workspace)
    first, last = forecast.issue_days(workspace.site, "demand")
    forecast.make_features(workspace, "demand", first, last)
    return home


@pytest.fixture
def workspace(young: Path, tmp_path: Path) -> Workspace:
    return Workspace.open(shutil.copytree(young, tmp_path / "site"))


def issued(workspace: Workspace, where: str = "") -> list[dict]:
    return workspace.table("forecasts/demand").read(where).sort_by([("date", "ascending"), ("valid_at", "ascending")]).to_pylist()


def test_issues_begin_when_the_same_hour_of_last_week_is_there_and_end_today():
    site = parse_site(SITE, Path("/x/gridlake.yaml"))
    assert forecast.issue_days(site, "demand") == (FIRST_DAY + timedelta(days=8), TODAY)


@pytest.mark.parametrize(("horizon", "last"), [(1, TODAY - timedelta(days=1)), (3, TODAY - timedelta(days=3))])
def test_with_actual_weather_for_a_forecast_the_last_issue_is_the_last_with_weather(horizon: int, last: date):
    text = SITE.replace(WARM, WARM + ", availability: perfect").replace("    models:", f"    horizon_days: {horizon}\n    models:")
    assert forecast.issue_days(parse_site(text, Path("/x/gridlake.yaml")), "demand")[1] == last


def test_a_target_that_the_site_does_not_forecast_is_told():
    with pytest.raises(ForecastError, match="forecasts no wind"):
        forecast.issue_days(parse_site(SITE, Path("/x/gridlake.yaml")), "wind")


def test_an_empty_lake_asked_for_models_or_forecasts_says_what_to_do(tmp_path: Path):
    workspace = village(tmp_path)
    with pytest.raises(ForecastError, match="There are no features of demand"):
        forecast.train_models(workspace, "demand")
    issue = forecast.issue_forecasts(workspace, "demand", FIRST_DAY, TODAY)
    assert (issue.issues, issue.commit) == (0, None)


def test_without_a_trained_model_a_forecast_comes_and_says_so(workspace: Workspace):
    trained = forecast.train_models(workspace, "demand")
    assert trained.champion == "" and "lightgbm:" in trained.reason
    issue = forecast.issue_forecasts(workspace, "demand", day(15), TODAY)
    assert issue.issues == 6 and issue.fallbacks == 6 * 24
    rows = issued(workspace)
    assert len(rows) == 6 * 24
    assert all(r["is_fallback"] and r["fallback_reason"] and r["is_hindcast"] for r in rows)
    assert all(r["p10"] <= r["p50"] <= r["p90"] and r["p50"] > 0 for r in rows)
    last = [r for r in rows if r["date"] == TODAY]
    assert last[0]["valid_at"].isoformat() == "2026-03-20T23:00:00+00:00"  # midnight in Madrid
    assert last[0]["issued_at"].isoformat() == "2026-03-20T09:00:00+00:00"


def test_an_old_issue_is_never_made_again_and_the_newest_is_as_long_as_its_day_has_not_begun(workspace: Workspace):
    forecast.train_models(workspace, "demand")
    forecast.issue_forecasts(workspace, "demand", day(15), TODAY)
    before = {f.path for f in workspace.table("forecasts/demand").files()}
    rows = issued(workspace, f"date < DATE '{TODAY}'")
    land(workspace, "readings", TODAY, "corrected.csv", reading_lines(day(13), kwh=lambda h: 99.0 + h))
    clean_up_to_date(workspace)
    forecast.make_features(workspace, "demand", day(15), TODAY)
    forecast.issue_forecasts(workspace, "demand", day(15), TODAY)
    assert issued(workspace, f"date < DATE '{TODAY}'") == rows
    after = {f.path for f in workspace.table("forecasts/demand").files()}
    assert {Path(p).parent.name for p in before - after} == {f"date={TODAY}"}
    assert TODAY not in forecast.unissued_days(workspace, "demand")


def test_recent_days_without_an_issue_are_told(workspace: Workspace):
    forecast.train_models(workspace, "demand")
    assert forecast.unissued_days(workspace, "demand") == [FIRST_DAY + timedelta(days=n) for n in range(8, 20)]
    forecast.issue_forecasts(workspace, "demand", day(10), day(18))
    assert forecast.unissued_days(workspace, "demand") == [day(9), day(19), day(20)]


def test_issues_are_scored_beside_the_naive_once_the_actuals_are_there(workspace: Workspace):
    forecast.train_models(workspace, "demand")
    forecast.issue_forecasts(workspace, "demand", day(15), TODAY)
    forecast.score_forecasts(workspace)
    rows = workspace.table("quality/forecast_accuracy").read().to_pylist()
    assert {"seasonal_naive"} < {r["model"] for r in rows}
    assert all(r["mae"] >= 0 and r["rmse"] >= r["mae"] - 1e-9 and r["intervals"] <= 24 for r in rows)
    scored = {r["issued_at"].date(): r["intervals"] for r in rows}
    # Of the 20th in Madrid only the first hour is on the 19th in UTC, where the readings end; the 21st has none.
    assert scored == {day(15): 24, day(16): 24, day(17): 24, day(18): 24, day(19): 1}
    naive = {r["issued_at"].date(): r["mae"] for r in rows if r["model"] == "seasonal_naive"}
    assert naive[day(16)] == pytest.approx(0.07 / 1000, rel=1e-3)  # a meter that grows by 0.01 kWh a day, against a week before


def test_what_has_no_actuals_yet_leaves_accuracy_empty_and_up_to_date(workspace: Workspace):
    forecast.train_models(workspace, "demand")
    forecast.issue_forecasts(workspace, "demand", TODAY, TODAY)
    assert forecast.accuracy_is_due(workspace)
    forecast.score_forecasts(workspace)
    assert workspace.table("quality/forecast_accuracy").read().num_rows == 0
    assert not forecast.accuracy_is_due(workspace)
