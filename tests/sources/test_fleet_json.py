"""The fleet as a JSON document."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path

import pyarrow as pa

from lakehouse.contracts.cleaned import UNIT_KINDS
from lakehouse.sources.base import LandedFile, ReadOptions, read_file


def read(tmp_path: Path, text: str) -> list[dict]:
    path = tmp_path / "fleet.json"
    path.write_text(text, encoding="utf-8")
    return pa.concat_tables(read_file(LandedFile(path, path.name, date(2026, 1, 1), "fleet"), "fleet_json", ReadOptions())).to_pylist()


def test_each_unit_is_a_row_with_its_parameters(tmp_path: Path):
    units = [{"unit_id": "gas_1", "kind": "thermal", "maximum_mw": 400.0}, {"unit_id": "sun", "kind": "solar"}]
    gas, sun = read(tmp_path, json.dumps({"units": units}))
    assert (gas["line"], gas["unit_id"], gas["kind"], json.loads(gas["parameters"])["maximum_mw"]) == (1, "gas_1", "thermal", 400.0)
    assert (sun["line"], sun["unit_id"], sun["fault"]) == (2, "sun", None)


def test_a_unit_without_name_or_of_unknown_kind_is_kept_with_its_fault(tmp_path: Path):
    nameless, odd, wrong = read(tmp_path, '{"units": [{"kind": "wind"}, {"unit_id": "x", "kind": "magic"}, 7]}')
    assert nameless["fault"] == "expected a name in 'unit_id', found none"
    assert odd["fault"] == f"unit 'x': expected one of {', '.join(UNIT_KINDS)} in 'kind', found 'magic'"
    assert wrong["fault"] == "expected a unit as a JSON object, found int"


def test_a_file_that_is_no_fleet_is_one_row_with_the_reason(tmp_path: Path):
    assert "expected a JSON document" in read(tmp_path, "unit_id,kind\n")[0]["fault"]
    assert "with at least one unit" in read(tmp_path, '{"plants": []}')[0]["fault"]
