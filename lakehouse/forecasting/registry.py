"""The file registry of model versions: what was trained, what is champion, and how it became so.

Layout below the root: `<target>/versions/<version>/` (as `training` wrote it), `<target>/promotions.json`, a list that only grows,
and `<target>/training.json`, what was last tried. This is the truth that forecasts go by; `tracking.py` mirrors it to MLflow.
"""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lakehouse.errors import ForecastError
from lakehouse.forecasting import metrics
from lakehouse.forecasting.task import ForecastTask
from lakehouse.forecasting.training import METADATA_FILE, ModelVersion

SIGNIFICANCE = 0.05


@dataclass(frozen=True)
class Decision:
    """Outcome of a challenge: whether the challenger was promoted, and why."""

    is_promoted: bool
    reason: str
    statistic: float = 0.0
    p_value: float = 1.0


class Registry:
    """Model versions of all targets of a site.

    Args:
        root: folder of the registry; made when the first version is added.
    """

    def __init__(self, root: Path) -> None:
        self.root = Path(root)

    def folder_for(self, target: str, name: str) -> Path:
        """Where `training.train` should write a version that is to be added."""
        return self.root / target / "incoming" / name

    def add(self, version: ModelVersion) -> ModelVersion:
        """Takes a trained version in; training the same twice gives the same version and changes nothing."""
        home = self.root / version.target / "versions" / version.version
        if not home.exists():
            home.parent.mkdir(parents=True, exist_ok=True)
            staging = home.with_name("." + home.name)
            shutil.rmtree(staging, ignore_errors=True)
            shutil.copytree(version.folder, staging)
            staging.rename(home)
        if self.root / version.target / "incoming" in version.folder.parents:
            shutil.rmtree(version.folder, ignore_errors=True)
        return ModelVersion.read(home)

    def versions(self, target: str) -> list[ModelVersion]:
        """All versions of a target, oldest training first."""
        home = self.root / target / "versions"
        found = [ModelVersion.read(p.parent) for p in sorted(home.glob(f"*/{METADATA_FILE}"))] if home.exists() else []
        return sorted(found, key=lambda v: (v.trained_until, v.version))

    def version(self, target: str, name: str) -> ModelVersion:
        """One version by its identifier.

        Raises:
            ForecastError: if there is none of that name.
        """
        for candidate in self.versions(target):
            if candidate.version == name:
                return candidate
        raise ForecastError(
            f"There is no version {name!r} of the {target} model.",
            f"Versions: {', '.join(v.version for v in self.versions(target)) or 'none yet'}.",
        )

    def record_training(self, target: str, tried: dict[str, Any]) -> None:
        """Keeps what a training was asked for, so that a change of it asks for another."""
        self._write(self.root / target / "training.json", tried)

    def last_training(self, target: str) -> dict[str, Any]:
        """What the last training was asked for; empty before the first."""
        path = self.root / target / "training.json"
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}

    def promote(self, target: str, name: str, *, reason: str, at: pd.Timestamp) -> None:
        """Makes a version champion; `at` is the instant of the decision, for the record."""
        self.version(target, name)
        self._append(target, {"version": name, "at": pd.Timestamp(at).isoformat(), "reason": reason})

    def champion(self, target: str) -> ModelVersion | None:
        """The version in charge, None before the first promotion."""
        promotions = self.promotions(target)
        return self.version(target, promotions[-1]["version"]) if promotions else None

    def promotions(self, target: str) -> list[dict[str, Any]]:
        """All decisions, oldest first."""
        path = self.root / target / "promotions.json"
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else []

    def roll_back(self, target: str, *, at: pd.Timestamp, to: str | None = None) -> ModelVersion:
        """Puts an earlier champion back in charge: the one before the present, or a named one; those after it are withdrawn.

        Raises:
            ForecastError: if there was none, or the named version never was champion before the present one.
        """
        in_charge: list[str] = []
        for entry in self.promotions(target):
            if entry.get("rolled_back"):
                del in_charge[len(in_charge) - in_charge[::-1].index(entry["version"]) :]
            else:
                in_charge.append(entry["version"])
        earlier = in_charge[:-1]
        if not earlier:
            raise ForecastError(f"The {target} model can't be rolled back: no earlier champion is on record.")
        if to is not None and to not in earlier:
            raise ForecastError(
                f"The {target} model can't be rolled back to {to}: it was not champion before {in_charge[-1]}.",
                f"Earlier champions, newest first: {', '.join(reversed(earlier))}.",
            )
        back = to or earlier[-1]
        withdrawn = in_charge[len(in_charge) - in_charge[::-1].index(back) :]
        reason = f"rolled back from {in_charge[-1]}"
        self._append(target, {"version": back, "at": pd.Timestamp(at).isoformat(), "reason": reason, "rolled_back": withdrawn})
        return self.version(target, back)

    def model_for(self, target: str, issued_at: pd.Timestamp, task: ForecastTask | None = None) -> ModelVersion | None:
        """The newest promoted version (rolled-back ones aside) that was trained on nothing later than an issue.

        With a task, versions that another code or another description of the target made are passed over.
        """
        promotions = self.promotions(target)
        withdrawn: set[str] = set()
        for entry in promotions:
            withdrawn.update(entry.get("rolled_back", []))
            withdrawn.discard(entry["version"])
        promoted = {entry["version"] for entry in promotions} - withdrawn
        fitting = [v for v in self.versions(target) if v.version in promoted and v.trained_until <= pd.Timestamp(issued_at)]
        usable = [v for v in fitting if task is None or v.is_made_for(task)]
        return usable[-1] if usable else None

    def challenge(
        self,
        target: str,
        name: str,
        *,
        at: pd.Timestamp,
        challenger_loss: np.ndarray | None = None,
        champion_loss: np.ndarray | None = None,
        significance: float = SIGNIFICANCE,
    ) -> Decision:
        """Promotes a version if it earned it, and says why or why not.

        The first version is promoted. A retrained version of the champion's own kind replaces it unless it is significantly
        worse. A version of another kind must be significantly better (Diebold-Mariano on the mean loss of each issue day).

        Args:
            target, name: the challenger.
            at: instant of the decision.
            challenger_loss, champion_loss: mean loss per issue day on the same past issues, in the same order.
            significance: level of the one-sided test.
        """
        challenger, champion = self.version(target, name), self.champion(target)
        if champion is None:
            decision = Decision(True, "first version of this target")
        elif champion.version == challenger.version:
            return Decision(False, "is champion already")
        elif (champion.models_version, champion.task) != (challenger.models_version, challenger.task):
            decision = Decision(True, f"{champion.version} was made by other code or for another description of the target")
        elif challenger_loss is None or champion_loss is None:
            same = champion.model == challenger.model
            decision = Decision(
                same, "the champion's own kind, retrained on newer data" if same else "no losses on common issues to compare by"
            )
        else:
            statistic, p_better = metrics.diebold_mariano(challenger_loss, champion_loss)
            _, p_worse = metrics.diebold_mariano(champion_loss, challenger_loss)
            if p_better < significance:
                decision = Decision(
                    True, f"better than {champion.version} (Diebold-Mariano {statistic:.2f}, p {p_better:.3f})", statistic, p_better
                )
            elif champion.model == challenger.model and p_worse >= significance:
                decision = Decision(True, "the champion's own kind, retrained on newer data, and not worse", statistic, p_better)
            else:
                decision = Decision(
                    False,
                    f"not better than {champion.version} beyond chance (Diebold-Mariano {statistic:.2f}, p {p_better:.3f})",
                    statistic,
                    p_better,
                )
        if decision.is_promoted:
            self.promote(target, name, reason=decision.reason, at=at)
        return decision

    def _append(self, target: str, entry: dict[str, Any]) -> None:
        self._write(self.root / target / "promotions.json", [*self.promotions(target), entry])

    @staticmethod
    def _write(path: Path, content: Any) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        staging = path.with_name(f".{path.stem}.{os.getpid()}.json")
        staging.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        staging.replace(path)
