"""CityLearn 2022: hourly energy of homes, a file a building, without timestamps: each line says only its month, hour and type of day.

The calendar comes from the option `first_interval`; every line's month, hour and weekday are then checked against it.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from pathlib import PurePath

import pyarrow as pa

from lakehouse.contracts.raw import RAW_TEXT_LIMIT
from lakehouse.errors import SourceError
from lakehouse.sources.base import Format, LandedFile, ReadOptions
from lakehouse.sources.sheets import connection, place_of, whole_sheets

REGISTERS = {"non_shiftable_load": "import", "dhw_demand": "hot_water", "cooling_demand": "cooling", "heating_demand": "heating"}
"""kWh of the hour. `solar_generation` is W per kW installed and becomes register `export_pv` where the option `pv_kw` says how much is."""


def read(file: LandedFile, options: ReadOptions) -> Iterator[pa.Table]:
    """Reads one building; hours count from 1 to 24 and are named by their end, on a clock without summer time.

    Raises:
        SourceError: the option `first_interval` is missing or no time, or the columns are others.
    """
    given = options.settings.get("first_interval")
    try:
        first = given if isinstance(given, datetime) else datetime.fromisoformat(str(given))
    except ValueError:
        raise SourceError(
            f"{file.name}: expected the option first_interval with the local start of the first line's hour, found '{given}'.",
            'Set the feed\'s options.first_interval in gridlake.yaml, for the published 2022 data to "2016-07-31 23:00".',
        ) from None
    pv_kw = options.settings.get("pv_kw")
    for sheet in whole_sheets(file):
        places = {name: place_of(sheet, name) for name in ("month", "hour", "day_type")}
        registers = [(place_of(sheet, column), register, 1.0) for column, register in REGISTERS.items() if column in sheet.header]
        if pv_kw is not None and "solar_generation" in sheet.header:
            registers.append((place_of(sheet, "solar_generation"), "export_pv", float(pv_kw) / 1000))
        positions, names, scales = (list(one) for one in zip(*registers, strict=True))
        engine = connection()
        engine.register("lines", sheet.rows)
        engine.register("registers", pa.table({"position": pa.array(positions, pa.int32()), "register": names, "scale": scales}))
        answer = engine.sql(
            f"""
            WITH placed AS (
                SELECT line, raw_text, cells,
                       CAST($first AS TIMESTAMP) + to_hours(CAST(row_number() OVER (ORDER BY line) - 1 AS INTEGER)) AS clock
                FROM lines
            ), judged AS (
                SELECT *, CASE
                    WHEN len(cells) <> $fields THEN format('expected {{}} cells, found {{}}', $fields, len(cells))
                    WHEN month(clock) IS DISTINCT FROM TRY_CAST(cells[$month] AS INTEGER) OR hour(clock) + 1 IS DISTINCT
                        FROM TRY_CAST(cells[$hour] AS INTEGER)
                         OR (isodow(clock) IS DISTINCT FROM TRY_CAST(cells[$day_type] AS INTEGER) AND cells[$day_type] IS DISTINCT FROM '8')
                        THEN format('expected month {{}}, hour {{}}, day {{}} by counting from first_interval, found {{}}, {{}}, {{}}',
                                    month(clock), hour(clock) + 1, isodow(clock), cells[$month], cells[$hour], cells[$day_type])
                    WHEN NOT is_on_clock(clock, $zone)
                        THEN format('expected a zone without summer time, found {{}}, whose clock never shows {{}}', $zone, clock)
                    END AS fault
                FROM placed
            )
            SELECT $file AS file, line, CAST($delivery AS DATE) AS delivery_date, CAST(NULL AS DATE) AS date, fault,
                   raw_text[:{RAW_TEXT_LIMIT}] AS raw_text, $meter AS meter_id, CAST(NULL AS VARCHAR) AS register,
                   CAST(NULL AS TIMESTAMPTZ) AS interval_start, 60 AS interval_minutes, CAST(NULL AS DOUBLE) AS energy_kwh,
                       CAST(NULL AS VARCHAR) AS quality
            FROM judged WHERE fault IS NOT NULL
            UNION ALL
            SELECT $file, line, CAST($delivery AS DATE), CAST(utc_first(clock, $zone) AS DATE),
                   CASE WHEN number_in(cells[position]) IS NULL THEN format('expected energy in kWh, found ''{{}}''',
                       cells[position][:60]) END,
                   CASE WHEN number_in(cells[position]) IS NULL THEN raw_text[:{RAW_TEXT_LIMIT}] END,
                   $meter, register, utc_first(clock, $zone), 60, number_in(cells[position]) * scale, NULL
            FROM judged CROSS JOIN registers WHERE fault IS NULL AND NOT is_missing(cells[position])
            ORDER BY line, register
            """,
            params={
                "first": first, "fields": len(sheet.header), "zone": options.time_zone, "file": sheet.name, "delivery": file.delivery_date,
                "meter": PurePath(sheet.name.rsplit("!", 1)[-1]).name.split(".", 1)[0], **places,
            },
        )  # fmt: skip
        yield answer.to_arrow_table()


FORMAT = Format(
    name="citylearn",
    shape="readings",
    description="A CityLearn building: month, hour, day_type and hourly energy, without timestamps.",
    read=read,
    looks_like=lambda head, name: head.startswith(b"month,hour,day_type"),
    settings={
        "first_interval": "local start of the first line's hour, such as 2016-07-31 23:00; needed, since the file has no stamps",
        "pv_kw": "installed power of the building's PV, kW; without it its production is not read",
    },
)
