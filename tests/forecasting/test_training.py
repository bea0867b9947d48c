import datetime as dt

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from lakehouse.errors import ForecastError
from lakehouse.forecasting.features import build_features
from lakehouse.forecasting.predict import forecast, forecast_schema
from lakehouse.forecasting.registry import Registry
from lakehouse.forecasting.rolling import rolling_origin
from lakehouse.forecasting.training import ModelVersion, train, train_kinds
from tests.forecasting.builders import demand_task, world

LAST = dt.date(2026, 4, 20)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    task = demand_task()
    actuals, inputs = world(task, last="2026-04-25")
    table = build_features(task, actuals, inputs, task.issue_instants(dt.date(2026, 1, 10), LAST))
    until = task.issue_instants(LAST, LAST)[0]
    folder = tmp_path_factory.mktemp("models") / "first"
    return task, actuals, inputs, table, train(task, table, trained_until=until, folder=folder, data_versions={"cleaned/load": 7})


def issue_features(task, actuals, inputs, day=LAST):
    return build_features(task, actuals, inputs, task.issue_instants(day, day))


def test_a_version_tells_what_it_was_made_from(trained):
    task, *_, version = trained
    again = ModelVersion.read(version.folder)
    assert again.record() == version.record()
    assert again.data_versions == {"cleaned/load": 7} and again.packages["lightgbm"] and again.parameters["lightgbm"]["num_leaves"] > 1
    assert again.training_span[1] < version.trained_until.isoformat()
    assert 0 < again.metrics["rmae"] < 1
    assert not list(version.folder.rglob("*.pkl"))
    assert task.target == again.target


def test_training_uses_nothing_that_was_not_known(trained, tmp_path):
    task, actuals, inputs, _, version = trained
    changed = actuals.copy()
    before = task.actuals_known_before(pd.DatetimeIndex([version.trained_until]))[0]
    changed.loc[changed["interval_start"] >= before, "value"] = 1e9
    table = build_features(task, changed, inputs, task.issue_instants(dt.date(2026, 1, 10), LAST))
    other = train(task, table, trained_until=version.trained_until, folder=tmp_path / "other", data_versions={"cleaned/load": 7})
    rows = issue_features(task, actuals, inputs)
    assert forecast(task, rows, other).equals(forecast(task, issue_features(task, changed, inputs), version))
    assert other.version == version.version


def test_a_forecast_has_a_row_per_interval_and_is_not_flagged_when_all_is_well(trained):
    task, actuals, inputs, _, version = trained
    table = forecast(task, issue_features(task, actuals, inputs), version)
    assert table.schema == forecast_schema(task) and table.num_rows == 24
    frame = table.to_pandas()
    assert not frame["is_fallback"].any() and frame["fallback_reason"].isna().all()
    assert (frame["model_version"] == version.version).all()
    assert (np.diff(frame[list(task.quantile_columns)].to_numpy(), axis=1) >= 0).all()


def test_a_missing_input_is_forecast_without_inputs_and_says_so(trained):
    task, actuals, inputs, _, version = trained
    stops = inputs[inputs["interval_start"] < pd.Timestamp("2026-04-20", tz="UTC")]
    frame = forecast(task, issue_features(task, actuals, stops), version).to_pandas()
    assert frame["is_fallback"].all() and frame["fallback_reason"].str.contains("temperature is missing").all()
    assert (frame["model"] == "lightgbm_without_inputs").all()
    truth = actuals.set_index("interval_start")["value"].reindex(frame["valid_at"]).to_numpy()
    assert np.mean(np.abs(frame["p50"] - truth)) < 0.1 * truth.mean()


def test_a_flat_line_falls_back_to_like_days(trained):
    task, actuals, inputs, _, version = trained
    stuck = actuals.copy()
    stuck.loc[stuck["interval_start"] >= pd.Timestamp("2026-04-18 20:00", tz="UTC"), "value"] = 77.0
    frame = forecast(task, issue_features(task, stuck, inputs), version).to_pandas()
    assert frame["fallback_reason"].str.contains("flat line").all() and (frame["model"] == "like_day").all()
    assert frame["p50"].notna().all()


def test_a_long_gap_still_gives_a_forecast(trained):
    task, actuals, inputs, _, version = trained
    gone = actuals[actuals["interval_start"] < pd.Timestamp("2026-03-01", tz="UTC")]
    frame = forecast(task, issue_features(task, gone, inputs), version).to_pandas()
    assert frame["is_fallback"].all() and frame["p50"].notna().all() and (frame["model"] == "climatology").all()


def test_a_model_that_fails_is_replaced_and_named(trained, tmp_path):
    import shutil

    task, actuals, inputs, _, version = trained
    shutil.copytree(version.folder, tmp_path / "broken")
    (tmp_path / "broken/model/lightgbm/centre.txt").write_text("not a model")
    frame = forecast(task, issue_features(task, actuals, inputs), ModelVersion.read(tmp_path / "broken")).to_pandas()
    assert frame["fallback_reason"].str.startswith("lightgbm failed").all() and frame["p50"].notna().all()


def test_no_model_at_all_gives_the_naive_chain(trained):
    task, actuals, inputs, _, _ = trained
    frame = forecast(task, issue_features(task, actuals, inputs), None).to_pandas()
    assert (frame["fallback_reason"] == "no trained model of demand").all() and (frame["model"] == "like_day").all()


def test_a_version_from_the_future_is_refused(trained):
    task, actuals, inputs, _, version = trained
    with pytest.raises(ForecastError, match="after the issue"):
        forecast(task, issue_features(task, actuals, inputs, dt.date(2026, 4, 10)), version)


def test_a_short_history_is_refused(trained, tmp_path):
    task, _actuals, _inputs, table, _ = trained
    with pytest.raises(ForecastError, match="at least 14 days"):
        train(task, table.slice(0, 24 * 5), trained_until=task.issue_instants(LAST, LAST)[0], folder=tmp_path / "x")


def test_the_registry_promotes_by_evidence_and_rolls_back(trained, tmp_path):
    task, _, _, table, version = trained
    registry, now = Registry(tmp_path / "registry"), version.trained_until
    first = registry.add(version)
    assert registry.champion("demand") is None and registry.model_for("demand", now) is None
    assert registry.challenge("demand", first.version, at=now).is_promoted
    naive = registry.add(train(task, table, model="seasonal_naive", trained_until=now, folder=registry.folder_for("demand", "n")))
    rng = np.random.default_rng(0)
    champion_loss = rng.uniform(1, 2, 60)
    no = registry.challenge("demand", naive.version, at=now, challenger_loss=champion_loss + 0.5, champion_loss=champion_loss)
    assert not no.is_promoted and registry.champion("demand").version == first.version
    yes = registry.challenge(
        "demand", naive.version, at=now, challenger_loss=champion_loss - rng.uniform(0, 0.5, 60), champion_loss=champion_loss
    )
    assert yes.is_promoted and yes.p_value < 0.05
    assert registry.roll_back("demand", at=now).version == first.version
    assert registry.model_for("demand", now).version == first.version
    assert registry.model_for("demand", now - pd.Timedelta(days=1)) is None
    assert len(registry.promotions("demand")) == 3


def test_rolling_origin_sees_nothing_of_the_future(trained):
    task, actuals, inputs, table, _ = trained
    first, last = dt.date(2026, 4, 8), dt.date(2026, 4, 12)
    before, _ = rolling_origin(task, table, ["lightgbm"], 3, first, last)
    changed = actuals.copy()
    limit = task.actuals_known_before(task.issue_instants(last, last))[0]
    changed.loc[changed["interval_start"] >= limit, "value"] = -1e6
    after, _ = rolling_origin(
        task, build_features(task, changed, inputs, task.issue_instants(dt.date(2026, 1, 10), LAST)), ["lightgbm"], 3, first, last
    )
    columns = list(task.quantile_columns)
    pd.testing.assert_frame_equal(before[columns], after[columns])


def test_one_pass_evaluates_hindcasts_and_trains_and_no_version_knows_what_came_after_it(trained, tmp_path):
    task, actuals, inputs, table, _ = trained
    until = task.issue_instants(LAST, LAST)[0]

    def passed(rows, name):
        span = {"trained_until": until, "evaluated_days": 14, "refit_days": 7, "hindcast_kind": "lear"}
        return train_kinds(task, rows, ["lear", "lightgbm"], folder_for=lambda version: tmp_path / name / version, **span)

    made = passed(table, "made")
    first, second = made.hindcasts
    assert [h.trained_until for h in made.hindcasts] == list(task.issue_instants(LAST - dt.timedelta(13), LAST)[[0, 7]])
    assert set(made.newest) == {"lear", "lightgbm"} and set(made.measures) == {"lear", "lightgbm", "seasonal_naive"}
    assert 12 * 24 < made.measures["lightgbm"]["n"] < 13 * 24  # the last issue but one has come in part
    assert made.newest["lear"].without_inputs is not None and first.without_inputs is None
    changed = actuals.copy()
    changed.loc[changed["interval_start"] >= task.actuals_known_before(pd.DatetimeIndex([second.trained_until]))[0], "value"] = 1e5
    other = passed(build_features(task, changed, inputs, task.issue_instants(dt.date(2026, 1, 10), LAST)), "other")
    for mine, theirs in zip(made.hindcasts, other.hindcasts, strict=True):
        rows = issue_features(task, actuals, inputs, mine.trained_until.tz_convert(task.time_zone).date())
        assert forecast(task, rows, mine).equals(forecast(task, rows, theirs))


def test_a_forecast_does_not_depend_on_which_others_are_made_with_it(trained):
    task, actuals, inputs, _, version = trained
    days = [LAST, LAST + dt.timedelta(1), LAST + dt.timedelta(2)]
    together = forecast(task, pa.concat_tables([issue_features(task, actuals, inputs, day) for day in days]), version)
    for n, day in enumerate(days):
        assert together.slice(24 * n, 24).equals(forecast(task, issue_features(task, actuals, inputs, day), version))


@pytest.mark.slow
def test_the_ensemble_is_trained_from_the_fits_of_its_members_and_is_a_version_like_any_other(trained, tmp_path):
    task, actuals, inputs, table, _ = trained
    made = train_kinds(
        task,
        table,
        ["lightgbm", "keras", "ensemble"],
        trained_until=task.issue_instants(LAST, LAST)[0],
        folder_for=lambda name: tmp_path / name,
        evaluated_days=14,
    )
    ensemble = made.newest["ensemble"]
    weights = ensemble.parameters["weights"]
    assert set(weights) == {"lightgbm", "keras", "lear"} and sum(weights.values()) == pytest.approx(1)
    members = [made.measures[name]["pinball"] for name in weights]
    assert made.measures["ensemble"]["pinball"] < np.mean(members)
    frame = forecast(task, issue_features(task, actuals, inputs), ensemble).to_pandas()
    assert (frame["model"] == "ensemble").all() and not frame["is_fallback"].any()
    fits = (tmp_path / f"{name}-{LAST}/model/lightgbm/centre.txt" for name in ("lightgbm", "ensemble"))
    assert len({path.read_text() for path in fits}) == 1
