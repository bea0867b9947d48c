"""The oracle: unit commitment as one would first write it down, a rule at a time, one Python constraint each.

One binary per unit and interval (on), starts and stops as differences, minimum times pair by pair, start-up cost by every possible time
off. Slow and loose; its optimum is the truth that the fast model is compared with.
"""

from __future__ import annotations

import math

import highspy
import numpy as np

from lakehouse.dispatch import DispatchProblem


def optimum_eur(problem: DispatchProblem) -> float:
    """The least cost of a problem with thermal units, renewables and storages in one zone, EUR."""
    h = highspy.Highs()
    h.setOptionValue("output_flag", False)
    h.setOptionValue("mip_rel_gap", 1e-9)
    h.setOptionValue("mip_abs_gap", 1e-6)
    n, dt, prices = problem.horizon, problem.interval_hours, problem.penalties
    demand, need = np.asarray(problem.demand_mw["system"]), np.asarray(problem.reserve_mw)
    cost, supply, held = 0, [0] * n, [0] * n
    inf = highspy.kHighsInf
    for unit in problem.thermal:
        on = [h.addBinary() for _ in range(n)]
        power = [h.addVariable(0, inf) for _ in range(n)]
        reserve = [h.addVariable(0, inf) for _ in range(n)]
        start = [h.addBinary() for _ in range(n)]
        stop = [h.addBinary() for _ in range(n)]
        spent = [h.addVariable(0, inf) for _ in range(n)]  # production cost of the interval
        begun = [h.addVariable(0, inf) for _ in range(n)]  # start-up cost of the interval
        high, low = unit.maximum_mw, unit.minimum_mw
        up, down = unit.ramp_up_mw_per_hour * dt, unit.ramp_down_mw_per_hour * dt
        start_limit, stop_limit = min(unit.startup_limit_mw, high), min(unit.shutdown_limit_mw, high)
        min_up, min_down = math.ceil(unit.minimum_up_hours / dt), math.ceil(unit.minimum_down_hours / dt)
        stay = math.ceil(
            max(0.0, (unit.minimum_up_hours if unit.initially_on else unit.minimum_down_hours) - unit.initial_hours_in_state) / dt
        )
        for t in range(n):
            was_on = on[t - 1] if t else int(unit.initially_on)
            was_power = power[t - 1] if t else unit.initial_power_mw
            was_reserve = reserve[t - 1] if t else 0
            h.addConstr(on[t] - was_on == start[t] - stop[t])
            h.addConstr(start[t] + stop[t] <= 1)
            if t < stay:
                h.addConstr(on[t] == int(unit.initially_on))
            if unit.must_run and (unit.initially_on or t >= stay):
                h.addConstr(on[t] == 1)
            h.addConstr(power[t] >= low * on[t])
            h.addConstr(power[t] + reserve[t] <= high * on[t])
            big = high + up + down
            above, was_above = power[t] - low * on[t], was_power - low * was_on
            h.addConstr(above + reserve[t] - was_above <= up)
            h.addConstr(was_above - above <= down)
            h.addConstr(power[t] + reserve[t] <= start_limit + big * (1 - start[t]))
            h.addConstr(was_power + was_reserve <= stop_limit + big * (1 - stop[t])) if t else h.addConstr(
                was_power * stop[t] <= stop_limit
            )
            for later in range(t + 1, min(n, t + min_up)):
                h.addConstr(on[later] >= start[t])
            for later in range(t + 1, min(n, t + min_down)):
                h.addConstr(on[later] <= 1 - stop[t])
            h.addConstr(spent[t] >= 0)
            for (mw_a, eur_a), (mw_b, eur_b) in zip(unit.cost_curve, unit.cost_curve[1:], strict=False):
                slope = (eur_b - eur_a) / (mw_b - mw_a)
                h.addConstr(spent[t] >= dt * (slope * power[t] + (eur_a - slope * mw_a) * on[t]))
            # a start whose last running interval was `last` (-1: before the horizon), off in every interval between
            for last in range(-1, t):
                if last == t - 1 and (last >= 0 or unit.initially_on):
                    continue  # not off in between
                hours_off = (t - last - 1) * dt + (unit.initial_hours_in_state if last < 0 and not unit.initially_on else 0.0)
                price = unit.startup_costs[0][1]
                for hours, eur in unit.startup_costs:
                    if math.floor(hours_off / dt + 1e-9) >= math.ceil(hours / dt - 1e-9):
                        price = eur
                resting = [on[i] for i in range(last + 1, t)]
                before = on[last] if last >= 0 else 1
                h.addConstr(begun[t] >= price * (on[t] + before - 1 - sum(resting)))
            cost = cost + spent[t] + begun[t]
            supply[t] = supply[t] + power[t]
            held[t] = held[t] + reserve[t]
    for unit in problem.renewables:
        for t in range(n):
            supply[t] = supply[t] + h.addVariable(float(unit.minimum_mw[t]), float(unit.maximum_mw[t]))
    for store in problem.storages:
        level = store.initial_mwh
        for t in range(n):
            charge, discharge, mode = h.addVariable(0, store.charge_mw), h.addVariable(0, store.discharge_mw), h.addBinary()
            new, missing, ready = h.addVariable(store.minimum_mwh, store.energy_mwh), h.addVariable(0, inf), h.addVariable(0, inf)
            h.addConstr(charge <= store.charge_mw * mode)
            h.addConstr(discharge <= store.discharge_mw * (1 - mode))
            h.addConstr(new - level == dt * (store.charge_efficiency * charge - (1 / store.discharge_efficiency) * discharge) + missing)
            h.addConstr(ready <= store.discharge_mw - discharge + charge)
            h.addConstr(ready * (store.reserve_hours / store.discharge_efficiency) <= new - store.minimum_mwh)
            cost = cost + store.wear_eur_per_mwh * dt * (charge + discharge) + prices.state_of_charge_eur_per_mwh * missing
            supply[t] = supply[t] + discharge - charge
            held[t] = held[t] + ready
            level = new
        if store.final_mwh is not None:
            h.addConstr(level >= store.final_mwh)
        cost = cost - store.final_value_eur_per_mwh * (level - store.initial_mwh)
    for t in range(n):
        unserved, surplus, short = h.addVariable(0, inf), h.addVariable(0, inf), h.addVariable(0, inf)
        h.addConstr(supply[t] + unserved - surplus == float(demand[t]))
        h.addConstr(held[t] + short >= float(need[t]))
        cost = cost + dt * (
            prices.unserved_eur_per_mwh * unserved + prices.surplus_eur_per_mwh * surplus + prices.reserve_shortfall_eur_per_mwh * short
        )
    h.minimize(cost)
    assert h.getModelStatus() == highspy.HighsModelStatus.kOptimal
    return h.getObjectiveValue()
