"""The judge of the chaos benchmark: each law holds for a site that was left in peace, and is broken by just the fault that it is about.

The benchmark itself takes minutes: python -m benchmarks.chaos --help.
"""

from __future__ import annotations

import hashlib
import json
import random
import shutil
from datetime import date
from pathlib import Path

import pytest

from benchmarks.chaos import laws
from benchmarks.chaos.post import Letter, Post, addressed, deliver, take_back
from lakehouse.flow.workspace import Workspace
from tests.flow.builders import clean_up_to_date, day, land, reading_lines, series_lines, village

FILES = [("readings", day(n), f"n{n}.csv") for n in (4, 5, 6)]


@pytest.fixture(scope="module")
def peaceful(tmp_path_factory: pytest.TempPathFactory) -> Path:
    workspace = village(tmp_path_factory.mktemp("peaceful") / "site")
    for feed, delivered, name in FILES:
        land(workspace, feed, delivered, name, [*reading_lines(date(2026, 3, delivered.day - 1)), "no reading"])
    land(workspace, "market", day(5), "m.csv", series_lines(day(5), "spot", "price_eur_per_mwh", lambda h: 40.0 + h))
    clean_up_to_date(workspace)
    return workspace.site.home


@pytest.fixture
def site(peaceful: Path, tmp_path: Path) -> Workspace:
    home = shutil.copytree(peaceful, tmp_path / "site")
    workspace = Workspace.open(home)
    workspace.publish()
    return workspace


def sent(site: Workspace) -> Post:
    post = Post(site.site.home, [])
    for feed in site.site.feeds:
        for delivered in site.landing.deliveries(feed):
            for arrival in site.landing.arrivals(feed, delivered):
                post.sent[(feed, delivered, arrival.sha256())] = 1
    return post


@pytest.mark.slow
def test_a_site_in_peace_breaks_no_law(site: Workspace, tmp_path: Path):
    verdicts = list(laws.judge(sent(site), [], tmp_path))
    broken = [v for v in verdicts if not v.holds and v.law != "each fault that was made was told"]  # nobody looked for alerts
    assert not [v for v in broken if "alerts" not in v.law], broken
    assert len(verdicts) == 11


def test_a_file_that_did_not_land_is_missed(site: Workspace):
    post = sent(site)
    post.sent[("readings", day(7), hashlib.sha256(b"lost").hexdigest())] = 1
    assert not laws.files_have_landed(post, site).holds


def test_a_file_that_landed_twice_is_seen(site: Workspace):
    post = sent(site)
    folder = site.landing.root / "readings" / day(4).isoformat()
    (folder / "again.csv").write_bytes((folder / "n4.csv").read_bytes())
    assert "1 doubled" in laws.files_have_landed(post, site).told


def test_a_file_that_was_not_read_is_seen(site: Workspace):
    assert laws.landing_is_read(site).holds
    land(site, "readings", day(8), "n8.csv", reading_lines(day(7)))
    assert not laws.landing_is_read(site).holds


def test_rows_that_are_gone_from_cleaned_are_missed(site: Workspace):
    assert laws.nothing_is_lost(site).holds
    site.table("cleaned/meter_readings").delta().delete("interval_start < '2026-03-04T00:00:00Z'")
    assert "readings accounted as cleaned" in laws.nothing_is_lost(site).told


def test_rows_that_are_gone_from_quarantine_are_missed(site: Workspace):
    site.table("quality/quarantine").delta().delete("file = 'n5.csv'")
    assert "accounted as quarantined" in laws.nothing_is_lost(site).told


def test_a_row_that_is_there_twice_is_seen(site: Workspace):
    assert laws.nothing_is_doubled(site).holds
    rows = site.table("cleaned/meter_readings").read("interval_start = TIMESTAMPTZ '2026-03-04 05:00:00+00'")
    assert rows.num_rows == 1
    site.table("cleaned/meter_readings").append(rows)
    assert "cleaned/meter_readings: 1 keys" in laws.nothing_is_doubled(site).told


def test_a_value_that_landing_does_not_tell_is_found_by_the_comparison(site: Workspace, peaceful: Path):
    site.table("raw/readings").delta().update({"energy_kwh": "99.0"}, predicate="line = 5 AND delivery_date = '2026-03-05'")
    assert laws.differing_rows(site, Workspace.open(peaceful), "raw/readings") == {day(4): 2}  # the row that is, and the one that should be
    assert not laws.differing_rows(site, Workspace.open(peaceful), "quality/deliveries")


def alert(occasion: str, kind: str = "data late", subject: str = "market") -> str:
    return json.dumps({"occasion": occasion, "kind": kind, "subject": subject}) + "\n"


@pytest.mark.parametrize(
    ("log", "holds"),
    [
        (["new", "over"], True),
        (["new", "over", "new"], True),
        (["new", "new"], False),
        (["new", "over", "over"], False),
        (["over"], False),
    ],
)
def test_an_alert_comes_once_and_goes_once(site: Workspace, log: list[str], holds: bool):
    (site.site.home / "alerts.jsonl").write_text("".join(map(alert, log)), encoding="utf-8")
    assert next(laws.alerts_came_once(site, [])).holds == holds


def test_an_alert_that_was_not_told_is_missed(site: Workspace):
    _, open_ones, made = laws.alerts_came_once(site, [])
    assert "not told: data late: market" in open_ones.told  # its newest data is of 5 March, and it is the 20th
    assert not made.holds


def test_letters_land_as_they_were_sent_whatever_befalls_them(site: Workspace):
    post = Post(site.site.home, [])
    letters = [Letter(n / 20, "readings", day(9), f"l{n}.csv", f"content {n}".encode()) for n in range(20)]
    told = [one for one in addressed(letters, random.Random(1), day(20)) if one.kind != "killed on the way"]
    assert {one.kind for one in told} >= {"plain", "late", "with a broken one"}
    for letter in told:
        deliver(post, letter, random.Random(letter.name))
    take_back(post)
    assert laws.files_have_landed(post, site).told.endswith("0 doubled")
    held = [a.path.read_bytes() for d in site.landing.deliveries("readings") for a in site.landing.arrivals("readings", d)]
    assert all(letter.content in held for letter in told)
