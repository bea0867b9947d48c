"""Files that are written from the code: the data dictionary (`docs/tables.md`) and a picture of each main site's asset graph.

`python -m tests.generated` (or `make docs`) writes them anew; `tests/architecture/test_generated.py` fails when one has fallen behind,
so that a review sees when a table or the graph changes.
"""

from __future__ import annotations

import sys
import tempfile
from datetime import date
from pathlib import Path

from lakehouse.flow.dictionary import as_markdown
from lakehouse.flow.setup import EXAMPLES, parse_example
from lakehouse.flow.tables import tables_of
from lakehouse.site import Site

ROOT = Path(__file__).resolve().parents[1]
GRAPH_SITES = ("sample", "spain", "octopus")
REWRITE = "Write it anew with: python -m tests.generated"


def example(name: str) -> Site:
    """An example site as it ships; its folder and first day are of no account here."""
    home = Path(tempfile.gettempdir()) / "gridlake-example"
    return parse_example((EXAMPLES / f"{name}.yaml").read_text(encoding="utf-8"), home, date(2026, 1, 1))


def asset_graph(site: Site) -> str:
    """One line per asset, sorted: key, group, partitioned or not, what it depends on, and its checks."""
    from definitions import build_definitions

    graph = build_definitions(site).resolve_asset_graph()
    lines = []
    for key in graph.get_all_asset_keys():
        node = graph.get(key)
        checks = sorted(f"{c.name}{'!' if graph.get_check_spec(c).blocking else ''}" for c in node.check_keys)
        lines.append(
            f"{key.to_user_string()} | {node.group_name} | {'by day' if node.partitions_def else 'whole'}"
            f" | deps: {', '.join(sorted(parent.to_user_string() for parent in node.parent_keys)) or '-'}"
            f" | checks: {', '.join(checks) or '-'}"
        )
    return "\n".join(["# asset | group | partitions | deps | checks (! blocks what comes after)", *sorted(lines)]) + "\n"


def generated() -> dict[Path, str]:
    """Every generated file with the text that it should have."""
    files = {ROOT / "docs" / "tables.md": as_markdown(list(tables_of(example("sample")).values()))}
    return files | {ROOT / "tests" / "golden" / f"asset_graph_{name}.txt": asset_graph(example(name)) for name in GRAPH_SITES}


def main() -> None:
    """Writes the files that have fallen behind."""
    for path, text in generated().items():
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
            sys.stdout.write(f"written: {path.relative_to(ROOT)}\n")


if __name__ == "__main__":
    main()
