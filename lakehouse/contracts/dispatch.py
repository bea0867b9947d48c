"""Contracts of `dispatch`: the day-ahead plan, what it costs, and what could not be met."""

from __future__ import annotations

from lakehouse.contracts.base import Boolean, Date, Float64, Instant, Int32, Table, Text, column


class Planned(Table):
    """Base of the tables that a plan consists of."""

    partitioned_by = ("date",)

    issued_at: Instant = column("Issue time of the forecast that the plan follows.", unit="UTC")
    date: Date = column("Local day of that issue.")


class Plan(Planned):
    """The dispatch plan: one row per unit and interval."""

    name = "dispatch/plan"
    key = ("unit_id", "interval_start")

    unit_id: Text = column("The unit.")
    unit_kind: Text = column("What the unit is, as in cleaned.fleet: thermal, wind, solar, storage or grid.")
    interval_start: Instant = column("Start of the interval.", unit="UTC")
    interval_minutes: Int32 = column("Length of the interval.", unit="min")
    committed: Boolean = column("Whether the unit is on.")
    started: Boolean = column("Whether the unit starts at the interval's beginning.")
    stopped: Boolean = column("Whether the unit stops at the interval's beginning.")
    power_mw: Float64 = column("Mean power fed in; negative while a storage charges or the grid connection exports.", unit="MW")
    reserve_mw: Float64 = column("Spinning reserve held upwards.", unit="MW", ge=-1e-6)


class StoragePlan(Planned):
    """What each storage does: one row per storage and interval."""

    name = "dispatch/storage"
    key = ("storage_id", "interval_start")

    storage_id: Text = column("The storage.")
    interval_start: Instant = column("Start of the interval.", unit="UTC")
    charge_mw: Float64 = column("Power taken in.", unit="MW", ge=-1e-6)
    discharge_mw: Float64 = column("Power given out.", unit="MW", ge=-1e-6)
    state_of_charge_mwh: Float64 = column("Energy stored at the interval's end.", unit="MWh", ge=-1e-6)
    reserve_mw: Float64 = column("Spinning reserve held upwards.", unit="MW", ge=-1e-6)


class Prices(Planned):
    """Marginal prices of the plan: the duals of balance and reserve with commitments fixed."""

    name = "dispatch/prices"
    key = ("zone", "interval_start")

    zone: Text = column("The zone; 'system' where there is one only.")
    interval_start: Instant = column("Start of the interval.", unit="UTC")
    energy_price_eur_per_mwh: Float64 = column("What one more MWh of demand would cost.", unit="EUR/MWh")
    reserve_price_eur_per_mwh: Float64 = column("What one more MW of reserve for an hour would cost.", unit="EUR/MWh", nullable=True)


class Summary(Planned):
    """Cost, bound and gap of each plan: one row per issue."""

    name = "dispatch/summary"
    key = ("issued_at",)

    objective_eur: Float64 = column("Cost of the plan with everything in it.", unit="EUR")
    bound_eur: Float64 = column("No plan can cost less than this.", unit="EUR")
    gap_pct: Float64 = column("How far the plan may be from the best one.", unit="%", ge=-1e-6)
    cost_parts: Text = column("The cost by part in EUR, as a JSON object.")
    demand_mwh: Float64 = column("Energy to be served.", unit="MWh")
    unserved_mwh: Float64 = column("Energy that could not be served.", unit="MWh", ge=-1e-6)
    reserve_shortfall_mwh: Float64 = column("Reserve that could not be held, times its duration.", unit="MWh", ge=-1e-6)
    curtailed_mwh: Float64 = column("Wind and solar energy left unused.", unit="MWh", ge=-1e-6)
    build_seconds: Float64 = column("Time to set the model up.", unit="s")
    solve_seconds: Float64 = column("Time to solve it.", unit="s")
    status: Text = column("How the solver ended.")
    is_verified: Boolean = column("Whether the independent checker found every constraint met and the cost right.")
    demand_forecast: Text = column("Model version behind the demand; 'fallback' is named where it was one.")


class Violations(Planned):
    """What a plan could not meet, how much, and at what cost: empty on a good day."""

    name = "dispatch/violations"
    key = ("kind", "where", "interval_start")

    kind: Text = column("unserved energy, reserve shortfall, …")
    where: Text = column("The zone or unit.")
    interval_start: Instant = column("Start of the interval.", unit="UTC")
    amount: Float64 = column("By how much, in `unit`.")
    unit: Text = column("Unit of `amount`: MW or MWh.")
    cost_eur: Float64 = column("What it costs at its penalty price.", unit="EUR")
    explanation: Text = column("Why, in a sentence.", nullable=True)


ALL = (Plan, StoragePlan, Prices, Summary, Violations)
