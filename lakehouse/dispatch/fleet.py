"""What is to be dispatched: units, storages, loads, lines, market and the day they face, each checked where it is made.

Everything here is data with the operator's names and units. How a plan is found lives in `formulation` and `solver`; whether a plan is
right is judged by `checker`, which shares only these classes with the optimiser.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

import numpy as np

from lakehouse.dispatch.given import check_kinds, check_not_negative, points_of, refuse, shown
from lakehouse.errors import DispatchError

MW_TOLERANCE = 1e-6
ONE_ZONE = "system"
SeriesLike = float | Sequence[float] | np.ndarray


@dataclass(frozen=True)
class ThermalUnit:
    """A unit that is started and stopped.

    Args:
        unit_id: the unit's name, unique in the problem.
        minimum_mw: stable minimum while committed, MW.
        maximum_mw: maximum output, MW.
        cost_curve: points (MW, EUR/h) of the convex cost of an hour's production; the first lies at `minimum_mw`, the last at `maximum_mw`.
        startup_costs: points (hours off, EUR), hot to cold; the one with the most hours not above the time off applies. Empty: free.
        ramp_up_mw_per_hour, ramp_down_mw_per_hour: limits of the change between intervals, reserve included upwards.
        startup_limit_mw, shutdown_limit_mw: highest output in the first and in the last interval of a run; None means `maximum_mw`.
        minimum_up_hours, minimum_down_hours: shortest run and shortest rest; rounded up to whole intervals.
        must_run: committed whenever it can be.
        initially_on, initial_power_mw, initial_hours_in_state: state just before the first interval, and hours spent in it.
        maximum_reserve_mw: most spinning reserve it may hold; None means what its limits allow.
        outages: planned outages as (start, end) in UTC; the unit is off in every interval that touches one.
        co2_t_per_mwh: emissions, priced with the problem's `co2_price_eur_per_t` on top of the cost curve.
        zone: where it feeds in.
    """

    unit_id: str
    minimum_mw: float
    maximum_mw: float
    cost_curve: tuple[tuple[float, float], ...]
    startup_costs: tuple[tuple[float, float], ...] = ()
    ramp_up_mw_per_hour: float = np.inf
    ramp_down_mw_per_hour: float = np.inf
    startup_limit_mw: float | None = None
    shutdown_limit_mw: float | None = None
    minimum_up_hours: float = 0.0
    minimum_down_hours: float = 0.0
    must_run: bool = False
    initially_on: bool = False
    initial_power_mw: float = 0.0
    initial_hours_in_state: float = 1e4
    maximum_reserve_mw: float | None = None
    outages: tuple[tuple[datetime, datetime], ...] = ()
    co2_t_per_mwh: float = 0.0
    zone: str = ONE_ZONE

    def __post_init__(self) -> None:
        me = f"unit {self.unit_id}"
        check_kinds(me, self)
        check_not_negative(
            me,
            minimum_mw=self.minimum_mw,
            ramp_up_mw_per_hour=self.ramp_up_mw_per_hour,
            ramp_down_mw_per_hour=self.ramp_down_mw_per_hour,
            minimum_up_hours=self.minimum_up_hours,
            minimum_down_hours=self.minimum_down_hours,
            initial_hours_in_state=self.initial_hours_in_state,
            co2_t_per_mwh=self.co2_t_per_mwh,
        )
        if not self.minimum_mw <= self.maximum_mw:
            refuse(
                me,
                f"minimum output {self.minimum_mw:g} MW lies above maximum output {self.maximum_mw:g} MW",
                "Exchange or correct the two limits.",
            )
        for name, limit in (("start-up", self.startup_limit_mw), ("shut-down", self.shutdown_limit_mw)):
            if limit is not None and not limit >= self.minimum_mw - MW_TOLERANCE:
                refuse(
                    me,
                    f"{name} limit {limit:g} MW lies below minimum output {self.minimum_mw:g} MW, so it could never "
                    f"{'start' if name == 'start-up' else 'stop'}",
                    f"Raise the {name} limit to at least the minimum output.",
                )
        self._check_costs(me)
        self._check_initial_state(me)
        for start, end in self.outages:
            _check_utc(me, "outage", start)
            _check_utc(me, "outage", end)
            if not start < end:
                refuse(
                    me, f"an outage ends at {end:%Y-%m-%d %H:%M} UTC, not after its start {start:%Y-%m-%d %H:%M} UTC", "Correct the outage."
                )

    def _check_costs(self, me: str) -> None:
        points = points_of(me, "cost_curve", self.cost_curve)
        if not len(points):
            refuse(me, "expected a cost curve of points (MW, EUR/h), found none", "Give at least the cost at minimum output.")
        mw, eur = points[:, 0], points[:, 1]
        if abs(mw[0] - self.minimum_mw) > 1e-3 or abs(mw[-1] - self.maximum_mw) > 1e-3:
            refuse(
                me,
                f"the cost curve spans {mw[0]:g} to {mw[-1]:g} MW, the output limits {self.minimum_mw:g} to {self.maximum_mw:g} MW",
                "Let the curve begin at minimum and end at maximum output.",
            )
        if (np.diff(mw) <= 0).any():
            refuse(me, f"the cost curve's points do not rise in MW: {mw.tolist()}", "Sort the points and drop repeated ones.")
        slope = np.diff(eur) / np.diff(mw)
        falls = np.flatnonzero(np.diff(slope) < -1e-3 * np.maximum(1.0, np.abs(slope[:-1])))
        if len(falls):
            i = int(falls[0])
            refuse(
                me,
                f"cost is not convex: {slope[i]:.4g} EUR/MWh up to {mw[i + 1]:g} MW, then only {slope[i + 1]:.4g} EUR/MWh "
                f"up to {mw[i + 2]:g} MW",
                "Use the convex hull of the curve, or split the unit into modes.",
            )
        hours, eur_start = (column.tolist() for column in points_of(me, "startup_costs", self.startup_costs).T)
        if hours != sorted(set(hours)) or any(h < 0 for h in hours):
            refuse(me, f"start-up costs must be ordered by hours off, found {hours}", "Order them from hot to cold, each hour once.")
        if eur_start != sorted(eur_start) or any(c < 0 for c in eur_start):
            refuse(
                me,
                f"a colder start must not be cheaper than a hotter one, found {eur_start} EUR after {hours} h off",
                "Correct the start-up costs.",
            )

    def _check_initial_state(self, me: str) -> None:
        power = self.initial_power_mw
        if not self.initially_on and abs(power) > MW_TOLERANCE:
            refuse(me, f"initial state contradicts itself: off, but producing {power:g} MW", "Set it on, or its initial output to 0 MW.")
        if self.initially_on and not self.minimum_mw - 1e-3 <= power <= self.maximum_mw + 1e-3:
            refuse(
                me,
                f"initial state contradicts itself: on, but producing {power:g} MW outside its limits {self.minimum_mw:g} "
                f"to {self.maximum_mw:g} MW",
                "Correct the initial output or the limits.",
            )

    @classmethod
    def from_heat_rates(
        cls,
        unit_id: str,
        heat_input_gj_per_hour: Sequence[tuple[float, float]],
        *,
        fuel_price_eur_per_gj: float,
        variable_om_eur_per_mwh: float = 0.0,
        co2_t_per_gj: float = 0.0,
        co2_price_eur_per_t: float = 0.0,
        **limits: object,
    ) -> ThermalUnit:
        """A unit whose cost curve follows from heat input (MW, GJ/h), fuel price and CO2 price; limits default to the curve's ends."""
        per_gj = fuel_price_eur_per_gj + co2_t_per_gj * co2_price_eur_per_t
        curve = tuple((float(mw), float(gj * per_gj + mw * variable_om_eur_per_mwh)) for mw, gj in heat_input_gj_per_hour)
        limits = {"minimum_mw": curve[0][0], "maximum_mw": curve[-1][0], **limits}
        return cls(unit_id=unit_id, cost_curve=curve, **limits)  # type: ignore[arg-type]


@dataclass(frozen=True, eq=False)
class Renewable:
    """Wind, sun, run-of-river: produces between a minimum and an available maximum, MW by interval.

    Args:
        unit_id: its name.
        maximum_mw: available power by interval, usually the forecast.
        minimum_mw: what can't be curtailed.
        cost_eur_per_mwh: variable cost of what is produced.
        zone: where it feeds in.
    """

    unit_id: str
    maximum_mw: SeriesLike
    minimum_mw: SeriesLike = 0.0
    cost_eur_per_mwh: float = 0.0
    zone: str = ONE_ZONE

    def __post_init__(self) -> None:
        check_kinds(f"unit {self.unit_id}", self)


@dataclass(frozen=True, eq=False)
class Storage:
    """A battery, a pumped-storage plant or, with inflow, a hydro reservoir. Energies count inside the store.

    Args:
        storage_id: its name.
        charge_mw, discharge_mw: highest power at the grid's side, MW.
        energy_mwh: highest state of charge.
        minimum_mwh: lowest state of charge.
        charge_efficiency, discharge_efficiency: in (0, 1].
        initial_mwh: state of charge just before the first interval.
        final_mwh: state of charge to reach at least at the end; None leaves it free.
        final_value_eur_per_mwh: worth of what is left at the end (water value); what was there at the beginning counts against it.
        wear_eur_per_mwh: wear for each MWh charged and for each MWh discharged.
        inflow_mw: natural inflow by interval, MW of stored energy.
        minimum_release_mw: least discharge plus spill by interval (downstream users), MW.
        can_spill: surplus water may bypass the turbine.
        provides_reserve: takes part in spinning reserve.
        reserve_hours: how long called reserve must be sustained from the state of charge.
        zone: where it is connected.
    """

    storage_id: str
    charge_mw: float
    discharge_mw: float
    energy_mwh: float
    minimum_mwh: float = 0.0
    charge_efficiency: float = 1.0
    discharge_efficiency: float = 1.0
    initial_mwh: float = 0.0
    final_mwh: float | None = None
    final_value_eur_per_mwh: float = 0.0
    wear_eur_per_mwh: float = 0.0
    inflow_mw: SeriesLike = 0.0
    minimum_release_mw: float = 0.0
    can_spill: bool = False
    provides_reserve: bool = True
    reserve_hours: float = 1.0
    zone: str = ONE_ZONE

    def __post_init__(self) -> None:
        me = f"storage {self.storage_id}"
        check_kinds(me, self)
        check_not_negative(
            me,
            charge_mw=self.charge_mw,
            discharge_mw=self.discharge_mw,
            energy_mwh=self.energy_mwh,
            minimum_mwh=self.minimum_mwh,
            wear_eur_per_mwh=self.wear_eur_per_mwh,
            minimum_release_mw=self.minimum_release_mw,
            reserve_hours=self.reserve_hours,
        )
        if self.minimum_mwh > self.energy_mwh:
            refuse(
                me,
                f"minimum state of charge {self.minimum_mwh:g} MWh lies above its capacity {self.energy_mwh:g} MWh",
                "Correct the limits.",
            )
        for name, efficiency in (("charge", self.charge_efficiency), ("discharge", self.discharge_efficiency)):
            if not 0.0 < efficiency <= 1.0:
                refuse(
                    me, f"expected a {name} efficiency above 0 and at most 1, found {efficiency:g}", "Give it as a fraction, 0.94 for 94 %."
                )
        for name, level in (("initial", self.initial_mwh), ("final", self.final_mwh)):
            if level is not None and not self.minimum_mwh - MW_TOLERANCE <= level <= self.energy_mwh + MW_TOLERANCE:
                refuse(
                    me,
                    f"{name} state of charge {level:g} MWh lies outside its limits {self.minimum_mwh:g} to {self.energy_mwh:g} MWh",
                    f"Correct the {name} state of charge or the limits.",
                )


def hydro_reservoir(
    storage_id: str,
    *,
    turbine_mw: float,
    energy_mwh: float,
    inflow_mw: SeriesLike,
    initial_mwh: float,
    water_value_eur_per_mwh: float = 0.0,
    final_mwh: float | None = None,
    pump_mw: float = 0.0,
    pump_efficiency: float = 1.0,
    minimum_mwh: float = 0.0,
    minimum_release_mw: float = 0.0,
    zone: str = ONE_ZONE,
) -> Storage:
    """A hydro reservoir as a `Storage` with inflow and spill; water counts as the energy its turbine makes of it."""
    return Storage(
        storage_id=storage_id,
        charge_mw=pump_mw,
        discharge_mw=turbine_mw,
        energy_mwh=energy_mwh,
        minimum_mwh=minimum_mwh,
        charge_efficiency=pump_efficiency,
        initial_mwh=initial_mwh,
        final_mwh=final_mwh,
        final_value_eur_per_mwh=water_value_eur_per_mwh,
        inflow_mw=inflow_mw,
        minimum_release_mw=minimum_release_mw,
        can_spill=True,
        zone=zone,
    )


@dataclass(frozen=True)
class ShiftableLoad:
    """Demand that must have its energy within a window, at any time in it (heat pumps, charging, cold stores).

    Args:
        load_id: its name.
        energy_mwh: energy to deliver in the window, on top of the problem's demand.
        maximum_mw: highest power.
        window: (start, end) in UTC; the load may run in the intervals that lie wholly inside. None: the whole horizon.
        provides_reserve: can be cut at once, so its running power counts as reserve.
        zone: where it is connected.
    """

    load_id: str
    energy_mwh: float
    maximum_mw: float
    window: tuple[datetime, datetime] | None = None
    provides_reserve: bool = True
    zone: str = ONE_ZONE

    def __post_init__(self) -> None:
        check_kinds(f"load {self.load_id}", self)
        check_not_negative(f"load {self.load_id}", energy_mwh=self.energy_mwh, maximum_mw=self.maximum_mw)


@dataclass(frozen=True, eq=False)
class InterruptibleLoad:
    """Demand, contained in the problem's demand, that may be cut at a price.

    Args:
        load_id: its name.
        maximum_mw: most that may be cut, by interval.
        price_eur_per_mwh: paid for each MWh cut.
        maximum_energy_mwh: most that may be cut over the horizon; None leaves it free.
        provides_reserve: what is not cut counts as reserve.
        zone: where it is connected.
    """

    load_id: str
    maximum_mw: SeriesLike
    price_eur_per_mwh: float
    maximum_energy_mwh: float | None = None
    provides_reserve: bool = True
    zone: str = ONE_ZONE

    def __post_init__(self) -> None:
        check_kinds(f"load {self.load_id}", self)


@dataclass(frozen=True, eq=False)
class Market:
    """The grid connection: energy bought and sold at a price by interval.

    Args:
        import_price_eur_per_mwh: price paid, by interval.
        export_price_eur_per_mwh: price received, by interval; at most the import price. None: the import price.
        import_limit_mw, export_limit_mw: limits of the connection, by interval.
        zone: where it is connected.
    """

    import_price_eur_per_mwh: SeriesLike
    export_price_eur_per_mwh: SeriesLike | None = None
    import_limit_mw: SeriesLike = 0.0
    export_limit_mw: SeriesLike = 0.0
    zone: str = ONE_ZONE


@dataclass(frozen=True)
class EnergyContract:
    """A supply contract, take-or-pay where a minimum energy is agreed.

    Args:
        contract_id: its name.
        maximum_mw: highest power that may be called.
        price_eur_per_mwh: price of what is taken.
        minimum_energy_mwh: energy of the horizon that is paid for even when not taken.
        zone: where it is delivered.
    """

    contract_id: str
    maximum_mw: float
    price_eur_per_mwh: float
    minimum_energy_mwh: float = 0.0
    zone: str = ONE_ZONE

    def __post_init__(self) -> None:
        check_kinds(f"contract {self.contract_id}", self)
        check_not_negative(f"contract {self.contract_id}", maximum_mw=self.maximum_mw, minimum_energy_mwh=self.minimum_energy_mwh)


@dataclass(frozen=True)
class Line:
    """A connection between zones.

    Args:
        line_id: its name.
        from_zone, to_zone: its ends; flow counts positive from the first to the second.
        forward_mw, backward_mw: limits of the flow in each direction; None backward means as forward.
        reactance_pu: series reactance on a 100 MVA base; given for DC power flow, None for a transfer that can be set freely.
    """

    line_id: str
    from_zone: str
    to_zone: str
    forward_mw: float
    backward_mw: float | None = None
    reactance_pu: float | None = None

    def __post_init__(self) -> None:
        me = f"line {self.line_id}"
        check_kinds(me, self)
        check_not_negative(me, forward_mw=self.forward_mw, backward_mw=self.limit_backward_mw)
        if self.from_zone == self.to_zone:
            refuse(me, f"both ends lie in zone {self.from_zone}", "Connect two different zones.")
        if self.reactance_pu is not None and not self.reactance_pu > 0.0:
            refuse(me, f"expected a reactance above 0, found {self.reactance_pu:g}", "Leave it out for a transfer that can be set freely.")

    @property
    def limit_backward_mw(self) -> float:
        """Limit of the flow from `to_zone` to `from_zone`, MW."""
        return self.forward_mw if self.backward_mw is None else self.backward_mw


@dataclass(frozen=True)
class Penalties:
    """What it costs not to meet a requirement, so that there is always a plan.

    Args:
        unserved_eur_per_mwh: value of lost load.
        surplus_eur_per_mwh: energy that had to be produced and nobody takes.
        reserve_shortfall_eur_per_mwh: missing upward reserve, per MW and hour.
        reserve_down_shortfall_eur_per_mwh: missing downward reserve.
        curtailment_eur_per_mwh: renewable energy available and not used.
        state_of_charge_eur_per_mwh: energy missing in a store that can't keep its limits or reach its final state.
        last_resort: shortfalls are not traded against cost: they occur only where no plan without them is found.
    """

    unserved_eur_per_mwh: float = 10_000.0
    surplus_eur_per_mwh: float = 1_000.0
    reserve_shortfall_eur_per_mwh: float = 2_000.0
    reserve_down_shortfall_eur_per_mwh: float = 500.0
    curtailment_eur_per_mwh: float = 0.0
    state_of_charge_eur_per_mwh: float = 10_000.0
    last_resort: bool = False

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not value >= 0.0:
                refuse("penalties", f"expected {name} of at least 0, found {value:g}", "Give a price that is not negative.")


@dataclass(frozen=True, eq=False)
class DispatchProblem:
    """A fleet and the horizon it faces.

    Args:
        interval_start: starts of the intervals, UTC, evenly spaced.
        interval_hours: length of an interval in hours (0.25, 0.5, 1).
        demand_mw: demand by interval, or by zone and interval.
        reserve_mw: spinning (upward) reserve required by interval.
        reserve_down_mw: downward reserve required by interval.
        thermal, renewables, storages, shiftable, interruptible, contracts: what can be dispatched.
        market: the grid connection, or several of them.
        lines: connections between zones.
        penalties: price of what can't be met.
        co2_price_eur_per_t: applied to `co2_t_per_mwh` of thermal units.

    Raises:
        DispatchError: something contradicts itself; the message names unit, value and interval.
    """

    interval_start: Sequence[datetime]
    interval_hours: float
    demand_mw: SeriesLike | Mapping[str, SeriesLike]
    reserve_mw: SeriesLike = 0.0
    reserve_down_mw: SeriesLike = 0.0
    thermal: Sequence[ThermalUnit] = ()
    renewables: Sequence[Renewable] = ()
    storages: Sequence[Storage] = ()
    shiftable: Sequence[ShiftableLoad] = ()
    interruptible: Sequence[InterruptibleLoad] = ()
    contracts: Sequence[EnergyContract] = ()
    market: Market | Sequence[Market] | None = None
    lines: Sequence[Line] = ()
    penalties: Penalties = field(default_factory=Penalties)
    co2_price_eur_per_t: float = 0.0

    def __post_init__(self) -> None:
        self._check_clock()
        put = lambda name, value: object.__setattr__(self, name, value)  # noqa: E731 - frozen: the one place that normalises
        put("interval_start", tuple(self.interval_start))
        by_zone = self.demand_mw if isinstance(self.demand_mw, Mapping) else {ONE_ZONE: self.demand_mw}
        put("demand_mw", {zone: self._series(f"demand of zone {zone}", demand, "MW") for zone, demand in by_zone.items()})
        put("reserve_mw", self._series("reserve requirement", self.reserve_mw, "MW"))
        put("reserve_down_mw", self._series("downward reserve requirement", self.reserve_down_mw, "MW"))
        markets = () if self.market is None else (self.market,) if isinstance(self.market, Market) else tuple(self.market)
        put("market", tuple(self._with_series_market(market) for market in markets))
        put("renewables", tuple(self._with_series_renewable(unit) for unit in self.renewables))
        put(
            "storages",
            tuple(replace(s, inflow_mw=self._series(f"storage {s.storage_id}, inflow", s.inflow_mw, "MW")) for s in self.storages),
        )
        put(
            "interruptible",
            tuple(replace(x, maximum_mw=self._series(f"load {x.load_id}, maximum", x.maximum_mw, "MW")) for x in self.interruptible),
        )
        for name in ("thermal", "shiftable", "contracts", "lines"):
            put(name, tuple(getattr(self, name)))
        self._check_names_and_zones()
        self._check_shiftable()

    @property
    def horizon(self) -> int:
        """Number of intervals."""
        return len(self.interval_start)

    @property
    def total_demand_mw(self) -> np.ndarray:
        """Demand of all zones by interval, MW."""
        return np.sum([np.asarray(series) for series in self.demand_mw.values()], axis=0)  # type: ignore[union-attr]

    @property
    def zones(self) -> tuple[str, ...]:
        """Zones, in the order of the demand."""
        return tuple(self.demand_mw)  # type: ignore[arg-type]

    @property
    def markets(self) -> tuple[Market, ...]:
        """The grid connections as a tuple."""
        return self.market  # type: ignore[return-value]

    def interval_of(self, moment: datetime) -> int:
        """Number (from 0) of the interval that contains a moment in UTC."""
        _check_utc("interval", "moment", moment)
        number = int((moment - self.interval_start[0]) // timedelta(hours=self.interval_hours))
        if not 0 <= number < self.horizon:
            raise DispatchError(
                f"expected a time within the plan, {self.interval_start[0]:%Y-%m-%d %H:%M} to "
                f"{self.interval_start[-1]:%Y-%m-%d %H:%M} UTC, "
                f"found {moment:%Y-%m-%d %H:%M} UTC",
                "Ask for an interval of the plan.",
            )
        return number

    def _check_clock(self) -> None:
        starts = list(self.interval_start)
        if not starts:
            refuse("problem", "expected at least one interval, found none", "Give interval_start.")
        if not self.interval_hours > 0:
            refuse("problem", f"expected an interval length above 0 h, found {self.interval_hours:g} h", "Use 0.25, 0.5 or 1 hour.")
        for start in starts:
            _check_utc("problem", "interval_start", start)
        step = timedelta(hours=self.interval_hours)
        for before, after in itertools.pairwise(starts):
            if after - before != step:
                refuse(
                    "problem",
                    f"expected intervals of {self.interval_hours:g} h without gaps, found {before:%Y-%m-%d %H:%M} followed "
                    f"by {after:%Y-%m-%d %H:%M} UTC",
                    "Supply the missing intervals.",
                )

    def _series(self, what: str, values: SeriesLike, unit: str, may_be_negative: bool = False) -> np.ndarray:
        try:
            array = np.asarray(values, float)
        except (TypeError, ValueError, OverflowError):
            raise DispatchError(f"{what}: expected numbers in {unit}, found {shown(values)}", "Correct the series.") from None
        if array.ndim == 0:
            array = np.full(len(self.interval_start), float(array))
        if array.shape != (len(self.interval_start),):
            raise DispatchError(
                f"{what}: expected {len(self.interval_start)} values in {unit}, one for each interval, found {array.size}",
                "Give one value for each interval, or a single one for all.",
            )
        for bad, reason in (
            (np.isnan(array), "no value"),
            (np.zeros(array.shape, bool) if may_be_negative else array < 0, "a negative value"),
        ):
            if bad.any():
                at = int(np.flatnonzero(bad)[0])
                raise DispatchError(
                    f"{what}: {reason} in interval {self.interval_start[at]:%Y-%m-%d %H:%M} UTC ({array[at]:g} {unit}; "
                    f"{int(bad.sum())} such intervals)",
                    "Complete the forecast before planning." if reason == "no value" else "Correct the series.",
                )
        array.setflags(write=False)
        return array

    def _crossing(self, what: str, lower: np.ndarray, upper: np.ndarray, lower_name: str, upper_name: str, unit: str) -> None:
        crossed = np.flatnonzero(lower > upper + MW_TOLERANCE)
        if len(crossed):
            at = int(crossed[0])
            refuse(
                what,
                f"{lower_name} {lower[at]:g} {unit} lies above {upper_name} {upper[at]:g} {unit} in interval "
                f"{self.interval_start[at]:%Y-%m-%d %H:%M} UTC",
                "Correct the two series.",
            )

    def _with_series_renewable(self, unit: Renewable) -> Renewable:
        me = f"unit {unit.unit_id}"
        upper = self._series(f"{me}, maximum (forecast)", unit.maximum_mw, "MW")
        lower = self._series(f"{me}, minimum", unit.minimum_mw, "MW")
        self._crossing(me, lower, upper, "minimum", "maximum", "MW")
        return replace(unit, maximum_mw=upper, minimum_mw=np.minimum(lower, upper))

    def _with_series_market(self, market: Market) -> Market:
        buy = self._series("market, import price", market.import_price_eur_per_mwh, "EUR/MWh", may_be_negative=True)
        sell = market.export_price_eur_per_mwh
        sell = buy if sell is None else self._series("market, export price", sell, "EUR/MWh", may_be_negative=True)
        self._crossing("market", sell, buy, "export price", "import price", "EUR/MWh")
        return replace(
            market,
            import_price_eur_per_mwh=buy,
            export_price_eur_per_mwh=sell,
            import_limit_mw=self._series("market, import limit", market.import_limit_mw, "MW"),
            export_limit_mw=self._series("market, export limit", market.export_limit_mw, "MW"),
        )

    def _check_names_and_zones(self) -> None:
        named = [(u.unit_id, u.zone) for u in self.thermal] + [(u.unit_id, u.zone) for u in self.renewables]
        named += [(s.storage_id, s.zone) for s in self.storages]
        named += [(x.load_id, x.zone) for x in self.shiftable] + [(x.load_id, x.zone) for x in self.interruptible]
        named += [(c.contract_id, c.zone) for c in self.contracts]
        seen: set[str] = set()
        for name, zone in named:
            if name in seen:
                refuse(f"unit {name}", "the name is used twice", "Give every unit, storage, load and contract its own name.")
            seen.add(name)
            if zone not in self.zones:
                refuse(
                    f"unit {name}",
                    f"lies in zone {zone}, which has no demand series; known are {', '.join(self.zones)}",
                    "Add the zone's demand (0 MW is fine).",
                )
        for line in self.lines:
            for zone in (line.from_zone, line.to_zone):
                if zone not in self.zones:
                    refuse(
                        f"line {line.line_id}", f"ends in zone {zone}, which has no demand series", "Add the zone's demand (0 MW is fine)."
                    )
        for market in self.markets:
            if market.zone not in self.zones:
                refuse("market", f"lies in zone {market.zone}, which has no demand series", "Add the zone's demand (0 MW is fine).")

    def _check_shiftable(self) -> None:
        for load in self.shiftable:
            hours = len(self.window_of(load)) * self.interval_hours
            if load.energy_mwh > load.maximum_mw * hours + MW_TOLERANCE:
                refuse(
                    f"load {load.load_id}",
                    f"needs {load.energy_mwh:g} MWh, but its window gives it {hours:g} h at {load.maximum_mw:g} MW",
                    "Widen the window, raise the power or lower the energy.",
                )

    def window_of(self, load: ShiftableLoad) -> range:
        """Numbers of the intervals that lie wholly inside a shiftable load's window."""
        if load.window is None:
            return range(self.horizon)
        step = timedelta(hours=self.interval_hours)
        inside = [i for i, start in enumerate(self.interval_start) if load.window[0] <= start and start + step <= load.window[1]]
        return range(inside[0], inside[-1] + 1) if inside else range(0)


def _check_utc(owner: str, name: str, moment: datetime) -> None:
    if moment.tzinfo is None or moment.utcoffset() != timedelta(0):
        refuse(owner, f"expected {name} in UTC, found {moment.isoformat()}", "Convert local times with the site's time zone first.")


def utc_intervals(start: datetime, count: int, interval_hours: float) -> tuple[datetime, ...]:
    """`count` evenly spaced interval starts from `start` (a start without a zone is taken as UTC)."""
    first = start.replace(tzinfo=UTC) if start.tzinfo is None else start.astimezone(UTC)
    return tuple(first + timedelta(hours=interval_hours) * i for i in range(count))
