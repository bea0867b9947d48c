"""The registry's mirror in MLflow: every version a run and a registered model version, champion and challenger as aliases.

One way: forecasts go by the files of `registry.py`, so that issuing one neither imports MLflow nor waits for a server. What
could not be mirrored is caught up with next time. MLflow is imported when the first version is mirrored.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lakehouse.errors import ForecastError
from lakehouse.forecasting.registry import Registry
from lakehouse.forecasting.training import ModelVersion

SQLITE = "sqlite:///"
VERSION_TAG = "gridlake.version"
SETTINGS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "15",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}
"""Nothing is sent to MLflow's makers, a server that does not answer holds no training up, and a server's links are not printed
between our own lines. The environment goes before."""


def mirror(
    registry: Registry,
    target: str,
    *,
    uri: str,
    site: str,
    evaluated: Mapping[str, Mapping[str, float]] | None = None,
    table_uris: Mapping[str, str] | None = None,
) -> int:
    """Logs the versions of a target that MLflow does not have yet, and sets the aliases `champion` and `challenger`.

    A version becomes a finished run of the experiment `<site>/<target>`, with parameters, metrics (`unseen.…` of the issues that
    its calibration rests on, `rolling.…` of the evaluation), the Delta tables and versions that it read as data sets, and its
    folder as artifacts; and a version of the registered model `<site>.<target>`, told by the tag `gridlake.version`.

    Args:
        registry: the site's registry, the truth.
        target: of the versions.
        uri: tracking server, or `sqlite:///` and a path.
        site: the site's name.
        evaluated: measures of the rolling evaluation by kind, for the newest version of each.
        table_uris: where the tables lie that versions name.

    Returns:
        How many versions were logged.

    Raises:
        ForecastError: MLflow could not be reached, or refused.
    """
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    with _locked(uri):
        try:
            return _Mirror(uri, site, target, dict(table_uris or {})).catch_up(registry, evaluated or {})
        except ForecastError:
            raise
        except Exception as error:  # whatever the store throws: HTTP, SQL or files
            said = str(error).strip().splitlines() or [""]
            raise ForecastError(
                f"MLflow at {_without_secret(uri)} has not taken the versions of {target}: {type(error).__name__}: {said[0][:200]}",
                "Forecasts do not need it; the next training or `gridlake models track` catches up.",
            ) from error


class _Mirror:
    def __init__(self, uri: str, site: str, target: str, table_uris: Mapping[str, str]) -> None:
        import logging

        from mlflow import MlflowClient

        for logger in ("mlflow", "alembic"):
            logging.getLogger(logger).setLevel(logging.WARNING)
        self.client = MlflowClient(tracking_uri=uri, registry_uri=uri)
        self.name, self.target, self.table_uris = f"{site}.{target}", target, table_uris
        found = self.client.get_experiment_by_name(f"{site}/{target}")
        where = (Path(uri.removeprefix(SQLITE)).parent / "mlflow" / target).as_uri() if uri.startswith(SQLITE) else None
        self.experiment = found.experiment_id if found else self.client.create_experiment(f"{site}/{target}", artifact_location=where)

    def catch_up(self, registry: Registry, evaluated: Mapping[str, Mapping[str, float]]) -> int:
        versions = registry.versions(self.target)
        if not versions:
            return 0
        numbers = self._numbers()
        missing = [v for v in versions if v.version not in numbers]
        if missing:
            self._drop_unfinished()
        newest = {v.model: v.version for v in versions}
        for version in missing:
            measures = evaluated.get(version.model, {}) if newest[version.model] == version.version else {}
            numbers[version.version] = self._log(version, measures)
        champion = registry.champion(self.target)
        rivals = [v for v in versions if champion is not None and v.model != champion.model]
        for alias, chosen in (("champion", champion), ("challenger", rivals[-1] if rivals else None)):
            if chosen is not None:
                self.client.set_registered_model_alias(self.name, alias, numbers[chosen.version])
            elif alias in self.client.get_registered_model(self.name).aliases:
                self.client.delete_registered_model_alias(self.name, alias)
        return len(missing)

    def _numbers(self) -> dict[str, str]:
        """MLflow's number of each version that it has."""
        from mlflow.exceptions import MlflowException

        try:
            self.client.get_registered_model(self.name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            self.client.create_registered_model(self.name, description=f"{self.target} forecasts, as the site's models folder has them.")
            return {}
        found: list[Any] = []
        token = None
        while True:
            page = self.client.search_model_versions(f"name = '{self.name}'", page_token=token)
            found += page
            token = page.token
            if not token:
                return {one.tags[VERSION_TAG]: one.version for one in found if VERSION_TAG in one.tags}

    def _drop_unfinished(self) -> None:
        """Runs of a mirroring that was killed: their versions are logged again."""
        for run in self.client.search_runs([self.experiment], "attributes.status = 'RUNNING'"):
            self.client.delete_run(run.info.run_id)

    def _log(self, version: ModelVersion, measures: Mapping[str, float]) -> str:
        from mlflow.entities import Dataset, DatasetInput, Metric, Param, RunTag

        now = int(time.time() * 1000)
        run = self.client.create_run(self.experiment, start_time=now, run_name=version.version)
        identity = run.info.run_id
        numbers = {f"unseen.{n}": v for n, v in version.metrics.items()} | {f"rolling.{n}": v for n, v in measures.items()}
        metrics = [Metric(n, float(v), now, 0) for n, v in numbers.items() if v == v]  # MLflow's stores differ on NaN
        tags = {VERSION_TAG: version.version, "gridlake.kind": version.model, "gridlake.trained_until": version.trained_until.isoformat()}
        tags |= {f"gridlake.package.{name}": number for name, number in version.packages.items()}
        params = [Param(name, str(value)[:500]) for name, value in _parameters(version).items()]
        self.client.log_batch(identity, metrics=metrics, params=params, tags=[RunTag(n, v) for n, v in tags.items()])
        datasets = [
            Dataset(
                name=table,
                digest=f"version {number}",
                source_type="delta",
                source=json.dumps({"uri": self.table_uris.get(table, table), "version": number}),
            )
            for table, number in version.data_versions.items()
        ]
        self.client.log_inputs(identity, datasets=[DatasetInput(dataset=d, tags=[]) for d in datasets])
        self.client.log_artifacts(identity, str(version.folder), "version")
        self.client.set_terminated(identity)
        source = f"{run.info.artifact_uri}/version"
        made = self.client.create_model_version(self.name, source, identity, tags={VERSION_TAG: version.version, "kind": version.model})
        return made.version


def _parameters(version: ModelVersion) -> dict[str, Any]:
    """A version's parameters by dotted name."""
    flat: dict[str, Any] = {
        "kind": version.model,
        "trained_from": version.training_span[0],
        "trained_until": version.trained_until.isoformat(),
        "rows": version.rows,
        "features": len(version.feature_names),
        "seed": version.seed,
        "models_version": version.models_version,
    }
    task = {k: v for k, v in version.task.items() if k not in ("series_ids", "inputs")}
    task |= {"series": len(version.task.get("series_ids", ())), "inputs": ", ".join(i["name"] for i in version.task.get("inputs", ()))}
    for group, values in ({"task": task} | version.parameters).items():
        flat |= {f"{group}.{name}": value for name, value in values.items()} if isinstance(values, dict) else {group: values}
    return flat


@contextmanager
def _locked(uri: str) -> Iterator[None]:
    """One process at a time makes and fills a SQLite file; a server looks after itself."""
    if not uri.startswith(SQLITE):
        yield
        return
    import fcntl

    path = Path(uri.removeprefix(SQLITE))
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _without_secret(uri: str) -> str:
    scheme, mark, rest = uri.partition("://")
    return scheme + mark + rest.rpartition("@")[2]
