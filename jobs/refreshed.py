"""What a refresh tells: of each step while it is at it, and of all in the end. Without Dagster, which takes longer to load than a look."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from lakehouse.flow.staleness import Step

Tell = Callable[[str, Step, float], None]


@dataclass
class Refreshed:
    """What a refresh did."""

    steps: list[tuple[Step, float]] = field(default_factory=list)
    failed: list[tuple[Step, str]] = field(default_factory=list)
