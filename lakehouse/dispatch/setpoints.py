"""What each controllable asset should do now: the plan's current interval as a table and as messages in a documented form.

Sending them (a file drop, an MQTT broker) is left to whoever owns the connection; docs/dispatch.md describes the form.
"""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

import pandas as pd

from lakehouse.dispatch.fleet import DispatchProblem
from lakehouse.dispatch.solution import DispatchSolution

FORM = "gridlake.setpoint/1"


def setpoints(problem: DispatchProblem, solution: DispatchSolution, now: datetime) -> pd.DataFrame:
    """The set points of the interval that contains `now`; see `schedule`.

    Args:
        problem: fleet and horizon.
        solution: its plan.
        now: a moment in UTC within the horizon.
    """
    start = pd.Timestamp(problem.interval_start[problem.interval_of(now)])
    table = schedule(problem, solution)
    return table[table["valid_from"] == start].reset_index(drop=True)


def schedule(problem: DispatchProblem, solution: DispatchSolution) -> pd.DataFrame:
    """The set points of all intervals.

    Returns:
        asset_id, asset_kind (thermal, renewable, storage, interrupted, shiftable), command (run, off, limit, charge, discharge, idle,
        cut, draw), power_mw (positive feeds the system), reserve_mw, valid_from, valid_until (UTC).
    """
    rows: list[tuple[str, str, str, float, float, int]] = []
    for row in solution.plan.itertuples():
        if row.unit_kind == "thermal":
            rows.append((row.unit_id, "thermal", "run" if row.committed else "off", row.power_mw, row.reserve_mw, row.period))
        else:
            word = "limit" if row.power_mw < row.available_mw - 1e-3 else "run"
            rows.append((row.unit_id, "renewable", word, row.power_mw, 0.0, row.period))
    for row in solution.storage.itertuples():
        net = row.discharge_mw - row.charge_mw
        word = "discharge" if net > 1e-6 else "charge" if net < -1e-6 else "idle"
        rows.append((row.storage_id, "storage", word, net, row.reserve_mw, row.period))
    for row in solution.exchange[solution.exchange["source_kind"].isin(["interrupted", "shiftable"])].itertuples():
        word = "idle" if abs(row.power_mw) < 1e-6 else "cut" if row.source_kind == "interrupted" else "draw"
        rows.append((row.source_id, row.source_kind, word, row.power_mw, row.reserve_mw, row.period))
    table = pd.DataFrame(rows, columns=["asset_id", "asset_kind", "command", "power_mw", "reserve_mw", "period"])
    starts = pd.DatetimeIndex(list(problem.interval_start)).as_unit("us")
    table["valid_from"] = starts[table.pop("period").to_numpy(int) - 1]
    table["valid_until"] = table["valid_from"] + pd.Timedelta(hours=problem.interval_hours)
    return table


def setpoint_messages(table: pd.DataFrame) -> dict[str, str]:
    """One JSON message per asset, keyed by its topic `gridlake/setpoints/<asset>`."""
    messages = {}
    for body in setpoint_bodies(table):
        topic = body["asset"].translate(str.maketrans("/+# ", "____"))
        messages[f"gridlake/setpoints/{topic}"] = json.dumps({"form": FORM} | body)
    return messages


def setpoint_bodies(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Set points as plain values in the documented form."""
    return [
        {
            "asset": str(row.asset_id),
            "command": row.command,
            "power_mw": round(float(row.power_mw), 6) + 0.0,
            "reserve_mw": round(float(row.reserve_mw), 6) + 0.0,
            "valid_from": row.valid_from.isoformat(),
            "valid_until": row.valid_until.isoformat(),
        }
        for row in table.itertuples()
    ]
