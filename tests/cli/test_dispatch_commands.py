"""`gridlake dispatch` on a site: report, explain, set points, planning again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from lakehouse.cli import app
from lakehouse.errors import DispatchError
from lakehouse.flow.plan import make_plans
from lakehouse.flow.workspace import Workspace
from tests.flow.builders import day
from tests.flow.town import BASE, BATTERY, FLAT, PEAK, issue, town


@pytest.fixture
def planned(tmp_path: Path) -> Workspace:
    workspace = town(tmp_path / "town", [BASE, PEAK, BATTERY])
    issue(workspace, day(10), north=FLAT, south=[1.0] * 24)
    make_plans(workspace, day(10), day(10))
    return workspace


def gridlake(workspace: Workspace, *arguments: object, code: int = 0) -> str:
    """What the command prints; a failure is raised as it is."""
    done = CliRunner().invoke(app, ["--home", str(workspace.site.home), "dispatch", *map(str, arguments)], catch_exceptions=True)
    if isinstance(done.exception, DispatchError):
        raise done.exception
    assert done.exit_code == code, done.output
    return done.output


def test_a_report_a_reason_and_the_set_points_of_a_moment(planned: Workspace, tmp_path: Path):
    assert str(tmp_path / "plan.html") in gridlake(planned, "report", "--out", tmp_path / "plan.html")
    assert "<svg" in (tmp_path / "plan.html").read_text()
    told = json.loads(gridlake(planned, "explain", "base", "2026-03-11 12:00", "--local", "--json"))
    assert (told["unit"], told["interval_start"]) == ("base", "2026-03-11T11:00:00+00:00")
    assert "base runs in 2026-03-11 12:00 local time" in told["reasons"][0]
    now = json.loads(gridlake(planned, "setpoints", "--at", "2026-03-11T12:30", "--local", "--json"))
    assert [one["asset"] for one in now["setpoints"]] == ["base", "battery", "peak"]
    assert now["valid_from"] == "2026-03-11T11:00:00+00:00"
    gridlake(planned, "setpoints", "--all", "--out", tmp_path / "all.json")
    assert len(json.loads((tmp_path / "all.json").read_text())["setpoints"]) == 3 * 24
    assert "2026-03-11 12:00" in gridlake(planned, "setpoints", "--at", "2026-03-11T11:30")


def test_one_topic_holds_one_set_point(planned: Workspace):
    assert "publish without --all" in gridlake(planned, "setpoints", "--all", "--mqtt", "localhost", code=2)


def test_planning_again_after_a_trip(planned: Workspace, tmp_path: Path):
    state = tmp_path / "state.json"
    state.write_text(json.dumps({"base": {"out_until": "2026-03-11T15:00+01:00"}}))
    told = json.loads(gridlake(planned, "replan", "--at", "2026-03-11T12:30", "--local", "--state", state, "--json"))
    assert (told["planned_from"][:16], told["is_verified"]) == ("2026-03-11 12:00", True)
    assert planned.site.path("catalog").exists(), "an analyst sees the new plan"
    assert "planned again from 2026-03-11 16:00 to 00:00" in gridlake(planned, "replan", "--at", "2026-03-11T15:30", "--local")


@pytest.mark.parametrize("text", ["not json", "[1, 2]"])
def test_a_state_that_is_none_is_refused_with_the_way_to_write_it(planned: Workspace, tmp_path: Path, text: str):
    (tmp_path / "state.json").write_text(text)
    with pytest.raises(DispatchError, match=r"expected a state as a JSON object[\s\S]*out_until"):
        gridlake(planned, "replan", "--at", "2026-03-11T12:30", "--state", tmp_path / "state.json")
