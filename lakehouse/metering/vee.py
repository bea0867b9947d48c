"""One run of VEE over some days: which delivered rows are believed, which are put right, what stands for the others.

The run is a sequence of steps in DuckDB, each a temporary table or an insertion into the list of exceptions (`fates`): a row
that is in no exception is believed as it is. Thresholds and the rules on one row are in `rules`, what fills gaps is in
`estimation`. Nothing here reads or writes the lake.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import date, timedelta

import duckdb
import pyarrow as pa

from lakehouse.metering import clocks, estimation, registers, screen
from lakehouse.metering.rules import VeeRules, quality_rank_sql, row_rules

CONTEXT_DAYS = 1
# A register that was dead once in the days of a run hides a later time, and that one another.
MOST_DEAD_SPELLS = 3
# How far a spike that needs no quiet neighbours lies above peak and neighbours.
SURE_EXCESS = 1.2


@dataclass(frozen=True)
class Vee:
    """What a run of VEE found. The relations live as long as the connection, or until `close`.

    Args:
        trusted: rows of cleaned/meter_readings.
        quarantined: rows of quality/quarantine.
        conservation: rows of quality/conservation.
        report: rows of quality/vee_report.
        edits: rows of quality/edits.
        findings: the delivered rows that are not in cleaned as they were delivered, one row each: feed, file, line,
            delivery_date, meter_id, register, delivered_start, fate, rule, reason, date.
        differences: rows of cleaned/register_differences, not yet judged; see `registers.settled`.
        close: drops the run's temporary tables.
    """

    trusted: duckdb.DuckDBPyRelation
    quarantined: duckdb.DuckDBPyRelation
    conservation: duckdb.DuckDBPyRelation
    report: duckdb.DuckDBPyRelation
    edits: duckdb.DuckDBPyRelation
    findings: duckdb.DuckDBPyRelation
    differences: duckdb.DuckDBPyRelation
    close: Callable[[], None]


class Run:
    """The temporary tables of one run, under names of their own.

    Args:
        connection: where they live.
        days: UTC days that are cleaned.
        rules: thresholds.
        time_zone: the site's IANA zone.
    """

    def __init__(self, connection: duckdb.DuckDBPyConnection, days: list[date], rules: VeeRules, time_zone: str) -> None:
        self.connection, self.days, self.rules, self.time_zone = connection, sorted(set(days)), rules, time_zone
        self.prefix = f"vee_{uuid.uuid4().hex[:10]}_"
        self.made: list[str] = []
        self.listed_days = listed_sql(self.days)
        self.past_source = ""
        self.is_ordered = False
        self.sender_estimates: set[str] = set()

    def days_sql(self, column: str) -> str:
        """SQL that is true on the run's days."""
        return dates_sql(column, self.days)

    def name(self, step: str) -> str:
        """The table of a step."""
        return self.prefix + step

    def make(self, step: str, sql: str) -> str:
        """Makes the table of a step and returns its name."""
        self.connection.execute(f"CREATE OR REPLACE TEMP TABLE {self.name(step)} AS {sql}")
        self.made.append(step)
        return self.name(step)

    def take(self, step: str, rows: pa.Table, columns: str = "*") -> str:
        """Makes the table of a step from rows in memory and returns its name."""
        self.connection.register("vee_taken", rows)
        name = self.make(step, f"SELECT {columns} FROM vee_taken{' GROUP BY ALL' if '(' in columns else ''}")
        self.connection.unregister("vee_taken")
        return name

    def execute(self, sql: str) -> None:
        """Runs a statement."""
        self.connection.execute(sql)

    def count(self, sql: str) -> int:
        """The single number that a query gives."""
        return int(self.connection.execute(sql).fetchall()[0][0] or 0)

    def close(self) -> None:
        """Drops the run's tables."""
        for step in self.made:
            self.connection.execute(f"DROP TABLE IF EXISTS {self.name(step)}")
        self.made.clear()

    def __getattr__(self, step: str) -> str:
        if step.startswith("_"):
            raise AttributeError(step)
        return self.name(step)


def listed_sql(days: Iterable[date]) -> str:
    """Days as SQL literals, comma-separated."""
    return ", ".join(f"DATE '{d}'" for d in days)


def dates_sql(column: str, days: Iterable[date]) -> str:
    """SQL that is true on those days; a range where they follow each other, so that scans can skip files."""
    ordered = sorted(set(days))
    if not ordered:
        return "false"
    if len(ordered) == (ordered[-1] - ordered[0]).days + 1:
        return f"{column} BETWEEN DATE '{ordered[0]}' AND DATE '{ordered[-1]}'"
    return f"{column} IN ({listed_sql(ordered)})"


def validate_estimate_edit(
    connection: duckdb.DuckDBPyConnection,
    delivered: str,
    *,
    days: list[date],
    meters: str,
    history: str | None = None,
    reports: str | None = None,
    rules: VeeRules | None = None,
    time_zone: str = "UTC",
    today: date | None = None,
    first_day: date | None = None,
    holidays: Iterable[date] = (),
    earlier_differences: str | None = None,
    around: str | None = None,
    edits_around: str | None = None,
    trust_nothing: bool = False,
) -> Vee:
    """Validates, estimates and edits the readings of some UTC days.

    The result for one day rests on its deliveries and on earlier days, never on the order of rows or files. A range of days
    gives what its days one by one give, except at their borders, where a range also sees the next day.

    Args:
        connection: DuckDB; its session time zone is set to UTC. Temporary tables are made in it.
        delivered: name of a relation with the columns of contracts.raw.RawReadings and `feed`. It should hold the deliveries
            that touch the days whole: the other rows of a file help to judge its dates, units and clock. Rows without a day
            of their own (see `partition_day_sql`) count on the day of their delivery, so the deliveries made on the days
            belong here as well.
        days: UTC days to clean.
        meters: name of a relation like cleaned/meters. Where none of its rows is registered, there is no registry, and no
            meter is unknown.
        history: name of a relation like cleaned/meter_readings that holds earlier days, or None. The last
            max(profile_days, history_days) days are used.
        reports: name of a relation like quality/vee_report with earlier days; where given, a meter's usual levels come from
            it and not from `history`, which saves reading weeks of readings.
        rules: thresholds.
        time_zone: the site's IANA zone, for like days and local hours.
        today: the site's local day; nothing later is expected.
        first_day: the site's first local day; readings of earlier days are refused.
        holidays: local days that are like Sundays.
        earlier_differences: name of a relation like cleaned/register_differences with those that opened before the days, or None.
        around: name of a relation like cleaned/meter_readings with the days before and after, or None: what lies beside the run in the
            span of a register difference.
        edits_around: name of a relation like quality/edits with the same days, or None.
        trust_nothing: looks at every row one by one, also where a quick look shows that no rule can fire; the result is the same.

    Returns:
        The relations; take their rows in batches, then `close`.
    """
    connection.execute("SET TimeZone = 'UTC'")
    run = Run(connection, days, rules or VeeRules(), time_zone)
    run.make("meters", f"SELECT * FROM {meters}")
    run.make("fates", _NO_FATES)
    has_registry = run.count(f"SELECT count(*) FROM {run.meters} WHERE is_registered") > 0
    day = partition_day_sql(first_day, "d")
    beside = {d + timedelta(days=n) for d in run.days for n in (-1, 0, 1)}
    in_days = f"({dates_sql('d.date', beside)} OR {dates_sql('d.delivery_date', run.days)} AND {dates_sql(day, run.days)})"
    _past_levels(run, history, reports)
    off = list(holidays)

    def shifted_files(samples: pa.Table, spans: dict[clocks.FileKey, tuple[int, int]]) -> dict[clocks.FileKey, int]:
        run.take("clock_samples", samples)
        return clocks.shifted_files(run, delivered, _IS_READING, history, off, spans)

    screen.look(run, delivered, has_registry=has_registry, first_day=first_day, shifted=shifted_files, trust_nothing=trust_nothing)
    estimation.heard(run, history, reports)
    _take_rows(run, delivered, in_days, day)
    _shifts(run)
    _move_clocks(run)
    _judge_rows(run, delivered, first_day, has_registry)
    _name_duplicates(run)
    registers.differences(run, earlier_differences)
    _name_overlaps(run)
    _line_up(run, history)
    _levels(run)
    _unit_slips(run)
    # A register dead for longer than a late read can be: its days are no past for the other rules.
    _zero_runs_of(run, longer_than_hours=run.rules.late_read_hours)
    _late_register_reads(run, delivered)
    _beyond_rating(run)
    _spikes(run)
    _stuck_values(run)
    _zero_runs_of(run)
    _believed(run)
    estimation.expected_intervals(run, today)
    sound = sound_readings_sql(run, delivered)
    estimation.estimate(run, history, off, sound)
    registers.share(run, sound, around, edits_around)
    return Vee(
        _trusted(run, delivered),
        _quarantined(run),
        _conservation(run),
        _report(run),
        _edits(run),
        _findings(run),
        _differences(run),
        run.close,
    )


# --- Steps -----------------------------------------------------------------------------------------------------------------

_NO_FATES = """
    SELECT NULL::BIGINT AS id, NULL::VARCHAR AS fate, NULL::VARCHAR AS rule, NULL::VARCHAR AS reason, NULL::DOUBLE AS new_kwh,
           NULL::VARCHAR AS method, NULL::TIMESTAMPTZ AS basis_from, NULL::TIMESTAMPTZ AS basis_to
    LIMIT 0
"""


def partition_day_sql(first_day: date | None = None, row: str = "") -> str:
    """SQL for the day on which a delivered row counts in cleaned and quality tables.

    It is the UTC day of its interval, but the day of its delivery where the row has none, or one that can't be: after the
    delivery (a day of slack for time zones), or more than a day before the site's first.
    """
    dot = f"{row}." if row else ""
    early = f" OR {dot}date < DATE '{first_day - timedelta(days=1)}'" if first_day else ""
    return f"CASE WHEN {dot}date IS NULL OR {dot}date > {dot}delivery_date + 1{early} THEN {dot}delivery_date ELSE {dot}date END"


def _take_rows(run: Run, delivered: str, in_days: str, day: str) -> None:
    """Takes the rows of exceptional days and, for their neighbourhood, those of the days beside them, as `rows`.

    `date` is the day on which a row counts, `read_date` that of its stamp as delivered, and `home` that of its stamp as put
    right. `is_ours` marks the rows that are judged here, by `date`; `at_home` those whose value belongs here, by `home`.
    """
    run.make(
        "wanted",
        f"""
        SELECT DISTINCT meter_id, register, unnest([date - 1, date, date + 1]) AS date
        FROM (FROM {run.exceptional} UNION ALL FROM {run.absent})
        """,
    )
    columns = f"""d.feed, d.file, d.line, d.delivery_date, {day} AS date, d.date AS read_date, d.raw_text, d.fault, d.meter_id, d.register,
        d.interval_start, d.interval_start AS delivered_start, d.date AS home, d.interval_minutes, d.energy_kwh, d.quality,
        {registers.is_difference_sql("d")} AS is_register"""
    is_odd = f"(NOT ({_IS_READING}) OR {day} <> d.date)"
    run.make(
        "rows",
        f"""
        WITH taken AS (
            SELECT {columns}, false AS is_odd FROM {delivered} d SEMI JOIN {run.wanted} w
            ON w.meter_id = d.meter_id AND w.register = d.register AND w.date = d.date
            WHERE NOT {is_odd}
            UNION ALL SELECT {columns}, true FROM {delivered} d WHERE {is_odd} AND {in_days}
        )
        SELECT t.* EXCLUDE (is_odd), {dates_sql("t.date", run.days)} AND (is_odd OR x.meter_id IS NOT NULL) AS is_ours,
               {dates_sql("t.home", run.days)} AND x.meter_id IS NOT NULL AS at_home, NULL::VARCHAR AS rule
        FROM taken t LEFT JOIN {run.exceptional} x ON x.meter_id = t.meter_id AND x.register = t.register AND x.date = t.home
        """,
    )


# A row with all that a reading of an interval needs; others are in quarantine, whatever their day, or differences of register reads.
_IS_READING = f"""d.fault IS NULL AND d.meter_id IS NOT NULL AND d.register IS NOT NULL AND d.energy_kwh IS NOT NULL AND d.date IS NOT NULL
    AND NOT {registers.is_difference_sql("d")}"""


def _shifts(run: Run) -> None:
    """A register whose readings start and end hours beside all others of its file had another clock: they are moved back.

    The shift must be the same at both ends, or be the local clock's own offset at each (local time stamped as UTC on a day
    when the clocks change). It needs the agreement of most of the file's registers, so that one meter's outage is no shift.
    """
    rules = run.rules
    local_opens = f"timezone('{run.time_zone}', CAST(b.opens AS TIMESTAMP))"
    local_closes = f"timezone('{run.time_zone}', CAST(b.closes AS TIMESTAMP))"
    run.make(
        "shifts",
        f"""
        WITH agreeing AS (
            SELECT feed, file, delivery_date, arg_max(opens, (registers, opens)) AS opens, arg_max(closes, (registers, opens)) AS closes,
                   max(registers) AS agree, sum(registers) AS registers
            FROM {run.spans} GROUP BY feed, file, delivery_date
        )
        SELECT b.feed, b.file, b.delivery_date, b.meter_id, b.register, b.opens - u.opens AS shift,
               b.opens - u.opens <> b.closes - u.closes OR b.opens - b.closes = u.opens - u.closes AND {local_opens} = u.opens
                   AND {local_closes} = u.closes AS is_local
        FROM {run.blocks} b JOIN agreeing u USING (feed, file, delivery_date)
        WHERE u.agree >= {rules.shifted_least_registers} AND u.agree * 2 > u.registers AND b.opens <> u.opens
          AND abs(epoch(b.opens) - epoch(u.opens)) BETWEEN 900 AND 14 * 3600
          AND (b.opens - u.opens = b.closes - u.closes OR {local_opens} = u.opens AND {local_closes} = u.closes)
        """,
    )
    # A whole file that is off: local time stamped as UTC where the shift is the local clock's offset.
    offset = f"epoch(CAST(b.opens AS TIMESTAMP)) - epoch(CAST({local_opens} AS TIMESTAMP))"
    run.execute(
        f"""
        INSERT INTO {run.shifts}
        SELECT b.feed, b.file, b.delivery_date, b.meter_id, b.register, to_hours(f.hours) AS shift, {offset} = f.hours * 3600 AS is_local
        FROM {run.blocks} b JOIN {run.shifted_files} f USING (feed, file, delivery_date)
        ANTI JOIN {run.shifts} s ON s.feed = b.feed AND s.file = b.file AND s.delivery_date = b.delivery_date
            AND s.meter_id = b.meter_id AND s.register = b.register
        """
    )


def _move_clocks(run: Run) -> None:
    """Moves the readings of shifted clocks back."""
    if not run.count(f"SELECT count(*) FROM {run.shifts}"):
        return
    run.execute(
        f"""
        UPDATE {run.rows} r
        SET interval_start = CASE WHEN s.is_local THEN timezone('{run.time_zone}', CAST(r.delivered_start AS TIMESTAMP))
            ELSE r.delivered_start - s.shift END,
            rule = 'shifted_clock'
        FROM {run.shifts} s
        WHERE s.feed = r.feed AND s.file = r.file AND s.delivery_date = r.delivery_date AND s.meter_id = r.meter_id
            AND s.register = r.register
          AND r.fault IS NULL AND r.interval_start IS NOT NULL
        """
    )
    run.execute(f"UPDATE {run.rows} SET home = CAST(interval_start AS DATE) WHERE rule = 'shifted_clock'")
    run.execute(f"UPDATE {run.rows} SET at_home = {dates_sql('home', run.days)} WHERE rule = 'shifted_clock'")


def _judge_rows(run: Run, delivered: str, first_day: date | None, has_registry: bool) -> None:
    """Refuses the rows that a rule on a single row refuses, and notes those whose clock was put right."""
    rules = row_rules(run.rules, has_registry=has_registry, first_day=first_day)
    swapped = next(rule for rule in rules if rule.name == "swapped_day_month")
    neighbours = "0"
    if run.count(f"SELECT count(*) FROM (SELECT *, 0 AS neighbour_days FROM {run.rows}) r WHERE {swapped.condition}"):
        run.make("file_days", f"SELECT DISTINCT feed, file, delivery_date, date FROM {delivered} WHERE date IS NOT NULL")
        neighbours = f"""(
            SELECT count(*) FROM {run.file_days} f
            WHERE f.feed = d.feed AND f.file = d.file AND f.delivery_date = d.delivery_date AND f.date <> d.read_date
              AND f.date BETWEEN d.read_date - 2 AND d.read_date + 2)"""
    whens = "WHEN r.fault IS NOT NULL AND r.line = 0 THEN 'unreadable_file'\n" + "\n".join(
        f"WHEN {rule.condition} THEN '{rule.name}'" for rule in rules
    )
    reasons = "\n".join(f"WHEN '{rule.name}' THEN {rule.reason}" for rule in rules)
    run.execute(
        f"""
        INSERT INTO {run.fates} BY NAME
        SELECT id, 'quarantined' AS fate, rule, CASE rule WHEN 'unreadable_file' THEN fault {reasons} END AS reason
        FROM (
            SELECT r.* EXCLUDE (rule), CASE {whens} END AS rule
            FROM (SELECT d.*, d.rowid AS id, {neighbours} AS neighbour_days FROM {run.rows} d) r
            LEFT JOIN {run.meters} m ON m.meter_id = r.meter_id
        ) r WHERE rule IS NOT NULL
        """
    )
    run.execute(
        f"""
        INSERT INTO {run.fates} BY NAME
        SELECT rowid AS id, 'edited' AS fate, 'shifted_clock' AS rule, energy_kwh AS new_kwh,
               'expected the hours of the other meters of the file, or those of its past, found '
               || strftime(delivered_start, '%Y-%m-%d %H:%M') || ' for ' || strftime(interval_start, '%Y-%m-%d %H:%M') || ' UTC' AS reason
        FROM {run.rows} WHERE rule = 'shifted_clock' AND rowid NOT IN (SELECT id FROM {run.fates})
        """
    )
    run.execute(f"UPDATE {run.rows} r SET rule = f.rule FROM {run.fates} f WHERE f.id = r.rowid AND f.fate = 'quarantined'")


# A row that no rule on a single row refused.
STANDING = "(rule IS NULL OR rule = 'shifted_clock')"
ORDER_OF_WINNING = "delivery_date DESC, rank DESC, feed DESC, file DESC, line DESC"


def _name_duplicates(run: Run) -> None:
    """Of several readings of one interval, the later delivery wins, then the better quality, then the later file and line."""
    run.make(
        "contested",
        f"""
        SELECT meter_id, register, interval_start, is_register FROM {run.rows} WHERE {STANDING}
        GROUP BY ALL HAVING count(*) > 1
        """,
    )
    run.make(
        "ranked",
        f"""
        WITH candidates AS (
            SELECT r.rowid AS id, r.*, {quality_rank_sql("r.quality")} AS rank
            FROM {run.rows} r JOIN {run.contested} USING (meter_id, register, interval_start, is_register)
            WHERE {STANDING}
        ), compared AS (
            SELECT *, first_value(energy_kwh) OVER w AS winning_kwh,
                   energy_kwh = first_value(energy_kwh) OVER w AND interval_minutes = first_value(interval_minutes) OVER w
                   AND quality IS NOT DISTINCT FROM first_value(quality) OVER w AS is_winning
            FROM candidates
            WINDOW w AS (PARTITION BY meter_id, register, interval_start, is_register ORDER BY {ORDER_OF_WINNING}
                         ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING)
        )
        -- Of equal rows the first stands: the others repeat it, and the value counts since its first delivery.
        SELECT id, meter_id, register, interval_start, energy_kwh, winning_kwh, home AS date,
               at_home AND NOT is_register AS at_home, is_winning,
               row_number() OVER v = 1 AS stands, first_value(file) OVER v AS winning_file, first_value(delivery_date)
                   OVER v AS winning_delivery
        FROM compared
        WINDOW v AS (PARTITION BY meter_id, register, interval_start, is_register ORDER BY is_winning DESC, delivery_date, feed, file, line
                     ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING)
        """,
    )
    run.execute(f"DELETE FROM {run.fates} WHERE id IN (SELECT id FROM {run.ranked} WHERE NOT stands)")
    run.execute(
        f"""
        INSERT INTO {run.fates} BY NAME
        SELECT id, fate, fate AS rule, 'won by ' || winning_file || ' delivered on ' || winning_delivery AS reason
        FROM (SELECT *, CASE WHEN is_winning THEN 'exact_duplicate' ELSE 'superseded' END AS fate FROM {run.ranked} WHERE NOT stands)
        """
    )


def standing_sql(run: Run, row: str) -> str:
    """SQL that is true for rows that stand so far: neither refused nor beaten."""
    return f"{row}.rowid NOT IN (SELECT id FROM {run.fates} WHERE fate <> 'edited')"


def _name_overlaps(run: Run) -> None:
    """On a day with intervals of several lengths, those that overlap one of the meter's usual length are refused."""
    run.make(
        "mixed",
        f"""
        WITH lengths AS (
            SELECT r.meter_id, r.register, r.home AS date, r.interval_minutes, count(*) * r.interval_minutes AS covered
            FROM {run.rows} r WHERE NOT r.is_register AND {standing_sql(run, "r")}
            GROUP BY r.meter_id, r.register, r.home, r.interval_minutes
        )
        SELECT l.meter_id, l.register, l.date,
               arg_max(l.interval_minutes, (l.interval_minutes IS NOT DISTINCT FROM m.interval_minutes, l.covered,
                   -l.interval_minutes)) AS usual
        FROM lengths l LEFT JOIN {run.meters} m USING (meter_id)
        GROUP BY l.meter_id, l.register, l.date HAVING count(*) > 1
        """,
    )
    run.execute(
        f"""
        INSERT INTO {run.fates} BY NAME
        WITH candidates AS (
            SELECT r.rowid AS id, r.meter_id, r.register, r.interval_start AS opens, r.interval_minutes,
                   r.interval_start + to_minutes(r.interval_minutes) AS closes, r.interval_minutes = x.usual AS is_usual
            FROM {run.rows} r JOIN {run.mixed} x ON x.meter_id = r.meter_id AND x.register = r.register AND x.date = r.home
            WHERE NOT r.is_register AND {standing_sql(run, "r")}
        )
        SELECT o.id, 'quarantined' AS fate, 'overlapping_interval' AS rule,
               'expected intervals of ' || min(u.interval_minutes) || ' minutes, found one of ' || any_value(o.interval_minutes)
               || ' that overlaps them' AS reason
        FROM candidates o JOIN candidates u USING (meter_id, register)
        WHERE NOT o.is_usual AND u.is_usual AND o.opens < u.closes AND u.opens < o.closes
        GROUP BY o.id
        """
    )


def _line_up(run: Run, history: str | None) -> None:
    """Lines up the winners, with the day before each span of days as context (`id` is missing there)."""
    before = {d - timedelta(days=n) for d in run.days for n in range(1, CONTEXT_DAYS + 1)} - set(run.days)
    context = (
        f"""
        UNION ALL
        SELECT NULL, false, h.meter_id, h.register, h.interval_start, h.interval_minutes, h.date, h.energy_kwh,
            COALESCE(h.delivered_kwh, h.energy_kwh)
        FROM {history} h ANTI JOIN delivered d ON d.meter_id = h.meter_id AND d.register = h.register
            AND d.interval_start = h.interval_start
        SEMI JOIN (SELECT DISTINCT meter_id, register FROM delivered) k ON k.meter_id = h.meter_id AND k.register = h.register
        WHERE {dates_sql("h.date", before)}
        """
        if history
        else ""
    )
    run.make(
        "lined",
        f"""
        WITH delivered AS (
            SELECT r.rowid AS id, r.at_home AS is_ours, r.meter_id, r.register, r.interval_start,
                r.interval_minutes, r.home AS date,
                   r.energy_kwh AS value_kwh, r.energy_kwh AS shown_kwh
            FROM {run.rows} r WHERE NOT r.is_register AND {standing_sql(run, "r")}
        )
        FROM delivered
        {context}
        """,
    )


def _past_levels(run: Run, history: str | None, reports: str | None) -> None:
    """The levels of the days before the run, a row a register and day as `past_day_levels`, and in sum as `past_levels`."""
    first = run.days[0] if run.days else date(1970, 1, 1)
    since = first - timedelta(days=run.rules.history_days)
    earlier = f"date >= DATE '{since}' AND date < DATE '{run.days[-1] if run.days else first}' AND NOT ({dates_sql('date', run.days)})"
    columns = _LEVEL_COLUMNS
    if reports:
        past = f"SELECT {columns} FROM {reports} WHERE {earlier} AND mean_kw IS NOT NULL"
    elif history:
        past = _day_levels_sql(run, f"(SELECT *, energy_kwh AS value_kwh FROM {history} WHERE {earlier} AND quality = 'measured')")
    else:
        past = f"SELECT {columns} FROM ({_day_levels_sql(run, _NO_READINGS)}) LIMIT 0"
    if reports and len(run.days) == 1:
        # Read as it lies: a register's past is needed in sum only.
        run.make("past_levels", f"{_PAST_SUMS} FROM ({past}) GROUP BY meter_id, register")
        run.past_source = f"({past})"
        return
    run.make("past_day_levels", f"SELECT {columns} FROM ({past})")
    run.make("past_levels", f"{_PAST_SUMS} FROM {run.past_day_levels} GROUP BY meter_id, register")
    run.past_source = run.past_day_levels


_LEVEL_COLUMNS = """meter_id, register, date, mean_kw, peak_kw, zero_share, repeat_share, longest_zero_hours, lone_peak_kw,
    hours_with_zeros"""
_NO_READINGS = """(SELECT NULL::VARCHAR AS meter_id, NULL::VARCHAR AS register, NULL::DATE AS date, NULL::TIMESTAMPTZ AS interval_start,
                  NULL::INTEGER AS interval_minutes, NULL::DOUBLE AS value_kwh LIMIT 0)"""
# For the quick look alone, from below and quickly: the mean without the highest is at most the second highest, and the least at most the
# third. The ordered values themselves took a million meters twenty seconds.
_PAST_SUMS = """
    SELECT meter_id, register, count(*) AS past_days, median(mean_kw) AS usual_mean_kw,
           CASE WHEN count(peak_kw) > 1 THEN (sum(peak_kw) - max(peak_kw)) / (count(peak_kw) - 1) ELSE max(peak_kw) END AS usual_peak_kw,
           min(lone_peak_kw) AS usual_lone_kw, avg(zero_share) AS usual_zero_share,
           max(longest_zero_hours) AS usual_zero_hours, avg(repeat_share) AS usual_repeat_share,
           bit_or(hours_with_zeros) AS usual_hours_with_zeros"""


def _levels(run: Run) -> None:
    """What is usual for each register before each day, from its own past: `levels`.

    One or two faulty days among them do not count: the mean's level is a median over days, the peak the second highest of the days'
    supported peaks (in which a reading counts no more than `spike_neighbour_factor` times its larger neighbour), and what a reading
    may stand out from its neighbours the third highest of the days. `zero_days` counts, five bits an hour, the days on which an hour
    of the day had a zero.
    """
    ours = _day_levels_sql(run, f"(SELECT * FROM {run.lined} WHERE is_ours)")
    run.make("lined_registers", f"SELECT DISTINCT meter_id, register FROM {run.lined}")
    run.make(
        "day_levels",
        f"""
        {ours} UNION ALL BY NAME SELECT p.*
        FROM (SELECT {_LEVEL_COLUMNS} FROM {run.past_source} UNION ALL SELECT {_LEVEL_COLUMNS} FROM {run.looks} WHERE mean_kw IS NOT NULL) p
        SEMI JOIN {run.lined_registers} k ON k.meter_id = p.meter_id AND k.register = p.register
        """,
    )
    run.make("levels", _usual_sql(run, run.day_levels))


def _levels_again(run: Run, corrected: str) -> None:
    """Takes the levels anew of registers (a query) whose readings were put right."""
    run.make("corrected", f"SELECT DISTINCT meter_id, register FROM ({corrected})")
    beside = f"SEMI JOIN {run.corrected} c ON c.meter_id = l.meter_id AND c.register = l.register"
    run.execute(
        f"""DELETE FROM {run.day_levels} WHERE {dates_sql("date", run.days)}
            AND (meter_id, register) IN (SELECT (meter_id, register) FROM {run.corrected})"""
    )
    run.execute(
        f"""INSERT INTO {run.day_levels} BY NAME {_day_levels_sql(run, f"(SELECT l.* FROM {run.lined} l {beside} WHERE l.is_ours)")}
            UNION ALL BY NAME SELECT l.* FROM (SELECT {_LEVEL_COLUMNS} FROM {run.looks}) l {beside} WHERE mean_kw IS NOT NULL"""
    )
    run.execute(f"DELETE FROM {run.levels} WHERE (meter_id, register) IN (SELECT (meter_id, register) FROM {run.corrected})")
    run.execute(f"INSERT INTO {run.levels} {_usual_sql(run, f'(SELECT l.* FROM {run.day_levels} l {beside})')}")


def _usual_sql(run: Run, day_levels: str) -> str:
    return f"""
        SELECT *, COALESCE(peaks[2], peaks[1]) AS usual_peak_kw, COALESCE(lones[3], lones[-1]) AS usual_lone_kw
        FROM (
            SELECT *, count(*) OVER w AS past_days, median(mean_kw) OVER w AS usual_mean_kw,
                   list_reverse_sort(list(peak_kw) FILTER (WHERE peak_kw IS NOT NULL) OVER w) AS peaks,
                   list_reverse_sort(list(lone_peak_kw) FILTER (WHERE lone_peak_kw IS NOT NULL) OVER w) AS lones,
                   avg(zero_share) OVER w AS usual_zero_share, max(longest_zero_hours) OVER w AS usual_zero_hours,
                   avg(repeat_share) OVER w AS usual_repeat_share,
                   CASE WHEN count(hours_with_zeros) OVER w = count(*) OVER w
                        THEN sum({_spread_sql("hours_with_zeros")}) OVER w END AS zero_days
            FROM {day_levels}
        WINDOW w AS (PARTITION BY meter_id, register ORDER BY date
                         RANGE BETWEEN INTERVAL {run.rules.history_days} DAYS PRECEDING AND INTERVAL 1 DAY PRECEDING)
            QUALIFY {dates_sql("date", run.days)}
        )
        """


def _zero_days_around(counts: str, moment: str) -> str:
    """SQL for the most days of the past on which the hour of a moment, or one beside it, had a zero; see `_spread_sql`."""
    hour = f"CAST(date_part('hour', {moment}) AS INTEGER)"
    return "greatest(" + ", ".join(f"({counts} >> (5 * (({hour} + {h}) % 24))) & 31" for h in (23, 0, 1)) + ")"


def _spread_sql(bits: str) -> str:
    """SQL for a mask of 24 bits with five bits of room for each: sums of up to 31 of them count, hour by hour."""
    return " + ".join(f"(({bits} >> {h}) & 1)::HUGEINT * {32**h}::HUGEINT" for h in range(24))


def _day_levels_sql(run: Run, readings: str) -> str:
    """SQL for the level of each register and day: mean, peak, share of zeros and of repeats, longest run of zeros."""
    # A reading that was refused is no level.
    return f"""
        SELECT meter_id, register, date, avg(kw) AS mean_kw,
               max(least(kw, {run.rules.spike_neighbour_factor} * COALESCE(beside_kw, kw))) AS peak_kw,
                   avg(CAST(value_kwh = 0 AS INTEGER)) AS zero_share,
               avg(CAST(value_kwh = before_kwh AS INTEGER)) FILTER (WHERE value_kwh <> 0 AND before_kwh IS NOT NULL) AS repeat_share,
               COALESCE(max(place - last_use) FILTER (WHERE value_kwh = 0), 0) * any_value(interval_minutes) / 60.0 AS longest_zero_hours,
               max(kw - beside_kw) AS lone_peak_kw,
               CAST(bit_or(CASE WHEN value_kwh = 0 THEN 1 << CAST(date_part('hour', interval_start) AS INTEGER) ELSE 0 END) AS INTEGER)
                   AS hours_with_zeros
        FROM (
            SELECT *, max(CASE WHEN value_kwh <> 0 THEN place ELSE 0 END) OVER (PARTITION BY meter_id, register, date
                ORDER BY place) AS last_use
            FROM (
                SELECT *, value_kwh * 60.0 / interval_minutes AS kw, lag(value_kwh) OVER w AS before_kwh,
                       greatest(lag(value_kwh) OVER w, lead(value_kwh) OVER w) * 60.0 / interval_minutes AS beside_kw, row_number()
                           OVER w AS place
                FROM {readings}
                WINDOW w AS (PARTITION BY meter_id, register, date ORDER BY interval_start)
            )
        )
        GROUP BY meter_id, register, date HAVING count(value_kwh) > 0
    """


def _unit_slips(run: Run) -> None:
    """A day's file of one register at a thousand times (or a thousandth of) its usual level was in another unit: put right.

    The ratio is taken of means over the rows of one file, so that a single spike does not look like a unit.
    """
    decades = run.rules.unit_slip_decades
    run.make(
        "slips",
        f"""
        WITH levels AS (
            SELECT b.*, v.usual_mean_kw, v.usual_zero_share, m.rated_kw
            FROM {run.blocks} b
            LEFT JOIN {run.levels} v ON v.meter_id = b.meter_id AND v.register = b.register
                 AND v.date = CAST(b.opens + (b.closes - b.opens) / 2 AS DATE) AND v.past_days >= {run.rules.least_history_days}
                     AND v.usual_mean_kw > 0
            LEFT JOIN {run.meters} m ON m.meter_id = b.meter_id
        ), judged AS (
            SELECT *, CASE
                WHEN n < 4 OR mean_kw <= 0 THEN NULL
                -- A thousand times an idle level can be an ordinary day: the connection, or the level itself, must rule it out.
                WHEN abs(log10(mean_kw / usual_mean_kw) - 3) < {decades} AND trimmed_kw > mean_kw / 10
                     AND (mean_kw > rated_kw / 2 OR rated_kw IS NULL AND usual_mean_kw > 0.02) THEN 0.001
                WHEN mean_kw > 3 * rated_kw AND is_whole THEN 0.001
                WHEN abs(log10(mean_kw / usual_mean_kw) + 3) < {decades} AND register NOT LIKE 'export%'
                     AND usual_zero_share < {run.rules.zero_usual_share} THEN 1000.0 END AS factor
            FROM levels
        )
        -- A meter's other registers in the same file slipped with it, where their digits allow it.
        SELECT j.feed, j.file, j.delivery_date, j.meter_id, j.register, j.mean_kw, j.usual_mean_kw, COALESCE(j.factor, o.factor) AS factor
        FROM judged j LEFT JOIN (
            SELECT feed, file, delivery_date, meter_id, max(factor) AS factor FROM judged WHERE factor IS NOT NULL GROUP BY ALL
        ) o ON o.feed = j.feed AND o.file = j.file AND o.delivery_date = j.delivery_date AND o.meter_id = j.meter_id AND j.is_whole
        WHERE COALESCE(j.factor, o.factor) IS NOT NULL
        """,
    )
    if not run.count(f"SELECT count(*) FROM {run.slips}"):
        return
    run.make(
        "slipped",
        f"""
        SELECT l.id, r.energy_kwh * s.factor AS new_kwh,
               'expected about ' || COALESCE(round(s.usual_mean_kw, 3)::VARCHAR, 'less than the rating in') || ' kW in the mean, found '
               || round(s.mean_kw, 3) || ': times ' || s.factor AS reason
        FROM {run.lined} l JOIN {run.rows} r ON r.rowid = l.id
        JOIN {run.slips} s ON s.meter_id = r.meter_id AND s.register = r.register AND s.feed = r.feed
                          AND s.file = r.file AND s.delivery_date = r.delivery_date
        """,
    )
    _edit(
        run,
        "unit_slip",
        "SELECT id, new_kwh, NULL::VARCHAR AS method, reason, NULL::TIMESTAMPTZ AS basis_from, "
        f" NULL::TIMESTAMPTZ AS basis_to FROM {run.slipped}",
    )
    _levels_again(run, f"SELECT l.meter_id, l.register FROM {run.lined} l SEMI JOIN {run.slipped} s ON s.id = l.id")


def _edit(run: Run, rule: str, found: str) -> None:
    """Puts readings right that a query finds (id, new_kwh, method, reason, basis_from, basis_to); a later edit replaces an earlier."""
    step = f"put_right_by_{rule}"
    run.make(step, found)
    run.execute(f"DELETE FROM {run.fates} WHERE id IN (SELECT id FROM {run.name(step)})")
    run.execute(f"INSERT INTO {run.fates} BY NAME SELECT *, 'edited' AS fate, '{rule}' AS rule FROM {run.name(step)}")
    # An edited value is no sign of a stuck or a dead register: runs are looked for in what was delivered as it stands.
    shown = "f.new_kwh" if rule == "unit_slip" else "NULL"
    run.execute(f"UPDATE {run.lined} l SET value_kwh = f.new_kwh, shown_kwh = {shown} FROM {run.name(step)} f WHERE f.id = l.id")


def _refuse(run: Run, rule: str, found: str) -> None:
    """Quarantines the readings that a query finds (id, reason); a row that was edited before is edited no longer."""
    step = f"found_{rule}"
    run.make(step, found)
    if run.count(f"SELECT count(*) FROM {run.name(step)}"):
        run.execute(f"DELETE FROM {run.fates} WHERE id IN (SELECT id FROM {run.name(step)})")
        run.execute(f"INSERT INTO {run.fates} BY NAME SELECT id, 'quarantined' AS fate, '{rule}' AS rule, reason FROM {run.name(step)}")
        run.execute(f"UPDATE {run.lined} SET value_kwh = NULL WHERE id IN (SELECT id FROM {run.name(step)})")


def _beyond_rating(run: Run) -> None:
    """More power than the connection can carry."""
    limit = 1 + run.rules.rating_tolerance
    _refuse(
        run,
        "beyond_rating",
        f"""
        SELECT l.id, 'expected at most ' || round(m.rated_kw * {limit}, 3) || ' kW, found '
            || round(l.value_kwh * 60.0 / l.interval_minutes, 3) AS reason
        FROM {run.lined} l JOIN {run.meters} m USING (meter_id)
        WHERE l.is_ours AND abs(l.value_kwh) * 60.0 / l.interval_minutes > m.rated_kw * {limit} AND m.rated_kw > 0
        """,
    )
    if run.count(f"SELECT count(*) FROM {run.found_beyond_rating}"):
        _levels_again(run, f"SELECT l.meter_id, l.register FROM {run.lined} l SEMI JOIN {run.found_beyond_rating} s ON s.id = l.id")


def _late_register_reads(run: Run, delivered: str) -> None:
    """Zeros, then their energy in one reading: the register was read late. The sum is right, its spread is put right.

    Fires only on registers that hardly ever count zero, where the reading is about what the zeros and itself should hold. An import
    register rests while its meter exports: that is no fault.
    """
    run.make("late_reads", _late_reads_sql(run))
    if run.count(f"SELECT count(*) FROM {run.late_reads} l JOIN {run.meters} m USING (meter_id) WHERE m.registers LIKE '%export%'"):
        run.execute(
            f"""
            DELETE FROM {run.late_reads} WHERE (meter_id, opens) IN (
                SELECT (l.meter_id, l.opens) FROM {delivered} d
                JOIN (SELECT DISTINCT meter_id, opens, closes FROM {run.late_reads}) l ON l.meter_id = d.meter_id
                     AND d.interval_start >= l.opens AND d.interval_start < l.closes
                WHERE d.register LIKE 'export%' AND d.energy_kwh > 0 AND {_IS_READING})
            """
        )
    _edit(
        run,
        "late_register_read",
        f"""
        SELECT id, total_kwh / (zeros + 1) AS new_kwh, 'spread_sum' AS method,
               'expected energy in every interval, found ' || zeros || ' without and then ' || total_kwh || ' kWh' AS reason,
               opens AS basis_from, closes AS basis_to
        FROM {run.late_reads}
        """,
    )


def _late_reads_sql(run: Run) -> str:
    rules = run.rules
    ratio = rules.late_read_ratio
    return f"""
        WITH marked AS (
            SELECT l.*, v.usual_zero_share, v.usual_zero_hours, v.past_days, v.usual_peak_kw,
                   CASE WHEN l.value_kwh = 0 THEN {_zero_days_around("v.zero_days", "l.interval_start")} END AS zero_days,
                   COALESCE(sum(CAST(l.value_kwh <> 0 AS INTEGER)) OVER (PARTITION BY l.meter_id, l.register ORDER BY l.interval_start
                            ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), 0) AS block
            FROM {run.lined} l LEFT JOIN {run.levels} v USING (meter_id, register, date)
            WHERE l.value_kwh IS NOT NULL
        ), blocks AS (
            -- A block is the zeros after one reading and the reading that ends them.
            SELECT meter_id, register, block, count(*) FILTER (WHERE value_kwh = 0) AS zeros, sum(value_kwh) AS total_kwh,
                   bool_and(id IS NOT NULL) AS is_delivered, bool_or(value_kwh <> 0) AS is_ended,
                   min(interval_start) AS opens, max(interval_start) AS closes, max(interval_minutes) AS minutes, count(*) AS n,
                   max(usual_zero_share) AS usual_zero_share, max(usual_zero_hours) AS usual_zero_hours,
                   max(past_days) AS past_days, max(usual_peak_kw) AS usual_peak_kw, max(zero_days) AS zero_days
            FROM marked GROUP BY meter_id, register, block
        ), beside AS (
            SELECT *, total_kwh * 60.0 / minutes AS total_kw, total_kwh / n AS share_kwh,
                   COALESCE(lag(total_kwh / n) OVER w, 0) AS before_kwh, COALESCE(lead(total_kwh / n) OVER w, 0) AS after_kwh
            FROM blocks WINDOW w AS (PARTITION BY meter_id, register ORDER BY opens)
        )
        SELECT l.id, b.meter_id, b.zeros, b.total_kwh, b.opens, b.closes
        FROM beside b LEFT JOIN {run.meters} m ON m.meter_id = b.meter_id
        JOIN {run.lined} l ON l.meter_id = b.meter_id AND l.register = b.register AND l.interval_start BETWEEN b.opens AND b.closes
        WHERE b.zeros > 0 AND b.is_ended AND b.is_delivered AND b.closes = b.opens + to_minutes(CAST(b.minutes * (b.n - 1) AS BIGINT))
          AND b.zeros * b.minutes <= {rules.late_read_hours} * 60 AND b.past_days >= {rules.least_history_days}
          AND b.register NOT LIKE 'export%' AND (
              -- A register that hardly ever counts zero: the sum is about what its neighbours let expect.
              b.usual_zero_share < {rules.zero_usual_share} AND b.usual_zero_hours <= b.zeros * b.minutes / 60.0 + 4
              AND b.total_kwh > {rules.late_read_excess} * (b.before_kwh + b.after_kwh) / 2
              AND b.share_kwh BETWEEN (b.before_kwh + b.after_kwh) / 2 / {ratio} AND (b.before_kwh + b.after_kwh) / 2 * {ratio}
              -- One that does so at other hours of the day, as a PV meter: zeros are new there, and the reading stands out on both sides.
              OR b.zero_days <= 1 AND b.total_kwh > {rules.late_read_lone_excess} * greatest(b.before_kwh, b.after_kwh)
              AND least(b.before_kwh, b.after_kwh) > 0 AND b.share_kwh BETWEEN (b.before_kwh + b.after_kwh) / 2 / {ratio}
                  AND (b.before_kwh + b.after_kwh) / 2 * {ratio}
              -- One that never counted zero around that hour: the zeros are the fault, and the reading need not stand out much.
              OR b.zero_days = 0 AND b.past_days >= {rules.spike_least_days}
              AND b.total_kwh > {rules.late_read_least_excess} * (b.before_kwh + b.after_kwh) / 2 AND least(b.before_kwh, b.after_kwh) > 0
              AND b.share_kwh BETWEEN (b.before_kwh + b.after_kwh) / 2 / {ratio} AND (b.before_kwh + b.after_kwh) / 2 * {ratio}
              -- One that often does: the sum can't be one interval's, and its share can. More than the connection carries is a fault of
              -- its own.
              OR b.total_kw <= COALESCE(m.rated_kw * {1 + rules.rating_tolerance}, b.total_kw)
              AND b.total_kw > 1.2 * b.usual_peak_kw AND b.share_kwh * 60.0 / b.minutes <= 1.05 * b.usual_peak_kw
              AND b.before_kwh > 0 AND b.share_kwh BETWEEN least(b.before_kwh, b.after_kwh) / {ratio} AND greatest(b.before_kwh,
                  b.after_kwh) * {ratio}
          )
    """


def _spikes(run: Run) -> None:
    """Above the register's usual peak, and further above both neighbours than it ever is but on its two worst days.

    A Hampel filter compares a value with the median of its neighbourhood by the scale of the neighbourhood; here the scale is what the
    register itself did on the past days, by order statistics that one or two faulty days can't move.
    """
    rules = run.rules
    usual_lone = "COALESCE(v.usual_lone_kw, v.usual_peak_kw)"  # reports of earlier versions do not tell it
    _refuse(
        run,
        "spike",
        f"""
        WITH beside AS (
            SELECT l.*, l.value_kwh * 60.0 / l.interval_minutes AS kw,
                   greatest(lag(l.value_kwh) OVER w, lead(l.value_kwh) OVER w) AS neighbour_kwh
            FROM {run.lined} l WHERE l.value_kwh IS NOT NULL
            WINDOW w AS (PARTITION BY l.meter_id, l.register ORDER BY l.interval_start)
        )
        SELECT b.id, 'expected up to about ' || round(v.usual_peak_kw, 3) || ' kW, the usual peak, and not more than '
                     || round({rules.spike_lone_factor} * {usual_lone}, 3) || ' above both neighbours, found ' || round(b.kw, 3)
                     || ' beside ' || round(COALESCE(b.neighbour_kwh, 0) * 60.0 / b.interval_minutes, 3) AS reason
        FROM beside b JOIN {run.levels} v USING (meter_id, register, date) LEFT JOIN {run.meters} m USING (meter_id)
        WHERE b.is_ours AND v.past_days >= {rules.spike_least_days}
          AND b.kw > COALESCE({rules.spike_rated_share} * m.rated_kw, {rules.spike_least_kw})
          AND b.kw > {rules.spike_factor} * v.usual_peak_kw
          AND b.kw - COALESCE(b.neighbour_kwh, 0) * 60.0 / b.interval_minutes > {rules.spike_lone_factor} * {usual_lone}
          AND (b.value_kwh > {rules.spike_neighbour_factor} * COALESCE(b.neighbour_kwh, 0)
               OR b.kw - COALESCE(b.neighbour_kwh, 0) * 60.0 / b.interval_minutes > {rules.spike_sure_factor} * {usual_lone}
                  AND b.kw > {SURE_EXCESS} * greatest(v.usual_peak_kw, COALESCE(b.neighbour_kwh, 0) * 60.0 / b.interval_minutes)
                  AND COALESCE(b.neighbour_kwh, 0) * 60.0 / b.interval_minutes <= {rules.spike_factor} * v.usual_peak_kw)
        """,
    )


def _runs_sql(run: Run, condition: str) -> str:
    """SQL for the runs of equal readings without a hole, each with its members."""
    return f"""
        WITH stepped AS (
            SELECT l.*, CAST(lag(l.shown_kwh) OVER w IS DISTINCT FROM l.shown_kwh
                             OR lag(l.interval_start + to_minutes(l.interval_minutes)) OVER w IS DISTINCT
                                 FROM l.interval_start AS INTEGER) AS is_new
            FROM {run.lined} l WHERE {condition}
            WINDOW w AS (PARTITION BY l.meter_id, l.register ORDER BY l.interval_start)
        ), numbered AS (
            SELECT *, sum(is_new) OVER (PARTITION BY meter_id, register ORDER BY interval_start ROWS UNBOUNDED PRECEDING) AS run_number
            FROM stepped
        ), measured AS (
            SELECT *, count(*) OVER r AS repeats, first_value(interval_start) OVER (r ORDER BY interval_start) AS run_from
            FROM numbered
            WINDOW r AS (PARTITION BY meter_id, register, run_number)
        )
    """


def _stuck_values(run: Run) -> None:
    """Equal, non-zero readings in a longer run than the register's own rate of repeats explains; the first of them is believed."""
    rules = run.rules
    _refuse(
        run,
        "stuck_value",
        f"""
        {_runs_sql(run, "shown_kwh <> 0")}
        SELECT s.id, 'expected a changing reading, found ' || s.shown_kwh || ' kWh ' || s.repeats || ' times in a row' AS reason
        FROM measured s LEFT JOIN {run.levels} v USING (meter_id, register, date)
        WHERE s.is_ours AND s.interval_start > s.run_from AND s.value_kwh IS NOT NULL
          AND s.repeats >= greatest({rules.stuck_least_repeats},
                1 + ln({rules.stuck_chance}) / ln(least(greatest(CASE WHEN v.past_days >= {rules.least_history_days}
                                                                  THEN v.usual_repeat_share ELSE 0.3 END, 0.01), 0.99)))
        """,
    )


def _zero_runs_of(run: Run, longer_than_hours: float = 0.0) -> None:
    for _ in range(MOST_DEAD_SPELLS):
        if not _zero_runs(run, longer_than_hours):
            break


def _zero_runs(run: Run, longer_than_hours: float) -> bool:
    """Zeros for longer than is usual on an import register: not a PV meter's noon, not an idle charger, not an empty house's hour.

    What a run holds on one day is measured against the register's usual longest run within a day; where a run is too long on
    one day, all of it is refused. The levels are taken anew without it, so that it does not hide a later one.

    Returns:
        Whether any was found.
    """
    rules = run.rules
    _refuse(
        run,
        "zero_run",
        f"""
        {_runs_sql(run, "shown_kwh = 0")},
        idling AS (
            -- A class of which many registers rest for whole days: chargers, pumps, second homes.
            SELECT COALESCE(m.meter_class, 'unknown') AS meter_class
            FROM {run.levels} v LEFT JOIN {run.meters} m USING (meter_id) WHERE v.register NOT LIKE 'export%' AND m.meter_class IS NOT NULL
            GROUP BY ALL HAVING avg(CAST(v.usual_zero_hours >= 20 AS INTEGER)) > {rules.idle_class_share}
        ), portions AS (
            SELECT s.meter_id, s.register, s.run_number, s.date, count(*) * max(s.interval_minutes) / 60.0 AS hours,
                   any_value(v.usual_zero_hours) AS usual_zero_hours
            FROM measured s JOIN {run.levels} v USING (meter_id, register, date) LEFT JOIN {run.meters} m USING (meter_id)
            WHERE v.past_days >= {rules.least_history_days} AND s.register NOT LIKE 'export%'
              AND v.usual_mean_kw * {rules.zero_run_hours} > {rules.zero_least_kwh}
              AND (m.meter_class IS NULL OR m.meter_class = 'unknown' OR m.meter_class NOT IN (SELECT meter_class FROM idling))
            GROUP BY s.meter_id, s.register, s.run_number, s.date
        ), dead AS (
            SELECT meter_id, register, run_number, max(hours) AS hours, arg_max(usual_zero_hours, hours) AS usual_zero_hours
            FROM portions
            WHERE hours >= CASE WHEN usual_zero_hours < 1 THEN {rules.zero_run_hours} ELSE {rules.zero_run_hours_where_usual} END
              AND hours > usual_zero_hours * {rules.zero_run_factor} AND hours > {longer_than_hours}
            GROUP BY meter_id, register, run_number
        )
        SELECT s.id, 'expected at most about ' || round(d.usual_zero_hours, 2) || ' hours without energy in a day, found '
            || round(d.hours, 2) AS reason
        FROM measured s JOIN dead d USING (meter_id, register, run_number)
        WHERE s.is_ours AND s.value_kwh IS NOT NULL
        """,
    )
    if not run.count(f"SELECT count(*) FROM {run.found_zero_run}"):
        return False
    _levels_again(run, f"SELECT l.meter_id, l.register FROM {run.lined} l SEMI JOIN {run.found_zero_run} s ON s.id = l.id")
    return True


def _believed(run: Run) -> None:
    """The readings that stand, measured or edited."""
    run.make(
        "believed",
        f"""
        SELECT r.rowid AS id, r.meter_id, r.register, r.interval_start, r.interval_minutes, COALESCE(f.new_kwh, r.energy_kwh) AS energy_kwh,
               CASE WHEN f.id IS NOT NULL THEN 'edited' WHEN {quality_rank_sql("r.quality")} <= 1 THEN 'estimated'
                   ELSE 'measured' END AS quality,
               CASE WHEN f.id IS NOT NULL THEN f.rule WHEN {quality_rank_sql("r.quality")} <= 1 THEN 'delivered_estimate' END AS rule,
               CASE WHEN f.id IS NULL AND {quality_rank_sql("r.quality")} <= 1 THEN 'by_sender' ELSE f.method END AS method,
               f.basis_from, f.basis_to, CASE WHEN f.id IS NOT NULL THEN r.energy_kwh END AS delivered_kwh, r.file, r.delivery_date,
                   r.home AS date,
               r.at_home AS is_ours
        FROM {run.rows} r LEFT JOIN {run.fates} f ON f.id = r.rowid
        WHERE NOT r.is_register AND (f.id IS NULL OR f.fate = 'edited')
        """,
    )


# --- Results ---------------------------------------------------------------------------------------------------------------


def _trusted(run: Run, delivered: str) -> duckdb.DuckDBPyRelation:
    columns = """meter_id, register, interval_start, interval_minutes, energy_kwh, quality, quality = 'estimated' AS is_estimated, rule,
        method, basis_from, basis_to, delivered_kwh, file, delivery_date, date"""
    order = f"ORDER BY {'date, ' if len(run.days) > 1 else ''}meter_id, register, interval_start"
    others = f"SELECT * EXCLUDE (id, is_ours) FROM {run.believed} WHERE is_ours UNION ALL BY NAME SELECT * FROM {run.estimates}"
    if run.is_ordered and len(run.days) == 1:
        # The sound readings as they come, which is in order, and the others after them: a sort of a million meters is half the work.
        sound = sound_readings_sql(run, delivered)
        return run.connection.sql(f"SELECT {columns} FROM ({sound}) UNION ALL SELECT * FROM (SELECT {columns} FROM ({others}) {order})")
    return run.connection.sql(f"SELECT {columns} FROM ({others} UNION ALL BY NAME {sound_readings_sql(run, delivered)}) {order}")


def sound_readings_sql(run: Run, delivered: str) -> str:
    """SQL for the readings of the sound days, which stand as they were delivered."""
    listed = ", ".join("'" + q.replace("'", "''") + "'" for q in sorted(run.sender_estimates))
    by_sender = f"d.quality IN ({listed})" if listed else "false"
    return f"""
        SELECT d.meter_id, d.register, d.interval_start, d.interval_minutes, d.energy_kwh, CASE WHEN {by_sender} THEN 'estimated'
            ELSE 'measured' END AS quality,
               CASE WHEN {by_sender} THEN 'delivered_estimate' END AS rule, CASE WHEN {by_sender} THEN 'by_sender' END AS method,
               NULL::TIMESTAMPTZ AS basis_from, NULL::TIMESTAMPTZ AS basis_to, NULL::DOUBLE AS delivered_kwh, d.file, d.delivery_date,
                   d.date
        FROM {delivered} d ANTI JOIN {run.exceptional} x ON x.meter_id = d.meter_id AND x.register = d.register AND x.date = d.date
        WHERE {run.days_sql("d.date")} AND {_IS_READING}"""


def _quarantined(run: Run) -> duckdb.DuckDBPyRelation:
    return run.connection.sql(
        f"""
        SELECT r.feed, r.file, r.line, r.delivery_date, f.rule, f.reason, r.raw_text, r.meter_id, r.register,
            r.delivered_start AS interval_start,
               r.interval_minutes, r.energy_kwh, r.date
        FROM {run.rows} r JOIN {run.fates} f ON f.id = r.rowid AND f.fate = 'quarantined'
        WHERE r.is_ours
        ORDER BY r.feed, r.delivery_date, r.file, r.line, r.meter_id, r.register, r.interval_start
        """
    )


def _conservation(run: Run) -> duckdb.DuckDBPyRelation:
    return run.connection.sql(
        f"""
        SELECT feed, file, delivery_date, delivered, cleaned, edited, superseded, exact_duplicates, quarantined,
               delivered = cleaned + edited + superseded + exact_duplicates + quarantined AS is_conserved, date
        FROM (
            SELECT feed, file, delivery_date, date, {", ".join(f"CAST(sum({c}) AS BIGINT) AS {c}" for c in _ACCOUNTS)}
            FROM (
                SELECT r.feed, r.file, r.delivery_date, r.date, count(DISTINCT r.rowid) AS delivered, {_fate_counts_sql("cleaned")}
                FROM {run.rows} r LEFT JOIN {run.fates} f ON f.id = r.rowid
                WHERE r.is_ours
                GROUP BY r.feed, r.file, r.delivery_date, r.date
                UNION ALL
                SELECT feed, file, delivery_date, date, n, n, 0, 0, 0, 0 FROM {run.standing}
            )
            GROUP BY feed, file, delivery_date, date
        )
        ORDER BY feed, delivery_date, file, date
        """
    )


_ACCOUNTS = ("delivered", "cleaned", "edited", "superseded", "exact_duplicates", "quarantined")


def _fate_counts_sql(standing: str) -> str:
    return f"""
        count(*) FILTER (WHERE f.id IS NULL) AS {standing},
        count(*) FILTER (WHERE f.fate = 'edited') AS edited,
        count(*) FILTER (WHERE f.fate = 'superseded') AS superseded,
        count(*) FILTER (WHERE f.fate = 'exact_duplicate') AS exact_duplicates,
        count(*) FILTER (WHERE f.fate = 'quarantined') AS quarantined"""


def _report(run: Run) -> duckdb.DuckDBPyRelation:
    return run.connection.sql(
        f"""
        WITH fates AS (
            SELECT r.meter_id, r.register, r.date, count(*) AS delivered, {_fate_counts_sql("measured")}
            FROM {run.rows} r LEFT JOIN {run.fates} f ON f.id = r.rowid
            WHERE r.is_ours AND r.meter_id IS NOT NULL AND r.register IS NOT NULL AND NOT r.is_register
            GROUP BY r.meter_id, r.register, r.date
        ), found AS (
            SELECT meter_id, register, date, json_group_object(rule, n)::VARCHAR AS findings
            FROM (
                SELECT meter_id, register, date, rule, sum(n) AS n
                FROM (
                    SELECT r.meter_id, r.register, r.date, f.rule, count(*) AS n
                    FROM {run.rows} r JOIN {run.fates} f ON f.id = r.rowid WHERE r.is_ours GROUP BY ALL
                    UNION ALL
                    SELECT meter_id, register, date, 'missing_interval', count(*) FROM {run.gaps} WHERE refused_id IS NULL GROUP BY ALL
                )
                GROUP BY meter_id, register, date, rule ORDER BY rule
            )
            GROUP BY meter_id, register, date
        ), levels AS (
            {_day_levels_sql(run, f"(SELECT *, energy_kwh AS value_kwh FROM {run.believed} WHERE is_ours AND quality = 'measured')")}
        ), energy AS (
            SELECT meter_id, register, date, sum(energy_kwh) AS energy_kwh,
                sum(energy_kwh) FILTER (WHERE quality <> 'measured') AS estimated_kwh,
                   count(*) AS present
            FROM (SELECT meter_id, register, date, energy_kwh, quality FROM {run.believed} WHERE is_ours
                  UNION ALL SELECT meter_id, register, date, energy_kwh, quality FROM {run.estimates})
            GROUP BY meter_id, register, date
        ), gaps AS (
            SELECT meter_id, register, date, count(*) AS gaps FROM {run.gaps} GROUP BY meter_id, register, date
        ), estimated AS (
            SELECT meter_id, register, date, count(*) AS estimated FROM {run.estimates} GROUP BY meter_id, register, date
        ), keys AS (
            SELECT meter_id, register, date FROM fates UNION SELECT meter_id, register, date FROM gaps
        )
        SELECT meter_id, register,
               COALESCE(f.measured, 0) + COALESCE(f.edited, 0) + COALESCE(g.gaps, 0) AS expected,
               COALESCE(f.delivered, 0) AS delivered, COALESCE(f.measured, 0) AS measured, COALESCE(f.edited, 0) AS edited,
               COALESCE(e.estimated, 0) AS estimated, COALESCE(g.gaps, 0) - COALESCE(e.estimated, 0) AS missing,
               COALESCE(f.superseded, 0) AS superseded, COALESCE(f.exact_duplicates, 0) AS exact_duplicates,
               COALESCE(f.quarantined, 0) AS quarantined, x.findings, n.energy_kwh, n.estimated_kwh,
               l.mean_kw, l.peak_kw, l.zero_share, l.repeat_share, l.longest_zero_hours, l.lone_peak_kw, l.hours_with_zeros, date
        FROM keys
        LEFT JOIN fates f USING (meter_id, register, date) LEFT JOIN found x USING (meter_id, register, date)
        LEFT JOIN levels l USING (meter_id, register, date) LEFT JOIN energy n USING (meter_id, register, date)
        LEFT JOIN gaps g USING (meter_id, register, date) LEFT JOIN estimated e USING (meter_id, register, date)
        UNION ALL
        SELECT meter_id, register, n AS expected, n AS delivered, n AS measured, 0 AS edited, 0 AS estimated, 0 AS missing, 0 AS superseded,
               0 AS exact_duplicates, 0 AS quarantined, NULL AS findings, energy_kwh, NULL AS estimated_kwh,
               mean_kw, peak_kw, zero_share, repeat_share, longest_zero_hours, lone_peak_kw, hours_with_zeros, date
        FROM {run.looks}
        ORDER BY date, meter_id, register
        """
    )


def _edits(run: Run) -> duckdb.DuckDBPyRelation:
    """Every value that is not what was delivered first: what it was, what it is, why, and since which delivery."""
    return run.connection.sql(
        f"""
        SELECT meter_id, register, interval_start, delivered_kwh AS was_kwh, energy_kwh AS is_kwh, rule, method,
               delivery_date AS since_delivery, file, date
        FROM (SELECT * EXCLUDE (id, is_ours) FROM {run.believed} WHERE is_ours UNION ALL BY NAME SELECT * FROM {run.estimates})
            WHERE delivered_kwh IS NOT NULL
        UNION ALL
        SELECT DISTINCT meter_id, register, interval_start, energy_kwh, winning_kwh, 'superseded', NULL, winning_delivery, winning_file,
            date
        FROM {run.ranked} WHERE NOT stands AND energy_kwh <> winning_kwh AND at_home
        UNION ALL
        SELECT meter_id, register, interval_start, was_kwh, is_kwh, '{registers.RULE}', '{registers.METHOD}', delivery_date, file, date
        FROM {run.shares}
        ORDER BY date, meter_id, register, interval_start, was_kwh
        """
    )


def _differences(run: Run) -> duckdb.DuckDBPyRelation:
    return run.connection.sql(
        f"""
        SELECT meter_id, register, interval_start, interval_end, register_kwh, NULL::DOUBLE AS interval_kwh, NULL::DOUBLE AS estimated_kwh,
               NULL::INTEGER AS missing_minutes, NULL::VARCHAR AS verdict, file, delivery_date, date
        FROM {run.differences} ORDER BY date, meter_id, register, interval_start
        """
    )


def _findings(run: Run) -> duckdb.DuckDBPyRelation:
    return run.connection.sql(
        f"""
        SELECT r.feed, r.file, r.line, r.delivery_date, r.meter_id, r.register, r.delivered_start, f.fate, f.rule, f.reason, r.date
        FROM {run.rows} r JOIN {run.fates} f ON f.id = r.rowid WHERE r.is_ours
        """
    )


def unreadable(connection: duckdb.DuckDBPyConnection, delivered: str, delivery_dates: list[date]) -> duckdb.DuckDBPyRelation:
    """Rows of quality/quarantine for delivered rows without a readable date; they belong to the day of their delivery.

    Args:
        connection: DuckDB.
        delivered: name of a relation with the columns of any raw shape and `feed`.
        delivery_dates: the deliveries to look at.
    """
    present = set(connection.sql(f"SELECT * FROM {delivered} LIMIT 0").columns)

    def column(name: str, kind: str) -> str:
        return name if name in present else f"NULL::{kind} AS {name}"

    return connection.sql(
        f"""
        SELECT feed, file, line, delivery_date, CASE WHEN line = 0 THEN 'unreadable_file' ELSE 'unreadable_line' END AS rule,
               COALESCE(fault, 'expected a reading with a date, found none') AS reason, raw_text, {column("meter_id", "VARCHAR")},
               {column("register", "VARCHAR")}, {column("interval_start", "TIMESTAMPTZ")}, {column("interval_minutes", "INTEGER")},
               {column("energy_kwh", "DOUBLE")}, delivery_date AS date
        FROM {delivered} WHERE date IS NULL AND {dates_sql("delivery_date", delivery_dates)}
        ORDER BY feed, delivery_date, file, line
        """
    )


def unreadable_conservation(connection: duckdb.DuckDBPyConnection, delivered: str, delivery_dates: list[date]) -> duckdb.DuckDBPyRelation:
    """Rows of quality/conservation for the rows that `unreadable` gives: all of them are in quarantine."""
    return connection.sql(
        f"""
        SELECT feed, file, delivery_date, count(*) AS delivered, 0::BIGINT AS cleaned, 0::BIGINT AS edited, 0::BIGINT AS superseded,
               0::BIGINT AS exact_duplicates, count(*) AS quarantined, true AS is_conserved, delivery_date AS date
        FROM {delivered} WHERE date IS NULL AND {dates_sql("delivery_date", delivery_dates)}
        GROUP BY feed, file, delivery_date ORDER BY feed, delivery_date, file
        """
    )
