"""Arrows point one way: who may import whom, told from the source; and nothing heavy is loaded until it is used."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
OURS = ("lakehouse", "assets", "resources", "jobs", "sensors", "definitions", "benchmarks", "tests")
HEAVY = ("tensorflow", "keras", "lightgbm", "mlflow", "matplotlib", "highspy", "sklearn", "pvlib")
TRADES = ("metering", "forecasting", "dispatch", "series", "simulation")

# A room of the library → the rooms it may import, beside itself. What isn't listed may import anything of the library.
MAY_IMPORT = {
    "errors": set(),
    "contracts": {"errors"},
    "storage": {"contracts", "errors"},
    "sources": {"contracts", "errors", "series"},  # the reader of Spain repairs what the general check for swapped dates finds
    "metering": {"contracts", "errors", "storage"},
    "forecasting": {"contracts", "errors", "storage"},
    "dispatch": {"contracts", "errors", "storage"},
    "series": {"contracts", "errors", "storage"},
    "simulation": {"contracts", "errors", "storage"},
    "alerting": {"errors"},
}


def modules(folder: str) -> list[Path]:
    found = sorted((ROOT / folder).rglob("*.py"))
    assert found, folder
    return found


def imports(path: Path) -> Iterator[tuple[str, int, bool]]:
    """Every imported module, its line, and whether that happens at import time (not in a function, not for types only)."""
    tree = ast.parse(path.read_text(encoding="utf-8"))

    def walk(node: ast.AST, at_import: bool) -> Iterator[tuple[str, int, bool]]:
        for child in ast.iter_child_nodes(node):
            lazy = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            for_types = isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test)
            if isinstance(child, ast.Import):
                yield from ((alias.name, child.lineno, at_import) for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                assert child.level == 0, f"{path}:{child.lineno}: imports are absolute"
                yield from ((f"{child.module}.{alias.name}", child.lineno, at_import) for alias in child.names)
            yield from walk(child, at_import and not lazy and not for_types)

    return walk(tree, True)


def offences(folder: str, forbidden: tuple[str, ...]) -> list[str]:
    return [
        f"{path.relative_to(ROOT)}:{line} imports {name}"
        for path in modules(folder)
        for name, line, _ in imports(path)
        if any(name == f or name.startswith(f + ".") for f in forbidden)
    ]


def test_the_library_knows_neither_dagster_nor_what_stands_above_it():
    assert not offences("lakehouse", ("dagster", "assets", "resources", "jobs", "sensors", "definitions", "tests", "benchmarks"))


@pytest.mark.parametrize("room", ["assets", "resources", "jobs", "sensors"])
def test_nothing_that_runs_knows_the_tests(room: str):
    assert not offences(room, ("tests", "benchmarks"))


def test_assets_know_no_jobs_and_no_sensors_and_resources_know_only_the_library():
    assert not offences("assets", ("jobs", "sensors", "definitions"))
    assert not offences("resources", ("assets", "jobs", "sensors", "definitions"))
    assert not offences("sensors", ("definitions",))


@pytest.mark.parametrize("room", list(MAY_IMPORT))
def test_a_room_of_the_library_imports_only_what_stands_below_it(room: str):
    allowed = {room} | MAY_IMPORT[room]
    paths = modules(f"lakehouse/{room}") if (ROOT / "lakehouse" / room).is_dir() else [ROOT / "lakehouse" / f"{room}.py"]
    found = [
        f"{path.relative_to(ROOT)}:{line} imports {name}"
        for path in paths
        for name, line, _ in imports(path)
        if name.startswith("lakehouse.") and name.split(".")[1] not in allowed
    ]
    assert not found


def test_the_trades_share_tables_and_not_each_other():
    for trade in TRADES:
        others = tuple(f"lakehouse.{other}" for other in TRADES if other != trade)
        assert not offences(f"lakehouse/{trade}", others)


def test_nothing_heavy_is_imported_when_a_module_is():
    found = [
        f"{path.relative_to(ROOT)}:{line} imports {name} at its top"
        for folder in ("lakehouse", "assets", "resources", "jobs", "sensors")
        for path in modules(folder)
        for name, line, at_import in imports(path)
        if at_import and name.split(".")[0] in (*HEAVY, "scipy")
    ]
    assert not found


def loaded_after(code: str) -> set[str]:
    script = f"import sys, json\n{code}\nprint(json.dumps(sorted({{m.split('.')[0] for m in sys.modules}})))"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_the_code_location_loads_nothing_heavy():
    loaded = loaded_after("import definitions; assert len(definitions.defs.assets) > 20")
    assert "dagster" in loaded
    assert not loaded & set(HEAVY)


def test_the_command_line_does_not_even_load_dagster():
    assert not loaded_after("import lakehouse.cli") & {*HEAVY, "dagster", "pandas", "duckdb", "deltalake", "pyarrow"}


def test_every_module_imports_without_doing_work():
    names = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for folder in ("lakehouse", "assets", "resources", "jobs", "sensors")
        for path in modules(folder)
    ]
    wrote = "import os; before = set(os.listdir('.'))"
    code = f"{wrote}\nimport importlib\nfor name in {names!r}: importlib.import_module(name)\nassert set(os.listdir('.')) == before"
    assert not loaded_after(code) & set(HEAVY)


def test_every_module_and_public_name_says_what_it_is():
    silent = []
    for folder in ("lakehouse", "assets", "resources", "jobs", "sensors"):
        for path in modules(folder):
            tree = ast.parse(path.read_text(encoding="utf-8"))
            if tree.body and not ast.get_docstring(tree):
                silent.append(str(path.relative_to(ROOT)))
    assert not silent


ABSOLUTE = re.compile(r"""["'\s(]/(home|root|Users|mnt|tmp|var|work)/""")
LISTENS_BEYOND_LOOPBACK = re.compile(r"""["'\s]0\.0\.0\.0""")


@pytest.mark.parametrize("pattern", [ABSOLUTE, LISTENS_BEYOND_LOOPBACK], ids=["absolute path", "open address"])
def test_no_source_names_a_place_on_somebodys_machine(pattern: re.Pattern[str]):
    found = [
        f"{path.relative_to(ROOT)}"
        for folder in ("lakehouse", "assets", "resources", "jobs", "sensors", "examples")
        for path in sorted((ROOT / folder).rglob("*"))
        if path.suffix in (".py", ".yaml", ".json", ".md") and pattern.search(path.read_text(encoding="utf-8"))
    ]
    assert not found
