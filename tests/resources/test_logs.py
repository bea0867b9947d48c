"""What a run leaves in its log, by the shipped settings: lines of JSON that name run, step and partitions."""

import json
import os
import time
import uuid
from pathlib import Path

import dagster as dg
import pytest
import yaml

from resources.logs import forget_old_logs

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


def written(path: Path, text: str, *, days_ago: float) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    then = time.time() - days_ago * 86_400
    for one in (path, path.parent, path.parent.parent):
        os.utime(one, (then, then))
    return path


def test_logs_of_old_runs_go_and_those_of_young_ones_stay(tmp_path):
    old, young = (tmp_path / "storage" / str(uuid.uuid4()) for _ in range(2))
    written(old / "compute_logs" / "a.err", "a warning", days_ago=31)
    written(young / "compute_logs" / "b.err", "a warning", days_ago=29)
    others = written(tmp_path / "storage" / "no_run" / "c" / "result", "1", days_ago=99)
    assert forget_old_logs(tmp_path, 30).bytes == len("a warning")
    assert not old.exists() and young.exists() and others.exists()


def test_lines_of_past_days_are_put_aside_and_go_when_they_are_old(tmp_path):
    lines = written(tmp_path / "runs.jsonl", '{"time": "2026-03-01T23:00:00.000+00:00"}\n', days_ago=1)
    older = written(tmp_path / "runs-2026-01-01.jsonl", "{}\n", days_ago=31)
    assert forget_old_logs(tmp_path, 30).files == 1
    assert not older.exists() and not lines.exists()
    assert "23:00" in (tmp_path / "runs-2026-03-01.jsonl").read_text(encoding="utf-8")
    assert forget_old_logs(tmp_path, 30).files == 0


def test_who_writes_lines_goes_on_in_a_new_file(lines, tmp_path):
    lines(lambda context: context.log.info("first"))
    (tmp_path / "runs.jsonl").rename(tmp_path / "runs-2026-03-01.jsonl")
    _, [line] = lines(lambda context: context.log.info("second"))
    assert line["message"] == "second"
