"""SQL pieces that judge text: numbers, stamps and faults, and the query of a layout with one reading a line."""

from __future__ import annotations

from collections.abc import Sequence

NUMBER = r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?"
ISO_STAMP = r"[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9]{2}:[0-9]{2}(:[0-9]{2}([.,][0-9]+)?)?"
ISO_OFFSET = r"(Z|z|[+-][0-9]{2}(:?[0-9]{2})?)"


def number_sql(text: str, *, decimal: str = ".") -> str:
    """SQL for the number that a text expression holds, or NULL: plain decimals only, no `nan`, no `1_000`.

    Args:
        text: SQL expression of type VARCHAR.
        decimal: the decimal mark, '.' or ','.
    """
    plain = f"replace({text}, ',', '.')" if decimal == "," else text
    guard = f"AND {text} NOT LIKE '%.%'" if decimal == "," else ""
    number = f"TRY_CAST({plain} AS DOUBLE)"
    return f"CASE WHEN regexp_full_match({plain}, '{NUMBER}') {guard} AND isfinite({number}) THEN {number} END"


def utc_stamp_sql(text: str) -> str:
    """SQL for the moment that an ISO 8601 stamp with offset or Z names, or NULL."""
    return f"CASE WHEN regexp_full_match({text}, '{ISO_STAMP} ?{ISO_OFFSET}') THEN TRY_CAST(replace({text}, ',', '.') AS TIMESTAMPTZ) END"


def local_stamp_sql(text: str, date_order: str | None = None) -> str:
    """SQL for the local stamp (TIMESTAMP) that a text holds, or NULL.

    Args:
        text: SQL expression of type VARCHAR.
        date_order: "day first" or "month first" for stamps like 6/1/2012 08:00; None takes ISO 8601 only.
    """
    iso = f"CASE WHEN regexp_full_match({text}, '{ISO_STAMP}') THEN TRY_CAST(replace({text}, ',', '.') AS TIMESTAMP) END"
    if date_order is None:
        return iso
    first, second = ("%d", "%m") if date_order == "day first" else ("%m", "%d")
    clocks = ("", " %H:%M", " %H:%M:%S")
    patterns = ", ".join(f"'{first}{sep}{second}{sep}%Y{clock}'" for sep in ("/", ".", "-") for clock in clocks)
    return f"COALESCE({iso}, try_strptime({text}, [{patterns}]))"


def shown_sql(text: str) -> str:
    """SQL for a text as it stands in a fault: quoted, cut, never NULL."""
    return f"'''' || left(COALESCE({text}, ''), 60) || ''''"


def first_fault_sql(faults: Sequence[tuple[str, str]]) -> str:
    """SQL for the first fault that holds: pairs of condition and words (an SQL expression)."""
    whens = " ".join(f"WHEN {condition} THEN {words}" for condition, words in faults)
    return f"CASE WHEN fault IS NOT NULL THEN fault {whens} END"


def readings_sql(
    *,
    meter: str,
    energy: str,
    minutes: str,
    start: str | None = None,
    local: str | None = None,
    register: str = "'import'",
    quality: str = "NULL",
    faults: Sequence[tuple[str, str]] = (),
    stamp_text: str = "",
    energy_text: str = "",
    stamp_expected: str = "a moment as ISO 8601 with offset or Z",
    energy_expected: str = "energy in kWh as a number",
) -> str:
    """The SQL of a layout with one reading a line; arguments are SQL expressions over `lines`.

    Args:
        meter: the meter.
        energy: energy in kWh, NULL where it can't be read.
        minutes: length of the interval.
        start: start of the interval (TIMESTAMPTZ), NULL where it can't be read; or
        local: its local stamp (TIMESTAMP).
        register: the register.
        quality: quality as delivered.
        faults: further faults (condition, words), looked for first.
        stamp_text: the stamp as delivered, for its fault.
        energy_text: the energy as delivered, for its fault.
        stamp_expected: what is expected of a stamp, in words.
        energy_expected: what is expected of an energy, in words.
    """
    stamp = start or local
    every = [
        ("meter_id IS NULL", "'expected a meter, found none'"),
        *faults,
        ("stamp IS NULL", f"'expected {stamp_expected}, found ' || {shown_sql(stamp_text)}"),
        ("energy_kwh IS NULL", f"'expected {energy_expected}, found ' || {shown_sql(energy_text)}"),
        ("interval_minutes IS NULL", "'expected the length of the interval in minutes, found none'"),
    ]
    named = "interval_start" if start else "local_start"
    return f"""
        WITH parsed AS (
            SELECT lines.*, NULLIF({meter}, '') AS meter_id, {register} AS register, {stamp} AS stamp,
                   CAST({minutes} AS INTEGER) AS interval_minutes, {energy} AS energy_kwh, {quality} AS quality
            FROM lines
        )
        SELECT line, meter_id, register, stamp AS {named}, interval_minutes, energy_kwh, quality, {first_fault_sql(every)} AS fault
        FROM parsed ORDER BY line
    """
