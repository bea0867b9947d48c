"""Generated files are in step with the code that they are written from."""

from __future__ import annotations

import difflib

import pytest

from tests.generated import GRAPH_SITES, REWRITE, ROOT, generated

NAMES = ["docs/tables.md", *(f"tests/golden/asset_graph_{site}.txt" for site in GRAPH_SITES)]


@pytest.fixture(scope="module")
def files() -> dict[str, str]:
    return {path.relative_to(ROOT).as_posix(): text for path, text in generated().items()}


@pytest.mark.parametrize("name", NAMES)
def test_a_generated_file_is_in_step(files: dict[str, str], name: str):
    path = ROOT / name
    written = path.read_text(encoding="utf-8") if path.exists() else ""
    change = "\n".join(
        difflib.unified_diff(written.splitlines(), files[name].splitlines(), "as written", "as it should be", lineterm="", n=0)
    )
    assert not change, f"{name} has fallen behind. {REWRITE}\n{change}"


def test_every_generated_file_is_looked_at(files: dict[str, str]):
    assert sorted(files) == sorted(NAMES)
