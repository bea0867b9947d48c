"""Gridlake's own layout of the meter registry (CSV); docs/formats.md describes it.

Columns: meter_id, meter_class, interval_minutes, rated_kw, registers, first_date, last_date; only meter_id is required.
"""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa

from lakehouse.sources.base import Format, LandedFile, ReadOptions
from lakehouse.sources.delimited import Layout, looks_like_layout, read_layout
from lakehouse.sources.text_sql import first_fault_sql, number_sql, shown_sql

COLUMNS = {
    "meter": ("meter_id",),
    "class": ("meter_class", "class"),
    "length": ("interval_minutes",),
    "rating": ("rated_kw",),
    "channels": ("registers",),
    "first": ("first_date",),
    "last": ("last_date",),
}
OPTIONAL = frozenset(COLUMNS) - {"meter"}


def _given_but_not(text: str, value: str) -> str:
    return f"NULLIF({text}, '') IS NOT NULL AND {value} IS NULL"


def _day(text: str) -> str:
    return f"CASE WHEN regexp_full_match({text}, '[0-9]{{4}}-[0-9]{{2}}-[0-9]{{2}}') THEN TRY_CAST({text} AS DATE) END"


LENGTH = f"CASE WHEN {number_sql('length')} BETWEEN 1 AND 1440 THEN CAST({number_sql('length')} AS INTEGER) END"
RATING = f"CASE WHEN {number_sql('rating')} >= 0 THEN {number_sql('rating')} END"

SQL = f"""
    SELECT line, NULLIF(meter, '') AS meter_id, COALESCE(NULLIF("class", ''), 'unknown') AS meter_class, {LENGTH} AS interval_minutes,
           {RATING} AS rated_kw, NULLIF(replace(replace(lower(channels), ';', ','), ' ', ''), '') AS registers,
           {_day('"first"')} AS first_date, {_day('"last"')} AS last_date,
           {
    first_fault_sql(
        [
            ("NULLIF(meter, '') IS NULL", "'expected a meter, found none'"),
            (_given_but_not("length", LENGTH), "'expected whole minutes from 1 to 1440, found ' || " + shown_sql("length")),
            (_given_but_not("rating", RATING), "'expected a rating in kW as a number, found ' || " + shown_sql("rating")),
            (_given_but_not('"first"', _day('"first"')), "'expected a day as YYYY-MM-DD, found ' || " + shown_sql('"first"')),
            (_given_but_not('"last"', _day('"last"')), "'expected a day as YYYY-MM-DD, found ' || " + shown_sql('"last"')),
        ]
    )
} AS fault
    FROM lines ORDER BY line
"""

LAYOUT = Layout("a meter registry", COLUMNS, SQL, OPTIONAL)


def read(file: LandedFile, options: ReadOptions) -> Iterator[pa.Table]:
    """Reads a meter registry."""
    yield from read_layout(file, options, LAYOUT)


def looks_like(head: bytes, name: str) -> bool:
    """A header with meter_id and at least the class or the rating, and no readings."""
    first = head.decode("utf-8-sig", errors="replace").splitlines()[:1]
    names = first[0].lower() if first else ""
    return looks_like_layout(LAYOUT)(head, name) and ("meter_class" in names or "rated_kw" in names) and "energy" not in names


FORMAT = Format(
    name="canonical_meters",
    shape="meters",
    description="Canonical meter registry, CSV.",
    read=read,
    looks_like=looks_like,
    settings={"delimiter": "Field delimiter; by default found from the header.", "encoding": "Text encoding; by default UTF-8."},
)
