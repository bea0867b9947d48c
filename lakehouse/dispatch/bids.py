"""Bids for the day-ahead market: what the plan would buy or sell at each price, as monotone price-quantity pairs.

The plan's commitments and stored energy set the stage; each pair comes from what running units and storage could still do at that price.
Writing them in an exchange's own file format is not done here.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from lakehouse.dispatch.fleet import DispatchProblem, ThermalUnit
from lakehouse.dispatch.solution import DispatchSolution
from lakehouse.errors import DispatchError


def market_bids(
    problem: DispatchProblem,
    solution: DispatchSolution,
    prices_eur_per_mwh: Sequence[Sequence[float]] | np.ndarray,
    zone: str | None = None,
    *,
    import_margin_eur_per_mwh: float = 0.0,
    export_margin_eur_per_mwh: float = 0.0,
) -> pd.DataFrame:
    """Price-quantity pairs by interval: positive quantities are offered for sale, negative ones are bought.

    With commitments as planned, the marginal costs of the running units between their limits (less the reserve they hold) and the
    storages' opportunity cost give the net position that is best at each price. A storage's opportunity cost is its plan's own: it
    sells from the lowest price at which the plan discharges it, and buys up to the highest at which the plan charges it.

    Args:
        problem: fleet and horizon, with one market in the zone.
        solution: its plan.
        prices_eur_per_mwh: price points by interval, e.g. the price forecast's quantiles, shape (intervals, points).
        zone: whose market; None takes the only one.
        import_margin_eur_per_mwh, export_margin_eur_per_mwh: what a bought MWh costs above the market's price, and a sold one
            earns below it (fees, grid use, losses).

    Returns:
        interval_start, period, step (from 1), price_eur_per_mwh (strictly rising), quantity_mw (never falling), within the connection's
        limits.

    Raises:
        DispatchError: no market there, or price points of the wrong shape.
    """
    markets = [market for market in problem.markets if zone is None or market.zone == zone]
    if len(markets) != 1:
        raise DispatchError(
            f"expected one market to bid at{f' in zone {zone}' if zone else ''}, found {len(markets)}",
            "Name the zone, or give the problem a market.",
        )
    market = markets[0]
    points = np.asarray(prices_eur_per_mwh, float)
    if points.ndim != 2 or len(points) != problem.horizon or np.isnan(points).any():
        raise DispatchError(
            f"expected price points for each of {problem.horizon} intervals, found an array of shape {points.shape}",
            "Give one row of prices per interval.",
        )
    planned = _planned_position(problem, solution, market.zone)
    offers = _stage(problem, solution, market.zone)
    rows = []
    for t in range(problem.horizon):
        worth = np.array([price for price, *_ in offers[t]])
        grid = np.unique(np.round(np.concatenate([points[t], worth - import_margin_eur_per_mwh, worth + export_margin_eur_per_mwh]), 2))
        grid = grid[(grid >= np.round(points[t].min(), 2)) & (grid <= np.round(points[t].max(), 2))]
        # What a MWh is worth inside lies between what buying it costs and what selling it earns.
        bought = np.array([planned[t] + sum(_response(price + import_margin_eur_per_mwh, offer) for offer in offers[t]) for price in grid])
        sold = np.array([planned[t] + sum(_response(price - export_margin_eur_per_mwh, offer) for offer in offers[t]) for price in grid])
        quantity = np.where(bought < 0, bought, np.maximum(sold, 0.0))
        quantity = np.clip(np.maximum.accumulate(quantity), -np.asarray(market.import_limit_mw)[t], np.asarray(market.export_limit_mw)[t])
        keep = np.concatenate([[True], np.diff(quantity) > 1e-6])
        for step, (price, mw) in enumerate(zip(grid[keep], quantity[keep], strict=True), start=1):
            rows.append((problem.interval_start[t], t + 1, step, float(price), float(np.round(mw, 3) + 0.0)))
    table = pd.DataFrame(rows, columns=["interval_start", "period", "step", "price_eur_per_mwh", "quantity_mw"])
    table["interval_start"] = pd.to_datetime(table["interval_start"], utc=True).dt.as_unit("us")
    return table


# an offer: (price, MW more above that price, MW less below it), counted from the plan
Offer = tuple[float, float, float]


def _response(price: float, offer: Offer) -> float:
    at, more, less = offer
    return more if price >= at - 1e-9 else -less


def _planned_position(problem: DispatchProblem, solution: DispatchSolution, zone: str) -> np.ndarray:
    names = {"market" if len(problem.markets) == 1 else f"market {zone}"}
    rows = solution.exchange[solution.exchange["source_id"].isin(names) & solution.exchange["source_kind"].isin(["import", "export"])]
    return -rows.groupby("period")["power_mw"].sum().reindex(range(1, problem.horizon + 1), fill_value=0.0).to_numpy()


def _stage(problem: DispatchProblem, solution: DispatchSolution, zone: str) -> list[list[Offer]]:
    offers: list[list[Offer]] = [[] for _ in range(problem.horizon)]
    plan = {name: rows.sort_values("period") for name, rows in solution.plan.groupby("unit_id")}
    for unit in problem.thermal:
        if unit.zone == zone:
            _offer_unit(problem, unit, plan[unit.unit_id], offers)
    stored = {name: rows.sort_values("period") for name, rows in solution.storage.groupby("storage_id")}
    prices = solution.prices[solution.prices["zone"] == zone].sort_values("period")["energy_eur_per_mwh"].to_numpy()
    for store in problem.storages:
        if store.zone == zone:
            _offer_storage(stored[store.storage_id], prices, offers)
    return offers


def _offer_unit(problem: DispatchProblem, unit: ThermalUnit, rows: pd.DataFrame, offers: list[list[Offer]]) -> None:
    """Each cost segment of a running unit is worth running from its marginal cost on."""
    points = np.asarray(unit.cost_curve, float)
    slopes = np.diff(points[:, 1]) / np.diff(points[:, 0]) + unit.co2_t_per_mwh * problem.co2_price_eur_per_t
    for t, row in enumerate(rows.itertuples()):
        if not row.committed:
            continue
        ceiling, floor = unit.maximum_mw - row.reserve_mw, unit.minimum_mw + row.reserve_down_mw
        for low, high, slope in zip(points[:-1, 0], points[1:, 0], slopes, strict=True):
            low, high = max(low, floor), min(high, ceiling)
            if high > low:
                used = min(max(row.power_mw - low, 0.0), high - low)
                offers[t].append((float(np.round(slope, 2)), high - low - used, used))


def _offer_storage(rows: pd.DataFrame, prices: np.ndarray, offers: list[list[Offer]]) -> None:
    """Planned charging is given up above the highest price it was planned at, planned discharging below the lowest."""
    charging, discharging = rows["charge_mw"].to_numpy(), rows["discharge_mw"].to_numpy()
    if charging.max(initial=0) > 1e-6:
        dearest = float(np.round(prices[charging > 1e-6].max(), 2))
        for t in np.flatnonzero(charging > 1e-6):
            offers[t].append((dearest + 0.01, float(charging[t]), 0.0))
    if discharging.max(initial=0) > 1e-6:
        cheapest = float(np.round(prices[discharging > 1e-6].min(), 2))
        for t in np.flatnonzero(discharging > 1e-6):
            offers[t].append((cheapest, 0.0, float(discharging[t])))
