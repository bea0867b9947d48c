"""Small pictures for the UI: one glance tells whether a table looks as it should."""

from __future__ import annotations

import io
from datetime import date, timedelta
from typing import Any

from assets.skin import picture
from lakehouse.flow.workspace import Workspace

LONGEST_DAYS = 31
SERIES_SHOWN = 6
SIZE_INCHES = (7.0, 2.4)


def of_series(workspace: Workspace, table: str, days: tuple[date, date]) -> dict[str, Any]:
    """The table's series over the last days of a span."""
    contract = workspace.contract(table)
    value = next((c for c in contract.columns.values() if c.unit and c.name not in ("interval_start", "interval_minutes")), None)
    if value is None:
        return {}
    with workspace.engine(table, days=_shown(days)) as engine:
        name = table.replace("/", ".")
        rows = engine.sql(f"""
            SELECT series_id, interval_start, "{value.name}" AS value FROM {name}
            WHERE series_id IN (
                SELECT series_id FROM {name} GROUP BY series_id ORDER BY avg("{value.name}") DESC NULLS LAST LIMIT {SERIES_SHOWN})
              AND date BETWEEN DATE '{_shown(days)[0]}' AND DATE '{days[1]}'
            ORDER BY series_id, interval_start
        """).fetchall()
    return {"plot": picture(_lines(rows, f"{value.name} [{value.unit}]"))} if rows else {}


def of_readings(workspace: Workspace, days: tuple[date, date]) -> dict[str, Any]:
    """Energy of all meters by hour, and how much of it is estimated."""
    first, last = _shown(days)
    with workspace.engine("cleaned/meter_readings", days=(first, last)) as engine:
        rows = engine.sql(f"""
            SELECT label, hour, sum(energy_kwh) FROM (
                SELECT 'all import' AS label, date_trunc('hour', interval_start) AS hour, energy_kwh
                FROM cleaned.meter_readings WHERE register = 'import'
                UNION ALL
                SELECT 'of it estimated', date_trunc('hour', interval_start), if(is_estimated, energy_kwh, 0)
                FROM cleaned.meter_readings WHERE register = 'import')
            WHERE hour::DATE BETWEEN DATE '{first}' AND DATE '{last}' GROUP BY ALL ORDER BY label, hour
        """).fetchall()
    return {"plot": picture(_lines(rows, "energy [kWh per hour]"))} if rows else {}


def of_meter(workspace: Workspace, meter: str, day: date) -> Any:
    """A meter's readings around a day, with what became of them."""
    from lakehouse.flow.vee import picture_around

    return picture(picture_around(workspace, meter, day))


def _shown(days: tuple[date, date]) -> tuple[date, date]:
    return max(days[0], days[1] - timedelta(days=LONGEST_DAYS - 1)), days[1]


def of_forecast(workspace: Workspace, target: str, rows: Any) -> dict[str, Any]:
    """An issue's first series as a fan: the median, and the intervals of 50 and 80 %."""
    frame = rows.to_pandas()
    frame = frame[frame["series_id"] == frame["series_id"].iloc[0]]
    figure, axes = _figure()
    for low, high, alpha in (("p10", "p90", 0.2), ("p25", "p75", 0.3)):
        if low in frame and high in frame:
            axes.fill_between(
                frame["valid_at"], frame[low], frame[high], alpha=alpha, color="tab:blue", linewidth=0, label=f"{low} to {high}"
            )
    axes.plot(frame["valid_at"], frame["p50"], color="tab:blue", linewidth=1.2, label="median")
    unit = workspace.contract(f"forecasts/{target}").columns["p50"].unit
    return {"plot": picture(_finished(figure, axes, f"{frame['series_id'].iloc[0]} [{unit}]", legend=True))}


def _lines(rows: list[tuple[str, Any, float]], label: str) -> bytes:
    figure, axes = _figure()
    names = list(dict.fromkeys(row[0] for row in rows))
    for name in names:
        own = [(at, value) for series, at, value in rows if series == name]
        axes.plot([at for at, _ in own], [value for _, value in own], linewidth=0.9, label=name)
    return _finished(figure, axes, label, legend=len(names) > 1)


def _figure() -> tuple[Any, Any]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=SIZE_INCHES, dpi=100)
    FigureCanvasAgg(figure)
    # Fixed margins: a layout that measures every label draws the picture twice.
    figure.subplots_adjust(left=0.095, right=0.965, bottom=0.2, top=0.9)
    return figure, figure.subplots()


def _finished(figure: Any, axes: Any, label: str, *, legend: bool) -> bytes:
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

    axes.set_ylabel(label, fontsize=8)
    axes.tick_params(labelsize=7)
    locator = AutoDateLocator()
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))
    axes.xaxis.get_offset_text().set_fontsize(7)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    if legend:
        axes.legend(fontsize=7, frameon=False, ncols=6, loc="lower left", bbox_to_anchor=(0, 1.0))
    written = io.BytesIO()
    figure.savefig(written, format="png")
    return written.getvalue()
