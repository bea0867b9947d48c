"""What is stale, and in which order: no plan waits for what is not needed for it, and what can't be done holds up nobody else."""

import os
import time
from datetime import date

import pytest

from lakehouse.flow import staleness
from lakehouse.flow.staleness import Step, next_steps, pulse, settles_in
from tests.flow.builders import day, land, reading_lines, series_lines, village


@pytest.fixture
def site(tmp_path):
    return village(tmp_path / "village")


def stages(monkeypatch, **stale):
    """Lets the stages tell what is told here, by the names of their functions."""
    steps = {name: [Step(layer, (table,), None, "")] for name, (layer, table) in stale.items()}
    told = tuple((layer, (lambda found: lambda workspace: found)(steps.get(f.__name__, []))) for layer, f in staleness._STAGES)
    monkeypatch.setattr(staleness, "_STAGES", told)


def tables(steps):
    return [table for step in steps for table in step.tables]


def test_the_plan_comes_before_scores_and_before_a_training_that_can_wait(site, monkeypatch):
    stages(
        monkeypatch,
        _plans=("dispatch", "dispatch/plan"),
        _scores=("forecasts", "quality/forecast_accuracy"),
        _retraining=("models", "models/demand"),
    )
    done: list[str] = []
    while steps := next_steps(site, without=lambda step, done=done: step.tables[0] in done):
        done += tables(steps)
    assert done == ["dispatch/plan", "quality/forecast_accuracy", "models/demand"]


def test_without_a_model_that_can_be_used_training_comes_first(site, monkeypatch):
    stages(monkeypatch, _first_models=("models", "models/demand"), _forecasts=("forecasts", "forecasts/demand"))
    assert tables(next_steps(site)) == ["models/demand"]


def test_a_step_that_is_passed_over_does_not_hide_the_others(site):
    land(site, "readings", day(19), "r.csv", reading_lines(day(18)))
    land(site, "market", day(19), "m.csv", series_lines(day(19), "square", "temperature_c", float))
    assert tables(next_steps(site)) == ["raw/readings", "raw/market"]
    assert tables(next_steps(site, without=lambda step: step.tables == ("raw/market",))) == ["raw/readings"]
    further = next_steps(site, without=lambda step: step.layer == "raw")
    assert further and all(step.layer == "cleaned" for step in further)


def test_a_layer_after_the_last_one_asked_for_is_not_looked_at(site, monkeypatch):
    stages(monkeypatch, _plans=("dispatch", "dispatch/plan"), _retraining=("models", "models/demand"))
    assert tables(next_steps(site, until="models")) == ["models/demand"]
    assert next_steps(site, until="features") == []


def test_a_passing_issue_time_is_seen_at_once(site, monkeypatch):
    before = pulse(site)
    assert pulse(site) == before
    monkeypatch.setattr("lakehouse.flow.forecast.issue_days", lambda site, target: (date(2026, 3, 9), day(21)))
    assert pulse(site) != before


def test_a_file_settles_within_two_seconds_and_one_from_tomorrow_is_not_waited_for(site):
    path = land(site, "readings", day(19), "r.csv", reading_lines(day(18)))
    step = Step("raw", ("raw/readings",), (day(19), day(19)), "")
    assert 0 < settles_in(site, step) <= 2.0
    for ago in (60, -3600):
        os.utime(path, (time.time() - ago, time.time() - ago))
        assert settles_in(site, step) == 0.0
