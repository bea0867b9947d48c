"""`gridlake models` and `gridlake forecast`: trained versions, and forecasts made again. What is done lives in `lakehouse.flow.models`."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from lakehouse.terminal import AsJson, cell, console, print_json

if TYPE_CHECKING:
    from lakehouse.flow.workspace import Workspace


class _ListsByDefault(TyperGroup):
    """`gridlake models demand` lists demand."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if not args or args[0] not in {*self.commands, *ctx.help_option_names}:
            args = ["list", *args]
        return super().parse_args(ctx, args)


models = typer.Typer(
    cls=_ListsByDefault,
    help="Model versions: `models [TARGET]` lists them with their champion; rollback, export to TensorFlow Serving, MLflow.",
)
forecasts = typer.Typer(help="Forecasts that were issued.", no_args_is_help=True)
Target = Annotated[str, typer.Argument(help="demand, wind, solar or price, as the site has them.")]


@models.command("list")
def models_list(
    target: Annotated[str | None, typer.Argument(help="One target; by default all.")] = None,
    as_json: AsJson = False,
) -> None:
    """Lists the versions, oldest training first; the champion makes the issues to come."""
    from lakehouse.flow.models import list_versions

    rows = list_versions(_workspace(), target)
    if as_json:
        print_json(rows)
        return
    if not rows:
        console().print("No model was trained yet. Train with: gridlake refresh --until models")
        return
    from rich.table import Table

    shown = Table(show_edge=False, pad_edge=False)
    for heading, justify in (("target", "left"), ("version", "left"), ("", "left"), ("MAE / naive", "right"), ("pinball", "right")):
        shown.add_column(heading, justify=justify, overflow="fold")  # type: ignore[arg-type]
    shown.add_column("80 % covers", justify="right")
    shown.add_column("promoted because", overflow="fold")
    for row in rows:
        mark = "champion" if row["is_champion"] else "" if row["is_usable"] else "other code or inputs"
        figures = (cell(row[name]) for name in ("rmae_naive", "pinball", "coverage_80_pct"))
        shown.add_row(row["target"], row["version"], mark, *figures, row["promoted_because"] or "")
    console().print(shown)


@models.command("rollback")
def models_rollback(
    target: Target,
    version: Annotated[str | None, typer.Argument(help="An earlier champion; by default the one before the present.")] = None,
    as_json: AsJson = False,
) -> None:
    """Puts an earlier champion back in charge of the issues to come."""
    from lakehouse.flow.models import roll_back

    back, told = roll_back(_workspace(), target, version)
    if as_json:
        print_json({"target": target, "champion": back.version, "mlflow": told})
    else:
        console().print(f"champion of {target}: {back.version}\n{told}", highlight=False)


@models.command("export")
def models_export(
    target: Target,
    out: Annotated[Path, typer.Option(help="Folder; the model goes to OUT/TARGET/NUMBER, as TensorFlow Serving wants it.")],
    version: Annotated[str | None, typer.Option(help="A version with a Keras network; by default the champion's, else the newest.")] = None,
    as_json: AsJson = False,
) -> None:
    """Writes a version's Keras network as a SavedModel for TensorFlow Serving."""
    from lakehouse.flow.models import export_version

    folder = export_version(_workspace(), target, out, version)
    if as_json:
        print_json({"target": target, "folder": str(folder)})
    else:
        console().print(f"SavedModel: {folder}", highlight=False)


@models.command("track")
def models_track(as_json: AsJson = False) -> None:
    """Logs to MLflow what it does not have yet; trainings do so by themselves."""
    from lakehouse.flow.models import mirror

    workspace = _workspace()
    told = {target: mirror(workspace, target) for target in workspace.site.series}
    if as_json:
        print_json({"uri": workspace.site.tracking_uri, "targets": told})
        return
    for target, sentence in told.items():
        console().print(f"{target}: {sentence}", highlight=False)


@forecasts.command("reproduce")
def forecast_reproduce(
    target: Target,
    issued_at: Annotated[datetime, typer.Option(formats=["%Y-%m-%d"], help="Local day of the issue.")],
    as_json: AsJson = False,
) -> None:
    """Makes a past forecast again from the versions that it names, and says whether it is the same to the last bit."""
    from lakehouse.flow.models import reproduce

    found = reproduce(_workspace(), target, issued_at.date())
    if as_json:
        told = {"is_identical": found.is_identical, "rows": found.issued.num_rows, "model_version": found.model_version}
        print_json(told | {"features_version": found.features_version, "packages_changed": found.packages})
    else:
        verdict = "the same to the last bit" if found.is_identical else "[red]different[/]"
        console().print(
            f"{found.issued.num_rows} rows made again by {found.model_version} from version {found.features_version} of "
            f"features/{target}: {verdict}.",
            highlight=False,
        )
        for package, (then, now) in found.packages.items():
            console().print(f"  {package} was {then} at the training and is {now}", highlight=False)
    raise typer.Exit(0 if found.is_identical else 1)


def _workspace() -> Workspace:
    from lakehouse.flow.workspace import Workspace

    return Workspace.open()
