"""Bad input is named in the operator's terms: unit, value, unit of measure, interval, and what to do."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest

from lakehouse.dispatch import DispatchProblem, Line, Market, Renewable, ShiftableLoad, ThermalUnit, utc_intervals
from lakehouse.errors import DispatchError
from tests.dispatch.builders import MIDNIGHT, base_unit, battery, peaker, problem

NAN = float("nan")

BAD_INPUT = {
    "minimum above maximum": (lambda: base_unit(minimum_mw=120), ["base", "120 MW", "100 MW"]),
    "cost not convex": (
        lambda: base_unit(cost_curve=((40, 800), (60, 1800), (100, 2000))),
        ["base", "not convex", "50 EUR/MWh", "5 EUR/MWh", "60 MW"],
    ),
    "curve beside the limits": (lambda: base_unit(cost_curve=((30, 800), (100, 2000))), ["base", "30 to 100 MW", "40 to 100 MW"]),
    "curve not rising": (lambda: base_unit(cost_curve=((40, 800), (40, 900), (100, 2000))), ["base", "do not rise"]),
    "cost missing": (lambda: base_unit(cost_curve=((40, NAN), (100, 2000))), ["base", "finite"]),
    "text for a number": (lambda: base_unit(minimum_up_hours="12"), ["base", "minimum_up_hours as a finite number", "'12'"]),
    "nothing for a number": (lambda: battery(charge_mw=None), ["battery", "charge_mw as a finite number", "None"]),
    "endless limit": (lambda: base_unit(maximum_mw=float("inf")), ["base", "maximum_mw as a finite number", "inf"]),
    "text for yes or no": (lambda: base_unit(must_run="yes"), ["base", "must_run as true or false", "'yes'"]),
    "curve of text": (lambda: base_unit(cost_curve=((40, "a"), (100, 2000))), ["base", "cost_curve as pairs of finite numbers"]),
    "start costs are no list": (lambda: base_unit(startup_costs=5), ["base", "startup_costs as pairs of finite numbers", "5"]),
    "series of text": (lambda: problem([50], renewables=[Renewable("wind", ["much"])]), ["wind", "expected numbers in MW"]),
    "off but producing": (lambda: base_unit(initial_power_mw=50), ["base", "contradicts itself", "off", "50 MW"]),
    "on below minimum": (
        lambda: base_unit(initially_on=True, initial_power_mw=10),
        ["base", "contradicts itself", "10 MW", "40 to 100 MW"],
    ),
    "start limit below minimum": (lambda: base_unit(startup_limit_mw=20), ["base", "start-up limit", "20 MW", "40 MW"]),
    "colder start cheaper": (lambda: base_unit(startup_costs=((1, 500), (5, 100))), ["base", "colder"]),
    "start costs out of order": (lambda: base_unit(startup_costs=((5, 500), (1, 700))), ["base", "ordered"]),
    "negative ramp": (lambda: base_unit(ramp_up_mw_per_hour=-1), ["base", "ramp_up_mw_per_hour", "-1"]),
    "outage ends before it starts": (lambda: base_unit(outages=((MIDNIGHT, MIDNIGHT - timedelta(hours=1)),)), ["base", "outage"]),
    "efficiency as percent": (lambda: battery(charge_efficiency=94), ["battery", "charge efficiency", "94"]),
    "storage limits cross": (lambda: battery(minimum_mwh=50), ["battery", "50 MWh", "40 MWh"]),
    "initial state of charge": (lambda: battery(initial_mwh=60), ["battery", "initial", "60 MWh"]),
    "final state of charge": (lambda: battery(final_mwh=60), ["battery", "final", "60 MWh"]),
    "missing forecast": (
        lambda: problem([50, 50], renewables=[Renewable("wind", [10.0, NAN])]),
        ["wind", "2026-03-30 01:00 UTC", "no value"],
    ),
    "missing demand": (lambda: problem([50, NAN]), ["demand", "2026-03-30 01:00 UTC"]),
    "negative demand": (lambda: problem([50, -3]), ["demand", "negative", "-3 MW"]),
    "series too short": (lambda: problem([50, 50], reserve_mw=[1.0]), ["reserve", "expected 2 values"]),
    "renewable limits cross": (
        lambda: problem([50], renewables=[Renewable("wind", 10.0, 20.0)]),
        ["wind", "20 MW", "10 MW", "2026-03-30 00:00 UTC"],
    ),
    "export above import": (lambda: problem([5], market=Market(10.0, 12.0, 5, 5)), ["market", "12 EUR/MWh", "10 EUR/MWh"]),
    "name twice": (lambda: problem([5], thermal=[base_unit(), peaker(unit_id="base")]), ["base", "twice"]),
    "unknown zone": (lambda: problem([5], thermal=[base_unit(zone="north")]), ["base", "north", "system"]),
    "line to nowhere": (lambda: problem([5], lines=[Line("tie", "system", "mars", 5)]), ["tie", "mars"]),
    "line within a zone": (lambda: Line("tie", "a", "a", 5), ["tie", "zone a"]),
    "window too short": (lambda: problem([5, 5], shiftable=[ShiftableLoad("heat", 30, 10)]), ["heat", "30 MWh", "10 MW"]),
    "no intervals": (lambda: problem([]), ["interval"]),
    "gap in the clock": (lambda: DispatchProblem([MIDNIGHT, MIDNIGHT + timedelta(hours=2)], 1.0, [1, 1]), ["00:00", "02:00"]),
    "local time": (lambda: DispatchProblem([datetime(2026, 3, 30, tzinfo=timezone(timedelta(hours=2)))], 1.0, [1]), ["UTC"]),
}


@pytest.mark.parametrize("case", BAD_INPUT)
def test_bad_input_is_named(case):
    make, words = BAD_INPUT[case]
    with pytest.raises(DispatchError) as raised:
        make()
    for word in words:
        assert word in str(raised.value)
    assert raised.value.remedy


def test_a_minimum_up_time_beyond_the_horizon_is_no_error():
    assert problem([50], thermal=[base_unit(minimum_up_hours=500)]).horizon == 1


def test_an_interval_is_found_by_its_moment():
    day = problem([50] * 8, hours=0.25)
    assert day.interval_of(MIDNIGHT + timedelta(minutes=29)) == 1
    with pytest.raises(DispatchError, match="within the plan"):
        day.interval_of(MIDNIGHT + timedelta(hours=2))


def test_heat_rates_fuel_and_co2_make_a_cost_curve():
    unit = ThermalUnit.from_heat_rates(
        "gas", [(50, 400), (100, 700)], fuel_price_eur_per_gj=8, variable_om_eur_per_mwh=2, co2_t_per_gj=0.05, co2_price_eur_per_t=60
    )
    # 400 GJ/h at 8 + 3 EUR/GJ and 50 MW at 2 EUR/MWh
    assert unit.cost_curve[0] == (50, pytest.approx(4500))


def test_interval_starts_are_utc():
    starts = utc_intervals(datetime(2026, 3, 29, 0, 0), 4, 0.5)
    assert [f"{s:%H:%M}" for s in starts] == ["00:00", "00:30", "01:00", "01:30"]
    assert all(s.utcoffset() == timedelta(0) for s in starts)
