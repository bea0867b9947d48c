import datetime as dt

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from lakehouse.errors import ForecastError
from lakehouse.forecasting import metrics
from lakehouse.forecasting.features import build_features
from lakehouse.forecasting.models import make_model
from lakehouse.forecasting.models.base import column, uncrossed
from lakehouse.forecasting.models.day_matrix import DayMatrix
from lakehouse.forecasting.models.ensemble import Calibration, combine, member_weights, weights_from_past
from lakehouse.forecasting.models.lear import PENALTIES, _ridge
from lakehouse.forecasting.models.lightgbm_quantile import _course, _course_names
from lakehouse.forecasting.task import ExogenousInput
from tests.forecasting.builders import demand_task, world


@pytest.fixture(scope="module")
def learnt():
    task = demand_task()
    actuals, inputs = world(task, last="2026-05-10")
    table = build_features(task, actuals, inputs, task.issue_instants(dt.date(2026, 1, 15), dt.date(2026, 5, 9)))
    day = column(table, "days_since_2000")
    past = pa.array(day < day.max() - 10)
    return task, table.filter(past), table.filter(pa.array(day >= day.max() - 10))


@pytest.mark.parametrize("name", ["seasonal_naive", "like_day", "blend", "lightgbm", "lear", pytest.param("keras", marks=pytest.mark.slow)])
def test_a_model_beats_a_flat_guess_never_crosses_and_survives_saving(name, learnt, tmp_path):
    task, past, later = learnt
    model = make_model(name).fit(past, task, seed=3)
    quantiles = model.predict(later)
    truth = column(later, "target_value")
    assert quantiles.shape == (later.num_rows, len(task.quantiles))
    assert (np.diff(quantiles, axis=1) >= 0).all()
    assert np.mean(np.abs(quantiles[:, task.median_index] - truth)) < 0.5 * np.mean(np.abs(truth - truth.mean()))
    model.save(tmp_path)
    assert not [p for p in tmp_path.rglob("*") if p.suffix in (".pkl", ".pickle", ".joblib")]
    np.testing.assert_array_equal(make_model(name).load(tmp_path).predict(later), quantiles)


@pytest.mark.parametrize("name", ["lightgbm", "lear", pytest.param("keras", marks=pytest.mark.slow)])
def test_the_same_seed_gives_the_same_forecast(name, learnt):
    task, past, later = learnt
    first, second = (make_model(name).fit(past, task, seed=5).predict(later) for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_a_learning_model_beats_last_week(learnt):
    task, past, later = learnt
    truth = column(later, "target_value")
    error = {
        n: np.mean(np.abs(make_model(n).fit(past, task).predict(later)[:, task.median_index] - truth))
        for n in ("lightgbm", "seasonal_naive")
    }
    assert error["lightgbm"] < error["seasonal_naive"]


def test_one_model_serves_several_series_of_different_size():
    task = demand_task(series_ids=("small", "large"))
    actuals, inputs = world(task, last="2026-04-10")
    actuals.loc[actuals["series_id"] == "large", "value"] *= 1000
    table = build_features(task, actuals, inputs, task.issue_instants(dt.date(2026, 1, 15), dt.date(2026, 4, 9)))
    for name in ("lightgbm", "lear", "seasonal_naive"):
        median = make_model(name).fit(table, task).predict(table)[:, task.median_index]
        code, truth = column(table, "series_code"), column(table, "target_value")
        for n in (0, 1):
            assert np.nanmean(np.abs(median - truth)[code == n]) < 0.1 * np.nanmean(truth[code == n])


def test_too_short_a_history_is_refused_in_a_sentence():
    task = demand_task()
    actuals, inputs = world(task, last="2026-01-20")
    table = build_features(task, actuals, inputs, task.issue_instants(dt.date(2026, 1, 9), dt.date(2026, 1, 10)))
    with pytest.raises(ForecastError, match="needs at least 21"):
        make_model("lear").fit(table, task)


def test_an_unknown_model_is_refused():
    with pytest.raises(ForecastError, match="prophet"):
        make_model("prophet")


def test_a_day_matrix_reads_clock_changes():
    task = demand_task(inputs=())
    actuals, _ = world(task, last="2026-12-01")
    table = build_features(task, actuals, None, task.issue_instants(dt.date(2026, 10, 24), dt.date(2026, 10, 24)))  # 25 hours on the 25th
    grid = DayMatrix.of(table, task)
    assert grid.row_of.shape == (1, 24) and len(grid.gather(np.zeros((1, 24)))) == 25
    spring = build_features(task, actuals, None, task.issue_instants(dt.date(2026, 3, 28), dt.date(2026, 3, 28)))
    grid = DayMatrix.of(spring, task)
    assert grid.is_real.sum() == 23 and not grid.is_real[0, 2] and grid.row_of[0, 2] == grid.row_of[0, 1]


def test_quantiles_are_uncrossed_from_the_median_outwards():
    np.testing.assert_array_equal(uncrossed(np.array([[5.0, 1.0, 3.0, 2.0, 4.0]]), 2), [[1.0, 1.0, 3.0, 3.0, 4.0]])


def test_calibration_widens_what_was_too_narrow():
    rng = np.random.default_rng(0)
    truth = rng.normal(0, 2, 4000)
    narrow = np.tile([-1.0, 0.0, 1.0], (4000, 1))  # 80 % of a standard deviation of 2 is +-2.56
    calibrated = Calibration.from_past(narrow, truth, (0.1, 0.5, 0.9)).apply(narrow[:1], (0.1, 0.5, 0.9))
    np.testing.assert_allclose(calibrated[0], [-2.56, 0.0, 2.56], atol=0.15)


def test_the_better_member_gets_the_greater_weight_and_a_silent_one_none():
    truth = np.zeros(100)
    good, bad = np.full((100, 3), 1.0), np.full((100, 3), 2.0)
    weights = weights_from_past({"good": good, "bad": bad}, truth, 1, power=1)
    assert weights == pytest.approx({"good": 2 / 3, "bad": 1 / 3})
    silent = np.full((1, 3), np.nan)
    np.testing.assert_array_equal(combine({"good": good[:1], "bad": silent}, weights), [[1.0, 1.0, 1.0]])


def test_a_member_that_joined_late_is_weighed_by_the_days_it_knows_and_a_new_one_waits():
    truth = np.zeros(100)
    # the first half was hard for everybody; the late one only knows the easy half, in which it is no better than the first
    first = np.repeat([[4.0] * 3, [1.0] * 3], 50, axis=0)
    worse = 2 * first
    late = np.where(np.arange(100)[:, None] < 50, np.nan, first)
    new = np.full((100, 3), np.nan)
    weights = weights_from_past({"first": first, "worse": worse, "late": late, "new": new}, truth, 1, power=1)
    assert weights == pytest.approx({"first": 0.4, "worse": 0.2, "late": 0.4, "new": 0.0})
    assert weights_from_past({"one": new, "other": new}, truth, 1) == {"one": 0.5, "other": 0.5}


def test_on_a_short_past_the_blend_counts_more_and_errors_less_until_they_have_shown_themselves():
    truth, median = np.zeros(24 * 60), demand_task().median_index
    day = np.repeat(np.arange(60), 24)

    def weights(days, inputs=()):
        task = demand_task(inputs=inputs)
        few = day < days
        said = {name: np.full((few.sum(), len(task.quantiles)), size) for name, size in {"lightgbm": 1.0, "blend": 2.0}.items()}
        assert said["blend"][0, median] == 2.0
        return member_weights(task, said, truth[few], day[few])

    assert weights(1)["blend"] > 0.7  # nearly three to one, for all that the trees were better yesterday
    assert weights(1, demand_task().inputs)["blend"] == pytest.approx(0.5, abs=0.02)  # it knows nothing of the weather
    assert weights(60) == pytest.approx({"lightgbm": 8 / 9, "blend": 1 / 9})  # by their errors' third power
    assert weights(60) == weights_from_past({"lightgbm": np.ones((1440, 7)), "blend": np.full((1440, 7), 2.0)}, truth, median)


def test_models_do_not_load_tensorflow_unless_asked(learnt):
    import subprocess
    import sys

    heavy = ["tensorflow", "keras", "lightgbm", "sklearn", "matplotlib", "scipy", "pvlib"]
    modules = "lakehouse.forecasting.backtest, lakehouse.forecasting.predict, lakehouse.forecasting.registry"
    code = f"import sys, {modules}; print([m for m in {heavy} if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
    assert pd.__version__


def test_calibration_goes_further_out_when_its_own_past_missed_too_often():
    probabilities = (0.1, 0.5, 0.9)
    rng = np.random.default_rng(0)
    day = np.repeat(np.arange(60.0), 24)
    said = np.tile([-1.0, 0.0, 1.0], (len(day), 1))

    def width(size_of_day):
        """Width of the calibrated 80 % interval for errors of a size that changes from day to day."""
        truth = rng.normal(0, 1, len(day)) * np.repeat(size_of_day, 24)
        low, _, high = Calibration.from_past(said, truth, probabilities, day).apply(said[:1], probabilities)[0]
        return high - low

    steady, growing = width(np.ones(60)), width(1.06 ** np.arange(60) / 1.06**59)
    assert steady == pytest.approx(2 * 1.28, rel=0.15)  # the 10 and 90 % quantiles of a normal distribution
    # both end with errors of size one; where they grow, the past alone would have told too little
    ages = 59 - np.arange(60)
    told = np.sqrt(np.average((1.06 ** -(2.0 * ages)), weights=0.5 ** (ages / 10)))
    assert growing > 1.1 * told * 2 * 1.28


def test_a_linear_model_with_more_inputs_than_days_knows_that_it_knows_little():
    task = demand_task()
    actuals, inputs = world(task, last="2026-03-31")
    table = build_features(task, actuals, inputs, task.issue_instants(dt.date(2026, 1, 12), dt.date(2026, 3, 29)))
    day = np.array(table.column("date").to_pylist())
    seen, unseen = table.filter(pa.array(day < dt.date(2026, 3, 1))), table.filter(pa.array(day >= dt.date(2026, 3, 1)))
    model = make_model("lear").fit(seen, task)
    assert model.parameters()["inputs"] > 3 * model.parameters()["days"]
    said, truth = model.predict(unseen), column(unseen, "target_value")
    low, high = said[:, task.quantiles.index(0.1)], said[:, task.quantiles.index(0.9)]
    assert 0.6 < np.mean((truth >= low) & (truth <= high)) < 0.95


def test_calibration_follows_the_last_days_less_where_there_are_few():
    probabilities = (0.1, 0.5, 0.9)
    rng = np.random.default_rng(1)

    def widening(days):
        """How much wider the interval becomes when the errors of the last week are three times as large as before."""
        day = np.repeat(np.arange(float(days)), 24)
        said = np.tile([-1.0, 0.0, 1.0], (len(day), 1))
        error = rng.normal(0, 1, len(day))

        def width(truth):
            low, _, high = Calibration.from_past(said, truth, probabilities, day).apply(said[:1], probabilities)[0]
            return high - low

        return width(np.where(day >= days - 7, 3 * error, error)) / width(error)

    assert widening(60) > 1.5
    # a week is a third of these days, and an eighth of those: weighed evenly it would widen them more
    assert widening(21) < 1.1 * widening(60)


def test_what_the_linear_model_says_of_days_left_out_is_what_a_fit_without_them_says():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 8))
    z = x[:, :2] @ np.array([[1.0], [-0.5]]) + rng.normal(size=(60, 1))
    week = np.arange(60) // 7
    coefficients, _, left_out = _ridge(x - x.mean(axis=0), z - z.mean(), week)

    def fitted(rows, penalty):
        x_mean, z_mean = x[rows].mean(axis=0), z[rows].mean(axis=0)
        centred = x[rows] - x_mean
        found = np.linalg.solve(centred.T @ centred + penalty * np.eye(8), centred.T @ (z[rows] - z_mean))
        return found, lambda days: (x[days] - x_mean) @ found + z_mean

    everything = np.ones(60, dtype=bool)
    penalty = min(PENALTIES, key=lambda p: np.abs(fitted(everything, p)[0].T - coefficients).max())
    np.testing.assert_allclose(fitted(everything, penalty)[0].T, coefficients, atol=1e-8)
    for one in range(9):
        _, said = fitted(week != one, penalty)
        np.testing.assert_allclose(left_out[week == one] + z.mean(), said(week == one), atol=1e-4)


def test_between_two_fits_of_the_trees_the_linear_stage_below_them_learns_on():
    task = demand_task()
    actuals, inputs = world(task, last="2026-12-20")
    table = build_features(task, actuals, inputs, task.issue_instants(dt.date(2026, 1, 15), dt.date(2026, 12, 19)))
    day = column(table, "days_since_2000")

    def fit(until, previous=None):
        return make_model("lightgbm").fit(table.filter(pa.array(day < until)), task, previous=previous)

    last = day.max()
    first = fit(last - 20)
    week_later, month_later = fit(last - 13, first), fit(last, first)
    assert week_later.centre is first.centre and month_later.centre is not first.centre
    assert week_later.linear.equations[0]["days"] == first.linear.equations[0]["days"] + 7
    rows = table.filter(pa.array(day >= last - 3))
    assert not np.array_equal(week_later.predict(rows), first.predict(rows))


def with_an_operator(days=260, bias_by_hour=0.0):
    """Wind, and an operator's forecast of it that misses by noise, and by a bias that goes with the hour."""
    task = demand_task(target="wind", inputs=(ExogenousInput("operator", "MW", "operator_forecast", "day_ahead", forecasts_target=True),))
    random = np.random.default_rng(4)
    at = pd.date_range("2026-01-01", periods=24 * days, freq="h", tz="UTC").as_unit("us")
    told = 500 + 300 * np.sin(np.cumsum(random.normal(0, 0.2, len(at))))
    wind = told + bias_by_hour * np.sign(at.hour.to_numpy() - 11.5) + random.standard_t(3, len(at)) * 20
    actuals = pd.DataFrame({"series_id": "north", "interval_start": at, "value": wind})
    issues = task.issue_instants(dt.date(2026, 1, 15), (at[-1] - pd.Timedelta(days=2)).date())
    return task, build_features(task, actuals, pd.DataFrame({"interval_start": at, "operator": told}), issues)


def test_trees_leave_an_operators_forecast_alone_where_its_errors_are_noise():
    task, table = with_an_operator()
    day = column(table, "days_since_2000")
    later = table.filter(pa.array(day >= day.max() - 20))
    model = make_model("lightgbm").fit(table.filter(pa.array(day < day.max() - 20)), task)
    truth, operator = column(later, "target_value"), column(later, "operator")
    mine = np.nanmean(np.abs(model.predict(later)[:, task.median_index] - truth))
    assert model.parameters()["rounds"] < 20  # of 120
    assert mine < 1.01 * np.nanmean(np.abs(operator - truth))


def test_trees_learn_where_an_operators_forecast_is_biased():
    task, table = with_an_operator(bias_by_hour=60.0)
    day = column(table, "days_since_2000")
    later = table.filter(pa.array(day >= day.max() - 20))
    model = make_model("lightgbm").fit(table.filter(pa.array(day < day.max() - 20)), task)
    truth, operator = column(later, "target_value"), column(later, "operator")
    mine = np.nanmean(np.abs(model.predict(later)[:, task.median_index] - truth))
    assert mine < 0.5 * np.nanmean(np.abs(operator - truth))


def test_trees_of_wind_see_the_course_of_the_operators_forecast_around_an_interval(tmp_path):
    task, table = with_an_operator()
    model = make_model("lightgbm").fit(table, task)
    assert {"operator_before_3h", "operator_after_3h"} <= set(model.explain())
    day = column(table, "days_since_2000")
    tomorrow = table.filter(pa.array(day == day.max()))
    model.save(tmp_path)
    np.testing.assert_array_equal(make_model("lightgbm").load(tmp_path).predict(tomorrow), model.predict(tomorrow))
    told = column(tomorrow, "operator")
    course = dict(zip(_course_names(task, model.columns), _course(tomorrow, task, model.columns).T, strict=True))
    assert course["operator_after_3h"][5] == told[8] - told[5] and course["operator_before_2h"][5] == told[3] - told[5]
    assert course["operator_after_6h"][23] == 0  # nothing is read beyond the target day
    assert not _course_names(task, ["slot"]) and _course(tomorrow, task, ["slot"]).shape == (24, 0)  # a model that does without


def test_a_few_wild_days_do_not_bend_the_forecast_of_the_others():
    task = demand_task(inputs=())
    actuals, _ = world(task, last="2026-12-31")
    wild = np.random.default_rng(1).random(len(actuals)) < 0.03
    actuals.loc[wild, "value"] *= 20
    table = build_features(task, actuals, None, task.issue_instants(dt.date(2026, 1, 15), dt.date(2026, 12, 30)))
    day, truth = column(table, "days_since_2000"), column(table, "target_value")
    calm = np.isfinite(truth) & (truth < 1000)
    later = table.filter(pa.array((day >= day.max() - 15) & calm))
    model = make_model("lightgbm").fit(table.filter(pa.array(day < day.max() - 15)), task)
    assert metrics.mape(column(later, "target_value"), model.predict(later)[:, task.median_index]) < 10


def test_a_blend_leans_on_what_did_well_of_late():
    task = demand_task(inputs=())
    actuals, _ = world(task, last="2026-03-20")
    # no weekday matters here, and the level rises by a tenth a day: the days just past are the best guide
    at = (actuals["interval_start"] - actuals["interval_start"].min()) / pd.Timedelta(days=1)
    actuals["value"] = (10 + np.sin(2 * np.pi * at)) * 1.1**at
    table = build_features(task, actuals, None, task.issue_instants(dt.date(2026, 2, 20), dt.date(2026, 3, 18)))
    (weights,) = make_model("blend").fit(table, task).parameters()["weights"]
    like_days, last_week, week_mean, last_days = weights
    assert last_days > 0.8 and week_mean > last_week
    assert sum(weights) == pytest.approx(1.0) and like_days >= 0


def test_trees_of_a_few_weeks_see_nothing_that_only_tells_one_day_from_another(tmp_path):
    task = demand_task(inputs=())
    actuals, _ = world(task, last="2026-04-30")
    table = build_features(task, actuals, None, task.issue_instants(dt.date(2026, 2, 1), dt.date(2026, 4, 29)))
    day = column(table, "days_since_2000")
    trend = {"days_since_2000", "day_of_year", "year_sin", "year_cos", "mean_672h"}
    weeks = table.filter(pa.array(day < day.min() + 28))
    short, long = make_model("lightgbm").fit(weeks, task), make_model("lightgbm").fit(table, task)
    assert trend <= set(long.explain()) and not trend & set(short.explain())
    assert short.parameters()["num_leaves"] < long.parameters()["num_leaves"]
    short.save(tmp_path)
    np.testing.assert_allclose(make_model("lightgbm").load(tmp_path).predict(weeks), short.predict(weeks))


def test_nights_of_a_solar_forecast_are_certain_and_tell_nothing_of_the_days():
    probabilities = (0.1, 0.5, 0.9)
    random = np.random.default_rng(3)
    night = np.tile(np.arange(24) < 12, 60)
    truth = np.where(night, 0.0, 100 + 20 * random.standard_normal(len(night)))
    said = np.where(night[:, None], [0.5, 1.0, 2.0], [95.0, 100.0, 105.0])
    day = np.repeat(np.arange(60.0), 24)
    calibration = Calibration.from_past(said, truth, probabilities, day, is_dark=night)
    found = calibration.apply(said, probabilities, is_dark=night)
    assert (found[night] == 0).all()
    low, _, high = found[~night].T
    assert 75 < metrics.coverage(truth[~night], low, high) < 85
    assert metrics.coverage(truth, found[:, 0], found[:, 2]) == metrics.coverage(truth[~night], low, high)

    uneven = np.where(night & (day == 7), 5.0, truth)  # a night with light: nothing is certain any more
    assert Calibration.from_past(said, uneven, probabilities, day, is_dark=night).dark is None
