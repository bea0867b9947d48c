"""The RTS-GMLC test system: heat rates become costs, ties become lines, plants of the sun are summed by area."""

from __future__ import annotations

import json
import os
from datetime import UTC, date, datetime
from pathlib import Path

import pyarrow as pa
import pytest

from lakehouse.dispatch.fleet import ThermalUnit
from lakehouse.sources.base import LandedFile, ReadOptions, read_file

UNIT = {
    "GEN UID": "101_STEAM_3", "Bus ID": "101", "Unit Type": "STEAM", "MW Inj": "76", "PMax MW": "80", "PMin MW": "40",
    "Min Down Time Hr": "4", "Min Up Time Hr": "8", "Ramp Rate MW/Min": "2", "Start Time Cold Hr": "12", "Start Time Warm Hr": "10",
    "Start Time Hot Hr": "3", "Start Heat Cold MBTU": "3000", "Start Heat Warm MBTU": "2000", "Start Heat Hot MBTU": "1000",
    "Non Fuel Start Cost $": "50", "Fuel Price $/MMBTU": "2", "Output_pct_0": "0.5", "Output_pct_1": "0.75", "Output_pct_2": "1",
    "Output_pct_3": "NA", "Output_pct_4": "NA", "HR_avg_0": "10000", "HR_incr_1": "9000", "HR_incr_2": "11000", "HR_incr_3": "NA",
    "HR_incr_4": "NA", "VOM": "1", "Emissions CO2 Lbs/MMBTU": "200",
}  # fmt: skip


def read(folder: Path, name: str, text: str, form: str, zone: str = "America/Phoenix") -> list[dict]:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return pa.concat_tables(read_file(LandedFile(path, name, date(2026, 1, 1), "rts"), form, ReadOptions(zone))).to_pylist()


def table(*lines: dict[str, str]) -> str:
    return "\n".join([",".join(lines[0]), *(",".join(line.values()) for line in lines)]) + "\n"


def parameters(row: dict) -> dict:
    return json.loads(row["parameters"])


def test_heat_rates_fuel_price_and_variable_cost_make_the_cost_curve(tmp_path: Path):
    (row,) = read(tmp_path, "gen.csv", table(UNIT), "rts_gmlc_fleet")
    unit = parameters(row)
    # 40 MW at 10 MMBTU/MWh and 2 $/MMBTU: 800 $/h, and 1 $/MWh on top; then 20 MW at 9, then 20 MW at 11 MMBTU/MWh.
    assert unit["cost_curve"] == [[40, 840], [60, 1220], [80, 1680]]
    assert unit["startup_costs"] == [[0, 2050], [10, 4050], [12, 6050]]
    assert (unit["ramp_up_mw_per_hour"], unit["minimum_up_hours"], unit["zone"], unit["initially_on"]) == (120, 8, "1", True)
    assert unit["co2_t_per_mwh"] == pytest.approx(200 * 0.45359237e-3 * (400 + 180 + 220) / 80, abs=1e-4)


def test_falling_increments_are_hulled_so_that_the_optimiser_takes_the_unit(tmp_path: Path):
    (row,) = read(tmp_path, "gen.csv", table(UNIT | {"HR_incr_1": "11000", "HR_incr_2": "9000"}), "rts_gmlc_fleet")
    unit = parameters(row)
    assert unit["cost_curve"] == [[40, 840], [80, 1680]]
    del unit["kind"]
    assert ThermalUnit(**{k: tuple(map(tuple, v)) if k in ("cost_curve", "startup_costs") else v for k, v in unit.items()})


def test_a_peaker_stands_still_and_a_nuclear_unit_must_run(tmp_path: Path):
    peaker, nuclear = UNIT | {"Unit Type": "CT"}, UNIT | {"Unit Type": "NUCLEAR", "Start Time Hot Hr": "9999", "Start Heat Warm MBTU": "0"}
    first, second = (parameters(row) for row in read(tmp_path, "gen.csv", table(peaker, nuclear), "rts_gmlc_fleet"))
    assert (first["initially_on"], first["initial_power_mw"], first["must_run"]) == (False, 0.0, False)
    assert (second["initially_on"], second["must_run"], second["startup_costs"]) == (True, True, [[0, 6050]])


def test_sun_shares_the_series_of_its_area_by_rated_power(tmp_path: Path):
    plants = [
        UNIT | {"GEN UID": f"{bus}_PV_1", "Bus ID": bus, "Unit Type": "PV", "PMax MW": mw}
        for bus, mw in (("101", "30"), ("102", "10"), ("201", "5"))
    ]
    roof = UNIT | {"GEN UID": "103_RTPV_1", "Bus ID": "103", "Unit Type": "RTPV"}
    first, second, other, rooftop = (parameters(row) for row in read(tmp_path, "gen.csv", table(*plants, roof), "rts_gmlc_fleet"))
    assert [(u["series_id"], u["share_of_series"]) for u in (first, second, other)] == [("pv_1", 0.75), ("pv_1", 0.25), ("pv_2", 1.0)]
    assert (rooftop["series_id"], rooftop["must_take"], first["must_take"]) == ("rtpv_1", True, False)


def test_what_is_not_dispatched_says_why(tmp_path: Path):
    (row,) = read(tmp_path, "gen.csv", table(UNIT | {"Unit Type": "SYNC_COND"}), "rts_gmlc_fleet")
    assert (row["line"], row["unit_id"]) == (2, None)
    assert row["fault"] == "unit '101_STEAM_3' is not dispatched: a synchronous condenser gives no active power"
    assert row["raw_text"].startswith("101_STEAM_3,101,SYNC_COND")


def test_areas_ties_and_storage(tmp_path: Path):
    zones = read(tmp_path, "bus.csv", "Bus ID,Bus Name\n101,Abel\n102,Adams\n201,Bach\n", "rts_gmlc_fleet")
    assert [parameters(z) for z in zones] == [
        {"unit_id": a, "kind": "zone", "demand_series": [a]} for a in ("1", "2")
    ]  # fmt: skip
    header = "UID,From Bus,To Bus,R,X,B,Cont Rating\n"
    (tie,) = read(tmp_path, "branch.csv", header + "A1,101,102,0,0.01,0,175\nAB1,107,203,0,0.161,0,175\n", "rts_gmlc_fleet")
    assert parameters(tie) == {
        "unit_id": "AB1", "kind": "line", "from_zone": "1", "to_zone": "2", "forward_mw": 175.0, "reactance_pu": 0.161,
    }  # fmt: skip
    header = "GEN UID,Storage,Max Volume GWh,Initial Volume GWh,Start Energy,Inflow Limit GWh,Rating MVA,position\n"
    rows = "313_STORAGE_1,H,0.15,0.075,NA,0.1,50,head\n313_STORAGE_1,T,0.15,0.075,NA,0.,50,tail\n122_HYDRO_1,R,1,0.5,NA,0.2,50,head\n"
    (store,) = read(tmp_path, "storage.csv", header + rows, "rts_gmlc_fleet")
    found = parameters(store)
    assert (found["energy_mwh"], found["initial_mwh"], found["charge_mw"], found["zone"]) == (150.0, 75.0, 50.0, "3")
    assert found["charge_efficiency"] * found["discharge_efficiency"] == pytest.approx(0.85)


def test_another_table_is_refused_with_its_name(tmp_path: Path):
    (row,) = read(tmp_path, "reserves.csv", "Reserve Product,Timeframe (sec)\nFlex_Up,1200\n", "rts_gmlc_fleet")
    assert row["line"] == 0
    assert "reserves.csv: expected gen.csv, bus.csv" in row["fault"]


def test_periods_are_hours_of_a_clock_without_summer_time(tmp_path: Path):
    text = "Year,Month,Day,Period,1,2\n2020,3,8,1,100,200\n2020,3,8,24,110,210\n2020,3,8,25,1,1\n"
    rows = read(tmp_path, "DAY_AHEAD_regional_Load.csv", text, "rts_gmlc")
    assert [(r["series_id"], r["value"], r["interval_start"]) for r in rows[:3]] == [
        ("1", 100.0, datetime(2020, 3, 8, 7, tzinfo=UTC)),
        ("2", 200.0, datetime(2020, 3, 8, 7, tzinfo=UTC)),
        ("1", 110.0, datetime(2020, 3, 9, 6, tzinfo=UTC)),
    ]
    assert {r["quantity"] for r in rows[:4]} == {"load_mw"}
    assert (rows[4]["line"], rows[4]["fault"][:40]) == (4, "expected Year, Month, Day and Period, fo")


def test_the_sun_is_summed_by_area_and_hydro_counts_as_a_forecast(tmp_path: Path):
    sun = "Year,Month,Day,Period,320_PV_1,101_PV_1,314_PV_1\n2020,7,1,12,5,7,11\n2020,7,1,13,x,7,11\n"
    rows = read(tmp_path, "DAY_AHEAD_pv.csv", sun, "rts_gmlc")
    assert sorted((r["series_id"], r["value"]) for r in rows if r["line"] == 2) == [("pv_1", 7.0), ("pv_3", 16.0)]
    broken = next(r for r in rows if r["line"] == 3 and r["fault"])
    assert broken["fault"] == "expected a number in '320_PV_1', found 'x'"
    (river,) = read(tmp_path, "DAY_AHEAD_hydro.csv", "Year,Month,Day,Period,122_HYDRO_1\n2020,7,1,1,4.2\n", "rts_gmlc")
    assert (river["series_id"], river["quantity"], river["is_forecast"]) == ("122_HYDRO_1", "generation_mw", True)


def test_reserves_by_hour_of_day_are_refused(tmp_path: Path):
    (row,) = read(tmp_path, "DAY_AHEAD_regional_Reg_Up.csv", "Year,Month,Day,1,2\n2020,1,1,55,50\n", "rts_gmlc")
    assert "Reserve series by day and hour of day are not read" in row["fault"]


@pytest.mark.real_data
def test_the_published_fleet_costs_what_the_published_instances_say(tmp_path: Path):
    root = os.environ.get("GRIDLAKE_DATA")
    shared = Path(root).parent / "dispatch" if root else Path(__file__).parents[3] / "shared" / "dispatch"
    source, instance = shared / "rts_gmlc_source" / "gen.csv", shared / "rts_gmlc" / "2020-07-06.json"
    if not source.exists() or not instance.exists():
        pytest.skip(f"needs {source} and {instance}")
    rows = read(tmp_path, "gen.csv", source.read_text(encoding="utf-8"), "rts_gmlc_fleet")
    ours = {row["unit_id"]: parameters(row) for row in rows if row["kind"] == "thermal"}
    theirs = json.loads(instance.read_text(encoding="utf-8"))["thermal_generators"]
    assert ours.keys() == theirs.keys()
    for name, unit in theirs.items():
        if "NUCLEAR" in name:  # published with increments of zero, which the instances fill in
            continue
        own = ours[name]
        assert own["cost_curve"][0][1] == pytest.approx(unit["piecewise_production"][0]["cost"], rel=1e-4)
        assert own["cost_curve"][-1][1] == pytest.approx(unit["piecewise_production"][-1]["cost"], rel=1e-3)
        for start in unit["startup"]:  # the cost after so many hours off
            cost = [eur for hours, eur in own["startup_costs"] if hours <= start["lag"]][-1]
            assert cost == pytest.approx(start["cost"], rel=1e-4)


@pytest.mark.real_data
def test_the_example_site_names_what_its_files_hold():
    from lakehouse.flow.setup import EXAMPLES, _assign
    from lakehouse.site import parse_site

    root = os.environ.get("GRIDLAKE_DATA")
    source = (Path(root).parent / "dispatch" if root else Path(__file__).parents[3] / "shared" / "dispatch") / "rts_gmlc_source"
    if not source.exists():
        pytest.skip(f"needs {source}")
    path = EXAMPLES / "rts_gmlc.yaml"
    site = parse_site(path.read_text(encoding="utf-8"), path)
    chosen, left_out = _assign(site, source, EXAMPLES)
    assert {feed: len(paths) for feed, paths in chosen.items()} == {"series": 5, "fleet": 5}
    assert all("Reg_" in one or "Spin_" in one or "reserves" in one for one in left_out)
    rows = [
        row
        for feed, paths in chosen.items()
        for one in paths
        for table in read_file(LandedFile(one, one.name, date(2026, 1, 1), feed), site.feeds[feed].format, ReadOptions(site.time_zone))
        for row in table.slice(0, 500).to_pylist()
    ]
    series = {row["series_id"] for row in rows if row.get("series_id")}
    assert all(set(target.series) <= series for target in site.series.values())
    units = [parameters(row) for row in rows if row.get("parameters")]
    assert {unit["series_id"] for unit in units if "series_id" in unit} <= series
    kinds = [unit["kind"] for unit in units]
    assert {kind: kinds.count(kind) for kind in set(kinds)} == {
        "thermal": 73, "wind": 4, "solar": 56, "hydro": 20, "storage": 1, "line": 6, "zone": 3,
    }  # fmt: skip
