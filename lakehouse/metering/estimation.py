"""What should have been delivered and was not (or was not believed), and the estimates that stand for it.

Two steps of a run of VEE: `expected_intervals` lists the gaps, `estimate` fills those that may be filled. What is believed
is decided in `rows` and `values`.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

if TYPE_CHECKING:
    from lakehouse.metering.run import Run

# Meters whose readings make the index of their class, at most; chosen by a hash of their name, so always the same.
CLASS_SAMPLE = 200
# A class needs this many believed meters at a moment to say anything about it.
CLASS_LEAST = 5
# Recency weight of a like day: halves in about ten days.
LIKE_DAY_DECAY_DAYS = 14.0
# Workdays are plenty: those of the last two weeks make a profile as good as those of five. Of Saturdays and Sundays all are needed.
WORKDAY_PROFILE_DAYS = 14
# Up to that long the straight line is tried beside the profile.
LONGEST_LINE_HOURS = 6
# What is taken for persistence and line before a register's like days have told: it weighs as this share of them.
PRIOR_SHARE = 0.1
# Below this share of the busiest interval's meters, the newest intervals are not due yet: their deliveries are on the way.
DUE_SHARE = 0.05


def heard(run: Run, history: str | None, reports: str | None) -> None:
    """The registers that were heard of shortly before the run, as `heard`, and their days in the run without any row, as `absent`."""
    first = run.days[0]
    before = f"date >= DATE '{first - timedelta(days=int(run.rules.longest_gap_days) + 1)}' AND date < DATE '{first}'"
    is_single = len(run.days) == 1
    others = f"ANTI JOIN {run.looks} l ON l.meter_id = h.meter_id AND l.register = h.register" if is_single else ""
    of_before = before.replace("date", "h.date")
    if reports:
        minutes = "CASE WHEN 1440 / max(h.expected) IN (5, 10, 15, 30, 60) THEN CAST(1440 / max(h.expected) AS INTEGER) END"
        source = f"""SELECT h.meter_id, h.register, {minutes} AS minutes FROM {reports} h {others}
            WHERE {of_before} AND h.measured + h.edited > 0 GROUP BY h.meter_id, h.register"""
    elif history:
        source = f"""SELECT h.meter_id, h.register, arg_max(h.interval_minutes, (h.interval_start, h.interval_minutes)) AS minutes
            FROM {history} h {others} WHERE {of_before} AND h.quality <> 'estimated' GROUP BY h.meter_id, h.register"""
    else:
        source = "SELECT NULL::VARCHAR AS meter_id, NULL::VARCHAR AS register, NULL::INTEGER AS minutes LIMIT 0"
    run.make("heard", source)
    seen = f"SELECT DISTINCT meter_id, register FROM {run.looks} UNION" if not is_single else ""
    run.make(
        "absent",
        f"""
        SELECT k.meter_id, k.register, d.date
        FROM ({seen} SELECT meter_id, register FROM {run.exceptional} UNION SELECT meter_id, register FROM {run.heard}) k
        CROSS JOIN (SELECT unnest([{run.listed_days}]) AS date) d
        ANTI JOIN {run.looks} l ON l.meter_id = k.meter_id AND l.register = k.register AND l.date = d.date
        ANTI JOIN {run.exceptional} x ON x.meter_id = k.meter_id AND x.register = k.register AND x.date = d.date
        """,
    )


def expected_intervals(run: Run, today: date | None) -> None:
    """Lists the intervals that should have a believed reading and have none, as `gaps`.

    A register is expected on a day where it delivered, or where it was heard of within the longest gap that may be
    estimated. A meter is expected from its first day in service (or its first reading) to its last. The newest intervals,
    for which next to no meter has delivered yet, are not due.
    """
    zone = ZoneInfo(run.time_zone)
    end_of_today = ""
    if today is not None:
        midnight = datetime.combine(today + timedelta(days=1), datetime.min.time(), zone).astimezone(ZoneInfo("UTC"))
        end_of_today = f"AND interval_start < TIMESTAMPTZ '{midnight:%Y-%m-%d %H:%M:%S}+00'"
    run.make(
        "due",
        f"""
        WITH newest AS (
            SELECT max(date) AS date FROM (SELECT date FROM {run.looks} UNION ALL SELECT date FROM {run.believed} WHERE is_ours)
        ), sound AS (
            SELECT count(*) AS registers FROM {run.looks} WHERE date = (SELECT date FROM newest)
        ), counted AS (
            SELECT interval_start + to_minutes(max(interval_minutes)) AS closes, count(*) AS registers FROM {run.believed}
            WHERE is_ours AND date = (SELECT date FROM newest) GROUP BY interval_start
        ), most AS (
            SELECT {DUE_SHARE} * (COALESCE(max(c.registers), 0) + any_value(s.registers)) AS least FROM sound s LEFT JOIN counted c ON true
        )
        SELECT greatest((SELECT max(closes) FROM counted WHERE registers >= (SELECT least FROM most)),
                        (SELECT newest.date::TIMESTAMPTZ + INTERVAL 1 DAY FROM newest, sound, most
                         WHERE sound.registers > 0 AND sound.registers >= most.least)) AS due_until
        """,
    )
    seen = (
        f"""UNION ALL SELECT meter_id, register, minutes, date::TIMESTAMPTZ AS first_start, false AS is_known FROM {run.looks}"""
        if len(run.days) > 1
        else ""
    )
    run.make(
        "known",
        f"""
        SELECT meter_id, register, max(minutes) AS minutes, min(first_start) FILTER (WHERE first_start IS NOT NULL) AS first_start,
               bool_or(is_known) AS is_known
        FROM (
            SELECT meter_id, register, arg_max(interval_minutes, interval_start) AS minutes, min(interval_start) AS first_start,
                   false AS is_known
            FROM {run.believed} GROUP BY meter_id, register
            {seen}
            UNION ALL SELECT meter_id, register, minutes, NULL AS first_start, true AS is_known FROM {run.heard}
        )
        GROUP BY meter_id, register
        """,
    )
    run.make(
        "incomplete",
        f"""
        WITH lengths AS (
            SELECT meter_id, register, date, interval_minutes, count(*) AS n, sum(interval_minutes) AS covered
            FROM {run.believed} GROUP BY meter_id, register, date, interval_minutes
        ), there AS (
            SELECT meter_id, register, date, sum(n) AS n, sum(covered) AS covered, count(*) > 1 AS is_mixed,
                   arg_max(interval_minutes, (covered, -interval_minutes)) AS minutes
            FROM lengths GROUP BY meter_id, register, date
        )
        SELECT k.meter_id, k.register, d.date, COALESCE(t.minutes, k.minutes, m.interval_minutes, 60) AS minutes, COALESCE(t.n, 0) AS n,
               CASE WHEN NOT k.is_known THEN k.first_start END AS opens,
               timezone('{run.time_zone}', CAST(m.first_date AS TIMESTAMP)) AS in_service,
               timezone('{run.time_zone}', CAST(m.last_date + 1 AS TIMESTAMP)) AS out_of_service
        FROM {run.known} k CROSS JOIN (SELECT unnest([{run.listed_days}]) AS date) d
        ANTI JOIN {run.looks} s ON s.meter_id = k.meter_id AND s.register = k.register AND s.date = d.date
        LEFT JOIN there t ON t.meter_id = k.meter_id AND t.register = k.register AND t.date = d.date
        LEFT JOIN {run.meters} m ON m.meter_id = k.meter_id
        WHERE COALESCE(t.covered, 0) < 1440 OR t.is_mixed
        """,
    )
    run.make(
        "gaps",
        f"""
        WITH slots AS (
            SELECT i.*, unnest(generate_series(i.date::TIMESTAMPTZ, i.date::TIMESTAMPTZ + INTERVAL 1439 MINUTE,
                to_minutes(i.minutes))) AS interval_start
            FROM {run.incomplete} i
        ), open AS (
            SELECT s.meter_id, s.register, s.interval_start, s.minutes AS interval_minutes, s.date
            FROM slots s
            WHERE (s.opens IS NULL OR s.interval_start >= s.opens)
              AND (s.in_service IS NULL OR s.interval_start >= s.in_service) AND (s.out_of_service IS NULL
                  OR s.interval_start < s.out_of_service)
              AND s.interval_start < COALESCE((SELECT due_until FROM {run.due}), TIMESTAMPTZ '1970-01-01 00:00:00+00')
              {end_of_today}
        ), free AS (
            SELECT o.* FROM open o ANTI JOIN {run.believed} b
            ON b.meter_id = o.meter_id AND b.register = o.register AND b.interval_start = o.interval_start
        ), refused AS (
            SELECT r.meter_id, r.register, r.interval_start, arg_max(r.rowid, (r.delivery_date, r.file, r.line)) AS refused_id
            FROM {run.rows} r JOIN {run.fates} f ON f.id = r.rowid AND f.fate = 'quarantined'
            WHERE r.meter_id IS NOT NULL AND r.interval_start IS NOT NULL AND NOT r.is_register
            GROUP BY ALL
        )
        SELECT f.*, x.refused_id
        FROM free f LEFT JOIN refused x USING (meter_id, register, interval_start)
        """,
    )
    # On a day with intervals of two lengths, a slot that a longer interval covers is no gap.
    run.execute(
        f"""
        DELETE FROM {run.gaps} WHERE rowid IN (
            SELECT g.rowid FROM {run.gaps} g JOIN {run.believed} b
            ON b.meter_id = g.meter_id AND b.register = g.register AND b.date = g.date
               AND b.interval_start < g.interval_start + to_minutes(g.interval_minutes)
               AND b.interval_start + to_minutes(b.interval_minutes) > g.interval_start
        )
        """
    )


def estimate(run: Run, history: str | None, holidays: Iterable[date], sound: str) -> None:
    """Fills the gaps that may be filled, as `estimates`.

    An estimate is P(t) + b(t): P is the register's like-day profile (weighted mean of like days at that local time, times
    how the meter's class deviates from its own like days at that moment), and b bends it to the believed readings at the
    gap's edges. With deviations d0 and d1 from P at the edges, n missing intervals and persistence r per interval,
    b(k) = d0 (r^k - r^(2N-k)) / (1 - r^2N) + d1 (r^(N-k) - r^(N+k)) / (1 - r^2N) with N = n + 1: the conditional mean of an
    AR(1) process between two known values (the Ornstein-Uhlenbeck bridge). For r towards 1 it is linear interpolation, for
    long gaps it is the profile. A profile of some days can be noisy from one interval to the next, so that a straight line between the
    edges is better over short gaps: how much it counts, and r, are told by the register's own like days (`_try_on_like_days`). Without a
    profile short gaps are interpolated linearly, and longer ones take their class.
    """
    if not run.count(f"SELECT count(*) FROM {run.gaps}"):
        _no_estimates(run)
        return
    _sample_classes(run)
    _earlier(run, history, holidays)
    _find_gaps(run)
    _past_of_gaps(run, sound)
    _profiles(run)
    _class_levels(run, sound)
    _try_on_like_days(run)
    _bend(run)


def _no_estimates(run: Run) -> None:
    run.make(
        "estimates",
        """
        SELECT NULL::VARCHAR AS meter_id, NULL::VARCHAR AS register, NULL::TIMESTAMPTZ AS interval_start, NULL::INTEGER AS interval_minutes,
               NULL::DOUBLE AS energy_kwh, NULL::VARCHAR AS quality, NULL::VARCHAR AS rule, NULL::VARCHAR AS method,
               NULL::TIMESTAMPTZ AS basis_from, NULL::TIMESTAMPTZ AS basis_to, NULL::DOUBLE AS delivered_kwh, NULL::VARCHAR AS file,
               NULL::DATE AS delivery_date, NULL::DATE AS date
        LIMIT 0
        """,
    )


def _sample_classes(run: Run) -> None:
    """Registers of each class whose readings stand for the class, as `class_sample`."""
    run.make(
        "class_sample",
        f"""
        SELECT meter_class, register, unnest(arg_min(meter_id, hash(meter_id), {CLASS_SAMPLE})) AS meter_id
        FROM (
            SELECT b.meter_id, b.register, COALESCE(m.meter_class, 'unknown') AS meter_class
            FROM (SELECT meter_id, register FROM {run.believed} WHERE is_ours UNION SELECT meter_id, register FROM {run.looks}) b
            LEFT JOIN {run.meters} m USING (meter_id)
        )
        GROUP BY meter_class, register
        """,
    )


def _earlier(run: Run, history: str | None, holidays: Iterable[date]) -> None:
    """The readings of earlier days that estimates need, of the registers with gaps and of the samples of classes, as `earlier`.

    Only the last days, for the gaps' edges, and the last like days are read: with a million meters each day costs a second.
    """
    listed = ", ".join(f"DATE '{d}'" for d in holidays)
    run.make("holidays", f"SELECT unnest([{listed}]::DATE[]) AS day")
    columns = "h.meter_id, h.register, h.interval_start, h.interval_minutes, h.energy_kwh, h.date"
    if not history:
        run.make("earlier", f"SELECT {columns} FROM {run.believed} h LIMIT 0")
        return
    days = ", ".join(f"DATE '{d}'" for d in _days_to_read(run, set(holidays)))
    run.make(
        "earlier",
        f"""
        SELECT {columns} FROM {history} h
        SEMI JOIN (SELECT meter_id, register FROM {run.gaps} UNION SELECT meter_id, register FROM {run.class_sample}) k
        ON k.meter_id = h.meter_id AND k.register = h.register
        WHERE h.date IN ({days}) AND h.quality <> 'estimated'
        """,
    )


def _days_to_read(run: Run, holidays: set[date]) -> list[date]:
    """UTC days before the run, or between its days, that hold a gap's edge or a like day of a day of the run."""

    def kind(day: date) -> int:
        return 7 if day in holidays else max(day.isoweekday(), 5)

    zone, utc = ZoneInfo(run.time_zone), ZoneInfo("UTC")
    wanted: set[date] = set()
    for day in run.days:
        wanted |= {day - timedelta(days=n) for n in range(1, _any_days(run) + 1)}
        midnight = datetime.combine(day, datetime.min.time(), utc)
        # A UTC day is of two local days, and each has like days of its own.
        for local in {midnight.astimezone(zone).date(), (midnight + timedelta(hours=23, minutes=59)).astimezone(zone).date()}:
            longest = WORKDAY_PROFILE_DAYS if kind(local) == 5 else run.rules.profile_days
            past = [local - timedelta(days=n) for n in range(1, longest + 1)]
            wanted |= {d - (local - day) for d in past if kind(d) == kind(local)}
    return sorted(wanted - set(run.days))


def _any_days(run: Run) -> int:
    """Days before an interval of which any counts, whatever its kind, where there are too few like days."""
    return int(run.rules.longest_gap_days) + 1


def _like_days_sql(run: Run, past: str, now: str) -> str:
    """SQL that is true where a past moment lies in the like days of another."""
    return f"""{past}.kind = {now}.kind AND {past}.date < {now}.date
        AND {past}.date >= {now}.date - CASE WHEN {now}.kind = 1 THEN {WORKDAY_PROFILE_DAYS} ELSE {run.rules.profile_days} END"""


def _find_gaps(run: Run) -> None:
    """Numbers the gaps' intervals and finds the believed readings at their edges, as `holes`."""
    before = run.days[0] - timedelta(days=int(run.rules.longest_gap_days) + 1)
    past = f"""UNION ALL
            SELECT h.meter_id, h.register, h.interval_start, h.interval_minutes, h.energy_kwh FROM {run.earlier} h
            SEMI JOIN gap_registers g ON g.meter_id = h.meter_id AND g.register = h.register
            WHERE h.date >= DATE '{before}'"""
    run.make(
        "holes",
        f"""
        WITH gap_registers AS (SELECT DISTINCT meter_id, register FROM {run.gaps}),
        near AS (
            SELECT b.meter_id, b.register, b.interval_start, b.interval_minutes, b.energy_kwh FROM {run.believed} b
            SEMI JOIN gap_registers g ON g.meter_id = b.meter_id AND g.register = b.register
            {past}
        ), stepped AS (
            SELECT *, CAST(lag(interval_start + to_minutes(interval_minutes)) OVER w IS DISTINCT FROM interval_start AS INTEGER) AS is_new
            FROM {run.gaps} WINDOW w AS (PARTITION BY meter_id, register ORDER BY interval_start)
        ), numbered AS (
            SELECT *, sum(is_new) OVER (PARTITION BY meter_id, register ORDER BY interval_start ROWS UNBOUNDED PRECEDING) AS hole
                FROM stepped
        ), holes AS (
            SELECT meter_id, register, hole, min(interval_start) AS opens, max(interval_start + to_minutes(interval_minutes)) AS closes,
                   count(*) AS n FROM numbered GROUP BY ALL
        ), edged AS (
            SELECT h.*, l.interval_start AS left_start, l.energy_kwh * 60.0 / l.interval_minutes AS left_kw,
                   l.interval_start + to_minutes(l.interval_minutes) = h.opens AS left_touches
            FROM holes h ASOF LEFT JOIN near l ON l.meter_id = h.meter_id AND l.register = h.register AND l.interval_start < h.opens
        ), both_edged AS (
            SELECT e.*, r.interval_start AS right_start, r.energy_kwh * 60.0 / r.interval_minutes AS right_kw,
                r.interval_start = e.closes AS right_touches
            FROM edged e ASOF LEFT JOIN near r ON r.meter_id = e.meter_id AND r.register = e.register AND r.interval_start >= e.closes
        )
        SELECT g.*, row_number() OVER (PARTITION BY g.meter_id, g.register, g.hole ORDER BY g.interval_start) AS k, b.n, b.opens, b.closes,
               b.left_start, CASE WHEN b.left_touches THEN b.left_kw END AS left_kw,
               b.right_start, CASE WHEN b.right_touches THEN b.right_kw END AS right_kw
        FROM numbered g JOIN both_edged b USING (meter_id, register, hole)
        WHERE g.interval_start < COALESCE(b.left_start, b.opens)
              + to_minutes(CAST({run.rules.longest_gap_days * 1440} AS BIGINT) + g.interval_minutes)
        """,
    )


def _kind_sql(run: Run, moment: str) -> str:
    """SQL for the kind of local day: 6 Saturday, 7 Sunday and holidays, 1 the others."""
    local = f"timezone('{run.time_zone}', {moment})"
    return f"""CASE WHEN CAST({local} AS DATE) IN (SELECT day FROM {run.holidays}) THEN 7
                    WHEN isodow({local}) >= 6 THEN isodow({local}) ELSE 1 END"""


def _slot_sql(run: Run, moment: str) -> str:
    """SQL for the minute of the local day."""
    local = f"timezone('{run.time_zone}', {moment})"
    return f"CAST(date_part('hour', {local}) * 60 + date_part('minute', {local}) AS INTEGER)"


def _past_of_gaps(run: Run, sound: str) -> None:
    """The believed readings of the registers with gaps, with local slot and kind of day, as `past`."""
    older = f"UNION ALL FROM {run.earlier}"
    of_sound_days = (
        f"UNION ALL SELECT meter_id, register, interval_start, interval_minutes, energy_kwh, date FROM ({sound})"
        if len(run.days) > 1
        else ""
    )
    run.make(
        "past",
        f"""
        SELECT r.meter_id, r.register, r.interval_start, r.date, r.energy_kwh * 60.0 / r.interval_minutes AS kw, r.interval_minutes,
               {_slot_sql(run, "r.interval_start")} AS slot, {_kind_sql(run, "r.interval_start")} AS kind
        FROM (
            SELECT meter_id, register, interval_start, interval_minutes, energy_kwh, date FROM {run.believed} WHERE is_ours
            {of_sound_days}
            {older}
        ) r
        SEMI JOIN {run.holes} h ON h.meter_id = r.meter_id AND h.register = r.register
        """,
    )


def _profiles(run: Run) -> None:
    """Like-day profile of every interval of the days with gaps, and of the readings at their edges, as `profiles`."""
    run.make(
        "targets",
        f"""
        SELECT DISTINCT meter_id, register, interval_start, {_slot_sql(run, "interval_start")} AS slot,
            {_kind_sql(run, "interval_start")} AS kind,
               CAST(interval_start AS DATE) AS date
        FROM (
            SELECT meter_id, register, interval_start FROM {run.holes}
            UNION ALL SELECT DISTINCT meter_id, register, left_start FROM {run.holes} WHERE left_kw IS NOT NULL
            UNION ALL SELECT DISTINCT meter_id, register, right_start FROM {run.holes} WHERE right_kw IS NOT NULL
        )
        """,
    )
    run.make(
        "profiles",
        f"""
        WITH fitted AS (
            SELECT t.meter_id, t.register, t.interval_start, p.kw, p.interval_start AS moment, {_like_days_sql(run, "p", "t")} AS is_like,
                   p.date >= t.date - {_any_days(run)} AS is_near,
                   exp(-date_diff('day', p.date, t.date) / {LIKE_DAY_DECAY_DAYS}) AS weight
            FROM {run.targets} t JOIN {run.past} p
            ON p.meter_id = t.meter_id AND p.register = t.register AND p.slot = t.slot
               AND p.date < t.date AND (p.date >= t.date - {_any_days(run)} OR {_like_days_sql(run, "p", "t")})
        ), summed AS (
            SELECT meter_id, register, interval_start,
                   sum(kw * weight) FILTER (WHERE is_like) / sum(weight) FILTER (WHERE is_like) AS like_kw,
                   count(*) FILTER (WHERE is_like) AS like_days,
                   sum(kw * weight) FILTER (WHERE is_near) / sum(weight) FILTER (WHERE is_near) AS any_kw,
                   min(moment) FILTER (WHERE is_like) AS like_from, max(moment) FILTER (WHERE is_like) AS like_to,
                   min(moment) FILTER (WHERE is_near) AS any_from, max(moment) FILTER (WHERE is_near) AS any_to
            FROM fitted GROUP BY meter_id, register, interval_start
        )
        SELECT meter_id, register, interval_start, CASE WHEN like_days >= 2 OR any_kw IS NULL THEN like_kw ELSE any_kw END AS profile_kw,
               CASE WHEN like_days >= 2 OR any_kw IS NULL THEN like_from ELSE any_from END AS basis_from,
               CASE WHEN like_days >= 2 OR any_kw IS NULL THEN like_to ELSE any_to END AS basis_to
        FROM summed
        """,
    )


def _class_levels(run: Run, sound: str) -> None:
    """How a sample of each class stands at a moment against its own like days, as `class_levels`: weather and occasions."""
    older = f"UNION ALL FROM {run.earlier}"
    # Each meter against its own like days: one that is missing, or that is large, moves nothing.
    ahead = f"exp(date_diff('day', DATE '{run.days[0]}', r.date) / {LIKE_DAY_DECAY_DAYS})"
    spans = {"workdays": WORKDAY_PROFILE_DAYS, "days_off": run.rules.profile_days}
    windows = ", ".join(
        f"""{name} AS (PARTITION BY r.meter_id, r.register, r.kind, r.slot ORDER BY r.date
                       RANGE BETWEEN INTERVAL {days} DAYS PRECEDING AND INTERVAL 1 DAY PRECEDING)"""
        for name, days in spans.items()
    )
    run.make(
        "class_levels",
        f"""
        WITH readings AS (
            SELECT s.meter_class, r.meter_id, r.register, r.interval_start, r.date, {_slot_sql(run, "r.interval_start")} AS slot,
                   {_kind_sql(run, "r.interval_start")} AS kind, r.energy_kwh * 60.0 / r.interval_minutes AS kw
            FROM (SELECT meter_id, register, interval_start, interval_minutes, energy_kwh, date FROM {run.believed} WHERE is_ours
                  UNION ALL SELECT meter_id, register, interval_start, interval_minutes, energy_kwh, date FROM ({sound}) {older}) r
            JOIN {run.class_sample} s ON s.meter_id = r.meter_id AND s.register = r.register
        ), held AS (
            SELECT r.*, CASE WHEN r.kind = 1 THEN sum(r.kw * {ahead}) OVER workdays / sum({ahead}) OVER workdays
                             ELSE sum(r.kw * {ahead}) OVER days_off / sum({ahead}) OVER days_off END AS like_kw
            FROM readings r WINDOW {windows}
        )
        SELECT meter_class, register, interval_start, avg(kw) AS kw, count(*) AS n,
               CASE WHEN count(like_kw) >= {CLASS_LEAST} AND sum(like_kw) > 0
                    THEN least(greatest(sum(kw) FILTER (WHERE like_kw IS NOT NULL) / sum(like_kw), 0.3), 3.0) ELSE 1.0 END AS ratio
        FROM held GROUP BY meter_class, register, interval_start
        """,
    )
    run.make(
        "own_levels",
        f"""
        SELECT p.meter_id, p.register, avg(p.kw) AS own_kw, avg(l.kw) AS class_kw
        FROM {run.past} p LEFT JOIN {run.meters} m USING (meter_id)
        JOIN {run.class_levels} l ON l.meter_class = COALESCE(m.meter_class, 'unknown') AND l.register = p.register
            AND l.interval_start = p.interval_start
        GROUP BY p.meter_id, p.register
        """,
    )


def _try_on_like_days(run: Run) -> None:
    """How much a register's deviations last, and how good the straight line is for it, told by its own like days, as `habits`.

    Every like day is held against the mean of the others, with its class's. Deviations one hour apart give the persistence; the middle of a
    gap as long, between readings that are there, gives the weight of the line beside the profile (least squares).
    """
    run.make(
        "asked",
        f"""
        SELECT h.meter_id, h.register, h.date, h.interval_minutes, h.reach, arg_min(t.kind, t.interval_start) AS kind,
               any_value(COALESCE(m.meter_class, 'unknown')) AS meter_class
        FROM (SELECT *, {_reach_sql("n", "interval_minutes")} AS reach FROM {run.holes}) h
        JOIN {run.targets} t USING (meter_id, register, interval_start) LEFT JOIN {run.meters} m USING (meter_id)
        GROUP BY h.meter_id, h.register, h.date, h.interval_minutes, h.reach
        """,
    )
    run.make(
        "habits",
        f"""
        WITH held AS (
            SELECT a.meter_id, a.register, a.date, a.meter_class, a.kind, a.interval_minutes, a.reach, p.interval_start, p.kw,
                   (sum(p.kw) OVER s - p.kw) / nullif(count(*) OVER s - 1, 0) AS like_kw
            FROM {run.asked} a JOIN {run.past} p ON p.meter_id = a.meter_id AND p.register = a.register
                AND p.interval_minutes = a.interval_minutes AND {_like_days_sql(run, "p", "a")}
            WINDOW s AS (PARTITION BY a.meter_id, a.register, a.date, a.interval_minutes, a.reach, p.slot)
        ), deviating AS (
            SELECT h.*, h.kw - h.like_kw * COALESCE(c.ratio, 1) AS d
            FROM held h LEFT JOIN {run.class_levels} c USING (meter_class, register, interval_start)
        ), stepped AS (
            SELECT *, CASE WHEN lag(interval_start, 60 // interval_minutes) OVER w = interval_start - INTERVAL 1 HOUR
                           THEN lag(d, 60 // interval_minutes) OVER w END AS hour_d,
                   lag(interval_start, reach) OVER w = interval_start - to_minutes(reach * interval_minutes)
                   AND lead(interval_start, reach) OVER w = interval_start + to_minutes(reach * interval_minutes) AS is_between,
                   lag(d, reach) OVER w + lead(d, reach) OVER w AS q,
                   kw - (lag(kw, reach) OVER w + lead(kw, reach) OVER w) / 2 AS off_line
            FROM deviating WINDOW w AS (PARTITION BY meter_id, register, date, interval_minutes, reach ORDER BY interval_start)
        ), summed AS (
            SELECT meter_id, register, date, interval_minutes, reach,
                   (sum(d * hour_d) + {PRIOR_SHARE * run.rules.persistence_per_hour} * sum(d * d) FILTER (WHERE hour_d IS NOT NULL))
                   / nullif({1 + PRIOR_SHARE} * sum(d * d) FILTER (WHERE hour_d IS NOT NULL), 0) AS persistence,
                   sum(d * d) FILTER (WHERE is_between) AS dd, sum(d * off_line) FILTER (WHERE is_between) AS dl,
                   sum(d * q) FILTER (WHERE is_between) AS dq, sum(q * off_line) FILTER (WHERE is_between) AS ql,
                   sum(q * q) FILTER (WHERE is_between) AS qq, sum(off_line * off_line) FILTER (WHERE is_between) AS ll
            FROM stepped GROUP BY meter_id, register, date, interval_minutes, reach
        ), bounded AS (
            SELECT * REPLACE (least(greatest(COALESCE(persistence, {run.rules.persistence_per_hour}), 0.05), 0.95) AS persistence)
            FROM summed
        ), bent AS (
            SELECT *, power(persistence, reach * interval_minutes / 60.0) AS r, r / (1 + r * r) AS c FROM bounded
        )
        -- The bridge is off by d - c q in the middle of such a gap, the line by off_line: the weight of the line that is off least.
        SELECT meter_id, register, date, interval_minutes, reach, persistence,
               dd - dl - c * (2 * dq - ql) + c * c * qq AS towards, dd - 2 * dl + ll - 2 * c * (dq - ql) + c * c * qq AS apart
        FROM bent
        """,
    )


def _reach_sql(missing: str, minutes: str) -> str:
    """SQL for how many intervals the middle of a gap lies from its edges; 1 for gaps that no line is tried for."""
    return f"CASE WHEN {missing} * {minutes} <= {LONGEST_LINE_HOURS} * 60 THEN CAST({missing} + 2 AS INTEGER) // 2 ELSE 1 END"


def _bend(run: Run) -> None:
    """Takes profile, class and edges to an estimate."""
    rules = run.rules
    run.make(
        "bases",
        f"""
        SELECT t.meter_id, t.register, t.interval_start, p.basis_from, p.basis_to,
               CASE WHEN p.profile_kw IS NOT NULL
                    THEN p.profile_kw * COALESCE(c.ratio, 1)
                    WHEN c.n >= {CLASS_LEAST} AND o.class_kw > 0 THEN c.kw * o.own_kw / o.class_kw END AS base_kw,
               CASE WHEN p.profile_kw IS NOT NULL THEN 'like_day_profile' WHEN c.n >= {CLASS_LEAST} AND o.class_kw > 0
                   THEN 'class_profile' END AS method
        FROM {run.targets} t
        LEFT JOIN {run.profiles} p USING (meter_id, register, interval_start)
        LEFT JOIN {run.meters} m USING (meter_id)
        LEFT JOIN {run.class_levels} c ON c.meter_class = COALESCE(m.meter_class, 'unknown') AND c.register = t.register
            AND c.interval_start = t.interval_start
        LEFT JOIN {run.own_levels} o ON o.meter_id = t.meter_id AND o.register = t.register
        """,
    )
    run.make(
        "estimates",
        f"""
        WITH based AS (
            SELECT h.*, b.base_kw, b.method, b.basis_from, b.basis_to, h.left_kw - l.base_kw AS left_d, h.right_kw - r.base_kw AS right_d,
                   least(power(COALESCE(t.persistence, {rules.persistence_per_hour}), h.interval_minutes / 60.0), 0.9999) AS rho,
                   h.n + 1 AS big_n,
                   least(greatest((3 * {rules.line_weight_hours} - h.n * h.interval_minutes / 60.0)
                                  / greatest(2 * {rules.line_weight_hours}, 1e-9), 0), 1) AS line_prior,
                   CASE WHEN h.n * h.interval_minutes > {LONGEST_LINE_HOURS} * 60 THEN line_prior WHEN t.apart > 0
                        THEN least(greatest((t.towards / t.apart + {PRIOR_SHARE} * line_prior) / {1 + PRIOR_SHARE}, 0), 1)
                        ELSE line_prior END AS line_weight
            FROM (SELECT *, {_reach_sql("n", "interval_minutes")} AS reach FROM {run.holes}) h
            LEFT JOIN {run.habits} t USING (meter_id, register, date, interval_minutes, reach)
            LEFT JOIN {run.bases} b USING (meter_id, register, interval_start)
            LEFT JOIN {run.bases} l ON l.meter_id = h.meter_id AND l.register = h.register AND l.interval_start = h.left_start
            LEFT JOIN {run.bases} r ON r.meter_id = h.meter_id AND r.register = h.register AND r.interval_start = h.right_start
        ), bent AS (
            SELECT * EXCLUDE (method), line_weight >= 1 AND left_d IS NOT NULL AND right_d IS NOT NULL AS is_line,
                CASE WHEN NOT is_line THEN method END AS method,
                CASE
                    WHEN base_kw IS NOT NULL AND left_d IS NOT NULL AND right_d IS NOT NULL THEN (1 - line_weight) * (base_kw
                        + left_d * (power(rho, k) - power(rho, 2 * big_n - k)) / (1 - power(rho, 2 * big_n))
                        + right_d * (power(rho, big_n - k) - power(rho, big_n + k)) / (1 - power(rho, 2 * big_n)))
                        + line_weight * (left_kw + (right_kw - left_kw) * k / big_n)
                    WHEN base_kw IS NOT NULL AND left_d IS NOT NULL THEN base_kw + left_d * power(rho, k)
                    WHEN base_kw IS NOT NULL AND right_d IS NOT NULL THEN base_kw + right_d * power(rho, big_n - k)
                    WHEN base_kw IS NOT NULL THEN base_kw
                    WHEN n * interval_minutes <= {rules.interpolate_hours} * 60 AND left_kw IS NOT NULL AND right_kw IS NOT NULL
                        THEN left_kw + (right_kw - left_kw) * k / big_n
                END AS kw
            FROM based
        )
        SELECT e.meter_id, e.register, e.interval_start, e.interval_minutes,
               -- A hundredth of what the finest register counts: the order in which sums were taken does not show.
               round(CASE WHEN e.register LIKE 'net%' OR e.register LIKE '%\\_net' ESCAPE '\\' THEN e.kw ELSE greatest(e.kw,
                   0) END * e.interval_minutes / 60.0, 5) AS energy_kwh,
               'estimated' AS quality, COALESCE(f.rule, 'missing_interval') AS rule, COALESCE(e.method, 'linear_interpolation') AS method,
               CASE WHEN e.method IS NOT NULL THEN e.basis_from ELSE e.left_start END AS basis_from,
               CASE WHEN e.method IS NOT NULL THEN e.basis_to ELSE e.right_start END AS basis_to,
               r.energy_kwh AS delivered_kwh, r.file, r.delivery_date, e.date
        FROM bent e LEFT JOIN {run.rows} r ON r.rowid = e.refused_id LEFT JOIN {run.fates} f ON f.id = e.refused_id
            AND f.fate = 'quarantined'
        WHERE e.kw IS NOT NULL
        """,
    )
