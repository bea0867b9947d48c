"""What is to be forecast, when, and what is known by then.

Here lives the description of one forecasting job (`ForecastTask`), its clock (issue and valid instants, daylight saving
included) and the availability law of its inputs. Reading data, features and models live in the neighbouring modules; the
site file that a task is made from does not belong here.
"""

from __future__ import annotations

import datetime as dt
import re
from dataclasses import dataclass, field
from typing import Literal
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd

from lakehouse.errors import ForecastError

TargetKind = Literal["demand", "wind", "solar", "price"]
InputKind = Literal["weather", "operator_forecast", "market", "calendar", "other"]
Availability = Literal["perfect", "day_ahead", "actual"]

TARGETS: tuple[str, ...] = ("demand", "wind", "solar", "price")
DEFAULT_QUANTILES: tuple[float, ...] = (0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95)
_NAME = re.compile(r"^[a-z][a-z0-9_]{0,62}$")


@dataclass(frozen=True)
class ExogenousInput:
    """One outside series that features may use, and the law of when it is known.

    Args:
        name: column name in the inputs table; lower-case letters, digits and underscores.
        unit: physical unit. `degC` gets degree-hours and smoothing, `m/s` a wind-turbine power curve, `W/m2` daily means;
            every other unit passes through with its lags.
        kind: where it comes from. `operator_forecast` together with `forecasts_target=True` also yields the operator's
            own recent errors, by the availability of the actuals.
        availability: `perfect` (the later actual in place of a forecast; results are labelled *perfect weather*),
            `day_ahead` (published for the whole target day before the issue) or `actual` (known `delay_hours` after the
            end of its interval; only its past can be used).
        delay_hours: for `actual` inputs, hours from the end of an interval until its value is there.
        forecasts_target: True where the input is somebody's forecast of this very target.
    """

    name: str
    unit: str = ""
    kind: InputKind = "other"
    availability: Availability = "day_ahead"
    delay_hours: float = 0.0
    forecasts_target: bool = False

    def __post_init__(self) -> None:
        if not _NAME.match(self.name):
            raise ForecastError(
                f"An input's name is lower-case letters, digits and underscores, found {self.name!r}.", "Rename the input in the site file."
            )
        if self.availability not in ("perfect", "day_ahead", "actual"):
            raise ForecastError(f"Input {self.name}: expected availability perfect, day_ahead or actual, found {self.availability!r}.")

    @property
    def quantity(self) -> Literal["temperature", "wind_speed", "irradiance", "other"]:
        """What the unit says the input is."""
        unit = self.unit.lower().replace("²", "2").replace("°", "deg")
        if unit in ("degc", "c", "celsius"):
            return "temperature"
        if unit in ("m/s", "mps"):
            return "wind_speed"
        if unit in ("w/m2", "kw/m2"):
            return "irradiance"
        return "other"


@dataclass(frozen=True)
class ForecastTask:
    """One target of one site: its series, its clock, its place and its inputs.

    A forecast is issued every local day at `issue_time_local` and covers the next `horizon_days` local calendar days from
    00:00 to 24:00: 23, 24 or 25 hours each.

    Args:
        target: `demand`, `wind`, `solar` or `price`.
        series_ids: the series to forecast, in the order in which results list them.
        time_zone: IANA zone of the local clock.
        country: ISO 3166 code for `holidays`; empty for no holidays.
        subdivision: code of the region within the country; empty means the whole country, where a regional holiday
            counts with the share of regions that keep it.
        latitude_deg, longitude_deg: place for the sun's position; None leaves the sun out.
        interval_minutes: length of the target's intervals.
        issue_time_local: "HH:MM" on the day before the first target day.
        horizon_days: number of local days that an issue covers.
        quantiles: increasing probabilities; 0.1, 0.5 and 0.9 must be among them.
        actuals_delay_hours: an actual of an interval is known this many hours after the interval's end.
        actuals_availability: `after_interval` (the rule above) or `day_ahead` for quantities that are themselves
            published the day before, such as auction prices: at the issue the whole local issue day is known.
        inputs: the exogenous inputs.
        unit: unit of the target, for the data dictionary and reports.
    """

    target: TargetKind
    series_ids: tuple[str, ...]
    time_zone: str = "UTC"
    country: str = ""
    subdivision: str = ""
    latitude_deg: float | None = None
    longitude_deg: float | None = None
    interval_minutes: int = 60
    issue_time_local: str = "10:00"
    horizon_days: int = 1
    quantiles: tuple[float, ...] = DEFAULT_QUANTILES
    actuals_delay_hours: float = 1.0
    actuals_availability: Literal["after_interval", "day_ahead"] = "after_interval"
    inputs: tuple[ExogenousInput, ...] = field(default_factory=tuple)
    unit: str = "MW"

    def __post_init__(self) -> None:
        if self.target not in TARGETS:
            raise ForecastError(f"Expected a target among {', '.join(TARGETS)}, found {self.target!r}.")
        if not self.series_ids:
            raise ForecastError(f"The {self.target} task names no series.", "List at least one series in the site file.")
        if list(self.quantiles) != sorted(set(self.quantiles)) or not all(0 < q < 1 for q in self.quantiles):
            raise ForecastError(f"Quantiles must increase strictly between 0 and 1, found {self.quantiles}.")
        if not {0.1, 0.5, 0.9} <= set(self.quantiles):
            raise ForecastError(f"Quantiles must include 0.1, 0.5 and 0.9, found {self.quantiles}.")
        if self.interval_minutes not in (5, 15, 30, 60):
            raise ForecastError(f"Expected intervals of 5, 15, 30 or 60 minutes, found {self.interval_minutes}.")
        if not re.match(r"^([01]\d|2[0-3]):[0-5]\d$", self.issue_time_local):
            raise ForecastError(f"Expected an issue time HH:MM, found {self.issue_time_local!r}.")
        if self.horizon_days < 1:
            raise ForecastError(f"Expected a horizon of at least one day, found {self.horizon_days}.")
        names = [i.name for i in self.inputs]
        if len(names) != len(set(names)):
            raise ForecastError(f"Inputs of {self.target} must have different names, found {names}.")
        if "temperature_mean" in names and len(names) > 1:
            raise ForecastError(
                "An input can't be called temperature_mean: that is the name of the mean over several temperatures.",
                "Rename the input in the site file.",
            )
        ZoneInfo(self.time_zone)

    @property
    def interval(self) -> pd.Timedelta:
        """Length of one interval."""
        return pd.Timedelta(minutes=self.interval_minutes)

    @property
    def slots_per_day(self) -> int:
        """Intervals of a day without a clock change."""
        return 1440 // self.interval_minutes

    @property
    def quantile_columns(self) -> tuple[str, ...]:
        """Names of the quantile columns: 0.1 is `p10`, 0.025 is `p2_5`."""
        return tuple(quantile_column(q) for q in self.quantiles)

    @property
    def median_index(self) -> int:
        """Position of the 0.5 quantile."""
        return self.quantiles.index(0.5)

    @property
    def operator_input(self) -> ExogenousInput | None:
        """The input that is somebody's forecast of this target, if there is one."""
        return next((i for i in self.inputs if i.forecasts_target), None)

    @property
    def label(self) -> str:
        """What a result must say beside its figures: `perfect weather` where an actual stands in for a forecast."""
        return "perfect weather" if any(i.availability == "perfect" for i in self.inputs) else ""

    def issue_instants(self, first_day: dt.date, last_day: dt.date) -> pd.DatetimeIndex:
        """Issue instants (UTC) of the local issue days `first_day` to `last_day`, both included."""
        naive = pd.date_range(first_day, last_day, freq="D") + pd.Timedelta(f"{self.issue_time_local}:00")
        return local_to_utc(naive, self.time_zone)

    def issue_days(self, issues: pd.DatetimeIndex) -> pd.DatetimeIndex:
        """Local calendar days (midnight, without zone) of UTC issue instants."""
        return issues.tz_convert(self.time_zone).tz_localize(None).normalize()

    def day_bounds(self, day: pd.Timestamp | dt.date, days: int = 1) -> tuple[pd.Timestamp, pd.Timestamp]:
        """Start and end (UTC, end excluded) of `days` local days beginning with `day`."""
        start = pd.Timestamp(day).tz_localize(None).normalize() if pd.Timestamp(day).tzinfo else pd.Timestamp(day).normalize()
        edges = local_to_utc(pd.DatetimeIndex([start, start + pd.Timedelta(days=days)]), self.time_zone)
        return edges[0], edges[1]

    def valid_instants(self, issue: pd.Timestamp) -> pd.DatetimeIndex:
        """Interval starts (UTC) that the issue covers: the next `horizon_days` local days, clock changes included."""
        day = self.issue_days(pd.DatetimeIndex([issue]))[0]
        start, end = self.day_bounds(day + pd.Timedelta(days=1), self.horizon_days)
        return pd.date_range(start, end, freq=self.interval, inclusive="left", unit="us")

    def actuals_known_before(self, issues: pd.DatetimeIndex) -> pd.DatetimeIndex:
        """For each issue the end (UTC, excluded) of the interval starts whose actual is known."""
        if self.actuals_availability == "day_ahead":
            return local_to_utc(self.issue_days(issues) + pd.Timedelta(days=1), self.time_zone)
        return _known_before(issues, self.interval, self.actuals_delay_hours)

    def input_known_before(self, item: ExogenousInput, issues: pd.DatetimeIndex) -> pd.DatetimeIndex:
        """For each issue the end (UTC, excluded) of the interval starts at which `item` may be read."""
        if item.availability == "actual":
            return _known_before(issues, self.interval, item.delay_hours)
        return local_to_utc(self.issue_days(issues) + pd.Timedelta(days=1 + self.horizon_days), self.time_zone)


def quantile_column(probability: float) -> str:
    """Column name of a quantile: 0.1 gives `p10`, 0.975 gives `p97_5`."""
    return "p" + f"{probability * 100:.4g}".replace(".", "_").zfill(2)


def local_to_utc(naive: pd.DatetimeIndex, time_zone: str) -> pd.DatetimeIndex:
    """UTC of local wall-clock instants; the first of a doubled hour, and the moment after a skipped one."""
    local = naive.tz_localize(time_zone, ambiguous=np.ones(len(naive), dtype=bool), nonexistent="shift_forward")
    return local.tz_convert("UTC").as_unit("us")


def _known_before(issues: pd.DatetimeIndex, interval: pd.Timedelta, delay_hours: float) -> pd.DatetimeIndex:
    """An interval of length `interval` starting at t is known when t + interval + delay <= issue."""
    last_start = (issues - pd.Timedelta(hours=delay_hours) - interval).floor(interval)
    return last_start + interval
