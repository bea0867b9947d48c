"""What a run leaves in its log, by the shipped settings: lines of JSON that name run, step and partitions."""

import json
from pathlib import Path

import dagster as dg
import pytest
import yaml

SHIPPED = Path(__file__).resolve().parents[2] / "deploy" / "laptop" / "dagster.yaml"


@pytest.fixture
def lines(tmp_path):
    """Runs a job whose op does what is told, and returns the lines of its log."""
    told = yaml.safe_load(SHIPPED.read_text(encoding="utf-8").replace("{folder}", str(tmp_path)))

    def run(body):
        @dg.op
        def step(context: dg.OpExecutionContext):
            body(context)

        @dg.job
        def work():
            step()

        days = {"dagster/asset_partition_range_start": "2026-03-01", "dagster/asset_partition_range_end": "2026-03-03"}
        with dg.instance_for_test(overrides=told, temp_dir=str(tmp_path)) as instance:
            result = work.execute_in_process(instance=instance, raise_on_error=False, tags=days | {"gridlake/work": "raw/readings"})
        return result.run_id, [json.loads(line) for line in (tmp_path / "runs.jsonl").read_text(encoding="utf-8").splitlines()]

    return run


def test_a_line_names_run_step_and_partitions(lines):
    run_id, [line] = lines(lambda context: context.log.info("48 rows written"))
    assert (line["run_id"], line["step"], line["message"]) == (run_id, "step", "48 rows written")
    assert (line["first_partition"], line["last_partition"], line["work"]) == ("2026-03-01", "2026-03-03", "raw/readings")


def test_what_the_library_logs_in_a_step_has_the_same_ids(lines):
    import logging

    run_id, [line] = lines(lambda context: logging.getLogger("lakehouse.forecasting.predict").warning("model %s failed", "lgbm-1"))
    assert (line["run_id"], line["step"], line["message"], line["level"]) == (run_id, "step", "model lgbm-1 failed", "WARNING")


def test_a_failure_is_told_in_its_own_words(lines):
    def fails(context):
        raise dg.Failure("cleaned/load: power_mw: expected at most 9, found 12.")

    run_id, found = lines(fails)
    failed = next(line for line in found if line.get("event") == "STEP_FAILURE")
    assert failed["level"] == "ERROR" and failed["run_id"] == run_id
    assert failed["error"] == "cleaned/load: power_mw: expected at most 9, found 12."
