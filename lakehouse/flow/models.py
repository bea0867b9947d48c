"""Model versions at work: listing, rolling back, exporting, mirroring to MLflow, and making a past forecast again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from lakehouse.errors import ForecastError
from lakehouse.flow import forecast
from lakehouse.flow.workspace import Workspace

if TYPE_CHECKING:
    from lakehouse.forecasting.training import ModelVersion


def list_versions(workspace: Workspace, target: str | None = None) -> list[dict[str, Any]]:
    """The versions of one target or of all, oldest training first, with who is champion and how each did."""
    rows = []
    for one in [target] if target else workspace.site.series:
        task, registry = forecast.task_of(workspace.site, one), forecast.registry_of(workspace)
        champion = registry.champion(one)
        reasons = {entry["version"]: entry["reason"] for entry in registry.promotions(one)}
        table = workspace.table(f"models/{one}")
        figures = {r["model_version"]: r for r in table.read().to_pylist()} if table.exists() else {}
        for version in registry.versions(one):
            found = figures.get(version.version, {})
            rows.append(
                {
                    "target": one,
                    "version": version.version,
                    "model": version.model,
                    "trained_until": version.trained_until.isoformat(),
                    "is_champion": champion is not None and champion.version == version.version,
                    "is_usable": version.is_made_for(task),
                    "rmae_naive": found.get("rmae_naive"),
                    "pinball": found.get("pinball"),
                    "coverage_80_pct": found.get("coverage_80_pct"),
                    "promoted_because": reasons.get(version.version),
                    "folder": str(version.folder),
                }
            )
    return rows


def roll_back(workspace: Workspace, target: str, to: str | None = None) -> tuple[ModelVersion, str]:
    """Puts an earlier champion back in charge of the issues to come; returns it, and what MLflow made of it.

    Raises:
        ForecastError: there is no earlier champion, or the one named was none.
    """
    forecast.task_of(workspace.site, target)  # refuses a target that the site does not have
    registry = forecast.registry_of(workspace)
    back = registry.roll_back(target, at=datetime.now(UTC), to=to)  # type: ignore[arg-type]
    workspace.replace(f"models/{target}", forecast.version_rows(workspace, target, {}, 0))
    workspace.publish()
    return back, mirror(workspace, target)


def export_version(workspace: Workspace, target: str, out: Path, name: str | None = None) -> Path:
    """Writes the Keras network of a version as a SavedModel in TensorFlow Serving's layout, `out/<target>/<number>/`.

    Beside it lies `signature.json`: the inputs' names in order with centre and spread, and how to turn the output into quantiles.

    Args:
        workspace: the site at work.
        target: of the version.
        out: folder that TensorFlow Serving watches as `model_base_path` less the target.
        name: the version; by default the champion if it has a network, else the newest that has one.

    Raises:
        ForecastError: no version has a network.
    """
    from lakehouse.forecasting.models.keras_network import KerasNetwork

    registry = forecast.registry_of(workspace)
    task = forecast.task_of(workspace.site, target)
    champion = registry.champion(target)
    candidates = [registry.version(target, name)] if name else [*([champion] if champion else []), *reversed(registry.versions(target))]
    version = next((v for v in candidates if (v.folder / "model" / "keras").is_dir() and v.is_made_for(task)), None)
    if version is None:
        raise ForecastError(
            f"{f'Version {name}' if name else 'No version'} of {target} {'has no' if name else 'has a'} Keras network to export.",
            "Add keras (or ensemble) to series.models in gridlake.yaml and train: gridlake refresh --until models",
        )
    network = KerasNetwork().load(version.folder / "model" / "keras")
    number = int(version.trained_until.timestamp())  # TensorFlow Serving takes the highest number, so the youngest training
    folder = network.export_saved_model(out / target, number)
    (folder / "signature.json").write_text(
        json.dumps(network.signature() | {"version": version.version}, indent=1) + "\n", encoding="utf-8"
    )
    return folder


def mirror(workspace: Workspace, target: str, evaluated: Mapping[str, Mapping[str, float]] | None = None) -> str:
    """Mirrors a target's versions to MLflow, and says in a sentence what came of it. Never fails: forecasts do not need it."""
    from lakehouse.forecasting.tracking import mirror as to_mlflow

    uri = workspace.site.tracking_uri
    if uri is None:
        return "MLflow is switched off in the site file."
    tables = [f"features/{target}", *forecast.inputs_of(workspace.site, target)]
    try:
        logged = to_mlflow(
            forecast.registry_of(workspace),
            target,
            uri=uri,
            site=workspace.site.name,
            evaluated=evaluated,
            table_uris={name: workspace.table(name).uri for name in tables},
        )
    except ForecastError as error:
        return str(error)
    return f"{logged} version{'' if logged == 1 else 's'} logged to MLflow."


# -- making a forecast again


@dataclass(frozen=True)
class Reproduced:
    """A past forecast beside itself, made again.

    Attributes:
        issued: as it stands in the table.
        again: made from the recorded versions.
        model_version, features_version: those versions.
        is_identical: whether every value is the same to the last bit.
        packages: packages whose version has changed since the training: then and now.
    """

    issued: pa.Table
    again: pa.Table
    model_version: str
    features_version: int
    is_identical: bool
    packages: dict[str, tuple[str, str]] = field(default_factory=dict)


def reproduce(workspace: Workspace, target: str, issued_on: date) -> Reproduced:
    """Makes a past forecast again from the versions that it names: the model's files, and the features by Delta time travel.

    Raises:
        ForecastError: there is no such forecast, it was issued before versions were recorded, or a version is gone.
    """
    from lakehouse.forecasting.models.base import task_from_signature
    from lakehouse.forecasting.predict import forecast as predict
    from lakehouse.forecasting.training import package_versions

    task = forecast.task_of(workspace.site, target)
    issued = workspace.table(f"forecasts/{target}").read(f"date = DATE '{issued_on}'")
    if not issued.num_rows:
        raise ForecastError(
            f"No forecast of {target} was issued on {issued_on}.",
            f'Those there are: gridlake sql "SELECT DISTINCT date FROM forecasts.{target}"',
        )
    name, number = issued.column("model_version")[0].as_py(), issued.column("features_version")[0].as_py()
    if number is None:
        raise ForecastError(f"The forecast of {target} of {issued_on} does not name its features: it was issued by an older Gridlake.")
    version = None if name == "none" else forecast.registry_of(workspace).version(target, name)
    rows = forecast.features_between(workspace, target, issued_on, issued_on, version=number)
    again = predict(task_from_signature(version.task) if version else task, rows, version)
    columns = [c for c in issued.column_names if c in again.column_names]
    order = [(c, "ascending") for c in ("series_id", "issued_at", "valid_at")]
    before, after = issued.select(columns).sort_by(order).combine_chunks(), again.select(columns).sort_by(order).combine_chunks()
    now = package_versions()
    then = version.packages if version else now
    changed = {p: (then[p], now.get(p, "none")) for p in then if then[p] != now.get(p)}
    return Reproduced(before, after, name, number, _same(before, after), changed)


def _same(before: pa.Table, after: pa.Table) -> bool:
    after = after.cast(before.schema)
    return before.num_rows == after.num_rows and all(
        pc.all(pc.fill_null(pc.equal(before[c], after[c]), True)).as_py() and pc.is_null(before[c]).equals(pc.is_null(after[c]))
        for c in before.column_names
    )
