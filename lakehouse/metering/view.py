"""One meter's readings as a person looks at them: a table with the flags, and a plot. Reads what VEE has written."""

from __future__ import annotations

from datetime import date
from typing import Any

import duckdb
import pyarrow as pa

NOT_MEASURED_COLOURS = {"estimated": "#d95f02", "edited": "#7570b3"}


def vee_view(
    connection: duckdb.DuckDBPyConnection,
    meter_id: str,
    *,
    readings: str,
    quarantine: str | None = None,
    first: date | None = None,
    last: date | None = None,
    time_zone: str = "UTC",
) -> pa.Table:
    """A meter's readings with their flags, and the delivered rows that were refused, in the order of register and time.

    Args:
        connection: DuckDB.
        meter_id: the meter.
        readings: name of a relation like cleaned/meter_readings.
        quarantine: name of a relation like quality/quarantine, or None.
        first: first local day, or None for all.
        last: last local day, or None for all.
        time_zone: the site's IANA zone, for `local_start` and the days.

    Returns:
        Columns local_start (timestamp of the local clock), register, interval_minutes, energy_kwh, quality, rule, method,
        delivered_kwh, interval_start (UTC) and reason. A refused row has the quality `refused`, its value in delivered_kwh and
        why in reason.
    """
    local = f"timezone({_text(time_zone)}, interval_start)"
    since = f"CAST({local} AS DATE) >= DATE '{first}'" if first else "true"
    until = f"CAST({local} AS DATE) <= DATE '{last}'" if last else "true"
    span = f"{since} AND {until}"
    refused = (
        f"""
        UNION ALL
        SELECT {local} AS local_start, register, interval_minutes, NULL AS energy_kwh, 'refused' AS quality, rule, NULL AS method,
               energy_kwh AS delivered_kwh, interval_start, reason
        FROM {quarantine} WHERE meter_id = {_text(meter_id)} AND interval_start IS NOT NULL AND {span}"""
        if quarantine
        else ""
    )
    return connection.sql(
        f"""
        SELECT {local} AS local_start, register, interval_minutes, energy_kwh, quality, rule, method, delivered_kwh, interval_start,
            NULL::VARCHAR AS reason
        FROM {readings} WHERE meter_id = {_text(meter_id)} AND {span}
        {refused}
        ORDER BY register, interval_start, quality
        """
    ).to_arrow_table()


def vee_summary(view: pa.Table) -> dict[str, int]:
    """How many rows of a view have each quality or, where one fired, each rule."""
    counts: dict[str, int] = {}
    for quality, rule in zip(view["quality"].to_pylist(), view["rule"].to_pylist(), strict=True):
        name = f"{quality}: {rule}" if rule else quality
        counts[name] = counts.get(name, 0) + 1
    return dict(sorted(counts.items()))


def vee_plot(view: pa.Table, *, title: str = "") -> Any:
    """A figure of a view: mean power by register over local time; estimated and edited intervals marked, refused values as crosses.

    Args:
        view: what `vee_view` gives.
        title: the figure's title.

    Returns:
        A matplotlib Figure, drawn without a display; save it with `savefig`.
    """
    from matplotlib.figure import Figure

    rows = view.to_pylist()
    registers = sorted({r["register"] for r in rows if r["register"]}) or ["import"]
    figure = Figure(figsize=(11, 2.6 * len(registers) + 0.6), layout="constrained")
    axes = figure.subplots(len(registers), 1, sharex=True, squeeze=False)[:, 0]
    for axis, register in zip(axes, registers, strict=True):
        mine = [r for r in rows if r["register"] == register]
        standing = [r for r in mine if r["energy_kwh"] is not None]
        times = [r["local_start"] for r in standing]
        axis.step(times, [_kw(r, "energy_kwh") for r in standing], where="post", color="#444444", linewidth=1.0)
        for quality, colour in NOT_MEASURED_COLOURS.items():
            marked = [r for r in standing if r["quality"] == quality]
            axis.plot([r["local_start"] for r in marked], [_kw(r, "energy_kwh") for r in marked], "o", ms=3.5, color=colour, label=quality)
        refused = [r for r in mine if r["quality"] == "refused" and r["delivered_kwh"] is not None and r["interval_minutes"]]
        times = [r["local_start"] for r in refused]
        axis.plot(times, [_kw(r, "delivered_kwh") for r in refused], "x", ms=6, color="#c1121f", label="refused")
        highest = max((_kw(r, "energy_kwh") for r in standing), default=1.0)
        worst = max((_kw(r, "delivered_kwh") for r in refused), default=0.0)
        if worst > 20 * max(highest, 1e-9):
            axis.set_yscale("symlog", linthresh=max(highest, 0.01))
        axis.set_ylabel(f"{register} (kW)")
        axis.grid(alpha=0.25)
        axis.legend(loc="upper right", ncols=3, fontsize="small", frameon=False)
    axes[0].set_title(title)
    axes[-1].set_xlabel("local time")
    return figure


def _kw(row: dict[str, Any], column: str) -> float:
    return row[column] * 60.0 / row["interval_minutes"]


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"
