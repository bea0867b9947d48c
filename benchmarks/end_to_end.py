"""The sample utility from nothing to a plan, layer by layer: seconds, peak memory, and what importing the code location costs.

Run: python -m benchmarks.end_to_end [--meters 200] [--days 150] [--json results.json]

Each layer is a `gridlake refresh --until LAYER` of its own, so each line holds the start of a process; the steps inside are told by the
command itself. Peak memory is that of the layer's largest process (told on Linux only). Works in a temporary folder that is removed.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]
LAYERS = ("raw", "cleaned", "features", "models", "forecasts", "dispatch")
HEAVY = ("tensorflow", "keras", "lightgbm", "mlflow")
IMPORTS = 5
PROBE = f"""
import sys, time
begun = time.perf_counter()
import definitions
print(time.perf_counter() - begun, *(name for name in {HEAVY!r} if name in sys.modules))
"""


def command(home: Path | None, *arguments: str) -> tuple[str, float, float]:
    """Runs the `gridlake` command; returns what it printed, seconds, and the peak memory of its largest process in MB."""
    whole = [sys.executable, "-m", "lakehouse.cli", *(["--home", str(home)] if home else []), *arguments]
    begun = time.perf_counter()
    with tempfile.TemporaryFile("w+") as out:
        process = subprocess.Popen(whole, cwd=PROJECT, stdout=out)
        peak = 0
        while process.poll() is None:
            peak = max([peak, *(resident_bytes(pid) for pid in family(process.pid))])
            time.sleep(0.05)
        out.seek(0)
        printed = out.read()
    if process.returncode or not printed.strip():
        sys.exit(f"{' '.join(arguments)} failed:\n{printed}")
    return printed, time.perf_counter() - begun, peak / 1e6


def family(pid: int) -> list[int]:
    """A process and those that it started, where the system tells (Linux)."""
    found = [pid]
    for parent in found:
        for children in Path(f"/proc/{parent}/task").glob("*/children"):
            try:
                found += [int(child) for child in children.read_text().split()]
            except OSError:
                continue
    return found


def resident_bytes(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM")), 0)


def imported() -> tuple[float, list[str]]:
    """Median seconds to import the code location in a fresh process, and the heavy packages that it loaded."""
    environment = {k: v for k, v in os.environ.items() if k != "GRIDLAKE_HOME"} | {"PYTHONPATH": str(PROJECT)}
    seconds, loaded = [], set()
    for _ in range(IMPORTS):
        probe = subprocess.run([sys.executable, "-c", PROBE], cwd=PROJECT, env=environment, capture_output=True, text=True, check=True)
        first, *heavy = probe.stdout.split()
        seconds.append(float(first))
        loaded |= set(heavy)
    return statistics.median(seconds), sorted(loaded)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--meters", type=int, default=200)
    options.add_argument("--days", type=int, default=150)
    options.add_argument("--json", type=Path, help="also write the figures here")
    chosen = options.parse_args()

    seconds, loaded = imported()
    heavy = ", ".join(loaded) or "none"
    print(f"import of definitions: {seconds:.2f} s (median of {IMPORTS} fresh processes); heavy packages loaded: {heavy}")
    told = {"import_seconds": seconds, "heavy_loaded": loaded, "meters": chosen.meters, "days": chosen.days, "stages": []}
    print(
        f"\nsample utility, {chosen.meters} meters, {chosen.days} days, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} at the start"
    )
    print(f"{'stage':<12}{'seconds':>9}{'peak MB':>9}   steps")
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "site"
        _, took, peak = command(None, "init", str(home), "--meters", str(chosen.meters), "--days", str(chosen.days), "--json")
        report(told, "init", took, peak, [])
        for layer in LAYERS:
            printed, took, peak = command(home, "refresh", "--until", layer, "--json")
            report(told, layer, took, peak, json.loads(printed)["steps"])
    stages = told["stages"]
    print(f"{'all':<12}{sum(s['seconds'] for s in stages):>9.1f}{max(s['peak_mb'] for s in stages):>9.0f}")
    if chosen.json:
        chosen.json.write_text(json.dumps(told, indent=1), encoding="utf-8")


def report(told: dict, stage: str, seconds: float, peak_mb: float, steps: list[dict]) -> None:
    named = "; ".join(f"{step['tables'][0]}{', …' if len(step['tables']) > 1 else ''} {step['seconds']:.1f} s" for step in steps)
    print(f"{stage:<12}{seconds:>9.1f}{peak_mb:>9.0f}   {named}", flush=True)
    told["stages"].append({"stage": stage, "seconds": seconds, "peak_mb": peak_mb, "steps": steps})


if __name__ == "__main__":
    main()
