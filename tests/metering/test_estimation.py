"""What stands where nothing was delivered: which gaps are filled, by what, and how well."""

from __future__ import annotations

import random
from datetime import date, timedelta
from itertools import pairwise

import pytest

from lakehouse.metering.rules import VeeRules
from tests.metering.builders import MONDAY, USUAL, day, meters, past, row, run


def without(*hours):
    return [None if n in hours else v for n, v in enumerate(USUAL)]


def test_a_gap_is_filled_from_like_days_and_says_so():
    result = run(past(28, wobble=0.0) + day(without(19, 20)))
    filled = [result.hours()[n] for n in (19, 20)]
    # Its days are all the same: the profile has never been off, and the line counts only for what is taken before anything is known.
    assert [r["energy_kwh"] for r in filled] == pytest.approx([0.83, 0.94], abs=0.01)
    assert {(r["quality"], r["rule"], r["method"]) for r in filled} == {("estimated", "missing_interval", "like_day_profile")}
    assert filled[0]["basis_from"].date() == MONDAY - timedelta(days=14) and filled[0]["basis_to"].date() < MONDAY


def wandering(days):
    """Days of a meter without any shape: every hour is a little more or less than the one before."""
    rng, level, rows = random.Random(4), 1.0, []
    for back in range(days, -1, -1):
        hours = []
        for _ in range(24):
            level = min(max(level * rng.choice((0.85, 0.95, 1.06, 1.17)), 0.2), 4.0)
            hours.append(round(level, 3))
        rows.append((MONDAY - timedelta(days=back), hours))
    return rows


def test_a_meter_without_a_daily_shape_is_filled_by_the_line_between_the_edges():
    *before, (_, last) = wandering(28)
    gone = [None if n == 12 else v for n, v in enumerate(last)]
    filled = run([r for at, hours in before for r in day(hours, at=at)] + day(gone)).hours()[12]
    profile = sum(hours[12] for at, hours in before if at >= MONDAY - timedelta(days=14) and at.weekday() < 5) / 10
    line = (last[11] + last[13]) / 2
    assert abs(filled["energy_kwh"] - line) < 0.1 * abs(profile - line)


def test_an_estimate_follows_the_day_it_stands_in():
    usual = run(past(28, wobble=0.0) + day(without(12)))
    higher = run(past(28, wobble=0.0) + day([None if v is None else 2 * v for v in without(12)]))
    assert usual.hours()[12]["energy_kwh"] < higher.hours()[12]["energy_kwh"] < 2 * 0.55


def test_a_meter_without_a_past_is_interpolated_over_short_gaps_and_left_missing_over_long_ones():
    short = run(day(without(3)))
    assert (short.hours()[3]["energy_kwh"], short.hours()[3]["method"]) == (pytest.approx((0.20 + 0.23) / 2), "linear_interpolation")
    long = run(day(without(*range(3, 10))))
    assert 5 not in long.hours()
    assert [(r["missing"], r["estimated"], r["expected"]) for r in long.report] == [(7, 0, 24)]


def test_a_whole_missing_day_is_estimated_and_the_longest_gap_is_kept_to():
    rows = past(14) + day(at=MONDAY + timedelta(days=5)) + [r for n in range(-14, 6) for r in day(meter="B", at=MONDAY + timedelta(days=n))]
    result = run(rows, rules=VeeRules(longest_gap_days=2))
    estimated = {at: len(result.hours(at)) for at in (MONDAY + timedelta(days=n) for n in range(5))}
    assert list(estimated.values()) == [24, 24, 0, 0, 0]


def test_nothing_is_expected_before_the_first_reading_nor_after_service():
    late_start = run(day([None] * 6 + USUAL[6:]))
    assert min(late_start.hours()) == 6
    known = meters("A", "B").set_column(6, "last_date", [[MONDAY - timedelta(days=1), None]])
    ended = run(past(14) + [r for n in range(-14, 1) for r in day(meter="B", at=MONDAY + timedelta(days=n))], known=known)
    assert ended.hours(MONDAY) == {}


def test_hours_for_which_nobody_has_delivered_yet_are_not_missing():
    rows = [r for meter in "AB" for r in past(14, meter=meter) + day(USUAL[:18] + [None] * 6, meter=meter)]
    assert max(run(rows).hours()) == 17


def test_daylight_saving_days_have_23_and_25_hours_without_a_hole():
    for change, hours in ((date(2026, 3, 29), 23), (date(2026, 10, 25), 25)):
        rows = [r for n in range(-20, 3) for r in day(at=change + timedelta(days=n)) if r["interval_start"].hour != 1 or n != 0]
        result = run(rows, time_zone="Europe/Berlin")
        starts = sorted(r["interval_start"] for r in result.trusted.to_pylist())
        assert all(b - a == timedelta(hours=1) for a, b in pairwise(starts))
        local = [s for s in starts if s.astimezone(__import__("zoneinfo").ZoneInfo("Europe/Berlin")).date() == change]
        assert len(local) == hours


def test_an_estimate_of_an_import_register_is_never_negative():
    result = run(past(28, wobble=0.0) + day([*USUAL[:8], 0.0, None, 0.0, *USUAL[11:]]))
    assert result.hours()[9]["energy_kwh"] >= 0


def test_history_serves_where_the_days_before_were_cleaned_earlier():
    before = run(past(28, wobble=0.0))
    two = day(without(19, 20))
    assert run(two, history=before.trusted).hours()[19]["energy_kwh"] == pytest.approx(0.83, abs=0.01)
    assert run([row(5.6, hour=3), *day([*USUAL[:3], None, *USUAL[4:]], first_line=2)], history=before.trusted).refused() == [("spike", 3)]
