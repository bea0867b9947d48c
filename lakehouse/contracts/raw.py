"""Contracts of `raw`: what was delivered, as rows. One table per feed, in one of four shapes, told by the feed's format.

Every row names its file, line and delivery date. A line that could not be read is a row as well: `fault` says why,
`raw_text` keeps it, and the values are missing. Nothing is judged here; that is `cleaned`'s work.
"""

from __future__ import annotations

from lakehouse.contracts.base import Boolean, Date, Float64, Instant, Int32, Int64, Table, Text, column

RAW_TEXT_LIMIT = 1000
"""Characters of a delivered line that are kept where it could not be read."""


class Delivered(Table):
    """What every delivered row carries, whatever its feed."""

    partitioned_by = ("delivery_date",)
    key = ("delivery_date", "file", "line")

    file: Text = column("Name of the landed file; a member of an archive follows after '!'.")
    line: Int64 = column("Line of the file, from 1 (row of a Parquet file, from 1); 0 where the whole file is meant.", ge=0)
    delivery_date: Date = column("Day on which the file was delivered: the folder it landed in.")
    date: Date = column("UTC day of the interval; missing where it could not be read or the row has none.", nullable=True)
    fault: Text = column("Why the line could not be read; missing where it could.", nullable=True)
    raw_text: Text = column("The line as delivered, at most 1,000 characters, where it could not be read.", nullable=True)


class RawReadings(Delivered):
    """Meter readings as delivered."""

    meter_id: Text = column("The meter, as the utility names it.", nullable=True)
    register: Text = column("Channel of the meter: import, export, or the utility's own name.", nullable=True)
    interval_start: Instant = column("Start of the interval.", unit="UTC", nullable=True)
    interval_minutes: Int32 = column("Length of the interval.", unit="min", nullable=True)
    energy_kwh: Float64 = column("Energy of the interval as delivered, in kWh whatever the file's unit was.", unit="kWh", nullable=True)
    quality: Text = column("Quality code as delivered; missing where the format has none.", nullable=True)


class RawSeries(Delivered):
    """Measured or forecast time series as delivered: load, generation, prices, weather."""

    series_id: Text = column("The series, as the feed names it: a zone, plant, station or market.", nullable=True)
    quantity: Text = column("What is measured, with its unit: load_mw, generation_mw, temperature_c, price_eur_per_mwh, …", nullable=True)
    interval_start: Instant = column("Start of the interval.", unit="UTC", nullable=True)
    interval_minutes: Int32 = column("Length of the interval.", unit="min", nullable=True)
    value: Float64 = column("The value, in the unit that `quantity` names.", nullable=True)
    is_forecast: Boolean = column("True for a value that somebody forecast (the operator, a weather service).", nullable=True)


class RawMeters(Delivered):
    """The meter registry as delivered."""

    meter_id: Text = column("The meter, as the utility names it.", nullable=True)
    meter_class: Text = column("household, shop, pv, ev, industry, or the utility's own name.", nullable=True)
    interval_minutes: Int32 = column("Length of the meter's interval.", unit="min", nullable=True)
    rated_kw: Float64 = column("Largest power the connection can carry.", unit="kW", nullable=True)
    registers: Text = column("Registers of the meter, comma-separated.", nullable=True)
    first_date: Date = column("First day in service, local.", nullable=True)
    last_date: Date = column("Last day in service, local; missing while in service.", nullable=True)


class RawFleet(Delivered):
    """The fleet as delivered: one row per unit with its parameters as JSON."""

    unit_id: Text = column("The unit, as the utility names it.", nullable=True)
    kind: Text = column("What the unit is, as in cleaned.fleet.", nullable=True)
    parameters: Text = column("The unit's parameters as a JSON object; names carry their units.", nullable=True)


SHAPES: dict[str, type[Delivered]] = {"readings": RawReadings, "series": RawSeries, "meters": RawMeters, "fleet": RawFleet}
