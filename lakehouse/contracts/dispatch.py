"""Contracts of `dispatch`: the day-ahead plan, what it costs, what follows from it, and what could not be met."""

from __future__ import annotations

from lakehouse.contracts.base import Boolean, Date, Float64, Instant, Int32, Int64, Table, Text, column

DIRECTIONS = ("up", "down")


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
    unit_kind: Text = column(
        "What the unit is, as in cleaned.fleet: thermal, wind, solar, hydro, storage, grid, contract, interruptible or shiftable."
    )
    zone: Text = column("Where it is connected; 'system' where there is one zone only.")
    interval_start: Instant = column("Start of the interval.", unit="UTC")
    interval_minutes: Int32 = column("Length of the interval.", unit="min")
    committed: Boolean = column("Whether the unit is on.")
    started: Boolean = column("Whether the unit starts at the interval's beginning.")
    stopped: Boolean = column("Whether the unit stops at the interval's beginning.")
    power_mw: Float64 = column(
        "Mean power fed in; negative while a storage charges, the grid connection exports or a shiftable load draws.", unit="MW"
    )
    reserve_mw: Float64 = column("Spinning reserve held upwards.", unit="MW", ge=-1e-6)
    reserve_down_mw: Float64 = column("Reserve held downwards.", unit="MW", ge=-1e-6)
    available_mw: Float64 = column(
        "Most it could feed in: the forecast of wind, sun and river, a thermal unit's maximum; missing for others.",
        unit="MW",
        nullable=True,
    )


class StoragePlan(Planned):
    """What each storage does: one row per storage and interval."""

    name = "dispatch/storage"
    key = ("storage_id", "interval_start")

    storage_id: Text = column("The storage.")
    interval_start: Instant = column("Start of the interval.", unit="UTC")
    charge_mw: Float64 = column("Power taken in.", unit="MW", ge=-1e-6)
    discharge_mw: Float64 = column("Power given out.", unit="MW", ge=-1e-6)
    state_of_charge_mwh: Float64 = column("Energy stored at the interval's end.", unit="MWh", ge=-1e-6)
    spill_mw: Float64 = column("Water that passes the turbine unused.", unit="MW", ge=-1e-6)
    reserve_mw: Float64 = column("Spinning reserve held upwards.", unit="MW", ge=-1e-6)
    reserve_down_mw: Float64 = column("Reserve held downwards.", unit="MW", ge=-1e-6)


class Flows(Planned):
    """Flows between zones: one row per line and interval; empty where the fleet has no lines."""

    name = "dispatch/flows"
    key = ("line_id", "interval_start")

    line_id: Text = column("The line.")
    from_zone: Text = column("Zone at its beginning.")
    to_zone: Text = column("Zone at its end.")
    interval_start: Instant = column("Start of the interval.", unit="UTC")
    flow_mw: Float64 = column("Flow, positive from `from_zone` to `to_zone`.", unit="MW")
    limit_mw: Float64 = column("Limit in the direction of the flow.", unit="MW", ge=0)
    is_binding: Boolean = column("Whether the flow is at its limit.")
    price_difference_eur_per_mwh: Float64 = column("Price at its end less price at its beginning.", unit="EUR/MWh")


class Reserves(Planned):
    """Who holds how much reserve: one row per unit, direction and interval, for the units that can."""

    name = "dispatch/reserves"
    key = ("unit_id", "direction", "interval_start")

    unit_id: Text = column("The unit.")
    unit_kind: Text = column("What the unit is, as in dispatch.plan.")
    direction: Text = column("up (spinning) or down; rows of a direction are there where it is required.", isin=DIRECTIONS)
    interval_start: Instant = column("Start of the interval.", unit="UTC")
    reserve_mw: Float64 = column("Reserve that the unit holds.", unit="MW", ge=-1e-6)
    requirement_mw: Float64 = column("Reserve that the whole system requires; the same on every row of the interval.", unit="MW", ge=0)
    shortfall_mw: Float64 = column("Reserve that the whole system lacks; the same on every row of the interval.", unit="MW", ge=-1e-6)
    price_eur_per_mw_h: Float64 = column("What one more MW of the requirement would cost for an hour.", unit="EUR/MWh")


class Prices(Planned):
    """Marginal prices of the plan: the duals of balance and reserve with commitments fixed."""

    name = "dispatch/prices"
    key = ("zone", "interval_start")

    zone: Text = column("The zone; 'system' where there is one only.")
    interval_start: Instant = column("Start of the interval.", unit="UTC")
    energy_price_eur_per_mwh: Float64 = column("What one more MWh of demand would cost.", unit="EUR/MWh")
    reserve_price_eur_per_mwh: Float64 = column(
        "What one more MW of upward reserve for an hour would cost; one for the whole system.", unit="EUR/MWh", nullable=True
    )
    reserve_down_price_eur_per_mwh: Float64 = column("The same for downward reserve.", unit="EUR/MWh", nullable=True)


class Bids(Planned):
    """Bids for the day-ahead market: price-quantity pairs by grid connection and interval; empty without a price forecast."""

    name = "dispatch/bids"
    key = ("unit_id", "interval_start", "step")

    unit_id: Text = column("The grid connection that bids.")
    interval_start: Instant = column("Start of the interval.", unit="UTC")
    step: Int32 = column("Place in the interval's curve, from 1.", ge=1)
    price_eur_per_mwh: Float64 = column("From this price on; rises from step to step.", unit="EUR/MWh")
    quantity_mw: Float64 = column("Net quantity at that price: positive is sold, negative is bought; never falls.", unit="MW")


class Setpoints(Planned):
    """What each controllable asset is told to do: one row per asset and interval of the plan."""

    name = "dispatch/setpoints"
    key = ("asset_id", "valid_from")

    asset_id: Text = column("The asset, a unit of cleaned.fleet.")
    asset_kind: Text = column("What the asset is, as in dispatch.plan.")
    command: Text = column(
        "run, off, limit (curtail to power_mw), charge, discharge, idle, cut (interrupt load) or draw (shiftable load).",
        isin=("run", "off", "limit", "charge", "discharge", "idle", "cut", "draw"),
    )
    power_mw: Float64 = column("Power to keep, positive into the system.", unit="MW")
    reserve_mw: Float64 = column("Upward reserve to hold ready.", unit="MW", ge=-1e-6)
    valid_from: Instant = column("Start of the interval.", unit="UTC")
    valid_until: Instant = column("End of the interval.", unit="UTC")


class Summary(Planned):
    """Cost, bound and gap of each plan: one row per issue, and one more for each re-plan during the day."""

    name = "dispatch/summary"
    key = ("issued_at", "planned_from")

    planned_from: Instant = column("First interval that was planned: the day's first, or later for a re-plan.", unit="UTC")
    planned_until: Instant = column("End of the last interval that the tables hold; look-ahead is not among them.", unit="UTC")
    look_ahead_hours: Float64 = column("Hours behind `planned_until` that the plan looked at.", unit="h", ge=0)
    planned_on: Text = column("What was planned for: a quantile such as p50, or a number of scenarios.")
    objective_eur: Float64 = column("Cost of everything that was planned, look-ahead included.", unit="EUR")
    bound_eur: Float64 = column("No plan can cost less than this.", unit="EUR")
    gap_pct: Float64 = column("How far the plan may be from the best one.", unit="%", ge=-1e-6)
    cost_eur: Float64 = column("Cost without the look-ahead, as the checker computes it.", unit="EUR")
    cost_parts: Text = column("The cost by part in EUR, as a JSON object.")
    expected_cost_eur: Float64 = column("Expected cost over the scenarios; missing where none were drawn.", unit="EUR", nullable=True)
    recourse_eur: Float64 = column("The part of it that follows the scenario; missing where none were drawn.", unit="EUR", nullable=True)
    binding: Text = column(
        "What binds: a JSON list of {constraint, where, intervals, worth_eur}, dearest first; worth is price times amount."
    )
    demand_mwh: Float64 = column("Energy to be served.", unit="MWh")
    unserved_mwh: Float64 = column("Energy that could not be served.", unit="MWh", ge=-1e-6)
    reserve_shortfall_mwh: Float64 = column("Reserve that could not be held, times its duration.", unit="MWh", ge=-1e-6)
    curtailed_mwh: Float64 = column("Wind, solar and river energy left unused.", unit="MWh", ge=-1e-6)
    build_seconds: Float64 = column("Time to set the model up.", unit="s")
    solve_seconds: Float64 = column("Time to solve it.", unit="s")
    status: Text = column("How the solver ended: optimal (gap reached), time_limit, or merit_order (no plan was found in time).")
    is_verified: Boolean = column("Whether the independent checker found every constraint met and the cost right.")
    demand_forecast: Text = column("Model version behind the demand; 'fallback' is named where it was one.")
    fleet_version: Int64 = column("Version of cleaned.fleet that was planned with.", nullable=True)


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


class Regret(Planned):
    """What not knowing the day cost: the plan, and the plan with perfect foresight, both settled on what came; one row per day."""

    name = "dispatch/regret"
    key = ("date",)

    planned_day: Date = column("Local day that was planned, the day after the issue.")
    planned_cost_eur: Float64 = column("Cost that the plan expected.", unit="EUR")
    settled_cost_eur: Float64 = column(
        "Cost of the plan on what came: its commitments, stores and shifted load kept, the rest dispatched anew; missing without actuals.",
        unit="EUR",
        nullable=True,
    )
    perfect_cost_eur: Float64 = column(
        "Cost of the plan that knew what came, settled alike; missing without actuals.", unit="EUR", nullable=True
    )
    perfect_bound_eur: Float64 = column("No plan that begins in the same state can cost less, reserve required.", unit="EUR", nullable=True)
    regret_eur: Float64 = column("Settled less perfect cost.", unit="EUR", nullable=True)
    regret_pct: Float64 = column("Regret by perfect cost; missing where that is not above zero.", unit="%", nullable=True)
    settled_unserved_mwh: Float64 = column("Energy that the plan's commitments could not serve.", unit="MWh", nullable=True, ge=-1e-6)
    demand_error_mwh: Float64 = column("Sum of the absolute errors of the demand planned for.", unit="MWh", nullable=True, ge=0)
    missing: Text = column("Which actuals are not there yet; missing where all are.", nullable=True)


PLAN_TABLES = (Plan, StoragePlan, Flows, Reserves, Prices, Bids, Setpoints, Summary, Violations)
"""Written together by every plan."""

ALL = (*PLAN_TABLES, Regret)
