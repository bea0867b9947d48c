"""What dictionaries of numbers cost and save in Delta's files: features, whose numbers seldom repeat, and readings, whose do.

    python -m benchmarks.lake_encoding SITE            # any refreshed site; a table that it lacks is left out

Each table is written whole, unpartitioned, three ways, and read again; the least processor time of three.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
from deltalake import ColumnProperties, WriterProperties, write_deltalake

from lakehouse.errors import TableNotFoundError
from lakehouse.flow.workspace import Workspace

TABLES = ("features/demand", "cleaned/meter_readings", "cleaned/load", "cleaned/weather")


def ways(table: pa.Table) -> dict[str, WriterProperties | None]:
    """Delta's own way and two without dictionaries."""
    plain = {f.name: ColumnProperties(dictionary_enabled=False) for f in table.schema if pa.types.is_floating(f.type)}
    return {
        "dictionaries, Snappy": None,
        "no dictionaries, Snappy": WriterProperties(compression="SNAPPY", column_properties=plain),
        "no dictionaries, ZSTD 1": WriterProperties(compression="ZSTD", compression_level=1, column_properties=plain),
    }


def written(table: pa.Table, properties: WriterProperties | None) -> tuple[float, int]:
    """Processor seconds and bytes of one write."""
    given: dict[str, Any] = {} if properties is None else {"writer_properties": properties}
    with tempfile.TemporaryDirectory() as folder:
        began = time.process_time()
        write_deltalake(folder, table, **given)
        seconds = time.process_time() - began
        return seconds, sum(p.stat().st_size for p in Path(folder).rglob("*.parquet"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("site", type=Path)
    workspace = Workspace.open(parser.parse_args().site)
    for name in TABLES:
        try:
            table = workspace.table(name).read()
        except TableNotFoundError:
            continue
        print(f"{name}: {table.num_rows:,} rows, {len(table.column_names)} columns")
        usual: tuple[float, int] | None = None
        for way, properties in ways(table).items():
            runs = [written(table, properties) for _ in range(3)]
            found = min(s for s, _ in runs), runs[0][1]
            usual = usual or found
            shares = f"{found[0] / usual[0]:.2f} x time, {found[1] / usual[1]:.2f} x size"
            print(f"  {way:26s} {found[0]:6.2f} s  {found[1] / 1e6:7.2f} MB  {shares}")


if __name__ == "__main__":
    main()
