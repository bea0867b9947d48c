"""The `gridlake` command: parses arguments, calls the library, prints. What is done lives elsewhere.

Exit codes: 0 done, 1 a failure told in one sentence, 2 wrong use or a wrong site file, others as in `lakehouse.errors`.
"""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lakehouse.cli_dispatch import dispatch
from lakehouse.cli_models import forecasts, models
from lakehouse.cli_stream import stream
from lakehouse.errors import GridlakeError
from lakehouse.terminal import AsJson, OutputFormat, cell, complain, console, print_json, print_table, progress_bar, write_result

if TYPE_CHECKING:
    from lakehouse.flow.workspace import Workspace

PROJECT = Path(__file__).resolve().parents[1]
LOOPBACK = "127.0.0.1"

app = typer.Typer(
    name="gridlake",
    help="A data lakehouse for electricity utilities: from landed files to forecasts and dispatch plans.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.add_typer(dispatch, name="dispatch")
app.add_typer(stream, name="stream")
app.add_typer(models, name="models")
app.add_typer(forecasts, name="forecast")


class Layer(StrEnum):
    """How far `refresh` goes."""

    RAW = "raw"
    CLEANED = "cleaned"
    FEATURES = "features"
    MODELS = "models"
    FORECASTS = "forecasts"
    DISPATCH = "dispatch"


@app.callback()
def home_option(
    home: Annotated[
        Path | None, typer.Option("--home", help="The site's folder; by default GRIDLAKE_HOME, else the current folder.")
    ] = None,
) -> None:
    """Chooses the site for every command but `init`."""
    if home is not None:
        os.environ["GRIDLAKE_HOME"] = str(home.absolute())


def main() -> None:
    """Entry point: a mistake a user can mend is one sentence and an exit code, never a traceback."""
    try:
        sys.exit(app(standalone_mode=False) or 0)  # Typer hands an exit code back instead of raising it
    except GridlakeError as error:
        complain(str(error))
        sys.exit(error.exit_code)
    except typer.TyperException as wrong_use:
        wrong_use.show()  # type: ignore[attr-defined]  # every one that Typer raises has it
        sys.exit(getattr(wrong_use, "exit_code", 2))
    except (KeyboardInterrupt, typer.Abort):
        complain("Stopped. Nothing is half written; the same command takes up the work again.")
        sys.exit(130)
    except typer.Exit as done:
        sys.exit(done.exit_code)
    except BrokenPipeError:
        sys.exit(0)
    except OSError as error:
        if error.filename is None:
            raise
        complain(f"Can't use {error.filename}: {error.strerror}.\nCheck the path, its permissions and the space left.")
        sys.exit(1)


# -- making a site, and files into it


@app.command()
def init(
    folder: Annotated[Path, typer.Argument(help="Folder of the new site.")],
    site: Annotated[str, typer.Option(help="An example site: sample, spain, octopus, …")] = "sample",
    data: Annotated[Path | None, typer.Option(help="Folder with files in that site's published layout.")] = None,
    days: Annotated[int, typer.Option(help="Days of history (sample only).")] = 150,
    meters: Annotated[int, typer.Option(help="Number of meters (sample only).")] = 200,
    seed: Annotated[int, typer.Option(help="Seed (sample only).")] = 1,
    until: Annotated[datetime | None, typer.Option(formats=["%Y-%m-%d"], help="Freeze the site's clock at this day.")] = None,
    as_json: AsJson = False,
) -> None:
    """Makes a site and lands its files."""
    from lakehouse.flow.setup import init_site

    with progress_bar() as tell:
        made = init_site(folder, site, data=data, days=days, meters=meters, seed=seed, until=until.date() if until else None, progress=tell)
    if as_json:
        print_json({"site": made.site.name, "home": str(folder.absolute()), "landed": made.landed, "left_out": made.left_out})
        return
    out = console()
    out.print(f"Site '{made.site.name}' in {folder}: {made.site.first_day} to {made.site.today()}.")
    for feed, files in made.landed.items():
        out.print(f"  {feed:<20} {files:>6,} files in landing")
    for left in made.left_out[:10]:
        out.print(f"  left out: {left}")
    if len(made.left_out) > 10:
        out.print(f"  left out: {len(made.left_out) - 10} more")
    out.print(f"Next: gridlake --home {folder} refresh")


@app.command()
def land(
    feed: Annotated[str, typer.Argument(help="Name of the feed.")],
    files: Annotated[list[Path], typer.Argument(help="Files to land.")],
    delivered: Annotated[
        datetime | None, typer.Option(formats=["%Y-%m-%d"], help="Delivery date; by default as the name tells, else today.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Lands files: each appears in landing whole or not at all."""
    from lakehouse.flow.setup import land_files
    from lakehouse.site import load_site

    told = land_files(load_site(), feed, files, delivered.date() if delivered else None)
    if as_json:
        print_json([{"file": name, "outcome": outcome} for name, outcome in told])
        return
    for name, outcome in told:
        console().print(f"{name}: {outcome}", highlight=False)


@app.command()
def refresh(
    until: Annotated[Layer, typer.Option(help="The last layer to refresh.")] = Layer.DISPATCH,
    from_: Annotated[datetime | None, typer.Option("--from", formats=["%Y-%m-%d"], help="First day to look at.")] = None,
    to: Annotated[datetime | None, typer.Option("--to", formats=["%Y-%m-%d"], help="Last day to look at.")] = None,
    as_json: AsJson = False,
) -> None:
    """Materializes what is stale, through Dagster, and says what the site has now."""
    from lakehouse.site import load_site

    command = [sys.executable, "-m", "jobs.refresh", "--home", str(load_site().home), "--until", until.value]
    for option, day in (("--from", from_), ("--to", to)):
        command += [option, day.date().isoformat()] if day else []
    raise typer.Exit(subprocess.call(command + (["--json"] if as_json else []), env=_environment()))


# -- reading


@app.command()
def sql(
    query: Annotated[str, typer.Argument(help="One SQL query; tables are layer.table.")],
    format: Annotated[OutputFormat, typer.Option(help="How to print.")] = OutputFormat.TABLE,
    out: Annotated[Path | None, typer.Option(help="File to write instead (needed for Parquet).")] = None,
    as_json: AsJson = False,
) -> None:
    """Runs a query on the catalog, read-only."""
    from lakehouse.flow.query import run_query
    from lakehouse.site import load_site

    shape = OutputFormat.JSON if as_json else format
    if shape is OutputFormat.PARQUET and out is None:
        raise typer.BadParameter("Parquet is no text: give --out FILE.parquet")
    result = run_query(load_site(), query)
    if shape is OutputFormat.TABLE and out is None:
        print_table(result)
    else:
        write_result(result, shape, out)


@app.command()
def tables(
    name: Annotated[str | None, typer.Argument(help="One table, as layer.table or layer/table.")] = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="The whole data dictionary as Markdown.")] = False,
    as_json: AsJson = False,
) -> None:
    """The data dictionary: which tables there are, what is in them, and in which units."""
    from lakehouse.flow.dictionary import as_markdown, describe
    from lakehouse.flow.workspace import Workspace

    workspace = Workspace.open()
    described = describe(workspace, name.replace(".", "/") if name else None)
    if as_json:
        print_json(described)
    elif markdown:
        sys.stdout.write(as_markdown(list(workspace.contracts.values())))
    else:
        _print_dictionary(described, in_full=name is not None)


@app.command()
def doctor(as_json: AsJson = False) -> None:
    """Checks the installation and the site, and says what to do."""
    from lakehouse.flow.doctor import examine
    from lakehouse.flow.workspace import Workspace

    findings = examine(Workspace.open())
    if as_json:
        print_json([f.as_dict() for f in findings])
    else:
        marks = {"ok": "[green]ok  [/]", "warning": "[yellow]look[/]", "error": "[red]mend[/]"}
        for finding in findings:
            console().print(f"{marks[finding.level]}  {finding.what}", highlight=False)
            if finding.remedy:
                console().print(f"      → {finding.remedy}", highlight=False)
    raise typer.Exit(1 if any(f.level == "error" for f in findings) else 0)


@app.command()
def alerts(
    test: Annotated[bool, typer.Option("--test", help="Send a test message by every channel instead.")] = False,
    as_json: AsJson = False,
) -> None:
    """Shows what is wrong with the data, the forecasts and the plan; who is told is `alerts` in the site file."""
    from datetime import UTC

    from lakehouse.alerting.channels import record
    from lakehouse.flow.watch import conditions, read_ledger, try_channels
    from lakehouse.flow.workspace import Workspace

    workspace = Workspace.open()
    if test:
        outcome = try_channels(workspace.site)
        if as_json:
            print_json(outcome)
        else:
            for name, fault in outcome.items():
                console().print(f"{name}: {fault or 'the test message went out'}", highlight=False, markup=False)
        raise typer.Exit(1 if any(outcome.values()) else 0)
    known = [e.alert for e in read_ledger(workspace) if e.closed_at is None and e.alert.kind == "run failed"]
    found = [*known, *conditions(workspace, datetime.now(UTC))]
    if as_json:
        print_json([record(a) for a in found])
        return
    for alert in found:
        mark = "[red]error[/]" if alert.severity == "error" else "[yellow]warn [/]"
        console().print(f"{mark} {alert.key}, since {alert.since.astimezone(workspace.site.zone):%Y-%m-%d %H:%M}", highlight=False)
        console().print(f"      {alert.what}", highlight=False, markup=False)
        console().print(f"      → {alert.remedy}", highlight=False, markup=False)
    if not found:
        console().print("Nothing is wrong that the tables could tell.")


@app.command()
def metrics(
    serve: Annotated[int | None, typer.Option(help="Serve them on this port until stopped, for Prometheus to scrape.")] = None,
    address: Annotated[str, typer.Option(help="Address to listen on.")] = LOOPBACK,
    push: Annotated[str, typer.Option(help="Push them once to this gateway, as http://host:9091.")] = "",
) -> None:
    """Prints the site's figures for Prometheus, or serves or pushes them."""
    from lakehouse.site import load_site

    command = [sys.executable, "-m", "jobs.metrics", "--home", str(load_site().home)]
    if serve is not None:
        command += ["--serve", str(serve), "--address", address]
    if push:
        command += ["--push", push]
    os.execve(sys.executable, command, _environment())  # one process: a signal that stops it stops the server


@app.command()
def ui(port: Annotated[int, typer.Option(help="Port on loopback.")] = 3000) -> None:
    """Opens the Dagster UI (webserver and daemon, loopback only) over this site."""
    from lakehouse.flow.setup import write_dagster_home
    from lakehouse.site import load_site

    write_dagster_home(load_site())
    console().print(f"Dagster UI: http://{LOOPBACK}:{port}   (Ctrl-C stops it)")
    os.execve(sys.executable, [sys.executable, "-m", "jobs.ui", "--port", str(port)], _environment())


@app.command()
def backtest(
    target: Annotated[str, typer.Argument(help="demand, wind, solar or price, as the site has them.")],
    from_: Annotated[datetime, typer.Option("--from", formats=["%Y-%m-%d"], help="First target day, local.")],
    to: Annotated[datetime, typer.Option("--to", formats=["%Y-%m-%d"], help="Last target day, included.")],
    models: Annotated[str | None, typer.Option(help="Comma-separated; by default the site's models and their ensemble.")] = None,
    refit: Annotated[str, typer.Option(help="Days between refits, such as 7d.")] = "7d",
    out: Annotated[Path | None, typer.Option(help="Folder for the HTML report and the tables; a stopped backtest goes on there.")] = None,
    workers: Annotated[
        int | None,
        typer.Option(min=1, help="Processes, in which models run side by side; by default as many as there are cores, at most 4."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Backtests a target on a rolling origin that never looks ahead, beside the seasonal naive and the operator's forecast."""
    from lakehouse.flow.backtest import run_backtest
    from lakehouse.flow.workspace import Workspace

    if not refit.removesuffix("d").isdigit() or int(refit.removesuffix("d")) < 1:
        raise typer.BadParameter(f"expected a number of days such as 7d, found '{refit}'", param_hint="--refit")
    workspace = Workspace.open()
    _bring_up_to_date(workspace, "cleaned")
    with progress_bar() as tell:
        done = run_backtest(
            workspace,
            target,
            from_.date(),
            to.date(),
            models=models.split(",") if models else None,
            refit_days=int(refit.removesuffix("d")),
            out=out,
            workers=workers or min(_cores(), 4),
            progress=lambda n, of, label: tell("backtest", n, of),
        )
    rows = done.result.summary_rows(workspace.site.name)
    if as_json:
        for row in rows:
            print_json(row)
        return
    _print_backtest(rows)
    if done.report:
        console().print(f"report: {done.report}", highlight=False)


def _cores() -> int:
    """The cores that this process may use."""
    import os

    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@app.command()
def vee(
    meter: Annotated[str, typer.Argument(help="The meter.")],
    from_: Annotated[datetime | None, typer.Option("--from", formats=["%Y-%m-%d"], help="First UTC day.")] = None,
    to: Annotated[datetime | None, typer.Option("--to", formats=["%Y-%m-%d"], help="Last UTC day.")] = None,
    plot: Annotated[Path | None, typer.Option(help="PNG file for a picture of the readings and their flags.")] = None,
    as_json: AsJson = False,
) -> None:
    """A meter's readings with what validation, estimation and editing made of them."""
    from lakehouse.flow.vee import readings_of_meter
    from lakehouse.flow.workspace import Workspace

    found = readings_of_meter(Workspace.open(), meter, from_.date() if from_ else None, to.date() if to else None, plot)
    if as_json:
        write_result(found, OutputFormat.JSON, None)
        return
    print_table(found)
    if plot:
        console().print(f"picture: {plot}", highlight=False)


# -- printing


def _print_dictionary(described: list[dict[str, Any]], *, in_full: bool) -> None:
    from rich.table import Table

    if not in_full:
        shown = Table(show_edge=False, pad_edge=False)
        for heading, justify in (("table", "left"), ("rows", "right"), ("newest", "left"), ("what it is", "left")):
            shown.add_column(heading, justify=justify, overflow="fold")  # type: ignore[arg-type]
        for one in described:
            shown.add_row(one["table"], f"{one['rows']:,}" if one["rows"] is not None else "–", one["newest"] or "–", one["description"])
        console().print(shown)
        return
    for one in described:
        console().print(f"{one['table']}: {one['description']}  key: {', '.join(one['key'])}", highlight=False)
        shown = Table(show_edge=False, pad_edge=False)
        for heading in ("column", "type", "unit", "what it is"):
            shown.add_column(heading, overflow="fold")
        for c in one["columns"]:
            shown.add_row(c["name"], c["type"], c["unit"] or "", c["description"])
        console().print(shown)


def _print_backtest(rows: list[dict[str, Any]]) -> None:
    from rich.table import Table

    shown = Table(show_edge=False, pad_edge=False)
    measures = ("mae", "rmse", "mape", "wape", "rmae", "pinball", "coverage_80", "seconds")
    for heading in ("model", *measures):
        shown.add_column(heading, justify="left" if heading == "model" else "right")
    for row in rows:
        shown.add_row(row["model"], *(cell(row.get(m)) for m in measures))
    operator = rows[0]["benchmarks"].get("operator") if rows else None
    if operator:
        shown.add_row("operator's own", *(cell(operator.get(m)) for m in measures))
    console().print(shown)
    if rows:
        label = f", {rows[0]['label']}" if rows[0].get("label") else ""
        console().print(f"{rows[0]['target']} of {rows[0]['site']}, {rows[0]['from']} to {rows[0]['to']}{label}", style="dim")
        for note in rows[0].get("notes", []):
            console().print(f"note: {note}", highlight=False)


def _bring_up_to_date(workspace: Workspace, layer: str) -> None:
    from lakehouse.flow.staleness import next_steps

    if not next_steps(workspace, until=layer):
        return
    command = [sys.executable, "-m", "jobs.refresh", "--home", str(workspace.site.home), "--until", layer]
    code = subprocess.call(command, env=_environment(), stdout=sys.stderr)
    if code:
        raise typer.Exit(code)


def _environment() -> dict[str, str]:
    from lakehouse.site import load_site

    site = load_site()
    path = os.pathsep.join(p for p in (str(PROJECT), os.environ.get("PYTHONPATH", "")) if p)
    ours = {"GRIDLAKE_HOME": str(site.home), "DAGSTER_HOME": str(site.path("dagster")), "PYTHONPATH": path}
    return {"DAGSTER_EVENT_BATCH_SIZE": "500"} | os.environ | ours


if __name__ == "__main__":
    main()
