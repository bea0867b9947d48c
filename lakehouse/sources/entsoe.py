"""Yearly exports of the European transparency platform: load, wind, sun, generation forecast and prices of one area and year.

Two generations of the export are read: `Time (CET)` with the area in the column names, and `MTU (CET/CEST)` with the area in a column.
Both write the local clock; the newer marks the summer or winter reading only around the changes, the older not at all.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import pyarrow as pa

from lakehouse.errors import SourceError
from lakehouse.sources.base import Format, LandedFile, ReadOptions
from lakehouse.sources.sheets import Measure, Sheet, connection, series_rows, unread_columns, whole_sheets

CLOCKS = {
    "CET": "Europe/Brussels",
    "CET/CEST": "Europe/Brussels",
    "UTC": "UTC",
    "WET/WEST": "Europe/Lisbon",
    "EET/EEST": "Europe/Helsinki",
}
"""What the time column's name says of its clock. `Time (CET)` changes to summer time as well: its March day lacks an hour."""

TECHNOLOGIES = {"SOLAR": "solar", "ONSHORE": "wind_onshore", "OFFSHORE": "wind_offshore"}
"""What the file's name says of a wind and solar export, whose columns name no technology."""

STAMP = r"(\d{2})[./](\d{2})[./](\d{4}) (\d{2}):(\d{2})(?::(\d{2}))?(?: \((CET|CEST|WET|WEST|EET|EEST|UTC)\))?"
SUMMER = ("CEST", "WEST", "EEST")
LENGTHS = (5, 10, 15, 30, 60)


def read(file: LandedFile, options: ReadOptions) -> Iterator[pa.Table]:
    """Reads one export; interval lengths come from the stamps, row by row.

    An area other than those of `options.areas` is told and not read: two areas under one name would be one series.
    """
    for sheet in whole_sheets(file):
        zone = _clock(sheet)
        area_at = sheet.header.index("Area") + 1 if "Area" in sheet.header else 0
        sequence_at = sheet.header.index("Sequence") + 1 if "Sequence" in sheet.header else 0
        technology = options.settings.get("technology") or _technology(file.name)
        areas = [str(area) for area in options.settings.get("areas", ())]
        measures, unread = [], []
        for position, name in enumerate(sheet.header, 1):
            if position in (1, area_at, sequence_at) or name.startswith("Intraday Period"):
                continue
            measure = _measure(position, name, technology)
            measures += [measure] if measure else []
            unread += [] if measure else [name]
        if not measures:
            raise SourceError(
                f"{sheet.name}, line 1: expected columns of load, generation or price, found {', '.join(sheet.header[1:6])}.",
                "For a wind or solar export whose file name does not tell which, set the feed's options.technology.",
            )
        if unread:
            yield unread_columns(unread, sheet, file)
        columns_area = next((found.group(1) for name in sheet.header if (found := re.search(r"(?:BZN|CTA|CTY)\|([\w-]+)", name))), "")
        engine = connection()
        engine.register("lines", sheet.rows)
        engine.execute(
            f"""
            CREATE TEMP TABLE stamped AS
            WITH cut AS (
                SELECT line, raw_text, cells, regexp_extract_all(cells[1], '{STAMP}') AS ends,
                       regexp_extract(cells[1], '^{STAMP}', 7) AS mark,
                       CASE WHEN $area = 0 THEN $columns_area ELSE regexp_extract(cells[$area], '([^|]+)$', 1) END AS area,
                       CASE WHEN $sequence = 0 THEN '' ELSE regexp_extract(cells[$sequence], '(\\d+)$', 1) END AS sequence
                FROM lines
            ), clocks AS (
                SELECT *, CASE WHEN len(ends) = 2 THEN try_strptime(regexp_replace(ends[1][:16], '[./]', '-', 'g'),
                    '%d-%m-%Y %H:%M') END AS clock,
                       CASE WHEN len(ends) = 2 THEN try_strptime(regexp_replace(ends[2][:16], '[./]', '-', 'g'),
                           '%d-%m-%Y %H:%M') END AS clock_end
                FROM cut
            ), counted AS (
                -- Two readings of one clock time are told apart by their mark or, unmarked, by their order in the file.
                SELECT *, row_number() OVER (PARTITION BY clock, area, sequence ORDER BY line) AS reading,
                       CASE WHEN date_diff('minute', clock, clock_end) IN {LENGTHS} THEN date_diff('minute', clock,
                           clock_end) END AS minutes
                FROM clocks
            ), lengths AS (SELECT mode(minutes) AS usual_minutes FROM counted)
            SELECT line, raw_text, cells, area, sequence,
                   CASE WHEN len(cells) <> $fields THEN format('expected {{}} cells, found {{}}', $fields, len(cells))
                        WHEN clock IS NULL OR clock_end IS NULL
                            THEN format('expected an interval such as 01/01/2015 00:00 - 01/01/2015 00:15, found ''{{}}''',
                                coalesce(cells[1], '')[:60])
                        WHEN len($areas) > 0 AND NOT list_contains($areas, area)
                            THEN format('expected an area among {{}}, found ''{{}}''', array_to_string($areas, ', '), area)
                        WHEN NOT is_on_clock(clock, $zone) AND list_filter($positions, lambda p: NOT is_missing(cells[p])) <> []
                            THEN format('expected a time that the clock of {{}} shows, found {{}}', $zone, strftime(clock,
                                '%Y-%m-%d %H:%M'))
                   END AS fault,
                   CASE WHEN mark IN {SUMMER} THEN utc_first(clock, $zone) WHEN mark <> '' OR reading > 1 THEN utc_second(clock, $zone)
                        ELSE utc_first(clock, $zone) END AS interval_start,
                   -- Across a clock change the stamps' difference is not the length; the file's usual one is.
                   CAST(coalesce(minutes, usual_minutes) AS INTEGER) AS interval_minutes
            FROM counted CROSS JOIN lengths
            """,
            {
                "area": area_at,
                "columns_area": columns_area,
                "sequence": sequence_at,
                "fields": len(sheet.header),
                "zone": zone,
                "areas": areas,
                "positions": [m.position for m in measures],
            },
        )
        for n, kind in enumerate(dict.fromkeys(m.series_id for m in measures)):
            of_kind = [Measure(m.position, None, m.quantity, m.is_forecast) for m in measures if m.series_id == kind]
            engine.execute(
                f"""
                CREATE TEMP TABLE kind_{n} AS SELECT *, CASE $kind WHEN 'load' THEN coalesce($load_name, area)
                    WHEN 'day_ahead' THEN 'day_ahead' || CASE WHEN sequence IN ('', '1') THEN '' ELSE '_' || sequence END
                        ELSE $kind END AS series_id
                FROM stamped WHERE fault IS NULL OR $first  -- a faulty line is told once
                """,
                {"kind": kind, "load_name": options.settings.get("series"), "first": n == 0},
            )
            yield from series_rows(engine, f"kind_{n}", of_kind, sheet, file)


def _clock(sheet: Sheet) -> str:
    found = re.fullmatch(r"(?:Time|MTU) \(([A-Z/]+)\)", sheet.header[0])
    if not found or found.group(1) not in CLOCKS:
        raise SourceError(
            f"{sheet.name}, line 1: expected 'Time (CET)' or 'MTU (CET/CEST)' as first column, found '{sheet.header[0]}'.",
            "Check the feed's format in the site file.",
        )
    return CLOCKS[found.group(1)]


def _technology(name: str) -> str | None:
    found = re.search(r"FORECAST_(SOLAR|ONSHORE|OFFSHORE)", name)
    return TECHNOLOGIES[found.group(1)] if found else None


def _measure(position: int, name: str, technology: str | None) -> Measure | None:
    words = re.sub(r"\s*[\[(](MW|EUR/MWh)[\])].*$", "", name)
    unit = "EUR/MWh" if "EUR/MWh" in name else "MW" if "MW" in name else None
    fixed: dict[tuple[str, str | None], tuple[str, str, bool]] = {
        ("Actual Total Load", "MW"): ("load", "load_mw", False),
        ("Day-ahead Total Load Forecast", "MW"): ("load", "load_mw", True),
        ("Generation Forecast", "MW"): ("total", "generation_mw", True),
        ("Actual Generation", "MW"): ("total", "generation_mw", False),
        ("Scheduled Consumption", "MW"): ("scheduled_consumption", "generation_mw", True),
        ("Day-ahead Price", "EUR/MWh"): ("day_ahead", "price_eur_per_mwh", False),
        ("Intraday Price", "EUR/MWh"): ("intraday", "price_eur_per_mwh", False),
    }
    if technology and unit == "MW":
        fixed |= {
            ("Actual", "MW"): (technology, "generation_mw", False),
            ("Day-ahead", "MW"): (technology, "generation_mw", True),
            ("Intraday", "MW"): (f"{technology}_intraday", "generation_mw", True),
            ("Current", "MW"): (f"{technology}_current", "generation_mw", True),
        }
    if (words, unit) not in fixed:
        return None
    series_id, quantity, is_forecast = fixed[words, unit]
    return Measure(position, series_id, quantity, is_forecast)


def delivered_on(path: Path) -> date | None:
    """The day after the last one that the file's name tells: `…_201412312300-201512312300…` (UTC) or `…_2015`."""
    span = re.search(r"_(\d{8})\d{4}-(\d{4})(\d{2})(\d{2})\d{4}", path.name)
    if span:
        year, month, day = (int(part) for part in span.groups()[1:])
        return date.fromordinal(date(year, month, day).toordinal() + 1)
    year_only = re.search(r"_(20\d\d)\.csv", path.name)
    return date(int(year_only.group(1)) + 1, 1, 1) if year_only else None


FORMAT = Format(
    name="entsoe_export",
    shape="series",
    description="A yearly export of the European transparency platform: load, wind, sun, generation forecast or prices.",
    read=read,
    looks_like=lambda head, name: bool(re.match(rb'\xef?\xbb?\xbf?"?(Time|MTU) \(', head)),
    delivered_on=delivered_on,
    settings={
        "series": "name of the load series; the area's code unless given",
        "areas": "the area codes that may occur, such as [DE-AT-LU, DE-LU]; any unless given",
        "technology": "wind_onshore, wind_offshore or solar, where the file's name does not tell",
    },
)
