"""One run of VEE over some days: which delivered rows are believed, which are put right, what stands for the others.

The run is a sequence of steps in DuckDB, each a temporary table or an insertion into the list of exceptions (`fates`): a row
that is in no exception is believed as it is. The order of the steps is here; `screen` tells the days that need none of them, `rows`
and `values` hold the rules, `levels` what is usual, `clocks` whole files that are off, `estimation` what fills gaps, `registers` what
registers counted, `outcome` the results. Nothing here reads or writes the lake.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import date, timedelta

import duckdb
import pyarrow as pa

from lakehouse.metering import clocks, estimation, levels, outcome, registers, rows, screen, values
from lakehouse.metering.rules import VeeRules
from lakehouse.metering.run import IS_READING, Run, dates_sql, partition_day_sql


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
    levels.past(run, history, reports)
    off = list(holidays)

    def shifted_files(samples: pa.Table, spans: dict[clocks.FileKey, tuple[int, int]]) -> dict[clocks.FileKey, int]:
        run.take("clock_samples", samples)
        return clocks.shifted_files(run, delivered, IS_READING, history, off, spans)

    screen.look(run, delivered, has_registry=has_registry, first_day=first_day, shifted=shifted_files, trust_nothing=trust_nothing)
    estimation.heard(run, history, reports)
    rows.take(run, delivered, in_days, day)
    rows.shifts(run)
    rows.move_clocks(run)
    rows.judge(run, delivered, first_day, has_registry)
    rows.name_duplicates(run)
    registers.differences(run, earlier_differences)
    rows.name_overlaps(run)
    rows.line_up(run, history)
    levels.usual(run)
    values.unit_slips(run)
    # A register dead for longer than a late read can be: its days are no past for the other rules.
    values.zero_runs(run, longer_than_hours=run.rules.late_read_hours)
    values.late_register_reads(run, delivered)
    values.beyond_rating(run)
    values.spikes(run)
    values.stuck_values(run)
    values.zero_runs(run)
    rows.believed(run)
    estimation.expected_intervals(run, today)
    sound = outcome.sound_readings_sql(run, delivered)
    estimation.estimate(run, history, off, sound)
    registers.share(run, sound, around, edits_around)
    return Vee(
        outcome.trusted(run, delivered),
        outcome.quarantined(run),
        outcome.conservation(run),
        outcome.report(run),
        outcome.edits(run),
        outcome.findings(run),
        outcome.differences(run),
        run.close,
    )


_NO_FATES = """
    SELECT NULL::BIGINT AS id, NULL::VARCHAR AS fate, NULL::VARCHAR AS rule, NULL::VARCHAR AS reason, NULL::DOUBLE AS new_kwh,
           NULL::VARCHAR AS method, NULL::TIMESTAMPTZ AS basis_from, NULL::TIMESTAMPTZ AS basis_to
    LIMIT 0
"""
