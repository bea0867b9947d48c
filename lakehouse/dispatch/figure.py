"""The picture of a plan: who covers demand when, what is stored, how much reserve is held, and at what price.

Only drawing lives here; it reads the plan's tables.
"""

from __future__ import annotations

import io
import itertools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from lakehouse.dispatch.fleet import DispatchProblem
from lakehouse.dispatch.solution import DispatchSolution

MOST_THERMAL_BANDS = 8
# Colour-blind safe (Okabe & Ito), fixed meanings; thermal bands go from dark (base load) to light (peaking).
SUN_WIND, IMPORT, DISCHARGE, CUT, UNSERVED = "#F0C000", "#8C8C8C", "#009E73", "#CC79A7", "#D55E00"
RENEWABLE = {"hydro": "#0072B2", "wind": "#56B4E9", "solar": SUN_WIND, "renewable": SUN_WIND}
THERMAL = ["#33272A", "#523F3B", "#70574E", "#8E7162", "#AA8D7B", "#C4AB98", "#DCC9B9", "#EFE5DB"]
INK = "#29426B"


def plan_figure(
    problem: DispatchProblem,
    solution: DispatchSolution,
    group_of: Callable[[str], str] | None = None,
    *,
    time_zone: str = "UTC",
    kind_of: Mapping[str, str] | None = None,
    title: str | None = None,
) -> Any:
    """Draws the plan.

    Args:
        problem: fleet and horizon.
        solution: the plan.
        group_of: name of the band a thermal unit belongs to (fuel, plant); without it, large fleets are grouped by running cost.
        time_zone: whose clock the axis shows.
        kind_of: wind, solar or hydro, by renewable unit; without it, they share one band.
        title: stands above the picture; by default the plan's start, cost and gap, and none if it is empty.

    Returns:
        A matplotlib figure: output by source with demand, stored energy, reserve, prices, over one clock.
    """
    from matplotlib.figure import Figure

    starts = pd.DatetimeIndex(list(problem.interval_start))
    edges = starts.append(pd.DatetimeIndex([starts[-1] + pd.Timedelta(hours=problem.interval_hours)]))
    # Naive stamps that run on as the hours do: on a day of a clock change the labels before it are the old clock's.
    offset = edges[0].tz_convert(time_zone).utcoffset()
    edges = edges.tz_localize(None) + offset
    panels = ["output"] + ["storage"] * bool(problem.storages) + ["reserve"] * bool(np.any(problem.reserve_mw)) + ["price"]
    heights = {"output": 3.6, "storage": 1.2, "reserve": 1.0, "price": 1.2}
    figure = Figure(figsize=(12, 1.6 + sum(heights[p] for p in panels) * 1.25), layout="constrained")
    axes = np.atleast_1d(figure.subplots(len(panels), 1, sharex=True, height_ratios=[heights[p] for p in panels]))
    draw = {"output": _output, "storage": _storage, "reserve": _reserve, "price": _price}
    kinds = {unit.unit_id: (kind_of or {}).get(unit.unit_id, "renewable") for unit in problem.renewables}
    for axis, panel in zip(axes, panels, strict=True):
        draw[panel](axis, edges, problem, solution, group_of, kinds)
        axis.grid(axis="y", color="#E3E3E3", linewidth=0.7)
        axis.set_axisbelow(True)
        axis.margins(x=0)
        for side in ("top", "right"):
            axis.spines[side].set_visible(False)
        axis.legend(loc="upper left", bbox_to_anchor=(1.005, 1.02), frameon=False, fontsize=8.5, borderaxespad=0)
    _clock(axes[-1], edges, time_zone)
    if title != "":
        figure.suptitle(title or _title(edges[0], time_zone, solution), x=0.01, ha="left", fontsize=12, fontweight="bold")
    return figure


def figure_png(figure: Any, dots_per_inch: int = 110) -> bytes:
    """A figure as PNG bytes."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    buffer = io.BytesIO()
    FigureCanvasAgg(figure)
    figure.savefig(buffer, format="png", dpi=dots_per_inch)
    return buffer.getvalue()


def _title(begins: pd.Timestamp, time_zone: str, solution: DispatchSolution) -> str:
    s = solution.summary
    gap = f"at most {100 * s['gap']:.2f} % above the optimum" if np.isfinite(s["gap"]) else "no bound proved"
    unmet = f", {len(solution.violations)} requirements unmet" if len(solution.violations) else ""
    return f"Dispatch plan from {begins:%Y-%m-%d %H:%M} ({time_zone}): {s['objective_eur']:,.0f} EUR, {gap}{unmet}"


def _clock(axis: Any, edges: pd.DatetimeIndex, time_zone: str) -> None:
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

    locator = AutoDateLocator(minticks=6, maxticks=14)
    axis.xaxis.set_major_locator(locator)
    days, hours = "%a %d %b", "%H:%M"  # a midnight shows its day
    formats, midnights = ["%Y", "%b", days, hours, hours, hours], ["", "%Y", days, days, hours, hours]
    axis.xaxis.set_major_formatter(ConciseDateFormatter(locator, formats=formats, zero_formats=midnights, show_offset=False))
    axis.set_xlim(edges[0], edges[-1])
    axis.set_xlabel(time_zone)


def _wide(table: pd.DataFrame, key: str, value: str, horizon: int) -> pd.DataFrame:
    if not len(table):
        return pd.DataFrame(index=range(1, horizon + 1))
    return table.pivot_table(index="period", columns=key, values=value, aggfunc="sum", sort=False)


def _thermal_bands(
    problem: DispatchProblem, solution: DispatchSolution, group_of: Callable[[str], str] | None
) -> list[tuple[str, np.ndarray]]:
    """Thermal output in at most `MOST_THERMAL_BANDS` bands, cheapest first."""
    thermal = solution.plan[solution.plan["unit_kind"] == "thermal"]
    power = _wide(thermal, "unit_id", "power_mw", problem.horizon)
    co2 = problem.co2_price_eur_per_t
    cost = {unit.unit_id: unit.cost_curve[-1][1] / max(unit.maximum_mw, 1e-9) + unit.co2_t_per_mwh * co2 for unit in problem.thermal}
    if group_of is None and len(cost) <= MOST_THERMAL_BANDS:
        group_of = lambda unit_id: unit_id  # noqa: E731
    if group_of is None:
        running = [u for u in cost if power[u].sum() > 0] or list(cost)
        cuts = np.unique(np.round(np.quantile([cost[u] for u in running], np.linspace(0, 1, MOST_THERMAL_BANDS // 2 + 2)[1:-1]), 0))
        labels = [
            f"thermal below {cuts[0]:.0f} EUR/MWh",
            *(f"thermal, {a:.0f} to {b:.0f} EUR/MWh" for a, b in itertools.pairwise(cuts)),
            f"thermal from {cuts[-1]:.0f} EUR/MWh",
        ]
        group_of = lambda unit_id: labels[int(np.searchsorted(cuts, cost[unit_id], side="right"))]  # noqa: E731
    grouped: dict[str, list[str]] = {}
    for unit_id in cost:
        grouped.setdefault(group_of(unit_id), []).append(unit_id)
    order = sorted(grouped, key=lambda name: np.mean([cost[u] for u in grouped[name]]))
    bands = [(name, power[grouped[name]].sum(axis=1).to_numpy()) for name in order]
    bands = [(name, values) for name, values in bands if values.max() > 1e-6]
    if len(bands) > MOST_THERMAL_BANDS:
        bands = [*bands[: MOST_THERMAL_BANDS - 1], ("other thermal", sum(values for _, values in bands[MOST_THERMAL_BANDS - 1 :]))]
    return bands


def _steps(values: np.ndarray) -> np.ndarray:
    return np.append(values, values[-1])


def _output(
    axis: Any,
    edges: pd.DatetimeIndex,
    problem: DispatchProblem,
    solution: DispatchSolution,
    group_of: Callable[[str], str] | None,
    kinds: Mapping[str, str],
) -> None:
    horizon = problem.horizon
    bands: list[tuple[str, np.ndarray, str]] = []
    thermal = _thermal_bands(problem, solution, group_of) if problem.thermal else []
    shades = [THERMAL[round(i * (len(THERMAL) - 2) / max(len(thermal) - 1, 1))] for i in range(len(thermal))]
    bands += [(name, values, colour) for (name, values), colour in zip(thermal, shades, strict=True)]
    renewable = solution.plan[solution.plan["unit_kind"] == "renewable"]
    used = np.zeros(horizon)
    for kind, colour in RENEWABLE.items():
        own = renewable[renewable["unit_id"].map(kinds) == kind]
        if len(own):
            power = _wide(own, "unit_id", "power_mw", horizon).sum(axis=1).to_numpy()
            bands.append((kind, power, colour))
            used = used + power
    available = _wide(renewable, "unit_id", "available_mw", horizon).sum(axis=1).to_numpy() if len(renewable) else used
    exchange = {
        kind: _wide(rows, "source_id", "power_mw", horizon).sum(axis=1).to_numpy()
        for kind, rows in solution.exchange.groupby("source_kind")
    }
    bought = exchange.get("import", np.zeros(horizon)) + exchange.get("contract", np.zeros(horizon))
    discharge = (
        _wide(solution.storage, "storage_id", "discharge_mw", horizon).sum(axis=1).to_numpy() if problem.storages else np.zeros(horizon)
    )
    charge = _wide(solution.storage, "storage_id", "charge_mw", horizon).sum(axis=1).to_numpy() if problem.storages else np.zeros(horizon)
    unserved = np.zeros(horizon)
    for row in solution.violations[solution.violations["kind"] == "unserved energy"].itertuples():
        unserved[row.period - 1] += row.amount
    bands += [
        ("import, contracts", bought, IMPORT),
        ("storage discharging", discharge, DISCHARGE),
        ("interrupted load", exchange.get("interrupted", np.zeros(horizon)), CUT),
        ("unserved", unserved, UNSERVED),
    ]
    base = np.zeros(horizon)
    for name, values, colour in bands:
        if values.max(initial=0.0) > 1e-6:
            axis.fill_between(edges, _steps(base), _steps(base + values), step="post", color=colour, linewidth=0, label=name)
            base = base + values
    curtailed = available - used
    if curtailed.max(initial=0.0) > 1e-3:
        axis.fill_between(
            edges,
            _steps(base),
            _steps(base + curtailed),
            step="post",
            facecolor="none",
            edgecolor=SUN_WIND,
            hatch="////",
            linewidth=0,
            label="curtailed",
        )
    below = np.zeros(horizon)
    for name, values, colour in (
        ("storage charging", charge, DISCHARGE),
        ("export", -exchange.get("export", np.zeros(horizon)), IMPORT),
        ("shiftable load", -exchange.get("shiftable", np.zeros(horizon)), CUT),
    ):
        if values.max(initial=0.0) > 1e-6:
            axis.fill_between(edges, _steps(below), _steps(below - values), step="post", color=colour, alpha=0.55, linewidth=0, label=name)
            below = below - values
    axis.step(edges, _steps(problem.total_demand_mw), where="post", color="black", linewidth=1.6, label="demand")
    if below.min() < 0:
        axis.axhline(0, color="black", linewidth=0.8)
    else:
        axis.set_ylim(bottom=0)
    axis.set_ylabel("MW")
    axis.set_title("Output by source", loc="left", fontsize=10)


def _storage(axis: Any, edges: pd.DatetimeIndex, problem: DispatchProblem, solution: DispatchSolution, group_of: Any, kinds: Any) -> None:
    level = _wide(solution.storage, "storage_id", "state_of_charge_mwh", problem.horizon)
    full = sum(store.energy_mwh for store in problem.storages)
    before = sum(store.initial_mwh for store in problem.storages)
    total = np.concatenate([[before], level.sum(axis=1).to_numpy()])
    axis.fill_between(edges, 0, total, color=DISCHARGE, alpha=0.35, linewidth=0)
    axis.plot(
        edges, total, color=DISCHARGE, linewidth=1.6, label=f"stored, {len(problem.storages)} storage{'s' * (len(problem.storages) > 1)}"
    )
    axis.axhline(full, color=DISCHARGE, linewidth=0.9, linestyle=":", label=f"full, {full:,.3g} MWh")
    axis.set_ylim(0, full * 1.08 if full > 0 else 1)
    axis.set_ylabel("MWh")
    axis.set_title("Stored energy at the end of each interval", loc="left", fontsize=10)


def _reserve(axis: Any, edges: pd.DatetimeIndex, problem: DispatchProblem, solution: DispatchSolution, group_of: Any, kinds: Any) -> None:
    base = np.zeros(problem.horizon)
    for name, table, key, colour in (
        ("thermal units", solution.plan, "unit_id", THERMAL[4]),
        ("storage", solution.storage, "storage_id", DISCHARGE),
        ("flexible load", solution.exchange, "source_id", CUT),
    ):
        values = _wide(table, key, "reserve_mw", problem.horizon).sum(axis=1).to_numpy() if len(table) else base * 0
        if values.max(initial=0.0) > 1e-6:
            axis.fill_between(edges, _steps(base), _steps(base + values), step="post", color=colour, alpha=0.6, linewidth=0, label=name)
            base = base + values
    axis.step(edges, _steps(np.asarray(problem.reserve_mw)), where="post", color="black", linewidth=1.4, label="required")
    axis.set_ylim(bottom=0)
    axis.set_ylabel("MW")
    axis.set_title("Spinning reserve", loc="left", fontsize=10)


def _price(axis: Any, edges: pd.DatetimeIndex, problem: DispatchProblem, solution: DispatchSolution, group_of: Any, kinds: Any) -> None:
    prices = _wide(solution.prices, "zone", "energy_eur_per_mwh", problem.horizon)
    colours = [INK, "#D55E00", "#009E73", "#CC79A7"]
    for i, zone in enumerate(prices.columns[:4]):
        label = "energy" if len(prices.columns) == 1 else f"energy, {zone}"
        axis.step(edges, _steps(prices[zone].to_numpy()), where="post", color=colours[i], linewidth=1.5, label=label)
    if np.any(problem.reserve_mw):
        reserve = _wide(solution.prices, "zone", "reserve_eur_per_mw_h", problem.horizon).iloc[:, 0].to_numpy()
        axis.step(edges, _steps(reserve), where="post", color="#8C8C8C", linewidth=1.2, linestyle="--", label="reserve (EUR/MW h)")
    for market in problem.markets[:1]:
        buy, sell = _steps(np.asarray(market.import_price_eur_per_mwh)), _steps(np.asarray(market.export_price_eur_per_mwh))
        axis.fill_between(edges, sell, buy, step="post", color=IMPORT, alpha=0.3, linewidth=0, label="market, selling to buying")
        axis.step(edges, buy, where="post", color="black", linewidth=0.8, linestyle=":")
    axis.set_ylabel("EUR/MWh")
    axis.set_title("Marginal price, commitments fixed", loc="left", fontsize=10)
