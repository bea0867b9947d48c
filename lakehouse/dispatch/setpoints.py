"""What each controllable asset should do now: the plan's current interval as a table and as messages in a documented form.

Sending them (a file drop, an MQTT broker) is left to whoever owns the connection; docs/dispatch.md describes the form.
"""

from __future__ import annotations

import json
from datetime import datetime, timedelta

import pandas as pd

from lakehouse.dispatch.fleet import DispatchProblem
from lakehouse.dispatch.solution import DispatchSolution

FORM = "gridlake.setpoint/1"


def setpoints(problem: DispatchProblem, solution: DispatchSolution, now: datetime) -> pd.DataFrame:
    """The set points of the interval that contains `now`.

    Args:
        problem: fleet and horizon.
        solution: its plan.
        now: a moment in UTC within the horizon.

    Returns:
        asset_id, asset_kind (thermal, renewable, storage, interrupted, shiftable), command (run, off, limit, charge, discharge, idle,
        cut, draw),
        power_mw (positive feeds the system), reserve_mw, valid_from, valid_until (UTC).
    """
    at = problem.interval_of(now)
    start = problem.interval_start[at]
    end = start + timedelta(hours=problem.interval_hours)
    rows: list[tuple[str, str, str, float, float]] = []
    for row in solution.plan[solution.plan["period"] == at + 1].itertuples():
        if row.unit_kind == "thermal":
            rows.append((row.unit_id, "thermal", "run" if row.committed else "off", row.power_mw, row.reserve_mw))
        else:
            rows.append((row.unit_id, "renewable", "limit" if row.power_mw < row.available_mw - 1e-3 else "run", row.power_mw, 0.0))
    for row in solution.storage[solution.storage["period"] == at + 1].itertuples():
        net = row.discharge_mw - row.charge_mw
        rows.append((row.storage_id, "storage", "discharge" if net > 1e-6 else "charge" if net < -1e-6 else "idle", net, row.reserve_mw))
    for row in solution.exchange[solution.exchange["period"] == at + 1].itertuples():
        if row.source_kind in ("interrupted", "shiftable"):
            word = "idle" if abs(row.power_mw) < 1e-6 else "cut" if row.source_kind == "interrupted" else "draw"
            rows.append((row.source_id, row.source_kind, word, row.power_mw, row.reserve_mw))
    table = pd.DataFrame(rows, columns=["asset_id", "asset_kind", "command", "power_mw", "reserve_mw"])
    table["valid_from"], table["valid_until"] = pd.Timestamp(start).as_unit("us"), pd.Timestamp(end).as_unit("us")
    return table


def setpoint_messages(table: pd.DataFrame) -> dict[str, str]:
    """One JSON message per asset, keyed by its topic `gridlake/setpoints/<asset>`."""
    messages = {}
    for row in table.itertuples():
        body = {
            "form": FORM,
            "asset": row.asset_id,
            "command": row.command,
            "power_mw": round(float(row.power_mw), 3) + 0.0,
            "reserve_mw": round(float(row.reserve_mw), 3) + 0.0,
            "valid_from": row.valid_from.isoformat(),
            "valid_until": row.valid_until.isoformat(),
        }
        topic = str(row.asset_id).translate(str.maketrans("/+# ", "____"))
        messages[f"gridlake/setpoints/{topic}"] = json.dumps(body)
    return messages
