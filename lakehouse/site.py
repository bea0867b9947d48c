"""The site: everything that makes one utility different from another, in one file (`gridlake.yaml`).

Reading and validating that file lives here, with errors that name the line and the remedy. What the site's feeds, series
and fleet mean is the business of the trades (sources, metering, forecasting, dispatch).
"""

from __future__ import annotations

import difflib
import os
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, Literal, get_args
from zoneinfo import ZoneInfo, available_timezones

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from lakehouse.errors import SiteError

SITE_FILE = "gridlake.yaml"
HOME_VARIABLE = "GRIDLAKE_HOME"
NAME = r"^[a-z][a-z0-9_]{0,62}$"

_SAVE_AS_TEXT = "Save it as plain text in UTF-8."

Target = Literal["demand", "wind", "solar", "price"]
SeriesTable = Literal["load", "generation", "prices", "weather", "external_forecasts"]
SERIES_TABLES: tuple[str, ...] = get_args(SeriesTable)
Interval = Literal[5, 15, 30, 60]


class Section(BaseModel):
    """A part of the site file: unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Paths(Section):
    """Where things are kept, relative to the site file's folder; the lake may be a URI of an object store.

    `tracking` is MLflow's: a server's URI, a path of a SQLite file, or `none`; by default `mlflow.db` among the models.
    """

    landing: str = "landing"
    lake: str = "lake"
    catalog: str = "catalog.duckdb"
    models: str = "models"
    tracking: str | None = None
    dagster: str = ".dagster"


class Location(Section):
    """Where the site is, for the sun and the weather."""

    latitude_deg: float = Field(ge=-90, le=90)
    longitude_deg: float = Field(ge=-180, le=180)
    altitude_m: float = 0.0


class Feed(Section):
    """What lands in one folder of landing, and how to read it.

    `files` are the glob patterns by which `gridlake init --data` knows this feed's files in a published data set;
    `provides` names the cleaned tables that a series feed has values for (by default it may have some for all).
    """

    format: str
    provides: tuple[SeriesTable, ...] = ()
    files: tuple[str, ...] = ()
    options: dict[str, Any] = {}
    delivery_delay_days: int = Field(1, ge=0, le=60, description="A delivery is late when older than this, in days.")


class MeterAggregate(Section):
    """A load series that is the sum of meter readings (import less export), in MW."""

    series_id: str
    meter_class: str | None = None


class Metering(Section):
    """Validation, estimation and editing of interval readings; each threshold has its rule in docs/metering.md."""

    rules: dict[str, float | int | bool | str] = {}
    longest_gap_days: float = Field(7.0, ge=0, description="Longest gap that is estimated, in days.")
    aggregates: tuple[MeterAggregate, ...] = ()


class Input(Section):
    """A series that a forecast may use beside its own past.

    `table` and `series` name it; `column` or `quantity` says which value. `availability` is `day_ahead` (published for the
    whole target day before the issue), `actual` (known `delay_hours` after the interval's end) or `perfect` (an actual used
    in place of a forecast, labelled `perfect weather` wherever a result is shown).
    """

    name: str = Field(pattern=NAME)
    table: str
    series: str
    column: str | None = None
    quantity: str | None = None
    kind: Literal["weather", "operator_forecast", "market", "neighbour", "other"] = "weather"
    availability: Literal["day_ahead", "actual", "perfect"] = "day_ahead"
    delay_hours: float = Field(0.0, ge=0)


class Series(Section):
    """A forecast target: which series, when it is issued, how far it looks."""

    table: str
    series: tuple[str, ...] = Field(min_length=1)
    issue_time: str = Field("10:00", pattern=r"^([01]\d|2[0-3]):[0-5]\d$")
    horizon_days: int = Field(1, ge=1, le=14)
    actuals_delay_hours: float = Field(1.0, ge=0)
    actuals_availability: Literal["after_interval", "day_ahead"] = "after_interval"
    interval_minutes: Interval = 60
    quantiles: tuple[float, ...] = (0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95)
    inputs: tuple[Input, ...] = ()
    operator: Input | None = None
    models: tuple[str, ...] = ("lightgbm", "keras", "ensemble")

    @field_validator("quantiles")
    @classmethod
    def _rising_with_median(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if list(value) != sorted(set(value)) or not value or value[0] <= 0 or value[-1] >= 1:
            raise ValueError("quantiles must rise, each between 0 and 1")
        if not {0.1, 0.5, 0.9} <= set(value):
            raise ValueError("quantiles must hold 0.1, 0.5 and 0.9, on which dispatch and accuracy rely")
        return value


class Outage(Section):
    """A planned outage of a unit, beside those in the fleet file; moments without offset are of the local clock."""

    unit: str
    start: str
    end: str

    @field_validator("start", "end", mode="before")
    @classmethod
    def _a_moment(cls, value: Any) -> str:
        text = value.isoformat() if isinstance(value, date) else str(value)
        try:
            datetime.fromisoformat(text)
        except ValueError:
            raise ValueError(f"expected a moment such as 2026-03-11T08:00, found '{text}'") from None
        return text

    @model_validator(mode="after")
    def _forward(self) -> Outage:
        start, end = datetime.fromisoformat(self.start), datetime.fromisoformat(self.end)
        if (start.tzinfo is None) == (end.tzinfo is None) and not start < end:
            raise ValueError(f"the outage of {self.unit} ends at {self.end}, not after its start {self.start}")
        return self


class Fleet(Section):
    """How the day-ahead plan is made. The units themselves land through the feed `feed`."""

    feed: str = "fleet"
    demand: str = "demand"
    plan_quantile: float = Field(0.5, gt=0, lt=1)
    scenarios: int = Field(0, ge=0, le=100)
    scenario_correlation_hours: float = Field(6.0, gt=0)
    quick_start_hours: float = Field(1.0, ge=0)
    interval_minutes: Interval = 60
    look_ahead_hours: float = Field(0.0, ge=0, le=48)
    reserve_share_of_demand: float = Field(0.03, ge=0, le=1)
    reserve_mw: float = Field(0.0, ge=0)
    reserve_down_share_of_demand: float = Field(0.0, ge=0, le=1)
    reserve_down_mw: float = Field(0.0, ge=0)
    co2_price_eur_per_t: float = Field(0.0, ge=0)
    outages: tuple[Outage, ...] = ()
    value_of_lost_load_eur_per_mwh: float = Field(10_000.0, gt=0)
    reserve_shortfall_eur_per_mwh: float = Field(1_000.0, gt=0)
    gap: float = Field(0.001, ge=0)
    time_limit_seconds: float = Field(30.0, gt=0)
    setpoints_file: str = "setpoints.json"

    @model_validator(mode="after")
    def _one_way_to_plan(self) -> Fleet:
        if self.scenarios == 1:
            raise ValueError("fleet.scenarios: one scenario is no uncertainty: give 2 or more, or 0 to plan on plan_quantile")
        if self.scenarios and self.plan_quantile != 0.5:
            raise ValueError("fleet.plan_quantile: scenarios are drawn from all quantiles; leave it at 0.5, or scenarios at 0")
        return self


class LogChannel(Section):
    """Alerts as lines of JSON in a file of the site's folder."""

    kind: Literal["log"]
    file: str = "alerts.jsonl"


class WebhookChannel(Section):
    """Alerts as JSON posted to an address, which may be secret: `url_variable` names the environment variable that holds it."""

    kind: Literal["webhook"]
    url: str = ""
    url_variable: str = ""

    @model_validator(mode="after")
    def _one_address(self) -> WebhookChannel:
        if bool(self.url) == bool(self.url_variable):
            raise ValueError("a webhook has either url or url_variable, the name of an environment variable")
        if self.url and not self.url.startswith(("http://", "https://")):
            raise ValueError(f"url: expected http:// or https://, found '{self.url}'")
        return self


class EmailChannel(Section):
    """Alerts by mail."""

    kind: Literal["email"]
    host: str
    port: int = Field(587, ge=1, le=65535)
    sender: str
    recipients: tuple[str, ...] = Field(min_length=1)
    encryption: Literal["starttls", "tls", "none"] = "starttls"
    user: str = ""
    password_variable: str = ""

    @model_validator(mode="after")
    def _whole_login(self) -> EmailChannel:
        if bool(self.user) != bool(self.password_variable):
            raise ValueError("a login needs user and password_variable, the name of an environment variable")
        return self


AlertChannel = Annotated[LogChannel | WebhookChannel | EmailChannel, Field(discriminator="kind")]


class Alerts(Section):
    """Who is told when something is wrong, and from when on something counts as wrong."""

    channels: dict[str, AlertChannel] = {"log": LogChannel(kind="log")}
    due_by: str = Field("12:00", pattern=r"^([01]\d|2[0-3]):[0-5]\d$")
    remind_after_hours: float = Field(24.0, gt=0)
    accuracy_issues: int = Field(14, ge=1, le=365)
    quarantined_share: float = Field(0.05, gt=0, le=1)


class Housekeeping(Section):
    """When the lake is cleaned, on the local clock, and how long older versions of its tables can be read."""

    at: str = Field("03:30", pattern=r"^([01]\d|2[0-3]):[0-5]\d$")
    keep_versions_days: int = Field(30, ge=1, le=3650)


class Site(Section):
    """One utility."""

    name: str = Field(pattern=NAME)
    title: str = ""
    country: str = Field(pattern=r"^[A-Z]{2}$", description="ISO 3166 code, for holidays.")
    subdivision: str | None = None
    time_zone: str
    currency: Literal["EUR", "USD", "GBP", "AUD", "CAD", "CHF", "DKK"] = "EUR"
    location: Location
    first_day: date
    clock: date | None = Field(None, description="Today, for a site whose data ended in the past; absent: the real date.")
    paths: Paths = Paths()
    feeds: dict[str, Feed]
    metering: Metering = Metering(longest_gap_days=7.0)
    limits: dict[str, tuple[float | None, float | None]] = {}
    series: dict[Target, Series] = {}
    fleet: Fleet | None = None
    alerts: Alerts = Field(default_factory=lambda: Alerts.model_validate({}))
    housekeeping: Housekeeping = Field(default_factory=lambda: Housekeeping.model_validate({}))
    home: Path = Field(Path(), exclude=True)

    @field_validator("time_zone")
    @classmethod
    def _known_zone(cls, value: str) -> str:
        if value not in available_timezones():
            raise ValueError(f"'{value}' is no IANA time zone{_did_you_mean(value, available_timezones())}")
        return value

    @model_validator(mode="after")
    def _coherent(self) -> Site:
        from lakehouse.sources.base import formats

        for name, feed in self.feeds.items():
            if not name.isidentifier() or name != name.lower() or len(name) > 63:
                raise ValueError(f"feeds.{name}: a feed's name is a folder and an SQL name: use lower-case letters, digits and '_'")
            if feed.format not in formats():
                close = _did_you_mean(feed.format, formats())
                raise ValueError(f"feeds.{name}.format: '{feed.format}' is no known format{close}; known: {', '.join(formats())}")
            unknown = [o for o in feed.options if o not in formats()[feed.format].settings]
            if unknown:
                raise ValueError(
                    f"feeds.{name}.options.{unknown[0]}: '{feed.format}' has no such option; it has: "
                    + (", ".join(formats()[feed.format].settings) or "none")
                )
        if self.metering.aggregates and any(formats()[f.format].shape == "readings" for f in self.feeds.values()):
            for name, feed in self.feeds.items():
                if formats()[feed.format].shape == "series" and (not feed.provides or "load" in feed.provides):
                    raise ValueError(
                        f"feeds.{name}.provides: cleaned/load is summed from meters here, so say what this feed provides beside load"
                    )
        self._check_series()
        if self.fleet and self.fleet.feed not in self.feeds:
            raise ValueError(f"fleet.feed: '{self.fleet.feed}' is no feed of this site; add it to feeds, or take the fleet out")
        if self.fleet and self.fleet.demand not in self.series:
            raise ValueError(f"fleet.demand: '{self.fleet.demand}' is not among this site's series, so there is no demand to plan for")
        if self.fleet and self.fleet.plan_quantile not in (known := self.series[self.fleet.demand].quantiles):  # type: ignore[index]
            raise ValueError(f"fleet.plan_quantile: {self.fleet.plan_quantile} is none of the demand's quantiles, which are {list(known)}")
        if self.clock and self.clock < self.first_day:
            raise ValueError(f"clock: {self.clock} is before first_day {self.first_day}")
        return self

    @model_validator(mode="after")
    def _known_to_the_trades(self) -> Site:
        from holidays import country_holidays

        from lakehouse.forecasting.models import ENSEMBLE, MODEL_NAMES
        from lakehouse.metering.rules import VeeRules
        from lakehouse.series.clean import limits_for, quantities_for

        try:
            country_holidays(self.country, subdiv=self.subdivision or None)
        except NotImplementedError as error:
            key = "subdivision" if self.subdivision else "country"
            raise ValueError(f"{key}: no calendar of public holidays for it: {error}") from None
        for target, series in self.series.items():
            unknown = [m for m in series.models if m not in (*MODEL_NAMES, ENSEMBLE)]
            if unknown:
                close = _did_you_mean(unknown[0], (*MODEL_NAMES, ENSEMBLE))
                raise ValueError(f"series.{target}.models: '{unknown[0]}' is no model{close}; known: {', '.join((*MODEL_NAMES, ENSEMBLE))}")
        limits = limits_for(self.currency)
        for quantity, (low, high) in self.limits.items():
            if quantity not in quantities_for(self.currency):
                close = _did_you_mean(quantity, quantities_for(self.currency))
                raise ValueError(f"limits: '{quantity}' is no quantity of this site{close}")
            least, most = limits.get(quantity, (None, None))
            if (low is not None and least is not None and low < least) or (high is not None and most is not None and high > most):
                raise ValueError(f"limits.{quantity}: the table holds {least} to {most} only; narrow that, found {low} to {high}")
        try:
            VeeRules.from_site(self.metering.rules, self.metering.longest_gap_days)
        except SiteError as error:
            raise ValueError(f"{error.problem.removesuffix('.')} ({error.remedy.removesuffix('.')})") from None
        return self

    def _check_series(self) -> None:
        from lakehouse.contracts.cleaned import Weather

        known = [f"cleaned/{table}" for table in SERIES_TABLES]
        filled = {f"cleaned/{table}" for feed in self.feeds_of("series").values() for table in feed.provides or SERIES_TABLES}
        sums = [one.series_id for one in self.metering.aggregates] if self.feeds_of("readings") else []
        for target, series in self.series.items():
            at = f"series.{target}"
            if series.table == "cleaned/load" and sums and (absent := [s for s in series.series if s not in sums]):
                raise ValueError(f"{at}.series: '{absent[0]}' is none of metering.aggregates, which are: {', '.join(sums)}")
            named = [(f"{at}.inputs.{n}", one) for n, one in enumerate(series.inputs)]
            named += [(f"{at}.operator", series.operator)] if series.operator else []
            for where, table in [(at, series.table), *((where, one.table) for where, one in named)]:
                if table not in known:
                    raise ValueError(f"{where}.table: '{table}' is no table of series{_did_you_mean(table, known)}")
                if table not in filled and not (table == "cleaned/load" and sums):
                    raise ValueError(f"{where}.table: no feed of this site fills {table}; add one to feeds")
            for where, one in named:
                value = one.quantity or one.column
                if value is None and one.table in ("cleaned/weather", "cleaned/external_forecasts"):
                    raise ValueError(f"{where}: {one.table} holds many quantities, so name one: add quantity")
                if one.table == "cleaned/weather" and value not in Weather.columns:
                    key, close = "quantity" if one.quantity else "column", _did_you_mean(str(value), Weather.columns)
                    raise ValueError(f"{where}.{key}: '{value}' is no column of cleaned/weather{close}")

    def path(self, which: str) -> Path:
        """Absolute path of `landing`, `catalog`, `models` or `dagster`.

        Raises:
            SiteError: the path leaves the site's folder and is not written as an absolute path.
        """
        return self.inside(getattr(self.paths, which), f"paths.{which}")

    def inside(self, written: str, key: str) -> Path:
        """Absolute path of what the site file names below `key`.

        Raises:
            SiteError: the path leaves the site's folder and is not written as an absolute path.
        """
        resolved = (self.home / written).resolve()
        if not Path(written).is_absolute() and not resolved.is_relative_to(self.home.resolve()):
            raise SiteError(
                f"{self.home / SITE_FILE}: {key} is '{written}', which leads out of the site's folder.",
                "Write it as an absolute path if that is meant.",
            )
        return resolved

    @property
    def lake_uri(self) -> str:
        """The lake's root: a local path or the URI of an object store."""
        return self.paths.lake if "://" in self.paths.lake else str(self.path("lake"))

    @property
    def tracking_uri(self) -> str | None:
        """Where MLflow keeps training runs: a server or a SQLite file; None where nothing is tracked."""
        written = self.paths.tracking
        if written == "none":
            return None
        if written is not None and "://" in written:
            return written
        return f"sqlite:///{self.path('models') / 'mlflow.db' if written is None else self.path('tracking')}"

    @property
    def zone(self) -> ZoneInfo:
        """The site's time zone."""
        return ZoneInfo(self.time_zone)

    def today(self) -> date:
        """The site's current local day: its frozen clock, or the real date there."""
        return self.clock or datetime.now(self.zone).date()

    def first_utc_day(self) -> date:
        """First UTC day of which data may be: a local first day east of Greenwich begins on the day before it."""
        return self.first_day - timedelta(days=1)

    def last_day(self) -> date:
        """Last UTC day of which data may be: what others forecast for the days that the site forecasts lies ahead of today."""
        ahead = max((series.horizon_days for series in self.series.values()), default=1)
        return self.today() + timedelta(days=ahead + 1)  # a local day may end on the UTC day after it

    def feeds_of(self, shape: str) -> dict[str, Feed]:
        """The feeds whose raw table has that shape."""
        from lakehouse.sources.base import format_named

        return {name: feed for name, feed in self.feeds.items() if format_named(feed.format).shape == shape}


def load_site(home: Path | str | None = None) -> Site:
    """Reads and validates the site file of a folder.

    Args:
        home: the site's folder; by default the environment's GRIDLAKE_HOME, else the current folder.

    Raises:
        SiteError: no file, no YAML, or a wrong entry; with the line and the remedy.
    """
    folder = Path(home or os.environ.get(HOME_VARIABLE) or ".").absolute()
    path = folder / SITE_FILE
    if not path.is_file():
        raise SiteError(
            f"Expected a site file at {path}, found none.",
            "Make a site with: gridlake init DIR --site sample, then run commands in DIR or with --home DIR.",
        )
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise SiteError(
            f"{path}: expected text in UTF-8, found the byte {error.object[error.start]:#04x} at {error.start}.", _SAVE_AS_TEXT
        ) from None
    return parse_site(text, path)


def parse_site(text: str, path: Path) -> Site:
    """Parses the text of a site file that lies (or will lie) at `path`; see `load_site`."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import MarkedYAMLError
    from ruamel.yaml.reader import ReaderError

    try:
        document = YAML(typ="rt").load(text)
    except MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 0
        raise SiteError(f"{path}, line {line}: this is not YAML: {error.problem}.", "Mend the line.") from None
    except ReaderError as error:
        line = text[: error.position].count("\n") + 1
        raise SiteError(f"{path}, line {line}: expected text, found the control character {error.character:#04x}.", _SAVE_AS_TEXT) from None
    if not isinstance(document, dict):
        raise SiteError(f"{path}: expected keys and values, found {type(document).__name__}.", "See docs/site.md for an example.")
    try:
        return Site.model_validate(_plain(document) | {"home": path.parent})
    except ValidationError as error:
        raise SiteError(*_told(error, document, path)) from None


def _told(error: ValidationError, document: Any, path: Path) -> tuple[str, str]:
    lines, remedies = [], []
    for one in error.errors():
        where: list[Any] = list(one["loc"])
        message = one["msg"].removeprefix("Value error, ")
        if not where and ": " in message:  # what is told of the site as a whole begins with the place, as "feeds.weather.format: "
            dotted, message = message.split(": ", 1)
            where = [int(part) if part.isdigit() else part for part in dotted.split(".")]
        name = ".".join(str(part) for part in where)
        if one["type"] == "extra_forbidden":
            allowed = _keys_beside(where)
            message = f"unknown key{_did_you_mean(str(where[-1]), allowed)}"
            remedies.append(f"Keys known there: {', '.join(allowed)}." if allowed else "Take it out.")
        elif one["type"] == "missing":
            message = "this key is missing"
            remedies.append(f"Add {name}.")
        else:
            remedies.append(f"Mend {name}." if name else "Mend it.")
        lines.append(f"{path}, line {_line_of(document, where)}: {name}: {message}.")
    return "\n".join(lines), " ".join(dict.fromkeys(remedies)) + " docs/site.md explains every key."


def _line_of(document: Any, where: list[Any]) -> int:
    line = 1
    node: Any = document
    for part in where:
        if not hasattr(node, "lc"):
            break
        try:
            line = (node.lc.key(part) if hasattr(node, "keys") else node.lc.item(part))[0] + 1
            node = node[part]
        except (KeyError, IndexError, TypeError):
            break
    return line


def _keys_beside(where: list[Any]) -> list[str]:
    model: Any = Site
    for part in where[:-1]:
        if isinstance(model, type) and issubclass(model, BaseModel) and str(part) in model.model_fields:
            model = _section_in(model.model_fields[str(part)].annotation)
        # A key of a mapping or an index of a list keeps the model found in the annotation.
    return [k for k in model.model_fields if k != "home"] if isinstance(model, type) and issubclass(model, BaseModel) else []


def _section_in(annotation: Any) -> Any:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for inner in getattr(annotation, "__args__", ()):
        found = _section_in(inner)
        if found is not None:
            return found
    return None


def _plain(node: Any) -> Any:
    if isinstance(node, dict):
        return {str(k): _plain(v) for k, v in node.items()}
    if isinstance(node, list):
        return [_plain(v) for v in node]
    return node


def _did_you_mean(word: str, known: Any) -> str:
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f"; did you mean '{close[0]}'?" if close else ""
