"""Local stamps without marks to UTC, across the days when the clocks change."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc


class LocalClock:
    """Takes local stamps without marks to UTC, across the days when the clocks change.

    The hour that the clock shows twice in autumn is told apart by order: within one file the first reading of a meter and
    register at a local stamp is summer time, the second winter time. A third is kept as winter time, where the rule on
    duplicates sees it. A stamp that the clock skips in spring is a fault.

    Args:
        zone: IANA name.
        end_minutes: minutes from an interval's start to its stamp, for stamps that name the end.
    """

    def __init__(self, zone: str, end_minutes: int = 0) -> None:
        self.zone, self.end_minutes = zone, end_minutes
        self._seen: dict[tuple[Any, Any, Any], int] = {}

    def resolve(self, table: pa.Table) -> pa.Table:
        """Replaces `local_start` by `interval_start`; stamps that do not exist get a `fault`."""
        local = table["local_start"].cast(pa.timestamp("us")).combine_chunks()
        if isinstance(local, pa.ChunkedArray):
            local = local.chunk(0) if local.num_chunks else pa.array([], pa.timestamp("us"))
        early = pc.assume_timezone(local, self.zone, ambiguous="earliest", nonexistent="earliest")
        late = pc.assume_timezone(local, self.zone, ambiguous="latest", nonexistent="latest")
        skipped = pc.fill_null(pc.not_equal(pc.local_timestamp(late), local), False)
        twice = pc.and_not(pc.fill_null(pc.not_equal(early, late), False), skipped)
        chosen = early
        if pc.any(twice).as_py():
            positions = pc.indices_nonzero(twice).to_pylist()
            meters, registers = table["meter_id"], table["register"] if "register" in table.column_names else None
            winter = [False] * len(local)
            for p in positions:
                key = (meters[p].as_py(), registers[p].as_py() if registers is not None else None, local[p].as_py())
                winter[p] = self._seen.get(key, 0) > 0
                self._seen[key] = self._seen.get(key, 0) + 1
            chosen = pc.if_else(pa.array(winter), late, early)
        utc = chosen.cast(pa.timestamp("us", tz="UTC"))
        if self.end_minutes:
            utc = pc.subtract(utc, pa.scalar(self.end_minutes * 60_000_000, pa.duration("us")))
        utc = pc.if_else(skipped, pa.scalar(None, utc.type), utc)
        faults = table["fault"] if "fault" in table.column_names else pa.nulls(table.num_rows, pa.string())
        if pc.any(skipped).as_py():
            words = pc.binary_join_element_wise(
                pa.scalar("expected a local time that exists, found '"),
                pc.strftime(local, "%Y-%m-%d %H:%M"),
                pa.scalar(f"', which the clocks of {self.zone} skip"),
                "",
            )
            faults = pc.if_else(skipped, pc.coalesce(faults, words), faults)
        table = table.drop_columns(["local_start"] + (["fault"] if "fault" in table.column_names else []))
        return table.append_column("interval_start", utc).append_column("fault", faults)
