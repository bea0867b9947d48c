"""Finding days whose month and day were exchanged, and nothing else."""

from __future__ import annotations

import os
from datetime import UTC, date, datetime
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pytest

from lakehouse.series.day_month import DayMonthVerdict, day_month_swaps, verdicts

YEAR = np.arange(np.datetime64("2023-01-01T00", "h"), np.datetime64("2024-01-01T00", "h"))
HOUR = np.arange(len(YEAR)) % 24
DAY = np.arange(len(YEAR)) // 24


def judged(values: np.ndarray, times: np.ndarray = YEAR) -> list[DayMonthVerdict]:
    connection = duckdb.connect()
    columns = {"series_id": ["a"] * len(values), "quantity": ["load_mw"] * len(values), "interval_start": times.astype("datetime64[us]")}
    connection.register("series", pa.table(columns | {"value": values}))
    return verdicts(day_month_swaps(connection, "series"))


def exchanged(values: np.ndarray) -> np.ndarray:
    """The fault: each day up to the 12th shows the values of the date with day and month exchanged."""
    wrong = values.copy()
    for month in range(1, 13):
        for day in range(1, 13):
            there = (date(2023, month, day) - date(2023, 1, 1)).days * 24
            here = (date(2023, day, month) - date(2023, 1, 1)).days * 24
            wrong[there : there + 24] = values[here : here + 24]
    return wrong


def demand(seed: int = 1) -> np.ndarray:
    random = np.random.default_rng(seed)
    weekday = np.where(DAY % 7 < 5, 1.0, 0.8)
    season = 1.0 + 0.2 * np.cos(2 * np.pi * DAY / 365)
    return 500 * weekday * season * (1 + 0.2 * np.sin(2 * np.pi * (HOUR - 8) / 24)) + random.normal(0, 10, len(YEAR))


def sun(seed: int = 2) -> np.ndarray:
    cloud = np.random.default_rng(seed).uniform(0.3, 1.0, 366)[DAY]
    return np.clip(np.sin(np.pi * (HOUR - 6) / 12), 0, None) * (1 - 0.6 * np.cos(2 * np.pi * DAY / 365)) * cloud


def wind(seed: int = 3) -> np.ndarray:
    steps = np.random.default_rng(seed).normal(0, 1, len(YEAR))
    made = np.zeros(len(YEAR))
    for n in range(1, len(YEAR)):
        made[n] = 0.97 * made[n - 1] + steps[n]
    return made


@pytest.mark.parametrize("made", [demand, sun, wind])
def test_exchanged_days_are_found_and_right_ones_are_left_alone(made):
    (wrong,) = judged(exchanged(made()))
    (right,) = judged(made())
    assert (wrong.verdict, wrong.is_swapped, wrong.year) == ("swapped", True, 2023)
    assert wrong.score > 0.2
    assert "day and month look swapped" in wrong.evidence
    assert (right.verdict, right.is_swapped) == ("right", False)
    assert right.score < -0.2


def test_series_that_say_nothing_of_their_dates_are_undecided():
    same_every_day = np.sin(2 * np.pi * HOUR / 24)
    constant = np.full(len(YEAR), 7.0)
    for values in (same_every_day, constant):
        (one,) = judged(values)
        assert (one.verdict, one.is_swapped) == ("undecided", False)


def test_noise_is_not_taken_for_the_fault():
    found = [judged(np.random.default_rng(seed).normal(0, 1, len(YEAR)))[0] for seed in range(12)]
    assert not any(one.is_swapped for one in found)


def test_a_few_weeks_are_too_short_to_tell():
    (one,) = judged(exchanged(demand())[: 45 * 24], YEAR[: 45 * 24])
    assert (one.verdict, one.is_swapped) == ("too short to tell", False)
    assert "too short to tell" in one.evidence


def test_half_a_year_is_enough():
    half = 181 * 24
    assert judged(exchanged(demand())[:half], YEAR[:half])[0].is_swapped
    assert judged(demand()[:half], YEAR[:half])[0].verdict == "right"


def test_instants_are_read_on_the_clock_of_their_zone():
    connection = duckdb.connect()
    connection.execute("SET TimeZone = 'UTC'")
    values = exchanged(demand())
    connection.register("clock", pa.table({"clock": YEAR.astype("datetime64[us]"), "value": values}))
    connection.execute(
        "CREATE TABLE series AS SELECT 'a' AS series_id, '' AS quantity, timezone('Australia/Sydney', clock) AS interval_start,"
        " value FROM clock"
    )
    found = [one for one in verdicts(day_month_swaps(connection, "series", time_zone="Australia/Sydney")) if one.year == 2023]
    assert [one.is_swapped for one in found] == [True]


def published(path: str) -> Path:
    root = Path(os.environ.get("GRIDLAKE_DATA") or Path(__file__).parents[3] / "shared" / "data")
    if not (root / path).exists():
        pytest.skip(f"needs the published data {path} below GRIDLAKE_DATA")
    return root / path


@pytest.mark.real_data
def test_spains_table_has_the_fault_and_its_actual_price_has_not():
    path = published("spain/energy_dataset.csv.gz")
    connection = duckdb.connect()
    connection.execute("SET threads = 2")
    connection.execute(
        """
        CREATE TABLE series AS SELECT 'ES' AS series_id, quantity, TRY_CAST(time[:19] AS TIMESTAMP) AS interval_start,
            TRY_CAST(value AS DOUBLE) AS value
        FROM (UNPIVOT (FROM read_csv($path, all_varchar = true)) ON "total load actual", "generation solar", "generation wind onshore",
              "price day ahead", "price actual" INTO NAME quantity VALUE value)
        """,
        {"path": str(path)},
    )
    found = verdicts(day_month_swaps(connection, "series"))
    assert {one.quantity for one in found if one.is_swapped} == {
        "total load actual",
        "generation solar",
        "generation wind onshore",
        "price day ahead",
    }
    assert len([one for one in found if one.is_swapped]) == 12  # four columns, three years
    assert {one.verdict for one in found if one.quantity == "price actual"} == {"right"}


@pytest.mark.real_data
def test_repaired_and_german_series_are_right():
    from lakehouse.sources.base import LandedFile, ReadOptions, read_file

    spain = published("spain/energy_dataset.csv.gz")
    files = [(spain, "spain_energy", {}), *((p, "entsoe_export", {}) for p in sorted(published("entsoe_de/load").glob("*.csv.gz")))]
    for path, name, settings in files:
        landed = LandedFile(path, path.name, datetime.now(UTC).date(), "load")
        connection = duckdb.connect()
        connection.execute("SET TimeZone = 'UTC'; SET threads = 2")
        tables = list(read_file(landed, name, ReadOptions("Europe/Berlin" if "_de" in str(path) else "Europe/Madrid", settings)))
        connection.register("raw", pa.concat_tables(tables))
        connection.execute("CREATE TABLE series AS FROM raw WHERE quantity = 'load_mw' AND NOT is_forecast")
        found = verdicts(day_month_swaps(connection, "series", time_zone="Europe/Berlin"))
        assert found
        assert not any(one.is_swapped for one in found), path
