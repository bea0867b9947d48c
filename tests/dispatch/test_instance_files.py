"""Instance files that are broken: each is refused in a sentence that names the unit, the entry and the period."""

from __future__ import annotations

import copy
import json
import math
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lakehouse.dispatch import check_plan, read_instance, solve
from lakehouse.dispatch.pglib import problem_from
from lakehouse.errors import DispatchError
from tests.dispatch.builders import PGLIB_UNIT

INSTANCE = {
    "time_periods": 3,
    "demand": [15, 12, 14],
    "reserves": [2, 2, 2],
    "thermal_generators": {"g": PGLIB_UNIT},
    "renewable_generators": {"w": {"power_output_minimum": [0, 0, 0], "power_output_maximum": [1, 2, 3]}},
}


def changed(value, *path):
    """The instance with another value at a path, or without what stands there."""
    instance = copy.deepcopy(INSTANCE)
    part = instance
    for key in path[:-1]:
        part = part[key]
    if value == "delete":
        del part[path[-1]]
    else:
        part[path[-1]] = value
    return instance


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        (("time_periods",), 2.5, "time_periods as a whole number"),
        (("demand",), [15, 12], "instance: expected demand as a list of 3 values, one for each period, found '2 values'"),
        (("demand", 1), math.nan, "instance: expected demand in period 2 as a finite number, found nan"),
        (("reserves", 2), "two", "instance: expected reserves in period 3 as a finite number, found 'two'"),
        (("thermal_generators", "g"), [], "unit g: expected a JSON object"),
        (("thermal_generators", "g", "ramp_up_limit"), "delete", "unit g: expected the entry ramp_up_limit"),
        (("thermal_generators", "g", "ramp_up_limit"), None, "unit g: expected ramp_up_limit as a finite number, found None"),
        (("thermal_generators", "g", "time_up_minimum"), "12", "unit g: expected time_up_minimum as a finite number, found '12'"),
        (("thermal_generators", "g", "must_run"), "yes", "unit g: expected must_run as 0 or 1, found 'yes'"),
        (("thermal_generators", "g", "startup"), {}, "unit g: expected startup as a list"),
        (("thermal_generators", "g", "startup", 0, "cost"), True, "unit g, startup number 1: expected cost as a finite number, found True"),
        (("thermal_generators", "g", "power_output_maximum"), 10**400, "unit g: expected power_output_maximum as a finite number"),
        (("thermal_generators", "g", "power_output_minimum"), 30, "unit g: minimum output 30 MW lies above maximum output 20 MW"),
        (("renewable_generators", "w", "power_output_maximum", 0), -1, "unit w, maximum (forecast): a negative value in interval"),
        (("renewable_generators", "w", "power_output_minimum", 1), 5, "unit w: minimum 5 MW lies above maximum 2 MW in interval"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_with_unit_entry_and_period(tmp_path: Path, path, value, says: str):
    file = tmp_path / "broken.json"
    file.write_text(json.dumps(changed(value, *path)))
    with pytest.raises(DispatchError) as refused:
        read_instance(file)
    assert says in str(refused.value)
    assert str(file) in str(refused.value)


def places(part, path=()):
    if path:
        yield path
    for key, value in part.items() if isinstance(part, dict) else enumerate(part) if isinstance(part, list) else ():
        yield from places(value, (*path, key))


ODD = st.sampled_from(["delete", None, "", "abc", math.nan, math.inf, -1, -1e9, 0, 1, 1.5, 1e12, [], [[1]], {}, {"a": 1}, True, False])


@settings(max_examples=60, deadline=None)
@given(place=st.sampled_from(list(places(INSTANCE))), value=ODD)
def test_whatever_stands_in_an_instance_it_is_refused_in_a_sentence_or_planned(place, value):
    try:
        problem = problem_from(changed(value, *place))
    except DispatchError as refused:
        assert len(refused.problem) < 400
        return
    plan = solve(problem, gap=0.01, threads=1, time_limit_seconds=10)
    report = check_plan(problem, plan.plan)
    assert report.ok or len(plan.violations)
