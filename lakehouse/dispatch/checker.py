"""Is a plan right? A plain judge that shares nothing with the optimiser but the fleet's description.

It walks through every unit and interval with the operator's rules as they are spoken, re-computes the cost, and names each breach with
unit, interval and amount. Slow and obvious on purpose; it knows no matrix and no variable of the model.
"""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from lakehouse.dispatch.fleet import DispatchProblem, Storage, ThermalUnit
from lakehouse.errors import DispatchError

TOLERANCE_MW = 1e-3
COST_TOLERANCE = 1e-5


@dataclass(frozen=True)
class Breach:
    """One rule broken in one place.

    Args:
        rule: short name of the rule.
        where: unit, storage, load, line or zone.
        period: interval number from 1; 0 for the whole horizon.
        amount: by how much, in `unit`.
        unit: MW, MWh, h, EUR or 1.
        text: the sentence for the operator.
    """

    rule: str
    where: str
    period: int
    amount: float
    unit: str
    text: str


@dataclass
class CheckReport:
    """The verdict on a plan.

    Attributes:
        breaches: everything that is wrong, in the order it was found.
        objective_eur: the plan's cost, computed here.
        cost_eur: the same by part.
        unserved_mwh, reserve_shortfall_mwh: what the plan leaves unmet, priced in the objective.
    """

    breaches: list[Breach] = field(default_factory=list)
    objective_eur: float = 0.0
    cost_eur: dict[str, float] = field(default_factory=dict)
    unserved_mwh: float = 0.0
    reserve_shortfall_mwh: float = 0.0

    @property
    def ok(self) -> bool:
        """True if no rule is broken."""
        return not self.breaches

    def as_dict(self) -> dict[str, Any]:
        """The report for machines."""
        return {
            "ok": self.ok,
            "objective": self.objective_eur,
            "cost": self.cost_eur,
            "unserved_mwh": self.unserved_mwh,
            "reserve_shortfall_mwh": self.reserve_shortfall_mwh,
            "breaches": [vars(breach) for breach in self.breaches],
        }

    def lines(self, most: int = 50) -> list[str]:
        """The report for a terminal."""
        verdict = "The plan keeps every rule." if self.ok else f"The plan breaks {len(self.breaches)} rule{'s' * (len(self.breaches) > 1)}:"
        shown = [f"- {breach.rule}: {breach.text}" for breach in self.breaches[:most]]
        rest = [f"... and {len(self.breaches) - most} more"] if len(self.breaches) > most else []
        cost = [
            f"cost {self.objective_eur:,.2f} EUR: "
            + ", ".join(f"{name} {value:,.2f}" for name, value in self.cost_eur.items() if abs(value) > 0.005)
        ]
        unmet = []
        if self.unserved_mwh > TOLERANCE_MW or self.reserve_shortfall_mwh > TOLERANCE_MW:
            unmet = [f"unmet, at its price: {self.unserved_mwh:.3f} MWh unserved, {self.reserve_shortfall_mwh:.3f} MWh of reserve"]
        return [verdict, *shown, *rest, *cost, *unmet]


def check_plan(
    problem: DispatchProblem,
    plan: pd.DataFrame,
    storage: pd.DataFrame | None = None,
    exchange: pd.DataFrame | None = None,
    flows: pd.DataFrame | None = None,
    violations: pd.DataFrame | None = None,
    claimed_objective_eur: float | None = None,
) -> CheckReport:
    """Checks a plan against every rule and computes its cost.

    Args:
        problem: fleet and horizon.
        plan: unit_id, period (from 1), committed, started, stopped, power_mw, reserve_mw and optionally reserve_down_mw.
        storage, exchange, flows: the other tables of a plan, where the problem has such things.
        violations: what the plan admits not to meet; shortfalls beyond it are breaches, shortfalls within it are priced.
        claimed_objective_eur: cost claimed by whoever made the plan; a different cost is a breach.

    Returns:
        The report; `report.ok` is the verdict.
    """
    return _Check(problem, plan, storage, exchange, flows, violations).run(claimed_objective_eur)


class _Check:
    def __init__(
        self,
        problem: DispatchProblem,
        plan: pd.DataFrame,
        storage: pd.DataFrame | None,
        exchange: pd.DataFrame | None,
        flows: pd.DataFrame | None,
        violations: pd.DataFrame | None,
    ) -> None:
        self.problem = problem
        self.report = CheckReport()
        self.cost: dict[str, float] = defaultdict(float)
        self.hours = problem.interval_hours
        self.n = len(problem.interval_start)
        self.units = self._series(plan, "unit_id", [u.unit_id for u in problem.thermal] + [u.unit_id for u in problem.renewables], "unit")
        self.stores = self._series(storage, "storage_id", [s.storage_id for s in problem.storages], "storage")
        self.flows = self._series(flows, "line_id", [line.line_id for line in problem.lines], "line")
        self.exchange = self._exchange(exchange)
        self.admitted: dict[tuple[str, str], np.ndarray] = defaultdict(lambda: np.zeros(self.n))
        if violations is not None:
            for row in violations.itertuples():
                self.admitted[(row.kind, row.where)][int(row.period) - 1] += float(row.amount)
        self.supply = {zone: np.zeros(self.n) for zone in problem.zones}
        self.reserve_up = np.zeros(self.n)
        self.reserve_down = np.zeros(self.n)

    # -------------------------------------------------------------- reading

    def _series(self, table: pd.DataFrame | None, key: str, expected: list[str], word: str) -> dict[str, dict[str, np.ndarray]]:
        found: dict[str, dict[str, np.ndarray]] = {}
        if table is not None and len(table):
            missing = {key, "period"} - set(table.columns)
            if missing:
                raise DispatchError(
                    f"the plan's {word} table has no column {', '.join(sorted(missing))}", "Write the columns of the plan's description."
                )
            for name, rows in table.groupby(key, sort=False):
                if name not in set(expected):
                    self._breach("unknown name", str(name), 0, 1, "1", f"{word} {name} is in the plan and not in the fleet")
                    continue
                periods = rows["period"].to_numpy()
                if len(periods) != self.n or sorted(periods.tolist()) != list(range(1, self.n + 1)):
                    self._breach(
                        "missing interval",
                        str(name),
                        0,
                        abs(self.n - len(periods)),
                        "1",
                        f"{word} {name} has {len(set(periods.tolist()))} of {self.n} intervals, each wanted once",
                    )
                order = np.argsort(periods, kind="stable")
                numbers = rows.select_dtypes("number")
                columns = {}
                for column in numbers.columns:
                    values = np.zeros(self.n)
                    inside = (periods[order] >= 1) & (periods[order] <= self.n)
                    values[periods[order][inside].astype(int) - 1] = numbers[column].to_numpy(float)[order][inside]
                    if np.isnan(values).any():
                        at = int(np.flatnonzero(np.isnan(values))[0])
                        self._breach("missing value", str(name), at + 1, 1, "1", f"{word} {name} has no {column} in period {at + 1}")
                        values = np.nan_to_num(values)
                    columns[str(column)] = values
                found[str(name)] = columns
        for name in expected:
            if name not in found:
                self._breach("missing name", name, 0, 1, "1", f"{word} {name} is in the fleet and not in the plan")
                found[name] = {}
        return found

    def _exchange(self, table: pd.DataFrame | None) -> dict[tuple[str, str], dict[str, np.ndarray]]:
        found: dict[tuple[str, str], dict[str, np.ndarray]] = defaultdict(dict)
        if table is None:
            return found
        for row in table.itertuples():
            series = found[(row.source_kind, row.source_id)]
            for column in ("power_mw", "reserve_mw"):
                series.setdefault(column, np.zeros(self.n))[int(row.period) - 1] = getattr(row, column, 0.0)
        return found

    def _of(self, series: dict[str, np.ndarray], name: str) -> np.ndarray:
        return series.get(name, np.zeros(self.n))

    def _breach(self, rule: str, where: str, period: int, amount: float, unit: str, text: str) -> None:
        self.report.breaches.append(Breach(rule, where, period, float(amount), unit, text))

    def _at_most(self, rule: str, where: str, at: int, value: float, limit: float, what: str, unit: str = "MW") -> None:
        if value > limit + TOLERANCE_MW:
            self._breach(
                rule,
                where,
                at + 1,
                value - limit,
                unit,
                f"{where}, period {at + 1}: {what} is {value:.3f} {unit}, at most {limit:.3f} allowed",
            )

    def _at_least(self, rule: str, where: str, at: int, value: float, limit: float, what: str, unit: str = "MW") -> None:
        if value < limit - TOLERANCE_MW:
            self._breach(
                rule,
                where,
                at + 1,
                limit - value,
                unit,
                f"{where}, period {at + 1}: {what} is {value:.3f} {unit}, at least {limit:.3f} required",
            )

    # -------------------------------------------------------------- the rules

    def run(self, claimed: float | None) -> CheckReport:
        for unit in self.problem.thermal:
            self._thermal(unit, self.units[unit.unit_id])
        self._renewables()
        for store in self.problem.storages:
            self._storage(store, self.stores[store.storage_id])
        self._loads()
        self._trade()
        self._lines()
        self._system()
        self.report.cost_eur = dict(self.cost)
        self.report.objective_eur = sum(self.cost.values())
        if claimed is not None and abs(claimed - self.report.objective_eur) > max(0.01, COST_TOLERANCE * abs(claimed)):
            off = claimed - self.report.objective_eur
            self._breach("claimed cost", "plan", 0, off, "EUR", f"claims {claimed:,.2f} EUR, costs {self.report.objective_eur:,.2f} EUR")
        return self.report

    def _intervals(self, hours: float) -> int:
        return math.ceil(hours / self.hours - 1e-9)

    def _thermal(self, unit: ThermalUnit, series: dict[str, np.ndarray]) -> None:
        name = unit.unit_id
        on_raw = self._of(series, "committed")
        power, reserve, down = (self._of(series, c) for c in ("power_mw", "reserve_mw", "reserve_down_mw"))
        for t in range(self.n):
            if min(abs(on_raw[t]), abs(on_raw[t] - 1)) > 1e-6:
                self._breach(
                    "commitment is 0 or 1", name, t + 1, abs(on_raw[t]), "1", f"{name}, period {t + 1}: committed is {on_raw[t]:g}"
                )
        on = on_raw > 0.5
        was_on = np.concatenate([[unit.initially_on], on[:-1]])
        starts, stops = on & ~was_on, ~on & was_on
        for column, truth, rule in (("started", starts, "start flag"), ("stopped", stops, "stop flag")):
            claimed = self._of(series, column) > 0.5
            for t in np.flatnonzero(claimed != truth).tolist():
                self._breach(
                    rule,
                    name,
                    int(t) + 1,
                    1,
                    "1",
                    f"{name}, period {t + 1}: {column} is {int(claimed[t])}, its commitments say {int(truth[t])}",
                )
        out = self._outages(unit)
        for t in np.flatnonzero(on & out).tolist():
            self._breach("planned outage", name, int(t) + 1, 1, "1", f"{name}, period {t + 1}: committed during its planned outage")
        self._run_lengths(unit, on, out)
        self._power(unit, on, was_on, starts, stops, out, power, reserve, down)
        self._thermal_cost(unit, on, starts, power)
        self.supply[unit.zone] += power
        self.reserve_up += reserve
        self.reserve_down += down

    def _outages(self, unit: ThermalUnit) -> np.ndarray:
        out = np.zeros(self.n, bool)
        for t, start in enumerate(self.problem.interval_start):
            for begin, end in unit.outages:
                if start.timestamp() < end.timestamp() and start.timestamp() + 3600 * self.hours > begin.timestamp():
                    out[t] = True
        return out

    def _run_lengths(self, unit: ThermalUnit, on: np.ndarray, out: np.ndarray) -> None:
        """Each completed run and rest, the one from before the horizon included, must last long enough."""
        name = unit.unit_id
        t = 0
        state, length, from_before = unit.initially_on, unit.initial_hours_in_state, True
        while t < self.n:
            if bool(on[t]) == state:
                length += self.hours
                t += 1
                continue
            shortest = unit.minimum_up_hours if state else unit.minimum_down_hours
            needed = shortest if from_before else self._intervals(shortest) * self.hours
            forced_off = state and out[t]
            if length < needed - 1e-6 and not (forced_off and from_before):
                rule = "minimum up time" if state else "minimum down time"
                word = "ran" if state else "rested"
                self._breach(
                    rule,
                    name,
                    t + 1,
                    needed - length,
                    "h",
                    f"{name} {word} {length:g} h before period {t + 1}, at least {needed:g} h required",
                )
            state, length, from_before = bool(on[t]), 0.0, False
        if unit.must_run:
            may_start = 0 if unit.initially_on else max(0, self._intervals(unit.minimum_down_hours - unit.initial_hours_in_state))
            rest_until = may_start
            for t in range(self.n):
                if out[t]:
                    first_off = t
                    while first_off > 0 and not on[first_off - 1]:
                        first_off -= 1
                    rest_until = max(rest_until, t + 1, first_off + self._intervals(unit.minimum_down_hours))
                elif t >= rest_until and not on[t] and not out[t : t + self._intervals(unit.minimum_up_hours)].any():
                    self._breach("must run", name, t + 1, 1, "1", f"{name} must run and is off in period {t + 1}")

    def _power(
        self,
        unit: ThermalUnit,
        on: np.ndarray,
        was_on: np.ndarray,
        starts: np.ndarray,
        stops: np.ndarray,
        out: np.ndarray,
        power: np.ndarray,
        reserve: np.ndarray,
        down: np.ndarray,
    ) -> None:
        name, low, high = unit.unit_id, unit.minimum_mw, unit.maximum_mw
        ramp_up, ramp_down = unit.ramp_up_mw_per_hour * self.hours, unit.ramp_down_mw_per_hour * self.hours
        start_limit = high if unit.startup_limit_mw is None else unit.startup_limit_mw
        stop_limit = high if unit.shutdown_limit_mw is None else unit.shutdown_limit_mw
        before = np.concatenate([[unit.initial_power_mw], power[:-1]])
        trip = self._trips_at(unit, out, min(stop_limit, low + ramp_down), ramp_down)
        for t in range(self.n):
            self._at_least("reserve not negative", name, t, reserve[t], 0.0, "reserve")
            self._at_least("downward reserve not negative", name, t, down[t], 0.0, "downward reserve")
            if not on[t]:
                self._at_most("no output while off", name, t, abs(power[t]), 0.0, "output while off")
                self._at_most("no reserve while off", name, t, reserve[t], 0.0, "reserve while off")
                self._at_most("no downward reserve while off", name, t, down[t], 0.0, "downward reserve while off")
            else:
                self._at_least(
                    "minimum output", name, t, power[t] - down[t], low, "output less downward reserve" if down[t] > 0 else "output"
                )
                self._at_most("maximum output", name, t, power[t], high, "output")
                self._at_most("maximum output with reserve", name, t, power[t] + reserve[t], high, "output plus reserve")
            if unit.maximum_reserve_mw is not None:
                self._at_most("maximum reserve", name, t, reserve[t], unit.maximum_reserve_mw, "reserve")
            if starts[t]:
                self._at_most(
                    "start-up limit",
                    name,
                    t,
                    power[t] + reserve[t],
                    min(start_limit, low + ramp_up),
                    "output plus reserve in the first interval of a run",
                )
            elif on[t] and was_on[t]:
                self._at_most("ramp up", name, t, power[t] + reserve[t] - before[t], ramp_up, "rise of output with reserve")
            if stops[t]:
                if t > trip:
                    held = reserve[t - 1] if t > 0 else 0.0
                    self._at_most("shut-down limit", name, t, before[t], min(stop_limit, low + ramp_down), "output before the stop")
                    self._at_most(
                        "shut-down limit with reserve", name, t, before[t] + held, stop_limit, "output plus reserve before the stop"
                    )
            elif on[t] and was_on[t] and t > trip:
                self._at_most("ramp down", name, t, before[t] - power[t] + down[t], ramp_down, "fall of output with downward reserve")

    def _trips_at(self, unit: ThermalUnit, out: np.ndarray, stop_limit: float, ramp_down: float) -> int:
        """Period number (from 0) of an outage that comes before the unit could ramp down from its initial output; -1 if none does."""
        if not unit.initially_on or not out.any():
            return -1
        first, power = int(np.flatnonzero(out)[0]), unit.initial_power_mw
        for _ in range(first):
            power = max(unit.minimum_mw, power - ramp_down)
        return first if power > stop_limit + 1e-9 else -1

    def _thermal_cost(self, unit: ThermalUnit, on: np.ndarray, starts: np.ndarray, power: np.ndarray) -> None:
        curve = unit.cost_curve
        co2 = unit.co2_t_per_mwh * self.problem.co2_price_eur_per_t
        for t in np.flatnonzero(on).tolist():
            at_minimum = curve[0][1] + co2 * unit.minimum_mw
            self.cost["no load"] += at_minimum * self.hours
            mw = min(max(power[t], unit.minimum_mw), unit.maximum_mw)
            above = float(np.interp(mw, [x for x, _ in curve], [y for _, y in curve])) - curve[0][1] + co2 * (mw - unit.minimum_mw)
            self.cost["production"] += above * self.hours
        off_since = -math.inf if unit.initially_on else -unit.initial_hours_in_state / self.hours
        if not unit.initially_on:
            off_since = -math.floor(unit.initial_hours_in_state / self.hours + 1e-9)
        for t in range(self.n):
            if starts[t]:
                off_intervals = t - off_since
                price = unit.startup_costs[0][1] if unit.startup_costs else 0.0
                for hours_off, cost in unit.startup_costs:
                    if off_intervals >= self._intervals(hours_off):
                        price = cost
                self.cost["start-up"] += price
            if not on[t] and (on[t - 1] if t > 0 else unit.initially_on):
                off_since = t

    def _renewables(self) -> None:
        for unit in self.problem.renewables:
            power = self._of(self.units[unit.unit_id], "power_mw")
            low, high = np.asarray(unit.minimum_mw), np.asarray(unit.maximum_mw)
            for t in range(self.n):
                self._at_least("renewable minimum", unit.unit_id, t, power[t], low[t], "output")
                self._at_most("renewable maximum", unit.unit_id, t, power[t], high[t], "output")
            self.supply[unit.zone] += power
            self.cost["renewable"] += unit.cost_eur_per_mwh * float(power.sum()) * self.hours
            self.cost["curtailment"] += self.problem.penalties.curtailment_eur_per_mwh * float((high - power).sum()) * self.hours

    def _storage(self, store: Storage, series: dict[str, np.ndarray]) -> None:
        name = store.storage_id
        charge, discharge, level, up, down, spill = (
            self._of(series, c) for c in ("charge_mw", "discharge_mw", "state_of_charge_mwh", "reserve_mw", "reserve_down_mw", "spill_mw")
        )
        inflow, previous, prices = np.asarray(store.inflow_mw), store.initial_mwh, self.problem.penalties
        missing = self.admitted[("state of charge", name)]
        short = self.admitted[("minimum release", name)]
        for t in range(self.n):
            for word, value, limit in (("charging", charge[t], store.charge_mw), ("discharging", discharge[t], store.discharge_mw)):
                self._at_least(f"{word} not negative", name, t, value, 0.0, f"{word} power")
                self._at_most(f"{word} limit", name, t, value, limit, f"{word} power")
            if min(charge[t], discharge[t]) > TOLERANCE_MW:
                self._breach(
                    "charge and discharge at once",
                    name,
                    t + 1,
                    min(charge[t], discharge[t]),
                    "MW",
                    f"{name}, period {t + 1}: charges {charge[t]:.3f} MW while discharging {discharge[t]:.3f} MW",
                )
            self._at_least("spill not negative", name, t, spill[t], 0.0, "spill")
            if not store.can_spill:
                self._at_most("spill", name, t, spill[t], 0.0, "spill")
            expected = (
                previous
                + self.hours * (store.charge_efficiency * charge[t] - discharge[t] / store.discharge_efficiency + inflow[t] - spill[t])
                + missing[t]
            )
            if abs(level[t] - expected) > TOLERANCE_MW:
                self._breach(
                    "state of charge",
                    name,
                    t + 1,
                    level[t] - expected,
                    "MWh",
                    f"{name}, period {t + 1}: state of charge {level[t]:.3f} MWh, its powers give {expected:.3f} MWh",
                )
            self._at_least("minimum state of charge", name, t, level[t], store.minimum_mwh, "state of charge", "MWh")
            self._at_most("maximum state of charge", name, t, level[t], store.energy_mwh, "state of charge", "MWh")
            self._at_least("minimum release", name, t, discharge[t] + spill[t] + short[t], store.minimum_release_mw, "discharge plus spill")
            for value, word in ((up[t], "reserve"), (down[t], "downward reserve")):
                self._at_least(f"storage {word} not negative", name, t, value, 0.0, word)
                if not store.provides_reserve:
                    self._at_most(f"storage without {word}", name, t, value, 0.0, word)
            self._at_most("storage reserve power", name, t, up[t], store.discharge_mw - discharge[t] + charge[t], "reserve")
            self._at_most(
                "storage reserve energy",
                name,
                t,
                up[t] * store.reserve_hours / store.discharge_efficiency,
                max(0.0, level[t] - store.minimum_mwh),
                "energy for reserve",
                "MWh",
            )
            self._at_most(
                "storage downward reserve power", name, t, down[t], store.charge_mw - charge[t] + discharge[t], "downward reserve"
            )
            self._at_most(
                "storage downward reserve room",
                name,
                t,
                down[t] * store.reserve_hours * store.charge_efficiency,
                max(0.0, store.energy_mwh - level[t]),
                "room for downward reserve",
                "MWh",
            )
            previous = level[t]
        if store.final_mwh is not None:
            self._at_least("final state of charge", name, self.n - 1, level[-1], store.final_mwh, "final state of charge", "MWh")
        self.supply[store.zone] += discharge - charge
        self.reserve_up += up
        self.reserve_down += down
        self.cost["storage wear"] += store.wear_eur_per_mwh * float((charge + discharge).sum()) * self.hours
        self.cost["value of stored energy"] -= store.final_value_eur_per_mwh * float(level[-1] - store.initial_mwh)
        self.cost["state of charge shortfall"] += prices.state_of_charge_eur_per_mwh * (
            float(missing.sum()) + float(short.sum()) * self.hours
        )

    def _loads(self) -> None:
        problem = self.problem
        for load in problem.shiftable:
            series = self.exchange[("shiftable", load.load_id)]
            power, reserve = -self._of(series, "power_mw"), self._of(series, "reserve_mw")
            window = set(problem.window_of(load))
            for t in range(self.n):
                self._at_least("shiftable load not negative", load.load_id, t, power[t], 0.0, "power")
                self._at_most(
                    "shiftable load power" if t in window else "shiftable load window",
                    load.load_id,
                    t,
                    power[t],
                    load.maximum_mw if t in window else 0.0,
                    "power",
                )
                self._at_most(
                    "shiftable load reserve", load.load_id, t, reserve[t], max(power[t], 0.0) if load.provides_reserve else 0.0, "reserve"
                )
            missing = float(self.admitted[("unserved shiftable load", load.load_id)].sum())
            served = float(power.sum()) * self.hours
            if abs(served + missing - load.energy_mwh) > TOLERANCE_MW:
                self._breach(
                    "shiftable load energy",
                    load.load_id,
                    0,
                    load.energy_mwh - served - missing,
                    "MWh",
                    f"{load.load_id} gets {served:.3f} of {load.energy_mwh:.3f} MWh",
                )
            self.supply[load.zone] -= power
            self.reserve_up += reserve
            self.cost["unserved"] += problem.penalties.unserved_eur_per_mwh * missing
        for agreed in problem.interruptible:
            series = self.exchange[("interrupted", agreed.load_id)]
            cut, reserve = self._of(series, "power_mw"), self._of(series, "reserve_mw")
            most = np.asarray(agreed.maximum_mw)
            for t in range(self.n):
                self._at_least("interruption not negative", agreed.load_id, t, cut[t], 0.0, "interrupted power")
                self._at_most("interruption limit", agreed.load_id, t, cut[t], most[t], "interrupted power")
                self._at_most(
                    "interruptible reserve", agreed.load_id, t, reserve[t], most[t] - cut[t] if agreed.provides_reserve else 0.0, "reserve"
                )
            if agreed.maximum_energy_mwh is not None and cut.sum() * self.hours > agreed.maximum_energy_mwh + TOLERANCE_MW:
                self._breach(
                    "interruption energy",
                    agreed.load_id,
                    0,
                    cut.sum() * self.hours - agreed.maximum_energy_mwh,
                    "MWh",
                    f"{agreed.load_id} is cut by {cut.sum() * self.hours:.3f} MWh, at most {agreed.maximum_energy_mwh:.3f} agreed",
                )
            self.supply[agreed.zone] += cut
            self.reserve_up += reserve
            self.cost["interruption"] += agreed.price_eur_per_mwh * float(cut.sum()) * self.hours

    def _trade(self) -> None:
        for contract in self.problem.contracts:
            power = self._of(self.exchange[("contract", contract.contract_id)], "power_mw")
            for t in range(self.n):
                self._at_least("contract not negative", contract.contract_id, t, power[t], 0.0, "contract power")
                self._at_most("contract power", contract.contract_id, t, power[t], contract.maximum_mw, "contract power")
            self.supply[contract.zone] += power
            self.cost["contract"] += contract.price_eur_per_mwh * max(float(power.sum()) * self.hours, contract.minimum_energy_mwh)
        markets = self.problem.markets
        for market in markets:
            name = "market" if len(markets) == 1 else f"market {market.zone}"
            bought = self._of(self.exchange[("import", name)], "power_mw")
            sold = -self._of(self.exchange[("export", name)], "power_mw")
            for t in range(self.n):
                for word, value, limit in (("import", bought[t], market.import_limit_mw), ("export", sold[t], market.export_limit_mw)):
                    self._at_least(f"{word} not negative", name, t, value, 0.0, word)
                    self._at_most(f"{word} limit", name, t, value, float(np.asarray(limit)[t]), word)
            self.supply[market.zone] += bought - sold
            self.cost["import"] += float(np.asarray(market.import_price_eur_per_mwh) @ bought) * self.hours
            self.cost["export"] -= float(np.asarray(market.export_price_eur_per_mwh) @ sold) * self.hours

    def _lines(self) -> None:
        lines = self.problem.lines
        flow = {line.line_id: self._of(self.flows[line.line_id], "flow_mw") for line in lines}
        for line in lines:
            for t in range(self.n):
                self._at_most(
                    "line limit", line.line_id, t, flow[line.line_id][t], line.forward_mw, f"flow {line.from_zone} to {line.to_zone}"
                )
                self._at_most(
                    "line limit",
                    line.line_id,
                    t,
                    -flow[line.line_id][t],
                    line.limit_backward_mw,
                    f"flow {line.to_zone} to {line.from_zone}",
                )
            self.supply[line.from_zone] -= flow[line.line_id]
            self.supply[line.to_zone] += flow[line.line_id]
        physical = [line for line in lines if line.reactance_pu is not None]
        if physical:
            # flow times reactance must be a difference of zone angles: least squares finds the best angles, the rest is the breach
            zones = list(self.problem.zones)
            ends = np.zeros((len(physical), len(zones)))
            for i, line in enumerate(physical):
                ends[i, zones.index(line.from_zone)], ends[i, zones.index(line.to_zone)] = 1.0, -1.0
            drop = np.stack([flow[line.line_id] * float(line.reactance_pu or 0) for line in physical])
            angle, *_ = np.linalg.lstsq(ends, drop, rcond=None)
            off = (drop - ends @ angle) / np.array([[float(line.reactance_pu or 1)] for line in physical])
            for i, t in zip(*np.nonzero(np.abs(off) > 10 * TOLERANCE_MW), strict=True):
                name = physical[i].line_id
                self._breach(
                    "DC power flow",
                    name,
                    int(t) + 1,
                    off[i, t],
                    "MW",
                    f"{name}, period {t + 1}: its flow does not follow from any zone angles, off by {off[i, t]:.3f} MW",
                )

    def _system(self) -> None:
        prices = self.problem.penalties
        for zone in self.problem.zones:
            demand = np.asarray(self.problem.demand_mw[zone])  # type: ignore[index,call-overload]
            unserved, surplus = self.admitted[("unserved energy", zone)], self.admitted[("surplus energy", zone)]
            for t in range(self.n):
                off = self.supply[zone][t] + unserved[t] - surplus[t] - demand[t]
                if abs(off) > TOLERANCE_MW * max(1.0, 1e-4 * demand[t]):
                    self._breach(
                        "balance",
                        zone,
                        t + 1,
                        off,
                        "MW",
                        f"{zone}, period {t + 1}: supply {self.supply[zone][t] + unserved[t] - surplus[t]:.3f} MW against "
                        f"demand {demand[t]:.3f} MW",
                    )
            self.cost["unserved"] += prices.unserved_eur_per_mwh * float(unserved.sum()) * self.hours
            self.cost["surplus"] += prices.surplus_eur_per_mwh * float(surplus.sum()) * self.hours
            self.report.unserved_mwh += float(unserved.sum()) * self.hours
        for word, kind, held, required, price in (
            ("reserve", "reserve shortfall", self.reserve_up, self.problem.reserve_mw, prices.reserve_shortfall_eur_per_mwh),
            (
                "downward reserve",
                "downward reserve shortfall",
                self.reserve_down,
                self.problem.reserve_down_mw,
                prices.reserve_down_shortfall_eur_per_mwh,
            ),
        ):
            short = self.admitted[(kind, "system")]
            wanted: Any = np.asarray(required)
            for t in range(self.n):
                self._at_least(word, "system", t, held[t] + short[t], wanted[t], word)
            self.cost["reserve shortfall"] += price * float(short.sum()) * self.hours
            if word == "reserve":
                self.report.reserve_shortfall_mwh += float(short.sum()) * self.hours


def check_solution(problem: DispatchProblem, solution: Any) -> CheckReport:
    """Checks all tables of a `DispatchSolution` and the cost it claims."""
    return check_plan(
        problem,
        solution.plan,
        solution.storage,
        solution.exchange,
        solution.flows,
        solution.violations,
        claimed_objective_eur=solution.summary["objective_eur"],
    )
