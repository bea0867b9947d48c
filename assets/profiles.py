"""How much memory and how many cores each step asks for on Kubernetes, and whether it needs a pod of its own.

One table for all; elsewhere than on Kubernetes the tags that follow from it mean nothing. What a pod is, stands in
`resources/executor.py` and `deploy/`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from resources.executor import OWN_POD_TAG


@dataclass(frozen=True)
class Profile:
    """What a step needs.

    Args:
        memory_mib: requested and limited alike, so that a node's memory is never promised twice.
        cpu: requested; not limited, since an idle core is no use to anybody.
        own_pod: whether the step needs more than a run pod has, or is to be repeated without what ran before it.
    """

    memory_mib: int
    cpu: int
    own_pod: bool


PROFILES = {
    "small": Profile(memory_mib=2048, cpu=1, own_pod=False),
    "wide": Profile(memory_mib=8192, cpu=2, own_pod=True),
    "train": Profile(memory_mib=6144, cpu=4, own_pod=True),
    "solve": Profile(memory_mib=3072, cpu=2, own_pod=True),
}
"""A run pod is "small"; deploy/kubernetes/base/dagster.yaml gives it the same size, and a test holds the two together."""

PROFILE_OF_STEP = {
    "clean_meter_readings": "wide",
    "dispatch": "solve",
    "dispatch_regret": "solve",
}
PROFILE_OF_LAYER = {"models": "train"}


def profile_of(step: str, layer: str) -> Profile:
    """The profile of a step: its own, else that of its layer, else the small one."""
    return PROFILES[PROFILE_OF_STEP.get(step) or PROFILE_OF_LAYER.get(layer, "small")]


def op_tags_of(step: str, layer: str) -> dict[str, Any]:
    """A step's tags: the size of its pod as dagster-k8s reads it; a run pod gets its size from the run launcher."""
    profile = profile_of(step, layer)
    if not profile.own_pod:
        return {}
    return {OWN_POD_TAG: "true", "dagster-k8s/config": {"container_config": container_config(profile)}}


def container_config(profile: Profile) -> dict[str, Any]:
    """Resources of a container, and how many threads the libraries in it may begin and how much DuckDB may hold in memory."""
    memory = f"{profile.memory_mib}Mi"
    return {
        "resources": {"requests": {"cpu": str(profile.cpu), "memory": memory}, "limits": {"memory": memory}},
        "env": [
            {"name": "GRIDLAKE_DUCKDB_MEMORY", "value": f"{profile.memory_mib // 2}MiB"},
            {"name": "OMP_NUM_THREADS", "value": str(profile.cpu)},
        ],
    }
