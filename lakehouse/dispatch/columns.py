"""Prices settled by a linear programme over the units' own schedules, for fleets whose relaxation takes longer than there is time.

The subgradient steps of `pricing` crawl near the top. Here a master programme mixes the schedules that units chose at earlier prices so
that balance and reserve hold (Dantzig & Wolfe 1960); its duals are the next prices, kept within a box around the best ones (Marsten,
Hogan & Blankenship 1975), at which the units choose anew. Two results matter: prices near the best there are, and a mix in which all
but few units have one schedule, which tells where a plan is settled and where it is open. `exact_bound` then proves the bound of such
prices.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from lakehouse.dispatch.algebra import Array, SparseProgram, highs_with
from lakehouse.dispatch.pricing import Prices
from lakehouse.dispatch.ramped import RampedRuns
from lakehouse.dispatch.runs import PricedUnits, Schedules

# Schedules at these changes of the first prices fill the first master programme.
FIRST_SHARES = (0.0, 0.05, -0.05, 0.02, -0.02, 0.1, -0.1, 0.2, -0.2)
FIRST_DRAWS = 12
FIRST_BOX_SHARE = 0.15  # of the mean price
CLOSE_ENOUGH = 1e-5
LEAST_GAIN_EUR = 0.5
SECONDS_PER_UNIT = 3.0
PRIMAL_SIMPLEX = 4


@dataclass(frozen=True)
class Settled:
    """Prices and the schedules chosen near them.

    Args:
        energy, reserve: prices, (zones, horizon) and (horizon,).
        value: what the units' schedules and everything else cost at these prices; a bound but for the levels that `ramped` plans on.
        bound: a proved bound.
        unit, committed: of each schedule, shapes (schedules,) and (schedules, horizon).
        share: of each schedule in the mix that meets balance and reserve.
        dearer: how much dearer each schedule is than its unit's best at these prices, EUR.
        ramped: the units whose ramps bind.
    """

    energy: Array
    reserve: Array
    value: float
    bound: float
    unit: Array
    committed: Array
    share: Array
    dearer: Array
    ramped: RampedRuns

    def open_within(self, eur: float, units: int) -> tuple[Array, Array]:
        """Commitments on which all schedules that are at most so much dearer agree, and where they do not, both (units, horizon)."""
        near = (self.share > 1e-6) | (self.dearer <= eur)
        shape = (units, self.committed.shape[1])
        most, least = np.zeros(shape), np.ones(shape)
        np.maximum.at(most, self.unit[near], self.committed[near])
        np.minimum.at(least, self.unit[near], self.committed[near])
        mean = np.zeros(shape)
        np.add.at(mean, self.unit, self.share[:, None] * self.committed)
        return np.where(most == least, most, np.rint(mean)), most != least


def settle(prices: Prices, energy: Array, reserve: Array, seconds: float, tell: Callable[[float], None]) -> Settled:
    """Settles prices from some to begin with: first as if ramps did not bind within a run, which is quick, then with them.

    Args:
        prices: the game.
        energy, reserve: prices to begin with.
        seconds: at most about this long.
        tell: told every better bound.
    """
    ramped = RampedRuns(prices.runs)
    begun = time.perf_counter()
    settled = _settle(_Game(prices, ramped, keeps_ramps=False), energy, reserve, (0.35 if len(ramped.members) else 1.0) * seconds, tell)
    if len(ramped.members):
        left = seconds - (time.perf_counter() - begun)
        settled = _settle(_Game(prices, ramped, keeps_ramps=True), settled.energy, settled.reserve, left, tell)
    return settled


def _settle(game: _Game, energy: Array, reserve: Array, seconds: float, tell: Callable[[float], None]) -> Settled:
    """Settles prices in one game.

    Args:
        game: the game.
        energy, reserve: prices to begin with.
        seconds: at most about this long; the first two rounds are always played.
        tell: told every better bound.
    """
    begun = time.perf_counter()
    draw = np.random.default_rng(1)
    scale = float(np.abs(energy).mean()) + 1e-6
    best = -np.inf
    for share in FIRST_SHARES:
        value = game.play(energy + share * np.maximum(np.abs(energy), 0.3 * scale), reserve * (1 + share), tell)
        best = value if share == 0.0 else best
    for _ in range(FIRST_DRAWS):
        swing = draw.standard_normal(energy.shape) * np.maximum(0.1 * np.abs(energy), 0.06 * scale)
        game.play(energy + swing, np.clip(reserve + 0.02 * scale * draw.standard_normal(reserve.shape), 0.0, None), tell)
    master = _Master(game)
    box, rounds = FIRST_BOX_SHARE * scale, 0
    tried_energy, tried_reserve = energy, reserve
    while True:
        cost, used = master.solve(energy, reserve, box)
        tried_energy, tried_reserve = master.prices()
        value = game.play(tried_energy, tried_reserve, tell)
        master.add_new()
        rounds += 1
        better = value > best + 1e-6 * abs(best)
        if value > best:
            best, energy, reserve = value, tried_energy, tried_reserve
        done = cost - best <= CLOSE_ENOUGH * abs(best) and not used
        if done or (rounds >= 2 and time.perf_counter() - begun > seconds) or box < 1e-4 * scale:
            break
        box = min(1.3 * box, 20 * scale) if better else 0.5 * box
    unit, committed = game.pool()
    mixed = np.zeros(len(unit))
    mixed[: len(master.share)] = master.share
    return Settled(energy, reserve, best, game.bound, unit, committed, mixed, game.dearer(energy, reserve), game.ramped)


class _Game:
    """Plays prices and keeps every schedule that was ever chosen."""

    def __init__(self, prices: Prices, ramped: RampedRuns, *, keeps_ramps: bool) -> None:
        self.prices, self.ramped, self.keeps_ramps = prices, ramped, keeps_ramps
        self.known: set[tuple[int, bytes, bytes, bytes]] = set()
        self.unit: list[int] = []
        self.cost: list[float] = []
        self.power: list[Array] = []
        self.held: list[Array] = []
        self.committed: list[Array] = []
        self.bound = -np.inf

    def play(self, energy: Array, reserve: Array, tell: Callable[[float], None]) -> float:
        """The value of prices, after the units have chosen at them."""
        prices, by_unit = self.prices, energy[self.prices.units.zone]
        own = prices.runs.schedules(by_unit, reserve)
        if own is None:
            return -np.inf
        cost, _, _ = prices.rest.answer(energy, reserve)
        rest = cost + prices.rest.paid(energy, reserve)
        bound = float(own.cost.sum()) + rest
        if bound > self.bound:
            self.bound = bound
            tell(bound)
        if self.keeps_ramps:
            self.ramped.improve(own, by_unit, reserve)
        self._keep(own, by_unit, reserve)
        return float(own.cost.sum()) + rest

    def _keep(self, own: Schedules, energy: Array, reserve: Array) -> None:
        cost = own.cost + (own.power * energy).sum(axis=1) + own.held @ reserve
        on, power, held = own.committed.astype(bool), np.round(own.power, 3).astype(np.float32), np.round(own.held, 3).astype(np.float32)
        for i in range(len(cost)):
            key = (i, on[i].tobytes(), power[i].tobytes(), held[i].tobytes())
            if key not in self.known:
                self.known.add(key)
                self.unit.append(i)
                self.cost.append(float(cost[i]))
                self.power.append(own.power[i])
                self.held.append(own.held[i])
                self.committed.append(on[i])

    def pool(self) -> tuple[Array, Array]:
        """Unit and commitments of every schedule."""
        return np.array(self.unit, int), np.stack(self.committed).astype(float)

    def dearer(self, energy: Array, reserve: Array) -> Array:
        """How much dearer each schedule is at prices than its unit's best known."""
        unit = np.array(self.unit, int)
        by_unit = energy[self.prices.units.zone]
        net = np.array(self.cost) - (np.stack(self.power) * by_unit[unit]).sum(axis=1) - np.stack(self.held) @ reserve
        best = np.full(len(by_unit), np.inf)
        np.minimum.at(best, unit, net)
        return net - best[unit]


class _Master:
    """The programme that mixes schedules: balance and reserve with a box around their prices, one unit of schedules for each unit, and
    the rows of everything that is no unit."""

    def __init__(self, game: _Game) -> None:
        prices = game.prices
        rest, self.game, self.zone = prices.rest, game, prices.units.zone
        self.shape, self.units = rest.demand.shape, len(prices.units.minimum)
        self.balances, self.reserves = rest.demand.size, len(prices.units.reserve_rows)
        self.market = self.balances + self.reserves
        own = rest.program
        boxed = 2 * self.market
        columns = len(rest.cost) + boxed
        self.first_box, self.first_schedule = len(rest.cost), columns
        slack = np.arange(self.market)
        supply, holding = rest.supply, rest.holding
        parts = [
            (supply[0], supply[1], supply[2]),
            (self.balances + holding[0], holding[1], holding[2]) if self.reserves else (np.zeros(0, int),) * 3,
            (slack, self.first_box + slack, np.ones(self.market)),
            (slack, self.first_box + self.market + slack, -np.ones(self.market)),
        ]
        rows, row_lower, row_upper = self.market, [rest.demand.ravel()], [rest.demand.ravel()]
        if self.reserves:
            row_lower, row_upper = [*row_lower, rest.requirement], [*row_upper, rest.requirement]
        if own is not None:
            parts.append((rows + np.repeat(np.arange(own.n_rows), np.diff(own.row_start)), own.row_columns, own.row_values))
            row_lower, row_upper = [*row_lower, own.row_lower], [*row_upper, own.row_upper]
            rows += own.n_rows
        self.first_unit = rows
        row_lower, row_upper = [*row_lower, np.ones(self.units)], [*row_upper, np.ones(self.units)]
        row, column, value = (np.concatenate([part[k] for part in parts]) for k in range(3))
        order = np.argsort(row, kind="stable")
        counts = np.bincount(row.astype(int), minlength=rows + self.units)
        start = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
        program = SparseProgram(
            np.concatenate([rest.cost, np.zeros(boxed)]),
            np.concatenate([rest.lower, np.zeros(boxed)]),
            np.concatenate([rest.upper, np.full(boxed, np.inf)]),
            np.zeros(columns, bool),
            np.concatenate(row_lower),
            np.concatenate(row_upper),
            start,
            column[order].astype(np.int32),
            value[order].astype(float),
        )
        self.highs: Any = highs_with(program, threads=1, solver="simplex")
        self.count = 0
        self.share = self.duals = np.zeros(0)
        self.add_new()

    def add_new(self) -> None:
        """Adds the schedules that are not there yet."""
        game = self.game
        new = slice(self.count, len(game.unit))
        unit = np.array(game.unit[new], int)
        if not len(unit):
            return
        horizon = self.shape[1]
        power, held = np.stack(game.power[new]), np.stack(game.held[new])
        parts = (
            [(np.nonzero(power), self.zone[unit]), (np.nonzero(held), None)] if self.reserves else [(np.nonzero(power), self.zone[unit])]
        )
        owner, row, value = [np.arange(len(unit))], [self.first_unit + unit], [np.ones(len(unit))]
        for (which, hour), zone in parts:
            owner.append(which)
            row.append(zone[which] * horizon + hour if zone is not None else self.balances + hour)
            value.append(power[which, hour] if zone is not None else held[which, hour])
        of, at, amount = np.concatenate(owner), np.concatenate(row), np.concatenate(value)
        order = np.argsort(of, kind="stable")
        start = np.searchsorted(of[order], np.arange(len(unit))).astype(np.int32)
        none, free = np.zeros(len(unit)), np.full(len(unit), np.inf)
        self.highs.addCols(
            len(unit), np.array(game.cost[new]), none, free, len(at), start, at[order].astype(np.int32), amount[order].astype(float)
        )
        self.count = len(game.unit)

    def solve(self, energy: Array, reserve: Array, box: float) -> tuple[float, bool]:
        """Cost of the best mix with prices in a box, and whether the box was leant on."""
        centre = np.concatenate([energy.ravel(), reserve[: self.reserves]])
        lowest = centre - box
        lowest[self.balances :] = np.maximum(lowest[self.balances :], 0.0)
        where = np.arange(self.first_box, self.first_box + 2 * self.market, dtype=np.int32)
        self.highs.changeColsCost(len(where), where, np.concatenate([centre + box, -lowest]))
        self.highs.run()
        self.highs.setOptionValue("simplex_strategy", PRIMAL_SIMPLEX)  # the last mix stays possible with new schedules and new costs
        solution = self.highs.getSolution()
        values, self.duals = np.array(solution.col_value), np.array(solution.row_dual)
        self.share = values[self.first_schedule :]
        slack = values[self.first_box : self.first_schedule].reshape(2, self.market)
        paid = slack * np.stack([np.ones(self.market), np.concatenate([np.ones(self.balances), lowest[self.balances :] > 0])])
        return float(self.highs.getInfo().objective_function_value), bool(paid.max(initial=0.0) > 1e-3)

    def prices(self) -> tuple[Array, Array]:
        """Duals of balance and reserve."""
        energy = self.duals[: self.balances].reshape(self.shape)
        reserve = np.zeros(self.shape[1])
        if self.reserves:
            reserve = np.maximum(self.duals[self.balances : self.market], 0.0)
        return energy, reserve


def exact_bound(
    prices: Prices, settled: Settled, program: SparseProgram, commitment: Array, seconds: float, tell: Callable[[float], None]
) -> float:
    """The bound of settled prices with ramps: each unit whose ramps cost something is solved for itself.

    Args:
        prices: the game.
        settled: prices to prove.
        program: the whole programme.
        commitment: columns of the commitment, start and stop variables, shape (3, units, horizon).
        seconds: at most about this long.
        tell: told every better bound.

    Returns:
        The bound when the time was up or all was done.
    """
    begun = time.perf_counter()
    energy, reserve, units = settled.energy, settled.reserve, prices.units
    by_unit = energy[units.zone]
    relaxed = prices.runs.schedules(by_unit, reserve)
    if relaxed is None:
        return settled.bound
    without = relaxed.cost.copy()
    cost, _, _ = prices.rest.answer(energy, reserve)
    bound = float(without.sum()) + cost + prices.rest.paid(energy, reserve)
    settled.ramped.improve(relaxed, by_unit, reserve)
    gain = relaxed.cost - without
    row_price = np.zeros(program.n_rows)
    row_price[units.balance_rows.ravel()] = energy.ravel()
    if len(units.reserve_rows):
        row_price[units.reserve_rows] = reserve
    parts = _UnitPrograms(program, commitment, row_price, units)
    tell(bound)
    if not parts.sound:
        return bound
    told = begun
    for i in np.argsort(-gain):
        if gain[i] < LEAST_GAIN_EUR or time.perf_counter() - begun > seconds:
            break
        bound += max(0.0, parts.least_cost(int(i)) - float(without[i]))
        if time.perf_counter() - told > 1.0:
            told = time.perf_counter()
            tell(bound)
    tell(bound)
    return bound


class _UnitPrograms:
    """The whole programme's parts that belong to one unit each, with balance and reserve paid at prices."""

    def __init__(self, program: SparseProgram, commitment: Array, row_price: Array, priced: PricedUnits) -> None:
        self.program = program
        units = commitment.shape[1]
        column, value = program.row_columns, program.row_values
        row = np.repeat(np.arange(program.n_rows), np.diff(program.row_start))
        self.cost = program.cost - np.bincount(column, value * row_price[row], program.n_columns)
        # a row that holds anything else than units, or is paid for, belongs to none of them
        thermal, shared = np.zeros(program.n_columns, bool), np.zeros(program.n_rows, bool)
        thermal[priced.columns] = True
        shared[row[~thermal[column]]] = True
        shared[priced.balance_rows.ravel()] = shared[priced.reserve_rows] = True
        owner = np.full(program.n_columns, -1)
        for kind in commitment:
            owner[kind] = np.arange(units)[:, None]
        for _ in range(2):  # what stands in a row beside one unit's commitments is that unit's; then what stands beside its output
            known = owner[column] >= 0
            highest, lowest = np.full(program.n_rows, -1), np.full(program.n_rows, units)
            np.maximum.at(highest, row[known], owner[column[known]])
            np.minimum.at(lowest, row[known], owner[column[known]])
            self.row_owner = np.where((highest == lowest) & ~shared, highest, -1)
            mine = self.row_owner[row] >= 0
            owner[column[mine]] = self.row_owner[row[mine]]
        lost = priced.columns[owner[priced.columns] < 0]
        can_be = (program.lower[lost] != 0) | (program.upper[lost] != 0)
        self.sound = not (can_be & (self.cost[lost] != 0)).any()
        self.columns, self.rows = (np.argsort(x, kind="stable") for x in (owner, self.row_owner))
        self.column_start = np.searchsorted(owner[self.columns], np.arange(units + 1))
        self.row_start = np.searchsorted(self.row_owner[self.rows], np.arange(units + 1))

    def least_cost(self, unit: int) -> float:
        """A proved lower bound of what the unit costs at the prices, EUR."""
        program = self.program
        columns = self.columns[self.column_start[unit] : self.column_start[unit + 1]]
        rows = self.rows[self.row_start[unit] : self.row_start[unit + 1]]
        first, last = program.row_start[rows], program.row_start[rows + 1]
        entries = np.concatenate([np.arange(a, b) for a, b in zip(first, last, strict=True)]) if len(rows) else np.zeros(0, int)
        highs = highs_with(
            SparseProgram(
                self.cost[columns],
                program.lower[columns],
                program.upper[columns],
                program.is_integer[columns],
                program.row_lower[rows],
                program.row_upper[rows],
                np.concatenate([[0], np.cumsum(last - first)]).astype(np.int32),
                np.searchsorted(columns, program.row_columns[entries]).astype(np.int32),
                program.row_values[entries],
            ),
            threads=1,
            mip_rel_gap=1e-6,
            time_limit=SECONDS_PER_UNIT,
        )
        highs.run()
        bound = highs.getInfo().mip_dual_bound
        return float(bound) if np.isfinite(bound) else -np.inf
