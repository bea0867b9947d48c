"""`gridlake dispatch`: the site's plans, and unit-commitment instances. What is done lives in `lakehouse.flow` and `lakehouse.dispatch`."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lakehouse.errors import DispatchError
from lakehouse.terminal import AsJson, console, print_json

if TYPE_CHECKING:
    from lakehouse.flow.workspace import Workspace

MOMENTS = ["%Y-%m-%dT%H:%M", "%Y-%m-%d %H:%M", "%Y-%m-%dT%H:%M:%S"]

dispatch = typer.Typer(
    help="Day-ahead plans: report, explain, set points, planning again during the day; solving and checking instances.",
    no_args_is_help=True,
)

Local = Annotated[bool, typer.Option("--local", help="Times are of the site's local clock instead of UTC.")]


# -- plans of the site


@dispatch.command("report")
def dispatch_report(
    date: Annotated[
        datetime | None, typer.Option(formats=["%Y-%m-%d"], help="The local day that was planned; by default the newest.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="HTML file; by default plan-DATE.html in the current folder.")] = None,
    as_json: AsJson = False,
) -> None:
    """Writes a plan as one HTML page: the picture, who runs and why, what could not be met, what it costs."""
    from lakehouse.flow.plan_report import write_plan_report

    path = write_plan_report(_workspace(), date.date() if date else None, out)
    if as_json:
        print_json({"report": str(path)})
    else:
        console().print(f"report: {path}", highlight=False)


@dispatch.command("explain")
def dispatch_explain(
    unit: Annotated[str, typer.Argument(help="The unit.")],
    time: Annotated[datetime, typer.Argument(formats=MOMENTS, help="A moment in the interval, UTC.")],
    local: Local = False,
    as_json: AsJson = False,
) -> None:
    """Why a unit does what it does in an interval of the plan, with the numbers."""
    from lakehouse.flow.plan import explain_unit

    workspace = _workspace()
    moment = _moment(workspace, time, local)
    told = explain_unit(workspace, unit, moment)
    if as_json:
        print_json({"unit": unit, "interval_start": moment.isoformat(), "reasons": told})
        return
    for line in told:
        console().print(line, highlight=False, markup=False)


@dispatch.command("setpoints")
def dispatch_setpoints(
    at: Annotated[datetime | None, typer.Option(formats=MOMENTS, help="The moment, UTC; by default now.")] = None,
    local: Local = False,
    out: Annotated[Path | None, typer.Option(help="JSON file to write, which appears whole or not at all.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="All intervals of the newest plan instead of one.")] = False,
    mqtt: Annotated[str | None, typer.Option(help="HOST[:PORT] of a broker to which each set point is published, retained.")] = None,
    as_json: AsJson = False,
) -> None:
    """What each controllable asset should do now, by the newest plan that covers it."""
    from lakehouse.flow.plan import newest_setpoints, setpoint_document, setpoints_at, write_setpoints

    if mqtt and everything:
        raise typer.BadParameter("a topic holds one set point, the present one: publish without --all", param_hint="--mqtt")
    workspace = _workspace()
    rows = newest_setpoints(workspace) if everything else setpoints_at(workspace, _moment(workspace, at, local) if at else None)
    if mqtt:
        from lakehouse.flow.publish import publish_setpoints

        sent = publish_setpoints(rows, mqtt)
        console().print(f"{sent} set points published to {mqtt}", highlight=False)
    if out:
        write_setpoints(workspace, out, rows)
    if as_json:
        print_json(setpoint_document(workspace, rows))
    elif out:
        console().print(f"set points: {out}", highlight=False)
    elif not mqtt:
        _print_setpoints(workspace, rows)


@dispatch.command("replan")
def dispatch_replan(
    at: Annotated[datetime | None, typer.Option(formats=MOMENTS, help="The moment, UTC; by default now.")] = None,
    local: Local = False,
    state: Annotated[
        Path | None,
        typer.Option(help='JSON file with what differs from the plan: {"gas_1": {"out_until": …}, "battery": {"energy_mwh": …}}.'),
    ] = None,
    notice: Annotated[float, typer.Option(help="Hours before an interval at which a unit's commitment is final.")] = 0.0,
    as_json: AsJson = False,
) -> None:
    """Plans the rest of the day again, from the state that the plan has reached or that is told."""
    from lakehouse.flow.plan import replan

    workspace = _workspace()
    moment = _moment(workspace, at, local) if at else datetime.now(UTC)
    planned = replan(workspace, moment, state=_state(state), notice_hours=notice)
    workspace.publish()
    told = planned.summaries[0]
    if as_json:
        shown = ("planned_from", "planned_until", "objective_eur", "bound_eur", "gap_pct", "unserved_mwh", "status", "is_verified")
        print_json({name: told[name] for name in shown} | {"setpoints": str(planned.setpoints)})
        raise typer.Exit(0 if told["is_verified"] else 1)
    zone = workspace.site.zone
    span = f"{told['planned_from'].astimezone(zone):%Y-%m-%d %H:%M} to {told['planned_until'].astimezone(zone):%H:%M}"
    console().print(
        f"planned again from {span} ({workspace.site.time_zone}): {told['objective_eur']:,.2f} EUR, gap {told['gap_pct']:.2f} %",
        highlight=False,
    )
    for breach in planned.breaches:
        console().print(f"broken rule: {breach}", highlight=False)
    if told["unserved_mwh"] > 1e-6:
        console().print(f"{told['unserved_mwh']:,.3f} MWh can't be served: gridlake dispatch report tells why", highlight=False)
    console().print(f"set points: {planned.setpoints}", highlight=False)
    raise typer.Exit(0 if told["is_verified"] else 1)


def _workspace() -> Workspace:
    from lakehouse.flow.workspace import Workspace

    return Workspace.open()


def _moment(workspace: Workspace, at: datetime, local: bool) -> datetime:
    return at.replace(tzinfo=workspace.site.zone if local else UTC).astimezone(UTC)


def _state(path: Path | None) -> dict[str, Any]:
    if path is None:
        return {}
    form = 'Write it as {"gas_1": {"on": false, "out_until": "2026-11-22T18:00+01:00"}}.'
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DispatchError(f"{path}: expected a state as a JSON object, found something else: {error}.", form) from None
    if not isinstance(found, dict):
        raise DispatchError(f"{path}: expected a state as a JSON object by unit, found {type(found).__name__}.", form)
    return found


def _print_setpoints(workspace: Workspace, rows: list[dict[str, Any]]) -> None:
    from rich.table import Table

    zone = workspace.site.zone
    shown = Table(show_edge=False, pad_edge=False)
    for heading, justify in (
        ("from", "left"),
        ("to", "left"),
        ("asset", "left"),
        ("command", "left"),
        ("MW", "right"),
        ("reserve MW", "right"),
    ):
        shown.add_column(heading, justify=justify)  # type: ignore[arg-type]
    for row in rows:
        span = [f"{row[c].astimezone(zone):%Y-%m-%d %H:%M}" for c in ("valid_from", "valid_until")]
        shown.add_row(*span, row["asset_id"], row["command"], f"{row['power_mw']:,.3f}", f"{row['reserve_mw']:,.3f}")
    console().print(shown)
    console().print(f"local time, {workspace.site.time_zone}; power counts positive into the system", style="dim", highlight=False)


# -- instances


@dispatch.command("solve")
def dispatch_solve(
    instance: Annotated[Path, typer.Argument(help="A unit-commitment instance in the pglib-uc JSON format.")],
    out: Annotated[Path, typer.Option(help="Parquet file for the plan.")],
    gap: Annotated[float, typer.Option(help="Relative gap at which to stop.")] = 0.001,
    time_limit: Annotated[float, typer.Option(help="Seconds at which to stop.")] = 60.0,
    as_json: AsJson = False,
) -> None:
    """Solves an instance and writes the plan."""
    from lakehouse.dispatch.pglib import solve_instance

    told = solve_instance(instance, out, gap=gap, time_limit=time_limit)
    if as_json:
        print_json(told)
        return
    near = "no bound in this time" if told["gap"] is None else f"bound {told['bound']:,.2f}, gap {told['gap']:.4%}"
    console().print(f"{told['status']}: objective {told['objective']:,.2f}, {near}", highlight=False)
    for line in told["violations"][:10]:
        console().print(f"not met: {line}", highlight=False, markup=False)
    if len(told["violations"]) > 10:
        more = len(told["violations"]) - 10
        console().print(f"and {more} more; without the price of these, the plan costs {told['cost']:,.2f}", highlight=False)
    console().print(
        f"built in {told['build_seconds']:.2f} s, solved in {told['solve_seconds']:.1f} s; the plan is in {out}", highlight=False
    )


@dispatch.command("check")
def dispatch_check(
    instance: Annotated[Path, typer.Argument(help="The instance.")],
    plan: Annotated[Path, typer.Argument(help="A plan for it, from whatever tool, as Parquet.")],
    as_json: AsJson = False,
) -> None:
    """Checks any plan against its instance: every constraint, and the cost."""
    from lakehouse.dispatch.pglib import check_instance

    report = check_instance(instance, plan)
    if as_json:
        print_json(report.as_dict())
    else:
        for line in report.lines():
            console().print(line, highlight=False)
    raise typer.Exit(0 if report.ok else 1)
