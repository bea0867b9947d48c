"""One meter's readings, with what validation, estimation and editing made of them: as a table and as a picture."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa

from lakehouse.errors import TableNotFoundError
from lakehouse.flow.workspace import Workspace
from lakehouse.storage.engine import register as as_view

SHOWN_DAYS = 7
WIDTH_INCHES = 11.0
WORST_METERS = 5
COLOURS = {"measured": "tab:blue", "estimated": "tab:orange", "edited": "tab:purple", "refused": "tab:red"}


@dataclass(frozen=True)
class Found:
    """What a rule found in some days.

    Args:
        rows: delivered rows, or missing intervals, that it named.
        meters: how many meters they are of.
        worst: the meters of which it named most, with their rows and the day with most of them.
    """

    rows: int
    meters: int
    worst: list[tuple[str, int, date]]


def found_by_rule(workspace: Workspace, first: date, last: date) -> dict[str, Found]:
    """What each rule found in the reports of some UTC days, both included; rules that found nothing are not told."""
    with workspace.engine("quality/vee_report", days=(first, last)) as engine:
        rows = engine.sql(
            f"""
            WITH told AS (
                SELECT meter_id, date, unnest(json_keys(findings)) AS rule, findings FROM quality.vee_report
                WHERE findings IS NOT NULL AND date BETWEEN $first AND $last
            ), counted AS (
                SELECT rule, meter_id, date, sum(CAST(json_extract(findings, '$."' || rule || '"') AS BIGINT)) AS n
                FROM told GROUP BY rule, meter_id, date
            ), of_meters AS (
                SELECT rule, meter_id, CAST(sum(n) AS BIGINT) AS n, arg_max(date, (n, date)) AS day FROM counted GROUP BY rule, meter_id
            )
            SELECT rule, CAST(sum(n) AS BIGINT), count(*), arg_max((meter_id, n, day), (n, meter_id), {WORST_METERS})
            FROM of_meters GROUP BY rule
            """,
            params={"first": first, "last": last},
        ).fetchall()
        rows += _registers_that_differ(workspace, engine, first, last)
    return {rule: Found(n, meters, [tuple(one) for one in worst]) for rule, n, meters, worst in rows}


def _registers_that_differ(workspace: Workspace, engine: Any, first: date, last: date) -> list[tuple]:
    """The register differences that reach into some days and that the intervals do not add up to, like a rule's findings."""
    from lakehouse.metering.registers import RULE

    if not workspace.table("cleaned/register_differences").exists():
        return []
    spans = as_view(engine, workspace.table("cleaned/register_differences"))
    found = engine.sql(
        f"""
        SELECT meter_id, count(*) AS n, arg_max(date, abs(interval_kwh - register_kwh)) AS day FROM {spans}
        WHERE verdict = 'differs' AND date <= $last AND interval_end > CAST($first AS TIMESTAMPTZ) GROUP BY meter_id
        ORDER BY n DESC, meter_id
        """,
        params={"first": first, "last": last},
    ).fetchall()
    return [(RULE, sum(n for _, n, _ in found), len(found), found[:WORST_METERS])] if found else []


def picture_around(workspace: Workspace, meter: str, day: date) -> bytes:
    """A meter's readings on a day and the two beside it, as a picture (PNG)."""
    found = readings_of_meter(workspace, meter, day - timedelta(days=1), day + timedelta(days=1))
    return _picture(found, meter)


def readings_of_meter(
    workspace: Workspace, meter: str, first: date | None = None, last: date | None = None, plot: Path | None = None
) -> pa.Table:
    """A meter's intervals: what was delivered, what stands now, and by which rule; refused readings are rows of their own.

    Args:
        workspace: the site at work.
        meter: the meter.
        first: first UTC day; by default a week before the last.
        last: last UTC day, included; by default the newest day with readings.
        plot: where to write a picture (PNG), if one is wanted.

    Raises:
        TableNotFoundError: the site has no meter readings, or none of this meter.
    """
    if not workspace.has("cleaned/meter_readings"):
        raise TableNotFoundError(f"The site '{workspace.site.name}' has no meter readings.", "gridlake tables lists what it has.")
    if first is None or last is None:
        newest = _newest_day(workspace, meter)
        last = last or newest
        first = first or date.fromordinal(last.toordinal() - SHOWN_DAYS + 1)
    with workspace.engine("cleaned/meter_readings", "quality/quarantine", days=(first, last)) as engine:
        found = engine.sql(
            """
            SELECT register, interval_start, interval_minutes, energy_kwh, quality, rule, method, delivered_kwh, file
            FROM cleaned.meter_readings WHERE meter_id = $meter AND date BETWEEN $first AND $last
            UNION ALL BY NAME
            SELECT register, interval_start, interval_minutes, NULL AS energy_kwh, 'refused' AS quality, rule,
                   energy_kwh AS delivered_kwh, file
            FROM quality.quarantine WHERE meter_id = $meter AND date BETWEEN $first AND $last AND interval_start IS NOT NULL
            ORDER BY register, interval_start, quality""",
            params={"meter": meter, "first": first, "last": last},
        ).to_arrow_table()
    if not found.num_rows:
        _newest_day(workspace, meter)  # raises if the meter has no readings at all
    if plot is not None:
        plot.write_bytes(_picture(found, meter))
    return found


def _newest_day(workspace: Workspace, meter: str) -> date:
    with workspace.engine("cleaned/meter_readings", "quality/quarantine") as engine:
        # a meter all of whose rows were refused is in quarantine only
        [(newest,)] = engine.sql(
            """
            SELECT max(date) FROM (
                SELECT date FROM cleaned.meter_readings WHERE meter_id = $meter UNION ALL
                SELECT date FROM quality.quarantine WHERE meter_id = $meter)""",
            params={"meter": meter},
        ).fetchall()
        if newest is None:
            some = engine.sql("SELECT DISTINCT meter_id FROM cleaned.meter_readings ORDER BY meter_id LIMIT 5").fetchall()
            raise TableNotFoundError(
                f"There are no readings of meter '{meter}'.", f"Meters are named like {', '.join(m for (m,) in some)}."
            )
    return newest


def _picture(found: pa.Table, meter: str) -> bytes:
    import io

    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
    from matplotlib.figure import Figure

    rows = found.to_pandas()
    registers = sorted(rows["register"].dropna().unique())
    height = 2.6 * max(len(registers), 1)
    figure = Figure(figsize=(WIDTH_INCHES, height), dpi=120)
    FigureCanvasAgg(figure)
    # Fixed margins: a layout that measures every label draws the picture twice.
    figure.subplots_adjust(left=0.9 / WIDTH_INCHES, right=1 - 0.35 / WIDTH_INCHES, bottom=0.5 / height, top=1 - 0.1 / height)
    for axes, register in zip(figure.subplots(max(len(registers), 1), squeeze=False)[:, 0], registers, strict=False):
        own = rows[rows["register"] == register]
        standing = own[own["energy_kwh"].notna()]
        ceiling = standing["energy_kwh"].max()
        # A spike must not flatten the rest: what is higher stands at the upper edge.
        top = 1.6 * ceiling if ceiling > 0 else None
        axes.plot(standing["interval_start"], standing["energy_kwh"], color="0.75", linewidth=0.8, zorder=1)
        for quality, colour in COLOURS.items():
            marked = own[own["quality"] == quality]
            values = marked["delivered_kwh"] if quality == "refused" else marked["energy_kwh"]
            values = values.clip(upper=0.97 * top) if top else values
            if len(marked):
                axes.scatter(
                    marked["interval_start"],
                    values,
                    s=9,
                    color=colour,
                    marker="x" if quality == "refused" else "o",
                    linewidths=0.8,
                    label=quality,
                    zorder=2,
                )
        if top:
            axes.set_ylim(min(0.0, standing["energy_kwh"].min()) - 0.05 * ceiling, top)
        axes.set_ylabel(f"{register} [kWh]")
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
        locator = AutoDateLocator()
        axes.xaxis.set_major_locator(locator)
        axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))
        axes.legend(frameon=False, fontsize=8, ncols=4, loc="upper left", title=f"meter {meter}", title_fontsize=8)
    written = io.BytesIO()
    figure.savefig(written, format="png")
    return written.getvalue()
