"""Contracts of `forecasts`: what was issued, when, by which model. An issue is never overwritten by a later one."""

from __future__ import annotations

from lakehouse.contracts.base import Boolean, Date, Instant, Int64, Table, Text, column


class Forecasts(Table):
    """Issued forecasts: one row per series, issue and forecast interval; quantiles as columns p05, p10, … in the series' unit."""

    key = ("series_id", "issued_at", "valid_at")
    partitioned_by = ("date",)

    series_id: Text = column("The series.")
    issued_at: Instant = column("Issue time.", unit="UTC")
    valid_at: Instant = column("Start of the interval that is forecast.", unit="UTC")
    model: Text = column("Kind of model that made it.")
    model_version: Text = column("Version of that model; see the target's table in models.")
    features_version: Int64 = column("Version of the features table that it was made from; see gridlake forecast reproduce.", nullable=True)
    is_fallback: Boolean = column("True where the usual model or an input was not to be had.")
    fallback_reason: Text = column("Why a fallback was used; missing where none was.", nullable=True)
    is_hindcast: Boolean = column("True where the issue was made after its issue time, with what was known then.")
    label: Text = column("'perfect weather' where actual weather stood in for a forecast; missing otherwise.", nullable=True)
    date: Date = column("Local day of the issue.")
