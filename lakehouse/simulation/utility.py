"""What a sample utility is: its size, place, seed and calendar, and the random streams that everything else draws from.

Every value of the simulation is a function of the utility and of the day it belongs to, never of the span that was asked for:
a stream of random numbers is named by what it is for and by its day. So a day can be made alone, again, or as part of years.
What the weather, the meters, the plants and the dirt are made of lives in the neighbouring modules.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo, available_timezones

import numpy as np

from lakehouse.errors import GridlakeError

QUARTER_SECONDS = 900
QUARTERS_PER_HOUR = 4
SMALLEST_UTILITY_METERS = 5
MOST_DIRT = 20.0


@dataclass(frozen=True)
class Utility:
    """A sample utility. The defaults are a small Spanish one, near Madrid.

    Args:
        first_day: first local day whose readings are delivered; deliveries begin on it.
        seed: which of all possible utilities.
        meters: number of meters, at least five (one of each class).
        time_zone: IANA zone of the local clock; its offsets are whole or half hours, its clock changes whole hours.
        country: ISO 3166 code, for holidays.
        subdivision: region of the country, for holidays; None for the national ones.
        latitude_deg, longitude_deg: place, for the sun and the climate (east and north positive).
        altitude_m: height above the sea.
        dirt: how dirty deliveries are: 1 as in `dirt.READING_FAULTS` and `dirt.FILE_FAULTS`, 0 for none, 2 for twice as much.

    Raises:
        GridlakeError: a value that can't be.
    """

    first_day: date
    seed: int = 1
    meters: int = 200
    time_zone: str = "Europe/Madrid"
    country: str = "ES"
    subdivision: str | None = None
    latitude_deg: float = 40.42
    longitude_deg: float = -3.70
    altitude_m: float = 650.0
    dirt: float = 1.0
    holidays: frozenset[date] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.meters < SMALLEST_UTILITY_METERS:
            raise GridlakeError(f"Expected at least {SMALLEST_UTILITY_METERS} meters, found {self.meters}.", "Ask for more meters.")
        if self.seed < 0:
            raise GridlakeError(f"Expected a seed of zero or more, found {self.seed}.", "Choose another seed.")
        if not 0 <= self.dirt <= MOST_DIRT:
            raise GridlakeError(f"Expected dirt from 0 (none) to {MOST_DIRT:g}, found {self.dirt:g}.", "Real deliveries have about 1.")
        if not (-90 <= self.latitude_deg <= 90 and -180 <= self.longitude_deg <= 180):
            found = f"latitude {self.latitude_deg:g}°, longitude {self.longitude_deg:g}°"
            raise GridlakeError(f"Expected a place on Earth, found {found}.", "Correct the place.")
        if self.time_zone not in available_timezones():
            raise GridlakeError(f"Expected an IANA time zone, found '{self.time_zone}'.", "Write it as in Europe/Madrid.")
        object.__setattr__(self, "holidays", _holidays(self.country, self.subdivision, self.first_day.year))

    def stream(self, purpose: str, *where: int) -> np.random.Generator:
        """A random stream of its own for a purpose and a place (a day's number, a route's number)."""
        return random_stream(self.seed, purpose, *where)

    def is_holiday(self, day: date) -> bool:
        """Whether a day is a public holiday."""
        return day in self.holidays


def random_stream(seed: int, purpose: str, *where: int) -> np.random.Generator:
    """A random stream named by seed, purpose and place: the same name, the same numbers."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence((seed, zlib.crc32(purpose.encode()), *where))))


@lru_cache(maxsize=16)
def _holidays(country: str, subdivision: str | None, first_year: int) -> frozenset[date]:
    import warnings

    import holidays

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # some calendars are not known that far ahead
            days = holidays.country_holidays(country, subdiv=subdivision, years=range(first_year - 5, first_year + 31))
    except NotImplementedError as error:
        found = " ".join(filter(None, (country, subdivision)))
        raise GridlakeError(f"Expected a country whose holidays are known, found '{found}': {error}", "Use an ISO 3166 code.") from None
    return frozenset(days)


@dataclass(frozen=True, eq=False)
class LocalDay:
    """One local day on the quarter-hour grid of UTC.

    Args:
        day: the calendar day.
        start_s: seconds since 1970 (UTC) at local midnight.
        hour: local clock at the middle of each quarter hour, in hours; 92, 96 or 100 values.
        offset_s: local clock less UTC at the start of each quarter hour, in seconds.
    """

    day: date
    start_s: int
    hour: np.ndarray
    offset_s: np.ndarray

    @property
    def quarters(self) -> int:
        """Number of quarter hours."""
        return len(self.hour)

    @property
    def start_quarter(self) -> int:
        """Quarter hours since 1970 at local midnight."""
        return self.start_s // QUARTER_SECONDS

    @property
    def clock_change_s(self) -> int:
        """By how much the clock is put forward (positive) or back on this day, in seconds."""
        return int(self.offset_s[-1] - self.offset_s[0])


@lru_cache(maxsize=64)
def local_day(time_zone: str, day: date) -> LocalDay:
    """The quarter hours of a local day.

    Raises:
        GridlakeError: the day can't be cut into whole hours.
    """
    zone = ZoneInfo(time_zone)
    start, end = (int(datetime(d.year, d.month, d.day, tzinfo=zone).timestamp()) for d in (day, day + timedelta(days=1)))
    if (end - start) % 3600 or start % QUARTER_SECONDS:
        raise GridlakeError(
            f"Expected local days of whole hours, found {(end - start) / 3600:g} hours in {time_zone} on {day}.",
            "Choose another time zone for the sample.",
        )
    starts = np.arange(start, end, QUARTER_SECONDS)
    offsets = np.array([(datetime.fromtimestamp(s, zone).utcoffset() or timedelta()).total_seconds() for s in starts.tolist()], np.int64)
    hour = ((starts + offsets) % 86400 + QUARTER_SECONDS / 2) / 3600
    return LocalDay(day, start, hour, offsets)


def utc_seconds(day: date, hour: int = 0) -> int:
    """Seconds since 1970 at an hour of a UTC day."""
    return int(datetime(day.year, day.month, day.day, hour, tzinfo=UTC).timestamp())


def local_seconds(time_zone: str, day: date, hour: int) -> int:
    """Seconds since 1970 (UTC) at a full hour of the local clock."""
    return int(datetime(day.year, day.month, day.day, hour, tzinfo=ZoneInfo(time_zone)).timestamp())


def coloured(white: np.ndarray, memories_quarters: tuple[float, ...]) -> np.ndarray:
    """White noise through a cascade of first-order filters, scaled to unit variance.

    Args:
        white: standard normal, shape (..., time) on the quarter-hour grid.
        memories_quarters: time constants of the filters, in quarter hours.
    """
    from scipy.signal import lfilter

    length = white.shape[-1]
    impulse = np.zeros(length)
    impulse[0] = 1.0
    out = white
    for memory in memories_quarters:
        keep = float(np.exp(-1.0 / memory))
        out, impulse = lfilter([1.0], [1.0, -keep], out), lfilter([1.0], [1.0, -keep], impulse)
    return out / np.sqrt((impulse**2).sum())
