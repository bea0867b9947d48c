"""The data dictionary, from the contracts: for the command, and as `docs/tables.md`."""

from __future__ import annotations

from typing import Any

from lakehouse.contracts.base import Table
from lakehouse.flow.workspace import Workspace

HEADING = """# Tables

Made from the contracts in `lakehouse/contracts/` for the sample site by `gridlake tables --markdown`; a test keeps it in step.
One name everywhere: the Dagster asset `cleaned/load`, the Delta table `cleaned/load/` and `cleaned.load` in DuckDB are the same.
Times are UTC; an interval is named by its start.
"""


def describe(workspace: Workspace, name: str | None = None) -> list[dict[str, Any]]:
    """All tables, or one: description, key, columns with units, and how many rows it has.

    Raises:
        TableNotFoundError: this site has no such table.
    """
    contracts = [workspace.contract(name)] if name else list(workspace.contracts.values())
    return [_described(workspace, c) for c in contracts]


def _described(workspace: Workspace, contract: type[Table]) -> dict[str, Any]:
    table = workspace.lake.table(contract)
    files = table.files()
    newest = max((f.partition["date"] for f in files if f.partition.get("date")), default=None)
    return {
        "table": contract.name.replace("/", "."),
        "description": contract.description(),
        "rows": sum(f.rows for f in files) if table.exists() else None,
        "bytes": sum(f.bytes for f in files),
        "newest": newest.isoformat() if newest else None,
        "key": list(contract.key),
        "partitioned_by": list(contract.partitioned_by),
        "columns": [
            {"name": c.name, "type": c.sql_type, "unit": c.unit, "nullable": c.nullable, "description": c.description}
            for c in contract.columns.values()
        ],
    }


def as_markdown(contracts: list[type[Table]]) -> str:
    """The data dictionary as Markdown."""
    parts = [HEADING]
    layer = ""
    for contract in contracts:
        if contract.layer() != layer:
            layer = contract.layer()
            parts.append(f"\n## {layer}\n")
        key = ", ".join(f"`{k}`" for k in contract.key)
        by = f"; partitioned by {', '.join(f'`{p}`' for p in contract.partitioned_by)}" if contract.partitioned_by else ""
        parts.append(f"\n### {contract.name.replace('/', '.')}\n\n{contract.description()} Key: {key}{by}.\n\n")
        parts.append("| column | type | unit | what it is |\n| --- | --- | --- | --- |\n")
        for c in contract.columns.values():
            told = c.description.replace("|", "/") + (" May be missing." if c.nullable else "")
            parts.append(f"| `{c.name}` | {c.sql_type} | {c.unit or ''} | {told} |\n")
    return "".join(parts)
