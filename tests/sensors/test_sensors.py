"""The sensors as the daemon evaluates them, against a Dagster instance and a small site."""

import os
import time
from collections import Counter
from datetime import UTC, datetime

import dagster as dg
import pytest

from assets.skin import key_of
from definitions import build_definitions
from jobs.up_to_date import JOB
from jobs.work import PRIORITY_TAG, REASON_TAG, WORK_TAG
from lakehouse.alerting.alert import Alert
from lakehouse.flow.staleness import pulse
from lakehouse.flow.watch import read_ledger
from lakehouse.storage.landing import Arrival
from resources import WorkspaceResource
from resources.runs import STEP_TAG, TOLD_TAG
from sensors.alerts import alert_sensor, failed_runs, still_wrong
from sensors.refresh import refresh_sensor
from tests.flow.builders import clean_up_to_date, day, land, reading_lines, village


@pytest.fixture
def site(tmp_path):
    return village(tmp_path / "village")


@pytest.fixture
def instance(tmp_path):
    with dg.DagsterInstance.ephemeral() as made:
        yield made


def land_readings(site, number):
    path = land(site, "readings", day(number + 1), f"r{number}.csv", reading_lines(day(number)))
    settle(path)
    return path


def settle(path):
    """As if the file had been there for a minute."""
    settled = time.time() - 60
    os.utime(path, (settled, settled))


def evaluate(sensor, site, instance, cursor=None):
    context = dg.build_sensor_context(
        instance=instance,
        cursor=cursor,
        definitions=build_definitions(site.site),
        resources={"workspace": WorkspaceResource(home=str(site.site.home))},
    )
    return sensor.evaluate_tick(context)


@pytest.fixture
def layered(monkeypatch):
    """As on Kubernetes, where every step's run is asked for by itself."""
    monkeypatch.setenv("GRIDLAKE_EXECUTOR", "multiprocess")


def test_an_arrival_is_asked_for_once_and_told_as_an_observation(site, instance):
    land_readings(site, 18)
    tick = evaluate(refresh_sensor(site.site), site, instance)
    [request] = tick.run_requests
    assert request.job_name == JOB and request.tags[PRIORITY_TAG] == "20"
    assert "raw/readings 2026-03-19: files arrived or changed" in request.tags[REASON_TAG]
    again = evaluate(refresh_sensor(site.site), site, instance, tick.cursor)
    assert [r.run_key for r in again.run_requests] == [request.run_key]  # the same key: the daemon launches it once
    [seen] = [e for e in tick.asset_events if isinstance(e, dg.AssetObservation)]
    assert seen.asset_key == key_of("landing/readings") and seen.partition == "2026-03-19" and seen.metadata["files"].value == 1


def test_a_corrected_file_is_asked_for_again_and_the_same_bytes_are_not(site, instance):
    path = land_readings(site, 18)
    first = evaluate(refresh_sensor(site.site), site, instance).run_requests[0].run_key
    assert evaluate(refresh_sensor(site.site), site, instance).run_requests[0].run_key == first
    path.write_text(path.read_text().replace("0.5", "0.6") + "\n")
    settle(path)
    assert evaluate(refresh_sensor(site.site), site, instance).run_requests[0].run_key != first


def test_a_run_that_was_killed_is_asked_for_again_at_once_and_one_that_failed_is_not(site, instance):
    land_readings(site, 18)
    request = evaluate(refresh_sensor(site.site), site, instance).run_requests[0]
    run(instance, fails="yes", **request.tags, **{TOLD_TAG: "the runs of its steps"})
    assert evaluate(refresh_sensor(site.site), site, instance).run_requests[0].run_key == request.run_key
    run(instance, fails="yes", **request.tags)
    assert evaluate(refresh_sensor(site.site), site, instance).run_requests[0].run_key != request.run_key


def test_where_each_run_is_a_pod_the_steps_are_asked_for_stage_by_stage(site, instance, layered):
    land_readings(site, 18)
    tick = evaluate(refresh_sensor(site.site), site, instance)
    [request] = [r for r in tick.run_requests if r.asset_selection == [key_of("raw/readings")]]
    assert request.tags["dagster/asset_partition_range_start"] == "2026-03-19"
    assert request.tags[WORK_TAG] == request.tags[STEP_TAG] == "raw/readings 2026-03-19"


def test_a_file_that_is_still_being_written_is_waited_for_within_the_tick(site, instance, monkeypatch):
    waited = []
    monkeypatch.setattr("sensors.refresh.time.sleep", lambda seconds: waited.append(seconds))
    land(site, "readings", day(19), "r18.csv", reading_lines(day(18)))
    told = evaluate(refresh_sensor(site.site), site, instance)
    assert len(waited) == 1 and 0 < waited[0] <= 2.0
    assert not [r for r in told.run_requests if "raw" in r.tags[REASON_TAG]]  # the sleep was none: it is still too young


def test_nothing_new_costs_a_look_only(site, instance, layered):
    land_readings(site, 18)
    land_readings(site, 19)
    clean_up_to_date(site)
    tick = evaluate(refresh_sensor(site.site), site, instance)
    assert [r.asset_selection for r in tick.run_requests] == [[key_of("features/demand")]]


def test_a_look_at_a_full_landing_zone_goes_to_the_files_of_the_newest_deliveries_only(site, monkeypatch):
    for number in range(1, 20):
        for name in ("a", "b", "c"):
            land(site, "readings", day(number + 1), f"{name}.csv", reading_lines(day(number)))
    looked_at = []
    stamp = Arrival.stamp
    monkeypatch.setattr(Arrival, "stamp", lambda arrival: looked_at.append(arrival.delivery_date) or stamp(arrival))
    pulse(site)
    assert Counter(looked_at) == {day(number): 3 for number in range(7, 21)}  # 14 deliveries of 19


def test_a_file_whose_name_is_no_text_goes_to_quarantine_and_holds_up_nobody(site, instance):
    good = land_readings(site, 18)
    bad = good.with_name(os.fsdecode(b"caf\xe9.csv"))
    bad.write_bytes(good.read_bytes())
    settle(bad)
    assert evaluate(refresh_sensor(site.site), site, instance).run_requests
    clean_up_to_date(site)
    [refused] = site.table("quality/quarantine").read().to_pylist()
    assert refused["file"] == r"caf\xe9.csv" and "expected a file name in UTF-8" in refused["reason"]
    assert site.table("cleaned/meter_readings").read().num_rows == 24


def report_check(instance, table, name, *, passed):
    instance.report_runless_asset_event(
        dg.AssetCheckEvaluation(asset_key=key_of(table), check_name=name, passed=passed, severity=dg.AssetCheckSeverity.ERROR)
    )


def test_a_failed_blocking_check_holds_back_what_rests_on_it_until_it_passes(site, instance):
    land_readings(site, 18)
    land_readings(site, 19)
    clean_up_to_date(site)
    report_check(instance, "cleaned/meter_readings", "nothing_is_lost", passed=False)
    held = evaluate(refresh_sensor(site.site), site, instance)
    assert not held.run_requests
    assert "features/demand" in held.skip_message and "nothing_is_lost of cleaned/meter_readings failed" in held.skip_message
    report_check(instance, "cleaned/meter_readings", "nothing_is_lost", passed=True)
    assert evaluate(refresh_sensor(site.site), site, instance).run_requests


@dg.op
def runs_or_not(context: dg.OpExecutionContext) -> None:
    if context.run.tags.get("fails"):
        raise dg.Failure("no space left on the disk")


@dg.job
def work() -> None:
    runs_or_not()


def run(instance, **tags):
    work.execute_in_process(instance=instance, raise_on_error=False, tags={WORK_TAG: "raw/readings 2026-03-19"} | tags)


def test_a_failed_run_is_told_once_and_over_when_the_same_work_succeeds(site, instance):
    run(instance, fails="yes")
    [alert] = failed_runs(instance)
    assert (alert.subject, alert.what) == ("raw/readings 2026-03-19", "no space left on the disk")
    first = evaluate(alert_sensor(), site, instance)
    assert "new run failed: raw/readings 2026-03-19 by log" in first.skip_message
    assert [e.asset_key for e in first.asset_events if isinstance(e, dg.AssetMaterialization)] == [key_of("quality/alerts")]
    run(instance, fails="yes")
    assert "Nothing to send" in evaluate(alert_sensor(), site, instance).skip_message
    run(instance)
    assert "over run failed" in evaluate(alert_sensor(), site, instance).skip_message
    assert [e.closed_at is None for e in read_ledger(site)] == [False]


def test_a_failed_run_is_over_when_its_work_was_done_together_with_other_days(site, monkeypatch):
    lost = [Alert("run failed", s, "error", "lost", "", datetime.now(UTC)) for s in ("raw/readings 2026-03-19", "housekeeping")]
    assert still_wrong(site, lost) == lost  # something is stale
    monkeypatch.setattr("sensors.alerts.next_steps", lambda workspace: [])
    assert still_wrong(site, lost) == lost[1:]


def fresh(tick):
    return {e.asset_key.to_user_string(): (e.passed, e.description) for e in tick.asset_events if isinstance(e, dg.AssetCheckEvaluation)}


def test_freshness_is_told_by_data_time_when_it_changes_and_every_hour(site, instance):
    land_readings(site, 17)
    clean_up_to_date(site)
    first = evaluate(alert_sensor(), site, instance)
    passed, told = fresh(first)["raw/readings"]
    assert not passed and told.startswith("The newest whole day is 2026-03-17; 2026-03-19 is due. 2 days late")
    assert fresh(evaluate(alert_sensor(), site, instance, first.cursor)) == {}  # a minute later: nothing new
    land_readings(site, 19)
    clean_up_to_date(site)
    second = evaluate(alert_sensor(), site, instance, first.cursor)
    assert fresh(second) == {"raw/readings": (True, "The newest whole day is 2026-03-19; 2026-03-19 is due.")}
    an_hour_ago = second.cursor.replace(second.cursor[2:15], "2026-03-20T07")
    assert set(fresh(evaluate(alert_sensor(), site, instance, an_hour_ago))) == {"raw/readings", "raw/market"}


def test_a_run_whose_steps_tell_what_failed_is_no_alert_of_its_own(site, instance):
    run(instance, fails="yes", **{WORK_TAG: JOB, TOLD_TAG: "the runs of its steps"})
    run(instance, fails="yes")
    assert [alert.subject for alert in failed_runs(instance)] == ["raw/readings 2026-03-19"]
