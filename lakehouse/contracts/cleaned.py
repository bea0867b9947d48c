"""Contracts of `cleaned`: what is trusted. UTC, one unit per column, one row per key."""

from __future__ import annotations

from lakehouse.contracts.base import Boolean, Column, Date, Float64, Instant, Int32, Table, Text, column

INTERVAL_MINUTES = (5, 10, 15, 30, 60)
REGISTER_DIFFERENCE_MINUTES = 720
"""A delivered row of twelve hours or more is no interval but the difference of two reads of the register."""
UNIT_KINDS = ("thermal", "wind", "solar", "hydro", "storage", "grid", "shiftable", "interruptible", "contract", "line", "zone")


class RegisterTable(Table):
    """Base of the tables with one row per meter, register and span of time."""

    key = ("meter_id", "register", "interval_start")
    partitioned_by = ("date",)

    meter_id: Text = column("The meter, as the utility names it.")
    register: Text = column("Channel of the meter: import, export, or the utility's own name.")


class MeterReadings(RegisterTable):
    """Trusted interval energy: one row per meter, register and interval."""

    name = "cleaned/meter_readings"

    interval_start: Instant = column("Start of the interval.", unit="UTC")
    interval_minutes: Int32 = column("Length of the interval.", unit="min", isin=INTERVAL_MINUTES)
    energy_kwh: Float64 = column("Energy that passed in the interval; negative only on a net register.", unit="kWh")
    quality: Text = column("Measured, estimated or edited; see quality/codes.", isin=("measured", "estimated", "edited"))
    is_estimated: Boolean = column("True where no reading was delivered or the delivered one was not believed.")
    rule: Text = column("The rule that estimated or edited the value; see quality/codes.", nullable=True)
    method: Text = column("How an estimated value was made; missing for measured ones.", nullable=True)
    basis_from: Instant = column("First interval of the readings that an estimate rests on.", unit="UTC", nullable=True)
    basis_to: Instant = column("Last interval of the readings that an estimate rests on.", unit="UTC", nullable=True)
    delivered_kwh: Float64 = column("What was delivered, where it was edited or not believed.", unit="kWh", nullable=True)
    file: Text = column("File of the reading that won; missing for an estimate of a missing reading.", nullable=True)
    delivery_date: Date = column("Delivery of the reading that won; missing for an estimate of a missing reading.", nullable=True)
    date: Date = column("UTC day of the interval.")


class RegisterDifferences(RegisterTable):
    """What registers counted between two reads, beside the sum of the intervals between them: one row per register and span."""

    name = "cleaned/register_differences"

    interval_start: Instant = column("The earlier read.", unit="UTC")
    interval_end: Instant = column("The later read.", unit="UTC")
    register_kwh: Float64 = column("Difference of the two reads.", unit="kWh")
    interval_kwh: Float64 = column("Sum of the trusted intervals between them; missing where there are none.", unit="kWh", nullable=True)
    estimated_kwh: Float64 = column("The estimated part of that sum.", unit="kWh", nullable=True)
    missing_minutes: Int32 = column("Part of the span without any trusted interval.", unit="min", nullable=True)
    verdict: Text = column(
        "agrees; differs by more than the tolerance; shared: estimates took what was left; incomplete: intervals are missing.",
        nullable=True,
        isin=("agrees", "differs", "shared", "incomplete"),
    )
    file: Text = column("File of the difference.")
    delivery_date: Date = column("Delivery of the difference.")
    date: Date = column("UTC day of the earlier read.")


class Meters(Table):
    """The meter registry: one row per meter, as of its newest delivery."""

    name = "cleaned/meters"
    key = ("meter_id",)

    meter_id: Text = column("The meter, as the utility names it.")
    meter_class: Text = column("household, shop, pv, ev, industry, or the utility's own name; unknown where no registry names the meter.")
    interval_minutes: Int32 = column("Length of the meter's interval.", unit="min", nullable=True)
    rated_kw: Float64 = column("Largest power the connection can carry.", unit="kW", nullable=True, ge=0)
    registers: Text = column("Registers of the meter, comma-separated.", nullable=True)
    first_date: Date = column("First day in service, local.", nullable=True)
    last_date: Date = column("Last day in service, local; missing while in service.", nullable=True)
    is_registered: Boolean = column("False for a meter that delivers readings and is in no registry.")


class SeriesTable(Table):
    """Base of the long series tables: one row per series and interval."""

    key = ("series_id", "interval_start")
    partitioned_by = ("date",)

    series_id: Text = column("The series, as the feed names it.")
    interval_start: Instant = column("Start of the interval.", unit="UTC")
    interval_minutes: Int32 = column("Length of the interval.", unit="min", isin=INTERVAL_MINUTES)


class Load(SeriesTable):
    """Measured load by zone, and the sums of meter readings that the site file asks for."""

    name = "cleaned/load"

    load_mw: Float64 = column("Mean power in the interval; negative where a net load feeds back.", unit="MW")
    estimated_share: Float64 = column("Share of the energy that was estimated, where meters were summed.", nullable=True, ge=0)
    delivery_date: Date = column("Newest delivery that the value rests on.", nullable=True)
    date: Date = column("UTC day of the interval.")


class Generation(SeriesTable):
    """Measured generation by plant or technology."""

    name = "cleaned/generation"

    generation_mw: Float64 = column("Mean power in the interval; negative for a plant's own use.", unit="MW")
    delivery_date: Date = column("Delivery of the value that won.", nullable=True)
    date: Date = column("UTC day of the interval.")


class Prices(SeriesTable):
    """Market prices: one series per market and product."""

    name = "cleaned/prices"

    price_eur_per_mwh: Float64 = column("Price of energy in the interval.", unit="EUR/MWh", ge=-10_000, le=100_000)
    delivery_date: Date = column("Delivery of the value that won.", nullable=True)
    date: Date = column("UTC day of the interval.")


def prices_in(currency: str) -> type[Table]:
    """The contract of `cleaned/prices` in a site's currency: the price column names it."""
    if currency == "EUR":
        return Prices
    name = f"price_{currency.lower()}_per_mwh"
    derived = Prices.derive(Prices.name)
    price = Prices.columns["price_eur_per_mwh"]
    renamed = Column(price.description, f"{currency}/MWh", price.nullable, None, price.ge, price.le, name, price.type)
    derived.columns = {
        (name if k == "price_eur_per_mwh" else k): (renamed if k == "price_eur_per_mwh" else c) for k, c in Prices.columns.items()
    }
    return derived


class Weather(SeriesTable):
    """Measured weather by station."""

    name = "cleaned/weather"

    temperature_c: Float64 = column("Air temperature.", unit="°C", nullable=True, ge=-70, le=60)
    wind_speed_m_per_s: Float64 = column("Wind speed at the station's height.", unit="m/s", nullable=True, ge=0, le=75)
    wind_direction_deg: Float64 = column("Direction the wind comes from, clockwise from north.", unit="°", nullable=True, ge=0, le=360)
    humidity_pct: Float64 = column("Relative humidity.", unit="%", nullable=True, ge=0, le=105)
    pressure_hpa: Float64 = column("Air pressure.", unit="hPa", nullable=True, ge=850, le=1100)
    cloud_cover_pct: Float64 = column("Share of the sky that is covered.", unit="%", nullable=True, ge=0, le=100)
    precipitation_mm: Float64 = column("Rain and melted snow in the interval.", unit="mm", nullable=True, ge=0, le=500)
    ghi_w_per_m2: Float64 = column("Global horizontal irradiance.", unit="W/m²", nullable=True, ge=0, le=1500)
    delivery_date: Date = column("Delivery of the values that won.", nullable=True)
    date: Date = column("UTC day of the interval.")


class ExternalForecasts(Table):
    """What others forecast: the system operator's load, wind and solar, a weather service's weather."""

    name = "cleaned/external_forecasts"
    key = ("series_id", "quantity", "interval_start")
    partitioned_by = ("date",)

    series_id: Text = column("The series, as the feed names it.")
    quantity: Text = column("What is forecast, with its unit: load_mw, generation_mw, temperature_c, …")
    interval_start: Instant = column("Start of the interval.", unit="UTC")
    interval_minutes: Int32 = column("Length of the interval.", unit="min", isin=INTERVAL_MINUTES)
    value: Float64 = column("The forecast value, in the unit that `quantity` names.")
    delivery_date: Date = column("Delivery of the value that won.", nullable=True)
    date: Date = column("UTC day of the interval.")


class FleetUnits(Table):
    """The fleet: one row per unit, as of the newest delivery."""

    name = "cleaned/fleet"
    key = ("unit_id",)

    unit_id: Text = column("The unit, as the utility names it.")
    kind: Text = column("What the unit is: docs/dispatch.md describes each kind.", isin=UNIT_KINDS)
    minimum_mw: Float64 = column("Smallest output while running.", unit="MW", nullable=True)
    maximum_mw: Float64 = column("Largest output (storage: largest discharge; grid: largest import).", unit="MW", nullable=True, ge=0)
    parameters: Text = column("All of the unit's parameters as a JSON object; names carry their units.")
    delivery_date: Date = column("Delivery that the row comes from.")
