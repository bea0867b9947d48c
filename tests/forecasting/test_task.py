import datetime as dt

import pandas as pd
import pytest

from lakehouse.errors import ForecastError, LookAheadError
from lakehouse.forecasting.task import ExogenousInput, ForecastTask, quantile_column
from lakehouse.forecasting.view import KnownWorld, refuse_look_ahead
from tests.forecasting.builders import demand_task, world


def utc(text):
    return pd.Timestamp(text, tz="UTC")


def test_an_issue_covers_23_24_or_25_hours_of_the_next_local_day():
    task = demand_task()
    lengths = {
        day: len(task.valid_instants(task.issue_instants(day, day)[0]))
        for day in (dt.date(2026, 3, 27), dt.date(2026, 3, 28), dt.date(2026, 10, 24))
    }
    assert lengths == {dt.date(2026, 3, 27): 24, dt.date(2026, 3, 28): 23, dt.date(2026, 10, 24): 25}


def test_the_issue_time_is_local_and_moves_with_daylight_saving():
    task = demand_task(issue_time_local="10:00")
    assert list(task.issue_instants(dt.date(2026, 3, 28), dt.date(2026, 3, 29))) == [utc("2026-03-28 09:00"), utc("2026-03-29 08:00")]


def test_an_actual_is_known_a_delay_after_its_interval_ends():
    task = demand_task(actuals_delay_hours=2)
    known = task.actuals_known_before(pd.DatetimeIndex([utc("2026-01-10 09:00"), utc("2026-01-10 09:59")]))
    assert list(known) == [utc("2026-01-10 07:00"), utc("2026-01-10 07:00")]  # 06:00-07:00 ended two hours before


def test_auction_prices_of_the_issue_day_are_known_at_the_issue():
    task = demand_task(target="price", actuals_availability="day_ahead", issue_time_local="11:00")
    issue = task.issue_instants(dt.date(2026, 1, 10), dt.date(2026, 1, 10))
    assert task.actuals_known_before(issue)[0] == utc("2026-01-10 23:00")  # midnight in Madrid


def test_the_known_world_refuses_to_read_past_the_issue():
    task = demand_task(actuals_delay_hours=1)
    actuals, inputs = world(task, last="2026-01-20")
    seen = KnownWorld(task, actuals, inputs, utc("2026-01-10 09:00"))
    assert seen.actual("north", utc("2026-01-10 07:00")) > 0
    with pytest.raises(LookAheadError, match="2026-01-10T08:00"):
        seen.actual("north", utc("2026-01-10 08:00"))
    assert seen.actuals()["interval_start"].max() == utc("2026-01-10 07:00")


def test_a_feature_that_reads_too_far_raises():
    import numpy as np

    refuse_look_ahead(np.array([5, 0]), np.array([5, 5]), "lag")
    with pytest.raises(LookAheadError, match="position 6"):
        refuse_look_ahead(np.array([5, 6]), np.array([5, 5]), "lag")


@pytest.mark.parametrize(
    "wrong",
    [
        {"target": "gas"},
        {"series_ids": ()},
        {"quantiles": (0.9, 0.5, 0.1)},
        {"issue_time_local": "25:00"},
        {"interval_minutes": 7},
        {"quantiles": (0.5,)},
    ],
)
def test_a_task_that_cannot_be_is_refused(wrong):
    with pytest.raises(ForecastError):
        demand_task(**wrong)


def test_input_names_are_identifiers_and_quantile_columns_are_readable():
    with pytest.raises(ForecastError, match="lower-case"):
        ExogenousInput('x"; DROP TABLE actuals; --')
    assert [quantile_column(q) for q in (0.05, 0.1, 0.5, 0.975)] == ["p05", "p10", "p50", "p97_5"]


def test_perfect_weather_is_labelled():
    assert demand_task().label == "perfect weather"
    assert ForecastTask("demand", ("a",)).label == ""
