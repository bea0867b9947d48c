"""The quick look: what it lets pass is what the rules one by one would let pass, whatever order the rows come in."""

from __future__ import annotations

import random
from datetime import date, timedelta

import duckdb
import numpy as np
import pyarrow as pa
import pytest

from lakehouse.metering import arrangement, ordered
from lakehouse.metering.rules import VeeRules, is_estimate_by_sender, quality_rank_sql
from lakehouse.metering.run import Run
from lakehouse.metering.vee import validate_estimate_edit
from tests.metering.builders import MONDAY, SCHEMA, USUAL, day, meters, past, row, run

FAULTS = (
    "none",
    "none",
    "none",
    "spike",
    "negative",
    "stuck",
    "zeros",
    "late",
    "unit",
    "gap",
    "twice",
    "again",
    "day",
    "odd",
    "shift",
    "words",
)


def faulty_days(seed: int, days: int = 24) -> list[dict]:
    """Some weeks of five meters in two files a day of a local clock, each day with a fault or none."""
    rng = random.Random(seed)
    rows = []
    for n in range(days):
        at = MONDAY + timedelta(days=n - 20)
        for meter in "ABCDEF":
            kwh = [round(v * rng.uniform(0.8, 1.2), 3) for v in USUAL]
            fault = rng.choice(FAULTS) if n > 10 and rng.random() < 0.5 else "none"
            hour = rng.randrange(2, 15)
            if fault == "spike":
                kwh[3] = 6.0
            elif fault == "negative":
                kwh[hour] = -0.2
            elif fault == "stuck":
                kwh[hour : hour + 7] = [kwh[hour]] * 7
            elif fault == "zeros":
                kwh[hour:] = [0.0] * (24 - hour)
            elif fault == "late":
                kwh[hour + 2] += kwh[hour] + kwh[hour + 1]
                kwh[hour : hour + 2] = [0.0, 0.0]
            elif fault == "unit":
                kwh = [1000 * v for v in kwh]
            lines: list[dict] = day(kwh, meter=meter, at=at, first_line=1 + 100 * "ABCDEF".index(meter), delivered=at + timedelta(days=1))
            if fault == "gap":
                lines = lines[:hour] + lines[hour + 3 :]
            elif fault == "twice":
                lines.append(row(0.5, meter=meter, at=at, hour=hour, line=90 + len(rows), delivered=at + timedelta(days=1)))
            elif fault == "again":
                lines += [{**r, "file": "again.csv", "delivery_date": at + timedelta(days=2)} for r in lines]
            elif fault == "day":
                lines = []
            elif fault == "odd":
                lines.append(row(0.5, meter=meter, at=at + timedelta(days=9), hour=1, line=90, delivered=at + timedelta(days=1)))
            elif fault == "words":
                lines.append(row(meter=meter, at=at, hour=5, line=91, fault="expected a number", delivered=at + timedelta(days=1)))
            elif fault == "shift":
                lines = [{**r, "interval_start": r["interval_start"] + timedelta(hours=1)} for r in lines]
                lines = [{**r, "date": r["interval_start"].date()} for r in lines]
            rows += lines
        rows += roof(rng, at, is_late=n > 10 and rng.random() < 0.5)
    return rows


def roof(rng: random.Random, at: date, *, is_late: bool) -> list[dict]:
    """A day of a home that feeds in at noon, and whose register was read late in the evening."""
    taken = [0.0 if 9 <= n < 17 else round(v * rng.uniform(0.8, 1.2), 3) for n, v in enumerate(USUAL)]
    given = [0.0 if v else 0.7 for v in taken]
    if is_late:
        taken[16:20], given[16] = [0.3, 0.0, 0.0, sum(taken[17:20])], 0.0
    import_, export = (
        day(kwh, meter="G", at=at, first_line=f, register=r) for kwh, f, r in ((taken, 800, "import"), (given, 700, "export"))
    )
    return [*export, *import_]


def known() -> pa.Table:
    return pa.concat_tables([meters(*"ABCDEF"), meters("G", registers="export,import")])


def outcome(rows: list[dict], *, trust_nothing: bool, days: list[date] | None = None, order: str = "") -> dict[str, list]:
    """What a run gives, as sorted lists."""
    with duckdb.connect() as connection:
        connection.register("landed", pa.Table.from_pylist(rows, SCHEMA))
        connection.execute(f"CREATE TABLE delivered AS SELECT * FROM landed {order}")
        connection.register("known_meters", known())
        spans = sorted({r["date"] for r in rows if r["date"]})
        every = [spans[0] + timedelta(days=n) for n in range((spans[-1] - spans[0]).days + 1)]
        vee = validate_estimate_edit(
            connection, "delivered", days=days or every, meters="known_meters", time_zone="Europe/Madrid", trust_nothing=trust_nothing
        )
        found = {}
        for name in ("trusted", "quarantined", "conservation", "report", "edits"):
            found[name] = sorted(
                (tuple(_rounded(v) for v in r.values()) for r in getattr(vee, name).to_arrow_table().to_pylist()), key=repr
            )
        vee.close()
        return found


def _rounded(value):
    return round(value, 6) if isinstance(value, float) else value


@pytest.mark.parametrize("seed", range(6))
def test_a_quick_look_changes_nothing(seed):
    rows = faulty_days(seed)
    quick, patient = outcome(rows, trust_nothing=False), outcome(rows, trust_nothing=True)
    for name in quick:
        assert quick[name] == patient[name], name


@pytest.mark.parametrize("seed", range(3))
def test_a_quick_look_at_one_day_changes_nothing(seed):
    rows = faulty_days(seed)
    one = [MONDAY + timedelta(days=1)]
    quick, patient = outcome(rows, trust_nothing=False, days=one), outcome(rows, trust_nothing=True, days=one)
    for name in quick:
        assert quick[name] == patient[name], name


@pytest.mark.parametrize(
    "order", ["ORDER BY interval_start, meter_id", "ORDER BY hash(line, meter_id, date)", "ORDER BY date DESC, meter_id"]
)
def test_rows_in_any_order_give_the_same(order):
    rows = faulty_days(7, days=22)
    expected = outcome(rows, trust_nothing=False)
    assert outcome(rows, trust_nothing=False, order=order) == expected


@pytest.mark.parametrize("seed", range(3))
def test_a_few_meters_at_a_time_give_the_same(seed, monkeypatch):
    rows = faulty_days(seed, days=22)
    expected = outcome(rows, trust_nothing=False)
    monkeypatch.setattr(arrangement, "ROWS_OF_A_RANGE", 300)
    assert outcome(rows, trust_nothing=False) == expected


def arranged(rows: list[dict]) -> arrangement.Arrangement:
    """How a run takes rows that lie as they are told here."""
    with duckdb.connect() as connection:
        connection.register("delivered", pa.Table.from_pylist(rows, SCHEMA))
        run_of_a_day = Run(connection, [MONDAY], VeeRules(), "UTC")
        return arrangement.of(run_of_a_day, "delivered", "SELECT * FROM delivered WHERE true")


def test_one_file_by_meter_is_taken_as_it_comes():
    assert arranged([r for m in "ABC" for r in day(meter=m)]) == arrangement.Arrangement()


def test_files_of_several_days_with_the_same_meters_are_taken_by_meter_and_never_sorted_as_a_whole(monkeypatch):
    monkeypatch.setattr(arrangement, "ROWS_OF_A_RANGE", 50)
    days = [MONDAY + timedelta(days=n) for n in (1, 0, -1)]
    rows = [r for at in days for m in "ABC" for r in day(meter=m, at=at)]
    found = arranged(rows)
    assert found.order == "" and len(found.ranges) > 2
    with duckdb.connect() as connection:
        connection.register("rows", pa.Table.from_pylist(rows, SCHEMA))
        held = [connection.sql(f"SELECT count(*) FROM rows WHERE {part}").fetchall()[0][0] for part in found.ranges]
    assert sum(held) == len(rows) and max(held) < len(rows)


def test_rows_by_time_are_sorted():
    rows = [row(v, meter=m, hour=n) for n, v in enumerate(USUAL) for m in "ABC"]
    assert arranged(rows).order
    of_two_feeds = [{**r, "feed": "north" if r["meter_id"] == "A" else "south"} for r in rows]
    assert arranged(of_two_feeds).ranges, "a union is not sorted: it would have to fit into memory"


def test_files_are_brought_together_register_by_register():
    rows = ordered.Rows(
        meters=pa.array(["A", "B", "A"]),
        registers=pa.array(["import", "import", "export"]),
        opens=np.array([0, 2, 3]),
        start=np.array([30, 40, 30, 10]),
        minutes=np.array([10, 10, 10, 10]),
        kwh=np.array([3.0, 4.0, 5.0, 1.0]),
        file=np.array([0, 0, 0, 1]),
        line=np.array([1, 2, 3, 1]),
        by_sender=np.zeros(4, bool),
    )
    together, stretches = rows.brought_together()
    assert list(zip(together.meters.to_pylist(), together.registers.to_pylist(), together.opens.tolist(), strict=True)) == [
        ("A", "export", 0), ("A", "import", 1), ("B", "import", 3)
    ]  # fmt: skip
    assert together.kwh.tolist() == [1.0, 3.0, 4.0, 5.0] and together.file.tolist() == [1, 0, 0, 0]
    assert stretches == 2  # that of one file and that of the other


def test_most_days_need_no_second_look():
    rows = [r for m in "ABCDEF" for r in past(10, meter=m) + day(meter=m)]
    result = run(rows)
    assert len(result.report) == 66 and result.quarantined == []


@pytest.mark.parametrize("code", [None, "", "A", "E", "S14", "F", "N", "E52", "x9", "estimated", "V", "a"])
def test_the_senders_estimates_are_told_alike_in_python_and_in_sql(code):
    rank = duckdb.execute(f"SELECT {quality_rank_sql('q')} FROM (SELECT $code::VARCHAR AS q)", {"code": code}).fetchall()[0][0]
    assert is_estimate_by_sender(code) == (rank <= 1)


def test_a_run_of_equal_values_over_midnight_is_seen_whole():
    rows = past(10) + day([*USUAL[:20], *[0.77] * 4]) + day([*[0.77] * 4, *USUAL[4:]], at=MONDAY + timedelta(days=1))
    assert [rule for rule, _ in run(rows, rules=VeeRules()).refused()] == ["stuck_value"] * 7
