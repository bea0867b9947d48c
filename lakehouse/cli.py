"""The `gridlake` command: parses arguments, calls the library, prints. What is done lives elsewhere.

Exit codes: 0 done, 1 a failure told in one sentence, 2 wrong use or a wrong site file, others as in `lakehouse.errors`.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from datetime import date, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lakehouse.errors import GridlakeError

if TYPE_CHECKING:
    from lakehouse.flow.workspace import Workspace

PROJECT = Path(__file__).resolve().parents[1]
LOOPBACK = "127.0.0.1"
PIPED_WIDTH = 200

app = typer.Typer(
    name="gridlake",
    help="A data lakehouse for electricity utilities: from landed files to forecasts and dispatch plans.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
dispatch = typer.Typer(help="Day-ahead plans: solve and check instances, explain a plan.", no_args_is_help=True)
app.add_typer(dispatch, name="dispatch")


class Layer(StrEnum):
    """How far `refresh` goes."""

    RAW = "raw"
    CLEANED = "cleaned"
    FEATURES = "features"
    MODELS = "models"
    FORECASTS = "forecasts"
    DISPATCH = "dispatch"


class OutputFormat(StrEnum):
    """How `sql` prints."""

    TABLE = "table"
    CSV = "csv"
    JSON = "json"
    PARQUET = "parquet"


AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for a script.")]


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
        _complain(str(error))
        sys.exit(error.exit_code)
    except typer.TyperException as wrong_use:
        wrong_use.show()  # type: ignore[attr-defined]  # every one that Typer raises has it
        sys.exit(getattr(wrong_use, "exit_code", 2))
    except (KeyboardInterrupt, typer.Abort):
        _complain("Stopped. Nothing is half written; the same command takes up the work again.")
        sys.exit(130)
    except typer.Exit as done:
        sys.exit(done.exit_code)
    except BrokenPipeError:
        sys.exit(0)
    except OSError as error:
        if error.filename is None:
            raise
        _complain(f"Can't use {error.filename}: {error.strerror}.\nCheck the path, its permissions and the space left.")
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

    with _progress() as tell:
        made = init_site(folder, site, data=data, days=days, meters=meters, seed=seed, until=until.date() if until else None, progress=tell)
    if as_json:
        _print_json({"site": made.site.name, "home": str(folder.absolute()), "landed": made.landed, "left_out": made.left_out})
        return
    console = _console()
    console.print(f"Site '{made.site.name}' in {folder}: {made.site.first_day} to {made.site.today()}.")
    for feed, files in made.landed.items():
        console.print(f"  {feed:<20} {files:>6,} files in landing")
    for left in made.left_out[:10]:
        console.print(f"  left out: {left}")
    if len(made.left_out) > 10:
        console.print(f"  left out: {len(made.left_out) - 10} more")
    console.print(f"Next: gridlake --home {folder} refresh")


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
        _print_json([{"file": name, "outcome": outcome} for name, outcome in told])
        return
    for name, outcome in told:
        _console().print(f"{name}: {outcome}", highlight=False)


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
        _print_table(result)
    else:
        _write_result(result, shape, out)


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
        _print_json(described)
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
        _print_json([f.as_dict() for f in findings])
    else:
        marks = {"ok": "[green]ok  [/]", "warning": "[yellow]look[/]", "error": "[red]mend[/]"}
        for finding in findings:
            _console().print(f"{marks[finding.level]}  {finding.what}", highlight=False)
            if finding.remedy:
                _console().print(f"      → {finding.remedy}", highlight=False)
    raise typer.Exit(1 if any(f.level == "error" for f in findings) else 0)


@app.command()
def ui(port: Annotated[int, typer.Option(help="Port on loopback.")] = 3000) -> None:
    """Opens the Dagster UI (webserver and daemon, loopback only) over this site."""
    from lakehouse.flow.setup import write_dagster_home
    from lakehouse.site import load_site

    write_dagster_home(load_site())
    _console().print(f"Dagster UI: http://{LOOPBACK}:{port}   (Ctrl-C stops it)")
    command = [sys.executable, "-m", "dagster", "dev", "-w", str(PROJECT / "workspace.yaml"), "-h", LOOPBACK, "-p", str(port)]
    raise typer.Exit(subprocess.call(command, env=_environment()))


@app.command()
def backtest(
    target: Annotated[str, typer.Argument(help="demand, wind, solar or price, as the site has them.")],
    from_: Annotated[datetime, typer.Option("--from", formats=["%Y-%m-%d"], help="First target day, local.")],
    to: Annotated[datetime, typer.Option("--to", formats=["%Y-%m-%d"], help="Last target day, included.")],
    models: Annotated[str | None, typer.Option(help="Comma-separated; by default the site's models and their ensemble.")] = None,
    refit: Annotated[str, typer.Option(help="Days between refits, such as 7d.")] = "7d",
    out: Annotated[Path | None, typer.Option(help="Folder for the HTML report and the tables; a stopped backtest goes on there.")] = None,
    workers: Annotated[int, typer.Option(help="Processes.")] = 1,
    as_json: AsJson = False,
) -> None:
    """Backtests a target on a rolling origin that never looks ahead, beside the seasonal naive and the operator's forecast."""
    from lakehouse.flow.backtest import run_backtest
    from lakehouse.flow.workspace import Workspace

    if not refit.removesuffix("d").isdigit() or int(refit.removesuffix("d")) < 1:
        raise typer.BadParameter(f"expected a number of days such as 7d, found '{refit}'", param_hint="--refit")
    workspace = Workspace.open()
    _bring_up_to_date(workspace, "cleaned")
    with _progress() as tell:
        done = run_backtest(
            workspace,
            target,
            from_.date(),
            to.date(),
            models=models.split(",") if models else None,
            refit_days=int(refit.removesuffix("d")),
            out=out,
            workers=workers,
            progress=lambda n, of, label: tell("backtest", n, of),
        )
    rows = done.result.summary_rows(workspace.site.name)
    if as_json:
        for row in rows:
            _print_json(row)
        return
    _print_backtest(rows)
    if done.report:
        _console().print(f"report: {done.report}", highlight=False)


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
        _write_result(found, OutputFormat.JSON, None)
        return
    _print_table(found)
    if plot:
        _console().print(f"picture: {plot}", highlight=False)


# -- dispatch instances


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
        _print_json(told)
        return
    _console().print(
        f"{told['status']}: objective {told['objective']:,.2f}, bound {told['bound']:,.2f}, gap {told['gap']:.4%}", highlight=False
    )
    _console().print(
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
        _print_json(report.as_dict())
    else:
        for line in report.lines():
            _console().print(line, highlight=False)
    raise typer.Exit(0 if report.ok else 1)


@dispatch.command("explain")
def dispatch_explain(
    unit: Annotated[str, typer.Argument(help="The unit.")],
    time: Annotated[datetime, typer.Argument(formats=["%Y-%m-%dT%H:%M", "%Y-%m-%d %H:%M"], help="Start of the interval, UTC.")],
    as_json: AsJson = False,
) -> None:
    """Why a unit does what it does in an interval of the plan, with the numbers."""
    from lakehouse.flow.plan import explain_unit
    from lakehouse.flow.workspace import Workspace

    told = explain_unit(Workspace.open(), unit, time)
    if as_json:
        _print_json({"unit": unit, "interval_start": time.isoformat() + "Z", "reasons": told})
        return
    for line in told:
        _console().print(line, highlight=False, markup=False)


# -- printing


def _console() -> Any:
    from rich.console import Console

    # Piped, a table is as wide as it needs to be: a script or a pager can't guess where a name was split.
    return Console(soft_wrap=True, width=None if sys.stdout.isatty() else PIPED_WIDTH)


def _complain(message: str) -> None:
    from rich.console import Console

    Console(stderr=True, soft_wrap=True).print(message, style="red", highlight=False, markup=False)


def _progress() -> Any:
    """A context that shows one progress bar on standard error, and yields the function that feeds it."""
    from contextlib import contextmanager

    @contextmanager
    def shown() -> Any:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
            tasks: dict[str, Any] = {}

            def tell(what: str, done: int, of: int) -> None:
                if what not in tasks:
                    tasks[what] = bars.add_task(what, total=of)
                bars.update(tasks[what], completed=done, total=of)

            yield tell

    return shown()


def _print_json(value: Any) -> None:
    sys.stdout.write(json.dumps(value, default=str, indent=None) + "\n")


def _print_table(result: Any) -> None:
    from rich.table import Table

    shown = Table(show_edge=False, pad_edge=False)
    numeric = [str(f.type).startswith(("int", "double", "float", "decimal", "uint")) for f in result.schema]
    for name, is_number in zip(result.column_names, numeric, strict=True):
        shown.add_column(name, justify="right" if is_number else "left", overflow="fold")
    for row in result.slice(0, 200).to_pylist():
        shown.add_row(*(_cell(v) for v in row.values()))
    _console().print(shown)
    rows = result.num_rows
    _console().print(f"{rows:,} row{'' if rows == 1 else 's'}" + (", the first 200 shown" if rows > 200 else ""), style="dim")


def _cell(value: Any) -> str:
    from rich.markup import escape

    if value is None:
        return "[dim]–[/]"
    if isinstance(value, float):
        return f"{value:,.4g}" if abs(value) < 1 else f"{value:,.2f}"
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M}"
    return escape(str(value)).replace("\x1b", "�")


def _write_result(result: Any, shape: OutputFormat, out: Path | None) -> None:
    if shape is OutputFormat.PARQUET:
        import pyarrow.parquet as pq

        assert out is not None
        pq.write_table(result, out)
        return
    if shape is OutputFormat.JSON:
        text = json.dumps(_finite(result.to_pylist()), default=_json_value) + "\n"
    elif shape is OutputFormat.CSV:
        import io

        import pyarrow.csv as pc

        buffer = io.BytesIO()
        pc.write_csv(result, buffer)
        text = buffer.getvalue().decode()
    else:
        text = result.to_pandas().to_string(index=False) + "\n"
    if out:
        out.write_text(text, encoding="utf-8")
    else:
        sys.stdout.write(text)


def _finite(value: Any) -> Any:
    """JSON has no word for what is no number."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {k: _finite(v) for k, v in value.items()}
    return [_finite(v) for v in value] if isinstance(value, list) else value


def _json_value(value: Any) -> Any:
    return value.isoformat() if isinstance(value, date | datetime) else str(value)


def _print_dictionary(described: list[dict[str, Any]], *, in_full: bool) -> None:
    from rich.table import Table

    if not in_full:
        shown = Table(show_edge=False, pad_edge=False)
        for heading, justify in (("table", "left"), ("rows", "right"), ("newest", "left"), ("what it is", "left")):
            shown.add_column(heading, justify=justify, overflow="fold")  # type: ignore[arg-type]
        for one in described:
            shown.add_row(one["table"], f"{one['rows']:,}" if one["rows"] is not None else "–", one["newest"] or "–", one["description"])
        _console().print(shown)
        return
    for one in described:
        _console().print(f"{one['table']}: {one['description']}  key: {', '.join(one['key'])}", highlight=False)
        shown = Table(show_edge=False, pad_edge=False)
        for heading in ("column", "type", "unit", "what it is"):
            shown.add_column(heading, overflow="fold")
        for c in one["columns"]:
            shown.add_row(c["name"], c["type"], c["unit"] or "", c["description"])
        _console().print(shown)


def _print_backtest(rows: list[dict[str, Any]]) -> None:
    from rich.table import Table

    shown = Table(show_edge=False, pad_edge=False)
    measures = ("mae", "rmse", "mape", "wape", "rmae", "pinball", "coverage_80", "seconds")
    for heading in ("model", *measures):
        shown.add_column(heading, justify="left" if heading == "model" else "right")
    for row in rows:
        shown.add_row(row["model"], *(_cell(row.get(m)) for m in measures))
    operator = rows[0]["benchmarks"].get("operator") if rows else None
    if operator:
        shown.add_row("operator's own", *(_cell(operator.get(m)) for m in measures))
    _console().print(shown)
    if rows:
        label = f", {rows[0]['label']}" if rows[0].get("label") else ""
        _console().print(f"{rows[0]['target']} of {rows[0]['site']}, {rows[0]['from']} to {rows[0]['to']}{label}", style="dim")


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
