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

from lakehouse.metering import estimation
from lakehouse.metering.rules import VeeRules, quality_rank_sql, row_rules

CONTEXT_DAYS = 1


@dataclass(frozen=True)
class Vee:
    """What a run of VEE found. The relations live as long as the connection, or until `close`.

    Args:
        trusted: rows of cleaned/meter_readings.
        quarantined: rows of quality/quarantine.
        conservation: rows of quality/conservation.
        report: rows of quality/vee_report.
        edits: rows of quality/edits.
        close: drops the run's temporary tables.
    """

    trusted: duckdb.DuckDBPyRelation
    quarantined: duckdb.DuckDBPyRelation
    conservation: duckdb.DuckDBPyRelation
    report: duckdb.DuckDBPyRelation
    edits: duckdb.DuckDBPyRelation
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

    def name(self, step: str) -> str:
        """The table of a step."""
        return self.prefix + step

    def make(self, step: str, sql: str) -> str:
        """Makes the table of a step and returns its name."""
        self.connection.execute(f"CREATE TEMP TABLE {self.name(step)} AS {sql}")
        self.made.append(step)
        return self.name(step)

    def execute(self, sql: str) -> None:
        """Runs a statement."""
        self.connection.execute(sql)

    def count(self, sql: str) -> int:
        """The single number that a query gives."""
        return int((self.connection.execute(sql).fetchone() or (0,))[0] or 0)

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
    holidays: Iterable[date] = (),
) -> Vee:
    """Validates, estimates and edits the readings of some UTC days.

    The result for one day rests on its deliveries and on earlier days, never on the order of rows or files. A range of days
    gives what its days one by one give, except at their borders, where a range also sees the next day.

    Args:
        connection: DuckDB; its session time zone is set to UTC. Temporary tables are made in it.
        delivered: name of a relation with the columns of contracts.raw.RawReadings and `feed`. It should hold the deliveries
            that touch the days whole; rows of other days only help to judge dates. Rows without a date count on the day of
            their delivery, so the deliveries made on the days belong here as well.
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
        holidays: local days that are like Sundays.

    Returns:
        The relations; take their rows in batches, then `close`.
    """
    connection.execute("SET TimeZone = 'UTC'")
    run = Run(connection, days, rules or VeeRules(), time_zone)
    run.make("meters", f"SELECT * FROM {meters}")
    run.make("fates", _NO_FATES)
    _judge_rows(run, delivered)
    _name_duplicates(run)
    _name_overlaps(run)
    _line_up(run, history)
    _levels(run, history, reports)
    _unit_slips(run)
    _beyond_rating(run)
    _late_register_reads(run)
    _spikes(run)
    _stuck_values(run)
    _zero_runs(run)
    _believed(run)
    estimation.expected_intervals(run, history, today)
    estimation.estimate(run, history, holidays)
    return Vee(_trusted(run), _quarantined(run), _conservation(run), _report(run), _edits(run), run.close)


# --- Steps -----------------------------------------------------------------------------------------------------------------

_NO_FATES = """
    SELECT NULL::BIGINT AS id, NULL::VARCHAR AS fate, NULL::VARCHAR AS rule, NULL::VARCHAR AS reason, NULL::DOUBLE AS new_kwh,
           NULL::VARCHAR AS method, NULL::TIMESTAMPTZ AS basis_from, NULL::TIMESTAMPTZ AS basis_to
    LIMIT 0
"""


def _judge_rows(run: Run, delivered: str) -> None:
    """Takes the days' rows and refuses those that a rule on a single row refuses."""
    has_registry = run.count(f"SELECT count(*) FROM {run.meters} WHERE is_registered") > 0
    rules = row_rules(run.rules, has_registry=has_registry)
    in_days = dates_sql("date", run.days)
    swapped = next(rule for rule in rules if rule.name == "swapped_day_month")
    neighbours = "NULL::BIGINT"
    if run.count(f"SELECT count(*) FROM (SELECT *, 0 AS neighbour_days FROM {delivered} WHERE {in_days}) r WHERE {swapped.condition}"):
        run.make("file_days", f"SELECT DISTINCT feed, file, delivery_date, date FROM {delivered} WHERE date IS NOT NULL")
        neighbours = f"""(
            SELECT count(*) FROM {run.file_days} f
            WHERE f.feed = d.feed AND f.file = d.file AND f.delivery_date = d.delivery_date AND f.date <> d.date
              AND f.date BETWEEN d.date - 2 AND d.date + 2)"""
    whens = "WHEN r.fault IS NOT NULL AND r.line = 0 THEN 'unreadable_file'\n" + "\n".join(
        f"WHEN {rule.condition} THEN '{rule.name}'" for rule in rules
    )
    reasons = "\n".join(f"WHEN '{rule.name}' THEN {rule.reason}" for rule in rules)
    run.make(
        "rows",
        f"""
        SELECT r.feed, r.file, r.line, r.delivery_date, COALESCE(r.date, r.delivery_date) AS date, r.raw_text, r.fault, r.meter_id, r.register, r.interval_start,
               r.interval_minutes, r.energy_kwh, r.quality, r.neighbour_days, CASE {whens} END AS rule
        FROM (SELECT d.*, {neighbours} AS neighbour_days FROM {delivered} d
              WHERE {dates_sql("d.date", run.days)} OR (d.date IS NULL AND {dates_sql("d.delivery_date", run.days)})) r
        LEFT JOIN {run.meters} m ON m.meter_id = r.meter_id
        """,
    )
    run.execute(
        f"""
        INSERT INTO {run.fates} BY NAME
        SELECT r.rowid AS id, 'quarantined' AS fate, r.rule, CASE r.rule WHEN 'unreadable_file' THEN r.fault {reasons} END AS reason
        FROM {run.rows} r WHERE r.rule IS NOT NULL
        """
    )


ORDER_OF_WINNING = "delivery_date DESC, rank DESC, feed DESC, file DESC, line DESC"


def _name_duplicates(run: Run) -> None:
    """Of several readings of one interval, the later delivery wins, then the better quality, then the later file and line."""
    run.make(
        "contested",
        f"""
        SELECT meter_id, register, interval_start FROM {run.rows} WHERE rule IS NULL
        GROUP BY ALL HAVING count(*) > 1
        """,
    )
    run.make(
        "ranked",
        f"""
        WITH candidates AS (
            SELECT r.rowid AS id, r.*, {quality_rank_sql("r.quality")} AS rank
            FROM {run.rows} r JOIN {run.contested} USING (meter_id, register, interval_start)
            WHERE r.rule IS NULL
        )
        SELECT id, meter_id, register, interval_start, energy_kwh, interval_minutes, quality, date,
               row_number() OVER w AS place,
               first_value(energy_kwh) OVER w AS winning_kwh,
               first_value(interval_minutes) OVER w AS winning_minutes,
               first_value(quality) OVER w AS winning_quality,
               first_value(file) OVER w AS winning_file,
               first_value(delivery_date) OVER w AS winning_delivery
        FROM candidates
        WINDOW w AS (PARTITION BY meter_id, register, interval_start ORDER BY {ORDER_OF_WINNING}
                     ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING)
        """,
    )
    run.execute(
        f"""
        INSERT INTO {run.fates} BY NAME
        SELECT id, fate, fate AS rule, 'won by ' || winning_file || ' delivered on ' || winning_delivery AS reason
        FROM (
            SELECT *, CASE WHEN energy_kwh = winning_kwh AND interval_minutes = winning_minutes
                                AND quality IS NOT DISTINCT FROM winning_quality
                           THEN 'exact_duplicate' ELSE 'superseded' END AS fate
            FROM {run.ranked} WHERE place > 1
        )
        """
    )


def _name_overlaps(run: Run) -> None:
    """On a day with intervals of several lengths, those that overlap one of the meter's usual length are refused."""
    run.make(
        "mixed",
        f"""
        WITH lengths AS (
            SELECT r.meter_id, r.register, r.date, r.interval_minutes, count(*) * r.interval_minutes AS covered
            FROM {run.rows} r WHERE r.rule IS NULL AND r.rowid NOT IN (SELECT id FROM {run.fates})
            GROUP BY r.meter_id, r.register, r.date, r.interval_minutes
        )
        SELECT l.meter_id, l.register, l.date,
               arg_max(l.interval_minutes, (l.interval_minutes IS NOT DISTINCT FROM m.interval_minutes, l.covered, -l.interval_minutes)) AS usual
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
            FROM {run.rows} r JOIN {run.mixed} x USING (meter_id, register, date)
            WHERE r.rule IS NULL AND r.rowid NOT IN (SELECT id FROM {run.fates})
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
        SELECT NULL, meter_id, register, interval_start, interval_minutes, date, energy_kwh, COALESCE(delivered_kwh, energy_kwh)
        FROM {history} WHERE {dates_sql("date", before)}
        """
        if history
        else ""
    )
    run.make(
        "lined",
        f"""
        SELECT rowid AS id, meter_id, register, interval_start, interval_minutes, date, energy_kwh AS value_kwh, energy_kwh AS shown_kwh
        FROM {run.rows} WHERE rule IS NULL AND rowid NOT IN (SELECT id FROM {run.fates})
        {context}
        """,
    )


def _levels(run: Run, history: str | None, reports: str | None) -> None:
    """What is usual for each register before each day: medians over its own past days, so that faults there do not count."""
    first = run.days[0] if run.days else date(1970, 1, 1)
    since = first - timedelta(days=run.rules.history_days)
    earlier = f"date >= DATE '{since}' AND date < DATE '{run.days[-1] if run.days else first}' AND NOT ({dates_sql('date', run.days)})"
    past = ""
    if reports:
        past = f"""
            UNION ALL
            SELECT meter_id, register, date, mean_kw, peak_kw, zero_share, repeat_share, NULL AS least_kw
            FROM {reports} WHERE {earlier} AND mean_kw IS NOT NULL"""
    elif history:
        measured = f"(SELECT *, energy_kwh AS value_kwh FROM {history} WHERE {earlier} AND quality = 'measured')"
        past = f"UNION ALL {_day_levels_sql(measured)}"
    run.make(
        "levels",
        f"""
        WITH days AS (
            {_day_levels_sql(f"(SELECT * FROM {run.lined} WHERE id IS NOT NULL)")}
            {past}
        )
        SELECT *, count(*) OVER w AS past_days, median(mean_kw) OVER w AS usual_mean_kw, median(peak_kw) OVER w AS usual_peak_kw,
               avg(zero_share) OVER w AS usual_zero_share, avg(repeat_share) OVER w AS usual_repeat_share
        FROM days
        WINDOW w AS (PARTITION BY meter_id, register ORDER BY date
                     RANGE BETWEEN INTERVAL {run.rules.history_days} DAYS PRECEDING AND INTERVAL 1 DAY PRECEDING)
        QUALIFY {dates_sql("date", run.days)}
        """,
    )


def _day_levels_sql(readings: str) -> str:
    """SQL for the level of each register and day: mean, peak, share of zeros and of repeats."""
    return f"""
        SELECT meter_id, register, date, avg(kw) AS mean_kw, max(kw) AS peak_kw, avg(CAST(value_kwh = 0 AS INTEGER)) AS zero_share,
               avg(CAST(value_kwh = before_kwh AS INTEGER)) FILTER (WHERE value_kwh <> 0 AND before_kwh IS NOT NULL) AS repeat_share,
               min(kw) AS least_kw
        FROM (
            SELECT *, value_kwh * 60.0 / interval_minutes AS kw,
                   lag(value_kwh) OVER (PARTITION BY meter_id, register, date ORDER BY interval_start) AS before_kwh
            FROM {readings}
        )
        GROUP BY meter_id, register, date
    """


def _unit_slips(run: Run) -> None:
    """A day's file of one register at a thousand times (or a thousandth of) its usual level was in another unit: put right.

    The ratio is taken of means over the rows of one file, so that a single spike does not look like a unit.
    """
    decades = run.rules.unit_slip_decades
    run.make(
        "slips",
        f"""
        WITH of_file AS (
            SELECT r.meter_id, r.register, r.date, r.feed, r.file, r.delivery_date, count(*) AS n,
                   median(l.value_kwh * 60.0 / l.interval_minutes) AS median_kw, avg(l.value_kwh * 60.0 / l.interval_minutes) AS mean_kw
            FROM {run.lined} l JOIN {run.rows} r ON r.rowid = l.id
            GROUP BY ALL
        )
        SELECT f.*, v.usual_mean_kw, f.mean_kw / v.usual_mean_kw AS ratio,
               CASE WHEN f.mean_kw > v.usual_mean_kw THEN 0.001 ELSE 1000.0 END AS factor
        FROM of_file f JOIN {run.levels} v USING (meter_id, register, date)
        WHERE f.n >= 4 AND f.mean_kw > 0 AND v.usual_mean_kw > 0 AND v.past_days >= {run.rules.least_history_days}
          AND abs(abs(log10(f.mean_kw / v.usual_mean_kw)) - 3) < {decades}
          AND (f.mean_kw < v.usual_mean_kw OR f.median_kw > v.usual_mean_kw * power(10, 3 - {decades}) / 10)
        """,
    )
    if not run.count(f"SELECT count(*) FROM {run.slips}"):
        return
    run.execute(
        f"""
        INSERT INTO {run.fates} BY NAME
        SELECT l.id, 'edited' AS fate, 'unit_slip' AS rule, l.value_kwh * s.factor AS new_kwh,
               'expected about ' || round(s.usual_mean_kw, 3) || ' kW in the mean, found ' || round(s.mean_kw, 3) || ': times ' || s.factor AS reason
        FROM {run.lined} l JOIN {run.rows} r ON r.rowid = l.id
        JOIN {run.slips} s ON s.meter_id = r.meter_id AND s.register = r.register AND s.date = r.date AND s.feed = r.feed
                          AND s.file = r.file AND s.delivery_date = r.delivery_date
        """
    )
    run.execute(
        f"UPDATE {run.lined} SET value_kwh = f.new_kwh, shown_kwh = f.new_kwh FROM {run.fates} f WHERE f.id = {run.lined}.id AND f.rule = 'unit_slip'"
    )


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
        SELECT l.id, 'expected at most ' || round(m.rated_kw * {limit}, 3) || ' kW, found ' || round(l.value_kwh * 60.0 / l.interval_minutes, 3) AS reason
        FROM {run.lined} l JOIN {run.meters} m USING (meter_id)
        WHERE l.id IS NOT NULL AND abs(l.value_kwh) * 60.0 / l.interval_minutes > m.rated_kw * {limit} AND m.rated_kw > 0
        """,
    )


def _late_register_reads(run: Run) -> None:
    """Zeros, then their energy in one reading: the register was read late. The sum is right, its spread is put right.

    Fires only on registers that hardly ever count zero, where the reading is about what the zeros and itself should hold.
    """
    run.make("late_reads", _late_reads_sql(run))
    run.execute(
        f"""
        INSERT INTO {run.fates} BY NAME
        SELECT id, 'edited' AS fate, 'late_register_read' AS rule, total_kwh / (zeros + 1) AS new_kwh, 'spread_sum' AS method,
               'expected energy in every interval, found ' || zeros || ' without and then ' || total_kwh || ' kWh' AS reason,
               opens AS basis_from, closes AS basis_to
        FROM {run.late_reads} WHERE id NOT IN (SELECT id FROM {run.fates})
        """
    )
    run.execute(
        f"""UPDATE {run.lined} SET value_kwh = f.new_kwh, shown_kwh = f.new_kwh FROM {run.fates} f
            WHERE f.id = {run.lined}.id AND f.rule = 'late_register_read'"""
    )


def _late_reads_sql(run: Run) -> str:
    rules = run.rules
    return f"""
        WITH marked AS (
            SELECT l.*, v.usual_zero_share, v.past_days,
                   sum(CAST(l.value_kwh <> 0 AS INTEGER)) OVER before AS block,
                   lag(l.interval_start + to_minutes(l.interval_minutes)) OVER w = l.interval_start AS follows
            FROM {run.lined} l LEFT JOIN {run.levels} v USING (meter_id, register, date)
            WHERE l.value_kwh IS NOT NULL
            WINDOW w AS (PARTITION BY l.meter_id, l.register ORDER BY l.interval_start),
                   before AS (PARTITION BY l.meter_id, l.register ORDER BY l.interval_start ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING)
        ), blocks AS (
            -- A block is the zeros after one reading and the reading that ends them.
            SELECT meter_id, register, COALESCE(block, 0) AS block, count(*) FILTER (WHERE value_kwh = 0) AS zeros, sum(value_kwh) AS total_kwh,
                   bool_and(follows) FILTER (WHERE value_kwh <> 0 OR true) AS is_whole, bool_and(id IS NOT NULL) AS is_ours,
                   min(interval_start) AS opens, max(interval_start) AS closes, max(interval_minutes) AS minutes,
                   max(usual_zero_share) AS usual_zero_share, max(past_days) AS past_days, bool_or(value_kwh <> 0) AS is_ended
            FROM marked GROUP BY meter_id, register, COALESCE(block, 0)
        ), beside AS (
            SELECT *, lag(total_kwh / (zeros + 1)) OVER w AS before_kwh, lead(total_kwh / (zeros + 1)) OVER w AS after_kwh
            FROM blocks WINDOW w AS (PARTITION BY meter_id, register ORDER BY opens)
        )
        SELECT l.id, b.zeros, b.total_kwh, b.opens, b.closes
        FROM beside b JOIN {run.lined} l ON l.meter_id = b.meter_id AND l.register = b.register AND l.interval_start BETWEEN b.opens AND b.closes
        WHERE b.zeros > 0 AND b.is_ended AND b.is_ours AND b.is_whole AND b.zeros * b.minutes <= {rules.late_read_hours} * 60
          AND b.past_days >= {rules.least_history_days} AND b.usual_zero_share < {rules.zero_usual_share}
          AND b.total_kwh / (b.zeros + 1) BETWEEN (COALESCE(b.before_kwh, b.after_kwh) + COALESCE(b.after_kwh, b.before_kwh)) / 2 / {rules.late_read_ratio}
                                              AND (COALESCE(b.before_kwh, b.after_kwh) + COALESCE(b.after_kwh, b.before_kwh)) / 2 * {rules.late_read_ratio}
          AND l.id IS NOT NULL
    """


def _spikes(run: Run) -> None:
    """Far above the register's usual daily peak and above both neighbours (Hampel-like, with the register's own past as scale)."""
    rules = run.rules
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
        SELECT b.id, 'expected up to about ' || round(v.usual_peak_kw, 3) || ' kW, the usual daily peak, found ' || round(b.kw, 3) AS reason
        FROM beside b JOIN {run.levels} v USING (meter_id, register, date)
        WHERE b.id IS NOT NULL AND v.past_days >= {rules.least_history_days} AND b.kw > {rules.spike_least_kw}
          AND b.kw > {rules.spike_factor} * v.usual_peak_kw AND b.value_kwh > {rules.spike_neighbour_factor} * COALESCE(b.neighbour_kwh, 0)
        """,
    )


def _runs_sql(run: Run, condition: str) -> str:
    """SQL for the runs of equal readings without a hole, each with its members."""
    return f"""
        WITH stepped AS (
            SELECT l.*, CAST(lag(l.shown_kwh) OVER w IS DISTINCT FROM l.shown_kwh
                             OR lag(l.interval_start + to_minutes(l.interval_minutes)) OVER w IS DISTINCT FROM l.interval_start AS INTEGER) AS is_new
            FROM {run.lined} l
            WINDOW w AS (PARTITION BY l.meter_id, l.register ORDER BY l.interval_start)
        ), numbered AS (
            SELECT *, sum(is_new) OVER (PARTITION BY meter_id, register ORDER BY interval_start ROWS UNBOUNDED PRECEDING) AS run_number
            FROM stepped
        ), measured AS (
            SELECT *, count(*) OVER r AS repeats, first_value(interval_start) OVER (r ORDER BY interval_start) AS run_from
            FROM numbered WHERE {condition}
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
        WHERE s.id IS NOT NULL AND s.interval_start > s.run_from AND s.value_kwh IS NOT NULL
          AND s.repeats >= greatest({rules.stuck_least_repeats},
                1 + ln({rules.stuck_chance}) / ln(least(greatest(CASE WHEN v.past_days >= {rules.least_history_days}
                                                                  THEN v.usual_repeat_share ELSE 0.3 END, 0.01), 0.99)))
        """,
    )


def _zero_runs(run: Run) -> None:
    """Zeros for hours on a register that hardly ever counts none: not a PV meter's night, not an empty house's register."""
    rules = run.rules
    _refuse(
        run,
        "zero_run",
        f"""
        {_runs_sql(run, "shown_kwh = 0")}
        SELECT s.id, 'expected energy, as on all but ' || round(100 * v.usual_zero_share, 1) || ' % of the past, found '
                     || s.repeats || ' intervals without' AS reason
        FROM measured s JOIN {run.levels} v USING (meter_id, register, date)
        WHERE s.id IS NOT NULL AND s.value_kwh IS NOT NULL AND s.repeats * s.interval_minutes >= {rules.zero_run_hours} * 60
          AND v.past_days >= {rules.least_history_days} AND v.usual_zero_share < {rules.zero_usual_share}
        """,
    )


def _believed(run: Run) -> None:
    """The readings that stand, measured or edited."""
    run.make(
        "believed",
        f"""
        SELECT r.rowid AS id, r.meter_id, r.register, r.interval_start, r.interval_minutes, COALESCE(f.new_kwh, r.energy_kwh) AS energy_kwh,
               CASE WHEN f.id IS NULL THEN 'measured' ELSE 'edited' END AS quality, f.rule, f.method, f.basis_from, f.basis_to,
               CASE WHEN f.id IS NOT NULL THEN r.energy_kwh END AS delivered_kwh, r.file, r.delivery_date, r.date
        FROM {run.rows} r LEFT JOIN {run.fates} f ON f.id = r.rowid
        WHERE f.id IS NULL OR f.fate = 'edited'
        """,
    )


# --- Results ---------------------------------------------------------------------------------------------------------------


def _trusted(run: Run) -> duckdb.DuckDBPyRelation:
    return run.connection.sql(
        f"""
        SELECT meter_id, register, interval_start, interval_minutes, energy_kwh, quality, quality = 'estimated' AS is_estimated, rule, method,
               basis_from, basis_to, delivered_kwh, file, delivery_date, date
        FROM (SELECT * EXCLUDE (id) FROM {run.believed} UNION ALL BY NAME SELECT * FROM {run.estimates})
        ORDER BY date, meter_id, register, interval_start
        """
    )


def _quarantined(run: Run) -> duckdb.DuckDBPyRelation:
    return run.connection.sql(
        f"""
        SELECT r.feed, r.file, r.line, r.delivery_date, f.rule, f.reason, r.raw_text, r.meter_id, r.register, r.interval_start, r.interval_minutes,
               r.energy_kwh, r.date
        FROM {run.rows} r JOIN {run.fates} f ON f.id = r.rowid AND f.fate = 'quarantined'
        ORDER BY r.feed, r.delivery_date, r.file, r.line, r.meter_id, r.register, r.interval_start
        """
    )


def _conservation(run: Run) -> duckdb.DuckDBPyRelation:
    return run.connection.sql(
        f"""
        SELECT feed, file, delivery_date, delivered, cleaned, edited, superseded, exact_duplicates, quarantined,
               delivered = cleaned + edited + superseded + exact_duplicates + quarantined AS is_conserved, date
        FROM (
            SELECT r.feed, r.file, r.delivery_date, r.date, count(DISTINCT r.rowid) AS delivered, {_fate_counts_sql("cleaned")}
            FROM {run.rows} r LEFT JOIN {run.fates} f ON f.id = r.rowid
            GROUP BY r.feed, r.file, r.delivery_date, r.date
        )
        ORDER BY feed, delivery_date, file, date
        """
    )


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
            WHERE r.meter_id IS NOT NULL AND r.register IS NOT NULL
            GROUP BY r.meter_id, r.register, r.date
        ), found AS (
            SELECT meter_id, register, date, json_group_object(rule, n)::VARCHAR AS findings
            FROM (
                SELECT meter_id, register, date, rule, sum(n) AS n
                FROM (
                    SELECT r.meter_id, r.register, r.date, f.rule, count(*) AS n
                    FROM {run.rows} r JOIN {run.fates} f ON f.id = r.rowid GROUP BY ALL
                    UNION ALL
                    SELECT meter_id, register, date, 'missing_interval', count(*) FROM {run.gaps} WHERE refused_id IS NULL GROUP BY ALL
                )
                GROUP BY meter_id, register, date, rule ORDER BY rule
            )
            GROUP BY meter_id, register, date
        ), levels AS (
            {_day_levels_sql(f"(SELECT *, energy_kwh AS value_kwh FROM {run.believed} WHERE quality = 'measured')")}
        ), energy AS (
            SELECT meter_id, register, date, sum(energy_kwh) AS energy_kwh, sum(energy_kwh) FILTER (WHERE quality <> 'measured') AS estimated_kwh,
                   count(*) AS present
            FROM (SELECT meter_id, register, date, energy_kwh, quality FROM {run.believed}
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
               l.mean_kw, l.peak_kw, l.zero_share, l.repeat_share, date
        FROM keys
        LEFT JOIN fates f USING (meter_id, register, date) LEFT JOIN found x USING (meter_id, register, date)
        LEFT JOIN levels l USING (meter_id, register, date) LEFT JOIN energy n USING (meter_id, register, date)
        LEFT JOIN gaps g USING (meter_id, register, date) LEFT JOIN estimated e USING (meter_id, register, date)
        ORDER BY date, meter_id, register
        """
    )


def _edits(run: Run) -> duckdb.DuckDBPyRelation:
    """Every value that is not what was delivered first: what it was, what it is, why, and since which delivery."""
    return run.connection.sql(
        f"""
        SELECT meter_id, register, interval_start, delivered_kwh AS was_kwh, energy_kwh AS is_kwh, rule, method,
               delivery_date AS since_delivery, file, date
        FROM (SELECT * EXCLUDE (id) FROM {run.believed} UNION ALL BY NAME SELECT * FROM {run.estimates}) WHERE delivered_kwh IS NOT NULL
        UNION ALL
        SELECT meter_id, register, interval_start, energy_kwh, winning_kwh, 'superseded', NULL, winning_delivery, winning_file, date
        FROM {run.ranked} WHERE place > 1 AND energy_kwh <> winning_kwh
        ORDER BY date, meter_id, register, interval_start, was_kwh
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
