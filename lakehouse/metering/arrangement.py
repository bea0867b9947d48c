"""In which order the delivered rows are looked at: as they come where that is the order of meters, else some meters at a time.

A file mostly holds its rows by meter. Several files that hold the same meters, such as those of the days around a midnight, are read by
ranges of meters: each range is small enough to be put in order in memory, and the scan skips what lies outside it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow.compute as pc

if TYPE_CHECKING:
    from lakehouse.metering.run import Run

ROWS_OF_A_RANGE = 1_000_000
SAMPLED_ROWS = 20_000


@dataclass(frozen=True)
class Arrangement:
    """How rows come in order.

    Args:
        ranges: SQL conditions, each true for the rows of some meters, together for all; none where the rows are taken as one stream.
        order: the ORDER BY of the stream; empty where the rows are taken as they come.
    """

    ranges: tuple[str, ...] = ()
    order: str = ""


def of(run: Run, delivered: str, query: str) -> Arrangement:
    """How the rows of a query on the delivered rows may come in order.

    Args:
        run: the run.
        delivered: name of the relation of delivered rows.
        query: the rows that are looked at; it ends with conditions.
    """
    head = run.connection.sql(f"SELECT meter_id, file FROM ({query} LIMIT {SAMPLED_ROWS})").to_arrow_table()
    meters = head["meter_id"].combine_chunks()
    if len(meters) > 1:
        changes = pc.sum(pc.not_equal(meters.slice(1), meters.slice(0, len(meters) - 1))).as_py()
        if changes >= len(meters) / 10:
            # Rows of one feed: those of several are a union, and DuckDB does not spill a union that goes into a sort.
            is_single = run.count(f"SELECT count(*) FROM (SELECT DISTINCT feed FROM {delivered})") == 1
            return Arrangement(order=" ORDER BY meter_id, register, interval_start") if is_single else by_ranges(run, delivered)
    return by_ranges(run, delivered) if _files_overlap(run, delivered, query) else Arrangement()


def by_ranges(run: Run, delivered: str) -> Arrangement:
    """Some meters at a time, about as many as can be put in order at once."""
    parts = run.count(f"SELECT count(*) FROM {delivered}") // ROWS_OF_A_RANGE + 1
    sample = f"SELECT meter_id FROM {delivered} USING SAMPLE reservoir({SAMPLED_ROWS} ROWS) REPEATABLE (1)"
    sampled = f"SELECT meter_id FROM ({sample}) WHERE meter_id IS NOT NULL ORDER BY meter_id"
    found = run.connection.sql(sampled).to_arrow_table()["meter_id"] if parts > 1 else ()
    places = sorted({found[len(found) * n // parts].as_py() for n in range(1, parts)}) if len(found) else []
    edges = ["'" + meter.replace("'", "''") + "'" for meter in places]
    lows, highs = [f"meter_id >= {e}" for e in edges], [f"meter_id < {e}" for e in edges]
    pairs = zip(["", *lows], [*highs, ""], strict=True)
    return Arrangement(tuple(" AND ".join(filter(None, pair)) or "true" for pair in pairs))


def _files_overlap(run: Run, delivered: str, query: str) -> bool:
    """Whether several files hold the same meters."""
    if run.count(f"SELECT count(*) FROM (SELECT DISTINCT feed, delivery_date FROM {delivered})") == 1:
        return False  # a look at the files would cost a large delivery as much as it saves
    files = f"SELECT min(meter_id) AS low, max(meter_id) AS high FROM ({query}) GROUP BY feed, file, delivery_date"
    overlaps = f"SELECT count(*) FROM (SELECT low, lag(high) OVER (ORDER BY low, high) AS before FROM ({files})) WHERE before > low"
    return run.count(overlaps) > 0
