"""Every rule of VEE: its name, its threshold, what it looks for as named SQL, and what the codes in the tables mean.

How the rules are put together to a run is in `vee`; estimation methods are in `estimation`.
"""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, timedelta

import pyarrow as pa

from lakehouse.contracts.cleaned import INTERVAL_MINUTES
from lakehouse.contracts.quality import Codes
from lakehouse.errors import SiteError


@dataclass(frozen=True)
class VeeRules:
    """Thresholds of VEE. Each can be set in the site file under `metering.rules`; docs/metering.md gives the reasons.

    Args:
        longest_gap_days: longest gap that is estimated, in days; longer ones stay missing.
        history_days: days of a meter's own past that its levels rest on.
        least_history_days: days of past below which a rule on the meter's own level does not fire.
        swapped_late_days: a reading older than this at delivery is tried for swapped day and month.
        rating_tolerance: share by which power may exceed the connection's rating.
        spike_least_days: days of past below which nothing is a spike.
        spike_factor: a reading above this multiple of the register's usual peak (the second highest supported one of the past days) is a
            spike,
        spike_lone_factor: that stands out from its neighbours by more than this multiple of the usual (the third most of the past days),
        spike_neighbour_factor: and above this multiple of the larger of its two neighbours;
        spike_sure_factor: or that stands out by more than this multiple of the usual, and is a fifth above peak and neighbours,
            none of which is above the usual peak.
        spike_far_factor: or that is above this multiple of peak and neighbours: the spike check of the Uniform Business Practices for
            metering, where a peak may be 180 % above the third highest.
        spike_rated_share: and above this share of the connection's rating;
        spike_least_kw: or, where the rating is not known, above this power.
        stuck_least_repeats: shortest run of equal, non-zero readings that can be stuck, in intervals.
        stuck_chance: a run is stuck when the meter's own rate of repeats makes it less likely than this.
        zero_run_hours: shortest run of zeros that is not believed, in hours.
        zero_run_hours_where_usual: and on a register with zeros of an hour or more in its past (no sun shines longer), in hours.
        idle_class_share: share of a class's registers that rest for whole days from which zeros are no fault of any of them.
        zero_run_factor: and above this multiple of the register's usual longest run of zeros in a day.
        zero_least_kwh: energy that a run of zeros must have left out, by the register's usual mean, to be a fault.
        zero_usual_share: share of zeros in a register's past from which a single zero is no fault.
        late_read_hours: longest run of zeros or blanks that a following large reading may make up for, in hours.
        late_read_ratio: how far the sum may be from what the meter's profile expects, as a factor.
        late_read_excess: how much larger than the mean of its neighbours that reading must be, as a factor;
        late_read_least_excess: the same on a register that counted no zero around that hour on any past day;
        late_read_lone_excess: and how much larger than either of them on a register that counts zeros at other hours of the day.
        unit_slip_decades: how far (in powers of ten) a day's level may be from 1000 times the usual to be a unit slip.
        shifted_least_registers: registers of a file that must agree on its hours before one beside them has a shifted clock.
        shifted_least_strangeness: how much stranger than the strangest of its past days but one a whole file's hours must be,
        shifted_most_left: and what share of that may be left once they are moved, for the file's clock to be taken as shifted.
        profile_days: days of past that a like-day profile rests on.
        persistence_per_hour: how much of a deviation from the profile remains after an hour (AR(1), for the gap's edges), where the
            register's like days do not tell.
        line_weight_hours: the same for the straight line: longest gap that it fills alone, in hours; up to three times as long it counts
            less and less.
        interpolate_hours: longest gap that is interpolated where a meter has no profile, in hours.
        register_tolerance_kwh: by how much the intervals may differ from their register difference, in kWh,
        register_tolerance_share: or as a share of the difference, whichever is more; what the register's last digit is worth comes on top.
        register_most_scale: estimates are scaled to a register difference up to this factor, and down to its inverse.
    """

    longest_gap_days: float = 7.0
    history_days: int = 28
    least_history_days: int = 3
    swapped_late_days: int = 12
    rating_tolerance: float = 0.25
    spike_least_days: int = 7
    spike_factor: float = 1.1
    spike_lone_factor: float = 2.0
    spike_neighbour_factor: float = 4.0
    spike_sure_factor: float = 5.0
    spike_far_factor: float = 2.8
    spike_rated_share: float = 0.25
    spike_least_kw: float = 4.0
    stuck_least_repeats: int = 5
    stuck_chance: float = 1e-6
    zero_run_hours: float = 3.0
    zero_run_hours_where_usual: float = 16.0
    zero_run_factor: float = 1.3
    idle_class_share: float = 0.2
    zero_least_kwh: float = 0.05
    zero_usual_share: float = 0.02
    late_read_hours: float = 6.0
    late_read_ratio: float = 2.5
    late_read_excess: float = 1.25
    late_read_least_excess: float = 1.1
    late_read_lone_excess: float = 1.5
    unit_slip_decades: float = 0.7
    shifted_least_registers: int = 5
    shifted_least_strangeness: float = 1.25
    shifted_most_left: float = 0.5
    profile_days: int = 35
    persistence_per_hour: float = 0.5
    line_weight_hours: float = 1.0
    interpolate_hours: float = 2.0
    register_tolerance_kwh: float = 0.05
    register_tolerance_share: float = 0.005
    register_most_scale: float = 4.0

    @classmethod
    def from_site(cls, rules: Mapping[str, float | int | bool | str], longest_gap_days: float | None = None) -> VeeRules:
        """Builds the thresholds from the site's `metering.rules` (and `metering.longest_gap_days`).

        Raises:
            SiteError: an unknown name, or a value that is no number or negative.
        """
        known = {f.name: f for f in dataclasses.fields(cls)}
        values: dict[str, float] = {}
        for name, value in rules.items():
            if name not in known:
                close = difflib.get_close_matches(name, known, n=1)
                raise SiteError(
                    f"metering.rules.{name}: no rule has such a threshold" + (f"; did you mean '{close[0]}'?" if close else "."),
                    f"Thresholds: {', '.join(known)}.",
                )
            if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
                raise SiteError(f"metering.rules.{name}: expected a number from 0, found {value!r}.", "Mend it; see docs/metering.md.")
            whole = isinstance(known[name].default, int)
            if whole and value != int(value):
                raise SiteError(f"metering.rules.{name}: expected a whole number, found {value!r}.", "Mend it; see docs/metering.md.")
            values[name] = int(value) if whole else float(value)
        if longest_gap_days is not None and "longest_gap_days" not in values:
            values["longest_gap_days"] = longest_gap_days
        return cls(**values)  # type: ignore[arg-type]


# --- Quality as delivered ------------------------------------------------------------------------------------------------

# Better readings have a higher rank. A: actual; E, F, S: estimated, final substitute, substitute (NEM12 codes); N: null.
QUALITY_RANKS = {
    "": 2,
    "a": 3,
    "actual": 3,
    "measured": 3,
    "valid": 3,
    "v": 2,
    "f": 2,
    "final": 2,
    "s": 1,
    "substituted": 1,
    "e": 1,
    "estimated": 1,
    "estimate": 1,
    "n": 0,
}


def quality_rank_sql(quality: str) -> str:
    """SQL for how good a reading says it is: 3 measured, 2 not said or final substitute, 1 estimated, 0 null."""
    whens = " ".join(f"WHEN '{code}' THEN {rank}" for code, rank in QUALITY_RANKS.items())
    # NEM12 quality methods: a letter and two digits, such as S14.
    methods = " ".join(f"WHEN '{letter}' THEN {rank}" for letter, rank in (("A", 3), ("E", 1), ("F", 2), ("S", 1), ("N", 0)))
    coded = f"CASE WHEN regexp_full_match({quality}, '[AEFNSV][0-9]{{2}}') THEN CASE {quality}[1] {methods} ELSE 2 END ELSE 2 END"
    return f"CASE lower(COALESCE({quality}, '')) {whens} ELSE {coded} END"


def is_estimate_by_sender(quality: str | None) -> bool:
    """Whether a quality code says that the sender estimated the value: `quality_rank_sql` of at most 1."""
    code = quality or ""
    if code.lower() in QUALITY_RANKS:
        return QUALITY_RANKS[code.lower()] <= 1
    return bool(re.fullmatch(r"[ESN][0-9]{2}", code))


# --- Rules on one delivered row ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class RowRule:
    """A rule that looks at one delivered row and its meter.

    Args:
        name: the rule's name.
        condition: SQL over the delivered row `r` and its meter `m`; true where the row is refused.
        reason: SQL for what was expected and what was found.
    """

    name: str
    condition: str
    reason: str


def unreadable_line() -> RowRule:
    """The reader could not read the line; its fault is the reason."""
    return RowRule(
        "unreadable_line",
        "r.fault IS NOT NULL OR r.read_date IS NULL OR r.meter_id IS NULL OR r.register IS NULL OR r.energy_kwh IS NULL",
        "COALESCE(r.fault, 'expected a meter, a moment and an energy, found one missing')",
    )


def unknown_meter(has_registry: bool) -> RowRule:
    """The meter is in no registry. A site without any registry has no unknown meters."""
    condition = "NOT COALESCE(m.is_registered, false)" if has_registry else "false"
    return RowRule("unknown_meter", condition, "'expected a meter of the registry, found ' || r.meter_id")


def wrong_interval_length() -> RowRule:
    """The interval has a length that no meter delivers; twelve hours and more are the difference of two register reads."""
    lengths = ", ".join(map(str, INTERVAL_MINUTES))
    return RowRule(
        "wrong_interval_length",
        f"r.interval_minutes NOT IN ({lengths}) AND NOT r.is_register",
        f"'expected an interval of {lengths} minutes, found ' || r.interval_minutes",
    )


def misaligned_interval() -> RowRule:
    """The interval does not start on a multiple of its length."""
    return RowRule(
        "misaligned_interval",
        "epoch_us(r.interval_start) % (CAST(r.interval_minutes AS BIGINT) * 60000000) <> 0 AND NOT r.is_register",
        "'expected a start on a multiple of ' || r.interval_minutes || ' minutes, found '"
        " || strftime(r.interval_start, '%H:%M:%S') || ' UTC'",
    )


_SWAPPED = "try_cast(printf('%04d-%02d-%02d', year(r.read_date), day(r.read_date), month(r.read_date)) AS DATE)"


def swapped_day_month(rules: VeeRules) -> RowRule:
    """Day and month are swapped: the date is far from its delivery, and the swapped one is just before it.

    A delivery of old readings is not caught: it holds the days around the date as well (`r.neighbour_days`).
    """
    near = f"({_SWAPPED}) BETWEEN r.delivery_date - 3 AND r.delivery_date"
    far = f"(r.read_date > r.delivery_date + 1 OR r.read_date < r.delivery_date - {rules.swapped_late_days})"
    return RowRule(
        "swapped_day_month",
        f"day(r.read_date) <= 12 AND day(r.read_date) <> month(r.read_date) AND {far} AND {near} AND COALESCE(r.neighbour_days, 0) = 0"
        " AND NOT r.is_register",
        f"'expected a day shortly before the delivery, found ' || r.read_date || '; with day and month swapped it is ' || ({_SWAPPED})",
    )


def future_reading() -> RowRule:
    """The interval ends after the day on which it was delivered (a day of slack for time zones)."""
    return RowRule(
        "future_reading",
        "r.read_date > r.delivery_date + 1",
        "'expected a reading from before its delivery, found ' || r.read_date || ' delivered on ' || r.delivery_date",
    )


def before_first_day(first_day: date | None) -> RowRule:
    """The interval lies before the site's first day (a day of slack for time zones)."""
    condition = f"r.read_date < DATE '{first_day - timedelta(days=1)}'" if first_day else "false"
    return RowRule("before_first_day", condition, f"'expected a reading since the site''s first day {first_day}, found ' || r.read_date")


NET_REGISTER = "(r.register LIKE 'net%' OR r.register LIKE '%\\_net' ESCAPE '\\')"


def negative_energy() -> RowRule:
    """Energy is negative on a register that only counts up; a register whose name says `net` may go below zero."""
    return RowRule(
        "negative_energy",
        f"r.energy_kwh < 0 AND NOT {NET_REGISTER}",
        "'expected energy from 0 kWh on the register ' || r.register || ', found ' || r.energy_kwh",
    )


def row_rules(rules: VeeRules, *, has_registry: bool, first_day: date | None = None) -> list[RowRule]:
    """The rules on one row, in the order in which they are tried: the first that holds names the row's fault."""
    return [
        unreadable_line(),
        unknown_meter(has_registry),
        wrong_interval_length(),
        misaligned_interval(),
        swapped_day_month(rules),
        future_reading(),
        before_first_day(first_day),
        negative_energy(),
    ]


# --- Codes -----------------------------------------------------------------------------------------------------------------

_CODES: list[tuple[str, str, str, str, str | None]] = [
    ("measured", "quality", "The value stands as it was delivered.", "kept", None),
    (
        "estimated",
        "quality",
        "No reading was delivered, or the delivered one was not believed; `method` says how it was made.",
        "estimated",
        None,
    ),
    ("delivered_estimate", "quality", "The sender itself marked the value as estimated or substituted.", "kept", "NEM12 quality methods"),
    ("by_sender", "estimation", "The sender made the estimate.", "kept", None),
    ("edited", "quality", "The value was put right from what was delivered; `delivered_kwh` keeps that.", "edited", None),
    ("unreadable_line", "parsing", "The line could not be read in the feed's format.", "quarantined", None),
    ("unreadable_file", "parsing", "Nothing of the file could be read in the feed's format.", "quarantined", None),
    ("exact_duplicate", "validation", "The row repeats another one to the last digit.", "superseded", "VEE practice: duplicate check"),
    (
        "superseded",
        "validation",
        "Another reading of the interval won: the later delivery, then the better quality, then the later file and line.",
        "superseded",
        "VEE practice: latest validated reading wins",
    ),
    ("unknown_meter", "validation", "The meter is in no registry.", "quarantined", "VEE practice: meter identification check"),
    (
        "wrong_interval_length",
        "validation",
        "No meter delivers intervals of that length.",
        "quarantined",
        "VEE practice: interval size check",
    ),
    (
        "misaligned_interval",
        "validation",
        "The interval does not start on a multiple of its length.",
        "quarantined",
        "VEE practice: time check",
    ),
    (
        "overlapping_interval",
        "validation",
        "The interval overlaps one of the meter's usual length.",
        "quarantined",
        "VEE practice: interval size check",
    ),
    ("swapped_day_month", "validation", "Day and month of the date are swapped.", "quarantined", "Seen in published data sets"),
    ("future_reading", "validation", "The interval ends after its delivery.", "quarantined", "VEE practice: time tolerance check"),
    ("before_first_day", "validation", "The interval lies before the site's first day.", "quarantined", "VEE practice: time check"),
    (
        "negative_energy",
        "validation",
        "Energy below zero on a register that only counts up.",
        "quarantined",
        "VEE practice: reverse rotation check",
    ),
    (
        "beyond_rating",
        "validation",
        "More power than the connection can carry.",
        "quarantined",
        "VEE practice: high/low check against the rating",
    ),
    (
        "spike",
        "validation",
        "Above the meter's usual peak, and far further above both neighbours than is usual for it.",
        "quarantined",
        "VEE practice: spike check",
    ),
    (
        "stuck_value",
        "validation",
        "The same value again and again, more often than this meter repeats itself.",
        "quarantined",
        "VEE practice: static value check",
    ),
    (
        "zero_run",
        "validation",
        "Zeros for hours on a register that hardly ever counts none.",
        "quarantined",
        "VEE practice: zero consumption check",
    ),
    (
        "late_register_read",
        "validation",
        "Zeros or blanks, then their energy in one reading: the sum is right and is spread by the meter's profile.",
        "edited",
        "VEE practice: sum check, register read late",
    ),
    (
        "unit_slip",
        "validation",
        "A thousand times too much or too little: Wh or MWh taken for kWh.",
        "edited",
        "VEE practice: multiplier check",
    ),
    (
        "shifted_clock",
        "validation",
        "The day's shape is that of the meter's profile an hour away.",
        "edited",
        "VEE practice: time drift check",
    ),
    (
        "register_difference",
        "validation",
        "The sum of the intervals is not the difference of the register reads.",
        "kept",
        "VEE practice: sum check",
    ),
    (
        "register_share",
        "estimation",
        "The like-day estimate, scaled so that the intervals add up to the register's difference.",
        "estimated",
        "VEE practice: scaled to the register difference",
    ),
    ("missing_interval", "validation", "No reading was delivered for the interval.", "estimated", "VEE practice: missing interval check"),
    ("linear_interpolation", "estimation", "On the line between the readings before and after.", "estimated", "VEE practice: short gaps"),
    (
        "like_day_profile",
        "estimation",
        "The meter's mean of like days at that local time, bent to the readings at the gap's edges.",
        "estimated",
        "VEE practice: historical like-day method; edges by the AR(1) bridge",
    ),
    (
        "class_profile",
        "estimation",
        "The mean of the meter's class at that moment, scaled to the meter's level.",
        "estimated",
        "VEE practice: class load profile",
    ),
    ("spread_sum", "estimation", "A known sum spread by the meter's profile.", "edited", "VEE practice: scaled to the register difference"),
]


CHECKED_RULES = (
    "unreadable_line",
    "unknown_meter",
    "wrong_interval_length",
    "misaligned_interval",
    "overlapping_interval",
    "swapped_day_month",
    "future_reading",
    "negative_energy",
    "beyond_rating",
    "spike",
    "stuck_value",
    "zero_run",
    "late_register_read",
    "unit_slip",
    "shifted_clock",
    "register_difference",
    "missing_interval",
)
"""Rules whose findings are told one by one to who looks after the readings."""


def meaning(code: str) -> str:
    """What a code means, in a sentence."""
    return next(description for name, _, description, _, _ in _CODES if name == code)


def codes() -> pa.Table:
    """The table quality/codes: every quality code, rule and method that can stand in the tables."""
    names = list(Codes.columns)
    return Codes.conform(pa.Table.from_pylist([dict(zip(names, row, strict=True)) for row in _CODES], schema=Codes.arrow_schema()))
