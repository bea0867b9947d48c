"""Small fleets for the tests of dispatch: a cheap base unit, a dear peaking unit, a battery, and what varies around them."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from lakehouse.dispatch import DispatchProblem, Renewable, Storage, ThermalUnit, utc_intervals

MIDNIGHT = datetime(2026, 3, 30, tzinfo=UTC)

PGLIB_UNIT = {
    "must_run": 0, "power_output_minimum": 10, "power_output_maximum": 20, "ramp_up_limit": 20, "ramp_down_limit": 20,
    "ramp_startup_limit": 20, "ramp_shutdown_limit": 20, "time_up_minimum": 1, "time_down_minimum": 1, "power_output_t0": 0,
    "unit_on_t0": 0, "time_up_t0": 0, "time_down_t0": 5, "startup": [{"lag": 1, "cost": 10}],
    "piecewise_production": [{"mw": 10, "cost": 100}, {"mw": 20, "cost": 300}],
}  # fmt: skip
"""A unit as instances in the pglib-uc format have it."""


def base_unit(**changes) -> ThermalUnit:
    """40 to 100 MW at 20 EUR/MWh, off, and 1,000 EUR for a start."""
    fields = dict(
        unit_id="base", minimum_mw=40.0, maximum_mw=100.0, cost_curve=((40.0, 800.0), (100.0, 2000.0)), startup_costs=((1.0, 1000.0),)
    )
    return ThermalUnit(**{**fields, **changes})


def peaker(**changes) -> ThermalUnit:
    """0 to 50 MW at 80 EUR/MWh, free to start."""
    return ThermalUnit(**{**dict(unit_id="peaker", minimum_mw=0.0, maximum_mw=50.0, cost_curve=((0.0, 0.0), (50.0, 4000.0))), **changes})


def battery(**changes) -> Storage:
    """20 MW, 40 MWh, 90 % each way, empty."""
    fields = dict(storage_id="battery", charge_mw=20.0, discharge_mw=20.0, energy_mwh=40.0, charge_efficiency=0.9, discharge_efficiency=0.9)
    return Storage(**{**fields, **changes})


def problem(demand, *, hours=1.0, **parts) -> DispatchProblem:
    """A horizon from midnight with a demand by interval."""
    return DispatchProblem(interval_start=utc_intervals(MIDNIGHT, len(demand), hours), interval_hours=hours, demand_mw=demand, **parts)


def random_problem(seed: int, horizon: int = 8) -> DispatchProblem:
    """A random fleet of three to five units with every kind of limit, in intervals of 30 or 60 minutes, always plannable at a price."""
    draw = np.random.default_rng(seed)
    hours = float(draw.choice([0.5, 1.0]))
    units = []
    for i in range(int(draw.integers(3, 6))):
        low = float(draw.integers(5, 40))
        high = low + float(draw.integers(10, 80))
        middle = (low + high) / 2
        slopes = np.sort(draw.integers(10, 90, size=2))
        at_minimum = float(draw.integers(100, 900))
        first = at_minimum + slopes[0] * (middle - low)
        curve = ((low, at_minimum), (middle, first), (high, first + slopes[1] * (high - middle)))
        costs = np.sort(draw.integers(0, 3000, size=3)).astype(float)
        on = bool(draw.random() < 0.5)
        units.append(
            ThermalUnit(
                unit_id=f"unit {i}",
                minimum_mw=low,
                maximum_mw=high,
                cost_curve=curve,
                startup_costs=((0.0, costs[0]), (2.0, costs[1]), (4.0, costs[2])),
                ramp_up_mw_per_hour=float(draw.integers(10, 90)),
                ramp_down_mw_per_hour=float(draw.integers(10, 90)),
                startup_limit_mw=low + float(draw.integers(0, 30)),
                shutdown_limit_mw=low + float(draw.integers(0, 30)),
                minimum_up_hours=float(draw.integers(0, 5)),
                minimum_down_hours=float(draw.integers(0, 5)),
                must_run=bool(draw.random() < 0.15),
                initially_on=on,
                initial_power_mw=float(draw.uniform(low, high)) if on else 0.0,
                initial_hours_in_state=float(draw.integers(1, 8)),
            )
        )
    total = sum(unit.maximum_mw for unit in units)
    demand = total * draw.uniform(0.25, 0.85, size=horizon)
    wind = draw.uniform(0, 0.2 * total, size=horizon)
    stores = [battery(initial_mwh=20.0, final_mwh=10.0, wear_eur_per_mwh=1.0, reserve_hours=1.0)] if draw.random() < 0.5 else []
    return problem(demand, hours=hours, reserve_mw=0.08 * demand, thermal=units, renewables=[Renewable("wind", wind)], storages=stores)


def instance_folder() -> Path:
    """The folder of published unit-commitment instances; skips the test where it is absent."""
    data = os.environ.get("GRIDLAKE_DATA")
    shared = Path(data).parent if data else Path(__file__).resolve().parents[2].parent / "shared"
    folder = shared / "dispatch"
    if not folder.is_dir():
        pytest.skip(f"needs the published unit-commitment instances in {folder} (set GRIDLAKE_DATA to the data folder beside it)")
    return folder
