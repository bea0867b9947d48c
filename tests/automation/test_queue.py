"""The shipped settings of one machine, as Dagster's own queue reads them: who goes first, who waits, which tables one run writes."""

from pathlib import Path

import dagster as dg
import pytest
import yaml
from dagster._core.execution.api import create_execution_plan
from dagster._core.remote_origin import RegisteredCodeLocationOrigin, RemoteJobOrigin, RemoteRepositoryOrigin
from dagster._core.run_coordinator import QueuedRunCoordinator
from dagster._daemon.run_coordinator import QueuedRunCoordinatorDaemon

from definitions import build_definitions
from jobs.work import OLDER_DAYS, PRIORITY_TAG, TODAY, TRAINING, priority_of
from lakehouse.flow.staleness import Step
from tests.flow.builders import day, village
from tests.generated import example

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"


@pytest.fixture
def instance(tmp_path):
    told = yaml.safe_load((DEPLOY / "laptop" / "dagster.yaml").read_text(encoding="utf-8").replace("{folder}", str(tmp_path)))
    with dg.instance_for_test(overrides=told, temp_dir=str(tmp_path)) as made:
        assert isinstance(made.run_coordinator, QueuedRunCoordinator)
        yield made


@pytest.fixture
def of_a_cluster(tmp_path):
    """The queue as it is on Kubernetes; storage and launcher are of no matter here."""
    told = yaml.safe_load((DEPLOY / "kubernetes" / "base" / "dagster.yaml").read_text(encoding="utf-8"))
    with dg.instance_for_test({name: told[name] for name in ("run_coordinator", "concurrency")}, temp_dir=str(tmp_path)) as made:
        yield made


@dg.job
def nothing() -> None:
    pass


@dg.op(pool="cleaned_meters")
def writes_a_table_as_a_whole() -> None:
    pass


@dg.job
def whole_table() -> None:
    writes_a_table_as_a_whole()


def queued(instance, status=dg.DagsterRunStatus.QUEUED, job=nothing, **tags):
    named = {name.replace("__", "/"): value for name, value in tags.items()}
    origin = RemoteJobOrigin(RemoteRepositoryOrigin(RegisteredCodeLocationOrigin("gridlake"), "__repository__"), job.name)
    plan = create_execution_plan(job)  # by which the queue knows the pools
    return instance.create_run_for_job(job, execution_plan=plan, tags=named, status=status, remote_job_origin=origin).run_id


def next_runs(instance):
    daemon = QueuedRunCoordinatorDaemon(interval_seconds=1)
    return [r.run_id for r in daemon._get_runs_to_dequeue(instance, instance.get_concurrency_config(), fixed_iteration_time=None)]


def test_today_goes_before_what_was_queued_earlier_and_one_backfill_runs_at_a_time(instance):
    queued(instance, dagster__backfill="a", status=dg.DagsterRunStatus.STARTED)
    waiting = [queued(instance, dagster__backfill="a") for _ in range(5)]
    by_hand = queued(instance)
    today = queued(instance, **{PRIORITY_TAG: str(TODAY)})
    assert next_runs(instance) == [today, by_hand]
    assert not set(waiting) & set(next_runs(instance))


def test_on_a_cluster_eight_days_of_backfills_run_at_once_and_today_does_not_wait_for_them(of_a_cluster):
    waiting = [queued(of_a_cluster, dagster__backfill=name) for name in "ab" * 8]
    today = queued(of_a_cluster, **{PRIORITY_TAG: str(TODAY)})
    assert next_runs(of_a_cluster) == [today, *waiting[:8]]
    for _ in range(8):
        queued(of_a_cluster, dagster__backfill="a", status=dg.DagsterRunStatus.STARTED)
    assert next_runs(of_a_cluster) == [today]


def test_on_a_cluster_who_waits_for_a_table_waits_in_the_queue_and_not_as_a_pod(of_a_cluster):
    first, second = queued(of_a_cluster, job=whole_table), queued(of_a_cluster, job=whole_table)
    next_runs(of_a_cluster)  # Dagster limits a pool from the second time that it meets it
    assert next_runs(of_a_cluster) == [first]
    of_a_cluster.report_dagster_event(dg.DagsterEvent("PIPELINE_START", job_name="whole_table"), run_id=first)
    assert next_runs(of_a_cluster) == []
    of_a_cluster.report_run_failed(of_a_cluster.get_run_by_id(first), "Its pod was lost.")
    assert next_runs(of_a_cluster) == [second]


def test_what_concerns_today_goes_before_older_days_and_these_before_training(tmp_path):
    site = village(tmp_path / "village")

    def priority(layer, *days):
        return priority_of(site, Step(layer, (f"{layer}/demand",), days or None, ""))

    assert priority("raw", day(20), day(20)) == priority("forecasts", day(19), day(20)) == TODAY
    assert priority("cleaned", day(3), day(4)) == OLDER_DAYS
    assert priority("models") == TRAINING > 0  # what nobody gave a priority has 0, such as a backfill


def test_a_table_that_is_written_as_a_whole_is_written_by_one_run_at_a_time(instance):
    assert instance.event_log_storage.supports_global_concurrency_limits
    assert instance.global_op_concurrency_default_limit == 1
    pools = {d.node_def.name: d.op.pool for d in build_definitions(example("sample")).assets if isinstance(d, dg.AssetsDefinition)}
    assert pools["models_demand"] == "models_demand" and pools["dispatch"] == "dispatch"
    assert pools["quality_forecast_accuracy"] and pools["cleaned_meters"]
    assert pools["clean_meter_readings"] is None and pools["raw_meter_readings"] is None  # days side by side conflict with nobody


def test_two_runs_never_hold_the_place_of_one_table(instance):
    store = instance.event_log_storage
    store.initialize_concurrency_limit_to_default("dispatch")
    assert store.claim_concurrency_slot("dispatch", "first", "dispatch").is_claimed
    assert not store.claim_concurrency_slot("dispatch", "second", "dispatch").is_claimed
    store.free_concurrency_slots_for_run("first")
    assert store.claim_concurrency_slot("dispatch", "second", "dispatch").is_claimed


def test_the_code_location_loads_as_a_whole():
    repository = build_definitions(example("sample")).get_repository_def()
    repository.load_all_definitions()
    assert {"bring_up_to_date", "one_step"} <= set(repository.job_names)
