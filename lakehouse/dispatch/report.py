"""A plan as one HTML page that needs nothing beside it: the picture, what it costs, what could not be met, who runs and why.

Only words and drawing: everything is read from the problem, the plan's tables and `reasons`.
"""

from __future__ import annotations

import html
import io
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd

from lakehouse.dispatch.binding import binding_constraints
from lakehouse.dispatch.figure import plan_figure
from lakehouse.dispatch.fleet import DispatchProblem
from lakehouse.dispatch.reasons import earnings, explain
from lakehouse.dispatch.solution import DispatchSolution

MOST_BINDING = 12
MOST_EXPLAINED = 40
NEAR_MW = 1e-6

COST_WORDS = {
    "no_load_eur": "running at minimum",
    "production_eur": "output above minimum",
    "start_up_eur": "starts",
    "renewable_eur": "wind, sun and river",
    "import_eur": "energy bought",
    "export_revenue_eur": "energy sold",
    "contract_eur": "contracts",
    "interruption_eur": "interrupted load",
    "storage_wear_eur": "wear of stores",
    "value_of_stored_energy_eur": "energy added to stores",
    "curtailment_eur": "curtailment",
    "unserved_eur": "unserved energy",
    "surplus_eur": "surplus energy",
    "reserve_shortfall_eur": "missing reserve",
    "state_of_charge_shortfall_eur": "missing stored energy",
}
INCOME = ("export_revenue_eur", "value_of_stored_energy_eur")


def plan_report(
    problem: DispatchProblem,
    solution: DispatchSolution,
    *,
    title: str = "Dispatch plan",
    time_zone: str = "UTC",
    facts: Mapping[str, str] | None = None,
    is_verified: bool = True,
    kind_of: Mapping[str, str] | None = None,
    name_of: Mapping[str, str] | None = None,
    cost_title: str = "What it costs",
) -> str:
    """Draws up the page.

    Args:
        problem: fleet and horizon.
        solution: its plan.
        title: heading.
        time_zone: whose clock the page shows.
        facts: further things to tell below the heading, such as the forecast that the plan follows.
        is_verified: the checker's verdict.
        kind_of: wind, solar or hydro, by renewable unit.
        name_of: what grid connections are called, by the optimiser's name.
        cost_title: heading over the cost by part, where that is not the whole plan's.

    Returns:
        HTML with style and picture inside; no script, nothing is fetched.
    """
    page = _Page(problem, solution, ZoneInfo(time_zone), dict(name_of or {}))
    figure = plan_figure(problem, solution, time_zone=time_zone, kind_of=kind_of, title="")
    sections = [
        ("The plan", f"<div class='picture'>{_svg(figure)}</div>"),
        ("What could not be met", page.violations()),
        ("Who runs, and why", page.units()),
        ("Stores", page.storages()),
        ("Trade and flexible load", page.exchange()),
        (cost_title, page.costs()),
        ("What binds", page.binding()),
        ("Hour by hour" if problem.interval_hours == 1 else "Interval by interval", page.intervals()),
    ]
    half = (cost_title, "What binds")
    body = "\n".join(
        f"<section{' class=half' * (name in half)}><h2>{html.escape(name)}</h2>\n{content}\n</section>"
        for name, content in sections
        if content
    )
    told = "".join(f"<span><b>{html.escape(k)}</b> {html.escape(v)}</span>" for k, v in (facts or {}).items())
    return _PAGE.format(
        title=html.escape(title),
        badges=page.badges(is_verified),
        facts=f"<p class='facts'>{told}</p>" if told else "",
        tiles=page.tiles(),
        body=body,
    )  # fmt: skip


class _Page:
    def __init__(self, problem: DispatchProblem, solution: DispatchSolution, zone: ZoneInfo, name_of: dict[str, str]) -> None:
        self.problem, self.solution, self.zone, self.name_of = problem, solution, zone, name_of
        self.hours = problem.interval_hours
        self.digits = 3 if problem.total_demand_mw.max(initial=0.0) < 10 else 1 if problem.total_demand_mw.max(initial=0.0) < 1000 else 0
        self.prices = {str(z): rows.sort_values("period") for z, rows in solution.prices.groupby("zone")}

    # -- small change

    def clock(self, at: int) -> str:
        """Local time at which an interval begins; the horizon's end for the one behind the last."""
        if at >= self.problem.horizon:
            end = pd.Timestamp(self.problem.interval_start[-1]) + pd.Timedelta(hours=self.hours)
            local: datetime = end.tz_convert(self.zone).to_pydatetime()
            return "24:00" if local.hour == local.minute == 0 else f"{local:%H:%M}"
        return f"{self.problem.interval_start[at].astimezone(self.zone):%H:%M}"

    def mw(self, value: float) -> str:
        """A power or energy with the digits that the system's size asks for."""
        return f"{value + 0.0:,.{self.digits}f}"

    def runs(self, on: np.ndarray) -> list[tuple[int, int]]:
        """First and last interval of each stretch of true."""
        padded = np.concatenate([[False], on.astype(bool), [False]]).astype(int)
        edges = np.flatnonzero(np.diff(padded))
        return [(int(a), int(b) - 1) for a, b in zip(edges[::2], edges[1::2], strict=True)]

    def series(self, table: pd.DataFrame, key: str, name: str, column: str) -> np.ndarray:
        """A column of one unit, by interval."""
        rows = table[table[key] == name].set_index("period")[column]
        return rows.reindex(range(1, self.problem.horizon + 1), fill_value=0.0).to_numpy(float)

    # -- head

    def badges(self, is_verified: bool) -> str:
        """The verdicts, at a glance."""
        s, found = self.solution.summary, []
        found.append(("good", "verified by the checker") if is_verified else ("bad", "the checker found broken rules"))
        gap = s["gap"]
        near = f"at most {100 * gap:.2f} % above the best plan" if np.isfinite(gap) else "no bound proved"
        as_asked = s["status"] == "optimal"
        found.append(("good", near) if as_asked else ("warn", f"{near} ({s['status'].replace('_', ' ')})"))
        unmet = self.solution.violations
        found.append(("bad", f"{len(unmet)} requirement{'s' * (len(unmet) != 1)} unmet") if len(unmet) else ("good", "everything is met"))
        return "".join(f"<span class='badge {kind}'>{html.escape(text)}</span>" for kind, text in found)

    def tiles(self) -> str:
        """The few numbers of the day."""
        p, plan = self.problem, self.solution.plan
        demand = p.total_demand_mw
        energy = float(demand.sum() * self.hours)
        cost = float(self.solution.summary.get("cost_eur", self.solution.summary["objective_eur"]))
        made = plan.groupby("unit_kind")["power_mw"].sum() * self.hours
        traded = self.solution.exchange.groupby("source_kind")["power_mw"].sum() * self.hours if len(self.solution.exchange) else {}
        all_prices = np.concatenate([rows["energy_eur_per_mwh"].to_numpy() for rows in self.prices.values()])
        peak = int(demand.argmax())
        tiles = [
            ("cost" if cost >= 0 else "income", f"{abs(cost):,.0f} EUR", f"{cost / energy:,.1f} EUR per MWh served" if energy > 0 else ""),
            ("demand", f"{self.mw(energy)} MWh", f"peak {self.mw(demand[peak])} MW at {self.clock(peak)}"),
            ("thermal", f"{self.mw(float(made.get('thermal', 0.0)))} MWh", f"{self._running()} of {len(p.thermal)} units run"),
        ]
        if p.renewables:
            renewable = plan[plan["unit_kind"] == "renewable"]
            unused = float((renewable["available_mw"] - renewable["power_mw"]).clip(lower=0).sum() * self.hours)
            tiles.append(("wind, sun, river", f"{self.mw(float(made.get('renewable', 0.0)))} MWh", f"{self.mw(unused)} MWh curtailed"))
        if p.markets:
            bought, sold = float(traded.get("import", 0.0)), -float(traded.get("export", 0.0))
            tiles.append(("grid", f"{self.mw(bought)} MWh in", f"{self.mw(sold)} MWh out"))
        tiles.append(("price", f"{all_prices.mean():,.1f} EUR/MWh", f"{all_prices.min():,.1f} to {all_prices.max():,.1f}"))
        return "".join(
            f"<div class='tile'><small>{html.escape(a)}</small><b>{html.escape(b)}</b><small>{html.escape(c)}</small></div>"
            for a, b, c in tiles
        )

    def _running(self) -> int:
        thermal = self.solution.plan[self.solution.plan["unit_kind"] == "thermal"]
        return int((thermal.groupby("unit_id")["committed"].max() > 0).sum()) if len(thermal) else 0

    # -- sections

    def violations(self) -> str:
        """What could not be met, stretches of equal trouble together."""
        table = self.solution.violations
        if not len(table):
            return "<p class='quiet'>Nothing: all demand is served, all reserve is held, all limits are kept.</p>"
        lines = []
        for (kind, where), rows in table.groupby(["kind", "where"], sort=False):
            at = np.zeros(self.problem.horizon, bool)
            at[rows["period"].to_numpy(int) - 1] = True
            for first, last in self.runs(at):
                own = rows[(rows["period"] > first) & (rows["period"] <= last + 1)]
                unit = str(own["unit"].iloc[0])
                amount = float(own["amount"].sum())
                much = f"{amount * self.hours:,.3g} MWh, up to {own['amount'].max():,.3g} MW" if unit == "MW" else f"{amount:,.3g} MWh"
                lines.append(
                    f"<li><b>{self.clock(first)} to {self.clock(last + 1)}, {html.escape(str(where))}: {html.escape(str(kind))}</b>, "
                    f"{much}, priced at {own['cost_eur'].sum():,.0f} EUR.<br>"
                    f"<span class='quiet'>{html.escape(_sentence(str(own['reason'].iloc[0])))}</span></li>"
                )
        return f"<ul class='trouble'>{''.join(lines)}</ul>"

    def units(self) -> str:
        """A line per thermal unit: when it runs, how much, at what margin, and the reasons behind a fold."""
        if not self.problem.thermal:
            return ""
        rows, idle, why = [], [], []
        plan = self.solution.plan
        energy = {u.unit_id: float(self.series(plan, "unit_id", u.unit_id, "power_mw").sum()) * self.hours for u in self.problem.thermal}
        for n, unit in enumerate(sorted(self.problem.thermal, key=lambda u: -energy[u.unit_id])):
            on = self.series(plan, "unit_id", unit.unit_id, "committed") > 0.5
            if not on.any():
                idle.append(unit.unit_id)
                continue
            power = self.series(plan, "unit_id", unit.unit_id, "power_mw")
            reserve = self.series(plan, "unit_id", unit.unit_id, "reserve_mw")
            started = self.series(plan, "unit_id", unit.unit_id, "started") > 0.5
            strip = self._strip(on, power / max(unit.maximum_mw, NEAR_MW))
            spans = ", ".join(f"{self.clock(a)}–{self.clock(b + 1)}" for a, b in self.runs(on))
            if n < MOST_EXPLAINED:
                why.append(self._why(unit.unit_id, [a for a, _ in self.runs(on)]))
            margin = sum(earnings(self.problem, self.solution, unit, a, b).margin_eur for a, b in self.runs(on))
            load = 100 * power[on].mean() / max(unit.maximum_mw, NEAR_MW)
            numbers = [self.mw(energy[unit.unit_id]), f"{load:.0f} %", str(int(started.sum())), self.mw(float(reserve.mean()))]
            numbers.append("must run" if unit.must_run and margin < 0 else f"{margin:,.0f}")
            cells = "".join(f"<td class='n'>{number}</td>" for number in numbers)
            rows.append(f"<tr><td>{html.escape(unit.unit_id)}</td><td>{strip}</td><td>{spans}</td>{cells}</tr>")
        head = "".join(
            f"<th>{name}</th>" for name in ("unit", "the day", "runs", "MWh", "mean load", "starts", "mean reserve, MW", "margin, EUR")
        )
        table = (
            f"<table><tr>{head}</tr>{''.join(rows)}</table><p class='quiet'>Darker means nearer to full load. The margin is what a unit "
            f"earns at the plan's prices above its cost.</p><h3>Why</h3><div class='why'>{''.join(why)}</div>"
        )
        if not idle:
            return table
        dearest = int(np.argmax(next(iter(self.prices.values()))["energy_eur_per_mwh"].to_numpy()))
        told = {name: explain(self.problem, self.solution, name, dearest + 1, self.zone.key) for name in idle[:MOST_EXPLAINED]}
        inside = "".join(f"<p><b>{html.escape(name)}</b> {html.escape(' '.join(lines[1:]))}</p>" for name, lines in told.items())
        stay = f"{len(idle)} units stay off" if len(idle) > 1 else "1 unit stays off"
        return f"{table}<details><summary>{stay}: why, at the dearest time ({self.clock(dearest)})</summary>{inside}</details>"

    def _why(self, unit: str, starts: Sequence[int]) -> str:
        blocks = [f"<p>{html.escape(' '.join(explain(self.problem, self.solution, unit, at + 1, self.zone.key)))}</p>" for at in starts]
        return f"<details><summary>{html.escape(unit)}</summary>{''.join(blocks)}</details>"

    def _strip(self, on: np.ndarray, load: np.ndarray) -> str:
        width = 260 / len(on)
        cells = "".join(
            f"<rect x='{a * width:.2f}' width='{(b - a + 1) * width + 0.3:.2f}' height='14' fill='#70574E' fill-opacity='{share:.2f}'/>"
            for a, b, share in _steps(np.where(on, 0.25 + 0.75 * np.clip(load, 0, 1), 0.0))
            if share > 0
        )
        return (
            f"<svg class='strip' width='260' height='14' viewBox='0 0 260 14'><rect width='260' height='14' fill='#F1F1F1'/>{cells}</svg>"
        )

    def storages(self) -> str:
        """What each store turned over, and at which prices."""
        rows, why = [], []
        for store in self.problem.storages:
            charge = self.series(self.solution.storage, "storage_id", store.storage_id, "charge_mw")
            discharge = self.series(self.solution.storage, "storage_id", store.storage_id, "discharge_mw")
            level = self.series(self.solution.storage, "storage_id", store.storage_id, "state_of_charge_mwh")
            price = self.prices[store.zone]["energy_eur_per_mwh"].to_numpy()
            paid = float(price @ charge / charge.sum()) if charge.sum() > NEAR_MW else float("nan")
            got = float(price @ discharge / discharge.sum()) if discharge.sum() > NEAR_MW else float("nan")
            turns = discharge.sum() * self.hours / max(store.discharge_efficiency, NEAR_MW) / max(store.energy_mwh, NEAR_MW)
            cells = [self.mw(charge.sum() * self.hours), self.mw(discharge.sum() * self.hours), f"{turns:.2f}"]
            cells += [f"{x:,.1f}" if np.isfinite(x) else "–" for x in (paid, got)]
            cells += [self.mw(store.initial_mwh), self.mw(level[-1]), self.mw(store.energy_mwh)]
            why.append(self._why(store.storage_id, [int(np.argmax(np.maximum(charge, discharge)))]))
            rows.append(f"<tr><td>{html.escape(store.storage_id)}</td>" + "".join(f"<td class='n'>{cell}</td>" for cell in cells) + "</tr>")
        if not rows:
            return ""
        head = "".join(
            f"<th>{name}</th>"
            for name in (
                "store",
                "charged, MWh",
                "discharged, MWh",
                "turns",
                "buys at",
                "sells at, EUR/MWh",
                "begins",
                "ends, MWh",
                "full, MWh",
            )
        )
        return f"<table><tr>{head}</tr>{''.join(rows)}</table><h3>Why</h3><div class='why'>{''.join(why)}</div>"

    def exchange(self) -> str:
        """Import, export, contracts and flexible load."""
        words = {"import": "bought", "export": "sold", "contract": "taken", "interrupted": "cut", "shiftable": "drawn"}
        rows = []
        for (name, kind), own in self.solution.exchange.groupby(["source_id", "source_kind"], sort=False):
            power = own.set_index("period")["power_mw"].reindex(range(1, self.problem.horizon + 1), fill_value=0.0).to_numpy(float)
            if np.abs(power).max(initial=0.0) <= NEAR_MW:
                continue
            spans = self.runs(np.abs(power) > NEAR_MW)
            when = ", ".join(f"{self.clock(a)}–{self.clock(b + 1)}" for a, b in spans[:6]) + (" …" if len(spans) > 6 else "")
            shown = self.name_of.get(str(name), str(name))
            rows.append(
                f"<tr><td>{html.escape(shown)}</td><td>{words[str(kind)]}</td>"
                f"<td class='n'>{self.mw(abs(power.sum()) * self.hours)}</td><td class='n'>{self.mw(np.abs(power).max())}</td>"
                f"<td>{when}</td></tr>"
            )
        head = "<tr><th>connection or load</th><th></th><th>MWh</th><th>most, MW</th><th>when</th></tr>"
        return f"<table>{head}{''.join(rows)}</table>" if rows else ""

    def binding(self) -> str:
        """The constraints that matter most."""
        found = binding_constraints(self.problem, self.solution)
        if not found:
            return "<p class='quiet'>No constraint binds.</p>"
        rows = "".join(
            f"<tr><td>{html.escape(one.constraint)}</td><td>{html.escape(self.name_of.get(one.where, one.where))}</td>"
            f"<td class='n'>{one.intervals} of {self.problem.horizon}</td>"
            f"<td class='n'>{f'{one.worth_eur:,.0f}' if one.worth_eur >= 0.5 else ''}</td></tr>"
            for one in found[:MOST_BINDING]
        )
        more = f"<p class='quiet'>and {len(found) - MOST_BINDING} more of less worth</p>" if len(found) > MOST_BINDING else ""
        return f"<table><tr><th>constraint</th><th>of</th><th>intervals</th><th>worth, EUR</th></tr>{rows}</table>{more}"

    def costs(self) -> str:
        """The cost by part."""
        parts = [(word, self.solution.summary.get(key, 0.0) * (-1 if key in INCOME else 1)) for key, word in COST_WORDS.items()]
        parts = [(word, value) for word, value in parts if abs(value) >= 0.005]
        most = max((abs(value) for _, value in parts), default=1.0)
        rows = "".join(
            f"<tr><td>{word}</td><td class='n'>{value:,.2f}</td>"
            f"<td><i class='bar{' in' if value < 0 else ''}' style='width:{150 * abs(value) / most:.0f}px'></i></td></tr>"
            for word, value in parts
        )
        total = self.solution.summary["objective_eur"]
        sum_row = f"<tr class='sum'><td>all of it</td><td class='n'>{total:,.2f}</td><td></td></tr>"
        return f"<table><tr><th>part</th><th>EUR</th><th></th></tr>{rows}{sum_row}</table>"

    def intervals(self) -> str:
        """The numbers behind the picture, folded."""
        p, s = self.problem, self.solution
        n = range(1, p.horizon + 1)

        def total(table: pd.DataFrame, column: str, **only: str) -> np.ndarray:
            for key, value in only.items():
                table = table[table[key] == value]
            return table.groupby("period")[column].sum().reindex(n, fill_value=0.0).to_numpy(float) if len(table) else np.zeros(p.horizon)

        columns = {
            "demand": p.total_demand_mw,
            "thermal": total(s.plan, "power_mw", unit_kind="thermal"),
            "wind, sun, river": total(s.plan, "power_mw", unit_kind="renewable"),
            "stores": total(s.storage, "discharge_mw") - total(s.storage, "charge_mw"),
            "trade, flexible": total(s.exchange, "power_mw"),
            "reserve held": total(s.plan, "reserve_mw") + total(s.storage, "reserve_mw") + total(s.exchange, "reserve_mw"),
            "reserve required": np.asarray(p.reserve_mw),
        }
        columns = {name: values for name, values in columns.items() if np.abs(values).max(initial=0.0) > NEAR_MW}
        priced = [f"price{'' if len(self.prices) == 1 else ' ' + zone}" for zone in self.prices]
        head = "".join(f"<th>{html.escape(name)}</th>" for name in ["", *(f"{name}, MW" for name in columns), *priced])
        rows = ""
        for t in range(p.horizon):
            cells = [self.mw(float(values[t])) for values in columns.values()]
            cells += [f"{rows_of['energy_eur_per_mwh'].to_numpy()[t] + 0.0:,.1f}" for rows_of in self.prices.values()]
            rows += f"<tr><td>{self.clock(t)}</td>" + "".join(f"<td class='n'>{cell}</td>" for cell in cells) + "</tr>"
        return f"<details><summary>the numbers behind the picture</summary><table><tr>{head}</tr>{rows}</table></details>"


def _steps(values: np.ndarray) -> list[tuple[int, int, float]]:
    """Stretches of (nearly) equal value: first, last, value."""
    rounded = np.round(values, 2)
    cuts = np.flatnonzero(np.diff(rounded)) + 1
    starts, ends = np.concatenate([[0], cuts]), np.concatenate([cuts, [len(values)]])
    return [(int(a), int(b) - 1, float(rounded[a])) for a, b in zip(starts, ends, strict=True)]


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + ("" if text.endswith(".") else ".") if text else ""


def _svg(figure: Any) -> str:
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    buffer = io.StringIO()
    FigureCanvasSVG(figure)
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "gridlake"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1"><title>{title}</title>
<style>
:root {{ --ink: #22303c; --quiet: #66727d; --line: #e3e6e8; --good: #1b7f5c; --warn: #a86400; --bad: #b3261e; }}
body {{ font: 15px/1.5 system-ui, "Segoe UI", "DejaVu Sans", sans-serif; color: var(--ink); background: #f6f7f8; margin: 0; }}
main {{ max-width: 1180px; margin: 0 auto; padding: 28px 24px 60px; }}
h1 {{ font-size: 26px; margin: 0 0 8px; letter-spacing: -.01em; }} h2 {{ font-size: 17px; margin: 0 0 10px; }}
h3 {{ font-size: 14px; margin: 14px 0 4px; }}
section {{ background: #fff; border: 1px solid var(--line); border-radius: 10px; padding: 16px 22px; overflow-x: auto; }}
.body {{ display: grid; grid-template-columns: 1fr 1fr; gap: 16px; margin-top: 16px; }} section {{ grid-column: 1 / -1; }}
section.half {{ grid-column: auto; }}
@media (max-width: 900px) {{ section.half {{ grid-column: 1 / -1; }} }}
.badge {{ display: inline-block; border-radius: 99px; padding: 2px 12px; margin: 0 8px 6px 0; }}
.badge {{ font-size: 13px; font-weight: 600; color: #fff; }}
.good {{ background: var(--good); }} .warn {{ background: var(--warn); }} .bad {{ background: var(--bad); }}
.facts {{ color: var(--quiet); margin: 6px 0 14px; font-size: 14px; }}
.facts span {{ margin-right: 22px; }} .facts b {{ font-weight: 600; }}
.tiles {{ display: grid; grid-template-columns: repeat(auto-fit, minmax(160px, 1fr)); gap: 12px; }}
.tile {{ background: #fff; border: 1px solid var(--line); border-radius: 10px; padding: 10px 14px; }}
.tile small {{ display: block; color: var(--quiet); }} .tile b {{ font-size: 18px; }}
.picture svg {{ width: 100%; height: auto; font-family: inherit; }}
table {{ border-collapse: collapse; font-size: 14px; }} th {{ text-align: left; color: var(--quiet); font-weight: 600; }}
th, td {{ padding: 4px 16px 4px 0; border-bottom: 1px solid var(--line); vertical-align: top; }}
td.n {{ text-align: right; font-variant-numeric: tabular-nums; }} tr.sum td {{ font-weight: 700; border-bottom: 0; }}
.bar {{ display: inline-block; height: 10px; background: #70574e; border-radius: 2px; }} .bar.in {{ background: #009e73; }}
.quiet {{ color: var(--quiet); }} .trouble li {{ margin-bottom: 8px; }} .trouble b {{ color: var(--bad); }}
.why {{ display: flex; flex-wrap: wrap; gap: 2px 26px; margin-bottom: 8px; }} .why details[open] {{ flex-basis: 100%; }}
summary {{ cursor: pointer; }} details p {{ margin: 4px 0 8px 18px; max-width: 110ch; }}
.strip {{ margin-top: 4px; border-radius: 3px; }}
@media print {{ body {{ background: #fff; }} section, .tile {{ break-inside: avoid; }} }}
</style></head><body><main>
<h1>{title}</h1>
{badges}{facts}
<div class="tiles">{tiles}</div>
<div class="body">
{body}
</div>
</main></body></html>
"""
