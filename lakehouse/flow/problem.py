"""From a fleet and an outlook to a dispatch problem: what each kind of unit in the fleet file means."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, time, timedelta
from typing import TYPE_CHECKING, Any

from lakehouse.errors import DispatchError
from lakehouse.flow.outlook import EXTERNAL, Outlook
from lakehouse.flow.workspace import Workspace
from lakehouse.site import Fleet, Site

if TYPE_CHECKING:
    import numpy as np

    from lakehouse.dispatch.fleet import DispatchProblem

Units = Sequence[dict[str, Any]]
State = Mapping[str, Mapping[str, Any]]

WEATHER_DRIVEN = ("wind", "solar", "hydro")
NO_OUTAGES = ("storage", "shiftable", "contract", "line", "zone")


def fleet_units(workspace: Workspace, version: int | None = None) -> list[dict[str, Any]]:
    """The fleet's units with their parameters, at its newest or at an older version.

    Raises:
        DispatchError: there is no fleet yet.
    """
    rows = sorted(workspace.table("cleaned/fleet").read(version=version).to_pylist(), key=lambda row: str(row["unit_id"]))
    if not rows:
        raise DispatchError("The fleet is empty: no unit was delivered that could be read.", "Land a fleet file, then: gridlake refresh")
    return [json.loads(row["parameters"]) | {"unit_id": row["unit_id"], "kind": row["kind"]} for row in rows]


def targets_of(site: Site, units: Units) -> dict[str, list[str]]:
    """The forecast series that a plan of this fleet reads, by target."""
    fleet = site.fleet
    assert fleet is not None
    found: dict[str, list[str]] = {fleet.demand: list(site.series[fleet.demand].series)}  # type: ignore[index]
    for unit in units:
        kind = unit["kind"]
        if kind in ("wind", "solar") and unit.get("forecast") != EXTERNAL:
            found.setdefault(kind, []).append(str(unit.get("series_id", kind)))
        elif kind == "grid" and unit.get("price_series_id") and "price" in site.series:
            found.setdefault("price", []).append(str(unit["price_series_id"]))
    return {target: list(dict.fromkeys(series)) for target, series in found.items()}


def problem_of(outlook: Outlook, units: Units, state: State | None = None) -> DispatchProblem:
    """The problem of one issue day: the fleet in its state, facing an outlook on the next local day.

    Args:
        outlook: what demand, wind, sun and price will be.
        units: the fleet, as `fleet_units` gives it.
        state: what earlier plans left behind, by unit; the fleet's own initial state where there is none.

    Raises:
        DispatchError: the fleet contradicts itself, or a forecast that it needs is missing; with unit and interval.
    """
    from lakehouse.dispatch.fleet import DispatchProblem, Penalties

    fleet = outlook.workspace.site.fleet
    assert fleet is not None
    horizon = outlook.horizon()
    made: dict[str, list[Any]] = {kind: [] for kind in _MAKERS}
    demand = _demand_by_zone(outlook, units)
    planned_out = _planned_out(outlook.workspace.site, fleet, units)
    for unit in units:
        name, kind = unit["unit_id"], unit["kind"]
        if kind == "zone":
            continue
        given = {k: v for k, v in unit.items() if k not in ("unit_id", "kind", "outages") and v is not None} | dict(
            (state or {}).get(name, {})
        )
        if name in planned_out:
            given["outages"] = planned_out[name]
        try:
            made[kind].append(_MAKERS[kind](name, given, outlook))
        except (TypeError, ValueError, AttributeError, KeyError, OverflowError) as error:  # unknown, missing, or no number
            told = f"the parameter {error} is missing" if isinstance(error, KeyError) else str(error).split("__init__() ")[-1]
            raise DispatchError(f"Unit {name}: {told}.", "docs/dispatch.md lists the parameters of each kind of unit.") from None
    total = sum(demand.values())
    return DispatchProblem(
        interval_start=[s.to_pydatetime() for s in horizon.starts],
        interval_hours=fleet.interval_minutes / 60,
        demand_mw=demand,
        reserve_mw=fleet.reserve_mw + fleet.reserve_share_of_demand * total,
        reserve_down_mw=fleet.reserve_down_mw + fleet.reserve_down_share_of_demand * total,
        thermal=made["thermal"],
        renewables=[unit for kind in WEATHER_DRIVEN for unit in made[kind]],
        storages=made["storage"],
        shiftable=made["shiftable"],
        interruptible=made["interruptible"],
        contracts=made["contract"],
        market=made["grid"] or None,
        lines=made["line"],
        co2_price_eur_per_t=fleet.co2_price_eur_per_t,
        penalties=Penalties(
            unserved_eur_per_mwh=fleet.value_of_lost_load_eur_per_mwh,
            reserve_shortfall_eur_per_mwh=fleet.reserve_shortfall_eur_per_mwh,
            reserve_down_shortfall_eur_per_mwh=fleet.reserve_shortfall_eur_per_mwh,
        ),
    )


def grid_names(units: Units, problem: DispatchProblem) -> dict[str, str]:
    """What the optimiser calls each grid connection, and what the fleet calls it."""
    from lakehouse.dispatch.solution import market_name

    named = [unit["unit_id"] for unit in units if unit["kind"] == "grid"]
    return {market_name(problem, n): name for n, name in enumerate(named)}


# -- zones and outages


def _demand_by_zone(outlook: Outlook, units: Units) -> dict[str, np.ndarray]:
    import numpy as np

    from lakehouse.dispatch.fleet import ONE_ZONE

    site = outlook.workspace.site
    assert site.fleet is not None
    names = site.series[site.fleet.demand].series  # type: ignore[index]
    by_series = {name: outlook.demand(name) for name in names}
    total = np.sum(list(by_series.values()), axis=0)
    zones = [unit for unit in units if unit["kind"] == "zone"]
    if not zones:
        return {ONE_ZONE: total}
    demand, used = {}, []
    for zone in zones:
        series = zone.get("demand_series", [])
        series = [series] if isinstance(series, str) else list(series)
        unknown = [s for s in series if s not in by_series]
        if unknown:
            raise DispatchError(
                f"Zone {zone['unit_id']}: its demand series '{unknown[0]}' is not forecast; the site forecasts {', '.join(names)}.",
                "Correct demand_series in the fleet file, or series in gridlake.yaml.",
            )
        used += series
        share = float(zone.get("demand_share", 0.0))
        demand[zone["unit_id"]] = np.sum([share * total, *(by_series[s] for s in series)], axis=0)
    shares = sum(float(zone.get("demand_share", 0.0)) for zone in zones)
    whole = sorted(used) == sorted(names) if not shares else not used and abs(shares - 1.0) < 1e-6
    if not whole:
        raise DispatchError(
            f"The zones do not add up to the demand: their series are {', '.join(used) or 'none'} of {', '.join(names)}, "
            f"their shares sum to {shares:g}.",
            "Give every demand series to one zone by demand_series, or give demand_share throughout, summing to 1.",
        )
    return demand


def _planned_out(site: Site, fleet: Fleet, units: Units) -> dict[str, list[tuple[datetime, datetime]]]:
    """Planned outages by unit, from the fleet file and from the site file."""
    known = {unit["unit_id"]: unit for unit in units}
    found: dict[str, list[tuple[datetime, datetime]]] = {}
    for unit in units:
        for outage in unit.get("outages") or ():
            try:
                start, end = (_moment(text, None) for text in outage)
            except (TypeError, ValueError) as error:
                raise DispatchError(
                    f"Unit {unit['unit_id']}: an outage is {outage!r}: {error}.", "Write it as [start, end], with offsets."
                ) from None
            found.setdefault(unit["unit_id"], []).append((start, end))
    for planned in fleet.outages:
        if planned.unit not in known:
            raise DispatchError(
                f"fleet.outages: there is no unit '{planned.unit}' in the fleet.", "Correct the name in gridlake.yaml, or take it out."
            )
        found.setdefault(planned.unit, []).append((_moment(planned.start, site), _moment(planned.end, site)))
    for name in found:
        if known[name]["kind"] in NO_OUTAGES:
            raise DispatchError(
                f"Unit {name}: outages of {known[name]['kind']} units can't be planned.",
                "Leave the outage out, and the unit out of the fleet file for that day.",
            )
    return found


def _moment(text: str, site: Site | None) -> datetime:
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None and site is not None:
        moment = moment.replace(tzinfo=site.zone)
    return moment.astimezone(UTC) if moment.tzinfo else moment  # one without offset is refused where the unit is made


def _out(outlook: Outlook, given: dict[str, Any]) -> np.ndarray:
    """1 where the unit is there, 0 in every interval that touches an outage of it."""
    import numpy as np
    import pandas as pd

    starts = outlook.horizon().starts
    there = np.ones(len(starts))
    for start, end in given.pop("outages", ()):
        if start.tzinfo is None or end.tzinfo is None:
            raise ValueError("an outage's moments need an offset, such as 2026-03-11T08:00:00+01:00")
        there[(starts < end) & (starts + pd.Timedelta(minutes=outlook.workspace.site.fleet.interval_minutes) > start)] = 0.0  # type: ignore[union-attr]
    return there


# -- kinds of unit


def _thermal(name: str, given: dict[str, Any], outlook: Outlook) -> Any:
    from lakehouse.dispatch.fleet import ThermalUnit

    curves = {k: tuple(tuple(float(x) for x in point) for point in given[k]) for k in ("cost_curve", "startup_costs") if k in given}
    return ThermalUnit(unit_id=name, **(given | curves | {"outages": tuple(given.get("outages", ()))}))


def _weather_driven(target: str) -> Any:
    def make(name: str, given: dict[str, Any], outlook: Outlook) -> Any:
        import numpy as np

        from lakehouse.dispatch.fleet import Renewable

        there, most = _out(outlook, given), given.pop("maximum_mw", None)
        source = EXTERNAL if given.pop("forecast", target) == EXTERNAL or target == "hydro" else target
        series = given.pop("series_id", None if target == "hydro" else target)
        if series is None:
            available = np.full(len(there), float(most if most is not None else given["maximum_mw"]))
        else:
            share = float(given.pop("share_of_series", 1.0))
            available = np.clip(share * outlook.values(source, series, f"Unit {name}"), 0.0, most)
        available = available * there
        least = np.minimum(available, float(given.pop("minimum_mw", 0.0)))
        if given.pop("must_take", False):
            least = available
        return Renewable(unit_id=name, maximum_mw=available, minimum_mw=least, **given)

    return make


def _storage(name: str, given: dict[str, Any], outlook: Outlook) -> Any:
    from lakehouse.dispatch.fleet import Storage

    series = given.pop("inflow_series_id", None)
    if series is not None:
        given["inflow_mw"] = outlook.values(EXTERNAL, series, f"Unit {name}").clip(0.0)
    return Storage(storage_id=name, **given)


def _grid(name: str, given: dict[str, Any], outlook: Outlook) -> Any:
    from lakehouse.dispatch.fleet import Market

    there = _out(outlook, given)
    price = _grid_price(name, given, outlook)
    given["import_price_eur_per_mwh"] = price + float(given.pop("import_margin_eur_per_mwh", 0.0))
    given["export_price_eur_per_mwh"] = price - float(given.pop("export_margin_eur_per_mwh", 0.0))
    for limit in ("import_limit_mw", "export_limit_mw"):
        given[limit] = float(given.get(limit, 0.0)) * there
    return Market(**given)


def _grid_price(name: str, given: dict[str, Any], outlook: Outlook) -> Any:
    fixed, series = given.pop("price_eur_per_mwh", None), given.pop("price_series_id", None)
    if series is not None and "price" in outlook.workspace.site.series:
        return outlook.values("price", series, f"Unit {name}")
    if fixed is None:
        raise DispatchError(
            f"Grid connection {name}: no price: neither a forecast series nor price_eur_per_mwh.", "Give one in the fleet file."
        )
    return float(fixed)


def _shiftable(name: str, given: dict[str, Any], outlook: Outlook) -> Any:
    from lakehouse.dispatch.fleet import ShiftableLoad

    window, day = given.pop("window_local", ("00:00", "00:00")), outlook.issue + timedelta(days=1)
    zone = outlook.workspace.site.zone
    start, end = (datetime.combine(day, time.fromisoformat(at), zone) for at in window)
    end = end if end > start else end + timedelta(days=1)
    horizon = outlook.horizon()
    last = horizon.starts[-1].to_pydatetime() + timedelta(minutes=outlook.workspace.site.fleet.interval_minutes)  # type: ignore[union-attr]
    return ShiftableLoad(load_id=name, window=(start.astimezone(UTC), min(end.astimezone(UTC), last)), **given)


def _interruptible(name: str, given: dict[str, Any], outlook: Outlook) -> Any:
    from lakehouse.dispatch.fleet import InterruptibleLoad

    there = _out(outlook, given)
    return InterruptibleLoad(load_id=name, maximum_mw=float(given.pop("maximum_mw")) * there, **given)


def _contract(name: str, given: dict[str, Any], outlook: Outlook) -> Any:
    from lakehouse.dispatch.fleet import EnergyContract

    horizon = outlook.horizon()
    by_day = float(given.pop("minimum_energy_mwh", 0.0))  # agreed for a day; a longer horizon takes the more
    return EnergyContract(contract_id=name, minimum_energy_mwh=by_day * len(horizon.starts) / horizon.day, **given)


def _line(name: str, given: dict[str, Any], outlook: Outlook) -> Any:
    from lakehouse.dispatch.fleet import Line

    return Line(line_id=name, **given)


_MAKERS: dict[str, Any] = {
    "thermal": _thermal,
    "wind": _weather_driven("wind"),
    "solar": _weather_driven("solar"),
    "hydro": _weather_driven("hydro"),
    "storage": _storage,
    "grid": _grid,
    "shiftable": _shiftable,
    "interruptible": _interruptible,
    "contract": _contract,
    "line": _line,
}
