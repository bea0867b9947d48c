"""From delivered series to trusted ones: which of several values wins, which is not believed, and where every row went.

Cleans load, generation, prices, weather and the forecasts of others. No value is estimated here: what is not believed is missing
afterwards. Interval readings of meters are `lakehouse.metering`'s.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date

import duckdb
import pyarrow as pa

from lakehouse.contracts.base import Table
from lakehouse.contracts.cleaned import INTERVAL_MINUTES, ExternalForecasts, Generation, Load, SeriesTable, Weather, prices_in
from lakehouse.contracts.quality import Codes, Conservation, Quarantine
from lakehouse.contracts.raw import RAW_TEXT_LIMIT

CONTEXT_DAYS_BEFORE = 28
CONTEXT_DAYS_AFTER = 1
FEWEST_DAYS_FOR_SPIKES = 14
SPIKE_FACTOR = 6.0

Limits = Mapping[str, tuple[float | None, float | None]]

RULES: dict[str, str] = {
    "unreadable_file": "Nothing of the file could be read in the feed's format.",
    "unreadable_line": "The line or value could not be read in the feed's format.",
    "unknown_quantity": "The quantity belongs to no cleaned table of this site, or the price is in another currency.",
    "wrong_interval_length": "The interval's length is none that the lake keeps.",
    "misaligned_interval": "The interval does not start where the series' other intervals of that length start.",
    "outside_limits": "The value lies outside the physical limits of its quantity.",
    "superseded": "Another value of the same interval was delivered later.",
    "mixed_resolution": "The hour was delivered in intervals of several lengths; the one that covers more of it stands.",
    "spike": "The value stands out from the intervals around it as the series has not done for four weeks.",
}
"""The rules of this room in the order in which they are tried; the first that refuses a row names it. Names that meter readings know as
well mean the same there."""

OWN_RULES = ("unknown_quantity", "outside_limits", "mixed_resolution")


@dataclass(frozen=True)
class SpikeLimit:
    """The smallest step that can be a spike: an absolute one, or a share of the largest value of the last four weeks."""

    absolute: float = 0.0
    share_of_largest: float = 0.0


SPIKE_LIMITS: dict[str, SpikeLimit] = {
    "load_mw": SpikeLimit(share_of_largest=0.15),
    "generation_mw": SpikeLimit(share_of_largest=0.5),
    "temperature_c": SpikeLimit(absolute=8.0),
    "pressure_hpa": SpikeLimit(absolute=15.0),
    "wind_speed_m_per_s": SpikeLimit(absolute=15.0),
}
"""Prices, rain, cloud and sunshine do jump; they have physical limits only."""


@dataclass(frozen=True)
class Cleaned:
    """What cleaning made of delivered series. All relations live in the caller's connection.

    Args:
        trusted: by table name (`cleaned/load`, `cleaned/generation`, `cleaned/prices`, `cleaned/external_forecasts`,
            `cleaned/weather`), in the shape of its contract; empty relations for tables without rows.
        quarantined: in the shape of `quality.Quarantine`, one row per refused row; `meter_id` names the series, `register` the
            quantity (followed by "forecast" for one).
        conservation: in the shape of `quality.Conservation`. Its unit is the delivered row, so a wide file's line counts once
            for each of its values. `superseded` rows are listed in `quarantined` under that rule and counted apart.
    """

    trusted: Mapping[str, duckdb.DuckDBPyRelation]
    quarantined: duckdb.DuckDBPyRelation
    conservation: duckdb.DuckDBPyRelation


def tables_for(currency: str = "EUR") -> dict[str, type[Table]]:
    """The contracts that `clean_series` fills, by name, for a site's currency."""
    return {t.name: t for t in (Load, Generation, prices_in(currency), Weather, ExternalForecasts)}


def quantities_for(currency: str = "EUR") -> dict[str, str]:
    """The table of each measured quantity."""
    weather = {q: Weather.name for q in Weather.columns if q not in SeriesTable.columns and q not in ("delivery_date", "date", *_KEYS)}
    return {"load_mw": Load.name, "generation_mw": Generation.name, _price_column(currency): "cleaned/prices"} | weather


def limits_for(currency: str = "EUR") -> dict[str, tuple[float | None, float | None]]:
    """Physical limits of each quantity, as its contract states them."""
    contracts = tables_for(currency)
    found = {q: (contracts[t].columns[q].ge, contracts[t].columns[q].le) for q, t in quantities_for(currency).items()}
    return {q: (low, high) for q, (low, high) in found.items() if low is not None or high is not None}


def _narrowed(limits: Limits, closer: Limits) -> Limits:
    """The closer of two limits on each side: the contracts' hold in any case."""
    found = dict(limits)
    for quantity, (low, high) in closer.items():
        least, most = limits.get(quantity, (None, None))
        found[quantity] = (
            max((v for v in (low, least) if v is not None), default=None),
            min((v for v in (high, most) if v is not None), default=None),
        )
    return found


def codes() -> pa.Table:
    """The rows of `quality/codes` for the rules that only series know; the others are shared with meter readings."""
    rows = [{"code": name, "kind": "validation", "description": RULES[name], "action": "quarantined", "source": None} for name in OWN_RULES]
    return Codes.conform(pa.Table.from_pylist(rows, schema=Codes.arrow_schema()))


def clean_series(
    connection: duckdb.DuckDBPyConnection,
    delivered: str,
    *,
    currency: str = "EUR",
    days: tuple[date, date] | None = None,
    limits: Limits | None = None,
    spike_limits: Mapping[str, SpikeLimit] = SPIKE_LIMITS,
) -> Cleaned:
    """Cleans delivered series of all quantities at once.

    A row is refused by the first of `RULES` that catches it. Of the rows of one interval that are left, the newest delivery
    wins, then the later file by name, then the later line; rows that repeat the winner's value are exact duplicates, others are
    superseded. Spikes are looked for among the winners.

    Args:
        connection: where `delivered` lives; time zone must be UTC (`SET TimeZone = 'UTC'`).
        delivered: name of a relation with the columns of `raw.RawSeries` and `feed`.
        currency: the site's currency, which names the price column.
        days: first and last UTC day to give back; None for all. Rows of other days are context: hand in those of the
            `CONTEXT_DAYS_BEFORE` days before and `CONTEXT_DAYS_AFTER` after, so that a day cleans the same alone and in a range.
            A row that has no day of its own counts as one of its delivery date.
        limits: (smallest, largest) by quantity, where a site knows them closer than `limits_for`; None on a side leaves it as it is.
        spike_limits: quantities whose spikes are looked for; none: {}.

    Returns:
        Trusted tables, quarantine and conservation of those days.
    """
    name = f"series_{uuid.uuid4().hex[:12]}"
    first, last = days or (date.min, date.max)
    _number(connection, delivered, name, currency)
    _judge(connection, name, _narrowed(limits_for(currency), limits or {}))
    _choose(connection, name)
    _find_spikes(connection, name, spike_limits)
    connection.execute(
        f"""
        CREATE TEMP VIEW {name}_fate AS
        SELECT f.feed, f.file, r.line, f.delivery_date, r.date, r.fault, r.raw_text, s.series_id, s.quantity, s.is_forecast, s.table_name,
               r.interval_start, r.interval_minutes, r.value, x.rule, x.reason
        FROM {name}_rows r JOIN {name}_files f USING (file_key) JOIN {name}_series s USING (series_key)
        LEFT JOIN {name}_refused x ON x.row = r.rowid
        WHERE r.date BETWEEN DATE '{first}' AND DATE '{last}'
        """
    )
    trusted = {contract.name: _trusted(connection, f"{name}_fate", contract) for contract in tables_for(currency).values()}
    return Cleaned(trusted, _quarantined(connection, f"{name}_fate"), _conservation(connection, f"{name}_fate"))


_KEYS = ("series_id", "interval_start", "interval_minutes")


def _price_column(currency: str) -> str:
    return f"price_{currency.lower()}_per_mwh"


def _number(connection: duckdb.DuckDBPyConnection, delivered: str, name: str, currency: str) -> None:
    """Numbers files, series and rows, so that what is sorted and kept later is narrow."""
    quantities = quantities_for(currency)
    connection.register(f"{name}_tables", pa.table({"quantity": list(quantities), "table_name": list(quantities.values())}))
    connection.execute(
        f"""
        CREATE TEMP TABLE {name}_files AS
        SELECT *, CAST(row_number() OVER (ORDER BY delivery_date, file, feed) AS INTEGER) AS file_key
        FROM (SELECT DISTINCT feed, file, delivery_date FROM {delivered})
        """
    )
    connection.execute(
        f"""
        CREATE TEMP TABLE {name}_series AS
        SELECT series_id, quantity, is_forecast, CAST(row_number() OVER () AS INTEGER) AS series_key,
               CASE WHEN table_name IS NULL THEN NULL WHEN is_forecast THEN '{ExternalForecasts.name}' ELSE table_name END AS table_name
        FROM (SELECT DISTINCT series_id, quantity, coalesce(is_forecast, false) AS is_forecast FROM {delivered})
        LEFT JOIN {name}_tables USING (quantity)
        """
    )
    connection.execute(
        f"""
        CREATE TEMP TABLE {name}_rows AS
        SELECT f.file_key, s.series_key, d.line, coalesce(d.date, d.delivery_date) AS date, d.interval_start, d.interval_minutes, d.value,
               d.fault, d.raw_text
        FROM {delivered} d
        JOIN {name}_files f ON (f.feed, f.file, f.delivery_date) = (d.feed, d.file, d.delivery_date)
        JOIN {name}_series s ON s.series_id IS NOT DISTINCT FROM d.series_id AND s.quantity IS NOT DISTINCT FROM d.quantity
                            AND s.is_forecast = coalesce(d.is_forecast, false)
        """
    )
    connection.unregister(f"{name}_tables")
    connection.execute(f"CREATE TEMP TABLE {name}_refused (row BIGINT, rule VARCHAR, reason VARCHAR)")


def _judge(connection: duckdb.DuckDBPyConnection, name: str, limits: Limits) -> None:
    """Refuses rows by the rules that need one row only; the first that applies names it."""
    named = pa.table(
        {
            "quantity": pa.array(list(limits), pa.string()),
            "low": pa.array([low for low, _ in limits.values()], pa.float64()),
            "high": pa.array([high for _, high in limits.values()], pa.float64()),
        }
    )
    connection.register(f"{name}_limits", named)
    lengths = ", ".join(str(m) for m in INTERVAL_MINUTES)
    connection.execute(
        f"""
        INSERT INTO {name}_refused
        WITH grids AS (
            SELECT series_key, interval_minutes, mode(epoch(interval_start) % (60 * interval_minutes)) AS phase
            FROM {name}_rows WHERE interval_minutes IN ({lengths}) AND interval_start IS NOT NULL GROUP BY ALL
        ), judged AS (
            SELECT r.rowid AS row, r.fault, r.value, r.interval_start, r.interval_minutes, s.quantity, l.low, l.high,
                CASE WHEN r.fault IS NOT NULL OR r.value IS NULL OR r.interval_start IS NULL OR s.series_id IS NULL
                         THEN CASE WHEN r.line = 0 THEN 'unreadable_file' ELSE 'unreadable_line' END
                     WHEN s.table_name IS NULL THEN 'unknown_quantity'
                     WHEN r.interval_minutes IS NULL OR r.interval_minutes NOT IN ({lengths}) THEN 'wrong_interval_length'
                     WHEN epoch(r.interval_start) % (60 * r.interval_minutes) <> g.phase THEN 'misaligned_interval'
                     WHEN r.value < l.low OR r.value > l.high OR NOT isfinite(r.value) THEN 'outside_limits' END AS rule
            FROM {name}_rows r JOIN {name}_series s USING (series_key)
            LEFT JOIN {name}_limits l ON l.quantity = s.quantity
            LEFT JOIN grids g ON g.series_key = r.series_key AND g.interval_minutes = r.interval_minutes
        )
        SELECT row, rule, CASE rule
            WHEN 'unknown_quantity' THEN format('expected a quantity that this site keeps, found ''{{}}''', coalesce(quantity, 'none'))
            WHEN 'wrong_interval_length'
                THEN format('expected intervals of {lengths} minutes, found {{}}', coalesce(CAST(interval_minutes AS VARCHAR), 'none'))
            WHEN 'misaligned_interval'
                THEN format('expected a start like the series'' other intervals, found {{}}', strftime(interval_start, '%Y-%m-%d %H:%M:%S'))
            WHEN 'outside_limits'
                THEN format('expected {{}} from {{}} to {{}}, found {{:.12g}}', quantity, coalesce(format('{{:g}}', low), 'any'),
                            coalesce(format('{{:g}}', high), 'any'), value)
            ELSE coalesce(fault, 'expected a series, a time and a value, found none in one of them') END
        FROM judged WHERE rule IS NOT NULL
        """
    )
    connection.unregister(f"{name}_limits")


def _choose(connection: duckdb.DuckDBPyConnection, name: str) -> None:
    """Chooses one row per interval, and one interval length per hour."""
    connection.execute(
        f"""
        INSERT INTO {name}_refused
        WITH candidate AS (
            SELECT r.rowid AS row, series_key, interval_start, interval_minutes, file_key, line, value
            FROM {name}_rows r WHERE r.rowid NOT IN (SELECT row FROM {name}_refused)
        ), repeated AS (
            SELECT series_key, interval_start, interval_minutes FROM candidate GROUP BY ALL HAVING count(*) > 1
        ), ranked AS (
            SELECT row, series_key, value, first_value(value) OVER newest AS winning_value, row_number() OVER newest AS rank
            FROM candidate SEMI JOIN repeated USING (series_key, interval_start, interval_minutes)
            WINDOW newest AS (PARTITION BY series_key, interval_start, interval_minutes ORDER BY file_key DESC, line DESC, row DESC)
        )
        SELECT row, CASE WHEN value = winning_value THEN 'exact_duplicate' ELSE 'superseded' END,
               format('{{}} of this interval was delivered later as {{:.12g}}, here it is {{:.12g}}', quantity, winning_value, value)
        FROM ranked JOIN {name}_series USING (series_key) WHERE rank > 1
        """
    )
    connection.execute(
        f"""
        INSERT INTO {name}_refused
        WITH standing AS (
            SELECT r.rowid AS row, series_key, time_bucket(INTERVAL 1 HOUR, interval_start) AS hour, interval_minutes
            FROM {name}_rows r
            WHERE r.rowid NOT IN (SELECT row FROM {name}_refused)
              AND series_key IN (SELECT series_key FROM {name}_rows GROUP BY series_key HAVING count(DISTINCT interval_minutes) > 1)
        ), covered AS (
            SELECT series_key, hour, interval_minutes, sum(interval_minutes) AS minutes FROM standing GROUP BY ALL
        ), kept AS (
            SELECT series_key, hour, arg_max(interval_minutes, (minutes, -interval_minutes)) AS kept_minutes
            FROM covered GROUP BY series_key, hour HAVING count(*) > 1
        )
        SELECT row, 'mixed_resolution',
               format('expected one interval length, found {{}} and {{}} minutes in one hour', interval_minutes, kept_minutes)
        FROM standing JOIN kept USING (series_key, hour) WHERE interval_minutes <> kept_minutes
        """
    )


def _find_spikes(connection: duckdb.DuckDBPyConnection, name: str, spike_limits: Mapping[str, SpikeLimit]) -> None:
    """Refuses values that stand out from the two intervals before and after.

    The deviation of a value is its distance from the median of its neighbours within two intervals. A spike deviates by more
    than six times the usual largest deviation of a day, and by more than the quantity's smallest step. Usual is the median over
    those of the 28 days before and the day itself on which the series moved (a plant at rest says nothing of how it runs); with
    fewer than 14 of them nothing is refused. Half of the days may hold spikes before that yardstick moves. Where there is no
    neighbour on one of the sides (an edge, a gap), nothing is refused.
    """
    named = pa.table(
        {
            "quantity": pa.array(list(spike_limits), pa.string()),
            "absolute": pa.array([one.absolute for one in spike_limits.values()], pa.float64()),
            "share": pa.array([one.share_of_largest for one in spike_limits.values()], pa.float64()),
        }
    )
    connection.register(f"{name}_spikes", named)
    connection.execute(
        f"""
        INSERT INTO {name}_refused
        WITH placed AS (
            SELECT r.rowid AS row, series_key, date, value, interval_start, to_minutes(interval_minutes) AS step,
                   lag(value) OVER along AS before_1, lag(value, 2) OVER along AS before_2, lead(value) OVER along AS after_1,
                   lead(value, 2) OVER along AS after_2, lag(interval_start) OVER along AS start_before_1,
                   lag(interval_start, 2) OVER along AS start_before_2, lead(interval_start) OVER along AS start_after_1,
                   lead(interval_start, 2) OVER along AS start_after_2
            FROM {name}_rows r
            WHERE series_key IN (SELECT series_key FROM {name}_series JOIN {name}_spikes USING (quantity) WHERE NOT is_forecast)
              AND r.rowid NOT IN (SELECT row FROM {name}_refused)
            WINDOW along AS (PARTITION BY series_key ORDER BY interval_start)
        ), deviating AS (
            SELECT row, series_key, date, value, list_median([v FOR v IN around IF v IS NOT NULL]) AS usual
            FROM (SELECT *, [CASE WHEN start_before_1 = interval_start - step THEN before_1 END,
                             CASE WHEN start_before_2 = interval_start - 2 * step THEN before_2 END,
                             CASE WHEN start_after_1 = interval_start + step THEN after_1 END,
                             CASE WHEN start_after_2 = interval_start + 2 * step THEN after_2 END] AS around
                  FROM placed)
            WHERE (around[1] IS NOT NULL OR around[2] IS NOT NULL) AND (around[3] IS NOT NULL OR around[4] IS NOT NULL)
        ), daily AS (
            SELECT series_key, date, max(abs(value - usual)) AS largest_deviation, quantile_cont(abs(value), 0.98) AS largest
            FROM deviating GROUP BY ALL HAVING largest_deviation > 0
        ), yardstick AS (
            SELECT series_key, date, median(largest_deviation) OVER weeks AS usual_deviation, median(largest) OVER weeks AS largest,
                   count(*) OVER weeks AS known_days
            FROM daily
            WINDOW weeks AS (PARTITION BY series_key ORDER BY date
                             RANGE BETWEEN INTERVAL {CONTEXT_DAYS_BEFORE} DAY PRECEDING AND CURRENT ROW)
        )
        SELECT row, 'spike', format('expected {{}} near {{:.6g}} as in the intervals around it, found {{:.6g}}', quantity, usual, value)
        FROM deviating JOIN yardstick y USING (series_key, date) JOIN {name}_series USING (series_key) JOIN {name}_spikes s USING (quantity)
        WHERE y.known_days >= {FEWEST_DAYS_FOR_SPIKES}
          AND abs(value - usual) > greatest({SPIKE_FACTOR} * y.usual_deviation, s.absolute, s.share * y.largest)
        """
    )
    connection.unregister(f"{name}_spikes")


def _trusted(connection: duckdb.DuckDBPyConnection, fate: str, contract: type[Table]) -> duckdb.DuckDBPyRelation:
    """The rows that nothing refused, in the shape of their contract."""
    if contract.name == Weather.name:
        measured = [q for q in Weather.columns if quantities_for().get(q) == Weather.name]
        values = {q: f"max(value) FILTER (quantity = '{q}')" for q in measured}
        columns = {
            "interval_minutes": "min(interval_minutes)",
            "delivery_date": "max(delivery_date)",
            "date": "CAST(interval_start AS DATE)",
        } | values
        grouping = "GROUP BY series_id, interval_start"
    else:
        # The one column of the contract that carries the value, whatever it is called there.
        columns = {c: "value" for c in contract.columns if c.endswith(("_mw", "_per_mwh"))}
        columns |= {"estimated_share": "NULL", "date": "CAST(interval_start AS DATE)"}
        grouping = ""
    select = ", ".join(f"CAST({columns.get(c.name, c.name)} AS {c.sql_type}) AS {c.name}" for c in contract.columns.values())
    return connection.sql(f"SELECT {select} FROM {fate} WHERE rule IS NULL AND table_name = '{contract.name}' {grouping}")


def _quarantined(connection: duckdb.DuckDBPyConnection, fate: str) -> duckdb.DuckDBPyRelation:
    columns = {
        "raw_text": "coalesce(f.raw_text, concat_ws(',', f.series_id, f.quantity, f.interval_start, f.interval_minutes, f.value))"
        f"[:{RAW_TEXT_LIMIT}]",
        "meter_id": "f.series_id",
        "register": "f.quantity || CASE WHEN f.is_forecast THEN ' forecast' ELSE '' END",
        "energy_kwh": "NULL",
    }
    select = ", ".join(f"CAST({columns.get(c.name, 'f.' + c.name)} AS {c.sql_type}) AS {c.name}" for c in Quarantine.columns.values())
    return connection.sql(f"SELECT {select} FROM {fate} f WHERE f.rule IS NOT NULL AND f.rule <> 'exact_duplicate'")


def _conservation(connection: duckdb.DuckDBPyConnection, fate: str) -> duckdb.DuckDBPyRelation:
    columns = {
        "delivered": "count(*)",
        "cleaned": "count(*) FILTER (rule IS NULL AND table_name IS NOT NULL)",
        "edited": "0",
        "superseded": "count(*) FILTER (rule = 'superseded')",
        "exact_duplicates": "count(*) FILTER (rule = 'exact_duplicate')",
        "quarantined": "count(*) FILTER (rule NOT IN ('superseded', 'exact_duplicate'))",
        "missing_past_days": "CAST(NULL AS BIGINT)",  # series are cleaned from what was delivered around a day, not from cleaned days
        "is_conserved": "delivered = cleaned + edited + superseded + exact_duplicates + quarantined",
    }
    select = ", ".join(f"CAST({columns.get(c.name, c.name)} AS {c.sql_type}) AS {c.name}" for c in Conservation.columns.values())
    return connection.sql(f"SELECT {select} FROM {fate} GROUP BY feed, file, delivery_date, date")
