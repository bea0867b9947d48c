from __future__ import annotations

import csv
import hashlib
import json
from datetime import date, timedelta
from pathlib import Path

import duckdb
import pytest

from lakehouse.errors import GridlakeError
from lakehouse.simulation import deliver_day, read_utility, simulate
from lakehouse.simulation.delivery import FEEDS
from lakehouse.site import parse_site
from lakehouse.sources.base import LandedFile, ReadOptions, read_file

from .conftest import DIRTY, FIRST, LAST, Made

SMALL = {"meters": 12, "seed": 5, "dirt": 6.0}


def fingerprints(folder: Path) -> dict[str, str]:
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_files_lie_by_feed_and_delivery_date_and_none_is_unfinished(dirty: Made):
    assert {p.name for p in dirty.landing.iterdir()} == set(FEEDS)
    for path in dirty.landing.rglob("*"):
        if path.is_file():
            _, delivered, name = path.relative_to(dirty.landing).parts
            assert FIRST <= date.fromisoformat(delivered) <= LAST + timedelta(days=1)
            assert not name.startswith(".")


def test_the_same_seed_gives_the_same_bytes_and_another_seed_another_utility(tmp_path):
    span = {"first_day": date(2026, 3, 27), "last_day": date(2026, 3, 30)}
    for home in ("a", "b"):
        simulate(tmp_path / home / "landing", **span, **SMALL)
    simulate(tmp_path / "c" / "landing", **span, **SMALL | {"seed": 6})
    a, b, c = (fingerprints(tmp_path / home / "landing") for home in "abc")
    assert a == b
    assert a.keys() != c.keys() or all(a[k] != c[k] for k in a if k.endswith(".csv"))
    assert fingerprints(tmp_path / "a" / "truth") == fingerprints(tmp_path / "b" / "truth")


def test_a_longer_span_adds_files_and_changes_none(tmp_path):
    simulate(tmp_path / "short" / "landing", first_day=FIRST, last_day=FIRST + timedelta(days=11), **SMALL)
    simulate(tmp_path / "long" / "landing", first_day=FIRST, last_day=FIRST + timedelta(days=20), **SMALL)
    short, long = (fingerprints(tmp_path / span / "landing") for span in ("short", "long"))
    assert short.items() < long.items()


def test_day_by_day_brings_what_the_whole_span_brings(tmp_path):
    last = FIRST + timedelta(days=15)
    simulate(tmp_path / "whole" / "landing", first_day=FIRST, last_day=last, **SMALL)
    simulate(tmp_path / "grown" / "landing", first_day=FIRST, last_day=last - timedelta(days=3), **SMALL)
    who = read_utility(tmp_path / "grown" / "truth")
    for back in (1, 0, -1):
        written = deliver_day(tmp_path / "grown" / "landing", day=last - timedelta(days=back), **who)
        assert all(p.is_file() for p in written)
    assert fingerprints(tmp_path / "grown" / "landing") == fingerprints(tmp_path / "whole" / "landing")


def test_before_its_first_day_a_utility_delivers_nothing(tmp_path):
    assert deliver_day(tmp_path, day=FIRST - timedelta(days=1), first_day=FIRST) == []


def test_an_empty_span_is_refused(tmp_path):
    with pytest.raises(GridlakeError, match="last day on or after the first"):
        simulate(tmp_path / "landing", first_day=FIRST, last_day=FIRST - timedelta(days=1))


def test_what_is_known_on_the_last_morning(dirty: Made):
    morning = LAST + timedelta(days=1)

    def newest(feed: str) -> str:
        return dirty.sql(
            f"SELECT strftime(max(interval_start), '%Y-%m-%d %H:%M') FROM read_csv('{{landing}}/{feed}/*/*.csv', union_by_name=true)"
        )[0][0]

    assert newest("weather_forecast") == f"{morning + timedelta(days=1)} 21:00"  # the whole of tomorrow, in summer time
    assert newest("prices") == f"{morning} 21:00"  # the whole of today
    assert newest("generation") == newest("weather") == f"{morning} 06:00"  # up to nine o'clock


@pytest.mark.parametrize("feed", ["weather", "weather_forecast", "generation", "prices"])
def test_series_have_neither_gap_nor_repetition_over_the_clock_change(dirty: Made, feed):
    told = dirty.sql(
        f"""WITH delivered AS (SELECT *, lag(interval_start) OVER (PARTITION BY series_id, quantity ORDER BY interval_start) AS before
                FROM read_csv('{{landing}}/{feed}/*/*.csv'))
            SELECT count(*), count(*) FILTER (interval_start - before <> INTERVAL 1 HOUR) FROM delivered"""
    )
    assert told[0][0] > 24 * 60 and told[0][1] == 0


@pytest.mark.parametrize("feed", ["weather", "generation"])
def test_delivered_series_are_the_truth(dirty: Made, feed):
    worst = dirty.sql(
        f"""SELECT count(*), max(abs(d.value - t.value)) FROM read_csv('{{landing}}/{feed}/*/*.csv') d
            JOIN '{{truth}}/{feed}.parquet' t USING (series_id, quantity, interval_start)"""
    )
    assert worst[0][0] > 1000 and worst[0][1] < 1e-3


def test_a_forecast_is_marked_as_one_and_delivered_on_the_day_before(dirty: Made):
    for path in (dirty.landing / "weather_forecast").rglob("*.csv"):
        with path.open() as opened:
            rows = list(csv.DictReader(opened))
        assert {r["is_forecast"] for r in rows} == {"true"}
        delivered = date.fromisoformat(path.parent.name)
        target = date.fromisoformat(path.stem.removeprefix("weather-forecast-"))
        assert target == delivered + timedelta(days=1) or delivered == target == FIRST


def test_the_day_of_the_clock_change_has_23_hours_of_every_meter(dirty: Made):
    told = dirty.sql(
        """SELECT count(DISTINCT meter_id), min(minutes), max(minutes) FROM (
              SELECT meter_id, register, sum(interval_minutes) AS minutes FROM '{truth}/readings.parquet'
              WHERE interval_start >= '2026-03-28 23:00:00Z' AND interval_start < '2026-03-29 22:00:00Z' GROUP BY ALL)"""
    )
    assert told == [(40, 23 * 60, 23 * 60)]


def test_the_true_load_is_the_sum_of_the_true_readings(dirty: Made):
    worst = dirty.sql(
        """WITH summed AS (
              SELECT date_trunc('hour', interval_start) AS hour, sum(if(register = 'import', 1, -1) * energy_kwh) / 1000 AS mwh
              FROM '{truth}/readings.parquet' GROUP BY ALL)
           SELECT count(*), max(abs(mwh - value)) FROM summed JOIN '{truth}/load.parquet' ON hour = interval_start"""
    )
    assert worst[0][0] == 24 * 65 - 1  # 65 days, one of them of 23 hours
    assert worst[0][1] < 1e-9


def test_every_true_reading_is_there_once(dirty: Made):
    rows, keys = dirty.sql("SELECT count(*), count(DISTINCT (meter_id, register, interval_start)) FROM '{truth}/readings.parquet'")[0]
    assert rows == keys == dirty.simulation.readings


def test_the_registry_knows_the_meters_and_their_ratings(dirty: Made):
    told = dirty.sql(
        """SELECT count(*), count(DISTINCT meter_class), count(*) FILTER (registers = 'import,export' AND meter_class <> 'pv'),
                  max(energy_kwh * 60 / r.interval_minutes / rated_kw)
           FROM '{truth}/readings.parquet' r JOIN read_csv('{landing}/meters/*/meters.csv') m USING (meter_id, interval_minutes)"""
    )
    assert told[0][0] == dirty.simulation.readings
    assert told[0][1] == 5 and told[0][2] == 0 and told[0][3] < 1


def test_the_readers_of_the_sample_site_understand_every_feed(dirty: Made):
    site = parse_site(
        (Path(__file__).parents[2] / "examples/sites/sample.yaml").read_text() + f"\nfirst_day: {FIRST}\n", Path("gridlake.yaml")
    )
    assert set(site.feeds) == set(FEEDS)
    for feed, described in site.feeds.items():
        path = next(p for p in sorted((dirty.landing / feed).rglob("*.*")) if "household" in p.name or feed != "meter_readings")
        landed = LandedFile(path, path.name, date.fromisoformat(path.parent.name), feed)
        rows = [row for table in read_file(landed, described.format, ReadOptions(site.time_zone)) for row in table.to_pylist()]
        assert rows and sum(r["fault"] is not None for r in rows) < 0.05 * len(rows), feed


def test_the_fleet_is_json_with_units(dirty: Made):
    units = json.loads((dirty.landing / "fleet" / FIRST.isoformat() / "fleet.json").read_text())["units"]
    assert {u["kind"] for u in units} == {"thermal", "wind", "solar", "storage", "grid"}


def test_the_arguments_can_be_read_back(dirty: Made):
    assert DIRTY.items() <= read_utility(dirty.truth).items()


@pytest.mark.parametrize(
    ("time_zone", "country", "latitude_deg", "longitude_deg"),
    [
        ("America/New_York", "US", 40.7, -74.0),
        ("Australia/Sydney", "AU", -33.9, 151.2),
        ("Asia/Kolkata", "IN", 28.6, 77.2),
        ("UTC", "GB", 51.5, 0.0),
    ],
)
def test_utilities_elsewhere(tmp_path, time_zone, country, latitude_deg, longitude_deg):
    place = {"time_zone": time_zone, "country": country, "latitude_deg": latitude_deg, "longitude_deg": longitude_deg}
    made = simulate(tmp_path / "landing", first_day=date(2026, 4, 3), last_day=date(2026, 4, 12), meters=8, dirt=5.0, **place)
    assert made.readings > 8 * 24 * 10
    assert made.files["meter_readings"] >= 40


def test_registers_say_what_the_intervals_truly_add_up_to(dirty: Made):
    read = f"read_csv('{dirty.landing}/register_reads/*/*.csv')"
    truth = f"'{dirty.truth}/readings.parquet'"
    query = f"""
        SELECT max(abs(energy_kwh - true_kwh)), count(*), count(DISTINCT interval_minutes > 1500) FROM (
            SELECT r.energy_kwh, r.interval_minutes, sum(t.energy_kwh) AS true_kwh FROM {read} r JOIN {truth} t
            ON t.meter_id = r.meter_id AND t.register = r.register AND t.interval_start >= r.interval_start
               AND t.interval_start < r.interval_start + to_minutes(r.interval_minutes)
            GROUP BY r.meter_id, r.register, r.interval_start, r.energy_kwh, r.interval_minutes)
        """
    with duckdb.connect() as connection:
        [(off, spans, classes)] = connection.execute(query).fetchall()
    assert off < 0.001 and spans > 20
    assert classes == 2  # read every day, and on the first of a month
