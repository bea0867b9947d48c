"""models: one row per trained version of a target's models; the models themselves lie in the site's models folder."""

from __future__ import annotations

from collections.abc import Mapping

import dagster as dg

from assets.skin import Outcome, check_result, check_spec, key_of, table_assets
from lakehouse.flow import forecast
from lakehouse.flow.tables import models_contract
from lakehouse.flow.workspace import Workspace
from lakehouse.site import Site


def model_assets(site: Site) -> list[dg.AssetsDefinition]:
    """One asset per forecast target."""
    return [_models(site, target) for target in site.series]


def _models(site: Site, target: str) -> dg.AssetsDefinition:
    table = f"models/{target}"
    beats = check_spec(table, "beats_seasonal_naive", "The champion's mean absolute error on the last weeks is below the seasonal naive's.")

    @table_assets(models_contract(target), deps=[dg.AssetDep(key_of(f"features/{target}"))], checks=[beats], kinds=frozenset({"python"}))
    def models(context: dg.AssetExecutionContext, workspace: Workspace) -> Mapping[str, Outcome]:
        """Evaluates the models on a rolling origin, trains a version of each, and promotes the better one by the Diebold-Mariano test."""
        trained = forecast.train_models(workspace, target)
        kind = trained.champion.split("-", 1)[0]
        untrained = "No model could be trained; the naive chain forecasts, and says so. " + trained.reason
        own, naive = trained.evaluated.get(kind), trained.evaluated.get("seasonal_naive")
        ratio = own["mae"] / naive["mae"] if own and naive and naive["mae"] else float("nan")
        told = (
            f"{trained.champion}: mean absolute error {ratio:.2f} × the seasonal naive's on the last weeks."
            if own
            else untrained
            if not kind
            else "The history is too short to evaluate."
        )
        metadata = {
            "champion": trained.champion or "none",
            "why": trained.reason,
            "mlflow": trained.tracked or "nothing to log",
            "evaluation": dg.MetadataValue.md(_as_table(trained.evaluated)),
        }
        return {
            table: Outcome(trained.commit, metadata, [check_result(table, "beats_seasonal_naive", bool(kind) and not ratio >= 1, told)])
        }

    return models


def _as_table(evaluated: Mapping[str, Mapping[str, float]]) -> str:
    measures = ("mae", "rmse", "wape", "pinball", "coverage_80")
    head = f"| model | {' | '.join(measures)} |\n| --- |{' ---: |' * len(measures)}\n"
    rows = [[f"{found[name]:.4g}" if name in found else "" for name in measures] for found in evaluated.values()]
    return head + "".join(f"| {model} | {' | '.join(row)} |\n" for model, row in zip(evaluated, rows, strict=True))
