"""The pglib-uc exchange format (https://github.com/power-grid-lib/pglib-uc): instances in, plans in and out.

Only the format lives here; what an instance means to the optimiser is an ordinary `DispatchProblem`.
"""

from __future__ import annotations

import json
import math
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NoReturn

import pandas as pd

from lakehouse.dispatch.checker import CheckReport, check_plan
from lakehouse.dispatch.fleet import DispatchProblem, Penalties, Renewable, ThermalUnit, utc_intervals
from lakehouse.dispatch.given import is_number, shown
from lakehouse.dispatch.solution import DispatchSolution
from lakehouse.dispatch.solver import solve, summary_line
from lakehouse.errors import DispatchError

PLAN_COLUMNS = ["unit_id", "period", "committed", "started", "stopped", "power_mw", "reserve_mw"]
# An instance has no dates of its own; its period 1 is shown as this hour.
FIRST_PERIOD = datetime(2020, 1, 1, tzinfo=UTC)
PENALTIES = Penalties(
    unserved_eur_per_mwh=100_000.0,
    surplus_eur_per_mwh=100_000.0,
    reserve_shortfall_eur_per_mwh=50_000.0,
    last_resort=True,
)
MOST_PERIODS = 10_000  # more than a year of hours


def read_instance(path: Path | str) -> DispatchProblem:
    """Reads a pglib-uc instance.

    Args:
        path: the JSON file; hourly periods, powers in MW, costs in the instance's currency (shown as EUR).

    Returns:
        The problem. Balance and reserve are hard in pglib-uc: shortfalls are a last resort and show up as violations.

    Raises:
        DispatchError: the file can't be read or contradicts itself.
    """
    path = Path(path)
    try:
        instance = json.loads(path.read_text())
    except FileNotFoundError:
        raise DispatchError(f"expected a unit-commitment instance at {path}, found no such file", "Check the path.") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DispatchError(
            f"{path}: expected JSON in the pglib-uc format, found text that can't be read ({error})", "Check the file."
        ) from None
    try:
        return problem_from(instance)
    except DispatchError as error:
        raise DispatchError(f"{path}: {error.problem}", error.remedy) from None


def problem_from(instance: Any) -> DispatchProblem:
    """A parsed pglib-uc instance as a problem; see `read_instance`."""
    of = _Entries("instance", instance)
    periods = of.number("time_periods")
    if periods != int(periods) or not 1 <= periods <= MOST_PERIODS:
        raise DispatchError(
            f"expected time_periods as a whole number from 1 to {MOST_PERIODS}, found {periods:g}", "Correct time_periods of the instance."
        )
    thermal, renewable = of.members("thermal_generators"), of.members("renewable_generators", needed=False)
    return DispatchProblem(
        interval_start=utc_intervals(FIRST_PERIOD, int(periods), 1.0),
        interval_hours=1.0,
        demand_mw=of.series("demand", int(periods)),
        reserve_mw=of.series("reserves", int(periods)) if "reserves" in of.content else 0.0,
        thermal=[_thermal(unit_id, unit) for unit_id, unit in thermal.items()],
        renewables=[
            Renewable(
                unit_id,
                maximum_mw=unit.series("power_output_maximum", int(periods)),
                minimum_mw=unit.series("power_output_minimum", int(periods)),
            )
            for unit_id, unit in renewable.items()
        ],
        penalties=PENALTIES,
    )


class _Entries:
    """A part of an instance, read entry by entry; what is missing or no number is told with the name of the part."""

    def __init__(self, name: str, content: Any) -> None:
        self.name, self.content = name, content
        if not isinstance(content, dict):
            self._fail("a JSON object", content)

    def _fail(self, expected: str, found: Any) -> NoReturn:
        raise DispatchError(f"{self.name}: expected {expected}, found {shown(found)}", "Correct it; the form is that of pglib-uc.")

    def _entry(self, key: str) -> Any:
        if key not in self.content:
            raise DispatchError(f"{self.name}: expected the entry {key} of the pglib-uc format, found none", f"Add {key} to {self.name}.")
        return self.content[key]

    def _finite(self, what: str, value: Any) -> float:
        if not is_number(value):
            self._fail(f"{what} as a finite number", value)
        return float(value)

    def number(self, key: str) -> float:
        """An entry that is a finite number."""
        return self._finite(key, self._entry(key))

    def flag(self, key: str) -> bool:
        """An entry that is 0 or 1."""
        value = self._entry(key)
        if not isinstance(value, int | float) or value not in (0, 1):
            self._fail(f"{key} as 0 or 1", value)
        return bool(value)

    def series(self, key: str, periods: int) -> list[float]:
        """An entry with a number for each period."""
        values = self._entry(key)
        if not isinstance(values, list) or len(values) != periods:
            found = f"{len(values)} values" if isinstance(values, list) else values
            self._fail(f"{key} as a list of {periods} values, one for each period", found)
        return [self._finite(f"{key} in period {number}", value) for number, value in enumerate(values, start=1)]

    def pairs(self, key: str, names: tuple[str, str]) -> tuple[tuple[float, float], ...]:
        """An entry that is a list of objects with two numbers each."""
        values = self._entry(key)
        if not isinstance(values, list) or not values:
            self._fail(f"{key} as a list of objects with {names[0]} and {names[1]}", values)
        parts = [_Entries(f"{self.name}, {key} number {number}", value) for number, value in enumerate(values, start=1)]
        return tuple((part.number(names[0]), part.number(names[1])) for part in parts)

    def members(self, key: str, needed: bool = True) -> dict[str, _Entries]:
        """An entry whose entries are units."""
        if not needed and key not in self.content:
            return {}
        units = _Entries(key, self._entry(key)).content
        return {unit_id: _Entries(f"unit {unit_id}", unit) for unit_id, unit in units.items()}


def _thermal(unit_id: str, unit: _Entries) -> ThermalUnit:
    is_on = unit.flag("unit_on_t0")
    hours_on, hours_off = unit.number("time_up_t0"), unit.number("time_down_t0")
    if (hours_on > 0) == (hours_off > 0) or (hours_on > 0) != is_on:
        raise DispatchError(
            f"unit {unit_id}: initial state contradicts itself: unit_on_t0 = {int(is_on)}, but on for {hours_on:g} h and off "
            f"for {hours_off:g} h",
            "Give the hours of the state it is in, and 0 for the other.",
        )
    return ThermalUnit(
        unit_id=unit_id,
        minimum_mw=unit.number("power_output_minimum"),
        maximum_mw=unit.number("power_output_maximum"),
        cost_curve=unit.pairs("piecewise_production", ("mw", "cost")),
        startup_costs=unit.pairs("startup", ("lag", "cost")),
        ramp_up_mw_per_hour=unit.number("ramp_up_limit"),
        ramp_down_mw_per_hour=unit.number("ramp_down_limit"),
        startup_limit_mw=unit.number("ramp_startup_limit"),
        shutdown_limit_mw=unit.number("ramp_shutdown_limit"),
        minimum_up_hours=unit.number("time_up_minimum"),
        minimum_down_hours=unit.number("time_down_minimum"),
        must_run=unit.flag("must_run"),
        initially_on=is_on,
        initial_power_mw=unit.number("power_output_t0"),
        initial_hours_in_state=hours_on if is_on else hours_off,
    )


def plan_table(solution: DispatchSolution) -> pd.DataFrame:
    """A plan with the columns other tools expect: `PLAN_COLUMNS`, thermal and renewable units, periods from 1."""
    return solution.plan[PLAN_COLUMNS].reset_index(drop=True)


def solve_instance(
    path: Path | str, out: Path | str | None, gap: float = 0.001, time_limit: float = 60.0, threads: int = 2
) -> dict[str, Any]:
    """Solves an instance file and writes the plan.

    Args:
        path: pglib-uc JSON file.
        out: where the plan goes, .parquet or .csv; None writes nothing.
        gap: relative gap that is good enough.
        time_limit: wall time in seconds, reading and building included.
        threads: 2 for both searches, 1 for the bound's alone.

    Returns:
        objective, bound, gap, build_seconds, solve_seconds, peak_mb, status, `cost` (the objective without the price of what could not be
        met) and `violations` as a list of sentences. Bound and gap are None where none is known.
    """
    begun = time.perf_counter()
    problem = read_instance(path)
    solution = solve(problem, gap=gap, time_limit_seconds=max(1.0, time_limit - (time.perf_counter() - begun)), threads=threads)
    if out is not None:
        _write_plan(plan_table(solution), Path(out))
    unmet = [
        f"{row.kind}, {row.where}, period {row.period}: {row.amount:.3f} {row.unit} ({row.reason})"
        for row in solution.violations.itertuples()
    ]
    told = {
        name: None if isinstance(value, float) and not math.isfinite(value) else value for name, value in summary_line(solution).items()
    }
    penalties = sum(solution.summary[name] for name in ("unserved_eur", "surplus_eur", "reserve_shortfall_eur"))
    return {**told, "cost": solution.summary["objective_eur"] - penalties, "violations": unmet}


def check_instance(path: Path | str, plan_path: Path | str) -> CheckReport:
    """Checks a plan file, from whatever tool, against an instance file.

    In pglib-uc balance and reserve are hard: any shortfall is a breach.
    """
    return check_plan(read_instance(path), _read_plan(Path(plan_path)))


def _write_plan(plan: pd.DataFrame, out: Path) -> None:
    out.parent.mkdir(parents=True, exist_ok=True)
    if out.suffix == ".csv":
        plan.to_csv(out, index=False)
    else:
        plan.to_parquet(out, index=False)


def _read_plan(path: Path) -> pd.DataFrame:
    if not path.exists():
        raise DispatchError(
            f"expected a plan at {path}, found no such file", "Write one with: gridlake dispatch solve INSTANCE.json --out PLAN.parquet"
        )
    try:
        plan = pd.read_csv(path) if path.suffix == ".csv" else pd.read_parquet(path)
    except (OSError, ValueError) as error:
        raise DispatchError(f"{path}: expected a plan as Parquet or CSV, found something else ({error})", "Check the file.") from None
    missing = [column for column in PLAN_COLUMNS if column not in plan.columns]
    if missing:
        raise DispatchError(f"{path}: expected the columns {', '.join(PLAN_COLUMNS)}, found no {', '.join(missing)}", "Complete the plan.")
    return plan
