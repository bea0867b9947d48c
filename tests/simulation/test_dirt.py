from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pytest

from lakehouse.simulation import FILE_FAULTS, KINDS, READING_FAULTS, Utility, simulate
from lakehouse.simulation.dirt import file_plan, meter_faults, swapped_day_and_month
from lakehouse.simulation.meters import routes

from .conftest import Made

TOUCHED = "SELECT * FROM '{truth}/faults.parquet' WHERE kind = "


def holds(dirty: Made, kind: str, law: str) -> bool:
    """Whether a law (SQL) holds for every reading that a kind of fault touched, of which there are some."""
    touched, broken = dirty.sql(f"SELECT count(*), count(*) FILTER (NOT coalesce({law}, false)) FROM ({TOUCHED}'{kind}')")[0]
    return touched > 0 and broken == 0


def runs(dirty: Made, kind: str) -> list[tuple[int, ...]]:
    """Length in intervals of each unbroken run of touched readings of a register."""
    return dirty.sql(
        f"""WITH touched AS (SELECT *, epoch(interval_start) // (60 * interval_minutes)
                - row_number() OVER (PARTITION BY meter_id, register, day ORDER BY interval_start) AS run FROM ({TOUCHED}'{kind}'))
            SELECT count(*) FROM touched GROUP BY meter_id, register, day, run"""
    )


def test_every_kind_of_fault_is_there_and_counted(dirty: Made):
    told = dict(dirty.sql("SELECT kind, count(*) FROM '{truth}/faults.parquet' GROUP BY kind"))
    assert set(told) == set(KINDS)
    assert told == dict(dirty.simulation.faults)


def test_no_reading_has_two_faults(dirty: Made):
    faults = "SELECT count(*) FROM '{truth}/faults.parquet' GROUP BY"
    assert dirty.sql(f"{faults} meter_id, register, interval_start HAVING count(*) > 1") == []
    assert dirty.sql(f"{faults} meter_id, day HAVING count(DISTINCT kind) > 1") == []


def lines_of(path: Path) -> list[list[str]]:
    return [line.split(",") for line in path.read_bytes().decode(errors="replace").split("\n") if line.startswith("M")]


def test_all_that_no_fault_names_is_delivered_once_and_true(dirty: Made):
    """The strongest law. Left out are stamps onto which a moved reading fell, corrections and second sendings."""
    first_files = [p for p in dirty.landing.glob("meter_readings/*/*.csv") if not p.stem.endswith(("correction", "resent"))]
    cells = [c for path in first_files for c in lines_of(path) if len(c) == 6]
    delivered: dict[tuple[str, str, str], list[str]] = {}
    for meter_id, register, start, _, energy_kwh, _ in cells:
        delivered.setdefault((meter_id, register, start), []).append(energy_kwh)
    unnamed = dirty.sql(
        """SELECT meter_id, register, strftime(interval_start, '%Y-%m-%dT%H:%M:%SZ'), energy_kwh FROM '{truth}/readings.parquet'
           ANTI JOIN '{truth}/faults.parquet' USING (meter_id, register, interval_start)
           ANTI JOIN (SELECT meter_id, register, delivered_start AS interval_start FROM '{truth}/faults.parquet'
                      WHERE delivered_start <> interval_start) USING (meter_id, register, interval_start)"""
    )
    assert len(unnamed) > 100_000
    wrong = [(*key, true_kwh) for *key, true_kwh in unnamed if [float(v) for v in delivered.get(tuple(key), [])] != [true_kwh]]
    assert wrong == []


def test_gaps(dirty: Made):
    for kind in ("missing_short", "missing_hours", "missing_days"):
        assert holds(dirty, kind, "delivered_kwh IS NULL AND line IS NULL AND true_kwh IS NOT NULL")
    assert {n for (n,) in runs(dirty, "missing_short")} <= {1, 2, 3}
    minutes = dirty.sql(f"SELECT DISTINCT sum(interval_minutes) FROM ({TOUCHED}'missing_days') GROUP BY meter_id, register, day")
    assert {m for (m,) in minutes} <= {23 * 60, 24 * 60}


def test_values_that_are_wrong(dirty: Made):
    assert holds(dirty, "negative", "delivered_kwh = -true_kwh AND true_kwh > 0 AND register = 'import'")
    assert holds(dirty, "spike", "delivered_kwh / true_kwh BETWEEN 7.9 AND 50.1")
    assert holds(dirty, "wrong_unit", "abs(delivered_kwh - 1000 * true_kwh) < 1e-6")
    assert holds(dirty, "dead_register", "delivered_kwh = 0 AND register = 'import'")
    assert holds(dirty, "conflicting_duplicate", "delivered_kwh <> true_kwh")
    assert holds(dirty, "exact_duplicate", "delivered_kwh = true_kwh")
    assert holds(dirty, "unknown_meter", "meter_id LIKE 'X%' AND true_kwh IS NULL AND delivered_kwh >= 0")
    assert holds(dirty, "corrected_file", "delivered_kwh <> true_kwh")


def test_a_spike_stays_within_the_connection_and_the_other_kind_does_not(dirty: Made):
    share = dict(
        dirty.sql(
            """SELECT kind, list(delivered_kwh * 60 / f.interval_minutes / rated_kw) FROM '{truth}/faults.parquet' f
               JOIN read_csv('{landing}/meters/*/meters.csv') USING (meter_id) WHERE kind IN ('spike', 'beyond_rating') GROUP BY kind"""
        )
    )
    assert max(share["spike"]) < 1 < 1.29 < min(share["beyond_rating"]) and max(share["beyond_rating"]) < 4.01


def test_a_stuck_register_repeats_its_first_value_a_dozen_times_or_more(dirty: Made):
    assert holds(dirty, "stuck", "delivered_kwh > 0")
    told = dirty.sql(
        """SELECT min(n), max(n), max(values), bool_and(first_is_true) FROM (
              SELECT count(*) AS n, count(DISTINCT delivered_kwh) AS values,
                     arg_min(true_kwh, interval_start) = min(delivered_kwh) AS first_is_true
              FROM '{truth}/faults.parquet' WHERE kind = 'stuck' GROUP BY meter_id, register, day)"""
    )
    assert told[0][0] >= 12 and told[0][1] <= 40 and told[0][2:] == (1, True)


def test_a_late_register_loses_no_energy(dirty: Made):
    told = dirty.sql(
        """SELECT max(abs(sum_true - sum_told)), min(zeros), max(zeros), bool_and(n = zeros + 1) FROM (
              SELECT sum(true_kwh) AS sum_true, sum(delivered_kwh) AS sum_told, count(*) FILTER (delivered_kwh = 0) AS zeros, count(*) AS n
              FROM '{truth}/faults.parquet' WHERE kind = 'late_register' GROUP BY meter_id, register, day)"""
    )
    assert told[0][0] < 0.001 and told[0][1] >= 1 and told[0][2] <= 4 and told[0][3]


def test_stamps_that_are_wrong(dirty: Made):
    assert holds(dirty, "shifted_hour", "delivered_start - interval_start = INTERVAL 1 HOUR AND delivered_kwh = true_kwh")
    assert holds(dirty, "wrong_time_zone", "delivered_start - interval_start IN (INTERVAL 1 HOUR, INTERVAL 2 HOUR)")
    swapped = "month(delivered_start) = day(interval_start) AND day(delivered_start) = month(interval_start)"
    assert holds(dirty, "swapped_day_month", f"{swapped} AND delivered_start <> interval_start")


def test_day_and_month_change_places():
    seconds = np.array(["2026-03-05T22:15:00", "2026-11-02T00:00:00"], "datetime64[s]").astype(np.int64)
    swapped = swapped_day_and_month(seconds).astype("datetime64[s]").astype(str).tolist()
    assert swapped == ["2026-05-03T22:15:00", "2026-02-11T00:00:00"]


@pytest.mark.parametrize(
    ("kind", "looks"),
    [
        ("bad_number", lambda cells: len(cells) == 6 and not cells[4].replace(".", "").isdigit()),
        ("missing_column", lambda cells: len(cells) == 3),
        ("decimal_comma", lambda cells: len(cells) == 7 and cells[4].isdigit() and cells[5].isdigit()),
    ],
)
def test_rows_that_can_not_be_read_stand_where_the_truth_says(dirty: Made, kind, looks):
    touched = dirty.sql(f"SELECT file, line, strftime(delivery_date, '%Y-%m-%d'), meter_id FROM ({TOUCHED}'{kind}')")
    assert touched
    for file, line, delivered, meter_id in touched:
        cells = (dirty.landing / "meter_readings" / delivered / file).read_text().split("\n")[line - 1].split(",")
        assert cells[0] == meter_id and looks(cells)


def test_every_line_that_the_truth_names_holds_what_it_says(dirty: Made):
    touched = dirty.sql(
        """SELECT file, strftime(delivery_date, '%Y-%m-%d'), list((line, meter_id, register, delivered_kwh, epoch(delivered_start)))
           FROM '{truth}/faults.parquet' WHERE line IS NOT NULL AND delivered_kwh IS NOT NULL AND delivery_date <= '2026-04-26'
           GROUP BY ALL ORDER BY ALL LIMIT 60"""
    )
    assert len(touched) == 60
    for file, delivered, rows in touched:
        lines = (dirty.landing / "meter_readings" / delivered / file).read_text().split("\n")
        for line, meter_id, register, energy_kwh, start_s in rows:
            cells = lines[line - 1].split(",")
            assert cells[:2] == [meter_id, register]
            assert float(cells[4]) == pytest.approx(energy_kwh)
            assert np.datetime64(cells[2].removesuffix("Z")).astype("datetime64[s]").astype(int) == start_s


def test_of_conflicting_rows_the_better_quality_or_the_later_line_is_right(dirty: Made):
    touched = dirty.sql(f"SELECT file, line, strftime(delivery_date, '%Y-%m-%d'), true_kwh FROM ({TOUCHED}'conflicting_duplicate')")
    ways = Counter()
    for file, line, delivered, true_kwh in touched:
        lines = (dirty.landing / "meter_readings" / delivered / file).read_text().split("\n")
        wrong = lines[line - 1].split(",")
        [(right_line, right)] = [(n, c) for n, c in enumerate((x.split(",") for x in lines), 1) if c[:3] == wrong[:3] and n != line]
        assert float(right[4]) == true_kwh
        ways["quality" if (right[5], wrong[5]) == ("A", "E") else "line"] += 1
        assert (right[5], wrong[5]) == ("A", "E") or right_line > line
    assert ways["quality"] and ways["line"]


def test_late_files_come_one_to_nine_days_late_and_are_sound(dirty: Made):
    assert holds(dirty, "late_file", "delivered_kwh = true_kwh AND delivery_date - day BETWEEN 2 AND 10")
    arrived = dirty.sql(
        f"SELECT DISTINCT file, strftime(delivery_date, '%Y-%m-%d') FROM ({TOUCHED}'late_file') WHERE delivery_date <= '2026-04-26'"
    )
    assert arrived and all((dirty.landing / "meter_readings" / delivered / file).is_file() for file, delivered in arrived)


def test_a_correction_brings_the_truth_of_what_was_provisional(dirty: Made):
    told = dirty.sql(
        """WITH corrected AS (SELECT * FROM read_csv('{landing}/meter_readings/*/*-correction.csv'))
           SELECT count(*), count(f.meter_id), bool_and(c.energy_kwh = f.true_kwh), bool_and(c.quality = 'A') FROM corrected c
           LEFT JOIN (SELECT * FROM '{truth}/faults.parquet' WHERE kind = 'corrected_file') f USING (meter_id, register, interval_start)"""
    )
    assert told[0][0] > 0 and told[0][0] == told[0][1] and told[0][2] and told[0][3]


def test_files_that_are_none(dirty: Made):
    def content(kind: str) -> list[bytes]:
        files = dirty.sql(f"SELECT DISTINCT file, strftime(delivery_date, '%Y-%m-%d') FROM ({TOUCHED}'{kind}')")
        return [(dirty.landing / "meter_readings" / delivered / file).read_bytes() for file, delivered in files]

    assert set(content("empty_file")) == {b""}
    assert all(not c.startswith(b"meter_id") and c for c in content("not_csv"))
    assert all(not c.endswith(b"\n") and c.startswith(b"meter_id") for c in content("truncated_file"))
    assert list(dirty.landing.glob("meter_readings/*/*-resent.csv"))


def test_without_dirt_the_deliveries_are_the_truth(tmp_path):
    made = simulate(tmp_path / "landing", first_day=date(2026, 3, 25), last_day=date(2026, 4, 3), meters=10, dirt=0.0)
    assert not made.faults
    clean = Made(made, tmp_path / "landing", tmp_path / "truth")
    told = clean.sql(
        """SELECT count(*), bool_and(d.energy_kwh = t.energy_kwh) FROM read_csv('{landing}/meter_readings/*/*.csv') d
           JOIN '{truth}/readings.parquet' t USING (meter_id, register, interval_start, interval_minutes)"""
    )
    assert told == [(made.readings, True)]
    assert clean.sql("SELECT count(*) FROM read_csv('{landing}/meter_readings/*/*.csv')") == [(made.readings,)]


def test_faults_strike_as_often_as_told():
    utility = Utility(first_day=date(2026, 5, 1), meters=3_000)
    days = [date(2026, 5, 1) + timedelta(days=n) for n in range(60)]
    struck = Counter(k for d in days for r in routes(utility) for k in meter_faults(utility, r, d).tolist())
    names = list(READING_FAULTS)
    for name in ("missing_short", "spike", "negative", "wrong_unit"):
        expected = READING_FAULTS[name][0] * 3_000 * 60
        assert struck[names.index(name) + 1] == pytest.approx(expected, rel=0.25)


@pytest.mark.parametrize("dirt", [1.0, 3.0])
def test_files_are_hit_as_often_as_told(dirt):
    utility = replace(Utility(first_day=date(2024, 1, 1), meters=100), dirt=dirt)
    days = [date(2024, 1, 1) + timedelta(days=n) for n in range(720)]
    hit = Counter(file_plan(utility, r, d).kind for d in days for r in routes(utility))
    for kind, (days_between, _) in FILE_FAULTS.items():
        expected = 720 * dirt / days_between
        if kind == "swapped_day_month":
            expected = min(expected, 24)  # at most one a month
        assert hit[kind] == pytest.approx(expected, rel=0.35), kind
