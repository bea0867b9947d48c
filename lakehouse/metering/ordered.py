"""Rows in the order of meter, register and time, as arrays: where registers change, their keys, and what is the same of both."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

EPOCH = date(1970, 1, 1)


def filled_batches(reader: pa.RecordBatchReader) -> Iterator[pa.Table]:
    """The batches of a stream that hold rows."""
    for batch in reader:
        if batch.num_rows:
            yield pa.Table.from_batches([batch])


def register_changes(table: pa.Table) -> np.ndarray:
    """Rows after which another register begins."""
    if table.num_rows < 2:
        return np.array([], np.int64)
    meters, registers = table["meter_id"].combine_chunks(), table["register"].combine_chunks()
    return np.flatnonzero(differs(meters) | differs(registers))


@dataclass(frozen=True)
class Rows:
    """Readings as arrays, the rows of a register one after the other.

    Args:
        meters: the meter of each stretch of rows of one register.
        registers: its register.
        opens: its first row.
        start: interval start of each row, microseconds since 1970.
        minutes: its interval length.
        kwh: its energy.
        file: its file, as a number.
        line: its line there.
        by_sender: whether the sender marked it as estimated.
    """

    meters: pa.Array
    registers: pa.Array
    opens: np.ndarray
    start: np.ndarray
    minutes: np.ndarray
    kwh: np.ndarray
    file: np.ndarray
    line: np.ndarray
    by_sender: np.ndarray

    def brought_together(self) -> tuple[Rows, int]:
        """The same in the order of register and time, each register in one stretch; and from how many stretches in that order."""
        keys = key_of(self.meters, self.registers).dictionary_encode()
        ranks = np.empty(len(keys.dictionary), np.int64)
        ranks[pc.array_sort_indices(keys.dictionary).to_numpy()] = np.arange(len(ranks))
        of_stretch = ranks[keys.indices.to_numpy()]
        rank = np.repeat(of_stretch, np.diff(np.append(self.opens, len(self.start))))
        earliest = int(self.start.min())
        span = int(self.start.max()) - earliest + 1
        if len(ranks) * span < 2**63:
            place = rank * span + (self.start - earliest)
            order = np.argsort(place, kind="stable")  # which merges the stretches that are in order
            falls = place[1:] < place[:-1]
        else:
            order = np.lexsort((self.start, rank))
            falls = (rank[1:] < rank[:-1]) | (rank[1:] == rank[:-1]) & (self.start[1:] < self.start[:-1])
        names, first = np.unique(of_stretch, return_index=True)
        together = Rows(
            self.meters.take(pa.array(first)),
            self.registers.take(pa.array(first)),
            np.searchsorted(rank[order], names),
            *(values[order] for values in (self.start, self.minutes, self.kwh, self.file, self.line, self.by_sender)),
        )
        return together, 1 + int(np.count_nonzero(falls))


def differs(values: pa.Array) -> np.ndarray:
    """Whether each value but the first is another than the one before it."""
    if len(values) < 2:
        return np.array([], bool)
    return pc.not_equal(values.slice(1), values.slice(0, len(values) - 1)).to_numpy(zero_copy_only=False)


def keys_of(table: pa.Table) -> pa.Array:
    """The key of the register of each row."""
    return key_of(table["meter_id"].combine_chunks(), table["register"].combine_chunks())


def key_of(meters: pa.Array, registers: pa.Array) -> pa.Array:
    """Keys of registers: meter and register in one text."""
    return pc.binary_join_element_wise(meters, registers, "\x1f")


def matches(names: pa.Array, pattern: str) -> np.ndarray:
    """Which names match a regular expression."""
    return pc.match_substring_regex(names, pattern).to_numpy(zero_copy_only=False)


def groups(one: np.ndarray, other: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """An order that brings equal pairs together, and where each group begins in it."""
    order = np.lexsort((other, one))
    changes = np.ones(len(order), bool)
    changes[1:] = (np.diff(one[order]) != 0) | (np.diff(other[order]) != 0)
    return order, np.flatnonzero(changes)


def stamps(microseconds: np.ndarray) -> pa.Array:
    """Moments from microseconds since 1970."""
    return pa.array(microseconds.astype(np.int64)).cast(pa.timestamp("us", "UTC"))


def joined(parts: list[pa.Table], schema: pa.Schema) -> pa.Table:
    """One table of several, with a schema; the empty one of none."""
    return pa.concat_tables(parts).cast(schema) if parts else schema.empty_table()


def table_of(rows: list[tuple[Any, ...]], schema: pa.Schema) -> pa.Table:
    """Rows as a table; dates are days and moments microseconds since 1970."""
    columns: list[Any] = list(zip(*rows, strict=True)) if rows else [[] for _ in schema]
    arrays = []
    for values, field in zip(columns, schema, strict=True):
        if pa.types.is_date32(field.type):
            arrays.append(pa.array(list(values), pa.int32()).cast(field.type))
        elif pa.types.is_timestamp(field.type):
            arrays.append(pa.array(list(values), pa.int64()).cast(field.type))
        else:
            arrays.append(pa.array(list(values), field.type))
    return pa.table(arrays, schema=schema)
