"""Rows in the order of meter, register and time, as arrays: where registers change, their keys, and what is the same of both."""

from __future__ import annotations

from collections.abc import Iterator
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
