"""A town that plans: two districts, sun, a spot price, and forecasts and actuals that a test writes by hand."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pyarrow as pa

from lakehouse.flow.plan import issue_instant
from lakehouse.flow.workspace import Workspace
from tests.flow.builders import FIRST_DAY, TODAY, clean_up_to_date, day, land_text, site_text

SITE = site_text(
    "town",
    FIRST_DAY,
    TODAY,
    """\
feeds:
  series: {format: canonical_series}
  fleet: {format: fleet_json}
series:
  demand: {table: cleaned/load, series: [north, south]}
  solar: {table: cleaned/generation, series: [sun]}
  price: {table: cleaned/prices, series: [spot]}
fleet:
  reserve_share_of_demand: 0.0
  gap: 0.0
""",
)

BASE = {
    "unit_id": "base", "kind": "thermal", "minimum_mw": 2.0, "maximum_mw": 6.0, "cost_curve": [[2, 60], [6, 180]],
    "startup_costs": [[0, 50]], "minimum_up_hours": 6, "minimum_down_hours": 6, "initially_on": True, "initial_power_mw": 4.0,
    "initial_hours_in_state": 24.0,
}  # fmt: skip
PEAK = {"unit_id": "peak", "kind": "thermal", "minimum_mw": 0.5, "maximum_mw": 4.0, "cost_curve": [[0.5, 60], [4.0, 480]]}
BATTERY = {
    "unit_id": "battery", "kind": "storage", "charge_mw": 1.0, "discharge_mw": 1.0, "energy_mwh": 3.0, "initial_mwh": 1.5,
    "charge_efficiency": 0.9, "discharge_efficiency": 0.9, "wear_eur_per_mwh": 1.0,
}  # fmt: skip
GRID = {
    "unit_id": "link", "kind": "grid", "import_limit_mw": 2.0, "export_limit_mw": 2.0, "price_series_id": "spot",
    "import_margin_eur_per_mwh": 5.0, "export_margin_eur_per_mwh": 5.0,
}  # fmt: skip
SUN = {"unit_id": "park", "kind": "solar", "series_id": "sun"}
FLAT = [3.0] * 24


def town(home: Path, units: list[dict], fleet: str = "") -> Workspace:
    """The town with a fleet; `fleet` is further lines of the site file's section."""
    home.mkdir(parents=True, exist_ok=True)
    (home / "gridlake.yaml").write_text(SITE + "".join(f"  {line}\n" for line in fleet.splitlines()), encoding="utf-8")
    workspace = Workspace.open(home)
    land_text(workspace, "fleet", day(1), "fleet.json", json.dumps({"units": units}))
    clean_up_to_date(workspace)
    return workspace


def midnight(of: date) -> datetime:
    """Local midnight of a winter day, UTC."""
    return datetime(of.year, of.month, of.day, tzinfo=UTC) - timedelta(hours=1)


def issue(workspace: Workspace, of: date, *, spread: float = 0.0, **series: list[float]) -> None:
    """An issue of forecasts for the next local day, hourly, by series; quantiles lie `spread` apart from one to the next."""
    targets = {"north": "demand", "south": "demand", "sun": "solar", "spot": "price"}
    for target in ("demand", "solar", "price"):
        contract = workspace.contract(f"forecasts/{target}")
        quantiles = [c for c in contract.columns if c.startswith("p") and c[1:].isdigit()]
        rows = [
            {name: value + spread * (n - len(quantiles) // 2) for n, name in enumerate(quantiles)}
            | {
                "series_id": name, "issued_at": issue_instant(workspace.site, of),
                "valid_at": midnight(of + timedelta(days=1)) + timedelta(hours=h),
                "model": "made", "model_version": "made-1", "is_fallback": False, "is_hindcast": True, "date": of,
            }
            for name, values in series.items()
            if targets[name] == target
            for h, value in enumerate(values)
        ]  # fmt: skip
        if rows:
            workspace.replace(f"forecasts/{target}", contract.from_rows(rows), where={"date": of})


def came(workspace: Workspace, of: date, **series: list[float]) -> None:
    """What came on a local day, hourly, by series."""
    tables = {"north": "load", "south": "load", "sun": "generation", "spot": "prices"}
    for table in ("load", "generation", "prices"):
        contract = workspace.contract(f"cleaned/{table}")
        value = {"load": "load_mw", "generation": "generation_mw", "prices": "price_eur_per_mwh"}[table]
        rows = []
        for name, values in series.items():
            for h, v in enumerate(values):
                at = midnight(of) + timedelta(hours=h)
                if tables[name] == table:
                    rows.append({"series_id": name, "interval_start": at, "interval_minutes": 60, value: v, "date": at.date()})
        if rows:
            both = (midnight(of).date(), of)
            there = workspace.table(f"cleaned/{table}").read(f"interval_start < TIMESTAMPTZ '{midnight(of).isoformat()}'")
            there = there.filter(pa.compute.is_in(there["date"], pa.array(both, pa.date32())))
            workspace.replace(f"cleaned/{table}", pa.concat_tables([there, contract.from_rows(rows)]), where={"date": both})
