"""What is wrong on a site is found in its tables, told once, and over when it is put right."""

import json
from datetime import UTC, datetime, timedelta

import pytest

from lakehouse.alerting.alert import Alert
from lakehouse.contracts.quality import ForecastAccuracy
from lakehouse.flow.watch import conditions, look, read_ledger, try_channels
from lakehouse.flow.workspace import Workspace
from tests.flow.builders import SITE, clean_up_to_date, day, land, reading_lines, series_lines, village

NOON = datetime(2026, 3, 20, 12, tzinfo=UTC)


def kinds(alerts):
    return sorted((a.kind, a.subject) for a in alerts)


@pytest.fixture
def site(tmp_path):
    """Readings up to the 19th, as they should be on the 20th; prices of the 20th."""
    workspace = village(tmp_path / "village")
    for number in (18, 19):
        land(workspace, "readings", day(number + 1), f"r{number}.csv", reading_lines(day(number)))
    land(workspace, "market", day(19), "m.csv", series_lines(day(20), "spot", "price_eur_per_mwh", lambda hour: 50.0 + hour))
    clean_up_to_date(workspace)
    return workspace


def with_clock(workspace, number):
    text = SITE.replace("clock: 2026-03-20", f"clock: 2026-03-{number}")
    (workspace.site.home / "gridlake.yaml").write_text(text, encoding="utf-8")
    return Workspace.open(workspace.site.home)


def test_nothing_is_wrong_where_everything_came(site):
    assert conditions(site, NOON) == []


def test_a_feed_is_late_once_its_newest_data_is_older_than_its_usual_delay(site):
    later = with_clock(site, 21)
    [alert] = conditions(later, NOON)
    assert (alert.kind, alert.subject) == ("data late", "readings")
    assert "newest data of feed readings is of 2026-03-19; that of 2026-03-20 was due" in alert.what
    assert alert.since == datetime(2026, 3, 21, 11, tzinfo=UTC)  # noon in Madrid, two days after


def test_late_data_is_told_once_and_over_when_it_came(site):
    later = with_clock(site, 21)
    log = later.site.home / "alerts.jsonl"
    assert [m.occasion for m in look(later, now=NOON).sent] == ["new"]
    assert look(later, now=NOON + timedelta(hours=1)).sent == []
    land(later, "readings", day(21), "r20.csv", reading_lines(day(20)))
    clean_up_to_date(later)
    assert [m.occasion for m in look(later, now=NOON + timedelta(hours=2)).sent] == ["over"]
    assert [json.loads(line)["occasion"] for line in log.read_text().splitlines()] == ["new", "over"]
    [entry] = read_ledger(later)
    assert entry.closed_at == NOON + timedelta(hours=2)


def test_an_interval_in_the_far_future_does_not_make_a_feed_fresh(site):
    later = with_clock(site, 21)
    land(later, "readings", day(21), "wrong.csv", ["A,import,2031-01-01T00:00:00Z,60,1,A"])
    clean_up_to_date(later)
    assert ("data late", "readings") in kinds(conditions(later, NOON))


def test_many_refused_rows_are_told(site):
    land(site, "readings", day(20), "bad.csv", ["A,import,never,60,1,A"] * 12)
    clean_up_to_date(site)
    [alert] = conditions(site, NOON)
    assert (alert.kind, alert.subject) == ("rows refused", "readings")
    assert "12 (33%) are in quarantine" in alert.what


def test_a_forecast_worse_than_last_weeks_values_is_told(site):
    rows = []
    for number in range(1, 16):
        for model, mae in (("lightgbm", 1.2), ("seasonal_naive", 1.0)):
            issued = datetime(2026, 3, number, 9, tzinfo=UTC)
            rows.append(
                {"target": "demand", "series_id": "village", "model": model, "issued_at": issued, "intervals": 24, "mae": mae, "rmse": mae}
                | {"is_fallback": False}
            )
    site.replace(ForecastAccuracy.name, ForecastAccuracy.from_rows(rows))
    [alert] = conditions(site, NOON)
    assert alert.kind == "forecast worse than last week's values"
    assert "Over the last 14 issues the error of demand was 1.20 times" in alert.what


def test_what_others_know_goes_the_same_way(site):
    failed = Alert("run failed", "raw/readings", "error", "no space left", "make room", NOON)
    assert [m.alert for m in look(site, [failed], now=NOON).sent] == [failed]
    assert look(site, [failed], now=NOON).sent == []
    assert [m.occasion for m in look(site, now=NOON).sent] == ["over"]


def test_a_channel_whose_secret_is_missing_holds_up_no_other(site, monkeypatch):
    monkeypatch.delenv("VILLAGE_HOOK", raising=False)
    channels = "alerts: {channels: {log: {kind: log}, chat: {kind: webhook, url_variable: VILLAGE_HOOK}}}\n"
    (site.site.home / "gridlake.yaml").write_text(SITE.replace("clock: 2026-03-20", "clock: 2026-03-21") + channels, encoding="utf-8")
    workspace = Workspace.open(site.site.home)
    found = look(workspace, now=NOON)
    assert [m.channel for m in found.sent] == ["log"] and "VILLAGE_HOOK is not set" in found.troubles[0]
    assert {name: bool(fault) for name, fault in try_channels(workspace.site).items()} == {"log": False, "chat": True}
