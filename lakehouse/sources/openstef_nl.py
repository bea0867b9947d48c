"""Dutch connections and substations as published with OpenSTEF: quarter-hourly load in MW with weather predictors, stamped in UTC.

Two layouts: `index, load, APX, …` (a connection, named by its file) and `datetime, …, total_substation, total_solar_part, total_wind_part`
(a substation, named by its file). Production is negative in the files and positive here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import PurePath

import pyarrow as pa

from lakehouse.errors import SourceError
from lakehouse.sources.base import Format, LandedFile, ReadOptions
from lakehouse.sources.sheets import Measure, connection, place_of, series_rows, stamp_lines, whole_sheets

CLOCK = r"CASE WHEN regexp_matches(cells[$time], 'Z$|\+00:?00$') THEN TRY_CAST(replace(cells[$time], 'T', ' ')[:19] AS TIMESTAMP) END"
JOULE_PER_WATT_HOUR = 3600.0
CONNECTION: dict[str, tuple[str, str, float]] = {
    "load": ("{}", "load_mw", 1.0),
    "APX": ("apx", "price_eur_per_mwh", 1.0),
    "clouds": ("{}", "cloud_cover_pct", 1.0),
    "radiation": ("{}", "ghi_w_per_m2", 1.0 / JOULE_PER_WATT_HOUR),  # J/m² gathered in an hour
    "temp": ("{}", "temperature_c", 1.0),
    "winddeg": ("{}", "wind_direction_deg", 1.0),
    "windspeed": ("{}", "wind_speed_m_per_s", 1.0),
    "pressure": ("{}", "pressure_hpa", 0.01),  # Pa
    "humidity": ("{}", "humidity_pct", 100.0),  # share
    "rain": ("{}", "precipitation_mm", 1.0),
}
SUBSTATION: dict[str, tuple[str, str, float]] = {
    "total_substation": ("{}", "load_mw", 1.0),
    "total_solar_part": ("{}_solar", "generation_mw", -1.0),
    "total_wind_part": ("{}_wind", "generation_mw", -1.0),
    "radiation": ("{}", "ghi_w_per_m2", 1.0 / JOULE_PER_WATT_HOUR),
}
"""Not read: standard profiles (sjv_…), mixing height, snow depth, clear-sky fluxes, wind at 100 m, and what follows from the stamp."""


def read(file: LandedFile, options: ReadOptions) -> Iterator[pa.Table]:
    """Reads one file; the series is the option `series` or what the file's name says."""
    for sheet in whole_sheets(file):
        name = str(options.settings.get("series") or _name(sheet.name))
        if "total_substation" in sheet.header:
            time, known = place_of(sheet, "datetime"), SUBSTATION
        elif "load" in sheet.header:
            time, known = place_of(sheet, "index"), CONNECTION
        else:
            raise SourceError(f"{sheet.name}, line 1: expected a column 'load' or 'total_substation', found {', '.join(sheet.header[:6])}.")
        measures = [
            Measure(n, series.format(name), quantity, scale=scale)
            for n, column in enumerate(sheet.header, 1)
            if column in known
            for series, quantity, scale in [known[column]]
        ]
        engine = connection()
        expected = "a UTC stamp such as 2020-10-02 10:00:00+00:00"
        stamped = stamp_lines(engine, sheet, CLOCK, zone="UTC", expected=expected, places={"time": time}, minutes=15)
        yield from series_rows(engine, stamped, measures, sheet, file)


def _name(file_name: str) -> str:
    stem = PurePath(file_name.rsplit("!", 1)[-1]).name.split(".", 1)[0]
    found = re.search(r"pid_\d+", stem)
    return found.group(0) if found else stem


FORMAT = Format(
    name="openstef_nl",
    shape="series",
    description="Dutch connections and substations: quarter-hourly load in MW with weather, stamped in UTC.",
    read=read,
    looks_like=lambda head, name: head.startswith(b"index,load,") or b",total_substation," in head.split(b"\n", 1)[0],
    settings={"series": "name of the load series; what the file's name says unless given"},
)
