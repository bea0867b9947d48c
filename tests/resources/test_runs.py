"""Runs whose process is gone are told from those whose process is at work."""

import os
import subprocess
import sys

import dagster as dg
import pytest

from resources.runs import PROCESS_TAG, end_lost_runs, process_tags


@pytest.fixture
def instance():
    with dg.instance_for_test() as made:
        yield made


@dg.job
def nothing() -> None:
    pass


def started(instance, process):
    run = instance.create_run_for_job(nothing, tags={PROCESS_TAG: process} if process else {})
    instance.report_dagster_event(dg.DagsterEvent("PIPELINE_START", job_name="nothing"), run_id=run.run_id)
    return run.run_id


def status(instance, run_id):
    return instance.get_run_by_id(run_id).status


def a_dead_process():
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    told = f"{process_tags()[PROCESS_TAG].split('/')[0]}/{child.pid}/12345"
    child.kill()
    child.wait()
    return told


def test_a_run_whose_process_is_gone_has_failed(instance):
    lost = started(instance, a_dead_process())
    assert end_lost_runs(instance) == [lost]
    assert status(instance, lost) is dg.DagsterRunStatus.FAILURE
    assert end_lost_runs(instance) == []


def test_a_run_at_work_one_of_another_machine_and_one_without_a_process_are_left_alone(instance):
    host, pid, began = process_tags()[PROCESS_TAG].split("/")
    assert int(pid) == os.getpid()
    runs = [started(instance, p) for p in (f"{host}/{pid}/{began}", f"elsewhere-{host}/1/1", "")]
    assert end_lost_runs(instance) == []
    assert {status(instance, r) for r in runs} == {dg.DagsterRunStatus.STARTED}


def test_an_id_that_another_process_has_got_since_is_no_process_of_the_run(instance):
    host, pid, began = process_tags()[PROCESS_TAG].split("/")
    lost = started(instance, f"{host}/{pid}/{int(began) - 1}")
    assert end_lost_runs(instance) == [lost]


def test_a_lost_run_gives_back_its_place_in_the_pool(instance):
    instance.event_log_storage.set_concurrency_slots("models_demand", 1)
    lost = started(instance, a_dead_process())
    assert instance.event_log_storage.claim_concurrency_slot("models_demand", lost, "models_demand").is_claimed
    end_lost_runs(instance)
    assert instance.event_log_storage.claim_concurrency_slot("models_demand", "another", "models_demand").is_claimed
