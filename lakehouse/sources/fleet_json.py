"""The fleet as one JSON document: `{"units": [{"unit_id": …, "kind": …, …}]}`, gzip or plain.

Each unit is one row with all of its parameters as JSON; what the parameters mean, and which are needed, is dispatch's business.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from lakehouse.contracts.cleaned import UNIT_KINDS
from lakehouse.contracts.raw import RAW_TEXT_LIMIT, RawFleet
from lakehouse.errors import SourceError
from lakehouse.sources.archives import members
from lakehouse.sources.base import Format, LandedFile, ReadOptions


def read(file: LandedFile, options: ReadOptions) -> Iterator[pa.Table]:
    """Reads one document; `line` is the unit's place in the list, from 1.

    Raises:
        SourceError: no JSON, or no list of units in it.
    """
    for member in members(file):
        name = member.name
        try:
            document = json.loads(member.stream.read().decode("utf-8-sig"))
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise SourceError(
                f"{name}: expected a JSON document, found something else: {error}.", "Mend the file and land it again."
            ) from error
        units = document.get("units") if isinstance(document, dict) else None
        if not isinstance(units, list) or not units:
            raise SourceError(
                f'{name}: expected {{"units": [...]}} with at least one unit, found none.', "Mend the file and land it again."
            )
        rows = [_row(unit, line, name, file) for line, unit in enumerate(units, 1)]
        yield RawFleet.from_rows(rows)


def _row(unit: Any, line: int, name: str, file: LandedFile) -> dict[str, Any]:
    row = dict.fromkeys(RawFleet.columns) | {"file": name, "line": line, "delivery_date": file.delivery_date}
    text = json.dumps(unit, ensure_ascii=False, sort_keys=True)
    fault = _fault(unit)
    if fault:
        return row | {"fault": fault, "raw_text": text[:RAW_TEXT_LIMIT]}
    return row | {"unit_id": str(unit["unit_id"]), "kind": unit["kind"], "parameters": text}


def _fault(unit: Any) -> str | None:
    if not isinstance(unit, dict):
        return f"expected a unit as a JSON object, found {type(unit).__name__}"
    if not str(unit.get("unit_id") or "").strip():
        return "expected a name in 'unit_id', found none"
    if unit.get("kind") not in UNIT_KINDS:
        return f"unit '{unit['unit_id']}': expected one of {', '.join(UNIT_KINDS)} in 'kind', found '{unit.get('kind')}'"
    return None


FORMAT = Format(
    name="fleet_json",
    shape="fleet",
    description='The fleet as JSON: {"units": [{"unit_id", "kind", parameters with units in their names}]}.',
    read=read,
    looks_like=lambda head, name: head.lstrip().startswith(b"{") and b'"units"' in head,
)
