"""One run that makes all that is stale: what it does, what it passes over, and what Dagster's records tell of it."""

import contextlib
import logging
import shutil

import dagster as dg
import pytest

from definitions import build_definitions
from jobs.up_to_date import FOR_TAG, make_what_is_stale
from jobs.work import MOST_LOST, PRIORITY_TAG, WORK_TAG
from lakehouse.errors import ContractError
from lakehouse.flow.workspace import Workspace
from tests.flow.builders import day, land, reading_lines, series_lines, village
from tests.sensors.test_sensors import report_check, settle

LOG = logging.getLogger("tests")
pytestmark = pytest.mark.slow


@pytest.fixture
def instance():
    with dg.instance_for_test() as made:
        yield made


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A village with nineteen days of readings, brought up to date, and what that took."""
    site = village(tmp_path_factory.mktemp("prepared") / "village")
    for number in range(1, 20):
        settle(land(site, "readings", day(number + 1), f"r{number}.csv", reading_lines(day(number))))
    with dg.instance_for_test() as instance:
        done, waiting = bring_up(site, instance)
        again, _ = bring_up(site, instance)
        runs = list(instance.get_runs())
        days = instance.get_materialized_partitions(dg.AssetKey(["cleaned", "meter_readings"]))
    return site, done, waiting, again, runs, days


@pytest.fixture
def site(prepared, tmp_path, monkeypatch):
    """The same village, for a test of its own; its history is too short to learn from, so it would try with every new day."""
    shutil.copytree(prepared[0].site.home, tmp_path / "village")
    monkeypatch.setattr("lakehouse.flow.forecast.training_is_due", lambda workspace, target: False)
    return Workspace.open(tmp_path / "village")


def bring_up(site, instance):
    repository = build_definitions(site.site).get_repository_def()
    return make_what_is_stale(site, repository, instance, "the run", LOG)


def of_steps(instance, status=dg.DagsterRunStatus.SUCCESS):
    return [r.tags[WORK_TAG] for r in reversed(list(instance.get_runs(dg.RunsFilter(statuses=[status]))))]


def test_what_arrived_becomes_a_forecast_in_one_go_and_each_step_is_a_run_of_its_own(prepared):
    site, done, waiting, again, runs, days = prepared
    assert not done.failed and not waiting
    assert site.table("forecasts/demand").read("date = DATE '2026-03-20'").num_rows == 24
    work = [str(step) for step, _ in done.steps]
    flow = ["raw/readings", "cleaned/meter_readings", "cleaned/load", "features/demand", "models/demand", "forecasts/demand"]
    places = [next(n for n, w in enumerate(work) if w.startswith(table)) for table in flow]
    assert places == sorted(places)
    assert sorted(r.tags[WORK_TAG] for r in runs) == sorted(work)
    assert {r.tags[FOR_TAG] for r in runs} == {"the run"} and all(int(r.tags[PRIORITY_TAG]) > 0 for r in runs)
    assert {"2026-03-01", "2026-03-19"} <= days
    of_load = next(r for r in runs if r.tags[WORK_TAG].startswith("cleaned/load"))
    assert of_load.asset_selection == {dg.AssetKey(["cleaned", "load"])}  # what the UI shows as a run's target
    assert again.steps == [] and again.failed == []


def test_a_late_reading_makes_its_own_day_and_what_follows_from_it_again(site, instance):
    settle(land(site, "readings", day(20), "late.csv", reading_lines(day(12), meter="B")))
    bring_up(site, instance)
    work = of_steps(instance)
    assert work[0] == "raw/readings 2026-03-20"
    assert "cleaned/meter_readings, quality/vee_report, quality/edits 2026-03-12" in work
    assert "forecasts/demand 2026-03-20" in work


def test_a_step_that_fails_is_tried_once_and_does_not_hold_up_the_others(site, instance, monkeypatch):
    settle(land(site, "readings", day(20), "more.csv", reading_lines(day(19), meter="B")))
    settle(land(site, "market", day(20), "m.csv", series_lines(day(20), "square", "temperature_c", float)))

    def refuses(*arguments):
        raise ContractError("raw/market: temperature_c: expected at most 60, found 99 in row 1.")

    with monkeypatch.context() as broken:
        broken.setattr("assets.raw.read_deliveries", _unless("market", refuses))
        done, waiting = bring_up(site, instance)
    assert [str(step) for step, _ in done.failed] == ["raw/market 2026-03-20"]
    assert "expected at most 60, found 99" in done.failed[0][1]
    assert "cleaned/load 2026-03-19" in of_steps(instance)  # readings do not rest on the market
    assert any("the check contract of raw/market failed" in reason for reason in waiting)
    assert not [w for w in of_steps(instance) if w.startswith("features/")]  # these do
    again, _ = bring_up(site, instance)
    assert again.failed == [] and again.steps == []  # the same on the same files: not before half an hour has passed
    assert len(of_steps(instance, dg.DagsterRunStatus.FAILURE)) == 1


def _unless(feed, otherwise):
    from lakehouse.flow.raw import read_deliveries

    return lambda workspace, name, days: otherwise() if name == feed else read_deliveries(workspace, name, days)


def test_what_rests_on_a_failed_blocking_check_waits(site, instance):
    report_check(instance, "raw/market", "contract", passed=False)
    settle(land(site, "readings", day(20), "more.csv", reading_lines(day(19), meter="B")))
    _, waiting = bring_up(site, instance)
    assert "cleaned/load 2026-03-19" in of_steps(instance)
    assert waiting[0] == "features/demand 2026-03-17 to 2026-03-20 waits: the check contract of raw/market failed"
    report_check(instance, "raw/market", "contract", passed=True)
    bring_up(site, instance)
    assert "features/demand 2026-03-17 to 2026-03-20" in of_steps(instance)


def test_no_forecast_waits_for_a_training_that_is_due_while_there_is_a_model(site, instance, monkeypatch):
    settle(land(site, "readings", day(20), "more.csv", reading_lines(day(19), meter="B")))
    monkeypatch.setattr("lakehouse.flow.staleness._has_model", lambda workspace, target: True)
    monkeypatch.setattr("lakehouse.flow.forecast.training_is_due", lambda workspace, target: "models/demand" not in of_steps(instance))
    bring_up(site, instance)
    work = of_steps(instance)
    assert work.index("models/demand") > work.index("forecasts/demand 2026-03-20")
    training = next(r for r in instance.get_runs() if r.tags[WORK_TAG] == "models/demand")
    assert int(training.tags[PRIORITY_TAG]) < 20


def test_a_step_whose_process_was_killed_is_made_at_once_but_not_for_ever(site, instance, monkeypatch):
    def killed(*arguments):
        raise KeyboardInterrupt

    settle(land(site, "readings", day(20), "more.csv", reading_lines(day(19), meter="B")))
    for _ in range(MOST_LOST):
        with monkeypatch.context() as dying, contextlib.suppress(KeyboardInterrupt, dg.DagsterExecutionInterruptedError):
            dying.setattr("assets.raw.read_deliveries", killed)
            bring_up(site, instance)
    attempts = of_steps(instance, dg.DagsterRunStatus.FAILURE)
    assert attempts == ["raw/readings 2026-03-20"] * MOST_LOST  # tried again each time, as nobody said that it can't be done
    bring_up(site, instance)
    assert not [w for w in of_steps(instance) if w.startswith("raw/")]  # it may be the work that kills them: not before half an hour


def test_a_killed_step_is_made_by_the_next_run(site, instance, monkeypatch):
    settle(land(site, "readings", day(20), "more.csv", reading_lines(day(19), meter="B")))
    with monkeypatch.context() as dying, contextlib.suppress(KeyboardInterrupt, dg.DagsterExecutionInterruptedError):
        dying.setattr("assets.raw.read_deliveries", lambda *arguments: (_ for _ in ()).throw(KeyboardInterrupt))
        bring_up(site, instance)
    bring_up(site, instance)
    assert "raw/readings 2026-03-20" in of_steps(instance)
