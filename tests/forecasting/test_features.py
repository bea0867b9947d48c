import datetime as dt

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lakehouse.errors import ForecastError
from lakehouse.forecasting.features import (
    KEY_COLUMNS,
    TARGET_COLUMN,
    build_features,
    feature_batches,
    feature_dictionary,
    feature_names,
    history_days,
    table_schema,
)
from lakehouse.forecasting.task import ExogenousInput
from lakehouse.forecasting.view import KnownWorld
from tests.forecasting.builders import ZONE, demand_task, world


def at(table: pa.Table, when: str) -> dict:
    frame = table.to_pandas().set_index("valid_at")
    return frame.loc[pd.Timestamp(when, tz="UTC")].to_dict()


def ramp(task, first="2026-01-01", last="2026-03-31"):
    """Actuals whose value is the hour number since the first hour, so that every lag can be read off."""
    start, end = task.day_bounds(pd.Timestamp(first))[0], task.day_bounds(pd.Timestamp(last))[1]
    hours = pd.date_range(start, end, freq="h", inclusive="left").as_unit("us")
    return pd.DataFrame({"series_id": "north", "interval_start": hours, "value": np.arange(len(hours), dtype=float)})


def test_lags_are_same_wall_clock_and_blank_where_not_known_yet():
    task = demand_task(inputs=(), actuals_delay_hours=1)
    actuals = ramp(task)
    table = build_features(task, actuals, None, task.issue_instants(dt.date(2026, 2, 10), dt.date(2026, 2, 10)))
    early, late = at(table, "2026-02-11 03:00"), at(table, "2026-02-11 20:00")  # issued 10 Feb 09:00 UTC
    assert early["target_value"] - early["lag_1d"] == 24  # 10 Feb 03:00 was known by then
    assert np.isnan(late["lag_1d"])  # 10 Feb 20:00 was not
    assert late["target_value"] - late["lag_2d"] == 48
    assert late["target_value"] - late["lag_known"] == 48
    assert late["target_value"] - late["lag_7d"] == 168


def test_levels_end_with_the_last_known_hour():
    task = demand_task(inputs=(), actuals_delay_hours=1)
    actuals = ramp(task)
    table = build_features(task, actuals, None, task.issue_instants(dt.date(2026, 2, 10), dt.date(2026, 2, 10)))
    row = at(table, "2026-02-11 20:00")
    last = actuals.set_index("interval_start")["value"][pd.Timestamp("2026-02-10 07:00", tz="UTC")]  # 07-08 h, known at 09 h
    assert row["last_value"] == last
    assert row["mean_24h"] == last - 11.5
    assert row["change_24h"] == 168


def test_across_the_clock_change_a_lag_keeps_the_wall_clock():
    task = demand_task(inputs=())
    table = build_features(task, ramp(task), None, task.issue_instants(dt.date(2026, 3, 29), dt.date(2026, 3, 29)))
    row = at(table, "2026-03-30 10:00")  # 12:00 summer time; 12:00 winter time two days before was 11:00 UTC
    assert row["target_value"] - row["lag_2d"] == 47
    assert row["is_daylight_saving"] == 1


def test_the_like_day_of_a_holiday_is_a_sunday():
    task = demand_task(inputs=())
    actuals = ramp(task)
    table = build_features(task, actuals, None, task.issue_instants(dt.date(2026, 1, 5), dt.date(2026, 1, 5)))
    row = at(table, "2026-01-06 12:00")  # Epiphany, a Tuesday
    assert row["holiday_share"] == 1 and row["day_type"] == 4
    assert row["target_value"] - row["like_1"] == 48  # Sunday 4 January


def test_temperature_becomes_degree_hours_and_smoothing():
    task = demand_task()
    actuals = ramp(task)
    inputs = pd.DataFrame({"interval_start": actuals["interval_start"], "temperature": 5.0})
    row = at(build_features(task, actuals, inputs, task.issue_instants(dt.date(2026, 2, 10), dt.date(2026, 2, 10))), "2026-02-11 12:00")
    assert row["temperature_heating"] == 10 and row["temperature_cooling"] == 0
    assert row["temperature_mean_72h"] == 5 and row["temperature_day_max"] == 5


def test_wind_speed_goes_through_a_power_curve():
    task = demand_task(target="wind", inputs=(ExogenousInput("speed", "m/s", "weather", "day_ahead"),))
    actuals = ramp(task)
    power = []
    for speed in (1.0, 6.0, 14.0, 40.0):
        inputs = pd.DataFrame({"interval_start": actuals["interval_start"], "speed": speed})
        power.append(
            at(build_features(task, actuals, inputs, task.issue_instants(dt.date(2026, 2, 10), dt.date(2026, 2, 10))), "2026-02-11 12:00")[
                "speed_power"
            ]
        )
    assert power[0] == 0 and 0.3 < power[1] < 0.5 and power[2] == 1 and power[3] == 0  # standstill, part load, rated, cut out


def test_an_input_known_only_afterwards_gives_its_past_alone():
    task = demand_task(inputs=(ExogenousInput("flow", "MW", "market", "actual", delay_hours=1),))
    actuals = ramp(task)
    inputs = pd.DataFrame({"interval_start": actuals["interval_start"], "flow": actuals["value"]})
    table = build_features(task, actuals, inputs, task.issue_instants(dt.date(2026, 2, 10), dt.date(2026, 2, 10)))
    assert "flow" not in feature_names(task)
    row = at(table, "2026-02-11 20:00")
    assert np.isnan(row["flow_lag_1d"]) and row["target_value"] - row["flow_lag_2d"] == 48
    assert row["flow_mean_24h"] == row["mean_24h"]


def test_the_operators_recent_errors_are_features():
    task = demand_task(inputs=(ExogenousInput("operator", "MW", "operator_forecast", forecasts_target=True),))
    actuals = ramp(task)
    inputs = pd.DataFrame({"interval_start": actuals["interval_start"], "operator": actuals["value"] - 3})
    row = at(build_features(task, actuals, inputs, task.issue_instants(dt.date(2026, 2, 10), dt.date(2026, 2, 10))), "2026-02-11 20:00")
    assert row["operator_error_lag_2d"] == 3 and row["operator_error_24h"] == 3 and row["operator"] == row["target_value"] - 3


def test_the_table_is_what_its_schema_and_dictionary_say():
    task = demand_task(series_ids=("north", "south"))
    actuals, inputs = world(task, last="2026-03-10")
    table = build_features(task, actuals, inputs, task.issue_instants(dt.date(2026, 3, 1), dt.date(2026, 3, 3)))
    assert table.schema == table_schema(task) and table.num_rows == 2 * 3 * 24
    assert [name for name, _, _ in feature_dictionary(task)] == feature_names(task) and len(set(feature_names(task))) == len(
        feature_names(task)
    )
    assert all(text for _, _, text in feature_dictionary(task))


def test_one_day_computed_from_its_history_alone_equals_the_same_day_computed_in_bulk():
    task = demand_task(series_ids=("north", "south"))
    actuals, inputs = world(task)
    bulk = build_features(task, actuals, inputs, task.issue_instants(dt.date(2026, 3, 20), dt.date(2026, 4, 20)))
    day = task.issue_instants(dt.date(2026, 4, 3), dt.date(2026, 4, 3))
    since = day[0] - pd.Timedelta(days=history_days(task))
    alone = build_features(task, actuals[actuals["interval_start"] >= since], inputs[inputs["interval_start"] >= since], day)
    expected = bulk.to_pandas().query("issued_at == @day[0]").reset_index(drop=True)
    pd.testing.assert_frame_equal(alone.to_pandas(), expected, rtol=1e-12)


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    day=st.dates(dt.date(2026, 2, 20), dt.date(2026, 4, 10)),
    kind=st.sampled_from(["plain", "operator", "actual", "prices"]),
    hour=st.integers(0, 23),
    delay=st.sampled_from([0.0, 1.0, 2.5, 30.0]),
)
def test_changing_everything_after_the_issue_changes_no_feature(day, kind, hour, delay):
    inputs_of = {
        "plain": (),
        "operator": (
            ExogenousInput("operator", "MW", "operator_forecast", forecasts_target=True),
            ExogenousInput("temperature", "degC", "weather", "day_ahead"),
        ),
        "actual": (ExogenousInput("flow", "MW", "market", "actual", delay_hours=3),),
        "prices": (ExogenousInput("load", "MW", "operator_forecast"),),
    }
    task = demand_task(
        target="price" if kind == "prices" else "demand",
        inputs=inputs_of[kind],
        issue_time_local=f"{hour:02d}:00",
        actuals_delay_hours=delay,
        actuals_availability="day_ahead" if kind == "prices" else "after_interval",
    )
    actuals, inputs = world(task, last="2026-04-20")
    issue = task.issue_instants(day, day)
    seen = KnownWorld(task, actuals, inputs, issue[0])
    before = build_features(task, actuals, inputs, issue)
    rng = np.random.default_rng(1)
    changed = actuals.copy()
    unknown = ~changed.index.isin(seen.actuals().index)
    changed.loc[unknown, "value"] = rng.normal(1e6, 1e5, unknown.sum())
    known_inputs = seen.inputs()
    changed_inputs = inputs.copy()
    for item in task.inputs:
        hidden = known_inputs[item.name].isna()
        changed_inputs.loc[hidden, item.name] = rng.normal(-1e6, 1e5, hidden.sum())
    after = build_features(task, changed, changed_inputs, issue)
    assert before.drop_columns("target_value").equals(after.drop_columns("target_value"))


def test_gaps_stay_gaps():
    task = demand_task(inputs=())
    actuals = ramp(task)
    gone = actuals[actuals["interval_start"] != pd.Timestamp("2026-02-04 20:00", tz="UTC")]
    row = at(build_features(task, gone, None, task.issue_instants(dt.date(2026, 2, 10), dt.date(2026, 2, 10))), "2026-02-11 20:00")
    assert np.isnan(row["lag_7d"]) and row["target_value"] - row["lag_8d"] == 192


def test_input_that_stops_leaves_blanks_and_no_error():
    task = demand_task()
    actuals, inputs = world(task)
    table = build_features(
        task,
        actuals,
        inputs[inputs["interval_start"] < pd.Timestamp("2026-03-01", tz="UTC")],
        task.issue_instants(dt.date(2026, 3, 10), dt.date(2026, 3, 10)),
    )
    assert table.column("temperature").null_count == 24


def test_long_inputs_equal_wide_ones():
    task = demand_task()
    actuals, inputs = world(task, last="2026-03-10")
    long = inputs.melt(id_vars="interval_start", var_name="name", value_name="value")
    day = task.issue_instants(dt.date(2026, 3, 1), dt.date(2026, 3, 1))
    assert build_features(task, actuals, inputs, day).equals(build_features(task, actuals, long, day))


def test_quarter_hours_in_an_hourly_series_are_refused():
    task = demand_task(inputs=())
    actuals = ramp(task)
    mixed = pd.concat([actuals, actuals.assign(interval_start=actuals["interval_start"] + pd.Timedelta(minutes=15)).head(4)])
    with pytest.raises(ForecastError, match="every 60 minutes, found 4 rows"):
        build_features(task, mixed, None, task.issue_instants(dt.date(2026, 2, 10), dt.date(2026, 2, 10)))


def test_doubled_intervals_and_missing_series_are_refused():
    task = demand_task(inputs=())
    actuals = ramp(task)
    issue = task.issue_instants(dt.date(2026, 2, 10), dt.date(2026, 2, 10))
    with pytest.raises(ForecastError, match="found several at 2026-01-05"):
        build_features(task, pd.concat([actuals, actuals[actuals["interval_start"] == pd.Timestamp("2026-01-05", tz="UTC")]]), None, issue)
    with pytest.raises(ForecastError, match="no actuals"):
        build_features(task, actuals.assign(series_id="elsewhere"), None, issue)


def test_quarter_hourly_series_have_96_slots():
    task = demand_task(interval_minutes=15, series_ids=("north",))
    actuals, inputs = world(task, last="2026-02-25")
    table = build_features(task, actuals, inputs, task.issue_instants(dt.date(2026, 2, 10), dt.date(2026, 2, 10)))
    assert table.num_rows == 96 and sorted(set(table.column("slot").to_pylist())) == list(range(96))
    assert table.to_pandas()["valid_at"].dt.tz_convert(ZONE).dt.date.nunique() == 1


def test_a_stream_of_many_series_holds_the_same_rows_issue_by_issue():
    task = demand_task(series_ids=("south", "north", "east"))
    actuals, inputs = world(task, last="2026-03-31")  # a clock change on the 29th
    gone = actuals.drop(index=actuals.index[1000:1010])
    issues = task.issue_instants(dt.date(2026, 3, 20), dt.date(2026, 3, 30))
    order = [("issued_at", "ascending"), ("series_id", "ascending"), ("valid_at", "ascending")]
    whole = build_features(task, gone, inputs, issues).sort_by(order)
    streamed = pa.Table.from_batches(feature_batches(task, gone.sample(frac=1, random_state=0), inputs, issues))
    assert streamed.sort_by(order).equals(whole)
    assert streamed.column("issued_at").to_pylist() == sorted(streamed.column("issued_at").to_pylist())


def test_some_features_are_those_of_the_whole_table():
    task = demand_task(series_ids=("north", "south"))
    actuals, inputs = world(task, last="2026-03-10")
    issues = task.issue_instants(dt.date(2026, 3, 1), dt.date(2026, 3, 3))
    whole = build_features(task, actuals, inputs, issues)
    names = ["lag_7d", "std_168h", "week_mean", "temperature_heating", "slot"]
    some = build_features(task, actuals, inputs, issues, columns=names)
    assert set(some.column_names) == {*KEY_COLUMNS, *names, TARGET_COLUMN}
    assert some.equals(whole.select(some.column_names))
    with pytest.raises(ForecastError, match="no feature lag_9d"):
        build_features(task, actuals, inputs, issues, columns=["lag_9d"])


def test_levels_are_those_of_the_known_hours_that_are_there():
    task = demand_task(inputs=(), series_ids=("north", "south"), actuals_delay_hours=1)
    actuals = pd.concat([ramp(task), ramp(task).assign(series_id="south")])
    last_known = pd.Timestamp("2026-02-10 07:00", tz="UTC")  # of the issue on 10 February, 09:00 UTC
    gap = (actuals["series_id"] == "south") & (actuals["interval_start"] > last_known - pd.Timedelta(hours=2))
    table = build_features(task, actuals[~gap], None, task.issue_instants(dt.date(2026, 2, 10), dt.date(2026, 2, 10))).to_pandas()
    north, south = (table[table["series_id"] == s].iloc[0] for s in ("north", "south"))
    assert south["last_value"] == north["last_value"] - 2
    assert (north["mean_24h"], south["mean_24h"]) == (north["last_value"] - 11.5, north["last_value"] - 12.5)
    assert north["max_24h"] - north["min_24h"] == 23 and south["max_24h"] - south["min_24h"] == 21
    assert north["std_168h"] == pytest.approx(np.std(np.arange(168), ddof=1))
