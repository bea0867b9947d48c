"""Open Power System Data: `time_series_…_singleindex` (load, generation, prices) and `weather_data`, several countries a file."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pyarrow as pa

from lakehouse.errors import SourceError
from lakehouse.sources.base import Format, LandedFile, ReadOptions
from lakehouse.sources.sheets import Measure, Sheet, connection, place_of, series_rows, stamp_lines, unread_columns, whole_sheets

CLOCK = r"CASE WHEN regexp_matches(cells[$time], 'Z$|\+00:?00$') THEN TRY_CAST(replace(cells[$time], 'T', ' ')[:19] AS TIMESTAMP) END"
NOT_READ = re.compile(r"^(cet_cest_timestamp|interpolated_values)$|_(capacity|profile)$")
COLUMNS: tuple[tuple[str, str, str, bool], ...] = (
    (
        r"(.+)_load_actual_(?:entsoe_transparency|entsoe_power_statistics|gross_generation_actual|net_consumption_actual|tso)",
        "{}",
        "load_mw",
        False,
    ),
    (r"(.+)_load_forecast_(?:entsoe_transparency|tso)", "{}", "load_mw", True),
    (r"(.+)_price_day_ahead", "{}_day_ahead", "price_eur_per_mwh", False),
    (r"([A-Z]{2}(?:_[^_]+)?)_(solar|wind_onshore|wind_offshore|wind)_generation_actual", "{}_{}", "generation_mw", False),
    (r"([A-Z]{2}(?:_[^_]+)?)_(solar|wind_onshore|wind_offshore|wind)_generation_forecast", "{}_{}", "generation_mw", True),
    (r"(.+)_temperature", "{}", "temperature_c", False),
)
"""Column pattern, series, quantity, whether it is a forecast. Great Britain's price is in GBP and is not read."""


def read(file: LandedFile, options: ReadOptions) -> Iterator[pa.Table]:
    """Reads one file; the UTC stamp counts, the local one beside it is not read.

    Direct and diffuse horizontal radiation are added up to global horizontal irradiance, where both are there.
    """
    for sheet in whole_sheets(file):
        time = place_of(sheet, "utc_timestamp")
        measures: list[Measure] = []
        unread: list[str] = []
        sums: list[tuple[str, int, int]] = []
        for position, name in enumerate(sheet.header, 1):
            if position == time or NOT_READ.search(name):
                continue
            area = name.removesuffix("_radiation_direct_horizontal").removesuffix("_radiation_diffuse_horizontal")
            both = (f"{area}_radiation_direct_horizontal", f"{area}_radiation_diffuse_horizontal")
            if area != name and set(both) <= set(sheet.header):
                if name == both[0]:
                    sums.append((area, position, place_of(sheet, both[1])))
                continue
            measure = _measure(position, name)
            measures += [measure] if measure else []
            unread += [] if measure else [name]
        if not measures and not sums:
            raise SourceError(
                f"{sheet.name}, line 1: expected columns of load, generation, price or weather, found {', '.join(sheet.header[:6])}."
            )
        if unread:
            yield unread_columns(unread, sheet, file)
        wide = Sheet(sheet.name, (*sheet.header, *(f"{area}_radiation" for area, _, _ in sums)), sheet.rows)
        measures += [Measure(len(sheet.header) + n, area, "ghi_w_per_m2") for n, (area, _, _) in enumerate(sums, 1)]
        engine = connection()
        added = ", ".join(
            f"CASE WHEN is_missing(cells[{a}]) OR is_missing(cells[{b}]) THEN '' WHEN number_in(cells[{a}]) IS NULL THEN cells[{a}]"
            f" WHEN number_in(cells[{b}]) IS NULL THEN cells[{b}] ELSE CAST(number_in(cells[{a}]) + number_in(cells[{b}]) AS VARCHAR) END"
            for _, a, b in sums
        )
        stamped = stamp_lines(
            engine, sheet, CLOCK, zone="UTC", expected="a UTC stamp such as 2015-01-01T00:00:00Z", places={"time": time},
            cells=f"list_concat(cells, [{added}])" if sums else "cells",
        )  # fmt: skip
        yield from series_rows(engine, stamped, measures, wide, file)


def _measure(position: int, name: str) -> Measure | None:
    for pattern, series, quantity, is_forecast in COLUMNS:
        found = re.fullmatch(pattern, name)
        if found and not (quantity.startswith("price") and name.startswith("GB_")):
            return Measure(position, series.format(*found.groups()), quantity, is_forecast)
    return None


FORMAT = Format(
    name="opsd",
    shape="series",
    description="Open Power System Data: time_series_…_singleindex or weather_data, with a column per country and quantity.",
    read=read,
    looks_like=lambda head, name: head.startswith((b"utc_timestamp,", b"\xef\xbb\xbfutc_timestamp,")),
)
