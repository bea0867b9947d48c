"""What holds for any deliveries: nothing is lost, twice is once, order is nothing, and a late file changes its day alone."""

from __future__ import annotations

import random
from datetime import timedelta
from itertools import pairwise

from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from tests.metering.builders import MONDAY, USUAL, day, past, row, run

# A run takes a third of a second, and shrinking hundreds of them: a failing example is told as it was found.
NO_SHRINKING = (Phase.explicit, Phase.reuse, Phase.generate)
energies = st.one_of(st.sampled_from([0.0, 0.3, 0.3, 0.31, -0.2, 7.0, 300.0, 5000.0]), st.floats(0, 3).map(lambda v: round(v, 3)))
deliveries = st.lists(
    st.builds(
        row,
        energies,
        meter=st.sampled_from("AB"),
        at=st.sampled_from([MONDAY, MONDAY + timedelta(days=1)]),
        hour=st.sampled_from([0, 1, 1.5, 2, 3, 4.25, 23]),
        minutes=st.sampled_from([60, 60, 30, 45]),
        register=st.sampled_from(["import", "export"]),
        quality=st.sampled_from([None, "A", "E"]),
        delivered=st.sampled_from([MONDAY + timedelta(days=n) for n in range(3)]),
        file=st.sampled_from(["north.csv", "south.csv"]),
        fault=st.sampled_from([None, None, None, "expected a number, found none"]),
    ),
    min_size=1,
    max_size=25,
)


def numbered(rows):
    """Rows with a line of their own, as they have in a file."""
    return [{**r, "line": n + 1} for n, r in enumerate(rows)]


@settings(max_examples=15, deadline=None, phases=NO_SHRINKING)
@given(deliveries)
def test_every_delivered_row_is_cleaned_edited_superseded_repeated_or_quarantined(rows):
    result = run(numbered(rows))
    assert sum(a["delivered"] for a in result.conservation) == len(rows)
    assert all(a["is_conserved"] for a in result.conservation)
    assert sum(a["quarantined"] for a in result.conservation) == len(result.quarantined)
    standing = [
        r
        for r in result.trusted.to_pylist()
        if r["file"] and r["method"] not in ("like_day_profile", "linear_interpolation", "class_profile")
    ]
    assert sum(a["cleaned"] + a["edited"] for a in result.conservation) == len(standing)


@settings(max_examples=15, deadline=None, phases=NO_SHRINKING)
@given(deliveries)
def test_no_interval_stands_twice_and_none_overlaps_another(rows):
    trusted = run(numbered(rows)).trusted.to_pylist()
    seen = sorted((r["meter_id"], r["register"], r["interval_start"], r["interval_minutes"]) for r in trusted)
    for (meter, register, start, minutes), following in pairwise(seen):
        if following[:2] == (meter, register):
            assert start < following[2]
            if minutes == following[3]:
                assert start + timedelta(minutes=minutes) <= following[2]


@settings(max_examples=8, deadline=None, phases=NO_SHRINKING)
@given(deliveries, st.randoms(use_true_random=False))
def test_the_order_of_rows_is_nothing(rows, rng):
    rows = numbered(rows)
    shuffled = rows[:]
    rng.shuffle(shuffled)
    assert run(rows).trusted == run(shuffled).trusted


def test_twice_is_once():
    rows = past(20) + day([*USUAL[:3], 5.6, *USUAL[4:]])
    once = run(rows).trusted
    again = run(rows + [{**r, "file": "again.csv", "delivery_date": r["delivery_date"]} for r in rows]).trusted
    assert once == again


def test_a_late_file_changes_its_day_and_later_days_that_rest_on_it_but_no_earlier_one():
    rows = past(20)
    rows += [r for n in range(3) for r in day([None if h == 12 else v for h, v in enumerate(USUAL)], at=MONDAY + timedelta(days=n))]
    late = [row(0.9, at=MONDAY, hour=12, delivered=MONDAY + timedelta(days=6))]
    before, after = run(rows), run(rows + late)
    changed = {r["date"] for r in _difference(before.trusted, after.trusted)}
    assert MONDAY in changed
    assert min(changed) == MONDAY


def test_one_day_at_a_time_gives_what_a_range_gives():
    rng = random.Random(1)
    rows = [r for n in range(-20, 4) for r in day([round(v * rng.uniform(0.9, 1.1), 3) for v in USUAL], at=MONDAY + timedelta(days=n))]
    rows = [r for r in rows if not (r["date"] >= MONDAY and r["interval_start"].hour in (7, 8))]
    whole = run(rows)
    before = run([r for r in rows if r["date"] < MONDAY])
    history, got = before.trusted, []
    for n in range(4):
        at = MONDAY + timedelta(days=n)
        one = run(rows, days=[at], history=history)
        got += one.trusted.to_pylist()
        history = _concatenated(history, one.trusted)
    expected = [r for r in whole.trusted.to_pylist() if r["date"] >= MONDAY]
    assert [(r["interval_start"], round(r["energy_kwh"], 9), r["rule"]) for r in got] == [
        (r["interval_start"], round(r["energy_kwh"], 9), r["rule"]) for r in expected
    ]


def _difference(one, other):
    mine, theirs = ({(r["meter_id"], r["register"], r["interval_start"]): r for r in t.to_pylist()} for t in (one, other))
    return [r for key, r in (theirs | mine).items() if mine.get(key) != theirs.get(key)]


def _concatenated(one, other):
    import pyarrow as pa

    return pa.concat_tables([one, other])
