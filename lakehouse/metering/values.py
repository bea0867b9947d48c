"""Rules on values, each against the register's own past: units, late reads, ratings, spikes, stuck values, dead registers.

They are tried in the order in which `vee` calls them; what one finds is no past for the next.
"""

from __future__ import annotations

from lakehouse.metering.levels import levels_again, zero_days_around
from lakehouse.metering.run import IS_READING, Run

# A register that was dead once in the days of a run hides a later time, and that one another.
MOST_DEAD_SPELLS = 3
# How far a spike that needs no quiet neighbours lies above peak and neighbours.
SURE_EXCESS = 1.2


def unit_slips(run: Run) -> None:
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
    levels_again(run, f"SELECT l.meter_id, l.register FROM {run.lined} l SEMI JOIN {run.slipped} s ON s.id = l.id")


def late_register_reads(run: Run, delivered: str) -> None:
    """Zeros, then their energy in one reading: the register was read late. The sum is right, its spread is put right.

    Fires where the reading is about what the zeros and itself should hold, and the zeros are no habit of the register. An import
    register rests while its meter exports: that is no fault. Where neither counts, nothing but a late read explains it.
    """
    run.make("late_blocks", _late_blocks_sql(run))
    run.make("late_reads", f"SELECT * FROM {run.late_blocks} WHERE is_telling")
    if run.count(f"SELECT count(*) FROM {run.late_blocks} WHERE has_export"):
        run.make("late_exports", _late_exports_sql(run, delivered))
        run.make(
            "late_reads",
            f"""
            SELECT b.* FROM {run.late_blocks} b LEFT JOIN {run.late_exports} e USING (meter_id, register, opens)
            WHERE COALESCE(e.feeding, 0) = 0 AND (b.is_telling OR e.resting = b.zeros AND e.resting_elsewhere = 0)
            """,
        )
    _edit(
        run,
        "late_register_read",
        f"""
        SELECT l.id, b.total_kwh / (b.zeros + 1) AS new_kwh, 'spread_sum' AS method,
               'expected energy in every interval, found ' || b.zeros || ' without and then ' || b.total_kwh || ' kWh' AS reason,
               b.opens AS basis_from, b.closes AS basis_to
        FROM {run.late_reads} b
        JOIN {run.lined} l ON l.meter_id = b.meter_id AND l.register = b.register AND l.interval_start BETWEEN b.opens AND b.closes
        """,
    )


def _late_exports_sql(run: Run, delivered: str) -> str:
    """What the export registers of such meters did: intervals of the zeros in which they counted, or rested as the import register did.

    `resting_elsewhere` are the other intervals of the same days in which both rested: a register that is too coarse, or a battery that
    holds the meter at zero, has many.
    """
    return f"""
        WITH exports AS (
            SELECT d.meter_id, d.interval_start, d.date, max(d.energy_kwh) AS energy_kwh
            FROM {delivered} d
            SEMI JOIN (
                SELECT meter_id, unnest([CAST(opens AS DATE), CAST(closes AS DATE)]) AS date FROM {run.late_blocks} WHERE has_export
            ) b ON b.meter_id = d.meter_id AND b.date = d.date
            WHERE d.register LIKE 'export%' AND {IS_READING} GROUP BY d.meter_id, d.interval_start, d.date
        )
        SELECT meter_id, register, opens, count(*) FILTER (WHERE is_inside AND energy_kwh > 0) AS feeding,
               count(*) FILTER (WHERE is_inside AND energy_kwh = 0) AS resting,
               count(*) FILTER (WHERE NOT is_inside AND energy_kwh = 0 AND value_kwh = 0) AS resting_elsewhere
        FROM (
            SELECT b.meter_id, b.register, b.opens, e.energy_kwh, l.value_kwh,
                   e.interval_start >= b.opens AND e.interval_start < b.closes AS is_inside
            FROM {run.late_blocks} b
            JOIN exports e ON e.meter_id = b.meter_id AND e.date BETWEEN CAST(b.opens AS DATE) AND CAST(b.closes AS DATE)
            LEFT JOIN {run.lined} l ON l.meter_id = b.meter_id AND l.register = b.register AND l.interval_start = e.interval_start
            WHERE b.has_export
        )
        GROUP BY meter_id, register, opens
    """


def _late_blocks_sql(run: Run) -> str:
    """SQL for zeros and the reading that ends them where that could hold their energy.

    `is_telling` where the register's own past says that the zeros are a fault; else it is one only if the meter's export register
    rested with it.
    """
    rules = run.rules

    def holds(before: str, after: str, excess: float) -> str:
        """SQL for: the reading is above the mean of what lies beside, and its share is about that."""
        mean = f"({before} + {after}) / 2"
        return f"""total_kwh > {excess} * {mean}
            AND share_kwh BETWEEN {mean} / {rules.late_read_ratio} AND {mean} * {rules.late_read_ratio}"""

    def middle(step: str) -> str:
        """SQL for the middle one of the three readings before or after a row."""
        one, other, third = (f"{step}(value_kwh, {n}) OVER t" for n in (1, 2, 3))
        return f"greatest(least({one}, {other}), least(greatest({one}, {other}), {third}))"

    return f"""
        WITH marked AS (
            SELECT l.*, v.usual_zero_share, v.usual_zero_hours, v.past_days, v.usual_peak_kw,
                   CASE WHEN l.value_kwh = 0 THEN {zero_days_around("v.zero_days", "l.interval_start")} END AS zero_days,
                   COALESCE(sum(CAST(l.value_kwh <> 0 AS INTEGER)) OVER (PARTITION BY l.meter_id, l.register ORDER BY l.interval_start
                            ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), 0) AS block,
                   {middle("lag")} AS middle_before, {middle("lead")} AS middle_after
            FROM {run.lined} l LEFT JOIN {run.levels} v USING (meter_id, register, date)
            WHERE l.value_kwh IS NOT NULL
            WINDOW t AS (PARTITION BY l.meter_id, l.register ORDER BY l.interval_start)
        ), blocks AS (
            -- A block is the zeros after one reading and the reading that ends them.
            SELECT meter_id, register, block, count(*) FILTER (WHERE value_kwh = 0) AS zeros, sum(value_kwh) AS total_kwh,
                   bool_and(id IS NOT NULL) AS is_delivered, bool_or(value_kwh <> 0) AS is_ended,
                   min(interval_start) AS opens, max(interval_start) AS closes, max(interval_minutes) AS minutes, count(*) AS n,
                   max(usual_zero_share) AS usual_zero_share, max(usual_zero_hours) AS usual_zero_hours,
                   max(past_days) AS past_days, max(usual_peak_kw) AS usual_peak_kw, max(zero_days) AS zero_days,
                   COALESCE(arg_min(middle_before, interval_start), 0) AS middle_before,
                   COALESCE(arg_max(middle_after, interval_start), 0) AS middle_after
            FROM marked GROUP BY meter_id, register, block
        ), beside AS (
            SELECT *, total_kwh * 60.0 / minutes AS total_kw, total_kwh / n AS share_kwh,
                   -- What one interval beside holds: where a block of zeros lies there, its share.
                   COALESCE(lag(total_kwh / n) OVER w, 0) AS before_kwh, COALESCE(lead(total_kwh / n) OVER w, 0) AS after_kwh,
                   -- The readings directly beside.
                   COALESCE(CASE WHEN lag(closes + to_minutes(minutes)) OVER w = opens THEN lag(total_kwh) OVER w END, 0) AS last_kwh,
                   COALESCE(CASE WHEN lead(n) OVER w = 1 AND closes + to_minutes(minutes) = lead(opens) OVER w THEN lead(total_kwh) OVER w
                       END, 0) AS next_kwh
            FROM blocks WINDOW w AS (PARTITION BY meter_id, register ORDER BY opens)
        ), judged AS (
            SELECT b.*, COALESCE(m.registers LIKE '%export%', false) AS has_export,
                -- A register that hardly ever counts zero: the sum is about what its neighbours let expect.
                usual_zero_share < {rules.zero_usual_share} AND usual_zero_hours <= zeros * minutes / 60.0 + 4
                AND {holds("before_kwh", "after_kwh", rules.late_read_excess)}
                -- One that does so at other hours of the day, as a PV meter: zeros are new there, and the reading stands out on both sides.
                OR zero_days <= 1 AND total_kwh > {rules.late_read_lone_excess} * greatest(before_kwh, after_kwh)
                AND least(before_kwh, after_kwh) > 0 AND {holds("before_kwh", "after_kwh", 1)}
                -- One that never counted zero around that hour: the zeros are the fault, and the reading need not stand out much.
                OR zero_days = 0 AND past_days >= {rules.spike_least_days} AND least(before_kwh, after_kwh) > 0
                AND ({holds("before_kwh", "after_kwh", rules.late_read_least_excess)}
                     OR usual_zero_share = 0 AND least(middle_before, middle_after) > 0  -- it has never counted zero
                     AND {holds("middle_before", "middle_after", rules.late_read_least_excess)})
                -- One that often does: the sum can't be one interval's, and its share can. More than the connection carries is a fault of
                -- its own, unless the register counted on both sides what the share says.
                OR (total_kw <= COALESCE(m.rated_kw * {1 + rules.rating_tolerance}, total_kw) OR least(last_kwh, next_kwh) > 0)
                AND total_kw > 1.2 * usual_peak_kw AND share_kwh * 60.0 / minutes <= 1.05 * usual_peak_kw AND before_kwh > 0
                AND share_kwh BETWEEN least(before_kwh, after_kwh) / {rules.late_read_ratio}
                    AND greatest(before_kwh, after_kwh) * {rules.late_read_ratio} AS is_telling,
                -- What a meter that neither takes nor gives would have counted; see `_late_exports_sql`. A flow that turns round passes
                -- zero, so that a single interval tells less.
                has_export AND {holds("middle_before", "middle_after", rules.late_read_least_excess)}
                AND (zeros > 1 OR total_kwh > {rules.late_read_lone_excess} * greatest(last_kwh, next_kwh)
                     AND least(last_kwh, next_kwh) > 0) AS is_likely
            FROM beside b LEFT JOIN {run.meters} m ON m.meter_id = b.meter_id
            WHERE zeros > 0 AND is_ended AND is_delivered AND closes = opens + to_minutes(CAST(minutes * (n - 1) AS BIGINT))
              AND zeros * minutes <= {rules.late_read_hours} * 60 AND past_days >= {rules.least_history_days}
              AND register NOT LIKE 'export%'
        )
        SELECT meter_id, register, zeros, total_kwh, opens, closes, has_export, COALESCE(is_telling, false) AS is_telling
        FROM judged WHERE is_telling OR is_likely
    """


def beyond_rating(run: Run) -> None:
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
        levels_again(run, f"SELECT l.meter_id, l.register FROM {run.lined} l SEMI JOIN {run.found_beyond_rating} s ON s.id = l.id")


def spikes(run: Run) -> None:
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
                  AND COALESCE(b.neighbour_kwh, 0) * 60.0 / b.interval_minutes <= {rules.spike_factor} * v.usual_peak_kw
               OR b.kw > {rules.spike_far_factor} * greatest(v.usual_peak_kw, COALESCE(b.neighbour_kwh, 0) * 60.0 / b.interval_minutes))
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


def stuck_values(run: Run) -> None:
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


def zero_runs(run: Run, longer_than_hours: float = 0.0) -> None:
    """Refuses runs of zeros, and looks again at what the first ones hid; see `_zero_runs`."""
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
    levels_again(run, f"SELECT l.meter_id, l.register FROM {run.lined} l SEMI JOIN {run.found_zero_run} s ON s.id = l.id")
    return True


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
