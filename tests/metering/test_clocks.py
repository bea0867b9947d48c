"""A whole file whose clock is hours off is told from its meters' past, and a strange day is not taken for one."""

from __future__ import annotations

import random
from datetime import timedelta

from tests.metering.builders import MONDAY, USUAL, day, past, row, run

METERS = "ABCDEF"


def moved(rows, hours):
    """The same rows stamped so many hours later."""
    out = [{**r, "interval_start": r["interval_start"] + timedelta(hours=hours)} for r in rows]
    return [{**r, "date": r["interval_start"].date()} for r in out]


def town(monday, meters=METERS):
    """Two weeks of some meters, and what `monday` makes of a meter's Monday; all of a day is in one file."""
    return [r for meter in meters for r in past(meter=meter) + monday(meter)]


def test_a_file_an_hour_or_ten_late_is_moved_back():
    for hours in (1, 2, 10):
        result = run(town(lambda meter, hours=hours: moved(day(meter=meter), hours)))
        for meter in METERS:
            found = result.hours(meter=meter)
            assert [found[h]["energy_kwh"] for h in range(24)] == USUAL and {r["rule"] for r in found.values()} == {"shifted_clock"}
        assert result.quarantined == [] and all(c["is_conserved"] for c in result.conservation)


def test_a_file_two_hours_early_is_moved_on():
    rows = town(lambda meter: moved(day(meter=meter), -2))
    found = run(rows, days=[MONDAY - timedelta(days=n) for n in range(14, -1, -1)]).hours()
    assert [found[h]["energy_kwh"] for h in range(22)] == USUAL[:22]


def test_a_day_of_another_shape_is_no_shifted_clock():
    rng = random.Random(3)
    at_home = USUAL[:8] + [0.9] * 8 + USUAL[16:]
    for shape in (at_home, [0.3 + 0.001 * n for n in range(24)], rng.sample(USUAL, 24), [2 * v for v in USUAL]):
        result = run(town(lambda meter, shape=shape: day(shape, meter=meter)))
        assert "shifted_clock" not in {r["rule"] for r in result.trusted.to_pylist()}


def test_three_meters_of_a_day_are_too_few_and_a_week_of_one_is_enough():
    few = run(town(lambda meter: moved(day(meter=meter), 2), "ABC"))
    assert "shifted_clock" not in {r["rule"] for r in few.trusted.to_pylist()}
    rows = past()
    delivered = MONDAY + timedelta(days=5)
    for n in range(5):
        at = MONDAY + timedelta(days=n)
        rows += moved(day([round(v * (1 + 0.01 * n), 4) for v in USUAL], at=at, first_line=1 + 24 * n, delivered=delivered), 2)
    found = run(rows).hours(at=MONDAY + timedelta(days=2))
    assert found[20]["rule"] == "shifted_clock" and found[20]["energy_kwh"] == round(USUAL[20] * 1.02, 4)


def test_a_file_beside_the_hours_of_all_other_files_is_moved_back_without_a_past():
    rows = []
    for n, meters in enumerate(("ABCDE", "FGHIJ", "KLMNO", "PQRST", "UVWXY")):
        lines = [line for meter in meters for line in day(meter=meter, file=f"route-{n}.csv")]
        rows += moved(lines, 2) if n == 3 else lines
    result = run(rows)
    assert {r["meter_id"] for r in result.trusted.to_pylist() if r["rule"] == "shifted_clock"} == set("PQRST")
    assert [result.hours(meter="P")[h]["energy_kwh"] for h in range(24)] == USUAL


def test_without_a_past_nothing_is_moved():
    rows = [r for meter in METERS for r in moved(day(meter=meter), 2)]
    result = run([*rows, row(at=MONDAY, hour=0, meter="G")])
    assert {r["rule"] for r in result.trusted.to_pylist() if r["quality"] != "estimated"} == {None}


def test_a_shop_that_opens_later_on_sundays_has_no_shifted_clock():
    sunday, later = MONDAY - timedelta(days=1), [*USUAL[-2:], *USUAL[:-2]]
    rows = []
    for meter in METERS:
        for back in range(28, -1, -1):
            at = sunday - timedelta(days=back)
            if back != 7:  # a Sunday that was not delivered: of the last two weeks one Sunday and two Saturdays are left
                shape = later if at.isoweekday() == 7 else USUAL
                rows += day([round(v * (1 + 0.01 * (back % 5)), 4) for v in shape], meter=meter, at=at)
    result = run(rows, days=[sunday])
    assert [result.hours(at=sunday)[h]["energy_kwh"] for h in range(24)] == later
    assert "shifted_clock" not in {r["rule"] for r in result.trusted.to_pylist()}
