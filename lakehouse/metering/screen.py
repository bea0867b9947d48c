"""The quick look at all delivered rows, which finds the days of registers on which no rule can fire.

Most days of most meters are sound. One pass over the rows in the order of meter, register and time (`arrangement`) proves it with array
arithmetic: a sound day is complete, ordered, free of duplicates, and none of its values reaches a rule's threshold. What is
not proven sound is looked at row by row in `rows` and `values`; the result is the same, only slower. Nothing is decided here about a row
that a rule could name.
"""

from __future__ import annotations

import bisect
from collections import Counter
from collections.abc import Callable
from datetime import date, timedelta
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lakehouse.contracts.cleaned import INTERVAL_MINUTES
from lakehouse.metering import arrangement, limits
from lakehouse.metering.arrangement import Arrangement
from lakehouse.metering.clocks import MANY_HOURS, SAMPLED_REGISTERS
from lakehouse.metering.ordered import (
    EPOCH,
    Rows,
    differs,
    filled_batches,
    groups,
    joined,
    key_of,
    keys_of,
    matches,
    register_changes,
    stamps,
    table_of,
)
from lakehouse.metering.past import Past
from lakehouse.metering.registers import is_difference_sql
from lakehouse.metering.rules import VeeRules, is_estimate_by_sender

if TYPE_CHECKING:
    from lakehouse.metering.run import Run

CHUNK_ROWS = 500_000
MINUTE_US = 60_000_000
DAY_US = 1440 * MINUTE_US
# A change of order after more than this share of the rows is no file order: the rows are sorted then.
MOST_BREAKS_SHARE = 0.001
# A writer may put batches of a file in another order; where shorter stretches are mixed, the rows are sorted.
LEAST_STRETCH_ROWS = 100_000
# Rows in stretches as long as that, each in order, need no sorting: who looks for a meter skips most of a table all the same.
LEAST_ORDERED_ROWS = 20_000
# Rounds until the days that count as the past of others no longer change.
MOST_ROUNDS = 6

LOOKS = pa.schema(
    [
        ("meter_id", pa.string()),
        ("register", pa.string()),
        ("date", pa.date32()),
        ("n", pa.int64()),
        ("minutes", pa.int32()),
        ("energy_kwh", pa.float64()),
        ("mean_kw", pa.float64()),
        ("peak_kw", pa.float64()),
        ("zero_share", pa.float64()),
        ("repeat_share", pa.float64()),
        ("longest_zero_hours", pa.float64()),
        ("lone_peak_kw", pa.float64()),
        ("hours_with_zeros", pa.int32()),
    ]
)
KEYS = pa.schema([("meter_id", pa.string()), ("register", pa.string()), ("date", pa.date32())])
BLOCKS = pa.schema(
    [
        ("feed", pa.string()),
        ("file", pa.string()),
        ("delivery_date", pa.date32()),
        ("meter_id", pa.string()),
        ("register", pa.string()),
        ("n", pa.int64()),
        ("opens", pa.timestamp("us", "UTC")),
        ("closes", pa.timestamp("us", "UTC")),
        ("mean_kw", pa.float64()),
        ("trimmed_kw", pa.float64()),
        ("is_whole", pa.bool_()),
    ]
)
SHIFTED = pa.schema([("feed", pa.string()), ("file", pa.string()), ("delivery_date", pa.date32()), ("hours", pa.int64())])
SAMPLES = pa.schema(
    [("feed", pa.string()), ("file", pa.string()), ("delivery_date", pa.date32()), ("meter_id", pa.string()), ("register", pa.string())]
)
SPANS = pa.schema(
    [
        ("feed", pa.string()),
        ("file", pa.string()),
        ("delivery_date", pa.date32()),
        ("opens", pa.timestamp("us", "UTC")),
        ("closes", pa.timestamp("us", "UTC")),
        ("registers", pa.int64()),
    ]
)
STANDING = pa.schema(
    [("feed", pa.string()), ("file", pa.string()), ("delivery_date", pa.date32()), ("date", pa.date32()), ("n", pa.int64())]
)


# A register that the stream's borders cut in two comes twice.
_ONCE = {
    "exceptional": "DISTINCT *",
    "blocks": """feed, file, delivery_date, meter_id, register, CAST(sum(n) AS BIGINT) AS n, min(opens) AS opens, max(closes) AS closes,
        sum(mean_kw * n) / sum(n) AS mean_kw, min(trimmed_kw) AS trimmed_kw, bool_and(is_whole) AS is_whole""",
}


class OutOfOrder(Exception):  # noqa: N818 - not an error: the rows have to be sorted
    """The rows do not come in the order of meter, register and time."""


def look(
    run: Run,
    delivered: str,
    *,
    has_registry: bool,
    first_day: date | None,
    shifted: Callable[[pa.Table, dict[tuple[str, str, int], tuple[int, int]]], dict[tuple[str, str, int], int]],
    trust_nothing: bool = False,
) -> None:
    """Looks at all delivered rows once, and makes the tables of what was found.

    `looks`: the sound days of registers, with their levels; `exceptional`: the other days of the run that have readings;
    `blocks`: the spans and means of the exceptional registers in each file; `spans`: how many registers of a file have which
    span; `standing`: the rows of sound days by file. Sets `run.is_ordered` and `run.sender_estimates`.

    Args:
        run: the run; its tables `meters`, `past_levels` and, for several days, `past_day_levels` must be there.
        delivered: name of the relation of delivered rows.
        has_registry: whether there is a registry, so that a meter can be unknown.
        first_day: the site's first day; rows of earlier ones are never sound.
        shifted: tells the files whose clock is hours off from a sample of the registers in each and the files' spans.
        trust_nothing: leaves every day to the rules one by one, for comparison.
    """
    columns = """meter_id, register, feed, file, line, delivery_date, interval_start, interval_minutes, energy_kwh, quality,
        fault IS NOT NULL OR energy_kwh IS NULL OR interval_start IS NULL OR interval_minutes IS NULL AS is_faulty"""
    query = f"SELECT {columns} FROM {delivered} d WHERE meter_id IS NOT NULL AND register IS NOT NULL AND NOT {is_difference_sql('d')}"
    past = Past(run, has_registry)
    how = arrangement.of(run, delivered, query)
    usual_spans: dict[tuple[str, str, int], tuple[int, int]] = {}
    shifted_files: dict[tuple[str, str, int], int] | None = None
    while True:
        found = _Screen(run, past, first_day, trust_nothing, usual_spans, frozenset(shifted_files or ()))
        try:
            run.is_ordered = found.over(run, query, how)
        except OutOfOrder:
            assert how == Arrangement(), "ranges are put in order, and sorted rows are in order"
            how = arrangement.by_ranges(run, delivered)
            continue
        if shifted_files is not None:
            break
        # What one pass tells of the files as wholes may change what it said of their registers.
        shifted_files = shifted(found.samples(), found.usual_spans())
        if not shifted_files and not found.misjudged_spans():
            break
        usual_spans = found.usual_spans()
    run.take("shifted_files", table_of([(*name, hours) for name, hours in (shifted_files or {}).items()], SHIFTED))
    for step, table in found.tables().items():
        run.take(step, table, _ONCE.get(step, "*"))
    run.sender_estimates = found.sender_estimates


class _Screen:
    """One pass over the rows, chunk by chunk; a register is never cut in two."""

    def __init__(
        self,
        run: Run,
        past: Past,
        first_day: date | None,
        trust_nothing: bool,
        usual_spans: dict[tuple[str, str, int], tuple[int, int]],
        shifted_files: frozenset[tuple[str, str, int]],
    ) -> None:
        self.rules: VeeRules = run.rules
        self.past, self.trust_nothing = past, trust_nothing
        self.days = np.array(past.days, np.int64)
        self.earliest = (first_day - EPOCH).days if first_day else -(10**6)
        self.files: dict[tuple[str, str, int], int] = {}
        self.spans: Counter[tuple[int, int, int]] = Counter()
        self.known_spans = usual_spans
        self.shifted_files = shifted_files
        self.sampled: dict[int, list[str]] = {}
        self.judged_by: dict[int, tuple[int, int] | None] = {}
        self.standing: Counter[tuple[int, int]] = Counter()
        self.looks: list[pa.Table] = []
        self.exceptional: list[pa.Table] = []
        self.blocks: list[pa.Table] = []
        self.sender_estimates: set[str] = set()
        self.known_qualities: set[str | None] = {None}
        self.runs: list[tuple[str, str]] = []
        self.rows = self.breaks = 0
        self.last_meter: str | None = None

    def over(self, run: Run, query: str, how: Arrangement) -> bool:
        """Looks at all rows of a query, and tells whether they come in few stretches that are each in order.

        Raises:
            OutOfOrder: a register's rows may be in several places.
        """
        if how.ranges:
            stretches = 0
            for part in how.ranges:
                self.past.take(part)
                stretches += self._together(run.connection.sql(f"{query} AND {part}").to_arrow_table())
            return self.rows >= LEAST_ORDERED_ROWS * stretches
        self.past.take()
        rest: pa.Table | None = None
        for batch in filled_batches(run.connection.sql(query + how.order).to_arrow_reader(CHUNK_ROWS)):
            table = batch if rest is None else pa.concat_tables([rest, batch])
            changes = register_changes(table)
            if not len(changes):
                rest = table
                continue
            self._stretch(table.slice(0, changes[-1] + 1))
            rest = table.slice(changes[-1] + 1)
        if rest is not None and rest.num_rows:
            self._stretch(rest)
        self._check_order()
        return not how.order

    def _together(self, table: pa.Table) -> int:
        """Looks at all rows of some meters, in whatever order they are, and tells of how many stretches in order they are made."""
        found, faulty_keys = self._readings(table)
        if found is None:
            return 0
        together, stretches = found.brought_together()
        self._examine(together, faulty_keys)
        return stretches

    def _stretch(self, table: pa.Table) -> None:
        """Looks at rows that come in order, and notes from where to where they reach."""
        found, faulty_keys = self._readings(table)
        if found is not None:
            self._examine(found, faulty_keys)
            jumps = np.flatnonzero(found.line[found.opens[1:]] != found.line[found.opens[1:] - 1] + 1) + 1
            self._follow(key_of(found.meters, found.registers), jumps)

    def _readings(self, table: pa.Table) -> tuple[Rows | None, pa.Array]:
        """The rows that can be read, as arrays, and the keys of the registers that have others."""
        faulty = table.filter(table["is_faulty"]) if pc.any(table["is_faulty"]).as_py() else None
        if faulty is not None:
            table = table.filter(pc.invert(table["is_faulty"]))
        faulty_keys = keys_of(faulty) if faulty is not None else pa.array([], pa.string())
        if not table.num_rows:
            return None, faulty_keys
        table = table.combine_chunks()
        self.rows += table.num_rows
        meters, registers = table["meter_id"].chunk(0), table["register"].chunk(0)
        opens = np.flatnonzero(np.append(True, differs(meters) | differs(registers)))
        return Rows(
            meters.take(pa.array(opens)),
            registers.take(pa.array(opens)),
            opens,
            table["interval_start"].chunk(0).cast(pa.int64()).to_numpy(),
            table["interval_minutes"].chunk(0).to_numpy(),
            table["energy_kwh"].chunk(0).to_numpy(),
            self._files(table),
            table["line"].chunk(0).to_numpy(),
            self._by_sender(table["quality"]),
        ), faulty_keys

    def _examine(self, rows: Rows, faulty_keys: pa.Array) -> None:
        start, minutes, kwh, by_sender, register_at = rows.start, rows.minutes, rows.kwh, rows.by_sender, rows.opens
        meter_of, names = rows.meters, rows.registers
        n = len(start)
        new_register = np.zeros(n, bool)
        new_register[register_at] = True
        day = start // DAY_US
        new_day = new_register.copy()
        new_day[1:] |= day[1:] != day[:-1]
        new_file = np.append(False, rows.file[1:] != rows.file[:-1])
        parts = np.flatnonzero(new_day | new_file)  # a part is a day of a register from one file
        firsts = np.flatnonzero(new_day[parts])  # the first part of each day of a register
        at = parts[firsts]

        follows = np.zeros(n, bool)
        follows[1:] = (start[1:] == start[:-1] + minutes[:-1].astype(np.int64) * MINUTE_US) & ~new_register[1:]
        kw = kwh * (60.0 / minutes)

        def by_part(ufunc: np.ufunc, values: np.ndarray) -> np.ndarray:
            return ufunc.reduceat(values, parts)

        def by_day(ufunc: np.ufunc, of_parts: np.ndarray) -> np.ndarray:
            return ufunc.reduceat(of_parts, firsts)

        part_n = np.diff(np.append(parts, n))
        part_sum, part_most = by_part(np.add, kwh), by_part(np.maximum, kwh)
        part_minutes = by_part(np.maximum, minutes)
        zero = kwh == 0
        part_zeros = by_part(np.add, zero.astype(np.int64))
        days_n, day_sum, day_most = by_day(np.add, part_n), by_day(np.add, part_sum), by_day(np.maximum, part_most)
        day_least = by_day(np.minimum, by_part(np.minimum, kwh))
        day_minutes, least_minutes = by_day(np.maximum, part_minutes), by_day(np.minimum, by_part(np.minimum, minutes))
        zeros = by_day(np.add, part_zeros)
        unlinked = by_day(np.add, by_part(np.add, (~follows).astype(np.int64))) - ~follows[at]
        of_day = day[at]
        is_complete = (
            (least_minutes == day_minutes)
            & np.isin(day_minutes, INTERVAL_MINUTES)
            & (days_n * day_minutes == 1440)
            & (unlinked == 0)
            & (start[at] == of_day * DAY_US)
            & np.isfinite(day_sum)
        )

        # Values beside values, within the day for levels and across days for spikes and runs.
        inside = follows.copy()
        inside[at] = False
        before, after = np.full(n, -np.inf), np.full(n, -np.inf)
        before[1:] = np.where(inside[1:], kwh[:-1], -np.inf)
        after[:-1] = np.where(inside[1:], kwh[1:], -np.inf)
        beside = np.maximum(before, after)
        supported = np.where(np.isfinite(beside), np.minimum(kwh, self.rules.spike_neighbour_factor * beside), kwh)
        peak = by_day(np.maximum, by_part(np.maximum, supported)) * 60.0 / day_minutes
        equal = np.zeros(n, bool)
        equal[1:] = kwh[1:] == kwh[:-1]
        stands_out = np.where(np.isfinite(beside), (kwh - beside), -np.inf)
        lone = by_day(np.maximum, by_part(np.maximum, stands_out)) * 60.0 / day_minutes
        hours = np.where(zero, np.int64(1) << ((start // (60 * MINUTE_US)) % 24), 0)
        zero_hours_mask = by_day(np.bitwise_or, by_part(np.bitwise_or, hours))
        repeats = by_day(np.add, by_part(np.add, (equal & inside & ~zero).astype(np.int64)))
        countable = by_day(np.add, by_part(np.add, (inside & ~zero).astype(np.int64)))
        run_starts = np.flatnonzero(~(equal & follows))
        run_length = np.diff(np.append(run_starts, n))
        ends = np.append(run_starts[1:], n) - 1
        last_of_register = np.ones(n, bool)
        last_of_register[:-1] = new_register[1:]
        # A run at the border of what was delivered may go on there.
        at_border = new_register[run_starts] | last_of_register[ends]
        longest = np.repeat(np.where(at_border, 2 * run_length, run_length), run_length)
        longest_equal = by_day(np.maximum, by_part(np.maximum, np.where(zero, 0, longest)))
        zero_runs = np.flatnonzero(~(equal & inside & zero))  # within a day
        zero_length = np.diff(np.append(zero_runs, n))
        longest_zeros = by_day(np.maximum, by_part(np.maximum, np.where(zero, np.repeat(zero_length, zero_length), 0)))
        after_zero = np.where(np.append(True, zero[:-1]) | ~follows, kw, -np.inf)
        most_after_zero = by_day(np.maximum, by_part(np.maximum, after_zero))
        # Zeros, then a reading that stands out from what follows it.
        ends_zeros = np.isfinite(after_zero) & ~zero & (kwh > self.rules.late_read_lone_excess * np.where(np.isfinite(after), after, 0))
        jumps_from_zero = by_day(np.logical_or, by_part(np.logical_or, ends_zeros))
        sender_days = by_day(np.add, by_part(np.add, by_sender.astype(np.int64))) > 0

        register = np.cumsum(new_register)[at] - 1
        if np.any((register[1:] == register[:-1]) & (of_day[1:] <= of_day[:-1])):
            raise OutOfOrder
        keys = key_of(meter_of, names)
        rated, known = self.past.of_meters(meter_of)
        is_net = matches(names, r"^net|_net$")[register]
        export = matches(names, r"^export")
        is_export = export[register]
        rated_day = rated[register]
        levels = {
            "mean_kw": np.where(is_complete & ~sender_days, day_sum / 24.0, np.nan),
            "peak_kw": np.where(is_complete & ~sender_days, peak, np.nan),
            "zero_share": np.where(is_complete & ~sender_days, zeros / days_n, np.nan),
            "repeat_share": np.where(is_complete & ~sender_days & (countable > 0), repeats / np.maximum(countable, 1), np.nan),
            "longest_zero_hours": np.where(is_complete & ~sender_days, longest_zeros * day_minutes / 60.0, np.nan),
            "lone_peak_kw": np.where(is_complete & ~sender_days, lone, np.nan),
            "hours_with_zeros": np.where(is_complete & ~sender_days, zero_hours_mask, np.nan),
        }

        plain = is_complete & known[register] & (of_day >= self.earliest) & ((day_least >= 0) | is_net)
        with np.errstate(all="ignore"):
            most_kw = np.maximum(np.abs(day_most), np.abs(day_least)) * 60.0 / day_minutes
            has_rating = rated_day > 0
            plain &= ~has_rating | (most_kw <= rated_day * (1 + self.rules.rating_tolerance))
            plain &= ~(np.abs(day_sum) / 24.0 > 3 * rated_day)
        # Of a meter that the stream's border cut in two, the export register may have come in the chunk before.
        may_export = pc.is_in(meter_of, value_set=meter_of.filter(pa.array(export))).to_numpy(zero_copy_only=False)
        may_export[0] |= meter_of[0].as_py() == self.last_meter
        self.last_meter = meter_of[-1].as_py()
        rests = limits.resting_with_export(
            self.rules,
            np.cumsum(np.append(True, differs(meter_of))),
            may_export,
            export,
            register_at,
            start,
            minutes,
            kwh,
            follows,
            run_starts,
        )
        if rests is not None:
            plain &= ~by_day(np.logical_or, by_part(np.logical_or, rests))
        file_of_part = rows.file[parts]
        plausible, elsewhere = self._dates(file_of_part, firsts, of_day)
        # A row that counts on another day than its own brings its register's account of that day with it.
        plain &= plausible & ~np.isin(register, register[elsewhere])
        plain &= ~np.isin(register, self._shifted(file_of_part, start, minutes, parts, part_n, new_register))
        register_of_part = np.cumsum(new_register)[parts] - 1
        if self.shifted_files:
            moved = [n for name, n in self.files.items() if name in self.shifted_files]
            plain &= ~np.isin(register, register_of_part[np.isin(file_of_part, moved)])
        else:
            self._sample(keys, register_of_part, file_of_part)
        if len(faulty_keys):
            has_fault = pc.is_in(keys, value_set=faulty_keys).to_numpy(zero_copy_only=False)
            plain &= ~has_fault[register]
        sound, past_days = plain, None
        hours_with_zeros = longest_zeros * day_minutes / 60.0
        follows_day = np.append(False, (register[1:] == register[:-1]) & (of_day[1:] == of_day[:-1] + 1))
        last_at = at + days_n - 1
        for _ in range(1 if self.past.is_single else MOST_ROUNDS):
            # A day that a rule may change is no past of later days; what is left makes the limits narrower, never wider.
            usual = self.past.before(keys, register, of_day, {c: np.where(sound, v, np.nan) for c, v in levels.items()})
            past_days = usual["past_days"] = usual["past_days"] if past_days is None else past_days
            slipped = limits.slipped(self.rules, usual, day_sum)
            passes = plain & ~limits.spiking(self.rules, usual, rated_day, kwh, kw, follows, days_n, by_day, by_part) & ~slipped
            passes &= ~limits.odd_zeros(
                self.rules, usual, zeros, is_export, most_after_zero, hours_with_zeros, jumps_from_zero, zero_hours_mask
            )
            passes &= longest_equal < limits.longest_run(self.rules, usual)
            # What reaches over midnight: a slip of a file, and zeros whose energy comes the day after.
            passes &= ~(follows_day & np.append(False, slipped[:-1])) & ~np.append(follows_day[1:] & slipped[1:], False)
            passes &= ~(follows_day & np.append(False, (~passes & zero[last_at])[:-1]))
            if np.array_equal(passes, sound):
                break
            sound = passes
        if self.trust_nothing:
            sound[:] = False
        self._keep(rows, sound, at, parts, firsts, register, of_day, days_n, day_minutes, day_sum, levels, file_of_part, part_n)
        self._keep_blocks(rows, sound, register, of_day, parts, file_of_part, part_n, part_sum, part_most, new_register)

    def _by_sender(self, quality: pa.ChunkedArray) -> np.ndarray:
        """Which rows the sender marked as estimated."""
        for code in pc.unique(quality).to_pylist():
            if code not in self.known_qualities:
                self.known_qualities.add(code)
                if is_estimate_by_sender(code):
                    self.sender_estimates.add(code)
        if not self.sender_estimates:
            return np.zeros(len(quality), bool)
        marked = pc.is_in(quality, value_set=pa.array(sorted(self.sender_estimates), pa.string()))
        return marked.to_numpy(zero_copy_only=False) if isinstance(marked, pa.Array) else marked.to_numpy()

    def _files(self, table: pa.Table) -> np.ndarray:
        """The file of each row, as a number."""
        columns = [table[c].chunk(0) for c in ("feed", "file", "delivery_date")]
        opens = np.flatnonzero(np.append(True, np.logical_or.reduce([differs(c) for c in columns])))
        names = zip(*(c.take(pa.array(opens)).to_pylist() for c in columns), strict=True)
        numbers = [self.files.setdefault((feed, file, (day - EPOCH).days), len(self.files)) for feed, file, day in names]
        return np.repeat(np.array(numbers, np.int64), np.diff(np.append(opens, table.num_rows)))

    def _delivered(self, files: np.ndarray) -> np.ndarray:
        return np.array([d for _, _, d in self.files], np.int64)[files]

    def _dates(self, files: np.ndarray, firsts: np.ndarray, of_day: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Days that neither lie after their delivery nor could have day and month swapped; and days whose rows count elsewhere."""
        delivered = self._delivered(files)
        newest, oldest = np.maximum.reduceat(delivered, firsts), np.minimum.reduceat(delivered, firsts)
        late = newest - of_day > self.rules.swapped_late_days
        if late.any():
            for n in np.flatnonzero(late):
                one = EPOCH + timedelta(days=int(of_day[n]))
                late[n] = one.day <= 12 and one.day != one.month
        elsewhere = (of_day > oldest + 1) | (of_day < self.earliest - 1)
        return ~elsewhere & ~late, elsewhere

    def _shifted(
        self, files: np.ndarray, start: np.ndarray, minutes: np.ndarray, parts: np.ndarray, part_n: np.ndarray, new_register: np.ndarray
    ) -> np.ndarray:
        """Registers whose span in a file is not the one of most registers of the file so far."""
        register = np.cumsum(new_register)[parts] - 1
        opens, last = start[parts], parts + part_n - 1
        closes = start[last] + minutes[last].astype(np.int64) * MINUTE_US
        order, edges = groups(register, files)
        opens = np.minimum.reduceat(opens[order], edges)
        closes = np.maximum.reduceat(closes[order], edges)
        of_register, of_file = register[order][edges], files[order][edges]
        spans, counts = np.unique(np.stack([of_file, opens, closes]), axis=1, return_counts=True)
        for (file, one, other), count in zip(spans.T.tolist(), counts.tolist(), strict=True):
            self.spans[(file, one, other)] += count
        for file in np.unique(of_file).tolist():
            if file not in self.judged_by:
                self.judged_by[file] = self.known_spans.get(list(self.files)[file]) or self._majority(file)
        usual = np.array([(self.judged_by[f] or (-1, -1))[0] for f in of_file.tolist()], np.int64)
        return np.unique(of_register[(opens != usual) & (usual >= 0)])

    def _sample(self, keys: pa.Array, registers: np.ndarray, files: np.ndarray) -> None:
        """Keeps the first registers of each file, by name."""
        lowest = pc.min(keys).as_py()
        for file in np.unique(files).tolist():
            known = self.sampled.setdefault(file, [])
            if len(known) >= SAMPLED_REGISTERS and known[-1] <= lowest:
                continue
            mine = keys.take(pa.array(np.unique(registers[files == file])))
            first = mine.take(pc.select_k_unstable(mine, k=SAMPLED_REGISTERS, sort_keys=[("", "ascending")])).to_pylist()
            self.sampled[file] = sorted({*known, *first})[:SAMPLED_REGISTERS]

    def samples(self) -> pa.Table:
        """Some registers of each file that is large or long enough to tell its clock."""
        opens: dict[int, int] = {}
        closes: dict[int, int] = {}
        for file, one, other in self.spans:
            opens[file], closes[file] = min(opens.get(file, one), one), max(closes.get(file, other), other)
        names = list(self.files)
        telling = {
            file: keys
            for file, keys in self.sampled.items()
            if len(keys) >= self.rules.shifted_least_registers or closes[file] - opens[file] >= MANY_HOURS * 60 * MINUTE_US
        }
        return table_of([(*names[file], *key.split("\x1f", 1)) for file, keys in telling.items() for key in keys], SAMPLES)

    def _majority(self, file: int) -> tuple[int, int] | None:
        """The span that most registers of a file have, None where there is no majority for one."""
        mine = {(o, c): count for (f, o, c), count in self.spans.items() if f == file}
        span, most = max(mine.items(), key=lambda item: (item[1], item[0]))
        return span if 2 * most > sum(mine.values()) and most >= self.rules.shifted_least_registers else None

    def usual_spans(self) -> dict[tuple[str, str, int], tuple[int, int]]:
        """The span of each file that most of its registers have."""
        found = {name: self._majority(file) for name, file in self.files.items()}
        return {name: span for name, span in found.items() if span is not None}

    def misjudged_spans(self) -> bool:
        """Whether the first registers of a file were not like most of it, so that they were measured by the wrong span."""
        usual = self.usual_spans()
        return any(self.judged_by.get(file) != usual[name] for name, file in self.files.items() if name in usual)

    def _keep(
        self,
        rows: Rows,
        sound: np.ndarray,
        at: np.ndarray,
        parts: np.ndarray,
        firsts: np.ndarray,
        register: np.ndarray,
        of_day: np.ndarray,
        days_n: np.ndarray,
        day_minutes: np.ndarray,
        day_sum: np.ndarray,
        levels: dict[str, np.ndarray],
        files: np.ndarray,
        part_n: np.ndarray,
    ) -> None:
        ours = np.isin(of_day, self.days)
        good, bad = np.flatnonzero(ours & sound), np.flatnonzero(ours & ~sound)
        for chosen, kept in ((good, self.looks), (bad, self.exceptional)):
            if not len(chosen):
                continue
            of_register = pa.array(register[chosen])
            columns = {
                "meter_id": rows.meters.take(of_register),
                "register": rows.registers.take(of_register),
                "date": pa.array(of_day[chosen].astype(np.int32)).cast(pa.date32()),
            }
            if kept is self.looks:
                columns |= {"n": pa.array(days_n[chosen].astype(np.int64)), "minutes": pa.array(day_minutes[chosen].astype(np.int32))}
                columns["energy_kwh"] = pa.array(day_sum[chosen])
                columns |= {c: pa.array(v[chosen], from_pandas=True) for c, v in levels.items()}
            kept.append(pa.table(columns))
        day_of_part = np.cumsum(np.isin(np.arange(len(parts)), firsts)) - 1
        stands = (ours & sound)[day_of_part]
        if stands.any():
            pairs = np.stack([files[stands], of_day[day_of_part][stands]])
            unique, inverse = np.unique(pairs, axis=1, return_inverse=True)
            counts = np.bincount(np.ravel(inverse), weights=part_n[stands])
            for (file, day), count in zip(unique.T.tolist(), counts.tolist(), strict=True):
                self.standing[(file, day)] += int(count)

    def _keep_blocks(
        self,
        rows: Rows,
        sound: np.ndarray,
        register: np.ndarray,
        of_day: np.ndarray,
        parts: np.ndarray,
        files: np.ndarray,
        part_n: np.ndarray,
        part_sum: np.ndarray,
        part_most: np.ndarray,
        new_register: np.ndarray,
    ) -> None:
        """The spans and levels, file by file, of registers with an exceptional day."""
        start, minutes, kwh = rows.start, rows.minutes, rows.kwh
        wanted = np.unique(register[~sound & np.isin(of_day, self.days)])
        register_of_part = np.cumsum(new_register)[parts] - 1
        mine = np.flatnonzero(np.isin(register_of_part, wanted))
        if not len(mine):
            return
        last = parts + part_n - 1
        closes = start[last] + minutes[last].astype(np.int64) * MINUTE_US
        order, edges = groups(register_of_part[mine], files[mine])
        chosen = mine[order]

        def grouped(ufunc: np.ufunc, of_parts: np.ndarray) -> np.ndarray:
            return ufunc.reduceat(of_parts[chosen], edges)

        part_minutes = minutes[parts].astype(np.int64)
        count, total, most = grouped(np.add, part_n), grouped(np.add, part_sum), grouped(np.maximum, part_most)
        length = grouped(np.add, part_n * part_minutes)
        with np.errstate(all="ignore"):
            of_part = np.cumsum(part_n[mine]) - part_n[mine]  # where each part begins among the rows that are looked at
            told = kwh[np.arange(part_n[mine].sum()) + np.repeat(parts[mine] - of_part, part_n[mine])]
            whole = np.logical_and.reduceat(np.abs(told - np.round(told)) < 1e-9, of_part)
            is_whole = np.logical_and.reduceat(whole[order], edges)
            trimmed = np.where(count > 1, (total - most) * 60.0 / (length - grouped(np.maximum, part_minutes)), np.nan)
        names = list(self.files)
        of_blocks = [names[f] for f in files[chosen][edges].tolist()]
        of_register = pa.array(register_of_part[chosen][edges])
        self.blocks.append(
            pa.table(
                {
                    "feed": pa.array([t[0] for t in of_blocks], pa.string()),
                    "file": pa.array([t[1] for t in of_blocks], pa.string()),
                    "delivery_date": pa.array([t[2] for t in of_blocks], pa.int32()).cast(pa.date32()),
                    "meter_id": rows.meters.take(of_register),
                    "register": rows.registers.take(of_register),
                    "n": pa.array(count.astype(np.int64)),
                    "opens": stamps(grouped(np.minimum, start[parts])),
                    "closes": stamps(grouped(np.maximum, closes)),
                    "mean_kw": pa.array(total * 60.0 / length),
                    "trimmed_kw": pa.array(trimmed, from_pandas=True),
                    "is_whole": pa.array(is_whole),
                }
            )
        )

    def _follow(self, keys: pa.Array, jumps: np.ndarray) -> None:
        """Notes the ascending stretches of keys, so that a register in two places is seen; a jump in the file's lines ends one."""
        breaks = np.flatnonzero(pc.less_equal(keys.slice(1), keys.slice(0, len(keys) - 1)).to_numpy(zero_copy_only=False)) + 1
        self.breaks += len(breaks)
        if self.breaks > 20 + MOST_BREAKS_SHARE * self.rows:
            raise OutOfOrder
        edges = [0, *np.union1d(breaks, jumps).tolist(), len(keys)]
        for lo, hi in pairwise(edges):
            one = (keys[lo].as_py(), keys[hi - 1].as_py())
            at = bisect.bisect(self.runs, one)
            if (at and one[0] < self.runs[at - 1][1]) or (at < len(self.runs) and self.runs[at][0] < one[1]):
                raise OutOfOrder  # stretches of the stream overlap
            self.runs.insert(at, one)

    def _check_order(self) -> None:
        """Raises OutOfOrder where a day was seen twice.

        A register that ends one stretch and begins another was cut in two: that is no harm as long as no day of it was seen twice.
        """
        borders = {later[0] for earlier, later in pairwise(self.runs) if later[0] == earlier[1]}
        if len(borders) > self.rows / LEAST_STRETCH_ROWS:
            raise OutOfOrder
        if borders:
            seen = pa.concat_tables([t.select(["meter_id", "register", "date"]) for t in (*self.looks, *self.exceptional)])
            seen = seen.append_column("sound", pa.array(np.arange(seen.num_rows) < sum(t.num_rows for t in self.looks)))
            mine = seen.filter(pc.is_in(keys_of(seen), value_set=pa.array(sorted(borders))))
            days = Counter((r["meter_id"], r["register"], r["date"]) for r in mine.to_pylist())
            if any(r["sound"] and days[(r["meter_id"], r["register"], r["date"])] > 1 for r in mine.to_pylist()):
                raise OutOfOrder

    def tables(self) -> dict[str, pa.Table]:
        """What was found."""
        words = list(self.files)
        spans = [(*words[f], o, c, n) for (f, o, c), n in self.spans.items()]
        standing = [(*words[f], d, n) for (f, d), n in self.standing.items()]
        return {
            "looks": joined(self.looks, LOOKS),
            "exceptional": joined(self.exceptional, KEYS),
            "blocks": joined(self.blocks, BLOCKS),
            "spans": table_of(spans, SPANS),
            "standing": table_of(standing, STANDING),
        }
