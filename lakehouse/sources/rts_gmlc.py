"""The RTS-GMLC test system's own tables (https://github.com/GridMod/RTS-GMLC): units, areas and ties as a fleet, hourly series by area.

Two formats: `rts_gmlc_fleet` reads gen.csv, bus.csv, branch.csv, dc_branch.csv and storage.csv; `rts_gmlc` reads the hourly
`DAY_AHEAD_*` series. An area is the first digit of a bus. Sun is summed by area (`pv_1`, `rtpv_1`, …), and each plant takes the share of
its rated power; wind and hydro keep their plants and count as forecasts. Fuel prices in dollars are taken as they stand.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from lakehouse.contracts.raw import RAW_TEXT_LIMIT, RawFleet
from lakehouse.errors import SourceError
from lakehouse.sources.archives import members
from lakehouse.sources.base import Format, LandedFile, ReadOptions
from lakehouse.sources.sheets import Measure, Sheet, connection, series_rows, stamp_lines, whole_sheets

ROUND_TRIP_EFFICIENCY = 0.85
"""Of the storage plant, from the column of that name in gen.csv: storage.csv, which has everything else, lacks it."""

T_PER_LB = 0.45359237e-3
NEVER_HOURS = 9999
CLOCK = (
    "TRY_CAST(format('{}-{}-{}', cells[$year], cells[$month], cells[$day]) AS DATE)::TIMESTAMP "
    "+ to_hours(CASE WHEN TRY_CAST(cells[$period] AS INTEGER) BETWEEN 1 AND 24 THEN TRY_CAST(cells[$period] AS INTEGER) - 1 END)"
)
STAMP = ("Year", "Month", "Day", "Period")
LEFT_OUT = {
    "SYNC_COND": "a synchronous condenser gives no active power",
    "CSP": "its inflow is not among the published day-ahead series",
    "STORAGE": "storage.csv describes it",
}


# -- series


def read(file: LandedFile, options: ReadOptions) -> Iterator[pa.Table]:
    """Reads one series file: Year, Month, Day, Period (1 to 24, local clock without summer time), then MW by area or plant."""
    for sheet in whole_sheets(file):
        if sheet.header[:4] != STAMP or len(sheet.header) < 5:
            raise SourceError(
                f"{sheet.name}, line 1: expected Year, Month, Day, Period and values, found {', '.join(sheet.header[:5])}.",
                "Reserve series by day and hour of day are not read.",
            )
        measures, cells = _measures(sheet)
        engine = connection()
        places = {name.lower(): place for place, name in enumerate(STAMP, 1)}
        stamped = stamp_lines(
            engine, sheet, CLOCK, zone=options.time_zone, expected="Year, Month, Day and Period", places=places, minutes=60, cells=cells
        )
        yield from series_rows(engine, stamped, measures, sheet, file)


def _measures(sheet: Sheet) -> tuple[list[Measure], str]:
    """What each column holds; plants of the sun are summed into the cell of their area's first one."""
    measures: list[Measure] = []
    summed: dict[str, list[int]] = {}
    for place, name in enumerate(sheet.header[4:], 5):
        if re.fullmatch(r"\d", name):
            measures.append(Measure(place, name, "load_mw"))
            continue
        kind = _kind_in(name, sheet)
        if kind in ("PV", "RTPV"):
            summed.setdefault(f"{kind.lower()}_{name[0]}", []).append(place)
        else:
            measures.append(Measure(place, name, "generation_mw", is_forecast=kind in ("WIND", "HYDRO", "ROR")))
    cells = [f"cells[{place}]" for place in range(1, len(sheet.header) + 1)]
    for series, places in summed.items():
        measures.append(Measure(places[0], series, "generation_mw"))
        parts = ", ".join(f"cells[{place}]" for place in places)
        total = " + ".join(f"number_in(cells[{place}])" for place in places)
        cells[places[0] - 1] = f"coalesce(CAST({total} AS VARCHAR), list_filter([{parts}], lambda c: number_in(c) IS NULL)[1])"
    return measures, f"[{', '.join(cells)}]"


def _kind_in(name: str, sheet: Sheet) -> str:
    found = re.fullmatch(r"\d{3}_([A-Z]+)_\d+", name)
    if found is None or found[1] not in ("PV", "RTPV", "WIND", "HYDRO", "ROR"):
        raise SourceError(f"{sheet.name}, line 1: expected areas or plants such as 101_PV_1, found '{name}'.", "Ask for the file again.")
    return found[1]


# -- fleet


def read_fleet(file: LandedFile, options: ReadOptions) -> Iterator[pa.Table]:
    """Reads one of the system's tables; `line` is the table's line.

    Raises:
        SourceError: none of the five tables.
    """
    for member in members(file):
        text = member.stream.read().decode("utf-8-sig", errors="replace")
        lines = list(csv.DictReader(io.StringIO(text)))
        header = set(lines[0]) if lines else set()
        reader = next((one for column, one in _TABLES.items() if column in header), None)
        if reader is None:
            raise SourceError(
                f"{member.name}: expected gen.csv, bus.csv, branch.csv, dc_branch.csv or storage.csv of RTS-GMLC, found another table.",
                "Take it out of the feed's files in gridlake.yaml.",
            )
        rows = []
        for number, unit in reader(lines):
            row = dict.fromkeys(RawFleet.columns) | {"file": member.name, "line": number, "delivery_date": file.delivery_date}
            if "fault" in unit:
                rows.append(
                    row | {"fault": unit["fault"], "raw_text": ",".join(str(v) for v in lines[number - 2].values())[:RAW_TEXT_LIMIT]}
                )
            else:
                rows.append(row | {"unit_id": unit["unit_id"], "kind": unit["kind"], "parameters": json.dumps(unit, sort_keys=True)})
        yield RawFleet.from_rows(rows)


Lines = list[dict[str, str]]
Unit = dict[str, Any]


def _units(lines: Lines) -> Iterator[tuple[int, Unit]]:
    """Plants of gen.csv; one that is not dispatched is told with its reason."""
    rated: dict[str, float] = {}
    for line in lines:
        if line["Unit Type"] in ("PV", "RTPV"):
            series = _sun_series(line)
            rated[series] = rated.get(series, 0.0) + float(line["PMax MW"])
    for number, line in enumerate(lines, 2):
        kind, name = line["Unit Type"], line["GEN UID"]
        base: Unit = {"unit_id": name, "zone": line["Bus ID"][0]}
        try:
            if kind in LEFT_OUT:
                yield number, {"fault": f"unit '{name}' is not dispatched: {LEFT_OUT[kind]}"}
            elif kind in ("PV", "RTPV"):
                share = float(line["PMax MW"]) / rated[_sun_series(line)]
                own = {"kind": "solar", "series_id": _sun_series(line), "share_of_series": share, "must_take": kind == "RTPV"}
                yield number, base | own | {"maximum_mw": float(line["PMax MW"])}
            elif kind == "WIND":
                yield number, base | {"kind": "wind", "series_id": name, "forecast": "external", "maximum_mw": float(line["PMax MW"])}
            elif kind in ("HYDRO", "ROR"):
                yield number, base | {"kind": "hydro", "series_id": name, "maximum_mw": float(line["PMax MW"])}
            else:
                yield number, base | _thermal(line)
        except (KeyError, ValueError) as error:
            yield number, {"fault": f"expected a unit of RTS-GMLC, found '{name}' with {error!r}"}


def _sun_series(line: dict[str, str]) -> str:
    return f"{line['Unit Type'].lower()}_{line['Bus ID'][0]}"


def _thermal(line: dict[str, str]) -> Unit:
    """A plant with heat rates: its cost by heat input, fuel price and variable cost; its start-up cost by start heat."""
    fuel, maximum, minimum = (float(line[c]) for c in ("Fuel Price $/MMBTU", "PMax MW", "PMin MW"))
    variable = float(line["VOM"])
    power = [float(line["Output_pct_0"]) * maximum]
    heat = [power[0] * float(line["HR_avg_0"]) / 1000.0]
    for n in range(1, 5):
        if line[f"Output_pct_{n}"] in ("NA", "") or line[f"HR_incr_{n}"] in ("NA", ""):
            break
        power.append(float(line[f"Output_pct_{n}"]) * maximum)
        heat.append(heat[-1] + (power[-1] - power[-2]) * float(line[f"HR_incr_{n}"]) / 1000.0)
    power[0], power[-1] = minimum, maximum  # published as rounded shares of the maximum
    curve = _convex([(mw, mmbtu * fuel + mw * variable) for mw, mmbtu in zip(power, heat, strict=True)])
    co2 = float(line["Emissions CO2 Lbs/MMBTU"]) * T_PER_LB * heat[-1] / maximum
    ramp = float(line["Ramp Rate MW/Min"]) * 60.0
    now = float(line["MW Inj"])
    # At the published operating point, peakers stand still; the others run as published.
    is_on = now >= minimum and line["Unit Type"] != "CT"
    return {
        "kind": "thermal",
        "minimum_mw": minimum,
        "maximum_mw": maximum,
        "cost_curve": [[round(mw, 4), round(eur, 4)] for mw, eur in curve],
        "startup_costs": _starts(line, fuel),
        "ramp_up_mw_per_hour": ramp,
        "ramp_down_mw_per_hour": ramp,
        "minimum_up_hours": float(line["Min Up Time Hr"]),
        "minimum_down_hours": float(line["Min Down Time Hr"]),
        "must_run": line["Unit Type"] == "NUCLEAR",
        "initially_on": is_on,
        "initial_power_mw": min(now, maximum) if is_on else 0.0,
        "initial_hours_in_state": 48.0,
        "co2_t_per_mwh": round(co2, 4),
    }


def _convex(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """The lower hull of a cost curve: a few published increments fall, which no dispatch could use."""
    hull: list[tuple[float, float]] = []
    for point in points:
        if hull and point[0] <= hull[-1][0] + 1e-9:
            continue
        while len(hull) > 1 and _slope(hull[-2], hull[-1]) >= _slope(hull[-1], point):
            hull.pop()
        hull.append(point)
    return hull


def _slope(a: tuple[float, float], b: tuple[float, float]) -> float:
    return (b[1] - a[1]) / (b[0] - a[0])


def _starts(line: dict[str, str], fuel: float) -> list[list[float]]:
    """Start-up costs by hours off, hot to cold; where times are not given (9999), the cold start counts."""
    fixed = float(line["Non Fuel Start Cost $"])
    heats = {state: float(line[f"Start Heat {state} MBTU"]) * fuel + fixed for state in ("Hot", "Warm", "Cold")}
    hours = {state: float(line[f"Start Time {state} Hr"]) for state in ("Hot", "Warm", "Cold")}
    if hours["Hot"] >= NEVER_HOURS:
        return [[0.0, round(heats["Cold"], 2)]]
    points = [[0.0, heats["Hot"]], [hours["Warm"], heats["Warm"]], [hours["Cold"], heats["Cold"]]]
    kept: list[list[float]] = []
    for after, cost in points:
        if not kept or (after > kept[-1][0] and cost > kept[-1][1]):
            kept.append([after, round(cost, 2)])
    return kept


def _areas(lines: Lines) -> Iterator[tuple[int, Unit]]:
    """One zone for each area of bus.csv; its demand is the series of that area."""
    seen = set()
    for number, line in enumerate(lines, 2):
        area = line["Bus ID"][0]
        if area not in seen:
            seen.add(area)
            yield number, {"unit_id": area, "kind": "zone", "demand_series": [area]}


def _ties(lines: Lines) -> Iterator[tuple[int, Unit]]:
    """The branches between areas, with their reactance; branches within an area lie inside one zone."""
    for number, line in enumerate(lines, 2):
        first, second = line["From Bus"][0], line["To Bus"][0]
        if first == second:
            continue
        unit: Unit = {"unit_id": line["UID"], "kind": "line", "from_zone": first, "to_zone": second}
        if "X" in line:
            yield number, unit | {"forward_mw": float(line["Cont Rating"]), "reactance_pu": float(line["X"])}
        else:
            yield number, unit | {"forward_mw": float(line["MW Load"])}


def _stores(lines: Lines) -> Iterator[tuple[int, Unit]]:
    """The storage plant of storage.csv, by its upper basin; basins of hydro plants follow their published series."""
    each_way = ROUND_TRIP_EFFICIENCY**0.5
    for number, line in enumerate(lines, 2):
        if "_STORAGE_" not in line["GEN UID"] or line["position"] != "head":
            continue
        level = float(line["Initial Volume GWh"]) * 1000.0
        yield (
            number,
            {
                "unit_id": line["GEN UID"], "kind": "storage", "zone": line["GEN UID"][0], "charge_mw": float(line["Rating MVA"]),
                "discharge_mw": float(line["Rating MVA"]), "energy_mwh": float(line["Max Volume GWh"]) * 1000.0,
                "initial_mwh": level, "final_mwh": level, "charge_efficiency": each_way, "discharge_efficiency": each_way,
            },
        )  # fmt: skip


_TABLES = {"HR_avg_0": _units, "Bus Name": _areas, "Cont Rating": _ties, "Control Mode": _ties, "Max Volume GWh": _stores}

FORMATS = [
    Format(
        name="rts_gmlc",
        shape="series",
        description="Hourly series of the RTS-GMLC test system: Year, Month, Day, Period, then MW by area or plant.",
        read=read,
        looks_like=lambda head, name: head.startswith(b"Year,Month,Day,Period,"),
    ),
    Format(
        name="rts_gmlc_fleet",
        shape="fleet",
        description="The RTS-GMLC test system's units, areas, ties and storage: gen.csv, bus.csv, branch.csv, dc_branch.csv, storage.csv.",
        read=read_fleet,
        looks_like=lambda head, name: head.startswith((b"GEN UID,", b"Bus ID,Bus Name", b"UID,From Bus,To Bus")),
    ),
]
