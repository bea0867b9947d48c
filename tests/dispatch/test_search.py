"""The two searches: they end in time, agree on one plan, and leave no process behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from lakehouse.dispatch import check_instance, check_plan, plan_table, read_instance, search, solve, solve_instance
from lakehouse.dispatch.formulation import build
from lakehouse.dispatch.pricing import priced_units
from lakehouse.dispatch.search import PROVE, Race, SearchTask, _packed, _unpacked, state_changed
from lakehouse.errors import DispatchError
from tests.dispatch.builders import base_unit, instance_folder, peaker, problem, random_problem

REPOSITORY = Path(__file__).resolve().parents[2]


def task_of(a_problem) -> SearchTask:
    built = build(a_problem)
    columns = np.stack([built.variables[name] for name in "uvw"])
    return SearchTask(built.program, columns, built.slack_columns, False, 1e-3, 9.0, np.zeros(0))


def test_a_task_survives_the_way_to_another_process():
    task = task_of(problem([60, 80], thermal=[base_unit(), peaker()]))
    there = _unpacked(_packed(task), seconds=3.0)
    assert there.seconds == 3.0
    assert there.program.row_columns.tolist() == task.program.row_columns.tolist()
    assert there.commitment.tolist() == task.commitment.tolist()
    assert there.sketch is None


def test_only_better_plans_and_higher_bounds_are_taken():
    race = Race()
    assert state_changed(race, "plan", np.array([100.0, 1.0]), PROVE)
    assert not state_changed(race, "plan", np.array([101.0, 2.0]), PROVE)
    state_changed(race, "bound", np.array([80.0]), PROVE)
    state_changed(race, "bound", np.array([70.0]), PROVE)
    assert (race.objective, race.bound, race.gap) == (100.0, 80.0, pytest.approx(0.2))


class Heard:
    """Stands in for the other end of a search's conversation."""

    hopeless = False

    def __init__(self) -> None:
        self.plans: list[float] = []
        self.bounds: list[float] = []

    def say(self, kind: str, payload: np.ndarray) -> None:
        if kind in ("plan", "bound"):
            (self.plans if kind == "plan" else self.bounds).append(float(payload[0]))

    def heard_plan(self) -> None:
        return None


def test_very_large_fleets_are_planned_and_bounded_by_prices(monkeypatch: pytest.MonkeyPatch):
    # Both searches in turn, for 4 s each, on a fleet that counts as very large: neither solves the relaxation of the whole.
    monkeypatch.setattr(search, "VERY_LARGE_COLUMNS", 0)
    day = random_problem(3, horizon=24)
    built = build(day)
    task = replace(task_of(day), units=priced_units(built), seconds=4.0)
    best = solve(day, gap=1e-4, time_limit_seconds=30).summary["objective_eur"] - built.offset_eur
    improving, proving = Heard(), Heard()
    search._improve(task, improving)
    search._prove(task, proving)
    assert improving.plans == sorted(improving.plans, reverse=True)
    assert improving.plans[-1] == pytest.approx(best, rel=0.01)
    assert proving.bounds == sorted(proving.bounds)
    assert proving.bounds[-1] <= best + 1e-3
    there = _unpacked(_packed(task), seconds=3.0)
    assert there.units is not None and there.units.start_cost.tolist() == task.units.start_cost.tolist()


def children_of(pid: int) -> set[int]:
    found = set()
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = status.read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        if int(fields[1]) == pid:
            found.add(int(status.parent.name))
    return found


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc to see processes")
def test_searches_die_with_the_process_that_asked():
    program = (
        "from tests.dispatch.builders import random_problem\n"
        "from dataclasses import replace\n"
        "import lakehouse.dispatch.search as search\n"
        "from lakehouse.dispatch import solve\n"
        "search.INTEGER_LIMIT_IN_PROCESS = 0\n"
        "solve(random_problem(1, horizon=60), gap=0.0, time_limit_seconds=120)\n"
    )
    asker = subprocess.Popen([sys.executable, "-c", program], cwd=REPOSITORY, stderr=subprocess.DEVNULL)
    searches: set[int] = set()
    for _ in range(300):
        searches = children_of(asker.pid)
        if len(searches) == 2 or asker.poll() is not None:
            break
        time.sleep(0.1)
    assert len(searches) == 2
    os.kill(asker.pid, signal.SIGKILL)
    asker.wait()
    for _ in range(300):
        if not any(Path(f"/proc/{pid}").exists() for pid in searches):
            return
        time.sleep(0.1)
    pytest.fail(f"still running: {searches}")


@pytest.mark.slow
@pytest.mark.real_data
def test_a_published_instance_is_planned_written_and_accepted(tmp_path):
    path = instance_folder() / "rts_gmlc" / "2020-07-06.json"
    told = solve_instance(path, tmp_path / "plan.parquet", gap=0.02, time_limit=120)
    assert told["gap"] <= 0.02
    assert told["bound"] <= told["objective"]
    report = check_instance(path, tmp_path / "plan.parquet")
    assert report.ok, report.lines()
    assert report.objective_eur == pytest.approx(told["objective"], rel=1e-7)


def test_a_plan_file_is_checked_from_whatever_tool(tmp_path):
    unit = dict(must_run=0, power_output_minimum=10, power_output_maximum=20, ramp_up_limit=20, ramp_down_limit=20, ramp_startup_limit=20)
    unit |= dict(
        ramp_shutdown_limit=20, time_up_minimum=1, time_down_minimum=1, power_output_t0=0, unit_on_t0=0, time_up_t0=0, time_down_t0=5
    )
    unit |= {"startup": [{"lag": 1, "cost": 10}], "piecewise_production": [{"mw": 10, "cost": 100}, {"mw": 20, "cost": 300}]}
    instance = tmp_path / "instance.json"
    whole = {"time_periods": 2, "demand": [15, 12], "reserves": [2, 2], "thermal_generators": {"g": unit}, "renewable_generators": {}}
    instance.write_text(json.dumps(whole))
    told = solve_instance(instance, tmp_path / "plan.csv", gap=1e-6)
    # 100 + 5 * 20 + 100 + 2 * 20 + one start of 10
    assert told["objective"] == pytest.approx(350)
    assert told["status"] == "optimal"
    assert check_instance(instance, tmp_path / "plan.csv").ok
    plan = pd.read_csv(tmp_path / "plan.csv")
    plan.loc[0, "power_mw"] = 14.0
    plan.to_csv(tmp_path / "short.csv", index=False)
    assert [breach.rule for breach in check_instance(instance, tmp_path / "short.csv").breaches] == ["balance"]
    with pytest.raises(DispatchError, match="no such file"):
        check_instance(instance, tmp_path / "none.parquet")
    instance.write_text(json.dumps(whole | {"thermal_generators": {"g": unit | {"unit_on_t0": 1}}}))
    with pytest.raises(DispatchError, match="unit g: initial state contradicts itself"):
        read_instance(instance)
    instance.write_text("{}")
    with pytest.raises(DispatchError, match="time_periods"):
        read_instance(instance)


def test_the_plan_file_has_the_columns_others_expect():
    day = problem([60.0], thermal=[base_unit()])
    table = plan_table(solve(day, threads=1))
    assert table.columns.tolist() == ["unit_id", "period", "committed", "started", "stopped", "power_mw", "reserve_mw"]
    assert check_plan(day, table).ok
