"""Which value wins, which is not believed, and that nothing disappears."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import duckdb
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lakehouse.contracts.quality import Conservation, Quarantine
from lakehouse.contracts.raw import RawSeries
from lakehouse.series.clean import RULES, Cleaned, clean_series, codes, tables_for

MIDNIGHT = datetime(2026, 1, 1, tzinfo=UTC)
LOAD, PRICE = "load_mw", "price_eur_per_mwh"


def row(value: float | None, *, hour: float = 0, line: int = 2, **other: object) -> dict:
    start = MIDNIGHT + timedelta(hours=hour)
    made = {
        "feed": "load", "file": "a.csv", "line": line, "delivery_date": date(2026, 2, 1), "date": start.date(),
        "fault": None, "raw_text": None,
        "series_id": "north", "quantity": LOAD, "interval_start": start, "interval_minutes": 60, "value": value, "is_forecast": False,
    }  # fmt: skip
    return made | other


def clean(*rows: dict, **options: object) -> Cleaned:
    connection = duckdb.connect()
    connection.execute("SET TimeZone = 'UTC'; SET threads = 2")
    schema = pa.schema([pa.field("feed", pa.string()), *(f.with_nullable(True) for f in RawSeries.arrow_schema())])
    connection.register("delivered", pa.Table.from_pylist(list(rows), schema=schema))
    return clean_series(connection, "delivered", **options)


def rows_of(relation: duckdb.DuckDBPyRelation) -> list[dict]:
    return relation.to_arrow_table().to_pylist()


def refused(cleaned: Cleaned) -> list[tuple[int, str]]:
    return sorted((r["line"], r["rule"]) for r in rows_of(cleaned.quarantined))


def loads(cleaned: Cleaned) -> list[float]:
    return [r["load_mw"] for r in sorted(rows_of(cleaned.trusted["cleaned/load"]), key=lambda r: r["interval_start"])]


def test_every_quantity_goes_to_its_table():
    cleaned = clean(
        row(500.0),
        row(480.0, is_forecast=True),
        row(90.0, series_id="wind_onshore", quantity="generation_mw"),
        row(-12.5, series_id="day_ahead", quantity=PRICE),
        row(4.0, series_id="airport", quantity="temperature_c"),
        row(80.0, series_id="airport", quantity="humidity_pct"),
    )
    (load,) = rows_of(cleaned.trusted["cleaned/load"])
    (forecast,) = rows_of(cleaned.trusted["cleaned/external_forecasts"])
    (wind,) = rows_of(cleaned.trusted["cleaned/generation"])
    (price,) = rows_of(cleaned.trusted["cleaned/prices"])
    (weather,) = rows_of(cleaned.trusted["cleaned/weather"])
    assert (load["load_mw"], load["series_id"], load["estimated_share"], load["delivery_date"]) == (500.0, "north", None, date(2026, 2, 1))
    assert (forecast["quantity"], forecast["value"]) == (LOAD, 480.0)
    assert wind["generation_mw"] == 90.0
    assert price["price_eur_per_mwh"] == -12.5
    assert (weather["temperature_c"], weather["humidity_pct"], weather["pressure_hpa"]) == (4.0, 80.0, None)


def test_results_keep_their_contracts():
    cleaned = clean(row(500.0), row(None, fault="no number", line=3), row(4.0, quantity="temperature_c"), row(1.0, quantity=PRICE))
    for name, contract in tables_for().items():
        list(contract.validated(cleaned.trusted[name].to_arrow_table().to_batches()))
    list(Quarantine.validated(cleaned.quarantined.to_arrow_table().to_batches()))
    list(Conservation.validated(cleaned.conservation.to_arrow_table().to_batches()))


def test_prices_are_kept_in_the_sites_currency_only():
    cleaned = clean(row(30.0, quantity="price_aud_per_mwh"), row(28.0, quantity=PRICE, hour=1, line=3), currency="AUD")
    assert [r["price_aud_per_mwh"] for r in rows_of(cleaned.trusted["cleaned/prices"])] == [30.0]
    assert refused(cleaned) == [(3, "unknown_quantity")]


def test_the_newest_delivery_wins_and_then_the_later_line():
    first = row(1.0, line=9)
    corrected = row(2.0, delivery_date=date(2026, 2, 2), line=2)
    corrected_again = row(3.0, delivery_date=date(2026, 2, 2), line=3)
    for order in ([first, corrected, corrected_again], [corrected_again, first, corrected]):
        cleaned = clean(*order)
        assert loads(cleaned) == [3.0]
        assert refused(cleaned) == [(2, "superseded"), (9, "superseded")]


def test_a_repeated_row_is_an_exact_duplicate_and_not_in_quarantine():
    cleaned = clean(row(1.0), row(1.0, line=3))
    (kept,) = rows_of(cleaned.conservation)
    assert (kept["delivered"], kept["cleaned"], kept["exact_duplicates"], kept["is_conserved"]) == (2, 1, 1, True)
    assert refused(cleaned) == []


def test_a_later_value_that_cannot_be_leaves_the_earlier_one_standing():
    good = row(12.0, series_id="a", quantity="temperature_c")
    impossible = row(400.0, series_id="a", quantity="temperature_c", delivery_date=date(2026, 2, 2), line=3)
    cleaned = clean(good, impossible)
    assert [r["temperature_c"] for r in rows_of(cleaned.trusted["cleaned/weather"])] == [12.0]
    (told,) = rows_of(cleaned.quarantined)
    assert (told["rule"], told["reason"]) == ("outside_limits", "expected temperature_c from -70 to 60, found 400")
    assert (told["meter_id"], told["register"]) == ("a", "temperature_c")


def test_limits_can_be_set_for_a_site():
    cleaned = clean(row(5_000.0), row(900.0, hour=1, line=3), limits={LOAD: (0.0, 1_000.0)})
    assert loads(cleaned) == [900.0]
    assert refused(cleaned) == [(2, "outside_limits")]


def test_a_price_that_no_market_allows_is_refused_with_its_limits():
    cleaned = clean(
        row(-500.0, quantity=PRICE), row(-1_000_000.0, hour=1, line=3, quantity=PRICE), row(1e6, hour=2, line=4, quantity=PRICE)
    )
    assert [r["price_eur_per_mwh"] for r in rows_of(cleaned.trusted["cleaned/prices"])] == [-500.0]
    assert refused(cleaned) == [(3, "outside_limits"), (4, "outside_limits")]
    assert "expected price_eur_per_mwh from -10000 to 100000, found -1000000" in [r["reason"] for r in rows_of(cleaned.quarantined)]


def test_a_sites_limits_narrow_those_of_the_lake_on_the_sides_that_they_name():
    given = [row(-500.0, quantity=PRICE), row(4_500.0, hour=1, line=3, quantity=PRICE), row(-2e4, hour=2, line=4, quantity=PRICE)]
    assert refused(clean(*given, limits={PRICE: (None, 4_000.0)})) == [(3, "outside_limits"), (4, "outside_limits")]


@pytest.mark.parametrize(
    ("bad", "rule"),
    [
        ({"value": None, "fault": "expected a number"}, "unreadable_line"),
        ({"quantity": "sunspots"}, "unknown_quantity"),
        ({"interval_minutes": 7}, "wrong_interval_length"),
        ({"interval_minutes": None}, "wrong_interval_length"),
    ],
)
def test_a_row_that_cannot_stand_is_refused_with_its_rule(bad: dict, rule: str):
    cleaned = clean(row(1.0, line=2), row(1.0, hour=1, line=3) | bad)
    assert refused(cleaned) == [(3, rule)]
    assert loads(cleaned) == [1.0]
    assert rule in RULES


def test_a_file_that_could_not_be_read_is_told_apart_from_a_line():
    assert refused(clean(row(None, fault="broken", line=0))) == [(0, "unreadable_file")]


def test_the_rooms_own_rules_are_explained_in_the_codes():
    assert codes()["code"].to_pylist() == ["unknown_quantity", "outside_limits", "mixed_resolution"]


def test_a_start_off_the_series_own_grid_is_refused_and_half_hour_zones_are_fine():
    india = [row(1.0, hour=h + 0.5, line=2 + h) for h in range(5)]
    assert refused(clean(*india)) == []
    assert refused(clean(*india, row(1.0, hour=7.25, line=9))) == [(9, "misaligned_interval")]


def test_an_hour_in_two_lengths_keeps_the_one_that_covers_more():
    quarters = [row(float(q), hour=q / 4, interval_minutes=15, line=2 + q) for q in range(4)]
    assert refused(clean(row(9.0, line=20), *quarters)) == [(20, "mixed_resolution")]
    assert refused(clean(row(9.0, line=20), *quarters[:2])) == [(2, "mixed_resolution"), (3, "mixed_resolution")]
    # A change of length from one hour to the next is no fault.
    assert refused(clean(row(9.0, hour=1, line=20), *quarters)) == []


def days_of_load(days: int, quantity: str = LOAD) -> list[dict]:
    shape = [600, 580, 570, 575, 600, 650, 720, 800, 840, 850, 845, 830, 820, 815, 810, 820, 850, 900, 930, 910, 860, 780, 700, 640]
    return [row(shape[h % 24] + 3.0 * (h // 24 % 7), hour=h, line=2 + h, quantity=quantity) for h in range(days * 24)]


def test_a_single_wild_value_is_a_spike_and_the_morning_ramp_is_not():
    series = days_of_load(20)
    assert refused(clean(*series)) == []
    series[18 * 24 + 12]["value"] = 80.0
    assert refused(clean(*series)) == [(2 + 18 * 24 + 12, "spike")]


def test_prices_may_jump():
    series = days_of_load(20, quantity=PRICE)
    series[18 * 24 + 12]["value"] = 3_000.0
    assert refused(clean(*series)) == []


def test_a_plant_that_starts_after_weeks_of_rest_is_believed():
    resting = [row(0.0, hour=h, line=2 + h, quantity="generation_mw") for h in range(20 * 24)]
    running = [row(300.0 + 40.0 * (h % 3), hour=h, line=2 + h, quantity="generation_mw") for h in range(20 * 24, 21 * 24)]
    assert refused(clean(*resting, *running)) == []


def test_a_day_cleans_the_same_alone_and_in_a_range():
    series = days_of_load(20)
    series[18 * 24 + 12]["value"] = 80.0
    day = date(2026, 1, 19)
    alone = clean(*series, days=(day, day))
    everything = clean(*series)
    assert loads(alone) == [r["load_mw"] for r in rows_of(everything.trusted["cleaned/load"]) if r["date"] == day]
    assert refused(alone) == refused(everything) == [(2 + 18 * 24 + 12, "spike")]
    assert [r["delivered"] for r in rows_of(alone.conservation)] == [24]


def test_a_row_without_a_day_counts_on_its_delivery_date():
    nowhere = row(None, fault="expected a time", date=None, interval_start=None)
    cleaned = clean(nowhere, days=(date(2026, 2, 1), date(2026, 2, 1)))
    assert [(r["rule"], r["date"]) for r in rows_of(cleaned.quarantined)] == [("unreadable_line", date(2026, 2, 1))]
    assert rows_of(clean(nowhere, days=(date(2026, 1, 1), date(2026, 1, 1))).quarantined) == []


def test_cleaning_nothing_gives_empty_tables_of_the_right_shape():
    cleaned = clean()
    assert {name: rows_of(relation) for name, relation in cleaned.trusted.items()} == {name: [] for name in tables_for()}


anything = st.builds(
    row,
    st.sampled_from([None, 0.0, 1.0, 1.0, 2.0, 1e9]),
    hour=st.sampled_from([0, 0.25, 1, 2]),
    line=st.integers(0, 50),
    delivery_date=st.sampled_from([date(2026, 2, 1), date(2026, 2, 2)]),
    series_id=st.sampled_from(["north", "south", None]),
    quantity=st.sampled_from([LOAD, PRICE, "temperature_c", "sunspots", None]),
    interval_minutes=st.sampled_from([15, 60, 7, None]),
    is_forecast=st.booleans(),
    fault=st.sampled_from([None, None, "broken"]),
)


@settings(max_examples=40, deadline=None)
@given(st.lists(anything, max_size=25))
def test_nothing_disappears(rows: list[dict]):
    cleaned = clean(*rows)
    kept = rows_of(cleaned.conservation)
    weather = ("temperature_c",)
    standing = sum(len(rows_of(cleaned.trusted[t])) for t in cleaned.trusted if t != "cleaned/weather")
    standing += sum(r[q] is not None for r in rows_of(cleaned.trusted["cleaned/weather"]) for q in weather)
    assert sum(k["delivered"] for k in kept) == len(rows)
    assert all(k["is_conserved"] for k in kept)
    assert sum(k["cleaned"] for k in kept) == standing
    assert sum(k["quarantined"] + k["superseded"] for k in kept) == len(rows_of(cleaned.quarantined))
    for name, contract in tables_for().items():
        table = cleaned.trusted[name].to_arrow_table().to_pylist()
        keys = [tuple(r[k] for k in contract.key) for r in table]

        assert len(keys) == len(set(keys))
