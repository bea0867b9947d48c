"""Dispatch against its bars: published unit-commitment instances, a utility's day, and a reference formulation in the same run.

    python benchmarks/dispatch.py [--instances FOLDER] [--only rts_gmlc] [--seconds 60] [--reference] [--utility] [--out results.json]

FOLDER holds pglib-uc instances (JSON) by family and, optionally, best_known.csv. Every plan is written to a file, read back and judged by
the checker. `--reference` also solves each instance with the model of the instances' library in Pyomo (`dispatch_reference.py`; first
`pip install pyomo`), by the same HiGHS and within the same time, building included. `--utility` adds a utility's day, and
`--only utility` solves nothing else. Peak memory is that of all processes of a solve, so each solve runs in its own. Progress goes to
standard error; what is printed is a table in Markdown: ratios are ours by the reference's in the same run.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.dispatch_reference import solve_reference

SECONDS = {"rts_gmlc": 60.0, "ca": 200.0, "ferc": 200.0}


def utility_day(seed: int = 1):
    """A utility's day: 100 thermal units, 20 storages, wind and sun, a grid connection, 96 quarter-hours; drawn from a seed."""
    from lakehouse.dispatch import DispatchProblem, Market, Renewable, Storage, ThermalUnit, utc_intervals

    draw = np.random.default_rng(seed)
    quarter = np.arange(96) / 4
    thermal = []
    for i in range(100):
        size = float(draw.choice([20, 50, 80, 150, 300], p=[0.3, 0.25, 0.2, 0.15, 0.1]))
        low = round(size * float(draw.uniform(0.25, 0.5)), 1)
        base = float({20: 85, 50: 70, 80: 55, 150: 42, 300: 30}[int(size)] * draw.uniform(0.9, 1.15))
        points = np.linspace(low, size, 4)
        slopes = base * np.array([0.96, 1.0, 1.06])
        eur = base * low * 1.1 + np.concatenate([[0.0], np.cumsum(slopes * np.diff(points))])
        hours = float({20: 0.5, 50: 1, 80: 3, 150: 6, 300: 8}[int(size)])
        on = bool(size >= 80 and draw.random() < 0.7)
        hot = size * float(draw.uniform(15, 40))
        thermal.append(
            ThermalUnit(
                unit_id=f"unit {i:03d}",
                minimum_mw=low,
                maximum_mw=size,
                cost_curve=tuple(zip(points.tolist(), eur.tolist(), strict=True)),
                startup_costs=((hours, hot), (2 * hours + 2, 1.6 * hot), (4 * hours + 6, 2.2 * hot)),
                ramp_up_mw_per_hour=size * float(draw.uniform(0.4, 3.0)),
                ramp_down_mw_per_hour=size * float(draw.uniform(0.4, 3.0)),
                startup_limit_mw=low + 0.15 * size,
                shutdown_limit_mw=low + 0.15 * size,
                minimum_up_hours=hours,
                minimum_down_hours=hours,
                initially_on=on,
                initial_power_mw=low if on else 0.0,
                initial_hours_in_state=float(draw.integers(4, 48)),
            )
        )
    capacity = sum(unit.maximum_mw for unit in thermal)
    shape = 0.62 + 0.16 * np.sin((quarter - 9) / 24 * 2 * np.pi) + 0.09 * np.exp(-(((quarter - 19) / 2.0) ** 2))
    demand = capacity * shape * (1 + 0.01 * draw.standard_normal(96))
    sun = np.clip(np.sin((quarter - 6) / 12 * np.pi), 0, None) * 0.12 * capacity
    wind = 0.08 * capacity * (1 + 0.4 * np.sin(quarter / 5 + 1))
    storages = []
    for i in range(20):
        mw = float(draw.choice([5, 10, 25, 50]))
        mwh = mw * float(draw.choice([1, 2, 4]))
        storages.append(
            Storage(
                f"storage {i:02d}",
                mw,
                mw,
                mwh,
                charge_efficiency=0.94,
                discharge_efficiency=0.94,
                initial_mwh=mwh / 2,
                final_mwh=mwh / 2,
                wear_eur_per_mwh=2.5,
            )
        )
    price = 62 + 25 * np.sin((quarter - 10) / 24 * 4 * np.pi) - 30 * (sun > 0.1 * capacity)
    return DispatchProblem(
        interval_start=utc_intervals(datetime(2026, 3, 30, tzinfo=UTC), 96, 0.25),
        interval_hours=0.25,
        demand_mw=demand,
        reserve_mw=0.04 * demand,
        thermal=thermal,
        renewables=[Renewable("sun", sun), Renewable("wind", wind)],
        storages=storages,
        market=Market(price + 2, price - 2, 0.03 * capacity, 0.03 * capacity),
    )


def solve_file(path: Path, seconds: float, gap: float) -> dict:
    """Solves an instance in this process, and lets the checker judge what was written."""
    from lakehouse.dispatch import check_instance, solve_instance

    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "plan.parquet"
        begun = time.perf_counter()
        told = solve_instance(path, out, gap=gap, time_limit=seconds)
        wall = time.perf_counter() - begun
        report = check_instance(path, out)
    return {**told, "wall_seconds": wall, "checker": "accepts" if report.ok else report.lines(3)[1], "recomputed": report.objective_eur}


def solve_utility(seconds: float, gap: float) -> dict:
    from lakehouse.dispatch import check_solution, solve
    from lakehouse.dispatch.solver import summary_line

    day = utility_day()
    begun = time.perf_counter()
    solution = solve(day, gap=gap, time_limit_seconds=seconds)
    wall = time.perf_counter() - begun
    report = check_solution(day, solution)
    return {
        **summary_line(solution),
        "violations": len(solution.violations),
        "wall_seconds": wall,
        "checker": "accepts" if report.ok else report.lines(3)[1],
    }


def in_own_process(what: str, path: Path | None, seconds: float, gap: float) -> dict:
    """Runs one solve in a fresh interpreter, so that peak memory is its own."""
    command = [sys.executable, __file__, "--one", what, "--seconds", str(seconds), "--gap", str(gap)]
    root = str(Path(__file__).resolve().parents[1])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(part for part in (root, os.environ.get("PYTHONPATH")) if part)}
    done = subprocess.run(command + (["--path", str(path)] if path else []), capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        raise SystemExit(done.stderr)
    return json.loads(done.stdout.strip().splitlines()[-1])


def best_known(folder: Path) -> dict[str, float]:
    file = folder / "best_known.csv"
    if not file.exists():
        return {}
    with file.open() as lines:
        return {row["instance"]: float(row["best_objective"]) for row in csv.DictReader(lines)}


HEADINGS = (
    "instance", "objective", "to best known", "bound", "gap", "to reference's gap", "build s", "to reference's build", "solve s", "peak MB",
    "checker", "reference's objective", "reference's gap", "reference's build s",
)  # fmt: skip


def as_row(name: str, ours: dict, reference: dict | None, known: float | None) -> list[str]:
    """A row of the table; an empty cell where there is nothing to tell."""

    def percent(gap: float | None) -> str:
        return "no plan or bound" if gap is None or not np.isfinite(gap) else f"{100 * gap:.3f} %"

    def ratio(one: float | None, other: float | None, digits: int) -> str:
        return f"{one / other:.{digits}f}" if one and other and np.isfinite(one) and np.isfinite(other) else ""

    row = [
        name,
        f"{ours['objective']:,.0f}",
        ratio(ours["objective"], known, 5),
        f"{ours['bound']:,.0f}" if np.isfinite(ours["bound"]) else "none",
        percent(ours["gap"]),
        ratio(ours["gap"], reference["gap"] if reference else None, 2),
        f"{ours['build_seconds']:.3f}",
        f"1/{reference['build_seconds'] / ours['build_seconds']:.0f}" if reference else "",
        f"{ours['wall_seconds']:.1f}",
        f"{ours['peak_mb']:.0f}",
        ours["checker"],
    ]
    if reference is None:
        return [*row, "", "", ""]
    found = f"{reference['objective']:,.0f}" if reference["objective"] else "no plan"
    return [*row, found, percent(reference["gap"]), f"{reference['build_seconds']:.2f}"]


def table(rows: list[list[str]]) -> str:
    """Rows as Markdown, without the columns that are empty throughout."""
    shown = [n for n in range(len(HEADINGS)) if any(row[n] for row in rows)]
    lines = [[HEADINGS[n] for n in shown], ["---" if n in (0, 10) else "---:" for n in shown], *([row[n] for n in shown] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main() -> None:
    """Solves what is asked for, each in a process of its own, and prints the table."""
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    data = os.environ.get("GRIDLAKE_DATA")
    default = (Path(data).parent if data else Path(__file__).resolve().parents[1].parent / "shared") / "dispatch"
    ask.add_argument("--instances", type=Path, default=default)
    ask.add_argument("--only", default="", help="part of the instance's name, or 'utility'")
    ask.add_argument(
        "--seconds", type=float, help="wall time per solve; default 60 for rts_gmlc, 200 for the large families, 20 for the day"
    )
    ask.add_argument("--gap", type=float, default=0.001, help="gap at which to stop")
    ask.add_argument("--reference", action="store_true", help="solve the instances with the plain formulation as well")
    ask.add_argument("--utility", action="store_true", help="a utility's day as well")
    ask.add_argument("--out", type=Path, help="JSON file for all results")
    ask.add_argument("--one", choices=("ours", "reference", "utility"), help=argparse.SUPPRESS)
    ask.add_argument("--path", type=Path, help=argparse.SUPPRESS)
    given = ask.parse_args()
    if given.one:
        of_file = {"ours": solve_file, "reference": solve_reference}
        one = (
            solve_utility(given.seconds, given.gap) if given.one == "utility" else of_file[given.one](given.path, given.seconds, given.gap)
        )
        print(json.dumps(one))
        return
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")
    print(f"{os.cpu_count()} cores, load average {load:.2f} before the first solve\n", flush=True)
    known = best_known(given.instances)
    results: list[dict] = []
    rows: list[list[str]] = []

    def solved(what: str, name: str, path: Path | None, seconds: float) -> dict:
        print(f"{name}: {what}, up to {seconds:.0f} s", file=sys.stderr, flush=True)
        result = in_own_process(what, path, seconds, given.gap) | {"instance": name, "model": what}
        results.append(result)
        if given.out:
            given.out.write_text(json.dumps({"cores": os.cpu_count(), "load": load, "rows": results}, indent=1))
        return result

    for path in sorted(given.instances.glob("*/*.json")):
        name = f"{path.parent.name}/{path.name}"
        if given.only in name:
            seconds = given.seconds or SECONDS.get(path.parent.name, 60.0)
            ours = solved("ours", name, path, seconds)
            reference = solved("reference", name, path, seconds) if given.reference else None
            rows.append(as_row(name.removesuffix(".json"), ours, reference, known.get(name)))
            print(f"  {' | '.join(rows[-1])}", file=sys.stderr, flush=True)
    if given.utility or given.only == "utility":
        rows.append(as_row("a utility's day", solved("utility", "a utility's day", None, given.seconds or 20.0), None, None))
    if not rows:
        raise SystemExit(f"no instance in {given.instances} has '{given.only}' in its name")
    print(table(rows))
    of_rts = {
        model: [r["gap"] for r in results if r["model"] == model and r["instance"].startswith("rts")] for model in ("ours", "reference")
    }
    if of_rts["ours"]:
        mean = float(np.mean(of_rts["ours"]))
        plain = float(np.mean(of_rts["reference"])) if of_rts["reference"] else None
        print(f"\nrts_gmlc: mean gap {100 * mean:.3f} %", end="")
        print(f", {mean / plain:.2f} of the reference's {100 * plain:.3f} %" if plain and np.isfinite(plain) else "")


if __name__ == "__main__":
    main()
