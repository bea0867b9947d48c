"""Every rule of validation at both of its edges: a row that it catches, and one beside it that it must not."""

from __future__ import annotations

from datetime import date, timedelta

import pyarrow as pa
import pytest

from lakehouse.contracts import quality
from lakehouse.errors import SiteError
from lakehouse.metering.rules import VeeRules, codes
from tests.metering.builders import MONDAY, USUAL, day, meters, past, row, run


def changed(hour, kwh, values=USUAL):
    """The usual day with some hours changed."""
    out = list(values)
    for n, value in enumerate(kwh if isinstance(kwh, list) else [kwh]):
        out[hour + n] = value
    return out


def test_a_sound_day_passes_untouched():
    result = run(past() + day())
    assert result.quarantined == []
    assert {r["quality"] for r in result.hours().values()} == {"measured"}
    assert [r["energy_kwh"] for r in result.hours().values()] == USUAL


def test_negative_energy_is_refused_on_import_and_not_on_a_net_register():
    result = run([row(-0.2), row(-0.2, register="net"), row(0.0, hour=1)])
    assert result.refused() == [("negative_energy", 0)]


def test_a_meter_of_no_registry_is_refused_only_where_there_is_a_registry():
    rows = [row(meter="A"), row(meter="stranger")]
    assert [q["rule"] for q in run(rows, known=meters("A")).quarantined] == ["unknown_meter"]
    assert run(rows, known=meters("A", "stranger", registered=False)).quarantined == []


def test_an_interval_of_45_minutes_and_one_that_starts_at_ten_past_are_refused():
    rows = [row(minutes=45), row(hour=2 + 1 / 6), row(hour=4)]
    assert run(rows).refused() == [("wrong_interval_length", 0), ("misaligned_interval", 2)]


def test_a_half_hour_inside_an_hour_is_an_overlap_and_one_beside_it_is_not():
    hours = day([*USUAL[:20], None, *USUAL[21:]])
    result = run(
        [*hours, row(0.1, hour=3.5, minutes=30, line=90), row(0.1, hour=20, minutes=30, line=91), row(0.1, hour=20.5, minutes=30, line=92)]
    )
    assert result.refused() == [("overlapping_interval", 3)]


def test_day_and_month_swapped_is_told_from_old_readings_delivered_together():
    delivered = date(2026, 11, 4)
    swapped = [row(at=date(2026, 3, 11), hour=n, line=n + 1, delivered=delivered) for n in range(3)]  # 3 November read as 11 March
    assert {q["rule"] for q in run(swapped).quarantined} == {"swapped_day_month"}
    history = [row(at=date(2026, 3, 9) + timedelta(days=n), line=n + 1, delivered=delivered) for n in range(5)]
    assert run(history).quarantined == []


def test_a_reading_of_the_day_after_its_delivery_passes_and_one_of_two_days_after_is_refused_on_the_delivery_day():
    near = run([row(at=MONDAY + timedelta(days=1), delivered=MONDAY)], days=[MONDAY, MONDAY + timedelta(days=1)])
    assert near.quarantined == []
    far = run([row(at=date(2026, 3, 14), delivered=MONDAY)], days=[MONDAY])
    assert [(q["rule"], q["date"]) for q in far.quarantined] == [("future_reading", MONDAY)]


def test_a_reading_before_the_sites_first_day_counts_on_its_delivery_day():
    rows = [row(at=date(2025, 12, 1), delivered=MONDAY)]
    result = run(rows, days=[MONDAY], first_day=date(2026, 1, 1))
    assert [(q["rule"], q["date"]) for q in result.quarantined] == [("before_first_day", MONDAY)]


def test_of_two_readings_the_later_delivery_wins_then_the_better_quality_then_the_later_line():
    by_delivery = run([row(0.5, quality="A"), row(0.7, quality="E", delivered=MONDAY + timedelta(days=3))])
    by_quality = run([row(0.5, quality="A", line=1), row(0.7, quality="E", line=2)])
    by_line = run([row(0.5, line=1), row(0.7, line=2)])
    assert [r.hours()[0]["energy_kwh"] for r in (by_delivery, by_quality, by_line)] == [0.7, 0.5, 0.7]
    assert by_delivery.edits[0]["was_kwh"] == 0.5 and by_delivery.edits[0]["since_delivery"] == MONDAY + timedelta(days=3)


def test_a_repeated_row_is_an_exact_duplicate_and_a_different_one_is_superseded():
    result = run([row(0.5, line=1), row(0.5, line=2), row(0.4, line=0)])
    (account,) = result.conservation
    assert (account["cleaned"], account["exact_duplicates"], account["superseded"], account["is_conserved"]) == (1, 1, 1, True)


def test_a_value_that_was_delivered_twice_and_then_corrected_is_one_edit():
    result = run([row(0.5, line=1), row(0.5, delivered=MONDAY + timedelta(days=1)), row(0.7, delivered=MONDAY + timedelta(days=2))])
    assert [(e["was_kwh"], e["is_kwh"], e["rule"]) for e in result.edits] == [(0.5, 0.7, "superseded")]


def test_a_refused_correction_does_not_beat_a_believable_reading():
    result = run([row(0.5), row(-0.5, delivered=MONDAY + timedelta(days=2))])
    assert result.hours()[0]["energy_kwh"] == 0.5


def test_a_spike_is_refused_and_an_evening_peak_is_not():
    spiking = run(past() + day(changed(3, 5.6)))
    assert [q for q in spiking.refused()] == [("spike", 3)]
    assert spiking.hours()[3]["quality"] == "estimated" and spiking.hours()[3]["delivered_kwh"] == 5.6
    # Beside something that is in use, as high as the usual peak: three times as much as either is no use.
    assert [q for q in run(past() + day(changed(18, [1.0, 4.5, 0.6]))).refused()] == [("spike", 19)]
    # As high, but its neighbours rise with it: somebody was at home.
    assert run(past() + day(changed(18, [2.1, 5.6, 4.0]))).quarantined == []


def test_more_than_the_connection_carries_is_refused_and_its_rating_is_not():
    assert run(day(changed(20, 12.0))).refused() == [("beyond_rating", 20)]
    assert run(day(changed(20, 9.2))).quarantined == []


def test_a_stuck_register_keeps_its_first_value_and_a_repetitive_meter_is_left_alone():
    result = run(past() + day(changed(5, [0.26] * 12)))
    assert [hour for rule, hour in result.refused() if rule == "stuck_value"] == list(range(6, 17))
    # A meter that counts in coarse steps repeats itself all the time.
    coarse = [0.1] * 6 + [0.2] * 3 + [0.1] * 6 + [0.3] * 4 + [0.1] * 5
    assert run(past(kwh=coarse, wobble=0.0) + day(coarse)).quarantined == []


def test_a_dead_register_is_refused_and_a_pv_meters_noon_is_not():
    dead = run(past() + day([*USUAL[:4], *[0.0] * 20]))
    assert [hour for rule, hour in dead.refused() if rule == "zero_run"] == list(range(4, 24))
    noon = [*USUAL[:9], *[0.0] * 8, *USUAL[17:]]
    assert run(past(kwh=noon) + day(noon), known=meters(("A", "pv", 9.2))).quarantined == []


def test_a_late_register_read_is_spread_over_the_hours_it_missed():
    late = changed(9, [0.0, 0.0, 0.39 + 0.37 + 0.42])
    result = run(past() + day(late))
    got = [result.hours()[n] for n in (9, 10, 11)]
    assert [r["rule"] for r in got] == ["late_register_read"] * 3
    assert sum(r["energy_kwh"] for r in got) == pytest.approx(0.39 + 0.37 + 0.42)
    assert [r["delivered_kwh"] for r in got] == [0.0, 0.0, pytest.approx(1.18)]
    # A zero and then the usual value is an empty hour, not a late read.
    assert run(past() + day(changed(9, 0.0))).hours()[10]["quality"] == "measured"


# A home with a roof: it feeds in from nine to four, and takes at other hours.
TAKEN = [*USUAL[:9], *[0.0] * 8, *USUAL[17:]]
GIVEN = [0.0 if v else 0.7 for v in TAKEN]


def roof(taken, given):
    """Four weeks of a home with a roof, and a day with these values."""
    before = past(kwh=TAKEN) + past(kwh=GIVEN, register="export")
    last = day(taken) + day(given, register="export")
    return run(before + last, known=meters(("A", "pv", 9.2), registers="export,import"))


def test_a_meter_that_neither_takes_nor_gives_was_read_late():
    late = changed(17, [0.0, 0.0, 1.05], changed(16, 0.3, TAKEN))  # at dusk, where zeros are usual on this register
    given = changed(16, 0.0, GIVEN)
    spread = roof(late, given).hours()
    assert [(spread[n]["energy_kwh"], spread[n]["rule"]) for n in (17, 18, 19)] == [(pytest.approx(0.35), "late_register_read")] * 3
    # A flow that turns round passes zero: a single interval, and no more after it than later, tells nothing.
    turning = changed(16, [0.3, 0.0, 0.66], TAKEN)
    assert {r["rule"] for r in roof(turning, given).hours().values()} == {None}
    # It fed in: the register rested.
    assert {r["rule"] for r in roof(late, changed(17, 0.2, given)).hours().values()} == {None}
    # Both registers rest at other hours as well: they are coarse, or a battery holds the meter at zero.
    assert {r["rule"] for r in roof(changed(12, 0.0, late), changed(12, 0.0, given)).hours().values()} == {None}


def test_a_charger_that_was_read_late_counts_more_than_its_connection_carries():
    charging = [*[7.3] * 4, 0.9, *[0.0] * 14, *[7.3] * 5]
    late = changed(20, [0.0, 0.0, 21.9], charging)
    result = run(past(kwh=charging, wobble=0.002) + day(late), known=meters(("A", "ev", 9.2)))
    assert [result.hours()[n]["energy_kwh"] for n in (20, 21, 22)] == pytest.approx([7.3] * 3)
    # As much, and nothing beside it that would say so.
    alone = run(past(kwh=charging, wobble=0.002) + day(changed(12, 21.9, charging)), known=meters(("A", "ev", 9.2)))
    assert alone.refused() == [("beyond_rating", 12)]


def test_a_day_in_watt_hours_is_put_right_and_a_busy_day_is_not():
    slipped = run(past() + day([1000 * v for v in USUAL]))
    assert [r["energy_kwh"] for r in slipped.hours().values()] == pytest.approx(USUAL)
    assert {r["rule"] for r in slipped.hours().values()} == {"unit_slip"}
    busy = run(past() + day([4 * v for v in USUAL]))
    assert {r["rule"] for r in busy.hours().values()} == {None}


def test_a_meter_whose_clock_is_an_hour_late_is_moved_back_and_one_that_only_lost_an_hour_is_not():
    others = [r for n in range(6) for r in day(meter=f"M{n}", first_line=100 * n)]
    late = [row(v, hour=n + 1, line=900 + n, delivered=MONDAY + timedelta(days=1)) for n, v in enumerate(USUAL)]
    result = run(others + late)
    assert [r["energy_kwh"] for r in result.hours().values()] == USUAL
    assert {r["rule"] for r in result.hours().values()} == {"shifted_clock"}
    lost = day([None, *USUAL[1:]], first_line=900)
    assert {r["rule"] for r in run(others + lost).hours().values()} <= {None, "missing_interval"}


def test_what_the_sender_estimated_is_estimated():
    result = run([row(0.5, quality="E"), row(0.5, hour=1, quality="S14"), row(0.5, hour=2, quality="A"), row(0.5, hour=3)])
    assert [r["is_estimated"] for r in result.hours().values()] == [True, True, False, False]


def test_an_unreadable_line_with_a_date_is_estimated_and_kept_in_quarantine():
    values = changed(5, [None])
    result = run(past() + day(values) + [row(hour=5, line=77, fault="expected energy in kWh as a number, found '0,4'")])
    assert [(q["rule"], q["line"], q["raw_text"]) for q in result.quarantined] == [("unreadable_line", 77, "as delivered")]
    assert result.hours()[5]["is_estimated"]


def test_every_rule_that_can_stand_in_a_table_is_explained():
    names = set(codes()["code"].to_pylist())
    assert {
        "spike",
        "stuck_value",
        "zero_run",
        "unit_slip",
        "shifted_clock",
        "late_register_read",
        "missing_interval",
        "superseded",
    } <= names
    assert len(names) == codes().num_rows


@pytest.mark.parametrize("wrong", [{"spike_facter": 2}, {"spike_factor": "much"}, {"stuck_least_repeats": 2.5}, {"spike_factor": -1}])
def test_a_wrong_threshold_in_the_site_file_is_told(wrong):
    with pytest.raises(SiteError, match=next(iter(wrong))):
        VeeRules.from_site(wrong)


def test_thresholds_come_from_the_site_file():
    assert VeeRules.from_site({"spike_factor": 5, "stuck_least_repeats": 9}, 3.0) == VeeRules(
        spike_factor=5.0, stuck_least_repeats=9, longest_gap_days=3.0
    )


def test_a_past_from_before_a_measure_was_kept_serves_and_judges_more_leniently():
    """Reports that an earlier version wrote have no `lone_peak_kw` and no `hours_with_zeros`."""
    schema = pa.schema([f.with_nullable(True) for f in quality.VeeReport.arrow_schema()])
    reports = pa.Table.from_pylist(run(past(14)).report, schema)
    for column in ("lone_peak_kw", "hours_with_zeros"):
        nothing = pa.nulls(len(reports), schema.field(column).type)
        reports = reports.set_column(reports.column_names.index(column), column, nothing)
    found = run(day(changed(3, 5.6)), reports=reports)
    assert found.refused() == [("spike", 3)] and found.quarantined[0]["reason"]
    late = run(day(changed(9, [0.0, 0.0, 1.18])), reports=reports)
    assert {late.hours()[n]["rule"] for n in (9, 10, 11)} == {"late_register_read"}
