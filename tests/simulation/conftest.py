from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import duckdb
import pytest

from lakehouse.simulation import Simulation, simulate

FIRST, LAST = date(2026, 2, 20), date(2026, 4, 25)  # holds the Spanish clock change of 29 March 2026
DIRTY: dict[str, Any] = {"seed": 3, "meters": 40, "first_day": FIRST, "dirt": 4.0}


@dataclass(frozen=True)
class Made:
    simulation: Simulation
    landing: Path
    truth: Path

    def sql(self, query: str) -> list[tuple[Any, ...]]:
        """Runs SQL with {truth} and {landing} filled in, in UTC."""
        with duckdb.connect() as engine:
            engine.execute("SET TimeZone = 'UTC'")
            return engine.execute(query.format(truth=self.truth, landing=self.landing)).fetchall()


@pytest.fixture(scope="session")
def dirty(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """A small utility with four times the usual dirt over two months."""
    home = tmp_path_factory.mktemp("dirty")
    made = simulate(home / "landing", last_day=LAST, **DIRTY)
    return Made(made, home / "landing", home / "truth")
