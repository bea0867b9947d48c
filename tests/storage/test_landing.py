"""Landing keeps the bytes as delivered; a file is there whole or not at all."""

from datetime import date, timedelta

import pytest

from lakehouse.errors import GridlakeError
from lakehouse.storage.landing import Landing

TODAY = date(2026, 3, 30)


def written(folder, name, text):
    path = folder / name
    path.write_text(text)
    return path


def test_a_file_lands_under_its_feed_and_day(tmp_path):
    landing = Landing(tmp_path / "landing")
    arrival = landing.land("meter_readings", written(tmp_path, "north.csv", "a,b"), TODAY)
    assert arrival.path == tmp_path / "landing/meter_readings/2026-03-30/north.csv"
    assert landing.deliveries("meter_readings") == [TODAY]
    assert [a.name for a in landing.arrivals("meter_readings", TODAY)] == ["north.csv"]


def test_the_same_bytes_twice_land_once_and_other_bytes_land_beside(tmp_path):
    landing = Landing(tmp_path / "landing")
    landing.land("prices", written(tmp_path, "p.csv.gz", "1"), TODAY)
    assert landing.land("prices", written(tmp_path, "p.csv.gz", "1"), TODAY) is None
    landing.land("prices", written(tmp_path, "p.csv.gz", "2"), TODAY)
    names = [a.name for a in landing.arrivals("prices", TODAY)]
    assert sorted(names) == ["p.csv.gz", "p~2.csv.gz"]
    assert (tmp_path / "landing/prices/2026-03-30/p.csv.gz").read_text() == "1"


def test_unfinished_and_hidden_files_are_not_there_yet(tmp_path):
    landing = Landing(tmp_path)
    folder = tmp_path / "prices/2026-03-30"
    folder.mkdir(parents=True)
    for name in ("a.csv.part", ".b.csv", "_c.csv", "d.tmp", "e.csv"):
        (folder / name).write_text("x")
    assert [a.name for a in landing.arrivals("prices", TODAY)] == ["e.csv"]


def test_strays_are_told_and_stop_nothing(tmp_path):
    landing = Landing(tmp_path)
    (tmp_path / "prices/2026-13-45").mkdir(parents=True)
    (tmp_path / "prices/loose.csv").write_text("x")
    (tmp_path / "note.txt").write_text("x")
    assert landing.deliveries("prices") == []
    assert [p.name for p in landing.stray()] == ["note.txt", "2026-13-45", "loose.csv"]


@pytest.mark.parametrize(
    ("feed", "name"), [("../etc", "a.csv"), ("prices", "../a.csv"), ("prices", ".."), ("Prices", "a.csv"), ("prices", ".x")]
)
def test_names_that_lead_elsewhere_are_refused(tmp_path, feed, name):
    with pytest.raises(GridlakeError, match="Expected a"):
        Landing(tmp_path / "landing").land(feed, written(tmp_path, "a.csv", "x"), TODAY, name=name)
    assert not (tmp_path / "landing").exists()


def test_a_file_that_is_no_file_gets_one_sentence(tmp_path):
    with pytest.raises(GridlakeError, match="found nothing"):
        Landing(tmp_path).land("prices", tmp_path / "absent.csv", TODAY)
    with pytest.raises(GridlakeError, match="found a folder"):
        Landing(tmp_path).land("prices", tmp_path, TODAY)


def test_a_glance_sees_what_comes_and_goes_and_looks_closely_at_the_newest_only(tmp_path):
    landing = Landing(tmp_path / "landing")
    old = landing.land("prices", written(tmp_path, "a.csv", "x"), TODAY - timedelta(days=9)).path
    new = landing.land("prices", written(tmp_path, "b.csv", "x"), TODAY).path

    def glance():
        return list(landing.glance("prices", closely=1))

    before = glance()
    assert glance() == before
    with old.open("a") as appended:
        appended.write("changed in place")
    assert glance() == before
    with new.open("a") as appended:
        appended.write("changed in place")
    changed = glance()
    assert changed != before
    landing.land("prices", written(tmp_path, "late.csv", "x"), TODAY - timedelta(days=9))
    assert glance() != changed
