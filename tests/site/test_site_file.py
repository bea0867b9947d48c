"""A wrong site file is told with its line, what is wrong there, and what to do; a right one loads."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest

from lakehouse.errors import SiteError
from lakehouse.flow.setup import EXAMPLES, example_sites, parse_example
from lakehouse.site import load_site, parse_site

GOOD = """\
name: small
country: ES
time_zone: Europe/Madrid
location: {latitude_deg: 40.4, longitude_deg: -3.7}
first_day: 2026-01-01
clock: 2026-03-31
feeds:
  meter_readings:
    format: canonical_readings
  fleet:
    format: fleet_json
metering:
  aggregates:
    - series_id: portfolio
series:
  demand:
    table: cleaned/load
    series: [portfolio]
    inputs:
      - {name: temperature, table: cleaned/load, series: portfolio, quantity: load_mw}
fleet:
  feed: fleet
"""
PATH = Path("/somewhere/gridlake.yaml")


def told(text: str) -> str:
    with pytest.raises(SiteError) as error:
        parse_site(text, PATH)
    assert error.value.exit_code == 2
    assert error.value.remedy
    return str(error.value)


def changed(old: str, new: str) -> str:
    assert GOOD.count(old) == 1, old
    return GOOD.replace(old, new)


def line_of(text: str, part: str) -> int:
    return next(n for n, line in enumerate(text.splitlines(), 1) if part in line)


def test_the_right_file_loads_and_defaults_are_filled():
    site = parse_site(GOOD, PATH)
    assert site.series["demand"].quantiles == (0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95)
    assert site.path("landing") == PATH.parent / "landing"
    assert site.lake_uri == str(PATH.parent / "lake")
    assert (site.first_day, site.today()) == (date(2026, 1, 1), date(2026, 3, 31))


@pytest.mark.parametrize("name", example_sites())
def test_every_example_parses_and_is_named_like_its_file(name: str):
    assert parse_example((EXAMPLES / f"{name}.yaml").read_text(encoding="utf-8"), Path("/tmp/x")).name == name


@pytest.mark.parametrize(
    ("old", "new", "at", "says", "remedy"),
    [
        ("time_zone:", "timezone:", "timezone:", "unknown key; did you mean 'time_zone'?", "Keys known there: name, title"),
        (
            "    format: fleet_json",
            "    fromat: fleet_json",
            "fromat",
            "feeds.fleet.fromat: unknown key; did you mean 'format'?",
            "format, provides",
        ),
        ("  feed: fleet\n", "  feed: fleet\n  reserve: 0.1\n", "reserve", "fleet.reserve: unknown key", "value_of_lost_load_eur_per_mwh"),
        (
            "    table: cleaned/load\n",
            "    table: cleaned/load\n    quantile: [0.5]\n",
            "quantile:",
            "did you mean 'quantiles'?",
            "issue_time",
        ),
        ("{name: temperature,", "{name: temperature, avail: x,", "avail", "series.demand.inputs.0.avail: unknown key", "availability"),
        ("name: small\n", "", "", "name: this key is missing", "Add name."),
        ("    series: [portfolio]\n", "", "demand:", "series.demand.series: this key is missing", "Add series.demand.series."),
        (
            "format: canonical_readings",
            "format: canonical_reading",
            "canonical_reading",
            "did you mean 'canonical_readings'?",
            "Mend feeds",
        ),
        (
            "format: canonical_readings",
            "format: zzz",
            "format: zzz",
            "'zzz' is no known format; known: ",
            "Mend feeds.meter_readings.format",
        ),
        (
            "Europe/Madrid",
            "Europe/Madrit",
            "time_zone",
            "'Europe/Madrit' is no IANA time zone; did you mean 'Europe/Madrid'?",
            "Mend time_zone",
        ),
        (
            "    series: [portfolio]\n",
            "    series: [portfolio]\n    quantiles: [0.1, 0.9]\n",
            "quantiles",
            "must hold 0.1, 0.5 and 0.9",
            "Mend",
        ),
        ("    series: [portfolio]\n", "    series: [portfolio]\n    quantiles: [0.5, 0.1, 0.9]\n", "quantiles", "must rise", "Mend"),
        (
            "    series: [portfolio]\n",
            "    series: [portfolio]\n    quantiles: [0.1, 0.5, 0.9, 1.0]\n",
            "quantiles",
            "between 0 and 1",
            "Mend",
        ),
        (
            "    series: [portfolio]\n",
            '    series: [portfolio]\n    issue_time: "25:00"\n',
            "issue_time",
            "series.demand.issue_time",
            "Mend",
        ),
        (
            "    format: fleet_json",
            "    format: fleet_json\n    options: {decimal: ','}",
            "options",
            "feeds.fleet.options.decimal: 'fleet_json' has no such option; it has: ",
            "Mend feeds.fleet.options.decimal",
        ),
        ("  feed: fleet\n", "  feed: flet\n", "feed: flet", "fleet.feed: 'flet' is no feed of this site", "Mend fleet.feed"),
        (
            "  feed: fleet\n",
            "  feed: fleet\n  demand: wind\n",
            "demand: wind",
            "fleet.demand: 'wind' is not among this site's series",
            "Mend",
        ),
        ("  demand:\n", "  load:\n", "load:", "series.load", "Mend"),
        ("  meter_readings:\n", "  Meter Readings:\n", "Meter Readings", "a feed's name is a folder and an SQL name", "Mend"),
        ("clock: 2026-03-31", "clock: 2025-03-31", "clock", "clock: 2025-03-31 is before first_day 2026-01-01", "Mend clock"),
        ("first_day: 2026-01-01", "first_day: yesterday", "first_day", "first_day: ", "Mend first_day"),
        ("country: ES", "country: Spain", "country", "country: ", "Mend country"),
        ("latitude_deg: 40.4", "latitude_deg: 140.4", "latitude_deg", "location.latitude_deg: ", "Mend location.latitude_deg"),
        ("name: small", "name: Small Utility", "name", "name: ", "Mend name"),
        ("table: cleaned/load\n", "table: cleaned/lod\n", "table: cleaned/lod", "no table of series; did you mean 'cleaned/load'?", "Mend"),
        (
            "{name: temperature, table: cleaned/load",
            "{name: temperature, table: cleaned/weather",
            "name: t",
            "no feed of this site fills",
            "Mend",
        ),
        ("    series: [portfolio]\n", "    series: [portfolo]\n", "portfolo]", "'portfolo' is none of metering.aggregates", "Mend"),
        ("    series: [portfolio]\n", "    series: []\n", "series: []", "at least 1 item", "Mend series.demand.series"),
        (
            "    series: [portfolio]\n",
            "    series: [portfolio]\n    interval_minutes: 7\n",
            "interval_minutes",
            "should be 5, 15, 30 or 60",
            "Mend",
        ),
        ("    series: [portfolio]\n", "    series: [portfolio]\n    models: [lightgmb]\n", "models", "did you mean 'lightgbm'?", "Mend"),
        ("country: ES", "country: ZZ", "country", "country: no calendar of public holidays", "Mend country"),
        ("country: ES", "country: ES\nsubdivision: QQ", "subdivision", "subdivision: no calendar of public holidays", "Mend subdivision"),
        ("metering:\n", "metering:\n  rules: {spike_facto: 3}\n", "rules", "did you mean 'spike_factor'?", "Thresholds: longest_gap_days"),
        ("metering:\n", "metering:\n  rules: {spike_factor: lots}\n", "rules", "expected a number from 0, found 'lots'", "Mend metering"),
        ("feeds:\n", "feeds: []\nfeed_list:\n", "feed_list", "feed_list: unknown key", "Keys known there"),
    ],
)
def test_a_wrong_entry_is_told_with_its_line_and_its_remedy(old: str, new: str, at: str, says: str, remedy: str):
    text = changed(old, new)
    message = told(text)
    assert says in message
    assert remedy in message
    if at:
        assert f"{PATH}, line {line_of(text, at)}: " in message


def test_several_faults_are_told_at_once():
    message = told(changed("country: ES", "country: Spain").replace("Europe/Madrid", "Mars"))
    assert "line 2: country" in message
    assert "line 3: time_zone" in message


@pytest.mark.parametrize("text", ["", "# only a comment\n", "- a\n- list\n", "just words\n", "42\n"])
def test_a_file_without_keys_says_what_was_found(text: str):
    assert "expected keys and values, found" in told(text)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("name: small\ncountry: [ES\n", 3),
        ("name: small\n  country: ES\n", 2),
        ("name: a\nname: b\n", 2),
        ("name: \tx: y\n", 1),
        ("a: *b\n", 1),
    ],
)
def test_a_file_that_is_no_yaml_says_in_which_line(text: str, line: int):
    message = told(text)
    assert f"line {line}: this is not YAML" in message


@pytest.mark.parametrize("text", [b"\xff\xfe\x00name", b"name: caf\xe9\n", b"name: a\x00b\n", b"name: a\x07b\n"])
def test_a_file_that_is_no_text_is_told_too(tmp_path: Path, text: bytes):
    (tmp_path / "gridlake.yaml").write_bytes(text)
    with pytest.raises(SiteError, match=r"gridlake\.yaml"):
        load_site(tmp_path)


def test_a_site_file_that_lacks_is_told_with_how_to_make_one(tmp_path: Path):
    with pytest.raises(SiteError, match="Make a site with: gridlake init"):
        load_site(tmp_path)
    (tmp_path / "gridlake.yaml").mkdir()
    with pytest.raises(SiteError, match="Expected a site file"):
        load_site(tmp_path)


@pytest.mark.parametrize("which", ["landing", "lake", "catalog", "models", "dagster"])
@pytest.mark.parametrize("written", ["../elsewhere", "a/../../b"])
def test_a_path_that_leads_out_of_the_site_must_be_absolute(which: str, written: str):
    site = parse_site(f"{GOOD}paths: {{{which}: {written}}}\n", PATH)
    with pytest.raises(SiteError, match=f"paths.{which} is '{written}', which leads out of the site's folder"):
        site.path(which)
    assert parse_site(f"{GOOD}paths: {{{which}: /data/x}}\n", PATH).path(which) == Path("/data/x")


def test_a_lake_on_an_object_store_keeps_its_uri():
    assert parse_site(f"{GOOD}paths: {{lake: s3://bucket/lake}}\n", PATH).lake_uri == "s3://bucket/lake"


def test_the_environment_chooses_the_site_where_none_is_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "gridlake.yaml").write_text(GOOD, encoding="utf-8")
    monkeypatch.setenv("GRIDLAKE_HOME", str(tmp_path))
    assert load_site().home == tmp_path
    monkeypatch.delenv("GRIDLAKE_HOME")
    monkeypatch.chdir(tmp_path)
    assert load_site().name == "small"


def test_a_channel_says_where_it_leads_and_secrets_are_named_not_written():
    site = parse_site(GOOD + "alerts: {channels: {chat: {kind: webhook, url_variable: HOOK}}}\n", PATH)
    assert site.alerts.channels["chat"].url_variable == "HOOK"
    both = GOOD + "alerts:\n  channels:\n    chat: {kind: webhook, url: 'https://x.example', url_variable: HOOK}\n"
    assert "either url or url_variable" in told(both)
    assert "user and password_variable" in told(
        GOOD + "alerts: {channels: {duty: {kind: email, host: h, sender: a, recipients: [b], user: me}}}\n"
    )
    assert "pigeon" in told(GOOD + "alerts: {channels: {loft: {kind: pigeon}}}\n")
