import datetime as dt
import json
import os
import signal

import numpy as np
import pandas as pd
import pytest

from lakehouse.errors import ForecastError
from lakehouse.forecasting import metrics
from lakehouse.forecasting.backtest import backtest
from lakehouse.forecasting.report import write_report
from lakehouse.forecasting.task import ExogenousInput
from tests.forecasting.builders import demand_task, world

FIRST, LAST = dt.date(2026, 4, 20), dt.date(2026, 4, 30)


@pytest.fixture(scope="module")
def result():
    task = demand_task()
    actuals, inputs = world(task, last="2026-04-30")
    return backtest(
        task,
        actuals,
        inputs,
        first_day=FIRST,
        last_day=LAST,
        models=("lightgbm", "seasonal_naive"),
        operator=actuals[["interval_start", "value"]].assign(value=actuals["value"] + 2),
    )


def test_the_summary_is_one_json_object_per_model(result):
    rows = {r["model"]: r for r in result.summary_rows("village")}
    assert set(rows) == {"lightgbm", "seasonal_naive"}
    row = rows["lightgbm"]
    assert set(row) == {
        "site",
        "target",
        "model",
        "from",
        "to",
        "n",
        "mae",
        "rmse",
        "mape",
        "wape",
        "rmae",
        "pinball",
        "coverage_80",
        "benchmarks",
        "seconds",
        "peak_mb",
        "label",
    }
    assert row["n"] == 11 * 24 and row["from"] == "2026-04-20" and row["label"] == "perfect weather"
    assert row["mae"] < row["benchmarks"]["seasonal_naive"]["mae"]
    assert row["benchmarks"]["operator"]["mae"] == pytest.approx(2) and row["benchmarks"]["operator"]["coverage_80"] is None
    json.dumps(list(rows.values()), allow_nan=False)


def test_the_accuracy_table_is_long_and_adds_up(result):
    table = result.accuracy
    assert set(table["dimension"]) == {"all", "lead_day", "hour", "month", "weekday"}
    for dimension in set(table["dimension"]):
        part = table[(table["dimension"] == dimension) & (table["model"] == "lightgbm")]
        assert part["n"].sum() == 11 * 24
        assert np.average(part["mae"], weights=part["n"]) == pytest.approx(result.measures["lightgbm"]["mae"])


def test_the_report_is_one_file_with_its_pictures_inside(result, tmp_path):
    page = write_report(result, tmp_path / "report.html", site="village").read_text()
    assert page.count("data:image/png;base64") == 5 and "perfect weather" in page and 'src="http' not in page


def test_a_second_run_goes_on_from_finished_blocks_of_the_same_code(tmp_path, monkeypatch):
    task = demand_task(inputs=())
    actuals, _ = world(task, last="2026-03-20")
    span = {
        "first_day": dt.date(2026, 3, 10),
        "last_day": dt.date(2026, 3, 16),
        "models": ("like_day",),
        "refit_days": 3,
        "resume": tmp_path,
    }
    first = backtest(task, actuals, None, **span)
    kept = sorted(tmp_path.iterdir())
    stamps = [p.stat().st_mtime_ns for p in kept]
    second = backtest(task, actuals, None, **span)
    assert [p.stat().st_mtime_ns for p in kept] == stamps and len(kept) >= 3
    pd.testing.assert_frame_equal(first.forecasts, second.forecasts)
    monkeypatch.setattr("lakehouse.forecasting.rolling.MODELS_VERSION", 99)
    backtest(task, actuals, None, **span)
    assert len(list(tmp_path.iterdir())) == 2 * len(kept)


def _dies(*_: object) -> float:
    os.kill(os.getpid(), signal.SIGKILL)
    return 0.0


@pytest.mark.slow
def test_models_side_by_side_give_what_one_after_the_other_gives():
    task = demand_task(inputs=())
    actuals, _ = world(task, last="2026-03-20")
    span = {"first_day": dt.date(2026, 3, 14), "last_day": dt.date(2026, 3, 16), "models": ("like_day", "lear")}
    told: list[tuple[int, int, str]] = []
    alone = backtest(task, actuals, None, **span).forecasts
    together = backtest(task, actuals, None, workers=2, progress=lambda *one: told.append(one), **span).forecasts
    pd.testing.assert_frame_equal(alone, together)
    done = [n for n, _, _ in told]
    assert done == sorted(done) and done[-1] == told[-1][1] and done[-1] % 3 == 0  # three models, block by block


@pytest.mark.slow
def test_a_process_that_is_killed_ends_the_backtest_with_a_sentence(monkeypatch):
    task = demand_task(inputs=())
    actuals, _ = world(task, last="2026-03-20")
    span = {"first_day": dt.date(2026, 3, 14), "last_day": dt.date(2026, 3, 16), "models": ("like_day", "lear")}
    monkeypatch.setattr("lakehouse.forecasting.backtest._one_model", _dies)
    with pytest.raises(ForecastError, match="ended from outside"):
        backtest(task, actuals, None, workers=2, **span)


def test_extreme_negative_prices_and_a_constant_series_are_forecast():
    task = demand_task(
        target="price", unit="EUR/MWh", actuals_availability="day_ahead", inputs=(ExogenousInput("load", "MW", "operator_forecast"),)
    )
    actuals, inputs = world(task, last="2026-03-20")
    actuals.loc[actuals.index % 97 == 0, "value"] = -3000.0
    span = {"first_day": dt.date(2026, 3, 14), "last_day": dt.date(2026, 3, 16), "models": ("lear", "lightgbm")}
    found = backtest(task, actuals, inputs, **span)
    assert found.forecasts["p50"].notna().all() and found.forecasts["p50"].between(-6000, 6000).all()
    flat = backtest(task, actuals.assign(value=5.0), inputs, **span)
    assert flat.measures["lightgbm"]["mae"] < 0.01 and flat.measures["lear"]["mae"] < 0.01


def test_a_span_without_data_or_without_history_is_refused_in_a_sentence():
    task = demand_task(inputs=())
    actuals, _ = world(task, last="2026-03-20")
    with pytest.raises(ForecastError, match="the data run from 2026-01-01 to 2026-03-20"):
        backtest(task, actuals, None, first_day=dt.date(2027, 1, 1), last_day=dt.date(2027, 1, 5))
    with pytest.raises(ForecastError, match="three weeks of earlier actuals"):
        backtest(task, actuals, None, first_day=dt.date(2026, 1, 10), last_day=dt.date(2026, 1, 15))


def test_measures_by_hand():
    task = demand_task(quantiles=(0.1, 0.5, 0.9))
    at = pd.date_range("2026-01-01", periods=2, freq="h", tz="UTC")
    rows = pd.DataFrame(
        {
            "series_id": "a",
            "valid_at": at,
            "actual": [100.0, 200.0],
            "naive": [120.0, 180.0],
            "p10": [80.0, 190.0],
            "p50": [90.0, 200.0],
            "p90": [95.0, 210.0],
        }
    )
    found = metrics.measure(rows, task)
    assert (found["mae"], found["mape"], found["coverage_80"]) == (5.0, 5.0, 50.0)
    assert found["wape"] == pytest.approx(10 / 3) and found["rmae"] == 0.25
    # first row: 0.1*20, 0.5*10, 0.9*5; second: 0.1*10, 0, 0.1*10
    assert found["pinball"] == pytest.approx((2 + 5 + 4.5 + 1 + 0 + 1) / 6)


def test_diebold_mariano_tells_a_better_model_from_chance():
    rng = np.random.default_rng(0)
    loss = rng.uniform(1, 2, 100)
    assert metrics.diebold_mariano(loss - rng.uniform(0, 0.4, 100), loss)[1] < 0.001
    assert metrics.diebold_mariano(loss, loss)[1] == 1.0
    assert 0.05 < metrics.diebold_mariano(rng.uniform(1, 2, 100), loss)[1] < 0.95


def test_what_the_data_lack_is_told_beside_the_figures():
    task = demand_task()
    actuals, inputs = world(task, last="2026-03-31")
    gap = (actuals["interval_start"] > pd.Timestamp("2026-02-10", tz="UTC")) & (
        actuals["interval_start"] < pd.Timestamp("2026-02-20", tz="UTC")
    )
    stopped = inputs[inputs["interval_start"] < pd.Timestamp("2026-03-20", tz="UTC")]
    result = backtest(
        task, actuals[~gap], stopped, first_day=dt.date(2026, 3, 25), last_day=dt.date(2026, 3, 28), models=["like_day", "lear"]
    )
    history, before, within = result.notes
    assert "up to 10 days long" in history
    assert "temperature is missing for" in before and "100% of the intervals in the span" in within
    assert result.summary_rows("here")[0]["notes"] == result.notes
    assert np.isfinite(result.measures["lear"]["mae"])


def test_a_span_that_outlasts_the_data_is_scored_up_to_their_end_and_says_so():
    task = demand_task()
    actuals, inputs = world(task, last="2026-03-27")
    result = backtest(task, actuals, inputs, first_day=dt.date(2026, 3, 25), last_day=dt.date(2026, 4, 5), models=["like_day"])
    assert result.measures["like_day"]["n"] == 3 * 24
    # one sentence for one cause: that the input ends with the actuals is no news
    assert result.notes == ["The actuals end on 2026-03-27, the span on 2026-04-05: the days between are not scored."]


def test_a_constant_series_is_forecast_and_told():
    task = demand_task(inputs=())
    actuals, _ = world(task, last="2026-03-31")
    result = backtest(
        task, actuals.assign(value=50.0), None, first_day=dt.date(2026, 3, 25), last_day=dt.date(2026, 3, 26), models=["lear", "lightgbm"]
    )
    assert result.notes == ["demand is 50 throughout: there is nothing to learn."]
    assert result.measures["lightgbm"]["mae"] == pytest.approx(0, abs=0.01)
