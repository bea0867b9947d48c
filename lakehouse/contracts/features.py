"""Contracts of `features`: what was knowable at the issue time, one table per forecast target.

The feature columns themselves follow from the site's inputs; `lakehouse.flow.tables` adds them to this shape.
"""

from __future__ import annotations

from lakehouse.contracts.base import Date, Float64, Instant, Table, Text, column


class Features(Table):
    """What was knowable when the forecast was issued: one row per series, issue and forecast interval."""

    key = ("series_id", "issued_at", "valid_at")
    partitioned_by = ("date",)
    numbers_repeat = False

    series_id: Text = column("The series to forecast.")
    issued_at: Instant = column("Issue time.", unit="UTC")
    valid_at: Instant = column("Start of the interval that is forecast.", unit="UTC")
    date: Date = column("Local day of the issue.")
    target_value: Float64 = column("What came: the actual, missing while it is not there. Never a feature.", nullable=True)
