"""What the commands share when they print: the console, tables, JSON, progress. What is printed is each command's business."""

from __future__ import annotations

import json
import math
import sys
from datetime import date, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

PIPED_WIDTH = 200


class OutputFormat(StrEnum):
    """How `sql` prints."""

    TABLE = "table"
    CSV = "csv"
    JSON = "json"
    PARQUET = "parquet"


AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for a script.")]


def console() -> Any:
    """Where people read."""
    from rich.console import Console

    # Piped, a table is as wide as it needs to be: a script or a pager can't guess where a name was split.
    return Console(soft_wrap=True, width=None if sys.stdout.isatty() else PIPED_WIDTH)


def complain(message: str) -> None:
    """A failure, on standard error."""
    from rich.console import Console

    Console(stderr=True, soft_wrap=True).print(message, style="red", highlight=False, markup=False)


def progress_bar() -> Any:
    """A context that shows one progress bar on standard error, and yields the function that feeds it."""
    from contextlib import contextmanager

    @contextmanager
    def shown() -> Any:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
            tasks: dict[str, Any] = {}

            def tell(what: str, done: int, of: int) -> None:
                if what not in tasks:
                    tasks[what] = bars.add_task(what, total=of)
                bars.update(tasks[what], completed=done, total=of)

            yield tell

    return shown()


def print_json(value: Any) -> None:
    """One value for a script."""
    sys.stdout.write(json.dumps(value, default=str, indent=None) + "\n")


def print_table(result: Any) -> None:
    """An Arrow table for people; a long one is cut."""
    from rich.table import Table

    shown = Table(show_edge=False, pad_edge=False)
    numeric = [str(f.type).startswith(("int", "double", "float", "decimal", "uint")) for f in result.schema]
    for name, is_number in zip(result.column_names, numeric, strict=True):
        shown.add_column(name, justify="right" if is_number else "left", overflow="fold")
    for row in result.slice(0, 200).to_pylist():
        shown.add_row(*(cell(v) for v in row.values()))
    console().print(shown)
    rows = result.num_rows
    console().print(f"{rows:,} row{'' if rows == 1 else 's'}" + (", the first 200 shown" if rows > 200 else ""), style="dim")


def cell(value: Any) -> str:
    """A value as people read it."""
    from rich.markup import escape

    if value is None:
        return "[dim]–[/]"
    if isinstance(value, float):
        return f"{value:,.4g}" if abs(value) < 1 else f"{value:,.2f}"
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M}"
    return escape(str(value)).replace("\x1b", "�")


def write_result(result: Any, shape: OutputFormat, out: Path | None) -> None:
    """An Arrow table in the asked shape, to a file or to standard output."""
    if shape is OutputFormat.PARQUET:
        import pyarrow.parquet as pq

        assert out is not None
        pq.write_table(result, out)
        return
    if shape is OutputFormat.JSON:
        text = json.dumps(finite(result.to_pylist()), default=json_value) + "\n"
    elif shape is OutputFormat.CSV:
        import io

        import pyarrow.csv as pc

        buffer = io.BytesIO()
        pc.write_csv(result, buffer)
        text = buffer.getvalue().decode()
    else:
        text = result.to_pandas().to_string(index=False) + "\n"
    if out:
        out.write_text(text, encoding="utf-8")
    else:
        sys.stdout.write(text)


def finite(value: Any) -> Any:
    """JSON has no word for what is no number."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {k: finite(v) for k, v in value.items()}
    return [finite(v) for v in value] if isinstance(value, list) else value


def json_value(value: Any) -> Any:
    """What JSON itself has no word for."""
    return value.isoformat() if isinstance(value, date | datetime) else str(value)
