"""Versions at work: a forecast made again, a champion rolled back, what asks for training, drift, and the mirror in MLflow."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from lakehouse.errors import ForecastError
from lakehouse.flow import drift, forecast, models
from lakehouse.flow.workspace import Workspace
from tests.servers import free_port

FIRST, TODAY = date(2026, 1, 10), date(2026, 3, 20)
SITE = f"""\
name: hamlet
country: ES
time_zone: Europe/Madrid
location: {{latitude_deg: 40.4, longitude_deg: -3.7}}
first_day: {FIRST}
clock: {TODAY}
paths: {{tracking: none}}
feeds:
  series: {{format: canonical_series, provides: [load]}}
series:
  demand: {{table: cleaned/load, series: [hamlet], models: [lear, seasonal_naive]}}
"""
EARLIER, ISSUED = date(2026, 3, 10), date(2026, 3, 18)


def write_load(workspace: Workspace, first: date, last: date, level_mw: float = 10.0) -> None:
    """Hourly load with a daily and weekly rhythm and some noise, for the UTC days of a span."""
    at = pd.date_range(first, last + timedelta(days=1), freq="h", tz="UTC", inclusive="left")
    rhythm = 1 + 0.3 * np.sin(2 * np.pi * (at.hour - 8) / 24) - 0.15 * (at.day_of_week >= 5)
    noise = np.random.default_rng(7).normal(0, 0.02, len(at))
    rows = [
        {"series_id": "hamlet", "interval_start": start, "interval_minutes": 60, "load_mw": value, "date": start.date()}
        for start, value in zip(at.to_pydatetime(), level_mw * (rhythm + noise), strict=True)
    ]
    contract = workspace.contract("cleaned/load")
    whole = [{name: None for name in contract.columns} | row for row in rows]
    workspace.replace("cleaned/load", contract.from_rows(whole), where={"date": (first, last)})


@pytest.fixture(scope="module")
def settled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten weeks of one load, with features, trained models, and forecasts of the last four weeks, scored."""
    home = tmp_path_factory.mktemp("settled") / "site"
    home.mkdir()
    (home / "gridlake.yaml").write_text(SITE, encoding="utf-8")
    workspace = Workspace.open(home)
    write_load(workspace, FIRST, TODAY - timedelta(days=1))
    forecast.make_features(workspace, "demand", FIRST, TODAY)
    trained = forecast.train_models(workspace, "demand")
    assert trained.champion.startswith("lear-") and trained.evaluated["lear"]["mae"] < trained.evaluated["seasonal_naive"]["mae"]
    forecast.issue_forecasts(workspace, "demand", TODAY - timedelta(days=27), TODAY)
    forecast.score_forecasts(workspace)
    return home


@pytest.fixture
def workspace(settled: Path, tmp_path: Path) -> Workspace:
    return Workspace.open(shutil.copytree(settled, tmp_path / "site"))


def test_one_pass_leaves_versions_for_the_issues_of_the_evaluated_weeks(workspace: Workspace):
    versions = [v["version"][:13] for v in models.list_versions(workspace)]
    assert versions == ["lear-20260221", "lear-20260307", "lear-20260320", "seasonal_naiv"]
    issued = workspace.table("forecasts/demand").read().to_pylist()
    assert {r["model_version"][:13] for r in issued} == {"lear-20260221", "lear-20260307", "lear-20260320"}
    assert not any(r["is_fallback"] for r in issued)


def test_a_past_forecast_is_made_again_to_the_last_bit_though_the_features_were_corrected_since(workspace: Workspace):
    before = workspace.table("features/demand").version()
    write_load(workspace, EARLIER, ISSUED, level_mw=13.0)
    forecast.make_features(workspace, "demand", EARLIER, TODAY)
    made = models.reproduce(workspace, "demand", ISSUED)
    assert made.is_identical and made.issued.num_rows == 24 and made.features_version == before
    newest = forecast.features_between(workspace, "demand", ISSUED, ISSUED)
    assert newest.column("lag_2d")[0].as_py() > 1.2 * made.issued.column("p50")[0].as_py() / 1.3  # the correction did arrive
    assert workspace.table("features/demand").version() > before


def test_a_forecast_that_was_tampered_with_is_told_from_what_its_versions_give(workspace: Workspace):
    rows = workspace.table("forecasts/demand").read(f"date = DATE '{ISSUED}'").to_pylist()
    rows[5]["p50"] += 1e-9
    workspace.replace("forecasts/demand", workspace.contract("forecasts/demand").from_rows(rows), where={"date": [ISSUED]})
    assert not models.reproduce(workspace, "demand", ISSUED).is_identical


def test_a_forecast_that_was_never_issued_is_not_made_up(workspace: Workspace):
    with pytest.raises(ForecastError, match="No forecast of demand was issued on 2026-01-20"):
        models.reproduce(workspace, "demand", date(2026, 1, 20))


def test_rolling_back_puts_the_champion_before_in_charge_and_the_table_says_so(workspace: Workspace):
    back, _ = models.roll_back(workspace, "demand")
    assert back.version.startswith("lear-20260307")
    rows = workspace.table("models/demand").read().to_pylist()
    assert [r["model_version"] for r in rows if r["is_champion"]] == [back.version]
    assert all(r["rmae_naive"] < 1 for r in rows if r["model_version"].startswith("lear-20260320"))  # what was measured stays
    first, _ = models.roll_back(workspace, "demand")
    assert first.version.startswith("lear-20260221")
    with pytest.raises(ForecastError, match="no earlier champion"):
        models.roll_back(workspace, "demand")


def test_rolling_back_to_a_named_version_withdraws_all_after_it(workspace: Workspace):
    oldest = models.list_versions(workspace, "demand")[0]["version"]
    with pytest.raises(ForecastError, match="was not champion before"):
        models.roll_back(workspace, "demand", "lear-of-my-dreams")
    models.roll_back(workspace, "demand", oldest)
    registry = forecast.registry_of(workspace)
    assert registry.model_for("demand", pd.Timestamp(TODAY, tz="UTC") + pd.Timedelta(days=1)).version == oldest


def test_training_is_due_when_the_code_the_kinds_or_the_description_of_the_target_change(workspace: Workspace, monkeypatch):
    assert not forecast.training_is_due(workspace, "demand")
    for changed in (("models: [lear, seasonal_naive]", "models: [lear]"), ("models: [lear", "actuals_delay_hours: 3, models: [lear")):
        (workspace.site.home / "gridlake.yaml").write_text(SITE.replace(*changed), encoding="utf-8")
        assert forecast.training_is_due(Workspace.open(workspace.site.home), "demand")
    monkeypatch.setattr("lakehouse.forecasting.training.MODELS_VERSION", 99)
    assert forecast.training_is_due(workspace, "demand")


def test_versions_saved_by_other_code_are_passed_over_until_the_next_training_replaces_them(workspace: Workspace, monkeypatch):
    monkeypatch.setattr("lakehouse.forecasting.training.MODELS_VERSION", 99)
    assert not any(row["is_usable"] for row in models.list_versions(workspace))
    forecast.issue_forecasts(workspace, "demand", TODAY, TODAY)
    newest = workspace.table("forecasts/demand").read(f"date = DATE '{TODAY}'").to_pylist()
    assert all(r["fallback_reason"] == "no trained model of demand" for r in newest)
    trained = forecast.train_models(workspace, "demand")
    assert trained.champion.startswith("lear-20260320") and not forecast.training_is_due(workspace, "demand")
    assert [row["version"] for row in models.list_versions(workspace) if row["is_champion"] and row["is_usable"]] == [trained.champion]


def test_the_breakdown_adds_up_to_the_scores_by_issue(workspace: Workspace):
    by_issue = workspace.table("quality/forecast_accuracy").read().to_pandas().query("model == 'lear'")
    parts = workspace.table("quality/forecast_breakdown").read().to_pandas().query("model == 'lear'")
    mean = np.average(by_issue["mae"], weights=by_issue["intervals"])
    for dimension, buckets in (("all", 1), ("lead_day", 1), ("hour", 24), ("weekday", 7), ("month", 2)):
        part = parts[parts["dimension"] == dimension]
        assert len(part) == buckets and part["intervals"].sum() == by_issue["intervals"].sum()
        assert np.average(part["mae"], weights=part["intervals"]) == pytest.approx(mean)
    whole = parts[parts["dimension"] == "all"].iloc[0]
    assert 0 < whole["rmae"] < 1 and whole["pinball"] < whole["crps"] < whole["mae"] and whole["peak_error_h"] >= 0
    assert parts.loc[parts["dimension"] == "hour", "peak_error_h"].isna().all()


def trained_until(workspace: Workspace, monkeypatch, day: date) -> None:
    """Lets the champion be as old as a day, so that there are issues since."""
    registry = forecast.registry_of(workspace)
    old = replace(registry.champion("demand"), trained_until=pd.Timestamp(day, tz="UTC"))
    monkeypatch.setattr("lakehouse.forecasting.registry.Registry.champion", lambda self, target: old)


def test_an_error_that_grew_since_the_training_is_drift_and_steady_error_is_not(workspace: Workspace, monkeypatch):
    assert "too few" in drift.error_drift(workspace, "demand").told
    trained_until(workspace, monkeypatch, date(2026, 3, 12))
    steady = drift.error_drift(workspace, "demand")
    assert not steady.is_drifting and 0.5 < steady.figures["ratio"] < 1.6
    scores = workspace.table("quality/forecast_accuracy").read().to_pandas()
    late = (scores["model"] == "lear") & (scores["issued_at"] > pd.Timestamp("2026-03-12", tz="UTC"))
    scores.loc[late, "mae"] *= 4
    workspace.replace("quality/forecast_accuracy", workspace.contract("quality/forecast_accuracy").from_rows(scores.to_dict("records")))
    grown = drift.error_drift(workspace, "demand")
    assert grown.is_drifting and grown.figures["ratio"] == pytest.approx(4 * steady.figures["ratio"])


def test_inputs_beyond_what_the_training_saw_are_drift_and_ask_for_training(workspace: Workspace, monkeypatch):
    trained_until(workspace, monkeypatch, date(2026, 3, 12))
    assert not drift.input_drift(workspace, "demand").is_drifting
    write_load(workspace, date(2026, 3, 11), TODAY - timedelta(days=1), level_mw=25.0)
    forecast.make_features(workspace, "demand", date(2026, 3, 13), TODAY)
    found = drift.input_drift(workspace, "demand")
    assert found.is_drifting and "mean_168h" in found.told and found.figures["mean_168h"] > 0.8


# A server needs the whole of MLflow, in an environment of its own: MLFLOW_SERVER names its `mlflow` program.
STORES = ["a file", "a server"] if os.environ.get("MLFLOW_SERVER") else ["a file"]


@pytest.fixture(params=STORES)
def tracking(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The line of the site file that names MLflow's store: its own SQLite file, or a server over HTTP."""
    if request.param == "a file":
        yield ""
        return
    program = os.environ["MLFLOW_SERVER"]
    port = free_port()
    store = ["--backend-store-uri", f"sqlite:///{tmp_path}/server.db", "--artifacts-destination", str(tmp_path / "artifacts")]
    server = subprocess.Popen(
        [program, "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1", *store],
        cwd=tmp_path, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        for _ in range(120):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2).close()
                break
            except OSError:
                time.sleep(1)
        yield f"paths: {{tracking: 'http://127.0.0.1:{port}'}}\n"
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(30)


@pytest.mark.slow
def test_mlflow_mirrors_versions_figures_data_and_aliases_once(workspace: Workspace, tracking: str, capfd: pytest.CaptureFixture[str]):
    (workspace.site.home / "gridlake.yaml").write_text(SITE.replace("paths: {tracking: none}\n", tracking), encoding="utf-8")
    workspace = Workspace.open(workspace.site.home)
    assert models.mirror(workspace, "demand", {"lear": {"mae": 0.5}}) == "4 versions logged to MLflow."
    assert models.mirror(workspace, "demand") == "0 versions logged to MLflow."
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=workspace.site.tracking_uri, registry_uri=workspace.site.tracking_uri)
    champion = client.get_model_version_by_alias("hamlet.demand", "champion")
    assert champion.tags["gridlake.version"] == forecast.registry_of(workspace).champion("demand").version
    assert client.get_model_version_by_alias("hamlet.demand", "challenger").tags["kind"] == "seasonal_naive"
    run = client.get_run(champion.run_id)
    assert run.data.metrics["rolling.mae"] == 0.5 and run.data.metrics["unseen.rmae"] < 1 and run.data.params["task.issue_time_local"]
    read = {d.dataset.name: json.loads(d.dataset.source)["version"] for d in run.inputs.dataset_inputs}
    assert read == {"features/demand": 0, "cleaned/load": 0}
    assert "version/metadata.json" in [a.path for a in client.list_artifacts(champion.run_id, "version")]
    models.roll_back(workspace, "demand")
    back = client.get_model_version_by_alias("hamlet.demand", "champion")
    assert back.tags["gridlake.version"].startswith("lear-20260307")
    assert capfd.readouterr().out == ""  # a server's links would stand between our own lines


def test_a_server_that_is_not_there_is_a_sentence_and_no_failure(workspace: Workspace, monkeypatch):
    def refuse(*_: object) -> None:
        raise ConnectionError("Connection refused")

    monkeypatch.setattr("lakehouse.forecasting.tracking._Mirror.catch_up", refuse)
    monkeypatch.setattr("lakehouse.forecasting.tracking._Mirror.__init__", lambda *_: None)
    (workspace.site.home / "gridlake.yaml").write_text(SITE.replace("tracking: none", "tracking: http://me:secret@mlflow:5000"), "utf-8")
    told = models.mirror(Workspace.open(workspace.site.home), "demand")
    assert "MLflow at http://mlflow:5000 has not taken the versions" in told and "Connection refused" in told and "secret" not in told


def test_without_a_network_there_is_nothing_to_export(workspace: Workspace, tmp_path: Path):
    with pytest.raises(ForecastError, match="No version of demand has a Keras network"):
        models.export_version(workspace, "demand", tmp_path)


def test_the_clock_of_a_version_is_that_of_its_newest_issue(workspace: Workspace):
    newest = models.list_versions(workspace, "demand")[-1]
    assert datetime.fromisoformat(newest["trained_until"]) == datetime(2026, 3, 20, 9, tzinfo=UTC)  # 10:00 in Madrid
