"""Rows of meter readings gathered one by one, for readers of record formats (NEM12, NEM13, Green Button, register reads)."""

from __future__ import annotations

import pyarrow as pa

from lakehouse.sources.base import LandedFile
from lakehouse.sources.delimited import READING_COLUMNS, complete

ROWS_A_TABLE = 200_000


class ReadingRows:
    """Gathers readings and faults of one text and gives them as tables of the raw shape.

    Args:
        file: the landed file.
        name: what rows carry in `file`.
    """

    def __init__(self, file: LandedFile, name: str) -> None:
        self.file, self.name = file, name
        self._rows: list[tuple] = []

    def __len__(self) -> int:
        return len(self._rows)

    def is_full(self) -> bool:
        """Whether it is time to take a table."""
        return len(self._rows) >= ROWS_A_TABLE

    def reading(self, line: int, meter: str, register: str, start_us: int, minutes: int, energy_kwh: float, quality: str | None) -> None:
        """Adds a reading; `start_us` is its start in microseconds since 1970 UTC."""
        self._rows.append((line, meter, register, start_us, minutes, energy_kwh, quality, None, None))

    def fault(
        self,
        line: int,
        words: str,
        raw: str,
        *,
        meter: str | None = None,
        register: str | None = None,
        start_us: int | None = None,
        minutes: int | None = None,
    ) -> None:
        """Adds a row that could not be read, with what is wrong and its text."""
        self._rows.append((line, meter, register, start_us, minutes, None, None, words, raw[:1000]))

    def table(self) -> pa.Table:
        """Takes what was gathered."""
        columns = list(zip(*self._rows, strict=True)) or [()] * 9
        self._rows = []
        names = ("line", *READING_COLUMNS, "fault", "raw_text")
        kinds = (pa.int64(), *READING_COLUMNS.values(), pa.string(), pa.string())
        arrays = [
            pa.array(c, pa.int64()).cast(kind) if pa.types.is_timestamp(kind) else pa.array(c, kind)
            for c, kind in zip(columns, kinds, strict=True)
        ]
        return complete(pa.table(arrays, names=list(names)), self.file, self.name)
