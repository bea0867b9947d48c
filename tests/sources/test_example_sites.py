"""The example sites: each reads, finds its files, and names series that its files have."""

from __future__ import annotations

import json
import os
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pytest

from lakehouse.flow.setup import _assign, _write_site
from lakehouse.site import Site, parse_site
from lakehouse.sources.base import LandedFile, ReadOptions, read_file

SITES = Path(__file__).parents[2] / "examples" / "sites"
DATA = {
    "spain": "spain",
    "octopus": "meters/octopus_daily_drops",
    "entsoe_de": "entsoe_de",
    "opsd_fr": "opsd",
    "epf_np": "epf",
    "epf_pjm": "epf",
    "epf_be": "epf",
    "epf_fr": "epf",
    "epf_de": "epf",
    "vic_elec": "vic_elec",
    "swiss": "meters/swiss_15min",
}


def site_named(name: str) -> Site:
    path = SITES / f"{name}.yaml"
    return parse_site(path.read_text(encoding="utf-8"), path)


def published(path: str) -> Path:
    root = Path(os.environ.get("GRIDLAKE_DATA") or Path(__file__).parents[3] / "shared" / "data")
    if not (root / path).exists():
        pytest.skip(f"needs the published data {path} below GRIDLAKE_DATA")
    return root / path


@pytest.mark.parametrize("name", DATA)
def test_the_site_file_is_valid_and_named_like_its_file(name: str):
    site = site_named(name)
    assert site.name == name
    assert site.series
    for target in site.series.values():
        assert target.table in ("cleaned/load", "cleaned/generation", "cleaned/prices")


@pytest.mark.parametrize("name", DATA)
def test_a_site_made_from_an_example_has_its_lines_and_comments_as_they_are(name: str, tmp_path: Path):
    example = (SITES / f"{name}.yaml").read_text(encoding="utf-8")
    _write_site(tmp_path, example, {"first_day": date(2020, 1, 2), "clock": date(2020, 3, 4)})
    made = (tmp_path / "gridlake.yaml").read_text(encoding="utf-8").splitlines()
    assert {"first_day: 2020-01-02", "clock: 2020-03-04"} <= set(made)

    def others(lines: list[str]) -> list[str]:
        return [line for line in lines if not line.startswith(("first_day:", "clock:"))]

    assert others(made) == others(example.splitlines())


@pytest.mark.real_data
@pytest.mark.slow
@pytest.mark.parametrize("name", [n for n in DATA if n not in ("octopus", "swiss")])
def test_every_series_and_input_of_the_site_is_in_its_files(name: str):
    site = site_named(name)
    chosen, _ = _assign(site, published(DATA[name]), SITES)
    assert all(chosen.values()), f"a feed without files: {chosen}"
    found: set[tuple[str, str, bool]] = set()
    for feed, paths in chosen.items():
        described = site.feeds[feed]
        for path in paths:
            for table in read_file(
                LandedFile(path, path.name, date(2026, 1, 1), feed), described.format, ReadOptions(site.time_zone, described.options)
            ):
                assert table["fault"].null_count == table.num_rows, table.filter(pc.is_valid(table["fault"]))["fault"][0]
                if "series_id" in table.column_names:
                    keys = (
                        table.select(["series_id", "quantity", "is_forecast"])
                        .group_by(["series_id", "quantity", "is_forecast"])
                        .aggregate([])
                    )
                    found |= {(r["series_id"], r["quantity"], r["is_forecast"]) for r in keys.to_pylist()}
    measured = {
        "cleaned/load": "load_mw",
        "cleaned/generation": "generation_mw",
        "cleaned/prices": f"price_{site.currency.lower()}_per_mwh",
    }
    for target in site.series.values():
        assert {(series, measured[target.table], False) for series in target.series} <= found
        for one in (*target.inputs, *([target.operator] if target.operator else [])):
            assert (one.series, one.quantity or one.column, one.table == "cleaned/external_forecasts") in found, one


@pytest.mark.parametrize("peak_mw", [22_000, 30_000, 40_000])
def test_spains_stylised_fleet_can_serve_its_demand(peak_mw: float):
    from lakehouse.dispatch import DispatchProblem, Market, Renewable, Storage, ThermalUnit, check_solution, solve

    hours = np.arange(24)
    demand = peak_mw * (0.84 + 0.16 * np.sin(np.pi * (hours - 8) / 12))
    price = 50 + 10 * np.sin(np.pi * (hours - 8) / 12)
    thermal, renewables, storages, market = [], [], [], []
    for unit in json.loads((SITES / "spain_fleet.json").read_text(encoding="utf-8"))["units"]:
        name, kind = unit.pop("unit_id"), unit.pop("kind")
        if kind == "thermal":
            curves = {k: tuple(tuple(point) for point in unit.pop(k)) for k in ("cost_curve", "startup_costs")}
            thermal.append(ThermalUnit(unit_id=name, **unit, **curves))
        elif kind == "storage":
            storages.append(Storage(storage_id=name, **unit))
        elif kind == "grid":
            limits = {k: v for k, v in unit.items() if k.endswith("_limit_mw")}
            market.append(Market(import_price_eur_per_mwh=price + 3, export_price_eur_per_mwh=price - 3, **limits))
        else:
            renewables.append(Renewable(unit_id=name, maximum_mw=np.full(24, 0.1 * unit["maximum_mw"])))
    problem = DispatchProblem(
        interval_start=[datetime(2017, 1, 18, 23, tzinfo=UTC) + timedelta(hours=int(h)) for h in hours],
        interval_hours=1.0, demand_mw=demand, reserve_mw=0.03 * demand,
        thermal=thermal, renewables=renewables, storages=storages, market=market,
    )  # fmt: skip
    solution = solve(problem, gap=0.005, time_limit_seconds=30)
    assert check_solution(problem, solution).ok
    assert not len(solution.violations)
