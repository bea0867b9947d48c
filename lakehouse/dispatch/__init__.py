"""Day-ahead and intraday dispatch: fleet, unit commitment, storage, market, and the judge of every plan.

`DispatchProblem` says what is to be planned, `solve` plans it, `check_solution` judges it, `explain` tells why a unit runs and
`plan_figure` draws it. pglib-uc instances come and go through `solve_instance` and `check_instance`. Forecasts and tables are read
elsewhere: this room knows neither the lake nor where its numbers come from.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lakehouse.dispatch.checker import Breach, CheckReport, check_plan, check_solution
    from lakehouse.dispatch.figure import figure_png, plan_figure
    from lakehouse.dispatch.fleet import (
        DispatchProblem,
        EnergyContract,
        InterruptibleLoad,
        Line,
        Market,
        Penalties,
        Renewable,
        ShiftableLoad,
        Storage,
        ThermalUnit,
        hydro_reservoir,
        utc_intervals,
    )
    from lakehouse.dispatch.pglib import check_instance, plan_table, read_instance, solve_instance
    from lakehouse.dispatch.reasons import explain
    from lakehouse.dispatch.solution import DispatchSolution
    from lakehouse.dispatch.solver import solve

# Loaded on first use: the search processes start without pandas, and nobody pays for what they don't ask for.
_HOME = {
    "checker": ("Breach", "CheckReport", "check_plan", "check_solution"),
    "reasons": ("explain",),
    "figure": ("figure_png", "plan_figure"),
    "fleet": (
        "DispatchProblem",
        "EnergyContract",
        "InterruptibleLoad",
        "Line",
        "Market",
        "Penalties",
        "Renewable",
        "ShiftableLoad",
        "Storage",
        "ThermalUnit",
        "hydro_reservoir",
        "utc_intervals",
    ),
    "pglib": ("check_instance", "plan_table", "read_instance", "solve_instance"),
    "solution": ("DispatchSolution",),
    "solver": ("solve",),
}
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names}

__all__ = [
    "Breach",
    "CheckReport",
    "DispatchProblem",
    "DispatchSolution",
    "EnergyContract",
    "InterruptibleLoad",
    "Line",
    "Market",
    "Penalties",
    "Renewable",
    "ShiftableLoad",
    "Storage",
    "ThermalUnit",
    "check_instance",
    "check_plan",
    "check_solution",
    "explain",
    "figure_png",
    "hydro_reservoir",
    "plan_figure",
    "plan_table",
    "read_instance",
    "solve",
    "solve_instance",
    "utc_intervals",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
    globals()[name] = value
    return value
