"""Rules on delivered rows as rows: which are ours, whose clock was off, which are refused at sight, which beat which.

Values are not judged against the past here; that is in `values`.
"""

from __future__ import annotations

from datetime import date, timedelta

from lakehouse.metering import registers
from lakehouse.metering.rules import quality_rank_sql, row_rules
from lakehouse.metering.run import IS_READING, Run, dates_sql

CONTEXT_DAYS = 1


def take(run: Run, delivered: str, in_days: str, day: str) -> None:
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
    is_odd = f"(NOT ({IS_READING}) OR {day} <> d.date)"
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


def shifts(run: Run) -> None:
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


def move_clocks(run: Run) -> None:
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


def judge(run: Run, delivered: str, first_day: date | None, has_registry: bool) -> None:
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


def name_duplicates(run: Run) -> None:
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


def name_overlaps(run: Run) -> None:
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


def line_up(run: Run, history: str | None) -> None:
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


def believed(run: Run) -> None:
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
