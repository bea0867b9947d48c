"""Spain's published hourly tables: `energy_dataset` (generation, load, prices, the operator's forecasts) and `weather_features`.

Both stamp the hour's start with its Europe/Madrid offset. The energy table's ENTSO-E columns may lie on the date with day and
month exchanged; that is repaired here, and only where the check finds it. What is physically impossible is left to cleaning.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import duckdb
import pyarrow as pa

from lakehouse.errors import SourceError
from lakehouse.series.day_month import day_month_swaps, verdicts
from lakehouse.sources.base import Format, LandedFile, ReadOptions
from lakehouse.sources.sheets import Measure, Sheet, connection, series_rows, unread_columns, whole_sheets

INTERVAL_MINUTES = 60
KELVIN_AT_0_C = 273.15

WEATHER_QUANTITIES = {
    "temp": ("temperature_c", 1.0, -KELVIN_AT_0_C),
    "pressure": ("pressure_hpa", 1.0, 0.0),
    "humidity": ("humidity_pct", 1.0, 0.0),
    "wind_speed": ("wind_speed_m_per_s", 1.0, 0.0),
    "wind_deg": ("wind_direction_deg", 1.0, 0.0),
    "rain_1h": ("precipitation_mm", 1.0, 0.0),
    "clouds_all": ("cloud_cover_pct", 1.0, 0.0),
}
WEATHER_NOT_READ = ("temp_min", "temp_max", "rain_3h", "snow_3h", "weather_id", "weather_main", "weather_description", "weather_icon")

STAMP = r"^\d{4}-\d\d-\d\d[ T]\d\d:\d\d(:\d\d)?([+-]\d\d(:?\d\d)?|Z)$"


def read_energy(file: LandedFile, options: ReadOptions) -> Iterator[pa.Table]:
    """Reads `energy_dataset`: MW and EUR/MWh, hourly, one row of the file per hour."""
    for sheet in whole_sheets(file):
        position_of_time = _position(sheet, "time")
        zone = str(options.settings.get("zone", "ES"))
        measures, unread = [], []
        for position, name in enumerate(sheet.header, 1):
            if position != position_of_time:
                measure = _energy_measure(position, name, zone)
                measures += [measure] if measure else []
                unread += [] if measure else [name]
        if unread:
            yield unread_columns(unread, sheet, file)
        engine = connection()
        _stamp(engine, sheet, position_of_time)
        dated_right = [m for m in measures if sheet.header[m.position - 1] == "price actual"]
        in_doubt = [m for m in measures if m not in dated_right]
        if options.settings.get("repair_dates", True):
            _exchange_days(engine, _swapped_years(engine, in_doubt), options.time_zone)
        else:
            engine.execute("CREATE TEMP TABLE dated AS FROM stamped")
        yield from series_rows(engine, "dated", in_doubt, sheet, file)
        # A faulty line has been told once already.
        engine.execute("CREATE TEMP TABLE stamped_right AS FROM stamped WHERE fault IS NULL")
        yield from series_rows(engine, "stamped_right", dated_right, sheet, file)


def read_weather(file: LandedFile, options: ReadOptions) -> Iterator[pa.Table]:
    """Reads `weather_features`: one row of the file per city and hour; kelvin becomes °C, everything else keeps its unit."""
    for sheet in whole_sheets(file):
        position_of_time, position_of_city = _position(sheet, "dt_iso"), _position(sheet, "city_name")
        measures, unread = [], []
        for position, name in enumerate(sheet.header, 1):
            if name in WEATHER_QUANTITIES:
                quantity, scale, offset = WEATHER_QUANTITIES[name]
                measures.append(Measure(position, None, quantity, scale=scale, offset=offset))
            elif position not in (position_of_time, position_of_city) and name not in WEATHER_NOT_READ:
                unread.append(name)
        if unread:
            yield unread_columns(unread, sheet, file)
        engine = connection()
        _stamp(engine, sheet, position_of_time)
        engine.execute(
            """
            CREATE TEMP TABLE of_city AS SELECT * REPLACE (
                CASE WHEN fault IS NULL AND is_missing(cells[$city]) THEN 'expected the name of a city, found none'
                    ELSE fault END AS fault),
                trim(cells[$city]) AS series_id
            FROM stamped
            """,
            {"city": position_of_city},
        )
        yield from series_rows(engine, "of_city", measures, sheet, file)


def _position(sheet: Sheet, name: str) -> int:
    if name not in sheet.header:
        raise SourceError(
            f"{sheet.name}, line 1: expected a column '{name}', found {', '.join(sheet.header[:6])}.",
            "Check the feed's format in the site file.",
        )
    return sheet.header.index(name) + 1


def _energy_measure(position: int, name: str, zone: str) -> Measure | None:
    words = name.lower().strip()
    if words == "total load actual":
        return Measure(position, zone, "load_mw")
    if words == "total load forecast":
        return Measure(position, zone, "load_mw", is_forecast=True)
    if words.startswith("price "):
        return Measure(position, _identifier(words.removeprefix("price ")), "price_eur_per_mwh")
    if words.startswith("generation "):
        return Measure(position, _identifier(words.removeprefix("generation ")), "generation_mw")
    if words.startswith("forecast ") and words.endswith("day ahead"):
        # One column of the published table is called "eday ahead".
        technology = words.removeprefix("forecast ").removesuffix("day ahead").removesuffix(" e")
        return Measure(position, _identifier(technology), "generation_mw", is_forecast=True)
    return None


def _identifier(words: str) -> str:
    return "_".join("".join(c if c.isalnum() else " " for c in words).split())


def _stamp(engine: duckdb.DuckDBPyConnection, sheet: Sheet, position_of_time: int) -> None:
    engine.register("lines", sheet.rows)
    engine.execute(
        f"""
        CREATE TEMP TABLE stamped AS
        SELECT line, raw_text, cells,
               CASE WHEN len(cells) <> $fields THEN format('expected {{}} cells, found {{}}', $fields, len(cells))
                    WHEN instant IS NULL THEN format('expected a time with its offset such as 2015-01-01 00:00:00+01:00, found ''{{}}''',
                                                     coalesce(cells[$time], '')[:40])
               END AS fault,
               instant AS interval_start, CAST({INTERVAL_MINUTES} AS INTEGER) AS interval_minutes,
               TRY_CAST(replace(cells[$time], 'T', ' ')[:19] AS TIMESTAMP) AS clock
        FROM (SELECT *, CASE WHEN regexp_matches(cells[$time], '{STAMP}')
            THEN TRY_CAST(cells[$time] AS TIMESTAMPTZ) END AS instant FROM lines)
        """,
        {"fields": len(sheet.header), "time": position_of_time},
    )


def _swapped_years(engine: duckdb.DuckDBPyConnection, measures: Sequence[Measure]) -> list[int]:
    """The years in which the columns, taken together, say that day and month were exchanged.

    The columns come from one export, so they vote together: a year is repaired where more say swapped than right. A year too
    short to tell follows the others if those agree.
    """
    engine.register("positions", pa.table({"position": pa.array([m.position for m in measures], pa.int32())}))
    engine.execute(
        """
        CREATE TEMP TABLE in_doubt AS
        SELECT CAST(position AS VARCHAR) AS series_id, '' AS quantity, clock AS interval_start, number_in(cells[position]) AS value
        FROM stamped CROSS JOIN positions WHERE fault IS NULL AND number_in(cells[position]) IS NOT NULL
        """
    )
    votes: dict[int, int] = {}
    for one in verdicts(day_month_swaps(engine, "in_doubt")):
        votes[one.year] = votes.get(one.year, 0) + {"swapped": 1, "right": -1}.get(one.verdict, 0)
    decided = [v for v in votes.values() if v]
    others_swapped = bool(decided) and min(decided) > 0
    return [year for year, vote in votes.items() if vote > 0 or (vote == 0 and others_swapped)]


def _exchange_days(engine: duckdb.DuckDBPyConnection, years: Sequence[int], time_zone: str) -> None:
    """Makes `dated`: the row stamped 1 February holds what belongs to 2 January, and the other way round.

    The hour on the local clock stays. The exchanged days are never those of a clock change, since Europe's fall after the 24th;
    elsewhere the earlier of two equal clock readings is taken.
    """
    engine.execute(
        """
        CREATE TEMP TABLE dated AS
        SELECT * EXCLUDE (exchanged) REPLACE (
            CASE WHEN exchanged IS NULL THEN interval_start ELSE utc_first(exchanged, $zone) END AS interval_start)
        FROM (SELECT *, CASE WHEN fault IS NULL AND year(clock) IN (SELECT unnest($years)) AND day(clock) <= 12
            AND day(clock) <> month(clock)
                             THEN make_timestamp(year(clock), day(clock), month(clock), hour(clock), minute(clock),
                                 second(clock)) END AS exchanged
              FROM stamped)
        """,
        {"zone": time_zone, "years": list(years)},
    )


FORMATS = [
    Format(
        name="spain_energy",
        shape="series",
        description="Spain's hourly energy table (energy_dataset.csv): generation, load, prices and the operator's forecasts.",
        read=read_energy,
        looks_like=lambda head, name: head.startswith(b"time,generation "),
        settings={
            "zone": "name of the load series; ES unless given",
            "repair_dates": "false: leave days whose day and month look swapped as they are; true unless given",
        },
    ),
    Format(
        name="spain_weather",
        shape="series",
        description="Spain's hourly weather table (weather_features.csv): one row per city and hour.",
        read=read_weather,
        looks_like=lambda head, name: head.startswith(b"dt_iso,city_name,temp"),
    ),
]
