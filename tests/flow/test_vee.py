"""What a person sees of a meter: also of one none of whose readings was believed."""

import pytest

from lakehouse.errors import TableNotFoundError
from lakehouse.flow.vee import picture_around, readings_of_meter
from tests.flow.builders import clean_up_to_date, day, land, reading_lines, village

PNG = b"\x89PNG"


@pytest.fixture
def site(tmp_path):
    workspace = village(tmp_path / "village")
    sound = reading_lines(day(18))
    dead = [line.rsplit(",", 2)[0] + ",-1.0,A" for line in reading_lines(day(18), meter="NEGATIVE")]
    land(workspace, "readings", day(19), "r18.csv", [*sound, *dead])
    clean_up_to_date(workspace)
    return workspace


def test_a_meter_is_shown_with_what_stands(site):
    assert readings_of_meter(site, "A").num_rows == 24
    assert picture_around(site, "A", day(18)).startswith(PNG)


def test_a_meter_all_of_whose_readings_were_refused_is_shown_as_well(site):
    found = readings_of_meter(site, "NEGATIVE").to_pylist()
    assert found and {row["quality"] for row in found} == {"refused"}
    assert {row["delivered_kwh"] for row in found} == {-1.0}
    assert picture_around(site, "NEGATIVE", day(18)).startswith(PNG)


def test_a_meter_nobody_knows_is_told_in_a_sentence(site):
    with pytest.raises(TableNotFoundError, match="no readings of meter 'Z'"):
        readings_of_meter(site, "Z")
