"""Why a unit runs, or does not: the binding reasons of one interval, with their numbers, in an operator's words.

Reads only the problem and the plan's tables (prices are duals with commitments fixed); nothing is solved again.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd

from lakehouse.dispatch.fleet import (
    DispatchProblem,
    EnergyContract,
    InterruptibleLoad,
    Line,
    Market,
    ShiftableLoad,
    ThermalUnit,
)
from lakehouse.dispatch.solution import DispatchSolution, market_name
from lakehouse.errors import DispatchError

NEAR_MW = 1e-3


def explain(
    problem: DispatchProblem, solution: DispatchSolution, unit_id: str, interval: int | datetime, time_zone: str = "UTC"
) -> list[str]:
    """The reasons for what a unit does in an interval.

    Args:
        problem: fleet and horizon.
        solution: the plan.
        unit_id: a thermal or renewable unit, a storage, a grid connection, a contract, a flexible load or a line.
        interval: period number from 1, or a moment in UTC.
        time_zone: whose clock the sentences tell.

    Returns:
        Sentences; the first says what the unit does, the others why, with MW, hours and EUR.

    Raises:
        DispatchError: no such unit or interval.
    """
    at = problem.interval_of(interval) if isinstance(interval, datetime) else int(interval) - 1
    if not 0 <= at < problem.horizon:
        raise DispatchError(f"expected a period from 1 to {problem.horizon}, found {at + 1}", "Ask for an interval of the plan.")
    clock = ZoneInfo(time_zone)
    for unit in problem.thermal:
        if unit.unit_id == unit_id:
            return _thermal(problem, solution, unit, at, clock)
    for renewable in problem.renewables:
        if renewable.unit_id == unit_id:
            return _renewable(problem, solution, unit_id, renewable.zone, renewable.cost_eur_per_mwh, at, clock)
    for store in problem.storages:
        if store.storage_id == unit_id:
            return _storage(problem, solution, unit_id, store.zone, at, clock)
    for n, market in enumerate(problem.markets):
        if market_name(problem, n) == unit_id:
            return _market(problem, solution, unit_id, market, at, clock)
    flexible: dict[str, EnergyContract | InterruptibleLoad | ShiftableLoad] = {one.contract_id: one for one in problem.contracts}
    flexible |= {load.load_id: load for load in problem.interruptible} | {load.load_id: load for load in problem.shiftable}
    if unit_id in flexible:
        return _flexible(problem, solution, unit_id, flexible[unit_id], at, clock)
    for line in problem.lines:
        if line.line_id == unit_id:
            return _line(problem, solution, line, at, clock)
    known = [u.unit_id for u in problem.thermal] + [u.unit_id for u in problem.renewables] + [s.storage_id for s in problem.storages]
    raise DispatchError(
        f"expected a unit of the fleet, found {unit_id}", f"Known are {', '.join(known[:20])}{' ...' if len(known) > 20 else ''}."
    )


def _rows(table: pd.DataFrame, key: str, name: str) -> pd.DataFrame:
    return table[table[key] == name].sort_values("period").reset_index(drop=True)


def _price(problem: DispatchProblem, solution: DispatchSolution, zone: str, at: int) -> tuple[float, float]:
    row = _rows(solution.prices, "zone", zone).iloc[at]
    return float(row["energy_eur_per_mwh"]) + 0.0, float(row["reserve_eur_per_mw_h"]) + 0.0  # never -0.00


def _when(problem: DispatchProblem, at: int, clock: ZoneInfo) -> str:
    name = "UTC" if clock.key == "UTC" else "local time"
    return f"{problem.interval_start[at].astimezone(clock):%Y-%m-%d %H:%M} {name} (period {at + 1})"


def _mw(problem: DispatchProblem, value: float) -> str:
    """A power or energy with as many digits as the system's size asks for."""
    most = float(problem.total_demand_mw.max(initial=0.0))
    return f"{value + 0.0:,.{3 if most < 10 else 1}f}"


def _marginal(problem: DispatchProblem, unit: ThermalUnit, power: float) -> tuple[float, float]:
    """Cost of the next MWh less and of the next MWh more, EUR/MWh; infinite where there is none."""
    mw, eur = (np.array(axis) for axis in zip(*unit.cost_curve, strict=True))
    co2 = unit.co2_t_per_mwh * problem.co2_price_eur_per_t
    if len(mw) < 2:
        return -np.inf, np.inf
    slope = np.diff(eur) / np.diff(mw) + co2
    lower = int(np.searchsorted(mw, power - NEAR_MW) - 1)
    upper = int(np.searchsorted(mw, power + NEAR_MW) - 1)
    return (slope[lower] if lower >= 0 else -np.inf), (slope[upper] if upper < len(slope) else np.inf)


def _thermal(problem: DispatchProblem, solution: DispatchSolution, unit: ThermalUnit, at: int, clock: ZoneInfo) -> list[str]:
    rows = _rows(solution.plan, "unit_id", unit.unit_id)
    on = rows["committed"].to_numpy() > 0
    power, reserve = float(rows["power_mw"][at]), float(rows["reserve_mw"][at])
    energy_price, reserve_price = _price(problem, solution, unit.zone, at)
    if not on[at]:
        return _why_off(problem, solution, unit, rows, at, clock)
    start, stop = _run(on, at)
    hours = problem.interval_hours
    since = f"since {_when(problem, start, clock)}" if start > 0 or not unit.initially_on else "since before the horizon"
    lines = [
        f"{unit.unit_id} runs in {_when(problem, at, clock)} at {_mw(problem, power)} MW and holds "
        f"{_mw(problem, reserve)} MW of reserve, {since}."
    ]
    if unit.must_run:
        lines.append("It is a must-run unit.")
    ran = (at - start + 1) * hours + (unit.initial_hours_in_state if start == 0 and unit.initially_on else 0.0)
    if ran <= unit.minimum_up_hours:
        lines.append(f"Minimum up time: {ran:g} h of at least {unit.minimum_up_hours:g} h, so it can't stop yet.")
    lines += _why_this_output(problem, unit, rows, at, energy_price)
    lines += _earnings(problem, solution, unit, start, stop)
    if reserve > NEAR_MW and reserve_price > 0.005:
        lines.append(
            f"Reserve is short: {reserve_price:.2f} EUR per MW and hour, so its {_mw(problem, reserve)} MW of reserve are worth "
            f"{reserve * reserve_price * hours:.0f} EUR here."
        )
    lines += _next_dearer(problem, solution, unit, at)
    return lines


def _run(on: np.ndarray, at: int) -> tuple[int, int]:
    """First and last interval of the stretch of equal state around an interval."""
    start = stop = at
    while start > 0 and on[start - 1] == on[at]:
        start -= 1
    while stop + 1 < len(on) and on[stop + 1] == on[at]:
        stop += 1
    return start, stop


def _why_this_output(problem: DispatchProblem, unit: ThermalUnit, rows: pd.DataFrame, at: int, price: float) -> list[str]:
    power, reserve = float(rows["power_mw"][at]), float(rows["reserve_mw"][at])
    before = float(rows["power_mw"][at - 1]) if at > 0 else unit.initial_power_mw
    was_on = bool(rows["committed"][at - 1]) if at > 0 else unit.initially_on
    after = float(rows["power_mw"][at + 1]) if at + 1 < len(rows) else None
    less, more = _marginal(problem, unit, power)
    up, down = unit.ramp_up_mw_per_hour * problem.interval_hours, unit.ramp_down_mw_per_hour * problem.interval_hours
    if power <= unit.minimum_mw + NEAR_MW:
        return [
            f"It stays at its minimum of {_mw(problem, unit.minimum_mw)} MW: the next MWh would cost {more:.2f} EUR, the price is "
            f"{price:.2f} EUR/MWh."
        ]
    if power >= unit.maximum_mw - NEAR_MW:
        return [
            f"It runs at its maximum of {_mw(problem, unit.maximum_mw)} MW: its last MWh costs {less:.2f} EUR, the price is "
            f"{price:.2f} EUR/MWh."
        ]
    if power + reserve >= unit.maximum_mw - NEAR_MW:
        return [f"Output and reserve together reach its maximum of {_mw(problem, unit.maximum_mw)} MW."]
    if was_on and power + reserve - before >= up - NEAR_MW:
        return [f"Its ramp of {_mw(problem, up)} MW per interval binds: it can't rise faster from {_mw(problem, before)} MW."]
    if was_on and before - power >= down - NEAR_MW:
        return [f"Its ramp of {_mw(problem, down)} MW per interval binds: it can't fall faster from {_mw(problem, before)} MW."]
    if after is not None and abs(after - power) >= min(up, down) - NEAR_MW:
        return [
            f"It prepares for {_mw(problem, after)} MW in the next interval within its ramp of "
            f"{_mw(problem, up if after > power else down)} MW."
        ]
    return [f"Its cost here is {less:.2f} EUR/MWh for the last and {more:.2f} EUR/MWh for the next MWh; the price is {price:.2f} EUR/MWh."]


def _energy_cost(problem: DispatchProblem, unit: ThermalUnit, power: np.ndarray) -> np.ndarray:
    mw, eur = (np.array(axis) for axis in zip(*unit.cost_curve, strict=True))
    return np.interp(power, mw, eur) + unit.co2_t_per_mwh * problem.co2_price_eur_per_t * power


@dataclass(frozen=True)
class Earnings:
    """What a run earns at the plan's prices, and what it costs; EUR."""

    energy_eur: float
    reserve_eur: float
    running_eur: float
    start_eur: float
    start_words: str

    @property
    def margin_eur(self) -> float:
        """What is left."""
        return self.energy_eur + self.reserve_eur - self.running_eur - self.start_eur


def earnings(problem: DispatchProblem, solution: DispatchSolution, unit: ThermalUnit, start: int, stop: int) -> Earnings:
    """Earnings of a unit over a run from one interval to another (numbers from 0, both included)."""
    rows = _rows(solution.plan, "unit_id", unit.unit_id)
    prices = _rows(solution.prices, "zone", unit.zone)
    span = slice(start, stop + 1)
    power, reserve = rows["power_mw"].to_numpy()[span], rows["reserve_mw"].to_numpy()[span]
    hours = problem.interval_hours
    energy = float(prices["energy_eur_per_mwh"].to_numpy()[span] @ power) * hours
    held = float(prices["reserve_eur_per_mw_h"].to_numpy()[span] @ reserve) * hours
    running = float(_energy_cost(problem, unit, power).sum()) * hours
    start_cost, why = _start_cost(problem, unit, rows, start)
    return Earnings(energy, held, running, start_cost, why)


def _earnings(problem: DispatchProblem, solution: DispatchSolution, unit: ThermalUnit, start: int, stop: int) -> list[str]:
    """What the run earns at the plan's prices against what it costs: an uncovered rest is the price of not having it at all."""
    own = earnings(problem, solution, unit, start, stop)
    margin, hours = own.margin_eur, problem.interval_hours
    sentence = (
        f"Over its run of {(stop - start + 1) * hours:g} h in the horizon it earns {own.energy_eur:,.0f} EUR with energy and "
        f"{own.reserve_eur:,.0f} EUR with reserve at the plan's prices, against {own.running_eur:,.0f} EUR of production "
        f"and {own.start_eur:,.0f} EUR {own.start_words}"
    )
    if margin >= 0:
        return [f"{sentence}: cheaper than doing without it by {margin:,.0f} EUR."]
    return [
        f"{sentence}: {-margin:,.0f} EUR stay uncovered. Commitments are whole: at these prices it is the fixed load, "
        f"reserve or minimum times of the run that need it."
    ]


def _start_cost(problem: DispatchProblem, unit: ThermalUnit, rows: pd.DataFrame, start: int) -> tuple[float, str]:
    if not bool(rows["started"][start]) or not unit.startup_costs:
        return 0.0, "for a start (none in this run)" if unit.startup_costs else "for its start"
    on = rows["committed"].to_numpy() > 0
    before = int(np.flatnonzero(on[:start])[-1]) + 1 if on[:start].any() else None
    hours_off = (
        (start - before) * problem.interval_hours if before is not None else start * problem.interval_hours + unit.initial_hours_in_state
    )
    if before is None and unit.initially_on:
        hours_off = start * problem.interval_hours
    cost = unit.startup_costs[0][1]
    for hours, price in unit.startup_costs:
        if hours_off >= hours - 1e-9:
            cost = price
    return cost, f"for its start after {hours_off:g} h off"


def _next_dearer(problem: DispatchProblem, solution: DispatchSolution, unit: ThermalUnit, at: int) -> list[str]:
    """The cheapest idle unit that could have taken over this one's output, by average cost at full load, start included."""
    table = solution.plan[(solution.plan["period"] == at + 1) & (solution.plan["unit_kind"] == "thermal")].set_index("unit_id")
    power = float(table.at[unit.unit_id, "power_mw"])
    own = float(_energy_cost(problem, unit, np.array([power]))[0]) / max(power, 1e-9)
    idle = []
    for other in problem.thermal:
        if (
            other.unit_id != unit.unit_id
            and other.zone == unit.zone
            and not table.at[other.unit_id, "committed"]
            and other.maximum_mw >= power > 0
        ):
            at_power = max(power, other.minimum_mw)
            idle.append((float(_energy_cost(problem, other, np.array([at_power]))[0]) / power, other))
    if not idle:
        return []
    average, other = min(idle, key=lambda pair: pair[0])
    start = other.startup_costs[0][1] if other.startup_costs else 0.0
    word = "cheaper than" if own <= average else "dearer in running cost than"
    return [
        f"At {_mw(problem, power)} MW it costs {own:.2f} EUR/MWh on average, {word} the next idle unit, {other.unit_id}: "
        f"{average:.2f} EUR/MWh plus a start from {start:,.0f} EUR."
    ]


def _why_off(
    problem: DispatchProblem, solution: DispatchSolution, unit: ThermalUnit, rows: pd.DataFrame, at: int, clock: ZoneInfo
) -> list[str]:
    energy_price, reserve_price = _price(problem, solution, unit.zone, at)
    on = rows["committed"].to_numpy() > 0
    start, stop = _run(on, at)
    hours = problem.interval_hours
    lines = [f"{unit.unit_id} is off in {_when(problem, at, clock)}."]
    if any(begin <= problem.interval_start[at] < end for begin, end in unit.outages):
        return [*lines, "It is on planned outage."]
    rested = (at - start + 1) * hours + (unit.initial_hours_in_state if start == 0 and not unit.initially_on else 0.0)
    if rested <= unit.minimum_down_hours:
        lines.append(f"Minimum down time: {rested:g} h of at least {unit.minimum_down_hours:g} h, so it can't start yet.")
    average = float(_energy_cost(problem, unit, np.array([unit.maximum_mw]))[0]) / max(unit.maximum_mw, 1e-9)
    start_cost = unit.startup_costs[0][1] if unit.startup_costs else 0.0
    lines.append(
        f"At full load it costs {average:.2f} EUR/MWh plus at least {start_cost:,.0f} EUR for a start; the price here is "
        f"{energy_price:.2f} EUR/MWh, "
        f"reserve is worth {reserve_price:.2f} EUR per MW and hour."
    )
    span = slice(start, stop + 1)
    prices = _rows(solution.prices, "zone", unit.zone)
    margin = (
        np.maximum(
            prices["energy_eur_per_mwh"].to_numpy()[span] * unit.maximum_mw
            - float(_energy_cost(problem, unit, np.array([unit.maximum_mw]))[0]),
            0,
        ).sum()
        * hours
    )
    lines.append(
        f"In its {(stop - start + 1) * hours:g} h of rest it could at best have earned {margin:,.0f} EUR above its running "
        f"cost, before the start."
    )
    return lines


def _renewable(
    problem: DispatchProblem, solution: DispatchSolution, unit_id: str, zone: str, cost: float, at: int, clock: ZoneInfo
) -> list[str]:
    row = _rows(solution.plan, "unit_id", unit_id).iloc[at]
    price, _ = _price(problem, solution, zone, at)
    curtailed = float(row["available_mw"] - row["power_mw"])
    lines = [
        f"{unit_id} feeds in {_mw(problem, row['power_mw'])} of {_mw(problem, row['available_mw'])} MW available in "
        f"{_when(problem, at, clock)}."
    ]
    if curtailed > NEAR_MW:
        lines.append(
            f"{_mw(problem, curtailed)} MW are curtailed: the price is {price:.2f} EUR/MWh, its own cost {cost:.2f} EUR/MWh; minimum "
            f"outputs, ramps or lines leave no room."
        )
    else:
        lines.append(f"All of it is used: its own cost is {cost:.2f} EUR/MWh, the price {price:.2f} EUR/MWh.")
    return lines


def _storage(problem: DispatchProblem, solution: DispatchSolution, storage_id: str, zone: str, at: int, clock: ZoneInfo) -> list[str]:
    rows = _rows(solution.storage, "storage_id", storage_id)
    row = rows.iloc[at]
    price, reserve_price = _price(problem, solution, zone, at)
    store = next(s for s in problem.storages if s.storage_id == storage_id)
    prices = _rows(solution.prices, "zone", zone)["energy_eur_per_mwh"].to_numpy()
    lines = [
        f"{storage_id} in {_when(problem, at, clock)}: charges {_mw(problem, row['charge_mw'])} MW, "
        f"discharges {_mw(problem, row['discharge_mw'])} MW, "
        f"ends at {_mw(problem, row['state_of_charge_mwh'])} of {_mw(problem, store.energy_mwh)} MWh, "
        f"holds {_mw(problem, row['reserve_mw'])} MW of reserve."
    ]
    losses = store.charge_efficiency * store.discharge_efficiency
    charging, discharging = rows["charge_mw"].to_numpy(), rows["discharge_mw"].to_numpy()
    if charging.sum() > NEAR_MW and discharging.sum() > NEAR_MW:
        paid, got = float(prices @ charging / charging.sum()), float(prices @ discharging / discharging.sum())
        lines.append(
            f"Over the horizon it buys at {paid:.2f} and sells at {got:.2f} EUR/MWh on average; a full turn pays from a "
            f"ratio of {1 / losses:.2f} "
            f"plus {store.wear_eur_per_mwh * (1 + 1 / losses):.2f} EUR/MWh of wear."
        )
    lines.append(f"The price here is {price:.2f} EUR/MWh, reserve is worth {reserve_price:.2f} EUR per MW and hour.")
    for word, limit, level in (
        ("full", store.energy_mwh, row["state_of_charge_mwh"]),
        ("at its minimum", store.minimum_mwh, row["state_of_charge_mwh"]),
    ):
        if abs(level - limit) < NEAR_MW:
            lines.append(f"It is {word} at the end of the interval.")
    if store.final_mwh is not None:
        lines.append(f"It must hold at least {_mw(problem, store.final_mwh)} MWh at the end of the horizon.")
    return lines


def _market(problem: DispatchProblem, solution: DispatchSolution, name: str, market: Market, at: int, clock: ZoneInfo) -> list[str]:
    rows = solution.exchange[(solution.exchange["source_id"] == name) & (solution.exchange["period"] == at + 1)]
    power = float(rows["power_mw"].sum())
    price, _ = _price(problem, solution, market.zone, at)
    buy, sell = (float(np.asarray(series)[at]) for series in (market.import_price_eur_per_mwh, market.export_price_eur_per_mwh))
    most_in, most_out = (float(np.asarray(series)[at]) for series in (market.import_limit_mw, market.export_limit_mw))
    word = "imports" if power > NEAR_MW else "exports" if power < -NEAR_MW else "trades nothing"
    much = f" {_mw(problem, abs(power))} MW" if abs(power) > NEAR_MW else ""
    lines = [f"{name} {word}{much} in {_when(problem, at, clock)}."]
    lines.append(f"A MWh costs {buy:.2f} EUR there and earns {sell:.2f} EUR; inside, the next MWh is worth {price:.2f} EUR.")
    for limit, reached, spread in (
        ("import", power >= most_in - NEAR_MW, price - buy),
        ("export", -power >= most_out - NEAR_MW, sell - price),
    ):
        most = most_in if limit == "import" else most_out
        if reached and most > NEAR_MW:
            lines.append(
                f"It is at its {limit} limit of {_mw(problem, most)} MW; one MW more would save {max(spread, 0.0):.2f} EUR an hour."
            )
    return lines


def _line(problem: DispatchProblem, solution: DispatchSolution, line: Line, at: int, clock: ZoneInfo) -> list[str]:
    row = _rows(solution.flows, "line_id", line.line_id).iloc[at]
    flow, limit = float(row["flow_mw"]), float(row["limit_mw"])
    ends = (line.from_zone, line.to_zone) if flow >= 0 else (line.to_zone, line.from_zone)
    (first, _), (second, _) = (_price(problem, solution, zone, at) for zone in ends)
    lines = [f"{line.line_id} carries {_mw(problem, abs(flow))} MW from {ends[0]} to {ends[1]} in {_when(problem, at, clock)}."]
    worth = f"a MWh is worth {first:.2f} EUR where it comes from and {second:.2f} EUR where it goes"
    if bool(row["is_binding"]) and second - first > 0.005:
        return [
            *lines,
            f"It is at its limit of {_mw(problem, limit)} MW: {worth}, so one MW more would save {second - first:.2f} EUR an hour.",
        ]
    if line.reactance_pu is not None and abs(second - first) > 0.005:
        return [*lines, f"Its limit is {_mw(problem, limit)} MW; {worth}: other lines of the loop are full."]
    return [*lines, f"Its limit of {_mw(problem, limit)} MW does not matter: {worth}."]


def _flexible(
    problem: DispatchProblem,
    solution: DispatchSolution,
    name: str,
    what: EnergyContract | InterruptibleLoad | ShiftableLoad,
    at: int,
    clock: ZoneInfo,
) -> list[str]:
    rows = _rows(solution.exchange, "source_id", name)
    power, energy = float(rows["power_mw"][at]), float(rows["power_mw"].abs().sum()) * problem.interval_hours
    price, _ = _price(problem, solution, what.zone, at)
    told = f"in {_when(problem, at, clock)}; the price here is {price:.2f} EUR/MWh."
    if isinstance(what, EnergyContract):
        lines = [f"{name} delivers {_mw(problem, power)} MW {told}", f"Its price is {what.price_eur_per_mwh:.2f} EUR/MWh."]
        if what.minimum_energy_mwh > 0:
            least = _mw(problem, what.minimum_energy_mwh)
            lines.append(f"{least} MWh are paid for in any case; the plan takes {_mw(problem, energy)} MWh.")
        return lines
    if isinstance(what, InterruptibleLoad):
        return [f"{name} is cut by {_mw(problem, power)} MW {told}", f"Cutting it costs {what.price_eur_per_mwh:.2f} EUR/MWh."]
    window = problem.window_of(what)
    prices = _rows(solution.prices, "zone", what.zone)["energy_eur_per_mwh"].to_numpy()[window.start : window.stop]
    lines = [f"{name} draws {_mw(problem, -power)} MW {told}"]
    if len(prices):
        lines.append(
            f"It needs {_mw(problem, what.energy_mwh)} MWh within its window of {len(window) * problem.interval_hours:g} h, "
            f"in which prices run from {prices.min():.2f} to {prices.max():.2f} EUR/MWh."
        )
    return lines
